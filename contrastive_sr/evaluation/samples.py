"""Draws what methods compare; needs matplotlib, draws without a screen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from contrastive_sr.data.files import atomic_write
from contrastive_sr.evaluation.plots import names_as_they_are
from contrastive_sr.methods import Compared, Comparison
from contrastive_sr.methods.compared import in_digits

COLOURS = {"anchor": "#000000", "positive": "#0072B2", "negative": "#D55E00", "shown": "#777777"}
MEANINGS = {
    "anchor": "anchor",
    "positive": "positive: pulled closer",
    "negative": "negative: pushed away",
    "shown": "shown beside them",
}
"""What the legend says of each role, in its order."""
_CELL, _GAP, _LEFT, _MARGIN = 1.5, 0.12, 0.62, 0.12  # inches
_WIDE = 7.0  # at which the legend is one line
_LINE, _HEADER, _CAPTION = 0.2, 0.82, 0.3
_LETTERS = 24  # of a label's line


@names_as_they_are
def save_samples(path: Path, comparisons: Sequence[Comparison], title: str) -> None:
    """Draws the images of each comparison in a row, below each what the embedding's first layer sees of it.

    Where there are no more images than bands, it is one row an image. A legend below the title says which frames are
    whose: black around anchors, blue around positives and vermillion around negatives.

    Args:
        path: the picture to write; png, pdf or svg.
        comparisons: at least one.
        title: title of the whole picture.
    """
    blocks = [_Block(comparison) for comparison in comparisons]
    width = _LEFT + max(block.columns for block in blocks) * (_CELL + _GAP) + _MARGIN
    lines = textwrap.wrap(title, int(width * 10))
    roles = {part.role for comparison in comparisons for part in comparison.parts}
    legend = _MARGIN + _LINE * len(lines)
    across = len(roles) if width > _WIDE else 2
    top = legend + _LINE * math.ceil(len(roles) / across) + 2 * _MARGIN
    height = top + sum(_HEADER + block.rows * block.pitch for block in blocks) + _MARGIN
    figure = Figure(figsize=(width, height), dpi=130)

    def write(left: float, down: float, text: str, size: float, **style: Any) -> None:
        figure.text(left / width, 1 - down / height, text, fontsize=size, va="top", **style)

    write(_MARGIN, _MARGIN, "\n".join(lines), 11, weight="bold")
    figure.legend(
        handles=[Patch(color=COLOURS[role], label=words) for role, words in MEANINGS.items() if role in roles],
        loc="upper left",
        bbox_to_anchor=(0.6 * _MARGIN / width, 1 - legend / height),
        ncols=across,
        fontsize=8.5,
        frameon=False,
        handlelength=0.9,
        borderpad=0.3,
    )
    for block in blocks:
        comparison = block.comparison
        note = f" - {comparison.note}" if comparison.note else ""
        write(_MARGIN, top, f"{comparison.title}{note}", 9.5, weight="bold")
        write(_MARGIN, top + 0.18, f"numbers: {comparison.quantity}", 7.5, color="#555555")
        for row, column, draw in block.cells():
            left, down = _LEFT + column * (_CELL + _GAP), top + _HEADER + row * block.pitch
            axes = figure.add_axes((left / width, 1 - (down + _CELL) / height, _CELL / width, _CELL / height))
            axes.set_xticks([])
            axes.set_yticks([])
            draw(axes)
        for row, name in enumerate(block.row_names):
            write(_MARGIN, top + _HEADER + row * block.pitch + _CELL / 2, textwrap.fill(name, 8), 8)
        top += _HEADER + block.rows * block.pitch
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:])


class _Block:
    """Where the parts of a comparison and their bands go."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.names = list(dict.fromkeys(name for part in comparison.parts for name in part.bands))
        self.across = len(comparison.parts) <= len(self.names)  # a row an image
        sides = (1 + len(self.names), len(comparison.parts))
        self.rows, self.columns = sides[::-1] if self.across else sides
        self.pitch = _CELL + _GAP + (_CAPTION if self.across else 0.0)
        self.row_names = [] if self.across else ["", *self.names]

    def cells(self) -> Iterator[tuple[int, int, Callable[[Axes], None]]]:
        """Row, column, and what draws it."""
        parts = self.comparison.parts
        for number, part in enumerate(parts):
            yield (number, 0, partial(_show, part=part)) if self.across else (0, number, partial(_show, part=part))
        for index, name in enumerate(self.names, start=1):
            having = [number for number, part in enumerate(parts) if name in part.bands]
            pictures = _on_one_scale([parts[number].bands[name] for number in having])
            for number, picture in zip(having, pictures, strict=True):
                title = name if self.across and number == having[0] else ""
                show = partial(_show_band, picture=picture, role=parts[number].role, title=title)
                yield (number, index, show) if self.across else (index, number, show)


def _caption(part: Compared) -> str:
    lines = [line for piece in part.label.split(", ") for line in textwrap.wrap(piece, _LETTERS)]
    return "\n".join(lines if part.similarity is None else [*lines, in_digits(part.similarity, 3)])


def _show_band(axes: Axes, picture: Tensor, role: str, title: str) -> None:
    axes.imshow(picture.permute(1, 2, 0))
    axes.set_title(title, fontsize=8, pad=3)
    _frame(axes, role)


def _show(axes: Axes, part: Compared) -> None:
    if part.image is not None:
        axes.imshow(part.image.permute(1, 2, 0).cpu())
    if part.heat is not None:
        heat = part.heat.cpu()
        # edges of the map on the edges of the image below it
        extent = None if part.image is None else (-0.5, part.image.shape[2] - 0.5, part.image.shape[1] - 0.5, -0.5)
        over = 1.0 if part.image is None else 0.65
        low, high = float(heat.min()), float(torch.quantile(heat.float(), 0.998))  # a few pixels must not darken all
        axes.imshow(heat, cmap="inferno", extent=extent, alpha=over, interpolation="nearest", vmin=low, vmax=high)
        axes.set_xlabel(
            f"dark {in_digits(low, 3)}, bright {in_digits(high, 3)}", fontsize=6.5, labelpad=1, color="#555555"
        )
    if part.image is None and part.heat is None:
        axes.text(0.5, 0.5, "one value\nan image", ha="center", va="center", fontsize=7.5, color="#777777")
    for role, row, column in part.marks:
        assert part.image is not None
        marker, size = ("*", 13.0) if role == "positive" else ("o", 7.0)
        axes.plot(
            column * part.image.shape[2] - 0.5,
            row * part.image.shape[1] - 0.5,
            marker,
            markersize=size,
            color=COLOURS[role],
            markeredgecolor="white",
        )
    axes.set_title(_caption(part), fontsize=7.5, color=COLOURS[part.role], pad=3, linespacing=1.1)
    _frame(axes, part.role)


def _frame(axes: Axes, role: str) -> None:
    for spine in axes.spines.values():
        spine.set_color(COLOURS[role])
        spine.set_linewidth(2.0)


def _on_one_scale(bands: Sequence[Tensor]) -> list[Tensor]:
    """Bands (3, h, w) as images in [0, 1], so that they can be compared: 0 is grey, or black if none is below it."""
    values = torch.cat([band.flatten() for band in bands]).float().cpu()
    largest = torch.quantile(values.abs()[:: max(1, len(values) // 100_000)], 0.998).clamp_min(1e-6)
    signed = bool((values < 0).any())
    return [((band.cpu() / largest + 1) / 2 if signed else band.cpu() / largest).clamp(0, 1) for band in bands]
