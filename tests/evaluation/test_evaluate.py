"""Measuring networks: figures against the hosts' and other libraries' own, and what is refused."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from contrastive_sr.data.images import UInt8Image, as_image, as_tensor
from contrastive_sr.degradations import bicubic_upsample
from contrastive_sr.errors import ConfigError, DataError, HostError, NonFiniteError
from contrastive_sr.evaluation import Pair, bicubic, bicubic_pair, evaluate, summary
from contrastive_sr.evaluation.evaluate import check_measurable
from contrastive_sr.evaluation.lpips import load_lpips


@pytest.fixture(scope="module")
def photo() -> UInt8Image:
    image: UInt8Image = data.astronaut()[40:203, 160:331]
    return image


@pytest.mark.basicsr
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_as_basicsr_makes_and_measures_it(photo: UInt8Image, scale: int) -> None:
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    imresize = import_basicsr("basicsr.utils.matlab_functions").imresize
    metrics = import_basicsr("basicsr.metrics")
    hr = photo[: 163 // scale * scale, : 171 // scale * scale]
    lr = (imresize(hr / 255, 1 / scale).clip(0, 1) * 255).round()
    sr = (imresize(lr / 255, scale).clip(0, 1) * 255).round().astype(np.uint8)

    enlarged = bicubic_upsample(torch.from_numpy(lr / 255).permute(2, 0, 1)[None], scale)
    np.testing.assert_allclose(enlarged[0].permute(1, 2, 0), imresize(lr / 255, scale), atol=1e-5)

    pair = bicubic_pair("astronaut", photo, scale)
    np.testing.assert_array_equal(pair.hr, hr)
    np.testing.assert_allclose(pair.lr[0].permute(1, 2, 0) * 255, lr, atol=1.01)  # ties of rounding
    seen = []
    (score,) = evaluate(bicubic(scale), [pair], scale, on_image=lambda _, image, __: seen.append(image))
    assert (np.abs(seen[0].astype(int) - sr) > 0).mean() < 0.01
    bgr = {"img": sr[..., ::-1], "img2": hr[..., ::-1], "crop_border": scale, "test_y_channel": True}
    assert score.values["psnr_y"] == pytest.approx(metrics.calculate_psnr(**bgr), abs=2e-3)
    assert score.values["ssim_y"] == pytest.approx(metrics.calculate_ssim(**bgr), abs=2e-4)
    assert (score.width, score.height) == (hr.shape[1], hr.shape[0])


def test_images_survive_the_way_to_tensors(photo: UInt8Image) -> None:
    np.testing.assert_array_equal(as_image(as_tensor(photo)), photo)
    assert as_image(torch.tensor([-0.1, 0.5, 1.2]).view(1, 3, 1, 1)).tolist() == [[[0, 128, 255]]]


class Hungry(nn.Module):
    """Takes a given number of MiB for a moment, in pieces so small that the C library keeps what is freed."""

    def __init__(self, mebibytes: int) -> None:
        super().__init__()
        self.mebibytes = mebibytes

    def forward(self, lr: Tensor) -> Tensor:
        _ = [torch.ones(2**14) for _ in range(16 * self.mebibytes)]
        return nn.functional.interpolate(lr, scale_factor=4)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process' peak of memory")
def test_memory_of_every_image_is_its_own(photo: UInt8Image) -> None:
    pairs = [bicubic_pair(str(number), photo, 4) for number in range(3)]
    for size in (40, 200):
        used = [score.values["memory_mib"] for score in evaluate(Hungry(size).eval(), pairs, 4)]
        assert all(memory is not None and size - 1 <= memory < size + 15 for memory in used), used


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process' peak of memory")
def test_garbage_is_no_memory_of_the_image_during_which_it_is_freed(photo: UInt8Image) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself, self.content = self, torch.ones(50 * 2**18)

    class Littering(Hungry):
        clean = True

        def forward(self, lr: Tensor) -> Tensor:
            if self.clean:  # the trial, which is not measured
                Cycle()
                self.clean = False
                return nn.functional.interpolate(lr, scale_factor=4)
            gc.set_threshold(1, 1, 1)
            return super().forward(lr)

    often = gc.get_threshold()
    try:
        (score,) = evaluate(Littering(100).eval(), [bicubic_pair("a", photo, 4)], 4)
    finally:
        gc.set_threshold(*often)
    assert gc.isenabled()
    memory = score.values["memory_mib"]
    assert memory is not None
    assert 99 <= memory < 115


def test_tiles_and_measures_of_ones_own(photo: UInt8Image) -> None:
    sizes = []

    def net(lr: Tensor) -> Tensor:
        sizes.append(max(lr.shape[-2:]))
        return nn.functional.interpolate(lr, scale_factor=2)

    mean: dict[str, float] = {}

    def error(sr: UInt8Image, hr: UInt8Image) -> float:
        mean["error"] = float(np.abs(sr.astype(float) - hr).mean())
        return mean["error"]

    (score,) = evaluate(net, [bicubic_pair("a", photo, 2)], 2, metrics={"error": error}, tile=32, overlap=4)
    assert len(sizes) > 5
    assert max(sizes[1:]) <= 32  # the first is the trial
    assert score.values["error"] == mean["error"]
    assert list(score.values) == ["psnr_y", "ssim_y", "error", "seconds", "memory_mib"]


def test_summary_leaves_out_what_has_no_value() -> None:
    from contrastive_sr.evaluation import Score

    values = ({"niqe": None, "lpips": None, "memory_mib": 3.0}, {"niqe": 5.0, "lpips": None, "memory_mib": 1.0})
    assert summary([Score("a", 9, 9, dict(v)) for v in values]) == {"niqe": 5.0, "lpips": None, "memory_mib": 3.0}


def test_what_cannot_be_used_is_explained(photo: UInt8Image) -> None:
    pair = bicubic_pair("astronaut.png", photo, 4)
    with pytest.raises(ConfigError, match="got Upsample in training mode"):
        evaluate(nn.Upsample(scale_factor=4), [pair], 4)
    with pytest.raises(ConfigError, match=r"4 times as large, .* got shape \(1, 3, 128, 128\). It is a network for x2"):
        evaluate(nn.Upsample(scale_factor=2).eval(), [pair], 4)
    with pytest.raises(ConfigError, match="got a list"):
        evaluate(lambda lr: [lr], [pair], 4)  # type: ignore[arg-type, return-value]
    with pytest.raises(NonFiniteError, match="a grey image, 64 x 64 in LR: the network's output holds NaN"):
        evaluate(lambda lr: bicubic(4)(lr) / 0 * 0, [pair], 4)
    with pytest.raises(ConfigError, match=r"a grey image, .*: the network failed \(RuntimeError: .*channels"):
        evaluate(nn.Conv2d(1, 1, 1).eval(), [pair], 4)
    with pytest.raises(DataError, match=r"astronaut.png: expected an HR image of shape \(80, 84, 3\) for scale 2"):
        evaluate(bicubic(2), [pair._replace(hr=pair.hr[:80])], 2)
    with pytest.raises(DataError, match=r"small: expected an HR image of at least 19 pixels a side, .* got 40 x 16"):
        check_measurable(bicubic_pair("small", photo[:16, :40], 4), 4)
    with pytest.raises(ConfigError, match="tile: expected at least 72 pixels"):
        evaluate(bicubic(4), [pair], 4, tile=40)


def test_too_little_memory_says_to_use_tiles(photo: UInt8Image) -> None:
    def net(lr: Tensor) -> Tensor:
        if lr.shape[-1] > 40 and lr.shape[-1] != lr.shape[-2]:
            torch.empty(2**50)
        return bicubic(4)(lr)

    pairs = [bicubic_pair("astronaut.png", photo, 4)]
    with pytest.raises(
        ConfigError, match=r"astronaut.png, 42 x 40 in LR: .* too little memory on the cpu .*--tile 256"
    ):
        evaluate(net, pairs, 4)
    assert evaluate(net, pairs, 4, tile=32, overlap=8)


# -------------------------------------------------------------------------------------------------------- LPIPS


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of our own in the form of torchvision's file: nothing is downloaded in tests."""
    import torchvision

    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.manual_seed(0)
    state = torchvision.models.alexnet(weights=None).features.state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    return path


@pytest.mark.filterwarnings("ignore:.*deprecated since 0.13:UserWarning")  # of their package
def test_lpips_equals_that_of_its_authors(alexnet: Path, photo: UInt8Image) -> None:
    theirs = pytest.importorskip("lpips", reason="the authors' package comes with the extra mmagic")
    oracle = theirs.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {name.removeprefix("features."): value for name, value in torch.load(alexnet).items()}
    oracle.net.load_state_dict({name: state[name.partition(".")[2]] for name in oracle.net.state_dict()})
    hr = bicubic_pair("", photo, 4).hr
    sr = as_image(bicubic(4)(bicubic_pair("", photo, 4).lr))
    expected = oracle(as_tensor(sr) * 2 - 1, as_tensor(hr) * 2 - 1).item()
    ours = load_lpips(alexnet)
    assert expected > 0.001
    assert ours(sr, hr) == pytest.approx(expected, rel=1e-4)
    assert ours(hr, hr) == 0


def test_lpips_refuses_other_files(alexnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.load(alexnet)
    torch.save({**state, "features.3.weight": torch.rand(3)}, tmp_path / "shape.pth")
    with pytest.raises(
        ConfigError, match=r"shape.pth was expected .* AlexNet .* features.3.weight is of another shape"
    ):
        load_lpips(tmp_path / "shape.pth")
    torch.save({"conv.weight": torch.rand(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"features.0.weight is missing"):
        load_lpips(tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="expected an existing file"):
        load_lpips(tmp_path / "none.pth")
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    with pytest.raises(HostError, match=r"contrastive-sr\[evaluate\]"):
        load_lpips(alexnet)


def test_equal_images_have_infinite_psnr() -> None:
    hr = np.full((64, 64, 3), 90, dtype=np.uint8)
    (score,) = evaluate(nn.Upsample(scale_factor=4).eval(), [Pair("flat", as_tensor(hr)[..., ::4, ::4], hr)], 4)
    assert score.values["psnr_y"] == math.inf
