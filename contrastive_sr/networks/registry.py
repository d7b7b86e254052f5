"""Networks by name, for configs and for networks that are made of another one."""

from torch import nn

from contrastive_sr.config import HostRegistry

NETWORKS: HostRegistry[nn.Module] = HostRegistry({})
