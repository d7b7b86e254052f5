"""Reads what BasicSR and MMagic log of a training: BasicSR's `train_*.log`, MMagic's `scalars.json`.

For BasicSR the text is read and not the TensorBoard events: every run has it, in the folder that is archived with its
checkpoints, and only there are the times. Both are written line by line, so that a run can be read while it trains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from contrastive_sr.errors import DataError

PIXEL = "loss_pix"
"""The pixel loss, whatever its host calls it."""
Points = list[tuple[int, float]]

_BASICSR = re.compile(
    r"^(?P<clock>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ INFO: \[.*?iter: *(?P<step>[\d,]+), lr:\((?P<lr>[^,)]+).*?"
    r"time \(data\): (?P<time>[\d.]+) \([\d.]+\)\] (?P<rest>.*)$"
)
_STARTED = re.compile(r"(?:Start training from|resumed) epoch: \d+, iter: (\d+)")
_CLOCK = re.compile(r"^\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d:\d\d")
_VALIDATED = re.compile(r"INFO: Validation (.*)$")
_METRIC = re.compile(r"^\t # ([^:\t]+): (\S+)")
_OF_BASICSR = ("l_g_", "l_d_", "l_percep", "l_style", "l_total")
_SETTINGS = "max_iters|val_interval|window_size"  # of MMEngine
_VALUE = re.compile(r"(?<!\S)([^\s:]+): (\S+)")
_LONGEST = 20_000  # of a line; damage is longer, and would be searched for hours
_NO_LOSS = ("step", "iter", "epoch", "time", "data_time", "memory")


@dataclass
class RunLog:
    """What was logged in a training, over all its parts if it was resumed.

    Attributes:
        training: (step, value) by what was logged in training. The pixel loss is `PIXEL`.
        validation: (step, value) by metric, e.g. `PSNR`; with several sets of images `Set5/PSNR`.
        times: (step, seconds a step).
        seconds: wall time that the parts took, by the clock in their logs.
        total: how many steps the training is to have; None if the log does not tell.
        start: the step that this part goes on from.
        host: name of the host.
        window: MMEngine logs losses as means of so many steps, fewer at the start of a part; BasicSR those of one.
    """

    host: str
    training: dict[str, Points] = field(default_factory=dict)
    validation: dict[str, Points] = field(default_factory=dict)
    times: Points = field(default_factory=list)
    seconds: float = 0.0
    total: int | None = None
    start: int = 0
    window: int = 1

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max(
            (points[-1][0] for points in (*self.training.values(), *self.validation.values()) if points), default=0
        )

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the run, without validation; None if nothing was logged."""
        return sum(seconds for _, seconds in self.times) / len(self.times) if self.times else None

    @classmethod
    def joined(cls, parts: Sequence[RunLog]) -> RunLog:
        """The parts of one training as one, in the order of their steps: clocks may be set back in between.

        Args:
            parts: in the order of the clocks. Where a training went back to an earlier step and passed what was there,
                that is how it is known which of the two is of no use any more.
        """
        run = cls(parts[0].host)
        for number, part in sorted(enumerate(parts), key=lambda item: item[1].start):
            if any(later.start <= part.start and later.step > part.step for later in parts[number + 1 :]):
                run.seconds += part.seconds
            else:
                run.add(part)
        return run

    def add(self, part: RunLog) -> None:
        """Join a later part: what an interrupted one had logged beyond the step it goes on from is replaced."""
        for mine, new in ((self.training, part.training), (self.validation, part.validation)):
            for key in {**mine, **new}:
                mine[key] = self._before(mine.get(key, []), part) + new.get(key, [])
        self.times = self._before(self.times, part) + part.times
        self.seconds += part.seconds
        self.total = part.total or self.total
        self.window = part.window

    @staticmethod
    def _before(points: Points, part: RunLog) -> Points:
        return [point for point in points if point[0] <= part.start]


def read_run(path: Path) -> RunLog:
    """Read the log of a training, also while it runs.

    Args:
        path: BasicSR's `experiments/NAME`, MMagic's `work_dirs/NAME` or one dated folder in it, or a log file itself.

    Returns:
        What was logged. Parts of a resumed training are joined by their steps.

    Raises:
        DataError: there is no log, or one that is damaged elsewhere than in its last line.
    """
    if path.is_file():
        texts = path.name.endswith(".log")
        return (_read_basicsr if texts else _read_mmagic)([path])
    if not path.is_dir():
        raise DataError(f"Expected the folder of a training at {path}, but there is none. Check the path.")
    if logs := sorted(path.glob("train_*.log"), key=_stamp):
        return _read_basicsr(logs)
    if scalars := sorted((*path.glob("vis_data/scalars.json"), *path.glob("*/vis_data/scalars.json"))):
        return _read_mmagic(scalars)
    raise DataError(
        f"Expected BasicSR's train_*.log or MMagic's <date>/vis_data/scalars.json in {path}, but there is neither. "
        f"{_advice(path)}"
    )


def _advice(path: Path) -> str:
    if any(path.glob("events.out.tfevents.*")):
        return "These are TensorBoard events; give the folder of the training, with its checkpoints."
    runs = sorted({log.parent.name for log in path.glob("*/train_*.log")})
    runs += sorted({log.parents[2].name for log in path.glob("*/*/vis_data/scalars.json")})
    if runs:
        return f"There are trainings below it: {', '.join(runs[:8])}{' and others' if len(runs) > 8 else ''}."
    return "Give experiments/NAME of BasicSR or work_dirs/NAME of MMagic; both log only after their first steps."


def _stamp(log: Path) -> str:
    """The date and time at the end of a BasicSR log's name: names change when a run is copied, this does not."""
    return "_".join(log.stem.split("_")[-2:])


def _lines(path: Path) -> list[str]:
    """The lines of a file that may still be written, without the last one if that is not complete."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return text.split("\n")[:-1]


# -------------------------------------------------------------------------------------------------------- BasicSR


def _read_basicsr(logs: list[Path]) -> RunLog:
    run = RunLog.joined([_basicsr_part(log) for log in logs])
    if not run.training and not run.validation:
        raise DataError(
            f"{logs[-1]} has no line of a training step yet. BasicSR writes one every `logger: print_freq` steps."
        )
    return _without_empty(run)


def _basicsr_part(log: Path) -> RunLog:
    part = RunLog("BasicSR")
    lines = [line for line in _lines(log) if len(line) <= _LONGEST]
    interval = _number(lines, "val_freq")
    part.total = _number(lines, "total_iter")
    step, name = part.start, ""
    validated: dict[str, int] = {}  # by set of images: at which step
    metrics: dict[tuple[str, str], Points] = {}
    for line in lines:
        if match := _STARTED.search(line):
            part.start = step = int(match[1])
        elif match := _BASICSR.match(line):
            step = int(match["step"].replace(",", ""))
            part.times.append((step, float(match["time"])))
            for key, value in [("lr", match["lr"]), *_VALUE.findall(match["rest"])]:
                _append(part.training, _common(key), step, value)
        elif match := _VALIDATED.search(line):
            name = match[1]
            validated[name] = _validated_at(step, validated.get(name, part.start), interval, part.total)
        elif name and (match := _METRIC.match(line)):
            _append(metrics, (name, match[1].upper()), validated[name], match[2])
    for (name, metric), points in metrics.items():
        part.validation[metric if len(validated) == 1 else f"{name}/{metric}"] = points
    part.seconds = _elapsed(lines)
    return part


def _common(key: str) -> str:
    """The name of a metric in the logs of both hosts; BasicSR puts l_ in front of all."""
    if key in ("l_pix", "l_g_pix"):
        return PIXEL
    return key if key.startswith(_OF_BASICSR) else key.removeprefix("l_")


def _append(series: dict, key: object, step: int, value: str) -> None:
    try:
        number = float(value)
    except ValueError:
        return
    points = series.setdefault(key, [])
    if points and points[-1][0] == step:  # BasicSR validates once more at the end
        points[-1] = (step, number)
    else:
        points.append((step, number))


def _number(lines: list[str], key: str) -> int | None:
    """A whole number among the options, as BasicSR logs them at the start."""
    for line in lines:
        if match := re.fullmatch(rf"\s+{key}: ([\d.e+]+)", line):
            return int(float(match[1]))
    return None


def _validated_at(step: int, before: int, interval: int | None, total: int | None) -> int:
    """The step of a validation whose log line does not give it.

    Args:
        step: of the last line of training before it.
        before: where the last validation was.
        interval: steps from one to the next.
        total: of the training; at its end there is one more.
    """
    if interval:
        step = max(-(-step // interval), before // interval + 1) * interval
    return min(step, total) if total else step


def _elapsed(lines: list[str]) -> float:
    """Seconds from the first line with a time to the last."""
    clocks = [
        datetime.strptime(match[0].replace("/", "-"), "%Y-%m-%d %H:%M:%S")
        for line in lines
        if (match := _CLOCK.match(line))
    ]
    return (clocks[-1] - clocks[0]).total_seconds() if clocks else 0.0


# --------------------------------------------------------------------------------------------------------- MMagic


def _read_mmagic(files: list[Path]) -> RunLog:
    run = RunLog.joined([_mmagic_part(file) for file in files])
    if not run.training and not run.validation:
        raise DataError(
            f"{files[-1]} has no line of a training step yet. MMEngine writes one every `interval` of its LoggerHook."
        )
    if PIXEL not in run.training and "loss" in run.training:
        run.training[PIXEL] = run.training.pop("loss")  # MMagic's own model has this one loss
    return _without_empty(run)


def _mmagic_part(file: Path) -> RunLog:
    file = file.absolute()  # the names of the folders above it say when it began
    part = RunLog("MMagic")
    settings = {}
    config = file.parent / "config.py"
    if config.is_file():
        text = config.read_text(encoding="utf-8", errors="replace")
        settings = {key: int(value) for key, value in re.findall(rf"\b({_SETTINGS})=(\d+)", text)}
    part.total = settings.get("max_iters")
    part.window = settings.get("window_size", 10)  # MMEngine's default
    console = file.parents[1] / f"{file.parents[1].name}.log"
    if console.is_file():
        lines = _lines(console)
        part.seconds = _elapsed(lines)
        part.start = next((int(match[1]) for line in lines if (match := _STARTED.search(line))), 0)
    last = validated = part.start
    for number, line in enumerate(_lines(file), start=1):
        entry = _entry(line, file, number)
        step = int(entry.get("step", 0))
        values = {key: float(x) for key, x in entry.items() if key not in _NO_LOSS and isinstance(x, (int, float))}
        if "iter" in entry:
            last = step
            if "time" in entry:
                part.times.append((step, float(entry["time"])))
            for key, value in values.items():
                part.training.setdefault("lr" if key == "generator.lr" else key, []).append((step, value))
        else:
            # By default MMEngine logs validation under the number of the epoch, which stays 0.
            validated = (
                step if step >= max(last, 1) else _validated_at(last, validated, settings.get("val_interval"), None)
            )
            for key, value in values.items():
                part.validation.setdefault(key, []).append((validated, value))
    return part


def _entry(line: str, file: Path, number: int) -> Mapping[str, float]:
    try:
        entry = json.loads(line)  # NaN too, which a training may have logged
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise DataError(
            f"{file}: line {number} is not what MMEngine logs: {line[:80]!r}. Expected a JSON object a line, as in "
            "<date>/vis_data/scalars.json."
        )
    return entry


def _without_empty(run: RunLog) -> RunLog:
    """The same without series that are empty, because all of their steps were made anew."""
    run.training = {key: points for key, points in run.training.items() if points}
    run.validation = {key: points for key, points in run.validation.items() if points}
    return run
