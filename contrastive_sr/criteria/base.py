"""What every criterion offers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from contrastive_sr._checks import check_shape
from contrastive_sr.config import Registry


class Criterion(nn.Module):
    """How far SR images are from HR images, pixel by pixel or as a whole: 0 or more, and smaller is better."""

    @property
    def label(self) -> str:
        """Its name in logs, unless a config gives another."""
        return type(self).__name__.lower()

    @classmethod
    def settings(cls, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """All arguments; a default that depends on other arguments is replaced by what they imply.

        It shows whether two configs describe the same criterion.

        Args:
            arguments: all arguments by name, given or by default.
        """
        return arguments

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image size that this criterion cannot take.

        Raises:
            DataError: too small, or not a multiple of what it needs.
        """

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The criterion's values.

        Args:
            sr: (B, 3, H, W) RGB in [0, 1], unclamped.
            hr: (B, 3, H, W) RGB in [0, 1].

        Returns:
            A map (B, 1, H, W), or one value for each image (B, 1, 1, 1).

        Raises:
            DataError: images of other or different shapes.
        """
        raise NotImplementedError


# of any module, so that a training framework's own losses can be criteria too
CRITERIA = Registry(nn.Module, "criterion")
register_criterion = CRITERIA.register


def check_images(sr: Tensor, hr: Tensor, name: str) -> None:
    """Require SR and HR images of one shape.

    Raises:
        DataError: anything else.
    """
    check_shape(sr, ("B", 3, "H", "W"), f"{name}(sr)")
    check_shape(hr, tuple(sr.shape), f"{name}(hr)")
