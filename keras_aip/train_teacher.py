"""The `train-teacher` command: ordinary supervised training, then a teacher folder."""

from __future__ import annotations

from typing import Any

import keras

from bridge.config import TrainTeacherConfig
from bridge.datasets import thinned
from bridge.teachers import training
from keras_aip import models
from keras_aip.datasets import load, training_batches
from keras_aip.evaluate import evaluate
from keras_aip.optimizers import make_optimizer
from keras_aip.run import ShowProgress, set_up
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
    train, test = training.load_data(config, start.image_size, load)
    model: Any = training.network(config, start, train, test, models, l2=config.l2)
    steps = training.steps_of(config, train)
    model.compile(
        make_optimizer(
            "adamw", config.learning_rate, weight_decay=config.weight_decay, schedule="cosine",
            steps=config.epochs * steps, warmup=0.1,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )  # fmt: skip
    data = training_batches(
        train, config.batch_size, pad=config.pad, flip=config.flip, cutout=config.cutout, seed=config.seed
    )
    progress = ShowProgress("training the teacher", config.epochs, steps, config.batch_size)
    try:
        model.fit(data, epochs=config.epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[progress])
    finally:
        progress.close()
    measured = evaluate(model, thinned(test, 256) if config.smoke else test)
    save_teacher(model, folder, **training.card_of(config, train, test, measured))
    print(training.summary(start.architecture, measured, folder))
    return measured
