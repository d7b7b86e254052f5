"""The engine on two processes over gloo, with methods that rest at first, or now and then, while another learns."""

from __future__ import annotations

from pathlib import Path

import engine_ranks
import torch
from forked import run_ranks


def test_a_method_may_rest_while_another_learns(tmp_path: Path) -> None:
    run_ranks(engine_ranks.work, tmp_path, engine_ranks.WORLD)
    (before, states, logs), (_, other_states, other_logs) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    names = {method: f"{method}.loss.embedding.blocks.0.conv.weight" for method in ("pcl", "mpf", "rare")}
    names |= {"nce": "nce.features.blocks.0.conv.weight", "head": "nce.loss.heads.0.hidden.weight"}
    for step, (state, other) in enumerate(zip(states, other_states, strict=True)):
        assert not torch.equal(state[names["pcl"]], before[names["pcl"]])
        assert torch.equal(state[names["mpf"]], before[names["mpf"]]) == (step < 2)
        learnt = not torch.equal(state[names["rare"]], (states[step - 1] if step else before)[names["rare"]])
        assert learnt == (step % 3 == 0)
        learnt, head_learnt = (
            not torch.equal(state[names[name]], (states[step - 1] if step else before)[names[name]])
            for name in ("nce", "head")
        )
        assert (learnt, head_learnt) == (step < 2, True)
        for name in names.values():
            assert torch.equal(state[name], other[name])
    assert all(set(log) == set(logs[0]) for log in (*logs, *other_logs))
    assert [log["mpf_contrastive"] != 0 for log in logs] == [False, False, True, True]
    # the ranks draw different samples
    assert logs[3]["pcl_positive_similarity"] != other_logs[3]["pcl_positive_similarity"]


def test_all_ranks_leave_out_what_is_not_finite_on_one(tmp_path: Path) -> None:
    run_ranks(engine_ranks.work_nonfinite, tmp_path, engine_ranks.WORLD)
    ranks = [torch.load(tmp_path / f"{i}.pt") for i in range(2)]
    (net, methods, logs, names, warned, error), (other_net, other_methods, other_logs, other_names, *others) = ranks
    for state, other in ((net, other_net), (methods, other_methods)):
        assert all(x.isfinite().all() for x in state.values())
        trained = [name for name in state if "weight" in name or "bias" in name]
        assert all(torch.equal(state[name], other[name]) for name in trained)
    assert methods["nonfinite_steps.count"] == other_methods["nonfinite_steps.count"] == 4
    assert [log["nonfinite_steps"] for log in logs] == [0, 1, 2, 2, 3, 4, 4]
    assert all(list(log) == list(logs[0]) for log in (*logs, *other_logs))
    for log in (logs, other_logs):
        assert [number for number, x in enumerate(log) if x["sometimes_edges_raw"] == 0] == [1, 4, 5]
        assert [number for number, x in enumerate(log) if x["pcl_contrastive_raw"] == 0] == [4]
    own = ["sometimes_part", "sometimes_other"]
    assert names == other_names
    assert names == [[*(own if n not in (2, 5) else []), "pcl_discriminator"] if n != 4 else [] for n in range(7)]
    assert [message.partition(" at ")[0] for message in warned] == [
        "sometimes_edges", "sometimes_part", "mean of the SR network's output, mean of batch['lr']", "sometimes_part",
    ]  # fmt: skip
    assert others[0] == []
    assert "got one of another process" in warned[0]
    assert error.startswith("sometimes_edges at SR step 8: expected a finite number, got one of another process, after")
    assert others[1].startswith("sometimes_edges at SR step 8: expected a finite number, got nan, after the 4 steps of")
