"""What is looked at in a checkpoint before it takes its name, and before a training goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from full_disk import small_disk
from torch import nn

from contrastive_sr.errors import DataError, NonFiniteError, SaveError
from contrastive_sr.hosts.proven import LoggedLosses, check_finite, check_whole, save_whole


@pytest.mark.parametrize("part", ["params.0.weight", "params.1.running_var", "params_ema.1.running_mean"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_buffers_and_averages_have_to_be_finite(part: str, value: float, tmp_path: Path) -> None:
    state = {
        name: nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).state_dict() for name in ("params", "params_ema")
    }
    save_whole(state, tmp_path / "whole.pth")
    check_whole(tmp_path / "whole.pth")
    section, _, name = part.partition(".")
    state[section][name].view(-1)[0] = value
    with pytest.raises(NonFiniteError, match=rf"To save net.pth: expected finite numbers in {part}, got NaN or inf"):
        save_whole(state, tmp_path / "net.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.pth"]
    torch.save(state, tmp_path / "net.pth")  # as another program may have done
    with pytest.raises(NonFiniteError, match=rf"net.pth: expected finite numbers in {part}"):
        check_whole(tmp_path / "net.pth")


def test_the_state_of_an_optimizer_is_looked_at_too() -> None:
    content = {"iter": 3, "optimizers": [{"state": {0: {"exp_avg": torch.tensor([torch.nan])}}}]}
    with pytest.raises(NonFiniteError, match=r"finite numbers in optimizers\.0\.state\.0\.exp_avg"):
        check_finite(content, "3.state")


def test_what_a_step_logged() -> None:
    logged = LoggedLosses()
    logged.check({"l_pix": 0.5, "l_g": torch.tensor(0.2)}, 6)
    for value in (float("nan"), torch.tensor(torch.nan)):
        with pytest.raises(NonFiniteError, match=r"l_pix at step 7: expected a finite number, got nan\. The training"):
            logged.check({"l_g": 0.1, "l_pix": value}, 7)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    save_whole({"params": {"weight": torch.ones(3)}}, path)
    with pytest.raises(SaveError, match=r"net\.pth could not be written \(.*\); [\d,]+ MiB are free"), small_disk(4096):
        save_whole({"params": {"weight": torch.ones(10_000)}}, path)
    check_whole(path)
    assert [other.name for other in tmp_path.iterdir()] == ["net.pth"]


@pytest.mark.parametrize("size", [0, 100, -100, None])
def test_damage_is_named(size: int | None, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    if size is not None:
        torch.save({"weight": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"net\.pth"):
        check_whole(path)
