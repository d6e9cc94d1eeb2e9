"""Writing a network as ``model.onnx``, the form any framework can load."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bridge.errors import TeacherError
from bridge.files import atomic_write
from bridge.teachers.card import kind_of
from bridge.teachers.folding import folded
from bridge.teachers.onnx_file import BATCH, INPUTS, OUTPUT, TARGET_OPSET
from torch_aip import models

# Of what is traced: the exporter's second batch size, so that no size is taken for a constant of the network.
_ROWS = 2


def to_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    input_size: tuple[int, ...] | None = None,
    channels: int = 3,
    samples: int | None = None,
) -> None:
    """Write a model as a canonical ONNX file: in inference mode, BatchNorm folded, with a dynamic batch.

    The model itself stays as it is, in mode, device and precision.

    Args:
        model: Takes float32 ``[batch, channels, height, width]`` or ``[batch, channels, frames, height, width]`` in
            [0, 1], or waveforms ``[batch, samples]``, and gives ``[batch, classes]``.
        path: The file to write; one that is there is replaced when the new one is whole.
        input_size: Height and width in pixels, or frames, height and width of clips; needed only for models that are
            not of `torch_aip.models`.
        channels: Of the images; other than 3 only for features on their way to becoming canonical.
        samples: Of a waveform, for models that take one.

    Raises:
        TeacherError: The model does not run on such an input, gives something else than scores, or has an operator that
            ONNX does not know; or the file cannot be written.
    """
    if importlib.util.find_spec("onnx") is None:
        raise TeacherError("Writing ONNX needs the package onnx: pip install -r requirements/bridge.txt.")
    size = input_size or models.input_size_of(model)
    if samples is None and (size is None or len(size) not in (2, 3)):
        raise TeacherError(
            f"A {type(model).__name__} does not say which images it takes: give input_size=(height, width), or of "
            "clips (frames, height, width)."
        )
    shape = (_ROWS, samples) if samples is not None else (_ROWS, channels, *(size or ()))
    name = INPUTS[kind_of(size) if samples is None else "audio"]
    try:
        twin = copy.deepcopy(models.plain(model)).cpu().float().eval()
    except Exception as error:  # whatever the parts of a foreign module raise when copied
        raise TeacherError(
            f"The {type(model).__name__} cannot be copied ({_first(error)}); it is exported from a copy."
        ) from error
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    classes = _classes_of(twin, example)
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "model.onnx"
            torch.onnx.export(
                twin,
                (example,),
                raw,
                input_names=[name],
                output_names=[OUTPUT],
                dynamic_axes={name: {0: BATCH}, OUTPUT: {0: BATCH}},
                opset_version=TARGET_OPSET,
                dynamo=False,
            )
            content = _tidied(raw.read_bytes(), classes)
    except OSError as error:
        raise TeacherError(f"{tempfile.gettempdir()} cannot hold what {path} is made of ({error}).") from error
    except Exception as error:  # the exporter, TorchScript and the module each raise their own kinds
        found = re.search(r"operator '([^']+)'", str(error))
        what = f"ONNX has nothing for its operator {found[1]}" if found else _first(error)
        raise TeacherError(
            f"The {type(model).__name__} cannot be written as ONNX with opset {TARGET_OPSET}: {what}. Write that part "
            "of it with plainer operators."
        ) from error
    try:
        atomic_write(Path(path), content)
    except OSError as error:
        raise TeacherError(f"{path} cannot be written ({error}).") from error


def _classes_of(model: nn.Module, example: Tensor) -> int:
    try:
        with torch.no_grad():
            scores: Any = model(example)
    except Exception as error:  # the module's own code
        raise TeacherError(
            f"The {type(model).__name__} does not run on a batch of shape {list(example.shape)} ({_first(error)}). "
            "Check the size of its images."
        ) from error
    if not isinstance(scores, Tensor):
        count = f"{len(scores)} outputs" if isinstance(scores, (list, tuple, dict)) else f"a {type(scores).__name__}"
        raise TeacherError(f"The {type(model).__name__} gives {count}; expected one tensor [batch, classes].")
    if scores.ndim != 2 or len(scores) != len(example):
        raise TeacherError(
            f"The {type(model).__name__} answers a batch of {len(example)} with shape {list(scores.shape)}; expected "
            "[batch, classes]."
        )
    return scores.shape[1]


def _tidied(content: bytes, classes: int) -> bytes:
    """Fold what is constant, and state the number of classes: the exporter does not always see through either."""
    import onnx

    model = folded(onnx.load_model_from_string(content))
    sides = model.graph.output[0].type.tensor_type.shape
    sides.ClearField("dim")
    sides.dim.add().dim_param = BATCH
    sides.dim.add().dim_value = classes
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says of itself: that there is a newer one, and which numbers it takes for constants."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
