"""What each of two processes does in test_mcl_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from host import Training, methods_on
from small_models import CountingNet, SmoothEmbedding, images_batch
from torch import Tensor, nn

from contrastive_sr.methods import MCL

WORLD = 2
STEPS = 4


class WithNorm(nn.Module):
    """A network whose statistics are those of its own images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(3), CountingNet()

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.net(self.norm(lr))
        return sr


NETS: dict[str, type[nn.Module]] = {"plain": CountingNet, "norm": WithNorm}


def train(kind: str, indices: list[int], seed: int = 0, wrap: bool = False) -> dict[str, Any]:
    """Some steps as the hosts do them, on the joined batches of some ranks."""
    torch.manual_seed(0)
    embedding = SmoothEmbedding()
    past = {"type": "PastOutput", "decay": [0.9, 0.1], "interval": [1, 2]}
    method = MCL(embedding=embedding, train_embedding=False, loss_share=0.3, negatives=[past], phase="fixed")
    torch.manual_seed(seed)
    net = NETS[kind]().double()
    training = Training(net, methods_on(net, method).double(), partial(torch.optim.SGD, lr=1.0), wrap)
    for step in range(STEPS):
        parts = [images_batch(seed=10 * step + index, size=16) for index in indices]
        training.step({key: torch.cat([part[key] for part in parts]).double() for key in ("lr", "hr")})
    return {"states": training.states(), "logs": training.logs}


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``. The ranks start from other weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    torch.save({kind: train(kind, [index], seed=index, wrap=True) for kind in NETS}, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
