"""What each of two processes does in test_engine_ranks.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from small_models import CountingNet, images_batch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.methods import build_methods

WORLD = 2
STEPS = 4
EMBEDDING = {"type": "HaarDiscriminator", "out_indices": [0]}
CONFIGS = [
    {"type": "PCL", "embedding": EMBEDDING},
    {"type": "MPF", "variant": 6, "embedding": EMBEDDING, "warmup_steps": 2, "loss_weight": 0.001},
    {"type": "PCL", "name": "rare", "every": 3, "embedding": EMBEDDING, "loss_weight": 0.001},
]


def work(index: int, folder: str) -> None:
    """Four steps with three methods: the second begins at the third, the third takes part in the first and the last.

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
