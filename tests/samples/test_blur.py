"""GaussianBlur against torchvision's blur, image by image, with the sizes and widths that were drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import assert_close
from torch import Tensor
from torchvision.transforms import functional as tv

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.samples import GaussianBlur

SEVERAL = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2, height: int = 20, width: int = 17, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=seeded(5), dtype=torch.float64).to(dtype)


def size_and_sigma(kernel: Tensor) -> tuple[int, float]:
    """What a kernel was drawn with, read off its values: a Gaussian's neighbours have the ratio exp(-1 / 2 sigma^2)."""
    size = int((kernel.sum(0) > 0).sum())
    middle = kernel.shape[0] // 2
    ratio = kernel[middle, middle + 1] / kernel[middle, middle]
    return size, float((-0.5 / ratio.log()).sqrt())


def test_equals_torchvision_s_blur_of_each_sample() -> None:
    hr = images(dtype=torch.float64)
    blur = GaussianBlur(count=5)
    kernels = blur.kernels((2, 5), hr, seeded())
    samples = blur({"hr": hr}, seeded())
    assert samples.shape == (2, 5, 3, 20, 17)
    drawn = set()
    for b in range(2):
        for n in range(5):
            size, sigma = size_and_sigma(kernels[b, n])
            drawn.add(size)
            expected = tv.gaussian_blur(hr[b], [size, size], [sigma, sigma])
            # older torchvisions make their kernel in float32
            assert_close(samples[b, n], expected, "exact", dtype=torch.float32, scale=1, times=0.5)
            assert (expected - hr[b]).abs().max() > 0.01
    assert len(drawn) > 2


def test_one_size_and_width_is_torchvision_s() -> None:
    hr = images()
    for size, sigma in ((3, 0.5), (7, 1.5), (11, 4.0)):
        samples = GaussianBlur(count=1, sizes=(size,), sigma=(sigma, sigma))({"hr": hr}, seeded())
        expected = tv.gaussian_blur(hr, [size, size], [sigma, sigma])
        assert_close(samples[:, 0], expected, "exact", scale=1)


def test_kernels_sum_to_one_and_vanish_outside_their_size() -> None:
    blur = GaussianBlur()
    kernels = blur.kernels((400,), torch.zeros((), dtype=torch.float64), seeded())
    assert kernels.shape == (400, 11, 11)
    assert_close(kernels.sum((1, 2)), torch.ones(400, dtype=torch.float64), "exact")
    assert torch.equal(kernels, kernels.transpose(1, 2))
    assert torch.equal(kernels, kernels.flip(1))
    sizes, sigmas = zip(*(size_and_sigma(kernel) for kernel in kernels), strict=True)
    for kernel, size in zip(kernels, sizes, strict=True):
        inside = slice(5 - size // 2, 6 + size // 2)
        assert (kernel[inside, inside] > 0).all()
        assert torch.count_nonzero(kernel) == size * size
    assert {sizes.count(size) > 40 for size in (3, 5, 7, 9, 11)} == {True}  # each about 80 of 400 times
    assert min(sigmas) >= 0.3
    assert max(sigmas) <= 1.5
    assert min(sigmas) < 0.35
    assert max(sigmas) > 1.45
    assert abs(sum(sigmas) / 400 - 0.9) < 0.06  # uniform: mean 0.9, standard error 0.017


def test_every_sample_of_every_image_is_drawn_anew() -> None:
    hr = images(1).expand(3, -1, -1, -1)
    samples = GaussianBlur(count=3)({"hr": hr}, seeded()).flatten(0, 1)
    for i in range(9):
        for j in range(i):
            assert (samples[i] - samples[j]).abs().max() > 1e-5


def test_the_generator_decides() -> None:
    batch = {"hr": images()}
    blur = GaussianBlur(count=2)
    first = blur(batch, seeded(3))
    torch.manual_seed(9)
    assert torch.equal(blur(batch, seeded(3)), first)
    assert not torch.equal(blur(batch, seeded(4)), first)
    torch.manual_seed(1)
    own = blur(batch)
    assert not torch.equal(blur(batch), own)
    torch.manual_seed(1)
    assert torch.equal(blur(batch), own)


def test_does_not_touch_the_global_random_state_nor_the_images() -> None:
    hr = images()
    before, state = hr.clone(), torch.get_rng_state()
    GaussianBlur()({"hr": hr}, seeded())
    assert torch.equal(hr, before)
    assert torch.equal(torch.get_rng_state(), state)


@SEVERAL
@given(
    batch=st.integers(1, 3),
    count=st.integers(1, 3),
    height=st.integers(6, 24),
    width=st.integers(6, 24),
    sizes=st.lists(st.sampled_from([1, 3, 5, 7, 9, 11]), min_size=1, max_size=4),
    low=st.floats(0.01, 3),
    spread=st.floats(0, 3),
    seed=st.integers(0, 2**31),
)
def test_values_stay_between_those_of_the_image(
    batch: int, count: int, height: int, width: int, sizes: list[int], low: float, spread: float, seed: int
) -> None:
    hr = torch.rand(batch, 3, height, width, generator=seeded(seed))
    samples = GaussianBlur(count=count, sizes=sizes, sigma=(low, low + spread))({"hr": hr}, seeded(seed))
    assert samples.shape == (batch, count, 3, height, width)
    assert samples.dtype == hr.dtype
    lowest, highest = hr.amin((2, 3)), hr.amax((2, 3))
    assert (samples.amin((3, 4)) >= lowest[:, None] - 1e-6).all()
    assert (samples.amax((3, 4)) <= highest[:, None] + 1e-6).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_stay_in_range(value: float) -> None:
    samples = GaussianBlur()({"hr": torch.full((1, 3, 12, 12), value)}, seeded())
    assert samples.min() >= 0
    assert samples.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"GaussianBlur\(count\): expected a whole number of at least 1, got 0"),
        ({"count": 1.0}, r"GaussianBlur\(count\): expected a whole number"),
        ({"sizes": (4,)}, r"GaussianBlur\(sizes\): expected odd kernel sizes such as \(3, 5, 7\), got \(4,\)"),
        ({"sizes": ()}, r"GaussianBlur\(sizes\): expected odd kernel sizes"),
        ({"sizes": 5}, r"GaussianBlur\(sizes\): expected odd kernel sizes"),
        ({"sizes": (3, 0)}, r"GaussianBlur\(sizes\): expected a whole number of at least 1"),
        (
            {"sigma": (1.5, 0.3)},
            r"GaussianBlur\(sigma\): expected a pair \(low, high\), the smaller number first, got \(1\.5, 0\.3\)",
        ),
        ({"sigma": (0, 1)}, r"GaussianBlur\(sigma\)\[0\]: expected a number of at least 0.001, got 0"),
        ({"sigma": 1.0}, r"GaussianBlur\(sigma\): expected a pair \(low, high\)"),
        ({"sigma": ("3e-1", 1)}, r"GaussianBlur\(sigma\)\[0\].*In YAML"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GaussianBlur(**arguments)  # type: ignore[arg-type]


def test_images_smaller_than_the_mirrored_edge_are_refused() -> None:
    GaussianBlur()({"hr": images(1, 6, 6)})
    with pytest.raises(DataError, match=r"GaussianBlur: expected HR images larger than 5 pixels.*got \(5, 8\)"):
        GaussianBlur()({"hr": images(1, 5, 8)})


def test_noise_is_added_to_what_was_blurred_without_it() -> None:
    hr = torch.full((2, 3, 64, 64), 0.5)
    hr[1] = images(1, 64, 64)[0] * 0.2 + 0.4
    plain = GaussianBlur(count=6)({"hr": hr}, seeded())
    noisy = GaussianBlur(count=6, noise=(0.02, 0.08))({"hr": hr}, seeded())
    assert torch.equal(GaussianBlur(count=6, noise=(0, 0))({"hr": hr}, seeded()), plain)
    levels = (noisy - plain).flatten(2).std(2)
    assert levels.min() > 0.018
    assert levels.max() < 0.083
    assert len({round(level.item(), 4) for level in levels.flatten()}) == 12  # each sample draws its own
    assert ((noisy - plain).flatten(2).mean(2).abs() < 0.004).all()
    assert GaussianBlur(count=1, noise=(1, 1))({"hr": hr}, seeded()).aminmax() == (0, 1)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ((0, 10), r"standard deviations for images in \[0, 1\], got \(0, 10\)\. Divide"),
        ((0.2, 0.1), "the smaller number first"),
        (0.1, r"expected a pair \(low, high\)"),
    ],
)
def test_noise_that_makes_no_sense(noise: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"GaussianBlur\(noise\).*{message}"):
        GaussianBlur(noise=noise)  # type: ignore[arg-type]


def test_noise_of_grey_images_is_grey() -> None:
    hr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    hr[0] = hr[0, :1]
    blurred = GaussianBlur(count=4, noise=(10 / 255, 10 / 255))({"hr": hr}, torch.Generator().manual_seed(1))
    assert torch.equal(blurred[0], blurred[0, :, :1].expand_as(blurred[0]))
    assert not torch.isclose(blurred[1], blurred[1, :, :1]).all((1, 2, 3)).any()
