"""`contrastive-sr evaluate`: networks on test sets, as the papers measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from contrastive_sr._install import install
from contrastive_sr.cli.bars import bars_of
from contrastive_sr.cli.outputs import about_run, check_writable
from contrastive_sr.cli.tables import fits, for_tables, show_table
from contrastive_sr.errors import ConfigError, HostError, named_in_errors

if TYPE_CHECKING:
    import torch

    from contrastive_sr.evaluation import DataSet, LRSource, NamedNetwork
    from contrastive_sr.hosts.trained import TrainedNetwork

BUILT_IN = ("bicubic",)


def run_evaluation(
    methods: Sequence[str],
    *,
    checkpoints: Sequence[str],
    networks: Sequence[str],
    hr: Sequence[str],
    lr: Sequence[str],
    degradation: str | None,
    scale: int,
    seed: int,
    tile: int | None,
    overlap: int,
    rgb: bool,
    lpips_weights: Path | None,
    fetch_lpips: bool,
    device: str | None,
    outputs: Mapping[str, Path],
    html_images: int,
    console: Console,
) -> None:
    """Measures methods on data sets, prints a table, and writes the files that were asked for.

    Names, files, images and networks are all checked before the first image is measured.

    Args:
        methods: built-in ones, ``bicubic``.
        checkpoints: ``FILE`` or ``NAME=FILE``.
        networks: none, one for all checkpoints, or one for each: a config, a name, options, or ``auto``.
        hr: folders of HR images, ``DIR`` or ``NAME=DIR``.
        lr: a folder of LR images for each, or none; without `hr`, folders of photos that have no HR images, ``DIR`` or
            ``NAME=DIR``.
        degradation: a preset that LR images are made with; None: bicubic.
        scale: the scale; at 1 LR images are given.
        seed: of the degradation.
        tile: sides of the tiles, in LR pixels, see `contrastive_sr.evaluation.evaluate`; None: whole images.
        overlap: of the tiles, in LR pixels.
        rgb: measure PSNR and SSIM on RGB too.
        lpips_weights: file of an AlexNet; None: torchvision's, if it has been downloaded before.
        fetch_lpips: whether torchvision is to download it now.
        device: None: the GPU, if there is one.
        outputs: file by what is written to it, see `contrastive_sr.evaluation.report.ENDINGS`.
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
        raise HostError(f"{error.name or 'A package'} is not installed. Try: {install('evaluate')}") from error
    from contrastive_sr._checks import check_count
    from contrastive_sr.evaluation import compare_networks
    from contrastive_sr.evaluation.blur import blur_note
    from contrastive_sr.evaluation.comparison import CHECKING, check_networks
    from contrastive_sr.evaluation.jaggedness import jaggedness_note, jaggedness_warnings
    from contrastive_sr.evaluation.pattern import pattern_note, pattern_warnings
    from contrastive_sr.evaluation.report import COLOURS, COLOURS_WITH_HR, write_reports
    from contrastive_sr.evaluation.tiles import check_tiles
    from contrastive_sr.hosts.metrics import NOTES, load_metrics

    check_count(scale, "--scale")
    if tile is not None:
        check_tiles(tile, overlap)
    with_hr = bool(hr) or not lr
    for option, given in (("--rgb", rgb), ("--lpips-weights", lpips_weights), ("--fetch-lpips", fetch_lpips)):
        if given and not with_hr:
            raise ConfigError(f"{option}: expected --hr with it, for a comparison with HR images; got none.")
    if fetch_lpips and lpips_weights is not None:
        raise ConfigError("Expected one of --fetch-lpips, which downloads a file, and --lpips-weights; got both.")
    on = find_device(device)
    _check_outputs(outputs)
    source = lr_source(lr, degradation, scale, seed)
    sets = data_sets(hr, [Path(folder) for folder in lr], scale) if with_hr else photo_sets(lr)
    if fetch_lpips:
        from contrastive_sr.evaluation.lpips import fetch_weights

        with named_in_errors("--fetch-lpips"):
            lpips_weights = fetch_weights()
    with console.status("getting ready ..."):
        compared = named_networks(methods, checkpoints, networks, scale, console)
        # before a training can have overwritten the files
        about = about_run(COLOURS_WITH_HR if with_hr else COLOURS, _checkpoint_files(checkpoints))
        metrics, left_out = load_metrics(scale, lpips_weights, on, rgb=rgb, with_hr=with_hr)
        check_networks(compared, scale, on)
    with bars_of(CHECKING) as show:
        evaluation = compare_networks(
            compared,
            sets,
            source,
            scale,
            metrics=metrics,
            tile=tile,
            overlap=overlap,
            device=on,
            shown=html_images if "html" in outputs else 0,
            on_progress=show,
        )
    results = evaluation.results()
    of_metrics = {**NOTES, "pattern_2": pattern_note(results, scale), "jaggedness": jaggedness_note(results)}
    if "blur" in metrics:
        of_metrics["blur"] = blur_note(results)
    notes = evaluation.notes(of_metrics) + left_out
    warnings = pattern_warnings(results, scale) + jaggedness_warnings(results, BUILT_IN[0])
    title = f"x{scale} super-resolution: {', '.join(network.name for network in compared)}"
    try:
        write_reports(
            outputs,
            title,
            results,
            evaluation.scores,
            shown=evaluation.shown,
            notes=notes,
            warnings=warnings,
            about=about,
        )
    finally:  # what cannot be written, as on a full disk, is at least seen
        _print_table(results, notes, warnings, console)
    if outputs:
        files = ", ".join(map(str, outputs.values()))
        console.print("Written:", files, soft_wrap=True, highlight=False, markup=False)
    if evaluation.failed:
        raise ConfigError("\n".join(evaluation.failed))


# --------------------------------------------------------------------------------------------------- arguments


def find_device(name: str | None) -> torch.device:
    """The device of a command line; without a name the GPU, if there is one.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        # an AssertionError is what torch built without CUDA raises, an ImportError one without another backend
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--device: expected one such as cpu, cuda or cuda:1, got {name!r} ({reason}).") from error
    return device


def _check_outputs(outputs: Mapping[str, Path]) -> None:
    from contrastive_sr.evaluation.report import ENDINGS

    for kind, path in outputs.items():
        if path.suffix.lower() not in ENDINGS[kind]:
            raise ConfigError(f"--{kind}: expected a file to write that ends in {ENDINGS[kind][0]}, got {path}.")
        check_writable(path, f"--{kind}")


def _named(text: str) -> tuple[str | None, Path]:
    """``NAME=PATH`` in two parts; an existing path with an equals sign in it is a path without a name."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name.strip(), Path(path).expanduser()


def _check_distinct(names: Sequence[str], what: str, option: str, form: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice or "" in names:
        raise ConfigError(
            f"{option}: expected {what} of different names, got {twice[0] if twice else ''!r} "
            f"{names.count(twice[0]) if twice else 1} times. Give one as {form}."
        )


def lr_source(lr: Sequence[str | Path], preset: str | None, scale: int, seed: int) -> LRSource:
    """Where the LR images of a command line come from.

    Args:
        lr: folders of LR images, or none.
        preset: that LR images are made with; None: bicubic.
        scale: how many times larger HR is.
        seed: of the degradation.

    Raises:
        ConfigError: both, no such preset, or none of them at scale 1.
    """
    from contrastive_sr.evaluation import bicubic_lr, degraded_lr, given_lr

    if lr and preset:
        raise ConfigError("Expected one of --lr, which gives LR images, and --degradation, which makes them; got both.")
    if lr:
        return given_lr()
    if scale == 1:
        raise ConfigError(
            "--lr: expected a folder of LR images for each --hr, got none. At scale 1, LR images made from HR would be "
            "HR itself."
        )
    return bicubic_lr(scale) if preset is None else degraded_lr(preset, scale, seed)


def data_sets(hr: Sequence[str], lr: Sequence[Path], scale: int) -> list[DataSet]:
    """The data sets of a command line, each under a name of its own.

    Args:
        hr: folders of HR images, ``DIR`` or ``NAME=DIR``.
        lr: a folder of LR images for each, or none.
        scale: how many times larger HR is.

    Raises:
        ConfigError: none, equal names, or LR folders for some alone.
        DataError: a folder that is missing, empty, or whose images do not fit each other.
    """
    from contrastive_sr.evaluation.data_sets import HR_FOLDERS, DataSet, images_of, paired_lr
    from contrastive_sr.evaluation.naming import labels

    if not hr:
        raise ConfigError(
            "--hr: expected a folder of HR images to test on, got none. For photos that have none, `contrastive-sr "
            "evaluate` takes --lr alone."
        )
    if lr and len(lr) != len(hr):
        raise ConfigError(
            f"--lr: expected one for each --hr, in the same order, got {len(lr)} for {len(hr)}. Leave --lr out, and "
            "LR images are made of the HR images."
        )
    named = [_named(text) for text in hr]
    names = labels(named, _set_name)
    _check_distinct(names, "data sets", "--hr", "NAME=DIR")
    sets = []
    for number, ((_, folder), name) in enumerate(zip(named, names, strict=True)):
        with named_in_errors("--hr"):
            files = images_of(folder, HR_FOLDERS)
        if lr:
            with named_in_errors("--lr"):
                images_of(lr[number])
        sets.append(DataSet(name, files, paired_lr(folder, lr[number], scale) if lr else []))
    return sets


def _set_name(folder: Path) -> tuple[tuple[str, ...], int]:
    """The parts of a data set's name: without a last one such as `HR`, which is what the page calls the reference."""
    from contrastive_sr.evaluation.data_sets import HR_FOLDERS

    parts = folder.resolve().parts[1:]
    return (parts[:-1] if len(parts) > 1 and parts[-1] in HR_FOLDERS else parts), 1


def photo_sets(lr: Sequence[str]) -> list[DataSet]:
    """Data sets of photos that have no HR images, each under a name of its own.

    Args:
        lr: folders, ``DIR`` or ``NAME=DIR``.

    Raises:
        ConfigError: equal names.
        DataError: a folder that is missing or empty.
    """
    from contrastive_sr.evaluation.data_sets import DataSet, images_of
    from contrastive_sr.evaluation.naming import labels

    named = [_named(text) for text in lr]
    names = labels(named)
    _check_distinct(names, "data sets", "--lr", "NAME=DIR")
    with named_in_errors("--lr"):
        return [DataSet(name, [], images_of(folder)) for name, (_, folder) in zip(names, named, strict=True)]


def load_network(name: str, file: Path, network: str, scale: int, console: Console) -> TrainedNetwork:
    """The network of a command line's checkpoint; says where its structure was found, if that was not given.

    Args:
        name: for the line on it.
        file: the checkpoint.
        network: a config, a name, options, or ``auto``.
        scale: of the network.
        console: where the line goes.

    Raises:
        ConfigError: see :func:`contrastive_sr.hosts.trained.trained_network`.
        HostError: a host that is needed is missing or broken.
    """
    from contrastive_sr.hosts.trained import trained_network

    trained = trained_network(file, None if network == "auto" else network, scale)
    if network == "auto":
        console.print(f"{escape(name)}: {escape(trained.source)}", soft_wrap=True, highlight=False)
    return trained


def check_checkpoint(file: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        ConfigError: it is not.
    """
    if not file.is_file():
        raise ConfigError(f"--checkpoint: expected an existing file, got {file}. Check the path.")


def _checkpoint_files(checkpoints: Sequence[str]) -> dict[str, Path]:
    """The checkpoints of a command line by the names that results have for them."""
    from contrastive_sr.hosts.trained import checkpoint_names

    named = [_named(text) for text in checkpoints]
    return dict(zip(checkpoint_names(named), (file for _, file in named), strict=True))


def named_networks(
    built_in: Sequence[str], checkpoints: Sequence[str], networks: Sequence[str], scale: int, console: Console
) -> list[NamedNetwork]:
    """The networks of a command line, each under a name of its own.

    Args:
        built_in: names of built-in ones, ``bicubic``.
        checkpoints: ``FILE`` or ``NAME=FILE``.
        networks: none, one for all checkpoints, or one for each: a config, a name, options, or ``auto``.
        scale: of the networks.
        console: where it is said how a network's structure was found.

    Raises:
        ConfigError: none, equal names, or a network that cannot be used.
        HostError: a host that is needed is missing or broken.
    """
    from contrastive_sr.config import unknown
    from contrastive_sr.evaluation import NamedNetwork, bicubic
    from contrastive_sr.hosts.trained import checkpoint_names

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
        check_checkpoint(file)
    names = checkpoint_names(named)
    _check_distinct(["HR", *built_in, *names], "methods", "--checkpoint", "NAME=FILE")
    compared = [NamedNetwork(name, bicubic(scale)) for name in built_in]
    for number, ((_, file), name) in enumerate(zip(named, names, strict=True)):
        network = networks[number if len(networks) > 1 else 0] if networks else "auto"
        trained = load_network(name, file, network, scale, console)
        compared.append(NamedNetwork(name, trained.call, trained.module))
    return compared


# -------------------------------------------------------------------------------------------------------- table


def _print_table(
    results: dict[str, dict[str, dict[str, Any]]], notes: Sequence[str], warnings: Sequence[str], console: Console
) -> None:
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
    # a narrow screen keeps the columns of quality
    for name in ("multiply_adds", "parameters", "memory_mib", "seconds", "pattern_2", "jaggedness", "pattern_scale"):
        if Measurement.get(console, console.options, table_of(columns)).maximum < console.width:
            break
        columns = [column for column in columns if column != name]
    if not fits(console, table_of(columns)):
        columns = every  # a list has place for all
    show_table(console, table_of(columns))
    if columns != every:
        missing = ", ".join(COLUMNS[name].title for name in every if name not in columns)
        notes = [f"Left out on so narrow a screen: {missing}. --csv, --json, --markdown and --html have all.", *notes]
    for warning in warnings:
        console.print(f"- {warning}", style="bold", soft_wrap=True, highlight=False, markup=False)
    for note in notes:
        console.print(f"- {note}", soft_wrap=True, highlight=False, markup=False)
