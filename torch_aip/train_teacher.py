"""The `train-teacher` command: ordinary supervised training, then a teacher folder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.clips import thinned_videos
from bridge.config import TrainTeacherConfig
from bridge.datasets import thinned
from bridge.errors import RunError
from bridge.progress import StepProgress, note_of
from bridge.teachers import training
from torch_aip import models
from torch_aip.datasets import LabelledVideos, load, load_video, training_batches
from torch_aip.evaluate import evaluate
from torch_aip.launch import launched, refuse_several
from torch_aip.models.layers import store_channels_last
from torch_aip.optimizers import make_optimizer, schedule_of, set_learning_rate
from torch_aip.run import set_up
from torch_aip.teachers import load_model, save_teacher


def train_teacher(config: TrainTeacherConfig) -> dict[str, Any]:
    """Train a teacher and write its folder.

    Args:
        config: resolved options.

    Returns:
        The measurements of `evaluate` on what was held out: the validation split, or with `hold_out` off the test.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    refuse_several("train-teacher")
    with launched() as world:
        set_up(config.threads, config.seed)
        start = training.start_of(config, models, load_model)
        folder = training.free_folder(config, start.architecture)
        if start.frames is None:
            train, test = training.load_data(config, start.image_size, load)
        else:
            train, test = training.load_videos(config, start, load_video)
        model = training.network(config, start, train, test, models).to(world.device)
        with contextlib.closing(
            training_batches(
                train, config.batch_size, pad=config.pad, flip=config.flip, cutout=config.cutout, seed=config.seed
            )
        ) as data:
            _fit(model, data, config, training.steps_of(config, train))
        if config.smoke:
            test = thinned_videos(test, 16) if isinstance(test, LabelledVideos) else thinned(test, 256)
        measured = evaluate(model, test)
        save_teacher(model, folder, **training.card_of(config, train, test, measured))
    print(training.summary(start.architecture, measured, folder, "images" if start.frames is None else "videos"))
    return measured


def _fit(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], config: TrainTeacherConfig, steps: int) -> None:
    device = next(model.parameters()).device
    store_channels_last(model)
    model.train()
    optimizer = make_optimizer(model.parameters(), "adamw", config.learning_rate, weight_decay=config.weight_decay)
    schedule = schedule_of("cosine", config.epochs * steps, warmup=0.1)
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    unit = "clips" if len(models.input_size_of(model) or ()) == 3 else "images"
    progress = StepProgress("training the teacher", config.epochs, steps, config.batch_size, unit=unit)
    told = torch.zeros(2, device=device)  # loss and accuracy of an epoch: nobody waits for a step's
    progress.start()
    try:
        for step, (images, labels) in zip(range(config.epochs * steps), data):
            set_learning_rate(optimizer, schedule(step))
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            # On GPUs made for it twice as fast or more; normalisation and logits are float32 all the same.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(images)
            loss = functional.cross_entropy(logits.float(), labels)
            told += torch.stack([loss.detach(), (logits.detach().argmax(1) == labels).float().mean()])
            if config.l2:
                loss = loss + config.l2 * torch.stack([weight.square().sum() for weight in kernels]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            note = None
            if (step + 1) % steps == 0:
                mean_loss, accuracy = (told / steps).tolist()
                if not math.isfinite(mean_loss):
                    raise RunError(f"The loss became {mean_loss} by step {step + 1}. Lower --learning-rate.")
                note = note_of({"loss": mean_loss, "accuracy": accuracy})
                told.zero_()
            progress.show(step + 1, note)
    finally:
        progress.close()
