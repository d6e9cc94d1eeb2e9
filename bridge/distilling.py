"""What the `distill` command does without a framework: reading, what must not change, measuring, and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge import wordnet
from bridge.clips import LabelledVideos, check_readable, sampling_of, thinned_videos
from bridge.config import DistillConfig, mixing_of, refuse_video_options
from bridge.datasets import FACTS, Labelled, check_classes, thinned
from bridge.datum.mixing import Mixing
from bridge.datum.preview import previews
from bridge.datum.render import render
from bridge.datum.video import ClipSet, make_clip_set
from bridge.datum.video_recipes import VideoRecipe
from bridge.datum.views import SampleSet, ViewSet, make_view_set
from bridge.errors import ConfigError
from bridge.measuring import rows_at_once, scored, takes_clips, usable_rows
from bridge.metrics import confusion_matrix
from bridge.progress import StepProgress
from bridge.report import write_report
from bridge.runs import FollowedRun, RunFolder

# Options that decide what is learned; a run is resumed with the same ones.
_LEARNING = (
    "temperature", "loss", "tau_squared", "batch_size", "epochs", "steps_per_epoch", "optimizer", "learning_rate",
    "weight_decay", "schedule", "warmup", "l2", "clip_norm", "ema", "accumulate", "student_dtype", "teacher_dtype",
    "views", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What a distillation works on, read from disk before anything is computed.

    Attributes:
        teacher: the backend's.
        view_set: the views or clips.
        test: what is measured on; None on hosts that only follow.
        steps: per epoch.
    """

    teacher: Any
    view_set: SampleSet
    test: Labelled | LabelledVideos | None
    steps: int

    @property
    def made_for(self) -> dict[str, int]:
        """What a student must be built for, as `models.build` takes it: image_size, and of clips frames."""
        recipe = self.view_set.recipe
        return {"image_size": recipe.size, **({"frames": recipe.frames} if isinstance(recipe, VideoRecipe) else {})}


def prepare(
    config: DistillConfig,
    teacher: Any,
    load: Callable[..., Labelled],
    load_video: Callable[..., LabelledVideos] | None,
    first_host: bool = True,
) -> Prepared:
    """All that is read from disk, each host for itself; the evaluation set only where it is measured.

    Args:
        config: resolved options.
        teacher: of the backend; says `classes`, `input_size` and `class_names`.
        load: the backend's way to an evaluation set.
        load_video: its way to one of videos; None where it has no networks for them.
        first_host: whether this process measures and writes.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if teacher.classes is None:
        raise ConfigError("The teacher does not say how many classes it has; its card must hold `classes`.")
    view_set = _view_set(config, teacher.input_size)
    if isinstance(view_set, ClipSet) and load_video is None:
        raise ConfigError(f"{config.teacher} takes clips; video is torch_aip's: python -m torch_aip distill …")
    mixing_of(config, view_set.recipe)  # says now if it cannot be
    steps = config.steps_per_epoch or (-(-view_set.views // config.batch_size) if view_set.views else None)
    if steps is None:
        raise ConfigError("Endless views (--views None) need --steps-per-epoch.")
    if not first_host:
        return Prepared(teacher, view_set, None, steps)
    size, names = view_set.recipe.size, None if teacher.class_names is None else list(teacher.class_names)
    where = {"split": config.split, "class_names": names, "data_dir": config.data_dir}
    if isinstance(view_set, ClipSet):
        assert load_video is not None
        sampling = sampling_of(config, (view_set.recipe.frames, size, size))
        if config.smoke:
            sampling["clips"] = config.clips or 1
        name = config.testdir or config.dataset
        takes_clips(name, (view_set.recipe.frames, size, size))  # says so if these are no videos
        test = check_readable(load_video(name, **where, **sampling))
        test = thinned_videos(test, 8) if config.smoke else test
        return Prepared(teacher, view_set, check_classes(test, teacher.classes, teacher.class_names), steps)
    test = load(config.testdir or config.dataset, image_size=size, **where)
    test = thinned(test, 512) if config.smoke else test
    return Prepared(teacher, view_set, check_classes(test, teacher.classes, teacher.class_names), steps)


def made_for(config: DistillConfig, input_size: Sequence[int] | None) -> dict[str, int]:
    """What student and views are made for, as far as a teacher of that size and options leave it open.

    Returns:
        image_size, and of clips frames, as `models.build` takes them.

    Raises:
        ConfigError: options that do not go with the teacher.
    """
    if input_size and len(input_size) not in (2, 3):
        raise ConfigError(f"{config.teacher} takes neither images nor clips; only networks that do are distilled here.")
    sides = len(input_size or ())
    if sides == 2 or (sides == 0 and config.frames is None):
        refuse_video_options(config, str(config.teacher))
        facts = FACTS.get(config.dataset)
        return {"image_size": config.image_size or (input_size[0] if input_size else facts.image_size if facts else 32)}
    if config.patches:
        raise ConfigError("--patches are ready-made views, which do not move; give an image to be set in motion.")
    frames, size = (input_size[0], input_size[1]) if input_size else (4, 160)
    return {"image_size": config.image_size or size, "frames": config.frames or frames}


def _view_set(config: DistillConfig, input_size: Sequence[int] | None) -> ViewSet | ClipSet:
    """The views or clips a teacher of that size is asked about."""
    sizes = made_for(config, input_size)
    if "frames" in sizes:
        return make_clip_set(
            config.image, sizes["image_size"], sizes["frames"], config.motion, config.recipe, clips=config.views,
            seed=config.seed,
        )  # fmt: skip
    return make_view_set(
        config.image, sizes["image_size"], config.recipe, patches=config.patches, views=config.views, seed=config.seed
    )


def check_inputs(config: DistillConfig) -> None:
    """Refuse a line that names no image or no teacher.

    Raises:
        ConfigError: saying which.
    """
    if config.image is None and config.resume:
        raise ConfigError(f"--resume: {config.out} holds no run; say where it is with --out.")
    if config.image is None:
        raise ConfigError("Which image? Give --image FILE (any photograph; rich, detailed ones work best).")
    if config.teacher is None:
        raise ConfigError("Which teacher? Give --teacher FOLDER; `train-teacher` makes one.")


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
        batch: float32 [batch, (frames,) height, width, 3] → what its networks take.
        numpy: what its teacher answers → NumPy.
    """

    predict_all: Callable[..., list[np.ndarray]]
    recalibrated: Callable[..., Any]
    save_teacher: Callable[..., Any]
    load_teacher: Callable[..., Any]
    batch: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]


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
    pixels = test.clips if isinstance(test, LabelledVideos) else test.images  # decoded as they are asked for
    answers = backend.predict_all([student, teacher], pixels)
    measured = scored(test, *answers)
    measured["student_top1_recalibrated"] = None
    if test.labels is not None:
        with backend.recalibrated(student, _fresh(backend, view_set, config.smoke)) as again:
            again_answers = backend.predict_all([again], pixels)[0]
        measured["student_top1_recalibrated"] = scored(test, again_answers)["student_top1"]
    votes = _votes(backend, teacher, view_set, config.smoke)
    card = backend.save_teacher(
        student, folder, class_names=teacher.class_names,
        accuracy=None if measured["student_top1"] is None
        else {"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        source=source,
    )  # fmt: skip
    if teacher.dtype != "float32":
        exact = backend.load_teacher(str(config.teacher), dataset=config.dataset)
        measured["teacher_agreement_with_float32"] = float(
            np.mean(votes == _votes(backend, exact, view_set, config.smoke))
        )
    steps = config.epochs * prepared.steps
    result = {
        **measured, "views": steps * config.batch_size, "steps": steps, "seconds": round(run.seconds, 2),
        "source": view_set.source.name, "seed": config.seed, "student": config.student, "teacher": config.teacher,
        "parameters": card.parameters, "classes": teacher.classes, "frames": prepared.made_for.get("frames"),
    }  # fmt: skip
    names = wordnet.readable(teacher.class_names or test.class_names or ())
    confusion = None
    if test.labels is not None and teacher.classes is not None:
        rows = usable_rows(test)
        confusion = confusion_matrix(test.labels[rows], answers[0][rows].argmax(-1), teacher.classes)
    write_report(
        run.path / "report.html", title=f"{config.student} distilled from {view_set.source.name}",
        summary=summary_of(result), config=dataclasses.asdict(config), metrics=run.metrics(), result=result,
        views=previews(view_set, mixing, 12 if isinstance(view_set, ClipSet) else 32),
        teacher_histogram=np.bincount(votes, minlength=teacher.classes or 0) / len(votes),
        confusion=confusion,
        class_names=names if names and len(names) == teacher.classes else None,  # of a part of the classes: none
    )  # fmt: skip
    return run.write_result(result)


def _votes(backend: Backend, teacher: Any, view_set: SampleSet, few: bool) -> np.ndarray:
    return np.concatenate([backend.numpy(teacher(batch)).argmax(-1) for batch in _fresh(backend, view_set, few)])


def _fresh(backend: Backend, view_set: SampleSet, few: bool) -> Iterator[Any]:
    """Some 2,000 unmixed views or 500 clips; few: one small batch."""
    rows = 64 if isinstance(view_set, ClipSet) else 256
    rows, count = (16, 16) if few else (rows, 8 * rows)
    rows = min(rows, rows_at_once(rows, (count, *view_set.recipe.shape)))
    return (backend.batch(fresh_views(view_set, k, rows)) for k in range(count // rows))


def fresh_views(view_set: SampleSet, step: int, batch: int) -> np.ndarray:
    """Unmixed views, augmented as no step of a run is: float32 [batch, (frames,) size, size, 3] in [0, 1]."""
    return render(view_set, 2**40 + step * batch + np.arange(batch))


def summary_of(result: Mapping[str, Any]) -> list[str]:
    """What happened, in words a newcomer understands."""
    frames = result.get("frames")
    saw = f"clips of {frames} frames, made" if frames else "views"
    what = "video" if frames else "image"
    lines = [
        f"The student saw {result['views']:,} {saw} of {result['source']}, each labelled by the teacher, "
        f"and nothing else: no real {what} and no label."
    ]
    if result["student_top1"] is not None:
        lines.append(
            f"On {result['n']:,} real test {what}s the student names the right class for {result['student_top1']:.1%}; "
            f"its teacher, trained on real data, for {result['teacher_top1']:.1%}; guessing, for "
            f"{1 / result['classes']:.1%}."
        )
    lines.append(f"Student and teacher give the same answer on {result['agreement']:.1%} of the {what}s.")
    return lines
