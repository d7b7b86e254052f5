"""The papers' own SR networks for ``network_g: {type: DASR, ...}``, and BasicSR's networks and losses for ours."""

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY

from contrastive_sr.criteria import CRITERIA
from contrastive_sr.hosts.networks import by_options
from contrastive_sr.networks import NETWORKS

for _name in NETWORKS:
    ARCH_REGISTRY.register(by_options(_name))


def use_names() -> None:
    """Let our configs name BasicSR's networks and losses; if both hosts are loaded, the last call decides."""
    NETWORKS.add_host("BasicSR", lambda: {name.removesuffix("_basicsr"): network for name, network in ARCH_REGISTRY})
    CRITERIA.add_host("BasicSR", lambda: {name.removesuffix("_basicsr"): loss for name, loss in LOSS_REGISTRY})


use_names()
