"""Files that appear in one step, locks that end with their process, and what may be removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contrastive_sr.data.files import (
    atomic_files,
    atomic_folder,
    atomic_write,
    lies_inside,
    locked,
    preparing,
    remove_unfinished,
)
from contrastive_sr.errors import DataError

LEFT = f".contrastive-sr-{7:016x}.unfinished"
# A process that holds a lock, and has a child that outlives it, as workers that load images do for a while.
HOLDER = """
import os, sys, time
from pathlib import Path
from contrastive_sr.data.files import locked
with locked(Path(sys.argv[1])):
    if os.fork():
        print("held", flush=True)
    time.sleep(600)
"""


def write_all(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).touch()


def test_a_file_keeps_its_permissions_and_an_error_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(TypeError), atomic_write(path) as unfinished:
        unfinished.write_text(b"fails after the file was opened")  # type: ignore[arg-type]
    assert path.read_text() == "old"
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)
    assert [other.name for other in tmp_path.iterdir()] == ["a.txt"]


def test_a_planted_link_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("a.txt.unfinished", "a.txt.part", "a.txt"):
        (tmp_path / name).symlink_to(victim)
    with atomic_write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("new")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "a.txt").is_symlink()
    # even one of the right name, which nobody can guess
    monkeypatch.setattr("secrets.token_hex", lambda count: f"{7:016x}")
    (tmp_path / LEFT).symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a.txt"):
        pass
    assert victim.read_text() == "mine"


def test_what_was_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / LEFT).write_text("of a process that was killed")
    (tmp_path / LEFT.replace("7", "8")).mkdir()
    (tmp_path / LEFT.replace("7", "8") / "a.txt").touch()
    others = ["mine.unfinished", ".contrastive-sr-mine.unfinished", "a.partial"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / LEFT.replace("7", "9")).symlink_to(tmp_path / "a.partial")
    with atomic_write(tmp_path / "a.txt") as unfinished:
        remove_unfinished(tmp_path)
        assert unfinished.exists()  # it is being written
    assert {path.name for path in tmp_path.iterdir()} == {*others, "a.txt", LEFT.replace("7", "9")}


def test_a_folder_and_several_files_appear_at_once(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set") as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set/a.txt").read_text() == "a"

    def refuse_b(path: Path) -> None:
        if path.name == "b":
            raise DataError("b is not as it should be")

    with pytest.raises(DataError, match="b is not"), atomic_files(tmp_path / "set", refuse_b) as unfinished:
        write_all(unfinished, ("a", "b"))
    with atomic_files(tmp_path / "set", refuse_b) as unfinished:
        (unfinished / "c").touch()
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"a.txt", "c"}


def test_a_lock_ends_with_its_process_though_a_child_lives_on(tmp_path: Path, project: Path) -> None:
    lock = tmp_path / ".set.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(project)},
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(DataError, match=r"Another .contrastive-sr prepare. is at work on .*set"):
            preparing(tmp_path / "set", lock).__enter__()
        holder.kill()
        holder.wait()
        with locked(lock), pytest.raises(BlockingIOError), locked(lock):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()
    assert not lock.exists()


def test_links_count_by_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/out").symlink_to(tmp_path)
    assert lies_inside(tmp_path / "set/a/b", tmp_path / "set")
    for path in ("set", "set/..", "set/../other", "set/out/other"):
        assert not lies_inside(tmp_path / path, tmp_path / "set")


def test_without_locks_of_posix_the_losses_can_be_imported_and_the_rest_says_why() -> None:
    """As on Windows, where there is no module fcntl."""
    code = """
import sys
sys.modules["fcntl"] = None
import contrastive_sr.losses, contrastive_sr.methods, contrastive_sr.samples
print("imported")
import contrastive_sr.hosts.trainner
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "imported\n")
    assert "HostError: contrastive-sr: expected Linux, macOS or the Windows Subsystem for Linux" in done.stderr


def test_a_folder_whose_place_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(DataError, match=r"the folder the command is run in. Name a new folder in it"),
        atomic_folder(tmp_path),
    ):
        pass
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(DataError, match="a disk or volume of its own"), atomic_folder(tmp_path / "disk"):
        pass
    assert list((tmp_path / "disk").iterdir()) == []
