"""Hooks for MMEngine's runner: checkpoints that survive a kill and load in stock models, and a progress bar."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.checkpoints import steps_to_host
from contrastive_sr.hosts.mmagic.models import WithMethods
from contrastive_sr.hosts.mmagic.registry import HOOKS
from contrastive_sr.hosts.progress import TrainingProgress

_STATE = "contrastive_sr"  # the key of our own state in a checkpoint file
_BACKEND = "contrastive_sr_atomic"


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, each written beside its goal and then moved there: a killed run leaves no half file."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes `obj` to `filepath` in one step."""
        partial = f"{filepath}.part"
        super().put(obj, partial)
        os.replace(partial, filepath)


register_backend(_BACKEND, AtomicLocalBackend, force=True)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's `CheckpointHook` (same arguments), with four differences.

    - Files are written atomically. MMEngine writes in place, and writes the newest checkpoint a second time whenever
      `save_best` finds a new best one: a run killed at that moment could not be resumed.
    - `--resume` takes the newest whole checkpoint, also if the run was killed while `last_checkpoint` was written.
    - `state_dict` in the file holds what the stock model of MMagic has (`generator.*`), and loads there strictly. The
      state of the methods lies beside it, under the key `contrastive_sr`, and is put back on loading.
    - A resumed optimizer keeps its step counts on the CPU. MMEngine reads them onto the GPU, for which Adam would then
      wait once for each parameter, at every step.

    With MMEngine's own hook training and resuming work too, without these four.
    """

    backend_args: dict[str, Any] | None

    def before_run(self, runner: Any) -> None:
        """Chooses the checkpoint to resume from, if `last_checkpoint` does not name a whole one."""
        if self.max_keep_ckpts == 1:
            raise ConfigError(
                "Expected max_keep_ckpts of at least 2 (or -1: all): MMEngine deletes the old checkpoint before it "
                "writes the new one, so with 1 a run that is killed while it saves loses everything."
            )
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = {"backend": _BACKEND}
        if not runner._resume or runner._load_from is not None:
            return
        note = Path(runner.work_dir, "last_checkpoint")
        named = note.read_text().strip() if note.is_file() else ""
        if named and zipfile.is_zipfile(named):
            return
        # out_dir, when given, is a folder of folders; MMEngine appends the last part of the work_dir itself
        folder = Path(runner.work_dir) if self.out_dir is None else Path(self.out_dir, Path(runner.work_dir).name)
        whole = [path for path in folder.glob(self._pattern()) if zipfile.is_zipfile(path)]
        if whole:
            newest = max(whole, key=lambda path: path.stat().st_mtime_ns)
            runner.logger.warning(f"last_checkpoint names no whole checkpoint; resuming from {newest}.")
            runner._load_from = str(newest)

    def _pattern(self) -> str:
        template = self.filename_tmpl or ("epoch_{}.pth" if self.by_epoch else "iter_{}.pth")
        return str(template).replace("{}", "[0-9]*")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Moves our state out of `state_dict`. A training that has become NaN is not saved."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if isinstance(model, WithMethods):
            model.bare_methods.check_finite()
        state, averaged = checkpoint["state_dict"], checkpoint.get("ema_state_dict", {})
        own = {}
        for key in [key for key in state if WithMethods.is_own_state(key)]:
            value = state.pop(key)
            # MMEngine's EMAHook has put averages into `state_dict` by now, and the live values into `ema_state_dict`;
            # an average of the methods has no use
            own[key] = averaged.pop(f"module.{key}", value).cpu()
        if own:
            checkpoint[_STATE] = own

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts our state back into `state_dict`, and step counts on the CPU; a run is not resumed without all state.

        Raises:
            ConfigError: a part of it, such as a queue, is missing or of another size. MMEngine would go on without.
        """
        state = checkpoint.get("state_dict", checkpoint)  # `load_from` takes a plain state dict, too
        state.update(checkpoint.get(_STATE, {}))
        if optimizers := checkpoint.get("optimizer"):
            steps_to_host([optimizers] if "param_groups" in optimizers else optimizers.values())
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not runner._resume or not isinstance(model, WithMethods):
            return
        needed = {key: value.shape for key, value in model.state_dict().items() if model.is_own_state(key)}
        unfit = [key for key, shape in needed.items() if key not in state or state[key].shape != shape]
        if unfit:
            raise ConfigError(
                f"The checkpoint cannot be resumed: {len(unfit)} of {len(needed)} parts of the methods' state are not "
                f"in it or of another size, such as {', '.join(unfit[:3])}. Resume with the config of that training; "
                "to start another from its network, leave --resume out and name the file as `load_from`."
            )


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar with the time left; added by `contrastive-sr train`."""

    priority = "VERY_LOW"
    _open: ClassVar[TrainingProgress | None] = None

    def before_train(self, runner: Any) -> None:
        """Opens the bar, on the first process alone."""
        if is_main_process():
            title, loggers = Path(runner.work_dir).name, [runner.logger]
            bar = TrainingProgress(runner.max_iters, start=runner.iter, title=title, loggers=loggers)
            ProgressHook._open = bar.__enter__()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Moves the bar by a step."""
        if self._open is not None:
            scalars = runner.message_hub.log_scalars
            logged = {name: scalars.get(f"train/{name}") for name in ("loss_pix", "loss_contrastive")}
            metrics = {name.removeprefix("loss_"): float(v.current()) for name, v in logged.items() if v is not None}
            self._open.update(runner.iter + 1, **metrics)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Shows the PSNR of the last validation."""
        if self._open is not None:
            values = [float(value) for name, value in (metrics or {}).items() if name.endswith("PSNR")]
            if values:
                self._open.update(runner.iter, psnr=values[0])

    def after_train(self, runner: Any) -> None:
        """Closes the bar."""
        self.close()

    @classmethod
    def close(cls) -> None:
        """Closes the bar if it is open, whatever has ended the training."""
        if cls._open is not None:
            cls._open.__exit__(None, None, None)
            cls._open = None
