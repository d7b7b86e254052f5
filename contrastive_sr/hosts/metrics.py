"""The metrics that commands measure beside PSNR and SSIM, as far as what they need is installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from contrastive_sr.errors import HostError
from contrastive_sr.evaluation import Metric, MetricNote, NoReference, psnr_rgb, ssim_rgb
from contrastive_sr.evaluation.blur import load_blur
from contrastive_sr.evaluation.jaggedness import load_jaggedness
from contrastive_sr.evaluation.lpips import NOTE as LPIPS_NOTE
from contrastive_sr.evaluation.lpips import cached_weights, load_lpips
from contrastive_sr.evaluation.pattern import load_pattern
from contrastive_sr.hosts.basicsr.metrics import NOTE as NIQE_NOTE
from contrastive_sr.hosts.basicsr.metrics import load_niqe

NOTES: Mapping[str, MetricNote] = {
    "psnr_rgb": MetricNote("PSNR and SSIM on RGB as those on Y, but of all three colours"),
    "niqe": NIQE_NOTE,
    "lpips": LPIPS_NOTE,
}
"""What has to be said of them, by their names."""


def load_metrics(
    scale: int, lpips_weights: Path | None, device: torch.device, *, rgb: bool = False, with_hr: bool = True
) -> tuple[dict[str, Metric], list[str]]:
    """Periodic patterns and jagged edges; NIQE, LPIPS and blur if what they need is there, and else a line for each.

    Args:
        scale: how many times larger HR is; the border that NIQE, blur, and PSNR and SSIM on RGB leave out.
        lpips_weights: file of an AlexNet; None: torchvision's, if it has been downloaded before.
        device: where LPIPS is computed.
        rgb: PSNR and SSIM on RGB too.
        with_hr: whether there are HR images; without them what compares with HR is left out.

    Returns:
        The metrics by name, and sentences on those that are left out.

    Raises:
        ConfigError: a file that is missing or holds something else.
        HostError: the file is given, and torchmetrics or torchvision is not installed.
    """
    left_out = []
    metrics: dict[str, Metric] = {}
    if rgb:
        metrics |= {"psnr_rgb": partial(psnr_rgb, border=scale), "ssim_rgb": partial(ssim_rgb, border=scale)}
    try:
        metrics["niqe"] = load_niqe(scale)
    except HostError:
        left_out.append("NIQE is left out: it is BasicSR's, which is not installed or broken (contrastive-sr doctor).")
    if with_hr:
        lpips, why = find_lpips(lpips_weights, device)
        metrics |= lpips
        left_out += why
    try:
        metrics |= load_blur(scale)
    except HostError as error:
        left_out.append(f"Blur is left out: {error}")
    metrics |= load_pattern(scale) | load_jaggedness(scale)
    return {name: metric for name, metric in metrics.items() if with_hr or isinstance(metric, NoReference)}, left_out


def find_lpips(weights: Path | None, device: torch.device) -> tuple[dict[str, Metric], list[str]]:
    """LPIPS by its name, if what it needs is there, or else a sentence on why it is left out.

    Args:
        weights: file of an AlexNet; None: torchvision's, if it has been downloaded before.
        device: where it is computed.

    Raises:
        ConfigError: a file that is missing or holds something else.
        HostError: the file is given, and torchmetrics or torchvision is not installed.
    """
    try:
        file = cached_weights() if weights is None else weights
        if weights is not None or file.is_file():
            return {"lpips": load_lpips(file, device)}, []
    except HostError as error:
        if weights is not None:
            raise
        return {}, [f"LPIPS is left out: {error}"]
    return {}, [
        "LPIPS is left out: the AlexNet it needs is not on this machine. contrastive-sr evaluate --fetch-lpips has "
        f"torchvision download it; or give torchvision's {file.name} by --lpips-weights."
    ]
