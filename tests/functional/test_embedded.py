"""embedded_nce, whose work is reordered, against the plain composition with an ordinary graph."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import plain_contrast, relative_distance
from small_models import IdentityEmbedding, SmoothEmbedding, settled
from torch import Tensor
from versions import autocast_to_float16

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import embedded_nce


def problem(
    batch: int = 2, positives: int = 3, negatives: int = 2, size: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * positives + 100 * negatives)
    hr = torch.rand(batch, 1, 3, size, size, generator=generator, dtype=torch.float64)
    noise = torch.rand(batch, 1 + positives + negatives, 3, size, size, generator=generator, dtype=torch.float64)
    images = (0.7 * hr + 0.3 * noise).to(dtype)
    return images[:, 0].clone().requires_grad_(), images[:, 1 : 1 + positives], images[:, 1 + positives :]


def smooth(dtype: torch.dtype = torch.float64) -> SmoothEmbedding:
    torch.manual_seed(0)
    return SmoothEmbedding().to(dtype)


@pytest.fixture(scope="module")
def discriminator() -> HaarDiscriminator:
    torch.manual_seed(0)
    return settled(HaarDiscriminator().double())


@pytest.mark.parametrize(("batch", "positives", "negatives"), [(1, 1, 1), (2, 3, 2), (3, 1, 4), (2, 4, 1)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_plain_composition(batch: int, positives: int, negatives: int, temperature: float) -> None:
    embed, (sr, near, far) = smooth(), problem(batch, positives, negatives)
    contrast = embedded_nce(sr, near, far, embed, temperature)
    loss, near_similarity, far_similarity = plain_contrast(embed, sr, near, far, temperature)
    torch.testing.assert_close(contrast.loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(contrast.positive_similarity, near_similarity, rtol=1e-10, atol=0)
    torch.testing.assert_close(contrast.negative_similarity, far_similarity, rtol=1e-10, atol=0)
    (gradient,) = torch.autograd.grad(contrast.loss, sr)
    (expected,) = torch.autograd.grad(loss, sr)
    assert expected.abs().max() > 1e-8
    assert relative_distance(gradient, expected) < 1e-10


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_plain_composition_over_the_discriminator(
    discriminator: HaarDiscriminator, temperature: float
) -> None:
    sr, near, far = problem(2, 2, 3, size=32)
    contrast = embedded_nce(sr, near, far, discriminator, temperature)
    loss, _, _ = plain_contrast(discriminator, sr, near, far, temperature)
    (gradient,) = torch.autograd.grad(contrast.loss, sr)
    (expected,) = torch.autograd.grad(loss, sr)
    torch.testing.assert_close(contrast.loss, loss, rtol=1e-10, atol=0)
    assert relative_distance(gradient, expected) < 1e-10


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_float32_is_close_to_float64(temperature: float) -> None:
    torch.manual_seed(0)
    embed = settled(HaarDiscriminator())
    sr, near, far = problem(2, 2, 2, size=32, dtype=torch.float32)
    loss = embedded_nce(sr, near, far, embed, temperature).loss
    (gradient,) = torch.autograd.grad(loss, sr)
    embed.double()
    exact_sr = sr.detach().double().requires_grad_()
    exact, _, _ = plain_contrast(embed, exact_sr, near.double(), far.double(), temperature)
    (expected,) = torch.autograd.grad(exact, exact_sr)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert relative_distance(gradient, expected) < 2e-5


def test_gradcheck_with_an_embedding_of_ones_own() -> None:
    embed = smooth()
    sr, near, far = problem(2, 2, 2, size=4)
    for temperature in (0.2, 1.0):
        assert torch.autograd.gradcheck(lambda x, t=temperature: embedded_nce(x, near, far, embed, t).loss, sr)


def test_gradient_is_scaled_by_what_comes_after() -> None:
    embed, (sr, near, far) = smooth(), problem()
    (once,) = torch.autograd.grad(embedded_nce(sr, near, far, embed).loss, sr)
    (scaled,) = torch.autograd.grad(-3.5 * embedded_nce(sr, near, far, embed).loss, sr)
    torch.testing.assert_close(scaled, -3.5 * once)


def test_gradient_reaches_what_made_the_images_and_nothing_else() -> None:
    embed, (sr, near, far) = smooth(), problem()
    near, far = near.clone().requires_grad_(), far.clone().requires_grad_()
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    embedded_nce(factor * sr, near, far, embed).loss.backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert factor.grad is not None
    assert near.grad is None
    assert far.grad is None
    assert [p.grad for p in embed.parameters()] == [None] * 4


def test_similarities_have_no_gradient() -> None:
    contrast = embedded_nce(*problem(), smooth())
    assert contrast.loss.requires_grad
    assert not contrast.positive_similarity.requires_grad
    assert not contrast.negative_similarity.requires_grad


def test_twice_differentiating_is_refused() -> None:
    sr, near, far = problem()
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, smooth()).loss, sr, create_graph=True)
    penalty = gradient.square().sum() + sr.square().sum()  # must not silently train on its second half alone
    with pytest.raises(RuntimeError, match=r"embedded_nce is differentiable once.*multi_positive_nce"):
        torch.autograd.grad(penalty, sr)


def test_without_a_gradient_to_take() -> None:
    embed, (sr, near, far) = smooth(), problem()
    expected = embedded_nce(sr, near, far, embed).loss.item()
    with torch.no_grad():
        inside = embedded_nce(sr, near, far, embed).loss
    detached = embedded_nce(sr.detach(), near, far, embed).loss
    with torch.inference_mode():
        inference = embedded_nce(sr.detach().clone(), near, far, embed).loss
    for loss in (inside, detached, inference):
        assert not loss.requires_grad
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_images_do_not_see_each_other() -> None:
    embed, (sr, near, far) = smooth(), problem(batch=3)
    order = [2, 0, 1]
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, embed).loss, sr)
    (shuffled,) = torch.autograd.grad(embedded_nce(sr[order], near[order], far[order], embed).loss, sr)
    torch.testing.assert_close(shuffled, gradient)


def test_equal_images_give_log_of_one_plus_n() -> None:
    sr, _, _ = problem()
    keys = sr.detach()[:, None].expand(-1, 3, -1, -1, -1)
    contrast = embedded_nce(sr, keys, keys, smooth())
    assert contrast.loss.item() == pytest.approx(math.log(4))
    torch.testing.assert_close(contrast.positive_similarity, torch.ones(2, 3, dtype=torch.float64))


def test_black_images_give_finite_numbers() -> None:
    _, near, far = problem(dtype=torch.float32)
    black = torch.zeros(2, 3, 6, 6, requires_grad=True)
    loss = embedded_nce(black, near, torch.zeros_like(far), IdentityEmbedding()).loss
    loss.backward()
    assert math.isfinite(loss.item())
    assert black.grad is not None
    assert torch.isfinite(black.grad).all()


def test_autocast_bfloat16_is_finite_and_close() -> None:
    torch.manual_seed(0)
    embed = settled(HaarDiscriminator())
    sr, near, far = problem(2, 2, 2, size=32, dtype=torch.float32)
    expected = embedded_nce(sr, near, far, embed)
    (expected_gradient,) = torch.autograd.grad(expected.loss, sr)
    with torch.autocast("cpu", torch.bfloat16):
        assert embed(sr)[0].dtype == torch.bfloat16  # autocast is at work
        contrast = embedded_nce(sr, near, far, embed)
    (gradient,) = torch.autograd.grad(contrast.loss, sr)
    assert contrast.loss.dtype == contrast.positive_similarity.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(contrast.loss, expected.loss, rtol=1e-3, atol=0)
    torch.testing.assert_close(contrast.positive_similarity, expected.positive_similarity, rtol=0, atol=5e-3)
    assert torch.isfinite(gradient).all()
    assert relative_distance(gradient, expected_gradient) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=autocast_to_float16)])
def test_similarities_are_float32_under_autocast(dtype: torch.dtype) -> None:
    embed, (sr, near, far) = IdentityEmbedding(), problem(dtype=torch.float32)
    loss, near_similarity, _ = plain_contrast(embed, sr.double(), near.double(), far.double(), 0.02)
    with torch.autocast("cpu", dtype):
        contrast = embedded_nce(sr, near, far, embed, 0.02)
    torch.testing.assert_close(contrast.positive_similarity.double(), near_similarity, rtol=0, atol=1e-6)
    torch.testing.assert_close(contrast.loss.double(), loss, rtol=1e-5, atol=0)


def test_float16_gradients_do_not_underflow() -> None:
    class HalfEmbedding(IdentityEmbedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images.half()]

    sr, near, far = problem(size=64, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, HalfEmbedding(), 10.0).loss, sr)
    (expected,) = torch.autograd.grad(plain_contrast(IdentityEmbedding(), sr, near, far, 10.0)[0], sr)
    assert expected.abs().mean() < 1e-6  # float16 has steps of 6e-8 there
    assert relative_distance(gradient, expected) < 5e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_are_computed_in_float32(dtype: torch.dtype) -> None:
    embed, (sr, near, far) = smooth(torch.float32), problem(dtype=dtype)
    contrast = embedded_nce(sr, near, far, embed)
    expected = embedded_nce(sr.float(), near.float(), far.float(), embed)
    torch.testing.assert_close(contrast.loss, expected.loss)
    (gradient,) = torch.autograd.grad(contrast.loss, sr)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.loss, sr)[0])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 6, 6), (2, 1, 3, 6, 6), (2, 1, 3, 6, 6)], r"sr: expected .*\(B, C, H, W\)"),
        ([(2, 3, 6, 6), (2, 3, 6, 6), (2, 1, 3, 6, 6)], r"positives: expected .*\(2, K, 3, 6, 6\)"),
        ([(2, 3, 6, 6), (1, 1, 3, 6, 6), (2, 1, 3, 6, 6)], r"positives: expected .*\(2, K, 3, 6, 6\)"),
        ([(2, 3, 6, 6), (2, 1, 3, 6, 6), (2, 1, 3, 6, 8)], r"negatives: expected .*\(2, K, 3, 6, 6\)"),
        ([(2, 3, 6, 6), (2, 0, 3, 6, 6), (2, 1, 3, 6, 6)], "positives: expected a non-empty"),
        ([(2, 3, 6, 6), (2, 1, 3, 6, 6), (2, 0, 3, 6, 6)], "negatives: expected a non-empty"),
    ],
)
def test_wrong_shapes_are_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        embedded_nce(*(torch.rand(shape) for shape in shapes), smooth(torch.float32))  # type: ignore[misc]


def test_impossible_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature: expected a number above 0, got 0"):
        embedded_nce(*problem(), smooth(), 0)


def test_embedding_without_layers_is_refused() -> None:
    with pytest.raises(DataError, match="at least one layer"):
        embedded_nce(*problem(), lambda images: [])


@pytest.mark.parametrize(("size", "message"), [(33, "multiples of 2, got 33 x 33"), (30, "at least 32 x 32.*30 x 30")])
def test_sizes_the_embedding_cannot_take_are_refused(size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        embedded_nce(*problem(size=size, dtype=torch.float32), HaarDiscriminator())
