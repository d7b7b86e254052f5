"""VGGFeatures against torchvision's own modules, with random weights; and without a network."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from same import assert_same
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import VGGFeatures
from contrastive_sr.errors import ConfigError, DataError

# Index of each layer in torchvision's vgg19().features, counted by hand in its configuration E.
INDEX = {"conv1_1": 0, "relu1_2": 3, "pool1": 4, "conv2_2": 7, "relu2_2": 8, "relu3_4": 17, "relu4_4": 26, "pool5": 36}


def random_features(name: str) -> nn.Sequential:
    """torchvision's VGG-19 or VGG-16 with random weights, without its large classifier."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None).features
    features: nn.Sequential = model.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    for layer in features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return features


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    return random_features("vgg19")


@pytest.fixture(scope="module")
def weights(features: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision's: all layers, the classifier's as well."""
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(state, path)
    return path


def expected(features: nn.Sequential, images: Tensor, layer: str, index: dict[str, int] = INDEX) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    with torch.no_grad():
        out: Tensor = features[: index[layer] + 1](normalised)
    return out


def test_default_layers_equal_torchvision(features: nn.Sequential, weights: Path) -> None:
    images = torch.rand(1, 3, 32, 32)
    maps = VGGFeatures(weights=weights)(images)
    assert [tuple(m.shape) for m in maps] == [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4)]
    for got, layer in zip(maps, ("relu1_2", "relu2_2", "relu3_4", "relu4_4"), strict=True):
        reference = expected(features, images, layer)
        assert reference.std() > 0.01
        assert_close(got, reference, "loose", scale=1)


def test_vgg16_equals_torchvision(tmp_path: Path) -> None:
    index = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "conv5_3": 28}  # counted in configuration D
    features, images = random_features("vgg16"), torch.rand(1, 3, 32, 32)
    # without the classifier, as what computes features alone is often saved
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, tmp_path / "vgg16.pth")
    embedding = VGGFeatures(model="vgg16", weights=tmp_path / "vgg16.pth")
    assert embedding.layers == list(index)[:4]
    for got, layer in zip(embedding(images), embedding.layers, strict=True):
        assert_close(got, expected(features, images, layer, index), "loose", scale=1)
    (deep,) = VGGFeatures(model="vgg16", layers=["conv5_3"], weights=tmp_path / "vgg16.pth")(images)
    assert_close(deep, expected(features, images, "conv5_3", index), "loose", scale=1)
    with pytest.raises(
        ConfigError, match=r"expected names out of .*conv5_3.*; got \['conv5_4'\] \(list\), for a vgg16"
    ):
        VGGFeatures(model="vgg16", layers=["conv5_4"], weights=tmp_path / "vgg16.pth")


def test_weights_of_the_other_vgg_are_refused(weights: Path, tmp_path: Path) -> None:
    """Also where the layers asked for are alike in both."""
    with pytest.raises(ConfigError, match=r"vgg19-dcbb9e9d.pth holds the weights of a vgg19, expected .* vgg16. Give"):
        VGGFeatures(model="vgg16", layers=["relu1_2"], weights=weights)
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    for prefix in ("features.", "net.vgg.features."):
        torch.save({f"{prefix}{n}.weight": torch.zeros(1) for n in convolutions}, tmp_path / "16.pth")
        with pytest.raises(ConfigError, match=r"16.pth holds the weights of a vgg16, .*Give `model: vgg16`, or a file"):
            VGGFeatures(layers=["relu1_2"], weights=tmp_path / "16.pth")
    # as far as relu2_2 alone, which is of both
    short = {name: value for name, value in torch.load(weights).items() if name.split(".")[1] in ("0", "2", "5", "7")}
    torch.save(short, tmp_path / "short.pth")
    for model in ("vgg16", "vgg19"):
        assert VGGFeatures(model=model, layers=["relu2_2"], weights=tmp_path / "short.pth").model == model  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"VGGFeatures\(model\): expected one of vgg19, vgg16, got 'vgg11'"):
        VGGFeatures(model="vgg11", weights=weights)  # type: ignore[arg-type]


def test_chosen_layers_come_in_the_order_of_the_network(features: nn.Sequential, weights: Path) -> None:
    images = torch.rand(2, 3, 10, 12)
    embedding = VGGFeatures(layers=["relu2_2", "conv1_1", "pool1", "conv2_2"], weights=weights)
    assert embedding.layers == ["conv1_1", "pool1", "conv2_2", "relu2_2"]
    assert len(embedding.features) == 9  # nothing behind the last layer is kept
    for got, layer in zip(embedding(images), embedding.layers, strict=True):
        assert_close(got, expected(features, images, layer), "loose", scale=1)


def test_later_layers_do_not_overwrite_maps(weights: Path) -> None:
    images = torch.rand(1, 3, 8, 8)
    first, _ = VGGFeatures(layers=["conv1_1", "relu1_1"], weights=weights)(images)
    assert first.min() < 0  # an activation in place would have left none


def test_the_deepest_layer_and_its_smallest_size(features: nn.Sequential, weights: Path) -> None:
    embedding = VGGFeatures(layers=["pool5"], weights=weights)
    assert embedding.minimum_size == 32
    images = torch.rand(1, 3, 32, 32)
    assert_close(embedding(images)[0], expected(features, images, "pool5"), "loose", scale=1)
    with pytest.raises(DataError, match="VGGFeatures: expected HR patches of at least 32 x 32 pixels, got 32 x 31"):
        embedding(torch.rand(1, 3, 32, 31))


def test_timm_s_file_has_the_same_names(features: nn.Sequential, tmp_path: Path) -> None:
    with torch.device("meta"):
        names = {name: value.shape for name, value in timm.create_model("vgg19").state_dict().items()}
    own = {f"features.{name}": value for name, value in features.state_dict().items()}
    assert {name: shape for name, shape in names.items() if name.startswith("features.")} == {
        name: value.shape for name, value in own.items()
    }
    save_file({**own, "head.fc.bias": torch.zeros(1000)}, tmp_path / "model.safetensors")
    embedding = VGGFeatures(layers=["relu2_2"], weights=tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 8, 8)
    assert_close(embedding(images)[0], expected(features, images, "relu2_2"), "loose", scale=1)


def test_is_fixed_but_lets_the_gradient_through(weights: Path) -> None:
    embedding = VGGFeatures(layers=["relu1_2"], weights=weights)
    assert not any(p.requires_grad for p in embedding.parameters())
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    embedding(images)[0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


class Around(nn.Module):
    """A training's module that holds the embedding."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(1))
        self.embedding = VGGFeatures(layers=["relu1_2"], weights=weights)


def mmengine_state_dict(module: nn.Module) -> dict[str, Tensor]:
    from mmengine.runner.checkpoint import get_state_dict

    state: dict[str, Tensor] = get_state_dict(module)
    return state


def mmengine_load(module: nn.Module, state: dict[str, Tensor], strict: bool) -> None:
    from mmengine.runner.checkpoint import load_state_dict

    load_state_dict(module, state, strict=strict)


@pytest.mark.parametrize(
    "save",
    [nn.Module.state_dict, pytest.param(mmengine_state_dict, marks=pytest.mark.mmagic)],
    ids=["torch", "mmengine"],
)
def test_what_is_fixed_is_not_part_of_the_state(save: Callable[[nn.Module], dict[str, Tensor]], weights: Path) -> None:
    assert list(save(VGGFeatures(layers=["relu1_1"], weights=weights))) == []
    assert list(save(Around(weights))) == ["count"]
    assert list(save(copy.deepcopy(Around(weights)))) == ["count"]


@pytest.mark.parametrize(
    "load",
    [nn.Module.load_state_dict, pytest.param(mmengine_load, marks=pytest.mark.mmagic)],
    ids=["torch", "mmengine"],
)
def test_states_with_and_without_the_weights_load_strictly(load: Callable[..., object], weights: Path) -> None:
    module = Around(weights)
    kept = {name: value.data.clone() for name, value in module.embedding.named_parameters()}
    state = {"count": torch.ones(1)}
    old = {**state, **{f"embedding.{name}": value for name, value in kept.items()}}
    for content in (state, old):
        with torch.no_grad():
            module.count.zero_()
        load(module, OrderedDict(content), strict=True)
        assert module.count == 1
        assert_same({name: value.data for name, value in module.embedding.named_parameters()}, kept)
    assert list(state) == ["count"]
    with pytest.raises(RuntimeError, match=r"embedding\.other"):
        load(module, OrderedDict({**state, "embedding.other": torch.ones(1)}), strict=True)


@pytest.mark.parametrize("layers", [["relu6_1"], ["relu1_2", "relu3_5"], [], ["features.3"]])
def test_unknown_layers_are_refused(layers: list[str], weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"VGGFeatures\(layers\): expected names out of conv1_1, relu1_1.*pool5; got"):
        VGGFeatures(layers=layers, weights=weights)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 8, 3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"weights of one VGGFeatures, got none .*features.0.weight is missing"):
        VGGFeatures(weights=tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="expected an existing file, got torchvison"):
        VGGFeatures(weights="torchvison")


DOWNLOAD = """
import sys
from contrastive_sr.embeddings import VGGFeatures
from contrastive_sr.errors import ConfigError
try:
    VGGFeatures(weights=sys.argv[1], model=sys.argv[2])
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("source", "model", "file"),
    [("torchvision", "vgg16", "vgg16-397923af.pth"), ("timm", "vgg19", "vgg19-dcbb9e9d.pth")],
)
def test_without_a_network_the_error_says_what_to_do(
    source: str, model: str, file: str, project: Path, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"  # a proxy that refuses every connection, whether there is a network or not
    environment = {
        **{name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "all_proxy")},
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        "TORCH_HOME": str(tmp_path / "torch"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "PYTHONPATH": str(project),
    }
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, source, model], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"VGGFeatures(weights='{source}'): the weights could not be downloaded" in done.stdout
    assert f"copy torchvision's {file} there and give its path as weights" in done.stdout
