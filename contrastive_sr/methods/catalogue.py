"""What there is to choose from: every class and preset that a config can name, with its paper and a line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from contrastive_sr import losses
from contrastive_sr.config import unknown
from contrastive_sr.criteria import CRITERIA
from contrastive_sr.degradations import describe_presets, preset_families
from contrastive_sr.embeddings import EMBEDDINGS
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods.registry import METHODS
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES

PAPERS: Mapping[str, str] = {
    "PCL-SR": "A Practical Contrastive Learning Framework for Single Image Super-Resolution, arXiv 2111.13924",
    "CRL-SR": "Blind Image Super-Resolution via Contrastive Representation Learning, arXiv 2107.00708",
    "DASR": (
        "Unsupervised Degradation Representation Learning for Blind Super-Resolution, CVPR 2021, arXiv 2104.00416"
    ),
    "Cria-CL": "Criteria Comparative Learning for Real-scene Image Super-Resolution, TCSVT 2022, arXiv 2207.12767",
    "MPF-Net": "Learning from Multi-Perception Features for Real-World Image Super-resolution, arXiv 2305.18547",
    "Model Contrastive Learning": (
        "Learning from History: Task-agnostic Model Contrastive Learning for Image Restoration, arXiv 2309.06023"
    ),
}
"""Title and place of each paper, by the name that classes have as ``paper``."""


class Entry(NamedTuple):
    """One of the things to choose from.

    Attributes:
        name: as written in configs and code; for a family of presets, with a ``*`` for each number.
        paper: short names of the papers that it comes from, keys of :data:`PAPERS`; empty if it comes from none.
        summary: what it is: the first line of its docstring.
    """

    name: str
    paper: str
    summary: str


class Kind(NamedTuple):
    """One kind of things to choose from.

    Attributes:
        place: where their names are written.
        entries: returns them, including those that were registered later.
    """

    place: str
    entries: Callable[[], list[Entry]]


def _entry(cls: type) -> Entry:
    first = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
    plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", first).replace(
        "``", ""
    )  # what Sphinx makes links and code of
    return Entry(cls.__name__, getattr(cls, "paper", ""), plain)


def _registered(registry: Mapping[str, type]) -> Callable[[], list[Entry]]:
    return lambda: [_entry(cls) for cls in registry.values()]


def _losses() -> list[Entry]:
    return [_entry(cls) for cls in vars(losses).values() if isinstance(cls, type) and issubclass(cls, nn.Module)]


def _degradations() -> list[Entry]:
    papers = {"dasr": "DASR", "crl": "CRL-SR"}
    return [
        Entry(family, papers.get(family.partition("-")[0], ""), describe_presets(names))
        for family, names in preset_families().items()
    ]


KINDS: Mapping[str, Kind] = {
    "methods": Kind("type of an entry of `methods`", _registered(METHODS)),
    "losses": Kind("in contrastive_sr.losses", _losses),
    "embeddings": Kind("type of a method's `embedding`", _registered(EMBEDDINGS)),
    "samples": Kind("type of an entry of a method's `positives` or `negatives`", _registered(SAMPLES)),
    "criteria": Kind(
        "type of CriaCL's `anchor`, and of its `positives`, `negatives`, `sr_criteria`", _registered(CRITERIA)
    ),
    "networks": Kind("SR networks that the papers bring", _registered(NETWORKS)),
    "degradations": Kind("presets; their names end in the scale, such as dasr-isotropic-x4", _degradations),
}
"""Each kind by its name, in the order of interest."""


def find_kind(name: str) -> Kind:
    """One of :data:`KINDS`.

    Raises:
        ConfigError: there is no kind of this name.

    Example:
        >>> [entry.name for entry in find_kind("samples").entries()][:2]
        ['GaussianBlur', 'HighResolution']
    """
    if name not in KINDS:
        raise ConfigError(f"list: {unknown('kind', name, list(KINDS))}")
    return KINDS[name]
