"""Teachers that other people trained, and the real data to measure them on, for a test and a benchmark.

The folder of the environment variable AIP_DATA holds `teachers/` (state dicts, weights and the few lines of Python that
define the networks), `cifar10/` (contact sheets), `imagenet/` (a zip of pictures), `speech/` (a FLAC) and the functions
that read these, `read_data.py`; none of it is part of this project.
"""

from __future__ import annotations

import runpy
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.teachers.export import export
from bridge.teachers.options import ExportConfig

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Data = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class RealTeacher:
    """How a teacher is exported, and what it is measured on.

    Attributes:
        export: (data folder, folder to write).
        test_data: data folder → images float32 [n, h, w, 3] in [0, 1], or waveforms [n, samples]; labels [n].
        files: what must be there.
    """

    export: Callable[[Path, Path], Any]
    test_data: Callable[[Path], Data]
    files: tuple[str, ...]


def compare(folder: Path, inputs: np.ndarray, labels: np.ndarray, batch: int = 100) -> dict[str, float]:
    """Ask Keras and PyTorch, both through model.onnx, the same."""
    import tensorflow as tf
    import torch

    import keras_aip
    import torch_aip

    in_keras, in_torch = keras_aip.load_teacher(folder, form="onnx"), torch_aip.load_teacher(folder, form="onnx")
    graph = tf.function(in_keras.__call__, input_signature=[tf.TensorSpec([None, *inputs.shape[1:]], tf.float32)])
    a, b = [], []
    for first in range(0, len(inputs), batch):
        x = inputs[first : first + batch]
        a.append(graph(tf.constant(x)).numpy())
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim == 4 else x)
        with torch.inference_mode():
            b.append(in_torch(torch.from_numpy(x)).numpy())
    first, second = np.concatenate(a), np.concatenate(b)
    return {
        "n": len(inputs),
        "keras_top1": float((first.argmax(1) == labels).mean()),
        "torch_top1": float((second.argmax(1) == labels).mean()),
        "agreement": float((first.argmax(1) == second.argmax(1)).mean()),
        "difference": float(np.abs(first - second).max()),
        "largest": float(np.abs(first).max()),
    }


def _resnet(depth: int) -> RealTeacher:
    file = f"teachers/cifar10_resnet{depth}.pt"

    def write(data: Path, out: Path) -> None:
        weights = str(data / file)
        export(ExportConfig(model=f"resnet{depth}", weights=weights, dataset="cifar10", out=str(out), **IMAGENET))

    return RealTeacher(write, cifar10, (file, "cifar10/cifar10_test_sheets.npz"))


def cifar10(data: Path) -> Data:
    """All 10,000 test images."""
    images, labels, _ = _reader(data).cifar10(data / "cifar10", "test")
    return images.astype(np.float32) / 255, labels.astype(np.int64)


def imagenet(data: Path) -> Data:
    """400 pictures, one per class: short side 256 already, the middle 224 pixels."""
    images, labels = [], []
    (path,) = (data / "imagenet").glob("*.zip")
    for picture, label, _ in _reader(data).imagenet_samples(path):
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        images.append(np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255)
        labels.append(label)
    return np.stack(images), np.array(labels)


def speech(data: Path) -> Data:
    """1,440 clips of a second."""
    (path,) = (data / "speech").glob("*.flac")
    audio, labels, _, _ = _reader(data).speech_commands(path)
    return audio.astype(np.float32) / 32768, labels.astype(np.int64)


def _reader(data: Path) -> Any:
    """The functions that read the folder's containers; they lie in it."""
    return types.SimpleNamespace(**runpy.run_path(str(data / "read_data.py")))


def _mobilenet(data: Path, out: Path) -> None:
    folder = data / "teachers"
    export(
        ExportConfig(
            model=f"{folder / 'mobilenetv2_tf.py'}:load_teacher", arguments=(f"npz={folder / 'mobilenetv2_int8.npz'}",),
            trust=True, range=(-1.0, 1.0), image_size=224, out=str(out),
        )
    )  # fmt: skip


def _dscnn(data: Path, out: Path) -> None:
    folder = data / "teachers"
    export(
        ExportConfig(
            model=f"{folder / 'dscnn_keras.py'}:load_teacher", arguments=(f"npz={folder / 'dscnn_l_weights.npz'}",),
            trust=True, front_end="mfcc", out=str(out),
        )
    )  # fmt: skip


TEACHERS = {
    "resnet20": _resnet(20),
    "resnet56": _resnet(56),
    "mobilenetv2": RealTeacher(_mobilenet, imagenet, ("teachers/mobilenetv2_tf.py", "imagenet")),
    "dscnn": RealTeacher(_dscnn, speech, ("teachers/dscnn_keras.py", "speech")),
}
