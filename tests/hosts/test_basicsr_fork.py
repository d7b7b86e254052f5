"""A fork of BasicSR: the installed package under another name, with registries of its own, and one call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from contrastive_sr.errors import HostError
from contrastive_sr.hosts.basicsr.fork import register
from contrastive_sr.hosts.basicsr.host import import_basicsr
from tests.hosts.basicsr_options import PROJECT, write_options

pytestmark = pytest.mark.basicsr

# As docs/basicsr_fork.md says it: the call stands behind the fork's own models.
CALL = """
from contrastive_sr.hosts.basicsr.fork import register
from srfork.models.esrgan_model import ESRGANModel
from srfork.models.sr_model import SRModel
from srfork.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

register(
    MODEL_REGISTRY,
    ARCH_REGISTRY,
    SRModel,
    ESRGANModel,
    loss_registry=LOSS_REGISTRY,
    metric_registry=METRIC_REGISTRY,
    logger="srfork",
)
"""


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fork, as a checkout of it has it."""
    folder = tmp_path_factory.mktemp("fork")
    package = Path(import_basicsr("basicsr").__file__ or "").parent
    shutil.copytree(package, folder / "srfork", ignore=shutil.ignore_patterns("__pycache__", "metrics/*.mat"))
    for file in (folder / "srfork").rglob("*.py"):
        text = file.read_text().replace("basicsr", "srfork")
        # gone from torchvision, in the fork as in BasicSR
        file.write_text(text.replace("transforms.functional_tensor", "transforms.functional"))
    with open(folder / "srfork/models/__init__.py", "a") as file:
        file.write(CALL)
    return folder


def train(fork: Path, folder: Path, options: Path, *arguments: str) -> str:
    """Train with the fork's own script, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "-opt", str(options), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{fork}{os.pathsep}{PROJECT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


SCRIPT = """
import sys
from srfork.archs import build_network
from srfork.train import train_pipeline
train_pipeline(".")
assert "basicsr" not in sys.modules
branches = dict(type="CriteriaBranches", trunk=dict(type="EDSR", num_in_ch=3, num_out_ch=3, num_feat=8, num_block=1))
print("trunk of", *{type(part).__module__ for part in build_network(branches).trunk.modules()})
"""


@pytest.mark.parametrize("config", ["demo_pcl_edsr", "demo_pcl_gan_rrdb"])
def test_a_fork_trains(fork: Path, tmp_path: Path, demo_data: Path, config: str) -> None:
    changes = {
        "datasets:train:type": "PairedImageDataset",
        "datasets:val:type": "PairedImageDataset",
        "train:total_iter": 2,
        "val:val_freq": 2,
        "val:metrics": {"pattern": {"type": "calculate_pattern", "period": 4, "better": "lower"}},
        "logger:print_freq": 1,
        "logger:save_checkpoint_freq": 2,
        "logger:use_tb_logger": False,
    }
    options = write_options(tmp_path, config, demo_data, changes)
    # a fork that calls register() needs no plugin line, and its loader need not know ours
    options.write_text("".join(line for line in options.open() if not line.startswith("plugin:")))
    printed = train(fork, tmp_path, options)
    assert "pcl_contrastive_share" in printed
    assert "srfork.archs.arch_util" in printed.rpartition("trunk of")[2]
    folder = tmp_path / "experiments" / config
    assert torch.load(folder / "models/pcl_embedding_2.pth", weights_only=True)
    state = torch.load(folder / "training_states/2.state", weights_only=True)
    assert state["methods"]["step.count"] == 2
    log = next(folder.glob("train_*.log")).read_text()
    assert "pcl_contrastive" in log
    excess = float(log.partition(" # pattern: ")[2].split()[0])
    assert ("periodic dots" in log) == (excess > 0.5)


@pytest.fixture
def names_of_basicsr() -> Iterator[None]:
    """The host's names as the plugin has set them, whatever a test makes of them."""
    yield
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()


@pytest.mark.usefixtures("names_of_basicsr")
def test_what_is_no_fork_is_refused() -> None:
    registries = import_basicsr("basicsr.utils.registry")
    models, networks = registries.Registry("model"), registries.Registry("arch")
    with pytest.raises(
        HostError, match=r"expected a model with the methods of BasicSR's SRModel, got one without init"
    ):
        register(models, networks, torch.nn.Conv2d)
    sr_model = import_basicsr("basicsr.models.sr_model").SRModel
    register(models, networks, sr_model)
    assert "ContrastiveSRGANModel" not in models
    with pytest.raises(HostError, match=r"ContrastiveSRModel is registered already"):
        register(models, networks, sr_model)
