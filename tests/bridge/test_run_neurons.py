"""What a run's report shows of neurons, without a framework: which classes, within which time, and what it says."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridge import distilling
from bridge.errors import TeacherError
from bridge.insight import run_neurons
from bridge.insight.run_neurons import RunNeurons, neurons_of_run
from bridge.insight.visualizing import Found, cannot_draw
from tests.bridge.test_report import HOSTILE, report


def a_network(classes: int = 3, shape: tuple[int, int] = (8, 8), sounds: bool = False, maximise: Any = None) -> Any:
    """A network whose pictures are plain, and which tells what it was asked for."""
    asked: list[Any] = []

    def plain(units, ascent, on_step) -> Found:
        asked.append((units, ascent))
        for _ in range(ascent.steps):
            on_step(1)
        pictures = np.full((len(units), ascent.canvas.height, ascent.canvas.width, 3), 90, np.uint8)
        return Found(pictures, np.zeros(len(units)), np.ones(len(units)), np.zeros((len(units), classes)))  # type: ignore[arg-type]

    about = {"name": "a net", "classes": classes, "class_names": None, "input_size": shape, "shape": shape}
    return SimpleNamespace(**about, sounds=sounds, maximise=maximise or plain, asked=asked)


def drawn(network: Any, names: Any = None, seen: Any = None, seed: int = 0, seconds: float = 0.0) -> RunNeurons:
    seen = np.zeros(network.classes, int) if seen is None else seen
    return neurons_of_run((lambda: network, lambda: network), names, seen, seed, seconds)


def test_of_few_classes_all_are_drawn_and_of_many_those_seen_most() -> None:
    few = a_network()
    found = drawn(few, ["a_b", "$x$\nnew line", HOSTILE], seed=7)
    assert found.picture is not None and found.text.startswith("What each class looks like to teacher and student")
    assert "seed 7" in found.text
    assert Image.open(io.BytesIO(found.picture)).size == (3 * 192 + 2 * 6, 2 * (192 + 36) + 6)
    (units, ascent), (_, of_student) = few.asked
    assert [unit.label for unit in units] == ["a_b", "$x$\nnew line", HOSTILE]
    assert ascent == of_student and ascent.seed == 7 and ascent.canvas.height == 8

    many = a_network(100)
    assert "of the 10 classes the teacher saw most" in drawn(many, seen=np.arange(100) // 2).text
    assert [unit.index for unit in many.asked[0][0]] == [98, 99, 96, 97, 94, 95, 92, 93, 90, 91]


def test_large_pictures_are_fewer_and_smaller_than_the_network_takes_them() -> None:
    large = a_network(20, (224, 224))
    drawn(large)
    units, ascent = large.asked[0]
    assert len(units) == 5 and (ascent.canvas.height, ascent.shown) == (96, (224, 224))
    words = a_network(20, (40, 98), sounds=True)
    assert "sounds like to teacher and student: a spectrogram" in drawn(words).text
    assert len(words.asked[0][0]) == 10 and words.asked[0][1].canvas.width == 98


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (cannot_draw("the teacher", "no kernel\nand much more"), "Nothing can be drawn of the teacher: no kernel"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_what_can_go_wrong_is_a_line_in_the_report(error: Exception, said: str) -> None:
    def failing(*_: Any) -> Found:
        raise error

    found = drawn(a_network(maximise=failing))
    assert found.picture is None and found.text.startswith("Not drawn: ") and said in found.text
    assert "\n" not in found.text


def test_mistakes_of_ours_are_not_taken_for_it() -> None:
    def mistaken(*_: Any) -> Found:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        drawn(a_network(maximise=mistaken))


def test_a_network_that_gives_no_numbers_is_not_drawn() -> None:
    def broken(units, ascent, on_step) -> Found:
        return Found(*(np.full((len(units), 3), np.nan) for _ in range(4)))  # type: ignore[arg-type]

    assert "no number" in drawn(a_network(maximise=broken)).text


def test_what_would_take_too_long_ends_after_three_steps(monkeypatch) -> None:
    done = []

    def slow(units, ascent, on_step) -> Found:
        for step in range(ascent.steps):
            until = time.process_time() + 0.002
            while time.process_time() < until:
                pass
            done.append(step)
            on_step(1)
        raise TeacherError("it went on")

    monkeypatch.setattr(run_neurons, "_LEAST", 0.01)
    found = drawn(a_network(maximise=slow))
    assert found.picture is None and "it would take about" in found.text and done == [0, 1, 2]
    # a long run has time for it
    assert "it went on" in drawn(a_network(maximise=slow), seconds=1e4).text


def of_run(teacher: Any, view_set: Any = None, smoke: bool = False, epochs: int = 100, backend: Any = None) -> Any:
    """What `finish` gives to the report where nothing can or shall be drawn; a backend that is asked fails."""
    prepared: Any = SimpleNamespace(view_set=view_set, steps=1)
    config: Any = SimpleNamespace(smoke=smoke, epochs=epochs, seed=0)
    run: Any = SimpleNamespace(seconds=1.0, path=Path())
    return distilling._neurons(run, config, backend or SimpleNamespace(), teacher, prepared, np.zeros(4, int), [])


def test_smoke_runs_and_teachers_without_gradient_cost_nothing() -> None:
    network = {"asked": None, "outputs": "logits", "classes": 3}
    assert of_run(SimpleNamespace(**network), smoke=True) is None
    assert of_run(SimpleNamespace(**network), epochs=10) is None  # which has learned nothing yet
    for change, said in (({"asked": object()}, "is a service"), ({"outputs": "labels"}, "answers in labels")):
        found = of_run(SimpleNamespace(**{**network, **change}))
        assert found.picture is None and said in found.text


def test_whatever_fails_while_they_are_drawn_the_run_has_its_result() -> None:
    def mistaken(*_: Any) -> Any:
        raise ZeroDivisionError("ours\nwith more")

    teacher = SimpleNamespace(asked=None, outputs="logits", classes=3)
    views = SimpleNamespace(recipe=SimpleNamespace(shape=(8, 8, 3)))
    with pytest.warns(UserWarning, match="ZeroDivisionError: ours"):
        found = of_run(teacher, views, backend=SimpleNamespace(inspected=mistaken))
    assert found.picture is None and found.text == "Not drawn: ZeroDivisionError: ours"


def test_the_report_shows_the_picture_with_its_text_or_the_text_alone(tmp_path) -> None:
    picture = drawn(a_network()).picture
    page, html = report(tmp_path, neurons=RunNeurons(picture, f"What it shows {HOSTILE}"))
    assert "neurons" in page.ids and HOSTILE in page.text and HOSTILE not in html
    assert f"data:image/png;base64,{base64.b64encode(picture or b'').decode()}" in page.images
    page, _ = report(tmp_path, neurons=RunNeurons(None, "Not drawn: it is a service."))
    assert "Not drawn: it is a service." in page.text and len(page.images) == 1
    assert "neurons" not in report(tmp_path)[0].ids
