"""The `distill` command: from options to a run folder with a trained student, its measurements and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.config import DistillConfig, mixing_of
from bridge.datasets import thinned
from bridge.datum.preview import previews
from bridge.datum.render import render
from bridge.datum.views import ViewSet, make_view_set
from bridge.errors import ConfigError
from bridge.files import plain
from bridge.metrics import confusion_matrix
from bridge.report import write_report
from bridge.runs import FollowedRun, RunFolder
from keras_aip import models
from keras_aip.datasets import FACTS, Labelled, load
from keras_aip.distiller import Distiller
from keras_aip.evaluate import check_classes, evaluate, predict, recalibrated
from keras_aip.hosts import in_agreement, is_first_host, lost
from keras_aip.optimizers import make_optimizer
from keras_aip.run import (
    SaveRun,
    ShowProgress,
    environment,
    restore_arrays,
    set_up,
)
from keras_aip.strategy import on_other_devices
from keras_aip.strategy import strategy as make_strategy
from keras_aip.teachers import Teacher, load_teacher, save_teacher
from keras_aip.views import view_dataset


def distill(config: DistillConfig) -> dict[str, Any]:
    """Run or resume a distillation.

    Args:
        config: resolved options.

    Returns:
        What `result.json` holds.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if config.image is None:
        raise ConfigError("Which image? Give --image FILE (any photograph; rich, detailed ones work best).")
    if config.teacher is None:
        raise ConfigError("Which teacher? Give --teacher FOLDER; `train-teacher` makes one.")
    set_up(config.threads, config.seed, config.deterministic)
    devices = make_strategy(config.strategy)
    with in_agreement(devices):
        plain_teacher, view_set, test, steps = _prepare(config, is_first_host(devices))
    size, several = view_set.recipe.size, on_other_devices(devices)
    with devices.scope():
        teacher = _teacher(config) if several else plain_teacher
        distiller = make_distiller(config, teacher, view_set, size, config.epochs * steps)
    with in_agreement(devices) as said:
        marks = fingerprint(config, distiller, view_set)
        run = start_run(config, marks, is_first_host(devices))
        state = run.load_state() if config.resume else None
        first_step = 0 if state is None else state.step
        said += [sorted(plain(marks).items()), first_step, run.result is None]
    with run:
        if run.result is not None:
            print(f"This run is finished already; its result is in {run.path / 'result.json'}.")
            return run.result
        if state is not None:
            restore_arrays(distiller, state.arrays)
            if isinstance(run, RunFolder):
                print(f"Resuming at step {first_step} of {config.epochs * steps}.")
        data = view_dataset(view_set, config.batch_size, start_step=first_step, render=config.render)
        progress = ShowProgress("distilling", config.epochs, steps, config.batch_size, first_step)
        asking = ShowAnswers(steps, config.batch_size)
        try:
            distiller.fit(
                data, epochs=config.epochs, steps_per_epoch=steps, initial_epoch=first_step // steps, verbose=0,
                store_teacher=config.store_teacher, on_answer=asking,
                callbacks=[SaveRun(run, steps), *([progress] if isinstance(run, RunFolder) else [])],
            )  # fmt: skip
            weights = [weight.numpy() for weight in distiller.student.weights]  # on some devices all hosts must read
        except tf.errors.UnavailableError as error:
            raise lost() from error
        finally:
            asking.close()
            progress.close()
        if not isinstance(run, RunFolder):
            return {}
        if several:  # measured as it is delivered: a plain network on one device
            student = make_student(config, plain_teacher.classes or 0, size)
            student.set_weights(weights)
            distiller = Distiller(student, plain_teacher, mixing=distiller.mixing)
        return finish(run, config, distiller, view_set, test, config.epochs * steps)


def _prepare(config: DistillConfig, first_host: bool) -> tuple[Teacher, ViewSet, Labelled, int]:
    """All that is read from disk, each host for itself; the evaluation set only where it is measured."""
    teacher = _teacher(config)
    if teacher.classes is None:
        raise ConfigError("The teacher does not say how many classes it has; its card must hold `classes`.")
    if teacher.input_size and len(teacher.input_size) != 2:
        raise ConfigError(f"{config.teacher} does not take images; so far only networks that do can be distilled here.")
    size = config.image_size or (teacher.input_size[0] if teacher.input_size else 32)
    view_set = make_view_set(
        config.image, size, config.recipe, patches=config.patches, views=config.views, seed=config.seed
    )
    steps = config.steps_per_epoch or (-(-view_set.views // config.batch_size) if view_set.views else None)
    if steps is None:
        raise ConfigError("Endless views (--views None) need --steps-per-epoch.")
    names = None if teacher.class_names is None else list(teacher.class_names)
    test = Labelled(np.zeros((0, size, size, 3), np.uint8), None, names, config.dataset)
    if first_host:
        test = load(config.dataset, split=config.split, image_size=size, class_names=names, data_dir=config.data_dir)
        test = thinned(test, 512) if config.smoke else test
        check_classes(test, teacher.classes, teacher.class_names)
    return teacher, view_set, test, steps


def _teacher(config: DistillConfig) -> Teacher:
    return load_teacher(str(config.teacher), dtype=config.teacher_dtype, dataset=config.dataset)


class ShowAnswers:
    """Progress of a teacher that answers views to be stored; quiet if none is asked for."""

    def __init__(self, steps: int, batch_size: int):
        self._steps, self._batch = steps, batch_size
        self._progress: ShowProgress | None = None

    def __call__(self, answered: int) -> None:
        if self._progress is None:
            self._progress = ShowProgress("asking the teacher", 1, self._steps, self._batch, answered - 1)
            self._progress.on_train_begin()
        self._progress.show(answered)
        if answered == self._steps:
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.close()


def start_run(config: DistillConfig, marks: Mapping[str, Any], first_host: bool) -> RunFolder | FollowedRun:
    """The run folder; where several hosts train, the first one holds it and the others follow."""
    if first_host:
        return RunFolder.start(
            config.out, dataclasses.asdict(config), marks, environment(config.threads), resume=config.resume
        )
    return FollowedRun(config.out, config.resume)


def make_distiller(config: DistillConfig, teacher: Teacher, view_set: ViewSet, size: int, steps: int) -> Distiller:
    """The distiller the options ask for, compiled; `steps` is the length of the whole run."""
    distiller = Distiller(
        make_student(config, teacher.classes or 0, size), teacher, config.temperature, config.loss,
        mixing_of(config, view_set.recipe), tau_squared=config.tau_squared, seed=config.seed,
    )  # fmt: skip
    distiller.compile(
        make_optimizer(
            config.optimizer, config.learning_rate, weight_decay=config.weight_decay, schedule=config.schedule,
            steps=steps, warmup=config.warmup,
        ),
        steps_per_execution=config.steps_per_execution,
        jit_compile=config.jit_compile,
    )  # fmt: skip
    return distiller


def make_student(config: DistillConfig, classes: int, size: int) -> keras.Model:
    """A student with the evaluation set's normalisation, its first weights a function of the seed alone."""
    facts = FACTS.get(config.dataset)
    arguments: dict[str, Any] = {} if facts is None else {"mean": facts.mean, "std": facts.std}
    if config.student_width is not None:
        arguments["width"] = config.student_width
    keras.utils.set_random_seed(config.seed % 2**32)  # loading the teacher has drawn from the same generator
    return models.build(
        config.student, classes=classes, image_size=size, l2=config.l2,
        dtype=None if config.student_dtype == "float32" else config.student_dtype, **arguments,
    )  # fmt: skip


def fingerprint(config: DistillConfig, distiller: Distiller, view_set: ViewSet) -> dict[str, Any]:
    """What must not change when a run is resumed."""
    learning = {
        key: getattr(config, key)
        for key in (
            "temperature", "loss", "tau_squared", "batch_size", "epochs", "steps_per_epoch",
            "optimizer", "learning_rate", "weight_decay", "schedule", "warmup", "l2", "student_dtype", "teacher_dtype",
            "views", "seed",
        )
    }  # fmt: skip
    return {
        "teacher": distiller.teacher.digest,
        "student": models.architecture_of(distiller.student),
        "datum": view_set.source.sha256,
        "recipe": view_set.recipe.digest,
        "mixing": dataclasses.asdict(distiller.mixing),
        "fixed_views": config.store_teacher is not None,
        "world_size": distiller.distribute_strategy.num_replicas_in_sync,
        **learning,
    }


def finish(
    run: RunFolder, config: DistillConfig, distiller: Distiller, view_set: ViewSet, test: Labelled, steps: int
) -> dict[str, Any]:
    """Measure the student, write it, the report and, last, the result."""
    student, teacher = distiller.student, distiller.teacher
    measured = evaluate(student, test, teacher=teacher)
    fresh = [fresh_views(view_set, k, 256) for k in range(8)]
    measured["student_top1_recalibrated"] = None
    if test.labels is not None:
        with recalibrated(student, fresh) as again:
            measured["student_top1_recalibrated"] = evaluate(again, test)["student_top1"]
    votes = np.concatenate([teacher(batch).numpy().argmax(-1) for batch in fresh])
    histogram = np.bincount(votes, minlength=teacher.classes or 0) / len(votes)
    card = save_teacher(
        student, run.path / "student", class_names=teacher.class_names,
        accuracy=None if measured["student_top1"] is None
        else {"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        source=f"distilled from {view_set.source.name} alone",
    )  # fmt: skip
    if teacher.dtype != "float32":
        exact = load_teacher(str(config.teacher), dataset=config.dataset)
        same = [np.mean(teacher(x).numpy().argmax(-1) == exact(x).numpy().argmax(-1)) for x in fresh]
        measured["teacher_agreement_with_float32"] = float(np.mean(same))
    result = {
        **measured, "views": steps * config.batch_size, "steps": steps, "seconds": round(run.seconds, 2),
        "source": view_set.source.name, "seed": config.seed, "student": config.student, "teacher": config.teacher,
        "parameters": card.parameters, "classes": teacher.classes,
    }  # fmt: skip
    confusion = None
    if test.labels is not None and teacher.classes is not None:
        confusion = confusion_matrix(test.labels, predict(student, test.images).argmax(-1), teacher.classes)
    write_report(
        run.path / "report.html", title=f"{config.student} distilled from {view_set.source.name}",
        summary=summary_of(result), config=dataclasses.asdict(config), metrics=run.metrics(), result=result,
        views=previews(view_set, distiller.mixing, 32), teacher_histogram=histogram, confusion=confusion,
        class_names=teacher.class_names or test.class_names,
    )  # fmt: skip
    return run.write_result(result)


def fresh_views(view_set: ViewSet, step: int, batch: int) -> tf.Tensor:
    """Unmixed views, augmented as no step of a run is: float32 [batch, size, size, 3] in [0, 1]."""
    return tf.constant(render(view_set, 2**40 + step * batch + np.arange(batch)))


def summary_of(result: Mapping[str, Any]) -> list[str]:
    """What happened, in words a newcomer understands."""
    lines = [
        f"The student saw {result['views']:,} views of {result['source']}, each labelled by the teacher, "
        f"and nothing else: no real {result['dataset']} image and no label."
    ]
    if result["student_top1"] is not None:
        lines.append(
            f"On {result['n']:,} real test images the student names the right class for {result['student_top1']:.1%}; "
            f"its teacher, trained on real data, for {result['teacher_top1']:.1%}; guessing, for "
            f"{1 / result['classes']:.1%}."
        )
    lines.append(f"Student and teacher give the same answer on {result['agreement']:.1%} of the images.")
    return lines
