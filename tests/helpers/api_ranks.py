"""All that is public, with its defaults, on the same data in each process; for tests/test_ranks_of_all.py.

A program: its processes are forked, so that what takes longest, the imports, is done once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from fuzzing import TESTS, Source, _imported, collected
from small_models import CountingNet, images_batch
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr._random import seed_of
from contrastive_sr.embeddings import EMBEDDINGS, DegradationEncoder, TrainableEmbedding, training_mode
from contrastive_sr.errors import DataError
from contrastive_sr.methods import Method, Methods, Step, build_methods

WORLDS = (2, 3)
WITH_FILES = ("TimmFeatures", "VGGFeatures")  # embeddings whose weights come from elsewhere; both are fixed
SMALL_DASR = {"channels": 4, "groups": 1, "blocks": 1}
NETWORKS: Mapping[str, Any] = {
    "CRLSR": partial(networks.CRLSR, channels=5, encoder_blocks=3, decoder_blocks=1),
    "DASR": partial(networks.DASR, **SMALL_DASR),
    "TrueKernel": partial(networks.DASR, variant="oracle", **SMALL_DASR),
}

Results = dict[str, dict[str, Tensor]]


def of_losses() -> Results:
    """Value and gradients of each function and loss."""
    results: Results = {}
    for name, case in _imported(TESTS / "test_fuzz_losses.py").CASES.items():
        source, value = _first_accepted(case)
        leaves = [x for x in source.made if x.requires_grad]
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else []
        named = {f"gradient {index}": x for index, x in enumerate(gradients) if x is not None}
        results[name] = {"value": value.detach(), **named}
    return results


def _first_accepted(case: Callable[[Source], Any]) -> tuple[Source, Tensor]:
    """The first random tensors that a case does not refuse for their shapes, and what it makes of them."""
    for seed in range(20):
        source = Source(seed, torch.float64, ["random"], "")
        with suppress(DataError):
            return source, case(source)
    raise AssertionError("all were refused")


def of_embeddings() -> Results:
    """Maps in eval mode, and of those that learn logits and statistics in training mode."""
    images = images_batch()["hr"]
    results: Results = {}
    for name, kind in EMBEDDINGS.items():
        if name in WITH_FILES or not kind.__module__.startswith("contrastive_sr."):
            continue
        torch.manual_seed(0)
        embedding = kind()
        results[name] = {f"map {index}": x.detach() for index, x in enumerate(embedding.eval()(images))}
        if isinstance(embedding, TrainableEmbedding):
            with training_mode(embedding, True):
                results[name]["logits"] = embedding.logits(images).detach()
        results[name] |= embedding.state_dict()
    torch.manual_seed(0)
    encoder = DegradationEncoder()
    results["DegradationEncoder"] = {"vectors": encoder(images)[0].detach(), **encoder.state_dict()}
    return results


class SameDraws(Methods):
    """Draws alike on all ranks, which the engine otherwise tells apart."""

    def _step(self, method: Method) -> Step:
        return Step(self.step.value, seed_of(method.name, self.step.value))


def of_methods() -> Results:
    """What each method logs in a step in which nothing learns, and its state."""
    results: Results = {}
    for kind, config in collected("methods", "SMALL").items():
        torch.manual_seed(0)
        net: nn.Module = NETWORKS.get(kind, CountingNet)()
        methods = SameDraws(list(build_methods([{"type": kind, **config}])))
        methods.attach(net)
        made = images_batch(count=1)
        made |= {"lr_key": made["lr"].flip(-1), "degradation/kernel": torch.full((1, 21, 21), 1 / 21**2)}
        for _ in range(2 if "queue_size" in config else 1):  # in the first step a queue is empty
            batch = methods.run(net, {key: x for key, x in made.items() if key in ("lr", "hr", *methods.wants)})
            auxiliary = methods.auxiliary_losses(batch)
            contrast = methods.sr_losses(batch, None if methods.warming_up else F.l1_loss(batch["sr"], batch["hr"]))
        results[kind] = {name: x.detach() for name, x in {**auxiliary, **contrast.metrics}.items()}
        results[kind] |= {f"state {name}": x.clone() for name, x in methods.state_dict().items()}
    return results


def everything(world: int) -> dict[str, Results]:
    """By kind; in two processes the losses alone: tests/methods/test_*_ranks.py have their methods in two."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = {"losses": of_losses()}
        return losses if world == 2 else {**losses, "embeddings": of_embeddings(), "methods": of_methods()}


def work(index: int, folder: str) -> None:
    """Everything one of three processes does, two of which train together first; its results are ``folder/W_R.pt``."""
    for world in WORLDS:
        if index < world:
            store = f"file://{folder}/store{world}"
            dist.init_process_group("gloo", init_method=store, rank=index, world_size=world)
            place = dist.get_world_size(), dist.get_rank()
            torch.save({**everything(world), "place": place}, Path(folder) / f"{world}_{index}.pt")
            dist.destroy_process_group()


if __name__ == "__main__":
    collected("methods", "SMALL")
    _imported(TESTS / "test_fuzz_losses.py")
    children = []
    for index in range(max(WORLDS)):
        child = os.fork()
        if child == 0:
            work(index, sys.argv[1])
            os._exit(0)
        children.append(child)
    torch.save(everything(1), Path(sys.argv[1]) / "alone.pt")
    for child in children:
        os.waitpid(child, 0)
