"""Lists of sample generators: how to build them from a config, and how to draw their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.errors import ConfigError
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator

SampleConfig = Mapping[str, object] | SampleGenerator


def build_samples(configs: Sequence[SampleConfig], where: str) -> list[SampleGenerator]:
    """Build sample generators.

    Args:
        configs: mappings such as ``{"type": "Sharpen", "count": 3}``, or generators that are built already.
        where: what the list configures, for messages.

    Returns:
        One generator for each entry.

    Raises:
        ConfigError: not a list, an empty one, or an entry that cannot be built.

    Example:
        >>> [generator.count for generator in build_samples([{"type": "Sharpen", "count": 3}], "positives")]
        [3]
    """
    if not isinstance(configs, Sequence) or isinstance(configs, str) or not configs:
        raise ConfigError(
            f"{where}: expected a list with at least one of {', '.join(SAMPLES)}, e.g. "
            f"[{{type: Sharpen, count: 3}}]; got {describe(configs)}."
        )
    return [build(SAMPLES, config, f"{where}[{index}]") for index, config in enumerate(configs)]


def draw(samples: Sequence[SampleGenerator], batch: Batch, generator: torch.Generator | None = None) -> Tensor:
    """The images of several sample generators side by side, without gradient.

    Args:
        samples: at least one generator.
        batch: ``"hr"`` (B, C, H, W) and, for some generators, ``"lr"``, in [0, 1].
        generator: source of randomness, on the batch's device; None: torch's default generator.

    Returns:
        (B, K, C, H, W) with K the sum of the generators' counts, in their order, in [0, 1].

    Example:
        >>> from contrastive_sr.samples import HighResolution, Sharpen
        >>> draw([HighResolution(), Sharpen(count=3)], {"hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 4, 3, 32, 32])
    """
    # Not under autocast: half precision would change the images more than the slightest blur does.
    with torch.no_grad(), torch.autocast(batch["hr"].device.type, enabled=False):
        return torch.cat([sample(batch, generator) for sample in samples], dim=1)
