"""Whole degradations: against loops over pixels, their draws, their noise, presets and configs."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from degradation_oracles import bicubic_loops, blur_loops, field_loops, gaussian_loops, s_fold_loops
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.degradations import (
    PRESETS,
    AnisotropicGaussian,
    Degradation,
    IsotropicGaussian,
    Kernel,
    SpatiallyVariant,
    build_degradation,
    find_preset,
    gaussian_kernels,
)
from contrastive_sr.errors import ConfigError, DataError

SEVERAL = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
KERNELS: dict[str, Kernel] = {
    "isotropic": IsotropicGaussian(),
    "anisotropic": AnisotropicGaussian(),
    "left to right": SpatiallyVariant(),
    "random field": SpatiallyVariant(layout="random_field"),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2, height: int = 24, width: int = 24, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=seeded(5), dtype=torch.float64).to(dtype)


def degraded_in_loops(hr: Tensor, parameters: dict[str, Tensor], kernel: str, scale: int, downsample: str) -> Tensor:
    """From the widths and angles that were drawn, image by image and pixel by pixel."""
    size = 7
    if "sigma_map" in parameters:
        height, width = hr.shape[2:]
        smooth = kernel == "random field"
        fields = [field_loops(control, height, width, smooth) for control in parameters["sigma_map"][:, 0].tolist()]
        blurred = blur_loops(hr, lambda b, i, j: gaussian_loops(fields[b][i][j], fields[b][i][j], 0, size))
    else:
        drawn = zip(parameters["sigma"].tolist(), parameters["angle"].tolist(), strict=True)
        kernels = [gaussian_loops(*sigma, angle, size) for sigma, angle in drawn]
        blurred = blur_loops(hr, lambda b, i, j: kernels[b])
    return (bicubic_loops if downsample == "bicubic" else s_fold_loops)(blurred, scale)


# ------------------------------------------------------------------------------------------------- exact values


@pytest.mark.parametrize(
    ("kernel", "downsample", "scale"),
    [
        *itertools.product(KERNELS, ("bicubic", "s_fold"), (4,)),
        *itertools.product(("isotropic", "random field"), ("bicubic", "s_fold"), (2, 3)),
    ],
)
def test_is_that_of_a_loop_over_images_and_pixels(kernel: str, downsample: str, scale: int) -> None:
    hr = images(2, 12, 24, torch.float64)
    degradation = Degradation(scale=scale, kernel=KERNELS[kernel], downsample=downsample, kernel_size=7, rounding=False)
    lr, parameters = degradation(hr, seeded())
    expected = degraded_in_loops(hr, parameters, kernel, scale, downsample).clamp(0, 1)
    assert lr.dtype == torch.float64
    assert_close(lr, expected, "exact", dtype=torch.float32, scale=1, times=0.2)  # the parameters are in float32
    single = degradation.apply(hr.float(), parameters)
    assert_close(single, expected, "exact", dtype=torch.float32, scale=1)
    assert (lr - hr[..., ::scale, ::scale]).abs().max() > 0.1


def test_rounding_gives_what_eight_bits_hold() -> None:
    hr = images()
    plain = Degradation(noise=(10, 10), rounding=False)(hr, seeded()).lr
    rounded = Degradation(noise=(10, 10))(hr, seeded()).lr
    levels = (rounded * 255).round()
    torch.testing.assert_close(rounded, levels / 255, rtol=0, atol=0)
    assert (rounded - plain).abs().max() <= 0.5 / 255 + 1e-6
    assert (rounded - plain).abs().max() > 0.2 / 255


def test_no_blur_and_no_noise_is_bicubic_downsampling_alone() -> None:
    hr = images(dtype=torch.float64)
    for name in ("dasr-table2-width0.0-x2", "dasr-table2-width0.0-x3", "dasr-table2-width0.0-x4"):
        degradation = build_degradation(name)
        expected = (bicubic_loops(hr, degradation.scale).clamp(0, 1) * 255).round() / 255
        assert_close(degradation(hr).lr, expected, "exact", scale=1)


def test_half_precision_images_are_degraded_in_float32() -> None:
    hr = images().half()
    degradation = Degradation(noise=(5, 5))
    lr = degradation(hr, seeded()).lr
    assert lr.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degradation(hr.float(), seeded()).lr, lr)


def test_there_is_no_gradient() -> None:
    hr = images().requires_grad_()
    lr, parameters = Degradation(kernel=AnisotropicGaussian(), noise=(5, 5))(hr)
    assert not lr.requires_grad
    assert not any(value.requires_grad for value in parameters.values())


# -------------------------------------------------------------------------------------------------------- draws


def test_parameters_have_one_row_an_image() -> None:
    shapes = {
        name: {key: tuple(value.shape) for key, value in Degradation(kernel=kernel).draw(3).items()}
        for name, kernel in KERNELS.items()
    }
    uniform = {"kernel": (3, 21, 21), "sigma": (3, 2), "angle": (3,), "noise": (3,)}
    assert shapes == {
        "isotropic": uniform,
        "anisotropic": uniform,
        "left to right": {"sigma_map": (3, 1, 1, 2), "noise": (3,)},
        "random field": {"sigma_map": (3, 1, 4, 4), "noise": (3,)},
    }
    fields = Degradation(noise=(5, 50), noise_layout="random_field").draw(3)
    assert fields["noise_map"].shape == (3, 1, 4, 4)
    assert "noise" not in fields


def test_widths_angles_and_levels_are_uniform_over_their_ranges() -> None:
    drawn = Degradation(kernel=AnisotropicGaussian(sigma=(0.2, 4)), noise=(5, 25), kernel_size=3).draw(
        4000, "cpu", seeded()
    )
    columns = {
        "first": (drawn["sigma"][:, 0], 0.2, 4),
        "second": (drawn["sigma"][:, 1], 0.2, 4),
        "angle": (drawn["angle"], 0, math.pi),
        "noise": (drawn["noise"], 5, 25),
    }
    for values, low, high in columns.values():
        shares = (values - low) / (high - low)
        assert shares.min() >= 0
        assert shares.max() <= 1
        # each tenth of the range has 400 of 4000, standard deviation 19
        counts = torch.histc(shares, 10, 0, 1)
        assert (counts - 400).abs().max() < 80
    for (_, (one, *_)), (_, (other, *_)) in itertools.combinations(columns.items(), 2):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 0.06
    expected = gaussian_kernels(drawn["sigma"], drawn["angle"], 3)
    assert torch.equal(drawn["kernel"], expected)


def test_isotropic_kernels_have_one_width() -> None:
    drawn = Degradation().draw(50)
    assert torch.equal(drawn["sigma"][:, 0], drawn["sigma"][:, 1])
    assert drawn["sigma"].unique().numel() == 50
    assert torch.equal(drawn["kernel"], drawn["kernel"].mT)
    assert torch.equal(drawn["angle"], torch.zeros(50))


def test_a_fixed_second_width_and_angle() -> None:
    kernel = AnisotropicGaussian(sigma=(1, 1), second_sigma=(3, 3), angle=(0.5, 0.5))
    drawn = Degradation(kernel=kernel).draw(2)
    assert drawn["sigma"].tolist() == [[1, 3], [1, 3]]
    assert drawn["angle"].tolist() == [0.5, 0.5]


def test_the_generator_decides_and_nothing_else() -> None:
    hr, degradation = images(), Degradation(kernel=AnisotropicGaussian(), noise=(5, 50))
    before, state = hr.clone(), torch.get_rng_state()
    lr, parameters = degradation(hr, seeded(3))
    again = degradation(hr, seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(hr, before)
    assert torch.equal(again.lr, lr)
    assert all(torch.equal(again.parameters[name], value) for name, value in parameters.items())
    assert not torch.equal(degradation(hr, seeded(4)).lr, lr)
    torch.manual_seed(1)
    own = degradation(hr).lr
    assert not torch.equal(degradation(hr).lr, own)
    torch.manual_seed(1)
    assert torch.equal(degradation(hr).lr, own)


def test_one_degradation_on_two_crops() -> None:
    degradation = Degradation(noise=(20, 20), rounding=False)
    hr = images(2, 48, 48) * 0.2 + 0.4
    parameters = degradation.draw(2)
    first, second = (degradation.apply(hr, parameters, generator) for generator in (seeded(1), seeded(2)))
    assert torch.equal(degradation.apply(hr, parameters, seeded(1)), first)
    difference = (first - second) * 255
    assert 25 < difference.std() < 32  # sqrt 2 times 20: the noise is drawn anew, the blur is not
    clean = Degradation(rounding=False).apply(hr, parameters)
    for lr in (first, second):
        assert 17 < ((lr - clean) * 255).std() < 23


# -------------------------------------------------------------------------------------------------------- noise


def test_noise_has_the_level_that_was_drawn() -> None:
    hr = torch.full((4, 3, 256, 256), 0.5)
    lr, parameters = Degradation(noise=(5, 40), rounding=False)(hr, seeded())
    noise = (lr - 0.5) * 255
    torch.testing.assert_close(noise.flatten(1).std(1), parameters["noise"], rtol=0.03, atol=0)
    assert noise.flatten(1).mean(1).abs().max() < 1.5
    # every pixel and channel its own
    channels = noise[0].flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 0.06
    assert torch.corrcoef(torch.stack([noise[0, 0, :, 1:].flatten(), noise[0, 0, :, :-1].flatten()]))[0, 1].abs() < 0.06


def test_noise_is_what_the_generator_gives_times_the_level() -> None:
    hr = torch.full((2, 3, 24, 24), 0.5)
    degradation = Degradation(noise=(5, 25), rounding=False)
    generator, parameters = seeded(7), degradation.draw(2)
    lr = degradation.apply(hr, parameters, generator)
    expected = 0.5 + parameters["noise"].view(2, 1, 1, 1) / 255 * torch.randn(2, 3, 6, 6, generator=seeded(7))
    assert_close(lr, expected, "exact", scale=1)


def test_noise_that_grows_from_left_to_right() -> None:
    lr = Degradation(noise=(5, 50), noise_layout="left_to_right", rounding=False)(torch.full((8, 3, 256, 256), 0.5)).lr
    levels = ((lr - 0.5) * 255).transpose(0, 3).flatten(1).std(1)
    torch.testing.assert_close(levels, torch.linspace(5, 50, 64), rtol=0.15, atol=0)


def test_noise_over_a_random_field() -> None:
    degradation = Degradation(noise=(0, 60), noise_layout="random_field", rounding=False)
    hr = torch.full((1, 3, 48, 48), 0.5)
    parameters = degradation.draw(1, "cpu", seeded(2))
    many = torch.stack([degradation.apply(hr, parameters, seeded(seed)) for seed in range(60)])
    expected = torch.tensor(field_loops(parameters["noise_map"][0, 0].tolist(), 12, 12, smooth=True))
    torch.testing.assert_close(((many - 0.5) * 255).std((0, 1, 2)), expected, rtol=0.25, atol=0.1)


def test_nothing_is_drawn_for_level_zero() -> None:
    degradation, generator = Degradation(), seeded()
    parameters = degradation.draw(2, "cpu", generator)
    state = generator.get_state()
    degradation.apply(images(), parameters, generator)
    assert torch.equal(generator.get_state(), state)


def test_blur_that_grows_from_left_to_right() -> None:
    hr = images(1, 48, 96)
    kernel = SpatiallyVariant(sigma=(0.0, 4.0))
    lr = Degradation(scale=2, kernel=kernel, downsample="s_fold", rounding=False)(hr).lr
    torch.testing.assert_close(lr[..., 0], hr[..., ::2, 0])
    assert lr[..., :8].std() > 2 * lr[..., -8:].std()


# ------------------------------------------------------------------------------------------------- any settings


@SEVERAL
@given(
    scale=st.sampled_from([2, 3, 4]),
    kernel=st.sampled_from(sorted(KERNELS)),
    downsample=st.sampled_from(["bicubic", "s_fold"]),
    layout=st.sampled_from(["uniform", "left_to_right", "random_field"]),
    high=st.floats(0, 255),
    size=st.sampled_from([3, 9, 21]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_lr_images_are_images(
    scale: int, kernel: str, downsample: str, layout: str, high: float, size: int, batch: int, seed: int
) -> None:
    degradation = Degradation(
        scale=scale,
        kernel=KERNELS[kernel],
        noise=(0, high),
        noise_layout=layout,
        downsample=downsample,
        kernel_size=size,
    )
    lr, parameters = degradation(images(batch, 24, 36), seeded(seed))
    assert lr.shape == (batch, 3, 24 // scale, 36 // scale)
    assert lr.min() >= 0
    assert lr.max() <= 1
    assert_close(lr * 255, (lr * 255).round(), "exact", times=0.5)
    assert {len(value) for value in parameters.values()} == {batch}
    assert all(value.isfinite().all() for value in parameters.values())
    flat = Degradation(scale=scale, kernel=KERNELS[kernel], downsample=downsample, kernel_size=size, rounding=False)
    torch.testing.assert_close(
        flat(torch.full((1, 3, 24, 36), 0.3)).lr, torch.full((1, 3, 24 // scale, 36 // scale), 0.3)
    )


# ------------------------------------------------------------------------------------------------------ presets


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_runs(name: str) -> None:
    degradation = build_degradation(name)
    assert name.endswith(f"-x{degradation.scale}")
    assert degradation.downsample == "bicubic"
    assert degradation.kernel_size == 21
    assert degradation(images(1)).lr.shape == (1, 3, 24 // degradation.scale, 24 // degradation.scale)


@pytest.mark.parametrize(
    ("name", "sigma", "noise"),
    [
        ("dasr-isotropic-x2", (0.2, 2), (0, 0)),
        ("dasr-isotropic-x3", (0.2, 3), (0, 0)),
        ("dasr-isotropic-x4", (0.2, 4), (0, 0)),
        ("dasr-anisotropic-x4", (0.2, 4), (0, 25)),
        ("crl-isotropic-x2", (0.2, 4), (0, 75)),
        ("crl-anisotropic-x3", (0.2, 4), (0, 25)),
        ("crl-spatial-x4", (0.2, 4), (5, 50)),
        ("random-field-x4", (0.2, 4), (5, 50)),
        ("dasr-table1-width2.6-x4", (2.6, 2.6), (0, 0)),
        ("dasr-table2-width1.8-x2", (1.8, 1.8), (0, 0)),
        ("dasr-table2-width2.4-x3", (2.4, 2.4), (0, 0)),
        ("dasr-table2-width3.6-x4", (3.6, 3.6), (0, 0)),
        ("crl-table2-width0.2to4-noise5-x2", (0.2, 4), (5, 5)),
        ("crl-table2-width2-noise5to50-x3", (2, 2), (5, 50)),
        ("crl-table2-width0.2to4-noise5to50-x4", (0.2, 4), (5, 50)),
        ("crl-table3-width5.5-noise95-x2", (5.5, 5.5), (95, 95)),
        ("dasr-table3-kernel2-noise10-x4", (0.8, 0.8), (10, 10)),
        ("crl-table4-kernel9-noise15-x4", (3, 3), (15, 15)),
    ],
)
def test_presets_are_the_papers_settings(name: str, sigma: tuple[float, float], noise: tuple[float, float]) -> None:
    degradation = build_degradation(name)
    assert isinstance(degradation.kernel, (IsotropicGaussian, AnisotropicGaussian, SpatiallyVariant))
    assert degradation.kernel.sigma == sigma
    assert degradation.noise == noise
    varies = name.startswith("crl-spatial") or "noise5to50" in name
    assert degradation.noise_layout == (
        "left_to_right" if varies else "random_field" if name.startswith("random") else "uniform"
    )


def test_every_cell_of_the_papers_tables_has_a_preset() -> None:
    counts = {
        "dasr-table1": 5,
        "dasr-table2": 12,
        "dasr-table3": 27,
        "crl-table2": 9,
        "crl-table3": 45,
        "crl-table4": 27,
    }
    assert {table: sum(name.startswith(table) for name in PRESETS) for table in counts} == counts


def test_the_nine_kernels_grow_and_those_of_crl_sr_leave_the_training_range() -> None:
    for table, noise in (("dasr-table3", 5), ("crl-table4", 5)):
        drawn = [build_degradation(f"{table}-kernel{n}-noise{noise}-x4").draw(1) for n in range(1, 10)]
        areas = [float(parameters["sigma"].prod()) for parameters in drawn]
        assert areas == sorted(areas)
        assert len({(*parameters["sigma"][0].tolist(), float(parameters["angle"])) for parameters in drawn}) == 9
        assert all((float(parameters["sigma"].max()) > 4) == (table == "crl-table4") for parameters in drawn)


def test_names_with_and_without_scale() -> None:
    assert find_preset("dasr-isotropic", 2) == find_preset("dasr-isotropic-x2") == find_preset("dasr-isotropic-x2", 2)
    assert find_preset("dasr-table1-width1.8") == "dasr-table1-width1.8-x4"  # there is only one
    assert build_degradation("crl-spatial", scale=3).scale == 3


def test_configs() -> None:
    ready = Degradation(scale=3)
    assert build_degradation(ready) is ready
    own = build_degradation(
        {"type": "Degradation", "scale": 2, "kernel": {"type": "AnisotropicGaussian", "sigma": [1, 2]}, "noise": [0, 5]}
    )
    assert (own.scale, own.noise) == (2, (0, 5))
    assert isinstance(own.kernel, AnisotropicGaussian)
    changed = build_degradation({"type": "dasr-anisotropic-x4", "downsample": "s_fold", "noise": [10, 10]})
    assert (changed.scale, changed.noise, changed.downsample) == (4, (10, 10), "s_fold")
    assert isinstance(changed.kernel, AnisotropicGaussian)
    assert build_degradation({"type": "dasr-isotropic", "scale": 2}).scale == 2
    assert build_degradation({"type": "dasr-isotropic", "noise": (0, 9)}, scale=2).scale == 2


@pytest.mark.parametrize(
    ("config", "scale", "message"),
    [
        ("dasr-isotropc-x4", None, r"no preset has the name 'dasr-isotropc-x4'\. Did you mean 'dasr-isotropic-x4'"),
        ("dasr-isotropc-x4", None, r"There are dasr-isotropic, .*dasr-table3-kernel\*-noise\*, "),
        ("dasr-isotropic", None, r"'dasr-isotropic' needs a scale: dasr-isotropic-x2, dasr-isotropic-x3, dasr-iso"),
        ("dasr-isotropic-x8", None, r"that the preset 'dasr-isotropic-x8' has, got 8\. There is dasr-isotropic-x2"),
        ("dasr-isotropic-x4", 2, r"a scale that the preset 'dasr-isotropic-x4' has, got 2"),
        ("dasr-table1-width1.8", 2, r"'dasr-table1-width1.8' has, got 2\. There is dasr-table1-width1\.8-x4"),
        ("dasr-isotropic", 0, r"scale: expected a whole number"),
        ({"type": "dasr-isotropic-x4", "scale": 2}, None, r"a scale that the preset 'dasr-isotropic-x4' has, got 2"),
        ({"type": "Degradation", "scale": 4}, 2, r"expected a degradation of scale 2, got one of scale 4"),
        ({"type": "Degradation", "nois": (0, 1)}, None, r"does not know the key 'nois'\. Did you mean 'noise'"),
        ({"type": "dasr-isotropic-x4", "nois": 1}, None, r"does not know the key 'nois'\. Did you mean 'noise'"),
        ({"scale": 4}, None, r"expected a preset's name such as 'dasr-isotropic-x4', or a mapping with `type`"),
        (4, None, r"got 4 \(int\)"),
        ({"type": 4}, None, r"does not know the type 4"),
        (
            {"type": "Degradation", "kernel": {"type": "IsotropicGausian"}},
            None,
            r"Degradation\(kernel\): does not know the type 'IsotropicGausian'\. Did you mean 'IsotropicGaussian'",
        ),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_built(config: Any, scale: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_degradation(config, scale)


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 1}, r"Degradation\(scale\): expected a whole number of at least 2, got 1"),
        ({"scale": 4.0}, r"Degradation\(scale\): expected a whole number"),
        ({"noise": (0, 256)}, r"Degradation\(noise\): expected levels from 0 to 255, got 256\. A level is"),
        ({"noise": (-1, 5)}, r"Degradation\(noise\)\[0\]: expected a number of at least 0, got -1"),
        ({"noise": (5, 1)}, r"the smaller number first, got \(5, 1\)"),
        ({"noise": 5}, r"Degradation\(noise\): expected a pair \(low, high\), got 5"),
        ({"noise_layout": "left"}, r"Degradation\(noise_layout\): does not know the layout 'left'\. .*left_to_right"),
        ({"downsample": "bilinear"}, r"Degradation\(downsample\): does not know the downsampling 'bilinear'"),
        ({"kernel_size": 20}, r"Degradation\(kernel_size\): expected an odd number of pixels.*got 20"),
        ({"rounding": "no"}, r"Degradation\(rounding\): expected true or false"),
        ({"kernel": "IsotropicGaussian"}, r"Degradation\(kernel\): expected a mapping with `type`, one of Isotropic"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Degradation(**arguments)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (IsotropicGaussian, {"sigma": (4, 1)}, r"IsotropicGaussian\(sigma\): .*the smaller number first"),
        (IsotropicGaussian, {"sigma": (-1, 1)}, r"IsotropicGaussian\(sigma\)\[0\]: expected a number of at least 0"),
        (AnisotropicGaussian, {"second_sigma": 3}, r"AnisotropicGaussian\(second_sigma\): expected a pair"),
        (AnisotropicGaussian, {"angle": (1, 0)}, r"AnisotropicGaussian\(angle\): "),
        (SpatiallyVariant, {"layout": "uniform"}, r"SpatiallyVariant\(layout\): does not know the layout 'uniform'"),
    ],
)
def test_impossible_kernels_are_refused(cls: type[Kernel], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**arguments)


@pytest.mark.parametrize(
    ("hr", "message"),
    [
        (
            torch.rand(1, 3, 20, 40),
            r"hr: expected images no smaller than the kernel, 21 x 21, got 20 x 40\. Use larger",
        ),
        (
            torch.rand(1, 3, 42, 40),
            r"hr: expected .*multiples of the scale 4, got 42 x 40\. Crop to 40 x 40: hr\[\.\.\.",
        ),
        (torch.rand(1, 1, 40, 40), r"hr: expected a non-empty tensor \(B, 3, H, W\)"),
        (torch.rand(3, 40, 40), r"Add a batch dimension"),
        (torch.zeros(1, 3, 40, 40, dtype=torch.uint8), r"hr: expected a floating-point tensor"),
        (torch.rand(1, 3, 40, 40) * 255, r"hr: expected values in \[0, 1\], got .* Divide images by 255"),
        (torch.full((1, 3, 40, 40), torch.nan), r"hr: expected values in \[0, 1\], got nan"),
    ],
)
def test_images_that_cannot_be_degraded(hr: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Degradation()(hr)


def test_parameters_of_another_degradation_or_batch() -> None:
    hr = images()
    with pytest.raises(
        DataError, match=r"parameters: expected kernel, as this degradation draws them, got noise, sigma_map"
    ):
        Degradation().apply(hr, Degradation(kernel=SpatiallyVariant()).draw(2))
    with pytest.raises(DataError, match=r"parameters: expected kernel, noise_map, as"):
        Degradation(noise=(0, 5), noise_layout="random_field").apply(hr, Degradation(noise=(0, 5)).draw(2))
    with pytest.raises(
        DataError, match=r"parameters\['kernel'\]: expected one row for each of 2 images, got .*\(3, 21, 21\)"
    ):
        Degradation().apply(hr, Degradation().draw(3))
    with pytest.raises(ConfigError, match=r"Degradation\.draw\(batch\)"):
        Degradation().draw(0)


# ------------------------------------------------------------------------------------------- imports and devices


def test_needs_torch_alone_and_nothing_of_the_methods_and_hosts(project: Path) -> None:
    code = "import sys, torch; b = {*sys.modules}; import contrastive_sr.degradations; print(*({*sys.modules} - b))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"PIL", "cv2", "yaml", "rich", "typer", "basicsr", "mmengine"} & {name.split(".")[0] for name in loaded}
    ours = {name.split(".")[1] for name in loaded if name.startswith("contrastive_sr.")}
    assert ours == {"degradations", "_checks", "config", "errors", "functional"}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("downsample", ["bicubic", "s_fold"])
def test_every_device_gives_the_same_images(
    kernel: str, downsample: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)  # must not reach the images
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    degradation = Degradation(kernel=KERNELS[kernel], noise=(5, 25), downsample=downsample, rounding=False)
    hr = images(3, 64, 48)
    lr = degradation(hr, seeded()).lr
    on_device = degradation(hr.to(device), seeded())
    assert on_device.lr.device.type == on_device.parameters["noise"].device.type == device
    assert_close(on_device.lr, lr, "exact", dtype=torch.float32, scale=1, times=3)
