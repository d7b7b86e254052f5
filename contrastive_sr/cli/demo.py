"""`contrastive-sr demo`: EDSR with L1 and with L1 + PCL from one seed, on photographs, compared."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from contrastive_sr import __version__
from contrastive_sr.cli.demo_data import SCALE, VAL_PHOTOS, prepare_with_bar
from contrastive_sr.errors import HostError
from contrastive_sr.hosts import INSTALL_BASICSR
from contrastive_sr.hosts.logs import read_run
from contrastive_sr.hosts.progress import PROGRESS_FD

if TYPE_CHECKING:
    from contrastive_sr.cli.demo_host import DemoHost

DEFAULT_STEPS = 600
RUNS = {"l1": ("L1", False), "l1_pcl": ("L1 + PCL", True)}
# what is shown of each held-out photograph: an eye with fur around it, and the cooling fins of an engine
CROPS = {"chelsea": (32, 36, 128, 132), "motorcycle_left": (84, 72, 180, 168)}
_NEEDS = {
    "basicsr": {"basicsr": "basicsr", "tensorboard": "basicsr"},
    "mmagic": {"mmagic": "mmagic", "mmengine": "mmagic"},
}


def run_demo(
    framework: str, out: Path, data: Path, *, steps: int | None, seed: int, fresh: bool, console: Console
) -> None:
    """Prepares the data, trains twice, validates, and writes a table, a JSON file and two pictures.

    Args:
        framework: "basicsr" or "mmagic".
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
        # here, because `contrastive-sr --help` must not wait for torch
        host: DemoHost
        if framework == "basicsr":
            from contrastive_sr.cli.demo_basicsr import BasicSRDemo

            host = BasicSRDemo()
        else:
            from contrastive_sr.cli.demo_mmagic import MMagicDemo

            host = MMagicDemo()
    prepared = prepare_with_bar(data)
    console.print(f"Data: {prepared.train} training pairs, {prepared.val} held-out photographs, in {data}")

    folder = out / framework
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _run_in(folder, data, host, framework, steps=steps, seed=seed, fresh=fresh, console=console)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second demo out of a folder; the lock goes with the process that holds it."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(f"Another demo is writing into {folder}. Wait for it, or choose another --out.") from error
        yield


def _run_in(
    folder: Path,
    data: Path,
    host: DemoHost,
    framework: str,
    *,
    steps: int | None,
    seed: int,
    fresh: bool,
    console: Console,
) -> None:
    from contrastive_sr.cli.demo_host import Plan, curves_of

    steps = DEFAULT_STEPS if steps is None else steps
    plans = {
        name: Plan(name, with_pcl, steps, seed, data.resolve(), folder.resolve())
        for name, (_, with_pcl) in RUNS.items()
    }
    for number, (name, plan) in enumerate(plans.items(), start=1):
        label = RUNS[name][0]
        config = plan.folder / f"{name}{host.suffix}"
        text = host.config(plan)
        if not fresh and _is_finished(config, text):
            console.print(f"[{number}/2] EDSR with {label}: found, trained with {config}")
            continue
        console.print(f"[{number}/2] EDSR with {label}, {steps} steps, with {config}")
        for stale in host.run_folders(plan):
            shutil.rmtree(stale, ignore_errors=True)
        _train(config, text, label)

    with console.status("Validating and drawing ..."):
        images = _super_resolve(data, {RUNS[name][0]: host.network(plan) for name, plan in plans.items()})
        scores = _scores(images)
        logs = {RUNS[name][0]: read_run(host.run_folders(plan)[0]) for name, plan in plans.items()}
        seconds = {label: log.seconds_per_step for label, log in logs.items()}
        curves = {label: curves_of(log) for label, log in logs.items()}
        results = {
            "framework": f"{framework} {version(framework)}",
            "contrastive_sr": __version__,
            "steps": steps,
            "seed": seed,
            "device": _device(),
            "photographs": scores["photographs"],
            "mean": scores["mean"],
            "seconds_per_step": seconds,
            "curves": curves,
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        title = f"EDSR, {framework}, {steps} steps, seed {seed}"
        _draw(folder, images, curves, scores["mean"]["bicubic"]["psnr"], title)
    _report(console, results)
    console.print("\nFor a look:", *(str(folder / name) for name in ("crops.png", "curves.png")), soft_wrap=True)
    console.print("All figures:", str(folder / "results.json"), soft_wrap=True)
    for name, plan in plans.items():
        console.print(f"{RUNS[name][0]}:")
        for kind, path in host.outputs(plan).items():
            console.print(f"  {kind}: {_shorter(path)}", soft_wrap=True, highlight=False)


def _shorter(path: Path) -> Path:
    """Relative to the current folder, if it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _check_installed(framework: str) -> None:
    extras = {"skimage": "demo", "matplotlib": "demo", **_NEEDS[framework]}
    missing = {module: extra for module, extra in extras.items() if importlib.util.find_spec(module) is None}
    if missing:
        wanted = ",".join(sorted(set(missing.values())))
        install = f'pip install "contrastive-sr[{wanted}]"'
        if "basicsr" in missing:
            install = INSTALL_BASICSR.replace("[basicsr]", f"[{wanted}]")
        raise HostError(f"The demo needs {', '.join(missing)}, which cannot be found. Try: {install}")


# ----------------------------------------------------------------------------------------------------- training


def _marker(config: Path) -> Path:
    return config.with_suffix(config.suffix + ".finished")


def _is_finished(config: Path, text: str) -> bool:
    marker = _marker(config)
    return marker.is_file() and marker.read_text() == hashlib.sha256(text.encode()).hexdigest()


def _train(config: Path, text: str, label: str) -> None:
    """Runs `contrastive-sr train` in a process of its own; its bar is shown, its log goes to a file."""
    config.parent.mkdir(parents=True, exist_ok=True)
    _marker(config).unlink(missing_ok=True)
    config.write_text(text)
    log = config.with_suffix(".console.log")
    command = [sys.executable, "-m", "contrastive_sr.cli", "train", str(config)]
    source = str(Path(__file__).resolve().parents[2])
    descriptor = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)
    environment = {
        # threads that wait asleep lose little alone, and much less than spinning ones beside other programs
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        PROGRESS_FD: str(descriptor),
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
    }
    try:
        with log.open("w") as stream:
            status = subprocess.run(
                command, cwd=config.parent, env=environment, stdout=stream, stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
            ).returncode  # fmt: skip
    finally:
        os.close(descriptor)
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise HostError(
            f"The training with {label} ended with exit code {status}. The end of {log}:\n{tail}\n"
            "`contrastive-sr doctor` looks at the installed hosts."
        )
    _marker(config).write_text(hashlib.sha256(text.encode()).hexdigest())


# --------------------------------------------------------------------------------------------------- evaluation


def _super_resolve(data: Path, networks: Mapping[str, Callable[..., Any]]) -> dict[str, dict[str, Any]]:
    """Returns, per held-out photograph, the images of all columns as (H, W, 3) uint8 RGB."""
    import torch
    from PIL import Image

    images: dict[str, dict[str, Any]] = {}
    for photo in VAL_PHOTOS:
        name = f"{Path(photo).stem}.png"
        with Image.open(data / "val" / f"LRx{SCALE}" / name) as file:
            lr = file.convert("RGB")
        with Image.open(data / "val" / "HR" / name) as file:
            hr = file.convert("RGB")
        shown = {"bicubic": np.asarray(lr.resize(hr.size, Image.Resampling.BICUBIC))}
        batch = torch.from_numpy(np.asarray(lr).copy()).permute(2, 0, 1)[None].float() / 255
        for label, network in networks.items():
            with torch.inference_mode():
                sr = network(batch)[0].clamp(0, 1).permute(1, 2, 0) * 255
            shown[label] = sr.round().byte().numpy()
        images[Path(photo).stem] = {**shown, "HR": np.asarray(hr)}
    return images


def _scores(images: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from contrastive_sr.evaluation import psnr_y, ssim_y

    photographs = {
        name: {
            label: {"psnr": psnr_y(image, columns["HR"], SCALE), "ssim": ssim_y(image, columns["HR"], SCALE)}
            for label, image in columns.items()
            if label != "HR"
        }
        for name, columns in images.items()
    }
    labels = next(iter(photographs.values())).keys()
    mean = {
        label: {
            figure: sum(scores[label][figure] for scores in photographs.values()) / len(photographs)
            for figure in ("psnr", "ssim")
        }
        for label in labels
    }
    return {"photographs": photographs, "mean": mean}


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} x {platform.machine()}"


def _draw(
    folder: Path, images: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Any], bicubic: float, title: str
) -> None:
    from contrastive_sr.evaluation.figures import Panel, save_crops, save_curves, smoothed

    save_crops(folder / "crops.png", [(name, box, images[name]) for name, box in CROPS.items()], "HR")
    first, second = (label for label, _ in RUNS.values())
    colours = {first: 0, second: 1, "positive": 2, "negative": 5, f"{second}, unweighted": 1}
    pcl = curves[second]
    panels = [
        Panel(
            "pixel loss (L1)",
            {label: smoothed(run["pixel"], 5) for label, run in curves.items()},
            colours=colours,
            overlap=True,
        ),
        Panel("contrastive loss", {f"{second}, unweighted": pcl["contrastive"]}, colours=colours),
        Panel(
            "similarity of SR with its samples",
            {"positive": pcl["positive"], "negative": pcl["negative"]},
            colours=colours,
        ),
        Panel(
            "validation PSNR on Y, dB",
            {label: run["psnr"] for label, run in curves.items()},
            levels={"bicubic": bicubic},
            colours=colours,
            overlap=True,
        ),
    ]
    save_curves(folder / "curves.png", panels, title)


def _report(console: Console, results: Mapping[str, Any]) -> None:
    table = Table(title=f"x4 on {len(results['photographs'])} held-out photographs, Y channel, {results['device']}")
    table.add_column("")
    for column in ("PSNR, dB", "SSIM", "s / step"):
        table.add_column(column, justify="right")
    for label, figures in results["mean"].items():
        seconds = results["seconds_per_step"].get(label)
        table.add_row(
            label, f"{figures['psnr']:.2f}", f"{figures['ssim']:.4f}", "-" if seconds is None else f"{seconds:.3f}"
        )
    console.print()
    console.print(table)
    pixel, contrastive = (results["mean"][label]["psnr"] for label, _ in RUNS.values())
    console.print(verdict(pixel, contrastive, results["steps"]), soft_wrap=True)


def verdict(pixel: float, contrastive: float, steps: int) -> str:
    """One sentence on the difference between PSNR with L1 and PSNR with L1 + PCL, in dB.

    Example:
        >>> print(verdict(27.0, 27.2, 600))
        L1 + PCL against L1: +0.20 dB, one run of 600 steps each. Other seeds (--seed) show how far chance goes.
    """
    difference = round(contrastive - pixel, 2) + 0.0  # no negative zero
    return (
        f"L1 + PCL against L1: {difference:+.2f} dB, one run of {steps} steps each. "
        "Other seeds (--seed) show how far chance goes."
    )
