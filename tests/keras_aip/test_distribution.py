"""Two devices learn what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TWO_DEVICES = """
import json, sys
import numpy as np
import keras_aip
import keras, tensorflow as tf
from bridge.errors import ConfigError

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
images = np.random.default_rng(0).random((32, 8, 8, 3), dtype=np.float32)
views = tf.data.Dataset.from_tensor_slices(images).batch(16, drop_remainder=True)


def network(seed, l2):
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, strides=2, kernel_regularizer=keras.regularizers.L2(l2)),
        keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(3),
    ])
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.4, w.shape) for w in model.weights])
    return model


def listener(seed, l2):  # without BatchNorm, whose statistics are each device's own
    waves = keras.Input((2000,))
    mfcc = {"kind": "mfcc", "rate": 4000, "samples": 2000, "window": 160, "hop": 80, "bands": 20, "high": 1900.0}
    x = keras.layers.Flatten()(keras_aip.models.FrontEnd(mfcc, name="front_end")(waves) * 0.02)
    model = keras.Model(waves, keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(l2))(x))
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.4, w.shape) for w in model.weights])
    return model


def train(strategy, steps_per_execution=1, block=4, views=views, network=network, masks=None):
    with strategy.scope():
        mixing = keras_aip.Mixing("both", per="sample", block=block)
        student, teacher = network(2, 0.01), network(1, 0)
        distiller = keras_aip.Distiller(student, teacher, temperature=2.0, tau_squared=True, mixing=mixing, masks=masks)
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), steps_per_execution=steps_per_execution)
    history = distiller.fit(views, epochs=2, verbose=0).history
    weights = np.concatenate([np.ravel(w) for w in distiller.student.get_weights()])
    return {"weights": weights.tolist(), **{key: list(map(float, values)) for key, values in history.items()}}


two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
refused = []
for options in ({"block": 16}, {"views": tf.data.Dataset.from_tensor_slices(images).batch(16)}):
    try:
        train(two, **options)
    except ConfigError as error:
        refused.append(str(error))
start = np.concatenate([np.ravel(w) for w in network(2, 0).get_weights()]).tolist()
one = tf.distribute.get_strategy()
drawn = lambda: keras_aip.single_image_dataset(
    "sklearn:china.jpg", image_size=8, batch_size=16, views=32, render="device"
)
time = np.arange(12_000) / 4000
babble = np.sin(2 * np.pi * (300 + 200 * np.sin(2 * time)) * time).astype(np.float32)
heard = lambda: keras_aip.single_audio_dataset(
    babble, rate=4000, seconds=0.5, batch_size=16, views=32, render="device"
)
hearing = {"network": listener, "masks": keras_aip.Masks(1)}
try:
    with two.scope():
        distiller = keras_aip.Distiller(network(2, 0), network(1, 0))
        distiller.compile(jit_compile=True)
    distiller.fit(drawn(), verbose=0)
except ConfigError as error:
    refused.append(str(error))
print(json.dumps({
    "one, drawn there": train(one, views=drawn()), "two, drawn there": train(two, views=drawn()),
    "one, sounds": train(one, views=heard(), **hearing), "two, sounds": train(two, views=heard(), **hearing),
    "start": start, "one": train(one), "two": train(two), "two, both steps at once": train(two, 2), "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def on_two_devices() -> dict:
    """In a process of its own, since a processor is split in two before anything runs on it."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, env=environment, cwd=root, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("way", ["two", "two, both steps at once", "two, drawn there", "two, sounds"])
def test_two_devices_learn_what_one_does(way, on_two_devices):
    one, two = on_two_devices[way.replace("two", "one").removesuffix(", both steps at once")], on_two_devices[way]
    if way != "two, sounds":
        assert np.abs(np.subtract(one["weights"], on_two_devices["start"])).max() > 1e-2
    assert one["loss"][0] != one["loss"][1]
    assert np.allclose(two["weights"], one["weights"], atol=1e-5)
    assert np.allclose(two["loss"], one["loss"], rtol=1e-4)
    assert np.allclose(two["agreement"], one["agreement"])


def test_blocks_of_partners_that_two_devices_would_tear_apart_are_refused(on_two_devices):
    torn, uneven, compiled = on_two_devices["refused"]
    assert "jit_compile=True cannot work with 2 replicas" in compiled
    assert "16 rows" in torn and "multiple of 32" in torn
    assert "drop_remainder" in uneven
