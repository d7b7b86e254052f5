"""The few lines of BasicSR on disk that do not work with today's torchvision or without a GPU, and their repair.

Nothing here imports BasicSR, numpy or torch, which may be broken themselves. Every change is to named lines whose
content is known, is recorded together with the whole file as it was, and `undo` brings back the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrastive_sr._install import install
from contrastive_sr._json import parse_json
from contrastive_sr.errors import HostError

_RECORD_FOLDER = ".contrastive-sr-doctor"


@dataclass(frozen=True)
class Patch:
    """Known lines of one host file, and what they have to become.

    Args:
        name: short name used in reports and records.
        file: path below the folder that holds the `basicsr` package, with forward slashes.
        old: the lines as the host ships them.
        new: the lines that replace them.
        reason: what goes wrong without the change.
        former: lines by which an earlier version, or a user, replaced them, which will do as well.
    """

    name: str
    file: str
    old: str
    new: str
    reason: str
    former: str | None = None

    @property
    def mended(self) -> tuple[str, ...]:
        """All lines that stand in the place of the old ones in a file that is mended."""
        return tuple(lines for lines in (self.new, self.former) if lines is not None)


PATCHES: tuple[Patch, ...] = (
    Patch(
        name="torchvision import",
        file="basicsr/data/degradations.py",
        old="from torchvision.transforms.functional_tensor import rgb_to_grayscale\n",
        new="from torchvision.transforms.functional import rgb_to_grayscale\n",
        reason="torchvision 0.17 removed functional_tensor, so `import basicsr` fails",
        # as it is often mended by hand
        former="from torchvision.transforms._functional_tensor import rgb_to_grayscale\n",
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
            # optimizers move their state to the network's device, but for Adam's step counts, which are slow on a GPU
            "        resume_state = torch.load(resume_state_path, map_location='cpu')\n"
        ),
        reason="--auto_resume and resume_state ask for the current CUDA device, so they fail where there is none",
        former=(
            "        device = f'cuda:{torch.cuda.current_device()}' if torch.cuda.is_available() else 'cpu'\n"
            "        resume_state = torch.load(resume_state_path, map_location=device)\n"
        ),
    ),
)


@dataclass(frozen=True)
class Change:
    """A change to one file: `line` is the first changed line, counted from 1; the lines are without line ends."""

    file: Path
    line: int
    before: tuple[str, ...]
    after: tuple[str, ...]


def find_basicsr() -> Path | None:
    """The folder that holds the installed `basicsr` package, or None; does not import it."""
    try:
        spec = importlib.util.find_spec("basicsr")
    except ValueError:  # a half-imported or hand-made module without __spec__
        spec = None
    # a namespace package (spec without origin) is what an uninstall with files left behind looks like
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent.parent


def check_root(root: Path) -> None:
    """Refuse a folder that does not hold the package `basicsr`.

    Raises:
        HostError: it does not.
    """
    if not (root / "basicsr" / "train.py").is_file():
        raise HostError(
            f"Expected a folder that holds BasicSR (basicsr/train.py), got {root}. "
            "Name the root of a BasicSR checkout or the site-packages folder it is installed in."
        )


def _lines_as_in(text: str, data: bytes) -> bytes:
    """`text` as bytes, with the line ends that `data` uses (a checkout on Windows has CRLF)."""
    return (text.replace("\n", "\r\n") if b"\r\n" in data else text).encode()


def patch_state(patch: Patch, root: Path) -> Literal["needed", "done", "unknown"]:
    """Whether `patch` is needed below `root`, is already there, or does not fit this file, by the file's content.

    A codebase that carries a part of BasicSR may lack the file, and then there is nothing to mend.
    """
    path = root / patch.file
    if not path.is_file():
        return "done"
    data = path.read_bytes()
    old = data.count(_lines_as_in(patch.old, data))
    new = sum(data.count(_lines_as_in(lines, data)) for lines in patch.mended)
    if (old, new) == (1, 0):
        return "needed"
    return "done" if (old, new) == (0, 1) else "unknown"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_patched(root: Path) -> bool:
    """Whether `fix` has changed files below `root`, and `undo` not brought them back."""
    return _record_path(root).is_file()


def _record_path(root: Path) -> Path:
    folder = root / _RECORD_FOLDER
    if folder.is_symlink():
        raise HostError(f"Expected a folder of our own at {folder}, got a link. Take it away; nothing was changed.")
    return folder / "record.json"


def _backup_path(root: Path, file: str) -> Path:
    return root / _RECORD_FOLDER / (file.replace("/", "__") + ".original")


def _read_record(root: Path) -> dict[str, dict[str, str]]:
    path = _record_path(root)
    if not path.is_file():
        return {}
    try:
        files = parse_json(path.read_text())["files"]
        if others := set(files) - {patch.file for patch in PATCHES}:
            raise KeyError(f"{min(others)}, which is none of the files that are changed")
        return {str(file): {key: str(value) for key, value in entry.items()} for file, entry in files.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise HostError(
            f"Expected the record of earlier changes in {path}, but it cannot be read ({error}). The original files "
            "lie beside it as *.original; copy them back by hand, or reinstall BasicSR and remove that folder."
        ) from error


def _write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` in one step, keeping its permissions: a crash leaves the old file or the new one."""
    mode = path.stat().st_mode if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
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
    """Apply every patch that is needed.

    Args:
        root: folder that holds the `basicsr` package; the installed one if None.

    Returns:
        The changes made; empty if nothing was needed.

    Raises:
        HostError: BasicSR is not there, a file is not the known one (then nothing at all is changed), or it cannot
            be written.
    """
    root = _installed_root() if root is None else root
    check_root(root)
    states = {patch: patch_state(patch, root) for patch in PATCHES}
    for patch, state in states.items():
        if state == "unknown":
            raise HostError(unknown_content(patch, root) + " Nothing was changed.")
    needed = [patch for patch, state in states.items() if state == "needed"]
    return _writing(lambda: _apply(needed, root), root) if needed else []


def _apply(patches: Iterable[Patch], root: Path) -> list[Change]:
    changes = []
    _record_path(root).parent.mkdir(exist_ok=True)
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
    """Bring back every file changed by `fix`, byte for byte, and removes the record.

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
            old = _lines_as_in(patch.old, original)
            for new in (_lines_as_in(lines, original) for lines in patch.mended):
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
        raise HostError(f"BasicSR is not installed. Try: {install('basicsr')}")
    return root


def unknown_content(patch: Patch, root: Path) -> str:
    """The message for a file without the lines that a patch replaces."""
    expected = patch.old.strip().splitlines()[0].strip()
    return (
        f"Expected {root / patch.file} of BasicSR 1.3.4.9 or 1.4.2, with the line `{expected}`, but that line is not "
        "there as known. Try `pip install --force-reinstall --no-deps --no-build-isolation basicsr==1.4.2`, or "
        "`contrastive-sr train`, which needs no change on disk."
    )
