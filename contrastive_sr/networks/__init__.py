"""The SR networks that the papers bring: ``sr = net(lr)``, as any other."""

from torch import nn

from contrastive_sr.config import HostRegistry
from contrastive_sr.networks.crl_sr import CRLSR, ImageDecoder, ImageEncoder
from contrastive_sr.networks.dasr import DASR

NETWORKS: HostRegistry[nn.Module] = HostRegistry({cls.__name__: cls for cls in (DASR, CRLSR)})

__all__ = ["CRLSR", "DASR", "NETWORKS", "ImageDecoder", "ImageEncoder"]
