"""Blind SR in MMagic's own trainer: DASR and CRL-SR on LR images made from HR images, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmagic_helpers as helpers
import numpy as np
import pytest
import torch
from mmagic.registry import DATASETS, HOOKS, MODELS
from mmagic.structures import DataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from PIL import Image
from same import assert_same

import contrastive_sr.hosts.mmagic  # noqa: F401
from contrastive_sr import networks
from contrastive_sr.data import write_degraded
from contrastive_sr.degradations import gaussian_kernels
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.mmagic import runner

pytestmark = pytest.mark.mmagic

DASR = 'methods = _base_.methods\nmethods[0]["warmup_steps"] = 3\nmodel = dict(methods=methods, '
CRL_SR = 'methods = _base_.methods\nmethods[0]["warmup_steps"] = 3\nmodel = dict(methods=methods, '
SMALL_NETWORKS = {
    "demo_dasr_x4": DASR + "generator=dict(channels=4, groups=1, blocks=1))\n",
    "demo_crl_sr_x4": CRL_SR + "generator=dict(channels=4, encoder_blocks=3, decoder_blocks=1))\n",
}


def write_config(folder: Path, name: str, steps: int = 4, save: int = 2, more: str = "") -> Path:
    template = helpers.SMALL_BLIND
    more = SMALL_NETWORKS[name] + more
    return helpers.write_config(folder / "small.py", name, steps=steps, save=save, more=more, template=template)


def model_config(name: str = "demo_dasr_x4", **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = Config.fromfile(helpers.CONFIGS / f"{name}.py").model.to_dict()
    small = {"DASR": {"groups": 1, "blocks": 1}, "CRLSR": {"encoder_blocks": 3, "decoder_blocks": 1}}
    config["generator"].update(channels=4, **small[config["generator"]["type"].split(".")[1]])
    return {"_scope_": "mmagic", **config, **changes}


def build(name: str = "demo_dasr_x4", **changes: Any) -> Any:
    """The model of a shipped demo, of a small network, in this process."""
    torch.manual_seed(0)
    return MODELS.build(model_config(name, **changes))


def batch(*, crops: int = 2, lr: bool = False) -> dict[str, Any]:
    """What a data loader gives for HR images."""
    generator = torch.Generator().manual_seed(0)
    hr, key = (list(torch.rand(2, 3, 32, 32, generator=generator) * 255) for _ in range(2))
    inputs: list[Any] = [{"gt": a, "gt_key": b} if crops == 2 else {} for a, b in zip(hr, key, strict=True)]
    if lr:
        inputs = [image[:, ::4, ::4] for image in hr]
    return {"inputs": inputs, "data_samples": [DataSample(gt_img=image) for image in hr]}


def optimizers(model: Any, *parts: str) -> OptimWrapperDict:
    names = parts or ("generator",)
    return OptimWrapperDict(
        **{name: OptimWrapper(torch.optim.Adam(getattr(model, name).parameters(), lr=1e-3)) for name in names}
    )


# ----------------------------------------------------------------------------------------------------- train, resume


def train_twice(name: str, folder: Path) -> Path:
    """Four steps by MMagic's own script, kept in `whole`, and again the last two of them; the folder."""
    helpers.write_demo(folder)
    config = write_config(folder, name)
    helpers.train(config)
    work = folder / "work_dirs/small"
    shutil.copytree(work, folder / "whole")
    (work / "last_checkpoint").write_text(str(work / "iter_2.pth"))
    (work / "iter_4.pth").unlink()
    done = helpers.train(config, "--resume")
    assert "resumed epoch: 0, iter: 2" in done.stdout
    return folder


@pytest.fixture(scope="module")
def dasr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_twice("demo_dasr_x4", tmp_path_factory.mktemp("dasr"))


@pytest.fixture(scope="module")
def crl_sr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_twice("demo_crl_sr_x4", tmp_path_factory.mktemp("crl_sr"))


def scalars(work: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(work.glob("*/vis_data/scalars.json")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def assert_resumed(folder: Path) -> dict[str, Any]:
    """The whole run and the resumed one end alike; the checkpoint."""
    whole, resumed = (torch.load(folder / work / "iter_4.pth") for work in ("whole", "work_dirs/small"))
    for part in ("state_dict", "contrastive_sr", "optimizer", "param_schedulers"):
        assert_same(whole[part], resumed[part], part)
    assert whole["contrastive_sr"]["degradation_step.count"] == 4
    found: dict[str, Any] = whole
    return found


def logged_steps(folder: Path) -> list[dict[str, Any]]:
    steps = [entry for entry in scalars(folder / "whole") if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    for entry in steps:
        assert entry["loss"] == pytest.approx(entry.get("loss_pix", 0) + entry["loss_contrastive"], rel=1e-4)
    assert [entry for entry in scalars(folder / "whole") if "PSNR" in entry]
    return steps


def weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("generator."): value for key, value in checkpoint["state_dict"].items()}


def test_dasr_in_four_steps_equals_two_and_two(dasr: Path) -> None:
    checkpoint = assert_resumed(dasr)
    own = checkpoint["contrastive_sr"]
    assert own["methods.dasr.loss.pointer"] == own["methods.dasr.loss.fill"] == 8
    assert set(checkpoint["optimizer"]) == {"generator"}
    networks.DASR(channels=4, groups=1, blocks=1).load_state_dict(weights(checkpoint), strict=True)
    steps = logged_steps(dasr)
    assert [entry["dasr_host_factor"] for entry in steps] == [0, 0, 0, 1]
    assert ["loss_pix" in entry for entry in steps] == [False, False, False, True]  # the host's losses rest
    assert steps[-1]["loss_pix"] > 0


def test_crl_sr_in_four_steps_equals_two_and_two(crl_sr: Path) -> None:
    checkpoint = assert_resumed(crl_sr)
    assert set(checkpoint["optimizer"]) == {"generator", "methods"}
    network = networks.CRLSR(channels=4, encoder_blocks=3, decoder_blocks=1)
    network.load_state_dict(weights(checkpoint), strict=True)
    steps = logged_steps(crl_sr)
    assert [entry["crl_sr_refinement_weight"] > 0 for entry in steps] == [False, False, False, True]
    assert all(entry["loss_pix"] > 0 for entry in steps)


def begin(checkpoint: dict[str, Any], model: Any, *, resume: bool) -> None:
    """What MMEngine's runner does with a checkpoint before it loads it."""
    hook = HOOKS.build({"type": "contrastive_sr.CheckpointHook", "interval": 1})
    hook.after_load_checkpoint(SimpleNamespace(model=model, _resume=resume), checkpoint)


def test_a_checkpoint_without_its_queue(dasr: Path) -> None:
    path = dasr / "whole/iter_2.pth"
    begin(torch.load(path), build(), resume=True)
    lacking = torch.load(path)
    del lacking["contrastive_sr"]["methods.dasr.loss.queue"]
    with pytest.raises(ConfigError, match=r"1 of \d+ parts .* such as methods\.dasr\.loss\.queue\. .*`load_from`"):
        begin(lacking, build(), resume=True)
    (method,) = model_config()["methods"]
    with pytest.raises(ConfigError, match=r"or of another size, such as methods\.dasr\.loss\.queue"):
        begin(torch.load(path), build(methods=[{**method, "queue_size": 64}]), resume=True)
    stock = {"state_dict": torch.load(path)["state_dict"]}
    with pytest.raises(ConfigError, match="cannot be resumed"):
        begin(stock, build(), resume=True)


def test_another_training_begins_with_the_network_alone(dasr: Path) -> None:
    """From a checkpoint (`load_from`), also into a queue of another size; one of MMEngine's own hook has all in one."""
    saved = torch.load(dasr / "whole/iter_2.pth")
    assert saved["contrastive_sr"]["methods.step.count"] == 2
    in_one = {"state_dict": {**saved["state_dict"], **saved["contrastive_sr"]}}
    network = weights(saved)
    (method,) = model_config()["methods"]
    for checkpoint, queue_size in ((saved, method["queue_size"]), (in_one, 64)):
        model = build(methods=[{**method, "queue_size": queue_size}])
        new = {key: value.clone() for key, value in model.state_dict().items() if model.is_own_state(key)}
        begin(checkpoint, model, resume=False)
        missing, unexpected = model.load_state_dict(checkpoint["state_dict"], strict=False)
        assert not [*missing, *unexpected]
        state = model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in new.items())
        assert all(torch.equal(state[f"generator.{key}"], value) for key, value in network.items())


def test_a_damaged_image_is_named_and_nothing_saved_is_lost(dasr: Path, tmp_path: Path) -> None:
    shutil.copytree(dasr, tmp_path / "run")
    work = tmp_path / "run/work_dirs/small"
    (work / "last_checkpoint").write_text(str(work / "iter_4.pth"))
    kept = {path: path.read_bytes() for path in work.glob("*.pth")}
    for path in (tmp_path / "run/datasets/demo/train/HR").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    done = helpers.train(tmp_path / "run/small.py", "--resume", "--cfg-options", "train_cfg.max_iters=6", check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("contrastive_sr.errors.DataError: datasets/demo/train/HR/")
    assert "cannot be read as an image: 200 bytes" in last
    assert kept == {path: path.read_bytes() for path in work.glob("*.pth")}


# ----------------------------------------------------------------------------------------------------- in this process


def test_a_gan_warms_up_too_and_draws_anew_at_each_step() -> None:
    (method,) = model_config()["methods"]
    model = build(
        type="contrastive_sr.ContrastiveESRGAN",
        discriminator={"type": "UNetDiscriminatorWithSpectralNorm", "in_channels": 3, "mid_channels": 4},
        gan_loss={"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.005},
        methods=[{**method, "warmup_steps": 2}],
        degradation_seed=5,
    )
    optim = optimizers(model, "generator", "discriminator")
    moved, losses, judged = [], [], []
    for _ in range(3):
        before = {name: value.clone() for name, value in model.named_parameters() if "methods" not in name}
        log = model.train_step(batch(), optim)
        losses.append([key in log and log[key].item() > 0 for key in ("loss_pix", "loss_gan", "loss_d_real")])
        after = dict(model.named_parameters())
        names = {name for name, value in before.items() if not torch.equal(value, after[name])}
        moved.append({".".join(name.split(".")[:2]) for name in names if name.startswith("generator.")})
        judged.append(any(name.startswith("discriminator.") for name in names))
    assert moved[:2] == [set(), {"generator.encoder"}]  # at first the queue is empty, and there is no contrast
    assert moved[2] > {"generator.encoder", "generator.groups", "generator.first"}
    assert losses == [[False] * 3, [False] * 3, [True] * 3]
    assert judged == [False, False, True]  # in the warm-up there is no SR image to tell from HR
    assert model.degradation_step.value == 3
    queue = model.methods["dasr"].loss.queue[:6]
    assert len({tuple(row.tolist()) for row in queue}) == 6


def test_one_optimizer_for_everything_does_where_the_method_trains_nothing() -> None:
    model = build()
    log = model.train_step(batch(), OptimWrapper(torch.optim.Adam(model.generator.parameters(), lr=1e-4)))
    assert {"loss", "dasr_contrastive", "dasr_queue_fill"} <= set(log)


def test_a_method_that_compares_no_crops_takes_one() -> None:
    model = build("demo_crl_sr_x4")
    log = model.train_step(batch(crops=1), optimizers(model, "generator", "methods"))
    assert torch.isfinite(log["loss"])


@pytest.mark.parametrize("without", [None, []])
def test_hr_images_alone_without_a_method(without: Any) -> None:
    """The baseline: a pixel loss, on the same degradations."""
    model = build(methods=without)
    before = {name: value.clone() for name, value in model.named_parameters()}
    log = model.train_step(batch(crops=1), optimizers(model))
    assert log["loss"] == log["loss_pix"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert model.train_step(batch(crops=1), OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-4)))["loss_pix"] > 0
    with pytest.raises(ConfigError, match="methods: expected a list"):
        build(methods=without, degradation=None)


def test_a_preset_takes_the_generators_scale() -> None:
    for degradation in ("dasr-isotropic", {"type": "dasr-isotropic", "noise": [0, 5]}):
        model = build(degradation=degradation)
        assert model.degradation.degradation.scale == 4
    edsr = {"type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 1}
    for generator, scale in ((edsr, 4), ({**edsr, "upscale_factor": 2}, 2)):
        model = build(methods=None, generator=generator, degradation="dasr-isotropic")
        assert model.degradation.degradation.scale == scale
    with pytest.raises(ConfigError, match=r"expected one of scale 4, the generator's, got 'dasr-isotropic-x2'"):
        build(degradation="dasr-isotropic-x2")


def test_the_seed_of_the_config_decides_what_is_drawn() -> None:
    draws, hr = [], torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for seed, own in ((0, None), (1, None), (1, 0)):
        torch.manual_seed(seed)
        model = MODELS.build(model_config("demo_dasr_x4", degradation_seed=own))
        draws.append(model.degradation.batch(hr, hr, 1)["lr"])
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": {"type": "contrastive_sr.DASR", "chanels": 4}}, r"the key 'chanels'\. Did you mean 'channels'"),
        ({"generator": {"type": "contrastive_sr.DASR", "scale": 5}}, "from 2 to 4, got 5"),
        (
            {
                "generator": {"type": "contrastive_sr.DASR", "variant": "oracle"},
                "methods": [{"type": "TrueKernel"}],
                "degradation": "crl-spatial-x4",
            },
            "expected 'degradation/kernel' in the batch",
        ),
        ({"degradation": None}, "Or set split_lr: true"),
    ],
)
def test_models_that_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        MODELS.build({**model_config(), **changes})


ORACLE = """
model = dict(generator=dict(channels=4, groups=1, blocks=1, variant="oracle"), methods=[dict(type="TrueKernel")])
"""


def test_the_oracle_is_validated_with_the_true_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.write_demo(tmp_path)
    write_degraded(tmp_path / "datasets/demo/val/HR", tmp_path / "known", "dasr-anisotropic-x4")
    known = 'val_dataloader["dataset"].update(data_root="known", data_prefix=dict(img="LRx4", gt="HR"))\n'
    more = ORACLE + "val_dataloader = _base_.val_dataloader\n" + known
    template = helpers.SMALL_BLIND
    config = helpers.write_config(
        tmp_path / "small.py", "demo_dasr_x4", steps=2, save=2, val=1, more=more, template=template
    )
    helpers.run_own(config)
    work = tmp_path / "work_dirs/small"
    assert [entry["PSNR"] > 3 for entry in scalars(work) if "PSNR" in entry] == [True, True]

    model = MODELS.build({"_scope_": "mmagic", **Config.fromfile(config).model.to_dict()}).eval()
    lr = torch.rand(3, 12, 12)
    sample = DataSample(gt_img=torch.rand(3, 48, 48) * 255, metainfo={"img_path": str(tmp_path / "known/LRx4/0.png")})
    (found,) = model.val_step({"inputs": [lr * 255], "data_samples": [sample]})
    entry = json.loads((tmp_path / "known/degradations.json").read_text())["images"]["0.png"]
    kernel = gaussian_kernels(torch.tensor([entry["sigma"]]), torch.tensor([entry["angle"]]))
    want = model.generator(lr[None], kernel=kernel)[0] * 255
    torch.testing.assert_close(found.output.pred_img, want.detach().clamp(0, 255), rtol=1e-4, atol=1e-2)

    plain = helpers.write_config(
        tmp_path / "plain.py", "demo_dasr_x4", steps=2, save=2, val=1, more=ORACLE, template=template
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"The SR network reads the true kernel .* in validation, .*degradations\.json"):
        runner.train(plain, [])
    assert not (tmp_path / "work_dirs/plain").exists()


def test_a_damaged_image_in_a_worker_is_named_in_one_line(tmp_path: Path) -> None:
    helpers.write_demo(tmp_path)
    for path in (tmp_path / "datasets/demo/train/HR").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    config = write_config(tmp_path, "demo_dasr_x4", more='train_dataloader["num_workers"] = 2\n')
    done = helpers.run_own(config, check=False)
    assert done.returncode == 1
    own = [line for line in done.stderr.splitlines() if not line.startswith("[ WARN:")]  # OpenCV's, of a worker
    last = own[-1]
    assert last.startswith("error: datasets/demo/train/HR/")
    assert "cannot be read as an image: 200 bytes" in last
    assert "Traceback" not in done.stderr


def test_validation_takes_the_lr_image_as_it_is() -> None:
    model = build().eval()
    inputs = [torch.rand(3, 8, 8) * 255]
    sample = DataSample(gt_img=torch.rand(3, 32, 32) * 255)
    (found,) = model.val_step({"inputs": inputs, "data_samples": [sample]})
    want = model.generator(inputs[0][None] / 255)[0] * 255
    torch.testing.assert_close(found.output.pred_img, want.detach().clamp(0, 255), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("demo_dasr_x4", {"lr": True}, "makes the LR images from HR images alone, got LR images too"),
        ("demo_dasr_x4", {"crops": 1}, r'PackInputs\(keys=\["gt", "gt_key"\]\)'),
        ("demo_crl_sr_x4", {}, "Expected LR images as `img`, got HR images alone. Set `degradation`"),
    ],
)
def test_data_and_degradation_that_do_not_go_together(name: str, data: dict[str, Any], message: str) -> None:
    model = build(name) if name == "demo_dasr_x4" else build(name, degradation=None)
    with pytest.raises(ConfigError, match=message):
        model.train_step(batch(**data), optimizers(model, "generator", "methods"))


def test_values_outside_the_range_name_the_setting() -> None:
    scaling = {"type": "DataPreprocessor", "mean": [0.0] * 3, "std": [1.0] * 3}
    model = build(data_preprocessor=scaling)
    with pytest.raises(DataError, match=r"in \[0, 1\].*std=\[255"):
        model.train_step(batch(), optimizers(model))


def test_an_unknown_degradation_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    for wrong, message in (
        ("dasr-isotropic-x8", "expected a scale that the preset 'dasr-isotropic-x8' has, got 8"),
        ("dasr-isotropic-x2", r"expected one of scale 4, the generator's, got 'dasr-isotropic-x2' \(str\) of scale 2"),
        ("dasr-isotropik-x4", "Did you mean 'dasr-isotropic-x4'"),
    ):
        path = write_config(tmp_path, "demo_dasr_x4", more=f'model["degradation"] = "{wrong}"\n')
        with pytest.raises(ConfigError, match=message):
            runner.train(path, [])
    assert not (tmp_path / "work_dirs").exists()


# ----------------------------------------------------------------------------------------------------- data


def dataset(folder: Path, **changes: Any) -> Any:
    arguments = {
        "data_root": str(folder),
        "data_prefix": {"gt": "HR"},
        "patch_size": 32,
        "filename_tmpl": {},
        **changes,
    }
    return DATASETS.build({"_scope_": "mmagic", "type": "contrastive_sr.HighResolutionImageDataset", **arguments})


def test_the_pipeline_gives_two_crops_of_each_image(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 3)
    pipeline = Config.fromfile(helpers.CONFIGS / "demo_dasr_x4.py").train_pipeline
    assert pipeline[1]["type"] == "contrastive_sr.TwoCrops"
    pipeline[1]["patch_size"] = 32
    found = dataset(tmp_path, pipeline=pipeline)
    assert len(found) == 3
    items = [found[1] for _ in range(8)]
    for item in items:
        assert item["inputs"]["gt"].shape == item["inputs"]["gt_key"].shape == (3, 32, 32)
        assert torch.equal(item["inputs"]["gt"], item["data_samples"].gt_img)
        assert item["data_samples"].gt_path.endswith("1.png")
    assert any(not torch.equal(item["inputs"]["gt"], item["inputs"]["gt_key"]) for item in items)


def test_two_crops_share_no_pixel_where_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "HR").mkdir()
    image = np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)  # wherever the first crop lies, there is room
    Image.fromarray(np.stack([image // 256, image % 256, image * 0], -1).astype(np.uint8)).save(tmp_path / "HR/a.png")
    load = {"type": "LoadImageFromFile", "key": "gt", "channel_order": "rgb"}
    crops = {"type": "contrastive_sr.TwoCrops", "patch_size": 32}
    pack = {"type": "PackInputs", "keys": ["gt", "gt_key"]}
    found = dataset(tmp_path, pipeline=[load, crops, pack])
    for _ in range(10):
        inputs = found[0]["inputs"]
        pixels = [{tuple(pixel) for pixel in inputs[key].flatten(1).T.tolist()} for key in ("gt", "gt_key")]
        assert len(pixels[0]) == len(pixels[1]) == 32 * 32
        assert not pixels[0] & pixels[1]
    with pytest.raises(DataError, match="at least 112 x 112 pixels, got 96 x 96"):
        dataset(tmp_path, pipeline=[load, {**crops, "patch_size": 112}, pack])[0]


def test_grey_images_are_read_right_and_those_of_16_bits_refused(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "HR").mkdir()
    image = np.random.default_rng(0).integers(0, 65536, (32, 32), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "HR/one.png"), (image >> 8).astype(np.uint8))
    load = {"type": "LoadImageFromFile", "key": "gt", "channel_order": "rgb"}
    found = dataset(tmp_path, pipeline=[load, {"type": "PackInputs"}])[0]["data_samples"].gt_img
    assert found.shape == (3, 32, 32)
    assert np.abs(found.numpy() - (image >> 8)).max() < 1e-6
    cv2.imwrite(str(tmp_path / "HR/two.png"), image)
    with pytest.raises(DataError, match=r"two\.png has more than 8 bits a channel; expected 8"):
        dataset(tmp_path)


def test_hr_folders_that_cannot_be_used(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 2)
    with pytest.raises(DataError, match=r"2 of 2 HR images cannot be used: 0\.png is 12 x 12.*a folder of LR images"):
        dataset(tmp_path, data_prefix={"gt": "LRx4"})
    assert len(dataset(tmp_path, data_prefix={"gt": "LRx4"}, check_sizes=False)) == 2
    with pytest.raises(DataError, match=r"Expected a folder of images at .*nowhere"):
        dataset(tmp_path, data_prefix={"gt": "nowhere"})
    with pytest.raises(ConfigError, match="data_prefix=dict"):
        dataset(tmp_path, data_prefix={"gt": "HR", "img": "LRx4"})
    (tmp_path / "list.txt").write_text("1.png (48,48,3)\n")
    assert [entry["gt_path"][-5:] for entry in dataset(tmp_path, ann_file="list.txt")] == ["1.png"]


def test_a_damaged_image_of_a_pair_is_named(tmp_path: Path) -> None:
    helpers.write_pairs(tmp_path, 2)
    path = tmp_path / "LRx4/1.png"
    load = [{"type": "LoadImageFromFile", "key": key} for key in ("img", "gt")]
    arguments = {"data_root": str(tmp_path), "data_prefix": {"img": "LRx4", "gt": "HR"}, "filename_tmpl": {}}
    found = DATASETS.build(
        {
            "_scope_": "mmagic",
            "type": "contrastive_sr.PairedImageDataset",
            "scale": 4,
            "pipeline": [*load, {"type": "PackInputs"}],
            **arguments,
        }
    )
    assert found[1]["inputs"].shape == (3, 12, 12)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"LRx4/1\.png cannot be read as an image"):
        found[1]
    Image.new("RGB", (12, 12)).save(path)
    assert found[1]["inputs"].shape == (3, 12, 12)


# ----------------------------------------------------------------------------------------------------- full configs


@pytest.mark.parametrize(("name", "millions"), [("dasr_x4", 5.97), ("crl_sr_x4", None)])
def test_full_and_demo_configs_say_the_same(name: str, millions: float | None, tmp_path: Path) -> None:
    shutil.copytree(helpers.CONFIGS, tmp_path / "configs")  # as `contrastive-sr configs` writes them
    full, demo = (Config.fromfile(tmp_path / "configs" / f"{f}.py") for f in (name, f"demo_{name}"))
    for config in (full, demo):
        (method,) = config.model.methods
        for key in ("warmup_steps", "queue_size", "positions"):
            method.pop(key, None)
    assert full.model.methods == demo.model.methods
    assert full.model.degradation == demo.model.degradation
    assert (full.train_dataloader.batch_size, full.train_dataloader.dataset.patch_size) == (32, 192)
    (crop,) = [step for step in full.train_dataloader.dataset.pipeline if "Crop" in step.type]
    assert crop.get("patch_size") == 192 or crop.crop_size == (192, 192)
    if millions is not None:
        network = MODELS.build({"_scope_": "mmagic", **full.model.generator.to_dict()})
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
        schedules = full.param_scheduler
        assert [(s.milestones, s.gamma) for s in schedules] == [([60_000], 0.1), ([225_000, 350_000, 475_000], 0.5)]
