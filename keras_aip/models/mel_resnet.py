"""Residual networks on log-mels: the CIFAR ResNets, which see a spectrogram as an image of one channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bridge.networks import MEL_MEAN, MEL_RESNETS, MEL_STD, front_end_for
from keras_aip.models.layers import Network
from keras_aip.models.resnet import residual


def mel_resnet(
    name: str,
    classes: int,
    rate: int = 16_000,
    samples: int | None = None,
    front_end: Mapping[str, Any] | None = None,
    mean: Sequence[float] = MEL_MEAN,
    std: Sequence[float] = MEL_STD,
    **options: Any,
) -> keras.Model:
    """Build a CIFAR ResNet (He et al. 2016) behind a log-mel front end. Ours.

    Args:
        name: ``resnet20_mel`` or ``resnet56_mel``.
        classes: Number of logits.
        rate: Samples per second.
        samples: Of a waveform; None: a second.
        front_end: ``{"kind": "log_mel", "bands": 40, …}``; what is left out is that of `LogMel`: 64 bands from 60 to
            7,800 Hz, of 25 ms every 10 ms.
        mean: One number, subtracted from the features.
        std: One number, the features are divided by.
        **options: ``l2, dtype`` as in :func:`keras_aip.models.build`.

    Returns:
        Waveforms float32 ``[batch, samples]`` in [-1, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: A value cannot work.
    """
    made = front_end_for(name, rate, samples, front_end)
    return residual(
        Network(name, classes, smallest=8, mean=mean, std=std, front_end=made, **options), MEL_RESNETS[name]
    )


def resnet20_mel(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-20 on log-mels. See :func:`mel_resnet`."""
    return mel_resnet("resnet20_mel", classes, **options)


def resnet56_mel(classes: int, **options: Any) -> keras.Model:
    """Build ResNet-56 on log-mels. See :func:`mel_resnet`."""
    return mel_resnet("resnet56_mel", classes, **options)
