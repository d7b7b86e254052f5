"""TimmFeatures against timm's own networks, with random weights; and what it refuses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from driving import attached
from safetensors.torch import save_file
from same import assert_same
from small_models import CountingNet, images_batch
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import TimmFeatures
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import Methods, build_methods

# Of each way in which timm makes feature maps: names kept, names changed, a class of their own, channels last.
FAMILIES = {
    "resnet18": ((0, 1, 2), 8),
    "convnext_atto": ((0, 1), 8),
    "mobilenetv3_small_050": ((0, 1, 4), 32),
    "test_mambaout": ((0, 1), 8),
}

FIXED = "test_maxvit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timm")


def saved(model: str, folder: Path) -> Path:
    """A file of timm's with random weights, also where a new network has zeros and ones."""
    path = folder / f"{model}.pth"
    if not path.exists():
        torch.manual_seed(0)
        network = timm.create_model(model)
        state = network.state_dict()
        for name, value in state.items():
            if value.ndim == 1:
                around_zero = name.endswith(("bias", "mean"))
                value.copy_(0.1 * torch.randn_like(value) if around_zero else torch.rand_like(value) + 0.5)
        torch.save(state, path)
    return path


@pytest.mark.parametrize("model", FAMILIES)
def test_maps_are_those_of_the_whole_network(model: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    indices, least = FAMILIES[model]
    caplog.set_level(logging.INFO)
    embedding = TimmFeatures(model=model, out_indices=indices[::-1], weights=saved(model, folder))
    assert not caplog.records  # layers behind the last map are left out without a word
    assert embedding.out_indices == indices
    assert embedding.minimum_size == least
    assert embedding.multiple_of == 1
    assert not any(part.training for part in embedding.modules())

    network = timm.create_model(model).eval()
    network.load_state_dict(torch.load(saved(model, folder)))
    images = torch.rand(2, 3, 48, 33, requires_grad=True)
    mean, std = (torch.tensor(network.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_intermediates((images - mean) / std, indices=list(indices), intermediates_only=True)
    maps = embedding(images)
    assert embedding.channels() == [m.shape[1] for m in maps]
    for got, reference in zip(maps, expected, strict=True):
        assert reference.std() > 1e-3
        assert_close(got, reference, "loose", scale=1)
    sum(m.square().mean() for m in maps).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in embedding.parameters())


def test_its_own_mean_and_deviation(folder: Path) -> None:
    seen: list[Tensor] = []
    images = torch.rand(1, 3, 16, 16)
    for model, shift, spread in (("test_byobnet", 0.485, 0.229), ("test_resnet", 0.5, 0.5)):
        embedding = TimmFeatures(model=model, out_indices=[0], weights=saved(model, folder))
        embedding.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        embedding(images)
        assert_close(seen[-1][:, 0], (images[:, 0] - shift) / spread)


def test_sizes(folder: Path) -> None:
    """A network whose branches meet again takes multiples alone; the others any size that leaves something."""
    embedding = TimmFeatures(model="dla46_c", out_indices=[5], weights=saved("dla46_c", folder))
    assert (embedding.minimum_size, embedding.multiple_of) == (32, 32)
    embedding(torch.rand(1, 3, 32, 64))
    with pytest.raises(DataError, match="TimmFeatures: expected an HR height and width that are multiples of 32, got"):
        embedding(torch.rand(1, 3, 48, 64))
    embedding = TimmFeatures(model="test_resnet", weights=saved("test_resnet", folder))
    with pytest.raises(DataError, match="TimmFeatures: expected HR patches of at least 8 x 8 pixels, got 8 x 7"):
        embedding(torch.rand(1, 3, 8, 7))


def test_weights_in_other_files(folder: Path, tmp_path: Path) -> None:
    state = torch.load(saved("test_resnet", folder))
    like = TimmFeatures(model="test_resnet", weights=saved("test_resnet", folder))
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"backbone.{n}": v for n, v in backbone.items()}}, tmp_path / "run.pth")
    classes = {**backbone, "fc.weight": torch.zeros(10, 96), "fc.bias": torch.zeros(10)}
    torch.save(classes, tmp_path / "ten.pth")
    for file in ("model.safetensors", "run.pth", "ten.pth"):
        embedding = TimmFeatures(model="test_resnet.r160_in1k", weights=tmp_path / file)
        assert_same(dict(embedding.named_parameters()), dict(like.named_parameters()))


class Around(nn.Module):
    """A training's module that holds the embedding."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(1))
        self.embedding = TimmFeatures(model="test_resnet", weights=weights)


def test_what_is_fixed_is_not_part_of_the_state_and_does_not_move(folder: Path) -> None:
    module = Around(saved("test_resnet", folder)).train()
    assert list(module.state_dict()) == ["count"]
    every = {**dict(module.embedding.named_parameters()), **dict(module.embedding.named_buffers())}
    kept = {name: value.detach().clone() for name, value in every.items()}
    module.embedding(torch.rand(2, 3, 16, 16))
    module.load_state_dict({"count": torch.ones(1)})
    module.load_state_dict({"count": torch.ones(1), "embedding.network.conv1.0.weight": torch.zeros(1)})
    assert_same({name: value.detach() for name, value in every.items()}, kept)
    module.embedding.network.conv1[0].weight.requires_grad_(True)  # somebody trains it after all
    assert list(module.state_dict()) == ["count", "embedding.network.conv1.0.weight"]


def test_as_embedding_of_pcl_that_resumes(folder: Path) -> None:
    def started() -> tuple[Methods, CountingNet, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = CountingNet()
        embedding = {"type": "TimmFeatures", "model": "test_resnet", "weights": str(file)}
        (method,) = build_methods([{"type": "PCL", "every": 1, "loss_share": 0.05, "embedding": embedding}])
        return attached(network, method), network, torch.optim.Adam(network.parameters(), 1e-3)

    def step(methods: Methods, network: CountingNet, optimizer: torch.optim.Optimizer) -> float:
        batch = methods.run(network, images_batch())
        assert methods.auxiliary_losses(batch) == {}
        pixel = nn.functional.l1_loss(batch["sr"], batch["hr"])
        loss = pixel + methods.sr_losses(batch, pixel).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    file = saved("test_resnet", folder)
    methods, network, optimizer = started()
    for _ in range(2):
        step(methods, network, optimizer)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert not methods.trainable
    states = [part.state_dict() for part in (methods, network, optimizer)]
    assert not [name for name in states[0] if "network" in name]
    torch.save(states, folder / "state.pth")
    expected = [step(methods, network, optimizer) for _ in range(2)]
    resumed = started()
    for part, state in zip(resumed, torch.load(folder / "state.pth"), strict=True):
        part.load_state_dict(state)
    assert [step(*resumed) for _ in range(2)] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "resnet81"},
            r"\(model\): does not know the model 'resnet81'\. Did you mean 'resnet18'\? Accepted: t",
        ),
        ({"model": "hf-hub:timm/resnet18"}, r"does not know the model 'hf-hub:timm/resnet18'"),  # would download
        ({"model": None}, "does not know the model None"),
        ({"model": "resnet18.mine"}, r"timm cannot make resnet18\.mine \(RuntimeError: Invalid pretrained tag"),
        ({"model": "resnet34"}, r"resnet18\.pth was expected to hold the weights of one ResNet, .*timm's, of resnet34"),
        ({"model": "resnet10t"}, r"\(weights\): .*It should be timm's, of resnet10t"),
        ({"out_indices": [5]}, r"TimmFeatures\(out_indices\): expected a list .* from 0 to 4, .*got \[5\]"),
        ({"out_indices": []}, r"TimmFeatures\(out_indices\): expected a list"),
        ({"weights": "nowhere.pth"}, r"TimmFeatures\(weights\): expected an existing file, got nowhere\.pth"),
        ({"weights": None}, r"TimmFeatures\(weights\): expected timm or a file, got None"),
        ({"model": FIXED, "weights": FIXED}, r"test_maxvit takes images of one size alone, 160x160, expected"),
        ({"model": "tresnet_m", "weights": "tresnet_m"}, r"timm makes no feature maps of tresnet_m \(AssertionError"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str, folder: Path) -> None:
    arguments = {"model": "resnet18", "weights": saved("resnet18", folder), **arguments}
    if arguments["weights"] == arguments["model"]:
        arguments["weights"] = saved(arguments["model"], folder)
    with pytest.raises(ConfigError, match=message):
        TimmFeatures(**arguments)


def test_a_larger_network_is_no_smaller_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds more than a ResNet, e.g. layer\d.*It should be timm's, of resnet18"):
        TimmFeatures(model="resnet18", weights=saved("resnet34", folder))


def test_the_key_weights_is_needed() -> None:
    """Nothing is downloaded unless it says so."""
    config = {"type": "PCL", "every": 1, "embedding": {"type": "TimmFeatures", "model": "resnet18"}}
    with pytest.raises(
        ConfigError, match="embedding: TimmFeatures needs the key 'weights'; its keys are model, weights"
    ):
        build_methods([config])


def test_without_a_network_or_weights_or_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"'timm'\): the weights of resnet18 could not be downloaded \(.*give its path"
    ):
        TimmFeatures(model="resnet18", weights="timm")
    untrained = next(name for name in timm.list_models("resnet*") if not timm.models.is_model_pretrained(name))
    with pytest.raises(ConfigError, match=rf"timm has no weights of {untrained}\. Choose a model out of timm\.list_m"):
        TimmFeatures(model=untrained, weights="timm")
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"TimmFeatures needs timm, which cannot be imported .*contrastive-sr\[timm\]"
    ):
        TimmFeatures(model="resnet18", weights="timm")
