"""The `convert` command: a teacher or student in yet another form, compared with the original on views."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import ConfigError, TeacherError
from bridge.files import replacing, sync_folder
from bridge.teachers.accuracy import accuracies
from bridge.teachers.card import FORMS, Card, place_beside
from bridge.teachers.engines import ENGINES, Run, channels_first
from bridge.teachers.onnx_file import read_onnx
from bridge.teachers.options import ConvertConfig
from bridge.teachers.probes import Probes, batch_of, views_of
from bridge.teachers.runtime import Runtime
from bridge.teachers.shelf import find_folder
from bridge.teachers.sources import needed
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference

# Native forms first: they are what the others were made of.
ORIGINALS = ("keras_safetensors", "keras_file", "torch_safetensors", "onnxruntime")
SUFFIXES = {"saved_model": "_saved_model", "tflite": ".tflite", "tflite_int8": "_int8.tflite"}
TENSORFLOW = (("tensorflow", "keras"), "requirements/keras3.txt")


def convert(config: ConvertConfig) -> list[str]:
    """Write one more form of a folder's network.

    Args:
        config: resolved options.

    Returns:
        What was written, and how it compares, in sentences.

    Raises:
        AipError: of the kind that names what is wrong; also where the new form answers otherwise than the original.
    """
    if config.model is None:
        raise ConfigError("Which folder? Give --model FOLDER.")
    folder = find_folder(config.model)
    card = Card.load(folder)
    inside = config.to in FORMS
    default = folder / FORMS[config.to] if inside else folder.with_name(folder.name + SUFFIXES[config.to])
    out = Path(config.out) if config.out else default
    if out != default or not inside:  # a model.onnx the card does not name is what a killed conversion left
        _refuse_place(out, config.to)
    in_parts = config.to == "tflite_int8" and card.kind == "audio"
    if in_parts:
        _refuse_place(front_end_beside(out), config.to)
    if config.to in card.forms:
        if config.dataset is not None:
            raise ConfigError(f"{folder} holds {card.forms[config.to]} already: measure it with `evaluate`.")
        if config.out is None:
            return [f"{folder} holds {card.forms[config.to]} already, as its card says."]
        _copy(folder / card.forms[config.to], out)
        return [f"Written to {out}, a copy of {folder / card.forms[config.to]}."]
    name, original = _original(folder, card)
    views = views_of(card, config.views, 512)
    probes = Probes(card, config.image, 2 * views, config.seed, config.videos, config.audio)
    with _taking_place_of(out) as beside:
        run = WRITERS[config.to](folder, card, beside, probes, views, name)
        compared = _compared(config, out, name, original, run, probes, batch_of(card, None))
    lines = [_written(out), compared]
    if in_parts:
        lines += _parts(out)
    if inside and out == default:
        new = dataclasses.replace(card, forms={**card.forms, config.to: FORMS[config.to]}).sealed(folder)
        new.save(folder)
        lines.append(f"The card of {folder} names it now.")
    if config.dataset is not None:
        before, after = accuracies([original, run], card, config.dataset, config.data_dir)
        lines.append(
            f"Top-1 on {after['n']:,} of {after['dataset']}: {after['top1']:.2%}; {name} {before['top1']:.2%}."
        )
    return lines


def front_end_beside(path: str | Path) -> Path:
    """Where the front end of an int8 network for sounds lies: ``x.tflite`` -> ``x_front_end.tflite``."""
    path = Path(path)
    return path.with_name(f"{path.stem}_front_end.tflite")


def _written(out: Path) -> str:
    size = "" if out.is_dir() else f", {out.stat().st_size:,} bytes"
    return f"Written to {out}{size}."


def _parts(out: Path) -> list[str]:
    """What a program needs to know to feed an int8 network for sounds."""
    from keras_aip.int8_audio import parts_of

    features, scores = parts_of(out)
    return [
        f"{_written(front_end_beside(out))[:-1]}: its front end, float32, waveform to features.",
        f"In go int8 features {list(features.shape)}, round(feature / {features.step:.6g}) + {features.zero}; out come "
        f"int8 scores, {scores.step:.6g} * (value - {scores.zero}). The file says so too.",
    ]


def _original(folder: Path, card: Card) -> tuple[str, Run]:
    reasons = []
    for name in ORIGINALS:
        why = ENGINES[name].missing(folder, card)
        if why is None:
            return name, ENGINES[name].load(folder, card)
        reasons.append(f"{name}: {why}")
    raise TeacherError(f"Nothing here can run {folder} to convert it ({'; '.join(reasons)}).")


def _refuse_place(out: Path, to: str) -> None:
    """Said before the work, which takes minutes, and not after it."""
    if to != "saved_model":
        if out.is_dir():
            raise TeacherError(f"{out} is a folder; {to} is a file. Choose another --out.")
        if out.exists():
            raise TeacherError(f"{out} exists. Choose another --out, or remove it first.")
    elif out.is_dir():
        if inside := sorted(entry.name for entry in out.iterdir()):
            raise TeacherError(
                f"{out} is not empty (it holds {inside[0]!r}); a SavedModel needs an empty or new folder. Choose "
                "another --out."
            )
    elif out.exists():
        raise TeacherError(f"{out} is a file; a SavedModel is a folder. Choose another --out.")


@contextlib.contextmanager
def _taking_place_of(out: Path) -> Iterator[Path]:
    """A place to write to, beside ``out`` and of its name; what is there takes out's place if the block succeeds.

    So does what is written beside it, first.
    """
    beside = place_beside(out.absolute())
    written = beside / out.name
    try:
        beside.mkdir(parents=True)
        yield written
        for path in beside.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        for part in sorted(beside.iterdir(), key=lambda part: part == written):
            os.replace(part, out.with_name(part.name))
        sync_folder(out.absolute().parent)
    except OSError as error:
        raise TeacherError(f"{out} cannot be written ({error.strerror or error}). Choose another --out.") from error
    except TeacherError as error:
        if str(beside) not in str(error):
            raise
        raise TeacherError(str(error).replace(str(beside), str(out.parent))) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _compared(config: ConvertConfig, out: Path, name: str, original: Run, run: Run, probes: Probes, batch: int) -> str:
    """Compare on the views that calibrated nothing; refuse what answers otherwise."""
    expected, found, views = [], [], probes.views // 2
    for first in range(views, 2 * views, batch):
        x = probes.at(probes.noise + np.arange(first, min(first + batch, 2 * views)))
        expected.append(original(x))
        found.append(run(x))
    a, b = np.concatenate(expected), np.concatenate(found)
    relative = relative_difference(a, b) if a.shape == b.shape else float("inf")
    agreement = float((a.argmax(-1) == b.argmax(-1)).mean())
    # int8 cannot keep to that, so there only the agreement is said.
    if config.to != "tflite_int8" and not relative <= LARGEST_DIFFERENCE:
        raise TeacherError(
            f"As {config.to}, {config.model} answers otherwise than {name}: scores differ by {relative:.1e} of the "
            f"largest (at most {LARGEST_DIFFERENCE} is rounding), {agreement:.2%} of {len(a):,} views agree. {out} was "
            "not written."
        )
    line = f"Same answer as {name} on {agreement:.2%} of {len(a):,} views; scores differ by {relative:.1e} at most."
    if config.to == "tflite_int8":
        source = config.image if probes.rate is None else config.audio
        line += f" Calibrated on {views:,} other {f'views of {source}' if source else 'synthetic sounds'}, no data."
    return line


def _onnx(folder: Path, card: Card, out: Path, probes: Probes, views: int, original: str) -> Run:
    # By the backend that can run it: the other may know nothing of its architecture.
    if original.startswith("torch"):
        from torch_aip.export import to_onnx
        from torch_aip.teachers import load_model
    else:
        from keras_aip.export import to_onnx
        from keras_aip.teachers import load_model
    model: Any = load_model(folder)[0]
    to_onnx(model, out)
    read_onnx(out)
    runtime = Runtime(out)
    return lambda x: runtime(channels_first(x))


def _safetensors(folder: Path, card: Card, out: Path, probes: Probes, views: int, original: str) -> Run:
    raise TeacherError(
        f"{folder} holds {', '.join(card.forms)}: weights can be named only of an architecture both backends know. "
        "Export it from its own framework with --model ARCHITECTURE --weights FILE."
    )


def _saved_model(folder: Path, card: Card, out: Path, probes: Probes, views: int, original: str) -> Run:
    with needed(*TENSORFLOW):
        from keras_aip.forms import run_saved_model, to_saved_model

    to_saved_model(folder, card, out)
    return run_saved_model(out, card)


def _tflite(folder: Path, card: Card, out: Path, probes: Probes, views: int, original: str) -> Run:
    with needed(*TENSORFLOW):
        from keras_aip.forms import run_tflite, to_tflite

    to_tflite(folder, card, out)
    return run_tflite(out)


def _tflite_int8(folder: Path, card: Card, out: Path, probes: Probes, views: int, original: str) -> Run:
    if card.kind == "video":
        raise TeacherError("int8 is for networks that take images or waveforms; of video nobody has tried it.")
    with needed(*TENSORFLOW):
        from keras_aip.forms import run_tflite, to_tflite
        from keras_aip.int8_audio import run_int8, to_int8

    examples = (probes.at(np.array([probes.noise + number])) for number in range(views))
    if card.kind == "audio":
        to_int8(folder, card, out, examples)
        return run_int8(out)
    to_tflite(folder, card, out, examples)
    return run_tflite(out)


def _copy(path: Path, out: Path) -> None:
    try:
        with open(path, "rb") as source, replacing(out) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise TeacherError(f"{out} cannot be written ({error}). Choose another --out.") from error


Writer = Callable[[Path, Card, Path, Any, int, str], Run]
WRITERS: dict[str, Writer] = {
    "onnx": _onnx,
    "safetensors": _safetensors,
    "saved_model": _saved_model,
    "tflite": _tflite,
    "tflite_int8": _tflite_int8,
}
