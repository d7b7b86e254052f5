"""Studies: intervals of paired differences, what is called a difference, the ledger, and what is written of it."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation.plots import Frontier, _draw_frontier, _place_labels, save_grid
from contrastive_sr.evaluation.report import Shown
from contrastive_sr.evaluation.study import (
    COST,
    RESUMED,
    START,
    Difference,
    Ledger,
    Result,
    check_arm_name,
    paired_difference,
    summarise,
)
from contrastive_sr.evaluation.study_report import (
    as_markdown,
    difference_text,
    notes_of,
    rows_of,
    tables_of,
    warnings_of,
    write_study,
)


def oracle(table: list[list[float]]) -> tuple[float, float]:
    """The interval by plain loops over the two-way table."""
    seeds, images = len(table), len(table[0])
    mean = sum(map(sum, table)) / (seeds * images)
    rows = [sum(row) / images for row in table]
    columns = [sum(row[i] for row in table) / seeds for i in range(images)]
    of_seeds = sum(images * (row - mean) ** 2 for row in rows) / (seeds - 1)
    of_images = sum(seeds * (column - mean) ** 2 for column in columns) / (images - 1)
    rest = 0.0
    for s in range(seeds):
        for i in range(images):
            rest += (table[s][i] - rows[s] - columns[i] + mean) ** 2
    rest /= (seeds - 1) * (images - 1)
    of_seeds, of_images = max(of_seeds, rest), max(of_images, rest) - rest
    squares = of_seeds * stats.t.ppf(0.975, seeds - 1) ** 2 + of_images * stats.t.ppf(0.975, images - 1) ** 2
    half = math.sqrt(squares / (seeds * images))
    return mean - half, mean + half


@pytest.mark.parametrize(("seeds", "images"), [(2, 5), (3, 2), (5, 14)])
def test_interval_is_that_of_the_two_way_table(seeds: int, images: int) -> None:
    table = np.random.default_rng(seeds).normal(0.1, 1, (seeds, images))
    mean, low, high = paired_difference(table)
    assert mean == pytest.approx(table.mean())
    assert (low, high) == pytest.approx(oracle(table.tolist()))


def test_interval_over_seeds_alone_is_students() -> None:
    values = np.array([0.3, 0.1, 0.4, 0.2])
    _, low, high = paired_difference(values[:, None])
    expected = stats.t.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
    assert (low, high) == pytest.approx(expected)
    assert paired_difference(values[None])[1:] == (None, None)


@pytest.mark.parametrize(("seeds", "images"), [(2, 100), (3, 5), (3, 100), (5, 14)])
@pytest.mark.parametrize(
    ("of_seeds", "of_images"), [(0.0, 0.0), (0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (1.0, 1.0), (1.0, 0.0)]
)
def test_interval_holds_the_truth_as_often_as_it_says(
    seeds: int, images: int, of_seeds: float, of_images: float
) -> None:
    """Effects of seeds and images, and noise; the truth is 0."""
    draw, missed, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        table = of_seeds * draw.normal(size=(seeds, 1)) + of_images * draw.normal(size=(1, images))
        _, low, high = paired_difference(table + 0.3 * draw.normal(size=(seeds, images)))
        assert low is not None
        assert high is not None
        missed += not low < 0 < high
    assert missed <= 0.07 * trials  # 0.05, and what 1,000 draws may deviate


def test_many_images_do_not_make_up_for_seeds_that_disagree() -> None:
    images = np.random.default_rng(0).normal(0, 0.001, (1, 1000))
    _, low, high = paired_difference(images + np.array([[0.2], [0.1], [-0.05]]))
    assert low is not None
    assert high is not None
    assert low < 0 < high


def results(arm: str, table: dict[int, list[float]], metric: str = "psnr_y", data: str = "Set5") -> list[Result]:
    return [
        Result(arm, seed, "d", data, f"{image}.png", metric, value)
        for seed, values in table.items()
        for image, value in enumerate(values)
    ]


def test_a_difference_is_of_the_seeds_and_images_that_both_have() -> None:
    lines = results("l1", {0: [30.0, 20.0, 10.0], 1: [31.0, 22.0, 11.0], 2: [50.0, 50.0, 50.0]})
    lines += results("pcl", {0: [30.5, 20.4], 1: [31.5, 22.4]})
    summary = summarise(lines)
    pcl = summary.measured["Set5"]["pcl"]["psnr_y"].difference
    assert pcl is not None
    assert summary.reference == "l1"
    assert pcl.seeds == pytest.approx({0: 0.45, 1: 0.45})
    assert (pcl.mean, pcl.images) == (pytest.approx(0.45), 2)
    assert summary.measured["Set5"]["l1"]["psnr_y"].difference is None
    other = summarise(lines, ["pcl", "l1"])
    turned = other.measured["Set5"]["l1"]["psnr_y"].difference
    assert other.reference == "pcl"
    assert turned is not None
    assert turned.mean == pytest.approx(-0.45)


@pytest.mark.parametrize(
    ("difference", "shown", "text"),
    [
        (Difference(0.1, 0.05, 0.15, {0: 0.1, 1: 0.1}, 5), True, "+0.100 [+0.050, +0.150]"),
        (Difference(0.1, -0.05, 0.25, {0: 0.1, 1: 0.1}, 5), False, "+0.100 [-0.050, +0.250] n.s."),
        (Difference(0.1, 0.05, 0.15, {0: 0.3, 1: -0.1}, 5), False, "+0.100 [+0.050, +0.150] n.s."),
        (Difference(-0.1, None, None, {0: -0.1}, 5), False, "-0.100 (one seed)"),
        (Difference(-0.0001, -0.0002, -0.0001, {0: -0.0001}, 5), True, "+0.000 [+0.000, +0.000]"),
    ],
)
def test_what_is_called_a_difference(difference: Difference, shown: bool, text: str) -> None:
    assert difference.shown is shown
    assert difference_text("psnr_y", difference) == text


def test_a_difference_over_fewer_images_is_told() -> None:
    lines = results("l1", {0: [30.0, 20.0, 10.0]}) + results("pcl", {0: [30.5, 20.4]})
    lines += results("whole", {0: [30.5, 20.4, 9.0]})
    told = [note for note in notes_of(summarise(lines)) if "the difference is over" in note]
    assert told == []  # what an arm has is all compared
    (note,) = [n for n in notes_of(summarise(lines, ["pcl", "whole"])) if "the difference is over" in n]
    assert note.startswith("PSNR-Y, dB of whole on Set5: the difference is over 2 of 3 images")


def test_values_without_a_mean_are_left_out() -> None:
    lines = results("l1", {0: [30.0, math.inf]}) + results("l1", {0: [5.0]}, "niqe")
    lines.append(Result("l1", 0, "d", "Set5", "1.png", "niqe", None))
    of = summarise(lines).measured["Set5"]["l1"]
    assert (of["psnr_y"].mean, of["niqe"].mean, of["niqe"].spread) == (30.0, 5.0, None)


def test_costs_are_paired_by_seed() -> None:
    lines = results("l1", {0: [30.0]}) + results("pcl", {0: [30.0]})
    seconds = {("l1", 0): 1.0, ("l1", 1): 2.0, ("pcl", 0): 3.0, ("pcl", 1): 4.0}
    lines += [Result(arm, seed, "d", "", "", COST, value) for (arm, seed), value in seconds.items()]
    lines.append(Result("pcl", 1, "d", "", "", RESUMED, 10.0))
    summary = summarise(lines)
    assert summary.ratio("pcl") == pytest.approx(2.5)
    assert summary.resumed == [("pcl", 1)]
    assert tables_of(summary)[-1].rows == [["l1", "1.5000", "1.00"], ["pcl", "3.5000", "2.50"]]


def test_ledger_keeps_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.csv"
    ledger = Ledger(path)
    assert ledger.results == []
    ledger.add(results("l1", {0: [30.0, 20.0]}))
    ledger.add([Result("l1", 0, "new", "Set5", "1.png", "psnr_y", 21.5), Result("l1", 0, "d", "", "", COST, None)])
    again = Ledger(path)
    assert again.results == ledger.results
    assert [(result.digest, result.value) for result in again.results] == [("d", 30.0), ("new", 21.5), ("d", None)]
    assert [path.name for path in path.parent.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "arm,seed,digest,dataset,image,metric,value\nl1,x,d,a,b,c,1\n"])
def test_another_csv_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(DataError, match="expected the results of a study"):
        Ledger(tmp_path / "results.csv")


def test_a_ledger_without_arms_is_refused() -> None:
    with pytest.raises(DataError, match="no result of an arm"):
        summarise(results(START, {0: [30.0]}))


@pytest.mark.parametrize("name", ["start", "", "a b", "../x", ".x", "a/b", 3])
def test_names_of_arms(name: object) -> None:
    with pytest.raises(ConfigError, match=r"expected a name of letters"):
        check_arm_name(name)
    assert check_arm_name("gan+pcl_0.2") == "gan+pcl_0.2"


def test_everything_is_written(tmp_path: Path) -> None:
    lines = []
    for number, arm in enumerate((START, "l1", "pcl|x")):
        values = {seed: [28.0 + number + 0.02 * seed, 26.0 + number] for seed in range(3)}
        lines += results(arm, values) + results(arm, values, data="Set14")
        lines += results(arm, {seed: [0.4 - 0.1 * number, 0.3 - 0.1 * number] for seed in range(3)}, "lpips")
    crop = np.zeros((8, 8, 3), dtype=np.uint8)
    shown = [Shown("Set5", "0.png", (0, 0, 8, 8), {"l1": crop, "HR": crop}, {"l1": "29 dB", "HR": ""})]
    files = write_study(tmp_path, "My study", summarise(lines), shown, ["A note on the data."])
    assert sorted(path.name for path in files) == ["frontier.png", "study.html", "study.json", "study.md"]

    content = json.loads((tmp_path / "study.json").read_text())
    pcl = content["results"]["Set5"]["pcl|x"]["psnr_y"]
    assert pcl["difference"]["mean"] == pytest.approx(1.0)
    assert pcl["difference"]["shown"] is True
    assert "difference" not in content["results"]["Set5"]["start"]["psnr_y"]

    markdown = (tmp_path / "study.md").read_text()
    assert "| Set5 | pcl\\|x | +1.000 [+1.000, +1.000] | -0.10000 [-0.10000, -0.10000] |" in markdown
    assert "| Set5 | start | 3 | 27.01 ± 0.01 | 0.3500 ± 0.0000 |" in markdown
    assert "- A note on the data." in markdown
    assert "](frontier.png)" in markdown

    page = (tmp_path / "study.html").read_text()
    for words in (
        "My study",
        "Differences from l1",
        "+1.000 [+1.000, +1.000]",
        "data:image/png",
        "A note on the data.",
    ):
        assert words in page
    with Image.open(tmp_path / "frontier.png") as picture:
        assert min(picture.size) > 300


def test_parts_of_images_that_all_arms_have_are_drawn_with_their_values(tmp_path: Path) -> None:
    lines = results("l1", {0: [28.0, 26.0]}) + results("pcl", {0: [27.9, 25.9]})
    hr = np.random.default_rng(0).integers(0, 256, (120, 130, 3)).astype(np.uint8)
    images = {"l1": hr // 2, "pcl": hr // 3, "HR": hr}
    box = (10, 10, 140, 130)
    shown = [
        Shown("Set5", "0.png", box, images, {"l1": "28.00 dB, LPIPS 0.213", "pcl": "27.90 dB", "HR": ""}),
        Shown("Set5", "1.png", box, {"l1": hr, "HR": hr}, {"l1": "", "HR": ""}),
    ]
    summary = summarise(lines)
    (row,) = rows_of(shown, summary)
    assert [title for title, _ in row] == ["l1: 28.00 dB\nLPIPS 0.213", "pcl: 27.90 dB", "HR (0.png)"]
    assert all(part.shape == (96, 96, 3) for _, part in row)
    assert np.array_equal(row[0][1], row[2][1] // 2)
    assert tmp_path / "crops.png" in write_study(tmp_path, "title", summary, shown, [])
    with Image.open(tmp_path / "crops.png") as picture:
        assert picture.width > 2 * picture.height


def test_a_row_of_the_picture_may_be_shorter(tmp_path: Path) -> None:
    """As where a data set came to a folder whose parts of images were of other arms."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    for name, row in (("short", [("a", grey)]), ("whole", [("a", grey), ("b", grey)])):
        save_grid(tmp_path / f"{name}.png", [row, [("a", grey), ("b", grey)]])
    short, whole = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("short", "whole"))
    assert short.shape == whole.shape
    assert whole[whole.shape[0] // 4, whole.shape[1] * 3 // 4] == 100
    assert short[short.shape[0] // 4, short.shape[1] * 3 // 4] == 255


def test_dots_and_jagged_edges_are_warned_about() -> None:
    lines = []
    for arm, (two, scale) in {"l1": (0.1, 0.2), "pcl": (0.5, 1.4), "fine": (0.5, 0.6)}.items():
        values = {"pattern_2": two, "pattern_scale": scale, "hr_pattern_2": 0.1, "hr_pattern_scale": 0.2}
        for metric, value in values.items():
            less = min(value, 0.3)  # the mean over seeds would hide the one that is spoilt
            lines += results(arm, {0: [less, less], 1: [value, value], 2: [less, less]}, metric)
    for arm, value in {"l1": 0.09, "pcl": 0.15, "fine": 0.2}.items():
        for metric, one in {"jaggedness": value, "bicubic_jaggedness": 0.12}.items():
            less = min(one, 0.12)
            lines += results(arm, {0: [one, one], 1: [less, less], 2: [less, less]}, metric)
    warning, jagged = warnings_of(summarise(lines))
    assert warning.startswith("pcl, seed 1, on Set5: periodic dots, 1.20 grey levels above HR's own at a period of the")
    assert jagged.startswith("fine, seed 0, on Set5: jagged edges, 0.080 above bicubic enlargement's.")
    alone = [line for line in lines if line.seed == 1]
    assert warnings_of(summarise(alone))[0].startswith("pcl on Set5: periodic dots, 1.20 grey levels")
    first = [line for line in lines if line.arm == "fine"] + [line for line in lines if line.arm != "fine"]
    assert warnings_of(summarise(first))[1:] == [jagged], "a reference hides its own teeth"
    own = [note for note in notes_of(summarise(lines)) if "on Set5: " in note]
    assert own == [
        "HR's own on Set5: pattern 2 0.10, pattern scale 0.20.",
        "Bicubic enlargement's on Set5: jaggedness 0.120.",
    ]
    assert f"- **{warning}**" in as_markdown("title", [], ["note"], [], [warning])


def test_labels_of_the_picture_cover_nothing() -> None:
    """Eight trainings, six of them close together."""
    points = {f"arm{n}": [(28.5 + 0.01 * n, 0.35 - 0.001 * n)] for n in range(6)} | {"gan": [(27.0, 0.2)]}
    plot = Frontier("Set5", "PSNR", "LPIPS", {START: [(28.4, 0.36)], **points}, START)
    figure = Figure(figsize=(5.2, 4.4), dpi=100)
    axes = figure.add_subplot()
    means = _draw_frontier(axes, plot)
    figure.draw_without_rendering()
    boxes = _place_labels(axes, means, START)
    assert len(boxes) == 8
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert all(axes.get_window_extent().containsx(x) for box in boxes for x in box.intervalx)
    assert len(axes.texts) == 8 + 7  # and arrows
