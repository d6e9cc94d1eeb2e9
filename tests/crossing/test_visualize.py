"""Both backends draw what a unit likes best, the same from the same parameters, and look where the other one looks."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from PIL import Image

import keras_aip
import torch_aip
from bridge.errors import AipError
from bridge.insight.neurons import Canvas
from bridge.insight.options import VisualizeConfig
from torch_aip.models import small_cnn

BACKENDS = {name: importlib.import_module(f"{name}.visualize") for name in ("keras_aip", "torch_aip")}
NAMES = ["cat", "dog", "giant panda"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A random network; every class has something that it likes, and not only things it does not."""
    torch.manual_seed(0)
    network: Any = small_cnn(3, width=4, image_size=16)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(2)
        network.fc.weight.sub_(network.fc.weight.mean(dim=1, keepdim=True))
    place = tmp_path_factory.mktemp("net") / "net"
    torch_aip.save_teacher(network, place, class_names=NAMES)
    return str(place)


def drawn(backend: str, out: Path, **options) -> tuple[bytes, list[dict]]:
    """neurons.png, and what visualize.json tells of the units."""
    options = {"steps": 12, "learning_rate": 0.1, **options}
    files = BACKENDS[backend].visualize(VisualizeConfig(out=str(out), **options))
    assert files[-1] == out / "visualize.json" and all(file.is_file() for file in files)
    return (out / "neurons.png").read_bytes(), json.loads(files[-1].read_text())["units"]


@pytest.mark.parametrize("canvas", [Canvas(9, 12, decay=1.5), Canvas(8, 7, channels=1, level=0.25)])
def test_the_same_parameters_are_the_same_picture(canvas: Canvas) -> None:
    parameters = 30 * canvas.first(0, [0, 5])
    expected = canvas.pixels(parameters)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(BACKENDS["keras_aip"].pixels(tf.constant(parameters), canvas), expected, atol=2e-6)
    np.testing.assert_allclose(BACKENDS["torch_aip"].pixels(torch.from_numpy(parameters), canvas), expected, atol=2e-6)


def test_both_give_parameters_the_same_gradient() -> None:
    canvas = Canvas(6, 7)
    parameters = canvas.first(0, [1])
    wished = np.random.default_rng(0).normal(size=(1, 3, 6, 7)).astype(np.float32)
    watched = tf.Variable(tf.constant(parameters))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(BACKENDS["keras_aip"].pixels(watched, canvas) * wished)
    ours = np.asarray(tape.gradient(value, watched))
    given = torch.from_numpy(parameters).requires_grad_()
    (BACKENDS["torch_aip"].pixels(given, canvas) * torch.from_numpy(wished)).sum().backward()
    np.testing.assert_allclose(ours, np.asarray(given.grad), atol=1e-5)
    # only what no real picture has, such as a phase of the mean, has none
    assert (ours != 0).mean() > 0.8


@pytest.mark.parametrize("backend", BACKENDS)
def test_ascent_raises_what_is_asked_for_and_a_seed_makes_one_picture(backend: str, folder: str, tmp_path) -> None:
    first, units = drawn(backend, tmp_path / "a", model=folder, student=folder)
    assert [unit["label"] for unit in units] == NAMES
    for unit in units:
        teacher, student = unit["networks"]
        assert teacher["after"] > teacher["before"] + 1 and teacher["probability"] > 0.6
        assert teacher == student
    again, _ = drawn(backend, tmp_path / "b", model=folder, student=folder)
    other, _ = drawn(backend, tmp_path / "c", model=folder, student=folder, seed=1)
    assert again == first != other


def test_channels_and_photographs_are_drawn_alike(folder: str, tmp_path) -> None:
    pictures = {}
    layer = next(name for name, width in BACKENDS["torch_aip"].inspected(folder).layers().items() if "conv" in name)
    for backend in BACKENDS:
        _, units = drawn(
            backend, tmp_path / backend, model=folder, channels=f"{layer}:1", image_size=20, steps=6,
            images=("sklearn:china.jpg", "sklearn:flower.jpg"),
        )  # fmt: skip
        assert units[0]["networks"][0]["after"] > units[0]["networks"][0]["before"]
        assert Image.open(tmp_path / backend / "maps.png").size == (2 * 192 + 6, 2 * (192 + 36) + 6)
        pictures[backend] = np.asarray(Image.open(tmp_path / backend / "neurons.png")).astype(int)
    assert np.abs(pictures["keras_aip"] - pictures["torch_aip"]).mean() < 3


def test_both_look_at_the_same_places(folder: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for classes in (None, [1, 2]):
        (a, scores), (b, same) = (module.inspected(folder).maps(images, classes) for module in BACKENDS.values())
        np.testing.assert_allclose(scores, same, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(a.max(), 1e-3))
        assert a.shape[0] == 2 and a.min() >= 0


def test_the_spectrogram_a_word_likes_is_of_tensorflow(tmp_path) -> None:
    front_end = {"kind": "mfcc", "coefficients": 10}
    model = keras_aip.models.dscnn_s(3, samples=3200, front_end=front_end)
    keras_aip.save_teacher(model, tmp_path / "net", class_names=["_silence_", "yes", "no"])
    options = {"model": str(tmp_path / "net"), "units": "yes", "steps": 5}
    first, units = drawn("keras_aip", tmp_path / "a", **options)
    assert units[0]["networks"][0]["after"] > units[0]["networks"][0]["before"]
    assert first == drawn("keras_aip", tmp_path / "b", **options)[0]
    for backend, given, said in (
        ("torch_aip", options, "networks for audio are Keras's only"),
        ("keras_aip", {**options, "images": ("sklearn:china.jpg",)}, "takes sounds"),
        ("keras_aip", {**options, "image_size": 64}, "takes sounds"),
    ):
        with pytest.raises(AipError, match=said):
            drawn(backend, tmp_path / "c", **given)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_line_ends_in_one_message(backend: str, folder: str, tmp_path, capsys) -> None:
    program = importlib.import_module(f"{backend}.cli")
    (tmp_path / "empty").mkdir()
    for options, said in (
        (("--units", "cow"), "which has 3 (0 to 2)"),
        (("--units", "7"), "it has 3, 0 to 2"),
        (("--channels", "nowhere:1"), "has no layer 'nowhere'"),
        (("--images", str(tmp_path / "empty")), "a folder without pictures"),
        (("--steps", "0"), "at least 1"),
    ):
        assert program.main(["visualize", "--model", folder, "--out", str(tmp_path / "out"), *options]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
