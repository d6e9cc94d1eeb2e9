"""CIFAR by name through the commands: from a file on disk to a teacher that is found again by its architecture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import keras_aip
from bridge import cifar
from bridge.errors import TeacherError
from bridge.teachers.shelf import folder_for
from keras_aip.cli import main

COUNTS = {"train": 60, "test": 40}


@pytest.fixture
def data(tmp_path, monkeypatch, no_network) -> Path:
    """A small CIFAR-10 whose classes differ in colour; commands run in an empty folder of their own."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (10, 3))
    arrays = {}
    for part, count in COUNTS.items():
        labels = np.arange(count) % 10
        pixels = colours[labels][:, None, None] + generator.integers(-20, 20, (count, 32, 32, 3))
        arrays |= {f"x_{part}": np.clip(pixels, 0, 255).astype(np.uint8), f"y_{part}": labels[:, None]}
    (tmp_path / "sets").mkdir()
    np.savez(tmp_path / "sets" / "cifar10.npz", **arrays)
    monkeypatch.setattr(cifar, "SIZES", COUNTS)
    monkeypatch.delenv("AIP_DATA", raising=False)
    monkeypatch.delenv("AIP_TEACHERS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sets"


def error_of(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("keras-aip: ") and "Traceback" not in said
    return said


TRAIN = ["train-teacher", "--dataset", "cifar10", "--architecture", "small_cnn", "--width", "4", "--batch-size", "16"]


def test_a_teacher_is_trained_found_by_its_architecture_and_measured(data, capsys, monkeypatch):
    assert main([*TRAIN, "--data-dir", str(data), "--epochs", "15", "--cutout", "0"]) == 0
    folder = Path("teachers/cifar10_small_cnn")
    card = json.loads((folder / "card.json").read_text())
    assert card["accuracy"]["dataset"] == "cifar10/validation" and card["accuracy"]["n"] == 6
    assert card["class_names"][0] == "airplane" and "54 images" in card["source"]
    monkeypatch.setenv("AIP_DATA", str(data))
    capsys.readouterr()
    assert main(["evaluate", "--model", "small_cnn", "--dataset", "cifar10", "--teacher", "small_cnn"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["n"] == 40 and measured["student_top1"] > 0.5 and measured["agreement"] == 1
    model, _ = keras_aip.load_model("small_cnn", dataset="cifar10")
    assert keras_aip.evaluate(model, "cifar10")["student_top1"] == measured["student_top1"]
    assert keras_aip.evaluate(model, "cifar10", split="train", data_dir=str(data))["n"] == 54
    assert "is not empty" in error_of(capsys, *TRAIN)


def test_a_teacher_for_the_paper_learns_from_validation_too(data, monkeypatch):
    monkeypatch.setenv("AIP_DATA", str(data))
    monkeypatch.setenv("AIP_TEACHERS", "shelf")
    assert main(["train-teacher", "--preset", "paper-cifar10", "--architecture", "small_cnn", "--smoke"]) == 0
    card = json.loads(Path("shelf/cifar10_small_cnn/card.json").read_text())
    assert card["accuracy"]["dataset"] == "cifar10" and "60 images" in card["source"]


def test_a_path_to_a_file_with_parts_works_like_a_name(data, capsys):
    path = str(data / "cifar10.npz")
    line = ["train-teacher", "--dataset", path, "--architecture", "small_cnn", "--width", "4", "--epochs", "1"]
    assert main([*line, "--normalise", "half"]) == 0
    card = json.loads(Path("teachers/cifar10_small_cnn/card.json").read_text())
    assert card["classes"] == 10 and card["class_names"] is None
    assert main(["evaluate", "--model", "small_cnn", "--dataset", path]) == 0
    capsys.readouterr()
    np.savez(data / "one.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4))
    assert "is one set" in error_of(capsys, "train-teacher", "--dataset", str(data / "one.npz"))


def test_what_is_missing_is_named_with_the_line_that_mends_it(data, capsys):
    line = "train-teacher --dataset cifar10 --architecture wrn_40_4`"
    said = error_of(capsys, "evaluate", "--dataset", "cifar10", "--model", "wrn_40_4", "--data-dir", str(data))
    assert line in said and "teachers/cifar10_wrn_40_4, teachers/wrn_40_4" in said
    assert "cifar10 was not found: looked in data" in error_of(capsys, *TRAIN)


def test_a_teacher_is_looked_up_for_its_data_set_first(tmp_path, monkeypatch):
    """The reference code distilled a random teacher where that of CIFAR-100 was missing."""
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path))

    def save(folder: str, classes: int) -> None:
        keras_aip.save_teacher(keras_aip.models.small_cnn(classes=classes, width=2), tmp_path / folder)

    save("small_cnn", 3)
    assert keras_aip.load_teacher("small_cnn", dataset="cifar10").classes == 3
    save("cifar10_small_cnn", 10)
    save("cifar100_small_cnn", 100)
    assert [keras_aip.load_teacher("small_cnn", dataset=name).classes for name in ("cifar10", "cifar100")] == [10, 100]
    assert keras_aip.load_teacher("small_cnn", dataset="digits").classes == 3
    assert keras_aip.load_teacher("small_cnn").classes == 3
    assert keras_aip.load_teacher(tmp_path / "small_cnn", dataset="cifar10").classes == 3
    assert keras_aip.load_model("small_cnn", "cifar100")[1].classes == 100


@pytest.mark.parametrize(
    ("name", "dataset", "line"),
    [
        ("wrn_40_4", "cifar100", "--dataset cifar100 --architecture wrn_40_4`"),
        ("wrn_40_4", None, "--dataset DATASET --architecture wrn_40_4 --out shelf/wrn_40_4`"),
        ("mine", "digits", "--dataset digits --out shelf/mine`"),
        ("some/where", "digits", "--dataset digits --out some/where`"),
    ],
)
def test_the_line_that_trains_a_missing_teacher_is_given(name, dataset, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIP_TEACHERS", "shelf")
    with pytest.raises(TeacherError) as raised:
        keras_aip.load_teacher(name, dataset=dataset)
    assert line in str(raised.value)


def test_a_teachers_folder_is_called_after_the_last_part_of_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_TEACHERS", "shelf")
    monkeypatch.chdir(tmp_path)
    names = {"cifar10": "cifar10", "some/data/": "data", "a/mnist.npz": "mnist", ".": tmp_path.name, "../x.tar.gz": "x"}
    for dataset, name in names.items():
        assert folder_for(dataset, "vgg11") == Path("shelf") / f"{name}_vgg11"
