"""Option files, logs and databases that were made to do harm, or are damaged: an error in no time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import lmdb
import pytest
import yaml

from contrastive_sr._json import parse_json
from contrastive_sr.data.prepare.databases import check_database
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.options import read_options
from contrastive_sr.hosts.kernels import true_kernels
from contrastive_sr.hosts.logs import read_run
from contrastive_sr.hosts.yaml_files import load_yaml

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"at most 50,000 entries, got more"),
        ("a: &a {b: *a}", r"at most 50,000 entries, got more, .* a part that contains itself"),
        ("".join(f"key{n}: {n}\n" for n in range(40_000)), r"at most 100,000 characters, got 617,780"),
    ],
)
def test_yaml_that_grows_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "options.yml").write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match=rf"options\.yml: expected YAML of {message}"):
        read_options(tmp_path / "options.yml")
    with pytest.raises(ConfigError, match=message):
        load_yaml(text)
    assert time.process_time() - began < 1


def test_many_keys_are_no_slow_check() -> None:
    from contrastive_sr.hosts.basicsr.options import OptionLoader

    text = "{" + ", ".join(f"k{n}: 1" for n in range(9_000)) + "}"
    node = yaml.compose(text)
    loader = OptionLoader("")
    began = time.process_time()
    assert len(loader.construct_document(node)) == 9_000
    assert time.process_time() - began < 1


@pytest.mark.parametrize("filling", ["x", "x:", "iter: 1, lr:(1", "time (data): 1 (1)] ", "a: 1 "])
def test_a_log_with_endless_lines_is_read_in_no_time(filling: str, tmp_path: Path) -> None:
    line = (
        "2026-01-02 10:00:00,123 INFO: [run..][epoch: 0, iter: {step}, lr:(1e-04,)] [eta: 0, time (data): 0.5 (0.1)] "
    )
    endless = (filling * 200_000)[:200_000]
    for length in (200_000, 19_000):
        lines = [line.format(step=10) + "l_pix: 2.5e-01 ", line.format(step=20) + endless[:length], endless[:length]]
        (tmp_path / "train_run_20260102_100000.log").write_text("\n".join([*lines, ""]))
        began = time.process_time()
        assert read_run(tmp_path).training["loss_pix"] == [(10, 0.25)]
        assert time.process_time() - began < 1


def test_json_of_others_has_one_reader(project: Path) -> None:
    for text in ("NaN", "[-Infinity]", "1e999", "[" * 100_000):
        with pytest.raises(ValueError, match=r"no finite number|too many brackets"):
            parse_json(text)
    found = {path.name for path in (project / "contrastive_sr").rglob("*.py") if "json.loads(" in path.read_text()}
    # logs, where NaN may have been logged, and what was written in the same line
    assert found == {"_json.py", "logs.py", "reference.py", "resumed.py"}


def test_nan_is_no_json(tmp_path: Path) -> None:
    image = {"sigma": [float("nan"), 1.0], "angle": 0.0}
    (tmp_path / "degradations.json").write_text(json.dumps({"kernel_size": 21, "images": {"a.png": image}}))
    (tmp_path / "LR").mkdir()
    with pytest.raises(DataError, match=r"cannot be read \(it holds NaN, which is no finite number"):
        true_kernels([tmp_path / "LR" / "a.png"], 21)


def test_a_database_that_is_cut_off_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=2**22, lock=False) as database, database.begin(write=True) as transaction:
        for number in range(20):
            transaction.put(f"{number}".encode(), b"0" * 20_000)
    check_database(tmp_path)
    file = tmp_path / "data.mdb"
    content = file.read_bytes()
    sizes = {len(content) - 4096: "is cut off: its", 8192: "is cut off", 4000: "cannot be read", 0: "cannot be read"}
    for size, message in sizes.items():
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match=message):
            check_database(tmp_path)
