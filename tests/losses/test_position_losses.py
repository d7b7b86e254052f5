"""InfoNCELoss and BidirectionalNCELoss: which vectors of feature maps they compare, and with what heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nce_oracles import info_nce_loops
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import bidirectional_nce, info_nce, set_tiling
from contrastive_sr.losses import BidirectionalNCELoss, InfoNCELoss, SRNCELoss

FUNCTIONS = {InfoNCELoss: info_nce, BidirectionalNCELoss: bidirectional_nce}
METRICS: dict[Any, tuple[str, ...]] = {
    InfoNCELoss: ("positive_similarity",),
    BidirectionalNCELoss: ("positive_similarity",),
    SRNCELoss: ("positive_similarity", "lr_similarity"),
}
BOTH = pytest.mark.parametrize("kind", FUNCTIONS)
EVERY = pytest.mark.parametrize("kind", [InfoNCELoss, BidirectionalNCELoss, SRNCELoss])


def maps(*shape: int, seed: int = 0, device: str = "cpu") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def vectors(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def roles(kind: type[nn.Module], *shape: int, device: str = "cpu") -> list[Tensor]:
    """As many maps as the loss takes."""
    return [maps(*shape, seed=seed, device=device) for seed in range(3 if kind is SRNCELoss else 2)]


@BOTH
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_is_the_function_of_the_maps_positions(kind: type[InfoNCELoss], temperature: float, device: str) -> None:
    a, b = roles(kind, 2, 5, 3, 4, device=device)
    loss = kind(temperature=temperature, positions=None)(a, b)
    assert_close(loss, FUNCTIONS[kind](vectors(a), vectors(b), temperature), "exact")


def test_equals_the_equation_image_by_image(device: str) -> None:
    a, b = roles(InfoNCELoss, 2, 5, 3, 4, device=device)
    expected = [info_nce_loops(x, y, 0.07).mean() for x, y in zip(vectors(a), vectors(b), strict=True)]
    assert_close(InfoNCELoss()(a, b), torch.stack(expected).mean(), dtype=torch.float64)


@EVERY
def test_samples_as_many_positions_as_asked_for_from_the_generator(kind: Any) -> None:
    features = roles(kind, 2, 5, 6, 7)
    loss = kind(positions=8)
    first = loss(*features, generator=seeded(1))
    assert torch.equal(loss(*features, generator=seeded(1)), first)
    assert not torch.equal(loss(*features, generator=seeded(2)), first)
    torch.manual_seed(3)
    default = loss(*features)
    torch.manual_seed(3)
    assert torch.equal(loss(*features), default)


@pytest.mark.parametrize("positions", [2, 8])
def test_positions_are_the_same_in_all_roles_and_images(positions: int) -> None:
    """Each place has a vector of its own, so a candidate of another place would cost a loss."""
    own = torch.eye(42, dtype=torch.float64).view(1, 42, 6, 7).expand(3, -1, -1, -1)
    for kind in (InfoNCELoss, BidirectionalNCELoss):
        contrast = kind(temperature=0.01, positions=positions).contrast(own, own, seeded())
        assert contrast.loss < 1e-40
        assert contrast.metrics["positive_similarity"].item() == pytest.approx(1)
    # all vectors alike but one place: whether it was drawn is seen in all images alike
    a, b = (maps(1, 5, 6, 7, seed=seed).expand(3, -1, -1, -1) for seed in (0, 1))
    together = InfoNCELoss(positions=positions)(a, b, seeded(4))
    torch.testing.assert_close(together, InfoNCELoss(positions=positions)(a[:1], b[:1], seeded(4)))


def test_with_as_many_negatives_as_positions_that_were_drawn() -> None:
    same = torch.ones(1, 4, 6, 7)
    for positions, drawn in ((2, 2), (8, 8), (42, 42), (256, 42), (None, 42)):
        assert_close(InfoNCELoss(positions=positions)(same, same), math.log(drawn), "exact", dtype=torch.float32)
    assert InfoNCELoss()(torch.ones(1, 4, 20, 20), torch.ones(1, 4, 20, 20)).item() == pytest.approx(math.log(256))


@EVERY
def test_draws_nothing_where_all_positions_are_taken(kind: Any) -> None:
    generator = seeded()
    before = generator.get_state()
    kind(positions=12)(*roles(kind, 2, 5, 3, 4), generator=generator)
    kind(positions=None)(*roles(kind, 2, 5, 3, 4), generator=generator)
    assert torch.equal(generator.get_state(), before)


@EVERY
def test_positions_differ_between_layers(kind: Any) -> None:
    features = roles(kind, 2, 5, 6, 7)
    generator = seeded()
    loss = kind(positions=8)
    one_by_one = [loss(*features, generator=generator) for _ in range(2)]
    assert not torch.equal(*one_by_one)
    both = loss(*([x, x] for x in features), generator=seeded())
    torch.testing.assert_close(both, torch.stack(one_by_one).mean())


@EVERY
def test_several_layers_give_their_mean(kind: Any) -> None:
    layers = [roles(kind, 2, 5, 3, 4), roles(kind, 2, 7, 2, 2), [x[..., 0, 0] for x in roles(kind, 2, 6, 1, 1)]]
    loss = kind(positions=None)
    alone = [loss.contrast(*layer) for layer in layers]
    for container in (list, tuple):
        together = loss.contrast(*(container(role) for role in zip(*layers, strict=True)))
        torch.testing.assert_close(together.loss, torch.stack([contrast.loss for contrast in alone]).mean())
        assert set(together.metrics) == set(METRICS[kind])
        for name, got in together.metrics.items():
            torch.testing.assert_close(got, torch.stack([contrast.metrics[name] for contrast in alone]).mean())


@EVERY
@pytest.mark.parametrize("negatives_from", ["image", "batch"])
def test_reductions_are_over_positions_images_and_layers(kind: Any, negatives_from: Any) -> None:
    layers = [roles(kind, 2, 5, 3, 4), roles(kind, 2, 7, 2, 2)]
    inputs = [list(role) for role in zip(*layers, strict=True)]
    options = {"positions": None, "negatives_from": negatives_from}
    each = kind(reduction="none", **options)(*inputs)
    assert each.shape == (2, 12 + 4)  # image by image, the positions of one layer behind those of the other
    torch.testing.assert_close(kind(reduction="sum", **options)(*inputs), each.sum())
    mean_of_layers = (each[:, :12].mean() + each[:, 12:].mean()) / 2
    torch.testing.assert_close(kind(**options)(*inputs), mean_of_layers)
    if negatives_from == "image":
        second = kind(reduction="none", **options)(*([x[1:] for x in role] for role in inputs))
        torch.testing.assert_close(each[1:], second)


@EVERY
def test_maps_of_unlike_sizes_are_average_pooled_to_the_smallest(kind: Any) -> None:
    small, *others = roles(kind, 2, 5, 4, 6)
    big = [maps(2, 5, 8, 18, seed=5), maps(2, 5, 4, 12, seed=6)][: len(others)]
    loss = kind(positions=None)
    pooled = [F.avg_pool2d(x, (x.shape[2] // 4, x.shape[3] // 6)) for x in big]
    torch.testing.assert_close(loss(small, *big), loss(small, *pooled))
    torch.testing.assert_close(loss(*big, small), loss(*pooled, small))


@EVERY
def test_height_and_width_of_the_smallest_may_come_from_different_maps(kind: Any) -> None:
    first, *others = roles(kind, 1, 5, 4, 6)
    others = [x[..., :3] for x in others]
    loss = kind(positions=None)
    expected = loss(F.avg_pool2d(first[:, :, :, :6], (2, 2)), *(F.avg_pool2d(x, (2, 1)) for x in others))
    narrow = [F.avg_pool2d(x, (2, 1)) for x in others]
    torch.testing.assert_close(loss(first, *narrow), expected)


@EVERY
def test_vectors_are_contrasted_over_the_batch(kind: Any) -> None:
    features = [x[..., 0, 0] for x in roles(kind, 6, 5, 1, 1)]
    as_positions = [x.T[None, :, :, None] for x in features]  # one image whose positions are the batch
    for negatives_from in ("image", "batch"):
        got = kind(negatives_from=negatives_from)(*features)
        assert_close(got, kind(positions=None)(*as_positions), "exact")
    assert kind(positions=2)(*features, generator=seeded()).item() == kind()(*features).item()  # none is left out


@EVERY
def test_negatives_of_the_whole_batch(kind: Any, device: str) -> None:
    features = roles(kind, 2, 5, 3, 4, device=device)
    joined = [torch.cat(list(x), dim=2)[None] for x in features]  # one image with the positions of both
    got = kind(positions=None, negatives_from="batch")(*features)
    assert_close(got, kind(positions=None)(*joined), "exact")
    assert (got - kind(positions=None)(*features)).abs() > 1e-3


@EVERY
def test_gathering_over_ranks_changes_nothing_without_any(kind: Any) -> None:
    for features in (roles(kind, 2, 5, 3, 4), [x[..., 0, 0] for x in roles(kind, 2, 5, 1, 1)]):
        results = []
        for gather in (False, True):
            leaves = [x.clone().requires_grad_() for x in features]
            contrast = kind(positions=5, negatives_from="batch", gather=gather).contrast(*leaves, generator=seeded())
            wanted = leaves[1:2] if kind is SRNCELoss else leaves
            results.append([contrast.loss, *contrast.metrics.values(), *torch.autograd.grad(contrast.loss, wanted)])
        for alone, gathered in zip(*results, strict=True):
            assert_close(gathered, alone, scale=1e-3)


@EVERY
def test_a_rank_without_samples_gives_nothing(kind: Any) -> None:
    empty = [x[:0].requires_grad_() for x in roles(kind, 2, 5, 3, 4)]
    contrast = kind(negatives_from="batch", gather=True).contrast(*empty)
    contrast.loss.backward()
    assert contrast.loss == 0
    assert {name: metric.item() for name, metric in contrast.metrics.items()} == dict.fromkeys(METRICS[kind], 0)


@EVERY
def test_heads_come_first(kind: Any) -> None:
    """One a layer, shared by all roles; what they give is what is compared."""
    torch.manual_seed(0)
    loss = kind(channels=[5, 7], dim=6, positions=None).double()
    layers = [roles(kind, 2, 5, 3, 4), roles(kind, 2, 7, 2, 2)]
    bare = kind(positions=None)

    def projected(x: Tensor, head: nn.Module) -> Tensor:
        first, first_bias, last, last_bias = head.parameters()
        hidden = (torch.einsum("bchw,dc->bdhw", x, first) + first_bias[:, None, None]).clamp_min(0)
        return torch.einsum("bchw,dc->bdhw", hidden, last) + last_bias[:, None, None]

    expected = [bare(*(projected(x, h) for x in layer)) for layer, h in zip(layers, loss.heads, strict=True)]
    torch.testing.assert_close(loss(*map(list, zip(*layers, strict=True))), torch.stack(expected).mean())


@EVERY
def test_heads_exist_from_the_start_and_are_trained(kind: Any) -> None:
    loss = kind(channels=[5], dim=6, positions=None).double()
    names = [name for name, _ in loss.named_parameters()]
    assert names == [f"heads.0.{layer}.{part}" for layer in ("hidden", "out") for part in ("weight", "bias")]
    assert [tuple(p.shape) for p in loss.parameters()] == [(6, 5), (6,), (6, 6), (6,)]
    loss(*roles(kind, 2, 5, 3, 4)).backward()
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "changed"), [(InfoNCELoss, 0), (BidirectionalNCELoss, 0), (SRNCELoss, 1)])
def test_the_anchor_may_have_heads_of_its_own(kind: Any, changed: int) -> None:
    """Those of the role whose features are to change: another network, with other channels."""
    loss = kind(channels=[5], anchor_channels=[3], dim=6, positions=None).double()
    features = roles(kind, 2, 5, 3, 4)
    features[changed] = maps(2, 3, 3, 4, seed=changed)
    assert not {id(p) for p in loss.heads.parameters()} & {id(p) for p in loss.anchor_heads.parameters()}
    loss(*features).backward()
    for name, parameter in loss.named_parameters():  # of both
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    state = loss.state_dict()
    assert {name.split(".")[0] for name in state} == {"heads", "anchor_heads"}
    twin = kind(channels=[5], anchor_channels=[3], dim=6, positions=None).double()
    twin.load_state_dict(state)
    assert torch.equal(twin(*features), loss(*features))


def test_without_heads_there_is_nothing_to_train() -> None:
    assert not list(InfoNCELoss().parameters())
    assert not InfoNCELoss().state_dict()


@BOTH
def test_gradient_reaches_every_sampled_position_of_both_roles_and_no_other(kind: type[InfoNCELoss]) -> None:
    a, b = (x.requires_grad_() for x in roles(kind, 2, 5, 6, 7))
    kind(positions=8)(a, b, seeded()).backward()
    for x in (a, b):
        assert x.grad is not None
        reached = x.grad.abs().sum(1) > 0
        assert reached.flatten(1).sum(1).tolist() == [8, 8]
        assert torch.equal(reached[0], reached[1])


@BOTH
def test_metrics_for_logs(kind: type[InfoNCELoss]) -> None:
    a, b = (x.requires_grad_() for x in roles(kind, 2, 5, 3, 4))
    loss = kind(temperature=0.5, positions=None)
    contrast = loss.contrast(a, b)
    assert torch.equal(contrast.loss, loss(a, b))
    torch.testing.assert_close(contrast.metrics["positive_similarity"], torch.cosine_similarity(a, b).mean())
    assert not contrast.metrics["positive_similarity"].requires_grad
    assert set(contrast.metrics) == {"positive_similarity"}


@EVERY
def test_gradients(kind: Any) -> None:
    features = [x.requires_grad_() for x in roles(kind, 2, 3, 2, 2)]
    options = dict(detach_hr=False, detach_lr=False, penalty=False) if kind is SRNCELoss else {}
    loss = kind(temperature=0.3, positions=None, **options)
    assert torch.autograd.gradcheck(loss, features)
    assert torch.autograd.gradgradcheck(loss, features)


@EVERY
def test_many_positions_are_tiled(kind: Any) -> None:
    features = [x.float() for x in roles(kind, 1, 4, 17, 18)]
    whole = kind(positions=None)(*features)
    with set_tiling(size=100, cache_mib=0):
        torch.testing.assert_close(kind(positions=None)(*features), whole)
    torch.testing.assert_close(kind(positions=None)(*(x.double() for x in features)).float(), whole)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps(kind: Any, dtype: torch.dtype) -> None:
    features = [x.to(dtype).requires_grad_() for x in roles(kind, 2, 5, 3, 4)]
    loss = kind(positions=None)(*features)
    assert torch.equal(loss, kind(positions=None)(*(x.float() for x in features)))
    index = 1 if kind is SRNCELoss else 0
    assert torch.isfinite(torch.autograd.grad(loss, features[index])[0]).all()


@EVERY
def test_autocast_leaves_all_but_the_heads_in_float32(kind: Any) -> None:
    features = [x.float() for x in roles(kind, 2, 5, 3, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        bare = kind(positions=None)(*features)
        headed = kind(channels=[5], dim=6, positions=None)(*features)
    assert torch.equal(bare, kind(positions=None)(*features))
    assert headed.dtype == torch.float32
    assert torch.isfinite(headed)


ONE, TWO = maps(2, 5, 3, 4).float(), maps(2, 5, 2, 2).float()


@pytest.mark.parametrize(
    ("options", "anchor", "candidates", "message"),
    [
        ({}, [], [], r"expected as many layers, at least one, in each of anchor, candidates; got \{'anchor': 0"),
        ({}, [ONE, TWO], [ONE], r"expected as many layers.*got \{'anchor': 2, 'candidates': 1\}"),
        ({}, [ONE, TWO], ONE, r"expected as many layers.*got \{'anchor': 2, 'candidates': 1\}"),
        ({"channels": [5]}, [ONE, TWO], [ONE, TWO], "expected 1 layers, one for each of `channels`, got 2"),
        ({}, ONE[0], ONE[0], r"\(anchor\[0\]\): expected maps \(B, C, H, W\) or vectors \(B, C\)"),
        ({}, ONE, None, r"\(candidates\[0\]\): expected maps .*got None"),
        ({}, None, ONE, r"\(anchor\[0\]\): expected maps .*got None"),
        ({}, [ONE, TWO], [ONE, "conv1"], r"\(candidates\[1\]\): expected maps .*got 'conv1'"),
        ({}, ONE.long(), ONE.long(), r"\(anchor\[0\]\): expected a floating-point tensor .*int64"),
        ({}, ONE, ONE.long(), r"\(candidates\[0\]\): expected a floating-point tensor .*int64"),
        ({}, ONE[:0], ONE[:0], r"\(anchor\[0\]\): expected a non-empty tensor"),
        ({}, ONE[:, :, :0], ONE[:, :, :0], r"\(anchor\[0\]\): expected a non-empty tensor"),
        ({}, ONE, ONE[:1], r"\(candidates\[0\]\): expected maps of a batch of 2, .*\(1, 5, 3, 4\)"),
        ({}, ONE, ONE[..., 0, 0], r"\(candidates\[0\]\): expected maps of a batch of 2, .*\(2, 5\)"),
        ({}, ONE[..., 0, 0], ONE, r"\(candidates\[0\]\): expected vectors of a batch of 2, .*\(2, 5, 3, 4\)"),
        ({}, ONE, ONE[:, :4], r"as many channels in each role of layer 0, got \{'anchor': 5, 'candidates': 4\}.*heads"),
        ({}, [ONE, TWO], [ONE, TWO[:, :1]], "in each role of layer 1"),
        ({"channels": [4]}, ONE, ONE, r"expected a floating-point tensor \(\.\.\., 4\)"),
        ({"channels": [5], "anchor_channels": [4]}, ONE, ONE, r"expected a floating-point tensor \(\.\.\., 4\)"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    options: dict[str, Any], anchor: Any, candidates: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        InfoNCELoss(**options)(anchor, candidates)


@EVERY
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"\(temperature\): expected a number above 0, got 0"),
        ({"temperature": True}, r"\(temperature\): expected a number above 0, got True"),
        ({"temperature": "7e-2"}, r"\(temperature\): expected a number above 0, got '7e-2' .*!!float"),
        ({"positions": 1}, r"\(positions\): expected a whole number of at least 2, got 1"),
        ({"positions": True}, r"\(positions\): expected a whole number of at least 2, got True"),
        ({"positions": 256.0}, r"\(positions\): expected a whole number of at least 2, got 256.0"),
        ({"negatives_from": "images"}, r"\(negatives_from\): expected one of image, batch, got 'images'"),
        ({"gather": True}, r"\(gather\): .*negatives_from='batch'"),
        ({"channels": 5}, r"\(channels\): expected a list of whole numbers, one a layer, or None, got 5"),
        ({"channels": "64"}, r"\(channels\): expected a list of whole numbers, one a layer, or None, got '64'"),
        ({"channels": []}, r"\(channels\): expected a list of whole numbers, one a layer, or None, got \[\]"),
        ({"channels": [0]}, r"\(channels\): expected a whole number of at least 1, got 0"),
        ({"channels": [True]}, r"\(channels\): expected a whole number of at least 1, got True"),
        ({"channels": [5], "dim": 0}, r"\(dim\): expected a whole number of at least 1, got 0"),
        ({"anchor_channels": [5]}, r"\(anchor_channels\): expected `channels` with as many layers, got None"),
        ({"channels": [5], "anchor_channels": [5, 5]}, r"\(anchor_channels\): .*got \[5\] and \[5, 5\]"),
        ({"channels": [5], "anchor_channels": 5}, r"\(anchor_channels\): expected a list of whole numbers"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)


@EVERY
def test_a_misspelt_argument_is_an_error(kind: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        kind(temprature=0.1)


def fuzz(kind: Any, count: int) -> Any:
    def case(source: Any) -> Any:
        torch.manual_seed(0)
        places = {"positions": source.one_of(None, 4), "negatives_from": source.one_of("image", "batch")}
        return kind(channels=source.one_of(None, [3]), dim=4, **places)(*source.maps(count, channels=3))

    return case


FUZZ = {  # what tests/test_fuzz_losses.py calls
    "InfoNCELoss": fuzz(InfoNCELoss, 2),
    "BidirectionalNCELoss": fuzz(BidirectionalNCELoss, 2),
    "SRNCELoss": fuzz(SRNCELoss, 3),
}
