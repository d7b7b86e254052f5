"""Networks by name, for configs and for networks that are made of another one."""

from torch import nn

from contrastive_sr.config import Registry

NETWORKS = Registry(nn.Module, "network")
register_network = NETWORKS.register
