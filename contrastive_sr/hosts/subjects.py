"""Methods with a network and a degradation, to be looked at: by a method's name, or of a config of either host."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from contrastive_sr.degradations import DegradationConfig, bicubic_downsample, bicubic_upsample
from contrastive_sr.embeddings import training_mode
from contrastive_sr.embeddings.weights import load_state_dict
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.checkpoints import read_methods, read_network
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.in_step import STATE_SUFFIX
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.hosts.trained import network_of_config
from contrastive_sr.methods import METHODS, Comparison, Methods, build_methods
from contrastive_sr.methods.compared import without_repeats
from contrastive_sr.methods.dasr import KERNEL
from contrastive_sr.networks.parts import check_scale

# Where the patches of a batch lie in the image, from 0 to 1, the first in its middle; and a second crop of each.
_PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.5))
_SECOND = ((0.3, 0.7), (0.2, 0.3), (0.8, 0.6), (0.3, 0.9), (0.9, 0.2), (0.1, 0.8))
_PAPERS = {"pclsr": "PCL", "mpfnet": "MPF"}  # the other papers' names are those of their methods
# what a method needs beside its defaults: CriaCL without branches, which need a trunk, and nothing with VGG's weights
_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "CriaCL": {"variant": 5, "vgg_weights": None},
    "CriterionTerm": {"criterion": "SSIM"},
    "MCL": {"embedding": {"type": "HaarDiscriminator"}},
}


class Subject(NamedTuple):
    """What is looked at.

    Attributes:
        methods: attached to the network.
        network: what makes the SR images.
        degradation: makes the LR images; None: bicubic.
        scale: of the network.
        sr: what the SR images are, in words.
        state: the file that the methods' own parts were loaded from, if it is another than the checkpoint.
    """

    methods: Methods
    network: nn.Module
    degradation: DegradationConfig | None
    scale: int
    sr: str
    state: Path | None = None


class _Bicubic(nn.Module):
    """Enlarges as MATLAB does."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        return bicubic_upsample(lr, self.scale)


def subject_of_method(name: str, scale: int) -> Subject:
    """A method with its defaults, and the SR network that it needs, with new weights, or bicubic enlargement.

    Args:
        name: a method's name, or a paper's, in any spelling such as ``crl-sr``.
        scale: of the network.

    Raises:
        ConfigError: no such method, or one that has no defaults.
    """
    check_scale(scale, "--scale")
    by_spelling = {**{_plain(known): known for known in METHODS}, **_PAPERS}
    if _plain(name) not in by_spelling:
        close = difflib.get_close_matches(_plain(name), by_spelling, n=1)
        guess = f" Did you mean {by_spelling[close[0]]!r}?" if close else ""
        raise ConfigError(f"--method: expected one of {', '.join(METHODS)}, got {name!r}.{guess}")
    cls = METHODS[by_spelling[_plain(name)]]
    try:
        method = cls(**_ARGUMENTS.get(cls.__name__, {}))
    except TypeError as error:  # of a class that is not ours
        raise ConfigError(
            f"--method: {cls.__name__} cannot be built with its defaults ({error}). Use --config."
        ) from error
    network = _Bicubic(scale) if cls.network is None else cls.network(scale=scale)
    words = "bicubic enlargement" if cls.network is None else _untrained(network)
    methods = Methods([method])
    methods.attach(network)
    degradation = f"dasr-isotropic-x{scale}" if methods.wants else None
    return Subject(methods, network, degradation, scale, words)


def _untrained(network: nn.Module) -> str:
    return f"{type(network).__name__} with new weights, whose output is noise"


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def subject_of_config(file: Path, checkpoint: Path | None, scale: int) -> Subject:
    """A config's methods, with its network where they need it or there is a checkpoint.

    Args:
        file: an option file of BasicSR or a config of MMagic.
        checkpoint: of the config's network; with it come the methods' own parts, if they were saved.
        scale: of a network whose options have no scale.

    Raises:
        ConfigError: a config that cannot be used, or a checkpoint of another one.
        HostError: the config's host is missing or broken.
    """
    network = network_of_config(file)
    if file.suffix == ".py":
        from contrastive_sr.hosts.mmagic.runner import model_of
    else:
        from contrastive_sr.hosts.basicsr.runner import model_of
    configs, degradation, options = model_of(file)
    stated = stated_scale(type(network), options)
    scale = scale if stated is None else stated[1]
    if checkpoint is not None:
        checkpoint = checkpoint.resolve()  # its folders say whose it is
        load_state_dict(network, read_network(checkpoint), str(checkpoint))
        methods = build_methods(configs)
        methods.attach(network)
        state = _load_methods(methods, checkpoint)
        words = f"{type(network).__name__} of {checkpoint.name}{', methods with new weights' if state is None else ''}"
        return Subject(methods, network, degradation, scale, words, None if state == checkpoint else state)
    methods, bicubic = build_methods(configs), _Bicubic(scale)
    try:
        methods.attach(bicubic)
        return Subject(methods, bicubic, degradation, scale, "bicubic enlargement")
    except ConfigError:  # a method reads the network's own layers
        methods = build_methods(configs)
        methods.attach(network)
        return Subject(methods, network, degradation, scale, _untrained(network))


def _load_methods(methods: Methods, checkpoint: Path) -> Path | None:
    """Give methods the state that was saved with a network; the file it was in, or None without one."""
    file = checkpoint
    if checkpoint.parent.name == "models":  # BasicSR's, which has the methods beside its training states
        states = {path.stem: path for path in checkpoint.parents[1].glob(f"training_states/*{STATE_SUFFIX}")}
        step = checkpoint.stem.rpartition("_")[2]
        newest = max(filter(str.isdigit, states), key=int, default="")
        wanted = newest if step == "latest" else step
        if wanted not in states:
            return None
        file = states[wanted]
    state = read_methods(file)
    if state is None:
        return None
    try:
        methods.load_state_dict(state)
    except (RuntimeError, ConfigError) as error:
        saved = [key for key in dict.fromkeys(key.split(".")[0] for key in state) if key != "step"]
        reason = f"it was trained with {', '.join(saved)}, and the config has {', '.join(methods.names)}"
        if saved == methods.names:
            reason = f"{', '.join(saved)} has other parts there"
        raise ConfigError(
            f"{file}: its methods do not fit those of the config: {reason}. Use the config, and the version, that it "
            "was trained with."
        ) from error
    return file


def compare_image(subject: Subject, hr: Tensor, size: int, seed: int) -> tuple[list[Comparison], int]:
    """What the methods compare, of patches of an image.

    Args:
        subject: what is looked at.
        hr: (1, 3, H, W) in [0, 1].
        size: sides of the patches at most; the first is taken from the image's middle.
        seed: of the degradation.

    Returns:
        The comparisons, of untrained parts one alone, and the sides of the patches.

    Raises:
        ConfigError: a method that compares nothing, or cannot tell.
        DataError: an image that is too small.
    """
    batch, side = _batch(hr, size, subject, seed)
    with torch.no_grad(), training_mode(subject.methods, False), training_mode(subject.network, False):
        comparisons = subject.methods.compared(subject.methods.run(subject.network, batch))
    if not comparisons:
        raise ConfigError(f"{', '.join(subject.methods.names)}: there is nothing to draw, since it compares nothing.")
    return without_repeats(comparisons), side


def _batch(hr: Tensor, size: int, subject: Subject, seed: int) -> tuple[dict[str, Tensor], int]:
    """Patches of the image, the first from its middle, and the LR images of them; and the patches' sides."""
    multiple = math.lcm(subject.scale, 8)
    side = min(size, *hr.shape[-2:]) // multiple * multiple
    patches, second = (torch.cat([_patch(hr, side, at) for at in places]) for places in (_PLACES, _SECOND))
    if subject.degradation is None:
        lr = (bicubic_downsample(patches, subject.scale).clamp(0, 1) * 255).round() / 255
        return {"hr": patches, "lr": lr}, side
    degradation = TrainingDegradation(subject.degradation, (*subject.methods.wants, KERNEL), seed, subject.scale)
    return degradation.batch(patches, second, step=0), side


def _patch(hr: Tensor, side: int, place: tuple[float, float]) -> Tensor:
    top, left = (int(at * (length - side)) for at, length in zip(place, hr.shape[-2:], strict=True))
    return hr[..., top : top + side, left : left + side]
