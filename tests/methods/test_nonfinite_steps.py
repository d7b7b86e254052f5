"""Steps with a term or a loss that is NaN or infinite, and that a training is to survive: ``skip_nonfinite``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nonfinite import Sometimes
from same import assert_same
from small_models import CountingNet, images_batch
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr.errors import ConfigError, NonFiniteError
from contrastive_sr.methods import DASR, PCL, Method, Methods, Step
from contrastive_sr.samples import Batch

BAD = [torch.nan, torch.inf, -torch.inf]


def pcl(**arguments: Any) -> PCL:
    torch.manual_seed(0)
    return PCL(loss_weight=0.01, every=1, embedding={"type": "HaarDiscriminator", "out_indices": [0]}, **arguments)


class Training:
    """A plain loop, whose batches can be spoilt."""

    def __init__(self, *methods: Method, **options: Any) -> None:
        torch.manual_seed(0)
        self.net, self.methods = CountingNet(), Methods(methods, **options)
        self.methods.attach(self.net)
        parts = [self.net, *([self.methods] if self.methods.trainable else [])]
        self.optimizers = [torch.optim.Adam(part.parameters(), 1e-3) for part in parts]
        self.logs: list[Mapping[str, Tensor]] = []

    def step(self, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda batch: batch) -> dict[str, Tensor]:
        """The step, and what its auxiliary losses were."""
        batch = self.methods.run(self.net, spoil(images_batch(len(self.logs))))
        own = self.methods.auxiliary_losses(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if own:
            sum(own.values()).backward()
            self.optimizers[1].step()
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        contrast = self.methods.sr_losses(batch, pixel)
        loss = pixel + contrast.loss
        if loss.isfinite():  # the host's own policy
            loss.backward()
            self.optimizers[0].step()
        self.logs.append(contrast.metrics)
        return own

    @property
    def finite(self) -> bool:
        return all(x.isfinite().all() for part in (self.net, self.methods) for x in part.state_dict().values())


# --------------------------------------------------------------------------------------------- what is left out


@pytest.mark.filterwarnings("ignore:sometimes.*skip_nonfinite")
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("where", ["term", "gradient", "auxiliary"])
def test_what_is_not_finite_counts_nothing_in_its_step(where: str, value: float) -> None:
    bad = Sometimes({1: where, 3: where}, value)
    training, without = Training(bad, pcl(), skip_nonfinite=2), Training(Sometimes({}), pcl(), skip_nonfinite=2)
    for number in range(5):
        before = copy.deepcopy(bad.part.state_dict())
        own = training.step()
        assert training.finite
        assert training.logs[-1]["nonfinite_steps"] == [0, 1, 1, 2, 2][number]
        assert list(training.logs[-1]) == list(training.logs[0])
        assert all(x.isfinite() for x in training.logs[-1].values())
        lost = number in (1, 3)
        if where == "auxiliary":
            assert list(own) == ([] if lost else ["sometimes_part", "sometimes_other"]) + ["pcl_discriminator"]
            if number == 1:
                assert_same(before, bad.part.state_dict())  # its parts did not move, also not by momentum
        else:
            assert (training.logs[-1]["sometimes_edges_raw"] == 0) == lost
            assert (training.logs[-1]["sometimes_size"] == 0) == lost
            assert training.logs[-1]["sometimes_others_raw"] > 0  # the method's other term counts
        without.step()
        if number == 0:
            assert_same(training.net.state_dict(), without.net.state_dict())


@pytest.mark.filterwarnings("ignore:sometimes.*skip_nonfinite")
def test_the_gradient_is_that_of_all_else() -> None:
    torch.manual_seed(0)
    net = CountingNet()
    gradients = []
    for methods in (Methods([Sometimes({0: "term"}), pcl()], skip_nonfinite=1), Methods([Sometimes({}), pcl()])):
        methods["sometimes"].weights["edges"].fixed = 1.0
        methods.attach(net)
        if methods.nonfinite_steps is None:
            methods["sometimes"].weights["edges"].fixed = 0.0
        batch = methods.run(net, images_batch())
        methods.auxiliary_losses(batch)
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        net.zero_grad()
        (pixel + methods.sr_losses(batch, pixel).loss).backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("key", ["sr", "hr", "lr"])
def test_all_methods_sit_out_a_step_whose_images_are_not_finite(key: str) -> None:
    training = Training(Sometimes({}), pcl(), skip_nonfinite=1)
    training.step()
    before = copy.deepcopy(training.methods.state_dict())

    def spoil(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if key == "sr":
            return {**batch, "sr": training.net(batch["lr"]) * torch.nan}
        return {**batch, key: batch[key] * torch.nan}

    name = "mean of the SR network's output" if key == "sr" else rf"mean of batch\['{key}'\]"
    with pytest.warns(UserWarning, match=rf"{name}.* at SR step 2: .*got nan; left out .* 1 of the 1 steps"):
        assert training.step(spoil) == {}
    after = training.methods.state_dict()
    assert (after["step.count"], after["nonfinite_steps.count"]) == (2, 1)
    for name, x in before.items():  # statistics of an embedding's BatchNorm would never get over it
        assert torch.equal(x, after[name]) == (not name.endswith("count")), name
    training.step()
    assert training.finite
    assert list(training.logs[0]) == list(training.logs[1]) == list(training.logs[2])
    assert [log["nonfinite_steps"] for log in training.logs] == [0, 1, 1]
    assert training.logs[1]["pcl_contrastive_raw"] == 0 < training.logs[2]["pcl_contrastive_raw"]


class Overflowing(PCL):
    """In its third step the embedding, whose statistics follow what it sees, sees infinite images."""

    def discriminated(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        return batch["hr"], batch["sr"] / float(step.number != 2)


def test_statistics_are_as_before_where_an_auxiliary_loss_is_left_out() -> None:
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    training = Training(Overflowing(loss_weight=0.01, every=1, embedding=embedding), skip_nonfinite=1)
    training.step()
    training.step()
    before = {name: x.clone() for name, x in training.methods.state_dict().items() if "running" in name}
    assert before
    with pytest.warns(UserWarning, match="pcl_discriminator at SR step 3"):
        training.step()
    after = training.methods.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    training.step()
    assert training.finite


def test_a_queue_is_as_before_where_its_keys_are_not_finite() -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    methods = Methods([DASR(loss_weight=0.01, queue_size=8)], skip_nonfinite=1)
    methods.attach(network)

    def run(number: int, key: float) -> Tensor:
        images = images_batch(number)
        batch = methods.run(network, {**images, "lr_key": images["lr"].flip(-1) * key})
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        return methods.sr_losses(batch, pixel).metrics["dasr_contrastive_raw"]

    assert run(0, 1.0) == 0  # there is no negative yet
    before = copy.deepcopy(methods["dasr"].state_dict())
    with pytest.warns(UserWarning, match=r"mean of batch\['lr_key'\] at SR step 2"):
        run(1, torch.nan)
    assert all(torch.equal(x, before[name]) for name, x in methods["dasr"].state_dict().items())
    assert run(2, 1.0).isfinite()


def test_a_queue_goes_on_as_if_a_step_that_is_not_finite_had_not_been() -> None:
    """Where the query alone is not, so that the keys have entered the queue before anyone knows."""
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    methods = Methods([DASR(loss_weight=0.01, queue_size=8)], skip_nonfinite=1)
    methods.attach(network)

    def run(number: int, query: float = 1.0) -> None:
        images = images_batch(number)
        batch = methods.run(network, {**images, "lr_key": images["lr"].flip(-1)})
        methods.sr_losses({**batch, "features/encoder.pool": batch["features/encoder.pool"] * query})

    run(0)
    with pytest.warns(UserWarning, match="dasr_contrastive at SR step 2"):
        run(1, torch.nan)
    keys = methods["dasr"].loss
    run(2)
    assert keys.pointer == keys.fill == 2 * len(images_batch(0)["lr"])
    assert (keys.queue.norm(dim=1) > 0).sum() == keys.fill


def test_a_step_without_other_losses_can_be_run_backward() -> None:
    training = Training(Sometimes({0: "term"}, both=True), skip_nonfinite=1)
    batch = training.methods.run(training.net, images_batch())
    with pytest.warns(UserWarning, match="sometimes_edges, sometimes_others at SR step 1"):
        loss = training.methods.sr_losses(batch).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad is None for p in training.net.parameters())


def test_a_warm_up_in_which_a_part_of_the_network_alone_is_run() -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    methods = Methods([DASR(loss_weight=0.01, warmup_steps=3, queue_size=8)], skip_nonfinite=1)
    methods.attach(network)
    for number in range(3):
        images = images_batch(number)
        batch = {**images, "lr_key": images["lr"].flip(-1)}
        if number == 1:
            batch["lr"] = batch["lr"] / 0
            with pytest.warns(UserWarning, match=r"mean of batch\['lr'\] at SR step 2"):
                batch = methods.run(network, batch)
        else:
            batch = methods.run(network, batch)
        assert methods.warming_up
        network.zero_grad()
        methods.sr_losses(batch).loss.backward()
        assert all((p.grad is None) == (number == 1) for p in network.encoder.parameters())
    assert all(p.isfinite().all() for p in network.parameters())
    assert all(x.isfinite().all() for x in methods.state_dict().values())


# ------------------------------------------------------------------------------------------------------- how many


@pytest.mark.parametrize("where", ["term", "auxiliary", "sr"])
def test_one_more_is_an_error_that_names_it(where: str) -> None:
    training = Training(Sometimes({} if where == "sr" else dict.fromkeys(range(9), where)), skip_nonfinite=2)

    def spoil(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**batch, "sr": training.net(batch["lr"]) / 0} if where == "sr" else batch

    label = {"term": "sometimes_edges", "auxiliary": "sometimes_part", "sr": "mean of the SR network's output"}[where]
    for number in range(2):
        with pytest.warns(
            UserWarning, match=rf"^{label} at SR step {number + 1}: .*{number + 1} of the 2 steps of skip"
        ):
            training.step(spoil)
    message = rf"^{label} at SR step 3: expected a finite number, got .*, after the 2 steps of skip_nonfinite\. Lower"
    with pytest.raises(NonFiniteError, match=message):
        training.step(spoil)


def test_a_step_counts_once() -> None:
    training = Training(Sometimes({0: "both", 2: "both"}, both=True), skip_nonfinite=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            training.step()
    assert [log["nonfinite_steps"] for log in training.logs] == [1, 1, 2]
    assert len([warning for warning in caught if "skip_nonfinite" in str(warning.message)]) == 2


def test_the_count_goes_on_in_a_resumed_run_and_may_begin_in_one() -> None:
    first = Training(Sometimes({0: "term"}), skip_nonfinite=1)
    with pytest.warns(UserWarning, match="skip_nonfinite"):
        first.step()
    state = first.methods.state_dict()
    resumed = Training(Sometimes({1: "term"}), skip_nonfinite=1)
    resumed.methods.load_state_dict(state)
    with pytest.raises(NonFiniteError, match="sometimes_edges at SR step 2"):
        resumed.step()

    plain = Training(Sometimes({0: "term"}))
    plain.methods.load_state_dict(state)  # without the option: the count is not needed
    assert not any("nonfinite" in name for name in plain.methods.state_dict())
    late = Training(Sometimes({1: "term"}), skip_nonfinite=1)
    late.methods.load_state_dict(plain.methods.state_dict())
    with pytest.warns(UserWarning, match="sometimes_edges at SR step 2"):
        late.step()

    whole = nn.ModuleDict({"methods": late.methods})  # as a part of a host's model
    whole.load_state_dict({f"methods.{name}": x for name, x in plain.methods.state_dict().items()})
    assert late.methods.nonfinite_steps is not None
    assert late.methods.nonfinite_steps.value == 0


def test_without_the_option_each_is_an_error() -> None:
    training = Training(Sometimes({1: "term"}))
    training.step()
    assert "nonfinite_steps" not in training.logs[0]
    with pytest.raises(
        NonFiniteError, match=r"^sometimes_edges at SR step 2: expected a finite number, got nan\. Lower"
    ):
        training.step()


def test_what_is_only_looked_at_is_not_counted() -> None:
    training = Training(Sometimes({}), skip_nonfinite=5)
    training.step()
    training.methods.eval()
    batch = images_batch()
    with pytest.raises(NonFiniteError, match="mean of the SR network's output"):
        training.methods.run(training.net, {**batch, "sr": batch["hr"] / 0})
    assert training.methods.nonfinite_steps is not None
    assert training.methods.nonfinite_steps.value == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
def test_other_numbers_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="skip_nonfinite: expected a whole number"):
        Methods([], skip_nonfinite=wrong)


@pytest.mark.filterwarnings("ignore:mean of.*skip_nonfinite")
def test_statistics_of_the_network_are_as_before_where_its_images_are_not_finite() -> None:
    torch.manual_seed(0)
    net, methods = networks.DASR(channels=4, groups=1, blocks=1), Methods([DASR(queue_size=8)], skip_nonfinite=1)
    methods.attach(net)
    batch = {**images_batch(0), "lr_key": images_batch(1)["lr"]}
    methods.run(net, batch)
    before = copy.deepcopy(dict(net.named_buffers()))
    assert before
    methods.run(net, {**batch, "lr": batch["lr"].clone().fill_(torch.nan)})
    assert_same(dict(net.named_buffers()), before)
    methods.run(net, batch)
    assert any(not torch.equal(value, before[key]) for key, value in net.named_buffers())
