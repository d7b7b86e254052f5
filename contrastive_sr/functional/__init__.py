"""The papers' equations: tensors in, a tensor out."""

from contrastive_sr.functional.dual import dual_contrastive_loss
from contrastive_sr.functional.embedded import EmbeddedNCE, embedded_nce
from contrastive_sr.functional.haar import haar_high_bands
from contrastive_sr.functional.nce import multi_positive_nce
from contrastive_sr.functional.similarity import pixel_cosine_similarity

__all__ = [
    "EmbeddedNCE",
    "dual_contrastive_loss",
    "embedded_nce",
    "haar_high_bands",
    "multi_positive_nce",
    "pixel_cosine_similarity",
]
