"""A network used as a fixed function of the LR images: a teacher, or the past of the network in training."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.embeddings import training_mode
from contrastive_sr.errors import DataError
from contrastive_sr.networks.call import NetworkCall
from contrastive_sr.samples.base import Batch


def fixed_output(
    network: nn.Module, batch: Batch, name: str, role: str, hint: str = "", call: NetworkCall | None = None
) -> Tensor:
    """The SR images of a network in eval mode, without gradient and autocast.

    Args:
        network: on the batch's device.
        batch: ``"lr"`` (B, C, h, w) and ``"hr"`` (B, C, s h, s w), in [0, 1].
        name: name of the sample generator, for messages.
        role: the network's role there, for messages.
        hint: what to try where it fails, for messages.
        call: how it is called. None: as ``sr = network(lr)``.

    Returns:
        (B, C, s h, s w), as the network gives them.

    Raises:
        DataError: the batch has no ``"lr"``, the network cannot take it, or is for another scale.
    """
    if "lr" not in batch:
        raise DataError(f"{name}: expected a batch with 'lr', got {sorted(batch)}.")
    lr, hr = batch["lr"], batch["hr"]
    kind = type(network).__name__
    super_resolve = network if call is None else partial(call, network)
    with torch.no_grad(), torch.autocast(lr.device.type, enabled=False), training_mode(network, False):
        try:
            sr = super_resolve(lr.to(next(network.parameters(), lr).dtype))
        except Exception as error:  # the errors of all networks have no common base
            raise DataError(
                f"{name}: {kind} fails on LR images {tuple(lr.shape)} ({describe_error(error)}).{hint}"
            ) from error
    if not isinstance(sr, Tensor) or sr.shape != hr.shape:
        got = tuple(sr.shape) if isinstance(sr, Tensor) else describe(sr)
        raise DataError(
            f"{name}: expected SR images {tuple(hr.shape)} of LR images {tuple(lr.shape)} from {role}, {kind}, got "
            f"{got}. Is it of another scale?"
        )
    return sr.to(hr.dtype)
