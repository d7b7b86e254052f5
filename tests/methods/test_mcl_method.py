"""MCL: its term in the steps of a training, on pasts of the network; feature matching; state, and what is refused."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached
from host import Training
from same import assert_same
from small_models import CountingNet, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import MCL, METHODS, Methods, build_methods
from contrastive_sr.samples import PastOutput

SMALL = {  # what tests/test_fuzz_config.py builds
    "MCL": {"loss_weight": 0.1, "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}, "layer_weights": [1.0]}
}
HR = [{"type": "HighResolution"}]


class NormNet(CountingNet):
    """With statistics, which are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(self.norm(lr))


def mcl(**settings: Any) -> MCL:
    torch.manual_seed(0)
    return MCL(**{"embedding": SmoothEmbedding(), "loss_weight": 0.1, "phase": "fixed", **settings})


def training(*methods: Any, net: nn.Module | None = None, **settings: Any) -> Training:
    torch.manual_seed(0)
    net = CountingNet() if net is None else net
    return Training(net, attached(net, *methods), **settings)


def distance(embed: Any, sr: Tensor, key: Tensor) -> Tensor:
    return torch.stack([(f - g).abs().mean() for f, g in zip(embed(sr), embed(key), strict=True)]).mean()


def test_the_term_is_the_distance_to_pasts_that_lag_behind() -> None:
    """Every past is recomputed from the weights that the network had at each step."""
    method = mcl(negatives=[{"type": "PastOutput", "decay": [0.5, 0.1], "interval": [1, 2]}])
    run = training(method, optimizer=partial(torch.optim.SGD, lr=0.5))
    pasts = [copy.deepcopy(run.net) for _ in range(2)]
    for step in range(5):
        batch = images_batch(seed=step)
        for past, decay, interval in zip(pasts, (0.5, 0.1), (1, 2), strict=True):
            if step % interval == 0:
                for p, q in zip(past.parameters(), run.net.parameters(), strict=True):
                    p.data = decay * p.data + (1 - decay) * q.data
        with torch.no_grad():
            sr = run.net(batch["lr"])
            far = [distance(method.embedding, sr, past(batch["lr"])) if step else torch.zeros(()) for past in pasts]
        run.step(batch)
        log = run.logs[-1]
        assert_close(log["mcl_contrastive_raw"], -(far[0] + far[1]).item() / 2, "loose", dtype=torch.float32)
        assert_close(log["mcl_negative_distance"], (far[0] + far[1]).item() / 2, "loose", dtype=torch.float32)
        assert (log["mcl_contrastive_raw"] == 0) == (step == 0)
        assert not any("positive" in name for name in log)


@pytest.mark.parametrize("negatives", [[], [{"type": "PastOutput"}]])
def test_feature_matching_in_an_embedding_that_learns(negatives: list[Any]) -> None:
    """As a perceptual loss, or with negatives as a contrast, in PCL's embedding."""
    haar = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
    method = mcl(embedding=haar, positives=HR, negatives=negatives)
    methods = attached(net := CountingNet(), method)
    batch = methods.run(net, images_batch())
    methods.auxiliary_losses(batch)["mcl_discriminator"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.embedding.parameters())
    method.zero_grad()
    before = copy.deepcopy(method.embedding.state_dict())
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    method.eval()
    want = distance(method.embedding, batch["sr"], batch["hr"])
    assert_close(losses.metrics["mcl_contrastive_raw"], want.detach(), "loose")  # a past is the network itself here
    losses.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert all(p.grad is None for p in method.parameters())
    assert_same(before, method.embedding.state_dict())
    assert list(methods.trained_parts()) == ["mcl_embedding"]


def test_layers_of_vgg_with_weights_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolutions = {0: nn.Conv2d(3, 64, 3, padding=1), 2: nn.Conv2d(64, 64, 3, padding=1)}
    state = {f"features.{i}.{n}": p for i, conv in convolutions.items() for n, p in conv.state_dict().items()}
    torch.save(state, tmp_path / "vgg.pth")
    vgg = {"type": "VGGFeatures", "layers": ["relu1_1", "relu1_2"], "weights": str(tmp_path / "vgg.pth")}
    method = mcl(embedding=vgg, layer_weights=[0.2, 0.5], positives=HR, negatives=[])
    methods = attached(net := CountingNet(), method)
    batch = methods.run(net, images_batch())
    first, second = (
        (f - g).abs().mean() for f, g in zip(*map(method.embedding, (batch["sr"], batch["hr"])), strict=True)
    )
    want = 0.2 * first + 0.5 * second
    assert_close(methods.sr_losses(batch).metrics["mcl_contrastive_raw"], want.detach(), "loose")
    assert not methods.trainable
    assert not [name for name in methods.state_dict() if "embedding" in name]


@pytest.mark.parametrize("kind", ["PCL", "ContrastiveRegularization", "MCL"])
def test_a_past_is_a_negative_of_any_method_with_an_embedding(kind: str) -> None:
    """Also beside others; from the first step on, where it is the network itself, everything is finite."""
    negatives = [{"type": "PastOutput", "decay": 0.9}, {"type": "GaussianBlur", "count": 1}]
    haar = {"type": "HaarDiscriminator", "out_indices": [0]}
    options = {"embedding": haar, "negatives": negatives, "positives": HR, "loss_share": 0.05, "every": 1}
    (method,) = build_methods([{"type": kind, **options}])
    run = training(method, net=NormNet())
    for step in range(3):
        run.step(images_batch(seed=step))
    assert all(torch.tensor(list(log.values())).isfinite().all() for log in run.logs)
    assert all(value.isfinite().all() for value in run.states().values())
    assert run.logs[-1][f"{method.name}_contrastive_share"] == pytest.approx(0.05, rel=1)


def test_a_past_that_is_the_network_itself_counts_at_no_step() -> None:
    run = training(mcl(negatives=[{"type": "PastOutput", "decay": 0, "interval": 3}]))
    for step in range(6):
        run.step(images_batch(seed=step))
    weights = [log["mcl_contrastive_weight"] for log in run.logs]
    assert weights == pytest.approx([0, 0.1, 0.1, 0, 0.1, 0.1])  # and not only a distance of 0


def test_pasts_are_in_the_state_and_nowhere_else() -> None:
    method = mcl()
    run = training(method)
    names = {name for name, _ in run.net.named_parameters()}
    (sample,) = method.negatives
    assert isinstance(sample, PastOutput)
    prefix = "mcl.samples.0.pasts.0."
    assert {name.removeprefix(prefix) for name in run.methods.state_dict() if name.startswith(prefix)} == names
    assert not [p for p in sample.parameters() if p.requires_grad]
    run.step(images_batch())
    assert all(p.grad is None for p in sample.parameters())
    assert not [p for optimizer in run.optimizers for p in optimizer.state if p in set(sample.parameters())]
    fixed = build_methods([{"type": "PCL", "every": 1, "loss_weight": 0.1}])
    assert not [name for name in fixed.state_dict() if ".samples." in name]


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    """Of a network with statistics, in any step between two updates."""

    def new(seed: int) -> Training:
        torch.manual_seed(seed)
        past = {"type": "PastOutput", "decay": [0.9, 0.1], "interval": [1, 3]}
        method = MCL(embedding=SmoothEmbedding(), loss_share=0.2, negatives=[past], phase="fixed")
        return Training(net := NormNet(), attached(net, method))

    whole, first = new(0), new(0)
    for step in range(8):
        whole.step(images_batch(seed=step))
    for step in range(4):
        first.step(images_batch(seed=step))
    torch.save([part.state_dict() for part in first.parts], tmp_path / "state.pth")
    second = new(99)
    for part, state in zip(second.parts, torch.load(tmp_path / "state.pth"), strict=True):
        part.load_state_dict(state)
    second.methods["mcl"].embedding.load_state_dict(whole.methods["mcl"].embedding.state_dict())
    for step in range(4, 8):
        second.step(images_batch(seed=step))
    assert_same(whole.states(), second.states())
    assert first.logs + second.logs == whole.logs


def test_a_state_before_the_pasts_is_refused_and_looking_moves_nothing() -> None:
    run = training(method := mcl())
    run.step(images_batch())
    state = {name: value for name, value in run.methods.state_dict().items() if ".samples." not in name}
    with pytest.raises(RuntimeError, match=r"mcl\.samples\.0\.pasts\.0\.body"):
        run.methods.load_state_dict(state)
    before = copy.deepcopy(run.methods.state_dict())
    run.methods.eval()
    with torch.no_grad():
        batch = run.methods.run(run.net, images_batch())
        (comparison,) = run.methods.compared(batch)
    assert_same(before, run.methods.state_dict())
    assert [part.label for part in comparison.parts] == ["SR", "PastOutput"]
    past = method.negatives[0](batch)[:1, 0]
    want = distance(method.embedding, batch["sr"][:1], past).item()
    assert comparison.parts[1].similarity == pytest.approx(want, rel=1e-4)


def test_mixed_precision_is_finite_and_the_past_is_exact() -> None:
    run = training(method := mcl(positives=HR))
    run.step(images_batch())
    with torch.autocast("cpu", torch.bfloat16):
        batch = run.methods.run(run.net, images_batch(seed=1))
        losses = run.methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        sample = method.negatives[0](batch)
    (past,) = method.negatives[0].pasts  # type: ignore[attr-defined]
    assert torch.equal(sample[:, 0], past(batch["lr"]))
    assert losses.loss.dtype == torch.float32
    losses.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in run.net.parameters())


def test_double_precision_stays_double() -> None:
    methods = attached(net := CountingNet().double(), mcl(positives=HR)).double()
    batch = methods.run(net, {key: value.double() for key, value in images_batch().items()})
    assert methods.sr_losses(batch).loss.dtype == torch.float64


def test_one_sample_in_two_lists_is_refused() -> None:
    past = PastOutput()
    with pytest.raises(ConfigError, match="expected a new one for each list"):
        attached(CountingNet(), mcl(negatives=[past]), mcl(negatives=[past], name="other"))


def test_a_network_of_another_scale_is_refused_at_the_first_batch() -> None:
    methods = attached(net := CountingNet(scale=2), mcl())
    with pytest.raises(DataError, match="from the past, CountingNet"):
        methods.run(net, images_batch())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"negatives": []}, "mcl: positives, negatives: expected at least one sample in one of them, got none"),
        ({"negatives": [{"type": "Past"}]}, r"mcl: negatives\[0\]: does not know the type 'Past'"),
        ({"positives": "HR"}, "mcl: positives: expected a list with at least one of"),
        ({"layer_weights": [1.0]}, "mcl: layer_weights: expected one number for each of the 4 layers of Haar.*, got 1"),
        ({"layer_weights": 1.0}, "mcl: layer_weights: expected a list of one number for each layer"),
        ({"loss_weight": 0.1, "loss_share": 0.1}, "got both"),
        ({"negatives": [{"type": "PastOutput", "decay": 1.5}]}, r"PastOutput\(decay\): expected a number below 1"),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([{"type": "MCL", "embedding": {"type": "HaarDiscriminator"}, **config}])


def test_it_is_found_by_name() -> None:
    assert METHODS["MCL"] is MCL
    assert Methods([mcl()]).names == ["mcl"]
