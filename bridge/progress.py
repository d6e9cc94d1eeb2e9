"""A bar with rate and remaining time, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(
    doing: str, unit: str, total: int, done: int = 0, *, show: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show how far something long is.

    Args:
        doing: What is done.
        unit: What is counted.
        total: How many there are.
        done: How many are done already.
        show: False, or nothing left to do: no bar.

    Yields:
        A function that is told how many more are done.
    """
    if not show or done == total:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(unit, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


class StepProgress:
    """Training steps: a bar with rate and remaining time on a terminal, a line every ten seconds elsewhere.

    Args:
        what: is being done.
        epochs, steps_per_epoch, batch_size: how much there is to do.
        first_step: where this process begins.
        unit: what a step holds so many of.
    """

    def __init__(
        self,
        what: str,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        first_step: int = 0,
        unit: str = "images",
    ) -> None:
        self._what, self._batch, self._unit = what, batch_size, unit
        self._total, self._first, self._done = epochs * steps_per_epoch, first_step, first_step
        self._bar: Any = None
        self._note = ""
        self._compiled = False

    def start(self) -> None:
        """Begin to count time."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._first, self._started = self._done, time.monotonic()
        self._said = self._started
        console = Console(file=sys.stderr)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
                TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, note="")
            self._bar.start()

    def show(self, done: int, note: str | None = None) -> None:
        """Say that so many steps are done.

        Args:
            done: steps since the beginning of the run.
            note: what else to say from now on.
        """
        self._done = done
        self._note = self._note if note is None else note
        if not self._compiled and done < self._total:  # the first of them take as long as hundreds of others
            self._compiled, self._first, self._started = True, done, time.monotonic()
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=f"{self._rate():,.0f}/s  {self._note}")
        elif time.monotonic() - self._said > 10 or done >= self._total:
            self._said = time.monotonic()
            left = (self._total - done) * self._batch / max(self._rate(), 1e-9)
            print(
                f"{self._what}: step {done}/{self._total}, {self._rate():,.0f} {self._unit}/s, {left:.0f} s left"
                + (f", {self._note}" if self._note else ""),
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was, also after an interrupt."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rate(self) -> float:
        return (self._done - self._first) * self._batch / max(time.monotonic() - self._started, 1e-9)


def note_of(values: dict[str, Any]) -> str:
    """Measurements of an epoch in few words."""
    return "  ".join(f"{key} {float(value):.3g}" for key, value in values.items())
