from __future__ import annotations

import pytest
import torch
from tolerances import assert_close

from contrastive_sr.embeddings import MLPHead
from contrastive_sr.errors import ConfigError, DataError


def test_is_linear_relu_linear_on_each_vector() -> None:
    head = MLPHead(3, dim=5).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    out = head(x).tolist()
    first, first_bias, last, last_bias = (p.tolist() for p in head.parameters())
    for i in range(2):
        for j in range(4):
            vector = x[i, j].tolist()
            hidden = [
                max(0.0, sum(w * v for w, v in zip(row, vector, strict=True)) + bias)
                for row, bias in zip(first, first_bias, strict=True)
            ]
            expected = [
                sum(w * h for w, h in zip(row, hidden, strict=True)) + bias
                for row, bias in zip(last, last_bias, strict=True)
            ]
            assert_close(out[i][j], expected, "exact", scale=1)


def test_its_layers_exist_before_the_first_call() -> None:
    assert [tuple(p.shape) for p in MLPHead(3, dim=5).parameters()] == [(5, 3), (5,), (5, 5), (5,)]


def test_gradient_and_second_gradient() -> None:
    head = MLPHead(3, dim=2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (x,))
    assert torch.autograd.gradgradcheck(head, (x,))


@pytest.mark.parametrize("x", [torch.rand(2, 4), torch.ones(2, 3, dtype=torch.long), torch.tensor(1.0)])
def test_refuses_other_vectors(x: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"expected a floating-point tensor \(\.\.\., 3\)"):
        MLPHead(3)(x)


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"channels": 3, "dim": 0}, {"channels": "3"}])
def test_refuses_numbers_that_make_no_layer(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        MLPHead(**arguments)  # type: ignore[arg-type]
