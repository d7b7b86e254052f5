"""Pages of docs: their Python runs, their configs build, their commands are there, and each loss has a figure.

Where their links lead is looked at in the site, by ``test_site.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
import yaml
from torch import nn

from benchmarks.__main__ import app as benchmarks
from contrastive_sr import functional, losses
from contrastive_sr.cli.app import app
from contrastive_sr.errors import ContrastiveSRError
from contrastive_sr.evaluation.jaggedness import jaggedness_warning
from contrastive_sr.evaluation.pattern import excess_warning
from contrastive_sr.hosts.basicsr.amp import check_amp
from contrastive_sr.hosts.basicsr.attach import METHODS_OPTIMIZER
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.late import check_late
from contrastive_sr.hosts.basicsr.options import OptionLoader
from contrastive_sr.hosts.basicsr.steps import check_batches
from contrastive_sr.hosts.endings import losses_in_words
from contrastive_sr.hosts.flags import FLAGS
from contrastive_sr.hosts.in_step import check_optimizer, methods_optimizer
from contrastive_sr.hosts.resumed import kept_warning
from contrastive_sr.methods import METHODS, build_methods
from contrastive_sr.methods.still import STEPS
from contrastive_sr.methods.weighting import TermWeight

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LOSS_PAGES = sorted((DOCS / "losses").glob("*.md"))
PAPERS = [DOCS / f"{name}.md" for name in ("pcl", "crl_sr", "dasr", "cria_cl", "mpf_net", "mcl")]
# what shell commands on the pages begin with that are not looked into
LAUNCHERS = {"mim", "torchrun", "accelerate"}
LOOPS = {"for", "done", "name=$(basename", "nets=();"}
OTHERS = {"docker", "pip", *LAUNCHERS, "python", "source", "sed", "mkdir", "ln", *LOOPS}
HOST_FLAGS = {name for flags in FLAGS.values() for flag in flags for name in flag.names}


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


@pytest.fixture
def own_methods() -> Iterator[None]:
    """Lets a page register methods, which are forgotten afterwards."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def names_of_basicsr() -> None:
    """Lets a page that loads BasicSR name its networks, although both hosts were loaded in this process before."""
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def test_many_pages_have_python() -> None:
    """Or the next test would look at nothing."""
    assert len(WITH_PYTHON) > 20


@pytest.mark.usefixtures("own_methods", "names_of_basicsr")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_name)
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


def commands(page: Path) -> list[list[str]]:
    """The commands in a page's bash blocks, each as its words, without comments."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_command(page: Path, words: list[str], application: typer.Typer) -> None:
    """Check a command's name, its flags, and the configs that it names."""
    group: Any = typer.main.get_command(application)
    line = " ".join(words)
    while hasattr(group, "commands") and words and not words[0].startswith("-"):
        assert words[0] in group.commands, f"{line}: no command {words[0]}"
        group, words = group.commands[words[0]], words[1:]
    known = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= HOST_FLAGS if group.name == "train" else set()
    text = page.read_text()
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{line}: no flag {word}"
        elif word.endswith((".yml", ".py")):
            made = f"> {word}" in text or f"`{word}`" in text or f"[{word}]" in text
            assert made or (PROJECT / word).is_file(), f"{line}: {word} is nowhere"


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "README.md"], ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_commands_of_a_page_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", (PROJECT / "pyproject.toml").read_text(), re.MULTILINE))
    for words in commands(page):
        line = " ".join(words)
        if words[0] == "contrastive-sr":
            check_command(page, words[1:], app)
        elif "contrastive_sr.cli" in words:
            check_command(page, words[words.index("contrastive_sr.cli") + 1 :], app)
        elif words[:3] == ["python", "-m", "benchmarks"]:
            check_command(page, words[3:], benchmarks)
        elif words[0] == "make":
            assert words[1] in targets, line
        elif words[0] in OTHERS:
            for extra in re.findall(r"\[([\w,]+)\]", line if words[0] == "pip" else ""):
                assert set(extra.split(",")) <= extras, line
        else:
            pytest.fail(f"{page_name(page)}: no check for {line}")


PARTS = "functional|losses|embeddings|samples|degradations|networks|criteria|methods|evaluation"


def names_of_the_code(page: Path) -> list[tuple[str, str]]:
    """What a page names of the library as `part.name`."""
    return re.findall(rf"`(?:contrastive_sr\.)?({PARTS})\.((?:\w+\.)*\w+)`", page.read_text())


NAMING = [page for page in PAGES if page.parent.name != "api" and names_of_the_code(page)]


def test_pages_name_the_code() -> None:
    """Or the next test would look at nothing."""
    assert len(NAMING) > 8


@pytest.mark.parametrize("page", NAMING, ids=page_name)
def test_names_of_the_code_are_there(page: Path) -> None:
    for part, path in names_of_the_code(page):
        if path in ("png", "json") or (part in ("losses", "methods") and path.islower()):
            continue  # files, and variables of these names
        target: Any = importlib.import_module(f"contrastive_sr.{part}")
        for name in path.split("."):
            if isinstance(target, ModuleType) and not hasattr(target, name):
                target = importlib.import_module(f"{target.__name__}.{name}")
            elif isinstance(target, type) and name in re.findall(r"self\.(\w+)", inspect.getsource(target)):
                break  # set in __init__
            else:
                target = getattr(target, name)


@pytest.mark.parametrize("page", PAPERS, ids=page_name)
def test_a_papers_page_compares(page: Path) -> None:
    """Equations and code, the defaults beside the paper's, and where ours differs."""
    text = page.read_text()
    assert re.search(r"^\| paper \| (?:code|here)", text, re.MULTILINE)
    assert re.search(r"^#+ Defaults against the paper\n\n\| \| paper \| here \|", text, re.MULTILINE)
    assert "**Where we differ, and why**" in text


def test_every_loss_has_a_page_and_every_page_a_figure(script: ModuleType) -> None:
    assert set(script.FIGURES) == {page.stem for page in LOSS_PAGES}
    for page in LOSS_PAGES:
        assert f"](../figures/{page.stem}.png)" in page.read_text()
        assert (DOCS / "figures" / f"{page.stem}.png").stat().st_size < 40_000
    text = "\n".join(page.read_text() for page in LOSS_PAGES)
    public = {name for part in (functional, losses) for name, value in vars(part).items() if callable(value)}
    names = {*public, *METHODS} - {"embedded_nce", "plain_embedded_nce", "haar_high_bands"}
    assert not [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)]


def test_the_index_lists_every_page() -> None:
    text = (DOCS / "README.md").read_text()
    assert not [page for page in map(page_name, PAGES) if f"]({page})" not in text and page != "README.md"]


def test_the_methods_file_is_the_one_on_its_page() -> None:
    assert blocks(DOCS / "add_a_method.md", "python")[0] == (DOCS / "gradient_contrast.py").read_text()


# ------------------------------------------------------------------------------------------------ troubleshooting


def _step(network: nn.Module | None = None, lr: int = 16, hr: int = 64, gain: float = 1.0, **config: Any) -> None:
    """A step with one method."""
    torch.manual_seed(0)
    net = network or nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    methods = build_methods([{"type": "PCL", "loss_weight": 0.0004, **config}])
    methods.attach(net)
    batch = methods.run(net, {"lr": torch.rand(2, 3, lr, lr), "hr": gain * torch.rand(2, 3, hr, hr)})
    methods.sr_losses(batch, torch.nn.functional.l1_loss(batch["sr"], batch["hr"]))


def _broken() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4), nn.Threshold(2.0, torch.nan))


def _dead() -> None:
    """A network whose weights have become huge: its images are, too, and features of them have no direction."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    nn.init.constant_(net[0].weight, 1e25)
    methods = build_methods([{"type": "PCL", "loss_weight": 0.0004, "every": 1}])
    methods.attach(net)
    for _ in range(STEPS + 1):
        batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        methods.sr_losses(batch)


def _queue(images: int, *names: str) -> None:
    methods = build_methods([{"type": "DASR", "loss_weight": 1 / 255, "queue_size": 16}])
    methods.check_data({"lr", "hr", *names}, images)


def _empty_patches() -> None:
    weight = TermWeight("pcl_contrastive", share=0.05)
    for step, size in enumerate([1.0, *[1e-6] * 10]):
        sr = torch.ones(1, 3, 4, 4, requires_grad=True)
        weight.measure(step, size * sr.sum(), sr.sum(), [sr])


def _options(total: int, scheduler: dict[str, Any], **train: Any) -> None:
    """BasicSR's, looked at before the start."""
    parts: dict[str, Any] = {key: {} for key in ("datasets", "path", "logger")}
    check_late({"model_type": "SRModel", **parts, "train": {"total_iter": total, "scheduler": scheduler, **train}})


def _amp(value: str, model: str) -> None:
    check_amp({"model_type": model, "num_gpu": 0, "train": {"amp": value}})


def _batch_of_four() -> None:
    data = {"batch_size_per_gpu": 4}
    check_batches(3, {"datasets": {"train": data}, "dist": False, "num_gpu": 0, "world_size": 1})


def _killed_loader() -> None:
    with losses_in_words():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


COSINE = {"type": "CosineAnnealingRestartLR", "periods": [5]}
SYMPTOMS: dict[str, Callable[[], object]] = {
    "option": lambda: _options(6, COSINE, totl_iter=3),
    "periods": lambda: _options(6, COSINE),
    "amp": lambda: _amp("fp16", "ContrastiveSRModel"),
    "amp without methods": lambda: _amp("bfloat16", "SRModel"),
    "no batch": _batch_of_four,
    "loader": _killed_loader,
    "resumed": lambda: warnings.warn(
        kept_warning(
            {"train: optim_g: lr": (0.0005, 0.001)},
            "the option file",
            "another `name`, and `path: pretrain_network_g: experiments/demo/models/net_g_20.pth`",
        ),
        stacklevel=2,
    ),
    "key": lambda: build_methods([{"type": "PCL", "los_weight": 0.1}]),
    "weight and share": lambda: build_methods([{"type": "PCL", "loss_weight": 0.1, "loss_share": 0.05}]),
    "layer": lambda: _step(
        type="BidirectionalNCE", layers=["body.7"], embedding={"type": "HaarDiscriminator", "out_indices": [0]}
    ),
    "range": lambda: _step(gain=255.0),
    "small": lambda: _step(lr=4, hr=16),
    "scale": lambda: _step(hr=62),
    "nan": lambda: _step(_broken()),
    "dead": _dead,
    "share": lambda: _step(loss_weight=100.0),
    "empty patches": _empty_patches,
    "queue": lambda: _queue(32, "lr_key"),
    "second crop": lambda: _queue(16),
    "yaml number": lambda: check_optimizer({"type": "Adam", "lr": "1e-4"}, METHODS_OPTIMIZER, ("Adam",)),
    "dots": lambda: warnings.warn(str(excess_warning("Validation Set5, pattern", 3.18, 4)), stacklevel=2),
    "teeth": lambda: warnings.warn(str(jaggedness_warning("PCL on Set14", 0.084)), stacklevel=2),
    "optimizer": lambda: methods_optimizer(
        build_methods([{"type": "PCL", "loss_weight": 1.0}]), None, METHODS_OPTIMIZER
    ),
}


@pytest.mark.parametrize("name", SYMPTOMS)
def test_messages_stand_as_they_are_printed(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            SYMPTOMS[name]()
            (printed,) = (str(warning.message) for warning in caught)
        except ContrastiveSRError as error:
            printed = str(error)
    # numbers and lists of names differ; what is said does not
    texts = (printed, *blocks(DOCS / "troubleshooting.md", "text"))
    plain, *shown = (re.sub(r"[\d.e+-]*\d", "#", text).strip() for text in texts)
    assert plain in shown, printed


@pytest.mark.parametrize("name", ["info_nce", "criteria", "dual_contrastive"])
def test_figures_are_drawn(script: ModuleType, name: str) -> None:
    figure = script.FIGURES[name]()
    assert len(figure.axes) == 2
    assert all(axes.get_title() for axes in figure.axes)
