"""What the authors of DASR and Cria-CL released: equal images, wherever it is loaded, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import released
import torch
from torch import nn

from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.networks import DASR, CriteriaBranches
from contrastive_sr.samples import TeacherOutput

SMALL = {"channels": 16, "groups": 2, "blocks": 2}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4}


def use_basicsr() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()


# DASR


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_dasr_gives_the_authors_images(scale: int) -> None:
    theirs, ours = released.released_dasr(scale), DASR(scale=scale)
    ours.load_state_dict(theirs.state_dict())
    lr = torch.rand(2, 3, 12, 10)
    with torch.no_grad():
        want, got = theirs(lr * 255) / 255, ours.eval()(lr)
    assert want.std() > 0.01
    torch.testing.assert_close(got, want, rtol=0, atol=5e-7)


def test_dasr_learns_as_the_authors_does() -> None:
    """In training mode BatchNorm takes the statistics of the batch, with which the biases fall away."""
    theirs, ours = released.released_dasr(**SMALL).double().train(), DASR(**SMALL).double().train()
    ours.load_state_dict(theirs.state_dict())
    lr = torch.rand(3, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(ours(lr), theirs(lr * 255) / 255, rtol=0, atol=1e-6)  # the mean colour is float32
    gradients = torch.autograd.grad(ours(lr).square().sum(), [ours.first.weight, ours.encoder.body[3].weight])
    wanted = [theirs.G.head[0].weight, theirs.E.encoder_q.E[3].weight]
    for got, want in zip(gradients, torch.autograd.grad((theirs(lr * 255) / 255).square().sum(), wanted), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_a_part_of_a_larger_network() -> None:
    """As MMagic's models hold their generator."""
    theirs, ours = released.released_dasr(**SMALL).state_dict(), DASR(**SMALL)
    whole = nn.ModuleDict({"generator": ours, "other": nn.Linear(2, 2)})
    state = {f"generator.{name}": value for name, value in theirs.items()}
    whole.load_state_dict({**state, **{f"other.{name}": x for name, x in whole["other"].state_dict().items()}})
    direct = DASR(**SMALL)
    direct.load_state_dict(theirs)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in direct.state_dict().items())
    assert "E.queue" in theirs  # what was loaded is left as it was


def test_the_encoder_alone(tmp_path: Path) -> None:
    theirs = released.released_dasr(2, **SMALL)
    torch.save(theirs.state_dict(), tmp_path / "model_600.pt")
    encoder, lr = DegradationEncoder(tmp_path / "model_600.pt").eval(), torch.rand(2, 3, 20, 14)
    with torch.no_grad():
        want = theirs.representation(lr * 255)
        torch.testing.assert_close(encoder(lr), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(encoder.head(want), theirs.E.encoder_q.mlp(want))


def test_a_teacher(tmp_path: Path) -> None:
    theirs = released.released_dasr(**SMALL)
    torch.save(theirs.state_dict(), tmp_path / "model_600.pt")
    lr = torch.rand(1, 3, 8, 8)
    teacher = TeacherOutput(DASR(**SMALL), weights=tmp_path / "model_600.pt")
    with torch.no_grad():
        want = theirs(lr * 255) / 255
    torch.testing.assert_close(teacher.network.eval()(lr), want, rtol=0, atol=1e-6)


def test_a_dasr_that_does_not_fit() -> None:
    state = released.released_dasr(2, **SMALL).state_dict()
    with pytest.raises(
        ConfigError, match=r"DASR\(scale\): expected a checkpoint for x4, got one for x2\. Take scale 2"
    ):
        DASR(**SMALL).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"layers of DASR as its authors release it, got G\.more\.weight"):
        DASR(scale=2, **SMALL).load_state_dict({**state, "G.more.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        DASR(scale=2, **{**SMALL, "blocks": 1}).load_state_dict(state)


# RealSR-CCL


@pytest.mark.basicsr
def test_the_released_network_gives_the_authors_images() -> None:
    use_basicsr()
    torch.manual_seed(0)
    theirs = released.ReleasedCria()
    ours = CriteriaBranches({**RRDB, "num_feat": 64, "num_block": 23, "num_grow_ch": 32}, variant="released")
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(17.29e6, rel=1e-3)
    ours.load_state_dict(theirs.state_dict())
    lr = torch.rand(1, 3, 8, 9)
    with torch.no_grad():
        want, got = theirs(lr), ours(lr)
    assert want.std() > 0.01
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_the_released_network_is_the_same_in_both_hosts() -> None:
    import contrastive_sr.hosts.mmagic as mmagic

    torch.manual_seed(0)
    theirs, lr = released.ReleasedCria(8, 2, 4), torch.rand(1, 3, 8, 9)
    use_basicsr()
    first = CriteriaBranches(RRDB, variant="released")
    mmagic.registry.use_names()
    trunk = {"type": "RRDBNet", "in_channels": 3, "out_channels": 3, "mid_channels": 8, "num_blocks": 2}
    second = CriteriaBranches({**trunk, "growth_channels": 4}, variant="released")
    for net in (first, second):
        net.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(net(lr), theirs(lr), rtol=0, atol=1e-6)


@pytest.mark.basicsr
def test_every_part_of_the_released_network_learns() -> None:
    use_basicsr()
    net = CriteriaBranches(RRDB, variant="released")
    net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.basicsr
def test_the_trunk_s_weights_come_from_a_stock_checkpoint(tmp_path: Path) -> None:
    use_basicsr()
    stock = CriteriaBranches(RRDB, variant="released").trunk
    torch.save({"params": stock.state_dict()}, tmp_path / "net_g.pth")
    net = CriteriaBranches(RRDB, variant="released", trunk_weights=tmp_path / "net_g.pth")
    assert all(torch.equal(value, net.trunk.state_dict()[name]) for name, value in stock.state_dict().items())


@pytest.mark.basicsr
def test_what_does_not_fit_the_released_network() -> None:
    use_basicsr()
    state = released.ReleasedCria(8, 2, 4).state_dict()
    with pytest.raises(
        ConfigError, match=r"network of the paper's text, got that of RealSR-CCL.*Take variant 'released'"
    ):
        CriteriaBranches(RRDB).load_state_dict(state)
    with pytest.raises(
        DataError, match=r"image of the trunk: expected a non-empty tensor \(1, 3, 16, 16\), got .*32, 32"
    ):
        CriteriaBranches(RRDB, variant="released", scale=2)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"CriteriaBranches\(variant\): expected .*'?paper.*released.*got 'text'"):
        CriteriaBranches(RRDB, variant="text")
    with pytest.raises(ConfigError, match=r"expected the layers of RealSR-CCL, got more\.weight"):
        CriteriaBranches(RRDB, variant="released").load_state_dict({**state, "more.weight": torch.zeros(1)})
