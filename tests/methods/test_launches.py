"""What methods send to a device in a step: few operations, and they wait for nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from meta_device import STEADY, meta, operations_of_a_step  # noqa: F401 - a fixture
from torch import nn

from contrastive_sr import networks

pytestmark = pytest.mark.usefixtures("meta")

TAPPED = {"layers": ["body.0"], "embedding": {"type": "HaarDiscriminator", "out_indices": [1]}}


class Network(nn.Module):
    """Two convolutions with a name for the layers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1))
        self.up = nn.PixelShuffle(4)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return self.up(self.body(lr))


class WithBranches(networks.CriteriaBranches):
    """Cria-CL's branches on two convolutions."""

    def __init__(self) -> None:
        trunk = nn.Module()
        trunk.conv_first, trunk.body, trunk.conv_body = (nn.Conv2d(c, 48, 3, padding=1) for c in (3, 48, 48))
        super().__init__(trunk)


def added(config: dict[str, Any], step: int = STEADY) -> Counter[str]:
    """The operations that a method adds to a step."""
    make: Any = {"CRLSR": networks.CRLSR, "DASR": networks.DASR}.get(config["type"], Network)
    make = WithBranches if config.get("variant") == 7 else make
    more = {"lr_key": (16, 3, 48, 48)} if config["type"] in ("DASR", "DegradationContrast") else {}
    with_it = operations_of_a_step(make, [config], more=more, step=step)
    with_it.subtract(operations_of_a_step(make, []))
    return with_it


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"type": "PCL", "every": 1}, 700),
        ({"type": "ContrastiveRegularization"}, 700),
        ({"type": "MCL", "embedding": {"type": "HaarDiscriminator"}}, 700),
        ({"type": "InfoNCE"}, 700),
        ({"type": "BidirectionalNCE"}, 700),
        ({"type": "BidirectionalNCE", **TAPPED}, 700),
        ({"type": "SRNCE"}, 700),
        ({"type": "DASR", "warmup_steps": 0, "queue_size": 1024}, 700),
        ({"type": "DegradationContrast", "queue_size": 1024}, 700),
        ({"type": "CRLSR"}, 1500),
        ({"type": "CriaCL", "variant": 5, "vgg_weights": None, "positives": [{"type": "Pixel", "norm": "l2"}]}, 700),
        ({"type": "CriaCL", "variant": 7, "vgg_weights": None}, 700),
        ({"type": "CriterionTerm", "criterion": "MSSSIM"}, 700),
        ({"type": "CriterionTerm", "criterion": "Adversarial"}, 700),
        ({"type": "MPF"}, 1300),  # many of them for spectral normalisation
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_a_method_adds_few_operations(config: dict[str, Any], most: int) -> None:
    """Each takes the host some time, however fast the GPU is."""
    operations = added(config)
    assert 20 < sum(operations.values()) <= most, operations.most_common(10)


@pytest.mark.parametrize(
    "config",
    [{"type": "PCL", "every": 1}, {"type": "PCL", "every": 1, "loss_weight": 0.0004}],
    ids=lambda c: "-".join(c),
)
def test_steps_that_measure_shares_wait_for_nothing_either(config: dict[str, Any]) -> None:
    assert sum(added(config, step=100).values()) > sum(added(config).values())


def test_reading_a_value_would_be_found() -> None:
    """The tests above would fail at it."""
    with pytest.raises(RuntimeError, match="meta tensors"):
        torch.ones((), device="meta").item()


def test_keys_of_a_large_batch_are_embedded_in_parts() -> None:
    """MPF's, of 32 images, whose maps would take gigabytes more."""
    few, many = (
        operations_of_a_step(Network, [{"type": "MPF", "embedding_training": "frozen"}], batch=batch)
        for batch in (16, 32)
    )
    assert sum(few.values()) < sum(many.values()) < 1.6 * sum(few.values())
