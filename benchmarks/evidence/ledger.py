"""What was measured, in one CSV: a line for each figure of each arm at each step; an empty setting is that above."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from contrastive_sr.data.files import atomic_write
from contrastive_sr.errors import DataError


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        part: ``"encoder"``, ``"crl"`` or ``"dasr"``.
        arm: what was trained, by the names in ``ARMS``.
        seed: of weights, crops and degradations.
        step: training steps; of ``"dasr"``, those on the SR loss.
        seconds: that the arm has been trained for.
        figure: what was measured, such as ``"knn"`` or ``"psnr/Set14"``.
        value: it.
        setting: network, batch, machine, in words.
    """

    part: str
    arm: str
    seed: int
    step: int
    seconds: float
    figure: str
    value: float
    setting: str

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """What there is one row of."""
        return self.part, self.arm, self.seed, self.step, self.figure


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV; none if it does not exist.

    Raises:
        DataError: it is no such CSV.
    """
    if not path.is_file():
        return []
    rows: list[Row] = []
    try:
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                row = Row(
                    line["part"],
                    line["arm"],
                    int(line["seed"]),
                    int(line["step"]),
                    float(line["seconds"]),
                    line["figure"],
                    float(line["value"]),
                    line["setting"] or rows[-1].setting,  # as above
                )
                rows.append(row)
            return rows
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a CSV of this run ({error}). Choose another --out.") from error


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Put rows into the CSV in one move; a figure that is there already is replaced."""
    together = {row.key: row for row in (*read_rows(path), *rows)}
    with atomic_write(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        above = ""
        for row in together.values():
            # the words are most of a line, and those of the line above nearly always
            writer.writerow({**asdict(row), "setting": "" if row.setting == above else row.setting})
            above = row.setting
