"""ContrastiveRegularization: its maths in the steps of a method; what it shares with PCL is tested there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached, step_of
from oracles import plain_contrast
from small_models import CountingNet, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError
from contrastive_sr.methods import PCL, ContrastiveRegularization, Methods, build_methods
from contrastive_sr.samples import draw

SMALL = {"ContrastiveRegularization": {"loss_weight": 0.1}}  # what tests/test_fuzz_config.py builds


def ready(**arguments: Any) -> tuple[ContrastiveRegularization, Methods, CountingNet, dict[str, Tensor]]:
    torch.manual_seed(0)
    defaults = {"loss_weight": 0.01, "embedding": SmoothEmbedding(), "phase": "fixed"}
    method = ContrastiveRegularization(**{**defaults, **arguments})
    network = CountingNet()
    methods = attached(network, method)
    return method, methods, network, methods.run(network, images_batch())


def test_the_cosine_is_the_plain_contrast_of_its_samples() -> None:
    method, methods, _, batch = ready(temperature=0.5)
    generator = step_of(methods).generator("cpu")
    positives, negatives = draw(method.positives, batch, generator), draw(method.negatives, batch, generator)
    assert (positives.shape[1], negatives.shape[1]) == (4, 6)
    want, near, far = plain_contrast(method.embedding, batch["sr"], positives, negatives, 0.5)
    losses = methods.sr_losses(batch)
    assert_close(losses.metrics["regularization_contrastive_raw"], want, dtype=torch.float32)
    assert_close(losses.loss, 0.01 * want.item(), dtype=torch.float32)
    assert_close(losses.metrics["regularization_positive_similarity"], near.mean(), dtype=torch.float32)
    assert_close(losses.metrics["regularization_negative_similarity"], far.mean(), dtype=torch.float32)


def test_the_dot_product_compares_whole_maps() -> None:
    samples = {"positives": [{"type": "HighResolution"}], "negatives": [{"type": "UpsampledLowResolution"}]}
    method, methods, _, batch = ready(similarity="dot", temperature=100.0, **samples)
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)
    losses = []
    pairs = zip(*(method.embedding(images) for images in (batch["sr"], batch["hr"], enlarged)), strict=True)
    for sr, hr, lr in pairs:
        near, far = ((sr * other).sum((1, 2, 3)) / 100 for other in (hr, lr))
        losses.append(-(near.exp() / (near.exp() + far.exp())).log().mean())
    raw = methods.sr_losses(batch).metrics["regularization_contrastive_raw"]
    assert_close(raw, torch.stack(losses).mean(), "loose", dtype=torch.float32)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_each_step_trains_its_own_part_alone(similarity: str) -> None:
    embedding = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
    method, methods, network, batch = ready(embedding=embedding, similarity=similarity)
    losses = methods(batch)
    assert list(losses) == ["regularization_discriminator"]
    sum(losses.values()).backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    method.zero_grad()
    before = copy.deepcopy(method.embedding.state_dict())
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.embedding.state_dict().items())


def test_state_has_the_names_of_pcl_s() -> None:
    method, *_ = ready(embedding={"type": "HaarDiscriminator"})
    assert list(method.state_dict()) == list(PCL(loss_weight=0.01).state_dict())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"similarity": "cosin"}, "expected one of cosine, dot, got 'cosin'"),
        ({"positives": []}, "regularization: positives: expected a list with at least one of"),
        ({"layers": ["body"]}, "ContrastiveRegularization does not know the key 'layers'"),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([{"type": "ContrastiveRegularization", "loss_weight": 0.01, **config}])
