"""Keras networks, SavedModels and TFLite files as ONNX: the same answers, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.teachers.onnx_file import facts_of, read_onnx
from keras_aip import models, save_teacher
from keras_aip.export import application, keras_file, saved_model_to_onnx, tflite_to_onnx, to_onnx

pytest.importorskip("tf2onnx")
layers = keras.layers


def flattening() -> keras.Model:
    """The head reads the map row by row, with the channels innermost; images are not square."""
    return keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            layers.Conv2D(4, 3, activation="swish"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


@keras.saving.register_keras_serializable(package="aip_tests")
class HardSwish(layers.Layer):
    def call(self, x):
        return x * tf.nn.relu6(x + 3.0) / 6.0


def exciting() -> keras.Model:
    """Depthwise convolution, squeeze-and-excite, hard-swish, a padding at stride 2."""
    images = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(images))
    x = HardSwish()(layers.DepthwiseConv2D(3, padding="same")(x))
    squeezed = layers.Conv2D(2, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(squeezed)])
    return keras.Model(images, layers.Dense(5)(layers.Flatten()(x)))


def listening() -> keras.Model:
    """Takes waveforms."""
    return keras.Sequential(
        [
            keras.Input((200,)),
            layers.Reshape((200, 1)),
            layers.Conv1D(8, 16, 8, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(4),
        ]
    )


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    **{
        name: lambda name=name, more=more: models.build(name, classes=7, image_size=8, **more)
        for name, more in {"wrn_10_1": {}, "resnet20": {}, "small_cnn": {"width": 2}}.items()
    },
    "flattening": flattening,
    "exciting": exciting,
    "listening": listening,
}


def made(name: str) -> keras.Model:
    """A network whose BatchNorm statistics and biases are not the ones it starts with."""
    keras.utils.set_random_seed(0)
    model, generator = NETWORKS[name](), np.random.default_rng(0)
    model.set_weights(
        [w if w.ndim > 1 else generator.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def samples(model: keras.Model, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((batch, *model.input_shape[1:]), dtype=np.float32)


def answer(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def channels_first(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


@pytest.mark.parametrize("name", NETWORKS)
def test_a_keras_network_says_the_same_as_onnx(name, tmp_path):
    model = made(name)
    to_onnx(model, tmp_path / "model.onnx")
    facts = facts_of(read_onnx(tmp_path / "model.onnx"))
    assert facts.kind == ("audio" if name == "listening" else "image")
    assert facts.input_size == (model.input_shape[1:] if name == "listening" else model.input_shape[1:3])
    assert (facts.classes, facts.opset) == (model.output_shape[1], 17)
    for batch in (1, 3):
        x = samples(model, batch)
        expected = np.asarray(model(x, training=False))
        scale = max(1.0, np.abs(expected).max())
        found = answer(tmp_path / "model.onnx", channels_first(x))
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[keras.Model, Path]:
    """One network as a SavedModel and in both kinds of TFLite file."""
    folder, model = tmp_path_factory.mktemp("files"), made("exciting")
    module = tf.Module()
    module.answer = tf.function(
        lambda x: {"logits": model(x, training=False)}, input_signature=[tf.TensorSpec([None, 8, 8, 3], name="pixels")]
    )
    module.model = model
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": module.answer})
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "float.tflite").write_bytes(converter.convert())
    wide = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    converter = tf.lite.TFLiteConverter.from_keras_model(wide)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "int8.tflite").write_bytes(converter.convert())
    return model, folder


@pytest.mark.parametrize("kind", ["saved", "float.tflite"])
def test_files_cross_as_they_are_channels_last(kind, files, tmp_path):
    model, folder = files
    write = tflite_to_onnx if kind.endswith("tflite") else saved_model_to_onnx
    write(folder / kind, tmp_path / "model.onnx")
    x = samples(model, 1)
    expected = np.asarray(model(x, training=False))
    np.testing.assert_allclose(answer(tmp_path / "model.onnx", x), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_cross_is_named(files, tmp_path):
    _, folder = files
    for write, given, says in (
        (tflite_to_onnx, folder / "int8.tflite", "quantised"),
        (tflite_to_onnx, Path(__file__), "not a readable TFLite file"),
        (saved_model_to_onnx, tmp_path, "cannot be loaded as a SavedModel"),
    ):
        with pytest.raises(TeacherError, match=says):
            write(given, tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match=r"no signature 'serving'; it has serving_default\. Did you mean"):
        saved_model_to_onnx(folder / "saved", tmp_path / "model.onnx", signature="serving")
    odd = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Lambda(tf.math.bessel_i0)])
    with pytest.raises(TeacherError, match="BesselI0"):
        to_onnx(odd, tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match="of fixed size"):
        to_onnx(keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3)]), tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match="cannot be written"):
        to_onnx(made("small_cnn"), tmp_path / "absent" / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_keras_files_are_loaded_unless_they_hold_code(name, tmp_path):
    model = flattening()
    model.save(tmp_path / name)
    np.testing.assert_allclose(
        np.asarray(keras_file(tmp_path / name)(samples(model))), np.asarray(model(samples(model)))
    )
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2)]).save(tmp_path / name)
    with pytest.raises(TeacherError, match="Lambda"):
        keras_file(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(TeacherError, match="readable"):
        keras_file(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "part"), [("VGG16", "vgg16"), ("MobileNet", "mobilenet"), ("DenseNet121", "densenet")]
)
def test_applications_come_with_the_preprocessing_they_were_trained_with(name, part, tmp_path, monkeypatch):
    # Stands in for the download: everything around the network is the real one.
    model = made("exciting")

    def small(weights, classifier_activation):
        assert (weights, classifier_activation) == ("imagenet", None)
        return model

    small.__module__ = getattr(keras.applications, name).__module__
    monkeypatch.setattr(keras.applications, name, small)
    found, facts = application(name)
    pixels = samples(model)
    low, high = facts["range"]
    given = (pixels * (high - low) + low - facts.get("mean", 0)) / np.asarray(facts.get("std", 1), np.float32)
    own = getattr(keras.applications, part).preprocess_input(255 * pixels.copy())
    expected = np.asarray(model(own))
    np.testing.assert_allclose(np.asarray(found(given.astype(np.float32))), expected, rtol=1e-3, atol=1e-4)
    save_teacher(found, tmp_path / "teacher")  # also turned round, it holds no code


def test_without_a_network_an_application_says_what_it_would_have_fetched(no_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(TeacherError, match=r"mobilenet_1_0_224_tf\.h5.*kept in .*models"):
        application("MobileNet")
    with pytest.raises(TeacherError, match="Did you mean 'MobileNet'"):
        application("MobilNet")
