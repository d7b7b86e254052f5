"""The tiled contrast over M positions: time, memory and exactness, beside a dense matrix and other libraries."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import DEVICE, Run, compare, extra_memory, peak_mebibytes
from contrastive_sr.functional import bidirectional_nce, set_tiling, srnce

SIZES = (256, 1024, 4096, 9216, 16384, 36864)
DIM, TEMPERATURE = 256, 0.07
DENSE_LIMIT = 16384  # beyond it a dense matrix and its gradient take more than 20 GiB
PML_NTXENT_LIMIT = 256  # its memory grows with the cube of M

Loss = Callable[[Tensor, Tensor], Tensor]


def dense(a: Tensor, b: Tensor) -> Tensor:
    """Both directions as one would write them, on one matrix of logits."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TEMPERATURE
    target = torch.arange(len(logits), device=a.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


def tiled(a: Tensor, b: Tensor) -> Tensor:
    """The library's."""
    return bidirectional_nce(a, b, TEMPERATURE)


def tiled_without_cache(a: Tensor, b: Tensor) -> Tensor:
    """The library's, least memory."""
    with set_tiling(cache_mib=0):
        return bidirectional_nce(a, b, TEMPERATURE)


def tiled_onednn(a: Tensor, b: Tensor) -> Tensor:
    """The library's, with the CPU product that is not torch's default."""
    with set_tiling(matmul="onednn"):
        return bidirectional_nce(a, b, TEMPERATURE)


def dense_srnce(a: Tensor, b: Tensor) -> Tensor:
    """SRNCE with HR and LR features detached, as one would write it: logits of HR against SR features."""
    hr, sr = F.normalize(a, dim=1).detach(), F.normalize(b, dim=1)
    lr = hr.roll(1, 1)
    logits = hr @ sr.T / TEMPERATURE
    margin = (1 - (hr * lr).sum(1)) / TEMPERATURE
    pull, push = logits.diagonal() - margin, (1 - (sr * lr).sum(1)) / TEMPERATURE - margin
    own = torch.eye(len(logits), dtype=torch.bool, device=a.device)
    above = torch.logaddexp(pull, push)
    return (torch.logaddexp(above, logits.masked_fill(own, -torch.inf).logsumexp(1)) - above).mean()


def tiled_srnce(a: Tensor, b: Tensor) -> Tensor:
    """The library's SRNCE."""
    return srnce(a, b, a.roll(1, 1), TEMPERATURE, "tempered")


def linear_cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    """torch's chunked logits and cross entropy, once for each direction."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    target = torch.arange(len(a), device=a.device)
    options = torch.nn.LinearCrossEntropyOptions()
    return sum(  # type: ignore[return-value]
        F.linear_cross_entropy(x / TEMPERATURE, y, target, options=options) for x, y in ((a, b), (b, a))
    )


def pml_supcon(a: Tensor, b: Tensor) -> Tensor:
    """pytorch-metric-learning's SupConLoss: each vector of a against all of b, and back."""
    from pytorch_metric_learning.losses import SupConLoss

    loss, label = SupConLoss(TEMPERATURE), torch.arange(len(a), device=a.device)
    return loss(a, label, ref_emb=b, ref_labels=label.clone()) + loss(b, label, ref_emb=a, ref_labels=label.clone())


def pml_ntxent(a: Tensor, b: Tensor) -> Tensor:
    """pytorch-metric-learning's NTXentLoss of the same vectors."""
    from pytorch_metric_learning.losses import NTXentLoss

    loss, label = NTXentLoss(TEMPERATURE), torch.arange(len(a), device=a.device)
    return loss(a, label, ref_emb=b, ref_labels=label.clone()) + loss(b, label, ref_emb=a, ref_labels=label.clone())


def lightly_ntxent(a: Tensor, b: Tensor) -> Tensor:
    """lightly's NTXentLoss: SimCLR's, 2M vectors against 2M, so four times as many pairs."""
    from lightly.loss import NTXentLoss

    loss: Tensor = NTXentLoss(TEMPERATURE)(a, b)
    return loss


@dataclass(frozen=True)
class Case:
    """One way to compute the contrast.

    Attributes:
        loss: the function.
        colour: of its line in the plot.
        flops: multiples of M^2 D that it needs at least: the bound.
        limit: largest M to try.
        needs: a package, or an attribute of ``torch.nn.functional``, that it needs; none if empty.
        reference: the dense case whose gradient it should have; None if it is another loss.
    """

    loss: Loss
    colour: str
    flops: int = 8
    limit: int = SIZES[-1]
    needs: str = ""
    reference: Loss | None = dense

    @property
    def missing(self) -> bool:
        """Whether what it needs is not there."""
        return bool(self.needs) and not hasattr(F, self.needs) and importlib.util.find_spec(self.needs) is None


CASES = {
    "dense": Case(dense, "0.4", limit=DENSE_LIMIT),
    "tiled": Case(tiled, "C0"),
    "tiled, no cache": Case(tiled_without_cache, "C9"),
    "tiled, oneDNN": Case(tiled_onednn, "C2"),
    "SRNCE dense": Case(dense_srnce, "C4", flops=6, limit=DENSE_LIMIT, reference=dense_srnce),
    "SRNCE tiled": Case(tiled_srnce, "C4", flops=6, reference=dense_srnce),
    "2 x F.linear_cross_entropy": Case(linear_cross_entropy, "C1", limit=9216, needs="linear_cross_entropy"),
    "pytorch-metric-learning SupConLoss": Case(pml_supcon, "C3", limit=4096, needs="pytorch_metric_learning"),
    "pytorch-metric-learning NTXentLoss": Case(
        pml_ntxent, "C5", limit=PML_NTXENT_LIMIT, needs="pytorch_metric_learning"
    ),
    "lightly NTXentLoss (4 x the pairs)": Case(lightly_ntxent, "C6", limit=4096, needs="lightly", reference=None),
}
if DEVICE == "cuda":
    del CASES["tiled, oneDNN"]


@dataclass(frozen=True)
class Row:
    """What was measured of one case at one M.

    Attributes:
        case: the key in ``CASES``.
        m: number of positions.
        seconds: forward and backward, of one thread on a CPU.
        bound: the same over the time that the least number of operations takes at the rate of ``torch.mm``.
        dense: the dense case's time over this one's; of SRNCE, the dense SRNCE's.
        extra_mib: peak memory that it adds in a fresh process.
        gradient_error: distance of its float32 gradient from the float64 one, over the length of that.
    """

    case: str
    m: int
    seconds: float
    bound: float
    dense: float | None
    extra_mib: float
    gradient_error: float | None


def problem(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Vectors that correspond by index, as after some training."""
    generator = torch.Generator().manual_seed(count)
    a = torch.randn(count, DIM, generator=generator)
    b = a + torch.randn(count, DIM, generator=generator)
    made = (x.to(DEVICE, dtype).requires_grad_() for x in (a, b))
    return next(made), next(made)


def gradient(loss: Loss, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of the second argument, which all of them have one for."""
    a, b = problem(count, dtype)
    (found,) = torch.autograd.grad(loss(a, b), b)
    return found


_FLOPS = 2 * 1024 * 1024 * DIM * 20


def _products() -> None:
    left, right = torch.rand(2, 1024, DIM, device=DEVICE)
    out = left.new_empty(1024, 1024)
    for _ in range(20):
        torch.mm(left, right.T, out=out)


def _step(loss: Loss, count: int) -> Run:
    a, b = problem(count)
    return lambda: loss(a, b).backward()


def measure(sizes: Sequence[int] = SIZES) -> Iterator[Row]:
    """All cases at all sizes, the sizes one after the other."""
    torch.set_num_threads(1)
    cases = {name: case for name, case in CASES.items() if not case.missing}
    for count in sizes:
        here = {name: case for name, case in cases.items() if count <= case.limit}
        runs = {name: _step(case.loss, count) for name, case in here.items()}
        runs["torch.mm"] = _products
        seconds = compare(runs, repeats=7 if count <= 1024 else 3 if count <= 4096 else 1)
        rate = _FLOPS / seconds["torch.mm"]
        exact: dict[Loss, Tensor] = {}
        for name, case in here.items():
            error = None
            if case.reference is not None:
                if case.reference not in exact:
                    # Where a dense float64 matrix is too large: ours, which the tests compare with the dense one.
                    ours = tiled_without_cache if case.reference is dense else tiled_srnce
                    exact[case.reference] = gradient(case.reference if count <= 9216 else ours, count, torch.float64)
                reference = exact[case.reference]
                error = float((gradient(case.loss, count) - reference).norm() / reference.norm())
            plain = seconds.get("SRNCE dense" if name.startswith("SRNCE") else "dense")
            yield Row(
                name,
                count,
                seconds[name],
                seconds[name] * rate / (case.flops * count**2 * DIM),
                plain / seconds[name] if plain else None,
                extra_memory("benchmarks.nce", name, str(count)),
                error,
            )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All that was measured."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time over the bound, and memory, over M; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, key, title in (
        (axes[0], "seconds", "seconds, forward and backward"),
        (axes[1], "extra_mib", "MiB added"),
    ):
        for name, case in CASES.items():
            # Less than 1 MiB is what was left over from the warm-up.
            points = [(row.m, max(getattr(row, key), 1.0 if key == "extra_mib" else 0.0)) for row in rows]
            points = [point for point, row in zip(points, rows, strict=True) if row.case == name]
            if points:
                style = {"linestyle": "-", "linewidth": 2} if "tiled" in name else {"linestyle": "--", "linewidth": 1}
                axis.plot(*zip(*points, strict=True), marker="o", markersize=4, color=case.colour, label=name, **style)
        axis.set(xscale="log", yscale="log", xlabel="M, positions contrasted", title=title)
        sizes = sorted({row.m for row in rows})
        axis.set_xticks(sizes, [f"{m:,}" for m in sizes], rotation=30)
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _measure_memory(name: str, count: int) -> None:
    torch.set_num_threads(1)
    loss = CASES[name].loss
    loss(*problem(260)).backward()  # loads what the libraries load once
    a, b = problem(count)
    before = peak_mebibytes()
    loss(a, b).backward()
    print(peak_mebibytes() - before)


if __name__ == "__main__":
    _measure_memory(sys.argv[1], int(sys.argv[2]))
