"""Contrast of images over the layers of an embedding network, in lean steps; one of them also in its plain form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_number, check_shape, describe
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.nce import multi_positive_nce
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce
from contrastive_sr.functional.similarity import inverse_norm, invert_norm, pixel_cosine_similarity

KEYS_AT_ONCE_MIB = 3072  # of the keys' feature maps, on a GPU: on a CPU they are those of one image's keys

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
    outlives the call. Therefore it is differentiable only once, and is a graph break under ``torch.compile``. Half
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
    compare = partial(_compare_by_nce, positives=positives.shape[1], temperature=float(temperature))
    losses, similarity = _Embedded.apply(_anchor(sr), keys, embed, compare)
    return reduce(losses, reduction), similarity


def embedded_distance(
    sr: Tensor,
    positives: Tensor | None,
    negatives: Tensor | None,
    embed: Embed,
    layer_weights: Sequence[float] | None = None,
    *,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    r"""L1 distances over the layers of an embedding network: those to positives, minus those to negatives (MCL).

    .. math:: \mathcal{L}_i = \frac1P \sum_j d(f_i, p_{ij}) - \frac1N \sum_k d(f_i, n_{ik}), \qquad
        d(f, g) = \sum_{l=1}^{L} \frac{w_l}{C_l H_l W_l} \lVert f^l - g^l \rVert_1

    With negatives alone it is the self-prior guided negative loss of Model Contrastive Learning (arXiv 2309.06023) for
    the images of N past versions of the network, subtracted as in that paper; with the HR image as the only positive
    and no negatives it is feature matching, a perceptual loss. A part without images is 0. The distance to negatives is
    unbounded, and so is the loss: it needs a pixel loss beside it.

    Positives and negatives are embedded without a graph, image by image on a CPU, and the gradient at ``sr`` is formed
    in the forward pass, so that no feature map outlives the call. Therefore it is differentiable only once, and is a
    graph break under ``torch.compile``. Where two maps are equal the gradient is 0. Half precision is computed in
    float32; where the embedding computes in float16, its gradient is scaled so as not to underflow.

    Args:
        sr: (B, C, H, W) super-resolved images, the anchors.
        positives: (B, P, C, H, W) images to be close to, or None for none. They get no gradient.
        negatives: (B, N, C, H, W) images to be far from, or None for none. They get no gradient.
        embed: maps (M, C, H, W) images to a list of (M, C_l, H_l, W_l) feature maps or (M, D_l) vectors, each image on
            its own (BatchNorm in eval mode). Only the gradient at ``sr`` is taken, none at its parameters.
        layer_weights: w_l, one number of at least 0 for each layer. None: 1 / L each.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss, a scalar, or (B,) with ``reduction="none"``; and the distances d (B, P + N) without a gradient, those
        to the positives first.

    Raises:
        DataError: shapes that do not fit, neither positives nor negatives, a different number of layers than of
            weights, or an embedding that gives no layers, or neither maps nor vectors.
        ConfigError: a weight below 0, or an unknown reduction.

    Example:
        >>> sr, hr = torch.zeros(1, 3, 4, 4, requires_grad=True), torch.full((1, 1, 3, 4, 4), 0.5)
        >>> embedded_distance(sr, hr, None, lambda x: [x, 3 * x])  # (0.5 + 1.5) / 2
        (tensor(1., grad_fn=<MeanBackward0>), tensor([[1.]]))
        >>> embedded_distance(sr, hr, 0.5 * hr, lambda x: [x])[0].item()  # 0.5 - 0.25
        0.25
    """
    if positives is None and negatives is None:
        raise DataError("embedded_distance: expected positives or negatives, got neither.")
    check_shape(sr, ("B", "C", "H", "W"), "sr")
    parts, signs = [], []  # and what each image's distance counts in the loss
    for keys, name, sign in ((positives, "positives", 1), (negatives, "negatives", -1)):
        if keys is not None:
            check_shape(keys, (sr.shape[0], "K", *sr.shape[1:]), name)
            parts.append(keys)
            signs += [sign / keys.shape[1]] * keys.shape[1]
    compare = partial(_compare_by_distance, signs=signs, weights=check_layer_weights(layer_weights, "layer_weights"))
    losses, distances = _Embedded.apply(_anchor(sr), _joined(sr, *parts), embed, compare)
    return reduce(losses, reduction), distances


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
    r"""What :func:`embedded_nce` computes, in its plain form, to read and to compare with; or with dot products.

    .. math:: \mathcal{L} = \frac{1}{NLP} \sum_{i,l,j} -\log
        \frac{\exp(s(f_i^l, p_{ij}^l)/\tau)}{\exp(s(f_i^l, p_{ij}^l)/\tau) + \sum_k \exp(s(f_i^l, n_{ik}^l)/\tau)}

    PCL-SR eq. 8 to 10, where s is the mean pixel cosine, and MPF-Net eq. 9 to 11, where it is the dot product of two
    whole maps. The dot product grows with the maps' size and the features' scale, so that no temperature fits all
    layers and the softmax saturates. Positives and negatives are embedded without a graph. Differentiable as often as
    the embedding, also with respect to its parameters. Half precision is computed in float32, even under autocast,
    except for what the embedding computes; if that is in float16, small gradients underflow.

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
def _joined(sr: Tensor, *keys: Tensor) -> Tensor:
    """All keys, such as (B, P, C, H, W) positives and then negatives, in the precision in which ``sr`` is compared."""
    return torch.cat(keys, dim=1).to(torch.promote_types(sr.dtype, torch.float32))


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


def check_layer_weights(weights: object, name: str) -> tuple[float, ...] | None:
    """Require a list of numbers of at least 0, or None.

    Args:
        weights: the value to check.
        name: the argument's name, for the message.

    Raises:
        ConfigError: anything else.
    """
    if weights is None:
        return None
    if not isinstance(weights, Sequence) or isinstance(weights, str) or not weights:
        raise ConfigError(
            f"{name}: expected a list of one number for each layer, such as [0.2, 0.3, 0.5], got {describe(weights)}."
        )
    return tuple(check_number(weight, f"{name}[{index}]", at_least=0) for index, weight in enumerate(weights))


def _anchor(sr: Tensor) -> Tensor:
    """The anchors, of which no gradient is formed where none can be asked for."""
    return sr if torch.is_grad_enabled() else sr.detach()


class _Compared(NamedTuple):
    """What is known of the maps of b anchors and their K keys.

    Attributes:
        losses: (b,).
        values: (b, K).
        seeds: the gradient of the losses' sum at each of the anchors' maps; empty if it was not asked for.
    """

    losses: Tensor
    values: Tensor
    seeds: list[Tensor]


# of the anchors' maps, the keys' maps (b K, C, H, W), K, and whether seeds are wanted
Compare = Callable[[Sequence[Tensor], Sequence[Tensor], int, bool], _Compared]


class _Embedded(torch.autograd.Function):
    """The losses (B,) and values (B, K) of a comparison; each image's loss has a gradient at that image alone."""

    @staticmethod
    def forward(ctx: Any, sr: Tensor, keys: Tensor, embed: Embed, compare: Compare) -> tuple[Tensor, Tensor]:
        batch = sr.shape[0]
        # One image at a time keeps all its maps in a CPU's cache; a GPU wants them all at once.
        size = 1 if sr.device.type == "cpu" else batch
        gradient = torch.empty_like(sr, dtype=at_least_float32(sr).dtype) if ctx.needs_input_grad[0] else None
        losses, values = [], []
        for start in range(0, batch, size):
            part = slice(start, start + size)
            fill = None if gradient is None else gradient[part]
            loss, value = _embed_and_compare(sr[part], keys[part], embed, compare, fill=fill)
            losses.append(loss)
            values.append(value)
        if gradient is not None:
            ctx.save_for_backward(gradient, sr)
        joined = torch.cat(values)
        ctx.mark_non_differentiable(joined)
        return torch.cat(losses), joined

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _Once.apply(*ctx.saved_tensors, upstream), None, None, None


class _Once(torch.autograd.Function):
    """The gradient at ``sr``. It depends on ``sr``, so that differentiating again is an error and not silently zero."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, sr: Tensor, upstream: Tensor) -> Tensor:
        return gradient * upstream[:, None, None, None]

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "embedded_nce is differentiable once, and so is embedded_distance. For a loss on the first one's gradient, "
            "take plain_embedded_nce, which is differentiable as often as the embedding."
        )


def _embed_and_compare(
    sr: Tensor, keys: Tensor, embed: Embed, compare: Compare, *, fill: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Losses (b,) and values (b, K) of a few images; ``fill`` gets the gradient of the losses' sum at ``sr``."""
    anchor = at_least_float32(sr.detach()).requires_grad_(fill is not None)
    with torch.set_grad_enabled(fill is not None):
        anchor_maps = embed_maps(embed, anchor)
    detached = [maps.detach() for maps in anchor_maps]
    of_an_image = keys.shape[1] * sum(maps[0].numel() * maps.element_size() for maps in detached)
    at_once = max(1, int(KEYS_AT_ONCE_MIB * 2**20 // of_an_image))
    parts = []
    for start in range(0, len(sr), at_once):
        part = slice(start, start + at_once)
        key_maps = embed_maps(embed, keys[part].flatten(0, 1))
        with torch.autocast(sr.device.type, enabled=False):  # it would compute the dot products in half precision
            anchors = [maps[part] for maps in detached]
            parts.append(compare(anchors, key_maps, keys.shape[1], fill is not None))
        del key_maps  # before the next are made
    losses, values, seeds = parts[0] if len(parts) == 1 else _joined_parts(parts)
    if fill is not None:
        half = _autocasts_to_float16(sr.device) or any(maps.dtype == torch.float16 for maps in anchor_maps)
        scale = _scale(seeds) if half else None
        seeds = [
            (seed if scale is None else seed * scale).to(maps.dtype)
            for seed, maps in zip(seeds, anchor_maps, strict=True)
        ]
        fill.copy_(torch.autograd.grad(anchor_maps, anchor, seeds)[0])
        if scale is not None:
            fill.div_(scale)
    return losses, values


def _autocasts_to_float16(device: torch.device) -> bool:
    x = torch.empty(0, 0, device=device)  # how torch is asked for this differs from version to version
    return (x @ x).dtype == torch.float16


def _scale(seeds: Sequence[Tensor]) -> Tensor:
    """The power of two that brings the largest seed to 16 or more, and below 32.

    Seeds of about 1 / (H W) underflow in a float16 backward pass; those of vectors, which are far larger, would
    overflow if they were scaled by as much.
    """
    largest = torch.stack([torch.linalg.vector_norm(seed, torch.inf) for seed in seeds]).amax()
    return torch.exp2(4 - torch.log2(largest.clamp(min=1e-30)).floor())


def _joined_parts(parts: Sequence[_Compared]) -> _Compared:
    """What is known of several parts of a batch, as one."""
    losses, values, seeds = zip(*parts, strict=True)
    return _Compared(torch.cat(losses), torch.cat(values), [torch.cat(layer) for layer in zip(*seeds, strict=True)])


def _compare_by_nce(
    anchor_maps: Sequence[Tensor],
    key_maps: Sequence[Tensor],
    count: int,
    train: bool,
    *,
    positives: int,
    temperature: float,
) -> _Compared:
    """PCL-SR eq. 8 to 10; the values are similarities."""
    layers = [_LayerContrast(*maps, count) for maps in zip(anchor_maps, key_maps, strict=True)]
    # All layers' similarities (L, b, K) as one batch. No gradient runs from here to the maps: it is formed below.
    similarity = torch.stack([layer.similarity for layer in layers]).requires_grad_(train)
    with torch.set_grad_enabled(train):
        rows = similarity.flatten(0, 1)
        nce = multi_positive_nce(rows[:, :positives], rows[:, positives:], temperature, reduction="none")
    seeds = []
    if train:
        (slope,) = torch.autograd.grad(nce, similarity, torch.ones_like(nce))
        weights = slope / len(layers)
        seeds = [layer.anchor_gradient(weight) for layer, weight in zip(layers, weights, strict=True)]
    return _Compared(nce.detach().view(len(layers), -1).mean(0), similarity.detach().mean(0), seeds)


def _compare_by_distance(
    anchor_maps: Sequence[Tensor],
    key_maps: Sequence[Tensor],
    count: int,
    train: bool,
    *,
    signs: Sequence[float],
    weights: Sequence[float] | None,
) -> _Compared:
    """L1 distances, each key's weighted by its sign; the values are distances."""
    weights = [1 / len(anchor_maps)] * len(anchor_maps) if weights is None else weights
    if len(weights) != len(anchor_maps):
        raise DataError(
            f"layer_weights: expected one number for each of the embedding's {len(anchor_maps)} layers, got "
            f"{len(weights)}."
        )
    layers, seeds = [], []
    for maps, keys, weight in zip(anchor_maps, key_maps, weights, strict=True):
        anchor = at_least_float32(maps)
        seed = torch.zeros_like(anchor)
        columns = []
        # Key by key: the differences of all of them would be as large as the maps.
        for key, sign in zip(at_least_float32(keys).unflatten(0, (-1, count)).unbind(1), signs, strict=True):
            difference = anchor - key
            columns.append(weight * difference.abs().flatten(1).mean(1))
            if train:
                seed.add_(difference.sign_(), alpha=sign * weight / anchor[0].numel())
        layers.append(torch.stack(columns, 1))
        seeds.append(seed)
    distances = torch.stack(layers).sum(0)
    # not by a tensor of the signs: it would be copied to the device, and waited for
    losses = torch.stack([sign * column for sign, column in zip(signs, distances.unbind(1), strict=True)]).sum(0)
    return _Compared(losses, distances, seeds)


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
