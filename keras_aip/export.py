"""Writing a network as ``model.onnx``, the form any framework can load; and reading those that Keras has elsewhere."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from bridge.errors import TeacherError
from bridge.files import atomic_write
from bridge.names import hint
from bridge.teachers.onnx_file import BATCH, INPUTS, OUTPUT, TARGET_OPSET, check_onnx
from bridge.teachers.scan import refuse_code
from keras_aip.teachers import registered_modules

Answer = Callable[[np.ndarray], np.ndarray]
_WHITE = 255.0  # keras.applications takes pixels in [0, 255] before its `preprocess_input`


def to_onnx(model: keras.Model, path: str | Path, *, image_size: int | None = None) -> None:
    """Write a model as a canonical ONNX file: in inference mode, BatchNorm folded, with a dynamic batch.

    Args:
        model: Functional or sequential. Takes float32 ``[batch, height, width, channels]``, which the file takes as
            ``images``, ``[batch, channels, height, width]``; or waveforms ``[batch, samples]``. Gives ``scores``,
            ``[batch, classes]``.
        path: The file to write; one that is there is replaced when the new one is whole.
        image_size: Height and width in pixels, where the model leaves them open.

    Raises:
        TeacherError: The model does not say its input's shape, has an operation that ONNX does not know (it is named),
            or the file cannot be written.
    """
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4:
        shape = (shape[0], *(side or image_size for side in shape[1:3]), shape[3])
    if not isinstance(shape, tuple) or len(shape) not in (2, 4) or None in shape[1:]:
        raise TeacherError(
            f"{model.name} takes {shape}; expected [batch, height, width, channels] or [batch, samples], of fixed "
            "size. Give the side in pixels with --image-size."
        )
    name = INPUTS["image" if len(shape) == 4 else "audio"]
    spec = tf.TensorSpec([None, *shape[1:]], tf.float32, name=name)

    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: tf.cast(_only(model(x, training=False)), tf.float32)}

    _write(answer, spec, path, model.name, nchw=len(shape) == 4)


def saved_model_to_onnx(folder: str | Path, path: str | Path, *, signature: str = "serving_default") -> Answer:
    """Write a SavedModel's signature as an ONNX file, as it is: its own layout and range. Loading one can run code.

    Args:
        folder: With ``saved_model.pb``; its signature takes and gives one tensor.
        path: The file to write.
        signature: Its name.

    Returns:
        The original, as a function of what the file takes.

    Raises:
        TeacherError: It cannot be loaded, has no such signature or several inputs or outputs, or cannot be converted.
    """
    try:
        loaded: Any = tf.saved_model.load(str(folder))
    except Exception as error:  # whatever reading a foreign graph raises
        raise TeacherError(f"{folder} cannot be loaded as a SavedModel ({_first(error)}).") from error
    signatures = dict(loaded.signatures)
    if signature not in signatures:
        known = ", ".join(signatures) or "none"
        raise TeacherError(f"{folder} has no signature {signature!r}; it has {known}.{hint(signature, signatures)}")
    function = signatures[signature]
    given, gives = function.structured_input_signature[1], function.structured_outputs
    if len(given) != 1 or len(gives) != 1:
        raise TeacherError(
            f"Signature {signature!r} of {folder} takes {', '.join(given)} and gives {', '.join(gives)}; expected one "
            "input, the images or waveforms, and one output, the scores."
        )
    ((name, spec),) = given.items()

    # With its constants inside: those a function took from around it would not be found within another one.
    frozen = convert_variables_to_constants_v2(function)

    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = frozen(x)
        return {OUTPUT: scores[0] if isinstance(scores, (list, tuple)) else scores}

    sides = [None, *spec.shape[1:]] if spec.shape.rank else spec.shape
    _write(answer, tf.TensorSpec(sides, spec.dtype, name=name), path, str(folder), nchw=False)
    # The original itself, not what was made of it.
    return lambda x: next(iter(function(**{name: tf.cast(x, spec.dtype)}).values())).numpy()


def tflite_to_onnx(file: str | Path, path: str | Path) -> Answer:
    """Write a TFLite file as an ONNX file, as it is: its own layout and range.

    Args:
        file: A float one: weights and what is computed are float32.
        path: The file to write.

    Returns:
        The original, as a function of what the file takes.

    Raises:
        TeacherError: It is damaged or quantised, or has an operation that ONNX does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it moves to another package
            interpreter = tf.lite.Interpreter(str(file))
            details = interpreter.get_tensor_details()
    except Exception as error:  # ValueError for most, RuntimeError and OSError for some
        raise TeacherError(f"{file} is not a readable TFLite file ({_first(error)}).") from error
    quantised = [str(detail["name"]) for detail in details if detail["quantization_parameters"]["scales"].size]
    if quantised:
        raise TeacherError(
            f"{file} is quantised (tensor {quantised[0]!r} and {len(quantised) - 1} others); only float TFLite files "
            "cross. Export the float network it was made from."
        )
    with _converting(str(file)) as convert:
        proto, _ = convert.from_tflite(str(file), opset=TARGET_OPSET)
    _save(proto, path, str(file))

    def answer(x: np.ndarray) -> np.ndarray:
        (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(gives["index"])

    return answer


def keras_file(path: str | Path) -> keras.Model:
    """Load a ``.keras`` or ``.h5`` file, once it is known to hold no code.

    Raises:
        TeacherError: It holds a Lambda or a foreign class, or is damaged, or another Keras wrote it.
    """
    path = Path(path)
    refuse_code(path, registered_modules())
    try:
        # An .h5 file has no code left in it by now, and Keras 2 has no safe mode for it.
        safe = {"safe_mode": True} if path.suffix == ".keras" else {}
        model: Any = keras.models.load_model(path, compile=False, **safe)
        return model
    except Exception as error:  # Keras lets through whatever its layers, h5py and TensorFlow raise.
        raise TeacherError(
            f"{path} cannot be loaded by Keras {keras.__version__} ({_first(error)}). A .keras file is read only by "
            "the Keras (2 or 3) that wrote it; layers of your own must be imported first."
        ) from error


def application(name: str) -> tuple[keras.Model, dict[str, Any]]:
    """Build a network of `keras.applications` with its ImageNet weights, which are downloaded the first time.

    Args:
        name: Such as ``MobileNetV2``.

    Returns:
        The model, which takes RGB (one that was trained on BGR is turned round inside) and gives logits; and the
        ``range``, ``mean`` and ``std`` of what it takes, as its own `preprocess_input` makes it, with ``licence``.

    Raises:
        TeacherError: There is none of that name, or its weights are neither here nor can be fetched.
    """
    builders = {key: value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    if name not in builders:
        known = ", ".join(sorted(builders))
        raise TeacherError(f"keras.applications has no {name!r}; it has {known}.{hint(name, builders)}")
    builder = builders[name]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        model = builder(weights="imagenet", classifier_activation=None)
    except Exception as error:  # urllib's, Keras' own for a broken download, and others
        raise TeacherError(
            f"keras.applications {name} needs its ImageNet weights, which could not be fetched ({_first(error)}). They "
            f"come from storage.googleapis.com and are kept in {home / 'models'}: connect to the internet once, or put "
            "the file there."
        ) from error
    turned, facts = _preprocessing(sys.modules[builder.__module__].preprocess_input)
    if turned:
        images: Any = keras.Input(model.input_shape[1:], dtype="float32", name="images")
        model = keras.Model(images, model(images[:, :, :, ::-1]), name=model.name)
    return model, {**facts, "licence": "Apache-2.0"}


def _preprocessing(preprocess: Callable[[np.ndarray], Any]) -> tuple[bool, dict[str, Any]]:
    """Whether a `preprocess_input` turns RGB round, and what it makes of [0, 1]: it scales and shifts each channel."""
    black, white = (np.asarray(preprocess(np.full((1, 1, 1, 3), value, np.float32))).ravel() for value in (0, _WHITE))
    red = np.asarray(preprocess(np.array([[[[_WHITE, 0, 0]]]], np.float32))).ravel()
    turned = bool(red[0] == black[0])
    low, high = ([float(value) for value in (ends[::-1] if turned else ends)] for ends in (black, white))
    if len(set(low)) == len(set(high)) == 1:
        return turned, {"range": (low[0], high[0])}
    std = tuple(1 / (end - start) for start, end in zip(low, high))
    return turned, {"range": (0.0, 1.0), "mean": tuple(-start * by for start, by in zip(low, std)), "std": std}


def _write(answer: Callable[..., Any], given: tf.TensorSpec, path: str | Path, what: str, *, nchw: bool) -> None:
    with _converting(what) as convert:
        traced = tf.function(answer, autograph=False)
        proto, _ = convert.from_function(
            traced, input_signature=[given], opset=TARGET_OPSET, inputs_as_nchw=[given.name] if nchw else None
        )
    _save(proto, path, what)


@contextlib.contextmanager
def _converting(what: str) -> Iterator[Any]:
    """tf2onnx, quiet; whatever goes wrong inside becomes a message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tf2onnx.convert
    except ImportError as error:
        raise TeacherError(
            "Writing ONNX from TensorFlow needs the package tf2onnx: pip install -r requirements/bridge.txt."
        ) from error
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield tf2onnx.convert
    except Exception as error:  # tf2onnx asserts, and lets through what TensorFlow raises
        raise TeacherError(f"{what} cannot be written as ONNX ({_first(error)}).") from error
    finally:
        logger.setLevel(before)


def _save(proto: Any, path: str | Path, what: str) -> None:
    """Give the batch its name, check what came out, and write it."""
    for value in (*proto.graph.input, *proto.graph.output):
        first = value.type.tensor_type.shape.dim[:1]
        if first and not first[0].dim_value:
            first[0].dim_param = BATCH
    check_onnx(proto, what, source=True)
    try:
        atomic_write(Path(path), proto.SerializeToString())
    except (OSError, ValueError) as error:  # ValueError: beyond the 2 GB of an ONNX file
        raise TeacherError(f"{path} cannot be written ({error}).") from error


def _only(answer: Any) -> Any:
    """The one tensor a model gives, whatever it is wrapped in."""
    values = list(answer.values()) if isinstance(answer, dict) else answer
    if isinstance(values, (list, tuple)):
        if len(values) != 1:
            raise TeacherError(f"The model gives {len(values)} outputs; expected one, the class scores.")
        return values[0]
    return values


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
