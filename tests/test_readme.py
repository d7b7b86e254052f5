"""README and docs: their Python runs, their commands exist, and the files they name are there."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.options import OptionLoader
from contrastive_sr.methods import METHODS, PCL, build_methods

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every command that README shows, without its comment."""
    lines = [
        line for block in blocks(PROJECT / "README.md", "bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line.strip()]


@pytest.mark.parametrize("code", [code for code in blocks(PROJECT / "README.md", "python") if "import torch" in code])
def test_python_of_the_readme_runs(code: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)


def test_readme_has_the_plain_loop() -> None:
    runnable = [code for code in blocks(PROJECT / "README.md", "python") if "import torch" in code]
    (loop,) = runnable
    assert "Methods([PCL()])" in loop


WITH_YAML = [page for page in PAGES if blocks(page, "yaml")]


def test_many_pages_have_yaml() -> None:
    """Or the next test would look at nothing."""
    assert len(WITH_YAML) > 10


@pytest.mark.parametrize("page", WITH_YAML, ids=lambda page: page.name)
def test_yaml_of_the_pages_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "GradientContrast", PCL)  # of docs/add_a_method.md, whose test trains with it
    for text in blocks(page, "yaml"):
        options = yaml.load(text, OptionLoader) or {}
        configs = [dict(config) for config in options.get("methods", [])]
        for config in configs:
            accepted = inspect.signature(METHODS[config["type"]]).parameters
            if "loss_share" not in config and "loss_weight" in accepted:
                config.setdefault("loss_weight", 0.0004)
            config.get("embedding", {}).pop("weights", None)
            if "vgg_weights" in config:  # pretrained ones cannot be had without a network
                config["vgg_weights"] = None
        if configs:
            build_methods(configs)
        for key in ("positives", "negatives"):
            if key in options:
                build_methods([{"type": "PCL", "loss_weight": 0.0004, key: options[key]}])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
    for path in re.findall(r"\b(?:plugins|configs)/\w+\.(?:yml|py)\b", text):
        assert (PROJECT / path).is_file(), path


def test_every_contrastive_sr_command_is_there(command_line: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    shown = {command.split()[1] for command in commands() if command.startswith("contrastive-sr ")}
    assert {"prepare", "train"} <= shown
    for name in sorted(shown):
        done = command_line(name, "--help")
        assert done.returncode == 0, done.stdout + done.stderr


# the demos' trainings, of two steps
SHORTER = {
    "plugins/demo_pcl_edsr.yml": {
        "total_iter: 60": "total_iter: 2", "val_freq: 20": "val_freq: 2", "checkpoint_freq: 20": "checkpoint_freq: 2",
        "print_freq: 5": "print_freq: 1",
    },
    "configs/_base_/demo_x4.py": {
        "max_iters=80, val_interval=40": "max_iters=2, val_interval=2", "checkpoint=dict(interval=20)":
        "checkpoint=dict(interval=2)", "logger=dict(interval=10)": "logger=dict(interval=1)",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: the shipped configs, and BasicSR beside them as in a checkout.

    The copy of BasicSR also keeps `python -m basicsr.train` from writing into the environment.
    """
    folder = tmp_path_factory.mktemp("newcomer")
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, folder / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    show(folder, "contrastive-sr configs .")
    show(folder, "contrastive-sr prepare demo")
    for file, changes in SHORTER.items():
        text = (folder / file).read_text()
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        (folder / file).write_text(text)
    return folder


def show(folder: Path, command: str) -> str:
    """What a command of the README prints, word for word as it stands there."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
    return done.stdout


def of_the_demo(config: str) -> list[str]:
    """The README's commands that use a config, in order."""
    shown = [command for command in commands() if config in command]
    assert shown, config
    return shown


@pytest.mark.slow
@pytest.mark.basicsr
def test_basicsr_commands_of_the_readme(newcomer: Path) -> None:
    ours, resume, stock = of_the_demo("plugins/demo_pcl_edsr.yml")
    assert "pcl_contrastive_share" in show(newcomer, ours)
    assert "Resuming training from epoch: 0, iter: 2." in show(newcomer, resume)
    assert "pcl_contrastive_share" in show(newcomer, stock)
    assert (newcomer / "experiments/demo_pcl_edsr/models/net_g_latest.pth").is_file()


@pytest.mark.slow
@pytest.mark.mmagic
def test_mmagic_commands_of_the_readme(newcomer: Path) -> None:
    stock, ours, resume = of_the_demo("configs/demo_pcl_edsr.py")
    (newcomer / "demo").mkdir()  # `make demo` leaves it, and MMEngine once took it for a file of metadata
    assert "pcl_contrastive_share" in show(newcomer, stock)
    assert "pcl_contrastive_share" in show(newcomer, ours)
    assert "resumed epoch: 0, iter: 2" in show(newcomer, resume)


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {command.split()[1] for command in commands() if command.startswith("make ")} <= targets
