"""Any loss module as a criterion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.criteria.base import Criterion, check_images
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.precision import at_least_float32

TRIAL_SIZE = 64


class Registered(Criterion):
    """A loss of a training framework, or any module that is called with SR and HR images.

    It may give a scalar, a map, or several of those, as perceptual losses do; they are added, and None is passed over.
    If the loss has a weight of its own, it stays in effect. It is tried on small images first, so that a module that is
    not such a loss is refused at once: maps must be as large as the images, and equal images must give the smallest
    value.

    Args:
        loss: the module; its parameters are fixed, and it stays in eval mode.

    Raises:
        ConfigError: it cannot be called like that, or returns something else.

    Example:
        >>> Registered(nn.MSELoss())(torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)).flatten()
        tensor([1.])
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss.requires_grad_(False).eval()
        like = next(loss.parameters(), torch.empty(()))
        ramp = torch.linspace(0, 1, TRIAL_SIZE).to(like)
        hr = (ramp[:, None] * ramp).repeat(2, 3, 1, 1)
        flat = torch.full_like(hr, 0.5)
        try:
            with torch.no_grad():
                values, same = self._values(flat, hr), self._values(hr, hr)
        except Exception as error:  # the errors of all modules have no common base
            raise ConfigError(
                f"{type(loss).__name__}: expected a loss that is called with SR and HR images alone, but it fails "
                f"({describe_error(error)})."
            ) from error
        sizes = ((TRIAL_SIZE, TRIAL_SIZE), (1, 1))  # the second: one value for each image
        if not values or any(value.ndim and (value.ndim != 4 or value.shape[2:] not in sizes) for value in values):
            raise ConfigError(
                f"{type(loss).__name__}: expected a loss that returns scalars or maps (B, C, H, W), got "
                f"{', '.join(map(describe, values)) or 'none'} for images of {TRIAL_SIZE} x {TRIAL_SIZE}. Try "
                "reduction='mean'."
            )
        far, near = (sum(value.mean().item() for value in of) for of in (values, same))
        if not near <= far:  # nor are they if one is NaN
            raise ConfigError(
                f"{type(loss).__name__}: expected a loss that is smallest where the SR image is the HR image, but it "
                f"gives {near:.4g} there, and {far:.4g} for a flat image. Is it a similarity, or does it not compare?"
            )

    def train(self, mode: bool = True) -> Registered:
        """In any mode the loss stays in eval mode: dropout and BatchNorm would make it another at each step."""
        super().train(mode)
        self.loss.eval()
        return self

    @property
    def label(self) -> str:
        return type(self.loss).__name__.replace("Loss", "").lower()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """A map (B, 1, H, W) or, for all images, one value (1, 1, 1, 1); see :meth:`Criterion.forward`."""
        check_images(sr, hr, type(self.loss).__name__)
        total = torch.zeros(1, 1, 1, 1, device=sr.device)
        for value in self._values(sr, hr):
            value = at_least_float32(value)
            total = total + (value.mean(1, keepdim=True) if value.ndim == 4 else value)
        return total

    def _values(self, sr: Tensor, hr: Tensor) -> list[Tensor]:
        values = self.loss(sr, hr)
        return [value for value in (values if isinstance(values, (tuple, list)) else [values]) if value is not None]
