"""A method some of whose steps are not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from contrastive_sr.losses import Contrast
from contrastive_sr.methods import Method, Step, TermWeight
from contrastive_sr.samples import Batch


class Sometimes(Method):
    """Two terms in the space of a part that learns by two losses; in some steps the first of them is not finite.

    Args:
        steps: by number, what is bad there: ``"term"``, ``"gradient"`` (a term whose graph is bad in many places),
            ``"auxiliary"`` or ``"both"``, term and auxiliary.
        value: what the bad number is.
        both: whether both terms are bad.
    """

    def __init__(self, steps: Mapping[int, str], value: float = torch.nan, *, both: bool = False) -> None:
        weights = {key: TermWeight(f"sometimes_{key}", 0.1, warn=False) for key in ("edges", "others")}
        super().__init__("sometimes", weights=weights)
        torch.manual_seed(0)
        self.part, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.steps, self.value, self.both = steps, value, both

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        bad = self.value if self.steps.get(step.number) in ("auxiliary", "both") else 1.0
        return {
            "part": Contrast((self.part(batch["sr"]) * bad).square().mean()),
            "other": Contrast(self.other(batch["sr"]).square().mean()),
        }

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        kind = self.steps.get(step.number)
        bad = self.value if kind in ("term", "both") else 1.0
        maps = self.part(batch["sr"]) * (self.value if kind == "gradient" else 1.0)

        def term(x: Tensor, factor: float) -> Contrast:
            return Contrast(x.square().mean() * factor, {"size": x.detach().mean()})

        others = self.other(batch["sr"]).square().mean() * (bad if self.both else 1.0)
        return {"edges": term(maps, bad), "others": Contrast(others)}
