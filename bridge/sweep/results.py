"""What a sweep found: one row per run as CSV, one row per grid point as a table in Markdown."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.sweep.grid import Axis, Run

COLUMNS = (
    "student_top1",
    "teacher_top1",
    "student_top5",
    "teacher_top5",
    "student_top1_recalibrated",
    "agreement",
    "kl",
    "ece",
    "dataset",
    "n",
    "source",
    "parameters",
    "views",
    "steps",
    "seconds",
)
"""Of `result.json`, after the varied options and the seed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        run: the run.
        result: its `result.json`; None: there is none yet.
        error: why it failed, in a line; None: it did not.
    """

    run: Run
    result: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        """finished, failed or waiting."""
        return "finished" if self.result is not None else "failed" if self.error else "waiting"


def measure_of(outcomes: Sequence[Outcome]) -> str:
    """What the runs are compared by: the student's accuracy or, where there are no labels, its agreement."""
    unlabelled = values_of(outcomes, "agreement") and not values_of(outcomes, "student_top1")
    return "agreement" if unlabelled else "student_top1"


def values_of(outcomes: Sequence[Outcome], key: str) -> list[float]:
    """The numbers the finished runs have under a key of `result.json`."""
    found = [outcome.result.get(key) for outcome in outcomes if outcome.result is not None]
    return [float(value) for value in found if isinstance(value, int | float)]


def line_of(outcome: Outcome) -> str:
    """One run in a few words, such as "student 96.8 %, teacher 99.0 %, agreement 97.0 %"."""
    if outcome.result is None:
        return f"failed: {outcome.error}" if outcome.error else "not finished"
    keys = {"student": "student_top1", "teacher": "teacher_top1", "agreement": "agreement"}
    found = {word: outcome.result.get(key) for word, key in keys.items()}
    return ", ".join(f"{word} {_percent(value)}" for word, value in found.items() if value is not None)


def by_point(outcomes: Sequence[Outcome]) -> dict[tuple[int, ...], list[Outcome]]:
    """Grid point → what became of its seeds, in the order of the grid."""
    points: dict[tuple[int, ...], list[Outcome]] = {}
    for outcome in outcomes:
        points.setdefault(outcome.run.point, []).append(outcome)
    return points


def label_of(axes: Sequence[Axis], point: Sequence[int]) -> str:
    """A grid point in words: "kl"; of two options "resnet18 × resnet50"."""
    return " × ".join(axis.labels[number] for axis, number in zip(axes, point))


def csv_text(axes: Sequence[Axis], outcomes: Sequence[Outcome]) -> str:
    """One line per run: its name, state, varied options and seed, what was measured, and the error if it failed."""
    options = [axis.option for axis in axes]
    columns = [column for column in COLUMNS if column not in options]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", *options, "seed", *columns, "error"])
    for outcome in outcomes:
        result = outcome.result or {}
        chosen = ["None" if (value := getattr(outcome.run.config, option)) is None else value for option in options]
        measured = [result.get(column) for column in columns]
        writer.writerow([outcome.run.name, outcome.state, *chosen, outcome.run.seed, *measured, outcome.error or ""])
    return text.getvalue()


def table_text(axes: Sequence[Axis], outcomes: Sequence[Outcome], published: Mapping[str, float]) -> str:
    """One row per grid point: the median over its seeds, lowest and highest, and how many seeds that is.

    Args:
        axes: the varied options.
        outcomes: of every run, in the order of the grid.
        published: label of a grid point, as `label_of` gives it → the paper's accuracy as a fraction.

    Returns:
        Markdown.
    """
    measure = measure_of(outcomes)
    title = "Student top-1" if measure == "student_top1" else "Agreement"
    paper = {point: published.get(label_of(axes, point)) for point in by_point(outcomes)}
    head = [*(axis.option for axis in axes), title, "min–max", "seeds"]
    head += ["agreement"] if measure != "agreement" else []
    head += ["KL (nats)", "calibration error", "teacher top-1", "s per run"]
    head += ["paper"] if any(value is not None for value in paper.values()) else []
    rows = []
    for point, found in by_point(outcomes).items():
        values = values_of(found, measure)
        row = [axis.labels[number] for axis, number in zip(axes, point)]
        row += [f"**{_median(values, _percent)}**" if values else "–", _spread(values)]
        row += [str(len(values)) if len(values) == len(found) else f"{len(values)} of {len(found)}"]
        row += [_median(values_of(found, "agreement"), _percent)] if measure != "agreement" else []
        row += [_median(values_of(found, "kl"), "{:.3f}".format), _median(values_of(found, "ece"), "{:.3f}".format)]
        row += [_median(values_of(found, "teacher_top1"), _percent)]
        row += [_median(values_of(found, "seconds"), "{:.0f}".format)]
        if "paper" in head:
            row.append("–" if (value := paper[point]) is None else _percent(value))
        rows.append(row)
    lines = [f"Median over the seeds{_measured_on(outcomes)}.", "", *_markdown(head, rows)]
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        lines += ["", "Failed:", "", *(f"- {outcome.run.label}: {outcome.error}" for outcome in failed)]
    if waiting := sum(outcome.state == "waiting" for outcome in outcomes):
        lines += ["", f"Not finished yet: {waiting} of {len(outcomes)} runs."]
    return "\n".join(lines) + "\n"


def _measured_on(outcomes: Sequence[Outcome]) -> str:
    sets = {(r["dataset"], r["n"]) for outcome in outcomes if (r := outcome.result) is not None}
    if len(sets) != 1:
        return ""
    name, count = next(iter(sets))
    return f", measured on {name} (n = {count:,})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, so that it also reads well in a terminal."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _median(values: Sequence[float], text: Any) -> str:
    return text(statistics.median(values)) if values else "–"


def _spread(values: Sequence[float]) -> str:
    return f"{100 * min(values):.1f}–{100 * max(values):.1f} %" if values else "–"
