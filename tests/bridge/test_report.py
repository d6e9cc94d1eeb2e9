"""The report: one file that parses, escapes what it is given and needs nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from bridge.errors import DatumError, RunError
from bridge.grids import image_grid, png_bytes
from bridge.metrics import ClassAccuracies, class_accuracies
from bridge.report import write_report

VOID = {"meta", "link", "img", "br"}
HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Collects ids, links, texts and pictures, and fails on elements that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.images, self.tags = [], [], [], [], []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids.append(attributes.get("id"))
        self.links += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "img":
            assert attributes["alt"]
            self.images.append(attributes["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def report(tmp_path, **changes):
    given = {
        "title": "A digit reader",
        "summary": ["It reads 97 % right."],
        "config": {"steps": 20, "recipe": {"size": 8, "mixing": {"kind": "cutmix"}}},
        "metrics": [{"step": k, "seconds": k, "loss": 1 / k, "agreement": np.float32(0.5)} for k in (1, 10, 20)],
        "result": {"student_top1": 0.971, "teacher_top5": None, "kl": 0.25, "seconds": 12.34, "views": 38400},
        "views": {"Base": np.zeros((3, 8, 8, 3), np.uint8)},
        **changes,
    }
    write_report(tmp_path / "report.html", **given)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    return Page(html), html


def picture(link):
    kind, data = link.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_full_report_has_every_section_and_nothing_from_elsewhere(tmp_path):
    confusion = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    page, html = report(
        tmp_path, teacher_histogram=[0.5, 0.25, 0.25], confusion=confusion, class_names=["ant", "bee", "cat"]
    )
    assert {"result", "curves", "views", "histogram", "confusion", "config"} <= set(page.ids)
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "script" not in page.tags
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    for words in (
        "It reads 97 % right.",
        "97.1 %",
        "0.25 nats",
        "12.3 s",
        "38\u202f400",
        "recipe.mixing.kind",
    ):
        assert words in page.text, words
    assert "ant taken for bee (2×)" in page.text
    assert "80.0 %" in page.text and "100.0 %" in page.text
    assert "as varied as 2.8 classes" in page.text


def test_every_key_with_numbers_gets_a_curve(tmp_path):
    metrics = [
        {"step": 1, "seconds": 0.1, "loss": None, "note": "warm-up", "flag": True},
        {"step": 2, "seconds": 0.2, "loss": 3.0, "rate": 0.1},
        {"step": 3, "seconds": 0.3, "loss": 1.0, "rate": 0.1},
    ]
    page, html = report(tmp_path, metrics=metrics)
    assert html.count('class="curve"') == 2
    assert "loss" in page.text and "rate" in page.text and "note" not in page.text
    assert "3 → 1" in page.text
    assert "1 of the lines logged held no finite number" in page.text


def test_curves_stay_in_their_box_and_keep_their_peaks(tmp_path):
    values = np.zeros(5000)
    values[1234] = 7.0
    _, html = report(tmp_path, metrics=[{"step": k, "loss": v} for k, v in enumerate(values)])
    path = re.search(r'class="curve" d="M([^"]+)"', html)[1]
    points = np.array([pair.split() for pair in path.split("L")], float)
    assert len(points) < 700
    assert points.min() >= 0 and points[:, 0].max() <= 320 and points[:, 1].max() <= 170
    assert points[:, 1].min() < 10


@pytest.mark.parametrize("value", [0.0, 5.0, -3e-7, 1e12])
def test_a_single_or_constant_value_still_makes_a_curve(tmp_path, value):
    for steps in ([7], [1, 2, 3]):
        _, html = report(tmp_path, metrics=[{"step": step, "loss": value} for step in steps])
        assert html.count('class="curve"') == 1
        assert "nan" not in re.search(r'd="M([^"]+)"', html)[1]


def test_texts_from_outside_are_escaped(tmp_path):
    page, html = report(
        tmp_path,
        title=HOSTILE,
        summary=[HOSTILE],
        config={HOSTILE: HOSTILE},
        metrics=[{"step": 1, HOSTILE: 1.0}],
        result={"student": HOSTILE, HOSTILE: 1},
        views={f'"{HOSTILE}': np.zeros((1, 8, 8, 3), np.uint8)},
        teacher_histogram=[0.5, 0.5],
        confusion=[[1, 1], [0, 1]],
        class_names=[HOSTILE, '" onload="x'],
    )
    assert "<script" not in html
    assert "script" not in page.tags
    assert HOSTILE in page.text


def test_rows_that_do_not_apply_are_left_out(tmp_path):
    result = {"student_top1": None, "frames": None, "rate": None}
    page, _ = report(tmp_path, result=result)
    assert "Student: first guess right" in page.text
    assert "Frames of a clip" not in page.text and "Samples per second" not in page.text
    page, _ = report(tmp_path, result={**result, "frames": 4, "rate": 16_000})
    assert "Frames of a clip" in page.text and "Samples per second" in page.text


def test_a_report_of_almost_nothing_is_still_a_report(tmp_path):
    page, _ = report(tmp_path, summary=[], config={}, metrics=[], result={}, views={})
    assert "histogram" not in page.ids and "confusion" not in page.ids
    assert "Nothing was logged" in page.text


def test_many_classes_are_sorted_and_their_confusions_drawn(tmp_path):
    shares = np.full(50, 0.5 / 49)
    shares[17] = 0.5
    confusion = np.eye(50, dtype=int) * 4
    confusion[3, 8] = 2
    page, html = report(tmp_path, teacher_histogram=shares, confusion=confusion)
    heights = [float(height) for height in re.findall(r'class="bar"[^>]*height="([\d.]+)"', html)]
    assert len(heights) == 50 and heights == sorted(heights, reverse=True) and heights[0] == 100
    assert re.search(r'role="rowheader">(\d+)<', html)[1] == "17"
    assert "3 taken for 8 (2×)" in page.text
    drawn = picture(page.images[-1])
    scale = len(drawn) // 50
    assert drawn.shape == (50 * scale, 50 * scale, 3)
    middle = drawn[scale // 2 :: scale, scale // 2 :: scale].astype(int).sum(-1)
    assert middle[5, 5] < middle[3, 8] < middle[8, 3] == 3 * 255


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher_histogram": [0.5, 0.5], "class_names": ["a", "b", "c"]},
        {"confusion": np.zeros((2, 3), int)},
        {"confusion": np.zeros((2, 2), int), "teacher_histogram": [1.0]},
        {"teacher_histogram": 0.5},
        {"class_names": []},
        {"per_class": class_accuracies([0], [0], None, 2), "class_names": ["a"]},
    ],
)
def test_parts_of_different_classes_are_an_error(tmp_path, changes):
    with pytest.raises(RunError, match="expected"):
        report(tmp_path, **changes)


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(RunError, match="Cannot write the report"):
        report(tmp_path / "missing")


def test_small_views_are_enlarged_with_sharp_pixels_and_large_ones_made_smaller(tmp_path):
    views = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    page, _ = report(tmp_path, views={"small": views, "large": np.zeros((2, 400, 300, 3), np.uint8)})
    small, large = (picture(image) for image in page.images)
    np.testing.assert_array_equal(small[1:96:3, 1:96:3], views[0])
    assert small.shape == (96, 2 * 96 + 2, 3)
    assert max(large.shape) <= 2 * 1.6 * 96


def test_sounds_are_shown_as_spectrograms_and_six_can_be_played(tmp_path):
    sounds = np.linspace(-1, 1, 3 * 5 * 800, dtype=np.float32).reshape(3, 5, 800)
    captions = ("base", "augmented", HOSTILE)
    page, html = report(
        tmp_path,
        views={caption: np.zeros((8, 64, 98, 3), np.uint8) for caption in captions},
        sounds=dict(zip(captions, sounds)),
        rate=8_000,
        what="sound",
        teacher_histogram=[1.0],
    )
    assert "sounds" in page.ids and page.tags.count("audio") == 6 and "script" not in page.tags
    played = [link for link in page.links if link.startswith("data:audio/wav;base64,")]
    for link, sound in zip(played, sounds[:, :2].reshape(6, 800), strict=True):
        with wave.open(io.BytesIO(base64.b64decode(link.split(",", 1)[1]))) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8_000, 2, 1)
            found = np.frombuffer(file.readframes(800), "<i2") / 32767
        assert np.abs(found - sound).max() < 1e-4
    assert picture(page.images[0]).shape == (2 * 130 - 2, 6 * 198 - 2, 3)  # wider than high
    assert "time to the right" in page.text and "pixels" not in page.text
    assert "Views heard in training" in page.text and "What the teacher heard in the views" in page.text
    assert all(link.startswith("data:") for link in page.links) and not re.search(r"url\(|https?://", html)


@pytest.mark.parametrize(("seconds", "columns", "scale"), [(3, 2, 2), (10, 1, 1)])
def test_long_spectrograms_stand_one_below_the_other(tmp_path, seconds, columns, scale):
    views = np.zeros((4, 64, 100 * seconds, 3), np.uint8)
    page, _ = report(tmp_path, views={"base": views}, what="sound")
    height, width, _ = picture(page.images[0]).shape
    assert width == columns * (100 * seconds * scale + 2) - 2 and height == 4 // columns * (64 * scale + 2) - 2


def test_a_report_of_clips_speaks_of_clips(tmp_path):
    page, _ = report(tmp_path, views={"base clips": np.zeros((3, 8, 40, 3), np.uint8)}, what="video")
    assert "3 clips of 5 frames of 8 × 8 pixels" in page.text and "Clips seen in training" in page.text
    page, _ = report(tmp_path, views={}, what="video")
    assert "No clips were kept" in page.text and "sounds" not in page.ids and "classes" not in page.ids


def class_rows(html):
    """Name, cells and the widths of bar and mark in per cent."""
    table = re.search(r'<table class="classes">.*?</table>', html, re.S)[0]
    return [
        (
            re.search(r'scope="row">(.*?)</th>', row)[1],
            re.findall(r"<td>(.*?)</td>", row),
            re.findall(r"(?:width|left): ([\d.]+)%", row),
        )
        for row in table.split("<tr>")[2:]
    ]


def test_every_class_stands_with_both_shares_the_students_worst_first(tmp_path):
    labels, student, teacher = [0, 0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 2]
    page, html = report(
        tmp_path,
        per_class=class_accuracies(labels, student, teacher, 4),
        class_names=["yes", HOSTILE, "stop", "never"],
    )
    assert [(name, cells) for name, cells, _ in class_rows(html)] == [
        ("stop", ["0.0 %", "100.0 %", "1"]),
        ("yes", ["50.0 %", "100.0 %", "2"]),
        ("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;", ["75.0 %", "100.0 %", "4"]),
        ("never", ["–", "–", "0"]),
    ]
    assert [widths for *_, widths in class_rows(html)][1:] == [["50.0", "100.0"], ["75.0", "100.0"], []]
    assert "script" not in page.tags and "worst classes first" in page.text
    page, html = report(tmp_path, per_class=class_accuracies(labels, student, None, 4))
    assert class_rows(html)[1][1] == ["50.0 %", "2"] and "the teacher's." not in page.text


def test_of_many_classes_the_worst_are_listed(tmp_path):
    shares = np.linspace(1, 0, 150)
    shares[140:] = np.nan
    scores = ClassAccuracies(np.where(np.isnan(shares), 0, 3), shares, shares)
    page, html = report(tmp_path, per_class=scores)
    assert [row[0] for row in class_rows(html)] == [str(number) for number in range(139, 119, -1)]
    assert "The student's 20 worst of 140 classes" in page.text


def test_grid_lays_images_out_row_by_row_with_gaps():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    grid = image_grid(images, columns=2, scale=2, gap=1)
    assert grid.shape == (9, 9, 3)
    assert (grid[:4, :4] == 0).all() and (grid[:4, 5:] == 1).all() and (grid[5:, :4] == 2).all()
    assert (grid[4] == grid[5, 8]).all() and grid[4, 0, 0] not in (0, 1, 2)
    assert image_grid(images, columns=8, gap=0).shape == (2, 6, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(grid)))), grid)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)],
)
def test_grid_refuses_what_is_no_batch_of_images(tmp_path, images):
    with pytest.raises(DatumError, match="expected uint8"):
        image_grid(images)
    with pytest.raises(DatumError, match="expected uint8"):
        report(tmp_path, views={"bad": images})
