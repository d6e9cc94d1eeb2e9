"""`fidelity` without a framework: from two folders and a set of files to a page and a JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge import wordnet
from bridge.commands import measured_on
from bridge.errors import ConfigError, DatasetError, DatumError, TeacherError
from bridge.files import atomic_write, json_text
from bridge.insight.fidelity import Calibration, Fidelity, compare
from bridge.insight.fidelity_page import Example, write_fidelity_page
from bridge.insight.options import FidelityConfig
from bridge.measuring import AnyData, at_most, samples_of, usable_rows
from bridge.sounds import LabelledSounds, floats

_SMOKE, _SMOKE_VIDEOS = 512, 16
_PAIRS = 200
"""Of classes on which both part, in the JSON file."""
_FRAMES = 8
"""Of a clip in a strip."""


def fidelity(
    config: FidelityConfig,
    load: Callable[..., Any],
    load_teacher: Callable[..., Any],
    predict_all: Callable[..., list[np.ndarray]],
    load_video: Callable[..., Any] | None = None,
    load_audio: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Compare a student with its teacher, and write what came out.

    Args:
        config: resolved options.
        load, load_teacher, predict_all: the backend's.
        load_video, load_audio: its ways to videos and to sounds; None where it has no networks for them.

    Returns:
        What fidelity.json holds.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    _check(config)
    student, teacher = (load_teacher(name, dataset=config.dataset) for name in (config.model, config.teacher))
    check_pair(student, teacher, str(config.model), str(config.teacher))
    asked_for = student if student.input_size else teacher
    # lazily, so that files keep their names
    how = {"lazy": True} if Path(str(config.dataset)).expanduser().is_dir() else {}
    data = measured_on(config, asked_for, str(config.dataset), load, load_video, load_audio, **how)
    _check_size(data, asked_for, str(config.model if asked_for is student else config.teacher))
    most = [count for count in (config.count, _SMOKE if config.smoke else None) if count is not None]
    numbers: NDArray[np.int64] | None = None
    if most:
        data, numbers = at_most(data, min(most), min([*most, _SMOKE_VIDEOS]) if config.smoke else None)
    answers = predict_all([student, teacher], samples_of(data), config.batch_size)
    rows = usable_rows(data)
    labels = None if data.labels is None else data.labels[rows]
    found = compare(
        answers[0][rows], answers[1][rows], labels,
        teacher_labels=teacher.outputs == "labels", student_labels=student.outputs == "labels",
    )  # fmt: skip
    names = _names(found, (student, teacher), data)
    apart = found.most_apart(config.examples)
    places = np.arange(len(answers[0])) if numbers is None else numbers
    told = [_of_file(data, int(rows[k]), int(places[rows[k]])) for k in apart]
    result = {
        "student": str(config.model),
        "teacher": str(config.teacher),
        "dataset": data.name,
        **found.figures,
        "calibration": _told(found.calibration),
        "label_calibration": _told(found.label_calibration),
        "parted_classes": [
            {**pair._asdict(), "teacher": names[pair.teacher], "student": names[pair.student]}
            for pair in found.parted[:_PAIRS]
        ],
        "class_agreement": [
            {"class": names[c], "n": int(n), "agreement": float(share)}
            for c, (n, share) in enumerate(zip(found.per_class.samples, found.per_class.student))
            if n
        ],
        "examples": [
            {
                "file": name,
                "number": number,
                "teacher": names[found.teacher[k]],
                "student": names[found.student[k]],
                "teacher_confidence": None if teacher.outputs == "labels" else float(found.teacher_sure[k]),
                "student_confidence": None if student.outputs == "labels" else float(found.student_sure[k]),
                "label": None if labels is None else names[labels[k]],
                "total_variation": float(found.apart[k]),
                "kl": None if found.kl is None else float(found.kl[k]),
            }
            for k, (name, number) in zip(apart, told)
        ],
        "config": dataclasses.asdict(config),
    }
    pictures, heard = shown(data, rows[apart])
    examples = [
        Example(pictures[k], None if heard is None else heard[k], example)
        for k, example in enumerate(result["examples"])
    ]
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "fidelity.json", json_text(result))
    except OSError as error:
        raise DatumError(f"Cannot write {out / 'fidelity.json'}: {error.strerror}. Choose another --out.") from error
    write_fidelity_page(
        out / "fidelity.html", found, result, names, examples, rate=data.rate if isinstance(data, LabelledSounds) else 0
    )
    return result


def check_pair(student: Any, teacher: Any, student_name: str, teacher_name: str) -> None:
    """Refuse two networks that cannot be compared.

    Args:
        student, teacher: as a backend loads them.
        student_name, teacher_name: for the message.

    Raises:
        TeacherError: they have other classes, or take other samples.
    """
    mend = "Give the student's own teacher."
    if student.classes and teacher.classes and student.classes != teacher.classes:
        raise TeacherError(
            f"{student_name} answers for {student.classes} classes, {teacher_name} for {teacher.classes}; both must be "
            f"the same. {mend}"
        )
    ours, theirs = (list(some.class_names or ()) for some in (student, teacher))
    # names in English and ids are not compared, as nowhere
    if ours and theirs and ours != theirs and wordnet.are_ids(ours) == wordnet.are_ids(theirs):
        k = next(k for k, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
        raise TeacherError(
            f"Class {k} is {ours[k]!r} for {student_name} and {theirs[k]!r} for {teacher_name}; the same names in the "
            f"same order are needed. {mend}"
        )
    sizes = [some.input_size for some in (student, teacher)]
    rates = [some.rate for some in (student, teacher)]
    if None not in sizes and tuple(sizes[0]) != tuple(sizes[1]):
        raise TeacherError(
            f"{student_name} takes {_kind(sizes[0])}, {teacher_name} {_kind(sizes[1])}; both must take the same. {mend}"
        )
    if None not in rates and rates[0] != rates[1]:
        raise TeacherError(
            f"{student_name} hears sounds at {rates[0]} Hz, {teacher_name} at {rates[1]} Hz; both must hear the same. "
            f"{mend}"
        )


def shown(data: AnyData, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Pictures of some samples, and of sounds their waveforms too.

    Args:
        data: images, videos or sounds.
        rows: which of them.

    Returns:
        uint8 [rows, height, width, 3]: images; of videos up to eight frames of the middle clip, side by side; of sounds
        spectrograms. And float32 [rows, samples] in [-1, 1], or None.
    """
    from bridge.clips import LabelledVideos
    from bridge.datum.audio_preview import spectrogram_pictures
    from bridge.datum.preview import strips

    samples = samples_of(data)
    if not len(rows):
        return np.zeros((0, 1, 1, 3), np.uint8), None
    if isinstance(data, LabelledSounds):
        waveforms = floats(np.asarray(samples[rows]))
        return spectrogram_pictures(waveforms, data.rate), waveforms
    if isinstance(data, LabelledVideos):
        sampling = data.clips.sampling
        middle = (sampling.clips // 2) * sampling.spatial + sampling.spatial // 2
        clips = np.asarray(samples[rows * data.clips.views + middle])
        frames = clips.shape[1]
        return strips(clips[:, np.unique(np.linspace(0, frames - 1, min(frames, _FRAMES)).astype(int))]), None
    return np.asarray(samples[rows]), None


def _check(config: FidelityConfig) -> None:
    if config.model is None:
        raise ConfigError("Which student? Give --model FOLDER, such as runs/distill/student.")
    if config.teacher is None:
        raise ConfigError("Faithful to which teacher? Give --teacher FOLDER.")
    if config.dataset is None:
        raise ConfigError("On which files? Give --dataset FOLDER, with labels or without, or the name of a data set.")
    if config.count is not None and config.count < 1:
        raise ConfigError(f"--count (={config.count}) must be at least 1; leave it out to ask about all.")
    if config.examples < 0:
        raise ConfigError(f"--examples (={config.examples}) must not be negative; 0 shows none.")


def _kind(size: Sequence[int]) -> str:
    what = {1: "sounds of {} samples", 2: "images of {} pixels", 3: "clips of {} (frames, height, width)"}
    return what.get(len(size), "inputs of {}").format(" × ".join(map(str, size)))


def _check_size(data: AnyData, network: Any, name: str) -> None:
    """Raises: DatasetError: samples of another size than the network takes, such as of oblong images."""
    shape = samples_of(data).shape
    found = shape[1:] if isinstance(data, LabelledSounds) else shape[1:-1]
    if network.input_size is not None and tuple(network.input_size) != tuple(found):
        raise DatasetError(
            f"{data.name} has {_kind(found)}, and {name} takes {_kind(network.input_size)}: samples are only made "
            "square."
        )


def _names(found: Fidelity, networks: Sequence[Any], data: AnyData) -> list[str]:
    """Of the classes; where nobody knows them, their numbers."""
    classes = int(found.figures["classes"] or 0)
    known = (*(network.class_names for network in networks), data.class_names)
    names = next((some for some in known if some and len(some) == classes), None)
    return wordnet.readable(map(str, names)) if names else [f"class {k}" for k in range(classes)]


def _of_file(data: AnyData, row: int, number: int) -> tuple[str | None, int]:
    """The file a row is of, if it is of any, and its number in the whole set."""
    samples = samples_of(data)
    if not hasattr(samples, "files"):
        return None, number
    path, root = samples.files[row], samples.root
    name = (path.relative_to(root) if root else path).as_posix()
    start = float(samples.starts[row]) if isinstance(data, LabelledSounds) else 0.0
    return name + (f" at {start:g} s" if start else ""), number


def _told(calibration: Calibration | None) -> dict[str, Any] | None:
    return None if calibration is None else calibration._asdict()
