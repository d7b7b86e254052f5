"""Warnings in the host's own log, which is kept, and not on the console."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def warnings_in_log(log: Callable[[str], object]) -> Iterator[None]:
    """Send the warnings of a block of code to a logger's method."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        log(str(warning.message))


def not_watched(how: str) -> str:
    """A sentence for a training whose validation would not notice what a contrast may do to images.

    Args:
        how: the metrics to add, as the host writes them.
    """
    return (
        "Validation does not measure periodic dots and jagged edges, which a contrast can cause and LPIPS rewards. To "
        f"be warned of them, add {how}"
    )
