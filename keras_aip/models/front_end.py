"""The front end of a network for audio as a layer: waveforms in, mel bands or cepstral coefficients out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.teachers.front_end import front_end_of


@keras.saving.register_keras_serializable(package="aip")
class FrontEnd(keras.layers.Layer):
    """Frame a waveform and multiply the frames with fixed arrays: nothing is learnt, and there is no FFT in it.

    Reshapes, slices, products and a logarithm of fixed shapes, which XLA, TPUs, TensorFlow Lite and ONNX all take.
    Computed in float32 whatever the dtype policy; only the result is cast, because quiet bands would drown in the
    rounding of loud ones. Ours.

    Args:
        description: What a card holds of a front end, as `bridge.teachers.front_end.front_end_of` takes it:
            ``{"kind": "mfcc"}`` or ``{"kind": "log_mel"}``, with settings.
        guarded: Split samples and cosines into two parts of 8 bits each, for hardware that rounds what it multiplies
            (TPUs to bfloat16, GPUs to TensorFloat-32): of log-mels of speech bands would be off by 0.06 and 0.004 on
            average, and by up to 6 and 2; guarded, all are within 0.06. Three times the work. None: where there is such
            hardware when the layer is traced.

    Call: waveforms ``[batch, samples]`` in [-1, 1] -> ``[batch, frames, features, 1]``, in the compute dtype.

    Raises:
        TeacherError: The description makes no sense.
    """

    def __init__(self, description: Mapping[str, Any], guarded: bool | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.guarded = guarded
        self.front_end = front_end_of(description)
        self._bases = self.front_end.bases()
        # A frame is made of whole hops, so that framing is reshaping and no gathering; zeros meet what is too much.
        hop, window = self.front_end.hop, self.front_end.window
        self._hops = -(-window // hop)
        self._fourier = np.pad(self._bases.fourier, [(0, self._hops * hop - window), (0, 0)])
        coarse = self._fourier.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
        self._fourier_parts = np.concatenate([coarse, coarse, self._fourier - coarse])

    def call(self, waveforms: tf.Tensor) -> tf.Tensor:
        return self.finish(self.spectrogram(waveforms))

    def spectrogram(self, waveforms: tf.Tensor) -> tf.Tensor:
        """The logarithm of the bands, before any cosine transform: where masks go, and what can be mixed.

        Args:
            waveforms: ``[batch, samples]`` in [-1, 1].

        Returns:
            float32 ``[batch, frames, bands]``.
        """
        bases, frames, hop = self._bases, self.front_end.frames, self.front_end.hop
        count = frames - 1 + self._hops
        x = tf.cast(waveforms, tf.float32)[:, : count * hop]
        x = tf.pad(x, [[0, 0], [0, max(0, count * hop - self.front_end.samples)]])
        x = tf.reshape(x, [-1, count, hop])
        x = tf.concat([x[:, first : first + frames] for first in range(self._hops)], axis=2)
        x = tf.reshape(x, [-1, self._hops * hop])
        fourier = self._fourier
        if _rounds_products() if self.guarded is None else self.guarded:
            coarse = tf.round(x * 128.0) / 128.0  # of samples in [-1, 1]: 8 bits, which no hardware rounds away
            x, fourier = tf.concat([coarse, x - coarse, coarse], axis=1), self._fourier_parts
        real, imaginary = tf.split(tf.matmul(x, tf.constant(fourier)), 2, axis=1)
        x = real * real + imaginary * imaginary
        x = tf.matmul(tf.sqrt(x) if bases.root else x, tf.constant(bases.mel))
        x = tf.maximum(x, bases.smallest)
        x = tf.math.log(x if bases.largest is None else tf.minimum(x, bases.largest))
        return tf.reshape(x, [-1, frames, self.front_end.bands])

    def finish(self, spectrogram: tf.Tensor) -> tf.Tensor:
        """From what `spectrogram` gives to ``[batch, frames, features, 1]`` in the compute dtype."""
        x = tf.cast(spectrogram, tf.float32)
        if self._bases.cosines is not None:
            x = tf.matmul(tf.reshape(x, [-1, self.front_end.bands]), tf.constant(self._bases.cosines))
        x = tf.reshape(x, [-1, self.front_end.frames, self.front_end.features, 1])
        return tf.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.front_end.frames, self.front_end.features, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "description": self.front_end.described(), "guarded": self.guarded}


def _rounds_products() -> bool:
    """Whether there is hardware that rounds the factors of float32 products, unless told not to."""
    gpus = tf.config.list_physical_devices("GPU")
    short = bool(gpus) and tf.config.experimental.tensor_float_32_execution_enabled()
    return short or bool(tf.config.list_logical_devices("TPU"))
