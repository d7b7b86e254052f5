"""Pages of docs: their Python runs, their configs build, their links lead somewhere, and each loss has a figure."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from contrastive_sr import functional, losses
from contrastive_sr.hosts.basicsr.options import OptionLoader
from contrastive_sr.methods import METHODS, build_methods

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LOSS_PAGES = sorted((DOCS / "losses").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def page_name(page: Path) -> str:
    """A page's path below docs."""
    return page.relative_to(DOCS).as_posix()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_losses", DOCS / "draw_losses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page_name(page)}, block {number + 1}", "exec"), namespace)
    if "model" in namespace:  # the block for MMagic
        build_methods(namespace["model"]["methods"])


@pytest.mark.parametrize("page", LOSS_PAGES, ids=page_name)
def test_methods_of_a_page_build(page: Path) -> None:
    configs = [yaml.load(text, OptionLoader) for text in blocks(page, "yaml")]
    for config in configs:
        assert len(build_methods(config["methods"])) == len(config["methods"])
    text = page.read_text()
    if "There is no method for it yet" in text:
        assert not configs
        assert "model = dict(" not in text
    else:
        assert configs
        assert "model = dict(" in text


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_loss_has_a_page_and_every_page_a_figure(script: ModuleType) -> None:
    assert set(script.FIGURES) == {page.stem for page in LOSS_PAGES}
    for page in LOSS_PAGES:
        assert f"](../figures/{page.stem}.png)" in page.read_text()
        assert (DOCS / "figures" / f"{page.stem}.png").stat().st_size < 40_000
    text = "\n".join(page.read_text() for page in LOSS_PAGES)
    names = {*functional.__all__, *losses.__all__, *METHODS} - {"EmbeddedNCE", "embedded_nce", "haar_high_bands"}
    assert not [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)]


def test_the_index_lists_every_page() -> None:
    text = (DOCS / "README.md").read_text()
    assert not [page for page in map(page_name, PAGES) if f"]({page})" not in text and page != "README.md"]


@pytest.mark.parametrize("name", ["info_nce", "criteria", "dual_contrastive"])
def test_figures_are_drawn(script: ModuleType, name: str) -> None:
    figure = script.FIGURES[name]()
    assert len(figure.axes) == 2
    assert all(axes.get_title() for axes in figure.axes)
