"""The flags of the hosts' own training scripts, which `contrastive-sr train` passes on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from contrastive_sr.errors import ConfigError


class Flag(NamedTuple):
    """One flag.

    Attributes:
        names: in all spellings, the usual one first.
        text: what it does.
        value: what stands for its value in the help; empty for a flag without one.
        choices: the values it takes; empty for any.
        several: whether it takes more than one value.
    """

    names: tuple[str, ...]
    text: str
    value: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False


FLAGS: Mapping[str, Sequence[Flag]] = {
    "BasicSR": (
        Flag(("--auto_resume",), "go on from the newest training state"),
        Flag(("--force_yml",), "options in place of the file's, e.g. train:total_iter=1000", "KEY=VALUE", several=True),
        Flag(("--debug",), "BasicSR's short run, whose folder begins with debug_"),
        Flag(("--launcher",), "how several processes were started", choices=("none", "pytorch", "slurm")),
        Flag(("--local_rank",), "set by a launcher", "N"),
    ),
    "MMagic": (
        Flag(("--resume",), "go on from the newest checkpoint"),
        Flag(("--work-dir",), "the folder to write to", "DIR"),
        Flag(
            ("--cfg-options",),
            "keys in place of the config's, e.g. train_cfg.max_iters=10",
            "KEY=VALUE",
            several=True,
        ),
        Flag(("--amp",), "train in mixed precision"),
        Flag(("--auto-scale-lr",), "scale the learning rate with the batch"),
        Flag(("--launcher",), "how several processes were started", choices=("none", "pytorch", "slurm", "mpi")),
        Flag(("--local_rank", "--local-rank"), "set by a launcher", "N"),
    ),
}
"""Each host's flags, as its script has them; the config is an argument of `contrastive-sr train` itself."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"train: {message}. `contrastive-sr train --help` lists the flags.")


def check_flags(host: str, arguments: Sequence[str]) -> None:
    """Refuse what a host's training script would not take, before the host is imported.

    Args:
        host: a key of :data:`FLAGS`.
        arguments: the command line after the config.

    Raises:
        ConfigError: an unknown flag, one without its value, or an argument that belongs to none.

    Example:
        >>> check_flags("BasicSR", ["--auto_resume", "--force_yml", "train:total_iter=10"])
    """
    from contrastive_sr.config import unknown

    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in FLAGS[host]:
        settings: dict[str, Any] = {"action": "store_true"}
        if flag.value or flag.choices:
            settings = {"nargs": "+" if flag.several else None, "choices": flag.choices or None}
        parser.add_argument(*flag.names, **settings)
    _, rest = parser.parse_known_args(list(arguments))
    if not rest:
        return
    if not rest[0].startswith("-"):
        raise ConfigError(f"train: expected one config and flags of {host}, got also {rest[0]!r}. Train them in turn.")
    names = [name for flag in FLAGS[host] for name in flag.names]
    raise ConfigError(f"train: {host} {unknown('flag', rest[0].partition('=')[0], names)}")


def help_on_flags() -> str:
    """All flags of both hosts, a line each and a paragraph for each host, for the end of a help text."""
    paragraphs = []
    for host, flags in FLAGS.items():
        lines = [f"Flags of {host} that are passed on:"]
        for flag in flags:
            value = "|".join(flag.choices) or flag.value + (" ..." if flag.several else "")
            lines.append(f"{' '.join((flag.names[0], value)).strip()}: {flag.text}.")
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)
