"""LR images for training, made from HR crops on their device; for both hosts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_count
from contrastive_sr._random import seed_of
from contrastive_sr.degradations import DegradationConfig, build_degradation
from contrastive_sr.distributed import rank
from contrastive_sr.errors import ConfigError, DataError

_PARAMETER = "degradation/"


class TrainingDegradation:
    """Makes the batch of a training step from HR crops, each under a degradation of its own.

    What is drawn depends on seed, step and rank alone, so that a resumed training goes on bit for bit.

    Args:
        config: a preset's name or a config, see :func:`contrastive_sr.degradations.build_degradation`.
        wants: what the methods read beside LR and HR images, see :class:`contrastive_sr.methods.Method`. Made are
            ``"lr_key"``: another crop of the image under the same degradation, with noise of its own;
            ``"lr_key_other"``: a crop of the next image of the batch, also under this image's degradation;
            ``"degradation/<name>"``: what was drawn, where this degradation draws it. Others are left out.
        seed: seed of the draws.
        scale: what the degradation's scale must be; None: its own.

    Raises:
        ConfigError: an unknown degradation, or one of another scale.

    Example:
        >>> degradation = TrainingDegradation("dasr-isotropic-x4", ["lr_key"], seed=0)
        >>> crops, others = torch.rand(2, 3, 48, 48), torch.rand(2, 3, 48, 48)
        >>> {name: tuple(value.shape) for name, value in degradation.batch(crops, others, step=1).items()}
        {'hr': (2, 3, 48, 48), 'lr': (2, 3, 12, 12), 'lr_key': (2, 3, 12, 12)}
    """

    def __init__(
        self, config: DegradationConfig, wants: Sequence[str] = (), seed: int = 0, scale: int | None = None
    ) -> None:
        self.degradation = build_degradation(config, scale)
        self.wants = tuple(wants)
        self.seed = check_count(seed, "seed", at_least=0)

    @property
    def names(self) -> set[str]:
        """What :meth:`batch` gives."""
        drawn = self.degradation.draw(1, generator=torch.Generator())
        makes = {"lr_key", "lr_key_other", *(_PARAMETER + name for name in drawn)}
        return {"hr", "lr", *makes.intersection(self.wants)}

    def check_images(self, images: int) -> None:
        """Refuse batches that are too small.

        Args:
            images: of a batch, in one process.

        Raises:
            DataError: there is one, and crops of others are needed.
        """
        if "lr_key_other" in self.wants and images < 2:
            raise DataError(
                "A method wants crops of another image under the same degradation, and there is one image in the "
                "batch of a process. Raise the batch size to at least 2."
            )

    @property
    def needs_second_crop(self) -> bool:
        """Whether :meth:`batch` needs ``hr_key``."""
        return "lr_key" in self.wants

    def batch(self, hr: Tensor, hr_key: Tensor | None, step: int) -> dict[str, Tensor]:
        """The batch of a step.

        Args:
            hr: (B, 3, H, W) crops in [0, 1].
            hr_key: (B, 3, H', W') other crops of the same images, where a method wants ``"lr_key"``.
            step: number of the step; each has draws of its own.

        Returns:
            ``"hr"``, ``"lr"`` and what the methods want.

        Raises:
            ConfigError: no second crops where they are needed.
            DataError: crops that cannot be degraded, or a single one where those of others are needed.
        """
        generator = self._generator(step, hr.device)
        lr, parameters = self.degradation(hr, generator)
        batch = {"hr": hr, "lr": lr}
        if self.needs_second_crop:
            if hr_key is None:
                raise ConfigError(
                    "A method wants 'lr_key', and the data have one crop of each HR image. Set `crops: 2` in a BasicSR "
                    "dataset HighResolutionImageDataset; in an MMagic pipeline put contrastive_sr.TwoCrops in place of "
                    'Crop, and end with PackInputs(keys=["gt", "gt_key"]).'
                )
            batch["lr_key"] = self.degradation.apply(hr_key, parameters, generator)
        if "lr_key_other" in self.wants:
            self.check_images(len(hr))
            batch["lr_key_other"] = self.degradation.apply(hr.roll(1, 0), parameters, generator)
        for name, value in parameters.items():
            if _PARAMETER + name in self.wants:
                batch[_PARAMETER + name] = value
        return batch

    def _generator(self, step: int, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(seed_of(self.seed, "degradation", step, rank()))
