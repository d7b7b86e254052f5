"""The core needs torch and numpy alone, and leaves the hosts alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CORE = ["functional", "losses", "embeddings", "samples", "degradations", "networks", "criteria", "methods"]
CORE += ["config", "distributed", "errors"]
FOREIGN = ["basicsr", "mmengine", "mmagic", "mmcv", "rich", "typer", "yaml", "torchvision", "timm", "PIL", "cv2"]
FOREIGN += ["torchmetrics"]

SCRIPT = """
import sys
import torch, numpy
before = set(sys.modules)
import contrastive_sr
print(*sorted(set(sys.modules) - before))
for name in sys.argv[1].split(","):
    __import__(f"contrastive_sr.{name}")
print(*sorted(set(sys.modules) - before))
"""


def test_core_imports_no_host_and_no_extra(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(CORE)], cwd=project, capture_output=True, text=True, check=True
    )
    package, core = (set(line.split()) for line in done.stdout.splitlines())
    assert package == {"contrastive_sr"}  # the package itself costs nothing
    assert {f"contrastive_sr.{name}" for name in CORE} <= core
    assert not {name.partition(".")[0] for name in core} & set(FOREIGN)
    assert not [name for name in core if name.startswith(("contrastive_sr.hosts", "contrastive_sr.cli"))]
