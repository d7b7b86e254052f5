"""Options of Real-ESRGAN's trainings, as small as they run: LR images made on the fly, and a GAN; imports no host."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

GAN = {
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4, "skip_connection": True},
    "train:gan_opt": {
        "type": "GANLoss",
        "gan_type": "vanilla",
        "real_label_val": 1.0,
        "fake_label_val": 0.0,
        "loss_weight": 0.1,
    },
    "train:optim_d": {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
    "train:net_d_iters": 1,
    "train:net_d_init_iters": 0,
}
ON_THE_FLY = {
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
    "gt_size": 64,
    "queue_size": 4,
    "gt_usm": True,
    "l1_gt_usm": True,
    "percep_gt_usm": True,
    "gan_gt_usm": False,
}
_KERNELS = {
    "type": "RealESRGANDataset",
    "blur_kernel_size": 21,
    "kernel_list": ["iso", "aniso"],
    "kernel_prob": [0.6, 0.4],
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "blur_kernel_size2": 21,
    "kernel_list2": ["iso", "aniso"],
    "kernel_prob2": [0.6, 0.4],
    "sinc_prob2": 0.1,
    "blur_sigma2": [0.2, 1.5],
    "betag_range2": [0.5, 4],
    "betap_range2": [1, 2],
    "final_sinc_prob": 0.8,
}


def hr_images(folder: Path, lists: Path) -> dict[str, Any]:
    """The training data set of HR images in a folder, whose list of names is written into another."""
    names = lists / "meta_info.txt"
    names.write_text("".join(f"{path.name}\n" for path in sorted(folder.iterdir())))
    return {
        **_KERNELS,
        "name": "demo",
        "dataroot_gt": str(folder),
        "meta_info": str(names),
        "io_backend": {"type": "disk"},
        "gt_size": 64,
        "use_hflip": True,
        "use_rot": False,
        "num_worker_per_gpu": 1,
        "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 1,
        "prefetch_mode": None,
    }


def fit_to_cpu(replace: Callable[[Any, str, Any], object]) -> None:
    """Where there is no GPU: Real-ESRGAN asks for one, and its blur takes its JPEG's memory format on a GPU alone.

    Its sharpening blurs with 51 x 51 pixels, which is most of the time of a step there; here with 5 x 5.

    Args:
        replace: called as ``setattr``.
    """
    if torch.cuda.is_available():
        return
    for kind in (nn.Module, torch.Tensor):
        replace(kind, "cuda", lambda self, device=None: self)
    jpeg = importlib.import_module("basicsr.utils.diffjpeg").DiffJPEG
    forward = jpeg.forward
    replace(jpeg, "forward", lambda self, x, quality: forward(self, x, quality).contiguous())
    sharpening = importlib.import_module("basicsr.utils.img_process_util").USMSharp
    begin = sharpening.__init__
    replace(sharpening, "__init__", lambda self: begin(self, radius=5))
