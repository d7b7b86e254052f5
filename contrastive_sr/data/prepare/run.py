"""Writes a data set: images in several processes, then lists, databases, and a look at all of it."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from contrastive_sr._checks import few
from contrastive_sr.data.files import atomic_write, remove_unfinished
from contrastive_sr.data.images import open_image
from contrastive_sr.data.prepare.databases import remove_database, write_database
from contrastive_sr.data.prepare.journal import Journal
from contrastive_sr.data.prepare.parts import Files, Job, Part
from contrastive_sr.errors import DataError, HostError

_PHOTO_BYTES = 2.0  # a pixel of a photograph as PNG, where the source is no PNG that tells; 1.4 to 2.2 have been seen
_LR_FACTOR = 1.25  # small images of a photograph are harder to compress
_SLACK = 2048  # a file takes whole blocks of the disk

OnProgress = Callable[[str, int, int], None]


@dataclass
class PartResult:
    """What came of a part.

    Args:
        part: the part.
        images: how many images of the archive were used.
        files: how many HR images there are now.
        small: images with a side that is shorter than the sub-images.
    """

    part: Part
    images: int = 0
    files: int = 0
    small: list[str] = field(default_factory=list)


@dataclass
class Prepared:
    """What `prepare` did.

    Args:
        out: root of the data set.
        parts: each part.
        reused: images that an earlier run had finished.
        problems: images that were left out and why, and whatever else is not as it should be.
    """

    out: Path
    parts: list[PartResult]
    reused: int
    problems: list[str]


def prepare(
    parts: Sequence[Part],
    out: Path,
    kind: str,
    *,
    lmdb: bool = False,
    workers: int = 1,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Prepared:
    """Write the parts of a data set, going on where an earlier run was stopped.

    Images that cannot be used are left out, with HR and LR, and named; the others make a data set that can be trained
    on. Every file appears when it is complete.

    Args:
        parts: what to write.
        out: root of the data set.
        kind: of the data set, such as `div2k`.
        lmdb: write an lmdb of each folder as well.
        workers: processes; with 1 all is done in this one.
        on_progress: called as (what, done, total).

    Returns:
        What was done, and what is wrong.

    Raises:
        DataError: the disk is too small, or `out` holds something else or was prepared with other settings. Before
            anything is written.
        HostError: a process died.
    """
    jobs = {id(part): [Job(out, part.layout, source) for source in part.sources] for part in parts}
    every = [job for of_part in jobs.values() for job in of_part]
    with closing(Journal(out, _settings(parts, kind), parts)) as journal:
        pending = [job for job in every if journal.files(job) is None]
        _check_space(pending, every if lmdb else (), out)
        _clear(parts, out, journal, {job.layout.hr for job in pending})
        for job in pending:
            journal.forget(job)
        problems = []
        for done, (job, result) in enumerate(_written(pending, workers), start=1):
            if isinstance(result, str):
                problems.append(result)
            else:
                journal.add(job, result)
            on_progress("writing images", done, len(pending))
        problems.sort()
        journal.tidy(every)
        results = []
        for part in parts:
            files = {job.source.name: wrote for job in jobs[id(part)] if (wrote := journal.files(job)) is not None}
            problems += [f"{path} has no HR image. Add it, or take the LR image out." for path in part.alone]
            problems += [f"{path} has no LR image. Add it, or take the HR image out." for path in part.without_lr]
            problems += _verify(part, files, out, on_progress)
            results.append(_result(part, files))
            _write_meta(part, files, out)
            if lmdb:
                for folder in part.layout.folders:
                    entries = _of_folder(files, folder)
                    write_database(out, folder, part.layout.database(folder), entries, journal, on_progress)
    return Prepared(out, results, len(every) - len(pending), problems)


def start_worker() -> None:
    """Make this process end with its parent, however that ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_together() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_together, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def write_one(job: Job) -> Files | str:
    """`write_image`, which imports torch only where images are written."""
    from contrastive_sr.data.prepare.images import write_image

    return write_image(job)


def _written(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Files | str]]:
    """Each job as it is finished."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in jobs:
            yield job, write_one(job)
        return
    # spawned, not forked: torch and the progress bar have threads
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
    try:
        futures = {pool.submit(write_one, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise HostError(
            "A process that writes images was ended from outside, perhaps because there was too little memory. Try "
            f"fewer workers: {max(1, workers // 2)}. What is finished stays, and the same command goes on from there."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _settings(parts: Sequence[Part], kind: str) -> dict[str, Any]:
    """What decides about the bytes, in the words of a message about changes."""
    settings: dict[str, Any] = {"data set": kind}
    for part in parts:
        cut = part.layout.cut
        settings[f"scales of {part.title}"] = list(part.layout.lr)
        settings[f"sub-images of {part.title}"] = (
            f"size {cut.size}, step {cut.step}, thresh {cut.thresh}" if cut else "none"
        )
        for scale in part.layout.lr:
            settings[f"LR x{scale} of {part.title}"] = "the archive's" if scale in part.own_scales else "made"
    return settings


def _clear(parts: Sequence[Part], out: Path, journal: Journal, changing: set[str]) -> None:
    """Removes what a killed run left unfinished, and databases of folders that are about to change."""
    remove_unfinished(out)
    for part in parts:
        for folder in part.layout.folders:
            remove_unfinished(out / folder)
            if part.layout.hr in changing:
                remove_database(out / part.layout.database(folder), journal)


# ------------------------------------------------------------------------------------------------------- the disk


def _check_space(pending: Sequence[Job], stored: Sequence[Job], out: Path) -> None:
    """Compare what the images will take, at their own rate of compression, with what is free.

    Args:
        pending: images to be written.
        stored: images to be written into an lmdb.
        out: root of the data set, on the disk in question.
    """
    needed = sum(_estimate(job, out) for job in pending) + sum(_estimate(job, None) for job in stored)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"About {_readable(needed)} are needed in {out}, and {_readable(free)} are free on its disk. Make room, "
            "choose an OUT on another disk, or ask for less (scales, step, lmdb). What is written stays."
        )


def _estimate(job: Job, out: Path | None) -> float:
    """Bytes that one image will take. With `out`, an image that can get a second name there takes none in HR."""
    layout, path = job.layout, job.source.hr
    try:
        with open_image(path) as header:
            height, width = (length // layout.multiple * layout.multiple for length in header.size[::-1])
            is_png = header.format == "PNG"
        state = path.stat()
    except Exception:  # a decoder can fail in any way on a damaged file
        return 0  # it will be named when it is its turn
    pieces, area = 1, height * width
    if layout.cut is not None:
        rows, columns = (len(layout.cut.starts(length)) for length in (height, width))
        pieces = rows * columns
        area = pieces * min(height, layout.cut.size) * min(width, layout.cut.size)
    rate = state.st_size / max(1, height * width) if is_png else _PHOTO_BYTES
    linked = layout.cut is None and is_png and out is not None and state.st_dev == out.stat().st_dev
    shares = (0 if linked else 1) + sum(_LR_FACTOR / scale**2 for scale in layout.lr)
    return rate * area * shares + _SLACK * pieces * len(layout.folders)


def _readable(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


# ------------------------------------------------------------------------------------------------- looking at it all


def _of_folder(files: Mapping[str, Files], folder: str) -> dict[str, tuple[int, int, int]]:
    """Name of each file of a folder, with bytes, height and width."""
    return {
        Path(name).name: facts
        for name, facts in sorted(item for of_image in files.values() for item in of_image.items())
        if str(Path(name).parent) == folder
    }


def _verify(part: Part, files: Mapping[str, Files], out: Path, on_progress: OnProgress) -> list[str]:
    """What is wrong with the files of a part, each of which has to be there and complete, and no others."""
    problems = []
    layout = part.layout
    hr = _of_folder(files, layout.hr)
    for scale, folder in ((1, layout.hr), *layout.lr.items()):
        expected = _of_folder(files, folder)
        if expected.keys() != hr.keys():
            problems.append(f"{out / folder} has {len(expected)} images, but there are {len(hr)} HR images.")
        there = {path.name for path in (out / folder).glob("[!.]*")}
        strangers = sorted(there - expected.keys())
        if strangers:
            problems.append(
                f"{out / folder} has {len(strangers)} files that are not of these images: {few(strangers)}. Take them "
                "away; an image that was in an earlier run and is not in the archive any more is one of them."
            )
        for number, name in enumerate(expected, start=1):
            path = out / folder / name
            height, width = _png_size(path, expected[name][0])
            if (height * scale, width * scale) != hr.get(name, (0, 0, 0))[1:]:
                problems.append(f"{path} is not as it was written. Remove it, and give the same command again.")
            if number % 100 == 0 or number == len(expected):
                on_progress(f"looking at {folder}", number, len(expected))
    return problems


def _png_size(path: Path, size: int) -> tuple[int, int]:
    """Height and width of a PNG that has its beginning, its end, and `size` bytes; -1 and -1 of any other file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(24)
            end = stream.seek(-12, os.SEEK_END) + 12
            tail = stream.read()
    except OSError:
        return -1, -1
    if end != size or not head.startswith(b"\x89PNG") or tail[4:8] != b"IEND":
        return -1, -1
    width, height = struct.unpack(">II", head[16:24])
    return height, width


def _result(part: Part, files: Mapping[str, Files]) -> PartResult:
    hr = _of_folder(files, part.layout.hr)
    cut = part.layout.cut
    small = []
    if cut is not None:
        small = sorted(name for name, (_, height, width) in hr.items() if min(height, width) < cut.size)
    return PartResult(part, len(files), len(hr), small)


def _write_meta(part: Part, files: Mapping[str, Files], out: Path) -> None:
    """The list of HR images: a line for each, with its name and shape."""
    lines = [f"{name} ({h},{w},3)\n" for name, (_, h, w) in _of_folder(files, part.layout.hr).items()]
    with atomic_write(out / part.meta) as unfinished:
        unfinished.write_text("".join(lines))
