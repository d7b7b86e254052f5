"""What to say of a training that a process of its own has let down: which process, and what happened to it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from contrastive_sr._checks import check_number
from contrastive_sr.errors import ConfigError, HostError

TIMEOUT = "CONTRASTIVE_SR_TIMEOUT"  # seconds, in the environment
_SECONDS = 1800.0  # ranks wait for the first one while it validates
_ROLL_CALL = 10.0  # seconds in which ranks answer that they are there
_SHARED_MEMORY = Path("/dev/shm")
_GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


def waiting_time() -> float:
    """For how many seconds a process waits for another one that does not answer.

    Raises:
        ConfigError: the environment has no such number.
    """
    given = os.environ.get(TIMEOUT)
    if given is None:
        return _SECONDS
    try:
        return check_number(float(given), TIMEOUT, above=0)
    except ValueError as error:
        raise ConfigError(f"{TIMEOUT}: expected a number of seconds above 0, got {given!r}.") from error


def check_shared_memory(batch: int, processes: int, key: str) -> None:
    """Refuse to load images by processes that have no room to hand over a batch each.

    Args:
        batch: bytes of a batch.
        processes: how many load images.
        key: what says so, for the message.

    Raises:
        ConfigError: the shared memory is too full.
    """
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
    if free is not None and free < processes * batch:
        raise ConfigError(
            f"{key}: {processes} processes load batches of {batch / 2**20:.0f} MiB, expected room for one each in "
            f"{_SHARED_MEMORY}, got {free / 2**20:.0f} MiB. Give it more (docker run --shm-size=8g), or take fewer "
            "processes; 0 loads without any."
        )


def init_gloo() -> None:
    """Join the processes that torchrun started, on CPUs."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=waiting_time()))


@contextmanager
def losses_in_words() -> Iterator[None]:
    """Errors of torch about a process that is gone or does not answer, in our words.

    Raises:
        HostError: one was raised in this block of code.
    """
    try:
        yield
    except RuntimeError as error:
        # torch says first that a process is gone, and how in the cause
        if isinstance(error, HostError) or (said := _in_words(f"{error} {error.__cause__ or ''}")) is None:
            raise
        raise HostError(said) from error


def _in_words(text: str) -> str | None:
    if "DataLoader" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        if "Bus error" in text:
            free = shutil.disk_usage(_SHARED_MEMORY).free / 2**20 if _SHARED_MEMORY.is_dir() else 0
            return (
                f"A process that loads images has run out of shared memory; {_SHARED_MEMORY} has {free:.0f} MiB free "
                "now. Give it more (docker run --shm-size=8g), load with fewer processes, or with none, in the "
                "training's own."
            )
        how = re.search(r"killed by signal: ([\w ]+)", text)
        return (
            f"A process that loads images is gone ({how[1].strip() if how else 'it ended'}). Was it killed for want of "
            "memory? Load with fewer processes, or with none."
        )
    if "DataLoader timed out" in text:
        return (
            f"The processes that load images have given no batch for {waiting_time():g} seconds. Is the disk, or the "
            f"network it is on, there? {TIMEOUT}=SECONDS in the environment lets a training wait longer."
        )
    if os.environ.get("WORLD_SIZE", "1") != "1" and any(word in text for word in _GONE):
        missing = _missing_ranks()
        who = f"Rank {', '.join(map(str, missing))} has" if missing else "Another rank has"
        return (
            f"{who} ended, or has not answered for {waiting_time():g} seconds; what it printed says why. "
            f"{TIMEOUT}=SECONDS in the environment lets the others wait longer."
        )
    return None


def _missing_ranks() -> list[int]:
    """The ranks that do not say in time that they, too, miss another one; none if that cannot be known."""
    world = range(int(os.environ["WORLD_SIZE"]))
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=5)
        )
        store.set(f"contrastive_sr/{os.environ['RANK']}", "here")
        end = time.monotonic() + _ROLL_CALL
        while missing := [rank for rank in world if not store.check([f"contrastive_sr/{rank}"])]:
            if time.monotonic() > end:
                return missing
            time.sleep(0.1)
    except (RuntimeError, KeyError, ValueError):  # the store has ended with its process
        pass
    return []
