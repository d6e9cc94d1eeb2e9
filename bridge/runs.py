"""A run folder: what was asked for, what happened, what is needed to continue, and at last the result.

``config.yaml`` (the resolved options), ``run.json`` (what must not change, and where it ran),
``metrics.jsonl``, ``state/``, and, written last, ``result.json``. The backend adds ``student/``,
``report.html`` and TensorBoard events.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from bridge.errors import RunError
from bridge.files import atomic_write, json_text, plain, remove_leftovers
from bridge.folders import differences, explained, lock_folder, refuse_foreign
from bridge.metrics import METRIC_KEYS
from bridge.states import State, StateStore

RESULT_KEYS = (
    *METRIC_KEYS,
    "views",
    "steps",
    "seconds",
    "dataset",
    "n",
    "source",
    "seed",
    "student",
    "teacher",
)
_RUN_FORMAT = 1
_BEGUN: set[Path] = set()
"""The folders of the runs that this process has begun, or follows."""


class RunFolder:
    """One run on disk, held by one process at a time. Made by ``RunFolder.start``, also usable with ``with``.

    With several workers only the first holds the folder; the others need nothing from it but the state.

    Attributes:
        path: The folder.
        states: The store behind ``save_state`` and ``load_state``.
    """

    def __init__(self, path: Path, lock: int | None = None) -> None:
        self.path = path
        self.states = StateStore(path / "state")
        self._unlock = None if lock is None else weakref.finalize(self, os.close, lock)
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @classmethod
    def start(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        environment: Mapping[str, Any],
        resume: bool = False,
    ) -> RunFolder:
        """Begin a new run, or take up one that was interrupted. Ours.

        Args:
            path: The run's folder; made if missing. A new run needs it empty.
            config: The resolved options, written to ``config.yaml``.
            fingerprint: What makes the run what it is: hashes of teacher, datum and recipe, the seed, the
                world size. It must be the same when resuming.
            environment: What may change the last bits of the weights: number of threads, versions, platform.
                A difference when resuming is a warning.
            resume: Continue the run in ``path``. One that was killed before its first state begins at step 0.

        Raises:
            RunError: The folder holds a run and ``resume`` is false, or the reverse; the fingerprint differs;
                another process holds the folder; it cannot be written.
        """
        path = Path(path)
        fingerprint, environment = plain(fingerprint), plain(environment)
        with explained(f"Cannot use {path} as a run folder", "Choose another --out, or free some disk space."):
            if resume and not (path / "run.json").is_file():
                raise RunError(
                    f"{path} holds no run to resume; expected a folder with a run.json. Check --out, or "
                    f"leave out --resume to start a new run."
                )
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file; expected a folder, or a name that is free. Choose another --out.")
            path.mkdir(parents=True, exist_ok=True)
            if not resume:
                _refuse_content(path)
            run = cls(path, lock_folder(path, "working on the run in", "--out"))
            # Once more, because another process may have begun a run before this one got the lock.
            try:
                remove_leftovers(path)
                if resume:
                    _compare(path, fingerprint, environment)
                else:
                    _refuse_content(path)
                    _BEGUN.add(path.absolute())
                    atomic_write(
                        path / "run.json",
                        json_text({"format": _RUN_FORMAT, "fingerprint": fingerprint, "environment": environment}),
                    )
                if not run.finished:
                    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
                    atomic_write(path / "config.yaml", text)
            except BaseException:
                run.close()
                raise
        return run

    def close(self) -> None:
        """Let other processes use the folder. Happens by itself when the process ends, however it ends."""
        if self._unlock is not None:
            self._unlock()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Wall time spent on the run in seconds: up to the state resumed from, plus this process's."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").is_file()

    @property
    def result(self) -> dict[str, Any] | None:
        """What ``write_result`` wrote, or ``None`` for a run that has not finished."""
        return _read_json(self.path / "result.json") if self.finished else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to ``metrics.jsonl``: the number of steps done, the seconds so far, and ``values``.

        Raises:
            RunError: The line cannot be written, as on a full disk.
        """
        line = json.dumps({"step": int(step), "seconds": round(self.seconds, 3), **plain(values)}, allow_nan=False)
        with (
            explained(f"Cannot write {self._metrics_path}", "Free some disk space, then add --resume."),
            open(self._metrics_path, "a", encoding="utf-8") as file,
        ):
            file.write(line + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was logged, oldest first; a last line torn by a kill is left out."""
        return read_metrics(self._metrics_path)

    def rewind(self, step: int) -> None:
        """Cut ``metrics.jsonl`` back to the lines of at most ``step`` steps done, and drop a torn last line.

        Raises:
            RunError: The file cannot be rewritten; it is then as it was.
        """
        if not self._metrics_path.exists():
            return
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in self.metrics() if line["step"] <= step]
        with explained(f"Cannot rewrite {self._metrics_path}", "Free some disk space, then add --resume."):
            atomic_write(self._metrics_path, "".join(lines))

    def save_state(self, step: int, arrays: dict[str, NDArray], meta: Mapping[str, Any] | None = None) -> Path:
        """Save what resuming after ``step`` steps needs; see ``StateStore.save``."""
        return self.states.save(step, arrays, {**plain(meta or {}), "seconds": self.seconds})

    def load_state(self) -> State | None:
        """Return the newest readable state and bring metrics and seconds back to it; ``None`` means step 0.

        Raises:
            RunError: Every saved state is damaged, or the metrics cannot be rewritten.
        """
        state = self.states.load()
        self.rewind(0 if state is None else state.step)
        self._seconds_before = 0.0 if state is None else float(state.meta.get("seconds", 0.0))
        return state

    def write_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``result.json``, which marks the run as finished; do it last.

        Args:
            result: Values for RESULT_KEYS, and more if wanted. What is missing becomes ``null`` (``seconds``
                the time spent), and so does a number that is NaN or infinite.

        Returns:
            What was written, every one of RESULT_KEYS first.

        Raises:
            RunError: The file cannot be written.
        """
        complete = plain({**dict.fromkeys(RESULT_KEYS), "seconds": round(self.seconds, 3), **result})
        with explained(f"Cannot write the result into {self.path}", "Free some disk space, then add --resume."):
            atomic_write(self.path / "result.json", json_text(complete))
        return complete

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"


class FollowedRun:
    """A run that another process holds, as its fellow workers see it: they read the state and write nothing.

    Args:
        path: The run's folder, on a file system all workers share.
        resume: As given to ``RunFolder.start``.

    Raises:
        RunError: The run is finished and ``resume`` is false.
    """

    def __init__(self, path: str | Path, resume: bool = False) -> None:
        self.path = Path(path)
        if self.result is not None and not resume:
            raise RunError(f"{self.path} already holds a run; add --resume to continue or choose another --out.")
        _BEGUN.add(self.path.absolute())

    def __enter__(self) -> FollowedRun:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def result(self) -> dict[str, Any] | None:
        """What the holder has written as result, or ``None``."""
        return _read_json(self.path / "result.json") if (self.path / "result.json").is_file() else None

    def load_state(self) -> State | None:
        """Return the newest readable state; ``None`` means step 0.

        Raises:
            RunError: Every saved state is damaged.
        """
        return StateStore(self.path / "state").load()


def saved_in(path: str | Path, resume: bool = False) -> str:
    """What an interrupted run or sweep has left in its folder, and how to go on, in a sentence.

    Args:
        path: Its folder.
        resume: Whether it was to go on with what is there. Else a run that this process did not begin is another one.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        if resume:
            return f"{path} holds no run to resume: check --out, or leave out --resume to start a new run."
        return "Nothing was begun yet: start again with the same line."
    if not resume and path.absolute() not in _BEGUN:
        return f"Nothing was begun yet, and {path} already holds a run: choose another --out, or --resume that one."
    if (path / "runs").is_dir():  # a sweep, each of whose runs keeps its own states
        return "Continue with the same line and --resume: finished runs stay as they are."
    steps = StateStore(path / "state").steps()
    if not steps:
        return "No epoch was complete, so no step is saved: the same line with --resume begins at step 0."
    return f"Saved up to step {steps[-1]}: continue with the same line and --resume."


def check_loss(run: RunFolder | FollowedRun, step: int, loss: float) -> None:
    """Stop a run whose loss is no number any more.

    Raises:
        RunError: with what to do.
    """
    if not math.isfinite(loss):
        raise RunError(
            f"The loss became {loss} by step {step}. Start again with a lower --learning-rate and another --out; the "
            f"states before it are in {run.path / 'state'}."
        )


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl``, also while a run is writing it; none if the file is missing.

    A last line torn by a kill is left out; an unreadable one before it is left out with a warning.

    Raises:
        RunError: The file cannot be read.
    """
    with explained(f"Cannot read {path}", "Check that it is a file you may read."):
        try:
            lines = Path(path).read_bytes().splitlines()
        except FileNotFoundError:
            return []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            values["step"] = int(values["step"])
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                warnings.warn(f"Line {number} of {path} cannot be read and is left out.", stacklevel=2)
            continue
        found.append(values)
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read: {error}. Expected JSON as a run writes it; restore the file."
        ) from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds {type(value).__name__}; expected a JSON object. Restore the file.")
    return value


def _refuse_content(path: Path) -> None:
    if (path / "run.json").exists():
        raise RunError(f"{path} already holds a run; add --resume to continue or choose another --out.")
    refuse_foreign(path, "is no run folder", "--out")


def _compare(path: Path, fingerprint: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    saved = _read_json(path / "run.json")
    if saved.get("format") != _RUN_FORMAT:
        raise RunError(
            f"{path / 'run.json'} has format {saved.get('format')!r}; this version reads {_RUN_FORMAT}. "
            f"Resume with the version that began the run, or start a new one."
        )
    if changed := differences(saved.get("fingerprint", {}), fingerprint):
        raise RunError(
            f"Cannot resume {path}: {', '.join(changed)}. A resumed run must be the one that began; restore what "
            f"changed, or start a new run with another --out."
        )
    if changed := differences(saved.get("environment", {}), environment):
        warnings.warn(
            f"Resuming {path} in another environment: {', '.join(changed)}. The weights may differ in the last bits "
            f"from those of a run without interruption.",
            stacklevel=3,
        )
