"""How a training calls its SR network, where that is not ``sr = net(lr)`` on RGB images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contrastive_sr._checks import check_number, describe
from contrastive_sr.errors import ConfigError, DataError


class NetworkCall:
    """Translates between the images of a training's SR network, and RGB images in [0, 1].

    Args:
        image_range: the largest value of the network's images, above 0; the smallest is 0.
        sr_output: index or key of the SR image in what the network returns, if that is a tuple, list or mapping.

    Attributes:
        channels: number of channels of the network's images, 1 or 3; that of the latest batch.
        inputs: what the network is called with besides the LR images, by keyword; those of the latest batch.

    Raises:
        ConfigError: no such number, index or key.

    Example:
        >>> call = NetworkCall(image_range=255.0)
        >>> call.channels = 1
        >>> call(torch.nn.Upsample(scale_factor=4), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, *, image_range: float = 1.0, sr_output: int | str | None = None) -> None:
        self.image_range = check_number(image_range, "image_range", above=0)
        if isinstance(sr_output, bool) or not isinstance(sr_output, (int, str, type(None))):
            raise ConfigError(
                "sr_output: expected the index or key of the SR image in what the network returns, such as -1 or "
                f"'sr', got {describe(sr_output)}."
            )
        self.sr_output = sr_output
        self.channels = 3
        self.inputs: Mapping[str, Any] = {}

    def __call__(self, net: Callable[..., Any], rgb: Tensor) -> Tensor:
        """Super-resolve RGB images in [0, 1], as (B, 3, s h, s w) in [0, 1].

        Args:
            net: a network that is called like the training's.
            rgb: (B, 3, h, w) LR images in [0, 1].
        """
        lr = rgb[:, : self.channels]
        return self.rgb(self.sr_image(net(lr if self.image_range == 1 else lr * self.image_range, **self.inputs)))

    def rgb(self, images: Tensor) -> Tensor:
        """The network's images (B, C, H, W) as RGB (B, 3, H, W) in [0, 1], with their graph."""
        if self.image_range != 1:
            images = images / self.image_range
        return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images

    def sr_image(self, returned: Any) -> Tensor:
        """The SR image in what a network returned.

        Raises:
            ConfigError: a tuple, list or mapping, where ``sr_output`` does not say which part is the image.
        """
        if isinstance(returned, Tensor) or not isinstance(returned, (Sequence, Mapping)):
            return returned  # networks that return more often do so in training mode alone
        if self.sr_output is None:
            example = next(iter(returned), "sr") if isinstance(returned, Mapping) else 0
            raise ConfigError(
                f"Expected an SR network that returns an image, got {_summary(returned)}. Say which of it is the SR "
                f"image, e.g. Methods(..., sr_output={example!r})."
            )
        try:
            image: Tensor = returned[self.sr_output]  # type: ignore[index]
        except (LookupError, TypeError) as error:
            raise ConfigError(
                f"sr_output: expected an index or key of what the SR network returns, got {self.sr_output!r} for "
                f"{_summary(returned)}."
            ) from error
        return image


def is_images(key: str, value: object) -> bool:
    """Whether an entry of a batch holds images: ``"lr"``, ``"hr"``, ``"sr"``, and the likes of ``"lr_key"``."""
    return key.partition("_")[0] in ("lr", "hr", "sr") and isinstance(value, Tensor) and value.ndim == 4


def check_channels(batch: Mapping[str, Tensor]) -> int:
    """How many channels the images of a batch have.

    Raises:
        DataError: neither 3 nor 1, or not the same number in all of them.
    """
    channels = {key: value.shape[1] for key, value in batch.items() if is_images(key, value)}
    if set(channels.values()) not in ({1}, {3}):
        got = ", ".join(f"{key!r} with {count}" for key, count in channels.items())
        raise DataError(
            f"Expected images that all have 3 channels (RGB), or all 1, got {got or 'none'}. Convert them; of four "
            "channels, leave out the fourth."
        )
    return next(iter(channels.values()))


def _summary(returned: Sequence[Any] | Mapping[Any, Any]) -> str:
    """What a tuple, list or mapping holds, without numbers of tensors."""
    if isinstance(returned, Mapping):
        return f"a {type(returned).__name__} of {', '.join(f'{key!r}: {_kind(x)}' for key, x in returned.items())}"
    return f"a {type(returned).__name__} of {len(returned)}: {', '.join(map(_kind, returned))}"


def _kind(x: object) -> str:
    return describe(x) if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
