"""What the `distill` command does without a framework: what must not change, measuring, and the report."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge import wordnet
from bridge.config import DistillConfig
from bridge.datum.audio import AudioSet
from bridge.datum.mixing import Mixing
from bridge.datum.preview import heard, previews
from bridge.datum.render import render
from bridge.datum.video import ClipSet
from bridge.datum.views import CountedSet
from bridge.insight.run_neurons import RunNeurons, neurons_of_run
from bridge.measuring import rows_at_once, samples_of, scored, usable_rows
from bridge.metrics import class_accuracies, confusion_matrix
from bridge.preparing import Prepared
from bridge.progress import StepProgress
from bridge.replay import first_guesses
from bridge.report import write_report
from bridge.runs import FollowedRun, RunFolder

# Options that decide what is learned; a run is resumed with the same ones.
_LEARNING = (
    "temperature", "loss", "tau_squared", "batch_size", "epochs", "steps_per_epoch", "optimizer", "learning_rate",
    "weight_decay", "schedule", "warmup", "l2", "clip_norm", "ema", "accumulate", "student_dtype", "teacher_dtype",
    "views", "seed", "spec_augment",
)  # fmt: skip
_WORTH_A_LOOK = 50
"""Steps: what has learned for less has no neurons to show."""


def fingerprint(
    config: DistillConfig, prepared: Prepared, student: Mapping[str, Any] | None, mixing: Mixing, world_size: int
) -> dict[str, Any]:
    """What must not change when a run is resumed.

    Args:
        config: resolved options.
        prepared: what they made.
        student: architecture and arguments.
        mixing: of the distiller.
        world_size: devices that train together.
    """
    view_set = prepared.view_set
    return {
        "teacher": prepared.teacher.digest,
        "student": student,
        "datum": view_set.source.sha256,
        "recipe": view_set.recipe.digest,
        "mixing": dataclasses.asdict(mixing),
        "fixed_views": config.store_teacher is not None,
        "world_size": world_size,
        **{key: getattr(config, key) for key in _LEARNING},
    }


def start_run(
    config: DistillConfig, marks: Mapping[str, Any], environment: Mapping[str, Any], first_host: bool
) -> RunFolder | FollowedRun:
    """The run folder; where several hosts train, the first one holds it and the others follow."""
    if first_host:
        return RunFolder.start(config.out, dataclasses.asdict(config), marks, environment, resume=config.resume)
    return FollowedRun(config.out, config.resume)


class ShowAnswers:
    """Progress of a teacher that answers views to be stored; quiet if none is asked for."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self._steps, self._batch = steps, batch_size
        self._progress: StepProgress | None = None

    def __call__(self, answered: int) -> None:
        if self._progress is None:
            self._progress = StepProgress("asking the teacher", 1, self._steps, self._batch, answered - 1)
            self._progress.start()
        self._progress.show(answered)
        if answered == self._steps:
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.close()


@dataclass(frozen=True)
class Backend:
    """What measuring and writing a student needs of a framework: its functions of these names.

    Attributes:
        predict_all, recalibrated, save_teacher, load_teacher: of the backend.
        batch: float32 [batch, (frames,) height, width, 3] or [batch, samples] → what its networks take.
        numpy: what its teacher answers → NumPy.
        inspected: a teacher, its name and its input size → what is looked into.
    """

    predict_all: Callable[..., list[np.ndarray]]
    recalibrated: Callable[..., Any]
    save_teacher: Callable[..., Any]
    load_teacher: Callable[..., Any]
    batch: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]
    inspected: Callable[[Any, str, tuple[int, ...]], Any]


def finish(
    run: RunFolder, config: DistillConfig, backend: Backend, student: Any, prepared: Prepared, mixing: Mixing
) -> dict[str, Any]:
    """Measure the student, write it, the report and, last, the result.

    Args:
        run: held by this process.
        config: resolved options.
        backend: the framework's functions.
        student: trained.
        prepared: what it learned from, and what it is measured on.
        mixing: of the distiller, for the pictures.

    Returns:
        What `result.json` holds.
    """
    teacher, view_set, test = prepared.teacher, prepared.view_set, prepared.test
    assert test is not None
    # The deliverable first: whatever goes wrong with measuring, the student is kept.
    folder = run.path / "student"
    source = f"distilled from {view_set.source.name} alone"
    backend.save_teacher(student, folder, class_names=teacher.class_names, source=source)
    pixels = samples_of(test)  # decoded as they are asked for
    print(f"measuring student and teacher on {test.name}", file=sys.stderr, flush=True)
    answers = backend.predict_all([student, teacher], pixels)
    measured = scored(test, *answers, teacher_labels=teacher.outputs == "labels")
    measured["student_top1_recalibrated"] = None
    if test.labels is not None:
        with backend.recalibrated(student, _fresh(backend, view_set, config.smoke)) as again:
            again_answers = backend.predict_all([again], pixels)[0]
        measured["student_top1_recalibrated"] = scored(test, again_answers)["student_top1"]
    if teacher.asked is None or config.store_teacher is None:
        votes = _votes(backend, teacher, view_set, config.smoke)
    else:  # no more questions than are needed
        votes = first_guesses(
            config.store_teacher, teacher, view_set, mixing, config.seed, prepared.steps, config.batch_size, 2048
        )
    card = backend.save_teacher(
        student, folder, class_names=teacher.class_names,
        accuracy=None if measured["student_top1"] is None
        else {"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        source=source,
    )  # fmt: skip
    exact = teacher
    if teacher.dtype != "float32":
        exact = backend.load_teacher(str(config.teacher), dataset=config.dataset)
        measured["teacher_agreement_with_float32"] = float(
            np.mean(votes == _votes(backend, exact, view_set, config.smoke))
        )
    steps = config.epochs * prepared.steps
    stored = None if config.store_teacher is None else prepared.steps * config.batch_size
    result = {
        **measured, "views": steps * config.batch_size, "stored_views": stored, "steps": steps,
        "questions": None if teacher.asked is None else teacher.asked.spent,
        "seconds": round(run.seconds, 2), "source": view_set.source.name, "seed": config.seed,
        "student": config.student, "teacher": config.teacher,
        "parameters": card.parameters, "classes": teacher.classes, "frames": prepared.made_for.get("frames"),
        "rate": prepared.made_for.get("rate"),
    }  # fmt: skip
    names = wordnet.readable(teacher.class_names or test.class_names or ())
    confusion = per_class = None
    if test.labels is not None and teacher.classes is not None:
        rows = usable_rows(test)
        labels, said, taught = test.labels[rows], answers[0][rows].argmax(-1), answers[1][rows].argmax(-1)
        confusion = confusion_matrix(labels, said, teacher.classes)
        per_class = class_accuracies(labels, said, taught, teacher.classes)
    listening = isinstance(view_set, AudioSet)
    shown = 12 if isinstance(view_set, ClipSet) else 24 if listening else 32
    pictures = previews(view_set, mixing, shown)
    if config.spec_augment:
        last = list(pictures)[-1]
        pictures[f"{last}, before spectrograms are masked"] = pictures.pop(last)
    write_report(
        run.path / "report.html", title=f"{config.student} distilled from {view_set.source.name}",
        summary=summary_of(result), config=dataclasses.asdict(config), metrics=run.metrics(), result=result,
        views=pictures,
        teacher_histogram=np.bincount(votes, minlength=teacher.classes or 0) / len(votes),
        confusion=confusion, per_class=per_class,
        class_names=names if names and len(names) == teacher.classes else None,  # of a part of the classes: none
        what=_what(result), neurons=_neurons(run, config, backend, exact, prepared, votes, names),
        **({"sounds": heard(view_set, mixing, 2), "rate": view_set.recipe.rate} if listening else {}),
    )  # fmt: skip
    return run.write_result(result)


def _neurons(
    run: RunFolder,
    config: DistillConfig,
    backend: Backend,
    teacher: Any,
    prepared: Prepared,
    votes: np.ndarray,
    names: Sequence[str],
) -> RunNeurons | None:
    """What classes look like to both; None: nobody waits for it."""
    view_set, classes = prepared.view_set, teacher.classes
    if config.smoke or classes is None or config.epochs * prepared.steps < _WORTH_A_LOOK:
        return None
    if isinstance(view_set, ClipSet):
        return RunNeurons(None, "Not drawn: of clips there are no pictures yet.")
    if teacher.asked is not None or teacher.outputs == "labels":
        how = "is a service" if teacher.asked is not None else "answers in labels"
        return RunNeurons(None, f"Not drawn: the teacher {how}, which tells no gradient.")
    shape = tuple(view_set.recipe.shape)
    size = shape[:2] if len(shape) == 3 else shape

    def student() -> Any:
        return backend.inspected(backend.load_teacher(str(run.path / "student")), "the student", size)

    try:
        return neurons_of_run(
            (lambda: backend.inspected(teacher, "the teacher", size), student),
            names if len(names) == classes else None, np.bincount(votes, minlength=classes), config.seed, run.seconds,
        )  # fmt: skip
    except Exception as error:  # a mistake of ours must not cost the result, which is written last
        said = f"Not drawn: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        warnings.warn(f"Neurons for the report: {said}", stacklevel=2)
        return RunNeurons(None, said)


def _votes(backend: Backend, teacher: Any, view_set: CountedSet, few: bool) -> np.ndarray:
    return np.concatenate([backend.numpy(teacher(batch)).argmax(-1) for batch in _fresh(backend, view_set, few)])


def _fresh(backend: Backend, view_set: CountedSet, few: bool) -> Iterator[Any]:
    """Some 2,000 unmixed views or sounds or 500 clips; few: one small batch."""
    rows = 64 if isinstance(view_set, ClipSet) else 256
    rows, count = (16, 16) if few else (rows, 8 * rows)
    rows = min(rows, rows_at_once(rows, (count, *view_set.recipe.shape)))
    return (backend.batch(fresh_views(view_set, k, rows)) for k in range(count // rows))


def fresh_views(view_set: CountedSet, step: int, batch: int) -> np.ndarray:
    """Unmixed views, augmented as no step of a run is: float32 [batch, (frames,) size, size, 3] or [batch, samples]."""
    return render(view_set, 2**40 + step * batch + np.arange(batch))


def summary_of(result: Mapping[str, Any]) -> list[str]:
    """What happened, in words a newcomer understands."""
    frames, what = result.get("frames"), _what(result)
    saw = f"clips of {frames} frames, made" if frames else "views"
    stored, labelled = result.get("stored_views"), "each labelled by the teacher"
    if stored:
        labelled = f"each labelled once by the teacher and shown {result['views'] // stored:,} times"
    lines = [
        f"The student saw {stored or result['views']:,} {saw} of {result['source']}, {labelled}, "
        f"and nothing else: no real {what} and no label."
    ]
    if result["student_top1"] is not None:
        lines.append(
            f"On {result['n']:,} real test {what}s the student names the right class for {result['student_top1']:.1%}; "
            f"its teacher, trained on real data, for {result['teacher_top1']:.1%}; guessing, for "
            f"{1 / result['classes']:.1%}."
        )
    lines.append(f"Student and teacher give the same answer on {result['agreement']:.1%} of the {what}s.")
    if result.get("questions") is not None:
        lines.append(
            f"In all the teacher was asked about {result['questions']:,} {what}s, those of the test among them."
        )
    return lines


def _what(result: Mapping[str, Any]) -> str:
    return "sound" if result.get("rate") else "video" if result.get("frames") else "image"
