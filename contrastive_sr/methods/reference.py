"""What `methods:` and `degradation:` of a config may hold, read off the classes: a JSON schema, and a page."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from torch import nn

from contrastive_sr.criteria import CRITERIA
from contrastive_sr.degradations import PRESETS, Degradation
from contrastive_sr.degradations.kernels import KERNELS, Kernel
from contrastive_sr.embeddings import EMBEDDINGS, Embedding
from contrastive_sr.methods.registry import METHODS
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES, SampleGenerator

Schema = dict[str, Any]

_CLASSES: Mapping[str, Mapping[str, type]] = {
    "method": METHODS,
    "embedding": EMBEDDINGS,
    "sample": SAMPLES,
    "criterion": CRITERIA,
    "network": NETWORKS,
    "kernel": KERNELS,
}
_OF_HOSTS = ("criterion", "network")  # kinds of which a host has classes of its own
_BASES: Mapping[type, str] = {Embedding: "embedding", SampleGenerator: "sample", Kernel: "kernel"}
_SIMPLE: Mapping[object, tuple[str, str]] = {
    bool: ("boolean", "true or false"),
    int: ("integer", "whole number"),
    float: ("number", "number"),
    str: ("string", "text"),
    Path: ("string", "file"),
    type(None): ("null", "none"),
}


class Parameter(NamedTuple):
    """One key of a config.

    Attributes:
        name: the key.
        words: what it takes, in words.
        schema: what it takes, as a JSON schema.
        text: what it is, from the docstring, in Markdown.
        default: its default; :data:`inspect.Parameter.empty` if there is none.
    """

    name: str
    words: str
    schema: Schema
    text: str
    default: Any


def plain(text: str) -> str:
    """Text of a docstring without what Sphinx makes links and formulas of, in Markdown.

    Example:
        >>> plain("see :class:`~contrastive_sr.methods.PCL`, ``loss_weight``")
        'see `PCL`, `loss_weight`'
    """
    text = re.sub(r":math:`([^`]*)`", r"\1", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def summary_of(cls: type) -> str:
    """The first line of a class's docstring, in Markdown."""
    return plain(inspect.cleandoc(cls.__doc__ or "").partition("\n")[0])


def parameters_of(cls: type) -> list[Parameter]:
    """The keys of a class's configs, in the order of its constructor."""
    constructor: Any = cls.__init__  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(constructor)
    except NameError:  # of a class of one's own, whose annotations are for type checkers alone
        hints = {}
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts.update(_arguments(base.__doc__ or ""))
    found = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = hints.get(name, Any)
        found.append(Parameter(name, _words(hint), _schema(hint), texts.get(name, ""), parameter.default))
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """What a docstring's "Args:" says of each argument."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(docstring), re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1], re.M | re.S) if section else []
    return {name: plain(" ".join(text.split())) for name, text in entries}


def _choices(hint: Any) -> list[Any]:
    """The members of a union; of any other type itself."""
    return list(get_args(hint)) if isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union else [hint]


def _kind(hint: Any) -> str | None:
    """What a mapping of this type configures, e.g. an embedding; None for a mapping of another kind, or no mapping."""
    members = _choices(hint)
    if nn.Module in members:
        return "criterion" if str in members else "network"
    return next((kind for base, kind in _BASES.items() if base in members), None)


def _schema(hint: Any) -> Schema:
    kind = _kind(hint)
    schemas: list[Schema] = []
    for member in _choices(hint):
        origin = get_origin(member)
        if member in _SIMPLE:
            schemas.append({"type": _SIMPLE[member][0]})
        elif origin is Literal:
            schemas.append({"enum": list(get_args(member))})
        elif origin is tuple:
            count = len(get_args(member))  # all of one type
            schemas.append(
                {"type": "array", "items": _schema(get_args(member)[0]), "minItems": count, "maxItems": count}
            )
        elif origin is Sequence:
            schemas.append({"type": "array", "items": _schema(get_args(member)[0])})
        elif origin is Mapping:
            schemas.append({"$ref": f"#/definitions/{kind}"} if kind else {"type": "object"})
        elif member is Any:
            return {}
    names = [name for schema in schemas if list(schema) == ["type"] for name in [schema["type"]]]
    if len(names) == len(schemas):
        names = list(dict.fromkeys(names))
        return {"type": names[0] if len(names) == 1 else names}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _words(hint: Any) -> str:
    kind, members = _kind(hint), _choices(hint)
    words = []
    for member in members:
        origin = get_origin(member)
        if member is str and Path in members:
            continue
        if member is not type(None) and member in _SIMPLE:
            words.append("its name" if member is str and kind else _SIMPLE[member][1])
        elif origin is Literal:
            words.append(", ".join(f"`{choice}`" for choice in get_args(member)))
        elif origin is tuple:
            words.append(f"{len(get_args(member))} numbers")
        elif origin is Sequence:
            words.append(f"list: {_words(get_args(member)[0])}")
        elif origin is Mapping:
            words.append(f"[{kind}](#{_PLURALS[kind].lower()})" if kind else "mapping")
    return " or ".join(words) + (", or none" if type(None) in members else "")


# ------------------------------------------------------------------------------------------------------- schema


def _plain_default(value: Any) -> Any:
    """A default as JSON has it; :data:`inspect.Parameter.empty` for one that it cannot say."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return inspect.Parameter.empty


def _class_schema(cls: type, types_: Sequence[str], extra: Mapping[str, Schema] | None = None) -> Schema:
    properties: dict[str, Schema] = {"type": {"enum": list(types_)}, **(extra or {})}
    required = ["type"]
    for parameter in parameters_of(cls):
        # beside a reference draft 7 reads nothing else
        taken = {"allOf": [parameter.schema]} if "$ref" in parameter.schema else parameter.schema
        schema = {**taken, "description": parameter.text}
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
        elif (default := _plain_default(parameter.default)) is not inspect.Parameter.empty:
            schema["default"] = default
        properties[parameter.name] = schema
    any_key = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    return {
        "type": "object",
        "description": summary_of(cls),
        "properties": properties,
        "required": required,
        "additionalProperties": any_key,
    }


def schema_of_methods() -> Schema:
    """The JSON schema (draft 7, which editors know) of a list of methods."""
    return {"type": ["array", "null"], "items": {"$ref": "#/definitions/method"}}


def schema_of_degradation() -> Schema:
    """The JSON schema of a degradation: a preset's name, with or without its scale, or a mapping."""
    names = list(dict.fromkeys(name for preset in PRESETS for name in (preset, re.sub(r"-x\d+$", "", preset))))
    return {"anyOf": [{"enum": names}, _class_schema(Degradation, ["Degradation", *names])]}


def definitions() -> dict[str, Schema]:
    """What the two schemas refer to: a schema for each kind of class, by its ``type``."""
    named = {"criterion": {"name": {"type": "string", "description": "its name in the log"}}}
    made = {}
    for kind, classes in _CLASSES.items():
        known = {"enum": list(classes)}
        made[kind] = {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"anyOf": [known, {"type": "string"}]} if kind in _OF_HOSTS else known},
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                    "then": _class_schema(cls, [name], named.get(kind)),
                }
                for name, cls in classes.items()
            ],
        }
    return made


# --------------------------------------------------------------------------------------------------------- page

_PLURALS = {
    "method": "Methods",
    "embedding": "Embeddings",
    "sample": "Samples",
    "criterion": "Criteria",
    "network": "Networks",
    "kernel": "Kernels",
}
_PLACES = {
    "method": "An entry of `methods:`.",
    "embedding": "A method's `embedding`, and the `discriminator` of the criterion `Adversarial`.",
    "sample": "An entry of a method's `positives` or `negatives`.",
    "criterion": "`CriaCL`'s criteria and that of `CriterionTerm`: one of these, or a loss of the host in use.",
    "network": "SR networks: one of these, or a network of the host in use.",
    "kernel": "A degradation's `kernel`.",
}


def page() -> str:
    """All of it as tables in Markdown, with a heading for each kind and each class."""
    lines = ["## Degradation", "", "`degradation:`, unless it is a preset's name.", "", *_table(Degradation)]
    for kind, classes in _CLASSES.items():
        lines += [f"## {_PLURALS[kind]}", "", _PLACES[kind], ""]
        for name, cls in classes.items():
            lines += [f"### {name}", "", summary_of(cls), "", *_table(cls)]
    return "\n".join(lines)


def _table(cls: type) -> list[str]:
    rows = [
        f"| `{key.name}` | {key.words} | {_default(key.default)} | {key.text.replace('|', chr(92) + '|')} |"
        for key in parameters_of(cls)
    ]
    return ["| key | takes | default | |", "|---|---|---|---|", *rows, ""] if rows else ["No keys.", ""]


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "needed"
    said = _plain_default(value)
    return "" if said is inspect.Parameter.empty else f"`{_in_yaml(said)}`"


def _in_yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_in_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_yaml, value)) + "]"
    return value if isinstance(value, str) and value else json.dumps(value)
