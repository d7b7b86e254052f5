"""What has been done already: the settings of a data set and its finished images, in a file that survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_sr.data.files import atomic_write
from contrastive_sr.data.prepare.parts import Files, Job, Part
from contrastive_sr.errors import DataError

JOURNAL = "prepare.jsonl"
"""At the root of a data set: a line of settings, then a line for each finished image."""


class Journal:
    """Finished images of one data set. As long as it is open, no second process works on the folder.

    Args:
        out: root of the data set; made if it is missing.
        settings: what decides about the bytes that are written, by the words of a message.
        parts: what is to be written.

    Raises:
        DataError: the folder was prepared with other settings, holds images of another origin, or is worked on.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], parts: Sequence[Part]) -> None:
        self.out, self.path = out, out / JOURNAL
        self._done: dict[str, tuple[list[list[int]], Files]] = {}
        out.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(out, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataError(f"Another `contrastive-sr prepare` is at work on {out}. Wait for it to end.") from None
        try:
            self._begin(dict(settings), parts)
        except BaseException:
            os.close(self._lock)
            raise
        self._stream = self.path.open("a")

    def close(self) -> None:
        """Let other processes work on the folder."""
        self._stream.close()
        os.close(self._lock)

    def files(self, job: Job) -> Files | None:
        """What was written for an image, or None if it is to be done: never done, changed since, or files are gone."""
        stamp, files = self._done.get(_key(job), (None, {}))
        if stamp != _stamp(job) or any(_bytes(self.out / name) != size for name, (size, _, _) in files.items()):
            return None
        return files

    def forget(self, job: Job) -> None:
        """Remove what an earlier run wrote for an image that is to be done again."""
        for name in self._done.pop(_key(job), ([], {}))[1]:
            (self.out / name).unlink(missing_ok=True)

    def add(self, job: Job, files: Files) -> None:
        """Note a finished image."""
        self._done[_key(job)] = _stamp(job), files
        self._stream.write(_line(_key(job), *self._done[_key(job)]))
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
        if not self.path.exists():
            databases = [part.layout.database(folder) for part in parts for folder in part.layout.folders]
            others = [name for name in (*folders, *databases) if any((self.out / name).glob("*"))]
            if others:
                raise DataError(
                    f"Expected folders that are missing, empty, or written by this command, got files of another "
                    f"origin in {', '.join(str(self.out / name) for name in others)}. Move them away, or choose "
                    "another OUT."
                )
            self._write(())
        lines = self.path.read_text().splitlines()
        try:
            before = json.loads(lines[0])["settings"]
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
                entry = json.loads(line)
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
