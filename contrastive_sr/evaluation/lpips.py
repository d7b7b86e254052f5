"""LPIPS, the learned perceptual distance; needs torchmetrics and torchvision, and downloads nothing unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from contrastive_sr._checks import describe_error
from contrastive_sr._install import install
from contrastive_sr.data.images import UInt8Image, as_tensor
from contrastive_sr.embeddings.weights import read_state_dict
from contrastive_sr.errors import ConfigError, HostError
from contrastive_sr.evaluation.comparison import MetricNote
from contrastive_sr.evaluation.evaluate import Metric

_SMALLEST = 31  # AlexNet's
NOTE = MetricNote(
    "LPIPS is version 0.1 with AlexNet, of whole RGB images", f"images with a side of fewer than {_SMALLEST} pixels"
)


def cached_weights() -> Path:
    """Where torchvision keeps its AlexNet once it was downloaded; the file may be missing.

    Raises:
        HostError: torchvision is not installed.
    """
    return Path(torch.hub.get_dir(), "checkpoints", Path(_torchvision_s().url).name)


def fetch_weights() -> Path:
    """Have torchvision download its AlexNet, 233 MB, into its cache, unless it is there; the hash is checked.

    Returns:
        The file, :func:`cached_weights`.

    Raises:
        ConfigError: it cannot be downloaded, or what came is something else.
        HostError: torchvision is not installed.
    """
    path = cached_weights()
    if not path.is_file():
        try:
            _torchvision_s().get_state_dict(progress=True, check_hash=True, map_location="cpu")
        except (OSError, RuntimeError) as error:  # no network, no room; another hash
            raise ConfigError(
                f"torchvision's AlexNet could not be downloaded ({describe_error(error)}). On a machine without "
                f"internet, copy {path.name} to {path.parent}."
            ) from error
    return path


def _torchvision_s() -> Any:
    """torchvision's AlexNet that was trained on ImageNet, an entry of its enum.

    Raises:
        HostError: torchvision is not installed.
    """
    try:
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        raise HostError(f"torchvision is not installed. Try: {install('evaluate')}") from error
    return AlexNet_Weights.IMAGENET1K_V1


def load_lpips(weights: str | Path, device: torch.device | str = "cpu") -> Metric:
    """LPIPS with AlexNet, version 0.1, as most papers report it: of whole RGB images, without cropping a border.

    Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018. Network and the
    trained weights of its linear layers are torchmetrics'.

    Args:
        weights: file of the AlexNet trained on ImageNet: torchvision's ``alexnet-owt-7be5be79.pth``.
        device: where it is computed.

    Returns:
        (SR image, HR image), both (H, W, 3) uint8, to a distance; 0 for equal images, None for images with a side of
        fewer than 31 pixels.

    Raises:
        ConfigError: a file that is missing or holds something else.
        HostError: torchmetrics or torchvision is not installed.
    """
    try:
        import torchvision  # noqa: F401 - torchmetrics needs it, and fails late without
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError as error:
        raise HostError(f"{error.name or 'A package'} is not installed. Try: {install('evaluate')}") from error
    state = read_state_dict(weights)
    # the public class would read the backbone from torchvision's cache alone, or download it
    net = _LPIPS(net="alex", pnet_rand=True)
    wanted = net.net.state_dict()
    # torchmetrics: slice2.3.weight, torchvision: features.3.weight
    names = {name: f"features.{name.partition('.')[2]}" for name in wanted}
    for name, source in names.items():
        if source not in state or state[source].shape != wanted[name].shape:
            raise ConfigError(
                f"LPIPS: {weights} was expected to hold torchvision's AlexNet (alexnet-owt-7be5be79.pth), but "
                f"{source} is {'of another shape' if source in state else 'missing'}."
            )
    net.net.load_state_dict({name: state[source] for name, source in names.items()})
    net = net.eval().to(device)

    @torch.inference_mode()
    def lpips(sr: UInt8Image, hr: UInt8Image) -> float | None:
        if min(sr.shape[:2]) < _SMALLEST:
            return None
        return float(net(as_tensor(sr).to(device), as_tensor(hr).to(device), normalize=True))

    return lpips
