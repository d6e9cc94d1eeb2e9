"""Training a teacher: well above chance in seconds, and from the weights of another."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from bridge.config import TrainTeacherConfig
from bridge.datasets import load
from bridge.errors import ConfigError, DatasetError, TeacherError
from bridge.teachers import Card, training
from bridge.teachers.shelf import folder_for
from tests.torch_aip.helpers import Foreign, a_network
from torch_aip import load_model, load_teacher, models, save_teacher
from torch_aip.train_teacher import train_teacher

QUICK = TrainTeacherConfig(
    dataset="digits", width=8, image_size=16, epochs=3, batch_size=50, normalise="half", flip=False, pad=1, cutout=0
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "teacher"
    return train_teacher(dataclasses.replace(QUICK, out=str(folder))), folder


def test_a_small_teacher_learns_digits_in_seconds(trained) -> None:
    measured, folder = trained
    card = Card.load(folder)
    assert measured["student_top1"] > 0.8 and measured["n"] == 297
    assert card.accuracy == {"top1": measured["student_top1"], "dataset": "digits/validation", "n": 297}
    assert card.input_size == (16, 16) and card.class_names == tuple("0123456789") and card.arguments["width"] == 8
    assert card.source.startswith("trained on digits") and card.licence
    assert load_teacher(folder).classes == 10


def test_the_same_seed_gives_the_same_teacher(tmp_path) -> None:
    config = dataclasses.replace(QUICK, epochs=1, steps_per_epoch=3, l2=1e-4)
    weights = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        train_teacher(dataclasses.replace(config, seed=seed, out=str(tmp_path / name)))
        weights.append(models.state_dict(load_model(tmp_path / name)[0])["fc.weight"])
    assert (weights[0] == weights[1]).all() and not (weights[0] == weights[2]).all()


def letters(folder, size: int = 16):
    """Images of three classes, as a data set of one's own."""
    arrays = {}
    for part, count in (("train", 30), ("test", 12)):
        labels = np.arange(count) % 3
        pixels = np.random.default_rng(count).integers(0, 256, (count, size, size, 3))
        arrays |= {f"x_{part}": (pixels // 2 + 40 * labels[:, None, None, None]).astype(np.uint8), f"y_{part}": labels}
    np.savez(folder / "letters.npz", **arrays)
    return str(folder / "letters.npz")


def begun(config: TrainTeacherConfig):
    start = training.start_of(config, models, load_model)
    train, test = training.load_data(config, start.image_size, load)
    return training.network(config, start, train, test, models)


def test_init_keeps_the_trunk_and_its_normalisation_and_replaces_the_head(trained, tmp_path) -> None:
    folder = trained[1]
    before = models.state_dict(load_model(folder)[0])
    torch.manual_seed(1)
    model = begun(TrainTeacherConfig(dataset=letters(tmp_path), init=str(folder)))
    after = models.state_dict(model)
    assert after["fc.weight"].shape[0] == 3 and models.input_size_of(model) == (16, 16)
    kept = [name for name in before if not name.startswith("fc.")]
    assert len(kept) > 10 and all((before[name] == after[name]).all() for name in kept)
    assert models.architecture_of(model)["arguments"]["mean"] == [0.5] * 3  # the digits teacher's, not the new set's
    same = models.state_dict(begun(dataclasses.replace(QUICK, init=str(folder))))
    assert all((before[name] == same[name]).all() for name in before)  # ten classes again: the head too


def test_fine_tuning_writes_a_teacher_that_says_where_it_comes_from(trained, tmp_path) -> None:
    line: dict[str, Any] = {"dataset": letters(tmp_path), "init": str(trained[1]), "out": str(tmp_path / "tuned")}
    train_teacher(TrainTeacherConfig(**line, epochs=1, batch_size=10, pad=0, cutout=0, learning_rate=1e-4))
    card = Card.load(tmp_path / "tuned")
    assert card.classes == 3 and card.source.startswith(f"{trained[1]}, then trained on")


def test_init_of_something_else_is_refused(trained, tmp_path) -> None:
    folder, data = str(trained[1]), letters(tmp_path)
    save_teacher(Foreign(), tmp_path / "foreign", input_size=(16, 16))
    for options, kind, said in (
        ({"init": folder, "architecture": "resnet20"}, ConfigError, "is a small_cnn; leave out --architecture"),
        ({"init": folder, "width": 9}, ConfigError, "leave out --architecture, --width and --depth"),
        ({"init": folder, "image_size": 32}, TeacherError, r"--image-size 32: .*fc\.weight"),
        ({"init": str(tmp_path / "foreign")}, TeacherError, "frozen teacher"),
        ({"init": str(tmp_path / "nothing")}, TeacherError, "There is no teacher"),
        ({"dataset": str(tmp_path)}, DatasetError, "must hold train/ and test/"),
    ):
        line: dict[str, Any] = {"dataset": data, **options}
        with pytest.raises(kind, match=said):
            begun(TrainTeacherConfig(**line))


def test_where_it_cannot_write_is_said_before_the_training(tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    cases: Any = ({"out": str(tmp_path / "full")}, "not empty"), ({"cutout": 3}, "cutout")
    for options, said in cases:
        with pytest.raises(ConfigError, match=said):
            train_teacher(dataclasses.replace(QUICK, **options))


def test_published_weights_are_found_by_data_set_afterwards(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path))
    assert folder_for("pets37", "torchvision/resnet18") == tmp_path / "pets37_resnet18"
    save_teacher(a_network(), tmp_path / "pets37_resnet18")
    assert load_teacher("resnet18", dataset="pets37").classes == 3


def test_the_usual_size_is_that_of_the_network() -> None:
    for architecture, size in (("small_cnn", 32), ("resnet18x0.25", 224), ("torchvision/resnet18", 224)):
        config = TrainTeacherConfig(architecture=architecture)
        assert training.start_of(config, models, load_model).image_size == size
