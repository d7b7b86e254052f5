"""CRL-SR's contrastive losses once more, slow and literal, in float64; nothing here calls the library."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = list[list[float]]


def _rows(x: Tensor, normalize: bool) -> Rows:
    """Vectors as lists, of length 1 if wanted; zero vectors stay zero."""
    rows = x.detach().double().tolist()
    if not normalize:
        return rows
    lengths = [math.sqrt(math.fsum(v * v for v in row)) for row in rows]
    return [[v / length if length else 0.0 for v in row] for row, length in zip(rows, lengths, strict=True)]


def _dot(u: Sequence[float], v: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(u, v, strict=True))


def _log_sum(exponents: Sequence[float]) -> float:
    """log of the sum of exponentials, which may be too large for a float."""
    if not exponents:
        return -math.inf
    return max(exponents) + math.log(math.fsum(math.exp(x - max(exponents)) for x in exponents))


def _minus_log_share(numerator: Sequence[float], rest: Sequence[float]) -> float:
    """``-log(n / (n + r))`` for sums n and r of exponentials; as ``log(1 + r / n)``, which keeps small digits."""
    gap = _log_sum(rest) - _log_sum(numerator)
    return max(gap, 0.0) + math.log1p(math.exp(-abs(gap)))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def info_nce_loops(a: Tensor, b: Tensor, temperature: float, normalize: bool = True) -> Tensor:
    """Eq. 2 before its sum, for a (M, D) and b (K, D): (M,)."""
    anchors, candidates = _rows(a, normalize), _rows(b, normalize)
    values = []
    for m, anchor in enumerate(anchors):
        logits = [_dot(anchor, c) / temperature for c in candidates]
        values.append(_minus_log_share([logits[m]], logits[:m] + logits[m + 1 :]))
    return _column(values)


def bidirectional_nce_loops(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Eq. 3 before its sum, for (M, D) vectors: (M,)."""
    return info_nce_loops(a, b, temperature) + info_nce_loops(b, a, temperature)


def penalties(hr: Tensor, lr: Tensor) -> list[float]:
    """Eq. 5."""
    return [1 - _dot(h, low) for h, low in zip(_rows(hr, True), _rows(lr, True), strict=True)]


def srnce_loops(
    hr: Tensor,
    sr: Tensor,
    lr: Tensor,
    temperature: float,
    variant: str,
    penalty: Sequence[float] | None,
    normalize: bool = True,
) -> Tensor:
    """Eq. 6 before its mean, or eq. 4 without a penalty, for (M, D) vectors, sr (K, D): (M,).

    ``"paper"`` has no temperature; ``"negative"`` has the LR vector in the denominator and nowhere else.
    """
    tau = 1.0 if variant == "paper" else temperature
    f_h, f_s, f_l = _rows(hr, normalize), _rows(sr, normalize), _rows(lr, normalize)
    values = []
    for m, h in enumerate(f_h):
        p = 0.0 if penalty is None else penalty[m]
        numerator = [(_dot(h, f_s[m]) - p) / tau]
        rest = [_dot(h, s) / tau for j, s in enumerate(f_s) if j != m]
        if variant == "negative":
            rest.append(_dot(f_s[m], f_l[m]) / tau)
        else:
            numerator.append((1 - _dot(f_s[m], f_l[m]) - p) / tau)
        values.append(_minus_log_share(numerator, rest))
    return _column(values)


def statistics_loops(a: Tensor, b: Tensor, temperature: float, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the pairs (M,), log-sum-exp of the others by row (M,) and by column (K,), for a (M, D) and b (K, D)."""
    anchors, candidates = _rows(a, normalize), _rows(b, normalize)
    logits = [[_dot(x, y) / temperature for y in candidates] for x in anchors]
    rows = [_log_sum([x for j, x in enumerate(row) if j != m]) for m, row in enumerate(logits)]
    columns = [_log_sum([row[j] for m, row in enumerate(logits) if j != m]) for j in range(len(candidates))]
    return _column([logits[m][m] for m in range(len(anchors))]), _column(rows), _column(columns)


def plain_statistics(a: Tensor, b: Tensor, temperature: float, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`statistics_loops` as ordinary tensor operations, for (..., M, D) and (..., K, D), with gradients."""
    if normalize:
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    logits = a @ b.mT / temperature
    others = logits.masked_fill(torch.eye(*logits.shape[-2:], dtype=torch.bool, device=a.device), -math.inf)
    return logits.diagonal(dim1=-2, dim2=-1), others.logsumexp(-1), others.logsumexp(-2)


def plain_info_nce(a: Tensor, b: Tensor, temperature: float, normalize: bool = True) -> Tensor:
    """Eq. 2 as one usually writes it, a mean, for (M, D) vectors."""
    if normalize:
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    return F.cross_entropy(a @ b.mT / temperature, torch.arange(a.shape[0]))


KINDS = ("ordinary", "identical", "zero", "one zero", "opposite", "single", "small", "large", "half", "bfloat16")


def extreme_vectors(kind: str, roles: int, count: int = 9, dim: int = 6) -> list[Tensor]:
    """One (count, dim) tensor a role, of a kind that breaks careless code; leaves that require a gradient."""
    generator = torch.Generator().manual_seed(7)
    vectors = [torch.randn(count, dim, generator=generator) for _ in range(roles)]
    if kind == "identical":
        vectors = [torch.full((count, dim), 0.3) for _ in vectors]
    elif kind == "zero":
        vectors = [torch.zeros(count, dim) for _ in vectors]
    elif kind == "one zero":
        for index, x in enumerate(vectors):
            x[index] = 0
    elif kind == "opposite":
        vectors = [x.sign() * (-1) ** index for index, x in enumerate([vectors[0]] * roles)]
    elif kind == "single":
        vectors = [x[:1] for x in vectors]
    elif kind in ("small", "large"):
        vectors = [x * {"small": 1e-6, "large": 1e6}[kind] for x in vectors]
    elif kind in ("half", "bfloat16"):
        vectors = [x.to({"half": torch.float16, "bfloat16": torch.bfloat16}[kind]) for x in vectors]
    return [x.clone().requires_grad_() for x in vectors]
