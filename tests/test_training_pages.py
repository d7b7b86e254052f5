"""The pages on Accelerate and Lightning: their code trains, goes on bit for bit, and in two processes as in one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import page_ranks
import pytest
import torch
from page_ranks import EPOCH, STEPS, Run
from same import assert_same
from torch import Tensor

State = dict[str, Tensor]
PAGES = ["in_accelerate", "in_lightning"]
LAUNCHERS = {
    "in_accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"],
    "in_lightning": [],
}
# loaders with workers, which begin an epoch early
WORKERS = {
    "in_accelerate": ("shuffle=True", "shuffle=True, num_workers=1"),
    "in_lightning": ("sampler=sampler", "sampler=sampler, num_workers=1"),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.removeprefix("in_"))
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def ranks(page: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw, and what was printed."""
    folder = tmp_path_factory.mktemp(page)
    command = [sys.executable, *LAUNCHERS[page], page_ranks.__file__, page, str(folder)]
    settings = {"PYTHONPATH": str(page_ranks.DOCS.parent), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **settings}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)
    files = [folder / f"{index}.pt" for index in range(2)]
    assert all(file.exists() for file in files), done.stderr[-4000:]
    return [{**torch.load(file), "printed": done.stderr} for file in files]


def saved(page: str, folder: Path) -> dict[str, Any]:
    """All that a training saved of weights and optimizers."""
    if page == "in_lightning":
        checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        return {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "epoch", "global_step")}
    names = "optimizer.bin", "custom_checkpoint_0.pkl"
    return {name: torch.load(folder / "state" / name, weights_only=True) for name in names}


def test_it_goes_on_bit_for_bit(page: str, tmp_path: Path) -> None:
    code = page_ranks.code_of(page, WORKERS[page])
    whole = Run(page, "drawing", tmp_path / "whole", code=code)
    assert len({*whole.seen}) == STEPS  # another order in each epoch
    seen = []
    # Accelerate in the middle of an epoch, too
    for steps in [3, 6, STEPS] if page == "in_accelerate" else [EPOCH, STEPS]:
        part = Run(page, "drawing", tmp_path / "parts", steps, code)
        seen += part.seen
        assert seen == whole.seen[:steps]
        assert torch.equal(part.net[0].weight, whole.net[0].weight) == (steps == STEPS)
    assert part.methods.step.value == STEPS
    assert_same(part.state(), whole.state())
    assert_same(saved(page, tmp_path / "parts"), saved(page, tmp_path / "whole"))


def test_two_processes_have_the_same_weights(ranks: list[dict[str, Any]]) -> None:
    assert [rank["world"] for rank in ranks] == [2, 2]
    first, second = ({**rank["states"], "apart": None} for rank in ranks)
    assert_same(first, second)


def test_two_processes_go_on_bit_for_bit(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert_same(rank["states"]["resumed"], rank["states"]["drawing"])


def test_two_processes_are_one_on_the_joined_batch(page: str, ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    one, before = Run(page, "joinable", tmp_path / "one").state(), Run(page, "joinable", tmp_path / "none", 0).state()
    two = ranks[0]["states"]["joinable"]
    weights = [name for name in one if name.endswith(("weight", "bias"))]
    assert len(weights) == 6  # of the SR network and of the methods' part
    for name in weights:
        moved = (one[name] - before[name]).abs().max().item()
        assert moved > 0.5 * STEPS * 1e-4  # Adam's steps
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-3 * moved)


def test_what_the_pages_warn_of(page: str, ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["states"]["apart"] for rank in ranks)
    name = "methods.rare.loss.embedding.head.weight"
    assert not torch.equal(first[name], second[name])
    if page == "in_lightning":
        assert "strategy='ddp_find_unused_parameters_true'" in ranks[0]["printed"]


def test_in_bfloat16(page: str, tmp_path: Path) -> None:
    plain = Run(page, "joinable", tmp_path / "plain").state()
    if page == "in_accelerate":
        _forget_accelerator()
        code = page_ranks.code_of(page, ("cpu=", 'mixed_precision="bf16", cpu='))
        mixed = Run(page, "joinable", tmp_path / "mixed", code=code).state()
        _forget_accelerator()
    else:
        mixed = Run(page, "joinable", tmp_path / "mixed", precision="bf16-mixed").state()
    for name in ("net.0.weight", "methods.pcl.loss.embedding.head.weight"):
        assert mixed[name].dtype == torch.float32
        assert not torch.equal(mixed[name], plain[name])
        torch.testing.assert_close(mixed[name], plain[name], rtol=0, atol=STEPS * 1e-4)


def _forget_accelerator() -> None:
    """Accelerate keeps the settings of a process's first Accelerator for all that follow."""
    state = importlib.import_module("accelerate.state")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    state.GradientState._reset_state()


@pytest.mark.parametrize(("kind", "max_steps"), [("joinable", 2 * 3), ("resting", 3 + 1)])
def test_max_steps_of_lightning_count_both_optimizers(kind: str, max_steps: int, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    run = Run("in_lightning", kind, tmp_path / "run", max_epochs=-1, max_steps=max_steps)
    assert run.methods.step.value == 3
    assert run.trainer.global_step == max_steps
    (name,) = run.methods.names
    logged = {"pixel_loss", *(f"{name}_{key}" for key in ("contrastive", "contrastive_share", "discriminator"))}
    assert logged <= set(run.trainer.logged_metrics)


def test_lightning_stops_where_the_methods_steps_say(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    code = page_ranks.code_of("in_lightning")
    step = code["SRTraining"].training_step

    def training_step(self: Any, batch: Any) -> None:
        step(self, batch)
        if self.methods.step.value == 3:
            self.trainer.should_stop = True

    code["SRTraining"].training_step = training_step
    assert Run("in_lightning", "resting", tmp_path / "run", code=code).methods.step.value == 3
