"""Several networks on several data sets: scores, costs, parts of images for the page, and notes on how it was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from contrastive_sr._checks import describe_error
from contrastive_sr.data.images import UInt8Image, as_image
from contrastive_sr.errors import ConfigError, ContrastiveSRError, NonFiniteError, named_in_errors
from contrastive_sr.evaluation.cost import cost
from contrastive_sr.evaluation.data_sets import DataSet, LRSource, read_pairs
from contrastive_sr.evaluation.evaluate import (
    Metric,
    Network,
    Pair,
    Score,
    check_network,
    check_pair,
    evaluate,
    summary,
)
from contrastive_sr.evaluation.padding import MULTIPLES
from contrastive_sr.evaluation.report import COLUMNS, Box, Shown, most_detailed, spread

CHECKING = "checking images"
"""What is reported while all images are read once."""
CROP = 320
"""Longest side of what the page shows of an image, in HR pixels."""
_COUNTED = 1280, 720
"""Size of the HR image for which multiply-adds are counted."""


@dataclass(frozen=True)
class NamedNetwork:
    """One network of a comparison.

    Args:
        name: for the results.
        call: the network, called as ``sr = call(lr)``.
        module: the same as a module; None for one without parameters, which runs on the CPU.
    """

    name: str
    call: Network
    module: nn.Module | None = None

    def to(self, device: torch.device | str) -> None:
        """Move the module, if there is one."""
        if self.module is not None:
            self.module.to(device)


class MetricNote(NamedTuple):
    """What has to be said of a metric.

    Attributes:
        text: a sentence, without its full stop.
        absent: the images for which it has no value, in words; empty if it always has one.
    """

    text: str
    absent: str = ""


@dataclass
class _Crops:
    """Parts of some images, collected while the networks are run."""

    boxes: dict[tuple[str, str], Box] = field(default_factory=dict)
    images: dict[tuple[str, str], dict[str, UInt8Image]] = field(default_factory=dict)
    notes: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def keep(self, data: str, pair: Pair, network: str, sr: UInt8Image, score: Score) -> None:
        key = data, pair.name
        if key not in self.boxes:
            return
        left, top, right, bottom = self.boxes[key]
        images, notes = self.images.setdefault(key, {}), self.notes.setdefault(key, {})
        if pair.hr is not None:
            images["HR"], notes["HR"] = pair.hr[top:bottom, left:right].copy(), ""
        images[network] = sr[top:bottom, left:right].copy()
        psnr, niqe = score.values["psnr_y"], score.values.get("niqe")
        notes[network] = f"{psnr:.2f} dB" if psnr is not None else "" if niqe is None else f"NIQE {niqe:.2f}"

    def drop(self, data: str, network: str) -> None:
        for (of, _), images in self.images.items():
            if of == data:
                images.pop(network, None)

    def shown(self) -> list[Shown]:
        shown = []
        for (data, name), box in self.boxes.items():
            images = self.images.get((data, name), {})
            if set(images) - {"HR"}:  # else all networks failed on the data set
                ordered = dict(sorted(images.items(), key=lambda item: item[0] == "HR"))
                shown.append(Shown(data, name, box, ordered, self.notes[data, name]))
        return shown


@dataclass(frozen=True)
class Evaluation:
    """What :func:`compare_networks` measured, and how.

    Args:
        scale: how many times larger HR is.
        lr: where LR images come from, in words.
        tile: sides of the tiles, in LR pixels, or None.
        overlap: of the tiles.
        device: where the networks ran.
        scores: data set to network to the scores of its images.
        costs: network to ``parameters`` and ``multiply_adds``; None where there is no value.
        shown: parts of some images under every network.
        failed: why networks have no values on data sets, in sentences.
    """

    scale: int
    lr: str
    tile: int | None
    overlap: int
    device: torch.device
    scores: Mapping[str, Mapping[str, Sequence[Score]]]
    costs: Mapping[str, Mapping[str, float | None]]
    shown: Sequence[Shown]
    failed: Sequence[str] = ()

    def results(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Data set to network to means, costs and how it was measured."""
        return {
            data: {
                name: {
                    **summary(scores),
                    **self.costs[name],
                    "images": len(scores),
                    "scale": self.scale,
                    "lr": self.lr,
                }
                for name, scores in of_data.items()
            }
            for data, of_data in self.scores.items()
        }

    def notes(self, of_metrics: Mapping[str, MetricNote]) -> list[str]:
        """How it was measured, in sentences.

        Args:
            of_metrics: what has to be said of further metrics, by their names; left out for one that was not measured.
        """
        scale, on_gpu, threads = self.scale, self.device.type == "cuda", torch.get_num_threads()
        where = torch.cuda.get_device_name(self.device) if on_gpu else f"a CPU ({threads} thread{'s' * (threads != 1)})"
        of_first = [score for networks in self.scores.values() for score in next(iter(networks.values()))]
        photos = sum(score.values["psnr_y"] is None and "psnr_y" not in score.failed for score in of_first)
        pairs = photos < len(of_first)
        crop = f"HR is cropped to a multiple of {scale}. " if pairs else ""
        notes = [f"x{scale}; LR: {self.lr}. {crop}Grey images are read as RGB."]
        if pairs:
            notes.append(f"PSNR and SSIM on Y, of 8-bit images, without a border of {scale} pixels; means over images.")
        if photos:
            notes.append(f"Photos without HR image: {photos}; what compares with one is left out. Means over images.")
        of_cpu = "; of bicubic on a CPU" if any("bicubic" in networks for networks in self.scores.values()) else ""
        notes.append(
            "Seconds per image and the most memory one took beyond what was held before (weights, LR image), on "
            f"{where}{of_cpu if on_gpu else '; memory is the resident memory of the process'}."
        )
        for name, note in of_metrics.items():
            if any(name in score.values for score in of_first):
                absent = self._absent(name)
                notes.append(f"{note.text}; {note.absent} are left out: {absent}." if absent else f"{note.text}.")
        notes += self._failures()
        if any(values["multiply_adds"] is not None for values in self.costs.values()):
            notes.append(f"Multiply-adds for an HR image of {_COUNTED[0]} x {_COUNTED[1]}.")
        if self.tile is not None:
            notes.append(f"Super-resolved in tiles of {self.tile} LR pixels with an overlap of {self.overlap}.")
        return notes

    def _absent(self, metric: str) -> str:
        """How many images have no value, where that is meant; by network, if these differ; empty if none."""
        counts: dict[str, int] = {}
        for networks in self.scores.values():
            for network, scores in networks.items():
                absent = sum(score.values[metric] is None and metric not in score.failed for score in scores)
                counts[network] = counts.get(network, 0) + absent
        if not any(counts.values()):
            return ""
        if len(set(counts.values())) == 1:
            return str(next(iter(counts.values())))
        return ", ".join(f"{count} of {network}" for network, count in counts.items())

    def _failures(self) -> list[str]:
        """A sentence for each metric that failed on some images."""
        found: dict[str, list[str]] = {}
        for data, networks in self.scores.items():
            for network, scores in networks.items():
                for score in scores:
                    if "seconds" in score.failed:  # the network, not a metric
                        continue
                    for metric, reason in score.failed.items():
                        found.setdefault(metric, []).append(f"{score.name} of {data} by {network} ({reason})")
        return [
            f"{COLUMNS[metric].title if metric in COLUMNS else metric} could not be measured on "
            f"{', '.join(places[:3])}{f' and {len(places) - 3} more' if len(places) > 3 else ''}; its means are over "
            "the other images."
            for metric, places in found.items()
        ] + [f"Left out: {reason}" for reason in self.failed]


def check_networks(networks: Sequence[NamedNetwork], scale: int, device: torch.device) -> None:
    """Run every network on a small grey image, see :func:`~contrastive_sr.evaluation.evaluate.check_network`.

    Raises:
        ConfigError: one cannot be used; the message names it.
        NonFiniteError: one gives NaN or infinity.
    """
    for network in networks:
        network.to(device)
        with named_in_errors(network.name):
            check_network(network.call, scale, device)
        network.to("cpu")


def compare_networks(
    networks: Sequence[NamedNetwork],
    sets: Sequence[DataSet],
    lr: LRSource,
    scale: int,
    *,
    metrics: Mapping[str, Metric] | None = None,
    tile: int | None = None,
    overlap: int = 32,
    device: torch.device | str = "cpu",
    shown: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measure networks on data sets.

    Every image is read once before anything is measured, so that a damaged one is named now and not after an hour. A
    network that fails on a data set, such as by NaN on one of its images, has no values there; all else is measured.

    Args:
        networks: what is compared, of different names, in evaluation mode, on the CPU; each is moved while it runs.
        sets: what is measured on, of different names.
        lr: where LR images come from.
        scale: how many times larger HR is.
        metrics: further ones by name, see :func:`contrastive_sr.evaluation.evaluate`.
        tile: longest side of what a network is given, in LR pixels; None: whole images.
        overlap: of tiles, in LR pixels.
        device: where networks run.
        shown: how many images of each data set to keep a part of, for the page.
        on_progress: called as (what, done, total) after each image; what is :data:`CHECKING` or a network's name.

    Raises:
        ContrastiveSRError: no network could be measured on any data set; of the first.
        DataError: images that cannot be used.
    """
    device = torch.device(device)
    total = sum(map(len, sets))
    crops = _Crops()
    done = 0
    names = {"psnr_y": None, "ssim_y": None, **dict.fromkeys(metrics or {}), "seconds": None, "memory_mib": None}
    absent: dict[str, list[Score]] = {data.name: [] for data in sets}
    failures: list[ContrastiveSRError] = []
    on_progress(CHECKING, done, total)
    for data in sets:
        chosen = spread(len(data), shown)
        for number, pair in enumerate(read_pairs(data, lr, scale)):
            with named_in_errors(data.name):
                check_pair(pair, scale)
            height, width = (side * scale for side in pair.lr.shape[-2:])
            absent[data.name].append(Score(pair.name, width, height, dict(names)))
            if number in chosen:
                crops.boxes[data.name, pair.name] = steepest(pair, scale, CROP)
            done += 1
            on_progress(CHECKING, done, total)
    scores: dict[str, dict[str, list[Score]]] = {data.name: {} for data in sets}
    for network in networks:
        done = 0
        on_progress(network.name, done, total)
        network.to(device)
        for data in sets:

            def on_image(
                pair: Pair, sr: UInt8Image, score: Score, data: DataSet = data, network: NamedNetwork = network
            ) -> None:
                nonlocal done
                crops.keep(data.name, pair, network.name, sr, score)
                done += 1
                on_progress(network.name, done, total)

            try:
                with named_in_errors(f"{network.name} on {data.name}"):
                    scores[data.name][network.name] = evaluate(
                        network.call,
                        read_pairs(data, lr, scale),
                        scale,
                        metrics=metrics,
                        tile=tile,
                        overlap=overlap,
                        device="cpu" if network.module is None else device,
                        on_image=on_image,
                    )
            except (ConfigError, NonFiniteError) as error:
                failures.append(error)
                because = dict.fromkeys(names, describe_error(error))
                scores[data.name][network.name] = [score._replace(failed=because) for score in absent[data.name]]
                crops.drop(data.name, network.name)
        network.to("cpu")
    if len(failures) == len(networks) * len(sets):
        raise failures[0]
    costs = {network.name: _cost(network.module, scale) for network in networks}
    return Evaluation(scale, lr.words, tile, overlap, device, scores, costs, crops.shown(), [*map(str, failures)])


def steepest(pair: Pair, scale: int, side: int) -> Box:
    """The part to show of an image, see :func:`most_detailed`: chosen by HR or, where there is none, by LR.

    Args:
        pair: the image.
        scale: how many times larger HR is.
        side: of the part, in HR pixels.

    Returns:
        Left, top, right, bottom, in HR pixels.
    """
    if pair.hr is not None:
        return most_detailed(pair.hr, side)
    left, top, right, bottom = most_detailed(as_image(pair.lr), side // scale)
    return left * scale, top * scale, right * scale, bottom * scale


def _cost(module: nn.Module | None, scale: int) -> dict[str, float | None]:
    if module is None:
        return {"parameters": None, "multiply_adds": None}
    parameters = sum(parameter.numel() for parameter in module.parameters())
    width, height = (length // scale for length in _COUNTED)
    for multiple in MULTIPLES:  # as the image is padded for it
        try:
            counted = cost(module, height + -height % multiple, width + -width % multiple)
        except ConfigError:
            continue
        return {"parameters": parameters, "multiply_adds": counted.multiply_adds}
    return {"parameters": parameters, "multiply_adds": None}  # a network that cannot run without data
