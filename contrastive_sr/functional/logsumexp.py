"""Similarities of M anchors to K candidates, summed up without ever holding the M x K matrix.

Every contrast within an image needs the logit of each positive pair, which is on the matrix's diagonal, and the
log-sum-exp of the rest of its row and of its column. :func:`pair_statistics` computes these: from the whole matrix for
few candidates, otherwise tile by tile, where each tile serves both directions. The backward pass forms each tile once
more and adds it into both gradients, so that memory grows with M and not with its square. On a CPU a tile covers one
image and stays in the cache; on a GPU, to which every operation has to be sent, it covers as many images as fit a
budget.

``set_tiling(kernel="triton")`` chooses a fused kernel in place of :func:`_sum_up` and :func:`_spread`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_count, check_number, describe_error
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.graphs import outside_graphs
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.similarity import inverse_norm, unit_vectors

DENSE_BELOW = 256  # candidates; a smaller matrix is no larger than the vectors, and has second derivatives
Matmul = Literal["torch", "onednn"]
Kernel = Literal["torch", "triton"]
# exp(50) times any number of positions is still a float32, so unit vectors need no running maximum.
_LARGEST_INVERSE_TEMPERATURE = 50.0


_AT_ONCE_MIB = 256.0  # of logits on a GPU


def _is_sent_to(device: torch.device) -> bool:
    """Whether operations are sent to it, so that few large ones are better; on a CPU tiles should stay in the cache."""
    return device.type != "cpu"


@dataclass(frozen=True)
class _Settings:
    size: int | None = None
    cache_mib: float = 64.0
    matmul: Matmul = "torch"
    kernel: Kernel = "torch"

    def size_on(self, device: torch.device) -> int:
        return self.size or (4096 if _is_sent_to(device) else 512)

    def images_at_once(self, a: Tensor, b: Tensor) -> int:
        """How many images a tile covers."""
        if not _is_sent_to(a.device):
            return 1
        size = self.size_on(a.device)
        of_one = min(size, a.shape[1]) * min(size, b.shape[1]) * a.element_size()
        return max(1, int(_AT_ONCE_MIB * 2**20 / of_one))


class _Powers(NamedTuple):
    """The base in which exponentials are taken.

    Attributes:
        exp_: raises it to the power of a tensor, in place.
        log: its logarithm of a tensor.
        of_e: its logarithm of e.
    """

    exp_: Callable[[Tensor], Tensor]
    log: Callable[[Tensor], Tensor]
    of_e: float


_OF_E = _Powers(Tensor.exp_, Tensor.log, 1.0)


def _powers_on(device: torch.device) -> _Powers:
    # Of 2 they are faster on a CPU; on a GPU torch compiles that kernel when it is first used.
    if _is_sent_to(device):
        return _OF_E
    return _Powers(Tensor.exp2_, Tensor.log2, math.log2(math.e))


_settings = _Settings()


class set_tiling:  # noqa: N801 - a function that can also be a context manager, as torch.set_grad_enabled
    """Choose how large contrasts are computed: from now on, or inside a ``with`` block.

    No choice changes a loss by more than rounding.

    Args:
        size: rows and columns of a tile. None: 512 on a CPU; 4096 on a GPU, where a tile covers several images, up to
            256 MiB of logits.
        cache_mib: MiB of tiles that each contrast may keep from the forward to the backward pass, at least 0. A tile
            that is kept need not be computed again, which saves up to a quarter of the work.
        matmul: ``"torch"``, or ``"onednn"`` for oneDNN's float32 product on a CPU. On some CPUs that is about twice as
            fast. It rounds differently, and it uses an operator that torch may drop.
        kernel: ``"torch"``, or ``"triton"`` for a fused kernel on a GPU, which forms no tiles in memory and launches
            four kernels in all. It takes float32 vectors of up to 512 features; others are computed by torch. No GPU
            has run it yet, so it is not known to be faster.

    Raises:
        ConfigError: a size, budget or name that makes no sense, a torch without oneDNN, or Triton is missing.

    Example:
        >>> from contrastive_sr.functional import info_nce
        >>> vectors = torch.rand(300, 8)
        >>> with set_tiling(size=128, cache_mib=0):
        ...     info_nce(vectors, vectors).shape
        torch.Size([])
    """

    def __init__(
        self,
        size: int | None = None,
        cache_mib: float = 64.0,
        matmul: Matmul = "torch",
        kernel: Kernel = "torch",
    ) -> None:
        if size is not None:
            check_count(size, "set_tiling(size)")
        check_number(cache_mib, "set_tiling(cache_mib)", at_least=0)
        check_choice(matmul, get_args(Matmul), "set_tiling(matmul)")
        if matmul == "onednn" and not (torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")):
            raise ConfigError("set_tiling(matmul='onednn'): this torch was built without oneDNN. Use 'torch'.")
        check_choice(kernel, get_args(Kernel), "set_tiling(kernel)")
        if kernel == "triton":
            _fused_kernels()
        global _settings
        self._before, _settings = _settings, _Settings(size, cache_mib, matmul, kernel)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        global _settings
        _settings = self._before


def _fused_kernels() -> ModuleType:
    """The module of the fused kernels, imported only when they are asked for: importing Triton takes a while.

    Raises:
        ConfigError: there is no Triton.
    """
    try:
        return importlib.import_module("contrastive_sr.functional._triton")
    except ImportError as error:
        raise ConfigError(
            "set_tiling(kernel='triton'): expected Triton 3 or newer, which torch for Linux brings along, got "
            f"{describe_error(error)}. Use 'torch'."
        ) from error


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
    formed tile by tile; only a second derivative forms it at once, and there is a graph break under ``torch.compile``.
    Sums over tiles are in float64.

    Args:
        a: (..., M, D) anchors.
        b: (..., K, D) candidates with the same leading dimensions, K of at least M. Candidate i is the positive of
            anchor i; those from M on are negatives only.
        temperature: tau, above 0.
        columns: whether to sum over the anchors as well; K must be M then.
        normalize: whether to bring the vectors to length 1.
        unit: whether the vectors have length 1 already, so that no logit can overflow.

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
        return _tiled(a, b, temperature, columns=columns, normalize=normalize, unit=unit)


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
    powers: _Powers
    kernels: ModuleType | None
    cached: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    @property
    def bounded(self) -> bool:
        """Whether no logit can be so large that its exponential overflows."""
        return self.unit and self.scale <= _LARGEST_INVERSE_TEMPERATURE

    def tiles(self, first: int, a: Tensor, b: Tensor) -> Iterator[_Tile]:
        """The tiles of some images, ``first`` the number of the first of them."""
        size = self.settings.size_on(a.device)
        for i in range(0, a.shape[1], size):
            for j in range(0, b.shape[1], size):
                yield _Tile((first, i, j), slice(i, i + size), slice(j, j + size), i == j)


class _Tile(NamedTuple):
    key: tuple[int, int, int]
    rows: slice
    columns: slice
    diagonal: bool  # whether it holds positives


class _Sums(NamedTuple):
    """Sums over the exponentials of negatives: ``sum * base ** shift``, (B, M) in float64 but for the positive logits.

    Those of columns are None if nobody asked for them.
    """

    positive: Tensor
    row_sum: Tensor
    row_shift: Tensor
    column_sum: Tensor | None
    column_shift: Tensor | None

    def of(self, images: slice) -> _Sums:
        """Those of some images; views."""
        return _Sums(*(None if part is None else part[images] for part in self))  # type: ignore[arg-type]


@outside_graphs
def _tiled(a: Tensor, b: Tensor, temperature: float, *, columns: bool, normalize: bool, unit: bool) -> PairStatistics:
    kernels = _fused_kernels() if _settings.kernel == "triton" else None
    if kernels is not None and not kernels.takes(a):
        kernels = None
    powers = _powers_on(a.device) if kernels is None else _OF_E
    plan = _Plan(1 / temperature, columns, normalize, unit or normalize, _settings, powers, kernels)
    images = (x.flatten(0, -3) if x.ndim > 2 else x[None] for x in (a, b))
    positive, rows, sums = _Tiled.apply(*images, plan)
    leading = a.shape[:-1]
    return PairStatistics(positive.view(leading), rows.view(leading), sums.view(leading) if columns else None)


class _Tiled(torch.autograd.Function):
    """(B, M, D) and (B, K, D) to three (B, M): positive logits, row and, if asked for, column log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, plan: _Plan) -> tuple[Tensor, Tensor, Tensor | None]:
        units = [_normalized(x) if plan.normalize else (x.contiguous(), None) for x in (a, b)]
        (unit_a, inverse_a), (unit_b, inverse_b) = units
        sums = _no_sums(unit_a, unit_b, plan)
        if plan.kernels is not None:
            _sum_up_fused(unit_a, unit_b, plan, sums)
        else:
            budget = plan.settings.cache_mib * 2**20 if any(ctx.needs_input_grad) else 0
            for images in _some_images(unit_a, unit_b, plan):
                budget = _sum_up(unit_a[images], unit_b[images], images.start, plan, budget, sums.of(images))
        ctx.plan = plan
        ctx.save_for_backward(a, b, unit_a, unit_b, inverse_a, inverse_b, *sums)
        rows = _log_sum(sums.row_sum, sums.row_shift, plan).to(a.dtype)
        if sums.column_sum is None or sums.column_shift is None:
            return sums.positive, rows, None
        return sums.positive, rows, _log_sum(sums.column_sum, sums.column_shift, plan).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        a, b, unit_a, unit_b, inverse_a, inverse_b, *joined = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):
            if torch.is_grad_enabled():  # a second derivative is wanted
                return (*_dense_gradients(a, b, plan, gradients, ctx.needs_input_grad[:2]), None)
            grad_a = torch.zeros_like(unit_a) if ctx.needs_input_grad[0] else None
            grad_b = torch.zeros_like(unit_b) if ctx.needs_input_grad[1] else None
            sums = _Sums(*joined)
            for images in _some_images(unit_a, unit_b, plan):
                slopes, targets = (
                    [None if g is None else g[images] for g in of] for of in (gradients, (grad_a, grad_b))
                )
                parts = unit_a[images], unit_b[images]
                if plan.kernels is not None:
                    _spread_fused(*parts, plan, sums=sums.of(images), slopes=slopes, targets=targets)
                else:
                    _spread(*parts, images.start, plan, sums=sums.of(images), slopes=slopes, targets=targets)
                if plan.normalize:
                    for grad, direction in zip(targets, parts, strict=True):
                        if grad is not None:
                            _drop_radial(grad, direction)
            if plan.normalize:
                for grad, inverse in ((grad_a, inverse_a), (grad_b, inverse_b)):
                    if grad is not None:
                        grad.mul_(inverse)
        return grad_a, grad_b, None


def _some_images(a: Tensor, b: Tensor, plan: _Plan) -> Iterator[slice]:
    """The images, as many at a time as a tile covers."""
    count = plan.settings.images_at_once(a, b) if plan.kernels is None else len(a)
    return (slice(first, first + count) for first in range(0, a.shape[0], count))


def _no_sums(a: Tensor, b: Tensor, plan: _Plan) -> _Sums:
    """Before the first tile."""
    start = 0.0 if plan.bounded else -math.inf
    parts: list[Tensor | None] = []
    for x in (a, b if plan.columns else None):
        total = None if x is None else x.new_zeros(x.shape[:2], dtype=torch.float64)
        parts += [total, None if total is None else torch.full_like(total, start)]
    return _Sums(a.new_empty(a.shape[:2]), *parts)  # type: ignore[arg-type]


def _log_sum(total: Tensor, shift: Tensor, plan: _Plan) -> Tensor:
    return (plan.powers.log(total) + shift) / plan.powers.of_e


def _normalized(x: Tensor) -> tuple[Tensor, Tensor]:
    inverse = inverse_norm(x, -1)[..., None]
    return (x * inverse).contiguous(), inverse


def _drop_radial(grad: Tensor, direction: Tensor) -> None:
    """Remove from gradients, in place, what points along unit vectors."""
    grad.addcmul_(direction, torch.linalg.vecdot(grad, direction).unsqueeze(-1), value=-1)


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
        self.scale = plan.scale * plan.powers.of_e
        self.onednn = plan.settings.matmul == "onednn" and like.device.type == "cpu" and like.dtype == torch.float32

    def logits(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """``a @ b.mT`` over the temperature, in the base of the powers."""
        if self.onednn:
            return _onednn_product(a[0] * self.scale, b[0])[None]
        return _add_product(out, a, b.mT, beta=0, alpha=self.scale)

    def add(self, target: Tensor, weights: Tensor, vectors: Tensor) -> None:
        """``target += weights @ vectors``."""
        if self.onednn:
            target.add_(_onednn_product(weights[0], vectors[0].T))
        else:
            _add_product(target, weights, vectors)


def _add_product(target: Tensor, a: Tensor, b: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """``target = beta * target + alpha * a @ b``, in place."""
    if len(a) == 1:  # as a batch of one it takes longer on a CPU
        target[0].addmm_(a[0], b[0], beta=beta, alpha=alpha)
        return target
    return target.baddbmm_(a, b, beta=beta, alpha=alpha)


def _onednn_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def _buffer(pool: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return pool[: math.prod(shape)].view(shape)


def _pool(a: Tensor, b: Tensor, plan: _Plan) -> Tensor:
    size = plan.settings.size_on(a.device)
    return a.new_empty(a.shape[0] * min(size, a.shape[1]) * min(size, b.shape[1]))


def _sum_up(a: Tensor, b: Tensor, first: int, plan: _Plan, budget: float, sums: _Sums) -> float:
    """The forward pass over the tiles of some images.

    Args:
        a: (N, M, D) anchors, of length 1 if the plan says so.
        b: (N, K, D) candidates, of length 1 if the plan says so.
        first: number of the first image, in the keys of cached tiles.
        plan: what to compute; tiles are added to its cache.
        budget: bytes of tiles that may still be cached.
        sums: of these images, to be added to.

    Returns:
        What is left of the budget.
    """
    products, pool = _Products(plan, a), _pool(a, b, plan)
    for tile in plan.tiles(first, a, b):
        rows, candidates = a[:, tile.rows], b[:, tile.columns]
        shape = (a.shape[0], rows.shape[1], candidates.shape[1])
        needed = math.prod(shape) * a.element_size()
        cached = plan.bounded and budget >= needed
        # A cached tile has memory of its own.
        x = products.logits(rows, candidates, a.new_empty(shape) if cached else _buffer(pool, shape))
        if tile.diagonal:
            own = x.diagonal(dim1=-2, dim2=-1)
            torch.div(own, plan.powers.of_e, out=sums.positive[:, tile.rows])
            own.fill_(-math.inf)
        if plan.bounded:
            plan.powers.exp_(x)
        for dim, part, total, shift in (
            (2, tile.rows, sums.row_sum, sums.row_shift),
            (1, tile.columns, sums.column_sum, sums.column_shift),
        ):
            if total is None or shift is None:
                continue
            if plan.bounded:
                total[:, part].add_(x.sum(dim))
            else:
                _add_shifted(x, dim, total[:, part], shift[:, part], plan.powers)
        if cached:
            plan.cached[tile.key] = x
            budget -= needed
    return budget


def _add_shifted(x: Tensor, dim: int, total: Tensor, shift: Tensor, powers: _Powers) -> None:
    """Add the exponentials of a tile to ``total * base ** shift``, the shift being the largest exponent so far."""
    largest = torch.maximum(shift, x.amax(dim))
    safe = largest.masked_fill(largest == -math.inf, 0.0)  # nothing but a positive so far
    terms = powers.exp_(x - safe.to(x.dtype).unsqueeze(dim)).sum(dim)
    total.mul_(powers.exp_(shift - safe)).add_(terms)
    shift.copy_(largest)


def _spread(
    a: Tensor,
    b: Tensor,
    first: int,
    plan: _Plan,
    *,
    sums: _Sums,
    slopes: list[Tensor | None],
    targets: list[Tensor | None],
) -> None:
    """The backward pass over the tiles of some images.

    Args:
        a: (N, M, D), as in the forward pass.
        b: (N, K, D), as in the forward pass.
        first: number of the first image, as in the forward pass.
        plan: as in the forward pass.
        sums: what the forward pass left.
        slopes: gradients at the positive logits and at the row and column log-sum-exps, (N, M) each.
        targets: gradients at a and b, to be added to, or None.
    """
    products, pool, spare = _Products(plan, a), _pool(a, b, plan), _pool(a, b, plan)
    positive, of_rows, of_columns = _slopes(plan, sums, slopes)
    exp_ = plan.powers.exp_
    for tile in plan.tiles(first, a, b):
        rows, candidates = a[:, tile.rows], b[:, tile.columns]
        shape = (a.shape[0], rows.shape[1], candidates.shape[1])
        x = plan.cached.pop(tile.key, None)  # autograd would keep it as long as the loss; a second pass computes it
        weights = _buffer(pool, shape)
        if x is None:
            x = products.logits(rows, candidates, weights)
            if plan.bounded:
                exp_(x)
        scratch = _buffer(spare, shape)
        row, row_exponent = (part[:, tile.rows, None] for part in of_rows)
        if of_columns is None:
            if plan.bounded:
                torch.mul(x, row, out=weights)
            else:
                torch.mul(exp_(torch.sub(x, row_exponent, out=scratch)), row, out=weights)
        else:
            column, column_exponent = (part[:, None, tile.columns] for part in of_columns)
            if plan.bounded:
                torch.mul(x, torch.add(row, column, out=scratch), out=weights)
            else:
                exp_(torch.sub(x, row_exponent, out=scratch)).mul_(row)
                exp_(torch.sub(x, column_exponent, out=weights)).mul_(column).add_(scratch)
        if tile.diagonal:
            weights.diagonal(dim1=-2, dim2=-1).copy_(positive[:, tile.rows])
        if targets[0] is not None:
            products.add(targets[0][:, tile.rows], weights, candidates)
        if targets[1] is not None:
            products.add(targets[1][:, tile.columns], weights.mT, rows)


def _sum_up_fused(a: Tensor, b: Tensor, plan: _Plan, sums: _Sums) -> None:
    """As :func:`_sum_up` over the tiles of all images, by the fused kernels."""
    assert plan.kernels is not None
    torch.mul(torch.linalg.vecdot(a, b[:, : a.shape[1]]), plan.scale, out=sums.positive)
    plan.kernels.sum_up(a, b, plan.scale, sums.row_sum, sums.row_shift)
    if sums.column_sum is not None:
        plan.kernels.sum_up(b, a, plan.scale, sums.column_sum, sums.column_shift)


def _spread_fused(
    a: Tensor, b: Tensor, plan: _Plan, *, sums: _Sums, slopes: list[Tensor | None], targets: list[Tensor | None]
) -> None:
    """As :func:`_spread` over the tiles of all images, by the fused kernels."""
    assert plan.kernels is not None
    positive, of_rows, of_columns = _slopes(plan, sums, slopes)
    if targets[0] is not None:
        plan.kernels.spread(a, b, plan.scale, targets[0], positive, of_rows, of_columns)
    if targets[1] is not None:
        plan.kernels.spread(b, a, plan.scale, targets[1], positive, of_columns, of_rows)


_SoftmaxParts = tuple[Tensor, Tensor]


def _slopes(
    plan: _Plan, sums: _Sums, slopes: list[Tensor | None]
) -> tuple[Tensor, _SoftmaxParts, _SoftmaxParts | None]:
    """Slopes at the positive logits, and the parts of those at the negatives by row and, if there are, by column."""
    positive, by_row, by_column = (None if slope is None else slope * plan.scale for slope in slopes)
    of_rows = _softmax_parts(by_row, sums.row_sum, sums.row_shift)
    assert positive is not None
    assert of_rows is not None
    return positive, of_rows, _softmax_parts(by_column, sums.column_sum, sums.column_shift)


def _softmax_parts(slope: Tensor | None, total: Tensor | None, shift: Tensor | None) -> _SoftmaxParts | None:
    """Factor and exponent such that ``factor * base ** (x - exponent)`` is the slope times the softmax of x.

    The sum stays out of the exponent, where rounding it to float32 would cost large logits their digits.
    """
    if slope is None or total is None or shift is None:
        return None
    return (slope / total).to(slope.dtype), shift.to(slope.dtype)
