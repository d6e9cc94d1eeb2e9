"""Networks by name: a small CNN, wide ResNets, CIFAR ResNets and VGGs.

All take RGB float32 ``[batch, image_size, image_size, 3]`` in [0, 1], normalise inside and give float32
logits. Layers carry the dotted names of their PyTorch twins, so weights cross by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras

from bridge.networks import check_arguments, own_arguments, unknown_network, wide
from keras_aip.models.cnn import small_cnn
from keras_aip.models.layers import Normalise
from keras_aip.models.precision import in_bfloat16
from keras_aip.models.resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from keras_aip.models.state import load_state_dict, state_dict
from keras_aip.models.vgg import vgg11, vgg13, vgg16, vgg19
from keras_aip.models.wrn import wrn, wrn_16_4, wrn_40_4

__all__ = [
    "Normalise",
    "architecture_of",
    "build",
    "in_bfloat16",
    "is_known",
    "load_state_dict",
    "names",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
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
    image_size: int = 32,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
    l2: float = 0.0,
    dtype: str | None = None,
    **arguments: Any,
) -> keras.Model:
    """Build a randomly initialised network by its name.

    Args:
        architecture: ``small_cnn``, ``wrn_16_4`` (any depth and width), ``resnet20``, ``vgg16``, …
        classes: Number of logits.
        image_size: Height and width of the images in pixels.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model.
        std: Standard deviation per channel of RGB in [0, 1], divided by inside the model.
        l2: Weight of ``sum(kernel ** 2)`` over convolutions and dense layers, added to ``model.losses``.
        dtype: Keras dtype policy (``mixed_bfloat16``, ``bfloat16``); None is float32. Logits always are.
        **arguments: Further arguments of the architecture: ``width`` of ``small_cnn``, ``reference`` of wide ResNets.

    Raises:
        ConfigError: The name is unknown (the nearest are given), or a value cannot work.

    Example:
        >>> student = build("wrn_16_4", classes=10)  # doctest: +SKIP
    """
    builder = _builder(architecture)
    common = ("classes", "image_size", "mean", "std", "l2", "dtype")
    check_arguments(architecture, arguments, common, own_arguments(architecture))
    return builder(classes=classes, image_size=image_size, mean=mean, std=std, l2=l2, dtype=dtype, **arguments)


def architecture_of(model: Any) -> dict[str, Any] | None:
    """Return ``{"architecture": name, "arguments": {...}}``, from which :func:`build` makes the like again.

    Returns:
        None for a model that was not made here, or that went through a ``.keras`` file.
    """
    described = getattr(model, "aip_architecture", None)
    return json.loads(described) if isinstance(described, str) else None


def _builder(architecture: str) -> Callable[..., keras.Model]:
    if architecture in _BUILDERS:
        return _BUILDERS[architecture]
    if asked := wide(architecture):
        return lambda **options: wrn(*asked, **options)
    raise unknown_network(architecture, _BUILDERS)
