"""What each of two processes does in test_dasr_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from small_models import CountingNet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr import networks
from contrastive_sr.methods import Method, MethodList, build_methods

WORLD = 2
STEPS = 4
WARMUP = 2
DASR = {"type": "DASR", "loss_weight": 0.01, "queue_size": 5, "momentum": 0.5, "warmup_steps": WARMUP}
AUXILIARY = {"type": "DegradationContrast", "queue_size": 5, "momentum": 0.5}
CRL_SR = {"type": "CRLSR", "loss_share": 0.05, "decoupling_share": 0.05, "dim": 6, "positions": 4, "warm_start": 1}


def images(step: int, index: int) -> dict[str, Tensor]:
    """LR, HR and key images of one rank: two of each."""
    generator = torch.Generator().manual_seed(10 * step + index)
    sizes = {"lr": 6, "hr": 24, "lr_key": 6}
    return {key: torch.rand(2, 3, size, size, generator=generator, dtype=torch.float64) for key, size in sizes.items()}


def joined(step: int, indices: list[int]) -> dict[str, Tensor]:
    """The batch of some ranks."""
    parts = [images(step, index) for index in indices]
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
    if kind == "dasr":
        net = networks.DASR(channels=4, groups=1, blocks=1)
    elif kind == "crl_sr":
        net = networks.CRLSR(channels=4, encoder_blocks=2, decoder_blocks=1)
    else:
        net = CountingNet()
    return net.double()


def train(kind: str, indices: list[int], seed: int = 0, wrap: bool = False, statistics: bool = False) -> dict[str, Any]:
    """Some steps as the hosts do them, on the joined batches of some ranks."""
    config = {"dasr": DASR, "auxiliary": AUXILIARY, "crl_sr": CRL_SR}[kind]
    bare_net, torch_seed = network(kind, seed), seed
    torch.manual_seed(torch_seed)
    methods = build_methods([config])
    methods.attach(bare_net)  # as MMagic does, before the ranks agree on weights
    methods.double()
    if not statistics:
        without_batch_statistics(bare_net)
        without_batch_statistics(methods)
    net: nn.Module = DistributedDataParallel(bare_net) if wrap else bare_net
    wrapped: nn.Module = DistributedDataParallel(methods) if wrap and methods.trainable else methods
    net_optimizer = torch.optim.SGD(bare_net.parameters(), 0.1)
    optimizer = torch.optim.SGD(methods.parameters(), 0.1)
    out: dict[str, Any] = {"logs": [], "states": []}
    for step in range(STEPS):
        batch = methods.run(net, joined(step, indices))
        auxiliary = wrapped(batch)
        if auxiliary:
            optimizer.zero_grad()
            torch.stack(list(auxiliary.values())).sum().backward()
            optimizer.step()
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = methods.sr_losses(batch, pixel)
        net_optimizer.zero_grad()
        (losses.host(pixel) + losses.total).backward()
        net_optimizer.step()
        out["logs"].append({name: value.item() for name, value in {**auxiliary, **losses.logs}.items()})
        out["states"].append(_state(bare_net, methods))
    return out


def _state(net: nn.Module, methods: MethodList | Method) -> dict[str, Tensor]:
    states = {"net": net.state_dict(), "methods": methods.state_dict()}
    return {f"{part}.{name}": value.clone() for part, state in states.items() for name, value in state.items()}


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``. The ranks start from other weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    out: dict[str, Any] = {
        kind: train(kind, [index], seed=index, wrap=True) for kind in ("dasr", "auxiliary", "crl_sr")
    }
    out["statistics"] = train("dasr", [index], seed=index, wrap=True, statistics=True)
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
