"""The `train-teacher` command: ordinary supervised training, then a teacher folder."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bridge.config import TrainTeacherConfig
from bridge.datasets import thinned
from bridge.datum.masks import Masks
from bridge.sounds import thinned_sounds
from bridge.teachers import training
from keras_aip import models
from keras_aip.datasets import LabelledSounds, load, load_audio, sound_training_batches, training_batches
from keras_aip.evaluate import evaluate
from keras_aip.optimizers import make_optimizer
from keras_aip.run import ShowProgress, set_up
from keras_aip.spectrograms import Masked, parted
from keras_aip.teachers import load_model, save_teacher


def train_teacher(config: TrainTeacherConfig) -> dict[str, Any]:
    """Train a teacher and write its folder.

    Args:
        config: resolved options.

    Returns:
        The measurements of `evaluate` on what was held out: the validation split, or with `hold_out` off the test.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    set_up(config.threads, config.seed)
    start = training.start_of(config, models, load_model)
    folder = training.free_folder(config, start.architecture)
    if start.samples is None:
        train, test = training.load_data(config, start.image_size, load)
    else:
        train, test = training.load_sounds(config, start, load_audio)
    model: Any = training.network(config, start, train, test, models, l2=config.l2)
    data, sounds = _batches(config, train), isinstance(train, LabelledSounds)
    network = parted(model) if sounds and config.spec_augment else None
    learner: Any = Masked(network) if network else model  # the same layers learn
    what = "sounds" if sounds else "images"
    steps = training.steps_of(config, train)
    learner.compile(
        make_optimizer(
            "adamw", config.learning_rate, weight_decay=config.weight_decay, schedule="cosine",
            steps=config.epochs * steps, warmup=0.1,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )  # fmt: skip
    progress = ShowProgress("training the teacher", config.epochs, steps, config.batch_size, unit=what)
    try:
        learner.fit(data, epochs=config.epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[progress])
    finally:
        progress.close()
    if config.smoke:
        test = thinned_sounds(test, 256) if isinstance(test, LabelledSounds) else thinned(test, 256)
    measured = evaluate(model, test)
    save_teacher(model, folder, **training.card_of(config, train, test, measured))
    print(training.summary(start.architecture, measured, folder, what))
    return measured


def _batches(config: TrainTeacherConfig, train: Any) -> tf.data.Dataset:
    """What is learnt from; sounds come with their masks, if there are any."""
    if isinstance(train, LabelledSounds):
        masks = Masks(config.spec_augment) if config.spec_augment else None
        return sound_training_batches(
            train, config.batch_size, shift=config.shift, noisy=config.noisy, masks=masks, seed=config.seed
        )
    return training_batches(
        train, config.batch_size, pad=config.pad, flip=config.flip, cutout=config.cutout, seed=config.seed
    )
