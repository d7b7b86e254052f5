"""Codebases that are built on BasicSR, as their authors ship them: their own ``train.py``, with methods in its steps.

``FORKS=FOLDER pytest tests/hosts/test_forks.py``, where the folder holds checkouts by the names below. HAT, which has
no BasicSR of its own, needs the folder ``basicsr`` of version 1.3.4.9 in its checkout. MambaIR's scan needs a GPU; it
gets one in plain PyTorch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.basicsr,
    pytest.mark.skipif("FORKS" not in os.environ, reason="set FORKS to a folder with checkouts of the codebases"),
]

from contrastive_sr.hosts.basicsr.patches import fix  # noqa: E402
from tests.hosts.basicsr_options import PROJECT, write_options  # noqa: E402

SHARED = {"upscale": 4, "in_chans": 3, "img_size": 16, "img_range": 1.0, "resi_connection": "1conv"}
WINDOWS = {**SHARED, "window_size": 8, "depths": [1], "num_heads": [2], "mlp_ratio": 2, "embed_dim": 12}
DIRECT = {"upsampler": "pixelshuffledirect"}
FORKS: dict[str, dict[str, Any]] = {
    "HAT": {
        "model": "HATModel",
        "script": "hat/train.py",
        "network_g": {
            **WINDOWS, "type": "HAT", "compress_ratio": 3, "squeeze_factor": 6, "conv_scale": 0.01,
            "overlap_ratio": 0.5, "upsampler": "pixelshuffle",
        },
    },
    "DAT": {
        "model": "DATModel",
        "network_g": {
            **SHARED, **DIRECT, "type": "DAT", "depth": [1], "embed_dim": 16, "num_heads": [2], "expansion_factor": 2,
            "split_size": [8, 8],
        },
    },
    "SAFMN": {
        "model": "SRModel",
        "network_g": {"type": "SAFMN", "dim": 12, "n_blocks": 2, "ffn_scale": 2.0, "upscaling_factor": 4},
        "train:fft_opt": {"type": "FFTLoss", "loss_weight": 0.05, "reduction": "mean"},
    },
    "SRFormer": {"model": "SwinIRModel", "network_g": {**WINDOWS, **DIRECT, "type": "SRFormer"}},
    "MambaIR": {
        "model": "MambaIRv2LightModel",
        "network_g": {
            **WINDOWS, **DIRECT, "type": "MambaIRv2Light", "embed_dim": 16, "d_state": 2, "inner_rank": 4,
            "num_tokens": 8, "convffn_kernel_size": 5, "mlp_ratio": 1.0,
        },
    },
}  # fmt: skip
SCAN = """
import torch


def selective_scan_ref(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=0):
    delta = torch.nn.functional.softplus(delta.float() + delta_bias[..., None])
    B, C = (x.repeat_interleave(u.shape[1] // x.shape[1], 1) for x in (B, C))
    state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for i in range(u.shape[2]):
        step = delta[:, :, i, None]
        state = torch.exp(step * A) * state + step * B[..., i] * u[:, :, i, None]
        outputs.append((state * C[..., i]).sum(-1))
    return torch.stack(outputs, 2) + u * D[:, None]


selective_scan_fn = selective_scan_ref
"""


@pytest.fixture
def train(demo_data: Path, tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Train for four steps, with validations on an image of 50 x 46; every number that was printed."""

    def run(fork: str, model: str, **changes: Any) -> list[dict[str, str]]:
        settings = dict(FORKS[fork])
        del settings["model"]
        script = settings.pop("script", "basicsr/train.py")
        checkout = tmp_path / "checkout"
        if not checkout.exists():
            shutil.copytree(Path(os.environ["FORKS"]) / fork, checkout, ignore=shutil.ignore_patterns(".git"))
            version = checkout / "basicsr" / "version.py"  # which the fork's set-up would write
            if not version.exists():
                version.write_text("__version__, __gitsha__, version_info = '1.4.2', '', (1, 4, 2)\n")
            fix(checkout)
            scan = checkout / "mamba_ssm" / "ops" / "selective_scan_interface.py"
            scan.parent.mkdir(parents=True)
            scan.write_text(SCAN)
        options = {
            "name": "run",
            "model_type": model,
            "datasets:train:type": "PairedImageDataset",
            "train:total_iter": 4,
            "val:val_freq": 2,
            "val:save_img": False,
            "val:metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False}},
            "logger:print_freq": 1,
            **settings,
            **changes,
        }
        path = write_options(tmp_path, "demo_pcl_edsr", demo_data, options)
        done = subprocess.run(
            [sys.executable, script, "-opt", path],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(PROJECT)]), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        shutil.rmtree(checkout / "experiments")
        logged = re.findall(r"(\w+): (-?\d+\.\d+(?:e[+-]\d+)?) ", done.stderr + " ")
        assert logged
        return [{name: value} for name, value in logged if name.startswith(("l_", "pcl_", "psnr"))]

    return run


@pytest.mark.parametrize("fork", FORKS)
def test_the_step_is_the_forks(fork: str, train: Callable[..., list[dict[str, str]]]) -> None:
    """With a weight of 0 every number is that of the stock training; with a share the terms count."""
    model = FORKS[fork]["model"]
    stock = train(fork, model, methods=None, **{"train:optim_methods": None})
    zero = train(fork, f"Contrastive{model}", methods=[{"type": "PCL", "every": 1, "loss_weight": 0.0}])
    assert len(stock) >= 4
    assert [log for log in zero if set(log) <= {name for known in stock for name in known}] == stock
    share = train(fork, f"Contrastive{model}", methods=[{"type": "PCL", "every": 1, "loss_share": 0.3}])
    shares = [float(log["pcl_contrastive_share"]) for log in share if "pcl_contrastive_share" in log]
    assert shares[0] == pytest.approx(0.3, rel=0.01)
