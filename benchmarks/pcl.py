"""PCL-SR's contrastive part: the lean step against nine plain passes, its share of a training step; and the samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import DEVICE, Run, compare, extra_memory, peak_mebibytes
from contrastive_sr.embeddings import HaarDiscriminator, frozen
from contrastive_sr.embeddings.discriminator import Block
from contrastive_sr.functional import multi_positive_nce
from contrastive_sr.hosts.in_step import MethodsInStep
from contrastive_sr.losses import ImageContrastLoss
from contrastive_sr.methods import PCL, Method, Methods
from contrastive_sr.samples import GaussianBlur, Sharpen

BATCH, SIZE = 4, 192


class PlainDiscriminator(nn.Module):
    """The embedding as one would write it: the modules one after the other, BatchNorm on its own."""

    def __init__(self, embedding: HaarDiscriminator) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.embedding.transform(images), []
        for index, block in enumerate(self.embedding.blocks[: self.embedding.out_indices[-1] + 1]):
            assert isinstance(block, Block)
            x = F.leaky_relu(block.norm(block.conv(x)), 0.2)
            if index in self.embedding.out_indices:
                maps.append(x)
        return maps


def plain_loss(embed: nn.Module, sr: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Nine passes with a graph: the anchor, and each positive and negative."""
    anchor = embed(sr)
    maps = [embed(image) for image in (*positives.unbind(1), *negatives.unbind(1))]
    losses = []
    for layer, f in enumerate(anchor):
        similarity = torch.stack([F.cosine_similarity(f, key[layer], dim=1).mean((1, 2)) for key in maps], 1)
        losses.append(multi_positive_nce(*similarity.split((positives.shape[1], negatives.shape[1]), 1)))
    return torch.stack(losses).mean()


def problem(batch: int, size: int) -> tuple[HaarDiscriminator, Tensor, Tensor, Tensor]:
    """An embedding, SR images with a gradient, positives and negatives."""
    torch.manual_seed(0)
    embedding = HaarDiscriminator().to(DEVICE)
    with torch.no_grad():  # statistics that are not those of a new BatchNorm
        embedding.train().logits(torch.rand(4, 3, 64, 64, device=DEVICE))
    embedding.eval()
    sr = torch.rand(batch, 3, size, size, device=DEVICE).requires_grad_()
    positives, negatives = (torch.rand(batch, 4, 3, size, size, device=DEVICE) for _ in range(2))
    return embedding, sr, positives, negatives


def cases(batch: int = BATCH, size: int = SIZE) -> dict[str, Run]:
    """Each way to get a gradient at the SR images.

    ``anchor`` is what any loss in this space costs at least when written plainly: the SR images alone, forward and back
    to the pixels, parameters frozen.
    """
    embedding, sr, positives, negatives = problem(batch, size)
    plain = PlainDiscriminator(embedding)
    loss = ImageContrastLoss(embedding)

    def anchor_only() -> None:
        with frozen(plain):
            maps = plain(sr)
            torch.autograd.grad(maps, sr, [torch.ones_like(f) for f in maps])

    runs: dict[str, Run] = {
        "lean": lambda: loss(sr, positives, negatives).backward(),
        "plain": lambda: plain_loss(plain, sr, positives, negatives).backward(),
        "anchor": anchor_only,
    }
    return runs


def report() -> Iterator[tuple[str, str, str]]:
    """Rows of (figure, goal, measured)."""
    torch.set_num_threads(1)
    runs = cases()
    seconds = compare(runs, repeats=5)
    yield "contrastive part / the anchor's own pass", "at most 4", f"{seconds['lean'] / seconds['anchor']:.2f}"
    yield "nine plain passes / contrastive part, time", "at least 5", f"{seconds['plain'] / seconds['lean']:.2f}"
    plain, lean = (extra_memory("benchmarks.pcl", case) for case in ("plain", "lean"))
    yield (
        "nine plain passes / contrastive part, memory",
        "at least 8",
        f"{plain / lean:.1f}  ({plain:.0f} / {lean:.0f} MiB)",
    )
    yield "its gradient's distance from float64, relative", "at most 1e-5", f"{gradient_error():.1e}"
    for name, share in step_shares(seconds["lean"]).items():
        yield f"contrastive part / step of {name}", "at most 10 %" if name == "RCAN" else "-", f"{100 * share:.1f} %"
    yield from lazy_report()
    yield from sample_report()


def lazy_report(intervals: Sequence[int] = (1, 2, 4, 8)) -> Iterator[tuple[str, str, str]]:
    """Rows for what PCL, its learning embedding included, adds to a step of EDSR-S when it takes part in some alone.

    And what its way into a trainer's own step adds, by a wrapped pixel loss, where it takes part in each.
    """
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    edsr = import_basicsr("basicsr.archs.edsr_arch").EDSR
    batch = {"lr": torch.rand(1, 3, SIZE // 4, SIZE // 4), "hr": torch.rand(1, 3, SIZE, SIZE)}
    batch = {name: images.to(DEVICE) for name, images in batch.items()}

    def steps(methods: Sequence[Method]) -> Run:
        network, engine = edsr(3, 3, 64, 16, 4).to(DEVICE), Methods(methods)
        engine.attach(network)
        engine.to(DEVICE)
        optimizers = [torch.optim.Adam(network.parameters(), 1e-4)]
        if engine.trainable:
            optimizers.append(torch.optim.Adam(engine.parameters(), 1e-4))

        def run() -> None:
            for _ in range(max(intervals)):
                done = engine.run(network, batch)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                for loss in engine.auxiliary_losses(done).values():
                    loss.backward()
                pixel_loss = F.l1_loss(done["sr"], done["hr"])
                (pixel_loss + engine.sr_losses(done, pixel_loss).loss).backward()
                for optimizer in optimizers:
                    optimizer.step()

        return run

    def steps_of_a_trainer(methods: Sequence[Method]) -> Run:
        network, engine = edsr(3, 3, 64, 16, 4).to(DEVICE), Methods(methods)
        engine.attach(network)
        engine.to(DEVICE)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        in_step = MethodsInStep(engine, torch.optim.Adam(engine.parameters(), 1e-4), warn=print)
        pixel_loss = in_step.wrap(nn.L1Loss())

        def run() -> None:
            for _ in range(max(intervals)):
                with in_step.step(network, lambda: batch, optimizer):
                    optimizer.zero_grad()
                    pixel_loss(network(batch["lr"]), batch["hr"]).backward()
                    optimizer.step()

        return run

    runs = {"L1": steps([])} | {str(every): steps([PCL(loss_share=0.5, every=every)]) for every in intervals}
    runs["wrapped"] = steps_of_a_trainer([PCL(loss_share=0.5, every=1)])
    seconds = compare(runs, repeats=5)
    for every in intervals:
        added = seconds[str(every)] / seconds["L1"] - 1
        goal = "at most 15 %" if every == max(intervals) else "-"
        yield f"what PCL adds to a step of EDSR-S, every: {every}", goal, f"{100 * added:.1f} %"
    wrapped = seconds["wrapped"] / seconds["1"]
    yield "PCL by a wrapped pixel loss / by calls in the loop, every: 1", "at most 1.02", f"{wrapped:.3f}"


def gradient_error() -> float:
    """Relative distance of the lean float32 gradient from that of nine plain passes in float64."""
    embedding, sr, positives, negatives = problem(BATCH, SIZE)
    (lean,) = torch.autograd.grad(ImageContrastLoss(embedding)(sr, positives, negatives), sr)
    plain = PlainDiscriminator(embedding.double())
    exact_sr = sr.detach().double().requires_grad_()
    loss = plain_loss(plain, exact_sr, positives.double(), negatives.double())
    (exact,) = torch.autograd.grad(loss, exact_sr)
    return float((lean - exact).norm() / exact.norm())


def step_shares(contrast: float) -> dict[str, float]:
    """Share of the contrastive part in the SR network's step, for the networks that BasicSR has."""
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    networks = {
        "EDSR-S": import_basicsr("basicsr.archs.edsr_arch").EDSR(3, 3, 64, 16, 4),
        "RCAN": import_basicsr("basicsr.archs.rcan_arch").RCAN(3, 3, 64, 10, 20, 16, 4),
    }
    lr, hr = (torch.rand(BATCH, 3, size, size, device=DEVICE) for size in (SIZE // 4, SIZE))
    shares = {}
    for name, network in networks.items():
        network.to(DEVICE)

        def step(network: nn.Module = network) -> None:
            F.l1_loss(network(lr), hr).backward()

        shares[name] = contrast / (contrast + compare({name: step}, repeats=2)[name])
    return shares


def sample_report() -> Iterator[tuple[str, str, str]]:
    """Rows for the samples: ours in a few calls for the batch, torchvision's image by image."""
    from torchvision.transforms import functional as tv

    hr = torch.rand(16, 3, SIZE, SIZE, device=DEVICE)
    blur, sharpen = GaussianBlur(count=4), Sharpen(count=4)
    sizes, sigmas, factors = (3, 5, 7, 9), (0.4, 0.8, 1.2, 1.5), (1.2, 1.4, 1.6, 1.8)

    def ours() -> None:
        blur({"hr": hr})
        sharpen({"hr": hr})

    def one_by_one() -> None:
        for image in hr:
            for size, sigma, factor in zip(sizes, sigmas, factors, strict=True):
                tv.gaussian_blur(image, [size, size], [sigma, sigma])
                tv.adjust_sharpness(image, factor)

    seconds = compare({"ours": ours, "torchvision": one_by_one}, repeats=5)
    ratio = seconds["torchvision"] / seconds["ours"]
    yield "torchvision per sample / ours, 4 blurs + 4 sharpenings of 16x3x192x192", "at least 1.7", f"{ratio:.2f}"


def _measure_memory(case: str) -> None:
    torch.set_num_threads(1)
    cases(batch=1, size=32)[case]()  # loads what the libraries load once
    runs = cases()
    before = peak_mebibytes()
    runs[case]()
    print(peak_mebibytes() - before)


if __name__ == "__main__":
    _measure_memory(sys.argv[1])
