"""What units of a network like best, by gradient ascent, and where it looks, by Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bridge.errors import TeacherError
from bridge.insight import visualizing
from bridge.insight.neurons import COLOURS, Ascent, Canvas, Unit
from bridge.insight.options import VisualizeConfig
from bridge.insight.visualizing import Found, cannot_draw, no_gradient, no_places
from bridge.teachers.wrapped import SMALLEST_PROBABILITY
from torch_aip.run import set_up
from torch_aip.teacher import Teacher
from torch_aip.teachers import load_teacher

_MOMENTA, _EPSILON = (0.9, 0.999), 1e-8
"""Of Adam (Kingma & Ba 2015)."""
_repeatable: Any = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
"""A decorator: the same seed, the same picture."""


def visualize(config: VisualizeConfig) -> list[Path]:
    """Draw what units of one or two networks like best and, with images, where both look.

    Returns:
        The files written: neurons.png, with images maps.png, and visualize.json.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    set_up(config.threads, config.seed)
    return visualizing.visualize(config, inspected)


def inspected(name: str, dataset: str | None = None) -> Inspected:
    """A network to look into, on the fastest device.

    Args:
        name: its folder, or a teacher's name.
        dataset: the data set it is wanted for.

    Raises:
        TeacherError: there is none, or it cannot be drawn of.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Inspected(load_teacher(name, dataset=dataset).to(device), name)


class Inspected:
    """A network that is looked into.

    Args:
        teacher: the network, frozen, on its device.
        name: for messages.
        input_size: of a network that takes images of any size, what it is asked about.

    Raises:
        TeacherError: it has no gradient, or takes no images.
    """

    def __init__(self, teacher: Teacher, name: str, input_size: tuple[int, ...] | None = None) -> None:
        self._teacher = teacher
        self.name = name
        if teacher.outputs == "labels" or teacher.asked is not None:
            raise no_gradient(name, "torch_aip")
        self.input_size: tuple[int, ...] | None = teacher.input_size or input_size
        size: Any = self.input_size or ()
        if len(size) != 2 or self._teacher.network is None:
            sounds = len(size) == 1
            what = "sounds: python -m keras_aip visualize" if sounds else f"{size or 'any size'}, no images"
            raise TeacherError(f"Units are drawn of networks for images of one size; {name} takes {what}.")
        self._network: Any = self._teacher.network
        self.classes = int(self._teacher.classes or 0)
        self.class_names: Sequence[str] | None = self._teacher.class_names
        self.shape: tuple[int, int] = (size[0], size[1])
        self.sounds = False

    def layers(self) -> dict[str, int]:
        """How many channels each layer has, in the order in which they answer."""
        return {name: shape[-1 if len(shape) == 3 else 1] for name, shape in self._outputs().items()}

    def maximise(self, units: Sequence[Unit], ascent: Ascent, on_step: Callable[[int], None]) -> Found:
        """Make a picture for each unit of one layer, or for each class.

        Args:
            units: of the same layer.
            ascent: how.
            on_step: told how many steps are done.

        Raises:
            TeacherError: no gradient comes through the network, or it fails.
        """
        with _explained(self.name):
            return self._maximise(units, ascent, on_step)

    @_repeatable
    def _maximise(self, units: Sequence[Unit], ascent: Ascent, on_step: Callable[[int], None]) -> Found:
        canvas, device = ascent.canvas, self._teacher.device
        indices = [unit.index for unit in units]
        parameters = torch.from_numpy(canvas.first(ascent.seed, indices)).to(device)
        chosen = functional.one_hot(torch.tensor(indices), self._width(units[0].layer)).float().to(device)

        def liked(parameters: Tensor, views: tuple[NDArray[np.float32], ...]) -> Tensor:
            rows, columns = (torch.from_numpy(matrix).to(device, non_blocking=True) for matrix in views)
            shown = rows @ pixels(parameters, canvas) @ columns.T
            return (self._values(shown, units[0].layer) * chosen).sum(1)

        with torch.no_grad():
            before = liked(parameters, ascent.still())
        mean, square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        for step in range(ascent.steps):
            parameters = parameters.detach().requires_grad_()
            value = liked(parameters, ascent.views(step)).sum()
            slope = torch.autograd.grad(value, parameters)[0] if value.requires_grad else torch.zeros_like(parameters)
            if step == 0 and not bool(slope.any()):
                raise no_gradient(self.name, "torch_aip")
            mean = _MOMENTA[0] * mean + (1 - _MOMENTA[0]) * slope
            square = _MOMENTA[1] * square + (1 - _MOMENTA[1]) * slope * slope
            done = [1 - momentum ** (step + 1) for momentum in _MOMENTA]
            change = mean / done[0] / ((square / done[1]).sqrt() + _EPSILON)
            parameters = parameters.detach() + ascent.learning_rate * change
            on_step(1)
        with torch.no_grad():
            after = liked(parameters, ascent.still())
            pictures = pixels(parameters, canvas)
            rows, columns = (torch.from_numpy(matrix).to(device) for matrix in ascent.still())
            answers = self._values(rows @ pictures @ columns.T, None)
        drawn = (pictures * 255).round().byte().permute(0, 2, 3, 1)
        return Found(*(values.cpu().numpy() for values in (drawn, before, after, answers)))

    @_repeatable
    def maps(
        self, images: NDArray[np.uint8], classes: Sequence[int] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the network looks: Grad-CAM (Selvaraju et al. 2017) at the last layer that knows places.

        Args:
            images: uint8 [n, height, width, 3].
            classes: for which class of each; None: for its own first one.

        Returns:
            float32 [n, rows, columns] of that layer, at least 0, and the answers, float32 [n, classes].

        Raises:
            TeacherError: no layer knows places, or no gradient comes through.
        """
        places = [name for name, shape in self._outputs().items() if len(shape) == 4 and min(shape[2:]) > 1]
        if not places:
            raise no_places(self.name)
        x = torch.from_numpy(images).to(self._teacher.device).permute(0, 3, 1, 2).float() / 255
        with _kept(self._network.get_submodule(places[-1])) as kept:
            answers = self._values(x.requires_grad_(), None)
        wanted = answers.argmax(1) if classes is None else torch.tensor(classes, device=x.device)
        if not answers.requires_grad:
            raise no_gradient(self.name, "torch_aip")
        slope = torch.autograd.grad(answers.gather(1, wanted[:, None]).sum(), kept[-1])[0]
        heat = functional.relu((slope.mean((2, 3), keepdim=True) * kept[-1]).sum(1))
        return heat.detach().cpu().numpy(), answers.detach().cpu().numpy()

    def _values(self, x: Tensor, layer: str | None) -> Tensor:
        """[n, classes] in log space, or the channels' means [n, channels]."""
        if layer is None:
            scores = self._network(x).float()
            return scores if self._teacher.outputs == "logits" else scores.clamp(min=SMALLEST_PROBABILITY).log()
        with _kept(self._network.get_submodule(layer)) as kept:
            self._network(x)
        if kept[-1].ndim == 3:
            return kept[-1].float().mean(1)
        return kept[-1].float().flatten(2).mean(2) if kept[-1].ndim == 4 else kept[-1].float()

    def _width(self, layer: str | None) -> int:
        return self.classes if layer is None else self.layers()[layer]

    @torch.no_grad()
    def _outputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes that the network's parts answer with, by their names; what is computed last comes last."""
        shapes: dict[str, tuple[int, ...]] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, given: Any, answer: Any) -> None:
                if isinstance(answer, Tensor) and 2 <= answer.ndim <= 4:
                    shapes[name] = tuple(answer.shape)

            return hook

        parts = [(name, part) for name, part in self._network.named_modules() if name]
        handles = [part.register_forward_hook(keep(name)) for name, part in parts]
        try:
            self._network(torch.zeros(2, 3, *self.shape, device=self._teacher.device))
        finally:
            for handle in handles:
                handle.remove()
        return shapes


def pixels(parameters: Tensor, canvas: Canvas) -> Tensor:
    """The pictures that parameters stand for: float32 [units, channels, height, width] in (0, 1)."""
    device = parameters.device
    spectrum = torch.view_as_complex(parameters * torch.from_numpy(canvas.weights()).to(device))
    values = torch.fft.irfft2(spectrum, (canvas.height, canvas.width))
    if canvas.channels == 3:
        values = torch.einsum("rc,nchw->nrhw", torch.from_numpy(COLOURS).to(device), values)
    return torch.sigmoid(values + canvas.offset)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever PyTorch finds wrong with a foreign graph, or has no memory for, in one message."""
    try:
        yield
    except RuntimeError as error:
        raise cannot_draw(name, str(error)) from error


@contextmanager
def _kept(part: nn.Module) -> Iterator[list[Tensor]]:
    """What a part of a network answers meanwhile."""
    kept: list[Tensor] = []

    def hook(module: nn.Module, given: Any, answer: Any) -> None:
        kept.append(answer)

    handle = part.register_forward_hook(hook)
    try:
        yield kept
    finally:
        handle.remove()
