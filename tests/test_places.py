"""How many places a new class of each kind touches: its own file, one line of its package's ``__init__``, its test.

Configs, messages and the reference then have it with nothing else changed.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import places
import pytest

from contrastive_sr.config import Registry
from contrastive_sr.criteria import CRITERIA
from contrastive_sr.embeddings import EMBEDDINGS
from contrastive_sr.methods import METHODS
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES

PROJECT = Path(__file__).resolve().parents[1]
REGISTRIES: dict[str, Registry[object]] = {  # type: ignore[assignment]
    "embeddings": EMBEDDINGS,
    "samples": SAMPLES,
    "criteria": CRITERIA,
    "networks": NETWORKS,
    "methods": METHODS,
}


class Added(NamedTuple):
    """A class that someone adds to the library.

    Attributes:
        file: its file.
        code: what is in there.
        line: the line that its package's ``__init__`` gets.
        test: its test.
        try_it: code that builds it by its name, and prints the name.
        constant: what its test says for the tests that try random mistakes or tensors.
        checks: tests of the repository that are about all of its kind, and have to see it.
    """

    file: str
    code: str
    line: str
    test: str
    try_it: str
    constant: str = ""
    checks: str = ""

    @property
    def package(self) -> str:
        return self.file.split("/")[1]


ADDED = {
    "Grey": Added(
        "contrastive_sr/embeddings/grey.py",
        '''"""The image without its colours."""

from torch import Tensor

from contrastive_sr.embeddings.base import EMBEDDINGS, Embedding


@EMBEDDINGS.register
class Grey(Embedding):
    """The mean of the colours."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images.mean(1, keepdim=True)]
''',
        "from contrastive_sr.embeddings.grey import Grey as Grey\n",
        "tests/embeddings/test_grey.py",
        """
from contrastive_sr.methods import build_methods
(method,) = build_methods([{"type": "PCL", "loss_weight": 1.0, "embedding": {"type": "Grey"}}])
print(type(method.embedding).__name__)
""",
    ),
    "Mirrored": Added(
        "contrastive_sr/samples/mirrored.py",
        '''"""The HR image, left and right swapped."""

import torch
from torch import Tensor

from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator


@SAMPLES.register
class Mirrored(SampleGenerator):
    """The mirrored HR image."""

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        return batch["hr"].flip(-1)[:, None]
''',
        "from contrastive_sr.samples.mirrored import Mirrored as Mirrored\n",
        "tests/samples/test_mirrored.py",
        """
from contrastive_sr.methods import build_methods
(method,) = build_methods([{"type": "PCL", "loss_weight": 1.0, "negatives": [{"type": "Mirrored"}]}])
print(type(method.negatives[0]).__name__)
""",
    ),
    "Brightness": Added(
        "contrastive_sr/methods/brightness.py",
        '''"""The mean of the SR image should be that of the HR image."""

from contrastive_sr.losses import Contrast
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch


@register_method
class Brightness(Method):
    """Difference of the means."""

    def __init__(self, *, loss_share: float | None = None, name: str = "brightness") -> None:
        super().__init__(name, weights={"mean": TermWeight(f"{name}_mean", share=loss_share)})

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        return {"mean": Contrast((batch["sr"].mean() - batch["hr"].mean()).square())}
''',
        "from contrastive_sr.methods.brightness import Brightness as Brightness\n",
        "tests/methods/test_brightness.py",
        """
from contrastive_sr.methods import build_methods
(method,) = build_methods([{"type": "Brightness", "loss_share": 0.1}])
print(type(method).__name__)
""",
        'SMALL = {"Brightness": {"loss_share": 0.1}}\n',
        "tests/test_fuzz_config.py::test_every_method_is_here",
    ),
    "MeanLoss": Added(
        "contrastive_sr/losses/mean.py",
        '''"""The square of a mean."""

from torch import Tensor, nn

from contrastive_sr.losses.contrast import Contrast


class MeanLoss(nn.Module):
    """The squared mean of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return self.contrast(x).loss

    def contrast(self, x: Tensor) -> Contrast:
        return Contrast(x.mean().square())
''',
        "from contrastive_sr.losses.mean import MeanLoss as MeanLoss\n",
        "tests/losses/test_mean.py",
        """
from contrastive_sr import losses
print(losses.MeanLoss.__name__)
""",
        'FUZZ = {"MeanLoss": lambda source: MeanLoss()(source(3))}\n',
        "tests/test_fuzz_losses.py::test_nothing_public_is_left_out",
    ),
}
REGISTERED = [name for name, added in ADDED.items() if added.package in places.REGISTRIES]


def python(root: Path, *arguments: str) -> str:
    """What Python prints, run in the root of a copy of the repository."""
    paths = os.pathsep.join((str(root), str(PROJECT / "tests/helpers")))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout.strip()


def copy_of_the_repository(root: Path) -> Path:
    """The library, the tests, and of the docs what the reference is made of."""
    without = shutil.ignore_patterns("__pycache__")
    for folder in ("contrastive_sr", "tests", "docs/api", "docs/_static", "docs/_site", "docs/_templates"):
        shutil.copytree(PROJECT / folder, root / folder, ignore=without)
    for file in ("docs/conf.py", "docs/README.md", "pyproject.toml"):
        shutil.copy(PROJECT / file, root / file)
    return root


def add(root: Path, name: str) -> None:
    """Write a class's file, its line and its test."""
    added = ADDED[name]
    (root / added.file).write_text(added.code)
    with (root / f"contrastive_sr/{added.package}/__init__.py").open("a") as init:
        init.write(added.line)
    (root / added.test).write_text(f"from contrastive_sr.{added.package} import {name}\n\n{added.constant}")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with all of ``ADDED``."""
    root = copy_of_the_repository(tmp_path_factory.mktemp("extended"))
    for name in ADDED:
        add(root, name)
    return root


ASK = """
import contextlib, importlib, io, json, sys
from contrastive_sr.config import build

built, messages = {}, {}
for name, (code, package, registry) in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    built[name] = printed.getvalue().strip()
    if registry:
        try:
            build(getattr(importlib.import_module(package), registry), {"type": f"{name}x"}, "here")
        except ValueError as error:
            messages[name] = str(error)
print(json.dumps([built, messages]))
"""


@pytest.fixture(scope="module")
def asked(extended: Path) -> tuple[dict[str, str], dict[str, str]]:
    """By class what ``try_it`` prints, and what a misspelt name is told; in one process, since each imports torch."""
    classes = {
        name: (added.try_it, f"contrastive_sr.{added.package}", places.REGISTRIES.get(added.package, (None,))[0])
        for name, added in ADDED.items()
    }
    built, messages = json.loads(python(extended, "-c", ASK, json.dumps(classes)))
    return built, messages


@pytest.mark.parametrize("name", ADDED)
def test_configs_can_name_it(name: str, asked: tuple[dict[str, str], dict[str, str]]) -> None:
    assert asked[0][name] == name


@pytest.mark.parametrize("name", REGISTERED)
def test_messages_list_it(name: str, asked: tuple[dict[str, str], dict[str, str]]) -> None:
    message = asked[1][name]
    assert f"Did you mean '{name}'?" in message
    assert name in message.partition("Accepted: ")[2]


@pytest.mark.long
@pytest.mark.mmagic
@pytest.mark.basicsr
def test_the_reference_has_it(extended: Path) -> None:
    """Made by the settings of the docs, which import both hosts."""
    python(extended, "-m", "sphinx", "-q", "-b", "html", "-c", "docs", "-d", "doctrees", ".", "site")
    for name, added in ADDED.items():
        page = (extended / f"site/docs/api/{added.package}.html").read_text()
        assert f'id="contrastive_sr.{added.package}.{name}"' in page


def test_nothing_is_missing(extended: Path) -> None:
    assert places.gaps(PROJECT) == []
    assert json.loads(python(extended, "-m", "places")) == []


def test_checks_of_a_whole_kind_have_it(extended: Path, tmp_path: Path) -> None:
    """And fail where its test lacks the constant."""
    checked = {name: added for name, added in ADDED.items() if added.checks}
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *(added.checks for added in checked.values()))
    assert f"{len(checked)} passed" in python(extended, *command)
    root = copy_of_the_repository(tmp_path)
    for name, added in checked.items():
        add(root, name)
        (root / added.test).write_text("")
    with pytest.raises(AssertionError, match=f"{len(checked)} failed"):
        python(root, *command)


def test_what_is_missing_is_noticed(tmp_path: Path) -> None:
    """Files alone; then, with their lines, the files without the decorators and the tests."""
    root, these = copy_of_the_repository(tmp_path), {name: ADDED[name] for name in REGISTERED}

    def noticed() -> list[str]:
        return sorted(json.loads(python(root, "-m", "places")))

    for added in these.values():
        (root / added.file).write_text(added.code)
    assert noticed() == sorted(
        f"{name} is in a file that contrastive_sr.{added.package} does not import." for name, added in these.items()
    )
    for name, added in these.items():
        add(root, name)
        (root / added.test).unlink()
    assert noticed() == sorted(f"{name} has no test in tests/{added.package}." for name, added in these.items())
    for added in these.values():
        plain = "\n".join(line for line in added.code.split("\n") if not line.startswith("@"))
        (root / added.file).write_text(plain)
    modules = {name: added.file.removesuffix(".py").replace("/", ".") for name, added in these.items()}
    assert noticed() == sorted(f"{name} of {module} is in no registry." for name, module in modules.items())


# Files beside a class's own and its package's __init__ that name it, since they cannot do without this very class.
# Methods and losses choose the classes that their papers have, and are not listed.
REALLY_USED = {
    "embeddings.HaarDiscriminator": {"hosts/subjects.py"},  # to look at a method, an embedding that needs no weights
    "embeddings.RGBDiscriminator": {"criteria/adversarial.py"},  # the default discriminator
    "embeddings.VGGFeatures": {"criteria/vgg.py"},  # whose difference the criterion is
    "criteria.Adversarial": {"criteria/build.py"},  # which cannot be tried on random images
    "methods.PCL": {"hosts/demo.py"},  # which shows this very one
    "networks.DASR": {"hosts/kernels.py"},  # whose variant "oracle" reads kernels
}


def named_in(file: Path, package: str, names: set[str]) -> set[str]:
    """Those of a package's classes that a file imports from it, or has as the ``type`` of a config."""
    named = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"contrastive_sr.{package}."):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "type" and isinstance(value, ast.Constant):
                    named.add(value.value)
    return named & names


@pytest.mark.parametrize("package", REGISTRIES)
def test_no_other_file_names_a_class_without_need(package: str) -> None:
    library = PROJECT / "contrastive_sr"
    names = set(REGISTRIES[package])
    users: dict[str, set[str]] = {name: set() for name in names}
    for file in library.rglob("*.py"):
        place = file.relative_to(library).as_posix()
        if not place.startswith(("methods/", "losses/")) and place != f"{package}/__init__.py":
            for name in named_in(file, package, names):
                users[name].add(place)
    assert users == {name: REALLY_USED.get(f"{package}.{name}", set()) for name in names}
