"""Keeping a training run on disk: state after every epoch, metrics and events."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import types
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from bridge.errors import RunError
from bridge.folders import explained
from bridge.runs import FollowedRun, RunFolder, check_loss
from torch_aip import models
from torch_aip.distiller import Distiller
from torch_aip.launch import rank
from torch_aip.memory import keep_memory


def environment(threads: int | None) -> dict[str, Any]:
    """What may change the last bits of a result."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def set_up(threads: int | None, seed: int, deterministic: bool = False) -> None:
    """Threads, the seed of first weights and, if asked for, bit-identical reruns: before anything is computed."""
    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed % 2**63)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic  # shapes are static


def state_arrays(distiller: Distiller) -> dict[str, np.ndarray]:
    """Everything resuming needs: the student's weights, their average, the optimizer's; never the teacher."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in _tensors(distiller).items()}


@torch.no_grad()
def restore_arrays(distiller: Distiller, arrays: dict[str, np.ndarray]) -> None:
    """Put back what `state_arrays` took.

    Raises:
        RunError: the state belongs to another student or optimizer.
    """
    _begin(distiller, {name.split("/")[1] for name in arrays if name.startswith("optimizer/")})
    expected = _tensors(distiller)
    wrong = sorted(set(expected) ^ set(arrays)) or [
        name for name, tensor in expected.items() if tuple(tensor.shape) != arrays[name].shape
    ]
    if wrong:
        raise RunError(
            f"The saved state does not fit the student and optimizer asked for ({wrong[0]} and {len(wrong) - 1} more "
            "differ). Resume with the options the run began with, or start a new run with another --out."
        )
    for name, tensor in expected.items():
        tensor.copy_(torch.from_numpy(arrays[name]))


def _tensors(distiller: Distiller) -> dict[str, torch.Tensor]:
    """Every tensor of a state by name, as it lies in the networks and the optimizer."""
    assert distiller.optimizer is not None
    tensors = {f"student/{name}": tensor for name, tensor in models.plain(distiller.student).state_dict().items()}
    if distiller.average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in distiller.average.model.state_dict().items()}
    weights = [weight for group in distiller.optimizer.param_groups for weight in group["params"]]
    for number, weight in enumerate(weights):
        for name, value in distiller.optimizer.state.get(weight, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{number:04d}/{name}"] = value
    return tensors


def _begin(distiller: Distiller, numbers: Collection[str]) -> None:
    """Let the optimizer make the state of some weights, by a step that changes nothing: a rate and gradients of zero.

    The others are weights that no loss depends on, which have no gradient and no state.
    """
    optimizer = distiller.optimizer
    assert optimizer is not None
    rates = [group["lr"] for group in optimizer.param_groups]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in enumerate(weights):
        weight.grad = torch.zeros_like(weight) if f"{number:04d}" in numbers else None
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate


class SaveRun:
    """After every epoch: a line of metrics, TensorBoard events, and a state to resume from.

    A process that only follows writes none of them.

    Args:
        run: the folder.
        distiller: that trains.
        steps_per_epoch: of the run.
    """

    def __init__(self, run: RunFolder | FollowedRun, distiller: Distiller, steps_per_epoch: int):
        self._run, self._distiller, self._steps = run, distiller, steps_per_epoch
        self._events: Any = None
        if isinstance(run, RunFolder):
            folder = run.path / "events"
            if folder.exists():  # written anew from the metrics, which resuming has cut back to the saved step
                for old in folder.iterdir():
                    old.unlink()
            self._events = _event_writer(str(folder))
            for line in run.metrics():
                self._write_events(int(line["step"]), line)

    def __call__(self, epoch: int, logs: dict[str, float]) -> None:
        step = (epoch + 1) * self._steps
        check_loss(self._run, step, logs["loss"])
        if isinstance(self._run, RunFolder):
            self._run.log(step, logs)
            self._write_events(step, logs)
            average = self._distiller.average
            meta = {"averaged_steps": 0 if average is None else average.steps}
            self._run.save_state(step, state_arrays(self._distiller), meta)
        self.begin(step)

    def begin(self, step: int) -> None:
        """Before an epoch, said in every process: what the student draws by itself follows from its first step alone.

        So dropout and stochastic depth draw in a resumed run what they would have drawn. Ours.
        """
        seed = np.random.SeedSequence([self._distiller.seed, step, rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]) % 2**63)

    def close(self) -> None:
        """Finish the events, which are all written."""
        if self._events is not None:
            with contextlib.suppress(OSError):  # on a full disk, of which there is a message already
                self._events.close()

    def _write_events(self, step: int, values: dict[str, float]) -> None:
        with explained("Cannot write TensorBoard events", "Free some disk space, then add --resume."):
            for key, value in values.items():
                if key not in ("step", "seconds") and value is not None:
                    self._events.add_scalar(key, value, step)
            self._events.flush()


def _event_writer(folder: str) -> Any:
    """PyTorch's writer of TensorBoard events, without the TensorFlow that TensorBoard imports where it finds it.

    TensorBoard itself asks for this module first, which its builds without TensorFlow have.
    """
    stub = "tensorboard.compat.notf"
    ours = stub not in sys.modules and "tensorflow" not in sys.modules
    if ours:
        sys.modules[stub] = types.ModuleType(stub)
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(folder)
    finally:
        if ours:
            del sys.modules[stub]
