"""Networks for video through ONNX: what TensorFlow lacks is written otherwise, and all forms answer alike."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.errors import DatasetError, TeacherError
from bridge.teachers.card import Card
from bridge.teachers.engines import ENGINES
from bridge.teachers.options import ConvertConfig
from bridge.teachers.probes import CLIPS_OF_NOISE, Probes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bridge.teachers.depthwise import flat_depthwise  # noqa: E402
from bridge.teachers.runtime import Runtime  # noqa: E402

SIZE = (3, 32, 32)
CARD = Card(3, SIZE, kind="video", layout="NCTHW")


def a_convolution(
    kernel: tuple[int, ...],
    frames: int,
    channels: int = 4,
    groups: int = 4,
    bias: bool = True,
    opset: int = 17,
    **more: Any,
) -> Any:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 4 // groups, *kernel)).astype(np.float32)}
    weights |= {"b": random.normal(size=4).astype(np.float32)} if bias else {}
    node = helper.make_node("Conv", ["clips", *weights], ["scores"], name="conv", group=groups, **more)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("clips", ["batch", 4, frames, 9, 8]), ("scores", None))
    ]
    graph = helper.make_graph(
        [node], "one", ends[:1], ends[1:], [numpy_helper.from_array(value, name) for name, value in weights.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": (3, 3, 3), "frames": 4, "pads": [1] * 6, "strides": [1, 2, 2]},
        {"kernel": (5, 1, 1), "frames": 3, "pads": [2, 0, 0] * 2, "bias": False, "opset": 18},
        {"kernel": (3, 3, 2), "frames": 5, "pads": [0, 1, 0, 1, 0, 1], "strides": [2, 1, 1]},
        {"kernel": (3, 3, 3), "frames": 6},
        {"kernel": (1, 3, 3), "frames": 1, "pads": [0, 1, 1] * 2},
    ],
)
def test_a_convolution_of_each_channel_by_itself_becomes_one_of_images(options: dict[str, Any]) -> None:
    model = a_convolution(**options)
    before = model.SerializeToString()
    flat = flat_depthwise(model)
    assert model.SerializeToString() == before
    of_filters = {tensor.name: len(tensor.dims) for tensor in flat.graph.initializer}
    assert {of_filters[node.input[1]] for node in flat.graph.node if node.op_type == "Conv"} == {4}
    clips = Runtime(model).random_input(3)
    expected, found = Runtime(model)(clips), Runtime(flat)(clips)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_other_convolutions_stay_as_they_are() -> None:
    cases: Any = ({"groups": 1}, {"groups": 2}, {"dilations": [1, 2, 2]}, {"auto_pad": "SAME_UPPER"})
    for options in cases:
        model = a_convolution((3, 3, 3), 4, **options)
        assert [node.op_type for node in flat_depthwise(model).graph.node] == ["Conv"]


def test_real_videos_are_asked_about_and_unreadable_ones_passed_over(tmp_path) -> None:
    from tests.bridge.some_videos import video

    random = np.random.default_rng(0)
    for number in range(2):
        frames = random.integers(0, 256, (64, 40, 48, 3), dtype=np.uint8)
        video(tmp_path / f"{number}.mp4", list(frames))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning, match="skipped 1 of 3 files.*broken.mp4"):
        probes = Probes(CARD, views=5, videos=tmp_path)
    numbers = np.arange(probes.total)
    clips = probes.at(numbers)
    assert clips.shape == (CLIPS_OF_NOISE + 5, *SIZE, 3) and clips.dtype == np.float32
    views = clips[CLIPS_OF_NOISE:]
    assert views.min() >= 0 and 0.2 < views.mean() < 0.8 and len(np.unique(views.reshape(5, -1), axis=0)) == 5
    assert np.array_equal(probes.at(numbers[::-1]), clips[::-1])
    assert probes.described()["views"] == {"n": 5, "source": tmp_path.name, "videos": 2}
    with pytest.raises(TeacherError, match="takes images, not clips"):
        Probes(Card(3, (8, 8)), videos=tmp_path)
    with pytest.raises(DatasetError, match="nowhere"):
        Probes(CARD, videos=tmp_path / "nowhere")


def test_networks_for_video_are_asked_few_clips_unless_told_otherwise() -> None:
    assert (Probes(CARD).views, Probes(CARD, views=3).total) == (12, CLIPS_OF_NOISE + 3)
    assert (Probes(Card(3, (8, 8))).views, Probes(Card(3, (8, 8))).total) == (2048, 2048 + 64)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small X3D as a folder."""
    pytest.importorskip("torch")
    from tests.torch_aip.helpers import randomised
    from torch_aip import models, save_teacher
    from torch_aip.export import to_onnx

    folder = tmp_path_factory.mktemp("video") / "teacher"
    model = randomised(models.build("x3d_xs", classes=3, frames=3, image_size=32, width=0.5, depth=0.2))
    card = save_teacher(model, folder)
    to_onnx(model, folder / "model.onnx")
    dataclasses.replace(card, forms={**card.forms, "onnx": "model.onnx"}).sealed(folder).save(folder)
    return folder


def test_an_x3d_answers_alike_in_every_engine(teacher: Path, capsys) -> None:
    from bridge.cli import main

    assert main(["verify", "--model", str(teacher), "--views", "4"]) == 0
    said = capsys.readouterr().out
    assert "agreement on 4 clips" in said and "tensorflow_onnx_xla   not here: of clips not asked" in said
    from bridge.teachers.parity import read_parity

    report = read_parity(teacher)
    assert report is not None and report["passed"] and report["inputs"]["noise"]["n"] == CLIPS_OF_NOISE
    for name, figures in report["engines"].items():
        if ENGINES[name].missing(teacher, Card.load(teacher)) is None:
            assert figures["relative"] < 1e-4 and figures["agreement"] == 1 and figures["dynamic_batch"]


def test_an_x3d_becomes_a_saved_model_and_tflite(teacher: Path, tmp_path) -> None:
    pytest.importorskip("tensorflow")
    if importlib.util.find_spec("onnx2tf") is None:  # found, not imported: that would choose Keras 2 for all tests
        pytest.skip("onnx2tf is not installed")
    from bridge.teachers.forms import convert

    for to in ("saved_model", "tflite"):
        lines = convert(ConvertConfig(model=str(teacher), to=to, out=str(tmp_path / to), views=2))
        assert lines[1].startswith("Same answer") and "100.00% of 2 views" in lines[1]
    with pytest.raises(TeacherError, match="int8 is for networks that take images"):
        convert(ConvertConfig(model=str(teacher), to="tflite_int8", out=str(tmp_path / "int8"), views=2))
