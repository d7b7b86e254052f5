"""`contrastive-sr demo`: EDSR with L1 and with L1 + PCL from one seed, on photographs, compared."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from contrastive_sr import __version__
from contrastive_sr.cli.bars import one_bar
from contrastive_sr.errors import HostError
from contrastive_sr.hosts import INSTALL_BASICSR

if TYPE_CHECKING:
    from contrastive_sr.hosts.demo import DemoHost

Framework = Literal["basicsr", "mmagic"]
DEFAULT_STEPS = 600
_NEEDS = {
    "basicsr": {"basicsr": "basicsr", "tensorboard": "basicsr"},
    "mmagic": {"mmagic": "mmagic", "mmengine": "mmagic"},
}


def run_demo(
    framework: Framework, out: Path, data: Path, *, steps: int | None, seed: int, fresh: bool, console: Console
) -> None:
    """Prepares the data, trains twice, validates, and writes a table, a JSON file and two pictures.

    Args:
        framework: the host that trains.
        out: folder for everything the demo writes but the data.
        data: root of the data set; written if missing.
        steps: training steps of each network; a length that takes some minutes on two cores if None.
        seed: seed of both trainings.
        fresh: train again even if both trainings are there.
        console: where the report goes.

    Raises:
        HostError: the host or an extra is missing, or a training failed.
        DataError: `data` holds something else.
    """
    _check_installed(framework)
    with console.status("Loading torch and the host ..."):
        from contrastive_sr.data.demo import prepare_demo_data
        from contrastive_sr.hosts.launch import alone

        host: DemoHost
        if framework == "basicsr":
            from contrastive_sr.hosts.basicsr.demo import BasicSRDemo

            host = BasicSRDemo()
        else:
            from contrastive_sr.hosts.mmagic.demo import MMagicDemo

            host = MMagicDemo()
    with one_bar("cutting photographs") as on_photo:
        prepared = prepare_demo_data(data, on_photo)
    console.print(f"Data: {prepared.train} training pairs, {prepared.val} held-out photographs, in {data}")

    folder = out / framework
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "demo"):
        _run_in(folder, data, host, framework, steps=steps, seed=seed, fresh=fresh, console=console)


def _run_in(
    folder: Path,
    data: Path,
    host: DemoHost,
    framework: Framework,
    *,
    steps: int | None,
    seed: int,
    fresh: bool,
    console: Console,
) -> None:
    from contrastive_sr.hosts.demo import RUNS, Plan, device, measure, train, verdict
    from contrastive_sr.hosts.launch import is_finished

    steps = DEFAULT_STEPS if steps is None else steps
    plans = {
        name: Plan(name, with_pcl, steps, seed, data.resolve(), folder.resolve())
        for name, (_, with_pcl) in RUNS.items()
    }
    for number, (name, plan) in enumerate(plans.items(), start=1):
        label = RUNS[name][0]
        config = plan.folder / f"{name}{host.suffix}"
        text = host.config(plan)
        if not fresh and is_finished(config, text):
            console.print(f"[{number}/2] EDSR with {label}: found, trained with {config}")
            continue
        console.print(f"[{number}/2] EDSR with {label}, {steps} steps, with {config}")
        for stale in host.run_folders(plan):
            shutil.rmtree(stale, ignore_errors=True)
        train(config, text, label)

    with console.status("Validating and drawing ..."):
        title = f"EDSR, {framework}, {steps} steps, seed {seed}"
        results = {
            "framework": f"{framework} {version(framework)}",
            "contrastive_sr": __version__,
            "steps": steps,
            "seed": seed,
            "device": device(),
            **measure(host, plans, data, folder, title),
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _report(console, results)
    pixel, contrastive = (results["mean"][label]["psnr"] for label, _ in RUNS.values())
    console.print(verdict(pixel, contrastive, steps), soft_wrap=True)
    console.print("\nFor a look:", *(str(folder / name) for name in ("crops.png", "curves.png")), soft_wrap=True)
    console.print("All figures:", str(folder / "results.json"), soft_wrap=True)
    for name, plan in plans.items():
        console.print(f"{RUNS[name][0]}:")
        for kind, path in host.outputs(plan).items():
            console.print(f"  {kind}: {_shorter(path)}", soft_wrap=True, highlight=False)


def _shorter(path: Path) -> Path:
    """Relative to the current folder, if it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _check_installed(framework: Framework) -> None:
    extras = {"skimage": "demo", "matplotlib": "demo", **_NEEDS[framework]}
    missing = {module: extra for module, extra in extras.items() if importlib.util.find_spec(module) is None}
    if missing:
        wanted = ",".join(sorted(set(missing.values())))
        install = f'pip install "contrastive-sr[{wanted}]"'
        if "basicsr" in missing:
            install = INSTALL_BASICSR.replace("[basicsr]", f"[{wanted}]")
        raise HostError(f"The demo needs {', '.join(missing)}, which cannot be found. Try: {install}")


def _report(console: Console, results: Mapping[str, Any]) -> None:
    table = Table(title=f"x4 on {len(results['photographs'])} held-out photographs, Y channel, {results['device']}")
    table.add_column("")
    for column in ("PSNR, dB", "SSIM", "s / step"):
        table.add_column(column, justify="right")
    for label, metrics in results["mean"].items():
        seconds = results["seconds_per_step"].get(label)
        table.add_row(
            label, f"{metrics['psnr']:.2f}", f"{metrics['ssim']:.4f}", "-" if seconds is None else f"{seconds:.3f}"
        )
    console.print()
    console.print(table)
