"""DegradationQueueLoss: one step in DASR's order, and state that survives everything."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from loss_oracles import queue_loops
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import DegradationQueueLoss

DIM = 3


def make_encoder(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle: nn.Module = nn.BatchNorm2d(4) if norm else nn.Tanh()
    return nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, DIM)).double()


def make_loss(encoder: nn.Module, **settings: Any) -> DegradationQueueLoss:
    settings = {"dim": DIM, "queue_size": 5, "momentum": 0.9, "temperature": 0.3, **settings}
    return DegradationQueueLoss(encoder, **settings).double()


def crops(step: int, count: int = 2) -> Tensor:
    """Two crops of each image."""
    return torch.rand(2, count, 3, 6, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def train(loss: DegradationQueueLoss, encoder: nn.Module, steps: range, count: int = 2) -> list[float]:
    losses = []
    for step in steps:
        queries, keys = crops(step, count)
        value = loss(encoder(queries), keys, encoder)
        gradients = torch.autograd.grad(value, list(encoder.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(encoder.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient + 0.01  # moves also in the first step, whose gradient is 0
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_equals_the_steps_in_dasr_s_order(count: int) -> None:
    """Query, momentum update, keys, loss, and then the keys enter; a plain list is the queue."""
    encoder = make_encoder()
    loss = make_loss(encoder)
    shadow = copy.deepcopy(encoder)
    held: list[Tensor] = []
    for step in range(6):
        queries, key_images = crops(step, count)
        with torch.no_grad():
            for own, new in zip(shadow.parameters(), encoder.parameters(), strict=True):
                own.copy_(0.9 * own + 0.1 * new)
            keys = shadow(key_images)
            query = encoder(queries)
        expected = queue_loops(query, keys, torch.stack(held), 0.3).mean().item() if held else 0.0
        held = [*held, *keys][-5:]
        assert_close(train(loss, encoder, range(step, step + 1), count), [expected], scale=0.5)
        assert loss.fill == len(held)
        assert loss.pointer == (step + 1) * count % 5
        newest_first = [(int(loss.pointer) - 1 - index) % 5 for index in range(len(held))]
        unit = torch.stack([key / key.norm() for key in reversed(held)])
        torch.testing.assert_close(loss.queue[newest_first], unit)


def test_starts_at_zero_and_masks_what_is_not_filled() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder, queue_size=1000)
    first, second = train(loss, encoder, range(2))
    assert first == 0
    assert 0 < second < 3  # against two keys; 998 zero vectors would make it at least 3.5
    assert loss.fill == 4


def test_gradient_reaches_the_encoder_and_nothing_else() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder)
    train(loss, encoder, range(2))
    queries, keys = crops(9)
    queries.requires_grad_()
    keys.requires_grad_()
    loss(encoder(queries), keys, encoder).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert queries.grad is not None
    assert keys.grad is None
    assert not any(p.requires_grad for p in loss.parameters())
    assert not loss.queue.requires_grad


def test_several_losses_before_one_backward_pass() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder, queue_size=3)
    values = []
    for step in range(4):  # the queue is full and overwritten meanwhile
        queries, keys = crops(step)
        values.append(loss(encoder(queries), keys, encoder))
    torch.stack(values).sum().backward()
    assert encoder[0].weight.grad.abs().sum() > 0


def test_compiled_it_is_not_compiled_anew_as_the_queue_moves_on() -> None:
    torch.compiler.reset()
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    encoder = make_encoder()
    plain, compiled = make_loss(encoder), make_loss(encoder)
    after = []

    def step(loss: DegradationQueueLoss, query_images: Tensor, key_images: Tensor) -> Tensor:
        return loss(encoder(query_images), key_images, encoder) + 1

    compiled_step = torch.compile(step, backend=count)
    for number in range(5):
        queries, keys = crops(number)
        assert torch.equal(compiled_step(compiled, queries, keys), step(plain, queries, keys))
        after.append(len(graphs))
    assert 0 < after[0] == after[-1]


def test_copies_the_encoder() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder, momentum=1.0)
    before = [p.clone() for p in loss.key_encoder.parameters()]
    train(loss, encoder, range(3))
    assert all(torch.equal(a, b) for a, b in zip(before, loss.key_encoder.parameters(), strict=True))
    assert all(p.requires_grad for p in encoder.parameters())
    assert not torch.equal(before[0], encoder[0].weight)
    without_momentum = make_loss(encoder, momentum=0)
    train(without_momentum, encoder, range(3))
    queries, keys = crops(3)
    without_momentum(encoder(queries), keys, encoder)
    for own, new in zip(without_momentum.key_encoder.parameters(), encoder.parameters(), strict=True):
        assert_close(own, new.detach(), "exact", times=0.1)


def test_nothing_moves_in_eval_mode() -> None:
    encoder = make_encoder(norm=True)
    loss = make_loss(encoder)
    train(loss, encoder, range(2))
    state = copy.deepcopy(loss.state_dict())
    loss.eval()
    encoder.eval()
    first, second = (loss(encoder(crops(7)[0]), crops(7)[1], encoder) for _ in range(2))
    assert first == second > 0
    for name, value in loss.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_batchnorm_of_the_key_encoder_sees_the_batch_of_keys() -> None:
    encoder = make_encoder(norm=True)
    loss = make_loss(encoder)
    queries, keys = crops(0)
    loss(encoder(queries), keys, encoder)
    norm = loss.key_encoder[1]
    seen = loss.key_encoder[0](keys)
    torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean((0, 2, 3)))
    assert not torch.allclose(norm.running_mean, encoder[1].running_mean)
    with torch.no_grad():  # the key in the queue is normalised by the batch, not by the running statistics
        expected = nn.functional.normalize(loss.key_encoder(keys))
    torch.testing.assert_close(loss.queue[:2], expected)


@pytest.mark.parametrize("norm", [False, True])
def test_resuming_is_exact_to_the_bit(norm: bool) -> None:
    encoder = make_encoder(norm)
    loss = make_loss(encoder)
    train(loss, encoder, range(4))
    file = io.BytesIO()
    torch.save({"loss": loss.state_dict(), "encoder": encoder.state_dict()}, file)
    expected = train(loss, encoder, range(4, 8))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh_encoder = make_encoder(norm)
    fresh = make_loss(fresh_encoder)
    train(fresh, fresh_encoder, range(20, 21))  # its own pointer and fill must be forgotten
    fresh.load_state_dict(saved["loss"])
    fresh_encoder.load_state_dict(saved["encoder"])
    assert train(fresh, fresh_encoder, range(4, 8)) == expected
    for name, value in loss.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    assert {"queue", "pointer", "fill"} < set(saved["loss"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moves_take_the_queue_along(dtype: torch.dtype) -> None:
    encoder = make_encoder()
    loss = make_loss(encoder)
    train(loss, encoder, range(4))
    queries, keys = crops(5)
    expected = copy.deepcopy(loss)(encoder(queries), keys, encoder)
    encoder.to(dtype)
    loss.to(dtype)
    value = loss(encoder(queries.to(dtype)), keys.to(dtype), encoder)
    assert loss.queue.dtype == dtype
    assert (loss.pointer.dtype, loss.fill.dtype) == (torch.long, torch.long)
    assert (loss.pointer, loss.fill) == (0, 5)
    assert_close(value, expected, "loose" if dtype == torch.bfloat16 else "close", dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_momentum_encoder_follows_one_in_half_precision(dtype: torch.dtype) -> None:
    encoder = make_encoder().to(dtype)
    loss = DegradationQueueLoss(encoder, dim=DIM, queue_size=5, momentum=0.999)
    start = [p.clone() for p in loss.key_encoder.parameters()]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3)
    queries, keys = crops(0).to(dtype)
    for _ in range(100):
        loss(encoder(queries), keys, encoder)
    for before, after, target in zip(start, loss.key_encoder.parameters(), encoder.parameters(), strict=True):
        assert_close(after, torch.lerp(before, target.float(), 1 - 0.999**100), "close", dtype=torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_survives_a_move_to_a_gpu() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder)
    train(loss, encoder, range(4))
    queries, keys = crops(5)
    expected = copy.deepcopy(loss)(encoder(queries), keys, encoder)
    encoder.cuda()
    loss.cuda()
    value = loss(encoder(queries.cuda()), keys.cuda(), encoder)
    torch.testing.assert_close(value.cpu(), expected)
    assert {x.device.type for x in loss.state_dict().values()} == {"cuda"}


def test_is_float32_under_autocast() -> None:
    encoder = make_encoder().float()
    loss = make_loss(encoder).float()
    with torch.autocast("cpu", torch.bfloat16):
        for step in range(3):
            queries, keys = crops(step).float()
            query = encoder(queries)
            value = loss(query, keys, encoder)
    assert query.dtype == torch.bfloat16  # autocast is at work
    assert value.dtype == loss.queue.dtype == torch.float32
    torch.testing.assert_close(loss.queue.norm(dim=1), torch.ones(5))
    value.backward()
    assert torch.isfinite(encoder[0].weight.grad).all()


def test_zero_vectors_are_finite() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(108, DIM)).double()
    nn.init.zeros_(encoder[1].weight)
    nn.init.zeros_(encoder[1].bias)
    loss = make_loss(encoder)
    for step in range(2):
        queries, keys = crops(step)
        value = loss(encoder(queries), keys, encoder)
    value.backward()
    assert value.item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    assert torch.isfinite(encoder[1].weight.grad).all()


def test_batches_that_cannot_be_contrasted_are_refused() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder)
    queries, keys = crops(0)
    with pytest.raises(DataError, match=r"query\): expected .*\(B, 3\), got .*\(2, 4\)"):
        loss(torch.rand(2, 4), keys, encoder)
    with pytest.raises(
        DataError, match=r"key_images\): expected one floating-point image for each of 2 queries, got .*\(1, 3, 6, 6\)"
    ):
        loss(encoder(queries), keys[:1], encoder)
    with pytest.raises(DataError, match="expected at least one image, got none on any rank"):
        make_loss(encoder, gather=True)(torch.rand(0, 3), keys[:0], encoder)
    with pytest.raises(DataError, match=r"query\): expected a non-empty tensor"):
        loss(torch.rand(0, 3), keys[:0], encoder)
    with pytest.raises(
        DataError, match=r"what the encoder made of the key images: expected .*\(2, 3\), got .*\(2, 108\)"
    ):
        make_loss(nn.Flatten())(torch.rand(2, 3), keys, nn.Flatten())
    with pytest.raises(ConfigError, match=r"encoder\): expected the encoder that this loss was made with.*Got 2 param"):
        loss(encoder(queries), keys, nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, r"\(dim\): expected a whole number of at least 1, got 0"),
        ({"queue_size": 2.5}, r"\(queue_size\): expected a whole number of at least 1, got 2.5"),
        ({"momentum": 1.1}, r"\(momentum\): expected a number from 0 to 1, got 1.1"),
        ({"momentum": -0.1}, r"\(momentum\): expected a number of at least 0, got -0.1"),
        ({"temperature": 0}, r"\(temperature\): expected a number above 0, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_loss(make_encoder(), **settings)


def test_default_settings_are_the_paper_s() -> None:
    loss = DegradationQueueLoss(nn.Flatten())
    assert (loss.queue.shape, loss.momentum, loss.temperature) == ((8192, 256), 0.999, 0.07)


def test_a_key_that_is_not_finite_spoils_its_own_step_alone() -> None:
    encoder = make_encoder()
    loss = make_loss(encoder)
    train(loss, encoder, range(2))
    queries, keys = crops(2)
    keys[0, 0, 0, 0] = torch.nan
    assert not torch.isfinite(loss(encoder(queries), keys, encoder))
    assert torch.isfinite(loss.queue).all()
    queries, keys = crops(3)
    assert torch.isfinite(loss(encoder(queries), keys, encoder))


def test_what_is_no_encoder_or_no_floating_image_is_refused_before_anything_moves() -> None:
    with pytest.raises(ConfigError, match=r"DegradationQueueLoss\(encoder\): expected an nn.Module, got"):
        DegradationQueueLoss(lambda images: images.mean((2, 3)))  # type: ignore[arg-type]
    encoder = make_encoder()
    loss = make_loss(encoder)
    queries, keys = crops(0)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with pytest.raises(ConfigError, match=r"\(encoder\): expected the nn.Module, got None"):
        loss(encoder(queries), keys, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"\(key_images\): expected one floating-point image .* int64"):
        loss(encoder(queries), keys.long(), encoder)
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_reductions_are_over_the_batch() -> None:
    encoder = make_encoder()
    values = {}
    for reduction in ("none", "mean", "sum"):
        loss = make_loss(encoder, reduction=reduction)
        train_once = [loss(encoder(crops(step)[0]), crops(step)[1], encoder) for step in range(2)]
        values[reduction] = train_once[1]
    assert values["none"].shape == (2,)
    torch.testing.assert_close(values["mean"], values["none"].mean())
    torch.testing.assert_close(values["sum"], values["none"].sum())


def fuzz(source: Any) -> Tensor:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    loss = DegradationQueueLoss(encoder, dim=4, queue_size=5)
    for _ in range(2):
        batch = source.number(1, 3)
        key_images = source.fixed(batch, 3, 2, 2)
        value = loss(source(batch, 4), key_images, encoder)
    assert loss.queue.isfinite().all()
    return value


FUZZ = {"DegradationQueueLoss": fuzz}  # what tests/test_fuzz_losses.py calls
