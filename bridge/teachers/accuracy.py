"""How often networks are right on labelled images or sounds, whatever runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bridge.batches import slices
from bridge.errors import ConfigError
from bridge.teachers.card import Card
from bridge.teachers.engines import Run
from bridge.teachers.wrapped import SMALLEST_PROBABILITY


def accuracies(runs: Sequence[Run], card: Card, dataset: str, data_dir: str | None) -> list[dict[str, Any]]:
    """Ask several forms of one network about the test split of a data set, each picture or sound decoded once.

    Args:
        runs: Functions of images float32 [batch, height, width, 3] in [0, 1], or waveforms [batch, samples] in [-1, 1],
            giving the scores the card describes.
        card: Of the network.
        dataset: A name or a path, as for `evaluate`.
        data_dir: Folder with data sets; None: $AIP_DATA, or ./data.

    Returns:
        For each ``{"top1": fraction, "dataset": name, "n": images}``, as a card has it.

    Raises:
        ConfigError: The network takes clips, the card does not tell what it takes, or there are no labels.
        DatasetError, TeacherError: The data cannot be read, or do not fit the network.
    """
    from bridge.audio_sets import load_audio
    from bridge.datasets import check_classes, load
    from bridge.measuring import scored, takes_sounds
    from bridge.sounds import floats

    if card.input_size is None or card.kind == "video":
        raise ConfigError("Only networks that take images or waveforms of a fixed size are measured here.")
    data: Any
    if takes_sounds(dataset, card.input_size):
        rate = int(card.rate or 0)
        data = load_audio(
            dataset, rate=rate, seconds=card.input_size[0] / rate, class_names=card.class_names, data_dir=data_dir
        )
        inputs = data.waveforms
    else:
        data = load(dataset, image_size=card.input_size[0], class_names=card.class_names, data_dir=data_dir)
        inputs = data.images
    data = check_classes(data, card.classes, card.class_names)
    if data.labels is None:
        raise ConfigError(f"{dataset} has no labels: expected a folder for each class, or an .npz with labels.")
    answers: list[list[np.ndarray]] = [[] for _ in runs]
    for rows in slices(len(inputs), 256, unit="sounds" if card.kind == "audio" else "images"):
        x = floats(inputs[rows]) if card.kind == "audio" else inputs[rows].astype(np.float32) / 255
        for run, of_run in zip(runs, answers):
            of_run.append(_in_log_space(run(x), card))
    found = [scored(data, np.concatenate(of_run)) for of_run in answers]
    return [{"top1": each["student_top1"], "dataset": each["dataset"], "n": each["n"]} for each in found]


def _in_log_space(scores: np.ndarray, card: Card) -> np.ndarray:
    if card.outputs == "logits":
        return scores
    if card.outputs == "labels" and scores.shape[1:] != (card.classes,):
        scores = np.eye(card.classes, dtype=np.float32)[scores.reshape(len(scores)).astype(np.int64)]
    return np.log(np.maximum(scores, SMALLEST_PROBABILITY))
