"""srnce against CRL-SR's eq. 4 to 6, vector by vector, and where each variant leads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nce_oracles import KINDS, extreme_vectors, penalties, srnce_loops
from oracles import relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import info_nce, set_tiling, srnce
from contrastive_sr.functional.srnce import Condition

SEVERAL = settings(max_examples=25, deadline=None, derandomize=True, database=None)
NAMES = ("negative", "tempered", "paper")
TEMPERATURES = [0.005, 0.02, 0.07, 1.0, 10.0]
VARIANTS = pytest.mark.parametrize("variant", NAMES)
SIZES = pytest.mark.parametrize("size", [None, 4])  # dense and tiled
PENALTY = pytest.mark.parametrize("penalty", [True, False])


def features(
    *leading: int, count: int = 9, dim: int = 5, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hr, sr, lr = torch.randn(3, *leading, count, dim, generator=generator, dtype=torch.float64).to(device)
    return hr, sr, lr


def expected_values(
    hr: Tensor, sr: Tensor, lr: Tensor, temperature: float, variant: str, penalty: bool = True
) -> Tensor:
    return srnce_loops(hr, sr, lr, temperature, variant, penalties(hr, lr) if penalty else None)


@VARIANTS
@PENALTY
@SIZES
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (7, 4), (13, 5)])
def test_equals_the_equation(
    variant: str, penalty: bool, size: int | None, temperature: float, shape: tuple[int, int], device: str
) -> None:
    hr, sr, lr = features(count=shape[0], dim=shape[1], device=device)
    with set_tiling(size=size):
        values = srnce(hr, sr, lr, temperature, variant, reduction="none", penalty=penalty)
    expected = expected_values(hr, sr, lr, temperature, variant, penalty)
    assert_close(values, expected, dtype=torch.float64)


def test_equations_4_and_6_as_printed() -> None:
    """The paper's own two equations once more, without going through the oracle's options."""
    hr, sr, lr = (F.normalize(x, dim=1) for x in features(count=4))
    h, s, low = hr.tolist(), sr.tolist(), lr.tolist()

    def dot(u: list[float], v: list[float]) -> float:
        return sum(x * y for x, y in zip(u, v, strict=True))

    def loss(p: list[float]) -> float:
        total = 0.0
        for m in range(4):
            above = math.exp(dot(h[m], s[m]) - p[m]) + math.exp(1 - dot(s[m], low[m]) - p[m])
            total += math.log(above / (above + sum(math.exp(dot(h[m], s[j])) for j in range(4) if j != m)))
        return -total / 4

    assert_close(srnce(hr, sr, lr, variant="paper", penalty=False), loss([0.0] * 4), "exact", dtype=torch.float64)
    p = [1 - dot(h[m], low[m]) for m in range(4)]
    assert_close(srnce(hr, sr, lr, variant="paper"), loss(p), "exact", dtype=torch.float64)


def test_defaults_and_reductions() -> None:
    hr, sr, lr = features()
    values = expected_values(hr, sr, lr, 0.07, "negative")
    torch.testing.assert_close(srnce(hr, sr, lr), values.mean())
    torch.testing.assert_close(srnce(hr, sr, lr, reduction="sum"), values.sum())
    torch.testing.assert_close(srnce(hr, sr, lr, reduction="none"), values)


def test_the_paper_s_form_has_no_temperature_and_is_the_tempered_one_at_1() -> None:
    hr, sr, lr = features()
    paper = srnce(hr, sr, lr, variant="paper")
    assert torch.equal(srnce(hr, sr, lr, 0.02, "paper"), paper)
    torch.testing.assert_close(srnce(hr, sr, lr, 1.0, "tempered"), paper)
    assert (srnce(hr, sr, lr, variant="tempered") - paper).abs() > 0.1


@VARIANTS
def test_raw_vectors(variant: str) -> None:
    hr, sr, lr = features()
    values = srnce(hr, sr, lr, 0.9, variant, reduction="none", penalty=False, normalize=False)
    expected = srnce_loops(hr, sr, lr, 0.9, variant, None, normalize=False)
    assert_close(values, expected)


@VARIANTS
@SIZES
def test_further_sr_vectors_are_negatives_alone(variant: str, size: int | None) -> None:
    """As those of other ranks are."""
    hr, _, lr = features(count=5)
    sr = features(count=8, seed=3)[1]
    condition = Condition(0.07, variant, penalty=True, detach_hr=True, detach_lr=True)
    with set_tiling(size=size):
        contrast = condition.contrast(hr, sr, lr)
    assert_close(contrast.values, expected_values(hr, sr, lr, 0.07, variant))
    torch.testing.assert_close(contrast.to_hr, torch.cosine_similarity(hr, sr[:5], dim=1))
    torch.testing.assert_close(contrast.to_lr, torch.cosine_similarity(lr, sr[:5], dim=1))


@VARIANTS
@SIZES
@SEVERAL
@given(data=st.data())
def test_order_does_not_matter(variant: str, size: int | None, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 11))
    order = data.draw(st.permutations(range(count)))
    roles = features(count=count)
    with set_tiling(size=size):
        shuffled = srnce(*(x[order] for x in roles), variant=variant, reduction="none")
        expected = srnce(*roles, variant=variant, reduction="none")[order]
    assert_close(shuffled, expected, scale=0.01)


@VARIANTS
@SIZES
@SEVERAL
@given(exponents=st.lists(st.integers(-6, 6), min_size=27, max_size=27))
def test_lengths_do_not_matter(variant: str, size: int | None, exponents: list[int]) -> None:
    roles = features()
    lengths = (10.0 ** torch.tensor(exponents, dtype=torch.float64)).view(3, 9, 1)
    with set_tiling(size=size):
        scaled = srnce(*(x * n for x, n in zip(roles, lengths, strict=True)), variant=variant)
        assert_close(scaled, srnce(*roles, variant=variant))


@VARIANTS
@SIZES
@SEVERAL
@given(leading=st.lists(st.integers(1, 3), max_size=3), count=st.integers(1, 9))
def test_images_do_not_see_each_other(variant: str, size: int | None, leading: list[int], count: int) -> None:
    roles = features(*leading, count=count)
    with set_tiling(size=size):
        together = srnce(*roles, variant=variant, reduction="none")
        images = zip(*(x.view(-1, count, 5) for x in roles), strict=True)
        alone = [srnce(*image, variant=variant, reduction="none") for image in images]
    assert together.shape == (*leading, count)
    assert_close(together, torch.stack(alone).view(*leading, count), scale=0.01)


@VARIANTS
@SIZES
@SEVERAL
@given(seed=st.integers(0, 1000), temperature=st.sampled_from(TEMPERATURES))
def test_float32_is_close_to_float64(
    variant: str, size: int | None, seed: int, temperature: float, device: str
) -> None:
    roles = [x.float().requires_grad_() for x in features(seed=seed, device=device)]
    exact = [x.detach().double().requires_grad_() for x in roles]
    with set_tiling(size=size):
        single, double = (srnce(*x, temperature, variant) for x in (roles, exact))
    assert single.dtype == torch.float32
    assert_close(single, double, "exact", dtype=torch.float32, times=2 / min(temperature, 1))
    (got,), (expected,) = torch.autograd.grad(single, roles[1]), torch.autograd.grad(double, exact[1])
    assert relative_distance(got, expected) < 2 * tolerance(torch.float32, "exact") / min(temperature, 1)


@VARIANTS
@SIZES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, False])
def test_value_and_gradient_are_finite(variant: str, size: int | None, kind: str, normalize: bool) -> None:
    for temperature, penalty in itertools.product(TEMPERATURES, (True, False)):
        roles = extreme_vectors(kind, 3)
        options = dict(penalty=penalty, detach_hr=False, detach_lr=False, normalize=normalize)
        with set_tiling(size=size):
            value = srnce(*roles, temperature, variant, **options)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value), options
        assert value >= 0, options
        for x in roles:
            assert x.grad is not None
            assert torch.isfinite(x.grad).all(), options


@VARIANTS
@SIZES
@pytest.mark.parametrize("kind", ["small", "large", "one zero", "opposite"])
def test_extreme_features_lose_nothing(variant: str, size: int | None, kind: str) -> None:
    roles = extreme_vectors(kind, 3)
    with set_tiling(size=size):
        value = srnce(*roles, variant=variant)
    expected = expected_values(*roles, 0.07, variant).mean().item()
    assert_close(value, expected, dtype=torch.float32)


@SIZES
@VARIANTS
def test_small_losses_keep_their_digits_in_float32(variant: str, size: int | None) -> None:
    hr = torch.eye(8)
    roles = (hr, hr.clone().requires_grad_(), -hr)
    with set_tiling(size=size):
        value = srnce(*roles, 0.05, variant, penalty=False)
    assert_close(value, expected_values(*roles, 0.05, variant, False).mean().item(), "loose", dtype=torch.float32)
    assert value.item() < (1e-7 if variant != "paper" else 1)


@VARIANTS
@SIZES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(variant: str, size: int | None, dtype: torch.dtype, device: str) -> None:
    roles = [x.to(dtype).requires_grad_() for x in features(device=device)]
    with set_tiling(size=size):
        value = srnce(*roles, 0.02, variant)
        expected = srnce(*(x.detach().float() for x in roles), 0.02, variant)
    assert torch.equal(value, expected)
    assert torch.autograd.grad(value, roles[1])[0].dtype == dtype


@VARIANTS
@SIZES
def test_autocast_changes_nothing(variant: str, size: int | None, device: str) -> None:
    roles = [x.float().requires_grad_() for x in features(device=device)]
    with set_tiling(size=size):
        expected = srnce(*roles, variant=variant)
        with torch.autocast(device, torch.bfloat16):
            value = srnce(*roles, variant=variant)
    assert torch.equal(value, expected)
    (got,), (wanted,) = torch.autograd.grad(value, roles[1]), torch.autograd.grad(expected, roles[1])
    assert torch.equal(got, wanted)


@VARIANTS
@PENALTY
@SIZES
def test_gradient_and_second_gradient(variant: str, penalty: bool, size: int | None) -> None:
    hr, sr, lr = features(2, count=5, dim=3)
    sr.requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return srnce(hr, x, lr, 0.3, variant, penalty=penalty)

    with set_tiling(size=size):
        assert torch.autograd.gradcheck(loss, (sr,))
        assert torch.autograd.gradgradcheck(loss, (sr,))


@VARIANTS
@SIZES
def test_gradient_and_second_gradient_of_all_three(variant: str, size: int | None, device: str) -> None:
    roles = tuple(x.requires_grad_() for x in features(count=5, dim=3, device=device))

    def loss(*x: Tensor) -> Tensor:
        return srnce(*x, 0.3, variant, penalty=False, detach_hr=False, detach_lr=False)

    with set_tiling(size=size):
        assert torch.autograd.gradcheck(loss, roles)
        assert torch.autograd.gradgradcheck(loss, roles)


@VARIANTS
@SIZES
def test_gradient_reaches_the_sr_features_and_nothing_else(variant: str, size: int | None) -> None:
    hr, sr, lr = (x.requires_grad_() for x in features())
    with set_tiling(size=size):
        srnce(hr, sr, lr, variant=variant).backward()
    assert hr.grad is None
    assert lr.grad is None
    assert sr.grad is not None
    assert sr.grad.abs().sum(1).min() > 0


@VARIANTS
def test_hr_and_lr_are_trained_if_told_to(variant: str) -> None:
    for detach_hr, detach_lr in itertools.product((True, False), repeat=2):
        hr, sr, lr = (x.requires_grad_() for x in features())
        srnce(hr, sr, lr, variant=variant, detach_hr=detach_hr, detach_lr=detach_lr).backward()
        assert sr.grad is not None
        for x, detached in ((hr, detach_hr), (lr, detach_lr)):
            assert (x.grad is None) == detached
            assert x.grad is None or x.grad.abs().sum() > 0


@VARIANTS
def test_the_penalty_is_a_constant(variant: str) -> None:
    """The gradient at HR and LR features is that of the equation with its p_m held fixed, by finite differences."""
    roles = [x.requires_grad_() for x in features(count=4, dim=3)]
    fixed = penalties(roles[0], roles[2])
    loss = srnce(*roles, 0.5, variant, detach_hr=False, detach_lr=False)
    gradients = torch.autograd.grad(loss, roles)

    def differences(role: int, p: Callable[[list[Tensor]], list[float]]) -> Tensor:
        slopes = torch.zeros(4, 3, dtype=torch.float64)
        for index in itertools.product(range(4), range(3)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [x.detach().clone() for x in roles]
                moved[role][index] += step
                ends.append(srnce_loops(*moved, 0.5, variant, p(moved)).mean().item())
            slopes[index] = (ends[0] - ends[1]) / 2e-5
        return slopes

    for role in (0, 1, 2):
        distance = relative_distance(gradients[role], differences(role, lambda _: fixed))
        assert distance < 100 * tolerance(torch.float64, "loose")  # of finite differences
    for role in (0, 2):  # with a penalty that moves along it would be another gradient
        moving = differences(role, lambda moved: penalties(moved[0], moved[2]))
        assert relative_distance(gradients[role], moving) > 0.05


STARTS = ("random", "near HR", "near LR")


def ends(variant: str, mix: float) -> dict[str, tuple[float, float]]:
    """Mean cosine of SR features to HR and to LR after optimising them alone, from each start."""
    generator = torch.Generator().manual_seed(0)
    h, noise, r = (F.normalize(x, dim=-1) for x in torch.randn(3, 64, 32, generator=generator))
    low = F.normalize(mix * h + (1 - mix) * noise, dim=-1)
    hr, lr = h.expand(3, -1, -1), low.expand(3, -1, -1)
    sr = F.normalize(torch.stack((r, h + 0.3 * r, low + 0.3 * r)), dim=-1).requires_grad_()
    optimizer = torch.optim.Adam([sr], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        srnce(hr, sr, lr, variant=variant).backward()
        optimizer.step()
    to_hr, to_lr = (torch.cosine_similarity(sr, x, dim=-1).mean(1).tolist() for x in (hr, lr))
    return dict(zip(STARTS, zip(to_hr, to_lr, strict=True), strict=True))


def test_the_paper_s_form_ends_opposite_of_lr_and_far_from_hr_from_every_start() -> None:
    for to_hr, to_lr in ends("paper", mix=0.5).values():
        assert -0.75 < to_hr < -0.55
        assert to_lr < -0.95
    for to_hr, to_lr in ends("paper", mix=0.7).values():  # LR features that are close to HR's, as they are in SR
        assert to_hr < -0.7
        assert to_lr < -0.8


def test_the_tempered_form_ends_near_hr_from_a_warm_start_alone() -> None:
    for mix in (0.5, 0.7):
        cosines = ends("tempered", mix)
        assert cosines["random"][0] < -0.25
        for start in ("near HR", "near LR"):
            assert cosines[start][0] > 0.9


def test_with_lr_as_a_negative_it_ends_near_hr_from_every_start() -> None:
    for to_hr, to_lr in ends("negative", mix=0.5).values():
        assert to_hr > 0.85
        assert to_lr < 0.5  # while HR and LR features have a cosine of 0.7
    assert min(to_hr for to_hr, _ in ends("negative", mix=0.7).values()) > 0.7


def test_without_a_condition_it_would_be_info_nce() -> None:
    """LR features far from the SR ones add a negative that does not count."""
    hr, sr, _ = features()
    values = srnce(hr, sr, -sr, 0.01, "negative", reduction="none", penalty=False)
    assert_close(values, info_nce(hr, sr, 0.01, "none"))


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ((torch.rand(3), torch.rand(3), torch.rand(3)), r"srnce\(hr\): expected .*\(\.\.\., M, D\).*x\.flatten\(2\)"),
        ((None, torch.rand(3, 2), torch.rand(3, 2)), r"srnce\(hr\): expected a floating-point tensor .* got None"),
        ((torch.rand(3, 2), torch.rand(4, 2), torch.rand(3, 2)), r"srnce\(sr\): expected .*\(3, 2\), got .*\(4, 2\)"),
        ((torch.rand(3, 2), torch.rand(3, 2), torch.rand(3, 1)), r"srnce\(lr\): expected .*\(3, 2\), got .*\(3, 1\)"),
        ((torch.rand(2, 3, 2), torch.rand(2, 3, 2), torch.rand(3, 2)), r"srnce\(lr\): expected .*x\[None\]"),
        ((torch.rand(3, 2), torch.rand(3, 2), torch.ones(3, 2).long()), r"srnce\(lr\): expected .*int64"),
        ((torch.rand(0, 2), torch.rand(0, 2), torch.rand(0, 2)), r"srnce\(hr\): expected a non-empty"),
    ],
)
def test_wrong_features_are_refused(roles: tuple[Tensor, Tensor, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        srnce(*roles)


@pytest.mark.parametrize("temperature", [0, -0.07, float("nan"), float("inf"), True, None])
@VARIANTS
def test_impossible_temperatures_are_refused(variant: str, temperature: object) -> None:
    with pytest.raises(ConfigError, match=r"srnce\(temperature\): expected a number above 0, got"):
        srnce(*features(), temperature, variant)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"srnce\(variant\): expected one of negative, tempered, paper, got 'eq6'"):
        srnce(*features(), variant="eq6")
    with pytest.raises(ConfigError, match="one of mean, sum, none, got 'average'"):
        srnce(*features(), reduction="average")
