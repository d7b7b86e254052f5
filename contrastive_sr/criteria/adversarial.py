"""A discriminator's verdict on SR images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import describe_error
from contrastive_sr.config import build
from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.embeddings import EMBEDDINGS, Embedding, TrainableEmbedding, frozen, training_mode
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.networks import NETWORKS


class HostDiscriminator(nn.Module):
    """A discriminator of the host in use.

    Args:
        network: maps RGB images to logits, of any shape after the batch dimension.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def check_size(self, height: int, width: int) -> None:
        """Refuse HR patches that the network cannot take, by trying.

        Raises:
            DataError: it fails at that size.
        """
        like = next(self.network.parameters())
        try:
            with torch.no_grad(), training_mode(self.network, False):
                self.network(like.new_zeros(1, 3, height, width))
        except Exception as error:  # what a host's network raises has no common base
            raise DataError(
                f"{type(self.network).__name__}: expected HR patches of a size that it takes, got {width} x {height} "
                f"({describe_error(error)}). Give it other options, such as input_size, or take other patches."
            ) from error

    def logits(self, images: Tensor) -> Tensor:
        """The verdicts on images (B, 3, H, W)."""
        logits: Tensor = self.network(images)
        return logits


@CRITERIA.register
class Adversarial(Criterion):
    r"""How far a discriminator is from calling the SR image real: the generator's loss of a GAN.

    .. math:: \frac1K \sum_k \log\left(1 + e^{-D_k(I_{SR})}\right)

    It holds the discriminator, which :meth:`discriminator_loss` trains; in :meth:`forward` the discriminator is a fixed
    function. ESRGAN, which Cria-CL follows, compares SR with HR logits over a batch (relativistic); as a criterion of
    each image, we use the plain form. The HR images matter only if the discriminator has BatchNorm: HR and SR images
    are normalised together, as in its training.

    Args:
        discriminator: a mapping such as ``{"type": "SNResNet18"}``, or an embedding, with logits; or a discriminator of
            the host in use, such as ESRGAN's, ``{"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 64}`` of
            BasicSR, for HR patches of 128 x 128. Default: ``RGBDiscriminator``, which also sees a colour shift; those
            over Haar bands do not.

    Raises:
        ConfigError: an embedding that is unknown or cannot learn.

    Example:
        >>> Adversarial()(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1, 1, 1])
    """

    paper = "Cria-CL"

    def __init__(self, discriminator: Mapping[str, object] | Embedding | None = None) -> None:
        super().__init__()
        discriminator = {"type": "RGBDiscriminator"} if discriminator is None else discriminator
        self.discriminator: TrainableEmbedding | HostDiscriminator
        kind = discriminator.get("type") if isinstance(discriminator, Mapping) else None
        if kind not in EMBEDDINGS and kind in NETWORKS.of_host():
            self.discriminator = HostDiscriminator(build(NETWORKS, discriminator, "Adversarial(discriminator)"))
            return
        network = build(EMBEDDINGS, discriminator, "Adversarial(discriminator)")
        if not isinstance(network, TrainableEmbedding):
            able = ", ".join(name for name, cls in EMBEDDINGS.items() if issubclass(cls, TrainableEmbedding))
            raise ConfigError(
                f"Adversarial(discriminator): expected an embedding that can learn, one of {able}, got "
                f"{type(network).__name__}."
            )
        self.discriminator = network

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`Criterion.check_size`."""
        self.discriminator.check_size(height, width)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """One value for each image, (B, 1, 1, 1), with a gradient at ``sr`` alone; see :meth:`Criterion.forward`."""
        check_images(sr, hr, "Adversarial")
        with frozen(self.discriminator), self._as_in_training():
            _, logits = self._logits(hr.detach(), sr)
        return F.softplus(-logits).flatten(1).mean(1)[:, None, None, None]

    def discriminator_loss(self, hr: Tensor, fakes: Sequence[Tensor]) -> Tensor:
        """The loss that trains the discriminator: HR images should look real, all others fake.

        Args:
            hr: (B, 3, H, W) RGB in [0, 1].
            fakes: one or more (B, 3, H, W), detached here.

        Returns:
            A scalar, the mean over ``fakes``; 2 log 2 for a discriminator that only guesses.
        """
        losses = []
        with training_mode(self.discriminator, True):
            for images in fakes:
                real, fake = self._logits(hr, images.detach())
                losses.append(F.softplus(-real).mean() + F.softplus(fake).mean())
        return torch.stack(losses).mean()

    def _logits(self, hr: Tensor, sr: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both in one pass, and so with one normalisation."""
        real, fake = at_least_float32(self.discriminator.logits(torch.cat((hr, sr)))).chunk(2)
        return real, fake

    @contextmanager
    def _as_in_training(self) -> Iterator[None]:
        """Let BatchNorm normalise by these images, and leave its running statistics alone.

        The running statistics are means over past steps, while the discriminator changes fast: with them its verdict is
        not the one that it was trained to give, and is often the opposite.
        """
        norms = [part for part in self.discriminator.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.momentum = 0.0
            with training_mode(self.discriminator, bool(norms)):
                yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
