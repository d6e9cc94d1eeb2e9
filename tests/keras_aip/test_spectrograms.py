"""Networks for sounds in two parts, and masks between them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bridge.datum.masks import MaskNumbers, Masks, mask_numbers, masked
from keras_aip import models
from keras_aip.spectrograms import Masked, mask, parted, same_front_end
from keras_aip.teachers import load_model, save_teacher

RATE, SAMPLES = 8000, 2400
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("dscnn_s", {}),
    ("dscnn_s", {"front_end": {"kind": "log_mel", "bands": 20}}),
    ("resnet20_mel", {"dtype": "mixed_bfloat16", "l2": 1e-3}),
]


def network(name: str = "dscnn_s", **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    return models.build(name, classes=3, rate=RATE, samples=SAMPLES, **options)


def sounds(batch: int = 6) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(1)
    return drawn.uniform(-0.5, 0.5, (batch, SAMPLES)).astype(np.float32), drawn.integers(0, 3, batch)


def numbers(masks: Masks, batch: int = 6) -> MaskNumbers:
    return MaskNumbers(*map(tf.constant, mask_numbers(masks, 3, 5, batch)))


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_masks_are_those_of_numpy(count, compiled):
    spectrograms = np.random.default_rng(0).normal(-6, 4, (6, 31, 20)).astype(np.float32)
    drawn = mask_numbers(Masks(count, 0.4, 0.4), 0, 2, 6)
    ours = tf.function(mask, jit_compile=compiled)(tf.constant(spectrograms), MaskNumbers(*map(tf.constant, drawn)))
    theirs = masked(spectrograms, drawn)
    assert np.abs(ours - theirs).max() < 1e-5
    hidden = theirs != spectrograms
    assert np.array_equal(ours.numpy() != spectrograms, hidden) and hidden.any() == (count > 0)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_the_parts_are_the_network(name, options, tmp_path):
    model, (waves, _) = network(name, **options), sounds()
    parts = parted(model)
    assert parts is not None
    spectrogram = parts.front_end.spectrogram(waves)
    assert spectrogram.shape == (6, parts.front_end.front_end.frames, parts.front_end.front_end.bands)
    whole = model(waves, training=False)
    assert np.array_equal(parts.rest(parts.front_end.finish(spectrogram), training=False), whole)
    assert [id(v) for v in parts.rest.trainable_variables] == [id(v) for v in model.trainable_variables]
    save_teacher(model, tmp_path / "teacher")
    again = parted(load_model(tmp_path / "teacher")[0])
    assert again is not None and same_front_end(parts, again)
    # a folder says nothing of the precision, and the loaded network computes in float32
    close = 0.05 if "dtype" in options else 1e-5
    assert np.abs(again.rest(again.front_end(waves), training=False) - whole).max() < close
    model.save(tmp_path / "model.keras")
    kept = parted(keras.models.load_model(tmp_path / "model.keras"))
    assert kept is not None and np.array_equal(kept.rest(kept.front_end(waves), training=False), whole)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_the_parts_learn_what_the_network_learns(name, options):
    """With masks of no width a step is that of the whole network: weights, statistics and penalties."""
    after = []
    for masks in (None, Masks(1, 0, 0), Masks(1, 0.4, 0.4)):
        model, (waves, labels) = network(name, **options), sounds()
        before = model.get_weights()
        learner, given = model, waves
        if masks is not None:
            parts = parted(model)
            assert parts is not None
            learner, given = Masked(parts), (waves, *numbers(masks))
        with tf.GradientTape() as tape:
            logits = learner(given, training=True)
            crossed = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            loss = tf.reduce_mean(crossed) + sum(learner.losses)
        assert len(learner.losses) == len(model.losses)
        variables = learner.trainable_variables
        assert [id(variable) for variable in variables] == [id(variable) for variable in model.trainable_variables]
        keras.optimizers.SGD(0.1).apply_gradients(zip(tape.gradient(loss, variables), variables))
        after.append([float(loss), *model.get_weights()])
        moved = [not np.array_equal(old, new) for old, new in zip(before, after[-1][1:])]
        assert sum(moved) > 0.9 * len(moved)
    whole, plain, hidden = after
    close = 0.02 if "dtype" in options else 1e-4
    assert all(np.allclose(one, other, rtol=close, atol=close) for one, other in zip(whole, plain))
    assert not all(np.allclose(one, other, rtol=close, atol=close) for one, other in zip(whole, hidden))


def test_front_ends_are_the_same_by_what_they_compute():
    parts = [parted(network(name)) for name in ("dscnn_s", "dscnn_s", "resnet20_mel")]
    a, b, c = (part for part in parts if part is not None)
    assert same_front_end(a, b) and not same_front_end(a, c)


def test_what_has_no_front_end_of_ours_at_its_beginning_is_not_parted():
    inputs: Any = keras.Input((SAMPLES,))
    front_end = models.FrontEnd({"kind": "mfcc", "rate": RATE, "samples": SAMPLES, "window": 320, "hop": 160})
    later = keras.layers.Dense(3)(keras.layers.Flatten()(front_end(inputs * 0.5)))
    for model in (lambda x: x, None, models.build("small_cnn", classes=2), keras.Model(inputs, later)):
        assert parted(model) is None
