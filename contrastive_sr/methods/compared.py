"""What a method compares, for a person to look at: `contrastive-sr samples` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr.functional.similarity import unit_vectors

_CROP = 6  # what is shown around a place is so much smaller than the image
_NEGATIVES = 3


@dataclass
class Compared:
    """One of the things that are compared.

    Attributes:
        label: what it is.
        role: ``"anchor"``, ``"positive"``, ``"negative"``, or ``"shown"`` for what is only an aid to the viewer.
        image: (3, h, w) RGB in [0, 1]. None: there is ``heat`` alone.
        similarity: to the anchor, or another number, as the :class:`Comparison`'s ``quantity`` says. None: no number.
        bands: what the embedding's first layer sees of it, by name, (3, h, w) in [-1, 1] with 0 for nothing; none if
            that is the image.
        heat: (h, w) numbers for a map, over the image where there is one.
        marks: places to mark as (row, column) from 0 to 1, by role.
    """

    label: str
    role: str
    image: Tensor | None
    similarity: float | None = None
    bands: Mapping[str, Tensor] = field(default_factory=dict)
    heat: Tensor | None = None
    marks: Sequence[tuple[str, float, float]] = ()


@dataclass
class Comparison:
    """One anchor and what it is compared with.

    Attributes:
        title: which of the method's comparisons this is.
        quantity: what the numbers are, in words.
        parts: anchor, positives and negatives, in the order to be drawn.
        note: what to know before trusting the numbers, such as ``"untrained embedding"``.
        again: whether it repeats the comparison before it, in another layer or direction; it tells nothing new while
            there is a note.
    """

    title: str
    quantity: str
    parts: list[Compared]
    note: str = ""
    again: bool = False


def in_digits(number: float, digits: int) -> str:
    """A number as text for people; a similarity that would be rounded to 1, as 1 minus what is missing.

    Args:
        number: any.
        digits: digits after the decimal point.

    Example:
        >>> in_digits(0.6204, 3), in_digits(0.99998, 3), in_digits(1.0, 3), in_digits(12.5, 3)
        ('0.620', '1 - 2.0e-05', '1.000', '12.500')
    """
    lacking = 1 - number
    return f"1 - {lacking:.1e}" if 1e-9 < lacking < 0.5 * 10**-digits else f"{number:.{digits}f}"


def strongest_place(images: Tensor) -> tuple[float, float]:
    """Where the first image has most detail, as (row, column) from 0 to 1; not at its edge.

    Args:
        images: (B, C, H, W).
    """
    grey = images[:1].detach().mean(1, keepdim=True)
    window = max(3, min(grey.shape[-2:]) // (2 * _CROP)) // 2 * 2 + 1
    mean = F.avg_pool2d(grey, window, stride=1)
    detail = F.avg_pool2d(grey.square(), window, stride=1) - mean.square()
    height, width = detail.shape[-2:]
    edge = min(height, width) // _CROP
    inside = detail[0, 0, edge : height - edge, edge : width - edge]
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    centre = edge + window // 2 + 0.5
    return (row + centre) / grey.shape[-2], (column + centre) / grey.shape[-1]


def mean_cosine(layers: Sequence[Mapping[str, Tensor]], one: str, other: str) -> float:
    """Mean cosine of two roles at the same places, over all layers.

    Args:
        layers: (B, C, H, W) feature maps by role; the first image's are taken.
        one: a role.
        other: another.
    """
    return float(torch.stack([F.cosine_similarity(x[one][0], x[other][0], dim=0).mean() for x in layers]).mean())


def compare_layers(
    layers: Sequence[Mapping[str, Tensor]],
    images: Mapping[str, tuple[str, Tensor]],
    directions: Sequence[tuple[str, str]],
    place: tuple[float, float],
) -> list[Comparison]:
    """One place compared with all places, in each layer and each direction.

    Args:
        layers: (B, C, H, W) feature maps by role; the first image's are taken.
        images: name and image (3, H, W) by role.
        directions: roles of anchor and candidates. A third role is a condition of the anchor's place.
        place: of the anchor, (row, column) from 0 to 1.
    """
    whole = {role: (name, image.clamp(0, 1)) for role, (name, image) in images.items()}
    comparisons: list[Comparison] = []
    for anchor, candidates in directions:
        condition = next((role for role in images if role not in (anchor, candidates)), None)
        for number, maps in enumerate(layers, start=1):
            if maps[anchor][0, 0].numel() == 1:  # vectors have no places
                continue
            named = [(*whole[role], maps[role][0]) for role in (anchor, candidates)]
            also = None if condition is None else (*whole[condition], maps[condition][0])
            title = f"layer {number} of {len(layers)}, {named[0][0]} to {named[1][0]}"
            comparison = compare_places(title, named[0], named[1], place=place, also=also)
            comparisons.append(replace(comparison, again=bool(comparisons)))
    return comparisons


def without_repeats(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons without those that repeat another one of untrained parts, as random as the first.

    Args:
        comparisons: in the order to be drawn; the note of one that stays says how many were left out.
    """
    kept: list[Comparison] = []
    left_out: list[int] = []
    for comparison in comparisons:
        if comparison.again and comparison.note:
            left_out[-1] += 1
        else:
            kept.append(comparison)
            left_out.append(0)
    return [
        replace(x, note=f"{x.note}: {count} more layers and directions, as random, are left out") if count else x
        for x, count in zip(kept, left_out, strict=True)
    ]


def compare_places(
    title: str,
    anchor: tuple[str, Tensor, Tensor],
    candidates: tuple[str, Tensor, Tensor],
    *,
    place: tuple[float, float],
    also: tuple[str, Tensor, Tensor] | None = None,
) -> Comparison:
    """One place of an image compared with all places of another, in the features of one layer.

    Drawn are what lies around the anchor, its positive (the same place), the most similar negatives and the least
    similar one, at least half of such a crop apart, and a map of all similarities.

    Args:
        title: title of the comparison.
        anchor: name, image (3, H, W) in [0, 1] and feature map (C, h, w).
        candidates: name, image and feature map in the same form.
        place: of the anchor, (row, column) from 0 to 1.
        also: name, image and feature map of the condition under which the anchor's place is compared.
    """
    name, image, features = candidates
    height, width = features.shape[-2:]
    row, column = (min(int(at * length), length - 1) for at, length in zip(place, (height, width), strict=True))
    at = (row + 0.5) / height, (column + 0.5) / width
    vector = unit_vectors(anchor[2][:, row, column])
    heat = unit_vectors(features.permute(1, 2, 0)) @ vector
    least = ("least similar place", *_extreme(-heat, [at])[0])
    nearest = _extreme(heat, [at], _NEGATIVES)
    labels = ["most similar place", "2nd most similar", "3rd most similar"]
    others_shown = [*((label, *there) for label, there in zip(labels, nearest, strict=False)), least]
    others = (heat.sum() - heat[row, column]) / max(heat.numel() - 1, 1)
    parts = [
        Compared(f"{anchor[0]}, a place", "anchor", _around(anchor[1], *at)),
        Compared(f"{name}, same place", "positive", _around(image, *at), float(heat[row, column])),
    ]
    if also is not None:
        similarity = float(unit_vectors(also[2][:, row, column]) @ vector)
        parts.append(Compared(f"{also[0]}, the condition", "shown", _around(also[1], *at), similarity))
    marks = [("positive", *at)]
    for label, y, x in others_shown:
        index = min(int(y * height), height - 1), min(int(x * width), width - 1)
        parts.append(Compared(f"{name}, {label}", "negative", _around(image, y, x), float(heat[index])))
        marks.append(("negative", y, x))
    parts.append(Compared(f"{name}, mean of all others", "shown", image, float(others), heat=heat, marks=marks))
    return Comparison(title, f"cosine of the features, {height} x {width} places", parts)


def _extreme(values: Tensor, apart: Sequence[tuple[float, float]], count: int = 1) -> list[tuple[float, float]]:
    """The places of the largest values, half a crop apart from each other and from those given."""
    height, width = values.shape
    rows = ((torch.arange(height, device=values.device) + 0.5) / height)[:, None]
    columns = ((torch.arange(width, device=values.device) + 0.5) / width)[None]
    left = values.clone()
    chosen: list[tuple[float, float]] = []
    for _ in range(count):
        for y, x in (*apart, *chosen):
            left[((rows - y).abs() < 0.5 / _CROP) & ((columns - x).abs() < 0.5 / _CROP)] = -torch.inf
        index = int(left.argmax())
        if left.flatten()[index] == -torch.inf:
            break
        chosen.append(((index // width + 0.5) / height, (index % width + 0.5) / width))
    return chosen


def _around(image: Tensor, y: float, x: float) -> Tensor:
    """A crop of an image (3, H, W) around a place; at an edge, as near to it as can be."""
    height, width = image.shape[-2:]
    size = max(8, min(height, width) // _CROP)
    top, left = (max(0, min(int(at * length) - size // 2, length - size)) for at, length in ((y, height), (x, width)))
    return image[:, top : top + size, left : left + size]
