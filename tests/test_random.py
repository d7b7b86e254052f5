"""seed_of: one stream for each name."""

from __future__ import annotations

from contrastive_sr._random import seed_of
from contrastive_sr.data.degraded import image_seed


def test_a_seed_never_changes() -> None:
    """Test sets and trainings are made again from their seeds."""
    assert seed_of(0, "0801") == image_seed(0, "0801") == 71714333101016764
    assert seed_of(7, "pcl", 12, 1) == 55554753174763964


def test_every_part_and_their_order_count() -> None:
    parts = [(0,), (1,), (0, "pcl"), ("pcl", 0), (0, "pcl", 1), (0, "pcl", 2), (0, "nce", 1), (0, "pcl", 1, 0)]
    seeds = [seed_of(*part) for part in parts]
    assert len({*seeds}) == len(parts)
    assert all(0 <= seed < 2**56 for seed in seeds)
