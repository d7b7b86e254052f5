"""SimCLRLoss and FakeContrastLoss: reductions and metrics; tests/functional/test_supcon.py has their equations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from contrastive_sr.losses import FakeContrastLoss, SimCLRLoss


def test_reductions_are_over_the_anchors() -> None:
    first, second = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind, count in ((SimCLRLoss, 6), (FakeContrastLoss, 3)):
        each = kind(reduction="none")(first, second)
        assert each.shape == (count,)
        torch.testing.assert_close(kind()(first, second), each.mean())
        torch.testing.assert_close(kind(reduction="sum")(first, second), each.sum())


def test_metrics_are_mean_cosines() -> None:
    first, second = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    views = F.normalize(torch.cat((first, second)))
    cosines = views @ views.T
    metrics = SimCLRLoss().contrast(first, second).metrics
    pairs = torch.stack([cosines[i, i + 3] for i in range(3)])
    torch.testing.assert_close(metrics["positive_similarity"], pairs.mean())
    others = cosines.sum() - cosines.diagonal().sum() - 2 * pairs.sum()
    torch.testing.assert_close(metrics["negative_similarity"], others / (36 - 6 - 6))
    metrics = FakeContrastLoss().contrast(first, second).metrics
    among = cosines[:3, :3].sum() - 3
    torch.testing.assert_close(metrics["positive_similarity"], among / 6)
    torch.testing.assert_close(metrics["negative_similarity"], cosines[:3, 3:].mean())


FUZZ = {  # what tests/test_fuzz_losses.py calls
    "SimCLRLoss": lambda source: SimCLRLoss()(*source.vectors(2)),
    "FakeContrastLoss": lambda source: FakeContrastLoss()(*source.vectors(2)),
}
