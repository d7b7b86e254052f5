"""What methods say they compare is what their losses see, and looking moves nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from driving import attached, step_of
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr.embeddings import training_mode
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods import (
    CRLSR,
    DASR,
    METHODS,
    MPF,
    PCL,
    SRNCE,
    BidirectionalNCE,
    Comparison,
    ContrastiveRegularization,
    CriaCL,
    DegradationContrast,
    Method,
    Methods,
)
from contrastive_sr.methods.compared import compare_places, strongest_place, without_repeats
from contrastive_sr.samples import OtherInstances

UPSAMPLE = nn.Upsample(scale_factor=4)


def batch_of(count: int = 2, size: int = 64, **more: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hr, lr = torch.rand(count, 3, size, size, generator=generator), torch.rand(count, 3, size // 4, size // 4)
    return {"hr": hr, "lr": lr, **more}


def looked(methods: Methods, batch: dict[str, Tensor], net: nn.Module = UPSAMPLE) -> list[Comparison]:
    """As the command does it, and nothing may have moved."""
    before = copy.deepcopy((methods.state_dict(), net.state_dict()))
    with torch.no_grad(), training_mode(methods, False), training_mode(net, False):
        comparisons = methods.compared(methods.run(net, batch))
    for old, new in zip(before, (methods.state_dict(), net.state_dict()), strict=True):
        # an adversarial criterion lets BatchNorm count its calls, which nothing reads
        assert all(torch.equal(x, new[key]) for key, x in old.items() if not key.endswith("num_batches_tracked"))
    return comparisons


def numbers(comparison: Comparison, role: str) -> Tensor:
    return torch.tensor([part.similarity for part in comparison.parts if part.role == role])


@pytest.mark.parametrize("kind", [PCL, ContrastiveRegularization, MPF])
@pytest.mark.filterwarnings("ignore:.*there is no teacher")
def test_images_have_the_similarities_of_the_loss(kind: Any) -> None:
    method = kind(loss_weight=0.1, phase="fixed", **({"warmup_steps": 5} if kind is MPF else {}))
    methods = attached(UPSAMPLE, method)
    batch = batch_of(count=1)
    (comparison,) = looked(methods, batch)
    parts = comparison.parts
    assert [part.role for part in parts] == ["anchor"] + ["positive"] * 4 + ["negative"] * (len(parts) - 5)
    assert comparison.note == "untrained embedding"
    assert torch.equal(parts[1].image, batch["hr"][0])  # HighResolution comes first
    names = {"pcl": {"LH", "HL", "HH"}, "regularization": {"LH", "HL", "HH"}, "mpf": set()}[method.name]
    assert all(set(part.bands) == names for part in parts)
    method.contrast_begins = 0
    metrics = method.terms(methods.run(UPSAMPLE, batch), step_of(methods))["contrastive"].metrics
    assert_close(numbers(comparison, "positive").mean(), metrics["positive_similarity"], scale=1)
    assert_close(numbers(comparison, "negative").mean(), metrics["negative_similarity"], scale=1)
    methods.step.advance()
    assert looked(methods, batch)[0].note == ""


def test_other_images_of_the_batch_are_shown() -> None:
    embedding = {"type": "FourierDiscriminator", "out_indices": [0]}
    methods = attached(UPSAMPLE, PCL(every=1, negatives=[OtherInstances(count=2)], embedding=embedding))
    batch = batch_of(count=2)
    (comparison,) = looked(methods, batch)
    assert [part.label for part in comparison.parts[-2:]] == ["OtherInstances 1", "OtherInstances 2"]
    assert torch.equal(comparison.parts[-1].image, batch["hr"][1])
    spectrum = comparison.parts[0].bands["log spectrum"]
    assert spectrum.shape == (3, 64, 64)
    assert 0 <= spectrum.min() <= spectrum.max() <= 1
    assert spectrum[:, 32, 32].min() == spectrum.amax((1, 2)).min()  # zero frequency in the middle


@pytest.mark.parametrize(("kind", "directions"), [(BidirectionalNCE, 2), (SRNCE, 1)])
def test_places_have_the_similarities_of_the_loss(kind: Any, directions: int) -> None:
    torch.manual_seed(0)
    embedding = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
    method = kind(dim=8, positions=None, embedding=embedding, phase="fixed")
    methods = attached(UPSAMPLE, method)
    batch = batch_of(count=1)
    images, *places = looked(methods, batch)
    assert len(places) == 2 * directions
    assert images.note == "untrained embedding and heads"
    metrics = method.terms(methods.run(UPSAMPLE, batch), step_of(methods))["contrastive"].metrics
    assert_close(numbers(images, "positive").item(), metrics["positive_similarity"], dtype=torch.float32, scale=1)
    if kind is SRNCE:
        assert_close(numbers(images, "negative").item(), metrics["lr_similarity"], dtype=torch.float32, scale=1)
        assert [part.role for part in images.parts] == ["anchor", "positive", "negative"]
        assert [part.label for part in places[0].parts[:3]] == [
            "HighResolution, a place",
            "SR, same place",
            "UpsampledLowResolution, the condition",
        ]


def test_a_place_is_compared_with_all_others() -> None:
    features = torch.zeros(4, 8, 8)
    features[0] = 1.0
    features[:2, 2, 3] = torch.tensor([3.0, 4.0])  # a cosine of 0.6 with all others
    features[:2, 6, 6] = torch.tensor([-1.0, 0.0])
    image = torch.rand(3, 64, 64)
    comparison = compare_places("x", ("SR", image, features), ("HR", image, features), place=(0.9, 0.1))
    anchor, positive, *negatives, whole = comparison.parts
    assert (anchor.role, positive.role, whole.role) == ("anchor", "positive", "shown")
    assert positive.similarity == pytest.approx(1.0)
    assert [part.role for part in negatives] == ["negative"] * 4
    assert [part.similarity for part in negatives[:3]] == pytest.approx([1.0] * 3)
    assert negatives[3].similarity == pytest.approx(-1.0)
    assert whole.heat is not None
    assert whole.heat[2, 3] == pytest.approx(0.6)
    assert whole.similarity == pytest.approx((61 + 0.6 - 1) / 63)
    assert whole.marks[0] == ("positive", 7.5 / 8, 0.5 / 8)
    assert whole.marks[-1] == ("negative", 6.5 / 8, 6.5 / 8)
    assert torch.equal(anchor.image, image[:, 54:64, 0:10])  # at the edge
    places = [(y, x) for _, y, x in whole.marks]
    assert all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 0.08 for a in places for b in places if a is not b)


def test_the_place_with_most_detail() -> None:
    images = torch.full((2, 3, 96, 128), 0.5)
    images[0, :, 50:60, 90:100] = torch.rand(10, 10)
    row, column = strongest_place(images)
    assert 48 <= row * 96 <= 62
    assert 88 <= column * 128 <= 102


@pytest.mark.parametrize("kind", [DASR, DegradationContrast])
def test_degradations_have_the_similarities_of_the_loss(kind: Any) -> None:
    torch.manual_seed(0)
    net = networks.DASR(channels=4, groups=1, blocks=1)
    method = kind(**({"loss_weight": 1.0} if kind is DASR else {}), queue_size=8)
    batch = batch_of(count=3, lr_key=torch.rand(3, 3, 16, 16))
    batch["degradation/kernel"] = torch.rand(3, 21, 21)
    methods = attached(net, method)
    (comparison,) = looked(methods, batch, net)
    assert [part.role for part in comparison.parts] == ["anchor", "positive", "negative", "negative"]
    assert torch.equal(comparison.parts[1].image, batch["lr_key"][0])
    assert comparison.parts[2].bands["blur kernel"].shape == (3, 21, 21)
    # each image once as the first, whose mean is what the method logs in its first step
    turns = [{key: value.roll(turn, 0) for key, value in batch.items()} for turn in range(3)]
    shown = [numbers(looked(methods, turn, net)[0], "positive") for turn in turns]
    if kind is DegradationContrast:
        method.loss.key_encoder.load_state_dict(method.pair.state_dict())
    done = methods.run(net, batch)
    methods.auxiliary_losses(done)
    logged = methods.sr_losses(done).metrics[f"{method.name}_positive_similarity"]
    assert_close(torch.cat(shown).mean(), logged, scale=1)


def test_both_contrasts_of_crl_sr() -> None:
    net = networks.CRLSR(channels=8, encoder_blocks=2, decoder_blocks=1)
    method = CRLSR(dim=8)
    methods = attached(net, method)
    comparisons = looked(methods, batch_of(count=1), net)
    titles = [comparison.title for comparison in comparisons]
    layers = len(method.layers)
    terms = ["crl_sr: decoupling"] * 2 * layers + ["crl_sr: refinement"] * layers
    assert [title.partition(",")[0] for title in titles] == terms
    assert titles[0].endswith("LR, enlarged to HR")
    assert titles[layers].endswith("HR to LR, enlarged")
    assert titles[-1].endswith("HR to SR")
    # drawn is one row of each while all of it is random, and all rows once something was learnt
    drawn = without_repeats(comparisons)
    assert [comparison.title for comparison in drawn] == [titles[0], titles[2 * layers]]
    left_out = [f"{2 * layers - 1} more layers and directions", f"{layers - 1} more layers and directions"]
    assert all(words in comparison.note for words, comparison in zip(left_out, drawn, strict=True))
    trained = [replace(comparison, note="") for comparison in comparisons]
    assert without_repeats(trained) == trained


def test_criteria_and_their_values() -> None:
    method = CriaCL(variant=5, vgg_weights=None)
    methods = attached(UPSAMPLE, method)
    batch = batch_of(count=1)
    align, uniformity = looked(methods, batch)
    terms = method.terms(methods.run(UPSAMPLE, batch), step_of(methods))
    for comparison, role, other in ((align, "align", "ssim"), (uniformity, "uniformity", "adversarial")):
        named = {part.label: part for part in comparison.parts}
        assert [part.role for part in comparison.parts[:3]] == ["shown", "shown", "anchor"]
        for label in ("pixel_l1", other):
            assert_close(named[label].similarity, terms[role].metrics[f"{role}_{label}"], "exact", dtype=torch.float32)
    assert align.parts[-1].heat.shape == (64, 64)
    assert uniformity.parts[-1].heat is None  # one value an image


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_fits_its_own_network_with_its_defaults(name: str) -> None:
    cls: Any = METHODS[name]
    net = nn.Upsample(scale_factor=2) if cls.network is None else cls.network(scale=2)
    changes: dict[str, dict[str, Any]] = {
        "CriaCL": {"variant": 5, "vgg_weights": None},  # its default needs a host and weights
        "MCL": {"embedding": {"type": "HaarDiscriminator"}},  # weights
        "CriterionTerm": {"criterion": "SSIM"},
    }
    attached(net, cls(**changes.get(name, {})))
    dry = net(torch.rand(1, 3, 16, 16)) if name != "TrueKernel" else torch.rand(1, 3, 32, 32)
    assert dry.shape[-1] == 32


def test_a_method_that_does_not_say_is_named() -> None:
    class Mine(Method):
        pass

    with pytest.raises(ConfigError, match=r"mine: Mine does not say what it compares\. Give the class a method"):
        Methods([Mine("mine")]).compared(batch_of())
