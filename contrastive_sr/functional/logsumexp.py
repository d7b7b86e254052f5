"""Similarities of M anchors to K candidates, summed up without ever holding the M x K matrix.

Every contrast within an image needs the logit of each positive pair, which is on the matrix's diagonal, and the
log-sum-exp of the rest of its row and of its column. :func:`pair_statistics` gives these: from the whole matrix for few
candidates, otherwise tile by tile, where each tile serves both directions. The backward pass forms each tile once more
and adds it into both gradients, so that memory grows with M and not with its square.

A fused kernel for one kind of device would replace :func:`_sum_up` and :func:`_spread`, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_count, check_number
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.similarity import invert_norm, unit_vectors

DENSE_BELOW = 256  # candidates; a smaller matrix is no larger than the vectors, and has second derivatives
Matmul = Literal["torch", "onednn"]
_LOG2_E = math.log2(math.e)
# torch 2.1 has it under another name
_is_compiling = torch.compiler.is_compiling if hasattr(torch.compiler, "is_compiling") else torch._utils.is_compiling
# exp(50) times any number of positions is still a float32, so unit vectors need no running maximum.
_LARGEST_INVERSE_TEMPERATURE = 50.0


@dataclass(frozen=True)
class _Settings:
    size: int | None = None
    cache_mib: float = 64.0
    matmul: Matmul = "torch"

    def size_on(self, device: torch.device) -> int:
        # On a CPU a tile should stay in the cache; a GPU wants few large products.
        return self.size or (4096 if device.type == "cuda" else 512)


_settings = _Settings()


class set_tiling:  # noqa: N801 - a function that can also be a context manager, as torch.set_grad_enabled
    """Choose how large contrasts are computed: from now on, or inside of a ``with`` block.

    No choice changes a loss by more than rounding.

    Args:
        size: rows and columns of a tile. None: 512 on a CPU, 4096 on a GPU.
        cache_mib: MiB of tiles that each contrast may keep from the forward to the backward pass, at least 0. A tile
            that is kept is not computed again, which saves up to a quarter of the work.
        matmul: ``"torch"``, or ``"onednn"`` for oneDNN's float32 product on a CPU. On some CPUs that is about twice as
            fast. It rounds differently, and uses an operator that torch may drop.

    Raises:
        ConfigError: a size, budget or name that makes no sense, or a torch without oneDNN.

    Example:
        >>> from contrastive_sr.functional import info_nce
        >>> vectors = torch.rand(300, 8)
        >>> with set_tiling(size=128, cache_mib=0):
        ...     info_nce(vectors, vectors).shape
        torch.Size([])
    """

    def __init__(self, size: int | None = None, cache_mib: float = 64.0, matmul: Matmul = "torch") -> None:
        if size is not None:
            check_count(size, "set_tiling(size)")
        check_number(cache_mib, "set_tiling(cache_mib)", at_least=0)
        check_choice(matmul, get_args(Matmul), "set_tiling(matmul)")
        if matmul == "onednn" and not (torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")):
            raise ConfigError("set_tiling(matmul='onednn'): this torch was built without oneDNN. Use 'torch'.")
        global _settings
        self._before, _settings = _settings, _Settings(size, cache_mib, matmul)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        global _settings
        _settings = self._before


class PairStatistics(NamedTuple):
    """What :func:`pair_statistics` returns; all in units of similarity over temperature.

    Attributes:
        positive: (..., M) logit of each anchor and the candidate at its index.
        rows: (..., M) log-sum-exp of each anchor's logits to all other candidates; -inf if there is no other.
        columns: (..., M) log-sum-exp of each candidate's logits to all other anchors, or None.
    """

    positive: Tensor
    rows: Tensor
    columns: Tensor | None


def pair_statistics(
    a: Tensor, b: Tensor, temperature: float, *, columns: bool = False, normalize: bool = True, unit: bool = False
) -> PairStatistics:
    """Positive logits and log-sum-exps over the negatives, for anchors and candidates that correspond by index.

    The positive is kept out of the sums, so that a loss near zero keeps its digits. With fewer than ``DENSE_BELOW``
    candidates the whole matrix is formed, and everything can be differentiated any number of times. With more it is
    formed tile by tile; only a second derivative forms it at once, and ``torch.compile`` breaks the graph. Sums over
    tiles are float64.

    Args:
        a: (..., M, D) anchors.
        b: (..., K, D) candidates with the same leading dimensions, K of at least M. Candidate i is the positive of
            anchor i; those from M on are negatives only.
        temperature: tau, above 0.
        columns: whether to sum over the anchors as well; K must be M then.
        normalize: whether to bring the vectors to length 1.
        unit: whether they have length 1 already, so that no logit can overflow.

    Returns:
        :class:`PairStatistics` in float32, or float64 for such input.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    a, b = a.to(torch.promote_types(a.dtype, b.dtype)), b.to(torch.promote_types(a.dtype, b.dtype))
    count = b.shape[-2]
    # Autocast would form the logits in half precision, where exp(1 / 0.07) is infinite.
    with torch.autocast(a.device.type, enabled=False):
        if count < DENSE_BELOW and (_settings.size is None or count <= _settings.size):
            return _dense(a, b, temperature, columns=columns, normalize=normalize)
        # Not by a decorator on _tiled: that imports torch's compiler, which takes seconds.
        tiled = torch.compiler.disable(_tiled) if _is_compiling() else _tiled
        return tiled(a, b, temperature, columns=columns, normalize=normalize, unit=unit)


def _dense(a: Tensor, b: Tensor, temperature: float, *, columns: bool, normalize: bool) -> PairStatistics:
    if normalize:
        a, b = unit_vectors(a), unit_vectors(b)
    logits = (a @ b.transpose(-1, -2)) / temperature
    positive = logits.diagonal(dim1=-2, dim2=-1)
    anchors, candidates = logits.shape[-2:]
    if candidates == 1:  # no negatives; the gradient of an empty log-sum-exp is not a number
        nothing = torch.full_like(positive, -math.inf)
        return PairStatistics(positive, nothing, nothing if columns else None)
    own = torch.eye(anchors, candidates, dtype=torch.bool, device=a.device)
    negatives = logits.masked_fill(own, -math.inf)
    return PairStatistics(positive, negatives.logsumexp(-1), negatives.logsumexp(-2) if columns else None)


@dataclass
class _Plan:
    """What to compute, and how."""

    scale: float
    columns: bool
    normalize: bool
    unit: bool
    settings: _Settings
    cached: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether no logit can be so large that its exponential overflows."""
        return self.unit and self.scale <= _LARGEST_INVERSE_TEMPERATURE

    def tiles(self, image: int, a: Tensor, b: Tensor) -> Iterator[_Tile]:
        size = self.settings.size_on(a.device)
        for i in range(0, a.shape[0], size):
            for j in range(0, b.shape[0], size):
                yield _Tile((image, i, j), slice(i, i + size), slice(j, j + size), i == j)


class _Tile(NamedTuple):
    key: tuple[int, int, int]
    rows: slice
    columns: slice
    diagonal: bool  # whether it holds positives


class _Sums(NamedTuple):
    """Sums over the exponentials of one image's negatives, in base 2: ``sum * 2 ** shift``, both (M,) in float64."""

    positive: Tensor
    row_sum: Tensor
    row_shift: Tensor
    column_sum: Tensor
    column_shift: Tensor


def _tiled(a: Tensor, b: Tensor, temperature: float, *, columns: bool, normalize: bool, unit: bool) -> PairStatistics:
    plan = _Plan(1 / temperature, columns, normalize, unit or normalize, _settings)
    images = (x.flatten(0, -3) if x.ndim > 2 else x[None] for x in (a, b))
    positive, rows, sums = _Tiled.apply(*images, plan)
    leading = a.shape[:-1]
    return PairStatistics(positive.view(leading), rows.view(leading), sums.view(leading) if columns else None)


class _Tiled(torch.autograd.Function):
    """(B, M, D) and (B, K, D) to three (B, M): positive logits, row and column log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
        units = [_normalized(x) if plan.normalize else (x.contiguous(), None) for x in (a, b)]
        (unit_a, inverse_a), (unit_b, inverse_b) = units
        keep = any(ctx.needs_input_grad)
        budget = plan.settings.cache_mib * 2**20 if keep else 0
        sums = []
        for image in range(a.shape[0]):
            budget, sums_of_image = _sum_up(unit_a[image], unit_b[image], image, plan, budget)
            sums.append(sums_of_image)
        joined = _Sums(*(torch.stack(parts) for parts in zip(*sums, strict=True)))
        ctx.plan = plan
        ctx.save_for_backward(a, b, unit_a, unit_b, inverse_a, inverse_b, *joined)
        rows, columns = (
            ((total.log2() + shift) / _LOG2_E).to(a.dtype)
            for total, shift in ((joined.row_sum, joined.row_shift), (joined.column_sum, joined.column_shift))
        )
        return joined.positive.to(a.dtype), rows, columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        a, b, unit_a, unit_b, inverse_a, inverse_b, *joined = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):
            if torch.is_grad_enabled():  # a second derivative is wanted
                return (*_dense_gradients(a, b, plan, gradients, ctx.needs_input_grad[:2]), None)
            grad_a = torch.zeros_like(unit_a) if ctx.needs_input_grad[0] else None
            grad_b = torch.zeros_like(unit_b) if ctx.needs_input_grad[1] else None
            for image in range(a.shape[0]):
                sums = _Sums(*(part[image] for part in joined))
                slopes = [g[image] for g in gradients]
                targets = [None if g is None else g[image] for g in (grad_a, grad_b)]
                _spread(unit_a[image], unit_b[image], image, plan, sums=sums, slopes=slopes, targets=targets)
            if plan.normalize:
                for grad, direction, inverse in ((grad_a, unit_a, inverse_a), (grad_b, unit_b, inverse_b)):
                    if grad is not None:
                        _through_normalization(grad, direction, inverse)
        return grad_a, grad_b, None


def _normalized(x: Tensor) -> tuple[Tensor, Tensor]:
    inverse = invert_norm(torch.linalg.vector_norm(x, dim=-1, keepdim=True))
    return (x * inverse).contiguous(), inverse


def _through_normalization(grad: Tensor, direction: Tensor, inverse: Tensor) -> None:
    """Turn the gradient at unit vectors into that at the vectors, in place."""
    for g, u in zip(grad, direction, strict=True):
        g.addcmul_(u, torch.linalg.vecdot(g, u)[:, None], value=-1)
    grad.mul_(inverse)


def _dense_gradients(
    a: Tensor, b: Tensor, plan: _Plan, gradients: tuple[Tensor, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    a, b = a.view_as(a), b.view_as(b)  # one may depend on the other, or be it: what flows between them is not ours
    statistics = _dense(a, b, 1 / plan.scale, columns=plan.columns, normalize=plan.normalize)
    pairs = [(s, g) for s, g in zip(statistics, gradients, strict=True) if s is not None]
    inputs = [x for x, need in zip((a, b), needed, strict=True) if need]
    results = iter(torch.autograd.grad([s for s, _ in pairs], inputs, [g for _, g in pairs], create_graph=True))
    return tuple(next(results) if need else None for need in needed)


class _Products:
    """The matrix products over tiles, into buffers that are used again."""

    def __init__(self, plan: _Plan, like: Tensor) -> None:
        self.scale = plan.scale * _LOG2_E
        self.onednn = plan.settings.matmul == "onednn" and like.device.type == "cpu" and like.dtype == torch.float32

    def logits(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """``a @ b.T`` over the temperature, in base 2."""
        if self.onednn:
            return _onednn_product(a * self.scale, b)
        return torch.addmm(out, a, b.T, beta=0, alpha=self.scale, out=out)

    def add(self, target: Tensor, weights: Tensor, vectors: Tensor) -> None:
        """``target += weights @ vectors``."""
        if self.onednn:
            target.add_(_onednn_product(weights, vectors.T))
        else:
            target.addmm_(weights, vectors)


def _onednn_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def _buffer(pool: Tensor, rows: int, columns: int) -> Tensor:
    return pool[: rows * columns].view(rows, columns)


def _pool(a: Tensor, b: Tensor, plan: _Plan) -> Tensor:
    size = plan.settings.size_on(a.device)
    return a.new_empty(min(size, a.shape[0]) * min(size, b.shape[0]))


def _sum_up(a: Tensor, b: Tensor, image: int, plan: _Plan, budget: float) -> tuple[float, _Sums]:
    """The forward pass over one image's tiles.

    Args:
        a: (M, D) anchors, of length 1 if the plan says so.
        b: (K, D) candidates, of length 1 if the plan says so.
        image: number of the image, the key of its cached tiles.
        plan: what to compute; tiles are added to its cache.
        budget: bytes of tiles that may still be cached.

    Returns:
        What is left of the budget, and the sums.
    """
    products, pool = _Products(plan, a), _pool(a, b, plan)
    start = 0.0 if plan.bounded else -math.inf
    of_rows, of_columns = (x.new_zeros(x.shape[0], dtype=torch.float64) for x in (a, b))
    sums = _Sums(a.new_empty(a.shape[0]), of_rows, of_rows + start, of_columns, of_columns + start)
    for tile in plan.tiles(image, a, b):
        rows, candidates = a[tile.rows], b[tile.columns]
        needed = rows.shape[0] * candidates.shape[0] * a.element_size()
        cached = plan.bounded and budget >= needed
        shape = (rows.shape[0], candidates.shape[0])
        # A cached tile has memory of its own.
        x = products.logits(rows, candidates, a.new_empty(shape) if cached else _buffer(pool, *shape))
        if tile.diagonal:
            sums.positive[tile.rows] = x.diagonal() / _LOG2_E
            x.fill_diagonal_(-math.inf)
        if plan.bounded:
            x.exp2_()
            sums.row_sum[tile.rows] += x.sum(1)
            if plan.columns:
                sums.column_sum[tile.columns] += x.sum(0)
        else:
            _add_shifted(x, 1, sums.row_sum[tile.rows], sums.row_shift[tile.rows])
            if plan.columns:
                _add_shifted(x, 0, sums.column_sum[tile.columns], sums.column_shift[tile.columns])
        if cached:
            plan.cached[tile.key] = x
            budget -= needed
    return budget, sums


def _add_shifted(x: Tensor, dim: int, total: Tensor, shift: Tensor) -> None:
    """Add the exponentials of a tile to ``total * 2 ** shift``, the shift being the largest exponent so far."""
    largest = torch.maximum(shift, x.amax(dim))
    safe = largest.masked_fill(largest == -math.inf, 0.0)  # nothing but a positive so far
    terms = (x - safe.to(x.dtype).unsqueeze(dim)).exp2_().sum(dim)
    total.mul_((shift - safe).exp2()).add_(terms)
    shift.copy_(largest)


def _spread(
    a: Tensor, b: Tensor, image: int, plan: _Plan, *, sums: _Sums, slopes: list[Tensor], targets: list[Tensor | None]
) -> None:
    """The backward pass over one image's tiles.

    Args:
        a: (M, D), as in the forward pass.
        b: (K, D), as in the forward pass.
        image: number of the image.
        plan: as in the forward pass.
        sums: what the forward pass returned.
        slopes: gradients at the positive logits and at the row and column log-sum-exps, (M,) each.
        targets: gradients at a and b, to be added to, or None.
    """
    products, pool, spare = _Products(plan, a), _pool(a, b, plan), _pool(a, b, plan)
    positive, by_row, by_column = (slope * plan.scale for slope in slopes)
    row_factor, row_exponent = _softmax_parts(by_row, sums.row_sum, sums.row_shift)
    column_factor, column_exponent = _softmax_parts(by_column, sums.column_sum, sums.column_shift)
    for tile in plan.tiles(image, a, b):
        rows, candidates = a[tile.rows], b[tile.columns]
        x = plan.cached.pop(tile.key, None)  # autograd would keep it as long as the loss; a second pass computes it
        weights = _buffer(pool, rows.shape[0], candidates.shape[0])
        if x is None:
            x = products.logits(rows, candidates, weights)
            if plan.bounded:
                x.exp2_()
        scratch = _buffer(spare, *x.shape)
        row = row_factor[tile.rows, None]
        column = column_factor[tile.columns] if plan.columns else None
        if plan.bounded:
            factor = row if column is None else torch.add(row, column, out=scratch)
            torch.mul(x, factor, out=weights)
        else:
            torch.sub(x, row_exponent[tile.rows, None], out=scratch).exp2_().mul_(row)
            if column is None:
                weights.copy_(scratch)
            else:
                torch.sub(x, column_exponent[tile.columns], out=weights).exp2_().mul_(column).add_(scratch)
        if tile.diagonal:
            weights.diagonal().copy_(positive[tile.rows])
        if targets[0] is not None:
            products.add(targets[0][tile.rows], weights, candidates)
        if targets[1] is not None:
            products.add(targets[1][tile.columns], weights.T, rows)


def _softmax_parts(slope: Tensor, total: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and exponent such that ``factor * 2 ** (x - exponent)`` is the slope times the softmax of x.

    The sum stays out of the exponent, where rounding it to float32 would cost large logits their digits.
    """
    return (slope / total).to(slope.dtype), shift.to(slope.dtype)
