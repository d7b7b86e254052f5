"""Runs the trainings within a time budget; what is done is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.evidence.ledger import Row, add_rows, read_rows
from benchmarks.evidence.training import Bicubic, Part, Study, Training
from contrastive_sr.data.files import atomic_write
from contrastive_sr.errors import ConfigError

CSV = "evidence.csv"
PICTURES = "pictures"
SAVE_SECONDS = 60.0
LAST = 2**20
"""No arm is trained for more steps."""


@dataclass(frozen=True)
class Unit:
    """A piece of work: an arm, trained up to a step and measured there.

    Attributes:
        part: its name.
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


def next_unit(rows: Sequence[Row], parts: Mapping[str, Part], last: int = LAST) -> Unit | None:
    """What to do next: of the part that has had the least time, the arm that is furthest behind.

    Args:
        rows: what was measured so far.
        parts: by name.
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
        plan = parts[part]
        if (part, plan.reference, 0) not in reached:
            return Unit(part, plan.reference, 0, 0)
        units = [
            unit
            for arm in plan.arms
            for seed in range(plan.seeds)
            if (unit := _following(part, arm, seed, reached.get((part, arm, seed)), plan.first)).step <= last
        ]
        spent = sum(row.seconds for (of, _, _), row in reached.items() if of == part)
        # min() takes the first: all arms of a seed before the next seed
        if units:
            behind = min(units, key=lambda unit: (unit.step, unit.seed))
            waiting.append((spent, len(waiting), behind))
    return min(waiting)[2] if waiting else None


def _following(part: str, arm: str, seed: int, row: Row | None, first: int) -> Unit:
    return Unit(part, arm, seed, first if row is None else 2 * row.step)


class Evidence:
    """All trainings of a folder.

    Args:
        study: what is compared.
        out: folder for results and the state of each arm.

    Raises:
        ConfigError: ``out`` holds results of other folders or another size.
    """

    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out
        (out / "runs").mkdir(parents=True, exist_ok=True)
        self._settle(study.settings)

    def _settle(self, settings: Mapping[str, Any]) -> None:
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
            parts: names of the study's parts.
            minutes: how long to train and measure; a measurement that was begun is finished.
            last: the last step of every arm.
            report: is told now and then what is being done.

        Yields:
            Each unit that was done, and its figures, when they are in the CSV.
        """
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline:
            unit = next_unit(read_rows(self.out / CSV), {name: self.study.parts[name] for name in parts}, last)
            if unit is None:
                return
            part = self.study.parts[unit.part]
            if unit.step == 0:
                seconds, figures = 0.0, part.measure_reference()
                self._keep_crops(part, f"{unit.part}-hr-0", None)
                self._keep_crops(part, f"{unit.part}-{unit.arm}-0", Bicubic())
            else:
                training = self._train(unit, deadline, report)
                if training is None:
                    return
                report(f"{unit.name}: measuring")
                seconds, figures = training.seconds, training.measure()
                if unit.seed == 0:
                    self._keep_crops(part, f"{unit.part}-{unit.arm}-{unit.step}", training.tested())
            words = f"{part.setting}; {self.study.data}"
            rows = [
                Row(unit.part, unit.arm, unit.seed, unit.step, round(seconds, 1), name, round(value, 5), words)
                for name, value in figures.items()
            ]
            add_rows(self.out / CSV, rows)
            yield unit, figures

    def _keep_crops(self, part: Part, name: str, net: nn.Module | None) -> None:
        if part.crops is None:
            return
        from PIL import Image

        (self.out / PICTURES).mkdir(exist_ok=True)
        for image, crop in part.crops(net).items():
            Image.fromarray(crop).save(self.out / PICTURES / f"{name}-{image}.png")

    def _train(self, unit: Unit, deadline: float, report: Callable[[str], None]) -> Training | None:
        """The arm at the unit's step; None if the time was up before."""
        report(f"{unit.name}: starting")
        path = self.out / "runs" / f"{unit.part}-{unit.arm}-{unit.seed}.pth"
        training = self.study.parts[unit.part].build(unit.arm, unit.seed)
        if path.is_file():
            training.load(torch.load(path, map_location=self.study.device, weights_only=True))
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
    with atomic_write(path) as unfinished:
        torch.save(training.state(), unfinished)
