"""Data sets for training and testing, written from the archives that SR papers name.

`archives` and `pairs` find the images and make parts of them, `prepare` writes the parts.
"""

from contrastive_sr.data.prepare.archives import check_apart, div2k_parts, flickr2k_parts, folder_parts
from contrastive_sr.data.prepare.links import join_df2k
from contrastive_sr.data.prepare.pairs import CAMERASR, DREALSR, NTIRE2020, REALSR, PairedArchive, paired_parts
from contrastive_sr.data.prepare.parts import Cut, Part
from contrastive_sr.data.prepare.run import PartResult, Prepared, prepare

__all__ = [
    "CAMERASR",
    "DREALSR",
    "NTIRE2020",
    "REALSR",
    "Cut",
    "PairedArchive",
    "Part",
    "PartResult",
    "Prepared",
    "check_apart",
    "div2k_parts",
    "flickr2k_parts",
    "folder_parts",
    "join_df2k",
    "paired_parts",
    "prepare",
]
