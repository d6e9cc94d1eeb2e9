"""The reference code's own CIFAR teachers: TensorFlow checkpoints of a wide ResNet, made into teacher folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.names import lookup
from bridge.teachers.card import Card
from keras_aip import models
from keras_aip.datasets import FACTS
from keras_aip.teachers import folder_for, save_teacher

# Reference code, for CIFAR-10 and CIFAR-100 alike.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
_KEY = re.compile(r"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
# One layer's weights, in the order in which Keras sets them.
Weights = list[np.ndarray]


def import_reference(prefix: str | Path, dataset: str, folder: str | Path | None = None) -> Card:
    """Make a teacher folder of a checkpoint that Keras 2 wrote with ``save_weights(prefix)``.

    Only numbers are read; depth, width and number of classes follow from their shapes.

    Args:
        prefix: What the checkpoint's files begin with; the name of its ``.index`` file will do.
        dataset: What it was trained on, ``cifar10`` or ``cifar100``.
        folder: Where to write the teacher; None: where `load_teacher` finds it by its architecture.

    Returns:
        The card written; it says nothing of accuracy, which has not been measured.

    Raises:
        TeacherError: The files are missing, damaged or of another network, or the folder cannot be written.
        ConfigError: The data set is unknown.
    """
    facts = lookup(FACTS, dataset, "data set")
    path = Path(str(prefix).removesuffix(".index"))
    weights = _by_kind(_read(path), path)
    architecture, classes = _architecture(weights, path)
    if classes != facts.classes:
        raise TeacherError(f"{path} answers for {classes} classes, {dataset} has {facts.classes}. Check --dataset.")
    model = models.build(
        architecture, classes=classes, image_size=facts.image_size, mean=MEAN, std=STD, reference=True
    )
    # Keras numbers layers by depth, where the last convolution of a block and its 1 x 1 shortcut stand side by side, in
    # either order. Among layers of one kind the order is that of the forward pass, in the checkpoint as in our model.
    layers = _by_kind({n: layer for n, layer in enumerate(model.layers) if layer.weights}, path)
    for kind, pairs in {kind: zip(layers[kind], weights[kind], strict=True) for kind in layers}.items():
        for layer, arrays in pairs:
            pass
    return save_teacher(
        model,
        folder or folder_for(dataset, architecture),
        class_names=facts.class_names,
        source=f"the reference code's checkpoint {path.name}, trained on {dataset} (Asano & Saeed 2023)",
    )
