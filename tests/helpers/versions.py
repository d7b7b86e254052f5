"""What the oldest torch that is supported, 2.1, cannot do."""

from __future__ import annotations

import pytest
import torch

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

compiles_as_one_graph = pytest.mark.skipif(
    TORCH < (2, 2), reason="torch 2.1 cannot trace the checks of arguments; it compiles what is around them"
)
autocast_to_float16 = pytest.mark.skipif(TORCH < (2, 2), reason="on a CPU, torch 2.1 has autocast to bfloat16 alone")
