"""Random mistakes in shipped option files and configs: they are read and checked, or an error of ours says why not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from refused import refusal
from shrink import shrunk

import contrastive_sr.hosts.mmagic as adapter
from contrastive_sr.hosts.basicsr import options as basicsr_options
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.mmagic import runner as mmagic_runner
from tests.hosts.basicsr_options import PROJECT, read_options

FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
JUNK = (
    None,
    True,
    0,
    -1,
    0.5,
    1e308,
    float("nan"),
    10**400,
    "",
    "1e-4",
    "nowhere",
    [],
    {},
    [None],
    [[]],
    {"type": 1},
    {1: 2},
)
NAMES = ("demo_pcl_edsr", "demo_pcl_gan_rrdb", "demo_dasr_x4", "demo_cria_rrdb_x4")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every entry, at all depths."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def with_mistake(content: Any, seed: int, junk: object) -> tuple[Any, Any]:
    """A copy with one entry replaced by junk, missing, or under a misspelt key; and the key."""
    chance = random.Random(seed)
    content = deepcopy(content)
    *parents, key = chance.choice(sorted(places(content), key=repr))
    place = content
    for parent in parents:
        place = place[parent]
    how = chance.choice(["junk", "junk", "missing", "misspelt"])
    if how == "junk" or isinstance(place, list):
        place[key] = junk
    else:
        value = place.pop(key)
        if how == "misspelt":
            place[f"{key}x"] = value
    return content, key


@pytest.fixture(scope="module")
def folder(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that holds the data that the demos name."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "datasets").mkdir()
    (folder / "datasets/demo").symlink_to(demo_data)
    return folder


# -------------------------------------------------------------------------------------------------------------- BasicSR


@pytest.mark.basicsr
@pytest.mark.parametrize("name", NAMES)
def test_an_option_file_with_a_mistake(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked as ``contrastive-sr train`` does before BasicSR reads it."""
    monkeypatch.chdir(folder)
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    registries = import_basicsr("basicsr.utils.registry")
    models, networks = (
        [name.removesuffix("_basicsr") for name, _ in registry]
        for registry in (registries.MODEL_REGISTRY, registries.ARCH_REGISTRY)
    )
    good = read_options(name)
    basicsr_options.check_options(good, models, networks)

    @settings(FUZZ, max_examples=250)
    @given(st.integers(0, 2**32), st.sampled_from(JUNK))
    def check(seed: int, junk: object) -> None:
        bad, _ = with_mistake(good, seed, junk)
        message = refusal(basicsr_options.check_options, bad, models, networks)
        assert message is None or len(message) > 20

    check()


CHARACTERS = "\n\t :-[]{}#&*!|>'\"%@`~,?\0ü0."


@pytest.mark.basicsr
@pytest.mark.parametrize("name", NAMES)
def test_an_option_file_with_wrong_letters(name: str, tmp_path: Path) -> None:
    text = (PROJECT / "plugins" / f"{name}.yml").read_text()
    path = tmp_path / "options.yml"

    @settings(FUZZ, max_examples=60)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        chance = random.Random(seed)
        letters = list(text)
        for _ in range(chance.choice([1, 3, 30])):
            place = chance.randrange(len(letters))
            letters[place : place + chance.choice([0, 1, 10])] = chance.choice(CHARACTERS)
        path.write_text("".join(letters))
        message = refusal(basicsr_options.read_options, path)
        assert message is None or len(message) > 20

    check()


@pytest.mark.basicsr
@pytest.mark.parametrize(
    "line",
    [
        "lr: !!float fast",
        "lr: !!int many",
        "day: 2026-99-99",
        "[a, b]: 1",
        "a: !!binary ü",
        "deep: " + "[" * 3000,
        "long: " + "9" * 5000,
        "a: &a [*a]",
        "a: *b",
        "? {a: 1}\n: 2",
    ],
)
def test_yaml_that_no_reader_expects(line: str, tmp_path: Path) -> None:
    path = tmp_path / "options.yml"
    path.write_text(f"name: x\n{line}\n")
    message = refusal(basicsr_options.read_options, path)
    assert message is None or "options.yml" in message or "line" in message


# --------------------------------------------------------------------------------------------------------------- MMagic


@pytest.mark.mmagic
@pytest.mark.parametrize("name", NAMES)
def test_a_config_with_a_mistake(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Checked as ``contrastive-sr train`` does before MMagic reads it."""
    monkeypatch.chdir(folder)
    adapter.registry.use_names()
    config = Config.fromfile(helpers.CONFIGS / f"{name}.py").to_dict()
    good = {key: shrunk(config[key]) for key in ("model", "val_dataloader")}
    path = tmp_path / "config.py"

    @settings(FUZZ, max_examples=40)
    @given(st.integers(0, 2**32), st.sampled_from(JUNK))
    def check(seed: int, junk: object) -> None:
        bad, _ = with_mistake(good, seed, junk)
        path.write_text("nan = float('nan')\n" + "".join(f"{key} = {value!r}\n" for key, value in bad.items()))
        message = refusal(mmagic_runner.check_config, path)
        assert message is None or len(message) > 20

    check()
