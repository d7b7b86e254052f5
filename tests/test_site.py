"""The documentation as a site: built strictly, complete, and in need of no network."""

from __future__ import annotations

import html.parser
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
import yaml
from playwright.sync_api import sync_playwright

import contrastive_sr

PROJECT = Path(__file__).resolve().parents[1]
MODULES = (
    "functional",
    "losses",
    "embeddings",
    "samples",
    "degradations",
    "networks",
    "criteria",
    "data",
    "methods",
    "evaluation",
    "hosts.mmagic",
)


class Page(html.parser.HTMLParser):
    """What a page loads, where its links lead, and the places in it that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value for key, value in attrs if value is not None}
        self.formulas += tag == "math"
        if "id" in found:
            self.places.add(found["id"])
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and "href" in found and found.get("rel") not in ("next", "prev", "index", "search"):
            self.loads.append(found["href"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    recipe = (PROJECT / "Makefile").read_text()
    arguments = re.search(r"-m (sphinx .*) -d build/doctrees \. build/site", recipe)
    assert arguments is not None
    command = [sys.executable, "-m", *arguments[1].split(), "-d", str(folder / "doctrees"), ".", str(folder / "site")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 40
    for path, page in pages.items():
        for target in page.loads:
            assert not urlsplit(target).scheme, (path, target)
            assert (path.parent / unquote(urlsplit(target).path)).is_file(), (path, target)
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), style
    font = (site / "_static/math.ttf").stat().st_size
    assert 100_000 < font < 1_000_000


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert "url=docs/README.html" in (site / "index.html").read_text()
    for path, page in pages.items():
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert file.is_file(), (path, target)
            if parts.fragment and file in pages and not file.is_relative_to(site / "_modules"):
                assert unquote(parts.fragment) in pages[file].places, (path, target)


def test_no_two_pages_have_one_title_and_all_have_version_and_copy_buttons(site: Path) -> None:
    titles: list[str] = []
    for path in [*site.rglob("*.html")]:
        text = path.read_text()
        titles += re.findall(r"<head>.*?<title>(.*?)</title>", text, re.DOTALL)
        if path.is_relative_to(site / "docs"):
            assert f"version {contrastive_sr.__version__}" in text, path
            assert "_static/copy.js" in text, path
    assert len(titles) > 40
    assert not [title for title in titles if titles.count(title) > 1]


def test_a_button_copies_what_was_typed_and_search_needs_no_server(site: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium was found: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], offline=True)
        page = context.new_page()
        page.goto((site / "docs/api/samples.html").as_uri())
        block = page.locator("div.highlight").first  # an interactive session
        assert ">>> " in block.locator("pre").inner_text()
        block.hover()
        block.get_by_role("button").click()
        page.wait_for_function("navigator.clipboard.readText().then((text) => text !== '')")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("class Dimmed(SampleGenerator):\n    def ")
        assert ">>>" not in copied
        assert "torch.Size" not in copied  # output
        page.goto((site / "search.html").as_uri() + "?q=queue")
        page.locator("#search-results li").nth(3).wait_for()
        browser.close()


def test_losses_stand_below_their_papers(pages: dict[Path, Page], site: Path) -> None:
    links = {path.name for path in pages if path.parent == site / "docs/losses"}
    papers = [site / f"docs/{name}.html" for name in ("pcl", "crl_sr", "dasr", "cria_cl", "mpf_net", "mcl")]
    below = {Path(link).name for paper in papers for link in pages[paper].links if link.startswith("losses/")}
    assert links <= below


def test_every_page_is_in_the_site_and_formulas_are_drawn(site: Path, pages: dict[Path, Page]) -> None:
    for source in [*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")]:
        path = site / source.relative_to(PROJECT).with_suffix(".html")
        text = source.read_text()
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        formulas = text.count("```math") + len(re.findall(r"\$[^$\n]+\$", prose))
        assert pages[path].formulas >= formulas, source


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_has_every_public_name(name: str, site: Path, pages: dict[Path, Page]) -> None:
    module = importlib.import_module(f"contrastive_sr.{name}")
    page = pages[site / "docs/api" / f"{name.rpartition('.')[2]}.html"]
    names = getattr(module, "__all__", None) or [key for key in vars(module) if not key.startswith("_")]
    public = [key for key in names if inspect.isroutine(getattr(module, key)) or inspect.isclass(getattr(module, key))]
    assert public
    missing = [key for key in public if f"contrastive_sr.{name}.{key}" not in page.places]
    assert not missing


def test_the_citation_is_valid_and_has_the_papers() -> None:
    """By the format's own schema, which lies beside as its version 1.2.0 was published (CC-BY-4.0)."""
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    schema = json.loads((PROJECT / "tests/helpers/citation_file_format_1.2.0.json").read_text())
    jsonschema.Draft7Validator(schema).validate(citation)
    assert citation["version"] == contrastive_sr.__version__
    assert f'Repository = "{citation["repository-code"]}"\n' in (PROJECT / "pyproject.toml").read_text()
    names = {reference["notes"] for reference in citation["references"]}
    assert names == {"PCL-SR", "CRL-SR", "DASR", "Cria-CL", "MPF-Net", "Model Contrastive Learning"}
    del citation["references"][0]["title"]
    with pytest.raises(jsonschema.ValidationError, match="'title' is a required property"):
        jsonschema.Draft7Validator(schema).validate(citation)
