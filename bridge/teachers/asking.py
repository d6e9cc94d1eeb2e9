"""Teachers that are asked about arrays, outside of any graph: in portions, again if they fail, and never twice."""

from __future__ import annotations

import base64
import hashlib
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.answer_log import AnswerLog

DTYPES = ("float32", "uint8")
_SLACK = 1e-2
"""By how much probabilities may miss a sum of 1: some round to two digits. Ours."""


class NoAnswer(OSError):
    """There was no answer this time; another time there may be.

    Args:
        why: A clause that follows the name of who was asked.
        wait: Seconds the other side asks to be left alone for.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Asked:
    """A function of arrays as a teacher's model: `Teacher(Asked(function), outputs=…, classes=…, digest=…)`.

    It is never asked in a training step, so its answers have to be stored (`fit(…, store_teacher=FOLDER)`). In that
    folder every answer is logged before the next question: a run that was killed asks nothing again but what had no
    answer yet.

    Args:
        function: A batch of images ``[batch, height, width, 3]``, RGB (or waveforms ``[batch, samples]``), as a NumPy
            array → class numbers ``[batch]``, or scores ``[batch, classes]``.
        dtype: What the function takes: ``float32``, images in [0, 1]; or ``uint8``, images rounded to 8 bits.
        max_batch: Images per call.
        attempts: How often to ask in all while it raises an OSError, such as a broken connection or a timeout.
        wait: Seconds before the second attempt; twice as long before each further one, shortened at random by up to
            a half, so that many that were turned away do not come back at once.
        longest_wait: Seconds, at most.
        seed: Of that randomness.
        budget: Images it may be asked about in all, counted in the log; what fails does not count. None: no limit.
        name: Who is asked, for messages.
        sleep: How to wait.

    Raises:
        ConfigError: A value that makes no sense.

    Example:
        >>> Asked(lambda images: images.mean((1, 2, 3)) > 0.5, max_batch=8)  # doctest: +SKIP
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        *,
        dtype: str = "float32",
        max_batch: int = 64,
        attempts: int = 6,
        wait: float = 0.5,
        longest_wait: float = 30.0,
        seed: int = 0,
        budget: int | None = None,
        name: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"Asked takes a function of images, not a {type(function).__name__}.")
        if dtype not in DTYPES:
            raise ConfigError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}.")
        for what, value in (("max_batch", max_batch), ("attempts", attempts), ("budget", budget)):
            if value is not None and value < 1:
                raise ConfigError(f"{what} (={value}) must be at least 1.")
        self.name = name or f"the function {getattr(function, '__name__', type(function).__name__)}"
        self.budget = budget
        self._function, self._dtype, self._max_batch = function, dtype, max_batch
        self._attempts, self._wait, self._longest, self._sleep = attempts, wait, longest_wait, sleep
        self._random = random.Random(seed)
        self._log: AnswerLog | None = None
        self._unlogged = 0

    def __call__(self, images: np.ndarray) -> Any:
        """Ask without log, budget or another attempt."""
        return self._function(images)

    @property
    def spent(self) -> int:
        """How many answers it has given: those in the log, or before there is one those of this process."""
        return self._unlogged + (0 if self._log is None else self._log.answers)

    def remember(self, folder: str | Path) -> None:
        """From now on look answers up in the log of a folder, and write new ones there.

        Raises:
            RunError: The log cannot be read.
        """
        if self._log is None or self._log.path.parent != Path(folder):
            self._log = AnswerLog(folder)

    def scores(self, images: np.ndarray, outputs: str, classes: int) -> np.ndarray:
        """Answer a batch, asking only about images that the log does not know.

        Args:
            images: float32 ``[batch, …]``, as the function takes them.
            outputs: What the function gives: ``logits``, ``probabilities`` or ``labels``.
            classes: Of how many.

        Returns:
            float32 ``[batch, classes]``; labels as one-hot vectors.

        Raises:
            TeacherError: The answers are none, the budget is spent, or all attempts were in vain. What was answered
                before is in the log.
        """
        given = np.ascontiguousarray(_as_bytes(images) if self._dtype == "uint8" else images, dtype=self._dtype)
        keys = [_key(image) for image in given]
        known: dict[str, str] = {}
        if self._log is not None:
            known = {key: answer for key in set(keys) if (answer := self._log.get(key)) is not None}
        rows = {key: row for row, key in enumerate(keys) if key not in known}
        self._check_budget(len(rows))
        for portion in _portions(list(rows), self._max_batch):
            found = checked(self._answer_of(given[[rows[key] for key in portion]]), len(portion), outputs, classes,
                            self.name)  # fmt: skip
            texts = [_text(answer, outputs) for answer in found]
            if self._log is None:
                self._unlogged += len(portion)
            else:
                self._log.append(zip(portion, texts))
            known |= zip(portion, texts)
        return np.stack([_scores(known[key], outputs, classes) for key in keys])

    def _check_budget(self, more: int) -> None:
        if self.budget is not None and self.spent + more > self.budget:
            raise TeacherError(
                f"{_capital(self.name)} has answered {self.spent:,} of the {self.budget:,} images it may be asked "
                f"about, and {more:,} more are to come. Allow {self.spent + more:,} or more (--query-budget "
                f"{self.spent + more}); what it has answered is kept."
            )

    def _answer_of(self, batch: np.ndarray) -> Any:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._function(batch)
            except OSError as error:
                why = str(error) or type(error).__name__
                if attempt == self._attempts:
                    raise TeacherError(
                        f"{_capital(self.name)} {_clause(error, why)}; asked {attempt} times. What it answered before "
                        "is kept: start again, once it answers, to go on."
                    ) from error
                wait = min(self._longest, self._wait * 2 ** (attempt - 1)) * self._random.uniform(0.5, 1)
                if isinstance(error, NoAnswer) and error.wait is not None:
                    wait = min(self._longest, max(wait, error.wait))
                warnings.warn(f"{self.name} {_clause(error, why)}; asking again.", RuntimeWarning, stacklevel=2)
                self._sleep(wait)
            except TeacherError:
                raise
            except Exception as error:  # whatever the user's function raises
                raise TeacherError(f"{_capital(self.name)} failed ({type(error).__name__}: {error}).") from error
        raise AssertionError


def checked(answer: Any, rows: int, outputs: str, classes: int, name: str) -> np.ndarray:
    """Whatever came as an answer, as class numbers int64 ``[rows]`` or float32 scores ``[rows, classes]``.

    Args:
        answer: Class numbers ``[rows]``, ``[rows, 1]`` or one-hot; or scores.
        rows, classes: How many there should be.
        outputs: ``logits``, ``probabilities`` or ``labels``.
        name: Whose answer it is.

    Raises:
        TeacherError: It is no such thing.
    """
    who = _capital(name)
    try:
        array = np.asarray(answer)
        if array.dtype.kind not in "biuf":
            raise ValueError
    except ValueError:
        raise TeacherError(f"{who} answers with a {type(answer).__name__} that is no array of numbers.") from None
    if outputs == "labels":
        if array.shape == (rows, classes) and classes > 1:
            array = array.argmax(-1)  # one-hot
        array = array[:, 0] if array.shape == (rows, 1) else array
        if array.shape != (rows,):
            raise TeacherError(f"{who} gives labels of shape {list(array.shape)} for {rows} images; expected [{rows}].")
        bad = np.flatnonzero(~((array >= 0) & (array < classes) & (array == np.floor(array))))
        if bad.size:
            raise TeacherError(
                f"{who} gives the label {array[bad[0]]:g}; it has {classes} classes, numbered from 0 to {classes - 1}."
            )
        return array.astype(np.int64)
    if array.shape != (rows, classes):
        raise TeacherError(
            f"{who} gives {outputs} of shape {list(array.shape)} for {rows} images; expected [{rows}, {classes}], one "
            "column per class. If its classes have changed it is another teacher: use another folder."
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise TeacherError(f"{who} gives {outputs} that hold NaN or infinity.")
    if outputs == "probabilities":
        sums = array.sum(-1)
        if array.min() < -_SLACK or np.abs(sums - 1).max() > _SLACK:
            row = int(np.abs(sums - 1).argmax())
            raise TeacherError(
                f"{who} gives probabilities of {array[row].min():.3g} to {array[row].max():.3g} that sum to "
                f"{sums[row]:.3g}; expected none below 0 and a sum of 1. Are they logits?"
            )
    return array


def check_budget(budget: int | None, steps: int, batch: int, test: int = 0, option: str | None = None) -> None:
    """Refuse a budget that is smaller than what a run asks about, before it asks.

    Args:
        budget: Images the teacher may be asked about in all; None: any number.
        steps, batch: The stored views.
        test: Images that student and teacher are measured on.
        option: Of the command line, that would make the views fewer.

    Raises:
        ConfigError: With numbers that would do.
    """
    views = steps * batch
    if budget is None or views + test <= budget:
        return
    fit = (budget - test) // batch
    fewer = f"{fit} steps ({fit * batch:,} views)"
    if option is not None:
        number = fit if option == "--steps-per-epoch" else fit * batch
        fewer = f"{option} {number}" + ("" if number == fit * batch else f" ({fit * batch:,} views)")
    measured = f", and {test:,} images that both are measured on, {views + test:,} in all" if test else ""
    raise ConfigError(
        f"The teacher would be asked about {views:,} views ({steps:,} steps of {batch}){measured}; the query budget is "
        f"{budget:,}. Nothing was asked. Give {'--query-budget' if option else 'a budget of'} {views + test}"
        + (f", or {fewer}." if fit > 0 else ", or a smaller batch size.")
    )


def _as_bytes(images: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _key(image: np.ndarray) -> str:
    # Of the bytes that are asked about: whoever computed them.
    return hashlib.sha256(f"{image.dtype.name}{image.shape}".encode() + image.tobytes()).hexdigest()[:32]


def _portions(keys: list[str], size: int) -> Iterator[list[str]]:
    return (keys[first : first + size] for first in range(0, len(keys), size))


def _text(answer: Any, outputs: str) -> str:
    if outputs == "labels":
        return str(int(answer))
    return base64.b64encode(np.asarray(answer, dtype="<f4").tobytes()).decode()


def _scores(text: str, outputs: str, classes: int) -> np.ndarray:
    if outputs == "labels":
        return np.eye(1, classes, int(text), dtype=np.float32)[0]
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


def _clause(error: OSError, why: str) -> str:
    return why if isinstance(error, NoAnswer) else f"failed ({type(error).__name__}: {why})"


def _capital(name: str) -> str:
    return name if name.startswith("http") else name[:1].upper() + name[1:]
