"""Comparison of saved states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """The same values, bit for bit, at any depth."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, Mapping):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{index}")
    else:
        assert a == b, where
