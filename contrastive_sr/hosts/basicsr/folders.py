"""The folders that the `name` of an option file leads to: inside of their roots, of one training, each log its own."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from contrastive_sr.data.files import lies_inside
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.launch import one_training

_FORMAT = "%Y%m%d_%H%M%S"  # BasicSR's


def check_folders(opt: Mapping[str, Any]) -> None:
    """Refuse a name that leads out of ``experiments/`` or ``tb_logger/``, which BasicSR would move and write there.

    Args:
        opt: the options, as BasicSR has parsed them.

    Raises:
        ConfigError: it does.
    """
    name = opt["name"]
    for folder in _folders(opt):
        if Path(name).name != name or not lies_inside(folder, folder.parent):
            leads = f", a link to {folder.resolve()}" if folder.is_symlink() else ""
            raise ConfigError(
                f"name: expected that of a folder in experiments/ and tb_logger/, got {name}{leads}. Nothing was "
                "changed. Choose a name without `/` that is not there as a link."
            )


def one_run(opt: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Keep a second training of the same name out.

    Raises:
        HostError: there is one.
    """
    folder = _folders(opt)[0]
    return one_training(folder, folder.with_name(f".{folder.name}.lock"), "give this one a `name` of its own")


def free_stamp(opt: Mapping[str, Any]) -> str:
    """Date and time for the name of a log or of what is archived, as BasicSR writes them: later than any that is there.

    So logs of a resumed training have the order in which they were written, also if the clock was set back, and two
    runs in one second do not meet.
    """
    runs = [glob.escape(str(folder)) for folder in _folders(opt)]
    there = [path for run in runs for path in (*glob.glob(f"{run}/train_*.log"), *glob.glob(f"{run}_archived_*"))]
    now = datetime.now().replace(microsecond=0)
    for path in there:
        try:
            taken = datetime.strptime(Path(path).name.removesuffix(".log")[-15:], _FORMAT)
        except ValueError:  # a name that a person gave
            continue
        now = max(now, taken + timedelta(seconds=1))
    return now.strftime(_FORMAT)


def _folders(opt: Mapping[str, Any]) -> list[Path]:
    experiment = Path(opt["path"]["experiments_root"])
    return [experiment, experiment.parent.with_name("tb_logger") / opt["name"]]
