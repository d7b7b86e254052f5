"""MPF-Net in MMagic's own trainer: both phases, a teacher from a checkpoint, resuming, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import pytest
import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from same import assert_same

import contrastive_sr.hosts.mmagic  # noqa: F401
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.mmagic import registry, runner
from contrastive_sr.networks import MPFNet

pytestmark = pytest.mark.mmagic

NAME = "demo_mpf_net_x4"
EDSR = {
    "type": "EDSRNet",
    "in_channels": 3,
    "out_channels": 3,
    "mid_channels": 4,
    "num_blocks": 1,
    "upscale_factor": 4,
}
SMALL = """
methods = _base_.methods
methods[0]["warmup_steps"] = 1
methods[0]["embedding"]["out_indices"] = [0]
methods[0]["teacher"] = {teacher}
model = dict(methods=methods, generator=dict(channels=4, blocks=1))
param_scheduler = dict(T_max=4)
log_processor = dict(window_size=1)
"""


def save_teacher(path: Path, **changes: Any) -> dict[str, Any]:
    """A stock EDSR and the file of its weights, as MMagic saves them."""
    torch.manual_seed(3)
    network = MODELS.build({"_scope_": "mmagic", **EDSR, **changes})
    state = {f"generator_ema.{name}": value for name, value in network.state_dict().items()}
    other = {f"generator.{name}": torch.zeros_like(value) for name, value in network.state_dict().items()}
    torch.save({"meta": {"iter": 1}, "state_dict": {**other, **state}}, path)
    return {"network": {**EDSR, **changes}, "weights": str(path)}


def write_config(folder: Path, teacher: object = None) -> Path:
    template = helpers.SMALL.replace("param_scheduler = dict(milestones=[{save}])\n", "")
    more = SMALL.format(teacher=repr(teacher))
    return helpers.write_config(folder / "small.py", NAME, steps=3, save=2, more=more, template=template)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps by MMagic's own script, kept in `whole`, and again the last of them."""
    folder = tmp_path_factory.mktemp("mpf")
    helpers.write_demo(folder)
    config = write_config(folder, save_teacher(folder / "teacher.pth"))
    helpers.train(config)
    work = folder / "work_dirs/small"
    shutil.copytree(work, folder / "whole")
    (work / "last_checkpoint").write_text(str(work / "iter_2.pth"))
    (work / "iter_3.pth").unlink()
    done = helpers.train(config, "--resume")
    assert "resumed epoch: 0, iter: 2" in done.stdout
    return folder


def test_three_steps_equal_two_and_one(trained: Path) -> None:
    whole, resumed = (torch.load(trained / work / "iter_3.pth") for work in ("whole", "work_dirs/small"))
    for part in ("state_dict", "contrastive_sr", "optimizer", "param_schedulers"):
        assert_same(whole[part], resumed[part], part)
    assert whole["contrastive_sr"]["methods.step.count"] == 3
    state = {key.removeprefix("generator."): value for key, value in whole["state_dict"].items()}
    MPFNet(channels=4, blocks=1).load_state_dict(state, strict=True)  # and no teacher


def test_the_phases_and_the_log(trained: Path) -> None:
    (scalars,) = (trained / "whole").glob("*/vis_data/scalars.json")
    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3]
    for entry in steps:
        assert entry["loss"] == pytest.approx(entry["loss_pix"] + entry["loss_contrastive"], rel=1e-4)
    assert [entry["mpf_contrastive_weight"] for entry in steps] == [0, 1, 1]
    assert [entry["mpf_contrastive_raw"] > 0 for entry in steps] == [False, True, True]
    assert ["mpf_discriminator" in entry for entry in steps] == [False, True, True]
    assert [entry for entry in entries if "PSNR" in entry]


# ----------------------------------------------------------------------------------------------------- in this process


def build(generator: dict[str, Any] | None = None, **changes: Any) -> Any:
    """The model of the demo, of a small network, in this process."""
    config: dict[str, Any] = Config.fromfile(helpers.CONFIGS / f"{NAME}.py").model.to_dict()
    config["generator"].update(channels=4, blocks=1)
    (method,) = config["methods"]
    small = {"warmup_steps": 0, "embedding": {"type": "SNResNet18", "out_indices": [0]}, **changes}
    config["methods"] = [{**method, **small}]
    if generator is not None:
        config["generator"] = generator
    registry.use_names()  # another test of this process may have loaded BasicSR
    torch.manual_seed(0)
    return MODELS.build({"_scope_": "mmagic", **config})


def batch() -> dict[str, Any]:
    """What a data loader gives."""
    hr = list(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255)
    return {"inputs": [image[:, ::4, ::4] for image in hr], "data_samples": [DataSample(gt_img=image) for image in hr]}


def optimizers(model: Any) -> OptimWrapperDict:
    parts = ("generator", "methods")
    return OptimWrapperDict(
        **{name: OptimWrapper(torch.optim.Adam(getattr(model, name).parameters(), lr=1e-3)) for name in parts}
    )


@pytest.mark.parametrize("variant", [3, 4, 5, 6])
def test_stock_edsr_under_rows_of_table_vii(variant: int, tmp_path: Path) -> None:
    model = build(dict(EDSR), variant=variant, teacher=save_teacher(tmp_path / "teacher.pth"))
    log = model.train_step(batch(), optimizers(model))
    assert log["mpf_contrastive"] > 0
    assert log["mpf_discriminator"] > 0
    assert not [name for name in model.state_dict() if "teacher" in name]


def test_row_1_trains_nothing_of_its_own() -> None:
    model = build(variant=1, embedding=None)
    log = model.train_step(batch(), OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-4)))
    assert log["loss_contrastive"] == 0
    assert log["loss"] == log["loss_pix"] > 0


def test_row_1_trains_with_the_optimizers_of_the_config() -> None:
    model = build(variant=1, embedding=None)
    made = build_optim_wrapper(model, Config.fromfile(helpers.CONFIGS / f"{NAME}.py").optim_wrapper)
    assert list(made.keys()) == ["generator"]
    assert model.train_step(batch(), made)["loss_contrastive"] == 0


def test_a_teacher_of_another_scale_is_refused_at_the_first_batch(tmp_path: Path) -> None:
    model = build(warmup_steps=100, teacher=save_teacher(tmp_path / "teacher.pth", upscale_factor=2))
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    with pytest.raises(DataError, match=r"from the teacher, EDSRNet, got .* Is it of another scale"):
        model.train_step(batch(), optimizers(model))
    assert_same(before, dict(model.generator.state_dict()))


def test_a_teacher_that_cannot_be_had_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    teacher = save_teacher(tmp_path / "teacher.pth")
    for wrong, message in (
        ({**teacher, "weights": "nowhere.pth"}, "expected an existing file, got nowhere.pth"),
        ({"network": EDSR}, "expected the file of a trained network, got none"),
        ({**teacher, "network": {**EDSR, "num_blocks": 2}}, "The teacher is .* Give `network` the settings it was"),
        ({**teacher, "network": {**EDSR, "type": "EDSRNett"}}, "Did you mean 'EDSRNet'"),
    ):
        with pytest.raises(ConfigError, match=message):
            runner.train(write_config(tmp_path, wrong), [])
    assert not (tmp_path / "work_dirs").exists()


def test_full_and_demo_configs_say_the_same(tmp_path: Path) -> None:
    shutil.copytree(helpers.CONFIGS, tmp_path / "configs")  # as `contrastive-sr configs` writes them
    full, demo = (Config.fromfile(tmp_path / "configs" / f"{name}.py") for name in ("mpf_net_x4", NAME))
    assert full.model.methods[0].warmup_steps == 200_000
    assert full.model.methods[0].embedding_warmup_steps < 200_000
    assert full.model.methods[0].teacher.weights.endswith(f"iter_{full.train_cfg.max_iters}.pth")  # by the recipe there
    for config in (full, demo):
        for key in ("warmup_steps", "embedding_warmup_steps", "teacher", "embedding"):
            config.model.methods[0].pop(key, None)
    assert full.model.methods == demo.model.methods
    assert full.train_dataloader.batch_size == 32
    assert full.train_dataloader.dataset.pipeline[3].gt_patch_size == 192
    assert full.train_dataloader.dataset.data_prefix == {"img": "train/LR", "gt": "train/HR"}
    schedule = full.param_scheduler
    assert (schedule.type, schedule.T_max, full.train_cfg.max_iters) == ("CosineAnnealingLR", 500_000, 500_000)
    network = MODELS.build({"_scope_": "mmagic", **full.model.generator.to_dict()})
    assert sum(p.numel() for p in network.parameters()) == 5_847_243
