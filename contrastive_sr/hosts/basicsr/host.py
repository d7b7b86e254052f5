"""Imports BasicSR next to today's torchvision, without changing a line of it on disk."""

from __future__ import annotations

import importlib
from types import ModuleType

from contrastive_sr._install import install
from contrastive_sr.errors import HostError
from contrastive_sr.hosts.stand_in import stand_in


def import_basicsr(name: str) -> ModuleType:
    """Import BasicSR or a module of it.

    BasicSR 1.4.2 imports a torchvision module that is gone since 0.17, for one function that lives elsewhere now.
    During this import, and no longer, a stand-in offers that function.

    Args:
        name: full name of the module, e.g. ``"basicsr.train"``.

    Raises:
        HostError: BasicSR is missing or broken; the message says how to repair it.
    """
    moved = ModuleType("torchvision.transforms.functional_tensor")
    try:
        functional = importlib.import_module("torchvision.transforms.functional")
        setattr(moved, "rgb_to_grayscale", functional.rgb_to_grayscale)  # noqa: B010 - unknown to type checkers
        with stand_in(moved):
            return importlib.import_module(name)
    except Exception as error:  # a host that is there can break in any way while it is imported
        raise HostError(
            f"{name} cannot be imported ({type(error).__name__}: {error}). "
            f"Try: {install('basicsr')}; `contrastive-sr doctor` says what is wrong in detail."
        ) from error
