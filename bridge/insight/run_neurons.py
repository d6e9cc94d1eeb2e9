"""What the report of a distillation shows of neurons: some classes as teacher and student know them, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.errors import AipError
from bridge.insight.neuron_grid import neuron_grid_for_report
from bridge.insight.options import VisualizeConfig
from bridge.insight.visualizing import Inspected, captions, class_unit, maximised

_STEPS, _LEARNING_RATE = 32, 0.1
"""Of gradient ascent: enough to see the class, an eighth of what `visualize` takes."""
_MANY, _FEW, _COLUMNS = 10, 5, 5
"""Classes of networks for small pictures and for large ones; beside each other."""
_SMALL = 64
"""Pixels of the longer side of a small picture."""
_LARGEST, _SMOOTH = 96, 1.5
"""Larger pictures are drawn of so many pixels, with less of the high frequencies, of which few steps make but noise."""
_SHARE, _LEAST = 0.02, 20.0
"""Of a run's time, and seconds: what the pictures of both networks may take."""


class RunNeurons(NamedTuple):
    """What the report shows.

    Attributes:
        picture: a PNG; None: there is none.
        text: what it shows, or why there is none.
    """

    picture: bytes | None
    text: str


class _TooLong(AipError):
    """The pictures would take longer than they are worth."""


def neurons_of_run(
    inspect: Sequence[Callable[[], Inspected]],
    names: Sequence[str] | None,
    seen: Sequence[int] | NDArray[np.integer],
    seed: int,
    seconds: float,
) -> RunNeurons:
    """Draw some classes of a teacher and of its student; the same seed makes the same pictures, or none.

    But for the last bits of TensorFlow on a GPU.

    Args:
        inspect: a way to the teacher, and one to the student.
        names: of the classes; None: they have numbers alone.
        seen: how many views the teacher put into each class: of many, those it saw most are drawn.
        seed: of the noise that pictures begin as, and of their moves.
        seconds: that the run took. Pictures that would take more than a fiftieth of it, and more than a few seconds,
            are left out, as those of large networks on a CPU are: how many steps fit in would make the picture depend
            on the machine.
    """
    allowed = max(_LEAST, _SHARE * seconds)
    try:
        networks = [way() for way in inspect]
        side = 0 if networks[0].sounds else max(networks[0].shape)
        units = [class_unit(k, names) for k in _most_seen(np.asarray(seen), _MANY if side <= _SMALL else _FEW)]
        config = VisualizeConfig(
            steps=_STEPS, learning_rate=_LEARNING_RATE, seed=seed, decay=_SMOOTH if side > _SMALL else 1.0,
            image_size=_LARGEST if side > _LARGEST else None,
        )  # fmt: skip
        found = [maximised(config, network, units, _Patience(allowed / len(networks))) for network in networks]
        picture = neuron_grid_for_report(
            [list(some.pictures) for some in found],
            [unit.label for unit in units],
            [captions(role, some, units) for role, some in zip(("teacher", "student"), found)],
            _COLUMNS,
        )
    except AipError as error:
        return RunNeurons(None, f"Not drawn: {error}")
    except MemoryError:
        return RunNeurons(None, "Not drawn: there is not enough memory.")
    which = "each class" if len(units) == len(seen) else f"each of the {len(units)} classes the teacher saw most"
    like, made = ("sounds", "spectrogram") if networks[0].sounds else ("looks", "picture")
    return RunNeurons(
        picture,
        f"What {which} {like} like to teacher and student: a {made} made to raise that class's score, in {_STEPS} "
        f"steps from noise; seed {seed}. Below it stand the score it reached and the probability of the class.",
    )


def _most_seen(seen: np.ndarray, count: int) -> list[int]:
    """Of a few classes all in their order, of many the most frequent ones."""
    if len(seen) <= count:
        return list(range(len(seen)))
    return np.argsort(-seen, kind="stable")[:count].tolist()


class _Patience:
    """Ends the ascent of a network as soon as it is clear that it would take too long.

    Args:
        seconds: it may take.
    """

    def __init__(self, seconds: float) -> None:
        self._allowed, self._began, self._done = seconds, _clocks(), 0

    def __call__(self, done: int) -> None:
        now = _clocks()
        if self._done == 0:
            self._first = now  # which made the graph
        self._done += done
        if self._done < 3:
            return
        each = (now - self._first) / (self._done - 1)
        needed = float((now - self._began + each * (_STEPS - self._done)).min())
        if needed > self._allowed:
            raise _TooLong(
                f"it would take about {needed:.0f} s for one network alone. `visualize` takes the time it needs."
            )


def _clocks() -> NDArray[np.float64]:
    """Seconds of the wall, and of this process: where others compute beside it, less; of many threads, more."""
    return np.array([time.monotonic(), time.process_time()])
