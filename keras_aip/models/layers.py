"""The layers all networks are put together from; they compute what those of the PyTorch twins compute."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from bridge.errors import ConfigError
from bridge.names import hint
from bridge.networks import Plan
from keras_aip import compat
from keras_aip.models.front_end import FrontEnd

BATCH_NORM_EPSILON = 1e-5
KERAS_BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.9  # how much of the old statistics is kept; PyTorch calls the same thing 0.1
DTYPES = ("float32", "mixed_bfloat16", "bfloat16", "mixed_float16", "float16")


@keras.saving.register_keras_serializable(package="aip")
class Normalise(keras.layers.Layer):
    """Subtract a mean and divide by a standard deviation per channel: every network's first layer.

    Computed in float32 whatever the dtype policy; only the result is cast, because bfloat16 cannot tell two
    neighbouring 8-bit pixel values apart. Ours.

    Args:
        mean: One value per channel, in the units of the images ([0, 1]).
        std: One value per channel, greater than zero.

    Call: images ``[batch, height, width, channels]`` in [0, 1] -> the same shape, in the compute dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        centred = tf.cast(images, tf.float32) - tf.constant(self.mean, tf.float32)
        return tf.cast(centred / tf.constant(self.std, tf.float32), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": list(self.mean), "std": list(self.std)}


@keras.saving.register_keras_serializable(package="aip")
class PaddedShortcut(keras.layers.Layer):
    """The parameter-free shortcut of CIFAR ResNets: take every stride-th pixel, fill new channels with zeros.

    He et al. 2016, option A; the zeros go on both sides of the channels, as in the PyTorch code whose weights
    are around. A Lambda could do it, but files with a Lambda in them are refused.

    Args:
        stride: Step between the pixels kept.
        channels_before: Zero channels put before the old ones.
        channels_after: Zero channels put after them.

    Call: ``[batch, height, width, channels]`` -> ``[batch, ceil(height / stride), ceil(width / stride),
    channels + channels_before + channels_after]``.
    """

    def __init__(self, stride: int, channels_before: int, channels_after: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride
        self.channels_before = channels_before
        self.channels_after = channels_after

    def call(self, x: tf.Tensor) -> tf.Tensor:
        kept = x[:, :: self.stride, :: self.stride, :]
        return tf.pad(kept, [[0, 0], [0, 0], [0, 0], [self.channels_before, self.channels_after]])

    def get_config(self) -> dict[str, Any]:
        own = {
            "stride": self.stride,
            "channels_before": self.channels_before,
            "channels_after": self.channels_after,
        }
        return {**super().get_config(), **own}


@dataclass(frozen=True)
class Network(Plan):
    """What one network was asked to be, and the layers it is built from: one dtype policy, one L2 penalty.

    Args, besides those of a plan:
        l2: Weight of ``sum(kernel ** 2)`` over convolutions and dense layers, added to ``model.losses``.
        dtype: Keras dtype policy; None is float32. The head stays in float32 always.
        tensorflow: Pad as TensorFlow's "same" does and take Keras's own ε in BatchNorm, 1e-3: for weights trained so.

    Raises:
        ConfigError: A value cannot work.
    """

    l2: float = 0.0
    dtype: str | None = None
    tensorflow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.l2, bool) or not isinstance(self.l2, (int, float)) or not 0 <= self.l2 < math.inf:
            raise ConfigError(f"l2={self.l2!r} must be a number of at least 0 (0 switches it off).")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(
                f"dtype={self.dtype!r} must be None or one of {', '.join(DTYPES)}.{hint(self.dtype, DTYPES)}"
            )

    @property
    def policy(self) -> str:
        # Said to every layer, because None would mean whatever global policy happens to be set.
        return self.dtype or "float32"

    def inputs(self) -> Any:
        """Return the symbolic images, float32 ``[batch, image_size, image_size, 3]`` in [0, 1].

        Of a network for audio the waveforms, ``[batch, samples]`` in [-1, 1].
        """
        if self.front_end is not None:
            return keras.Input((self.front_end.samples,), dtype="float32", name="waveform")
        return keras.Input((self.image_size, self.image_size, 3), dtype="float32", name="images")

    def normalise(self, images: Any) -> Any:
        """Normalise in float32, then cast to the compute dtype; of waveforms, their features."""
        if self.front_end is not None:
            images = FrontEnd(self.front_end.described(), dtype="float32", name="front_end")(images)
        return Normalise(self.mean, self.std, dtype=self.policy, name="normalise")(images)

    def convolution(
        self,
        x: Any,
        filters: int,
        name: str,
        *,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        bias: bool = False,
    ) -> Any:
        """Convolve with ``kernel_size // 2`` zeros on every side, as PyTorch does at any stride (but `tensorflow`).

        What is not square in height and width is for networks that pad as TensorFlow does.
        """
        padding = "same"
        if not self.tensorflow and isinstance(stride, int) and isinstance(kernel_size, int) and stride > 1:
            # Keras' "same" pads right and bottom only at stride 2, which shifts the image against the twin's.
            padding = "valid"
            if kernel_size > 1:
                x = keras.layers.ZeroPadding2D(kernel_size // 2, dtype=self.policy, name=f"{name}.pad")(x)
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding=padding,
            use_bias=bias,
            # He et al. 2015 with fan_out, as the PyTorch twins: it keeps the size of the gradients.
            kernel_initializer=_variance(2.0, "fan_out", "untruncated_normal"),
            kernel_regularizer=self.regulariser(),
            dtype=self.policy,
            name=name,
        )(x)

    def depthwise(self, x: Any, name: str, *, stride: int = 1) -> Any:
        """Convolve each channel by itself over 3 × 3, padded as TensorFlow's "same" does, with a bias."""
        return keras.layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding="same",
            depthwise_initializer=_variance(2.0, "fan_out", "untruncated_normal"),
            depthwise_regularizer=self.regulariser(),
            dtype=self.policy,
            name=name,
        )(x)

    def batch_norm(self, x: Any, name: str, *, scale: bool = True) -> Any:
        """Normalise over the batch with PyTorch's ε (but `tensorflow`) and momentum; `scale`: with a learnt factor."""
        epsilon = KERAS_BATCH_NORM_EPSILON if self.tensorflow else BATCH_NORM_EPSILON
        return compat.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=epsilon, scale=scale, dtype=self.policy, name=name
        )(x)

    def relu(self, x: Any, name: str) -> Any:
        """Set negative values to zero."""
        return keras.layers.ReLU(dtype=self.policy, name=name)(x)

    def max_pool(self, x: Any, name: str) -> Any:
        """Take the maximum over 2 × 2 pixels; an odd last row or column is left out, as in PyTorch."""
        return keras.layers.MaxPooling2D(2, dtype=self.policy, name=name)(x)

    def add(self, x: Any, y: Any, name: str) -> Any:
        """Add two branches."""
        return keras.layers.Add(dtype=self.policy, name=name)([x, y])

    def average(self, x: Any, name: str) -> Any:
        """Average over all pixels, in float32: ``[batch, h, w, channels]`` -> ``[batch, channels]``."""
        return keras.layers.GlobalAveragePooling2D(dtype="float32", name=name)(x)

    def head(self, x: Any, name: str) -> Any:
        """Map features to logits, in float32 under any policy: bfloat16 has only 8 significant bits."""
        return keras.layers.Dense(
            self.classes,
            # Uniform in ±1/sqrt(fan_in): what He's formula gives in PyTorch's own Linear.
            kernel_initializer=_variance(1 / 3, "fan_in", "uniform"),
            kernel_regularizer=self.regulariser(),
            dtype="float32",
            name=name,
        )(x)

    def regulariser(self) -> Any:
        """Return the L2 penalty, or None where it is off."""
        return keras.regularizers.L2(self.l2) if self.l2 else None

    def model(self, inputs: Any, logits: Any) -> keras.Model:
        """Return the finished model, with the architecture and arguments that build it again."""
        model = keras.Model(inputs, logits, name=self.architecture)
        # As text: a dictionary would be wrapped and tracked by Keras, and written into checkpoints.
        model.aip_architecture = json.dumps(self.described())
        return model


def _variance(scale: float, mode: str, distribution: str) -> Any:
    # Typed loosely here, because Keras says "str" where it takes initialisers too.
    return keras.initializers.VarianceScaling(scale, mode, distribution)
