"""MMagic's own trainer with the plug-in: train, validate, stop, resume, and what its files are good for."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmagic_helpers as helpers
import pytest
import torch
from full_disk import small_disk
from mmagic.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.logging import MMLogger
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import ExponentialMovingAverage, MMSeparateDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import load_checkpoint
from mmengine.runner.amp import autocast
from mmengine.runner.checkpoint import load_state_dict
from same import assert_same
from skimage import data

import contrastive_sr.hosts.mmagic  # noqa: F401
from contrastive_sr.data.files import locked
from contrastive_sr.errors import ConfigError, DataError, HostError, NonFiniteError, SaveError
from contrastive_sr.evaluation import jaggedness_excess
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.mmagic import runner

pytestmark = pytest.mark.mmagic
EMA = 'custom_hooks = [dict(type="EMAHook", momentum=0.1), dict(type="BasicVisualizationHook", interval=1)]\n'
FIGURES = {
    "loss",
    "loss_pix",
    "loss_contrastive",
    "pcl_contrastive",
    "pcl_contrastive_raw",
    "pcl_positive_similarity",
    "pcl_negative_similarity",
    "pcl_contrastive_weight",
    "pcl_contrastive_share",
    "pcl_discriminator",
}


def generator_config(name: str) -> dict[str, Any]:
    generator: dict[str, Any] = Config.fromfile(helpers.CONFIGS / f"{name}.py").model.generator.to_dict()
    return generator


def build(name: str, **changes: Any) -> Any:
    """The model of a shipped config, in this process."""
    config = Config.fromfile(helpers.CONFIGS / f"{name}.py")
    model = config.model.to_dict()
    model.update(changes)
    torch.manual_seed(0)
    return MODELS.build({"_scope_": "mmagic", **model})


def batch(size: int = 32, factor: float = 255.0) -> dict[str, Any]:
    """What a data loader gives: a list of LR images, and a list of samples that hold the HR images."""
    from mmagic.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    hr = [torch.rand(3, size, size, generator=generator) * factor for _ in range(2)]
    lr = [torch.nn.functional.avg_pool2d(image, 4) for image in hr]
    return {"inputs": lr, "data_samples": [DataSample(gt_img=image) for image in hr]}


def test_jagged_edges_in_validation(capsys: pytest.CaptureFixture[str]) -> None:
    """A photograph and a picture without edges; square pixels in place of both."""
    photo = torch.from_numpy(data.coffee()[:320, :320].copy()).permute(2, 0, 1)
    jagged = photo[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    metric = METRICS.build({"type": "contrastive_sr.Jaggedness", "scale": 4})
    for sr, hr in ((jagged, photo), (torch.zeros_like(photo), torch.zeros_like(photo))):
        metric.process([], [{"output": {"pred_img": sr}, "gt_img": hr}])
    MMLogger.get_instance("jaggedness")  # the current one, which writes to where this test looks
    metric.size = 2
    (value,) = metric.evaluate().values()
    one = jaggedness_excess(*(image.permute(1, 2, 0).numpy() for image in (jagged, photo)), 4)
    assert value == pytest.approx(one / 2)
    assert value > 0.04
    assert f"Validation: jagged edges, {value:.3f} above bicubic enlargement's" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- EDSR: train and resume


@pytest.fixture(scope="module")
def edsr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps of the demo's EDSR, small, with EMAHook; the work_dir."""
    folder = tmp_path_factory.mktemp("edsr")
    helpers.write_demo(folder)
    helpers.write_config(folder / "small.py", "demo_pcl_edsr", steps=20, save=10, more=EMA)
    mim = str(Path(sys.executable).with_name("mim"))
    helpers.run([mim, "train", "mmagic", "small.py", "--gpus", "0", "--launcher", "none"], folder)
    return folder / "work_dirs/small"


@pytest.fixture(scope="module")
def edsr_killed(edsr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed after the checkpoint of step 10, while it seems to be saving the next one; then resumed."""
    source, folder = edsr.parents[1], tmp_path_factory.mktemp("killed")
    shutil.copytree(source / "datasets", folder / "datasets")
    shutil.copy(source / "small.py", folder)
    work = folder / "work_dirs/small"
    command = [sys.executable, str(helpers.training_script()), "small.py"]
    output = (folder / "output.txt").open("w")
    process = subprocess.Popen(command, cwd=folder, env=helpers.environment(), stdout=output, stderr=output)
    while not (work / "last_checkpoint").is_file():
        assert process.poll() is None, (folder / "output.txt").read_text()[-4000:]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (work / "iter_20.pth").exists()
    # what a kill leaves behind: a note without content, and (with a plain file backend) half a checkpoint
    (work / "last_checkpoint").write_text("")
    (work / "iter_15.pth").write_bytes((work / "iter_10.pth").read_bytes()[:10_000])
    done = helpers.train(folder / "small.py", "--resume")
    assert "resumed epoch: 0, iter: 10" in done.stdout
    return work


def scalars(work: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(work.glob("*/vis_data/scalars.json")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_edsr_trains_validates_and_logs(edsr: Path) -> None:
    steps = [entry for entry in scalars(edsr) if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 21))
    for entry in steps:
        assert entry.keys() >= FIGURES
        assert entry["loss"] == pytest.approx(entry["loss_pix"] + entry["loss_contrastive"], rel=1e-4)
        assert entry["pcl_contrastive_weight"] == pytest.approx(0.1 / 255)
        assert 0 < entry["pcl_contrastive_share"] < 1
    assert steps[-1]["loss_pix"] < steps[0]["loss_pix"]
    (validated,) = [entry for entry in scalars(edsr) if "PSNR" in entry]
    assert validated["PSNR"] > 5
    assert 0 < validated["SSIM"] < 1
    # an untrained network ends in a pixel shuffle of noise
    assert validated["PATTERN"] > 0.5
    (log,) = edsr.glob("*/*.log")
    assert f"Validation: periodic dots, {validated['PATTERN']:.2f} grey levels above HR's own" in log.read_text()
    assert (edsr / "best_PSNR_iter_20.pth").is_file()
    assert list(edsr.glob("*/vis_data/events.out.tfevents.*"))
    assert list(edsr.glob("*/vis_data/vis_image/*.png"))


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(edsr: Path, edsr_killed: Path) -> None:
    whole, resumed = (torch.load(work / "iter_20.pth") for work in (edsr, edsr_killed))
    assert set(whole["optimizer"]) == {"generator", "methods"}
    for part in ("state_dict", "ema_state_dict", "contrastive_sr", "optimizer", "param_schedulers"):
        assert_same(whole[part], resumed[part], part)
    # the averaged weights are in `state_dict`, the live ones in `ema_state_dict`
    name = "generator.conv_first.weight"
    assert not torch.equal(whole["state_dict"][name], whole["ema_state_dict"][f"module.{name}"])
    histories = [checkpoint["message_hub"]["log_scalars"] for checkpoint in (whole, resumed)]
    for figure in FIGURES:
        one, other = (history[f"train/{figure}"].data[0].tolist() for history in histories)
        assert len(one) == 20, figure
        assert one == other, figure


def test_the_checkpoint_loads_strictly_in_the_stock_model(edsr: Path) -> None:
    stock = MODELS.build(
        {
            "_scope_": "mmagic",
            "type": "BaseEditModel",
            "generator": generator_config("demo_pcl_edsr"),
            "pixel_loss": {"type": "L1Loss"},
        }
    )
    before = {name: value.clone() for name, value in stock.state_dict().items()}
    checkpoint = load_checkpoint(stock, str(edsr / "iter_20.pth"), strict=True)
    assert set(checkpoint["state_dict"]) == set(before)
    for name, value in stock.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][name])
    assert any(not torch.equal(value, before[name]) for name, value in stock.state_dict().items())


def reload(value: Any) -> Any:
    """Saves and loads as MMEngine does."""
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return torch.load(stream)


def test_torch_load_stays_safe_for_everything_else() -> None:
    # the one way to get at attributes gives the four statistics that MMEngine writes, and no more
    assert reload(HistoryBuffer.min) is HistoryBuffer.min
    with pytest.raises(pickle.UnpicklingError, match="Refused to read 'statistics'"):
        reload(HistoryBuffer.statistics)
    for foreign in (print, subprocess.run, Path("somewhere")):
        with pytest.raises(pickle.UnpicklingError, match="Unsupported"):
            reload(foreign)


# --------------------------------------------------------------------------- RCAN, through our own runner and the CLI's

CODE = "open('ran', 'w')"
"""What MMEngine would run as the config in a checkpoint."""


def as_of_earlier_versions(state: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in state.items() if not key.endswith((".recent", ".pixel"))}
    assert len(kept) < len(state)
    return kept


@pytest.fixture(scope="module")
def rcan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """2 steps and, resumed, a third, with MMEngine's own checkpoint hook; the folder and what was shown.

    The checkpoint that is resumed is one of an earlier version, and holds code.
    """
    folder = tmp_path_factory.mktemp("rcan")
    helpers.write_demo(folder)
    more = 'default_hooks["checkpoint"] = dict(_delete_=True, type="CheckpointHook", interval=1, by_epoch=False)\n'
    more += 'val_evaluator = dict(metrics=[dict(type="PSNR", crop_border=4, convert_to="Y")])\n'
    helpers.write_config(folder / "small.py", "demo_pcl_rcan", steps=2, save=1, more=more)
    code = "import sys; from pathlib import Path; from contrastive_sr.hosts.mmagic.runner import train; "
    command = [sys.executable, "-c", code + "train(Path(sys.argv[1]), sys.argv[2:])", "small.py"]
    changed = ["train_cfg.max_iters=3", "optim_wrapper.generator.optimizer.lr=0.25", "param_scheduler.gamma=0.75"]
    flags: list[list[str]] = [[], ["--resume", "--cfg-options", *changed, "train_dataloader.batch_size=1"]]
    shown = []
    for flag in flags:
        shown.append(helpers.run([*command, *flag], folder).stderr)
        if not shown[1:]:
            path = folder / "work_dirs/small/iter_2.pth"
            checkpoint = torch.load(path)
            checkpoint["meta"]["config"] = CODE
            checkpoint["state_dict"] = as_of_earlier_versions(checkpoint["state_dict"])
            torch.save(checkpoint, path)
    return folder, shown


def test_our_runner_shows_progress_and_passes_flags_on(rcan: tuple[Path, list[str]]) -> None:
    folder, (first, second) = rcan
    assert "small: 50 % (1/2)" in first
    assert "small: 100 % (2/2)" in first
    assert "small: 100 % (3/3)" in second
    assert "(2/3)" not in second
    assert {path.name for path in folder.iterdir()} == {"small.py", "datasets", "work_dirs"}


def test_a_validation_that_would_not_notice_dots_says_so(rcan: tuple[Path, list[str]]) -> None:
    logs = [log.read_text() for log in rcan[0].glob("work_dirs/small/*/*.log")]
    added = 'add `dict(type="contrastive_sr.Pattern", period=scale)` and `dict(type="contrastive_sr.Jaggedness", scale='
    assert [log.count(added) for log in logs] == [1, 1]


def test_no_checkpoint_runs_code(rcan: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not (rcan[0] / "ran").exists()
    monkeypatch.chdir(tmp_path)
    Config.fromstring(CODE, ".py")
    assert (tmp_path / "ran").exists()
    for hook in ("FiniteHook", "CheckpointHook"):
        checkpoint = {"state_dict": {}, "meta": {"config": CODE, "iter": 2}}
        HOOKS.build({"type": f"contrastive_sr.{hook}"}).after_load_checkpoint(
            SimpleNamespace(_resume=False, model=torch.nn.Conv2d(1, 1, 1)), checkpoint
        )
        assert checkpoint["meta"] == {"iter": 2}


def test_resumes_with_mmengine_s_own_checkpoint_hook_too(rcan: tuple[Path, list[str]]) -> None:
    state = torch.load(rcan[0] / "work_dirs/small/iter_3.pth")["state_dict"]
    assert state["methods.step.count"] == 3


def test_a_resumed_training_says_what_is_in_force(rcan: tuple[Path, list[str]]) -> None:
    log = max((rcan[0] / "work_dirs/small").glob("*/*.log")).read_text()
    (kept,) = [line for line in log.splitlines() if "Resuming keeps the optimizers and schedules" in line]
    state = torch.load(rcan[0] / "work_dirs/small/iter_3.pth")
    lr = state["optimizer"]["generator"]["param_groups"][0]["initial_lr"]
    assert f"optim_wrapper: generator: lr {lr} is in force, not 0.25" in kept
    assert "gamma 0.5 is in force, not 0.75" in kept
    assert "load_from = " in kept
    assert "iter_2.pth" in kept
    (changed,) = [line for line in log.splitlines() if "Changed since the earlier part of this training" in line]
    listed = changed.partition("in force from step 3: ")[2].removesuffix(".").split("; ")
    assert sorted(listed) == ["train_cfg: max_iters 3, was 2", "train_dataloader: batch_size 1, was 2"]


def test_a_training_with_nothing_to_do_is_refused() -> None:
    from contrastive_sr.hosts.mmagic.hooks import ProgressHook

    loader = torch.utils.data.DataLoader(range(3), batch_size=4, drop_last=True)  # type: ignore[arg-type]
    runner = SimpleNamespace(iter=8, max_iters=7, train_dataloader=loader)
    with pytest.raises(ConfigError, match="at least the 8 steps of the checkpoint that is resumed, got 7"):
        ProgressHook().before_train(runner)
    runner.max_iters = 9
    with pytest.raises(DataError, match=r"expected images for one batch of 4, got 3 .*InfiniteSampler"):
        ProgressHook().before_train(runner)


def test_rcan_weights_load_in_basicsr_s_own_network(rcan: tuple[Path, list[str]]) -> None:
    state = torch.load(rcan[0] / "work_dirs/small/iter_3.pth")["state_dict"]
    weights = {key.removeprefix("generator."): value for key, value in state.items() if key.startswith("generator.")}
    arguments = {key: value for key, value in generator_config("demo_pcl_rcan").items() if key != "type"}
    stock = import_basicsr("basicsr.archs.rcan_arch").RCAN(num_in_ch=3, num_out_ch=3, **arguments)
    stock.load_state_dict(weights, strict=True)


# ----------------------------------------------------------------------------------------------------- GAN


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 steps with GAN and contrast, MMagic's own EMA hook; 2 of them, a stop, and 2 more. The work_dir."""
    folder = tmp_path_factory.mktemp("gan")
    helpers.write_demo(folder, size=128)
    more = (
        "model = dict(is_use_ema=True, train_cfg=dict(disc_init_steps=1))\n"
        'custom_hooks = [dict(type="ExponentialMovingAverageHook", module_keys=("generator_ema",), interval=1, '
        "interp_cfg=dict(momentum=0.1))]\n"
    )
    config = helpers.write_config(folder / "small.py", "demo_pcl_gan_rrdb", steps=4, save=2, patch=128, more=more)
    helpers.train(config)
    work = folder / "work_dirs/small"
    shutil.copytree(work, folder / "whole")
    (work / "last_checkpoint").write_text(str(work / "iter_2.pth"))
    (work / "iter_4.pth").unlink()
    helpers.train(config, "--resume")
    return folder


def test_gan_and_contrast_train_together_and_resume(gan: Path) -> None:
    whole, resumed = (torch.load(gan / work / "iter_4.pth") for work in ("whole", "work_dirs/small"))
    assert set(whole["optimizer"]) == {"generator", "discriminator", "methods"}
    assert {name.split(".")[0] for name in whole["state_dict"]} == {"generator", "generator_ema", "discriminator"}
    for part in ("state_dict", "contrastive_sr", "optimizer", "param_schedulers"):
        assert_same(whole[part], resumed[part], part)
    assert whole["contrastive_sr"]["step_counter"] == 4
    first, *others = [entry for entry in scalars(gan / "whole") if "loss_d_real" in entry]
    assert "loss_gan" not in first  # disc_init_steps: the host's own warm-up of the discriminator
    for entry in others:
        assert FIGURES - {"loss"} | {"loss_gan", "loss_d_fake"} <= entry.keys()
    live, averaged = (
        torch.cat([v.flatten() for k, v in whole["state_dict"].items() if k.startswith(f"{part}.")])
        for part in ("generator", "generator_ema")
    )
    assert not torch.equal(live, averaged)


def test_rrdb_weights_load_in_spandrel(gan: Path) -> None:
    from spandrel import ModelLoader

    state = torch.load(gan / "whole/iter_4.pth")["state_dict"]
    weights = {key.removeprefix("generator."): value for key, value in state.items() if key.startswith("generator.")}
    found = ModelLoader().load_from_state_dict(dict(weights))
    assert (found.architecture.name, found.scale) == ("ESRGAN", 4)
    stock = MODELS.build({"_scope_": "mmagic", **generator_config("demo_pcl_rrdb")})
    stock.load_state_dict(weights, strict=True)
    lr = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.model(lr), stock(lr))


# ------------------------------------------------- contrast of positions, on the generator's layers and in an embedding


@pytest.mark.parametrize(
    ("name", "method", "figures"),
    [
        ("demo_nce_edsr", "nce", {"positive_similarity"}),
        ("demo_srnce_edsr", "srnce", {"positive_similarity", "lr_similarity"}),
    ],
)
def test_position_contrast_trains(name: str, method: str, figures: set[str], tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    config = helpers.write_config(tmp_path / "small.py", name, steps=3, save=3)
    helpers.train(config)
    steps = [entry for entry in scalars(tmp_path / "work_dirs/small") if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3]
    names = {*figures, "contrast_head", "discriminator", "contrastive"}
    names |= {f"contrastive_{key}" for key in ("raw", "weight", "share")}
    for entry in steps:
        assert {key for key in entry if key.startswith(f"{method}_")} == {f"{method}_{key}" for key in names}
        assert entry["loss"] == pytest.approx(entry["loss_pix"] + entry["loss_contrastive"], rel=1e-4)
    checkpoint = torch.load(tmp_path / "work_dirs/small/iter_3.pth")
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"generator"}
    assert checkpoint["contrastive_sr"]["methods.step.count"] == 3
    assert f"methods.{method}.loss.heads.0.out.bias" in checkpoint["contrastive_sr"]
    stock = MODELS.build({"_scope_": "mmagic", **generator_config(name)})
    weights = {key.removeprefix("generator."): value for key, value in checkpoint["state_dict"].items()}
    stock.load_state_dict(weights, strict=True)


def test_heads_are_loaded_from_a_checkpoint() -> None:
    """As MMEngine does it: the model is built, and with it the heads, before the state is loaded."""
    first, second = build("demo_nce_edsr"), build("demo_nce_edsr")
    for _ in range(2):
        first.train_step(batch(), optimizers(first))
    load_state_dict(second, first.state_dict(), strict=True)
    assert second.methods.step.value == 2
    logs = [model.train_step(batch(), optimizers(model)) for model in (first, second)]
    assert_same(dict(logs[0]), dict(logs[1]))


def test_on_layers_each_step_trains_its_own_part_alone() -> None:
    model = build("demo_nce_edsr")
    for frozen in ("generator", "methods"):
        optim = optimizers(model)
        optim[frozen].optimizer.param_groups[0]["lr"] = 0.0
        before = {name: value.clone() for name, value in model.named_parameters()}
        model.train_step(batch(), optim)
        same = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
        assert {name.split(".")[0] for name in same} == {frozen}


def test_a_misspelt_layer_is_refused_when_the_model_is_built() -> None:
    methods = Config.fromfile(helpers.CONFIGS / "demo_nce_edsr.py").model.to_dict()["methods"]
    methods[0]["layers"] = ["body.1", "conv_after_bodi"]
    with pytest.raises(
        ConfigError, match=r"EDSRNet does not know the layer 'conv_after_bodi'. Did you mean 'conv_after_b"
    ):
        build("demo_nce_edsr", methods=methods)


@pytest.mark.parametrize("name", ["nce_edsr", "srnce_edsr"])
def test_full_and_demo_configs_say_the_same_of_the_contrast(name: str) -> None:
    full, demo = (Config.fromfile(helpers.CONFIGS / f"{f}.py").model for f in (name, f"demo_{name}"))
    (one,), (other,) = (model.to_dict()["methods"] for model in (full, demo))
    assert len(one.pop("layers", ())) == len(other.pop("layers", ()))  # of other depths
    assert one == other
    assert full.generator.num_blocks == 16


# ----------------------------------------------------------------------------------------------------- two processes


def test_two_processes_end_with_equal_weights(tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    more = (
        'custom_imports = dict(imports=["contrastive_sr.hosts.mmagic", "mmagic_rank_hook"])\n'
        'custom_hooks = [dict(type="SaveEveryRank")]\n'
    )
    config = helpers.write_config(tmp_path / "small.py", "demo_pcl_edsr", steps=3, save=2, more=more)
    code = "import sys; from pathlib import Path; from contrastive_sr.hosts.mmagic.runner import train\n"
    (tmp_path / "train.py").write_text(code + "train(Path(sys.argv[1]), sys.argv[2:])\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    helpers.run([*torchrun, "train.py", "small.py", "--launcher", "pytorch"], tmp_path)
    work = tmp_path / "work_dirs/small"
    logs = [log.read_text() for log in work.glob("*/*.log")]
    assert logs
    assert not any("does not measure periodic dots" in log for log in logs)
    first, second = (torch.load(work / f"rank{rank}.pth") for rank in (0, 1))
    assert any(name.startswith("methods.") for name in first)
    assert_same(first, second)
    # and the file is the same as that of one process: it resumes there
    assert not [name for name in torch.load(work / "iter_3.pth")["state_dict"] if "module" in name]
    # also where the config names weights to begin with, which were of use at its first step alone
    torch.save({"state_dict": torch.load(work / "iter_2.pth")["state_dict"]}, tmp_path / "start.pth")
    done = helpers.train(config, "--resume", "--cfg-options", "train_cfg.max_iters=4", "load_from=start.pth")
    assert "resumed epoch: 0, iter: 3" in done.stdout
    assert "unexpected key" not in done.stdout
    assert "The weights of load_from, start.pth, are those with which it began." in done.stdout


def test_names_in_the_file_are_plain_when_the_parts_are_wrapped() -> None:
    plain = build("demo_pcl_edsr")
    names = set(plain.state_dict())
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = MMSeparateDistributedDataParallel(build("demo_pcl_edsr")).module
        average = ExponentialMovingAverage(wrapped)
        assert set(wrapped.state_dict()) == names
        state = {name: value + 1 for name, value in plain.state_dict().items()}
        # the two ways in which a run is resumed: MMEngine's for the model, PyTorch's for EMAHook's copy
        load_state_dict(wrapped, state, strict=True)
        average.load_state_dict({"steps": average.steps, **{f"module.{name}": v for name, v in state.items()}})
        for model in (wrapped, average.module):
            assert_same(dict(model.state_dict()), state)
    finally:
        torch.distributed.destroy_process_group()


# ----------------------------------------------------------------------------------------------------- in this process


class Cast(OptimWrapper):  # type: ignore[misc]
    """MMEngine's autocast on a CPU; its AmpOptimWrapper, which `--amp` takes, is for GPUs only."""

    def optim_context(self, model: torch.nn.Module) -> Any:
        return autocast(dtype=torch.bfloat16)


def optimizers(model: Any, wrapper: Any = OptimWrapper, *names: str) -> OptimWrapperDict:
    parts = names or ("generator", "methods")
    made = {name: wrapper(torch.optim.Adam(getattr(model, name).parameters(), lr=1e-4)) for name in parts}
    return OptimWrapperDict(**made)


def test_autocast_keeps_everything_finite_and_near_float32() -> None:
    logs = []
    for wrapper in (OptimWrapper, Cast):
        model = build("demo_pcl_edsr")
        optim = optimizers(model, wrapper)
        logs.append([model.train_step(batch(), optim) for _ in range(3)])
    for plain, cast in zip(*logs, strict=True):
        assert cast["loss_pix"].dtype == torch.float32
        assert all(torch.isfinite(value).all() for value in cast.values())
        for key in ("loss_pix", "pcl_contrastive_raw"):
            torch.testing.assert_close(cast[key], plain[key], rtol=0.05, atol=0.0)


def test_under_autocast_the_methods_parts_learn_in_float32() -> None:
    model = build("demo_pcl_edsr")
    convolution = next(part for part in model.bare_methods.modules() if isinstance(part, torch.nn.Conv2d))
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    convolution.register_forward_hook(lambda own, _, output: seen[own.weight.requires_grad].add(output.dtype))
    model.train_step(batch(), optimizers(model, Cast))
    assert seen[True] == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="MMEngine's AmpOptimWrapper is for GPUs only")
def test_amp_flag_on_a_gpu(tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    config = helpers.write_config(tmp_path / "small.py", "demo_pcl_edsr", steps=10, save=5)
    helpers.train(config, "--amp")
    found = [entry for entry in scalars(tmp_path / "work_dirs/small") if "loss" in entry]
    assert len(found) == 10
    assert all(abs(float(entry[key])) < 1e4 for entry in found for key in FIGURES)


def test_each_step_trains_its_own_part_alone() -> None:
    model = build("demo_pcl_edsr")
    optim = optimizers(model)
    for frozen in ("methods", "generator"):
        optim[frozen].optimizer.param_groups[0]["lr"] = 0.0
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.train_step(batch(), optim)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    for trained in ("methods", "generator"):
        optim[trained].optimizer.param_groups[0]["lr"] = 1e-4
        before = {name: value.clone() for name, value in model.named_parameters()}
        model.train_step(batch(), optim)
        moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert moved == {trained}
        optim[trained].optimizer.param_groups[0]["lr"] = 0.0


def test_a_frozen_embedding_needs_one_optimizer_only() -> None:
    with pytest.warns(UserWarning, match="random"):
        model = build("demo_pcl_edsr", methods=[{"type": "PCL", "loss_weight": 0.0004, "train_embedding": False}])
    optim = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-4))
    log = model.train_step(batch(), optim)
    assert FIGURES - {"pcl_discriminator"} == set(log)
    # the same through the dictionary of optimizers
    assert set(model.train_step(batch(), optimizers(model, OptimWrapper, "generator"))) == set(log)


def test_a_trained_embedding_is_taken_from_the_checkpoint_of_another_run(edsr: Path) -> None:
    """PCL-F."""
    embedding = {"type": "HaarDiscriminator", "weights": str(edsr / "iter_20.pth")}
    method = {"type": "PCL", "every": 1, "loss_share": 0.05, "train_embedding": False, "embedding": embedding}
    model = build("demo_pcl_edsr", methods=[method])
    saved = torch.load(edsr / "iter_20.pth")["contrastive_sr"]
    for name, value in model.methods["pcl"].embedding.state_dict().items():
        assert torch.equal(value, saved[f"methods.pcl.loss.embedding.{name}"])
    log = model.train_step(batch(), OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-4)))
    assert log["pcl_contrastive_share"].item() == pytest.approx(0.05)


def test_missing_optimizer_is_named() -> None:
    model = build("demo_pcl_edsr")
    with pytest.raises(ConfigError, match=r"none was given for \['methods'\].*MultiOptimWrapperConstructor"):
        model.train_step(batch(), optimizers(model, OptimWrapper, "generator"))
    with pytest.raises(ConfigError, match=r"one optimizer for everything cannot be used.*MMSeparateDistributed"):
        model.train_step(batch(), OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-4)))


def test_values_outside_the_range_name_the_setting() -> None:
    scaling = {"type": "DataPreprocessor", "mean": [127.5] * 3, "std": [127.5] * 3}
    model = build("demo_pcl_edsr", data_preprocessor=scaling)
    with pytest.raises(DataError, match=r"in \[0, 1\].*std=\[255"):
        model.train_step(batch(), optimizers(model))


def test_a_term_that_is_not_finite_is_named() -> None:
    model = build("demo_pcl_edsr")
    optim = optimizers(model)
    model.train_step(batch(), optim)
    with torch.no_grad():
        next(model.generator.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="mean of the SR network's output at SR step 2"):
        model.train_step(batch(), optim)


def test_misspelt_key_ends_the_host_s_command_with_one_clear_error(tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    more = 'model = dict(methods=[dict(type="PCL", loss_weight=0.0004, temprature=1.0)])\n'
    config = helpers.write_config(tmp_path / "small.py", "demo_pcl_edsr", steps=2, save=2, more=more)
    done = helpers.train(config, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("contrastive_sr.errors.ConfigError")
    assert "temprature" in last
    assert "temperature" in last


def test_a_file_that_is_written_anew_stays_whole_until_the_end(edsr: Path, tmp_path: Path) -> None:
    path = tmp_path / "iter_1.pth"
    backend = get_file_backend(backend_args={"backend": "contrastive_sr_atomic"})
    backend.put(b"whole", path)
    with pytest.raises(TypeError):
        backend.put("text, which fails after the file was opened", path)  # type: ignore[arg-type]
    assert path.read_bytes() == b"whole"
    config = Config.fromfile(edsr / "small.py")
    hook = HOOKS.build({"_scope_": "mmagic", **config.default_hooks.checkpoint.to_dict()})
    hook.before_run(SimpleNamespace(_resume=False))
    assert hook.backend_args == {"backend": "contrastive_sr_atomic"}


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "iter_1.pth"
    backend = get_file_backend(backend_args={"backend": "contrastive_sr_atomic"})
    backend.put(b"whole", path)
    with small_disk(4096), pytest.raises(SaveError, match=r"iter_1\.pth could not be written.* MiB are free"):
        backend.put(bytes(10_000), path)
    assert path.read_bytes() == b"whole"
    assert [other.name for other in tmp_path.iterdir()] == ["iter_1.pth"]


def chosen(folder: Path, load_from: str | None = None) -> tuple[str | None, list[str]]:
    """The checkpoint that `--resume` takes, and what is warned of."""
    hook = HOOKS.build({"type": "contrastive_sr.CheckpointHook", "interval": 1, "by_epoch": False})
    warned: list[str] = []
    logger = SimpleNamespace(warning=warned.append, info=lambda text: None)
    runner = SimpleNamespace(_resume=True, _load_from=load_from, work_dir=str(folder), logger=logger)
    hook.before_run(runner)
    return runner._load_from and Path(runner._load_from).name, warned


def test_resume_takes_the_newest_whole_checkpoint_by_its_step(tmp_path: Path) -> None:
    for step in (30, 4, 5, 6):  # those of later steps are older by the clock
        torch.save({"state_dict": {"weight": torch.ones(3)}}, tmp_path / f"iter_{step}.pth")
    assert chosen(tmp_path) == chosen(tmp_path, "start.pth") == ("iter_30.pth", [])
    assert chosen(tmp_path, str(tmp_path / "iter_5.pth")) == ("iter_5.pth", [])
    (tmp_path / "new").mkdir()
    assert chosen(tmp_path / "new", "start.pth") == ("start.pth", [])
    torch.save({"state_dict": {"weight": torch.tensor(torch.nan)}}, tmp_path / "iter_30.pth")
    (tmp_path / "iter_6.pth").write_bytes((tmp_path / "iter_6.pth").read_bytes()[:-100])
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_30.pth"))
    name, warned = chosen(tmp_path)
    assert name == "iter_5.pth"
    assert [text.partition(":")[0] for text in warned] == ["iter_30.pth is passed over", "iter_6.pth is passed over"]
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"expected a whole checkpoint in .*, got damaged ones alone"):
        chosen(tmp_path)


def test_a_checkpoint_of_an_earlier_version_is_resumed() -> None:
    hook = HOOKS.build({"type": "contrastive_sr.CheckpointHook"})
    model = build("demo_pcl_edsr")
    state = as_of_earlier_versions(model.state_dict())
    hook.after_load_checkpoint(SimpleNamespace(_resume=True, model=model), {"state_dict": state})
    unfit = next(key for key in state if model.is_own_state(key))
    for wrong in ({key: value for key, value in state.items() if key != unfit}, {**state, unfit: torch.zeros(7, 7)}):
        with pytest.raises(ConfigError, match=rf"1 of \d+ parts of the methods' state .* such as {unfit}"):
            hook.after_load_checkpoint(SimpleNamespace(_resume=True, model=model), {"state_dict": wrong})


def test_what_is_resumed_is_finite_whoever_chose_it() -> None:
    hook = HOOKS.build({"type": "contrastive_sr.FiniteHook"})
    checkpoint = {"state_dict": {"bn": torch.tensor(torch.nan)}}
    hook.after_load_checkpoint(SimpleNamespace(_resume=False), checkpoint)
    with pytest.raises(NonFiniteError, match=r"checkpoint to resume from: expected finite numbers in state_dict\.bn"):
        hook.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)


def test_a_record_of_a_checkpoint_leads_nowhere_else(tmp_path: Path) -> None:
    work, victim = tmp_path / "work", tmp_path / "victim.pth"
    work.mkdir()
    victim.write_text("mine")
    (work / "last_checkpoint").write_text(str(victim))
    with pytest.raises(DataError, match=r"expected .*last_checkpoint to name a checkpoint in .*, got .*victim.pth"):
        chosen(work)

    for save_best in ("PSNR", ["PSNR", "SSIM"]):
        config = {"type": "contrastive_sr.CheckpointHook", "interval": 1, "save_best": save_best, "rule": "greater"}
        hook = HOOKS.build({**config, "max_keep_ckpts": 2, "by_epoch": False})
        info = {"best_ckpt": str(victim), "best_ckpt_PSNR": str(victim), "best_ckpt_SSIM": str(work / "best.pth")}
        info["keep_ckpt_ids"] = [1, "x/../../victim", 3, 4]
        hub = SimpleNamespace(runtime_info=info, get_info=info.get, update_info=info.__setitem__)
        logger = SimpleNamespace(info=lambda text: None)
        hook.before_train(SimpleNamespace(work_dir=str(work), message_hub=hub, logger=logger))
        if save_best == "PSNR":
            assert hook.best_ckpt_path is None
        else:
            assert hook.best_ckpt_path_dict == {"PSNR": None, "SSIM": str(work / "best.pth")}
        assert list(hook.keep_ckpt_ids) == [3, 4]
    assert victim.read_text() == "mine"


def test_nan_is_named_and_not_saved() -> None:
    hook = HOOKS.build({"type": "contrastive_sr.FiniteHook"})
    values = {"train/loss": HistoryBuffer([0.5, float("nan")], [1, 1])}
    runner = SimpleNamespace(
        iter=6,
        model=torch.nn.Conv2d(1, 1, 1),
        optim_wrapper=OptimWrapper(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)),
        message_hub=SimpleNamespace(log_scalars=values),
    )
    hook.before_train(runner)
    with pytest.raises(NonFiniteError, match=r"loss at step 7: expected a finite number, got nan"):
        hook.after_train_iter(runner, 6, outputs={"loss": torch.tensor(torch.nan)})
    for name in ("state_dict", "ema_state_dict"):
        with pytest.raises(NonFiniteError, match=rf"checkpoint of step 7: expected finite numbers in {name}\.bn"):
            hook.before_save_checkpoint(runner, {"state_dict": {}, name: {"bn": torch.tensor(torch.inf)}})


def test_a_second_training_in_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = helpers.write_config(tmp_path / "small.py", "demo_pcl_edsr", steps=2, save=2)
    (tmp_path / "work_dirs/small").mkdir(parents=True)
    with locked(tmp_path / "work_dirs/small/.lock"), pytest.raises(HostError, match="Another training is writing into"):
        runner.train(config, [])
    assert [path.name for path in (tmp_path / "work_dirs/small").iterdir()] == []


def test_checkpoint_hook_refuses_to_keep_one_file() -> None:
    hook = HOOKS.build({"type": "contrastive_sr.CheckpointHook", "interval": 1, "max_keep_ckpts": 1})
    with pytest.raises(ConfigError, match="at least 2"):
        hook.before_run(None)


# ----------------------------------------------------------------------------------------------------- the host itself


def test_nothing_is_left_of_the_stand_in_for_compiled_operators() -> None:
    from mmcv.ops.info import get_compiler_version

    if importlib.util.find_spec("mmcv._ext") is not None:
        pytest.skip("the full mmcv is installed")
    assert "mmcv._ext" not in sys.modules
    with pytest.raises(HostError, match="get_compiler_version of the full mmcv"):
        get_compiler_version()


def test_missing_host_is_named_with_the_command_that_mends_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mmagic'] = None; import contrastive_sr.hosts.mmagic"
    done = helpers.run([sys.executable, "-c", code], tmp_path, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("contrastive_sr.errors.HostError: Training with MMagic needs mmagic")
    assert "Try: pip install" in last
    assert '"contrastive-sr[mmagic]"' in last


@pytest.mark.parametrize(
    ("name", "millions"),
    [("pcl_edsr", 1.52), ("pcl_edsr_l", 43.1), ("pcl_rcan", 15.6), ("pcl_rrdb", 16.7), ("pcl_swinir_light", 0.930)],
)
def test_full_configs_hold_the_papers_networks(name: str, millions: float, tmp_path: Path) -> None:
    shutil.copytree(helpers.CONFIGS, tmp_path / "configs")  # as `contrastive-sr configs` writes them
    config = Config.fromfile(tmp_path / "configs" / f"{name}.py")
    network = MODELS.build({"_scope_": "mmagic", **config.model.generator.to_dict()})
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    (method,) = config.model.methods
    assert (method["loss_weight"], method["temperature"]) == (0.1 / 255, 1.0)
    assert config.train_dataloader.batch_size == 16
    assert {"type": "PairedRandomCrop", "gt_patch_size": 192} in config.train_dataloader.dataset.pipeline


# ----------------------------------------------------------------------------------------------------- data


def dataset(folder: Path, **changes: Any) -> Any:
    prefixes = {"img": "LRx4", "gt": "HR"}
    arguments = {"data_root": str(folder), "data_prefix": prefixes, "filename_tmpl": {}, "scale": 4, **changes}
    return DATASETS.build({"_scope_": "mmagic", "type": "contrastive_sr.PairedImageDataset", **arguments})


def test_dataset_lists_pairs(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 3)
    found = dataset(tmp_path)
    assert [(Path(found[i]["gt_path"]).name, Path(found[i]["img_path"]).name) for i in range(3)] == [
        (f"{i}.png", f"{i}.png") for i in range(3)
    ]
    (tmp_path / "list.txt").write_text("1.png (48,48,3)\n")
    assert len(dataset(tmp_path, ann_file="list.txt")) == 1


def test_dataset_finds_names_made_from_a_template(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 2)
    for path in (tmp_path / "LRx4").iterdir():
        path.rename(path.with_name(f"{path.stem}x4.png"))
    assert len(dataset(tmp_path, filename_tmpl={"img": "{}x4", "gt": "{}"})) == 2
    with pytest.raises(DataError, match=r"HR without LR: 0\.png, 1\.png\. LR without HR: 0x4\.png, 1x4\.png"):
        dataset(tmp_path)


def test_dataset_refuses_bad_folders(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 3)
    with pytest.raises(DataError, match=r"Expected a folder of images at .*nowhere"):
        dataset(tmp_path, data_prefix={"img": "nowhere", "gt": "HR"})
    with pytest.raises(DataError, match="HR exactly 2 times"):
        dataset(tmp_path, scale=2)
    (tmp_path / "LRx4/2.png").unlink()
    with pytest.raises(DataError, match=r"got 3 HR images .* 2 LR images .*HR without LR: 2\.png"):
        dataset(tmp_path)
    with pytest.raises(ConfigError, match="data_prefix"):
        dataset(tmp_path, data_prefix={"img": "LRx4"})
    with pytest.raises(TypeError, match="scael"):
        dataset(tmp_path, scael=4)
