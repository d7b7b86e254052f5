"""The errors this library raises on purpose; each message says what was expected, what came and what to try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ContrastiveSRError(Exception):
    """Base of all errors raised on purpose; the command line prints them without a traceback."""


class ConfigError(ContrastiveSRError, ValueError):
    """A configuration or an argument cannot be used as it stands."""


class DataError(ContrastiveSRError, ValueError):
    """Images, folders or tensors do not fit what the method needs."""


class HostError(ContrastiveSRError, RuntimeError):
    """A host framework is missing, broken or of another version than expected."""


class SaveError(ContrastiveSRError, RuntimeError):
    """A file could not be written whole, such as on a full disk."""


class NonFiniteError(ContrastiveSRError, RuntimeError):
    """A loss term became NaN or infinite."""


def own_words(error: ContrastiveSRError) -> str:
    """What an error says. If it was raised in a worker of a data loader, torch gives it the worker's traceback as text,
    which ends in what it said there."""
    return str(error).rpartition(f"{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def printable(text: str) -> str:
    r"""Text without what a terminal would obey or cannot show: control characters, bytes that are not UTF-8.

    Args:
        text: such as a file's name; of one that can be printed nothing changes.

    Example:
        >>> printable("\x1b[2Jphoto\udcff.png")
        '\\x1b[2Jphoto\\udcff.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def named_in_errors(name: str) -> Iterator[None]:
    """Put a name in front of the message of an error, such as that of the file or the option it is about.

    Example:
        >>> with named_in_errors("--scale"):
        ...     raise ConfigError("expected 2, got 3.")
        Traceback (most recent call last):
        contrastive_sr.errors.ConfigError: --scale: expected 2, got 3.
    """
    try:
        yield
    except ContrastiveSRError as error:
        raise type(error)(f"{name}: {error}") from error
