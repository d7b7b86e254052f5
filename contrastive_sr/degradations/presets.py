"""The degradations that the papers train and test with, by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contrastive_sr._checks import check_count, describe
from contrastive_sr.config import Registry, build
from contrastive_sr.degradations.base import Degradation
from contrastive_sr.errors import ConfigError

DegradationConfig = str | Mapping[str, Any] | Degradation

_RATIO_TWO = ((0.8, 1.6), (1.2, 2.4), (2.0, 4.0))
_UNSEEN = ((2.25, 4.5), (2.5, 5.0), (3.0, 6.0))
_ANGLES = (0.0, math.pi / 3, 2 * math.pi / 3)

_DEGRADATIONS: Registry[Degradation] = Registry(Degradation, "degradation", own=False)
_DEGRADATIONS.register(Degradation)


def _isotropic(low: float, high: float) -> dict[str, Any]:
    return {"type": "IsotropicGaussian", "sigma": (low, high)}


def _nine_kernels(widths: tuple[tuple[float, float], ...]) -> list[dict[str, Any]]:
    """Kernel 1 to 9: three pairs of widths, each at three angles."""
    return [
        {
            "type": "AnisotropicGaussian",
            "sigma": (first, first),
            "second_sigma": (second, second),
            "angle": (angle, angle),
        }
        for first, second in widths
        for angle in _ANGLES
    ]


def _presets() -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = {}

    def add(
        name: str, scale: int, kernel: dict[str, Any], noise: tuple[float, float] = (0.0, 0.0), layout: str = "uniform"
    ) -> None:
        presets[f"{name}-x{scale}"] = {
            "type": "Degradation",
            "scale": scale,
            "kernel": kernel,
            "noise": noise,
            "noise_layout": layout,
        }

    anisotropic = {"type": "AnisotropicGaussian", "sigma": (0.2, 4.0)}
    across, field = (
        {"type": "SpatiallyVariant", "sigma": (0.2, 4.0), "layout": layout}
        for layout in ("left_to_right", "random_field")
    )
    for scale in (2, 3, 4):
        add("dasr-isotropic", scale, _isotropic(0.2, float(scale)))
        add("dasr-anisotropic", scale, anisotropic, (0.0, 25.0))
        add("crl-isotropic", scale, _isotropic(0.2, 4.0), (0.0, 75.0))
        add("crl-anisotropic", scale, anisotropic, (0.0, 25.0))
        add("crl-spatial", scale, across, (5.0, 50.0), "left_to_right")
        add("random-field", scale, field, (5.0, 50.0), "random_field")
    for width in (0.2, 1.0, 1.8, 2.6, 3.4):
        add(f"dasr-table1-width{width}", 4, _isotropic(width, width))
    for scale, step in ((2, 0.6), (3, 0.8), (4, 1.2)):
        for width in (round(step * index, 1) for index in range(4)):
            add(f"dasr-table2-width{width}", scale, _isotropic(width, width))
    for number, kernel in enumerate(_nine_kernels(_RATIO_TWO), start=1):
        for level in (0, 5, 10):
            add(f"dasr-table3-kernel{number}-noise{level}", 4, kernel, (float(level), float(level)))
    for scale in (2, 3, 4):
        add("crl-table2-width0.2to4-noise5", scale, across, (5.0, 5.0))
        add("crl-table2-width2-noise5to50", scale, _isotropic(2.0, 2.0), (5.0, 50.0), "left_to_right")
        add("crl-table2-width0.2to4-noise5to50", scale, across, (5.0, 50.0), "left_to_right")
        for width in (4.0, 4.5, 5.0, 5.5, 6.0):
            for level in (90, 95, 100):
                noise = float(level), float(level)
                add(f"crl-table3-width{width}-noise{level}", scale, _isotropic(width, width), noise)
    for number, kernel in enumerate(_nine_kernels(_UNSEEN), start=1):
        for level in (5, 10, 15):
            add(f"crl-table4-kernel{number}-noise{level}", 4, kernel, (float(level), float(level)))
    return presets


PRESETS: dict[str, dict[str, Any]] = _presets()
"""The config of each preset by name; a name ends in its scale."""


def find_preset(name: str, scale: int | None = None) -> str:
    """The full name of a preset.

    Args:
        name: with or without the scale at its end, e.g. ``dasr-isotropic-x4`` or ``dasr-isotropic``.
        scale: the scale that the preset must have; needed if the name leaves it out and there are several.

    Returns:
        A key of ``PRESETS``.

    Raises:
        ConfigError: an unknown name, no scale, or a scale that the preset does not have.

    Example:
        >>> find_preset("dasr-isotropic", scale=3)
        'dasr-isotropic-x3'
    """
    if scale is not None:
        check_count(scale, "scale", at_least=2)
    family = re.sub(r"-x\d+$", "", name)
    scales = [key.removeprefix(f"{family}-x") for key in PRESETS if re.fullmatch(rf"{re.escape(family)}-x\d+", key)]
    if not scales:
        raise ConfigError(f"degradation: {_unknown(name)}")
    if name == family and scale is None:
        if len(scales) > 1:
            raise ConfigError(
                f"degradation: the preset {name!r} needs a scale: {', '.join(f'{family}-x{s}' for s in scales)}."
            )
        return f"{family}-x{scales[0]}"
    named = name.removeprefix(family).removeprefix("-x")
    wanted = str(scale) if scale is not None else named
    if wanted not in scales or (named and named != wanted):
        raise ConfigError(
            f"degradation: expected a scale that the preset {name!r} has, got {wanted}. "
            f"There is {', '.join(f'{family}-x{s}' for s in scales)}. For another scale write a config with `type: "
            "Degradation`."
        )
    return f"{family}-x{wanted}"


def _unknown(name: str) -> str:
    """The end of a sentence that refuses a name: the closest ones, and the families."""
    close = difflib.get_close_matches(name, PRESETS, n=3)
    guess = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    families = ", ".join(preset_families())
    return f"no preset has the name {name!r}.{guess} There are {families}, each followed by -x and a scale."


def preset_families() -> dict[str, list[str]]:
    """Presets that differ only in numbers.

    Returns:
        For each family's name, without the scale and with a ``*`` for each other number, its keys of ``PRESETS``.

    Example:
        >>> preset_families()["dasr-isotropic"]
        ['dasr-isotropic-x2', 'dasr-isotropic-x3', 'dasr-isotropic-x4']
    """
    families: dict[str, list[str]] = {}
    for key in PRESETS:
        family = re.sub(r"(width|kernel|noise)[\d.to]+", r"\1*", re.sub(r"-x\d+$", "", key))
        families.setdefault(family, []).append(key)
    return families


def describe_presets(names: Sequence[str]) -> str:
    """What presets of one family do, in a line.

    Args:
        names: keys of ``PRESETS``.

    Example:
        >>> describe_presets(["crl-isotropic-x2", "crl-isotropic-x4"])
        'IsotropicGaussian, width 0.2 to 4; noise 0 to 75; x2, x4'
    """
    configs = [PRESETS[name] for name in names]
    kernels = [config["kernel"] for config in configs]
    widths = [width for kernel in kernels for key in ("sigma", "second_sigma") for width in kernel.get(key, ())]
    levels = [level for config in configs for level in config["noise"]]
    scales = ", ".join(f"x{scale}" for scale in sorted({config["scale"] for config in configs}))
    kernel = f"{' or '.join(_kinds(kernel['type'] for kernel in kernels))}, width {_span(widths)}"
    layouts = _kinds(kernel.get("layout", "uniform") for kernel in kernels)
    noise = f"noise {_span(levels)}" if max(levels) else "no noise"
    return "; ".join(
        (kernel + _laid_out(layouts), noise + _laid_out(_kinds(config["noise_layout"] for config in configs)), scales)
    )


def _kinds(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _laid_out(layouts: Sequence[str]) -> str:
    return "" if layouts == ["uniform"] else f" ({' or '.join(layouts)})"


def _span(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def build_degradation(config: DegradationConfig, scale: int | None = None) -> Degradation:
    """Build a degradation from a preset's name or from a config.

    Args:
        config: a name in ``PRESETS``; a mapping with ``type: Degradation`` and its arguments, or with a preset's name
            as ``type`` and the arguments that differ from the preset; or a degradation, which is returned as it is.
        scale: the scale that the degradation must have, for a training whose scale is set elsewhere. A preset's name
            may then leave it out.

    Returns:
        The degradation.

    Raises:
        ConfigError: an unknown name or key, a value out of range, or a scale that does not fit.

    Example:
        >>> build_degradation("dasr-isotropic-x3").scale
        3
        >>> build_degradation({"type": "dasr-isotropic-x3", "downsample": "s_fold"}).downsample
        's_fold'
    """
    where = "degradation"
    if isinstance(config, str):
        config = PRESETS[find_preset(config, scale)]
    elif isinstance(config, Mapping) and isinstance(config.get("type"), str) and config["type"] != "Degradation":
        preset = PRESETS[find_preset(config["type"], config.get("scale", scale))]
        config = {**preset, **{key: value for key, value in config.items() if key != "type"}}
    elif not isinstance(config, Degradation) and "type" not in (config if isinstance(config, Mapping) else ()):
        raise ConfigError(
            f"{where}: expected a preset's name such as 'dasr-isotropic-x4', or a mapping with `type`, which is "
            f"Degradation or a preset's name; got {describe(config)}."
        )
    built = build(_DEGRADATIONS, config, where)
    if scale is not None and built.scale != scale:
        raise ConfigError(f"{where}: expected a degradation of scale {scale}, got one of scale {built.scale}.")
    return built
