"""The option files of both hosts that come with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from contrastive_sr.errors import ConfigError, HostError

FOLDERS = ("plugins", "configs")
"""BasicSR's option files and MMagic's config files."""


def shipped_folder(name: str) -> Path:
    """Returns where `plugins` or `configs` lies: in the installed package, or beside it in a source folder.

    Raises:
        HostError: neither is there, so the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    installed, source = package / "_shipped" / name, package.parent / name
    if installed.is_dir():
        return installed
    if source.is_dir() and (package.parent / "pyproject.toml").is_file():
        return source
    raise HostError(
        f"Expected the folder {installed}, which every wheel carries; it is not there. "
        "Try: pip install --force-reinstall --no-deps contrastive-sr"
    )


def _relative_files(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sorted(file.relative_to(folder) for file in files)


def write_shipped(target: Path, *, force: bool = False) -> list[Path]:
    """Writes `plugins/` and `configs/` below `target`.

    Args:
        target: folder to write into; made if missing.
        force: replace files that are there and differ.

    Returns:
        The files written, in order; a file that is there with the same content is not written again.

    Raises:
        ConfigError: a file is there with other content and `force` is False; then nothing is written.
    """
    pending: list[tuple[Path, Path]] = []
    different: list[Path] = []
    for name in FOLDERS:
        folder = shipped_folder(name)
        for file in _relative_files(folder):
            source, goal = folder / file, target / name / file
            if goal.is_file() and goal.read_bytes() == source.read_bytes():
                continue
            if goal.exists():
                different.append(goal)
            pending.append((source, goal))
    if different and not force:
        names = ", ".join(str(path) for path in different[:3]) + (" and more" if len(different) > 3 else "")
        raise ConfigError(
            f"Expected no files of the same names in {target}, but {names} differ from the shipped ones. Nothing was "
            "written. Choose another folder, or replace them with --force."
        )
    for source, goal in pending:
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, goal)
    return [goal for _, goal in pending]
