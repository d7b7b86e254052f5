"""Runs a study: trains every arm with every seed in processes of their own, measures, and keeps what was measured.

What is in the ledger is not done again. A training that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from contrastive_sr._checks import describe_error
from contrastive_sr._json import parse_json
from contrastive_sr.data.files import atomic_write, lies_inside
from contrastive_sr.data.images import UInt8Image, digest_of_file, open_image
from contrastive_sr.errors import ConfigError, DataError, named_in_errors, printable
from contrastive_sr.evaluation import DataSet, LRSource, Metric, Pair, Score, evaluate
from contrastive_sr.evaluation.comparison import CROP
from contrastive_sr.evaluation.data_sets import read_pairs
from contrastive_sr.evaluation.evaluate import check_measurable
from contrastive_sr.evaluation.report import Shown, most_detailed, spread
from contrastive_sr.evaluation.study import COST, RESUMED, START, Ledger, Result, Summary, check_arm_name
from contrastive_sr.hosts.checkpoints import read_network
from contrastive_sr.hosts.launch import check_ended, is_finished, mark_finished, start_training
from contrastive_sr.hosts.logs import read_run
from contrastive_sr.hosts.trained import network_of_config, trained_network

LEDGER = "results.csv"
NOTES = "notes.json"
"""Sentences on what was trained and measured, for the report."""
RECORD = "record.json"
"""The order of the arms, and what the ledger's lines are of beside the arms' settings: starts and images."""
CROPS = "crops"
RUNS = "runs"
"""Below it lie configs, logs and checkpoints; nothing of it is needed once all is measured."""
SHOWN = 2
"""Images of each data set of which a part is kept, for the page."""
_OWN = ".contrastive-sr"  # in `RUNS`: what lies below it was written here, and may be removed
_POLL = 0.5
_KNOWN = 0.02  # part of the steps after which the time left is told
_CHANGED = (
    "{where}: the ledger has results of other settings. Give the arm another name, choose another --out, or take "
    "its lines out of {ledger}."
)
_UNFINISHED = (
    "arm {label}: a training of other settings is in {folder}. Give the arm another name, choose another "
    "--out, or take that folder away."
)
_OTHER_START = (
    "the start, seed {seed}: the ledger has results of another. Choose another --out, or take all lines of this seed "
    "out of {ledger}."
)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: its name.
        seed: of the whole training.
        steps: how many.
        start: checkpoint that it starts from; None: from new weights.
    """

    arm: str
    seed: int
    steps: int
    start: Path | None = None

    @property
    def name(self) -> str:
        """Of the run and its folders."""
        return f"{self.arm}-{self.seed}"

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.arm}, seed {self.seed}"


class StudyHost(Protocol):
    """How a study changes a host's config, and finds what a training left.

    Attributes:
        suffix: of its configs.
        resume: arguments of `contrastive-sr train` that go on with a training.
        without_methods: the changes that take methods out of the base.
        scale: of the base's network.
        steps: of the base.
    """

    suffix: str
    resume: Sequence[str]
    without_methods: Mapping[str, Any]
    scale: int
    steps: int

    def options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The base with an arm's changes, fit to train with methods or without."""

    def fingerprint(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What of the options decides what is trained, apart from seed, steps and start."""

    def text(self, options: Mapping[str, Any], run: Run) -> str:
        """The config of a training; it need not validate."""

    def check(self, config: Path) -> None:
        """Refuse a config that cannot be trained."""

    def run_folder(self, folder: Path, run: Run) -> Path:
        """Where the host puts a training that runs in `folder`; its log lies there."""

    def checkpoint(self, folder: Path, run: Run) -> Path:
        """The network at the end of the training."""

    def resumable(self, folder: Path, run: Run) -> bool:
        """Whether there is a whole checkpoint to go on from."""

    def thin_out(self, folder: Path, run: Run) -> None:
        """Remove what was saved to go on from; the network at the end stays."""

    def save_start(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Write a network as a checkpoint that trainings can start from."""


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Args:
        base: option file or config that every arm changes.
        arms: name to changes; the first is the reference.
        seeds: of the trainings.
        out: folder for all results.
        steps: of every arm; None: the base's.
        start_steps: steps of a common start for each seed, the base without methods; None: none.
        start: instead, a checkpoint, with `{seed}` in its name where each seed has one of its own.
        imports: Python files that define what configs name.
    """

    base: Path
    arms: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    out: Path
    steps: int | None = None
    start_steps: int | None = None
    start: str | None = None
    imports: Sequence[Path] = ()


@dataclass(frozen=True)
class Measurement:
    """What is measured.

    Args:
        sets: images.
        lr: where LR images come from.
        metrics: beside PSNR and SSIM.
        device: where networks run.
    """

    sets: Sequence[DataSet]
    lr: LRSource
    metrics: Mapping[str, Metric]
    device: torch.device


class Progress(NamedTuple):
    """How far a study is.

    Attributes:
        steps: done, of all trainings that were not in the ledger at the beginning.
        total: how many these are.
        running: label to (step, steps) of the trainings that run.
        left: seconds, by the speed so far; None at first.
    """

    steps: int
    total: int
    running: Mapping[str, tuple[int, int]]
    left: float | None


@dataclass(eq=False)
class _Training:
    run: Run
    options: dict[str, Any]
    digest: str
    config: Path
    host: StudyHost = field(repr=False)
    origin: str | None = None  # digest of a start that is given
    given: bool = False  # a start that is not trained here
    step: int = 0
    resumed_at: int | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def identity(self) -> str:
        """The first line of its config, the same in whatever folder the study lies: what it trains, and from where."""
        origin = "" if self.origin is None else f", from weights {self.origin}"
        return f"# settings {self.digest}{origin}"

    @functools.cached_property
    def text(self) -> str:
        """Of its config; MMEngine takes a while to write one."""
        return f"{self.identity}\n{self.host.text(self.options, self.run)}"

    def found(self) -> str:
        """The identity in the config that is there, of this training or another; empty without one."""
        return self.config.read_text().partition("\n")[0] if self.config.is_file() else ""


class Study:
    """The trainings of a plan, checked: every arm's config is written and tried before the first training.

    Args:
        plan: what is trained.
        host: of the base.

    Raises:
        ContrastiveSRError: a base, an arm or a checkpoint that cannot be used, or other settings than those that the
            ledger has results of.
    """

    def __init__(self, plan: Plan, host: StudyHost) -> None:
        self.plan, self.host = plan, host
        self.folder = plan.out.resolve() / RUNS
        check_own(plan.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _OWN).touch()
        self.steps = host.steps if plan.steps is None else plan.steps
        self.ledger = Ledger(plan.out / LEDGER)
        self.record = read_record(plan.out)
        self._failures: list[str] = []
        for name in plan.arms:
            check_arm_name(name)
        start, options = None, {}
        self._shapes: dict[str, torch.Size] | None = None
        if self.has_start:
            with named_in_errors("the start, which is the base without methods"):
                start = host.options(host.without_methods)
                self._shapes = self._check(START, start)
        for name, changes in plan.arms.items():
            with named_in_errors(f"arm {name}"):
                options[name] = host.options(changes)
                shapes = self._check(name, options[name])
                if self._shapes not in (None, shapes):
                    raise ConfigError(
                        "its network is not the base's, so that it cannot start from the same checkpoint. Leave the "
                        "start out, or the network as it is."
                    )
        self.trainings: list[_Training] = []
        for seed in plan.seeds:
            start_digest = origin = None
            if start is not None:
                training = self._start(seed, start)
                self.trainings.append(training)
                start_digest, origin = training.digest, training.origin
            for name in plan.arms:
                file = self._start_file(seed) if self.has_start else None
                run = Run(name, seed, self.steps, file)
                self.trainings.append(self._training(run, options[name], start_digest, origin))
        for training in self.trainings:
            run = training.run
            if any(result.dataset and result.digest != training.digest for result in self.ledger.of(run.arm, run.seed)):
                if run.arm == START:
                    raise ConfigError(_OTHER_START.format(seed=run.seed, ledger=self.ledger.path))
                raise ConfigError(_CHANGED.format(where=f"arm {run.label}", ledger=self.ledger.path))
            other = training.found() not in ("", training.identity)
            if not training.given and other and host.resumable(self.folder, run):
                raise ConfigError(_UNFINISHED.format(label=run.label, folder=host.run_folder(self.folder, run)))

    @property
    def has_start(self) -> bool:
        """Whether arms of a seed start from one checkpoint."""
        return self.plan.start is not None or self.plan.start_steps is not None

    def _check(self, name: str, options: Mapping[str, Any]) -> dict[str, torch.Size]:
        """Write the config of an arm and try it; the shapes of its network's state."""
        config = self.folder / "check" / f"{name}{self.host.suffix}"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(self.host.text(options, Run(name, self.plan.seeds[0], self.steps)))
        self.host.check(config)
        return {key: value.shape for key, value in network_of_config(config).state_dict().items()}

    def _start_file(self, seed: int) -> Path:
        return self.folder / "starts" / f"{START}-{seed}.pth"

    def _start(self, seed: int, options: dict[str, Any]) -> _Training:
        if self.plan.start is None:
            return self._training(Run(START, seed, self.plan.start_steps or 0), options, None)
        file = Path(self.plan.start.replace("{seed}", str(seed))).expanduser()
        training = self._training(Run(START, seed, 0), options, file.name)
        training.given = True
        training.origin = self.record.starts.get(str(seed))
        if file.is_file():
            state = read_network(file, "--start")
            if {key: value.shape for key, value in state.items()} != self._shapes:
                raise ConfigError(f"--start: {file} is not of the base's network. Take a checkpoint that is.")
            before, training.origin = training.origin, _digest_of_weights(state)
            if before not in (None, training.origin) and any(result.seed == seed for result in self.ledger.results):
                raise ConfigError(_OTHER_START.format(seed=seed, ledger=self.ledger.path))
            self.record.starts[str(seed)] = training.origin
            self._write_start(seed, state)
        elif not self.ledger.results:
            raise ConfigError(f"--start: expected an existing checkpoint, got {file}. Check the path.")
        training.config.parent.mkdir(parents=True, exist_ok=True)
        training.config.write_text(training.text)
        return training

    def _write_start(self, seed: int, state: Mapping[str, Tensor]) -> None:
        path = self._start_file(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.host.save_start(state, path)

    def _training(self, run: Run, options: dict[str, Any], start: str | None, origin: str | None = None) -> _Training:
        content = {"options": self.host.fingerprint(options), "seed": run.seed, "steps": run.steps, "start": start}
        config = self.folder / "configs" / f"{run.name}{self.host.suffix}"
        return _Training(run, options, digest_of(content), config, self.host, origin)

    # ---------------------------------------------------------------------------------------------------- state

    def is_trained(self, training: _Training) -> bool:
        """Whether its network is there to be measured."""
        if training.given:
            return self._start_file(training.run.seed).is_file()
        return is_finished(training.config, training.identity) and self._checkpoint(training).is_file()

    def _checkpoint(self, training: _Training) -> Path:
        if training.given:
            return self._start_file(training.run.seed)
        return self.host.checkpoint(self.folder, training.run)

    def _missing(self, training: _Training, tests: Measurement) -> list[tuple[DataSet, list[str]]]:
        """The data sets on which something was not measured yet, with the metrics that were not."""
        there = {result[3:6] for result in self.ledger.of(training.run.arm, training.run.seed)}
        missing = []
        for data in tests.sets:
            images = [printable(file.name) for file in data.files]
            names = [
                name
                for name in ("psnr_y", *tests.metrics)
                if any((data.name, image, name) not in there for image in images)
            ]
            if names:
                missing.append((data, names))
        return missing

    def _to_train(self) -> list[_Training]:
        """Trainings that are neither in the ledger nor finished; a start also for those that go on from it."""
        needed = [t for t in self.trainings if not (t.given or self._is_measured(t) or self.is_trained(t))]
        starts = {t.run.start for t in needed if t.run.start is not None and not t.run.start.is_file()}
        again = [t for t in self.trainings if t.run.arm == START and not t.given]
        again = [t for t in again if self._start_file(t.run.seed) in starts]
        return [t for t in self.trainings if t in needed or t in again]

    def _is_measured(self, training: _Training) -> bool:
        return any(result.dataset for result in self.ledger.of(training.run.arm, training.run.seed))

    # ------------------------------------------------------------------------------------------------------ run

    def run(
        self,
        tests: Measurement,
        *,
        processes: int = 1,
        minutes: float | None = None,
        report: Callable[[str], None] = lambda text: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> bool:
        """Train and measure what is not in the ledger, all arms of a seed before the next seed.

        Args:
            tests: what is measured.
            processes: trainings at a time.
            minutes: when to stop; a measurement that was begun is finished.
            report: is told of each training that begins, ends or goes on.
            on_progress: is called now and then.

        Returns:
            Whether all is done.

        Raises:
            ContrastiveSRError: a training failed, or a network cannot be measured; other trainings are stopped.
        """
        self._settle(tests)
        self._write_notes(tests)
        began = time.monotonic()
        deadline = math.inf if minutes is None else began + 60 * minutes
        if any(self._missing(training, tests) for training in self.trainings):
            self._check_images(tests)
        waiting = self._to_train()
        queue = list(waiting)
        running: list[_Training] = []
        done_before: dict[int, int] = {}
        try:
            left = [training for training in self.trainings if training not in waiting]
            while left and time.monotonic() < deadline:
                self._measure(left.pop(0), tests, report)
            while (queue or running) and time.monotonic() < deadline:
                while len(running) < processes and (ready := self._next(queue, running)) is not None:
                    queue.remove(ready)
                    self._launch(ready, processes, report)
                    running.append(ready)
                    done_before[id(ready)] = self._step(ready)
                for training in [t for t in running if t.process is not None and t.process.poll() is not None]:
                    running.remove(training)
                    self._finish(training)
                    self._measure(training, tests, report)
                for training in running:
                    training.step = self._step(training)
                on_progress(self._progress(waiting, running, done_before, began))
                if running:
                    time.sleep(_POLL)
        finally:
            for training in running:
                _stop(training)
        for training in running:
            assert training.process is not None
            if training.process.returncode == 0:  # it ended just now
                self._finish(training)
                continue
            report(f"{training.run.label}: stopped at step {self._step(training):,} of {training.run.steps:,}")
        self._write_notes(tests)
        return not queue and not running and not any(self._missing(training, tests) for training in left)

    def _settle(self, tests: Measurement) -> None:
        """Refuse images that are not those of the ledger's data sets of these names; write the record.

        Raises:
            DataError: a data set that is another under a known name.
        """
        measured = {result.dataset for result in self.ledger.results}
        for data in tests.sets:
            files = [(file.name, digest_of_file(file)) for file in (*data.files, *data.lr_files)]
            now = {"lr": tests.lr.words, "images": digest_of(files)}
            before = self.record.data.get(data.name, now)
            if before != now and data.name in measured:
                what = "images" if before["lr"] == now["lr"] else f"LR images ({before['lr']}; now: {now['lr']})"
                raise DataError(
                    f"{data.name}: the ledger has results of other {what}. Give this data set another name, "
                    "--hr NAME=DIR, or choose another --out."
                )
            self.record.data[data.name] = now
        arms = list(dict.fromkeys([*self.plan.arms, *self.record.arms]))
        write_record(self.plan.out, self.record._replace(arms=arms))

    def _write_notes(self, tests: Measurement) -> None:
        with atomic_write(self.plan.out / NOTES) as unfinished:
            unfinished.write_text(json.dumps(self._notes(tests), indent=1) + "\n", encoding="utf-8")

    def _notes(self, tests: Measurement) -> list[str]:
        """What was trained and measured, in sentences."""
        plan, scale = self.plan, self.host.scale
        start = "from new weights"
        if plan.start is not None:
            start = f"from {Path(plan.start).name}"
        elif plan.start_steps is not None:
            start = f"from a start of the same seed, {plan.start_steps:,} steps of the base without methods"
        changes = {
            name: json.dumps(changes, default=str) if changes else "the base" for name, changes in plan.arms.items()
        }
        return [
            f"Base: {plan.base.name}. Each training: {self.steps:,} steps, {start}.",
            *(f"{name}: {text}" for name, text in changes.items()),
            f"x{scale}; LR: {tests.lr.words}. PSNR and SSIM on Y, of 8-bit images, without a border of {scale} pixels.",
            *self._failures,
        ]

    def _next(self, queue: Sequence[_Training], running: Sequence[_Training]) -> _Training | None:
        of_starts = [t.run.seed for t in (*queue, *running) if t.run.arm == START]
        for training in queue:
            run = training.run
            if run.start is None or (run.seed not in of_starts and run.start.is_file()):  # not an earlier start
                return training
        if queue and not running:
            raise ConfigError(f"--start: {queue[0].run.start} is not there, which {queue[0].run.label} starts from.")
        return None

    def _launch(self, training: _Training, processes: int, report: Callable[[str], None]) -> None:
        run = training.run
        arguments = [part for file in self.plan.imports for part in ("--import", str(file.resolve()))]
        if training.found() == training.identity and self.host.resumable(self.folder, run):
            arguments += self.host.resume
            training.resumed_at = self._step(training)
            report(f"{run.label}: goes on from its last checkpoint, to step {run.steps:,}")
        else:
            shutil.rmtree(self.host.run_folder(self.folder, run), ignore_errors=True)
            report(f"{run.label}: trains, {run.steps:,} steps")
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        limited = {} if processes == 1 or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}
        training.process = start_training(
            training.config, training.text, arguments, folder=self.folder, environment=limited
        )

    def _step(self, training: _Training) -> int:
        try:
            return read_run(self.host.run_folder(self.folder, training.run)).step
        except DataError:  # before its first line
            return 0

    def _finish(self, training: _Training) -> None:
        assert training.process is not None
        check_ended(training.process.returncode, training.config, training.run.label)
        if training.run.arm == START:
            self._write_start(training.run.seed, read_network(self._checkpoint(training), "the start"))
        training.step = training.run.steps
        mark_finished(training.config, training.identity)
        seconds = read_run(self.host.run_folder(self.folder, training.run)).seconds_per_step
        run = training.run
        own = {COST: seconds} | ({} if training.resumed_at is None else {RESUMED: float(training.resumed_at)})
        self.ledger.add(Result(run.arm, run.seed, training.digest, "", "", name, value) for name, value in own.items())
        self.host.thin_out(self.folder, run)

    def _progress(
        self, waiting: Sequence[_Training], running: Sequence[_Training], before: Mapping[int, int], began: float
    ) -> Progress:
        done = sum(training.step for training in waiting)
        total = sum(training.run.steps for training in waiting)
        here = done - sum(before.values())
        left = (time.monotonic() - began) * (total - done) / here if here >= _KNOWN * total else None
        steps = {training.run.label: (training.step, training.run.steps) for training in running}
        return Progress(done, total, steps, left)

    # -------------------------------------------------------------------------------------------------- measure

    def _check_images(self, tests: Measurement) -> None:
        """Read every image once, so that a damaged one is named now and not after hours."""
        for data in tests.sets:
            with named_in_errors(data.name):
                for pair in read_pairs(data, tests.lr, self.host.scale):
                    check_measurable(pair, self.host.scale)

    def _measure(self, training: _Training, tests: Measurement, report: Callable[[str], None]) -> None:
        run, missing = training.run, self._missing(training, tests)
        if not missing:
            return
        if not self.is_trained(training):
            for data, names in missing:
                said = f"{run.label}: {', '.join(names)} not measured on {data.name}, since its checkpoint is gone"
                report(said)
                if any(result.dataset == data.name for result in self.ledger.of(run.arm, run.seed)):
                    self._failures.append(f"{said}. Means are of the images that were measured.")
            return
        network = trained_network(self._checkpoint(training), str(training.config), self.host.scale)
        network.module.to(tests.device)
        for data, _ in missing:
            keep = _Crops(self.plan.out / CROPS, data, run) if run.seed == self.plan.seeds[0] else None
            with named_in_errors(f"{run.label} on {data.name}"):
                scores = evaluate(
                    network.call,
                    read_pairs(data, tests.lr, self.host.scale),
                    self.host.scale,
                    metrics=tests.metrics,
                    device=tests.device,
                    on_image=keep,
                )
            self.ledger.add(
                Result(run.arm, run.seed, training.digest, data.name, score.name, name, value)
                for score in scores
                for name, value in score.values.items()
                if name not in ("seconds", "memory_mib")  # the trainings beside take a part of the machine
                and name not in score.failed  # the next run tries again
            )
            for name in dict.fromkeys(name for score in scores for name in score.failed):
                first, *more = [score for score in scores if name in score.failed]
                others = f" and {len(more)} more" if more else ""
                said = f"{run.label}: {name} failed on {first.name}{others} of {data.name} ({first.failed[name]})"
                report(said)
                self._failures.append(f"{said}. Means are of the other images.")
            psnr = math.fsum(score.values["psnr_y"] or 0.0 for score in scores) / len(scores)
            report(f"{run.label}: {psnr:.2f} dB on {data.name}")


class Record(NamedTuple):
    """What is kept beside the ledger; see :data:`RECORD`.

    Attributes:
        arms: in their order; the first is the reference.
        starts: digest of the weights that were given as start, by seed.
        data: where LR images came from (``lr``) and a digest of names and sizes (``images``), by data set.
    """

    arms: list[str]
    starts: dict[str, str]
    data: dict[str, dict[str, str]]


def read_record(out: Path) -> Record:
    """The record of a study; an empty one of an earlier version's study, or a new one's.

    Raises:
        DataError: it cannot be read.
    """
    path = out / RECORD
    if not path.is_file():
        return Record([], {}, {})
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return Record(list(content["arms"]), dict(content["starts"]), dict(content["data"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({describe_error(error)}). Remove it if it is damaged.") from error


def write_record(out: Path, record: Record) -> None:
    """Write the record of a study."""
    with atomic_write(out / RECORD) as unfinished:
        unfinished.write_text(json.dumps(record._asdict(), indent=1) + "\n", encoding="utf-8")


def _digest_of_weights(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _stop(training: _Training) -> None:
    assert training.process is not None
    training.process.terminate()
    try:
        training.process.wait(20)
    except subprocess.TimeoutExpired:
        training.process.kill()
        training.process.wait()


def check_own(out: Path) -> None:
    """Refuse a folder for results whose trainings are not those of a study.

    Raises:
        ConfigError: there are files of others where trainings would be written and removed.
    """
    runs = out / RUNS
    if runs.is_dir() and any(runs.iterdir()) and not ((runs / _OWN).is_file() or (out / NOTES).is_file()):
        raise ConfigError(
            f"--out: expected a folder that is missing, empty, or of an earlier study or demo, got {out}, whose {RUNS} "
            "has files of another origin. Nothing was changed. Choose another one."
        )


def check_not_set(changes: Mapping[str, Any], settings: Mapping[str, str]) -> None:
    """Refuse changes to what the study sets itself.

    Args:
        changes: as mappings in mappings.
        settings: dotted key to what to do instead.

    Raises:
        ConfigError: there is one of them.
    """
    for dotted, advice in settings.items():
        *parents, key = dotted.split(".")
        place: Any = changes
        for parent in parents:
            place = place.get(parent) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and key in place:
            raise ConfigError(f"{dotted} is set by the study: {advice}.")


def digest_of(content: Any) -> str:
    """A short digest of settings, equal on every machine: absolute paths count by their last part.

    Example:
        >>> digest_of({"weights": "/home/me/vgg.pth"}) == digest_of({"weights": "/data/vgg.pth"})
        True
    """

    def portable(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): portable(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [portable(entry) for entry in value]
        if isinstance(value, str) and value.startswith(("/", "~")):
            return Path(value).name
        return value

    text = json.dumps(portable(content), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_paths(value: Any, key: str = "") -> Any:
    """A copy in which relative paths of files and folders that are there are absolute, for a training elsewhere."""
    if isinstance(value, Mapping):
        # the folders of `data_prefix` are below `data_root`
        below = "data_prefix" if value.get("data_root") else ""
        return {k: entry if below and k == below else with_paths(entry, str(k)) for k, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_paths(entry, key) for entry in value)
    if isinstance(value, str) and value:
        path = Path(value).expanduser()
        named = key.startswith(("dataroot", "data_root")) or "/" in value or bool(path.suffix)
        if named and not path.is_absolute() and path.exists():
            return str(path.resolve())
    return value


# --------------------------------------------------------------------------------------------------------- crops


class _Crops:
    """Keeps a part of some images of a data set, under an arm, as PNG files."""

    def __init__(self, folder: Path, data: DataSet, run: Run) -> None:
        self.folder, self.data, self.run = folder, data, run
        self.chosen = {printable(data.files[number].name) for number in spread(len(data), SHOWN)}

    def __call__(self, pair: Pair, sr: UInt8Image, score: Score) -> None:
        if pair.name not in self.chosen:
            return
        assert pair.hr is not None  # a study measures against HR
        box = most_detailed(pair.hr, CROP)
        left, top, right, bottom = box
        folder = _crop_folder(self.folder, self.data.name, pair.name)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"box": " ".join(map(str, box)), "seed": str(self.run.seed)}
        _save(folder / "HR.png", pair.hr[top:bottom, left:right], texts)
        _save(folder / f"{self.run.arm}.png", sr[top:bottom, left:right], texts)


def _crop_folder(folder: Path, dataset: str, image: str) -> Path:
    place = folder / dataset.replace("/", "_") / image
    if not lies_inside(place, folder):  # a data set called `..`
        raise ConfigError(f"{dataset}, {image}: expected names that are no paths. Rename the data set.")
    return place


def _save(path: Path, image: UInt8Image, texts: Mapping[str, str]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    with atomic_write(path) as unfinished:
        Image.fromarray(np.ascontiguousarray(image)).save(unfinished, "PNG", pnginfo=info, optimize=True)


def read_crops(folder: Path, summary: Summary) -> list[Shown]:
    """The parts of images that were kept, of the first seed.

    Args:
        folder: where they lie.
        summary: whose arms and data sets they are of; PSNR and LPIPS beside them are its.
    """
    shown = []
    for dataset, arms in summary.measured.items():
        seeds = summary.values[dataset, next(iter(arms)), "psnr_y"]
        for name in dict.fromkeys(image for images in seeds.values() for image in images):
            place = _crop_folder(folder, dataset, name)
            if not place.is_dir():  # an earlier version's
                place = place.with_suffix("")
            files = [(arm, place / f"{arm}.png") for arm in arms] + [("HR", place / "HR.png")]
            images, notes, box = {}, {}, (0, 0, 0, 0)
            for label, file in files:
                if file.is_file():
                    with open_image(file) as png:
                        texts: dict[str, str] = png.text  # type: ignore[attr-defined]
                        left, top, right, bottom = map(int, texts["box"].split())
                        box = left, top, right, bottom
                        images[label] = np.asarray(png.convert("RGB"))
                    seed = int(texts["seed"]) if "seed" in texts else None
                    notes[label] = ", ".join(_said(summary, dataset, label, name, seed))
            if len(images) > 1 and "HR" in images:
                shown.append(Shown(dataset, name, box, images, notes))
    return shown


def _said(summary: Summary, dataset: str, arm: str, image: str, seed: int | None) -> Iterator[str]:
    for metric, text in (("psnr_y", "{:.2f} dB"), ("lpips", "LPIPS {:.3f}")):
        seeds = summary.values.get((dataset, arm, metric), {})
        of_crop = seeds.get(min(seeds, default=0) if seed is None else seed, {})
        if (value := of_crop.get(image)) is not None:
            yield text.format(value)
