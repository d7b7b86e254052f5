"""What an error of ours says, for tests that call with much that may or may not be wrong."""

from __future__ import annotations

from collections.abc import Callable

from contrastive_sr.errors import ContrastiveSRError


def refusal(call: Callable[..., object], *arguments: object) -> str | None:
    """The message with which a call is refused; None if it is not. Any other error goes on."""
    try:
        call(*arguments)
    except ContrastiveSRError as error:
        return str(error)
    return None
