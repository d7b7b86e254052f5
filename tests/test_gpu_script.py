"""`python -m benchmarks.gpu`, tried on the CPU: that its parts can fail, and that what was found is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from contrastive_sr.methods import Methods


@pytest.fixture
def setting() -> gpu.Setting:
    return gpu.Setting("cpu", small=True)


def test_parts_are_written_one_after_the_other(setting: gpu.Setting, tmp_path: Path) -> None:
    names = ["versions", "nan_is_found", "no_stalls", "embedding"]
    assert gpu.run_parts(setting, tmp_path / "new" / "gpu.json", 8, names)
    written = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert list(written) == names
    assert written["versions"]["found"]["torch"] == torch.__version__
    assert "nan" in written["nan_is_found"]["found"]


def test_every_method_equals_itself_in_float64(setting: gpu.Setting) -> None:
    found = gpu.equals_cpu(setting)
    assert len(found) == 2 * len(gpu.WITHOUT_DRAWS)
    assert all(distance == 0 for name, distance in found.items() if "float64" in name)
    assert all(0 < distance < 2e-3 for name, distance in found.items() if "float32" in name)


def test_a_part_that_fails_is_written_and_the_next_goes_on(
    setting: gpu.Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def blind(self: Methods, *args: Any) -> None:
        """Looks at no value."""

    monkeypatch.setattr(Methods, "_watch", blind)
    assert not gpu.run_parts(setting, tmp_path / "gpu.json", 8, ["nan_is_found", "versions"])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["nan_is_found"]["failed"].startswith("AssertionError: two steps with a network of NaN")
    assert "found" in written["versions"]
    assert "nan_is_found: AssertionError" in capsys.readouterr().out


def test_when_the_time_is_up_parts_are_left_out(setting: gpu.Setting, tmp_path: Path) -> None:
    assert gpu.run_parts(setting, tmp_path / "gpu.json", -1, ["versions"])
    assert "minutes were up" in json.loads((tmp_path / "gpu.json").read_text())["versions"]["skipped"]


@pytest.mark.parametrize("kind", ["EDSR", "RCAN", "RRDB"])
def test_networks_are_of_the_papers_sizes(kind: str, setting: gpu.Setting) -> None:
    """The numbers of parameters in the table of docs/mpf_net.md."""
    with torch.device("meta"):
        net = gpu.Setting("cpu", small=False).network(kind)
        assert net(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert round(millions, 2) == {"EDSR": 1.52, "RCAN": 15.59, "RRDB": 16.70}[kind]
