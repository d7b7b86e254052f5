"""A training loop as docs/own_loop.md has it, with a method or without."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.methods import Methods, build_methods

Config = dict[str, Any]


class Loop:
    """A training loop, of one SR network.

    Args:
        net: the SR network.
        config: of a method; None: L1 alone.
        device: where it trains.
        dtype: of everything.
    """

    def __init__(
        self, net: nn.Module, config: Config | None, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.net = net.to(device, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without a teacher, weights beside it
            self.methods = build_methods([config]) if config else Methods([])
        self.methods.attach(self.net)
        self.methods.to(device, dtype)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-4)
        own = [p for p in self.methods.parameters() if p.requires_grad]
        self.own = torch.optim.Adam(own, 1e-4) if own else None

    def step(self, images: Mapping[str, Tensor], scaler: Any = None, amp: torch.dtype | None = None) -> Tensor:
        """One step; the SR network's loss."""
        kind = images["hr"].device.type
        with torch.autocast(kind, amp) if amp else contextlib.nullcontext():
            batch = self.methods.run(self.net, dict(images))
            auxiliary = self.methods.auxiliary_losses(batch)
        if auxiliary and self.own is not None:
            self.own.zero_grad()
            torch.stack([x.float() for x in auxiliary.values()]).sum().backward()
            self.own.step()
        with torch.autocast(kind, amp) if amp else contextlib.nullcontext():
            pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
            loss = pixel_loss + self.methods.sr_losses(batch, pixel_loss).loss
        self.optimizer.zero_grad()
        if scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(self.optimizer)
            scaler.update()
        return loss.detach()
