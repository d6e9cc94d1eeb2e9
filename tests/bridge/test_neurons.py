"""Pictures that units like best: their parameters, moves, units, photographs and grids, without a framework."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridge.errors import ConfigError, DatumError
from bridge.insight.neuron_grid import neuron_grid_for_report, overlaid
from bridge.insight.neurons import COLOURS, Ascent, Canvas, sampler
from bridge.insight.options import VisualizeConfig
from bridge.insight.visualizing import class_names, photographs, units_of, visualize

NAMES = [f"thing {k}" for k in range(8)] + ["giant_panda", "red panda"]


def a_network(**changes) -> Any:
    about = {"name": "a folder", "classes": 10, "class_names": NAMES, "input_size": (8, 8), "shape": (8, 8)}
    return SimpleNamespace(**{**about, "sounds": False, "layers": lambda: {"conv1": 4, "layer1.0.conv1": 8}, **changes})


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 3)])
def test_pictures_are_real_of_the_size_asked_for_and_never_leave_the_range(size: tuple[int, int]) -> None:
    canvas = Canvas(*size)
    parameters = canvas.first(0, [3, 4])
    assert parameters.shape == (2, 3, size[0], size[1] // 2 + 1, 2)
    for strength in (1, 1e6):
        pictures = canvas.pixels(strength * parameters)
        assert pictures.shape == (2, 3, *size) and pictures.dtype == np.float32
        assert pictures.min() >= 0 and pictures.max() <= 1 and np.isfinite(pictures).all()


def test_a_picture_begins_as_weak_noise_about_its_level() -> None:
    for level in (0.5, 0.25):
        picture = Canvas(32, 32, level=level).pixels(Canvas(32, 32).first(0, [0]))
        assert abs(picture.mean() - level) < 0.02 and 0 < picture.std() < 0.05


def test_the_first_picture_depends_on_seed_and_unit_alone() -> None:
    canvas = Canvas(6, 6)
    together = canvas.first(5, [1, 2, 3])
    np.testing.assert_array_equal(together[1], canvas.first(5, [2])[0])
    assert np.abs(together[0] - together[1]).max() > 0.001
    assert np.abs(together - canvas.first(6, [1, 2, 3])).max() > 0.001


def test_a_wave_is_as_high_on_every_canvas_and_weaker_in_proportion_to_its_frequency() -> None:
    def height(side: int, waves: int, decay: float = 1.0) -> float:
        canvas = Canvas(side, side, channels=1, decay=decay)
        parameters = np.zeros((1, 1, side, side // 2 + 1, 2), np.float32)
        parameters[..., 0, waves, 0] = 0.1
        picture = canvas.pixels(parameters).astype(np.float64)
        return float(np.log(picture / (1 - picture)).max())

    assert height(16, 1) == pytest.approx(height(64, 1), rel=1e-3)
    assert height(64, 4) == pytest.approx(height(64, 1) / 4, rel=1e-3)
    assert height(64, 4, decay=2) == pytest.approx(height(64, 1, decay=2) / 16, rel=1e-3)


def test_the_first_of_the_unrelated_channels_is_brightness() -> None:
    brightness, others = COLOURS[:, 0], COLOURS[:, 1:]
    assert np.ptp(brightness) < 0.05 < brightness.min()
    assert np.abs(others).max() < brightness.min() and np.linalg.matrix_rank(COLOURS) == 3


def test_resampling_keeps_what_is_of_the_same_size_and_any_plain_colour() -> None:
    np.testing.assert_allclose(sampler(9, 9), np.eye(9), atol=1e-6)
    for matrix in (sampler(8, 20), sampler(20, 8), sampler(8, 8, 1.3, 0.2), sampler(8, 8, 0.5, -0.5)):
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
        assert matrix.min() >= 0


def test_resampling_moves_and_enlarges_about_the_middle() -> None:
    picture = np.arange(16, dtype=np.float32)
    np.testing.assert_allclose((sampler(16, 16, move=0.125) @ picture)[:14], picture[2:], atol=1e-5)
    enlarged = sampler(16, 16, zoom=2) @ picture
    assert enlarged.mean() == pytest.approx(picture.mean()) and np.ptp(enlarged) == pytest.approx(7.5)


def test_moves_are_those_of_the_seed_within_their_bounds_and_spectrograms_move_in_time_alone() -> None:
    ascent = Ascent(4, 0.1, 0.1, 0.2, 0, Canvas(20, 30), (20, 30))
    first = ascent.views(0)
    for again, same in (
        (Ascent(9, 0.1, 0.1, 0.2, 0, Canvas(20, 30), (20, 30)).views(0), True),
        (ascent.views(1), False),
    ):
        assert all(np.array_equal(a, b) == same for a, b in zip(first, again))
    line = np.arange(300, dtype=np.float32)
    wide = Ascent(4, 0.1, 0.1, 0.2, 0, Canvas(300, 300), (300, 300))
    middles = [float((wide.views(step)[1] @ line)[149:151].mean()) for step in range(40)]
    assert 20 < max(abs(np.array(middles) - 149.5)) <= 30.5
    sound = Ascent(4, 0.1, 0.1, 0.2, 0, Canvas(20, 30), (20, 30), moves_up=False)
    np.testing.assert_allclose(sound.views(3)[0], np.eye(20), atol=1e-6)
    assert not np.allclose(sound.views(3)[1], np.eye(30))


def test_units_are_found_by_number_and_by_name() -> None:
    def found(**options):
        units = units_of(VisualizeConfig(model="x", **options), [a_network()], NAMES)
        return [(unit.layer, unit.index) for unit in units]

    assert found() == [(None, k) for k in range(10)]
    assert found(units="3, 0,3") == [(None, 3), (None, 0)]
    assert found(units="Giant Panda,red_panda") == [(None, 8), (None, 9)]
    assert found(units=8) == found(units=[8]) == [(None, 8)]
    assert found(channels="layer1.0.conv1:7") == [("layer1.0.conv1", 7)]
    assert found(units="1", channels="conv1:0,conv1:3") == [(None, 1), ("conv1", 0), ("conv1", 3)]


def test_classes_are_shown_under_the_names_they_have_and_the_exact_one_is_found_first() -> None:
    names = ["a b", "a_b", "$x$", "n01440764", "", "_silence_", *"ghij"]
    readable = class_names(a_network(class_names=names), None) or []
    assert readable[:3] + readable[4:] == names[:3] + names[4:]  # and of WordNet in words, where timm is there

    def found(units: str) -> list[tuple[int, str]]:
        return [
            (one.index, one.label) for one in units_of(VisualizeConfig(model="x", units=units), [a_network()], names)
        ]

    assert found("a_b,a b,A_B") == [(1, "a_b"), (0, "a b"), (0, "a b")]
    assert found("$X$,silence ") == [(2, "$x$"), (5, "_silence_")]
    picture = np.zeros((8, 8, 3), np.uint8)
    titles = ["$x$ $\\frac$", "", "two\nlines", "日本 <b>"]
    assert neuron_grid_for_report([[picture] * 4], titles, [titles]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": "10"}, "it has 10, 0 to 9"),
        ({"units": "-1"}, "it has 10, 0 to 9"),
        ({"units": "giant pandaa"}, "Did you mean 'giant panda'"),
        ({"units": "1,,2"}, "empty part"),
        ({"channels": "conv1"}, "LAYER:INDEX"),
        ({"channels": "conv7:0"}, "it has conv1, layer1.0.conv1. Did you mean 'conv1'"),
        ({"channels": "conv1:4"}, "has 4 channels, 0 to 3"),
    ],
)
def test_a_unit_that_does_not_exist_is_refused_with_what_there_is(options: dict, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        units_of(VisualizeConfig(model="x", **options), [a_network()], NAMES)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_what_cannot_be_asked_of_networks_is_refused() -> None:
    many = a_network(classes=1000, class_names=None)
    with pytest.raises(ConfigError, match="Which of the 1,000 classes"):
        units_of(VisualizeConfig(model="x"), [many], None)
    with pytest.raises(ConfigError, match="names are unknown here"):
        units_of(VisualizeConfig(model="x", units="panda"), [many], None)
    with pytest.raises(ConfigError, match="10 classes, a folder for 7"):
        units_of(VisualizeConfig(model="x"), [a_network(), a_network(classes=7)], None)
    with pytest.raises(ConfigError, match="shows no layers here"):
        units_of(VisualizeConfig(model="x", channels="a:1"), [a_network(layers=dict)], None)
    for options, said in (
        ({"model": None}, "--model FOLDER"), ({"steps": 0}, "at least 1"), ({"jitter": 0.6}, "--jitter"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            visualize(VisualizeConfig(**{"model": "x", **options}), lambda *_: a_network())


def test_names_come_from_the_network_or_else_from_the_data_set() -> None:
    nameless = a_network(class_names=None)
    assert class_names(a_network(), "cifar10") == NAMES and class_names(nameless, None) is None
    assert (class_names(nameless, "cifar10") or [])[3] == "cat"
    with pytest.raises(ConfigError, match="cifar100 has 100 classes"):
        class_names(nameless, "cifar100")
    with pytest.raises(ConfigError, match="Did you mean 'cifar10'"):
        class_names(nameless, "cifar_10")


def test_photographs_come_from_files_and_folders(tmp_path) -> None:
    for name in ("b.png", "a.jpg"):
        Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / name)
    assert [name for name, _ in photographs([str(tmp_path), str(tmp_path / "b.png")])] == ["a", "b", "b"]
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.warns(UserWarning, match=r"note\.txt"):
        photographs([str(tmp_path)])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatumError, match="a folder without pictures"):
        photographs([str(empty)])
    with pytest.raises(DatumError, match="does not exist"):
        photographs([str(tmp_path / "absent.png")])


def test_a_grid_has_a_row_for_each_network_and_wraps() -> None:
    pictures = [np.full((32, 32, 3), 20 * k, np.uint8) for k in range(6)]
    texts = [["a caption that is far too long for such a narrow cell"] * 6] * 2

    def size(**options):
        return Image.open(io.BytesIO(neuron_grid_for_report([pictures] * 2, ["title"] * 6, texts, **options))).size

    assert size() == (6 * 130 + 5 * 6, 2 * (96 + 36) + 6)
    assert size(columns=4) == (3 * 130 + 2 * 6, 4 * (96 + 36) + 3 * 6)
    with pytest.raises(DatumError, match=r"\[6, 5\] pictures for 6 titles"):
        neuron_grid_for_report([pictures, pictures[1:]], ["title"] * 6, texts)


def test_a_map_is_hot_where_it_is_largest_and_grey_elsewhere() -> None:
    image = np.broadcast_to(np.array([0, 0, 150], np.uint8), (40, 60, 3))
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0] = 5
    drawn = overlaid(image, heat).astype(int)
    assert drawn[2, 2, 0] > 150 and np.ptp(drawn[-2, -2]) == 0
    assert np.ptp(overlaid(image, 0 * heat), axis=-1).max() == 0
