"""The `distill` command: from options to a run folder with a trained student, its measurements and a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bridge.config import DistillConfig
from bridge.datum.video import ClipSet
from bridge.datum.views import CountedSet, SampleSet
from bridge.distilling import Backend, ShowAnswers, fingerprint, finish, start_run
from bridge.errors import ConfigError
from bridge.files import plain
from bridge.insight.preflight import look_over
from bridge.preparing import Loaders, Prepared, check_inputs, prepare
from bridge.recipe_choice import mixing_of
from bridge.runs import RunFolder
from torch_aip import models
from torch_aip.datasets import FACTS, load, load_video
from torch_aip.distiller import Distiller
from torch_aip.evaluate import predict_all, recalibrated
from torch_aip.insight import ask_of
from torch_aip.launch import World, in_agreement, launched
from torch_aip.optimizers import make_optimizer, schedule_of
from torch_aip.run import SaveRun, environment, restore_arrays, set_up
from torch_aip.teacher import Teacher
from torch_aip.teachers import load_teacher, save_teacher
from torch_aip.video import clip_loader
from torch_aip.views import ViewLoader, view_loader
from torch_aip.visualize import Inspected


def distill(config: DistillConfig) -> dict[str, Any]:
    """Run or resume a distillation, alone or as one of the processes `torchrun` has started.

    Args:
        config: resolved options.

    Returns:
        What `result.json` holds; nothing in processes that only follow.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    check_inputs(config)
    if config.strategy not in ("auto", "one_device"):
        raise ConfigError(
            f"--strategy {config.strategy} is keras_aip's. PyTorch trains in as many processes as torchrun starts: "
            "torchrun --nproc-per-node N -m torch_aip distill …"
        )
    set_up(config.threads, config.seed, config.deterministic)
    with launched() as world:
        return _distill(config, world)


def _distill(config: DistillConfig, world: World) -> dict[str, Any]:
    render = config.render if config.render != "auto" else "device" if world.device.type == "cuda" else "host"
    with in_agreement():
        prepared = prepare(config, _teacher(config), Loaders(load, load_video), world.is_first)
        look_over(config, prepared, ask_of(prepared.teacher))
        distiller = make_distiller(config, prepared, world.device)
        distiller.check_loader(_loader(prepared.view_set, config.batch_size, render=render))  # before a run begins
    steps = prepared.steps
    with in_agreement() as said:
        student = models.architecture_of(distiller.student)
        marks = fingerprint(config, prepared, student, distiller.mixing, world.size)
        run = start_run(config, marks, environment(config.threads), world.is_first)
        state = run.load_state() if config.resume else None
        first_step = 0 if state is None else state.step
        said += [sorted(plain(marks).items()), first_step, run.result is None]
    with run:
        if run.result is not None:
            if world.is_first:
                print(f"This run is finished already; its result is in {run.path / 'result.json'}.")
            return run.result
        if state is not None:
            restore_arrays(distiller, state.arrays)
            if distiller.average is not None:
                distiller.average.steps = int(state.meta.get("averaged_steps", 0))
            if world.is_first:
                print(f"Resuming at step {first_step} of {config.epochs * steps}.")
        elif config.resume and world.is_first:
            print("The run stopped before an epoch was complete: beginning at step 0.")
        data = _loader(
            prepared.view_set, config.batch_size, start_step=first_step, render=render, workers=config.workers
        )
        saving, asking = SaveRun(run, distiller, steps), ShowAnswers(steps, config.batch_size)
        saving.begin(first_step)
        try:
            distiller.fit(
                data, epochs=config.epochs, steps_per_epoch=steps, initial_epoch=first_step // steps,
                store_teacher=config.store_teacher, on_answer=asking, callbacks=[saving],
            )  # fmt: skip
        finally:
            asking.close()
            saving.close()
        if not isinstance(run, RunFolder):
            return {}
        return finish(run, config, _backend(world.device), distiller.averaged, prepared, distiller.mixing)


def _backend(device: torch.device) -> Backend:
    def load_exact(name: str, **options: Any) -> Teacher:
        return load_teacher(name, **options).to(device)

    return Backend(
        predict_all, recalibrated, save_teacher, load_exact,
        lambda views: torch.from_numpy(views).movedim(-1, 1).to(device),
        lambda answers: answers.cpu().numpy(),
        Inspected,
    )  # fmt: skip


def _loader(view_set: CountedSet, batch_size: int, **options: Any) -> ViewLoader:
    assert isinstance(view_set, SampleSet)  # `prepare` has refused sounds
    if isinstance(view_set, ClipSet):
        return clip_loader(view_set, batch_size, **options)
    return view_loader(view_set, batch_size, **options)


def _teacher(config: DistillConfig) -> Teacher:
    return load_teacher(str(config.teacher), dtype=config.teacher_dtype, dataset=config.dataset)


def make_distiller(config: DistillConfig, prepared: Prepared, device: torch.device) -> Distiller:
    """The distiller the options ask for, on a device and compiled."""
    student = make_student(config, prepared.teacher.classes or 0, prepared.made_for).to(device)
    distiller = Distiller(
        student, prepared.teacher, config.temperature, config.loss, mixing_of(config, prepared.view_set.recipe),
        tau_squared=config.tau_squared, seed=config.seed,
    )  # fmt: skip
    distiller.compile(
        make_optimizer(
            student.parameters(), config.optimizer, config.learning_rate, weight_decay=config.weight_decay
        ),
        schedule=schedule_of(config.schedule, config.epochs * prepared.steps, config.warmup),
        dtype="float32" if config.student_dtype == "float32" else "bfloat16",
        jit_compile=config.jit_compile, accumulate=config.accumulate, clip_norm=config.clip_norm, ema=config.ema,
        l2=config.l2,
    )  # fmt: skip
    return distiller


def make_student(config: DistillConfig, classes: int, made_for: Mapping[str, int]) -> nn.Module:
    """A student with the evaluation set's normalisation, its first weights a function of the seed alone."""
    if "frames" in made_for and models.is_known(config.student) and not models.is_video(config.student):
        raise ConfigError(
            f"The teacher takes clips of {made_for['frames']} frames, and --student {config.student} takes images; "
            "choose a network for video, such as x3d_xs."
        )
    facts = None if "frames" in made_for else FACTS.get(config.dataset)  # which are of images
    arguments: dict[str, Any] = {} if facts is None else {"mean": facts.mean, "std": facts.std}
    sizes = {"width": config.student_width, "depth": config.student_depth}
    arguments |= {name: size for name, size in sizes.items() if size is not None}
    torch.manual_seed(config.seed % 2**63)  # loading the teacher has drawn from the same generator
    return models.build(config.student, classes=classes, **made_for, **arguments)
