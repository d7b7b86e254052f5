"""Hooks for MMEngine's runner: whole and finite checkpoints that load in stock models, and a progress bar."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dataset import InfiniteSampler
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict

from contrastive_sr.data.files import atomic_write, lies_inside, remove_unfinished
from contrastive_sr.distributed import check_same_on_ranks
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.hosts.checkpoints import steps_to_host
from contrastive_sr.hosts.mmagic.metrics import Jaggedness, Pattern
from contrastive_sr.hosts.mmagic.models import WithMethods, bare
from contrastive_sr.hosts.mmagic.registry import HOOKS
from contrastive_sr.hosts.mmagic.resumed import say_what_is_in_force
from contrastive_sr.hosts.progress import TrainingProgress
from contrastive_sr.hosts.proven import LoggedLosses, check_finite, check_whole, not_saved
from contrastive_sr.hosts.warn import not_watched

_STATE = "contrastive_sr"  # the key of our own state in a checkpoint file
_BACKEND = "contrastive_sr_atomic"


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, each written beside its goal, read again, and then moved there."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes `obj` to `filepath` in one step.

        Raises:
            SaveError: the disk does not take it.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent)
        try:
            with atomic_write(path) as unfinished:
                super().put(obj, unfinished)
                if unfinished.read_bytes() != obj:
                    raise not_saved(path)
        except OSError as error:
            raise not_saved(path, error) from error


register_backend(_BACKEND, AtomicLocalBackend, force=True)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's `CheckpointHook` (same arguments), with these differences.

    - Files are written atomically, and looked at first: NaN or infinity in weights, buffers, averages or optimizers
      ends the training. MMEngine writes in place, and writes the newest checkpoint a second time whenever `save_best`
      finds a new best one: a run killed at that moment could not be resumed.
    - `--resume` takes the newest checkpoint that is whole and finite, by its step, and says which it passes over; also
      where the config has a `load_from` of another folder, which MMEngine would resume again and again.
    - Of what a resumed checkpoint names as its own, only files in the folder of checkpoints are removed.
    - `state_dict` in the file holds what the stock model of MMagic has (`generator.*`), and loads there strictly. The
      state of the methods lies beside it, under the key `contrastive_sr`, and is put back on loading.
    - A resumed optimizer keeps its step counts on the CPU. MMEngine reads them onto the GPU, for which Adam would then
      wait once for each parameter, at every step.

    With MMEngine's own hook training and resuming work too, without these.
    """

    backend_args: dict[str, Any] | None

    def before_run(self, runner: Any) -> None:
        """Chooses the checkpoint to resume from.

        Raises:
            DataError: there are checkpoints, and none of them is whole.
        """
        if self.max_keep_ckpts == 1:
            raise ConfigError(
                "Expected max_keep_ckpts of at least 2 (or -1: all): MMEngine deletes the old checkpoint before it "
                "writes the new one, so with 1 a run that is killed while it saves loses everything."
            )
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = {"backend": _BACKEND}
        if not runner._resume:
            return
        start = runner._load_from
        # out_dir, when given, is a folder of folders; MMEngine appends the last part of the work_dir itself
        folder = Path(runner.work_dir) if self.out_dir is None else Path(self.out_dir, Path(runner.work_dir).name)
        if start is not None and lies_inside(Path(start), folder):  # asked for by name
            return
        template = re.escape(self.filename_tmpl or ("epoch_{}.pth" if self.by_epoch else "iter_{}.pth"))
        name = re.compile(template.replace(re.escape("{}"), r"(\d+)"))
        steps = {int(found[1]): path for path in folder.glob("*") if (found := name.fullmatch(path.name))}
        note = Path(runner.work_dir, "last_checkpoint")
        named = note.read_text().strip() if note.is_file() and not steps and start is None else ""
        if named and not lies_inside(Path(named), folder):
            raise DataError(
                f"--resume: expected {note} to name a checkpoint in {folder}, got {named}. Name it as `load_from`, or "
                "take that file away to begin anew."
            )
        damaged = []
        for _, path in sorted(steps.items(), reverse=True):
            try:
                check_whole(path)
            except (DataError, NonFiniteError) as error:
                damaged.append(str(error))
                runner.logger.warning(f"{path.name} is passed over: {error}")
                continue
            began = "" if start is None else f" The weights of load_from, {start}, are those with which it began."
            runner.logger.info(f"The training goes on from {path}.{began}")
            runner._load_from = str(path)
            return
        if damaged:
            raise DataError(
                f"--resume: expected a whole checkpoint in {folder}, got damaged ones alone. {damaged[0]} Begin anew "
                "in another --work-dir."
            )

    def before_train(self, runner: Any) -> None:
        """As in MMEngine, which removes old checkpoints and the best one so far, whatever path a checkpoint says."""
        kept = runner.message_hub.runtime_info.get("keep_ckpt_ids", [])
        runner.message_hub.update_info("keep_ckpt_ids", [step for step in kept if isinstance(step, int)])
        super().before_train(runner)
        folder = Path(self.out_dir)
        if not lies_inside(Path(getattr(self, "best_ckpt_path", None) or folder / "none"), folder):
            self.best_ckpt_path = None
        paths = getattr(self, "best_ckpt_path_dict", {})
        paths.update({key: None for key, path in paths.items() if path and not lies_inside(Path(path), folder)})

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Moves our state out of `state_dict`. A training that has become NaN is not saved."""
        model = bare(runner.model)
        if isinstance(model, WithMethods):
            model.bare_methods.check_finite()
        check_finite(checkpoint, f"To save the checkpoint of step {runner.iter + 1}")
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

        Another run that begins with these weights (`load_from`) keeps its own state, as new as it is.

        Raises:
            ConfigError: a part of it, such as a queue, is missing or of another size. MMEngine would go on without.
        """
        _without_code(checkpoint)
        state = checkpoint.get("state_dict", checkpoint)  # `load_from` takes a plain state dict, too
        model = bare(runner.model)
        state.update(checkpoint.get(_STATE, {}))
        if not runner._resume and isinstance(model, WithMethods):
            own = [key for key in state if model.is_own_state(key)]
            for key in own:
                del state[key]
            if own:
                state.update({key: value for key, value in model.state_dict().items() if model.is_own_state(key)})
        if optimizers := checkpoint.get("optimizer"):
            steps_to_host([optimizers] if "param_groups" in optimizers else optimizers.values())
        if not runner._resume or not isinstance(model, WithMethods):
            return
        needed = {key: value.shape for key, value in model.state_dict().items() if model.is_own_state(key)}
        unfit = [key for key, shape in needed.items() if key in state and state[key].shape != shape]
        if not unfit:  # loading fills in what earlier versions did not save
            missing = model.load_state_dict({key: state[key] for key in needed if key in state}, strict=False)[0]
            unfit = [key for key in missing if key in needed]
        if unfit:
            raise ConfigError(
                f"The checkpoint cannot be resumed: {len(unfit)} of {len(needed)} parts of the methods' state are not "
                f"in it or of another size, such as {', '.join(unfit[:3])}. Resume with the config of that training; "
                "to start another from its network, leave --resume out and name the file as `load_from`."
            )


def _without_code(checkpoint: dict[str, Any]) -> None:
    """Take a config out of a checkpoint: MMEngine runs it as Python code to compare the number of GPUs."""
    if isinstance(meta := checkpoint.get("meta"), dict):
        meta.pop("config", None)


@HOOKS.register_module()
class FiniteHook(Hook):
    """Ends a training that has become NaN, and one whose ranks were started differently; lets no checkpoint run code;
    added by `contrastive-sr train`.

    Where a loss is scaled for float16, steps with infinite gradients are left out and go by; checkpoints are looked at
    all the same. So it is with `skip_nonfinite`.
    """

    priority = "LOW"

    def before_run(self, runner: Any) -> None:
        """Compares the configs of all ranks."""
        check_same_on_ranks({key: value for key, value in runner.cfg.to_dict().items() if key != "launcher"})

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes out what MMEngine would run; looks at what is resumed, whichever hook or option has chosen it."""
        _without_code(checkpoint)
        if runner._resume:
            check_finite(checkpoint, "The checkpoint to resume from")

    def before_train(self, runner: Any) -> None:
        """Looks whether single steps may be left out."""
        model = bare(runner.model)
        wrappers = runner.optim_wrapper
        every = wrappers.values() if isinstance(wrappers, OptimWrapperDict) else [wrappers]
        survives = isinstance(model, WithMethods) and model.bare_methods.skip_nonfinite
        self._looks = not survives and not any(hasattr(wrapper, "loss_scaler") for wrapper in every)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Looks at what was logged; MMEngine has waited for these values already."""
        if self._looks and is_main_process():
            scalars = runner.message_hub.log_scalars
            logged = {key: scalars.get(f"train/{key}") for key in outputs or {}}
            values = {key: float(x.current()) for key, x in logged.items() if x is not None}
            LoggedLosses().check(values, runner.iter + 1)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Looks at what is about to be saved."""
        check_finite(checkpoint, f"To save the checkpoint of step {runner.iter + 1}")


def _say_what_is_not_watched(runner: Any) -> None:
    model, loop = bare(runner.model), runner.val_loop
    if loop is None or not isinstance(model, WithMethods) or not len(model.bare_methods):
        return
    evaluators = loop.evaluators if hasattr(loop, "evaluators") else [loop.evaluator]
    measured = [metric for evaluator in evaluators for metric in evaluator.metrics or []]
    missing = {
        what: line
        for metric, what, line in (
            (Pattern, "periodic dots", 'dict(type="contrastive_sr.Pattern", period=scale)'),
            (Jaggedness, "jagged edges", 'dict(type="contrastive_sr.Jaggedness", scale=scale)'),
        )
        if not any(isinstance(each, metric) for each in measured)
    }
    if measured and "periodic dots" in missing:
        where = "the metrics of `val_evaluator`, with the scale of the network (for x1 the period 2)"
        runner.logger.info(not_watched(missing, where))


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar with the time left, after a look at what there is to do; added by `contrastive-sr train`."""

    priority = "VERY_LOW"
    _open: ClassVar[TrainingProgress | None] = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Says what of the config does not apply to a resumed training, and what of it has changed."""
        if runner._resume:
            say_what_is_in_force(runner, checkpoint)

    def before_train(self, runner: Any) -> None:
        """Opens the bar, on the first process alone.

        Raises:
            ConfigError: the training is resumed from a step after its end.
            DataError: no batch is complete.
        """
        if runner.iter > runner.max_iters:
            raise ConfigError(
                f"train_cfg: expected at least the {runner.iter} steps of the checkpoint that is resumed, got "
                f"{runner.max_iters}. Raise max_iters (or max_epochs) to train on."
            )
        loader = runner.train_dataloader
        if len(loader) == 0 and not isinstance(loader.batch_sampler.sampler, InfiniteSampler):
            raise DataError(
                f"train_dataloader: expected images for one batch of {loader.batch_sampler.batch_size}, got "
                f"{len(loader.dataset)} over all processes: incomplete batches are dropped, and no step would be made. "
                'Try sampler=dict(type="InfiniteSampler", shuffle=True), drop_last=False, or a smaller batch_size.'
            )
        _say_what_is_not_watched(runner)
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
