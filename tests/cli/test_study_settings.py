"""`contrastive-sr study`: what its options and study files say, and what of them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from contrastive_sr.cli.study import Settings, parse_arm, parse_seeds, read_arms, together
from contrastive_sr.errors import ConfigError

STUDY = """
base: options.yml
arms:
  l1:
  pcl: {methods: [{type: PCL, loss_share: 0.2}], train.ema_decay: 0.9}
seeds: [3, 5]
steps: 100
start_steps: 50
hr: {mine: photos}
lr: small
import: own.py
out: results
processes: 2
minutes: 1.5
rgb: true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("options.yml").write_text("name: l1\n")
    return tmp_path


def settings(text: str, **options: object) -> Settings:
    Path("study.yml").write_text(text)
    return together(Path("study.yml"), Settings(**options))  # type: ignore[arg-type]


def test_a_study_file_says_what_options_say(folder: Path) -> None:
    assert settings(STUDY) == Settings(
        base=Path("options.yml"),
        arms={"l1": {}, "pcl": {"methods": [{"type": "PCL", "loss_share": 0.2}], "train.ema_decay": 0.9}},
        seeds=[3, 5],
        steps=100,
        start_steps=50,
        hr=["mine=photos"],
        lr=[Path("small")],
        imports=[Path("own.py")],
        out=Path("results"),
        processes=2,
        minutes=1.5,
        rgb=True,
    )


def test_the_command_line_wins(folder: Path) -> None:
    both = settings(STUDY, arms={"nce": {}}, seeds=[0], steps=7, minutes=9.0)
    assert (both.arms, both.seeds, both.steps, both.minutes) == ({"nce": {}}, [0], 7, 9.0)
    assert (both.out, both.start_steps) == (Path("results"), 50)


def test_a_start_replaces_that_of_the_file(folder: Path) -> None:
    both = settings(STUDY, start="start.pth")
    assert (both.start, both.start_steps) == ("start.pth", None)
    both = settings(STUDY.replace("start_steps: 50", "start: start.pth"), start_steps=9)
    assert (both.start, both.start_steps) == (None, 9)


def test_an_option_file_is_no_study_file(folder: Path) -> None:
    tagged = "plugin: !!python/name:contrastive_sr.hosts.basicsr.plugin.__version__\nname: x\n"
    for text in ("name: x\nmodel_type: SRModel\n", tagged):
        assert settings(text, steps=7) == Settings(base=Path("study.yml"), steps=7)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 100", "stepps: 100", r"study\.yml: a study does not know the key 'stepps'\. Did you mean 'steps'\?"),
        ("seeds: [3, 5]", "seeds: [3, 3]", "expected different seeds"),
        ("seeds: [3, 5]", "seeds: many", "seeds: expected how many, or a list of seeds, got 'many'"),
        ("lr: small", "lr: [1]", "lr: expected paths, got"),
        ("rgb: true", "rgb: Lab", "rgb: expected true or false, got 'Lab'"),
        ("out: results", "out: 3", "out: expected text, got 3"),
        ("base: options.yml", "base: none.yml", r"study\.yml: base: expected the file none\.yml, but there is none"),
        ("  l1:\n", "  l1: 3\n", "arm l1: expected a mapping of keys to values, got 3"),
    ],
)
def test_mistakes_in_a_study_file(folder: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    with pytest.raises(ConfigError, match=message):
        settings(STUDY.replace(old, new))


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("l1", ("l1", {})),
        ("a=x.y=1; z = [1, 2] ;", ("a", {"x.y": 1, "z": [1, 2]})),
        ("a=methods=null", ("a", {"methods": None})),
        ("a=s=b=c", ("a", {"s": "b=c"})),
    ],
)
def test_arms_of_the_command_line(text: str, arm: tuple[str, dict[str, object]]) -> None:
    assert parse_arm(text) == arm


def test_mistakes_in_arms(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--arm a: expected KEY=VALUE, got 'methods'"):
        parse_arm("a=methods")
    with pytest.raises(ConfigError, match="--arm a: x: expected YAML"):
        parse_arm("a=x=[1")
    with pytest.raises(ConfigError, match=r"Expected the file arms\.yml"):
        read_arms(Path("arms.yml"))
    Path("arms.yml").write_text("[a, b]")
    with pytest.raises(ConfigError, match=r"arms\.yml: expected a mapping of arms to their changes"):
        read_arms(Path("arms.yml"))
    Path("arms.yml").write_text("{l1: , pcl: {a: 1}}")
    assert read_arms(Path("arms.yml")) == {"l1": {}, "pcl": {"a": 1}}


@pytest.mark.parametrize("text", ["", "a", "0", "1,1", "-1", "1.5"])
def test_mistakes_in_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds: expected"):
        parse_seeds(text)


@pytest.mark.parametrize("content", [b"# \xe9t\xe9\nbase: options.yml", b"# \xe9t\xe9\nname: options"])
def test_a_file_that_is_not_utf_8(folder: Path, content: bytes) -> None:
    Path("latin.yml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"latin\.yml cannot be read .*'utf-8' codec can't decode"):
        together(Path("latin.yml"), Settings())
    with pytest.raises(ConfigError, match=r"latin\.yml cannot be read"):
        read_arms(Path("latin.yml"))
