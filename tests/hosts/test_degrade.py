"""What both hosts make of HR crops; no host is needed."""

from __future__ import annotations

import pytest
import torch

from contrastive_sr.degradations import build_degradation
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.degrade import TrainingDegradation

CROPS = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
OTHERS = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def made(
    preset: str, *wants: str, key: torch.Tensor | None = None, step: int = 1, seed: int = 0
) -> dict[str, torch.Tensor]:
    return TrainingDegradation(preset, wants, seed).batch(CROPS, key, step)


def test_two_crops_have_one_degradation() -> None:
    batch = made("dasr-isotropic-x4", "lr_key", "degradation/kernel", "degradation/sigma", key=OTHERS)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "hr": (2, 3, 48, 48),
        "lr": (2, 3, 12, 12),
        "lr_key": (2, 3, 8, 10),
        "degradation/kernel": (2, 21, 21),
        "degradation/sigma": (2, 2),
    }
    parameters = {name: batch[f"degradation/{name}"] for name in ("kernel", "sigma")}
    plain = build_degradation("dasr-isotropic-x4")
    assert torch.equal(plain.apply(OTHERS, parameters), batch["lr_key"])
    assert torch.equal(plain.apply(CROPS, parameters), batch["lr"])
    assert not torch.equal(parameters["sigma"][0], parameters["sigma"][1])  # one degradation an image


def test_noise_is_drawn_anew_for_the_key() -> None:
    quiet = made("dasr-isotropic-x4", "lr_key", key=CROPS)
    assert torch.equal(quiet["lr"], quiet["lr_key"])
    noisy = made("crl-isotropic-x4", "lr_key", key=CROPS)
    assert (noisy["lr"] != noisy["lr_key"]).float().mean() > 0.5


def test_a_key_of_another_image_under_the_same_degradation() -> None:
    batch = made("dasr-isotropic-x4", "lr_key_other", "degradation/kernel")
    want = build_degradation("dasr-isotropic-x4").apply(CROPS.flip(0), {"kernel": batch["degradation/kernel"]})
    assert torch.equal(batch["lr_key_other"], want)
    with pytest.raises(DataError, match="Raise the batch size"):
        TrainingDegradation("dasr-isotropic-x4", ["lr_key_other"]).batch(CROPS[:1], None, 1)


def test_draws_depend_on_seed_and_step_alone() -> None:
    first = made("crl-anisotropic-x4", "lr_key", key=OTHERS)
    torch.rand(5)  # whatever else is drawn
    again = made("crl-anisotropic-x4", "lr_key", key=OTHERS)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (made("crl-anisotropic-x4", step=2), made("crl-anisotropic-x4", seed=1)):
        assert not torch.equal(first["lr"], other["lr"])


def test_what_cannot_be_made_is_left_out_or_refused() -> None:
    # a field of widths has no kernel; a method that must have one says so itself
    assert set(made("crl-spatial-x4", "degradation/kernel", "degradation/sigma_map", "warmth")) == {
        "hr",
        "lr",
        "degradation/sigma_map",
    }
    with pytest.raises(ConfigError, match="`crops: 2`"):
        made("dasr-isotropic-x4", "lr_key")
    with pytest.raises(ConfigError, match=r"expected a scale that the preset 'dasr-table1-width1\.0' has, got 2"):
        TrainingDegradation("dasr-table1-width1.0", scale=2)
    with pytest.raises(DataError, match="no smaller than the kernel"):
        TrainingDegradation("dasr-isotropic-x4").batch(CROPS[..., :16, :16], None, 1)
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        TrainingDegradation("dasr-isotropic-x4").batch(255 * CROPS, None, 1)
