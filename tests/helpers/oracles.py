"""The papers' equations once more, slow and literal, in float64; nothing here calls the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Embed = Callable[[Tensor], Sequence[Tensor]]


def haar_loops(x: Tensor) -> Tensor:
    """LH, HL, HH block by block, as products with the orthonormal Haar vectors (1, 1) / sqrt 2 and (1, -1) / sqrt 2."""
    low, high = (1 / math.sqrt(2), 1 / math.sqrt(2)), (1 / math.sqrt(2), -1 / math.sqrt(2))
    batch, channels, height, width = x.shape
    out = torch.zeros(batch, 3 * channels, height // 2, width // 2, dtype=torch.float64)
    # (along the height, along the width)
    for band, (down, across) in enumerate([(high, low), (low, high), (high, high)]):
        for b in range(batch):
            for c in range(channels):
                for i in range(height // 2):
                    for j in range(width // 2):
                        out[b, band * channels + c, i, j] = sum(
                            down[u] * across[v] * x[b, c, 2 * i + u, 2 * j + v].item()
                            for u in range(2)
                            for v in range(2)
                        )
    return out


def cosine_loops(x: Tensor, y: Tensor) -> Tensor:
    """Eq. 9, position by position."""
    batch, channels, height, width = x.shape
    out = torch.zeros(batch, dtype=torch.float64)
    for b in range(batch):
        total = 0.0
        for i in range(height):
            for j in range(width):
                u = [x[b, c, i, j].item() for c in range(channels)]
                v = [y[b, c, i, j].item() for c in range(channels)]
                dot = sum(p * q for p, q in zip(u, v, strict=True))
                lengths = math.sqrt(sum(p * p for p in u)) * math.sqrt(sum(q * q for q in v))
                total += dot / lengths if lengths else 0.0
        out[b] = total / (height * width)
    return out


def nce_loops(positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Eq. 8, anchor by anchor and positive by positive: (B,)."""
    out = torch.zeros(positive.shape[0], dtype=torch.float64)
    for b, (ps, ns) in enumerate(zip(positive.tolist(), negative.tolist(), strict=True)):
        rest = sum(math.exp(n / temperature) for n in ns)
        terms = [-math.log(math.exp(p / temperature) / (math.exp(p / temperature) + rest)) for p in ps]
        out[b] = sum(terms) / len(terms)
    return out


def dual_loops(real: Tensor, fake: Tensor) -> float:
    """Eq. 7 as dual_contrastive_loss's docstring reads it, logit by logit."""
    reals, fakes = real.flatten().tolist(), fake.flatten().tolist()
    first = [-math.log(math.exp(r) / (math.exp(r) + sum(math.exp(f) for f in fakes))) for r in reals]
    second = [-math.log(math.exp(-f) / (math.exp(-f) + sum(math.exp(-r) for r in reals))) for f in fakes]
    return sum(first) / len(first) + sum(second) / len(second)


def plain_contrast(
    embed: Embed, sr: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 8 to 10 with one ordinary embedding pass for each set of images and an ordinary graph.

    Returns:
        The loss, and the similarities (B, P) and (B, N) as means over the layers.
    """
    anchor = embed(sr)
    near = [embed(images) for images in positives.unbind(1)]
    far = [embed(images) for images in negatives.unbind(1)]
    losses, near_similarities, far_similarities = [], [], []
    for layer, f in enumerate(anchor):
        p = torch.stack([_mean_cosine(f, maps[layer]) for maps in near], 1)
        n = torch.stack([_mean_cosine(f, maps[layer]) for maps in far], 1)
        above, below = (p / temperature).exp(), (n / temperature).exp().sum(1, keepdim=True)
        losses.append(-(above / (above + below)).log().mean())
        near_similarities.append(p.detach())
        far_similarities.append(n.detach())
    return torch.stack(losses).mean(), torch.stack(near_similarities).mean(0), torch.stack(far_similarities).mean(0)


def _mean_cosine(x: Tensor, y: Tensor) -> Tensor:
    lengths = (x * x).sum(1).sqrt() * (y * y).sum(1).sqrt()
    return ((x * y).sum(1) / lengths).mean((1, 2))


def plain_blocks(blocks: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The outputs of discriminator blocks: convolution, BatchNorm, LeakyReLU, one module after the other."""
    maps = []
    for block in blocks:
        x = F.leaky_relu(block.norm(block.conv(x)), 0.2)
        maps.append(x)
    return maps


def relative_distance(x: Tensor, y: Tensor) -> float:
    """Distance of x from y over the length of y."""
    x, y = x.double().cpu(), y.double().cpu()
    return float((x - y).norm() / y.norm())
