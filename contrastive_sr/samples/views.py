"""Random views of images, for contrast between images."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import check_shape
from contrastive_sr.samples.base import uniform

CROPPED = 8  # a view is smaller than the image by an eighth
JITTER = 0.4
GREY = 0.2


def view_size(side: int) -> int:
    """Height or width of a view of an image of this height or width."""
    return side - side // CROPPED


def random_view(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random view of each image: a crop, which may be flipped, with other colours.

    SimCLR's augmentations without resizing and blur: those would change the sharpness, which is what tells HR from SR
    images. The crop has 7/8 of height and width; brightness, contrast and saturation are each multiplied by a number
    from 0.6 to 1.4, and one image in five becomes grey. Each image draws its own numbers.

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        generator: source of randomness, on the images' device; None: torch's default generator.

    Returns:
        (B, 3, H - H // 8, W - W // 8) in [0, 1].

    Raises:
        DataError: other shapes.

    Example:
        >>> random_view(torch.rand(2, 3, 32, 48)).shape
        torch.Size([2, 3, 28, 42])
    """
    check_shape(images, ("B", 3, "H", "W"), "random_view(images)")
    count, channels = images.shape[:2]
    rows, columns = (_places(count, side, images.device, generator) for side in images.shape[-2:])
    image, channel = (torch.arange(n, device=images.device) for n in (count, channels))
    x = images[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]

    draws = uniform(0, 1, (6, count, 1, 1, 1), x, generator)
    x = torch.where(draws[0] < 0.5, x.flip(-1), x)
    x = torch.where(draws[1] < 0.5, x.flip(-2), x)
    brightness, contrast, saturation = (1 + JITTER * (2 * draw - 1) for draw in draws[2:5])
    x = x * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    grey = x.mean(1, keepdim=True)
    return (grey + (x - grey) * torch.where(draws[5] < GREY, 0.0, saturation)).clamp(0, 1)


def _places(count: int, side: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(count, size of a view) rows or columns of a crop at a random place in each image."""
    size = view_size(side)
    start = torch.randint(side - size + 1, (count, 1), generator=generator, device=device)
    return start + torch.arange(size, device=device)
