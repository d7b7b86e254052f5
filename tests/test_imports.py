"""The core needs torch and numpy alone and leaves the hosts alone, and the layers' imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = ["functional", "losses", "embeddings", "samples", "degradations", "networks", "criteria", "data", "methods"]
CORE += ["data.prepare", "data.demo", "config", "distributed", "errors"]
FOREIGN = ["basicsr", "mmengine", "mmagic", "mmcv", "rich", "typer", "yaml", "torchvision", "timm", "PIL", "cv2"]
FOREIGN += ["torchmetrics", "lmdb", "skimage"]
ORDER = (
    ("errors", "_install"),
    ("_checks", "_json", "_random", "config"),
    ("functional",),
    ("distributed",),
    ("losses", "embeddings", "samples", "degradations", "networks", "criteria", "data"),
    ("methods",),
    ("evaluation",),
    ("hosts",),
    ("cli", "__main__"),
)
"""The layers: each imports those before it and its own alone."""
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}

SCRIPT = """
import sys
import torch, numpy
before = set(sys.modules)
import contrastive_sr
print(*sorted(set(sys.modules) - before))
for name in sys.argv[1].split(","):
    __import__(f"contrastive_sr.{name}")
print(*sorted(set(sys.modules) - before))
"""


def test_core_imports_no_host_and_no_extra(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(CORE)], cwd=project, capture_output=True, text=True, check=True
    )
    package, core = (set(line.split()) for line in done.stdout.splitlines())
    assert package == {"contrastive_sr"}  # the package itself costs nothing
    assert {f"contrastive_sr.{name}" for name in CORE} <= core
    assert not {name.partition(".")[0] for name in core} & set(FOREIGN)
    assert not [name for name in core if name.startswith(("contrastive_sr.hosts", "contrastive_sr.cli"))]


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, also inside its functions and for type checkers."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: expected an absolute import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def layer_of(name: str) -> str | None:
    """The layer of a module of the package; None for others and for the package itself."""
    package, *parts = name.split(".")
    return parts[0] if package == "contrastive_sr" and parts and parts[0] != "__version__" else None


def test_every_module_has_a_layer(project: Path) -> None:
    package = project / "contrastive_sr"
    names = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert names - {"__init__"} <= set(LEVELS)


@pytest.mark.parametrize("layer", LEVELS)
def test_imports_go_one_way(layer: str, project: Path) -> None:
    """Layers between the same arrows do import each other: a method's embedding has weights, a criterion features."""
    place = project / "contrastive_sr" / layer
    wrong = [
        f"{file.relative_to(project)}:{line} imports {name}"
        for file in (place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")])
        if file.exists()
        for line, name in imported(file)
        if (other := layer_of(name)) is not None and LEVELS[other] > LEVELS[layer]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", [name for name, level in LEVELS.items() if level < LEVELS["cli"]])
def test_no_library_module_prints_or_parses(layer: str, project: Path) -> None:
    """The command line's packages are imported by cli alone, and rich by the hosts' progress bar."""
    place = project / "contrastive_sr" / layer
    wrong = [
        f"{file.relative_to(project)}:{line} imports {name}"
        for file in place.rglob("*.py")
        if file.relative_to(place).as_posix() != "progress.py" or layer != "hosts"
        for line, name in imported(file)
        if name.split(".")[0] in ("rich", "typer")
    ]
    assert not wrong, "\n".join(wrong)


def test_benchmarks_do_library_work_without_the_command_line(project: Path) -> None:
    wrong = [
        f"{file.relative_to(project)}:{line} imports {name}"
        for file in (project / "benchmarks").rglob("*.py")
        for line, name in imported(file)
        if layer_of(name) == "cli"
    ]
    assert not wrong, "\n".join(wrong)
