"""Cloning a service that tells labels alone, in both backends: nothing is asked twice, and budgets hold."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.asking import Asked
from tests.bridge.test_remote import running
from tests.conftest import ROOT

BACKENDS = [name for name in ("keras_aip", "torch_aip") if importlib.util.find_spec(f"{name.split('_')[0]}")]
STEPS, BATCH = 6, 16
CHILD = f"""
import sys, torch, torch_aip
torch.set_num_threads(1)
views = torch_aip.single_image_loader("sklearn:china.jpg", image_size=32, batch_size={BATCH}, views=None)
teacher = torch_aip.load_teacher(sys.argv[1])
student = torch_aip.models.small_cnn(classes=10, width=2)
torch_aip.Distiller(student, teacher, loss="argmax").fit(
    views, epochs=2, steps_per_epoch={STEPS}, store_teacher=sys.argv[2], verbose=False)
"""


def reads(images):
    """Ten classes, by brightness."""
    return (images.reshape(len(images), -1).astype(np.float64).mean(-1) % 10).astype(int)


class Service:
    """What is behind an address in these tests: every image it answered about, and a victim to kill in the middle."""

    def __init__(self, answer=reads, outputs="labels"):
        from bridge.teachers.serve import server_of

        self.asked, self.victim, self.kill_at = Counter(), None, None
        self._answer = answer
        about = {"classes": 10, "outputs": outputs, "input_size": [32, 32], "digest": "ten", "max_batch": 8}
        about["class_names"] = [str(k) for k in range(10)]
        self.server = server_of(self, about)

    def __call__(self, images):
        if self.kill_at is not None and self.asked.total() >= self.kill_at:
            self.victim.kill()
            self.victim.wait()
            raise ConnectionResetError  # nobody hears an answer
        self.asked.update(image.tobytes() for image in images)
        return self._answer(images)


@contextlib.contextmanager
def service(**options):
    behind = Service(**options)
    with running(behind.server) as url:
        yield behind, url


def test_a_killed_clone_asks_nothing_again(tmp_path):
    line = [sys.executable, "-c", CHILD]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with service() as (behind, url):
        behind.kill_at = 52
        with subprocess.Popen([*line, url, str(tmp_path / "a")], cwd=ROOT, env=environment) as behind.victim:
            assert behind.victim.wait(300) < 0
        assert behind.asked.total() == 56
        behind.kill_at = None
        import torch_aip

        teacher = torch_aip.load_teacher(url)
        views = torch_aip.single_image_loader("sklearn:china.jpg", image_size=32, batch_size=BATCH, views=None)
        student = torch_aip.models.small_cnn(classes=10, width=2)
        distiller = torch_aip.Distiller(student, teacher, loss="argmax")
        history = distiller.fit(
            views, epochs=2, steps_per_epoch=STEPS, store_teacher=tmp_path / "a", verbose=False
        )  # fmt: skip
        assert behind.asked.total() == STEPS * BATCH and max(behind.asked.values()) == 1
        assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()


def main(backend, *arguments):
    return importlib.import_module(f"{backend}.cli").main([*map(str, arguments)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_command_clones_within_a_budget_and_says_beforehand_what_it_needs(backend, tmp_path, capsys):
    with service() as (behind, url):
        line = (
            *("distill", "--teacher", url, "--image", "sklearn:china.jpg", "--student", "small_cnn", "--student-width"),
            *(2, "--dataset", "digits", "--views", 64, "--batch-size", 16, "--epochs", 1),
        )
        store = ("--loss", "argmax", "--store-teacher", tmp_path / "answers")
        for wrong, words in (
            (("--loss", "argmax"), "--store-teacher FOLDER"),
            ((*store[:0], "--store-teacher", tmp_path / "x"), "loss='argmax'"),
            ((*store, "--query-budget", 100), "--query-budget 564, or"),
            ((*store, "--query-budget", 540), "or --views 32"),
            ((*store, "--query-budget", 0), "positive"),
            ((*store, "--teacher-dtype", "bfloat16"), "computes as it does"),
        ):
            assert main(backend, *line, *wrong, "--out", tmp_path / "no") == 2
            assert words in capsys.readouterr().err, wrong
        assert not behind.asked and not (tmp_path / "answers").exists()
        budget = ("--query-budget", 564)
        assert main(backend, *line, *store, *budget, "--out", tmp_path / "run") == 0
        assert behind.asked.total() == 564 and max(behind.asked.values()) == 1
        if backend == "torch_aip":  # another student learns of the same answers, and of nothing more
            assert (
                main(backend, *line, *store, *budget, "--seed", 0, "--temperature", 4, "--out", tmp_path / "again") == 0
            )
        assert behind.asked.total() == 564
    assert main(backend, *line, *store, "--out", tmp_path / "gone") == 2
    assert "cannot be reached" in capsys.readouterr().err


def parts(backend, teacher):
    aip = importlib.import_module(backend)
    made = {"image_size": 32, "batch_size": BATCH, "views": None}
    draw = aip.single_image_dataset if backend == "keras_aip" else aip.single_image_loader
    distiller = aip.Distiller(aip.models.small_cnn(classes=10, width=2), teacher, loss="argmax")
    return distiller, draw("sklearn:china.jpg", **made)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_function_of_arrays_teaches_and_its_crash_costs_nothing(backend, tmp_path):
    seen = Counter()

    def function(images):
        assert isinstance(images, np.ndarray) and images.shape[1:] == (32, 32, 3) and images.dtype == np.float32
        if seen.total() == 40 and not crashed:
            crashed.append(True)
            raise RuntimeError("out of luck")
        seen.update(image.tobytes() for image in images)
        return reads(images * 255)

    crashed = []
    aip = importlib.import_module(backend)
    teacher = aip.Teacher(Asked(function, max_batch=8), outputs="labels", classes=10, digest="mine")
    distiller, views = parts(backend, teacher)
    with pytest.raises(ConfigError, match=r"the function function is no network.*store_teacher=FOLDER"):
        distiller.fit(views, steps_per_epoch=STEPS, verbose=0)
    with pytest.raises(TeacherError, match=r"failed .RuntimeError: out of luck"):
        distiller.fit(views, steps_per_epoch=STEPS, store_teacher=tmp_path, verbose=0)
    distiller.fit(views, steps_per_epoch=STEPS, store_teacher=tmp_path, verbose=0)
    assert seen.total() == STEPS * BATCH and max(seen.values()) == 1
    teacher.asked.budget = 50
    with pytest.raises(ConfigError, match=r"96 views .6 steps of 16.; the query budget is 50"):
        distiller.fit(views, steps_per_epoch=STEPS, store_teacher=tmp_path / "b", verbose=0)
    with pytest.raises(TeacherError, match="leave out mean and std"):
        aip.Teacher(Asked(function), outputs="labels", classes=10, mean=(0, 0, 0), std=(1, 1, 1))


def test_keras_finds_out_which_plain_functions_are_of_arrays(tmp_path):
    import tensorflow as tf

    import keras_aip

    calls = []

    def of_arrays(images):
        calls.append(images.reshape(len(images), -1).shape)  # which a tensor cannot
        return reads(images)

    teacher = keras_aip.Teacher(of_arrays, outputs="labels", classes=10, digest="mine")
    distiller, views = parts("keras_aip", teacher)
    with pytest.raises(ConfigError, match="the function of_arrays is no network"):
        distiller.fit(views, steps_per_epoch=STEPS, verbose=0)
    assert not calls
    distiller.fit(views, steps_per_epoch=STEPS, store_teacher=tmp_path, verbose=0)
    assert sum(rows for rows, _ in calls) == STEPS * BATCH
    graph = keras_aip.Teacher(lambda x: tf.cast(10 * tf.reduce_mean(x, (1, 2, 3)), tf.int64), "labels", classes=10)
    distiller, views = parts("keras_aip", graph)
    distiller.fit(views, steps_per_epoch=2, verbose=0)
    assert graph.asked is None
    teacher = keras_aip.Teacher(lambda x: x[..., [2, 1, 0]].mean((1, 2)), classes=3, digest="mine")
    teacher.find_out(tf.zeros([2, 32, 32, 3]))
    assert teacher.asked is not None  # as only arrays can be indexed
    for wrong, error, said in (
        (lambda images: tf.reduce_mean(images, [1, 2]) * tf.constant(2), TypeError, "type int32"),
        (lambda images: tf.math.reduce_men(images, [1, 2]), AttributeError, "reduce_men"),
    ):  # mistakes, which must not pass for questions to somebody outside
        teacher = keras_aip.Teacher(wrong, classes=3, digest="mine")
        with pytest.raises(error, match=said):
            teacher.find_out(tf.zeros([2, 32, 32, 3]))
        assert teacher.asked is None


def test_another_number_of_classes_is_another_teacher(tmp_path):
    import torch_aip

    with service() as (_, url):
        distiller, views = parts("torch_aip", torch_aip.load_teacher(url))
        distiller.fit(views, steps_per_epoch=1, store_teacher=tmp_path, verbose=False)
    with service(answer=lambda x: np.full((len(x), 9), 1 / 9), outputs="probabilities") as (_, url):
        teacher = torch_aip.load_teacher(url)
        distiller, views = parts("torch_aip", teacher)
        with pytest.raises(
            TeacherError, match=r"probabilities of shape \[8, 9\] .* expected \[8, 10\].*another folder"
        ):
            distiller.fit(views, steps_per_epoch=1, store_teacher=tmp_path / "b", verbose=False)
        with pytest.raises(TeacherError, match="has no weights to load"):
            torch_aip.load_model(url)
