"""reduce and its names."""

from __future__ import annotations

import pytest
import torch

from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.reduction import check_reduction, reduce


def test_reductions() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert reduce(values, "mean") == 3
    assert reduce(values, "sum") == 12
    assert reduce(values, "none") is values


@pytest.mark.parametrize("name", [None, "average", True, ["mean"]])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^reduction: expected one of mean, sum, none, got "):
        reduce(torch.zeros(2), name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^InfoNCELoss\(reduction\): expected one of mean, sum, none, got "):
        check_reduction(name, "InfoNCELoss(reduction)")  # type: ignore[arg-type]
