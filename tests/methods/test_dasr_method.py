"""DASR's training: the queries and keys, who learns from what, the warm-up, and what is refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loss_oracles import queue_loops
from small_models import CountingNet, SmoothEmbedding
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import DASR, PCL, DegradationContrast, MethodList, TrueKernel, build_methods

FIGURES = {"positive_similarity", "negative_similarity", "queue_fill"}


SMALL = {"DASR": {"loss_weight": 0.1, "queue_size": 8}, "DegradationContrast": {"queue_size": 8}, "TrueKernel": {}}


def network(seed: int = 1, **arguments: Any) -> networks.DASR:
    torch.manual_seed(seed)
    return networks.DASR(**{"channels": 4, "groups": 1, "blocks": 1, **arguments})


def images(seed: int = 0, count: int = 2, size: int = 8, **more: str) -> dict[str, Tensor]:
    """Random LR, HR and key images."""
    generator = torch.Generator().manual_seed(seed)
    batch = {"lr": torch.rand(count, 3, size, size, generator=generator)}
    batch["hr"] = torch.rand(count, 3, 4 * size, 4 * size, generator=generator)
    for key in ("lr_key", "lr_key_other"):
        batch[key] = torch.rand(count, 3, size, size, generator=generator)
    return batch


def build(**arguments: Any) -> DASR:
    torch.manual_seed(0)
    return DASR(**{"loss_weight": 0.01, "queue_size": 16, **arguments})


class Training:
    """What a host does, in three lines."""

    def __init__(self, seed: int = 1, method: Any = None, lr: float = 1e-3, **arguments: Any) -> None:
        self.net = network(seed)
        self.methods = MethodList([build(**arguments) if method is None else method])
        self.methods.attach(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr)
        self.logs: list[dict[str, float]] = []

    def step(self, batch: dict[str, Tensor]) -> None:
        batch = self.methods.run(self.net, batch)
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = self.methods.sr_losses(batch, pixel)
        self.optimizer.zero_grad()
        (losses.total + losses.host(pixel)).backward()
        self.optimizer.step()
        self.logs.append({name: value.item() for name, value in losses.logs.items()})

    def steps(self, first: int, last: int) -> None:
        for index in range(first, last):
            self.step(images(index))


# Values


def test_term_is_the_equation_on_queries_momentum_keys_and_earlier_keys() -> None:
    """Three steps in which encoder and head move, with BatchNorm on batch statistics in both encoders."""
    method, net = build(momentum=0.9, temperature=0.2).double(), network().double()
    assert net.encoder is not None
    shadow, held = copy.deepcopy(net.encoder), []
    for step in range(3):
        batch = {key: value.double() for key, value in images(step).items()}
        with torch.no_grad():
            query = net.encoder.head(net.encoder(batch["lr"]))
            for own, new in zip(shadow.parameters(), net.encoder.parameters(), strict=True):
                own.copy_(0.9 * own + 0.1 * new)
            keys = shadow.head(shadow(batch["lr_key"]))
        losses = method.sr_losses(method.run(net, batch))
        want = queue_loops(query, keys, torch.stack(held), 0.2).mean().item() if held else 0.0
        assert losses.logs["dasr_contrastive_raw"].item() == pytest.approx(want, rel=1e-8, abs=1e-12)
        assert losses.total.item() == pytest.approx(0.01 * want, rel=1e-8, abs=1e-12)
        cosines = F.cosine_similarity(query, keys)
        assert losses.logs["dasr_positive_similarity"].item() == pytest.approx(cosines.mean().item(), rel=1e-8)
        apart = F.cosine_similarity(query[:, None], torch.stack(held)[None], dim=2).mean().item() if held else 0.0
        assert losses.logs["dasr_negative_similarity"].item() == pytest.approx(apart, rel=1e-8, abs=1e-12)
        assert losses.logs["dasr_queue_fill"].item() == pytest.approx((2 * step + 2) / 16)
        held += list(keys)
        with torch.no_grad():
            for parameter in net.encoder.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, dtype=torch.float64)


def test_the_query_is_the_r_of_the_one_forward_pass() -> None:
    method, net = build(), network()
    calls: list[Tensor] = []
    assert net.encoder is not None
    net.encoder.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    batch = images()
    method.sr_losses(method.run(net, batch))
    assert len(calls) == 1
    assert calls[0] is batch["lr"]


def test_key_encoder_starts_as_the_network_s_whatever_was_loaded_after_attach() -> None:
    method, net = build(), network(1)
    method.attach(net)
    net.load_state_dict(network(7).state_dict())
    assert net.encoder is not None
    method.sr_losses(method.run(net, images()))
    for name, value in net.encoder.named_parameters():
        torch.testing.assert_close(method.loss.key_encoder.encoder.get_parameter(name), value)
    # and from then on it follows
    with torch.no_grad():
        net.encoder.head.out.bias += 1
    before = method.loss.key_encoder.encoder.head.out.bias.clone()
    method.sr_losses(method.run(net, images(1)))
    torch.testing.assert_close(method.loss.key_encoder.encoder.head.out.bias, before + 0.001)


def test_same_degradation_reads_the_crop_of_another_image() -> None:
    method, net = build(positives="same_degradation"), network()
    assert method.wants == ("lr_key_other",)
    batch = images()
    del batch["lr_key"]
    method.sr_losses(method.run(net, batch))
    keys = F.normalize(method.loss.key_encoder(batch["lr_key_other"]))
    torch.testing.assert_close(method.loss.queue[:2], keys)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 11), (9, 8)])
def test_split_lr_contrasts_two_halves(height: int, width: int) -> None:
    method, net = build(split_lr=True), network()
    assert net.encoder is not None
    lr = torch.rand(2, 3, height, width)
    first, second = (
        (lr[..., : -(-width // 2)], lr[..., -(-width // 2) :]) if width >= height else (lr[..., :5, :], lr[..., 5:, :])
    )
    batch = method.run(net, {"lr": lr, "hr": torch.rand(2, 3, 4 * height, 4 * width)})
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    losses = method.sr_losses(batch, pixel)
    keys = F.normalize(method.loss.key_encoder(second))
    torch.testing.assert_close(method.loss.queue[:2], keys)
    want = F.cosine_similarity(net.encoder.head(net.encoder(first)), keys).mean()
    torch.testing.assert_close(losses.logs["dasr_positive_similarity"], want.detach())


def test_split_lr_takes_the_host_s_crops_where_there_are_some() -> None:
    method, net = build(split_lr=True), network()
    batch = images()
    method.sr_losses(method.run(net, batch))
    torch.testing.assert_close(method.loss.queue[:2], F.normalize(method.loss.key_encoder(batch["lr_key"])))


# Gradients: who learns from what


@pytest.mark.parametrize("split", [False, True])
def test_contrast_trains_encoder_and_head_and_nothing_else(split: bool) -> None:
    method, net = build(split_lr=split), network()
    for step in range(2):  # with an empty queue the gradient is zero
        batch = images(step)
        if split:
            del batch["lr_key"]
        net.zero_grad()
        method.sr_losses(method.run(net, batch)).total.backward()
    for name, parameter in net.named_parameters():
        if name.startswith("encoder"):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    assert not method.trainable
    assert all(p.grad is None for p in method.parameters())
    assert method.auxiliary_losses(batch) == {}


def test_both_losses_add_up_in_the_encoder() -> None:
    gradients = []
    for parts in (["contrast"], ["pixel"], ["contrast", "pixel"]):
        method, net = build(), network()
        method.sr_losses(method.run(net, images(5)))
        batch = method.run(net, images())
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = method.sr_losses(batch, pixel)
        sum({"contrast": losses.total, "pixel": losses.host(pixel)}[part] for part in parts).backward()
        assert net.encoder is not None
        gradients.append(net.encoder.body[0].weight.grad)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2])


def test_weight_0_is_model_1() -> None:
    """The SR network learns as by the pixel loss alone."""
    training, alone = Training(loss_weight=0), network()
    optimizer = torch.optim.Adam(alone.parameters(), 1e-3)
    for step in range(3):
        batch = images(step)
        training.step(batch)
        optimizer.zero_grad()
        F.l1_loss(alone(batch["lr"]), batch["hr"]).backward()
        optimizer.step()
    assert training.logs[-1]["dasr_contrastive_raw"] > 0
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(training.net.state_dict()[name], value, rtol=0, atol=0)


def test_training_tells_two_degradations_apart() -> None:
    """Noise images of two kinds, smooth and rough, in pairs of the same kind."""
    torch.manual_seed(0)
    method, net = build(positives="same_degradation", queue_size=32, loss_weight=1.0, warmup_steps=40), network()
    assert net.encoder is not None
    optimizer = torch.optim.Adam(net.encoder.parameters(), 1e-3)

    def kinds(count: int) -> Tensor:
        noise = torch.rand(count, 3, 12, 12)
        return torch.where((torch.arange(count) % 2 == 0).view(-1, 1, 1, 1), F.avg_pool2d(noise, 3, 1, 1), noise)

    for _ in range(30):
        batch = {"lr": kinds(8), "hr": torch.rand(8, 3, 48, 48), "lr_key_other": kinds(8)}
        losses = method.sr_losses(method.run(net, batch))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    vectors = F.normalize(net.encoder.head(net.encoder(kinds(16)))).view(8, 2, -1)
    smooth, rough = vectors.unbind(1)
    assert (smooth @ smooth.T).mean() > (smooth @ rough.T).mean() + 0.5


# Warm-up


def test_in_the_warm_up_the_encoder_alone_learns() -> None:
    training = Training(warmup_steps=3)
    before = copy.deepcopy(training.net.state_dict())
    training.steps(0, 3)
    assert [log["dasr_host_factor"] for log in training.logs] == [0, 0, 0]
    for name, parameter in training.net.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("encoder"), name
        # Adam starts afresh with what has not been trained yet
        assert (parameter in training.optimizer.state) == name.startswith("encoder"), name
    training.steps(3, 4)
    assert training.logs[-1]["dasr_host_factor"] == 1
    for name, parameter in training.net.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_host_s_losses_keep_their_value_outside_of_the_warm_up() -> None:
    method, net = build(warmup_steps=1), network()
    for factor in (0, 1):
        batch = method.run(net, images())
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = method.sr_losses(batch, pixel)
        assert losses.host_factor == factor
        assert losses.host(pixel).item() == factor * pixel.item()
        assert losses.host(pixel).requires_grad == (factor == 1)


def test_a_list_of_methods_warms_up_as_long_as_one_of_them() -> None:
    first, second = build(), build(warmup_steps=1, name="second")
    methods, net = MethodList([first, second, PCL(loss_weight=0.001, embedding=SmoothEmbedding())]), network()
    assert methods.wants == ("lr_key",)
    factors = [methods.sr_losses(methods.run(net, images())).host_factor for _ in range(2)]
    assert factors == [0, 1]


# Logs and shares


def test_a_contrast_that_pulls_harder_than_the_pixel_loss_is_no_cause_for_a_warning() -> None:
    """It reaches the encoder and not the SR image."""
    training = Training(loss_weight=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.steps(0, 2)
    assert training.logs[-1]["dasr_contrastive_share"] > 1


@pytest.mark.parametrize("share", [{"loss_share": 0.05, "loss_weight": None}, {}])
@pytest.mark.parametrize("split", [False, True])
def test_logs_are_of_the_same_names_at_every_step(share: dict[str, Any], split: bool) -> None:
    training = Training(warmup_steps=2, share_interval=2, split_lr=split, **share)
    for step in range(4):
        batch = images(step)
        if split:
            del batch["lr_key"]
        training.step(batch)
    names = {"contrastive_raw", "contrastive_weight", "contrastive_share", "host_factor", *FIGURES}
    for log in training.logs:
        assert set(log) == {f"dasr_{name}" for name in names}
        assert not [name for name in log if "loss" in name]


@pytest.mark.parametrize("split", [False, True])
def test_the_share_is_that_at_r_or_at_the_last_convolution(split: bool) -> None:
    method, net = build(loss_share=0.05, loss_weight=None, split_lr=split), network()
    for step in range(2):  # at the first there is no gradient to measure
        batch = images(step)
        if split:
            del batch["lr_key"]
        batch = method.run(net, batch)
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        losses = method.sr_losses(batch, pixel)
    assert net.encoder is not None
    point = net.encoder.body[15].weight if split else batch["features/encoder.pool"]
    norms = [torch.autograd.grad(x, point, retain_graph=True)[0].norm() for x in (losses.total, pixel)]
    assert (norms[0] / norms[1]).item() == pytest.approx(0.05, rel=1e-3)
    assert losses.logs["dasr_contrastive_share"].item() == pytest.approx(0.05, rel=1e-5)


def test_mixed_precision_is_finite_and_near_float32() -> None:
    values = []
    for enabled in (False, True):
        method, net = build(temperature=0.5), network()
        for step in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                batch = method.run(net, images(step))
                losses = method.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        losses.total.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
        values.append(losses.logs["dasr_contrastive_raw"].item())
    assert values[1] == pytest.approx(values[0], rel=0.05)


# State


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_continues_bit_for_bit(at: int, tmp_path: Path) -> None:
    """Stopped in the warm-up of 2 steps, or after it."""
    whole, first = (
        Training(warmup_steps=2, loss_share=0.05, loss_weight=None),
        Training(warmup_steps=2, loss_share=0.05, loss_weight=None),
    )
    whole.steps(0, 5)
    first.steps(0, at)
    parts = (first.net, first.methods, first.optimizer)
    torch.save([part.state_dict() for part in parts], tmp_path / "state.pth")
    second = Training(99, warmup_steps=2, loss_share=0.05, loss_weight=None)
    for part, state in zip(
        (second.net, second.methods, second.optimizer), torch.load(tmp_path / "state.pth"), strict=True
    ):
        part.load_state_dict(state)
    second.steps(at, 5)
    assert first.logs + second.logs == whole.logs
    for resumed, straight in ((second.net, whole.net), (second.methods, whole.methods)):
        for name, value in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
    state = whole.methods.state_dict()
    assert state["dasr.loss.fill"] == 10
    assert state["dasr.loss.pointer"] == 10
    assert {"dasr.loss.queue", "dasr.step.count", "dasr.loss.key_encoder.encoder.body.1.running_mean"} <= set(state)


def test_a_state_without_its_queue_is_refused() -> None:
    state = build().state_dict()
    del state["loss.queue"]
    with pytest.raises(RuntimeError, match=r"Missing key.*loss\.queue"):
        build().load_state_dict(state)


def test_the_network_is_no_part_of_the_method() -> None:
    method, net = build(), network()
    names = set(method.state_dict())
    keys = set(net.state_dict())
    method.attach(net)
    method.sr_losses(method.run(net, images()))
    assert set(method.state_dict()) == names
    assert set(net.state_dict()) == keys
    assert len(list(method.parameters())) == len(list(DegradationEncoder().parameters()))


# Errors


def test_networks_without_the_encoder_are_refused() -> None:
    for net in (CountingNet(), network(variant="oracle"), lambda lr: lr):
        with pytest.raises(ConfigError, match="dasr: expected an SR network with a degradation encoder"):
            build().run(net, images())
    with pytest.raises(
        ConfigError, match=r"got CountingNet\. On another network take the method `DegradationContrast`"
    ):
        build().attach(CountingNet())


def test_batches_without_keys_are_refused() -> None:
    batch = images()
    del batch["lr_key"]
    with pytest.raises(DataError, match=r"dasr: expected 'lr_key' in the batch.*Or set split_lr: true"):
        build().run(network(), batch)
    batch = images()
    del batch["lr_key_other"]
    with pytest.raises(
        DataError, match=r"dasr: expected 'lr_key_other' in the batch.*\(`degradation` in its data settings\)\.$"
    ):
        build(positives="same_degradation").run(network(), batch)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (torch.rand(1, 3, 8, 8), r"batch\['lr_key'\]: expected a non-empty tensor \(2, 3, h, w\)"),
        (torch.rand(2, 1, 8, 8), r"batch\['lr_key'\]: expected a non-empty tensor \(2, 3, h, w\)"),
        (255 * torch.rand(2, 3, 8, 8), r"expected batch\['lr_key'\] in \[0, 1\], got values from"),
    ],
)
def test_impossible_keys_are_refused(key: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build().run(network(), {**images(), "lr_key": key})


def test_a_batch_bigger_than_the_queue_is_refused() -> None:
    method, net = build(queue_size=3), network()
    method.sr_losses(method.run(net, images(count=3)))
    with pytest.raises(DataError, match=r"dasr: expected a batch that the queue of 3 holds, got 4 images on 1 process"):
        build(queue_size=3).run(net, images(count=4))


def test_an_image_too_small_to_be_cut_is_refused() -> None:
    batch = {"lr": torch.rand(2, 3, 1, 1), "hr": torch.rand(2, 3, 4, 4)}
    with pytest.raises(DataError, match="expected LR images that can be cut in two"):
        build(split_lr=True).run(network(), batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_weight": None}, "expected one of `loss_weight` .* got neither"),
        ({"positives": "same"}, "dasr: positives: expected one of same_image, same_degradation, got 'same'"),
        ({"positives": "same_degradation", "split_lr": True}, "split_lr gives positives='same_image'"),
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


def test_it_is_built_from_a_config() -> None:
    methods = build_methods([{"type": "DASR", "loss_weight": 1 / 255, "queue_size": 8, "warmup_steps": 5}])
    assert methods["dasr"].warmup_steps == 5
    with pytest.raises(ConfigError, match="Did you mean 'warmup_steps'"):
        build_methods([{"type": "DASR", "loss_weight": 1 / 255, "warm_up_steps": 5}])


# On another network


def test_auxiliary_encoder_learns_and_the_network_does_not() -> None:
    torch.manual_seed(0)
    method, net = DegradationContrast(queue_size=16), CountingNet()
    assert method.wants == ("lr_key",)
    assert method.trainable
    names = {f"degradation_{name}" for name in FIGURES}
    for step in range(3):
        batch = method.run(net, images(step))
        losses = method(batch)
        assert list(losses) == ["degradation_contrast"]
        method.zero_grad()
        losses["degradation_contrast"].backward()
        result = method.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert set(result.logs) == names
        assert result.terms == {}
        assert result.host_factor == 1
    assert result.logs["degradation_queue_fill"].item() == pytest.approx(6 / 16)
    assert result.logs["degradation_positive_similarity"].item() != 0
    assert all(p.grad is None for p in net.parameters())
    for name, parameter in method.named_parameters():
        if name.startswith("pair."):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_logs_before_the_first_auxiliary_step_have_the_same_names() -> None:
    method = DegradationContrast(queue_size=16)
    logs = method.sr_losses(method.run(CountingNet(), images())).logs
    assert set(logs) == {f"degradation_{name}" for name in FIGURES}


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
    def train(method: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
        values = []
        for step in range(first, last):
            batch = method.run(CountingNet(), images(step))
            (loss,) = method(batch).values()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.sr_losses(batch)
            values.append(loss.item())
        return values

    def new(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        method = DegradationContrast(queue_size=5, momentum=0.9)
        return method, torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-3)

    whole, part = new(0), new(0)
    want = train(*whole, 0, 4)
    got = train(*part, 0, 2)
    states = [copy.deepcopy(x.state_dict()) for x in part]
    resumed = new(9)
    for x, state in zip(resumed, states, strict=True):
        x.load_state_dict(state)
    assert got + train(*resumed, 2, 4) == want
    assert all(torch.equal(value, resumed[0].state_dict()[name]) for name, value in whole[0].state_dict().items())


# With the true kernel


def test_true_kernel_reaches_the_network() -> None:
    methods, net = MethodList([TrueKernel()]), network(variant="oracle")
    methods.attach(net)
    assert methods.wants == ("degradation/kernel",)
    assert not methods.trainable
    kernel = torch.rand(2, 21, 21)
    batch = methods.run(net, {**images(), "degradation/kernel": kernel})
    torch.testing.assert_close(batch["sr"], net(batch["lr"], kernel=kernel))
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert losses.terms == {}
    assert losses.total == 0


def test_true_kernel_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"with variant 'oracle' as SR network, got DASR of variant 'full'\."):
        TrueKernel().attach(network())
    with pytest.raises(ConfigError, match=r"with variant 'oracle' as SR network, got CountingNet\."):
        TrueKernel().attach(CountingNet())
    with pytest.raises(DataError, match="true_kernel: expected 'degradation/kernel' in the batch"):
        TrueKernel().run(network(variant="oracle"), images())
