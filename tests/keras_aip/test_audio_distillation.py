"""A student of sounds learns from one clip: the same distiller, the same commands."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

import keras_aip
from bridge.datum.masks import Masks
from bridge.datum.mixing import Mixing
from bridge.errors import ConfigError, DatasetError, TeacherError
from keras_aip import models
from keras_aip.cli import main
from keras_aip.compat import XLA_TRANSFORMS
from keras_aip.feed import feed
from keras_aip.pair import Pair

RATE, SAMPLES = 4_000, 2_000
FRONT_END = {"window": 160, "hop": 80, "bands": 20, "high": 1900.0}
BUILT = {"rate": RATE, "samples": SAMPLES, "front_end": FRONT_END}


def network(name: str = "dscnn_s", classes: int = 4, seed: int = 0, **options) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return models.build(name, classes=classes, **{**BUILT, **options})


def clip(seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.sin(2 * np.pi * (200 + 300 * np.sin(2 * time)) * time) * (0.5 + 0.4 * np.sin(9 * time))
    return (0.5 * sound).astype(np.float32)


def sounds(**options) -> tf.data.Dataset:
    return keras_aip.single_audio_dataset(
        clip(), **{"rate": RATE, "seconds": SAMPLES / RATE, "batch_size": 16, "views": 32, **options}
    )


def eager(student, teacher, **options) -> keras_aip.Distiller:
    distiller = keras_aip.Distiller(student, teacher, temperature=2.0, **options)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return distiller


def weights_after(student, teacher, data, **options) -> np.ndarray:
    eager(student, teacher, **options).fit(data, steps_per_epoch=1, verbose=0)
    return np.concatenate([weight.ravel() for weight in student.get_weights()])


@pytest.mark.parametrize("mixing", [Mixing("cutmix"), Mixing("mixup", on="spectrogram")])
def test_a_student_comes_nearer_to_its_teacher(mixing):
    student, teacher = network(seed=1), network("dscnn_s", seed=2)
    distiller = keras_aip.Distiller(student, teacher, temperature=1.0, mixing=mixing, masks=Masks(1))
    distiller.compile(keras.optimizers.Adam(3e-3))
    losses = distiller.fit(sounds(), epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_a_shared_front_end_runs_once_and_changes_nothing():
    data = sounds()
    shared = weights_after(network(seed=1), network(seed=2), data)
    unknown = keras_aip.Teacher(network(seed=2).call, classes=4, input_size=(SAMPLES,))  # whose front end nobody knows
    apart = weights_after(network(seed=1), unknown, data)
    np.testing.assert_allclose(shared, apart, atol=2e-5)
    assert np.abs(shared - np.concatenate([w.ravel() for w in network(seed=1).get_weights()])).max() > 1e-3


def test_mixed_waveforms_are_a_stretch_of_one_in_the_other():
    data = sounds(render="device")
    teacher = keras_aip.Teacher(network(seed=2).call, classes=4)
    distiller = eager(network(), teacher, mixing=Mixing("cutmix", 1.0, "sample"))
    distiller._draw_with(data.renderer)
    plain = np.asarray(data.renderer(next(iter(data))))
    step = next(iter(feed(data, distiller.mixing, 0, 0, tf.distribute.get_strategy())))
    shown = np.asarray(distiller._pair.shown(distiller._render(step["views"]), step["mixing"], None))
    partner, box, _ = (np.asarray(part) for part in step["mixing"])
    time = (np.arange(SAMPLES) + 0.5) / SAMPLES
    inside = (time > box[:, :1]) & (time < box[:, 2:3])
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_array_equal(shown, np.where(inside, plain[np.arange(16) + partner], plain))


def test_masks_and_mixing_of_spectrograms_are_shown_to_both():
    teacher, student = keras_aip.Teacher(network(seed=2)), network(seed=1)
    pair = Pair(teacher, student, Mixing("cutmix", 1.0, "sample", on="spectrogram"), Masks(2))
    data = sounds()
    mixing = Mixing("cutmix", 1.0, "sample", on="spectrogram")
    step = next(iter(feed(data, mixing, 0, 0, tf.distribute.get_strategy(), masks=Masks(2))))
    shown = np.asarray(pair.shown(step["views"], step["mixing"], step["masks"]))
    plain = np.asarray(pair.shown(step["views"], *feed_of_nothing(16)))
    assert shown.shape == plain.shape and 0.05 < (shown != plain).mean() < 0.95
    assert not np.allclose(pair.teacher(tf.constant(shown)), pair.teacher(tf.constant(plain)), atol=1e-3)


def feed_of_nothing(rows: int):
    from bridge.datum.mixing import mixing_numbers

    return mixing_numbers(Mixing("none"), 0, 0, rows), None


@pytest.mark.parametrize("options", [{"masks": Masks(1)}, {"mixing": Mixing("mixup", on="spectrogram")}])
def test_spectrograms_are_mixed_and_masked_only_where_they_are_the_same(options):
    other = network(front_end={**FRONT_END, "bands": 24})
    with pytest.raises(ConfigError, match="same front end"):
        keras_aip.Distiller(network(), other, **options)


def test_stored_answers_refuse_what_is_not_about_waveforms(tmp_path):
    with pytest.raises(ConfigError, match="about waveforms"):
        eager(network(), network(), masks=Masks(1)).fit(sounds(), store_teacher=tmp_path / "answers")


def test_stored_answers_teach_the_same_sounds_again(tmp_path):
    teacher = network(seed=2)
    distiller = keras_aip.Distiller(network(seed=1), teacher, temperature=1.0)
    losses = distiller.fit(sounds(), epochs=3, store_teacher=tmp_path / "answers", verbose=0).history["loss"]
    assert losses[-1] < losses[0] and any((tmp_path / "answers").iterdir())


def test_another_rate_or_length_is_refused_and_all_three_are_named():
    with pytest.raises(TeacherError, match=r"views 8000 Hz, teacher 4000 Hz, student 4000 Hz"):
        data = keras_aip.single_audio_dataset(np.tile(clip(), 3), rate=2 * RATE, seconds=0.25, batch_size=4, views=8)
        eager(network(), network()).fit(data)
    with pytest.raises(TeacherError, match=r"\[samples\]; got views \[1000\], teacher \[2000\], student \[2000\]"):
        eager(network(), network()).fit(sounds(seconds=0.25))


def test_waveforms_beyond_one_are_refused():
    loud = tf.data.Dataset.from_tensors(tf.fill([2, SAMPLES], 3.0))
    with pytest.raises(DatasetError, match=r"Views must lie in \[-1, 1\]; got values from 3 to 3"):
        eager(network(), network()).fit(loud)


def test_the_step_is_one_xla_program():
    # Where XLA's Fourier transform errs by 1e-4, the logarithm of silence comes out quite different.
    data = sounds(render="device" if XLA_TRANSFORMS else "host")
    distiller = keras_aip.Distiller(network(seed=1), network(seed=2), temperature=2.0, masks=Masks(1))
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.optimizer.build(distiller.student.trainable_variables)
    distiller._draw_with(data.renderer if XLA_TRANSFORMS else None)
    batch = next(iter(feed(data, distiller.mixing, 0, 0, tf.distribute.get_strategy(), masks=distiller.masks)))
    before = [np.array(weight) for weight in distiller.student.get_weights()]
    plain = {name: float(value) for name, value in tf.function(distiller.train_step)(batch).items()}
    after = [np.array(weight) for weight in distiller.student.get_weights()]
    distiller.student.set_weights(before)
    for metric in distiller.metrics:
        metric.reset_state() if hasattr(metric, "reset_state") else metric.reset_states()
    compiled = tf.function(distiller.train_step, jit_compile=True)(batch)
    assert float(compiled["loss"]) == pytest.approx(plain["loss"], rel=1e-3)
    for one, other in zip(after, distiller.student.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-3)


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory):
    """A teacher's folder, a clip, and labelled sounds."""
    folder = tmp_path_factory.mktemp("sounds")
    names = ("low", "high", "noise", "_silence_")
    keras_aip.save_teacher(network(seed=2), folder / "teacher", class_names=names)
    soundfile.write(folder / "clip.wav", clip(), RATE)
    generator = np.random.default_rng(0)
    waves = generator.uniform(-0.5, 0.5, (24, SAMPLES)).astype(np.float32)
    np.savez(folder / "test.npz", waveforms=waves, labels=np.arange(24) % 4, class_names=np.array(names), rate=RATE)
    return folder


def distil(folder, out, *words):
    return main(
        [
            *(
                "distill",
                "--teacher",
                str(folder / "teacher"),
                "--dataset",
                str(folder / "test.npz"),
                "--out",
                str(out),
            ),
            *("--student", "dscnn_s", "--batch-size", "16", "--views", "32", "--epochs", "2", "--deterministic"),
            *words,
        ]
    )


def test_distill_learns_from_a_sound_and_goes_on_where_it_stopped(at_hand, tmp_path, capsys):
    clip_of = ("--audio", str(at_hand / "clip.wav"))
    assert distil(at_hand, tmp_path / "whole", *clip_of, "--spec-augment", "1") == 0
    said = capsys.readouterr().out
    assert "no real sound and no label" in said and "On 24 real test sounds" in said
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["rate"] == RATE and result["n"] == 24 and result["frames"] is None
    card = json.loads((tmp_path / "whole" / "student" / "card.json").read_text())
    assert (card["kind"], card["rate"], card["input_size"]) == ("audio", RATE, [SAMPLES])
    assert card["front_end"]["bands"] == 20  # the teacher's, which is of the same kind
    assert "spectrogram" in (tmp_path / "whole" / "report.html").read_text().lower()

    # Killed in the second epoch: its state is gone, and the run goes on from the first one's.
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole", again)
    whole = (again / "student" / "weights.safetensors").read_bytes()
    (again / "result.json").unlink()
    shutil.rmtree(again / "student")
    newest = max((again / "state").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    assert distil(at_hand, again, *clip_of, "--spec-augment", "1", "--resume") == 0
    assert "Resuming at step 2 of 4" in capsys.readouterr().out
    assert (tmp_path / "again" / "student" / "weights.safetensors").read_bytes() == whole
    assert distil(at_hand, tmp_path / "again", "--audio", "control:noise", "--spec-augment", "1", "--resume") == 2


def test_evaluate_measures_sounds(at_hand, capsys):
    words = ["evaluate", "--model", str(at_hand / "teacher"), "--dataset", str(at_hand / "test.npz")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 24


@pytest.mark.parametrize(
    "words, said",
    [
        (["--image", "sklearn:china.jpg"], "takes sounds: give --audio"),
        (["--image", "sklearn:china.jpg", "--audio", "control:noise"], "learns from one of them"),
        ([], "Which image? Give --image"),
        (["--audio", "control:noise", "--image-size", "32"], "--image-size 32 is of images"),
        (["--audio", "control:noise", "--frames", "4"], "--frames 4 is of clips"),
        (["--audio", "control:noise", "--recipe", "cifar"], "recipe"),
        (["--audio", "control:noise", "--student", "wrn_16_4"], "choose a network for sounds"),
        (["--audio", "control:noise", "--student", "resnet20_mel", "--spec-augment", "1"], "same front end"),
        (["--audio", "missing.wav"], "missing.wav"),
        (["--audio", "control:noise", "--dataset", "cifar10"], "is a set of images"),
    ],
)
def test_what_does_not_go_with_sounds_is_said_in_one_message(at_hand, tmp_path, capsys, words, said):
    assert distil(at_hand, tmp_path / "run", *words) == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message


def test_sounds_are_refused_where_the_teacher_takes_images(tmp_path, capsys):
    keras_aip.save_teacher(models.build("small_cnn", classes=10), tmp_path / "teacher")
    words = [
        "distill",
        "--teacher",
        str(tmp_path / "teacher"),
        "--audio",
        "control:noise",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(words) == 2
    assert "--audio control:noise is of sounds" in capsys.readouterr().err
