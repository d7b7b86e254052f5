"""Second names for a data set, instead of second copies: for the other host, and DF2K of DIV2K and Flickr2K."""

from __future__ import annotations

import os
from pathlib import Path

from contrastive_sr.cli.prepare.journal import JOURNAL

_OTHER = {"datasets": "data", "data": "datasets"}
"""Where BasicSR's options look for a data set, and where MMagic's do, and the other way round."""
_DF2K = {"DIV2K": "DIV2K_train_HR_sub", "Flickr2K": "Flickr2K_HR_sub"}


def link_for_other_host(folder: Path) -> str | None:
    """Gives a data set in `datasets` its second name in `data`, or the other way round; elsewhere it has one name.

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
    if link.exists() and not link.samefile(folder):
        return f"{shown} is there already and is another data set; it was left alone"
    if link.exists():
        return f"{shown} is a link to it"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)  # a link that leads nowhere
    link.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()))
    return f"{shown} is a link to it"


def join_df2k(folder: Path) -> tuple[Path, int] | None:
    """Puts the HR sub-images of DIV2K and Flickr2K, prepared side by side, into one folder beside them, as links.

    Args:
        folder: root of either data set.

    Returns:
        Root of DF2K and how many links it has; None if there are not both.
    """
    parent = folder.parent
    if folder.name not in _DF2K or not all((parent / name / JOURNAL).is_file() for name in _DF2K):
        return None
    joint = parent / "DF2K" / "DF2K_train_HR_sub"
    joint.mkdir(parents=True, exist_ok=True)
    wanted = {file.name: file for name, below in _DF2K.items() for file in (parent / name / below).glob("*.png")}
    for there in list(joint.iterdir()):
        if there.is_symlink() and there.name not in wanted:
            there.unlink()
    for name, file in wanted.items():
        link = joint / name
        if not link.is_symlink() and not link.exists():
            link.symlink_to(os.path.relpath(file, joint))
    return joint.parent, len(wanted)
