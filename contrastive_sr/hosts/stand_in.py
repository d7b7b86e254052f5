"""A stand-in for a module that a host imports and this project never uses."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def stand_in(module: ModuleType) -> Iterator[None]:
    """Let `import <module's name>` succeed inside the block, if no real module of that name is installed.

    Afterwards nothing is left in `sys.modules` and no import hook exists: whoever asks for the module later, with an
    import or with `find_spec`, is told that it is missing.

    Args:
        module: what the import gets; its `__name__` is the full dotted name.
    """
    name = module.__name__
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
