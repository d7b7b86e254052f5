"""A test set of degraded images from a folder of HR images, the same for the same seed wherever it is made."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrastive_sr.errors import DataError
from contrastive_sr.hosts.pairs import MANIFEST, list_images

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class DegradedSet:
    """What `write_degraded` wrote.

    Args:
        folder: root; `HR`, `LRx{scale}` and `degradations.json` lie in it.
        images: number of pairs.
        preset: full name of the preset.
        scale: its scale.
    """

    folder: Path
    images: int
    preset: str
    scale: int


def write_degraded(
    source: Path,
    target: Path,
    preset: str,
    scale: int | None = None,
    seed: int = 0,
    on_image: Callable[[str, int, int], None] | None = None,
) -> DegradedSet:
    """Writes HR images, cropped to a multiple of the scale, their LR images, and a JSON of how each was made.

    An image's degradation and noise depend on the seed and on its name without ending, not on the other images.

    Args:
        source: folder of HR images, 8 bits; grey ones are written as RGB.
        target: folder to write, missing or empty. It appears when all of it is there.
        preset: a name in `contrastive_sr.degradations.PRESETS`, with its scale at the end or without.
        scale: the scale, if the name does not say it.
        seed: of the degradations and the noise.
        on_image: called as (name, done, total) after each image.

    Returns:
        What was written.

    Raises:
        ConfigError: an unknown preset, or a scale that it does not have.
        DataError: no images, one that cannot be read or used, or a target with files in it.
    """
    import torch

    from contrastive_sr.degradations import PRESETS, build_degradation, find_preset

    target = target.resolve()
    name = find_preset(preset, scale)
    degradation = build_degradation(name)
    if not source.is_dir():
        raise DataError(f"Expected a folder of HR images at {source}, but there is none.")
    files = list_images(source)
    _check_names(files)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"Expected a folder to write that is missing or empty, got {target}. Choose another one.")
    lr_folder = f"LRx{degradation.scale}"
    images: dict[str, dict[str, Any]] = {}
    target.parent.mkdir(parents=True, exist_ok=True)
    # written beside and moved at the end: whoever is stopped half-way leaves nothing that looks complete
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
        partial = Path(beside) / "set"
        for folder in ("HR", lr_folder):
            (partial / folder).mkdir(parents=True)
        for done, file in enumerate(files, start=1):
            hr = _cropped(read_rgb(file), degradation.scale)
            generator = torch.Generator().manual_seed(image_seed(seed, file.stem))
            try:
                lr, parameters = degradation(hr, generator)
            except DataError as error:
                raise DataError(f"{file}: {error}") from error
            saved = f"{file.stem}.png"
            _save(hr, partial / "HR" / saved)
            _save(lr, partial / lr_folder / saved)
            images[saved] = {"source": file.name, **_in_numbers(parameters)}
            if on_image is not None:
                on_image(file.name, done, len(files))
        manifest = {
            "preset": name,
            "degradation": PRESETS[name],
            "kernel_size": degradation.kernel_size,
            "seed": seed,
            "images": dict(sorted(images.items())),
        }
        (partial / MANIFEST).write_text(_as_json(manifest))
        partial.replace(target)
    return DegradedSet(target, len(files), name, degradation.scale)


def _check_names(files: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise DataError(f"{file}: expected one of {', '.join(SUFFIXES)}. Convert it, or take it out of the folder.")
        other = seen.setdefault(file.stem, file)
        if other is not file:
            raise DataError(
                f"Expected images of different names, got {other.name} and {file.name} in {file.parent}, which would "
                f"both be written as {file.stem}.png. Rename one of them."
            )


def image_seed(seed: int, stem: str) -> int:
    """The seed of one image's degradation and noise, from that of the set and the image's name without ending."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}".encode()).digest()[:7], "big")


def read_rgb(file: Path) -> Tensor:
    """Reads an image of 8 bits, grey or in colour, turned as its camera says.

    Args:
        file: one of `SUFFIXES`.

    Returns:
        (1, 3, H, W) in [0, 1].

    Raises:
        DataError: Pillow is not installed, or the file is damaged, has 16 bits a channel, transparent parts or colours
            that are not RGB.
    """
    import torch

    try:
        import numpy as np
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError('Pillow is not installed. Try: pip install "contrastive-sr[demo]"') from error
    try:
        with file.open("rb") as stream:
            header = stream.read(26)
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image ({error}). Replace it, or leave it out.") from error
    # Pillow cuts colour images of 16 bits down to 8 without a word, so the file itself is asked
    if (header.startswith(b"\x89PNG") and header[24] == 16) or image.mode.startswith(("I", "F")):
        raise DataError(
            f"{file} has more than 8 bits a channel; expected 8. Convert it first, so that HR is what you chose."
        )
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        raise DataError(f"{file}: expected a grey or RGB image, got one of mode {image.mode}. Convert it to RGB first.")
    may_be_transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if may_be_transparent and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise DataError(f"{file} has transparent parts; expected an opaque image. Put it on a background first.")
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _cropped(hr: Tensor, scale: int) -> Tensor:
    height, width = (length // scale * scale for length in hr.shape[-2:])
    return hr[..., :height, :width]


def _save(image: Tensor, path: Path) -> None:
    from PIL import Image

    Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(path)


def _in_numbers(parameters: dict[str, Tensor]) -> dict[str, Any]:
    """What was drawn for one image; a kernel follows from its widths and its angle."""

    def plain(values: Any) -> Any:
        # nine digits give a float32 back to the last bit
        return [plain(value) for value in values] if isinstance(values, list) else float(f"{values:.9g}")

    return {name: plain(value[0].tolist()) for name, value in parameters.items() if name != "kernel"}


def _as_json(manifest: dict[str, Any]) -> str:
    """A line for each image, so that two sets can be compared."""
    head = {key: value for key, value in manifest.items() if key != "images"}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest["images"].items())
    text = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    return f'{{\n{text},\n "images": {{\n{lines}\n }}\n}}\n'


def write_with_bar(source: Path, target: Path, preset: str, scale: int | None, seed: int) -> DegradedSet:
    """Same as `write_degraded`, with a bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("degrading images", total=None)
        return write_degraded(
            source, target, preset, scale, seed, lambda name, done, total: bar.update(task, completed=done, total=total)
        )
