"""The same network in bfloat16, for teachers that only answer: faster where the hardware has it."""

from __future__ import annotations

import copy
from typing import Any

import keras
import tensorflow as tf

from bridge.errors import TeacherError

# These read pixels or samples, and bfloat16 cannot tell two neighbouring 8-bit values apart.
READS_PIXELS = frozenset({"InputLayer", "Normalization", "Rescaling", "FrontEnd"})


def in_bfloat16(model: keras.Model) -> keras.Model:
    """Return a copy of a model that computes in bfloat16, with the same weights, rounded.

    Input, normalisation and the layers that give the outputs stay in the precision they have. Ours.

    Args:
        model: A functional or sequential model, built.

    Raises:
        TeacherError: The model cannot be made again from its own description (a subclassed model).
    """
    try:
        config = copy.deepcopy(model.get_config())
    except NotImplementedError:
        config = {}
    if not isinstance(config, dict) or not config.get("layers"):
        raise TeacherError(
            "Only a functional or sequential Keras model can be made again in bfloat16, "
            f"not a {type(model).__name__}. Use dtype=None, or build the model with policy mixed_bfloat16."
        )
    _set_dtypes(config, keep=set(getattr(model, "output_names", ())) | {model.layers[-1].name})
    classes = {type(layer) for layer in model._flatten_layers()}
    own_classes = {kind.__name__: kind for kind in classes if kind.__module__.split(".")[0] != "keras"}
    try:
        # Not the model's own class: a subclass's from_config may want what a plain description lacks.
        kind = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
        twin = kind.from_config(config, custom_objects=own_classes)
        if not twin.built:
            twin.build(model.input_shape)
        old, new = model.weights, twin.weights
        if [tuple(weight.shape) for weight in old] != [tuple(weight.shape) for weight in new]:
            raise TeacherError(f"{model.name} has other weights when made again from its description.")
        for source, target in zip(old, new, strict=True):
            target.assign(tf.cast(tf.convert_to_tensor(source), target.dtype))
    except (TypeError, ValueError, AttributeError, NotImplementedError, tf.errors.OpError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TeacherError(f"{model.name} cannot be made again in bfloat16 ({first}). Use dtype=None.") from error
    return twin


def _set_dtypes(node: Any, keep: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _set_dtypes(item, keep)
    elif isinstance(node, dict):
        config = node.get("config")
        layer = str(node.get("class_name", "")).rpartition(">")[2]  # Keras 2 puts the package before it
        if isinstance(config, dict) and "dtype" in config and layer not in READS_PIXELS:
            gives_outputs = config.get("name") in keep and "layers" not in config
            # BatchNorm's weights stay float32: they are few, and a rounded variance scales everything.
            lower = "mixed_bfloat16" if layer.endswith("BatchNormalization") else "bfloat16"
            config["dtype"] = config["dtype"] if gives_outputs else lower
        for value in node.values():
            _set_dtypes(value, keep)
