"""`bridge verify`: equal forms pass, differing ones fail with figures, and the node where they part is found."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from bridge.errors import ConfigError, TeacherError
from bridge.teachers import Card, engines, parity
from bridge.teachers.bisect import first_divergence
from bridge.teachers.engines import ENGINES, Engine
from bridge.teachers.probes import NOISE, Probes
from bridge.teachers.wrapped import relative_difference

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bridge.teachers.runtime import Runtime  # noqa: E402

SIZE, CLASSES, WIDTH = 8, 5, 4
FIGURES = {"relative", "max_difference", "mean_difference", "agreement", "flips", "flips_within_error", "dynamic_batch"}


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "first": (WIDTH, 3, 3, 3),
        "left": (WIDTH, WIDTH, 3, 3),
        "right": (WIDTH, WIDTH, 3, 3),
        "dense": (WIDTH, CLASSES),
    }
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def a_model(**changed: np.ndarray) -> onnx.ModelProto:
    """conv → relu → (conv → relu) + conv → mean → dense, with a branch, so that its order is not one of errors."""
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], name="conv1", **same),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node("Conv", ["b", "left"], ["c"], name="conv_left", **same),
        helper.make_node("Relu", ["c"], ["d"], name="relu_left"),
        helper.make_node("Conv", ["b", "right"], ["e"], name="conv_right", **same),
        helper.make_node("Relu", ["e"], ["e2"], name="relu_right"),
        helper.make_node("Add", ["d", "e2"], ["f"], name="add"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["h"], name="flatten"),
        helper.make_node("MatMul", ["h", "dense"], ["scores"], name="dense"),
    ]
    return as_model(nodes, {**weights(), **changed})


def as_model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def its_keras_twin():
    keras = pytest.importorskip("keras")
    images = keras.Input((SIZE, SIZE, 3))

    def conv(x, name):
        x = keras.layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name=name)(x)
        return keras.layers.Activation("relu")(x)

    first = conv(images, "first")
    both = keras.layers.Add()([conv(first, "left"), conv(first, "right")])
    pooled = keras.layers.GlobalAveragePooling2D()(both)
    model = keras.Model(images, keras.layers.Dense(CLASSES, use_bias=False, name="dense")(pooled))
    for name, value in weights().items():
        model.get_layer(name).set_weights([value.transpose(2, 3, 1, 0) if value.ndim == 4 else value])
    return model


def a_folder(folder: Path, model: onnx.ModelProto, native: bool = False, **card: object) -> Path:
    forms = {"onnx": "model.onnx"}
    folder.mkdir(exist_ok=True)
    if native:
        its_keras_twin().save(folder / "model.keras")
        forms["keras"] = "model.keras"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    described = Card(classes=CLASSES, input_size=(SIZE, SIZE), forms=forms, **card)
    described.sealed(folder).save(folder)
    return folder


def verified(folder: Path, views: int = 256, **options: object) -> dict:
    return parity.verify(folder, views=views, **options)


def written(folder: Path) -> dict:
    return json.loads((folder / "parity.json").read_text())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_folder(tmp_path_factory.mktemp("sound") / "teacher", a_model(), native=True)


def test_every_engine_at_hand_passes_on_a_sound_folder(sound: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AIP_CACHE", str(tmp_path))
    seen: list[int] = []
    report = verified(sound, on_progress=seen.append)
    assert report["passed"] and report["reference"] == "onnxruntime" and list(report["engines"]) == list(ENGINES)
    assert sum(seen) == 256 + NOISE and len(seen) > 1
    for name, result in report["engines"].items():
        if result is None:
            assert report["missing"][name]
            continue
        assert result["passed"] and result["dynamic_batch"] and set(result) >= FIGURES, name
        assert result["relative"] < 1e-5 and result["agreement"] == 1 and result["ms_per_batch"] > 0, name
    assert report["engines"]["keras_file"]["max_difference"] > 0
    assert report["engines"]["tensorflow_onnx_xla"]["xla"] and not report["engines"]["tensorflow_onnx"]["xla"]
    assert "no form safetensors" in report["missing"]["torch_safetensors"]
    assert report["inputs"]["views"]["n"] == 256 and report["versions"]["onnxruntime"]
    assert str(tmp_path) not in (sound / "parity.json").read_text()
    assert parity.read_parity(sound) == written(sound)


def test_batches_of_many_sizes_are_compiled_without_a_warning(sound: Path, caplog) -> None:
    pytest.importorskip("tensorflow")
    logger = logging.getLogger("tensorflow")  # hands nothing on to others
    logger.addHandler(caplog.handler)
    try:
        run = engines._by_keras("keras", xla=True)(sound, Card.load(sound))
        for batch in range(1, 9):
            assert run(np.zeros((batch, SIZE, SIZE, 3), np.float32)).shape == (batch, CLASSES)
    finally:
        logger.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text


def test_a_changed_weight_fails_with_figures_and_keeps_the_evidence(tmp_path: Path) -> None:
    changed = weights()["dense"]
    changed[0, 0] += 0.5
    folder = a_folder(tmp_path / "teacher", a_model(dense=changed), native=True)
    with pytest.raises(
        TeacherError, match=r"keras_file differs from onnxruntime by \d.* relative \(limit 1e-03\)"
    ) as e:
        verified(folder, engines=("onnxruntime", "keras_file"))
    assert "% of 256 views (at least 99.9%)" in str(e.value) and "native form" in str(e.value)
    report = written(folder)
    result = report["engines"]["keras_file"]
    assert not report["passed"] and not result["passed"] and report["engines"]["onnxruntime"]["passed"]
    assert result["relative"] > 1e-3 and result["diverges_at"] == "native form"
    x = Probes(Card.load(folder), views=256).at(np.arange(NOISE, NOISE + 8)).transpose(0, 3, 1, 2)
    right, wrong = (Runtime(model)(x) for model in (a_model(), a_model(dense=changed)))
    assert np.abs(right - wrong).max() <= result["max_difference"] * 1.0001
    assert parity.read_parity(folder) == report
    assert parity.said_of_proof(folder).startswith("Not verified: its forms do not answer alike")


def test_nothing_is_written_when_told_so(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "teacher", a_model(), native=True)
    assert verified(folder, views=8, write=False, engines=("onnxruntime", "keras_file"))["passed"]
    assert not (folder / "parity.json").exists()


def test_a_parity_of_another_network_is_not_believed(sound: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "teacher", a_model())
    assert parity.read_parity(folder) is None
    assert parity.said_of_proof(folder) == f"Not verified yet: python -m bridge verify --model {folder}"
    digest = Card.load(folder).mark
    (folder / "parity.json").write_text(json.dumps({"card_digest": digest, "passed": True}))
    assert parity.read_parity(folder) == {"card_digest": digest, "passed": True}
    assert parity.said_of_proof(folder).startswith("Verified: ")
    a_folder(folder, a_model(dense=weights()["dense"] + 1))
    assert parity.read_parity(folder) is None
    (folder / "parity.json").write_text("[")
    assert parity.read_parity(folder) is None


def test_one_engine_alone_proves_nothing(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "teacher", a_model())
    with pytest.raises(TeacherError, match=r"onnxruntime; comparing takes two.*no form keras"):
        verified(folder, engines=("onnxruntime", "keras_file"))
    with pytest.raises(ConfigError, match="'onnxruntime'"):
        verified(folder, engines=("onnxrunntime",))
    with pytest.raises(ConfigError, match="views"):
        verified(folder, views=0)


def test_native_forms_are_compared_where_there_is_no_onnx(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    pytest.importorskip("torch")
    from keras_aip import models
    from keras_aip.teachers import save_teacher

    save_teacher(models.build("wrn_10_1", classes=3, image_size=16), tmp_path / "teacher")
    report = verified(tmp_path / "teacher", views=32)
    assert report["passed"] and report["reference"] == "keras_safetensors"
    assert report["engines"]["torch_safetensors"]["relative"] < 1e-5
    assert report["missing"]["onnxruntime"] == "the folder has no form onnx"


@pytest.mark.parametrize(("rows", "said"), [(64, "cannot answer a batch of shape"), (1, "it takes single inputs only")])
def test_a_batch_baked_in_where_no_shape_shows_it_is_found(tmp_path: Path, rows: int, said: str) -> None:
    nodes = [
        *a_model().graph.node,
        helper.make_node("NonZero", ["ones"], ["nonzero"], name="nonzero"),
        helper.make_node("Squeeze", ["nonzero", "axis"], ["index"], name="squeeze"),
        helper.make_node("Gather", ["logits", "index"], ["scores"], name="fixed", axis=0),
    ]
    nodes[-4].output[0] = "logits"
    constants = {**weights(), "ones": np.ones(rows, np.float32), "axis": np.array([0])}
    folder = a_folder(tmp_path / "teacher", as_model(nodes, constants), native=True)
    with pytest.raises(TeacherError, match=f"onnxruntime fails: .*{said}") as e:
        verified(folder, views=64, engines=("onnxruntime", "keras_file"))
    assert "keras_file" not in str(e.value)
    results = written(folder)["engines"]
    assert results["onnxruntime"]["dynamic_batch"] is False
    assert results["keras_file"]["passed"] == (rows == 64)


def test_no_path_of_this_machine_gets_into_the_folder(tmp_path: Path) -> None:
    model = a_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    folder = a_folder(tmp_path / "teacher", model, native=True)
    with pytest.raises(TeacherError, match=r"onnxruntime fails: .*only batches of 2") as e:
        verified(folder, views=8, engines=("onnxruntime", "keras_file"))
    assert str(tmp_path) in str(e.value) and str(tmp_path) not in (folder / "parity.json").read_text()
    assert written(folder)["engines"]["onnxruntime"]["error"].startswith("teacher/model.onnx")


def test_rows_that_depend_on_their_batch_are_found(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], name="mean", axes=[0], keepdims=1),
        helper.make_node("Sub", ["images", "m"], ["centred"], name="sub"),
        helper.make_node("Flatten", ["centred"], ["h"], name="flatten"),
        helper.make_node("MatMul", ["h", "dense"], ["scores"], name="dense"),
    ]
    dense = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, CLASSES)).astype(np.float32)
    folder = a_folder(tmp_path / "teacher", as_model(nodes, {"dense": dense}), native=True)
    with pytest.raises(TeacherError, match="onnxruntime fails: a batch of 1 is answered otherwise"):
        verified(folder, views=8, engines=("onnxruntime", "keras_file"))


def test_probabilities_and_labels_are_compared_as_such(tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["logits"], ["scores"], name="softmax")
    nodes = [*a_model().graph.node, softmax]
    nodes[-2].output[0] = "logits"
    folder = a_folder(tmp_path / "teacher", as_model(nodes, weights()), native=True, outputs="probabilities")
    # The native form gives logits: as probabilities they are wrong.
    with pytest.raises(TeacherError, match="differs"):
        verified(folder, views=64, engines=("onnxruntime", "keras_file"))
    folder = a_folder(tmp_path / "labels", a_model(), native=True, outputs="labels")
    report = verified(folder, views=64, engines=("onnxruntime", "keras_file"))
    assert report["passed"] and report["engines"]["keras_file"]["relative"] is None


def test_labels_of_one_axis_are_baked_so_that_every_engine_runs_them(tmp_path: Path, monkeypatch, capsys) -> None:
    from bridge.cli import main
    from bridge.teachers.bake import bake

    monkeypatch.setenv("AIP_CACHE", str(tmp_path / "cache"))
    nodes = [*a_model().graph.node, helper.make_node("ArgMax", ["logits"], ["scores"], axis=1, keepdims=0)]
    nodes[-2].output[0] = "logits"
    model = as_model(a_model().graph.node, weights())
    replaced = helper.make_tensor_value_info("scores", TensorProto.INT64, ["batch"])
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.output.append(replaced)
    folder = a_folder(tmp_path / "teacher", bake(model, outputs="labels"), outputs="labels")
    assert main(["verify", "--model", str(folder), "--views", "32"]) == 0
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines()[1:]}
    assert main(["card", "--model", str(folder)]) == 0
    assert "Verified: onnxruntime, " in capsys.readouterr().err
    assert rows["onnxruntime"][:2] == ["-", "100.00%"]
    at_hand = [name for name, figures in written(folder)["engines"].items() if figures is not None]
    assert len(at_hand) >= 2 and all(rows[name][:2] == ["-", "100.00%"] for name in at_hand)


def test_a_flip_counts_only_beyond_twice_the_error() -> None:
    reference = np.tile([[0.0, 1.0, -5.0]], (1000, 1)).astype(np.float32)
    given = reference.copy()
    given[0] = [1.0, 0.9, -5.0]  # a margin of 1, errors of 1e-3 on average: a real flip
    assert parity.agreement_of(reference, given) == {"agreement": 0.999, "flips": 1, "flips_within_error": 0}
    close = reference.copy()
    close[:, 0] = 1 - 1e-6  # all but tied
    given = close[:, [1, 0, 2]]
    assert parity.agreement_of(close, given) == {"agreement": 1.0, "flips": 0, "flips_within_error": 1000}
    assert parity.agreement_of(close, given, ranked_only=True)["agreement"] == 0
    given = reference.copy()
    given[5] = np.nan
    assert parity.agreement_of(reference, given)["flips"] == 1


def test_differences_that_are_no_numbers_never_pass() -> None:
    a = np.ones((2, 2), np.float32)
    assert relative_difference(a, a) == 0 and relative_difference(2 * a, 2.5 * a) == 0.25
    assert relative_difference(a, a * np.nan) == np.inf and relative_difference(a * np.inf, a * np.inf) == np.inf
    # Below the floor differences are measured by it: no division by zero.
    assert relative_difference(0 * a, 0 * a) == 0 and relative_difference(0 * a, a) == pytest.approx(1e6)
    assert relative_difference(a[:0], a[:0]) == 0
    # Class numbers, which may be unsigned, do not wrap around.
    assert relative_difference(np.array([2], np.uint8), np.array([3], np.uint8)) == 0.5


def test_inputs_are_known_by_their_number() -> None:
    for card in (
        Card(classes=2, input_size=(16, 12)),
        Card(classes=2, input_size=(800,), kind="audio", rate=8000, range=(-1, 1)),
    ):
        probes = Probes(card, views=100, seed=3)
        numbers = np.array([0, NOISE - 1, NOISE, NOISE + 99])
        x = probes.at(numbers)
        assert x.dtype == np.float32 and x.shape[1:] == ((16, 12, 3) if card.kind == "image" else (800,))
        assert np.array_equal(x[::-1], probes.at(numbers[::-1])) and not np.array_equal(x[2], x[3])
        assert card.range[0] <= x.min() and x.max() <= card.range[1] and x.std() > 0.05
        assert not np.array_equal(x, Probes(card, views=100, seed=4).at(numbers))
    with pytest.raises(TeacherError, match="input_size"):
        Probes(Card(classes=2, input_size=None))


def perturbed(path: Path, weight: str) -> onnx.ModelProto:
    """What a converter might make of a file that gets one weight wrong."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == weight:
            value = numpy_helper.to_array(tensor).copy()
            value.flat[0] += 0.1
            tensor.CopyFrom(numpy_helper.from_array(value, weight))
    return model


@pytest.mark.parametrize(
    ("weight", "node"), [("first", "conv1"), ("left", "conv_left"), ("right", "conv_right"), ("dense", "dense")]
)
def test_the_node_where_a_conversion_goes_wrong_is_found(weight: str, node: str) -> None:
    x = np.random.default_rng(0).random((4, 3, SIZE, SIZE), dtype=np.float32)
    found = first_divergence(a_model(), lambda path: Runtime(perturbed(path, weight)), x, 1e-4)
    assert found is not None and found.node == node and found.relative > 1e-4
    assert found.op_type == ("MatMul" if node == "dense" else "Conv")
    assert node in str(found) and found.op_type in str(found)
    assert first_divergence(a_model(), Runtime, x, 1e-4) is None


def test_the_node_is_found_through_a_real_converter() -> None:
    pytest.importorskip("torch")
    if importlib.util.find_spec("onnx2torch") is None:  # importing it takes what the engine does beforehand
        pytest.skip("onnx2torch is not installed")
    convert = ENGINES["torch_onnx"].convert
    assert convert is not None

    def wrong(path: Path):
        onnx.save(perturbed(path, "left"), path)
        return convert(path)

    x = np.random.default_rng(0).random((4, 3, SIZE, SIZE), dtype=np.float32)
    found = first_divergence(a_model(), wrong, x, 1e-4)
    assert found is not None and found.node == "conv_left"
    assert first_divergence(a_model(), convert, x, 1e-4) is None


def test_a_failing_converter_is_reported_with_the_node(tmp_path: Path, monkeypatch, capfd) -> None:
    def load(folder: Path, card: Card):
        run = Runtime(perturbed(folder / card.forms["onnx"], "right"))
        return lambda x: run(x.transpose(0, 3, 1, 2))

    engine = Engine("onnx", ("onnxruntime",), load, convert=lambda path: Runtime(perturbed(path, "right")))
    monkeypatch.setitem(ENGINES, "wrong", engine)
    folder = a_folder(tmp_path / "teacher", a_model())
    with pytest.raises(TeacherError, match=r"wrong differs .* first departs at node 'conv_right' \(Conv, tensor 'e'\)"):
        verified(folder, views=64, engines=("onnxruntime", "wrong"))
    assert "looking for the node where they part" in capfd.readouterr().err
    where = written(folder)["engines"]["wrong"]["diverges_at"]
    assert where == {"node": "conv_right", "op_type": "Conv", "tensor": "e"}


def test_tensors_that_cannot_be_compared_are_passed_over() -> None:
    calls = []

    def convert(path: Path) -> Runtime:
        model = onnx.load(path)
        calls.append(model)
        ends = model.graph.node[-2].name  # before what flattens it
        if ends in ("relu1", "relu_left"):
            raise ValueError
        for node in model.graph.node:
            if node.name == "relu_left":
                node.op_type = "Tanh"
        return Runtime(model)

    x = np.random.default_rng(0).random((2, 3, SIZE, SIZE), dtype=np.float32)
    found = first_divergence(a_model(), convert, x, 1e-4)
    assert found is not None and found.node == "add" and len(calls) <= 10
