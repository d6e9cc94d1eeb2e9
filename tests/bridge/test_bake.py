"""Baking: whatever a user's ONNX classifier wants, the canonical file gives it, and gives the same scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import TeacherError
from bridge.teachers.bake import bake
from bridge.teachers.front_end import Mfcc
from bridge.teachers.onnx_file import facts_of
from tests.bridge.onnx_nets import CLASSES, Step, a_model, conv_net, conv_steps, node, numbers

NCHW, NHWC = ("batch", 3, 8, 8), ("batch", 8, 8, 3)


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0])


def images(count: int = 4, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(7).random((count, 3, *size), dtype=np.float32)


def same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


def source(
    dims: Any = NCHW, after: list[Step] | None = None, before: list[Step] | None = None, **more: Any
) -> onnx.ModelProto:
    """The convolutional net as somebody's own: input ``x``, output ``y``; steps before take x and give ``ready``."""
    steps, constants = conv_steps("ready" if before else "x", "logits" if after else "y")
    constants |= more.pop("constants", {})
    return a_model([*(before or []), *steps, *(after or [])], constants, dims, names=("x", "y"), **more)


TO_NCHW: Step = ("Transpose", ["x"], ["ready"], {"perm": [0, 3, 1, 2]})


def refused(message: str, model: onnx.ModelProto, **options: Any) -> None:
    with pytest.raises(TeacherError, match=message):
        bake(model, **options)


@settings(max_examples=25, deadline=None)
@given(
    nhwc=st.booleans(),
    span=st.sampled_from([(0, 1), (0, 255), (-1, 1), (0.5, 2.5)]),
    normalised=st.booleans(),
    mean=st.lists(st.floats(-2, 130), min_size=3, max_size=3),
    std=st.lists(st.floats(0.1, 70), min_size=3, max_size=3),
    batch=st.sampled_from(["batch", 1, 2, 5]),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)).filter(lambda size: 3 not in size),
    opset=st.sampled_from([11, 13, 17, 18, 21]),
)
def test_baking_equals_preparing_by_hand(
    nhwc: bool, span: Any, normalised: bool, mean: list[float], std: list[float], batch: Any, size: Any, opset: int
) -> None:
    dims = (batch, *size, 3) if nhwc else (batch, 3, *size)
    model = source(dims, before=[TO_NCHW] if nhwc else None, opset=opset)
    options: dict[str, Any] = {"mean": mean, "std": std} if normalised else {}
    baked = bake(model, range=span, **options)
    facts = facts_of(baked)
    assert (facts.input_size, facts.classes, facts.opset) == (size, CLASSES, opset if opset < 18 and opset > 12 else 17)
    rows = images(10, size)
    prepared = rows.astype(np.float64) * (span[1] - span[0]) + span[0]
    if normalised:
        prepared = (prepared - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    prepared = (prepared.transpose(0, 2, 3, 1) if nhwc else prepared).astype(np.float32)
    step = batch if isinstance(batch, int) else 10
    expected = np.concatenate([run(model, prepared[start : start + step]) for start in range(0, 10, step)])
    same(run(baked, rows), expected, 1e-4)


def test_a_canonical_model_stays_as_it_is() -> None:
    model = conv_net()
    before = model.SerializeToString()
    baked = bake(model)
    assert model.SerializeToString() == before
    assert [entry.op_type for entry in baked.graph.node] == [entry.op_type for entry in model.graph.node]
    assert facts_of(baked) == facts_of(model)
    same(run(baked, images()), run(model, images()), 0)


def test_the_normalisation_is_one_product_and_one_sum_not_counted_as_weights() -> None:
    baked = bake(source(), range=(0, 255), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    kinds = [entry.op_type for entry in baked.graph.node]
    assert kinds[:2] == ["Mul", "Add"] and kinds.count("Mul") == 1
    scale = next(numpy_helper.to_array(t) for t in baked.graph.initializer if t.name in baked.graph.node[0].input)
    np.testing.assert_array_equal(scale.ravel(), (255 / np.array([58.395, 57.12, 57.375])).astype(np.float32))
    assert facts_of(baked).parameters == facts_of(bake(source())).parameters


@pytest.mark.parametrize(
    "names", [("scores", "images"), ("w", "scores"), ("images", "baked_in_0"), ("x", "inner_images")]
)
def test_names_that_collide_are_kept_apart(names: tuple[str, str]) -> None:
    taken, given = names
    steps, constants = conv_steps(taken, given)
    steps = [(op, ["images_" if name == "w" else name for name in i], o, more) for op, i, o, more in steps]
    constants["images_"] = constants.pop("w")
    model = a_model(steps, constants, NHWC, names=names)
    model.graph.node.insert(0, helper.make_node("Transpose", [taken], ["images__"], perm=[0, 3, 1, 2]))
    model.graph.node[1].input[0] = "images__"
    same(run(bake(model), images()), run(model, images().transpose(0, 2, 3, 1)))


# --- layout and size ------------------------------------------------------------------------------------------------


def test_a_layout_that_cannot_be_told_has_to_be_given() -> None:
    refused(r"\[batch, 3, 8, 3\]|\[\?, 3, 8, 3\]: both of axes.*--layout", source(("batch", 3, 8, 3)))
    refused(r"none of axes 1 and 3 .*--layout", source(("batch", 4, 8, 8), constants={"w": numbers(4, 4, 3, 3)}))
    refused("layout is 'CHW'", source(), layout="CHW")
    refused(r"in NHWC 8 channels; expected 3", source(), layout="NHWC")
    model = source(("batch", 3, 8, 3))
    assert facts_of(bake(model, layout="NCHW")).input_size == (8, 3)


def test_open_sides_are_taken_from_image_size() -> None:
    model = source(("batch", 3, "h", "w"))
    refused("dynamic height. Give it with --image-size", model)
    assert facts_of(bake(model, image_size=(6, 7))).input_size == (6, 7)
    assert facts_of(bake(model, image_size=6)).input_size == (6, 6)
    refused("has 8 as its height; 9 was asked for", source(), image_size=9)
    open_channels = source(("batch", "h", "w", "c"), before=[TO_NCHW])
    same(
        run(bake(open_channels, layout="NHWC", image_size=8), images()),
        run(open_channels, images().transpose(0, 2, 3, 1)),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": (1, 0)}, "range is"),
        ({"range": (0, 0.5, 1)}, "range is"),
        ({"mean": (0, 0, 0)}, "together"),
        ({"mean": (0, 0), "std": (1, 1)}, "mean is"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, "greater than 0"),
        ({"mean": (0, float("nan"), 0), "std": (1, 1, 1)}, "finite"),
        ({"outputs": "logit"}, "outputs is 'logit'"),
        ({"image_size": (8,)}, "image_size is"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    refused(message, source(), **options)


# --- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_models_of_other_floats_get_casts(kind: int) -> None:
    cast: Step = ("Cast", ["x"], ["ready"], {"to": TensorProto.FLOAT})
    after: Step = ("Cast", ["logits"], ["y"], {"to": kind})
    model = source(before=[cast], after=[after], types=(kind, kind))
    same(run(bake(model), images()), run(conv_net(), images()), 5e-3)


def test_models_of_bytes_get_rounded_pixels() -> None:
    cast: Step = ("Cast", ["x"], ["ready"], {"to": TensorProto.FLOAT})
    model = source(before=[cast], types=(TensorProto.UINT8, TensorProto.FLOAT))
    refused("takes whole numbers; say which with --range 0 255", model)
    expected = run(model, np.rint(images() * 255).astype(np.uint8))
    same(run(bake(model, range=(0, 255)), images()), expected)


# --- outputs --------------------------------------------------------------------------------------------------------


def test_scores_with_axes_of_length_1_are_flattened() -> None:
    axes = {"axes": np.array([2, 3])}
    model = source(after=[("Unsqueeze", ["logits", "axes"], ["y"], {})], constants=axes, given=("batch", CLASSES, 1, 1))
    same(run(bake(model), images()), run(model, images())[:, :, 0, 0])


def test_a_final_softmax_is_no_logits() -> None:
    for tail in ([("Softmax", ["logits"], ["y"], {"axis": 1})],
                 [("Softmax", ["logits"], ["s"], {"axis": 1}), ("Identity", ["s"], ["y"], {})]):  # fmt: skip
        model = source(after=tail)
        refused("Softmax node 'node_[sy]'.*--outputs probabilities", model)
        same(run(bake(model, outputs="probabilities"), images()).sum(1), np.ones(4, np.float32))
    with pytest.warns(UserWarning, match="does not end with a Softmax"):
        bake(source(), outputs="probabilities")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bake(source())


def test_labels_become_a_column() -> None:
    tail: list[Step] = [("ArgMax", ["logits"], ["y"], {"axis": 1, "keepdims": 0})]
    types = (TensorProto.FLOAT, TensorProto.INT64)
    model = source(after=tail, types=types, given=("batch",))
    expected = run(model, images())[:, None].astype(np.float32)
    baked = bake(model, outputs="labels")
    same(run(baked, images()), expected)
    # onnx2torch cannot flatten what has one axis.
    assert "Flatten" not in [node.op_type for node in baked.graph.node if node.name.startswith("baked_")]
    refused(r"output 'y' has the shape \[3\] for 3 inputs; expected scores", model)
    refused("expected class numbers", source(), outputs="labels")


def test_of_several_outputs_one_has_to_be_chosen() -> None:
    model = source()
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["batch", 4]))
    refused("gives 2 outputs: y, f. Choose one with --output NAME", model)
    refused("no output 'z'; it gives y, f", model, output="z")
    same(run(bake(model, output="y"), images()), run(conv_net(), images()))
    features = bake(model, output="f")
    assert facts_of(features).classes == 4
    assert "Gemm" not in [entry.op_type for entry in features.graph.node]
    assert "fc" not in [tensor.name for tensor in features.graph.initializer]


def test_scores_that_are_not_finite_are_refused() -> None:
    model = source(after=[("Log", ["logits"], ["y"], {})])
    refused("NaN or infinite scores for random inputs", model)


# --- the batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [[1, 4], [1, -1], [0, 4], "allowzero"])
@pytest.mark.parametrize("as_node", [True, False])
def test_a_batch_written_into_a_reshape_is_opened(target: Any, as_node: bool) -> None:
    strict, target = target == "allowzero", [1, -1] if target == "allowzero" else target
    model = source((1, 3, 8, 8), given=(1, CLASSES))
    flatten = node(model, "Flatten")
    flatten.op_type = "Reshape"
    del flatten.attribute[:]
    if strict:  # as PyTorch writes it
        flatten.attribute.append(helper.make_attribute("allowzero", 1))
    flatten.input.append("target")
    shape = numpy_helper.from_array(np.array(target), "target")
    if as_node:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["target"], value=shape))
    else:
        model.graph.initializer.append(shape)
    baked = bake(model)
    same(run(baked, images()), run(conv_net(), images()))
    read = {name for entry in baked.graph.node for name in entry.input}
    assert {tensor.name for tensor in baked.graph.initializer} <= read


def test_a_batch_that_cannot_be_opened_is_refused_with_its_node() -> None:
    # A token in front of the others, stretched to the batch the exporter saw, as vision transformers have it.
    token = {"token": numbers(1, 1, seed=9), "wide": numbers(CLASSES, CLASSES + 1, seed=8)}
    tail: list[Step] = [
        ("Concat", ["token", "logits"], ["both"], {"axis": 1}),
        ("Gemm", ["both", "wide"], ["y"], {"transB": 1}),
    ]
    refused("fixed batch baked in at the node 'node_both'.*Concat", source((1, 3, 8, 8), tail, constants=token))
    refused("fixed batch baked in at the node 'node_both'", source(NCHW, tail, constants=token))


def test_scores_that_depend_on_the_batch_are_refused_with_the_node() -> None:
    tail: list[Step] = [("ReduceMean", ["logits"], ["m"], {"axes": [0]}), ("Sub", ["logits", "m"], ["y"], {})]
    refused("baked in at the node 'node_[my]': an input gets other scores in a batch of 3", source(after=tail))


# --- operator sets --------------------------------------------------------------------------------------------------


def test_an_operator_set_that_cannot_go_down_is_kept() -> None:
    model = source(after=[("Gelu", ["logits"], ["y"], {})], opset=20)
    assert facts_of(bake(model)).opset == 20


def test_an_operator_set_that_fits_nowhere_is_refused() -> None:
    if onnx.defs.onnx_opset_version() < 22:
        pytest.skip("this onnx knows no such operator set")
    model = source(after=[("HardSwish", ["logits"], ["g"], {}), ("Gelu", ["g"], ["y"], {})], opset=22)
    refused("uses opset 22 .* could not be converted to 17.*Export it with an opset from 13 to 21", model)


def test_nothing_of_the_exporters_machine_stays() -> None:
    model = source()
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = "/home/somebody/net.py"
    model.metadata_props.add(key="trace", value="/home/somebody/net.py")
    assert b"somebody" not in bake(model).SerializeToString()


# --- audio ----------------------------------------------------------------------------------------------------------


def listener(dims: Any, before: list[Step] | None = None) -> onnx.ModelProto:
    steps: list[Step] = [*(before or []), ("Gemm", ["ready" if before else "x", "w"], ["y"], {})]
    return a_model(steps, {"w": numbers(40, CLASSES)}, dims, names=("x", "y"))


@pytest.mark.parametrize("dims", [("batch", 40), (1, 40), ("batch", 1, 40), ("batch", 40, 1)])
def test_a_model_of_waveforms_is_only_renamed(dims: Any) -> None:
    before: list[Step] | None = [("Flatten", ["x"], ["ready"], {"axis": 1})] if len(dims) == 3 else None
    baked = bake(listener(dims, before))
    assert facts_of(baked).kind == "audio" and facts_of(baked).input_size == (40,)
    waves = images(4)[:, 0].reshape(4, 64)[:, :40]
    same(run(baked, waves), waves @ numbers(40, CLASSES))


def test_waveforms_take_no_options_of_images() -> None:
    refused("belong to images", listener(("batch", 40)), mean=(0, 0, 0), std=(1, 1, 1))
    refused("dynamic samples", listener(("batch", "samples")))
    assert facts_of(bake(listener(("batch", "samples")), image_size=(40,))).input_size == (40,)
    refused("needs a front end", listener(("batch", 4, 10), [("Flatten", ["x"], ["ready"], {"axis": 1})]))


@pytest.mark.parametrize("dims", [("batch", 7, 4), ("batch", 7, 4, 1), (1, 1, 7, 4), ("batch", "frames", 4)])
@pytest.mark.parametrize("opset", [13, 17])
def test_a_front_end_is_put_in_front_in_the_shape_the_model_wants(dims: Any, opset: int) -> None:
    front = Mfcc(rate=1000, samples=400, window=100, hop=50, bands=8, coefficients=4, high=500.0).graph()
    steps: list[Step] = [("Flatten", ["x"], ["baked_front_mel"], {}), ("Gemm", ["baked_front_mel", "w"], ["y"], {})]
    model = a_model(steps, {"w": numbers(28, CLASSES)}, dims, names=("x", "y"), opset=opset)
    baked = bake(model, front_end=front)
    assert facts_of(baked).kind == "audio" and facts_of(baked).input_size == (400,)
    waves = np.random.default_rng(0).uniform(-1, 1, (4, 400)).astype(np.float32)
    same(run(baked, waves), run(front, waves).reshape(4, -1) @ numbers(28, CLASSES), 1e-4)


def test_a_front_end_that_does_not_fit_is_refused() -> None:
    front = Mfcc(rate=1000, samples=400, window=100, hop=50, bands=8, coefficients=4, high=500.0).graph()
    model = a_model([("Flatten", ["x"], ["y"], {})], {}, ("batch", 8, 4), ("batch", 32), names=("x", "y"))
    refused(r"features of the shape \[7, 4\]; input 'x' of .* takes \[8, 4\]", model, front_end=front)
