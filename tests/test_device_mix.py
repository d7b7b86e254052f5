"""Classes that a config can name, on a device that is not the default one: what they make themselves is made there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cria_models import EDSR
from meta_device import Literals, Operations, meta  # noqa: F401 - a fixture
from torch import Tensor, nn

from contrastive_sr.config import build
from contrastive_sr.criteria import CRITERIA
from contrastive_sr.embeddings import EMBEDDINGS
from contrastive_sr.losses import FakeContrastLoss, SimCLRLoss
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES

pytestmark = pytest.mark.usefixtures("meta")

FILES = {"TimmFeatures", "VGGFeatures", "VGG"}  # need a file with weights
SMALL: dict[str, dict[str, Any]] = {
    "Adversarial": {"discriminator": {"type": "RGBDiscriminator"}},
    "CRLSR": {"channels": 4, "encoder_blocks": 2, "decoder_blocks": 1},
    "CriteriaBranches": {"trunk": EDSR()},
    "DASR": {"channels": 8, "groups": 1, "blocks": 1},
    "MPFNet": {"channels": 8, "blocks": 1},
    "MSSSIM": {"scales": 2},
    "TeacherOutput": {"network": nn.Upsample(scale_factor=4)},
}


def images(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, device="meta", requires_grad=True)


def check(run: Callable[[], Any]) -> None:
    """Run, with a backward pass if there is a graph."""
    with Literals() as literals, Operations() as operations:
        output = run()
        outputs = list(output) if isinstance(output, (list, tuple)) else [output]
        graphs = [x.sum() for x in outputs if x.requires_grad]
        if graphs:
            torch.stack(graphs).sum().backward()
    assert all(x.is_meta for x in outputs)
    assert sum(operations.names.values()) > 0
    assert not operations.mixed, operations.mixed
    assert literals.count == 0


def made(registry: Any, name: str) -> Any:
    part = build(registry, {"type": name, **SMALL.get(name, {})}, "it")
    return part.to("meta") if isinstance(part, nn.Module) else part


@pytest.mark.parametrize("name", sorted(set(EMBEDDINGS) - FILES))
def test_embeddings(name: str) -> None:
    embedding = made(EMBEDDINGS, name)
    check(lambda: [*embedding(images(64)), embedding.logits(images(64)), embedding.vectors(images(64))])
    check(lambda: embedding.eval()(images(64)))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4)).to("meta")
    samples = made(SAMPLES, name)
    samples.attach(net)
    samples = samples.to("meta") if isinstance(samples, nn.Module) else samples
    samples.follow(net, 1)
    check(lambda: samples({"lr": images(16).detach(), "hr": images(64).detach(), "sr": images(64).detach()}))


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - FILES))
def test_criteria(name: str) -> None:
    criterion = made(CRITERIA, name)
    check(lambda: criterion(images(64), images(64).detach()))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks(name: str) -> None:
    network = made(NETWORKS, name)
    check(lambda: network(images(16)))


@pytest.mark.parametrize("loss", [SimCLRLoss(), FakeContrastLoss()], ids=lambda loss: type(loss).__name__)
def test_losses_of_vectors(loss: nn.Module) -> None:
    """The other losses are looked at with the methods that take them, in tests/methods/test_launches.py."""
    check(lambda: loss(*(torch.rand(4, 8, device="meta", requires_grad=True) for _ in range(2))))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.zeros(2, 3, 8, 8),
        lambda x: x * x.new_tensor([1.0, 2.0])[:, None, None, None],
        lambda x: x.index_select(0, torch.tensor([0, 1])),
        lambda x: x.detach().cpu(),
    ],
    ids=["default device", "numbers", "index", "read"],
)
def test_mistakes_would_be_found(mistake: Callable[[Tensor], Tensor]) -> None:
    with Literals() as literals, Operations() as operations:
        try:
            mistake(images(8))
        except RuntimeError:  # torch finds some on its own
            return
    assert operations.mixed or literals.count
