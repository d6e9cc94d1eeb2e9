"""The examples run as they stand, at tiny size."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def run(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=200)


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
def test_own_keras_model_is_cloned_from_own_photograph(tmp_path, outputs):
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
    done = run(
        *("examples/your_own_model.py", tmp_path / "model.keras", tmp_path / "photo.jpg", "--outputs", outputs),
        *("--student", "small_cnn", "--epochs", 1, "--views", 32, "--batch-size", 16, "--out", tmp_path / "clone"),
    )
    assert done.returncode == 0, done.stderr
    clone, _ = keras_aip_load(tmp_path / "clone")
    assert clone.output_shape == (None, 5)


def keras_aip_load(folder):
    import keras_aip

    return keras_aip.load_model(folder)


def test_the_tpu_example_differs_by_the_name_of_the_strategy_alone(tmp_path):
    import keras

    import keras_aip

    keras.utils.set_random_seed(0)
    teacher = keras_aip.models.small_cnn(classes=10, width=2)
    keras_aip.save_teacher(teacher, tmp_path / "teacher", class_names=[str(k) for k in range(10)])
    line = (
        *("examples/tpu_cifar.py", "sklearn:china.jpg", "--teacher", tmp_path / "teacher", "--student", "small_cnn"),
        *("--dataset", "digits", "--views", 128, "--batch-size", 32, "--steps-per-execution", 2, "--epochs", 1),
    )
    done = run(*line, "--strategy", "mirrored", "--out", tmp_path / "student")
    assert done.returncode == 0, done.stderr
    assert "500 real images" in done.stdout and (tmp_path / "student" / "card.json").exists()
    done = run(*line, "--strategy", "tpu")
    assert done.returncode != 0 and "there is no TPU" in done.stderr
