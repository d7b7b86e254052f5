"""The JSON schema and the page of keys, both read off the classes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from contrastive_sr.cli.schema import schema
from contrastive_sr.degradations import PRESETS
from contrastive_sr.hosts.basicsr.options import OptionLoader
from contrastive_sr.methods import METHODS, Method
from contrastive_sr.methods.reference import parameters_of


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    content = json.loads(schema())
    jsonschema.Draft7Validator.check_schema(content)
    return jsonschema.Draft7Validator(content)


@pytest.fixture(scope="module")
def script(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_configuration", project / "docs" / "write_configuration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(project: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted((project / "plugins").rglob("*.yml")):
        yield file.name, yaml.load(file.read_text(), OptionLoader)
    for name, config in PRESETS.items():
        yield name, {"degradation": {**config, "type": name}}
        yield name, {"model": {"degradation": config}}


def test_every_option_file_and_preset_fits(validator: jsonschema.Draft7Validator, project: Path) -> None:
    count = 0
    for name, content in blocks(project):
        errors = [
            f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(json.dumps(content)))
        ]
        assert not errors, (name, errors)
        count += "methods" in content
    assert count > 15


@pytest.mark.parametrize(
    "content",
    [
        {"methods": [{"type": "PLC"}]},
        {"methods": [{"loss_share": 0.1}]},
        {"methods": [{"type": "PCL", "los_share": 0.1}]},
        {"methods": [{"type": "PCL", "loss_share": "much"}]},
        {"methods": [{"type": "PCL", "phase": "moving"}]},
        {"methods": [{"type": "PCL", "embedding": {"type": "HaarDiscriminator", "out_indices": 3}}]},
        {"methods": [{"type": "PCL", "negatives": [{"type": "GaussianBlur", "sigma": [1, 2, 3]}]}]},
        {"methods": [{"type": "CriterionTerm"}]},
        {"methods": {"type": "PCL"}},
        {"model": {"methods": [{"type": "PCL", "every": 1.5}]}},
        {"degradation": "dasr-isotopic"},
        {"degradation": {"type": "Degradation", "kernel": {"type": "Isotropic"}}},
        {"degradation": {"type": "dasr-isotropic", "noise": [1]}},
    ],
)
def test_mistakes_are_found(content: Any, validator: jsonschema.Draft7Validator) -> None:
    assert not validator.is_valid(content)


def test_what_hosts_bring_is_accepted(validator: jsonschema.Draft7Validator) -> None:
    teacher = {"type": "TeacherOutput", "network": {"type": "EDSR", "num_feat": 32}, "weights": "x.pth"}
    methods = [
        {"type": "CriterionTerm", "criterion": {"type": "L1Loss", "reduction": "mean"}},
        {"type": "CriterionTerm", "criterion": "SSIM"},
        {"type": "CriterionTerm", "criterion": {"type": "Pixel", "norm": "l2", "name": "square"}},
        {"type": "PCL", "positives": [teacher], "loss_weight": None},
    ]
    validator.validate({"methods": methods, "degradation": "dasr-isotropic", "name": "of the host"})


def test_every_key_is_explained() -> None:
    ours = [cls for cls in METHODS.values() if cls.__module__.startswith("contrastive_sr.")]
    assert len(ours) > 10
    missing = [(cls.__name__, key.name) for cls in ours for key in parameters_of(cls) if not (key.text and key.words)]
    assert not missing


def test_a_class_of_ones_own_without_annotations_or_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Method):
        def __init__(self, strength, **more):  # type: ignore[no-untyped-def]
            super().__init__("mine")

    monkeypatch.setitem(METHODS, "Mine", Mine)
    validator = jsonschema.Draft7Validator(json.loads(schema()))
    validator.validate({"methods": [{"type": "Mine", "strength": [1], "else": 2}]})
    assert not validator.is_valid({"methods": [{"type": "Mine"}]})


def test_the_page_is_up_to_date(script: ModuleType) -> None:
    assert script.PAGE.read_text() == script.text(), "run: python docs/write_configuration.py"
