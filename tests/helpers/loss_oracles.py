"""Equations of DASR, Cria-CL and MPF-Net once more, slow and literal, in float64; nothing here calls the library."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def unit_loops(x: Tensor) -> list[list[float]]:
    """Rows of length 1; zero rows as they are."""
    rows = []
    for row in x.tolist():
        length = math.sqrt(sum(value * value for value in row))
        rows.append([value / length if length else 0.0 for value in row])
    return rows


def queue_loops(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float, valid: Tensor | None = None, normalize: bool = True
) -> Tensor:
    """DASR eq. 3 with the positive inside of the denominator, query by query: (B,)."""
    qs, ks, us = (unit_loops(x) if normalize else x.tolist() for x in (query, key, queue))
    used = [u for index, u in enumerate(us) if valid is None or bool(valid[index])]
    out = torch.zeros(len(qs), dtype=torch.float64)
    for i, (q, k) in enumerate(zip(qs, ks, strict=True)):
        positive = sum(a * b for a, b in zip(q, k, strict=True)) / temperature
        logits = [sum(a * b for a, b in zip(q, u, strict=True)) / temperature for u in used]
        out[i] = math.log(sum(math.exp(logit - positive) for logit in [positive, *logits]))
    return out


def alignment_loops(anchor: Tensor, positives: Sequence[Tensor], exponent: float, shape: torch.Size) -> Tensor:
    """Cria-CL eq. 8, element by element."""
    maps = [criterion.expand(shape).flatten().tolist() for criterion in (anchor, *positives)]
    values = [sum(abs(a - c) ** exponent for c in others) for a, *others in zip(*maps, strict=True)]
    return torch.tensor(values, dtype=torch.float64).view(shape)


def uniformity_loops(anchor: Tensor, negatives: Sequence[Tensor], t: float, shape: torch.Size) -> Tensor:
    """Cria-CL eq. 9, element by element."""
    maps = [criterion.expand(shape).flatten().tolist() for criterion in (anchor, *negatives)]
    values = [-math.log(sum(math.exp(-t * (a + c) ** 2) for c in others)) for a, *others in zip(*maps, strict=True)]
    return torch.tensor(values, dtype=torch.float64).view(shape)


def dot_loops(anchor: Tensor, keys: Tensor) -> list[list[float]]:
    """MPF-Net eq. 10's dot products of whole maps (B, C, H, W) with those of their keys (B, K, C, H, W)."""
    return [
        [sum(a * b for a, b in zip(f.flatten().tolist(), k.flatten().tolist(), strict=True)) for k in ks]
        for f, ks in zip(anchor, keys, strict=True)
    ]
