"""What only TensorFlow writes: a network as a SavedModel or as TensorFlow Lite, and the latter run again."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.files import atomic_write
from bridge.teachers.card import Card
from bridge.teachers.saved_model import write_saved_model
from keras_aip.teachers import load_teacher

NAMES = {"image": "images", "audio": "waveform", "video": "clips"}


def to_saved_model(folder: str | Path, card: Card, out: str | Path) -> None:
    """Write a teacher's or student's folder as a SavedModel.

    Its signature ``serving_default`` takes ``images`` float32 ``[batch, height, width, 3]`` in [0, 1] (of audio
    ``waveform`` ``[batch, samples]`` in [-1, 1]) and gives ``scores`` float32 ``[batch, classes]``.

    Args:
        folder: The folder.
        card: Its card.
        out: A folder to be made. Written piece by piece: `bridge convert` puts it in its place when it is whole.

    Raises:
        TeacherError: It cannot be loaded or written.
    """
    teacher, shape = load_teacher(folder), _shape_of(folder, card, None)
    out = Path(out)
    try:
        write_saved_model(teacher.scores, NAMES[card.kind], shape, out)
        out.chmod(0o755)
    except (OSError, tf.errors.OpError) as error:  # TensorFlow's own kinds say of a full disk: unknown
        raise TeacherError(f"{out} cannot be written ({_first(error)}). Choose another --out.") from error


def to_tflite(folder: str | Path, card: Card, out: str | Path, examples: Iterable[np.ndarray] | None = None) -> None:
    """Write a teacher's or student's folder as a TensorFlow Lite file that answers one image or sound at a time.

    Args:
        folder: The folder.
        card: Its card.
        out: The file to write.
        examples: float32 ``[1, height, width, 3]`` each; with them weights and activations become int8, calibrated on
            them; what goes in and comes out stays float32. Not of sounds: see `keras_aip.int8_audio`.

    Raises:
        TeacherError: TensorFlow Lite cannot express it, or the file cannot be written.
    """
    teacher = load_teacher(folder)
    given = tf.TensorSpec(_shape_of(folder, card, 1), tf.float32, name=NAMES[card.kind])
    function = tf.function(lambda x: tf.identity(teacher.scores(x), "scores"), input_signature=[given], autograph=False)
    write_tflite(function, out, folder, examples)


def write_tflite(
    function: Any,
    out: str | Path,
    folder: str | Path,
    examples: Iterable[np.ndarray] | None = None,
    outside: Any = np.float32,
) -> None:
    """Write a traced function of one tensor as a TensorFlow Lite file.

    Args:
        function: A ``tf.function`` with an input signature.
        out: The file to write.
        folder: Where it comes from, for messages.
        examples: What it takes; with them weights and activations become int8, calibrated on them.
        outside: What goes in and comes out, then: float32 or int8.

    Raises:
        TeacherError: TensorFlow Lite cannot express it, or the file cannot be written.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function)
    if examples is not None:
        kept = list(examples)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([example] for example in kept)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(outside)
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no statistics, which the examples give
            content = converter.convert()
    except Exception as error:  # the converter's own class, and whatever MLIR raises
        raise TeacherError(f"TensorFlow Lite cannot express {folder} ({_first(error)}).") from error
    try:
        atomic_write(Path(out), content)
    except OSError as error:
        raise TeacherError(f"{out} cannot be written ({error}). Choose another --out.") from error


def run_saved_model(path: str | Path, card: Card) -> Callable[[np.ndarray], np.ndarray]:
    """A SavedModel of `to_saved_model` as a function of a batch, giving the scores."""
    loaded: Any = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    # A signature does not keep what it belongs to alive.
    return lambda x, kept=loaded: signature(**{NAMES[card.kind]: tf.constant(x)})["scores"].numpy()


def run_tflite(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """A file of `to_tflite` as a function of a batch, asked one by one, giving the scores."""
    interpreter = interpreter_of(path)
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        rows = []
        for row in x:
            interpreter.set_tensor(given["index"], row[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(gives["index"]))
        return np.concatenate(rows)

    return run


def interpreter_of(path: str | Path) -> Any:
    """A TensorFlow Lite file, ready to be asked."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # its home since TensorFlow 2.20
    except ImportError:
        Interpreter = tf.lite.Interpreter
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter


def _shape_of(folder: str | Path, card: Card, batch: int | None) -> list[int | None]:
    if card.input_size is None:
        raise TeacherError(f"The card of {folder} gives no input_size; this form needs one.")
    return [batch, *card.input_size, *([] if card.kind == "audio" else [3])]


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the converter prints past Python."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
