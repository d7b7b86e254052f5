"""The adapter to MMagic. One line of a config loads it, for MMagic's own unmodified commands too:

    custom_imports = dict(imports=["contrastive_sr.hosts.mmagic"], allow_failed_imports=False)

Then `type="contrastive_sr.X"` names any model of MMagic with methods (`ContrastiveBaseEditModel`, `ContrastiveESRGAN`,
`ContrastiveRealESRGAN` ...), the generators `RCAN`, `DASR`, `CRLSR`, `CriteriaBranches` and `MPFNet`, the datasets
`PairedImageDataset` and `HighResolutionImageDataset`, the transform `TwoCrops`, the metrics `Pattern` and `Jaggedness`,
the hook `CheckpointHook`, and the constructor of optimizers `MultiOptimWrapperConstructor`.
"""

from contrastive_sr.hosts.mmagic.host import allow_own_checkpoints, load_host

# the modules below subclass the host's classes, so the host has to be there first
load_host()
allow_own_checkpoints()

from contrastive_sr.hosts.mmagic.dataset import HighResolutionImageDataset, PairedImageDataset, TwoCrops  # noqa: E402
from contrastive_sr.hosts.mmagic.hooks import CheckpointHook, ProgressHook  # noqa: E402
from contrastive_sr.hosts.mmagic.metrics import Jaggedness, Pattern  # noqa: E402
from contrastive_sr.hosts.mmagic.models import WithMethods  # noqa: E402
from contrastive_sr.hosts.mmagic.optimizers import MultiOptimWrapperConstructor  # noqa: E402
from contrastive_sr.hosts.mmagic.rcan import rcan  # noqa: E402
from contrastive_sr.hosts.mmagic.registry import MODELS, use_names  # noqa: E402
from contrastive_sr.hosts.networks import by_options  # noqa: E402
from contrastive_sr.networks import NETWORKS  # noqa: E402

for _name in NETWORKS:
    MODELS.register_module(name=_name, module=by_options(_name))
use_names()

__all__ = [
    "CheckpointHook",
    "HighResolutionImageDataset",
    "Jaggedness",
    "MultiOptimWrapperConstructor",
    "PairedImageDataset",
    "Pattern",
    "ProgressHook",
    "TwoCrops",
    "WithMethods",
    "rcan",
]
