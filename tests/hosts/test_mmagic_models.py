"""Methods in the step of MMagic's models: what the host does stays as it is. And the folder a training writes into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = [pytest.mark.mmagic]

from mmagic.registry import MODELS  # noqa: E402
from mmagic.structures import DataSample  # noqa: E402
from mmengine.optim import OptimWrapper, OptimWrapperDict  # noqa: E402

import contrastive_sr.hosts.mmagic  # noqa: E402 - makes the host importable
from contrastive_sr.errors import ConfigError  # noqa: E402
from contrastive_sr.hosts.mmagic.runner import check_work_dir  # noqa: E402

EDSR = {
    "type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 8, "num_blocks": 1, "upscale_factor": 4,
}  # fmt: skip
SHARED: dict[str, Any] = {
    "generator": EDSR,
    "pixel_loss": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
    "data_preprocessor": {"type": "DataPreprocessor", "mean": [0.0] * 3, "std": [255.0] * 3},
}
GAN = {
    "discriminator": {"type": "UNetDiscriminatorWithSpectralNorm", "in_channels": 3, "mid_channels": 4},
    "gan_loss": {
        "type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 0.1,
    },
}  # fmt: skip
MODELS_OF_MMAGIC: dict[str, dict[str, Any]] = {
    "BaseEditModel": {},
    "SRGAN": GAN,
    "ESRGAN": GAN,
    "ESRGAN, the discriminator first": {**GAN, "train_cfg": {"disc_init_steps": 1, "disc_steps": 2}},
    "RealESRGAN": {**GAN, "is_use_sharpened_gt_in_pixel": True, "is_use_sharpened_gt_in_gan": True},
}


def build(model: str, **changes: Any) -> tuple[Any, OptimWrapper | OptimWrapperDict]:
    """A model with new weights, and its optimizers."""
    torch.manual_seed(0)
    built = MODELS.build({"type": model, "_scope_": "mmagic", **SHARED, **changes})
    built.train()

    def adam(part: str) -> OptimWrapper:
        return OptimWrapper(torch.optim.Adam(getattr(built, part).parameters(), lr=1e-3))

    parts = ["generator"]
    parts += ["discriminator"] * (getattr(built, "discriminator", None) is not None)
    parts += ["methods"] * model.startswith("contrastive_sr.")
    return built, adam("generator") if parts == ["generator"] else OptimWrapperDict(**{p: adam(p) for p in parts})


def train(model: str, **changes: Any) -> tuple[Any, list[dict[str, Tensor]]]:
    """The model after three of its own training steps, and what they logged."""
    built, wrappers = build(model, **changes)
    logs = []
    for step in range(3):
        draws = torch.Generator().manual_seed(step)
        hr = [torch.rand(3, 64, 64, generator=draws) * 255 for _ in range(2)]
        samples = [DataSample(gt_img=image, gt_unsharp=image.flip(-1)) for image in hr]
        lr = [torch.nn.functional.avg_pool2d(image, 4) for image in hr]
        logs.append(built.train_step({"inputs": lr, "data_samples": samples}, wrappers))
    return built, logs


@pytest.mark.parametrize("case", MODELS_OF_MMAGIC)
def test_every_number_of_the_host_stays(case: str) -> None:
    """With a weight of 0 all that the stock model logs is logged, bit for bit, and its networks are the stock ones."""
    model = case.split(",")[0]
    stock, before = train(model, **MODELS_OF_MMAGIC[case])
    method = {"type": "PCL", "loss_weight": 0.0}
    ours, now = train(f"contrastive_sr.Contrastive{model}", methods=[method], **MODELS_OF_MMAGIC[case])
    for theirs, mine in zip(before, now, strict=True):
        assert {name: mine[name] for name in theirs} == theirs
    learnt = [log for log in now if "pcl_contrastive_raw" in log]
    assert len(learnt) == (1 if "first" in case else 3)
    assert all(log["pcl_contrastive_raw"] > 0 and log["loss_contrastive"] == 0 for log in learnt)
    state = ours.state_dict()
    for name, value in stock.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_terms_reach_the_generator_and_the_pixel_loss_is_logged_alone() -> None:
    without, before = train("contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL", "loss_weight": 0.0}], **GAN)
    share, now = train("contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL", "loss_share": 0.5}], **GAN)
    assert now[0]["loss_pix"] == before[0]["loss_pix"]
    assert now[0]["loss_contrastive"] == now[0]["pcl_contrastive"] > 0
    assert now[0]["pcl_contrastive_share"] == pytest.approx(0.5, rel=1e-4)
    name = "generator.conv_first.weight"
    assert not torch.equal(without.state_dict()[name], share.state_dict()[name])


def test_images_of_any_size_are_super_resolved_in_validation() -> None:
    """A generator that begins with a pixel unshuffle takes even sides alone."""
    unshuffles = {"type": "RRDBNet", "mid_channels": 4, "growth_channels": 4, "num_blocks": 1, "upscale_factor": 2}
    generator = {**unshuffles, "in_channels": 3, "out_channels": 3}
    model, _ = build("contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL"}], **{**GAN, "generator": generator})
    model.eval()
    with torch.no_grad():
        for height, width in ((1, 1), (7, 10), (8, 8)):
            lr = torch.rand(1, 3, height, width)
            sr = model(lr, [DataSample()], mode="tensor")
            assert sr.shape == (1, 3, 2 * height, 2 * width)
        assert torch.equal(sr, model.generator(lr))
        with pytest.raises(AssertionError):
            model.generator(lr[..., 1:])


def test_models_that_no_method_can_enter() -> None:
    with pytest.raises(ConfigError, match=r"ContrastiveESGAN: MMagic does not know .* Did you mean 'ESRGAN'"):
        build("contrastive_sr.ContrastiveESGAN", methods=[{"type": "PCL"}])
    with pytest.raises(ConfigError, match=r"expected a pixel_loss, because methods enter the step by it, got none"):
        build("contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL"}], **{**GAN, "pixel_loss": None})
    registry = contrastive_sr.hosts.mmagic.registry.MODELS
    assert registry.get("ContrastiveSRGAN") is registry.get("ContrastiveSRGAN")


def test_a_gan_without_an_optimizer_of_its_discriminator() -> None:
    built, wrappers = build("contrastive_sr.ContrastiveESRGAN", methods=[{"type": "PCL"}], **GAN)
    assert isinstance(wrappers, OptimWrapperDict)
    without = OptimWrapperDict(**{name: wrapper for name, wrapper in wrappers.items() if name != "discriminator"})
    with pytest.raises(ConfigError, match=r"none was given for \['discriminator'\]"):
        built.train_step({}, without)


CONFIG = """
model = dict(type="{type}", generator=dict(type="EDSRNet"), methods=[dict(type="PCL", loss_share={share})])
"""


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of another training, as MMEngine leaves it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "work_dirs" / "edsr"
    folder.mkdir(parents=True)
    (folder / "iter_10.pth").write_bytes(b"a checkpoint")
    (folder / "edsr.py").write_text('model = dict(type="BaseEditModel", generator=dict(type="EDSRNet"))\n')
    return folder


def write(share: float, work_dir: str | None) -> Path:
    path = Path("edsr_pcl.py")
    text = CONFIG.format(type="contrastive_sr.ContrastiveBaseEditModel", share=share)
    path.write_text(text + (f'work_dir = "{work_dir}"\n' if work_dir else ""))
    return path


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("how", ["config", "--work-dir", "--cfg-options"])
def test_a_folder_of_another_training_is_left_alone(how: str, resume: list[str], baseline: Path) -> None:
    folder = "work_dirs/edsr"
    arguments = {"config": [], "--work-dir": [how, folder], "--cfg-options": [how, f"work_dir={folder}"]}
    config = write(0.2, "work_dirs/edsr" if how == "config" else None)
    with pytest.raises(ConfigError, match=r'of another training \(edsr.py\).*work_dir = "work_dirs/edsr_pcl"'):
        check_work_dir(config, [*arguments[how], *resume])
    assert sorted(path.name for path in baseline.iterdir()) == ["edsr.py", "iter_10.pth"]


def test_a_folder_of_its_own(baseline: Path) -> None:
    own = baseline.with_name("edsr_pcl")
    check_work_dir(write(0.2, None), [])
    own.mkdir()
    check_work_dir(write(0.2, None), ["--resume"])
    (own / "iter_10.pth").write_bytes(b"a checkpoint")
    (own / "edsr_pcl.py").write_text(write(0.2, None).read_text() + "open('ran', 'w')\n")
    check_work_dir(write(0.2, None), [])
    check_work_dir(write(0.5, None), ["--resume"])  # goes on with another share
    with pytest.raises(ConfigError, match="of another training"):
        check_work_dir(write(0.5, None), [])
    assert not Path("ran").exists()  # what lies in the folder is read alone
