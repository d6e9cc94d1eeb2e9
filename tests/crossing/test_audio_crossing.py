"""Networks for sounds in both frameworks: measured alike, and as TensorFlow Lite, in 8 bits behind the front end."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import soundfile

from bridge.audio_facts import COMMANDS
from bridge.cli import main as bridge
from bridge.errors import ConfigError, DatasetError, DatumError, TeacherError
from bridge.teachers.card import Card
from bridge.teachers.export import export
from bridge.teachers.forms import convert, front_end_beside
from bridge.teachers.options import ConvertConfig, ExportConfig
from bridge.teachers.parity import verify
from bridge.teachers.probes import Probes
from keras_aip import load_teacher, models, save_teacher
from keras_aip.export import to_onnx
from keras_aip.forms import interpreter_of, run_tflite
from keras_aip.int8_audio import parts_of, run_int8

for package in ("torch", "onnx2torch", "tf2onnx"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

import torch_aip  # noqa: E402
from torch_aip.cli import main as torch_program  # noqa: E402
from torch_aip.datasets import LabelledSounds, load_audio  # noqa: E402
from torch_aip.evaluate import evaluate, input_side, predict  # noqa: E402

RATE, SAMPLES, CLASSES = 4000, 2000, 3
NAMES = ["low", "middle", "high"]


def a_network(kind: str = "mfcc") -> keras.Model:
    """DS-CNN-S for half a second at 4 kHz, whose scores differ from sound to sound."""
    keras.utils.set_random_seed(1)
    front_end = {"kind": kind, "bands": 12}
    model = models.build("dscnn_s", classes=CLASSES, rate=RATE, samples=SAMPLES, front_end=front_end)
    layer: Any = model.get_layer("fc")
    layer.set_weights([20 * values for values in layer.get_weights()])
    return model


def sounds(count: int = 24) -> np.ndarray:
    """int16 [count, samples]: tones in noise."""
    rng, time = np.random.default_rng(0), np.arange(SAMPLES) / RATE
    hertz = np.geomspace(60, 900, count)[:, None]
    rows = 0.4 * np.sin(2 * np.pi * hertz * time) + 0.02 * rng.standard_normal((count, SAMPLES))
    return (rows * 32767).astype(np.int16)


def floats(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float32) / 32768


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its ONNX form, labelled sounds and the one clip."""
    folder = tmp_path_factory.mktemp("made")
    model = a_network()
    save_teacher(model, folder / "t", class_names=NAMES)
    convert(ConvertConfig(model=str(folder / "t"), to="onnx", views=8))
    rows = sounds()
    labels = model(floats(rows), training=False).numpy().argmax(1)
    labels[:6] = (labels[:6] + 1) % CLASSES  # so it is right on 18 of 24
    np.savez(folder / "set.npz", waveforms=rows, labels=labels, class_names=NAMES, rate=RATE)
    time = np.arange(3 * RATE) / RATE
    clip = 0.3 * np.sin(2 * np.pi * 200 * time * (1 + time / 3)) * (0.5 + 0.5 * np.sin(9 * time))
    soundfile.write(folder / "clip.wav", clip, RATE)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def test_a_network_of_keras_is_as_often_right_in_pytorch(made: Path, capsys: pytest.CaptureFixture) -> None:
    line = ["evaluate", "--model", str(made / "t"), "--dataset", str(made / "set.npz")]
    assert torch_program(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["student_top1"], found["n"], found["dataset"]) == (0.75, 24, "set")
    assert torch_program([*line, "--teacher", str(made / "t"), "--batch-size", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"] == 1 and found["kl"] == pytest.approx(0, abs=1e-6)
    ours, theirs = load_teacher(made / "t"), torch_aip.load_teacher(made / "t")
    assert ours.rate == theirs.rate == RATE and ours.input_size == theirs.input_size == (SAMPLES,)
    expected = ours(floats(sounds())).numpy()
    assert np.abs(predict(theirs, sounds()) - expected).max() < 1e-4 * np.abs(expected).max()


def test_sounds_come_from_files_as_in_keras(made: Path, tmp_path: Path) -> None:
    for name, rows in zip(NAMES, np.split(sounds(), 3)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, row in enumerate(rows):
            soundfile.write(tmp_path / "set" / name / f"{number}.wav", row, RATE)
    (tmp_path / "set" / "low" / "broken.wav").write_bytes(b"RIFF")
    teacher = torch_aip.load_teacher(made / "t")
    with pytest.warns(UserWarning, match=r"broken\.wav"):
        found = evaluate(teacher, tmp_path / "set", teacher=teacher)
    lazy = load_audio(tmp_path / "set", rate=RATE, seconds=0.5, class_names=NAMES, lazy=True)
    assert isinstance(lazy, LabelledSounds) and len(lazy.waveforms) == 25
    with pytest.warns(UserWarning, match=r"broken\.wav"):
        assert evaluate(teacher, lazy, teacher=teacher) == {**found, "dataset": lazy.name}
    assert found["n"] == 24 and found["agreement"] == 1 and input_side(teacher) is None


def test_what_does_not_fit_a_network_for_sounds_is_said(made: Path, capsys: pytest.CaptureFixture) -> None:
    line = ["evaluate", "--model", str(made / "t")]
    for more, said in (
        (["--dataset", "digits"], "digits is a set of images, and the network takes sounds"),
        (["--dataset", str(made / "set.npz"), "--clips", "3"], "takes sounds; leave it out"),
        (["--dataset", str(made / "absent")], "no evaluation set of sounds"),
    ):
        assert torch_program([*line, *more]) == 2
        assert said in capsys.readouterr().err
    teacher = torch_aip.load_teacher(made / "t")
    with pytest.raises(DatasetError, match=r"2000 samples at 8000 Hz, the model wants 2000 at 4000 Hz"):
        evaluate(teacher, LabelledSounds(sounds(), None, None, "fast", rate=8000), teacher=teacher)
    with pytest.raises(DatasetError, match="does not say at which rate"):
        evaluate(torch_aip.Teacher(lambda x: x, classes=3, input_size=(SAMPLES,)), made / "set.npz")
    image = torch_aip.models.build("small_cnn", classes=3, width=1, image_size=8)
    with pytest.raises(DatasetError, match="set of sounds"):
        evaluate(image, "speech_commands")
    with pytest.raises(DatasetError, match=r"fast holds sounds, and the model takes inputs of \[8, 8\]"):
        evaluate(image, LabelledSounds(sounds(), None, None, "fast"))


@pytest.mark.parametrize("kind", ["mfcc", "log_mel"])
def test_in_8_bits_it_begins_behind_the_front_end(kind: str, made: Path, tmp_path: Path) -> None:
    save_teacher(a_network(kind), tmp_path / "t", class_names=NAMES)
    out, whole = tmp_path / "small.tflite", tmp_path / "whole.tflite"
    options: dict[str, Any] = {"model": str(tmp_path / "t"), "audio": str(made / "clip.wav"), "views": 32}
    said = convert(ConvertConfig(to="tflite_int8", out=str(out), dataset=str(made / "set.npz"), **options))
    convert(ConvertConfig(to="tflite", out=str(whole), **options))
    assert {path.name for path in tmp_path.glob("*.tflite")} == {out.name, "small_front_end.tflite", whole.name}
    front_end = a_network(kind).get_layer("front_end")
    frames, features = front_end.front_end.frames, front_end.front_end.features
    given, gives = parts_of(out)
    assert (given.shape, gives.shape) == ((1, frames, features), (1, CLASSES)) and given.step > 0
    asked = interpreter_of(out)
    assert asked.get_input_details()[0]["dtype"] == asked.get_output_details()[0]["dtype"] == np.int8
    rows = floats(sounds())
    heard = run_tflite(front_end_beside(out))(rows)
    assert heard.shape == (24, frames, features) and np.abs(heard - front_end(rows)[..., 0]).max() < 1e-3
    expected, found = run_tflite(whole)(rows), run_int8(out)(rows)
    assert np.abs(expected - load_teacher(tmp_path / "t")(rows)).max() < 1e-3 * np.abs(expected).max()
    assert 0 < np.abs(found - expected).mean() < 0.1 * np.abs(expected).max()
    sizes = [path.stat().st_size for path in (out, front_end_beside(out), whole)]
    assert sizes[0] < 60_000 and sizes[0] + sizes[1] < sizes[2]
    text = "\n".join(said)
    assert f"{out}, {sizes[0]:,} bytes." in text and f"{front_end_beside(out)}, {sizes[1]:,} bytes" in text
    assert "Calibrated on 32 other views of" in text and "clip.wav, no data" in text
    assert f"[1, {frames}, {features}], round(feature / {given.step:.6g}) + {given.zero}" in text
    assert "Top-1 on 24 of set: " in text
    if kind == "mfcc":
        assert text.endswith("keras_safetensors 75.00%.")


def test_what_cannot_begin_behind_a_front_end_is_refused_and_leaves_nothing(copied: Path) -> None:
    config = ConvertConfig(model=str(copied / "t"), to="tflite_int8", views=8)
    front_end_beside(copied / "t_int8.tflite").write_bytes(b"mine")
    before = sorted(copied.rglob("*"))
    with pytest.raises(TeacherError, match=r"t_int8_front_end\.tflite exists"):
        convert(config)
    front_end_beside(copied / "t_int8.tflite").unlink()
    card = Card.load(copied / "t")
    dataclasses.replace(card, front_end={**(card.front_end or {}), "low": 300.0}).save(copied / "t")
    with pytest.raises(TeacherError, match=r"cannot be parted behind its front end.*answers otherwise"):
        convert(config)
    dataclasses.replace(card, front_end=None).save(copied / "t")
    with pytest.raises(TeacherError, match="describes no front end"):
        convert(config)
    card.save(copied / "t")
    with pytest.raises(ConfigError, match="measure it with `evaluate`"):
        convert(dataclasses.replace(config, to="onnx", dataset="speech_commands"))
    assert {path.name for path in before} - {path.name for path in copied.rglob("*")} == {"t_int8_front_end.tflite"}
    said = convert(config)
    assert "Calibrated on 8 other synthetic sounds" in said[1] and (copied / "t_int8.tflite").exists()


def test_views_of_a_clip_take_the_place_of_synthetic_sounds(copied: Path, capsys: pytest.CaptureFixture) -> None:
    clip, folder = str(copied / "clip.wav"), str(copied / "t")
    engines = ("onnxruntime", "keras_safetensors", "torch_onnx")
    report = verify(folder, audio=clip, views=8, batch_size=8, engines=engines)
    assert report["passed"] and report["inputs"]["views"]["source"] == "clip.wav" and not report["missing"]
    card = Card.load(folder)
    plain, views = Probes(card, views=4), Probes(card, views=4, audio=clip)
    numbers = np.arange(64, 68)
    assert views.at(numbers).shape == (4, SAMPLES) and not np.array_equal(plain.at(numbers), views.at(numbers))
    with pytest.raises(DatumError, match=r"absent\.wav"):
        Probes(card, audio=str(copied / "absent.wav"))
    with pytest.raises(TeacherError, match="takes images, not waveforms"):
        Probes(Card(classes=2, input_size=(8, 8)), audio=clip)


def test_an_exported_network_for_sounds_says_seconds_and_is_measured(
    copied: Path, capsys: pytest.CaptureFixture
) -> None:
    path, out = str(copied / "t" / "model.onnx"), str(copied / "again")
    assert bridge(["export", "--model", path, "--rate", str(RATE), "--out", out]) == 0
    assert "audio teacher, 2000 samples (0.5 s at 4,000 Hz), 3 classes" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="say at which rate"):
        export(ExportConfig(model=path, out=str(copied / "more")))
    keras.utils.set_random_seed(0)
    waveform = keras.Input((16_000,))
    model: Any = keras.Model(waveform, keras.layers.Dense(12)(waveform))
    to_onnx(model, copied / "plain.onnx")
    rows = sounds(8).repeat(8, axis=1)
    labels = model(floats(rows)).numpy().argmax(1)
    labels[:2] = (labels[:2] + 1) % 12  # right on 6 of 8
    for number, (row, label) in enumerate(zip(rows, labels)):
        for part in ("train", "val", "test"):
            folder = copied / "data" / "speech_commands" / part / COMMANDS[label]
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / f"{number}.wav", row, 16_000)
    options: dict[str, Any] = {
        "model": str(copied / "plain.onnx"),
        "dataset": "speech_commands",
        "out": str(copied / "measured"),
    }
    card = export(ExportConfig(measure=True, data_dir=str(copied / "data"), **options))
    assert (card.rate, card.class_names, card.input_size) == (16_000, COMMANDS, (16_000,))
    assert card.accuracy == {"top1": 0.75, "dataset": "speech_commands", "n": 8}


@pytest.mark.data
def test_the_published_keyword_spotter_is_as_often_right_everywhere(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights, speech = data_folder / "teachers" / "dscnn_l_weights.npz", data_folder / "speech"
    clip = data_folder / "source" / "librivox_sonnets_1-3_16k.flac"
    for path in (weights, speech, clip):
        if not path.exists():
            pytest.skip(f"{path} is not there")
    read = runpy.run_path(str(data_folder / "read_data.py"))["speech_commands"]
    audio, labels, names, _ = read(next(speech.glob("*.flac")))
    np.savez(tmp_path / "all.npz", waveforms=audio, labels=labels.astype(np.int64), class_names=names, rate=16_000)
    some = slice(None, None, 10)
    np.savez(tmp_path / "some.npz", waveforms=audio[some], labels=labels[some].astype(np.int64), class_names=names)
    model = models.build("dscnn_l", classes=12)
    with np.load(weights) as arrays:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights([arrays[f"{layer.name}/{number}"] for number in range(len(layer.weights))])
    save_teacher(model, tmp_path / "t", class_names=names)
    convert(ConvertConfig(model=str(tmp_path / "t"), to="onnx", views=8))
    assert torch_program(["evaluate", "--model", str(tmp_path / "t"), "--dataset", str(tmp_path / "all.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["student_top1"] == pytest.approx(0.9271, abs=1e-4)
    options: dict[str, Any] = {
        "to": "tflite_int8",
        "audio": str(clip),
        "views": 64,
        "dataset": str(tmp_path / "some.npz"),
    }
    said = convert(ConvertConfig(model=str(tmp_path / "t"), **options))[-1]
    small, whole = (float(part.split("%")[0].split()[-1]) for part in said.split(";"))
    assert whole > 90 and abs(small - whole) < 2.5
    assert (tmp_path / "t_int8.tflite").stat().st_size < 550_000
