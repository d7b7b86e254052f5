"""Cria-CL's branches and criteria on two processes over gloo, against one process on the joined batch."""

from __future__ import annotations

from typing import Any

import cria_ranks
import pytest
import torch
from forked import run_ranks
from tolerances import tolerance

Results = list[dict[str, Any]]
CLOSE, LOOSE = tolerance(torch.float64, "close"), tolerance(torch.float64, "loose")
SINGLE = tolerance(torch.float32, "exact")  # of what follows from a share, whose weight is measured in float32


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("cria_ranks")
    run_ranks(cria_ranks.work, folder, cria_ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(cria_ranks.WORLD)]


def test_two_ranks_train_as_one_process_on_the_joined_batch(results: Results) -> None:
    """The network with its branches, the criteria's scales, and the weight that a share sets."""
    want = cria_ranks.train("pixels", [0, 1])["states"]
    alone = cria_ranks.train("pixels", [0])["states"]
    for step in range(cria_ranks.STEPS):
        for result in results:
            got = result["pixels"]["states"][step]
            assert set(got) == set(want[step])
            for name, value in want[step].items():
                torch.testing.assert_close(
                    got[name], value, rtol=SINGLE, atol=0.002 * SINGLE, msg=lambda m, n=name: f"{n}: {m}"
                )
    assert not torch.equal(want[-1]["net.uniformity.upsample.4.bias"], alone[-1]["net.uniformity.upsample.4.bias"])
    assert want[-1]["methods.cria.losses.align.scales.means"].min() > 0


def test_all_state_is_equal_on_both_ranks(results: Results) -> None:
    """Also the discriminator's BatchNorm, which sees each rank's own images."""
    first, second = (result["adversarial"]["states"][-1] for result in results)
    assert any("discriminator" in name for name in first)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=LOOSE, atol=CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", cria_ranks.SETTINGS)
def test_logs_have_the_same_names_on_all_ranks_at_all_steps(results: Results, kind: str) -> None:
    logged = [set(log) for result in results for log in result[kind]["logs"]]
    assert len(logged) == cria_ranks.WORLD * cria_ranks.STEPS
    assert all(names == logged[0] for names in logged)
