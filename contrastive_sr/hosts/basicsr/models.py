"""BasicSR models that train any of its SR networks with methods beside its own losses."""

from __future__ import annotations

import logging

from basicsr.models.esrgan_model import ESRGANModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

from contrastive_sr.hosts.basicsr.training import GANTraining, PixelTraining


@MODEL_REGISTRY.register()
class ContrastiveSRModel(PixelTraining, SRModel):
    """BasicSR's ``SRModel`` with methods: pixel and perceptual losses, and the terms of ``methods:``.

    Beside what ``SRModel`` reads, the option file has ``methods`` (see :func:`contrastive_sr.methods.build_methods`)
    and, in ``train``, ``optim_methods``; and, to train on HR images alone, ``degradation`` (see
    :func:`contrastive_sr.degradations.build_degradation`), with which there may be no ``methods``. Checkpoints of the
    network are those of ``SRModel``, with no other key.
    """

    networks = ARCH_REGISTRY
    logger = logging.getLogger("basicsr")


@MODEL_REGISTRY.register()
class ContrastiveSRGANModel(GANTraining, ESRGANModel):
    """BasicSR's ``ESRGANModel`` (relativistic GAN) with methods; options as in :class:`ContrastiveSRModel`."""

    networks = ARCH_REGISTRY
    logger = logging.getLogger("basicsr")
