"""What is wrong with the installed host frameworks, and the few lines on disk that mend it.

Nothing here imports a host into this process: versions come from the packages' metadata, files are read as text, and
imports are tried in a Python of their own. Every change is to named lines whose content is known, is recorded together
with the whole file as it was, and `undo` brings back the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrastive_sr.errors import HostError
from contrastive_sr.hosts import INSTALL_BASICSR

State = Literal["ok", "note", "broken", "missing"]

_RECORD_FOLDER = ".contrastive-sr-doctor"
_IMPORT_TIMEOUT = 300.0


@dataclass(frozen=True)
class Patch:
    """Known lines of one host file, and what they have to become.

    Args:
        name: short name used in reports and records.
        file: path below the folder that holds the `basicsr` package, with forward slashes.
        old: the lines as the host ships them.
        new: the lines that replace them.
        reason: what goes wrong without the change.
    """

    name: str
    file: str
    old: str
    new: str
    reason: str


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="torchvision import",
        file="basicsr/data/degradations.py",
        old="from torchvision.transforms.functional_tensor import rgb_to_grayscale\n",
        new="from torchvision.transforms.functional import rgb_to_grayscale\n",
        reason="torchvision 0.17 removed functional_tensor, so `import basicsr` fails",
    ),
    Patch(
        name="resume on a CPU",
        file="basicsr/train.py",
        old=(
            "        device_id = torch.cuda.current_device()\n"
            "        resume_state = torch.load(resume_state_path, "
            "map_location=lambda storage, loc: storage.cuda(device_id))\n"
        ),
        new=(
            "        device = f'cuda:{torch.cuda.current_device()}' if torch.cuda.is_available() else 'cpu'\n"
            "        resume_state = torch.load(resume_state_path, map_location=device)\n"
        ),
        reason="--auto_resume and resume_state ask for the current CUDA device, so they fail where there is none",
    ),
)


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
class Change:
    """A change to one file: `line` is the first changed line, counted from 1; the lines are without line ends."""

    file: Path
    line: int
    before: tuple[str, ...]
    after: tuple[str, ...]


# ---------------------------------------------------------------------------------------------- files on disk


def find_basicsr() -> Path | None:
    """Returns the folder that holds the installed `basicsr` package, or None; does not import it."""
    try:
        spec = importlib.util.find_spec("basicsr")
    except ValueError:  # a half-imported or hand-made module without __spec__
        spec = None
    # a namespace package (spec without origin) is what an uninstall with files left behind looks like
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent.parent


def _check_root(root: Path) -> None:
    if not (root / "basicsr" / "train.py").is_file():
        raise HostError(
            f"Expected a folder that holds BasicSR (basicsr/train.py), got {root}. "
            "Name the root of a BasicSR checkout or the site-packages folder it is installed in."
        )


def _lines_as_in(text: str, data: bytes) -> bytes:
    """`text` as bytes, with the line ends that `data` uses (a checkout on Windows has CRLF)."""
    return (text.replace("\n", "\r\n") if b"\r\n" in data else text).encode()


def patch_state(patch: Patch, root: Path) -> Literal["needed", "done", "unknown"]:
    """Tells by content whether `patch` is needed below `root`, already there, or not applicable to this file."""
    path = root / patch.file
    if not path.is_file():
        return "unknown"
    data = path.read_bytes()
    old, new = data.count(_lines_as_in(patch.old, data)), data.count(_lines_as_in(patch.new, data))
    if (old, new) == (1, 0):
        return "needed"
    return "done" if (old, new) == (0, 1) else "unknown"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _record_path(root: Path) -> Path:
    return root / _RECORD_FOLDER / "record.json"


def _backup_path(root: Path, file: str) -> Path:
    return root / _RECORD_FOLDER / (file.replace("/", "__") + ".original")


def _read_record(root: Path) -> dict[str, dict[str, str]]:
    path = _record_path(root)
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text())["files"]
        return {str(file): {key: str(value) for key, value in entry.items()} for file, entry in files.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise HostError(
            f"Expected the record of earlier changes in {path}, but it cannot be read ({error}). The original files "
            "lie beside it as *.original; copy them back by hand, or reinstall BasicSR and remove that folder."
        ) from error


def _write_atomically(path: Path, data: bytes) -> None:
    """Replaces `path` in one step, keeping its permissions: a crash leaves the old file or the new one."""
    mode = path.stat().st_mode if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_record(root: Path, record: dict[str, dict[str, str]]) -> None:
    path = _record_path(root)
    text = json.dumps({"tool": "contrastive-sr doctor", "files": record}, indent=2) + "\n"
    _write_atomically(path, text.encode())


def _changed_lines(path: Path, before: bytes, old: bytes, new: bytes) -> Change:
    first = before[: before.index(old)].count(b"\n") + 1
    return Change(path, first, tuple(old.decode().splitlines()), tuple(new.decode().splitlines()))


def _writing(action: Callable[[], list[Change]], root: Path) -> list[Change]:
    try:
        return action()
    except OSError as error:
        raise HostError(
            f"Cannot write below {root} ({error.strerror or error}: {error.filename}). Expected a site-packages folder "
            "that you own; use a virtual environment, or run the command as the owner of this one. "
            "`contrastive-sr train` works without these changes."
        ) from error


def fix(root: Path | None = None) -> list[Change]:
    """Applies every patch that is needed.

    Args:
        root: folder that holds the `basicsr` package; the installed one if None.

    Returns:
        The changes made; empty if nothing was needed.

    Raises:
        HostError: BasicSR is not there, a file is not the known one (then nothing at all is changed), or it cannot
            be written.
    """
    root = _installed_root() if root is None else root
    _check_root(root)
    states = {patch: patch_state(patch, root) for patch in PATCHES}
    for patch, state in states.items():
        if state == "unknown":
            raise HostError(_unknown_content(patch, root) + " Nothing was changed.")
    needed = [patch for patch, state in states.items() if state == "needed"]
    return _writing(lambda: _apply(needed, root), root) if needed else []


def _apply(patches: Iterable[Patch], root: Path) -> list[Change]:
    changes = []
    (root / _RECORD_FOLDER).mkdir(exist_ok=True)
    record = _read_record(root)
    for patch in patches:
        path = root / patch.file
        data = path.read_bytes()
        old, new = _lines_as_in(patch.old, data), _lines_as_in(patch.new, data)
        mended = data.replace(old, new)
        known = record.get(patch.file)
        if known is None or known["mended"] != _digest(data):
            # first change of this file, or a reinstalled one: what lies here now is the original
            _write_atomically(_backup_path(root, patch.file), data)
            known = {"original": _digest(data)}
        # the record is written first: whatever happens next, `undo` finds the backup
        record[patch.file] = {**known, "mended": _digest(mended)}
        _write_record(root, record)
        _write_atomically(path, mended)
        changes.append(_changed_lines(path, data, old, new))
    return changes


def undo(root: Path | None = None) -> list[Change]:
    """Brings back every file changed by `fix`, byte for byte, and removes the record.

    Args:
        root: folder that holds the `basicsr` package; the installed one if None.

    Returns:
        The changes made; empty if there was nothing to undo.

    Raises:
        HostError: BasicSR is not there, a file was changed by someone else since, or it cannot be written.
    """
    root = _installed_root() if root is None else root
    record = _read_record(root)
    return _writing(lambda: _restore(record, root), root) if record else []


def _restore(record: dict[str, dict[str, str]], root: Path) -> list[Change]:
    restored: list[tuple[str, bytes, bytes]] = []
    for file, entry in record.items():
        path, backup = root / file, _backup_path(root, file)
        now = path.read_bytes() if path.is_file() else b""
        if not now or _digest(now) == entry["original"]:
            continue  # uninstalled or reinstalled since: nothing of ours is left in it
        original = backup.read_bytes() if backup.is_file() else b""
        if _digest(now) != entry["mended"] or _digest(original) != entry["original"]:
            raise HostError(
                f"Expected {path} as `contrastive-sr doctor --fix` left it and its original in {backup}, but one of "
                "them has changed since. Nothing was restored. Compare the two by hand, or reinstall BasicSR."
            )
        restored.append((file, now, original))
    changes = []
    for file, now, original in restored:
        _write_atomically(root / file, original)
        for patch in PATCHES:
            old, new = _lines_as_in(patch.old, original), _lines_as_in(patch.new, original)
            if patch.file == file and new in now and old in original:
                changes.append(_changed_lines(root / file, now, new, old))
    for file in record:
        _backup_path(root, file).unlink(missing_ok=True)
    _record_path(root).unlink()
    (root / _RECORD_FOLDER).rmdir()
    return changes


def _installed_root() -> Path:
    root = find_basicsr()
    if root is None:
        raise HostError(f"BasicSR is not installed. Try: {INSTALL_BASICSR}")
    return root


def _unknown_content(patch: Patch, root: Path) -> str:
    expected = patch.old.strip().splitlines()[0].strip()
    return (
        f"Expected {root / patch.file} of BasicSR 1.4.2, with the line `{expected}`, but that line is not there as "
        "known. Try `pip install --force-reinstall --no-deps --no-build-isolation basicsr==1.4.2`, or "
        "`contrastive-sr train`, which needs no change on disk."
    )


# --------------------------------------------------------------------------------------------------- the report


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


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _try_python(code: str, *, path: Path | None = None) -> tuple[bool, str]:
    """Runs `code` in a fresh Python; returns success and the last line of what it printed or raised."""
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
    version = _version("torch")
    if version is None:
        return [Finding("torch", None, "broken", "not installed", "pip install torch torchvision")]
    works, said = _try_python(_TORCH_PROBE)
    if not works:
        return [Finding("torch", version, "broken", said, "pip install --force-reinstall torch torchvision")]
    return [Finding("torch", version, "ok", said)]


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
        return [Finding("basicsr", version, "missing", "not installed", INSTALL_BASICSR)]
    _check_root(place)
    findings = []
    for patch in PATCHES:
        state = patch_state(patch, place)
        if state == "needed":
            detail = f"{patch.file}: {patch.reason}"
            findings.append(Finding("basicsr", version, "broken", detail, "contrastive-sr doctor --fix"))
        elif state == "unknown" and version is not None and version.startswith("1.4.2"):
            findings.append(Finding("basicsr", version, "broken", _unknown_content(patch, place)))
    if findings:
        return findings
    works, said = _try_python("import basicsr.train", path=root)
    if not works:
        return [Finding("basicsr", version, "broken", said, INSTALL_BASICSR)]
    mended = "importable, as mended by --fix" if _record_path(place).is_file() else "importable"
    return [
        Finding("basicsr", version, "ok", mended),
        Finding(
            "basicsr", version, "note",
            f"`python -m basicsr.train` keeps experiments/ and tb_logger/ in {place} and looks for --auto_resume "
            "states below the current folder: run it from there",
            "contrastive-sr train keeps all of it in the current folder",
        ),
    ]  # fmt: skip


def _check_mmagic() -> list[Finding]:
    install = 'pip install "contrastive-sr[mmagic]"'
    version = _version("mmagic")
    if version is None:
        return [Finding("mmagic", None, "missing", "not installed", install)]
    findings = []
    for need in _MMAGIC_NEEDS:
        found = _version(need.package)
        if found is None or _release(found) >= _release(need.below):
            remedy = f'pip install "{need.package}<{need.below}"'
            findings.append(Finding(need.package, found, "broken", need.reason, remedy))
    mmengine, mim = _version("mmengine"), _version("openmim")
    if mmengine is None:
        findings.append(Finding("mmengine", None, "broken", "not installed; MMagic trains with it", install))
    full, lite = _version("mmcv"), _version("mmcv-lite")
    if full is None and lite is None:
        findings.append(Finding("mmcv", None, "broken", "neither mmcv nor mmcv-lite is installed", install))
    elif _release(full or lite or "") >= (2, 2):
        findings.append(Finding("mmcv", full or lite, "broken", "MMagic 1.2 needs mmcv below 2.2", install))
    if findings:
        return findings
    works, said = _try_python("from contrastive_sr.hosts.mmagic.host import load_host; load_host()")
    if not works:
        return [Finding("mmagic", version, "broken", said, install)]
    lite_note = "importable" if full else "importable through contrastive_sr.hosts.mmagic (mmcv-lite has no mmcv._ext)"
    return [
        Finding("mmagic", version, "ok", lite_note),
        Finding("mmengine", mmengine, "ok", "importable"),
        Finding("mmcv" if full else "mmcv-lite", full or lite, "ok", "importable"),
        Finding("mim", mim, "ok", "`mim train mmagic CONFIG` can be used")
        if mim
        else Finding("mim", None, "missing", "only `mim train` needs it", "pip install openmim"),
    ]


def examine(basicsr: Path | None = None) -> list[Finding]:
    """Looks at the hosts and what they stand on; takes some seconds, as every import is tried in a fresh Python.

    Args:
        basicsr: a BasicSR checkout to look at instead of the installed package.

    Returns:
        Findings in the order torch, torchvision, numpy, timm, torchmetrics, BasicSR, MMagic.

    Raises:
        HostError: `basicsr` holds no BasicSR.
    """
    if basicsr is not None:
        _check_root(basicsr)
    checks: list[Callable[[], list[Finding]]] = [
        _check_torch,
        lambda: _check_import("torchvision", "pip install --force-reinstall torch torchvision"),
        lambda: _check_import("numpy", "pip install --force-reinstall numpy"),
        lambda: _check_import("timm", 'pip install "contrastive-sr[timm]"'),
        lambda: _check_import("torchmetrics", 'pip install "contrastive-sr[ssim]"'),
        lambda: _check_basicsr(basicsr),
        _check_mmagic,
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [finding for findings in pool.map(lambda check: check(), checks) for finding in findings]
