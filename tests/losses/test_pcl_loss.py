"""PCLLoss: the embedding is a fixed function in it, and is handed back as it was."""

from __future__ import annotations

import pytest
import torch
from oracles import plain_blocks, plain_contrast, relative_distance
from small_models import SmoothEmbedding, settled
from torch import Tensor, nn

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import PCLLoss


def images(count: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(2, 3, size, size, generator=generator, dtype=dtype).requires_grad_()
    positives, negatives = (torch.rand(2, count, 3, size, size, generator=generator, dtype=dtype) for _ in range(2))
    return sr, positives, negatives


@pytest.fixture
def embedding() -> HaarDiscriminator:
    torch.manual_seed(0)
    return settled(HaarDiscriminator(taps=3))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_plain_passes_through_plain_modules(embedding: HaarDiscriminator, temperature: float) -> None:
    """From convolution, BatchNorm and LeakyReLU on their own to the gradient at the SR image."""
    embedding.double()
    sr, positives, negatives = images(dtype=torch.float64)
    loss = PCLLoss(embedding, temperature)(sr, positives, negatives)

    def plain(x: Tensor) -> list[Tensor]:
        return plain_blocks(list(embedding.blocks[:3]), embedding.transform(x))

    expected, _, _ = plain_contrast(plain, sr, positives, negatives, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, sr), torch.autograd.grad(expected, sr)
    assert expected_gradient.abs().sum() > 0
    assert relative_distance(gradient, expected_gradient) < 1e-10


def test_contrast_gives_the_similarities_behind_the_loss(embedding: HaarDiscriminator) -> None:
    sr, positives, negatives = images()
    loss = PCLLoss(embedding)
    contrast = loss.contrast(sr, positives, negatives)
    assert torch.equal(contrast.loss, loss(sr, positives, negatives))
    _, near, far = plain_contrast(embedding, sr, positives, negatives)
    torch.testing.assert_close(contrast.positive_similarity, near, rtol=0, atol=1e-5)
    torch.testing.assert_close(contrast.negative_similarity, far, rtol=0, atol=1e-5)


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
    PCLLoss(embedding)(sr, positives, negatives).backward()

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
        PCLLoss(embedding)(*images(size=8))
    assert all(module.training for module in embedding.modules())
    assert all(parameter.requires_grad for parameter in embedding.parameters())


def test_all_images_see_the_running_statistics(embedding: HaarDiscriminator) -> None:
    sr, positives, negatives = images()
    loss = PCLLoss(embedding.train())
    both = loss.contrast(sr, positives, negatives).positive_similarity
    alone = loss.contrast(sr[:1], positives[:1], negatives[:1]).positive_similarity
    torch.testing.assert_close(both[:1], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_backward_inside_and_outside_of_autocast(embedding: HaarDiscriminator, dtype: torch.dtype) -> None:
    sr, positives, negatives = images()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = PCLLoss(embedding)(sr, positives, negatives)
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
    torch.testing.assert_close(PCLLoss(module)(sr, positives, negatives), expected)


def test_default_embedding_is_the_paper_s() -> None:
    embedding = PCLLoss().embedding
    assert isinstance(embedding, HaarDiscriminator)
    assert embedding.taps == 4


@pytest.mark.parametrize("temperature", [0, -1, "1.0", float("nan")])
def test_impossible_temperature_is_refused(temperature: object) -> None:
    with pytest.raises(ConfigError, match=r"PCLLoss\(temperature\): expected a number above 0"):
        PCLLoss(SmoothEmbedding(), temperature)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "message"), [(31, "at least 32 x 32 pixels, got 31 x 31"), (35, "multiples of 2, got 35 x 35")]
)
def test_sizes_the_embedding_cannot_take_are_refused(embedding: HaarDiscriminator, size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PCLLoss(embedding)(*images(size=size))
