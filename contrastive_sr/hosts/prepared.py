"""Where the shipped option files and configs look for data sets, and which command writes each."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

_OTHER = {"datasets": "data", "data": "datasets"}
"""Where BasicSR's options look for a data set, and where MMagic's do, and the other way round."""
_COMMANDS = {"DIV2K": "div2k SRC", "Flickr2K": "flickr2k SRC", "DF2K": "flickr2k SRC", "demo": "demo"}
_COMMANDS |= {"RealSR": "realsr SRC", "DRealSR": "drealsr SRC"}
_COMMANDS |= {name: f"folder SRC datasets/{name} --test" for name in ("Set5", "Set14")}
_OF_ONE_SCALE = {"CameraSR": "camerasr SRC", "NTIRE2020": "ntire2020 SRC"}


def how_to_prepare(folder: str | Path) -> str:
    """A sentence with the command that writes a folder of the shipped configs; empty for any other.

    Example:
        >>> how_to_prepare("data/DIV2K/DIV2K_train_HR_sub")
        ' `contrastive-sr prepare div2k SRC` writes it.'
        >>> how_to_prepare("data/RealSR_x2/train/HR")
        ' `contrastive-sr prepare realsr SRC --scale 2` writes it.'
    """
    below = [re.sub(r"_x\d$", "", name) for root, name in pairwise(Path(folder).parts) if root in _OTHER]
    command = next((command for name in below if (command := (_COMMANDS | _OF_ONE_SCALE).get(name))), None)
    scale = re.search(r"[xX]([123])(?=_|/|$)", str(folder))
    if command is None:
        return ""
    asked = f" --scale {scale[1]}" if scale and command in _COMMANDS.values() else ""
    return f" `contrastive-sr prepare {command}{asked}` writes it."


def link_for_other_host(folder: Path) -> str | None:
    """Give a data set in `datasets` its second name in `data`, or the other way round; elsewhere it has one name.

    Args:
        folder: root of the data set.

    Returns:
        What a person should be told, or None.
    """
    given, folder = folder, Path(os.path.abspath(folder))
    if folder.parent.name not in _OTHER:
        return None
    link = folder.parent.parent / _OTHER[folder.parent.name] / folder.name
    shown = link if given.is_absolute() else os.path.relpath(link)
    if link.is_symlink() and not link.exists():
        return f"{shown} is there already and is a link that leads nowhere; it was left alone"
    if link.exists() and not link.samefile(folder):
        return f"{shown} is there already and is another data set; it was left alone"
    if link.exists():
        return f"{shown} is a link to it"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()))
    return f"{shown} is a link to it"
