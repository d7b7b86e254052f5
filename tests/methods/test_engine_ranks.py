"""The engine on two processes over gloo, with methods that rest at first, or now and then, while another learns."""

from __future__ import annotations

from pathlib import Path

import engine_ranks
import torch


def test_a_method_may_rest_while_another_learns(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(engine_ranks.work, args=(str(tmp_path),), nprocs=engine_ranks.WORLD)
    (before, states, logs), (_, other_states, other_logs) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    names = {method: f"{method}.loss.embedding.blocks.0.conv.weight" for method in ("pcl", "mpf", "rare")}
    for step, (state, other) in enumerate(zip(states, other_states, strict=True)):
        assert not torch.equal(state[names["pcl"]], before[names["pcl"]])
        assert torch.equal(state[names["mpf"]], before[names["mpf"]]) == (step < 2)
        learnt = not torch.equal(state[names["rare"]], (states[step - 1] if step else before)[names["rare"]])
        assert learnt == (step % 3 == 0)
        for name in names.values():
            assert torch.equal(state[name], other[name])
    assert all(set(log) == set(logs[0]) for log in (*logs, *other_logs))
    assert [log["mpf_contrastive"] != 0 for log in logs] == [False, False, True, True]
    # the ranks draw different samples
    assert logs[3]["pcl_positive_similarity"] != other_logs[3]["pcl_positive_similarity"]
