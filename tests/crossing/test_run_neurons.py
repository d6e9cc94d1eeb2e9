"""Both backends' runs end with pictures of what classes look like to teacher and student."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch

import keras_aip
import torch_aip
from bridge import distilling
from bridge.errors import TeacherError
from bridge.insight import run_neurons
from bridge.insight.options import VisualizeConfig
from bridge.insight.run_neurons import neurons_of_run
from bridge.teachers import Card
from bridge.teachers.asking import Asked
from tests.bridge.onnx_nets import conv_net
from torch_aip.models import small_cnn

BACKENDS = {"keras_aip": keras_aip, "torch_aip": torch_aip}
INSPECTED = {name: importlib.import_module(f"{name}.visualize").Inspected for name in BACKENDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    network: Any = small_cnn(10, width=2, image_size=8)
    place = tmp_path_factory.mktemp("net") / "net"
    torch_aip.save_teacher(network, place)
    return str(place)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_makes_the_same_pictures_and_leaves_the_teacher_as_it_was(backend: str, folder: str) -> None:
    teacher = BACKENDS[backend].load_teacher(folder)
    teacher._digest = None  # to be counted, not read
    before = teacher.digest

    def drawn(seed: int) -> bytes | None:
        def way() -> Any:
            return INSPECTED[backend](teacher, "the teacher", (8, 8))

        return neurons_of_run((way,), None, np.ones(10, int), seed, 1e6).picture

    first = drawn(0)
    assert first is not None and first == drawn(0) != drawn(1)
    teacher._digest = None
    assert teacher.digest == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_ends_with_them(backend: str, folder: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run_neurons, "_LEAST", 1e6)  # however busy the machine is
    monkeypatch.setattr(distilling, "_WORTH_A_LOOK", 1)
    program = importlib.import_module(f"{backend}.cli")
    line = (
        *("distill", "--teacher", folder, "--image", "control:noise", "--student", "small_cnn", "--student-width"),
        *(2, "--dataset", "digits", "--steps-per-epoch", 1, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "r"),
    )
    assert program.main([*map(str, line)]) == 0
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 1
    page = (tmp_path / "r" / "report.html").read_text()
    section = page.partition('id="neurons"')[2].partition("</section>")[0]
    assert section.count("data:image/png") == 1 and "seed 0" in section


class Failing(torch.nn.Module):
    """Answers, but not where a gradient is wanted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise RuntimeError("no derivative\nof this")
        return x.mean((2, 3))


def failing_in_a_graph(x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_sum(x) < 0, ["no derivative\nof this"])]):
        return tf.reduce_mean(x, [1, 2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_fails_is_not_drawn_and_the_report_says_why(backend: str) -> None:
    network = Failing() if backend == "torch_aip" else failing_in_a_graph
    teacher = BACKENDS[backend].Teacher(network, classes=3, input_size=(8, 8))
    found = neurons_of_run((lambda: INSPECTED[backend](teacher, "the teacher"),), None, np.ones(3, int), 0, 1e6)
    assert found.picture is None and found.text.startswith("Not drawn: Nothing can be drawn of the teacher: ")
    assert "\n" not in found.text


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_has_no_gradient_is_refused_and_any_size_is_what_it_is_asked_about(backend: str) -> None:
    made, inspected = BACKENDS[backend].Teacher, INSPECTED[backend]
    network = Failing() if backend == "torch_aip" else failing_in_a_graph
    for teacher in (
        made(Asked(lambda images: images.mean((1, 2))), classes=3, input_size=(8, 8)),
        made(network, classes=3, input_size=(8, 8), outputs="labels"),
    ):
        with pytest.raises(TeacherError, match="No gradient comes through the teacher"):
            inspected(teacher, "the teacher")
    assert inspected(made(network, classes=3), "the teacher", (8, 12)).shape == (8, 12)
    with pytest.raises(TeacherError, match="the teacher takes"):
        inspected(made(network, classes=3), "the teacher")


def test_a_network_out_of_onnx_alone_is_drawn_by_pytorch(tmp_path) -> None:
    onnx.save(conv_net(), str(tmp_path / "model.onnx"))
    Card(classes=5, input_size=(8, 8), forms={"onnx": "model.onnx"}).sealed(tmp_path).save(tmp_path)
    visualize = importlib.import_module("torch_aip.visualize").visualize
    out = tmp_path / "out"
    files = visualize(
        VisualizeConfig(model=str(tmp_path), steps=8, out=str(out), images=("sklearn:china.jpg",), learning_rate=0.1)
    )
    assert [file.name for file in files] == ["neurons.png", "maps.png", "visualize.json"]
    for unit in json.loads((out / "visualize.json").read_text())["units"]:
        assert unit["networks"][0]["after"] > unit["networks"][0]["before"]
