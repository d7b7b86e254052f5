"""The wheel: built, installed into an empty environment, and used there without any host."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from email import message_from_string
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HOSTS = ("basicsr", "mmagic", "mmengine", "mmcv", "rich", "typer", "yaml", "PIL", "matplotlib", "skimage")


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _link_needed(wheel: Path, site: Path, *more: str, extras: Sequence[str] = ()) -> None:
    """Link what the wheel declares, and what that needs, into an environment; gigabytes take long to install.

    Args:
        wheel: ours.
        site: where the environment has its packages.
        more: names of packages to link without what they need.
        extras: of the wheel.
    """
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    ours = message_from_string(text).get_all("Requires-Dist", [])
    pending = [(requirement, extra) for requirement in ours for extra in ("", *extras)]
    seen = set()
    while pending:
        requirement, extra = pending.pop()
        needed = Requirement(requirement)
        if (requirement, extra) in seen or (needed.marker and not needed.marker.evaluate({"extra": extra})):
            continue
        seen.add((requirement, extra))
        if needed.name == "contrastive-sr":
            pending += [(each, own) for each in ours for own in needed.extras]
            continue
        package = distribution(needed.name)
        pending += [(each, own) for each in package.requires or [] for own in ("", *needed.extras)]
        _link(package, site)
    for name in more:
        _link(distribution(name), site)


def _link(package: Distribution, site: Path) -> None:
    for top in {Path(file.parts[0]) for file in package.files or []} - {Path(".."), Path("__pycache__")}:
        if not (site / top).exists():
            (site / top).symlink_to(package.locate_file(top))


def _environment(wheel: Path, folder: Path, with_pip: bool = False) -> tuple[Path, Path]:
    """A fresh one with the wheel alone: its commands, and where it has its packages."""
    venv.create(folder / "venv", with_pip=with_pip)
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv/bin/python"]
    _run(*pip, "install", "-q", "--no-deps", wheel, cwd=folder)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    return folder / "venv/bin", site


def test_the_wheel_carries_all_and_no_more(wheel: Path, project: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    for folder in ("plugins", "configs"):
        files = [path for path in (project / folder).rglob("*") if path.suffix in (".yml", ".py")]
        assert files
        for path in files:
            assert f"contrastive_sr/_shipped/{path.relative_to(project).as_posix()}" in names
    for python in ("3.10", "3.11", "3.12", "3.13"):
        assert f"contrastive_sr/_shipped/constraints/py{python}.txt" in names
    assert "contrastive_sr/py.typed" in names
    assert "contrastive_sr/evaluation/report.html.jinja" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"contrastive_sr"}
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_installed_alone_it_works(wheel: Path, tmp_path: Path, project: Path) -> None:
    """With its declared dependencies only: a missing one, or a host that is imported by mistake, shows here."""
    binaries, site = _environment(wheel, tmp_path, with_pip=True)
    python = binaries / "python"
    _link_needed(wheel, site)

    code = (
        "import torch, contrastive_sr.losses, contrastive_sr.methods\n"
        "from contrastive_sr.methods import build_methods\n"
        "methods = build_methods([dict(type='PCL', loss_weight=1.0)])\n"
        "net = torch.nn.Upsample(scale_factor=4)\n"
        "lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), net)\n"
        "methods.attach(net)\n"
        "batch = methods.run(net, dict(lr=lr, hr=hr))\n"
        "print(float(methods.sr_losses(batch, None).loss.detach()) > 0)"
    )
    assert _run(python, "-c", code, cwd=tmp_path).strip() == "True"

    _run(binaries / "contrastive-sr", "configs", ".", cwd=tmp_path)
    for folder in ("plugins", "configs"):
        shipped = sorted(path.name for path in (project / folder).iterdir() if path.suffix in (".yml", ".py"))
        assert sorted(path.name for path in (tmp_path / folder).iterdir() if path.is_file()) == shipped

    def refused(*arguments: str) -> str:
        done = subprocess.run(
            [str(binaries / "contrastive-sr"), *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    hint = refused("prepare", "demo").rpartition("Try: ")[2]
    assert "contrastive-sr[demo]" in hint
    # typed as it stands, without a wheel at hand and without an index that has the package
    done = subprocess.run(
        ["bash", "-c", hint.replace("pip install", "pip install --dry-run --no-index", 1)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert "Requirement already satisfied: contrastive-sr[demo]" in done.stdout, done.stdout + done.stderr
    assert "No matching distribution found for contrastive-sr" not in done.stderr
    assert "contrastive-sr[basicsr,demo]" in refused("demo")
    assert "contrastive-sr[basicsr]" in refused("train", "plugins/demo_pcl_edsr.yml")
    assert "contrastive-sr[mmagic]" in refused("train", "configs/demo_pcl_edsr.py")
    assert "not installed" in _run(binaries / "contrastive-sr", "doctor", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("host", "beside", "config", "shorter"),
    [
        pytest.param(
            "basicsr",
            ["basicsr"],
            "plugins/demo_pcl_edsr.yml",
            ["--force_yml", "train:total_iter=2", "val:val_freq=2"],
            marks=pytest.mark.basicsr,
        ),
        pytest.param(
            "mmagic",
            [],
            "configs/demo_pcl_edsr.py",
            ["--cfg-options", "train_cfg.max_iters=2", "train_cfg.val_interval=2"],
            marks=pytest.mark.mmagic,
        ),
    ],
    ids=["basicsr", "mmagic"],
)
def test_installed_with_a_host_it_trains(
    host: str, beside: list[str], config: str, shorter: list[str], wheel: Path, tmp_path: Path
) -> None:
    """With what the extra declares and nothing else; `make test-pythons` installs the same from the index."""
    binaries, site = _environment(wheel, tmp_path)
    _link_needed(wheel, site, *beside, extras=[host, "demo"])
    command = binaries / "contrastive-sr"
    _run(command, "configs", ".", cwd=tmp_path)
    _run(command, "prepare", "demo", cwd=tmp_path)
    _run(command, "train", config, *shorter, cwd=tmp_path)
    assert [*tmp_path.rglob("net_g_latest.pth"), *tmp_path.rglob("iter_2.pth")], "no checkpoint"


def test_importing_pulls_in_no_host() -> None:
    modules = "functional", "losses", "embeddings", "samples", "degradations", "networks", "methods", "evaluation"
    imports = ", ".join(["contrastive_sr", *(f"contrastive_sr.{module}" for module in modules)])
    code = f"import sys, {imports}; print([name for name in {HOSTS!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
