"""DASR's training: the queries and keys, who learns from what, the warm-up, and what is refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from host import Training, all_losses, methods_on
from loss_oracles import queue_loops
from small_models import CountingNet, SmoothEmbedding
from tolerances import assert_close
from torch import Tensor

from contrastive_sr import networks
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import DASR, PCL, DegradationContrast, Methods, TrueKernel, build_methods
from contrastive_sr.methods.weighting import TermWeight

METRICS = {"positive_similarity", "negative_similarity", "queue_fill"}


SMALL = {"DASR": {"loss_weight": 0.1, "queue_size": 8}, "DegradationContrast": {"queue_size": 8}, "TrueKernel": {}}


def network(seed: int = 1, **arguments: Any) -> networks.DASR:
    torch.manual_seed(seed)
    return networks.DASR(**{"channels": 4, "groups": 1, "blocks": 1, **arguments})


def images(seed: int = 0, count: int = 2, size: int = 8, split: bool = False) -> dict[str, Tensor]:
    """Random LR, HR and key images; with ``split`` without the key of the same image."""
    generator = torch.Generator().manual_seed(seed)
    batch = {"lr": torch.rand(count, 3, size, size, generator=generator)}
    batch["hr"] = torch.rand(count, 3, 4 * size, 4 * size, generator=generator)
    for key in ("lr_key_other",) if split else ("lr_key", "lr_key_other"):
        batch[key] = torch.rand(count, 3, size, size, generator=generator)
    return batch


def build(**arguments: Any) -> DASR:
    torch.manual_seed(0)
    return DASR(**{"loss_weight": 0.01, "queue_size": 16, **arguments})


def ready(net: networks.DASR | None = None, **arguments: Any) -> tuple[DASR, Methods, networks.DASR]:
    """A method, the engine and the network that it is attached to."""
    method, net = build(**arguments), network() if net is None else net
    return method, methods_on(net, method), net


def training(seed: int = 1, **arguments: Any) -> Training:
    _, methods, net = ready(network(seed), **arguments)
    return Training(net, methods)


def steps(run: Training, first: int, last: int) -> None:
    for index in range(first, last):
        run.step(images(index))


# Values


def test_term_is_the_equation_on_queries_momentum_keys_and_earlier_keys() -> None:
    """Three steps in which encoder and head move, with BatchNorm on batch statistics in both encoders."""
    _, methods, net = ready(network().double(), momentum=0.9, temperature=0.2)
    methods.double()
    assert net.encoder is not None
    shadow, held = copy.deepcopy(net.encoder), []
    for step in range(3):
        batch = {key: value.double() for key, value in images(step).items()}
        with torch.no_grad():
            query = net.encoder.head(net.encoder(batch["lr"]))
            for own, new in zip(shadow.parameters(), net.encoder.parameters(), strict=True):
                own.copy_(0.9 * own + 0.1 * new)
            keys = shadow.head(shadow(batch["lr_key"]))
        losses = methods.sr_losses(methods.run(net, batch))
        want = queue_loops(query, keys, torch.stack(held), 0.2).mean().item() if held else 0.0
        assert_close(losses.metrics["dasr_contrastive_raw"], want, dtype=torch.float64, scale=0.5)
        assert_close(losses.loss, 0.01 * want, dtype=torch.float64, scale=0.5)
        cosines = F.cosine_similarity(query, keys)
        assert_close(losses.metrics["dasr_positive_similarity"], cosines.mean(), dtype=torch.float64)
        apart = F.cosine_similarity(query[:, None], torch.stack(held)[None], dim=2).mean().item() if held else 0.0
        assert_close(losses.metrics["dasr_negative_similarity"], apart, dtype=torch.float64, scale=0.5)
        assert losses.metrics["dasr_queue_fill"].item() == pytest.approx((2 * step + 2) / 16)
        held += list(keys)
        with torch.no_grad():
            for parameter in net.encoder.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, dtype=torch.float64)


def test_the_query_is_the_r_of_the_one_forward_pass() -> None:
    _, methods, net = ready()
    calls: list[Tensor] = []
    assert net.encoder is not None
    net.encoder.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    batch = images()
    methods.sr_losses(methods.run(net, batch))
    assert len(calls) == 1
    assert calls[0] is batch["lr"]


def test_key_encoder_starts_as_the_network_s_whatever_was_loaded_after_attach() -> None:
    method, methods, net = ready(network(1))
    net.load_state_dict(network(7).state_dict())
    assert net.encoder is not None
    methods.sr_losses(methods.run(net, images()))
    for name, value in net.encoder.named_parameters():
        torch.testing.assert_close(method.loss.key_encoder.encoder.get_parameter(name), value)
    # and from then on it follows
    with torch.no_grad():
        net.encoder.head[2].bias += 1
    before = method.loss.key_encoder.encoder.head[2].bias.clone()
    methods.sr_losses(methods.run(net, images(1)))
    torch.testing.assert_close(method.loss.key_encoder.encoder.head[2].bias, before + 0.001)


def test_same_degradation_reads_the_crop_of_another_image() -> None:
    method, methods, net = ready(positives_from="same_degradation")
    assert method.wants == ("lr_key_other",)
    batch = images()
    del batch["lr_key"]
    methods.sr_losses(methods.run(net, batch))
    keys = F.normalize(method.loss.key_encoder(batch["lr_key_other"]))
    torch.testing.assert_close(method.loss.queue[:2], keys)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 11), (9, 8)])
def test_split_lr_contrasts_two_halves(height: int, width: int) -> None:
    method, methods, net = ready(split_lr=True)
    assert net.encoder is not None
    lr = torch.rand(2, 3, height, width)
    first, second = (
        (lr[..., : -(-width // 2)], lr[..., -(-width // 2) :]) if width >= height else (lr[..., :5, :], lr[..., 5:, :])
    )
    batch = methods.run(net, {"lr": lr, "hr": torch.rand(2, 3, 4 * height, 4 * width)})
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    losses = methods.sr_losses(batch, pixel)
    keys = F.normalize(method.loss.key_encoder(second))
    torch.testing.assert_close(method.loss.queue[:2], keys)
    want = F.cosine_similarity(net.encoder.head(net.encoder(first)), keys).mean()
    torch.testing.assert_close(losses.metrics["dasr_positive_similarity"], want.detach())


def test_split_lr_takes_the_host_s_crops_where_there_are_some() -> None:
    method, methods, net = ready(split_lr=True)
    batch = images()
    methods.sr_losses(methods.run(net, batch))
    torch.testing.assert_close(method.loss.queue[:2], F.normalize(method.loss.key_encoder(batch["lr_key"])))


# Gradients: who learns from what


@pytest.mark.parametrize("split", [False, True])
def test_contrast_trains_encoder_and_head_and_nothing_else(split: bool) -> None:
    _, methods, net = ready(split_lr=split)
    for step in range(2):  # with an empty queue the gradient is zero
        net.zero_grad()
        batch = methods.run(net, images(step, split=split))
        methods.sr_losses(batch).loss.backward()
    for name, parameter in net.named_parameters():
        if name.startswith("encoder"):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    assert not methods.trainable
    assert all(p.grad is None for p in methods.parameters())
    assert methods.auxiliary_losses(batch) == {}


def test_both_losses_add_up_in_the_encoder() -> None:
    gradients = []
    for parts in (["contrast"], ["pixel"], ["contrast", "pixel"]):
        _, methods, net = ready()
        methods.sr_losses(methods.run(net, images(5)))
        batch = methods.run(net, images())
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = methods.sr_losses(batch, pixel)
        sum({"contrast": losses.loss, "pixel": pixel}[part] for part in parts).backward()
        assert net.encoder is not None
        gradients.append(net.encoder.body[0].weight.grad)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2])


def test_weight_0_is_model_1() -> None:
    """The SR network learns as by the pixel loss alone."""
    ours, alone = training(loss_weight=0), network()
    optimizer = torch.optim.Adam(alone.parameters(), 1e-3)
    for step in range(3):
        batch = images(step)
        ours.step(batch)
        optimizer.zero_grad()
        F.l1_loss(alone(batch["lr"]), batch["hr"]).backward()
        optimizer.step()
    assert ours.logs[-1]["dasr_contrastive_raw"] > 0
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(ours.net.state_dict()[name], value, rtol=0, atol=0)


def test_training_tells_two_degradations_apart() -> None:
    """Noise images of two kinds, smooth and rough, in pairs of the same kind."""
    torch.manual_seed(0)
    _, methods, net = ready(positives_from="same_degradation", queue_size=32, loss_weight=1.0, warmup_steps=40)
    assert net.encoder is not None
    optimizer = torch.optim.Adam(net.encoder.parameters(), 1e-3)

    def kinds(count: int) -> Tensor:
        noise = torch.rand(count, 3, 12, 12)
        return torch.where((torch.arange(count) % 2 == 0).view(-1, 1, 1, 1), F.avg_pool2d(noise, 3, 1, 1), noise)

    for _ in range(30):
        batch = {"lr": kinds(8), "hr": torch.rand(8, 3, 48, 48), "lr_key_other": kinds(8)}
        losses = methods.sr_losses(methods.run(net, batch))
        optimizer.zero_grad()
        losses.loss.backward()
        optimizer.step()
    vectors = F.normalize(net.encoder.head(net.encoder(kinds(16)))).view(8, 2, -1)
    smooth, rough = vectors.unbind(1)
    assert (smooth @ smooth.T).mean() > (smooth @ rough.T).mean() + 0.5


# Warm-up


@pytest.mark.parametrize("split", [False, True])
def test_in_the_warm_up_the_encoder_alone_learns(split: bool) -> None:
    run = training(warmup_steps=3, split_lr=split)
    before = copy.deepcopy(run.net.state_dict())
    for step in range(3):
        run.step(images(step, split=split))
    assert [log["dasr_host_factor"] for log in run.logs] == [0, 0, 0]
    for name, parameter in run.net.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("encoder"), name
        # Adam starts afresh with what has not been trained yet
        assert (parameter in run.optimizers[0].state) == name.startswith("encoder"), name
    run.step(images(3, split=split))
    assert run.logs[-1]["dasr_host_factor"] == 1
    for name, parameter in run.net.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("split", [False, True])
def test_in_the_warm_up_the_encoder_alone_is_run(split: bool) -> None:
    _, methods, net = ready(warmup_steps=1, split_lr=split)
    calls: list[str] = []
    net.register_forward_hook(lambda module, inputs, output: calls.append("network"))
    assert net.encoder is not None
    net.encoder.register_forward_hook(lambda module, inputs, output: calls.append("encoder"))
    assert methods.warming_up
    batch = methods.run(net, images(split=split))
    losses = methods.sr_losses(batch)
    assert calls == ["encoder"] * (2 if split else 1)  # of the half, too
    assert "sr" not in batch
    assert losses.metrics["dasr_host_factor"] == 0
    assert not methods.warming_up
    batch = methods.run(net, images(split=split))
    assert calls[-1] == "network"
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    assert methods.sr_losses(batch, pixel).metrics["dasr_host_factor"] == 1
    assert pixel.requires_grad


@pytest.mark.parametrize("share", [{"loss_weight": 0.001}, {"loss_share": 0.05}])
def test_methods_warm_up_as_long_as_one_of_them(share: dict[str, float]) -> None:
    """The others rest meanwhile, and begin as if it was the first step."""
    first, second = build(), build(warmup_steps=1, name="second")
    net = network()
    methods = methods_on(net, first, second, PCL(every=1, embedding=SmoothEmbedding(), **share))
    assert methods.wants == ("lr_key",)
    logs = []
    for warming_up in (True, False):
        assert methods.warming_up == warming_up
        logs.append(all_losses(methods, methods.run(net, images()))[1].metrics)
    assert [log["second_host_factor"].item() for log in logs] == [0, 1]
    assert [log["dasr_queue_fill"].item() for log in logs] == [0, 2 / 16]
    assert [log["pcl_contrastive_raw"].item() > 0 for log in logs] == [False, True]
    assert set(logs[0]) == set(logs[1])
    assert net.encoder is not None
    for name, value in net.encoder.named_parameters():
        torch.testing.assert_close(first.loss.key_encoder.encoder.get_parameter(name), value)


# Logs and shares


def test_a_contrast_that_pulls_harder_than_the_pixel_loss_is_no_cause_for_a_warning() -> None:
    """It reaches the encoder and not the SR image."""
    run = training(loss_weight=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(run, 0, 2)
    assert run.logs[-1]["dasr_contrastive_share"] > 1


@pytest.mark.parametrize("share", [{"loss_share": 0.05, "loss_weight": None}, {}])
@pytest.mark.parametrize("split", [False, True])
def test_logs_are_of_the_same_names_at_every_step(share: dict[str, Any], split: bool) -> None:
    run = training(warmup_steps=2, share_interval=2, split_lr=split, **share)
    for step in range(4):
        run.step(images(step, split=split))
    names = {"contrastive", "contrastive_raw", "contrastive_weight", "contrastive_share", "host_factor", *METRICS}
    for log in run.logs:
        assert set(log) == {f"dasr_{name}" for name in names}
        assert not [name for name in log if "loss" in name]


@pytest.mark.parametrize("split", [False, True])
def test_the_share_is_that_at_r_or_at_the_last_convolution(split: bool) -> None:
    _, methods, net = ready(loss_share=0.05, loss_weight=None, split_lr=split)
    for step in range(2):  # at the first there is no gradient to measure
        batch = methods.run(net, images(step, split=split))
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = methods.sr_losses(batch, pixel)
    assert net.encoder is not None
    point = net.encoder.body[15].weight if split else batch["features/encoder.pool"]
    norms = [torch.autograd.grad(x, point, retain_graph=True)[0].norm() for x in (losses.loss, pixel)]
    assert_close(norms[0] / norms[1], 0.05, "loose", dtype=torch.float32)
    assert_close(losses.metrics["dasr_contrastive_share"], 0.05, dtype=torch.float32)


def test_mixed_precision_is_finite_and_near_float32() -> None:
    values = []
    for enabled in (False, True):
        _, methods, net = ready(temperature=0.5)
        for step in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                batch = methods.run(net, images(step))
                losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        losses.loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
        values.append(losses.metrics["dasr_contrastive_raw"].item())
    assert values[1] == pytest.approx(values[0], rel=0.05)


# State


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_continues_bit_for_bit(at: int, tmp_path: Path) -> None:
    """Stopped in the warm-up of 2 steps, or after it."""
    whole, first, second = (training(seed, warmup_steps=2, loss_share=0.05, loss_weight=None) for seed in (1, 1, 99))
    steps(whole, 0, 5)
    steps(first, 0, at)
    torch.save([part.state_dict() for part in first.parts], tmp_path / "state.pth")
    for part, state in zip(second.parts, torch.load(tmp_path / "state.pth"), strict=True):
        part.load_state_dict(state)
    steps(second, at, 5)
    assert first.logs + second.logs == whole.logs
    for resumed, straight in ((second.net, whole.net), (second.methods, whole.methods)):
        for name, value in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
    state = whole.methods.state_dict()
    assert state["dasr.loss.fill"] == 10
    assert state["dasr.loss.pointer"] == 10
    assert {"dasr.loss.queue", "step.count", "dasr.loss.key_encoder.encoder.body.1.running_mean"} <= set(state)


def test_a_state_without_its_queue_is_refused() -> None:
    _, methods, _ = ready()
    state = methods.state_dict()
    del state["dasr.loss.queue"]
    with pytest.raises(RuntimeError, match=r"Missing key.*dasr\.loss\.queue"):
        methods.load_state_dict(state)


def test_the_network_is_no_part_of_the_method() -> None:
    method, net = build(), network()
    names, keys = set(method.state_dict()), set(net.state_dict())
    methods = methods_on(net, method)
    methods.sr_losses(methods.run(net, images()))
    assert set(method.state_dict()) == names
    assert set(net.state_dict()) == keys
    assert len(list(method.parameters())) == len(list(DegradationEncoder().parameters()))


# Errors


def test_networks_without_the_encoder_are_refused() -> None:
    for net in (CountingNet(), network(variant="oracle"), lambda lr: lr):
        with pytest.raises(ConfigError, match="dasr: expected an SR network with a degradation encoder"):
            methods_on(net, build())
    with pytest.raises(
        ConfigError, match=r"got CountingNet\. On another network take the method `DegradationContrast`"
    ):
        methods_on(CountingNet(), build())


def test_batches_without_keys_are_refused() -> None:
    batch = images()
    del batch["lr_key"]
    _, methods, net = ready()
    with pytest.raises(DataError, match=r"dasr: expected 'lr_key' in the batch.*Or set split_lr: true"):
        methods.run(net, batch)
    batch = images()
    del batch["lr_key_other"]
    _, methods, net = ready(positives_from="same_degradation")
    with pytest.raises(
        DataError, match=r"dasr: expected 'lr_key_other' in the batch.*\(`degradation` in its data settings\)\.$"
    ):
        methods.run(net, batch)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (torch.rand(1, 3, 8, 8), r"batch\['lr_key'\]: expected a non-empty tensor \(2, 3, h, w\)"),
        (torch.rand(2, 1, 8, 8), r"all have 3 channels \(RGB\), or all 1, got .*'lr_key' with 1"),
        (255 * torch.rand(2, 3, 8, 8), r"expected batch\['lr_key'\] in \[0, 1\], got values from"),
    ],
)
def test_impossible_keys_are_refused(key: Tensor, message: str) -> None:
    _, methods, net = ready()
    with pytest.raises(DataError, match=message):
        methods.run(net, {**images(), "lr_key": key})


def test_a_batch_bigger_than_the_queue_is_refused() -> None:
    _, methods, net = ready(queue_size=3)
    methods.sr_losses(methods.run(net, images(count=3)))
    with pytest.raises(DataError, match=r"dasr: expected a batch that the queue of 3 holds, got 4 images on 1 process"):
        methods_on(net, build(queue_size=3)).run(net, images(count=4))


def test_an_image_too_small_to_be_cut_is_refused() -> None:
    batch = {"lr": torch.rand(2, 3, 1, 1), "hr": torch.rand(2, 3, 4, 4)}
    _, methods, net = ready(split_lr=True)
    with pytest.raises(DataError, match="expected LR images that can be cut in two"):
        methods.sr_losses(methods.run(net, batch))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_share": 0.05}, "expected one of `loss_weight` .* got both"),
        ({"positives_from": "same"}, "dasr: positives_from: expected one of same_image, same_degradation, got 'same'"),
        ({"positives_from": "same_degradation", "split_lr": True}, "split_lr gives positives_from='same_image'"),
        ({"split_lr": "no"}, "dasr: split_lr: expected true or false"),
        ({"warmup_steps": -1}, "dasr: warmup_steps: expected a whole number of at least 0"),
        ({"warmup_steps": 10, "loss_weight": 0}, "with loss_weight 0 nothing trains in the warm-up"),
        ({"queue_size": 0}, r"\(queue_size\): expected a whole number of at least 1"),
        ({"momentum": 2}, r"\(momentum\): expected a number from 0 to 1"),
        ({"temperature": 0}, r"\(temperature\): expected a number above 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


def test_with_neither_weight_nor_share_the_weight_is_the_paper_s() -> None:
    weight = DASR(queue_size=16).weights["contrastive"]
    assert isinstance(weight, TermWeight)
    assert weight.fixed == 1 / 255


def test_it_is_built_from_a_config() -> None:
    methods = build_methods([{"type": "DASR", "loss_weight": 1 / 255, "queue_size": 8, "warmup_steps": 5}])
    assert isinstance(methods["dasr"], DASR)
    assert methods["dasr"].warmup_steps == 5
    with pytest.raises(ConfigError, match="Did you mean 'warmup_steps'"):
        build_methods([{"type": "DASR", "loss_weight": 1 / 255, "warm_up_steps": 5}])


# On another network


def test_auxiliary_encoder_learns_and_the_network_does_not() -> None:
    torch.manual_seed(0)
    net = CountingNet()
    methods = methods_on(net, DegradationContrast(queue_size=16))
    assert methods.wants == ("lr_key",)
    assert methods.trainable
    names = {f"degradation_{name}" for name in METRICS}
    for step in range(3):
        batch = methods.run(net, images(step))
        losses = methods(batch)
        assert list(losses) == ["degradation_contrast"]
        methods.zero_grad()
        losses["degradation_contrast"].backward()
        result = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert set(result.metrics) == names  # there is no term
        assert result.loss == 0
        assert not methods.warming_up
    assert result.metrics["degradation_queue_fill"].item() == pytest.approx(6 / 16)
    assert result.metrics["degradation_positive_similarity"].item() != 0
    assert all(p.grad is None for p in net.parameters())
    for name, parameter in methods.named_parameters():
        if name.startswith("degradation.query_encoder."):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_logs_before_the_first_auxiliary_step_have_the_same_names() -> None:
    net = CountingNet()
    methods = methods_on(net, DegradationContrast(queue_size=16))
    logs = methods.sr_losses(methods.run(net, images())).metrics
    assert set(logs) == {f"degradation_{name}" for name in METRICS}


def test_auxiliary_encoder_can_be_read_from_its_file(tmp_path: Path) -> None:
    method = DegradationContrast(queue_size=16, split_lr=True)
    (part,) = method.trained_parts().values()
    assert list(method.trained_parts()) == ["degradation_encoder"]
    torch.save({"params": part.state_dict()}, tmp_path / "encoder.pth")
    again = DegradationContrast(queue_size=16, weights=tmp_path / "encoder.pth")
    for name, value in part.state_dict().items():
        assert torch.equal(again.pair.encoder.state_dict()[name], value)
        assert torch.equal(again.loss.key_encoder.encoder.state_dict()[name], value)


def test_auxiliary_encoder_resumes_bit_for_bit() -> None:
    def new(seed: int) -> Training:
        torch.manual_seed(seed)
        method, net = DegradationContrast(queue_size=5, momentum=0.9), CountingNet()
        return Training(net, methods_on(net, method))

    whole, first, second = new(0), new(0), new(9)
    steps(whole, 0, 4)
    steps(first, 0, 2)
    for part, state in zip(second.parts, [copy.deepcopy(part.state_dict()) for part in first.parts], strict=True):
        part.load_state_dict(state)
    steps(second, 2, 4)
    assert first.logs + second.logs == whole.logs
    assert all(torch.equal(value, second.states()[name]) for name, value in whole.states().items())


# With the true kernel


def test_true_kernel_reaches_the_network() -> None:
    net = network(variant="oracle")
    methods = methods_on(net, TrueKernel())
    assert methods.wants == ("degradation/kernel",)
    assert not methods.trainable
    kernel = torch.rand(2, 21, 21)
    batch = methods.run(net, {**images(), "degradation/kernel": kernel})
    torch.testing.assert_close(batch["sr"], net(batch["lr"], kernel=kernel))
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert losses.metrics == {}
    assert losses.loss == 0


def test_true_kernel_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"with variant 'oracle' as SR network, got DASR of variant 'full'\."):
        methods_on(network(), TrueKernel())
    with pytest.raises(ConfigError, match=r"with variant 'oracle' as SR network, got CountingNet\."):
        methods_on(CountingNet(), TrueKernel())
    net = network(variant="oracle")
    methods = methods_on(net, TrueKernel())
    with pytest.raises(DataError, match="true_kernel: expected 'degradation/kernel' in the batch"):
        methods.run(net, images())


@pytest.mark.parametrize("split", [False, True])
def test_autocast_around_the_network_alone(split: bool) -> None:
    """As in Accelerate, where R is in half precision and the methods are computed outside."""
    _, methods, net = ready(split_lr=split)
    forward = net.forward

    def half(*arguments: Any, **named: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*arguments, **named)

    net.forward = half  # type: ignore[method-assign]
    for seed in range(2):
        contrast = methods.sr_losses(methods.run(net, images(seed, split=split)))
    assert contrast.loss > 0
    contrast.loss.backward()
    assert net.encoder is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.encoder.parameters())


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("method", ["DASR", "DegradationContrast"])
def test_images_in_half_precision(method: str, split: bool) -> None:
    (own,) = build_methods([{"type": method, **SMALL[method], "split_lr": split}])
    net = network() if method == "DASR" else CountingNet()
    methods = methods_on(net.bfloat16(), own)
    for seed in range(2):
        batch = methods.run(net, {key: value.bfloat16() for key, value in images(seed, size=16, split=split).items()})
        losses = [*methods.auxiliary_losses(batch).values(), methods.sr_losses(batch).loss]
    assert sum(losses) > 0
    assert all(loss.isfinite() for loss in losses)
