"""What has been done already: the settings of a data set and its finished images, in a file that survives a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contrastive_sr._json import parse_json
from contrastive_sr.data.files import atomic_write, lies_inside, preparing
from contrastive_sr.data.prepare.parts import Files, Job, Part
from contrastive_sr.errors import DataError

JOURNAL = "prepare.jsonl"
"""At the root of a data set: a line of settings, then a line for each finished image."""


class Journal:
    """Finished images of one data set. As long as it is open, no second process works on the folder.

    What it says may be removed is looked at first: files of the names that this command gives, inside of the folder.

    Args:
        out: root of the data set; made if it is missing.
        settings: what decides about the bytes that are written, by the words of a message.
        parts: what is to be written.

    Raises:
        DataError: the folder was prepared with other settings, holds images of another origin, leads out of itself by
            links, or is worked on.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], parts: Sequence[Part]) -> None:
        self.out, self.path = out, out / JOURNAL
        self._done: dict[str, tuple[list[list[int]], Files]] = {}
        self._databases: dict[str, None] = {}  # in the order in which they were written
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(preparing(out, lock=out))
            self._begin(dict(settings), parts)
            self._stream = self.path.open("a")
            self._lock = stack.pop_all()

    def close(self) -> None:
        """Let other processes work on the folder."""
        self._stream.close()
        self._lock.close()

    def files(self, job: Job) -> Files | None:
        """What was written for an image, or None if it is to be done: never done, changed since, or files are gone."""
        stamp, files = self._done.get(_key(job), (None, {}))
        if stamp != _stamp(job) or any(_bytes(self.out / name) != size for name, (size, _, _) in files.items()):
            return None
        return files

    def forget(self, job: Job) -> None:
        """Remove what an earlier run wrote for an image that is to be done again.

        Raises:
            DataError: the journal names files that this command does not write for it. Nothing of the image is removed.
        """
        names = self._done.get(_key(job), ([], {}))[1]
        own = re.compile(rf"{re.escape(job.source.name)}(_s\d+)?\.png")
        for name in names:
            folder, _, file = name.rpartition("/")
            if folder not in job.layout.folders or not own.fullmatch(file):
                raise DataError(
                    f"{self.path}: expected {_key(job)} to have written files of its own name in "
                    f"{', '.join(job.layout.folders)}, got {name}. Nothing of it was removed. Remove that line, or the "
                    "file and begin anew."
                )
        for name in names:
            (self.out / name).unlink(missing_ok=True)
        self._done.pop(_key(job), None)

    def wrote_database(self, name: str) -> bool:
        """Whether an lmdb below the root is one that this command wrote, or began to."""
        return name in self._databases

    def add_database(self, name: str) -> None:
        """Note an lmdb that is about to be written."""
        if name not in self._databases:
            self._databases[name] = None
            self._append(_database_line(name))

    def add(self, job: Job, files: Files) -> None:
        """Note a finished image."""
        self._done[_key(job)] = _stamp(job), files
        self._append(_line(_key(job), *self._done[_key(job)]))

    def _append(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def tidy(self, jobs: Sequence[Job]) -> None:
        """Write the file anew: sorted, and without images that the parts of `jobs` no longer have."""
        self._stream.close()
        parts = {job.layout.hr for job in jobs}
        kept = {_key(job) for job in jobs} | {key for key in self._done if key.rpartition("/")[0] not in parts}
        self._write(_line(key, *self._done[key]) for key in sorted(kept & self._done.keys()))
        self._stream = self.path.open("a")

    def _begin(self, settings: dict[str, Any], parts: Sequence[Part]) -> None:
        self.settings: dict[str, Any] = settings
        folders = [folder for part in parts for folder in part.layout.folders]
        databases = [part.layout.database(folder) for part in parts for folder in part.layout.folders]
        for name in (JOURNAL, *folders, *databases):
            if not lies_inside(self.out / name, self.out):
                raise DataError(
                    f"{self.out / name} leads to {(self.out / name).resolve()}, outside of the data set: expected what "
                    "is written to lie in it. Nothing was changed. Take the link away, or choose another OUT."
                )
        if not self.path.exists():
            others = [name for name in (*folders, *databases) if any((self.out / name).glob("*"))]
            if others:
                raise DataError(
                    f"Expected folders that are missing, empty, or written by this command, got files of another "
                    f"origin in {', '.join(str(self.out / name) for name in others)}. Move them away, or choose "
                    "another OUT."
                )
            self._write(())
        lines = self.path.read_text(errors="replace").splitlines()
        try:
            before = dict(parse_json(lines[0])["settings"])
        except (ValueError, LookupError, TypeError):
            raise DataError(
                f"{self.path} is damaged, so what is in {self.out} cannot be trusted. Remove it and the folders "
                f"{', '.join(folders)} there, and begin anew."
            ) from None
        changed = [
            f"{name} was {before[name]} and is now {settings[name]}"
            for name in settings
            if name in before and before[name] != settings[name]
        ]
        if changed:
            raise DataError(
                f"{self.out} was prepared with other settings: {'; '.join(changed)}. Choose another OUT, or remove "
                f"{', '.join([*folders, JOURNAL])} there to begin anew."
            )
        # the settings of a part that is not there this time stay
        self.settings = before | settings
        for line in lines[1:]:
            try:
                entry = parse_json(line)
                if "database" in entry:
                    self._databases[entry["database"]] = None
                    continue
                self._done[entry["image"]] = (
                    entry["read"],
                    {name: (size, height, width) for name, (size, height, width) in entry["wrote"].items()},
                )
            except (ValueError, LookupError, TypeError):
                continue  # the line that was being written when the command was killed
        self._write(_line(key, *entry) for key, entry in self._done.items())

    def _write(self, lines: Iterable[str]) -> None:
        with atomic_write(self.path) as unfinished, unfinished.open("w") as stream:
            stream.write(json.dumps({"settings": self.settings}) + "\n")
            stream.writelines(lines)
            stream.writelines(map(_database_line, self._databases))


def _database_line(name: str) -> str:
    return json.dumps({"database": name}) + "\n"


def _key(job: Job) -> str:
    return f"{job.layout.hr}/{job.source.name}"


def _stamp(job: Job) -> list[list[int]]:
    """Size and time of all files that are read, to see whether they changed."""
    states = [path.stat() if path.exists() else None for path in job.source.files]
    return [[state.st_size, state.st_mtime_ns] if state else [] for state in states]


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _line(key: str, stamp: list[list[int]], files: Files) -> str:
    return json.dumps({"image": key, "read": stamp, "wrote": files}) + "\n"
