"""DASR's degradation encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_shape
from contrastive_sr.embeddings.head import MLPHead
from contrastive_sr.embeddings.weights import load_state_dict, read_sections
from contrastive_sr.errors import ConfigError

CHANNELS = (64, 64, 128, 128, 256, 256)
STRIDES = (1, 1, 2, 1, 2, 1)


class DegradationEncoder(nn.Module):
    """Turns an LR image into a vector that says how it was degraded (DASR, Fig. 2a).

    conv 3x3 (no bias, since BatchNorm follows), BatchNorm, LeakyReLU 0.1, six times, with 64, 64, 128, 128, 256, 256
    channels and strides 1, 1, 2, 1, 2, 1; then the mean over all positions: the representation R. ``head``
    (256-256-256, with ReLU as in MoCo v2, which the paper follows) takes R to where it is contrasted; the SR network
    reads R itself. 1.28 M parameters, 1.15 M of them without the head.

    Args:
        weights: a file that holds one trained encoder: ``net_g_*.pth`` of DASR, ``degradation_encoder_*.pth``, an
            MMagic checkpoint, or a plain state dict. Averaged weights are taken where there are such; a momentum
            encoder, which follows the one that is meant, is passed over.

    Raises:
        ConfigError: a file that is missing or unreadable, or holds no such encoder, or several.

    Example:
        >>> encoder = DegradationEncoder()
        >>> representation = encoder(torch.rand(2, 3, 48, 48))
        >>> representation.shape, encoder.head(representation).shape
        (torch.Size([2, 256]), torch.Size([2, 256]))
    """

    dim = CHANNELS[-1]

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, channels, stride in zip((3, *CHANNELS), CHANNELS, STRIDES, strict=False):
            convolution = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.1, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = MLPHead(self.dim, self.dim)
        if weights is not None:
            load_state_dict(self, _encoder_state(weights, list(self.state_dict())), str(weights))

    def forward(self, images: Tensor) -> Tensor:
        """The representation R.

        Args:
            images: (B, 3, h, w) LR images, RGB in [0, 1].

        Returns:
            (B, 256).

        Raises:
            DataError: other shapes.
        """
        check_shape(images, ("B", 3, "h", "w"), "DegradationEncoder(images)")
        return torch.flatten(self.pool(self.body(images)), 1)


def _encoder_state(path: str | Path, names: list[str]) -> dict[str, Tensor]:
    """The state of the one encoder in a file, by the names of its tensors.

    Raises:
        ConfigError: the file is missing, unreadable, or holds no such encoder, or several.
    """
    sections = read_sections(path)
    for state in sections:
        prefixes = sorted(
            prefix
            for prefix in {name.removesuffix(names[0]) for name in state if name.endswith(names[0])}
            if all(prefix + name in state for name in names) and "key_encoder." not in prefix
        )
        prefixes = [prefix for prefix in prefixes if "_ema." in prefix] or prefixes
        if len(prefixes) > 1:
            raise ConfigError(f"{path}: expected one degradation encoder, got several, under {', '.join(prefixes)}.")
        if prefixes:
            return {name: state[prefixes[0] + name] for name in names}
    raise ConfigError(
        f"{path}: expected a file with a degradation encoder in it, got one without, of {len(sections[0])} tensors. "
        "Expected are net_g_*.pth of a training of DASR, an MMagic checkpoint, or degradation_encoder_*.pth; DASR of "
        "variant 'oracle' has no encoder."
    )
