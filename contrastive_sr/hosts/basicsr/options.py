"""Reads BasicSR's option files as data: no tag in them runs code."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import yaml

from contrastive_sr.errors import ConfigError

PLUGIN = "contrastive_sr.hosts.basicsr.plugin.__version__"


class OptionLoader(yaml.SafeLoader):
    """YAML's safe loader, with ordered mappings, that knows our own ``plugin:`` line and no other Python tag."""


def _ordered(loader: OptionLoader, node: yaml.MappingNode) -> OrderedDict[Any, Any]:
    return OrderedDict(loader.construct_pairs(node, deep=True))


def _python_tag(loader: OptionLoader, suffix: str, node: yaml.Node) -> str:
    if suffix == f"name:{PLUGIN}":
        from contrastive_sr import __version__

        return __version__
    raise ConfigError(
        f"line {node.start_mark.line + 1} of the option file: the tag !!python/{suffix} would run code. "
        f"`contrastive-sr train` accepts `!!python/name:{PLUGIN}` alone; load other plugins with "
        "`python -m basicsr.train`."
    )


OptionLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _ordered)
OptionLoader.add_multi_constructor("tag:yaml.org,2002:python/", _python_tag)
