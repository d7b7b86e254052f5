"""TeacherOutput: files of both hosts, what it gives, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import CountingNet, images_batch
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks import MPFNet
from contrastive_sr.samples import TeacherOutput, draw

NETWORK = {"type": "MPFNet", "scale": 4, "channels": 4, "blocks": 1}


@pytest.fixture(scope="module")
def trained() -> MPFNet:
    torch.manual_seed(1)
    return MPFNet(channels=4, blocks=1)


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def test_files_of_both_hosts_and_averages_first(trained: MPFNet, tmp_path: Path) -> None:
    batch = images_batch()
    want = trained(batch["lr"]).detach().clamp(0, 1)
    state, other = trained.state_dict(), MPFNet(channels=4, blocks=1).state_dict()
    rest = {"step_counter": torch.tensor(3)}
    contents: dict[str, Any] = {
        "plain": state,
        "basicsr": {"params": state},
        "basicsr_ema": {"params": other, "params_ema": state},
        "mmagic": {"meta": {"epoch": 1}, "state_dict": {**under("generator.", state), **rest}},
        "mmagic_ema": {"state_dict": {**under("generator.", other), **under("generator_ema.", state), **rest}},
        "mmagic_hook": {"state_dict": under("generator.", state), "ema_state_dict": under("module.generator.", other)},
        "mmagic_own": {"state_dict": under("generator.", state), "contrastive_sr": {"methods.x": torch.zeros(1)}},
    }
    for name, content in contents.items():
        teacher = TeacherOutput(NETWORK, weights=save(content, tmp_path / f"{name}.pth"))
        assert torch.equal(teacher(batch)[:, 0], want), name


def test_a_network_that_is_built_already(trained: MPFNet, tmp_path: Path) -> None:
    batch = images_batch()
    assert TeacherOutput(trained)(batch).shape == (2, 1, 3, 32, 32)
    path = save(trained.state_dict(), tmp_path / "a.pth")
    loaded = TeacherOutput(MPFNet(channels=4, blocks=1), weights=path)
    assert torch.equal(loaded(batch), TeacherOutput(trained)(batch))


class Louder(nn.Module):
    """Shows whether it is in eval mode, in which precision it runs, and leaves [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 1)
        self.seen: list[Any] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), self.conv(lr).dtype))
        out: Tensor = nn.functional.interpolate(self.norm(lr) * 40 - 20, scale_factor=4)
        return out


def test_it_is_fixed_clamped_and_in_full_precision() -> None:
    network = Louder()
    teacher = TeacherOutput(network.train())
    batch = images_batch()
    with torch.autocast("cpu", torch.bfloat16):
        sample = teacher({key: value.requires_grad_() for key, value in batch.items()})
    assert network.seen == [(False, False, torch.float32)]
    assert not sample.requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    assert sample.aminmax() == (0, 1)
    assert not network.norm.running_mean.any()
    double = teacher({key: value.double() for key, value in images_batch().items()})
    assert double.dtype == torch.float64
    assert draw([teacher], images_batch()).shape == (2, 1, 3, 32, 32)


def test_files_and_networks_that_do_not_fit(trained: MPFNet, tmp_path: Path) -> None:
    path = save({"state_dict": under("generator.", trained.state_dict())}, tmp_path / "trained.pth")
    for network, weights, message in (
        (NETWORK, None, r"TeacherOutput\(weights\): expected the file of a trained network, got none"),
        (NETWORK, tmp_path / "no.pth", r"TeacherOutput\(weights\): expected an existing file, got .*no\.pth"),
        (
            {**NETWORK, "channels": 5},
            path,
            r"trained\.pth: expected first\.weight of shape .*The teacher is .*'channels': 5",
        ),
        ({**NETWORK, "blocks": 2}, path, r"one MPFNet, got none \(e\.g\. blocks\.1\..*Give `network` the settings"),
        (
            {**NETWORK, "perceptions": [[1, 1], [3, 1]]},
            path,
            r"holds more than a MPFNet, e\.g\. generator\.perceptions\.2",
        ),
        ({"type": "MPFNett"}, path, r"TeacherOutput\(network\): .*Did you mean 'MPFNet'"),
        ({"type": "MPFNet", "depth": 3}, path, "does not know the key 'depth'"),
        ("MPFNet", path, r"TeacherOutput\(network\): expected a mapping with `type`"),
    ):
        with pytest.raises(ConfigError, match=rf"(?s){message}"):
            TeacherOutput(network, weights=weights)  # type: ignore[arg-type]
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ConfigError, match="could not be read as a file of tensors"):
        TeacherOutput(NETWORK, weights=tmp_path / "text.pth")


class Picky(nn.Module):
    def forward(self, lr: Tensor) -> Tensor:
        raise ValueError("no kernel")


def test_images_that_do_not_fit() -> None:
    batch = images_batch()
    with pytest.raises(
        DataError, match=r"expected SR images \(2, 3, 32, 32\).*CountingNet, got \(2, 3, 16, 16\).*scale"
    ):
        TeacherOutput(CountingNet(scale=2))(batch)
    with pytest.raises(DataError, match=r"TeacherOutput: Conv2d fails on LR images \(2, 3, 8, 8\)"):
        TeacherOutput(nn.Conv2d(4, 3, 1))(batch)
    with pytest.raises(
        DataError, match=r"TeacherOutput: Picky fails on LR images \(2, 3, 8, 8\) \(ValueError: no kernel\)"
    ):
        TeacherOutput(Picky())(batch)
    with pytest.raises(DataError, match=r"TeacherOutput: expected a batch with 'lr', got \['hr'\]"):
        TeacherOutput(CountingNet())({"hr": batch["hr"]})
