"""``contrastive-sr train`` for option files: BasicSR's own training loop, in the current folder and on any device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import nn

from contrastive_sr._checks import describe_error
from contrastive_sr.distributed import check_same_on_ranks
from contrastive_sr.embeddings.tensor_file import load_plain, never_code
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, named_in_errors
from contrastive_sr.hosts.basicsr.folders import check_folders, free_stamp, one_run
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.late import check_forced, check_writable, forced
from contrastive_sr.hosts.basicsr.options import PREFIX, OptionLoader, check_options, read_options
from contrastive_sr.hosts.basicsr.resume import check_step, newest_whole, resumed_networks
from contrastive_sr.hosts.basicsr.resumed import changed_options, kept_settings, write_record
from contrastive_sr.hosts.basicsr.saving import with_proven_saves
from contrastive_sr.hosts.basicsr.steps import check_batches, check_not_done, last_epoch
from contrastive_sr.hosts.endings import init_gloo, waiting_time
from contrastive_sr.hosts.in_step import STATE_SUFFIX, check_state
from contrastive_sr.hosts.progress import TrainingProgress
from contrastive_sr.methods.later import Later


def train(config: Path, arguments: list[str]) -> None:
    """Train as ``python basicsr/train.py -opt config`` does, with these differences.

    The installed BasicSR needs no change. The option file is read without running code in it. ``experiments/`` and
    ``tb_logger/`` are written into the current folder. Resuming works on a CPU and reads nothing but tensors
    and plain containers, and the log says what of the earlier training stays in force and what has changed. As many
    steps are made as were asked for, also where incomplete batches are dropped. ``--launcher pytorch`` works on CPUs
    too. A seed by ``--force_yml`` seeds the whole training. A progress bar is shown.

    Args:
        config: the option file.
        arguments: further arguments of ``basicsr/train.py``, e.g. ``["--auto_resume"]``.

    Raises:
        ContrastiveSRError: bad options, data or host; another training of the same name; NaN; a full disk.
    """
    host = import_basicsr("basicsr.train")
    options, misc = import_basicsr("basicsr.utils.options"), import_basicsr("basicsr.utils.misc")
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    start = import_basicsr("contrastive_sr.hosts.basicsr.start")
    of_file = read_options(config)
    check_options(of_file, *registered())
    check_forced(of_file, arguments)
    check_writable(Path.cwd())
    datasets: dict[str, Any] = {}
    begun: dict[str, int] = {"epoch": 0, "iter": 0}
    notes: list[str] = []  # for the log, which BasicSR opens later
    recorded: dict[str, Any] = {}

    def look_and_load(opt: dict[str, Any]) -> dict[str, Any] | None:
        # BasicSR asks for the state right after it has parsed the options; next it moves an earlier run away.
        check_folders(opt)
        check_same_on_ranks({key: value for key, value in opt.items() if key not in ("rank", "manual_seed")})
        if forced(arguments):
            check_options(opt, *registered())
        datasets.update(start.check_start(opt))
        recorded.update(deepcopy(opt))  # models take out of their options what they have read
        if opt["rank"] == 0:
            stack.enter_context(one_run(opt))
            for module in (host, misc):
                stack.enter_context(_replaced(module, "get_time_str", partial(free_stamp, opt)))
        # BasicSR seeds before it reads --force_yml
        options.set_random_seed(opt["manual_seed"] + opt["rank"])
        state = _load_resume_state(host, opt)
        if state is not None:
            begun.update(epoch=state["epoch"], iter=state["iter"])
            path = opt["path"]["resume_state"]
            check_not_done(int(opt["train"]["total_iter"]), state["iter"], path)
            notes.extend(filter(None, [changed_options(recorded, Path(path), state["iter"])]))
        return state

    def copy_and_record(file: str, folder: str) -> None:
        if recorded["rank"] == 0:  # to others the folder may not be there yet
            copy_options(file, folder)
            write_record(recorded)

    copy_options = host.copy_opt_file
    with never_code(), ExitStack() as stack:
        stack.enter_context(_replaced(sys, "argv", ["basicsr/train.py", "-opt", str(config), *arguments]))
        stack.enter_context(_replaced(options, "ordered_yaml", lambda: (OptionLoader, yaml.SafeDumper)))
        stack.enter_context(_replaced(host, "load_resume_state", look_and_load))
        stack.enter_context(_replaced(host, "copy_opt_file", copy_and_record))
        stack.enter_context(_replaced(host, "build_dataset", _built_once(host, datasets)))
        stack.enter_context(_replaced(host, "create_train_val_dataloader", _with_all_steps(host, begun)))
        stack.enter_context(_replaced(host, "build_model", _model_as_asked(host, stack, notes)))
        if not torch.cuda.is_available():
            stack.enter_context(_replaced(options, "init_dist", _init_gloo))
        try:
            host.train_pipeline(str(Path.cwd()))
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def registered() -> tuple[list[str], list[str]]:
    """The names of BasicSR's models and networks, with ours.

    Raises:
        HostError: BasicSR is missing or broken.
    """
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    registries = import_basicsr("basicsr.utils.registry")
    # BasicSR looks for a name as it is, and then with this ending.
    models, networks = (
        [name.removesuffix("_basicsr") for name, _ in registry]
        for registry in (registries.MODEL_REGISTRY, registries.ARCH_REGISTRY)
    )
    return models, networks


def sr_network(path: Path) -> nn.Module:
    """The SR network of an option file, with new weights.

    Raises:
        ConfigError: it cannot be built.
        HostError: BasicSR is missing or broken.
    """
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    opt = read_options(path)
    if not isinstance(opt, Mapping) or not isinstance(opt.get("network_g"), Mapping):
        raise ConfigError(f"{path}: expected an option file with `network_g`, got none.")
    try:
        network: nn.Module = import_basicsr("basicsr.archs").build_network(opt["network_g"])
    except ContrastiveSRError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # BasicSR's networks check nothing, and can fail in any way
        raise ConfigError(f"{path}: its network_g cannot be built ({describe_error(error)}).") from error
    return network


def model_of(path: Path) -> tuple[Any, Any, Mapping[str, Any]]:
    """The ``methods``, the ``degradation`` and the network's options of an option file; None where there are none.

    Raises:
        ConfigError: no valid option file.
        HostError: BasicSR is missing or broken.
    """
    import_basicsr("contrastive_sr.hosts.basicsr.plugin").networks.use_names()
    opt = read_options(path)
    return opt.get("methods"), opt.get("degradation"), opt["network_g"]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a block of code."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _init_gloo(launcher: str) -> None:
    """What BasicSR's ``init_dist`` does on GPUs, for processes that torchrun started on CPUs."""
    if launcher != "pytorch":
        raise ConfigError(f"--launcher: expected pytorch on a machine without GPU, got {launcher}. Use torchrun.")
    init_gloo()


def _load_resume_state(host: ModuleType, opt: dict[str, Any]) -> dict[str, Any] | None:
    """The training state to go on from, if there is one, on the CPU: optimizers move it where it belongs.

    Raises:
        DataError: the file, or a network of its step, is missing or cannot be read.
        NonFiniteError: one holds NaN or infinity.
        ConfigError: it is of a training with methods, and this one has none, or the other way round.
    """
    path = opt["path"].get("resume_state")
    if opt["auto_resume"]:
        path, passed_over = newest_whole(opt)
        opt["path"]["resume_state"] = None if path is None else str(path)
        if passed_over and opt["rank"] == 0:
            print(*passed_over, f"The training goes on from {path}.", sep="\n", flush=True)
    if not path:
        return None
    try:
        state: dict[str, Any] = load_plain(path)
        complete = {"iter", "epoch", "optimizers", "schedulers"} <= set(state)
        complete = complete and isinstance(state["iter"], int)  # names of networks are made of it
    except Exception as error:  # a damaged file can fail in any way
        raise DataError(_NO_STATE.format(path=path, reason=f" ({describe_error(error)})")) from error
    if not complete:
        raise DataError(_NO_STATE.format(path=path, reason=f", it has {', '.join(map(str, state))}"))
    own = Path(path).with_suffix(STATE_SUFFIX)
    if opt["model_type"].startswith(PREFIX):
        check_state(own)
    elif own.is_file():
        raise ConfigError(
            f"resume_state: expected the state of a training with {opt['model_type']}, got {path}, of one with "
            "methods. Give this training a `name` of its own, or take the model that that one had."
        )
    host.check_resume(opt, state["iter"])
    networks = resumed_networks(opt, Path(opt["path"]["models"]))
    for key in networks:
        of_file = f"param_key{key.removeprefix('network')}"
        if opt["path"].get(of_file, "params") is None:  # that of the file to begin with; a training saves `params`
            opt["path"][of_file] = "params"
    if not opt["auto_resume"]:  # which has looked at them
        with named_in_errors("resume_state"):
            check_step(Path(path), [Path(opt["path"][f"pretrain_{key}"]) for key in networks])
    return state


def _built_once(host: ModuleType, datasets: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """BasicSR's ``build_dataset``, which takes a dataset that was built before: its files need not be checked twice."""
    build_dataset = host.build_dataset

    def build(options: dict[str, Any]) -> Any:
        phase = next((phase for phase, dataset in datasets.items() if dataset.opt == options), None)
        if phase is None:
            return build_dataset(options)
        host.get_root_logger().info(f"Dataset [{options['type']}] - {options['name']} is built.")
        return datasets.pop(phase)

    return build


_NO_STATE = (
    "resume_state: expected a .state file of a BasicSR training, got {path}{reason}. Name an earlier one in "
    "path: resume_state, without --auto_resume; a network's file (net_g_*.pth) goes into path: pretrain_network_g."
)


def _with_all_steps(host: ModuleType, begun: Mapping[str, int]) -> Callable[..., Any]:
    """BasicSR's ``create_train_val_dataloader``, with as many epochs as the steps that were asked for take."""
    create = host.create_train_val_dataloader

    def with_all_steps(opt: dict[str, Any], logger: Any) -> Any:
        train_loader, sampler, val_loaders, epochs, total = create(opt, logger)
        check_batches(len(train_loader.dataset), opt)
        if train_loader.num_workers:
            train_loader.timeout = waiting_time()  # a process that loads images and stalls
        last = last_epoch(total, len(train_loader), begun)
        if last != epochs:
            logger.info(f"Without incomplete batches an epoch has {len(train_loader)} steps; the last epoch is {last}.")
        return train_loader, sampler, val_loaders, last, total

    return with_all_steps


def _model_as_asked(host: ModuleType, stack: ExitStack, notes: list[str]) -> Any:
    """BasicSR's ``build_model``, whose model also moves a progress bar, and says what it keeps when it is resumed."""
    build_model = host.build_model

    def build(opt: dict[str, Any]) -> Any:
        model = with_proven_saves(build_model(opt))
        if opt["rank"] != 0:
            return model
        resume = model.resume_training

        def resume_and_say(state: Mapping[str, Any]) -> None:
            network = Path(opt["path"]["models"]) / f"net_g_{int(state['iter'])}.pth"
            for note in [*notes, *filter(None, [kept_settings(model, state, network)])]:
                host.get_root_logger().warning(note)
            resume(state)

        model.resume_training = resume_and_say
        optimize = model.optimize_parameters
        progress: list[TrainingProgress] = []
        coming: dict[str, Later] = {}

        def optimize_and_show(current_iter: int) -> None:
            if not progress:
                total = int(opt["train"]["total_iter"])
                progress.append(stack.enter_context(TrainingProgress(total, current_iter - 1, title=opt["name"])))
            optimize(current_iter)
            shown = {}
            for name in {"l_pix", "l_g_pix"} & set(model.log_dict):
                if name not in coming:
                    coming[name] = Later(torch.as_tensor(model.log_dict[name]))
                if coming[name].is_there:
                    shown[name] = coming.pop(name).read()
            progress[0].update(current_iter, **shown)

        model.optimize_parameters = optimize_and_show
        return model

    return build
