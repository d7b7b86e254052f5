"""All that is public, with its defaults: the same in one process, in two and in three, but for what says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import api_ranks
import pytest
import torch
from fuzzing import collected

PROJECT = Path(__file__).resolve().parents[1]

# What ranks share, by the beginning of its name; docs/distributed.md has it.
QUEUE = ("queue_fill", "contrastive", "contrast", "negative_similarity")
SHARED = {
    "DASR": (*(f"dasr_{name}" for name in QUEUE), "state dasr.loss.", "state dasr.weights."),
    "DegradationContrast": (*(f"degradation_{name}" for name in QUEUE), "state degradation.loss."),
    "MCL": ("mcl_discriminator",),
    "MPF": ("mpf_discriminator",),
    "InfoNCE": ("nce_discriminator",),
    "BidirectionalNCE": ("nce_discriminator",),
    "SRNCE": ("srnce_discriminator",),
    "PCL": ("pcl_discriminator",),
    "ContrastiveRegularization": ("regularization_discriminator",),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[tuple[int, int], Any]]:
    """Of one process, and by number of processes and rank."""
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(PROJECT), *(str(PROJECT / "tests" / name) for name in ("helpers", "hosts"))])
    subprocess.run(
        [sys.executable, api_ranks.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    of_ranks = {(w, rank): torch.load(folder / f"{w}_{rank}.pt") for w in api_ranks.WORLDS for rank in range(w)}
    return torch.load(folder / "alone.pt"), of_ranks


def differing(alone: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> set[str]:
    """What is not the same to rounding, as of the mean of three equal numbers."""
    assert alone.keys() == got.keys()
    return {name for name, x in alone.items() if not torch.allclose(x, got[name], rtol=1e-4, atol=1e-6)}


@pytest.mark.parametrize("kind", ["losses", "embeddings"])
def test_nothing_but_methods_depends_on_the_number_of_processes(kind: str, results: Any) -> None:
    alone, of_ranks = results
    compared = 0
    for place, got in of_ranks.items():
        for name, parts in got.get(kind, {}).items():
            assert not differing(alone[kind][name], parts), (place, name)
            compared += 1
    assert compared == len(alone[kind]) * (5 if kind == "losses" else 3)


def test_methods_share_what_is_documented_and_nothing_else(results: Any) -> None:
    alone, of_ranks = results
    assert set(alone["methods"]) == set(collected("methods", "SMALL"))
    for rank in range(3):
        for name, parts in of_ranks[3, rank]["methods"].items():
            found, shared = differing(alone["methods"][name], parts), SHARED.get(name, ())
            # the gradient of a mean over three times as many images is smaller
            found = {key for key in found if not key.endswith(".pixel")}
            assert {key for key in found if not key.startswith(shared or ("none",))} == set(), (rank, name)
            assert bool(found) == bool(shared), name


def test_two_and_three_processes_were_running(results: Any) -> None:
    _, of_ranks = results
    assert [of_ranks[place]["place"] for place in sorted(of_ranks)] == [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
