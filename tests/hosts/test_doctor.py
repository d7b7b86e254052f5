"""`contrastive-sr doctor` on a copy of the installed BasicSR."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contrastive_sr.cli.app import app, console
from contrastive_sr.errors import HostError
from contrastive_sr.hosts import doctor
from contrastive_sr.hosts.basicsr import patches

pytestmark = pytest.mark.basicsr

Run = Callable[..., subprocess.CompletedProcess[str]]


def _fingerprints(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """A folder with BasicSR as it comes from the package index, whatever was done to the installed one."""
    installed = patches.find_basicsr()
    assert installed is not None, "the host tests need BasicSR"
    root = tmp_path / "stock"
    shutil.copytree(installed / "basicsr", root / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    for patch in patches.PATCHES:
        path = root / patch.file
        for mended in patch.mended:
            path.write_text(path.read_text().replace(mended, patch.old))
    assert all(patches.patch_state(patch, root) == "needed" for patch in patches.PATCHES)
    return root


def _python(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)


def test_fix_makes_basicsr_importable_and_undo_restores_the_same_bytes(stock: Path) -> None:
    before = _fingerprints(stock)
    assert "functional_tensor" in _python("import basicsr", stock).stderr

    changes = patches.fix(stock)
    assert [(change.file, change.line) for change in changes] == [
        (stock / "basicsr/data/degradations.py", 8),
        (stock / "basicsr/train.py", 85),
    ]
    imported = _python("import basicsr.train; print(basicsr.__file__)", stock)
    assert imported.returncode == 0, imported.stderr
    assert str(stock) in imported.stdout

    assert {change.file for change in patches.undo(stock)} == {change.file for change in changes}
    assert _fingerprints(stock) == before


def test_only_the_named_lines_change(stock: Path) -> None:
    texts = {patch.file: (stock / patch.file).read_text().splitlines() for patch in patches.PATCHES}
    for change in patches.fix(stock):
        lines = texts[change.file.relative_to(stock).as_posix()]
        first = change.line - 1
        assert tuple(lines[first : first + len(change.before)]) == change.before
        lines[first : first + len(change.before)] = change.after
    for file, expected in texts.items():
        assert (stock / file).read_text().splitlines() == expected


def test_fix_and_undo_can_be_repeated(stock: Path) -> None:
    before = _fingerprints(stock)
    patches.fix(stock)
    mended = _fingerprints(stock)
    assert patches.fix(stock) == []
    assert _fingerprints(stock) == mended
    patches.undo(stock)
    assert patches.undo(stock) == []
    assert _fingerprints(stock) == before


@pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda patch: patch.name)
def test_what_an_earlier_version_or_a_user_mended_is_mended(patch: patches.Patch, stock: Path) -> None:
    assert patch.former is not None
    path = stock / patch.file
    path.write_text(path.read_text().replace(patch.old, patch.former))
    assert patches.patch_state(patch, stock) == "done"
    assert stock / patch.file not in [change.file for change in patches.fix(stock)]


def test_a_fix_that_was_interrupted_can_be_undone(stock: Path) -> None:
    before = _fingerprints(stock)
    first, second = patches.PATCHES
    original = (stock / second.file).read_bytes()
    patches.fix(stock)
    (stock / second.file).write_bytes(original)  # as if it had stopped before the second file
    assert [change.file for change in patches.fix(stock)] == [stock / second.file]
    patches.undo(stock)
    assert _fingerprints(stock) == before
    assert patches.patch_state(first, stock) == "needed"


def test_a_reinstalled_basicsr_is_left_alone_by_undo(stock: Path) -> None:
    originals = {patch.file: (stock / patch.file).read_bytes() for patch in patches.PATCHES}
    patches.fix(stock)
    for file, data in originals.items():
        (stock / file).write_bytes(data + b"# another build\n")
    assert len(patches.fix(stock)) == 2
    patches.undo(stock)
    assert all((stock / file).read_bytes() == data + b"# another build\n" for file, data in originals.items())


def test_windows_line_ends_are_kept(stock: Path) -> None:
    path = stock / patches.PATCHES[0].file
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    patches.fix(stock)
    assert path.read_bytes() == before.replace(b"functional_tensor import", b"functional import")
    patches.undo(stock)
    assert path.read_bytes() == before


def test_a_codebase_that_carries_a_part_of_basicsr(stock: Path) -> None:
    """As DAT and MambaIR do: what is missing there needs no mending."""
    missing, kept = patches.PATCHES
    (stock / missing.file).unlink()
    assert [change.file for change in patches.fix(stock)] == [stock / kept.file]
    assert patches.fix(stock) == []
    assert len(patches.undo(stock)) == 1


def test_unknown_content_is_refused_and_nothing_is_changed(stock: Path) -> None:
    path = stock / "basicsr/train.py"
    path.write_text(path.read_text().replace("device_id = torch", "my_device = torch"))
    before = _fingerprints(stock)
    with pytest.raises(HostError, match=r"with the line `device_id = .* Nothing was changed"):
        patches.fix(stock)
    assert _fingerprints(stock) == before


def test_undo_refuses_a_file_that_was_edited_since(stock: Path) -> None:
    patches.fix(stock)
    path = stock / "basicsr/train.py"
    path.write_text(path.read_text() + "# mine\n")
    before = _fingerprints(stock)
    with pytest.raises(HostError, match=r"has changed since\. Nothing was restored"):
        patches.undo(stock)
    assert _fingerprints(stock) == before


def test_a_record_of_other_files_writes_nothing(stock: Path) -> None:
    """As one that came with a download could name any file, and what is to be written there."""
    patches.fix(stock)
    victim, folder = stock.parent / "victim.py", stock / ".contrastive-sr-doctor"
    victim.write_text("mine")
    (folder / "..__victim.py.original").write_text("other")
    digests = {"original": hashlib.sha256(b"other").hexdigest(), "mended": hashlib.sha256(b"mine").hexdigest()}
    (folder / "record.json").write_text(json.dumps({"files": {"../victim.py": digests}}))
    with pytest.raises(HostError, match=r"record of earlier changes .*victim.py, which is none of the files"):
        patches.undo(stock)
    assert victim.read_text() == "mine"

    shutil.rmtree(folder)
    (stock.parent / "elsewhere").mkdir()
    folder.symlink_to(stock.parent / "elsewhere")
    with pytest.raises(HostError, match="got a link"):
        patches.undo(stock)
    assert not list((stock.parent / "elsewhere").iterdir())


def test_a_folder_that_cannot_be_written_is_named(stock: Path) -> None:
    (stock / ".contrastive-sr-doctor").write_text("a file where the record's folder has to be")
    before = _fingerprints(stock)
    with pytest.raises(HostError, match=r"Cannot write below .*stock"):
        patches.fix(stock)
    assert _fingerprints(stock) == before


def test_the_command_reports_mends_and_undoes(stock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:  # what else it looks at takes time, and is looked at below
        for name in ("_check_torch", "_check_mmagic", "_check_import"):
            patched.setattr(doctor, name, lambda *_, **__: [])
        patched.setattr(console, "_width", 400)  # so that no line is broken, however long the folder is
        broken, mended, undone = (
            CliRunner().invoke(app, ["doctor", "--basicsr", str(stock), *flag]) for flag in ([], ["--fix"], ["--undo"])
        )
    assert broken.exit_code == 1
    assert f"\nbasicsr: contrastive-sr doctor --basicsr {stock} --fix\n" in broken.stdout
    assert "torchvision 0.17 removed functional_tensor" in broken.stdout

    assert mended.exit_code == 0, mended.stdout + mended.stderr
    assert f"{stock}/basicsr/data/degradations.py:8\n" in mended.stdout
    assert "  + from torchvision.transforms.functional import rgb_to_grayscale" in mended.stdout

    assert undone.exit_code == 0
    assert "  + from torchvision.transforms.functional_tensor import rgb_to_grayscale" in undone.stdout


def test_a_basicsr_that_was_mended_in_a_way_of_its_own_is_not_called_broken(stock: Path) -> None:
    patches.fix(stock)
    path = stock / "basicsr/data/degradations.py"
    path.write_text(path.read_text().replace("functional import rgb", "v2.functional import rgb"))
    findings = doctor._check_basicsr(stock)
    assert [found.state for found in findings] == ["ok", "note", "note"]
    assert "degradations.py of BasicSR 1.3.4.9 or 1.4.2, with the line" in findings[1].detail
    path.write_text(path.read_text().replace("v2.functional import rgb", "no_functional import rgb"))
    (broken,) = doctor._check_basicsr(stock)
    assert broken.state == "broken"
    assert "no_functional" in broken.detail
    assert "with the line" in broken.detail


def test_a_folder_without_basicsr_is_an_error_without_traceback(tmp_path: Path, command_line: Run) -> None:
    done = command_line("doctor", "--basicsr", tmp_path)
    assert done.returncode == 1
    assert "Expected a folder that holds BasicSR" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_mended_trainer_trains_and_resumes_on_a_cpu(stock: Path, demo_data: Path) -> None:
    patches.fix(stock)
    option_file = stock / "tiny.yml"

    def train(steps: int, *flags: str) -> str:
        option_file.write_text(_TINY.format(data=demo_data, steps=steps))
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(stock)}
        done = subprocess.run(
            [sys.executable, "-m", "basicsr.train", "-opt", str(option_file), *flags],
            cwd=stock, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "psnr" in train(4)
    assert "Resuming training from epoch: 0, iter: 4." in train(6, "--auto_resume")
    assert (stock / "experiments/tiny/training_states/6.state").is_file()


_TINY = """
name: tiny
model_type: SRModel
scale: 4
num_gpu: 0
manual_seed: 0
datasets:
  train:
    name: demo
    type: PairedImageDataset
    dataroot_gt: {data}/train/HR
    dataroot_lq: {data}/train/LRx4
    io_backend: {{type: disk}}
    gt_size: 32
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
  val:
    name: held out
    type: PairedImageDataset
    dataroot_gt: {data}/val/HR
    dataroot_lq: {data}/val/LRx4
    io_backend: {{type: disk}}
network_g: {{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 4}}
path: {{pretrain_network_g: null, resume_state: null}}
train:
  optim_g: {{type: Adam, lr: 0.001}}
  scheduler: {{type: MultiStepLR, milestones: [5], gamma: 0.5}}
  total_iter: {steps}
  pixel_opt: {{type: L1Loss, loss_weight: 1.0, reduction: mean}}
val:
  val_freq: 4
  save_img: false
  metrics:
    psnr: {{type: calculate_psnr, crop_border: 4, test_y_channel: true}}
logger: {{print_freq: 1, save_checkpoint_freq: 2, use_tb_logger: false}}
"""
