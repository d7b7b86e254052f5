"""Shipped option files and configs, made small: fewer blocks and channels, small patches, a few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contrastive_sr.embeddings.vgg import CONFIGURATIONS

PATCH = 32
# The largest value that a key keeps, wherever it stands. 16 channels, since RCAN divides them by 16.
_AT_MOST = {
    **dict.fromkeys(("num_feat", "mid_channels", "channels", "embed_dim"), 16),
    **dict.fromkeys(("num_grow_ch", "growth_channels"), 4),
    **dict.fromkeys(("num_block", "num_blocks", "num_group", "blocks", "groups"), 2),
    **dict.fromkeys(("encoder_blocks",), 4),
    **dict.fromkeys(("decoder_blocks",), 1),
    **dict.fromkeys(("num_worker_per_gpu", "num_workers"), 0),
    **dict.fromkeys(("batch_size_per_gpu",), 2),
    # So that the second of two steps has everything that begins later.
    **dict.fromkeys(("warmup_steps", "embedding_warmup_steps"), 1),
    # How often the trainer logs, validates and saves.
    **dict.fromkeys(("print_freq", "val_freq", "save_checkpoint_freq", "val_interval", "interval"), 1),
}


def shrunk(value: Any, patch: int = PATCH) -> Any:
    """A copy of an option file's or config's content, of any depth, with everything in it made small.

    Args:
        value: the content, or a part of it.
        patch: side of the HR patches; those of a GAN's discriminator may have to stay as they are.
    """
    if isinstance(value, Mapping):
        return {key: _shrunk_entry(key, entry, patch) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shrunk(entry, patch) for entry in value)
    return value


def _shrunk_entry(key: str, value: Any, patch: int) -> Any:
    if key in _AT_MOST and isinstance(value, (int, float)) and not isinstance(value, bool):
        return min(type(value)(_AT_MOST[key]), value)
    if key in ("gt_size", "gt_patch_size", "patch_size"):
        return patch
    if key in ("depths", "num_heads"):  # of SwinIR: one group of two blocks
        return [2]
    if key == "crop_size":
        return (patch, patch)
    if key == "layers":  # as many, of the first blocks: body.7 and body.15 become body.0 and body.1
        return [f"{name.rpartition('.')[0]}.{index}" for index, name in enumerate(value)]
    return shrunk(value, patch)


def provide_files(value: Any, vgg: Path, build: Callable[[dict[str, Any]], nn.Module]) -> None:
    """Give a config the files it names: VGG-19 instead of a download, and the weights of a teacher at their path.

    Args:
        value: the content, or a part of it; changed in place.
        vgg: a file of weights.
        build: makes a network from its options.
    """
    if isinstance(value, dict):
        if value.get("vgg_weights") == "torchvision":
            value["vgg_weights"] = str(vgg)
        if isinstance(value.get("network"), dict) and isinstance(value.get("weights"), str):
            path = Path(value["weights"])
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(build(value["network"]).state_dict(), path)
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        provide_files(entry, vgg, build)


def write_vgg(path: Path) -> None:
    """A file with the names and shapes of torchvision's VGG-19, of random numbers."""
    names = (number for number in range(40))
    state, channels = {}, 3
    generator = torch.Generator().manual_seed(0)
    for count, wide in CONFIGURATIONS["vgg19"].stages:
        for _ in range(count):
            number = next(names)
            weight = torch.randn(wide, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
            state.update({f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(wide)})
            channels = wide
            next(names)  # ReLU
        next(names)  # pooling
    torch.save(state, path)
