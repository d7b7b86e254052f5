"""Two processes that train together, over gloo, against one process on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch
from oracles import dual_loops

from contrastive_sr.distributed import gather_with_gradient, rank, sum_over_ranks, world_size
from contrastive_sr.losses import DualContrastiveLoss

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.work, args=(str(folder),), nprocs=ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(ranks.WORLD)]


def both(results: Results, key: str) -> list[Any]:
    return [result[key] for result in results]


def test_alone_everything_is_the_identity() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    assert world_size() == 1
    assert rank() == 0
    assert gather_with_gradient(x) is x
    assert torch.equal(sum_over_ranks(x.detach()), x)


def test_ranks_are_known(results: Results) -> None:
    assert both(results, "world_size") == [2, 2]
    assert both(results, "rank") == [0, 1]


def test_sum_over_ranks(results: Results) -> None:
    for index in range(2):
        torch.testing.assert_close(results[index]["sum"], ranks.logits(0)[0] + ranks.logits(1)[0])
        assert torch.equal(results[index]["summed"], ranks.logits(index)[0])  # left as it was


def test_gather_with_gradient(results: Results) -> None:
    joined = torch.cat([ranks.logits(index)[0] for index in range(2)]).requires_grad_()
    losses = [(joined * ranks.gather_weights(index)).sum() for index in range(2)]
    (expected,) = torch.autograd.grad(sum(losses), joined)
    for index in range(2):
        assert torch.equal(results[index]["gathered"], joined.detach())
        torch.testing.assert_close(results[index]["gather_gradient"], expected.chunk(2)[index])


def test_dual_loss_of_two_ranks_is_that_of_the_joined_batch(results: Results) -> None:
    real, fake = (torch.cat([ranks.logits(index)[side] for index in range(2)]) for side in range(2))
    mean = sum(both(results, "dual_loss")) / 2
    assert mean == pytest.approx(dual_loops(real, fake), rel=1e-12)
    alone = sum(dual_loops(*ranks.logits(index)) for index in range(2)) / 2
    assert abs(mean - alone) > 0.1  # without the other rank's logits it is another number


def test_averaged_gradients_are_those_of_the_joined_batch(results: Results) -> None:
    discriminator = ranks.discriminator()
    images = [torch.cat([ranks.images(index)[side] for index in range(2)]) for side in range(2)]
    DualContrastiveLoss()(discriminator(images[0]), discriminator(images[1])).backward()
    for index in range(2):
        for got, parameter in zip(results[index]["ddp_gradients"], discriminator.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(got, parameter.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["share", "fixed"])
def test_weight_and_ratio_are_those_of_the_joined_batch(results: Results, kind: str) -> None:
    joined = ranks.train(kind, [0, 1])
    assert results[0][kind]["ratios"] == results[1][kind]["ratios"]
    assert results[0][kind]["weights"] == results[1][kind]["weights"]
    assert results[0][kind]["ratios"] == pytest.approx(joined["ratios"], rel=1e-5)
    assert results[0][kind]["weights"] == pytest.approx(joined["weights"], rel=1e-5)
    own = ranks.train(kind, [0])["ratios"], ranks.train(kind, [1])["ratios"]
    assert abs(own[0][0] / own[1][0] - 1) > 1e-3  # each rank alone would have found another ratio
    assert len(set(joined["ratios"])) > 1


@pytest.mark.parametrize("kind", ["share", "fixed"])
def test_log_keys_are_equal_on_all_ranks_at_all_steps(results: Results, kind: str) -> None:
    keys = [step for result in results for step in result[kind]["keys"]]
    assert len(keys) == 2 * ranks.STEPS
    assert all(step == keys[0] for step in keys)


def test_samples_differ_by_rank_and_step(results: Results) -> None:
    draws = [draw for result in results for draw in result["samples"]]
    for i, first in enumerate(draws):
        for second in draws[:i]:
            assert not torch.equal(first, second)


def test_wrapped_methods_end_with_equal_gradients(results: Results) -> None:
    """The auxiliary step through DistributedDataParallel, on different images."""
    first, second = both(results, "method_gradients")
    assert len(first) > 0
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)
        assert a.abs().sum() > 0


def test_all_state_is_equal_after_a_step(results: Results) -> None:
    """Also BatchNorm's statistics, which each rank gathers from images of its own."""
    first, second = both(results, "state")
    assert first["pcl.loss.embedding.blocks.0.norm.running_mean"].abs().sum() > 0
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_only_the_first_rank_warns(results: Results) -> None:
    assert both(results, "warnings") == [1, 0]
