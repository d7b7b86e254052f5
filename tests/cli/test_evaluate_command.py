"""`contrastive-sr evaluate`: what it prints and writes, which checkpoints it reads, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage import data

from contrastive_sr.cli.evaluate import data_sets, run_evaluation
from contrastive_sr.data import write_degraded
from contrastive_sr.data.images import as_image
from contrastive_sr.errors import ConfigError, DataError, HostError, NonFiniteError
from contrastive_sr.evaluation import bicubic, bicubic_pair
from contrastive_sr.evaluation.lpips import load_lpips
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.metrics import load_niqe
from contrastive_sr.hosts.trained import network_of_options

Run = Callable[..., subprocess.CompletedProcess[str]]

EDSR = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 4}
EDSR_TEXT = "{type: EDSR, num_feat: 8, num_block: 1}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets: one of a colour and a grey photograph whose sides are no multiples of 4, one of a small photograph."""
    folder = tmp_path_factory.mktemp("photos")
    for name, image in {
        "first/astronaut.png": data.astronaut()[40:170, 160:370],
        "first/grey.png": data.camera()[100:311, 200:331],
        "second/cat.png": data.chelsea()[100:160, 200:290],
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def evaluate(*methods: str, **options: Any) -> str:
    """Runs the command in this process; what it prints."""
    console = options.pop("console", None) or Console(width=200, record=True, file=io.StringIO())
    defaults: dict[str, Any] = {
        **{"checkpoints": [], "networks": [], "hr": [], "lr": [], "degradation": None, "scale": 4, "seed": 0},
        **{"tile": None, "overlap": 32, "rgb": False, "lpips_weights": None, "fetch_lpips": False},
        **{"device": "cpu", "outputs": {}, "html_images": 5},
    }
    run_evaluation(methods, **{**defaults, **options}, console=console)
    return console.export_text() if console.record else ""


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# ---------------------------------------------------------------------------------------------------- what comes


def test_a_narrow_screen_shows_quality(photos: Path) -> None:
    console = Console(width=60, force_terminal=True, no_color=True, file=io.StringIO())
    evaluate("bicubic", hr=[str(photos / "second")], console=console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "bicubic" in printed
    assert "SSIM-Y ↑" in printed
    assert "…" not in printed
    assert "Left out on so narrow a screen: pattern 2, pattern scale, s / image, memory, MiB." in printed


@pytest.mark.basicsr
def test_table_and_files(photos: Path, tmp_path: Path, command_line: Run) -> None:
    files = ("--json", "below/r.json", "--csv", "r.csv", "--markdown", "r.md")
    sets = ("--hr", photos / "first", "--hr", photos / "second")
    done = command_line("evaluate", "bicubic", *sets, "--scale", "4", *files, TORCH_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    content = read_json(tmp_path / "below" / "r.json")
    assert list(content) == ["first", "second"]
    assert [list(methods) for methods in content.values()] == [["bicubic"], ["bicubic"]]
    first = content["first"]["bicubic"]
    patterns = ["pattern_2", "hr_pattern_2", "pattern_scale", "hr_pattern_scale"]
    blur = ["blur", "hr_blur"]
    edges = ["jaggedness", "hr_jaggedness", "bicubic_jaggedness"]
    assert list(first)[:14] == ["psnr_y", "ssim_y", "niqe", *blur, *patterns, *edges, "seconds", "memory_mib"]
    assert (first["images"], first["scale"], first["parameters"]) == (2, 4, None)
    assert content["second"]["bicubic"]["niqe"] is None

    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [(row["dataset"], row["image"]) for row in rows] == [
        ("first", "astronaut.png"),
        ("first", "grey.png"),
        ("second", "cat.png"),
    ]
    assert (rows[1]["width"], rows[1]["height"]) == ("128", "208")
    for name in ("psnr_y", "ssim_y", "niqe", *blur, *patterns, *edges):
        assert first[name] == pytest.approx((float(rows[0][name]) + float(rows[1][name])) / 2, rel=1e-5)

    # BasicSR's own functions, on images that its own bicubic made
    imresize = import_basicsr("basicsr.utils.matlab_functions").imresize
    metrics = import_basicsr("basicsr.metrics")
    with Image.open(photos / "first" / "grey.png") as image:
        hr = np.asarray(image.convert("RGB"))[:208, :128]
    lr = (imresize(hr / 255, 1 / 4).clip(0, 1) * 255).round()
    sr = (imresize(lr / 255, 4).clip(0, 1) * 255).round()
    pair = {"img": sr[..., ::-1], "img2": hr[..., ::-1], "crop_border": 4, "test_y_channel": True}
    assert float(rows[1]["psnr_y"]) == pytest.approx(metrics.calculate_psnr(**pair), abs=0.005)
    assert float(rows[1]["ssim_y"]) == pytest.approx(metrics.calculate_ssim(**pair), abs=5e-4)
    assert float(rows[1]["niqe"]) == pytest.approx(metrics.calculate_niqe(sr[..., ::-1], 4), abs=0.05)

    text = (tmp_path / "r.md").read_text()
    assert text.startswith("| data set | method | PSNR-Y, dB ↑ | SSIM-Y ↑ |")
    assert f"| first | bicubic | {first['psnr_y']:.2f} |" in text
    for words in (
        "MATLAB-style, antialiased",
        "LPIPS is left out",
        "in which there is texture are left out: 1",
        f"HR's own: first {first['hr_pattern_2']:.2f} and {first['hr_pattern_scale']:.2f}, second ",
        "pattern scale ↓",
        "relative to that across them; HR's own and that of bicubic enlargement: "
        f"first {first['hr_jaggedness']:.3f} and {first['bicubic_jaggedness']:.3f}, second ",
        "border of 4 pixels",
    ):
        assert words in text
        assert words in done.stdout
    assert "periodic dots" not in text
    assert "Written: below/r.json, r.csv, r.md" in done.stdout

    flat, repeated = np.full((120, 120, 3), 255, np.uint8), np.tile(hr[:2, :2], (60, 60, 1))
    one_block = np.full((400, 400, 3), 255, np.uint8)
    one_block[100:196, 100:196] = data.astronaut()[:96, :96]
    images = flat, repeated, one_block, data.astronaut()[:104, :104], data.astronaut()[:199, :199]
    assert [load_niqe(4).measure(image) for image in images] == [None] * 5  # of one block there is no covariance
    assert load_niqe(4).measure(data.astronaut()[:200, :200]) is not None


def test_data_sets_are_told_apart(photos: Path, tmp_path: Path) -> None:
    for name in ("a/test/HR", "a/train/HR", "b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    names = [f"{tmp_path}/a/test/HR", f"{tmp_path}/a/train/HR", f"{tmp_path}/b", f"mine={tmp_path}/b"]
    assert [data_set.name for data_set in data_sets(names, [], 4)] == ["test", "train", "b", "mine"]
    with pytest.raises(ConfigError, match=r"--hr: expected data sets of different names, got .* 2 times. .*NAME=DIR"):
        data_sets([names[2], names[2]], [], 4)
    with pytest.raises(DataError, match=r"Expected images in .*Did you mean .*/a/test/HR\?"):
        data_sets([f"{tmp_path}/a/test"], [], 4)


def test_given_lr_images(photos: Path, tmp_path: Path) -> None:
    """LR images that `prepare degrade` wrote give what the same preset and seed give on the fly."""
    made = write_degraded(photos / "first", tmp_path / "set", "dasr-anisotropic", 4, seed=3).folder
    hr, out = [f"first={photos / 'first'}"], {"csv": tmp_path / "r.csv"}

    def values() -> list[tuple[str, ...]]:
        rows = csv.DictReader((tmp_path / "r.csv").open())
        return [tuple(row[name] for name in ("dataset", "image", "psnr_y", "ssim_y", "niqe")) for row in rows]

    assert "dasr-anisotropic-x4, seed 3" in evaluate(
        "bicubic", hr=hr, degradation="dasr-anisotropic", seed=3, outputs=out
    )
    on_the_fly = values()
    assert "LR: given" in evaluate("bicubic", hr=hr, lr=[made / "LRx4"], outputs=out)  # HR uncropped
    assert values() == on_the_fly
    with pytest.raises(DataError, match=r"grey.png is 131 x 211 in HR and 32 x 52 in LR"):
        evaluate("bicubic", hr=hr, lr=[made / "LRx4"], scale=2)
    for file in sorted((made / "LRx4").iterdir()):
        file.rename(file.with_name(f"{file.stem}x4.png"))  # as in DIV2K
    evaluate("bicubic", hr=hr, lr=[made / "LRx4"], outputs=out)
    assert values() == on_the_fly
    evaluate("bicubic", hr=hr, degradation="dasr-anisotropic", seed=4, outputs=out)
    assert values() != on_the_fly

    with pytest.raises(ConfigError, match=r"--lr: expected one for each --hr, in the same order, got 1 for 2"):
        evaluate("bicubic", hr=[*hr, str(photos / "second")], lr=[made / "LRx4"])
    with pytest.raises(ConfigError, match=r"Expected one of --lr, .*got both"):
        evaluate("bicubic", hr=hr, lr=[made / "LRx4"], degradation="dasr-isotropic")


@pytest.mark.basicsr
def test_photos_without_hr_images(photos: Path, tmp_path: Path) -> None:
    """Of these it measures what it measures of the SR images where there is HR, and nothing else."""
    made = write_degraded(photos / "first", tmp_path / "set", "dasr-isotropic", 4, seed=3).folder
    (tmp_path / "small").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "small" / "one.png")
    ends = {"json": "json", "csv": "csv", "markdown": "md", "html": "html"}
    out = {kind: tmp_path / f"r.{end}" for kind, end in ends.items()}
    printed = evaluate("bicubic", lr=[f"my photos={made / 'LRx4'}", str(tmp_path / "small")], outputs=out)
    rows = list(csv.DictReader(out["csv"].open()))
    evaluate("bicubic", hr=[str(photos / "first")], lr=[str(made / "LRx4")], outputs={"csv": tmp_path / "hr.csv"})
    with_hr = list(csv.DictReader((tmp_path / "hr.csv").open()))
    alone = ("niqe", "blur", "pattern_2", "pattern_scale")
    assert [row["image"] for row in rows] == ["astronaut.png", "grey.png", "one.png"]
    for row, other in zip(rows, with_hr, strict=False):
        assert all(row[name] == other[name] != "" for name in ("width", "height", *alone))
    assert {row["psnr_y"] for row in rows} == {row["ssim_y"] for row in rows} == {""}
    content = read_json(out["json"])
    assert list(content) == ["my photos", "small"]
    assert content["my photos"]["bicubic"]["psnr_y"] is None
    mean = sum(float(row["niqe"]) for row in rows[:2]) / 2
    assert content["my photos"]["bicubic"]["niqe"] == pytest.approx(mean, rel=1e-5)
    assert not any(name.startswith("hr_") or name == "lpips" for name in rows[0])

    text = out["markdown"].read_text()
    assert text.startswith("| data set | method | NIQE ↓ | blur ↓ | pattern 2 ↓ | pattern scale ↓ |")
    assert "- Photos without HR image: 3; what compares with one is left out." in text
    for words in ("PSNR", "SSIM", "LPIPS", "HR's own", "HR is cropped"):
        assert words not in text
        assert words not in printed
    page = out["html"].read_text()
    assert page.count('class="left right"') == 3  # one method alone, on both sides of the slider
    assert f">NIQE {float(rows[0]['niqe']):.2f} bicubic<" in page
    assert 'data-label="HR"' not in page


def test_photos_take_no_options_for_hr_images(photos: Path) -> None:
    lr = [str(photos / "first")]
    for option, given in {"--rgb": {"rgb": True}, "--lpips-weights": {"lpips_weights": photos / "a.pth"}}.items():
        with pytest.raises(ConfigError, match=f"^{option}: expected --hr with it"):
            evaluate("bicubic", lr=lr, **given)
    with pytest.raises(ConfigError, match=r"^--fetch-lpips: expected --hr with it"):
        evaluate("bicubic", lr=lr, fetch_lpips=True)
    with pytest.raises(ConfigError, match=r"Expected one of --lr, .*got both"):
        evaluate("bicubic", lr=lr, degradation="dasr-isotropic")
    with pytest.raises(ConfigError, match=r"--lr: expected data sets of different names, got '.*first' 2 times"):
        evaluate("bicubic", lr=lr * 2)
    with pytest.raises(DataError, match="--lr: expected a folder of images, got nowhere, which is not there"):
        evaluate("bicubic", lr=["nowhere"])


@pytest.mark.basicsr
def test_psnr_and_ssim_on_rgb_too(photos: Path, tmp_path: Path) -> None:
    out = {"json": tmp_path / "r.json", "markdown": tmp_path / "r.md"}
    printed = evaluate("bicubic", hr=[str(photos / "second")], rgb=True, outputs=out)
    row = read_json(out["json"])["second"]["bicubic"]
    metrics = import_basicsr("basicsr.metrics")
    with Image.open(photos / "second" / "cat.png") as image:
        pair = bicubic_pair("cat", np.asarray(image.convert("RGB"))[:60, :88], 4)
    sr = as_image(bicubic(4)(pair.lr))
    bgr = {"img": sr[..., ::-1], "img2": pair.hr[..., ::-1], "crop_border": 4, "test_y_channel": False}
    assert row["psnr_rgb"] == pytest.approx(metrics.calculate_psnr(**bgr))
    assert row["ssim_rgb"] == pytest.approx(metrics.calculate_ssim(**bgr))
    assert f"| {row['psnr_rgb']:.2f} | {row['ssim_rgb']:.4f} |" in out["markdown"].read_text()
    assert "PSNR-RGB, dB ↑" in printed
    assert "PSNR and SSIM on RGB" in printed
    assert "RGB, dB" not in evaluate("bicubic", hr=[str(photos / "second")])


# --------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network in the forms in which the hosts save it, and as a fixed point, an average that differs."""
    from mmengine.logging import HistoryBuffer

    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    archs = import_basicsr("basicsr.archs")
    state = archs.build_network({"type": "EDSR", **EDSR}).state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    run = folder / "my_run"
    (run / "models").mkdir(parents=True)
    (run / "my_run.yml").write_text("network_g: {type: EDSR, " + ", ".join(f"{k}: {v}" for k, v in EDSR.items()) + "}")
    torch.save({"params": other, "params_ema": state}, run / "models" / "net_g_latest.pth")
    torch.save(state, folder / "plain.pth")
    torch.save({"params": {f"module.{name}": value for name, value in state.items()}}, folder / "parallel.pth")
    history = HistoryBuffer()
    history.update(1.0, 1)
    generators = {f"generator.{name}": value for name, value in other.items()}
    for name, prefix in (("ema.pth", "generator_ema."), ("averaged.pth", "generator_ema.module.")):
        average = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save(
            {"meta": {}, "state_dict": {**generators, **average}, "message_hub": {"loss": history}}, folder / name
        )
    torch.save({"state_dict": {f"generator.{name}": value for name, value in state.items()}}, folder / "mmagic.pth")
    rrdb = archs.build_network(
        {
            "type": "RRDBNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "scale": 4,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 32,
        }
    )
    torch.save({"params_ema": rrdb.state_dict()}, folder / "rrdb.pth")
    return folder


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_checkpoints_of_all_kinds(photos: Path, checkpoints: Path, tmp_path: Path) -> None:
    of_edsr = ["plain", "parallel", "ema", "averaged", "mmagic"]
    printed = evaluate(
        "bicubic",
        checkpoints=[
            str(checkpoints / "my_run" / "models" / "net_g_latest.pth"),
            *(str(checkpoints / f"{name}.pth") for name in of_edsr),
            f"found by itself={checkpoints / 'rrdb.pth'}",
        ],
        networks=["auto", *[EDSR_TEXT] * len(of_edsr), "auto"],
        hr=[str(photos / "second")],
        outputs={kind: tmp_path / f"r.{end}" for kind, end in (("json", "json"), ("markdown", "md"), ("html", "html"))},
        html_images=0,
    )
    methods = read_json(tmp_path / "r.json")["second"]
    assert list(methods) == ["bicubic", "my_run/net_g_latest", *of_edsr, "found by itself"]
    expected = methods["plain"]
    assert expected["parameters"] == sum(p.numel() for p in network_of_options(EDSR_TEXT, 4).parameters())
    assert expected["multiply_adds"] > 1e8
    for name in (*of_edsr, "my_run/net_g_latest"):
        assert methods[name]["psnr_y"] == expected["psnr_y"]
    assert methods["found by itself"]["psnr_y"] != expected["psnr_y"]
    assert "my_run/net_g_latest: " in printed
    assert "my_run.yml" in printed
    assert "found by itself: ESRGAN, found by spandrel" in printed
    # an untrained network ends in a pixel shuffle of noise
    warned = [name for name, row in methods.items() if row["pattern_scale"] - row["hr_pattern_scale"] > 0.5]
    assert warned[:2] == ["my_run/net_g_latest", "plain"]
    for name in methods:
        sentence = f"{name} on second: periodic dots, "
        assert (f"- {sentence}" in printed) == (name in warned)
        assert (f"- **{sentence}" in (tmp_path / "r.md").read_text()) == (name in warned)
        assert (f"<strong>{sentence}" in (tmp_path / "r.html").read_text()) == (name in warned)


@pytest.mark.basicsr
def test_jagged_edges_are_warned_about(photos: Path, checkpoints: Path, tmp_path: Path) -> None:
    outputs = {kind: tmp_path / f"r.{end}" for kind, end in (("json", "json"), ("markdown", "md"), ("html", "html"))}
    (tmp_path / "colour").mkdir()
    shutil.copy(photos / "first" / "astronaut.png", tmp_path / "colour")
    noise = f"noise={checkpoints / 'plain.pth'}"  # an untrained network ends in a pixel shuffle of noise
    printed = evaluate(
        "bicubic", checkpoints=[noise], networks=[EDSR_TEXT], hr=[str(tmp_path / "colour")], outputs=outputs
    )
    row = read_json(outputs["json"])["colour"]["noise"]
    excess = row["jaggedness"] - row["bicubic_jaggedness"]
    sentence = f"noise on colour: jagged edges, {excess:.3f} above bicubic enlargement"
    assert f"- {sentence}'s." in printed
    assert f"- **{sentence}" in outputs["markdown"].read_text()
    assert f"<strong>{sentence}" in outputs["html"].read_text()
    assert "bicubic on colour: jagged" not in printed


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_networks_by_name_and_config(project: Path) -> None:
    assert type(network_of_options("EDSR", 2)).__module__ == "basicsr.archs.edsr_arch"
    assert network_of_options("{type: EDSR, num_feat: 8}", 3)(torch.rand(1, 3, 8, 8)).shape[-1] == 24
    mmagic = network_of_options("{type: mmagic.EDSRNet, mid_channels: 8, num_blocks: 1}", 3)
    assert type(mmagic).__module__.startswith("mmagic.")
    assert mmagic(torch.rand(1, 3, 8, 8)).shape[-1] == 24
    for text, message in {
        "EDSRR": r"does not know the type 'EDSRR'. Did you mean 'EDSR'\?",
        "{type: EDSR, nfeat: 3}": "does not know the key 'nfeat'. Did you mean 'num_feat'",
        "[EDSR]": "expected a config file .*, a name such as EDSR, or options such as",
        "{type: [": "is no valid YAML",
    }.items():
        with pytest.raises(ConfigError, match=f"--network: .*{message}"):
            network_of_options(text, 4)


class Malicious:
    """Leaves a file behind when it is unpickled as pickles usually are."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.basicsr
def test_pickles_that_run_code_are_refused(photos: Path, checkpoints: Path, tmp_path: Path) -> None:
    trace, hr = tmp_path / "trace", [str(photos / "second")]
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists()
    trace.unlink()
    torch.save(Malicious(trace), tmp_path / "object.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(trace)))
    torch.save(torch.nn.Conv2d(3, 3, 1), tmp_path / "module.pth")
    for name in ("object", "module"):
        with pytest.raises(ConfigError, match=rf"{name}.pth holds a whole Python object, .*would run code.*state_dict"):
            evaluate(checkpoints=[str(tmp_path / f"{name}.pth")], hr=hr)
    with pytest.raises(ConfigError, match=r"raw.pth could not be read .*is refused, since it can run code"):
        evaluate(checkpoints=[str(tmp_path / "raw.pth")], hr=hr)
    # beside weights it is passed over
    state = torch.load(checkpoints / "plain.pth", weights_only=True)
    torch.save({"params": state, "extra": Malicious(trace)}, tmp_path / "beside.pth")
    evaluate(checkpoints=[str(tmp_path / "beside.pth")], networks=[EDSR_TEXT], hr=hr)
    assert not trace.exists()


@pytest.mark.basicsr
def test_checkpoints_that_do_not_fit(photos: Path, checkpoints: Path, tmp_path: Path) -> None:
    hr, plain, rrdb = [str(photos / "second")], str(checkpoints / "plain.pth"), str(checkpoints / "rrdb.pth")

    def refused(error: type[Exception], message: str, *methods: str, **options: Any) -> None:
        with pytest.raises(error, match=message):
            evaluate(*methods, **{"hr": hr, "outputs": {"json": tmp_path / "r.json"}, **options})

    refused(
        ConfigError,
        r"plain.pth does not fit the network EDSR: it has .*, where EDSR has conv_first.weight .* Try --network with",
        checkpoints=[plain],
        networks=["EDSR"],
    )
    refused(ConfigError, "plain.pth: spandrel does not know .*Try --network", checkpoints=[plain])
    refused(ConfigError, "for x2, got ESRGAN for x4. Try --scale 4", checkpoints=[rrdb], scale=2)
    run = str(checkpoints / "my_run" / "models" / "net_g_latest.pth")
    refused(ConfigError, "my_run/net_g_latest: .* It is a network for x4", checkpoints=[run], scale=2)
    refused(
        ConfigError, "--network: expected one for all .* got 2 for 1", checkpoints=[plain], networks=["EDSR", "RCAN"]
    )
    refused(ConfigError, "got 1 for 0", "bicubic", networks=["EDSR"])
    refused(
        ConfigError, "methods of different names, got 'bicubic' 2 times", "bicubic", checkpoints=[f"bicubic={plain}"]
    )
    refused(ConfigError, "--checkpoint: expected an existing file, got .*none.pth", checkpoints=["none.pth"])
    refused(ConfigError, "Expected the file none.yml", checkpoints=[plain], networks=["none.yml"])
    state = torch.load(plain, weights_only=True)
    torch.save({name: value * torch.nan for name, value in state.items()}, tmp_path / "nan.pth")
    nan = {"checkpoints": [str(tmp_path / "nan.pth")], "networks": [EDSR_TEXT]}
    refused(NonFiniteError, "nan: a grey image, .* holds NaN or infinity", **nan)
    (tmp_path / "config.py").write_text("raise SystemError('a config that nobody named was run')")
    torch.save(state, tmp_path / "iter_1.pth")
    refused(
        ConfigError, r"iter_1.pth: spandrel .* Try --network .*config.py", checkpoints=[str(tmp_path / "iter_1.pth")]
    )
    assert not (tmp_path / "r.json").exists()


# ------------------------------------------------------------------------------------------------ what is refused


def test_bad_arguments_are_explained(photos: Path, tmp_path: Path) -> None:
    hr = [str(photos / "second")]

    def refused(error: type[Exception], message: str, *methods: str, **options: Any) -> None:
        with pytest.raises(error, match=message):
            evaluate(*(methods or ("bicubic",)), **{"hr": hr, **options})

    refused(ConfigError, "does not know the method 'bicubc'. Did you mean 'bicubic'", "bicubc")
    refused(ConfigError, "A trained network is given by --checkpoint FILE", "net_g_latest.pth")
    refused(ConfigError, "--hr: expected a folder of HR images to test on, got none. .* takes --lr alone", hr=[])
    refused(DataError, "--hr: expected a folder of images, got nowhere", hr=["nowhere"])
    refused(ConfigError, "--json: expected a file to write that ends in .json", outputs={"json": Path("r.txt")})
    (tmp_path / "file").write_text("")
    refused(ConfigError, "--csv: .* cannot be written", outputs={"csv": tmp_path / "file" / "r.csv"})
    refused(ConfigError, "degradation: no preset has the name 'dasr-isotropc'", degradation="dasr-isotropc")
    refused(ConfigError, "tile: expected at least 72", tile=40)
    refused(ConfigError, "--device: expected one such as cpu, cuda or cuda:1, got 'gpu'", device="gpu")
    with pytest.raises(ConfigError, match=r"Expected something to evaluate: `bicubic`, or --checkpoint FILE"):
        evaluate(hr=hr)


def test_images_that_cannot_be_used_are_named_before_anything_is_measured(photos: Path, tmp_path: Path) -> None:
    good = (photos / "second" / "cat.png").read_bytes()
    for message, content in {
        r"z.png cannot be read as an image": good[:-2000],
        r"z.png has more than 8 bits a channel": None,
        r"z.png: x: expected sides of at least 8 pixels": Image.new("RGB", (40, 7)),
    }.items():
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        (folder / "a.png").write_bytes(good)
        if content is None:
            Image.fromarray(np.zeros((40, 40), dtype=np.uint16)).save(folder / "z.png")
        elif isinstance(content, bytes):
            (folder / "z.png").write_bytes(content)
        else:
            content.save(folder / "z.png")
        with pytest.raises(DataError, match=message):
            evaluate("bicubic", hr=[str(folder)], outputs={"json": tmp_path / "r.json"})
    assert not (tmp_path / "r.json").exists()


def test_without_the_extra_it_says_what_to_install(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    evaluate("bicubic", hr=[str(photos / "second")])
    with pytest.raises(HostError, match=r"jinja2 is not installed. Try: pip install .*\"contrastive-sr\[evaluate\]\""):
        evaluate("bicubic", hr=[str(photos / "second")], outputs={"html": tmp_path / "r.html"})


def test_without_basicsr_niqe_is_left_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "basicsr.metrics.niqe", None)
    assert "NIQE is left out: it is BasicSR's" in evaluate("bicubic", hr=[str(photos / "first")])


def test_lpips_from_a_file_and_from_torchvisions_cache(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    hr, out = [str(photos / "second")], {"json": tmp_path / "r.json"}
    assert "LPIPS is left out: the AlexNet it needs is not on this machine" in evaluate("bicubic", hr=hr, outputs=out)
    assert "lpips" not in read_json(tmp_path / "r.json")["second"]["bicubic"]
    weights = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    features = torchvision.models.alexnet(weights=None).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, weights)
    scores = []
    for given in (None, weights):
        assert "LPIPS is version 0.1 with AlexNet" in evaluate("bicubic", hr=hr, outputs=out, lpips_weights=given)
        scores.append(read_json(tmp_path / "r.json")["second"]["bicubic"]["lpips"])
    assert scores[0] == scores[1] > 0
    smallest, smaller = (np.zeros((side, 40, 3), np.uint8) for side in (31, 30))
    lpips = load_lpips(weights)
    assert lpips(smallest, smallest) == 0
    assert lpips(smaller, smaller) is None


def test_lpips_weights_are_downloaded_if_asked_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torchvision, which checks the hash; a file of our own stands for that on its server."""
    import torchvision

    def serve(name: str) -> str:
        """Put the file there under this name, and have torchvision take it for its own."""
        (tmp_path / name).write_bytes(content)
        value = torchvision.models._api.Weights(url=(tmp_path / name).as_uri(), transforms=None, meta={})
        monkeypatch.setattr(torchvision.models.AlexNet_Weights.IMAGENET1K_V1, "_value_", value)
        return name

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    hr = [str(photos / "second")]
    features = torchvision.models.alexnet(weights=None).features.state_dict()
    torch.save({f"features.{name}": value for name, value in features.items()}, tmp_path / "own.pth")
    content = (tmp_path / "own.pth").read_bytes()

    other = serve("alexnet-0123abcd.pth")
    with pytest.raises(
        ConfigError, match=rf"^--fetch-lpips: .*downloaded \(RuntimeError: invalid hash.*copy {other} to "
    ):
        evaluate("bicubic", hr=hr, fetch_lpips=True)
    assert list(checkpoints.iterdir()) == []

    name = serve(f"alexnet-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    printed = evaluate("bicubic", hr=hr)
    assert "LPIPS is left out: the AlexNet it needs is not on this machine." in printed
    assert "contrastive-sr evaluate --fetch-lpips has torchvision download it" in printed
    assert "LPIPS is version 0.1 with AlexNet" in evaluate("bicubic", hr=hr, fetch_lpips=True)
    assert (checkpoints / name).read_bytes() == content
    (tmp_path / name).unlink()
    assert "LPIPS is version 0.1" in evaluate("bicubic", hr=hr, fetch_lpips=True)  # it is here: nothing is downloaded
    assert "LPIPS is version 0.1" in evaluate("bicubic", hr=hr)  # and found from now on
    (checkpoints / name).unlink()
    with pytest.raises(ConfigError, match=r"^--fetch-lpips: torchvision's AlexNet could not be downloaded \(URLError"):
        evaluate("bicubic", hr=hr, fetch_lpips=True)
    with pytest.raises(ConfigError, match=r"Expected one of --fetch-lpips, .*and --lpips-weights; got both"):
        evaluate("bicubic", hr=hr, fetch_lpips=True, lpips_weights=checkpoints / name)


def test_at_scale_1_lr_images_are_given(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"--lr: expected a folder .* for each --hr, got none\. At scale 1"):
        evaluate("bicubic", hr=[str(photos / "second")], scale=1)
