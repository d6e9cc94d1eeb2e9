"""The distiller: lets a student learn from a frozen teacher's answers alone."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bridge.datum.mixing import KINDS, Mixing
from bridge.datum.steps import Numbers
from bridge.errors import ConfigError, DatasetError, TeacherError
from bridge.progress import StepProgress, note_of
from bridge.replay import replay, require_store
from torch_aip import losses, models
from torch_aip.ema import Average
from torch_aip.feed import Step, Stored, feed
from torch_aip.feed import steps_per_epoch as steps_in
from torch_aip.launch import average_statistics, mean_over_processes, rank, world_size
from torch_aip.mixing import mix
from torch_aip.models.layers import store_channels_last
from torch_aip.optimizers import Schedule, learning_rate_of, make_optimizer, set_learning_rate
from torch_aip.stored import answered
from torch_aip.stream import ahead
from torch_aip.teacher import Teacher
from torch_aip.views import ViewLoader

OnEpoch = Callable[[int, dict[str, float]], object]
"""Called after an epoch, in every process, with its number and its measurements."""
_LOOKED_AT = 32  # rows


class Distiller:
    """Distils `teacher` into `student`.

    Views are mixed, the teacher labels the mixed pixels, and the student is drawn towards its answers. Nothing else
    is learned from: no labels, no real data. In several processes (`torchrun`) each trains on its rows of every step.

    Args:
        student: any module from float32 views [batch, 3, height, width] or clips [batch, 3, frames, height, width] in
            [0, 1] to logits [batch, classes]. Where it is, there is trained.
        teacher: a `torch_aip.Teacher` (see `load_teacher`), or a module that gives logits on such views.
        temperature: τ, dimensionless; 8 for images, 5 for video (Asano & Saeed 2023).
        loss: a name in `torch_aip.losses.LOSSES` or a function (teacher, student, temperature) → scalar.
        mixing: "cutmix", "mixup", "both", "none", or a `bridge.datum.mixing.Mixing` with all its settings.
        tau_squared: multiply the loss by τ², which keeps gradients comparable across temperatures (Hinton et al.
            2015). Off in the paper.
        seed: of the mixing.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> distiller = Distiller(student, teacher)
        >>> distiller.fit(single_image_loader("city.jpg"), epochs=10)
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | nn.Module,
        temperature: float = 8.0,
        loss: str | losses.Loss = "kl",
        mixing: str | Mixing = "cutmix",
        *,
        tau_squared: bool = False,
        seed: int = 0,
    ):
        if not (math.isfinite(temperature) and temperature > 0):
            raise ConfigError(f"temperature (={temperature}) must be a positive number; the paper uses 8.")
        if any(weight.dtype == torch.float16 for weight in student.parameters()):
            raise ConfigError(
                "The student computes in float16, whose small gradients would vanish without loss scaling; leave it in "
                'float32 and choose compile(dtype="bfloat16") instead.'
            )
        store_channels_last(student)  # now, because optimizers lay out their state as the weights are
        self.student = student
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        self.temperature = float(temperature)
        self.mixing = mixing if isinstance(mixing, Mixing) else Mixing(mixing)
        if self.mixing.on != "input":
            raise ConfigError(f"mixing on {self.mixing.on!r} is of sounds, which are keras_aip's; mix on 'input'.")
        self.seed = seed
        self.optimizer: torch.optim.Optimizer | None = None
        self._loss_function = losses.get(loss)
        if self.teacher.outputs == "labels" and self._loss_function is not losses.argmax:
            raise ConfigError(
                f"A teacher that answers with labels can only be distilled with loss='argmax', not {loss!r}: there "
                "are no probabilities to soften."
            )
        self._loss_scale = self.temperature**2 if tau_squared else 1.0
        self._average: Average | None = None
        self._renderer: nn.Module | None = None
        self._unit = "images"

    # -- the public face ----------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        schedule: Schedule | None = None,
        dtype: str = "float32",
        jit_compile: bool = False,
        accumulate: int = 1,
        clip_norm: float | None = None,
        ema: float | None = None,
        l2: float = 0.0,
    ) -> None:
        """Choose how to train; optional, `fit` does it with the defaults.

        Args:
            optimizer: any PyTorch optimizer of the student's parameters. Default: Adam 1e-3 (reference code).
            schedule: number of the step → share of the optimizer's rate; None: constant.
            dtype: "bfloat16" computes the student in it where that is safe (autocast); its weights stay float32.
            jit_compile: put renderer, teacher and student through `torch.compile`.
            accumulate: parts in which a step's rows go through, one after the other; BatchNorm sees each by itself.
            clip_norm: longest gradient over all weights.
            ema: decay of a moving average of the weights: `averaged` then gives that network.
            l2: weight of the sum of squares of all kernels, added to the loss.

        Raises:
            ConfigError: a value that makes no sense.
        """
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype (={dtype!r}) must be 'float32' or 'bfloat16'.")
        if accumulate < 1:
            raise ConfigError(f"accumulate (={accumulate}) must be at least 1.")
        if ema is not None and not 0 < ema < 1:
            raise ConfigError(f"ema (={ema}) is a decay per step and must lie between 0 and 1, such as 0.999.")
        self.optimizer = make_optimizer(self.student.parameters(), "adam", 1e-3) if optimizer is None else optimizer
        self._schedule = schedule or (lambda step: 1.0)
        self._dtype, self._jit, self._accumulate = dtype, jit_compile, accumulate
        self._clip_norm, self._l2 = clip_norm, l2
        self._average = None if ema is None else Average(self.student, ema)

    @property
    def averaged(self) -> nn.Module:
        """The moving average of the student where there is one, else the student: what is to be delivered."""
        return self.student if self._average is None else self._average.model

    @property
    def average(self) -> Average | None:
        """The moving average itself, with the number of its steps."""
        return self._average

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return next((tensor.device for tensor in self.student.parameters()), torch.device("cpu"))

    def fit(
        self,
        views: Iterable[Any],
        epochs: int = 1,
        *,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        store_teacher: str | Path | None = None,
        on_answer: Callable[[int], object] | None = None,
        callbacks: Sequence[OnEpoch] = (),
        verbose: bool = True,
    ) -> dict[str, list[float]]:
        """Distil.

        Args:
            views: `single_image_loader(...)`, `single_video_loader(...)`, or any iterable of batches of images float32
                [batch, 3, height, width] (clips: [batch, 3, frames, height, width]) in [0, 1], such as a `DataLoader`;
                it starts again at its end.
            epochs: up to which epoch to train.
            steps_per_epoch: default: what the loader carries (`single_image_loader`), or its own length.
            initial_epoch: the epoch to begin with, when resuming; the loader must begin at that step too.
            store_teacher: a folder for the teacher's answers. The views of the first epoch are then shown again in
                every epoch, in another order, and the teacher answers each once, for this and all later students.
                Faster, and less accurate than ever new views.
            on_answer: called with the number of steps whose answers are stored so far, while they are asked for.
            callbacks: called after every epoch with its number and measurements, in every process.
            verbose: show progress on stderr.

        Returns:
            "loss" and "agreement" (how often student and teacher name the same class on the mixed views), one value
            per epoch.

        Raises:
            ConfigError, DatasetError, TeacherError: before the first step, naming both sides.
        """
        require_store(self.teacher, store_teacher)
        self.check_loader(views)
        steps = steps_per_epoch or steps_in(views)
        first_step = getattr(views, "start_step", initial_epoch * steps)
        shard, stored = (rank(), world_size()), None
        if store_teacher is not None:
            store = answered(store_teacher, self.teacher, views, self.mixing, self.seed, steps, progress=on_answer)
            stored = Stored(replay(store, self.seed), store.read)
        size = getattr(views, "batch_size", None) or 1
        progress = StepProgress("distilling", epochs, steps, size, initial_epoch * steps, unit=self._unit)
        history: dict[str, list[float]] = {"loss": [], "agreement": []}
        show = verbose and rank() == 0
        forward = self._forward()
        batches = ahead(feed(views, self.mixing, self.seed, first_step, shard, stored))
        try:
            if show:
                progress.start()
            for epoch in range(initial_epoch, epochs):
                self.student.train()
                totals = torch.zeros(2, device=self.device)
                for step in range(epoch * steps, (epoch + 1) * steps):
                    totals += self._step(next(batches).to(self.device), step, forward)
                    if show and step + 1 < (epoch + 1) * steps:
                        progress.show(step + 1)
                average_statistics(self.student)
                if self._average is not None:
                    average_statistics(self._average.model)
                loss, agreement = mean_over_processes(totals / steps).tolist()
                logs = {"loss": loss, "agreement": agreement}
                for name, value in logs.items():
                    history[name].append(value)
                if show:
                    progress.show((epoch + 1) * steps, note_of(logs))
                for callback in callbacks:
                    callback(epoch, {**logs, "learning_rate": self._rate_of((epoch + 1) * steps)})
        finally:
            batches.close()
            progress.close()
        return history

    def check_loader(self, views: Iterable[Any]) -> None:
        """Look at a loader's first images before any work is lost; `fit` does it by itself.

        Raises:
            DatasetError: it gives no batches of images in [0, 1].
            TeacherError: sizes or class counts differ, or the teacher's answers are not finite.
            ConfigError: its batches cannot be shared among processes and parts.
        """
        if isinstance(views, (Tensor, str, Path)) or not isinstance(views, Iterable):
            raise DatasetError(
                f"fit got a {type(views).__name__}; it takes a loader of image batches, such as "
                'torch_aip.single_image_loader("city.jpg").'
            )
        if isinstance(views, Iterator):
            raise DatasetError(
                f"fit got a {type(views).__name__}, whose batches come only once; it takes a loader that can start "
                "again, such as a DataLoader or a list of batches."
            )
        if self.optimizer is None:
            self.compile()
        self.teacher.to(self.device)
        self._renderer = views.renderer.to(self.device) if getattr(views, "render", None) == "device" else None
        if isinstance(views, ViewLoader):
            first, rows = views.look(_LOOKED_AT), views.batch_size
            rows = rows // world_size() if rows % world_size() == 0 else 0
        else:
            first = _first_of(views)
            rows = len(first) if isinstance(first, Tensor) else 0
        if isinstance(first, Numbers):
            first = self._render(type(first)(*(part.to(self.device) for part in first)))
        self.check(first[:_LOOKED_AT].to(self.device) if isinstance(first, Tensor) else first)
        self._check_rows(rows)

    def check(self, images: Tensor) -> None:
        """Look at one batch before any work is lost.

        Args:
            images: float32 [batch, 3, height, width], or clips [batch, 3, frames, height, width], in [0, 1].

        Raises:
            DatasetError: the batch is no batch of images or clips in [0, 1], or its mixing is not for them.
            TeacherError: sizes or class counts differ, or the teacher's answers are not finite.
        """
        if not isinstance(images, Tensor) or images.dtype != torch.float32 or images.ndim not in (4, 5):
            found = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise DatasetError(
                "Views must be float32 [batch, channels, height, width] (clips: [batch, channels, frames, height, "
                f"width]) in [0, 1]; got {found}. Divide 8-bit images by 255, and let the loader give images alone, "
                "without labels."
            )
        if images.ndim == 4 and self.mixing.kind not in KINDS:
            raise DatasetError(
                f"mixing={self.mixing.kind!r} cuts frames, and images have none; use one of {', '.join(KINDS)}."
            )
        low, high = float(images.min()), float(images.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise DatasetError(
                f"Views must lie in [0, 1]; got values from {low:.3g} to {high:.3g}. Divide 8-bit images by 255; "
                "normalisation belongs to the models."
            )
        self._unit = "clips" if images.ndim == 5 else "images"
        sizes = {
            "views": tuple(images.shape[2:]),
            "teacher": self.teacher.input_size,
            "student": models.input_size_of(self.student),
        }
        if any(size is not None and tuple(size) != sizes["views"] for size in sizes.values()):
            raise TeacherError(
                f"Views, teacher and student must agree on [{'frames, ' * (images.ndim == 5)}height, width]; got "
                + ", ".join(f"{name} {list(size) if size else 'any'}" for name, size in sizes.items())
                + ". Nothing is resized silently: make the views with image_size (and frames) of the teacher and build "
                "the student for it."
            )
        was_training = self.student.training
        self.student.eval()
        with torch.no_grad():
            student = self.student(images)
            # One who is asked is not asked twice, and nothing about which no student learns.
            teacher = student.new_zeros(len(images), self.teacher.classes or 0)
            if self.teacher.asked is None:
                teacher = self.teacher(images)
        self.student.train(was_training)
        if teacher.shape[-1] != student.shape[-1]:
            raise TeacherError(
                f"Teacher and student must have the same classes; the teacher answers with {list(teacher.shape)}, the "
                f"student with {list(student.shape)}. Build the student with classes={teacher.shape[-1]}."
            )
        if not bool(teacher.isfinite().all()):
            raise TeacherError(
                f"The teacher's answers on the first {len(images)} views hold NaN or infinity; expected finite "
                f"{self.teacher.outputs}. Check its weights and whether it wants views in [0, 1]."
            )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _step(self, batch: Step, step: int, forward: Callable[[Tensor], Tensor]) -> Tensor:
        """One step on this process's rows: [loss, agreement], left on the device so that nobody waits for it."""
        assert self.optimizer is not None
        self._check_rows(len(batch.mixing.weight))
        set_learning_rate(self.optimizer, self._schedule(step))
        self.optimizer.zero_grad(set_to_none=True)
        parts, told = self._accumulate, torch.zeros(2, device=self.device)
        for number in range(parts):
            last = number == parts - 1
            wait = isinstance(self._parallel, DistributedDataParallel) and not last
            with self._parallel.no_sync() if wait else contextlib.nullcontext():  # type: ignore[union-attr]
                loss, agreement = self._loss(batch.part(number, parts) if parts > 1 else batch, forward)
                (loss / parts).backward()
            told += torch.stack([loss.detach(), agreement]) / parts
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), self._clip_norm)
        self.optimizer.step()
        if self._average is not None:
            self._average.update()
        return told

    def _loss(self, batch: Step, forward: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            images = mix(self._render(batch.views), batch.mixing)
            answers = self._ask(images) if batch.teacher is None else batch.teacher
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._dtype == "bfloat16"):
            student = forward(images)
        student = student.float()
        loss = self._loss_scale * self._loss_function(answers, student, self.temperature)
        if self._l2:
            kernels = [weight.square().sum() for weight in self.student.parameters() if weight.ndim > 1]
            loss = loss + self._l2 * torch.stack(kernels).sum()
        return loss, (answers.argmax(-1) == student.detach().argmax(-1)).float().mean()

    def _forward(self) -> Callable[[Tensor], Tensor]:
        """The student as it is trained: shared among processes and compiled, if asked for."""
        self._parallel: nn.Module = self.student
        if world_size() > 1:
            # Each process keeps its own BatchNorm statistics during an epoch; sending them in every step would wait.
            known = inspect.signature(DistributedDataParallel).parameters
            in_each_step = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # < 2.13
            options: dict[str, Any] = {in_each_step: False, "gradient_as_bucket_view": True}
            if self.device.type == "cuda":
                options["device_ids"] = [self.device]
            self._parallel = DistributedDataParallel(self.student, **options)
        self._ask: Callable[[Tensor], Tensor] = self.teacher
        if not self._jit:
            return self._parallel
        self._ask = torch.compile(self.teacher, dynamic=False)
        if self._renderer is not None:
            self._renderer = torch.compile(self._renderer, fullgraph=True, dynamic=False)  # type: ignore[assignment]
        return torch.compile(self._parallel, dynamic=False)  # type: ignore[return-value]

    def _check_rows(self, rows: int) -> None:
        """Of a step's rows in this process, 0 where they cannot be shared out evenly."""
        block = 1 if self.mixing.kind == "none" else self.mixing.block
        several = world_size() > 1 or self._accumulate > 1
        if several and (rows == 0 or rows % (self._accumulate * block)):
            found = f"{rows} rows per process" if rows else "a batch that cannot be shared evenly"
            raise ConfigError(
                f"{world_size()} processes with {self._accumulate} part(s) of each step must hold whole blocks of "
                f"mixing partners each; got {found} and blocks of {block}. Make the batch (--batch-size) a multiple "
                f"of {world_size() * self._accumulate * block} (of a DataLoader with drop_last=True), or choose other "
                "blocks: Distiller(..., mixing=Mixing(..., block=...))."
            )

    def _rate_of(self, step: int) -> float:
        """The learning rate of a step."""
        assert self.optimizer is not None
        group = self.optimizer.param_groups[0]
        return float(group.get("initial_lr", learning_rate_of(self.optimizer))) * self._schedule(step)

    @torch.no_grad()
    def _render(self, views: Any) -> Tensor:
        if not isinstance(views, Numbers):
            return views
        if self._renderer is None:
            raise DatasetError(
                "fit got view numbers without the image they belong to: a loader with render='device' was "
                "wrapped. Pass it as it came, or use render='host'."
            )
        return self._renderer(views)


def _first_of(loader: Iterable[Any]) -> Any:
    batches: Any = iter(loader)
    first = next(batches, None)
    if hasattr(batches, "close"):
        batches.close()
    if first is None:
        raise DatasetError("The loader is empty; fit needs at least one batch of images.")
    if isinstance(first, (list, tuple)) and not isinstance(first, Numbers):
        raise DatasetError(
            f"fit got batches of {len(first)} parts; it takes images alone, float32 [batch, 3, height, width]. "
            "Let the loader drop the labels."
        )
    return first
