"""pair_statistics: the tiled form against plain loops and against the dense matrix, and how it is set up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nce_oracles import plain_info_nce, plain_statistics, statistics_loops
from oracles import relative_distance
from tolerances import assert_close, tolerance
from torch import Tensor
from versions import compiles_as_one_graph

from contrastive_sr.errors import ConfigError
from contrastive_sr.functional import bidirectional_nce, info_nce, logsumexp, set_tiling, srnce
from contrastive_sr.functional.logsumexp import PairStatistics, pair_statistics
from contrastive_sr.functional.nce import one_against_rest

SEVERAL = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pair(
    *leading: int,
    count: int = 10,
    others: int = 0,
    dim: int = 5,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Anchors (..., count, dim) and count + others candidates, that want a gradient."""
    a, b = vectors(*leading, count, dim, dtype=dtype), vectors(*leading, count + others, dim, seed=1, dtype=dtype)
    return a.to(device).requires_grad_(), b.to(device).requires_grad_()


def mixed(statistics: PairStatistics | tuple[Tensor, Tensor, Tensor], columns: bool) -> Tensor:
    """A scalar to which every number of the statistics contributes in a way of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for seed, part in enumerate(statistics[: 2 + columns]):
        assert part is not None
        total = total + (part * vectors(*part.shape, seed=10 + seed).to(part)).sum().cpu()
    return total


@pytest.fixture(params=["of one image", "of several"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as on a CPU, and as on a GPU: of several images, in powers of e."""
    if request.param == "of several":
        monkeypatch.setattr(logsumexp, "_is_sent_to", lambda device: True)


@contextmanager
def without_compiled_code() -> Iterator[None]:
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("size", [None, 1, 3, 7])
@pytest.mark.parametrize(("temperature", "normalize"), [(0.07, True), (0.005, True), (0.5, False)])
@pytest.mark.parametrize("others", [0, 4])
def test_equals_loops(size: int | None, temperature: float, normalize: bool, others: int, device: str) -> None:
    a, b = pair(others=others, device=device)
    expected = statistics_loops(a, b, temperature, normalize)
    with set_tiling(size=size):
        got = pair_statistics(a, b, temperature, columns=not others, normalize=normalize)
    for part, values in zip(got, expected[: 2 if others else 3], strict=False):
        assert_close(part, values, "exact", dtype=torch.float64, scale=1)
    assert (got.columns is None) == bool(others)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("cache_mib", [0.0, 200 / 2**20, 64.0])  # none, some and all of the tiles
@pytest.mark.parametrize(("temperature", "normalize"), [(0.07, True), (0.02, True), (0.005, True), (0.5, False)])
@pytest.mark.parametrize("others", [0, 4])
def test_gradients_of_tiles_equal_those_of_the_matrix(
    size: int, cache_mib: float, temperature: float, normalize: bool, others: int, device: str
) -> None:
    a, b = pair(2, count=66 if size == 64 else 10, others=others, device=device)
    with set_tiling(size=size, cache_mib=cache_mib):
        tiled = mixed(pair_statistics(a, b, temperature, columns=not others, normalize=normalize), not others)
    dense = mixed(plain_statistics(a, b, temperature, normalize), not others)
    assert_close(tiled, dense, scale=1)
    for got, expected in zip(torch.autograd.grad(tiled, (a, b)), torch.autograd.grad(dense, (a, b)), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float64)


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize(("temperature", "normalize"), [(0.07, True), (0.005, True), (0.5, False)])
def test_images_are_independent_however_many_are_computed_at_once(
    at_once: int, temperature: float, normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logsumexp, "_is_sent_to", lambda device: True)
    monkeypatch.setattr(logsumexp, "_AT_ONCE_MIB", at_once * 3 * 3 * 8 / 2**20)
    a, b = pair(5)
    with set_tiling(size=3):
        together = pair_statistics(a, b, temperature, columns=True, normalize=normalize)
        gradients = torch.autograd.grad(mixed(together, True), (a, b))
    monkeypatch.undo()
    alone = mixed(plain_statistics(a, b, temperature, normalize), True)
    assert_close(mixed(together, True), alone, scale=1)
    for got, expected in zip(gradients, torch.autograd.grad(alone, (a, b)), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float64)


@pytest.mark.parametrize("count", [300, 600])  # one tile of the default size, and four
@pytest.mark.parametrize("temperature", [0.005, 0.07])
def test_many_vectors_are_tiled_without_being_asked_and_stay_exact(count: int, temperature: float, device: str) -> None:
    a, b = pair(count=count, dim=16, device=device)
    statistics = pair_statistics(a, b, temperature, columns=True)
    assert statistics.positive.grad_fn is not None
    assert "_Tiled" in statistics.positive.grad_fn.next_functions[0][0].name()  # behind the reshaping
    tiled, dense = mixed(statistics, True), mixed(plain_statistics(a, b, temperature, True), True)
    for got, expected in zip(torch.autograd.grad(tiled, (a, b)), torch.autograd.grad(dense, (a, b)), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float64)


@pytest.mark.parametrize("count", [300, 600])
@pytest.mark.parametrize(
    ("temperature", "noise", "normalize"),
    [
        (0.07, None, True),
        (0.07, 0.1, True),  # loss about 0.001
        (0.07, 0.5, True),  # about 0.005
        (0.02, 0.5, True),  # about 1e-10
        (0.005, None, True),  # logits up to 200: a running maximum
        (0.005, 2.0, True),
        (0.3, None, False),
        (10.0, None, True),
    ],
)
def test_float32_is_no_worse_than_the_usual_way(
    count: int, temperature: float, noise: float | None, normalize: bool
) -> None:
    """Mean error of several draws against float64; the usual way is cross entropy of all logits."""
    errors: dict[str, list[Tensor]] = {"usual": [], "tiled": []}
    for seed in range(3):
        a = vectors(count, 16, seed=20 + seed, dtype=torch.float32)
        b = vectors(count, 16, seed=30 + seed, dtype=torch.float32)
        if noise is not None:
            b = a + noise * b
        # in float64 cross entropy too loses the digits of a loss of 1e-10, so the positive is kept out of the sum
        exact = loss_and_gradients(
            lambda x, y: one_against_rest(*plain_statistics(x, y, temperature, normalize)[:2]).mean(),
            a.double(),
            b.double(),
        )
        for name, form in (("usual", plain_info_nce), ("tiled", info_nce)):
            got = loss_and_gradients(lambda x, y, f=form: f(x, y, temperature, normalize=normalize), a, b)
            distances = [relative_distance(g, e) for g, e in zip(got, exact, strict=True)]
            errors[name].append(torch.tensor(distances))
    usual, tiled = (torch.stack(errors[name]).mean(0) for name in ("usual", "tiled"))
    assert (tiled <= 1.5 * usual + 2e-7).all(), (tiled, usual)  # 2e-7: rounding of the scalar that the loss is


def loss_and_gradients(form: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> list[Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = form(a, b)
    return [loss.detach(), *torch.autograd.grad(loss, (a, b))]


@pytest.mark.parametrize("temperature", [0.07, 0.005])
@pytest.mark.parametrize("cache_mib", [0.0, 64.0])
def test_backward_twice_gives_the_same_gradient(temperature: float, cache_mib: float) -> None:
    a, b = pair()
    with set_tiling(size=3, cache_mib=cache_mib):
        loss = mixed(pair_statistics(a, b, temperature, columns=True), True)
    first = torch.autograd.grad(loss, (a, b), retain_graph=True)
    for again, once in zip(torch.autograd.grad(loss, (a, b)), first, strict=True):
        assert torch.equal(again, once)


@pytest.mark.parametrize("size", [None, 3])
def test_only_what_wants_a_gradient_gets_one(size: int | None) -> None:
    a, b = pair()
    with set_tiling(size=size):
        both = torch.autograd.grad(mixed(pair_statistics(a, b, 0.07, columns=True), True), (a, b))
        (only_a,) = torch.autograd.grad(mixed(pair_statistics(a, b.detach(), 0.07, columns=True), True), a)
        (only_b,) = torch.autograd.grad(mixed(pair_statistics(a.detach(), b, 0.07, columns=True), True), b)
        assert not pair_statistics(a.detach(), b.detach(), 0.07).rows.requires_grad
    assert_close(only_a, both[0], "exact", scale=1)
    assert_close(only_b, both[1], "exact", scale=1)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.07, 0.005])
def test_a_loss_may_use_one_of_the_statistics_alone(part: int, temperature: float) -> None:
    a, b = pair()
    with set_tiling(size=3):
        tiled = pair_statistics(a, b, temperature, columns=True)[part]
    dense = plain_statistics(a, b, temperature, True)[part]
    assert tiled is not None
    got, expected = (torch.autograd.grad(x.square().sum(), (a, b)) for x in (tiled, dense))
    assert max(relative_distance(g, e) for g, e in zip(got, expected, strict=True)) < tolerance(torch.float64)


@pytest.mark.parametrize("unit", [True, False])
def test_tiles_are_kept_within_the_budget(unit: bool) -> None:
    a, b = pair(2)
    if unit:
        a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (a, b))

    def kept(cache_mib: float, temperature: float = 0.07) -> list[int]:
        with set_tiling(size=5, cache_mib=cache_mib):  # 2 images of 4 tiles, of 200 bytes each
            rows = pair_statistics(a, b, temperature, normalize=not unit, unit=unit).rows
        assert rows.grad_fn is not None
        tiled = rows.grad_fn.next_functions[0][0]
        return [tile.nbytes for tile in tiled.plan.cached.values()]

    assert kept(64) == [200] * 8
    assert kept(1100 / 2**20) == [200] * 5
    assert kept(0) == []
    assert kept(64, temperature=0.005) == []  # not where a running maximum is needed
    with torch.no_grad(), set_tiling(size=5):
        assert pair_statistics(a, b, 0.07).rows.grad_fn is None


def test_settings_of_the_forward_pass_hold_in_the_backward_pass() -> None:
    a, b = pair()
    with set_tiling(size=3, cache_mib=100 / 2**20):
        loss = mixed(pair_statistics(a, b, 0.07, columns=True), True)
    with set_tiling(size=7, cache_mib=0):
        got = torch.autograd.grad(loss, (a, b))
    expected = torch.autograd.grad(mixed(plain_statistics(a, b, 0.07, True), True), (a, b))
    assert max(relative_distance(g, e) for g, e in zip(got, expected, strict=True)) < tolerance(torch.float64)


def test_vectors_may_lie_in_memory_in_any_way() -> None:
    maps = vectors(2, 5, 3, 4).requires_grad_(), vectors(2, 5, 3, 4, seed=1).requires_grad_()
    a, b = (x.flatten(2).transpose(1, 2) for x in maps)  # as vectors come from feature maps
    with set_tiling(size=5):
        tiled = mixed(pair_statistics(a, b, 0.07), False)
        spread = pair_statistics(a[:1].expand(3, -1, -1), b[:1].expand(3, -1, -1), 0.07)
    assert torch.equal(spread.rows[0], spread.rows[2])
    dense = mixed(plain_statistics(a, b, 0.07, True), False)
    for got, expected in zip(torch.autograd.grad(tiled, maps), torch.autograd.grad(dense, maps), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float64)


@SEVERAL
@given(
    size=st.integers(1, 14),
    count=st.integers(2, 12),
    others=st.integers(0, 5),
    images=st.integers(1, 3),
    temperature=st.sampled_from([0.005, 0.07, 1.0]),
    normalize=st.booleans(),
    cache_bytes=st.integers(0, 2000),
)
def test_any_tile_size_gives_the_same(
    size: int, count: int, others: int, images: int, temperature: float, normalize: bool, cache_bytes: int
) -> None:
    a, b = pair(images, count=count, others=others)
    with set_tiling(size=size, cache_mib=cache_bytes / 2**20):
        got = pair_statistics(a, b, temperature, columns=not others, normalize=normalize)
    expected = plain_statistics(a, b, temperature, normalize)
    for part, values in zip(got, expected[: 2 if others else 3], strict=False):
        assert_close(part, values, scale=1)
    gradients = torch.autograd.grad(mixed(got, not others), (a, b))
    for gradient, wanted in zip(gradients, torch.autograd.grad(mixed(expected, not others), (a, b)), strict=True):
        assert relative_distance(gradient, wanted) < tolerance(torch.float64)


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize(("temperature", "normalize"), [(0.3, True), (0.015, True), (1.0, False)])
@pytest.mark.parametrize("others", [0, 2])
def test_gradient_and_second_gradient(
    size: int | None, temperature: float, normalize: bool, others: int, device: str
) -> None:
    # 0.015 takes the path of the running maximum; its function is steep, so vectors lie close
    a, b = pair(count=4, others=others, dim=3, device=device)
    if temperature < 0.1:
        a, b = ((1 + 0.05 * x.detach()).requires_grad_() for x in (a, b))

    def statistics(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        parts = pair_statistics(x, y, temperature, columns=not others, normalize=normalize)
        return tuple(part for part in parts if part is not None)

    with set_tiling(size=size):
        assert torch.autograd.gradcheck(statistics, (a, b))
        assert torch.autograd.gradgradcheck(statistics, (a, b))


@pytest.mark.parametrize("leading", [(), (2,), (2, 2)])
@pytest.mark.parametrize("relation", ["independent", "same", "candidates from anchors", "anchors from candidates"])
def test_second_derivatives_of_tiles_equal_those_of_the_matrix(leading: tuple[int, ...], relation: str) -> None:
    """Also where one side is computed from the other: nothing may count twice."""

    def derivatives(size: int | None) -> list[Tensor]:
        x, y = pair(*leading)
        bend = torch.linspace(0, 1, x.shape[-1], dtype=torch.float64)
        a, b = {
            "independent": (x, y),
            "same": (x, x),
            "candidates from anchors": (x, x.square() + bend),
            "anchors from candidates": (x.square() + bend, x),
        }[relation]
        with set_tiling(size=size):
            loss = mixed(pair_statistics(a, b, 0.3, columns=True), True)
            first = torch.autograd.grad(loss, x, create_graph=True)[0]
            second = torch.autograd.grad((first * vectors(*first.shape, seed=9)).sum(), x)[0]
        return [first.detach(), second]

    for tiled, dense in zip(derivatives(3), derivatives(None), strict=True):
        assert dense.abs().max() > 0
        assert relative_distance(tiled, dense) < tolerance(torch.float64)


def test_half_precision_and_autocast_are_computed_in_float32(device: str) -> None:
    a, b = pair(dtype=torch.float32, device=device)
    for size in (None, 3):
        with set_tiling(size=size):
            expected = pair_statistics(a, b, 0.07, columns=True)
            with torch.autocast(device, torch.bfloat16):
                got = pair_statistics(a, b, 0.07, columns=True)
            for part, values in zip(got, expected, strict=True):
                assert part is not None
                assert torch.equal(part, values)
            halves = pair_statistics(a.half(), b.half(), 0.07)
            assert halves.rows.dtype == torch.float32
            torch.testing.assert_close(halves.rows, pair_statistics(a.half().float(), b.half().float(), 0.07).rows)


def test_unlike_precisions_meet_in_the_higher() -> None:
    a, b = pair(dtype=torch.float32)
    for size in (None, 3):
        with set_tiling(size=size):
            loss = mixed(pair_statistics(a.double(), b.half(), 0.07), False)
        assert loss.dtype == torch.float64
        assert all(g.dtype == torch.float32 for g in torch.autograd.grad(loss, (a, b)))


def test_unit_vectors_need_not_be_normalised_again() -> None:
    a, b = (torch.nn.functional.normalize(x, dim=-1).detach().requires_grad_() for x in pair())
    with set_tiling(size=3):
        loss = mixed(pair_statistics(a, b, 0.07, columns=True, normalize=False, unit=True), True)
    dense = mixed(plain_statistics(a, b, 0.07, False), True)
    for got, expected in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(dense, (a, b)), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.005])
def test_onednn_product(temperature: float) -> None:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")):
        pytest.skip("this torch was built without oneDNN")
    a, b = pair(2, count=20, others=5, dim=16, dtype=torch.float32)
    results = []
    for matmul in ("onednn", "torch"):
        with set_tiling(size=8, matmul=matmul):
            loss = mixed(pair_statistics(a, b, temperature), False)
        results.append(torch.autograd.grad(loss, (a, b)))
    exact = mixed(plain_statistics(a.double(), b.double(), temperature, True), False)
    for got, other, expected in zip(*results, torch.autograd.grad(exact, (a, b)), strict=True):
        assert relative_distance(got, expected) < tolerance(torch.float32)
        assert relative_distance(other, expected) < tolerance(torch.float32)


def test_onednn_leaves_float64_to_torch() -> None:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")):
        pytest.skip("this torch was built without oneDNN")
    a, b = pair()
    with set_tiling(size=3):
        expected = pair_statistics(a, b, 0.07).rows
    with set_tiling(size=3, matmul="onednn"):
        assert torch.equal(pair_statistics(a, b, 0.07).rows, expected)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "info_nce": lambda x: info_nce(x[0], x[1]),
    "bidirectional_nce": lambda x: bidirectional_nce(x[0], x[1]),
    "tempered": lambda x: srnce(x[0], x[1], x[2], variant="tempered"),
    "paper": lambda x: srnce(x[0], x[1], x[2], variant="paper"),
    "negative": lambda x: srnce(x[0], x[1], x[2], variant="negative"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [pytest.param(None, marks=compiles_as_one_graph), 4])
def test_compiles(form: str, size: int | None) -> None:
    """As one graph where it is dense; with a break, but the same values and gradients, where it is tiled."""
    x = vectors(3, 2, 9, 5, dtype=torch.float32).requires_grad_()
    with without_compiled_code(), set_tiling(size=size):
        loss = torch.compile(FORMS[form], backend="eager", fullgraph=size is None)(x)
        expected = FORMS[form](x)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], torch.autograd.grad(expected, x)[0])


@compiles_as_one_graph
def test_compiled_code_follows_the_settings_and_is_not_compiled_again_and_again() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    with without_compiled_code():
        compiled = torch.compile(FORMS["info_nce"], backend=count)
        compiled(vectors(2, 9, 5))
        counts = [len(graphs)]
        for seed in range(4):
            with set_tiling(size=4):
                loss = compiled(vectors(2, 9, 5, seed=seed))
            torch.testing.assert_close(loss, FORMS["info_nce"](vectors(2, 9, 5, seed=seed)))
            counts.append(len(graphs))
    dense, *tiled = counts
    assert dense < tiled[0] == tiled[-1]


def test_settings_hold_for_a_block_and_nest() -> None:
    before = logsumexp._settings
    with set_tiling(size=3, cache_mib=0):
        outer = logsumexp._settings
        assert (outer.size, outer.cache_mib, outer.matmul) == (3, 0, "torch")
        with set_tiling(size=5):
            assert logsumexp._settings.size == 5
        assert logsumexp._settings is outer
        with pytest.raises(ZeroDivisionError), set_tiling(size=7):
            raise ZeroDivisionError
        assert logsumexp._settings is outer
    assert logsumexp._settings is before


def test_settings_may_stay() -> None:
    with set_tiling():  # restores them
        set_tiling(size=11)
        assert logsumexp._settings.size == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"set_tiling\(size\): expected a whole number of at least 1, got 0"),
        ({"size": True}, r"set_tiling\(size\): expected a whole number of at least 1, got True"),
        ({"size": 512.0}, r"set_tiling\(size\): expected a whole number"),
        ({"cache_mib": -1}, r"set_tiling\(cache_mib\): expected a number of at least 0, got -1"),
        ({"cache_mib": float("inf")}, r"set_tiling\(cache_mib\): expected a number of at least 0, got inf"),
        ({"matmul": "mkl"}, r"set_tiling\(matmul\): expected one of torch, onednn, got 'mkl'"),
        ({"kernel": "cuda"}, r"set_tiling\(kernel\): expected one of torch, triton, got 'cuda'"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(arguments: dict[str, object], message: str) -> None:
    before = logsumexp._settings
    with pytest.raises(ConfigError, match=message):
        set_tiling(**arguments)  # type: ignore[arg-type]
    assert logsumexp._settings is before


@pytest.mark.parametrize("size", [None, 1])
def test_without_negatives_there_is_nothing_to_sum(size: int | None) -> None:
    a, b = pair(2, count=1)
    with set_tiling(size=size):
        statistics = pair_statistics(a, b, 0.07, columns=True)
    assert statistics.columns is not None
    assert (statistics.rows == -torch.inf).all()
    assert (statistics.columns == -torch.inf).all()
    gradient = torch.autograd.grad(one_against_rest(statistics.positive, statistics.rows).sum(), a)[0]
    assert (gradient == 0).all()


def test_kept_tiles_are_let_go_in_the_backward_pass_and_computed_anew_for_a_second_one() -> None:
    a, b = vectors(300, 8), vectors(300, 8, seed=1)
    a.requires_grad_()
    loss = info_nce(a, b)
    plan = next(node for node in graph_of(loss.grad_fn) if hasattr(node, "plan")).plan
    assert len(plan.cached) > 0
    (first,) = torch.autograd.grad(loss, a, retain_graph=True)
    assert len(plan.cached) == 0
    (second,) = torch.autograd.grad(loss, a)
    torch.testing.assert_close(second, first)


def graph_of(node: Any) -> list[Any]:
    """All nodes of an autograd graph from one on."""
    nodes, queue = [], [node]
    while queue:
        node = queue.pop()
        if node is not None and node not in nodes:
            nodes.append(node)
            queue += [parent for parent, _ in node.next_functions]
    return nodes


@pytest.mark.parametrize("count", [1, 16, 300])
@pytest.mark.parametrize("loss", [info_nce, bidirectional_nce])
def test_float16_vectors_near_zero_have_finite_gradients(loss: Any, count: int) -> None:
    a = (vectors(count, 8) * 1e-6).half().requires_grad_()
    value = loss(a, vectors(count, 8, seed=1).half())
    (gradient,) = torch.autograd.grad(value, a)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
