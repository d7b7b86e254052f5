"""What the losses over positions of feature maps share: layers, sampled positions, heads, negatives from all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_choice, check_count, check_flag, check_number, check_shape, describe
from contrastive_sr.distributed import gather_rows, reduce_over_ranks
from contrastive_sr.embeddings import MLPHead
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, check_reduction, reduce
from contrastive_sr.losses.contrast import Contrast

Features = Tensor | Sequence[Tensor]
NegativesFrom = Literal["image", "batch"]
_FEW = 512  # vectors of a contrast; with more their logits take far longer than the operations to begin them


class PositionLoss(nn.Module):
    """Contrasts feature vectors that lie at the same place of feature maps.

    A role (anchor, candidates, ...) is a map (B, C, H, W), a tensor of vectors (B, C), or a list of these, one per
    layer. The maps of one layer are average-pooled to the size of the smallest one. Vectors are contrasted over the
    batch, whatever ``negatives_from`` says, since an image has only one.

    A subclass gives ``anchor_role`` and :meth:`_layer_contrast`.

    Attributes:
        anchor_role: the role whose features are to change; ``anchor_channels`` refers to it.

    Args:
        temperature: tau, above 0.
        channels: C of each layer. Each layer then gets an MLP head (CRL-SR, section 3.3), which all roles share. None:
            no heads, features are compared as they are.
        anchor_channels: C of each layer of ``anchor_role``, if its features come from a different network than those of
            the other roles; it then gets heads of its own. Needs ``channels``.
        dim: dimension of the vectors that the heads give; the paper's S, which is 256.
        positions: how many positions of each layer to sample, the same in all roles and images. None: all of them.
        negatives_from: ``"image"``, the other positions of the same image, as the paper argues for, or ``"batch"``, the
            other positions of all images.
        gather: whether negatives come from the batches of all ranks, with gradients; needs ``negatives_from="batch"``.
            The mean of the ranks' losses then equals the loss of one process on the joined batch, even where batch
            sizes differ. A rank without samples gives features of shape (0, ...), and does the same forward and
            backward passes as the others.
        reduction: ``"mean"`` over positions and images, and then over layers; ``"sum"`` over all of them, as the paper
            prints eq. 2; ``"none"``: (B, M), the positions of all layers side by side.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.
    """

    anchor_role: str

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        channels: Sequence[int] | None = None,
        anchor_channels: Sequence[int] | None = None,
        dim: int = 256,
        positions: int | None = 256,
        negatives_from: NegativesFrom = "image",
        gather: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.temperature = check_number(temperature, f"{name}(temperature)", above=0)
        self.positions = None if positions is None else check_count(positions, f"{name}(positions)", at_least=2)
        check_choice(negatives_from, get_args(NegativesFrom), f"{name}(negatives_from)")
        self.gather = check_flag(gather, f"{name}(gather)")
        if gather and negatives_from == "image":
            raise ConfigError(
                f"{name}(gather): the negatives of negatives_from='image' are those of the same image, which no other "
                "rank has. Leave gather out, or take negatives_from='batch'."
            )
        check_reduction(reduction, f"{name}(reduction)")
        self.reduction: Reduction = reduction
        _check_channels(channels, f"{name}(channels)")
        _check_channels(anchor_channels, f"{name}(anchor_channels)")
        if anchor_channels is not None and (channels is None or len(anchor_channels) != len(channels)):
            raise ConfigError(
                f"{name}(anchor_channels): expected `channels` with as many layers, got {channels} and "
                f"{anchor_channels}. Heads of different networks must meet in one space."
            )
        self.negatives_from = negatives_from
        self.heads = None if channels is None else nn.ModuleList(MLPHead(c, dim=dim) for c in channels)
        self.anchor_heads = self.heads
        if anchor_channels is not None:
            self.anchor_heads = nn.ModuleList(MLPHead(c, dim=dim) for c in anchor_channels)

    def contrast_roles(self, roles: Mapping[str, Features], generator: torch.Generator | None = None) -> Contrast:
        """The loss over all layers, of features by role.

        Args:
            roles: maps, vectors, or lists of these, by the names of :meth:`forward`'s arguments.
            generator: draws the positions, on the features' device. None: torch's default generator.

        Raises:
            DataError: features that do not fit each other or the heads.
        """
        layers = []
        for index, layer in enumerate(self._layers(roles)):
            vectors = self._behind_heads(_at_positions(layer, self.positions, generator), index)
            images = len(next(iter(layer.values())))
            if self.negatives_from == "batch" or next(iter(layer.values())).ndim == 2:
                vectors = {role: x.flatten(0, 1) for role, x in vectors.items()}
            layers.append(vectors)
        if self._are_alike(layers):
            together = {role: torch.stack([vectors[role] for vectors in layers]) for role in layers[0]}
            contrast = self._layer_contrast(together)
            if self.reduction == "none":
                by_image = contrast.loss.view(len(layers), images, -1).transpose(0, 1)
                contrast = contrast._replace(loss=by_image.flatten(1))
            return contrast
        contrasts = [self._layer_contrast(vectors) for vectors in layers]
        if self.reduction == "none":
            loss = torch.cat([contrast.loss.view(images, -1) for contrast in contrasts], dim=1)
        else:
            loss = reduce(torch.stack([contrast.loss for contrast in contrasts]), self.reduction)
        return Contrast(loss, mean_metrics([contrast.metrics for contrast in contrasts]))

    def _are_alike(self, layers: Sequence[Mapping[str, Tensor]]) -> bool:
        """Whether all layers can be contrasted at once, which takes fewer operations."""
        shapes = {tuple(x.shape for x in vectors.values()) for vectors in layers}
        few = all(x.shape[-2] <= _FEW for vectors in layers for x in vectors.values())
        return not self.gather and len(shapes) == 1 and few

    def maps(self, roles: Mapping[str, Features]) -> list[dict[str, Tensor]]:
        """What is contrasted, at all positions.

        Args:
            roles: features by role.

        Returns:
            Maps (B, D, H, W) by layer and role, after the heads and pooled to one size; for vectors, H and W are 1.
        """
        maps = []
        for index, layer in enumerate(self._layers(roles)):
            height, width = _smallest(layer)
            vectors = self._behind_heads(_at_positions(layer, None, None), index)
            maps.append({role: x.transpose(1, 2).unflatten(2, (height, width)) for role, x in vectors.items()})
        return maps

    def _behind_heads(self, vectors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """What a layer's heads, if there are any, make of (B, M, C) vectors."""
        if self.heads is None or self.anchor_heads is None:
            return vectors
        # Few vectors of roles that share a head go through it at once, which takes fewer operations; not those without
        # a gradient beside one with, since the backward pass would be of all of them.
        together: dict[tuple[nn.Module, bool, torch.dtype, torch.Size, str | None], list[str]] = {}
        for role, x in vectors.items():
            heads = self.anchor_heads if role == self.anchor_role else self.heads
            alone = role if x.shape[1] > _FEW else None
            together.setdefault((heads[index], x.requires_grad, x.dtype, x.shape, alone), []).append(role)
        projected: dict[str, Tensor] = {}
        for (head, *_), roles in together.items():
            joined = [vectors[role] for role in roles]
            outputs = [head(joined[0])] if len(joined) == 1 else head(torch.stack(joined)).unbind()
            projected.update(zip(roles, outputs, strict=True))
        return {role: projected[role] for role in vectors}

    def _layer_contrast(self, vectors: dict[str, Tensor]) -> Contrast:
        """The reduced loss of one layer, from (B, M, D) vectors, or (M, D) ones that are contrasted over the batch.

        Or of all layers, if the vectors have one more dimension before these.
        """
        raise NotImplementedError

    def _reduce(self, values: Tensor, *joined: Tensor) -> Tensor:
        """The reduction of this rank's values.

        Args:
            values: of its anchors.
            joined: with ``gather``, what :func:`own_first` gave; they stay part of the graph on a rank without rows.
        """
        loss = reduce_over_ranks(values, len(joined[0]) if joined else None, self.reduction)
        return loss if not joined else loss + torch.stack([x[:0].sum() for x in joined]).sum()

    def _layers(self, roles: Mapping[str, Features]) -> list[dict[str, Tensor]]:
        """Features by layer and role, checked."""
        name = type(self).__name__
        listed = {role: list(x) if isinstance(x, Sequence) else [x] for role, x in roles.items()}
        first = next(iter(listed))
        counts = {role: len(x) for role, x in listed.items()}
        if len(set(counts.values())) > 1 or counts[first] == 0:
            raise DataError(
                f"{name}: expected as many layers, at least one, in each of {', '.join(roles)}; got {counts}."
            )
        if self.heads is not None and len(self.heads) != counts[first]:
            raise DataError(
                f"{name}: expected {len(self.heads)} layers, one for each of `channels`, got {counts[first]}."
            )
        for index in range(counts[first]):
            like = listed[first][index]
            for role, x in listed.items():
                _check_features(x[index], like, f"{name}({role}[{index}])", self.gather)
            widths = {role: x[index].shape[1] for role, x in listed.items()}
            if self.heads is None and len(set(widths.values())) > 1:
                raise DataError(
                    f"{name}: expected features of as many channels in each role of layer {index}, got {widths}. "
                    "Those of different networks need heads: `channels` and `anchor_channels`."
                )
        return [dict(zip(listed, layer, strict=True)) for layer in zip(*listed.values(), strict=True)]


def _check_channels(value: object, name: str) -> None:
    if value is not None and (not isinstance(value, Sequence) or isinstance(value, str) or not value):
        raise ConfigError(f"{name}: expected a list of whole numbers, one a layer, or None, got {describe(value)}.")


def _check_features(x: Tensor, like: Tensor, name: str, may_be_empty: bool) -> None:
    if not isinstance(x, Tensor) or x.ndim not in (2, 4):
        raise DataError(f"{name}: expected maps (B, C, H, W) or vectors (B, C), floating point, got {describe(x)}.")
    if x.ndim != like.ndim or x.shape[0] != like.shape[0]:
        raise DataError(
            f"{name}: expected {'maps' if like.ndim == 4 else 'vectors'} of a batch of {like.shape[0]}, as in the "
            f"first role, got {describe(x)}."
        )
    if not (may_be_empty and x.shape[0] == 0):
        check_shape(x, ("B", "C", "H", "W")[: x.ndim], name)


def _smallest(layer: dict[str, Tensor]) -> tuple[int, int]:
    """The least height and width of a layer's maps; 1 and 1 of vectors."""
    height, width = (min(x.shape[d] if x.ndim == 4 else 1 for x in layer.values()) for d in (-2, -1))
    return height, width


def _at_positions(
    layer: dict[str, Tensor], positions: int | None, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Vectors (B, M, C) of each role at the same positions; of (B, C) vectors, (B, 1, C)."""
    first = next(iter(layer.values()))
    if first.ndim == 2:
        return {role: x[:, None] for role, x in layer.items()}
    height, width = _smallest(layer)
    vectors = {
        role: (x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(at_least_float32(x), (height, width)))
        .flatten(2)
        .transpose(1, 2)
        for role, x in layer.items()
    }
    if positions is None or positions >= height * width:
        return vectors
    chosen = torch.randperm(height * width, generator=generator, device=first.device)[:positions]
    return {role: x[:, chosen] for role, x in vectors.items()}


def own_first(x: Tensor) -> Tensor:
    """The rows of all ranks, this rank's first.

    Args:
        x: (M_r, D), of any M_r.
    """
    joined, start = gather_rows(x)
    return torch.cat((joined[start:], joined[:start])) if start else joined


def mean_metric(x: Tensor) -> Tensor:
    """The mean for a log; 0 on a rank without samples."""
    return x.detach().sum() / max(x.numel(), 1)


def mean_metrics(metrics: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over several contrasts that have the same ones."""
    return {name: torch.stack([each[name] for each in metrics]).mean() for name in metrics[0]}
