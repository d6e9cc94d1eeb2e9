"""A sweep as one picture: a line over numbers, points over names, several lines or a map over two options."""

from __future__ import annotations

import io
import itertools
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.sweep.grid import Axis
from bridge.sweep.results import Outcome, by_point, label_of, measure_of, values_of

# Okabe & Ito's colours, which the colour-blind tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#666666"
_WORDS = {"student_top1": "student's top-1 accuracy", "agreement": "student's agreement with its teacher"}
_LONGEST_LABEL = 28
_CROWDED = 13


def picture(axes: Sequence[Axis], outcomes: Sequence[Outcome], published: Mapping[str, float]) -> bytes:
    """Draw medians, every seed, and the teacher's accuracy. Ours.

    One option: a line over numbers (logarithmic where they span more than a factor of ten), points over names. Two:
    a line for each name over numbers, else a map. More: one panel per option, over all values of the others.

    Args:
        axes: the varied options.
        outcomes: of every run.
        published: label of a grid point, as `label_of` gives it → the paper's accuracy as a fraction.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.figure import Figure

    shown = [number for number, axis in enumerate(axes) if len(axis.values) > 1] or [0]
    measure = measure_of(outcomes)
    teachers = sorted(set(values_of(outcomes, "teacher_top1"))) if measure == "student_top1" else []
    sets = sorted({str(outcome.result["dataset"]) for outcome in outcomes if outcome.result is not None})
    quantity = _WORDS[measure] + (f" on {sets[0]}" if len(sets) == 1 else "") + " [%]"
    numeric = [number for number in shown if axes[number].numeric]
    figure, below = Figure(layout="constrained", dpi=150), ""
    if len(shown) == 2 and numeric and len(axes[_other(shown, numeric[0])].values) <= len(_COLOURS):
        figure.set_size_inches(7.5, 4.8)
        _lines(figure.subplots(), axes, numeric[0], _other(shown, numeric[0]), outcomes, measure, teachers, quantity)
    elif len(shown) == 2:
        _map(figure, axes, shown[0], shown[1], outcomes, measure, published)
        below = f"\n{quantity}" + (f", teacher {100 * teachers[0]:.1f}" if len(teachers) == 1 else "")
    else:
        heights = [3.6 if axes[number].numeric else 1.2 + 0.42 * len(axes[number].values) for number in shown]
        figure.set_size_inches(7.5, sum(heights) + 0.4)
        panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, number in zip(panels, shown):
            draw = _curve if axes[number].numeric else _points
            draw(panel, axes[number], _along(number, axes[number], outcomes), measure, teachers, published, quantity)
        # below everything, where it hides no point
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    others = [axes[number].option for number in range(len(axes)) if len(axes[number].values) > 1]
    seeds = len(next(iter(by_point(outcomes).values())))
    what = " × ".join(_words(option) for option in others) or _words(axes[0].option)
    if len(shown) > 2:
        per = "medians over all runs with the same value"
    else:
        per = f"medians and ranges of {seeds} seeds" if seeds > 1 else "one seed each"
    title = f"{what[:1].upper()}{what[1:]}: {per}{below}"
    figure.suptitle(title, fontsize=12 if not below else 10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _curve(
    panel: Any,
    axis: Axis,
    groups: Sequence[Sequence[Outcome]],
    measure: str,
    teachers: Sequence[float],
    published: Mapping[str, float],
    quantity: str,
) -> None:
    """One numeric option: the median as a line, the span of the seeds as a band, every seed as a dot."""
    _line(panel, axis, groups, measure, _COLOURS[0], "median" if max(map(len, groups)) > 1 else "student")
    _teacher_line(panel, teachers, panel.axhline)
    paper = [(value, published[label]) for value, label in zip(axis.values, axis.labels) if label in published]
    if paper:
        panel.plot(*zip(*((x, 100 * y) for x, y in paper)), "D", mfc="none", color=_COLOURS[1], label="paper")
    _numeric_scale(panel, axis)
    _frame(panel, "y")
    panel.set_ylabel(textwrap.fill(quantity, 38))


def _points(
    panel: Any,
    axis: Axis,
    groups: Sequence[Sequence[Outcome]],
    measure: str,
    teachers: Sequence[float],
    published: Mapping[str, float],
    quantity: str,
) -> None:
    """One option with names: a row for each, with the median written beside it."""
    several = max(map(len, groups)) > 1
    for row, group in enumerate(groups):
        values = _percents(group, measure)
        if not values:
            panel.text(0.01, row, _missing(group), color=_GREY, va="center", transform=panel.get_yaxis_transform())
            continue
        if several:
            panel.plot([min(values), max(values)], [row, row], color=_COLOURS[0], alpha=0.35, linewidth=5, zorder=1)
            label = _once(panel, "seed")
            panel.plot(values, [row] * len(values), ".", color=_COLOURS[0], alpha=0.6, zorder=2, label=label)
        middle, label = statistics.median(values), _once(panel, "median" if several else "student")
        panel.plot(middle, row, "o", color=_COLOURS[0], markersize=8, zorder=3, label=label)
        panel.annotate(
            f"{middle:.1f}", (middle, row), (0, 7), textcoords="offset points", ha="center", fontsize=9, zorder=4
        )
    paper = [(100 * published[label], row) for row, label in enumerate(axis.labels) if label in published]
    if paper:
        panel.plot(*zip(*paper), "D", mfc="none", color=_COLOURS[1], label="paper", zorder=3)
    if len(teachers) > 1:
        marks = [
            (100 * values[0], row) for row, group in enumerate(groups) if (values := values_of(group, "teacher_top1"))
        ]
        panel.plot(*zip(*marks), "|", color=_GREY, markersize=18, label="teacher")
    _teacher_line(panel, teachers, panel.axvline)
    panel.set_yticks(range(len(axis.labels)), _short(axis.labels))
    panel.set_ylim(len(axis.labels) - 0.4, -0.75)
    panel.margins(x=0.06)
    _frame(panel, "x")
    panel.set_xlabel(quantity)
    panel.set_ylabel(_words(axis.option))


def _lines(
    panel: Any,
    axes: Sequence[Axis],
    along: int,
    other: int,
    outcomes: Sequence[Outcome],
    measure: str,
    teachers: Sequence[float],
    quantity: str,
) -> None:
    """A numeric option along, one line for each value of the other."""
    for number, label in enumerate(_short(axes[other].labels)):
        here = [outcome for outcome in outcomes if outcome.run.point[other] == number]
        _line(panel, axes[along], _along(along, axes[along], here), measure, _COLOURS[number], label, band=False)
    _teacher_line(panel, teachers, panel.axhline)
    _numeric_scale(panel, axes[along])
    _frame(panel, "y")
    panel.set_ylabel(textwrap.fill(quantity, 38))
    panel.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), title=_words(axes[other].option), frameon=False, fontsize=9
    )


def _map(
    figure: Any,
    axes: Sequence[Axis],
    down: int,
    across: int,
    outcomes: Sequence[Outcome],
    measure: str,
    published: Mapping[str, float],
) -> None:
    """Two options as rows and columns; every cell has its median, and small the paper's, lowest and highest."""
    import numpy as np

    rows, columns = axes[down], axes[across]
    figure.set_size_inches(max(5.5, 2.6 + 0.85 * len(columns.values)), max(3.0, 2.0 + 0.6 * len(rows.values)))
    panel = figure.subplots()
    cells = np.full((len(rows.values), len(columns.values)), np.nan)
    groups = {(point[down], point[across]): group for point, group in by_point(outcomes).items()}
    for place, group in groups.items():
        if values := _percents(group, measure):
            cells[place] = statistics.median(values)
    measured = cells[~np.isnan(cells)]
    low, high = (float(measured.min()), float(measured.max())) if measured.size else (0.0, 100.0)
    high = max(high, low + 1)  # equal ones are not to look different
    panel.imshow(np.ma.masked_invalid(cells), cmap="viridis", aspect="auto", vmin=low, vmax=high)
    for (row, column), group in groups.items():
        values = _percents(group, measure)
        dark = bool(values) and cells[row, column] < (low + high) / 2
        ink = ("white" if dark else "black") if values else _GREY
        middle = f"{cells[row, column]:.1f}" if values else _missing(group)
        lifted = len(values) > 1
        panel.text(column, row, middle, ha="center", va="bottom" if lifted else "center", color=ink, fontsize=10)
        if lifted:
            spread = f"{min(values):.1f}–{max(values):.1f}"
            panel.text(column, row + 0.06, spread, ha="center", va="top", color=ink, fontsize=6.5)
        if (paper := published.get(label_of(axes, group[0].run.point))) is not None:
            panel.text(column, row - 0.3, f"paper {100 * paper:.1f}", ha="center", color=ink, fontsize=6.5)
    turned = max(map(len, columns.labels)) > 9
    panel.set_xticks(range(len(columns.labels)), _with_teacher(axes, across, outcomes))
    if turned:
        panel.tick_params(axis="x", labelrotation=30)
        for tick in panel.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(rows.labels)), _with_teacher(axes, down, outcomes))
    panel.set_xlabel(_words(columns.option))
    panel.set_ylabel(_words(rows.option))
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)


def _with_teacher(axes: Sequence[Axis], number: int, outcomes: Sequence[Outcome]) -> list[str]:
    """Labels of an option; those of teachers with their own accuracy."""
    labels = _short(axes[number].labels)
    if axes[number].option != "teacher":
        return labels
    own = [values_of(group, "teacher_top1") for group in _along(number, axes[number], outcomes)]
    return [f"{label}\n({100 * values[0]:.1f})" if values else label for label, values in zip(labels, own)]


def _line(
    panel: Any,
    axis: Axis,
    groups: Sequence[Sequence[Outcome]],
    measure: str,
    colour: str,
    label: str,
    band: bool = True,
) -> None:
    found = sorted(
        (value, values) for value, group in zip(axis.values, groups) if (values := _percents(group, measure))
    )
    xs = [value for value, _ in found]
    panel.plot(
        xs, [statistics.median(values) for _, values in found], "o-", color=colour, markersize=6, zorder=3, label=label
    )
    if any(len(values) > 1 for _, values in found):
        low, high = [min(values) for _, values in found], [max(values) for _, values in found]
        if band:
            panel.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0, label="lowest to highest")
            dots = [(x, value) for x, values in found for value in values]
            panel.plot(*zip(*dots), ".", color=colour, alpha=0.6, zorder=2, label="seed")
        else:
            panel.vlines(xs, low, high, color=colour, alpha=0.35, linewidth=3, zorder=2)


def _numeric_scale(panel: Any, axis: Axis) -> None:
    """The values tried as ticks, and a logarithm where they span more than a factor of ten."""
    from matplotlib.ticker import NullFormatter, NullLocator

    panel.set_xlabel(_words(axis.option))
    positive = min(axis.values) > 0
    if positive and max(axis.values) > 10 * min(axis.values):
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    if len(axis.values) < _CROWDED:
        panel.set_xticks(axis.values, axis.labels)
        panel.xaxis.set_minor_locator(NullLocator())
        if len("".join(axis.labels)) > 50 or _near(panel, axis):
            panel.tick_params(axis="x", labelrotation=60)
    panel.margins(x=0.06)


def _near(panel: Any, axis: Axis) -> bool:
    """Whether labels of neighbouring ticks would touch."""
    places = sorted(math.log(value) if panel.get_xscale() == "log" else float(value) for value in axis.values)
    gaps = [b - a for a, b in itertools.pairwise(places)]
    return bool(gaps) and min(gaps) / (places[-1] - places[0]) < 0.012 * (max(map(len, axis.labels)) + 1)


def _teacher_line(panel: Any, teachers: Sequence[float], draw: Any) -> None:
    if len(teachers) == 1:
        draw(
            100 * teachers[0], color=_GREY, linestyle="--", linewidth=1.2, label=f"teacher {100 * teachers[0]:.1f} %",
            zorder=0,
        )  # fmt: skip


def _frame(panel: Any, grid: str) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=grid, color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)


def _along(number: int, axis: Axis, outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """For every value of an axis the runs that have it."""
    return [
        [outcome for outcome in outcomes if outcome.run.point[number] == value] for value in range(len(axis.values))
    ]


def _percents(group: Sequence[Outcome], measure: str) -> list[float]:
    return [100 * value for value in values_of(group, measure)]


def _missing(group: Sequence[Outcome]) -> str:
    return "failed" if any(outcome.error for outcome in group) else "–"


def _once(panel: Any, label: str) -> str | None:
    """A label for the legend, unless it stands there already."""
    return None if label in panel.get_legend_handles_labels()[1] else label


def _other(pair: Sequence[int], one: int) -> int:
    return next(number for number in pair if number != one)


def _words(option: str) -> str:
    """An option as a title or axis calls it."""
    return {"without": "left out", "image": "source", "audio": "source"}.get(option, option.replace("_", " "))


def _short(labels: Sequence[str]) -> list[str]:
    """Long labels without their middles, as long as all stay different."""
    half = _LONGEST_LABEL // 2
    short = [f"{label[:half]}…{label[-half:]}" if len(label) > _LONGEST_LABEL else label for label in labels]
    return short if len(set(short)) == len(labels) else list(labels)
