"""Imported by BasicSR's YAML loader through the option file's ``plugin:`` line: registers what option files name."""

from contrastive_sr import __version__
from contrastive_sr.hosts.basicsr.host import import_basicsr

import_basicsr("basicsr.models")

from basicsr.utils.registry import METRIC_REGISTRY  # noqa: E402 - BasicSR must be importable first

from contrastive_sr.hosts.basicsr import datasets, models, networks, prefetch  # noqa: E402
from contrastive_sr.hosts.basicsr.pattern import calculate_jaggedness, calculate_pattern  # noqa: E402

METRIC_REGISTRY.register(calculate_pattern)
METRIC_REGISTRY.register(calculate_jaggedness)

__all__ = ["__version__", "datasets", "models", "networks", "prefetch"]
