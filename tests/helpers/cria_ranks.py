"""What each of two processes does in test_cria_cl_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cria_models import branches, cria, pairs
from host import Training, methods_on

WORLD = 2
STEPS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    # without a discriminator, whose BatchNorm sees each rank's own images
    "pixels": {"sr_criteria": [], "positives": [{"type": "Pixel", "norm": "l2"}], "negatives": ["SSIM"]},
    "adversarial": {},
}


def train(kind: str, indices: list[int], seed: int = 1, wrap: bool = False) -> dict[str, Any]:
    """Some steps as the hosts do them, on the joined batches of some ranks."""
    net = branches(seed).double()
    methods = methods_on(net, cria(normalize=True, align_share=0.05, train_masks=True, **SETTINGS[kind])).double()
    training = Training(net, methods, partial(torch.optim.SGD, lr=0.1), wrap)
    states = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(STEPS):
            parts = [pairs(seed=10 * step + index) for index in indices]
            training.step({key: torch.cat([part[key] for part in parts]).double() for key in parts[0]})
            states.append(training.states())
    return {"logs": training.logs, "states": states}


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``. The ranks start from other weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    out = {kind: train(kind, [index], seed=1 + index, wrap=True) for kind in SETTINGS}
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
