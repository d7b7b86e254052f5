"""What fuzz tests build: each method's and loss's own test module says it, in ``SMALL`` and ``FUZZ``."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from small_models import IdentityEmbedding, SmoothEmbedding
from torch import Tensor, nn

TESTS = Path(__file__).resolve().parents[1]
CONTENTS = ("random", "zeros", "constant", "huge", "tiny", "mixed", "nan", "inf")
FINITE = CONTENTS[:-2]


def collected(folder: str, constant: str) -> dict[str, Any]:
    """All entries of the dictionaries of this name in the test modules of a folder."""
    entries: dict[str, Any] = {}
    for path in sorted((TESTS / folder).glob("test_*.py")):
        for name, entry in getattr(_imported(path), constant, {}).items():
            assert name not in entries, f"{name} of {constant} in {path} is in another file too"
            entries[name] = entry
    return entries


def _imported(path: Path) -> ModuleType:
    """The module, apart from the one that pytest makes of the file: whose name there depends on pytest's version."""
    spec = importlib.util.spec_from_file_location(f"fuzzing_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Source:
    """Draws tensors, and remembers them.

    Args:
        seed: of the shapes and values.
        dtype: of the tensors.
        contents: of the first, the second ... tensor; then from the start again.
        odd: how one of the tensors differs from what its function wants; empty for not at all.
    """

    def __init__(self, seed: int, dtype: torch.dtype, contents: Sequence[str], odd: str) -> None:
        self.random, self.dtype, self.contents, self.odd = random.Random(seed), dtype, contents, odd
        self.odd_one = self.random.randrange(3)
        self.largest = 1e30
        self.made: list[Tensor] = []

    def __call__(self, *shape: int, unit: bool = False) -> Tensor:
        """A tensor; ``unit``: of an image's values, or of others that are 0 or more."""
        odd = self.odd if len(self.made) == self.odd_one else ""
        if odd == "empty":
            shape = (0, *shape[1:])
        elif odd == "rank":
            shape = shape[1:]
        elif odd == "size" and shape:
            shape = (*shape[:-1], shape[-1] + 1)
        content = self.contents[len(self.made) % len(self.contents)]
        x = fill(
            shape,
            content,
            torch.float32 if odd == "dtype" else self.dtype,
            self.random.randrange(100),
            unit,
            self.largest,
        )
        if self.random.random() < 0.3 and x.ndim > 1:
            x = x.transpose(0, -1).contiguous().transpose(0, -1)
        x = torch.zeros(shape, dtype=torch.long) if odd == "integer" else x.requires_grad_()
        self.made.append(x)
        return x

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def one_of(self, *values: Any) -> Any:
        return self.random.choice(values)

    def maps(self, count: int, channels: int | None = None) -> list[Tensor]:
        """Feature maps (B, C, H, W) of one shape."""
        channels = self.number(1, 4) if channels is None else channels
        shape = self.number(1, 3), channels, self.number(1, 5), self.number(1, 5)
        return [self(*shape) for _ in range(count)]

    def vectors(self, count: int, large: bool = False) -> list[Tensor]:
        """Vectors (N, D) or (B, N, D) of one shape."""
        leading = [2] * self.number(0, 1)
        rows = self.number(256, 260) if large else self.number(1, 9)
        shape = [*leading, rows, self.number(1, 5)]
        return [self(*shape) for _ in range(count)]

    def temperature(self) -> dict[str, float]:
        """The keyword, or none."""
        return {"temperature": self.one_of(1e-3, 0.07, 1.0, 1e3)} if self.one_of(True, True, False) else {}

    def images(self, largest: float = 1e30) -> list[Tensor]:
        """SR images, positives and negatives."""
        self.largest = largest
        batch, side = self.number(1, 2), self.number(1, 3) * 2
        keys = [self(batch, self.number(1, 2), 3, side, side, unit=True) for _ in range(2)]
        return [self(batch, 3, side, side, unit=True), *keys]

    def embedding(self) -> nn.Module:
        """An embedding for them."""
        torch.manual_seed(0)
        # a network takes images of its own type alone
        embedding = IdentityEmbedding if self.odd == "dtype" else self.one_of(SmoothEmbedding, IdentityEmbedding)
        made: nn.Module = embedding().to(torch.float64 if self.dtype == torch.float64 else torch.float32)
        return made

    def fixed(self, *shape: int) -> Tensor:
        """Float32 values of an image, with the contents of the first tensor, and without gradient."""
        return fill(shape, self.contents[0], torch.float32, self.number(0, 9), True, self.largest)


def fill(shape: Sequence[int], content: str, dtype: torch.dtype, seed: int, unit: bool, largest: float) -> Tensor:
    """Values of one kind."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    x = x if unit else 2 * x - 1
    largest = min(largest, torch.finfo(dtype).max / 4)
    if content == "zeros":
        x = torch.zeros_like(x)
    elif content == "constant":
        x = torch.full_like(x, 0.5)
    elif content == "huge":
        x = x * largest
    elif content == "tiny":
        x = x * 1e-30
    elif content == "mixed":
        x = torch.where(torch.rand(shape, generator=generator) < 0.5, x * largest, x * 1e-30)
    elif content in ("nan", "inf"):
        x = torch.where(torch.rand(shape, generator=generator) < 0.3, float(content), x)
    return x.to(dtype)
