"""Every option file and config that is shipped: it parses, its networks and methods are built in full size, and a small
copy of it trains a step, validates, saves, and goes on for another step."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import pytest
import torch
import yaml
from mmagic.registry import MODELS
from mmengine.config import Config
from shrink import PATCH, provide_files, shrunk, write_vgg
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import contrastive_sr.hosts.mmagic as adapter
from contrastive_sr.hosts.basicsr import runner as basicsr_runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.mmagic import runner as mmagic_runner
from contrastive_sr.methods import build_methods
from tests.hosts.basicsr_options import PROJECT, dump_options, load, read_options

OPTIONS = sorted(path.stem for path in (PROJECT / "plugins").glob("*.yml"))
CONFIGS = sorted(path.stem for path in helpers.CONFIGS.glob("*.py"))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    write_vgg(path)
    return path


@pytest.fixture(scope="module")
def pairs(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of the demo's data."""
    folder = tmp_path_factory.mktemp("pairs")
    for kind in ("HR", "LRx4"):
        (folder / kind).mkdir()
        for path in sorted((demo_data / "train" / kind).iterdir())[:2]:
            shutil.copy(path, folder / kind)
    return folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings write into the current folder, and look there for the data that they name."""
    monkeypatch.chdir(tmp_path)


def link(path: Path, target: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def assert_moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


# -------------------------------------------------------------------------------------------------------------- BasicSR


def basicsr_network(options: dict[str, Any]) -> torch.nn.Module:
    network: torch.nn.Module = import_basicsr("basicsr.archs").build_network(dict(options))
    return network


@pytest.fixture
def basicsr_names() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()


@pytest.mark.basicsr
@pytest.mark.usefixtures("basicsr_names")
@pytest.mark.parametrize("name", OPTIONS)
def test_option_file(name: str, vgg: Path, pairs: Path, tmp_path: Path) -> None:
    shipped = read_options(name)
    with open(PROJECT / "plugins" / f"{name}.yml") as file:
        loader = import_basicsr("basicsr.utils.options").ordered_yaml()[0]
        assert yaml.load(file, Loader=loader) == shipped  # BasicSR reads what we read

    full = read_options(name)
    provide_files(full, vgg, basicsr_network)
    network = basicsr_network(full["network_g"])
    build_methods(full["methods"]).attach(network)

    patch = shipped["datasets"]["train"]["gt_size"] if "network_d" in shipped else PATCH
    options = shrunk(shipped, patch)
    options["num_gpu"] = 0
    provide_files(options, vgg, basicsr_network)
    for dataset in options["datasets"].values():
        for key, kind in (("dataroot_gt", "HR"), ("dataroot_lq", "LRx4")):
            if key in dataset:
                link(Path(dataset[key]), pairs / kind)

    for steps in (1, 2):
        options["train"]["total_iter"] = steps
        dump_options(options, tmp_path / "small.yml")
        basicsr_runner.train(tmp_path / "small.yml", ["--auto_resume"] if steps == 2 else [])

    folder = tmp_path / "experiments" / shipped["name"]
    networks = [torch.load(folder / f"models/net_g_{step}.pth", weights_only=True)["params"] for step in (1, 2)]
    assert_moved(*networks)
    state = load(folder / "training_states/2.state")
    assert state["iter"] == 2
    assert [value.item() for key, value in state["methods"].items() if key.endswith("step.count")] == [2]
    events = EventAccumulator(str(tmp_path / "tb_logger" / shipped["name"]))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert all(math.isfinite(event.value) for logged in scalars.values() for event in logged)
    # in the first step, a warm-up of DASR, there is no SR image
    pixel = {2} if any(method["type"] == "DASR" for method in options["methods"]) else {1, 2}
    tags = {"l_g_pix" if "network_d" in shipped else "l_pix": pixel}
    for tag, steps in {**tags, f"{shipped['datasets']['val']['name']}/psnr": {1, 2}}.items():
        (logged,) = [events for name, events in scalars.items() if name.endswith(f"/{tag}")]
        assert {event.step for event in logged} & {1, 2} == steps, tag


# --------------------------------------------------------------------------------------------------------------- MMagic


def mmagic_network(options: dict[str, Any]) -> torch.nn.Module:
    network: torch.nn.Module = MODELS.build({"_scope_": "mmagic", **options})
    return network


@pytest.fixture
def mmagic_names() -> Iterator[None]:
    adapter.registry.use_names()
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.mmagic
@pytest.mark.usefixtures("mmagic_names")
@pytest.mark.parametrize("name", CONFIGS)
def test_config(name: str, vgg: Path, pairs: Path, tmp_path: Path) -> None:
    shipped = Config.fromfile(helpers.CONFIGS / f"{name}.py").to_dict()

    full = Config.fromfile(helpers.CONFIGS / f"{name}.py").model.to_dict()
    provide_files(full, vgg, mmagic_network)
    MODELS.build({"_scope_": "mmagic", **full})

    patch = shipped["train_pipeline"][3]["gt_patch_size"] if "discriminator" in shipped["model"] else PATCH
    config = shrunk(shipped, patch)
    provide_files(config, vgg, mmagic_network)
    config["train_dataloader"]["batch_size"] = 2
    for loader in (config["train_dataloader"], config["val_dataloader"]):
        for key, kind in (("gt", "HR"), ("img", "LRx4")):
            if key in loader["dataset"]["data_prefix"]:
                link(Path(loader["dataset"]["data_root"], loader["dataset"]["data_prefix"][key]), pairs / kind)

    path, work = tmp_path / f"{name}.py", tmp_path / "work_dirs" / name
    for steps in (1, 2):
        config["train_cfg"]["max_iters"] = steps
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in config.items()))
        mmagic_runner.train(path, ["--resume"] if steps == 2 else [])

    checkpoints = [torch.load(work / f"iter_{step}.pth") for step in (1, 2)]
    assert_moved(*(checkpoint["state_dict"] for checkpoint in checkpoints))
    own = checkpoints[1]["contrastive_sr"]
    counters = [value.item() for key, value in own.items() if key.endswith("step.count")]
    assert counters
    assert set(counters) == {2}
    (first, second) = (
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(work.glob("*/vis_data/scalars.json"))
    )
    for step, entries in ((1, first), (2, second)):
        (losses,) = [entry for entry in entries if "loss" in entry or "loss_pix" in entry]
        assert losses["step"] == step
        assert all(math.isfinite(value) for value in losses.values())
        assert [entry for entry in entries if "PSNR" in entry]
