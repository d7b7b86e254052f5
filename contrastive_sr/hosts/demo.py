"""The demo: EDSR trained with L1, and from there on with L1 and with L1 + PCL, by either host, compared on photographs.

It is a study with one seed, whose networks are then compared as `contrastive-sr evaluate` does.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import yaml

from contrastive_sr.data.demo import SCALE
from contrastive_sr.data.files import atomic_write
from contrastive_sr.evaluation import DataSet, Evaluation, Metric, NamedNetwork, bicubic, compare_networks, given_lr
from contrastive_sr.evaluation.data_sets import images_of, paired_lr
from contrastive_sr.evaluation.plots import Panel, Series, save_crops, save_curves, smoothed
from contrastive_sr.evaluation.report import COLUMNS, Row, most_detailed
from contrastive_sr.evaluation.study import START
from contrastive_sr.hosts.logs import PIXEL, RunLog, read_run
from contrastive_sr.hosts.study import Plan, Study
from contrastive_sr.hosts.trained import trained_network

LABELS = {START: START, "l1": "L1", "l1_pcl": "L1 + PCL"}
"""By the name of a training, what it is called in tables."""
START_TIMES = 3
"""How many times longer the common start is trained than either arm."""
PCL: Mapping[str, Any] = {"type": "PCL", "name": "pcl", "loss_share": 1.0, "every": 4}
"""What is added to L1. At the paper's weight nothing is to be seen after so short a training."""
HELD_OUT = "held-out"
"""Name of the data set."""
MEASURED = ("psnr_y", "ssim_y", "niqe", "lpips", "blur", "pattern_scale")
"""What is reported, as far as it is there."""
_SAID = {
    "psnr_y": ("PSNR", 2, " dB"),
    "niqe": ("NIQE", 2, ""),
    "lpips": ("LPIPS", 3, ""),
    "blur": ("blur", 3, ""),
    "pattern_scale": ("dots", 2, " grey levels"),
}
_SIDE = 64  # of the crops
_FLAT = ("motorcycle_left.png", (56, 28, 56 + _SIDE, 28 + _SIDE))  # the tank, where dots would be seen
CURVES = {
    "pixel": PIXEL,
    "contrastive": "pcl_contrastive_raw",
    "share": "pcl_contrastive_share",
    "positive": "pcl_positive_similarity",
    "negative": "pcl_negative_similarity",
}
"""What the logs call the curves: pixel loss, contrastive loss, its share of the gradient, both similarities."""


class Schedule(NamedTuple):
    """Learning rate of a training.

    Attributes:
        rate: the first.
        milestones: steps at which it changes.
        gamma: factor, there.
    """

    rate: float
    milestones: list[int]
    gamma: float


class DemoHost(Protocol):
    """How the demo writes its config for a host.

    Attributes:
        suffix: of the config.
        methods: where its methods are, as a dotted key.
    """

    suffix: str
    methods: str

    def base(self, data: Path, steps: int, schedule: Schedule, averaged: int) -> str:
        """The shipped demo config with the data, length and learning rate of the start, and an average of its weights
        over so many steps."""

    def changes(self, schedule: Schedule) -> Mapping[str, Any]:
        """What gives an arm of a study another learning rate."""


def plan_study(host: DemoHost, folder: Path, data: Path, steps: int, seed: int) -> Plan:
    """Write the base's config, and `study.yml`, with which `contrastive-sr study` trains further seeds.

    Args:
        host: writes the config.
        folder: of all results.
        data: root of the demo data set.
        steps: of each arm.
        seed: of the demo's own trainings.
    """
    folder, data = folder.resolve(), data.resolve()
    start_steps = START_TIMES * steps
    base = folder / f"base{host.suffix}"
    start = Schedule(1e-3, [start_steps * 6 // 10, start_steps * 85 // 100], 0.5)
    with atomic_write(base) as unfinished:
        unfinished.write_text(host.base(data, start_steps, start, averaged=max(2, steps // 10)))
    tuning = host.changes(Schedule(2e-4, [steps * 3 // 4], 0.25))
    arms = {"l1": {**tuning, host.methods: None}, "l1_pcl": {**tuning, host.methods: [dict(PCL)]}}
    settings = {"base": str(base), "arms": arms, "steps": steps, "start_steps": start_steps}
    tests = {"hr": {HELD_OUT: str(data / "val" / "HR")}, "lr": [str(data / "val" / f"LRx{SCALE}")]}
    with atomic_write(folder / "study.yml") as unfinished:
        unfinished.write_text(yaml.safe_dump({**settings, **tests, "out": str(folder)}, sort_keys=False))
    return Plan(base, arms, [seed], folder, steps, start_steps)


def compare(study: Study, data: Path, metrics: Mapping[str, Metric], device: torch.device) -> Evaluation:
    """Measure bicubic enlargement and the networks of a study on the held-out photographs.

    Args:
        study: of one seed, trained.
        data: root of the demo data set.
        metrics: beside PSNR and SSIM.
        device: where networks run.
    """
    networks = [NamedNetwork("bicubic", bicubic(SCALE))]
    for training in study.trainings:
        checkpoint = study.host.checkpoint(study.folder, training.run)
        trained = trained_network(checkpoint, str(training.config), SCALE)
        networks.append(NamedNetwork(LABELS[training.run.arm], trained.call, trained.module))
    hr, lr = data / "val" / "HR", data / "val" / f"LRx{SCALE}"
    held_out = DataSet(HELD_OUT, images_of(hr), paired_lr(hr, lr, SCALE))
    return compare_networks(
        networks, [held_out], given_lr(), SCALE, metrics=metrics, device=device, shown=len(held_out.files)
    )


def results_of(study: Study, evaluation: Evaluation) -> dict[str, Any]:
    """What was measured and logged: ``mean``, ``photographs``, ``seconds_per_step`` and ``curves``, by label."""
    rows, scores = evaluation.results()[HELD_OUT], evaluation.scores[HELD_OUT]
    names = [name for name in MEASURED if name in rows["bicubic"]]
    logs = {
        LABELS[training.run.arm]: read_run(study.host.run_folder(study.folder, training.run))
        for training in study.trainings
    }
    return {
        "mean": {label: {name: row[name] for name in names} for label, row in rows.items()},
        "photographs": {
            score.name: {
                label: {name: of_label[number].values[name] for name in names} for label, of_label in scores.items()
            }
            for number, score in enumerate(scores["bicubic"])
        },
        "seconds_per_step": {label: log.seconds_per_step for label, log in logs.items()},
        "curves": {label: curves_of(log) for label, log in logs.items()},
    }


def curves_of(log: RunLog) -> dict[str, Series]:
    """(step, value) by name of `CURVES`; a curve that the run does not have is left out."""
    return {name: log.training[key] for name, key in CURVES.items() if key in log.training}


def device_name() -> str:
    """What trains, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} x {platform.machine()}"


def draw(folder: Path, evaluation: Evaluation, results: Mapping[str, Any], lpips: Metric | None, title: str) -> None:
    """Draw `crops.png` and `curves.png`.

    Args:
        folder: where they go.
        evaluation: whose images are shown: of each photograph the part with the steepest edges, and a flat one.
        results: see :func:`results_of`.
        lpips: written beside the PSNR of a crop, if it is there.
        title: of the curves.
    """
    shown = {image.name: image for image in evaluation.shown}
    # by bicubic enlargement: the edges that an LR image has, chosen without a look at what is compared
    boxes = [(name, most_detailed(image.images["bicubic"], _SIDE)) for name, image in shown.items()]
    columns = {
        name: {label: part for label, part in image.images.items() if label != START} for name, image in shown.items()
    }
    rows = [(Path(name).stem, box, columns[name]) for name, box in (*boxes, _FLAT)]
    save_crops(folder / "crops.png", rows, "HR", {} if lpips is None else {"LPIPS": lpips})

    first, second = (label for name, label in LABELS.items() if name != START)
    colours = {first: 0, second: 1, "positive": 2, "negative": 5}
    curves = {label: results["curves"][label] for label in (first, second)}
    pcl = curves[second]
    panels = [
        Panel(
            "pixel loss (L1)",
            {label: smoothed(run["pixel"], 5) for label, run in curves.items()},
            colours=colours,
            overlap=True,
        ),
        Panel("contrastive loss, unweighted", {second: smoothed(pcl["contrastive"], 5)}, colours=colours),
        Panel(
            "similarity of SR with its samples",
            {kind: smoothed(pcl[kind], 5) for kind in ("positive", "negative")},
            colours=colours,
        ),
        Panel(
            "gradient of the contrast / of the pixel loss",
            {second: pcl["share"]},
            levels={"asked for": PCL["loss_share"]},
            colours=colours,
        ),
    ]
    save_curves(folder / "curves.png", panels, title)


def verdict(pixel: Row, contrastive: Row, steps: int) -> str:
    """One sentence on what PCL changed, by each metric but SSIM.

    Args:
        pixel: means with L1.
        contrastive: means with L1 + PCL.
        steps: of each fine-tuning.

    Example:
        >>> print(verdict({"psnr_y": 27.2, "lpips": 0.42}, {"psnr_y": 27.0, "lpips": 0.4}, 500).partition(". ")[0])
        L1 + PCL against L1, 500 steps each from one start: PSNR -0.20 dB (worse), LPIPS -0.020 (better)
    """
    changes = []
    for name, (title, digits, unit) in _SAID.items():
        before, after = pixel.get(name), contrastive.get(name)
        if before is None or after is None:
            continue
        change = round(after - before, digits)
        word = "equal" if change == 0 else "better" if change * COLUMNS[name].better > 0 else "worse"
        changes.append(f"{title} {change + 0.0:+.{digits}f}{unit} ({word})")  # + 0.0: no negative zero
    return (
        f"L1 + PCL against L1, {steps} steps each from one start: {', '.join(changes)}. This is one run; other seeds "
        "show how far chance goes."
    )
