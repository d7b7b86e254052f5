"""Three processes that train, of which one fails; for tests/hosts/test_endings.py. Prints what each has said."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # loaded once, here; an optimizer would load it in each process
import torch.distributed as dist
from host import Training, methods_on
from small_models import CountingNet, images_batch

from contrastive_sr.errors import ContrastiveSRError
from contrastive_sr.hosts.endings import TIMEOUT, init_gloo, losses_in_words
from contrastive_sr.methods import CriterionTerm

WORLD, BAD, STEPS, SECONDS = 3, 1, 4, 2
CASES = ("nan", "dies", "stalls")


def train(rank: int, case: str) -> None:
    """Some steps, in one of which the bad rank fails."""
    torch.set_num_threads(1)
    init_gloo()
    net = CountingNet()
    training = Training(net, methods_on(net, CriterionTerm(criterion="Pixel", loss_weight=0.1)), wrap=True)
    for step in range(STEPS):
        batch = images_batch(seed=rank, size=16)
        if rank == BAD and step == 2:
            if case == "nan":
                batch["lr"][0, 0, 0, 0] = torch.nan
            else:
                os.kill(os.getpid(), signal.SIGKILL if case == "dies" else signal.SIGSTOP)
        training.step(batch)


def said(rank: int, case: str) -> str:
    """What a rank ends with."""
    try:
        with losses_in_words():
            train(rank, case)
    except ContrastiveSRError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def run(case: str, folder: Path) -> dict[str, Any]:
    """Start the processes as torchrun does, with a store that outlives them, and wait for them."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    begun, children = time.monotonic(), {}
    for rank in range(WORLD):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD), MASTER_ADDR="127.0.0.1")
            os.environ.update({"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"})
            os.environ[TIMEOUT] = str(SECONDS)
            (folder / f"{case}{rank}").write_text(said(rank, case))
            os._exit(0)
        children[rank] = child
    for rank in sorted(children, key=lambda rank: rank == BAD):
        if rank == BAD and case == "stalls":
            os.kill(children[rank], signal.SIGKILL)
        os.waitpid(children[rank], 0)
    texts = {rank: (folder / f"{case}{rank}") for rank in range(WORLD)}
    return {
        "seconds": time.monotonic() - begun,
        "said": {rank: path.read_text() if path.is_file() else None for rank, path in texts.items()},
    }


if __name__ == "__main__":
    print(json.dumps({case: run(case, Path(sys.argv[1])) for case in CASES}))
