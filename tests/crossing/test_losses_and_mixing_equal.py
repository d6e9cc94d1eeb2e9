"""The same numbers through both backends give the same losses, gradients and mixed pixels."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from keras_aip import losses as keras_losses
from keras_aip import mixing as keras_mixing
from torch_aip import losses as torch_losses
from torch_aip import mixing as torch_mixing


def test_both_backends_offer_the_same_losses():
    assert list(keras_losses.LOSSES) == list(torch_losses.LOSSES)


@pytest.mark.parametrize("name", list(keras_losses.LOSSES))
@pytest.mark.parametrize("temperature, spread", [(1.0, 4.0), (8.0, 4.0), (1.0, 200.0)])
def test_losses_and_their_gradients_are_equal(name, temperature, spread):
    rng = np.random.default_rng(0)
    teacher, student = (rng.normal(0, spread, (6, 10)).astype(np.float32) for _ in range(2))
    s = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = keras_losses.get(name)(tf.constant(teacher), s, temperature)
    p = torch.tensor(student, requires_grad=True)
    twin = torch_losses.get(name)(torch.tensor(teacher), p, temperature)
    twin.backward()
    np.testing.assert_allclose(loss.numpy(), twin.item(), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, s).numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["cutmix", "mixup", "both"])
def test_mixed_pixels_are_equal(kind):
    images = np.random.default_rng(1).random((16, 9, 12, 3)).astype(np.float32)
    numbers = mixing_numbers(Mixing(kind, 1.0, "sample"), seed=3, step=5, batch=16)
    keras_mixed = keras_mixing.mix(tf.constant(images), MixingNumbers(*map(tf.constant, numbers))).numpy()
    torch_mixed = torch_mixing.mix(
        torch.tensor(images).permute(0, 3, 1, 2), MixingNumbers(*(torch.tensor(a) for a in numbers))
    )
    np.testing.assert_allclose(keras_mixed, torch_mixed.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    assert not np.array_equal(keras_mixed, images)
