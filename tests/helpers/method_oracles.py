"""CRL-SR's equations on feature maps once more, slow and literal, in float64; nothing here calls the library."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

Vectors = list[list[float]]


def unit_vectors(image: Tensor) -> Vectors:
    """The channel vectors (C, H, W) holds, row by row, each of length 1."""
    channels, height, width = image.shape
    out = []
    for i in range(height):
        for j in range(width):
            vector = [image[c, i, j].item() for c in range(channels)]
            length = math.sqrt(sum(v * v for v in vector))
            out.append([v / length for v in vector])
    return out


def dot(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def info_nce_loops(anchor: Vectors, candidates: Vectors, temperature: float) -> float:
    """Eq. 2 with the mean for the sum."""
    total = 0.0
    for m, a in enumerate(anchor):
        logits = [math.exp(dot(a, c) / temperature) for c in candidates]
        total -= math.log(logits[m] / sum(logits))
    return total / len(anchor)


def srnce_negative_loops(hr: Vectors, sr: Vectors, lr: Vectors, temperature: float) -> float:
    """Eq. 6 with the LR vector as one more negative."""
    total = 0.0
    for m, h in enumerate(hr):
        penalty = 1 - dot(h, lr[m])
        own = math.exp((dot(h, sr[m]) - penalty) / temperature)
        rest = sum(math.exp(dot(h, s) / temperature) for j, s in enumerate(sr) if j != m)
        total -= math.log(own / (own + rest + math.exp(dot(sr[m], lr[m]) / temperature)))
    return total / len(hr)
