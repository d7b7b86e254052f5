"""The papers' equations: tensors in, a tensor out."""

from contrastive_sr.functional.criteria import criteria_alignment, criteria_uniformity
from contrastive_sr.functional.dual import dual_contrastive_loss
from contrastive_sr.functional.embedded import embedded_distance, embedded_nce, plain_embedded_nce
from contrastive_sr.functional.haar import haar_high_bands
from contrastive_sr.functional.info_nce import bidirectional_nce, info_nce
from contrastive_sr.functional.logsumexp import set_tiling
from contrastive_sr.functional.nce import multi_positive_nce
from contrastive_sr.functional.queue import queue_nce
from contrastive_sr.functional.similarity import pixel_cosine_similarity
from contrastive_sr.functional.srnce import srnce
from contrastive_sr.functional.supcon import supcon

__all__ = [
    "bidirectional_nce",
    "criteria_alignment",
    "criteria_uniformity",
    "dual_contrastive_loss",
    "embedded_distance",
    "embedded_nce",
    "haar_high_bands",
    "info_nce",
    "multi_positive_nce",
    "pixel_cosine_similarity",
    "plain_embedded_nce",
    "queue_nce",
    "set_tiling",
    "srnce",
    "supcon",
]
