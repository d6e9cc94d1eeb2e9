"""Strategies by name, and what each says where it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tensorflow as tf

import keras_aip
from bridge.errors import ConfigError
from keras_aip.hosts import first_of
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_auto_takes_one_device_where_there_is_no_more():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU; auto may mirror over several")
    assert keras_aip.strategy() is tf.distribute.get_strategy()
    assert keras_aip.strategy("one_device").num_replicas_in_sync == 1


def test_mirrored_takes_the_devices_named():
    assert keras_aip.strategy("mirrored", devices=["CPU:0"]).num_replicas_in_sync == 1
    with pytest.raises(ConfigError, match=r"no 'GPU:9' here.*CPU:0"):
        keras_aip.strategy("mirrored", devices=["GPU:9"])
    with pytest.raises(ConfigError, match="'mirrored' only"):
        keras_aip.strategy("one_device", devices=["CPU:0"])


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'mirrored'"):
        keras_aip.strategy("miror")


@pytest.mark.parametrize("config", [None, "{}", '{"cluster": {"worker": ["localhost:1", "localhost:2"]}}'])
def test_several_hosts_need_to_be_told_apart(config, monkeypatch):
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ConfigError, match=r"TF_CONFIG.*index"):
        keras_aip.strategy("multi_worker")


@pytest.mark.parametrize("config", ["not json", "[1]", '{"cluster": 3}', '{"cluster": {"worker": "a:1"}}'])
def test_a_damaged_cluster_description_is_shown(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ConfigError, match=r"TF_CONFIG must|TF_CONFIG is not"):
        keras_aip.strategy("auto")


def test_several_hosts_come_too_late_once_something_is_computed(monkeypatch):
    tf.constant(1.0) + 1.0
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(ConfigError, match="too late"):
        keras_aip.strategy("multi_worker")


def test_the_host_that_writes_is_the_chief_where_there_is_one():
    assert first_of({"worker": ["a:1", "b:1"]}) == ("worker", 0)
    assert first_of({"chief": ["a:1"], "worker": ["b:1"]}) == ("chief", 0)


def test_without_a_tpu_the_message_says_so():
    """In a process of its own, since looking for a TPU changes what TensorFlow can do afterwards."""
    if os.path.exists("/dev/accel0"):
        pytest.skip("this machine has a TPU")
    line = (
        "import keras_aip\nfor tpu in (None, 'no-such-tpu'):\n    try: keras_aip.strategy('tpu', tpu=tpu)\n"
        "    except keras_aip.AipError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=200, check=True,
        env={key: value for key, value in os.environ.items() if key != "TPU_NAME"},
    )  # fmt: skip
    said = done.stdout.strip().splitlines()
    assert len(said) == 2 and all("there is no TPU" in one and "requirements/tpu.txt" in one for one in said)
