"""What commands check of the files they are told to write, before they begin."""

from __future__ import annotations

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import contrastive_sr
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


def check_picture(out: Path, option: str = "--out", *, read: Iterable[Path] = ()) -> None:
    """Make the folder of a picture, and check that the picture can be written.

    Args:
        out: the picture.
        option: how it was given.
        read: files that the command reads, or writes for another purpose.

    Raises:
        ConfigError: another kind of file, one of `read`, or a place that cannot be written.
    """
    if out.resolve() in (file.resolve() for file in read):
        raise ConfigError(f"{option}: {out} is an image that the picture would be made of. Choose another name.")
    if out.suffix not in PICTURES:
        raise ConfigError(f"{option}: expected a picture to write, .png, .pdf or .svg, got {out}.")
    check_writable(out, option)


def about_run(colours: str, checkpoints: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Where the figures of a page come from: the command as it was typed, version, date, checkpoints, colours.

    Args:
        colours: the colour space, in words.
        checkpoints: a file for each network that was measured; a part of its hash tells it from later ones.
    """
    about = {f"checkpoint {name}": f"{file}, SHA-256 {_hash(file)}" for name, file in (checkpoints or {}).items()}
    return {
        **about,
        "command": shlex.join(["contrastive-sr", *sys.argv[1:]]),
        "version": f"contrastive-sr {contrastive_sr.__version__}",
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "colour space": colours,
    }


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return f"{digest.hexdigest()[:12]}..."
