"""ImageContrastLoss: PCL-SR's and MPF-Net's equations; the embedding is fixed in it, and handed back as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_oracles import dot_loops
from oracles import cosine_loops, nce_loops, plain_blocks, plain_contrast, relative_distance
from small_models import SmoothEmbedding, settled
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import ImageContrastLoss


def images(count: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(2, 3, size, size, generator=generator, dtype=dtype).requires_grad_()
    positives, negatives = (torch.rand(2, count, 3, size, size, generator=generator, dtype=dtype) for _ in range(2))
    return sr, positives, negatives


@pytest.fixture
def embedding() -> HaarDiscriminator:
    torch.manual_seed(0)
    return settled(HaarDiscriminator(out_indices=(0, 1, 2)))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_plain_passes_through_plain_modules(embedding: HaarDiscriminator, temperature: float) -> None:
    """From convolution, BatchNorm and LeakyReLU on their own to the gradient at the SR image."""
    embedding.double()
    sr, positives, negatives = images(dtype=torch.float64)
    loss = ImageContrastLoss(embedding, temperature=temperature)(sr, positives, negatives)

    def plain(x: Tensor) -> list[Tensor]:
        return plain_blocks(list(embedding.blocks[:3]), embedding.transform(x))

    expected, _, _ = plain_contrast(plain, sr, positives, negatives, temperature)
    assert_close(loss, expected)
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, sr), torch.autograd.grad(expected, sr)
    assert expected_gradient.abs().sum() > 0
    assert relative_distance(gradient, expected_gradient) < 1e-10


def test_contrast_gives_the_similarities_behind_the_loss(embedding: HaarDiscriminator) -> None:
    sr, positives, negatives = images()
    loss = ImageContrastLoss(embedding)
    contrast = loss.contrast(sr, positives, negatives)
    assert torch.equal(contrast.loss, loss(sr, positives, negatives))
    _, near, far = plain_contrast(embedding, sr, positives, negatives)
    expected = torch.cat((near, far), 1)
    assert_close(loss.similarities(sr, positives, negatives), expected, scale=1)
    assert_close(contrast.metrics["positive_similarity"], near.mean(), scale=1)
    assert_close(contrast.metrics["negative_similarity"], far.mean(), scale=1)
    assert not any(metric.requires_grad for metric in contrast.metrics.values())


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_reductions_are_over_the_batch(embedding: HaarDiscriminator, similarity: Any) -> None:
    inputs = images(dtype=torch.float64)
    embedding.double()
    each = ImageContrastLoss(embedding, similarity=similarity, reduction="none")(*inputs)
    alone = [ImageContrastLoss(embedding, similarity=similarity)(*(x[i : i + 1] for x in inputs)) for i in range(2)]
    torch.testing.assert_close(each, torch.stack(alone))
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum())):
        loss = ImageContrastLoss(embedding, similarity=similarity, reduction=reduction)
        torch.testing.assert_close(loss(*inputs), expected)


@pytest.mark.parametrize("training", [True, False])
def test_moves_nothing_of_the_embedding(embedding: HaarDiscriminator, training: bool) -> None:
    embedding.train(training)
    embedding.blocks[1].eval()  # a part with a mode of its own keeps it
    embedding.head.bias.requires_grad_(False)
    modes = [module.training for module in embedding.modules()]
    flags = [parameter.requires_grad for parameter in embedding.parameters()]
    state = {name: value.clone() for name, value in embedding.state_dict().items()}

    sr, positives, negatives = images()
    positives.requires_grad_()
    negatives.requires_grad_()
    ImageContrastLoss(embedding)(sr, positives, negatives).backward()

    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert positives.grad is None
    assert negatives.grad is None
    assert all(parameter.grad is None for parameter in embedding.parameters())
    assert [module.training for module in embedding.modules()] == modes
    assert [parameter.requires_grad for parameter in embedding.parameters()] == flags
    for name, value in embedding.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_hands_the_embedding_back_after_an_error(embedding: HaarDiscriminator) -> None:
    embedding.train()
    with pytest.raises(DataError):
        ImageContrastLoss(embedding)(*images(size=8))
    assert all(module.training for module in embedding.modules())
    assert all(parameter.requires_grad for parameter in embedding.parameters())


def test_all_images_see_the_running_statistics(embedding: HaarDiscriminator) -> None:
    sr, positives, negatives = images()
    loss = ImageContrastLoss(embedding.train())
    both = loss.similarities(sr, positives, negatives)
    alone = loss.similarities(sr[:1], positives[:1], negatives[:1])
    torch.testing.assert_close(both[:1], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_backward_inside_and_outside_of_autocast(embedding: HaarDiscriminator, dtype: torch.dtype) -> None:
    sr, positives, negatives = images()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = ImageContrastLoss(embedding)(sr, positives, negatives)
    loss.backward()
    assert loss.dtype == torch.float32
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()
    assert sr.grad.abs().sum() > 0


def test_any_module_can_embed() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SmoothEmbedding()

        def forward(self, x: Tensor) -> list[Tensor]:
            return self.inner(x)

    sr, positives, negatives = images(size=6)
    module = Plain()
    expected, _, _ = plain_contrast(module, sr, positives, negatives)
    torch.testing.assert_close(ImageContrastLoss(module)(sr, positives, negatives), expected)


@pytest.mark.parametrize("temperature", [0, -1, "1.0", float("nan")])
def test_impossible_temperature_is_refused(temperature: object) -> None:
    with pytest.raises(ConfigError, match=r"ImageContrastLoss\(temperature\): expected a number above 0"):
        ImageContrastLoss(SmoothEmbedding(), temperature=temperature)  # type: ignore[arg-type]


def test_a_function_as_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ImageContrastLoss\(embedding\): expected an nn.Module, got"):
        ImageContrastLoss(lambda images: [images])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "message"), [(31, "at least 32 x 32 pixels, got 31 x 31"), (35, "multiples of 2, got 35 x 35")]
)
def test_sizes_the_embedding_cannot_take_are_refused(embedding: HaarDiscriminator, size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageContrastLoss(embedding)(*images(size=size))


# Both similarities, on small embeddings

SIMILARITIES = ["cosine", "dot"]


class VectorEmbedding(nn.Module):
    """A layer of maps, and one of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = torch.tanh(self.conv(images))
        return [maps, self.linear(maps.mean((2, 3)))]


def problem(size: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 6, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)
    return images[:, 0].clone().requires_grad_(), images[:, 1:3], images[:, 3:]


def make(similarity: Any, vectors: bool = False, temperature: float = 0.5) -> ImageContrastLoss:
    torch.manual_seed(0)
    embedding = VectorEmbedding() if vectors else SmoothEmbedding()
    return ImageContrastLoss(embedding, temperature=temperature, similarity=similarity).double()


def similarities(embedding: nn.Module, similarity: Any, sr: Tensor, keys: Tensor) -> list[Tensor]:
    """(B, K) of each layer, from the equations."""
    out = []
    for layer, f in enumerate(embedding(sr)):
        maps = torch.stack([embedding(images)[layer] for images in keys.unbind(1)], 1)
        if f.ndim == 2:
            f, maps = f[..., None, None], maps[..., None, None]
        if similarity == "dot":
            out.append(torch.tensor(dot_loops(f, maps), dtype=torch.float64))
        else:
            out.append(torch.stack([cosine_loops(f, m) for m in maps.unbind(1)], 1))
    return out


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_equals_equations_9_to_11(similarity: Any, vectors: bool) -> None:
    loss, (sr, positives, negatives) = make(similarity, vectors), problem()
    contrast = loss.contrast(sr, positives, negatives)
    near = similarities(loss.embedding, similarity, sr, positives)
    far = similarities(loss.embedding, similarity, sr, negatives)
    expected = torch.stack([nce_loops(n, f, 0.5).mean() for n, f in zip(near, far, strict=True)]).mean()
    assert_close(contrast.loss, expected, dtype=torch.float64)
    similarity_of_all = torch.cat((torch.stack(near).mean(0), torch.stack(far).mean(0)), 1)
    got = loss.similarities(sr, positives, negatives)
    assert_close(got, similarity_of_all, dtype=torch.float64)
    assert_close(contrast.metrics["positive_similarity"], torch.stack(near).mean(), dtype=torch.float64)
    assert_close(contrast.metrics["negative_similarity"], torch.stack(far).mean(), dtype=torch.float64)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradients(similarity: Any, vectors: bool) -> None:
    loss, (sr, positives, negatives) = make(similarity, vectors), problem()

    def value(x: Tensor) -> Tensor:
        return loss.contrast(x, positives, negatives).loss

    assert torch.autograd.gradcheck(value, sr)
    if similarity == "dot":
        small = sr.detach()[:1].requires_grad_()

        def one(x: Tensor) -> Tensor:
            return loss.contrast(x, positives[:1], negatives[:1]).loss

        assert torch.autograd.gradgradcheck(one, small)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradient_reaches_the_sr_image_and_nothing_else(embedding: HaarDiscriminator, similarity: Any) -> None:
    loss = ImageContrastLoss(embedding.train(), similarity=similarity)
    sr, positives, negatives = images()
    positives.requires_grad_()
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(sr, positives, negatives).backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()
    assert sr.grad.abs().sum() > 0
    assert positives.grad is None
    assert all(p.grad is None and p.requires_grad for p in loss.parameters())
    assert all(module.training for module in loss.modules())
    for name, value in loss.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e6])
@pytest.mark.parametrize("temperature", [0.005, 10.0])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_is_finite_in_float32(similarity: Any, temperature: float, scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images * scale]

    loss = ImageContrastLoss(Scaled(), temperature=temperature, similarity=similarity)
    sr, positives, negatives = problem(16, torch.float32)
    value = loss.contrast(sr, positives, negatives).loss
    value.backward()
    assert math.isfinite(value.item())
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_autocast_is_close_to_float32(similarity: Any) -> None:
    loss, (sr, positives, negatives) = make(similarity).float(), problem(dtype=torch.float32)
    expected = loss.contrast(sr, positives, negatives)
    with torch.autocast("cpu", torch.bfloat16):
        contrast = loss.contrast(sr, positives, negatives)
    got, want = (x.metrics["positive_similarity"] for x in (contrast, expected))
    assert contrast.loss.dtype == got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2)
    contrast.loss.backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_dot_products_are_float32_under_autocast(similarity: Any) -> None:
    class Same(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images]

    loss, images = ImageContrastLoss(Same(), temperature=0.1, similarity=similarity), problem(8, torch.float32)
    expected = loss.contrast(*images)
    with torch.autocast("cpu", torch.bfloat16):
        contrast = loss.contrast(*images)
    torch.testing.assert_close(contrast.metrics["positive_similarity"], expected.metrics["positive_similarity"])
    torch.testing.assert_close(contrast.loss, expected.loss)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda images: [], "at least one layer"),
        (lambda images: images.mean((2, 3)), r"list of feature maps \(\d+, C, H, W\) or vectors.*A single tensor"),
        (lambda images: [images.mean()], r"got a float32 tensor of shape \(\) as layer 0"),
        (lambda images: [images, images[:, 0]], r"as layer 1"),
        (lambda images: [images[:0]], r"\(0, 3, 4, 4\) as layer 0"),
    ],
)
def test_embeddings_without_maps_and_vectors_are_refused(similarity: Any, layers: object, message: str) -> None:
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> object:
            return layers(images)  # type: ignore[operator]

    loss = ImageContrastLoss(Odd(), similarity=similarity)
    with pytest.raises(DataError, match=message):
        loss.contrast(*problem(dtype=torch.float32))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_wrong_images_are_refused(similarity: Any) -> None:
    sr, positives, negatives = problem()
    with pytest.raises(DataError, match=r"sr: expected .*\(B, C, H, W\)"):
        make(similarity).contrast(sr[0], positives, negatives)
    with pytest.raises(DataError, match="negatives: expected a non-empty"):
        make(similarity).contrast(sr, positives, negatives[:, :0])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(similarity\): expected one of cosine, dot, got 'paper'"):
        ImageContrastLoss(SmoothEmbedding(), similarity="paper")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\(reduction\): expected one of mean, sum, none, got 'max'"):
        ImageContrastLoss(SmoothEmbedding(), reduction="max")  # type: ignore[arg-type]


def dot_product(source: Any) -> Tensor:
    """One that fits into float32."""
    return ImageContrastLoss(source.embedding(), similarity="dot")(*source.images(largest=1e10))


FUZZ = {  # what tests/test_fuzz_losses.py calls
    "ImageContrastLoss": lambda source: ImageContrastLoss(source.embedding())(*source.images()),
    "ImageContrastLoss, dot": dot_product,
}
