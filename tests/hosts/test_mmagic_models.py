"""Methods in the step of MMagic's models: what the host does stays as it is. And the folder a training writes into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from meta_device import STEADY, Literals, Operations, meta, settled  # noqa: F401 - a fixture
from torch import Tensor

pytestmark = [pytest.mark.mmagic]

from mmagic.registry import MODELS  # noqa: E402
from mmagic.structures import DataSample  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.optim import OptimWrapper, OptimWrapperDict  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import contrastive_sr.hosts.mmagic  # noqa: E402 - makes the host importable
from contrastive_sr.errors import ConfigError  # noqa: E402
from contrastive_sr.hosts.mmagic.runner import check_work_dir  # noqa: E402
from contrastive_sr.methods.engine import StepCounter  # noqa: E402

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
    method = {"type": "PCL", "every": 1, "loss_weight": 0.0}
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
    without, before = train(
        "contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL", "every": 1, "loss_weight": 0.0}], **GAN
    )
    share, now = train(
        "contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL", "every": 1, "loss_share": 0.5}], **GAN
    )
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
        build("contrastive_sr.ContrastiveESGAN", methods=[{"type": "PCL", "every": 1}])
    with pytest.raises(ConfigError, match=r"expected a pixel_loss, because methods enter the step by it, got none"):
        build("contrastive_sr.ContrastiveSRGAN", methods=[{"type": "PCL", "every": 1}], **{**GAN, "pixel_loss": None})
    registry = contrastive_sr.hosts.mmagic.registry.MODELS
    assert registry.get("ContrastiveSRGAN") is registry.get("ContrastiveSRGAN")


def test_a_gan_without_an_optimizer_of_its_discriminator() -> None:
    built, wrappers = build("contrastive_sr.ContrastiveESRGAN", methods=[{"type": "PCL", "every": 1}], **GAN)
    assert isinstance(wrappers, OptimWrapperDict)
    without = OptimWrapperDict(**{name: wrapper for name, wrapper in wrappers.items() if name != "discriminator"})
    with pytest.raises(ConfigError, match=r"none was given for \['discriminator'\]"):
        built.train_step({}, without)


CONFIG = """
model = dict(type="{type}", generator=dict(type="EDSRNet"), methods=[dict(type="PCL", every=1, loss_share={share})])
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


# ------------------------------------------------------------------------------------------------ compile= in a config


class Compiling:
    """As much of a runner as MMEngine's own compiling takes."""

    logger = MMLogger.get_current_instance()

    def __init__(self, model: Any, compiled: bool) -> None:
        self.model, self.cfg = model, {"compile": {"backend": "eager"} if compiled else False}
        Runner._maybe_compile(self, "train_step")


def compiled_step(method: dict[str, Any], compiled: bool) -> Any:
    """What a step logs that MMEngine has compiled, or would have."""
    torch.manual_seed(0)
    name = "contrastive_sr.ContrastiveBaseEditModel"
    model = MODELS.build({"type": name, "_scope_": "mmagic", "methods": [method], **SHARED})
    optimizers = {"generator": OptimWrapper(torch.optim.SGD(model.generator.parameters(), lr=1e-3))}
    if model.methods.trainable:
        optimizers["methods"] = OptimWrapper(torch.optim.SGD(model.methods.parameters(), lr=1e-3))
    Compiling(model, compiled)
    assert ("train_step" in vars(model)) == compiled
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    samples = [DataSample(gt_img=image) for image in hr]
    return model.train_step({"inputs": list(lr), "data_samples": samples}, OptimWrapperDict(**optimizers))


@pytest.mark.long
def test_a_step_that_mmengine_compiles() -> None:
    torch.compiler.reset()
    method = {"type": "CriterionTerm", "criterion": "Pixel", "loss_share": 0.5}
    plain, compiled = (compiled_step(method, on) for on in (False, True))
    torch.testing.assert_close(compiled, plain)
    assert [x.item() for name, x in plain.items() if name.endswith("_share")] == pytest.approx([0.5], rel=1e-4)


def test_layers_are_not_read_in_a_step_that_mmengine_compiles() -> None:
    torch.compiler.reset()
    small = {"type": "HaarDiscriminator", "out_indices": [0]}
    method = {"type": "InfoNCE", "loss_weight": 0.1, "layers": ["conv_first"], "dim": 4, "embedding": small}
    with pytest.raises(ConfigError, match=r"compile: expected none with methods that read .* \(conv_first\)"):
        compiled_step(method, compiled=True)


# ------------------------------------------------------------------------------------- on a device that is waited for


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("host", ["BaseEditModel", "SRGAN"])
def test_a_steady_step_reads_what_it_logs_and_nothing_else(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [STEADY - 1]  # the count is read once, when a training begins
    monkeypatch.setattr(StepCounter, "value", property(lambda self: steps[-1]))
    small = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
    methods = [{"type": "PCL", "every": 1, "loss_share": 0.1, "embedding": small}]
    with torch.device("meta"):
        model, wrappers = build(f"contrastive_sr.Contrastive{host}", methods=methods, **(GAN if "GAN" in host else {}))
    settled(model.methods)
    hr = torch.rand(2, 3, 64, 64, device="meta")
    images = {
        "inputs": {"img": hr[..., ::4, ::4]},
        "data_samples": DataSample.stack([DataSample(gt_img=x) for x in hr]),
    }
    model.data_preprocessor.forward = lambda data, training: data  # it sends images to the device
    if "GAN" in host:
        model.step_counter = torch.tensor(0)  # which MMagic reads in each step
    with Operations():
        model.train_step(images, wrappers)  # in its first call MMagic's EDSR copies a mean to the device
    for number in (STEADY - 1, STEADY):  # the first of the two measures shares
        steps.append(number)
        with Literals() as literals, Operations() as operations:
            log = model.train_step(images, wrappers)
        assert dict(operations.mixed) == {"aten._to_copy.default": 1}
        assert literals.count == 0
        assert not any(value.is_meta for value in log.values())
