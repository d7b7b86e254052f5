"""`contrastive-sr configs`, `train`, and what the command line does with errors."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from contrastive_sr.cli.app import app
from contrastive_sr.cli.tables import show_table
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.flags import FLAGS, check_flags
from contrastive_sr.hosts.shipped import write_shipped

Run = Callable[..., subprocess.CompletedProcess[str]]


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------------------------------------------ configs


def test_configs_are_written_whole(tmp_path: Path, project: Path, command_line: Run) -> None:
    done = command_line("configs", "here")
    assert done.returncode == 0, done.stderr
    for name in ("plugins", "configs"):
        expected = {path: digest for path, digest in _digests(project / name).items() if "__pycache__" not in path}
        assert expected
        assert _digests(tmp_path / "here" / name) == expected
    again = command_line("configs", "here")
    assert again.returncode == 0
    assert "there already" in again.stdout


def test_configs_at_another_scale_are_named_by_it(tmp_path: Path, command_line: Run) -> None:
    for scale in ("4", "3"):
        done = command_line("configs", ".", "--scale", scale)
        assert done.returncode == 0, done.stderr
    assert "Left out: pcl_rrdb, demo_pcl_rrdb, demo_pcl_gan_rrdb. An RRDBNet enlarges by 1, 2 or 4." in done.stdout
    assert "dataroot_lq: datasets/Set5/LRbicx3" in (tmp_path / "plugins/pcl_edsr_x3.yml").read_text()
    assert 'work_dirs/edsr_x3_realsr/iter_500000.pth"' in (tmp_path / "configs/mpf_net_x3.py").read_text()
    assert command_line("configs", ".", "--scale", "5").returncode == 2


def test_configs_never_overwrite_silently(tmp_path: Path) -> None:
    written = write_shipped(tmp_path)
    mine = tmp_path / "plugins" / "pcl_edsr.yml"
    shipped = mine.read_text()
    mine.write_text("mine")
    (tmp_path / "configs" / "pcl_edsr.py").unlink()
    with pytest.raises(ConfigError, match=r"pcl_edsr\.yml differ from the shipped ones.*--force"):
        write_shipped(tmp_path)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "configs" / "pcl_edsr.py").exists()
    assert write_shipped(tmp_path, force=True) == [path for path in written if path.name in (mine.name, "pcl_edsr.py")]
    assert mine.read_text() == shipped


# -------------------------------------------------------------------------------------------------------- train


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nothing.yml", "Expected the file nothing.yml, but there is none"),
        ("nothing.py", "Expected the file nothing.py, but there is none"),
        ("config.json", "Expected a BasicSR option file (.yml, .yaml) or an MMagic config (.py), got config.json"),
    ],
)
def test_train_explains_a_config_it_cannot_use(config: str, message: str, command_line: Run) -> None:
    done = command_line("train", config)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_flag_is_named_before_the_host_is_loaded(project: Path, command_line: Run) -> None:
    done = command_line("train", project / "plugins" / "demo_pcl_edsr.yml", "--auto-resume")
    assert done.returncode == 1
    assert done.stderr.startswith("error: train: BasicSR does not know the flag '--auto-resume'. Did you mean '--auto_")


@pytest.mark.parametrize(
    ("host", "arguments", "message"),
    [
        ("MMagic", ["--auto_resume"], "MMagic does not know the flag '--auto_resume'. Did you mean '--resume'"),
        ("MMagic", ["--work-dir"], "argument --work-dir: expected one argument"),
        ("MMagic", ["--launcher", "torch"], "argument --launcher: invalid choice: 'torch'"),
        ("BasicSR", ["other.yml"], "expected one config and flags of BasicSR, got also 'other.yml'"),
    ],
)
def test_flags_of_the_hosts(host: str, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_flags(host, arguments)
    check_flags("BasicSR", ["--force_yml", "train:total_iter=10", "name=x", "--auto_resume", "--launcher=pytorch"])
    check_flags("MMagic", ["--cfg-options", "a=1", "b=2", "--resume", "--work-dir", "here", "--local-rank=0"])


@pytest.mark.basicsr
@pytest.mark.mmagic
@pytest.mark.parametrize(
    ("host", "script"), [("BasicSR", "basicsr/utils/options.py"), ("MMagic", "mmagic/.mim/tools/train.py")]
)
def test_flags_are_those_of_the_hosts_own_scripts(host: str, script: str, command_line: Run) -> None:
    found = importlib.util.find_spec(host.lower())
    assert found is not None
    assert found.origin is not None
    text = (Path(found.origin).parents[1] / script).read_text()
    own = {name for call in re.findall(r"add_argument\(([^)]*)", text) for name in re.findall(r"'(--[\w-]+)'", call)}
    assert {name for flag in FLAGS[host] for name in flag.names} == own
    helped = command_line("train", "-h").stdout
    assert all(flag.names[0] in helped for flag in FLAGS[host])


@pytest.mark.mmagic
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def unfinished(:\n", "broken.py cannot be read as an MMagic config (SyntaxError"),
        ("a = 1\n", "expected an MMagic config with `model"),
        ("model = dict(type='contrastive_sr.ContrastiveBaseEditModel', method=[])\n", "Did you mean 'methods'?"),
    ],
)
def test_a_python_file_that_is_no_config(text: str, message: str, tmp_path: Path, command_line: Run) -> None:
    (tmp_path / "broken.py").write_text(text)
    done = command_line("train", "broken.py")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_a_place_that_cannot_be_written(tmp_path: Path, command_line: Run) -> None:
    (tmp_path / "file").write_text("")
    places = [("configs", "file/below"), ("configs", "/proc/none/below"), ("prepare", "demo", "--out", "file/below")]
    for command in places:
        done = command_line(*command)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Expected a place that can be written." in done.stderr


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, contrastive_sr.cli; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(command_line: Run) -> None:
    import contrastive_sr

    assert command_line("--version").stdout.split() == ["contrastive-sr", contrastive_sr.__version__]
    command = [sys.executable, "-m", "contrastive_sr", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout == command_line("--version").stdout
    )


def test_help_of_every_command_fits_and_gives_flags_no_type() -> None:
    def look(path: list[str], command: Any) -> None:
        text = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "80"}).output
        assert "Usage:" in text
        assert "<bool>" not in text
        assert max(map(len, text.splitlines())) <= 80
        for name, below in getattr(command, "commands", {}).items():
            look([*path, name], below)

    look([], typer.main.get_command(app))


def test_completion() -> None:
    typed = {"_CONTRASTIVE_SR_COMPLETE": "complete_bash", "COMP_WORDS": "contrastive-sr ev", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("contrastive-sr")
    done = subprocess.run([script], env={**os.environ, **typed}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluate"]


def test_a_terminal_that_knows_ascii_alone() -> None:
    code = "import sys; from contrastive_sr.cli.tables import for_ascii; for_ascii(sys.stdout); print('↑ ↓ x × … é')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "^ v x x ... ?\n"
    command, environment = [sys.executable, "-m", "contrastive_sr", "train", "-h"], {**environment, "COLUMNS": "40"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "--auto_resume" in done.stdout


# ------------------------------------------------------------------------------------------------------- tables


def shown(width: int) -> str:
    table = Table("run", "PSNR", "", title="two runs")
    table.add_row("first", "[bold]28.43[/bold]", "a note")
    table.add_row("", "28.51", "")
    console = Console(width=width, file=io.StringIO(), record=True)
    show_table(console, table)
    return console.export_text()


def test_a_table_that_does_not_fit_is_a_list() -> None:
    assert "│ first │ 28.43 │ a note │" in shown(40)
    lines = [line.rstrip() for line in shown(14).splitlines()]
    assert lines == ["two runs", "run: first", "  PSNR: 28.43", "  a note", "run: first", "  PSNR: 28.51"]
