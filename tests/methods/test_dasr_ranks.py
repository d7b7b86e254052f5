"""DASR and CRL-SR on two processes over gloo, against one process on the joined batch."""

from __future__ import annotations

from typing import Any

import dasr_ranks
import pytest
import torch
from forked import run_ranks
from tolerances import tolerance

Results = list[dict[str, Any]]
CLOSE, LOOSE = tolerance(torch.float64, "close"), tolerance(torch.float64, "loose")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("dasr_ranks")
    run_ranks(dasr_ranks.work, folder, dasr_ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(dasr_ranks.WORLD)]


@pytest.mark.parametrize("kind", [*dasr_ranks.WARMING_UP, "auxiliary"])
def test_two_ranks_train_as_one_process_on_the_joined_batch(results: Results, kind: str) -> None:
    """Network, momentum encoder, queue and pointer, through the warm-up and after it."""
    want = dasr_ranks.train(kind, [0, 1])
    for step in range(dasr_ranks.STEPS):
        for result in results:
            got = result[kind]["states"][step]
            assert set(got) == set(want["states"][step])
            for name, value in want["states"][step].items():
                if not name.endswith(("ratio", "latest", "largest", "recent", "pixel")):
                    torch.testing.assert_close(
                        got[name], value, rtol=LOOSE, atol=CLOSE, msg=lambda m, n=name: f"{n}: {m}"
                    )
    name = "methods.degradation.loss" if kind == "auxiliary" else "methods.dasr.loss"
    assert want["states"][-1][f"{name}.fill"] == 5
    assert want["states"][-1][f"{name}.pointer"] == 4 * dasr_ranks.STEPS % 5
    assert want["logs"][-1] != dasr_ranks.train(kind, [0])["logs"][-1]  # one rank alone would have trained otherwise


@pytest.mark.parametrize("kind", dasr_ranks.CONFIGS)
def test_logs_have_the_same_names_on_all_ranks_at_all_steps(results: Results, kind: str) -> None:
    logged = [set(log) for result in results for log in result[kind]["logs"]]
    assert len(logged) == 2 * dasr_ranks.STEPS
    assert all(names == logged[0] for names in logged)


@pytest.mark.parametrize("kind", dasr_ranks.WARMING_UP)
def test_warm_up_ends_on_all_ranks_at_once(results: Results, kind: str) -> None:
    for result in results:
        factors = [log["dasr_host_factor"] for log in result[kind]["logs"]]
        assert factors == [float(step >= dasr_ranks.WARMUP) for step in range(dasr_ranks.STEPS)]
        before, after = (result[kind]["states"][step]["net.first.weight"] for step in (dasr_ranks.WARMUP - 1, -1))
        assert torch.equal(before, result[kind]["states"][0]["net.first.weight"])
        assert not torch.equal(before, after)


@pytest.mark.parametrize("kind", dasr_ranks.WARMING_UP)
def test_the_encoder_learns_in_the_warm_up_and_is_equal_on_all_ranks(results: Results, kind: str) -> None:
    """Its gradients are averaged, also where it is called without the network's wrapper."""
    names = [name for name in results[0][kind]["states"][0] if name.startswith("net.encoder") and "weight" in name]
    for step in range(dasr_ranks.WARMUP):
        first, second = (result[kind]["states"][step] for result in results)
        for name in names:
            assert torch.equal(first[name], second[name]), name
    for name in names:
        # the first step has nothing to contrast with
        start, end = (results[0][kind]["states"][step][name] for step in (0, dasr_ranks.WARMUP - 1))
        assert not torch.equal(start, end), name


@pytest.mark.parametrize("kind", ["statistics", "crl_sr", "auxiliary"])
def test_all_state_is_equal_on_all_ranks(results: Results, kind: str) -> None:
    """Also where BatchNorm sees each rank's own images; the network's statistics follow at its next forward pass."""
    first, second = (result[kind]["states"][-1] for result in results)
    assert len(first) > 10
    for name, value in first.items():
        if not (name.startswith("net.encoder") and "running" in name) and "num_batches" not in name:
            torch.testing.assert_close(
                value, second[name], rtol=CLOSE, atol=CLOSE / 100, msg=lambda m, n=name: f"{n}: {m}"
            )
    if kind == "statistics":
        assert torch.equal(first["methods.dasr.loss.queue"], second["methods.dasr.loss.queue"])
        assert first["methods.dasr.loss.key_encoder.encoder.body.1.running_mean"].abs().sum() > 0
        logs = [result[kind]["logs"][-1]["dasr_positive_similarity"] for result in results]
        assert logs[0] != logs[1]  # each saw images of its own
