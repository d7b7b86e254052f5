"""Checks that the whole library uses: their errors say what was expected, what came and what to try."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError


def describe(x: object) -> str:
    """Say in a few words what a value is."""
    if isinstance(x, Tensor):
        return f"a {str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"a {x.dtype} {type(x).__name__} of shape {tuple(x.shape)}"
    kind = type(x).__name__
    if isinstance(x, OrderedDict):  # what hosts read mappings into
        x, kind = dict(x), "mapping"
    try:
        text = repr(x)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "..."
    return f"{text if len(text) <= 200 else text[:200] + '...'} ({kind})"


def describe_error(error: BaseException) -> str:
    """An error's type and first line.

    Of an unpickling error only the type: torch's text advises to load the file with ``weights_only=False``, which
    would run any code that the file holds.
    """
    line = "" if isinstance(error, pickle.UnpicklingError) else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def few(texts: Collection[str], separator: str = ", ") -> str:
    """The first of many texts, and how many more there are.

    Example:
        >>> few(["a.png", "b.png", "c.png", "d.png"])
        'a.png, b.png, c.png, and 1 more'
    """
    shown = separator.join(list(texts)[:3])
    return shown if len(texts) <= 3 else f"{shown}{separator}and {len(texts) - 3} more"


def check_shape(x: Tensor, shape: Sequence[str | int], name: str) -> None:
    """Require a floating tensor of the given dimensions.

    Args:
        x: the value to check.
        shape: for each dimension a number that must match, or a letter that only names it.
        name: the argument's name, for the message.

    Raises:
        DataError: not a floating tensor, or of another shape, or empty.
    """
    expected = f"({', '.join(map(str, shape))})"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise DataError(f"{name}: expected a floating-point tensor {expected}, got {describe(x)}.")
    fits = x.ndim == len(shape) and all(
        isinstance(want, str) or want == x.shape[index] for index, want in enumerate(shape)
    )
    if not fits or x.numel() == 0:
        hint = " Add a batch dimension with x[None]." if x.ndim == len(shape) - 1 else ""
        raise DataError(f"{name}: expected a non-empty tensor {expected}, got {describe(x)}.{hint}")


def check_number(value: object, name: str, *, above: float | None = None, at_least: float | None = None) -> float:
    """Require a finite number within bounds and return it as a float.

    Raises:
        ConfigError: not a number (YAML reads ``1e-4`` as text), or out of bounds.
    """
    bounds = " ".join(
        f"{word} {bound}" for word, bound in (("above", above), ("of at least", at_least)) if bound is not None
    )
    expected = f"{name}: expected a number {bounds}".rstrip()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        hint = _as_yaml_number(value) if isinstance(value, str) else ""
        raise ConfigError(f"{expected}, got {describe(value)}.{hint}")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    too_low = (above is not None and number <= above) or (at_least is not None and number < at_least)
    if not math.isfinite(number) or too_low:
        raise ConfigError(f"{expected}, got {number if math.isinf(number) else value}.")
    return number


def _as_yaml_number(text: str) -> str:
    """How to write a number that YAML read as text; empty if the text is no number."""
    try:
        return f" In YAML write `!!float {text}` or `{float(text):.10g}`."
    except ValueError:
        return ""


def check_count(value: object, name: str, *, at_least: int = 1, at_most: int | None = None) -> int:
    """Require a whole number within bounds that fits into 64 bits, and return it.

    Raises:
        ConfigError: not a whole number, or out of bounds.
    """
    if isinstance(value, int) and value >= 2**63:
        raise ConfigError(f"{name}: expected a whole number below 2**63, got one of {value.bit_length()} bits.")
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least or (at_most and value > at_most):
        bounds = f"from {at_least} to {at_most}" if at_most else f"of at least {at_least}"
        raise ConfigError(f"{name}: expected a whole number {bounds}, got {describe(value)}.")
    return value


def check_choice(value: object, choices: Iterable[object], name: str) -> None:
    """Require one of a few fixed values, such as those of a ``Literal`` type: ``get_args(Reduction)``.

    Raises:
        ConfigError: anything else.
    """
    accepted = list(choices)
    # Of the same type too: True is equal to 1, and 7.0 to 7.
    if not any(type(value) is type(choice) and value == choice for choice in accepted):
        raise ConfigError(f"{name}: expected one of {', '.join(map(str, accepted))}, got {describe(value)}.")


def check_flag(value: object, name: str) -> bool:
    """Require true or false and return it; text such as ``"no"`` would count as true.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {describe(value)}.")
    return value


def check_module(value: object, name: str) -> nn.Module:
    """Require a network and return it.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, nn.Module):
        raise ConfigError(f"{name}: expected an nn.Module, got {describe(value)}.")
    return value


def check_range(value: object, name: str, *, at_least: float) -> tuple[float, float]:
    """Require a pair ``(low, high)`` of numbers with ``at_least <= low <= high``.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ConfigError(f"{name}: expected a pair (low, high), got {describe(value)}.")
    low, high = (check_number(bound, f"{name}[{index}]", at_least=at_least) for index, bound in enumerate(value))
    if high < low:
        raise ConfigError(f"{name}: expected a pair (low, high), the smaller number first, got ({low:g}, {high:g}).")
    return low, high
