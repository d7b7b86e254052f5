"""What the embeddings share whose network was trained elsewhere and stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contrastive_sr.embeddings.base import Embedding

if TYPE_CHECKING:
    from typing_extensions import Self

# of the photographs of ImageNet, as torchvision and timm normalise for most networks
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FixedEmbedding(Embedding):
    """An embedding that was trained elsewhere, such as an ImageNet classifier, and does not change.

    Its parameters never get a gradient and it is always in eval mode, so that BatchNorm's statistics do not move. Both
    are left out of the saved state, which they would only make larger. A subclass makes its network, loads its weights
    and then calls :meth:`fix`.

    Args:
        mean: means of the three colours, in [0, 1], in the images that the network was trained on.
        std: their standard deviations.

    Example:
        >>> class Edges(FixedEmbedding):
        ...     def __init__(self):
        ...         super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        ...         self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        ...         self.fix()
        ...     def forward(self, images):
        ...         return [self.conv(self.normalized(images))]
        >>> len(Edges().state_dict()), Edges().channels()
        (0, [8])
    """

    _fixed: frozenset[str] = frozenset()

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def fix(self) -> None:
        """Fix everything that exists so far, and leave it out of the saved state."""
        self.requires_grad_(False)
        self.eval()
        self._fixed = frozenset(self.state_dict())
        self._register_state_dict_hook(_leave_out_fixed)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked for."""
        return super().train(False)

    def normalized(self, images: Tensor) -> Tensor:
        """What the network sees: images minus ``mean``, divided by ``std``.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].
        """
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _fixed_tensors(self) -> dict[str, Tensor]:
        """Those of the saved state's tensors that are left out: not what somebody has made trainable since."""
        parameters = dict(self.named_parameters(remove_duplicate=False))
        every = {**parameters, **dict(self.named_buffers(remove_duplicate=False))}
        return {name: every[name] for name in self._fixed if not every[name].requires_grad}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # What is fixed stays as it is, whether the state has none of it or, as those of old files, has it.
        state_dict.update({prefix + name: value for name, value in self._fixed_tensors().items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def _leave_out_fixed(module: FixedEmbedding, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """A hook of ``state_dict()``, which other ways to save a module call as well."""
    for name in module._fixed_tensors():
        state.pop(prefix + name)
