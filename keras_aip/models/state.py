"""The weights of a Keras network as the state dict of its PyTorch twin, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.networks import IGNORED, check_fit

# Conv2D: [height, width, in, out] -> [out, in, height, width]; Dense: [in, out] -> [out, in]. DepthwiseConv2D:
# [height, width, channels, 1] -> [channels, 1, height, width].
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
DEPTHWISE_TO_TORCH = TO_TORCH | {4: (2, 3, 0, 1)}
BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
KERNEL = {"kernel": "weight", "bias": "bias"}
DEPTHWISE = {"kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"}  # Keras 2 has the second name


def state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights under the names and in the layout of the PyTorch twin.

    Returns:
        ``<layer>.weight``, ``.bias``, ``.running_mean``, ``.running_var`` as float32; convolutions
        ``[out, in, height, width]``, dense layers ``[out, in]``.

    Raises:
        TeacherError: The model has weights of another kind, which have no place in such a dictionary.
    """
    return {
        name: np.ascontiguousarray(_values(variable).transpose(axes))
        for name, (variable, axes) in _named_variables(model).items()
    }


def load_state_dict(model: keras.Model, arrays: Mapping[str, Any]) -> None:
    """Set all weights of a model from its PyTorch twin's state dict; ``num_batches_tracked`` is passed over.

    Args:
        model: A model of :func:`keras_aip.models.build`.
        arrays: What :func:`state_dict` returns, or a PyTorch state dict on the CPU.

    Raises:
        TeacherError: Names are missing, unknown or have another shape (all are listed; no weight is changed).
    """
    variables = _named_variables(model)
    given = {name: array for name, array in arrays.items() if name.split(".")[-1] != IGNORED}
    check_fit(
        model.name,
        model.count_params(),
        {name: tuple(variable.shape[axis] for axis in axes) for name, (variable, axes) in variables.items()},
        {name: tuple(array.shape) for name, array in given.items()},
    )
    for name, (variable, axes) in variables.items():
        array = np.asarray(given[name], dtype=np.float32)
        variable.assign(tf.cast(array.transpose(np.argsort(axes)), variable.dtype))


def _named_variables(model: keras.Model) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name in the twin's state dict -> the variable, and the order in which its axes stand there."""
    named: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        axes = TO_TORCH
        if isinstance(layer, keras.layers.BatchNormalization):
            attributes = BATCH_NORM
        elif type(layer) in (keras.layers.Conv2D, keras.layers.Dense):
            attributes = KERNEL
        elif type(layer) is keras.layers.DepthwiseConv2D and layer.depth_multiplier == 1:
            attributes, axes = DEPTHWISE, DEPTHWISE_TO_TORCH
        else:
            raise TeacherError(
                f"Layer {layer.name!r} ({type(layer).__name__}) has weights a state dict has no name for: "
                "only Conv2D, DepthwiseConv2D, Dense and BatchNormalization do. Save this model as a .keras file."
            )
        for attribute, name in attributes.items():
            variable = getattr(layer, attribute, None)
            if variable is not None:
                named[f"{layer.name}.{name}"] = variable, axes[len(variable.shape)]
    return named


def _values(variable: Any) -> np.ndarray:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32).numpy()
