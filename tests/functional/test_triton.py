"""The fused kernels of pair_statistics: run by Triton's interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from contrastive_sr.errors import ConfigError
from contrastive_sr.functional import info_nce, logsumexp, set_tiling

has_triton = importlib.util.find_spec("triton") is not None and int(version("triton").split(".")[0]) >= 3
needs_triton = pytest.mark.skipif(not has_triton, reason="the fused kernels need Triton 3")

# images, anchors, candidates, features, temperature, normalized, with column sums, size of the vectors
CASES = {
    "two images, both directions": (2, 70, 70, 20, 0.07, True, True, 1.0),
    "more candidates than anchors": (1, 70, 101, 33, 0.07, True, False, 1.0),
    "large logits of unit vectors": (2, 65, 65, 5, 0.005, True, True, 1.0),
    "unbounded logits": (1, 40, 40, 300, 0.5, False, True, 3.0),
    "as wide as can be": (1, 17, 40, 512, 0.5, False, False, 1.0),
    "one anchor, odd sizes": (1, 1, 3, 7, 0.1, True, False, 1.0),
}
SCRIPT = """
import json, sys
import torch
from contrastive_sr.functional import info_nce, set_tiling
from contrastive_sr.functional.logsumexp import _dense, pair_statistics

def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

def results(form, a, b, slopes):
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    statistics = [x for x in form(a, b) if x is not None]
    total = sum((x * slope.to(x)).sum() for x, slope in zip(statistics, slopes))
    return [x.detach() for x in statistics], torch.autograd.grad(total, (a, b))

def farthest(got, exact):
    return max(((x.double() - y).norm() / y.norm()).item() for x, y in zip(got, exact, strict=True))

found = {"early": "contrastive_sr.functional._triton" in sys.modules}
for name, (images, count, others, width, temperature, normalize, columns, size) in json.loads(sys.argv[1]).items():
    a, b = size * vectors(images, count, width), size * vectors(images, others, width, seed=1)
    slopes = [vectors(images, count, seed=seed) for seed in (2, 3, 4)]
    options = {"columns": columns, "normalize": normalize}
    with set_tiling(size=1, kernel="triton"):  # of any size: few vectors are not dense then
        got = results(lambda x, y: pair_statistics(x, y, temperature, **options), a, b, slopes)
        again = results(lambda x, y: pair_statistics(x, y, temperature, **options), a, b, slopes)
    exact = results(lambda x, y: _dense(x, y, temperature, **options), a.double(), b.double(), slopes)
    largest = (a @ b.mT).abs().max().item() / temperature if not normalize else 1 / temperature
    found[name] = [largest, *(farthest(x, y) for x, y in zip(got, exact, strict=True))]
    assert all(torch.equal(x, y) for one, two in zip(got, again) for x, y in zip(one, two))

# What they are not for is left to torch: the same bits.
for name, a in {"float64": vectors(20, 8).double(), "wide": vectors(20, 513)}.items():
    with set_tiling(size=64, kernel="triton"):
        got = info_nce(a, a.flip(0))
    with set_tiling(size=64):
        found[name] = torch.equal(got, info_nce(a, a.flip(0)))
with set_tiling(size=1, kernel="triton"):
    a, b = vectors(20, 8).requires_grad_(), vectors(20, 8, seed=1)
    (alone,) = torch.autograd.grad(info_nce(a, b), a)
    loss = info_nce(a, b)
    (first,) = torch.autograd.grad(loss, a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), a)
    a.data[3, 0] = float("nan")
    found["nan"] = info_nce(a, b, reduction="none").isnan().tolist()
found["gradient alone"] = torch.allclose(alone, first)
(first,) = torch.autograd.grad(info_nce(c := vectors(20, 8).requires_grad_(), b), c, create_graph=True)
found["second"] = torch.allclose(second, torch.autograd.grad(first.square().sum(), c)[0], rtol=1e-4, atol=1e-6)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(project: Path) -> dict[str, Any]:
    """What the script saw in Triton's interpreter, which has to be asked for before the kernels are imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(CASES)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_fused_sums_and_gradients_equal_the_matrix_in_float64(case: str, found: dict[str, Any]) -> None:
    largest, values, gradients = found[case]
    assert 0 < values < 2**-21
    assert 0 < gradients < 2**-24 * max(16, largest)  # a logit in float32 is rounded by that much


@needs_triton
def test_triton_is_not_imported_before_it_is_asked_for(found: dict[str, Any]) -> None:
    assert found["early"] is False


@needs_triton
def test_what_the_kernels_do_not_take_is_left_to_torch(found: dict[str, Any]) -> None:
    assert found["float64"] is True
    assert found["wide"] is True


@needs_triton
def test_one_side_alone_may_want_a_gradient_and_a_second_one(found: dict[str, Any]) -> None:
    assert found["gradient alone"] is True
    assert found["second"] is True


@needs_triton
def test_a_vector_that_is_not_a_number_makes_its_row_so(found: dict[str, Any]) -> None:
    assert found["nan"] == [index == 3 for index in range(20)]


SIZES = ("row_count", "column_count", "positives", "width", "blocks")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kernel", ["sum_rows", "spread_rows"])
def test_kernels_compile_for_gpus(
    kernel: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code, by the assembler that Triton brings along."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from contrastive_sr.functional import _triton

    function = getattr(_triton, kernel)
    constants: dict[str, Any] = {"precision": "tf32x3"}
    if kernel == "sum_rows":
        constants |= _triton.SUM_BLOCK
    elif capability == 80:
        constants |= _triton.spread_block(512)
    else:  # by row alone
        constants |= {**_triton.spread_block(200), "of_columns": None, "column_shift": None}
    signature = dict.fromkeys(function.arg_names, "*fp32") | dict.fromkeys(constants, "constexpr") | {"scale": "fp32"}
    signature |= {name: "i32" for name in function.arg_names if name in SIZES}
    signature |= {name: "*fp64" for name in function.arg_names if name in ("total_out", "shift_out")}
    compiled = triton.compile(
        ASTSource(function, signature, constants), target=GPUTarget("cuda", capability, 32), options=_triton.OPTIONS
    )
    assert f".target sm_{capability}" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 0
    assert compiled.metadata.shared <= 64 * 1024


def test_without_triton_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "contrastive_sr.functional._triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # as where it is not installed
    before = logsumexp._settings
    with pytest.raises(ConfigError, match=r"set_tiling\(kernel='triton'\): expected Triton 3 or newer, .* Use 'torch'"):
        set_tiling(kernel="triton")
    assert logsumexp._settings is before


@needs_triton
def test_on_a_cpu_torch_computes() -> None:
    x = torch.randn(300, 8)
    with set_tiling(kernel="triton"):
        got = info_nce(x, x.flip(0))
    assert torch.equal(got, info_nce(x, x.flip(0)))
