"""Contrast of vectors that correspond by index: CRL-SR eq. 2 and 3 (arXiv 2107.00708)."""

from __future__ import annotations

from torch import Tensor

from contrastive_sr._checks import check_number, check_shape, describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.logsumexp import pair_statistics
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.functional.reduction import Reduction, reduce


def check_vectors(vectors: dict[str, Tensor], name: str) -> None:
    """Require non-empty floating tensors (..., M, D) of one shape.

    Args:
        vectors: the arguments by name; the first gives the shape.
        name: the function's name, for the message.

    Raises:
        DataError: anything else.
    """
    first, *others = vectors.items()
    if not isinstance(first[1], Tensor) or first[1].ndim < 2:
        raise DataError(
            f"{name}({first[0]}): expected a floating-point tensor (..., M, D), got {describe(first[1])}. "
            "Feature maps (B, D, H, W) become vectors by x.flatten(2).transpose(1, 2)."
        )
    leading = [f"N{index}" for index in range(first[1].ndim - 2)]
    check_shape(first[1], (*leading, "M", "D"), f"{name}({first[0]})")
    for key, value in others:
        check_shape(value, tuple(first[1].shape), f"{name}({key})")


def info_nce(
    anchor: Tensor,
    candidates: Tensor,
    temperature: float = 0.07,
    reduction: Reduction = "mean",
    *,
    normalize: bool = True,
) -> Tensor:
    r"""Tell the candidate at the anchor's own index from all others of the same image (CRL-SR eq. 2).

    .. math:: \mathcal{L}_m = -\log
        \frac{\exp(a_m \cdot c_m / \tau)}{\sum_{j=1}^{M} \exp(a_m \cdot c_j / \tau)}

    The paper sums over m; the default here is the mean. With a single vector per image there are no negatives, and the
    loss is 0. From 256 vectors on, the M x M logits are formed tile by tile and never held at once (see
    :class:`~contrastive_sr.functional.set_tiling`): the gradient is exact, but a second derivative forms all logits at
    once, and there is a graph break under ``torch.compile``. Half precision is computed in float32.

    Args:
        anchor: (..., M, D) vectors. Each leading index, an image, is contrasted on its own. Maps (B, D, H, W) would
            count as B D images: pass ``x.flatten(2).transpose(1, 2)``, or use
            :class:`~contrastive_sr.losses.InfoNCELoss`.
        candidates: (..., M, D) vectors.
        temperature: tau, above 0; the paper's is 0.07.
        reduction: over images and vectors: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether to compare unit vectors, as the paper does. Zero vectors have cosine 0 and no gradient.

    Returns:
        A scalar of at least 0, or (..., M) with ``reduction="none"``.

    Raises:
        DataError: tensors that are not floating, not (..., M, D), of different shapes, or empty.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> import torch
        >>> vectors = torch.eye(4)
        >>> info_nce(vectors, vectors.flip(0)) > info_nce(vectors, vectors)
        tensor(True)
    """
    check_number(temperature, "info_nce(temperature)", above=0)
    check_vectors({"anchor": anchor, "candidates": candidates}, "info_nce")
    statistics = pair_statistics(anchor, candidates, temperature, normalize=normalize)
    return reduce(one_against_rest(statistics.positive, statistics.rows), reduction)


def bidirectional_nce(
    a: Tensor, b: Tensor, temperature: float = 0.07, reduction: Reduction = "mean", *, normalize: bool = True
) -> Tensor:
    r""":func:`info_nce` in both directions, from one pass over the logits (CRL-SR eq. 3).

    .. math:: \mathcal{L}_{bc} = \mathcal{L}_c(a, b) + \mathcal{L}_c(b, a)

    Args:
        a: (..., M, D) vectors, not maps, see :func:`info_nce`. Each leading index, an image, is contrasted on its own.
        b: (..., M, D) vectors; vectors with the same index belong together.
        temperature: tau, above 0; the paper's is 0.07.
        reduction: over images and vectors: ``"mean"``, ``"sum"`` or ``"none"``, of the sum of both directions.
        normalize: whether to compare unit vectors, as the paper does.

    Returns:
        A scalar of at least 0, or (..., M) with ``reduction="none"``.

    Raises:
        DataError: tensors that are not floating, not (..., M, D), of different shapes, or empty.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> import torch
        >>> a, b = torch.randn(2, 3, 64, 16)
        >>> torch.allclose(bidirectional_nce(a, b), info_nce(a, b) + info_nce(b, a))
        True
    """
    check_number(temperature, "bidirectional_nce(temperature)", above=0)
    check_vectors({"a": a, "b": b}, "bidirectional_nce")
    statistics = pair_statistics(a, b, temperature, columns=True, normalize=normalize)
    assert statistics.columns is not None
    values = one_against_rest(statistics.positive, statistics.rows)
    return reduce(values + one_against_rest(statistics.positive, statistics.columns), reduction)
