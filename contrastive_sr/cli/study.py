"""`contrastive-sr study`: arms trained with several seeds, measured, and compared in pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table as RichTable

from contrastive_sr._checks import check_count, check_flag, check_number, describe, describe_error
from contrastive_sr._install import install
from contrastive_sr._json import parse_json
from contrastive_sr.cli.bars import progress_bars
from contrastive_sr.cli.evaluate import data_sets, find_device, lr_source
from contrastive_sr.cli.outputs import about_run
from contrastive_sr.cli.tables import for_tables, show_table
from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError, DataError, HostError, named_in_errors, printable

if TYPE_CHECKING:
    from contrastive_sr.hosts.study import Progress, StudyHost

_LINE_SECONDS = 60.0


@dataclass
class Settings:
    """What options and a study file say, under the same names; None and empty: not said.

    Args:
        base: option file or config.
        arms: name to changes.
        seeds: of the trainings.
        steps: of every arm; the base's by default.
        start_steps: of a common start for each seed.
        start: instead, its checkpoint, with ``{seed}`` in it.
        hr: folders of HR images, ``DIR`` or ``NAME=DIR``.
        lr: a folder of LR images for each.
        degradation: a preset that LR images are made with.
        rgb: measure PSNR and SSIM on RGB too.
        lpips_weights: file of an AlexNet.
        out: folder for the results.
        processes: trainings at a time.
        minutes: when to stop.
        imports: Python files that are run first.
    """

    base: Path | None = None
    arms: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    steps: int | None = None
    start_steps: int | None = None
    start: str | None = None
    hr: list[str] = field(default_factory=list)
    lr: list[Path] = field(default_factory=list)
    degradation: str | None = None
    rgb: bool | None = None
    lpips_weights: Path | None = None
    out: Path | None = None
    processes: int | None = None
    minutes: float | None = None
    imports: list[Path] = field(default_factory=list)


def run_study(base: Path | None, options: Settings, *, report_only: bool, console: Console) -> None:
    """Trains and measures what is missing, and writes tables, picture and page.

    Args:
        base: option file or config that arms change, or a study file with all settings.
        options: of the command line, which win over a study file's.
        report_only: write tables, picture and page of the ledger alone.
        console: where the tables go.

    Raises:
        ConfigError: settings that cannot be used.
        DataError: images that cannot be used.
        HostError: a training failed, or something that is needed is not installed.
    """
    settings = together(base, options)
    out = settings.out or Path("study")
    try:
        import jinja2  # noqa: F401
        import PIL  # noqa: F401
        import scipy  # noqa: F401

        from contrastive_sr.evaluation.study_report import write_study  # noqa: F401
    except ImportError as error:
        raise HostError(f"{error.name or 'A package'} is not installed. Try: {install('evaluate', 'plot')}") from error
    if report_only:
        _report(out, list(settings.arms), console)
        return
    from contrastive_sr.hosts.launch import alone
    from contrastive_sr.hosts.metrics import load_metrics
    from contrastive_sr.hosts.study import Measurement, Plan, Study

    if settings.base is None:
        raise ConfigError("Expected a BasicSR option file (.yml), an MMagic config (.py) or a study file, got none.")
    if not settings.arms:
        raise ConfigError("Expected arms to compare, by --arm NAME=CHANGES or --arms FILE; got none.")
    if settings.start is not None and settings.start_steps is not None:
        raise ConfigError("Expected one of --start, which gives a checkpoint, and --start-steps, which trains it.")
    processes = check_count(1 if settings.processes is None else settings.processes, "--processes")
    if settings.minutes is not None:
        check_number(settings.minutes, "--minutes", above=0)
    for name, count in (("--steps", settings.steps), ("--start-steps", settings.start_steps)):
        if count is not None:
            check_count(count, name)
    if settings.imports:
        from contrastive_sr.cli.imports import import_files

        import_files(settings.imports)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, "study"):
        with console.status("getting ready ..."):
            host = study_host(settings.base)
            sets = data_sets(settings.hr, settings.lr, host.scale)
            lr = lr_source(settings.lr, settings.degradation, host.scale, 0)
            device = find_device(None)
            metrics, left_out = load_metrics(host.scale, settings.lpips_weights, device, rgb=bool(settings.rgb))
            plan = Plan(
                settings.base, settings.arms, settings.seeds or [0, 1, 2], out, settings.steps, settings.start_steps,
                settings.start, settings.imports,
            )  # fmt: skip
            study = Study(plan, host)
        for line in left_out:
            console.print(f"- {line}", soft_wrap=True, highlight=False, markup=False)
        with Trainings(console) as show:
            done = study.run(
                Measurement(sets, lr, metrics, device),
                processes=processes,
                minutes=settings.minutes,
                report=show.line,
                on_progress=show.progress,
            )
        _report(out, list(settings.arms), console)
    if not done:
        console.print("The time is up. The same command goes on.")


def study_host(base: Path) -> StudyHost:
    """What changes a base, by the kind of its file: an option file of BasicSR, or a config (.py) of MMagic."""
    if base.suffix == ".py":
        from contrastive_sr.hosts.mmagic.study import MMagicStudy

        return MMagicStudy(base)
    from contrastive_sr.hosts.basicsr.study import BasicSRStudy

    return BasicSRStudy(base)


# ------------------------------------------------------------------------------------------------------- report


def _report(out: Path, arms: Sequence[str], console: Console) -> None:
    from contrastive_sr.evaluation.report import COLOURS_WITH_HR
    from contrastive_sr.evaluation.study import START, Ledger, summarise
    from contrastive_sr.evaluation.study_report import notes_of, tables_of, warnings_of, write_study
    from contrastive_sr.hosts.metrics import NOTES as OF_METRICS
    from contrastive_sr.hosts.study import CROPS, LEDGER, NOTES, read_crops, read_record

    ledger = Ledger(out / LEDGER)
    if not any(result.dataset and result.arm != START for result in ledger.results):
        console.print("No arm was measured so far: there is nothing to report.")
        return
    summary = summarise(ledger.results, arms or read_record(out).arms)
    try:
        notes = list(map(str, parse_json((out / NOTES).read_text()))) if (out / NOTES).is_file() else []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{out / NOTES} cannot be read ({error}). Remove it, and give the same command again."
        ) from error
    notes += [f"{note.text}." for name, note in OF_METRICS.items() if name in summary.metrics()]
    files = write_study(
        out, printable(out.resolve().name), summary, read_crops(out / CROPS, summary), notes, about_run(COLOURS_WITH_HR)
    )
    wide = for_tables(console)
    for table in tables_of(summary):
        shown = RichTable(title=table.title, title_justify="left")
        for number, head in enumerate(table.heads):
            shown.add_column(head, overflow="fold", justify="left" if number < table.words else "right")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        show_table(wide, shown)
    for warning in warnings_of(summary):
        console.print(f"- [bold]{escape(warning)}[/bold]", soft_wrap=True, highlight=False)
    for note in notes_of(summary):
        console.print(f"- {note}", soft_wrap=True, highlight=False, markup=False)
    console.print("Written:", ", ".join(map(str, files)), soft_wrap=True, highlight=False, markup=False)


class Trainings:
    """Lines about trainings, and bars on a terminal; elsewhere a line about the time left now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = progress_bars()
        self.plain = self.bars.disable
        self.tasks: dict[str, TaskID] = {}
        self.next_line = 0.0

    def __enter__(self) -> Trainings:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def progress(self, progress: Progress) -> None:
        if self.plain:
            if time.monotonic() >= self.next_line:
                left = "" if progress.left is None else f", about {_duration(progress.left)} left"
                self.line(f"{progress.steps:,} of {progress.total:,} steps{left}")
                self.next_line = time.monotonic() + _LINE_SECONDS
            return
        shown = {"all trainings": (progress.steps, progress.total), **progress.running}
        for label in [label for label in self.tasks if label not in shown]:
            self.bars.remove_task(self.tasks.pop(label))
        for label, (step, steps) in shown.items():
            if label not in self.tasks:
                self.tasks[label] = self.bars.add_task(label, total=steps, completed=step)
            self.bars.update(self.tasks[label], completed=step)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"


# ----------------------------------------------------------------------------------------------------- settings


def parse_arm(text: str) -> tuple[str, dict[str, Any]]:
    """An arm of the command line: ``NAME`` or ``NAME=KEY=VALUE;KEY=VALUE``, values being YAML.

    Raises:
        ConfigError: anything else.

    Example:
        >>> parse_arm("pcl=methods=[{type: PCL}];train.ema_decay=0.9")
        ('pcl', {'methods': [{'type': 'PCL'}], 'train.ema_decay': 0.9})
    """
    name, _, rest = text.partition("=")
    changes: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(";"))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--arm {name}: expected KEY=VALUE, got {part!r}.")
        changes[key.strip()] = _yaml(value, f"--arm {name}: {key.strip()}")
    return name.strip(), changes


def parse_seeds(text: str) -> list[int]:
    """Seeds of the command line: a count, or a list, which a comma makes even of one seed.

    Raises:
        ConfigError: anything else.

    Example:
        >>> parse_seeds("3"), parse_seeds("4,7"), parse_seeds("0 1"), parse_seeds("1,")
        ([0, 1, 2], [4, 7], [0, 1], [1])
    """
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--seeds: expected how many, such as 3, or several such as 0,1,2; got {text!r}.")
    numbers = [int(part) for part in parts]
    return _distinct(list(range(numbers[0])) if len(numbers) == 1 and "," not in text else numbers)


def _distinct(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds: expected different seeds, at least one, got {seeds}.")
    return seeds


def read_arms(file: Path) -> dict[str, Any]:
    """Arms of a YAML file: name to a mapping of changes.

    Raises:
        ConfigError: no such file, or another content.
    """
    return _arms(_read(file), str(file))


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ConfigError(f"Expected the file {file}, but there is none.")
    return _yaml(_text(file), str(file))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read ({describe_error(error)}). Expected a YAML file in UTF-8.") from error


def _yaml(text: str, where: str) -> Any:
    from contrastive_sr.hosts.yaml_files import load_yaml

    try:
        with named_in_errors(where):
            return load_yaml(text)
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{where}: expected YAML, got {text[:80]!r} ({describe_error(error)}).") from error


def _arms(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{where}: expected a mapping of arms to their changes, got {describe(content)}.")
    arms = {str(name): {} if changes is None else changes for name, changes in content.items()}
    for name, changes in arms.items():
        if not isinstance(changes, Mapping):
            raise ConfigError(f"{where}: arm {name}: expected a mapping of keys to values, got {describe(changes)}.")
    return arms


def together(base: Path | None, options: Settings) -> Settings:
    """The settings of a study file, if `base` is one, with the command line's over them.

    Args:
        base: a study file, an option file or a config; None: no file.
        options: of the command line.

    Raises:
        ConfigError: no such file, or settings that are unknown or of another kind.
    """
    if base is None:
        return options
    if base.suffix not in (".yml", ".yaml", ".py"):
        raise ConfigError(f"Expected an option file (.yml), an MMagic config (.py) or a study file (.yml), got {base}.")
    if not base.is_file():
        raise ConfigError(f"Expected the file {base}, but there is none.")
    content = None if base.suffix == ".py" else _study_file(base)
    if content is None:
        options.base = base
        return options
    with named_in_errors(str(base)):
        settings = _of_file(content)
        if settings.base is not None and not settings.base.is_file():
            raise ConfigError(
                f"base: expected the file {settings.base}, but there is none. A relative path starts at the folder "
                "in which the command is run."
            )
    # either takes the place of the other
    if options.start is not None or options.start_steps is not None:
        settings.start, settings.start_steps = None, None
    for item in fields(Settings):
        given = getattr(options, item.name)
        if given not in (None, [], {}):
            setattr(settings, item.name, given)
    return settings


def _study_file(file: Path) -> Mapping[str, Any] | None:
    """What a study file holds; None if it is an option file, whose own tags YAML alone does not know."""
    from contrastive_sr.hosts.yaml_files import load_yaml

    try:
        with named_in_errors(str(file)):
            content = load_yaml(_text(file))
    except yaml.YAMLError:
        return None
    return content if isinstance(content, Mapping) and "base" in content else None


def _of_file(content: Mapping[str, Any]) -> Settings:
    names = ["import" if item.name == "imports" else item.name for item in fields(Settings)]
    for key in content:
        if key not in names:
            raise ConfigError(f"a study {unknown('key', key, names)}")
    values = {key: value for key, value in content.items() if value is not None}
    settings = Settings()
    for key, value in values.items():
        if key == "arms":
            settings.arms = _arms(value, "arms")
        elif key == "seeds":
            seeds = list(range(value)) if isinstance(value, int) else value
            if not isinstance(seeds, list) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
                raise ConfigError(f"seeds: expected how many, or a list of seeds, got {describe(value)}.")
            settings.seeds = _distinct(seeds)
        elif key == "hr" and isinstance(value, Mapping):
            settings.hr = [f"{name}={folder}" for name, folder in value.items()]
        elif key in ("hr", "lr", "import"):
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise ConfigError(f"{key}: expected paths, got {describe(value)}.")
            setattr(
                settings,
                "imports" if key == "import" else key,
                entries if key == "hr" else [Path(entry) for entry in entries],
            )
        elif key == "rgb":
            settings.rgb = check_flag(value, key)
        elif key in ("base", "lpips_weights", "out", "start", "degradation"):
            if not isinstance(value, str):
                raise ConfigError(f"{key}: expected text, got {describe(value)}.")
            setattr(settings, key, value if key in ("start", "degradation") else Path(value))
        else:
            setattr(settings, key, value)
    return settings
