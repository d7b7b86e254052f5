"""Paired comparison of trainings: the ledger of what was measured, differences with intervals.

A study trains several arms with several seeds. Arms of one seed start alike and see the same batches, so that they are
compared in pairs. The ledger, one CSV, is all that tables and pictures are made of.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contrastive_sr.data.files import atomic_write
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation.report import COLUMNS

START = "start"
"""The arm that all arms of a seed start from; it is trained and measured, and compared with nothing."""
COST = "seconds_per_step"
"""The metric of a training itself, whose data set and image are empty."""
RESUMED = "resumed_at"
"""The step from which a training went on after it was stopped; kept as the cost is."""
LEVEL = 0.95


class Result(NamedTuple):
    """One line of the ledger.

    Attributes:
        arm: what was trained.
        seed: of the training.
        digest: of the training's settings, so that results of others are not taken for its own.
        dataset: empty for the cost.
        image: empty for the cost.
        metric: its name.
        value: None where there is none, such as NIQE of a small image.
    """

    arm: str
    seed: int
    digest: str
    dataset: str
    image: str
    metric: str
    value: float | None


class Ledger:
    """The results of a study, in a CSV that is complete at any time.

    Args:
        path: the CSV; it need not exist.

    Raises:
        DataError: a file that is no such CSV.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ledger = Ledger(Path(folder, "results.csv"))
        ...     ledger.add([Result("l1", 0, "5f0c", "Set5", "baby.png", "psnr_y", 31.5)])
        ...     Ledger(Path(folder, "results.csv")).results[0].value
        31.5
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[Result] = []
        if not path.is_file():
            return
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    value = float(line["value"]) if line["value"] else None
                    arm, seed, digest, dataset, image, metric = (line[name] for name in Result._fields[:-1])
                    self.results.append(Result(arm, int(seed), digest, dataset, image, metric, value))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise DataError(
                f"{path}: expected the results of a study, a CSV with {', '.join(Result._fields)}; got another file "
                f"({error}). Choose another --out."
            ) from error

    def add(self, results: Iterable[Result]) -> None:
        """Take results in, and write the file. One that is there already is replaced."""
        together = {result[:2] + result[3:6]: result for result in (*self.results, *results)}
        self.results = list(together.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Result._fields)
            for result in self.results:
                value = "" if result.value is None else f"{result.value:.6g}"
                writer.writerow([*result[:-1], value])

    def of(self, arm: str, seed: int) -> list[Result]:
        """The lines of one training."""
        return [result for result in self.results if (result.arm, result.seed) == (arm, seed)]


# --------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True)
class Difference:
    """Of an arm from the reference, in pairs: the same seed, the same image.

    Attributes:
        mean: over seeds and images.
        low: end of the 95 % interval; None with one seed, which cannot tell how far chance goes.
        high: its other end.
        seeds: mean over the images, by seed.
        images: how many.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: Mapping[int, float]
    images: int

    @property
    def shown(self) -> bool:
        """Whether it is one: the interval leaves 0 out, and every seed has the same sign."""
        if self.low is None or self.high is None:
            return False
        same = all(value * self.mean > 0 for value in self.seeds.values())
        return same and self.low * self.high > 0


def paired_difference(values: NDArray[np.float64]) -> tuple[float, float | None, float | None]:
    r"""Mean and 95 % interval of paired differences, for other seeds and other images than these.

    Seeds and images are both taken as drawn at random, each with its own effect on the difference:

    .. math::

        d_{si} = \mu + a_s + b_i + e_{si}, \qquad
        \bar d \pm \sqrt{\frac{t_{S-1}^2 \max(M_a, M_e) + t_{I-1}^2 (\max(M_b, M_e) - M_e)}{S I}}

    with the mean squares :math:`M` of the two-way table for seeds, images and the rest. Each part of the variance has
    Student's t of its own degrees of freedom: with few seeds, one t with Satterthwaite's for their sum would leave the
    truth out too often. So many images do not make up for few seeds: with three seeds that disagree the interval is
    wide, whatever their number of images. With one image alone it is the t interval over seeds.

    Args:
        values: (S, I), the differences; seeds by images.

    Returns:
        Mean, low, high; low and high are None with one seed.

    Example:
        >>> [round(x, 3) for x in paired_difference(np.array([[0.1], [0.2], [0.3]]))]
        [0.2, -0.048, 0.448]
    """
    seeds, images = values.shape
    mean = float(values.mean())
    if seeds == 1:
        return mean, None, None
    by_seed = values.mean(1, keepdims=True)
    of_seeds = images * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    of_images = 0.0
    if images > 1:
        by_image = values.mean(0, keepdims=True)
        both = seeds * float(((by_image - mean) ** 2).sum()) / (images - 1)
        rest = float(((values - by_seed - by_image + mean) ** 2).sum()) / ((seeds - 1) * (images - 1))
        of_seeds, of_images = max(of_seeds, rest), max(both - rest, 0.0)
    squares = [(of_seeds, seeds), (of_images, images)]
    half = math.sqrt(sum(square * _t_quantile(n - 1) ** 2 for square, n in squares if square > 0) / values.size)
    return mean, mean - half, mean + half


@functools.cache
def _t_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))


@dataclass(frozen=True)
class Measured:
    """One arm on one data set by one metric.

    Attributes:
        seeds: mean over the images, by seed.
        difference: from the reference; None for the reference itself and the start, and where they share no seed.
    """

    seeds: Mapping[int, float]
    difference: Difference | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return math.fsum(self.seeds.values()) / len(self.seeds)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return float(np.std(list(self.seeds.values()), ddof=1)) if len(self.seeds) > 1 else None


Values = dict[tuple[str, str, str], dict[int, dict[str, float]]]


@dataclass(frozen=True)
class Summary:
    """What a ledger says.

    Attributes:
        arms: names, the start first, then the reference.
        reference: the arm that others are compared with.
        measured: data set to arm to metric.
        costs: arm to seconds per step, by seed.
        resumed: (arm, seed) of the trainings that went on after they were stopped.
        values: (data set, arm, metric) to seed to image to value.
    """

    arms: Sequence[str]
    reference: str
    measured: Mapping[str, Mapping[str, Mapping[str, Measured]]]
    costs: Mapping[str, Mapping[int, float]]
    resumed: Sequence[tuple[str, int]]
    values: Values = field(repr=False)

    def metrics(self) -> list[str]:
        """Those that some arm has, in the order of the tables."""
        there = {name for arms in self.measured.values() for metrics in arms.values() for name in metrics}
        return [name for name in COLUMNS if name in there]

    def ratio(self, arm: str) -> float | None:
        """Seconds per step, as a multiple of the reference's with the same seeds."""
        mine, other = self.costs.get(arm, {}), self.costs.get(self.reference, {})
        both = [seed for seed in mine if other.get(seed)]
        return math.fsum(mine[seed] / other[seed] for seed in both) / len(both) if both else None


def summarise(results: Sequence[Result], arms: Sequence[str] = ()) -> Summary:
    """Means, spread and paired differences of a ledger.

    Args:
        results: the ledger's lines.
        arms: names in their order, the reference first; those that have no line are left out. Default: all, as they
            appear.

    Raises:
        DataError: there is no line of an arm.

    Example:
        >>> lines = [
        ...     Result(arm, seed, "", "Set5", "baby.png", "psnr_y", value)
        ...     for arm, seeds in {"l1": (30.0, 30.2), "pcl": (29.9, 30.0)}.items()
        ...     for seed, value in enumerate(seeds)
        ... ]
        >>> pcl = summarise(lines).measured["Set5"]["pcl"]["psnr_y"]
        >>> round(pcl.difference.mean, 3), pcl.difference.shown
        (-0.15, False)
    """
    there = list(dict.fromkeys(result.arm for result in results))
    named = [arm for arm in (START, *(arms or there)) if arm in there]
    names = list(dict.fromkeys(named))
    compared = [name for name in names if name != START]
    if not compared:
        raise DataError("The ledger has no result of an arm so far. Run the study for longer.")
    reference = compared[0]
    values: Values = {}
    costs: dict[str, dict[int, float]] = {}
    resumed: list[tuple[str, int]] = []
    for result in results:
        if result.arm not in names:
            continue
        if not result.dataset:
            if result.metric == RESUMED:
                resumed.append((result.arm, result.seed))
            elif result.value is not None:
                costs.setdefault(result.arm, {})[result.seed] = result.value
            continue
        # the PSNR of equal images is infinite, and has no mean
        if result.value is not None and math.isfinite(result.value):
            seeds = values.setdefault((result.dataset, result.arm, result.metric), {})
            seeds.setdefault(result.seed, {})[result.image] = result.value
    measured: dict[str, dict[str, dict[str, Measured]]] = {}
    for dataset, name in dict.fromkeys((dataset, name) for dataset, _, name in values):
        for arm in names:
            mine = values.get((dataset, arm, name))
            if mine is None:
                continue
            means = {seed: math.fsum(images.values()) / len(images) for seed, images in sorted(mine.items())}
            other = values.get((dataset, reference, name))
            apart = arm in (START, reference) or other is None
            difference = None if apart or other is None else _difference(mine, other)
            measured.setdefault(dataset, {}).setdefault(arm, {})[name] = Measured(means, difference)
    ordered = {dataset: {arm: metrics[arm] for arm in names if arm in metrics} for dataset, metrics in measured.items()}
    return Summary(names, reference, ordered, costs, resumed, values)


def _difference(mine: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]]) -> Difference | None:
    seeds = sorted(set(mine) & set(other))
    if not seeds:
        return None
    images = sorted(set.intersection(*(set(mine[seed]) & set(other[seed]) for seed in seeds)))
    if not images:
        return None
    table = np.array([[mine[seed][image] - other[seed][image] for image in images] for seed in seeds])
    mean, low, high = paired_difference(table)
    return Difference(mean, low, high, dict(zip(seeds, map(float, table.mean(1)), strict=True)), len(images))


def check_arm_name(name: object) -> str:
    """Require a name that can be that of a file and is neither the start's nor that of the HR images.

    Raises:
        ConfigError: anything else.
    """
    allowed = isinstance(name, str) and bool(name) and all(c.isalnum() or c in "_.+-" for c in name)
    if not isinstance(name, str) or not allowed or name.lower() in (START, "hr") or not name[0].isalnum():
        raise ConfigError(
            f"arm {name!r}: expected a name of letters, digits, `_`, `.`, `+` and `-`, other than {START!r}, which is "
            "what all arms start from, and 'HR'."
        )
    return name
