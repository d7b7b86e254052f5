"""What each of two processes does in test_dasr_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from host import Training
from small_models import CountingNet
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr.methods import build_methods

WORLD = 2
STEPS = 4
WARMUP = 2
DASR = {"type": "DASR", "loss_weight": 0.01, "queue_size": 5, "momentum": 0.5, "warmup_steps": WARMUP}
CONFIGS: dict[str, dict[str, Any]] = {
    "dasr": DASR,
    "split": {**DASR, "split_lr": True},  # the encoder is called once more
    "whole": DASR,  # the warm-up runs the whole network
    "auxiliary": {"type": "DegradationContrast", "queue_size": 5, "momentum": 0.5},
    "crl_sr": {
        "type": "CRLSR",
        "loss_share": 0.05,
        "decoupling_share": 0.05,
        "dim": 6,
        "positions": 4,
        "warmup_steps": 1,
    },
}

WARMING_UP = ["dasr", "split", "whole"]


def images(kind: str, step: int, index: int) -> dict[str, Tensor]:
    """LR, HR and key images of one rank: two of each."""
    generator = torch.Generator().manual_seed(10 * step + index)
    sizes = {"lr": 6, "hr": 24, **({} if kind == "split" else {"lr_key": 6})}
    return {key: torch.rand(2, 3, size, size, generator=generator, dtype=torch.float64) for key, size in sizes.items()}


def joined(kind: str, step: int, indices: list[int]) -> dict[str, Tensor]:
    """The batch of some ranks."""
    parts = [images(kind, step, index) for index in indices]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def without_batch_statistics(module: nn.Module) -> None:
    """Let BatchNorm use its running statistics, so that a batch's images do not see each other."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def network(kind: str, seed: int) -> nn.Module:
    """A small network, of other weights for another seed."""
    torch.manual_seed(seed)
    net: nn.Module
    if kind in WARMING_UP:
        net = networks.DASR(channels=4, groups=1, blocks=1)
    elif kind == "crl_sr":
        net = networks.CRLSR(channels=4, encoder_blocks=2, decoder_blocks=1)
    else:
        net = CountingNet()
    return net.double()


def train(kind: str, indices: list[int], seed: int = 0, wrap: bool = False, statistics: bool = False) -> dict[str, Any]:
    """Some steps as the hosts do them, on the joined batches of some ranks."""
    net = network(kind, seed)
    torch.manual_seed(seed)
    methods = build_methods([CONFIGS[kind]])
    if kind == "whole":
        methods["dasr"].warmup_module = None
    methods.attach(net)  # as MMagic does, before the ranks agree on weights
    methods.double()
    if not statistics:
        without_batch_statistics(net)
        without_batch_statistics(methods)
    training = Training(net, methods, partial(torch.optim.SGD, lr=0.1), wrap)
    states = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(STEPS):
            training.step(joined(kind, step, indices))
            states.append(training.states())
    return {"logs": training.logs, "states": states}


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``. The ranks start from other weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    out: dict[str, Any] = {kind: train(kind, [index], seed=index, wrap=True) for kind in CONFIGS}
    out["statistics"] = train("dasr", [index], seed=index, wrap=True, statistics=True)
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
