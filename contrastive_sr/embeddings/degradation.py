"""DASR's degradation encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_shape
from contrastive_sr.embeddings.weights import LoadsReleased, load_weights, renamed

CHANNELS = (64, 64, 128, 128, 256, 256)
STRIDES = (1, 1, 2, 1, 2, 1)
# In the authors' checkpoints, beside the SR network: the encoder and its head, a momentum copy of both, and the queue.
_RELEASED = ((r"E\.encoder_q\.E\.", "body."), (r"E\.encoder_q\.mlp\.", "head."), (r"G\.|E\.encoder_k\.|E\.queue", None))


class DegradationEncoder(LoadsReleased):
    """Turns an LR image into a vector that says how it was degraded (DASR, Fig. 2a).

    Conv 3x3 (no bias, since BatchNorm follows), BatchNorm, LeakyReLU 0.1, six times, with 64, 64, 128, 128, 256, 256
    channels and strides 1, 1, 2, 1, 2, 1; then the mean over all positions, which is the representation R. ``head``
    (256-256-256, with LeakyReLU 0.1 in between, as in the authors' code) turns R into the vector that is contrasted;
    the SR network reads R itself. 1.28 M parameters, 1.15 M of them without the head.

    Args:
        weights: a file that holds one trained encoder: the checkpoint of a network such as DASR or of a training, the
            authors' file (``model_600.pt``), or a plain state dict; see :func:`load_weights`.

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
        self.head = nn.Sequential(nn.Linear(self.dim, self.dim), nn.LeakyReLU(0.1), nn.Linear(self.dim, self.dim))
        if weights is not None:
            load_weights(
                self, weights, key="DegradationEncoder(weights)", hint=" DASR's variant 'oracle' has no encoder."
            )

    def from_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """See :meth:`LoadsReleased.from_released`; the file is a checkpoint of the authors' whole network."""
        return released_encoder(state)

    @property
    def last_convolution(self) -> nn.Conv2d:
        """The last of the six convolutions."""
        convolution = self.body[-3]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

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


def released_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The state of a :class:`DegradationEncoder` in a checkpoint of the authors' code; None in any other.

    In that code the convolutions have biases, which BatchNorm removes again, and the images are in [0, 255].

    Args:
        state: a state dict.

    Raises:
        ConfigError: other layers.
    """
    if "E.encoder_q.E.0.weight" not in state:
        return None
    encoder = renamed(state, _RELEASED, "DASR as its authors release it")
    for convolution in range(0, 3 * len(CHANNELS), 3):
        mean = f"body.{convolution + 1}.running_mean"
        encoder[mean] = encoder[mean] - encoder.pop(f"body.{convolution}.bias")
    encoder["body.0.weight"] = encoder["body.0.weight"] * 255
    return encoder
