"""What is where in the files that BasicSR and MMagic save; imports neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from contrastive_sr.embeddings.tensor_file import read_file
from contrastive_sr.embeddings.weights import read_sections, sections_of
from contrastive_sr.errors import ConfigError

# BasicSR's averaged and live network, MMagic's model, and what others write; the file itself may be a plain state dict
_NETWORK_SECTIONS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net", "")
_WRAPPERS = ("module.", "_orig_mod.", "netG.")  # of DataParallel, torch.compile, and a trainer around the network
_NETWORK_PREFIXES = ("generator_ema.", "generator.")  # in MMagic's models
_METHODS_PREFIX = "methods."  # there too


def read_network(path: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """The state of the SR network in a file that BasicSR or MMagic saved; its average if there is one.

    Those of other codes are found where spandrel finds them, or if they are all that the file holds.

    Args:
        path: the file.
        key: which argument or key the path is the value of, for messages.

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    sections = read_sections(path, key)
    state = next((sections[name] for name in _NETWORK_SECTIONS if name in sections), None)
    if state is None and len(sections) == 1:
        (state,) = sections.values()
    if state is None:
        raise ConfigError(
            f"{key}: {path} was expected to hold a network, as a state dict or as BasicSR or MMagic save it, got "
            f"{', '.join(list(sections)[:5])}. Save the one you mean alone."
        )
    state = _unwrapped(state)
    for prefix in _NETWORK_PREFIXES:
        if network := _under(prefix, state):
            return _unwrapped(network)
    return state


def read_methods(path: str | Path) -> dict[str, Tensor] | None:
    """The state of the methods in their file of a BasicSR training or in a checkpoint of MMagic; None if it holds none.

    Raises:
        ConfigError: the file is missing or unreadable.
    """
    content = read_file(path)
    if isinstance(content, Mapping) and isinstance(content.get("methods"), Mapping):
        return dict(content["methods"])
    sections = sections_of(content)
    # our hook keeps the methods' state beside the state dict of the stock model
    return _under(_METHODS_PREFIX, sections.get("contrastive_sr", sections.get("state_dict", {}))) or None


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what all names have in front because the network was wrapped when it was saved."""
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            return _unwrapped(_under(prefix, state))
    return state


def steps_to_host(states: Iterable[Mapping[str, Any]]) -> None:
    """Move the step counts in saved optimizer states to the CPU, before an optimizer loads them.

    Trainers read a training state onto their GPU, and an optimizer leaves its counts where it finds them: Adam would
    wait for the GPU once for each parameter, at every step. A ``fused`` or ``capturable`` optimizer, which wants its
    counts on the GPU, puts them there as it loads.

    Args:
        states: what ``state_dict()`` of optimizers gave; changed in place.
    """
    for state in states:
        for entries in state.get("state", {}).values():
            if isinstance(entries.get("step"), Tensor):
                entries["step"] = entries["step"].cpu()


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
