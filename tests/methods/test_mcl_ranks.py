"""MCL on two processes over gloo: as one process on the joined batch, and pasts that are the same on both."""

from __future__ import annotations

from typing import Any

import mcl_ranks
import pytest
import torch
from forked import run_ranks
from same import assert_same
from tolerances import tolerance

Results = list[dict[str, Any]]
SINGLE = tolerance(torch.float32, "exact")  # of what follows from a share, whose weight is measured in float32


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("mcl_ranks")
    run_ranks(mcl_ranks.work, folder, mcl_ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(mcl_ranks.WORLD)]


def test_two_ranks_train_as_one_process_on_the_joined_batch(results: Results) -> None:
    """The network, its pasts, and the weight that the share sets."""
    want, alone = (mcl_ranks.train("plain", indices)["states"] for indices in ([0, 1], [0]))
    for result in results:
        got = result["plain"]["states"]
        assert set(got) == set(want)
        for name, value in want.items():
            torch.testing.assert_close(got[name], value, rtol=SINGLE, atol=SINGLE, msg=lambda m, n=name: f"{n}: {m}")
    past = "methods.mcl.samples.0.pasts.0.body.0.weight"
    assert not torch.equal(want[past], want["net.body.0.weight"])
    assert (want[past] - alone[past]).abs().max() > 100 * SINGLE


def test_pasts_are_equal_on_both_ranks(results: Results) -> None:
    """Also their BatchNorm, whose statistics are those of each rank's own images in the network."""
    first, second = (
        {name: value for name, value in result["norm"]["states"].items() if name.startswith("methods.")}
        for result in results
    )
    assert any("running_mean" in name for name in first)
    assert_same(first, second)
    assert [set(log) for log in results[0]["norm"]["logs"]] == [set(log) for log in results[1]["norm"]["logs"]]
