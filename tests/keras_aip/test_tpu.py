"""What a TPU wants of the step, as far as it shows without one: static shapes, nothing on the host, XLA takes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from keras_aip import Distiller, Teacher, models
from keras_aip.feed import feed
from tests.keras_aip.helpers import plain

COMPILER = os.environ.get("AIP_TPU_PYTHON")


def made(teacher="wrn_10_1", student="wrn_10_1", size=16, batch=16, **options):
    """A distiller that renders on the device, and one step's numbers as they come from the host."""
    asked = Teacher(models.build(teacher, classes=10, image_size=size))
    distiller = Distiller(models.build(student, classes=10, image_size=size, **options), asked)
    distiller.compile()
    distiller.optimizer.build(distiller.student.trainable_variables)
    views = keras_aip.single_image_dataset(
        "sklearn:china.jpg", image_size=size, batch_size=batch, views=4 * batch, render="device"
    )
    distiller._draw_with(views.renderer)
    return distiller, feed(views, distiller.mixing, 0, 0, tf.distribute.get_strategy())


def test_what_travels_to_the_device_is_numbers_of_static_shape():
    _, data = made()
    specs = tf.nest.flatten(data.element_spec)
    assert all(spec.shape.is_fully_defined() for spec in specs)
    assert sum(np.prod(spec.shape) for spec in specs) < 16 * 64  # a few dozen a view, not its 16 × 16 × 3 pixels


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_the_whole_step_is_one_xla_program_of_static_shapes(dtype):
    distiller, data = made(dtype=dtype)
    step = tf.function(distiller.train_step, jit_compile=True)
    batch = next(iter(data))
    operations = {operation.type for operation in step.get_concrete_function(batch).graph.get_operations()}
    assert not operations & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "PrintV2"}
    program = step.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "convolution" in program and "gather" in program
    assert not re.search(r"\[[^\]]*<=", program) and "custom-call" not in program  # bounded-dynamic; calls to the host
    before = plain(distiller.student.get_weights())
    logs = step(batch)
    assert np.isfinite(float(logs["loss"]))
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, distiller.student.get_weights()))


@pytest.mark.skipif(not COMPILER, reason="AIP_TPU_PYTHON names no Python with requirements/tpu-compile.txt")
def test_the_whole_step_compiles_ahead_of_time_for_a_tpu(tmp_path):
    distiller, data = made("wrn_40_4", "wrn_16_4", size=32, batch=512)
    step = tf.function(distiller.train_step, jit_compile=True)
    program = step.experimental_get_compiler_ir(next(iter(data)))(stage="hlo_serialized")
    (tmp_path / "step.hlo").write_bytes(program)
    done = subprocess.run(
        [str(COMPILER), str(Path(__file__).with_name("compile_for_tpu.py")), str(tmp_path / "step.hlo")],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout, file=sys.stderr)
    assert "compiled for TPU v5" in done.stdout
