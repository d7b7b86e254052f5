"""Methods in the step of each model that BasicSR ships: what the host does stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytestmark = [pytest.mark.basicsr]

from PIL import Image  # noqa: E402

from contrastive_sr.errors import ConfigError, HostError  # noqa: E402
from contrastive_sr.hosts.basicsr import runner  # noqa: E402
from contrastive_sr.hosts.basicsr.host import import_basicsr  # noqa: E402
from tests.hosts.basicsr_options import load, write_options  # noqa: E402
from tests.hosts.real_esrgan import GAN, ON_THE_FLY, fit_to_cpu, hr_images  # noqa: E402

SWINIR = {
    "type": "SwinIR",
    "upscale": 4,
    "in_chans": 3,
    "img_size": 16,
    "window_size": 8,
    "img_range": 1.0,
    "depths": [2],
    "embed_dim": 12,
    "num_heads": [2],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
    "resi_connection": "1conv",
}
HIFACEGAN = {  # restores images of one size, without an average network and with a validation of its own
    **GAN,
    "scale": 1,
    "network_g": {"type": "HiFaceGAN", "num_feat": 4, "crop_size": 64, "norm_g": "spectralspadeinstance3x3"},
    "network_d": {"type": "HiFaceGANDiscriminator", "num_d": 2, "n_layers_d": 2, "num_feat": 4},
    "train:gan_opt": {**GAN["train:gan_opt"], "type": "MultiScaleGANLoss"},
    "train:ema_decay": 0,
    "datasets:val": None,
    "val": None,
}
MODELS: dict[str, dict[str, Any]] = {
    "SRModel": {},
    "SwinIRModel": {"network_g": SWINIR},
    "SRGANModel": GAN,
    "ESRGANModel": GAN,
    "ESRGANModel, the discriminator first": {**GAN, "train:net_d_iters": 2, "train:net_d_init_iters": 1},
    "HiFaceGANModel": HIFACEGAN,
    "RealESRNetModel": ON_THE_FLY,
    "RealESRGANModel": {**ON_THE_FLY, **GAN},
    "RealESRGANModel on pairs": {**ON_THE_FLY, **GAN, "high_order_degradation": False, "gan_gt_usm": True},
}


@pytest.fixture
def on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """See :func:`real_esrgan.fit_to_cpu`."""
    fit_to_cpu(monkeypatch.setattr)


@pytest.fixture(scope="module")
def odd_sizes(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data set, its validation images 50 x 46 in LR: no multiple of a window."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "train").symlink_to(demo_data / "train")
    for kind, (width, height) in {"HR": (200, 184), "LRx4": (50, 46)}.items():
        (folder / "val" / kind).mkdir(parents=True)
        image = sorted((demo_data / "val" / kind).iterdir())[0]
        with Image.open(image) as whole:
            whole.crop((0, 0, width, height)).save(folder / "val" / kind / image.name)
    return folder


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What trainings of this test log: of each step its losses, of each validation its metrics."""
    seen: list[dict[str, float]] = []
    base = import_basicsr("basicsr.models.base_model").BaseModel
    logger = import_basicsr("basicsr.utils.logger").MessageLogger
    update, write = base._update_best_metric_result, logger.__call__

    def write_log(self: Any, entries: dict[str, Any]) -> None:
        seen.append({key: entries[key] for key in entries if key not in ("epoch", "iter", "lrs", "time", "data_time")})
        write(self, entries)

    def update_best(self: Any, dataset: str, metric: str, value: float, step: int) -> None:
        seen.append({f"{dataset}/{metric}": value})
        update(self, dataset, metric, value, step)

    monkeypatch.setattr(logger, "__call__", write_log)
    monkeypatch.setattr(base, "_update_best_metric_result", update_best)
    return seen


@pytest.fixture
def train(
    odd_sizes: Path, tmp_path: Path, logs: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[dict[str, float]]]]:
    """Train for three steps with a validation after the second and third; what was logged."""
    monkeypatch.chdir(tmp_path)

    def run(model: str, **changes: Any) -> list[dict[str, float]]:
        options: dict[str, Any] = {
            "name": model,
            "model_type": model,
            "network_g:num_feat": 8,
            "network_g:num_block": 1,
            "train:total_iter": 3,
            "train:ema_decay": 0.5,
            "val:val_freq": 2,
            "val:save_img": False,
            "logger:print_freq": 1,
            "logger:save_checkpoint_freq": 3,
            **changes,
        }
        if changes.get("scale") == 1:
            options["datasets:train:dataroot_lq"] = str(odd_sizes / "train/HR")
            options["datasets:train:gt_size"] = 64
        if "network_g" in changes:
            options = {key: value for key, value in options.items() if not key.startswith("network_g:")}
        if "resize_prob" in changes and changes.get("high_order_degradation", True):
            options["datasets:train"] = hr_images(odd_sizes / "train/HR", tmp_path)
        before = len(logs)
        runner.train(write_options(tmp_path, "demo_pcl_edsr", odd_sizes, options), [])
        return logs[before:]

    return run


def network_of(folder: Path, training: str) -> Any:
    """What the last checkpoint of a training holds."""
    return load(folder / "experiments" / training / "models/net_g_3.pth")


@pytest.mark.parametrize("case", MODELS)
def test_every_number_of_the_host_stays(
    case: str, train: Callable[..., list[dict[str, float]]], on_this_device: None, tmp_path: Path
) -> None:
    """With a weight of 0 all that the stock model logs is logged, bit for bit, and its network is the stock network."""
    model = case.split()[0].rstrip(",")
    stock = train(model, methods=None, **{"train:optim_methods": None}, **MODELS[case])
    method = {"type": "PCL", "every": 1, "loss_weight": 0.0}
    ours = train(f"Contrastive{model}", methods=[method], **MODELS[case])
    assert len(stock) == len(ours) >= (3 if "val" in MODELS[case] else 5)
    for theirs, mine in zip(stock, ours, strict=True):
        assert {key: mine[key] for key in theirs} == theirs
    steps = [log for log in ours if "pcl_contrastive_weight" in log]
    learns = 1 if "first" in case else 3
    assert len(steps) == learns
    assert all(log["pcl_contrastive_raw"] > 0 for log in steps)
    before, now = (network_of(tmp_path, name) for name in (model, f"Contrastive{model}"))
    assert set(before) == set(now) <= {"params", "params_ema"}
    for key, network in before.items():
        assert all(torch.equal(value, now[key][name]) for name, value in network.items())


def test_the_terms_reach_the_network_in_a_hosts_step(
    train: Callable[..., list[dict[str, float]]], tmp_path: Path
) -> None:
    """With a share, the pixel loss is logged as it is, and the network becomes another.

    Validation images fit no window, and unlike SwinIRModel, SRModel does not pad them.
    """
    without = train(
        "ContrastiveSRModel", methods=[{"type": "PCL", "every": 1, "loss_weight": 0.0}], **MODELS["SwinIRModel"]
    )
    assert len(without) >= 5  # three steps and two validations
    first = train(
        "ContrastiveSwinIRModel", methods=[{"type": "PCL", "every": 1, "loss_share": 0.5}], **MODELS["SwinIRModel"]
    )
    assert first[0]["l_pix"] == without[0]["l_pix"]
    assert first[0]["pcl_contrastive_share"] == pytest.approx(0.5, rel=1e-4)
    weights = [
        network_of(tmp_path, name)["params"]["conv_first.weight"]
        for name in ("ContrastiveSRModel", "ContrastiveSwinIRModel")
    ]
    assert not torch.equal(*weights)


def test_a_model_without_a_pixel_loss_is_refused(train: Callable[..., list[dict[str, float]]]) -> None:
    class NoPixelModel(import_basicsr("basicsr.models.sr_model").SRModel):  # type: ignore[misc]
        def optimize_parameters(self, current_iter: int) -> None:
            self.output = self.net_g(self.lq)
            self.log_dict = self.reduce_loss_dict({"l_own": (self.output - self.gt).square().mean()})

    registry = import_basicsr("basicsr.utils.registry").MODEL_REGISTRY
    registry.register(NoPixelModel)
    try:
        with pytest.raises(ConfigError, match=r"through its pixel loss, and the training step did not call it"):
            train("ContrastiveNoPixelModel")
    finally:
        del registry._obj_map["NoPixelModel"]
    with pytest.raises(ConfigError, match=r"train: expected pixel_opt, by which the methods enter the step, got"):
        train("ContrastiveSRModel", **{"train:pixel_opt": None, "train:perceptual_opt": {}})


def test_models_that_no_method_can_enter() -> None:
    models = import_basicsr("contrastive_sr.hosts.basicsr.models")
    with pytest.raises(
        HostError,
        match=r"methods of BasicSR's SRModel, .* without load_network, init_training_settings",
    ):
        models.with_methods(nn.Module)
    get = import_basicsr("basicsr.utils.registry").MODEL_REGISTRY.get
    for video in ("VideoBaseModel", "EDVRModel", "VideoRecurrentModel", "VideoGANModel", "VideoRecurrentGANModel"):
        with pytest.raises(HostError, match=rf"Contrastive{video}: expected a model for images, got one for videos"):
            get(f"Contrastive{video}")
    assert get("ContrastiveSwinIRModel") is get("ContrastiveSwinIRModel")
    with pytest.raises(
        ConfigError, match=r"ContrastiveSwinIModel: BasicSR does not know .* Did you mean 'SwinIRModel'"
    ):
        get("ContrastiveSwinIModel")


def test_a_model_that_makes_its_own_lr_images_takes_no_degradation(
    train: Callable[..., list[dict[str, float]]], on_this_device: None
) -> None:
    changes = {"degradation": "dasr-isotropic-x4", **ON_THE_FLY}
    with pytest.raises(ConfigError, match=r"RealESRNetModel has its own way to get them"):
        train("ContrastiveRealESRNetModel", **changes)
