"""Reads JSON that others may have written."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse_json(text: str) -> Any:
    """What a JSON text holds, with finite numbers alone.

    Raises:
        ValueError: it is no JSON, or has NaN or infinity in it, or more brackets in each other than can be read.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json("[1e999]")
        Traceback (most recent call last):
        ValueError: it holds 1e999, which is no finite number
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it has too many brackets in each other") from None


def _finite(number: str) -> float:
    return float(number) if math.isfinite(float(number)) else _refuse(number)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"it holds {number}, which is no finite number")
