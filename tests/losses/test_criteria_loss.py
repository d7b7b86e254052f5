"""CriteriaLoss: Cria-CL's two terms with masks, weights, scales, and what it tells about itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_oracles import alignment_loops, uniformity_loops
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import CriteriaLoss

SHAPE = torch.Size([2, 1, 3, 3])


def criteria(seed: int = 0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    pixel, ssim, low, high, adversarial = torch.rand(5, *SHAPE, generator=generator, dtype=torch.float64)
    return pixel, {"ssim": ssim, "low": low.mean()}, {"high": high, "adversarial": adversarial}


def mask() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def oracle(
    anchor: Tensor, positives: list[Tensor], negatives: list[Tensor], s: Tensor | None, weights: tuple[float, float]
) -> Tensor:
    align = alignment_loops(anchor, positives, 2, SHAPE)
    uniformity = uniformity_loops(anchor, negatives, 2, SHAPE)
    if s is not None:
        align, uniformity = s * align, (1 - s) * uniformity
    return weights[0] * align.mean() + weights[1] * uniformity.mean()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("weights", [(0.01, 0.01), (1.0, 0.0), (0.0, 3.0)])
def test_equals_equations_8_and_9_under_masks(weights: tuple[float, float], masked: bool) -> None:
    anchor, positives, negatives = criteria()
    s = mask() if masked else None
    expected = oracle(anchor, list(positives.values()), list(negatives.values()), s, weights)
    loss = CriteriaLoss(align_weight=weights[0], uniformity_weight=weights[1])
    torch.testing.assert_close(loss(anchor, positives, negatives, s), expected)
    torch.testing.assert_close(loss(anchor, list(positives.values()), list(negatives.values()), s), expected)


def test_default_settings_are_the_paper_s() -> None:
    loss = CriteriaLoss()
    assert (loss.align_weight, loss.uniformity_weight, loss.exponent, loss.t) == (0.01, 0.01, 2, 2)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("detach", [True, False])
def test_gradients(detach: bool, normalize: bool) -> None:
    anchor, positives, negatives = criteria()
    inputs = [x.clone().requires_grad_() for x in (anchor, *positives.values(), *negatives.values())]
    loss = CriteriaLoss(align_weight=1.0, uniformity_weight=1.0, detach_anchor=detach, normalize=normalize).double()
    loss(anchor, positives, negatives)
    loss.eval()

    def value(a: Tensor, *others: Tensor) -> Tensor:
        return loss(a, others[:2], others[2:], mask())

    gradients = torch.autograd.grad(value(*inputs), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    if not detach:
        assert torch.autograd.gradcheck(value, inputs)
        assert torch.autograd.gradgradcheck(value, inputs)


def test_a_detached_anchor_is_only_lowered() -> None:
    anchor, positives, negatives = torch.tensor(0.1), [torch.tensor(2.0)], [torch.tensor(0.5)]
    assert CriteriaLoss().contrast(anchor, positives, negatives).metrics["anchor_push"] == 1
    assert CriteriaLoss(detach_anchor=True).contrast(anchor, positives, negatives).metrics["anchor_push"] == -1


def test_metrics_tell_means_and_directions() -> None:
    loss = CriteriaLoss(align_weight=1.0)
    anchor, positives, negatives = torch.tensor([0.4, 0.6]), [torch.tensor([0.1, 0.1])], {"far": torch.tensor(0.7)}
    with torch.no_grad():
        metrics = loss.contrast(anchor, positives, negatives).metrics
    assert {name: round(value.item(), 6) for name, value in metrics.items()} == {
        "anchor": 0.5,
        "positive_0": 0.1,
        "far": 0.7,
        "anchor_push": -1,
        "positive_0_push": 1,
        "far_push": -1,
    }
    only_align = torch.ones(2)
    assert loss.contrast(anchor, positives, negatives, only_align).metrics["far_push"] == 0
    assert not any(value.requires_grad for value in metrics.values())


def test_metrics_say_what_a_step_of_descent_does() -> None:
    anchor, positives, negatives = criteria()
    leaves = {"anchor": anchor, **positives, **negatives}
    for leaf in leaves.values():
        leaf.requires_grad_()
    loss = CriteriaLoss(align_weight=5.0, uniformity_weight=0.1)
    metrics = loss.contrast(anchor, positives, negatives, mask()).metrics
    loss(anchor, positives, negatives, mask()).backward()
    pushes = {name: -leaf.grad.sum().sign() for name, leaf in leaves.items() if leaf.grad is not None}
    assert len(pushes) == 5
    assert all(metrics[f"{name}_push"] == push for name, push in pushes.items())
    assert len(set(map(float, pushes.values()))) == 2


def test_normalized_criteria_are_divided_by_running_means() -> None:
    loss = CriteriaLoss(align_weight=1.0, uniformity_weight=1.0, normalize=True).double()
    means = torch.zeros(0)
    for step in range(3):
        anchor, positives, negatives = criteria(step)
        listed = [anchor, *positives.values(), *negatives.values()]
        sizes = torch.stack([x.mean() for x in listed])
        means = sizes if step == 0 else 0.99 * means + 0.01 * sizes
        scaled = [x / mean for x, mean in zip(listed, means, strict=True)]
        expected = oracle(scaled[0], scaled[1:3], scaled[3:], mask(), (1.0, 1.0))
        torch.testing.assert_close(loss(anchor, positives, negatives, mask()), expected)
        torch.testing.assert_close(loss.scales.means, means)


def test_normalized_loss_does_not_depend_on_the_criteria_s_scales() -> None:
    anchor, positives, negatives = criteria()
    first, second = CriteriaLoss(normalize=True).double(), CriteriaLoss(normalize=True).double()
    expected = first(anchor, positives, negatives)
    scaled = {"ssim": 1e4 * positives["ssim"], "low": 1e-3 * positives["low"]}
    torch.testing.assert_close(second(255 * anchor, scaled, negatives), expected)


def test_scales_are_saved_and_stay_in_eval_mode() -> None:
    loss = CriteriaLoss(normalize=True).double()
    loss(*criteria())
    resumed = CriteriaLoss(normalize=True).double()
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(loss(*criteria(1)), resumed(*criteria(1)))
    assert torch.equal(loss.scales.means, resumed.scales.means)
    resumed.eval()
    resumed(*criteria(2))
    assert torch.equal(loss.scales.means, resumed.scales.means)
    unused = CriteriaLoss(normalize=True).double()
    unused.load_state_dict(CriteriaLoss(normalize=True).state_dict())
    raw = CriteriaLoss()(*criteria())
    assert torch.equal(unused.eval()(*criteria()), raw)  # nothing was measured yet


def test_contrast_is_the_loss_and_moves_the_scales_as_often() -> None:
    loss, other = (CriteriaLoss(normalize=True).double() for _ in range(2))
    for seed in range(2):
        assert torch.equal(loss.contrast(*criteria(seed)).loss, other(*criteria(seed)))
        assert torch.equal(loss.scales.means, other.scales.means)
    before = loss.eval().scales.means.clone()
    loss.contrast(*criteria(2))
    assert torch.equal(loss.scales.means, before)


def test_contrast_where_no_gradient_can_be_taken() -> None:
    loss = CriteriaLoss()
    expected = loss.contrast(*criteria(), mask())
    for without in (torch.no_grad(), torch.inference_mode()):
        with without:
            again = loss.contrast(*criteria(), mask())
        assert torch.equal(again.loss, expected.loss)
        assert again.metrics == expected.metrics


def test_one_term_alone() -> None:
    anchor, positives, negatives = criteria()
    loss, s = CriteriaLoss(align_weight=2.0, uniformity_weight=3.0, anchor_name="pixel"), mask()
    align, uniformity = loss.contrast(anchor, positives, mask=s), loss.contrast(anchor, negatives=negatives, mask=s)
    torch.testing.assert_close(align.loss + uniformity.loss, loss(anchor, positives, negatives, s))
    assert set(align.metrics) == {f"{name}{end}" for name in ("pixel", "ssim", "low") for end in ("", "_push")}
    assert set(uniformity.metrics) == {
        f"{name}{end}" for name in ("pixel", "high", "adversarial") for end in ("", "_push")
    }


def test_reductions() -> None:
    anchor, positives, negatives = criteria()
    each = CriteriaLoss(reduction="none")(anchor, positives, negatives, mask())
    assert each.shape == SHAPE
    torch.testing.assert_close(CriteriaLoss(reduction="sum")(anchor, positives, negatives, mask()), each.sum())
    torch.testing.assert_close(CriteriaLoss()(anchor, positives, negatives, mask()), each.mean())
    metrics = CriteriaLoss(reduction="none").contrast(anchor, positives, negatives, mask()).metrics
    assert all(metric.shape == () for metric in metrics.values())


def test_the_number_of_criteria_can_be_said_before_the_first_call() -> None:
    loss, lazy = CriteriaLoss(normalize=True, count=5).double(), CriteriaLoss(normalize=True).double()
    assert loss.scales.means.shape == (5,)
    assert torch.equal(loss(*criteria()), lazy(*criteria()))
    CriteriaLoss(normalize=True, count=5).double().load_state_dict(lazy.state_dict())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_is_finite(value: float, dtype: torch.dtype, normalize: bool) -> None:
    inputs = [torch.full((2, 2), x, dtype=dtype, requires_grad=True) for x in (value, 1.0, value)]
    loss = CriteriaLoss(normalize=normalize)(inputs[0], inputs[1:2], inputs[2:])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in inputs)


def test_several_losses_before_one_backward_pass() -> None:
    anchor, positives, negatives = criteria()
    anchor.requires_grad_()
    loss = CriteriaLoss(normalize=True).double()
    (loss(anchor, positives, negatives) + loss(anchor, positives, negatives)).backward()
    assert anchor.grad is not None


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([], {}, "CriteriaLoss: expected at least one criterion beside the anchor, got none"),
        (torch.rand(2), [torch.rand(2)], r"positives\): expected criteria by name, or a list.*got a float32 tensor"),
        ({"a": torch.rand(2)}, {"a": torch.rand(2)}, r"negatives\): expected a new name.*'a' again"),
        ({"anchor": torch.rand(2)}, [torch.rand(2)], r"positives\): expected a new name.*'anchor' again"),
    ],
)
def test_wrong_criteria_are_refused(positives: Any, negatives: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CriteriaLoss()(torch.rand(2), positives, negatives)
    with pytest.raises(DataError, match=message):
        CriteriaLoss().contrast(torch.rand(2), positives, negatives)


def test_another_number_of_criteria_is_refused() -> None:
    loss = CriteriaLoss(normalize=True)
    loss(torch.rand(2), [torch.rand(2)], [torch.rand(2)])
    with pytest.raises(DataError, match="expected 3 criteria, the anchor among them, as in the calls before, got 4"):
        loss(torch.rand(2), [torch.rand(2)], [torch.rand(2)] * 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align_weight": -1}, r"align_weight\): expected a number of at least 0, got -1"),
        ({"uniformity_weight": "x"}, r"uniformity_weight\): expected a number of at least 0"),
        ({"exponent": 0}, r"exponent\): expected a number of at least 1, got 0"),
        ({"t": 0}, r"\(t\): expected a number above 0, got 0"),
        ({"count": -1}, r"\(count\): expected a whole number of at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CriteriaLoss(**settings)


def test_a_criterion_that_is_not_finite_does_not_spoil_the_scales() -> None:
    loss = CriteriaLoss(normalize=True)
    good = [torch.tensor(x) for x in (0.1, 0.3, 0.2)]
    loss(good[0], [good[1]], [good[2]])
    loss(good[0], [torch.tensor(torch.inf)], [good[2]])
    torch.testing.assert_close(loss.scales.means, torch.tensor([0.1, 0.3, 0.2]))


def test_what_is_refused_leaves_the_scales_alone() -> None:
    loss = CriteriaLoss(normalize=True)
    anchor, other = torch.tensor(0.1), torch.tensor(0.3)
    for positives, negatives in (({}, {}), ({"b": other}, {"a": 0.3})):
        with pytest.raises(DataError):
            loss(anchor, positives, negatives)
    assert len(loss.scales.means) == 0
    with pytest.raises(DataError, match=r"CriteriaLoss\(anchor\): expected a non-empty floating-point tensor"):
        loss.contrast(0.1, [other], [other])  # type: ignore[arg-type]


def fuzz(source: Any) -> Tensor:
    source.largest = 1e10  # powers of criteria, which have to fit into float32
    shape = source.one_of((), (2, 1, 3, 3))
    anchor, near, far = (source(*shape, unit=True) for _ in range(3))
    return CriteriaLoss(normalize=source.one_of(True, False))(anchor, [near], [far])


FUZZ = {"CriteriaLoss": fuzz}  # what tests/test_fuzz_losses.py calls
