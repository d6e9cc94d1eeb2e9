"""Processes that train together, as `torchrun` starts them: who is who, on which device, and that all mean the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from bridge.errors import ConfigError, RunError


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        device: what it computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have done together."""
        return self.rank == 0


@contextlib.contextmanager
def launched() -> Iterator[World]:
    """Join the processes `torchrun` has started, if it has; a GPU each where there are GPUs, else processors.

    Raises:
        ConfigError: there are fewer GPUs on this host than processes.
    """
    local, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and here > gpus:
        raise ConfigError(
            f"torchrun started {here} processes on this host, which has {gpus} GPU{'s' if gpus > 1 else ''}; each "
            f"process wants one. Use --nproc-per-node {gpus}, or hide them (CUDA_VISIBLE_DEVICES=) to use processors."
        )
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        yield World(rank(), world_size(), device)
        return
    try:
        distributed.init_process_group("nccl" if gpus else "gloo", device_id=device if gpus else None)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"This process cannot join the others ({str(error).splitlines()[0]}). Start all of them by torchrun, with "
            "the same --rdzv-endpoint."
        ) from error
    yield World(rank(), world_size(), device)
    # Not after an error: others may be in an exchange then, and it would wait for them as they for us.
    distributed.destroy_process_group()


def refuse_several(command: str) -> None:
    """Raises: ConfigError: `torchrun` has started several processes, and the command is done by one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(f"{command} runs in one process: start it without torchrun.")


def rank() -> int:
    """Number of this process among those that train together; 0 for one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 for one alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def in_agreement() -> Iterator[list[Any]]:
    """Do something that may fail in one process alone, or come out otherwise there, before all go on together.

    Without it the others would wait for the one that stopped.

    Yields:
        A list; what is put into it must be the same in all processes.

    Raises:
        RunError: another process failed, or means something else. Whatever was raised here is raised again.
    """
    said: list[Any] = []
    problem: BaseException | None = None
    try:
        yield said
    except Exception as error:
        problem = error
    if world_size() > 1:
        digest = hashlib.sha256(repr(said).encode()).hexdigest()
        answers: list[Any] = [None] * world_size()
        distributed.all_gather_object(answers, (problem is not None, digest))
        if problem is None and any(failed for failed, _ in answers):
            raise RunError("Another process cannot begin; its own message says why.")
        if problem is None and len({digest for _, digest in answers}) > 1:
            raise RunError(
                "The processes do not mean the same run. Give all of them the same options, the same teacher and "
                "image, and an --out on a file system they share."
            )
    if problem is not None:
        raise problem


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def average_statistics(model: nn.Module) -> None:
    """Give all processes the mean of their BatchNorm statistics, which each has gathered from its own rows."""
    if world_size() == 1:
        return
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for kept in (layer.running_mean, layer.running_var):
                if kept is not None:
                    mean_over_processes(kept)
