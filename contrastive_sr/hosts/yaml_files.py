"""Reads YAML of foreign origin in bounded time."""

from __future__ import annotations

import math
from typing import Any

import yaml

from contrastive_sr.errors import ConfigError

_LARGEST = 100_000
_MOST_NODES = 50_000


def load_yaml(text: str, loader: Any = yaml.SafeLoader) -> Any:
    """What YAML holds, unless it is longer than an option file ever is, or grows beyond that by its aliases.

    Args:
        text: the YAML.
        loader: one of yaml's classes of loaders, or made from one.

    Raises:
        ConfigError: it is too large.
        yaml.YAMLError: it is no YAML.

    Example:
        >>> load_yaml("{a: &x [1, 2], b: *x}")
        {'a': [1, 2], 'b': [1, 2]}
    """
    if len(text) > _LARGEST:
        raise ConfigError(f"expected YAML of at most {_LARGEST:,} characters, got {len(text):,}. Is it another file?")
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _MOST_NODES:
            raise ConfigError(
                f"expected YAML of at most {_MOST_NODES:,} entries, got more, by aliases (*) of aliases, or a part "
                "that contains itself. Write out what is meant."
            )
        return reader.construct_document(node)
    finally:
        reader.dispose()


def _expanded(node: yaml.Node, sizes: dict[yaml.Node, float]) -> float:
    """How many entries there are if every alias is written out; infinite if a part contains itself."""
    if node not in sizes:
        sizes[node] = math.inf
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        sizes[node] = 1.0 + sum(_expanded(part, sizes) for part in parts)
    return sizes[node]
