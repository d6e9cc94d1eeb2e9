"""Which rows of which steps are drawn where: what the endless streams of views of both backends share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bridge.datum.video import ClipNumbers
from bridge.datum.views import CountedSet, ViewNumbers
from bridge.errors import ConfigError, RecipeError

Numbers = ViewNumbers | ClipNumbers
"""What a set draws in place of pixels."""
Shard = tuple[int, int]
"""Index of a host (or process) and how many share each step."""
Shown = Callable[[np.ndarray], np.ndarray]
"""Steps, int64 [k] → the steps whose views are shown at them, int64 [k]."""


def check_stream(batch_size: int, render: str) -> None:
    """Raises: RecipeError: a value is out of range."""
    if batch_size < 1:
        raise RecipeError(f"batch_size (={batch_size}) must be at least 1.")
    if render not in ("host", "device"):
        raise RecipeError(f"render (={render!r}) must be 'host' (the data set yields images) or 'device' (numbers).")


def shard_rows(batch_size: int, shard: Shard) -> np.ndarray:
    """The rows of each step that host `shard[0]` of `shard[1]` draws: int64 [batch_size / hosts].

    Raises:
        ConfigError: the rows cannot be shared out evenly.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ConfigError(f"shard (={shard}) must be (index, count) with 0 ≤ index < count.")
    if batch_size % count:
        raise ConfigError(f"batch_size (={batch_size}) must be a multiple of the {count} hosts that share it.")
    share = batch_size // count
    return np.arange(index * share, (index + 1) * share)


def step_numbers(
    view_set: CountedSet, batch_size: int, steps: np.ndarray, rows: np.ndarray, shown: Shown | None = None
) -> Any:
    """Numbers of the rows `rows` of the steps `steps` (int64 [k]), one step after another.

    Returns:
        `ViewNumbers` of a `ViewSet`, `ClipNumbers` of a `ClipSet`, `AudioNumbers` of an `AudioSet`.
    """
    steps = steps if shown is None else shown(steps)
    return view_set.numbers((steps[:, None] * batch_size + rows).ravel())


def steps_at_once(rows: int, pixels: int) -> int:
    """How many steps to draw together: half a thousand small views or half a million pixels, whichever is less.

    Args:
        rows: of a step.
        pixels: of a row.
    """
    return max(1, min(512 // rows, 2**19 // (rows * pixels)))
