"""The papers' own SR networks for ``network_g: {type: DASR, ...}``."""

from basicsr.utils.registry import ARCH_REGISTRY

from contrastive_sr.hosts.networks import by_options
from contrastive_sr.networks import NETWORKS

for _name in NETWORKS:
    ARCH_REGISTRY.register(by_options(_name))
