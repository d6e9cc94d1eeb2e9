"""The student learns from the teacher's answers to the mixed pixels, alike in every way of running the step."""

from __future__ import annotations

import itertools

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from bridge.datum.mixing import Mixing, mixing_numbers
from bridge.datum.preview import mix
from bridge.errors import ConfigError
from keras_aip import Distiller, Teacher, losses, models
from tests.keras_aip.helpers import learnt, plain, same

SIZE, CLASSES = 8, 3


def statistics(model: keras.Model) -> list[np.ndarray]:
    return plain(model.non_trainable_weights)


class Recorder:
    """Keeps what it is shown; answers with logits, so it can be a teacher."""

    def __init__(self):
        self.seen: list[np.ndarray] = []

    def __call__(self, images):
        self.seen.append(images.numpy())
        return tf.reduce_mean(images, axis=[1, 2])


class RecordingStudent(keras.Model):
    """A subclassed model, built by its first batch."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[np.ndarray, bool]] = []
        self.head = keras.layers.Dense(CLASSES)

    def call(self, images, training=None):
        if tf.executing_eagerly() and isinstance(images, tf.Tensor) and hasattr(images, "numpy"):
            self.seen.append((images.numpy(), bool(training)))
        return self.head(tf.reduce_mean(images, axis=[1, 2]))


# -- one ordinary run, looked at from many sides ----------------------------------------------------------------------


class Run:
    """Two epochs of three steps, without `compile`."""

    def __init__(self, make_network, make_images):
        self.network, self.student = make_network(seed=1), make_network(seed=2)
        self.distiller = Distiller(self.student, self.network)
        self.network_before, self.student_before = plain(self.network.weights), plain(self.student.weights)
        self.statistics_before = statistics(self.student)
        data = tf.data.Dataset.from_tensor_slices(make_images(48)).batch(16)
        self.history = self.distiller.fit(data, epochs=2, verbose=0)


@pytest.fixture(scope="module")
def run(make_network, make_images) -> Run:
    return Run(make_network, make_images)


def test_without_compile_it_is_adam_with_a_small_epsilon(run):
    optimizer = run.distiller.optimizer
    assert type(optimizer).__name__ == "Adam"
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert optimizer.epsilon == pytest.approx(1e-8)
    assert int(optimizer.iterations) == 6
    moved = [np.abs(np.array(w) - b).max() for w, b in zip(run.student.weights, run.student_before)]
    assert min(moved) > 1e-4


def test_the_history_is_loss_and_agreement_and_nothing_else(run):
    assert set(run.history.history) == {"loss", "agreement"}
    for values in run.history.history.values():
        assert len(values) == 2 and np.isfinite(values).all()
    assert min(run.history.history["loss"]) > 0
    assert all(0 <= value <= 1 for value in run.history.history["agreement"])


def test_the_teacher_is_left_as_it_was(run):
    """Weights and BatchNorm statistics."""
    assert len(run.network_before) == 7
    assert same(plain(run.network.weights), run.network_before)


def test_the_students_batch_statistics_follow_the_views(run):
    for now, before in zip(statistics(run.student), run.statistics_before):
        assert np.abs(now - before).max() > 1e-3


def test_the_teachers_weights_are_not_the_distillers(run):
    assert len(run.distiller.trainable_weights) == len(run.student.trainable_weights)
    for weights in (run.distiller.weights, run.distiller.trainable_weights):
        assert not {id(weight) for weight in weights} & {id(weight) for weight in run.network.weights}
    assert {id(weight) for weight in run.student.weights} <= {id(weight) for weight in run.distiller.weights}
    parts = list(run.distiller._flatten_layers())
    assert run.student in parts and run.network not in parts


def test_the_student_alone_is_saved_and_loaded(run, make_images, tmp_path):
    run.student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    images = make_images(4, seed=3)
    assert np.allclose(loaded(images), run.student(images, training=False), atol=1e-6)
    assert np.allclose(run.distiller(images), run.student(images, training=False), atol=1e-6)


def test_saved_weights_are_the_students_and_hold_no_teacher(run, make_network, tmp_path):
    file = str(tmp_path / "distiller.weights.h5")
    run.distiller.save_weights(file)
    another = Distiller(make_network(seed=5), make_network(seed=6))  # other weights, another teacher, never called
    teacher = plain(another.teacher._model.weights)
    another.load_weights(file)
    assert same(plain(another.student.get_weights()), plain(run.student.get_weights()))
    assert same(plain(another.teacher._model.weights), teacher)
    kernels = []
    with h5py.File(file) as stored:
        stored.visititems(lambda name, item: kernels.append(item[()]) if getattr(item, "ndim", 0) == 4 else None)
    for model, is_in_there in ((run.student, True), (run.network, False)):
        assert any(np.array_equal(kernel, model.get_weights()[0]) for kernel in kernels) == is_in_there


# -- what a step computes ---------------------------------------------------------------------------------------------


def by_hand(teacher, student, images, batch, epochs, mixing, seed, temperature, rate, l2):
    """The whole training written down plainly: mix, ask the teacher, KL · τ² + L2, gradient descent."""
    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    kernels = [weight for weight in student.trainable_weights if len(weight.shape) > 1]
    history, step = {"loss": [], "agreement": []}, 0
    for _ in range(epochs):
        costs, agreements = [], []
        for pixels in batches:
            mixed = mix(pixels, mixing_numbers(mixing, seed, step, len(pixels)))
            wanted = teacher(mixed, training=False)
            with tf.GradientTape() as tape:
                given = student(mixed, training=True)
                p, q = (tf.nn.softmax(logits / temperature) for logits in (wanted, given))
                cost = temperature**2 * tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p / q), axis=1))
                penalty = l2 * sum(tf.reduce_sum(tf.convert_to_tensor(kernel) ** 2) for kernel in kernels)
                total = cost + penalty
            for weight, slope in zip(student.trainable_weights, tape.gradient(total, student.trainable_variables)):
                weight.assign(weight - rate * slope)
            costs.append(float(cost))
            agreements.extend((np.argmax(wanted, 1) == np.argmax(given, 1)).tolist())
            step += 1
        history["loss"].append(np.mean(costs))
        history["agreement"].append(np.mean(agreements))
    return history


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"steps_per_execution": 3},
        {"jit_compile": True, "steps_per_execution": 3},
        {"run_eagerly": True},
        {"run_eagerly": True, "steps_per_execution": 3},
    ],
    ids=lambda way: "+".join(way) or "default",
)
def test_every_way_of_running_takes_the_same_steps_as_by_hand(way, make_network, make_images):
    settings = {"temperature": 3.0, "seed": 11}
    mixing = Mixing("both", 1.0, "sample", block=4)
    images, teacher = make_images(24), make_network(seed=1)
    expected, student = make_network(batch_norm=False, seed=2), make_network(batch_norm=False, l2=0.01, seed=2)
    start = plain(student.weights)
    told = by_hand(teacher, expected, images, 8, 2, mixing, rate=0.05, l2=0.01, **settings)
    distiller = Distiller(student, teacher, mixing=mixing, tau_squared=True, **settings)
    distiller.compile(keras.optimizers.SGD(0.05), **way)
    history = distiller.fit(tf.data.Dataset.from_tensor_slices(images).batch(8), epochs=2, verbose=0).history
    for now, before, hand in zip(plain(student.weights), start, plain(expected.weights)):
        assert np.abs(hand - before).max() > 1e-3
        assert np.allclose(now, hand, atol=1e-5)
    assert np.allclose(history["loss"], told["loss"], rtol=1e-4)
    assert np.allclose(history["agreement"], told["agreement"])


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_teacher_and_student_are_shown_the_mixed_pixels(kind, make_images):
    images, teacher, student = make_images(24), Recorder(), RecordingStudent()
    distiller = Distiller(student, teacher, mixing=Mixing(kind, block=4), seed=5)
    distiller.compile("sgd", run_eagerly=True)
    distiller.fit(tf.data.Dataset.from_tensor_slices(images).batch(8), epochs=2, verbose=0)
    trained_on = [pixels for pixels, training in student.seen if training]
    labelled = teacher.seen[-6:]
    assert len(trained_on) == 6
    for step, (asked, learnt_from) in enumerate(zip(labelled, trained_on)):
        pixels = images[8 * (step % 3) : 8 * (step % 3) + 8]
        expected = mix(pixels, mixing_numbers(Mixing(kind, block=4), 5, step, 8))
        assert np.allclose(asked, expected, atol=1e-6)
        assert np.array_equal(asked, learnt_from)
    assert np.mean([not np.allclose(labelled[step], images[8 * step : 8 * step + 8]) for step in range(3)]) > 0.5
    # The same images come again in the second epoch, but not the same mixing.
    assert not any(np.allclose(labelled[step], labelled[step + 3]) for step in range(3))


def test_mixing_none_shows_the_views_as_they_are(make_images):
    images, teacher = make_images(8), Recorder()
    learnt(teacher, RecordingStudent(), images, 8, mixing="none")
    assert np.array_equal(teacher.seen[-1], images)


def test_another_seed_mixes_otherwise(make_images):
    images = make_images(8)
    seen = []
    for seed in (0, 0, 1):
        teacher = Recorder()
        learnt(teacher, RecordingStudent(), images, 8, mixing=Mixing("mixup", block=8), seed=seed)
        seen.append(teacher.seen[-1])
    assert np.array_equal(seen[0], seen[1])
    assert not np.allclose(seen[0], seen[2])


def test_resuming_goes_on_with_the_mixing_of_the_step_reached(make_network, make_images):
    data = tf.data.Dataset.from_tensor_slices(make_images(16)).batch(8)
    ends = []
    for borders in ((0, 3), (0, 1, 3)):
        distiller = Distiller(make_network(batch_norm=False, seed=2), make_network(seed=1), temperature=1.0)
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)
        for first, last in itertools.pairwise(borders):
            distiller.fit(data, epochs=last, initial_epoch=first, verbose=0)
        ends.append(plain(distiller.student.weights))
    assert same(*ends)


def test_views_that_begin_at_a_later_step_are_mixed_for_that_step():
    views = keras_aip.single_image_dataset("control:noise", image_size=8, batch_size=4, views=8, start_step=7)
    teacher = Recorder()
    distiller = Distiller(RecordingStudent(), teacher, mixing=Mixing("mixup", block=4))
    distiller.compile("sgd", run_eagerly=True)
    distiller.fit(views, verbose=0)
    rendered = [pixels.numpy() for pixels in views.take(2)]
    for k, pixels in enumerate(rendered):
        expected = mix(pixels, mixing_numbers(Mixing("mixup", block=4), 0, 7 + k, 4))
        assert np.allclose(teacher.seen[1 + k], expected, atol=1e-6)
    assert len(teacher.seen) == 3  # the first look, and one epoch of 8 views


def test_tau_squared_multiplies_the_loss(make_network, make_images):
    start, images = plain(make_network(batch_norm=False, seed=2).weights), make_images(8)
    steps, reported = [], []
    for tau_squared in (False, True):
        student = make_network(batch_norm=False, seed=2)
        distiller = learnt(make_network(seed=1), student, images, 8, temperature=4.0, tau_squared=tau_squared)
        steps.append([now - before for now, before in zip(plain(student.weights), start)])
        reported.append(distiller.history.history["loss"][0])
    assert reported[1] == pytest.approx(16 * reported[0], rel=1e-4)
    for once, scaled in zip(*steps):
        assert np.allclose(scaled, 16 * once, atol=1e-5)


def test_the_l2_penalty_enters_the_gradient_and_not_the_reported_loss(make_network, make_images):
    images, ends, reported = make_images(8), [], []
    for l2 in (0.0, 0.05):
        student = make_network(batch_norm=False, l2=l2, seed=2)
        start = plain(student.weights)
        distiller = learnt(make_network(seed=1), student, images, 8, temperature=1.0)
        ends.append(plain(student.weights))
        reported.append(distiller.history.history["loss"][0])
    for before, without, penalised in zip(start, *ends):
        is_kernel = before.ndim > 1
        assert np.allclose(penalised - without, -0.1 * 2 * 0.05 * before * is_kernel, atol=1e-6)
    assert reported[0] == reported[1]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_a_student_in_bfloat16_may_have_an_l2_penalty(dtype, make_network, make_images):
    student = models.small_cnn(CLASSES, width=2, image_size=SIZE, l2=1e-3, dtype=dtype)
    before = plain(student.trainable_weights)
    distiller = learnt(make_network(seed=1), student, make_images(8), 8, temperature=1.0)
    assert np.isfinite(distiller.history.history["loss"]).all()
    assert not any(np.array_equal(now, old) for now, old in zip(plain(student.trainable_weights)[-2:], before[-2:]))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_loss_asked_for_is_the_one_used(name, make_network, make_images):
    images, teacher, student = make_images(8), make_network(seed=1), make_network(batch_norm=False, seed=2)
    expected = losses.LOSSES[name](teacher(images), student(images), 2.0)
    distiller = learnt(teacher, student, images, 8, loss=name, temperature=2.0, mixing="none")
    assert distiller.history.history["loss"][0] == pytest.approx(float(expected), rel=1e-4)


def test_a_loss_may_be_a_function(make_network, make_images):
    images, teacher, student = make_images(8), make_network(seed=1), make_network(batch_norm=False, seed=2)

    def furthest(teacher, student, temperature):
        return tf.reduce_max(tf.abs(teacher - student)) / temperature

    expected = np.abs(teacher(images) - student(images)).max() / 5
    distiller = learnt(teacher, student, images, 8, loss=furthest, temperature=5.0, mixing="none")
    assert distiller.history.history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_probabilities_are_softened_as_logits_are(make_network, make_images):
    """A teacher that gives softmax(z) teaches what one that gives z does: the logarithm is divided by τ, not p."""
    images, network = make_images(8), make_network(seed=1)
    reported = []
    for teacher in (network, Teacher(lambda x: tf.nn.softmax(network(x)), outputs="probabilities")):
        distiller = learnt(teacher, make_network(batch_norm=False, seed=2), images, 8, temperature=4.0)
        reported.append(distiller.history.history["loss"][0])
    assert reported[1] == pytest.approx(reported[0], rel=1e-3)


def test_a_student_learns_to_agree_with_its_teacher(make_network, make_colour_teacher, make_images):
    teacher, student = make_colour_teacher(), make_network(seed=2)
    distiller = Distiller(student, teacher, temperature=4.0, tau_squared=True, mixing=Mixing(per="sample"))
    distiller.compile(keras.optimizers.Adam(0.02))
    data = tf.data.Dataset.from_tensor_slices(make_images(256)).batch(32)
    history = distiller.fit(data, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert history["agreement"][-1] > max(0.85, history["agreement"][0] + 0.2)
    unseen = make_images(256, seed=9)
    agreement = np.mean(np.argmax(teacher(unseen), 1) == np.argmax(student(unseen, training=False), 1))
    assert agreement > 0.85


# -- ways of calling it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["rmsprop", "AdamW", "schedule"])
def test_any_optimizer_steps_per_execution_and_callbacks_work_together(optimizer, make_network, make_images):
    class Noting(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs, self.batches = [], 0

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(dict(logs))

    if optimizer == "AdamW":
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    elif optimizer == "schedule":
        optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 6), momentum=0.9, nesterov=True)
    student, noting = make_network(seed=2), Noting()
    before = plain(student.trainable_weights)
    distiller = Distiller(student, make_network(seed=1), temperature=1.0)
    distiller.compile(optimizer, steps_per_execution=3)
    if not isinstance(optimizer, str):
        assert distiller.optimizer is optimizer
    distiller.fit(tf.data.Dataset.from_tensor_slices(make_images(24)).batch(8), epochs=2, callbacks=[noting], verbose=0)
    assert int(distiller.optimizer.iterations) == 6
    assert noting.batches == 2 and [set(logs) for logs in noting.epochs] == 2 * [{"loss", "agreement"}]
    assert [float(logs["loss"]) for logs in noting.epochs] == distiller.history.history["loss"]
    assert all(np.abs(now - old).max() > 1e-4 for now, old in zip(plain(student.trainable_weights), before))


def test_an_early_stop_stops(make_network, make_images):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    distiller = Distiller(make_network(seed=2), make_network(seed=1))
    distiller.compile("sgd", run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices(make_images(8)).batch(8)
    assert len(distiller.fit(data, epochs=9, callbacks=[Stop()], verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("way", [{}, {"jit_compile": True}], ids=["default", "jit_compile"])
def test_a_smaller_last_batch_takes_part(way, make_network, make_images):
    images, teacher, student = make_images(10), make_network(seed=1), make_network(batch_norm=False, seed=2)
    distiller = Distiller(student, teacher, mixing=Mixing("none"), temperature=1.0)
    distiller.compile(keras.optimizers.SGD(0.0), **way)
    history = distiller.fit(tf.data.Dataset.from_tensor_slices(images).batch(8), verbose=0).history
    costs = [float(losses.kl(teacher(part), student(part), 1.0)) for part in (images[:8], images[8:])]
    assert history["loss"][0] == pytest.approx(np.mean(costs), rel=1e-4)
    assert int(distiller.optimizer.iterations) == 2


def test_a_smaller_last_batch_is_mixed_within_itself(make_images):
    images, teacher = make_images(10), Recorder()
    learnt(teacher, RecordingStudent(), images, 8, mixing=Mixing("mixup", block=4))
    expected = mix(images[8:], mixing_numbers(Mixing("mixup", block=4), 0, 1, 2))
    assert np.allclose(teacher.seen[-1], expected, atol=1e-6)


def test_endless_data_need_steps_per_epoch(make_network, make_images):
    endless = tf.data.Dataset.from_tensor_slices(make_images(8)).batch(8).repeat()
    unknown = tf.data.Dataset.from_tensor_slices(make_images(8)).batch(8).filter(lambda images: True)
    distiller = Distiller(make_network(seed=2), make_network(seed=1))
    distiller.compile("sgd", run_eagerly=True)
    for data in (endless, unknown):
        with pytest.raises(ConfigError, match="steps_per_epoch"):
            distiller.fit(data, verbose=0)
        distiller.fit(data, epochs=2, steps_per_epoch=3, verbose=0)
    assert int(distiller.optimizer.iterations) == 12


def test_endless_views_of_one_image_need_steps_per_epoch(make_network):
    views = keras_aip.single_image_dataset("control:noise", image_size=8, batch_size=4, views=None)
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        Distiller(make_network(seed=2), make_network(seed=1)).fit(views, verbose=0)


def test_views_rendered_inside_the_step_are_those_of_the_image_given_last(make_network):
    """The step's graph holds the image it draws from; another image must not be drawn from the old one's pixels."""
    distiller = Distiller(make_network(seed=2), make_network(seed=1), mixing="none", temperature=1.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    reported = []
    for image, render in (("noise", "device"), ("constant", "device"), ("constant", "host")):
        views = keras_aip.single_image_dataset(f"control:{image}", image_size=8, batch_size=4, views=8, render=render)
        reported.append(distiller.fit(views, verbose=0).history["loss"][0])
    assert reported[0] != pytest.approx(reported[1], rel=1e-3)
    assert reported[1] == pytest.approx(reported[2], rel=1e-4)
