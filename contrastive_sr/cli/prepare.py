"""The commands of `contrastive-sr prepare` that write data sets of the papers, or of any folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrastive_sr._install import install
from contrastive_sr.cli.bars import progress_bars
from contrastive_sr.cli.tables import Screen
from contrastive_sr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from contrastive_sr.data.prepare import PairedArchive, Part, PartResult, Prepared


class HostLayout(str, Enum):
    """Which host's options and configs have to find the data set."""

    basicsr = "basicsr"
    mmagic = "mmagic"
    both = "both"


Scales = Annotated[list[int], typer.Option("--scale", help="Of the LR images, 2 to 8; may be repeated.")]
Size = Annotated[int, typer.Option(help="Height and width of sub-images, in HR.")]
Step = Annotated[int, typer.Option(help="From one sub-image to the next, in HR.")]
Thresh = Annotated[int, typer.Option(help="A rest at the edge that is wider than this gets a sub-image of its own.")]
Lmdb = Annotated[bool, typer.Option("--lmdb/--no-lmdb", help="Write an lmdb of each folder as well.")]
Layout = Annotated[
    HostLayout, typer.Option(help="datasets/NAME (BasicSR), data/NAME (MMagic), or the first and a link to it (both).")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")]
SubImages = Annotated[
    bool, typer.Option("--sub-images/--no-sub-images", help="Cut training images, so that they are read faster.")
]
Clean = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="HR images to train on as well, with LR images made of them."),
]
Out = Annotated[Path | None, typer.Argument(metavar="[OUT]", help="Root of the data set.", show_default=False)]


def prepare_folder(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of HR images, also in folders below it.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Root of the data set, such as datasets/NAME.")],
    scale: Scales = [4],  # noqa: B006, typer's way
    sub_images: Annotated[
        bool, typer.Option("--sub-images/--no-sub-images", help="Cut images, so that they are read faster.")
    ] = True,
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    test: Annotated[
        bool, typer.Option("--test", help="A test set: whole images, in the folders GTmod12 and LRbicx4.")
    ] = False,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write a data set of any folder: HR images, MATLAB-style bicubic LR images, and lists.

    Goes on where it was stopped. Images that cannot be used are named at the end; the exit code is then 1.
    """
    _needs_packages(lmdb)
    from contrastive_sr.data.prepare import Cut, check_apart, folder_parts

    with _as_options():
        parts = folder_parts(source, out, scale, Cut(size, step, thresh) if sub_images else None, test)
    check_apart(parts, out, source, below=True)
    _run(parts, out, "folder", lmdb, layout, workers)


def prepare_div2k(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder with the extracted DIV2K_train_HR, and what else there is.")
    ],
    out: Out = None,
    scale: Scales = [4],  # noqa: B006
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write DIV2K as the shipped configs want it, into datasets/DIV2K; SRC may be that folder.

    LR images are the archive's own where it has them (DIV2K_train_LR_bicubic/X4), and otherwise made. Validation images
    stay whole. Goes on where it was stopped.
    """
    _needs_packages(lmdb)
    from contrastive_sr.data.prepare import Cut, check_apart, div2k_parts

    out = _place(out, "DIV2K", layout)
    with _as_options():
        parts = div2k_parts(source, scale, Cut(size, step, thresh))
    check_apart(parts, out, source, below=False)
    _run(parts, out, "div2k", lmdb, layout, workers)


def prepare_flickr2k(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The extracted folder Flickr2K, with Flickr2K_HR.")],
    out: Out = None,
    scale: Scales = [4],  # noqa: B006
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write Flickr2K into datasets/Flickr2K; with DIV2K beside it, also links to both in datasets/DF2K.

    LR images are the archive's own where it has them (Flickr2K_LR_bicubic/X4), and otherwise made. Goes on where it was
    stopped.
    """
    _needs_packages(lmdb)
    from contrastive_sr.data.prepare import Cut, check_apart, flickr2k_parts

    out = _place(out, "Flickr2K", layout)
    with _as_options():
        parts = flickr2k_parts(source, scale, Cut(size, step, thresh))
    check_apart(parts, out, source, below=False)
    _run(parts, out, "flickr2k", lmdb, layout, workers)


def prepare_realsr(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="RealSR, or a folder with HR and LR.")],
    out: Out = None,
    scale: Annotated[int, typer.Option(help="Of the pairs: 2, 3 or 4; 1 of HR and LR of equal size.")] = 4,
    camera: Annotated[str | None, typer.Option(help="Pairs of one camera alone: Canon or Nikon.")] = None,
    clean: Clean = None,
    sub_images: SubImages = False,
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write RealSR's pairs under equal names into datasets/RealSR_x4, as the shipped configs want them.

    Nothing of it is made smaller here: LR images are those of the cameras. Goes on where it was stopped.
    """
    from contrastive_sr.data.prepare import REALSR

    cut = (size, step, thresh) if sub_images else None
    _run_pairs(REALSR, source, out, scale, cut, lmdb, layout, workers, camera=camera, clean=clean)


def prepare_drealsr(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DRealSR, with Train_x4 and Test_x4 in it or below.")],
    out: Out = None,
    scale: Annotated[int, typer.Option(help="Of the pairs: 2, 3 or 4.")] = 4,
    clean: Clean = None,
    sub_images: SubImages = False,
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write DRealSR's pairs under equal names into datasets/DRealSR_x4, in the folders of RealSR.

    Nothing of it is made smaller here: LR images are those of the cameras. Goes on where it was stopped.
    """
    from contrastive_sr.data.prepare import DREALSR

    cut = (size, step, thresh) if sub_images else None
    _run_pairs(DREALSR, source, out, scale, cut, lmdb, layout, workers, clean=clean)


def prepare_camerasr(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="City100, with City100_iPhoneX in it.")],
    out: Out = None,
    camera: Annotated[str | None, typer.Option(help="Pairs of one camera alone: iPhoneX or NikonD5500.")] = None,
    sub_images: SubImages = False,
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write CameraSR's pairs, of equal size, into datasets/CameraSR_x1, in the folders of RealSR.

    LR images have been enlarged to HR's size by the authors, so that networks and `evaluate` have --scale 1. As in
    Cria-CL pairs 001 to 020 are for testing. Goes on where it was stopped.
    """
    from contrastive_sr.data.prepare import CAMERASR

    cut = (size, step, thresh) if sub_images else None
    _run_pairs(CAMERASR, source, out, 1, cut, lmdb, layout, workers, camera=camera)


def prepare_ntire2020(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder with the extracted Corrupted-tr-x and so on.")],
    out: Out = None,
    sub_images: SubImages = True,
    size: Size = 480,
    step: Step = 240,
    thresh: Thresh = 0,
    lmdb: Lmdb = False,
    layout: Layout = HostLayout.both,
    workers: Workers = None,
) -> None:
    """Write NTIRE2020's real-world SR, Track 1, x4, into datasets/NTIRE2020_x4, in the folders of RealSR.

    The challenge has no pairs to train on. HR are the corrupted source images (Corrupted-tr-x) and the clean target
    images (Corrupted-tr-y) alike, as Cria-CL counts them, and their LR images are made by bicubic downsampling. Test
    pairs are the archive's own: corrupted LR, clean HR. Goes on where it was stopped.
    """
    from contrastive_sr.data.prepare import NTIRE2020

    cut = (size, step, thresh) if sub_images else None
    _run_pairs(NTIRE2020, source, out, 4, cut, lmdb, layout, workers)


def _needs_packages(lmdb: bool) -> None:
    for module, name in (("PIL", "Pillow"), *([("lmdb", "lmdb")] if lmdb else [])):
        try:
            __import__(module)
        except ImportError as error:
            raise DataError(f"{name} is not installed. Try: {install('prepare')}") from error


@contextmanager
def _as_options() -> Iterator[None]:
    """Arguments in error messages as the options that they are here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error


def _place(out: Path | None, name: str, layout: HostLayout) -> Path:
    """Where the shipped configs look for a data set, unless a place was given."""
    return out if out is not None else Path("data" if layout is HostLayout.mmagic else "datasets") / name


def _run_pairs(
    archive: PairedArchive,
    source: Path,
    out: Path | None,
    scale: int,
    cut: tuple[int, int, int] | None,
    lmdb: bool,
    layout: HostLayout,
    workers: int | None,
    *,
    camera: str | None = None,
    clean: Path | None = None,
) -> None:
    _needs_packages(lmdb)
    from contrastive_sr.data.prepare import Cut, check_apart, paired_parts

    out = _place(out, f"{archive.name}_x{scale}", layout)
    with _as_options():
        parts = paired_parts(archive, source, scale, Cut(*cut) if cut else None, camera=camera, clean=clean)
    check_apart(parts, out, source, below=False)
    _run(parts, out, archive.name.lower(), lmdb, layout, workers)


def _run(parts: Sequence[Part], out: Path, kind: str, lmdb: bool, layout: HostLayout, workers: int | None) -> None:
    from contrastive_sr.data.prepare import join_df2k, prepare
    from contrastive_sr.hosts.prepared import link_for_other_host

    if out.exists() and not out.is_dir():
        raise ConfigError(f"Expected a folder to write to, got the file {out}.")
    console, errors = Screen(), Screen(stderr=True)
    with progress_bars() as bar:
        task = bar.add_task("looking at the archive", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        try:
            prepared = prepare(parts, out, kind, lmdb=lmdb, workers=workers or _cores(), on_progress=show)
        except KeyboardInterrupt:
            errors.print("Stopped. The same command goes on from here.")
            raise typer.Exit(130) from None
    for result in prepared.parts:
        for line in _told(result, out):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if prepared.reused:
        console.print(f"{prepared.reused} images were there from an earlier run", soft_wrap=True, highlight=False)
    joint = join_df2k(out)
    if joint is not None:
        console.print(
            f"{joint[0]}: {joint[1]} links to the HR sub-images of DIV2K and Flickr2K", soft_wrap=True, markup=False
        )
    if layout is HostLayout.both:
        for folder in (out, *([joint[0]] if joint else [])):
            told = link_for_other_host(folder)
            if told:
                console.print(f"{folder}: {told}", soft_wrap=True, highlight=False, markup=False)
    _end(prepared, parts, errors)


def _told(result: PartResult, out: Path) -> list[str]:
    """What a person should know about a part."""
    part, layout = result.part, result.part.layout
    what = f"{result.images} of {len(part.sources)} {part.title}"
    pieces = f" in {result.files} sub-images" if layout.cut else ""
    lines = [f"{out / layout.hr}: {what}{pieces}"]
    for scale, folder in layout.lr.items():
        made = sum(scale not in source.lr for source in part.sources)
        origin = "made from HR, MATLAB-style bicubic" if made == len(part.sources) else "the archive's own"
        origin += f", and {made} made from HR, MATLAB-style bicubic" if 0 < made < len(part.sources) else ""
        lines.append(f"{out / folder}: LR images at x{scale}, {origin}")
    lines.append(f"{out / part.meta}: list of the HR images")
    if result.small and layout.cut is not None:
        names = ", ".join(result.small[:3]) + (", ..." if len(result.small) > 3 else "")
        lines.append(f"note: {len(result.small)} with a side shorter than {layout.cut.size}, kept whole: {names}")
    return lines + [f"note: {note}" for note in part.notes]


def _end(prepared: Prepared, parts: Sequence[Part], errors: Screen) -> None:
    if not prepared.problems:
        return
    errors.print("[red]error:[/red]", end=" ")
    rest = "All else is written and can be used" if any(part.files for part in prepared.parts) else "Nothing is written"
    text = (
        f"{len(prepared.problems)} thing(s) are not as they should be. {rest}; once they are mended, the same command "
        "adds what is missing."
    )
    for line in (text, *(f"- {problem}" for problem in prepared.problems)):
        errors.print(line, soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(1)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
