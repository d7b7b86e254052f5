"""Runs Python in processes that find torch and the hosts imported already.

Each is forked from a server that has imported them and done nothing else, so that a command takes only the seconds of
its own work. Otherwise it is what `python ARGUMENTS` is: it has the folder, environment, output and exit status of a
process of its own. It cannot test what a command imports, or in which order.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from quicker import quicker
from torch.multiprocessing import start_processes

HOSTS = {"basicsr": "contrastive_sr.hosts.basicsr.plugin", "mmagic": "contrastive_sr.hosts.mmagic.models"}
PRELOADED = ["torch", *(plugin for host, plugin in HOSTS.items() if find_spec(host))]


multiprocessing.set_forkserver_preload(PRELOADED)


def run_ranks(work: Callable[..., None], folder: Path, world: int) -> None:
    """Run ``work(rank, folder)`` in as many processes, to their ends; an error of one is raised."""
    start_processes(work, args=(str(folder),), nprocs=world, start_method="forkserver")


def start_python(
    arguments: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """Start what `python ARGUMENTS` is.

    Args:
        arguments: `-m`, a module and its arguments, or a script and its arguments.
        cwd: folder to run in.
        environment: of the process; PYTHONPATH is obeyed.
        out: file at whose end its output is added.
        err: the same for errors, and may be the same file.
    """
    words = [str(argument) for argument in arguments]
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run, args=(words, str(cwd), dict(environment), str(out), str(err)))
    process.start()
    return process


def run_python(
    arguments: Sequence[str | Path],
    cwd: Path,
    environment: Mapping[str, str],
    timeout: float = 280,
    world: int = 1,
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, *arguments])` would return, with its output as text.

    Args:
        arguments: as in :func:`start_python`.
        cwd: folder to run in.
        environment: of the process.
        timeout: seconds after which it is killed.
        world: number of processes. Several find in their environments what torchrun would have written there.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    words, deadline = [str(argument) for argument in arguments], time.monotonic() + timeout
    ranks = [dict(environment)] if world == 1 else [{**environment, **own} for own in _as_torchrun(world)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [(Path(folder, f"out{rank}"), Path(folder, f"err{rank}")) for rank in range(world)]
        running = [start_python(arguments, cwd, own, *files) for own, files in zip(ranks, outputs, strict=True)]
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process for process in running if process.exitcode is None]
        for process in late:
            process.kill()
            process.join()
        texts = [[path.read_text(errors="replace") if path.exists() else "" for path in files] for files in outputs]
    out, err = map("".join, zip(*texts, strict=True))
    if late:
        raise subprocess.TimeoutExpired(words, timeout, out, err)
    status = next((process.exitcode for process in running if process.exitcode), 0)
    return subprocess.CompletedProcess(words, status, out, err)


def _as_torchrun(world: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    of_all = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    each = [{**of_all, "RANK": rank, "LOCAL_RANK": rank} for rank in range(world)]
    return [{name: str(value) for name, value in own.items()} for own in each]


def _run(words: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    multiprocessing.set_start_method(None, force=True)  # that of the tests would be inherited
    quicker()
    is_module = words[0] == "-m"
    sys.argv = words[1:] if is_module else words
    own = [cwd if is_module else str(Path(words[0]).resolve().parent), *environment.get("PYTHONPATH", "").split(":")]
    sys.path[:] = [*own, *(path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix)))]
    try:
        if is_module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
