"""Checkpoints of BasicSR's models that are whole and finite, or an error; imports no host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from contrastive_sr.data.files import atomic_files
from contrastive_sr.distributed import rank
from contrastive_sr.errors import DataError
from contrastive_sr.hosts.basicsr.amp import MixedPrecision
from contrastive_sr.hosts.proven import LoggedLosses, check_saved, not_saved

if TYPE_CHECKING:
    from basicsr.models.sr_model import SRModel as Host
else:
    Host = object  # the host's model comes after this class in the bases of a model


class ProvenSaves(Host):
    """Mixed into a model of BasicSR, which writes in place, tries three times, and then goes on without a checkpoint.

    A file is written beside its goal, synced and read again, with finite numbers in it, before it takes its name; where
    that fails the training ends. It also ends where a logged loss is NaN or infinite.
    """

    opt: dict[str, Any]
    log_dict: Mapping[str, float | Tensor]
    amp: MixedPrecision | None = None
    _begun = 0
    _logged: LoggedLosses | None = None

    def update_learning_rate(self, current_iter: int, *args: Any, **kwargs: Any) -> None:
        self._begun = current_iter  # the first thing that the host's loop does in a step
        super().update_learning_rate(current_iter, *args, **kwargs)

    def optimize_parameters(self, current_iter: int, *args: Any, **kwargs: Any) -> None:
        super().optimize_parameters(current_iter, *args, **kwargs)
        # with skip_nonfinite and in float16 there are steps that are survived; other ranks have parts of sums
        scaled = self.amp is not None and self.amp.scaler is not None
        if rank() == 0 and not scaled and not self.opt["train"].get("skip_nonfinite"):
            if self._logged is None:
                self._logged = LoggedLosses()
            self._logged.check(self.log_dict, current_iter)

    def save_network(self, net: Any, net_label: str, current_iter: int, *args: Any, **kwargs: Any) -> None:
        if rank() != 0:
            return
        if self._begun < 1:
            raise DataError(
                "The training made no step, so that there is nothing to save. Expected at least as many training "
                "images as a batch has; raise dataset_enlarge_ratio, or lower batch_size_per_gpu."
            )
        with self._proven("models", f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"):
            super().save_network(net, net_label, current_iter, *args, **kwargs)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        if rank() == 0 and current_iter != -1:
            with self._proven("training_states", f"{current_iter}.state"):
                super().save_training_state(epoch, current_iter)

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        super().resume_training(resume_state)
        self._begun = int(resume_state["iter"])

    @contextmanager
    def _proven(self, key: str, expected: str) -> Iterator[None]:
        """What the host writes into a folder of its options, a file of that name at least, is looked at and moved."""
        folder = Path(self.opt["path"][key])
        try:
            with atomic_files(folder, check_saved) as unfinished:
                self.opt["path"][key] = str(unfinished)
                yield
                if not (unfinished / expected).is_file():
                    raise not_saved(folder / expected)
        except OSError as error:
            raise not_saved(folder / expected, error) from error
        finally:
            self.opt["path"][key] = str(folder)


def with_proven_saves(model: Any) -> Any:
    """A model of the host that was just built, with :class:`ProvenSaves`; those with methods have it already."""
    kind = type(model)
    if not issubclass(kind, ProvenSaves):
        model.__class__ = type(kind.__name__, (ProvenSaves, kind), {"__module__": kind.__module__})
    return model
