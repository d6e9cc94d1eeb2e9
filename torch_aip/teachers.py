"""Teachers: frozen networks that answer in log space, and the folders they and students are kept in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.errors import ConfigError, TeacherError
from bridge.names import hint
from bridge.teachers.card import CARD_NAME, FORMS, Card, replacing_folder
from bridge.teachers.shelf import find_folder, shelf
from bridge.teachers.wrapped import SMALLEST_PROBABILITY, check_statements, number_of_classes
from torch_aip import models
from torch_aip.models import load_weights as load_weights
from torch_aip.models.layers import Normalise
from torch_aip.models.library import pretrained


class Teacher(nn.Module):
    """A frozen classifier, in inference mode whatever happens around it; its answers are in log space.

    A module without parameters: one that holds a teacher neither trains nor saves the teacher's weights. It moves to
    another device with its holder, and no conversion of the holder changes its precision.

    Args:
        model: A module (frozen from then on), or any callable that takes a batch of images (or waveforms).
        outputs: What the model gives: ``logits``, ``probabilities``, or ``labels`` (class numbers ``[batch]``
            or one-hot ``[batch, classes]``).
        mean: Mean per channel to subtract before the model, in float32; None where the model does it itself.
        std: Standard deviation per channel to divide by before the model; given together with ``mean``.
        class_names: One name per class.
        dtype: ``"bfloat16"`` computes in it by autocast; None or ``"float32"`` leaves the model as it is.
        digest: What identifies the network; None: a SHA-256 over its weights, where it shows any.
        classes: Number of classes, needed only for models that are not of `torch_aip.models`.
        input_size: Height and width in pixels (or the samples of a waveform), likewise.

    Raises:
        TeacherError: The arguments contradict each other or the model.

    Example:
        >>> teacher = Teacher(model, outputs="probabilities")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module | Callable[..., Any],
        outputs: str = "logits",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        dtype: str | None = None,
        digest: str | None = None,
        *,
        classes: int | None = None,
        input_size: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TeacherError(f"A teacher is a module or a function of images, not a {type(model).__name__}.")
        check_statements(outputs, mean, std)
        if dtype not in (None, "float32", "bfloat16"):
            raise TeacherError(f"dtype={dtype!r} must be None, 'float32' or 'bfloat16'.")
        self._outputs = outputs
        self._statistics = None if mean is None or std is None else (tuple(map(float, mean)), tuple(map(float, std)))
        self._digest = digest
        self.dtype = dtype or "float32"
        self.class_names = None if class_names is None else tuple(class_names)
        # In a tuple, where a module does not look for its parts.
        self._hidden = (model, None if self._statistics is None else Normalise(*self._statistics))
        if isinstance(model, nn.Module):
            model.requires_grad_(False)
        made_with = (models.architecture_of(model) or {}).get("arguments", {})
        self._input_size = input_size or models.input_size_of(model)
        told = {"classes": classes, "class_names": None if class_names is None else len(class_names)}
        self._classes = number_of_classes({**told, "the model": made_with.get("classes")}, outputs)
        self.train(False)

    @property
    def classes(self) -> int | None:
        """Number of classes; None where neither model nor arguments tell it."""
        return self._classes

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Height and width of the images in pixels, or (samples,) of the waveforms; None: any, or unknown."""
        return self._input_size

    @property
    def outputs(self) -> str:
        """What the model gives: logits, probabilities or labels (the teacher itself gives log space)."""
        return self._outputs

    @property
    def digest(self) -> str | None:
        """Identify the network by a SHA-256; None for a callable that shows no weights."""
        model = models.plain(self._hidden[0])
        if self._digest is None and isinstance(model, nn.Module):
            state = hashlib.sha256(repr((self._outputs, self._statistics)).encode())
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self._digest = state.hexdigest()
        return self._digest

    @property
    def device(self) -> torch.device:
        """Where the network is, and its images have to be."""
        tensors = (tensor for part in self._parts() for tensor in (*part.parameters(), *part.buffers()))
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def train(self, mode: bool = True) -> Teacher:
        """Stay in inference mode."""
        del mode
        super().train(False)
        for part in self._parts():
            part.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        # Whatever is done to the holder, of the teacher only the place changes.
        for part in self._parts():
            tensors = [*part.parameters(), *part.buffers()]
            if tensors:
                part.to(fn(torch.empty(0, device=tensors[0].device)).device)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Answer a batch in log space; no gradient flows through.

        Args:
            images: RGB ``[batch, 3, height, width]`` in [0, 1]; waveforms ``[batch, samples]`` in [-1, 1].

        Returns:
            float32 ``[batch, classes]``: logits as the model gives them, or ``log(max(p, 1e-7))`` of its
            probabilities or of its labels as one-hot vectors.

        Raises:
            TeacherError: The images have another size, or the model's answer is no batch of class scores, or has
                another number of classes.
        """
        model, normalise = self._hidden
        size = self._input_size
        if size is not None and tuple(images.shape[1 if len(size) == 1 else 2 :]) != tuple(size):
            expected = ", ".join(map(str, ("batch", *((3,) if len(size) == 2 else ()), *size)))
            raise TeacherError(f"The teacher takes [{expected}], not {list(images.shape)}.")
        if any(part.training for module in self._parts() for part in module.modules()):
            self.train(False)  # somebody who holds the model itself has trained it meanwhile
        x = images.float()
        if normalise is not None:
            x = normalise(x)
        # Off as well where the student around it computes in another precision.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            answer: Any = model(x)
        if isinstance(answer, dict):
            answer = list(answer.values())
        if isinstance(answer, (list, tuple)) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, (list, tuple)):
            raise TeacherError(f"The teacher gives {len(answer)} outputs; expected one, the class scores.")
        return self._in_log_space(torch.as_tensor(answer))

    def _in_log_space(self, scores: Tensor) -> Tensor:
        if self._outputs == "labels" and scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if self._outputs == "labels" and scores.ndim == 1 and self._classes is not None:
            scores = functional.one_hot(scores.long(), self._classes)
        if scores.ndim != 2:
            raise TeacherError(
                f"The teacher answers with shape {tuple(scores.shape)}; expected [batch, classes]"
                + (", or [batch] class numbers." if self._outputs == "labels" else ".")
            )
        if self._classes is not None and scores.shape[1] != self._classes:
            raise TeacherError(f"The teacher answers for {scores.shape[1]} classes; {self._classes} were announced.")
        scores = scores.float()
        return scores if self._outputs == "logits" else scores.clamp(min=SMALLEST_PROBABILITY).log()

    def _parts(self) -> list[nn.Module]:
        return [part for part in self._hidden if isinstance(part, nn.Module)]


def save_teacher(
    model: nn.Module,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    outputs: str = "logits",
) -> Card:
    """Write a trained network, teacher or student, as a folder; an older one in its place is replaced.

    It becomes ``weights.safetensors``, which both backends read where both know the architecture. The folder is written
    beside and renamed, so a kill never leaves half of it.

    Args:
        model: A network of `torch_aip.models`; any other is kept as ONNX, by `python -m bridge export`.
        folder: Where to write it.
        class_names: One name per class.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``.
        source: Where the network comes from.
        licence: Its licence.
        outputs: ``logits``, ``probabilities`` or ``labels``.

    Raises:
        TeacherError: The folder holds something else or cannot be written, or nobody could load the model.
    """
    model = models.plain(model)
    described = models.architecture_of(model)
    if described is None:
        raise TeacherError(
            f"Nobody could make a {type(model).__name__} again of its weights alone. Build it with "
            "torch_aip.models.build, or keep it as ONNX: `python -m bridge export`, or torch_aip.export.to_onnx."
        )
    library = models.is_library(described["architecture"])
    card = Card(
        classes=described["arguments"]["classes"],
        input_size=models.input_size_of(model),
        **described,
        class_names=None if class_names is None else tuple(class_names),
        layout="NCHW" if library else "NHWC",  # of networks both backends know, as the other one writes it
        outputs=outputs,
        parameters=sum(array.size for array in models.state_dict(model).values()),
        accuracy=accuracy,
        source=source,
        licence=licence,
        forms={"safetensors": FORMS["safetensors"]},
    )
    with replacing_folder(Path(folder)) as beside:
        # not save_file, whose files only their owner may read
        (beside / FORMS["safetensors"]).write_bytes(safetensors.numpy.save(models.state_dict(model)))
        card = card.sealed(beside)
        card.save(beside)
    return card


def load_model(folder: str | Path, dataset: str | None = None) -> tuple[nn.Module, Card]:
    """Load the network of a folder (or of a teacher's name), trainable, with its card.

    Args:
        folder: A folder with ``card.json``, its name, or that of a published network, as for :func:`load_teacher`.
        dataset: The data set it is wanted for.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    published = _published(folder)
    if published is not None:
        return published
    folder = find_folder(folder, dataset, can_train=_can_train(folder))
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
            published there, downloaded the first time.
        dtype: ``"bfloat16"`` for a faster, less precise one.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.
        form: ``"safetensors"`` or ``"onnx"``; None: the first if this backend knows the architecture, else the second.

    Raises:
        TeacherError: There is no such teacher or form, or its files are damaged, foreign or refused.
    """
    published = _published(folder_or_name)
    if published is not None:
        model, card = published
        digest = None  # there are no files a card could have the hashes of
    else:
        folder = find_folder(folder_or_name, dataset, can_train=_can_train(folder_or_name))
        card = Card.load(folder)
        digest = card.digest
        form = _form_of(folder, card, form)
        path = folder / card.forms[form]
        model = _from_safetensors(path, card) if form == "safetensors" else _from_onnx(path, card)
    return Teacher(
        model, outputs=card.outputs, class_names=card.class_names, dtype=dtype, digest=digest,
        classes=card.classes, input_size=card.input_size,
    )  # fmt: skip


def _published(name: str | Path) -> tuple[nn.Module, Card] | None:
    """The network of a library, unless a folder is called so."""
    if not models.is_library(str(name)) or any(place.is_dir() for place in (Path(name), shelf() / name)):
        return None
    try:
        return pretrained(str(name))
    except ConfigError as error:
        raise TeacherError(f"There is no teacher {str(name)!r}: {error}") from error


def _can_train(name: str | Path) -> bool:
    return models.is_known(str(name)) and not models.is_library(str(name))


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
