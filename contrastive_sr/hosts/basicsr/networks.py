"""The papers' own SR networks for ``network_g: {type: DASR, ...}``, and BasicSR's for methods that hold networks."""

from basicsr.utils.registry import ARCH_REGISTRY

from contrastive_sr.networks import NETWORKS

for _network in NETWORKS.values():
    ARCH_REGISTRY.register(_network)
NETWORKS.add_host("BasicSR", lambda: {name.removesuffix("_basicsr"): network for name, network in ARCH_REGISTRY})
