"""SR networks by a config, by their options, or by their checkpoint alone, whichever host they are of."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor, nn

from contrastive_sr._checks import describe_error
from contrastive_sr._install import install
from contrastive_sr.config import build
from contrastive_sr.embeddings.weights import load_state_dict, under_own_names
from contrastive_sr.errors import ConfigError, HostError, named_in_errors
from contrastive_sr.evaluation.naming import labels
from contrastive_sr.evaluation.padding import fit_sizes
from contrastive_sr.hosts.checkpoints import read_network
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.hosts.yaml_files import load_yaml
from contrastive_sr.networks import NETWORKS

CONFIGS = (".yml", ".yaml", ".py")
_FILES = ("net_g", "iter_", "epoch_", "best_", "latest", "last_")
_CHANNELS = ("num_in_ch", "num_out_ch", "in_channels", "out_channels")
# What authors released, by the name of a layer in it: the network of ours that loads it, as --network has it.
_RELEASED = {
    "E.encoder_q.E.0.weight": "DASR",
    "sm.0.conv.weight": (
        "{type: CriteriaBranches, variant: released, trunk: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3}}"
    ),
}
# The same of networks that cannot be built from such a file, with what there is to say.
_NOWHERE = "neither spandrel nor BasicSR nor MMagic has that network"
_UNKNOWN = {
    "csa.gamma": f"It is of HAN's own code; {_NOWHERE}.",
    "body.0.conv_match.0.weight": f"It is of NLSN's own code; {_NOWHERE}.",
    "body.0.body.0.weight": (
        "It is of EDSR-PyTorch. Take the file that BasicSR's authors made of it (EDSR_*_official-*.pth), with "
        "--network '{type: EDSR, ...}'."
    ),
}


def network_of_config(file: Path) -> nn.Module:
    """The SR network of an option file of BasicSR (.yml) or a config of MMagic (.py), with new weights.

    Raises:
        ConfigError: there is no such file, or it has no SR network that can be built.
        HostError: the host is missing or broken.
    """
    if not file.is_file():
        raise ConfigError(f"Expected the file {file}, but there is none.")
    if file.suffix == ".py":
        from contrastive_sr.hosts.mmagic.runner import sr_network as build_network
    else:
        from contrastive_sr.hosts.basicsr.runner import sr_network as build_network
    return build_network(file)


def network_of_options(text: str, scale: int) -> nn.Module:
    """An SR network by name or by options, with new weights.

    The scale, and three channels in and out, need not be given.

    Args:
        text: a name such as ``EDSR``, or options as in a config, ``{type: EDSR, num_feat: 32}``. Names are ours or
            BasicSR's; ``mmagic.`` in front of one makes it MMagic's.
        scale: of the network.

    Raises:
        ConfigError: no such network, or options that it does not have.
        HostError: the host is missing or broken.

    Example:
        >>> type(network_of_options("{type: DASR, groups: 1, blocks: 1}", 4)).__name__
        'DASR'
    """
    try:
        with named_in_errors("--network"):
            options = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--network: {text!r} is no valid YAML ({describe_error(error)}).") from error
    if isinstance(options, str):
        options = {"type": options}
    if not isinstance(options, dict) or not isinstance(options.get("type"), str):
        raise ConfigError(
            f"--network: expected a config file ({', '.join(CONFIGS)}), a name such as EDSR, or options such as "
            f"'{{type: EDSR, num_feat: 32}}'; got {text!r}."
        )
    name = options["type"]
    if name.startswith("mmagic."):
        options["type"] = name.removeprefix("mmagic.")
        importlib.import_module("contrastive_sr.hosts.mmagic.registry").use_names()
    else:
        _use_basicsr(required=name not in NETWORKS)
    known = {**NETWORKS.of_host(), **NETWORKS}
    if options["type"] in known:
        options = {**_implied(known[options["type"]], options, scale), **options}
    return build(NETWORKS, options, "--network")


def _use_basicsr(required: bool) -> None:
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    try:
        import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    except HostError:
        # our own networks do without
        if required:
            raise


def _implied(network: Any, options: dict[str, Any], scale: int) -> dict[str, Any]:
    parameters = inspect.signature(network).parameters
    implied: dict[str, Any] = {key: 3 for key in _CHANNELS if key in parameters}
    if stated := stated_scale(network, options):
        implied[stated[0]] = scale
    return implied


class TrainedNetwork(NamedTuple):
    """An SR network with its weights.

    Attributes:
        call: ``sr = call(lr)``, which pads images whose sides are no multiples of what the network needs.
        module: the network itself, in evaluation mode.
        source: where its structure was found, in words.
    """

    call: Callable[[Tensor], Tensor]
    module: nn.Module
    source: str


def trained_network(checkpoint: Path, network: str | None, scale: int) -> TrainedNetwork:
    """A trained SR network.

    Args:
        checkpoint: of BasicSR, of MMagic (the averaged weights if it has them), or one that spandrel reads.
        network: a config file, or what :func:`network_of_options` takes. None: the option file that BasicSR keeps
            beside its ``models``; without one, the network that DASR's or Cria-CL's authors released, or that spandrel
            recognises, by the weights alone.
        scale: of the network.

    Raises:
        ConfigError: the file is missing, unreadable or unsafe, does not fit the network, or it is not known which
            network it is of.
        HostError: a host that is needed is missing or broken.
    """
    state = read_network(checkpoint)
    if network is None:
        beside = _option_file_of(checkpoint)
        network = next((text for layer, text in _RELEASED.items() if layer in state), None)
        if beside is not None:
            network = str(beside)
        elif network is None:
            return _by_spandrel(checkpoint, state, scale)
    net = network_of_config(Path(network)) if network.endswith(CONFIGS) else network_of_options(network, scale)
    state = dict(under_own_names(net, state))
    try:
        load_state_dict(net, state, str(checkpoint))
    except ConfigError as error:
        held, wanted = ({name: tuple(x.shape) for name, x in of.items()} for of in (state, net.state_dict()))
        differing = [f"{name} {shape}" for name, shape in held.items() if wanted.get(name) != shape] or list(held)
        hint = " It is an embedding's file: take net_g_*.pth." if "embedding" in checkpoint.name else ""
        there = [f"{name} {shape}" for name, shape in wanted.items()]
        raise ConfigError(
            f"{checkpoint} does not fit the network {network}: it has {', '.join(differing[:2])}, where "
            f"{type(net).__name__} has {', '.join(there[:2])}.{hint} {_advice(state)}"
        ) from error
    return TrainedNetwork(fit_sizes(net.eval(), scale), net, network)


def _option_file_of(checkpoint: Path) -> Path | None:
    """The option file that BasicSR copied into the folder of a run."""
    folder = checkpoint.resolve().parent
    files = sorted(folder.parent.glob("*.y*ml")) if folder.name == "models" else []
    return files[0] if len(files) == 1 else None


def _advice(state: Mapping[str, Tensor], config: str = "with the config it was trained with") -> str:
    known = next((sentence for layer, sentence in _UNKNOWN.items() if layer in state), None)
    return known or f"Try --network {config}, or options such as '{{type: EDSR, num_feat: 64}}'."


def _by_spandrel(checkpoint: Path, state: dict[str, Any], scale: int) -> TrainedNetwork:
    # a config of MMagic is code: it is run only if it is named
    configs = sorted(checkpoint.resolve().parent.glob("*.py"))
    hint = _advice(state, str(configs[0]) if configs else "with the config it was trained with")
    try:
        import spandrel
    except ImportError as error:
        raise ConfigError(
            f"{checkpoint}: without --network its structure is looked for by spandrel, which is not installed "
            f"({install('evaluate')}). {hint}"
        ) from error
    try:
        model = spandrel.ModelLoader().load_from_state_dict(state)
    except Exception as error:  # spandrel's detection can trip over weights of any other kind
        raise ConfigError(f"{checkpoint}: spandrel does not know a network with these weights. {hint}") from error
    name = model.architecture.name
    if not isinstance(model, spandrel.ImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 3):
        raise ConfigError(f"{checkpoint}: expected a network from RGB to RGB, got {name}.")
    if model.scale != scale:
        raise ConfigError(
            f"{checkpoint}: expected a network for x{scale}, got {name} for x{model.scale}. Try --scale {model.scale}."
        )
    # spandrel's RCAN multiplies the images that it is given in place
    return TrainedNetwork(lambda lr: model(lr.clone()), model.model.eval(), f"{name}, found by spandrel")


def fingerprint(checkpoint: Path, source: str) -> str:
    """What tells a trained network from others: digests of its checkpoint and of its options, or of their config.

    BasicSR notes date and command in each copy of an option file; what is digested of it is the network's part.

    Args:
        checkpoint: the file.
        source: of the :class:`TrainedNetwork`.
    """
    options = source.encode()
    if source.endswith(".py"):
        options = Path(source).read_bytes()
    elif source.endswith(CONFIGS):
        from contrastive_sr.hosts.basicsr.runner import model_of

        options = json.dumps(model_of(Path(source))[2], sort_keys=True, default=str).encode()
    digests = [hashlib.sha256(content).hexdigest()[:16] for content in (checkpoint.read_bytes(), options)]
    return f"{digests[0]} with options {digests[1]}"


def checkpoint_names(checkpoints: Sequence[tuple[str | None, Path]]) -> list[str]:
    """Names of checkpoints for results, see :func:`contrastive_sr.evaluation.naming.labels`.

    Args:
        checkpoints: name and file of each; the name may be None.

    Example:
        >>> checkpoint_names([(None, Path("/x/my_run/models/net_g_latest.pth")), (None, Path("/x/edsr.pth"))])
        ['my_run/net_g_latest', 'edsr']
    """
    return labels(checkpoints, _name_parts)


def _name_parts(file: Path) -> tuple[tuple[str, ...], int]:
    parts = tuple(part for part in file.resolve().with_suffix("").parts[1:] if part != "models")
    # hosts give their files the same names in every run, so that the run's folder has to be in the name
    return parts, 2 if parts[-1].startswith(_FILES) else 1
