"""The commands of `contrastive-sr`. Hosts, torch and plotting are imported inside the command that needs them."""

from __future__ import annotations

import errno
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.markup import escape

import contrastive_sr
from contrastive_sr.cli import prepare as prepare_commands
from contrastive_sr.cli.commands import Commands
from contrastive_sr.cli.tables import Screen, for_ascii, show_table
from contrastive_sr.errors import ConfigError, ContrastiveSRError, own_words
from contrastive_sr.hosts.flags import check_flags, help_on_flags

if TYPE_CHECKING:
    from contrastive_sr.hosts.basicsr.patches import Change
    from contrastive_sr.hosts.doctor import Finding

app = Commands(help="Contrastive learning for image super-resolution, in PyTorch, BasicSR and MMagic.")
prepare = Commands(help="Write data sets that the shipped configs use.")
app.add_typer(prepare, name="prepare")
plot = Commands(help="Draw what trained networks have learnt, and what they do to images.")
app.add_typer(plot, name="plot")

_UNWRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
)

COMPARING = (
    *("PCL", "CRLSR", "DASR", "CriaCL", "MPF", "MCL", "InfoNCE", "BidirectionalNCE", "SRNCE"),
    *("ContrastiveRegularization", "CriterionTerm", "DegradationContrast"),
)
"""The methods that `samples` has something to draw of."""

console = Screen()
errors = Screen(stderr=True)

# options that several commands have
_Scale = Annotated[int, typer.Option(min=1, help="How many times larger HR is.")]
_Tile = Annotated[int | None, typer.Option(help="Super-resolve in tiles of so many LR pixels a side, to save memory.")]
_Overlap = Annotated[int, typer.Option(help="LR pixels at the edges of tiles that are dropped.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: the GPU if there is one.")]
_Checkpoints = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]FILE", help="A trained network of BasicSR, MMagic or spandrel; may be repeated."),
]
_Networks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="What the checkpoint is of: a config (.yml; .py, which is run), a name such as EDSR, or options: "
        "'{type: EDSR, num_feat: 32}'. Once for all checkpoints or once for each. Default: auto, the option file "
        "beside BasicSR's models, or what spandrel finds.",
    ),
]
_Preset = Annotated[
    str | None, typer.Option(metavar="PRESET", help="Make LR with a preset, e.g. dasr-isotropic. Default: bicubic.")
]
_LPIPS = Annotated[Path | None, typer.Option(metavar="FILE", help="torchvision's AlexNet, for LPIPS.")]
_Rgb = Annotated[bool | None, typer.Option("--rgb", help="Measure PSNR and SSIM on RGB too.")]


class Framework(str, Enum):
    """The host that trains."""

    basicsr = "basicsr"
    mmagic = "mmagic"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"contrastive-sr {contrastive_sr.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------------- doctor

_MARKS = {"ok": "[green]ok", "note": "[blue]note", "broken": "[red]broken", "missing": "[yellow]missing"}


def _print_findings(findings: list[Finding]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "package", "version", "what was seen"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[finding.state], finding.subject, finding.version or "-", escape(finding.detail))
    show_table(console, table)
    # plain print: commands are longer than the terminal, and are copied
    for remedy in dict.fromkeys(f"{finding.subject}: {finding.remedy}" for finding in findings if finding.remedy):
        print(remedy)


def _print_changes(changes: list[Change], nothing: str) -> None:
    if not changes:
        console.print(nothing)
    for change in changes:
        # plain print: paths and lines of code may be longer than the terminal and must not be wrapped
        print(f"{change.file}:{change.line}")
        for mark, lines in (("-", change.before), ("+", change.after)):
            for line in lines:
                print(f"  {mark} {line}")


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended on disk; prints each change.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Bring back every file that --fix changed.")] = False,
    basicsr: Annotated[
        Path | None, typer.Option(help="A BasicSR checkout to look at in place of the installed one. Its code is run.")
    ] = None,
) -> None:
    """Show what is wrong with the installed hosts, and how to repair it. Exit code 1 if something is broken."""
    from contrastive_sr.hosts.basicsr import patches
    from contrastive_sr.hosts.doctor import examine

    if fix and undo:
        raise ConfigError("Expected one of --fix and --undo, got both.")
    root = basicsr.resolve() if basicsr is not None else None
    if undo:
        _print_changes(patches.undo(root), "Nothing to undo.")
        return
    if fix:
        if root is None and patches.find_basicsr() is None:
            console.print("BasicSR is not installed: nothing to mend on disk.")
        else:
            _print_changes(patches.fix(root), "Nothing to mend on disk.")
    with errors.status("Looking at the hosts (imports each of them, some seconds) ..."):
        findings = examine(root)
    _print_findings(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------------- data, configs


@prepare.command("demo")
def prepare_demo(
    out: Annotated[
        Path | None, typer.Option(help="Root of the data set. Default: datasets/demo, or datasets/demo_x2 and so on.")
    ] = None,
    scale: Annotated[int, typer.Option(min=2, max=4, help="Of the LR images.")] = 4,
) -> None:
    """Write a small paired data set from the photographs that come with scikit-image, for the demo configs."""
    from contrastive_sr.cli.bars import one_bar
    from contrastive_sr.data.demo import prepare_demo_data

    out = out or Path("datasets/demo" if scale == 4 else f"datasets/demo_x{scale}")
    with one_bar("cutting photographs") as on_photo:
        data = prepare_demo_data(out, on_photo, scale)
    verb = "Found" if data.reused else "Wrote"
    console.print(
        f"{verb} {data.train} training pairs and {data.val} held-out pairs in {out}", soft_wrap=True, markup=False
    )


@prepare.command("degrade")
def prepare_degrade(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of HR images: png, jpg or bmp, 8 bits.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; missing or empty.")],
    preset: Annotated[str, typer.Option(help="What is done to the images, e.g. dasr-isotropic-x4.")],
    scale: Annotated[int | None, typer.Option(help="The scale, if the preset's name does not end in it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of kernels and noise.")] = 0,
) -> None:
    """Write a test set for blind SR: HR, LR and a JSON of every kernel and noise level.

    Presets: {dasr,crl}-{isotropic,anisotropic}-x{2,3,4}, crl-spatial-x{2,3,4}, random-field-x{2,3,4}; and the papers'
    tables, such as dasr-table1-width1.8-x4, all listed in docs/degradations.md.
    """
    from contrastive_sr.cli.bars import one_bar
    from contrastive_sr.data import write_degraded

    with one_bar("degrading images") as on_image:
        written = write_degraded(source, target, preset, scale, seed=seed, on_image=on_image)
    pairs = "1 pair" if written.images == 1 else f"{written.images} pairs"
    console.print(f"Wrote {pairs} at x{written.scale} ({written.preset}) in {target}", soft_wrap=True, markup=False)


prepare.command("folder")(prepare_commands.prepare_folder)
prepare.command("div2k")(prepare_commands.prepare_div2k)
prepare.command("flickr2k")(prepare_commands.prepare_flickr2k)
prepare.command("realsr")(prepare_commands.prepare_realsr)
prepare.command("drealsr")(prepare_commands.prepare_drealsr)
prepare.command("camerasr")(prepare_commands.prepare_camerasr)
prepare.command("ntire2020")(prepare_commands.prepare_ntire2020)


@app.command()
def configs(
    folder: Annotated[Path, typer.Argument(help="Where to write the folders plugins/ and configs/.")],
    scale: Annotated[int, typer.Option(min=2, max=4, help="Of networks, data and crops; 4 is what is shipped.")] = 4,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there and differ.")] = False,
) -> None:
    """Write out the option files of both hosts that come with the package, at x4, x3 or x2.

    Those at x3 and x2 have the scale in their name, so that all can lie in one folder.
    """
    from contrastive_sr.hosts.shipped import MISSING, write_shipped

    try:
        written = write_shipped(folder, scale=scale, force=force)
    except OSError as error:
        raise ConfigError(_unwritable(error)) from error
    for path in written:
        print(path)
    if MISSING[scale]:
        missing = ", ".join(MISSING[scale])
        console.print(f"Left out: {missing}. An RRDBNet enlarges by 1, 2 or 4.", soft_wrap=True, highlight=False)
    console.print(f"Wrote {len(written)} files." if written else "All files are there already.")


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="One of methods, losses, embeddings, samples, criteria, networks, degradations."),
    ] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Run this Python file first: what it registers is listed too."),
    ] = None,
) -> None:
    """List what configs and code can name, each with its paper and a line on what it is."""
    from contrastive_sr.cli.catalogue import print_catalogue

    if imports:
        from contrastive_sr.cli.imports import import_files

        import_files(imports)
    print_catalogue(kind, console)


@app.command()
def schema(
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Run this Python file first: what it registers is known too."),
    ] = None,
) -> None:
    """Print the JSON schema of `methods:` and `degradation:`, by which editors complete and check configs."""
    from contrastive_sr.cli.schema import schema as made

    if imports:
        from contrastive_sr.cli.imports import import_files

        import_files(imports)
    print(made())


# ----------------------------------------------------------------------------------------------------- training


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="[OPTIONS] [FLAGS OF THE HOST]",
    epilog=help_on_flags(),
)
def train(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(help="A BasicSR option file (.yml) or an MMagic config (.py), which is code and is run.")
    ],
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Run this Python file first, e.g. with a method of your own."),
    ] = None,
) -> None:
    """Train with a config of either host, which also takes flags of its own."""
    if config.suffix not in (".yml", ".yaml", ".py"):
        raise ConfigError(
            f"Expected a BasicSR option file (.yml, .yaml) or an MMagic config (.py), got {config}. "
            "`contrastive-sr configs DIR` writes out ready ones."
        )
    if not config.is_file():
        raise ConfigError(
            f"Expected the file {config}, but there is none. `contrastive-sr configs DIR` writes out ready ones."
        )
    check_flags("MMagic" if config.suffix == ".py" else "BasicSR", context.args)
    if imports:
        from contrastive_sr.cli.imports import import_files

        import_files(imports)
    from contrastive_sr.hosts.endings import losses_in_words

    resume = "--resume" if config.suffix == ".py" else "--auto_resume"
    try:
        with losses_in_words():
            if config.suffix == ".py":
                from contrastive_sr.hosts.mmagic.runner import train as run_mmagic

                run_mmagic(config, context.args)
            else:
                from contrastive_sr.hosts.basicsr.runner import train as run_basicsr

                run_basicsr(config, context.args)
    except KeyboardInterrupt:
        errors.print(f"Stopped. {resume} goes on from the last checkpoint, if there is one.")
        raise typer.Exit(130) from None


@app.command(no_args_is_help=True)
def evaluate(
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD]...", help="Built-in methods: bicubic.", show_default=False)
    ] = None,
    checkpoint: _Checkpoints = None,
    network: _Networks = None,
    hr: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]DIR", help="A folder of HR images; may be repeated.")
    ] = None,
    lr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR",
            help="LR images for each --hr, in the same order; or, without --hr, photos that have no HR images.",
        ),
    ] = None,
    degradation: _Preset = None,
    *,
    scale: Annotated[int, typer.Option(min=1, help="How many times larger HR is; at 1 LR is given, by --lr.")],
    seed: Annotated[int, typer.Option(help="Seed of the degradation.")] = 0,
    tile: _Tile = None,
    overlap: _Overlap = 32,
    rgb: _Rgb = None,
    lpips_weights: _LPIPS = None,
    fetch_lpips: Annotated[
        bool, typer.Option("--fetch-lpips", help="Have torchvision download that AlexNet, if it is not here yet.")
    ] = False,
    device: _Device = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write data set -> method -> means.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line for each image.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with tables and sliders.")] = None,
    html_images: Annotated[int, typer.Option(min=0, help="Images of each data set in the page.")] = 5,
) -> None:
    """Measure networks on test sets: PSNR and SSIM on Y, NIQE, LPIPS, seconds, memory, size.

    For example: contrastive-sr evaluate bicubic --checkpoint net_g_latest.pth --network EDSR --hr Set5 --scale 4

    With --lr PHOTOS and no --hr: what needs no HR images, NIQE, blur and periodic dots.
    """
    from contrastive_sr.cli.evaluate import run_evaluation

    files = {"json": json, "csv": csv, "markdown": markdown, "html": html}
    try:
        run_evaluation(
            methods or [],
            checkpoints=checkpoint or [],
            networks=network or [],
            hr=hr or [],
            lr=lr or [],
            degradation=degradation,
            scale=scale,
            seed=seed,
            tile=tile,
            overlap=overlap,
            rgb=bool(rgb),
            lpips_weights=lpips_weights,
            fetch_lpips=fetch_lpips,
            device=device,
            outputs={kind: path for kind, path in files.items() if path is not None},
            html_images=html_images,
            console=console,
        )
    except KeyboardInterrupt:
        errors.print("Stopped. Nothing was written.")
        raise typer.Exit(130) from None


@app.command()
def upscale(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos: png, jpg, bmp, tif or webp, 8 bits.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the PNG files, which have the photos' names.")],
    *,
    checkpoint: Annotated[Path, typer.Option(help="A trained network of BasicSR, MMagic or spandrel.")],
    network: Annotated[
        str, typer.Option(metavar="NETWORK", help="What the checkpoint is of, as for `contrastive-sr evaluate`.")
    ] = "auto",
    scale: _Scale,
    tile: _Tile = None,
    overlap: _Overlap = 32,
    device: _Device = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw parts of five photos beside bicubic enlargement: .png, .pdf or .svg."),
    ] = None,
) -> None:
    """Super-resolve a folder of photos, which need no HR images. After a stop the same command goes on.

    For example: contrastive-sr upscale photos sr --checkpoint net_g_latest.pth --scale 4 --sheet sheet.png
    """
    from contrastive_sr.cli.upscale import upscale_folder

    try:
        upscale_folder(
            folder,
            out,
            checkpoint=checkpoint,
            network=network,
            scale=scale,
            tile=tile,
            overlap=overlap,
            device=device,
            sheet=sheet,
            console=console,
        )
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on.")
        raise typer.Exit(130) from None


@app.command()
def cost(
    files: Annotated[
        list[Path], typer.Argument(metavar="CONFIG", help="BasicSR option files (.yml) or MMagic configs (.py).")
    ],
    size: Annotated[str, typer.Option(help="Of the LR image: 224, or width x height such as 320x180.")] = "224",
) -> None:
    """Print parameters and multiply-adds of the SR networks of configs. Nothing is computed."""
    from contrastive_sr.cli.cost import print_costs

    print_costs(files, size, console)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="net_g_*.pth of a BasicSR training.")],
    target: Annotated[Path, typer.Argument(help="The file to write; must not exist.")],
) -> None:
    """Write a BasicSR network's weights under the names that spandrel knows (RCAN, RRDBNet).

    An RCAN must have BasicSR's default img_range, rgb_mean and res_scale, which its checkpoint does not tell.
    """
    from contrastive_sr.hosts.basicsr.export import export as write

    network = write(checkpoint, target)
    console.print(f"Wrote the {network} of {checkpoint} to {target}", soft_wrap=True, markup=False)


@plot.command("crops", no_args_is_help=True)
def plot_crops(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE[@LEFT,TOP,SIDE]",
            help="HR images, each with the square to show, in its pixels. Default: where edges are steepest.",
        ),
    ],
    checkpoint: _Checkpoints = None,
    network: _Networks = None,
    bicubic: Annotated[bool, typer.Option("--bicubic", help="Show bicubic enlargement first.")] = False,
    lr: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An LR image for each IMAGE, in the same order.")
    ] = None,
    degradation: _Preset = None,
    *,
    scale: _Scale,
    seed: Annotated[int, typer.Option(help="Seed of the degradation.")] = 0,
    tile: _Tile = None,
    overlap: _Overlap = 32,
    lpips_weights: _LPIPS = None,
    device: _Device = None,
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .pdf or .svg.")] = Path("crops.png"),
) -> None:
    """Draw parts of photographs under several networks beside HR, enlarged without smoothing.

    For example: contrastive-sr plot crops zebra.png@320,120,64 --checkpoint l1=a.pth --checkpoint pcl=b.pth --scale 4
    """
    from contrastive_sr.cli.crops import plot_crops as draw

    draw(
        images,
        out,
        methods=["bicubic"] if bicubic else [],
        checkpoints=checkpoint or [],
        networks=network or [],
        lr=lr or [],
        degradation=degradation,
        scale=scale,
        seed=seed,
        tile=tile,
        overlap=overlap,
        lpips_weights=lpips_weights,
        device=device,
        console=console,
    )


@plot.command("degradations")
def plot_degradations(
    checkpoint: Annotated[Path, typer.Argument(help="A file with a degradation encoder: net_g_*.pth of DASR, ...")],
    data: Annotated[Path, typer.Option(help="Folder of HR images that were not trained on: png, jpg or bmp, 8 bits.")],
    without_contrast: Annotated[
        Path | None, typer.Option(help="Another one, trained without contrast, to be shown beside it.")
    ] = None,
    width: Annotated[
        list[float] | None, typer.Option(help="A kernel width; may be repeated. Default: 0.2, 1.0, 1.8, 2.6, 3.4.")
    ] = None,
    noise: Annotated[
        list[float] | None, typer.Option(help="A noise level, 0 to 255; may be repeated. Default: 0, 5, 10, 15.")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="A degradation by its preset, to be given at least twice: tells these apart, too."),
    ] = None,
    scale: Annotated[int, typer.Option(help="Downsampling factor that the encoder was trained for.")] = 4,
    images: Annotated[int, typer.Option(min=3, help="How many images of the folder to take.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the noise and of the random encoder.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("degradations.png"),
) -> None:
    """Draw a t-SNE of images under several degradations, and print how well an encoder tells these apart.

    Accuracy is that of 10 nearest neighbours, which never show the same image. A random encoder is shown beside it.
    """
    from contrastive_sr.cli.plot import plot_degradations as draw

    draw(
        checkpoint,
        data,
        out,
        without_contrast=without_contrast,
        widths=width,
        noise_levels=noise,
        presets=preset,
        scale=scale,
        images=images,
        seed=seed,
        console=console,
    )


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of trainings: experiments/NAME, work_dirs/NAME; also a log file."),
    ],
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .pdf or .svg.")] = Path("compare.png"),
    keys: Annotated[
        list[str] | None,
        typer.Option(help="What to draw, e.g. PSNR; may be repeated. Default: validated metrics and losses."),
    ] = None,
    smooth: Annotated[int, typer.Option(min=1, help="Draw the mean of so many logged values of the training.")] = 1,
) -> None:
    """Draw the curves of trainings with either host into one figure, and print where each of them ended.

    Also while they train; a training that was resumed is one curve.
    """
    from contrastive_sr.cli.compare import compare_runs

    compare_runs(runs, out, keys=keys, smooth=smooth, console=console)


@app.command()
def samples(
    image: Annotated[Path, typer.Argument(help="An HR image: png, jpg, bmp, tif or webp, 8 bits.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"A method with its defaults, instead of --config: {', '.join(COMPARING)}, or one of your own.",
            autocompletion=lambda: list(COMPARING),
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A BasicSR option file (.yml) or MMagic config (.py): each of its methods.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint of that config: SR images are those of its network.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .pdf or .svg.")] = Path("samples.png"),
    size: Annotated[int, typer.Option(min=32, help="Sides of the patch that is taken from the image's middle.")] = 192,
    scale: Annotated[int, typer.Option(help="SR scale, with --method.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of new weights, samples and degradations.")] = 0,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Run this Python file first, e.g. with a method of your own."),
    ] = None,
) -> None:
    """Draw what a method compares: anchor, positives and negatives, with their similarities to the anchor.

    LR is the image, shrunk as MATLAB does, or degraded as the config says. SR is its bicubic enlargement unless there
    is a --checkpoint or the method needs a network of its own.
    """
    from contrastive_sr.cli.samples import draw_samples

    if imports:
        from contrastive_sr.cli.imports import import_files

        import_files(imports)
    draw_samples(
        image,
        out,
        method=method,
        config=config,
        checkpoint=checkpoint,
        size=size,
        scale=scale,
        seed=seed,
        console=console,
    )


@app.command()
def demo(
    framework: Annotated[Framework, typer.Option(help="The host that trains.")] = Framework.basicsr,
    out: Annotated[Path, typer.Option(help="Folder for results, checkpoints and logs.")] = Path("demo"),
    data: Annotated[Path, typer.Option(help="Root of the data set; written if missing.")] = Path("datasets/demo"),
    steps: Annotated[
        int, typer.Option(min=10, help="Training steps with L1 and with L1 + PCL; their start has three times as many.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all trainings.")] = 0,
    lpips_weights: _LPIPS = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw finished trainings away, and train again.")] = False,
) -> None:
    """Train EDSR with L1, and from there on with L1 and with L1 + PCL, and show the difference."""
    from contrastive_sr.cli.demo import run_demo

    run_demo(
        framework.value, out, data, steps=steps, seed=seed, lpips_weights=lpips_weights, fresh=fresh, console=console
    )


@app.command(no_args_is_help=True)
def study(
    base: Annotated[
        Path | None,
        typer.Argument(help="A BasicSR option file (.yml) or MMagic config (.py), or a study file with all settings."),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=KEY=VALUE;...]",
            help="What is trained: the base with changes, dotted keys and YAML values; repeated. The first is what "
            "others are compared with.",
        ),
    ] = None,
    arms: Annotated[Path | None, typer.Option(metavar="FILE", help="Arms as YAML: name to changes.")] = None,
    seeds: Annotated[str | None, typer.Option(help="How many, or which: 3, or 0,1,2. Default: 3.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training. Default: the base's.")] = None,
    start_steps: Annotated[
        int | None, typer.Option(min=1, help="Train a start for each seed first: the base without methods.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="FILE", help="A checkpoint to start from; {seed} in it stands for the seed.")
    ] = None,
    hr: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]DIR", help="A folder of HR images to test on; repeated.")
    ] = None,
    lr: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="LR images for each --hr, in the same order.")
    ] = None,
    degradation: _Preset = None,
    rgb: _Rgb = None,
    lpips_weights: _LPIPS = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for all results. Default: study.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Trainings at a time. Default: 1.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same command goes on.")] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Run this Python file first, e.g. with a method of your own."),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make tables and pictures of --out anew; nothing is trained.")
    ] = False,
) -> None:
    """Train arms with several seeds, measure them, and say which differences are more than chance.

    For example: contrastive-sr study base.yml --arm l1 --arm "pcl=methods=[{type: PCL, loss_share: 0.2}]" --hr Set5
    """
    from contrastive_sr.cli.study import Settings, parse_arm, parse_seeds, read_arms, run_study

    given = [parse_arm(text) for text in arm or []]
    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise ConfigError(f"--arm: expected different names, got {', '.join(names)}.")
    settings = Settings(
        arms={**(read_arms(arms) if arms is not None else {}), **dict(given)},
        seeds=parse_seeds(seeds) if seeds is not None else [],
        steps=steps,
        start_steps=start_steps,
        start=start,
        hr=hr or [],
        lr=lr or [],
        degradation=degradation,
        rgb=rgb,
        lpips_weights=lpips_weights,
        out=out,
        processes=processes,
        minutes=minutes,
        imports=imports or [],
    )
    try:
        run_study(base, settings, report_only=report_only, console=console)
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on.")
        raise typer.Exit(130) from None


def main() -> None:
    """Entry point: errors raised on purpose end with one message and exit code 1."""
    for_ascii(sys.stdout, sys.stderr)
    try:
        app()
    except ContrastiveSRError as error:
        _end(own_words(error))
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _end(_unwritable(error))


def _unwritable(error: OSError) -> str:
    place = error.filename or "A file that was being written"  # Python names it only where it is opened
    return f"{place}: {error.strerror}. Expected a place that can be written."


def _end(message: str) -> NoReturn:
    # in one piece: a process that loads images may be writing, too; of several that train, which one
    world = os.environ.get("WORLD_SIZE", "1")
    which = f" (rank {os.environ.get('RANK', '?')} of {world})" if world != "1" else ""
    errors.print(f"[red]error{which}:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    sys.exit(1)
