"""Positives from a trained SR network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.embeddings.weights import load_weights
from contrastive_sr.errors import ConfigError
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator
from contrastive_sr.samples.fixed import fixed_output


@SAMPLES.register
class TeacherOutput(SampleGenerator):
    """The SR image that a trained network, the teacher, makes of the LR image (MPF-Net eq. 7).

    The teacher is fixed: eval mode, no gradient. It is not part of any module, and so of no optimizer and no checkpoint
    of the training. Its images are clamped to [0, 1].

    Args:
        network: a mapping such as ``{"type": "MPFNet", "scale": 4}``, for one of our networks or one of the training
            framework in use; or a network, called as ``sr = network(lr)``.
        weights: its trained weights: the checkpoint of a training, or a plain state dict; see
            :func:`contrastive_sr.embeddings.load_weights`. May be left out for a network that is built already.

    Raises:
        ConfigError: an unknown network, a network without weights, or a file that is missing or does not fit.

    Example:
        >>> teacher = TeacherOutput(nn.Upsample(scale_factor=4))
        >>> teacher({"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 1, 3, 32, 32])
    """

    paper = "MPF-Net"

    def __init__(self, network: Mapping[str, object] | nn.Module, *, weights: str | Path | None = None) -> None:
        super().__init__(count=1)
        if weights is None and not isinstance(network, nn.Module):
            raise ConfigError(
                f"TeacherOutput(weights): expected the file of a trained network, got none for {describe(network)}. "
                "A teacher without training teaches noise."
            )
        self.network = build(NETWORKS, network, "TeacherOutput(network)")
        if weights is not None:
            hint = f" The teacher is {describe(network)}. Give `network` the settings it was trained with."
            load_weights(self.network, weights, key="TeacherOutput(weights)", hint=hint)
        self.network.requires_grad_(False)
        self._device: torch.device | None = None

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The teacher's SR images.

        Args:
            batch: ``"lr"`` (B, C, h, w) and ``"hr"`` (B, C, s h, s w), in [0, 1].
            generator: not used.

        Returns:
            (B, 1, C, s h, s w) in [0, 1].

        Raises:
            DataError: the batch has no ``"lr"``, the teacher cannot take it, or is for another scale.
        """
        if "lr" in batch and batch["lr"].device != self._device:
            self._device = batch["lr"].device
            self.network.to(self._device)
        hint = " It is given RGB images in [0, 1]; a grey one is three equal channels."
        return fixed_output(self.network, batch, "TeacherOutput", "the teacher", hint).clamp(0, 1)[:, None]
