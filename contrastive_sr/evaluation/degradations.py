"""How well degradations can be read off an encoder's vectors: neighbours and a picture; needs scikit-learn and
matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.images import list_images, read_rgb
from contrastive_sr.degradations import Degradation
from contrastive_sr.errors import DataError, NonFiniteError, named_in_errors
from contrastive_sr.evaluation.plots import names_as_they_are

NEIGHBOURS = 10
FOLDS = 5
LARGEST = 512
"""Sides of what is taken of an image, from its middle, in HR pixels."""
_SMALLEST = 24
_COLOURS = ("#4477AA", "#66CCEE", "#228833", "#CCBB44", "#EE6677", "#AA3377", "#999999", "#DDAA77", "#222255")


class Representations(NamedTuple):
    """What an encoder made of images under several degradations.

    Attributes:
        vectors: (N, D).
        classes: (N,) numbers of the degradations.
        contents: (N,) numbers of the images.
    """

    vectors: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    contents: npt.NDArray[np.int64]


def read_contents(folder: Path, count: int, device: torch.device | str) -> tuple[list[Tensor], int]:
    """The middles of colour images: of a large folder every second, third and so on, from the first.

    Args:
        folder: of HR images.
        count: how many at most.
        device: where they go.

    Returns:
        (1, 3, H, W) each, RGB in [0, 1], and how many grey images were left out.

    Raises:
        DataError: fewer than 3 images in colour, or one that cannot be read or is smaller than the kernels.
    """
    files = list_images(folder)
    chosen = files[:: max(1, len(files) // count)][:count]
    images = []
    for file in chosen:
        image = read_rgb(file)
        if (image == image[:, :1]).all():
            continue
        if min(image.shape[-2:]) < _SMALLEST:
            raise DataError(
                f"{file} is {image.shape[-1]} x {image.shape[-2]}; expected at least {_SMALLEST} x {_SMALLEST} pixels."
            )
        top, left = (max(0, length - LARGEST) // 2 for length in image.shape[-2:])
        images.append(image[..., top : top + LARGEST, left : left + LARGEST].to(device))
    if len(images) < 3:
        raise DataError(
            f"Expected at least 3 images in colour in {folder}, so that they can be compared, got {len(images)}."
        )
    return images, len(chosen) - len(images)


def degraded_versions(
    images: Iterable[Tensor], degradations: Sequence[Degradation], generator: torch.Generator | None = None
) -> list[Tensor]:
    """Each image under each degradation.

    Args:
        images: (1, 3, H, W) each, RGB in [0, 1], of any size; cropped at the right and bottom to a multiple of the
            scale.
        degradations: C of them, of one scale.
        generator: source of randomness.

    Returns:
        For each image, (C, 3, h, w).

    Raises:
        DataError: an image smaller than the kernels.
    """
    versions = []
    for image in images:
        height, width = (length - length % degradations[0].scale for length in image.shape[-2:])
        hr = image[..., :height, :width]
        versions.append(torch.cat([degradation(hr, generator).lr for degradation in degradations]))
    return versions


@torch.no_grad()
def encode(encoder: Callable[[Tensor], Tensor], versions: Sequence[Tensor]) -> Representations:
    """The representation of each version of each image.

    Args:
        encoder: (C, 3, h, w) to (C, D), in eval mode, on the device of the images.
        versions: for each image, (C, 3, h, w), as :func:`degraded_versions` gives them.

    Returns:
        One row for each version.

    Raises:
        NonFiniteError: a representation holds NaN or infinity.
    """
    vectors = [encoder(images).double().cpu().numpy() for images in versions]
    if not all(np.isfinite(of_image).all() for of_image in vectors):
        raise NonFiniteError("the representations hold NaN or infinity. Take another checkpoint of its training.")
    counts = [len(images) for images in versions]
    return Representations(
        np.concatenate(vectors),
        np.concatenate([np.arange(count) for count in counts]),
        np.repeat(np.arange(len(counts)), counts),
    )


def knn_accuracy(representations: Representations, neighbours: int = NEIGHBOURS) -> float:
    """How often the degradation of an image is that of most of its neighbours, which show other images.

    The images are dealt into five parts. Neighbours of a part's vectors are sought in the others, so that no neighbour
    shows the same image and nothing was fitted to the images that are judged. Euclidean distance of vectors with each
    feature brought to mean 0 and variance 1.

    Args:
        representations: vectors of at least two images.
        neighbours: how many to ask; with few images, no more than there are images in the other four parts.

    Returns:
        From 0 to 1; guessing gives one over the number of degradations.

    Raises:
        DataError: a single image.

    Example:
        >>> classes, contents = np.tile([0, 1], 6), np.repeat(np.arange(6), 2)
        >>> knn_accuracy(Representations(classes[:, None] + 0.1 * contents[:, None] % 0.3, classes, contents), 3)
        1.0
    """
    folds = _folds(representations.contents)
    neighbours = min(neighbours, len(np.unique(representations.contents)) * (folds.n_splits - 1) // folds.n_splits)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(neighbours))
    vectors, classes, contents = representations
    predicted = cross_val_predict(model, vectors, classes, groups=contents, cv=folds)
    return float(np.mean(predicted == classes))


def _folds(contents: npt.NDArray[np.int64]) -> GroupKFold:
    count = len(np.unique(contents))
    if count < 2:
        raise DataError(f"Expected at least 2 images, so that others can be asked of each, got {count}.")
    return GroupKFold(min(FOLDS, count))


def tsne(vectors: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """(N, D) vectors to (N, 2) places, by scikit-learn's t-SNE of perplexity 30, less for fewer than 91 vectors."""
    scaled = StandardScaler().fit_transform(vectors)
    places: npt.NDArray[np.float64] = TSNE(
        perplexity=min(30.0, (len(vectors) - 1) / 3), init="pca", random_state=seed
    ).fit_transform(scaled)
    return places


class Panel(NamedTuple):
    """One plot of a figure of representations.

    Attributes:
        title: title of the plot.
        representations: what it shows.
        labels: one for each degradation.
        legend: what the labels are, with their unit; the legend's title.
    """

    title: str
    representations: Representations
    labels: Sequence[str]
    legend: str = ""


@names_as_they_are
def save_tsne(path: Path, rows: Sequence[Sequence[Panel]], title: str) -> None:
    """Draw a t-SNE for each panel, a point for each image, coloured by its degradation (DASR, Fig. 3 and 6).

    Args:
        path: picture to write.
        rows: panels row by row; those of a row have the same labels.
        title: title of the whole figure.
    """
    columns = max(map(len, rows))
    figure = Figure(figsize=(3.7 * columns + 1.2, 3.7 * len(rows) + 0.5), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=13)
    plots = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(plots, rows, strict=True):
        for plot, panel in zip(line, panels, strict=True):
            places = tsne(panel.representations.vectors)
            for number, label in enumerate(panel.labels):
                here = places[panel.representations.classes == number]
                plot.scatter(
                    here[:, 0], here[:, 1], s=9, linewidths=0, color=_COLOURS[number % len(_COLOURS)], label=label
                )
            plot.set_title(panel.title, fontsize=11)
            plot.set_xticks([])
            plot.set_yticks([])
        line[-1].legend(
            title=panels[-1].legend,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            fontsize=10,
            markerscale=2,
            alignment="left",
        )
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:])


def compare_encoders(
    encoders: Mapping[str, nn.Module],
    images: Sequence[Tensor],
    kinds: Mapping[str, Mapping[str, Degradation]],
    *,
    units: Mapping[str, str] | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda what: None,
) -> tuple[list[list[Panel]], dict[str, list[float]]]:
    """What encoders know of degradations of several kinds.

    Args:
        encoders: by name, in evaluation mode; moved to the device of the images.
        images: (1, 3, H, W) each, RGB in [0, 1], all on one device.
        kinds: by kind, such as ``"kernel width"``, the degradations by their labels.
        units: by kind, what the labels are counted in; left out for one without a unit.
        seed: of the noise.
        on_progress: called with what is done next, in words.

    Returns:
        A row of panels for each kind, one for each encoder; and :func:`knn_accuracy` by encoder, for each kind.
    """
    panels: list[list[Panel]] = []
    accuracies: dict[str, list[float]] = {name: [] for name in encoders}
    for kind, degradations in kinds.items():
        on_progress(f"degrading images, {kind} ...")
        generator = torch.Generator().manual_seed(seed)
        versions = degraded_versions(images, list(degradations.values()), generator)
        panels.append([])
        for name, encoder in encoders.items():
            on_progress(f"{name}: {kind} ...")
            with named_in_errors(name):
                representations = encode(encoder.to(images[0].device), versions)
            accuracy = knn_accuracy(representations)
            accuracies[name].append(accuracy)
            title = f"{name}\n{kind}, kNN {accuracy:.2f}"
            legend = "\n".join(filter(None, (kind, (units or {}).get(kind))))
            panels[-1].append(Panel(title, representations, list(degradations), legend))
    return panels, accuracies
