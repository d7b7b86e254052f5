"""The engine with networks of all kinds: windows, channels, value ranges, inputs and outputs, scales, torch.compile."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from driving import attached
from small_models import SmoothEmbedding, images_batch
from tolerances import assert_close
from torch import Tensor, nn
from versions import compiles_as_one_graph

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.methods import METHODS, PCL, CriaCL, InfoNCE, Method, Methods, build_methods
from contrastive_sr.networks import CRLSR, DASR

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
POSITIONS = {"loss_weight": 0.1, "dim": 4, "positions": 16, "embedding": SmoothEmbedding()}
EACH: Mapping[str, Mapping[str, Any]] = {  # small ones of all methods
    "CriaCL": {"align_weight": 0.1, "uniformity_weight": 0.1, "variant": 5, "vgg_weights": None},
    "CriterionTerm": {"criterion": "Pixel", "loss_weight": 0.1},
    "CRLSR": {"loss_weight": 0.1, "decoupling_weight": 0.1, "dim": 4, "warmup_steps": 0},
    "DASR": {"loss_weight": 0.1, "queue_size": 8},
    "DegradationContrast": {"queue_size": 8},
    "TrueKernel": {},
    "MCL": {"loss_weight": 0.1, "embedding": SmoothEmbedding()},
    "MPF": {"loss_weight": 0.1, "variant": 7, "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}},
    "InfoNCE": POSITIONS,
    "BidirectionalNCE": POSITIONS,
    "SRNCE": POSITIONS,
    "PCL": {"loss_weight": 0.1, "every": 1, "embedding": {"type": "HaarDiscriminator", "out_indices": [0]}},
    "ContrastiveRegularization": {"loss_weight": 0.1, "embedding": SmoothEmbedding()},
    "layers": {**POSITIONS, "type": "InfoNCE", "layers": ["first", "last"]},
}
WIDTHS = {
    "DASR": {"channels": 4, "groups": 1, "blocks": 1},
    "TrueKernel": {"channels": 4, "groups": 1, "blocks": 1},
    "CRLSR": {"channels": 4, "encoder_blocks": 2, "decoder_blocks": 1},
}
OWN = [name for name in EACH if name in METHODS and METHODS[name].network is not None]  # on the paper's network alone
ANY = [name for name in EACH if name not in OWN]


class Net(nn.Module):
    """An SR network.

    Args:
        channels: of its images.
        rgb: whether it takes and returns the one channel as three equal ones.
        largest: value of its images.
    """

    def __init__(self, scale: int = 4, *, channels: int = 3, rgb: bool = False, largest: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.last = nn.Conv2d(8, channels * scale**2, 3, padding=1)
        self.up = nn.PixelShuffle(scale)
        self.channels, self.rgb, self.largest = channels, rgb, largest

    def forward(self, lr: Tensor) -> Tensor:
        if self.rgb:
            lr = lr[:, :1]
        sr: Tensor = self.up(self.last(self.first(lr / self.largest).relu())) * self.largest
        return sr.expand(-1, 3, -1, -1) if self.rgb else sr


class Several(Net):
    """Returns more than the image."""

    def forward(self, lr: Tensor) -> Any:
        return {"features": lr, "sr": super().forward(lr)}


class Indexed(Net):
    """Is called as networks for several scales are; with another index the image is black."""

    def forward(self, lr: Tensor, idx_scale: int) -> Tensor:
        return super().forward(lr) * (idx_scale == 1)


class Windows(Net):
    """Works on windows of one size and does not pad."""

    def __init__(self, window: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.window = window

    def forward(self, lr: Tensor) -> Tensor:
        count, channels, height, width = lr.shape
        w = self.window
        windows = lr.view(count, channels, height // w, w, width // w, w)
        return super().forward((windows - windows.mean((3, 5), keepdim=True)).view(lr.shape))


def engine(name: str, **options: Any) -> Methods:
    """One of the methods, always of the same weights."""
    torch.manual_seed(0)
    return Methods(list(build_methods([copy.deepcopy({"type": name, **EACH[name]})])), **options)


def on_layers(layers: list[str] | None = None, **arguments: Any) -> InfoNCE:
    torch.manual_seed(0)
    layers = ["first", "last"] if layers is None else layers
    return InfoNCE(loss_weight=0.1, dim=4, positions=16, layers=layers, embedding=SmoothEmbedding(), **arguments)


def grey(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: x[:, :1] for key, x in batch.items()}


def rgb(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: x.repeat(1, 3 // x.shape[1], 1, 1) for key, x in batch.items()}


def scaled(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: 255 * x for key, x in batch.items()}


# ------------------------------------------------------------------------------------------------ windows of any size


@pytest.mark.parametrize("window", [7, 8, 12, 24, 32, 48, 64])
def test_layers_of_a_network_with_windows_are_read(window: int) -> None:
    network = Windows(window)
    if window == 7:
        with pytest.raises(
            ConfigError, match=r"Windows fails on each black image of 32, 48, 64, 96 .*shape '\[1, 3, 13"
        ):
            attached(network, on_layers())
        return
    methods = attached(network, on_layers())
    batch = methods.run(network, images_batch(size=4 * window))
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert network.first.weight.grad is not None


class PaddedSwinIR(nn.Module):
    """SwinIR as its authors call it: the LR image is padded to whole windows, and the SR image cropped."""

    def __init__(self) -> None:
        super().__init__()
        swin_ir = import_basicsr("basicsr.archs.swinir_arch").SwinIR
        sizes = {"img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [1], "num_heads": [2]}
        self.net = swin_ir(**sizes, upscale=4, upsampler="pixelshuffle")

    def forward(self, lr: Tensor) -> Tensor:
        h, w = lr.shape[-2:]
        padded = F.pad(lr, (0, -w % 8, 0, -h % 8), "reflect")
        sr: Tensor = self.net(padded)
        return sr[..., : 4 * h, : 4 * w]


def swin_ir(kind: str) -> tuple[nn.Module, str]:
    """The network, and the name of a layer."""
    torch.manual_seed(0)
    if kind == "padded":
        return PaddedSwinIR(), "net.conv_after_body"
    host = importlib.import_module("contrastive_sr.hosts.mmagic.registry")
    sizes = {"img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [1], "num_heads": [2]}
    made: nn.Module = host.classes_of_host()["SwinIRNet"](**sizes, upscale=4, upsampler="pixelshuffle")
    return made, "conv_after_body"


@pytest.mark.parametrize(
    "kind", [pytest.param("padded", marks=pytest.mark.basicsr), pytest.param("mmagic", marks=pytest.mark.mmagic)]
)
def test_swin_ir_on_images_that_it_pads(kind: str) -> None:
    network, layer = swin_ir(kind)
    generator = torch.Generator().manual_seed(0)
    odd, whole = (
        {key: torch.rand(2, 3, f * h, f * w, generator=generator) for key, f in (("lr", 1), ("hr", 4))}
        for h, w in ((13, 11), (16, 8))
    )
    without = attached(network, PCL(every=1, loss_weight=0.1, embedding=SmoothEmbedding()))
    batch = without.run(network, odd)
    without.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    methods = attached(network, InfoNCE(loss_weight=0.1, dim=4, layers=[layer], embedding=embedding))
    batch = methods.run(network, whole)
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    batch = methods.run(network, odd)
    for call in (methods.auxiliary_losses, methods.sr_losses):
        with pytest.raises(DataError, match=rf"of '{layer}' that cover .*\(13, 11\) alone, got \(16, 16\)\. .* pad or"):
            call(batch)


@pytest.mark.parametrize(("stride", "up"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("padded", [False, True])
def test_maps_of_other_sizes_are_taken_if_they_cover_the_image(stride: int, up: int, padded: bool) -> None:
    class Inside(Net):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Sequential(nn.Conv2d(3, 4, 3, stride, padding=1), nn.Upsample(scale_factor=up))

        def forward(self, lr: Tensor) -> Tensor:
            seen = F.pad(lr, (0, 5, 0, 5), "reflect") if padded else lr
            return super().forward(lr) + self.read(seen).mean()

    network = Inside()
    embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
    methods = attached(network, InfoNCE(loss_weight=0.1, dim=4, layers=["read"], embedding=embedding))
    batch = methods.run(network, {"lr": torch.rand(2, 3, 11, 11), "hr": torch.rand(2, 3, 44, 44)})
    if padded:
        with pytest.raises(DataError, match="that cover the LR images"):
            methods.sr_losses(batch)
    else:
        methods.sr_losses(batch)


# ------------------------------------------------------------------------- the same training, of networks that differ

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "grey": {"net": {"channels": 1}, "twin": {"channels": 1, "rgb": True}, "images": grey},
    "to 255": {"net": {"largest": 255.0}, "images": scaled, "options": {"image_range": 255.0}},
    "grey to 255": {
        "net": {"channels": 1, "largest": 255.0},
        "twin": {"channels": 1, "rgb": True},
        "images": lambda batch: scaled(grey(batch)),
        "options": {"image_range": 255.0},
    },
    "several": {"type": Several, "options": {"sr_output": "sr"}},
    "inputs": {"type": Indexed, "inputs": {"idx_scale": 1}},
}


def wanted(batch: dict[str, Tensor], methods: Methods) -> dict[str, Tensor]:
    """The batch with the second crops that the methods want."""
    return {**batch, **{name: batch["lr"].flip(0) for name in methods.wants}}


def trained(
    methods: Methods, network: nn.Module, images: Any, inputs: Mapping[str, Any] | None = None
) -> list[dict[str, Tensor]]:
    """Three steps; of each what was logged, the pixel loss, and all gradients."""
    methods.double()
    network.double()
    torch.manual_seed(2)
    methods.attach(network, inputs)
    methods.double()
    optimizers = [torch.optim.SGD(network.parameters(), 0.1)]
    if methods.trainable:
        optimizers.append(torch.optim.SGD([p for p in methods.parameters() if p.requires_grad], 0.1))
    steps = []
    for number in range(3):
        batch = images({key: x.double() for key, x in images_batch(number).items()})
        batch = methods.run(network, wanted(batch, methods), inputs)
        own = methods.auxiliary_losses(batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        if own:
            sum(own.values()).backward()
        of_parts = {f"part {n}": p.grad.clone() for n, p in enumerate(methods.parameters()) if p.grad is not None}
        if own:
            optimizers[1].step()
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        contrast = methods.sr_losses(batch, pixel)
        (pixel + contrast.loss).backward()
        optimizers[0].step()
        of_net = {f"net {n}": p.grad.clone() for n, p in enumerate(network.parameters()) if p.grad is not None}
        logged = {key: x for key, x in contrast.metrics.items() if not key.endswith("_share")}
        steps.append({**of_net, **of_parts, **own, **logged, "pixel": pixel.detach()})
    return steps


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("method", ANY)
def test_a_training_is_the_same_as_on_rgb_images_up_to_1(method: str, option: str) -> None:
    setting = OPTIONS[option]
    to_rgb = rgb if "twin" in setting else lambda batch: batch
    base = grey if "twin" in setting else lambda batch: batch
    twin = trained(engine(method), Net(**setting.get("twin", {})), lambda batch: to_rgb(base(batch)))
    network = setting.get("type", Net)(**setting.get("net", {}))
    images = setting.get("images", lambda batch: batch)
    steps = trained(engine(method, **setting.get("options", {})), network, images, setting.get("inputs"))
    for step, want in zip(steps, twin, strict=True):
        assert set(step) == set(want)
        for name, value in step.items():
            torch.testing.assert_close(value, want[name], rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert any(name.startswith("net") and value.any() for name, value in steps[-1].items())


# ----------------------------------------------------------------------------------------------- images of one channel


def test_images_of_one_channel_come_back_as_three_equal_ones() -> None:
    network = Net(channels=1)
    methods = attached(network, PCL(every=1, loss_share=0.3, embedding=SmoothEmbedding()))
    images = grey(images_batch())
    seen = network(images["lr"])
    batch = methods.run(network, images)
    for key, one in {**images, "sr": seen}.items():
        assert torch.equal(batch[key], one.repeat(1, 3, 1, 1))
    pixel = F.l1_loss(batch["sr"], batch["hr"])
    assert_close(pixel, F.l1_loss(seen, images["hr"]), dtype=torch.float32)
    contrast = methods.sr_losses(batch, pixel)
    # the share is that of the gradients at the one channel, which are what trains the network
    at_network = [
        torch.autograd.grad(x, batch["network/sr"], retain_graph=True)[0].norm() for x in (contrast.loss, pixel)
    ]
    assert at_network[0].item() == pytest.approx(0.3 * at_network[1].item(), rel=1e-4)
    contrast.loss.backward()
    assert network.first.weight.grad is not None


def test_an_sr_image_of_one_channel_may_come_from_the_loop_with_a_pixel_loss_of_its_own() -> None:
    network = Net(channels=1)
    methods = attached(network, PCL(every=1, loss_share=0.3, embedding=SmoothEmbedding()))
    images = grey(images_batch())
    sr = network(images["lr"])
    batch = methods.run(network, {**images, "sr": sr})
    assert batch["sr"].shape == (2, 3, 32, 32)
    methods.sr_losses(batch, F.l1_loss(sr, images["hr"])).loss.backward()
    assert network.first.weight.grad is not None
    with pytest.raises(DataError, match=r"SR network's output: expected .*\(2, 1, 32, 32\), got .*\(2, 1, 16, 16\)"):
        methods.run(network, {**images, "sr": sr[..., ::2, ::2]})


def test_a_network_of_one_channel_is_found_by_trying() -> None:
    class Unshuffled(Net):
        """Begins with 4 channels, of blocks of 2 x 2 pixels."""

        def __init__(self) -> None:
            super().__init__(8)
            self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 64, 3, padding=1)

        def forward(self, lr: Tensor) -> Tensor:
            return super().forward(F.pixel_unshuffle(lr, 2))

    network = Unshuffled()
    methods = attached(network, on_layers())
    batch = methods.run(network, grey(images_batch()))
    methods.sr_losses(batch).loss.backward()
    assert network.first.weight.grad is not None


@pytest.mark.parametrize(
    ("lr", "hr", "got"), [(3, 1, "'lr' with 3, 'hr' with 1"), (2, 2, "'lr' with 2, 'hr' with 2"), (4, 4, "'lr' with 4")]
)
def test_other_channels_are_refused_at_any_step(lr: int, hr: int, got: str) -> None:
    network = Net()
    methods = attached(network, PCL(every=1, loss_weight=0.1, embedding=SmoothEmbedding()))
    batch = {"lr": torch.rand(2, lr, 8, 8), "hr": torch.rand(2, hr, 32, 32)}
    for _ in range(2):
        with pytest.raises(DataError, match=rf"all have 3 channels \(RGB\), or all 1, got {got}"):
            methods.run(network, batch)
        methods.run(network, images_batch())


def test_branches_that_give_images_of_one_channel_are_refused() -> None:
    class Branches(Net):
        def __init__(self) -> None:
            super().__init__(channels=1)
            self.align, self.uniformity = Net(channels=1), Net(channels=1)
            self.masks = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=4))

        def forward(self, lr: Tensor) -> Tensor:
            return self.align(lr) + self.uniformity(lr) + self.masks(lr)[:, :1]

    with pytest.raises(ConfigError, match=r"module 'align' to give \(1, 3, 128, 128\).* got \(1, 1, 128, 128\)"):
        attached(Branches(), CriaCL(vgg_weights=None, variant=7))


# ------------------------------------------------------------------------------------------------------- [0, 255]


def test_images_up_to_255_are_checked_as_such() -> None:
    network = Net(largest=255.0)

    def ready(**options: Any) -> Methods:
        methods = engine("PCL", **options)
        methods.attach(network)
        return methods

    images = scaled(images_batch())
    batch = ready(image_range=255.0).run(network, images)
    assert all(0 <= batch[key].min() <= batch[key].max() <= 1 for key in ("lr", "hr"))
    assert torch.equal(batch["network/sr"], network(images["lr"]))
    torch.testing.assert_close(batch["sr"], batch["network/sr"] / 255)
    with pytest.raises(DataError, match=r"in \[0, 1\], got .*Methods\(\.\.\., image_range=255\.0\) takes"):
        ready().run(network, images)
    with pytest.raises(DataError, match=r"batch\['hr'\] in \[0, 255\], got values from .* is image_range of Methods"):
        ready(image_range=255.0).run(network, {**images, "hr": images["hr"] * 2})
    with pytest.warns(UserWarning, match=r"largest value of batch\['hr'\] is 0\.9.*image_range=255 .*Then leave"):
        ready(image_range=255.0).run(network, images_batch())
    for wrong in (0, -1.0, "255", math.nan):
        with pytest.raises(ConfigError, match="image_range: expected a number above 0"):
            ready(image_range=wrong)


@pytest.mark.parametrize("network", [CRLSR(channels=4, encoder_blocks=2, decoder_blocks=1), DASR(channels=4, groups=1)])
def test_the_papers_networks_take_images_up_to_1(network: nn.Module) -> None:
    methods = Methods([PCL(every=1, loss_weight=0.1, embedding=SmoothEmbedding())], image_range=255.0)
    with pytest.raises(ConfigError, match=rf"image_range: expected 1\.0 with {type(network).__name__}.*Divide the im"):
        methods.attach(network)


# ------------------------------------------------------------------------------------- inputs and outputs of networks


class Returning(Net):
    """Returns what it is told to make of the image."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, lr: Tensor) -> Any:
        return self.make(super().forward(lr))


@pytest.mark.parametrize(
    ("make", "sr_output"),
    [
        (lambda sr: (sr[:1], sr), 1),
        (lambda sr: [sr, None], 0),
        (lambda sr: [None, sr], -1),
        (lambda sr: {"x": None, "sr": sr}, "sr"),
        (lambda sr: sr, -1),
    ],
)
def test_the_sr_image_is_taken_out_of_what_a_network_returns(make: Any, sr_output: int | str) -> None:
    network = Returning(make)
    methods = Methods([on_layers()], sr_output=sr_output)
    methods.attach(network)
    batch = methods.run(network, images_batch())
    assert batch["sr"].shape == (2, 3, 32, 32)
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert network.first.weight.grad is not None


@pytest.mark.parametrize(
    ("make", "sr_output", "message"),
    [
        (
            lambda sr: (sr, None),
            None,
            r"an image, got a tuple of 2: a float32 tensor of shape \(\d, 3, .*\), a NoneType\. Say .*sr_output=0\)",
        ),
        (lambda sr: [[sr]], None, r"got a list of 1: a list\. Say"),
        (
            lambda sr: {"aux": 1, "sr": sr},
            None,
            r"got a dict of 'aux': a int, 'sr': a float32 tensor of shape \(\d, 3, \d+, \d+\)\..*sr_output='aux'\)",
        ),
        (lambda sr: (sr, sr), 2, r"sr_output: expected an index or key of .*, got 2 for a tuple of 2: a float32"),
        (lambda sr: (sr, sr), "sr", r"sr_output: expected an index or key of .*, got 'sr' for a tuple of 2"),
        (lambda sr: {"sr": sr}, 0, r"sr_output: expected an index or key of .*, got 0 for a dict of 'sr'"),
        (lambda sr: {"sr": sr}, "SR", r"got 'SR' for a dict of 'sr': a float32 tensor"),
    ],
)
@pytest.mark.parametrize("layers", [True, False])
def test_it_is_said_what_a_network_returns(make: Any, sr_output: int | str | None, message: str, layers: bool) -> None:
    network = Returning(make)
    method: Method = on_layers() if layers else PCL(every=1, loss_weight=0.1, embedding=SmoothEmbedding())
    methods = Methods([method], sr_output=sr_output)
    if not layers:
        methods.attach(network)
    with pytest.raises(ConfigError, match=message) as raised:
        methods.attach(network) if layers else methods.run(network, images_batch())
    assert "tensor(" not in str(raised.value)


@pytest.mark.parametrize("wrong", [True, 1.5, ["sr"]])
def test_an_output_that_is_no_index_or_key_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="sr_output: expected the index or key of the SR image"):
        Methods([], sr_output=wrong)


def test_inputs_are_handed_on_and_missing_ones_are_named() -> None:
    network = Indexed()
    with pytest.raises(ConfigError, match=r"TypeError: .*'idx_scale'.*attach\(net, inputs=\{\.\.\.\}\)"):
        attached(network, on_layers())
    methods = Methods([on_layers()])
    methods.attach(network, {"idx_scale": 0})
    assert methods.run(network, images_batch(), {"idx_scale": 1})["sr"].any()
    assert not methods.run(network, images_batch(), {"idx_scale": 0})["sr"].any()
    with pytest.raises(TypeError, match="idx_scale"):
        methods.run(network, images_batch())
    for wrong in (0, [0], {0: 1}):
        with pytest.raises(ConfigError, match=r"inputs: expected what the SR network is called with beside the LR"):
            methods.run(network, images_batch(), wrong)  # type: ignore[arg-type]


def test_inputs_that_a_method_gives_too_are_refused() -> None:
    network = DASR(variant="oracle", channels=4, groups=1, blocks=1)
    methods = build_methods([{"type": "TrueKernel"}])
    methods.attach(network)
    batch = {**images_batch(), "degradation/kernel": torch.rand(2, 21, 21)}
    with pytest.raises(ConfigError, match=r"inputs: expected others than \['kernel'\], which the methods give"):
        methods.run(network, batch, {"kernel": torch.rand(2, 21, 21)})


# --------------------------------------------------------------------------------------------------------------- scales


def test_every_method_is_here() -> None:
    ours = {name for name, kind in METHODS.items() if kind.__module__.startswith("contrastive_sr.")}
    assert ours == set(EACH) - {"layers"}


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("method", EACH)
def test_a_step_at_each_scale(method: str, scale: int) -> None:
    torch.manual_seed(0)
    if method in OWN:
        if scale in (1, 8):
            with pytest.raises(ConfigError, match=rf"\(scale\): expected a whole number from 2 to 4, got {scale}"):
                METHODS[method].network(scale=scale)  # type: ignore[misc]
            return
        network = METHODS[method].network(scale=scale, **WIDTHS[method])  # type: ignore[misc]
    else:
        network = Net(scale)
    methods = engine(method)
    methods.attach(network)
    for number in range(2):
        images = wanted(images_batch(number, size=48, scale=scale), methods)
        if "degradation/kernel" in methods.wants:
            images["degradation/kernel"] = torch.rand(2, 21, 21)
        batch = methods.run(network, images)
        own = methods.auxiliary_losses(batch)
        if own:
            sum(own.values()).backward()
        contrast = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        assert contrast.loss.isfinite()
        if number and contrast.loss.requires_grad:
            contrast.loss.backward()
            assert any(p.grad is not None for p in network.parameters())


# -------------------------------------------------------------------------------------------------------- torch.compile


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("method", ["PCL", "MCL"])
def test_methods_without_layers_train_a_compiled_network(method: str, in_place: bool) -> None:
    torch.compiler.reset()
    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network: Any = Net()
        if compiled and in_place:
            network.compile(backend="eager")
        elif compiled:
            network = torch.compile(network, backend="eager")
        steps.append(trained(engine(method), network, lambda batch: batch))
    for plain, got in zip(*steps, strict=True):
        torch.testing.assert_close(got, plain)


@compiles_as_one_graph
def test_a_whole_step_is_compiled_once_and_not_anew_at_every_step() -> None:
    """Also where the compiled pixel loss has two backward passes, one of them to measure a share."""
    torch.compiler.reset()
    aot_eager = torch._dynamo.lookup_backend("aot_eager")
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    blur = torch.full((3, 3, 3, 3), 1 / 27)

    def steps(compiled: bool) -> list[Tensor]:
        network = Net()
        torch.manual_seed(0)
        methods = Methods([PCL(every=1, loss_share=0.1)])
        methods.attach(network)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        own = torch.optim.SGD(methods.parameters(), 0.1)

        def step(images: dict[str, Tensor]) -> Tensor:
            batch = methods.run(network, images)
            own.zero_grad()
            torch.stack(list(methods.auxiliary_losses(batch).values())).sum().backward()
            own.step()
            pixel = F.conv2d(batch["sr"] - batch["hr"], blur).square().mean()  # saves a buffer of its own
            optimizer.zero_grad()
            loss = pixel + methods.sr_losses(batch, pixel).loss
            loss.backward()
            optimizer.step()
            return loss.detach()

        step = torch.compile(step, backend=count) if compiled else step
        losses = []
        for number in range(8):
            losses.append(step(images_batch(number)))
            after.append(len(graphs))
        return losses

    after: list[int] = []
    plain = steps(compiled=False)
    assert set(after) == {0}
    after.clear()
    torch.testing.assert_close(steps(compiled=True), plain)
    assert 0 < after[0] <= after[4] == after[-1]


def test_a_compiled_network_of_a_paper_is_known() -> None:
    """CRL-SR without its LR features, which it would read from layers."""
    torch.compiler.reset()
    network = CRLSR(channels=8, encoder_blocks=2, decoder_blocks=1)
    compiled: Any = torch.compile(network, backend="eager")
    methods = attached(compiled, METHODS["CRLSR"](variant="c", dim=4, positions=8, warmup_steps=0))
    batch = methods.run(compiled, images_batch())
    methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"])).loss.backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("method", ["DASR", "CRLSR"])
def test_networks_of_papers_are_compiled_in_parts(method: str) -> None:
    """Those without the layers that the method reads."""
    torch.compiler.reset()
    network: Any
    if method == "DASR":
        network = DASR(channels=8, groups=1, blocks=1)
        network.groups[0].compile(backend="eager")
        methods = attached(network, METHODS["DASR"](queue_size=4))
    else:
        network = CRLSR(channels=8, encoder_blocks=2, decoder_blocks=1)
        network.decoder.compile(backend="eager")
        methods = attached(network, METHODS["CRLSR"](dim=4, positions=8, warmup_steps=0))
    for number in range(2):
        images = images_batch(number)
        batch = methods.run(network, {**images, "lr_key": images["lr"].flip(3)})
        pixel = F.l1_loss(batch["sr"], batch["hr"])
        (pixel + methods.sr_losses(batch, pixel).loss).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 refuses it")
@pytest.mark.parametrize("inner", [None, "first"])
def test_a_compiled_network_runs_uncompiled_where_its_layers_are_read(inner: str | None) -> None:
    """Also where it was compiled, and run, before."""
    torch.compiler.reset()

    def steps(prepare: Callable[[Net], Any]) -> list[float]:
        torch.manual_seed(0)
        network = Net()
        called = prepare(network)
        methods = attached(called, on_layers())
        losses = []
        for number in range(2):
            network.zero_grad()
            batch = methods.run(called, images_batch(number))
            pixel = F.l1_loss(batch["sr"], batch["hr"])
            loss = pixel + methods.sr_losses(batch, pixel).loss
            loss.backward()
            losses += [float(loss.detach()), *(float(p.grad.norm()) for p in network.parameters())]
        return losses

    def whole(network: Net) -> Any:
        compiled: Any = torch.compile(network, backend="aot_eager")
        compiled(images_batch()["lr"])
        return compiled

    def in_place(network: Net) -> Net:
        (network if inner is None else network.get_submodule(inner)).compile(backend="aot_eager")
        return network

    plain = steps(lambda network: network)
    with pytest.warns(UserWarning, match="first.* cannot be read in what torch.compile compiles"):
        assert steps(in_place) == pytest.approx(plain)
    if inner is None:
        with pytest.warns(UserWarning, match="the network runs uncompiled where they are read"):
            assert steps(whole) == pytest.approx(plain)


def test_layers_of_a_compiled_network_need_a_torch_that_can_leave_that_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    compiled: Any = torch.compile(Net(), backend="eager")
    with pytest.raises(ConfigError, match=r"layers: expected first, .* or torch 2\.6 or newer"):
        attached(compiled, on_layers()).run(compiled, images_batch())


def test_layers_beside_a_compiled_part_are_read() -> None:
    torch.compiler.reset()
    network = Net()
    network.last.compile(backend="eager")
    methods = attached(network, on_layers(["first", "up"]))
    for number in range(3):
        batch = methods.run(network, images_batch(number))
        network(batch["lr"])  # without reading
        methods.sr_losses(batch).loss.backward()
    assert network.first.weight.grad is not None
