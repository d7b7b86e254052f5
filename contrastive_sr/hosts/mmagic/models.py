"""MMagic models that train with contrastive methods: `ContrastiveSR`, and `ContrastiveSRGAN` on top of ESRGAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmagic.models import ESRGAN, BaseEditModel
from mmagic.registry import MODELS as NETWORKS
from mmagic.structures import DataSample
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from contrastive_sr._checks import describe
from contrastive_sr.degradations import DegradationConfig, build_degradation
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.kernels import super_resolve
from contrastive_sr.hosts.mmagic.registry import MODELS
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.hosts.warn import warnings_in_log
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


class WithMethods(BaseEditModel):
    """What both models share: the methods as the submodule `methods`, run in the order auxiliary step, SR step."""

    def _add_methods(
        self,
        methods: Sequence[Mapping[str, Any]] | None,
        generator: dict[str, Any],
        is_use_ema: bool,
        degradation: DegradationConfig | None,
        degradation_seed: int | None,
    ) -> None:
        self.methods = build_methods(methods, optional=degradation is not None)
        self.degradation: TrainingDegradation | None = None
        if degradation is not None:
            # MMEngine has just set the seed of `randomness`, before it builds the model
            seed = torch.initial_seed() if degradation_seed is None else degradation_seed
            self.degradation = degradation_of_config(degradation, self.methods.wants, seed, generator)
            self.degradation_step = StepCounter()
        self.methods.attach(self.generator)
        names = {"lr", "hr"} if self.degradation is None else self.degradation.names
        self.methods.check_data(names, images=1)  # how many there will be is not known here
        self.is_use_ema = is_use_ema
        if is_use_ema:  # as in MMagic's RealESRGAN: ExponentialMovingAverageHook looks for this name
            self.generator_ema = deepcopy(self.generator).requires_grad_(False)

    @property
    def bare_methods(self) -> Methods:
        """The methods without the wrapper that MMSeparateDistributedDataParallel puts around them."""
        methods: Any = self.methods
        found: Methods = methods.module if is_model_wrapper(methods) else methods
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
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _wrapped_prefixes(self, prefix: str) -> list[tuple[str, str]]:
        parts = [name for name, part in self.named_children() if is_model_wrapper(part)]
        return [(f"{prefix}{name}.", f"{prefix}{name}.module.") for name in parts]

    @classmethod
    def is_own_state(cls, key: str) -> bool:
        """Whether an entry of `state_dict` is none of the stock model's."""
        return key.startswith(("methods.", "degradation_step.")) or key == "step_counter"

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor", **kwargs: Any) -> Any:
        """As in the host, which takes an LR image out of `inputs` for training too, where there may be none."""
        if mode == "loss":
            return self.forward_train(inputs, data_samples, **kwargs)
        return super().forward(inputs, data_samples, mode, **kwargs)

    def forward_tensor(self, inputs: Tensor, data_samples: Any = None, training: bool = False) -> Tensor:
        """The SR image; by the averaged generator if there is one, except in training.

        A generator that reads kernels gets those of the images, which `contrastive-sr prepare degrade` writes down.
        """
        averaged = self.is_use_ema and not training
        net = self.generator_ema if averaged else self.generator
        return super_resolve(net, inputs, _lr_paths(data_samples))

    def run_network(self, inputs: Tensor | dict[str, Tensor], data_samples: DataSample) -> dict[str, Tensor]:
        """One forward pass: a batch with `lr`, `hr` and `sr`, and what else the methods want."""
        try:
            return self.bare_methods.run(self.generator, self._make_batch(inputs, data_samples.gt_img))
        except DataError as error:
            raise DataError(f"{error}{self._scaling_hint()}") from error

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

    def training_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """A step of pixel loss and methods; in a warm-up, of the methods alone."""
        data = self.data_preprocessor(data, True)
        with optim_wrapper["generator"].optim_context(self):
            batch = self.run_network(data["inputs"], data["data_samples"])
        auxiliary = self.auxiliary_step(batch, optim_wrapper)
        return {**self.sr_step(batch, optim_wrapper), **auxiliary}

    def auxiliary_step(self, batch: dict[str, Tensor], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Trains the methods' own parts on the detached SR image; through the wrapper, so that ranks stay equal."""
        if not self.bare_methods.trainable:
            return {}
        wrapper: OptimWrapper = optim_wrapper["methods"]
        with wrapper.optim_context(self):
            losses: dict[str, Tensor] = self.methods(batch)
        if not losses:  # as before the step from which a part learns
            return {}
        # OptimWrapper.update_params, with one thing more
        wrapper.backward(wrapper.scale_loss(torch.stack([value.float() for value in losses.values()]).sum()))
        if wrapper.should_update():
            self.bare_methods.drop_idle_gradients()
            wrapper.step()
            wrapper.zero_grad()
        return {name: value.detach() for name, value in losses.items()}

    def sr_step(self, batch: dict[str, Tensor], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """The generator's step on the pixel loss and the methods' terms, and all of them for the log."""
        generator: OptimWrapper = optim_wrapper["generator"]
        with generator.optim_context(self):
            losses = self._sr_losses(batch)
        total, log = self.parse_losses(losses)
        generator.update_params(total)
        return log

    def _sr_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pixel loss, which rests in a warm-up, and what the methods add."""
        losses = {} if self.bare_methods.warming_up else {"loss_pix": self.pixel_loss(batch["sr"], batch["hr"])}
        return self._with_terms(losses, batch)

    def _with_terms(self, losses: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The host's losses, the weighted terms of the methods, and their metrics for the log."""
        with warnings_in_log(MMLogger.get_current_instance().warning):
            contrast = self.bare_methods.sr_losses(batch, losses.get("loss_pix"))
        return {**losses, "loss_contrastive": contrast.loss, **contrast.metrics}

    def _check_optimizers(self, optim_wrapper: OptimWrapper | OptimWrapperDict, *others: str) -> None:
        needed = {"generator", *others, *(["methods"] if self.bare_methods.trainable else [])}
        found = set(optim_wrapper.keys()) if isinstance(optim_wrapper, OptimWrapperDict) else set()
        if missing := sorted(needed - found):
            raise ConfigError(
                f"Expected an optimizer for each of {sorted(needed)} in optim_wrapper, but none was given for "
                f"{missing}. Try: {_OPTIM_EXAMPLE}"
            )


def _lr_paths(data_samples: Any) -> list[str]:
    """Files of the LR images of a batch, where it names them."""
    paths = getattr(data_samples, "img_path", [])
    return [paths] if isinstance(paths, str) else list(paths)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)


@MODELS.register_module()
class ContrastiveSR(WithMethods):
    """MMagic's `BaseEditModel` with contrastive methods beside its pixel loss.

    A step: the generator runs once; the methods' own parts (an embedding network) are trained on the detached SR image;
    then the generator is trained with pixel loss plus the weighted contrastive terms. The generator is any network with
    `sr = net(lr)`; nothing is added to it.

    With parts to train, `optim_wrapper` holds one optimizer for `generator` and one for `methods` (constructor
    `contrastive_sr.MultiOptimWrapperConstructor`, which leaves the second out where there are none), and several
    processes need `model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel")`. With frozen embeddings alone,
    MMEngine's default of one optimizer for everything does as well.

    Args:
        generator: config of the SR network.
        pixel_loss: config of the pixel loss, such as `dict(type="L1Loss")`.
        methods: configs of the methods, see `contrastive_sr.methods.build_methods`. With `degradation` there may be
            none.
        is_use_ema: keep an averaged generator, `generator_ema`, which MMagic's `ExponentialMovingAverageHook` updates
            and validation uses. (MMEngine's `EMAHook` needs no such flag.)
        degradation: makes the LR images from the HR images of `HighResolutionImageDataset`, on their device: the name
            of a preset, with its scale, or a config; see `contrastive_sr.degradations.build_degradation`. None: the
            data have LR images.
        degradation_seed: seed of what it draws. None: that of the config's `randomness`.
        train_cfg: as in the host.
        test_cfg: as in the host.
        init_cfg: as in the host.
        data_preprocessor: as in the host, with mean 0 and std 255: images must arrive as RGB in [0, 1].

    Raises:
        ConfigError: a method, a degradation, or a name in it, is unknown; or no optimizer is given for a part to train.
        DataError: the first batch does not fit (sizes, values outside [0, 1]).
    """

    def __init__(
        self,
        *,
        generator: dict[str, Any],
        pixel_loss: dict[str, Any],
        methods: Sequence[Mapping[str, Any]] | None = None,
        is_use_ema: bool = False,
        degradation: DegradationConfig | None = None,
        degradation_seed: int | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            generator=generator,
            pixel_loss=pixel_loss,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
            data_preprocessor=data_preprocessor,
        )
        self._add_methods(methods, generator, is_use_ema, degradation, degradation_seed)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """One training step.

        Args:
            data: what the data loader gives.
            optim_wrapper: wrappers for `generator` and `methods`; one for all if nothing but the generator trains.

        Returns:
            The values for the log.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            log: dict[str, Tensor] = super().train_step(data, optim_wrapper)
            return log
        self._check_optimizers(optim_wrapper)
        return self.training_step(data, optim_wrapper)

    def forward_train(self, inputs: Any, data_samples: DataSample = None, **kwargs: Any) -> dict[str, Tensor]:
        """The losses of one step in which nothing but the generator trains.

        MMEngine's `BaseModel.train_step` and its default distributed wrapper come here.
        """
        if self.bare_methods.trainable:
            raise ConfigError(
                "The methods have parts of their own to train, so one optimizer for everything cannot be used. "
                f"Try: {_OPTIM_EXAMPLE} and, for several processes, "
                'model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel"). '
                "Or freeze the embedding with train_embedding=False."
            )
        return self._sr_losses(self.run_network(inputs, data_samples))


@MODELS.register_module()
class ContrastiveSRGAN(WithMethods, ESRGAN):
    """MMagic's `ESRGAN` (pixel, perceptual and relativistic GAN loss) with contrastive methods beside them.

    The step is the host's own; the methods' auxiliary step comes before the generator's. `optim_wrapper` holds
    optimizers for `generator`, `discriminator` and, if a method has parts to train, `methods`.

    Args:
        generator: config of the SR network.
        methods: configs of the methods, see `contrastive_sr.methods.build_methods`. With `degradation` there may be
            none.
        discriminator: config of the discriminator.
        gan_loss: config of the GAN loss.
        pixel_loss: config of the pixel loss; needed by methods that are given a `loss_share`.
        perceptual_loss: config of the perceptual loss.
        is_use_ema: as in `ContrastiveSR`.
        degradation: as in `ContrastiveSR`.
        degradation_seed: as in `ContrastiveSR`.
        train_cfg: as in the host.
        test_cfg: as in the host.
        init_cfg: as in the host.
        data_preprocessor: as in `ContrastiveSR`.

    Raises:
        ConfigError: a method, a degradation, or a name in it, is unknown; or no optimizer is given for a part to train.
        DataError: the first batch does not fit (sizes, values outside [0, 1]).
    """

    def __init__(
        self,
        *,
        generator: dict[str, Any],
        discriminator: dict[str, Any],
        gan_loss: dict[str, Any],
        methods: Sequence[Mapping[str, Any]] | None = None,
        pixel_loss: dict[str, Any] | None = None,
        perceptual_loss: dict[str, Any] | None = None,
        is_use_ema: bool = False,
        degradation: DegradationConfig | None = None,
        degradation_seed: int | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            generator=generator,
            discriminator=discriminator,
            gan_loss=gan_loss,
            pixel_loss=pixel_loss,
            perceptual_loss=perceptual_loss,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
            data_preprocessor=data_preprocessor,
        )
        self._add_methods(methods, generator, is_use_ema, degradation, degradation_seed)
        # the host does not save it, and starts anew with disc_init_steps and disc_steps when it resumes
        self.register_buffer("step_counter", torch.tensor(0), persistent=True)
        self._batch: dict[str, Tensor] = {}

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One training step of the host, with the methods in it; see `ContrastiveSR.train_step`."""
        self._check_optimizers(optim_wrapper, "discriminator")
        if self.bare_methods.warming_up:  # there need be no SR image, which the host's own step begins with
            return self.training_step(data, optim_wrapper)
        log: dict[str, Tensor] = super().train_step(data, optim_wrapper)
        self._batch = {}
        return log

    def forward_train(self, inputs: Any, data_samples: DataSample = None, **kwargs: Any) -> Tensor:
        """Called by the host's `train_step`: the SR image. The batch is kept for the steps that follow."""
        self._batch = self.run_network(inputs, data_samples)
        return self._batch["sr"]

    def g_step_with_optim(
        self, batch_outputs: Tensor, batch_gt_data: Tensor, optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """The methods' auxiliary step, then the host's step of the generator."""
        auxiliary = self.auxiliary_step(self._batch, optim_wrapper)
        log: dict[str, Tensor] = super().g_step_with_optim(batch_outputs, batch_gt_data, optim_wrapper)
        return {**log, **auxiliary}

    def g_step(self, batch_outputs: Tensor, batch_gt_data: Tensor) -> dict[str, Tensor]:
        """The host's losses of the generator, and the contrastive ones."""
        return self._with_terms(super().g_step(batch_outputs, batch_gt_data), self._batch)
