"""Files and folders that appear only when they are complete, locks, and what may be removed: only what is ours."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from contrastive_sr.errors import DataError, HostError

try:
    import fcntl
except ImportError as error:
    raise HostError(
        "contrastive-sr: expected Linux, macOS or the Windows Subsystem for Linux, got a system without POSIX locks on "
        "files. Its losses, methods and samples can be imported here; its commands, and plugins for trainers, cannot."
    ) from error

_UNFINISHED = re.compile(r"\.contrastive-sr-[0-9a-f]{16}\.unfinished")
_held: set[int] = set()


def _close_in_child() -> None:
    # A child that outlives this process, such as a worker that loads images, must not keep its locks.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Write a file in one step: a process that is killed leaves the old file or the new one, never a part of it.

    Args:
        path: the file. If it is there, its permissions are kept.
        sync: wait until the disk has it, so that it is whole after a power cut, too.

    Yields:
        A new, empty file of a random name in the same folder to write to, which becomes ``path`` at the end. After an
        error it is removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder, "a.txt")) as unfinished:
        ...         _ = unfinished.write_text("all of it")
        ...     Path(folder, "a.txt").read_text()
        'all of it'
    """
    unfinished = _beside(path)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with _locked(descriptor):
            if path.is_file():
                os.fchmod(descriptor, path.stat().st_mode & 0o7777)
            yield unfinished
            if sync:
                _sync(unfinished)
            os.replace(unfinished, path)
            if sync:
                _sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a folder in one step, as :func:`atomic_write` does a file.

    Args:
        path: the folder; missing or empty at the end.

    Yields:
        A new folder of a random name beside it, which becomes ``path`` at the end. After an error it is removed.

    Raises:
        DataError: ``path`` is what another folder cannot take the place of.
    """
    if path.is_dir() and (os.path.ismount(path) or path.samefile(Path.cwd())):
        what = "a disk or volume of its own" if os.path.ismount(path) else "the folder the command is run in"
        raise DataError(
            f"Expected a folder to write that can be replaced, got {path}, which is {what}. Name a new folder in it."
        )
    unfinished = _beside(path)
    unfinished.mkdir()
    try:
        with _locked(os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def atomic_files(folder: Path, check: Callable[[Path], object]) -> Iterator[Path]:
    """Write several files of a folder that go together: none takes its name before all are there and looked at.

    Args:
        folder: where they will be; what a killed process left of this in it is removed.
        check: called with each new file; raises if it is not as it should be.

    Yields:
        A new folder of a random name in it to write to. The files move in the order of their names.
    """
    remove_unfinished(folder)
    unfinished = _beside(folder / "any")
    unfinished.mkdir()
    try:
        with _locked(os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)):
            yield unfinished
            files = sorted(unfinished.iterdir())
            for file in files:
                _sync(file)
                check(file)
            for file in files:
                os.replace(file, folder / file.name)
            _sync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed in an :func:`atomic_write` or :func:`atomic_folder` left in a folder.

    What another process is writing right now stays, and so does anything with another name than those give.
    """
    for left in folder.glob(".contrastive-sr-*.unfinished"):
        if not _UNFINISHED.fullmatch(left.name) or left.is_symlink():
            continue
        try:
            with _locked(os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as is_left:
                if is_left and left.is_dir():
                    shutil.rmtree(left)
                elif is_left:
                    left.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which ends with the process that holds it, however that ends.

    Args:
        path: a folder; or a file that stands for the lock, which is made if it is missing, and gone afterwards. A link
            in its place is not followed.

    Raises:
        BlockingIOError: another process has it, or another part of this one.
    """
    if path.is_dir():
        with _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY)):
            yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with _locked(descriptor):
            try:
                ours = os.path.samestat(os.fstat(descriptor), os.lstat(path))
            except FileNotFoundError:
                ours = False
            if not ours:  # its last holder has just removed it
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def preparing(out: Path, lock: Path) -> Iterator[None]:
    """Keep a second command out of a data set that is being written.

    Args:
        out: the data set, for the message.
        lock: see :func:`locked`.

    Raises:
        DataError: another one is at work on it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError:
            raise DataError(f"Another `contrastive-sr prepare` is at work on {out}. Wait for it to end.") from None
        yield


def lies_inside(path: Path, root: Path) -> bool:
    """Whether a path, with all links in it followed, leads to something below a folder.

    Example:
        >>> lies_inside(Path("set/HR/1.png"), Path("set")), lies_inside(Path("set/../other"), Path("set"))
        (True, False)
    """
    return root.resolve() in path.resolve().parents


@contextmanager
def _locked(descriptor: int) -> Iterator[bool]:
    """Lock an open file or folder as long as the block of code runs, and close it.

    Yields:
        Whether it is locked: some network disks know no locks.

    Raises:
        BlockingIOError: it is locked already.
    """
    _held.add(descriptor)
    holds = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            holds = False
        yield holds
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _beside(path: Path) -> Path:
    # without the name of the file, which may be as long as names can be
    return path.with_name(f".contrastive-sr-{secrets.token_hex(8)}.unfinished")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some network disks cannot do this with folders
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
