"""Tables and a page of what was measured: for the screen, CSV, JSON, Markdown and HTML."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation.evaluate import Score
from contrastive_sr.evaluation.metrics import luma

Row = Mapping[str, float | None]
Results = Mapping[str, Mapping[str, Row]]
"""Data set to method to values, the methods of every data set being the same."""
Scores = Mapping[str, Mapping[str, Sequence[Score]]]
"""Data set to method to the scores of its images."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""
ENDINGS = {"json": (".json",), "csv": (".csv",), "markdown": (".md",), "html": (".html", ".htm")}
"""What can be written, and how the name of its file may end."""


class Column(NamedTuple):
    """How a value is shown.

    Attributes:
        title: head of its column.
        text: of a value.
        better: 1 if more is better, -1 if less is.
        marked: whether the best value is. Where an image can have too little of it, compared with HR, it is not.
    """

    title: str
    text: Callable[[float], str]
    better: int
    marked: bool = True


COLOURS = "8-bit sRGB"
"""What images are read as."""
COLOURS_WITH_HR = f"{COLOURS}; PSNR-Y and SSIM-Y on the luma of BT.601, as MATLAB's rgb2ycbcr gives it"
"""The same, and what is compared with HR images."""

COLUMNS = {
    "psnr_y": Column("PSNR-Y, dB", "{:.2f}".format, 1),
    "ssim_y": Column("SSIM-Y", "{:.4f}".format, 1),
    "psnr_rgb": Column("PSNR-RGB, dB", "{:.2f}".format, 1),
    "ssim_rgb": Column("SSIM-RGB", "{:.4f}".format, 1),
    "niqe": Column("NIQE", "{:.3f}".format, -1),
    "lpips": Column("LPIPS", "{:.4f}".format, -1),
    "blur": Column("blur", "{:.3f}".format, -1, marked=False),
    "pattern_2": Column("pattern 2", "{:.2f}".format, -1, marked=False),
    "pattern_scale": Column("pattern scale", "{:.2f}".format, -1, marked=False),
    "jaggedness": Column("jaggedness", "{:.3f}".format, -1, marked=False),
    "seconds": Column("s / image", "{:.3f}".format, -1),
    "memory_mib": Column("memory, MiB", "{:.0f}".format, -1),
    "parameters": Column("parameters, M", lambda value: f"{value / 1e6:.3f}", -1),
    "multiply_adds": Column("multiply-adds, G", lambda value: f"{value / 1e9:.2f}", -1),
}


class Cell(NamedTuple):
    """One value in a table.

    Attributes:
        text: ``-`` where there is none.
        value: to sort by.
        best: whether it is to be marked: no other method of the data set has a better one, and some has a worse.
    """

    text: str
    value: float | None
    best: bool


class Line(NamedTuple):
    """One line of a table: data set, method and a cell for each column."""

    dataset: str
    method: str
    cells: list[Cell]


class Table(NamedTuple):
    """A table of text, for the page beside that of means.

    Attributes:
        title: of the table.
        words: how many of its first columns are words; the others are numbers.
        heads: of the columns.
        rows: a cell for each column.
    """

    title: str
    words: int
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def columns_of(results: Results) -> list[str]:
    """The columns of which some method has a value, in their order."""
    rows = [row for methods in results.values() for row in methods.values()]
    return [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]


def lines_of(results: Results) -> list[Line]:
    """The table, a line for each method on each data set.

    Example:
        >>> [cell.best for line in lines_of({"Set5": {"a": {"niqe": 7.0}, "b": {"niqe": 6.0}}}) for cell in line.cells]
        [False, True]
    """
    lines = []
    for dataset, methods in results.items():
        cells: dict[str, list[Cell]] = {method: [] for method in methods}
        for name in columns_of(results):
            column = COLUMNS[name]
            # what looks equal is equally good
            shown = {method: _text(column, row.get(name)) for method, row in methods.items()}
            known = {method: value for method, row in methods.items() if (value := row.get(name)) is not None}
            first = max(known, key=lambda method: column.better * known[method], default=None)
            differ = len({shown[method] for method in known}) > 1
            for method, row in methods.items():
                best = column.marked and differ and first is not None and shown[method] == shown[first]
                cells[method].append(Cell(shown[method], row.get(name), best))
        lines += [Line(dataset, method, cells[method]) for method in methods]
    return lines


def own_values(results: Results, names: Sequence[str], digits: int, whose: str = "HR's own") -> str:
    """What a note says of the values of HR images, to compare with; nothing where no data set has any.

    Args:
        results: data set to method to values.
        names: of the values of HR images, the same for all methods.
        digits: behind the point.
        whose: they are, in words.

    Example:
        >>> own_values({"Set5": {"a": {"hr_blur": 0.31}}}, ["hr_blur"], 3)
        "; HR's own: Set5 0.310"
    """
    own = {}
    for data, methods in results.items():
        # of a method that was measured
        row = next((row for row in methods.values() if any(row.get(name) is not None for name in names)), {})
        own[data] = [f"{value:.{digits}f}" for name in names if (value := row.get(name)) is not None]
    if not any(own.values()):
        return ""
    texts = [f"{data} {' and '.join(values) or '-'}" for data, values in own.items()]
    return f"; {whose}: {', '.join(texts)}"


def _text(column: Column, value: float | None) -> str:
    return "-" if value is None else column.text(value)


def arrow(name: str) -> str:
    """Which way is better."""
    return "↑" if COLUMNS[name].better > 0 else "↓"


def as_json(results: Results) -> str:
    """Data set to method to values. An infinite value, the PSNR of equal images, is null: JSON has no such number."""
    content = {
        dataset: {
            method: {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in row.items()
            }
            for method, row in methods.items()
        }
        for dataset, methods in results.items()
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(scores: Scores) -> str:
    """A line for each image under each method."""
    names = list(
        dict.fromkeys(
            name for methods in scores.values() for images in methods.values() for s in images for name in s.values
        )
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "method", "image", "width", "height", *names])
    for dataset, methods in scores.items():
        for method, images in methods.items():
            for score in images:
                values = [score.values[name] for name in names]
                numbers = ["" if value is None else f"{value:.6g}" for value in values]
                writer.writerow([dataset, method, score.name, score.width, score.height, *numbers])
    return text.getvalue()


def as_markdown(results: Results, notes: Sequence[str], warnings: Sequence[str] = ()) -> str:
    """A table whose best values are bold; below it warnings, bold too, and notes."""
    names = columns_of(results)
    heads = ["data set", "method", *(f"{COLUMNS[name].title} {arrow(name)}" for name in names)]
    rows = [heads, ["---", "---", *("---:" for _ in names)]]
    for line in lines_of(results):
        cells = [f"**{cell.text}**" if cell.best else cell.text for cell in line.cells]
        rows.append([_in_markdown(line.dataset), _in_markdown(line.method), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    said = [*(f"- **{_in_markdown(warning)}**" for warning in warnings), *(f"- {_in_markdown(note)}" for note in notes)]
    return "\n".join([table, "", *said]) + "\n"


def _in_markdown(text: str) -> str:
    return re.sub(r"[|<`*\[]", r"\\\g<0>", text)


def write_reports(
    files: Mapping[str, Path],
    title: str,
    results: Results,
    scores: Scores,
    *,
    shown: Sequence[Shown] = (),
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
) -> None:
    """Write tables and the page.

    Args:
        files: where to write, by the keys of :data:`ENDINGS`.
        title: of the page.
        results: data set to method to values.
        scores: data set to method to the scores of its images.
        shown: parts of images, for the page.
        notes: how it was measured, in sentences.
        warnings: what has to be looked at, in sentences; they stand in bold before the notes.
        about: where the figures come from, for the page, such as the version and the checkpoints.
    """
    made: dict[str, Callable[[], str]] = {
        "json": lambda: as_json(results),
        "csv": lambda: as_csv(scores),
        "markdown": lambda: as_markdown(results, notes, warnings),
        "html": lambda: as_html(title, results, scores, shown, notes, warnings=warnings, about=about),
    }
    for kind, path in files.items():
        with atomic_write(path) as unfinished:
            unfinished.write_text(made[kind](), encoding="utf-8", errors="backslashreplace")


# --------------------------------------------------------------------------------------------------------- page


class Shown(NamedTuple):
    """A part of an image under every method, for the page.

    Attributes:
        dataset: its data set.
        name: of the image.
        box: what is shown of it: left, top, right, bottom, in HR pixels.
        images: that part by label, (h, w, 3) uint8, HR last if there is one.
        notes: by label, a few words to stand beside it, such as its PSNR.
    """

    dataset: str
    name: str
    box: Box
    images: dict[str, UInt8Image]
    notes: dict[str, str]


def spread(length: int, count: int) -> set[int]:
    """The places of a few items of a list, from its first to its last, as evenly as they can be.

    Example:
        >>> sorted(spread(100, 4)), sorted(spread(2, 5)), sorted(spread(9, 1))
        ([0, 33, 66, 99], [0, 1], [0])
    """
    count = min(count, length)
    return {round(index * (length - 1) / max(1, count - 1)) for index in range(count)}


def most_detailed(image: UInt8Image, side: int) -> Box:
    """The part of an image with the steepest edges, where methods differ most.

    Args:
        image: (H, W, 3) RGB uint8.
        side: of the part, in pixels; less where the image is smaller.

    Returns:
        Left, top, right, bottom.

    Example:
        >>> image = np.zeros((64, 64, 3), dtype=np.uint8)
        >>> image[40:, 40:] = np.random.default_rng(0).integers(0, 256, (24, 24, 3))
        >>> most_detailed(image, 24)
        (40, 40, 64, 64)
    """
    y = torch.from_numpy(luma(image))[None, None]
    steep = F.pad(y.diff(dim=3).abs(), (0, 1)) + F.pad(y.diff(dim=2).abs(), (0, 0, 0, 1))
    height, width = (min(side, length) for length in image.shape[:2])
    stride = 8
    means = F.avg_pool2d(steep, (height, width), stride=stride)[0, 0]
    row, column = np.unravel_index(int(means.argmax()), tuple(means.shape))
    left, top = int(column) * stride, int(row) * stride
    return left, top, left + width, top + height


def as_html(
    title: str,
    results: Results,
    scores: Scores,
    shown: Sequence[Shown],
    notes: Sequence[str],
    *,
    tables: Sequence[Table] = (),
    pictures: Mapping[str, Path] | None = None,
    warnings: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
) -> str:
    """A page that holds everything: tables that can be sorted, and images that can be compared with a slider.

    It needs no server, no network and no other file. Needs jinja2 and Pillow.

    Args:
        title: of the page.
        results: data set to method to values.
        scores: data set to method to the scores of its images.
        shown: parts of images.
        notes: what has to be said on how it was measured.
        tables: further ones, below that of means.
        pictures: PNG files below them, by what they show.
        warnings: what has to be looked at; it stands in bold above the images.
        about: where the figures come from, by what it is; a list below the title.

    Returns:
        HTML.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    names = columns_of(results)
    # parameters and the like are the same for all images
    per_image = [name for name in names if name not in ("parameters", "multiply_adds")]
    images = []
    for dataset, methods in scores.items():
        for number in range(len(next(iter(methods.values())))):
            rows = {method: of_method[number] for method, of_method in methods.items()}
            table = lines_of({dataset: {method: score.values for method, score in rows.items()}})
            of_this = columns_of({dataset: {method: score.values for method, score in rows.items()}})
            for line in table:
                cells = dict(zip(of_this, line.cells, strict=True))
                ordered = [cells.get(name, Cell("-", None, False)) for name in per_image]
                images.append((rows[line.method].name, Line(dataset, line.method, ordered)))
    return template.render(
        title=title,
        columns=[(COLUMNS[name].title, arrow(name)) for name in names],
        lines=lines_of(results),
        tables=tables,
        pictures=[
            (words, f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}")
            for words, file in (pictures or {}).items()
        ],
        image_columns=[(COLUMNS[name].title, arrow(name)) for name in per_image],
        image_lines=images,
        figures=[
            {
                "dataset": item.dataset,
                "name": item.name,
                "box": item.box,
                "width": item.box[2] - item.box[0],
                "height": item.box[3] - item.box[1],
                # the first method against the last, or against HR where there is one alone
                "right": min(len(item.images), max(2, len(item.images) - ("HR" in item.images))),
                "images": [(label, _data_uri(image), item.notes[label]) for label, image in item.images.items()],
            }
            for item in shown
        ],
        notes=notes,
        warnings=warnings,
        about=about or {},
    )


def _data_uri(image: UInt8Image) -> str:
    """Without loss, so that what is seen is what was measured."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, quality=60, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
