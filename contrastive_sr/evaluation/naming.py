"""Names for results: the shortest ends of paths that tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from contrastive_sr.errors import printable


def distinct(parts: Sequence[Sequence[str]], least: Sequence[int]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    Args:
        parts: of each path.
        least: how many parts each name has at least.

    Example:
        >>> distinct([("a", "test", "HR"), ("a", "train", "HR"), ("a", "Set5")], [1, 1, 1])
        ['test/HR', 'train/HR', 'Set5']
    """
    counts = list(least)
    while True:
        names = ["/".join(path[-count:]) for path, count in zip(parts, counts, strict=True)]
        grown = [
            min(count + 1, len(path)) if names.count(name) > 1 else count
            for name, path, count in zip(names, parts, counts, strict=True)
        ]
        if grown == counts:
            return names
        counts = grown


def labels(
    named: Sequence[tuple[str | None, Path]],
    parts_of: Callable[[Path], tuple[Sequence[str], int]] = lambda path: (path.resolve().parts[1:], 1),
) -> list[str]:
    """The names that were given, and for the others the shortest ends of their paths that tell them apart.

    Args:
        named: name and path of each; the name may be None.
        parts_of: the parts of a path to make a name of, and how many of them at least.

    Example:
        >>> labels([(None, Path("/x/a/HR")), ("mine", Path("/x/a/HR")), (None, Path("/x/b/HR"))])
        ['a/HR', 'mine', 'b/HR']
    """
    parts = [parts_of(path) for name, path in named if name is None]
    others = iter(distinct([path for path, _ in parts], [least for _, least in parts]))
    return [printable(next(others) if name is None else name) for name, _ in named]
