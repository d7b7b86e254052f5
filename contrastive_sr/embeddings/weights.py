"""Finds a module's weights in a file, wherever in the file they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from contrastive_sr.embeddings.tensor_file import PassedOver, read_file
from contrastive_sr.errors import ConfigError


class Place(NamedTuple):
    """Where in a file the weights of a module are.

    Attributes:
        section: the keys that lead to a mapping of tensors, joined by dots; empty if the whole file is one.
        prefix: the prefix that all names of the module have there, empty or with a dot at its end.
    """

    section: str
    prefix: str

    def __str__(self) -> str:
        return ": ".join(filter(None, self)) or "the top level"

    def has(self, word: str) -> bool:
        """Whether a part of its name is this word, or ends in an underscore and this word."""
        return re.search(rf"(?:^|[._]){word}(?:\.|$)", ".".join(self)) is not None


class LoadsReleased(nn.Module):
    """A module that also loads the file that a paper's authors released, wherever a state dict is loaded into it."""

    def from_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """This module's state dict, made of the one in the authors' file.

        Args:
            state: any state dict.

        Returns:
            None if the state dict is not of that file.

        Raises:
            ConfigError: it is of that file, but of another module, or has other layers.
        """
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        held = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        own = self.from_released(held)
        if own is not None:
            for name in held:
                del state_dict[prefix + name]
            state_dict.update({prefix + name: value for name, value in own.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def under_own_names(module: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict; if it is one that authors released and that the module can load, under the module's own names.

    Raises:
        ConfigError: see :meth:`LoadsReleased.from_released`.
    """
    own = module.from_released(state) if isinstance(module, LoadsReleased) else None
    return state if own is None else own


def renamed(state: Mapping[str, Tensor], names: Sequence[tuple[str, str | None]], network: str) -> dict[str, Tensor]:
    r"""A state dict under other names.

    Args:
        state: by the names of another code.
        names: pairs of a regular expression for the beginning of a name, and what to put there, or None to leave the
            entry out. The first pair that fits counts.
        network: what is expected to have these names, for the message.

    Raises:
        ConfigError: a name that nothing fits.

    Example:
        >>> import torch
        >>> state = {"layer1.bias": torch.zeros(1), "queue": torch.zeros(1)}
        >>> list(renamed(state, [(r"layer(\d)", r"layers.\1"), ("queue", None)], "Net"))
        ['layers.1.bias']
    """
    result = {}
    for name, value in state.items():
        fitting = next(((pattern, new) for pattern, new in names if re.match(pattern, name)), None)
        if fitting is None:
            raise ConfigError(f"expected the layers of {network}, got {name}.")
        pattern, new = fitting
        if new is not None:
            result[re.sub(f"^{pattern}", new, name)] = value
    return result


def load_weights(
    module: nn.Module,
    path: str | Path,
    *,
    partial: bool = False,
    without: Sequence[str] = (),
    key: str = "weights",
    hint: str = "",
) -> None:
    """Load a module's weights from a file.

    The file, written by torch.save or safetensors, holds a mapping of tensors by name, or such mappings among other
    things, as the checkpoint of a training does. The module may be a part of a saved network: the function finds the
    mapping, and the one prefix under which all the module's names are. If there are several, averaged weights win:
    those in a mapping or under a prefix whose name ends in ``ema``. A momentum encoder (``key_encoder``), which only
    follows the encoder that is meant, is passed over, and so is a copy in another mapping under a longer prefix, such
    as the one that a wrapper adds (``module.``). DASR, DegradationEncoder, SNResNet18 and CriteriaBranches also load
    the files that the papers' authors released. Nothing but tensors and plain containers is unpickled; all other
    objects are passed over.

    Args:
        module: takes the weights in place.
        path: the file.
        partial: whether the file may hold more layers than the module.
        without: names of layers that the file may hold and the module lacks, such as a classifier.
        key: which argument or key the path is the value of, for messages.
        hint: a sentence to put at the end of a message that the file does not fit.

    Raises:
        ConfigError: the file is missing, unreadable, or does not hold this module's weights once.

    Example:
        >>> import tempfile, torch
        >>> net, saved = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     state = {f"net.{name}": value for name, value in saved.state_dict().items()}
        ...     torch.save({"epoch": 3, "state": state}, f"{folder}/checkpoint.pth")
        ...     load_weights(net, f"{folder}/checkpoint.pth")
        >>> torch.equal(net.weight, saved.weight)
        True
    """
    sections = read_sections(path, key)
    if without:
        layer = re.compile(rf"(?:^|\.)(?:{'|'.join(map(re.escape, without))})\.(?:weight|bias)$")
        sections = {
            section: {name: value for name, value in state.items() if not layer.search(name)}
            for section, state in sections.items()
        }
    try:
        load_sections(module, sections, str(path), partial=partial, key=key)
    except ConfigError as error:
        raise ConfigError(f"{error}{hint}") from None


def load_state_dict(
    module: nn.Module, content: Mapping[str, Tensor], source: str, *, partial: bool = False, key: str = "weights"
) -> None:
    """Load a module's weights from a state dict that may hold them under a prefix; see :func:`load_weights`.

    Raises:
        ConfigError: the names or shapes do not fit, or several prefixes do.
    """
    load_sections(module, {"": content}, source, partial=partial, key=key)


def read_state_dict(path: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """The one state dict in a file; the averaged one, if there are several.

    Args:
        path: the file; which files, see :func:`load_weights`.
        key: which argument or key the path is the value of, for messages.

    Raises:
        ConfigError: the file is missing or unreadable, or holds something else, or several state dicts.
    """
    sections = read_sections(path, key)
    names = [name for name in sections if Place(name, "").has("ema")] or list(sections)
    if len(names) > 1:
        raise ConfigError(
            f"{key}: {path} holds several state dicts, {', '.join(names)}, expected one. Save the one you mean alone."
        )
    return sections[names[0]]


def read_sections(path: str | Path, key: str = "weights") -> dict[str, dict[str, Tensor]]:
    """All mappings of tensors in a file, by the keys that lead to them, joined by dots; "" for the whole file.

    Raises:
        ConfigError: the file is missing or unreadable, or holds none.
    """
    content = read_file(path, key)
    if isinstance(content, PassedOver):
        raise ConfigError(
            f"{key}: {path} holds a whole Python object, as torch.save(net) writes one, expected a state dict of "
            "tensors. It is refused, since reading it would run code. Where you trust it, load it there and save "
            "net.state_dict()."
        )
    sections = sections_of(content)
    if not sections:
        keys = f" with the keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise ConfigError(f"{key}: {path} holds a {type(content).__name__}{keys}, expected a state dict of tensors.")
    return sections


def sections_of(content: object) -> dict[str, dict[str, Tensor]]:
    """The mappings of tensors in what a file holds, as :func:`read_sections`; empty if there are none."""
    return dict(_sections(content, ()))


def _sections(content: object, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return  # an optimizer's mappings go by numbers
    if content and all(isinstance(value, Tensor) for value in content.values()):
        yield ".".join(keys), dict(content)
    else:
        for key, value in content.items():
            yield from _sections(value, (*keys, key))


def load_sections(
    module: nn.Module,
    sections: Mapping[str, Mapping[str, Tensor]],
    source: str,
    *,
    partial: bool = False,
    key: str = "weights",
) -> None:
    """Load a module's weights from what :func:`read_sections` gives; see :func:`load_weights`.

    Raises:
        ConfigError: they do not hold this module's weights once.
    """
    sections = {section: under_own_names(module, state) for section, state in sections.items()}
    name, wanted = type(module).__name__, module.state_dict()
    place = _place(wanted, sections, f"{key}: {source} was expected to hold the weights of one {name}")
    state = sections[place.section]
    extra = [n for n in state if n.startswith(place.prefix) and n.removeprefix(place.prefix) not in wanted]
    if extra and not partial:
        raise ConfigError(f"{key}: {source} holds more than a {name}, e.g. {extra[0]}. Is it of another network?")
    weights = {layer: state[place.prefix + layer] for layer in wanted}
    for layer, value in wanted.items():
        if weights[layer].shape != value.shape:
            raise ConfigError(
                f"{key}: {source}: expected {layer} of shape {tuple(value.shape)}, got "
                f"{tuple(weights[layer].shape)}. Was it saved with other settings, or by an earlier version?"
            )
    module.load_state_dict(weights)


def _place(wanted: Mapping[str, Tensor], sections: Mapping[str, Mapping[str, Tensor]], expected: str) -> Place:
    """The one place where all the wanted names are.

    Raises:
        ConfigError: there is none, or there are several.
    """
    held: Counter[Place] = Counter()
    for section, state in sections.items():
        for name in state:
            parts = name.split(".")
            suffixes = (".".join(parts[index:]) for index in range(len(parts)))
            held.update(Place(section, name.removesuffix(suffix)) for suffix in suffixes if suffix in wanted)
    whole = [place for place, count in held.items() if count == len(wanted)]
    places = [place for place in whole if not (place.has("key_encoder") or place.has("pasts"))]
    places = [place for place in places if place.has("ema")] or places
    places = [place for place in places if not any(_wraps(place, other) for other in places)]
    if len(places) == 1:
        return places[0]
    if places:
        under = ", ".join(map(str, places))
        raise ConfigError(f"{expected}, got {len(places)} sets of them, under {under}. Save the one you mean alone.")
    if whole:
        other = "a past version" if whole[0].has("pasts") else "a momentum encoder"
        raise ConfigError(f"{expected}, got {other}'s alone, under {whole[0]}.")
    section, prefix = max(held, key=held.__getitem__, default=Place(next(iter(sections)), ""))
    state = sections[section]
    missing = next((layer for layer in wanted if prefix + layer not in state), "any weight")
    raise ConfigError(f"{expected}, got none (e.g. {missing} is missing; it has {', '.join(list(state)[:2])}).")


def _wraps(place: Place, other: Place) -> bool:
    """Whether a place is that of a wrapped copy of the other's module."""
    longer = place.prefix != other.prefix and f".{place.prefix}".endswith(f".{other.prefix}")
    return longer and place.section != other.section
