"""PCL: what its steps train, what they log, how they resume, and what they refuse."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached, step_of
from oracles import dual_loops, plain_contrast, relative_distance
from small_models import CountingNet, IdentityEmbedding, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import HaarDiscriminator, VGGFeatures
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.methods import METHODS, PCL, ContrastiveRegularization, Methods, build_methods
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SAMPLES, GaussianBlur, SampleGenerator, Sharpen

SMALL = {"PCL": {"loss_weight": 0.1}}  # what tests/test_fuzz_config.py builds


def pcl(**arguments: Any) -> PCL:
    """A method of reproducible parameters; at each step, loss_weight 0.0004 unless a weight or share is given."""
    torch.manual_seed(0)
    if not {"loss_weight", "loss_share"} & set(arguments):
        arguments["loss_weight"] = 0.0004
    return PCL(**{"every": 1, **arguments})


def net(seed: int = 1) -> CountingNet:
    torch.manual_seed(seed)
    return CountingNet()


def ready(method: PCL) -> tuple[Methods, CountingNet, dict[str, Tensor]]:
    network = net()
    methods = attached(network, method)
    return methods, network, methods.run(network, images_batch())


# Gradients: who learns from what


def test_auxiliary_step_trains_the_embedding_and_nothing_else() -> None:
    method = pcl()
    methods, network, batch = ready(method)
    methods.eval()  # whatever mode the host left it in
    before = copy.deepcopy(methods.state_dict())
    losses = methods.auxiliary_losses(batch)
    assert not any(module.training for module in method.embedding.modules())
    assert list(losses) == ["pcl_discriminator"]
    losses["pcl_discriminator"].backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.embedding.parameters())
    state = methods.state_dict()
    moved = [name for name in state if not torch.equal(state[name], before[name])]
    assert len(moved) == 3 * 8  # running mean, running variance and count of eight BatchNorms
    assert all(".norm." in name for name in moved)


def test_auxiliary_loss_is_equation_7_with_one_normalisation_for_both_sides() -> None:
    method = pcl()
    methods, _, batch = ready(method)
    reference = copy.deepcopy(method.embedding).train()
    real, fake = reference.logits(torch.cat((batch["hr"], batch["sr"].detach()))).detach().chunk(2)
    loss = methods.auxiliary_losses(batch)["pcl_discriminator"]
    assert_close(loss, dual_loops(real, fake), dtype=torch.float32)
    again = copy.deepcopy(attached(net(), pcl()))(batch)  # the module call is this loss
    assert torch.equal(again["pcl_discriminator"], loss)


def test_the_embedding_may_learn_from_the_samples_too() -> None:
    """Real are the positives, HR among them; fake the SR images and the negatives, all of one pass."""
    negatives = [GaussianBlur(count=2), {"type": "UpsampledLowResolution"}]
    method = pcl(train_on_samples=True, negatives=negatives, phase="fixed")
    methods, _, batch = ready(method)
    generator = step_of(methods).generator("cpu")
    real = torch.cat((batch["hr"], Sharpen(count=3)(batch, generator).flatten(0, 1)))
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)
    blurred = GaussianBlur(count=2)(batch, generator).flatten(0, 1)
    fake = torch.cat((batch["sr"].detach(), blurred, enlarged))
    reference = copy.deepcopy(method.embedding).train()
    logits = reference.logits(torch.cat((real, fake))).detach()
    losses = methods.auxiliary_losses(batch)
    assert_close(losses["pcl_discriminator"], dual_loops(*logits.split((len(real), len(fake)))), dtype=torch.float32)
    losses["pcl_discriminator"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.embedding.parameters())


def test_samples_teach_no_embedding_that_does_not_learn() -> None:
    with pytest.raises(ConfigError, match="train_on_samples: the embedding does not learn"):
        pcl(train_on_samples=True, embedding=IdentityEmbedding())


def test_sr_step_trains_the_network_and_nothing_else() -> None:
    method = pcl()
    methods, network, batch = ready(method)
    method.embedding.train()
    before = copy.deepcopy(method.embedding.state_dict())
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.embedding.state_dict().items())
    assert all(module.training for module in method.embedding.modules())
    assert methods.trainable
    assert all(p.requires_grad for p in method.embedding.parameters())


def test_term_is_equations_8_to_10_on_the_samples_drawn() -> None:
    method = pcl(
        temperature=0.5,
        positives=[{"type": "HighResolution"}, Sharpen(count=2)],
        negatives=[GaussianBlur(count=1), {"type": "UpsampledLowResolution"}],
        loss_weight=0.01,
    )
    methods, network, batch = ready(method)
    generator = step_of(methods).generator("cpu")
    positives = torch.cat((batch["hr"][:, None], Sharpen(count=2)(batch, generator)), 1)
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)
    negatives = torch.cat((GaussianBlur(count=1)(batch, generator), enlarged[:, None]), 1)
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))

    embed = method.embedding.eval()
    loss, near, far = plain_contrast(embed, batch["sr"], positives, negatives, 0.5)
    assert_close(losses.metrics["pcl_contrastive_raw"], loss, dtype=torch.float32)
    assert_close(losses.loss, 0.01 * loss.item(), dtype=torch.float32)
    assert_close(losses.metrics["pcl_contrastive"], 0.01 * loss.item(), dtype=torch.float32)
    assert_close(losses.metrics["pcl_positive_similarity"], near.mean(), dtype=torch.float32)
    assert_close(losses.metrics["pcl_negative_similarity"], far.mean(), dtype=torch.float32)
    weights = list(network.parameters())
    got = torch.autograd.grad(losses.loss, weights, retain_graph=True)
    expected = torch.autograd.grad(0.01 * loss, weights)
    for g, e in zip(got, expected, strict=True):
        assert relative_distance(g, e) < 1e-4


def test_default_samples_are_the_paper_s_four_and_four_and_one_with_dots() -> None:
    method = pcl()
    assert [(type(s).__name__, s.count) for s in method.positives] == [("HighResolution", 1), ("Sharpen", 3)]
    assert [(type(s).__name__, s.count) for s in method.negatives] == [("GaussianBlur", 4), ("PeriodicPattern", 1)]


# Weights and logs


@pytest.mark.parametrize("pixel_loss", [F.l1_loss, F.mse_loss])
def test_share_is_the_ratio_of_gradients_at_the_sr_image(pixel_loss: Any) -> None:
    method = pcl(loss_share=0.05)
    methods, _, batch = ready(method)
    generator = step_of(methods).generator("cpu")
    positives = torch.cat([sample(batch, generator) for sample in method.positives], 1)
    negatives = torch.cat([sample(batch, generator) for sample in method.negatives], 1)
    pixel = pixel_loss(batch["sr"], batch["hr"])
    losses = methods.sr_losses(batch, pixel)

    term, _, _ = plain_contrast(method.embedding.eval(), batch["sr"], positives, negatives)
    (term_gradient,) = torch.autograd.grad(term, batch["sr"], retain_graph=True)
    (pixel_gradient,) = torch.autograd.grad(pixel, batch["sr"], retain_graph=True)
    ratio = (term_gradient.norm() / pixel_gradient.norm()).item()
    assert_close(losses.metrics["pcl_contrastive_weight"], 0.05 / ratio, "loose", dtype=torch.float32)
    assert_close(losses.metrics["pcl_contrastive_share"], 0.05, dtype=torch.float32)
    (weighted,) = torch.autograd.grad(losses.loss, batch["sr"])
    assert_close(weighted.norm() / pixel_gradient.norm(), 0.05, "loose", dtype=torch.float32)


def test_weight_stays_between_measurements_and_moves_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TermWeight, "EARLY", 3)
    for arguments in ({"loss_share": 0.05}, {"loss_weight": 0.0004}):
        network = net()
        methods = attached(network, pcl(embedding=SmoothEmbedding(), share_interval=3, **arguments))
        logs = []
        for step in range(7):
            batch = methods.run(network, images_batch(seed=step))
            logs.append(methods.sr_losses(batch, (step + 1) * F.l1_loss(batch["sr"], batch["hr"])).metrics)
        weights, shares = ([log[f"pcl_contrastive_{key}"].item() for log in logs] for key in ("weight", "share"))
        if "loss_weight" in arguments:
            assert_close(weights, [0.0004] * 7, dtype=torch.float32)
        moving = weights if "loss_share" in arguments else shares
        assert len(set(moving[:4])) == 4
        assert moving[3] == moving[4] == moving[5] != moving[6]


@pytest.mark.parametrize("weight", [{"loss_share": 0.05}, {"loss_weight": 0.0004}])
def test_logs_are_detached_scalars_of_the_same_names_at_every_step(weight: dict[str, float]) -> None:
    network = net()
    methods = attached(network, pcl(embedding=SmoothEmbedding(), share_interval=2, **weight))
    for step in range(4):
        batch = methods.run(network, images_batch(seed=step))
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert sorted(losses.metrics) == [
            "pcl_contrastive",
            "pcl_contrastive_raw",
            "pcl_contrastive_share",
            "pcl_contrastive_weight",
            "pcl_negative_similarity",
            "pcl_positive_similarity",
        ]
        assert all(value.shape == () and not value.requires_grad for value in losses.metrics.values())
        assert not [key for key in losses.metrics if "loss" in key]
        assert losses.loss.requires_grad
        assert losses.loss.item() == losses.metrics["pcl_contrastive"].item()


def test_without_a_pixel_loss() -> None:
    fixed, _, batch = ready(pcl(embedding=SmoothEmbedding()))
    losses = fixed.sr_losses(batch)
    assert "pcl_contrastive_share" not in losses.metrics
    assert losses.loss.item() == pytest.approx(0.0004 * losses.metrics["pcl_contrastive_raw"].item())
    share, _, batch = ready(pcl(embedding=SmoothEmbedding(), loss_share=0.05))
    with pytest.raises(ConfigError, match="pcl_contrastive: `loss_share` is a share of the pixel loss"):
        share.sr_losses(batch)


def test_a_pixel_loss_of_another_tensor_is_refused() -> None:
    method = pcl(embedding=SmoothEmbedding(), loss_share=0.05)
    methods, network, batch = ready(method)
    with pytest.raises(DataError, match=r"pcl_contrastive: expected a pixel loss computed from batch\['sr'\]"):
        methods.sr_losses(batch, F.l1_loss(network(batch["lr"]), batch["hr"]))


def test_paper_s_own_weight_is_warned_about_once() -> None:
    method = pcl(loss_weight=0.1, share_interval=1)
    methods, _, batch = ready(method)
    with pytest.warns(UserWarning, match="pcl_contrastive: its gradient is .* times that of the pixel"):
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))


# State


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 steps against 10, files, and 10 more from new objects."""
    monkeypatch.setattr(TermWeight, "EARLY", 4)

    class Training:
        def __init__(self, seed: int) -> None:
            torch.manual_seed(seed)
            self.net = CountingNet()
            self.methods = build_methods([{"type": "PCL", "every": 1, "loss_share": 0.05, "share_interval": 4}])
            self.methods.attach(self.net)
            self.net_optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
            self.optimizer = torch.optim.Adam(self.methods.parameters(), 1e-4)
            self.metrics: list[dict[str, float]] = []
            self.parts = (self.net, self.methods, self.net_optimizer, self.optimizer)

        def steps(self, first: int, last: int) -> None:
            for step in range(first, last):
                batch = self.methods.run(self.net, images_batch(seed=step))
                self.optimizer.zero_grad()
                sum(self.methods(batch).values()).backward()
                self.optimizer.step()
                pixel = F.l1_loss(batch["sr"], batch["hr"])
                losses = self.methods.sr_losses(batch, pixel)
                self.net_optimizer.zero_grad()
                (pixel + losses.loss).backward()
                self.net_optimizer.step()
                self.metrics.append({key: value.item() for key, value in losses.metrics.items()})

    whole, first = Training(0), Training(0)
    whole.steps(0, 20)
    first.steps(0, 10)
    torch.save([part.state_dict() for part in first.parts], tmp_path / "state.pth")
    second = Training(99)
    for part, state in zip(second.parts, torch.load(tmp_path / "state.pth"), strict=True):
        part.load_state_dict(state)
    torch.manual_seed(1234)  # the process's own random state has no part in it
    second.steps(10, 20)

    assert first.metrics + second.metrics == whole.metrics
    assert len({log["pcl_contrastive_weight"] for log in whole.metrics}) == 8  # at steps 0 to 4, 8, 12 and 16
    for resumed, straight in zip((second.net, second.methods), (whole.net, whole.methods), strict=True):
        for name, value in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
    for optimizer, other in zip(second.parts[2:], whole.parts[2:], strict=True):
        for index, state in other.state_dict()["state"].items():
            for name, value in state.items():
                assert torch.equal(optimizer.state_dict()["state"][index][name], value)


def test_state_holds_the_step_and_the_ratio() -> None:
    method = pcl(embedding=SmoothEmbedding())
    methods, _, batch = ready(method)
    for _ in range(3):
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    state = methods.state_dict()
    assert state["step.count"].item() == 3
    assert state["pcl.weights.contrastive.ratio"].item() > 0
    loaded = attached(net(), pcl(embedding=SmoothEmbedding()))
    assert loaded.step.value == 0
    loaded.load_state_dict(state)
    assert loaded.step.value == 3


def test_samples_depend_on_seed_and_step_alone() -> None:
    def negatives(methods: Methods) -> Tensor:
        method = methods["pcl"]
        assert isinstance(method, PCL)
        return method.negatives[0](images_batch(), step_of(methods).generator("cpu"))

    methods = Methods([pcl()])
    first = negatives(methods)
    torch.manual_seed(77)
    assert torch.equal(negatives(methods), first)
    assert torch.equal(negatives(Methods([pcl()])), first)
    assert not torch.equal(negatives(Methods([pcl(seed=1)])), first)
    methods.step.advance()
    assert not torch.equal(negatives(methods), first)


# Embeddings


def test_pcl_f_reuses_a_trained_embedding_and_leaves_it_alone(tmp_path: Path) -> None:
    trained = pcl()
    methods, network, batch = ready(trained)
    optimizer = torch.optim.Adam(methods.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(methods.auxiliary_losses(batch).values()).backward()
        optimizer.step()
    parts = methods.trained_parts()
    assert list(parts) == ["pcl_embedding"]
    torch.save({"params": parts["pcl_embedding"].state_dict()}, tmp_path / "embedding.pth")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = {"type": "HaarDiscriminator", "weights": str(tmp_path / "embedding.pth")}
        fixed = PCL(every=1, loss_weight=0.0004, embedding=config, train_embedding=False)
    before = copy.deepcopy(fixed.embedding.state_dict())
    assert all(torch.equal(value, trained.embedding.state_dict()[name]) for name, value in before.items())
    methods = attached(network, fixed)
    assert not methods.trainable
    assert methods.trained_parts() == {}
    methods.train()
    batch = methods.run(network, images_batch())
    assert methods.auxiliary_losses(batch) == {}
    assert methods(batch) == {}
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in fixed.embedding.state_dict().items())
    assert not any(p.requires_grad for p in fixed.parameters())


def test_an_embedding_learns_in_the_first_steps_alone_also_after_a_resume() -> None:
    network = net()

    def embeddings(methods: Methods, steps: int) -> list[Tensor]:
        """All numbers of the embedding, running statistics too, after each of some steps."""
        optimizer, found = torch.optim.Adam(methods.parameters(), 1e-3), []
        for _ in range(steps):
            batch = methods.run(network, images_batch())
            if losses := methods.auxiliary_losses(batch):
                optimizer.zero_grad()
                sum(losses.values()).backward()
                optimizer.step()
            methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
            state = methods.trained_parts()["pcl_embedding"].state_dict()
            found.append(torch.cat([value.flatten().float() for value in state.values()]))
        return found

    methods = attached(network, pcl(train_embedding=3))
    first, second = embeddings(methods, 2)
    resumed = attached(network, pcl(train_embedding=3))
    resumed.load_state_dict(methods.state_dict())
    third, fourth, fifth = embeddings(resumed, 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(third, fourth)
    assert torch.equal(third, fifth)


def test_a_frozen_random_embedding_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="pcl: the embedding does not learn and has no `weights`"):
        pcl(train_embedding=False)


def test_a_frozen_embedding_stays_frozen() -> None:
    method = pcl(embedding=HaarDiscriminator(out_indices=[0]).requires_grad_(False))
    methods, _, batch = ready(method)
    assert not methods.trainable
    assert methods.auxiliary_losses(batch) == {}
    with pytest.raises(ConfigError, match="pcl: HaarDiscriminator is frozen; leave out train_embedding, or choose"):
        pcl(embedding=method.embedding, train_embedding=True)


def test_vgg_as_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"0": nn.Conv2d(3, 64, 3), "2": nn.Conv2d(64, 64, 3)}
    torch.save({"features." + name: p for name, p in nn.ModuleDict(layers).state_dict().items()}, tmp_path / "vgg.pth")
    method = pcl(embedding={"type": "VGGFeatures", "layers": ["relu1_1", "relu1_2"], "weights": tmp_path / "vgg.pth"})
    assert isinstance(method.embedding, VGGFeatures)
    methods, network, batch = ready(method)
    assert not methods.trainable
    assert methods.auxiliary_losses(batch) == {}
    methods.sr_losses(batch).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    with pytest.raises(ConfigError, match="pcl: VGGFeatures cannot be trained; leave out train_embedding"):
        pcl(embedding=method.embedding, train_embedding=True)


def test_embeddings_and_samples_of_ones_own() -> None:
    class Noisy(SampleGenerator):
        def __call__(self, batch: Any, generator: torch.Generator | None = None) -> Tensor:
            noise = torch.randn(batch["hr"].shape, generator=generator)
            return (batch["hr"] + 0.1 * noise).clamp(0, 1)[:, None]

    embedding = IdentityEmbedding()
    method = pcl(embedding=embedding, negatives=[Noisy()])
    assert method.embedding is embedding
    methods, _, batch = ready(method)
    assert not methods.trainable
    assert methods.sr_losses(batch).loss.item() > 0


@pytest.mark.parametrize("kind", ["HaarDiscriminator", "FourierDiscriminator", "RGBDiscriminator"])
def test_discriminators_of_table_4(kind: str) -> None:
    method = pcl(embedding={"type": kind, "out_indices": [0, 1]})
    methods, network, batch = ready(method)
    sum(methods.auxiliary_losses(batch).values()).backward()
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


# Precision


def test_mixed_precision_is_finite_in_both_steps() -> None:
    method = pcl()
    with torch.autocast("cpu", torch.bfloat16):
        methods, network, batch = ready(method)
        assert network.body(batch["lr"]).dtype == torch.bfloat16
        assert batch["sr"].dtype == torch.float32
        auxiliary = sum(methods.auxiliary_losses(batch).values())
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    (auxiliary + losses.loss).backward()
    for parameter in (*network.parameters(), *method.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_double_precision_stays_double() -> None:
    network = net().double()
    methods = attached(network, pcl()).double()
    batch = methods.run(network, {key: value.double() for key, value in images_batch().items()})
    assert batch["sr"].dtype == torch.float64
    assert methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.dtype == torch.float64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_is_named_at_once(value: float) -> None:
    method = pcl(embedding=SmoothEmbedding(), name="mine")
    methods, network, batch = ready(method)
    methods.sr_losses(batch)
    methods.sr_losses(batch)
    with torch.no_grad():
        method.embedding.second.weight.fill_(value)
    batch = methods.run(network, images_batch())
    with pytest.raises(NonFiniteError, match=r"mine_contrastive at SR step 3: .* got nan\..*loss_share"):
        methods.sr_losses(batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sr_images_that_are_not_finite_do_not_reach_the_embedding(value: float) -> None:
    network = net()
    methods = attached(network, pcl())
    before = {name: tensor.clone() for name, tensor in methods.state_dict().items()}
    with torch.no_grad():
        network.body[0].bias.fill_(value)
    with pytest.raises(NonFiniteError, match=r"mean of the SR network's output at SR step 1: expected a finite number"):
        methods.run(network, images_batch())
    for name, tensor in methods.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_auxiliary_loss_that_is_not_finite_is_named() -> None:
    method = pcl()
    methods, _, batch = ready(method)
    with torch.no_grad():
        method.embedding.head.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="pcl_discriminator at SR step 1: expected a finite number, got nan"):
        methods.auxiliary_losses(batch)


def test_samples_are_the_same_under_autocast() -> None:
    seen: list[Tensor] = []

    class Spy(SmoothEmbedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            seen.append(images.detach().clone())
            return super().forward(images)

    method = pcl(embedding=Spy())
    methods, _, batch = ready(method)
    method.terms(batch, step_of(methods))
    with torch.autocast("cpu", torch.bfloat16):
        method.terms(batch, step_of(methods))  # the same step, so the same draws
    plain, half = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(plain) == len(half) >= 2
    for images, other in zip(plain, half, strict=True):
        assert torch.equal(images, other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, "true, false or a number of steps") for value in ("false", 2.0, "no")),
        *((value, "a whole number of at least 1") for value in (0, -1)),
    ],
)
def test_a_flag_that_is_none_is_refused(value: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"train_embedding: expected {expected}, got"):
        pcl(train_embedding=value)


# What is refused


def broken(**images: Tensor) -> dict[str, Tensor]:
    return {**images_batch(), **images}


NOT_A_NUMBER = images_batch()["hr"].clone()
NOT_A_NUMBER[0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (broken(hr=images_batch()["hr"] * 255), r"batch\['hr'\] in \[0, 1\], got .* to 25.*Divide images by 255"),
        (broken(lr=images_batch()["lr"] * 2 - 1), r"batch\['lr'\] in \[0, 1\], got values from -.*mean or standard"),
        (broken(hr=NOT_A_NUMBER), r"batch\['hr'\] in \[0, 1\], got NaN or infinity in the first batch. Look at"),
        (
            broken(lr=torch.rand(2, 1, 8, 8)),
            r"all have 3 channels .*, got 'lr' with 1, 'hr' with 3\. Convert",
        ),
        (broken(lr=torch.rand(2, 8, 8)), r"batch\['lr'\]: expected .* \(B, 3 or 1, H, W\), got .*\(2, 8, 8\)"),
        (broken(hr=torch.rand(3, 32, 32)), r"batch\['hr'\]: expected .*x\[None\]"),
        (broken(lr=torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), r"batch\['lr'\]: expected a floating.*uint8"),
        (broken(hr=torch.rand(2, 3, 34, 34)), r"whole multiple of the LR size.*\(2, 3, 8, 8\) and HR \(2, 3, 34, 34\)"),
        (broken(hr=torch.rand(2, 3, 32, 40)), "whole multiple of the LR size"),
        (broken(lr=torch.rand(2, 3, 40, 40)), "whole multiple of the LR size"),
        (broken(hr=torch.rand(1, 3, 32, 32)), "whole multiple of the LR size, one each"),
        ({"hr": torch.rand(2, 3, 32, 32)}, r"Expected a batch with 'lr' and 'hr', got \['hr'\]"),
        (
            {"lr": torch.rand(2, 3, 6, 6), "hr": torch.rand(2, 3, 24, 24)},
            r"HaarDiscriminator: expected HR patches of at least 32 x 32 pixels, got 24 x 24\. Raise the patch size",
        ),
        (
            {"lr": torch.rand(2, 3, 11, 11), "hr": torch.rand(2, 3, 33, 33)},
            "HaarDiscriminator: .* multiples of 2, got 33 x 33",  # of the paper's decimated transform
        ),
    ],
)
def test_first_batches_that_cannot_be_trained_on(batch: dict[str, Tensor], message: str) -> None:
    network = net()
    with pytest.raises(DataError, match=message):
        attached(network, pcl(embedding={"type": "HaarDiscriminator"})).run(network, batch)
    assert network.calls == 0


def test_values_are_checked_in_the_first_batch_only() -> None:
    methods, network, _ = ready(pcl())
    methods.run(network, broken(hr=images_batch()["hr"] * 255))
    with pytest.raises(DataError):
        attached(network, pcl()).run(network, broken(hr=images_batch()["hr"] * 255))


def test_a_network_of_another_scale_is_refused() -> None:
    with pytest.raises(DataError, match=r"SR network's output: expected .*\(2, 3, 32, 32\), got .*\(2, 3, 16, 16\)"):
        attached(net(), pcl()).run(CountingNet(scale=2), images_batch())
    with pytest.raises(DataError, match=r"expected a floating-point tensor .*, got None \(NoneType\)"):
        attached(net(), pcl()).run(lambda lr: None, images_batch())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding": {"type": "HarDiscriminator"}}, "embedding: .*'HarDiscriminator'.* mean 'HaarDiscriminator'"),
        (
            {"embedding": {"type": "HaarDiscriminator", "tap": 4}},
            "embedding: .* key 'tap'.*Accepted: out_indices, weights",
        ),
        ({"embedding": "HaarDiscriminator"}, "pcl: embedding: expected a mapping with `type`"),
        ({"positives": []}, rf"pcl: positives: expected a list with at least one of {', '.join(SAMPLES)}, .*got \[\]"),
        ({"negatives": ()}, "pcl: negatives: expected a list with at least one of"),
        ({"negatives": {"type": "GaussianBlur"}}, "pcl: negatives: expected a list with at least one of"),
        ({"positives": "Sharpen"}, "pcl: positives: expected a list"),
        ({"positives": [{"type": "Sharpen", "cuont": 3}]}, r"pcl: positives\[0\]: .*'cuont'.*'count'.*count, factor"),
        ({"negatives": [{"type": "HighResolution", "count": 2}]}, r"negatives\[0\]: HighResolution .* Accepted: none"),
        ({"temperature": 0}, r"temperature\): expected a number above 0, got 0"),
        ({"temperature": "7e-2"}, "got '7e-2'.*In YAML"),
        ({"seed": -1}, "pcl: seed: expected a whole number of at least 0, got -1"),
        ({"share_interval": 0}, "pcl_contrastive: share_interval: expected a whole number"),
        ({"loss_weight": "4e-4"}, r"pcl_contrastive: loss_weight: .* got '4e-4' .*In YAML write `!!float 4e-4`"),
        ({"loss_weight": 0.1, "loss_share": 0.1}, "pcl_contrastive: expected one of .*, got both"),
        ({"name": ""}, "name: expected a word without 'loss', dots, slashes and spaces, got ''"),
        ({"name": "pcl_loss"}, "name: expected a word without 'loss', .* got 'pcl_loss'"),
        ({"name": "pcl.haar"}, "name: expected a word"),
        ({"name": "my pcl"}, "name: expected a word"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pcl(**arguments)


@pytest.mark.parametrize(("kind", "share", "every"), [(PCL, 1.0, 4), (ContrastiveRegularization, 0.05, 1)])
def test_without_arguments_it_has_what_was_measured_or_what_is_safe(kind: Any, share: float, every: int) -> None:
    torch.manual_seed(0)
    method = kind(embedding=SmoothEmbedding())
    assert method.every == every
    methods, _, batch = ready(method)
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert_close(losses.metrics[f"{method.name}_contrastive_share"], share, dtype=torch.float32)


# Several methods


@pytest.fixture
def two() -> Methods:
    torch.manual_seed(0)
    configs = [
        {"type": "PCL", "every": 1, "loss_weight": 0.001, "embedding": SmoothEmbedding(), "name": "first"},
        OrderedDict(
            type="PCL",
            every=1,
            loss_share=0.05,
            embedding={"type": "HaarDiscriminator", "out_indices": [0]},
            name="second",
        ),
    ]
    return build_methods(configs)


def test_two_methods_call_the_network_once(two: Methods) -> None:
    network, images = net(), images_batch()
    two.attach(network)
    batch = two.run(network, images)
    assert network.calls == 1
    assert set(batch) == {"lr", "hr", "sr"}
    assert set(images) == {"lr", "hr"}  # the caller's batch is left alone
    assert two.run(network, batch)["sr"] is batch["sr"]
    assert network.calls == 1


def test_two_methods_add_up(two: Methods) -> None:
    network = net()
    two.attach(network)
    batch = two.run(network, images_batch())
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    alone = [attached(network, copy.deepcopy(method)).sr_losses(batch, pixel) for method in two]
    losses = two.sr_losses(batch, pixel)
    terms = {key: term for key, term in losses.metrics.items() if key.endswith("_contrastive")}
    assert list(terms) == ["first_contrastive", "second_contrastive"]
    assert_close(losses.loss, sum(part.loss.item() for part in alone), "exact", dtype=torch.float32)
    assert_close(losses.loss, sum(term.item() for term in terms.values()), "exact", dtype=torch.float32)
    assert set(losses.metrics) == {*alone[0].metrics, *alone[1].metrics}
    assert list(two.auxiliary_losses(batch)) == list(two(batch)) == ["second_discriminator"]
    assert list(two.trained_parts()) == ["second_embedding"]
    assert two.trainable
    assert isinstance(two["second"].embedding, HaarDiscriminator)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([], r"methods: expected a list of mappings such as \{type: PCL, \.\.\.\}, got \[\]"),
        ({"type": "PCL", "every": 1, "loss_weight": 1}, "methods: expected a list of mappings"),
        ("PCL", "methods: expected a list of mappings"),
        (None, "methods: expected a list of mappings"),
        (["PCL"], rf"methods\[0\]: expected a mapping with `type`, one of {', '.join(METHODS)}.*; got 'PCL'"),
        ([{"type": "PLC", "loss_weight": 1}], r"methods\[0\]: does not know the type 'PLC'\. Did you mean 'PCL'\?"),
        (
            [{"type": "PCL", "loss_weight": 1, "temprature": 1}],
            r"methods\[0\]: PCL does not know the key 'temprature'\. Did you mean 'temperature'\? "
            r"Accepted: loss_weight, loss_share, temperature, embedding, train_embedding, train_on_samples, positives",
        ),
        ([{"type": "PCL", "loss_weight": 1}] * 2, r"with different `name`, got \['pcl', 'pcl'\].*name: nce_2"),
        ([{"type": "PCL", "loss_weight": 1, "name": "run"}], r"'run' cannot be a method's `name`\. Try `my_run`"),
    ],
)
def test_impossible_lists_are_refused(configs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods(configs)


@pytest.mark.parametrize("configs", [None, []])
def test_without_methods_the_network_trains_on_the_hosts_losses(configs: Any) -> None:
    methods, network, images = build_methods(configs, optional=True), net(), images_batch()
    methods.attach(network)
    batch = methods.run(network, images)
    assert network.calls == 1
    assert torch.equal(batch["sr"], net()(images["lr"]))
    assert methods.run(network, batch)["sr"] is batch["sr"]
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert (losses.loss, losses.metrics, methods.warming_up) == (0, {}, False)
    assert methods(batch) == {}
    assert not methods.trainable
