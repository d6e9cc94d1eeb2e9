"""Measuring a student: against labels, against its teacher, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bridge.batches import slices
from bridge.datasets import check_classes, readable_rows
from bridge.errors import DatasetError
from bridge.metrics import evaluate_logits
from bridge.pictures import Pictures
from torch_aip import models
from torch_aip.datasets import Labelled, load
from torch_aip.teachers import Teacher


def predict(model: Any, images: np.ndarray | Pictures, batch_size: int = 256) -> np.ndarray:
    """Logits of a module, or log-space answers of a `Teacher`, in inference mode.

    Args:
        model: takes float32 [batch, 3, h, w] in [0, 1].
        images: uint8 [n, h, w, 3]; of `Pictures` those that cannot be decoded are black, see `readable_rows`.
        batch_size: images per forward pass.

    Returns:
        float32 [n, classes].
    """
    return _predict_all([model], images, batch_size)[0]


def _predict_all(judged: Sequence[Any], images: np.ndarray | Pictures, batch_size: int) -> list[np.ndarray]:
    """Answers of several models, each picture decoded once."""
    answers: list[list[np.ndarray]] = [[] for _ in judged]
    with contextlib.ExitStack() as stack:
        for model in judged:
            stack.enter_context(_in_inference_mode(model))
        stack.enter_context(torch.inference_mode())
        for rows in slices(len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[rows]))
            for model, of_model in zip(judged, answers):
                # Transposed only in name: the channels stay last in memory, which convolutions like.
                batch = pixels.to(_device_of(model)).permute(0, 3, 1, 2).float() / 255
                of_model.append(model(batch).float().cpu().numpy())
    return [np.concatenate(of_model) for of_model in answers]


def evaluate(
    model: nn.Module | Teacher,
    dataset: str | Labelled,
    *,
    teacher: Teacher | None = None,
    split: str = "test",
    batch_size: int = 256,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: a module from float32 [batch, 3, h, w] in [0, 1] to logits, or a `Teacher`.
        dataset: a name in `FACTS`, such as "cifar10" or "in1k", a folder with one folder per class, a flat folder of
            images without labels, an .npz file, or a `Labelled`.
        teacher: for agreement and KL, and to be measured too.
        split: of a named data set.
        batch_size: images per forward pass.
        data_dir: where named sets are looked for; None: $AIP_DATA, or ./data.

    Returns:
        teacher_top1, student_top1, teacher_top5, student_top5, agreement, kl (nats, τ = 1), ece (15 bins), dataset, n.
        Fractions lie in [0, 1]; what has no meaning is None. Pictures that cannot be decoded are left out of all of
        them and of n, with a warning.

    Raises:
        DatasetError: the data cannot be read or do not fit the model.
    """
    if isinstance(dataset, Labelled):
        data = dataset
    else:
        data = load(dataset, split=split, image_size=input_side(model), data_dir=data_dir)
    for who, judged in (("model", model), ("teacher", teacher)):
        expected = _input_size(judged)
        if expected is not None and expected != data.images.shape[1:3]:
            raise DatasetError(
                f"{data.name} has images of {list(data.images.shape[1:3])} pixels, the {who} wants {list(expected)}; "
                f"load it with image_size={expected[0]}."
            )
    judged = [model] if teacher is None else [model, teacher]
    logits = _predict_all(judged, data.images, batch_size)
    data, rows = check_classes(data, logits[0].shape[1]), readable_rows(data)
    labels = None if data.labels is None else data.labels[rows]
    figures = evaluate_logits(logits[0][rows], labels, logits[1][rows] if len(logits) > 1 else None)
    return {**figures, "dataset": data.name, "n": len(rows)}


@contextlib.contextmanager
def recalibrated(model: nn.Module, image_batches: Iterable[Tensor]) -> Iterator[nn.Module]:
    """Inside the context, BatchNorm statistics are those of the given images; afterwards the old ones are back.

    The student's statistics come from mixed views. This asks what they would give on unmixed ones, and never takes
    test images.

    Args:
        model: with or without BatchNorm.
        image_batches: float32 [batch, 3, h, w] in [0, 1] each; every batch counts the same.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    before = [({name: kept.clone() for name, kept in layer.named_buffers()}, layer.momentum) for layer in norms]
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the running mean over all batches so far
        with torch.no_grad():
            for images in image_batches:
                model(images)
        _set_modes(modes)
        yield model
    finally:
        _set_modes(modes)
        for layer, (buffers, momentum) in zip(norms, before):
            layer.momentum = momentum
            for name, kept in layer.named_buffers():
                kept.copy_(buffers[name])


def input_side(model: Any) -> int | None:
    """Side of the images a model was built for in pixels, None where it takes any."""
    size = _input_size(model)
    return None if size is None else size[0]


def _input_size(model: Any) -> tuple[int, ...] | None:
    """Height and width in pixels, None where the model takes any or does not say."""
    return model.input_size if isinstance(model, Teacher) else models.input_size_of(model)


def _device_of(model: Any) -> torch.device:
    if isinstance(model, Teacher):
        return model.device
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


@contextlib.contextmanager
def _in_inference_mode(model: Any) -> Iterator[None]:
    """Every part of a module as it was, afterwards."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        _set_modes(modes)


def _set_modes(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training
