"""How Sphinx makes the site out of this repository: `make docs`.

Sources are the pages as they stand in the repository, links out of docs/ included, so the source folder is the
repository itself. Nothing is loaded from the network, when the site is built or when it is read.
"""

from __future__ import annotations

import importlib
import logging as std_logging
import sys
from pathlib import Path

import ziamath
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # Sphinx brings it

import contrastive_sr  # noqa: E402 - this repository's, whatever else is installed
from contrastive_sr.hosts.basicsr.host import import_basicsr  # noqa: E402

# the hosts' pages need the hosts, which are imported with some care
import_basicsr("contrastive_sr.hosts.basicsr.plugin")
importlib.import_module("contrastive_sr.hosts.mmagic")

logger = logging.getLogger(__name__)

project = "contrastive-sr"
author = "the contrastive-sr authors"
copyright = "the contrastive-sr authors, Apache-2.0"
version = release = contrastive_sr.__version__

# Every page of the site, by the heading that it stands under in the navigation. Sphinx refuses a page that is missing
# here, and one that is here and does not exist.
NAVIGATION = {
    "Begin": ["install", "tour", "choosing"],
    "Add it to": [
        "trainers",
        "in_basicsr",
        "in_mmagic",
        "in_trainner",
        "in_neosr",
        "own_loop",
        "in_accelerate",
        "in_lightning",
    ],
    "Papers and their losses": ["pcl", "crl_sr", "dasr", "cria_cl", "mpf_net", "mcl"],
    "Guides": [
        "configuration",
        "data",
        "degradations",
        "evaluate",
        "released",
        "study",
        "look",
        "cost",
        "gpu",
        "distributed",
        "troubleshooting",
        "add_a_method",
    ],
    "Measured": ["evidence", "benchmarks", "reliability"],
    "API": [
        "api/functional",
        "api/losses",
        "api/embeddings",
        "api/samples",
        "api/degradations",
        "api/networks",
        "api/criteria",
        "api/data",
        "api/methods",
        "api/evaluation",
        "api/basicsr",
        "api/mmagic",
    ],
    "Project": ["../README", "../CHANGELOG", "../CONTRIBUTING"],
}

# The losses of each paper stand below its page.
LOSSES = {
    "pcl": ["multi_positive_nce", "dual_contrastive"],
    "crl_sr": ["info_nce", "srnce"],
    "dasr": ["queue_nce"],
    "cria_cl": ["criteria"],
    "mpf_net": ["contrastive_regularization"],
    "mcl": ["feature_distance"],
}

root_doc = "docs/README"
_SOURCES = ("docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
exclude_patterns = [path.name for path in PROJECT.iterdir() if path.name not in _SOURCES]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "contrastive-sr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
templates_path = ["_templates"]
html_context = {
    "repository": tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")
}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/about.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_extra_path = ["_site"]  # index.html, which leads to the first page
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2a5d8f", "color-brand-content": "#2a5d8f"},
    "dark_css_variables": {"color-brand-primary": "#8bbcec", "color-brand-content": "#8bbcec"},
}


def add_navigation(app: Sphinx, docname: str, content: list[str]) -> None:
    """Give pages the tables of contents that a code host would show as code."""
    folder = Path(root_doc).parent
    if losses := LOSSES.get(Path(docname).name):
        names = "\n".join(f"/{folder}/losses/{loss}" for loss in losses)
        content[0] += f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    if docname != root_doc:
        return
    for caption, pages in NAVIGATION.items():
        # as seen from the repository, which is what a leading slash means
        names = "\n".join(f"/{(folder / page).as_posix()}".replace("/docs/../", "/") for page in pages)
        content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def show_math(self: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw themselves: no script, no font, no picture."""
    block = isinstance(node, nodes.math_block)
    try:
        mathml = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logger.warning("%s cannot be shown: %s", node.astext(), error, location=node)
        mathml = ""
    self.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def write_math_font(app: Sphinx, error: Exception | None) -> None:
    """Put a font for formulas into the site, as not every system has one: STIX Two Math, which comes with ziamath."""
    if error is not None:
        return
    std_logging.getLogger("fontTools").setLevel("WARNING")  # it tells of every table
    options = subset.Options(layout_features=["math", "ssty"], hinting=False)
    font = subset.load_font(str(Path(ziamath.__file__).parent / "fonts/STIXTwoMath-Regular.ttf"), options)
    smaller = subset.Subsetter(options)
    ranges = ((0x20, 0x3FF), (0x2000, 0x22FF), (0x27E8, 0x27EF), (0x1D400, 0x1D7FF))
    smaller.populate(unicodes=[code for low, high in ranges for code in range(low, high + 1)])
    smaller.subset(font)
    subset.save_font(font, str(app.outdir / "_static/math.ttf"), options)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", write_math_font)
    app.add_html_math_renderer("mathml", inline_renderers=(show_math, None), block_renderers=(show_math, None))
