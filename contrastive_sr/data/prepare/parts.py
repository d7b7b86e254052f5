"""What is to be written: parts of a data set, each with its images and the folders they go to."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contrastive_sr._checks import few
from contrastive_sr.errors import ConfigError, DataError

_LONGEST = 200  # of a name, in letters: disks take 255 bytes, and numbers and endings are still to come


@dataclass(frozen=True)
class Cut:
    """How large images are cut into overlapping sub-images, which are quicker to read than the whole.

    Args:
        size: height and width of a sub-image in HR.
        step: from one to the next.
        thresh: what is left over at the right and the bottom gets a sub-image of its own if it is wider than this.
    """

    size: int = 480
    step: int = 240
    thresh: int = 0

    def starts(self, length: int) -> list[int]:
        """Where sub-images begin along a side; a side that is no longer than `size` stays whole."""
        if length <= self.size:
            return [0]
        starts = list(range(0, length - self.size + 1, self.step))
        if length - (starts[-1] + self.size) > self.thresh:
            starts.append(length - self.size)
        return starts

    def boxes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) of each sub-image, row by row."""
        return [
            (top, left, min(top + self.size, height), min(left + self.size, width))
            for top in self.starts(height)
            for left in self.starts(width)
        ]


@dataclass(frozen=True)
class Layout:
    """Where the images of a part go, below the root of the data set.

    Args:
        hr: folder of HR images.
        lr: folder of LR images for each scale.
        cut: how images are cut, or None if they stay whole.
        multiple: HR images are cropped to a multiple of this, right and bottom.
    """

    hr: str
    lr: dict[int, str]
    cut: Cut | None
    multiple: int

    @property
    def folders(self) -> list[str]:
        """All folders of this part, HR first."""
        return [self.hr, *self.lr.values()]

    def database(self, folder: str) -> str:
        """The lmdb of one of the folders, named after it."""
        return f"{folder.replace('/', '_')}.lmdb"


@dataclass(frozen=True)
class Source:
    """One image of an archive.

    Args:
        name: what it will be called, without ending.
        hr: the HR image.
        lr: its LR image for the scales that the archive has; the others are made.
    """

    name: str
    hr: Path
    lr: dict[int, Path]

    @property
    def files(self) -> list[Path]:
        """All files that are read for it."""
        return [self.hr, *self.lr.values()]


@dataclass(frozen=True)
class Part:
    """A part of a data set, such as its training images.

    Args:
        title: what it is called in messages.
        layout: where its images go.
        sources: its images.
        meta: name of the list of HR images, below the root.
        notes: what a person should know about it.
        alone: LR images without an HR image.
        without_lr: HR images that should have an LR image, and have none.
    """

    title: str
    layout: Layout
    sources: Sequence[Source]
    meta: str
    notes: Sequence[str] = ()
    alone: Sequence[Path] = ()
    without_lr: Sequence[Path] = ()

    @property
    def own_scales(self) -> list[int]:
        """The scales at which LR images are the archive's own."""
        return [scale for scale in self.layout.lr if any(scale in source.lr for source in self.sources)]


@dataclass(frozen=True)
class Job:
    """One image to be written.

    Args:
        out: root of the data set.
        layout: where it goes.
        source: what it is.
    """

    out: Path
    layout: Layout
    source: Source


Files = dict[str, tuple[int, int, int]]
"""What was written for an image: path below the root, and bytes, height and width of each file."""


def checked_scales(scales: Sequence[int], cut: Cut | None, least: int = 2) -> list[int]:
    """Sorted scales that fit the sub-images.

    Args:
        scales: the scales.
        cut: the sub-images, or None.
        least: the smallest scale there can be: 1 where no LR image has to be made.

    Raises:
        ConfigError: scales below the least or above 8, or sub-images whose size, step or thresh is no multiple of them.
    """
    ordered = sorted(set(scales))
    if not ordered or ordered[0] < least or ordered[-1] > 8:
        raise ConfigError(f"scale: expected scales of {least} to 8, got {', '.join(map(str, scales))}.")
    if cut is not None:
        multiple = math.lcm(*ordered)
        for name, value, least in (
            ("size", cut.size, multiple),
            ("step", cut.step, multiple),
            ("thresh", cut.thresh, 0),
        ):
            if value < least or value % multiple:
                raise ConfigError(
                    f"{name}: expected a multiple of {multiple}, so that sub-images of HR and of LR at "
                    f"{', '.join(f'x{scale}' for scale in ordered)} show the same, got {value}."
                )
    return ordered


def plain_name(path: Path) -> str:
    """A name without ending that lmdb keys and lists can hold: folders joined by `_`, other marks replaced by it, and
    letters outside ASCII by their code points, so that no two of these become one. A name too long for a disk is cut,
    and ends in a part of its hash.

    Example:
        >>> plain_name(Path("a b/\xe9t\xe9.png"))
        'a_b_u00e9tu00e9'
    """
    joined = "_".join(path.with_suffix("").parts)
    plain = re.sub(r"[^A-Za-z0-9_-]", lambda mark: "_" if mark[0].isascii() else f"u{ord(mark[0]):04x}", joined)
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 17]}_{hashlib.sha256(plain.encode()).hexdigest()[:16]}"


def by_name(files: Iterable[Path], name_of: dict[Path, str]) -> dict[str, Path]:
    """Files by the name of what will be written.

    Raises:
        DataError: two would be written under one name.
    """
    named: dict[str, Path] = {}
    clashes = []
    for file in files:
        other = named.setdefault(name_of[file], file)
        if other is not file:
            clashes.append(f"{other} and {file} -> {name_of[file]}.png")
    if clashes:
        raise DataError(
            f"Expected images of different names, got {len(clashes)} that would be written under one: "
            f"{few(clashes, '; ')}. Rename them, or take one of each out."
        )
    return named
