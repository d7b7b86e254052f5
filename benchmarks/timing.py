"""How the benchmarks measure."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Run = Callable[[], object]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def compare(runs: Mapping[str, Run], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turns so that a machine whose speed drifts treats them alike.

    On a CPU it is the processor time of one thread, which other programs on the machine disturb little.
    """
    on_gpu = DEVICE == "cuda"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:
        runs[name]()  # warm-up
    for _ in range(repeats):
        for name, run in runs.items():
            if on_gpu:
                torch.cuda.synchronize()
            clock = time.perf_counter if on_gpu else time.process_time
            start = clock()
            run()
            if on_gpu:
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mebibytes() -> float:
    """The most memory this process has had so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak starts at that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10  # type: ignore[index]


def extra_memory(module: str, *case: str) -> float:
    """Peak memory in MiB that a case adds, measured in a fresh process that runs ``python -m module *case``."""
    done = subprocess.run([sys.executable, "-m", module, *case], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
