"""`contrastive-sr samples`: what a method compares, of an image."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from contrastive_sr.cli.degrade import read_rgb
from contrastive_sr.cli.pictures import check_picture, needs_plot
from contrastive_sr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from contrastive_sr.methods import Comparison, MethodList

# Where the patches of a batch lie in the image, from 0 to 1, the first in its middle; and a second crop of each.
_PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.5))
_SECOND = ((0.3, 0.7), (0.2, 0.3), (0.8, 0.6), (0.3, 0.9), (0.9, 0.2), (0.1, 0.8))
_SMALLEST = 32
_PAPERS = {"pclsr": "PCL", "mpfnet": "MPF"}  # the other papers' names are those of their methods


class _Subject(NamedTuple):
    """What is looked at.

    Attributes:
        methods: attached to the network.
        network: what makes the SR images.
        degradation: a config of one; None: bicubic.
        scale: of the network.
        sr: what the SR images are, in words.
    """

    methods: MethodList
    network: nn.Module
    degradation: Any
    scale: int
    sr: str


def draw_samples(
    image: Path,
    out: Path,
    *,
    method: str | None,
    config: Path | None,
    checkpoint: Path | None,
    size: int,
    scale: int,
    seed: int,
    console: Console,
) -> None:
    """Draws anchor, positives and negatives of methods, and prints their similarities.

    Args:
        image: an HR image.
        out: the picture to write.
        method: a method's name, for its defaults, or a paper's; in any spelling such as `crl-sr`.
        config: instead, a config of either host, for each of its methods.
        checkpoint: of the config's network; with it come the methods' own parts, where they are found.
        size: sides of the patch, taken from the image's middle.
        scale: with `method`, the SR scale.
        seed: of new weights, samples and degradations.
        console: where the table goes.

    Raises:
        ConfigError: no such method, a config that cannot be used, or a method that compares nothing.
        DataError: an image that cannot be read or is too small.
        HostError: the config's host, or matplotlib, is missing.
    """
    import torch

    from contrastive_sr.embeddings import training_mode

    with needs_plot():
        from contrastive_sr.evaluation.samples import save_samples
    if checkpoint is not None and config is None:
        raise ConfigError("--checkpoint: expected --config with it, the file that it was trained with.")
    if (method is None) == (config is None):
        raise ConfigError("Expected one of --method NAME and --config FILE, e.g. --method pcl.")
    check_picture(out)
    hr = _read(image)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # they are for trainings
        torch.manual_seed(seed)
        subject = _subject(method, config, checkpoint, scale, console)
        batch, side = _batch(hr, size, subject, seed)
        if tuple(hr.shape[-2:]) != (side, side):
            console.print(f"Taken: {side} x {side} from the middle of {hr.shape[-1]} x {hr.shape[-2]}.")
        with torch.no_grad(), training_mode(subject.methods, False), training_mode(subject.network, False):
            found = subject.methods.compared(subject.methods.run(subject.network, batch))
    if not found:
        raise ConfigError(f"{', '.join(subject.methods)}: there is nothing to draw, since it compares nothing.")
    save_samples(out, found, f"{image.name}, {side} x {side}, x{subject.scale}; SR: {subject.sr}")
    _print(found, console)
    console.print(f"SR: {subject.sr}\nWritten: {out}", soft_wrap=True)


def _read(image: Path) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    if image.is_dir():
        raise DataError(f"Expected an image, got the folder {image}. Name one of its images.")
    if not image.is_file():
        raise DataError(f"Expected an image at {image}, but there is none. Check the path.")
    hr = read_rgb(image)
    if min(hr.shape[-2:]) < _SMALLEST:
        raise DataError(
            f"{image} is {hr.shape[-1]} x {hr.shape[-2]}; expected an HR image of at least {_SMALLEST} x {_SMALLEST}."
        )
    return hr


def _subject(
    method: str | None, config: Path | None, checkpoint: Path | None, scale: int, console: Console
) -> _Subject:
    if config is not None:
        return _of_config(config, checkpoint, scale, console)
    assert method is not None
    return _of_method(method, scale)


def _of_method(name: str, scale: int) -> _Subject:
    """A method with its defaults, and its own network or bicubic enlargement."""
    from contrastive_sr.methods import METHODS, MethodList
    from contrastive_sr.networks.parts import check_scale

    check_scale(scale, "--scale")
    plain = {**{_plain(known): known for known in METHODS}, **_PAPERS}
    if _plain(name) not in plain:
        close = difflib.get_close_matches(_plain(name), plain, n=1)
        guess = f" Did you mean {plain[close[0]]!r}?" if close else ""
        raise ConfigError(f"--method: expected one of {', '.join(METHODS)}, got {name!r}.{guess}")
    cls = METHODS[plain[_plain(name)]]
    try:
        method, network = cls.example(scale)
    except TypeError as error:  # of a class that is not ours
        raise ConfigError(
            f"--method: {cls.__name__} cannot be built with its defaults ({error}). Use --config."
        ) from error
    words = "bicubic enlargement" if network is None else f"{type(network).__name__} with new weights"
    network = _bicubic(scale) if network is None else network
    methods = MethodList([method])
    methods.attach(network)
    degradation = f"dasr-isotropic-x{scale}" if method.wants else None
    return _Subject(methods, network, degradation, scale, words)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _of_config(file: Path, checkpoint: Path | None, scale: int, console: Console) -> _Subject:
    """A config's methods, with its network where they need it or there is a checkpoint."""
    from contrastive_sr.cli.networks import of_config
    from contrastive_sr.embeddings.weights import load_state_dict, read_network
    from contrastive_sr.hosts.networks import stated_scale
    from contrastive_sr.methods import build_methods

    network = of_config(file)
    if file.suffix == ".py":
        from contrastive_sr.hosts.mmagic.runner import model_of
    else:
        from contrastive_sr.hosts.basicsr.runner import model_of
    configs, degradation, options = model_of(file)
    stated = stated_scale(type(network), options)
    scale = scale if stated is None else stated[1]
    if checkpoint is not None:
        load_state_dict(network, read_network(checkpoint), str(checkpoint))
        methods = build_methods(configs)
        methods.attach(network)
        trained = _load_methods(methods, checkpoint, console)
        words = f"{type(network).__name__} of {checkpoint.name}{'' if trained else ', methods with new weights'}"
        return _Subject(methods, network, degradation, scale, words)
    methods, bicubic = build_methods(configs), _bicubic(scale)
    try:
        methods.attach(bicubic)
        return _Subject(methods, bicubic, degradation, scale, "bicubic enlargement")
    except ConfigError:  # a method reads the network's own layers
        methods = build_methods(configs)
        methods.attach(network)
        return _Subject(methods, network, degradation, scale, f"{type(network).__name__} with new weights")


def _load_methods(methods: MethodList, checkpoint: Path, console: Console) -> bool:
    """Give methods the state that was saved with a network; whether there is one."""
    from contrastive_sr.embeddings.weights import read_methods

    file = checkpoint
    if checkpoint.parent.name == "models":  # BasicSR's, which has the methods in its training states
        states = {path.stem: path for path in checkpoint.parents[1].glob("training_states/*.state")}
        step = checkpoint.stem.rpartition("_")[2]
        newest = max(filter(str.isdigit, states), key=int, default="")
        wanted = newest if step == "latest" else step
        if wanted not in states:
            return False
        file = states[wanted]
    state = read_methods(file)
    if state is None:
        return False
    try:
        methods.load_state_dict(state)
    except (RuntimeError, ConfigError) as error:
        saved, wanted_names = (", ".join(dict.fromkeys(key.split(".")[0] for key in of)) for of in (state, methods))
        reason = f"it was trained with {saved}, and the config has {wanted_names}"
        if saved == wanted_names:
            reason = f"{saved} has other parts there"
        raise ConfigError(
            f"{file}: its methods do not fit those of the config: {reason}. Use the config, and the version, that it "
            "was trained with."
        ) from error
    if file != checkpoint:
        console.print(f"Methods: {file}", soft_wrap=True)
    return True


def _bicubic(scale: int) -> nn.Module:
    from torch import nn

    from contrastive_sr.degradations import bicubic_upsample

    class Bicubic(nn.Module):
        """Enlarges as MATLAB does."""

        def forward(self, lr: Tensor) -> Tensor:
            return bicubic_upsample(lr, scale)

    return Bicubic()


def _batch(hr: Tensor, size: int, subject: _Subject, seed: int) -> tuple[dict[str, Tensor], int]:
    """Patches of the image, the first from its middle, and the LR images of them; and the patches' sides."""
    import torch

    from contrastive_sr.degradations import bicubic_downsample
    from contrastive_sr.hosts.degrade import TrainingDegradation
    from contrastive_sr.methods.dasr import KERNEL

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


def _print(found: Sequence[Comparison], console: Console) -> None:
    from contrastive_sr.methods.compared import in_digits

    for comparison in found:
        note = f", {comparison.note}" if comparison.note else ""
        console.print(f"[bold]{comparison.title}[/bold]{note}; numbers: {comparison.measure}", soft_wrap=True)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column("", overflow="fold")
        table.add_column("role")
        table.add_column("", justify="right", no_wrap=True)
        for part in comparison.parts:
            if part.similarity is not None:
                table.add_row(part.label, part.role, in_digits(part.similarity, 4))
        console.print(table)
        console.print()
