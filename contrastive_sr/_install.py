"""What to type to install something, as every message that asks for it says it."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

BASICSR = "1.4.2"
"""The version that is supported, and the last one there is."""
PACKAGE = "contrastive-sr"
_HOSTS = {"basicsr": "BasicSR", "mmagic": "MMagic"}
_TORCH = re.compile(r"^torch==(\S+)$", re.MULTILINE)


def installed_version(package: str) -> str | None:
    """The version of a package, which is not imported; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def constraints_file() -> Path | None:
    """The pinned set for the Python in use: in the installed package, or beside it in a source folder; None if there
    is none, as for a Python that is too new."""
    package = Path(__file__).resolve().parent
    name = f"constraints/py{sys.version_info.major}.{sys.version_info.minor}.txt"
    return next((file for file in (package / "_shipped" / name, package.parent / name) if file.is_file()), None)


def pip_install(*what: str) -> str:
    """A command that installs packages and leaves a torch that is there as it is.

    It carries the pinned set for the Python in use, unless another torch than the pinned one is installed: then it
    carries that one's version.

    Args:
        what: requirements, and options of pip.
    """
    constraints, torch = constraints_file(), installed_version("torch")
    pinned = _TORCH.findall(constraints.read_text()) if constraints is not None else []
    parts = ["pip", "install"]
    if constraints is not None and (torch is None or torch.partition("+")[0] in pinned):  # 2.14.1+cpu is a 2.14.1
        parts += ["-c", shlex.quote(_shorter(constraints))]
    elif torch is not None and "torch" not in what:
        parts.append(f'"torch=={torch}"')
    # double quotes, as they do on Windows too
    return " ".join([*parts, *(f'"{part}"' if re.search(r"[<>\[\] ]", part) else part for part in what)])


def install(*extras: str) -> str:
    """What to do to have extras of this package in the environment in use.

    An installed contrastive-sr is named by its name, which pip then finds installed, whether an index has it or not; a
    source folder that was put on the path by its place.

    Args:
        extras: names of extras, such as `plot`.

    Returns:
        A command; or, for a host on a Python that it does not install on, the Pythons that it does install on.
    """
    hosts = [_HOSTS[extra] for extra in extras if extra in _HOSTS]
    if hosts and sys.version_info >= (3, 13):
        return f"Python 3.10 to 3.12; {' and '.join(hosts)} cannot be installed on 3.13"
    named = f"[{','.join(sorted(extras))}]"
    if installed_version(PACKAGE) is not None:
        command = pip_install(PACKAGE + named)
    else:
        command = pip_install("-e", _shorter(Path(__file__).resolve().parents[1]) + named)
    if "basicsr" in extras:
        # its package declares that the build needs torch, so pip would fetch a second one for the build alone
        command += f" && pip install --no-build-isolation --no-deps basicsr=={BASICSR}"
    return command


def _shorter(path: Path) -> str:
    """Relative to the current folder, if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
