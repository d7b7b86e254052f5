"""Draws the figures of docs/losses, one a loss, by calling the losses themselves.

python docs/draw_losses.py          all of them, into docs/figures
python docs/draw_losses.py srnce    one of them

Blue is what is pulled together, vermillion what is pushed apart, black the anchor.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from contrastive_sr.functional import (
    criteria_alignment,
    criteria_uniformity,
    dual_contrastive_loss,
    embedded_distance,
    info_nce,
    multi_positive_nce,
    queue_nce,
    srnce,
)
from contrastive_sr.losses import DegradationQueueLoss, ImageContrastLoss
from contrastive_sr.samples import GaussianBlur, HighResolution, PastOutput, Sharpen, UpsampledLowResolution, draw

FOLDER = Path(__file__).resolve().parent / "figures"
PULL, PUSH, ANCHOR, GREY, TEXT = "#0072B2", "#D55E00", "#000000", "#8C8C8C", "#444444"
SMALL, NORMAL = 7.5, 8.5


def draw_info_nce() -> Figure:
    """Where an anchor moves among fixed candidates, and what a negative weighs by its cosine and the temperature."""
    figure, (circle, curves) = _figure(2, width_ratios=(1.1, 1))
    angles = torch.tensor([42.0, 118.0, 206.0, 270.0, 345.0]).deg2rad()
    candidates = _on_circle(angles)

    def loss(angle: Tensor) -> Tensor:
        anchor = _on_circle(angle).expand_as(candidates)
        return info_nce(anchor, candidates, temperature=0.3, reduction="none")[0]

    start = torch.tensor([100.0]).deg2rad()
    end = _descend(loss, start, steps=60, rate=0.05)[-1]
    _draw_circle(circle)
    labels = ["positive:\nsame place", "", "negatives:\nother places", "", ""]
    for number, (angle, label) in enumerate(zip(angles.tolist(), labels, strict=True)):
        _place(circle, angle, PUSH if number else PULL, label)
    _place(circle, start.item(), ANCHOR, "anchor", marker="*", size=11)
    _arc_arrow(circle, start.item(), end.item(), ANCHOR)
    circle.set_title("where the anchor goes", fontsize=NORMAL)

    cosines = torch.linspace(-0.5, 1, 151)
    for temperature, style in ((0.02, ":"), (0.07, "-"), (0.5, "--")):
        weights = _weights_of_negatives(cosines, temperature)
        curves.plot(cosines, weights, style, color=PUSH, label=f"$\\tau$ = {temperature}")
    curves.set_xlabel("cosine of negative and anchor", fontsize=NORMAL)
    curves.set_ylabel("weight of a negative", fontsize=NORMAL)
    curves.set_title("near negatives count most", fontsize=NORMAL)
    curves.legend(frameon=False, fontsize=SMALL, loc="upper left")
    return figure


def _weights_of_negatives(cosines: Tensor, temperature: float) -> Tensor:
    """The gradient at the similarity of one anchor to negatives of all these cosines, over the largest."""
    similarities = torch.cat((torch.ones(1), cosines)).requires_grad_()  # the first is the positive's
    anchor = torch.ones(len(similarities), 1)
    loss = info_nce(anchor, similarities[:, None], temperature, "none", normalize=False)[0]
    (gradient,) = torch.autograd.grad(loss, similarities)
    return gradient[1:] / gradient[1:].max()


def draw_srnce() -> Figure:
    """Where SR features end, alone with each variant, from three starts."""
    figure, plots = _figure(3, width=6.6, height=2.7, sharey=True)
    titles = {
        "paper": '"paper": away from both',
        "tempered": '"tempered": by its start',
        "negative": '"negative": near HR',
    }
    hr, lr, starts = _srnce_starts()
    between = (hr * lr).sum(1).mean().item()
    for plot, (variant, title) in zip(plots, titles.items(), strict=True):
        for x, y, colour, label in ((1, between, PULL, "HR"), (between, 1, PUSH, "LR")):
            plot.plot(x, y, "*", color=colour, markersize=12, markeredgecolor="white", zorder=5)
            plot.annotate(
                label, (x, y), (4, 6), textcoords="offset points", color=colour, fontsize=NORMAL, weight="bold"
            )
        for name, start in starts.items():
            path = [
                (F.cosine_similarity(sr, hr).mean().item(), F.cosine_similarity(sr, lr).mean().item())
                for sr in _descend(lambda sr: srnce(hr, sr, lr, variant=variant), start, 400, 0.05, adam=True)  # noqa: B023
            ]
            plot.plot(*zip(*path, strict=True), color=ANCHOR, linewidth=1.1, alpha=0.75)
            plot.plot(*path[0], "o", color="white", markeredgecolor=ANCHOR, markersize=6, zorder=4)
            plot.plot(*path[-1], "o", color=ANCHOR, markersize=6.5, zorder=6)
            if name == "random" or variant == "paper":
                offset, side = ((7, -3), "left") if name == "random" else ((-8, -3), "right")
                plot.annotate(name, path[0], offset, textcoords="offset points", ha=side, fontsize=SMALL, color=TEXT)
        plot.set_title(title, fontsize=NORMAL)
        plot.set(xlim=(-1.1, 1.3), ylim=(-1.15, 1.3), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        plot.set_xlabel("cosine of SR and HR", fontsize=NORMAL)
    plots[0].set_ylabel("cosine of SR and LR", fontsize=NORMAL)
    plots[0].plot([], [], "o", color="white", markeredgecolor=ANCHOR, markersize=6, label="start")
    plots[0].plot([], [], "o", color=ANCHOR, markersize=6, label="end")
    plots[0].legend(frameon=False, fontsize=SMALL, loc="lower right", handletextpad=0.2)
    return figure


def _srnce_starts() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """HR and LR features of 64 places that have a cosine of about 0.7, and SR features to start from."""
    generator = torch.Generator().manual_seed(0)
    hr, noise, other = F.normalize(torch.randn(3, 64, 32, generator=generator), dim=-1)
    lr = F.normalize(hr + noise, dim=-1)
    return hr, lr, {"random": other, "near HR": F.normalize(hr + 0.3 * other), "near LR": F.normalize(lr + 0.3 * other)}


def draw_multi_positive_nce() -> Figure:
    """The way of an SR feature between positives and negatives, and the loss over the margin between them."""
    figure, (circle, curves) = _figure(2, width_ratios=(1.1, 1))
    positives = torch.tensor([20.0, 38.0, 56.0]).deg2rad()
    negatives = torch.tensor([118.0, 136.0, 154.0, 172.0]).deg2rad()

    def loss(angle: Tensor) -> Tensor:
        near, far = (_on_circle(angle) @ _on_circle(others).T for others in (positives, negatives))
        return multi_positive_nce(near, far, temperature=1.0)

    _draw_circle(circle)
    for index, angle in enumerate(positives.tolist()):
        _place(circle, angle, PULL, "positives:\nHR, sharpened" if index == 1 else "")
    for index, angle in enumerate(negatives.tolist()):
        _place(circle, angle, PUSH, "negatives:\nblurred" if index == 2 else "")
    start = math.radians(104)
    end = _descend(loss, torch.tensor([start]), steps=300, rate=0.1)[-1].item()
    _place(circle, start, ANCHOR, "SR", marker="*", size=11)
    _arc_arrow(circle, start, end, ANCHOR)
    circle.set_title("where the SR image goes", fontsize=NORMAL)

    margin = torch.linspace(-1, 1, 101)
    for temperature, style in ((1.0, "-"), (0.1, "--")):
        values = multi_positive_nce(margin[:, None] / 2, -margin[:, None].expand(-1, 4) / 2, temperature, "none")
        curves.plot(margin, values, style, color=ANCHOR, label=f"$\\tau$ = {temperature:g}")
    curves.axhline(math.log(5), color=GREY, linewidth=0.9)
    curves.annotate("log 5", (-1, math.log(5)), (0, -10), textcoords="offset points", fontsize=SMALL, color=TEXT)
    curves.set(ylim=(0, 6))
    curves.set_xlabel("cosine to positives - to negatives", fontsize=NORMAL)
    curves.set_ylabel("loss, four negatives", fontsize=NORMAL)
    curves.set_title(r"flat with $\tau$ = 1, steep below", fontsize=NORMAL)
    curves.legend(frameon=False, fontsize=SMALL, loc="upper right")
    return figure


def draw_dual_contrastive() -> Figure:
    """The way of real and fake logits, and the force on each of them at the start."""
    figure, (steps, forces) = _figure(2, width_ratios=(1.15, 1))
    start = torch.tensor([1.6, 0.7, -0.1, -0.9, 1.1, 0.3, -0.5, -1.4])
    real = torch.tensor([True] * 4 + [False] * 4)

    def loss(logits: Tensor) -> Tensor:
        return dual_contrastive_loss(logits[real], logits[~real])

    path = torch.stack(_descend(loss, start, steps=40, rate=0.5))
    for mask, colour, label in ((real, PULL, "real (HR)"), (~real, PUSH, "fake (SR)")):
        steps.plot(path[:, mask], color=colour, linewidth=1.3)
        steps.plot(torch.zeros(4), path[0, mask], "o", color=colour, markersize=4)
        steps.annotate(
            label, (40, path[-1, mask].mean().item()), (0, 22 if label[0] == "r" else -26),
            textcoords="offset points", ha="right", color=colour, fontsize=NORMAL, weight="bold",
        )  # fmt: skip
    low, high = path.min().item(), path.max().item()
    steps.set(ylim=(low - 1.6, high + 1.6))
    steps.set_xlabel("step of the embedding", fontsize=NORMAL)
    steps.set_ylabel("logit", fontsize=NORMAL)
    steps.set_title("HR up, SR down", fontsize=NORMAL)

    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    for logit, slope, is_real in zip(start.tolist(), gradient.tolist(), real.tolist(), strict=True):
        colour = PULL if is_real else PUSH
        forces.annotate("", (logit, -slope), (logit, 0), arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=1.6))
        forces.plot(logit, 0, "o", color=colour, markersize=4)
    bound = 1.15 * gradient.abs().max().item()
    forces.axhline(0, color=GREY, linewidth=0.8)
    forces.set(xlim=(-1.8, 2.0), ylim=(-bound, bound))
    forces.set_xlabel("logit at the start", fontsize=NORMAL)
    forces.set_ylabel("force on it", fontsize=NORMAL)
    forces.set_title("the misjudged move most", fontsize=NORMAL)
    return figure


def draw_queue_nce() -> Figure:
    """Query, key and queue on a circle; which slots hold keys; the loss as the queue fills."""
    figure, (circle, slots, losses) = _figure(3, width=6.8, height=2.5, width_ratios=(1, 1.05, 1.05))
    start, key = math.radians(120), torch.tensor([math.radians(60)])
    queue = torch.tensor([150.0, 176.0, 200.0, 228.0, 262.0, 300.0, 335.0]).deg2rad()

    def loss(angle: Tensor) -> Tensor:
        return queue_nce(_on_circle(angle), _on_circle(key), _on_circle(queue), temperature=0.3)

    end = _descend(loss, torch.tensor([start]), steps=200, rate=0.05)[-1].item()
    _draw_circle(circle)
    _place(circle, start, ANCHOR, "query", marker="*", size=11)
    _place(circle, key.item(), PULL, "key:\nother crop")
    for angle in queue.tolist():
        _place(circle, angle, PUSH, "")
    circle.set(ylim=(-1.15, 1.6))
    circle.text(0, -0.25, "queue:\nearlier keys", ha="center", va="center", color=PUSH, fontsize=SMALL)
    _arc_arrow(circle, start, end, ANCHOR)
    circle.set_title("where the query goes", fontsize=NORMAL)

    ages, values, fills = _fill_queue()
    first = ages[:13].T
    slots.imshow(first, aspect="auto", origin="lower", cmap="Oranges_r", vmin=-1, vmax=8, interpolation="nearest")
    slots.text(-0.2, 62, "masked:\nno key yet", fontsize=SMALL, color=TEXT, va="top")
    slots.set(xticks=(0, 4, 8, 12))
    slots.set_xlabel("step", fontsize=NORMAL)
    slots.set_ylabel("slot of the queue", fontsize=NORMAL)
    slots.set_title("the newest keys are dark", fontsize=NORMAL)

    losses.plot([math.log(1 + fill) for fill in fills], "--", color=GREY, label="guessing: log(1 + keys)")
    losses.plot(values, color=ANCHOR, label="loss")
    losses.set(ylim=(-0.2, 5.6))
    losses.set_xlabel("step", fontsize=NORMAL)
    losses.set_title("loss: 0 while it is empty", fontsize=NORMAL)
    losses.legend(frameon=False, fontsize=SMALL, loc="lower right")
    return figure


def _fill_queue() -> tuple[Tensor, list[float], list[int]]:
    """Steps of a small encoder: the age of each slot's key (NaN: none) before each, the losses, the fill levels."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 16),
    )
    # The momentum is for so short a training.
    loss = DegradationQueueLoss(encoder, dim=16, queue_size=64, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    written = torch.full((64,), math.nan)
    ages, values, fills = [], [], []
    for step in range(60):
        ages.append(step - 1 - written)
        fills.append(int(loss.fill))
        written[(torch.arange(12) + int(loss.pointer)) % 64] = step
        queries, keys = _crops(12)
        value = loss(encoder(queries), keys, encoder)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return torch.stack(ages), values, fills


def _crops(images: int) -> Tensor:
    """Two crops (2, B, 3, 16, 16) of each of several images of noise, which share a blur of random width."""
    width = torch.rand(images, 1) * 2 + 0.1
    kernel = torch.exp(-torch.arange(-4, 5).square() / (2 * width.square()))
    kernel = kernel / kernel.sum(1, keepdim=True)
    noise = torch.rand(6, images, 24, 24)
    blurred = F.conv2d(noise, kernel[:, None, :, None], groups=images)
    blurred = F.conv2d(blurred, kernel[:, None, None, :], groups=images)
    return blurred.unflatten(0, (2, 3)).transpose(1, 2)


def draw_criteria() -> Figure:
    """Both terms over anchor and criterion, with the way gradient descent takes."""
    figure, plots = _figure(2, height=2.7, sharey=True)
    grid = torch.linspace(0, 1, 61)
    anchor, criterion = torch.meshgrid(grid, grid, indexing="xy")

    def align(a: Tensor, c: Tensor) -> Tensor:
        return criteria_alignment(a, [c], reduction="none")

    def uniform(a: Tensor, c: Tensor) -> Tensor:
        return criteria_uniformity(a, [c], reduction="none")

    panels = (
        (plots[0], align, "alignment: to one value", "lowers one, raises the other", PUSH),
        (plots[1], uniform, "uniformity: down to 0", "lowers both", PULL),
    )
    for plot, term, title, note, colour in panels:
        plot.contourf(grid, grid, term(anchor, criterion), levels=10, cmap="Greys", alpha=0.45)
        for a in torch.linspace(0.16, 0.92, 5).tolist():
            for c in torch.linspace(0.16, 0.92, 5).tolist():
                point = torch.tensor([a, c], requires_grad=True)
                (slope,) = torch.autograd.grad(term(*point), point)
                step = -slope / (slope.norm() + 0.4) * 0.15
                if step.norm() > 0.01:
                    plot.annotate(
                        "", (a + step[0].item(), c + step[1].item()), (a, c),
                        arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=1.3, shrinkA=0, shrinkB=0),
                    )  # fmt: skip
                else:
                    plot.plot(a, c, "o", color=ANCHOR, markersize=2.5)
        plot.set_title(title, fontsize=NORMAL, pad=15)
        plot.text(0.5, 1.02, note, color=colour, fontsize=SMALL, weight="bold", ha="center", transform=plot.transAxes)
        plot.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        plot.set_xlabel("anchor criterion", fontsize=NORMAL)
    plots[0].set_ylabel("other criterion", fontsize=NORMAL)
    return figure


def draw_contrastive_regularization() -> Figure:
    """What the SR image is pulled to and pushed from, and the loss with both similarities over the size of the maps."""
    from skimage.data import chelsea

    photograph = torch.from_numpy(chelsea()).permute(2, 0, 1)[None] / 255
    hr = photograph[..., 84:148, 96:160]
    lr = F.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)
    batch, generator = {"hr": hr, "lr": lr}, torch.Generator().manual_seed(3)
    sr = (hr + UpsampledLowResolution()(batch)[:, 0]) / 2  # stands for a network's output
    positives, negatives = [HighResolution(), Sharpen(count=3)], [GaussianBlur(count=4), UpsampledLowResolution()]

    figure = Figure(figsize=(6.8, 2.5), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.1, 1))[0]
    grid = left.add_gridspec(2, 6)
    _show(left.add_subplot(grid[:, 0]), sr[0], ANCHOR, "SR image")
    rows = (
        ("pulled to", PULL, positives, ("HR", "sharpened", "sharpened", "sharpened")),
        ("pushed from", PUSH, negatives, ("blurred", "blurred", "blurred", "blurred", "LR, enlarged")),
    )
    for row, (header, colour, samples, captions) in enumerate(rows):
        for index, (image, caption) in enumerate(zip(draw(samples, batch, generator)[0], captions, strict=True)):
            plot = left.add_subplot(grid[row, 1 + index])
            _show(plot, image, colour, caption)
            if index == 0:
                plot.set_title(header, fontsize=NORMAL, color=colour, weight="bold", loc="left", pad=4)

    curves = right.subplots()
    sides = (2, 4, 8, 16, 32, 64)
    generator.manual_seed(3)
    samples = [draw(role, batch, generator) for role in (positives, negatives)]
    for similarity, style in (("dot", "--"), ("cosine", "-")):
        values = [ImageContrastLoss(_MapsOfSize(side), similarity=similarity)(sr, *samples).item() for side in sides]
        curves.plot(sides, values, style, color=ANCHOR, label=f'"{similarity}"')
    curves.set_xscale("log", base=2)
    curves.set_xticks(sides, [str(side) for side in sides])
    curves.set(ylim=(-0.1, 2.2))
    curves.minorticks_off()
    curves.set_xlabel("side of the feature map", fontsize=NORMAL)
    curves.set_ylabel("loss", fontsize=NORMAL)
    curves.set_title("dot products saturate", fontsize=NORMAL)
    curves.legend(frameon=False, fontsize=SMALL, loc="lower left")
    _tidy(curves)
    return figure


def draw_feature_distance() -> Figure:
    """The pixel loss minus a share of the distance to a past, and the pasts of a weight in training."""
    figure, (line, weights) = _figure(2, width_ratios=(1.1, 1))
    places = torch.linspace(-0.9, 1.5, 241)
    sr = places[:, None, None, None].expand(-1, 1, 1, 1)
    hr, past = (torch.full((len(sr), 1, 1, 1, 1), value) for value in (1.0, 0.3))
    pixel, away = (
        embedded_distance(sr, *keys, lambda x: [x], reduction="none")[0] for keys in ((hr, None), (None, past))
    )
    for share, style in ((0.0, ":"), (0.5, "-"), (1.5, "--")):
        line.plot(places, pixel + share * away, style, color=ANCHOR, label=f"share {share:g}")
    low = line.get_ylim()[0]
    for place, colour, label in ((1.0, PULL, "HR"), (0.3, PUSH, "past")):
        line.axvline(place, color=colour, linewidth=1)
        line.annotate(
            label, (place, low), (3, 2), textcoords="offset points", color=colour, fontsize=NORMAL, weight="bold"
        )
    line.set_xlabel("SR image, on the line through both", fontsize=NORMAL)
    line.set_ylabel("L1 minus share of distance", fontsize=NORMAL)
    line.set_title("below a share of 1, HR is least", fontsize=NORMAL)
    line.legend(frameon=False, fontsize=SMALL, loc="lower left")

    net, decays = nn.Linear(1, 1), (0.9, 0.99)
    samples = PastOutput(decay=decays)
    samples.attach(net)
    path: list[list[float]] = []
    for step in range(200):
        with torch.no_grad():
            net.weight.fill_(1 - math.exp(-step / 40))
        samples.follow(net, step)
        path.append([net.weight.item(), *(past.weight.item() for past in samples.pasts)])
    styles = (
        (ANCHOR, "-", "now"),
        *((PUSH, style, f"decay {decay}") for decay, style in zip(decays, ("-", "--"), strict=True)),
    )
    for values, (colour, style, label) in zip(zip(*path, strict=True), styles, strict=True):
        weights.plot(values, style, color=colour, label=label)
    weights.set_xlabel("step", fontsize=NORMAL)
    weights.set_ylabel("a weight of the network", fontsize=NORMAL)
    weights.set_title("pasts lag behind", fontsize=NORMAL)
    weights.legend(frameon=False, fontsize=SMALL, loc="lower right")
    return figure


class _MapsOfSize(nn.Module):
    """An embedding of random convolutions, whose maps have this many positions on a side."""

    def __init__(self, side: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.side, self.convolution = side, nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.adaptive_avg_pool2d(F.leaky_relu(self.convolution(images)), self.side)]


def _show(plot: Axes, image: Tensor, colour: str, caption: str) -> None:
    plot.imshow(image.permute(1, 2, 0))
    plot.set(xticks=(), yticks=())
    plot.set_xlabel(caption, fontsize=SMALL - 1, color=colour, labelpad=2)
    for spine in plot.spines.values():
        spine.set(color=colour, linewidth=2)


FIGURES: dict[str, Callable[[], Figure]] = {
    "info_nce": draw_info_nce,
    "srnce": draw_srnce,
    "queue_nce": draw_queue_nce,
    "criteria": draw_criteria,
    "contrastive_regularization": draw_contrastive_regularization,
    "feature_distance": draw_feature_distance,
    "multi_positive_nce": draw_multi_positive_nce,
    "dual_contrastive": draw_dual_contrastive,
}
"""By page of docs/losses."""


def _figure(columns: int, width: float = 5.2, height: float = 2.5, **gridspec: object) -> tuple[Figure, list[Axes]]:
    sharey = bool(gridspec.pop("sharey", False))
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    plots = list(figure.subplots(1, columns, sharey=sharey, gridspec_kw=gridspec))
    for plot in plots:
        _tidy(plot)
    return figure, plots


def _tidy(plot: Axes) -> None:
    plot.tick_params(labelsize=SMALL)
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)


def _descend(
    loss: Callable[[Tensor], Tensor], start: Tensor, steps: int, rate: float, adam: bool = False
) -> list[Tensor]:
    """The way of gradient descent, start and end included."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate) if adam else torch.optim.SGD([x], lr=rate)
    path = [start]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
        path.append(x.detach().clone())
    return path


def _on_circle(angles: Tensor) -> Tensor:
    """Unit vectors (M, 2)."""
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def _draw_circle(plot: Axes) -> None:
    angles = torch.linspace(0, 2 * math.pi, 181)
    plot.plot(angles.cos(), angles.sin(), color="#C8C8C8", linewidth=1)
    plot.set(xlim=(-1.7, 1.7), ylim=(-1.15, 1.35), aspect="equal")
    plot.set_axis_off()


def _place(plot: Axes, angle: float, colour: str, label: str, marker: str = "o", size: float = 6) -> None:
    x, y = math.cos(angle), math.sin(angle)
    plot.plot(x, y, marker, color=colour, markersize=size, zorder=5, clip_on=False)
    side = "center" if abs(x) < 0.35 else ("left" if x > 0 else "right")
    height = "center" if abs(y) < 0.7 else ("bottom" if y > 0 else "top")
    plot.text(1.16 * x, 1.16 * y, label, ha=side, va=height, color=colour, fontsize=SMALL)


def _arc_arrow(plot: Axes, start: float, end: float, colour: str, radius: float = 0.82) -> None:
    """An arrow along the circle."""
    angles = torch.linspace(start, end, 40)
    x, y = (radius * angles.cos()).tolist(), (radius * angles.sin()).tolist()
    plot.plot(x[:-1], y[:-1], color=colour, linewidth=2, zorder=4)
    arrow = dict(arrowstyle="-|>", color=colour, linewidth=2, shrinkA=0, shrinkB=0, mutation_scale=11)
    plot.annotate("", (x[-1], y[-1]), (x[-3], y[-3]), arrowprops=arrow, zorder=4)


def _save(figure: Figure, path: Path) -> None:
    """As a PNG of few colours, which is a third as large."""
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def main(names: list[str]) -> None:
    """Draw these figures, or all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or FIGURES:
        path = FOLDER / f"{name}.png"
        _save(FIGURES[name](), path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
