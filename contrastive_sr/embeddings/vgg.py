"""VGG-19 features, the fixed embedding that PCL-SR compares with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_shape, describe
from contrastive_sr.embeddings.base import EMBEDDINGS, Embedding
from contrastive_sr.embeddings.weights import load_state_dict, load_weights
from contrastive_sr.errors import ConfigError

# Convolutions a stage and their channels: VGG-19, configuration E.
STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
SOURCES = ("torchvision", "timm")


def _layer_names() -> list[str]:
    """Names of torchvision's ``vgg19().features``, in order."""
    names = []
    for stage, (count, _) in enumerate(STAGES, start=1):
        for index in range(1, count + 1):
            names += [f"conv{stage}_{index}", f"relu{stage}_{index}"]
        names.append(f"pool{stage}")
    return names


@EMBEDDINGS.register
class VGGFeatures(Embedding):
    """Activations of a VGG-19 trained on ImageNet (PCL-SR, Table IV, config 1).

    The network is fixed: its parameters never get a gradient, and are left out of the saved state, which they would
    only make larger. The paper does not name its layers; ours are the last activation before each of the first four
    poolings.

    Args:
        layers: names such as ``"relu1_2"`` or ``"conv4_4"``, in any order.
        weights: ``"torchvision"`` or ``"timm"`` (downloaded once by that package), or a file:
            torchvision's ``vgg19-*.pth``, timm's ``model.safetensors``, or a state dict with the names of either.

    Raises:
        ConfigError: an unknown layer, or weights that are missing, cannot be downloaded or do not fit.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
        weights: str | Path = "torchvision",
    ) -> None:
        super().__init__()
        names = _layer_names()
        if not isinstance(layers, Sequence) or not layers or any(layer not in names for layer in layers):
            raise ConfigError(f"VGGFeatures(layers): expected names out of {', '.join(names)}; got {describe(layers)}.")
        self.layers = sorted(layers, key=names.index)
        depth = names.index(self.layers[-1]) + 1
        self._names = names[:depth]
        self.minimum_size = 2 ** sum(name.startswith("pool") for name in self._names)
        features: list[nn.Module] = []
        channels = 3
        for name in self._names:
            if name.startswith("conv"):
                out_channels = STAGES[int(name[4]) - 1][1]
                features.append(nn.Conv2d(channels, out_channels, 3, padding=1))
                channels = out_channels
            else:
                features.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        if str(weights) in SOURCES:
            load_state_dict(self, _download(str(weights)), f"{weights}'s vgg19", partial=True)
        else:
            load_weights(self, weights, partial=True, key="VGGFeatures(weights)")
        self.requires_grad_(False)
        self._register_state_dict_hook(_leave_out_fixed)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # The fixed weights stay as they are, whether the state has none of them or, as those of old files, has them.
        state_dict.update({prefix + name: value for name, value in self.named_parameters() if not value.requires_grad})
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = []
        for name, layer in zip(self._names, self.features, strict=True):
            x = layer(x)
            if name in self.layers:
                maps.append(x)
        return maps


def _leave_out_fixed(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """A hook of ``state_dict()``, which other ways to save a module call as well."""
    for name, value in module.named_parameters():
        if not value.requires_grad:
            state.pop(prefix + name)


def _download(source: str) -> dict[str, Tensor]:
    """The state dict of a VGG-19 trained on ImageNet, from torchvision or timm.

    Raises:
        ConfigError: the package is missing, or its weights cannot be downloaded.
    """
    try:
        if source == "torchvision":
            import torchvision

            return torchvision.models.vgg19(weights="IMAGENET1K_V1").state_dict()
        import timm

        return timm.create_model("vgg19.tv_in1k", pretrained=True).state_dict()
    except ImportError as error:
        raise ConfigError(
            f"VGGFeatures(weights={source!r}) needs {source}, which cannot be imported ({error}). "
            "Try: pip install 'contrastive-sr[vgg]'"
        ) from error
    except (OSError, RuntimeError) as error:  # what the downloaders raise without a network
        raise ConfigError(
            f"VGGFeatures(weights={source!r}): the weights could not be downloaded ({type(error).__name__}: {error}). "
            "On a machine without internet, copy torchvision's vgg19-dcbb9e9d.pth there and give its path as weights."
        ) from error
