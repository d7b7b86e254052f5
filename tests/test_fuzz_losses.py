"""Every function and loss on random tensors: a finite result, a NaN for a NaN, or an error of ours; never a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from fuzzing import CONTENTS, FINITE, Source, collected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refused import refusal
from torch import Tensor, nn

from contrastive_sr import functional, losses

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Case = Callable[[Source], object]


def of_vectors(function: Callable[..., object], count: int, large: bool = False, **options: Any) -> Case:
    return lambda source: function(*source.vectors(count, large), **source.temperature(), **options)


def multi_positive(source: Source) -> object:
    batch = source.number(1, 3)
    return functional.multi_positive_nce(source(batch, source.number(1, 3)), source(batch, source.number(1, 3)))


def of_queue(source: Source) -> object:
    batch, dim, size = source.number(1, 3), source.number(1, 5), source.number(1, 6)
    query, key, queue = source(batch, dim), source(batch, dim), source(size, dim)
    valid = torch.arange(size) < source.number(0, size) if source.one_of(True, False) else None
    return functional.queue_nce(query, key, queue, valid=valid)


def of_supcon(source: Source) -> object:
    rows, columns, dim = source.number(1, 4), source.number(1, 4), source.number(1, 5)
    generator = torch.Generator().manual_seed(source.number(0, 9))
    positive = torch.rand(rows, columns, generator=generator) < 0.5
    positive[:, 0] = True  # an anchor without any counts as 0, whatever it is
    return functional.supcon(source(rows, dim), source(columns, dim), positive, torch.zeros_like(positive))


def of_criteria(function: Callable[..., object], option: str, *values: float) -> Case:
    def case(source: Source) -> object:
        source.largest = 1e10  # powers of criteria, which have to fit into float32
        shape = source.one_of((), (2, 1, 3, 3))
        others = [source(*shape, unit=True) for _ in range(source.number(1, 2))]
        mask = torch.rand(2, 1, 3, 3) if source.one_of(True, False) else None
        return function(source(*shape, unit=True), others, mask=mask, **{option: source.one_of(*values)})

    return case


FUNCTIONS: dict[str, Case] = {
    "pixel_cosine_similarity": lambda source: functional.pixel_cosine_similarity(*source.maps(2)),
    "haar_high_bands": lambda source: functional.haar_high_bands(*source.maps(1)),
    "multi_positive_nce": multi_positive,
    "dual_contrastive_loss": lambda source: functional.dual_contrastive_loss(*source.vectors(2)),
    "info_nce": of_vectors(functional.info_nce, 2),
    "info_nce, tiled": of_vectors(functional.info_nce, 2, large=True),
    "bidirectional_nce": of_vectors(functional.bidirectional_nce, 2),
    "bidirectional_nce, tiled": of_vectors(functional.bidirectional_nce, 2, large=True),
    "srnce": of_vectors(functional.srnce, 3),
    "srnce, paper": of_vectors(functional.srnce, 3, variant="paper"),
    "srnce, tempered": of_vectors(functional.srnce, 3, variant="tempered"),
    "srnce, negative, tiled": of_vectors(functional.srnce, 3, large=True, variant="negative"),
    "queue_nce": of_queue,
    "supcon": of_supcon,
    "criteria_alignment": of_criteria(functional.criteria_alignment, "exponent", 1, 1.5, 2, 3),
    "criteria_uniformity": of_criteria(functional.criteria_uniformity, "t", 1e-3, 2, 100),
    "embedded_distance": lambda source: functional.embedded_distance(*source.images(), source.embedding())[0],
    "embedded_nce": lambda source: functional.embedded_nce(*source.images(), source.embedding())[0],
    "plain_embedded_nce": lambda source: functional.plain_embedded_nce(*source.images(), source.embedding())[0],
}
CASES: dict[str, Case] = {**FUNCTIONS, **collected("losses", "FUZZ")}


def test_nothing_public_is_left_out() -> None:
    named = {name.partition(",")[0] for name in CASES}
    assert named >= {
        name for name, kind in vars(losses).items() if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    assert named >= set(functional.__all__) - {"set_tiling"}


def run(case: str, source: Source) -> Tensor | None:
    """The scalar or tensor that a case gives, or None if it was refused with a message."""
    values: list[Any] = []
    message = refusal(lambda: values.append(CASES[case](source)))
    if message is not None:
        assert len(message) > 20
        return None
    (value,) = values
    assert isinstance(value, Tensor)
    return value


def sources(contents: Sequence[str]) -> st.SearchStrategy[Source]:
    odd = st.sampled_from(["", "", "", "", "empty", "rank", "size", "dtype", "integer"])
    kinds = st.lists(st.sampled_from(contents), min_size=1, max_size=3)
    return st.builds(Source, st.integers(0, 2**32), st.sampled_from(DTYPES), kinds, odd)


FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("case", CASES)
def test_finite_tensors_give_finite_losses_and_gradients(case: str) -> None:
    @settings(FUZZ, max_examples=100)
    @given(sources(FINITE))
    def check(source: Source) -> None:
        value = run(case, source)
        if value is None:
            return
        assert value.isfinite().all(), value
        if value.requires_grad:
            leaves = [x for x in source.made if x.requires_grad]
            for gradient in torch.autograd.grad(value.sum(), leaves, allow_unused=True):
                assert gradient is None or gradient.isfinite().all()

    check()


@pytest.mark.parametrize("case", CASES)
def test_nan_and_infinity_do_not_pass_unseen(case: str) -> None:
    """What is not finite shows in the loss, where the methods look for it, or is refused; it is never a crash."""

    @settings(FUZZ, max_examples=30)
    @given(sources(CONTENTS))
    def check(source: Source) -> None:
        value = run(case, source)
        if value is not None and any(x.isnan().any() for x in source.made):
            assert not value.isfinite().all()

    check()
