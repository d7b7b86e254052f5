"""The studies of `benchmarks/studies` are ones that `contrastive-sr study` takes, arm by arm."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from cria_models import save_random_vgg

from contrastive_sr.cli.imports import import_files
from contrastive_sr.cli.study import Settings, study_host, together
from contrastive_sr.embeddings import StationaryHaarDiscriminator
from contrastive_sr.hosts.study import Plan, Study

ROOT = Path(__file__).parents[1]
STUDIES = sorted(file for file in (ROOT / "benchmarks/studies").glob("*.yml") if "\narms:" in file.read_text())

pytestmark = [pytest.mark.basicsr, pytest.mark.long]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_arm_can_be_trained(file: Path, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    base = yaml.safe_load(file.read_text())["base"]
    lines = (tmp_path / base).read_text().splitlines()
    for kind, part in (("dataroot_gt", "HR"), ("dataroot_lq", "LRx4")):
        for folder in {line.split()[1] for line in lines if line.strip().startswith(f"{kind}:")}:
            (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(demo_data / "train" / part, tmp_path / folder)
    save_random_vgg(tmp_path / "vgg16.pth", "vgg16")
    for embedding in set(re.findall(r"experiments/\S*_embedding_\d+\.pth", file.read_text())):
        (tmp_path / embedding).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"params": StationaryHaarDiscriminator().state_dict()}, tmp_path / embedding)

    settings = together(file, Settings())
    import_files(settings.imports)
    assert settings.base is not None
    assert "methods" not in next(iter(settings.arms.values()))  # the reference: L1 alone
    plan = Plan(settings.base, settings.arms, settings.seeds or [0], tmp_path / "out", settings.steps)
    study = Study(plan, study_host(settings.base))
    assert len({training.digest for training in study.trainings}) == len(settings.arms) * len(plan.seeds)
