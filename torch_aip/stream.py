"""Iterators that a thread keeps ahead of whoever asks."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_GRACE = 10.0  # seconds


def ahead(iterable: Iterable[Item], depth: int = 2) -> Ahead[Item]:
    """The same items, the next `depth` of them prepared by a thread.

    Args:
        iterable: taken from in the thread alone; a generator is closed there in the end.
        depth: how many items at most are ready or being made.
    """
    return Ahead(iterable, depth)


class Ahead(Generic[Item]):
    """Iterator of `ahead`. What `iterable` raises is raised where its item would have come.

    `close()`, or dropping it, ends the thread once the item it is making is done.
    """

    def __init__(self, iterable: Iterable[Item], depth: int = 2):
        self._made: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._room, self._stop = threading.Semaphore(depth), threading.Event()
        # The thread knows nothing of this object, else it would keep it alive.
        thread = threading.Thread(
            target=_make, args=(iterable, self._made, self._room, self._stop), name="ahead", daemon=True
        )
        thread.start()
        # Also when the interpreter ends, which must not happen in the middle of an item.
        self._end = weakref.finalize(self, _end, thread, self._room, self._stop)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if not self._end.alive:
            raise StopIteration
        kind, value = self._made.get()
        self._room.release()
        if kind == "item":
            return value
        self.close()
        raise StopIteration if kind == "end" else value

    def close(self) -> None:
        """End the thread; nothing comes any more."""
        self._end()


def _make(iterable: Iterable[Any], made: SimpleQueue, room: threading.Semaphore, stop: threading.Event) -> None:
    try:
        items = iter(iterable)
        try:
            while room.acquire() and not stop.is_set():
                try:
                    item = next(items)
                except StopIteration:
                    made.put(("end", None))
                    return
                made.put(("item", item))
                del item  # or it would live until the next one is there
        finally:
            if hasattr(items, "close"):
                items.close()  # pyright: ignore[reportAttributeAccessIssue]
    except BaseException as error:
        made.put(("error", error))


def _end(thread: threading.Thread, room: threading.Semaphore, stop: threading.Event) -> None:
    stop.set()
    room.release()
    if thread is not threading.current_thread():
        thread.join(_GRACE)
