"""InfoNCE, BidirectionalNCE and SRNCE: where features come from, what each step trains, and what they refuse."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached, step_of
from method_oracles import info_nce_loops, srnce_negative_loops, unit_vectors
from small_models import IdentityEmbedding, SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrastive_sr.embeddings import Embedding
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional import srnce
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.methods import PCL, SRNCE, BidirectionalNCE, InfoNCE, Method, Methods, build_methods
from contrastive_sr.methods.layers import dry_run, super_resolve
from contrastive_sr.methods.nce import PositionMethod
from contrastive_sr.networks.call import NetworkCall
from contrastive_sr.samples import GaussianBlur, HighResolution

METHODS: list[type[PositionMethod]] = [InfoNCE, BidirectionalNCE, SRNCE]
LAYERS = ["head", "body.1"]
SMALL = {  # what tests/test_fuzz_config.py builds
    "InfoNCE": {"loss_weight": 0.1, "dim": 4},
    "BidirectionalNCE": {"loss_share": 0.1, "dim": 4},
    "SRNCE": {"loss_weight": 0.1, "dim": 4},
}
TAPPED_ONCE = {"type": "HaarDiscriminator", "out_indices": [0]}


class Net(nn.Module):
    """x4, with parts before, at and behind what is tapped; it overwrites outputs in place as EDSR does."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 6, 3, padding=1)
        self.body = nn.Sequential(nn.Tanh(), nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(inplace=True))
        self.act = nn.Tanh()
        self.idle = nn.Conv2d(3, 3, 1)
        self.tail = nn.Conv2d(7, 48, 3, padding=1)
        self.calls = 0

    def forward(self, lr: Tensor) -> Tensor:
        self.calls += 1
        x = self.act(self.act(self.body(self.head(lr))))
        return F.interpolate(lr, scale_factor=4) + F.pixel_shuffle(0.1 * self.tail(x), 4)


def net(seed: int = 1) -> Net:
    torch.manual_seed(seed)
    network = Net()
    del network.idle  # of no use but to be named in one test
    return network


def build(kind: type[PositionMethod] = BidirectionalNCE, **arguments: Any) -> Any:
    """A small method of reproducible parameters, with a fixed embedding of two layers unless another is given."""
    torch.manual_seed(0)
    sizes = {"embedding": SmoothEmbedding(), "dim": 8, "positions": 16}
    defaults = {**sizes, "name": "nce", "loss_weight": 0.01, "phase": "fixed"}
    return kind(**{**defaults, **arguments})


def ready(method: Method) -> tuple[Methods, Net, dict[str, Tensor]]:
    network = net()
    methods = attached(network, method)
    return methods, network, methods.run(network, images_batch())


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


# Values


def ready_in_double(method: Method) -> tuple[Methods, Net, dict[str, Tensor]]:
    network = net().double()
    methods = attached(network, method.double())
    batch = {key: value.double() for key, value in images_batch(size=16).items()}
    return methods, network, methods.run(network, batch)


def expected(kind: type[PositionMethod], anchors: list[Tensor], hr: list[Tensor], lr: list[Tensor]) -> float:
    """The loss at temperature 0.2, mean over images and layers."""
    values = []
    for a, h, low in zip(anchors, hr, lr, strict=True):
        for image in range(len(a)):
            sr, keys, condition = unit_vectors(a[image]), unit_vectors(h[image]), unit_vectors(low[image])
            if kind is SRNCE:
                values.append(srnce_negative_loops(keys, sr, condition, 0.2))
            else:
                values.append(info_nce_loops(sr, keys, 0.2))
                if kind is BidirectionalNCE:
                    values[-1] += info_nce_loops(keys, sr, 0.2)
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", METHODS)
def test_term_is_the_equation_on_the_features_of_sr_and_hr(kind: type[PositionMethod]) -> None:
    arguments = {"variant": "negative"} if kind is SRNCE else {}
    method = build(kind, dim=None, positions=None, temperature=0.2, **arguments)
    methods, _, batch = ready_in_double(method)
    embed = method.embedding
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)
    want = expected(kind, embed(batch["sr"]), embed(batch["hr"]), embed(enlarged))
    losses = methods.sr_losses(batch)
    assert_close(losses.metrics["nce_contrastive_raw"], want, dtype=torch.float64)
    assert_close(losses.loss, 0.01 * want, dtype=torch.float64)
    similarity = [F.cosine_similarity(a, b).mean() for a, b in zip(embed(batch["sr"]), embed(batch["hr"]), strict=True)]
    assert losses.metrics["nce_positive_similarity"].item() == pytest.approx(torch.stack(similarity).mean().item())
    if kind is SRNCE:
        similarity = [
            F.cosine_similarity(a, b).mean() for a, b in zip(embed(batch["sr"]), embed(enlarged), strict=True)
        ]
        assert losses.metrics["nce_lr_similarity"].item() == pytest.approx(torch.stack(similarity).mean().item())


@pytest.mark.parametrize("kind", METHODS)
def test_term_is_the_equation_on_the_network_s_own_layers(kind: type[PositionMethod]) -> None:
    """HR is 16 x 16, the network's layers 4 x 4, and the embedding's maps 16 x 16 and 8 x 8: pooled to 4 x 4."""
    arguments = {"variant": "negative"} if kind is SRNCE else {}
    method = build(kind, positions=None, temperature=0.2, layers=LAYERS, **arguments)
    methods, network, batch = ready_in_double(method)
    tapped = [network.head(batch["lr"]), network.body[:2](network.head(batch["lr"]))]
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)

    def project(heads: Any, maps: list[Tensor]) -> list[Tensor]:
        pooled = [F.avg_pool2d(x, x.shape[-1] // 4) for x in maps]
        pairs = zip(heads, pooled, strict=True)
        return [head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for head, x in pairs]

    anchors = project(method.loss.anchor_heads, tapped)
    hr, lr = (project(method.loss.heads, method.embedding(images)) for images in (batch["hr"], enlarged))
    want = expected(kind, anchors, hr, lr)
    assert_close(methods.sr_losses(batch).metrics["nce_contrastive_raw"], want, dtype=torch.float64)


def test_several_positives_are_averaged() -> None:
    positives = [HighResolution(), GaussianBlur(count=2)]
    method = build(InfoNCE, dim=None, positions=None, temperature=0.2, positives=positives)
    methods, _, batch = ready_in_double(method)
    blurred = GaussianBlur(count=2)(batch, step_of(methods).generator("cpu")).unbind(1)
    embed = method.embedding
    sr = embed(batch["sr"])
    want = sum(expected(InfoNCE, sr, embed(images), sr) for images in (batch["hr"], *blurred)) / 3
    assert_close(methods.sr_losses(batch).metrics["nce_contrastive_raw"], want, dtype=torch.float64)


def test_several_conditions_are_averaged() -> None:
    negatives = [{"type": "UpsampledLowResolution"}, {"type": "GaussianBlur", "count": 1}]
    both = build(SRNCE, dim=None, positions=None, negatives=negatives)
    methods, _, batch = ready(both)
    value = methods.sr_losses(batch).metrics["nce_contrastive_raw"].item()
    alone = [build(SRNCE, dim=None, positions=None, negatives=[one]) for one in negatives]
    values = [attached(net(), m).sr_losses(batch).metrics["nce_contrastive_raw"].item() for m in alone]
    assert values[0] != values[1]
    assert_close(value, sum(values) / 2, dtype=torch.float32)


def test_contrast_over_the_batch() -> None:
    method = build(InfoNCE, dim=None, positions=None, temperature=0.2, negatives_from="batch")
    assert method.loss.gather
    methods, _, batch = ready_in_double(method)
    layers = []
    for a, h in zip(method.embedding(batch["sr"]), method.embedding(batch["hr"]), strict=True):
        anchors, keys = ([v for image in x for v in unit_vectors(image)] for x in (a, h))
        layers.append(info_nce_loops(anchors, keys, 0.2))
    want = sum(layers) / len(layers)
    assert_close(methods.sr_losses(batch).metrics["nce_contrastive_raw"], want, dtype=torch.float64)


@pytest.mark.parametrize("kind", METHODS)
def test_an_embedding_that_gives_vectors(kind: type[PositionMethod]) -> None:
    class Pooled(Embedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images.mean((2, 3)), images.std((2, 3))]

    method = build(kind, embedding=Pooled())
    methods, network, batch = ready(method)
    sum(methods.auxiliary_losses(batch).values()).backward()
    methods.sr_losses(batch).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


# Gradients: who learns from what


@pytest.mark.parametrize("kind", METHODS)
def test_sr_step_trains_the_network_and_nothing_else(kind: type[PositionMethod]) -> None:
    method = build(kind, embedding={"type": "HaarDiscriminator", "out_indices": [0, 1]})
    methods, network, batch = ready(method)
    method.train()
    before = copy.deepcopy(method.embedding.state_dict())
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(p.grad is None for p in method.parameters())
    assert all(p.requires_grad for p in method.parameters())
    assert all(module.training for module in method.modules())
    assert all(torch.equal(value, before[name]) for name, value in method.embedding.state_dict().items())


@pytest.mark.parametrize("kind", METHODS)
def test_sr_step_on_layers_trains_what_lies_before_them(kind: type[PositionMethod]) -> None:
    method = build(kind, embedding={"type": "HaarDiscriminator", "out_indices": [0, 1]}, layers=LAYERS)
    methods, network, batch = ready(method)
    (at_sr,) = torch.autograd.grad(methods.sr_losses(batch).loss, batch["sr"], retain_graph=True, allow_unused=True)
    assert at_sr is None
    methods.sr_losses(batch).loss.backward()
    for name, parameter in network.named_parameters():
        if name.startswith("tail"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("layers", [None, LAYERS])
@pytest.mark.parametrize("kind", METHODS)
def test_auxiliary_step_trains_heads_and_embedding_and_nothing_else(
    kind: type[PositionMethod], layers: list[str] | None
) -> None:
    method = build(kind, embedding={"type": "HaarDiscriminator", "out_indices": [0, 1]}, layers=layers)
    methods, network, batch = ready(method)
    losses = methods.auxiliary_losses(batch)
    assert list(losses) == ["nce_discriminator", "nce_contrast_head"]
    losses["nce_contrast_head"].backward()
    assert all(p.grad is None for p in (*network.parameters(), *method.embedding.parameters()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.loss.parameters())
    losses["nce_discriminator"].backward()
    assert all(p.grad is None for p in network.parameters())
    parameters = dict(method.named_parameters())
    bias = parameters.pop("features.head.bias")  # the loss is of differences of logits, which know none
    assert bias.grad is not None
    assert bias.grad.abs().sum() < 1e-6
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())
    assert len(list(method.loss.parameters())) == 4 * 2 * (1 if layers is None else 2)


def test_srnce_s_heads_learn_from_all_three_roles() -> None:
    method = build(SRNCE, positions=None, layers=["head"], embedding=IdentityEmbedding())
    methods, _, batch = ready(method)
    methods.auxiliary_losses(batch)["nce_contrast_head"].backward()
    enlarged = F.interpolate(batch["lr"], scale_factor=4, mode="bicubic").clamp(0, 1)
    maps = [F.avg_pool2d(batch["hr"], 4), batch["features/head"].detach(), F.avg_pool2d(enlarged, 4)]
    (head,), (anchor_head,) = method.loss.heads, method.loss.anchor_heads
    hr, sr, lr = (h(x.flatten(2).mT) for h, x in zip((head, anchor_head, head), maps, strict=True))
    parameters = list(method.loss.parameters())
    want = torch.autograd.grad(srnce(hr, sr, lr, variant="negative", detach_hr=False, detach_lr=False), parameters)
    for parameter, gradient in zip(parameters, want, strict=True):
        assert_close(parameter.grad, gradient, "loose", scale=1e-3)


@pytest.mark.parametrize("layers", [None, LAYERS])
def test_both_steps_see_the_same_positions(layers: list[str] | None) -> None:
    method = build(layers=layers)
    methods, network, batch = ready(method)
    heads = methods.auxiliary_losses(batch)["nce_contrast_head"].item()
    assert methods.sr_losses(batch).metrics["nce_contrastive_raw"].item() == heads
    # and the next step others, though nothing was trained
    batch = methods.run(network, images_batch())
    assert methods.auxiliary_losses(batch)["nce_contrast_head"].item() != heads


def test_training_the_heads_lowers_their_loss() -> None:
    method = build(layers=LAYERS, dim=32)
    methods, _, batch = ready(method)
    optimizer = torch.optim.Adam(method.loss.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = methods(batch)["nce_contrast_head"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_without_heads_nothing_trains() -> None:
    method = build(dim=None)
    methods, _, batch = ready(method)
    assert not methods.trainable
    assert list(methods.parameters(recurse=True)) == list(method.embedding.parameters())
    assert methods.auxiliary_losses(batch) == {}


def test_heads_follow_torch_s_own_random_state() -> None:
    first, second = build(layers=LAYERS), build(layers=LAYERS, seed=5)
    for method in (first, second):
        network = net()
        torch.manual_seed(3)
        attached(network, method)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_attach_leaves_a_method_without_layers_alone() -> None:
    for method in (PCL(every=1, loss_weight=0.1, embedding=SmoothEmbedding()), build()):
        network, before, random = net(), [id(p) for p in method.parameters()], torch.get_rng_state()
        attached(network, method)
        assert [id(p) for p in method.parameters()] == before
        assert torch.equal(torch.get_rng_state(), random)


def test_attach_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(net(), nn.BatchNorm2d(3), nn.Dropout())
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    attached(network, build(layers=["0.head", "1"]))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [part.training for part in (network, *network)] == [True, True, True, False]
    assert hooks(network) == 0


# Layers


def test_layers_are_what_the_modules_returned_in_the_one_call() -> None:
    method = build(layers=LAYERS)
    methods, network, batch = ready(method)
    before = network.calls
    images = images_batch()
    batch = methods.run(network, images)
    assert network.calls == before + 1
    assert set(batch) == {"lr", "hr", "sr", "features/head", "features/body.1"}
    assert set(images) == {"lr", "hr"}
    torch.testing.assert_close(batch["features/head"], network.head(batch["lr"]))
    # body.2 is an activation in place: it must not be what is seen of body.1
    assert (batch["features/body.1"] < 0).any()
    torch.testing.assert_close(batch["features/body.1"], network.body[:2](network.head(batch["lr"])))
    assert batch["features/body.1"].requires_grad
    assert hooks(network) == 0


def test_hooks_are_gone_after_an_error_in_the_network() -> None:
    network = net()
    with pytest.raises(RuntimeError, match="expected input"):
        super_resolve(network, torch.rand(1, 5, 8, 8), LAYERS)
    assert hooks(network) == 0
    with pytest.raises(ConfigError):
        super_resolve(network, torch.rand(1, 3, 8, 8), ["head", "bodi"])
    assert hooks(network) == 0


def test_two_methods_on_layers_call_the_network_once() -> None:
    methods = Methods(
        [
            build(layers=LAYERS),
            build(SRNCE, name="second", layers=["body.1", "tail"]),
            PCL(every=1, loss_weight=0.001, embedding=SmoothEmbedding()),
        ]
    )
    network = net()
    methods.attach(network)
    calls = network.calls
    batch = methods.run(network, images_batch())
    assert network.calls == calls + 1
    assert {key for key in batch if "/" in key} == {"features/head", "features/body.1", "features/tail"}
    losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    terms = [key for key in losses.metrics if key.endswith("_contrastive")]
    assert terms == ["nce_contrastive", "second_contrastive", "pcl_contrastive"]
    assert list(methods(batch)) == ["nce_contrast_head", "second_contrast_head"]


def test_the_other_order_calls_the_network_once_too() -> None:
    methods = Methods([PCL(every=1, loss_weight=0.001, embedding=SmoothEmbedding()), build(layers=LAYERS)])
    network = net()
    methods.attach(network)
    calls = network.calls
    methods.sr_losses(methods.run(network, images_batch()))
    assert network.calls == calls + 1


def test_a_batch_with_sr_and_without_features_is_refused() -> None:
    method = build(layers=LAYERS)
    methods, network, batch = ready(method)
    assert methods.run(network, batch)["sr"] is batch["sr"]
    del batch["features/head"]
    with pytest.raises(DataError, match=r"The batch has its 'sr' already, but not the features of \['head'\]"):
        methods.run(network, batch)


@pytest.fixture
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrapper", [DistributedDataParallel, DataParallel])
def test_names_are_those_of_the_network_inside_its_wrapper(wrapper: type[nn.Module], one_process: None) -> None:
    plain, network, batch = ready(build(layers=LAYERS))
    around = wrapper(copy.deepcopy(network))
    wrapped = attached(around, build(layers=LAYERS))
    wrapped.load_state_dict(plain.state_dict())
    methods = DistributedDataParallel(wrapped)
    other = wrapped.run(around, images_batch())
    assert sorted(other) == sorted(batch)
    # all of the heads take part, or the wrapper would wait for those that do not
    sum(methods(other).values()).backward()
    assert all(p.grad is not None for p in wrapped["nce"].loss.parameters())
    for first, second in ((plain, batch), (wrapped, other)):
        first.sr_losses(second, F.l1_loss(second["sr"], second["hr"])).loss.backward()
    assert hooks(around) == 0


@pytest.mark.basicsr
@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (
            {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3},
            ["body.2", "conv_after_body"],
        ),
        (
            {"type": "RCAN", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_group": 2, "num_block": 1,
             "squeeze_factor": 4},
            ["body.0", "conv_after_body"],
        ),
        (
            {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4},
            ["body.1", "conv_body"],
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_stock_networks_can_be_tapped(options: dict[str, Any], layers: list[str]) -> None:
    upscale = {} if options["type"] == "RRDBNet" else {"upscale": 4}
    network = import_basicsr("basicsr.archs").build_network({**options, **upscale})
    keys = list(network.state_dict())
    method = build(layers=layers)
    methods = attached(network, method)
    batch = methods.run(network, images_batch())
    shapes = [tuple(batch[f"features/{name}"].shape) for name in layers]
    assert shapes == [(2, 8, 8, 8)] * 2
    # EDSR and RCAN add the input of the body to the last layer's output in place: it is not seen with it
    own = network.get_submodule(layers[1])
    torch.testing.assert_close(
        batch[f"features/{layers[1]}"], F.conv2d(_input_of(network, own, batch["lr"]), own.weight, own.bias, padding=1)
    )
    sum(methods.auxiliary_losses(batch).values()).backward()
    methods.sr_losses(batch).loss.backward()
    first = network.conv_first.weight.grad
    assert first is not None
    assert first.abs().sum() > 0
    assert network.conv_last.weight.grad is None
    assert list(network.state_dict()) == keys


def _input_of(network: nn.Module, module: nn.Module, lr: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    network(lr)
    handle.remove()
    return seen[0]


# Logs and shares


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("share", [{"loss_share": 0.05, "loss_weight": None}, {}])
@pytest.mark.parametrize("layers", [{"layers": LAYERS}, {}])
def test_logs_are_of_the_same_names_at_every_step(
    kind: type[PositionMethod], share: dict[str, Any], layers: dict[str, Any]
) -> None:
    method = build(kind, share_interval=2, **share, **layers)
    network = net()
    methods = attached(network, method)
    names = {
        "nce_contrastive",
        "nce_contrastive_raw",
        "nce_contrastive_weight",
        "nce_contrastive_share",
        "nce_positive_similarity",
    }
    names |= {"nce_lr_similarity"} if kind is SRNCE else set()
    for step in range(4):
        batch = methods.run(network, images_batch(seed=step))
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert set(losses.metrics) == names
        assert all(value.shape == () and not value.requires_grad for value in losses.metrics.values())
        if share and step < 2:
            assert losses.metrics["nce_contrastive_share"].item() == pytest.approx(0.05, rel=0.5)


def test_the_share_of_a_term_on_layers_is_that_at_their_outputs() -> None:
    network = net()
    methods = attached(network, build(layers=LAYERS, loss_share=0.05, loss_weight=None))
    batch = methods.run(network, images_batch())
    pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
    total = methods.sr_losses(batch, pixel_loss).loss
    outputs = [batch[f"features/{name}"] for name in LAYERS]
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, outputs, retain_graph=True)]).norm()
        for loss in (total, pixel_loss)
    ]
    assert norms[1] > 0
    assert_close(norms[0] / norms[1], 0.05, "loose", dtype=torch.float32)


# Precision


@pytest.mark.parametrize("layers", [None, LAYERS])
def test_mixed_precision_is_finite_and_near_float32(layers: list[str] | None) -> None:
    values = []
    for enabled in (False, True):
        method = build(SRNCE, layers=layers, temperature=0.5, positions=None)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            methods, network, batch = ready(method)
            auxiliary = sum(methods.auxiliary_losses(batch).values())
            losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        (auxiliary + losses.loss).backward()
        for parameter in (*network.parameters(), *method.loss.parameters()):
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()
        values.append(losses.metrics["nce_contrastive_raw"].item())
    assert values[1] == pytest.approx(values[0], rel=0.02)


# State


@pytest.mark.parametrize("layers", [None, LAYERS])
def test_a_resumed_run_continues_bit_for_bit(layers: list[str] | None, tmp_path: Path) -> None:
    """4 steps against 2, files, and 2 more from new objects."""

    class Training:
        def __init__(self, seed: int) -> None:
            self.net = net(seed)
            embedding = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
            weight = {"loss_share": 0.05} if layers is None else {"loss_weight": 0.01}
            config = {"type": "SRNCE", "dim": 8, "positions": 16, "layers": layers, "embedding": embedding, **weight}
            self.methods = build_methods([config])
            self.methods.attach(self.net)
            self.net_optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
            self.optimizer = torch.optim.Adam(self.methods.parameters(), 1e-3)
            self.logs: list[dict[str, float]] = []
            self.parts = (self.net, self.methods, self.net_optimizer, self.optimizer)

        def steps(self, first: int, last: int) -> None:
            for step in range(first, last):
                batch = self.methods.run(self.net, images_batch(seed=step))
                auxiliary = self.methods(batch)
                self.optimizer.zero_grad()
                sum(auxiliary.values()).backward()
                self.optimizer.step()
                pixel = F.l1_loss(batch["sr"], batch["hr"])
                losses = self.methods.sr_losses(batch, pixel)
                self.net_optimizer.zero_grad()
                (pixel + losses.loss).backward()
                self.net_optimizer.step()
                self.logs.append({key: value.item() for key, value in {**auxiliary, **losses.metrics}.items()})

    whole, first = Training(0), Training(0)
    whole.steps(0, 4)
    first.steps(0, 2)
    torch.save([part.state_dict() for part in first.parts], tmp_path / "state.pth")
    second = Training(99)
    for part, state in zip(second.parts, torch.load(tmp_path / "state.pth"), strict=True):
        part.load_state_dict(state)
    torch.manual_seed(1234)  # the process's own random state has no part in it
    second.steps(2, 4)
    assert first.logs + second.logs == whole.logs
    for resumed, straight in zip((second.net, second.methods), (whole.net, whole.methods), strict=True):
        for name, value in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name


def test_the_trained_embedding_can_be_frozen_in_another_run(tmp_path: Path) -> None:
    method = build(embedding={"type": "HaarDiscriminator", "out_indices": [0, 1]})
    assert list(method.trained_parts()) == ["nce_embedding"]
    torch.save({"state_dict": method.state_dict()}, tmp_path / "all.pth")
    embedding = {"type": "HaarDiscriminator", "out_indices": [0, 1], "weights": str(tmp_path / "all.pth")}
    reused = build(embedding=embedding, train_embedding=False)
    for name, value in method.embedding.state_dict().items():
        assert torch.equal(reused.embedding.state_dict()[name], value)
    assert reused.trained_parts() == {}


# Errors


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            ["head", "body.9"],
            r"Net does not know the layer 'body.9'. Did you mean 'body\.\d'.* Its parts are head, body,",
        ),
        (["head", "haed"], r"does not know the layer 'haed'. Did you mean 'head'"),
        (["head", ""], r"does not know the layer ''"),
        (["head", "act"], r"a layer that runs once .*'act' ran 2 times"),
        (["head", "idle"], r"a layer that runs once .*'idle' ran 0 times"),
    ],
)
def test_impossible_layers_are_refused(layers: list[str], message: str) -> None:
    torch.manual_seed(0)
    network = Net()
    with pytest.raises(ConfigError, match=message):
        attached(network, build(layers=layers))
    assert hooks(network) == 0


def test_layers_that_give_no_maps_are_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.flat, self.up = Pair(), nn.Flatten(2), nn.Upsample(scale_factor=4)

        def forward(self, x: Tensor) -> Tensor:
            self.flat(x)
            return self.up(self.pair(x)[0])

    with pytest.raises(ConfigError, match=r"feature maps \(B, C, H, W\), but 'flat' returns a float32 tensor of shape"):
        dry_run(Token(), ["flat"], lambda lr: {}, NetworkCall())
    with pytest.raises(ConfigError, match=r"feature maps \(B, C, H, W\), but 'pair' returns a tuple"):
        dry_run(Token(), ["pair"], lambda lr: {}, NetworkCall())


def test_a_layer_without_gradient_is_refused() -> None:
    method = build(layers=LAYERS)
    methods, network, _ = ready(method)
    network.head.requires_grad_(False)
    with pytest.raises(ConfigError, match="'head' has no gradient, so a loss on it would train nothing"):
        methods.run(network, images_batch())


def test_attach_comes_once_and_before_the_first_batch() -> None:
    methods = Methods([build(layers=LAYERS)])
    with pytest.raises(ConfigError, match=r"The methods do not know the SR network yet\. Call attach\(net\) once"):
        methods.run(net(), images_batch())
    methods.attach(net())
    with pytest.raises(ConfigError, match=r"attach\(\) was called before"):
        methods.attach(net())


def test_a_network_that_is_a_function_has_no_layers() -> None:
    method = build(layers=LAYERS)
    methods = attached(net(), method)
    with pytest.raises(ConfigError, match=r"expected an nn\.Module as SR network"):
        methods.run(lambda lr: lr, images_batch())


def test_without_heads_the_channels_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"they have \[6, 7\] channels and the embedding's maps \[4, 5\].*Give `dim`"):
        attached(net(), build(layers=LAYERS, dim=None))
    same = build(layers=["tail"], dim=None, embedding=IdentityEmbedding())
    network = nn.Module()
    network.tail = nn.Conv2d(3, 3, 1)  # type: ignore[assignment]
    network.forward = lambda lr: F.interpolate(network.tail(lr), scale_factor=4)  # type: ignore[assignment]
    methods = attached(network, same)
    methods.sr_losses(methods.run(network, images_batch())).loss.backward()
    assert network.tail.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "body.1"}, r"nce: layers: expected a list of names .* got 'body.1' \(str\)"),
        ({"layers": []}, "nce: layers: expected a list of names"),
        ({"layers": [1, 2]}, "nce: layers: expected a list of names"),
        ({"layers": ["head"]}, r"expected one for each feature map of SmoothEmbedding, which has 2 .*\[4, 5\].* got 1"),
        ({"negatives_from": "images"}, "nce: negatives_from: expected one of image, batch, got 'images'"),
        ({"dim": 0}, "nce: dim: expected a whole number of at least 1, got 0"),
        ({"temperature": 0}, r"temperature\): expected a number above 0"),
        ({"temperature": 0, "layers": LAYERS}, r"temperature\): expected a number above 0"),
        ({"positions": 1}, r"positions\): expected a whole number of at least 2"),
        ({"positives": []}, "nce: positives: expected a list with at least one of"),
        ({"train_embedding": True}, "nce: SmoothEmbedding cannot be trained"),
        ({"loss_share": 0.05}, "expected one of `loss_weight` .* got both"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    for kind in METHODS:
        with pytest.raises(ConfigError, match=message):
            build(kind, **arguments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "BidirectionalNCE", "layer": ["head"]}, "Did you mean 'layers'"),
        ({"type": "InfoNCE", "negatives": []}, "InfoNCE does not know the key 'negatives'"),
        ({"type": "SRNCE", "variant": "negativ"}, r"variant\): expected one of negative, tempered, paper"),
        ({"type": "SRNCE", "negatives": []}, "srnce: negatives: expected a list with at least one of"),
        ({"type": "SRNSE"}, "does not know the type 'SRNSE'. Did you mean 'SRNCE'"),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([{"loss_weight": 0.01, **config}])


def test_a_patch_too_small_for_the_embedding_is_refused() -> None:
    methods = attached(net(), build(embedding={"type": "HaarDiscriminator"}))
    with pytest.raises(DataError, match="at least 32 x 32"):
        methods.run(net(), images_batch(size=16))


# Traps


@pytest.mark.parametrize(("variant", "warned"), [("tempered", 1), ("paper", 1), ("negative", 0)])
def test_variants_that_need_a_warm_start_are_warned_about_on_layers(variant: str, warned: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(SRNCE, layers=LAYERS, variant=variant)
        build(SRNCE, variant=variant)
    assert sum("leads SR features away from HR" in str(warning.message) for warning in caught) == warned


def test_srnce_on_layers_moves_towards_hr_with_its_defaults() -> None:
    torch.manual_seed(0)
    method, network = SRNCE(loss_share=0.05, layers=["head"], dim=16, embedding=TAPPED_ONCE), net()
    methods = attached(network, method)
    optimizer = torch.optim.Adam([*network.parameters(), *methods.parameters()], lr=1e-2)
    similarity = []
    for step in range(30):
        batch = methods.run(network, images_batch(seed=step % 4))
        auxiliary = sum(methods.auxiliary_losses(batch).values())
        pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
        losses = methods.sr_losses(batch, pixel_loss)
        optimizer.zero_grad()
        (auxiliary + pixel_loss + losses.loss).backward()
        optimizer.step()
        similarity.append(losses.metrics["srnce_positive_similarity"].item())
    assert sum(similarity[-5:]) / 5 > sum(similarity[:5]) / 5 + 0.1


def test_heads_are_where_the_method_is() -> None:
    method = build(layers=LAYERS).double()
    attached(net().double(), method)
    assert {p.dtype for p in method.loss.parameters()} == {torch.float64}
    elsewhere = build(layers=LAYERS).to("meta")
    attached(net(), elsewhere)
    assert {p.device.type for p in elsewhere.loss.parameters()} == {"meta"}


def test_a_state_is_loaded_after_attach() -> None:
    methods = attached(net(), build(layers=LAYERS))
    with pytest.raises(ConfigError, match=r"Call attach\(net\) before load_state_dict\(\)"):
        Methods([build(layers=LAYERS)]).load_state_dict(methods.state_dict())


def test_a_network_for_images_of_two_channels_is_refused() -> None:
    other = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.PixelShuffle(4))
    message = "for images of 3 channels or of 1; Sequential fails on each .* 32, 48, 64, 96 .*2 channels, but got 3"
    with pytest.raises(ConfigError, match=message):
        attached(other, build(layers=["0"], embedding=TAPPED_ONCE))


def test_an_embedding_that_returns_one_tensor_is_refused() -> None:
    class OneTensor(Embedding):
        def forward(self, images: Tensor) -> list[Tensor]:
            return images  # type: ignore[return-value]

    with pytest.raises(ConfigError, match="A single tensor needs a list around it"):
        build(embedding=OneTensor())
