"""What is told of teachers that are plain functions, sound ones and those with one thing wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from bridge.datum.recipes import recipe
from bridge.datum.video import ClipSet
from bridge.datum.video_recipes import video_recipe
from bridge.datum.views import ViewSet
from bridge.errors import ConfigError, TeacherError
from bridge.insight.checks import Facts, Finding, recommended_temperature, soft_label_entropies
from bridge.insight.options import InspectConfig
from bridge.insight.preflight import check_inspect, inspect, preflight, shown
from bridge.metrics import softmax_log

WEIGHTS = np.random.default_rng(0).normal(size=(3 * 16 * 16, 5)).astype(np.float32)
Function = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def view_set() -> ViewSet:
    """Views of coloured squares."""
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    return ViewSet(image, recipe("cifar", 16))


def sound(views: np.ndarray) -> np.ndarray:
    """A linear teacher that normalises by itself."""
    flat = (np.asarray(views, np.float32) - 0.5).reshape(len(views), -1) * 4
    return flat @ WEIGHTS / 8


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def in_log_space(scores: Function) -> Function:
    """As the backends' teachers answer of what is said to be probabilities or labels."""
    return lambda views: np.log(np.maximum(scores(views), 1e-7))


def told(ask: Function, view_set: ViewSet, level: str = "warning", **facts) -> list[str]:
    return [finding.text for finding in inspect(ask, view_set, Facts(**facts), 64) if finding.level == level]


def test_nothing_is_wrong_with_a_sound_teacher(view_set) -> None:
    found = inspect(sound, view_set, Facts(temperature=2.0), 64)
    assert {finding.level for finding in found} == {"ok", "note"}
    assert any("logits, as is said" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("scores", "outputs", "said"),
    [
        (lambda x: softmax(sound(x)), "logits", "softmax would be taken twice"),
        (lambda x: np.eye(5)[sound(x).argmax(1)], "logits", 'outputs="labels"'),
        (lambda x: 0.5 * (1 + np.tanh(sound(x) / 2)), "logits", "sigmoids"),
        (in_log_space(lambda x: 3 * sound(x)), "probabilities", 'outputs="logits"'),
        (in_log_space(lambda x: softmax(sound(x))), "labels", 'outputs="probabilities"'),
    ],
)
def test_outputs_that_are_not_what_is_said_are_warned_of(scores, outputs, said, view_set) -> None:
    assert any(said in text for text in told(scores, view_set, outputs=outputs))


@pytest.mark.parametrize(
    ("ask", "outputs"),
    [
        (lambda x: softmax_log(sound(x)).astype(np.float32), "logits"),
        (in_log_space(lambda x: softmax(sound(x))), "probabilities"),
        (in_log_space(lambda x: np.eye(5)[sound(x).argmax(1)]), "labels"),
    ],
)
def test_outputs_that_are_what_is_said_are_not(ask, outputs, view_set) -> None:
    assert told(ask, view_set, outputs=outputs) == []


def test_a_batchnorm_that_trains_is_found(view_set) -> None:
    def training(views: np.ndarray) -> np.ndarray:
        logits = sound(views)
        return logits - logits.mean(axis=0)

    assert any("BatchNorm is in training mode" in text for text in told(training, view_set))


def test_dropout_is_found(view_set) -> None:
    rng = np.random.default_rng(0)
    found = told(lambda x: sound(x * (rng.random(x.shape) < 0.5)), view_set)
    assert any("when asked again" in text for text in found)


def test_inputs_in_another_range_are_found(view_set) -> None:
    found = told(lambda x: sound((x - 127.5) / 255 + 0.5), view_set)
    assert any("in [0, 255]" in text and "seems to expect" in text for text in found)


def test_a_sure_teacher_of_one_class_is_not_taken_for_a_wrong_range(view_set) -> None:
    assert told(lambda x: sound(x) * 1e-3 + np.array([9.0, 0, 0, 0, 0]), view_set) == []


def test_dead_classes_are_named(view_set) -> None:
    found = told(lambda x: sound(x) * np.array([1, 1, 0, 1, 0]), view_set)
    assert any("2 of 5 classes" in text and "(2, 4)" in text for text in found)


def test_a_class_that_is_nearly_impossible_on_all_views_is_not_taken_for_dead(view_set) -> None:
    unlikely = in_log_space(lambda x: softmax(sound(x) - 1e3 * np.eye(5)[4]))
    assert told(unlikely, view_set, outputs="probabilities") == []
    same = in_log_space(lambda x: np.tile(np.eye(5)[4], (len(x), 1)))
    assert any("the same answer" in text for text in told(same, view_set, "error", outputs="probabilities"))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda x: sound(x) * np.where(np.arange(len(x)) == 3, np.nan, 1)[:, None], "NaN"),
        (lambda x: np.tile([1.0, 2.0, 3.0], (len(x), 1)), "the same answer"),
    ],
)
def test_what_teaches_nothing_is_refused(ask, said, view_set) -> None:
    with pytest.raises(TeacherError, match=said):
        preflight(ask, view_set, views=32)
    with pytest.raises(TeacherError, match=said):
        shown(inspect(ask, view_set, views=32))


def test_before_a_distillation_only_warnings_are_said(view_set) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        preflight(sound, view_set, views=32)
        assert not caught
        found = preflight(sound, view_set, Facts(source="resnet50 IMAGENET1K_V2"), views=32)
    assert [str(one.message) for one in caught] == [one.text for one in found if one.level == "warning"]
    assert len(caught) == 1 and "strong augmentation" in str(caught[0].message)


@pytest.mark.parametrize("source", ["timm/resnet50.a1_in1k", "trained with MixUp", "ResNet50_Weights.IMAGENET1K_V2"])
def test_strongly_augmented_teachers_are_known_by_name(source, view_set) -> None:
    assert any("strong augmentation" in text for text in told(sound, view_set, source=source))


@pytest.mark.parametrize("source", ["torchvision IMAGENET1K_V1", "timm/resnet18.tv_in1k", "runs/a1/teacher", "ramp"])
def test_plainly_trained_ones_are_not_suspected(source, view_set) -> None:
    assert told(sound, view_set, source=source) == []


def test_a_service_is_asked_nothing_more_than_the_views(view_set) -> None:
    asked: list[int] = []

    def counting(views: np.ndarray) -> np.ndarray:
        asked.append(len(views))
        return sound(views)

    found = inspect(counting, view_set, Facts(costs=True), 50)
    assert sum(asked) == 50
    assert any("asked about 50 views, each of which may cost" in finding.text for finding in found)


def test_of_large_clips_few_are_asked_about_at_once() -> None:
    clips = ClipSet("control:noise", video_recipe(None, 16, 4, "linear"))
    sizes: list[int] = []

    def counting(views: np.ndarray) -> np.ndarray:
        sizes.append(len(views))
        return views.mean(axis=(1, 2, 3))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bridge.measuring._PIXELS", 6 * 4 * 16 * 16)
        inspect(counting, clips, views=20)
    assert max(sizes) == 6


def test_softer_labels_have_more_entropy_and_the_one_nearest_to_half_is_recommended() -> None:
    entropies = soft_label_entropies(6 * np.random.default_rng(0).normal(size=(50, 10)))
    values = list(entropies.values())
    assert values == sorted(values) and values[0] > 0 and values[-1] < 1
    assert recommended_temperature({1: 0.1, 2: 0.45, 4: 0.7}) == 2
    assert recommended_temperature({1: 0.25, 2: 0.75}) == 1


def test_labels_as_good_as_hard_are_warned_of(view_set) -> None:
    found = told(lambda x: 300 * sound(x), view_set, temperature=1.0)
    assert any("as good as hard" in text for text in found)


def test_findings_are_shown_line_by_line() -> None:
    assert shown([Finding("ok", "All well."), Finding("note", "But.")]) == "ok       All well.\nnote     But."


def test_a_line_without_a_teacher_or_with_two_sources_is_refused() -> None:
    with pytest.raises(ConfigError, match="Which teacher"):
        check_inspect(InspectConfig())
    with pytest.raises(ConfigError, match="one of them"):
        check_inspect(InspectConfig(teacher="t", image="a", audio="b"))


def test_no_views_at_all_are_refused(view_set):
    with pytest.raises(ConfigError, match=r"views \(=0\) must be at least 1"):
        inspect(sound, view_set, views=0)
