"""Video in what all backends share: cards, baking ONNX files that take clips, and what such teachers are asked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bridge.errors import TeacherError
from bridge.teachers.bake import bake
from bridge.teachers.card import Card, kind_of
from bridge.teachers.engines import channels_first
from bridge.teachers.onnx_file import facts_of
from bridge.teachers.probes import CLIPS_OF_NOISE, Probes
from bridge.teachers.runtime import Runtime

SIZE = (2, 6, 8)


def a_clip_network(shape: list, axes: list[int]) -> onnx.ModelProto:
    """The mean of each channel as its score."""
    node = helper.make_node("ReduceMean", ["pixels"], ["means"], axes=axes, keepdims=0)
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    gives = helper.make_tensor_value_info("means", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([node], "means", [given], [gives])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "shape, axes, size",
    [
        (["n", *SIZE, 3], [1, 2, 3], None),
        (["n", 3, *SIZE], [2, 3, 4], None),
        (["n", 3, None, None, None], [2, 3, 4], SIZE),
    ],
)
def test_a_file_that_takes_clips_becomes_canonical(shape: list, axes: list[int], size, tmp_path) -> None:
    model = bake(
        a_clip_network(shape, axes), image_size=size, range=(0, 255), mean=(10, 20, 30), std=(1, 2, 4)
    )  # fmt: skip
    facts = facts_of(model)
    assert (facts.kind, facts.input_size, facts.classes) == ("video", SIZE, 3)
    onnx.save(model, tmp_path / "model.onnx")
    clips = np.random.default_rng(0).random((5, 3, *SIZE), dtype=np.float32)
    expected = (255 * clips.mean((2, 3, 4)) - [10, 20, 30]) / [1, 2, 4]
    np.testing.assert_allclose(Runtime(tmp_path / "model.onnx")(clips), expected, rtol=1e-5)


def test_open_frames_are_asked_for() -> None:
    with pytest.raises(TeacherError, match="dynamic frames"):
        bake(a_clip_network(["n", 3, None, 6, 8], [2, 3, 4]))
    with pytest.raises(TeacherError, match="has 2 as its frames; 4 was asked for"):
        bake(a_clip_network(["n", 3, *SIZE], [2, 3, 4]), image_size=(4, 6, 8))


def test_cards_of_video_name_three_sides_and_their_layout() -> None:
    card = Card(3, SIZE, kind="video", layout="NCTHW")
    assert Card.from_dict({**card.__dict__}) == card
    assert [kind_of(size) for size in (SIZE, (6, 8), (16000,), None)] == ["video", "image", "audio", "image"]
    for wrong, said in (
        ({"input_size": (6, 8)}, r"\[frames, height, width\]"),
        ({"layout": "NCHW"}, "NCTHW of video"),
        ({"kind": "image", "input_size": (6, 8)}, "NCTHW of video, and of nothing else"),
        ({"rate": 30}, "rate"),
    ):
        with pytest.raises(TeacherError, match=said):
            Card(**{"classes": 3, "input_size": SIZE, "kind": "video", "layout": "NCTHW", **wrong})


def test_what_video_teachers_are_asked_moves() -> None:
    probes = Probes(Card(3, SIZE, kind="video", layout="NCTHW"), views=4)
    clips = probes.at(np.arange(CLIPS_OF_NOISE, CLIPS_OF_NOISE + 4))
    assert clips.shape == (4, *SIZE, 3) and clips.min() >= 0 and clips.max() <= 1
    assert all(np.abs(clip[0] - clip[1]).max() > 0.01 for clip in clips)
    assert channels_first(clips).shape == (4, 3, *SIZE)
