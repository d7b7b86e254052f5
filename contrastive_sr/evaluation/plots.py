"""Pictures for a person to look at; needs matplotlib, draws without a screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, BboxBase

from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation.evaluate import Metric
from contrastive_sr.evaluation.metrics import psnr_y
from contrastive_sr.evaluation.report import Box

Series = Sequence[tuple[int, float]]

_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")  # told apart by the colour-blind too

names_as_they_are = rc_context({"text.parse_math": False})
"""Decorator of what draws names of files and runs: a $ in them begins no formula."""

_DISTANCES = (7, 18, 30, 44)  # of a label from its point, in points


@dataclass(frozen=True)
class Panel:
    """One plot of a figure of curves.

    Args:
        title: title of the plot.
        lines: label to (step, value) pairs.
        levels: label to a value drawn as a dashed horizontal line.
        colours: label to the number of its colour, so that a run keeps one colour over all plots.
        overlap: the lines may lie on each other; the first are then drawn thicker.
        names: label to what the legend has in its place.
        y: what the values are, such as their unit.
    """

    title: str
    lines: Mapping[str, Series]
    levels: Mapping[str, float] = field(default_factory=dict)
    colours: Mapping[str, int] = field(default_factory=dict)
    overlap: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    y: str = ""


def save_crops(
    path: Path,
    rows: Sequence[tuple[str, Box, Mapping[str, UInt8Image]]],
    reference: str,
    metrics: Mapping[str, Metric] | None = None,
) -> None:
    """Draw one row of equal crops for each photograph, enlarged without smoothing.

    Args:
        path: PNG to write.
        rows: per row its name, the crop box (left, top, right, bottom) and the whole images, (H, W, 3) uint8 RGB, by
            label, in the order of the columns.
        reference: label of the HR image; every other crop is labelled with its PSNR on Y against it.
        metrics: further ones by title, of the crops too.
    """
    titled = []
    for name, (left, top, right, bottom), images in rows:
        crops = {label: image[top:bottom, left:right] for label, image in images.items()}
        parts = []
        for label, crop in crops.items():
            title = f"{label} ({name})"
            if label != reference:
                title = f"{label}: {psnr_y(crop, crops[reference], border=0):.2f} dB"
                values = {metric: measure(crop, crops[reference]) for metric, measure in (metrics or {}).items()}
                title += "".join(f"\n{metric} {value:.3f}" for metric, value in values.items() if value is not None)
            parts.append((title, crop))
        titled.append(parts)
    save_grid(path, titled)


@names_as_they_are
def save_grid(path: Path, rows: Sequence[Sequence[tuple[str, UInt8Image]]]) -> None:
    """Draw rows of images with a title each, enlarged without smoothing.

    Args:
        path: PNG to write.
        rows: per row the title and the image, (H, W, 3) uint8 RGB, of each column; a row may be shorter than others.
    """
    columns = max(map(len, rows))
    lines = max(title.count("\n") for row in rows for title, _ in row)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(3.0 * columns, (3.32 + 0.2 * lines) * len(rows)), dpi=128, layout=layout)
    plots = figure.subplots(len(rows), columns, squeeze=False)
    for row, images in zip(plots, rows, strict=True):
        for plot in row:
            plot.set_axis_off()
        for plot, (title, image) in zip(row, images, strict=False):
            plot.imshow(image, interpolation="nearest")
            plot.set_title(title, fontsize=12, pad=4)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:])


def _draw(plot: Axes, panel: Panel) -> None:
    for number, (label, series) in enumerate(panel.lines.items()):
        again, colour = divmod(panel.colours.get(label, number), len(_COLOURS))
        steps, values = np.array([step for step, _ in series]), np.array([value for _, value in series])
        # with thinner lines on top all can be seen
        wider = (
            (len(panel.lines) - 1 - number) / (len(panel.lines) - 1) if panel.overlap and len(panel.lines) > 1 else 0
        )
        width, size = 1.6 * (1 + wider), 3.5 * (1 + wider)
        marker = "o" if len(series) <= 20 else None
        style = ("-", "--", ":")[again % 3]
        name = panel.names.get(label, label)
        plot.plot(
            steps, values, style, color=_COLOURS[colour], label=name, linewidth=width, marker=marker, markersize=size
        )
    for label, level in panel.levels.items():
        plot.axhline(level, color="#777777", linestyle="--", linewidth=1.2, label=label)
    plot.set_title(panel.title, fontsize=12)
    plot.set_xlabel("step")
    plot.set_ylabel(panel.y)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.grid(alpha=0.25)
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)
    if panel.lines or panel.levels:
        plot.legend(frameon=False, fontsize=10)


@names_as_they_are
def save_curves(path: Path, panels: Sequence[Panel], title: str) -> None:
    """Draw the panels in two columns, the last of an odd number over both.

    Args:
        path: the picture to write; png, pdf or svg.
        panels: plots, row by row.
        title: title of the whole figure.
    """
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(11, 3.4 * rows), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(rows, 2)
    for number, panel in enumerate(panels):
        alone = number + 1 == len(panels) and number % 2 == 0
        _draw(figure.add_subplot(grid[number // 2, slice(None) if alone else number % 2]), panel)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:])


@dataclass(frozen=True)
class Frontier:
    """One plot of trainings by two metrics.

    Args:
        title: title of the plot.
        x: name of the first metric, with the direction that is better.
        y: name of the second.
        points: label to a point for each seed, the order being that of the colours.
        origin: the label that arrows to all others start from.
    """

    title: str
    x: str
    y: str
    points: Mapping[str, Sequence[tuple[float, float]]]
    origin: str


@names_as_they_are
def save_frontier(path: Path, plots: Sequence[Frontier], title: str) -> None:
    """Draw trainings by two metrics: a large dot for the mean over seeds, small ones for the seeds, and arrows.

    Args:
        path: the picture to write; png, pdf or svg.
        plots: one for each data set.
        title: title of the whole figure.
    """
    columns = min(len(plots), 3)
    rows = math.ceil(len(plots) / columns)
    figure = Figure(figsize=(5.2 * columns, 4.4 * rows + 0.4), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=13)
    drawn = []
    for number, plot in enumerate(plots, start=1):
        axes = figure.add_subplot(rows, columns, number)
        drawn.append((axes, _draw_frontier(axes, plot), plot.origin))
    figure.draw_without_rendering()  # labels need to know where the points lie
    for axes, means, origin in drawn:
        _place_labels(axes, means, origin)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:])


class _Mean(NamedTuple):
    x: float
    y: float
    colour: str


def _draw_frontier(axes: Axes, plot: Frontier) -> dict[str, _Mean]:
    means = {}
    others = [label for label in plot.points if label != plot.origin]
    for label, points in plot.points.items():
        colour = "#777777" if label == plot.origin else _COLOURS[others.index(label) % len(_COLOURS)]
        every_x, every_y = zip(*points, strict=True)
        means[label] = _Mean(math.fsum(every_x) / len(points), math.fsum(every_y) / len(points), colour)
        axes.scatter(every_x, every_y, s=10, color=colour, alpha=0.55, linewidths=0, zorder=2)
    for label, (x, y, colour) in means.items():
        if label != plot.origin:
            start = means[plot.origin][:2]
            style = dict(arrowstyle="-|>", color=colour, alpha=0.6, linewidth=1.2, shrinkA=4, shrinkB=4)
            axes.annotate("", (x, y), xytext=start, arrowprops=style, zorder=1)
        # a colour that comes again has another shape
        again = 0 if label == plot.origin else others.index(label) // len(_COLOURS)
        shape = ("o", "s", "D", "^")[again % 4]
        axes.scatter([x], [y], s=46, color=colour, marker=shape, edgecolors="white", linewidths=0.8, zorder=3)
    axes.margins(0.16)
    axes.set_title(plot.title, fontsize=12)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return means


def _place_labels(axes: Axes, means: Mapping[str, _Mean], origin: str) -> list[Bbox]:
    """Put each label at the nearest place around its point where it covers no label, point or arrow, and a line from it
    to its point where that is not near; the labels' boxes."""
    frame = axes.get_window_extent()
    points = {label: axes.transData.transform((mean.x, mean.y)) for label, mean in means.items()}
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in points.values()]
    for point in points.values():  # an arrow, as a row of small boxes
        along = np.linspace(points[origin], point, 2 + int(np.hypot(*(point - points[origin])) / 6))
        taken += [Bbox.from_bounds(x - 1.5, y - 1.5, 3, 3) for x, y in along]
    boxes: list[Bbox] = []
    for label, mean in means.items():
        places = []
        for distance in _DISTANCES:
            for turn in range(12):
                text = _label(axes, label, mean, distance, turn)
                box = text.get_window_extent().padded(1)
                text.remove()
                outside = box.width * box.height - _shared(box, frame)
                covered = outside + sum(_shared(box, other) for other in [*taken, *boxes])
                places.append((covered, distance, turn, box))
            if min(place[0] for place in places) == 0:
                break
        _, distance, turn, box = min(places, key=lambda place: place[:3])
        _label(axes, label, mean, distance, turn, line=distance > _DISTANCES[0])
        boxes.append(box)
    return boxes


def _label(axes: Axes, label: str, mean: _Mean, distance: float, turn: int, line: bool = False) -> Annotation:
    angle = math.pi * (turn + 1) / 6
    right, up = math.cos(angle), math.sin(angle)
    style = dict(arrowstyle="-", color=mean.colour, linewidth=0.7, shrinkA=0, shrinkB=3)
    return axes.annotate(
        label,
        (mean.x, mean.y),
        xytext=(distance * right, distance * up),
        textcoords="offset points",
        fontsize=9,
        color="#222222",
        ha="left" if right > 0.1 else "right" if right < -0.1 else "center",
        va="bottom" if up > 0.1 else "top" if up < -0.1 else "center",
        arrowprops=style if line else None,
        zorder=4,
    )


def _shared(first: BboxBase, second: BboxBase) -> float:
    """The area that two boxes share."""
    both = Bbox.intersection(first, second)
    return 0.0 if both is None else float(both.width * both.height)


def smoothed(series: Series, window: int) -> list[tuple[int, float]]:
    """`series` with each value replaced by the mean of the last `window` ones, it included.

    Example:
        >>> smoothed([(1, 0.0), (2, 2.0), (3, 4.0)], 2)
        [(1, 0.0), (2, 1.0), (3, 3.0)]
    """
    values = [value for _, value in series]
    return [
        (step, math.fsum(values[max(0, index + 1 - window) : index + 1]) / min(window, index + 1))
        for index, (step, _) in enumerate(series)
    ]
