"""plain_embedded_nce against the papers' equations, and embedded_nce, whose work is reordered, against that."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from loss_oracles import dot_loops
from oracles import cosine_loops, nce_loops, plain_contrast, relative_distance
from small_models import IdentityEmbedding, SmoothEmbedding, settled
from tolerances import assert_close, tolerance
from torch import Tensor, nn
from versions import autocast_to_float16

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import embedded, embedded_distance, embedded_nce, plain_embedded_nce
from contrastive_sr.functional.embedded import (
    Embed,
    Similarity,
    _compare_by_distance,
    _compare_by_nce,
    _embed_and_compare,
)
from contrastive_sr.functional.reduction import Reduction


def problem(
    batch: int = 2,
    positives: int = 3,
    negatives: int = 2,
    size: int = 6,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * positives + 100 * negatives)
    hr = torch.rand(batch, 1, 3, size, size, generator=generator, dtype=torch.float64)
    noise = torch.rand(batch, 1 + positives + negatives, 3, size, size, generator=generator, dtype=torch.float64)
    images = (0.7 * hr + 0.3 * noise).to(device, dtype)
    return images[:, 0].clone().requires_grad_(), images[:, 1 : 1 + positives], images[:, 1 + positives :]


def smooth(dtype: torch.dtype = torch.float64) -> SmoothEmbedding:
    torch.manual_seed(0)
    return SmoothEmbedding().to(dtype)


class VectorEmbedding(nn.Module):
    """A layer of maps, and one of vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = torch.tanh(self.conv(images))
        return [maps, self.linear(maps.mean((2, 3)))]


EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "maps": smooth,
    "vectors": lambda: VectorEmbedding().double(),
    "images": IdentityEmbedding,
}
FORMS = {"cosine": plain_embedded_nce, "dot": partial(plain_embedded_nce, similarity="dot"), "lean": embedded_nce}


@pytest.fixture(scope="module")
def discriminator() -> HaarDiscriminator:
    torch.manual_seed(0)
    return settled(HaarDiscriminator().double())


def similarity_loops(embed: Embed, similarity: str, sr: Tensor, keys: Tensor) -> list[Tensor]:
    """(B, K) of each layer, from the equations."""
    out = []
    for layer, f in enumerate(embed(sr)):
        maps = torch.stack([embed(images)[layer] for images in keys.unbind(1)], 1)
        if f.ndim == 2:
            f, maps = f[..., None, None], maps[..., None, None]
        if similarity == "dot":
            out.append(torch.tensor(dot_loops(f, maps), dtype=torch.float64))
        else:
            out.append(torch.stack([cosine_loops(f, m) for m in maps.unbind(1)], 1))
    return out


# ------------------------------------------------------------------------------------------- the plain composition


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_plain_one_equals_the_equations(
    embedding: str, similarity: Similarity, temperature: float, device: str
) -> None:
    embed, (sr, near, far) = EMBEDDINGS[embedding]().to(device), problem(3, 2, 3, size=4, device=device)
    near_layers = similarity_loops(embed, similarity, sr, near)
    far_layers = similarity_loops(embed, similarity, sr, far)
    layers = [nce_loops(n, f, temperature) for n, f in zip(near_layers, far_layers, strict=True)]
    expected = torch.stack(layers).mean(0)
    both = torch.cat((torch.stack(near_layers), torch.stack(far_layers)), dim=2).mean(0)
    for reduction, value in (("mean", expected.mean()), ("sum", expected.sum()), ("none", expected)):
        loss, similarities = plain_embedded_nce(
            sr, near, far, embed, temperature, reduction=reduction, similarity=similarity
        )
        assert_close(loss, value, dtype=torch.float64)
        assert_close(similarities, both, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_plain_one_has_the_gradient_of_the_equations(temperature: float) -> None:
    embed, (sr, near, far) = smooth(), problem()
    (gradient,) = torch.autograd.grad(plain_embedded_nce(sr, near, far, embed, temperature)[0], sr)
    (expected,) = torch.autograd.grad(plain_contrast(embed, sr, near, far, temperature)[0], sr)
    assert relative_distance(gradient, expected) < tolerance(torch.float64, "loose")


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_plain_one_is_differentiable_twice(embedding: str, similarity: Similarity) -> None:
    embed, (sr, near, far) = EMBEDDINGS[embedding](), problem(2, 1, 2, size=3)

    def loss(x: Tensor) -> Tensor:
        return plain_embedded_nce(x, near, far, embed, 2.0, reduction="none", similarity=similarity)[0]

    assert torch.autograd.gradcheck(loss, sr)
    assert torch.autograd.gradgradcheck(loss, sr)


def test_the_plain_one_trains_the_embedding_by_its_anchors_alone() -> None:
    embed, (sr, near, far) = smooth(), problem()
    near, far = near.clone().requires_grad_(), far.clone().requires_grad_()
    anchors: list[Tensor] = []

    def spy(images: Tensor) -> list[Tensor]:
        maps = embed(images)
        anchors.extend(x for x in maps if x.requires_grad)
        return maps

    loss, _ = plain_embedded_nce(sr, near, far, spy)
    assert len(anchors) == 2
    loss.backward()
    assert near.grad is None
    assert far.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embed.parameters())


# ------------------------------------------------------------------------------- the lean one against the plain one


@pytest.mark.parametrize(("batch", "positives", "negatives"), [(1, 1, 1), (2, 3, 2), (3, 1, 4), (2, 4, 1)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_equals_the_plain_composition(
    embedding: str, batch: int, positives: int, negatives: int, temperature: float, device: str
) -> None:
    embed, (sr, near, far) = EMBEDDINGS[embedding]().to(device), problem(batch, positives, negatives, device=device)
    loss, similarity = embedded_nce(sr, near, far, embed, temperature)
    expected, expected_similarity = plain_embedded_nce(sr, near, far, embed, temperature)
    assert similarity.shape == (batch, positives + negatives)
    assert_close(loss, expected, "loose")
    assert_close(similarity, expected_similarity, "loose")
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, sr), torch.autograd.grad(expected, sr)
    assert expected_gradient.abs().max() > 1e-8
    assert relative_distance(gradient, expected_gradient) < tolerance(torch.float64, "loose")


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_plain_composition_over_the_discriminator(
    discriminator: HaarDiscriminator, temperature: float
) -> None:
    sr, near, far = problem(2, 2, 3, size=32)
    loss, _ = embedded_nce(sr, near, far, discriminator, temperature)
    expected, _ = plain_embedded_nce(sr, near, far, discriminator, temperature)
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, sr), torch.autograd.grad(expected, sr)
    assert_close(loss, expected, "loose")
    assert relative_distance(gradient, expected_gradient) < tolerance(torch.float64, "loose")


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_their_gradients(embedding: str, reduction: Reduction, device: str) -> None:
    """Each image's gradient is scaled by what comes after its own loss, also by 0 or something negative."""
    embed, (sr, near, far) = EMBEDDINGS[embedding]().to(device), problem(batch=3, device=device)
    upstream = torch.tensor([0.7, -2.5, 0.0], dtype=torch.float64, device=device)
    upstream = upstream if reduction == "none" else upstream[1]
    loss, similarity = embedded_nce(sr, near, far, embed, 0.3, reduction=reduction)
    expected, expected_similarity = plain_embedded_nce(sr, near, far, embed, 0.3, reduction=reduction)
    assert loss.shape == upstream.shape
    assert_close(loss, expected, "loose")
    assert_close(similarity, expected_similarity, "loose")
    (gradient,) = torch.autograd.grad(loss, sr, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, sr, upstream)
    assert_close(gradient, expected_gradient, "loose", scale=0.01)
    assert gradient[1].abs().sum() > 0


def test_a_batch_at_once_as_on_a_gpu_is_the_same() -> None:
    embed, (sr, near, far) = smooth(), problem(batch=3)
    expected, expected_similarity = embedded_nce(sr, near, far, embed, 0.3, reduction="none")
    (expected_gradient,) = torch.autograd.grad(expected.sum(), sr)
    gradient = torch.empty_like(sr)
    compare = partial(_compare_by_nce, positives=3, temperature=0.3)
    losses, similarity = _embed_and_compare(sr, torch.cat((near, far), 1), embed, compare, fill=gradient)
    assert_close(losses, expected)
    assert_close(similarity, expected_similarity)
    assert relative_distance(gradient, expected_gradient) < tolerance(torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_float32_is_close_to_float64(temperature: float, device: str) -> None:
    torch.manual_seed(0)
    embed = settled(HaarDiscriminator()).to(device)
    sr, near, far = problem(2, 2, 2, size=32, dtype=torch.float32, device=device)
    loss, _ = embedded_nce(sr, near, far, embed, temperature)
    (gradient,) = torch.autograd.grad(loss, sr)
    embed.double()
    exact_sr = sr.detach().double().requires_grad_()
    exact, _ = plain_embedded_nce(exact_sr, near.double(), far.double(), embed, temperature)
    (expected,) = torch.autograd.grad(exact, exact_sr)
    assert_close(loss, exact.item(), dtype=torch.float32)
    assert relative_distance(gradient, expected) < tolerance(torch.float32)


@pytest.mark.parametrize("form", ["nce", "distance"])
def test_keys_that_do_not_fit_are_embedded_in_parts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the batch is whole: the same numbers, and no more maps at a time than there is room for."""
    sr, keys = torch.rand(5, 3, 32, 32), torch.rand(5, 3, 3, 32, 32)
    embedding = settled(HaarDiscriminator(out_indices=(0, 1))).requires_grad_(False)
    compare = (
        partial(_compare_by_nce, positives=1, temperature=1.0)
        if form == "nce"
        else partial(_compare_by_distance, signs=[1.0, -0.5, -0.5], weights=None)
    )
    sizes: list[int] = []

    def embed(images: Tensor) -> list[Tensor]:
        sizes.append(len(images))
        return embedding(images)

    maps = sum(x[0].numel() * x.element_size() for x in embedding(sr[:1]))
    results = []
    for room in (5, 2):
        monkeypatch.setattr(embedded, "KEYS_AT_ONCE_MIB", room * 3 * maps / 2**20)
        gradient = torch.empty_like(sr)
        losses, values = _embed_and_compare(sr, keys, embed, compare, fill=gradient)
        results.append((losses, values, gradient))
    assert sizes == [5, 15, 5, 6, 6, 3]
    for whole, parts in zip(*results, strict=True):
        assert_close(parts, whole)


def test_gradcheck_with_an_embedding_of_ones_own() -> None:
    embed = smooth()
    sr, near, far = problem(2, 2, 2, size=4)
    for temperature in (0.2, 1.0):
        assert torch.autograd.gradcheck(lambda x, t=temperature: embedded_nce(x, near, far, embed, t)[0], sr)


def test_gradient_is_scaled_by_what_comes_after() -> None:
    embed, (sr, near, far) = smooth(), problem()
    (once,) = torch.autograd.grad(embedded_nce(sr, near, far, embed)[0], sr)
    (scaled,) = torch.autograd.grad(-3.5 * embedded_nce(sr, near, far, embed)[0], sr)
    torch.testing.assert_close(scaled, -3.5 * once)


def test_gradient_reaches_what_made_the_images_and_nothing_else() -> None:
    embed, (sr, near, far) = smooth(), problem()
    near, far = near.clone().requires_grad_(), far.clone().requires_grad_()
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    embedded_nce(factor * sr, near, far, embed)[0].backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert factor.grad is not None
    assert near.grad is None
    assert far.grad is None
    assert [p.grad for p in embed.parameters()] == [None] * 4


@pytest.mark.parametrize("form", FORMS)
def test_similarities_have_no_gradient(form: str) -> None:
    loss, similarity = FORMS[form](*problem(), smooth())
    assert loss.requires_grad
    assert not similarity.requires_grad


def test_twice_differentiating_is_refused() -> None:
    sr, near, far = problem()
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, smooth())[0], sr, create_graph=True)
    penalty = gradient.square().sum() + sr.square().sum()  # must not silently train on its second half alone
    with pytest.raises(RuntimeError, match=r"embedded_nce is differentiable once.*plain_embedded_nce"):
        torch.autograd.grad(penalty, sr)


def test_without_a_gradient_to_take() -> None:
    embed, (sr, near, far) = smooth(), problem()
    expected = embedded_nce(sr, near, far, embed)[0].item()
    with torch.no_grad():
        inside = embedded_nce(sr, near, far, embed)[0]
    detached = embedded_nce(sr.detach(), near, far, embed)[0]
    with torch.inference_mode():
        inference = embedded_nce(sr.detach().clone(), near, far, embed)[0]
        leaf = embedded_nce(sr, near, far, embed)[0]
        distance = embedded_distance(sr, near, far, embed)[0]
    assert_close(distance, embedded_distance(sr, near, far, embed)[0].item(), dtype=torch.float64)
    for loss in (inside, detached, inference, leaf):
        assert not loss.requires_grad
        assert_close(loss, expected, dtype=torch.float64)


def test_images_do_not_see_each_other() -> None:
    embed, (sr, near, far) = smooth(), problem(batch=3)
    order = [2, 0, 1]
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, embed)[0], sr)
    (shuffled,) = torch.autograd.grad(embedded_nce(sr[order], near[order], far[order], embed)[0], sr)
    torch.testing.assert_close(shuffled, gradient)


def test_equal_images_give_log_of_one_plus_n() -> None:
    sr, _, _ = problem()
    keys = sr.detach()[:, None].expand(-1, 3, -1, -1, -1)
    loss, similarity = embedded_nce(sr, keys, keys, smooth())
    assert loss.item() == pytest.approx(math.log(4))
    torch.testing.assert_close(similarity, torch.ones(2, 6, dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_black_images_give_finite_numbers(form: str) -> None:
    _, near, far = problem(dtype=torch.float32)
    black = torch.zeros(2, 3, 6, 6, requires_grad=True)
    loss, _ = FORMS[form](black, near, torch.zeros_like(far), IdentityEmbedding())
    loss.backward()
    assert math.isfinite(loss.item())
    assert black.grad is not None
    assert torch.isfinite(black.grad).all()


def test_autocast_bfloat16_is_finite_and_close(device: str) -> None:
    torch.manual_seed(0)
    embed = settled(HaarDiscriminator()).to(device)
    sr, near, far = problem(2, 2, 2, size=32, dtype=torch.float32, device=device)
    expected, expected_similarity = embedded_nce(sr, near, far, embed)
    (expected_gradient,) = torch.autograd.grad(expected, sr)
    with torch.autocast(device, torch.bfloat16):
        assert embed(sr)[0].dtype == torch.bfloat16  # autocast is at work
        loss, similarity = embedded_nce(sr, near, far, embed)
    (gradient,) = torch.autograd.grad(loss, sr)
    assert loss.dtype == similarity.dtype == gradient.dtype == torch.float32
    assert_close(loss, expected, dtype=torch.bfloat16, times=0.1)
    assert_close(similarity, expected_similarity, dtype=torch.bfloat16, scale=1, times=0.25)
    assert torch.isfinite(gradient).all()
    assert relative_distance(gradient, expected_gradient) < tolerance(torch.bfloat16, "loose")


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=autocast_to_float16)])
@pytest.mark.parametrize("form", FORMS)
def test_similarities_are_float32_under_autocast(form: str, dtype: torch.dtype, device: str) -> None:
    temperature = 2.0 if form == "dot" else 0.02
    embed, images = IdentityEmbedding(), problem(dtype=torch.float32, device=device)
    expected, expected_similarity = FORMS[form](*(x.double() for x in images), embed, temperature)
    with torch.autocast(device, dtype):
        loss, similarity = FORMS[form](*images, embed, temperature)
    assert_close(similarity, expected_similarity, "exact", dtype=torch.float32, scale=1)
    assert_close(loss, expected, dtype=torch.float32)


def test_float16_gradients_do_not_underflow(device: str) -> None:
    class HalfEmbedding(IdentityEmbedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images.half()]

    sr, near, far = problem(size=64, dtype=torch.float32, device=device)
    (gradient,) = torch.autograd.grad(embedded_nce(sr, near, far, HalfEmbedding(), 10.0)[0], sr)
    (expected,) = torch.autograd.grad(plain_embedded_nce(sr, near, far, IdentityEmbedding(), 10.0)[0], sr)
    assert expected.abs().mean() < 1e-6  # float16 has steps of 6e-8 there
    assert relative_distance(gradient, expected) < tolerance(torch.float16, "loose")


def convolved(x: Tensor) -> Tensor:
    kernel = torch.linspace(-1, 1, 8 * 3 * 9, device=x.device).view(8, 3, 3, 3).sin()
    return F.leaky_relu(F.conv2d(x, kernel, padding=1), 0.2)


LAYERS = {
    "images before maps": lambda x: [x, 20 * convolved(x)],
    "maps before unit vectors": lambda x: [convolved(x), F.normalize(3e-4 * convolved(x).mean((2, 3)), dim=1)],
    "vectors before maps": lambda x: [convolved(x).mean((2, 3)), convolved(x)],
    "maps in float32": lambda x: [convolved(x).float()],
}


@autocast_to_float16
@pytest.mark.parametrize("layers", LAYERS)
def test_layers_of_unlike_sizes_and_types_are_scaled_alike_in_float16(layers: str, device: str) -> None:
    torch.manual_seed(0)
    images = 0.9 * torch.rand(2, 4, 3, 1, 1) + 0.1 * torch.rand(2, 4, 3, 128, 128)
    sr, near, far = (x.to(device) for x in (images[:, 0], images[:, 1:2], images[:, 2:]))
    sr.requires_grad_()
    with torch.autocast(device, torch.float16):
        loss, _ = embedded_nce(sr, near, far, LAYERS[layers], 0.07)
    (gradient,) = torch.autograd.grad(loss, sr)
    (expected,) = torch.autograd.grad(embedded_nce(sr, near, far, LAYERS[layers], 0.07)[0], sr)
    assert relative_distance(gradient, expected) < tolerance(torch.float16, "loose")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_images_are_computed_in_float32(form: str, dtype: torch.dtype, device: str) -> None:
    embed, images = smooth(torch.float32).to(device), problem(dtype=dtype, device=device)
    loss, similarity = FORMS[form](*images, embed)
    expected, expected_similarity = FORMS[form](*(x.float() for x in images), embed)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(similarity, expected_similarity)
    (gradient,) = torch.autograd.grad(loss, images[0])
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, images[0])[0])


@pytest.mark.parametrize("form", FORMS)
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
def test_wrong_shapes_are_refused(form: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FORMS[form](*(torch.rand(shape) for shape in shapes), smooth(torch.float32))  # type: ignore[operator]


@pytest.mark.parametrize("form", FORMS)
def test_impossible_settings_are_refused(form: str) -> None:
    with pytest.raises(ConfigError, match="temperature: expected a number above 0, got 0"):
        FORMS[form](*problem(), smooth(), 0)
    with pytest.raises(ConfigError, match="reduction: expected one of mean, sum, none, got 'average'"):
        FORMS[form](*problem(), smooth(), reduction="average")  # type: ignore[operator]
    with pytest.raises(ConfigError, match="similarity: expected one of cosine, dot, got 'paper'"):
        plain_embedded_nce(*problem(), smooth(), similarity="paper")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_embedding_without_layers_is_refused(form: str) -> None:
    with pytest.raises(DataError, match="at least one layer"):
        FORMS[form](*problem(), lambda images: [])


@pytest.mark.parametrize(("size", "message"), [(33, "multiples of 2, got 33 x 33"), (30, "at least 32 x 32.*30 x 30")])
def test_sizes_the_embedding_cannot_take_are_refused(size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        embedded_nce(*problem(size=size, dtype=torch.float32), HaarDiscriminator())
