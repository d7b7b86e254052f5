"""A flag given as text would count as true; it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import CriteriaLoss, DegradationQueueLoss, DualContrastiveLoss, InfoNCELoss, SRNCELoss


@pytest.mark.parametrize(
    ("build", "flag"),
    [
        (lambda value: DualContrastiveLoss(gather=value), "gather"),
        (lambda value: InfoNCELoss(negatives_from="batch", gather=value), "gather"),
        (lambda value: SRNCELoss(penalty=value), "penalty"),
        (lambda value: SRNCELoss(detach_hr=value), "detach_hr"),
        (lambda value: SRNCELoss(detach_lr=value), "detach_lr"),
        (lambda value: DegradationQueueLoss(nn.Flatten(), gather=value), "gather"),
        (lambda value: CriteriaLoss(detach_anchor=value), "detach_anchor"),
        (lambda value: CriteriaLoss(normalize=value), "normalize"),
    ],
)
def test_text_is_no_flag(build: Callable[[object], nn.Module], flag: str) -> None:
    build(True)
    with pytest.raises(ConfigError, match=rf"\({flag}\): expected true or false, got 'no' \(str\)"):
        build("no")
