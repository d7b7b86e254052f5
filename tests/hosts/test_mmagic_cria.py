"""Cria-CL in MMagic's own trainer, on pairs, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import numpy as np
import pytest
import torch
from mmagic.registry import METRICS, MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from same import assert_same

import contrastive_sr.hosts.mmagic as adapter
from contrastive_sr.criteria import CriteriaByName
from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation import psnr_rgb, ssim_rgb
from contrastive_sr.hosts.mmagic import runner
from contrastive_sr.networks import CriteriaBranches

pytestmark = pytest.mark.mmagic

NAME = "demo_cria_rrdb_x4"
TRUNK = {"type": "RRDBNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 1}
TRUNK |= {"growth_channels": 4, "upscale_factor": 4}
SMALL = "model = dict(generator=dict(trunk=dict(mid_channels=4, num_blocks=1, growth_channels=4)))\n"


@pytest.fixture(autouse=True)
def names_of_mmagic() -> None:
    adapter.registry.use_names()


def model_config(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = Config.fromfile(helpers.CONFIGS / f"{NAME}.py").model.to_dict()
    config["generator"]["trunk"] = dict(TRUNK)
    return {"_scope_": "mmagic", **config, **changes}


def methods(**changes: Any) -> list[dict[str, Any]]:
    (method,) = model_config()["methods"]
    return [{**method, **changes}]


def build(**changes: Any) -> Any:
    """The model of the shipped demo, of a small network, in this process."""
    torch.manual_seed(0)
    return MODELS.build(model_config(**changes))


def batch() -> dict[str, Any]:
    """What a data loader gives."""
    generator = torch.Generator().manual_seed(0)
    hr = list(torch.rand(2, 3, 32, 32, generator=generator) * 255)
    return {"inputs": [image[:, ::4, ::4] for image in hr], "data_samples": [DataSample(gt_img=image) for image in hr]}


def optimizers(model: Any) -> OptimWrapperDict:
    parts = ("generator", "methods")
    return OptimWrapperDict(
        **{part: OptimWrapper(torch.optim.Adam(getattr(model, part).parameters(), lr=1e-3)) for part in parts}
    )


# ----------------------------------------------------------------------------------------------------- train, resume


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps by MMagic's own script, kept in `whole`, and again the last two of them; the folder."""
    folder = tmp_path_factory.mktemp("cria")
    helpers.write_demo(folder)
    config = helpers.write_config(folder / "small.py", NAME, steps=4, save=2, more=SMALL)
    helpers.train(config)
    work = folder / "work_dirs/small"
    shutil.copytree(work, folder / "whole")
    (work / "last_checkpoint").write_text(str(work / "iter_2.pth"))
    (work / "iter_4.pth").unlink()
    done = helpers.train(config, "--resume")
    assert "resumed epoch: 0, iter: 2" in done.stdout
    return folder


def test_four_steps_equal_two_and_two(trained: Path) -> None:
    whole, resumed = (torch.load(trained / work / "iter_4.pth") for work in ("whole", "work_dirs/small"))
    for part in ("state_dict", "contrastive_sr", "optimizer", "param_schedulers"):
        assert_same(whole[part], resumed[part], part)
    assert set(whole["optimizer"]) == {"generator", "methods"}
    assert any("discriminator" in name for name in whole["contrastive_sr"])


def test_a_checkpoint_is_the_network_s_alone(trained: Path) -> None:
    state = torch.load(trained / "whole/iter_4.pth")["state_dict"]
    net = CriteriaBranches(TRUNK)
    net.load_state_dict({key.removeprefix("generator."): value for key, value in state.items()}, strict=True)
    assert net.eval()(torch.rand(1, 3, 12, 12)).shape == (1, 3, 48, 48)


def test_everything_is_logged(trained: Path) -> None:
    (path,) = (trained / "whole").glob("*/vis_data/scalars.json")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    for entry in steps:
        assert entry["loss"] == pytest.approx(entry["loss_pix"] + entry["loss_contrastive"], rel=1e-3)
        assert entry["cria_align_ssim_push"] in (-1, 0, 1)
        assert 0 <= entry["cria_uniformity_mask"] <= 1
    assert steps[0]["cria_uniformity_mask"] == pytest.approx(0.5)
    assert [entry for entry in entries if "PSNR" in entry]
    assert list((trained / "whole").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["cria_rrdb_x4", "demo_cria_rrdb_x4"])
def test_validated_on_rgb_as_evaluate_measures_it(name: str) -> None:
    sr, hr = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
    gt, pred = (torch.from_numpy(image).permute(2, 0, 1).float() for image in (hr, sr))
    config = Config.fromfile(helpers.CONFIGS / f"{name}.py").val_evaluator
    for options, expected in zip(config.metrics, (psnr_rgb(sr, hr), ssim_rgb(sr, hr)), strict=False):
        metric = METRICS.build({"_scope_": "mmagic", **options})
        metric.process([], [{"gt_img": gt, "output": {"pred_img": pred}}])
        (result,) = metric.results
        assert result[options.type] == pytest.approx(expected)
    assert [options.type for options in config.metrics] == ["PSNR", "SSIM", "contrastive_sr.Pattern"]


# ----------------------------------------------------------------------------------------------------- in this process


def test_autocast_trains_all_parts() -> None:
    model = build(methods=methods(normalize=True))
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):  # at first the masks are constant, and only their last convolution learns
        with torch.autocast("cpu", dtype=torch.bfloat16):  # MMEngine's own wrapper asks for a GPU
            log = model.train_step(batch(), optimizers(model))
    assert torch.isfinite(log["loss"])
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]


def test_an_average_network_has_branches_too() -> None:
    model = build(is_use_ema=True)
    model.train_step(batch(), optimizers(model))
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(model.eval()(lr), model.generator_ema(lr))


@pytest.mark.parametrize(
    "trunk",
    [
        {"type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 1},
        {"type": "RCAN", "num_feat": 16, "num_group": 1, "num_block": 1},
    ],
    ids=["edsr", "rcan"],
)
def test_other_trunks(trunk: dict[str, Any]) -> None:
    model = build(generator={"type": "contrastive_sr.CriteriaBranches", "trunk": trunk})
    log = model.train_step(batch(), optimizers(model))
    assert torch.isfinite(log["loss"])


def test_a_stock_network_trains_by_row_5() -> None:
    model = build(generator=TRUNK, methods=methods(variant=5))
    assert {"cria_align", "cria_uniformity", "cria_adversarial"} <= set(model.train_step(batch(), optimizers(model)))


def test_row_1_trains_with_the_optimizers_of_the_config() -> None:
    model = build(generator=TRUNK, methods=methods(variant=1))
    config = Config.fromfile(helpers.CONFIGS / f"{NAME}.py").optim_wrapper
    made = build_optim_wrapper(model, config)
    assert list(made.keys()) == ["generator"]
    log = model.train_step(batch(), made)
    assert log["loss"] == log["loss_pix"] > 0
    assert list(build_optim_wrapper(build(), config).keys()) == ["generator", "methods"]


def test_losses_of_the_host_are_known_by_name() -> None:
    criteria = CriteriaByName()
    name = criteria.add({"type": "CharbonnierLoss", "loss_weight": 2.0}, "here")
    sr, hr = torch.rand(2, 2, 3, 8, 8).unbind()
    want = 2 * ((sr - hr).square() + 1e-12).sqrt().mean()
    assert (name, criteria[name](sr, hr).item()) == ("charbonnier", pytest.approx(want.item()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"generator": TRUNK},
            "variant 7 needs an SR network with the modules align, uniformity, masks; RRDBNet has no",
        ),
        (
            {"methods": methods(variant=4, uniformity_share=0.05)},
            "variant 4 has no branches and masks, but .* CriteriaBranches, has",
        ),
        ({"methods": methods(positives=["CharbonierLoss"])}, "Did you mean 'CharbonnierLoss'"),
        ({"methods": methods(positives=["RRDBNet"])}, "RRDBNet needs the key 'in_channels'"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_methods_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    more = SMALL + 'methods = _base_.methods\nmethods[0]["positives"] = ["Pixel"]\nmodel["methods"] = methods\n'
    path = helpers.write_config(tmp_path / "small.py", NAME, steps=2, save=2, more=more)
    with pytest.raises(ConfigError, match="'pixel_l1', which is the anchor too"):
        runner.train(path, [])
    assert not (tmp_path / "work_dirs").exists()


def test_full_and_demo_configs_say_the_same(tmp_path: Path) -> None:
    shutil.copytree(helpers.CONFIGS, tmp_path / "configs")  # as `contrastive-sr configs` writes them
    full, demo = (Config.fromfile(tmp_path / "configs" / f"{f}.py") for f in ("cria_rrdb_x4", NAME))
    (method,), (small,) = (config.model.methods for config in (full, demo))
    assert {key for key in method if method[key] != small[key]} == {"vgg_weights", "align_weight", "uniformity_weight"}
    assert (method.variant, method.anchor, method.exponent, method.t) == (7, "Pixel", 2, 2)
    assert method.align_weight == method.uniformity_weight == full.model.pixel_loss.loss_weight == 0.01
    assert (full.train_dataloader.batch_size, full.train_cfg.max_iters) == (16, 1_000_000)
    assert full.param_scheduler.milestones == [200_000, 400_000, 600_000, 800_000]
    network = MODELS.build({"_scope_": "mmagic", **full.model.generator.to_dict()})
    assert sum(p.numel() for p in network.parameters()) == 14_969_736
