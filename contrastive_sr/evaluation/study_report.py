"""What a study writes: tables, the picture of its trainings by two metrics, JSON, Markdown and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation.evaluate import Score
from contrastive_sr.evaluation.jaggedness import jaggedness_above, jaggedness_warning
from contrastive_sr.evaluation.pattern import excess_warning
from contrastive_sr.evaluation.plots import Frontier, save_frontier, save_grid
from contrastive_sr.evaluation.report import COLUMNS, Results, Scores, Shown, Table, arrow, as_html, most_detailed
from contrastive_sr.evaluation.study import COST, START, Difference, Measured, Summary

QUALITY = "psnr_y"
PERCEPTUAL = ("lpips", "niqe")
"""What the picture's second axis may be, the best first."""
NOT_SHOWN = "n.s."
PICTURE = "frontier.png"
PARTS = "crops.png"
PART = 96
"""Sides of what that picture shows of an image, in HR pixels."""


def write_study(
    out: Path,
    title: str,
    summary: Summary,
    shown: Sequence[Shown],
    notes: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `study.json`, `study.md`, `study.html`, the picture if there is a perceptual metric, and one of the parts.

    Args:
        out: the folder.
        title: of page and picture.
        summary: of the ledger.
        shown: parts of images, for the page.
        notes: further ones, on metrics and data.
        about: where the figures come from, for the page.

    Returns:
        The files.
    """
    tables, notes, warnings = tables_of(summary), [*notes_of(summary), *notes], warnings_of(summary)
    pictures = {}
    if plots := frontiers_of(summary):
        save_frontier(out / PICTURE, plots, title)
        pictures["PSNR against perceptual quality"] = out / PICTURE
    rows = rows_of(shown, summary)
    if rows:
        save_grid(out / PARTS, rows)
    results, scores = page_of(summary)
    texts = {
        "study.json": as_json(summary),
        "study.md": as_markdown(title, tables, notes, [file.name for file in pictures.values()], warnings),
        "study.html": as_html(
            title, results, scores, shown, notes, tables=tables, pictures=pictures, warnings=warnings, about=about
        ),
    }
    for name, text in texts.items():
        with atomic_write(out / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [*(out / name for name in texts), *pictures.values(), *([out / PARTS] if rows else [])]


def rows_of(shown: Sequence[Shown], summary: Summary) -> list[list[tuple[str, UInt8Image]]]:
    """The steepest part of each image that all arms have, by arm, with the values of the whole image; HR last.

    Args:
        shown: parts of images.
        summary: whose arms they are of.
    """
    rows = []
    for item in shown:
        arms = [arm for arm in summary.arms if arm in summary.measured[item.dataset]]
        if all(arm in item.images for arm in arms):
            left, top, right, bottom = most_detailed(item.images["HR"], PART)
            parts = {label: item.images[label][top:bottom, left:right] for label in (*arms, "HR")}
            said = {label: f": {note}".replace(", ", "\n") for label in parts if (note := item.notes.get(label))}
            rows.append([(label + said.get(label, f" ({item.name})"), part) for label, part in parts.items()])
    return rows


def frontiers_of(summary: Summary) -> list[Frontier]:
    """A plot for each data set on which both metrics were measured of several arms; none without such."""
    metrics = summary.metrics()
    perceptual = next((name for name in PERCEPTUAL if name in metrics), None)
    if perceptual is None:
        return []
    plots = []
    for dataset, arms in summary.measured.items():
        points = {}
        for arm, of in arms.items():
            if QUALITY in of and perceptual in of:
                x, y = of[QUALITY].seeds, of[perceptual].seeds
                points[arm] = [(x[seed], y[seed]) for seed in x if seed in y]
        origin = START if START in points else summary.reference
        if len(points) > 1 and origin in points:
            x_title, y_title = (
                f"{COLUMNS[name].title} ({'more' if COLUMNS[name].better > 0 else 'less'} is better)"
                for name in (QUALITY, perceptual)
            )
            plots.append(Frontier(dataset, x_title, y_title, points, origin))
    return plots


def tables_of(summary: Summary) -> list[Table]:
    """Means with their spread, differences from the reference, and costs."""
    names = summary.metrics()
    titles = [f"{COLUMNS[name].title} {arrow(name)}" for name in names]
    means, differences = [], []
    for dataset, arms in summary.measured.items():
        for arm, metrics in arms.items():
            seeds = max(len(measured.seeds) for measured in metrics.values())
            cells = [_mean_text(name, metrics[name]) if name in metrics else "-" for name in names]
            means.append([dataset, arm, str(seeds), *cells])
            if arm in (START, summary.reference):
                continue
            of = [metrics[name].difference if name in metrics else None for name in names]
            texts = ["-" if it is None else difference_text(name, it) for name, it in zip(names, of, strict=True)]
            differences.append([dataset, arm, *texts])
    tables = [
        Table(
            "Means over images and seeds, ± standard deviation over seeds",
            2,
            ["data set", "arm", "seeds", *titles],
            means,
        )
    ]
    if differences:
        title = f"Differences from {summary.reference}, with 95 % intervals"
        tables.append(Table(title, 2, ["data set", "arm", *titles], differences))
    costs = []
    for arm in summary.arms:
        if seconds := list(summary.costs.get(arm, {}).values()):
            ratio = summary.ratio(arm)
            times = "-" if ratio is None or arm == START else f"{ratio:.2f}"
            costs.append([arm, f"{math.fsum(seconds) / len(seconds):.4f}", times])
    if costs:
        tables.append(Table("Cost of training", 1, ["arm", "s / step", f"times {summary.reference}"], costs))
    return tables


def _mean_text(name: str, measured: Measured) -> str:
    text = COLUMNS[name].text
    return text(measured.mean) if measured.spread is None else f"{text(measured.mean)} ± {text(measured.spread)}"


def difference_text(name: str, difference: Difference) -> str:
    """A difference in a table, with a digit more than a value has, and `n.s.` where nothing shows.

    Example:
        >>> difference_text("psnr_y", Difference(-0.1, -0.3, 0.1, {0: -0.2, 1: 0.0}, 5))
        '-0.100 [-0.300, +0.100] n.s.'
    """
    digits = len(COLUMNS[name].text(0.0).partition(".")[2]) + 1

    def signed(value: float) -> str:
        return f"{round(value, digits) + 0.0:+.{digits}f}"

    if difference.low is None or difference.high is None:
        return f"{signed(difference.mean)} (one seed)"
    text = f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]"
    return text if difference.shown else f"{text} {NOT_SHOWN}"


def warnings_of(summary: Summary) -> list[str]:
    """A sentence for each arm on each data set with too many dots, or with edges that are too jagged, in a seed.

    It is of the worst seed: a mean over seeds would hide one whose images are spoilt.
    """
    dots, jagged = [], []
    for dataset, arms in summary.measured.items():
        of_reference = _by_seed(arms.get(summary.reference, {}))
        for arm, of in arms.items():
            seeds = _by_seed(of)
            patterns = [
                (row[name] - row[f"hr_{name}"], seed, period)
                for name, period in (("pattern_2", 2), ("pattern_scale", None))
                for seed, row in seeds.items()
                if {name, f"hr_{name}"} <= set(row)
            ]
            if patterns:
                excess, seed, period = max(patterns, key=itemgetter(0))
                dots.append(excess_warning(_of_seed(arm, seed, seeds, dataset), excess, period))
            edges = []
            for seed, row in seeds.items():
                own = None if arm == summary.reference else of_reference.get(seed, {}).get("jaggedness")
                if above := jaggedness_above(row, own, summary.reference):
                    edges.append((*above, seed))
            if edges:
                excess, than, seed = max(edges, key=itemgetter(0))
                jagged.append(jaggedness_warning(_of_seed(arm, seed, seeds, dataset), excess, than))
    return [warning for warning in (*dots, *jagged) if warning is not None]


def _by_seed(metrics: Mapping[str, Measured]) -> dict[int, dict[str, float]]:
    """Means over images: of each seed, each metric."""
    seeds: dict[int, dict[str, float]] = {}
    for name, measured in metrics.items():
        for seed, mean in measured.seeds.items():
            seeds.setdefault(seed, {})[name] = mean
    return seeds


def _of_seed(arm: str, seed: int, seeds: Collection[int], dataset: str) -> str:
    return f"{arm}{f', seed {seed},' if len(seeds) > 1 else ''} on {dataset}"


def notes_of(summary: Summary) -> list[str]:
    """How the differences were made, in sentences."""
    counts = {len(summary.measured[dataset][arm][name].seeds) for dataset, arm, name in _keys(summary) if arm != START}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    notes = [
        f"{seeds} seed{'s' * (seeds != '1')} of each arm. Arms of one seed start alike and see the same batches.",
        f"Differences are from {summary.reference}, of the same image and seed. The 95 % interval is that of a two-way "
        "table in which seeds and images are both drawn at random (Student's t for each), so it speaks of other seeds "
        "and other such images.",
        f"{NOT_SHOWN}: the interval holds 0, or the sign of the difference is not that of every seed. Each interval "
        "stands for itself: of twenty, one is expected to miss.",
    ]
    for dataset, arm, name in _keys(summary):
        there = {image for images in summary.values[dataset, arm, name].values() for image in images}
        both = summary.measured[dataset][arm][name].difference
        if name in COLUMNS and both is not None and both.images < len(there):
            notes.append(
                f"{COLUMNS[name].title} of {arm} on {dataset}: the difference is over {both.images} of {len(there)} "
                "images, those that all seeds and both arms have; means are over those that an arm has."
            )
    if min(counts) == 1:
        notes.append("With one seed there is no interval: how far chance goes from seed to seed is not known.")
    if summary.resumed:
        which = ", ".join(f"{arm} (seed {seed})" for arm, seed in summary.resumed)
        notes.append(
            f"Stopped and gone on from a checkpoint, where a host may deal other batches from then on: {which}."
        )
    for dataset, arms in summary.measured.items():
        of = next(iter(arms.values()))  # what HR images give is the same for all
        for prefix, whose in (("hr_", "HR's own"), ("bicubic_", "Bicubic enlargement's")):
            own = [(name, of[prefix + name]) for name in COLUMNS if prefix + name in of]
            if own:
                values = ", ".join(f"{COLUMNS[name].title} {COLUMNS[name].text(value.mean)}" for name, value in own)
                notes.append(f"{whose} on {dataset}: {values}.")
    if START in summary.arms:
        notes.append(f"{START}: what every arm of a seed starts from.")
    return notes


def _keys(summary: Summary) -> list[tuple[str, str, str]]:
    return [(d, a, name) for d, arms in summary.measured.items() for a, metrics in arms.items() for name in metrics]


def as_json(summary: Summary) -> str:
    """The summary: data set to arm to metric, and the costs."""

    def entry(measured: Measured) -> dict[str, Any]:
        content: dict[str, Any] = {
            "mean": measured.mean,
            "spread": measured.spread,
            "seeds": {str(seed): value for seed, value in measured.seeds.items()},
        }
        if (difference := measured.difference) is not None:
            content["difference"] = {
                "mean": difference.mean,
                "interval": None if difference.low is None else [difference.low, difference.high],
                "seeds": {str(seed): value for seed, value in difference.seeds.items()},
                "images": difference.images,
                "shown": difference.shown,
            }
        return content

    content = {
        "reference": summary.reference,
        "results": {
            dataset: {
                arm: {name: entry(measured) for name, measured in metrics.items()} for arm, metrics in arms.items()
            }
            for dataset, arms in summary.measured.items()
        },
        "cost": {
            arm: {
                COST: math.fsum(seconds.values()) / len(seconds),
                "ratio": None if arm == START else summary.ratio(arm),
            }
            for arm, seconds in summary.costs.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_markdown(
    title: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    pictures: Sequence[str],
    warnings: Sequence[str] = (),
) -> str:
    """A page of tables and notes.

    Args:
        title: of the page.
        tables: as of :func:`tables_of`.
        notes: sentences.
        pictures: their paths, relative to the page.
        warnings: sentences, to stand in bold before the notes.
    """
    parts = [f"# {title}"]
    for table in tables:
        sides = ["---"] * table.words + ["---:"] * (len(table.heads) - table.words)
        rows = [table.heads, sides, *([cell.replace("|", "\\|") for cell in row] for row in table.rows)]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
    parts += [f"![{Path(picture).stem}]({picture})" for picture in pictures]
    said = [*(f"- **{warning}**" for warning in warnings), *(f"- {note}" for note in notes)]
    return "\n\n".join([*parts, "\n".join(said)]) + "\n"


def page_of(summary: Summary) -> tuple[Results, Scores]:
    """What :func:`contrastive_sr.evaluation.report.as_html` takes: means, and means over seeds of each image.

    An arm stands under a data set only with the images that all arms there have.
    """
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    scores: dict[str, dict[str, list[Score]]] = {}
    for dataset, arms in summary.measured.items():
        images = {
            arm: {
                image: None
                for name in metrics
                for seed in summary.values[dataset, arm, name].values()
                for image in seed
            }
            for arm, metrics in arms.items()
        }
        common = [image for image in next(iter(images.values())) if all(image in of for of in images.values())]
        results[dataset] = {
            arm: {name: measured.mean for name, measured in metrics.items()} for arm, metrics in arms.items()
        }
        scores[dataset] = {
            arm: [
                Score(image, 0, 0, {name: _image_mean(summary.values[dataset, arm, name], image) for name in metrics})
                for image in common
            ]
            for arm, metrics in arms.items()
        }
    return results, scores


def _image_mean(seeds: Mapping[int, Mapping[str, float]], image: str) -> float | None:
    values = [images[image] for images in seeds.values() if image in images]
    return math.fsum(values) / len(values) if values else None
