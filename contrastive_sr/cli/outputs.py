"""What commands check of the files they are told to write, before they begin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contrastive_sr._install import install
from contrastive_sr.errors import ConfigError, HostError

PICTURES = (".png", ".pdf", ".svg")


@contextmanager
def needs_plot() -> Iterator[None]:
    """For imports of what the extra `plot` installs.

    Raises:
        HostError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise HostError(f"{error.name or 'A package'} is not installed. Try: {install('plot')}") from error


def check_writable(path: Path, option: str) -> None:
    """Make the folder of a file, and check that the file can be written.

    Args:
        path: the file.
        option: how it was given, such as `--out`.

    Raises:
        ConfigError: it is a folder, or a place that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written ({error.strerror}). Choose another one.") from error


def check_picture(out: Path, option: str = "--out") -> None:
    """Make the folder of a picture, and check that the picture can be written.

    Args:
        out: the picture.
        option: how it was given.

    Raises:
        ConfigError: another kind of file, or a place that cannot be written.
    """
    if out.suffix not in PICTURES:
        raise ConfigError(f"{option}: expected a picture to write, .png, .pdf or .svg, got {out}.")
    check_writable(out, option)
