"""What each of two processes does in test_mpf_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from host import Training
from small_models import CountingNet, images_batch

from contrastive_sr.losses import FakeContrastLoss, SimCLRLoss
from contrastive_sr.methods import build_methods

WORLD = 2
STEPS = 3
WARMUP = 1
SIZES = [(2, 2), (3, 1), (2, 0), (0, 2)]  # of the batches of two ranks
LOSSES = {"simclr": SimCLRLoss, "fake": FakeContrastLoss}


def loss_run(kind: str, sizes: tuple[int, int], indices: list[int], gather: bool) -> dict[str, Any]:
    """A loss on the joined vectors of some ranks, and its gradients."""
    generator = torch.Generator().manual_seed(sizes[0])
    parts = [torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64).split(sizes) for _ in range(2)]
    leaves = [torch.cat([part[index] for index in indices]).requires_grad_() for part in parts]
    value = LOSSES[kind](temperature=0.5, gather=gather)(*leaves)
    value.backward()
    return {"loss": value.item(), "gradients": [leaf.grad for leaf in leaves]}


def train(training: str, indices: list[int], wrap: bool) -> dict[str, Any]:
    """Both phases of MPF on the joined batches of some ranks; the method's state and logs."""
    torch.manual_seed(0 if not wrap else indices[0])  # DistributedDataParallel gives all ranks the first one's weights
    embedding = {"type": "SNResNet18", "out_indices": [0]}
    config = {"type": "MPF", "variant": 6, "loss_weight": 0.1, "embedding": embedding, "phase": "fixed"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        methods = build_methods([{**config, "embedding_training": training, "warmup_steps": WARMUP}])
    torch.manual_seed(0)
    net = CountingNet()
    methods.attach(net)
    run = Training(net, methods, partial(torch.optim.SGD, lr=0.01), wrap)
    for step in range(STEPS):
        parts = [images_batch(seed=10 * step + index, size=24) for index in indices]
        run.step({key: torch.cat([part[key] for part in parts]) for key in ("lr", "hr")})
    return {"state": methods.state_dict(), "net": net.state_dict(), "logs": run.logs}


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    out: dict[str, Any] = {
        (kind, sizes): loss_run(kind, sizes, [index], gather=True) for kind in LOSSES for sizes in SIZES
    }
    out.update({training: train(training, [index], wrap=True) for training in ("dual", "contrad")})
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
