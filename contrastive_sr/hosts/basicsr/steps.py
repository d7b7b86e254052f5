"""As many steps as were asked for. BasicSR counts epochs as if incomplete batches were used, and drops them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from contrastive_sr._checks import check_number
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.attach import batch_images


def check_batches(images: int, opt: Mapping[str, Any]) -> None:
    """Refuse a training whose epochs have no complete batch, and which would make no step.

    Args:
        images: number of training images.
        opt: the options, as BasicSR has parsed them.

    Raises:
        DataError: it is one.
        ConfigError: a ``dataset_enlarge_ratio`` that is no number above 0.
    """
    where = "datasets: train: dataset_enlarge_ratio"
    ratio = check_number(opt["datasets"]["train"].get("dataset_enlarge_ratio", 1), where, above=0)
    batch, processes = batch_images(opt), opt.get("world_size") or 1
    drawn = math.ceil(images * ratio / processes)
    if drawn < batch:
        shared = f", shared by {processes} processes" if processes > 1 else ""
        advice = f"Set dataset_enlarge_ratio to {math.ceil(batch * processes / max(images, 1))} or more, or make"
        raise DataError(
            f"datasets: train: expected images for one batch of {batch} in each epoch, got {images} (times "
            f"dataset_enlarge_ratio, {ratio:g}{shared}): BasicSR drops incomplete batches, and no step would be made. "
            f"{advice if images else 'Add images, or make'} the batch smaller."
        )


def last_epoch(total: int, per_epoch: int, begun: Mapping[str, int]) -> int:
    """Until which epoch to train, so that all steps are made; of the last one BasicSR makes none.

    Args:
        total: steps of the whole training.
        per_epoch: complete batches of an epoch.
        begun: ``epoch`` and ``iter`` that the training goes on from.
    """
    return begun["epoch"] + math.ceil(max(total - begun["iter"], 0) / per_epoch)


def check_not_done(total: int, done: int, path: str) -> None:
    """Refuse to resume from a state that is later than the end of the training.

    Raises:
        ConfigError: it is one; nothing would be trained, and the network of more steps be saved as that of fewer.
    """
    if done > total:
        raise ConfigError(
            f"train: total_iter: expected at least the {done} steps of the training state {path}, got {total}. Raise "
            "total_iter to train on, or name an earlier state in path: resume_state, without --auto_resume."
        )
