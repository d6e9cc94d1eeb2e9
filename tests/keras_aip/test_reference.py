"""The reference code's TensorFlow checkpoints become teachers that answer as the network they were written from."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from bridge.errors import ConfigError, TeacherError
from keras_aip import compat, models
from keras_aip.cli import main
from keras_aip.reference import MEAN, STD, import_reference

layers = keras.layers


def reference_network(depth: int, width: int, classes: int = 10, seed: int = 0) -> keras.Model:
    """As the reference code builds it, for normalised images; with random weights and BatchNorm statistics."""

    def convolution(x, filters, size=3, stride=1):
        return layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)

    def active(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((32, 32, 3))
    x = convolution(inputs, 16)
    for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for block in range((depth - 4) // 6):
            flow, step = active(x), stride if block == 0 else 1
            shortcut = flow if block == 0 else x
            y = convolution(active(convolution(flow, filters, stride=step)), filters)
            if x.shape[-1] != filters:
                shortcut = convolution(shortcut, filters, 1, step)
            x = layers.Add()([shortcut, y])
    logits = layers.Dense(classes)(layers.GlobalAveragePooling2D()(active(x)))
    model = keras.Model(inputs, logits)
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        weights = layer.get_weights()
        if len(weights) == 4:  # γ, β, mean, variance
            ranges = ((0.5, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.01, 1))
            layer.set_weights([generator.uniform(*r, w.shape) for r, w in zip(ranges, weights)])
        elif weights:
            fan_in = np.prod(weights[0].shape[:-1])
            layer.set_weights([generator.normal(0, fan_in**-0.5, w.shape) for w in weights])
    return model


def keys_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Key → values of a checkpoint, as Keras 2 numbers layers."""
    weighted = [layer for layer in model.layers if layer.weights]
    return {
        f"layer_with_weights-{number}/{weight.name.split('/')[-1].split(':')[0]}/.ATTRIBUTES/VARIABLE_VALUE": value
        for number, layer in enumerate(weighted)
        for weight, value in zip(layer.weights, layer.get_weights())
    }


def write(arrays: dict[str, np.ndarray], prefix: Path) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tensors = [tf.constant(value) for value in arrays.values()]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=tensors
    )
    return prefix


def save(model: keras.Model, prefix: Path) -> Path:
    """By Keras 2 itself where it is there."""
    if compat.KERAS_3:
        return write(keys_of(model), prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(str(prefix), save_format="tf")
    return prefix


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return reference_network(10, 1)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory) -> Path:
    return save(network, tmp_path_factory.mktemp("reference") / "cifar_wrn_10_1.tf")


def logits_of(network: keras.Model, images: np.ndarray) -> np.ndarray:
    normalised = (images - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.asarray(network(normalised, training=False))


def pixels(batch: int = 4) -> np.ndarray:
    return np.random.default_rng(1).random((batch, 32, 32, 3), dtype=np.float32)


# At width 1 the first stage needs no shortcut; at depth 16 there are blocks whose shortcut is the block's input.
@pytest.mark.parametrize(("depth", "width", "dataset", "classes"), [(10, 1, "cifar100", 100), (16, 2, "cifar10", 10)])
def test_an_imported_teacher_answers_as_the_network_it_was_written_from(depth, width, dataset, classes, tmp_path):
    network = reference_network(depth, width, classes)
    prefix = save(network, tmp_path / "cifar.tf")
    card = import_reference(prefix, dataset, tmp_path / "teacher")
    assert (card.architecture, card.classes) == (f"wrn_{depth}_{width}", classes)
    assert (
        card.arguments["reference"] is True and card.class_names[0] == keras_aip.datasets.FACTS[dataset].class_names[0]
    )
    assert card.arguments["std"] == list(STD) and card.accuracy is None and card.parameters == network.count_params()
    expected = logits_of(network, pixels())
    assert expected.std(axis=0).max() > 0.05  # it does tell images apart
    teacher = keras_aip.load_teacher(tmp_path / "teacher")
    np.testing.assert_allclose(teacher(pixels()), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    ordinary = models.build(f"wrn_{depth}_{width}", classes=classes, mean=MEAN, std=STD)
    models.load_state_dict(ordinary, models.state_dict(keras_aip.load_model(tmp_path / "teacher")[0]))
    assert np.abs(np.asarray(ordinary(pixels(), training=False)) - expected).max() > 0.01


def shape_of(arrays: dict[str, np.ndarray]) -> list[str]:
    """Per numbered layer "3" or "1" for a convolution of that size, "n" for BatchNorm, "d" for the dense layer."""
    numbers = sorted({int(key.split("/")[0].split("-")[1]) for key in arrays})
    kinds = []
    for number in numbers:
        names = {key.split("/")[1]: array for key, array in arrays.items() if f"-{number}/" in key}
        kernel = names.get("kernel")
        kinds.append("n" if kernel is None else str(kernel.shape[0]) if kernel.ndim == 4 else "d")
    return kinds


@pytest.mark.parametrize(
    ("depth", "width", "expected"),
    [
        (10, 1, "3 n3n3 n3n13 n3n13 n d"),
        (16, 2, "3 n3n13 n3n3 n3n13 n3n3 n3n13 n3n3 n d"),
    ],
)
def test_layers_are_numbered_as_keras_2_numbers_them(depth, width, expected, tmp_path):
    network = reference_network(depth, width)
    prefix = save(network, tmp_path / "cifar.tf")
    reader = tf.train.load_checkpoint(str(prefix))
    written = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if "layer_with" in key}
    assert written.keys() == keys_of(network).keys()
    assert all(np.array_equal(written[key], value) for key, value in keys_of(network).items())
    assert shape_of(written) == list(expected.replace(" ", ""))


def test_the_order_of_a_shortcut_and_the_convolution_beside_it_does_not_matter(network, checkpoint, tmp_path):
    """Which of the two is numbered first depends on how the addition was written."""
    arrays = keys_of(network)
    kinds = shape_of(arrays)
    first = kinds.index("1")
    assert kinds[first + 1] == "3"
    names = {first: first + 1, first + 1: first}
    swapped = {}
    for key, value in arrays.items():
        number = int(key.split("/")[0].split("-")[1])
        swapped[key.replace(f"-{number}/", f"-{names.get(number, number)}/")] = value
    prefix = write(swapped, tmp_path / "swapped.tf")
    for path, folder in ((checkpoint, "a"), (prefix, "b")):
        import_reference(path, "cifar10", tmp_path / folder)
    left, right = (keras_aip.load_teacher(tmp_path / folder)(pixels()) for folder in "ab")
    assert np.array_equal(left, right)


@pytest.mark.skipif(compat.KERAS_3, reason="only Keras 2 writes such checkpoints")
def test_a_checkpoint_with_the_state_of_its_optimizer_is_imported_too(network, tmp_path):
    model = keras.models.clone_model(network)
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(pixels(), np.zeros(4), verbose=0)
    prefix = save(model, tmp_path / "trained.tf")
    assert len(tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()) > len(keys_of(model)) + 2
    import_reference(prefix, "cifar10", tmp_path / "teacher")
    teacher = keras_aip.load_teacher(tmp_path / "teacher")
    np.testing.assert_allclose(teacher(pixels()), logits_of(model, pixels()), atol=1e-4)


def test_the_command_writes_a_teacher_found_by_its_architecture(network, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path / "teachers"))
    assert main(["import-reference", "--checkpoint", f"{checkpoint}.index", "--dataset", "cifar10"]) == 0
    assert "evaluate --dataset cifar10" in capsys.readouterr().out
    assert json.loads((tmp_path / "teachers" / "cifar10_wrn_10_1" / "card.json").read_text())["source"].endswith(
        "cifar_wrn_10_1.tf, trained on cifar10"
    )
    teacher = keras_aip.load_teacher("wrn_10_1", dataset="cifar10")
    np.testing.assert_allclose(teacher(pixels()), logits_of(network, pixels()), atol=1e-4)
    assert main(["import-reference", "--checkpoint", str(checkpoint), "--dataset", "cifar100"]) == 2
    assert "10 classes, cifar100 has 100" in capsys.readouterr().err
    assert main(["import-reference"]) == 2
    assert "--checkpoint" in capsys.readouterr().err


def test_files_that_are_missing_or_damaged_are_named(checkpoint, tmp_path):
    def refused(prefix: Path, match: str) -> None:
        with pytest.raises(TeacherError, match=match):
            import_reference(prefix, "cifar10", tmp_path / "teacher")
        assert not (tmp_path / "teacher").exists()

    refused(tmp_path / "nothing.tf", r"no checkpoint .*nothing\.tf: expected files nothing\.tf\.index")
    refused(tmp_path / "no folder" / "nothing.tf", "no checkpoint")
    refused(tmp_path, "no checkpoint")
    index = checkpoint.with_name(checkpoint.name + ".index").read_bytes()
    data = checkpoint.with_name(checkpoint.name + ".data-00000-of-00001").read_bytes()
    (tmp_path / "a.tf.index").write_bytes(index)
    refused(tmp_path / "a.tf", r"lacks a\.tf\.data-00000-of-00001")
    (tmp_path / "a.tf.data-00001-of-00002").write_bytes(data)
    refused(tmp_path / "a.tf", r"lacks a\.tf\.data-00000-of-00002")
    (tmp_path / "a.tf.data-00001-of-00002").unlink()
    for broken in (b"", data[: len(data) // 2], b"\xff" * 100 + data[100:]):
        (tmp_path / "a.tf.data-00000-of-00001").write_bytes(broken)
        refused(tmp_path / "a.tf", r"a\.tf cannot be read")
    (tmp_path / "a.tf.data-00000-of-00001").write_bytes(data)
    for broken in (b"", index[: len(index) // 2], b"no index at all"):
        (tmp_path / "a.tf.index").write_bytes(broken)
        refused(tmp_path / "a.tf", r"a\.tf cannot be read")


KERNEL = "/kernel/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda arrays: arrays.clear() or arrays.update({"model/kernel": np.zeros(3)}), "no layers numbered"),
        (lambda arrays: arrays.pop(f"layer_with_weights-2{KERNEL}"), "it holds 6 3 x 3 convolutions"),
        (
            lambda arrays: arrays.pop("layer_with_weights-1/gamma/.ATTRIBUTES/VARIABLE_VALUE"),
            "layer 1 has weights beta",
        ),
        (lambda arrays: arrays.update({"layer_with_weights-99" + KERNEL: np.zeros((5, 5, 3, 3))}), "5 x 5"),
        (
            lambda arrays: arrays.update({"layer_with_weights-0" + KERNEL: np.zeros((3, 3, 1, 16))}),
            "number 0 has shapes",
        ),
        (lambda arrays: arrays["layer_with_weights-0" + KERNEL].fill(np.nan), "no finite numbers"),
    ],
)
def test_checkpoints_of_other_networks_are_refused(network, tmp_path, change, match):
    arrays = {key: value.copy() for key, value in keys_of(network).items()}
    change(arrays)
    with pytest.raises(TeacherError, match=match):
        import_reference(write(arrays, tmp_path / "other.tf"), "cifar10", tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def test_an_unknown_data_set_is_named(checkpoint):
    with pytest.raises(ConfigError, match=r"cifar11.*Did you mean"):
        import_reference(checkpoint, "cifar11")


def test_the_argument_of_a_card_must_be_true_or_false():
    with pytest.raises(ConfigError, match="reference='yes'"):
        models.build("wrn_10_1", classes=10, reference="yes")
    with pytest.raises(ConfigError, match=r"resnet20 takes.*not reference"):
        models.build("resnet20", classes=10, reference=True)
    assert "reference" not in models.architecture_of(models.build("wrn_10_1", classes=10))["arguments"]
