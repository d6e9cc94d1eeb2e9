"""Several hosts that train together: how many, which one writes, and that all of them mean the same."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bridge.errors import RunError


def number_of_hosts(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together; 1 but for a multi-worker strategy."""
    return sum(map(len, _workers(strategy).values())) or 1


def is_first_host(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all have done together."""
    workers = _workers(strategy)
    if not workers:
        return True
    resolver: Any = strategy.cluster_resolver
    return first_of(workers) == (resolver.task_type, resolver.task_id)


def first_of(workers: Mapping[str, Sequence[str]]) -> tuple[str, int]:
    """Job and index of the host that writes: the chief where there is one.

    Args:
        workers: job → addresses, of the jobs that train.
    """
    return ("chief" if workers.get("chief") else "worker", 0)


@contextlib.contextmanager
def in_agreement(strategy: tf.distribute.Strategy) -> Iterator[list[Any]]:
    """Do something that may fail on one host alone, or come out otherwise there, before all go on together.

    Without it the others would wait for ever for the one that stopped.

    Yields:
        A list; what is put into it must be the same on all hosts.

    Raises:
        RunError: another host failed, or means something else. Whatever was raised here is raised again.
    """
    said: list[Any] = []
    problem: BaseException | None = None
    try:
        yield said
    except Exception as error:
        problem = error
    if number_of_hosts(strategy) > 1:
        digest = int.from_bytes(hashlib.sha256(repr(said).encode()).digest()[:7], "big")
        answers = _gathered(strategy, [int(problem is not None), digest])
        if problem is None and any(failed for failed, _ in answers):
            raise RunError("Another host cannot begin; its own message says why.")
        if problem is None and len({digest for _, digest in answers}) > 1:
            raise RunError(
                "The hosts do not mean the same run. Give all of them the same options, the same teacher and image, "
                "and an --out on a file system they share."
            )
    if problem is not None:
        raise problem


def _gathered(strategy: tf.distribute.Strategy, values: list[int]) -> list[list[int]]:
    """Every device's `values`."""

    @tf.function
    def gather() -> tf.Tensor:
        return strategy.gather(strategy.run(tf.constant, args=([values], tf.int64)), axis=0)

    try:
        return gather().numpy().tolist()
    except tf.errors.UnavailableError as error:
        raise lost() from error


def lost() -> RunError:
    """What is said when a host is gone."""
    return RunError("Another host was lost. Start all of them again, with --resume.")


def _workers(strategy: tf.distribute.Strategy) -> dict[str, list[str]]:
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return {}
    spec = strategy.cluster_resolver.cluster_spec().as_dict()
    return {job: list(spec[job]) for job in ("chief", "worker") if job in spec}
