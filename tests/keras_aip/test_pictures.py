"""Pictures that are decoded while they are used: measured and trained on in Keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bridge.batches import picture_crops
from bridge.datasets import load_folder
from keras_aip import Teacher, evaluate
from keras_aip.datasets import training_batches
from tests.bridge.test_pictures import picture


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(13):
        picture(tmp_path / "set" / "abc"[k % 3] / f"{k:02d}.png", seed=k)
    return tmp_path / "set"


def test_unreadable_pictures_are_left_out_of_every_figure(make_network, folder):
    model, teacher = make_network(seed=1), Teacher(make_network(seed=2))
    (folder / "b" / "04.png").write_bytes(b"\x89PNG broken")
    with pytest.warns(UserWarning, match=r"skipped 1 of 13 files, no usable images: b/04\.png"):
        at_once = load_folder(folder, 8)
    with pytest.warns(UserWarning, match=r"skipped 1 of 13 files, no usable images: b/04\.png"):
        measured = evaluate(model, load_folder(folder, 8, lazy=True), teacher=teacher, batch_size=4)
    assert measured["n"] == 12
    assert measured == pytest.approx(evaluate(model, at_once, teacher=teacher, batch_size=4))


def test_training_batches_are_crops_of_the_pictures_in_full_size(folder):
    data = load_folder(folder, 16, lazy=True)
    images, labels = next(iter(training_batches(data, 6, seed=2).skip(1).as_numpy_iterator()))
    crops, picked = picture_crops(data.images, np.arange(6, 12), flip=True, seed=2)
    assert np.array_equal(images, crops.astype(np.float32) / 255)
    assert np.array_equal(labels, data.labels[picked])
