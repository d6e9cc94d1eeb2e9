"""The examples run as they stand, at tiny size."""

import importlib.util
import json
import runpy
import socket
import subprocess
import sys

import pytest

from bridge.teachers.card import Card
from tests.conftest import ROOT


def run(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Run an example once more, in this process, which has TensorFlow loaded; returns what it printed."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(ROOT / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_quickstart_is_short_and_ends_with_a_student(tmp_path):
    lines = (ROOT / "examples" / "quickstart.py").read_text().splitlines()
    assert len(lines) < 40
    import keras

    import keras_aip

    keras.utils.set_random_seed(0)
    keras_aip.save_teacher(keras_aip.models.small_cnn(classes=10, width=2), tmp_path / "teacher")
    done = run("examples/quickstart.py", "--epochs", 1, "--steps-per-epoch", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "500 real digits" in done.stdout and (tmp_path / "student" / "card.json").exists()


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_own_keras_model_is_cloned_from_own_photograph(tmp_path, outputs, run_here):
    import keras
    from PIL import Image

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax" if outputs == "probabilities" else None),
        ]
    )
    model.save(tmp_path / "model.keras")
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "photo.jpg")
    line = (
        *("examples/your_own_model.py", tmp_path / "model.keras", tmp_path / "photo.jpg", "--outputs", outputs),
        *("--student", "small_cnn", "--epochs", 1, "--views", 32, "--batch-size", 16, "--out", tmp_path / "clone"),
    )
    if outputs == "logits":
        done = run(*line)
        assert done.returncode == 0, done.stderr
    else:
        run_here(*line)
    clone, _ = keras_aip_load(tmp_path / "clone")
    assert clone.output_shape == (None, 5)


def keras_aip_load(folder):
    import keras_aip

    return keras_aip.load_model(folder)


def test_the_tpu_example_differs_by_the_name_of_the_strategy_alone(tmp_path, run_here):
    import keras

    import keras_aip

    keras.utils.set_random_seed(0)
    teacher = keras_aip.models.small_cnn(classes=10, width=2)
    keras_aip.save_teacher(teacher, tmp_path / "teacher", class_names=[str(k) for k in range(10)])
    line = (
        *("examples/tpu_cifar.py", "sklearn:china.jpg", "--teacher", tmp_path / "teacher", "--student", "small_cnn"),
        *("--dataset", "digits", "--views", 128, "--batch-size", 32, "--steps-per-execution", 2, "--epochs", 1),
    )
    said = run_here(*line, "--strategy", "mirrored", "--out", tmp_path / "student")
    assert "500 real images" in said and (tmp_path / "student" / "card.json").exists()
    done = run(*line, "--strategy", "tpu")
    assert done.returncode != 0 and "there is no TPU" in done.stderr


BRIDGE = [importlib.util.find_spec(name) is None for name in ("torch", "onnx2tf", "onnxruntime")]
needs_bridge = pytest.mark.skipif(any(BRIDGE), reason="torch, onnx2tf or onnxruntime is not installed")
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def is_short(name):
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60


@needs_bridge
def test_a_pytorch_teacher_teaches_a_keras_student(tmp_path):
    import torch

    import torch_aip

    is_short("torch_teacher_keras_student.py")
    torch.save(torch_aip.models.wrn(10, 1, classes=10, **HALF).state_dict(), tmp_path / "teacher.pt")
    done = run(
        *("examples/torch_teacher_keras_student.py", tmp_path / "teacher.pt", "sklearn:china.jpg"),
        *("--architecture", "wrn_10_1", "--dataset", "digits", "--student", "small_cnn", "--epochs", 1),
        *("--views", 32, "--batch-size", 16, "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert "'tensorflow_onnx': '100.00%'" in done.stdout and "'torch_safetensors': '100.00%'" in done.stdout
    student, card = keras_aip_load(tmp_path / "out" / "student")
    assert student.output_shape == (None, 10) and card.class_names == tuple("0123456789")


@needs_bridge
def test_a_keras_teacher_is_asked_from_pytorch(tmp_path, run_here):
    import keras

    import keras_aip

    is_short("keras_teacher_in_torch.py")
    layers = keras.layers
    model = keras.Sequential([keras.Input((9, 9, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Softmax()])
    model.save(tmp_path / "mine.keras")
    words = ["--range", 0, 255, "--outputs", "probabilities", "--out", tmp_path / "out"]
    done = run("examples/keras_teacher_in_torch.py", tmp_path / "mine.keras", *words)
    assert done.returncode == 0, done.stderr
    assert "98 classes, images of 9 × 9; answers [4, 98]" in done.stdout
    keras_aip.save_teacher(keras_aip.models.small_cnn(classes=3, width=2), tmp_path / "folder")
    said = run_here("examples/keras_teacher_in_torch.py", tmp_path / "folder")
    assert "3 classes, images of 32 × 32" in said


@needs_bridge
def test_a_users_onnx_file_says_the_same_in_both(tmp_path):
    from tests.bridge.onnx_nets import conv_net, saved

    is_short("onnx_teacher_in_both.py")
    saved(conv_net(), tmp_path / "mine.onnx")
    words = ["--range", 0, 255, "--mean", 120, 115, 100, "--std", 60, 60, 60, "--views", 64, "--out", tmp_path / "out"]
    done = run("examples/onnx_teacher_in_both.py", tmp_path / "mine.onnx", *words)
    assert done.returncode == 0, done.stderr
    for engine in ("tensorflow_onnx ", "tensorflow_onnx_xla", "torch_onnx"):
        assert any(line.startswith(engine) and "100.00% of 64" in line for line in done.stdout.splitlines()), engine


def test_a_network_for_imagenets_size_learns_from_one_photograph(tmp_path):
    torch = pytest.importorskip("torch")
    from PIL import Image

    import torch_aip

    assert len((ROOT / "examples" / "imagenet_one_image.py").read_text().splitlines()) <= 50
    torch.manual_seed(0)
    teacher = torch_aip.models.build("resnet18x0.125", classes=2, image_size=96)
    torch_aip.save_teacher(teacher, tmp_path / "teacher", class_names=["cat", "dog"])
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "photo.jpg")
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.effect_noise((130, 100), 80).convert("RGB").save(tmp_path / "test" / name / "1.jpg")
    done = run(
        *("examples/imagenet_one_image.py", tmp_path / "photo.jpg", "--teacher", tmp_path / "teacher", "--student"),
        *("resnet18x0.125", "--views", 16, "--batch-size", 8, "--epochs", 1, "--testdir", tmp_path / "test"),
        *("--out", tmp_path / "student"),
    )
    assert done.returncode == 0, done.stderr
    assert "of 2 pictures" in done.stdout
    student, card = torch_aip.load_model(tmp_path / "student")
    assert card.class_names == ("cat", "dog") and not torch.equal(student.fc.weight, teacher.fc.weight)


def test_a_service_that_tells_labels_is_cloned_killed_and_resumed(tmp_path):
    torch = pytest.importorskip("torch")
    import torch_aip

    torch.manual_seed(0)
    teacher = torch_aip.models.small_cnn(classes=10, width=2)
    torch_aip.save_teacher(teacher, tmp_path / "teacher", class_names=[str(k) for k in range(10)])
    out = tmp_path / "out" / "seed_0"
    done = run(
        *("examples/label_only.py", "--program", "torch_aip", "--teacher", tmp_path / "teacher", "--threads", 1),
        *("--queries", 320, "--epochs", 1, "--outputs", "labels", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert "\nKilled; " in done.stdout and "the clone reads" in done.stdout
    told = json.loads((out / "label_only.json").read_text())
    # The question that was open when it was killed is asked again, and nothing else.
    assert told["labels"]["asked_again"] in (0, 32) and told["labels"]["n"] == 500
    # The benchmark takes what is there, if it was made with its options.
    (out / "label_only.json").write_text(json.dumps({**told, "probabilities": told["labels"]}))
    line = (
        "--teacher",
        tmp_path / "teacher",
        "--seeds",
        1,
        "--out",
        out.parent,
        "--results",
        tmp_path / "results.json",
    )
    done = run("benchmarks/label_only.py", *line)
    assert done.returncode == 1 and "was made with other options: " in done.stderr
    digest = Card.load(tmp_path / "teacher").digest
    options = {"program": "torch_aip", "queries": 320, "epochs": 1, "split": "test", "threads": 1, "teacher": digest}
    (out / "options.json").write_text(json.dumps(options))
    done = run("benchmarks/label_only.py", *line)
    assert done.returncode == 1 and "queries was 320 and is now 3200, epochs was 1 and is now 26." in done.stderr
    assert run("benchmarks/label_only.py", *line, "--queries", 320, "--epochs", 1).returncode == 0
    text = (tmp_path / "results.json").read_text()
    assert str(tmp_path) not in text and str(ROOT) not in text and socket.gethostname() not in text
    assert json.loads(text)["labels"]["student_top1"]["median"] == round(told["labels"]["student_top1"], 4)


# What stands for the example: as `distill`, it refuses what is there.
STAND_IN = """
import json, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
for outputs in ("labels", "probabilities"):
    (out / outputs).mkdir(parents=True)
    assert outputs == "labels" or "--epochs 1 " in " ".join(sys.argv)
result = dict.fromkeys(("student_top1", "agreement", "teacher_top1", "n", "answered", "asked_again"), 1)
(out / "label_only.json").write_text(json.dumps({"labels": result, "probabilities": result}))
"""


def test_a_seed_of_the_benchmark_that_broke_off_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "label_only.py"))["of_seed"]
    monkeypatch.setitem(benchmark.__globals__, "ROOT", tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "label_only.py").write_text(STAND_IN)
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    Card(classes=3, input_size=(8, 8), forms={"safetensors": "weights.safetensors"}).sealed(tmp_path).save(tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        benchmark(0, tmp_path, tmp_path, {"epochs": 2})
    assert (tmp_path / "seed_0" / "labels").is_dir()
    assert benchmark(0, tmp_path, tmp_path, {"epochs": 1})["labels"]["n"] == 1
    assert benchmark(0, tmp_path, tmp_path, {"epochs": 1})["labels"]["n"] == 1
    with pytest.raises(SystemExit, match="epochs was 1 and is now 2"):
        benchmark(0, tmp_path, tmp_path, {"epochs": 2})
