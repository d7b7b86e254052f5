"""The papers' own SR networks for ``network_g: {type: DASR, ...}``."""

from basicsr.utils.registry import ARCH_REGISTRY

from contrastive_sr.networks import NETWORKS

for _network in NETWORKS.values():
    ARCH_REGISTRY.register(_network)
