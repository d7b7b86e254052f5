"""The random phase: one offset a step for all that is compared and learnt from, and no more than an offset."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached, step_of
from oracles import plain_contrast
from small_models import CountingNet, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import MPF, PCL, SRNCE, ContrastiveRegularization, InfoNCE, Methods, Step
from contrastive_sr.samples import draw

STEPS = range(200)


def ready(**arguments: Any) -> tuple[PCL, Methods, dict[str, Tensor]]:
    torch.manual_seed(0)
    method, net = PCL(every=1, loss_weight=0.01, embedding=SmoothEmbedding(), **arguments), CountingNet()
    methods = attached(net, method)
    return method, methods, methods.run(net, images_batch())


def offset(method: Any, batch: dict[str, Tensor], step: Step) -> tuple[int, int]:
    """Where the first pixel of an image that is zero elsewhere comes to lie."""
    image = torch.zeros_like(batch["hr"])
    image[..., 14, 16] = 1  # farther in than any offset: its mirrored twin never shows
    row, column = method.shifted(image, batch, step)[0, 0].nonzero()[0].tolist()
    return row - 14, column - 16


@pytest.mark.parametrize(("scale", "count"), [(2, 4), (3, 12), (4, 4), (8, 8)])
def test_offsets_are_even_over_the_periods_of_strides_and_pixel_shuffle(scale: int, count: int) -> None:
    method = PCL(every=1, embedding=SmoothEmbedding())
    batch = images_batch(size=48, scale=scale)
    offsets = [offset(method, batch, Step(n, seed=n)) for n in STEPS]
    for axis in (0, 1):
        seen = [drawn[axis] for drawn in offsets]
        assert set(seen) == set(range(count))
        assert max(map(seen.count, seen)) < 3 * len(STEPS) / count
    assert len(set(offsets)) > count  # rows and columns draw their own


def test_an_offset_moves_pixels_and_mirrors_those_that_move_in() -> None:
    method, _, batch = ready()
    step = next(step for step in (Step(n, seed=n) for n in STEPS) if min(offset(method, batch, step)) > 1)
    top, left = offset(method, batch, step)
    moved = method.shifted(batch["hr"], batch, step)
    assert moved.shape == batch["hr"].shape
    assert torch.equal(moved[..., top:, left:], batch["hr"][..., : 32 - top, : 32 - left])
    assert torch.equal(moved[..., :top, left:], batch["hr"][..., 1 : top + 1, : 32 - left].flip(-2))
    samples = draw(method.negatives, batch, step.generator("cpu"))
    assert torch.equal(method.shifted(samples, batch, step)[:, 1], method.shifted(samples[:, 1], batch, step))


def test_the_term_is_the_contrast_of_images_that_moved_alike() -> None:
    method, methods, batch = ready()
    while 0 in offset(method, batch, step_of(methods)):
        methods.step.advance()
    step = step_of(methods)
    generator = step.generator("cpu")
    images = batch["sr"], draw(method.positives, batch, generator), draw(method.negatives, batch, generator)
    moved = [method.shifted(x, batch, step) for x in images]
    assert not any(torch.equal(a, b) for a, b in zip(images, moved, strict=True))
    want, near, _ = plain_contrast(method.embedding, *moved, 1.0)
    contrast = method.terms(batch, step)["contrastive"]
    assert_close(contrast.loss, want, dtype=torch.float32)
    assert_close(contrast.metrics["positive_similarity"], near.mean(), dtype=torch.float32)


def test_the_embedding_learns_from_the_same_offset() -> None:
    torch.manual_seed(0)
    net = CountingNet()
    methods = attached(net, PCL(every=1, loss_weight=0.01))
    method = methods["pcl"]
    batch = methods.run(net, images_batch(size=64))
    while 0 in offset(method, batch, step_of(methods)):
        methods.step.advance()
    step = step_of(methods)
    loss = method.auxiliary(batch, step)["discriminator"].loss
    method.phase = "fixed"
    moved = {**batch, **{key: method.shifted(batch[key], batch, step) for key in ("hr", "sr")}}
    assert not torch.equal(loss, method.auxiliary(batch, step)["discriminator"].loss)
    method.phase = "random"
    moved = {key: method.shifted(batch[key], batch, step) for key in ("hr", "sr")}
    method.phase = "fixed"
    assert_close(method.auxiliary({**batch, **moved}, step)["discriminator"].loss, loss, dtype=torch.float32)


def test_fixed_is_the_paper_s_and_moves_nothing() -> None:
    method, methods, batch = ready(phase="fixed")
    assert all(offset(method, batch, Step(n, seed=n)) == (0, 0) for n in range(5))
    generator = step_of(methods).generator("cpu")
    samples = draw(method.positives, batch, generator), draw(method.negatives, batch, generator)
    want, _, _ = plain_contrast(method.embedding, batch["sr"], *samples, 1.0)
    assert_close(method.terms(batch, step_of(methods))["contrastive"].loss, want, dtype=torch.float32)


def test_layers_of_the_network_lie_where_they_lie() -> None:
    torch.manual_seed(0)
    net = CountingNet()
    method = InfoNCE(loss_weight=0.1, layers=["body.0"], embedding={"type": "HaarDiscriminator", "out_indices": [0]})
    batch = attached(net, method).run(net, images_batch(size=64))
    assert all(method.shifted(batch["hr"], batch, Step(n, seed=n)) is batch["hr"] for n in range(5))


@pytest.mark.parametrize("kind", [PCL, ContrastiveRegularization, MPF, InfoNCE, SRNCE])
@pytest.mark.filterwarnings("ignore:.*there is no teacher")
def test_random_is_the_default_and_another_word_an_error(kind: Any) -> None:
    assert kind(embedding=SmoothEmbedding()).phase == "random"
    with pytest.raises(ConfigError, match=r"phase: expected .*random.*fixed.*, got 'randm'"):
        kind(embedding=SmoothEmbedding(), phase="randm")


def test_the_gradient_reaches_the_sr_image_everywhere_but_where_it_moved_out() -> None:
    method, _, batch = ready()
    step = next(step for step in (Step(n, seed=n) for n in STEPS) if offset(method, batch, step) == (3, 2))
    sr = batch["sr"].detach().requires_grad_()
    method.terms({**batch, "sr": sr}, step)["contrastive"].loss.backward()
    assert sr.grad is not None
    reached = F.max_pool2d(sr.grad.abs().amax(1), 3, 1, 1) > 0
    assert reached[:, : 32 - 4, : 32 - 3].all()
    assert not sr.grad[..., 29:, :].any()
    assert not sr.grad[..., 30:].any()


def test_images_smaller_than_the_offsets_are_refused_at_once() -> None:
    method, net = PCL(embedding=SmoothEmbedding(), positives=[{"type": "HighResolution"}]), CountingNet()
    methods = attached(net, method)
    with pytest.raises(
        DataError, match="HR images of at least 28 px a side, over which the random phase moves them, got 21"
    ):
        methods.run(net, images_batch(size=21, scale=7))
