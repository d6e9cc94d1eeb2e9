"""Keeping a training run on disk: state after every epoch, metrics, events, and progress on the terminal."""

from __future__ import annotations

import os
import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bridge.errors import ConfigError, RunError
from bridge.progress import StepProgress, note_of
from bridge.runs import FollowedRun, RunFolder, check_loss
from keras_aip.distiller import Distiller
from keras_aip.optimizers import learning_rate_of


def environment(threads: int | None) -> dict[str, Any]:
    """What may change the last bits of a result."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "threads": threads or os.cpu_count(),
    }


def set_up(threads: int | None, seed: int, deterministic: bool = False) -> None:
    """Threads, the seed of first weights and, if asked for, bit-identical reruns: before anything is computed.

    Raises:
        ConfigError: TensorFlow computes already, with another number of threads.
    """
    if threads is not None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError as error:
            raise ConfigError(
                f"--threads {threads} comes too late: TensorFlow has begun in this process. Start a new one."
            ) from error
    keras.utils.set_random_seed(seed % 2**32)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def state_arrays(distiller: Distiller) -> dict[str, np.ndarray]:
    """Everything resuming needs: the student's weights and the optimizer's variables; never the teacher."""
    parts = {"student": distiller.student.weights, "optimizer": list(distiller.optimizer.variables)}
    return {f"{part}/{k:04d}": v.numpy() for part, variables in parts.items() for k, v in enumerate(variables)}


def restore_arrays(distiller: Distiller, arrays: dict[str, np.ndarray]) -> None:
    """Put back what `state_arrays` took.

    Raises:
        RunError: the state belongs to another student or optimizer.
    """
    with distiller.distribute_strategy.scope():
        distiller.optimizer.build(distiller.student.trainable_variables)
    parts = {"student": distiller.student.weights, "optimizer": list(distiller.optimizer.variables)}
    expected = {f"{part}/{k:04d}": v for part, variables in parts.items() for k, v in enumerate(variables)}
    wrong = sorted(set(expected) ^ set(arrays)) or [
        name for name, variable in expected.items() if tuple(variable.shape) != arrays[name].shape
    ]
    if wrong:
        raise RunError(
            f"The saved state does not fit the student and optimizer asked for ({wrong[0]} and {len(wrong) - 1} more "
            "differ). Resume with the options the run began with, or start a new run with another --out."
        )
    for name, variable in expected.items():
        variable.assign(arrays[name])


class SaveRun(keras.callbacks.Callback):
    """After every epoch: a line of metrics, TensorBoard events, and a state to resume from.

    On a host that only follows, all it does is take part in reading variables that are kept per device.
    """

    def __init__(self, run: RunFolder | FollowedRun, steps_per_epoch: int):
        super().__init__()
        self._run, self._steps = run, steps_per_epoch
        self._events: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        if not isinstance(self._run, RunFolder):
            return
        folder = self._run.path / "events"
        if folder.exists():  # written anew from the metrics, which resuming has cut back to the saved step
            for old in folder.iterdir():
                old.unlink()
        self._events = tf.summary.create_file_writer(str(folder))
        for line in self._run.metrics():
            self._write_events(int(line["step"]), line)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        step = (epoch + 1) * self._steps
        values = {key: float(value) for key, value in (logs or {}).items()}
        distiller: Any = self.model
        values["learning_rate"] = learning_rate_of(distiller.optimizer)
        check_loss(self._run, step, values.get("loss", 0.0))
        arrays = state_arrays(distiller)
        if isinstance(self._run, RunFolder):
            self._run.log(step, values)
            self._write_events(step, values)
            self._run.save_state(step, arrays)

    def on_train_end(self, logs: Any = None) -> None:
        if self._events is not None:
            self._events.close()

    def _write_events(self, step: int, values: dict[str, float]) -> None:
        with self._events.as_default():
            for key, value in values.items():
                if key not in ("step", "seconds") and value is not None:
                    tf.summary.scalar(key, value, step=step)
        self._events.flush()


class ShowProgress(keras.callbacks.Callback):
    """`bridge.progress.StepProgress` of a training by Keras; same arguments."""

    def __init__(
        self,
        what: str,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        first_step: int = 0,
        unit: str = "images",
    ):
        super().__init__()
        self._progress = StepProgress(what, epochs, steps_per_epoch, batch_size, first_step, unit)
        self._steps, self._before = steps_per_epoch, first_step

    def on_train_begin(self, logs: Any = None) -> None:
        self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = epoch * self._steps

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # at the beginning, since the logs of a batch's end would have to be fetched from the device
        self._progress.show(self._before + batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._progress.show((epoch + 1) * self._steps, note_of(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was, also after an interrupt."""
        self._progress.close()
