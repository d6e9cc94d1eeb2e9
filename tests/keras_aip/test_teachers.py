"""Teachers: frozen, in inference mode, in log space; and their folders, which never give a wrong network."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bridge.errors import TeacherError
from bridge.teachers import Card, refuse_code
from keras_aip import models
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_model, load_teacher, save_teacher


@keras.saving.register_keras_serializable(package="aip_tests")
class Halve(keras.layers.Layer):
    def call(self, x):
        return x / 2


def pixels(batch: int = 4, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, size, size, 3), dtype=np.float32)


def a_network(classes: int = 3, seed: int = 0) -> keras.Model:
    """Return a small network with random BatchNorm statistics too."""
    keras.utils.set_random_seed(seed)
    model = models.small_cnn(classes, width=2, image_size=8)
    generator = np.random.default_rng(seed)
    arrays = models.state_dict(model)
    for name, array in arrays.items():
        if array.ndim == 1:
            arrays[name] = generator.uniform(0.5, 1.5, array.shape).astype(np.float32)
    models.load_state_dict(model, arrays)
    return model


def a_foreign_network(*layers: keras.layers.Layer) -> keras.Model:
    """Return a network that keras_aip.models does not know."""
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(3)])


def test_no_gradient_reaches_the_teacher() -> None:
    model = a_network()
    teacher = Teacher(model)
    images = tf.constant(pixels())
    weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in model.weights]
    for ask, connected in ((teacher, False), (model, True)):
        with tf.GradientTape() as tape:
            tape.watch([images, *weights])
            loss = tf.reduce_sum(ask(images))
        gradients = tape.gradient(loss, [images, *weights])
        assert any(gradient is not None for gradient in gradients) == connected
    assert teacher.trainable_weights == []
    assert teacher._model.trainable_weights == []


def test_a_model_that_holds_a_teacher_does_not_hold_its_weights() -> None:
    class Student(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = Teacher(a_network())
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(tf.reshape(x, [-1, 192])) + self.teacher(x)

    student = Student()
    student(pixels())
    assert len(student.weights) == 2
    assert len(student.trainable_weights) == 2


def test_the_teacher_stays_in_inference_mode_whatever_happens_around_it() -> None:
    model = a_foreign_network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    images = pixels()
    expected = model(images, training=False).numpy()
    before = [np.array(weight) for weight in model.get_weights()]
    teacher = Teacher(model)
    model.trainable = True

    class Outer(keras.layers.Layer):
        def call(self, x, training=None):
            return teacher(x)

    for answer in (teacher(images), Outer()(images, training=True), tf.function(teacher)(images)):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_function_that_takes_training_is_told_false() -> None:
    told = []

    def model(x, training=True):
        told.append(training)
        return x[:, 0, 0]

    teacher = Teacher(model, classes=3)
    np.testing.assert_array_equal(teacher(pixels()), pixels()[:, 0, 0])
    assert told == [False]
    assert teacher.digest is None
    assert teacher.input_size is None


def test_logits_come_through_unchanged_and_normalisation_is_float32() -> None:
    model = a_network()
    teacher = Teacher(model)
    np.testing.assert_array_equal(teacher(pixels()), model(pixels(), training=False))
    assert (teacher.classes, teacher.input_size, teacher.outputs) == (3, (8, 8), "logits")
    normalised = Teacher(lambda x: x[:, 0, 0], mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
    expected = (pixels()[:, 0, 0] - [0.1, 0.2, 0.3]) / [0.5, 0.4, 0.3]
    np.testing.assert_allclose(normalised(pixels().astype(np.float64)), expected, rtol=1e-5)


def test_probabilities_become_their_logarithm_cut_at_1e_7() -> None:
    probabilities = np.array([[0.0, 0.25, 0.75], [1e-9, 0.0, 1.0]], np.float32)
    teacher = Teacher(lambda x: tf.constant(probabilities), outputs="probabilities")
    expected = np.log(np.maximum(probabilities, 1e-7))
    np.testing.assert_allclose(teacher(pixels(2)), expected, rtol=1e-6)
    # Softmax of the logarithm is the probability itself: no second softmax is in the way.
    np.testing.assert_allclose(tf.nn.softmax(teacher(pixels(2))), probabilities, atol=1e-6)


@pytest.mark.parametrize("answer", [[2, 0], [[2], [0]], [[0, 0, 1], [1, 0, 0]]])
def test_labels_become_the_logarithm_of_one_hot_vectors(answer: list) -> None:
    teacher = Teacher(lambda x: tf.constant(answer), outputs="labels", classes=3)
    expected = np.log(np.maximum([[0, 0, 1], [1, 0, 0]], 1e-7))
    np.testing.assert_allclose(teacher(pixels(2)), expected, rtol=1e-6)


def test_class_numbers_without_a_number_of_classes_are_refused() -> None:
    with pytest.raises(TeacherError, match="classes="):
        Teacher(lambda x: tf.constant([1]), outputs="labels")


def test_a_wrong_number_of_classes_is_named_on_both_sides() -> None:
    with pytest.raises(TeacherError, match=r"classes: 10.*output: 3"):
        Teacher(a_network(), classes=10)
    with pytest.raises(TeacherError, match=r"class_names: 2.*output: 3"):
        Teacher(a_network(), class_names=["cat", "dog"])
    with pytest.raises(TeacherError, match=r"for 3 classes; 10 were"):
        Teacher(lambda x: x[:, 0, 0], classes=10)(pixels())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"outputs": "logit"}, "logits"),
        ({"mean": (0.5, 0.5, 0.5)}, "together"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.0, 1.0, 1.0)}, "above 0"),
        ({"dtype": "float8"}, "bfloat16"),
        ({"dtype": "bfloat16"}, "Keras model"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(TeacherError, match=named):
        Teacher(lambda x: x[:, 0, 0], **arguments)


def test_an_answer_that_is_no_batch_of_scores_is_refused() -> None:
    with pytest.raises(TeacherError, match="shape"):
        Teacher(lambda x: x)(pixels())
    with pytest.raises(TeacherError, match="2 outputs"):
        Teacher(lambda x: (x, x))(pixels())
    with pytest.raises(TeacherError, match="not a str"):
        Teacher("resnet20")  # type: ignore[arg-type]


def test_a_bfloat16_teacher_agrees_with_the_exact_one() -> None:
    model = a_network(classes=5)
    exact, fast = Teacher(model), Teacher(model, dtype="bfloat16")
    images = pixels(256)
    assert fast(images).dtype == tf.float32
    assert fast._model.get_layer("block2.conv").compute_dtype == "bfloat16"
    a, b = exact(images).numpy(), fast(images).numpy()
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()
    centred = [scores - exact(images).numpy().mean(axis=0) for scores in (a, b)]
    # Less the mean, because a random network prefers one class whatever it sees.
    assert np.mean(centred[0].argmax(1) == centred[1].argmax(1)) > 0.9
    assert exact.digest == fast.digest
    assert fast._model.trainable_weights == []


def test_other_functional_and_sequential_models_go_to_bfloat16_too() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(2.0, -1.0)(inputs)
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    x = keras.layers.GlobalAveragePooling2D()(Halve()(inner(x)))
    functional = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    for model, outputs in ((functional, "probabilities"), (a_foreign_network(Halve()), "logits")):
        exact = Teacher(model, outputs=outputs)
        fast = Teacher(model, outputs=outputs, dtype="bfloat16")
        assert any(getattr(layer, "compute_dtype", "") == "bfloat16" for layer in fast._model._flatten_layers())
        np.testing.assert_allclose(exact(pixels()), fast(pixels()), atol=0.03)


def test_a_subclassed_model_cannot_go_to_bfloat16() -> None:
    class Mine(keras.Model):
        def call(self, x):
            return x[:, 0, 0]

    with pytest.raises(TeacherError, match="Mine"):
        Teacher(Mine(), dtype="bfloat16")


def test_the_digest_follows_the_weights() -> None:
    model = a_network()
    assert Teacher(model).digest == Teacher(model).digest == Teacher(a_network()).digest
    assert Teacher(a_network(seed=1)).digest != Teacher(model).digest
    assert Teacher(model, outputs="probabilities").digest != Teacher(model).digest


def test_our_networks_are_kept_as_safetensors(tmp_path: Path) -> None:
    model = a_network()
    card = save_teacher(
        model,
        tmp_path / "teacher",
        class_names=["a", "b", "c"],
        accuracy={"top1": 0.5, "dataset": "nothing", "n": 2},
        source="a test",
        licence="none",
    )
    assert sorted(path.name for path in (tmp_path / "teacher").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]
    assert card == Card.load(tmp_path / "teacher")
    loaded, loaded_card = load_model(tmp_path / "teacher")
    assert loaded_card.class_names == ("a", "b", "c") and loaded_card.parameters == model.count_params()
    assert loaded.trainable and len(loaded.trainable_weights) == len(model.trainable_weights)
    np.testing.assert_array_equal(loaded(pixels()), model(pixels()))
    teacher = load_teacher(tmp_path / "teacher")
    np.testing.assert_array_equal(teacher(pixels()), model(pixels()))
    assert teacher.digest == card.digest and teacher.class_names == card.class_names
    assert load_teacher(tmp_path / "teacher", dtype="bfloat16").dtype == "bfloat16"


def test_other_networks_are_kept_as_a_keras_file(tmp_path: Path) -> None:
    model = a_foreign_network(Halve(), keras.layers.BatchNormalization())
    save_teacher(model, tmp_path / "teacher", outputs="logits")
    assert sorted(path.name for path in (tmp_path / "teacher").iterdir()) == ["card.json", "model.keras"]
    np.testing.assert_allclose(load_teacher(tmp_path / "teacher")(pixels()), model(pixels()), rtol=1e-6)


def test_normalisation_named_by_the_card_of_a_keras_file_is_applied(tmp_path: Path) -> None:
    model = a_foreign_network()
    card = save_teacher(model, tmp_path / "teacher")
    dataclasses.replace(card, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3)).save(tmp_path / "teacher")
    normalised = ((pixels() - [0.1, 0.2, 0.3]) / [0.5, 0.4, 0.3]).astype(np.float32)
    np.testing.assert_allclose(load_teacher(tmp_path / "teacher")(pixels()), model(normalised), atol=1e-5)


def test_saving_replaces_a_teacher_but_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    save_teacher(a_foreign_network(), folder)
    save_teacher(a_network(), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(TeacherError, match=r"me\.jpg"):
        save_teacher(a_network(), tmp_path / "photos")
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"precious"
    with pytest.raises(TeacherError, match="cannot be written"):
        save_teacher(a_network(), tmp_path / "photos" / "me.jpg" / "teacher")


def test_a_name_is_looked_up_among_the_teachers_and_never_invented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_teacher(a_network(), tmp_path / "shelf" / "mine")
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path / "shelf"))
    assert load_teacher("mine").classes == 3
    monkeypatch.delenv("AIP_TEACHERS")
    with pytest.raises(TeacherError, match="train-teacher"):
        load_teacher("resnet20")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shelf").rename(tmp_path / "teachers")
    assert load_teacher("mine").classes == 3


def test_tampered_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    save_teacher(a_network(), folder)
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TeacherError, match="SHA-256"):
        load_teacher(folder)


def test_a_card_that_does_not_fit_its_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    card = save_teacher(a_network(), folder)
    other = {"classes": 4, "arguments": {**card.arguments, "classes": 4}}
    dataclasses.replace(card, **other).save(folder)
    with pytest.raises(TeacherError, match=r"fc\.weight \(given \(3, 4\), expected \(4, 4\)\)"):
        load_teacher(folder)
    dataclasses.replace(card, architecture="resnet50").save(folder)
    with pytest.raises(TeacherError, match="resnet50"):
        load_teacher(folder)
    dataclasses.replace(card, arguments={"classes": 3, "depth": 4}).save(folder)
    with pytest.raises(TeacherError, match="depth"):
        load_teacher(folder)
    dataclasses.replace(card, architecture=None).save(folder)
    with pytest.raises(TeacherError, match="no form"):
        load_teacher(folder)
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)
    card.sealed(folder).save(folder)
    with pytest.raises(TeacherError, match="safetensors file"):
        load_teacher(folder)


def test_a_keras_file_with_a_wrong_class_count_is_refused(tmp_path: Path) -> None:
    card = save_teacher(a_foreign_network(), tmp_path / "teacher")
    dataclasses.replace(card, classes=7).save(tmp_path / "teacher")
    with pytest.raises(TeacherError, match="3 classes, its card says 7"):
        load_teacher(tmp_path / "teacher")


def test_a_lambda_is_refused_in_both_kinds_of_file_and_never_saved(tmp_path: Path) -> None:
    model = a_foreign_network(keras.layers.Lambda(lambda x: x * 2))
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        with pytest.raises(TeacherError, match="Lambda"):
            refuse_code(tmp_path / name)
    with pytest.raises(TeacherError, match="Lambda"):
        save_teacher(model, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()
    # A file with a Lambda that comes in a well-formed folder is refused before Keras opens it.
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.keras").rename(tmp_path / "folder" / "model.keras")
    card = Card(classes=3, input_size=(8, 8), forms={"keras": "model.keras"}).sealed(tmp_path / "folder")
    card.save(tmp_path / "folder")
    with pytest.raises(TeacherError, match="Lambda"):
        load_teacher(tmp_path / "folder")


def test_ordinary_models_pass_the_scan_in_both_kinds_of_file(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="swish", kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    x = keras.layers.Flatten()(keras.layers.TimeDistributed(keras.layers.Dense(2))(x))
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_constraint="max_norm")(x) * 2.0 + 1.0)
    model.compile(keras.optimizers.Adam(), keras.losses.KLDivergence(), metrics=["accuracy"])
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        refuse_code(tmp_path / name)


def test_a_file_of_another_keras_is_named_not_tried(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    card = save_teacher(a_foreign_network(), folder)
    other = "2.15.0" if keras.__version__.startswith("3") else "3.15.1"
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = json.dumps({"keras_version": other}).encode()
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    card.sealed(folder).save(folder)
    with pytest.raises(TeacherError, match=f"{other}.*{keras.__version__}"):
        load_teacher(folder)


def test_a_keras_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    card = save_teacher(a_foreign_network(), folder)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".h5")}
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    card.sealed(folder).save(folder)
    with pytest.raises(TeacherError, match="cannot be loaded"):
        load_teacher(folder)


def test_a_model_without_class_scores_is_not_saved(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(TeacherError, match="output shape"):
        save_teacher(keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs)), tmp_path / "teacher")
