"""Every function and loss on random tensors: a finite result, a NaN for a NaN, or an error of ours; never a crash."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refused import refusal
from small_models import IdentityEmbedding, SmoothEmbedding
from torch import Tensor, nn

from contrastive_sr import functional, losses

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CONTENTS = ("random", "zeros", "constant", "huge", "tiny", "mixed", "nan", "inf")
FINITE = CONTENTS[:-2]


class Source:
    """Draws tensors, and remembers them.

    Args:
        seed: of the shapes and values.
        dtype: of the tensors.
        contents: of the first, the second ... tensor; then from the start again.
        odd: how one of the tensors differs from what its function wants; empty for not at all.
    """

    def __init__(self, seed: int, dtype: torch.dtype, contents: Sequence[str], odd: str) -> None:
        self.random, self.dtype, self.contents, self.odd = random.Random(seed), dtype, contents, odd
        self.odd_one = self.random.randrange(3)
        self.largest = 1e30
        self.made: list[Tensor] = []

    def __call__(self, *shape: int, unit: bool = False) -> Tensor:
        """A tensor; ``unit``: of an image's values, or of others that are 0 or more."""
        odd = self.odd if len(self.made) == self.odd_one else ""
        if odd == "empty":
            shape = (0, *shape[1:])
        elif odd == "rank":
            shape = shape[1:]
        elif odd == "size" and shape:
            shape = (*shape[:-1], shape[-1] + 1)
        content = self.contents[len(self.made) % len(self.contents)]
        x = fill(
            shape,
            content,
            torch.float32 if odd == "dtype" else self.dtype,
            self.random.randrange(100),
            unit,
            self.largest,
        )
        if self.random.random() < 0.3 and x.ndim > 1:
            x = x.transpose(0, -1).contiguous().transpose(0, -1)
        x = torch.zeros(shape, dtype=torch.long) if odd == "integer" else x.requires_grad_()
        self.made.append(x)
        return x

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def one_of(self, *values: Any) -> Any:
        return self.random.choice(values)


def fill(shape: Sequence[int], content: str, dtype: torch.dtype, seed: int, unit: bool, largest: float) -> Tensor:
    """Values of one kind."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    x = x if unit else 2 * x - 1
    largest = min(largest, torch.finfo(dtype).max / 4)
    if content == "zeros":
        x = torch.zeros_like(x)
    elif content == "constant":
        x = torch.full_like(x, 0.5)
    elif content == "huge":
        x = x * largest
    elif content == "tiny":
        x = x * 1e-30
    elif content == "mixed":
        x = torch.where(torch.rand(shape, generator=generator) < 0.5, x * largest, x * 1e-30)
    elif content in ("nan", "inf"):
        x = torch.where(torch.rand(shape, generator=generator) < 0.3, float(content), x)
    return x.to(dtype)


Case = Callable[[Source], object]


def of_maps(loss: Callable[..., object], count: int) -> Case:
    def run(source: Source) -> object:
        shape = [source.number(1, 3), source.number(1, 4), source.number(1, 5), source.number(1, 5)]
        return loss(*(source(*shape) for _ in range(count)))

    return run


def of_vectors(loss: Callable[..., object], count: int, large: bool = False, tempered: bool = True) -> Case:
    def run(source: Source) -> object:
        leading = [2] * source.number(0, 1)
        rows = source.number(256, 260) if large else source.number(1, 9)
        shape = [*leading, rows, source.number(1, 5)]
        options = (
            {}
            if not tempered or source.one_of(True, True, False)
            else {"temperature": source.one_of(1e-3, 0.07, 1.0, 1e3)}
        )
        return loss(*(source(*shape) for _ in range(count)), **options)

    return run


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


def of_criteria(loss: Callable[..., object], options: dict[str, tuple[object, ...]]) -> Case:
    def run(source: Source) -> object:
        source.largest = 1e10  # powers of criteria, which have to fit into float32
        shape = source.one_of((), (2, 1, 3, 3))
        others = [source(*shape, unit=True) for _ in range(source.number(1, 2))]
        mask = torch.rand(2, 1, 3, 3) if source.one_of(True, False) else None
        chosen = {key: source.one_of(*values) for key, values in options.items()}
        return loss(source(*shape, unit=True), others, mask=mask, **chosen)

    return run


def of_images(loss: Callable[..., object]) -> Case:
    def run(source: Source) -> object:
        batch, side = source.number(1, 2), source.number(1, 3) * 2
        image = (3, side, side)
        keys = [source(batch, source.number(1, 2), *image, unit=True) for _ in range(2)]
        return loss(source(batch, *image, unit=True), *keys)

    return run


def of_module_criteria(source: Source) -> object:
    source.largest = 1e10
    shape = source.one_of((), (2, 1, 3, 3))
    anchor, near, far = (source(*shape, unit=True) for _ in range(3))
    return losses.CriteriaLoss(normalize=source.one_of(True, False))(anchor, [near], [far])


def of_module_queue(source: Source) -> object:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    loss = losses.DegradationQueueLoss(encoder, dim=4, queue_size=5)
    for _ in range(2):
        batch = source.number(1, 3)
        keys = fill((batch, 3, 2, 2), source.contents[0], torch.float32, source.number(0, 9), True, source.largest)
        found = loss(source(batch, 4), keys, encoder)
    assert loss.queue.isfinite().all()
    return found


def of_module_maps(kind: type[losses.InfoNCELoss] | type[losses.SRNCELoss], count: int) -> Case:
    def run(source: Source) -> object:
        shape = [source.number(1, 3), 3, source.number(1, 5), source.number(1, 5)]
        torch.manual_seed(0)
        loss = kind(
            channels=source.one_of(None, [3]),
            dim=4,
            positions=source.one_of(None, 4),
            negatives=source.one_of("image", "batch"),
        )
        return loss(*(source(*shape) for _ in range(count)))

    return run


def of_embedding(make: Callable[[nn.Module], Callable[..., object]], largest: float = 1e30) -> Case:
    def run(source: Source) -> object:
        source.largest = largest
        torch.manual_seed(0)
        # a network takes images of its own type alone
        embedding = IdentityEmbedding if source.odd == "dtype" else source.one_of(SmoothEmbedding, IdentityEmbedding)
        dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
        return of_images(make(embedding().to(dtype)))(source)

    return run


CASES: dict[str, Case] = {
    "pixel_cosine_similarity": of_maps(functional.pixel_cosine_similarity, 2),
    "haar_high_bands": of_maps(functional.haar_high_bands, 1),
    "multi_positive_nce": multi_positive,
    "dual_contrastive_loss": of_vectors(functional.dual_contrastive_loss, 2, tempered=False),
    "info_nce": of_vectors(functional.info_nce, 2),
    "info_nce, tiled": of_vectors(functional.info_nce, 2, large=True),
    "bidirectional_nce": of_vectors(functional.bidirectional_nce, 2),
    "bidirectional_nce, tiled": of_vectors(functional.bidirectional_nce, 2, large=True),
    "srnce": of_vectors(functional.srnce, 3),
    "srnce, paper": of_vectors(lambda *x, **o: functional.srnce(*x, variant="paper", **o), 3),
    "srnce, tempered": of_vectors(lambda *x, **o: functional.srnce(*x, variant="tempered", **o), 3),
    "srnce, negative, tiled": of_vectors(lambda *x, **o: functional.srnce(*x, variant="negative", **o), 3, large=True),
    "queue_nce": of_queue,
    "supcon": of_supcon,
    "criteria_alignment": of_criteria(functional.criteria_alignment, {"exponent": (1, 1.5, 2, 3)}),
    "criteria_uniformity": of_criteria(functional.criteria_uniformity, {"t": (1e-3, 2, 100)}),
    "embedded_nce": of_embedding(lambda net: lambda *x: functional.embedded_nce(*x, net)[0]),
    "plain_embedded_nce": of_embedding(lambda net: lambda *x: functional.plain_embedded_nce(*x, net)[0]),
    "PCLLoss": of_embedding(losses.PCLLoss),
    "ContrastiveRegularizationLoss": of_embedding(lambda net: losses.ContrastiveRegularizationLoss(net).contrast),
    "ContrastiveRegularizationLoss, paper": of_embedding(
        lambda net: losses.ContrastiveRegularizationLoss(net, variant="paper").contrast,
        largest=1e10,  # a dot product, which has to fit into float32
    ),
    "DualContrastiveLoss": of_vectors(losses.DualContrastiveLoss(), 2, tempered=False),
    "SimCLRLoss": of_vectors(losses.SimCLRLoss(), 2, tempered=False),
    "FakeContrastLoss": of_vectors(losses.FakeContrastLoss(), 2, tempered=False),
    "InfoNCELoss": of_module_maps(losses.InfoNCELoss, 2),
    "BidirectionalNCELoss": of_module_maps(losses.BidirectionalNCELoss, 2),
    "SRNCELoss": of_module_maps(losses.SRNCELoss, 3),
    "CriteriaLoss": of_module_criteria,
    "DegradationQueueLoss": of_module_queue,
}


def test_nothing_public_is_left_out() -> None:
    named = {name.partition(",")[0] for name in CASES}
    assert named >= set(losses.__all__)
    assert named >= set(functional.__all__) - {"set_tiling"}


def run(case: str, source: Source) -> Tensor | None:
    """The scalar or tensor that a case gives, or None if it was refused with a message."""
    found: list[Any] = []
    message = refusal(lambda: found.append(CASES[case](source)))
    if message is not None:
        assert len(message) > 20
        return None
    value = found[0][0] if isinstance(found[0], tuple) else found[0]
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
