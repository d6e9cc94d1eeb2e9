"""Ranked sources as a table and as one picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.insight.measures import HEADLINE, MEASURES

NOT_OF_SOUNDS = "Of sounds it was not measured how well this order, or any figure here, predicts what a student learns."
_BEST, _OTHER = "#0072B2", "#9AA5B1"
_BETTER = {"high": "higher is better", "low": "lower is better", "": ""}
_KEYS = (HEADLINE, *(key for key in MEASURES if key != HEADLINE))


class Scored(NamedTuple):
    """A source with its measures.

    Attributes:
        name: as it is shown.
        given: as it was asked for.
        figures: by the keys of `MEASURES`.
        picture: uint8 [height, width, 3], of an image or of a sound's spectrogram.
        sound: whether it is one.
    """

    name: str
    given: str
    figures: dict[str, float]
    picture: NDArray[np.uint8]
    sound: bool = False


def table(found: Sequence[Scored]) -> str:
    """The sources and their measures in columns, the headline first; of sounds a line that says what is not known."""
    rows = [["source", *(MEASURES[key].label for key in _KEYS)]]
    rows += [[one.name, *(_written(one.figures, key) for key in _KEYS)] for one in found]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for name, *cells in rows:
        lines.append("  ".join([name.ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(cells, widths[1:]))]))
    return "\n".join([*lines, *([NOT_OF_SOUNDS] if any(one.sound for one in found) else [])])


def picture(found: Sequence[Scored], title: str) -> bytes:
    """The sources, best first, each with its picture and a bar for every measure: a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 1.3 + 0.8 * len(found)), layout="constrained", dpi=110)
    grid = figure.add_gridspec(len(found), 2 + len(_KEYS), width_ratios=[1.2, 1.7, 1.6, *[1] * (len(_KEYS) - 1)])
    for row, one in enumerate(found):
        panel = figure.add_subplot(grid[row, 0])
        panel.imshow(_thumbnail(one.picture), aspect="auto" if one.picture.shape[1] > 400 else "equal")
        panel.set_axis_off()
        words = figure.add_subplot(grid[row, 1])
        words.set_axis_off()
        words.text(0, 0.5, _folded(one.name), va="center", fontsize=10, parse_math=False)
    for column, key in enumerate(_KEYS, 2):
        panel = figure.add_subplot(grid[:, column])
        values = [one.figures[key] for one in found]
        colour = _BEST if key == HEADLINE else _OTHER
        panel.barh(range(len(found)), [0 if math.isnan(v) else v for v in values], height=0.55, color=colour)
        largest = max((v for v in values if not math.isnan(v)), default=0.0) or 1.0
        for place, value in enumerate(values):
            shown = 0.0 if math.isnan(value) else value
            panel.text(shown + 0.03 * largest, place, _written(found[place].figures, key), va="center", fontsize=8)
        panel.set_xlim(0, 1.45 * largest)
        panel.set_ylim(len(found) - 0.5, -0.5)
        panel.set_yticks([])
        panel.set_xticks([])
        better = "" if found[0].sound else _BETTER[MEASURES[key].better]
        weight = "bold" if key == HEADLINE else "normal"
        panel.set_title(f"{MEASURES[key].label}\n", fontsize=10, weight=weight)
        panel.text(0.0, 1.01, better, transform=panel.transAxes, fontsize=7, color="#666666", va="bottom")
        for side in ("top", "right", "bottom"):
            panel.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=12, parse_math=False)  # a "$" is one
    if any(one.sound for one in found):
        figure.supxlabel(NOT_OF_SOUNDS, fontsize=9, color="#666666")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _thumbnail(image: NDArray[np.uint8], longest: int = 240) -> NDArray[np.uint8]:
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((4 * longest, longest) if image.shape[1] > 400 and image.shape[0] <= 64 else (longest, longest))
    return np.asarray(small)


def _written(figures: Mapping[str, float], key: str) -> str:
    value = figures[key]
    return "-" if math.isnan(value) else format(value, MEASURES[key].form)


def _folded(name: str, width: int = 18) -> str:
    return "\n".join(name[k : k + width] for k in range(0, min(len(name), 3 * width), width))
