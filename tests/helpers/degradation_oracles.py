"""Degradations once more, pixel by pixel in plain Python floats; nothing here calls the library."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Kernel = list[list[float]]


def reflect(index: int, length: int) -> int:
    """A mirrored index, the edge pixel not repeated: ... 2 1 | 0 1 2 ..."""
    index = abs(index)
    return index if index < length else 2 * (length - 1) - index


def symmetric(index: int, length: int) -> int:
    """A mirrored index, the edge pixel repeated: ... 1 0 | 0 1 ..."""
    if index < 0:
        index = -1 - index
    return index if index < length else 2 * length - 1 - index


def gaussian_loops(first: float, second: float, angle: float, size: int) -> Kernel:
    """exp(-u^T S^-1 u / 2) with S = R diag(first^2, second^2) R^T, inverted as a 2 x 2 matrix; sums to 1."""
    c, s = math.cos(angle), math.sin(angle)
    a, d = c * c * first**2 + s * s * second**2, s * s * first**2 + c * c * second**2
    b = c * s * (first**2 - second**2)
    determinant = a * d - b * b
    middle = size // 2
    values = [
        [
            math.exp(-0.5 * (d * x * x - 2 * b * x * y + a * y * y) / determinant)
            for x in (column - middle for column in range(size))
        ]
        for y in (row - middle for row in range(size))
    ]
    total = sum(map(sum, values))
    return [[value / total for value in row] for row in values]


def blur_loops(x: Tensor, kernel_at: Callable[[int, int, int], Kernel]) -> Tensor:
    """Each pixel (b, i, j) with its own kernel, edges reflected."""
    batch, channels, height, width = x.shape
    out = torch.zeros(batch, channels, height, width, dtype=torch.float64)
    for b in range(batch):
        images = x[b].tolist()
        for i in range(height):
            for j in range(width):
                kernel = kernel_at(b, i, j)
                middle = len(kernel) // 2
                for channel, image in enumerate(images):
                    total = 0.0
                    for p, row in enumerate(kernel):
                        line = image[reflect(i + p - middle, height)]
                        for q, weight in enumerate(row):
                            total += weight * line[reflect(j + q - middle, width)]
                    out[b, channel, i, j] = total
    return out


def cubic(x: float) -> float:
    """Keys, a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def bicubic_line(line: list[float], scale: int) -> list[float]:
    """imresize of one line, its kernel widened by the scale."""
    out = []
    for o in range(len(line) // scale):
        centre = scale * o + (scale - 1) / 2
        taps = range(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
        weights = [cubic((i - centre) / scale) for i in taps]
        values = [line[symmetric(i, len(line))] for i in taps]
        out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return out


def bicubic_loops(x: Tensor, scale: int) -> Tensor:
    """Rows and then columns."""
    images = []
    for image in x.flatten(0, 1).tolist():
        narrow = [bicubic_line(row, scale) for row in image]
        columns = [bicubic_line(list(column), scale) for column in zip(*narrow, strict=True)]
        images.append([list(row) for row in zip(*columns, strict=True)])
    small = torch.tensor(images, dtype=torch.float64)
    return small.view(*x.shape[:2], *small.shape[1:])


def s_fold_loops(x: Tensor, scale: int) -> Tensor:
    """The upper-left pixel of each patch."""
    height, width = x.shape[2] // scale, x.shape[3] // scale
    out = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = x[:, :, scale * i, scale * j]
    return out


def field_loops(control: list[list[float]], height: int, width: int, smooth: bool) -> list[list[float]]:
    """A field through evenly spread values, at each pixel."""

    def way(place: int, length: int, count: int) -> tuple[int, float]:
        if count == 1:
            return 0, 0.0
        position = place * (count - 1) / (length - 1)
        before = min(math.floor(position + 1e-9), count - 2)
        t = position - before
        return before, t * t * (3 - 2 * t) if smooth else t

    out = []
    for i in range(height):
        row = []
        for j in range(width):
            (p, u), (q, v) = way(i, height, len(control)), way(j, width, len(control[0]))
            below, beside = min(p + 1, len(control) - 1), min(q + 1, len(control[0]) - 1)
            upper = (1 - v) * control[p][q] + v * control[p][beside]
            lower = (1 - v) * control[below][q] + v * control[below][beside]
            row.append((1 - u) * upper + u * lower)
        out.append(row)
    return out
