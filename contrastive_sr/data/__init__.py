"""Image files, folders of them, pairs, and data sets written from them; no host, and Pillow only where it is used.

`contrastive_sr.data.prepare` writes training sets from archives, `contrastive_sr.data.demo` the small set of the demo.
"""

from contrastive_sr.data.crops import two_corners
from contrastive_sr.data.degraded import DegradedSet, write_degraded
from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import IMAGE_SUFFIXES, as_image, as_tensor, list_images, read_rgb
from contrastive_sr.data.pairs import check_high_resolution, check_pairs, pair_folders

__all__ = [
    "IMAGE_SUFFIXES",
    "DegradedSet",
    "as_image",
    "as_tensor",
    "atomic_write",
    "check_high_resolution",
    "check_pairs",
    "list_images",
    "pair_folders",
    "read_rgb",
    "two_corners",
    "write_degraded",
]
