"""Keras networks against their PyTorch twins: the same weights and pixels give the same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import keras_aip
import torch_aip
from bridge.config import TrainTeacherConfig
from bridge.datasets import load
from bridge.teachers import training
from keras_aip import models as keras_models
from torch_aip import models as torch_models

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

TWINS = {
    "small_cnn": {"width": 4},
    "small_cnn at 20 px": {"width": 4, "image_size": 20},
    "wrn_10_1": {},
    "wrn_16_2 at 13 px": {"image_size": 13},
    "wrn_10_1, reference": {"reference": True},
    "wrn_10_2, reference, at 13 px": {"reference": True, "image_size": 13},
    "resnet20": {},
    "resnet32 at 15 px": {"image_size": 15},
    "vgg11": {},
}


def both(name: str, seed: int = 0, **arguments):
    """The same random network in both backends, whose weights and statistics all differ, so that swapped ones show."""
    torch.manual_seed(seed)
    arguments = {"classes": 5, **IMAGENET, **arguments}
    architecture = name.split()[0].rstrip(",")
    twin = torch_models.build(architecture, **arguments).eval()
    with torch.no_grad():
        for value in twin.state_dict().values():
            if value.dtype.is_floating_point and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    model = keras_models.build(architecture, **arguments)
    keras_models.load_state_dict(model, twin.state_dict())
    return model, twin


def pixels(batch: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(1).random((batch, size, size, 3), dtype=np.float32)


def channels_first(images: np.ndarray):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def assert_same_logits(keras_answer, torch_answer) -> None:
    expected = torch_answer.detach().numpy()
    difference = np.abs(np.asarray(keras_answer) - expected).max()
    assert difference < 1e-5 * np.abs(expected).max()
    # Random networks answer all pixels almost alike; the agreement must be finer than that difference.
    assert difference < 0.01 * expected.std(axis=0).max()


@pytest.mark.parametrize("name", TWINS)
def test_logits_equal_those_of_the_pytorch_twin(name: str) -> None:
    model, twin = both(name, **TWINS[name])
    images = pixels(3, TWINS[name].get("image_size", 32))
    assert_same_logits(model(images, training=False), twin(channels_first(images)))
    back, ours = keras_models.state_dict(model), torch_models.state_dict(twin)
    assert back.keys() == ours.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("name", ["wrn_10_1", "wrn_10_1, reference", "resnet20", "small_cnn"])
def test_a_folder_written_by_either_backend_loads_in_the_other(name: str, tmp_path) -> None:
    model, twin = both(name, **TWINS[name])
    images, facts = pixels(4), {"class_names": list("abcde"), "source": "a test"}
    cards = [
        torch_aip.save_teacher(twin, tmp_path / "torch", **facts),
        keras_aip.save_teacher(model, tmp_path / "keras", **facts),
    ]
    assert cards[0] == cards[1]
    expected = twin(channels_first(images))
    assert_same_logits(keras_aip.load_teacher(tmp_path / "torch")(images), expected)
    loaded = torch_aip.load_teacher(tmp_path / "keras")
    np.testing.assert_allclose(loaded(channels_first(images)), expected.detach(), rtol=1e-5, atol=1e-6)
    assert loaded.digest == cards[0].digest and loaded.class_names == tuple("abcde")


def test_a_network_of_unusual_width_and_normalisation_is_rebuilt_in_keras(tmp_path) -> None:
    _, twin = both("small_cnn", width=3, image_size=16, classes=2)
    torch_aip.save_teacher(twin, tmp_path / "torch")
    rebuilt, card = keras_aip.load_model(tmp_path / "torch")
    assert card.arguments["width"] == 3 and card.input_size == (16, 16)
    assert_same_logits(rebuilt(pixels(2, 16), training=False), twin(channels_first(pixels(2, 16))))


def test_training_mode_normalises_over_the_batch_as_pytorch_does() -> None:
    model, twin = both("wrn_10_1")
    images = pixels(8)
    logits = model(images, training=True)
    expected = twin.train()(channels_first(images)).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())
    # Both keep 0.9 of the old mean; the variances differ by n / (n - 1) between Keras versions.
    moved = keras_models.state_dict(model)["block2.layer.0.bn2.running_mean"]
    np.testing.assert_allclose(moved, twin.state_dict()["block2.layer.0.bn2.running_mean"], rtol=1e-3, atol=1e-4)


def test_random_weights_are_drawn_alike() -> None:
    first = keras_models.state_dict(keras_models.wrn_16_4(classes=10))
    second = torch_models.state_dict(torch_models.wrn_16_4(classes=10))
    for key, array in second.items():
        assert abs(array.mean() - first[key].mean()) < 0.05 * array.std() + 0.05, key
        if array.size > 5000:
            np.testing.assert_allclose(array.std(), first[key].std(), rtol=0.1, err_msg=key)


def test_both_refuse_the_same_with_the_same_words() -> None:
    for architecture, arguments in (
        ("wrn_17_2", {}),
        ("wrn_16_0", {}),
        ("wrn_16_1", {"reference": 1}),
        ("small_cnn", {"width": 0}),
        ("small_cnn", {"image_size": 4}),
        ("resnet20", {"classes": True}),
        ("vgg11", {"std": (1, 0, 1)}),
        ("vgg11", {"image_size": 31}),
    ):
        said = []
        for models in (keras_models, torch_models):
            with pytest.raises(torch_aip.AipError) as caught:
                models.build(architecture, **{"classes": 3, **arguments})
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_keras_says_that_the_imagenet_resnets_are_pytorchs(tmp_path) -> None:
    with pytest.raises(keras_aip.AipError, match=r"Unknown network 'resnet50x2'.*PyTorch's only.*convert --model"):
        keras_models.build("resnet50x2", classes=10)
    torch_aip.save_teacher(torch_models.build("resnet18x0.25", classes=3, image_size=32), tmp_path / "student")
    with pytest.raises(keras_aip.AipError, match=r"resnet18x0\.25.*PyTorch's only.*--to onnx"):
        keras_aip.load_teacher(tmp_path / "student")


def test_training_begins_with_anothers_weights_alike(tmp_path) -> None:
    _, twin = both("small_cnn", width=3, image_size=16, classes=2)
    torch_aip.save_teacher(twin, tmp_path / "start")
    before, config = torch_models.state_dict(twin), TrainTeacherConfig(init=str(tmp_path / "start"))
    digits = load("digits", "validation", 16)
    for models, load_model in ((torch_models, torch_aip.load_model), (keras_models, keras_aip.load_model)):
        start = training.start_of(config, models, load_model)
        assert (start.architecture, start.image_size, start.classes) == ("small_cnn", 16, 2)
        after = models.state_dict(training.network(config, start, digits, digits, models))
        assert after.keys() == before.keys() and len(after["fc.weight"]) == len(after["fc.bias"]) == 10
        for key in before.keys() - {"fc.weight", "fc.bias"}:
            np.testing.assert_array_equal(after[key], before[key])


def test_a_trained_resnet20_answers_as_in_keras(data_folder) -> None:
    twin = torch_models.resnet20(classes=10, **IMAGENET).eval()
    torch_models.load_weights(twin, data_folder / "teachers" / "cifar10_resnet20.pt")
    model = keras_models.resnet20(classes=10, **IMAGENET)
    keras_models.load_state_dict(model, torch_models.state_dict(twin))
    assert_same_logits(model(pixels(16), training=False), twin(channels_first(pixels(16))))
