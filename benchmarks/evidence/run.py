"""Runs the trainings within a time budget; what is done is not done again."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.images import TestImages, TrainingImages
from benchmarks.evidence.ledger import Row, add_rows, read_rows
from benchmarks.evidence.training import (
    ARMS,
    REFERENCES,
    Size,
    Tests,
    Training,
    build_training,
    measure_reference,
    setting,
)
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.files import in_one_move

CSV = "evidence.csv"
SAVE_SECONDS = 60.0
LAST = 2**20
"""No arm is trained for more steps."""


@dataclass(frozen=True)
class Unit:
    """A piece of work: an arm, trained up to a step and measured there.

    Attributes:
        part: a key of ``ARMS``.
        arm: one of its arms, or its reference.
        seed: of the training.
        step: where it is measured; 0 for a reference.
    """

    part: str
    arm: str
    seed: int
    step: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.part}, {self.arm}, seed {self.seed}, to step {self.step:,}"


def next_unit(rows: Sequence[Row], size: Size, parts: Sequence[str], last: int = LAST) -> Unit | None:
    """What to do next: of the part that has had the least time, the arm that is furthest behind.

    Args:
        rows: what was measured so far.
        size: says where is measured, and how many seeds there are.
        parts: keys of ``ARMS``.
        last: the last step.

    Returns:
        None if all arms are at the last step.
    """
    reached: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        key = row.part, row.arm, row.seed
        if key not in reached or row.step > reached[key].step:
            reached[key] = row
    waiting: list[tuple[float, int, Unit]] = []
    for part in parts:
        if (part, REFERENCES[part], 0) not in reached:
            return Unit(part, REFERENCES[part], 0, 0)
        units = [
            unit
            for arm in ARMS[part]
            for seed in range(size.seeds[part])
            if (unit := _following(part, arm, seed, reached.get((part, arm, seed)), size, last)) is not None
        ]
        spent = sum(row.seconds for (of, _, _), row in reached.items() if of == part)
        # min() takes the first: all arms of a seed before the next seed
        if units:
            behind = min(units, key=lambda unit: (unit.step, unit.seed))
            waiting.append((spent, len(waiting), behind))
    return min(waiting)[2] if waiting else None


def _following(part: str, arm: str, seed: int, row: Row | None, size: Size, last: int) -> Unit | None:
    step = size.first[part] if row is None else 2 * row.step
    return Unit(part, arm, seed, step) if step <= last else None


class Evidence:
    """All trainings of a folder.

    Args:
        train: folders of HR images to train on.
        test: folders of HR images to measure on, of different names.
        out: folder for results and the state of each arm.
        size_name: what ``size`` is called.
        size: how large everything is.
        device: where it is trained.

    Raises:
        ConfigError: ``out`` holds results of other folders or another size.
        DataError: no images, or one that cannot be used.
    """

    def __init__(
        self,
        train: Sequence[Path],
        test: Sequence[Path],
        out: Path,
        size_name: str,
        size: Size,
        device: torch.device,
    ) -> None:
        if len({folder.resolve().name for folder in test}) < len(test):
            raise ConfigError(f"--test: expected folders of different names, got {', '.join(map(str, test))}.")
        if {folder.resolve() for folder in train} & {folder.resolve() for folder in test}:
            raise ConfigError("--test: expected other folders than those of --train, so that test images are unseen.")
        self.out, self.size, self.device = out, size, device
        self.images = TrainingImages(train, max(size.crop.values()), device)
        folders = [TestImages(folder.resolve(), size.test_images, device) for folder in test]
        self.tests = Tests(folders, size)
        (out / "runs").mkdir(parents=True, exist_ok=True)
        counts = {folder.name: len(folder.hr) for folder in folders}
        # more seeds or fewer change nothing of what is there
        fixed = {key: value for key, value in asdict(size).items() if key != "seeds"}
        self._settle({"size": size_name, "training images": len(self.images.images), "test images": counts, **fixed})
        tested = ", ".join(f"{count} of {name}" for name, count in counts.items())
        self.data = f"{len(self.images.images)} training images, tested on {tested}"
        machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
        self.machine = f"torch {torch.__version__}, {machine}"

    def _settle(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with other settings than those that the folder was begun with."""
        path = self.out / "settings.json"
        text = json.dumps(settings, indent=1) + "\n"
        if not path.is_file():
            path.write_text(text)
            return
        before, now = json.loads(path.read_text()), json.loads(text)
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            raise ConfigError(
                f"{self.out} was begun with another {changed[0]}: {before.get(changed[0])}, now {now[changed[0]]}. "
                "Choose another --out, or the folders and the size of before."
            )

    def units(
        self, parts: Sequence[str], minutes: float, last: int = LAST, report: Callable[[str], None] = lambda _: None
    ) -> Iterator[tuple[Unit, dict[str, float]]]:
        """Works until the time is up.

        The state of an arm is saved after each unit, every minute, and when the time is up; a later call goes on there.

        Args:
            parts: keys of ``ARMS``.
            minutes: how long to train and measure; a measurement that was begun is finished.
            last: the last step of every arm.
            report: is told now and then what is being done.

        Yields:
            Each unit that was done, and its figures, when they are in the CSV.
        """
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline:
            unit = next_unit(read_rows(self.out / CSV), self.size, parts, last)
            if unit is None:
                return
            if unit.step == 0:
                seconds, figures = 0.0, measure_reference(unit.part, unit.seed, self.tests, self.device)
            else:
                training = self._train(unit, deadline, report)
                if training is None:
                    return
                report(f"{unit.name}: measuring")
                seconds, figures = training.seconds, training.measure(self.tests)
            words = f"{setting(unit.part, self.size)}; {self.data}; {self.machine}"
            rows = [
                Row(unit.part, unit.arm, unit.seed, unit.step, round(seconds, 1), name, round(value, 5), words)
                for name, value in figures.items()
            ]
            add_rows(self.out / CSV, rows)
            yield unit, figures

    def _train(self, unit: Unit, deadline: float, report: Callable[[str], None]) -> Training | None:
        """The arm at the unit's step; None if the time was up before."""
        report(f"{unit.name}: starting")
        path = self.out / "runs" / f"{unit.part}-{unit.arm}-{unit.seed}.pth"
        training = build_training(unit.part, unit.arm, unit.seed, self.images, self.size, self.device)
        if path.is_file():
            training.load(torch.load(path, map_location=self.device, weights_only=True))
        goal = training.warmup + unit.step
        saved = told = before = time.monotonic()
        while training.step < goal:
            if before >= deadline:
                _save(training, path)
                return None
            training.advance()
            now = time.monotonic()
            training.seconds += now - before
            before = now
            if now - told > 2:
                told = now
                report(f"{unit.name}: {training.step:,} of {goal:,}, {(deadline - now) / 60:.0f} minutes left")
            if now - saved > SAVE_SECONDS:
                _save(training, path)
                saved = before = time.monotonic()
        _save(training, path)
        return training


def _save(training: Training, path: Path) -> None:
    with in_one_move(path) as unfinished:
        torch.save(training.state(), unfinished)
