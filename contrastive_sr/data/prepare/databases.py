"""Folders of images as lmdb: the files' bytes by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from contrastive_sr.data.files import atomic_folder
from contrastive_sr.data.prepare.journal import Journal
from contrastive_sr.errors import DataError

_COMMIT = 256 * 2**20
"""Bytes between commits; what is not committed is held in memory."""
_FILES = {"data.mdb", "lock.mdb", "meta_info.txt"}


def write_database(
    out: Path,
    folder: str,
    name: str,
    files: Mapping[str, tuple[int, int, int]],
    journal: Journal,
    on_progress: Callable[[str, int, int], None],
) -> None:
    """Write the PNG files of a folder into an lmdb, unless there is one that has them.

    Keys are names without ending, values the files' bytes; `meta_info.txt` beside the data has a line for each: name,
    shape and compression.

    Args:
        out: root of the data set.
        folder: the folder below it.
        name: of the lmdb below the root, a folder itself. It appears when all of it is there.
        files: names of the files, with bytes, height and width.
        journal: of the data set.
        on_progress: called as (what, done, total).

    Raises:
        DataError: an lmdb of another origin is in its place, or what was written cannot be read back.
    """
    target = out / name
    meta = "".join(f"{name} ({height},{width},3) 3\n" for name, (_, height, width) in files.items())
    if _is_complete(target, files, meta):
        return
    remove_database(target, journal)
    journal.add_database(name)
    import lmdb

    try:
        with atomic_folder(target) as unfinished:
            _write(out / folder, target.name, unfinished, files, on_progress)
            (unfinished / "meta_info.txt").write_text(meta)
    except lmdb.Error as error:
        raise DataError(
            f"{target} could not be written ({error}). Make room, and give the same command again."
        ) from error
    if not _is_complete(target, files, meta):
        raise DataError(f"{target} could not be read back. Remove it, and give the same command again.")


def remove_database(target: Path, journal: Journal) -> None:
    """Remove an lmdb that this command wrote, if it is there.

    Raises:
        DataError: it is of another origin, or has other files in it.
    """
    if not target.exists():
        return
    strangers = {path.name for path in target.iterdir()} - _FILES if target.is_dir() else {target.name}
    if strangers or not journal.wrote_database(target.name):
        what = f"has other files in it, such as {min(strangers)}" if strangers else "was not written by this command"
        raise DataError(f"{target} {what}, and is in the way of a new one. Move it away, and give the command again.")
    for name in _FILES:
        (target / name).unlink(missing_ok=True)
    target.rmdir()


def _write(
    images: Path,
    title: str,
    unfinished: Path,
    files: Mapping[str, tuple[int, int, int]],
    on_progress: Callable[[str, int, int], None],
) -> None:
    import lmdb

    # every value takes whole pages; the file grows as it is filled, so a large map costs nothing
    room = sum(size + 3 * 4096 for size, _, _ in files.values()) + 2**24
    with lmdb.open(str(unfinished), map_size=2 * room, lock=False) as database:
        transaction, waiting = database.begin(write=True), 0
        try:
            for number, name in enumerate(files, start=1):
                data = (images / name).read_bytes()
                transaction.put(Path(name).stem.encode("ascii"), data)
                waiting += len(data)
                if waiting > _COMMIT:
                    transaction.commit()
                    transaction, waiting = database.begin(write=True), 0
                on_progress(f"writing {title}", number, len(files))
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()


def check_database(path: Path) -> None:
    """Refuse an lmdb that is cut off; reading what is missing would end the process without a word (SIGBUS).

    Args:
        path: the lmdb, a folder.

    Raises:
        DataError: it is cut off, or no lmdb.
    """
    import lmdb

    try:
        with lmdb.open(str(path), readonly=True, lock=False) as database:  # looks at the first two pages alone
            needed = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        size = (path / "data.mdb").stat().st_size
    except (OSError, lmdb.Error) as error:
        raise DataError(f"{path} cannot be read as an lmdb ({error}). Copy it again, or write it anew.") from error
    if size < needed:
        raise DataError(
            f"{path} is cut off: its data.mdb has {size} bytes; expected {needed}. Copy it again, or write it anew."
        )


def _is_complete(target: Path, files: Mapping[str, tuple[int, int, int]], meta: str) -> bool:
    """Whether an lmdb lists these files and has a value of each one's length."""
    import lmdb

    try:
        if (target / "meta_info.txt").read_text() != meta:
            return False
        check_database(target)
        with lmdb.open(str(target), readonly=True, lock=False) as database, database.begin(buffers=True) as view:
            return view.stat()["entries"] == len(files) and all(
                len(view.get(Path(name).stem.encode("ascii"), b"")) == size for name, (size, _, _) in files.items()
            )
    except (OSError, lmdb.Error, DataError):
        return False
