"""The distiller: a Keras model whose training step lets a student learn from a frozen teacher's answers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.datum.mixing import KINDS, Mixing, MixingNumbers
from bridge.datum.views import ViewNumbers
from bridge.errors import ConfigError, DatasetError, TeacherError
from bridge.replay import replay
from keras_aip import compat, losses
from keras_aip.feed import Stored, feed
from keras_aip.feed import steps_per_epoch as steps_in
from keras_aip.mixing import mix
from keras_aip.stored import answered
from keras_aip.teachers import Teacher


class Distiller(keras.Model):
    """Distils `teacher` into `student`.

    Views are mixed, the teacher labels the mixed pixels, and the student is drawn towards its answers. Nothing else
    is learned from: no labels, no real data.

    Args:
        student: any Keras model from float32 views in [0, 1] to logits [batch, classes].
        teacher: a `keras_aip.Teacher` (see `load_teacher`), or a Keras model that gives logits on such views.
        temperature: τ, dimensionless; 8 for images, 5 for video (Asano & Saeed 2023).
        loss: a name in `keras_aip.losses.LOSSES` or a function (teacher, student, temperature) → scalar.
        mixing: "cutmix", "mixup", "both", "none", or a `bridge.datum.mixing.Mixing` with all its settings.
        tau_squared: multiply the loss by τ², which keeps gradients comparable across temperatures (Hinton et al.
            2015). Off in the paper.
        seed: of the mixing.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> distiller = Distiller(student, teacher)
        >>> distiller.fit(single_image_dataset("city.jpg"), epochs=10)
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: Teacher | keras.Model,
        temperature: float = 8.0,
        loss: str | losses.Loss = "kl",
        mixing: str | Mixing = "cutmix",
        *,
        tau_squared: bool = False,
        seed: int = 0,
        name: str = "distiller",
    ):
        super().__init__(name=name)
        if not (math.isfinite(temperature) and temperature > 0):
            raise ConfigError(f"temperature (={temperature}) must be a positive number; the paper uses 8.")
        self.student = student
        if any(layer.compute_dtype == "float16" for layer in student._flatten_layers()):
            raise ConfigError(
                "The student computes in float16, whose small gradients would vanish without loss scaling; build it "
                'with dtype="mixed_bfloat16" instead.'
            )
        # A Teacher is no Keras object, so its weights never enter ours, nor our checkpoints.
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        self.temperature = float(temperature)
        self.mixing = mixing if isinstance(mixing, Mixing) else Mixing(mixing)
        if self.mixing.kind not in KINDS:
            raise ConfigError(f"mixing={self.mixing.kind!r} cuts clips, which are torch_aip's; use {', '.join(KINDS)}.")
        self.seed = seed
        self._loss_function = losses.get(loss)
        if self.teacher.outputs == "labels" and self._loss_function is not losses.argmax:
            raise ConfigError(
                f"A teacher that answers with labels can only be distilled with loss='argmax', not {loss!r}: there "
                "are no probabilities to soften."
            )
        self._loss_scale = self.temperature**2 if tau_squared else 1.0
        self._renderer = None
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._agreement_mean = keras.metrics.Mean(name="agreement")
        self.built = True  # nothing to build: the student comes built, or is built by its first batch

    # -- what Keras calls ---------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Label-free: the loss, and how often student and teacher name the same class on the mixed views."""
        return [self._loss_mean, self._agreement_mean]

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The student's logits."""
        return self.student(images, training=training)

    def compile(
        self,
        optimizer: Any = None,
        *,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
        run_eagerly: bool = False,
        **other: Any,
    ) -> None:
        """Choose how to train; optional, `fit` does it with the defaults.

        Args:
            optimizer: any Keras optimizer or its name. Default: Adam 1e-3 (reference code) with ε 1e-8, since without
                τ² the gradients are tiny.
            steps_per_execution: steps per call into TensorFlow.
            jit_compile: compile the step with XLA. Slower on a CPU; a TPU compiles by itself.
            run_eagerly: step through Python, for debugging.

        Raises:
            ConfigError: loss or metrics are given here; they belong to `Distiller(...)`.
        """
        if other:
            raise ConfigError(
                f"Distiller.compile got {', '.join(sorted(other))}: there are no labels here. The loss is chosen with "
                "Distiller(..., loss=...); loss and agreement are always measured."
            )
        super().compile(
            optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8) if optimizer is None else optimizer,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
        )
        self._executed_steps = steps_per_execution

    def train_step(self, data: dict[str, Any]) -> dict[str, tf.Tensor]:
        """One step on one replica's share of the batch.

        Args:
            data: "views": float32 [batch, height, width, 3] in [0, 1], or `ViewNumbers`; "mixing": `MixingNumbers`;
                with stored answers also "teacher": float32 [batch, classes].
        """
        images = mix(self._render(data["views"]), MixingNumbers(*data["mixing"]))
        teacher_logits = data["teacher"] if "teacher" in data else self.teacher(images)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            student_logits = tf.cast(self.student(images, training=True), tf.float32)
            loss = self._loss_scale * self._loss_function(teacher_logits, student_logits, self.temperature)
            # Penalties come in each layer's own precision.
            penalties = [tf.cast(penalty, tf.float32) for penalty in self.student.losses]
            total = tf.add_n([loss, *penalties]) / replicas  # gradients are summed over replicas
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(total, weights), weights))
        same = tf.equal(tf.argmax(teacher_logits, -1), tf.argmax(student_logits, -1))
        self._loss_mean.update_state(loss)
        self._agreement_mean.update_state(tf.cast(same, tf.float32))
        return {metric.name: metric.result() for metric in self.metrics}

    def make_train_function(self, force: bool = False) -> Any:
        """One graph for any number of steps under any strategy.

        Stock Keras 3 fails with several steps per execution under a mirrored strategy and with several workers, so
        the loop is ours; XLA goes inside `strategy.run`.
        """
        if self.train_function is not None and not force:
            return self.train_function
        strategy, steps = self.distribute_strategy, self._executed_steps
        step = self.train_step
        if self.jit_compile and not self.run_eagerly:
            step = tf.function(step, jit_compile=True)

        def one(iterator: Any) -> dict[str, tf.Tensor]:
            return strategy.run(step, args=(next(iterator),))

        def several(iterator: Any) -> dict[str, tf.Tensor]:
            for _ in tf.range(steps - 1):
                one(iterator)
            logs = one(iterator)
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        self.train_function = several if self.run_eagerly else tf.function(several)
        return self.train_function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras 3 would call the model on symbolic data, which means nothing here; only the optimizer needs it."""
        with self.distribute_strategy.scope():
            self.optimizer.build(self.student.trainable_variables)

    # -- the public face ----------------------------------------------------------------------------------------------

    def fit(
        self,
        views: tf.data.Dataset,
        epochs: int = 1,
        *,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        store_teacher: str | Path | None = None,
        on_answer: Callable[[int], object] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Distil.

        Args:
            views: `single_image_dataset(...)`, or any `tf.data.Dataset` of batches of images float32
                [batch, height, width, 3] in [0, 1].
            epochs: up to which epoch to train.
            steps_per_epoch: default: what the data set carries (`single_image_dataset`), or its own length.
            initial_epoch: the epoch to begin with, when resuming; the data set must begin at that step too.
            store_teacher: a folder for the teacher's answers. The views of the first epoch are then shown again in
                every epoch, in another order, and the teacher answers each once, for this and all later students.
                Faster, and less accurate than ever new views.
            on_answer: called with the number of steps whose answers are stored so far, while they are asked for.
            callbacks, verbose: as in Keras.

        Returns:
            The Keras history of "loss" and "agreement".

        Raises:
            ConfigError, DatasetError, TeacherError: before the first step, naming both sides.
        """
        if not isinstance(views, tf.data.Dataset):
            raise DatasetError(
                f"fit got a {type(views).__name__}; it takes a tf.data.Dataset of image batches, such as "
                'keras_aip.single_image_dataset("city.jpg").'
            )
        if not isinstance(views.element_spec, (tf.TensorSpec, ViewNumbers)):
            raise DatasetError(
                f"fit got a data set of {views.element_spec}; it takes batches of images alone, float32 [batch, "
                "height, width, 3]. Drop labels with .map(lambda image, label: image)."
            )
        self._draw_with(getattr(views, "renderer", None) if isinstance(views.element_spec, ViewNumbers) else None)
        first = next(iter(views.take(1)), None)
        if first is None:
            raise DatasetError("The data set is empty; fit needs at least one batch of images.")
        if not compat.is_compiled(self):
            with self.distribute_strategy.scope():
                self.compile()
        steps_per_epoch = steps_per_epoch or steps_in(views)
        if steps_per_epoch % self._executed_steps:
            raise ConfigError(
                f"steps_per_epoch (={steps_per_epoch}) must be a multiple of steps_per_execution "
                f"(={self._executed_steps})."
            )
        first_step = getattr(views, "start_step", initial_epoch * steps_per_epoch)
        self._check_shares(tf.nest.flatten(views.element_spec)[0].shape)
        self.check(self._render(first))
        stored = None
        if store_teacher is not None:
            with self.distribute_strategy.scope():
                store = answered(
                    store_teacher, self.teacher, views, self.mixing, self.seed, steps_per_epoch, progress=on_answer
                )
            stored = Stored(replay(store, self.seed), store.read)
        data = feed(views, self.mixing, self.seed, first_step, self.distribute_strategy, stored)
        return super().fit(
            data,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=initial_epoch,
            callbacks=[_AverageStatistics(), *(callbacks or [])],
            verbose=verbose,
            shuffle=False,
        )

    def check(self, images: tf.Tensor) -> None:
        """Look at one batch before any work is lost.

        Args:
            images: float32 [batch, height, width, 3] in [0, 1].

        Raises:
            DatasetError: the batch is no batch of images in [0, 1].
            TeacherError: sizes or class counts differ, or the teacher's answers are not finite.
        """
        if images.dtype != tf.float32 or images.shape.rank != 4:
            raise DatasetError(
                f"Views must be float32 [batch, height, width, channels] in [0, 1]; got {images.dtype.name} "
                f"{list(images.shape)}. Divide 8-bit images by 255 and drop labels with .map."
            )
        low, high = float(tf.reduce_min(images)), float(tf.reduce_max(images))
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise DatasetError(
                f"Views must lie in [0, 1]; got values from {low:.3g} to {high:.3g}. Divide 8-bit images by 255; "
                "normalisation belongs to the models."
            )
        sizes = {
            "views": tuple(images.shape[1:]),
            "teacher": None if self.teacher.input_size is None else (*self.teacher.input_size, None),
            "student": _expected_shape(self.student),
        }
        if any(not _fits(sizes["views"], shape) for shape in sizes.values()):
            raise TeacherError(
                "Views, teacher and student must agree on [height, width, channels]; got "
                + ", ".join(f"{name} {list(shape) if shape else 'any'}" for name, shape in sizes.items())
                + ". Nothing is resized silently: make the views with image_size of the teacher and build the student "
                "for it."
            )
        teacher, student = self.teacher(images), self.student(images, training=False)
        if teacher.shape[-1] != student.shape[-1]:
            raise TeacherError(
                f"Teacher and student must have the same classes; the teacher answers with {list(teacher.shape)}, the "
                f"student with {list(student.shape)}. Build the student with classes={teacher.shape[-1]}."
            )
        if not np.isfinite(teacher.numpy()).all():
            raise TeacherError(
                f"The teacher's answers on the first {len(images)} views hold NaN or infinity; expected finite "
                f"{self.teacher.outputs}. Check its weights and whether it wants views in [0, 1]."
            )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_shares(self, shape: tf.TensorShape) -> None:
        """A partner on another replica cannot be reached; some devices would quietly answer with zeros."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas == 1:
            return
        devices = tf.config.list_logical_devices
        if self.jit_compile and not devices("GPU") and not devices("TPU"):
            raise ConfigError(
                f"jit_compile=True cannot work with {replicas} replicas on processors alone: XLA's programs would wait "
                "for each other. Leave it off, or use one device."
            )
        rows = shape[0] if shape.rank else None
        if rows is None:
            raise ConfigError(
                f"With {replicas} replicas every batch must have the same, known size; the data set's may differ. Make "
                "it with .batch(size, drop_remainder=True)."
            )
        block = 1 if self.mixing.kind == "none" else self.mixing.block
        if rows % (replicas * block):
            raise ConfigError(
                f"Each of {replicas} replicas must hold whole blocks of mixing partners; got {rows} rows per step and "
                f"blocks of {block}. Make the batch a multiple of {replicas * block}, or choose "
                "Distiller(..., mixing=Mixing(..., block=...))."
            )

    def _draw_with(self, renderer: Any) -> None:
        if renderer is not self._renderer:
            self.train_function = None  # the graph at hand draws from the old renderer's image
        if renderer is not None:
            renderer.place(self.distribute_strategy)
        self._renderer = renderer

    def _render(self, views: Any) -> tf.Tensor:
        if not isinstance(views, tuple):
            return views
        if self._renderer is None:
            raise DatasetError(
                "fit got view numbers without the image they belong to: single_image_dataset(..., render='device') was "
                "transformed. Pass it as it came, or use render='host'."
            )
        return self._renderer(ViewNumbers(*views))


class _AverageStatistics(keras.callbacks.Callback):
    """First of all at the end of an epoch, so that whoever saves or measures the student finds it whole."""

    def on_train_begin(self, logs: Any = None) -> None:
        distiller: Any = self.model
        self._average = compat.averaging_of_statistics(distiller.student, distiller.distribute_strategy)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._average()


def _expected_shape(model: Any) -> tuple[int | None, ...] | None:
    """[height, width, channels] a model was built for, None where it takes any."""
    shape = getattr(model, "input_shape", None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else None


def _fits(given: tuple[int, ...], expected: tuple[int | None, ...] | None) -> bool:
    return expected is None or all(want is None or have == want for have, want in zip(given, expected))
