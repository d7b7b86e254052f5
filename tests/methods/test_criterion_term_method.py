"""CriterionTerm: the criterion's mean as a term, by name, with a discriminator that learns where there is one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached
from host import Training
from same import assert_same
from small_models import CountingNet, images_batch
from tolerances import assert_close
from torch import nn

from contrastive_sr.criteria import MSSSIM
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import CriterionTerm, Methods, build_methods

SMALL = {"CriterionTerm": {"criterion": "Pixel", "loss_weight": 0.1}}  # what tests/test_fuzz_config.py builds


def run(**settings: Any) -> Training:
    torch.manual_seed(0)
    net = CountingNet()
    return Training(net, attached(net, CriterionTerm(**settings)))


@pytest.mark.parametrize(
    ("criterion", "label", "loss"),
    [
        ("MSSSIM", "ms_ssim", lambda sr, hr: MSSSIM()(sr, hr).mean()),
        ({"type": "Pixel", "norm": "l2", "name": "square"}, "square", F.mse_loss),
        (nn.SmoothL1Loss(), "smoothl1", F.smooth_l1_loss),
    ],
)
def test_the_term_is_the_criterion_s_mean_at_its_share(criterion: Any, label: str, loss: Any) -> None:
    training = run(criterion=criterion, loss_share=0.25)
    methods, net = training.methods, training.net
    batch = methods.run(net, images_batch())
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    losses = methods.sr_losses(batch, pixel)
    want = loss(batch["sr"], batch["hr"])
    assert_close(losses.metrics[f"criterion_{label}_raw"], want.detach(), "close")
    gradients = [torch.autograd.grad(x, batch["sr"], retain_graph=True)[0].norm() for x in (losses.loss, pixel)]
    assert_close(gradients[0] / gradients[1], 0.25, "loose", dtype=torch.float32)
    losses.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert not methods.trainable
    assert methods.auxiliary_losses(batch) == {}


def test_an_adversarial_criterion_trains_its_discriminator_and_resumes() -> None:
    settings = {"criterion": {"type": "Adversarial"}, "loss_share": 0.1, "name": "gan"}
    whole, resumed = run(**settings), run(**settings)
    for step in range(2):
        whole.step(images_batch(seed=step))
    for part, other in zip(resumed.parts, whole.parts, strict=True):
        part.load_state_dict(copy.deepcopy(other.state_dict()))
    before = whole.states()
    for training in (whole, resumed):
        training.step(images_batch(seed=2))
    assert_same(whole.states(), resumed.states())
    assert list(whole.methods.trained_parts()) == ["gan_adversarial_discriminator"]
    assert "gan_adversarial_discriminator" in whole.logs[0]
    name = "methods.gan.criteria.adversarial.discriminator.head.weight"
    assert not torch.equal(before[name], whole.states()[name])


def test_what_is_shown() -> None:
    methods = Methods([CriterionTerm(criterion="SSIM", loss_weight=0.1)])
    methods.attach(net := CountingNet())
    methods.eval()
    batch = methods.run(net, images_batch())
    with torch.no_grad():
        (comparison,) = methods.compared(batch)
    assert [part.label for part in comparison.parts] == ["SR", "HR", "ssim"]
    assert comparison.parts[2].heat.shape == (32, 32)


def test_patches_that_are_too_small_are_refused() -> None:
    methods = attached(net := CountingNet(), CriterionTerm(criterion={"type": "MSSSIM", "scales": 4}, loss_share=0.1))
    with pytest.raises(
        DataError, match="MSSSIM: expected HR patches of at least 88 x 88 pixels for 4 scales, got 32 x"
    ):
        methods.run(net, images_batch())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "CriterionTerm needs the key 'criterion'"),
        ({"criterion": "SIM"}, r"criterion: criterion: does not know the type 'SIM'\. Did you mean 'SSIM'"),
        ({"criterion": {"type": "Pixel", "name": "my loss"}}, "expected a word without 'loss'"),
        ({"criterion": "Pixel", "loss_weight": 1.0, "loss_share": 0.1}, "criterion: .*got both"),
        (
            {"criterion": {"type": "MSSSIM", "scales": 6}},
            r"MSSSIM\(scales\): expected a whole number from 1 to 5, got 6",
        ),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([{"type": "CriterionTerm", **config}])
