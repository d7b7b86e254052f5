"""`contrastive-sr list`: all that configs can name, each with its paper and the first line of its docstring."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from contrastive_sr import losses
from contrastive_sr.cli.app import COMPARING, app
from contrastive_sr.cli.catalogue import print_catalogue
from contrastive_sr.criteria import CRITERIA
from contrastive_sr.degradations import PRESETS, preset_families
from contrastive_sr.embeddings import EMBEDDINGS
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods import METHODS
from contrastive_sr.methods.catalogue import KINDS, PAPERS
from contrastive_sr.networks import NETWORKS
from contrastive_sr.samples import SAMPLES

REGISTRIES = {
    "methods": METHODS,
    "embeddings": EMBEDDINGS,
    "samples": SAMPLES,
    "criteria": CRITERIA,
    "networks": NETWORKS,
}
OF_NO_PAPER = {"TimmFeatures", "random-field", "CriterionTerm", "MSSSIM", "PeriodicPattern"}

OWN = '''
"""Mine."""
from contrastive_sr.embeddings import Embedding, HaarDiscriminator, register_embedding


@register_embedding
class ListedEdges(Embedding):
    """Edges [of mine], by :class:`~contrastive_sr.embeddings.VGGFeatures` with ``weights``.

    More.
    """

    paper = "Doe 2026"


@register_embedding
class ListedWide(HaarDiscriminator):
    pass
'''


@pytest.fixture
def own_embeddings() -> Iterator[None]:
    before = dict(EMBEDDINGS)
    yield
    EMBEDDINGS.clear()
    EMBEDDINGS.update(before)
    sys.modules.pop("own_parts_to_list", None)


def printed(kind: str | None = None, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    print_catalogue(kind, console)
    return console.export_text()


def test_everything_of_ours_is_there_with_its_paper() -> None:
    for name, kind in KINDS.items():
        entries = kind.entries()
        names = [entry.name for entry in entries]
        if name in REGISTRIES:
            ours = [n for n, cls in REGISTRIES[name].items() if cls.__module__.startswith("contrastive_sr.")]
            assert set(ours) <= set(names)
            entries = [entry for entry in entries if entry.name in ours]  # other tests may have registered theirs
        for entry in entries:
            papers = entry.paper.split(", ") if entry.paper else []
            assert set(papers) <= set(PAPERS), entry
            assert bool(papers) == (entry.name not in OF_NO_PAPER), entry
            assert len(entry.summary) > 20, entry
            assert not re.search("``|:[a-z]+:`", entry.summary), entry
    assert {entry.name for entry in KINDS["losses"].entries()} == {n for n in vars(losses) if n.endswith("Loss")}
    assert sorted(name for names in preset_families().values() for name in names) == sorted(PRESETS)


def test_papers_are_those_to_cite(project: Path) -> None:
    references = yaml.safe_load((project / "CITATION.cff").read_text())["references"]
    assert [reference["notes"] for reference in references] == list(PAPERS)
    for reference in references:
        text = PAPERS[reference["notes"]]
        assert text.startswith(reference["title"])
        for identifier in reference.get("identifiers", []):
            assert text.endswith(identifier["value"].replace(":", " "))


@pytest.mark.parametrize("width", [80, 44])
def test_nothing_is_cut_off_on_a_narrow_screen(width: int) -> None:
    text = printed(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    if width == 80:  # narrower, long names are broken
        names = [entry.name for kind in KINDS.values() for entry in kind.entries()]
        assert not [name for name in names if not re.search(rf"^{re.escape(name)} ", text, re.MULTILINE)]
    words = re.sub(r"\s+", "", text)
    for kind in KINDS:
        assert f"{kind}:" in words


def test_samples_offers_what_it_has_something_to_draw_of() -> None:
    ours = {name for name, cls in METHODS.items() if cls.__module__.startswith("contrastive_sr.")}
    assert set(COMPARING) == ours - {"TrueKernel"}  # which test_look.py tries


def test_one_kind() -> None:
    text = printed("samples", width=200)
    assert re.search(
        r"^Sharpen +PCL-SR +HR images with a random excess of detail \(PCL-SR eq\. 5\)\.", text, re.MULTILINE
    )
    assert re.search(r"^GaussianBlur +PCL-SR, MPF-Net +HR", text, re.MULTILINE)
    assert "VGGFeatures" not in text
    assert re.findall(r"^([\w-]+)  +[A-Z].*\w *$", text, re.MULTILINE)[-2:] == [
        "PCL-SR",
        "MPF-Net",
    ]  # and no other paper
    assert "crl-isotropic" in printed("degradations")
    with pytest.raises(ConfigError, match=r"list: does not know the kind 'loss'\. Did you mean 'losses'\? Accepted: m"):
        printed("loss")


@pytest.mark.usefixtures("own_embeddings")
def test_ones_own_are_listed_too(tmp_path: Path) -> None:
    file = tmp_path / "own_parts_to_list.py"
    file.write_text(OWN)
    done = CliRunner().invoke(app, ["list", "embeddings", "--import", str(file)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert re.search(r"ListedEdges +Doe 2026 +Edges \[of mine\], by VGGFeatures with weights\.", done.output)
    assert re.search(r"ListedWide +PCL-SR", done.output)  # as what it is made of
    help_text = re.sub(r"\W+", " ", CliRunner().invoke(app, ["list", "--help"], env={"COLUMNS": "200"}).output)
    assert " ".join(KINDS) in help_text
