"""`contrastive-sr upscale`: photos that have no HR images, super-resolved into a folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from contrastive_sr.cli.bars import bars_of
from contrastive_sr.cli.evaluate import check_checkpoint, find_device, load_network
from contrastive_sr.cli.outputs import check_picture, check_writable, needs_plot
from contrastive_sr.errors import named_in_errors


def upscale_folder(
    folder: Path,
    out: Path,
    *,
    checkpoint: Path,
    network: str,
    scale: int,
    tile: int | None,
    overlap: int,
    device: str | None,
    sheet: Path | None,
    console: Console,
) -> None:
    """Super-resolves the photos of a folder that are not done yet, and draws a few of them.

    Args:
        folder: of photos.
        out: where the PNG files go.
        checkpoint: of the network.
        network: a config, a name, options, or ``auto``.
        scale: of the network.
        tile: sides of the tiles, in LR pixels; None: whole photos.
        overlap: of the tiles, in LR pixels.
        device: None: the GPU, if there is one.
        sheet: a picture to write, of parts of a few photos beside bicubic enlargement.
        console: where lines go.

    Raises:
        ConfigError: arguments or a network that cannot be used.
        DataError: photos that cannot be used, or files in `out` that were made of something else.
        HostError: something that is needed is not installed.
    """
    if sheet is not None:
        with needs_plot():
            import matplotlib  # noqa: F401
    from contrastive_sr.data.images import is_hidden
    from contrastive_sr.evaluation import NamedNetwork, sr_files, upscale
    from contrastive_sr.evaluation.comparison import CHECKING
    from contrastive_sr.evaluation.upscale import save_sheet
    from contrastive_sr.hosts.trained import checkpoint_names, fingerprint

    check_checkpoint(checkpoint)
    with named_in_errors("FOLDER"):
        files = sr_files(folder, out)
    check_writable(next(iter(files.values())), "OUT")
    if sheet is not None:
        check_picture(sheet, "--sheet", read=[*files, *files.values()])
    others = sorted(
        path.name for path in folder.iterdir() if path.is_file() and path not in files and not is_hidden(path.name)
    )
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        text = f"Passed over, since their endings are not those of images: {len(others)} ({shown})."
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    on = find_device(device)
    (name,) = checkpoint_names([(None, checkpoint)])
    with console.status("getting ready ..."):
        trained = load_network(name, checkpoint, network, scale, console)
    with bars_of(CHECKING) as show:
        written = upscale(
            NamedNetwork(name, trained.call, trained.module),
            files,
            scale,
            made_by=fingerprint(checkpoint, trained.source),
            tile=tile,
            overlap=overlap,
            device=on,
            on_progress=show,
        )
    there = f"; {len(files) - written} were there" if written < len(files) else ""
    console.print(
        f"Wrote {written} of {len(files)} images to {out}{there}.", soft_wrap=True, highlight=False, markup=False
    )
    if sheet is not None:
        save_sheet(sheet, files, scale)
        console.print(f"Drawn: {sheet}", soft_wrap=True, highlight=False, markup=False)
