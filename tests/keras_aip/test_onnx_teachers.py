"""A teacher that comes through ONNX teaches as the native one does."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from bridge.errors import TeacherError
from bridge.insight.neurons import Ascent, Canvas, Unit
from bridge.teachers import Card
from keras_aip.cli import main
from keras_aip.export import to_onnx
from keras_aip.visualize import inspected
from tests.conftest import ROOT

if importlib.util.find_spec("onnx2tf") is None:  # found, not imported: that would choose Keras 2 for all tests
    pytest.skip("onnx2tf is not installed", allow_module_level=True)
SIDE = 32
TRAIN = """
import json, sys
import numpy as np
import keras, tensorflow as tf
import keras_aip

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
images = np.random.default_rng(0).random((32, 32, 32, 3), dtype=np.float32)
views = tf.data.Dataset.from_tensor_slices(images).batch(16, drop_remainder=True)


def train(form, strategy=tf.distribute.get_strategy(), **options):
    with strategy.scope():
        student = keras.Sequential([
            keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, strides=4), keras.layers.ReLU(),
            keras.layers.Flatten(), keras.layers.Dense(10),
        ])
        generator = np.random.default_rng(2)
        student.set_weights([generator.normal(0, 0.4, w.shape) for w in student.weights])
        teacher = keras_aip.load_teacher(sys.argv[1], form=form)
        mixing = keras_aip.Mixing("both", per="sample", block=4)
        distiller = keras_aip.Distiller(student, teacher, temperature=2.0, tau_squared=True, mixing=mixing)
        distiller.compile(keras.optimizers.SGD(0.1), **options)
    distiller.fit(views, epochs=2, verbose=0)
    return np.concatenate([np.ravel(w) for w in student.get_weights()]).tolist()


two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
print(json.dumps({
    "native": train("safetensors"), "onnx": train("onnx"), "onnx under XLA": train("onnx", jit_compile=True),
    "onnx on two devices": train("onnx", two),
}))
"""


def pixels(batch: int = 4, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).random((batch, side, side, 3), dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One conversion serves all tests here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def both(teacher, tmp_path_factory) -> Path:
    """A folder with a native form and model.onnx, of a network that gives every image its own answer."""
    folder = tmp_path_factory.mktemp("both") / "teacher"
    model, _ = keras_aip.load_model(teacher)
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else 3 * w for w in model.get_weights()])
    card = keras_aip.save_teacher(model, folder)
    to_onnx(model, folder / "model.onnx")
    dataclasses.replace(card, forms={**card.forms, "onnx": "model.onnx"}).sealed(folder).save(folder)
    return folder


@pytest.fixture
def crossed(both, tmp_path) -> Path:
    """The same teacher as another framework would leave it: model.onnx alone."""
    return only_onnx(both, tmp_path / "crossed")


def only_onnx(both: Path, folder: Path, **facts) -> Path:
    folder.mkdir()
    shutil.copy(both / "model.onnx", folder)
    card = dataclasses.replace(Card.load(both), forms={"onnx": "model.onnx"}, architecture=None, arguments={}, **facts)
    card.sealed(folder).save(folder)
    return folder


def test_the_converted_teacher_says_what_the_native_one_says(both, crossed):
    native, other = keras_aip.load_teacher(both), keras_aip.load_teacher(crossed)
    assert keras_aip.load_teacher(both, form="onnx").digest == native.digest == Card.load(both).digest
    assert (other.classes, other.input_size, other.outputs) == (10, (SIDE, SIDE), "logits")
    assert other.trainable_weights == [] and other.digest == Card.load(crossed).digest != native.digest
    in_graph = tf.function(lambda x: other(x), input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3])], autograph=False)
    compiled = tf.function(lambda x: other(x), jit_compile=True, autograph=False)
    for batch in (1, 4):
        expected = native(pixels(batch)).numpy()
        assert np.ptp(expected) > 1
        for answer in (other, in_graph, compiled):
            np.testing.assert_allclose(answer(pixels(batch)), expected, rtol=1e-4, atol=1e-5)
    with tf.GradientTape() as tape:
        images = tf.Variable(pixels())
        loss = tf.reduce_sum(other(images))
    assert tape.gradient(loss, images) is None


def test_what_its_classes_like_best_is_drawn_as_of_the_native_one(both, crossed):
    ascent = Ascent(4, 0.1, 0.06, 0.1, 0, Canvas(SIDE, SIDE, level=0.7), (SIDE, SIDE))
    native, found = (inspected(str(folder)).maximise([Unit(1), Unit(5)], ascent, print) for folder in (both, crossed))
    assert (found.after > found.before + 0.1).all()
    np.testing.assert_allclose(found.after, native.after, rtol=1e-2)
    assert np.abs(found.pictures.astype(int) - native.pictures).mean() < 1
    with pytest.raises(TeacherError, match="show their layers to PyTorch alone"):
        inspected(str(crossed)).maps(np.zeros((1, SIDE, SIDE, 3), np.uint8), None)


def test_the_native_form_comes_first_and_any_can_be_asked_for(both, crossed):
    assert keras_aip.load_teacher(both, dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(TeacherError, match=r"bfloat16.*native form"):
        keras_aip.load_teacher(crossed, dtype="bfloat16")
    with pytest.raises(TeacherError, match="no form 'keras': its card names safetensors, onnx"):
        keras_aip.load_teacher(both, form="keras")
    with pytest.raises(TeacherError, match="Did you mean 'onnx'"):
        keras_aip.load_teacher(both, form="onx")
    with pytest.raises(TeacherError, match=r"frozen teacher \(load_teacher\)"):
        keras_aip.load_model(crossed)


def test_an_architecture_of_the_other_backend_alone_is_crossed(both, tmp_path):
    folder = shutil.copytree(both, tmp_path / "teacher")
    dataclasses.replace(Card.load(both), architecture="resnet18", arguments={}).save(folder)
    np.testing.assert_allclose(
        keras_aip.load_teacher(folder)(pixels()), keras_aip.load_teacher(both)(pixels()), rtol=1e-4, atol=1e-5
    )


def test_a_file_of_the_other_keras_is_passed_over_for_onnx(both, crossed):
    with zipfile.ZipFile(crossed / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", json.dumps({"keras_version": "1.2.3"}))
    card = dataclasses.replace(Card.load(crossed), forms={"keras": "model.keras", "onnx": "model.onnx"})
    card.sealed(crossed).save(crossed)
    expected = keras_aip.load_teacher(both)(pixels())
    np.testing.assert_allclose(keras_aip.load_teacher(crossed)(pixels()), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TeacherError, match=r"saved by Keras 1\.2\.3"):
        keras_aip.load_teacher(crossed, form="keras")


def test_what_does_not_fit_the_network_is_refused(both, crossed, tmp_path):
    with pytest.raises(TeacherError, match=r"takes \(batch, 32, 32, 3\), not \(4, 16, 16, 3\)"):
        keras_aip.load_teacher(crossed)(pixels(side=16))
    wrong = only_onnx(both, tmp_path / "wrong", input_size=(16, 16))
    with pytest.raises(TeacherError, match=r"takes \[32, 32, 3\] per sample, its card says \[16, 16, 3\]"):
        keras_aip.load_teacher(wrong)
    few = only_onnx(both, tmp_path / "few", classes=3)
    with pytest.raises(TeacherError, match="for 10 classes, its card says 3"):
        keras_aip.load_teacher(few)


def test_a_teacher_of_sounds_takes_waveforms(both, tmp_path, monkeypatch):
    # Only what is loaded is looked at here; the conversion of one is tested with the cache.
    module = tf.Module()
    module.answer = tf.function(
        lambda x: {"scores": tf.stack([tf.reduce_mean(x, 1), tf.reduce_max(x, 1)], 1)},
        input_signature=[tf.TensorSpec([None, 80], name="waveform")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.answer})
    monkeypatch.setattr(keras_aip.models.from_onnx, "converted", lambda path: tmp_path / "saved")
    facts = {"kind": "audio", "rate": 80, "input_size": (80,), "classes": 2, "range": (-1, 1)}
    teacher = keras_aip.load_teacher(only_onnx(both, tmp_path / "teacher", **facts))
    sound = np.random.default_rng(0).uniform(-1, 1, (3, 80)).astype(np.float32)
    np.testing.assert_allclose(teacher(sound), np.stack([sound.mean(1), sound.max(1)], 1), rtol=1e-5, atol=1e-6)
    assert teacher.input_size == (80,)


@pytest.fixture(scope="module")
def trained(both) -> dict[str, list[float]]:
    """In a process of its own, since a processor is split in two before anything runs on it."""
    keras_aip.load_teacher(both, form="onnx")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(both)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("way", ["onnx", "onnx under XLA", "onnx on two devices"])
def test_a_student_learns_from_it_what_it_learns_from_the_native_one(way, trained):
    assert np.ptp(trained["native"]) > 1
    np.testing.assert_allclose(trained[way], trained["native"], rtol=1e-3, atol=1e-4)


def test_the_commands_take_such_a_folder(crossed, tmp_path, capsys):
    out = tmp_path / "run"
    line = ["distill", "--teacher", str(crossed), "--out", str(out), "--image", "sklearn:china.jpg", "--smoke"]
    assert main([*line, "--student", "small_cnn", "--student-width", "2"]) == 0
    result = json.loads((out / "result.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", "--model", str(crossed), "--dataset", "digits"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["student_top1"] is not None and result["teacher_top1"] is not None


def test_the_converter_stays_out_of_this_process(both):
    keras_aip.load_teacher(both, form="onnx")
    assert "onnx2tf" not in sys.modules  # it would choose Keras 2 and seed every generator
