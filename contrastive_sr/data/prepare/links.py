"""DF2K: the sub-images of DIV2K and Flickr2K in one folder, as links instead of copies."""

from __future__ import annotations

import os
from pathlib import Path

from contrastive_sr.data.prepare.journal import JOURNAL

_DF2K = {"DIV2K": "DIV2K_train_HR_sub", "Flickr2K": "Flickr2K_HR_sub"}


def join_df2k(folder: Path) -> tuple[Path, int] | None:
    """Put the HR sub-images of DIV2K and Flickr2K, prepared side by side, into one folder beside them, as links.

    Links that lead to images that are no longer there are removed; whatever else lies in the folder stays.

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
        if there.name not in wanted and any(
            there.is_symlink() and os.readlink(there) == os.path.relpath(parent / name / below / there.name, joint)
            for name, below in _DF2K.items()
        ):
            there.unlink()
    for name, file in wanted.items():
        link = joint / name
        if not link.is_symlink() and not link.exists():
            link.symlink_to(os.path.relpath(file, joint))
    return joint.parent, len(wanted)
