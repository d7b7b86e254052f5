"""MPF: Table VII's variants, the two phases, the ways to train the embedding, resuming, and what is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from host import Training, methods_on, step_of
from oracles import dual_loops, plain_contrast
from same import assert_same
from small_models import CountingNet, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import HaarDiscriminator, SNResNet18, TrainableEmbedding, VGGFeatures
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import FakeContrastLoss, SimCLRLoss
from contrastive_sr.methods import MPF, Methods, build_methods
from contrastive_sr.methods.weighting import DEFAULT_SHARE, TermWeight
from contrastive_sr.networks import MPFNet
from contrastive_sr.samples import TeacherOutput, draw, random_view

CPU = torch.device("cpu")


SMALL = {"MPF": {"loss_weight": 0.1, "variant": 6}}


class SmallEmbedding(TrainableEmbedding):
    """Two layers, a head, no BatchNorm; it counts its calls."""

    minimum_size = 8
    vector_size = 5

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 2, stride=2)
        self.head = nn.Linear(5, 2)
        self.calls = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls += 1
        first = torch.tanh(self.first(images))
        return [first, torch.tanh(self.second(first))]

    def vectors(self, images: Tensor) -> Tensor:
        return self(images)[-1].mean((2, 3))

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.vectors(images))
        return logits


class Broken(nn.Module):
    """As a network whose training became NaN."""

    def forward(self, sr: Tensor) -> Tensor:
        return sr * torch.nan


def teacher() -> TeacherOutput:
    torch.manual_seed(5)
    return TeacherOutput(CountingNet())


def mpf(**arguments: Any) -> MPF:
    torch.manual_seed(0)
    fixed = {"loss_weight": 0.01, "embedding": SmallEmbedding(), "teacher": teacher(), "phase": "fixed"}
    settings = {**fixed, **arguments}
    return MPF(**{key: value for key, value in settings.items() if value is not ...})


def ready(**arguments: Any) -> tuple[MPF, Methods, CountingNet, dict[str, Tensor]]:
    method = mpf(**arguments)
    torch.manual_seed(1)
    network = CountingNet()
    methods = methods_on(network, method)
    return method, methods, network, methods.run(network, images_batch(count=3))


def train(training: Training, steps: Sequence[int]) -> list[dict[str, float]]:
    """The steps of a host; what was logged so far."""
    for step in steps:
        training.step(images_batch(seed=step, count=3))
    return training.logs


# ------------------------------------------------------------------------------------------------------- Table VII

SAMPLES = {
    2: (["HighResolution", "Sharpen", "TeacherOutput"], ["GaussianBlur", "UpsampledLowResolution"]),
    3: (["Sharpen", "TeacherOutput"], ["GaussianBlur"]),
    4: (["HighResolution", "Sharpen", "TeacherOutput"], ["OtherInstances"]),
    5: (["HighResolution", "Sharpen", "TeacherOutput"], ["UpsampledLowResolution"]),
    6: (["HighResolution"], ["GaussianBlur", "UpsampledLowResolution"]),
    7: (["HighResolution", "Sharpen", "TeacherOutput"], ["GaussianBlur", "UpsampledLowResolution"]),
}


@pytest.mark.parametrize("variant", SAMPLES)
def test_rows_of_table_vii_have_their_samples(variant: int) -> None:
    method, methods, _, batch = ready(variant=variant)
    names = [[type(sample).__name__ for sample in samples] for samples in (method.positives, method.negatives)]
    assert names == list(SAMPLES[variant])
    counts = {"HighResolution": 1, "Sharpen": 3, "TeacherOutput": 1}
    counts.update({"GaussianBlur": 4, "UpsampledLowResolution": 1, "OtherInstances": 5})
    for samples in (method.positives, method.negatives):
        assert [sample.count for sample in samples] == [counts[type(sample).__name__] for sample in samples]
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert losses.loss > 0
    assert ("GaussianBlur" in names[1]) == any(getattr(s, "noise", None) == (0.0, 10 / 255) for s in method.negatives)


def test_the_paper_s_row_has_five_and_five_and_is_the_default() -> None:
    method, methods, _, batch = ready()
    generator = step_of(methods).generator(CPU)
    positives, negatives = draw(method.positives, batch, generator), draw(method.negatives, batch, generator)
    assert positives.shape[1] == negatives.shape[1] == 5
    assert torch.equal(positives[:, 0], batch["hr"])
    (taught,) = [sample for sample in method.positives if isinstance(sample, TeacherOutput)]
    assert torch.equal(positives[:, 4], taught.network(batch["lr"]).detach().clamp(0, 1))
    want, near, far = plain_contrast(method.embedding, batch["sr"], positives, negatives, 1.0)
    losses = methods.sr_losses(batch)
    assert_close(losses.metrics["mpf_contrastive_raw"], want, dtype=torch.float32)
    assert_close(losses.loss, 0.01 * want.item(), dtype=torch.float32)
    assert_close(losses.metrics["mpf_positive_similarity"], near.mean(), dtype=torch.float32)
    assert_close(losses.metrics["mpf_negative_similarity"], far.mean(), dtype=torch.float32)


def test_row_1_is_the_host_s_losses_alone() -> None:
    method, methods, network, batch = ready(variant=1, loss_weight=..., embedding=...)
    assert not methods.trainable
    assert not list(methods.parameters())
    assert method.trained_parts() == {}
    assert not methods.warming_up
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    assert (losses.metrics, float(losses.loss)) == ({}, 0.0)
    assert network.calls == 1
    methods_on(network, method).run(
        network, images_batch(size=8, count=1)
    )  # no embedding, no samples: nothing to refuse


def test_row_2_has_vgg_which_does_not_learn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {}
    for name, channels, inputs in (("0", 64, 3), ("2", 64, 64)):
        state[f"features.{name}.weight"] = torch.randn(channels, inputs, 3, 3) * 0.1
        state[f"features.{name}.bias"] = torch.zeros(channels)
    torch.save(state, tmp_path / "vgg19.pth")
    embedding = {"type": "VGGFeatures", "layers": ["relu1_2"], "weights": str(tmp_path / "vgg19.pth")}
    method, methods, _, batch = ready(variant=2, embedding=embedding)
    assert isinstance(method.embedding, VGGFeatures)
    assert not methods.trainable
    assert methods(batch) == {}
    assert methods.sr_losses(batch).loss > 0
    with pytest.raises(ConfigError, match="embedding_training: VGGFeatures cannot learn, got 'contrad'"):
        mpf(variant=2, embedding=embedding, embedding_training="contrad")


def test_the_embedding_is_the_row_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(mpf(embedding=...).embedding, SNResNet18)

    def nowhere(source: str, model: str) -> dict[str, Tensor]:
        raise ConfigError(f"asked for {source}")

    monkeypatch.setattr("contrastive_sr.embeddings.vgg._download", nowhere)
    with pytest.raises(ConfigError, match="asked for torchvision"):
        mpf(variant=2, embedding=...)


def test_without_a_teacher_there_is_one_positive_less_and_it_is_said() -> None:
    for variant, count in ((7, 4), (3, 3)):
        with pytest.warns(UserWarning, match=f"mpf: there is no teacher, so that there are {count} positives"):
            method = mpf(teacher=None, variant=variant)
        assert sum(sample.count for sample in method.positives) == count
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mpf(teacher=None, variant=6)
        mpf(teacher=None, variant=1)
        mpf()


# ------------------------------------------------------------------------------------------------------- phases


@pytest.mark.parametrize("weight", [{"loss_weight": 0.01}, {"loss_share": 0.05, "loss_weight": ...}])
def test_in_the_warm_up_nothing_of_the_contrast_is_computed(weight: dict[str, Any]) -> None:
    method, methods, network, _ = ready(warmup_steps=3, **weight)
    (taught,) = [sample for sample in method.positives if isinstance(sample, TeacherOutput)]
    calls = taught.network.calls  # the first batch was checked
    assert calls == 1
    untouched = copy.deepcopy(method.embedding.state_dict())
    plain = copy.deepcopy(network)
    training = Training(network, methods)
    train(training, range(3))
    assert (method.embedding.calls, taught.network.calls) == (0, calls)
    assert_same(untouched, method.embedding.state_dict())
    optimizer = torch.optim.Adam(plain.parameters(), 1e-3)
    for step in range(3):  # L1 alone
        batch = images_batch(seed=step, count=3)
        optimizer.zero_grad()
        F.l1_loss(plain(batch["lr"]), batch["hr"]).backward()
        optimizer.step()
    assert_same(dict(plain.state_dict()), dict(network.state_dict()))

    logs = train(training, range(3, 5))
    assert all(set(log) - {"mpf_discriminator"} == set(logs[0]) for log in logs)
    assert all(value == 0 for log in logs[:3] for value in log.values())
    assert [log["mpf_contrastive"] > 0 for log in logs] == [False] * 3 + [True] * 2
    assert all("mpf_discriminator" in log for log in logs[3:])
    if "loss_share" in weight:
        assert_close(logs[3]["mpf_contrastive_share"], 0.05, dtype=torch.float32)


def test_a_share_is_measured_densely_from_the_end_of_the_warm_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TermWeight, "EARLY", 2)
    _, methods, network, _ = ready(warmup_steps=4, loss_share=0.05, loss_weight=..., share_interval=100)
    logs = train(Training(network, methods), range(8))
    weights = [log["mpf_contrastive_weight"] for log in logs]
    assert weights[:4] == [0] * 4
    assert len(set(weights[4:6])) == 2  # steps 4 and 5 are measured
    assert weights[5] == weights[6] == weights[7]


def test_the_embedding_may_begin_earlier() -> None:
    _, methods, network, _ = ready(warmup_steps=3, embedding_warmup_steps=1)
    logs = train(Training(network, methods), range(4))
    assert ["mpf_discriminator" in log for log in logs] == [False, True, True, True]
    assert [log["mpf_contrastive"] > 0 for log in logs] == [False, False, False, True]


# ------------------------------------------------------------------------------------------------------- the embedding


def grads(module: nn.Module) -> dict[str, bool]:
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in module.named_parameters()}


def test_dual_is_equation_7_and_trains_the_embedding_alone() -> None:
    method, methods, network, batch = ready()
    losses = methods(batch)
    assert list(losses) == ["mpf_discriminator"]
    logits = [method.embedding.logits(batch[key]).detach() for key in ("hr", "sr")]
    assert_close(losses["mpf_discriminator"], dual_loops(*logits), dtype=torch.float32)
    losses["mpf_discriminator"].backward()
    assert all(grads(method).values())
    assert not any(grads(network).values())


def test_contrad_is_simclr_on_real_and_supcon_on_fake_views() -> None:
    method, methods, network, batch = ready(embedding_training="contrad")
    losses = methods(batch)
    assert list(losses) == ["mpf_simclr", "mpf_fake_contrast"]
    generator = step_of(methods).generator(CPU)
    first, second, fake = (random_view(x.detach(), generator) for x in (batch["hr"], batch["hr"], batch["sr"]))
    first, second, fake = (method.embedding.vectors(view) for view in (first, second, fake))
    heads = method.contrad
    assert heads is not None
    for head in (heads.real_head, heads.fake_head):  # ContraD's: 1024 between, each layer's largest singular value 1
        assert [layer.weight.shape for layer in (head[0], head[2])] == [(1024, first.shape[1]), (128, 1024)]
        for layer in (head[0], head[2]):
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)
    heads.eval()  # the pass above has moved the estimates of spectral normalisation
    simclr = SimCLRLoss()(heads.real_head(first), heads.real_head(second))
    contrast = FakeContrastLoss()(heads.fake_head(fake), heads.fake_head(torch.cat((first, second))))
    assert_close(losses["mpf_simclr"], simclr, dtype=torch.float32)
    assert_close(losses["mpf_fake_contrast"], contrast, dtype=torch.float32)
    torch.stack(list(losses.values())).sum().backward()
    gradients = grads(method)
    assert [name for name, got in gradients.items() if not got] == [
        "loss.embedding.head.weight",
        "loss.embedding.head.bias",
    ]
    assert {p for p in method.parameters() if not p.requires_grad} == set(method.embedding.head.parameters())
    assert not any(grads(network).values())


@pytest.mark.parametrize("embedding_training", ["dual", "contrad", "frozen"])
def test_the_sr_step_trains_the_network_alone(embedding_training: str) -> None:
    embedding = SNResNet18(out_indices=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method, methods, network, batch = ready(embedding=embedding, embedding_training=embedding_training)
    method.embedding.train()
    before = copy.deepcopy(method.embedding.state_dict())
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(grads(network).values())
    assert all(p.grad is None for p in method.parameters())
    assert_same(before, method.embedding.state_dict())  # no step of the power iteration
    assert methods.trainable == (embedding_training != "frozen")
    if embedding_training == "frozen":
        assert methods(batch) == {}
    else:
        methods(batch)
        moved = [k for k, v in method.embedding.state_dict().items() if not torch.equal(v, before[k])]
        assert {name.split(".")[-1] for name in moved} == {"_u", "_v"}


@pytest.mark.parametrize("embedding_training", ["dual", "contrad"])
def test_under_autocast(embedding_training: str) -> None:
    method = mpf(embedding=SNResNet18(out_indices=(0,)), embedding_training=embedding_training)
    network = CountingNet()
    methods = methods_on(network, method)
    with torch.autocast("cpu", torch.bfloat16):
        batch = methods.run(network, images_batch(count=3))
        own = sum(methods(batch).values())
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    (own + losses.loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)
    assert all(grads(network).values())


def test_embeddings_of_pcl_do_as_well() -> None:
    for training in ("dual", "contrad"):
        _, methods, _, batch = ready(embedding={"type": "RGBDiscriminator"}, embedding_training=training)
        assert all(torch.isfinite(loss) for loss in methods(batch).values())
    _, methods, _, batch = ready(embedding=SmoothEmbedding())
    assert methods(batch) == {}
    with pytest.warns(UserWarning, match="the embedding does not learn and has no `weights`"):
        mpf(embedding={"type": "HaarDiscriminator"}, embedding_training="frozen")


@pytest.mark.parametrize("embedding_training", ["dual", "contrad"])
def test_resumed_training_goes_on_bit_for_bit(embedding_training: str) -> None:
    """Across the start of the second phase, with the paper's embedding."""

    def new() -> Training:
        embedding = {"type": "SNResNet18", "out_indices": [0]}
        method = mpf(embedding=embedding, warmup_steps=2, embedding_training=embedding_training)
        network = MPFNet(channels=4, blocks=1)
        return Training(network, methods_on(network, method))

    whole = new()
    train(whole, range(3))
    states = copy.deepcopy([part.state_dict() for part in whole.parts])
    train(whole, range(3, 5))
    torch.manual_seed(99)
    resumed = new()
    for part, state in zip(resumed.parts, states, strict=True):
        part.load_state_dict(state)
    train(resumed, range(3, 5))
    assert_same(whole.states(), resumed.states())
    assert whole.logs[3:] == resumed.logs
    assert not [name for name in whole.methods.state_dict() if "teacher" in name or "body" in name]


# ------------------------------------------------------------------------------------------------------- refused


def test_a_teacher_by_name_from_a_file(tmp_path: Path) -> None:
    torch.save({"params": MPFNet(channels=4, blocks=1).state_dict()}, tmp_path / "net_g.pth")
    settings = {"network": {"type": "MPFNet", "channels": 4, "blocks": 1}, "weights": str(tmp_path / "net_g.pth")}
    _, methods, _, batch = ready(teacher=settings)
    assert methods.sr_losses(batch).loss > 0
    for wrong, message in (
        ({**settings, "weights": None}, "expected the file of a trained network"),
        ({**settings, "weights": "nowhere.pth"}, "expected an existing file"),
        ({"weights": settings["weights"]}, "mpf: teacher: TeacherOutput needs the key 'network'"),
        ({**settings, "scale": 4}, "mpf: teacher: TeacherOutput does not know the key 'scale'"),
        ("net_g.pth", "mpf: teacher: expected a mapping with `network` and `weights`, got 'net_g"),
    ):
        with pytest.raises(ConfigError, match=message):
            mpf(teacher=wrong)


@pytest.mark.parametrize(
    ("arguments", "count", "message"),
    [
        ({"teacher": TeacherOutput(CountingNet(scale=2))}, 3, "TeacherOutput: expected SR images .* another scale"),
        ({"variant": 4}, 1, "OtherInstances: expected a batch of 2"),
        (
            {"teacher": TeacherOutput(nn.Sequential(CountingNet(), Broken()))},
            3,
            "mpf: expected finite images from TeacherOutput, got NaN or infinity of the teacher, Sequential",
        ),
        (
            {"embedding": HaarDiscriminator(), "embedding_training": "contrad"},
            3,
            "mpf: views of HR images are an eighth smaller. .*at least 32 x 32 pixels, got 28 x 28",
        ),
    ],
)
def test_batches_are_refused_at_once_and_not_when_the_contrast_begins(
    arguments: dict[str, Any], count: int, message: str
) -> None:
    network = CountingNet()
    methods = methods_on(network, mpf(warmup_steps=100, **arguments))
    with pytest.raises(DataError, match=message):
        methods.run(network, images_batch(count=count))


def test_a_share_without_a_pixel_loss_is_refused_at_once() -> None:
    _, methods, _, batch = ready(warmup_steps=100, loss_share=0.05, loss_weight=...)
    with pytest.raises(ConfigError, match="mpf_contrastive: `loss_share` is a share of the pixel loss"):
        methods.sr_losses(batch)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"variant": 8}, "mpf: variant: expected one of 1, 2, 3, 4, 5, 6, 7, got 8"),
        ({"variant": True}, "mpf: variant: .*got True"),
        ({"variant": [7]}, r"mpf: variant: .*got \[7\]"),
        ({"warmup_steps": -1}, "mpf: warmup_steps: expected a whole number of at least 0"),
        ({"embedding_warmup_steps": 5}, "mpf: embedding_warmup_steps: expected at most warmup_steps, 0, got 5"),
        ({"embedding_training": "gan"}, "expected one of dual, contrad, frozen, got 'gan'"),
        ({"loss_share": 0.05}, "mpf_contrastive: expected one of `loss_weight` .* got both"),
        ({"noise": (0, 10)}, r"GaussianBlur\(noise\)"),
        ({"similarity": "paper"}, "expected one of cosine, dot"),
        ({"temperature": 0}, "temperature"),
        ({"train_embedding": True}, "MPF does not know the key 'train_embedding'"),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([{"type": "MPF", "loss_weight": 0.01, "embedding": SmallEmbedding(), **config}])


def test_with_neither_weight_nor_share_there_is_a_share() -> None:
    weight = mpf(loss_weight=...).weights["contrastive"]
    assert isinstance(weight, TermWeight)
    assert (weight.fixed, weight.asked) == (None, DEFAULT_SHARE)


def test_contrad_needs_vectors() -> None:
    class Bare(TrainableEmbedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images]

    with pytest.raises(ConfigError, match=r"'contrad' needs .* which Bare does not have"):
        mpf(embedding=Bare(), embedding_training="contrad")
