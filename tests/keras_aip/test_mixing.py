"""Mixing in TensorFlow: the same pixels as in NumPy, eagerly, in a graph and under XLA."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bridge.datum import preview
from bridge.datum.mixing import KINDS, Mixing, MixingNumbers, mixing_numbers
from keras_aip.mixing import mix

WAYS = {"eager": mix, "graph": tf.function(mix), "xla": tf.function(mix, jit_compile=True)}


def noise(batch: int = 8, height: int = 6, width: int = 10) -> np.ndarray:
    return np.random.default_rng(0).random((batch, height, width, 3), dtype=np.float32)


def tensors(numbers: MixingNumbers) -> MixingNumbers:
    return MixingNumbers(*(tf.constant(array) for array in numbers))


@pytest.mark.parametrize("way", WAYS)
def test_tensorflow_mixes_as_numpy_does(way):
    images = noise()
    changed = 0
    for kind in KINDS:
        for per in ("batch", "sample"):
            for step in range(3):
                numbers = mixing_numbers(Mixing(kind, 1.0, per, block=4), 0, step, len(images))
                mixed = WAYS[way](tf.constant(images), tensors(numbers)).numpy()
                assert mixed.dtype == np.float32
                assert np.allclose(mixed, preview.mix(images, numbers), atol=1e-6)
                changed += np.abs(mixed - images).max() > 0.1
    assert changed >= 12


@pytest.mark.parametrize("way", WAYS)
def test_none_leaves_every_pixel_as_it_is(way):
    images = noise()
    numbers = mixing_numbers(Mixing("none"), 0, 0, len(images))
    assert np.array_equal(WAYS[way](tf.constant(images), tensors(numbers)).numpy(), images)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_inside_the_box_is_the_partner_to_the_bit_also_at_its_edges(way):
    images = noise(2, 8, 8)
    for box in ((0.25, 0, 0.75, 1), (0, 0.5, 0.125, 0.625), (0, 0, 1, 1), (0.3, 0.3, 0.3, 0.3), (0.0625, 0, 0.1875, 1)):
        numbers = MixingNumbers(
            np.array([1, -1], np.int32), np.tile(np.float32(box), (2, 1)), np.zeros(2, dtype=np.float32)
        )
        mixed = WAYS[way](tf.constant(images), tensors(numbers)).numpy()
        assert np.array_equal(mixed, preview.mix(images, numbers))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_smaller_last_batch_can_be_mixed_in_the_same_graph(jit_compile):
    spec = (
        tf.TensorSpec([None, 6, 10, 3]),
        MixingNumbers(tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 4]), tf.TensorSpec([None])),
    )
    one_graph = tf.function(mix, input_signature=spec, jit_compile=jit_compile)
    for batch in (8, 5):
        images = noise(batch)
        numbers = mixing_numbers(Mixing("both", 1.0, "sample", block=4), 0, 0, batch)
        mixed = one_graph(tf.constant(images), tensors(numbers)).numpy()
        assert np.allclose(mixed, preview.mix(images, numbers), atol=1e-6)


def test_shapes_are_static_and_no_op_is_random():
    numbers = tensors(mixing_numbers(Mixing(), 0, 0, 8))
    graph = tf.function(mix).get_concrete_function(tf.constant(noise()), numbers)
    assert graph.structured_outputs.shape.is_fully_defined()
    assert not [op.type for op in graph.graph.get_operations() if "Random" in op.type or "PyFunc" in op.type]
