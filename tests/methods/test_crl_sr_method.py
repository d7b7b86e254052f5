"""CRL-SR's training: the six variants of Table 1, who learns from what, and the warm-up."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from host import Training, methods_on, raw_terms
from method_oracles import info_nce_loops, srnce_negative_loops, unit_vectors
from small_models import CountingNet, images_batch
from tolerances import assert_close
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from contrastive_sr import networks
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import CRLSR, Methods, build_methods
from contrastive_sr.methods.crl_sr import VARIANTS
from contrastive_sr.methods.weighting import DEFAULT_SHARE, TermWeight

DECOUPLED, REFINED = "def", "bcef"


SMALL = {"CRLSR": {"loss_weight": 0.1, "decoupling_weight": 0.1, "dim": 4}}


def network(seed: int = 1, **arguments: Any) -> networks.CRLSR:
    torch.manual_seed(seed)
    return networks.CRLSR(**{"channels": 5, "encoder_blocks": 3, "decoder_blocks": 1, **arguments})


def build(**arguments: Any) -> CRLSR:
    torch.manual_seed(0)
    weights = (
        {} if any(key.endswith("_share") for key in arguments) else {"loss_weight": 0.01, "decoupling_weight": 0.01}
    )
    return CRLSR(**{"warmup_steps": 0, "dim": 6, "positions": 16, **weights, **arguments})


def attached(net: networks.CRLSR, **arguments: Any) -> tuple[CRLSR, Methods]:
    """A method, and the engine that is attached to a network."""
    method = build(**arguments)
    return method, methods_on(net, method)


def ready(seed: int = 0, **arguments: Any) -> tuple[CRLSR, Methods, networks.CRLSR, dict[str, Tensor]]:
    net = network()
    method, methods = attached(net, **arguments)
    return method, methods, net, methods.run(net, images_batch(seed))


def names(variant: str) -> tuple[set[str], set[str], set[str]]:
    """Terms, auxiliary losses and metrics of a variant."""
    terms = {"decoupling"} & {"decoupling" if variant in DECOUPLED else ""}
    auxiliary, metrics = set(), set()
    if variant in DECOUPLED:
        auxiliary.add("hr_encoder")
        metrics.add("decoupling_similarity")
    if variant in REFINED:
        terms.add("refinement")
        auxiliary |= {"reconstruction", "refinement_head"}
        metrics |= {"positive_similarity"} | ({"lr_similarity"} if variant in "bf" else set())
    return terms, auxiliary, metrics


# Table 1


@pytest.mark.parametrize("model", VARIANTS)
def test_models_have_the_parts_of_table_1(model: str) -> None:
    method, methods, _, batch = ready(variant=model)
    terms, auxiliary, metrics = names(model)
    assert set(methods(batch)) == {f"crl_sr_{name}" for name in auxiliary}
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert {name.removeprefix("crl_sr_") for name in losses.metrics} == metrics | {
        f"{term}{kind}" for term in terms for kind in ("", "_raw", "_weight", "_share")
    }
    assert methods.trainable == (model != "a")
    present = {"hr_encoder": method.hr_encoder, "features": method.features, "reconstruction": method.reconstruction}
    assert {name for name, part in present.items() if part is not None} == (
        ({"hr_encoder"} if model in DECOUPLED else set())
        | ({"features", "reconstruction"} if model in REFINED else set())
    )
    assert {key for key in batch if "/" in key} == (
        {f"features/encoder.{tap}" for tap in ("blocks.0", "blocks.1", "out")} if model not in "ac" else set()
    )


def test_model_a_is_the_network_and_the_pixel_loss() -> None:
    method, methods, net, batch = ready(variant="a")
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert losses.loss == 0
    assert losses.metrics == {}
    assert list(method.parameters()) == []
    assert list(net.state_dict()) == list(network().state_dict())


@pytest.mark.parametrize("model", VARIANTS)
def test_weights_of_what_a_model_lacks_may_stay(model: str) -> None:
    """So that the ablation is one flag."""
    for weights in ({"loss_share": 0.05, "decoupling_share": 0.05}, {"loss_weight": 1, "decoupling_weight": 1}):
        assert set(CRLSR(variant=model, **weights).weights) == names(model)[0]
    if model not in REFINED:
        CRLSR(variant=model, decoupling_weight=0.1)
    if model not in DECOUPLED:
        CRLSR(variant=model, loss_weight=0.1)


# Values


def maps(heads: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    """Vectors behind the heads, as maps."""
    pairs = zip(heads, features, strict=True)
    return [head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for head, x in pairs]


def mean_over_images_and_layers(loss: Any, *roles: list[Tensor]) -> float:
    values = [
        loss(*(unit_vectors(role[image]) for role in layer))
        for layer in zip(*roles, strict=True)
        for image in range(len(layer[0]))
    ]
    return sum(values) / len(values)


@pytest.mark.parametrize("model", ["e", "f"])
def test_terms_are_the_equations(model: str) -> None:
    net = network().double()
    method, methods = attached(net, variant=model, srnce_variant="negative", positions=None, temperature=0.2)
    methods.double()
    batch = methods.run(net, {key: value.double() for key, value in images_batch(size=16).items()})
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic", align_corners=False)
    lr = net.encoder(enlarged)
    assert method.decoupling is not None
    assert method.hr_encoder is not None
    assert method.features is not None
    assert method.places is not None
    a, b = maps(method.decoupling.anchor_heads, lr), maps(method.decoupling.heads, method.hr_encoder(batch["hr"]))
    both = [lambda x, y: info_nce_loops(x, y, 0.2), lambda x, y: info_nce_loops(y, x, 0.2)]
    want = sum(mean_over_images_and_layers(direction, a, b) for direction in both)
    losses = methods.sr_losses(batch)
    assert_close(losses.metrics["crl_sr_decoupling_raw"], want, dtype=torch.float64)

    hr, sr, condition = (
        maps(method.places.heads, x) for x in (method.features(batch["hr"]), method.features(batch["sr"]), lr)
    )
    if model == "f":
        want = mean_over_images_and_layers(lambda h, s, c: srnce_negative_loops(h, s, c, 0.2), hr, sr, condition)
        near = [F.cosine_similarity(x, y).mean() for x, y in zip(sr, condition, strict=True)]
        assert losses.metrics["crl_sr_lr_similarity"].item() == pytest.approx(torch.stack(near).mean().item())
    else:
        want = mean_over_images_and_layers(lambda h, s: info_nce_loops(h, s, 0.2), hr, sr)
    assert_close(losses.metrics["crl_sr_refinement_raw"], want, dtype=torch.float64)
    near = [F.cosine_similarity(x, y).mean() for x, y in zip(sr, hr, strict=True)]
    assert losses.metrics["crl_sr_positive_similarity"].item() == pytest.approx(torch.stack(near).mean().item())


def test_reconstruction_is_eq_7() -> None:
    method, methods, _, batch = ready()
    assert method.features is not None
    assert method.reconstruction is not None
    want = (batch["hr"] - method.reconstruction(method.features(batch["hr"])[-1])).abs().mean()
    torch.testing.assert_close(methods(batch)["crl_sr_reconstruction"], want)


@pytest.mark.parametrize("model", ["e", "f"])
def test_both_steps_see_the_same_positions_and_the_next_step_others(model: str) -> None:
    _, methods, net, batch = ready(positions=4, variant=model)
    auxiliary = methods(batch)
    logs = methods.sr_losses(batch).metrics
    assert logs["crl_sr_decoupling_raw"].item() == pytest.approx(auxiliary["crl_sr_hr_encoder"].item())
    if model == "e":
        assert logs["crl_sr_refinement_raw"].item() == pytest.approx(auxiliary["crl_sr_refinement_head"].item())
    again = methods(methods.run(net, images_batch()))
    assert again["crl_sr_hr_encoder"].item() != auxiliary["crl_sr_hr_encoder"].item()


def test_heads_learn_to_find_places_among_sr_and_lr_features() -> None:
    net = network().double()
    method, methods = attached(net, positions=None, temperature=0.2)
    batch = methods.run(net, {key: value.double() for key, value in images_batch(size=16).items()})
    assert method.features is not None
    assert method.places is not None
    features = method.features(batch["hr"]), method.features(batch["sr"]), method._lr_maps(batch)
    hr, sr, lr = (maps(method.places.heads, x) for x in features)
    want = sum(mean_over_images_and_layers(lambda h, x: info_nce_loops(h, x, 0.2), hr, other) for other in (sr, lr))
    assert_close(methods(batch)["crl_sr_refinement_head"], want, dtype=torch.float64)


# Gradients: who learns from what


def trained(module: nn.Module) -> set[str]:
    """Names of parts of which every parameter has a gradient, not all of them zero."""
    parts: dict[str, list[Tensor | None]] = {}
    for name, parameter in module.named_parameters():
        parts.setdefault(name.split(".")[0], []).append(parameter.grad)
    for name, gradients in parts.items():
        assert len({gradient is None for gradient in gradients}) == 1, name
    return {name for name, each in parts.items() if any(g is not None and bool(g.abs().sum()) for g in each)}


def test_decoupling_trains_the_lr_encoder_and_nothing_else() -> None:
    method, methods, net, batch = ready()
    raw_terms(methods, batch)["decoupling"].loss.backward()
    assert trained(net) == {"encoder"}
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("model", ["b", "c", "f"])
def test_refinement_trains_the_whole_network_and_nothing_else(model: str) -> None:
    method, methods, net, batch = ready(variant=model)
    raw_terms(methods, batch)["refinement"].loss.backward()
    assert trained(net) == {"encoder", "decoder"}
    assert all(p.grad is None for p in method.parameters())
    assert all(p.requires_grad for p in method.parameters())


def test_the_condition_gets_no_gradient() -> None:
    """LR features get what comes through the SR image, and nothing at the condition's own place in the loss."""
    _, methods, _, batch = ready(variant="b")
    names = [name for name in batch if "/" in name]
    cut = {
        **batch,
        "sr": batch["sr"].detach().requires_grad_(),
        **{name: batch[name].detach().requires_grad_() for name in names},
    }
    raw_terms(methods, cut)["refinement"].loss.backward()
    assert cut["sr"].grad is not None
    assert cut["sr"].grad.abs().sum() > 0
    for name in names:
        assert cut[name].grad is None or not cut[name].grad.any(), name


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ("hr_encoder", {"hr_encoder", "decoupling"}),
        ("reconstruction", {"features", "reconstruction"}),
        ("refinement_head", {"places"}),
    ],
)
def test_auxiliary_losses_train_one_part_each(loss: str, parts: set[str]) -> None:
    method, methods, net, batch = ready()
    methods(batch)[f"crl_sr_{loss}"].backward()
    assert all(p.grad is None for p in net.parameters())
    assert trained(method) == parts


def test_the_auxiliary_step_trains_all_parts() -> None:
    """DistributedDataParallel would wait for one that it does not."""
    for model in "bcdef":
        _, methods, _, batch = ready(variant=model)
        sum(methods(batch).values()).backward()
        assert all(p.grad is not None for p in methods.parameters())


@pytest.mark.parametrize("loss", ["hr_encoder", "reconstruction", "refinement_head"])
def test_training_lowers_the_auxiliary_losses(loss: str) -> None:
    net = network(channels=16)
    _, methods = attached(net, dim=16)
    batch = methods.run(net, images_batch())
    optimizer = torch.optim.Adam(methods.parameters(), 1e-2)
    seen = []
    for _ in range(40):
        value = methods(batch)[f"crl_sr_{loss}"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.95 * seen[0]


@pytest.mark.parametrize("by_eq_6", [False, True])
def test_heads_keep_the_condition_in_sight(by_eq_6: bool) -> None:
    """Trained by eq. 6 they turn LR features away from SR ones, until its push outweighs its pull."""
    net = network(channels=16)
    method, methods = attached(net, dim=16, positions=None)
    batch = methods.run(net, images_batch())
    batch = {key: value.detach() for key, value in batch.items()}
    assert method.places is not None
    assert method.srnce is not None
    assert method.features is not None
    roles = [method.features(batch["hr"]), method.features(batch["sr"]), method._lr_maps(batch)]
    hr, sr, lr = ([x.detach() for x in role] for role in roles)
    optimizer = torch.optim.Adam(method.places.parameters(), 1e-2)
    for _ in range(60):
        loss = method.srnce(hr, sr, lr) if by_eq_6 else methods(batch)["crl_sr_refinement_head"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = method.srnce.contrast(hr, sr, lr).metrics
    assert (1 - metrics["lr_similarity"] > metrics["positive_similarity"]) == by_eq_6


# Joint training, the paper's


@pytest.mark.parametrize("model", ["e", "f"])
def test_joint_training_is_by_the_refinement_itself(model: str) -> None:
    net = network().double()
    method, methods = attached(net, variant=model, positions=None, joint=True, temperature=0.2)
    methods.double()
    batch = methods.run(net, {key: value.double() for key, value in images_batch(size=16).items()})
    losses = methods(batch)
    term = raw_terms(methods, batch)["refinement"].loss
    assert_close(losses["crl_sr_refinement_head"], term, dtype=torch.float64)
    losses["crl_sr_refinement_head"].backward()
    assert trained(method) == {"features", "places"}
    assert all(p.grad is None for p in net.parameters())


def test_joint_training_reaches_the_condition() -> None:
    """The SR network's encoder learns by eq. 6 at the condition's place too."""
    _, methods, _, batch = ready(variant="b", joint=True)
    names = [name for name in batch if "/" in name]
    cut = {**batch, **{name: batch[name].detach().requires_grad_() for name in names}}
    raw_terms(methods, cut)["refinement"].loss.backward()
    for name in names:
        assert cut[name].grad is not None
        assert cut[name].grad.abs().sum() > 0, name


def test_equations_2_and_4_as_printed() -> None:
    """Eq. 2 is a sum over positions, eq. 4 has no penalty."""
    net = network()
    raw = {}
    for key, arguments in {
        "mean": {},
        "sum": {"reduction": "sum"},
        "eq. 4": {"penalty": False, "srnce_variant": "paper"},
        "eq. 6": {"srnce_variant": "paper"},
    }.items():
        _, methods = attached(net, positions=16, **arguments)
        terms = raw_terms(methods, methods.run(net, images_batch(size=32)))
        raw[key] = {name: term.loss.item() for name, term in terms.items()}
    images, layers = 2, 3
    for name in ("decoupling", "refinement"):
        assert raw["sum"][name] == pytest.approx(16 * images * layers * raw["mean"][name], rel=1e-5)
    assert raw["eq. 4"]["refinement"] < raw["eq. 6"]["refinement"]  # the penalty weakens the numerator


@pytest.mark.parametrize("arguments", [{"reduction": "none"}, {"penalty": "no"}, {"joint": 1}])
def test_other_forms_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"crl_sr: {next(iter(arguments))}"):
        build(**arguments)


# Warm-up, logs and shares


def run(methods: Methods, net: networks.CRLSR, steps: int) -> list[dict[str, float]]:
    logs = []
    for step in range(steps):
        batch = methods.run(net, images_batch(step))
        assert not methods.warming_up  # the host's losses count
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        logs.append({name: value.item() for name, value in losses.metrics.items()})
    return logs


@pytest.mark.parametrize("share", [{}, {"loss_share": 0.05, "decoupling_share": 0.1}])
def test_refinement_waits_for_the_warm_up(share: dict[str, float]) -> None:
    net = network()
    _, methods = attached(net, warmup_steps=2, share_interval=1, **share)
    logs = run(methods, net, 4)
    assert [log["crl_sr_refinement_weight"] > 0 for log in logs] == [False, False, True, True]
    assert [log["crl_sr_refinement"] > 0 for log in logs] == [False, False, True, True]
    assert all(log["crl_sr_decoupling_weight"] > 0 and log["crl_sr_refinement_raw"] > 0 for log in logs)
    assert all(set(log) == set(logs[0]) for log in logs)
    assert not [name for name in logs[0] if "loss" in name]
    if share:
        assert [log["crl_sr_refinement_share"] for log in logs][:2] == [0, 0]
        assert logs[2]["crl_sr_refinement_share"] == pytest.approx(0.05, rel=0.5)


def test_shares_are_those_at_the_lr_features_and_at_sr() -> None:
    _, methods, _, batch = ready(loss_share=0.05, decoupling_share=0.2)
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    terms = raw_terms(methods, batch)
    metrics = methods.sr_losses(batch, pixel).metrics
    at_features = [batch[name] for name in batch if "/" in name]
    for name, points, share in (("decoupling", at_features, 0.2), ("refinement", [batch["sr"]], 0.05)):
        norms = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, points, retain_graph=True)]).norm()
            for loss in (metrics[f"crl_sr_{name}_weight"] * terms[name].loss, pixel)
        ]
        assert_close(norms[0] / norms[1], share, "loose", dtype=torch.float32)


def test_mixed_precision_is_finite_and_near_float32() -> None:
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            _, methods, net, batch = ready(temperature=0.5, positions=None)
            auxiliary = sum(methods(batch).values())
            losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        (auxiliary + losses.loss).backward()
        for parameter in (*net.parameters(), *methods.parameters()):
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
        values.append([losses.metrics[f"crl_sr_{term}_raw"].item() for term in ("decoupling", "refinement")])
    assert values[1] == pytest.approx(values[0], rel=0.05)


def test_in_mixed_precision_terms_are_of_the_weights_as_they_are_now() -> None:
    values = []
    for clear in (False, True):
        torch.manual_seed(0)
        _, methods, _, batch = ready(temperature=0.5, positions=None)
        optimizer = torch.optim.SGD(methods.parameters(), 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            sum(methods(batch).values()).backward()
            optimizer.step()
            if clear:
                torch.clear_autocast_cache()  # which holds casts of parameters, from before the step
            metrics = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).metrics
        values.append([metrics[f"crl_sr_{term}_raw"].item() for term in ("decoupling", "refinement")])
    assert values[0] == values[1]


# State


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    """Stopped in the warm-up."""

    def new(seed: int) -> Training:
        net = network(seed)
        shares = {"loss_share": 0.05, "decoupling_share": 0.05}
        methods = build_methods(
            [{"type": "CRLSR", "dim": 6, "positions": 8, "warmup_steps": 3, "share_interval": 2, **shares}]
        )
        methods.attach(net)
        return Training(net, methods)

    def steps(training: Training, first: int, last: int) -> None:
        for step in range(first, last):
            training.step(images_batch(step))

    whole, first = new(0), new(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps(whole, 0, 5)
        steps(first, 0, 2)
        torch.save([part.state_dict() for part in first.parts], tmp_path / "state.pth")
        second = new(99)
        for part, state in zip(second.parts, torch.load(tmp_path / "state.pth"), strict=True):
            part.load_state_dict(state)
        torch.manual_seed(1234)  # the process's own random state has no part in it
        steps(second, 2, 5)
    assert first.logs + second.logs == whole.logs
    resumed = second.states()
    for name, value in whole.states().items():
        assert torch.equal(resumed[name], value), name


# Attach


def test_a_state_needs_the_networks_it_is_for() -> None:
    state = ready()[1].state_dict()
    with pytest.raises(ConfigError, match=r"The parts of the methods that a state is for .* Call attach\(net\) before"):
        Methods([build()]).load_state_dict(state)
    attached(network())[1].load_state_dict(state)
    attached(network(), variant="a")[1].load_state_dict(ready(variant="a")[1].state_dict())


def test_new_parts_are_of_the_network_s_dtype() -> None:
    method, _ = attached(network().double())
    assert {p.dtype for p in method.parameters()} == {torch.float64}


def test_attach_sees_through_a_wrapper_and_leaves_the_network_as_it_was() -> None:
    net = network()
    keys = list(net.state_dict())
    method = build()
    methods_on(DataParallel(net), method)
    assert method.hr_encoder is not None
    assert [p.shape for p in method.hr_encoder.parameters()] == [p.shape for p in net.encoder.parameters()]
    assert list(net.state_dict()) == keys


def test_attach_refuses_another_network_and_a_second_call() -> None:
    with pytest.raises(ConfigError, match=r"crl_sr: expected contrastive_sr\.networks\.CRLSR .* got CountingNet\. On"):
        methods_on(CountingNet(), build())
    methods, net = Methods([build()]), network()
    with pytest.raises(ConfigError, match=r"do not know the SR network yet\. Call attach\(net\) once"):
        methods.run(net, images_batch())
    methods.attach(net)
    with pytest.raises(ConfigError, match=r"attach\(\) was called before"):
        methods.attach(net)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "g"}, "crl_sr: variant: expected one of a, b, c, d, e, f, got 'g'"),
        (
            {"decoupling_weight": 1, "decoupling_share": 1},
            "crl_sr_decoupling: expected one of `decoupling_weight` .* and `decoupling_share` .* got both",
        ),
        ({"loss_weight": 1, "loss_share": 1}, "crl_sr_refinement: expected one of `loss_weight` .* got both"),
        ({"srnce_variant": "soft"}, "crl_sr: srnce_variant: expected one of negative, tempered, paper, got 'soft'"),
        ({"warmup_steps": -1}, "crl_sr: warmup_steps: expected a whole number of at least 0"),
        ({"dim": 0}, "crl_sr: dim: expected a whole number of at least 1"),
        ({"positions": 1}, r"\(positions\): expected a whole number of at least 2"),
        ({"temperature": 0}, r"\(temperature\): expected a number above 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    weights = {} if any("weight" in key for key in arguments) else {"loss_weight": 1, "decoupling_weight": 1}
    with pytest.raises(ConfigError, match=message):
        CRLSR(**weights, **arguments)


def test_with_neither_weight_nor_share_there_is_a_share() -> None:
    weights = CRLSR(loss_weight=0.1).weights, CRLSR(decoupling_weight=0.1).weights
    for weight in (weights[0]["decoupling"], weights[1]["refinement"]):
        assert isinstance(weight, TermWeight)
        assert (weight.fixed, weight.asked) == (None, DEFAULT_SHARE)
    assert DEFAULT_SHARE == 0.05


def test_images_of_another_scale_are_refused() -> None:
    net = network(scale=2)
    _, methods = attached(net)
    with pytest.raises(DataError, match="the SR network's output"):
        methods.run(net, images_batch())
