"""Any model of MMagic with contrastive methods, made when a config asks for it: `contrastive_sr.ContrastiveESRGAN`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from mmagic.models import BaseEditModel
from mmagic.registry import MODELS as NETWORKS
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.degradations import DegradationConfig, build_degradation
from contrastive_sr.embeddings.weights import under_own_names
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation.padding import Sizes, any_size, needed_sizes
from contrastive_sr.functional.graphs import is_compiling, outside_graphs
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.in_step import MethodsInStep, in_one_copy
from contrastive_sr.hosts.kernels import super_resolve
from contrastive_sr.hosts.mmagic.registry import PREFIX
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.methods import Methods, build_methods
from contrastive_sr.methods.engine import StepCounter

_OPTIM_EXAMPLE = (
    'optim_wrapper = dict(constructor="contrastive_sr.MultiOptimWrapperConstructor", '
    'generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4)), '
    'methods=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4)))'
)


def generator_scale(generator: Any) -> int | None:
    """The scale that a generator's config says, or has by default; None if there is none in it."""
    kind = generator.get("type") if isinstance(generator, Mapping) else None
    if not isinstance(kind, str) or (network := NETWORKS.get(kind)) is None:
        return None
    stated = stated_scale(network, generator)
    return None if stated is None else stated[1]


def degradation_of_config(
    config: DegradationConfig, wants: Sequence[str], seed: int, generator: Any
) -> TrainingDegradation:
    """The `degradation` of a model.

    Raises:
        ConfigError: it is unknown, or has another scale than the generator.
    """
    scale = generator_scale(generator)
    try:
        return TrainingDegradation(config, wants, seed, scale)
    except ConfigError as error:
        found = build_degradation(config).scale  # what is wrong without regard to the generator, is said here
        if scale in (None, found):
            raise
        raise ConfigError(
            f"degradation: expected one of scale {scale}, the generator's, got {describe(config)} of scale {found}."
        ) from error


def _warn(message: str) -> None:
    MMLogger.get_current_instance().warning(message)


class WithMethods(BaseEditModel):
    """Contrastive methods in the step of the MMagic model that this class is mixed into.

    They enter by its pixel loss, see :class:`~contrastive_sr.hosts.in_step.MethodsInStep`; the rest of the step,
    targets, GAN and validation are the model's own. With `degradation`, the LR images are made of the HR images before
    the step. While methods warm up, they alone train the generator.

    With parts to train, `optim_wrapper` holds one optimizer for `generator` and one for `methods` (constructor
    `contrastive_sr.MultiOptimWrapperConstructor`, which leaves the second out where there are none), and several
    processes need `model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel")`. With frozen embeddings alone,
    MMEngine's default of one optimizer for everything does as well.

    Args:
        methods: configs of the methods, see `contrastive_sr.methods.build_methods`. With `degradation` there may be
            none.
        is_use_ema: keep an averaged generator, `generator_ema`, which MMagic's `ExponentialMovingAverageHook` updates
            and validation uses. None: as the host's model has it by default, most without. (MMEngine's `EMAHook` needs
            no such flag.)
        degradation: makes the LR images from the HR images of `HighResolutionImageDataset`, on their device: the name
            of a preset, with its scale, or a config; see `contrastive_sr.degradations.build_degradation`. None: the
            data have LR images.
        degradation_seed: seed of what it draws. None: that of the config's `randomness`.
        skip_nonfinite: see `contrastive_sr.methods.Methods`.
        host: what the host's model takes; its `data_preprocessor` with mean 0 and std 255, so that images arrive as RGB
            in [0, 1].

    Raises:
        ConfigError: a method, a degradation, or a name in it, is unknown; the model has no pixel loss, or no optimizer
            is given for a part to train.
        DataError: the first batch does not fit (sizes, values outside [0, 1]).
    """

    def __init__(
        self,
        *,
        generator: dict[str, Any],
        methods: Sequence[Mapping[str, Any]] | None = None,
        is_use_ema: bool | None = None,
        degradation: DegradationConfig | None = None,
        degradation_seed: int | None = None,
        skip_nonfinite: int = 0,
        **host: Any,
    ) -> None:
        if not host.get("pixel_loss"):
            raise ConfigError(
                "model: expected a pixel_loss, because methods enter the step by it, got none. Try "
                'pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean").'
            )
        has_average = "is_use_ema" in inspect.signature(super().__init__).parameters
        if has_average and is_use_ema is not None:
            host["is_use_ema"] = is_use_ema
        super().__init__(generator=generator, **host)
        if not has_average:
            self.is_use_ema = bool(is_use_ema)
            if is_use_ema:
                self.generator_ema = deepcopy(self.generator).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):  # what the host draws afterwards shall not depend on first weights
            self.methods = build_methods(methods, optional=degradation is not None, skip_nonfinite=skip_nonfinite)
            self.degradation: TrainingDegradation | None = None
            if degradation is not None:
                # MMEngine has just set the seed of `randomness`, before it builds the model
                seed = torch.initial_seed() if degradation_seed is None else degradation_seed
                self.degradation = degradation_of_config(degradation, self.methods.wants, seed, generator)
                self.degradation_step = StepCounter()
            self.methods.attach(self.generator)
        names = {"lr", "hr"} if self.degradation is None else self.degradation.names
        self.methods.check_data(names, images=1)  # how many there will be is not known here
        config = self.train_cfg or {}
        self.in_step = MethodsInStep(
            self.methods,
            None,
            warn=_warn,
            # a GAN's discriminator may learn alone at first, and in between
            patience=config.get("disc_init_steps", 0) + config.get("disc_steps", 1) - 1,
            learn=self._learn,
            loss_prefix="",
        )
        self.pixel_loss: nn.Module = self.in_step.wrap(self.pixel_loss)
        if hasattr(self, "step_counter"):
            # the host does not save it, and starts anew with disc_init_steps and disc_steps when it resumes
            self.register_buffer("step_counter", self.step_counter, persistent=True)
        if self.methods.warming_up:
            MMLogger.get_current_instance().info(
                f"In the first {max(m.warmup_steps for m in self.methods)} steps methods warm up: they alone train the "
                f"generator, and the losses of {type(self).__name__.removeprefix(PREFIX)} rest."
            )
        self._batch: dict[str, Tensor] = {}
        self._wrapper: OptimWrapper | None = None
        self._scale = generator_scale(generator)
        self._sizes: Sizes | None = None
        self._tried = False

    @property
    def bare_methods(self) -> Methods:
        """The methods without the wrapper that MMSeparateDistributedDataParallel puts around them."""
        found: Methods = bare(self.methods)
        return found

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """As in PyTorch, with the same names whether or not MMSeparateDistributedDataParallel wraps the parts.

        MMEngine loads wrapped parts by their plain names but would save them with `.module.` in between, so that a
        distributed run could neither be resumed nor be loaded elsewhere.
        """
        state = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for plain, wrapped in self._wrapped_prefixes(prefix):
            _rename(state, wrapped, plain)
        return state

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # MMEngine, which loads the model itself (without a prefix), steps over wrappers; PyTorch, which EMAHook uses
        # for its averaged copy of the model, does not.
        if prefix:
            for plain, wrapped in self._wrapped_prefixes(prefix):
                _rename(state_dict, plain, wrapped)
        elif (own := under_own_names(bare(self.generator), state_dict)) is not state_dict:
            # what authors released is a file of the generator alone
            parts = [name for name in ("generator", "generator_ema") if hasattr(self, name)]
            state_dict.clear()
            state_dict.update({f"{part}.{name}": value for part in parts for name, value in own.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _wrapped_prefixes(self, prefix: str) -> list[tuple[str, str]]:
        parts = [name for name, part in self.named_children() if is_model_wrapper(part)]
        return [(f"{prefix}{name}.", f"{prefix}{name}.module.") for name in parts]

    @classmethod
    def is_own_state(cls, key: str) -> bool:
        """Whether an entry of `state_dict` is none of the stock model's."""
        return key.startswith(("methods.", "degradation_step.")) or key == "step_counter"

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor", **kwargs: Any) -> Any:
        """As in the host, which takes an LR image out of `inputs` for training too, where there may be none.

        MMEngine's `BaseModel.train_step` and its default distributed wrapper come here with one optimizer for all.
        """
        if mode != "loss":
            return super().forward(inputs, data_samples, mode, **kwargs)
        if self.bare_methods.trainable and self._wrapper is None:
            raise ConfigError(
                "The methods have parts of their own to train, so one optimizer for everything cannot be used. "
                f"Try: {_OPTIM_EXAMPLE} and, for several processes, "
                'model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel"). '
                "Or freeze the embedding with train_embedding=False."
            )
        with nullcontext() if self.in_step.open else self._step():
            return self.forward_train(inputs, data_samples, **kwargs)

    def forward_train(self, inputs: Any, data_samples: Any = None, **kwargs: Any) -> Any:
        """As in the host, with LR images that the degradation has made, if there is one."""
        self._batch = self._make_batch(inputs, data_samples.gt_img)
        return super().forward_train(self._batch["lr"], data_samples, **kwargs)

    def forward_tensor(self, inputs: Tensor, data_samples: Any = None, training: bool = False) -> Tensor:
        """The SR image; by the averaged generator if there is one, except in training.

        A generator that reads kernels gets those of the images, which `contrastive-sr prepare degrade` writes down; in
        training its method gives them. One that takes images of some sizes alone gets them padded, except in training.
        """
        if self.in_step.open:
            return self.generator(inputs)
        net = self.generator_ema if self.is_use_ema and not training else self.generator
        if training or net.training or self._scale is None:
            return super_resolve(net, inputs, _lr_paths(data_samples))
        if not self._tried:
            self._sizes, self._tried = needed_sizes(net, inputs, self._scale), True
        with any_size(net, self._sizes, self._scale):
            return super_resolve(net, inputs, _lr_paths(data_samples))

    def _make_batch(self, inputs: Tensor | dict[str, Tensor], hr: Tensor) -> dict[str, Tensor]:
        images = inputs if isinstance(inputs, dict) else {"img": inputs}
        if self.degradation is None:
            if "img" not in images:
                raise ConfigError(
                    "Expected LR images as `img`, got HR images alone. Set `degradation` in the model, e.g. "
                    '"dasr-isotropic-x4", or train on pairs with contrastive_sr.PairedImageDataset.'
                )
            return {"lr": images["img"], "hr": hr}
        if "img" in images:
            raise ConfigError(
                "The model's `degradation` makes the LR images from HR images alone, got LR images too. Use "
                "contrastive_sr.HighResolutionImageDataset and no `img` in the pipeline; or take `degradation` out."
            )
        self.degradation_step.advance()
        return self.degradation.batch(hr, images.get("gt_key"), self.degradation_step.value)

    def _scaling_hint(self) -> str:
        mean, std = (getattr(self.data_preprocessor, name, None) for name in ("mean", "std"))
        if mean is not None and std is not None and not mean.any() and (std == 255).all():
            return ""
        return " In an MMagic config, data_preprocessor must have mean=[0., 0., 0.] and std=[255., 255., 255.]."

    def train_step(self, data: Any, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """The host's training step, in which the methods take part.

        Args:
            data: what the data loader gives.
            optim_wrapper: the host's wrappers, and one for `methods`; one for all if no method trains parts of its own.

        Returns:
            The values for the log.
        """
        theirs = self._without_ours(optim_wrapper)
        if self.bare_methods.warming_up:
            return self._warm_up(data, theirs)
        with self._step():
            log: dict[str, Tensor] = super().train_step(data, theirs)
        return in_one_copy(log)  # MMEngine reads them at every step, one by one

    def _step(self) -> AbstractContextManager[None]:
        """A step in which the methods take part."""
        if is_compiling() and self.bare_methods.layers:
            _refuse_to_compile(self.bare_methods.layers)
        return self._opened()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self._hint_of_range(), self.in_step.step(self.generator, lambda: self._batch):
            yield

    @contextmanager
    def _hint_of_range(self) -> Iterator[None]:
        """Errors about data say what the config scales images by."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{error}{self._scaling_hint()}") from error

    def _without_ours(self, optim_wrapper: OptimWrapper | OptimWrapperDict) -> OptimWrapper | OptimWrapperDict:
        """What the host's step is called with: the optimizers without that of the methods."""
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return optim_wrapper
        wrappers = dict(optim_wrapper.items())
        self._wrapper = wrappers.pop("methods", None)
        needed = {"generator", *(["methods"] if self.bare_methods.trainable else [])}
        if getattr(self, "discriminator", None) is not None:
            needed.add("discriminator")
        if missing := sorted(needed - set(optim_wrapper.keys())):
            raise ConfigError(
                f"Expected an optimizer for each of {sorted(needed)} in optim_wrapper, but none was given for "
                f"{missing}. Try: {_OPTIM_EXAMPLE}"
            )
        return wrappers["generator"] if set(wrappers) == {"generator"} else OptimWrapperDict(**wrappers)

    def _warm_up(self, data: Any, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """A step of the methods alone."""
        theirs = optim_wrapper["generator"] if isinstance(optim_wrapper, OptimWrapperDict) else optim_wrapper
        data = self.data_preprocessor(data, True)
        with self._hint_of_range(), theirs.optim_context(self):
            loss = self.in_step.warm_up_loss(
                self.generator, self._make_batch(data["inputs"], data["data_samples"].gt_img)
            )
        total, log = super().parse_losses({"loss_contrastive": loss, **self.in_step.metrics})
        theirs.update_params(total)
        return in_one_copy(log)

    def _learn(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The step of the methods' own parts, through the wrapper, so that ranks stay equal."""
        if not self.bare_methods.trainable:
            return {}
        wrapper = self._wrapper
        assert wrapper is not None
        with wrapper.optim_context(self), torch.autocast(batch["hr"].device.type, enabled=False):
            losses: dict[str, Tensor] = self.methods(batch)
        if losses:  # none as before the step from which a part learns
            # OptimWrapper.update_params, with one thing more
            wrapper.backward(wrapper.scale_loss(torch.stack([value.float() for value in losses.values()]).sum()))
            if wrapper.should_update():
                self.bare_methods.drop_idle_gradients()
                wrapper.step()
                wrapper.zero_grad()
                torch.clear_autocast_cache()  # it may hold these parameters as they were
        return losses

    def parse_losses(self, losses: dict[str, Any]) -> Any:
        """As in the host; the methods' terms apart from the pixel loss, as `loss_contrastive`, and their metrics."""
        if any(value is self.in_step.returned for value in losses.values()):
            split = {}
            for name, value in losses.items():
                if value is self.in_step.returned:
                    pixel, terms = self.in_step.parts
                    split["loss_pix" if name == "loss" else name] = pixel
                    split["loss_contrastive"] = terms
                else:
                    split[name] = value
            losses = {**split, **self.in_step.metrics}
        return super().parse_losses(losses)


@outside_graphs
def _refuse_to_compile(layers: Sequence[str]) -> None:
    raise ConfigError(
        f"compile: expected none with methods that read layers of the generator ({', '.join(layers)}): what is before "
        "a layer and what is behind it would be one graph, and no gradient would lead from the pixel loss to the "
        "layer. Take `compile` out, or use methods without `layers`."
    )


def _lr_paths(data_samples: Any) -> list[str]:
    """Files of the LR images of a batch, where it names them."""
    paths = getattr(data_samples, "img_path", [])
    return [paths] if isinstance(paths, str) else list(paths)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)


def with_methods(host: type[BaseEditModel]) -> type[BaseEditModel]:
    """A model of MMagic that trains with methods: see `WithMethods`.

    Args:
        host: e.g. MMagic's `ESRGAN`.
    """
    own = {"__module__": __name__, "__doc__": host.__doc__}
    return type(PREFIX + host.__name__, (WithMethods, host), own)


def accepted_keys(model: type) -> list[str]:
    """What a config of a model may hold beside its type."""
    names: list[str] = []
    for cls in (model, *model.__mro__):
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        names += [name for name, p in parameters.items() if name != "self" and p.kind is not p.VAR_KEYWORD]
        if cls is not model and not issubclass(cls, WithMethods):
            break
    return list(dict.fromkeys(names))


def bare(module: Any) -> Any:
    """A part of the model without the wrapper that MMSeparateDistributedDataParallel puts around it."""
    return module.module if is_model_wrapper(module) else module
