"""The reference code's own CIFAR teachers: TensorFlow checkpoints of a wide ResNet, made into teacher folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.names import lookup
from bridge.teachers.card import Card
from bridge.teachers.shelf import folder_for
from keras_aip import models
from keras_aip.datasets import FACTS
from keras_aip.teachers import save_teacher

# Reference code, for CIFAR-10 and CIFAR-100 alike; the deviations within an image of CIFAR-10, averaged over images.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
_KEY = re.compile(r"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
# Names of a layer's weights, in the order in which Keras sets them.
_NAMES = (("kernel",), ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance"))
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
    path = Path(str(prefix).removesuffix(".index")).expanduser()
    given: dict[str, list[Weights]] = {}
    for weights in _read(path):
        given.setdefault(_kind(weights), []).append(weights)
    architecture, classes = _architecture(given, path)
    if classes != facts.classes:
        raise TeacherError(f"{path} answers for {classes} classes, {dataset} has {facts.classes}. Check --dataset.")
    model: Any = models.build(
        architecture, classes=classes, image_size=facts.image_size, mean=MEAN, std=STD, reference=True
    )
    layers: dict[str, list[Any]] = {}
    for layer in model.layers:
        if layer.weights:
            layers.setdefault(_kind(layer.get_weights()), []).append(layer)
    # Keras numbers layers by depth, where the last convolution of a block and its 1 x 1 shortcut stand side by side, in
    # either order. Among layers of one kind the order is that of the forward pass, in the checkpoint as in our model.
    for kind, ours in layers.items():
        for number, (layer, weights) in enumerate(zip(ours, given[kind])):
            expected, found = ([list(array.shape) for array in arrays] for arrays in (layer.get_weights(), weights))
            if expected != found:
                raise _misfit(path, f"{kind} number {number} has shapes {found}, {architecture} has {expected}")
            layer.set_weights(weights)
    return save_teacher(
        model,
        folder or folder_for(dataset, architecture),
        class_names=facts.class_names,
        source=f"the reference code of Asano & Saeed 2023: {path.name}, trained on {dataset}",
    )


def _read(path: Path) -> list[Weights]:
    """The weights of every layer, in the checkpoint's order."""
    files = {file.name for file in path.parent.iterdir()} if path.parent.is_dir() else set()
    if f"{path.name}.index" not in files:
        raise TeacherError(
            f"There is no checkpoint {path}: expected files {path.name}.index and {path.name}.data-00000-of-00001 in "
            f"{path.parent}. Give what both names begin with."
        )
    shards = sorted(file for file in files if re.fullmatch(re.escape(path.name) + r"\.data-\d{5}-of-\d{5}", file))
    total = int(shards[0][-5:]) if shards else 1
    lacking = {f"{path.name}.data-{shard:05d}-of-{total:05d}" for shard in range(total)} - set(shards)
    if lacking:
        raise TeacherError(f"{path} lacks {', '.join(sorted(lacking))}: copy all files of the checkpoint.")
    layers: dict[int, dict[str, np.ndarray]] = {}
    try:
        reader = tf.train.load_checkpoint(str(path))
        for key in reader.get_variable_to_shape_map():
            if match := _KEY.fullmatch(key):
                layers.setdefault(int(match[1]), {})[match[2]] = np.asarray(reader.get_tensor(key))
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TeacherError(f"{path} cannot be read ({first}): damaged or only partly there; copy it again.") from error
    ordered = [_ordered(layers[number], number, path) for number in sorted(layers)]
    if not all(np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() for w in ordered for array in w):
        raise TeacherError(f"{path} holds weights that are no finite numbers; it is damaged or its training failed.")
    return ordered


def _ordered(arrays: Mapping[str, np.ndarray], number: int, path: Path) -> Weights:
    for names in _NAMES:
        if set(arrays) == set(names):
            return [arrays[name] for name in names]
    raise _misfit(path, f"its layer {number} has weights {', '.join(sorted(arrays))}")


def _kind(weights: Weights) -> str:
    first = weights[0]
    if len(weights) == 4:
        return "BatchNorm"
    return f"{first.shape[0]} x {first.shape[1]} convolution" if first.ndim == 4 else "dense layer"


def _architecture(given: Mapping[str, list[Weights]], path: Path) -> tuple[str, int]:
    """Name and number of classes of the wide ResNet that has such layers."""
    count = {kind: len(weights) for kind, weights in given.items()}
    blocks, rest = divmod(count.get("3 x 3 convolution", 0) - 1, 6)
    convolution, head = given.get("3 x 3 convolution"), given.get("dense layer")
    listed = ", ".join(f"{number} {kind}s" for kind, number in count.items()) or "no layers numbered by Keras 2"
    if not convolution or not head or blocks < 1 or rest or head[-1][0].ndim != 2:
        raise _misfit(path, f"it holds {listed}")
    channels, classes = convolution[-1][0].shape[-1], head[-1][0].shape[-1]
    width = channels // 64
    # At width 1 the first stage has its 16 channels already, so it needs no shortcut.
    expected = {
        "3 x 3 convolution": 6 * blocks + 1,
        "BatchNorm": 6 * blocks + 1,
        "dense layer": 1,
        "1 x 1 convolution": 3 if width > 1 else 2,
    }
    if count != expected or channels % 64 or not width:
        raise _misfit(path, f"it holds {listed}, the last with {channels} channels")
    return f"wrn_{6 * blocks + 4}_{width}", classes


def _misfit(path: Path, found: str) -> TeacherError:
    return TeacherError(
        f"{path} is no wide ResNet as the reference code builds it: {found}. Expected the layers of one, as "
        "`model.save_weights(prefix)` of Keras 2 writes them."
    )
