"""A network for sounds in 8 bits: its front end stays float, in a TensorFlow Lite file of its own.

Fourier products and a logarithm do not survive 8 bits. What follows them takes int8 features and gives int8 scores,
which is what a microcontroller computes with; both files say their scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from bridge.errors import TeacherError
from bridge.teachers import spectra
from bridge.teachers.card import Card
from bridge.teachers.forms import front_end_beside
from bridge.teachers.front_end import FrontEnd, front_end_of
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference
from keras_aip.forms import interpreter_of, write_tflite
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_teacher

# Of the features of the views, in percent: what lies outside, above all silence, whose logarithm is far below all else,
# takes the values at the ends. With all of it within 8 bits, steps between the others would be twice as wide. Ours.
_HEARD = (0.5, 99.95)
_COMPARED = 8
_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Einsum")


class Part(NamedTuple):
    """A tensor of int8, each of which stands for ``step * (value - zero)``."""

    shape: tuple[int, ...]
    step: float
    zero: int

    def to_int8(self, x: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(x / self.step) + self.zero, -128, 127).astype(np.int8)

    def to_float(self, values: np.ndarray) -> np.ndarray:
        return np.float32(self.step) * (values.astype(np.float32) - self.zero)


def to_int8(folder: str | Path, card: Card, out: str | Path, examples: Iterable[np.ndarray]) -> None:
    """Write a folder's network for sounds as two files, each for one sound at a time.

    ``out`` takes int8 features ``[1, frames, features]`` and gives int8 scores ``[1, classes]``. The file of
    `front_end_beside` takes a float32 waveform ``[1, samples]`` in [-1, 1] and gives float32 ``[1, frames, features]``.

    Args:
        folder: The folder.
        card: Its card, which has to describe a front end.
        out: The file to write; its front end is written beside it.
        examples: Waveforms float32 ``[1, samples]``, whose features weights and activations are calibrated on.

    Raises:
        TeacherError: There is no front end, the network cannot be parted behind it, TensorFlow Lite cannot express it,
            or a file cannot be written.
    """
    if card.front_end is None or card.input_size is None:
        raise TeacherError(
            f"The card of {folder} describes no front end, and waveforms do not survive 8 bits: int8 begins behind it. "
            "Export the network with --front-end, or convert it to float tflite."
        )
    front_end = front_end_of(card.front_end)
    heard, teacher = _heard(front_end), load_teacher(folder)
    network = _behind(folder, teacher, front_end)
    features, compared = [], 0
    for waveform in examples:
        features.append(heard(tf.constant(waveform)).numpy())
        if compared < _COMPARED:
            compared += 1
            whole, parts = teacher.scores(waveform).numpy(), network(features[-1]).numpy()
            if not relative_difference(whole, parts) <= LARGEST_DIFFERENCE:
                raise _inseparable(folder, "what follows it answers otherwise than the whole does")
    write_tflite(heard, front_end_beside(out), folder)
    low, high = np.percentile(features, _HEARD).astype(np.float32)
    write_tflite(network, out, folder, [values.clip(low, high) for values in features], np.int8)


def parts_of(path: str | Path) -> tuple[Part, Part]:
    """The features that a file of `to_int8` takes, and the scores it gives."""
    interpreter = interpreter_of(path)
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    features, scores = (Part(tuple(each["shape"].tolist()), *each["quantization"]) for each in (given, gives))
    return features, scores


def run_int8(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """The two files of `to_int8` as a function of a batch of waveforms, asked one by one, giving the scores."""
    first, second = interpreter_of(front_end_beside(path)), interpreter_of(path)
    features, scores = parts_of(path)

    def run(waveforms: np.ndarray) -> np.ndarray:
        rows = [_asked(second, features.to_int8(_asked(first, waveform[None]))) for waveform in waveforms]
        return scores.to_float(np.concatenate(rows))

    return run


def _asked(interpreter: Any, x: np.ndarray) -> np.ndarray:
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(gives["index"])


def _heard(front_end: FrontEnd) -> Any:
    """The front end of one waveform, float32 [1, samples]: 50 kB with a Fourier transform, where products take 1 MB."""
    bases, frames, hop, fft = front_end.bases(), front_end.frames, front_end.hop, front_end.transform
    hops = -(-front_end.window // hop)
    count, bins = frames - 1 + hops, slice(bases.first, bases.first + len(bases.mel))
    window = np.pad(spectra.hann(front_end.window), (0, hops * hop - front_end.window)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([1, front_end.samples], tf.float32, name="waveform")], autograph=False)
    def heard(x: tf.Tensor) -> tf.Tensor:
        x = tf.pad(x[:, : count * hop], [[0, 0], [0, max(0, count * hop - front_end.samples)]])
        x = tf.reshape(x, [count, hop])
        x = tf.concat([x[first : first + frames] for first in range(hops)], axis=1) * window
        spectrum = tf.signal.rfft(x[:, :fft], [fft])
        x = (tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum)))[:, bins]
        x = tf.maximum(tf.matmul(tf.sqrt(x) if bases.root else x, bases.mel), bases.smallest)
        x = tf.math.log(x if bases.largest is None else tf.minimum(x, bases.largest))
        x = x if bases.cosines is None else tf.matmul(x, bases.cosines)
        return tf.identity(x[None], "features")

    return heard


def _behind(folder: str | Path, teacher: Teacher, front_end: FrontEnd) -> Any:
    """What follows the front end, a function of features float32 [1, frames, features]: of any form of a network."""
    given = [tf.TensorSpec([1, front_end.samples], tf.float32)]
    whole = tf.function(teacher.scores, input_signature=given, autograph=False)
    frozen = convert_variables_to_constants_v2(whole.get_concrete_function(), lower_control_flow=False)
    features = _features_in(folder, frozen.graph, front_end)
    definition, end = frozen.graph.as_graph_def(), frozen.outputs[0]
    nodes = {node.name: node for node in definition.node}
    needed, waiting = set(), [end.op.name]
    while waiting:
        name = waiting.pop()
        if name in needed or name == features.op.name:
            continue
        if nodes[name].op == "Placeholder":
            raise _inseparable(folder, "the network hears the waveform itself as well")
        needed.add(name)
        waiting += [source.removeprefix("^").partition(":")[0] for source in nodes[name].input]
    del definition.node[:]
    definition.node.extend(node for name, node in nodes.items() if name in needed)
    taken = tf.TensorSpec([1, front_end.frames, front_end.features], tf.float32, name="features")

    @tf.function(input_signature=[taken], autograph=False)
    def network(x: tf.Tensor) -> tf.Tensor:
        shaped = tf.reshape(x, features.shape)
        (scores,) = tf.graph_util.import_graph_def(definition, {features.name: shaped}, [end.name], name="network")
        return tf.identity(scores, "scores")

    return network


def _features_in(folder: str | Path, graph: Any, front_end: FrontEnd) -> Any:
    """Where the features are in the graph of a network: the logarithm, and what a cosine transform makes of it."""
    op = next((op for op in graph.get_operations() if op.type == "Log"), None)
    if op is None:
        raise _inseparable(folder, "it has no logarithm")
    count, wanted = front_end.frames * front_end.features, front_end.kind == "mfcc"
    while wanted or op.outputs[0].shape.num_elements() != count:
        following = op.outputs[0].consumers()
        if len(following) != 1 or not following[0].outputs:
            raise _inseparable(folder, f"after {op.name} the graph forks")
        (op,) = following
        wanted = wanted and op.type not in _PRODUCTS
    return op.outputs[0]


def _inseparable(folder: str | Path, why: str) -> TeacherError:
    return TeacherError(
        f"{folder} cannot be parted behind its front end, where int8 has to begin: {why}. Convert it to float tflite."
    )
