"""`contrastive-sr demo`: EDSR with L1, and from there on with L1 and with L1 + PCL, on photographs, compared."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from contrastive_sr import __version__
from contrastive_sr._install import install
from contrastive_sr.cli.bars import one_bar
from contrastive_sr.cli.evaluate import find_device
from contrastive_sr.cli.study import Trainings, study_host
from contrastive_sr.cli.tables import for_tables, show_table
from contrastive_sr.data.files import atomic_write
from contrastive_sr.errors import HostError

if TYPE_CHECKING:
    from contrastive_sr.evaluation import Metric
    from contrastive_sr.hosts.demo import DemoHost

Framework = Literal["basicsr", "mmagic"]
_NEEDS = {"basicsr": {"basicsr": "basicsr"}, "mmagic": {"mmagic": "mmagic", "mmengine": "mmagic"}}


def run_demo(
    framework: Framework,
    out: Path,
    data: Path,
    *,
    steps: int,
    seed: int,
    lpips_weights: Path | None,
    fresh: bool,
    console: Console,
) -> None:
    """Prepares the data, trains a start and two networks from it, and writes a table, a JSON file and two pictures.

    Args:
        framework: the host that trains.
        out: folder for everything the demo writes but the data.
        data: root of the data set; written if missing.
        steps: training steps of either network; their start has three times as many.
        seed: of all trainings.
        lpips_weights: file of an AlexNet; None: torchvision's, if it has been downloaded before.
        fresh: throw finished trainings away.
        console: where the report goes.

    Raises:
        ConfigError: a file of weights that cannot be used, or trainings of another origin in `out`.
        HostError: the host or an extra is missing, or a training failed.
        DataError: `data` holds something else.
    """
    _check_installed(framework)
    with console.status("Loading torch and the host ..."):
        from contrastive_sr.data.demo import SCALE, prepare_demo_data
        from contrastive_sr.hosts.launch import alone
        from contrastive_sr.hosts.metrics import load_metrics

        host: DemoHost
        if framework == "basicsr":
            from contrastive_sr.hosts.basicsr.demo import BasicSRDemo

            host = BasicSRDemo()
        else:
            from contrastive_sr.hosts.mmagic.demo import MMagicDemo

            host = MMagicDemo()
        metrics, left_out = load_metrics(SCALE, lpips_weights, find_device(None))
    with one_bar("cutting photographs") as on_photo:
        prepared = prepare_demo_data(data, on_photo)
    _say(console, f"Data: {prepared.train} training pairs, {prepared.val} held-out photographs, in {data}")
    folder = out / framework
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "demo"):
        _run_in(
            folder, data, host, framework, steps=steps, seed=seed, fresh=fresh, metrics=metrics, left_out=left_out,
            console=console,
        )  # fmt: skip


def _run_in(
    folder: Path,
    data: Path,
    host: DemoHost,
    framework: Framework,
    *,
    steps: int,
    seed: int,
    fresh: bool,
    metrics: Mapping[str, Metric],
    left_out: Sequence[str],
    console: Console,
) -> None:
    from contrastive_sr.evaluation import given_lr
    from contrastive_sr.evaluation.jaggedness import jaggedness_warnings
    from contrastive_sr.evaluation.pattern import pattern_warnings
    from contrastive_sr.hosts.demo import LABELS, compare, device_name, draw, plan_study, results_of, verdict
    from contrastive_sr.hosts.launch import console_log
    from contrastive_sr.hosts.study import LEDGER, RUNS, Measurement, Study, check_own

    check_own(folder)
    if fresh:
        shutil.rmtree(folder / RUNS, ignore_errors=True)
        (folder / LEDGER).unlink(missing_ok=True)
    device = find_device(None)
    with console.status("Checking the configs ..."):
        plan = plan_study(host, folder, data, steps, seed)
        study = Study(plan, study_host(plan.base))
    for training in study.trainings:
        if study.is_trained(training):
            _say(console, f"{training.run.label}: found, trained with {_shorter(training.config)}")
    with Trainings(console) as show:
        study.run(Measurement([], given_lr(), {}, device), report=show.line, on_progress=show.progress)

    with console.status("Measuring and drawing ..."):
        evaluation = compare(study, data, metrics, device)
        results = {
            "framework": f"{framework} {version(framework)}",
            "contrastive_sr": __version__,
            "steps": {training.run.arm: training.run.steps for training in study.trainings},
            "seed": seed,
            "device": device_name(),
            **results_of(study, evaluation),
        }
        with atomic_write(folder / "results.json") as unfinished:
            unfinished.write_text(json.dumps(results, indent=2) + "\n")
        draw(folder, evaluation, results, metrics.get("lpips"), f"Fine-tuning of EDSR, {framework}, seed {seed}")
    _report(console, results)
    means = evaluation.results()
    for warning in pattern_warnings(means, evaluation.scale) + jaggedness_warnings(means):
        _say(console, f"- {warning}")
    for line in left_out:
        _say(console, f"- {line}")
    _say(console, verdict(results["mean"]["L1"], results["mean"]["L1 + PCL"], steps))
    _say(console, f"Further seeds: contrastive-sr study {_shorter(folder / 'study.yml')}")
    _say(console, f"\nFor a look: {folder / 'crops.png'} {folder / 'curves.png'}")
    _say(console, f"All figures: {folder / 'results.json'}")
    for training in study.trainings:
        _say(console, f"{LABELS[training.run.arm]}:")
        run_folder = study.host.run_folder(study.folder, training.run)
        checkpoint = study.host.checkpoint(study.folder, training.run)
        for kind, path in (("checkpoint", checkpoint), ("logs", run_folder), ("console", console_log(training.config))):
            _say(console, f"  {kind}: {_shorter(path)}")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _shorter(path: Path) -> Path:
    """Relative to the current folder, if it lies below it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _check_installed(framework: Framework) -> None:
    extras = {"skimage": "demo", "matplotlib": "demo", **_NEEDS[framework]}
    missing = {module: extra for module, extra in extras.items() if importlib.util.find_spec(module) is None}
    if missing:
        command = install(*sorted(set(missing.values())))
        raise HostError(f"The demo needs {', '.join(missing)}, which cannot be found. Try: {command}")


def _report(console: Console, results: Mapping[str, Any]) -> None:
    from contrastive_sr.evaluation.report import COLUMNS, arrow

    mean, seconds = results["mean"], results["seconds_per_step"]
    names = list(mean["bicubic"])
    table = Table(title=f"x4 on {len(results['photographs'])} held-out photographs, {results['device']}")
    table.add_column("")
    for head in (*(f"{COLUMNS[name].title} {arrow(name)}" for name in names), "s / step"):
        table.add_column(head, justify="right", no_wrap=True)
    for label, row in mean.items():
        cells = ["-" if row[name] is None else COLUMNS[name].text(row[name]) for name in names]
        table.add_row(label, *cells, f"{seconds[label]:.3f}" if seconds.get(label) else "-")
    console.print()
    show_table(for_tables(console), table)
