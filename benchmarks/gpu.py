"""``python -m benchmarks.gpu``: what has to hold on a GPU, and what methods cost there; needs torch and numpy alone.

Parts run one after the other, and what each found is in the JSON file before the next begins, so that a run that is cut
short loses nothing. A part that fails is written down, with what was said, and the next goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.frontier import frontier as measure_frontier
from benchmarks.loop import Config, Loop
from contrastive_sr import __version__
from contrastive_sr.embeddings import HaarDiscriminator
from contrastive_sr.errors import NonFiniteError
from contrastive_sr.functional import bidirectional_nce, info_nce, set_tiling
from contrastive_sr.networks import CRLSR, DASR

_HR: Config = {"positives": [{"type": "HighResolution"}]}
_LR: Config = {"negatives": [{"type": "UpsampledLowResolution"}]}
_CRITERIA: Config = {"type": "CriaCL", "variant": 5, "vgg_weights": None}

METHODS: Mapping[str, Config] = {
    "PCL": {"type": "PCL", "every": 1},
    "InfoNCE": {"type": "InfoNCE"},
    "BidirectionalNCE": {"type": "BidirectionalNCE"},
    "SRNCE": {"type": "SRNCE"},
    "ContrastiveRegularization": {"type": "ContrastiveRegularization"},
    "MCL": {"type": "MCL", "embedding": {"type": "HaarDiscriminator"}},
    "MPF": {"type": "MPF"},
    "CriaCL": {**_CRITERIA, "positives": [{"type": "Pixel", "norm": "l2"}]},
    "DASR": {"type": "DASR", "warmup_steps": 0, "queue_size": 1024},
    "CRLSR": {"type": "CRLSR", "warmup_steps": 0},
}
"""The methods with their defaults, as far as no weights are needed; each takes part in each step."""

WITHOUT_DRAWS: Mapping[str, Config] = {
    "PCL": {"type": "PCL", "every": 1, "phase": "fixed", **_HR, **_LR},
    "InfoNCE": {"type": "InfoNCE", "phase": "fixed", "positions": None},
    "BidirectionalNCE": {"type": "BidirectionalNCE", "phase": "fixed", "positions": None},
    "SRNCE": {"type": "SRNCE", "phase": "fixed", "positions": None},
    "ContrastiveRegularization": {"type": "ContrastiveRegularization", "phase": "fixed", **_HR, **_LR},
    "MCL": {"type": "MCL", "phase": "fixed", "embedding": {"type": "HaarDiscriminator"}, **_HR, **_LR},
    "CriaCL": METHODS["CriaCL"],
    "DASR": METHODS["DASR"],
    "CRLSR": {"type": "CRLSR", "warmup_steps": 0, "positions": None},
}
"""The same where nothing is drawn: generators of two devices draw differently."""


TESTED = ("functional", "losses", "embeddings", "samples", "degradations", "networks", "criteria", "methods")
BEGIN, END = "<!-- found on a GPU -->", "<!-- until here -->"


class SkippedError(Exception):
    """A part that lacks something; the message says what."""


class Setting:
    """Device and sizes.

    Args:
        device: where all runs.
        small: sizes to try this file with, on a CPU.
        train: folder of HR images for the part `frontier`.
        test: folder of HR images for it.
        lpips_weights: of AlexNet, for it.

    Attributes:
        end: when the time is up, in the clock of `time.monotonic`.
    """

    def __init__(
        self,
        device: str,
        small: bool,
        *,
        train: Path | None = None,
        test: Path | None = None,
        lpips_weights: Path | None = None,
    ) -> None:
        self.device, self.small = torch.device(device), small
        self.train, self.test, self.lpips_weights = train, test, lpips_weights
        self.end = math.inf
        self.batch, self.crop = (2, 48) if small else (16, 192)
        self.steps = 2 if small else 20
        self.on_gpu = self.device.type == "cuda"

    def network(self, kind: str) -> nn.Module:
        """EDSR, RCAN or RRDB; small ones of a few layers."""
        makers: dict[str, Callable[..., nn.Module]] = {
            "EDSR": networks.edsr,
            "RCAN": networks.rcan,
            "RRDB": networks.rrdb,
        }
        sizes: dict[str, dict[str, int]] = {
            "EDSR": {"channels": 16, "blocks": 1},
            "RCAN": {"channels": 16, "groups": 1, "blocks": 1},
            "RRDB": {"channels": 16, "blocks": 1, "growth": 8},
        }
        return makers[kind](**(sizes[kind] if self.small else {}))

    def network_for(self, method: str) -> nn.Module:
        """A method's own network, or EDSR."""
        own: dict[str, tuple[type[nn.Module], dict[str, int]]] = {
            "DASR": (DASR, {"channels": 16, "groups": 1, "blocks": 1}),
            "CRLSR": (CRLSR, {"channels": 16, "encoder_blocks": 3, "decoder_blocks": 1}),
        }
        if method not in own:
            return self.network("EDSR")
        cls, sizes = own[method]
        return cls(**(sizes if self.small else {}))

    def wait(self) -> None:
        """Until the device has done what it was sent."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def images(setting: Setting, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """A batch, drawn on the CPU, so that it is the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(setting.batch, 3, setting.crop, setting.crop, generator=generator, dtype=torch.float64)
    hr = F.avg_pool2d(F.pad(hr, (2, 2, 2, 2), mode="reflect"), 5, 1)  # not noise alone
    lr, key = F.avg_pool2d(hr, 4), F.avg_pool2d(hr.flip(0), 4)
    return {name: x.to(setting.device, dtype) for name, x in {"lr": lr, "hr": hr, "lr_key": key}.items()}


# ---------------------------------------------------------------------------------------------------------------- parts


def versions(setting: Setting) -> Any:
    """What it ran on."""
    name = torch.cuda.get_device_name(setting.device) if setting.on_gpu else platform.machine()
    return {
        "contrastive_sr": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "device": name,
    }


def pytest(setting: Setting) -> Any:
    """The tests that run on a GPU, as far as the packages that they import are there."""
    if importlib.util.find_spec("pytest") is None:
        raise SkippedError("no pytest")
    tests = Path(__file__).resolve().parents[1] / "tests"
    options = ["-q", "-m", "gpu", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    folders = [str(tests / name) for name in (["losses"] if setting.small else TESTED)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *folders],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines = ended.stdout.strip().splitlines() or [ended.stderr[-500:]]
    summary = lines[-1]
    # An error of a whole module is one that needs a package which is missing; "::" names a test.
    broken = [line for line in lines if line.startswith(("FAILED ", "ERROR ")) and "::" in line]
    if " passed" in summary and not broken:
        return summary
    if setting.on_gpu:
        raise AssertionError("\n".join(lines[-40:]))
    raise SkippedError(f"not on a CPU: {summary}")


def equals_cpu(setting: Setting) -> Any:
    """Largest relative distance of losses and of the network's gradients from those in float64 on a CPU."""
    cpu = Setting("cpu", small=True)
    here = Setting(str(setting.device), small=True)
    found = {}
    for name, config in WITHOUT_DRAWS.items():
        exact = _gradients(cpu, name, config, torch.float64)
        for label, dtype, most in (("float64", torch.float64, 1e-7), ("float32", torch.float32, 2e-2)):
            distance = max(
                ((x.double().cpu() - y).norm() / y.norm().clamp_min(1e-12)).item()
                for x, y in zip(_gradients(here, name, config, dtype), exact, strict=True)
            )
            found[f"{name}, {label}"] = distance
            assert distance < most, f"{name} in {label}: {distance:.2g} from float64 on the CPU, expected below {most}"
    return found


def _gradients(setting: Setting, name: str, config: Config, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    loop = Loop(setting.network_for(name).double(), {**config, **_weights(config)}, torch.device("cpu"), torch.float64)
    loop.net.to(setting.device, dtype)
    loop.methods.to(setting.device, dtype)
    for seed in range(2):  # the first fills DASR's queue
        batch = loop.methods.run(loop.net, images(setting, dtype, seed))
        loop.methods.auxiliary_losses(batch)
        contrast = loop.methods.sr_losses(batch)
    parameters = [p for p in loop.net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(contrast.loss, parameters, allow_unused=True)
    whole = torch.cat([g.flatten() for g in gradients if g is not None])
    return [contrast.loss.detach().reshape(1), whole]


def _weights(config: Config) -> Config:
    """Fixed weights, since there is no pixel loss."""
    if config["type"] == "CriaCL":
        return {"align_weight": 1.0, "uniformity_weight": 1.0}
    return {"loss_weight": 1.0, **({"decoupling_weight": 1.0} if config["type"] == "CRLSR" else {})}


def nan_is_found(setting: Setting) -> Any:
    """A NaN in the SR network's output is an error, in the next step at the latest."""
    loop = Loop(setting.network("EDSR"), METHODS["PCL"], setting.device)
    loop.step(images(setting))
    with torch.no_grad():
        next(loop.net.parameters()).fill_(float("nan"))
    try:
        for seed in range(2):
            loop.step(images(setting, seed=seed))
    except NonFiniteError as error:
        return str(error)
    raise AssertionError("two steps with a network of NaN went unnoticed")


def no_stalls(setting: Setting) -> Any:
    """Steps 32 on wait for the device nowhere."""
    if not setting.on_gpu:
        return "not on a CPU"
    found = {}
    for name, config in METHODS.items():
        loop = Loop(setting.network_for(name), config, setting.device)
        batch = images(setting)
        for _ in range(31):
            loop.step(batch)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(4):
                loop.step(batch)
            found[name] = "none"
        except RuntimeError as error:
            found[name] = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    stalls = {name: said for name, said in found.items() if said != "none"}
    assert not stalls, f"waits for the device: {stalls}"
    return found


def mixed_precision(setting: Setting) -> Any:
    """Loss and scale after some steps in float16 and bfloat16."""
    found = {}
    for dtype in (torch.float16, torch.bfloat16):
        for name in METHODS if setting.on_gpu else ("PCL", "DASR"):  # half precision is slow on a CPU
            config = METHODS[name]
            loop = Loop(setting.network_for(name), config, setting.device)
            scaled = dtype == torch.float16 and hasattr(torch.amp, "GradScaler")
            scaler = torch.amp.GradScaler(setting.device.type) if scaled else None
            for seed in range(3 if setting.small else 12):
                loss = loop.step(images(setting, seed=seed), scaler, dtype)
            loop.methods.check_finite()
            scale = scaler.get_scale() if scaler is not None else 1.0
            assert loss.isfinite(), f"{name} in {dtype}: the loss is {loss.item()}"
            assert scale >= 1, f"{name} in {dtype}: the gradient's scale fell to {scale}"
            found[f"{name}, {str(dtype).removeprefix('torch.')}"] = {"loss": loss.item(), "scale": scale}
    return found


def cost(setting: Setting) -> Any:
    """Milliseconds, kernels and MiB of a step, beside L1 alone."""
    found = {}
    kinds = ("EDSR", "RCAN", "RRDB")
    cases = [(kind, name) for kind in kinds for name in ("L1", *METHODS) if name not in ("DASR", "CRLSR")]
    for kind, name in [*cases, ("DASR", "DASR"), ("CRLSR", "CRLSR")]:
        net = setting.network(kind) if kind in kinds else setting.network_for(name)
        loop = Loop(net, METHODS.get(name), setting.device)
        batch = images(setting)
        for _ in range(1 if setting.small else 27):  # past the steps that all measure a share
            loop.step(batch)
        seconds = []
        if setting.on_gpu:
            torch.cuda.reset_peak_memory_stats(setting.device)
        for _ in range(setting.steps):
            setting.wait()
            start = time.perf_counter()
            loop.step(batch)
            setting.wait()
            seconds.append(time.perf_counter() - start)
        row: dict[str, float] = {"ms": 1000 * statistics.median(seconds)}
        if setting.on_gpu:
            row |= {"mib": torch.cuda.max_memory_allocated(setting.device) / 2**20, "kernels": _kernels(loop, batch)}
        found[f"{kind}, {name}"] = row
    return found


def _kernels(loop: Loop, batch: Mapping[str, Tensor]) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        loop.step(batch)
        torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages())


def contrast(setting: Setting) -> Any:
    """Milliseconds of InfoNCE, forward and backward, by tile and fused; beside three products of that size."""
    found = {}
    for count, images_of in ((256, 16), (4096, 4), (36864, 1)) if not setting.small else ((64, 2), (300, 1)):
        a, b = (torch.randn(images_of, count, 256, device=setting.device, requires_grad=True) for _ in range(2))

        def products(a: Tensor = a, b: Tensor = b) -> object:
            with torch.no_grad():
                for image in range(len(a)):
                    for top in range(0, a.shape[1], 4096):
                        logits = a[image, top : top + 4096] @ b[image].T
                        logits @ b[image]
                        logits.T @ a[image, top : top + 4096]
            return None

        row = {"three products": _milliseconds(products, setting)}
        for size in (None, 1024, 2048, 4096, 8192):
            if size is not None and size > count:
                continue
            with set_tiling(size=size):
                row[f"tiles of {size or 'the default'}"] = _milliseconds(partial(_both_passes, a, b), setting)
        if setting.on_gpu:
            with set_tiling(kernel="triton"):
                row["Triton"] = _milliseconds(partial(_both_passes, a, b), setting)
            with _coarse_products():
                row["three products in TF32"] = _milliseconds(products, setting)
                row["tiles in TF32"] = _milliseconds(partial(_both_passes, a, b), setting)
                with set_tiling(kernel="triton"):
                    row["Triton in TF32"] = _milliseconds(partial(_both_passes, a, b), setting)
        found[f"M {count}, {images_of} images"] = row
    return found


def _both_passes(a: Tensor, b: Tensor) -> None:
    info_nce(a, b).backward()


@contextlib.contextmanager
def _coarse_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def fused(setting: Setting) -> Any:
    """Largest relative distance of the Triton kernels' values and gradients from the matrix in float64."""
    if not setting.on_gpu:
        return "not on a CPU"
    found = {}
    for count, width, temperature in ((300, 20, 0.07), (1000, 256, 0.07), (1000, 256, 0.005), (300, 512, 0.07)):
        a, b = (
            torch.randn(1, count, width, generator=torch.Generator().manual_seed(seed)).to(setting.device)
            for seed in range(2)
        )
        got: list[Tensor] = []
        exact: list[Tensor] = []
        for results, dtype in ((got, torch.float32), (exact, torch.float64)):
            x, y = (v.to(dtype).requires_grad_() for v in (a, b))
            with set_tiling(kernel="triton"):  # which leaves float64 to torch
                loss = bidirectional_nce(x, y, temperature)
            results += [loss.detach().reshape(1), *torch.autograd.grad(loss, (x, y))]
        distance = max(((x.double() - y).norm() / y.norm()).item() for x, y in zip(got, exact, strict=True))
        found[f"M {count}, D {width}, temperature {temperature}"] = distance
        assert distance < 2e-5 / temperature * 0.07, f"{distance:.2g} from float64"
    return found


def compiled(setting: Setting) -> Any:
    """Milliseconds of a PCL step with the network as it is and compiled."""
    plain = Loop(setting.network("EDSR"), METHODS["PCL"], setting.device)
    quick = Loop(setting.network("EDSR"), METHODS["PCL"], setting.device)
    quick.net = torch.compile(quick.net)  # type: ignore[assignment]
    batch = images(setting)
    rows = {}
    for name, loop in (("as it is", plain), ("compiled", quick)):
        for _ in range(3):
            loop.step(batch)
        rows[name] = _milliseconds(partial(loop.step, batch), setting)
    return rows


def embedding(setting: Setting) -> Any:
    """Milliseconds of the embedding's passes over nine samples of each image, in two memory formats."""
    embed = HaarDiscriminator().to(setting.device).eval()
    found = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        samples = images(setting)["hr"].repeat(9, 1, 1, 1).contiguous(memory_format=layout)
        with torch.no_grad():
            found[name] = _milliseconds(partial(embed, samples), setting)
    return found


def frontier(setting: Setting) -> Any:
    """PSNR and perceptual figures after fine-tuning with several losses."""
    if setting.train is None or setting.test is None:
        raise SkippedError("no --train DIR and --test DIR of HR images")
    return measure_frontier(
        partial(setting.network, "EDSR"),
        setting.train,
        setting.test,
        device=setting.device,
        crop=setting.crop,
        batch=setting.batch,
        start_steps=setting.steps * 250,
        steps=setting.steps * 75,
        until=setting.end,
        lpips_weights=setting.lpips_weights,
    )


def _milliseconds(run: Callable[[], object], setting: Setting) -> float:
    run()
    seconds = []
    for _ in range(1 if setting.small else 7):
        setting.wait()
        start = time.perf_counter()
        run()
        setting.wait()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


PARTS: Mapping[str, Callable[[Setting], Any]] = {
    part.__name__: part
    for part in (
        versions,
        pytest,
        equals_cpu,
        nan_is_found,
        no_stalls,
        mixed_precision,
        fused,
        cost,
        contrast,
        embedding,
        compiled,
        frontier,
    )
}


def run_parts(setting: Setting, out: Path, minutes: float, names: list[str]) -> bool:
    """Run parts until the time is up, and write what was found after each; whether all that ran passed."""
    setting.end = time.monotonic() + 60 * minutes
    results = {}
    for name in names:
        if time.monotonic() > setting.end:
            results[name] = {"skipped": f"{minutes:g} minutes were up"}
        else:
            start = time.monotonic()
            results[name] = _result(PARTS[name], setting) | {"seconds": round(time.monotonic() - start, 1)}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
        said = results[name].get("failed") or results[name].get("skipped") or "passed"
        print(f"{name}: {said}, {results[name].get('seconds', 0)} s", flush=True)
    return not any("failed" in result for result in results.values())


def _result(part: Callable[[Setting], Any], setting: Setting) -> dict[str, Any]:
    try:
        with _quiet():
            return {"found": part(setting)}
    except SkippedError as reason:
        return {"skipped": str(reason)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def write_page(results: Mapping[str, Any], page: Path) -> None:
    """Put what was found into the page, in place of what stands between its two comments."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"error: {page}: expected {BEGIN} and, after it, {END}.")
    page.write_text(f"{before}{begin}\n{found_as_markdown(results)}\n{end}{after}")


def found_as_markdown(results: Mapping[str, Any]) -> str:
    """A section for each part: its table, or why there is none."""
    sections = []
    for name, result in results.items():
        found = result.get("found")
        if "failed" in result:
            body = f"Failed: {result['failed']}"
        elif "skipped" in result:
            body = f"Left out: {result['skipped']}."
        elif not isinstance(found, Mapping):
            body = str(found)
        elif any(isinstance(value, Mapping) for value in found.values()):
            rows = {what: value if isinstance(value, Mapping) else {"": value} for what, value in found.items()}
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            body = _markdown(["", *columns], [[what, *map(row.get, columns)] for what, row in rows.items()])
        else:
            body = _markdown(["", "found"], [[what, value] for what, value in found.items()])
        sections.append(f"**`{name}`**\n\n{body}")
    return "\n\n".join(sections)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    shown = [
        [f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell) for cell in row]
        for row in rows
    ]
    lines = [list(header), ["---"] * len(header), *shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu.json"), help="file to write")
    parser.add_argument("--minutes", type=float, default=8, help="no part begins after that")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to try this file on a CPU")
    parser.add_argument("--train", type=Path, help="folder of HR images, for the part frontier")
    parser.add_argument("--test", type=Path, help="folder of HR images, for the part frontier")
    parser.add_argument("--lpips-weights", type=Path, help="of AlexNet, for the part frontier; needs torchmetrics")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part; may be repeated")
    parser.add_argument("--page", type=Path, help="only write what --out has into this page, docs/gpu.md")
    arguments = parser.parse_args()
    if arguments.page:
        for file in (arguments.out, arguments.page):
            if not file.is_file():
                print(f"error: {file}: there is no such file. `make test-gpu` writes build/gpu.json.", file=sys.stderr)
                return 2
        write_page(json.loads(arguments.out.read_text()), arguments.page)
        return 0
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: this machine has no GPU that torch can use. Try --device cpu --small.", file=sys.stderr)
        return 2
    setting = Setting(
        arguments.device,
        arguments.small,
        train=arguments.train,
        test=arguments.test,
        lpips_weights=arguments.lpips_weights,
    )
    return 0 if run_parts(setting, arguments.out, arguments.minutes, arguments.part or list(PARTS)) else 1


if __name__ == "__main__":
    sys.exit(main())
