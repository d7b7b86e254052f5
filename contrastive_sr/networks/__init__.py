"""The SR networks that the papers bring: ``sr = net(lr)``, as any other."""

from contrastive_sr.networks.criteria_branches import CriteriaBranches
from contrastive_sr.networks.crl_sr import CRLSR, ImageDecoder, ImageEncoder
from contrastive_sr.networks.dasr import DASR
from contrastive_sr.networks.mpf_net import MPFNet
from contrastive_sr.networks.registry import NETWORKS

NETWORKS.update({cls.__name__: cls for cls in (DASR, CRLSR, CriteriaBranches, MPFNet)})

__all__ = ["CRLSR", "DASR", "NETWORKS", "CriteriaBranches", "ImageDecoder", "ImageEncoder", "MPFNet"]
