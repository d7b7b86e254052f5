"""SNResNet18 against its blocks written out, and the state of its spectral normalisation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import released
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.embeddings import EMBEDDINGS, SNResNet18, frozen
from contrastive_sr.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def shared() -> SNResNet18:
    """One for all tests that change nothing."""
    torch.manual_seed(0)
    return SNResNet18().eval()


def images(size: int = 24, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def normalized(part: nn.Module) -> Tensor:
    """A weight over u' W v, with the vectors that are saved."""
    state = part.parametrizations.weight
    matrix = state.original.flatten(1)
    return state.original / (state[0]._u @ matrix @ state[0]._v)


def plain_maps(embedding: SNResNet18, x: Tensor) -> list[Tensor]:
    def convolve(part: nn.Module, x: Tensor, stride: int = 1, pad: int = 1) -> Tensor:
        return F.conv2d(x, normalized(part), part.bias, stride, pad)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    x = leaky(convolve(embedding.first[0], 2 * x - 1))
    maps = []
    for stage, first_stride in zip(embedding.stages, (1, 2, 2, 2), strict=True):
        for block, stride in zip(stage, (first_stride, 1), strict=True):
            out = convolve(block.conv2, leaky(convolve(block.conv1, x, stride)))
            skip = x if isinstance(block.skip, nn.Identity) else convolve(block.skip, x, stride, 0)
            x = leaky(out + skip)
        maps.append(x)
    return maps


def test_maps_and_logits_are_those_of_the_blocks_written_out(shared: SNResNet18) -> None:
    embedding = copy.deepcopy(shared).double()
    x = images(dtype=torch.float64)
    want = plain_maps(embedding, x)
    for got, map_ in zip(embedding(x), want, strict=True):
        torch.testing.assert_close(got, map_)
    vectors = want[-1].mean((2, 3))
    torch.testing.assert_close(embedding.vectors(x), vectors)
    first, _, second = embedding.head
    hidden = F.leaky_relu(vectors @ normalized(first).T + first.bias, 0.1)
    torch.testing.assert_close(embedding.logits(x), hidden @ normalized(second).T + second.bias)


def test_size_and_layers_are_contrad_s(shared: SNResNet18) -> None:
    assert sum(p.numel() for p in shared.parameters()) == pytest.approx(11.7e6, rel=0.005)
    layers = [m for m in shared.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 1 + 16 + 3 + 2
    assert all(hasattr(layer, "parametrizations") for layer in layers)
    assert not [m for m in shared.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert shared.channels() == [64, 128, 256, 512]
    assert EMBEDDINGS["SNResNet18"] is SNResNet18


@pytest.mark.parametrize("size", [16, 17, 25, 60])
def test_any_size_from_16(shared: SNResNet18, size: int) -> None:
    sides = [size]
    for _ in range(3):
        sides.append((sides[-1] + 1) // 2)
    maps = shared(images(size))
    assert [m.shape for m in maps] == [(2, c, s, s) for c, s in zip((64, 128, 256, 512), sides, strict=True)]
    assert shared.logits(images(size)).shape == (2, 1)


def test_maps_of_chosen_stages(shared: SNResNet18) -> None:
    for indices, last in (((0, 1), 1), ((2, 0), 2)):
        fewer = SNResNet18(out_indices=indices)
        fewer.load_state_dict(shared.state_dict())
        fewer.eval()
        run: list[int] = []
        for index, stage in enumerate(fewer.stages):
            stage.register_forward_hook(lambda *_, index=index, run=run: run.append(index))
        every = shared(images())
        for got, index in zip(fewer(images()), sorted(indices), strict=True):
            assert torch.equal(got, every[index])
        assert run == list(range(last + 1))


def moved(embedding: SNResNet18, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in embedding.state_dict().items() if not torch.equal(value, before[name])}


def test_the_estimate_moves_by_one_step_in_training_mode_alone(shared: SNResNet18) -> None:
    embedding = copy.deepcopy(shared)
    before = copy.deepcopy(embedding.state_dict())
    embedding(images())
    with frozen(embedding):
        embedding(images())
    assert not moved(embedding, before)
    embedding.train()
    with frozen(embedding):
        embedding(images())
    assert not moved(embedding, before)
    state = embedding.first[0].parametrizations.weight
    matrix = state.original.flatten(1).detach()
    embedding.logits(images())
    assert {name.split(".")[-1] for name in moved(embedding, before)} == {"_u", "_v"}
    u = F.normalize(matrix @ before["first.0.parametrizations.weight.0._v"], dim=0)
    torch.testing.assert_close(state[0]._u, u)  # one step, and no second one
    torch.testing.assert_close(state[0]._v, F.normalize(matrix.T @ u, dim=0))


def test_weights_are_divided_by_their_largest_singular_value() -> None:
    torch.manual_seed(0)
    embedding = SNResNet18()
    for _ in range(60):
        embedding.first[0].weight  # noqa: B018 - in training mode each look is a step
    largest = torch.linalg.svdvals(embedding.first[0].parametrizations.weight.original.flatten(1))[0]
    weight = embedding.eval().first[0].weight
    torch.testing.assert_close(
        weight * largest, embedding.first[0].parametrizations.weight.original, rtol=1e-3, atol=1e-4
    )


def test_frozen_normalises_once(shared: SNResNet18, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kind = type(shared.first[0].parametrizations.weight[0])
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, weight: calls.append(self) or forward(self, weight))
    with frozen(shared):
        first, second = shared(images()), shared(images())
    assert len(calls) == len(set(calls)) == 22
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    shared(images())
    assert len(calls) == 44  # outside, weights may have changed


def test_under_autocast_the_weights_are_normalised_in_float32(shared: SNResNet18) -> None:
    embedding = copy.deepcopy(shared).train()
    other = copy.deepcopy(embedding)
    with torch.autocast("cpu", torch.bfloat16):
        logits = embedding.logits(images())
    other.logits(images())
    for (name, value), want in zip(embedding.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, want), name
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in embedding.parameters())


def test_all_of_it_learns_from_logits_and_resumes_bit_for_bit(shared: SNResNet18) -> None:
    def step(embedding: SNResNet18, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        embedding.train().logits(images()).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in embedding.parameters())
        optimizer.step()

    first = copy.deepcopy(shared)
    optimizer = torch.optim.SGD(first.parameters(), 0.01)
    step(first, optimizer)
    second = SNResNet18()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for embedding in (first, second):
        step(embedding, torch.optim.SGD(embedding.parameters(), 0.01))
    assert not moved(second, first.state_dict())


def test_weights_from_a_file(shared: SNResNet18, tmp_path: Path) -> None:
    torch.save({"params": shared.state_dict()}, tmp_path / "mpf_embedding_latest.pth")
    loaded = SNResNet18(weights=tmp_path / "mpf_embedding_latest.pth")
    assert not moved(loaded, shared.state_dict())
    former = {name.replace("first.0.", "first."): value for name, value in shared.state_dict().items()}
    torch.save(former, tmp_path / "without_the_first_activation.pth")
    with pytest.raises(ConfigError, match=r"SNResNet18\(weights\)"):
        SNResNet18(weights=tmp_path / "without_the_first_activation.pth")
    with pytest.raises(ConfigError, match=r"SNResNet18\(weights\): expected an existing file"):
        SNResNet18(weights=tmp_path / "nothing.pth")


def test_what_it_refuses(shared: SNResNet18) -> None:
    for indices in ([4], [], [1, 1], 4):
        message = r"SNResNet18\(out_indices\): expected a list of different whole numbers from 0 to 3, .*, got "
        with pytest.raises(ConfigError, match=message):
            SNResNet18(out_indices=indices)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="HR patches of at least 16 x 16 pixels, got 15 x 15"):
        shared(images(15))
    with pytest.raises(DataError, match=r"SNResNet18\(images\)"):
        shared.logits(torch.rand(1, 1, 24, 24))


def test_contrad_s_own_weights(tmp_path: Path) -> None:
    """With PyTorch's first spectral_norm, and estimates that have moved."""
    torch.manual_seed(0)
    theirs = released.ReleasedContraD()
    theirs(torch.rand(2, 3, 32, 32))
    torch.save(theirs.eval().state_dict(), tmp_path / "dis.pt")
    ours, x = SNResNet18(weights=tmp_path / "dis.pt").eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for got, want in zip(ours(x), theirs.maps(x), strict=True):
            torch.testing.assert_close(got, want)
        torch.testing.assert_close(ours.logits(x), theirs(x))
    torch.save(released.ReleasedContraD(hidden=256).state_dict(), tmp_path / "narrow.pt")
    with pytest.raises(ConfigError, match=r"expected head\.0\.bias of shape \(1024,\), got \(256,\)"):
        SNResNet18(weights=tmp_path / "narrow.pt")
    torch.save({**theirs.state_dict(), "layer5.0.conv1.bias": torch.zeros(1)}, tmp_path / "deep.pt")
    with pytest.raises(ConfigError, match=r"expected the layers of ContraD's SNResNet18, got layer5\.0\.conv1\.bias"):
        SNResNet18(weights=tmp_path / "deep.pt")


def test_the_former_head_does_not_carry_over(tmp_path: Path) -> None:
    """It had a hidden layer of 256."""
    state = SNResNet18().state_dict()
    former = {name: value[..., :256] if name.startswith("head.2") else value[:256] for name, value in state.items()}
    heads = {name: value for name, value in former.items() if name.startswith("head")}
    torch.save({**state, **heads}, tmp_path / "former.pth")
    with pytest.raises(ConfigError, match=r"head\.0\.bias of shape \(1024,\), got \(256,\).* by an earlier version"):
        SNResNet18(weights=tmp_path / "former.pth")
