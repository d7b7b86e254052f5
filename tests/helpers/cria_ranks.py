"""What each of two processes does in test_cria_cl_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from cria_models import branches, cria, pairs
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.methods import MethodList

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
    methods = MethodList([cria(normalize=True, align_share=0.05, train_masks=True, **SETTINGS[kind])])
    methods.attach(net)
    methods.double()
    wrapped_net: nn.Module = DistributedDataParallel(net) if wrap else net
    wrapped: nn.Module = DistributedDataParallel(methods) if wrap and methods.trainable else methods
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    own = torch.optim.SGD(methods.parameters(), 0.1) if methods.trainable else None
    out: dict[str, Any] = {"logs": [], "states": []}
    for step in range(STEPS):
        parts = [pairs(seed=10 * step + index) for index in indices]
        joined = {key: torch.cat([part[key] for part in parts]).double() for key in parts[0]}
        batch = methods.run(wrapped_net, joined)
        auxiliary = wrapped(batch)
        if own is not None:
            own.zero_grad()
            sum(auxiliary.values()).backward()
            own.step()
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = methods.sr_losses(batch, pixel)
        optimizer.zero_grad()
        (pixel + losses.total).backward()
        optimizer.step()
        out["logs"].append({name: value.item() for name, value in {**auxiliary, **losses.logs}.items()})
        states = {"net": net.state_dict(), "methods": methods.state_dict()}
        out["states"].append({f"{part}.{k}": v.clone() for part, state in states.items() for k, v in state.items()})
    return out


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``. The ranks start from other weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    out = {kind: train(kind, [index], seed=1 + index, wrap=True) for kind in SETTINGS}
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
