"""A bar with rate and remaining time, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
