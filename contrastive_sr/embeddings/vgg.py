"""Features of VGG-19, the fixed embedding that PCL-SR compares with, and of VGG-16."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from contrastive_sr._checks import check_choice, check_shape, describe
from contrastive_sr._install import install
from contrastive_sr.embeddings.base import EMBEDDINGS
from contrastive_sr.embeddings.fixed import IMAGENET_MEAN, IMAGENET_STD, FixedEmbedding
from contrastive_sr.embeddings.weights import load_sections, load_state_dict, read_sections
from contrastive_sr.errors import ConfigError

VGGModel = Literal["vgg19", "vgg16"]
SOURCES = ("torchvision", "timm")


class Configuration(NamedTuple):
    """One of the networks.

    Attributes:
        stages: convolutions of each stage and their channels.
        file: torchvision's file of its weights.
    """

    stages: tuple[tuple[int, int], ...]
    file: str

    def layer_names(self) -> list[str]:
        """Names of the layers of torchvision's ``features``, in order."""
        names = []
        for stage, (count, _) in enumerate(self.stages, start=1):
            for index in range(1, count + 1):
                names += [f"conv{stage}_{index}", f"relu{stage}_{index}"]
            names.append(f"pool{stage}")
        return names

    def last_of(self, kind: str) -> list[str]:
        """The last layer of a kind, ``"conv"`` or ``"relu"``, in each stage."""
        return [f"{kind}{stage}_{count}" for stage, (count, _) in enumerate(self.stages, start=1)]


# configurations E and D
CONFIGURATIONS: Mapping[str, Configuration] = {
    "vgg19": Configuration(((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)), "vgg19-dcbb9e9d.pth"),
    "vgg16": Configuration(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), "vgg16-397923af.pth"),
}


@EMBEDDINGS.register
class VGGFeatures(FixedEmbedding):
    """Activations of a VGG-19 or VGG-16 trained on ImageNet (PCL-SR, Table IV, config 1).

    The network is fixed: its parameters never get a gradient, and are left out of the saved state, which they would
    only make larger. The paper names neither the network nor its layers; ours are VGG-19 and the last activation before
    each of the first four poolings.

    Args:
        model: ``"vgg19"`` or ``"vgg16"``.
        layers: names such as ``"relu1_2"`` or ``"conv4_3"``, in any order. None: ``relu1_2``, ``relu2_2``, and
            ``relu3_4``, ``relu4_4`` of VGG-19 or ``relu3_3``, ``relu4_3`` of VGG-16.
        weights: ``"torchvision"`` or ``"timm"`` (downloaded once by that package), or a file: torchvision's
            ``vgg19-*.pth`` or ``vgg16-*.pth``, timm's ``model.safetensors``, or a state dict with the names of either,
            with or without the classifier.

    Raises:
        ConfigError: an unknown model or layer, or weights that are missing, cannot be downloaded, do not fit, or are
            those of the other model.
    """

    paper = "PCL-SR"

    def __init__(
        self,
        *,
        model: VGGModel = "vgg19",
        layers: Sequence[str] | None = None,
        weights: str | Path = "torchvision",
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        check_choice(model, get_args(VGGModel), "VGGFeatures(model)")
        self.model, configuration = model, CONFIGURATIONS[model]
        names = configuration.layer_names()
        layers = configuration.last_of("relu")[:4] if layers is None else layers
        if not isinstance(layers, Sequence) or not layers or any(layer not in names for layer in layers):
            raise ConfigError(
                f"VGGFeatures(layers): expected names out of {', '.join(names)}; got {describe(layers)}, for a {model}."
            )
        self.layers = sorted(layers, key=names.index)
        depth = names.index(self.layers[-1]) + 1
        self._names = names[:depth]
        self.minimum_size = 2 ** sum(name.startswith("pool") for name in self._names)
        features: list[nn.Module] = []
        channels = 3
        for name in self._names:
            if name.startswith("conv"):
                out_channels = configuration.stages[int(name[4]) - 1][1]
                features.append(nn.Conv2d(channels, out_channels, 3, padding=1))
                channels = out_channels
            else:
                features.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        if str(weights) in SOURCES:
            load_state_dict(self, _download(str(weights), model), f"{weights}'s {model}", partial=True)
        else:
            key = "VGGFeatures(weights)"
            sections = read_sections(weights, key)
            _check_model(sections, model, f"{key}: {weights}")
            load_sections(self, sections, str(weights), partial=True, key=key)
        self.fix()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of ``layers``, from the first to the last.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            One (B, C_l, H_l, W_l) for each layer.

        Raises:
            DataError: other shapes, or images too small for the last layer.
        """
        check_shape(images, ("B", 3, "H", "W"), "VGGFeatures(images)")
        self.check_size(*images.shape[-2:])
        x = self.normalized(images)
        maps = []
        for name, layer in zip(self._names, self.features, strict=True):
            x = layer(x)
            if name in self.layers:
                maps.append(x)
        return maps


def _check_model(sections: Mapping[str, Mapping[str, Tensor]], model: str, file: str) -> None:
    """Refuse the weights of another model, whose first layers, alike in all, would fit.

    Raises:
        ConfigError: the file has convolutions that are another model's and not this one's.
    """
    found = (re.search(r"(?:^|\.)features\.(\d+)\.weight$", name) for state in sections.values() for name in state)
    held = {int(match[1]) for match in found if match}
    fits = {
        name: held <= {i for i, layer in enumerate(known.layer_names()) if layer.startswith("conv")}
        for name, known in CONFIGURATIONS.items()
    }
    for other, does in fits.items():
        if does and not fits[model]:
            raise ConfigError(
                f"{file} holds the weights of a {other}, expected those of a {model}. Give `model: {other}`, or a file "
                f"such as torchvision's {CONFIGURATIONS[model].file}."
            )


def _download(source: str, model: str) -> dict[str, Tensor]:
    """The state dict of a model trained on ImageNet, from torchvision or timm.

    Raises:
        ConfigError: the package is missing, or its weights cannot be downloaded.
    """
    try:
        if source == "torchvision":
            import torchvision

            return torchvision.models.get_model(model, weights="IMAGENET1K_V1").state_dict()
        import timm

        return timm.create_model(f"{model}.tv_in1k", pretrained=True).state_dict()
    except ImportError as error:
        raise ConfigError(
            f"VGGFeatures(weights={source!r}) needs {source}, which cannot be imported ({error}). "
            f"Try: {install('vgg' if source == 'torchvision' else 'timm')}"
        ) from error
    except (OSError, RuntimeError) as error:  # what the downloaders raise without a network
        raise ConfigError(
            f"VGGFeatures(weights={source!r}): the weights could not be downloaded ({type(error).__name__}: {error}). "
            f"On a machine without internet, copy torchvision's {CONFIGURATIONS[model].file} there and give its path "
            "as weights."
        ) from error
