"""The proof that all forms of a teacher folder say the same, in every engine at hand: ``parity.json``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import ConfigError, TeacherError
from bridge.files import atomic_write, json_text
from bridge.names import lookup
from bridge.teachers.bisect import MOST_CONVERSIONS, first_divergence
from bridge.teachers.card import PARITY_NAME, Card
from bridge.teachers.crossing import cache_folder
from bridge.teachers.engines import ENGINES, Run, channels_first, versions
from bridge.teachers.onnx_file import read_onnx
from bridge.teachers.probes import Probes, batch_of
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference

# All ours.
MIN_AGREEMENT = 0.999
# A tensor within the graph departs before the scores do, whose limit is LARGEST_DIFFERENCE; rounding stays far below.
MAX_RELATIVE_INSIDE = 1e-4
SMALL_BATCHES = (1, 3)
TIMED_BATCHES = 5
NATIVE = "native form"
_BISECTED_ROWS = 4


def verify(
    folder: str | Path,
    *,
    image: Any = None,
    views: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    videos: str | os.PathLike[str] | None = None,
    audio: Any = None,
    write: bool = True,
    engines: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Ask every engine that can be had here the same, and compare with the first, onnxruntime on ``model.onnx``. Ours.

    Scores are compared as the card names them: logits as they are, probabilities (not below 1e-7) as probabilities, of
    labels only which one. Without ``model.onnx`` the first native form is what the others are compared with.

    Args:
        folder: A teacher's or student's folder.
        image: Views of what; None: scikit-learn's ``china.jpg``.
        views: How many views, beside 64 inputs of noise; agreement to 99.9 % wants 2,000. None: 2,048; of networks for
            video, which take dozens of times as long, 12 clips beside 4 of noise.
        seed: Seed of both.
        batch_size: Inputs per call; None: 64, of video 2. Everything is answered again for the last few inputs in
            batches of 1 and 3.
        videos: Of networks for video: a folder or list of videos whose clips are asked about; None: fake ones of the
            image.
        audio: Of networks for sounds: the clip whose views are asked about; None: synthetic sounds.
        write: Write ``parity.json`` into the folder, also when the proof fails.
        engines: Names among `bridge.teachers.engines.ENGINES`; None: all.
        on_progress: Called with how many more inputs are answered, of noise and views.

    Returns:
        What stands in ``parity.json``: card_digest, reference, engines (name -> figures, or None where it cannot be had
        here), missing (name -> why not), inputs, passed, limits, versions. The figures of an engine: relative =
        max|a−b| / max|a| (the larger of that over noise and that over views), max_difference, mean_difference,
        agreement (share of views with the same top class; see `agreement_of`), flips, flips_within_error,
        dynamic_batch, xla, ms_per_batch (median of 5), passed; where it failed, also error and diverges_at.

    Raises:
        TeacherError: Engines differ by more than 1e-3 relative, agree on less than 99.9 % of the views, fail or need
            a fixed batch: named with figures, limits and the first ONNX node where they part. Or fewer than two
            engines can be had, the folder is damaged, or cannot be written.
        ConfigError: A number makes no sense, or an engine is unknown.
    """
    folder = Path(folder)
    for name, value in (("views", views), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} (={value}) must be at least 1.")
    chosen = {name: lookup(ENGINES, name, "engine") for name in (ENGINES if engines is None else engines)}
    card = Card.load(folder)
    missing = {name: why for name, engine in chosen.items() if (why := engine.missing(folder, card))}
    present = [name for name in chosen if name not in missing]
    if len(present) < 2:
        listed = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise TeacherError(
            f"{folder} can be run here by {' and '.join(present) or 'no engine'}; comparing takes two. Install what "
            f"another needs, or add a form to the folder ({listed})."
        )
    probes, batch_size = Probes(card, image, views, seed, videos, audio), batch_of(card, batch_size)
    asked = _Asked(folder, card, present, probes.noise)
    asked.ask(probes, batch_size, on_progress)
    reference = present[0]
    results: dict[str, dict[str, Any] | None] = {name: None for name in missing}
    for name in present:
        results[name] = asked.figures(name, reference)
    report: dict[str, Any] = {
        "card_digest": card.mark,
        "reference": reference,
        "engines": {name: results[name] for name in chosen},
        "missing": missing,
        "inputs": {**probes.described(), "batch_size": batch_size},
        "passed": all(result["passed"] for result in results.values() if result is not None),
        "limits": {"relative": LARGEST_DIFFERENCE, "agreement": MIN_AGREEMENT},
        "versions": {"python": platform.python_version(), **versions()},
    }
    if write:
        # Before looking for the node, which may take minutes: the figures are the evidence.
        _write(folder, report)
    if not report["passed"]:
        for name in present:
            _locate(name, asked, report["engines"], probes)
        if write:
            _write(folder, report)
        raise TeacherError(_complaint(folder, report) + (f" All figures: {PARITY_NAME}." if write else ""))
    return report


def read_parity(folder: str | Path) -> dict[str, Any] | None:
    """What ``parity.json`` says, if it was written for the very network that the card describes now; else None.

    Raises:
        TeacherError: The folder has no readable card.
    """
    digest = Card.load(folder, verify=False).mark
    try:
        report = json.loads((Path(folder) / PARITY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) and report.get("card_digest") == digest else None


def said_of_proof(folder: str | Path) -> str:
    """One line about what ``parity.json`` proves of a folder.

    Raises:
        TeacherError: The folder has no readable card.
    """
    report = read_parity(folder)
    again = f"python -m bridge verify --model {folder}"
    if report is None:
        return f"Not verified yet: {again}"
    if report.get("passed") is not True:
        return f"Not verified: its forms do not answer alike; {PARITY_NAME} has the figures. Again: {again}"
    told = report.get("engines")
    alike = [name for name in ENGINES if isinstance(told, dict) and isinstance(told.get(name), dict)]
    return f"Verified: {', '.join(alike) or 'its engines'} answer alike ({PARITY_NAME})."


def agreement_of(reference: np.ndarray, given: np.ndarray, ranked_only: bool = False) -> dict[str, Any]:
    """Compare top classes. A flip counts only where the reference's top-2 margin exceeds twice the logit error.

    That error is the mean of |a−b| over all scores. With the largest of a sample no flip could ever count, since a flip
    needs a margin within twice that.

    Args:
        reference: float32 [n, classes].
        given: float32 [n, classes].
        ranked_only: Every flip counts: the values mean nothing, as of labels.

    Returns:
        agreement (1 − flips / n), flips (that count), flips_within_error (that do not).
    """
    flipped = (reference.argmax(axis=1) != given.argmax(axis=1)) | ~np.isfinite(given).all(axis=1)
    counted = flipped
    if not ranked_only and reference.shape[1] > 1:
        second, first = np.partition(reference, -2, axis=1)[:, -2:].T
        # Not <=: an error that is not a number excuses nothing.
        counted = flipped & ~(first - second <= 2 * np.abs(reference - given).mean(dtype=np.float64))
    flips = int(counted.sum())
    return {"agreement": 1 - flips / len(given), "flips": flips, "flips_within_error": int(flipped.sum()) - flips}


class _Asked:
    """The engines of one folder, what they answered, how long it took, and what went wrong."""

    def __init__(self, folder: Path, card: Card, names: Sequence[str], noise: int) -> None:
        self.folder, self.card, self.noise = folder, card, noise
        self.runs: dict[str, Run] = {}
        self.answers: dict[str, np.ndarray] = {}
        self.milliseconds: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.dynamic: dict[str, bool] = {}
        for name in names:
            try:
                self.runs[name] = ENGINES[name].load(folder, card)
            except TeacherError as error:
                self._failed(name, error)

    def ask(self, probes: Probes, batch_size: int, on_progress: Callable[[int], None] | None) -> None:
        """Every engine in turn for each batch, so that inputs are made once; then small batches, then times."""
        shape = (probes.total, self.card.classes)
        self.answers = {name: np.empty(shape, np.float32) for name in self.runs}
        for start in range(0, probes.total, batch_size):
            numbers = np.arange(start, min(start + batch_size, probes.total))
            x = probes.at(numbers)
            for name in list(self.runs):
                answer = self._answer(name, x)
                if answer is not None:
                    self.answers[name][numbers] = answer
                    continue
                if len(x) > 1 and self._answer(name, x[:1]) is not None:
                    self.errors[name] = f"it takes single inputs only ({self.errors[name]})"
                    self.dynamic[name] = False
                del self.runs[name], self.answers[name]
            if on_progress is not None:
                on_progress(len(numbers))
        last = np.arange(max(0, probes.total - max(SMALL_BATCHES)), probes.total)
        x = probes.at(last)
        for name in list(self.runs):
            self.dynamic[name] = True
            for rows in SMALL_BATCHES:
                answer = self._answer(name, x[:rows])
                expected = self.answers[name][last[:rows]]
                if answer is None or not relative_difference(expected, answer) <= LARGEST_DIFFERENCE:
                    self.dynamic[name] = False
                    self.errors.setdefault(name, f"a batch of {rows} is answered otherwise than within a large one")
                    break
        x = probes.at(np.arange(batch_size) % probes.total)
        for name in self.runs:
            # One after the other and warmed up: threads of the one before would go on turning for a while.
            times = []
            for _ in range(1 + TIMED_BATCHES):
                began = time.perf_counter()
                self._answer(name, x)
                times.append(time.perf_counter() - began)
            self.milliseconds[name] = 1000 * statistics.median(times[1:])

    def figures(self, name: str, reference: str) -> dict[str, Any]:
        """What ``parity.json`` says of one engine; a reference that failed leaves nothing to compare with."""
        result: dict[str, Any] = {"form": ENGINES[name].form, "xla": ENGINES[name].xla, "passed": False}
        if name in self.answers and reference in self.answers:
            result |= self._differences(self.answers[reference], self.answers[name])
            within = result["relative"] is None or result["relative"] <= LARGEST_DIFFERENCE
            result["passed"] = within and result["agreement"] >= MIN_AGREEMENT and name not in self.errors
            result["ms_per_batch"] = self.milliseconds.get(name)
        result["dynamic_batch"] = self.dynamic.get(name)
        if name in self.errors:
            result["error"] = self.errors[name]
        return result

    def _differences(self, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        labels = self.card.outputs == "labels"
        result: dict[str, Any] = {"relative": None, "max_difference": None, "mean_difference": None}
        if not labels:
            difference, parts = np.abs(a - b), (np.s_[: self.noise], np.s_[self.noise :])
            result = {
                "relative": max(relative_difference(a[part], b[part]) for part in parts),
                "max_difference": float(difference.max()),
                "mean_difference": float(difference.mean(dtype=np.float64)),
            }
        return result | agreement_of(a[self.noise :], b[self.noise :], ranked_only=labels)

    def _answer(self, name: str, x: np.ndarray) -> np.ndarray | None:
        try:
            answer = np.asarray(self.runs[name](x))
            if answer.shape != (len(x), self.card.classes):
                raise TeacherError(f"{len(x)} inputs are answered with {answer.shape}, of {self.card.classes} classes")
            return answer
        except Exception as error:  # of any framework; what one cannot do must not hide what the others can
            self._failed(name, error)
            return None

    def _failed(self, name: str, error: Exception) -> None:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.errors.setdefault(name, first)


def _locate(name: str, asked: _Asked, results: dict[str, Any], probes: Probes) -> None:
    """Add to a failed engine's figures where it parts from onnxruntime."""
    engine, result = ENGINES[name], results[name]
    if result["passed"] or name == "onnxruntime" or result["dynamic_batch"] is False:
        return
    if engine.convert is None:
        if "agreement" in result:
            result["diverges_at"] = NATIVE
        return
    if "onnxruntime" not in asked.answers:
        return
    # With XLA or without, the converter is the same.
    for other, known in results.items():
        if known is not None and "diverges_at" in known and ENGINES[other].packages == engine.packages:
            result["diverges_at"] = known["diverges_at"]
            return
    worst = np.arange(_BISECTED_ROWS)
    if name in asked.answers:
        difference = np.abs(asked.answers["onnxruntime"] - asked.answers[name]).max(axis=1)
        worst = np.argsort(np.nan_to_num(difference, nan=np.inf))[-_BISECTED_ROWS:]
    model = read_onnx(asked.folder / asked.card.forms["onnx"])
    print(
        f"{name} does not answer as onnxruntime does: looking for the node where they part. That takes up to "
        f"{MOST_CONVERSIONS} conversions of parts of the network, a few seconds each …",
        file=sys.stderr,
        flush=True,
    )
    found = first_divergence(model, engine.convert, channels_first(probes.at(worst)), MAX_RELATIVE_INSIDE)
    where = None if found is None else {"node": found.node, "op_type": found.op_type, "tensor": found.tensor}
    result["diverges_at"] = where


def _complaint(folder: Path, report: dict[str, Any]) -> str:
    reference, views = report["reference"], report["inputs"]["views"]["n"]
    parts = []
    for name, result in report["engines"].items():
        if result is None or result["passed"]:
            continue
        said = []
        if "error" in result:
            said.append(f"fails: {result['error'].removesuffix('.')}")
        if "agreement" in result and name != reference:
            if result["relative"] is not None:
                difference = f"{result['relative']:.2e} relative (limit {LARGEST_DIFFERENCE:.0e})"
                said.append(f"differs from {reference} by {difference}")
            said.append(f"agrees on {result['agreement']:.2%} of {views:,} views (at least {MIN_AGREEMENT:.1%})")
        where = result.get("diverges_at")
        if where == NATIVE:
            said.append(f"is the {NATIVE}, which has no ONNX nodes to look at")
        elif where:
            said.append(f"first departs at node {where['node']!r} ({where['op_type']}, tensor {where['tensor']!r})")
        if said:  # nothing where only the reference failed
            parts.append(f"{name} {', '.join(said)}.")
    return " ".join([f"{folder} does not answer alike in every engine.", *parts])


def _write(folder: Path, report: dict[str, Any]) -> None:
    text = json_text(report)
    # Nothing of this machine goes into the folder; errors of libraries name files.
    places = {folder.absolute(): folder.name, folder.resolve(): folder.name, cache_folder(): "$AIP_CACHE"}
    for place, name in (places | {Path.home(): "~", Path(tempfile.gettempdir()): "$TMPDIR"}).items():
        text = text.replace(str(place), name) if len(place.parts) > 1 else text
    try:
        atomic_write(folder / PARITY_NAME, text)
    except OSError as error:
        raise TeacherError(
            f"{folder / PARITY_NAME} cannot be written ({error}). Make the folder writable, or verify a copy of it."
        ) from error
