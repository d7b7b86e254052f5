"""MPF on two processes over gloo: its losses against one process on the joined batch, and equal state on both."""

from __future__ import annotations

from typing import Any

import mpf_ranks
import pytest
import torch
from forked import run_ranks
from tolerances import assert_close, tolerance

Results = list[dict[Any, Any]]
CLOSE, LOOSE = tolerance(torch.float32, "close"), tolerance(torch.float32, "loose")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("mpf_ranks")
    run_ranks(mpf_ranks.work, folder, mpf_ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(mpf_ranks.WORLD)]


@pytest.mark.parametrize("sizes", mpf_ranks.SIZES)
@pytest.mark.parametrize("kind", mpf_ranks.LOSSES)
def test_losses_are_those_of_the_joined_batch(results: Results, kind: str, sizes: tuple[int, int]) -> None:
    """Also where one rank has fewer samples, or none."""
    want = mpf_ranks.loss_run(kind, sizes, [0, 1], gather=False)
    got = [result[kind, sizes] for result in results]
    assert_close(sum(one["loss"] for one in got) / 2, want["loss"])
    for role, gradient in enumerate(want["gradients"]):
        joined = torch.cat([one["gradients"][role] for one in got]) / 2
        torch.testing.assert_close(joined, gradient)


@pytest.mark.parametrize("training", ["dual", "contrad"])
def test_both_ranks_have_one_state_through_both_phases(results: Results, training: str) -> None:
    first, second = (result[training] for result in results)
    assert len(first["state"]) > 80
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    for name, value in first["net"].items():
        torch.testing.assert_close(value, second["net"][name], rtol=0, atol=0, msg=name)
    own = {"dual": ["mpf_discriminator"], "contrad": ["mpf_fake_contrast", "mpf_simclr"]}[training]
    for result in (first, second):
        logged = [[name for name in sorted(log) if name in own] for log in result["logs"]]
        assert logged == [[], own, own]
        assert len({tuple(sorted(set(log) - set(own))) for log in result["logs"]}) == 1


def test_dual_trains_as_one_process_on_the_joined_batch(results: Results) -> None:
    """The embedding of two ranks is that of one process; nothing random is in it."""
    want = mpf_ranks.train("dual", [0, 1], wrap=False)["state"]
    got = results[0]["dual"]["state"]
    names = [name for name in want if ".embedding." in name]
    assert len(names) == 88
    for name in names:
        torch.testing.assert_close(got[name], want[name], rtol=LOOSE, atol=CLOSE, msg=lambda m, n=name: f"{n}: {m}")
    moved = [n for n in names if n.endswith("original") and not torch.equal(want[n], got[n])]
    start = mpf_ranks.train("dual", [0], wrap=False)["state"]  # one rank alone would have trained otherwise
    furthest = max((start[name] - want[name]).abs().max() for name in names)
    nearest = max((got[name] - want[name]).abs().max() for name in names)
    assert furthest > 20 * nearest, (furthest, nearest, len(moved))
