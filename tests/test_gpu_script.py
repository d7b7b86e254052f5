"""`python -m benchmarks.gpu`, tried on the CPU: that its parts can fail, and that what was found is kept."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import frontier, gpu
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


def test_the_frontier_is_trained_and_measured(tmp_path: Path) -> None:
    from PIL import Image
    from skimage import data

    for folder, name in (("train", "astronaut"), ("test", "coffee")):
        (tmp_path / folder).mkdir()
        Image.fromarray(getattr(data, name)()[100:221, 100:230]).save(tmp_path / folder / "photo.png")
    setting = gpu.Setting("cpu", small=True, train=tmp_path / "train", test=tmp_path / "test")
    setting.steps = 1
    out = tmp_path / "gpu.json"
    assert gpu.run_parts(setting, out, 8, ["frontier"])
    found = json.loads(out.read_text())["frontier"]["found"]
    assert found["start"]["steps"] == 250
    assert list(found)[1:] == list(frontier.ARMS)
    for arm in frontier.ARMS:
        assert found[arm]["steps"] == 75
        assert abs(found[arm]["psnr_y"] - found["l1"]["psnr_y"]) < 3
        assert 0 < found[arm]["blur"] < 1
    assert len({found[arm]["psnr_y"] for arm in frontier.ARMS}) == len(frontier.ARMS)


def test_the_frontier_keeps_to_its_time(tmp_path: Path, setting: gpu.Setting) -> None:
    """One step at least, and no arm that would take too long."""
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()).save(tmp_path / "photo.png")
    setting.train = setting.test = tmp_path
    setting.end = 0.0
    found = gpu.frontier(setting)
    assert found.pop("start")["steps"] == 1
    assert set(found.values()) == {"left out, the time was up"}


def test_the_frontier_needs_images(setting: gpu.Setting, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.run_parts(setting, out, 8, ["frontier"])
    assert json.loads(out.read_text())["frontier"]["skipped"] == "no --train DIR and --test DIR of HR images"
    setting.train = setting.test = tmp_path
    assert not gpu.run_parts(setting, out, 8, ["frontier"])
    assert "DataError" in json.loads(out.read_text())["frontier"]["failed"]


def test_what_was_found_is_written_into_the_page(
    setting: gpu.Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, out = tmp_path / "gpu.md", tmp_path / "gpu.json"
    whole = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text()
    page.write_text(whole)
    gpu.run_parts(setting, out, 8, ["versions", "embedding", "frontier"])
    results = json.loads(out.read_text())
    results["cost"] = {"found": {"EDSR, L1": {"ms": 5.79155}, "EDSR, PCL": {"ms": 114.94, "kernels": 7}}}
    results["fused"] = {"failed": "AssertionError: too far"}
    out.write_text(json.dumps(results))
    monkeypatch.setattr("sys.argv", ["gpu", "--out", str(out), "--page", str(page)])
    assert gpu.main() == 0
    written = page.read_text()
    assert f"| torch | {torch.__version__} |" in written
    assert "| EDSR, L1 | 5.792 |  |\n| EDSR, PCL | 114.9 | 7 |" in written
    assert "Failed: AssertionError: too far" in written
    assert "Left out: no --train DIR and --test DIR of HR images." in written
    assert "Not run yet" in whole
    assert "Not run yet" not in written
    assert written.startswith("# On a GPU\n")
    assert written.endswith(whole[whole.index(gpu.END) :])
    out.rename(tmp_path / "elsewhere.json")
    assert gpu.main() == 2
    (tmp_path / "elsewhere.json").rename(out)
    page.write_text("# Another page")
    with pytest.raises(SystemExit, match="expected <!-- found on a GPU -->"):
        gpu.main()


def test_the_tests_for_a_gpu_are_collected(setting: gpu.Setting, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.run_parts(setting, out, 8, ["pytest"])
    result = json.loads(out.read_text())["pytest"]
    said = result.get("found") or result["skipped"]
    assert "1 skipped" in said or "passed" in said, said


@pytest.mark.parametrize(
    ("printed", "passes"),
    [
        ("..\nERROR tests/losses/test_a.py\n2 passed, 1 error in 1s", True),
        ("..\nERROR tests/losses/test_a.py::test_b - CUDA error\n2 passed, 1 error in 1s", False),
        ("..\nFAILED tests/losses/test_a.py::test_b - assert\n2 passed, 1 failed in 1s", False),
        ("3 skipped in 1s", False),
    ],
)
def test_what_pytest_prints_is_judged(
    printed: str, passes: bool, setting: gpu.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module whose packages are missing is left out; a test that ends in an error is a failure."""
    setting.on_gpu = True
    ended = subprocess.CompletedProcess([], 1, stdout=printed, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: ended)
    if passes:
        assert gpu.pytest(setting) == "2 passed, 1 error in 1s"
    else:
        with pytest.raises(AssertionError):
            gpu.pytest(setting)
