"""Measures of a source and what `score` makes of them, with teachers that are plain functions."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bridge.datum.audio import AudioSet, make_audio_set
from bridge.errors import ConfigError, DatumError, TeacherError
from bridge.insight.measures import GROUP, HEADLINE, MEASURES, image_density, measures, sound_density
from bridge.insight.options import ScoreConfig
from bridge.insight.score import answers, check_score, score, view_set_of
from bridge.insight.score_picture import table

TEACHER = SimpleNamespace(classes=3, input_size=(16, 16), rate=None, class_names=None)


def ask(views: np.ndarray) -> np.ndarray:
    """The brighter a channel, the surer of its class."""
    return 8 * views.mean(axis=(1, 2))


def test_uniform_answers_are_as_many_classes_as_there_are() -> None:
    found = measures(np.zeros((2 * GROUP, 7)))
    assert found["effective_classes"] == pytest.approx(7)
    assert found["mean_entropy"] == pytest.approx(math.log(7)) == found["view_entropy"]
    assert found["mutual_information"] == pytest.approx(0, abs=1e-9)
    assert found["confident"] == found["spread"] == 0


def test_always_the_same_sure_class_is_one_class() -> None:
    found = measures(np.tile([50.0, 0, 0, -1e4], (2 * GROUP, 1)))
    assert found["effective_classes"] == pytest.approx(1)
    assert found["confident"] == 1
    assert found["mutual_information"] == pytest.approx(0, abs=1e-9)


def test_sure_answers_that_differ_inform_most() -> None:
    found = measures(100 * np.eye(5)[np.arange(10 * GROUP) % 5])
    assert found["mutual_information"] == pytest.approx(math.log(5))
    assert found["effective_classes"] == pytest.approx(5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.01, 100), st.integers(1, 9), st.integers(1, 200))
def test_of_any_answers_information_lies_between_nothing_and_the_mean_entropy(seed, scale, classes, views) -> None:
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(views, classes))
    found = measures(logits)
    assert 0 <= found["mutual_information"] <= found["mean_entropy"] + 1e-9
    assert found["mean_entropy"] <= math.log(classes) + 1e-9
    shuffled = measures(rng.permutation(logits) + rng.normal(size=(views, 1)))  # and logits know no origin
    for key in set(found) - {"spread"}:
        assert shuffled[key] == pytest.approx(found[key], abs=1e-7)


def test_spread_is_that_of_the_means_of_groups() -> None:
    p = np.repeat([[0.2, 0.8], [0.4, 0.6]], GROUP, axis=0)
    assert measures(np.log(p))["spread"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert math.isnan(measures(np.log(p[: 2 * GROUP - 1]))["spread"])


@pytest.mark.parametrize("logits", [np.full((4, 3), np.nan), np.zeros((0, 3)), np.zeros(4)])
def test_answers_that_cannot_be_measured_are_refused(logits) -> None:
    with pytest.raises(TeacherError):
        measures(logits)


def test_noise_is_denser_than_a_constant() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    flat = np.full_like(noise, 99)
    assert image_density([noise]) > 1 > image_density([flat])
    assert image_density([noise]) > image_density([noise, flat]) > image_density([flat])
    sound = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    assert 1.5 < sound_density(sound, 8000) < 2.5
    assert sound_density(np.zeros(8000, np.float32), 8000) < 0.1


def test_all_of_a_source_s_views_are_asked_about_once_in_batches_of_one_size() -> None:
    config = ScoreConfig(teacher="t", images=("control:noise",))
    view_set = view_set_of(config, TEACHER, "control:noise")
    sizes: list[int] = []

    def counting(views: np.ndarray) -> np.ndarray:
        sizes.append(len(views))
        return ask(views)

    together = answers(ask, view_set, 10, 10)
    np.testing.assert_array_equal(answers(counting, view_set, 10, 4), together)
    assert sizes == [4, 4, 4]


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("colours.png", "folder/a.png", "folder/b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        patches = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(patches).resize((96, 80), Image.Resampling.NEAREST).save(path)
    return tmp_path


def test_sources_are_ranked_by_the_headline_and_drawn(photographs) -> None:
    given = ("control:constant", str(photographs / "folder"), str(photographs / "colours.png"))
    out = photographs / "out"
    found = score(ScoreConfig(teacher="some/net", images=given, views=2 * GROUP, out=str(out)), TEACHER, ask)
    values = [one.figures[HEADLINE] for one in found]
    assert values == sorted(values, reverse=True) and found[-1].name == "control:constant"
    told = json.loads((out / "score.json").read_text())
    assert [one["name"] for one in told["sources"]] == [one.name for one in found]
    assert told["headline"] == HEADLINE and set(MEASURES) < set(told["sources"][0])
    with Image.open(out / "score.png") as picture:
        assert picture.width > 1000 and picture.height > 200
    lines = table(found).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1


def test_sounds_are_scored_too(tmp_path) -> None:
    teacher = SimpleNamespace(classes=2, input_size=(1600,), rate=8000)
    config = ScoreConfig(
        teacher="t", audio=("control:noise", "control:constant"), views=2 * GROUP, out=str(tmp_path), recipe="crop"
    )
    read: list[str] = []

    def audio_set(source: str, *args, **options) -> AudioSet:
        read.append(source)
        return make_audio_set(source, *args, **options)

    found = score(config, teacher, lambda x: np.stack([np.abs(x).max(1), np.abs(np.diff(x)).max(1)], axis=1), audio_set)
    assert {one.name for one in found} == {"control:noise", "control:constant"} == set(read)
    assert (tmp_path / "score.png").is_file()


def test_all_unusable_sources_are_named_in_one_message(photographs) -> None:
    small, empty = photographs / "small.png", photographs / "empty"
    Image.new("RGB", (40, 12)).save(small)
    empty.mkdir()
    given = (str(photographs / "none.jpg"), "control:noise", str(small), str(empty))
    with pytest.raises(DatumError) as refused:
        score(ScoreConfig(teacher="t", images=given), TEACHER, ask)
    for said in ("3 of 4", "none.jpg does not exist", "40 x 12 pixels, smaller than a view of 16 x 16", str(empty)):
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": ("a",)}, "Which teacher"),
        ({"teacher": "t"}, "Which sources"),
        ({"teacher": "t", "images": ("a",), "audio": ("b",)}, "one of them"),
        ({"teacher": "t", "images": ("a",), "views": 5}, "at least 128"),
        ({"teacher": "http://localhost:1/", "images": ("a",)}, "is a service, whose every answer may cost"),
    ],
)
def test_lines_that_cannot_be_scored_are_refused(options, said) -> None:
    with pytest.raises(ConfigError, match=said):
        check_score(ScoreConfig(**options))


def test_images_for_a_teacher_of_sounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes sounds: give its sources by --audio"):
        score(ScoreConfig(teacher="t", images=("a.png",)), SimpleNamespace(input_size=(1600,), rate=8000), ask)
