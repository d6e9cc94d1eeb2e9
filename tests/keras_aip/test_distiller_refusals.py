"""What cannot work is named before the first step, with both sides, and the student is left untouched."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from bridge.errors import ConfigError, DatasetError, RecipeError, TeacherError
from keras_aip import Distiller, Teacher, losses, models
from tests.keras_aip.helpers import learnt, plain, same

SIZE, CLASSES = 8, 3


def refused(student, teacher, data, error, match, **fit):
    before = plain(student.weights)
    distiller = Distiller(student, teacher)
    with pytest.raises(error, match=match):
        distiller.fit(data, verbose=0, **fit)
    assert same(plain(student.weights), before)


def with_labels(images):
    return tf.data.Dataset.from_tensor_slices((images, np.zeros(len(images)))).batch(8)


def unlabelled(images):
    return tf.data.Dataset.from_tensor_slices(images).batch(8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda images: with_labels(images), r"images alone.*Drop labels"),
        (lambda images: unlabelled(images).map(lambda x: {"image": x}), "images alone"),
        (lambda images: unlabelled((images * 255).astype(np.uint8)), r"uint8.*Divide"),
        (lambda images: unlabelled(images * 255), r"\[0, 1\].*255"),
        (lambda images: unlabelled(images * 2 - 1), r"\[0, 1\].*-1"),
        (lambda images: unlabelled(np.where(images < 0.5, np.nan, images)), r"\[0, 1\].*nan"),
        (lambda images: unlabelled(images.astype(np.float64)), "float64"),
        (lambda images: tf.data.Dataset.from_tensor_slices(images), r"batch, height"),
        (lambda images: images, r"ndarray.*tf\.data\.Dataset"),
        (lambda images: unlabelled(images).take(0), "empty"),
    ],
    ids=["labels", "dict", "uint8", "0..255", "-1..1", "nan", "float64", "unbatched", "array", "empty"],
)
def test_data_that_are_no_batches_of_images_are_named(data, message, make_network, make_images):
    refused(make_network(seed=2), make_network(seed=1), data(make_images(8)), DatasetError, message)


def test_numbers_of_views_that_lost_their_image_are_named(make_network):
    views = keras_aip.single_image_dataset("control:noise", image_size=8, batch_size=4, views=8, render="device")
    refused(make_network(seed=2), make_network(seed=1), views.take(2), DatasetError, "without the image")


@pytest.mark.parametrize(("views", "teacher", "student"), [(16, 8, 8), (8, 16, 8), (8, 8, 16)])
def test_other_sizes_name_views_teacher_and_student(views, teacher, student, make_network, make_images):
    message = rf"views \[{views}, {views}, 3\], teacher \[{teacher}, {teacher}.*\], student \[{student}, {student}, 3\]"
    refused(
        make_network(size=student), make_network(size=teacher), unlabelled(make_images(8, views)), TeacherError, message
    )


def test_another_number_of_classes_names_both(make_network, make_images):
    refused(
        make_network(5), make_network(3), unlabelled(make_images(8)), TeacherError, r"\[8, 3\].*\[8, 5\].*classes=3"
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_teacher_whose_answers_are_not_finite_is_named_before_the_first_step(poison, make_network, make_images):
    teacher = make_network(seed=1)
    weights = teacher.get_weights()
    weights[-1][0] = poison
    teacher.set_weights(weights)
    refused(make_network(seed=2), teacher, unlabelled(make_images(8)), TeacherError, "NaN or infinity")


def test_a_teacher_of_bare_labels_is_cloned_with_argmax_only(make_network, make_images):
    network, images = make_network(seed=1), make_images(8)
    teacher = Teacher(lambda x: tf.argmax(network(x), axis=-1), outputs="labels", classes=CLASSES)
    for loss in ("kl", "logit_mse", lambda t, s, tau: tf.reduce_mean(s)):
        with pytest.raises(ConfigError, match="argmax"):
            Distiller(make_network(seed=2), teacher, loss=loss)
    student = make_network(batch_norm=False, seed=2)
    expected = losses.argmax(network(images), student(images), 1.0)
    distiller = learnt(teacher, student, images, 8, loss="argmax", mixing="none")
    assert distiller.history.history["loss"][0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature, make_network):
    with pytest.raises(ConfigError, match="temperature"):
        Distiller(make_network(seed=2), make_network(seed=1), temperature=temperature)


def test_a_loss_or_a_mixing_nobody_knows_is_refused(make_network):
    with pytest.raises(ConfigError, match=r"'kll'.*'kl'"):
        Distiller(make_network(seed=2), make_network(seed=1), loss="kll")
    with pytest.raises(RecipeError, match=r"'cutmixx'.*cutmix"):
        Distiller(make_network(seed=2), make_network(seed=1), mixing="cutmixx")


@pytest.mark.parametrize("option", [{"loss": "mse"}, {"metrics": ["accuracy"]}, {"weighted_metrics": []}])
def test_compile_refuses_what_belongs_to_labels(option, make_network):
    with pytest.raises(ConfigError, match=rf"{next(iter(option))}.*Distiller\(\.\.\., loss="):
        Distiller(make_network(seed=2), make_network(seed=1)).compile("adam", **option)


def test_steps_that_do_not_come_out_even_are_refused(make_network, make_images):
    distiller = Distiller(make_network(seed=2), make_network(seed=1))
    distiller.compile("sgd", steps_per_execution=3)
    with pytest.raises(ConfigError, match=r"steps_per_epoch \(=4\).*steps_per_execution \(=3\)"):
        distiller.fit(unlabelled(make_images(32)), verbose=0)


def test_float16_students_are_refused_for_want_of_loss_scaling(make_network):
    student = models.small_cnn(classes=3, width=2, image_size=8)
    half = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, dtype="mixed_float16")]
    )
    Distiller(student, make_network())
    with pytest.raises(ConfigError, match="mixed_bfloat16"):
        Distiller(half, make_network())
