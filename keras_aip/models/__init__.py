"""Networks by name: a small CNN, wide ResNets, CIFAR ResNets and VGGs; for audio DS-CNNs and ResNets on log-mels.

All take RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1], or waveforms ``[batch, samples]`` in [-1, 1],
normalise inside, behind the front end of audio, and give float32 logits. Layers carry the dotted names of their PyTorch
twins, where they have some, so weights cross by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras

from bridge.networks import check_arguments, is_audio, own_arguments, size_of, unknown_network, wide
from keras_aip.models.cnn import small_cnn
from keras_aip.models.dscnn import dscnn_l, dscnn_m, dscnn_s
from keras_aip.models.front_end import FrontEnd
from keras_aip.models.layers import Normalise
from keras_aip.models.mel_resnet import resnet20_mel, resnet56_mel
from keras_aip.models.precision import in_bfloat16
from keras_aip.models.resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from keras_aip.models.state import load_state_dict, state_dict
from keras_aip.models.vgg import vgg11, vgg13, vgg16, vgg19
from keras_aip.models.wrn import wrn, wrn_16_4, wrn_40_4

__all__ = [
    "FrontEnd",
    "Normalise",
    "architecture_of",
    "build",
    "dscnn_l",
    "dscnn_m",
    "dscnn_s",
    "in_bfloat16",
    "input_size_of",
    "is_audio",
    "is_known",
    "load_state_dict",
    "names",
    "resnet20",
    "resnet20_mel",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet56_mel",
    "resnet110",
    "small_cnn",
    "state_dict",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wrn",
    "wrn_16_4",
    "wrn_40_4",
]

_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    builder.__name__: builder
    for builder in (
        small_cnn,
        wrn_16_4,
        wrn_40_4,
        *(resnet20, resnet32, resnet44, resnet56, resnet110),
        *(vgg11, vgg13, vgg16, vgg19),
        *(dscnn_s, dscnn_m, dscnn_l, resnet20_mel, resnet56_mel),
    )
}


def is_known(architecture: str) -> bool:
    """Whether :func:`build` knows an architecture of that name."""
    return architecture in _BUILDERS or wide(architecture) is not None


def names() -> list[str]:
    """Return the names :func:`build` knows, besides ``wrn_<depth>_<width>`` of any valid depth and width."""
    return list(_BUILDERS)


def build(
    architecture: str,
    *,
    classes: int,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    l2: float = 0.0,
    dtype: str | None = None,
    **arguments: Any,
) -> keras.Model:
    """Build a randomly initialised network by its name.

    Args:
        architecture: ``small_cnn``, ``wrn_16_4`` (any depth and width), ``resnet20``, ``vgg16``, …; of waveforms
            ``dscnn_s``, ``dscnn_m``, ``dscnn_l``, ``resnet20_mel``, ``resnet56_mel``.
        classes: Number of logits.
        image_size: Height and width of the images in pixels; None: 32.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model; None: 0.5. Of networks for audio one
            number, of the front end's features; None: 0 of DS-CNNs, -6 of ResNets.
        std: Standard deviation per channel of RGB in [0, 1], divided by inside the model; None: 0.25. Of networks for
            audio one number; None: 1 of DS-CNNs, 4.5 of ResNets.
        l2: Weight of ``sum(kernel ** 2)`` over convolutions and dense layers, added to ``model.losses``.
        dtype: Keras dtype policy (``mixed_bfloat16``, ``bfloat16``); None is float32. Logits always are.
        **arguments: Further arguments of the architecture: ``width`` of ``small_cnn``, ``reference`` of wide ResNets;
            ``rate`` (samples per second, 16,000), ``samples`` of a waveform (None: a second) and ``front_end`` (such as
            ``{"kind": "mfcc", "coefficients": 13}``) of networks for audio.

    Raises:
        ConfigError: The name is unknown (the nearest are given), or a value cannot work.

    Example:
        >>> student = build("wrn_16_4", classes=10)  # doctest: +SKIP
    """
    builder = _builder(architecture)
    made_for = () if is_audio(architecture) else ("image_size",)
    common = ("classes", *made_for, "mean", "std", "l2", "dtype")
    options = {"image_size": image_size, "mean": mean, "std": std}
    given = {name: value for name, value in options.items() if value is not None} | arguments
    check_arguments(
        architecture, [name for name in given if name not in common], common, own_arguments(architecture)
    )  # fmt: skip
    return builder(classes=classes, l2=l2, dtype=dtype, **given)


def architecture_of(model: Any) -> dict[str, Any] | None:
    """Return ``{"architecture": name, "arguments": {...}}``, from which :func:`build` makes the like again.

    Returns:
        None for a model that was not made here, or that went through a ``.keras`` file.
    """
    described = getattr(model, "aip_architecture", None)
    return json.loads(described) if isinstance(described, str) else None


def input_size_of(model: Any) -> tuple[int, ...] | None:
    """What a model was made for; None: nobody knows.

    Returns:
        (height, width) of images in pixels, or (samples,) of waveforms.
    """
    described = architecture_of(model)
    if described is not None:
        return size_of(described["arguments"])
    shape = getattr(model, "input_shape", None)
    sides = {2: shape[1:], 4: shape[1:3]}.get(len(shape)) if isinstance(shape, tuple) else None
    return sides if sides and all(isinstance(side, int) for side in sides) else None


def _builder(architecture: str) -> Callable[..., keras.Model]:
    if architecture in _BUILDERS:
        return _BUILDERS[architecture]
    if asked := wide(architecture):
        return lambda **options: wrn(*asked, **options)
    raise unknown_network(architecture, _BUILDERS)
