"""The Keras networks: names, shapes, precision, penalties and saving."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bridge.errors import ConfigError, TeacherError
from keras_aip import compat, models


def pixels(batch: int = 2, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, size, size, 3), dtype=np.float32)


def randomise(model: keras.Model, seed: int = 0) -> None:
    """Give every weight a random value, so that swapped or forgotten ones show."""
    generator = np.random.default_rng(seed)
    arrays = models.state_dict(model)
    for name, array in arrays.items():
        arrays[name] = array + generator.uniform(0.05, 0.3, array.shape).astype(np.float32)
    models.load_state_dict(model, arrays)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("small_cnn", 19_546), ("wrn_16_4", 2_748_890), ("resnet20", 269_722), ("vgg11", 9_231_114)],
)
def test_published_parameter_counts_are_met(name: str, parameters: int) -> None:
    model = models.build(name, classes=10)
    # BatchNorm's running statistics are no parameters in published counts.
    running = sum(array.size for key, array in models.state_dict(model).items() if "running" in key)
    assert model.count_params() - running == parameters
    assert model.output_shape == (None, 10)
    assert model.input_shape == (None, 32, 32, 3)


@pytest.mark.parametrize("name", models.names())
def test_every_known_name_has_a_function_of_its_own(name: str) -> None:
    assert getattr(models, name).__name__ == name


def test_functions_and_names_build_the_same_networks() -> None:
    by_function = models.wrn(10, 2, classes=3, image_size=16)
    by_name = models.build("wrn_10_2", classes=3, image_size=16)
    shapes = [{name: array.shape for name, array in models.state_dict(m).items()} for m in (by_function, by_name)]
    assert shapes[0] == shapes[1]
    assert models.architecture_of(by_function) == models.architecture_of(by_name)
    assert models.small_cnn(classes=2, width=4, image_size=8).output_shape == (None, 2)


def test_an_unknown_name_gives_the_nearest_known_ones() -> None:
    with pytest.raises(ConfigError, match="resnet20"):
        models.build("resnet21", classes=10)
    with pytest.raises(ConfigError, match="small_cnn"):
        models.build("smal_cnn", classes=10)
    # An ImageNet name must not quietly give a CIFAR network of the same depth.
    with pytest.raises(ConfigError, match="Unknown network 'resnet50'"):
        models.build("resnet50", classes=10)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("wrn_17_4", {}, "wrn_16_4 and wrn_22_4"),
        ("wrn_4_1", {}, "wrn_10_1"),
        ("wrn_16_0", {}, "width=0"),
        ("small_cnn", {"width": 0}, "width=0"),
        ("small_cnn", {"wdith": 8}, "width"),
        ("resnet20", {"width": 8}, "not width"),
        ("small_cnn", {"image_size": 7}, "at least 8"),
        ("vgg11", {"image_size": 28}, "at least 32"),
        ("small_cnn", {"image_size": "32"}, "image_size"),
        ("small_cnn", {"classes": 0}, "classes=0"),
        ("small_cnn", {"classes": 2.5}, "classes=2.5"),
        ("small_cnn", {"mean": (0.5,)}, "mean"),
        ("small_cnn", {"std": (1, 1, 0)}, "std"),
        ("small_cnn", {"std": 1.0}, "std"),
        ("small_cnn", {"l2": -1}, "l2"),
        ("small_cnn", {"dtype": "bfloat"}, "bfloat16"),
    ],
)
def test_values_that_cannot_work_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        models.build(name, **{"classes": 10, **options})


def test_l2_enters_the_loss_with_its_weight() -> None:
    assert models.build("small_cnn", classes=3, width=2).losses == []
    model = models.build("small_cnn", classes=3, width=2, l2=0.01)
    kernels = [array for array in models.state_dict(model).values() if array.ndim > 1]
    expected = 0.01 * sum(float(np.sum(kernel**2)) for kernel in kernels)
    assert len(model.losses) == len(kernels) == 4
    assert float(tf.add_n([tf.cast(loss, tf.float32) for loss in model.losses])) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_low_precision_computes_in_bfloat16_and_answers_in_float32(dtype: str) -> None:
    exact = models.build("wrn_10_1", classes=4, image_size=16)
    model = models.build("wrn_10_1", classes=4, image_size=16, dtype=dtype)
    models.load_state_dict(model, models.state_dict(exact))
    assert model.get_layer("block2.layer.0.conv1").compute_dtype == "bfloat16"
    logits = model(pixels(size=16), training=False)
    assert logits.dtype == tf.float32
    difference = np.abs(logits - exact(pixels(size=16), training=False)).max()
    assert 0 < difference < 0.05


def test_networks_stay_float32_under_a_global_policy() -> None:
    before = keras.mixed_precision.global_policy() if hasattr(keras, "mixed_precision") else None
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = models.build("small_cnn", classes=3, width=2, image_size=8)
        assert model.get_layer("block1.conv").compute_dtype == "float32"
        assert model(pixels(size=8)).dtype == tf.float32
    finally:
        keras.mixed_precision.set_global_policy(before or "float32")


def test_normalisation_happens_in_float32_before_the_cast() -> None:
    # 0.501 and 0.502 are one number in bfloat16; minus the mean they are not.
    images = np.full((1, 1, 2, 3), 0.501, np.float32)
    images[0, 0, 1] = 0.502
    layer = models.Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), dtype="bfloat16")
    result = layer(images)
    assert result.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(result, tf.float32), (images - 0.5) / 0.25, rtol=5e-3)
    assert layer.weights == []


def test_strided_convolutions_pad_on_both_sides() -> None:
    network = models.layers.Network("test", 1, smallest=1, image_size=4)
    inputs = network.inputs()
    model = keras.Model(inputs, network.convolution(inputs, 1, "conv", stride=2))
    model.get_layer("conv").kernel.assign(tf.ones((3, 3, 3, 1)))
    # With the zeros left and above, the first output sees 2 × 2 pixels; with them right and below, 3 × 3.
    np.testing.assert_allclose(model(np.ones((1, 4, 4, 3), np.float32))[0, :, :, 0], [[12, 18], [18, 27]])


def test_convolutions_start_as_he_proposed_with_fan_out() -> None:
    keras.utils.set_random_seed(0)
    kernel = models.state_dict(models.build("wrn_10_4", classes=10))["block3.layer.0.conv1.weight"]
    assert kernel.shape == (256, 128, 3, 3)
    assert kernel.std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_architecture_and_weights_make_the_same_network_again() -> None:
    model = models.build("small_cnn", classes=3, width=2, image_size=16, mean=(0.4, 0.5, 0.6))
    randomise(model)
    described = models.architecture_of(model)
    assert described is not None
    assert json.loads(json.dumps(described)) == described
    again = models.build(described["architecture"], **described["arguments"])
    models.load_state_dict(again, models.state_dict(model))
    np.testing.assert_array_equal(again(pixels(size=16)), model(pixels(size=16)))
    assert models.architecture_of(keras.Sequential([keras.layers.Dense(2)])) is None


def test_the_recorded_architecture_is_not_written_into_checkpoints(tmp_path: Path) -> None:
    model = models.build("small_cnn", classes=3, width=2, image_size=8)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    assert not [name for name, _ in tf.train.list_variables(path) if "aip" in name]


def test_a_state_dict_that_does_not_fit_lists_every_reason_and_changes_nothing() -> None:
    model = models.build("small_cnn", classes=3, width=2, image_size=8)
    before = models.state_dict(model)
    arrays = {name: array + 1 for name, array in before.items()}
    del arrays["block1.bn.weight"], arrays["fc.bias"]
    arrays["fc.wieght"] = np.zeros(3, np.float32)
    arrays["block2.conv.weight"] = np.zeros((4, 2, 5, 5), np.float32)
    arrays["block1.bn.num_batches_tracked"] = np.zeros((), np.int64)
    with pytest.raises(TeacherError) as caught:
        models.load_state_dict(model, arrays)
    message = str(caught.value)
    assert "num_batches_tracked" not in message
    for named in ("block1.bn.weight, fc.bias", "fc.wieght", "(4, 2, 5, 5), expected (4, 2, 3, 3)"):
        assert named in message
    for name, array in models.state_dict(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_weights_of_other_layers_have_no_state_dict() -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.SeparableConv2D(2, 3, name="deep")])
    with pytest.raises(TeacherError, match="deep"):
        models.state_dict(model)


@pytest.mark.parametrize("name", ["wrn_10_1", "resnet20", "small_cnn"])
def test_a_keras_file_gives_the_same_network_back(tmp_path: Path, name: str) -> None:
    model = models.build(name, classes=3, image_size=8)
    randomise(model)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(pixels(size=8)), model(pixels(size=8)))
    assert models.state_dict(loaded).keys() == models.state_dict(model).keys()
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    own = {entry["registered_name"] for entry in layers if entry["module"].startswith("keras_aip")}
    assert "aip>Normalise" in own and all(entry.startswith("aip>") for entry in own)


def test_a_bfloat16_copy_has_the_same_weights_and_leaves_the_original_alone() -> None:
    model = models.build("wrn_10_1", classes=3, image_size=8)
    randomise(model)
    before = models.state_dict(model)
    copy = models.in_bfloat16(model)
    assert copy.get_layer("conv1").compute_dtype == "bfloat16"
    assert copy.get_layer("fc").compute_dtype == "float32"
    assert model.get_layer("conv1").compute_dtype == "float32"
    for name, array in models.state_dict(copy).items():
        np.testing.assert_allclose(array, before[name], rtol=2**-8)
        np.testing.assert_array_equal(models.state_dict(model)[name], before[name])


@pytest.mark.skipif(not compat.KERAS_3, reason="Keras 2 uses the fused kernel by itself")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_fused_batch_norm_computes_what_keras_does(dtype, training):
    generator = np.random.default_rng(0)
    images = generator.normal(2, 3, (6, 5, 4, 7)).astype(np.float32)
    answers, start = {}, np.arange(1, 8) / 4
    for kind in (compat.FusedBatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-5, dtype=dtype)
        layer.build(images.shape)
        layer.set_weights([start] * 4)
        with tf.GradientTape() as tape:
            x = tf.constant(images)
            tape.watch(x)
            y = tf.cast(layer(x, training=training), tf.float32)
            total = tf.reduce_sum(y * tf.cast(tf.range(7), tf.float32) * tf.sin(x))
        gradients = tape.gradient(total, [x, *layer.trainable_variables])
        answers[kind] = [y, *gradients, *layer.weights]
    exact, close = answers[keras.layers.BatchNormalization], answers[compat.FusedBatchNormalization]
    if training:  # Keras 3 keeps the biased variance
        count = images[..., 0].size
        exact[-1] = (np.asarray(exact[-1]) - 0.9 * start) * count / (count - 1) + 0.9 * start
    for a, b in zip(exact, close):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= (1e-5 if dtype == "float32" else 2e-2) * np.abs(a).max()
