"""The folders that teachers and students are kept in: written, and loaded by path or name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
from torch import Tensor, nn

from bridge.errors import ConfigError, MissingTeacherError, TeacherError
from bridge.names import hint
from bridge.networks import is_x3d, scaled_resnet
from bridge.teachers.card import CARD_NAME, CHANNELS_FIRST, FORMS, Card, kind_of, replacing_folder
from bridge.teachers.remote import behind, is_address
from bridge.teachers.shelf import find_folder, published_as, shelf
from torch_aip import models
from torch_aip.models.library import is_video, pretrained
from torch_aip.teacher import Teacher


def save_teacher(
    model: nn.Module,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    outputs: str = "logits",
    input_size: tuple[int, ...] | None = None,
) -> Card:
    """Write a trained network, teacher or student, as a folder; an older one in its place is replaced.

    It becomes ``weights.safetensors``, which both backends read where both know the architecture. A module of your own,
    which nobody could make again of its weights alone, is kept as ``model.onnx`` too: a frozen network for both
    backends. To train on, build the module and give it the folder's ``weights.safetensors`` by `models.load_weights`.
    Where ONNX cannot say what it computes, a warning says so, and the weights are kept alone.

    The folder is written beside and renamed, so a kill never leaves half of it.

    Args:
        model: Takes images in [0, 1] and normalises by itself, as those of `torch_aip.models` do.
        folder: Where to write it.
        class_names: One name per class.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``.
        source: Where the network comes from.
        licence: Its licence.
        outputs: ``logits``, ``probabilities`` or ``labels``.
        input_size: Height and width of its images in pixels, or frames, height and width of its clips; needed only for
            a module of your own.

    Raises:
        TeacherError: The folder holds something else or cannot be written, or a module of your own does not run on
            images of that size.
    """
    model = models.plain(model)
    described = models.architecture_of(model)
    size = models.input_size_of(model) or input_size
    classes = _scores_of(model, size) if described is None else described["arguments"]["classes"]
    weights = models.state_dict(model)
    name = "" if described is None else described["architecture"]
    shared = described is not None and not (models.is_library(name) or scaled_resnet(name) or is_x3d(name))
    kind = kind_of(size)
    card = Card(
        classes=classes,
        input_size=size,
        kind=kind,
        **(described or {}),
        class_names=None if class_names is None else tuple(class_names),
        layout="NHWC" if shared else CHANNELS_FIRST[kind],  # of networks both backends know, as the other one writes it
        outputs=outputs,
        parameters=sum(array.size for array in weights.values()),
        accuracy=accuracy,
        source=source,
        licence=licence,
        forms={"safetensors": FORMS["safetensors"]},
    )
    with replacing_folder(Path(folder)) as beside:
        # not save_file, whose files only their owner may read
        (beside / FORMS["safetensors"]).write_bytes(safetensors.numpy.save(weights))
        if described is None and _written_as_onnx(model, beside / FORMS["onnx"], size, Path(folder)):
            card = dataclasses.replace(card, forms={**card.forms, "onnx": FORMS["onnx"]})
        card = card.sealed(beside)
        card.save(beside)
    return card


def _scores_of(model: nn.Module, size: tuple[int, ...] | None) -> int:
    """How many scores a module gives that does not say so itself."""
    name = type(model).__name__
    if size is None or len(size) not in (2, 3):
        raise TeacherError(
            f"A {name} does not say which images it takes: give input_size=(height, width), or of clips "
            "(frames, height, width)."
        )
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    training = [part for part in model.modules() if part.training]
    try:
        with torch.no_grad():
            scores: Any = model.eval()(torch.zeros(1, 3, *size, device=device))
    except Exception as error:  # the module's own code
        raise TeacherError(
            f"The {name} does not run on images of shape [3, {', '.join(map(str, size))}] ({error})."
        ) from error
    finally:
        for part in training:
            part.training = True
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TeacherError(f"The {name} answers with {found}; expected one tensor [batch, classes].")
    return scores.shape[1]


def _written_as_onnx(model: nn.Module, path: Path, size: Any, folder: Path) -> bool:
    from torch_aip.export import to_onnx

    try:
        to_onnx(model, path, input_size=size)
    except TeacherError as error:  # what was trained is kept all the same
        warnings.warn(
            f"{error} So {folder} holds the weights alone, for no backend to load: build the module yourself and call "
            f"torch_aip.models.load_weights(module, {str(folder / FORMS['safetensors'])!r}).", stacklevel=3,
        )  # fmt: skip
        return False
    return True


def load_model(folder: str | Path, dataset: str | None = None) -> tuple[nn.Module, Card]:
    """Load the network of a folder (or of a teacher's name), trainable, with its card.

    Args:
        folder: A folder with ``card.json``, its name, or that of a published network, as for :func:`load_teacher`.
        dataset: The data set it is wanted for.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    if is_address(folder):
        raise TeacherError(f"{folder} answers, but has no weights to load; a folder has.")
    found = _find(folder, dataset)
    if isinstance(found, tuple):
        return found
    folder = found
    card = Card.load(folder)
    form = _form_of(folder, card)
    if form == "onnx":
        raise TeacherError(
            f"{folder} has only {card.forms[form]} for this backend: a frozen teacher (load_teacher), not a network to "
            "train. Export it with weights.safetensors of a known architecture."
        )
    return _from_safetensors(folder / card.forms[form], card), card


def load_teacher(
    folder_or_name: str | Path, dtype: str | None = None, dataset: str | None = None, form: str | None = None
) -> Teacher:
    """Load a teacher from a folder, by the name of one in ``$AIP_TEACHERS`` (default ``./teachers``), or as published.

    Args:
        folder_or_name: A folder with ``card.json``, or its name; ``torchvision/resnet18``, ``timm/…`` with the weights
            published there, downloaded the first time. For the data set ``in1k`` a bare ``resnet18`` that is no
            folder's name means torchvision's; so does ``r3d_18`` for ``k400``, where ``x3d_xs``, ``x3d_s``, ``x3d_m``
            and ``x3d_l`` mean pytorchvideo's. Or the address of an endpoint, such as ``http://127.0.0.1:8000``, that
            speaks as `bridge.teachers.remote` describes.
        dtype: ``"bfloat16"`` for a faster, less precise one.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.
        form: ``"safetensors"`` or ``"onnx"``; None: the first if this backend knows the architecture, else the second.

    Raises:
        TeacherError: There is no such teacher or form, or its files are damaged, foreign or refused.
    """
    if is_address(folder_or_name):
        asked, about = behind(str(folder_or_name), dtype, form)
        return Teacher(asked, **about)
    found = _find(folder_or_name, dataset)
    if isinstance(found, tuple):
        model, card = found
        digest = None  # there are no files a card could have the hashes of
    else:
        folder = found
        card = Card.load(folder)
        digest = card.digest
        form = _form_of(folder, card, form)
        path = folder / card.forms[form]
        model = _from_safetensors(path, card) if form == "safetensors" else _from_onnx(path, card)
    return Teacher(
        model, outputs=card.outputs, class_names=card.class_names, dtype=dtype, digest=digest,
        classes=card.classes, input_size=card.input_size, rate=card.rate,
    )  # fmt: skip


def _find(name: str | Path, dataset: str | None) -> Path | tuple[nn.Module, Card]:
    """The folder of that name, or the network a library has published under it."""
    if models.is_library(str(name)):
        if folder := next((place for place in (Path(name), shelf() / name) if place.is_dir()), None):
            return folder
        try:
            return pretrained(str(name))
        except ConfigError as error:
            raise TeacherError(f"There is no teacher {str(name)!r}: {error}") from error
    try:
        return find_folder(name, dataset, can_train=models.is_known(str(name)), program="torch_aip")
    except MissingTeacherError as missing:
        published = published_as(name, dataset)
        if published is None:
            raise
        try:
            # Neither a network for images stands for one for videos, nor the other way round.
            if models.is_library(published) and is_video(published) != (dataset == "k400"):
                raise missing
            return pretrained(published)
        except MissingTeacherError:
            raise
        except ConfigError:  # torchvision knows no such name either
            raise missing from None
        except TeacherError as error:
            raise TeacherError(f"{missing.where} For {dataset} that is {published} as published: {error}") from error


def _form_of(folder: Path, card: Card, form: str | None = None) -> str:
    """The form to load: the one asked for, else the first that this backend can."""
    if form is not None and form not in FORMS:
        raise TeacherError(f"form={form!r} must be one of {', '.join(FORMS)}.{hint(form, FORMS)}")
    if form is not None and form not in card.forms:
        raise TeacherError(f"{folder} has no form {form!r}: its card names {', '.join(card.forms) or 'none'}.")
    if form in ("safetensors", "onnx"):
        return form
    # Without another way the native form is tried all the same: its error says what is wrong with it.
    known = card.architecture and (models.is_known(card.architecture) or "onnx" not in card.forms)
    if form is None and "safetensors" in card.forms and known:
        return "safetensors"
    if form is None and "onnx" in card.forms:
        return "onnx"
    raise TeacherError(
        f"{folder} has no form this backend loads: its card names {', '.join(card.forms) or 'none'}; expected "
        "weights.safetensors with a known architecture, or model.onnx, which `python -m bridge export` makes."
    )


def _from_safetensors(path: Path, card: Card) -> nn.Module:
    try:
        model = models.build(str(card.architecture), **{"classes": card.classes, **card.arguments})
    except (ConfigError, TypeError) as error:
        raise TeacherError(f"{path.parent / CARD_NAME} describes no network that can be built: {error}") from error
    models.load_weights(model, path)
    return model


def _from_onnx(path: Path, card: Card) -> nn.Module:
    from torch_aip.models.from_onnx import from_onnx

    model, expected = from_onnx(path), card.input_size
    found = models.input_size_of(model)
    if expected is not None and found != expected:
        raise TeacherError(f"{path} takes {found} per sample, its card says {expected}.")
    return model
