"""Networks and methods in the files of both hosts; no host is needed to read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.resume import newest_whole
from contrastive_sr.hosts.checkpoints import read_methods, read_network

NETWORK = {"body.weight": torch.tensor([1.0]), "body.bias": torch.tensor([2.0])}
OTHER = {"body.weight": torch.tensor([3.0]), "body.bias": torch.tensor([4.0])}
METHODS = {"pcl.step.count": torch.tensor(5), "pcl.loss.embedding.head.bias": torch.tensor([6.0])}


class Log:
    """Stands for an object of the host's in a checkpoint."""


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


FILES: dict[str, dict[str, Any]] = {
    "plain": NETWORK,
    "basicsr": {"params": NETWORK},
    "basicsr_average": {"params": OTHER, "params_ema": NETWORK},
    "other_average": {"params": OTHER, "params-ema": NETWORK},
    "model": {"model": NETWORK, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}},
    "net": {"net": under("module.", NETWORK), "epoch": 3},
    "lightning": {"state_dict": under("netG._orig_mod.", NETWORK)},
    "single": {"generator_weights": NETWORK, "step": 9},
    "mmagic_parallel": {"state_dict": under("module.generator.", NETWORK)},
    "mmagic": {
        "meta": {"epoch": 1},
        "message_hub": {"log": Log()},
        "state_dict": {**under("generator.", NETWORK), "step_counter": torch.tensor(3)},
        "optimizer": {"generator": {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}},
        "contrastive_sr": under("methods.", METHODS),
    },
    "mmagic_average": {"state_dict": {**under("generator.", OTHER), **under("generator_ema.", NETWORK)}},
    "mmagic_hook": {"state_dict": under("generator.", NETWORK), "ema_state_dict": under("module.generator.", OTHER)},
    "mmagic_without_our_hook": {"state_dict": {**under("generator.", NETWORK), **under("methods.", METHODS)}},
}


@pytest.mark.parametrize("name", FILES)
def test_the_network_in_a_file(name: str, tmp_path: Path) -> None:
    torch.save(FILES[name], tmp_path / "file.pth")
    assert read_network(tmp_path / "file.pth") == NETWORK


@pytest.mark.parametrize("name", [*FILES, "basicsr_training"])
def test_the_methods_in_a_file(name: str, tmp_path: Path) -> None:
    training = {"iter": 3, "optimizers": [], "methods": METHODS}
    torch.save(FILES.get(name, training), tmp_path / "file.pth")
    has_methods = name in ("mmagic", "mmagic_without_our_hook", "basicsr_training")
    assert read_methods(tmp_path / "file.pth") == (METHODS if has_methods else None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list, expected a state dict of tensors"),
        ({"iter": 3}, "holds a dict with the keys iter, expected a state dict of tensors"),
        ({"one": NETWORK, "two": {"inside": OTHER}}, "expected to hold a network, .*, got one, two.inside"),
        (Log(), "holds a whole Python object"),
    ],
)
def test_files_without_a_network(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ConfigError, match=rf"^--checkpoint: {re.escape(str(tmp_path))}.*{message}"):
        read_network(tmp_path / "file.pth", "--checkpoint")
    assert read_methods(tmp_path / "file.pth") is None


def test_a_resumed_training_asks_for_what_it_has_saved(tmp_path: Path) -> None:
    """Not for a network that is fixed, or that another model would train."""
    models, states = tmp_path / "models", tmp_path / "training_states"
    paths = {"models": str(models), "training_states": str(states)}
    opt = {"train": {}, "path": paths, "network_g": {}, "network_d": {}, "network_identity": {}}
    for folder, file in ((models, "net_g_5.pth"), (states, "5.state")):
        folder.mkdir()
        torch.save({"params": NETWORK}, folder / file)
    assert newest_whole(opt) == (states / "5.state", [])
    gan = {**opt, "train": {"gan_opt": {"type": "GANLoss"}}}
    with pytest.raises(DataError, match=r"got damaged ones alone.*net_d_5\.pth"):
        newest_whole(gan)
    torch.save({"params": NETWORK}, models / "net_identity_4.pth")
    with pytest.raises(DataError, match=r"got damaged ones alone.*net_identity_5\.pth"):
        newest_whole(opt)
    assert newest_whole({**opt, "path": {**paths, "ignore_resume_networks": ["network_identity"]}})[0] is not None
