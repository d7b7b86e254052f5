"""What is wrong with the installed host frameworks, and how to repair it.

Nothing here imports a host into this process: versions come from the packages' metadata, and imports are tried in a
Python of their own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from contrastive_sr._install import install, pip_install
from contrastive_sr._install import installed_version as _version
from contrastive_sr.hosts.basicsr.patches import (
    PATCHES,
    check_root,
    find_basicsr,
    is_patched,
    patch_state,
    unknown_content,
)

State = Literal["ok", "note", "broken", "missing"]

_IMPORT_TIMEOUT = 300.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        subject: package or property looked at.
        version: installed version, or None.
        state: "ok", "note" (works, worth knowing), "broken" (needs mending) or "missing" (not installed).
        detail: what was seen.
        remedy: what to do about it; empty if nothing.
    """

    subject: str
    version: str | None
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class _Requirement:
    """A version range that a host needs of another package; `below` is exclusive."""

    package: str
    below: str
    reason: str


_MMAGIC_NEEDS = (
    _Requirement("numpy", "2", "MMagic 1.2 uses np.bool8, gone in numpy 2"),
    _Requirement("diffusers", "0.25", "MMagic 1.2 fits diffusers 0.24"),
    _Requirement("huggingface_hub", "0.26", "diffusers 0.24 imports cached_download, gone in huggingface_hub 0.26"),
    _Requirement("albumentations", "1.4", "MMagic 1.2 imports it undeclared, and fits albumentations 1.3"),
    _Requirement("setuptools", "81", "mim imports pkg_resources, gone in setuptools 81"),
)

_TORCH_PROBE = """
import torch
if torch.cuda.is_available():
    print(f"CUDA {torch.version.cuda}: {torch.cuda.get_device_name()} ({torch.cuda.device_count()} visible)")
else:
    print("no CUDA device; training runs on the CPU")
"""


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _try_python(code: str, *, path: Path | None = None) -> tuple[bool, str]:
    """Run `code` in a fresh Python; whether it ended well, and the last line of what it printed or raised."""
    ours = Path(__file__).resolve().parents[2]  # so that it works from a source folder as well
    folders = [str(folder) for folder in (path, ours) if folder is not None]
    search = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    try:
        with tempfile.TemporaryDirectory() as folder:  # not the current folder: a `basicsr/` there would be imported
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                capture_output=True, text=True, timeout=_IMPORT_TIMEOUT, env=environment, cwd=folder,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"no answer within {_IMPORT_TIMEOUT:.0f} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1].strip() if lines else ""


def _check_torch() -> list[Finding]:
    """torch, and torchvision, which must fit it: a torch that works stays, whatever is wrong with torchvision."""
    version = _version("torch")
    if version is None:
        return [Finding("torch", None, "broken", "not installed", pip_install("torch", "torchvision"))]
    works, said = _try_python(_TORCH_PROBE)
    if not works:
        remedy = pip_install("--force-reinstall", "torch", "torchvision")
        return [Finding("torch", version, "broken", said, remedy)]
    (torchvision,) = _check_import("torchvision", pip_install("torchvision"))
    if torchvision.state == "broken":
        torchvision = replace(torchvision, remedy=f"pip uninstall -y torchvision && {torchvision.remedy}")
    return [Finding("torch", version, "ok", said), torchvision]


def _check_import(package: str, remedy: str, *, module: str | None = None) -> list[Finding]:
    version = _version(package)
    if version is None:
        return [Finding(package, None, "missing", "not installed", remedy)]
    works, said = _try_python(f"import {module or package}")
    if not works:
        return [Finding(package, version, "broken", said, remedy)]
    return [Finding(package, version, "ok", "importable")]


def _check_basicsr(root: Path | None) -> list[Finding]:
    version = _version("basicsr") if root is None else f"in {root}"
    place = find_basicsr() if root is None else root
    if place is None:
        return [Finding("basicsr", version, "missing", "not installed", install("basicsr"))]
    check_root(place)
    findings, changed = [], []
    for patch in PATCHES:
        state = patch_state(patch, place)
        if state == "needed":
            detail = f"{patch.file}: {patch.reason}"
            where = "" if root is None else f" --basicsr {shlex.quote(str(root))}"
            findings.append(Finding("basicsr", version, "broken", detail, f"contrastive-sr doctor{where} --fix"))
        elif state == "unknown" and (root is not None or (version or "").startswith("1.4.2")):
            changed.append(unknown_content(patch, place))
    if findings:
        return findings
    works, said = _try_python("import basicsr.train", path=root)
    if not works:
        said = " ".join([said, *changed])
        return [Finding("basicsr", version, "broken", said, install("basicsr") if root is None else "")]
    mended = "importable, as mended by --fix" if is_patched(place) else "importable"
    return [
        Finding("basicsr", version, "ok", mended),
        *(Finding("basicsr", version, "note", content) for content in changed),
        Finding(
            "basicsr", version, "note",
            f"`python -m basicsr.train` keeps experiments/ and tb_logger/ in {place} and looks for --auto_resume "
            "states below the current folder: run it from there",
            "contrastive-sr train keeps all of it in the current folder",
        ),
    ]  # fmt: skip


def _check_mmagic() -> list[Finding]:
    version = _version("mmagic")
    if version is None:
        return [Finding("mmagic", version, "missing", "not installed", install("mmagic"))]
    findings = []
    for need in _MMAGIC_NEEDS:
        installed = _version(need.package)
        if installed is None or _release(installed) >= _release(need.below):
            remedy = pip_install(f"{need.package}<{need.below}")
            findings.append(Finding(need.package, installed, "broken", need.reason, remedy))
    mmengine, mim = _version("mmengine"), _version("openmim")
    if mmengine is None:
        findings.append(Finding("mmengine", None, "broken", "not installed; MMagic trains with it", install("mmagic")))
    full, lite = _version("mmcv"), _version("mmcv-lite")
    if full is None and lite is None:
        findings.append(Finding("mmcv", None, "broken", "neither mmcv nor mmcv-lite is installed", install("mmagic")))
    elif _release(full or lite or "") >= (2, 2):
        findings.append(Finding("mmcv", full or lite, "broken", "MMagic 1.2 needs mmcv below 2.2", install("mmagic")))
    if findings:
        return findings
    works, said = _try_python("from contrastive_sr.hosts.mmagic.host import load_host; load_host()")
    if not works:
        return [Finding("mmagic", version, "broken", said, install("mmagic"))]
    lite_note = "importable" if full else "importable through contrastive_sr.hosts.mmagic (mmcv-lite has no mmcv._ext)"
    return [
        Finding("mmagic", version, "ok", lite_note),
        Finding("mmengine", mmengine, "ok", "importable"),
        Finding("mmcv" if full else "mmcv-lite", full or lite, "ok", "importable"),
        Finding("mim", mim, "ok", "`mim train mmagic CONFIG` can be used")
        if mim
        else Finding("mim", None, "missing", "only `mim train` needs it", pip_install("openmim")),
    ]


def examine(basicsr: Path | None = None) -> list[Finding]:
    """Look at the hosts and the packages they need; takes some seconds, as every import is tried in a fresh Python.

    Args:
        basicsr: a BasicSR checkout to look at instead of the installed package.

    Returns:
        Findings in the order torch, torchvision, numpy, timm, torchmetrics, BasicSR, MMagic.

    Raises:
        HostError: `basicsr` holds no BasicSR.
    """
    if basicsr is not None:
        check_root(basicsr)
    checks: list[Callable[[], list[Finding]]] = [
        _check_torch,
        lambda: _check_import("numpy", pip_install("--force-reinstall", "numpy")),
        lambda: _check_import("timm", install("timm")),
        lambda: _check_import("torchmetrics", install("ssim")),
        lambda: _check_basicsr(basicsr),
        _check_mmagic,
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [finding for findings in pool.map(lambda check: check(), checks) for finding in findings]
