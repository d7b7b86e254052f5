"""Warnings in the host's own log, which is kept, and not on the console."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def warnings_in_log(log: Callable[[str], object]) -> Iterator[None]:
    """Send the warnings of a block of code to a logger's method."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        log(str(warning.message))


def not_watched(missing: Mapping[str, str], where: str) -> str:
    """A sentence for a training whose validation would not notice what a contrast may do to images.

    Args:
        missing: what is not measured, in words, to the metric that would, as the host writes it.
        where: where to add metrics.
    """
    return (
        f"Validation does not measure {' and '.join(missing)}, which a contrast can cause and LPIPS rewards. To be "
        f"warned of them, add {' and '.join(f'`{metric}`' for metric in missing.values())} to {where}."
    )
