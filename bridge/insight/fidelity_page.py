"""What was found about a student's fidelity as one page (`bridge.html`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.class_table import class_table
from bridge.html import flat, number, percent, picture_url, sound_url, write_page
from bridge.insight.fidelity import Calibration, Fidelity
from bridge.metrics import CALIBRATION_BINS

PAIRS, PLAYERS = 20, 6
"""How many pairs of classes are listed, and how many sounds can be played."""
_SMALL, _LARGE = 128, 192
"""Pixels of the shorter side of a picture: smaller ones are shown larger, larger ones stored smaller."""
_NARROWEST = 150
"""Pixels of a cell, for what stands below the picture."""
_CHART = {"width": 320, "height": 230, "left": 38, "right": 8, "top": 8, "bottom": 60, "counts": 26}


class Example(NamedTuple):
    """A sample on which both part.

    Attributes:
        picture: uint8 ``[height, width, 3]``.
        waveform: float ``[samples]`` in [-1, 1], of a sound.
        told: As fidelity.json tells it.
    """

    picture: NDArray[np.uint8]
    waveform: NDArray[np.floating] | None
    told: Mapping[str, Any]


def write_fidelity_page(
    path: str | Path,
    found: Fidelity,
    result: Mapping[str, Any],
    names: Sequence[str],
    examples: Sequence[Example],
    rate: int = 0,
) -> None:
    """Write ``fidelity.html``.

    Args:
        path: The file.
        found: By `bridge.insight.fidelity.compare`.
        result: What fidelity.json holds.
        names: Of the classes.
        examples: On which they part, the worst first.
        rate: Of sounds, in samples per second.

    Raises:
        RunError: The file cannot be written.
    """
    labels = found.label_calibration is not None or result["student_top1"] is not None
    write_page(
        path,
        "fidelity.html.j2",
        title="How faithful a student is to its teacher",
        summary=summary_of(result),
        result=_rows(result, labels),
        labels=labels,
        parted=[
            {
                "teacher": names[pair.teacher],
                "student": names[pair.student],
                "times": number(pair.times),
                "share": percent(pair.share),
                "teacher_right": number(pair.teacher_right or 0),
                "student_right": number(pair.student_right or 0),
            }
            for pair in found.parted[:PAIRS]
        ],
        pairs=number(len(found.parted)),
        more_pairs=len(found.parted) > PAIRS,
        parted_count=result["parted"],
        examples=[_example(example, rate, k) for k, example in enumerate(examples)],
        cell=max([_NARROWEST, *(_width(example.picture) for example in examples[:1])]),
        charts=[
            _chart(calibration, words)
            for calibration, words in (
                (found.calibration, "says what the teacher says"),
                (found.label_calibration, "is right"),
            )
            if calibration is not None
        ],
        box=_CHART,
        per_class=class_table(found.per_class, list(names)),
        config=flat(result["config"]),
    )


def summary_of(result: Mapping[str, Any]) -> list[str]:
    """The same in sentences, for those who read nothing else."""
    samples = f"{result['n']:,} sample{'s' * (result['n'] != 1)} of {result['dataset']}"
    low, high = percent(result["agreement_low"]), percent(result["agreement_high"])
    said = [
        f"The student gives the teacher's first answer on {percent(result['agreement'])} of {samples} (95 % interval "
        f"{low} to {high})."
    ]
    if result["kl"] is not None:
        said.append(
            f"Its probabilities are {result['kl']:.3g} nats from the teacher's (KL at τ = 1) and place "
            f"{percent(result['total_variation'])} of the probability elsewhere."
        )
    else:
        said.append("One of the two tells class numbers alone, so their probabilities cannot be compared.")
    if result["classes"] == 1:
        said.append("Both know one class only, so they cannot part.")
    if result["parted_classes"]:
        worst = result["parted_classes"][0]
        said.append(
            f"Most often the teacher says {worst['teacher']} and the student {worst['student']}: {worst['times']:,} of "
            f"the {result['parted']:,} times they part."
        )
    if result["parted_teacher_right"] is not None:
        said.append(
            f"Where they part, the teacher is right on {percent(result['parted_teacher_right'])} and the student on "
            f"{percent(result['parted_student_right'])}."
        )
    return said


def _rows(result: Mapping[str, Any], labels: bool) -> list[tuple[str, str]]:
    """The table of figures, each with what it means."""
    shares = [
        ("agreement", "Both give the same first answer (agreement)"),
        ("agreement_at_5", "The student's first answer is among the teacher's first five (agreement at 5)"),
        ("teacher_in_5", "The teacher's first answer is among the student's first five"),
        ("overlap_at_5", "Of their first five answers, both have"),
    ]
    rows = [(words, percent(result[key])) for key, words in shares]
    divergence = "–"
    if result["kl"] is not None:
        divergence = (
            f"{result['kl']:.3g} nats (half of the samples below {result['kl_median']:.3g}, 95 % below "
            f"{result['kl_95']:.3g})"
        )
    rows += [
        ("Distance of the student's probabilities from the teacher's, KL(teacher‖student) at τ = 1", divergence),
        ("Probability placed elsewhere (total variation)", percent(result["total_variation"])),
        ("Mean confidence of the student", percent(result["student_confidence"])),
        ("Mean confidence of the teacher", percent(result["teacher_confidence"])),
        (
            "Mean gap between the student's confidence and how often it says what the teacher says (calibration error)",
            percent(result["teacher_ece"]),
        ),
    ]
    if labels:
        rows += [
            ("Student: first answer right (top-1)", percent(result["student_top1"])),
            ("Teacher: first answer right (top-1)", percent(result["teacher_top1"])),
            ("Student: right class among its first five (top-5)", percent(result["student_top5"])),
            ("Teacher: right class among its first five (top-5)", percent(result["teacher_top5"])),
            (
                "Mean gap between the student's confidence and how often it is right (calibration error)",
                percent(result["ece"]),
            ),
            ("Where they part: the teacher is right", percent(result["parted_teacher_right"])),
            ("Where they part: the student is right", percent(result["parted_student_right"])),
            ("Where they part: both are wrong", percent(result["parted_both_wrong"])),
        ]
    return [
        *rows,
        ("Samples", number(result["n"])),
        ("Classes", number(result["classes"])),
        ("Asked about", result["dataset"]),
        ("Student", result["student"]),
        ("Teacher", result["teacher"]),
    ]


def _width(picture: NDArray[np.uint8]) -> int:
    """Pixels a picture is shown wide: small ones are enlarged by a whole number."""
    side, width = min(picture.shape[:2]), picture.shape[1]
    return width * max(1, round(_SMALL / side)) if side < _LARGE else round(width * _SMALL / side)


def _example(example: Example, rate: int, place: int) -> dict[str, Any]:
    picture, told = example.picture, example.told
    width, shrink = _width(picture), max(1, min(picture.shape[:2]) // _LARGE)
    if shrink > 1:
        from PIL import Image

        picture = np.asarray(Image.fromarray(picture).reduce(shrink))
    sure = {who: told[f"{who}_confidence"] for who in ("teacher", "student")}
    return {
        "image": picture_url(picture),
        "sound": None if example.waveform is None or place >= PLAYERS else sound_url(example.waveform, rate),
        "width": width,
        "height": round(width * picture.shape[0] / picture.shape[1]),
        "sharp": min(example.picture.shape[:2]) < _SMALL,
        "teacher": told["teacher"],
        "student": told["student"],
        "teacher_sure": "" if sure["teacher"] is None else f"{sure['teacher']:.0%}",
        "student_sure": "" if sure["student"] is None else f"{sure['student']:.0%}",
        "label": told["label"],
        "name": told["file"] or f"number {told['number']}",
    }


def _chart(calibration: Calibration, words: str) -> dict[str, Any]:
    """Bars of a reliability diagram in the pixels of the chart, and below them how many samples each is of."""
    left, right, top = _CHART["left"], _CHART["width"] - _CHART["right"], _CHART["top"]
    floor, ground = _CHART["height"] - _CHART["bottom"], _CHART["height"] - 16
    step, most = (right - left) / CALIBRATION_BINS, max(int(calibration.samples.max()), 1)
    bars = []
    for k in np.flatnonzero(calibration.samples).tolist():
        high, low = calibration.right[k] * (floor - top), calibration.samples[k] / most * _CHART["counts"]
        bars.append(
            {
                "x": round(left + k * step + 1, 1),
                "width": round(step - 2, 1),
                "y": round(floor - high, 1),
                "height": round(high, 1),
                "count_y": round(ground - max(low, 1), 1),
                "count_height": round(max(low, 1), 1),
                "told": f"confidence {calibration.confidence[k]:.0%}: {words} on {calibration.right[k]:.0%} of "
                f"{calibration.samples[k]:,}",
            }
        )
    return {
        "name": f"How often the student {words}",
        "error": percent(calibration.error),
        "bars": bars,
        "left": left,
        "right": right,
        "top": top,
        "floor": floor,
        "ground": ground,
        "ticks": [(f"{share:.0%}", round(floor - share * (floor - top), 1)) for share in (0, 0.5, 1)],
        "shares": [(f"{share:.0%}", round(left + share * (right - left), 1)) for share in (0, 0.5, 1)],
    }
