"""ContrastiveRegularizationLoss: MPF-Net's eq. 9 to 11 over any embedding and any samples."""

from __future__ import annotations

import math

import pytest
import torch
from loss_oracles import dot_loops
from oracles import cosine_loops, nce_loops
from small_models import SmoothEmbedding, images_batch, settled
from torch import Tensor, nn

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import ContrastiveRegularizationLoss, PCLLoss
from contrastive_sr.samples import GaussianBlur, HighResolution, SampleGenerator, Sharpen, UpsampledLowResolution, draw

VARIANTS = ["cosine", "paper"]


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


def make(variant: str, vectors: bool = False, temperature: float = 0.5) -> ContrastiveRegularizationLoss:
    torch.manual_seed(0)
    embedding = VectorEmbedding() if vectors else SmoothEmbedding()
    return ContrastiveRegularizationLoss(embedding, temperature=temperature, variant=variant).double()


def similarities(embedding: nn.Module, variant: str, sr: Tensor, keys: Tensor) -> list[Tensor]:
    """(B, K) of each layer, from the equations."""
    out = []
    for layer, f in enumerate(embedding(sr)):
        maps = torch.stack([embedding(images)[layer] for images in keys.unbind(1)], 1)
        if f.ndim == 2:
            f, maps = f[..., None, None], maps[..., None, None]
        if variant == "paper":
            out.append(torch.tensor(dot_loops(f, maps), dtype=torch.float64))
        else:
            out.append(torch.stack([cosine_loops(f, m) for m in maps.unbind(1)], 1))
    return out


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_equations_9_to_11(variant: str, vectors: bool) -> None:
    loss, (sr, positives, negatives) = make(variant, vectors), problem()
    contrast = loss.contrast(sr, positives, negatives)
    near = similarities(loss.embedding, variant, sr, positives)
    far = similarities(loss.embedding, variant, sr, negatives)
    expected = torch.stack([nce_loops(n, f, 0.5).mean() for n, f in zip(near, far, strict=True)]).mean()
    torch.testing.assert_close(contrast.loss.detach(), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(contrast.positive_similarity, torch.stack(near).mean(0), rtol=1e-9, atol=0)
    torch.testing.assert_close(contrast.negative_similarity, torch.stack(far).mean(0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str, vectors: bool) -> None:
    loss, (sr, positives, negatives) = make(variant, vectors), problem()

    def value(x: Tensor) -> Tensor:
        return loss.contrast(x, positives, negatives).loss

    assert torch.autograd.gradcheck(value, sr)
    if variant == "paper":
        small = sr.detach()[:1].requires_grad_()

        def one(x: Tensor) -> Tensor:
            return loss.contrast(x, positives[:1], negatives[:1]).loss

        assert torch.autograd.gradgradcheck(one, small)


@pytest.mark.parametrize("variant", VARIANTS)
def test_draws_its_samples(variant: str) -> None:
    positives: list[SampleGenerator] = [HighResolution(), Sharpen(2)]
    negatives: list[SampleGenerator] = [GaussianBlur(3, sizes=(3,)), UpsampledLowResolution()]
    torch.manual_seed(0)
    loss = ContrastiveRegularizationLoss(SmoothEmbedding(), positives, negatives, 0.5, variant)
    batch = images_batch(size=16)
    generator = torch.Generator().manual_seed(3)
    value = loss(batch["hr"] * 0.9, batch, generator)
    generator.manual_seed(3)
    near, far = draw(positives, batch, generator), draw(negatives, batch, generator)
    assert near.shape[1] == 3
    assert far.shape[1] == 4
    assert torch.equal(value, loss.contrast(batch["hr"] * 0.9, near, far).loss)
    assert value != loss(batch["hr"] * 0.9, batch, generator)  # other draws


def test_samples_come_from_config() -> None:
    positives, negatives = [{"type": "Sharpen", "count": 2}], [{"type": "GaussianBlur", "count": 1, "sizes": [3]}]
    loss = ContrastiveRegularizationLoss(SmoothEmbedding(), positives, negatives)
    assert [sample.count for sample in (*loss.positives, *loss.negatives)] == [2, 1]
    batch = images_batch(size=16)
    assert loss(batch["hr"], {"hr": batch["hr"]}).shape == ()


def test_default_samples_stand_for_the_paper_s() -> None:
    loss = ContrastiveRegularizationLoss()
    assert isinstance(loss.embedding, HaarDiscriminator)
    assert sum(sample.count for sample in loss.positives) == 4  # the paper's five without the teacher's
    assert sum(sample.count for sample in loss.negatives) == 5


def test_cosine_is_pcl_s_loss() -> None:
    loss, (sr, positives, negatives) = make("cosine"), problem()
    pcl = PCLLoss(loss.embedding, temperature=0.5)
    assert torch.equal(loss.contrast(sr, positives, negatives).loss, pcl(sr, positives, negatives))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_reaches_the_sr_image_and_nothing_else(variant: str) -> None:
    torch.manual_seed(0)
    loss = ContrastiveRegularizationLoss(settled(HaarDiscriminator()).train(), variant=variant)
    batch = images_batch()
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    sr = (0.9 * batch["hr"] + 0.05).requires_grad_()
    batch["hr"].requires_grad_()
    loss(sr, batch).backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()
    assert sr.grad.abs().sum() > 0
    assert batch["hr"].grad is None
    assert all(p.grad is None and p.requires_grad for p in loss.parameters())
    assert all(module.training for module in loss.modules())
    for name, value in loss.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e6])
@pytest.mark.parametrize("temperature", [0.005, 10.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_is_finite_in_float32(variant: str, temperature: float, scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images * scale]

    loss = ContrastiveRegularizationLoss(Scaled(), temperature=temperature, variant=variant)
    sr, positives, negatives = problem(16, torch.float32)
    value = loss.contrast(sr, positives, negatives).loss
    value.backward()
    assert math.isfinite(value.item())
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_is_close_to_float32(variant: str) -> None:
    loss, (sr, positives, negatives) = make(variant).float(), problem(dtype=torch.float32)
    expected = loss.contrast(sr, positives, negatives)
    with torch.autocast("cpu", torch.bfloat16):
        contrast = loss.contrast(sr, positives, negatives)
    assert contrast.loss.dtype == contrast.positive_similarity.dtype == torch.float32
    torch.testing.assert_close(contrast.positive_similarity, expected.positive_similarity, rtol=2e-2, atol=2e-2)
    contrast.loss.backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_dot_products_are_float32_under_autocast(variant: str) -> None:
    class Same(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images]

    loss, images = ContrastiveRegularizationLoss(Same(), temperature=0.1, variant=variant), problem(8, torch.float32)
    expected = loss.contrast(*images)
    with torch.autocast("cpu", torch.bfloat16):
        contrast = loss.contrast(*images)
    torch.testing.assert_close(contrast.positive_similarity, expected.positive_similarity)
    torch.testing.assert_close(contrast.loss, expected.loss)


@pytest.mark.parametrize("variant", VARIANTS)
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
def test_embeddings_without_maps_and_vectors_are_refused(variant: str, layers: object, message: str) -> None:
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> object:
            return layers(images)  # type: ignore[operator]

    loss = ContrastiveRegularizationLoss(Odd(), variant=variant)
    with pytest.raises(DataError, match=message):
        loss.contrast(*problem(dtype=torch.float32))


@pytest.mark.parametrize("variant", VARIANTS)
def test_wrong_images_are_refused(variant: str) -> None:
    sr, positives, negatives = problem()
    with pytest.raises(DataError, match=r"sr: expected .*\(B, C, H, W\)"):
        make(variant).contrast(sr[0], positives, negatives)
    with pytest.raises(DataError, match="negatives: expected a non-empty"):
        make(variant).contrast(sr, positives, negatives[:, :0])
    with pytest.raises(DataError, match="UpsampledLowResolution: expected a batch with 'lr'"):
        make(variant)(torch.rand(2, 3, 16, 16), {"hr": torch.rand(2, 3, 16, 16)})


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(variant\): expected one of cosine, paper, got 'dot'"):
        ContrastiveRegularizationLoss(variant="dot")
    with pytest.raises(ConfigError, match=r"\(temperature\): expected a number above 0, got 0"):
        ContrastiveRegularizationLoss(temperature=0)
    with pytest.raises(ConfigError, match=r"\(negatives\): expected a list with at least one of"):
        ContrastiveRegularizationLoss(negatives=[])
    with pytest.raises(ConfigError, match=r"\(positives\)\[0\]: does not know the type 'Sharp'.*'Sharpen'"):
        ContrastiveRegularizationLoss(positives=[{"type": "Sharp"}])
