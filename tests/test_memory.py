"""Memory stays flat: nothing is kept from one step of a method to the next."""

from __future__ import annotations

import gc

import pytest
import torch

from benchmarks import memory
from contrastive_sr.methods import METHODS


def tensors() -> tuple[int, int]:
    """How many tensors there are, and the bytes that they hold."""
    gc.collect()
    alive = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
    return len(alive), sum(x.numel() * x.element_size() for x in alive)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", METHODS)
def test_no_tensor_is_left_behind_by_a_step(method: str) -> None:
    training = memory.train(method, torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    for _ in range(3):
        next(training)
    before = tensors()
    for _ in range(5):
        next(training)
    assert tensors() == before


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_resident_memory_grows_by_less_than_2_percent_in_2000_steps() -> None:
    growth = {row.method: row.growth for row in memory.measure(2000)}
    assert all(grown < 2 for grown in growth.values()), growth
