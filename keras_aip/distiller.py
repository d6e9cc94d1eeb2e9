"""The distiller: a Keras model whose training step lets a student learn from a frozen teacher's answers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bridge.datum.audio import AudioNumbers
from bridge.datum.masks import MaskNumbers, Masks
from bridge.datum.mixing import KINDS, Mixing, MixingNumbers
from bridge.datum.views import ViewNumbers
from bridge.errors import ConfigError, DatasetError
from bridge.replay import replay, require_store
from keras_aip import compat, losses
from keras_aip.checks import check_batch, check_rate, check_shares
from keras_aip.feed import Stored, feed, takes_sounds
from keras_aip.feed import steps_per_epoch as steps_in
from keras_aip.pair import Pair
from keras_aip.stored import answered
from keras_aip.teacher import Teacher


class Distiller(keras.Model):
    """Distils `teacher` into `student`.

    Views are mixed, the teacher labels the mixed pixels, and the student is drawn towards its answers. Nothing else
    is learned from: no labels, no real data.

    Args:
        student: any Keras model from views, float32 images in [0, 1] or waveforms in [-1, 1], to logits
            [batch, classes].
        teacher: a `keras_aip.Teacher` (see `load_teacher`), or a Keras model that gives logits on such views.
        temperature: τ, dimensionless; 8 for images, 5 for video (Asano & Saeed 2023).
        loss: a name in `keras_aip.losses.LOSSES` or a function (teacher, student, temperature) → scalar.
        mixing: "cutmix", "mixup", "both", "none", or a `bridge.datum.mixing.Mixing` with all its settings.
        tau_squared: multiply the loss by τ², which keeps gradients comparable across temperatures (Hinton et al.
            2015). Off in the paper.
        masks: of time and frequency, cut out of the spectrograms that both are shown (SpecAugment, Park et al. 2019);
            None: none. Like mixing on "spectrogram" it needs networks of `keras_aip.models` with the same front end.
        seed: of mixing and masks.

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
        masks: Masks | None = None,
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
        self.masks = masks if masks is not None and masks.count else None
        self.seed = seed
        self._pair = Pair(self.teacher, student, self.mixing, self.masks)
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
            data: "views": float32 [batch, height, width, 3] in [0, 1], waveforms [batch, samples] in [-1, 1], or
                `ViewNumbers` or `AudioNumbers`; "mixing": `MixingNumbers`; with masks also "masks": `MaskNumbers`; with
                stored answers also "teacher": float32 [batch, classes].
        """
        masks = MaskNumbers(*data["masks"]) if "masks" in data else None
        shown = self._pair.shown(self._render(data["views"]), MixingNumbers(*data["mixing"]), masks)
        teacher_logits = data["teacher"] if "teacher" in data else self._pair.teacher(shown)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            student_logits = tf.cast(self._pair.student(shown), tf.float32)
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
            views: `single_image_dataset(...)`, `single_audio_dataset(...)`, or any `tf.data.Dataset` of batches of
                images float32 [batch, height, width, 3] in [0, 1] or of waveforms [batch, samples] in [-1, 1].
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
        drawn = isinstance(views.element_spec, (ViewNumbers, AudioNumbers))
        if not (drawn or isinstance(views.element_spec, tf.TensorSpec)):
            raise DatasetError(
                f"fit got a data set of {views.element_spec}; it takes batches of images alone, float32 [batch, "
                "height, width, 3], or of waveforms [batch, samples]. Drop labels with "
                ".map(lambda image, label: image)."
            )
        if self.mixing.on == "spectrogram" and not takes_sounds(views.element_spec):
            raise ConfigError("mixing on 'spectrogram' is of sounds; images are mixed as they are (on='input').")
        if store_teacher is not None and (self.mixing.on == "spectrogram" or self.masks is not None):
            raise ConfigError(
                "Stored answers are those about waveforms: with spectrograms mixed or masked the teacher has to be "
                "asked at every step. Leave out store_teacher, or mix on 'input' and leave out masks (--spec-augment)."
            )
        self._draw_with(getattr(views, "renderer", None) if drawn else None)
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
        check_shares(
            tf.nest.flatten(views.element_spec)[0].shape, self.mixing,
            self.distribute_strategy.num_replicas_in_sync, self.jit_compile,
        )  # fmt: skip
        check_rate(views, self.teacher, self.student)
        self.check(self._render(first))
        require_store(self.teacher, store_teacher)
        stored = None
        if store_teacher is not None:
            with self.distribute_strategy.scope():
                store = answered(
                    store_teacher, self.teacher, views, self.mixing, self.seed, steps_per_epoch, progress=on_answer
                )
            stored = Stored(replay(store, self.seed), store.read)
        data = feed(views, self.mixing, self.seed, first_step, self.distribute_strategy, stored, self.masks)
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
            images: float32 [batch, height, width, 3] in [0, 1], or waveforms [batch, samples] in [-1, 1].

        Raises:
            DatasetError: the batch is no batch of such.
            TeacherError: sizes or class counts differ, or the teacher's answers are not finite.
        """
        check_batch(images, self.teacher, self.student, eager=bool(getattr(self, "run_eagerly", False)))

    # -- inside -------------------------------------------------------------------------------------------------------

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
                "fit got numbers without the image or sound they belong to: a data set made with render='device' was "
                "transformed. Pass it as it came, or use render='host'."
            )
        return self._renderer(self._renderer.numbers(*views))


class _AverageStatistics(keras.callbacks.Callback):
    """First of all at the end of an epoch, so that whoever saves or measures the student finds it whole."""

    def on_train_begin(self, logs: Any = None) -> None:
        distiller: Any = self.model
        self._average = compat.averaging_of_statistics(distiller.student, distiller.distribute_strategy)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._average()
