"""Networks for sounds parted behind their front end, and masks over the spectrograms there (SpecAugment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from bridge.datum.masks import MaskNumbers, centres
from keras_aip.models import FrontEnd


@dataclass(frozen=True)
class Parted:
    """A network for sounds in two parts: ``rest(front_end.finish(front_end.spectrogram(waveforms)))`` is all of it.

    Attributes:
        front_end: from waveforms to a spectrogram, and on to features.
        rest: from features ``[batch, frames, features, 1]`` to logits; its layers and variables are the network's own.
    """

    front_end: FrontEnd
    rest: keras.Model


def parted(model: Any) -> Parted | None:
    """Part a network behind its front end; None where it does not begin with one of ours.

    Args:
        model: any network, or a function; only functional Keras models whose waveforms meet one `FrontEnd` are parted.
    """
    if not isinstance(model, keras.Model):
        return None
    layers = getattr(model, "layers", [])
    front_ends = [layer for layer in layers if isinstance(layer, FrontEnd)]
    outputs = getattr(model, "outputs", None)
    if len(front_ends) != 1 or outputs is None or len(outputs) != 1 or len(model.inputs) != 1:
        return None
    front_end = front_ends[0]
    if front_end.input is not model.inputs[0]:
        return None
    return Parted(front_end, keras.Model(front_end.output, outputs[0], name=f"{model.name}_rest"))


def same_front_end(a: Parted, b: Parted) -> bool:
    """Whether two networks hear the same spectrogram and features."""
    return a.front_end.front_end.described() == b.front_end.front_end.described()


class Masked(keras.Model):
    """A network as it is trained with SpecAugment: what is learnt is learnt by the network's own layers.

    Args:
        network: to be trained, parted.

    Call: (waveforms, and the two arrays of `MaskNumbers`) -> logits.
    """

    def __init__(self, network: Parted) -> None:
        super().__init__(name="masked")
        self.front_end, self.rest = network.front_end, network.rest

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        waveforms, time, frequency = inputs
        spectrograms = mask(self.front_end.spectrogram(waveforms), MaskNumbers(time, frequency))
        return self.rest(self.front_end.finish(spectrograms), training=training)


def mask(spectrograms: tf.Tensor, numbers: MaskNumbers) -> tf.Tensor:
    """Hide what the masks cover, as `bridge.datum.masks.masked` does: static shapes, no random op, XLA- and TPU-safe.

    Args:
        spectrograms: float [batch, frames, bands].
        numbers: of the same rows.

    Returns:
        The same shape and type: the mean of the own spectrogram where a mask is.
    """
    shape: Any = spectrograms.shape
    _, frames, bands = shape.as_list()
    hidden = _hidden(numbers.time, frames)[:, :, None] | _hidden(numbers.frequency, bands)[:, None, :]
    return tf.where(hidden, tf.reduce_mean(spectrograms, axis=[1, 2], keepdims=True), spectrograms)


def _hidden(edges: tf.Tensor, length: int) -> tf.Tensor:
    """Begins and ends [batch, count, 2] → bool [batch, length]."""
    begin, end = tf.split(edges, 2, axis=2)
    at = tf.constant(centres(length))
    return tf.reduce_any((at > begin) & (at < end), axis=1)
