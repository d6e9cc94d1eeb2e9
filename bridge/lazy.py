"""Arrays that decode what is asked for: indices, slices and threads, whatever lies in the files."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np


class Lazy(ABC):
    """[n, ...] of one type; slices and integer arrays give arrays, decoded by as many threads as there are cores."""

    dtype = np.dtype(np.uint8)

    def __init__(self) -> None:
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._turn = threading.RLock()

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """[n, ...]"""

    @abstractmethod
    def _slice(self, start: int, stop: int) -> np.ndarray:
        """Rows that follow each other; the next as many may be decoded ahead."""

    @abstractmethod
    def _decoded(self, rows: Sequence[int]) -> np.ndarray:
        """Any rows, 0 ≤ row < n."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What all of them take decoded."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._slice(start, max(stop, start)) if step == 1 else self._decoded(range(start, stop, step))
        if isinstance(key, (int, np.integer)):
            return self._decoded([range(len(self))[key]])[0]
        return self._decoded(np.arange(len(self))[key].tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{type(self).__name__} are decoded into a new array; copy=False cannot be had.")
        return self[:] if dtype is None else self[:].astype(dtype)

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a thread do something."""
        with self._turn:
            if self._pool is None or not self._has_threads():
                self._pool = os.getpid(), ThreadPoolExecutor(min(cores(), 32), type(self).__name__.lower())
            return self._pool[1].submit(task, *arguments)

    def _has_threads(self) -> bool:
        return self._pool is not None and self._pool[0] == os.getpid()  # threads do not survive a fork


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
