"""Two processes that train together, over gloo, against one process on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch
from forked import run_ranks
from oracles import dual_loops
from tolerances import assert_close

from contrastive_sr.distributed import (
    average_gradients,
    gather_rows,
    rank,
    reduce_over_ranks,
    sum_over_ranks,
    world_size,
)
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import DualContrastiveLoss

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(ranks.work, folder, ranks.WORLD)
    return [torch.load(folder / f"{index}.pt") for index in range(ranks.WORLD)]


def both(results: Results, key: str) -> list[Any]:
    return [result[key] for result in results]


def test_alone_everything_is_the_identity() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    assert world_size() == 1
    assert rank() == 0
    joined, own = gather_rows(x)
    assert joined is x
    assert own == 0
    assert torch.equal(sum_over_ranks(x.detach()), x)


def test_ranks_are_known(results: Results) -> None:
    assert both(results, "world_size") == [2, 2]
    assert both(results, "rank") == [0, 1]


def test_settings_that_differ_are_refused_on_every_rank(results: Results) -> None:
    first, second = both(results, "differing")
    assert first == second
    assert first.startswith("methods, val: expected the same settings on all ranks, got others on some.")


def test_copies_are_the_first_rank_s(results: Results) -> None:
    first, second = both(results, "copied")
    assert not torch.equal(*both(results, "drawn"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["weight"], results[0]["drawn"])


def test_sum_over_ranks(results: Results) -> None:
    for index in range(2):
        torch.testing.assert_close(results[index]["sum"], ranks.logits(0)[0] + ranks.logits(1)[0])
        assert torch.equal(results[index]["summed"], ranks.logits(index)[0])  # left as it was


def test_gather_rows(results: Results) -> None:
    joined = torch.cat([ranks.logits(index)[0] for index in range(2)]).requires_grad_()
    losses = [(joined * ranks.gather_weights(index)).sum() for index in range(2)]
    (expected,) = torch.autograd.grad(sum(losses), joined)
    for index in range(2):
        assert results[index]["own"] == 3 * index
        assert torch.equal(results[index]["gathered"], joined.detach())
        torch.testing.assert_close(results[index]["gather_gradient"], expected.chunk(2)[index])


@pytest.mark.parametrize("index", range(2))
@pytest.mark.parametrize("case", range(len(ranks.SIZES)))
def test_gather_rows_of_any_number(results: Results, case: int, index: int) -> None:
    sizes, got = ranks.SIZES[case], results[index]["rows"][case]
    joined = ranks.uneven_rows(sizes)
    assert torch.equal(got["joined"], joined)
    assert torch.equal(got["keys"], joined)
    assert not got["keys"].requires_grad
    assert got["first"] == sum(sizes[:index])
    if index == 0:  # 1 from its own loss and 2 from that of the other rank
        torch.testing.assert_close(got["gradient"], torch.full((sizes[0], 3), 3.0), rtol=0, atol=0)


@pytest.mark.parametrize("case", range(len(ranks.SIZES)))
def test_reduce_over_ranks(results: Results, case: int) -> None:
    joined = ranks.uneven_rows(ranks.SIZES[case])
    mean, total = (sum(result["rows"][case][key] for result in results) / 2 for key in ("mean", "sum"))
    assert_close(mean, joined.mean().item(), "exact", dtype=torch.float32)
    assert_close(total, joined.sum().item(), "exact", dtype=torch.float32)
    assert torch.equal(torch.cat([result["rows"][case]["none"] for result in results]), joined)


def test_reductions_alone() -> None:
    values = torch.rand(3, 2)
    torch.testing.assert_close(reduce_over_ranks(values, 6, "mean"), values.mean())
    torch.testing.assert_close(reduce_over_ranks(values, 6, "sum"), values.sum())
    assert reduce_over_ranks(values, 6, "none") is values
    assert reduce_over_ranks(values[:0], 0, "mean") == 0
    with pytest.raises(ConfigError, match="reduction: expected one of mean, sum, none, got 'average'"):
        reduce_over_ranks(values, 6, "average")  # type: ignore[arg-type]


def test_average_gradients_equal_one_process_on_the_joined_batch(results: Results) -> None:
    """Also where one rank's pass does not reach a parameter, or none does, and with several dtypes."""
    part = ranks.MixedPart()
    losses = [ranks.mixed_loss(part(ranks.mixed_images(index)), index) for index in range(2)]
    (sum(losses) / 2).backward()
    expected = {name: parameter.grad for name, parameter in part.named_parameters()}
    assert expected["unused"] is None
    assert expected["fixed"] is None
    first, second = both(results, "average_gradients")
    assert first.keys() == expected.keys()
    for name, gradient in expected.items():
        if name == "fixed":
            assert first[name] is None
            continue
        gradient = torch.zeros_like(part.unused) if gradient is None else gradient
        assert name == "unused" or gradient.abs().sum() > 0
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gradient)
    assert [result["collectives"] for result in results] == [2, 2]  # one for each dtype


def test_average_gradients_alone_are_the_parameters() -> None:
    part = ranks.MixedPart()
    parameters = average_gradients(part)
    assert parameters.keys() == {"both.weight", "both.bias", "of_first", "of_second", "single", "unused"}
    assert all(parameters[name] is part.get_parameter(name) for name in parameters)
    assert average_gradients(torch.nn.ReLU()) == {}


@pytest.mark.parametrize("sizes", ranks.SIZES)
@pytest.mark.parametrize("kind", ranks.IN_BATCH)
def test_in_batch_losses_are_those_of_the_joined_batch(results: Results, kind: str, sizes: tuple[int, int]) -> None:
    """Also where one rank has fewer samples, or none."""
    got = [result["in_batch"][kind, sizes] for result in results]
    expected = ranks.in_batch_run(kind, sizes, [0, 1], gather=False)
    assert_close(sum(part["loss"] for part in got) / 2, expected["loss"], "loose")
    # What DistributedDataParallel does with gradients: their mean over the ranks.
    for role, gradient in enumerate(expected["gradients"]):
        joined = torch.cat([part["gradients"][role] for part in got]) / 2
        assert gradient.abs().sum() > 0
        assert_close(joined, gradient, "loose", scale=0.01)
    for first, second, gradient in zip(*(part["head_gradients"] for part in (*got, expected)), strict=True):
        assert_close((first + second) / 2, gradient, "loose", scale=0.01)


def test_queue_of_two_ranks_is_that_of_one_on_the_joined_batches(results: Results) -> None:
    """Through DistributedDataParallel, with uneven batches and without samples."""
    got, expected = both(results, "queue"), ranks.queue_run([0, 1])
    for step in range(len(ranks.SIZES)):
        mean = sum(result["losses"][step] for result in got) / 2
        assert_close(mean, expected["losses"][step], "loose")
        for result in got:
            for own, gradient in zip(result["gradients"][step], expected["gradients"][step], strict=True):
                assert_close(own, gradient, "loose", scale=0.01)
            for name, value in expected["states"][step].items():
                assert_close(result["states"][step][name], value, "loose", dtype=torch.float64, scale=0.01)
    assert expected["losses"][-1] > 0
    assert expected["gradients"][-1][0].abs().sum() > 0
    assert expected["states"][-1]["fill"] == 5
    assert expected["states"][-1]["pointer"] == sum(map(sum, ranks.SIZES)) % 5
    assert got[0]["losses"][1:3] != got[1]["losses"][1:3]


def test_queue_state_is_equal_on_all_ranks(results: Results) -> None:
    """Also the momentum encoder's BatchNorm statistics, where each rank saw images of its own, or none."""
    first, second = both(results, "queue_with_norm")
    assert first["key_encoder.1.running_mean"].abs().sum() > 0
    assert first["fill"] == 5
    for name, tensor in first.items():
        if name != "key_encoder.1.num_batches_tracked":
            assert torch.equal(tensor, second[name]), name


def test_scales_of_criteria_are_means_over_ranks(results: Results) -> None:
    values = [[a, p[0], n[0]] for a, p, n in map(ranks.criteria_values, range(2))]
    for result in results:
        torch.testing.assert_close(result["scales"], torch.tensor(values).mean(0))
    assert results[0]["criteria"] != results[1]["criteria"]


def test_dual_loss_of_two_ranks_is_that_of_the_joined_batch(results: Results) -> None:
    real, fake = (torch.cat([ranks.logits(index)[side] for index in range(2)]) for side in range(2))
    mean = sum(both(results, "dual_loss")) / 2
    assert_close(mean, dual_loops(real, fake))
    alone = sum(dual_loops(*ranks.logits(index)) for index in range(2)) / 2
    assert abs(mean - alone) > 0.1  # without the other rank's logits it is another number


def test_averaged_gradients_are_those_of_the_joined_batch(results: Results) -> None:
    discriminator = ranks.discriminator()
    images = [torch.cat([ranks.images(index)[side] for index in range(2)]) for side in range(2)]
    DualContrastiveLoss()(discriminator(images[0]), discriminator(images[1])).backward()
    for index in range(2):
        for got, parameter in zip(results[index]["ddp_gradients"], discriminator.parameters(), strict=True):
            assert parameter.grad is not None
            assert_close(got, parameter.grad)


@pytest.mark.parametrize("kind", ["share", "fixed"])
def test_weight_and_ratio_are_those_of_the_joined_batch(results: Results, kind: str) -> None:
    joined = ranks.train(kind, [0, 1])
    assert results[0][kind]["ratios"] == results[1][kind]["ratios"]
    assert results[0][kind]["weights"] == results[1][kind]["weights"]
    assert_close(results[0][kind]["ratios"], joined["ratios"], dtype=torch.float32)
    assert_close(results[0][kind]["weights"], joined["weights"], dtype=torch.float32)
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
        assert_close(a, b, scale=0.0002)
        assert a.abs().sum() > 0


def test_all_state_is_equal_after_a_step(results: Results) -> None:
    """Also BatchNorm's statistics, which each rank gathers from images of its own."""
    first, second = both(results, "state")
    assert first["pcl.loss.embedding.blocks.0.norm.running_mean"].abs().sum() > 0
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_only_the_first_rank_warns(results: Results) -> None:
    assert both(results, "warnings") == [1, 0]
