"""Measuring in inference mode, on any set that fits, and with recalibrated statistics that leave no trace."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bridge.datasets import Labelled
from bridge.errors import AipError, DatasetError, TeacherError
from keras_aip import Teacher, evaluate
from keras_aip.evaluate import predict, recalibrated

KEYS = {"teacher_top1", "student_top1", "teacher_top5", "student_top5", "agreement", "kl", "ece", "dataset", "n"}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture
def pixels(make_images) -> np.ndarray:
    """uint8 [21, 8, 8, 3]."""
    return np.rint(make_images(21) * 255).astype(np.uint8)


@pytest.fixture
def labelled(pixels) -> Labelled:
    labels = np.random.default_rng(0).integers(0, 3, len(pixels))
    return Labelled(pixels, labels, ["a", "b", "c"], "colours")


def test_predictions_are_those_of_inference_mode_whatever_the_batch_size(make_network, pixels):
    model = make_network()
    expected = model(pixels.astype(np.float32) / 255, training=False).numpy()
    assert not np.allclose(expected, model(pixels.astype(np.float32) / 255, training=True), atol=0.1)
    model = make_network()
    for batch_size in (256, 8, 21):
        given = predict(model, pixels, batch_size)
        assert given.dtype == np.float32
        assert np.allclose(given, expected, atol=1e-5)


def test_predictions_leave_the_model_as_it_is(make_network, pixels):
    model = make_network()
    before = model.get_weights()
    predict(model, pixels)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))


def test_a_teacher_predicts_in_log_space(make_network, pixels):
    network = make_network()
    teacher = Teacher(lambda x: tf.nn.softmax(network(x, training=False)), outputs="probabilities")
    expected = log_softmax(network(pixels.astype(np.float32) / 255, training=False).numpy())
    assert np.allclose(predict(teacher, pixels, 8), expected, atol=1e-4)


def test_bfloat16_answers_are_measured_in_float32(pixels):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, dtype="bfloat16")])
    assert predict(model, pixels).dtype == np.float32


def test_student_and_teacher_are_measured_as_by_hand(make_network, labelled):
    student, network = make_network(seed=1), make_network(seed=2)
    images = labelled.images.astype(np.float32) / 255
    s, t = (log_softmax(model(images, training=False).numpy()) for model in (student, network))
    measured = evaluate(student, labelled, teacher=Teacher(network), batch_size=8)
    assert set(measured) == KEYS
    assert measured["dataset"] == "colours" and measured["n"] == 21
    assert measured["student_top1"] == pytest.approx((s.argmax(1) == labelled.labels).mean())
    assert measured["teacher_top1"] == pytest.approx((t.argmax(1) == labelled.labels).mean())
    assert measured["agreement"] == pytest.approx((s.argmax(1) == t.argmax(1)).mean())
    assert measured["kl"] == pytest.approx((np.exp(t) * (t - s)).sum(axis=1).mean(), rel=1e-4)
    assert 0 < measured["ece"] < 1
    assert measured["student_top5"] is measured["teacher_top5"] is None  # three classes


def test_without_a_teacher_what_needs_one_is_none(make_network, labelled):
    measured = evaluate(make_network(), labelled)
    assert set(measured) == KEYS
    assert {key for key, value in measured.items() if value is None} == {
        "teacher_top1", "teacher_top5", "student_top5", "agreement", "kl",
    }  # fmt: skip


def test_without_labels_student_and_teacher_are_compared(make_network, labelled):
    unlabelled = Labelled(labelled.images, None, None, "unlabelled")
    student, network = make_network(seed=1), make_network(seed=2)
    measured = evaluate(student, unlabelled, teacher=Teacher(network))
    with_labels = evaluate(student, labelled, teacher=Teacher(network))
    assert {key for key, value in measured.items() if value is not None} == {"agreement", "kl", "dataset", "n"}
    assert measured["agreement"] == with_labels["agreement"] and measured["kl"] == with_labels["kl"]


def test_a_folder_is_read_at_the_size_of_the_model(make_network, tmp_path, pixels):
    for k, image in enumerate(pixels[:6]):
        path = tmp_path / "set" / "abc"[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((16, 16)).save(path)
    measured = evaluate(make_network(), str(tmp_path / "set"))
    assert measured["n"] == 6 and measured["dataset"] == "set" and measured["student_top1"] is not None


def test_a_subclassed_model_that_does_not_say_its_size_is_measured_too(labelled):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)

        def call(self, images):
            return self.head(tf.reduce_mean(images, axis=[1, 2]))

    assert evaluate(Own(), labelled)["n"] == 21


def test_images_of_another_size_name_both_and_who_wants_it(make_network, labelled):
    with pytest.raises(DatasetError, match=r"colours.*\[8, 8\].*model wants \[16, 16\].*image_size=16"):
        evaluate(make_network(size=16), labelled)
    with pytest.raises(DatasetError, match=r"colours.*\[8, 8\].*teacher wants \[16, 16\]"):
        evaluate(make_network(), labelled, teacher=Teacher(make_network(size=16)))


def test_more_classes_than_the_model_has_name_both(make_network, labelled):
    with pytest.raises(TeacherError, match=r"3 classes.*2"):
        evaluate(make_network(classes=2), labelled)
    unnamed = Labelled(labelled.images, labelled.labels + 4, None, "unnamed")
    with pytest.raises(TeacherError, match=r"7 classes.*3"):
        evaluate(make_network(), unnamed)


def test_a_teacher_with_other_classes_names_both(make_network, labelled):
    with pytest.raises(TeacherError, match=r"\[21, 5\].*\[21, 3\]"):
        evaluate(make_network(), labelled, teacher=Teacher(make_network(classes=5)))


def test_a_set_nobody_knows_is_named(make_network):
    with pytest.raises(AipError, match=r"digitz.*digits"):
        evaluate(make_network(), "digitz")


# -- recalibration ----------------------------------------------------------------------------------------------------


def batch_norm_of(model: keras.Model) -> keras.layers.BatchNormalization:
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))


def test_recalibrated_statistics_are_the_mean_over_all_batches(make_network, make_images):
    model = make_network()
    parts = [make_images(16, seed=seed) for seed in range(3)]
    features = [model.layers[0](part).numpy().reshape(-1, 4) for part in parts]
    with recalibrated(model, [tf.constant(part) for part in parts]) as again:
        assert again is model
        norm = batch_norm_of(model)
        assert np.allclose(norm.moving_mean, np.mean([f.mean(axis=0) for f in features], axis=0), atol=1e-5)
        # Keras 2 stores the unbiased variance of 256 values, Keras 3 the plain one.
        assert np.allclose(norm.moving_variance, np.mean([f.var(axis=0) for f in features], axis=0), rtol=0.01)


def test_recalibration_changes_answers_inside_and_nothing_afterwards(make_network, make_images, labelled):
    model = make_network()
    before, logits = model.get_weights(), predict(model, labelled.images)
    momentum = batch_norm_of(model).momentum
    with recalibrated(model, [tf.constant(make_images(16))]) as again:
        assert np.abs(predict(again, labelled.images) - logits).max() > 0.1
        changed = [not np.array_equal(a, b) for a, b in zip(model.get_weights(), before)]
        assert sum(changed) == 2  # mean and variance, and no other weight
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
    assert batch_norm_of(model).momentum == momentum == 0.9
    assert np.array_equal(predict(model, labelled.images), logits)


def test_an_error_inside_leaves_the_model_as_it_was(make_network, make_images):
    model = make_network()
    before = model.get_weights()
    with pytest.raises(RuntimeError), recalibrated(model, [make_images(16)]):
        raise RuntimeError

    def breaking_off():
        yield make_images(8)
        raise OSError

    with pytest.raises(OSError), recalibrated(model, breaking_off()):
        pass
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
    assert batch_norm_of(model).momentum == 0.9


def test_batch_norm_inside_a_nested_model_is_recalibrated_too(make_network, make_images):
    inner = make_network()
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, inner(inputs))
    before = inner.get_weights()
    with recalibrated(outer, [make_images(16)]):
        assert not np.array_equal(batch_norm_of(inner).moving_mean, before[3])
        assert batch_norm_of(inner).momentum == 0.0
    assert all(np.array_equal(a, b) for a, b in zip(inner.get_weights(), before))
    assert batch_norm_of(inner).momentum == 0.9


def test_a_model_without_batch_norm_is_left_alone(make_network, make_images):
    model = make_network(batch_norm=False)
    before = model.get_weights()
    with recalibrated(model, [make_images(8)]):
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
