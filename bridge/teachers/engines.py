"""Everything on this machine that can run a teacher folder, each as a function from arrays to arrays."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bridge.child import error_in, run_child
from bridge.errors import TeacherError
from bridge.shell import quiet_start
from bridge.teachers.card import Card
from bridge.teachers.onnx_file import read_onnx
from bridge.teachers.onnx_graph import name_nodes
from bridge.teachers.runtime import Runtime
from bridge.teachers.scan import read_json_member
from bridge.teachers.wrapped import SMALLEST_PROBABILITY

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """A way to run a teacher folder.

    Attributes:
        form: The form of the card it runs.
        packages: What must be importable.
        load: (folder, card) -> a function of images float32 [batch, height, width, 3] in [0, 1] (or clips float32
            [batch, frames, height, width, 3], or waveforms float32 [batch, samples] in [-1, 1]) that gives scores
            float32 [batch, classes]: logits, probabilities not below 1e-7, or labels one-hot.
        lacks: card, folder -> why this form cannot be run here although the packages are there, or None.
        convert: Path of an ONNX file with the input of `model.onnx` and any [batch, n] output -> a function of that
            input (images NCHW), made by the same converter; None for native forms.
        xla: Whether it is compiled by XLA.
    """

    form: str
    packages: tuple[str, ...]
    load: Callable[[Path, Card], Run]
    lacks: Callable[[Path, Card], str | None] = lambda folder, card: None
    convert: Callable[[Path], Run] | None = None
    xla: bool = False

    def missing(self, folder: Path, card: Card) -> str | None:
        """Why it cannot be had here, or None."""
        if self.form not in card.forms:
            return f"the folder has no form {self.form}"
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        return self.lacks(folder, card)


def versions() -> dict[str, str]:
    """The version of each package at work here that is installed."""
    found = {}
    for name in ("numpy", "onnx", "onnxruntime", "onnx2tf", "tensorflow", "keras", "torch", "onnx2torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _by_onnxruntime(folder: Path, card: Card) -> Run:
    path = folder / card.forms["onnx"]
    read_onnx(path)
    runtime = Runtime(path)

    def run(x: np.ndarray) -> np.ndarray:
        scores = runtime(channels_first(x))
        if card.outputs == "logits":
            return scores
        if card.outputs == "labels" and scores.shape[1] == 1:
            scores = np.eye(card.classes, dtype=np.float32)[scores[:, 0].astype(np.int64)]
        return np.maximum(scores, SMALLEST_PROBABILITY)

    return run


def _by_keras(form: str, xla: bool = False) -> Callable[[Path, Card], Run]:
    def load(folder: Path, card: Card) -> Run:
        import tensorflow as tf

        from keras_aip.teachers import load_teacher

        teacher = load_teacher(folder, form=form)
        answer = tf.function(lambda x: teacher(x), jit_compile=xla or None)

        @cache
        def traced(batch: int | None) -> Any:
            graph = answer.get_concrete_function(tf.TensorSpec([batch, *sample_shape(card)], tf.float32))
            if xla:
                with quiet_start():  # XLA logs as it compiles, which the first call does
                    graph(tf.zeros([batch, *sample_shape(card)]))
            return graph

        # One graph for every batch size; XLA makes one for each, and shapes are known within, as in training.
        return lambda x: _scores(traced(len(x) if xla else None)(tf.constant(x)).numpy(), card)

    return load


def _by_torch(form: str) -> Callable[[Path, Card], Run]:
    def load(folder: Path, card: Card) -> Run:
        import torch

        from torch_aip.teachers import load_teacher

        teacher = load_teacher(folder, form=form)

        def run(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return _scores(teacher(torch.from_numpy(channels_first(x))).cpu().numpy(), card)

        return run

    return load


def sample_shape(card: Card) -> tuple[int, ...]:
    """One image, (height, width, 3), one clip, (frames, height, width, 3), or one waveform, (samples,).

    Raises:
        TeacherError: The card does not tell.
    """
    size = card.input_size
    if size is None and isinstance(side := card.arguments.get("image_size"), int):
        size = (side, side)
    if size is None:
        raise TeacherError("The card gives no input_size, so there is nothing to ask. Export it with an image size.")
    return tuple(size) if card.kind == "audio" else (*size, 3)


def channels_first(x: np.ndarray) -> np.ndarray:
    """NHWC -> NCHW, clips likewise; waveforms as they are."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 3 else x


def _scores(answer: np.ndarray, card: Card) -> np.ndarray:
    # Teachers answer in log space.
    return answer if card.outputs == "logits" else np.exp(answer)


def _unknown_to(backend: str) -> Callable[[Path, Card], str | None]:
    def lacks(folder: Path, card: Card) -> str | None:
        models = importlib.import_module(f"{backend}.models")
        known = card.architecture is not None and models.is_known(card.architecture)
        return None if known else f"{backend} does not know the architecture {card.architecture!r}"

    return lacks


def _too_slow_for_clips(folder: Path, card: Card) -> str | None:
    # On two cores XLA took 9 s for each size of batch, then 4 times as long as TensorFlow without it for an R3D-18 and
    # 19 times for an X3D-XS; the answers were alike.
    return "of clips not asked: on a processor XLA answers them many times slower" if card.kind == "video" else None


def _of_other_keras(folder: Path, card: Card) -> str | None:
    described = read_json_member(folder / card.forms["keras"], "metadata.json")
    made_with = str(described.get("keras_version")) if isinstance(described, dict) else "unknown"
    here = metadata.version("keras")
    return None if made_with.split(".")[0] == here.split(".")[0] else f"saved by Keras {made_with}, this is {here}"


def _converted_for_tensorflow(xla: bool) -> Callable[[Path], Run]:
    def convert(path: Path) -> Run:
        import tensorflow as tf

        from bridge.teachers.convert_child import PROGRAM

        with tempfile.TemporaryDirectory() as folder:
            copy, saved, log = Path(folder) / "model.onnx", Path(folder) / "saved", Path(folder) / "log"
            shutil.copyfile(path, copy)
            log.touch()
            # Not through the cache, which takes in nothing that answers otherwise than onnxruntime.
            run_child("bridge.teachers.convert_child", [str(copy), str(saved)], log, lambda: None)
            if not (saved / "saved_model.pb").exists():
                raise TeacherError(error_in(log, 0, PROGRAM))
            loaded: Any = tf.saved_model.load(str(saved))
        signature = loaded.signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]

        def run(x: np.ndarray, kept: Any = loaded) -> np.ndarray:  # its functions live no longer than it does
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim > 3 else x
            answer = signature
            if xla:
                traced = tf.function(lambda **given: signature(**given), jit_compile=True)
                answer = traced.get_concrete_function(**{name: tf.TensorSpec(x.shape, tf.float32, name=name)})
            return next(iter(answer(**{name: tf.constant(x)}).values())).numpy()

        return run

    return convert


def _converted_for_torch(path: Path) -> Run:
    import onnx
    import torch

    from torch_aip import compat

    # Not through torch_aip.models.from_onnx, which gives out nothing that answers otherwise than onnxruntime.
    compat.torchvision()  # onnx2torch imports it
    import onnx2torch

    model = onnx.load(path)
    name_nodes(model)
    module = onnx2torch.convert(model).eval()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine("onnx", ("onnx", "onnxruntime"), _by_onnxruntime),
    "keras_safetensors": Engine(
        "safetensors", ("tensorflow", "keras"), _by_keras("safetensors"), _unknown_to("keras_aip")
    ),
    "keras_file": Engine("keras", ("tensorflow", "keras"), _by_keras("keras"), _of_other_keras),
    "torch_safetensors": Engine("safetensors", ("torch",), _by_torch("safetensors"), _unknown_to("torch_aip")),
    "tensorflow_onnx": Engine(
        "onnx", ("tensorflow", "onnx2tf", "onnxruntime"), _by_keras("onnx"), convert=_converted_for_tensorflow(False)
    ),
    "tensorflow_onnx_xla": Engine(
        "onnx",
        ("tensorflow", "onnx2tf", "onnxruntime"),
        _by_keras("onnx", xla=True),
        _too_slow_for_clips,
        convert=_converted_for_tensorflow(True),
        xla=True,
    ),
    "torch_onnx": Engine("onnx", ("torch", "onnx2torch"), _by_torch("onnx"), convert=_converted_for_torch),
}
