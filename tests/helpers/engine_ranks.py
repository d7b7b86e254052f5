"""What each of two processes does in test_engine_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from nonfinite import Sometimes
from small_models import CountingNet, images_batch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.errors import NonFiniteError
from contrastive_sr.methods import Methods, build_methods

WORLD = 2
STEPS = 4
EMBEDDING = {"type": "HaarDiscriminator", "out_indices": [0]}
CONFIGS = [
    {"type": "PCL", "every": 1, "embedding": EMBEDDING},
    {"type": "MPF", "variant": 6, "embedding": EMBEDDING, "warmup_steps": 2, "loss_weight": 0.001},
    {"type": "PCL", "name": "rare", "every": 3, "embedding": EMBEDDING, "loss_weight": 0.001},
    {"type": "InfoNCE", "embedding": EMBEDDING, "dim": 4, "train_embedding": 2, "loss_weight": 0.001},
]


def work(index: int, folder: str) -> None:
    """Four steps with four methods. The second begins at the third step, the third takes part in the first and the
    last, and of the fourth the embedding, but not the heads, learns in the first two alone.

    Saves all states and the logs.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    torch.manual_seed(0)
    methods, net = build_methods(CONFIGS), CountingNet()
    methods.attach(net)
    before = {name: value.clone() for name, value in methods.state_dict().items()}
    wrapped_net, wrapped = DistributedDataParallel(net), DistributedDataParallel(methods)
    # with momentum, which would move parts that rest
    optimizers = [torch.optim.SGD(part.parameters(), 0.01, momentum=0.9) for part in (net, methods)]
    logs: list[dict[str, float]] = []
    states: list[dict[str, Tensor]] = []
    for step in range(STEPS):
        batch = methods.run(wrapped_net, images_batch(seed=WORLD * step + index))
        optimizers[1].zero_grad()
        sum(wrapped(batch).values()).backward()
        methods.drop_idle_gradients()
        optimizers[1].step()
        pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contrast = methods.sr_losses(batch, pixel_loss)
        optimizers[0].zero_grad()
        (pixel_loss + contrast.loss).backward()
        optimizers[0].step()
        logs.append({name: value.item() for name, value in contrast.metrics.items()})
        states.append({name: value.clone() for name, value in methods.state_dict().items()})
    torch.save((before, states, logs), Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


BAD_STEPS = {1: "term", 2: "auxiliary", 4: "sr", 5: "both", 7: "term"}  # on the second rank; the last is one too many


def work_nonfinite(index: int, folder: str) -> None:
    """Steps of which some are bad on the second process alone, until the one too many.

    Saves the states of network and methods, the logs, the names of the auxiliary losses, and the error.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    torch.manual_seed(0)
    others = list(build_methods([{"type": "PCL", "every": 1, "embedding": EMBEDDING, "loss_weight": 0.001}]))
    methods, net = Methods([Sometimes(BAD_STEPS if index else {}), *others], skip_nonfinite=4), CountingNet()
    methods.attach(net)
    wrapped_net, wrapped = DistributedDataParallel(net), DistributedDataParallel(methods)
    optimizers = [torch.optim.SGD(part.parameters(), 0.01, momentum=0.9) for part in (net, methods)]
    logs: list[dict[str, float]] = []
    names: list[list[str]] = []
    warned: list[str] = []
    error = ""
    for step in range(max(BAD_STEPS) + 1):
        images = images_batch(seed=WORLD * step + index)
        if index and BAD_STEPS.get(step) == "sr":
            images["lr"][0, 0, 0, 0] = torch.nan
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                batch = methods.run(wrapped_net, images)
                own = wrapped(batch)
                if own:
                    optimizers[1].zero_grad()
                    sum(own.values()).backward()
                    methods.drop_idle_gradients()
                    optimizers[1].step()
                pixel_loss = F.l1_loss(batch["sr"], batch["hr"]).nan_to_num()
                contrast = methods.sr_losses(batch, pixel_loss)
            except NonFiniteError as raised:
                error = str(raised)
                break
        warned += [str(warning.message) for warning in caught if "skip_nonfinite" in str(warning.message)]
        logs.append({name: value.item() for name, value in contrast.metrics.items()})
        names.append(list(own))
        if BAD_STEPS.get(step) != "sr":  # what a loop does there is its own affair: this one leaves the step out
            optimizers[0].zero_grad()
            (pixel_loss + contrast.loss).backward()
            optimizers[0].step()
    torch.save((net.state_dict(), methods.state_dict(), logs, names, warned, error), Path(folder) / f"{index}.pt")
    dist.destroy_process_group()
