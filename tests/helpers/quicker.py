"""Two things that MMEngine does so often that a third of the time of a small training goes into them."""

from __future__ import annotations

import gc
import sys
from typing import Any


def quicker() -> None:
    """Leave the text of a config as it is, and spare the garbage collector all that is imported.

    For a training MMEngine lays out the same config some nine times, for its log and for its copy in the work
    directory, and collects garbage for each data set. No value is another. To be called once everything is imported.
    """
    gc.freeze()
    config: Any = sys.modules.get("mmengine.config.config")
    if config is not None:
        config.FormatCode = lambda text, **_: (text, True)
