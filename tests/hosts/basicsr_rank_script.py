"""Trains as `contrastive-sr train` does, and keeps the methods' state of every process, to be compared afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from contrastive_sr.hosts.basicsr.runner import train
from contrastive_sr.hosts.basicsr.training import WithMethods

save = WithMethods.save


def save_every_rank(self: Any, epoch: int, current_iter: int) -> None:
    save(self, epoch, current_iter)
    lr = self._extra.get("lr", getattr(self, "lq", None))  # a validation has removed lq
    torch.save((self.methods.state_dict(), lr), f"rank{self.opt['rank']}.pth")


if __name__ == "__main__":
    WithMethods.save = save_every_rank
    train(Path(sys.argv[1]), sys.argv[2:])
