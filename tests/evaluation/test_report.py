"""The page and the tables of an evaluation; the page in a real browser, which reads it from disk."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from contrastive_sr.evaluation import Pair, Score, bicubic, bicubic_pair, evaluate, summary
from contrastive_sr.evaluation.report import (
    Results,
    Shown,
    as_csv,
    as_html,
    as_json,
    as_markdown,
    lines_of,
    most_detailed,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
METHODS = ("bicubic", "nearest", "<b>odd | name</b>")

RESULTS: Results = {
    "Set5": {
        "a": {"psnr_y": 28.431, "ssim_y": 0.8, "niqe": 7.0, "parameters": None, "images": 5},
        "b": {"psnr_y": 28.434, "ssim_y": 0.9, "niqe": 6.0, "parameters": 1_500_000, "images": 5},
        "c|d": {"psnr_y": float("inf"), "ssim_y": 0.85, "niqe": None, "parameters": 900_000, "images": 5},
    },
    "Set14": {
        "a": {"psnr_y": 26.091, "ssim_y": 0.7, "niqe": 7.0, "parameters": None},
        "b": {"psnr_y": 26.094, "ssim_y": 0.7, "niqe": 8.0, "parameters": 1_500_000},
        "c|d": {"psnr_y": 25.0, "ssim_y": 0.7, "niqe": None, "parameters": 900_000},
    },
}


def test_the_best_of_each_data_set() -> None:
    best = {(line.dataset, line.method): [cell.text for cell in line.cells if cell.best] for line in lines_of(RESULTS)}
    assert best == {
        ("Set5", "a"): [],
        ("Set5", "b"): ["0.9000", "6.000"],
        ("Set5", "c|d"): ["inf", "0.900"],
        # what looks equal is equally good; where all are equal none is best
        ("Set14", "a"): ["26.09", "7.000"],
        ("Set14", "b"): ["26.09"],
        ("Set14", "c|d"): ["0.900"],
    }
    # an image can have too little of it
    unmarked = lines_of({"a": {"x": {"blur": 0.3, "niqe": 2.0}, "y": {"blur": 0.4, "niqe": 1.0}}})
    assert [[cell.best for cell in line.cells] for line in unmarked] == [[False, False], [True, False]]


def test_json_and_markdown() -> None:
    content = json.loads(as_json(RESULTS))
    assert content["Set5"]["c|d"]["psnr_y"] is None  # JSON has no infinity
    assert content["Set14"]["b"] == RESULTS["Set14"]["b"]
    assert as_markdown(RESULTS, ["said"]).splitlines() == [
        "| data set | method | PSNR-Y, dB ↑ | SSIM-Y ↑ | NIQE ↓ | parameters, M ↓ |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| Set5 | a | 28.43 | 0.8000 | 7.000 | - |",
        "| Set5 | b | 28.43 | **0.9000** | **6.000** | 1.500 |",
        "| Set5 | c\\|d | **inf** | 0.8500 | - | **0.900** |",
        "| Set14 | a | **26.09** | 0.7000 | **7.000** | - |",
        "| Set14 | b | **26.09** | 0.7000 | 8.000 | 1.500 |",
        "| Set14 | c\\|d | 25.00 | 0.7000 | - | **0.900** |",
        "",
        "- said",
    ]
    assert as_markdown(RESULTS, ["said"], ["look at a|b"]).splitlines()[-2:] == ["- **look at a\\|b**", "- said"]


def test_the_most_detailed_part_lies_inside() -> None:
    photo = data.astronaut()
    left, top, right, bottom = most_detailed(photo, 200)
    assert (right - left, bottom - top) == (200, 200)
    assert left >= 0
    assert top >= 0
    assert right <= 512
    assert bottom <= 512
    assert most_detailed(photo[:50, :30], 200) == (0, 0, 30, 50)


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three methods on two data sets, made as the command makes it."""

    def nearest(lr: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(lr, scale_factor=4)

    networks = dict(zip(METHODS, (bicubic(4), nearest, lambda lr: bicubic(4)(lr) * 0.5), strict=True))
    sets = {
        "Faces": [bicubic_pair("astronaut.png", data.astronaut()[:200, 150:300], 4)],
        "Things": [bicubic_pair(name, image[100:220, 100:250], 4) for name, image in
                   (("coffee.png", data.coffee()), ("rocket.png", data.rocket()))],
    }  # fmt: skip
    images: dict[str, dict[str, Any]] = {}
    scores = {
        dataset: {
            method: evaluate(
                net,
                pairs,
                4,
                on_image=lambda pair, sr, _, method=method: images.setdefault(pair.name, {}).update({method: sr}),
            )
            for method, net in networks.items()
        }
        for dataset, pairs in sets.items()
    }
    shown = [
        Shown(dataset, pair.name, (0, 0, pair.hr.shape[1], pair.hr.shape[0]), {**images[pair.name], "HR": pair.hr},
              {**dict.fromkeys(METHODS, "28.00 dB"), "HR": ""})
        for dataset, pairs in sets.items() for pair in pairs
    ]  # fmt: skip
    results = {dataset: {method: summary(s) for method, s in methods.items()} for dataset, methods in scores.items()}
    path = tmp_path_factory.mktemp("page") / "report.html"
    text = as_html("A title <script>", results, scores, shown, ["a note & more"], about={"command": "evaluate <x>"})
    path.write_text(text, encoding="utf-8")
    rows = as_csv(scores).splitlines()
    assert len(rows) == 10
    assert rows[0] == "dataset,method,image,width,height,psnr_y,ssim_y,seconds,memory_mib"
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium was found: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox refuses to run as root, as the CI is
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The page, read from disk; at the end it must have asked for nothing else and complained of nothing."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, offline=True)
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    yield page
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert complaints == []
    context.close()


def pixels(stage: Locator) -> np.ndarray[Any, np.dtype[np.int64]]:
    with Image.open(io.BytesIO(stage.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def column(page: Page, table: str, number: int) -> list[str]:
    return page.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_all_is_in_the_page(page: Page) -> None:
    assert page.title() == "A title <script>"
    assert page.locator("h1").inner_text() == "A title <script>"
    assert column(page, "means", 2) == [*METHODS, *METHODS]
    assert page.locator("#means td.best").count() > 0
    assert page.locator("dl.about").inner_text().split("\n") == ["command", "evaluate <x>"]
    assert page.locator("#sideways").is_hidden()  # there is room
    assert page.locator("li").all_inner_texts() == ["a note & more"]
    loaded = page.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth > 0)")
    assert loaded == [True] * 12
    assert page.evaluate("document.images[0].naturalWidth") == 148


def test_a_click_sorts(page: Page) -> None:
    page.locator("summary").click()
    head = page.locator("#images thead th").nth(3)
    before = column(page, "images", 4)
    for order in ("ascending", "descending"):
        head.get_by_role("button").click()
        shown = [float(value) for value in column(page, "images", 4)]
        assert shown == sorted(map(float, before), reverse=order == "descending")
        assert head.get_attribute("aria-sort") == order
    assert column(page, "images", 4) != before
    page.locator("#images thead th button").nth(1).press("Enter")  # by keyboard, words
    assert column(page, "images", 2) == ["astronaut.png"] * 3 + ["coffee.png"] * 3 + ["rocket.png"] * 3
    assert head.get_attribute("aria-sort") is None


def test_the_slider_shows_more_of_one_image(page: Page) -> None:
    figure = page.locator("figure").first
    stage, slider = figure.locator(".stage"), figure.get_by_role("slider")
    # bicubic on the left; on the right an image of half the brightness
    assert [select.input_value() for select in figure.locator("select").all()] == [METHODS[0], METHODS[2]]
    middle = pixels(stage)
    width = middle.shape[1]
    assert middle[:, : width // 2 - 20].mean() > 1.6 * middle[:, width // 2 + 20 :].mean()

    slider.focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert slider.input_value() == "80"
    moved = pixels(stage)
    uncovered = slice(int(width * 0.56), int(width * 0.74))
    assert moved[:, uncovered].mean() > 1.6 * middle[:, uncovered].mean()
    assert abs(moved[:, : width // 3] - middle[:, : width // 3]).mean() < 1

    box = stage.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 30)
    assert 20 <= int(slider.input_value()) <= 30


def test_another_image_can_be_chosen(page: Page) -> None:
    figure = page.locator("figure").nth(1)
    stage = figure.locator(".stage")
    before = pixels(stage)
    figure.locator("select").nth(1).select_option("HR")
    assert stage.locator("img.right").get_attribute("data-label") == "HR"
    after = pixels(stage)
    half = before.shape[1] // 2
    assert after[:, half + 20 :].mean() > 1.6 * before[:, half + 20 :].mean()
    # the outermost pixels are mixed with what lies below
    assert abs(after - before)[3:-3, 3 : half - 20].max() == 0


def test_dark_and_narrow(browser: Browser, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
        page = context.new_page()
        page.goto(page_file.as_uri())
        back, text = page.evaluate(
            "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
        brightness = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (back, text)]
        assert (brightness[0] > brightness[1]) == (scheme == "light")
        assert abs(brightness[0] - brightness[1]) > 150
        # wide tables scroll by themselves, as far as their last column, and the method stays in sight
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#sideways").is_visible()
        page.locator("#means thead th").last.scroll_into_view_if_needed()
        for cell in (page.locator("#means thead th").last, page.locator("#means tbody td:nth-child(2)").first):
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        context.close()


def test_without_images_there_is_no_empty_section() -> None:
    pair = Pair("flat", torch.full((1, 3, 16, 16), 0.5), np.full((64, 64, 3), 128, dtype=np.uint8))
    scores = {"Flat": {"nearest": evaluate(torch.nn.Upsample(scale_factor=4).eval(), [pair], 4)}}
    results = {"Flat": {"nearest": summary(scores["Flat"]["nearest"])}}
    text = as_html("flat", results, scores, [], [], warnings=["look at <it>"])
    assert "<strong>look at &lt;it&gt;</strong>" in text
    assert "Side by side" not in text
    assert 'data-value="Infinity"' in text


@pytest.mark.parametrize(
    ("labels", "right"), [("a HR", "HR"), ("a b HR", "b"), ("a b c HR", "c"), ("a", "a"), ("a b", "b"), ("a b c", "c")]
)
def test_the_slider_begins_between_the_first_method_and_the_last(labels: str, right: str) -> None:
    images = {label: np.zeros((8, 8, 3), dtype=np.uint8) for label in labels.split()}
    shown = [Shown("Set", "photo", (0, 0, 8, 8), images, dict.fromkeys(images, ""))]
    scores = {"Set": {"a": [Score("photo", 8, 8, {"niqe": 5.0})]}}
    text = as_html("title", {"Set": {"a": {"niqe": 5.0}}}, scores, shown, [])
    marks = dict(re.findall(r'<img alt="[^"]*" data-label="(\w+)" src="[^"]*" class="([^"]*)"', text))
    assert [label for label, mark in marks.items() if "left" in mark] == ["a"]
    assert [label for label, mark in marks.items() if "right" in mark] == [right]
    assert re.findall(r'selected value="(\w+)"', text) == ["a", right]
