"""Each criterion against its definition, where its gradient goes, and what is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cria_models import save_random_vgg
from same import assert_same
from skimage.metrics import structural_similarity
from tolerances import assert_close, tolerance
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from contrastive_sr.criteria import MSSSIM, SSIM, VGG, Adversarial, CriteriaByName, Criterion, Pixel, Registered
from contrastive_sr.embeddings import RGBDiscriminator, TrainableEmbedding
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr


def pair(size: int = 32, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """SR and HR images."""
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, size, size, generator=generator, dtype=dtype)
    sr = hr + 0.2 * torch.randn(hr.shape, generator=generator, dtype=dtype)
    return sr, hr


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first convolutions of a VGG-19, with random weights."""
    torch.manual_seed(0)
    state = {}
    for index, (inputs, outputs) in {0: (3, 64), 2: (64, 64), 5: (64, 128)}.items():
        conv = nn.Conv2d(inputs, outputs, 3)
        state.update({f"features.{index}.{name}": value for name, value in conv.state_dict().items()})
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    torch.save(state, path)
    return path


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_pixel_is_the_mean_over_the_colours(norm: str, power: int) -> None:
    sr, hr = pair(4)
    values = Pixel(norm=norm)(sr, hr)
    assert values.shape == (2, 1, 4, 4)
    for b in range(2):
        for y in range(4):
            for x in range(4):
                want = sum(abs(sr[b, c, y, x].item() - hr[b, c, y, x].item()) ** power for c in range(3)) / 3
                assert_close(values[b, 0, y, x], want, "exact", dtype=torch.float64)


def test_ssim_is_scikit_image_s() -> None:
    """But at the borders, where each pads in its own way."""
    sr, hr = pair(40)
    values = SSIM()(sr, hr)
    assert values.shape == (2, 1, 40, 40)
    for got, one, other in zip(values, sr, hr, strict=True):
        _, whole = structural_similarity(
            *(np.moveaxis(image.numpy(), 0, 2) for image in (one, other)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=2,
            full=True,
        )
        assert_close(
            1 - got[0, 5:-5, 5:-5], torch.from_numpy(whole.mean(2)[5:-5, 5:-5]), "loose", dtype=torch.float64, scale=1
        )


def test_ssim_is_exact_under_autocast_and_in_float32() -> None:
    sr, hr = pair(24)
    want = SSIM()(sr, hr)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = SSIM()(sr.to(dtype), hr.to(dtype))
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), want, rtol=0, atol=tolerance(dtype, "loose"))


def test_the_top_layer_of_vgg_follows_the_model(tmp_path: Path) -> None:
    for model, file, layers in (
        ("vgg19", "19", ("conv5_4", "relu1_2")),
        ("vgg16", "16", ("conv5_3", "relu1_2")),
    ):
        weights = save_random_vgg(tmp_path / file, model)
        criteria = CriteriaByName()
        plain = {"type": "VGG", "model": model, "weights": weights}
        name = criteria.add(plain, "here")
        assert name == f"{'vgg' if model == 'vgg19' else model}_{layers[0]}"
        assert criteria.add({**plain, "layer": layers[0]}, "there") == name  # the same one, with its layer named
        assert criteria.add({**plain, "layer": layers[1]}, "there") == name.replace(*layers)
        assert len(criteria) == 2
    with pytest.raises(ConfigError, match="16 holds the weights of a vgg16, expected those of a vgg19"):
        VGG(weights=tmp_path / "16")
    with pytest.raises(ConfigError, match=r"VGGFeatures\(model\): expected one of vgg19, vgg16, got 'vgg'"):
        CriteriaByName().add({"type": "VGG", "model": "vgg"}, "here")


@pytest.mark.parametrize("scales", [1, 2, 3, None])
def test_ms_ssim_is_torchmetrics(scales: int | None) -> None:
    """With as many scales as 176 pixels allow, that of the paper; with fewer, their exponents over their sum."""
    sr, hr = (F.avg_pool2d(images, 5, 1, 2) for images in pair(176 if scales is None else 60))
    exponents = torch.tensor((0.0448, 0.2856, 0.3001, 0.2363, 0.1333))[:scales]
    want = multiscale_structural_similarity_index_measure(
        sr, hr, data_range=1.0, reduction="none", betas=tuple((exponents / exponents.sum()).tolist())
    )
    values = MSSSIM(scales=scales)(sr, hr)
    assert values.shape == (2, 1, 1, 1)
    assert_close(1 - values.flatten(), want, "loose", dtype=torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = MSSSIM(scales=scales)(sr.to(dtype), hr.to(dtype))
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.double(), values, rtol=0, atol=tolerance(dtype, "loose"))


def test_ms_ssim_takes_the_scales_that_the_patches_allow() -> None:
    for size, scales in ((11, 1), (21, 1), (22, 2), (44, 3), (87, 3), (88, 4), (96, 4), (175, 4), (176, 5)):
        sr, hr = (images[:1] for images in pair(size, torch.float32))
        assert torch.equal(MSSSIM()(sr, hr), MSSSIM(scales=scales)(sr, hr))
        if scales < 5:
            with pytest.raises(DataError, match=rf"MSSSIM: expected HR patches of at least .* for {scales + 1} scales"):
                MSSSIM(scales=scales + 1)(sr, hr)
    with pytest.raises(DataError, match="at least 11 x 11 pixels for 1 scales, got 10 x 10"):
        MSSSIM().check_size(10, 10)


def test_ms_ssim_of_a_negative_has_a_finite_gradient() -> None:
    """Where all scales anticorrelate, as they may in the first steps of a training."""
    _, hr = pair(44, torch.float32)
    sr = (1 - hr).requires_grad_()
    value = MSSSIM()(sr, hr).mean()
    value.backward()
    assert value > 0.9
    assert sr.grad is not None
    assert sr.grad.isfinite().all()


def test_vgg_compares_one_layer(vgg_file: Path) -> None:
    sr, hr = pair(8)
    criterion = VGG(layer="relu2_1", weights=vgg_file).double()
    assert criterion.label == "vgg_relu2_1"
    state = torch.load(vgg_file)
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def layer(images: Tensor) -> Tensor:
        x = (images - mean) / std
        for index in (0, 2, 5):
            if index == 5:
                x = F.max_pool2d(x, 2)
            weight, bias = (state[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1).clamp_min(0)
        return x

    difference = (layer(sr) - layer(hr)).abs().mean(1, keepdim=True)
    want = F.interpolate(difference, (8, 8), mode="bilinear", align_corners=False)
    # the mean and deviation of the embedding are float32 numbers
    torch.testing.assert_close(criterion(sr, hr), want, rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in criterion.parameters())


class Plain(TrainableEmbedding):
    """Without BatchNorm, so that an image's logits are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.drop = nn.Dropout()  # tells the mode

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.drop(self.conv(images))]

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self(images)[0].tanh().mean((2, 3))
        return logits


def test_adversarial_is_the_generator_s_loss_of_each_image() -> None:
    torch.manual_seed(0)
    sr, hr = pair(8)
    criterion = Adversarial(Plain().double())
    values = criterion(sr, hr)
    assert values.shape == (2, 1, 1, 1)
    criterion.eval()
    for got, image in zip(values.flatten(), sr, strict=True):
        logits = criterion.discriminator.logits(image[None]).flatten().tolist()
        assert got.item() == pytest.approx(sum(math.log(1 + math.exp(-z)) for z in logits) / 5)


def test_with_batchnorm_the_verdict_is_the_one_it_was_trained_to_give() -> None:
    """Of both images in one normalisation, while nothing in the discriminator moves; also in eval mode."""
    torch.manual_seed(0)
    sr, hr = pair(32)
    criterion = Adversarial().double()
    again = RGBDiscriminator().double()
    again.load_state_dict(criterion.discriminator.state_dict())
    want = F.softplus(-again.train().logits(torch.cat((hr, sr)))[2:]).mean(1)
    before = {name: value.clone() for name, value in criterion.state_dict().items() if "tracked" not in name}
    for mode in (True, False):
        torch.testing.assert_close(criterion.train(mode)(sr, hr).flatten(), want)
        assert criterion.discriminator.training == mode
    assert_same(before, {name: criterion.state_dict()[name] for name in before})
    assert {block.norm.momentum for block in criterion.discriminator.blocks} == {0.1}


def test_discriminator_s_loss_is_the_cross_entropy() -> None:
    torch.manual_seed(0)
    sr, hr = pair(32)
    criterion = Adversarial({"type": "RGBDiscriminator", "out_indices": [0]}).double().eval()
    again = RGBDiscriminator(out_indices=[0]).double().train()
    again.load_state_dict(criterion.discriminator.state_dict())
    other = torch.rand_like(sr).requires_grad_()
    loss = criterion.discriminator_loss(hr, [sr.requires_grad_(), other])
    loss.backward()
    want = torch.zeros((), dtype=torch.float64)
    for images in (sr, other):
        real, fake = again.logits(torch.cat((hr, images))).detach().chunk(2)
        want = want + F.binary_cross_entropy_with_logits(real, torch.ones_like(real)) / 2
        want = want + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)) / 2
    torch.testing.assert_close(loss.detach(), want)
    assert sr.grad is None
    assert other.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in criterion.discriminator.head.parameters())


class Two(nn.Module):
    """As the hosts' perceptual losses: a content and a style part, of which one may be None."""

    def __init__(self, style: bool) -> None:
        super().__init__()
        self.style = style

    def forward(self, sr: Tensor, hr: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (sr - hr).abs().mean(), (sr.mean() - hr.mean()).square() if self.style else None


def test_registered_losses_are_scalars_maps_or_several() -> None:
    sr, hr = pair(8)
    assert Registered(nn.MSELoss())(sr, hr).item() == pytest.approx(F.mse_loss(sr, hr).item())
    maps = Registered(nn.L1Loss(reduction="none"))(sr, hr)
    torch.testing.assert_close(maps, Pixel()(sr, hr))
    content, style = Two(True)(sr, hr)
    assert content is not None
    assert style is not None
    assert Registered(Two(True))(sr, hr).item() == pytest.approx((content + style).item())
    assert Registered(Two(False))(sr, hr).item() == pytest.approx(content.item())
    assert [Registered(loss).label for loss in (nn.MSELoss(), Two(True))] == ["mse", "two"]


# ----------------------------------------------------------------------------------------------------- gradients


class Relative(nn.Module):
    """0 / 0 for equal images."""

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).square().mean() / (sr - hr).abs().mean()


class Weighted(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (self.weight * (sr - hr)).square().mean()


@pytest.mark.parametrize("kind", ["pixel", "ssim", "ms_ssim", "vgg", "adversarial", "registered"])
def test_gradient_reaches_sr_and_nothing_else(kind: str, vgg_file: Path) -> None:
    make: dict[str, Callable[[], Criterion]] = {
        "pixel": Pixel,
        "ssim": SSIM,
        "ms_ssim": MSSSIM,
        "vgg": lambda: VGG(layer="relu1_2", weights=vgg_file),
        "adversarial": Adversarial,
        "registered": lambda: Registered(Weighted()),
    }
    torch.manual_seed(0)
    criterion = make[kind]()
    before = {name: value.clone() for name, value in criterion.state_dict().items() if "tracked" not in name}
    sr, hr = pair(32, torch.float32)
    sr.requires_grad_()
    criterion(sr, hr).mean().backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert all(p.grad is None for p in criterion.parameters())
    assert_same(before, {name: criterion.state_dict()[name] for name in before})


@pytest.mark.parametrize("kind", [Pixel, SSIM, MSSSIM])
def test_equal_images_have_no_difference(kind: type[Criterion]) -> None:
    _, hr = pair(16)
    sr = hr.clone().requires_grad_()
    value = kind()(sr, hr)
    assert value.abs().max() < 1e-12
    value.sum().backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()


# ----------------------------------------------------------------------------------------------------- by name


def test_the_same_config_is_one_criterion() -> None:
    criteria = CriteriaByName()
    assert criteria.add("Adversarial", "a") == criteria.add({"type": "Adversarial", "discriminator": None}, "b")
    assert len(criteria) == 1
    loss = nn.MSELoss()
    assert criteria.add(loss, "c") == criteria.add(loss, "d") == "mse"
    assert criteria.add({"type": "Pixel", "norm": "l2", "name": "far"}, "e") == "far"
    assert criteria.add({"type": "Pixel", "norm": "l2"}, "f") == "far"
    assert list(criteria) == ["adversarial", "mse", "far"]


class Fails(nn.Module):
    def forward(self, sr: Tensor) -> Tensor:
        return sr


class Halved(nn.Module):
    """A map, but smaller than the images."""

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return F.avg_pool2d((sr - hr).abs(), 2)


class WeightedVariation(nn.Module):
    """As BasicSR's WeightedTVLoss: what would be the HR image is a weight."""

    def forward(self, sr: Tensor, weight: Tensor) -> Tensor:
        return (weight[..., 1:] * (sr[..., 1:] - sr[..., :-1]).abs()).mean()


class Similarity(nn.Module):
    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return -(sr - hr).square().mean()


class Half(nn.MSELoss):
    pass


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        (
            ["Pixels"],
            r"here: does not know the type 'Pixels'\. Did you mean 'Pixel'\? Accepted: Adversarial, Pixel, SSIM, "
            "MSSSIM, VGG.* To add your own, put @register_criterion",
        ),
        ([{"norm": "l1"}], "expected a mapping with `type`"),
        ([{"type": "Pixel", "norm": "l3"}], r"Pixel\(norm\): expected one of l1, l2, got 'l3'"),
        ([{"type": "Pixel", "nrm": "l1"}], "does not know the key 'nrm'. Did you mean 'norm'"),
        ([{"type": "VGG", "layer": "relu9_9", "weights": "x"}], "expected names out of conv1_1"),
        ([{"type": "VGG", "weights": "nowhere.pth"}], "expected an existing file, got nowhere.pth"),
        ([{"type": "Pixel", "name": "my loss"}], "expected a word without 'loss', got 'my loss'"),
        ([{"type": "Pixel", "name": "my_loss"}], "expected a word without 'loss'"),
        ([{"type": "Pixel", "name": "keys"}], "'keys' cannot be a criterion's name. Give it a `name`, e.g. `my_keys`"),
        ([Half()], "'half' cannot be a criterion's name. Give it a `name`, e.g. `my_half`"),
        (["SSIM", {"type": "SSIM", "name": "far"}], "the same criterion is there already, as 'ssim', got 'far'"),
        (
            [{"type": "SSIM", "name": "a"}, {"type": "SSIM", "name": "b"}],
            "here: name: the same criterion is there already, as 'a', got 'b' .str.. Give both the same name",
        ),
        ([nn.L1Loss(), nn.L1Loss(reduction="sum")], "the name 'l1' already, with other settings. Give one a `name`"),
        ([Fails()], "Fails: expected a loss that is called with SR and HR images alone, but it fails .TypeError"),
        ([Halved()], r"Halved: .* maps \(B, C, H, W\), got .* \(2, 3, 32, 32\) for images of 64 x 64"),
        (
            [WeightedVariation()],
            r"smallest where the SR image is the HR image, but it gives 0\.\d+ there, and 0 for a flat",
        ),
        ([Relative()], "Relative: expected a loss that is smallest where .* gives nan there"),
        ([Similarity()], "Similarity: expected a loss that is smallest where .* Is it a similarity"),
        ([nn.CosineSimilarity()], r"expected a loss that returns scalars or maps .*got a float32 tensor of shape"),
    ],
)
def test_what_cannot_be_a_criterion(configs: list[Any], message: str) -> None:
    criteria = CriteriaByName()
    *first, last = configs
    for config in first:
        criteria.add(config, "here")
    with pytest.raises(ConfigError, match=message):
        criteria.add(last, "here")


def test_a_fixed_embedding_is_no_discriminator(vgg_file: Path) -> None:
    fixed = {"type": "VGGFeatures", "layers": ["relu1_2"], "weights": vgg_file}
    with pytest.raises(
        ConfigError, match=r"expected an embedding that can learn, one of .*HaarDiscriminator.*got VGGFeatures"
    ):
        Adversarial(fixed)


def test_without_torchmetrics_ssim_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ConfigError, match=r"SSIM needs torchmetrics.*pip install .*\"contrastive-sr\[ssim\]\""):
        SSIM()


def test_images_that_do_not_fit() -> None:
    sr, hr = pair(16)
    with pytest.raises(DataError, match=r"Pixel\(hr\): expected a non-empty tensor \(2, 3, 16, 16\)"):
        Pixel()(sr, hr[..., :8])
    with pytest.raises(DataError, match="SSIM: expected HR patches of at least 11 x 11 pixels, got 10 x 16"):
        SSIM()(sr[:, :, :10], hr[:, :, :10])
    with pytest.raises(DataError, match="RGBDiscriminator: expected HR patches of at least 16 x 16"):
        Adversarial().check_size(12, 12)


@pytest.mark.basicsr
def test_a_discriminator_of_the_host_judges_and_learns() -> None:
    """ESRGAN's, which is BasicSR's, for patches of one size."""
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    torch.manual_seed(0)
    config = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 128}
    adversarial = Adversarial(config)
    hr, sr = (torch.rand(2, 3, 128, 128) for _ in range(2))
    sr.requires_grad_()
    values = adversarial(sr, hr)
    assert values.shape == (2, 1, 1, 1)
    values.sum().backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert all(p.grad is None for p in adversarial.parameters())
    _, fake = adversarial.discriminator.logits(torch.cat((hr, sr.detach()))).chunk(2)
    assert_close(values.mean(), F.softplus(-fake).mean(), dtype=torch.float32)
    adversarial.discriminator_loss(hr, [sr]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adversarial.parameters())
    adversarial.check_size(128, 128)
    with pytest.raises(DataError, match="VGGStyleDiscriminator: expected HR patches of a size that it takes, got 96"):
        adversarial.check_size(96, 96)


def test_a_registered_loss_stays_in_eval_mode() -> None:
    """With dropout or BatchNorm, as perceptual losses have it, it would be another loss at each step of a training."""

    class Perceptual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

        def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
            return (self.features(sr) - self.features(hr)).square().mean()

    torch.manual_seed(0)
    criterion, (sr, hr) = Registered(Perceptual()), pair(dtype=torch.float32)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    value = criterion(sr, hr)
    criterion.train()
    assert_same(criterion(sr, hr), value)
    assert_same(dict(criterion.state_dict()), before)
