"""Data sets for training and testing, written from the archives that SR papers name.

`archives` finds the images and makes parts of them, `prepare` writes the parts.
"""

from contrastive_sr.data.prepare.archives import check_apart, div2k_parts, flickr2k_parts, folder_parts, realsr_parts
from contrastive_sr.data.prepare.links import join_df2k
from contrastive_sr.data.prepare.parts import Cut, Part
from contrastive_sr.data.prepare.run import PartResult, Prepared, prepare

__all__ = [
    "Cut",
    "Part",
    "PartResult",
    "Prepared",
    "check_apart",
    "div2k_parts",
    "flickr2k_parts",
    "folder_parts",
    "join_df2k",
    "prepare",
    "realsr_parts",
]
