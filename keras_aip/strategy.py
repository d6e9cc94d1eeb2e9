"""Over which devices to train: one, several, several hosts, or a TPU, by name."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bridge.errors import ConfigError
from bridge.names import hint

NAMES = ("one_device", "mirrored", "multi_worker", "tpu", "auto")


def strategy(name: str = "auto", *, devices: Sequence[str] | None = None, tpu: str | None = None) -> Any:
    """Make the `tf.distribute` strategy of that name; build and fit inside its `scope()`.

    Args:
        name: "one_device"; "mirrored", all GPUs of this machine (without any, its logical CPUs); "multi_worker", the
            hosts of $TF_CONFIG, the same command on each; "tpu", the TPU of this machine or the one named; "auto",
            what is there: several hosts in $TF_CONFIG, else a TPU, else several GPUs, else one device.
        devices: for "mirrored": which, such as ["GPU:0", "GPU:1"].
        tpu: for "tpu": its name or address; default $TPU_NAME, else this machine's.

    Returns:
        A `tf.distribute.Strategy`. A multi-worker or TPU one must be made before anything is computed.

    Raises:
        ConfigError: unknown name, or what it stands for is not there.
    """
    if name not in NAMES:
        raise ConfigError(f"strategy (={name!r}) must be one of {', '.join(NAMES)}.{hint(name, NAMES)}")
    if devices is not None and name != "mirrored":
        raise ConfigError(f"devices (={list(devices)}) are chosen with strategy 'mirrored' only, not {name!r}.")
    if name == "auto":
        name = _what_is_there(tpu)
    return {"one_device": _one_device, "mirrored": _mirrored, "multi_worker": _multi_worker, "tpu": _tpu}[name](
        devices, tpu
    )


def on_other_devices(strategy: tf.distribute.Strategy) -> bool:
    """Whether variables made in the strategy's scope lie elsewhere than in a plain program."""
    return strategy.num_replicas_in_sync > 1 or isinstance(strategy, tf.distribute.TPUStrategy)


def _what_is_there(tpu: str | None) -> str:
    if len(_workers(_tf_config())) > 1:
        return "multi_worker"
    if tpu or os.environ.get("TPU_NAME") or _tpu_chips():
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def _one_device(*_: Any) -> tf.distribute.Strategy:
    # The default strategy: TensorFlow's own placement, without any wrapping.
    return tf.distribute.get_strategy()


def _mirrored(devices: Sequence[str] | None, _: Any) -> tf.distribute.Strategy:
    there = [device.name for kind in ("GPU", "CPU") for device in tf.config.list_logical_devices(kind)]
    if devices is None:
        gpus = [name for name in there if ":GPU:" in name]
        return tf.distribute.MirroredStrategy(gpus or there)
    known = [name.removeprefix("/device:") for name in there]
    for device in devices:
        if device.upper().removeprefix("/").removeprefix("DEVICE:") not in known:
            raise ConfigError(f"devices (={list(devices)}): there is no {device!r} here; there are {', '.join(known)}.")
    return tf.distribute.MirroredStrategy(list(devices))


def _multi_worker(*_: Any) -> tf.distribute.Strategy:
    config = _tf_config()
    workers = _workers(config)
    task = config.get("task")
    if not workers or not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise ConfigError(
            "strategy 'multi_worker' needs $TF_CONFIG on every host, such as "
            '\'{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}\' with '
            f"the index of that host; it is {os.environ.get('TF_CONFIG')!r}."
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            "strategy 'multi_worker' comes too late: TensorFlow has begun to compute in this process. Call "
            "keras_aip.strategy(...) before anything else."
        ) from error
    except (ValueError, tf.errors.OpError) as error:
        raise ConfigError(f"The hosts of $TF_CONFIG do not come together: {_first_line(error)}") from error


def _tpu(_: Any, tpu: str | None) -> tf.distribute.Strategy:
    name = tpu or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Without a TPU, TensorFlow raises anything from ValueError to NotFoundError.
    except Exception as error:
        raise ConfigError(
            f"strategy 'tpu': there is no TPU {'on this machine' if name == 'local' else repr(name)} that TensorFlow "
            f"can use ({_first_line(error)}). Run on a TPU VM with `pip install -r requirements/tpu.txt`, name the TPU "
            "with $TPU_NAME, or choose another strategy."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _tf_config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise ConfigError(f"$TF_CONFIG is not valid JSON ({error}): {text!r}.") from error
    cluster = config.get("cluster", {}) if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not all(isinstance(addresses, list) for addresses in cluster.values()):
        raise ConfigError(
            f"$TF_CONFIG must be an object with 'cluster' (job → list of addresses) and 'task'; it is {text!r}."
        )
    return config


def _workers(config: dict[str, Any]) -> list[str]:
    cluster = config.get("cluster", {})
    return [address for job in ("chief", "worker") for address in cluster.get(job, [])]


def _tpu_chips() -> bool:
    """Whether this machine has a TPU's device files and the library that drives it."""
    import importlib.util

    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return chips and importlib.util.find_spec("libtpu") is not None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
