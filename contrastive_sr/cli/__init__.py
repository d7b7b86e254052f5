"""The command line `contrastive-sr`; each command imports what it needs when it is called."""

from __future__ import annotations

from contrastive_sr.cli.app import main

__all__ = ["main"]
