"""Features of any network of timm, PyTorch image models."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contrastive_sr._checks import check_shape, describe, describe_error
from contrastive_sr._install import install
from contrastive_sr.config import unknown
from contrastive_sr.embeddings.base import EMBEDDINGS, check_out_indices
from contrastive_sr.embeddings.fixed import FixedEmbedding
from contrastive_sr.embeddings.weights import load_weights
from contrastive_sr.errors import ConfigError

_LARGEST_TRIAL = 256


@EMBEDDINGS.register
class TimmFeatures(FixedEmbedding):
    """Feature maps of a network of timm, trained on images elsewhere and fixed.

    The network is timm's with ``features_only=True``: its maps are those that detectors and segmenters are built on,
    at sides of 1 / 2, 1 / 4, ... of the image's. It sees images normalised with its own mean and standard deviation.
    It is always in eval mode, its parameters never get a gradient, and it is left out of the saved state.

    Networks that take images of one size only, as most vision transformers do, are refused.

    Args:
        model: a name from ``timm.list_models()``, optionally with a tag, as in ``"resnet18.a1_in1k"``, which says which
            of several weights ``"timm"`` stands for.
        weights: ``"timm"`` (downloaded once, by that package), or a file: timm's ``model.safetensors``, or a state dict
            with timm's names, with or without the classifier; see :func:`load_weights`.
        out_indices: the maps to return, counted from 0, in any order; how many there are depends on the network.

    Raises:
        ConfigError: timm is missing; an unknown model, or one without feature maps or of a fixed size; ``out_indices``
            that the network does not have; or weights that are missing, cannot be downloaded or do not fit.

    Example:
        >>> import tempfile, timm
        >>> with tempfile.TemporaryDirectory() as folder:  # in earnest: weights="timm"
        ...     torch.save(timm.create_model("resnet18").state_dict(), f"{folder}/resnet18.pth")
        ...     embedding = TimmFeatures(model="resnet18", weights=f"{folder}/resnet18.pth", out_indices=(0, 1))
        >>> [tuple(m.shape) for m in embedding(torch.rand(1, 3, 64, 64))]
        [(1, 64, 32, 32), (1, 64, 16, 16)]
    """

    def __init__(self, *, model: str, weights: str | Path, out_indices: Sequence[int] = (0, 1, 2)) -> None:
        try:
            import timm
        except ImportError as error:
            raise ConfigError(
                f"TimmFeatures needs timm, which cannot be imported ({error}). Try: {install('timm')}"
            ) from error
        if not isinstance(model, str) or not timm.is_model(model):
            names = timm.list_models()
            said = unknown("model", model, [], f"the {len(names)} names of timm.list_models()", names)
            raise ConfigError(f"TimmFeatures(model): {said}")
        whole = _whole(model, weights)
        steps = [int(info["reduction"]) for info in getattr(whole, "feature_info", [])]
        if steps:
            out_indices = check_out_indices(out_indices, len(steps), "TimmFeatures(out_indices)")
        try:
            # This is how timm loads weights into what it makes of the network, whose parts may have other names.
            with _without_warnings():
                network = timm.create_model(
                    model,
                    features_only=True,
                    out_indices=out_indices,
                    pretrained=True,
                    pretrained_cfg_overlay={"state_dict": whole.state_dict()},
                )
        except Exception as error:  # each network says in its own way that it has no such form
            raise ConfigError(
                f"TimmFeatures(model): timm makes no feature maps of {model} ({describe_error(error)}). Choose "
                "another, such as resnet18 or convnext_atto."
            ) from error
        super().__init__(whole.pretrained_cfg["mean"], whole.pretrained_cfg["std"])
        self.model, self.out_indices = model, tuple(out_indices)
        self.network = network
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        self.fix()
        self.minimum_size, self.multiple_of = self._sizes(steps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps ``out_indices``, from the first to the last.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].

        Returns:
            One (B, C_l, H_l, W_l) for each of ``out_indices``.

        Raises:
            DataError: other shapes, or a size that the network cannot take.
        """
        check_shape(images, ("B", 3, "H", "W"), "TimmFeatures(images)")
        self.check_size(*images.shape[-2:])
        return self._maps(images)

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.network(self.normalized(images))
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else maps

    def _sizes(self, steps: Sequence[int]) -> tuple[int, int]:
        """The least size of an image and what sizes must be multiples of, by trying.

        Args:
            steps: for each map of the network, also those that are not asked for, how many pixels apart its places are.

        Raises:
            ConfigError: the network takes one size alone, or gives something else than feature maps.
        """
        channels = self.network.feature_info.channels()
        for step in (max(steps[index] for index in self.out_indices), max(steps)):
            sizes = [step * 2**n for n in range(_LARGEST_TRIAL.bit_length()) if step * 2**n <= _LARGEST_TRIAL]
            least = next((size for size in sizes if self._runs(size)), None)
            multiple = next((of for of in (1, step) if least is not None and self._runs(least + of)), None)
            if least is not None and multiple is not None:
                maps = self._maps(torch.zeros(1, 3, least, least))
                if any(m.ndim != 4 or m.shape[1] != wide for m, wide in zip(maps, channels, strict=True)):
                    raise ConfigError(
                        f"TimmFeatures(model): expected maps (B, C, H, W) of {channels} channels from {self.model}, "
                        f"got {', '.join(map(describe, maps))}. Choose another."
                    )
                return least, multiple
        size = "x".join(map(str, self.network.pretrained_cfg["input_size"][1:]))
        raise ConfigError(
            f"TimmFeatures(model): {self.model} takes images of one size alone, {size}, expected one that takes any, "
            "as convolutional networks do. Choose another, such as resnet18 or convnext_atto."
        )

    @torch.no_grad()
    def _runs(self, size: int) -> bool:
        try:
            self._maps(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError):  # what networks raise for a size that they cannot take
            return False
        return True


def _whole(model: str, weights: object) -> Any:
    """The network without its classifier, with its weights.

    Raises:
        ConfigError: a tag that the network does not have, or weights that are missing, cannot be downloaded or do not
            fit.
    """
    import timm

    if not isinstance(weights, (str, Path)):
        raise ConfigError(f"TimmFeatures(weights): expected timm or a file, got {describe(weights)}.")
    try:
        whole: Any = timm.create_model(model, num_classes=0)
    except Exception as error:  # of an unknown tag; and networks check their arguments in their own ways
        raise ConfigError(f"TimmFeatures(model): timm cannot make {model} ({describe_error(error)}).") from error
    if str(weights) != "timm":
        classifier = whole.pretrained_cfg.get("classifier") or ()
        load_weights(
            whole,
            weights,
            without=[classifier] if isinstance(classifier, str) else classifier,
            key="TimmFeatures(weights)",
            hint=f" It should be timm's, of {model}.",
        )
        return whole
    if not timm.models.is_model_pretrained(model):
        raise ConfigError(
            f"TimmFeatures(weights): timm has no weights of {model}. Choose a model out of "
            "timm.list_models(pretrained=True), or give a file."
        )
    try:
        return timm.create_model(model, num_classes=0, pretrained=True)
    except (OSError, RuntimeError) as error:  # what the downloaders raise without a network
        raise ConfigError(
            f"TimmFeatures(weights='timm'): the weights of {model} could not be downloaded ({describe_error(error)}). "
            "On a machine without internet, copy their model.safetensors there and give its path as weights."
        ) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep timm from saying that it leaves out layers behind the last map."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
