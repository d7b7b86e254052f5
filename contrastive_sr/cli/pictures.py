"""What commands that write a picture check before they begin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contrastive_sr.errors import ConfigError, HostError

ENDINGS = (".png", ".pdf", ".svg")


@contextmanager
def needs_plot() -> Iterator[None]:
    """For imports of what the extra `plot` installs.

    Raises:
        HostError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise HostError(
            f'{error.name or "A package"} is not installed. Try: pip install "contrastive-sr[plot]"'
        ) from error


def check_picture(out: Path) -> None:
    """Make the folder of a picture, and see that it can be written.

    Args:
        out: the picture.

    Raises:
        ConfigError: another kind of file, or a place that cannot be written.
    """
    if out.suffix not in ENDINGS:
        raise ConfigError(f"--out: expected a picture to write, .png, .pdf or .svg, got {out}.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written ({error.strerror}). Choose another one.") from error
