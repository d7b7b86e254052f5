"""A method in a file of one's own: the one of docs/add_a_method.md, trained by both hosts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contrastive_sr.cli.imports import import_files
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods import METHODS, Method, register_method
from tests.hosts.basicsr_options import PROJECT, write_options

Run = Callable[..., subprocess.CompletedProcess[str]]
FILE = PROJECT / "docs/gradient_contrast.py"
METHOD = {"type": "GradientContrast", "loss_share": 0.05}


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.basicsr
def test_basicsr_trains_with_it(command_line: Run, tmp_path: Path, demo_data: Path) -> None:
    changes = {
        "methods": [METHOD],
        "train:total_iter": 3,
        "val": None,
        "datasets:val": None,
        "logger:print_freq": 1,
        "logger:use_tb_logger": False,
    }
    options = write_options(tmp_path, "demo_pcl_edsr", demo_data, changes)
    printed = succeed(command_line("train", options, "--import", FILE))
    assert "gradient_contrastive_share" in printed
    assert (tmp_path / "experiments/demo_pcl_edsr/models/net_g_latest.pth").is_file()

    refused = command_line("train", options)
    assert refused.returncode == 1
    assert "does not know the type 'GradientContrast'" in refused.stderr


@pytest.mark.mmagic
def test_mmagic_trains_with_it(command_line: Run, tmp_path: Path, demo_data: Path) -> None:
    shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/demo").symlink_to(demo_data)
    (tmp_path / "my_config.py").write_text(
        f"""_base_ = ["configs/demo_pcl_edsr.py"]
model = dict(methods=[{METHOD}])
train_cfg = dict(max_iters=3, val_interval=100)
default_hooks = dict(logger=dict(interval=1))
"""
    )
    printed = succeed(command_line("train", "my_config.py", "--import", FILE))
    assert "gradient_contrastive_share" in printed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "--import: expected an existing Python file (.py), got missing.py."),
        ("method.txt", "", "--import: expected an existing Python file (.py), got method.txt."),
        ("torch.py", "", "--import: there is a module torch already. Give torch.py another name."),
        ("broken.py", "\nimport nowhere_at_all\n", "--import: broken.py, line 2: ModuleNotFoundError: No module named"),
        ("exits.py", "import sys\n\nsys.exit(0)\n", "--import: exits.py, line 3: SystemExit: 0"),
        ("syntax.py", "def (:\n", "--import: syntax.py: SyntaxError"),
        (
            "taken.py",
            "from contrastive_sr.methods import Method, register_method\n@register_method\nclass PCL(Method): pass\n",
            "register_method: the name PCL is taken by contrastive_sr.methods.pcl. Rename yours.",
        ),
    ],
)
def test_files_that_cannot_be_imported(
    name: str, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.modules", dict(sys.modules))
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_files([Path(name)])
    assert message in str(caught.value)


def test_only_methods_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"expected a subclass of contrastive_sr\.methods\.Method, got"):
        register_method(dict)  # type: ignore[type-var]
    monkeypatch.setitem(METHODS, "Mine", None)  # type: ignore[arg-type] # to be removed afterwards
    monkeypatch.delitem(METHODS, "Mine")

    @register_method
    class Mine(Method):
        pass

    assert METHODS["Mine"] is Mine
    assert register_method(Mine) is Mine  # a file that is run twice
