"""Networks for audio: the front end as a layer, DS-CNN and ResNets on log-mels, their folders and forms."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.front_end import FrontEnd, LogMel, Mfcc
from bridge.teachers.runtime import Runtime
from keras_aip import models
from keras_aip.teachers import load_model, load_teacher, save_teacher

RATE, SAMPLES = 2000, 1000
TINY: dict[str, Any] = {"rate": RATE, "samples": SAMPLES, "classes": 3}


def waveforms(samples: int, batch: int = 4, seed: int = 0) -> np.ndarray:
    """float32 [batch, samples] in [-1, 1]: noise, loud and soft, a tone, and silence."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((batch, samples)) * np.array([0.3, 0.01, 0.001, 0] * batch)[:batch, None]
    rows[2 % batch] += 0.5 * np.sin(np.arange(samples))
    return rows.clip(-1, 1).astype(np.float32)


def tiny(name: str = "dscnn_s", seed: int = 0, **options: Any) -> keras.Model:
    """A network of half a second at 2 kHz with weights and statistics that are not the ones it starts with."""
    model = models.build(name, **{**TINY, "front_end": {"bands": 16}, **options})
    rng = np.random.default_rng(seed)
    arrays = models.state_dict(model)
    for key, array in arrays.items():
        arrays[key] = array + rng.uniform(0.0, 0.2, array.shape).astype(np.float32)
    models.load_state_dict(model, arrays)
    return model


def spread(found: Any, expected: Any) -> float:
    """The largest difference as a share of the largest value."""
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


@pytest.mark.parametrize(
    "front_end",
    [
        Mfcc(),
        LogMel(),
        Mfcc(rate=RATE, samples=SAMPLES, window=80, hop=37, bands=12, coefficients=5, high=1000.0),
        LogMel(rate=RATE, samples=993, window=50, hop=70, fft=64, bands=8, high=900.0, largest=3.0),
    ],
)
def test_the_layer_gives_what_the_onnx_form_gives(front_end: FrontEnd) -> None:
    rows = waveforms(front_end.samples)
    layer = models.FrontEnd(front_end.described())
    compiled = tf.function(layer, jit_compile=True)
    found = compiled(rows)
    assert found.shape == (4, front_end.frames, front_end.features, 1)
    expected = Runtime(front_end.graph())(rows)
    assert np.abs(found[..., 0] - expected).max() < 1e-3
    assert layer.weights == [] and layer.compute_output_shape((None, front_end.samples)) == (None, *found.shape[1:])
    again = models.FrontEnd.from_config(layer.get_config())
    assert again.front_end == front_end
    operations: Any = compiled.experimental_get_compiler_ir(rows)(stage="hlo")
    assert " dot(" in operations and not any(word in operations for word in (" fft(", " gather(", " c64["))


def test_the_layer_computes_in_float32_under_any_policy() -> None:
    rows = waveforms(16_000)
    exact = models.FrontEnd(LogMel().described())(rows)
    rounded = models.FrontEnd(LogMel().described(), dtype="bfloat16")(rows)
    assert rounded.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(rounded, tf.float32), tf.cast(tf.cast(exact, tf.bfloat16), tf.float32))


def test_guarded_products_bear_hardware_that_rounds_its_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, multiply = waveforms(16_000), tf.matmul
    rows[1] += 0.5 * np.sin(np.arange(16_000) / 3).astype(np.float32)  # loud beside soft
    description = LogMel().described()
    exact = models.FrontEnd(description, guarded=False)(rows)

    def rounding(*factors: Any) -> Any:
        return multiply(*(tf.cast(tf.cast(factor, tf.bfloat16), tf.float32) for factor in factors))

    monkeypatch.setattr(tf, "matmul", rounding)
    assert np.abs(models.FrontEnd(description, guarded=True)(rows) - exact).max() < 0.1
    assert np.abs(models.FrontEnd(description, guarded=False)(rows) - exact).max() > 0.5


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [
        ("dscnn_s", 22_604 + 9 * 64, (49, 10)),
        ("dscnn_m", None, (49, 10)),
        ("dscnn_l", 410_700 + 11 * 276, (49, 10)),
        ("resnet20_mel", None, (98, 64)),
    ],
)
def test_networks_take_a_second_of_waveform(name: str, parameters: int | None, features: tuple[int, int]) -> None:
    model = models.build(name, classes=12)
    assert models.is_audio(name) and models.is_known(name)
    assert model.input_shape == (None, 16_000) and model.output_shape == (None, 12)
    assert models.input_size_of(model) == (16_000,)
    assert tuple(model.get_layer("front_end").output.shape)[1:] == (*features, 1)
    if parameters:
        running = sum(array.size for key, array in models.state_dict(model).items() if "running" in key)
        assert model.count_params() - running == parameters
    described = models.architecture_of(model)
    assert described is not None and described["arguments"]["front_end"]["kind"] in ("mfcc", "log_mel")
    assert (described["arguments"]["rate"], described["arguments"]["samples"]) == (16_000, 16_000)
    again = models.build(described["architecture"], **described["arguments"])
    assert models.architecture_of(again) == described


def test_sizes_of_images_are_told_as_before() -> None:
    assert models.input_size_of(models.build("small_cnn", classes=2, width=1, image_size=8)) == (8, 8)
    assert models.input_size_of(keras.Sequential([keras.Input((8, 6, 3)), keras.layers.Flatten()])) == (8, 6)
    assert models.input_size_of(keras.Sequential([keras.Input((None, 6, 3)), keras.layers.Flatten()])) is None
    assert models.input_size_of(len) is None


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("dscnn_s", {"image_size": 32}, "rate, samples, front_end, not image_size"),
        ("dscnn_s", {"width": 8}, "not width"),
        ("small_cnn", {"rate": 8000}, "not rate"),
        ("dscnn_s", {"front_end": {"bandz": 3}}, "unknown 'bandz'"),
        ("dscnn_s", {"mean": (0.5, 0.5, 0.5)}, "one finite number"),
        ("resnet20_mel", {"std": (0.0,)}, "greater than 0"),
        ("resnet20_mel", {"samples": 800}, "3 frames of 64 features are too few"),
        ("dscnn_xl", {}, "dscnn_"),
    ],
)
def test_values_that_cannot_work_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        models.build(name, **{"classes": 3, **options})


@pytest.mark.parametrize("name", ["dscnn_s", "resnet20_mel"])
def test_a_folder_gives_the_network_again(name: str, tmp_path: Path) -> None:
    model, rows = tiny(name), waveforms(SAMPLES)
    card = save_teacher(model, tmp_path / "t", class_names=["a", "b", "c"])
    assert (card.kind, card.input_size, card.rate, tuple(card.range)) == ("audio", (SAMPLES,), RATE, (-1, 1))
    assert card.front_end is not None and card.front_end == model.get_layer("front_end").front_end.described()
    assert set(card.forms) == {"safetensors"}
    again, _ = load_model(tmp_path / "t")
    np.testing.assert_array_equal(again(rows), model(rows, training=False))
    teacher = load_teacher(tmp_path / "t")
    assert teacher.input_size == (SAMPLES,) and teacher.classes == 3
    np.testing.assert_array_equal(teacher(rows), model(rows, training=False))
    lower = load_teacher(tmp_path / "t", dtype="bfloat16")
    inner: Any = lower._model
    assert inner.get_layer("front_end").compute_dtype == "float32"
    kind = {"dscnn_s": "pw_1", "resnet20_mel": "layer1.0.conv1"}[name]
    assert inner.get_layer(kind).compute_dtype == "bfloat16"
    assert 0 < spread(lower(rows), teacher(rows)) < 0.1


def test_what_follows_the_front_end_is_a_network_of_its_own() -> None:
    model, rows = tiny(), waveforms(SAMPLES)  # where int8 begins
    features = model.get_layer("front_end")
    behind = keras.Model(features.output, model.output)
    np.testing.assert_allclose(behind(features(rows)), model(rows), rtol=1e-5, atol=1e-5)


def test_weights_cross_under_pytorchs_names_and_layout() -> None:
    arrays = models.state_dict(tiny())
    shapes = {key: arrays[key].shape for key in ("conv_1.weight", "dw_1.weight", "pw_1.weight", "fc.weight")}
    assert shapes == {
        "conv_1.weight": (64, 1, 10, 4), "dw_1.weight": (64, 1, 3, 3), "pw_1.weight": (64, 64, 1, 1),
        "fc.weight": (3, 64),
    }  # fmt: skip
    assert "bn_1.weight" not in arrays and arrays["bn_1.bias"].shape == (64,)
    with pytest.raises(TeacherError, match=r"dw_1\.weight"):
        models.load_state_dict(tiny(), {**arrays, "dw_1.weight": arrays["dw_1.weight"].transpose(1, 0, 2, 3)})


@pytest.mark.parametrize(("dtype", "xla"), [(None, True), ("mixed_bfloat16", False)])
def test_a_step_compiles_and_moves_every_weight(dtype: str | None, xla: bool) -> None:
    keras.utils.set_random_seed(0)
    model, rows = models.build("dscnn_s", **TINY, dtype=dtype, l2=1e-4), waveforms(SAMPLES, 8)
    trained: Any = model  # whose types Keras gives as text
    trained.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=xla
    )
    before = models.state_dict(model)
    trained.fit(rows, np.arange(8) % 3, batch_size=8, epochs=1, verbose=0)
    after = models.state_dict(model)
    # A bias in front of BatchNorm moves nothing.
    still = {key for key in before if np.array_equal(before[key], after[key])} - {
        key for key in before if key.endswith(".bias") and not key.startswith(("bn", "dwbn", "pwbn", "fc"))
    }
    assert not still
    assert all(np.isfinite(array).all() for array in after.values())


def test_the_onnx_form_answers_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    from bridge.teachers.onnx_file import facts_of, read_onnx
    from keras_aip.export import to_onnx

    model, rows = tiny(), waveforms(SAMPLES)
    to_onnx(model, tmp_path / "model.onnx")
    facts = facts_of(read_onnx(tmp_path / "model.onnx"))
    assert (facts.kind, facts.input_size, facts.classes) == ("audio", (SAMPLES,), 3)
    assert spread(Runtime(tmp_path / "model.onnx")(rows), model(rows, training=False)) < 1e-4


def test_a_folder_becomes_what_pytorch_takes(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    from bridge.teachers.forms import convert
    from bridge.teachers.options import ConvertConfig

    save_teacher(tiny(), tmp_path / "t")
    lines = convert(ConvertConfig(model=str(tmp_path / "t"), to="onnx", views=8))
    assert "Same answer as keras_safetensors on 100.00% of 8 views" in lines[1]
    rows = waveforms(SAMPLES)
    found = load_teacher(tmp_path / "t", form="safetensors")(rows)
    assert spread(Runtime(tmp_path / "t" / "model.onnx")(rows), found) < 1e-4


def test_a_network_of_ones_own_is_kept_with_the_rate_it_is_told(tmp_path: Path) -> None:
    def own() -> keras.Model:
        waveform = keras.Input((SAMPLES,))
        x = models.FrontEnd(LogMel.at(RATE, SAMPLES, bands=8).described())(waveform)
        return keras.Model(waveform, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))

    model, rows = own(), waveforms(SAMPLES)
    with pytest.raises(TeacherError, match=f"{SAMPLES} samples.*rate=16000"):
        save_teacher(model, tmp_path / "t")
    card = save_teacher(model, tmp_path / "t", rate=RATE)
    assert (card.kind, card.rate, card.input_size) == ("audio", RATE, (SAMPLES,))
    np.testing.assert_array_equal(load_teacher(tmp_path / "t")(rows), model(rows))
    with pytest.raises(TeacherError, match="rate=8000 was given"):
        save_teacher(tiny(), tmp_path / "u", rate=8000)
    with pytest.raises(TeacherError, match="takes images"):
        save_teacher(models.build("small_cnn", classes=2, width=1, image_size=8), tmp_path / "u", rate=8000)


def dscnn_l_of(arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """The published DS-CNN-L: its layers have our names, its arrays stand in Keras's order."""
    model = models.build("dscnn_l", classes=12)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{number}"] for number in range(len(layer.weights))])
    return model


def test_the_published_keyword_spotter_says_what_it_says_elsewhere(data_folder: Path) -> None:
    needed = [data_folder / "teachers" / name for name in ("dscnn_keras.py", "dscnn_l_weights.npz")]
    for path in (*needed, data_folder / "speech"):
        if not path.exists():
            pytest.skip(f"{path} is not there")
    original = runpy.run_path(str(needed[0]))
    read = runpy.run_path(str(data_folder / "read_data.py"))["speech_commands"]
    audio, labels, _, _ = read(next((data_folder / "speech").glob("*.flac")))
    rows = audio.astype(np.float32) / 32768
    with np.load(needed[1]) as arrays:
        model = dscnn_l_of(arrays)
    answer = tf.function(lambda x: model(x, training=False))
    found = np.concatenate([answer(rows[first : first + 240]).numpy() for first in range(0, len(rows), 240)])
    assert np.mean(found.argmax(1) == labels) == pytest.approx(0.9271, abs=1e-4)
    some = slice(0, None, 15)
    expected = original["load_teacher"](str(needed[1]))(original["features"](rows[some]))
    assert np.abs(found[some] - expected).max() < 1e-4
