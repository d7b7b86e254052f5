"""A method of one's own, as docs/add_a_method.md explains it."""

import torch
import torch.nn.functional as F

from contrastive_sr.functional import multi_positive_nce, pixel_cosine_similarity
from contrastive_sr.losses import Contrast
from contrastive_sr.methods import Method, Step, TermWeight, register_method


def gradients(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) images to the (B, 6, H - 1, W - 1) differences of neighbours, to the right and downwards."""
    here = images[..., :-1, :-1]
    return torch.cat((images[..., :-1, 1:] - here, images[..., 1:, :-1] - here), dim=1)


@register_method
class GradientContrast(Method):
    """The edges of the SR image should be like those of the HR image, not like those of the enlarged LR image.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given 0.05.
        temperature: above 0.
        name: prefix of everything that is logged.
    """

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 0.1,
        name: str = "gradient",
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share)
        super().__init__(name, weights={"contrastive": weight})
        self.temperature = temperature

    def terms(self, batch: dict[str, torch.Tensor], step: Step) -> dict[str, Contrast]:
        sr, hr = batch["sr"], batch["hr"].to(batch["sr"])
        lr = F.interpolate(batch["lr"].to(sr), size=hr.shape[-2:], mode="bicubic").clamp(0, 1)
        positive = pixel_cosine_similarity(gradients(sr), gradients(hr))[:, None]  # (B, 1)
        negative = pixel_cosine_similarity(gradients(sr), gradients(lr))[:, None]
        loss = multi_positive_nce(positive, negative, self.temperature)
        metrics = {"positive_similarity": positive.detach().mean(), "negative_similarity": negative.detach().mean()}
        return {"contrastive": Contrast(loss, metrics)}
