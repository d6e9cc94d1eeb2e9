"""Teachers: frozen networks that answer in log space, and the folders they and students are kept in."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from bridge.errors import ConfigError, MissingTeacherError, TeacherError
from bridge.teachers.card import CARD_NAME, CHOICES, FORMS, Card, replacing_folder
from bridge.teachers.scan import read_json_member, refuse_code
from keras_aip import models

SMALLEST_PROBABILITY = 1e-7
FOLDER_VARIABLE = "AIP_TEACHERS"
DEFAULT_FOLDER = "teachers"


class Teacher:
    """A frozen classifier, in inference mode whatever happens around it; its answers are in log space.

    Not a Keras layer: so a model that holds a teacher neither trains nor saves the teacher's weights.

    Args:
        model: A Keras model (frozen from then on), or any callable that takes a batch of images.
        outputs: What the model gives: ``logits``, ``probabilities``, or ``labels`` (class numbers ``[batch]``
            or one-hot ``[batch, classes]``).
        mean: Mean per channel to subtract before the model, in float32; None where the model does it itself.
        std: Standard deviation per channel to divide by before the model; given together with ``mean``.
        class_names: One name per class.
        dtype: ``"bfloat16"`` makes a Keras model again in bfloat16; None or ``"float32"`` leaves it as it is.
        digest: What identifies the network; None: a SHA-256 over its weights, where it shows any.
        classes: Number of classes, needed only where the model's output shape does not tell.
        input_size: Height and width in pixels, needed only where the model's input shape does not tell.

    Raises:
        TeacherError: The arguments contradict each other or the model.

    Example:
        >>> teacher = Teacher(model, outputs="probabilities")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: keras.Model | Callable[..., Any],
        outputs: str = "logits",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        dtype: str | None = None,
        digest: str | None = None,
        *,
        classes: int | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        if not callable(model):
            raise TeacherError(f"A teacher is a Keras model or a function of images, not a {type(model).__name__}.")
        if outputs not in CHOICES["outputs"]:
            raise TeacherError(f"outputs={outputs!r} must be one of {', '.join(CHOICES['outputs'])}.")
        if (mean is None) != (std is None):
            raise TeacherError("Give mean and std together, or neither where the model normalises by itself.")
        if mean is not None and std is not None and (len(mean) != len(std) or min(std) <= 0):
            raise TeacherError(f"mean={mean!r} and std={std!r} must be equally long, with every std above 0.")
        self._outputs = outputs
        self._mean = None if mean is None else tuple(float(value) for value in mean)
        self._std = None if std is None else tuple(float(value) for value in std)
        self._model: Any = model
        self._digest = digest
        if dtype == "bfloat16":
            if not isinstance(model, keras.Model):
                raise TeacherError("dtype='bfloat16' needs a Keras model; this teacher is another callable.")
            # Of the exact weights: the copy is the same teacher, computed less precisely.
            self._digest = self.digest
            self._model = models.in_bfloat16(model)
        elif dtype not in (None, "float32"):
            raise TeacherError(f"dtype={dtype!r} must be None, 'float32' or 'bfloat16'.")
        is_keras = isinstance(model, keras.layers.Layer)
        if is_keras:
            self._model.trainable = False
        self._takes_training = is_keras or _takes_training(model)
        self.dtype = dtype or "float32"
        self.class_names = None if class_names is None else tuple(class_names)
        self._input_size = input_size or _input_size(model)
        self._classes = self._find_classes(classes)

    @property
    def classes(self) -> int | None:
        """Number of classes; None where neither model nor arguments tell it."""
        return self._classes

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the images in pixels; None: any, or unknown."""
        return self._input_size

    @property
    def outputs(self) -> str:
        """What the model gives: logits, probabilities or labels (the teacher itself gives log space)."""
        return self._outputs

    @property
    def trainable_weights(self) -> list[Any]:
        """Return nothing: a teacher is frozen."""
        return []

    @property
    def digest(self) -> str | None:
        """Identify the network by a SHA-256; None for a callable that shows no weights."""
        if self._digest is None and getattr(self._model, "weights", None):
            state = hashlib.sha256(repr((self._outputs, self._mean, self._std)).encode())
            for weight in self._model.weights:
                values = np.ascontiguousarray(tf.convert_to_tensor(weight).numpy())
                state.update(f"{values.shape}{values.dtype}".encode())
                state.update(values.tobytes())
            self._digest = state.hexdigest()
        return self._digest

    def __call__(self, images: Any) -> tf.Tensor:
        """Answer a batch in log space; no gradient flows through.

        Args:
            images: RGB ``[batch, height, width, 3]`` in [0, 1].

        Returns:
            float32 ``[batch, classes]``: logits as the model gives them, or ``log(max(p, 1e-7))`` of its
            probabilities or of its labels as one-hot vectors.

        Raises:
            TeacherError: The model's answer is no batch of class scores, or has another number of classes.
        """
        x = tf.cast(images, tf.float32)
        if self._mean is not None and self._std is not None:
            x = (x - tf.constant(self._mean, tf.float32)) / tf.constant(self._std, tf.float32)
        answer = self._model(x, training=False) if self._takes_training else self._model(x)
        if isinstance(answer, dict):
            answer = list(answer.values())
        if isinstance(answer, (list, tuple)) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, (list, tuple)):
            raise TeacherError(f"The teacher gives {len(answer)} outputs; expected one, the class scores.")
        scores = tf.convert_to_tensor(answer)
        if self._outputs == "labels" and scores.shape.rank == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if self._outputs == "labels" and scores.shape.rank == 1:
            scores = tf.one_hot(tf.cast(scores, tf.int64), self._need_classes())
        if scores.shape.rank != 2:
            raise TeacherError(
                f"The teacher answers with shape {tuple(scores.shape)}; expected [batch, classes]"
                + (", or [batch] class numbers." if self._outputs == "labels" else ".")
            )
        found = scores.shape[1]
        if self._classes is not None and found is not None and found != self._classes:
            raise TeacherError(f"The teacher answers for {found} classes; {self._classes} were announced.")
        scores = tf.cast(scores, tf.float32)
        if self._outputs != "logits":
            scores = tf.math.log(tf.maximum(scores, SMALLEST_PROBABILITY))
        return tf.stop_gradient(scores)

    def _find_classes(self, classes: int | None) -> int | None:
        shape = getattr(self._model, "output_shape", None)
        found = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
        if self._outputs == "labels" and found == 1:
            found = None  # one class number per image, not one class
        named = None if self.class_names is None else len(self.class_names)
        told = {"classes": classes, "class_names": named, "the model's output": found}
        told = {what: count for what, count in told.items() if count is not None}
        if len(set(told.values())) > 1:
            listed = ", ".join(f"{what}: {count}" for what, count in told.items())
            raise TeacherError(f"The number of classes is contradictory ({listed}). Correct the wrong one.")
        found = next(iter(told.values()), None)
        if found is None and self._outputs == "labels":
            self._need_classes()
        return found

    def _need_classes(self) -> int:
        classes = getattr(self, "_classes", None)
        if classes is None:
            raise TeacherError("A teacher that answers with class numbers needs classes=…, how many there are.")
        return classes


def save_teacher(
    model: keras.Model,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    outputs: str = "logits",
) -> Card:
    """Write a trained network, teacher or student, as a folder; an older one in its place is replaced.

    Networks of ``keras_aip.models`` become ``weights.safetensors``, which both backends read; others
    ``model.keras``. The folder is written beside and renamed, so a kill never leaves half of it.

    Args:
        model: A functional or sequential model that takes RGB float32 in [0, 1] and normalises by itself.
        folder: Where to write it.
        class_names: One name per class.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``.
        source: Where the network comes from.
        licence: Its licence.
        outputs: ``logits``, ``probabilities`` or ``labels``.

    Raises:
        TeacherError: The folder holds something else or cannot be written, or nobody could load the model.
    """
    folder = Path(folder)
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None:
        raise TeacherError(f"{model.name} has output shape {shape}; expected [batch, classes].")
    described = models.architecture_of(model) or {}
    form = "safetensors" if described else "keras"
    card = Card(
        classes=shape[1],
        input_size=_input_size(model),
        architecture=described.get("architecture"),
        arguments=described.get("arguments", {}),
        class_names=None if class_names is None else tuple(class_names),
        outputs=outputs,
        parameters=model.count_params(),
        accuracy=accuracy,
        source=source,
        licence=licence,
        forms={form: FORMS[form]},
    )
    with replacing_folder(folder) as beside:
        path = beside / FORMS[form]
        if form == "safetensors":
            # not save_file, whose files only their owner may read
            path.write_bytes(safetensors.numpy.save(models.state_dict(model)))
        else:
            model.save(path)
            # Before it is moved into place: a folder that could not be loaded again is not written.
            refuse_code(path, _registered_modules())
        card = card.sealed(beside)
        card.save(beside)
    return card


def load_model(folder: str | Path, dataset: str | None = None) -> tuple[keras.Model, Card]:
    """Load the network of a folder (or of a teacher's name), trainable, with its card.

    Args:
        folder: A folder with ``card.json``, or its name, as for :func:`load_teacher`.
        dataset: The data set it is wanted for.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    folder = _find(folder, dataset)
    card = Card.load(folder)
    if "safetensors" in card.forms and card.architecture is not None:
        model = _from_safetensors(folder / card.forms["safetensors"], card)
    elif "keras" in card.forms:
        model = _from_keras_file(folder / card.forms["keras"], card)
    else:
        raise TeacherError(
            f"{folder} has no form this backend loads: its card names {', '.join(card.forms) or 'none'}; "
            "expected weights.safetensors with a known architecture, or model.keras."
        )
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape[-1] not in (None, card.classes):
        raise TeacherError(f"The model in {folder} answers for {shape[-1]} classes, its card says {card.classes}.")
    return model, card


def load_teacher(folder_or_name: str | Path, dtype: str | None = None, dataset: str | None = None) -> Teacher:
    """Load a teacher from a folder, or by the name of a folder in ``$AIP_TEACHERS`` (default ``./teachers``).

    Args:
        folder_or_name: A folder with ``card.json``, or its name.
        dtype: ``"bfloat16"`` for a faster, less precise one.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    model, card = load_model(folder_or_name, dataset)
    return Teacher(model, outputs=card.outputs, class_names=card.class_names, dtype=dtype, digest=card.digest)


def folder_for(dataset: str, architecture: str) -> Path:
    """Where a teacher of an architecture for a data set is kept unless told otherwise, and looked for.

    Args:
        dataset: A name, or a path, of which the last part counts without its suffix.
        architecture: Such as ``wrn_40_4``.
    """
    name = Path(dataset).expanduser().absolute().name.strip(".").partition(".")[0]
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER) / f"{name}_{architecture}"


def _find(folder_or_name: str | Path, dataset: str | None = None) -> Path:
    given = Path(folder_or_name)
    shelf = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    places = [given, shelf / given]
    if dataset is not None and len(given.parts) == 1:
        places.insert(1, folder_for(dataset, given.name))
    for place in places:
        if place.is_dir():
            return place
    options = [f"--dataset {dataset or 'DATASET'}"]
    if models.is_known(str(given)):
        options.append(f"--architecture {given}")
    out = None
    if dataset is None or len(options) == 1:  # else it is written to where it is looked for first
        out = str(given if len(given.parts) > 1 else shelf / given)
        options.append(f"--out {out}")
    line = f"python -m keras_aip train-teacher {' '.join(options)}"
    raise MissingTeacherError(
        f"There is no teacher {str(folder_or_name)!r}: no folder {', '.join(dict.fromkeys(map(str, places)))} (set "
        f"{FOLDER_VARIABLE} to look elsewhere).",
        f"Train it with `{line}`, or put a folder with {CARD_NAME} and weights there.",
        out,
    )


def _from_safetensors(path: Path, card: Card) -> keras.Model:
    arguments = card.arguments
    try:
        model = models.build(str(card.architecture), **{"classes": card.classes, **arguments})
    except (ConfigError, TypeError) as error:
        raise TeacherError(f"{path.parent / CARD_NAME} describes no network that can be built: {error}") from error
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise TeacherError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from error
    models.load_state_dict(model, arrays)
    return model


def _from_keras_file(path: Path, card: Card) -> keras.Model:
    refuse_code(path, _registered_modules())
    metadata = read_json_member(path, "metadata.json")
    made_with = str(metadata.get("keras_version")) if isinstance(metadata, dict) else "unknown"
    if made_with.split(".")[0] != keras.__version__.split(".")[0]:
        raise TeacherError(
            f"{path} was saved by Keras {made_with}, this is Keras {keras.__version__}: the two do not read "
            "each other's files. Load it in an environment with its own Keras, or build the network with "
            "keras_aip.models there and save it with save_teacher as safetensors, which both read."
        )
    try:
        model: Any = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras lets through whatever its layers, h5py and TensorFlow raise.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TeacherError(
            f"{path} cannot be loaded ({first}). If it has layers of your own, import the code that "
            "registers them with keras.saving.register_keras_serializable first."
        ) from error
    if card.mean is not None and card.std is not None:
        inputs = keras.Input(model.input_shape[1:], dtype="float32")
        normalise = models.Normalise(card.mean, card.std, dtype="float32", name="card_normalise")
        model = keras.Model(inputs, model(normalise(inputs)), name=model.name)
    return model


def _registered_modules() -> set[str]:
    """Return the modules of all classes registered in this process: running them is the user's own doing."""
    registered = keras.saving.get_custom_objects().values()
    return {getattr(thing, "__module__", "") for thing in registered} - {"builtins", ""}


def _input_size(model: Any) -> tuple[int, int] | None:
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4 and all(isinstance(side, int) for side in shape[1:3]):
        return shape[1], shape[2]
    return None


def _takes_training(function: Callable[..., Any]) -> bool:
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
