"""TermWeight, with terms whose gradients are known by hand."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from tolerances import assert_close
from torch import Tensor

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods.weighting import TermWeight


def measure(weight: TermWeight, step: int, term_gradient: Tensor, pixel_gradient: Tensor) -> None:
    """One measurement with linear losses, whose gradients are the given tensors."""
    sr = torch.zeros_like(term_gradient, requires_grad=True)
    weight.measure(step, (sr * term_gradient).sum(), (sr * pixel_gradient).sum(), [sr])
    assert sr.grad is None


def gradients(ratio: float) -> tuple[Tensor, Tensor]:
    """Gradients at an SR image, one ``ratio`` times as long as the other and in another direction."""
    generator = torch.Generator().manual_seed(0)
    pixel = torch.randn(1, 3, 4, 4, generator=generator)
    term = torch.randn(1, 3, 4, 4, generator=generator)
    return term / term.norm() * pixel.norm() * ratio, pixel


def test_a_share_sets_the_weight() -> None:
    weight = TermWeight("t", share=0.05)
    assert weight.weight.item() == 0
    term, pixel = gradients(50)
    measure(weight, 0, term, pixel)
    expected = math.sqrt(float((term**2).sum())) / math.sqrt(float((pixel**2).sum()))
    assert_close(weight.ratio, expected, "exact", dtype=torch.float32)
    assert_close(weight.weight, 0.001, "exact", dtype=torch.float32)
    assert_close(weight.weight * weight.ratio, 0.05, "exact", dtype=torch.float32)
    assert_close(weight.share, 0.05, "exact", dtype=torch.float32)


def test_without_weight_and_share_the_share_is_five_percent() -> None:
    weight = TermWeight("t")
    measure(weight, 0, *gradients(50))
    assert_close(weight.share, 0.05, "exact", dtype=torch.float32)


def test_a_fixed_weight_stays_and_its_share_is_measured() -> None:
    weight = TermWeight("t", weight=0.004, interval=1)
    assert weight.share.item() == 0
    for step, ratio in enumerate((50, 100, 25)):
        measure(weight, step, *gradients(ratio))
        assert_close(weight.weight, 0.004, "exact", dtype=torch.float32)
        assert_close(weight.share, 0.004 * ratio, dtype=torch.float32)
    assert_close(weight.ratio, 0.5 * (0.5 * 50 + 0.5 * 100) + 0.5 * 25, dtype=torch.float32)


def test_later_measurements_come_at_intervals_and_are_smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TermWeight, "EARLY", 5)
    weight = TermWeight("t", share=0.1, interval=5)
    measure(weight, 5, *gradients(10))
    for step in range(6, 10):
        measure(weight, step, *gradients(1000))
        assert_close(weight.weight, 0.01, "exact", dtype=torch.float32)
    measure(weight, 10, *gradients(20))
    assert_close(weight.ratio, 0.5 * 10 + 0.5 * 20, dtype=torch.float32)
    assert_close(weight.weight, 0.1 / 15, dtype=torch.float32)


def test_the_first_steps_are_all_measured() -> None:
    weight = TermWeight("t", share=0.1, interval=5)
    for step, ratio in enumerate((10, 50, 50, 50, 50)):
        measure(weight, step, *gradients(ratio))
    assert_close(weight.ratio, 50 - 40 / 16, dtype=torch.float32)
    for step in range(5, 26):  # the first 25, and then every fifth
        measure(weight, step, *gradients(50 if step < 25 else 70))
    assert_close(weight.latest, 70, dtype=torch.float32)
    measure(weight, 26, *gradients(90))
    assert_close(weight.latest, 70, dtype=torch.float32)


def test_the_share_is_measured_and_not_the_one_asked_for() -> None:
    weight = TermWeight("t", share=0.1, interval=1)
    measure(weight, 0, *gradients(10))
    measure(weight, 1, *gradients(30))
    assert_close(weight.share, 0.1 / 20 * 30, dtype=torch.float32)


def test_between_measurements_no_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TermWeight, "EARLY", 5)
    weight = TermWeight("t", share=0.1, interval=5)
    sr = torch.zeros(1, 3, 4, 4, requires_grad=True)
    calls: list[Tensor] = []
    sr.register_hook(calls.append)
    seen = sr * 1.0
    for step in range(11):
        weight.measure(step, (2 * seen).sum(), seen.sum(), [seen])
    intermediate: list[Tensor] = []
    seen.register_hook(intermediate.append)
    for step in range(11, 16):
        weight.measure(step, (2 * seen).sum(), seen.sum(), [seen])
    assert len(intermediate) == 2  # term and pixel loss, at step 15 alone
    assert calls == []  # never further back than the SR image: the network's backward pass is not paid twice


def test_the_graph_can_still_be_used() -> None:
    weight = TermWeight("t", weight=0.01)
    sr = torch.rand(1, 3, 4, 4, requires_grad=True)
    term, pixel = sr.square().sum(), sr.abs().sum()
    weight.measure(0, term, pixel, [sr])
    (term + pixel).backward()
    assert sr.grad is not None
    torch.testing.assert_close(sr.grad, 2 * sr.detach() + 1)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_useless_measurements_are_passed_over(value: float) -> None:
    term, pixel = gradients(10)
    for broken in ((term * value, pixel), (term, pixel * value)):
        weight = TermWeight("t", share=0.1, interval=1)
        measure(weight, 0, *broken)
        assert weight.weight.item() == 0
        measure(weight, 1, term, pixel)
        assert_close(weight.ratio, 10, "exact", dtype=torch.float32)
        measure(weight, 2, *broken)
        assert_close(weight.ratio, 10, "exact", dtype=torch.float32)


@pytest.mark.parametrize("given", [{"weight": 0.004}, {"share": 0.1}])
def test_in_the_warm_up_another_weight_is_in_force(given: dict[str, float]) -> None:
    for in_warmup in (0.0, 0.5):
        weight = TermWeight("t", **given, warmup_steps=3, warmup_weight=in_warmup)
        for step in range(5):
            measure(weight, step, *gradients(10))
            after = given.get("weight", 0.01)
            assert_close(weight.at(step), in_warmup if step < 3 else after, "exact", dtype=torch.float32)
            assert_close(weight.ratio, 10, "exact", dtype=torch.float32)  # measured all the same


def test_the_first_steps_after_the_warm_up_are_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TermWeight, "EARLY", 3)
    weight = TermWeight("t", share=0.1, interval=1000, warmup_steps=10)
    measured = []
    for step in range(20):
        measure(weight, step, *gradients(10 + step))
        measured.append(round(weight.latest.item() - 10))
    assert measured == [0, 1, *[2] * 8, 10, 11, *[12] * 8]


def test_a_share_above_one_is_warned_about_once() -> None:
    weight = TermWeight("pcl_contrastive", weight=0.1, interval=1)
    with pytest.warns(UserWarning, match=r"pcl_contrastive: .* is 5\.0 times that of the pixel loss \(weight 0\.1\)"):
        measure(weight, 0, *gradients(50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(weight, 1, *gradients(50))


def test_smaller_shares_are_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(TermWeight("t", weight=0.0004), 0, *gradients(50))
        measure(TermWeight("t", share=0.9), 0, *gradients(5000))


def test_who_asks_for_a_share_above_one_is_not_warned() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(TermWeight("t", share=1.5), 0, *gradients(50))


def test_a_term_that_does_not_reach_the_sr_image_is_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(TermWeight("t", weight=0.1, warn=False), 0, *gradients(50))


def test_the_state_is_the_ratio() -> None:
    weight = TermWeight("t", share=0.1, interval=1)
    measure(weight, 0, *gradients(10))
    copy = TermWeight("t", share=0.1, interval=1)
    copy.load_state_dict(weight.state_dict())
    for w in (weight, copy):
        measure(w, 1, *gradients(30))
    assert torch.equal(copy.weight, weight.weight)
    assert_close(copy.ratio, 20, dtype=torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0.1, "share": 0.1}, r"t: expected one of `loss_weight` .* and `loss_share` .*, got both"),
        ({"weight": "4e-4"}, r"t: loss_weight: expected a number of at least 0, got '4e-4'.*`!!float 4e-4`"),
        ({"share": "5e-2"}, r"t: loss_share: expected a number above 0, got '5e-2'.*In YAML"),
        ({"weight": -0.1}, "t: loss_weight: expected a number of at least 0, got -0.1"),
        ({"share": 0}, "t: loss_share: expected a number above 0, got 0"),
        ({"weight": float("nan")}, "t: loss_weight: expected a number of at least 0, got nan"),
        ({"weight": 1, "interval": 0}, "t: share_interval: expected a whole number of at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TermWeight("t", **arguments)  # type: ignore[arg-type]


def test_a_share_needs_a_pixel_loss() -> None:
    sr = torch.zeros(1, 3, 4, 4, requires_grad=True)
    with pytest.raises(ConfigError, match="`loss_share` is a share of the pixel loss, and this training has none"):
        TermWeight("t", share=0.1).measure(0, sr.sum(), None, [sr])
    with pytest.raises(ConfigError, match=r"`align_share` is a share .* or use `align_weight`"):
        TermWeight("t", share=0.1, key="align_").check_pixel_loss(None)
    weight = TermWeight("t", weight=0.1)
    weight.measure(0, sr.sum(), None, [sr])
    assert weight.weight.item() == pytest.approx(0.1)


def test_a_pixel_loss_of_other_images_is_refused() -> None:
    leaf = torch.zeros(1, 3, 4, 4, requires_grad=True)
    sr = leaf * 1.0
    for pixel in (leaf.sum(), (leaf * 2).sum(), torch.tensor(0.3), sr.detach().sum()):
        with pytest.raises(DataError, match=r"t: expected a pixel loss computed from batch\['sr'\].*run\(\) returned"):
            TermWeight("t", weight=0.1).measure(0, sr.sum(), pixel, [sr])


@pytest.mark.parametrize("degenerate", ["flat", "black", "repeated"])
def test_degenerate_patches_do_not_set_the_weight_of_the_others(degenerate: str) -> None:
    """A batch of one, four of five images empty: at no step is the true share far from the one asked for."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> float:
        return float(torch.rand((), generator=generator))

    term, pixel = gradients(10)
    weight = TermWeight("t", share=0.05, interval=5)
    shares = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(400):
            of_term, of_pixel, empty = math.exp(draw() - 0.5), 1.0, draw() < 0.8
            if empty and degenerate != "repeated":  # the embedding sees no difference between the samples
                of_term *= 10 ** (-4 * draw())
            if empty and degenerate != "flat":  # SR is HR almost everywhere
                of_pixel *= 10 ** (-4 * draw())
            measure(weight, step, term * of_term, pixel * of_pixel)
            if not empty:
                shares.append(float(weight.weight) * 10 * of_term)
    assert max(shares) < 10 * 0.05
    assert min(shares) > 0.05 / 10
    (warning,) = caught
    assert str(warning.message).startswith("t: 10 of the last ")
    assert "as on flat or repeated patches" in str(warning.message)


def test_a_share_on_ordinary_patches_is_as_it_was_without_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for hold in (TermWeight.HOLD, math.inf):
        monkeypatch.setattr(TermWeight, "HOLD", hold)
        generator = torch.Generator().manual_seed(0)
        weight = TermWeight("t", share=0.05, interval=1)
        for step in range(100):
            term, pixel = gradients(10 * float(torch.randn((), generator=generator).mul(0.3).exp()))
            measure(weight, step, term, pixel)
            found.append(float(weight.weight))
    assert found[:100] == found[100:]


def test_a_state_of_an_earlier_version_is_loaded() -> None:
    weight = TermWeight("t", share=0.1, interval=1)
    measure(weight, 0, *gradients(10))
    state = {name: value for name, value in weight.state_dict().items() if name not in ("recent", "pixel")}
    copy = TermWeight("t", share=0.1, interval=1)
    copy.load_state_dict(state)
    assert torch.equal(copy.weight, weight.weight)


def test_a_term_that_vanishes_does_not_send_its_weight_to_infinity() -> None:
    weight = TermWeight("t", share=0.1, interval=1)
    weight._said = True  # that so many are left out
    for step, ratio in enumerate((10.0, *[1e-6] * 120)):
        measure(weight, step, *gradients(ratio))
    assert weight.ratio.item() < 1e-5
    assert_close(weight.weight, 100 * 0.1 / 10, dtype=torch.float32)
    restored = TermWeight("t", share=0.1, interval=1)
    restored.load_state_dict(weight.state_dict())
    assert restored.weight.item() == weight.weight.item()


@pytest.mark.parametrize("steep", [2.0**-20, 1.0, 2.0**10], ids=["mean", "sum", "steep"])
def test_shares_at_half_precision_neither_underflow_nor_overflow(steep: float) -> None:
    """A mean over many pixels beside a term of a few vectors, such as DASR's of a small batch."""
    representation = torch.linspace(-1, 1, 512).half().requires_grad_()
    gradient = steep * torch.linspace(1, 2, 512)
    weight = TermWeight("t", share=0.1)
    term, pixel = (representation.float() * gradient).sum(), (representation.float() * 2.0**-20).sum()
    weight.measure(0, term, pixel, [representation])
    ratio = float(gradient.norm()) / (2.0**-20 * math.sqrt(512))
    assert_close(weight.latest, torch.tensor(ratio), scale=ratio, dtype=torch.float16)
    assert_close(weight.share, torch.tensor(0.1), dtype=torch.float32)


@pytest.mark.parametrize("none", ["term", "pixel loss"])
def test_a_share_without_an_effect_is_warned_about_once(none: str) -> None:
    weight = TermWeight("t", share=0.5)
    term, pixel = gradients(2)
    spoilt = (0 * term, pixel) if none == "term" else (term, 0 * pixel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(200):
            measure(weight, step, *spoilt)
    (warning,) = caught
    assert "in 25 measurements: its weight is 0, and it has no effect" in str(warning.message)
    assert "`loss_weight` in place of `loss_share`" in str(warning.message)
    measure(weight, 200, term, pixel)
    assert weight.weight > 0  # it begins where there is something to measure


def test_a_term_that_has_begun_is_not_said_to_have_no_effect() -> None:
    weight = TermWeight("t", share=0.5)
    term, pixel = gradients(2)
    measure(weight, 0, term, pixel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(1, 100):
            measure(weight, step, 0 * term, pixel)
