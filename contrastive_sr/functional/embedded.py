"""Contrast of images over the layers of an embedding network: once as a lean step, once as one would write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_number, check_shape, describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.nce import multi_positive_nce
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce
from contrastive_sr.functional.similarity import inverse_norm, invert_norm, pixel_cosine_similarity

Embed = Callable[[Tensor], Sequence[Tensor]]
Similarity = Literal["cosine", "dot"]


def embedded_nce(
    sr: Tensor,
    positives: Tensor,
    negatives: Tensor,
    embed: Embed,
    temperature: float = 1.0,
    *,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    r"""Multi-positive contrast of SR images over the layers of an embedding network (PCL-SR eq. 8 to 10).

    .. math:: \mathcal{L}_{CL} = \frac{1}{NL} \sum_{i=1}^{N} \sum_{l=1}^{L} \mathcal{L}_{i,l}

    with :func:`~contrastive_sr.functional.multi_positive_nce` over
    :func:`~contrastive_sr.functional.pixel_cosine_similarity` as the inner loss. The value and the gradient are those
    of :func:`plain_embedded_nce`; only the order of the work differs. Positives and negatives are embedded without a
    graph, image by image on a CPU, and the gradient at ``sr`` is formed in the forward pass, so that no feature map
    outlives the call. Therefore it is differentiable once only, and a graph break under ``torch.compile``. Half
    precision is computed in float32; where the embedding computes in float16, its gradient is scaled so as not to
    underflow.

    Args:
        sr: (B, C, H, W) super-resolved images, the anchors.
        positives: (B, P, C, H, W) images to be close to. They get no gradient.
        negatives: (B, N, C, H, W) images to be far from. They get no gradient.
        embed: maps (M, C, H, W) images to a list of (M, C_l, H_l, W_l) feature maps or (M, D_l) vectors, which count
            as maps of one position, each image on its own (BatchNorm in eval mode). Only the gradient at ``sr`` is
            taken, none at its parameters.
        temperature: tau, above 0.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``. The mean over layers and positives is always
            taken.

    Returns:
        The loss, a scalar, or (B,) with ``reduction="none"``; and the similarities (B, P + N) without a gradient,
        those to the positives first, as means over the layers.

    Raises:
        DataError: shapes that do not fit, no positives, no negatives, or an embedding that gives no layers, or
            neither maps nor vectors.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> sr, hr = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8)
        >>> conv = torch.nn.Conv2d(3, 4, 3)
        >>> loss, similarity = embedded_nce(sr, hr[:, None], torch.rand(1, 2, 3, 8, 8), lambda x: [x, conv(x)])
        >>> loss.backward()
        >>> similarity.shape, sr.grad.shape, conv.weight.grad
        (torch.Size([1, 3]), torch.Size([1, 3, 8, 8]), None)
    """
    check_images(sr, positives, negatives)
    check_number(temperature, "temperature", above=0)
    keys = _joined(sr, positives, negatives)
    losses, similarity = _EmbeddedNCE.apply(sr, keys, positives.shape[1], embed, float(temperature))
    return reduce(losses, reduction), similarity


def plain_embedded_nce(
    sr: Tensor,
    positives: Tensor,
    negatives: Tensor,
    embed: Embed,
    temperature: float = 1.0,
    *,
    reduction: Reduction = "mean",
    similarity: Similarity = "cosine",
) -> tuple[Tensor, Tensor]:
    r"""What :func:`embedded_nce` computes as one would write it, to read and to compare with; or with dot products.

    .. math:: \mathcal{L} = \frac{1}{NLP} \sum_{i,l,j} -\log
        \frac{\exp(s(f_i^l, p_{ij}^l)/\tau)}{\exp(s(f_i^l, p_{ij}^l)/\tau) + \sum_k \exp(s(f_i^l, n_{ik}^l)/\tau)}

    PCL-SR eq. 8 to 10, where s is the mean pixel cosine, and MPF-Net eq. 9 to 11, where it is the dot product of two
    whole maps. That grows with their size and the features' scale, so that no temperature fits all layers and the
    softmax saturates. Positives and negatives are embedded without a graph. Differentiable as often as the embedding,
    also with respect to its parameters. Half precision is computed in float32, under autocast too, but for what the
    embedding does; if that is in float16, small gradients underflow.

    Args:
        sr: (B, C, H, W) super-resolved images, the anchors.
        positives: (B, P, C, H, W) images to be close to. They get no gradient.
        negatives: (B, N, C, H, W) images to be far from. They get no gradient.
        embed: maps (M, C, H, W) images to a list of (M, C_l, H_l, W_l) feature maps or (M, D_l) vectors, which count
            as maps of one position, each image on its own.
        temperature: tau, above 0.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``. The mean over layers and positives is always
            taken.
        similarity: ``"cosine"``, the mean over positions, or ``"dot"``, of whole maps.

    Returns:
        The loss, a scalar, or (B,) with ``reduction="none"``; and the similarities (B, P + N) without a gradient,
        those to the positives first, as means over the layers.

    Raises:
        DataError: shapes that do not fit, no positives, no negatives, or an embedding that gives no layers, or
            neither maps nor vectors.
        ConfigError: a temperature of 0 or less, or an unknown reduction or similarity.

    Example:
        >>> images = torch.rand(4, 1, 3, 8, 8)
        >>> sr, positives, negatives = images[0], images[1:2], images[2:].transpose(0, 1)
        >>> plain, _ = plain_embedded_nce(sr, positives, negatives, lambda x: [x])
        >>> torch.allclose(plain, embedded_nce(sr, positives, negatives, lambda x: [x])[0])
        True
    """
    check_images(sr, positives, negatives)
    check_number(temperature, "temperature", above=0)
    check_similarity(similarity, "similarity")
    with torch.no_grad():
        keys = _joined(sr, positives, negatives)
        key_maps = [maps.unflatten(0, keys.shape[:2]) for maps in embed_maps(embed, keys.flatten(0, 1))]
    anchor_maps = embed_maps(embed, at_least_float32(sr))
    compare = _pixel_cosines if similarity == "cosine" else _dot_products
    with torch.autocast(sr.device.type, enabled=False):  # it would compute the dot products in half precision
        layers = [compare(*maps) for maps in zip(anchor_maps, key_maps, strict=True)]
        count = positives.shape[1]
        losses = [multi_positive_nce(s[:, :count], s[:, count:], temperature, reduction="none") for s in layers]
    return reduce(torch.stack(losses).mean(0), reduction), torch.stack(layers).mean(0).detach()


def check_similarity(similarity: str, name: str) -> None:
    """Require ``"cosine"`` or ``"dot"``.

    Args:
        similarity: the value to check.
        name: the argument's name, for the message.

    Raises:
        ConfigError: anything else.
    """
    check_choice(similarity, get_args(Similarity), name)


def _pixel_cosines(anchor: Tensor, keys: Tensor) -> Tensor:
    """PCL-SR eq. 9 of maps (B, C, H, W) and their keys' (B, K, C, H, W): (B, K)."""
    return torch.stack([pixel_cosine_similarity(anchor, key) for key in keys.unbind(1)], dim=1)


def _dot_products(anchor: Tensor, keys: Tensor) -> Tensor:
    """MPF-Net eq. 10's dot products of maps (B, C, H, W) and their keys' (B, K, C, H, W): (B, K)."""
    return (at_least_float32(keys).flatten(2) @ at_least_float32(anchor).flatten(1)[..., None])[..., 0]


@torch.no_grad()
def _joined(sr: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Positives and negatives (B, P + N, C, H, W) in the precision in which they are compared with ``sr``."""
    return torch.cat((positives, negatives), dim=1).to(torch.promote_types(sr.dtype, torch.float32))


def check_images(sr: Tensor, positives: Tensor, negatives: Tensor) -> None:
    """Require (B, C, H, W) anchors and (B, K, C, H, W) positives and negatives of the same size.

    Raises:
        DataError: anything else.
    """
    check_shape(sr, ("B", "C", "H", "W"), "sr")
    for keys, name in ((positives, "positives"), (negatives, "negatives")):
        check_shape(keys, (sr.shape[0], "K", *sr.shape[1:]), name)


def embed_maps(embed: Embed, images: Tensor) -> list[Tensor]:
    """The feature maps (M, C_l, H_l, W_l) of images; vectors (M, D_l) become maps of one position.

    Raises:
        DataError: no layers, or a layer that is neither.
    """
    layers = embed(images)
    if len(layers) == 0:
        raise DataError("embedding: expected at least one layer of feature maps, got none.")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Tensor) or layer.ndim not in (2, 4) or len(layer) != len(images):
            raise DataError(
                f"embedding: expected a list of feature maps ({len(images)}, C, H, W) or vectors ({len(images)}, D), "
                f"got {describe(layer)} as layer {index}. A single tensor needs a list around it."
            )
    return [layer[..., None, None] if layer.ndim == 2 else layer for layer in layers]


class _EmbeddedNCE(torch.autograd.Function):
    """The loss (B,) and the similarities (B, K); each image's loss has a gradient at that image alone."""

    @staticmethod
    def forward(
        ctx: Any, sr: Tensor, keys: Tensor, positives: int, embed: Embed, temperature: float
    ) -> tuple[Tensor, Tensor]:
        batch = sr.shape[0]
        # One image at a time keeps all its maps in a CPU's cache; a GPU wants them all at once.
        size = 1 if sr.device.type == "cpu" else batch
        gradient = torch.empty_like(sr, dtype=at_least_float32(sr).dtype) if ctx.needs_input_grad[0] else None
        losses, similarities = [], []
        for start in range(0, batch, size):
            part = slice(start, start + size)
            loss, similarity = _contrast(
                sr[part], keys[part], positives, embed, temperature, fill=None if gradient is None else gradient[part]
            )
            losses.append(loss)
            similarities.append(similarity)
        if gradient is not None:
            ctx.save_for_backward(gradient, sr)
        similarity = torch.cat(similarities)
        ctx.mark_non_differentiable(similarity)
        return torch.cat(losses), similarity

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _Once.apply(*ctx.saved_tensors, upstream), None, None, None, None


class _Once(torch.autograd.Function):
    """The gradient at ``sr``. It depends on ``sr``, so that differentiating again is an error and not silently zero."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, sr: Tensor, upstream: Tensor) -> Tensor:
        return gradient * upstream[:, None, None, None]

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "embedded_nce is differentiable once. For a loss on its gradient, take plain_embedded_nce, "
            "which is differentiable as often as the embedding."
        )


def _contrast(
    sr: Tensor, keys: Tensor, positives: int, embed: Embed, temperature: float, *, fill: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Losses (b,) and similarities (b, K) of a few images; ``fill`` gets the gradient of the losses' sum at ``sr``."""
    key_maps = embed_maps(embed, keys.flatten(0, 1))
    anchor = at_least_float32(sr.detach()).requires_grad_(fill is not None)
    with torch.set_grad_enabled(fill is not None):
        anchor_maps = embed_maps(embed, anchor)
    # A float16 backward pass underflows on gradients of about 1 / (H W); a power of two is exact to undo.
    half = anchor_maps[0].dtype == torch.float16
    scale = 2.0 ** anchor_maps[0][0, 0].numel().bit_length() if half else 1.0
    with torch.autocast(sr.device.type, enabled=False):  # it would compute the dot products in half precision
        pairs = zip(anchor_maps, key_maps, strict=True)
        layers = [_LayerContrast(anchor_map.detach(), key_map, keys.shape[1]) for anchor_map, key_map in pairs]
        # All layers' similarities (L, b, K) as one batch. No gradient runs from here to the maps: it is formed below.
        similarity = torch.stack([layer.similarity for layer in layers]).requires_grad_(fill is not None)
        with torch.set_grad_enabled(fill is not None):
            rows = similarity.flatten(0, 1)
            nce = multi_positive_nce(rows[:, :positives], rows[:, positives:], temperature, reduction="none")
    if fill is not None:
        (slope,) = torch.autograd.grad(nce, similarity, torch.ones_like(nce))
        weights = slope * (scale / len(layers))
        seeds = [
            layer.anchor_gradient(weight).to(anchor_map.dtype)
            for layer, weight, anchor_map in zip(layers, weights, anchor_maps, strict=True)
        ]
        fill.copy_(torch.autograd.grad(anchor_maps, anchor, seeds)[0]).div_(scale)
    return nce.detach().view(len(layers), -1).mean(0), similarity.detach().mean(0)


class _LayerContrast:
    """Pixel cosines between one anchor map and its keys' maps, and the gradient at the anchor map.

    With unit vectors f and k the gradient of their cosine c at the anchor's vector is (k - c f) / |anchor|.
    """

    def __init__(self, anchor_map: Tensor, key_map: Tensor, count: int) -> None:
        # Channels last, so that each position's vector is contiguous: (b, P, C) and (b, K, P, C).
        self.size = anchor_map.shape[-2:]
        anchor = at_least_float32(anchor_map).permute(0, 2, 3, 1).flatten(1, 2)
        self.keys = at_least_float32(key_map).permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, count))
        self.inverse = inverse_norm(anchor, 2)[..., None]
        self.anchor = anchor * self.inverse
        self.key_inverse = invert_norm(torch.linalg.vector_norm(self.keys, dim=3))
        # Key by key: the product of all of them would be as large as the maps.
        dots = [torch.linalg.vecdot(key, self.anchor) for key in self.keys.unbind(1)]
        self.cosine = torch.stack(dots, 1) * self.key_inverse
        self.similarity = self.cosine.mean(2)

    def anchor_gradient(self, weight: Tensor) -> Tensor:
        """Gradient of ``sum(weight * similarity)`` at the anchor map, for weights (b, K)."""
        weight = weight[..., None] / self.cosine.shape[2]
        gradient = self.anchor * -(weight * self.cosine).sum(1)[..., None]
        for index, factor in enumerate((weight * self.key_inverse).unbind(1)):
            gradient.addcmul_(self.keys[:, index], factor[..., None])
        return gradient.mul_(self.inverse).unflatten(1, self.size).permute(0, 3, 1, 2)
