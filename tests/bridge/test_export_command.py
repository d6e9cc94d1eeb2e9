"""`bridge export`: a network from anywhere becomes a folder; what is hostile or unclear becomes one message."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from bridge.cli import main
from bridge.errors import ConfigError, TeacherError
from bridge.teachers.card import Card
from bridge.teachers.export import export
from bridge.teachers.front_end import LogMel, Mfcc
from bridge.teachers.options import ExportConfig
from bridge.teachers.runtime import Runtime
from tests.bridge.onnx_nets import a_model, conv_net, conv_steps, numbers

torch = pytest.importorskip("torch")
HALF = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.5)}
KERAS = """
import keras
def features(classes=3):
    inputs = keras.Input((49, 10, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))
def images():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
def wide():
    return keras.Sequential([keras.Input((4, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
def open_():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
def neither():
    return 3
"""
TORCH = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, width, 3, 2), torch.nn.Linear(width, 4)
    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))
class Heard(Net):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3, 2)
class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)
"""


def sound_net() -> onnx.ModelProto:
    """Takes waveforms of any length."""
    steps = [("ReduceMax", ["sound"], ["top"], {"axes": [1]}), ("MatMul", ["top", "w"], ["scores"], {})]
    return a_model(steps, {"w": numbers(1, 3)}, ("batch", "samples"), ("batch", 3), names=("sound", "scores"))


def pixels(batch: int = 5, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).random((batch, size, size, 3), np.float32)


def first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "keras_code.py").write_text(KERAS)
    (tmp_path / "torch_code.py").write_text(TORCH)
    return tmp_path


def test_an_architecture_with_weights_becomes_a_folder_both_backends_load_natively(tmp_path: Path) -> None:
    import keras_aip
    import torch_aip

    torch.manual_seed(0)
    network = torch_aip.models.wrn(10, 1, classes=10, **HALF).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "net.pth")
    config = ExportConfig(
        model="wrn_10_1", weights=str(tmp_path / "net.pth"), dataset="digits", **HALF, measure=True,
        out=str(tmp_path / "t"), licence="mine",
    )  # fmt: skip
    card = export(config)
    assert card == Card.load(tmp_path / "t") and set(card.forms) == {"safetensors", "onnx"}
    assert (card.classes, card.input_size, card.architecture, card.licence) == (10, (32, 32), "wrn_10_1", "mine")
    assert card.class_names == tuple("0123456789") and "net.pth" in card.source
    x = pixels(size=32)
    with torch.no_grad():
        expected = network(torch.from_numpy(first(x))).numpy()
    in_keras, in_torch = keras_aip.load_teacher(tmp_path / "t"), torch_aip.load_teacher(tmp_path / "t")
    answers = [in_keras(x).numpy(), in_torch(torch.from_numpy(first(x))).numpy()]
    for answer in (*answers, Runtime(tmp_path / "t" / "model.onnx")(first(x))):
        assert np.abs(answer - expected).max() < 1e-5 * np.abs(expected).max()
    measured = keras_aip.evaluate(in_keras, "digits")["student_top1"]
    assert card.accuracy is not None and card.accuracy["top1"] == pytest.approx(measured, abs=0.004)
    assert card.accuracy["n"] == 500 and card.accuracy["dataset"] == "digits"


def test_weights_are_named_alike_in_keras_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    import keras_aip
    import torch_aip

    torch.manual_seed(1)
    network = torch_aip.models.resnet20(classes=4, **HALF)
    torch_aip.save_teacher(network, tmp_path / "torch")
    in_keras, _ = keras_aip.load_model(tmp_path / "torch")
    keras_aip.save_teacher(in_keras, tmp_path / "keras")
    back, _ = torch_aip.load_model(tmp_path / "keras")
    for name, value in torch_aip.models.state_dict(network).items():
        np.testing.assert_array_equal(torch_aip.models.state_dict(back)[name], value)


def test_a_users_onnx_is_baked_and_its_names_are_kept(tmp_path: Path) -> None:
    onnx.save(conv_net(), tmp_path / "mine.onnx")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    config = ExportConfig(
        model=str(tmp_path / "mine.onnx"), range=(0, 255), mean=(100, 110, 120), std=(50, 60, 70),
        class_names=str(tmp_path / "names.txt"), out=str(tmp_path / "t"),
    )  # fmt: skip
    card = export(config)
    assert (card.forms, card.classes, card.input_size) == ({"onnx": "model.onnx"}, 5, (8, 8))
    assert card.class_names == tuple("abcde") and "mean 0.3922 0.4314 0.4706, std 0.1961" in card.source
    with pytest.warns(UserWarning, match="Is --range 0 255 missing"):
        export(dataclasses.replace(config, range=(0, 1), out=str(tmp_path / "u")))
    x = pixels()
    by_hand = ((x * 255 - [100, 110, 120]) / [50, 60, 70]).astype(np.float32)
    expected = Runtime(conv_net())(first(by_hand))
    np.testing.assert_allclose(Runtime(tmp_path / "t" / "model.onnx")(first(x)), expected, rtol=1e-4, atol=1e-5)


def test_a_keras_file_keeps_its_native_form_and_says_the_same_in_both(tmp_path: Path) -> None:
    import keras

    import keras_aip

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4)])
    model.save(tmp_path / "mine.keras")
    card = export(ExportConfig(model=str(tmp_path / "mine.keras"), range=(-1, 1), out=str(tmp_path / "t")))
    assert set(card.forms) == {"keras", "onnx"}
    x = pixels()
    expected = model(2 * x - 1).numpy()
    np.testing.assert_allclose(keras_aip.load_teacher(tmp_path / "t")(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Runtime(tmp_path / "t" / "model.onnx")(first(x)), expected, rtol=1e-4, atol=1e-5)


def test_a_factorys_network_needs_trust_and_its_front_end_is_baked_in(code: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    name = f"{code / 'keras_code.py'}:features"
    with pytest.raises(ConfigError, match="--trust"):
        export(ExportConfig(model=name, front_end="mfcc"))
    card = export(
        ExportConfig(model=name, arguments=("classes=4",), trust=True, front_end="mfcc:low=60", out=str(code / "t"))
    )
    assert (card.kind, card.input_size, card.rate, card.classes) == ("audio", (16_000,), 16_000, 4)
    assert card.front_end == Mfcc(low=60).described() and card.range == (-1, 1)
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 16_000)).astype(np.float32)
    answer = Runtime(code / "t" / "model.onnx")(sound)
    assert answer.shape == (2, 4) and not np.allclose(answer[0], answer[1])


def test_a_modules_log_mels_are_baked_in(code: Path) -> None:
    torch.manual_seed(0)
    name = f"{code / 'torch_code.py'}:Heard"
    card = export(ExportConfig(model=name, trust=True, front_end="log_mel:bands=40", samples=8000, out=str(code / "t")))
    front_end = LogMel(bands=40, samples=8000)
    assert (card.kind, card.input_size, card.rate, card.classes) == ("audio", (8000,), 16_000, 4)
    assert card.front_end == front_end.described()
    made: dict = {}
    exec((code / "torch_code.py").read_text(), made)
    torch.manual_seed(0)
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 8000)).astype(np.float32)
    features = torch.from_numpy(Runtime(front_end.graph())(sound))[:, None]
    expected = made["Heard"]()(features).detach().numpy()
    np.testing.assert_allclose(Runtime(code / "t" / "model.onnx")(sound), expected, rtol=1e-4, atol=1e-4)


def test_a_factorys_module_takes_arguments_and_weights(code: Path) -> None:
    name, common = f"{code / 'torch_code.py'}:Net", dict(trust=True, image_size=9, out=str(code / "t"))
    weights = {"conv.weight": (5, 3, 3, 3), "conv.bias": (5,), "fc.weight": (4, 5), "fc.bias": (4,)}
    torch.save({k: torch.from_numpy(numbers(*shape)) for k, shape in weights.items()}, code / "w.pt")
    card = export(ExportConfig(model=name, arguments=("width=5",), weights=str(code / "w.pt"), **common))
    assert (card.classes, card.input_size, card.forms) == (4, (9, 9), {"onnx": "model.onnx"})
    x = torch.rand(2, 3, 9, 9)
    w = torch.load(code / "w.pt")
    features = torch.conv2d(x, w["conv.weight"], w["conv.bias"], 2).relu().mean((2, 3))
    expected = (features @ w["fc.weight"].T + w["fc.bias"]).numpy()
    np.testing.assert_allclose(Runtime(code / "t" / "model.onnx")(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TeacherError, match=r"conv\.weight"):  # of another width
        export(ExportConfig(model=name, weights=str(code / "w.pt"), **{**common, "out": str(code / "u")}))


def test_sides_that_differ_or_are_open_are_taken_as_they_are(code: Path) -> None:
    wide, open_ = (f"{code / 'keras_code.py'}:{name}" for name in ("wide", "open_"))
    assert export(ExportConfig(model=wide, trust=True, out=str(code / "w"))).input_size == (4, 6)
    assert export(ExportConfig(model=open_, trust=True, image_size=7, out=str(code / "o"))).input_size == (7, 7)
    onnx.save(sound_net(), code / "sound.onnx")
    card = export(ExportConfig(model=str(code / "sound.onnx"), samples=800, rate=8000, out=str(code / "s")))
    assert (card.kind, card.input_size, card.rate) == ("audio", (800,), 8000)


def test_one_mean_serves_all_channels_in_both_forms(tmp_path: Path) -> None:
    import keras

    import keras_aip

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "mine.keras")
    config = dict(model=str(tmp_path / "mine.keras"), mean=(0.5,), std=(0.2, 0.4, 0.5), out=str(tmp_path / "t"))
    assert export(ExportConfig(**config)).mean == (0.5, 0.5, 0.5)
    x = pixels(size=4)
    expected = model(((x - 0.5) / [0.2, 0.4, 0.5]).astype(np.float32)).numpy()
    np.testing.assert_allclose(keras_aip.load_teacher(tmp_path / "t")(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Runtime(tmp_path / "t" / "model.onnx")(first(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["saved_model", "tflite"])
def test_tensorflows_files_are_compared_with_what_they_became(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from keras_aip import export as keras_export

    weights = tf.constant(numbers(48, 5))
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"scores": tf.reshape(x, [-1, 48]) @ weights},
        input_signature=[tf.TensorSpec([1 if kind == "tflite" else None, 4, 4, 3], tf.float32)],
    )
    source = tmp_path / "saved"
    if kind == "tflite":
        source = tmp_path / "net.tflite"
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
        source.write_bytes(converter.convert())
    else:
        tf.saved_model.save(module, str(source), signatures=module.serve)
    config = ExportConfig(model=str(source), trust=True, range=(-1, 1), out=str(tmp_path / "t"))
    assert export(config).input_size == (4, 4)
    x = pixels(size=4)
    expected = (2 * x - 1).reshape(5, 48) @ weights.numpy()
    np.testing.assert_allclose(Runtime(tmp_path / "t" / "model.onnx")(first(x)), expected, rtol=1e-4, atol=1e-5)
    name = "saved_model_to_onnx" if kind == "saved_model" else "tflite_to_onnx"
    right = getattr(keras_export, name)

    def wrong(*given):
        answer = right(*given)
        return lambda x: answer(x) + 0.1

    monkeypatch.setattr(keras_export, name, wrong)
    with pytest.raises(TeacherError, match="and its ONNX form differ by"):
        export(dataclasses.replace(config, out=str(tmp_path / "u")))


def test_names_in_another_order_than_the_data_sets_are_not_measured(tmp_path: Path) -> None:
    import torch_aip

    torch.save(torch_aip.models.small_cnn(classes=10, width=2).state_dict(), tmp_path / "w.pt")
    (tmp_path / "names.txt").write_text("\n".join("1023456789"))
    with pytest.raises(TeacherError, match="Class 0 is '0' in digits and '1' for the model"):
        export(
            ExportConfig(
                model="small_cnn", arguments=("width=2",), weights=str(tmp_path / "w.pt"), dataset="digits", **HALF,
                class_names=str(tmp_path / "names.txt"), measure=True, out=str(tmp_path / "t"),
            )
        )  # fmt: skip
    assert not (tmp_path / "t").exists()


def test_a_foreign_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.teachers import export as module

    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    monkeypatch.setattr(module, "READERS", {})  # nothing can be read
    with pytest.raises(ConfigError, match="is not empty"):
        export(ExportConfig(model=str(tmp_path / "net.onnx"), out=str(tmp_path / "full")))


def test_modules_in_half_precision_are_exported_as_they_would_be_in_full(code: Path) -> None:
    (code / "half.py").write_text("from torch_code import Net\ndef make():\n    return Net().half()\n")
    card = export(ExportConfig(model=f"{code / 'half.py'}:make", trust=True, image_size=8, out=str(code / "t")))
    assert card.classes == 4


def test_labels_take_their_number_of_classes_from_the_names(tmp_path: Path) -> None:
    steps, constants = conv_steps("images", "logits")
    model = a_model(
        [*steps, ("ArgMax", ["logits"], ["scores"], {"axis": 1, "keepdims": 0})], constants, given=("batch",),
        types=(onnx.TensorProto.FLOAT, onnx.TensorProto.INT64),
    )  # fmt: skip
    onnx.save(model, tmp_path / "labels.onnx")
    config = dict(model=str(tmp_path / "labels.onnx"), outputs="labels", out=str(tmp_path / "t"))
    with pytest.raises(ConfigError, match="how many classes"):
        export(ExportConfig(**config))
    (tmp_path / "names.txt").write_text("\n".join("abcde"))
    assert export(ExportConfig(**config, class_names=str(tmp_path / "names.txt"))).classes == 5


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(), "Which network"),
        (dict(model="resnet20"), "without --weights"),
        (dict(model="resnet21", weights="x.pt", **HALF), "Did you mean 'resnet"),
        (dict(model="resnet20", weights="{}/absent.pt", dataset="digits", **HALF), "absent.pt"),
        (dict(model="resnet20", weights="x.pt"), "which mean and deviation"),
        (dict(model="resnet20", weights="x.pt", **HALF), "How many classes"),
        (dict(model="resnet20", mean=(0.5,)), "--mean and --std together"),
        (dict(model="{}/net.onnx", mean=(0.5, 0.5), std=(0.5, 0.5)), "one number, or three"),
        (dict(model="{}/net.onnx", range=(1, 0)), "must rise"),
        (dict(model="{}/net.onnx", range=(0, 255), std=(0,), mean=(0,)), "above 0"),
        (dict(model="{}/NET.ONNX"), "Rename .* to end in .onnx"),
        (dict(model="torchvision/resnet18", **HALF), "leave out --mean"),
        (dict(model="{}/keras_code.py:images", trust=True, layout="NHWC"), "--layout is for"),
        (dict(model="{}/keras_code.py:open_", trust=True), "Give the side in pixels with --image-size"),
        (dict(model="{}/net.onnx", front_end="mfcc:window"), "--front-end window"),
        (dict(model="{}/sound.onnx"), "Give it with --samples"),
        (dict(model="{}/sound.onnx", samples=800), "at which rate with --rate"),
        (dict(model="{}/net.onnx", dataset="cifra10"), "Did you mean 'cifar10'"),
        (dict(model="{}/net.onnx", measure=True), "--measure needs --dataset"),
        (dict(model="{}/net.onnx", weights="x.pt"), "weights of its own"),
        (dict(model="{}/net.onnx", class_names="{}/absent.txt"), "absent.txt cannot be read"),
        (dict(model="{}/net.onnx", dataset="digits"), "5 classes, but 10 class names"),
        (dict(model="{}/net.onnx", front_end="mel"), "unknown kind 'mel'"),
        (dict(model="{}/net.onnx", out="{}/full"), "full is not empty"),
        (dict(model="{}/torch_code.py:Net", trust=True), "Give --image-size"),
        (dict(model="{}/torch_code.py:Noisy", trust=True, image_size=8), r"py:Noisy: unsupported.*RandomUniform"),
        (dict(model="{}/keras_code.py:neither", trust=True), "gives a int"),
        (dict(model="{}/keras_code.py:images", trust=True, weights="x.pt"), "let the factory load"),
        (dict(model="{}/keras_code.py:absent", trust=True), "no 'absent'"),
    ],
)
def test_what_is_unclear_is_asked_for(options: dict, words: str, code: Path) -> None:
    onnx.save(conv_net(), code / "net.onnx")
    onnx.save(conv_net(), code / "NET.ONNX")
    onnx.save(sound_net(), code / "sound.onnx")
    (code / "full").mkdir()
    (code / "full" / "diary.txt").write_text("mine")
    filled = {name: value.format(code) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises((ConfigError, TeacherError), match=words):
        export(ExportConfig(**{"out": str(code / "t"), **filled}))
    assert not (code / "t").exists() and (code / "full" / "diary.txt").read_text() == "mine"


def hostile(folder: Path) -> dict[str, list[str]]:
    """Files that want to do harm, and the words that hand them over."""
    whole = conv_net().SerializeToString()
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    huge = conv_net()
    huge.graph.initializer[0].dims[:] = [536_870_911]
    huge.graph.initializer[0].raw_data = b""
    (folder / "huge.onnx").write_bytes(huge.SerializeToString())
    outside = conv_net()
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    (folder / "outside.onnx").write_bytes(outside.SerializeToString())
    with zipfile.ZipFile(folder / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (200 << 20))
    (folder / "text.h5").write_text("not HDF5")

    class Runs:
        def __reduce__(self):
            return (open, (str(folder / "was_here"), "w"))

    (folder / "code.pt").write_bytes(pickle.dumps({"conv.weight": Runs()}))
    (folder / "empty.tflite").write_bytes(b"")
    (folder / "code.py").write_text(f"open({str(folder / 'was_here')!r}, 'w')\n")
    exact = ["--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5", "--dataset", "digits"]
    return {
        **{name: ["--model", str(folder / name)] for name in ("truncated.onnx", "huge.onnx", "outside.onnx")},
        **{name: ["--model", str(folder / name)] for name in ("bomb.keras", "text.h5", "empty.tflite")},
        "code.pt": ["--model", "resnet20", "--weights", str(folder / "code.pt"), *exact],
        "code.py": ["--model", f"{folder / 'code.py'}:anything"],
    }


def test_hostile_files_end_in_one_message_and_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, words in hostile(tmp_path).items():
        assert main(["export", *words, "--out", str(tmp_path / "t")]) == 2, name
        said = capsys.readouterr().err.strip()
        assert said.startswith("aip-bridge: ") and "Traceback" not in said, name
        assert len(said.splitlines()) == 1, said
    assert not (tmp_path / "t").exists() and not (tmp_path / "was_here").exists()


def test_the_shell_says_what_was_written_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    onnx.save(conv_net(), tmp_path / "mine.onnx")
    assert main(["export", "--model", str(tmp_path / "mine.onnx"), "--out", str(tmp_path / "t")]) == 0
    said = capsys.readouterr().out
    assert "8 × 8 pixels, 5 classes" in said and f"bridge verify --model {tmp_path / 't'}" in said
    assert json.loads((tmp_path / "t" / "card.json").read_text())["forms"] == {"onnx": "model.onnx"}
