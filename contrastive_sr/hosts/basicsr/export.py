"""Writes BasicSR's checkpoints in a form that spandrel, and so the programs that build on it, can load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from contrastive_sr.embeddings.weights import read_state_dict, renamed
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.proven import save_whole

# BasicSR's name of an RCAN layer, and that of the original code, which is the one spandrel knows.
_RCAN_NAMES = (
    (r"conv_first\.", "head.0."),
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.([02])\.", r"body.\1.body.\2.body.\3."),
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1\.", r"body.\1.body.\2.body.3.conv_du.0."),
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3\.", r"body.\1.body.\2.body.3.conv_du.2."),
    (r"body\.(\d+)\.conv\.", r"body.\1.body.{blocks}."),
    (r"conv_after_body\.", "body.{groups}."),
    (r"upsample\.", "tail.0."),
    (r"conv_last\.", "tail.1."),
)
# Both networks work on [0, 255] minus this mean; BasicSR keeps it in the code, the original in the weights.
_MEAN = (0.4488, 0.4371, 0.4040)
_ENDINGS = (".pth", ".pt", ".ckpt")


def export(checkpoint: Path, target: Path) -> str:
    """Write a network's weights, the averaged ones if it has them, for spandrel.

    RRDBNet keeps BasicSR's names, which spandrel knows. RCAN's layers get their original names. An RCAN must have
    BasicSR's default ``img_range``, ``rgb_mean`` and ``res_scale``, which its checkpoint does not tell.

    Args:
        checkpoint: ``net_g_*.pth`` of BasicSR.
        target: the file to write, ``.pth``, ``.pt`` or ``.ckpt``, a plain state dict; it must not exist.

    Returns:
        The name of the network, ``"RCAN"`` or ``"RRDBNet"``.

    Raises:
        ConfigError: the checkpoint is missing or of another network, or the target exists or ends otherwise.
    """
    if target.suffix not in _ENDINGS:
        raise ConfigError(f"{target}: expected a file to write that ends in {' or '.join(_ENDINGS)}.")
    weights = read_state_dict(checkpoint)
    if target.exists() or not target.parent.is_dir():
        problem = "exists and is not overwritten" if target.exists() else "lies in a folder that does not exist"
        raise ConfigError(f"{target} {problem}. Choose another name.")
    if any(name.startswith("body.0.residual_group.") for name in weights):
        network, weights = "RCAN", _rcan(weights)
    elif "body.0.rdb1.conv1.weight" in weights:
        network = "RRDBNet"
    else:
        raise ConfigError(
            f"{checkpoint}: expected an RCAN or RRDBNet of BasicSR, got layers such as {', '.join(list(weights)[:3])}. "
            "spandrel has no EDSR; other networks' files it reads as they are, or not at all."
        )
    save_whole(weights, target)
    return network


def _rcan(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    groups = 1 + max(int(m[1]) for name in weights if (m := re.match(r"body\.(\d+)\.", name)))
    blocks = 1 + max(int(m[1]) for name in weights if (m := re.match(r"body\.0\.residual_group\.(\d+)\.", name)))
    names = [(pattern, new.format(blocks=blocks, groups=groups)) for pattern, new in _RCAN_NAMES]
    original = renamed(weights, names, "BasicSR's RCAN")
    for part, sign in (("sub_mean", -1), ("add_mean", 1)):
        original[f"{part}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        original[f"{part}.bias"] = sign * 255 * torch.tensor(_MEAN)
    return original
