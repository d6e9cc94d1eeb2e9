"""`bridge convert` and `bridge teachers`: other forms of a network, compared with the original; what can be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bridge.cli import main
from bridge.errors import ConfigError, TeacherError
from bridge.teachers import zoo
from bridge.teachers.card import Card
from bridge.teachers.forms import convert
from bridge.teachers.options import ConvertConfig
from bridge.teachers.runtime import Runtime


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras

    import keras_aip

    keras.utils.set_random_seed(0)
    student = keras_aip.models.small_cnn(classes=4, width=16, image_size=16)
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # so that forgotten statistics show
            layer.moving_mean.assign(layer.moving_mean + 0.2)
    folder = tmp_path_factory.mktemp("shelf") / "student"
    keras_aip.save_teacher(student, folder, accuracy={"top1": 0.5, "dataset": "digits", "n": 500})
    return folder


@pytest.fixture
def student(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).random((batch, 16, 16, 3), np.float32)


def native(folder: Path, x: np.ndarray) -> np.ndarray:
    import keras_aip

    return keras_aip.load_model(folder)[0](x, training=False).numpy()


def test_model_onnx_joins_the_folder_and_its_card(student: Path) -> None:
    before = Card.load(student)
    lines = convert(ConvertConfig(model=str(student), to="onnx", views=32))
    card = Card.load(student)
    assert set(card.forms) == {"safetensors", "onnx"} and card.accuracy == before.accuracy
    assert "100.00% of 32 views" in " ".join(lines)
    answer = Runtime(student / "model.onnx")(np.ascontiguousarray(images(3).transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(answer, native(student, images(3)), rtol=1e-4, atol=1e-5)
    assert "already" in convert(ConvertConfig(model=str(student), to="onnx"))[0]


def test_a_saved_model_takes_any_batch_and_needs_nothing_of_ours(student: Path) -> None:
    import tensorflow as tf

    convert(ConvertConfig(model=str(student), to="saved_model", views=16))
    loaded = tf.saved_model.load(str(student.with_name("student_saved_model")))
    for batch in (1, 5):
        answer = loaded.signatures["serving_default"](images=tf.constant(images(batch)))["scores"]
        np.testing.assert_allclose(answer, native(student, images(batch)), rtol=1e-4, atol=1e-5)


def test_tflite_answers_alike_and_int8_is_smaller_and_near(student: Path) -> None:
    exact, small = student.with_name("a.tflite"), student.with_name("b.tflite")
    (_, said) = convert(ConvertConfig(model=str(student), to="tflite", out=str(exact), views=32))
    assert "100.00% of 32 views" in said
    (_, said) = convert(ConvertConfig(model=str(student), to="tflite_int8", out=str(small), views=32))
    assert "no data" in said and small.stat().st_size < 0.6 * exact.stat().st_size
    from keras_aip.forms import run_tflite

    found, expected = run_tflite(small)(images(8)), native(student, images(8))
    assert found.dtype == np.float32  # what goes in and out stays so
    assert 0 < np.abs(found - expected).max() < 0.3 * np.abs(expected).max()


def test_safetensors_cross_and_have_to_be_there(student: Path, tmp_path: Path) -> None:
    convert(ConvertConfig(model=str(student), to="safetensors", out=str(tmp_path / "w.safetensors"), views=8))
    assert (tmp_path / "w.safetensors").read_bytes() == (student / "weights.safetensors").read_bytes()
    from bridge.teachers.export import export
    from bridge.teachers.options import ExportConfig
    from tests.bridge.onnx_nets import conv_net

    onnx.save(conv_net(), tmp_path / "net.onnx")
    export(ExportConfig(model=str(tmp_path / "net.onnx"), out=str(tmp_path / "t")))
    with pytest.raises(TeacherError, match="--model ARCHITECTURE"):
        convert(ConvertConfig(model=str(tmp_path / "t"), to="safetensors"))


def test_a_form_that_answers_otherwise_is_removed_again(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_aip import forms

    right = forms.run_tflite
    monkeypatch.setattr(forms, "run_tflite", lambda path: lambda x: right(path)(x) + 0.1)
    with pytest.raises(TeacherError, match=r"answers otherwise than keras_safetensors.*It was removed"):
        convert(ConvertConfig(model=str(student), to="tflite", views=8))
    assert not student.with_name("student.tflite").exists()


def test_what_cannot_be_converted_is_one_message(student: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match="Which folder"):
        convert(ConvertConfig())
    assert main(["convert", "--model", str(student.parent / "absent")]) == 2
    assert "There is no teacher" in capsys.readouterr().err
    (student.parent / "file").write_text("")
    out = str(student.parent / "file" / "s.tflite")
    assert main(["convert", "--model", str(student), "--to", "tflite", "--out", out, "--views", "8"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    full = student.parent / "full"
    full.mkdir()
    (full / "diary").write_text("")
    assert main(["convert", "--model", str(student), "--to", "saved_model", "--out", str(full), "--views", "8"]) == 2
    assert "'diary'" in capsys.readouterr().err and [p.name for p in full.iterdir()] == ["diary"]


def test_teachers_on_the_shelf_come_first_with_what_was_measured(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("AIP_TEACHERS", str(student.parent))
    (student.parent / "something else").mkdir(exist_ok=True)
    mine = zoo.entries("student")[0]
    assert (mine.name, mine.input_size, mine.top1, mine.dataset, mine.here) == ("student", 16, 0.5, "digits", True)
    assert main(["teachers", "--find", "student"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["student", "0.1", "16", "50.0%", "digits", "yes"]
    assert main(["teachers", "--find", "no such network"]) == 2
    assert "Leave --find out" in capsys.readouterr().err


def test_published_teachers_are_listed_and_found_in_the_cache_without_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    pytest.importorskip("torch")
    listed = {entry.name: entry for entry in zoo.entries()}
    resnet, mobilenet = listed["torchvision/resnet18"], listed["keras.applications/MobileNetV2"]
    assert (resnet.input_size, round(resnet.top1 or 0, 3), resnet.here) == (224, 0.698, False)
    assert mobilenet.top1 == 0.713 and not mobilenet.here
    assert not any(name.startswith("timm/") for name in listed)
    assert any(entry.name == "timm/resnet18.a1_in1k" for entry in zoo.entries("resnet18"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"")
    (tmp_path / "keras" / "models").mkdir(parents=True)
    for file in ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5", "resnet50_weights_notop.h5"):
        (tmp_path / "keras" / "models" / file).write_bytes(b"")
    here = {entry.name for entry in zoo.entries() if entry.here}
    assert {"torchvision/resnet18", "keras.applications/MobileNetV2"} <= here
    assert not {"keras.applications/ResNet50", "keras.applications/MobileNet"} & here
