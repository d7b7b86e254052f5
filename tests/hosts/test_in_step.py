"""Methods in the step of a trainer: what it accumulates, clips, averages and casts stays its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from meta_device import STEADY, Literals, Operations, meta, settled  # noqa: F401 - a fixture
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import ConfigError, NonFiniteError
from contrastive_sr.hosts.checkpoints import steps_to_host
from contrastive_sr.hosts.in_step import MethodsInStep, attached, check_optimizer, in_one_copy, methods_optimizer
from contrastive_sr.methods import PCL, BidirectionalNCE, InfoNCE, Methods
from contrastive_sr.networks import DASR
from tests.helpers.same import assert_same

ADAM = {"type": "Adam", "lr": 1e-3}


class L1(nn.Module):
    """A pixel loss as trainers have it."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, hr: Tensor, weight: Tensor | None = None) -> Tensor:
        error = (sr - hr).abs() if weight is None else weight * (sr - hr).abs()
        return self.loss_weight * error.mean()


class Trainer:
    """A trainer with accumulation, clipping, an average network and autocast, and an outer weight of its losses."""

    def __init__(
        self, methods: Callable[[nn.Module], Methods] | None = None, *, outer: float = 1.0, bf16: bool = False,
        accumulate: int = 1, milestones: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        self.average = torch.optim.swa_utils.AveragedModel(self.net)
        self.loss: nn.Module = L1()
        self.outer, self.bf16, self.accumulate = outer, bf16, accumulate
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones, 0.1)
        self.logs: list[dict[str, Tensor]] = []
        self.in_step: MethodsInStep | None = None
        self.warnings: list[str] = []
        if methods is not None:
            engine = methods(self.net)
            self.in_step = MethodsInStep(engine, methods_optimizer(engine, ADAM, "own"), warn=self.warnings.append)
            self.loss = self.in_step.wrap(self.loss, outer)

    def step(self, number: int, lr: Tensor, hr: Tensor) -> None:
        """Its own step, which knows nothing of methods."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            sr = self.net(lr)
            loss = self.loss(sr, hr)
            extra = F.mse_loss(sr.float().mean((-1, -2)), hr.mean((-1, -2)))
        ((loss * self.outer + extra) / self.accumulate).backward()
        log = {"l_pix": loss, "l_extra": extra}
        if number % self.accumulate == 0:
            nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.update_parameters(self.net)
            self.schedule.step()
        log = log if self.in_step is None else self.in_step.logged(log)
        self.logs.append({name: value.detach().clone() for name, value in log.items()})

    def train(self, steps: int, first: int = 1) -> Trainer:
        """Steps of fixed batches."""
        for number in range(first, first + steps):
            draws = torch.Generator().manual_seed(number)
            hr = torch.rand(2, 3, 64, 64, generator=draws)
            lr = F.avg_pool2d(hr, 4)
            if self.in_step is None:
                self.step(number, lr, hr)
            else:
                with self.in_step.step(self.net, lambda lr=lr: {"lr": lr}, self.optimizer):  # type: ignore[misc]
                    self.step(number, lr, hr)
        return self


def pcl(**arguments: Any) -> Callable[[nn.Module], Methods]:
    def make(net: nn.Module) -> Methods:
        with torch.random.fork_rng():
            methods = Methods([PCL(every=1, embedding=HaarDiscriminator(out_indices=(0, 1)), **arguments)])
            methods.attach(net)
        return methods

    return make


@pytest.mark.parametrize("bf16", [False, True])
def test_with_a_weight_of_0_all_is_the_trainers(bf16: bool) -> None:
    stock = Trainer(bf16=bf16, accumulate=2).train(4)
    ours = Trainer(pcl(loss_weight=0.0), bf16=bf16, accumulate=2).train(4)
    for before, now in zip(stock.logs, ours.logs, strict=True):
        assert_same({name: now[name] for name in before}, before, "log")
    assert_same(ours.net.state_dict(), stock.net.state_dict(), "net")
    assert_same(ours.average.state_dict(), stock.average.state_dict(), "average")
    assert all(log["pcl_contrastive_raw"] > 0 for log in ours.logs)


def test_the_share_is_that_of_the_loss_as_the_trainer_weighs_it() -> None:
    """An outer weight scales the pixel loss alone: the terms come out as without it, for as large a pixel loss."""
    inner = Trainer(pcl(loss_share=0.3)).train(1)
    outer = Trainer(pcl(loss_share=0.3), outer=0.25).train(1)
    fixed = Trainer(pcl(loss_weight=0.01), outer=0.25).train(1)
    plain = Trainer(pcl(loss_weight=0.01)).train(1)
    assert inner.in_step is not None
    assert outer.in_step is not None
    torch.testing.assert_close(outer.logs[0]["pcl_contrastive_share"], torch.tensor(0.3))
    # the share's weight follows the weighted pixel loss; a fixed weight is what it is
    torch.testing.assert_close(outer.in_step.parts[1] * 0.25, inner.in_step.parts[1] * 0.25)
    assert fixed.in_step is not None
    assert plain.in_step is not None
    torch.testing.assert_close(fixed.in_step.parts[1] * 0.25, plain.in_step.parts[1])
    assert_same(outer.logs[0]["l_pix"], inner.logs[0]["l_pix"], "pixel loss")


def test_the_methods_learn_once_a_batch_and_follow_the_schedule() -> None:
    trainer = Trainer(pcl(loss_share=0.1), accumulate=2, milestones=(1,))
    assert trainer.in_step is not None
    assert trainer.in_step.optimizer is not None
    steps = []
    trainer.in_step.optimizer.register_step_post_hook(
        lambda *_: steps.append(trainer.in_step.optimizer.param_groups[0]["lr"])
    )  # type: ignore[union-attr]
    trainer.train(4)
    assert steps == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_layers_are_read_in_the_trainers_own_pass() -> None:
    def make(net: nn.Module) -> Methods:
        embedding = HaarDiscriminator(out_indices=(0,))
        methods = Methods([BidirectionalNCE(embedding=embedding, layers=["0"], loss_share=0.1)])
        methods.attach(net)
        return methods

    trainer = Trainer(make).train(2)
    assert trainer.logs[-1]["nce_contrastive_share"] == pytest.approx(0.1, rel=0.5)
    assert not trainer.net[0]._forward_hooks


def test_calls_outside_of_a_training_step_are_the_losss_own() -> None:
    trainer = Trainer(pcl(loss_share=0.1)).train(1)
    assert trainer.in_step is not None
    sr, hr = torch.rand(2, 1, 3, 16, 16, requires_grad=True).unbind()
    stock = L1()
    weight = torch.rand(1, 1, 16, 16)
    assert trainer.loss(sr, hr, weight=weight) == stock(sr, hr, weight)
    with trainer.in_step.step(trainer.net, lambda: {"lr": torch.rand(1, 3, 4, 4)}), torch.no_grad():
        assert trainer.loss(sr, hr) == stock(sr, hr)
        trainer.in_step._turn = None  # as after its turn
    assert trainer.loss.loss_weight == 1.0
    with pytest.raises(AttributeError, match="reduction"):
        _ = trainer.loss.reduction


def test_the_wrapped_loss_is_used_as_the_trainer_uses_its_own() -> None:
    """By the names of its arguments, and with a weight that a trainer changes."""
    trainer = Trainer(pcl(loss_share=0.1))
    assert trainer.in_step is not None
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    trainer.loss.loss_weight = 0.25
    with trainer.in_step.step(trainer.net, lambda: {"lr": lr}):
        sr = trainer.net(lr)
        loss = trainer.loss(hr=hr, sr=sr)
    pixel, terms = trainer.in_step.parts
    assert pixel == L1(0.25)(sr, hr)
    assert loss == pixel + terms
    assert terms > 0
    assert trainer.loss(sr, weight=torch.ones(1), hr=hr) == pixel


def test_a_step_without_its_pixel_loss() -> None:
    trainer = Trainer(pcl(loss_share=0.1))
    assert trainer.in_step is not None
    never = pytest.raises(ConfigError, match=r"through its pixel loss, and the training step did not call it")
    with never, trainer.in_step.step(trainer.net, lambda: {"lr": torch.rand(1, 3, 4, 4)}):
        pass
    patient = MethodsInStep(trainer.in_step.methods, None, warn=print, patience=2)
    for _ in range(2):
        with patient.step(trainer.net, lambda: {"lr": torch.rand(1, 3, 4, 4)}):
            pass


def test_a_loss_that_returns_several() -> None:
    class Several(nn.Module):
        def forward(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
            return {"a": (sr - hr).abs().mean()}

    trainer = Trainer(pcl(loss_share=0.1))
    assert trainer.in_step is not None
    trainer.loss = trainer.in_step.wrap(Several())
    with pytest.raises(ConfigError, match=r"expected one that returns a scalar tensor, got a dict"):
        trainer.train(1)


def test_targets_of_an_inference_pass() -> None:
    trainer = Trainer(pcl(loss_share=0.1))
    assert trainer.in_step is not None
    lr = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        hr = torch.rand(2, 3, 64, 64)
    with trainer.in_step.step(trainer.net, lambda: {"lr": lr}):
        trainer.step(1, lr, hr)
    assert trainer.logs[0]["pcl_contrastive_share"] > 0


def test_two_steps_equal_one_and_one(tmp_path: Path) -> None:
    whole = Trainer(pcl(loss_share=0.2)).train(4)
    half = Trainer(pcl(loss_share=0.2)).train(2)
    assert half.in_step is not None
    half.in_step.save(tmp_path / "2.contrastive")
    state = torch.load(tmp_path / "2.contrastive", weights_only=True)
    resumed = Trainer(pcl(loss_share=0.2))
    assert resumed.in_step is not None
    for now, before in ((resumed.net, half.net), (resumed.optimizer, half.optimizer)):
        now.load_state_dict(before.state_dict())
    resumed.in_step.load(tmp_path / "2.contrastive")
    resumed.train(2, first=3)
    assert whole.in_step is not None
    assert_same(resumed.net.state_dict(), whole.net.state_dict(), "net")
    assert_same(resumed.in_step.methods.state_dict(), whole.in_step.methods.state_dict(), "methods")
    assert [path.name for path in tmp_path.iterdir()] == ["2.contrastive"]
    for key in [key for key in state["methods"] if key.endswith((".recent", ".pixel"))]:
        del state["methods"][key]  # as earlier versions wrote them
    torch.save(state, tmp_path / "1.contrastive")
    resumed.in_step.load(tmp_path / "1.contrastive")
    restored = resumed.in_step.methods.state_dict()
    assert_same(dict(state["methods"]), {key: restored[key] for key in state["methods"]}, "methods")
    assert len(restored) > len(state["methods"])


def test_the_optimizer_s_options_are_those_of_now(tmp_path: Path) -> None:
    before = Trainer(pcl(loss_share=0.2)).train(1).in_step
    assert before is not None
    before.save(tmp_path / "1.contrastive")
    now = Trainer(pcl(loss_share=0.2)).in_step
    assert now is not None
    adamw = {"type": "AdamW", "lr": 1e-3, "betas": [0.5, 0.9], "weight_decay": 0.1}
    now.optimizer = methods_optimizer(now.methods, adamw, "own")
    now.load(tmp_path / "1.contrastive")
    assert now.optimizer is not None
    (group,) = now.optimizer.param_groups
    assert (list(group["betas"]), group["weight_decay"]) == ([0.5, 0.9], 0.1)
    assert len(now.optimizer.state) == len(group["params"])


def test_a_state_with_nan_is_not_written(tmp_path: Path) -> None:
    """Some trainers save when an error ends their training, where such a state would be the one to resume from."""
    trainer = Trainer(pcl(loss_share=0.1)).train(1)
    assert trainer.in_step is not None
    with torch.no_grad():
        next(iter(trainer.in_step.methods.parameters())).view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"expected finite numbers in .*embedding.*, got NaN or infinity"):
        trainer.in_step.save(tmp_path / "1.contrastive")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"expected the state of the methods in .*, got no such file"),
        (b"half a file", r"got a file that cannot be read"),
        ({"methods": {}, "optimizer": None}, r"one of the two has parts to train"),
        ({"methods": {"step.count": torch.tensor(3)}, "optimizer": {}}, r"as they are configured now, got another"),
    ],
)
def test_states_that_do_not_fit(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "2.contrastive"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    trainer = Trainer(pcl(loss_share=0.2))
    assert trainer.in_step is not None
    with pytest.raises(ConfigError, match=message):
        trainer.in_step.load(path)


@pytest.mark.parametrize("method", ["PCL", "BidirectionalNCE"])
def test_a_trainer_with_a_default_device(method: str) -> None:
    """neosr makes the GPU torch's default device; a tensor that is made on none in particular is as useless here."""
    nets = []
    for default in ("cpu", "meta"):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        with torch.device(default):
            methods = attached([{"type": method, "every": 1, "embedding": {"type": "HaarDiscriminator"}}], net, 2, "it")
            in_step = MethodsInStep(methods, methods_optimizer(methods, ADAM, "own"), warn=print)
            loss = in_step.wrap(L1())
            for step in range(2):
                hr = torch.rand(2, 3, 64, 64, device="cpu", generator=torch.Generator().manual_seed(step))
                lr = F.avg_pool2d(hr, 4)
                with in_step.step(net, lambda lr=lr: {"lr": lr}):  # type: ignore[misc]
                    loss(net(lr), hr).backward()
        nets.append((net[0].weight.grad, methods.state_dict()))
    assert_same(nets[1], nets[0], "default device")


def test_what_a_trainer_with_its_own_step_cannot_take() -> None:
    net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    before = torch.get_rng_state()
    assert attached([{"type": "PCL", "every": 1}], net, 2, "it").names == ["pcl"]
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ConfigError, match=r"dasr: expected no warm-up, in which the losses of it would have to rest"):
        attached([{"type": "DASR", "warmup_steps": 5}], DASR(channels=8, groups=1, blocks=1, scale=4), 2, "it")
    methods = attached([{"type": "PCL", "every": 1}], net, 2, "it")
    with pytest.raises(ConfigError, match=r"here: expected options for the parts that the methods train"):
        methods_optimizer(methods, None, "here")
    with pytest.raises(ConfigError, match=r"here: expected \{type: Adam or AdamW, lr: ...\}, got"):
        methods_optimizer(methods, {"type": "Lion", "lr": 1e-4}, "here")
    with pytest.raises(ConfigError, match=r"here: AdamW does not know the key 'beta'.*Did you mean 'betas'"):
        check_optimizer({"type": "AdamW", "lr": 1e-4, "beta": (0.9, 0.99)}, "here", ("AdamW",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": "1e-4"}, "here: weight_decay: expected a number of at least 0, got '1e-4'"),
        ({"weight_decay": -1}, "here: weight_decay: expected a number of at least 0, got -1"),
        ({"eps": "1e-8"}, "here: eps: expected a number"),
        ({"betas": 0.9}, r"here: betas: expected two numbers such as \[0.9, 0.999\], got"),
        ({"betas": [0.9]}, "here: betas: expected two numbers"),
        ({"betas": [0.9, "0.99"]}, "here: betas: expected a number of at least 0, got '0.99'"),
        ({"betas": [0.9, 1.5]}, "here: Adam does not take these options: Invalid beta parameter at index 1: 1.5"),
        ({"amsgrad": "no"}, "here: amsgrad: expected true or false, got 'no'"),
        ({"fused": "no"}, "here: fused: expected true or false"),
    ],
)
def test_options_that_the_optimizer_does_not_take(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_optimizer({**ADAM, **options}, "here", ("Adam",))
    fine = {**ADAM, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0, "amsgrad": True, "foreach": None}
    assert check_optimizer(fine, "here", ("Adam",)) == fine


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(
    "config",
    [
        {"type": "PCL", "every": 1, "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}},
        {"type": "BidirectionalNCE", "layers": ["0"], "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}},
    ],
    ids=lambda config: config["type"],
)
def test_a_steady_step_waits_for_nothing(config: dict[str, Any]) -> None:
    """On a device that has no values to give: what reads one is an error, or among what is counted."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        methods = attached([config], net, 2, "it").to("meta")
        lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    settled(methods)
    in_step = MethodsInStep(methods, methods_optimizer(methods, ADAM, "own"), warn=print)
    loss, optimizer = in_step.wrap(L1()), torch.optim.Adam(net.parameters())
    for number in (STEADY - 1, STEADY):  # the first of the two measures shares
        methods.step._value = number
        with Literals() as literals, Operations() as operations:
            with in_step.step(net, lambda: {"lr": lr}, optimizer):
                optimizer.zero_grad()
                pixel = loss(net(lr), hr)
                pixel.backward()
                optimizer.step()
            entries = in_step.entries({"l_pix": pixel})
        assert not operations.mixed, operations.mixed
        assert literals.count == 0
        assert {"l_pix"} < set(entries)
        assert all(value.is_meta for value in entries.values())
    with Operations() as operations:
        assert all(value.device.type == "cpu" for value in in_step.logged({"l_pix": pixel}).values())
    assert sum(operations.mixed.values()) == 1  # neosr, which reads them at every step


def test_step_counts_of_a_resumed_optimizer_are_on_the_cpu() -> None:
    with FakeTensorMode():  # of a GPU that need not be there
        there = torch.zeros((), device="cuda")
        moment = torch.zeros(3, device="cuda")
        state = {"state": {0: {"step": there, "exp_avg": moment}, 1: {"step": 3}, 2: {}}, "param_groups": []}
        steps_to_host([state])
        assert state["state"][0]["step"].device.type == "cpu"
        assert state["state"][0]["exp_avg"] is moment
        assert state["state"][1] == {"step": 3}


@pytest.mark.filterwarnings("ignore:mean of.*skip_nonfinite")
def test_layers_are_read_again_behind_a_step_that_was_sat_out() -> None:
    """As where the SR image overflows in half precision."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    embedding = HaarDiscriminator(out_indices=(0,))
    methods = Methods(
        [InfoNCE(loss_weight=0.1, layers=["0"], dim=8, positions=16, embedding=embedding)], skip_nonfinite=1
    )
    methods.attach(net)
    in_step = MethodsInStep(methods, methods_optimizer(methods, ADAM, "own"), warn=print)
    loss, terms = in_step.wrap(L1()), []
    for factor in (1.0, torch.inf, 1.0):
        lr = torch.rand(2, 3, 8, 8)
        with in_step.step(net, lambda lr=lr: {"lr": lr}):  # type: ignore[misc]
            loss(net(lr) * factor, torch.rand(2, 3, 32, 32))
        terms.append(float(in_step.metrics["nce_contrastive_raw"]))
    assert [term > 0 for term in terms] == [True, False, True]
    assert methods.nonfinite_steps is not None
    assert methods.nonfinite_steps.value == 1


def test_plain_numbers_may_stand_in_a_log() -> None:
    log = in_one_copy({"psnr": 30.5, "loss": torch.tensor([1.0, 3.0]), "steps": 2})
    assert list(log) == ["psnr", "loss", "steps"]
    assert {name: value.item() for name, value in log.items()} == {"psnr": 30.5, "loss": 2.0, "steps": 2.0}
    assert in_one_copy({"psnr": 30.5})["psnr"].item() == 30.5
