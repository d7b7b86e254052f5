"""Any criterion as one more term: what a contrast is to be compared with, at the same share."""

from __future__ import annotations

from torch import nn

from contrastive_sr.criteria import Adversarial, CriteriaByName, Criterion, CriterionConfig
from contrastive_sr.losses import Contrast
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch


@register_method
class CriterionTerm(Method):
    """A criterion of SR against HR images as one more term beside the host's losses, no contrast.

    It is meant for comparison with a contrastive term of the same share: MS-SSIM, SSIM, a layer of VGG, a
    discriminator's verdict, or a loss of the host in use. The discriminator of an adversarial criterion learns in a
    step of its own, before the SR network's, to tell HR from (detached) SR images.

    Terms: one, by the criterion's name. Trained parts: ``<criterion>_discriminator`` of an adversarial criterion.

    Args:
        criterion: a name (``"MSSSIM"``, ``"SSIM"``, ``"Pixel"``, ``"VGG"``, ``"Adversarial"``, or that of a loss of the
            host in use), a mapping with ``type``, its arguments and, if wanted, a ``name``, or a module that is called
            with SR and HR images.
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        every: apply the term only once in this many steps; its weight is this many times as large there.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net, methods = nn.Upsample(scale_factor=4), Methods([CriterionTerm(criterion="Pixel", loss_weight=0.1)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)})
        >>> sorted(methods.sr_losses(batch).metrics)
        ['criterion_pixel_l1', 'criterion_pixel_l1_raw', 'criterion_pixel_l1_weight']
    """

    def __init__(
        self,
        *,
        criterion: CriterionConfig,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        name: str = "criterion",
        share_interval: int = 5,
        every: int = 1,
    ) -> None:
        super().__init__(name, every=every)  # nothing is drawn
        weight = TermWeight(name, loss_weight, loss_share, interval=share_interval)
        self.criteria = CriteriaByName()
        self.label = self.criteria.add(criterion, f"{name}: criterion")
        self.weights[self.label] = weight

    @property
    def criterion(self) -> Criterion:
        """The criterion."""
        criterion = self.criteria[self.label]
        assert isinstance(criterion, Criterion)
        return criterion

    def check_batch(self, batch: Batch) -> None:
        """Refuse HR patches that the criterion cannot take; see :meth:`Method.check_batch`."""
        self.criterion.check_size(*batch["hr"].shape[-2:])

    def trained_parts(self) -> dict[str, nn.Module]:
        """The discriminator of an adversarial criterion."""
        criterion = self.criterion
        if not isinstance(criterion, Adversarial):
            return {}
        return {f"{self.name}_{self.label}_discriminator": criterion.discriminator}

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``<criterion>_discriminator`` of an adversarial criterion."""
        criterion = self.criterion
        if not isinstance(criterion, Adversarial):
            return {}
        loss = criterion.discriminator_loss(batch["hr"].to(batch["sr"]), [batch["sr"]])
        return {f"{self.label}_discriminator": Contrast(loss)}

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The criterion's mean."""
        return {self.label: Contrast(self.criterion(batch["sr"], batch["hr"].to(batch["sr"])).mean())}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """SR and HR image, and the criterion's values; see :meth:`Method.compared`."""
        sr, hr = batch["sr"][:1], batch["hr"][:1].to(batch["sr"])
        values = self.criterion(sr, hr)[0, 0]
        parts = [
            Compared("SR", "shown", sr[0].clamp(0, 1)),
            Compared("HR", "shown", hr[0].clamp(0, 1)),
            Compared(self.label, "shown", None, float(values.mean()), heat=values if values.numel() > 1 else None),
        ]
        note = "untrained discriminator" if isinstance(self.criterion, Adversarial) and step.number == 0 else ""
        return [Comparison(self.label, "mean of the criterion, 0 for HR itself", parts, note)]
