"""The engine: what it asks of methods and of hosts, its warm-up, its random streams, and what it says to authors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached, step_of
from same import assert_same
from small_models import CountingNet, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.losses import Contrast
from contrastive_sr.methods import DASR, MPF, PCL, InfoNCE, Method, Methods, Step, TermWeight, TrueKernel, build_methods
from contrastive_sr.samples import Batch

Answer = Callable[[Batch], Any]


class Mine(Method):
    """A method as its author gives it: what its hooks answer to a batch, and attributes."""

    def __init__(
        self,
        terms: Answer = lambda batch: {},
        auxiliary: Answer = lambda batch: {},
        *,
        name: str = "mine",
        weights: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, weights={"edges": TermWeight(f"{name}_edges", 1.0)} if weights is None else weights)
        self.answers = {"terms": terms, "auxiliary": auxiliary}
        self.part = nn.Conv2d(3, 1, 1)
        for key, value in attributes.items():
            setattr(self, key, value)

    def terms(self, batch: Batch, step: Step) -> Any:
        return self.answers["terms"](batch)

    def auxiliary(self, batch: Batch, step: Step) -> Any:
        return self.answers["auxiliary"](batch)


def edges(batch: Batch) -> dict[str, Contrast]:
    """A term that is as it should be."""
    return {"edges": Contrast(batch["sr"].square().mean(), {"size": batch["sr"].detach().mean()})}


def net() -> CountingNet:
    torch.manual_seed(1)
    return CountingNet()


def ready(*methods: Method) -> tuple[Methods, CountingNet, dict[str, Tensor]]:
    network = net()
    engine = attached(network, *methods)
    return engine, network, engine.run(network, images_batch())


def pcl(**arguments: Any) -> PCL:
    torch.manual_seed(0)
    return PCL(**{"every": 1, "loss_weight": 0.0004, "embedding": SmoothEmbedding(), **arguments})


# ------------------------------------------------------------------------------------------------- a list of methods


def test_methods_go_by_their_names() -> None:
    first, second = Mine(name="first"), Mine(name="second", wants=("lr_key",))
    methods = Methods([first, second])
    assert (list(methods), len(methods), methods.names) == ([first, second], 2, ["first", "second"])
    assert methods["second"] is second
    assert methods.wants == ("lr_key",)
    assert {key.partition(".")[0] for key in methods.state_dict()} == {"step", "first", "second"}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (lambda: Mine(), r"methods: expected a list of methods such as \[PCL\(\)\], got Mine\("),
        (lambda: [nn.Identity()], "methods: expected a list of methods"),
        (lambda: [Mine(), Mine()], r"expected methods with different `name`, got \['mine', 'mine'\].*`name: nce_2`"),
        (lambda: [Mine(name="step")], "'step' cannot be a method's `name`. Try `my_step`"),
        (lambda: [Mine(name="children")], "'children' cannot be a method's `name`"),
    ],
)
def test_impossible_lists_are_refused(methods: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Methods(methods())


@pytest.mark.parametrize(
    "methods",
    [lambda: [pcl()], lambda: [InfoNCE(embedding=SmoothEmbedding(), dim=4, layers=["body.0", "body.1"])], list],
    ids=["no layers", "layers", "no methods"],
)
def test_attach_comes_once_and_before_all_else(methods: Callable[[], list[Method]]) -> None:
    network, engine = net(), Methods(methods())
    with pytest.raises(ConfigError, match=r"do not know the SR network yet\. Call attach\(net\) once, before the opti"):
        engine.run(network, images_batch())
    assert network.calls == 0
    if len(engine):
        with pytest.raises(ConfigError, match=r"do not exist yet\. Call attach\(net\) before load_state_dict\(\)"):
            engine.load_state_dict(engine.state_dict())
    engine.attach(network)
    with pytest.raises(ConfigError, match=r"attach\(\) was called before; new parts .* not be in the optimizer"):
        engine.attach(network)
    engine.run(network, images_batch())
    engine.load_state_dict(engine.state_dict())


def test_a_step_needs_attach_and_the_batch_that_run_returned() -> None:
    batch = {**images_batch(), "sr": images_batch()["hr"].requires_grad_()}
    methods = Methods([Mine(edges, layers=("body.0",))])
    for call in (methods.auxiliary_losses, methods.sr_losses):
        with pytest.raises(ConfigError, match=r"Call attach\(net\) once"):
            call(batch)
    methods.attach(net())
    for call in (methods.auxiliary_losses, methods.sr_losses):
        with pytest.raises(DataError, match=r"that run\(\) returned, got one without \['features/body.0'\]"):
            call(batch)
        with pytest.raises(DataError, match=r"that run\(\) returned, got one without \['features/body.0', 'sr'\]"):
            call(images_batch())
    assert methods.step.value == 0


def test_a_method_with_weights_and_no_terms_is_refused() -> None:
    class Misspelt(Method):
        def term(self, batch: Batch, step: Step) -> dict[str, Contrast]:
            return edges(batch)

    method = Misspelt("mine", weights={"edges": TermWeight("mine_edges", 1.0)})
    with pytest.raises(
        ConfigError, match=r"mine: expected Misspelt to have terms\(batch, step\) for .*\['edges'\], got"
    ):
        Methods([method])


def test_a_network_that_a_method_cannot_train_is_refused() -> None:
    methods = Methods([pcl(), DASR()])
    with pytest.raises(ConfigError, match="dasr: expected an SR network with a degradation encoder"):
        methods.attach(net())
    with pytest.raises(ConfigError, match="do not know the SR network yet"):
        methods.run(net(), images_batch())


# ------------------------------------------------------------------------------------------ what authors are told


SCALARS = [
    (lambda sr: None, "{hook}() of Mine: expected a dict of Contrast by name, got None (NoneType)"),
    (lambda sr: Contrast(sr.mean()), "{hook}() of Mine: expected a dict of Contrast by name, got Contrast(loss="),
    (
        lambda sr: {"edges": sr.mean()},
        "{hook}() of Mine: expected a contrastive_sr.losses.Contrast as 'edges', got a float32 tensor of shape (). "
        "Return Contrast(loss)",
    ),
    (
        lambda sr: {"edges": Contrast(sr)},
        "{hook}() of Mine: expected a scalar tensor as loss of 'edges', got a float32 tensor of shape "
        "(2, 3, 32, 32). Take its mean().",
    ),
    (lambda sr: {"edges": Contrast(0.5)}, "expected a scalar tensor as loss of 'edges', got 0.5 (float)"),
    (lambda sr: {"edges": Contrast(torch.tensor(1))}, "as loss of 'edges', got a int64 tensor of shape ()"),
    (
        lambda sr: {"edges": Contrast(sr.mean(), [sr.mean()])},
        "{hook}() of Mine: expected a dict as metrics of 'edges', got [tensor(",
    ),
    (
        lambda sr: {"edges": Contrast(sr.mean(), {"size": sr.detach()})},
        "{hook}() of Mine: expected scalar tensors as metrics of 'edges', of names without 'loss', got 'size': a "
        "float32 tensor of shape (2, 3, 32, 32).",
    ),
    (lambda sr: {"edges": Contrast(sr.mean(), {"size": 0.5})}, "as metrics of 'edges', of names without 'loss', got"),
    (
        lambda sr: {"edges": Contrast(sr.mean(), {"l1_loss": sr.detach().mean()})},
        "expected scalar tensors as metrics of 'edges', of names without 'loss', got 'l1_loss': a float32 tensor",
    ),
    (
        lambda sr: {"edges": Contrast(sr.mean(), points=sr)},
        "{hook}() of Mine: expected a list of tensors as points of 'edges', or none for the SR image, got a float32",
    ),
    (lambda sr: {"edges": Contrast(sr.mean(), points=[])}, "a list of tensors as points of 'edges', or none for"),
]


@pytest.mark.parametrize("hook", ["terms", "auxiliary"])
@pytest.mark.parametrize(("answer", "message"), SCALARS)
def test_what_a_hook_returns_is_checked(hook: str, answer: Callable[[Tensor], Any], message: str) -> None:
    methods, _, batch = ready(Mine(**{hook: lambda batch: answer(batch["sr"])}))
    with pytest.raises(ConfigError) as raised:
        methods.auxiliary_losses(batch) if hook == "auxiliary" else methods.sr_losses(batch)
    assert str(raised.value).startswith(f"mine: {hook}() of Mine: ")
    assert message.format(hook=hook) in str(raised.value)


def test_a_term_without_a_weight_is_refused() -> None:
    methods, _, batch = ready(Mine(lambda batch: {"edge": edges(batch)["edges"]}))
    with pytest.raises(ConfigError) as raised:
        methods.sr_losses(batch)
    assert str(raised.value) == (
        "mine: terms() of Mine does not know the term 'edge'. Did you mean 'edges'? Accepted: edges. They are the "
        "names in `weights`."
    )
    mine = Mine()
    mine.answers["auxiliary"] = lambda batch: {"whatever": Contrast(mine.part.weight.mean())}
    methods, _, batch = ready(mine)
    assert list(methods.auxiliary_losses(batch)) == ["mine_whatever"]


@pytest.mark.parametrize(
    ("weights", "got"),
    [
        ({"edge_loss": TermWeight("t")}, "'edge_loss': TermWeight"),
        ({"edge.x": TermWeight("t")}, "'edge.x': TermWeight"),
        ({"edges": 0.1}, r"'edges': 0\.1 \(float\)"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, Any], got: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"mine: weights: expected a TermWeight for each term, by a word .* got {got}"
    ):
        Mine(weights=weights)


@pytest.mark.parametrize(
    "term",
    [
        lambda batch: batch["sr"].detach().mean(),
        lambda batch: torch.no_grad()(torch.mean)(batch["sr"]),
        lambda batch: nn.Parameter(torch.ones(())) * 2,
    ],
    ids=["detached", "no_grad", "of something else"],
)
@pytest.mark.parametrize("pixel", [True, False])
def test_a_term_that_trains_nothing_is_blamed_and_not_the_pixel_loss(term: Answer, pixel: bool) -> None:
    methods, _, batch = ready(Mine(lambda batch: {"edges": Contrast(term(batch))}))
    with pytest.raises(
        ConfigError, match=r"mine: terms\(\) of Mine: expected a loss 'edges' that depends on batch\['sr'"
    ):
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]) if pixel else None)


def test_a_term_that_does_not_depend_on_its_points_is_blamed() -> None:
    def term(batch: Batch) -> dict[str, Contrast]:
        return {"edges": Contrast(batch["sr"].mean(), points=[batch["features/body.0"] * 1])}

    methods, _, batch = ready(Mine(term, layers=("body.0",)))
    with pytest.raises(ConfigError, match=r"mine: .* a loss 'edges' that depends on its points, .* names them as `poi"):
        methods.sr_losses(batch)


def test_a_pixel_loss_of_other_images_is_blamed_itself() -> None:
    methods, network, batch = ready(Mine(edges))
    with pytest.raises(DataError, match=r"mine_edges: expected a pixel loss computed from batch\['sr'\]"):
        methods.sr_losses(batch, F.l1_loss(network(batch["lr"]), batch["hr"]))


def test_a_term_that_was_seen_to_train_may_vanish() -> None:
    mine = Mine(edges)
    methods, _, batch = ready(mine)
    methods.sr_losses(batch)
    mine.answers["terms"] = lambda batch: {"edges": Contrast(torch.zeros(()))}
    assert methods.sr_losses(batch).loss == 0


def test_without_gradients_nothing_has_to_depend_on_anything() -> None:
    methods, network, _ = ready(Mine(edges))
    with torch.no_grad():
        assert methods.sr_losses(methods.run(network, images_batch())).loss > 0


def test_auxiliary_losses_train_the_method_s_parts_alone() -> None:
    mine = Mine(edges)
    mine.answers["auxiliary"] = lambda batch: {"part": Contrast(mine.part(batch["sr"]).mean())}
    methods, network, batch = ready(mine)
    methods.auxiliary_losses(batch)["mine_part"].backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in mine.part.parameters())
    assert batch["sr"].requires_grad


def test_an_auxiliary_loss_that_trains_nothing_is_refused() -> None:
    methods, _, batch = ready(Mine(edges, lambda batch: {"part": Contrast(batch["sr"].mean())}))
    with pytest.raises(ConfigError, match=r"mine: auxiliary\(\) of Mine: expected a loss 'part' that depends on the"):
        methods.auxiliary_losses(batch)
    with torch.no_grad():
        assert list(methods.auxiliary_losses(batch)) == ["mine_part"]


# ------------------------------------------------------------------------------------------------------ random draws


def test_streams_differ_by_seed_name_and_step_and_are_the_same_in_each_run() -> None:
    def draws(methods: Methods, name: str) -> float:
        return torch.rand((), generator=step_of(methods, name).generator("cpu")).item()

    def new() -> Methods:
        return Methods([pcl(name="first"), pcl(name="second"), pcl(name="third", seed=1)])

    run, again = new(), new()
    seen = []
    for _ in range(3):
        seen += [draws(run, name) for name in run.names]
        torch.manual_seed(77)  # torch's own state has no part in it
        assert seen[-3:] == [draws(again, name) for name in again.names]
        run.step.advance()
        again.step.advance()
    assert len(set(seen)) == 9
    alone = Methods([pcl(name="second")])  # nor have the other methods
    assert draws(alone, "second") == seen[1]


def test_two_methods_of_the_same_seed_draw_different_samples() -> None:
    first, second = pcl(name="first"), pcl(name="second")
    second.embedding.load_state_dict(first.embedding.state_dict())
    methods, _, batch = ready(first, second)
    metrics = methods.sr_losses(batch).metrics
    assert metrics["first_contrastive_raw"] != metrics["second_contrastive_raw"]
    methods, _, batch = ready(first)
    assert methods.sr_losses(batch).metrics["first_contrastive_raw"] == metrics["first_contrastive_raw"]


# ------------------------------------------------------------------------------------- layers, and inputs of networks


@pytest.mark.parametrize("kernel_first", [True, False])
def test_a_method_on_layers_beside_one_that_gives_the_network_an_input(kernel_first: bool) -> None:
    torch.manual_seed(0)
    network = networks.DASR(variant="oracle", channels=8, groups=1, blocks=1)
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    on_layers = InfoNCE(loss_weight=0.01, layers=["first"], dim=4, embedding=embedding)
    methods = attached(network, *([TrueKernel(), on_layers] if kernel_first else [on_layers, TrueKernel()]))
    batch = methods.run(network, {**images_batch(), "degradation/kernel": torch.rand(2, 21, 21)})
    assert batch["features/first"].shape == (2, 8, 8, 8)
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert network.first.weight.grad is not None
    with pytest.raises(DataError, match="true_kernel: expected 'degradation/kernel' in the batch"):
        methods.run(network, images_batch())


# --------------------------------------------------------------------------------------- a batch with its SR image


def test_a_batch_may_come_with_its_sr_image() -> None:
    methods, network, batch = ready(Mine(edges))
    sr = network(batch["lr"])
    calls = network.calls
    done = methods.run(network, {**images_batch(), "sr": sr})
    assert network.calls == calls
    assert done["sr"] is sr
    methods.sr_losses(done, F.l1_loss(done["sr"], done["hr"])).loss.backward()
    assert all(p.grad is not None for p in network.parameters())
    assert methods.run(network, {**images_batch(), "sr": sr.bfloat16()})["sr"].dtype == torch.float32
    with pytest.raises(DataError, match=r"SR network's output: expected .*\(2, 3, 32, 32\), got .*\(2, 3, 16, 16\)"):
        methods.run(network, {**images_batch(), "sr": sr[..., ::2, ::2]})


def test_a_batch_with_its_sr_image_needs_the_features_too() -> None:
    layers = ("body.0", "body.1")
    on_layers = InfoNCE(embedding=SmoothEmbedding(), dim=4, positions=16, layers=layers)
    methods, network, batch = ready(pcl(), on_layers)
    calls = network.calls
    methods.sr_losses(methods.run(network, batch), F.l1_loss(batch["sr"], batch["hr"]))
    assert network.calls == calls
    for missing in (layers, layers[1:]):
        kept = {key: x for key, x in batch.items() if key not in {f"features/{name}" for name in missing}}
        with pytest.raises(DataError) as raised:
            methods.run(network, kept)
        assert str(raised.value) == (
            f"The batch has its 'sr' already, but not the features of {list(missing)} from the same call of the "
            "network. Run it without 'sr'."
        )


# --------------------------------------------------------------------------------------------------- weights and logs


def test_the_log_is_of_weighted_and_raw_terms_and_what_the_method_measured() -> None:
    methods, _, batch = ready(Mine(edges, weights={"edges": TermWeight("mine_edges", 0.25)}))
    contrast = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    raw = edges(batch)["edges"].loss
    assert set(contrast.metrics) == {
        "mine_edges", "mine_edges_raw", "mine_edges_weight", "mine_edges_share", "mine_size",
    }  # fmt: skip
    assert not any(value.requires_grad for value in contrast.metrics.values())
    assert contrast.metrics["mine_edges_raw"] == raw
    assert contrast.metrics["mine_edges"] == contrast.loss == 0.25 * raw
    assert contrast.points is None
    (got,) = torch.autograd.grad(contrast.loss, batch["sr"], retain_graph=True)
    torch.testing.assert_close(got, 0.25 * torch.autograd.grad(raw, batch["sr"])[0])
    assert "mine_edges_share" not in methods.sr_losses(batch).metrics


def test_metrics_of_auxiliary_losses_are_logged_with_the_terms() -> None:
    mine = Mine(edges)
    mine.answers["auxiliary"] = lambda batch: {
        "head": Contrast(mine.part(batch["sr"]).mean(), {"fill": torch.ones(())})
    }
    methods, _, batch = ready(mine)
    assert "mine_fill" not in methods.sr_losses(batch).metrics
    assert list(methods.auxiliary_losses(batch)) == ["mine_head"]
    assert methods.sr_losses(batch).metrics["mine_fill"] == 1


def test_a_term_that_is_not_active_yet_logs_zeros_of_the_same_names() -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="there is no teacher"):
        method = MPF(embedding=SmoothEmbedding(), warmup_steps=2)
    network = net()
    methods = attached(network, method)
    logs = []
    for step in range(4):
        batch = methods.run(network, images_batch(seed=step))
        methods.auxiliary_losses(batch)
        logs.append(methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])))
    names = {f"mpf_contrastive{end}" for end in ("", "_raw", "_weight", "_share")}
    names |= {"mpf_positive_similarity", "mpf_negative_similarity"}
    assert [set(contrast.metrics) for contrast in logs] == [names] * 4
    assert all(value == 0 for contrast in logs[:2] for value in (contrast.loss, *contrast.metrics.values()))
    assert all(value != 0 for contrast in logs[2:] for value in (contrast.loss, *contrast.metrics.values()))


def test_a_share_of_a_term_that_is_not_active_yet_needs_a_pixel_loss_from_the_start() -> None:
    methods, _, batch = ready(Mine(weights={"edges": TermWeight("mine_edges", share=0.1)}))
    with pytest.raises(ConfigError, match="mine_edges: `loss_share` is a share of the pixel loss, and this training"):
        methods.sr_losses(batch)


def test_a_term_whose_weight_warms_up_is_measured_and_does_not_count() -> None:
    mine = Mine(edges, weights={"edges": TermWeight("mine_edges", share=0.1, warmup_steps=2)})
    methods, network, _ = ready(mine)
    for step in range(4):
        batch = methods.run(network, images_batch(seed=step))
        contrast = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert (contrast.loss > 0) == (contrast.metrics["mine_edges_weight"] > 0) == (step >= 2)
        assert contrast.metrics["mine_edges_raw"] > 0
        assert mine.weights["edges"].latest > 0
        assert not methods.warming_up  # the host's losses count


# ----------------------------------------------------------------------------------------------------------- warm-up


def degraded(seed: int) -> dict[str, Tensor]:
    return {**images_batch(seed), "lr_key": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))}


def test_in_dasr_s_warm_up_the_encoder_alone_runs_and_learns_and_other_methods_rest() -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    dasr = DASR(loss_weight=0.01, warmup_steps=2, queue_size=8)
    others = pcl(embedding={"type": "HaarDiscriminator", "out_indices": [0]}), Mine(edges, metrics={"edges": ["size"]})
    methods = attached(network, dasr, *others)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    calls = {"network": 0, "encoder": 0}
    for name, module in (("network", network), ("encoder", network.encoder)):

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        module.register_forward_hook(count)
    outside = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    inside = list(network.encoder.parameters())
    logs = []
    for step in range(4):
        resting = methods.warming_up
        assert resting == (step < 2)
        batch = methods.run(network, degraded(step))
        assert ("sr" in batch) == (not resting)
        assert calls == {"network": max(0, step - 1), "encoder": step + 1}
        auxiliary = methods.auxiliary_losses(batch)
        assert list(auxiliary) == ([] if resting else ["pcl_discriminator"])
        pixel = None if resting else F.l1_loss(batch["sr"], batch["hr"])
        contrast = methods.sr_losses(batch, pixel)
        optimizer.zero_grad()
        (contrast.loss if pixel is None else contrast.loss + pixel).backward()
        assert all(p.grad is not None for p in inside)
        assert all((p.grad is None) == resting for p in outside)
        optimizer.step()
        assert all((p in optimizer.state) == (not resting) for p in outside)
        logs.append(contrast.metrics)
        assert contrast.metrics["dasr_host_factor"] == (0 if resting else 1)
        for key in ("pcl_contrastive", "pcl_contrastive_raw", "pcl_positive_similarity", "mine_edges_raw"):
            assert (contrast.metrics[key] == 0) == resting, key
        assert (contrast.metrics["dasr_contrastive_raw"] > 0) == (step > 0)  # no negatives in the queue yet
    assert methods.step.value == 4
    assert all(set(log) == set(logs[-1]) for log in logs)


def test_the_first_steps_of_other_methods_begin_behind_the_warm_up() -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    shared = PCL(every=1, embedding=embedding, train_embedding=2, loss_share=0.5, share_interval=100)
    methods = attached(network, DASR(loss_weight=0.01, warmup_steps=30, queue_size=64), shared)
    learnt, weights, seen = [], [], []
    for number in range(34):
        batch = methods.run(network, degraded(number))
        learnt.append("pcl_discriminator" in methods.auxiliary_losses(batch))
        pixel = None if methods.warming_up else F.l1_loss(batch["sr"], batch["hr"])
        weights.append(methods.sr_losses(batch, pixel).metrics["pcl_contrastive_weight"].item())
        seen.append(shared.weights["contrastive"].latest.item())
    assert [number for number, value in enumerate(learnt) if value] == [30, 31]
    assert all((weight > 0) == (number >= 30) for number, weight in enumerate(weights))
    assert len(set(seen)) == 5  # measured at each of its own first steps


@pytest.mark.parametrize("warmup", [3, 4, 5])
def test_a_lazy_method_begins_with_the_first_step_behind_the_warm_up(warmup: int) -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    pcl = PCL(loss_weight=0.1, every=4, embedding={"type": "HaarDiscriminator", "out_indices": [0]})
    methods = attached(network, DASR(loss_weight=0.01, warmup_steps=warmup, queue_size=8), pcl)
    took_part = []
    for number in range(warmup + 9):
        batch = methods.run(network, degraded(number))
        if methods.auxiliary_losses(batch):
            took_part.append(number - warmup)
        methods.sr_losses(batch, None if methods.warming_up else F.l1_loss(batch["sr"], batch["hr"]))
    assert took_part == [0, 4, 8]


@pytest.mark.parametrize(
    "method",
    [
        {"type": "PCL", "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}},
        {"type": "ContrastiveRegularization", "embedding": {"type": "SNResNet18", "out_indices": [0]}},
        {"type": "CriterionTerm", "criterion": "Adversarial"},
        {"type": "DegradationContrast", "queue_size": 8, "split_lr": True},
    ],
    ids=lambda method: method["type"],
)
def test_in_eval_mode_terms_move_no_part_of_the_state(method: dict[str, Any]) -> None:
    """Not of parts with BatchNorm either, which are used as in training."""
    torch.manual_seed(0)
    network = net()
    methods = attached(network, *build_methods([method]))
    methods.run(network, images_batch(0))
    methods.eval()
    before = {name: value.clone() for name, value in methods.state_dict().items()}
    with torch.no_grad():
        batch = methods.run(network, images_batch(1))
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        methods.compared(batch)
    assert_same(dict(methods.state_dict()), before)


def test_in_eval_mode_nothing_is_counted_or_measured() -> None:
    torch.manual_seed(0)
    network = net()
    methods = attached(network, PCL(loss_share=0.5, embedding=SmoothEmbedding(), every=2))
    step(methods, network, 0)
    before = {name: value.clone() for name, value in methods.state_dict().items()}
    methods.eval()
    for number in range(3):
        with torch.no_grad():
            batch = methods.run(network, images_batch(number))
            contrast = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert contrast.metrics["pcl_contrastive_raw"] > 0
    after = methods.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_share_is_measured_after_the_warm_up() -> None:
    torch.manual_seed(0)
    network = networks.DASR(channels=4, groups=1, blocks=1)
    methods = attached(network, DASR(loss_share=0.5, warmup_steps=1, queue_size=8))
    contrast = methods.sr_losses(methods.run(network, degraded(0)))
    assert contrast.metrics["dasr_contrastive_weight"] == 1
    assert contrast.loss == contrast.metrics["dasr_contrastive_raw"]
    batch = methods.run(network, degraded(1))
    metrics = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).metrics
    assert_close(metrics["dasr_contrastive_share"], 0.5, dtype=torch.float32)


def test_a_warm_up_without_a_module_runs_the_whole_network() -> None:
    methods, network, _ = ready(Mine(edges, warmup_steps=2), Mine(edges, name="other"), pcl())
    for step in range(3):
        resting = step < 2
        assert methods.warming_up == resting
        calls = network.calls
        batch = methods.run(network, images_batch(seed=step))
        assert network.calls == calls + 1
        contrast = methods.sr_losses(batch, None if resting else F.l1_loss(batch["sr"], batch["hr"]))
        contrast.loss.backward()
        assert all(p.grad is not None for p in network.parameters())
        assert contrast.metrics["mine_edges"] > 0
        assert (contrast.metrics["other_edges"] == 0) == (contrast.metrics["pcl_contrastive"] == 0) == resting
        if resting:
            torch.testing.assert_close(contrast.loss.detach(), contrast.metrics["mine_edges"])


def test_methods_that_warm_up_for_longer_go_on_alone() -> None:
    methods, network, _ = ready(Mine(edges, warmup_steps=1), Mine(edges, name="longer", warmup_steps=2))
    active = []
    for step in range(3):
        metrics = methods.sr_losses(methods.run(network, images_batch(seed=step))).metrics
        active.append([name for name in methods.names if metrics[f"{name}_edges"] > 0])
    assert active == [["mine", "longer"], ["longer"], ["mine", "longer"]]


def test_a_term_of_a_part_that_runs_alone_needs_points() -> None:
    def of_layer(batch: Batch, **points: Any) -> dict[str, Contrast]:
        return {"edges": Contrast(batch["features/body.0"].square().mean(), **points)}

    mine = Mine(of_layer, layers=("body.0",), warmup_steps=1, warmup_module="body")
    methods, network, batch = ready(mine)
    assert set(batch) == {"lr", "hr", "features/body.0"}
    assert network.calls == 1  # the dry run
    with pytest.raises(
        ConfigError, match=r"mine: terms\(\) of Mine: expected points of 'edges', .* 'body' alone is run"
    ):
        methods.sr_losses(batch)
    mine.answers["terms"] = lambda batch: of_layer(batch, points=[batch["features/body.0"]])
    methods.sr_losses(batch).loss.backward()
    assert network.body[0].weight.grad is not None


# -------------------------------------------------------------------------------------------------------- finite or not


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_named_with_its_step(value: float) -> None:
    mine = Mine(edges, lambda batch: {"head": Contrast(scale * mine.part.weight.mean())}, name="my_own")
    scale = 1.0
    methods, network, batch = ready(mine)
    methods.auxiliary_losses(batch)
    methods.sr_losses(batch)
    scale = value
    with pytest.raises(
        NonFiniteError, match=r"my_own_head at SR step 2: expected a finite number, got .*learning rate"
    ):
        methods.auxiliary_losses(batch)
    mine.answers["terms"] = lambda batch: {"edges": Contrast(value * batch["sr"].mean())}
    with pytest.raises(NonFiniteError, match=r"my_own_edges at SR step 2: expected a finite number, got .*loss_share"):
        methods.sr_losses(batch)
    with torch.no_grad():
        network.body[0].bias.fill_(value)
    with pytest.raises(NonFiniteError, match=r"mean of the SR network's output at SR step 2: expected a finite number"):
        methods.run(network, images_batch())
    assert methods.step.value == 1


# --------------------------------------------------------------------------------------------------- lazy methods


def lazy(every: int, **arguments: Any) -> tuple[Methods, CountingNet]:
    torch.manual_seed(0)
    network = net()
    return attached(network, PCL(loss_weight=0.01, embedding=SmoothEmbedding(), every=every, **arguments)), network


def step(methods: Methods, network: CountingNet, seed: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss, log and the loss's gradient at the SR image."""
    batch = methods.run(network, images_batch(seed))
    methods.auxiliary_losses(batch)
    loss, log, _ = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    gradient = torch.autograd.grad(loss, batch["sr"])[0] if loss.requires_grad else torch.zeros_like(batch["sr"])
    return loss.detach(), dict(log), gradient


@pytest.mark.parametrize("every", [2, 3])
def test_a_lazy_method_counts_so_many_times_as_much_at_each_so_many_th_step(every: int) -> None:
    (methods, network), (often, other) = lazy(every), lazy(1)
    for number in range(2 * every + 1):
        loss, log, gradient = step(methods, network, number)
        plain, plain_log, plain_gradient = step(often, other, number)
        if number % every == 0:
            assert_close(loss, every * plain, dtype=torch.float32)
            assert_close(gradient, every * plain_gradient, "loose", dtype=torch.float32)
            kept = plain_log
        else:
            assert not loss.any()
            assert not gradient.any()
        assert set(log) == set(plain_log)
        # in between it logs what it logged; the weight and the share are means over all steps
        for name, value in kept.items():
            assert_close(log[name], value, dtype=torch.float32)


def test_a_share_is_kept_as_a_mean_over_all_steps() -> None:
    torch.manual_seed(0)
    network = net()
    methods = attached(network, PCL(loss_share=0.3, embedding=SmoothEmbedding(), every=4))
    batch = methods.run(network, images_batch())
    pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
    loss, log, _ = methods.sr_losses(batch, pixel_loss)
    at_pixel, at_term = (torch.autograd.grad(x, batch["sr"], retain_graph=True)[0].norm() for x in (pixel_loss, loss))
    assert_close(at_term / at_pixel, 4 * 0.3, dtype=torch.float32)
    assert log["pcl_contrastive_share"].item() == pytest.approx(0.3)


def test_parts_of_a_lazy_method_learn_in_its_steps_and_its_losses_are_logged_in_between() -> None:
    torch.manual_seed(0)
    network = net()
    methods = attached(network, PCL(loss_weight=0.01, every=2, embedding={"type": "HaarDiscriminator"}))
    logs = []
    for number in range(4):
        batch = methods.run(network, images_batch(number))
        assert bool(methods.auxiliary_losses(batch)) == (number % 2 == 0)
        logs.append(methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).metrics)
    assert all(set(log) == set(logs[0]) for log in logs)
    assert logs[0]["pcl_discriminator"] == logs[1]["pcl_discriminator"] != logs[2]["pcl_discriminator"]
    assert methods.loss_names == {"pcl_contrastive", "pcl_discriminator"}


def test_a_validation_counts_a_lazy_term_once_and_leaves_the_log_of_the_training_alone() -> None:
    (methods, network), (often, other) = lazy(4), lazy(1)
    _, first, _ = step(methods, network, 0)
    step(often, other, 0)  # samples are drawn anew at each step
    methods.eval()
    often.eval()
    loss, log, _ = step(methods, network, 7)
    plain, _, _ = step(often, other, 7)
    assert plain.any()
    assert_close(loss, plain, dtype=torch.float32)
    (raw,) = (name for name in log if name.endswith("_raw"))
    assert log[raw] != first[raw]
    methods.train()
    _, second, _ = step(methods, network, 1)
    assert second[raw] == first[raw]


def test_layers_are_read_in_the_steps_of_their_method_alone() -> None:
    torch.manual_seed(0)
    network = net()
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    methods = attached(network, InfoNCE(loss_weight=0.1, layers=["body.0"], embedding=embedding, every=2))
    for number in range(3):
        batch = methods.run(network, images_batch(number, size=64))
        assert ("features/body.0" in batch) == (number % 2 == 0)
        methods.auxiliary_losses(batch)
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))


def test_a_lazy_method_is_looked_at_at_any_step() -> None:
    methods, network = lazy(3)
    step(methods, network, 0)
    methods.eval()
    assert methods.compared(methods.run(network, images_batch()))


def test_zeros_are_no_gradients_of_parts_that_rest() -> None:
    torch.manual_seed(0)
    network = net()
    methods = attached(network, PCL(loss_weight=0.1, every=1), PCL(loss_weight=0.1, name="rare", every=2))
    step(methods, network, 0)
    methods.drop_idle_gradients()
    batch = methods.run(network, images_batch(1))
    losses = methods.auxiliary_losses(batch)
    for parameter in methods.parameters():
        parameter.grad = torch.zeros_like(parameter)  # what DistributedDataParallel does
    sum(losses.values()).backward()
    methods.drop_idle_gradients()
    assert all(p.grad is not None for p in methods["pcl"].parameters())
    assert all(p.grad is None for p in methods["rare"].parameters())


def test_a_part_that_learnt_from_one_of_several_batches_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    network = net()
    methods = attached(network, PCL(loss_weight=0.1, every=1), PCL(loss_weight=0.1, name="rare", every=2))
    for number in range(2):  # of which one optimizer step follows
        batch = methods.run(network, images_batch(number))
        sum(methods.auxiliary_losses(batch).values()).backward()
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    methods.drop_idle_gradients()
    assert all(p.grad is not None for p in methods.parameters())
    batch = methods.run(network, images_batch(2))
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    batch = methods.run(network, images_batch(3))
    methods.auxiliary_losses(batch)
    methods.drop_idle_gradients()
    assert {p.grad is None for p in methods["rare"].parameters()} == {True}


def test_a_part_that_no_longer_learns_beside_one_that_does_is_at_rest() -> None:
    torch.manual_seed(0)
    network = net()
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    methods = attached(network, InfoNCE(loss_weight=0.1, embedding=embedding, train_embedding=1, dim=4))
    for number in range(2):
        batch = methods.run(network, images_batch(number, size=64))
        losses = methods.auxiliary_losses(batch)
        assert ("nce_discriminator" in losses) == (number == 0)
        for parameter in methods.parameters():
            parameter.grad = torch.zeros_like(parameter)  # what DistributedDataParallel does
        sum(losses.values()).backward()
        methods.drop_idle_gradients()
        assert {p.grad is None for p in methods["nce"].embedding.parameters()} == {number == 1}
        assert all(p.grad is not None for p in methods["nce"].loss.heads.parameters())
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_every_is_a_whole_number_of_at_least_1(every: Any) -> None:
    with pytest.raises(ConfigError, match=r"pcl: every: expected"):
        PCL(embedding=SmoothEmbedding(), every=every)
