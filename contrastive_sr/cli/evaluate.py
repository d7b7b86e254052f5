"""`contrastive-sr evaluate`: networks on test sets, as the papers measure them."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from contrastive_sr.cli.degrade import SUFFIXES, image_seed, read_rgb
from contrastive_sr.cli.tables import for_tables
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, HostError
from contrastive_sr.hosts.files import in_one_move
from contrastive_sr.hosts.pairs import list_images, pair_folders

if TYPE_CHECKING:
    from torch import nn

    from contrastive_sr.degradations import Degradation
    from contrastive_sr.evaluation import Pair, Score
    from contrastive_sr.evaluation.evaluate import Measure, Network
    from contrastive_sr.evaluation.metrics import UInt8Image
    from contrastive_sr.evaluation.report import Shown

BUILT_IN = ("bicubic",)
OUTPUTS = {"json": (".json",), "csv": (".csv",), "markdown": (".md",), "html": (".html", ".htm")}
CROP = 320
"""Longest side of what the page shows of an image, in HR pixels."""
_SMALLEST_NIQE = 96
_COUNTED = 1280, 720
"""Size of the HR image for which multiply-adds are counted."""
_GENERIC = ("net_g", "iter_", "epoch_", "best_", "latest", "last_")
_BESIDE = ("HR", "hr", "GT", "gt", "GTmod12")


@dataclass(frozen=True)
class DataSet:
    """A folder of HR images, and where their LR images come from.

    Args:
        name: for the results.
        files: HR files.
        lr_files: LR files, one for each; empty if LR is made of HR.
    """

    name: str
    files: list[Path]
    lr_files: list[Path]


@dataclass(frozen=True)
class Method:
    """One network of the comparison.

    Args:
        name: for the results.
        call: the network.
        module: the same as a module; None for one that is built in.
    """

    name: str
    call: Network
    module: nn.Module | None = None


@dataclass
class _Page:
    """Parts of images, collected while the methods come by."""

    chosen: dict[tuple[str, str], tuple[int, int, int, int]] = field(default_factory=dict)
    images: dict[tuple[str, str], dict[str, UInt8Image]] = field(default_factory=dict)
    notes: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)


def run_evaluation(
    methods: Sequence[str],
    *,
    checkpoints: Sequence[str],
    networks: Sequence[str],
    hr: Sequence[str],
    lr: Sequence[Path],
    degradation: str | None,
    scale: int,
    seed: int,
    tile: int | None,
    overlap: int,
    lpips_weights: Path | None,
    device: str | None,
    outputs: dict[str, Path],
    html_images: int,
    console: Console,
) -> None:
    """Measures methods on data sets, prints a table, and writes the files that were asked for.

    Whatever can be wrong with names, files, images and networks is found before the first image is measured.

    Args:
        methods: built-in ones, ``bicubic``.
        checkpoints: ``FILE`` or ``NAME=FILE``.
        networks: none, one for all checkpoints, or one for each: a config, a name, options, or ``auto``.
        hr: folders of HR images, ``DIR`` or ``NAME=DIR``.
        lr: a folder of LR images for each, or none.
        degradation: a preset that LR images are made with; None: bicubic.
        scale: the scale, at least 2.
        seed: of the degradation.
        tile: see `contrastive_sr.evaluation.evaluate`.
        overlap: likewise.
        lpips_weights: file of an AlexNet; None: torchvision's, if it has been downloaded before.
        device: None: the GPU, if there is one.
        outputs: file by what is written to it, the keys of `OUTPUTS`.
        html_images: how many images of each data set the page shows.
        console: where the table goes.

    Raises:
        ConfigError: arguments or networks that cannot be used.
        DataError: images that cannot be used.
        HostError: something that is needed is not installed.
    """
    try:
        import PIL  # noqa: F401

        if "html" in outputs:
            import jinja2  # noqa: F401
    except ImportError as error:
        raise HostError(
            f'{error.name or "A package"} is not installed. Try: pip install "contrastive-sr[evaluate]"'
        ) from error
    from contrastive_sr._checks import check_count
    from contrastive_sr.evaluation import evaluate, summary
    from contrastive_sr.evaluation.evaluate import check_network
    from contrastive_sr.evaluation.report import as_csv, as_html, as_json, as_markdown
    from contrastive_sr.evaluation.tiles import check_tiles

    check_count(scale, "--scale", at_least=2)
    if tile is not None:
        check_tiles(tile, overlap)
    on = _device(device)
    _check_outputs(outputs)
    if lr and degradation:
        raise ConfigError("Expected one of --lr, which gives LR images, and --degradation, which makes them; got both.")
    make, lr_in_words = _lr_maker(degradation, scale, seed, given=bool(lr))
    sets = data_sets(hr, lr, scale)
    warnings_of: list[str] = []
    with console.status("getting ready ..."):
        loaded = _methods(methods, checkpoints, networks, scale, console)
        measures, left_out = _measures(scale, lpips_weights, on)
        warnings_of += left_out
        for method in loaded:
            if method.module is not None:
                method.module.to(on)
            try:
                check_network(method.call, scale, on)
            except ContrastiveSRError as error:
                raise type(error)(f"{method.name}: {error}") from error
            if method.module is not None:
                method.module.cpu()

    def pairs(data: DataSet) -> Iterator[Pair]:
        return (_pair(data, number, scale, make) for number in range(len(data.files)))

    total = sum(len(data.files) for data in sets)
    page = _Page()
    scores: dict[str, dict[str, list[Score]]] = {data.name: {} for data in sets}
    with _bar() as bar:
        _look_at_all(sets, pairs, scale, bar, page, html_images if "html" in outputs else 0)
        for method in loaded:
            task = bar.add_task(method.name, total=total)
            if method.module is not None:
                method.module.to(on)
            for data in sets:

                def on_image(
                    pair: Pair,
                    sr: UInt8Image,
                    score: Score,
                    data: DataSet = data,
                    method: Method = method,
                    task: Any = task,
                ) -> None:
                    _keep(page, data.name, pair, method.name, sr, score)
                    bar.advance(task)

                try:
                    scores[data.name][method.name] = evaluate(
                        method.call, pairs(data), scale, measures=measures, tile=tile, overlap=overlap,
                        device=on if method.module is not None else "cpu", on_image=on_image,
                    )  # fmt: skip
                except ContrastiveSRError as error:
                    raise type(error)(f"{method.name} on {data.name}: {error}") from error
            if method.module is not None:
                method.module.cpu()
    costs = {method.name: _cost(method, scale) for method in loaded}
    results: dict[str, dict[str, dict[str, Any]]] = {
        data: {
            method: {**summary(found), **costs[method], "images": len(found), "scale": scale, "lr": lr_in_words}
            for method, found in by_method.items()
        }
        for data, by_method in scores.items()
    }
    notes = _notes(scale, lr_in_words, tile, overlap, on, scores, warnings_of, costs)
    _print_table(results, notes, console)
    title = f"x{scale} super-resolution: {', '.join(method.name for method in loaded)}"
    made: dict[str, Callable[[], str]] = {
        "json": lambda: as_json(results),
        "csv": lambda: as_csv(scores),
        "markdown": lambda: as_markdown(results, notes),
        "html": lambda: as_html(title, results, scores, _shown(page), notes),
    }
    for kind, path in outputs.items():
        with in_one_move(path) as unfinished:
            unfinished.write_text(made[kind](), encoding="utf-8")
    if outputs:
        console.print("Written:", ", ".join(map(str, outputs.values())), soft_wrap=True, highlight=False)


def _device(name: str | None) -> Any:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # an AssertionError is what torch built without CUDA raises
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--device: expected one such as cpu, cuda or cuda:1, got {name!r} ({reason}).") from error
    return device


def _check_outputs(outputs: dict[str, Path]) -> None:
    for kind, path in outputs.items():
        if path.suffix.lower() not in OUTPUTS[kind]:
            raise ConfigError(f"--{kind}: expected a file to write that ends in {OUTPUTS[kind][0]}, got {path}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(0, "a folder")
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise ConfigError(f"--{kind}: {path} cannot be written ({error.strerror}). Choose another one.") from error


# --------------------------------------------------------------------------------------------------- data sets


def _named(text: str) -> tuple[str | None, Path]:
    """``NAME=PATH`` in two parts; a path that is there is taken as it stands."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name.strip(), Path(path).expanduser()


def distinct(parts: Sequence[Sequence[str]], least: Sequence[int]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    Args:
        parts: of each path.
        least: how many parts each is at least made of.

    Example:
        >>> distinct([("a", "test", "HR"), ("a", "train", "HR"), ("a", "Set5")], [1, 1, 1])
        ['test/HR', 'train/HR', 'Set5']
    """
    counts = list(least)
    while True:
        names = ["/".join(path[-count:]) for path, count in zip(parts, counts, strict=True)]
        grown = [
            min(count + 1, len(path)) if names.count(name) > 1 else count
            for name, path, count in zip(names, parts, counts, strict=True)
        ]
        if grown == counts:
            return names
        counts = grown


def _labels(
    named: Sequence[tuple[str | None, Path]], parts_of: Callable[[Path], tuple[tuple[str, ...], int]]
) -> list[str]:
    """The names that were given, and for the others the shortest ends of their paths that tell them apart."""
    parts = [parts_of(path) for name, path in named if name is None]
    found = iter(distinct([path for path, _ in parts], [least for _, least in parts]))
    return [next(found) if name is None else name for name, _ in named]


def _check_distinct(names: Sequence[str], what: str, option: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice or "" in names:
        raise ConfigError(
            f"{option}: expected {what} of different names, got {twice[0] if twice else ''!r} "
            f"{names.count(twice[0]) if twice else 1} times. Give one as NAME={'FILE' if option != '--hr' else 'DIR'}."
        )


def data_sets(hr: Sequence[str], lr: Sequence[Path], scale: int) -> list[DataSet]:
    """The data sets of a command line, each under a name of its own.

    Raises:
        ConfigError: none, or as many LR folders as do not fit.
        DataError: a folder that is missing, empty, or whose images do not fit each other.
    """
    if not hr:
        raise ConfigError("--hr: expected a folder of HR images to test on, got none.")
    if lr and len(lr) != len(hr):
        raise ConfigError(
            f"--lr: expected one for each --hr, in the same order, got {len(lr)} for {len(hr)}. Leave --lr out, and "
            "LR images are made of the HR images."
        )
    named = [_named(text) for text in hr]
    names = _labels(named, lambda folder: (folder.resolve().parts[1:], 1))
    _check_distinct(names, "data sets", "--hr")
    sets = []
    for number, ((_, folder), name) in enumerate(zip(named, names, strict=True)):
        files = _images(folder, "--hr")
        lr_files: list[Path] = []
        if lr:
            # DIV2K calls them 0001x4.png
            marked = f"{files[0].stem}x{scale}" in {path.stem for path in _images(lr[number], "--lr")}
            template = f"{{}}x{scale}" if marked else "{}"
            lr_files = [pair[1] for pair in pair_folders(folder, lr[number], scale, lr_name=template, cropped=True)]
        sets.append(DataSet(name, files, lr_files))
    return sets


def _images(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{option}: expected a folder of images, got {folder}, which is not there.")
    try:
        files = list_images(folder, suffixes=SUFFIXES)
    except DataError as error:
        below = [name for name in _BESIDE if (folder / name).is_dir()] if option == "--hr" else []
        hint = f" Did you mean {folder / below[0]}?" if below else ""
        raise DataError(f"{option}: {error}{hint}") from error
    return files


def _lr_maker(
    preset: str | None, scale: int, seed: int, *, given: bool
) -> tuple[Callable[[str, UInt8Image], Pair] | None, str]:
    """What makes a pair of an HR image, and how in words; None if LR images are given."""
    from contrastive_sr.degradations import build_degradation, find_preset
    from contrastive_sr.evaluation import bicubic_pair

    if given:
        return None, "given"
    if preset is None:
        return lambda name, hr: bicubic_pair(name, hr, scale), "bicubic (MATLAB-style, antialiased, 8 bits)"
    full = find_preset(preset, scale)
    degradation = build_degradation(full)
    return lambda name, hr: _degraded(name, hr, degradation, seed), f"{full}, seed {seed}"


def _degraded(name: str, hr: UInt8Image, degradation: Degradation, seed: int) -> Pair:
    """As `contrastive-sr prepare degrade` makes it with the same seed."""
    import torch

    from contrastive_sr.evaluation import Pair
    from contrastive_sr.evaluation.evaluate import as_tensor, cropped

    hr = cropped(hr, degradation.scale)
    generator = torch.Generator().manual_seed(image_seed(seed, Path(name).stem))
    return Pair(name, degradation(as_tensor(hr), generator).lr, hr)


def _pair(data: DataSet, number: int, scale: int, make: Callable[[str, UInt8Image], Pair] | None) -> Pair:
    from contrastive_sr.evaluation import Pair
    from contrastive_sr.evaluation.evaluate import as_image

    file = data.files[number]
    hr = as_image(read_rgb(file))
    if make is not None:
        try:
            return make(file.name, hr)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    lr = read_rgb(data.lr_files[number])
    return Pair(file.name, lr, hr[: lr.shape[2] * scale, : lr.shape[3] * scale])


def _look_at_all(
    sets: Sequence[DataSet],
    pairs: Callable[[DataSet], Iterator[Pair]],
    scale: int,
    bar: Progress,
    page: _Page,
    html_images: int,
) -> None:
    """Reads every image once, so that a damaged one is named now and not after an hour; chooses what the page shows."""
    from contrastive_sr.evaluation.evaluate import check_pair
    from contrastive_sr.evaluation.report import most_detailed

    task = bar.add_task("checking images", total=sum(len(data.files) for data in sets))
    for data in sets:
        count = min(html_images, len(data.files))
        chosen = {round(index * (len(data.files) - 1) / max(1, count - 1)) for index in range(count)}
        for number, pair in enumerate(pairs(data)):
            try:
                check_pair(pair, scale)
            except DataError as error:
                raise DataError(f"{data.name}: {error}") from error
            if number in chosen:
                page.chosen[data.name, pair.name] = most_detailed(pair.hr, CROP)
            bar.advance(task)
    bar.remove_task(task)


# ----------------------------------------------------------------------------------------- methods and measures


def _methods(
    built_in: Sequence[str], checkpoints: Sequence[str], networks: Sequence[str], scale: int, console: Console
) -> list[Method]:
    from contrastive_sr.cli.networks import with_weights
    from contrastive_sr.config import unknown
    from contrastive_sr.evaluation import bicubic

    for name in built_in:
        if name not in BUILT_IN:
            hint = " A trained network is given by --checkpoint FILE." if Path(name).suffix else ""
            raise ConfigError(f"evaluate: {unknown('method', name, list(BUILT_IN))}{hint}")
    if not built_in and not checkpoints:
        raise ConfigError("Expected something to evaluate: `bicubic`, or --checkpoint FILE, or both; got none.")
    if len(networks) not in (0, 1, len(checkpoints)) or (networks and not checkpoints):
        raise ConfigError(
            f"--network: expected one for all checkpoints, or one for each in the same order; got {len(networks)} for "
            f"{len(checkpoints)}. `auto` stands for one that is found by itself."
        )
    named = [_named(text) for text in checkpoints]
    for _, file in named:
        if not file.is_file():
            raise ConfigError(f"--checkpoint: expected an existing file, got {file}. Check the path.")
    names = _labels(named, _parts_of_checkpoint)
    _check_distinct([*built_in, *names], "methods", "--checkpoint")
    methods = [Method(name, bicubic(scale)) for name in built_in]
    for number, ((_, file), name) in enumerate(zip(named, names, strict=True)):
        network = networks[number if len(networks) > 1 else 0] if networks else "auto"
        trained = with_weights(file, None if network == "auto" else network, scale)
        if network == "auto":
            console.print(f"{escape(name)}: {escape(trained.source)}", soft_wrap=True, highlight=False)
        methods.append(Method(name, trained.call, trained.module))
    return methods


def _parts_of_checkpoint(file: Path) -> tuple[tuple[str, ...], int]:
    parts = tuple(part for part in file.resolve().with_suffix("").parts[1:] if part != "models")
    # net_g_latest says nothing: the run's folder does
    return parts, 2 if parts[-1].startswith(_GENERIC) else 1


def _measures(scale: int, lpips_weights: Path | None, device: Any) -> tuple[dict[str, Measure], list[str]]:
    """NIQE and LPIPS as far as they can be had, and a line for each that cannot."""
    measures: dict[str, Measure] = {}
    left_out = []
    try:
        measures["niqe"] = _niqe(scale)
    except HostError:
        left_out.append("NIQE is left out: it is BasicSR's, which is not installed or broken (contrastive-sr doctor).")
    from contrastive_sr.evaluation import lpips

    if lpips_weights is not None:
        measures["lpips"] = lpips.load_lpips(lpips_weights, device)
        return measures, left_out
    try:
        weights = lpips.cached_weights()
        if weights.is_file():
            measures["lpips"] = lpips.load_lpips(weights, device)
        else:
            left_out.append(
                f"LPIPS is left out: the AlexNet it needs is not on this machine. Give torchvision's {weights.name} by "
                "--lpips-weights; nothing is downloaded here."
            )
    except HostError as error:
        left_out.append(f"LPIPS is left out: {error}")
    return measures, left_out


def _niqe(border: int) -> Measure:
    """BasicSR's, on Y without the border.

    Raises:
        HostError: BasicSR is missing or broken.
    """
    import numpy as np

    from contrastive_sr.hosts.basicsr.host import import_basicsr

    calculate_niqe = import_basicsr("basicsr.metrics.niqe").calculate_niqe

    def niqe(sr: UInt8Image, hr: UInt8Image) -> float | None:
        if min(sr.shape[:2]) < _SMALLEST_NIQE + 2 * border:
            return None
        with warnings.catch_warnings():
            # of blocks without any texture, which it leaves out
            warnings.simplefilter("ignore")
            value = float(calculate_niqe(sr[..., ::-1], border))
        return value if np.isfinite(value) else None

    return niqe


def _cost(method: Method, scale: int) -> dict[str, float | None]:
    from contrastive_sr.evaluation import cost

    if method.module is None:
        return {"parameters": None, "multiply_adds": None}
    parameters = sum(parameter.numel() for parameter in method.module.parameters())
    width, height = (length // scale for length in _COUNTED)
    try:
        return {"parameters": parameters, "multiply_adds": cost(method.module, height, width).multiply_adds}
    except ConfigError:  # a network that cannot run without data
        return {"parameters": parameters, "multiply_adds": None}


# ------------------------------------------------------------------------------------------------------- output


def _bar() -> Progress:
    columns = (
        TextColumn("[bold]{task.description}", markup=True),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _keep(page: _Page, dataset: str, pair: Pair, method: str, sr: UInt8Image, score: Score) -> None:
    key = dataset, pair.name
    if key not in page.chosen:
        return
    left, top, right, bottom = page.chosen[key]
    kept = page.images.setdefault(key, {"HR": pair.hr[top:bottom, left:right].copy()})
    kept[method] = sr[top:bottom, left:right].copy()
    page.notes.setdefault(key, {"HR": ""})[method] = f"{score.values['psnr_y']:.2f} dB"


def _shown(page: _Page) -> list[Shown]:
    from contrastive_sr.evaluation.report import Shown

    shown = []
    for (dataset, name), box in page.chosen.items():
        images = page.images[dataset, name]
        ordered = {label: image for label, image in images.items() if label != "HR"} | {"HR": images["HR"]}
        shown.append(Shown(dataset, name, box, ordered, page.notes[dataset, name]))
    return shown


def _notes(
    scale: int,
    lr: str,
    tile: int | None,
    overlap: int,
    device: Any,
    scores: dict[str, dict[str, list[Score]]],
    left_out: list[str],
    costs: dict[str, dict[str, float | None]],
) -> list[str]:
    import torch

    on_gpu, threads = device.type == "cuda", torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if on_gpu else f"a CPU ({threads} thread{'s' * (threads != 1)})"
    first = [next(iter(methods.values())) for methods in scores.values()]
    notes = [
        f"x{scale}; LR: {lr}. HR is cropped to a multiple of {scale}. Grey images are read as RGB.",
        f"PSNR and SSIM on Y, of 8-bit images, without a border of {scale} pixels; means over images.",
        f"Seconds per image and the most memory one took beyond what was held before (weights, LR image), on {where}"
        f"{'' if on_gpu else '; memory is the resident memory of the process'}.",
    ]
    if any("niqe" in score.values for found in first for score in found):
        small = sum(score.values["niqe"] is None for found in first for score in found)
        notes.append(
            "NIQE is BasicSR's, on Y without the border"
            + (f"; images too small for its blocks of {_SMALLEST_NIQE} pixels are left out: {small}." if small else ".")
        )
    if any("lpips" in score.values for found in first for score in found):
        notes.append("LPIPS is version 0.1 with AlexNet, of whole RGB images.")
    if any(values["multiply_adds"] is not None for values in costs.values()):
        notes.append(f"Multiply-adds for an HR image of {_COUNTED[0]} x {_COUNTED[1]}.")
    if tile is not None:
        notes.append(f"Super-resolved in tiles of {tile} LR pixels with an overlap of {overlap}.")
    return notes + left_out


def _print_table(results: dict[str, dict[str, dict[str, Any]]], notes: Sequence[str], console: Console) -> None:
    from contrastive_sr.evaluation.report import COLUMNS, arrow, columns_of, lines_of

    def table_of(columns: Sequence[str]) -> Table:
        table = Table()
        table.add_column("data set", overflow="fold")
        table.add_column("method", overflow="fold")
        for name in columns:
            table.add_column(f"{COLUMNS[name].title} {arrow(name)}", justify="right", no_wrap=True)
        for number, line in enumerate(lines):
            last = number + 1 == len(lines) or lines[number + 1].dataset != line.dataset
            new = number == 0 or lines[number - 1].dataset != line.dataset
            cells = [
                f"[bold]{cell.text}[/bold]" if cell.best else cell.text
                for name, cell in zip(every, line.cells, strict=True)
                if name in columns
            ]
            table.add_row(escape(line.dataset) if new else "", escape(line.method), *cells, end_section=last)
        return table

    every, lines = columns_of(results), lines_of(results)
    console = for_tables(console)
    columns = list(every)
    # on a narrow screen the quality is left
    for name in ("multiply_adds", "parameters", "memory_mib", "seconds"):
        if Measurement.get(console, console.options, table_of(columns)).maximum < console.width:
            break
        columns = [column for column in columns if column != name]
    console.print(table_of(columns))
    if columns != every:
        missing = ", ".join(COLUMNS[name].title for name in every if name not in columns)
        notes = [f"Left out on so narrow a screen: {missing}. --csv, --json, --markdown and --html have all.", *notes]
    for note in notes:
        console.print(f"- {note}", soft_wrap=True, highlight=False, markup=False)
