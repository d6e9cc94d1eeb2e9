"""A finished run as one page (`bridge.html`); the charts are drawn as numbers for its template, ``report.html.j2``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.class_table import class_table
from bridge.errors import RunError
from bridge.files import plain
from bridge.grids import image_grid
from bridge.html import flat, number, percent, picture_url, png_url, sound_url, write_page
from bridge.insight.run_neurons import RunNeurons
from bridge.metrics import ClassAccuracies, per_class_accuracy

NAMED_BARS = 40
NUMBERED_CONFUSION = 20
_CHART = {"width": 320, "height": 170, "left": 46, "right": 8, "top": 8, "bottom": 24}
_POINTS_PER_CURVE = 600
_TILE_PIXELS = 96
PLAYERS = 6
_SPECTROGRAM_COLUMNS, _SPECTROGRAM_ROW = 6, 1200


class _Words(NamedTuple):
    """What is called differently: samples, what the student does with them, what the teacher did."""

    views: str
    seen: str
    saw: str


_KINDS = {
    "image": _Words("views", "seen", "saw"),
    "video": _Words("clips", "seen", "saw"),
    "sound": _Words("views", "heard", "heard"),
}

_FRACTIONS = (
    "teacher_top1",
    "student_top1",
    "teacher_top5",
    "student_top5",
    "student_top1_recalibrated",
    "agreement",
    "ece",
)
_WORDS = {
    "student_top1": "Student: first guess right (top-1)",
    "teacher_top1": "Teacher: first guess right (top-1)",
    "student_top5": "Student: right class among its first five guesses (top-5)",
    "teacher_top5": "Teacher: right class among its first five guesses (top-5)",
    "agreement": "Student and teacher have the same first guess",
    "kl": "Distance of the student's probabilities from the teacher's (KL divergence)",
    "ece": "Mean gap between the student's confidence and how often it is right (calibration error)",
    "dataset": "Evaluated on",
    "n": "Samples evaluated",
    "source": "The one datum learned from",
    "student": "Student",
    "teacher": "Teacher",
    "views": "{Views} {seen} in training",
    "stored_views": "Different ones, each labelled once",
    "questions": "Asked of the teacher in all",
    "steps": "Training steps",
    "seconds": "Time",
    "seed": "Seed",
    "student_top1_recalibrated": "Student with BatchNorm statistics of unmixed views (top-1)",
    "parameters": "Weights of the student",
    "classes": "Classes",
    "frames": "Frames of a clip",
    "rate": "Samples per second",
}
_OF_SOME = ("stored_views", "questions", "frames", "rate")
"""Rows left out where there are none: of stored answers, of services, of clips, of sounds."""


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: Sequence[str],
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    views: Mapping[str, NDArray[np.uint8]],
    teacher_histogram: ArrayLike | None = None,
    confusion: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    per_class: ClassAccuracies | None = None,
    sounds: Mapping[str, NDArray[np.floating]] | None = None,
    rate: int = 16_000,
    what: str = "image",
    neurons: RunNeurons | None = None,
) -> None:
    """Write ``report.html``. Ours.

    Args:
        path: The file to write; an old one is replaced at once when the new one is whole.
        title: Heading of the page.
        summary: Sentences for a reader who reads nothing else.
        config: The resolved options, nested as they are.
        metrics: The lines of ``metrics.jsonl``; every key with numbers becomes a curve over ``step``.
        result: What ``result.json`` holds; shares in [0, 1], KL in nats, time in seconds.
        views: Caption to views, uint8 RGB ``[n, height, width, 3]`` in [0, 255], or strips of frames, or spectrograms.
        teacher_histogram: Share of the views the teacher puts into each class, ``[classes]``, or ``None``.
        confusion: Counts ``[classes, classes]``, rows are the truth, or ``None``.
        class_names: One per class; numbers stand in for ``None``.
        per_class: As ``class_accuracies`` gives them; of more than 100 classes the worst 20 are listed.
        sounds: Caption to waveforms to listen to, float ``[n, samples]`` in [-1, 1]; the first ones, six in all.
        rate: Of these, in samples per second.
        what: What was learned from: "image", "video" or "sound".
        neurons: What classes look like to teacher and student, or why that is not shown.

    Raises:
        RunError: Histogram, confusion matrix and class names do not fit each other, or the file cannot be
            written.
        DatumError: Views that are not uint8 ``[n, height, width, 3]``; sounds that are no waveforms.
    """
    histogram = None if teacher_histogram is None else np.asarray(teacher_histogram, dtype=np.float64)
    counts = None if confusion is None else np.asarray(confusion)
    # NumPy's own numbers are no Python numbers, and NaN is nothing to show.
    metrics, result = plain(list(metrics)), plain(result)
    names = _names(histogram, counts, class_names, per_class)
    words = _KINDS[what]
    write_page(
        path,
        "report.html.j2",
        title=title,
        summary=list(summary),
        result=_result_rows(result, words),
        words=words,
        curves=_curves(metrics),
        box=_CHART,
        views=[_view_figure(caption, images, what) for caption, images in views.items()],
        players=_players(sounds or {}, rate),
        neurons=neurons,
        neurons_url=None if neurons is None or neurons.picture is None else png_url(neurons.picture),
        histogram=None if histogram is None else _histogram(histogram, names),
        per_class=None if per_class is None else class_table(per_class, names),
        confusion=None if counts is None else _confusion(counts, names),
        config=flat(config),
    )


def _names(
    histogram: NDArray | None,
    confusion: NDArray | None,
    class_names: Sequence[str] | None,
    per_class: ClassAccuracies | None,
) -> list[str]:
    shapes = {}
    if histogram is not None:
        shapes["teacher_histogram"] = histogram.shape
    if confusion is not None:
        shapes["confusion"] = confusion.shape
    if class_names is not None:
        shapes["class_names"] = (len(class_names),)
    if per_class is not None:
        shapes["per_class"] = per_class.samples.shape
    classes = max((shape[0] for shape in shapes.values() if shape), default=0)
    expected = {
        "teacher_histogram": (classes,),
        "confusion": (classes, classes),
        "class_names": (classes,),
        "per_class": (classes,),
    }
    if any(shape != expected[what] for what, shape in shapes.items()) or (shapes and classes == 0):
        given = ", ".join(f"{what} {list(shape)}" for what, shape in shapes.items())
        raise RunError(
            f"The report got {given}; expected one per class, and of a confusion matrix [classes, classes], of the "
            f"same classes."
        )
    return [str(name) for name in class_names] if class_names is not None else list(map(str, range(classes)))


def _result_rows(result: Mapping[str, Any], words: _Words) -> list[tuple[str, str]]:
    # In the order of the words, because a reader looks for the student first; what has no words of its own
    # comes last.
    keys = [key for key in _WORDS if key in result] + [key for key in result if key not in _WORDS]
    keys = [key for key in keys if key not in _OF_SOME or result[key] is not None]
    terms = {"Views": words.views.capitalize(), "seen": words.seen}
    said = {key: phrase.format(**terms) for key, phrase in _WORDS.items()}
    return [(said.get(key, key), _value_in_words(key, result[key])) for key in keys]


def _value_in_words(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | int) and not isinstance(value, bool):
        if key in _FRACTIONS:
            return percent(value)
        if key == "kl":
            return f"{value:.3g} nats"
        if key == "seconds":
            return _duration(value)
        # A seed is a name, not an amount.
        return str(value) if key == "seed" else number(value)
    return str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # The clock is no measurement, and the step is the axis.
    names = {key for line in metrics for key, value in line.items() if _is_number(value)} - {
        "step",
        "seconds",
    }
    first_seen = list(dict.fromkeys(key for line in metrics for key in line if key in names))
    return [
        _curve(
            name,
            [(line["step"], line.get(name)) for line in metrics],
            lost=sum(name in line and line[name] is None for line in metrics),
        )
        for name in first_seen
    ]


def _curve(name: str, line: list[tuple[float, Any]], lost: int) -> dict[str, Any]:
    """Turn (step, value) pairs into a path and ticks in the pixels of the chart."""
    points = _thinned([(step, value) for step, value in line if _is_number(value)])
    steps, values = np.array(points).T
    x_ticks, y_ticks = _ticks(steps.min(), steps.max(), 4), _ticks(values.min(), values.max(), 4)
    x_low, x_high = steps.min(), max(steps.max(), steps.min() + 1)
    y_low, y_high = min(values.min(), y_ticks[0]), max(values.max(), y_ticks[-1])
    if y_high == y_low:
        y_low, y_high = y_low - 0.5, y_high + 0.5
    right, bottom = _CHART["width"] - _CHART["right"], _CHART["height"] - _CHART["bottom"]
    x_scale = (right - _CHART["left"]) / (x_high - x_low)
    y_scale = (bottom - _CHART["top"]) / (y_high - y_low)
    xs = _CHART["left"] + (steps - x_low) * x_scale
    ys = bottom - (values - y_low) * y_scale
    return {
        "name": name,
        "lost": lost,
        "first": number(values[0]),
        "last": number(values[-1]),
        "last_step": number(steps[-1]),
        "path": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)),
        "end": (round(float(xs[-1]), 1), round(float(ys[-1]), 1)),
        "x_ticks": [(round(_CHART["left"] + (tick - x_low) * x_scale, 1), number(tick)) for tick in x_ticks],
        "y_ticks": [(round(bottom - (tick - y_low) * y_scale, 1), f"{tick:.6g}") for tick in y_ticks],
    }


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep both ends and the lowest and highest point of each short stretch, so that no peak is lost."""
    if len(points) <= _POINTS_PER_CURVE:
        return points
    kept = {0, len(points) - 1}
    for stretch in np.array_split(np.arange(len(points)), _POINTS_PER_CURVE // 2):
        values = [points[place][1] for place in stretch]
        kept |= {int(stretch[np.argmin(values)]), int(stretch[np.argmax(values)])}
    return [points[place] for place in sorted(kept)]


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round numbers within [low, high]; the ends' own value where there is no room between them."""
    if not high > low:
        return [float(low)]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    multiples = range(math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9) + 1)
    return [multiple * width for multiple in multiples] or [float(low)]


def _view_figure(caption: str, images: NDArray[np.uint8], what: str) -> dict[str, str]:
    images = np.asarray(images)
    # Small views are enlarged, large ones made smaller, so that a report is neither a stamp nor a hundred
    # megabytes.
    height, width = images.shape[1:3] if images.ndim == 4 else (0, 0)
    side = max(min(height, width), 1)  # of a strip of frames that of a frame
    columns, scale = max(1, 8 * side // max(height, width, 1)), max(1, round(_TILE_PIXELS / side))
    size = f"{len(images)} views of {width} × {height} pixels"
    if what == "video":
        size = f"{len(images)} clips of {width // side} frames of {side} × {height} pixels"
    if what == "sound":
        columns = max(1, min(_SPECTROGRAM_COLUMNS, _SPECTROGRAM_ROW // (2 * max(width, 1))))
        scale = max(1, min(2, _SPECTROGRAM_ROW // (columns * max(width, 1))))
        size = f"{len(images)} views as spectrograms: time to the right, pitch upwards, loud is bright"
    grid = image_grid(images, columns=columns, scale=scale)
    shrink = 1 if what == "sound" else max(1, round(side / (1.5 * _TILE_PIXELS)))
    if shrink > 1:
        from PIL import Image

        grid = np.asarray(Image.fromarray(grid).reduce(shrink))
    return {
        "caption": caption,
        "image": picture_url(grid),
        "alt": f"{caption}: {size}, side by side",
        "size": size,
        "width": str(grid.shape[1]),
        "height": str(grid.shape[0]),
    }


def _players(sounds: Mapping[str, NDArray[np.floating]], rate: int) -> list[dict[str, Any]]:
    """For each caption the first waveforms as wav files in the page, so many that there are six in all."""
    each = max(1, PLAYERS // max(len(sounds), 1))
    return [
        {
            "caption": caption,
            "wavs": [sound_url(waveform, rate) for waveform in waveforms[:each]],
        }
        for caption, waveforms in list(sounds.items())[:PLAYERS]
    ]


def _histogram(shares: NDArray[np.float64], names: list[str]) -> dict[str, Any]:
    classes = len(shares)
    seen = shares[shares > 0]
    varied = float(np.exp(-(seen * np.log(seen)).sum())) if len(seen) else 0.0
    top = max(float(shares.max()), 1e-12)
    order = np.argsort(-shares, kind="stable") if classes > NAMED_BARS else np.arange(classes)
    named = order[: 10 if classes > NAMED_BARS else classes]
    return {
        "text": f"{len(seen)} of {classes} classes were seen; as varied as {varied:.1f} classes seen equally often.",
        "bars": [
            {
                "name": names[c],
                "share": percent(float(shares[c])),
                "width": round(100 * float(shares[c]) / top, 2),
            }
            for c in named
        ],
        "sorted_heights": [round(100 * float(shares[c]) / top, 2) for c in order] if classes > NAMED_BARS else [],
        "top": percent(float(shares.max())),
    }


def _confusion(counts: NDArray, names: list[str]) -> dict[str, Any]:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    errors = counts - np.diag(np.diag(counts))
    worst = [divmod(int(place), len(counts)) for place in np.argsort(-errors, axis=None, kind="stable")[:8]]
    confused = [(names[t], names[p], int(errors[t, p])) for t, p in worst if errors[t, p] > 0]
    if len(counts) > NUMBERED_CONFUSION:
        # The root lifts rare confusions out of the background, where a thousand classes would hide them.
        shade = np.round(255 * (1 - np.sqrt(shares))).astype(np.uint8)
        grid = np.stack([shade, 255 - (255 - shade) // 2, np.full_like(shade, 255)], axis=-1)
        scale = max(1, round(600 / len(counts)))
        return {
            "image": picture_url(grid.repeat(scale, 0).repeat(scale, 1)),
            "rows": [],
            "confused": confused,
            "names": [],
        }
    accuracy = per_class_accuracy(counts)
    rows = [
        {
            "name": names[truth],
            "right": percent(float(accuracy[truth])),
            "cells": [
                {
                    "count": int(counts[truth, guess]),
                    "shade": round(float(shares[truth, guess]), 3),
                    "right": truth == guess,
                }
                for guess in range(len(counts))
            ],
        }
        for truth in range(len(counts))
    ]
    return {"image": None, "rows": rows, "confused": confused, "names": names}
