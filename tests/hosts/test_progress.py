"""The training bar on a terminal, in a file, and beside a host's log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contrastive_sr.hosts.progress import PROGRESS_FD, TrainingProgress

_TRAINING = """
import logging, sys
from contrastive_sr.hosts.progress import TrainingProgress
logging.basicConfig(level=logging.INFO, format="%(message)s")   # before the bar, as MMEngine does
own = logging.Logger("own")  # not known to logging.getLogger, as MMEngine's
own.addHandler(logging.StreamHandler())
with TrainingProgress(total=100, start=20, title="EDSR", loggers=[own]) as progress:
    for step in range(21, 101):
        progress.update(step, loss=1 / step)
        if step % 40 == 0:
            logging.info("host at %d", step)
            own.warning("own at %d", step)
logging.info("host ends")
"""


def _run(stderr: int, environment: dict[str, str] | None = None, keep: tuple[int, ...] = ()) -> None:
    project = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": project, "TERM": "xterm", "COLUMNS": "100", **(environment or {})}
    subprocess.run([sys.executable, "-c", _TRAINING], stderr=stderr, env=environment, check=True, pass_fds=keep)


def _read_terminal(master: int) -> str:
    data = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how a closed terminal ends on Linux
            break
        if not part:
            break
        data += part
    return data.decode()


def test_a_file_gets_a_line_every_tenth(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        _run(log.fileno())
    lines = (tmp_path / "log").read_text().splitlines()
    ours = [line for line in lines if line.startswith("EDSR: ")]
    assert [re.search(r"\((\d+)/100\)", line).group(1) for line in ours] == [str(step) for step in range(28, 101, 8)]  # type: ignore[union-attr]
    assert re.fullmatch(r"EDSR: 100 % \(100/100\)  \S+ (it/s|s/it)  0:00 left  loss 0.01", ours[-1])
    logged = [line for line in lines if line.startswith(("host", "own"))]
    assert logged == ["host at 40", "own at 40", "host at 80", "own at 80", "host ends"]


def test_a_terminal_gets_a_bar_below_the_hosts_lines() -> None:
    master, slave = pty.openpty()
    _run(slave)
    os.close(slave)
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read_terminal(master))
    os.close(master)
    lines = [line.strip() for line in re.split(r"[\r\n]+", screen)]
    logged = {"host at 40", "own at 40", "host at 80", "own at 80", "host ends"}
    assert logged <= set(lines), screen  # each on a line of its own
    assert any("EDSR" in line and "100/100" in line and "loss 0.01" in line for line in lines)


def test_an_inherited_descriptor_is_drawn_on_and_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "bar").open("w") as bar, (tmp_path / "log").open("w") as log:
        _run(log.fileno(), {PROGRESS_FD: str(bar.fileno())}, keep=(bar.fileno(),))
        bar.write("still open\n")
    assert (tmp_path / "log").read_text().splitlines() == [
        "host at 40",
        "own at 40",
        "host at 80",
        "own at 80",
        "host ends",
    ]
    assert "EDSR: 100 %" in (tmp_path / "bar").read_text()
    assert (tmp_path / "bar").read_text().endswith("still open\n")


@pytest.mark.parametrize(("total", "start"), [(0, 0), (10, 11), (10, -1)])
def test_impossible_numbers_are_refused(total: int, start: int) -> None:
    with pytest.raises(ValueError, match=f"got total={total} and start={start}"):
        TrainingProgress(total, start)
