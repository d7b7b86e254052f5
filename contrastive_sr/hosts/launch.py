"""Trainings in processes of their own: how they are started, what they leave, and whether they are finished."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contrastive_sr.data.files import atomic_write, locked
from contrastive_sr.errors import HostError
from contrastive_sr.hosts.progress import PROGRESS_FD

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """Keep a second command out of a folder; the lock ends with the process that holds it.

    Args:
        folder: where both would write.
        command: its name.

    Raises:
        HostError: another one is writing into it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock"))
        except BlockingIOError:
            raise HostError(
                f"Another {command} is writing into {folder}. Wait for it, or choose another --out."
            ) from None
        yield


@contextmanager
def one_training(folder: Path, lock: Path, advice: str) -> Iterator[None]:
    """Keep a second training out of the folder of one; the lock ends with the process that holds it.

    Args:
        folder: where the training writes, for the message.
        lock: see :func:`~contrastive_sr.data.files.locked`; the folder that a lock file lies in is made.
        advice: how to give a training another folder.

    Raises:
        HostError: another one is writing there.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError:
            raise HostError(
                f"Another training is writing into {folder}. Nothing was changed. Wait for it, or {advice}."
            ) from None
        yield


def console_log(config: Path) -> Path:
    """Where the training with a config writes what it prints."""
    return config.with_suffix(".console.log")


def _marker(config: Path) -> Path:
    return config.with_suffix(config.suffix + ".finished")


def is_finished(config: Path, identity: str) -> bool:
    """Whether the training with this config and identity was finished."""
    marker = _marker(config)
    return marker.is_file() and marker.read_text() == _digest(identity)


def mark_finished(config: Path, identity: str) -> None:
    """Say that the training with this config is finished.

    Args:
        config: of the training.
        identity: what tells it from others with a config of this name.
    """
    with atomic_write(_marker(config)) as unfinished:
        unfinished.write_text(_digest(identity))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def start_training(
    config: Path,
    text: str,
    arguments: Sequence[str] = (),
    *,
    folder: Path,
    progress: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Run `contrastive-sr train` in a process of its own, which ends when this one is killed (on Linux).

    Args:
        config: the config to write; no longer marked as finished.
        text: its text.
        arguments: of the command, beside the config.
        folder: where the host runs and writes.
        progress: a file descriptor that its bar is drawn on; None: the log, :func:`console_log`, with all it prints.
        environment: further variables.
    """
    config.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _marker(config).unlink(missing_ok=True)
    with atomic_write(config) as unfinished:
        unfinished.write_text(text)
    source = str(Path(__file__).resolve().parents[2])
    with console_log(config).open("w") as stream:
        descriptor = stream.fileno() if progress is None else progress
        variables = {
            # threads that wait asleep lose little alone, and much less than spinning ones beside other programs
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            **(environment or {}),
            PROGRESS_FD: str(descriptor),
            "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        }
        command = [sys.executable, "-m", "contrastive_sr.cli", "train", str(config), *arguments]
        return subprocess.Popen(
            command, cwd=folder, env=variables, stdout=stream, stderr=subprocess.STDOUT, pass_fds=[descriptor],
            preexec_fn=_dying_with_parent(),
        )  # fmt: skip


def _dying_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: nothing may be loaded between fork and exec
    parent = os.getpid()

    def ask() -> None:
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before this process could ask
            os._exit(1)

    return ask


def check_ended(status: int, config: Path, label: str) -> None:
    """Refuse a training that ended with another exit code than 0.

    Raises:
        HostError: with the end of its log.
    """
    if status == 0:
        return
    log = console_log(config)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise HostError(
        f"The training with {label} ended with exit code {status}. The end of {log}:\n{tail}\n"
        "`contrastive-sr doctor` looks at the installed hosts."
    )
