"""Builds criteria from the names and mappings that config files hold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.criteria.adversarial import Adversarial
from contrastive_sr.criteria.base import CRITERIA, Criterion
from contrastive_sr.criteria.registered import TRIAL_SIZE, Registered
from contrastive_sr.errors import ConfigError

CriterionConfig = str | Mapping[str, object] | nn.Module


class CriteriaByName(nn.ModuleDict):
    """Criteria by name, each only once: the same config twice gives one criterion, with one discriminator.

    Example:
        >>> criteria = CriteriaByName()
        >>> criteria.add("Pixel", "anchor"), criteria.add({"type": "Pixel", "norm": "l1"}, "positives[0]")
        ('pixel_l1', 'pixel_l1')
        >>> criteria.add({"type": "Pixel", "norm": "l2", "name": "square"}, "positives[1]")
        'square'
    """

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[str, object] = {}

    def add(self, config: CriterionConfig, where: str) -> str:
        """Build a criterion, unless the same one is here already.

        Args:
            config: a name such as ``"SSIM"``; a mapping with ``type``, its arguments and, if wanted, a ``name`` for the
                log; or a module that is called with SR and HR images. Types are those of :data:`CRITERIA`: ours, your
                own, and the losses of the training framework in use.
            where: what the config configures, for messages.

        Returns:
            The criterion's name, by which it is found here and logged.

        Raises:
            ConfigError: an unknown type, key or value, or a name that is taken or cannot be one.
        """
        name: object = None
        if isinstance(config, str):
            config = {"type": config}
        elif isinstance(config, Mapping):
            config = dict(config)
            name = config.pop("name", None)
        settings = settings_of(config)
        for known, others in self._settings.items():
            if settings == others:
                if name not in (None, known):
                    raise ConfigError(
                        f"{where}: name: the same criterion is there already, as {known!r}, got {describe(name)}. Give "
                        "both the same name, or this one none."
                    )
                return known
        try:
            module = build(CRITERIA, config, where)
            criterion = module if isinstance(module, Criterion) else Registered(module)
        except ConfigError as error:
            said = str(error) if str(error).startswith(where) else f"{where}: {error}"
            if isinstance(error.__cause__, OSError) and "VGGFeatures" not in said:
                # from urllib, by which torchvision downloads weights
                said += " If it cannot download its weights: the criterion VGG takes them from a local file."
            raise ConfigError(said) from error
        name = criterion.label if name is None else name
        if isinstance(name, str) and name in self:
            raise ConfigError(
                f"{where}: another criterion has the name {name!r} already, with other settings. Give one a `name`."
            )
        if not isinstance(name, str) or not name.isidentifier() or "loss" in name:
            # Training frameworks sum every log entry whose name contains "loss".
            raise ConfigError(f"{where}: name: expected a word without 'loss', got {describe(name)}. Give another.")
        if hasattr(self, name):  # such as "half", of every torch module
            raise ConfigError(f"{where}: {name!r} cannot be a criterion's name. Give it a `name`, e.g. `my_{name}`.")
        self[name] = criterion
        self._settings[name] = settings
        return name

    def alike(self, name: str, other: str) -> bool:
        """Whether two criteria differ only by a factor, as our Pixel and a framework's L1 loss do.

        Both are tried on random images. Two criteria of ours with different settings are never alike.
        """
        both = [self[name], self[other]]
        if not any(isinstance(criterion, Registered) for criterion in both):
            return False
        if any(isinstance(criterion, Adversarial) for criterion in both):
            return False
        like = next((p for criterion in both for p in criterion.parameters()), torch.empty(()))
        generator = torch.Generator().manual_seed(0)
        factors = []
        for spread in (0.1, 0.5, 1.0):
            sr, hr = (spread * torch.rand(2, 1, 3, TRIAL_SIZE, TRIAL_SIZE, generator=generator)).to(like)
            with torch.no_grad():
                value, reference = (criterion(sr, hr).mean().double() for criterion in both)
            factors.append((value / reference).item())
        return max(factors) - min(factors) < 1e-4 * abs(factors[0])


def settings_of(config: Mapping[str, object] | nn.Module) -> object:
    """A criterion's type and all its arguments, given or by default; equal for two configs of the same criterion."""
    kind = config.get("type") if isinstance(config, Mapping) else None
    cls = {**CRITERIA.of_host(), **CRITERIA}.get(kind) if isinstance(kind, str) else None
    if isinstance(config, nn.Module) or cls is None:
        return config
    every = inspect.signature(cls).parameters.values()
    settings = {**{p.name: p.default for p in every if p.default is not p.empty}, **config}
    return cls.settings(settings) if issubclass(cls, Criterion) else settings
