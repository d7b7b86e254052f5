"""embedded_distance: the equation of MCL in plain loops, feature matching, and that it is lean and reaches SR alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from oracles import relative_distance
from small_models import IdentityEmbedding, SmoothEmbedding, settled
from tolerances import assert_close, tolerance
from torch import Tensor, nn
from versions import autocast_to_float16

from contrastive_sr.embeddings import HaarDiscriminator, frozen
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import embedded_distance

WEIGHTS = [None, (0.2, 0.3), (0.0, 2.0)]
Images = tuple[Tensor, Tensor | None, Tensor | None]


def problem(
    positives: int = 2, negatives: int = 3, size: int = 4, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Images:
    generator = torch.Generator().manual_seed(positives + 10 * negatives)
    images = torch.rand(2, 1 + positives + negatives, 3, size, size, generator=generator, dtype=torch.float64)
    sr, near, far = images.to(device, dtype).split((1, positives, negatives), dim=1)
    return sr[:, 0].clone().requires_grad_(), near if positives else None, far if negatives else None


def smooth(dtype: torch.dtype = torch.float64) -> SmoothEmbedding:
    torch.manual_seed(0)
    return SmoothEmbedding().to(dtype)


def loops(
    embed: Callable[[Tensor], Sequence[Tensor]], sr: Tensor, keys: Tensor | None, weights: Sequence[float] | None
) -> list[list[float]]:
    """The distances of each image to its keys, number by number."""
    rows = []
    for b, anchor in enumerate(sr):
        row = []
        for key in () if keys is None else keys[b]:
            pairs = list(zip(embed(anchor[None]), embed(key[None]), strict=True))
            distance = 0.0
            for index, (f, g) in enumerate(pairs):
                differences = [abs(x - y) for x, y in zip(f.flatten().tolist(), g.flatten().tolist(), strict=True)]
                weight = 1 / len(pairs) if weights is None else weights[index]
                distance += weight * sum(differences) / len(differences)
            row.append(distance)
        rows.append(row)
    return rows


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("positives", "negatives"), [(0, 1), (0, 4), (1, 0), (2, 3)])
def test_equals_the_equation_number_by_number(
    positives: int, negatives: int, weights: Sequence[float] | None, device: str
) -> None:
    embed, (sr, near, far) = smooth(), problem(positives, negatives)
    rows = [loops(embed, sr, keys, weights) for keys in (near, far)]
    want = [sum(p) / max(len(p), 1) - sum(n) / max(len(n), 1) for p, n in zip(*rows, strict=True)]
    images = [x if x is None else x.to(device) for x in (sr, near, far)]
    losses, distances = embedded_distance(*images, embed.to(device), weights, reduction="none")
    assert_close(losses, torch.tensor(want, dtype=torch.float64), dtype=torch.float64, scale=0.1)
    joined = torch.tensor([p + n for p, n in zip(*rows, strict=True)], dtype=torch.float64)
    assert_close(distances, joined, dtype=torch.float64)
    assert not distances.requires_grad
    for reduction, reduced in (("mean", sum(want) / 2), ("sum", sum(want))):
        value = embedded_distance(*images, embed, weights, reduction=reduction)[0]
        assert_close(value, reduced, dtype=torch.float64, scale=0.1)


@pytest.mark.parametrize(("positives", "negatives"), [(0, 2), (1, 0), (2, 1)])
def test_gradcheck(positives: int, negatives: int) -> None:
    embed, (sr, near, far) = smooth(), problem(positives, negatives, size=2)
    assert torch.autograd.gradcheck(lambda x: embedded_distance(x, near, far, embed, (0.2, 0.7))[0], sr)


class Vectors(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, images.mean((2, 3))]


def test_vectors_are_a_layer_too() -> None:
    sr, _, far = problem(0, 1)
    assert far is not None
    want = -((sr - far[:, 0]).abs().mean() + (sr - far[:, 0]).mean((2, 3)).abs().mean()) / 2
    loss, _ = embedded_distance(sr, None, far, Vectors())
    assert_close(loss, want.detach(), dtype=torch.float64)


def test_over_the_discriminator_in_float32(device: str) -> None:
    """As an ordinary graph gives it."""
    torch.manual_seed(0)
    embed = settled(HaarDiscriminator()).to(device)
    sr, near, far = problem(2, 2, 32, torch.float32, device)
    assert near is not None
    assert far is not None
    loss, _ = embedded_distance(sr, near, far, embed)
    (gradient,) = torch.autograd.grad(3 * loss, sr)

    def distance(key: Tensor) -> Tensor:
        return torch.stack([(f - g).abs().mean() for f, g in zip(embed(sr), embed(key), strict=True)]).mean()

    want = (distance(near[:, 0]) + distance(near[:, 1]) - distance(far[:, 0]) - distance(far[:, 1])) / 2
    (expected,) = torch.autograd.grad(3 * want, sr)
    assert_close(loss, want.detach(), "loose", scale=1)
    assert relative_distance(gradient, expected) < tolerance(torch.float32, "loose")


def test_gradient_reaches_sr_and_nothing_else_and_no_map_is_kept() -> None:
    embed, (sr, near, far) = smooth(), problem()
    for keys in (near, far):
        assert keys is not None
        keys.requires_grad_()
    with frozen(embed):
        loss, _ = embedded_distance(sr, near, far, embed)
    node = loss.grad_fn
    assert node is not None
    (before,) = (edge[0] for edge in node.next_functions if edge[0] is not None)
    assert {tuple(x.shape) for x in before.saved_tensors} == {tuple(sr.shape)}  # type: ignore[attr-defined]
    loss.backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert near is not None
    assert far is not None
    assert near.grad is None
    assert far.grad is None
    assert all(p.grad is None and p.requires_grad for p in embed.parameters())


def test_where_both_are_equal_nothing_pulls() -> None:
    """As at the first step, when the past is the network."""
    sr, _, _ = problem()
    loss, distances = embedded_distance(sr, None, sr.detach()[:, None], smooth())
    (gradient,) = torch.autograd.grad(loss, sr)
    assert not distances.any()
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [pytest.param(torch.float16, marks=autocast_to_float16), torch.bfloat16])
def test_half_precision_and_autocast(dtype: torch.dtype, device: str) -> None:
    embed, (sr, near, far) = smooth(torch.float32).to(device), problem(2, 2, 16, torch.float32, device)
    want, _ = embedded_distance(sr, near, far, embed)
    (expected,) = torch.autograd.grad(want, sr)
    with torch.autocast(device, dtype):
        loss, _ = embedded_distance(sr, near, far, embed)
    (gradient,) = torch.autograd.grad(loss, sr)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, want, rtol=0, atol=tolerance(dtype, "loose"))
    # many differences are so small that half precision changes their signs
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.9
    halves = [None if x is None else x.detach().to(dtype) for x in (sr, near, far)]
    assert embedded_distance(*halves, IdentityEmbedding())[0].dtype == torch.float32  # type: ignore[arg-type]


def test_twice_differentiating_is_refused() -> None:
    sr, near, far = problem()
    (gradient,) = torch.autograd.grad(embedded_distance(sr, near, far, smooth())[0], sr, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"positives": None, "negatives": None}, DataError, "expected positives or negatives, got neither"),
        ({"positives": torch.rand(2, 0, 3, 4, 4)}, DataError, "positives: expected a non-empty"),
        ({"negatives": torch.rand(2, 1, 3, 4, 5)}, DataError, r"negatives: expected .*\(2, K, 3, 4, 4\)"),
        ({"layer_weights": (1.0,)}, DataError, "one number for each of the embedding's 2 layers, got 1"),
        ({"layer_weights": (1.0, -1.0)}, ConfigError, r"layer_weights\[1\]: expected a number of at least 0"),
        ({"layer_weights": []}, ConfigError, "layer_weights: expected a list of one number for each layer"),
        ({"layer_weights": 0.5}, ConfigError, "layer_weights: expected a list of one number for each layer"),
        ({"reduction": "max"}, ConfigError, "expected one of mean, sum, none, got 'max'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    sr, near, far = problem()
    with pytest.raises(error, match=message):
        embedded_distance(**{"sr": sr, "positives": near, "negatives": far, "embed": smooth(), **changes})
