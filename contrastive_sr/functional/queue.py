"""Contrast of queries with a queue of earlier keys, as DASR learns degradations."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import check_number, check_shape, describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce
from contrastive_sr.functional.similarity import unit_vectors


def queue_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    temperature: float = 0.07,
    *,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    normalize: bool = True,
) -> Tensor:
    r"""Each query against its own key and all keys of a queue (DASR eq. 3).

    .. math:: \mathcal{L} = \frac{1}{B} \sum_{i=1}^{B} -\log \frac{\exp(q_i \cdot k_i/\tau)}
        {\exp(q_i \cdot k_i/\tau) + \sum_{j=1}^{K} \exp(q_i \cdot u_j/\tau)}

    with u the queue. As printed, eq. 3 leaves the positive out of the denominator, so that it has no lower bound, and
    sums over the batch; here the positive is inside, as in MoCo, and the batch is averaged. If no slot is valid there
    are no negatives: the loss and its gradient are 0. Half precision is computed in float32, under autocast too.
    Differentiable twice, with respect to the queries only.

    Args:
        query: (B, D) vectors.
        key: (B, D) vectors, the positive of each query. They get no gradient.
        queue: (K, D) vectors, the negatives of all queries. They get no gradient.
        temperature: tau, above 0; the paper's is 0.07.
        valid: (K,) boolean, true where a slot of the queue holds a key; other slots may hold anything. None: all do.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: whether to bring the vectors to length 1. False if they already have length 1, or for plain dot
            products.

    Returns:
        A scalar of at least 0, or (B,) with ``reduction="none"``.

    Raises:
        DataError: shapes that do not fit each other, or an empty tensor.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> query, key, queue = torch.eye(4)[:2], torch.eye(4)[:2], torch.eye(4)[2:].repeat(8, 1)
        >>> queue_nce(query, key, queue, temperature=1.0)  # log(1 + 16 / e)
        tensor(1.9295)
        >>> queue_nce(query, key, queue, valid=torch.zeros(16, dtype=torch.bool))
        tensor(0.)
    """
    check_number(temperature, "queue_nce(temperature)", above=0)
    check_shape(query, ("B", "D"), "queue_nce(query)")
    check_shape(key, query.shape, "queue_nce(key)")
    check_shape(queue, ("K", query.shape[1]), "queue_nce(queue)")
    if valid is not None and (
        not isinstance(valid, Tensor) or valid.dtype != torch.bool or valid.shape != queue.shape[:1]
    ):
        raise DataError(f"queue_nce(valid): expected a bool tensor ({queue.shape[0]},), got {describe(valid)}.")
    query = at_least_float32(query)
    key, queue = key.detach().to(query.dtype), queue.detach().to(query.dtype)
    if valid is not None:
        queue = queue.masked_fill(~valid[:, None], 0.0)
    if normalize:
        query, key, queue = map(unit_vectors, (query, key, queue))
    with torch.autocast(query.device.type, enabled=False):  # it would compute the dot products in half precision
        positive = (query * key).sum(1) / temperature
        logits = query @ queue.T / temperature
        if valid is not None:
            # Finite, so that a queue without valid slots gives 0 and not NaN in the backward pass.
            logits = logits.masked_fill(~valid, -torch.finfo(logits.dtype).max / 2)
        return reduce(one_against_rest(positive, torch.logsumexp(logits, dim=1)), reduction)
