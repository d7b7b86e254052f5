"""Neighbours and picture of degradation encoded, and the encoder in files of all kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import GroupKFold

from contrastive_sr import networks
from contrastive_sr.degradations import Degradation, IsotropicGaussian
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.evaluation.degradations import (
    Panel,
    Representations,
    degraded_versions,
    encode,
    knn_accuracy,
    save_tsne,
)
from contrastive_sr.methods import DASR, DegradationContrast


def _random(images: int = 12, classes: int = 3, dim: int = 4, seed: int = 0, signal: float = 1.5) -> Representations:
    generator = np.random.default_rng(seed)
    labels, contents = np.tile(np.arange(classes), images), np.repeat(np.arange(images), classes)
    vectors = generator.normal(size=(len(labels), dim)) + generator.normal(size=(images, dim))[contents]
    vectors[:, 0] += signal * labels
    return Representations(vectors, labels, contents)


def _plain_accuracy(encoded: Representations, neighbours: int) -> float:
    """One query after the other, from the words of the docstring."""
    right = 0
    fold_of = {}
    splits = GroupKFold(min(5, len(set(encoded.contents)))).split(encoded.vectors, groups=encoded.contents)
    for fold, (_, judged) in enumerate(splits):
        fold_of.update(dict.fromkeys(encoded.contents[judged].tolist(), fold))
    for vector, label, content in zip(*encoded, strict=True):
        others = [i for i, other in enumerate(encoded.contents) if fold_of[other] != fold_of[content]]
        mean, deviation = encoded.vectors[others].mean(0), encoded.vectors[others].std(0)
        query, reference = (vector - mean) / deviation, (encoded.vectors[others] - mean) / deviation
        nearest = np.argsort(((reference - query) ** 2).sum(1))[:neighbours]
        votes = np.bincount(encoded.classes[others][nearest])
        right += int(votes.argmax() == label)
    return right / len(encoded.classes)


@pytest.mark.parametrize(("images", "neighbours"), [(12, 3), (7, 4), (3, 2)])
def test_accuracy_is_that_of_plain_code(images: int, neighbours: int) -> None:
    encoded = _random(images)
    expected = _plain_accuracy(encoded, neighbours)
    assert 0.2 < expected < 1
    assert knn_accuracy(encoded, neighbours) == pytest.approx(expected)


def test_what_images_show_is_of_no_help() -> None:
    """Vectors that say which image it is and nothing else: a neighbour of the same image would be right by chance."""
    contents = np.repeat(np.arange(30), 5)
    encoded = Representations(np.eye(30)[contents] * 9, np.tile(np.arange(5), 30), contents)
    assert knn_accuracy(encoded) == pytest.approx(0.2)


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10), seed=st.integers(0, 5))
def test_scale_and_shift_of_features_do_not_matter(scale: float, shift: float, seed: int) -> None:
    encoded = _random(6, seed=seed)
    moved = encoded._replace(vectors=encoded.vectors * scale + shift)
    assert knn_accuracy(moved, 3) == knn_accuracy(encoded, 3)


def test_a_single_image_cannot_be_judged() -> None:
    with pytest.raises(DataError, match="at least 2 images"):
        knn_accuracy(_random(1))


def test_versions_and_their_rows() -> None:
    degradations = [Degradation(scale=4, kernel=IsotropicGaussian(sigma=(width, width))) for width in (0.2, 3.0)]
    images = [torch.rand(1, 3, 37, 50), torch.rand(1, 3, 24, 26)]
    versions = degraded_versions(images, degradations)
    assert [tuple(each.shape) for each in versions] == [(2, 3, 9, 12), (2, 3, 6, 6)]
    torch.testing.assert_close(versions[1][1:], degradations[1](images[1][..., :24, :24]).lr)
    assert versions[0][0].std() > 1.5 * versions[0][1].std()  # the wider kernel is the second
    encoded = encode(lambda x: x.mean((2, 3)), versions)
    assert encoded.classes.tolist() == [0, 1, 0, 1]
    assert encoded.contents.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(encoded.vectors[2], versions[1][0].mean((1, 2)), rtol=1e-5)


def _vector(encoder: DegradationEncoder, images: torch.Tensor) -> torch.Tensor:
    return encoder.eval()(images)


def test_the_encoder_is_found_in_every_kind_of_file(tmp_path: Path) -> None:
    net = networks.DASR(channels=4, groups=1, blocks=1)
    average = networks.DASR(channels=4, groups=1, blocks=1)
    method = DASR(loss_weight=1.0, queue_size=4)  # its momentum encoder is another one
    beside = DegradationContrast(queue_size=4)
    images = torch.rand(2, 3, 16, 16)
    of_net, of_average = net.eval().encode(images), average.eval().encode(images)
    generator = {f"generator.{name}": value for name, value in net.state_dict().items()}
    averaged = {f"generator_ema.{name}": value for name, value in average.state_dict().items()}
    own = {f"method_list.dasr.{name}": value for name, value in method.state_dict().items()}
    stock = {"generator.conv.weight": torch.rand(3)}
    aside = {f"method_list.degradation.{name}": value for name, value in beside.state_dict().items()}
    files = {
        "net_g.pth": ({"params": net.state_dict()}, of_net),
        "net_g_ema.pth": ({"params": net.state_dict(), "params_ema": average.state_dict()}, of_average),
        "mmagic.pth": ({"state_dict": generator, "contrastive_sr": own, "meta": {}}, of_net),
        "mmagic_ema.pth": ({"state_dict": {**generator, **averaged}, "contrastive_sr": own}, of_average),
        "mmagic_beside.pth": ({"state_dict": stock, "contrastive_sr": aside}, _vector(beside.pair.encoder, images)),
        "mmengines_own.pth": ({"state_dict": {**generator, **own}}, of_net),
        "encoder.pth": ({"params": net.encoder.state_dict() if net.encoder else {}}, of_net),
        "plain.pth": (net.state_dict(), of_net),
    }
    for name, (content, expected) in files.items():
        torch.save(content, tmp_path / name)
        torch.testing.assert_close(DegradationEncoder(weights=tmp_path / name).eval()(images), expected, msg=name)


def test_a_file_without_an_encoder(tmp_path: Path) -> None:
    oracle = networks.DASR(variant="oracle", channels=4, groups=1, blocks=1, kernel_size=3)
    torch.save({"params": oracle.state_dict()}, tmp_path / "oracle.pth")
    expected = (
        r"oracle\.pth was expected to hold the weights of one DegradationEncoder, got none .* 'oracle' has no enc"
    )
    with pytest.raises(ConfigError, match=expected):
        DegradationEncoder(weights=tmp_path / "oracle.pth").eval()
    encoder = DegradationEncoder().state_dict()
    several = {f"{prefix}.{name}": value for prefix in ("one", "two") for name, value in encoder.items()}
    torch.save(several, tmp_path / "several.pth")
    with pytest.raises(ConfigError, match=r"got 2 sets of them, under one\., two\."):
        DegradationEncoder(weights=tmp_path / "several.pth").eval()
    with pytest.raises(ConfigError, match="expected an existing file"):
        DegradationEncoder(weights=tmp_path / "nothing.pth").eval()


def test_the_picture_has_a_colour_for_each_degradation(tmp_path: Path) -> None:
    encoded = _random(10, signal=8.0)
    panel = Panel("an encoder", encoded, ["0.2", "1.8", "3.4"])
    save_tsne(tmp_path / "tsne.svg", [[panel, panel._replace(legend="kernel width\n(HR pixels)")]], "title")
    assert "(HR pixels)" in (tmp_path / "tsne.svg").read_text()
    save_tsne(tmp_path / "tsne.png", [[panel, panel]], "title")
    with Image.open(tmp_path / "tsne.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x44, 0x77, 0xAA), (0x66, 0xCC, 0xEE), (0x22, 0x88, 0x33)):
        assert (pixels == colour).all(1).sum() > 100
    assert not (pixels == (0xCC, 0xBB, 0x44)).all(1).any()


def test_representations_that_are_not_finite_are_an_error() -> None:
    images = [torch.rand(2, 3, 8, 8) for _ in range(3)]
    with pytest.raises(NonFiniteError, match="the representations hold NaN or infinity"):
        encode(lambda x: x.mean((2, 3)) * torch.nan, images)
