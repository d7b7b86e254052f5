"""`contrastive-sr configs`, `train`, and what the command line does with errors."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contrastive_sr.errors import ConfigError
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


@pytest.mark.basicsr
def test_train_passes_flags_on_to_the_host(tmp_path: Path, project: Path, command_line: Run) -> None:
    config = project / "plugins" / "demo_pcl_edsr.yml"
    for part in ("train", "val"):
        for images in ("HR", "LRx4"):
            (tmp_path / "datasets" / "demo" / part / images).mkdir(parents=True)
    done = command_line("train", config, "--no-such-flag")
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-flag" in done.stderr


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
    done = command_line("configs", "file/below")
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
