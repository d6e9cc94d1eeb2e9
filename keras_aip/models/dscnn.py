"""Keyword spotters of depthwise separable convolutions: DS-CNN of "Hello Edge" (Zhang et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bridge.networks import DSCNN, front_end_for
from keras_aip.models.layers import Network


def dscnn(
    name: str,
    classes: int,
    rate: int = 16_000,
    samples: int | None = None,
    front_end: Mapping[str, Any] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    **options: Any,
) -> keras.Model:
    """Build a DS-CNN: TensorFlow's "same" padding, BatchNorm with ε 1e-3 and no factor, as the published weights need.

    Args:
        name: ``dscnn_s``, ``dscnn_m`` or ``dscnn_l``.
        classes: Number of logits.
        rate: Samples per second.
        samples: Of a waveform; None: a second.
        front_end: ``{"kind": "mfcc", "coefficients": 13, …}``; what is left out is that of "Hello Edge": 10 MFCCs of 40
            bands from 20 to 4,000 Hz, of 40 ms every 20 ms.
        mean: One number, subtracted from the features; 0 as published.
        std: One number, the features are divided by; 1 as published.
        **options: ``l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        Waveforms float32 ``[batch, samples]`` in [-1, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: A value cannot work.
    """
    size = DSCNN[name]
    net = Network(
        name, classes, smallest=1, mean=mean, std=std, front_end=front_end_for(name, rate, samples, front_end),
        tensorflow=True, **options,
    )  # fmt: skip
    inputs = net.inputs()
    first, second = size.strides
    x = net.convolution(net.normalise(inputs), size.width, "conv_1", kernel_size=(10, 4), stride=first, bias=True)
    x = _active(net, x, "bn_1")
    for block in range(1, size.blocks + 1):
        x = net.depthwise(x, f"dw_{block}", stride=second if block == 1 else 1)
        x = _active(net, x, f"dwbn_{block}")
        x = net.convolution(x, size.width, f"pw_{block}", kernel_size=1, bias=True)
        x = _active(net, x, f"pwbn_{block}")
    return net.model(inputs, net.head(net.average(x, "pool"), "fc"))


def _active(net: Network, x: Any, name: str) -> Any:
    # A factor would change nothing: the next layer's weights can hold it, behind a ReLU.
    return net.relu(net.batch_norm(x, name, scale=False), f"{name}.relu")


def dscnn_s(classes: int, **options: Any) -> keras.Model:
    """Build DS-CNN-S: 64 channels, 4 blocks. See :func:`dscnn`."""
    return dscnn("dscnn_s", classes, **options)


def dscnn_m(classes: int, **options: Any) -> keras.Model:
    """Build DS-CNN-M: 172 channels, 4 blocks. See :func:`dscnn`."""
    return dscnn("dscnn_m", classes, **options)


def dscnn_l(classes: int, **options: Any) -> keras.Model:
    """Build DS-CNN-L: 276 channels, 5 blocks. See :func:`dscnn`."""
    return dscnn("dscnn_l", classes, **options)
