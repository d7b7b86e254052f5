"""FeatureDistanceLoss: thin over embedded_distance, whose equation tests/functional has; the embedding is fixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from same import assert_same
from small_models import SmoothEmbedding, settled
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional import embedded_distance
from contrastive_sr.losses import FeatureDistanceLoss


def images(size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr, near, far = (torch.rand(2, n, 3, size, size, generator=generator) for n in (1, 1, 3))
    return sr[:, 0].clone().requires_grad_(), near, far


def test_contrast_names_what_there_is() -> None:
    torch.manual_seed(0)
    loss, (sr, near, far) = FeatureDistanceLoss(SmoothEmbedding(), layer_weights=[0.2, 0.7]), images(8)
    value, distances = embedded_distance(sr, near, far, loss.embedding, (0.2, 0.7))
    both = loss.contrast(sr, near, far)
    assert torch.equal(both.loss, value)
    assert torch.equal(loss(sr, near, far), value)
    assert torch.equal(loss.distances(sr, near, far), distances)
    assert_close(both.metrics["positive_distance"], distances[:, 0].mean())
    assert_close(both.metrics["negative_distance"], distances[:, 1:].mean())
    assert_close(both.loss.detach(), both.metrics["positive_distance"] - both.metrics["negative_distance"], scale=1)
    for keys, name, sign in (
        ({"positives": near}, "positive_distance", 1),
        ({"negatives": far}, "negative_distance", -1),
    ):
        one = loss.contrast(sr, **keys)
        assert list(one.metrics) == [name]
        assert_close(one.loss.detach(), sign * both.metrics[name])


def test_moves_nothing_of_the_embedding() -> None:
    torch.manual_seed(0)
    embedding = settled(HaarDiscriminator(out_indices=(0, 1))).train()
    before = {name: value.clone() for name, value in embedding.state_dict().items()}
    sr, near, far = images()
    FeatureDistanceLoss(embedding)(sr, near, far).backward()
    assert sr.grad is not None
    assert sr.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in embedding.parameters())
    assert all(module.training for module in embedding.modules())
    assert_same(dict(embedding.state_dict()), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "max"}, r"FeatureDistanceLoss\(reduction\): expected one of"),
        ({"layer_weights": "1"}, r"FeatureDistanceLoss\(layer_weights\): expected a list of one number"),
        ({"embedding": lambda images: [images]}, r"FeatureDistanceLoss\(embedding\): expected an nn.Module, got"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureDistanceLoss(**{"embedding": SmoothEmbedding(), **settings})


def pull_or_push(source: Any) -> Tensor:
    """With one of both alone."""
    sr, near, far = source.images()
    loss = FeatureDistanceLoss(source.embedding(), reduction="none")
    return loss(sr, near) if source.one_of(True, False) else loss(sr, negatives=far)


FUZZ = {  # what tests/test_fuzz_losses.py calls
    "FeatureDistanceLoss": lambda source: FeatureDistanceLoss(source.embedding())(*source.images()),
    "FeatureDistanceLoss, one of both": pull_or_push,
}
