"""Teachers: frozen networks that answer in log space, and the folders they and students are kept in."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from bridge.errors import ConfigError, TeacherError
from bridge.names import hint
from bridge.teachers.asking import Asked
from bridge.teachers.card import CARD_NAME, FORMS, RANGES, Card, kind_of, replacing_folder
from bridge.teachers.remote import behind, is_address
from bridge.teachers.scan import read_json_member, refuse_code
from bridge.teachers.shelf import find_folder
from bridge.teachers.wrapped import SMALLEST_PROBABILITY, check_statements, number_of_classes
from keras_aip import models
from keras_aip.models.from_onnx import from_onnx


class Teacher:
    """A frozen classifier, in inference mode whatever happens around it; its answers are in log space.

    Not a Keras layer: so a model that holds a teacher neither trains nor saves the teacher's weights.

    Args:
        model: A Keras model (frozen from then on), or any callable that takes a batch of images (or waveforms). One of
            NumPy arrays, such as of a service, is not asked in training steps; in `Asked(function)` not twice either.
        outputs: What the model gives: ``logits``, ``probabilities``, or ``labels`` (class numbers ``[batch]``
            or one-hot ``[batch, classes]``).
        mean: Mean per channel to subtract before the model, in float32; None where the model does it itself.
        std: Standard deviation per channel to divide by before the model; given together with ``mean``.
        class_names: One name per class.
        dtype: ``"bfloat16"`` makes a Keras model again in bfloat16; None or ``"float32"`` leaves it as it is.
        digest: What identifies the network; None: a SHA-256 over its weights, where it shows any.
        classes: Number of classes, needed only where the model's output shape does not tell.
        input_size: Height and width in pixels (or the samples of a waveform), needed only where the model's input shape
            does not tell.
        rate: Samples per second of waveforms; None: what a network of ``keras_aip.models`` was built for.

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
        input_size: tuple[int, ...] | None = None,
        rate: int | None = None,
    ) -> None:
        if not callable(model):
            raise TeacherError(f"A teacher is a Keras model or a function of images, not a {type(model).__name__}.")
        check_statements(outputs, mean, std)
        self._outputs = outputs
        self._mean = None if mean is None else tuple(float(value) for value in mean)
        self._std = None if std is None else tuple(float(value) for value in std)
        self._model: Any = model
        self._digest = digest
        self._asked = model if isinstance(model, Asked) else None
        if self._asked is not None and mean is not None:
            raise TeacherError("What is asked takes images as they are, in [0, 1]: leave out mean and std.")
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
        self._input_size = input_size or models.input_size_of(model)
        self._rate = rate or (models.architecture_of(self._model) or {}).get("arguments", {}).get("rate")
        self._classes = self._find_classes(classes)

    @property
    def classes(self) -> int | None:
        """Number of classes; None where neither model nor arguments tell it."""
        return self._classes

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Height and width of the images in pixels, or (samples,) of the waveforms; None: any, or unknown."""
        return self._input_size

    @property
    def rate(self) -> int | None:
        """Samples per second of the waveforms; None of anything else, or where neither model nor arguments tell it."""
        return self._rate

    @property
    def front_end(self) -> dict[str, Any] | None:
        """What a network for sounds of ``keras_aip.models`` hears with, as :func:`keras_aip.models.build` takes it."""
        return (models.architecture_of(self._model) or {}).get("arguments", {}).get("front_end")

    @property
    def network(self) -> Any:
        """The model itself, where it is asked about samples as they are: not behind a mean and a deviation."""
        return self._model if self._mean is None else None

    @property
    def outputs(self) -> str:
        """What the model gives: logits, probabilities or labels (the teacher itself gives log space)."""
        return self._outputs

    @property
    def asked(self) -> Asked | None:
        """Who is asked outside of training steps, so that answers have to be stored; None of a network."""
        return self._asked

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
            images: RGB ``[batch, height, width, 3]`` in [0, 1]; waveforms ``[batch, samples]`` in [-1, 1].

        Returns:
            float32 ``[batch, classes]``: logits as the model gives them, or ``log(max(p, 1e-7))`` of its
            probabilities or of its labels as one-hot vectors.

        Raises:
            TeacherError: The model's answer is no batch of class scores, or has another number of classes.
        """
        scores = self.scores(images)
        if self._outputs != "logits":
            scores = tf.math.log(tf.maximum(scores, SMALLEST_PROBABILITY))
        return tf.stop_gradient(scores)

    def scores(self, images: Any) -> tf.Tensor:
        """Answer a batch as the model does, float32 ``[batch, classes]``: logits, probabilities or one-hot labels.

        Raises:
            TeacherError: As for a call.
        """
        if self._asked is not None:
            return self._ask(self._asked, images)
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
            scores = tf.one_hot(tf.cast(scores, tf.int64), self._classes)
        if scores.shape.rank != 2:
            raise TeacherError(
                f"The teacher answers with shape {tuple(scores.shape)}; expected [batch, classes]"
                + (", or [batch] class numbers." if self._outputs == "labels" else ".")
            )
        found = scores.shape[1]
        if self._classes is not None and found is not None and found != self._classes:
            raise TeacherError(f"The teacher answers for {found} classes; {self._classes} were announced.")
        return tf.cast(scores, tf.float32)

    def find_out(self, images: tf.Tensor) -> None:
        """Find out whether a plain function can be part of a graph; one of NumPy arrays is asked outside of it.

        Args:
            images: A batch as it will come; the function is not asked about it.
        """
        if self._asked is not None or isinstance(self._model, (keras.layers.Layer, tf.Module)):
            return
        try:
            tf.function(self.scores, autograph=False).get_concrete_function(tf.TensorSpec(images.shape, tf.float32))
        except (NotImplementedError, AttributeError, TypeError) as error:  # what NumPy makes of a symbol
            if self._mean is not None:
                raise TeacherError(
                    f"The teacher is a function that cannot be part of a graph ({str(error).splitlines()[0]}); such a "
                    "one is asked about images as they are, in [0, 1]: leave out mean and std."
                ) from error
            self._asked = Asked(self._model)

    def _ask(self, asked: Asked, images: Any) -> tf.Tensor:
        if not tf.executing_eagerly():
            raise TeacherError(f"{asked.name} can only be asked outside of a graph; store its answers first.")
        if self._classes is None:
            raise TeacherError(f"{asked.name} is asked with classes=…, how many it knows.")
        return tf.constant(asked.scores(np.asarray(images), self._outputs, self._classes))

    def _find_classes(self, classes: int | None) -> int | None:
        shape = getattr(self._model, "output_shape", None)
        found = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
        if self._outputs == "labels" and found == 1:
            found = None  # one class number per image, not one class
        named = None if self.class_names is None else len(self.class_names)
        return number_of_classes({"classes": classes, "class_names": named, "the model's output": found}, self._outputs)


def save_teacher(
    model: keras.Model,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    outputs: str = "logits",
    rate: int | None = None,
) -> Card:
    """Write a trained network, teacher or student, as a folder; an older one in its place is replaced.

    Networks of ``keras_aip.models`` become ``weights.safetensors``, which both backends read; others
    ``model.keras``. The folder is written beside and renamed, so a kill never leaves half of it.

    Args:
        model: A functional or sequential model that takes RGB float32 in [0, 1] and normalises by itself, or waveforms
            ``[batch, samples]`` in [-1, 1], with its front end inside.
        folder: Where to write it.
        class_names: One name per class.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``.
        source: Where the network comes from.
        licence: Its licence.
        outputs: ``logits``, ``probabilities`` or ``labels``.
        rate: Samples per second of the waveforms; None: what a network of ``keras_aip.models`` was built for.

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
        **_listens(model, described.get("arguments", {}), rate),
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
            refuse_code(path, registered_modules())
        card = card.sealed(beside)
        card.save(beside)
    return card


def _listens(model: keras.Model, arguments: dict[str, Any], rate: int | None) -> dict[str, Any]:
    """What a card says of what a model takes."""
    size = models.input_size_of(model)
    if size is None or kind_of(size) != "audio":
        if rate is not None:
            raise TeacherError(f"{model.name} takes images; rate={rate} is for networks that take waveforms.")
        return {"input_size": size}
    known = arguments.get("rate", rate)
    if known is None or rate not in (None, known):
        raise TeacherError(
            f"{model.name} takes waveforms of {size[0]} samples"
            + (", but how many are a second? Give rate, such as rate=16000." if known is None else "")
            + (f" at {known} samples per second; rate={rate} was given. Leave rate out." if known is not None else "")
        )
    front_end = arguments.get("front_end")
    if front_end is not None:
        front_end = {**front_end, "rate": known, "samples": size[0]}
    return {"input_size": size, "kind": "audio", "range": RANGES["audio"], "rate": known, "front_end": front_end}


def load_model(folder: str | Path, dataset: str | None = None) -> tuple[keras.Model, Card]:
    """Load the network of a folder (or of a teacher's name), trainable, with its card.

    Args:
        folder: A folder with ``card.json``, or its name, as for :func:`load_teacher`.
        dataset: The data set it is wanted for.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    if is_address(folder):
        raise TeacherError(f"{folder} answers, but has no weights to load; a folder has.")
    folder = find_folder(folder, dataset, can_train=models.is_known(str(folder)))
    card = Card.load(folder)
    form = _form_of(folder, card)
    if form == "onnx":
        raise TeacherError(
            f"{folder} has only {card.forms[form]} for this backend: a frozen teacher (load_teacher), not a network to "
            "train. Export it with weights.safetensors of a known architecture or as model.keras."
        )
    return _native(folder, card, form), card


def load_teacher(
    folder_or_name: str | Path, dtype: str | None = None, dataset: str | None = None, form: str | None = None
) -> Teacher:
    """Load a teacher from a folder, or by the name of a folder in ``$AIP_TEACHERS`` (default ``./teachers``).

    Args:
        folder_or_name: A folder with ``card.json``, or its name; or the address of an endpoint, such as
            ``http://127.0.0.1:8000``, that speaks as `bridge.teachers.remote` describes.
        dtype: ``"bfloat16"`` for a faster, less precise one; of native forms only.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.
        form: ``"safetensors"``, ``"keras"`` or ``"onnx"``; None: a native one of this backend, else through ONNX (which
            is converted on the first time, in about 20 s, and cached).

    Raises:
        TeacherError: There is no such teacher or form, or its files are damaged, foreign or refused.
    """
    if is_address(folder_or_name):
        asked, about = behind(str(folder_or_name), dtype, form)
        return Teacher(asked, **about)
    folder = find_folder(folder_or_name, dataset, can_train=models.is_known(str(folder_or_name)))
    card = Card.load(folder)
    form = _form_of(folder, card, form)
    if form != "onnx":
        model = _native(folder, card, form)
    elif dtype in (None, "float32"):
        model = from_onnx(folder / card.forms[form], card)
    else:
        raise TeacherError(
            f"dtype={dtype!r} needs a native form, whose weights can be made again in it; of {folder} this backend "
            f"loads {card.forms[form]}, which computes in float32. Leave dtype (--teacher-dtype) out."
        )
    return Teacher(
        model, outputs=card.outputs, class_names=card.class_names, dtype=dtype, digest=card.digest,
        classes=card.classes, input_size=card.input_size, rate=card.rate,
    )  # fmt: skip


def _form_of(folder: Path, card: Card, form: str | None = None) -> str:
    """The form to load: the one asked for, else the first that this backend can."""
    if form is not None and form not in FORMS:
        raise TeacherError(f"form={form!r} must be one of {', '.join(FORMS)}.{hint(form, FORMS)}")
    if form is not None and form not in card.forms:
        raise TeacherError(f"{folder} has no form {form!r}: its card names {', '.join(card.forms) or 'none'}.")
    if form is not None:
        return form
    elsewhere = "onnx" in card.forms
    # Without another way the native form is tried all the same: its error says what is wrong with it.
    if "safetensors" in card.forms and card.architecture and (models.is_known(card.architecture) or not elsewhere):
        return "safetensors"
    if "keras" in card.forms and (not elsewhere or _is_ours(_made_with(folder / card.forms["keras"]))):
        return "keras"
    if elsewhere:
        return "onnx"
    raise TeacherError(
        f"{folder} has no form this backend loads: its card names {', '.join(card.forms) or 'none'}; "
        "expected weights.safetensors with a known architecture, model.keras or model.onnx."
    )


def _native(folder: Path, card: Card, form: str) -> keras.Model:
    path = folder / card.forms[form]
    model = _from_safetensors(path, card) if form == "safetensors" else _from_keras_file(path, card)
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape[-1] not in (None, card.classes):
        raise TeacherError(f"The model in {folder} answers for {shape[-1]} classes, its card says {card.classes}.")
    return model


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
    refuse_code(path, registered_modules())
    made_with = _made_with(path)
    if not _is_ours(made_with):
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


def _made_with(path: Path) -> str:
    """The version of Keras that wrote a ``.keras`` file."""
    metadata = read_json_member(path, "metadata.json")
    return str(metadata.get("keras_version")) if isinstance(metadata, dict) else "unknown"


def _is_ours(version: str) -> bool:
    return version.split(".")[0] == keras.__version__.split(".")[0]


def registered_modules() -> set[str]:
    """Return the modules of all classes registered in this process: running them is the user's own doing."""
    registered = keras.saving.get_custom_objects().values()
    return {getattr(thing, "__module__", "") for thing in registered} - {"builtins", ""}


def _takes_training(function: Callable[..., Any]) -> bool:
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
