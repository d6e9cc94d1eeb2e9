"""`bridge convert` and `bridge teachers`: other forms of a network, compared with the original; what can be had."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bridge.cli import main
from bridge.errors import ConfigError, MissingTeacherError, TeacherError
from bridge.teachers import zoo
from bridge.teachers.card import Card
from bridge.teachers.export import place_of
from bridge.teachers.forms import convert
from bridge.teachers.options import ConvertConfig, ExportConfig
from bridge.teachers.runtime import Runtime
from bridge.teachers.shelf import find_folder


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


@pytest.mark.parametrize("to", ["tflite", "saved_model", "onnx"])
def test_a_form_that_answers_otherwise_is_never_at_its_place(
    to: str, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.teachers import forms

    places = []

    def wrong(folder: Path, card: Card, out: Path, *others: Any) -> Any:
        run = right(folder, card, out, *others)
        places.append((out.suffix, out.exists(), place.exists()))
        return lambda x: run(x) + 0.1

    right = forms.WRITERS[to]
    monkeypatch.setitem(forms.WRITERS, to, wrong)
    place = student.parent / {"tflite": "mine.tflite", "saved_model": "mine", "onnx": "mine.onnx"}[to]
    with pytest.raises(TeacherError, match=r"answers otherwise than keras_safetensors.*was not written"):
        convert(ConvertConfig(model=str(student), to=to, out=str(place), views=8))  # type: ignore[arg-type]
    assert places == [(place.suffix, True, False)]
    assert [path.name for path in student.parent.iterdir()] == ["student"]


def test_a_form_sweeps_away_what_a_kill_left_and_nothing_else(student: Path) -> None:
    place = student.with_name("student.tflite")
    place.write_bytes(b"mine")
    with pytest.raises(TeacherError, match=r"student\.tflite exists"):
        convert(ConvertConfig(model=str(student), to="tflite", views=8))
    assert place.read_bytes() == b"mine"
    place.unlink()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = place.with_name(f".{place.name}.{ended.pid}-0123abcd.tmp")
    left.mkdir()
    convert(ConvertConfig(model=str(student), to="tflite", views=8))
    assert place.stat().st_size > 1000 and not left.exists()
    convert(ConvertConfig(model=str(student), to="saved_model", views=8))
    (written := student.with_name("student_saved_model")).rename(written.with_name("moved"))
    written.mkdir()
    convert(ConvertConfig(model=str(student), to="saved_model", views=8))  # into an empty folder
    assert (written / "saved_model.pb").exists() and not list(student.parent.glob(".*"))


def test_a_form_more_leaves_the_digest_that_runs_and_stored_answers_record(student: Path) -> None:
    import keras_aip

    before = Card.load(student)
    convert(ConvertConfig(model=str(student), to="onnx", views=8))
    after = Card.load(student)
    assert set(after.forms) == {"safetensors", "onnx"} and after.digest == before.digest and after.mark != before.mark
    assert keras_aip.load_teacher(student).digest == before.digest


@pytest.mark.parametrize("to", ["saved_model", "tflite", "onnx"])
def test_a_full_disk_is_one_message_and_leaves_nothing(to: str, student: Path, capfd: pytest.CaptureFixture) -> None:
    resource = pytest.importorskip("resource")
    before = sorted(student.parent.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # "file too large", where a disk would be full
    try:
        code = main(["convert", "--model", str(student), "--to", to, "--views", "8"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capfd.readouterr().err
    assert code == 2 and said.count("cannot be written") == 1 and "too large" in said and "Traceback" not in said, said
    assert ".tmp/" not in said  # the place the user named, not ours beside it
    assert sorted(student.parent.rglob("*")) == before


def test_an_architecture_of_a_library_is_converted_by_the_backend_that_knows_it(tmp_path: Path) -> None:
    torch_aip = pytest.importorskip("torch_aip")
    net = torch_aip.models.build(
        "torchvision/squeezenet1_1", classes=3, image_size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    torch_aip.save_teacher(net, tmp_path / "t")
    lines = convert(ConvertConfig(model=str(tmp_path / "t"), to="onnx", views=8))
    assert "Same answer as torch_safetensors on 100.00%" in lines[1]
    assert set(Card.load(tmp_path / "t").forms) == {"safetensors", "onnx"}


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from bridge.cli import main
for to in ("saved_model", "tflite", "tflite_int8"):
    assert main(["convert", "--model", sys.argv[1], "--to", to, "--views", "4"]) == 2
"""


def test_what_only_tensorflow_writes_says_what_to_install_without_it(student: Path) -> None:
    pytest.importorskip("torch")
    root = Path(__file__).resolve().parents[2]
    line = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(student)]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("pip install -r requirements/keras3.txt") == 3, done.stderr
    assert "Traceback" not in done.stderr and [path.name for path in student.parent.iterdir()] == ["student"]


def test_the_extra_bridge_brings_what_onnx2tf_imports_and_does_not_declare() -> None:
    package = importlib.util.find_spec("onnx2tf")
    if package is None or package.origin is None:
        pytest.skip("onnx2tf is not installed")
    root = Path(__file__).resolve().parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    waiting, brought = [*extras["bridge"], *extras["keras"]], set()
    while waiting:
        name = re.split(r"[^\w.-]", waiting.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name not in brought:
            brought.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):
                waiting += [line for line in metadata.requires(name) or () if "extra ==" not in line]
    folder = Path(package.origin).parent
    trees = [ast.parse((folder / path).read_text()) for path in ("onnx2tf.py", "utils/common_functions.py")]
    imported = set()
    for node in (node for tree in trees for node in tree.body):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    makers = metadata.packages_distributions()
    foreign = {name: makers[name] for name in imported - {"onnx2tf"} if name in makers}
    assert {"onnx_graphsurgeon", "sng4onnx", "tf_keras"} <= set(foreign)
    lacking = {
        name for name, made in foreign.items() if not {maker.lower().replace("_", "-") for maker in made} & brought
    }
    assert not lacking


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
    for to, place, expected in (("tflite", full, "tflite is a file"), ("saved_model", full / "diary", "is a folder")):
        assert main(["convert", "--model", str(student), "--to", to, "--out", str(place)]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18.a1_in1k", "keras.applications/MobileNetV2"])
def test_a_network_of_a_library_is_no_folder_to_find_but_can_be_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path))
    with pytest.raises(MissingTeacherError) as caught:
        find_folder(name, "cifar10")
    assert f"`python -m bridge export --model {name}`" in str(caught.value)
    assert "train-teacher" not in str(caught.value) and caught.value.out is None
    label = re.search(r"found as (\w+)\.$", str(caught.value))
    assert label and place_of(ExportConfig(model=name)) == tmp_path / label[1]
    place_of(ExportConfig(model=name)).mkdir()
    assert find_folder(label[1]) == tmp_path / label[1]
    (tmp_path / name).mkdir(parents=True)
    assert find_folder(name) == tmp_path / name


def test_teachers_on_the_shelf_come_first_with_what_was_measured(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("AIP_TEACHERS", str(student.parent))
    (student.parent / "something else").mkdir(exist_ok=True)
    shutil.copytree(student, student.with_name(".student.1234567-0123abcd.tmp"))  # left by an export that was killed
    assert [entry.name for entry in zoo.entries("student")] == ["student"]
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
