"""What each process does in test_training_pages.py, with the code of a page; run by the page's own launcher.

``page_ranks.py PAGE FOLDER`` saves what this process saw as ``FOLDER/<rank>.pt``.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.distributed import rank, world_size
from contrastive_sr.embeddings import TrainableEmbedding
from contrastive_sr.methods import PCL, Methods

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORLD = 2 if __name__ == "__main__" else 1
IMAGES, BATCH = 16, 4  # in all processes together
EPOCH = IMAGES // BATCH
STEPS = 2 * EPOCH
# what the pages warn of: the processes train apart
APART = {
    "in_accelerate": ("parallel_methods(batch)", "methods(batch)"),
    "in_lightning": ("self.manual_backward(sum(own.values()))", "sum(own.values()).backward()"),
}
REFUSED = ("ddp_find_unused_parameters_true", "ddp")


class SmallDiscriminator(TrainableEmbedding):
    """Learns; without BatchNorm its gradient on a batch is the mean of those on the batch's halves."""

    vector_size = 4

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4) if norm else nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.tanh(self.body(images))]

    def vectors(self, images: Tensor) -> Tensor:
        return self(images)[0].mean((-2, -1))

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.vectors(images))
        return logits


def methods_of(kind: str) -> Methods:
    """Methods of a training.

    ``"drawing"``: samples are drawn, and one method takes part in every third step alone. ``"resting"``: nothing learns
    in two steps of three. ``"joinable"``: nothing is drawn, so that two processes do what one does on the joined batch.
    """
    if kind == "joinable":
        samples = {"positives": [{"type": "HighResolution"}], "negatives": [{"type": "UpsampledLowResolution"}]}
        return Methods([PCL(every=1, embedding=SmallDiscriminator(norm=False), phase="fixed", **samples)])
    every_third = PCL(name="rare", every=3, embedding=SmallDiscriminator())
    if kind == "resting":
        return Methods([every_third])
    return Methods([PCL(loss_share=0.2, every=1, embedding=SmallDiscriminator()), every_third])


def code_of(page: str, change: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """What a page's code defines, its main program left out, with one piece of its text replaced; on the CPU."""
    text = (DOCS / f"{page}.md").read_text()
    assert change[0] in text
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    block = block.replace(*change) if change[0] else block
    namespace: dict[str, Any] = {"__name__": page}
    exec(compile(block.replace("not torch.cuda.is_available()", "True"), page, "exec"), namespace)
    return namespace


class Run:
    """A training by the code of a page, in a folder of its own; again in the same folder, it goes on.

    Args:
        page: which.
        kind: see :func:`methods_of`.
        folder: where it saves.
        steps: how many batches it has seen at its end.
        code: of the page; None: as it stands.
        settings: further arguments of the page's ``train``.
    """

    def __init__(
        self,
        page: str,
        kind: str,
        folder: Path,
        steps: int = STEPS,
        code: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        torch.manual_seed(0)
        self.net, self.methods = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4)), methods_of(kind)
        self.seen: list[float] = []  # a number for each batch
        self.net.register_forward_pre_hook(lambda _, args: self.seen.append(args[0].mean().item()))
        hr = torch.rand(IMAGES, 3, 32, 32)
        images = [{"lr": x, "hr": y} for x, y in zip(F.avg_pool2d(hr, 4), hr, strict=True)]
        code = code_of(page) if code is None else code
        size = BATCH // WORLD
        folder.mkdir(exist_ok=True)
        back = Path.cwd()
        os.chdir(folder)
        try:
            if page == "in_accelerate":
                code["train"](self.net, self.methods, images, steps, size, **settings)
            else:
                settings = {"max_epochs": steps // EPOCH, "enable_progress_bar": False, **settings}
                training = code["SRTraining"](self.net, self.methods, images, size)
                self.trainer = code["train"](training, WORLD, accelerator="cpu", **settings)
        finally:
            os.chdir(back)

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers of the SR network and of the methods."""
        parts = {"net": self.net, "methods": self.methods}
        return {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}


def work(page: str, folder: Path) -> None:
    """Everything one of two processes does."""
    torch.set_num_threads(1)
    out = {kind: Run(page, kind, folder / kind).state() for kind in ("drawing", "resting", "joinable")}
    Run(page, "drawing", folder / "resumed", EPOCH)
    out["resumed"] = Run(page, "drawing", folder / "resumed").state()
    out["apart"] = Run(page, "resting", folder / "apart", EPOCH, code_of(page, APART[page])).state()
    if page == "in_accelerate":
        out["accumulated"] = Run(page, "resting", folder / "accumulated", accumulate=3).state()
    torch.save({"world": world_size(), "states": out}, folder / f"{rank()}.pt")
    if page == "in_lightning":
        Run(page, "resting", folder / "refused", EPOCH, code_of(page, REFUSED))


if WORLD > 1:
    work(sys.argv[1], Path(sys.argv[2]))
