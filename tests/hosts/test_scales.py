"""`contrastive-sr configs --scale 2` and `3`: every file names its scale throughout, builds its network, and the demos
train; and trainings at x1, on pairs of equal size."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmagic_helpers as helpers
import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config
from PIL import Image
from shrink import provide_files, shrunk, write_vgg
from typer.testing import CliRunner

import contrastive_sr.hosts.mmagic as adapter
from contrastive_sr.cli.app import app
from contrastive_sr.data.demo import prepare_demo_data
from contrastive_sr.data.prepare import CAMERASR, paired_parts, prepare
from contrastive_sr.degradations import build_degradation
from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation import psnr_y
from contrastive_sr.hosts.basicsr import runner as basicsr_runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.options import degradation_of_options, read_options
from contrastive_sr.hosts.mmagic import runner as mmagic_runner
from contrastive_sr.hosts.shipped import MISSING, write_shipped
from contrastive_sr.methods import build_methods
from tests.hosts.basicsr_options import PROJECT, dump_options

OPTIONS = sorted(path.stem for path in (PROJECT / "plugins").glob("*.yml"))
CONFIGS = sorted(path.stem for path in helpers.CONFIGS.glob("*.py"))


def named(name: str, scale: int) -> str:
    return name.replace("x4", f"x{scale}") if "x4" in name else f"{name}_x{scale}"


def cases(names: list[str]) -> list[tuple[str, int]]:
    return [(name, scale) for name in names for scale in (2, 3) if name not in MISSING[scale]]


def trained(names: list[str]) -> list[Any]:
    """All files; the demos, which are trained, at x3 only where there is time."""
    at_length = [pytest.mark.long]
    return [
        pytest.param(name, scale, marks=at_length if scale == 3 and name.startswith("demo_") else [])
        for name, scale in cases(names)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of all scales, the demo's data at x2 and x3, and a VGG-19."""
    folder = tmp_path_factory.mktemp("scales")
    for scale in (2, 3, 4):
        write_shipped(folder, scale=scale)
    for scale in (2, 3):
        prepare_demo_data(folder / f"datasets/demo_x{scale}", scale=scale)
    write_vgg(folder / "vgg19-dcbb9e9d.pth")
    return folder


@pytest.fixture(autouse=True)
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").symlink_to(files / "datasets")


@pytest.fixture
def basicsr_names() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()


@pytest.fixture
def mmagic_names() -> Iterator[None]:
    adapter.registry.use_names()
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list, with the key that it stands under, in order."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from entries(entry, str(name))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from entries(entry, key)
    else:
        yield key, value


def write_config(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    return path


@pytest.fixture
def equal_pairs(files: Path, tmp_path: Path) -> Path:
    """Pairs of photographs and of the same blurred, as CameraSR has them, where `prepare camerasr` writes them."""
    for number in (1, 21, 22):
        # sides are multiples of 4 but of no window: an RRDBNet at x1 is validated on such alone
        with Image.open(files / "datasets/demo_x2/val/HR/chelsea.png") as photo:
            hr = photo.crop((0, number, 100, number + 92))
            for side, image in (("H", hr), ("L", hr.resize((48, 48)).resize(hr.size))):
                path = tmp_path / f"City100/City100_iPhoneX/{number:03d}{side}.PNG"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    out = tmp_path / "datasets_x1/CameraSR_x1"
    assert prepare(paired_parts(CAMERASR, tmp_path, 1, None), out, "camerasr").problems == []
    return out


SCALES = ("scale", "upscale", "upscale_factor", "crop_border", "period")
CROPS = ("gt_size", "gt_patch_size", "patch_size", "crop_size")


def assert_scaled(shipped: Any, scaled: Any, scale: int) -> None:
    """Everything that a scale decides is of this one, and all else is as it was."""
    before, after = list(entries(shipped)), list(entries(scaled))
    assert [key for key, _ in before] == [key for key, _ in after]
    seen = set()
    for (key, old), (_, new) in zip(before, after, strict=True):
        if key in SCALES:
            assert (old, new) == (4, scale), key
        elif key in CROPS:
            assert new * 4 == old * scale, key
            assert new % scale == 0, key
        elif isinstance(old, str):
            assert "x4" not in new.lower(), new
            if new != old:
                assert f"x{scale}" in new.lower() or "_width" in new, new
        else:
            assert new == old, key
            continue
        seen.add(key)
    assert {"crop_border", "period"} <= seen


# ------------------------------------------------------------------------------------------------------------ the files


def test_files_of_all_scales_lie_side_by_side(files: Path) -> None:
    for folder, names, suffix in (("plugins", OPTIONS, "yml"), ("configs", CONFIGS, "py")):
        expected = {f"{name}.{suffix}" for name in names}
        expected |= {f"{named(name, scale)}.{suffix}" for name, scale in cases(names)}
        assert {path.name for path in (files / folder).glob(f"*.{suffix}")} == expected
    assert write_shipped(files, scale=3) == []  # they are there already


def test_what_files_name_is_there_at_their_scale(files: Path) -> None:
    """Files, presets and commands in comments as well."""
    scaled = [path for folder in ("plugins", "configs") for path in (files / folder).rglob("*_x[23].*")]
    assert len(scaled) > 80
    for path in scaled:
        origin, *lines = path.read_text().splitlines()
        scale = int(path.stem[-1])
        assert origin.startswith(f"# At x{scale}, made from ")
        text = "\n".join(lines)
        assert not re.search(r"[xX]4", text), path
        named_there = re.findall(r"\b\w+_x\d\.(?:py|yml)\b", text)
        assert set(named_there) <= {other.name for other in scaled}, path
        for preset in re.findall(r"(?:--preset |^degradation: | degradation=\")([\w.-]+\w)", text, re.MULTILINE):
            assert build_degradation(preset).scale == scale
        commands = re.findall(r"prepare (?:demo|div2k|flickr2k|realsr)( --scale \d)?", text)
        assert set(commands) <= {f" --scale {scale}"}, path


# -------------------------------------------------------------------------------------------------------------- BasicSR


@pytest.mark.basicsr
@pytest.mark.usefixtures("basicsr_names")
@pytest.mark.parametrize(("name", "scale"), trained(OPTIONS))
def test_option_file(name: str, scale: int, files: Path, tmp_path: Path) -> None:
    path = files / "plugins" / f"{named(name, scale)}.yml"
    options = read_options(path)
    assert_scaled(read_options(files / "plugins" / f"{name}.yml"), options, scale)
    vgg = files / "vgg19-dcbb9e9d.pth"
    provide_files(options, vgg, lambda network: import_basicsr("basicsr.archs").build_network(dict(network)))
    network = basicsr_runner.sr_network(path)
    methods = build_methods(options["methods"])
    methods.attach(network)
    degradation_of_options(options, methods.wants)

    small = shrunk(options, options["datasets"]["train"]["gt_size"])
    net = import_basicsr("basicsr.archs").build_network(small["network_g"]).eval()
    assert net(torch.rand(1, 3, 24, 24)).shape[-2:] == (24 * scale, 24 * scale)
    if name.startswith("demo"):
        small["num_gpu"], small["train"]["total_iter"] = 0, 2
        small["val"]["val_freq"] = small["logger"]["save_checkpoint_freq"] = 2
        dump_options(small, tmp_path / "small.yml")
        basicsr_runner.train(tmp_path / "small.yml", [])
        assert (tmp_path / "experiments" / small["name"] / "models/net_g_2.pth").is_file()


# Networks that have a scale of 1, with their options beside those of the shipped file.
X1 = [
    ("demo_pcl_edsr", {"upscale": 1}),
    ("demo_pcl_rcan", {"upscale": 1}),
    ("demo_pcl_rrdb", {"scale": 1}),
    ("demo_pcl_swinir_light", {"upscale": 1}),
    ("demo_cria_rrdb_x4", {"scale": 1}),
]


@pytest.mark.basicsr
@pytest.mark.parametrize(("name", "network"), X1)
def test_basicsr_at_x1(name: str, network: dict[str, int], equal_pairs: Path, tmp_path: Path) -> None:
    options = shrunk(read_options(PROJECT / f"plugins/{name}.yml"), 32)
    options.update(scale=1, num_gpu=0)
    options["network_g"].update(network)
    for phase, kind in (("train", "train"), ("val", "test")):
        data = {"dataroot_gt": str(equal_pairs / kind / "HR"), "dataroot_lq": str(equal_pairs / kind / "LR")}
        options["datasets"][phase].update(data)
    options["train"]["total_iter"] = options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = 2
    for metric in ("psnr", "ssim"):
        options["val"]["metrics"][metric]["crop_border"] = 1
    options["val"]["metrics"]["pattern"]["period"] = 2
    dump_options(options, tmp_path / "x1.yml")
    basicsr_runner.train(tmp_path / "x1.yml", [])
    checkpoint = tmp_path / "experiments" / options["name"] / "models/net_g_2.pth"
    assert checkpoint.is_file()

    out = tmp_path / "scores.json"
    sets = ["--hr", equal_pairs / "test/HR", "--lr", equal_pairs / "test/LR", "--scale", "1", "--json", out]
    done = CliRunner().invoke(app, ["evaluate", "bicubic", "--checkpoint", f"net={checkpoint}", *map(str, sets)])
    assert done.exit_code == 0, done.output
    scores = json.loads(out.read_text())["test"]
    assert scores["net"]["psnr_y"] > 0
    lr, hr = (np.array(Image.open(equal_pairs / f"test/{side}/iPhoneX_001.png")) for side in ("LR", "HR"))
    assert scores["bicubic"]["psnr_y"] == pytest.approx(psnr_y(lr, hr, border=1), abs=1e-6)


@pytest.mark.basicsr
@pytest.mark.parametrize("name", ["demo_dasr_x4", "demo_crl_sr_x4", "demo_mpf_net_x4"])
@pytest.mark.usefixtures("basicsr_names")
def test_networks_without_x1_say_so(name: str) -> None:
    options = {**read_options(PROJECT / f"plugins/{name}.yml")["network_g"], "scale": 1}
    with pytest.raises(ConfigError, match=r"\(scale\): expected a whole number from 2 to 4, got 1"):
        import_basicsr("basicsr.archs").build_network(options)


# --------------------------------------------------------------------------------------------------------------- MMagic


@pytest.mark.mmagic
@pytest.mark.usefixtures("mmagic_names")
@pytest.mark.parametrize(("name", "scale"), trained(CONFIGS))
def test_config(name: str, scale: int, files: Path, tmp_path: Path) -> None:
    path = files / "configs" / f"{named(name, scale)}.py"
    config = Config.fromfile(path).to_dict()
    assert_scaled(Config.fromfile(files / "configs" / f"{name}.py").to_dict(), config, scale)
    vgg = files / "vgg19-dcbb9e9d.pth"
    provide_files(config, vgg, lambda network: MODELS.build({"_scope_": "mmagic", **network}))
    MODELS.build({"_scope_": "mmagic", **copy.deepcopy(config["model"])})
    mmagic_runner.check_config(write_config(tmp_path / "full.py", config))

    small = shrunk(config, next(value for key, value in entries(config["train_dataloader"]) if key in CROPS))
    net = MODELS.build({"_scope_": "mmagic", **copy.deepcopy(small["model"]["generator"])}).eval()
    assert net(torch.rand(1, 3, 24, 24)).shape[-2:] == (24 * scale, 24 * scale)
    if name.startswith("demo"):
        small["train_cfg"].update(max_iters=2, val_interval=2)
        small["train_dataloader"]["batch_size"] = 2
        mmagic_runner.train(write_config(tmp_path / "small.py", small), [])
        assert (tmp_path / "work_dirs/small/iter_2.pth").is_file()


@pytest.mark.mmagic
@pytest.mark.usefixtures("mmagic_names")
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("demo_pcl_edsr", "upscale_factor"),
        ("demo_cria_rrdb_x4", "scale"),
        pytest.param("demo_pcl_rcan", "upscale", marks=pytest.mark.long),
        pytest.param("demo_pcl_rrdb", "upscale_factor", marks=pytest.mark.long),
        pytest.param("demo_pcl_swinir_light", "upscale", marks=pytest.mark.long),
    ],
)
def test_mmagic_at_x1(name: str, key: str, equal_pairs: Path, tmp_path: Path) -> None:
    config = shrunk(Config.fromfile(helpers.CONFIGS / f"{name}.py").to_dict(), 32)
    config["model"]["generator"][key] = 1
    for loader, kind in (("train_dataloader", "train"), ("val_dataloader", "test")):
        data = config[loader]["dataset"]
        data.update(scale=1, data_root=str(equal_pairs / kind), data_prefix={"img": "LR", "gt": "HR"})
    config["train_dataloader"]["batch_size"] = 2
    config["train_dataloader"]["dataset"]["pipeline"][2]["dictionary"]["scale"] = 1
    *others, pattern = config["val_evaluator"]["metrics"]
    for metric in others:
        metric["crop_border"] = 1
    pattern["period"] = 2
    config["train_cfg"].update(max_iters=2, val_interval=2)
    mmagic_runner.train(write_config(tmp_path / "x1.py", config), [])
    assert (tmp_path / "work_dirs/x1/iter_2.pth").is_file()
