"""A teacher: a frozen network that answers in log space. `teachers` loads one from its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridge.errors import TeacherError
from bridge.teachers.asking import Asked
from bridge.teachers.wrapped import SMALLEST_PROBABILITY, check_statements, number_of_classes
from torch_aip import models
from torch_aip.models.layers import Normalise, store_channels_last


class Teacher(nn.Module):
    """A frozen classifier, in inference mode whatever happens around it; its answers are in log space.

    A module without parameters: one that holds a teacher neither trains nor saves the teacher's weights. It moves to
    another device with its holder, and no conversion of the holder changes its precision.

    Convolutions of images are stored channels-last, which changes speed (1.4 × on a CPU for ResNet-18), not answers.

    Args:
        model: A module (frozen from then on), or any callable that takes a batch of images (or waveforms). One of NumPy
            arrays, such as of a service, goes into `Asked(function)`: it is not asked in training steps, nor twice.
        outputs: What the model gives: ``logits``, ``probabilities``, or ``labels`` (class numbers ``[batch]``
            or one-hot ``[batch, classes]``).
        mean: Mean per channel to subtract before the model, in float32; None where the model does it itself.
        std: Standard deviation per channel to divide by before the model; given together with ``mean``.
        class_names: One name per class.
        dtype: ``"bfloat16"`` computes in it by autocast; None or ``"float32"`` leaves the model as it is.
        digest: What identifies the network; None: a SHA-256 over its weights, where it shows any.
        classes: Number of classes, needed only for models that are not of `torch_aip.models`.
        input_size: Height and width in pixels (or the frames, height and width of clips, or the samples of a waveform),
            likewise.
        rate: Samples per second of waveforms.

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
        rate: int | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TeacherError(f"A teacher is a module or a function of images, not a {type(model).__name__}.")
        check_statements(outputs, mean, std)
        if isinstance(model, Asked) and mean is not None:
            raise TeacherError("What is asked takes images as they are, in [0, 1]: leave out mean and std.")
        if isinstance(model, Asked) and dtype == "bfloat16":
            raise TeacherError("dtype='bfloat16' needs a module; this teacher is another callable.")
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
            store_channels_last(model)
        made_with = (models.architecture_of(model) or {}).get("arguments", {})
        self._input_size = input_size or models.input_size_of(model)
        self._rate = rate
        told = {"classes": classes, "class_names": None if class_names is None else len(class_names)}
        self._classes = number_of_classes({**told, "the model": made_with.get("classes")}, outputs)
        self.train(False)

    @property
    def classes(self) -> int | None:
        """Number of classes; None where neither model nor arguments tell it."""
        return self._classes

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """(height, width) in pixels, (frames, height, width) of clips, (samples,) of waveforms; None: any."""
        return self._input_size

    @property
    def rate(self) -> int | None:
        """Samples per second of the waveforms; None of anything else, or unknown."""
        return self._rate

    @property
    def network(self) -> Any:
        """The model itself, where it is asked about samples as they are: not behind a mean and a deviation."""
        return self._hidden[0] if self._statistics is None else None

    @property
    def outputs(self) -> str:
        """What the model gives: logits, probabilities or labels (the teacher itself gives log space)."""
        return self._outputs

    @property
    def asked(self) -> Asked | None:
        """Who is asked outside of training steps, so that answers have to be stored; None of a network."""
        return self._hidden[0] if isinstance(self._hidden[0], Asked) else None

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
            images: RGB ``[batch, 3, height, width]`` in [0, 1], or clips ``[batch, 3, frames, height, width]``;
                waveforms ``[batch, samples]`` in [-1, 1].

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
            expected = ", ".join(map(str, ("batch", *((3,) if len(size) > 1 else ()), *size)))
            raise TeacherError(f"The teacher takes [{expected}], not {list(images.shape)}.")
        if any(part.training for module in self._parts() for part in module.modules()):
            self.train(False)  # somebody who holds the model itself has trained it meanwhile
        if isinstance(model, Asked):
            return self._ask(model, images)
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

    def _ask(self, asked: Asked, images: Tensor) -> Tensor:
        if self._classes is None:
            raise TeacherError(f"{asked.name} is asked with classes=…, how many it knows.")
        arrays = images.float().cpu()
        arrays = arrays.movedim(1, -1) if arrays.ndim > 2 else arrays
        scores = torch.from_numpy(asked.scores(arrays.numpy(), self._outputs, self._classes))
        return self._in_log_space(scores.to(images.device))

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
