"""Files that trained embeddings come in, and files that are something else."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contrastive_sr.embeddings import HaarDiscriminator, RGBDiscriminator, load_weights
from contrastive_sr.embeddings.tensor_file import never_code
from contrastive_sr.embeddings.weights import read_state_dict
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods import build_methods


@pytest.fixture(scope="module")
def trained() -> HaarDiscriminator:
    torch.manual_seed(7)
    embedding = HaarDiscriminator()
    with torch.no_grad():
        embedding.train().logits(torch.rand(4, 3, 32, 32))
    return embedding


def same(x: torch.nn.Module, y: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True))


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str, embedding: torch.nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in embedding.state_dict().items()}


class History:
    """Stands in a checkpoint as MMEngine's logged history does: a class of one's own that holds NumPy arrays."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)
        self.methods: dict[str, Any] = {"mean": History.mean}

    def mean(self) -> float:
        return float(self.values.mean())


class ConfigMapping(OrderedDict[str, object]):
    """A mapping type that no reader of tensors knows."""


def test_every_kind_of_file(trained: HaarDiscriminator, tmp_path: Path) -> None:
    method = "methods.pcl.loss.embedding."
    new = HaarDiscriminator()
    other = {"generator.conv.weight": torch.rand(3, 3), "methods.pcl.step.count": torch.tensor(5)}
    contents = {
        "plain.pth": trained.state_dict(),
        "basicsr.pth": {"params": trained.state_dict()},
        "basicsr_ema.pth": {"params": HaarDiscriminator().state_dict(), "params_ema": trained.state_dict()},
        "mmengine.pth": {"meta": {"epoch": 1, "cfg": "text"}, "state_dict": {**other, **under(method, trained)}},
        "own.pth": {"state_dict": other, "contrastive_sr": under("pcl.loss.embedding.", trained)},
        "training.state": {"iter": 3, "optimizers": [{"state": {}}], "methods": under("pcl.loss.embedding.", trained)},
        "nested.pth": {"a": {"b": {"c": under("d.", trained)}, "other": {"weight": torch.rand(2)}}, "date": "today"},
        "average.pth": {"state_dict": {**under("embedding.", new), **under("embedding_ema.", trained)}},
        "wrapped.pth": {"live_copy": under("module.embedding.", new), "state_dict": under("embedding.", trained)},
        "momentum.pth": {**under("loss.key_encoder.", new), **under("embedding.", trained)},
        "parallel.pth": under("module.", trained),
        "past.pth": {**under("generator.", trained), **under("methods.mcl.samples.0.pasts.0.", new)},
    }
    for name, content in contents.items():
        assert same(HaarDiscriminator(weights=save(content, tmp_path / name)), trained), name
    assert same(HaarDiscriminator(weights=str(tmp_path / "plain.pth")), trained)


def test_the_whole_state_of_a_method(trained: HaarDiscriminator, tmp_path: Path) -> None:
    methods = build_methods([{"type": "PCL", "every": 1, "loss_weight": 0.1, "embedding": trained}])
    assert same(HaarDiscriminator(weights=save(methods.state_dict(), tmp_path / "methods.pth")), trained)


def test_safetensors(trained: HaarDiscriminator, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    assert same(HaarDiscriminator(weights=tmp_path / "model.safetensors"), trained)


def test_a_checkpoint_with_other_objects_beside_the_weights(trained: HaarDiscriminator, tmp_path: Path) -> None:
    """MMEngine's checkpoints hold their log history, which torch's own safe mode refuses."""
    content = {
        "message_hub": {"loss": History(), "config": ConfigMapping(a=1), "size": np.ones(1), "rate": np.float64(2)},
        "state_dict": under("methods.pcl.loss.embedding.", trained),
    }
    path = save(content, tmp_path / "iter_10.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert same(HaarDiscriminator(weights=path), trained)


class Dangerous:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(trained: HaarDiscriminator, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    harmless = save({"state_dict": trained.state_dict(), "other": Dangerous(trace)}, tmp_path / "mixed.pth")
    assert same(HaarDiscriminator(weights=harmless), trained)
    contents = {"alone": Dangerous(trace), "inside": {**trained.state_dict(), "more": Dangerous(trace)}}
    for name, content in contents.items():
        with pytest.raises(ConfigError, match=r"weights\): .*xpected a state dict of tensors"):
            HaarDiscriminator(weights=save(content, tmp_path / f"{name}.pth"))
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(ConfigError, match=r"could not be read as a file of tensors"):
            HaarDiscriminator(weights=tmp_path / f"{name}.pkl")
    assert not trace.exists()
    torch.load(tmp_path / "alone.pth", weights_only=False)
    assert trace.exists()  # it was no blunt weapon


def test_hosts_execute_nothing_either(
    trained: HaarDiscriminator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They call torch.load without a word on what they want, which the environment or an old torch may then decide."""
    trace = tmp_path / "executed"
    mixed = save({"params": trained.state_dict(), "other": Dangerous(trace)}, tmp_path / "mixed.pth")
    old = tmp_path / "old.pth"
    torch.save(trained.state_dict(), old, _use_new_zipfile_serialization=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    load = torch.load
    with never_code():
        for options in (
            {},
            {"weights_only": False, "pickle_module": pickle},
            {"map_location": lambda storage, _: storage},
        ):
            for file in (mixed, mixed.open("rb")):
                params = torch.load(file, **options)["params"]
                assert all(torch.equal(params[name], value) for name, value in trained.state_dict().items())
        (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Dangerous(trace), protocol=2))
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "raw.pkl")
        assert torch.load(old).keys() == trained.state_dict().keys()
        monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
        with pytest.raises(pickle.UnpicklingError, match=r"only torch 2\.6 and newer reads safely"):
            torch.load(old)
        assert "params" in torch.load(mixed)
    assert torch.load is load
    assert not trace.exists()
    torch.load(mixed)
    assert trace.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"this is not a file of tensors" * 10, b"PK\x03\x04 not a zip file"])
def test_garbage_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"weights\): .*{name} could not be read as a file of tensors"):
        HaarDiscriminator(weights=tmp_path / name)


def test_a_whole_network_is_refused(trained: HaarDiscriminator, tmp_path: Path) -> None:
    message = r"HaarDiscriminator\(weights\): .*net.pth holds a whole Python object, .*save net.state_dict\(\)"
    with pytest.raises(ConfigError, match=message):
        HaarDiscriminator(weights=save(trained, tmp_path / "net.pth"))


def test_a_cut_file_is_refused(trained: HaarDiscriminator, tmp_path: Path) -> None:
    whole = save(trained.state_dict(), tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="could not be read as a file of tensors"):
        HaarDiscriminator(weights=tmp_path / "cut.pth")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(
            ConfigError, match=r"HaarDiscriminator\(weights\): expected an existing file, got .*Check the path"
        ):
            HaarDiscriminator(weights=path)


def test_other_networks_are_refused(trained: HaarDiscriminator, tmp_path: Path) -> None:
    plain = save(trained.state_dict(), tmp_path / "haar.pth")
    with pytest.raises(ConfigError, match=r"blocks.0.conv.weight of shape \(64, 3, 3, 3\), got \(64, 9, 3, 3\)"):
        RGBDiscriminator(weights=plain)
    with pytest.raises(ConfigError, match=r"one HaarDiscriminator, got none \(e\.g\. blocks.0.conv.weight is missing"):
        HaarDiscriminator(weights=save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth"))
    more = {**trained.state_dict(), "blocks.8.conv.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"holds more than a HaarDiscriminator, e\.g\. blocks.8.conv.weight"):
        HaarDiscriminator(weights=save(more, tmp_path / "more.pth"))
    fewer = dict(list(trained.state_dict().items())[:-1])
    with pytest.raises(ConfigError, match=r"got none \(e\.g\. head.bias is missing"):
        HaarDiscriminator(weights=save(fewer, tmp_path / "fewer.pth"))
    more = {**under("net.", trained), "net.blocks.8.conv.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"holds more than a HaarDiscriminator, e\.g\. net\.blocks.8.conv.weight"):
        HaarDiscriminator(weights=save({"params": more}, tmp_path / "more.pth"))
    with pytest.raises(ConfigError, match=r"holds a list, expected a state dict"):
        HaarDiscriminator(weights=save([torch.zeros(1)], tmp_path / "list.pth"))


def test_two_embeddings_in_one_file_are_refused(trained: HaarDiscriminator, tmp_path: Path) -> None:
    both = {**under("methods.a.loss.embedding.", trained), **under("methods.b.loss.embedding.", trained)}
    with pytest.raises(ConfigError, match=r"got 2 sets of them, under .*methods\.a.*methods\.b"):
        HaarDiscriminator(weights=save({"state_dict": both}, tmp_path / "both.pth"))


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({"one": "", "two": ""}, r"2 sets of them, under one, two\. Save the one you mean alone"),
        ({"one": "a.", "two": "b."}, r"2 sets of them, under one: a\., two: b\."),
        ({"one_ema": "a.", "two": "b_ema.", "three": ""}, r"2 sets of them, under one_ema: a\., two: b_ema\."),
        ({"one": "key_encoder."}, r"a momentum encoder's alone, under one: key_encoder\."),
    ],
)
def test_several_places_are_named(
    content: dict[str, str], places: str, trained: HaarDiscriminator, tmp_path: Path
) -> None:
    file = save({section: under(prefix, trained) for section, prefix in content.items()}, tmp_path / "file.pth")
    with pytest.raises(ConfigError, match=rf"expected to hold the weights of one HaarDiscriminator, got {places}"):
        HaarDiscriminator(weights=file)


def test_the_one_state_dict_of_a_file(trained: HaarDiscriminator, tmp_path: Path) -> None:
    state = trained.state_dict()
    for content in (state, {"params": state}, {"params": HaarDiscriminator().state_dict(), "params_ema": state}):
        read = read_state_dict(save(content, tmp_path / "file.pth"))
        assert all(torch.equal(read[name], value) for name, value in state.items())
    file = save({"net": state, "other": state}, tmp_path / "two.pth")
    with pytest.raises(ConfigError, match=r"two\.pth holds several state dicts, net, other, expected one"):
        read_state_dict(file)


def test_a_failed_load_changes_nothing(trained: HaarDiscriminator, tmp_path: Path) -> None:
    embedding = HaarDiscriminator()
    before = HaarDiscriminator()
    before.load_state_dict(embedding.state_dict())
    wrong = {**trained.state_dict(), "head.bias": torch.zeros(2)}
    with pytest.raises(ConfigError, match=r"head\.bias of shape"):
        load_weights(embedding, save(wrong, tmp_path / "wrong.pth"))
    assert same(embedding, before)
