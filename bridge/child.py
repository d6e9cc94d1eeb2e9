"""A command in a process of its own that never outlives the one that started it, however that one ends.

`python -m bridge.child MODULE WORDS …` is `python -m MODULE WORDS …` that ends when its standard input does. The
parent holds the other end of that pipe: it need do nothing, and a kill, which nobody can catch, closes it too.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_TICK, _GRACE = 0.5, 10.0  # seconds


def run_child(module: str, words: Sequence[str], log: Path, on_tick: Callable[[], None]) -> int:
    """Run `python -m MODULE WORDS …` to its end; an exception here, such as Ctrl-C, ends it at once.

    Args:
        module: of the program.
        words: its arguments.
        log: file that all it says is appended to.
        on_tick: called twice a second meanwhile.

    Returns:
        Its exit code; a negative one is the signal that ended it.
    """
    line = [sys.executable, "-m", "bridge.child", module, *words]
    with open(log, "ab") as said:
        # A session of its own, so that Ctrl-C in a terminal reaches the sweep alone, which then decides.
        process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while True:
                try:
                    return process.wait(_TICK)
                except subprocess.TimeoutExpired:
                    on_tick()
        finally:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:  # too busy to look at its pipe
                process.kill()
                process.wait()


def last_line(log: Path, since: int) -> str:
    """The last line a program wrote so far behind the log's first `since` bytes; "" before the first."""
    return (_tail(log, since) or [""])[-1]


def error_in(log: Path, since: int, program: str) -> str:
    """What a program that failed said behind the log's first `since` bytes: its own message, else its last line."""
    lines = _tail(log, since)
    errors = [line for line in lines if line.startswith(f"{program}: ")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix(f"{program}: ")


def _tail(log: Path, since: int) -> list[str]:
    with open(log, "rb") as file:
        file.seek(max(since, log.stat().st_size - 8192))
        return [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _end_with_parent() -> None:
    # Not through sys.stdin, whose lock an interpreter that ends would wait for.
    while os.read(0, 1024):
        pass
    # With whatever it has started itself; only if the group is its own.
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]  # what the program would find without us
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
