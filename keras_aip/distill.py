"""The `distill` command: from options to a run folder with a trained student, its measurements and a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bridge.config import DistillConfig
from bridge.datum.audio import AudioSet
from bridge.datum.masks import Masks
from bridge.distilling import Backend, ShowAnswers, fingerprint, finish, start_run
from bridge.errors import ConfigError
from bridge.files import plain
from bridge.insight.preflight import look_over
from bridge.networks import front_end_for
from bridge.preparing import Loaders, Prepared, check_inputs, prepare
from bridge.recipe_choice import mixing_of
from bridge.runs import RunFolder
from keras_aip import models
from keras_aip.audio import AudioRenderer, load_audio_set
from keras_aip.counted import counted_dataset
from keras_aip.datasets import FACTS, load, load_audio
from keras_aip.distiller import Distiller
from keras_aip.evaluate import predict_all, recalibrated
from keras_aip.hosts import in_agreement, is_first_host, lost
from keras_aip.insight import ask_of
from keras_aip.optimizers import make_optimizer
from keras_aip.run import SaveRun, ShowProgress, environment, restore_arrays, set_up
from keras_aip.strategy import on_other_devices
from keras_aip.strategy import strategy as make_strategy
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_teacher, save_teacher
from keras_aip.views import Renderer
from keras_aip.visualize import Inspected

BACKEND = Backend(
    predict_all, recalibrated, save_teacher, load_teacher, tf.constant, lambda answers: answers.numpy(), Inspected
)

LOADERS = Loaders(load, sounds=load_audio, audio_set=load_audio_set)


def distill(config: DistillConfig) -> dict[str, Any]:
    """Run or resume a distillation.

    Args:
        config: resolved options.

    Returns:
        What `result.json` holds.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    check_inputs(config)
    if config.ema or config.accumulate > 1:
        raise ConfigError("--ema and --accumulate are torch_aip's; leave them out, or distil with torch-aip.")
    set_up(config.threads, config.seed, config.deterministic)
    devices = make_strategy(config.strategy)
    with in_agreement(devices):
        prepared = prepare(config, _teacher(config), LOADERS, is_first_host(devices))
        look_over(config, prepared, ask_of(prepared.teacher))
    steps, several = prepared.steps, on_other_devices(devices)
    with devices.scope():
        # of a service there is one alone, which counts what it is asked
        again = several and prepared.teacher.asked is None
        teacher = _teacher(config) if again else prepared.teacher
        distiller = make_distiller(config, teacher, prepared)
    with in_agreement(devices) as said:
        student = models.architecture_of(distiller.student)
        marks = fingerprint(config, prepared, student, distiller.mixing, devices.num_replicas_in_sync)
        run = start_run(config, marks, environment(config.threads), is_first_host(devices))
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
        elif config.resume and isinstance(run, RunFolder):
            print("The run stopped before an epoch was complete: beginning at step 0.")
        fast = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
        render = config.render if config.render != "auto" else "device" if fast else "host"
        renderer_of = AudioRenderer if isinstance(prepared.view_set, AudioSet) else Renderer
        data = counted_dataset(prepared.view_set, renderer_of, config.batch_size, start_step=first_step, render=render)
        unit = "sounds" if isinstance(prepared.view_set, AudioSet) else "images"
        progress = ShowProgress("distilling", config.epochs, steps, config.batch_size, first_step, unit)
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
        trained: Any = distiller.student
        if several:  # measured as it is delivered: a plain network on one device
            trained = make_student(config, prepared.teacher.classes or 0, prepared.made_for)
            trained.set_weights(weights)
        return finish(run, config, BACKEND, trained, prepared, distiller.mixing)


def _teacher(config: DistillConfig) -> Teacher:
    return load_teacher(str(config.teacher), dtype=config.teacher_dtype, dataset=config.dataset)


def make_distiller(config: DistillConfig, teacher: Teacher, prepared: Prepared) -> Distiller:
    """The distiller the options ask for, compiled."""
    distiller = Distiller(
        make_student(config, teacher.classes or 0, prepared.made_for), teacher, config.temperature, config.loss,
        mixing_of(config, prepared.view_set.recipe), tau_squared=config.tau_squared,
        masks=Masks(config.spec_augment), seed=config.seed,
    )  # fmt: skip
    distiller.compile(
        make_optimizer(
            config.optimizer, config.learning_rate, weight_decay=config.weight_decay, schedule=config.schedule,
            steps=config.epochs * prepared.steps, warmup=config.warmup, clip_norm=config.clip_norm,
        ),
        steps_per_execution=config.steps_per_execution,
        jit_compile=config.jit_compile,
    )  # fmt: skip
    return distiller


def make_student(config: DistillConfig, classes: int, made_for: Mapping[str, Any]) -> keras.Model:
    """A student with the evaluation set's normalisation, its first weights a function of the seed alone.

    Of sounds it hears with the teacher's front end, where that is of its own kind.
    """
    sounds = "samples" in made_for
    if models.is_known(config.student) and sounds != models.is_audio(config.student):
        takes, other = ("sounds", "images; choose a network for sounds, such as dscnn_s.")
        if not sounds:
            takes, other = ("images", "sounds; choose a network for images, such as wrn_16_4.")
        raise ConfigError(f"The teacher takes {takes}, and --student {config.student} takes {other}")
    if sounds and (heard := made_for.get("front_end")) and heard["kind"] != front_end_for(config.student).kind:
        made_for = {name: value for name, value in made_for.items() if name != "front_end"}
    facts = None if sounds else FACTS.get(config.dataset)
    arguments: dict[str, Any] = {} if facts is None else {"mean": facts.mean, "std": facts.std}
    sizes = {"width": config.student_width, "depth": config.student_depth}
    arguments |= {name: size for name, size in sizes.items() if size is not None}
    keras.utils.set_random_seed(config.seed % 2**32)  # loading the teacher has drawn from the same generator
    return models.build(
        config.student, classes=classes, **made_for, l2=config.l2,
        dtype=None if config.student_dtype == "float32" else config.student_dtype, **arguments,
    )  # fmt: skip
