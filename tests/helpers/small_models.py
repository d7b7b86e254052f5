"""Small networks, embeddings and batches that tests of several parts use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr.embeddings import Embedding, HaarDiscriminator


class SmoothEmbedding(Embedding):
    """Two smooth layers of different sizes: cheap, twice differentiable, nothing like the discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, 2, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(images))
        return [first, torch.tanh(self.second(first))]


class IdentityEmbedding(Embedding):
    """The images are their own feature maps: no operation that autocast knows."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


class CountingNet(nn.Module):
    """A x4 network that counts its calls."""

    def __init__(self, scale: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.enlarge = nn.Upsample(scale_factor=scale)
        self.calls = 0

    def forward(self, lr: Tensor) -> Tensor:
        self.calls += 1
        sr: Tensor = self.enlarge(lr) + 0.1 * self.body(lr)
        return sr


def images_batch(seed: int = 0, size: int = 32, scale: int = 4, count: int = 2) -> dict[str, Tensor]:
    """A batch of random HR images and their box-downscaled LR images."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, size, size, generator=generator)
    return {"lr": nn.functional.avg_pool2d(hr, scale), "hr": hr}


def settled(embedding: HaarDiscriminator, size: int = 32) -> HaarDiscriminator:
    """Give BatchNorm statistics, gains and shifts that are not those of a new network; in eval mode afterwards."""
    with torch.no_grad():
        for _ in range(3):
            embedding.train().logits(torch.rand(4, 3, size, size).to(embedding.head.weight))
        for block in embedding.blocks:
            block.norm.weight.uniform_(0.5, 1.5)
            block.norm.bias.uniform_(-0.3, 0.3)
    embedding.eval()
    return embedding
