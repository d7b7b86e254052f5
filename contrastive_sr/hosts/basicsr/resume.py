"""Which checkpoint a training of BasicSR goes on from; imports no host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contrastive_sr.errors import DataError, NonFiniteError
from contrastive_sr.hosts.in_step import STATE_SUFFIX
from contrastive_sr.hosts.proven import check_whole


def newest_whole(opt: Mapping[str, Any]) -> tuple[Path | None, list[str]]:
    """The newest training state of a run that can be read with all that belongs to it.

    Args:
        opt: the options, as BasicSR has parsed them.

    Returns:
        The state, or None if there is none at all; and of each newer one that was passed over, why.

    Raises:
        DataError: there are states, and none of them is whole.
    """
    folder = Path(opt["path"]["training_states"])
    states = sorted((p for p in folder.glob("*.state") if p.stem.isdigit()), key=lambda state: -int(state.stem))
    models = Path(opt["path"]["models"])
    networks = [key.removeprefix("network_") for key in resumed_networks(opt, models)]
    passed_over = []
    for state in states:
        try:
            check_step(state, [models / f"net_{name}_{state.stem}.pth" for name in networks])
        except (DataError, NonFiniteError) as error:
            passed_over.append(f"Step {int(state.stem):,} is passed over: {error}")
            continue
        return state, passed_over
    if states:
        raise DataError(
            "--auto_resume: expected a whole checkpoint to go on from, got damaged ones alone. "
            f"{passed_over[0]} Give the training another `name`, or begin it anew without --auto_resume."
        )
    return None, []


def resumed_networks(opt: Mapping[str, Any], models: Path) -> list[str]:
    """The keys of the networks that a resumed training needs: the SR network, a GAN's discriminator, and those saved.

    BasicSR saves no network that its model does not train, such as a fixed one, and passes over those in
    ``ignore_resume_networks``.

    Args:
        opt: the options.
        models: where networks are saved.
    """
    left_out = opt["path"].get("ignore_resume_networks") or ()
    keys = [str(key) for key in opt if str(key).startswith("network_") and key not in left_out]
    trained = ["network_g", *(["network_d"] if opt["train"].get("gan_opt") else [])]
    return [k for k in keys if k in trained or any(models.glob(f"net_{k.removeprefix('network_')}_*.pth"))]


def check_step(state: Path, networks: Iterable[Path]) -> None:
    """Read all that a training goes on from: a training state, that of the methods beside it, and the networks.

    Raises:
        DataError: a part is missing, or damaged.
        NonFiniteError: a part holds NaN or infinity.
    """
    own = state.with_suffix(STATE_SUFFIX)
    for file in (state, *networks, *([own] if own.is_file() else [])):
        check_whole(file)
