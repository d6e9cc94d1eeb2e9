"""A network crosses to TensorFlow once; afterwards it comes from the cache, whole or not at all."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bridge.errors import TeacherError
from bridge.teachers import crossing
from bridge.teachers.crossing import converted
from tests.bridge.onnx_nets import CLASSES, a_model, numbers, saved
from tests.conftest import ROOT

if any(importlib.util.find_spec(package) is None for package in ("tensorflow", "onnx2tf")):
    pytest.skip("TensorFlow or onnx2tf is not installed", allow_module_level=True)
SAMPLES = 40
CONVERT = "import sys; from bridge.teachers.crossing import converted; print(converted(sys.argv[1]))"


@pytest.fixture(scope="module")
def audio_net(tmp_path_factory) -> Path:
    """A canonical network of waveforms."""
    steps = [
        ("Unsqueeze", ["waveform", "one"], ["u"], {}),
        ("Conv", ["u", "w"], ["c"], {"kernel_shape": [5], "strides": [3]}),
        ("Relu", ["c"], ["r"], {}),
        ("ReduceMean", ["r"], ["m"], {"axes": [2], "keepdims": 0}),
        ("Gemm", ["m", "head", "bias"], ["scores"], {}),
    ]
    constants = {
        "one": np.array([1]),
        "w": numbers(4, 1, 5),
        "head": numbers(4, CLASSES, seed=1),
        "bias": numbers(CLASSES),
    }
    model = a_model(steps, constants, taken=("batch", SAMPLES), names=("waveform", "scores"))
    return saved(model, tmp_path_factory.mktemp("audio") / "model.onnx")


@pytest.fixture(scope="module")
def made_by_two(audio_net, tmp_path_factory) -> tuple[Path, list[str], list[str]]:
    """A cache that two processes filled at once, with what they printed and what they said."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "tensorflow").mkdir()
    environment = {**os.environ, "AIP_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, str(audio_net)], env=environment, cwd=cache, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return cache, [out.strip() for out, _ in said], [error for _, error in said]


@pytest.fixture
def no_conversion(monkeypatch) -> None:
    """A conversion is an error."""

    def refuse(*_: object) -> int:
        raise RuntimeError("a conversion was begun")

    monkeypatch.setattr(crossing, "run_child", refuse)


def answers(folder: Path, waveform: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    return loaded.signatures["serving_default"](waveform=tf.constant(waveform))["scores"].numpy()


def expected(onnx_path: Path, waveform: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(str(onnx_path)).run(None, {"waveform": waveform})[0]


def test_two_processes_at_once_make_one_network_that_says_the_same(made_by_two, audio_net):
    cache, (first, second), said = made_by_two
    assert first == second
    assert sum("Converting" in text for text in said) <= 1
    entry = Path(first)
    assert entry.parent.parent == cache
    left = sorted(path.name for path in entry.parent.iterdir())
    assert left == [entry.name, f"{entry.name}.lock"]
    assert not list(entry.rglob("*.tflite")) and (entry / "saved_model.pb").is_file()
    waveform = numbers(5, SAMPLES)
    np.testing.assert_allclose(answers(entry, waveform), expected(audio_net, waveform), rtol=1e-5, atol=1e-5)


def test_the_second_time_it_comes_from_the_cache(made_by_two, audio_net, no_conversion, monkeypatch, tmp_path):
    cache, (entry, _), _ = made_by_two
    assert converted(audio_net, cache) == Path(entry)
    monkeypatch.setenv("AIP_CACHE", str(cache))
    # Found by what it holds, wherever it lies.
    assert converted(shutil.copy(audio_net, tmp_path / "other.onnx")) == Path(entry)


def test_another_network_or_other_versions_are_converted_anew(made_by_two, audio_net, no_conversion, monkeypatch):
    cache, _, _ = made_by_two
    monkeypatch.setattr(crossing, "FORMAT", crossing.FORMAT + 1)
    with pytest.raises(RuntimeError, match="was begun"):
        converted(audio_net, cache)


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no manifest", "half a manifest"])
def test_what_is_damaged_is_never_given_out(damage, made_by_two, audio_net, no_conversion, tmp_path):
    entry = tmp_path / "tensorflow" / Path(made_by_two[1][0]).name
    shutil.copytree(made_by_two[1][0], entry)
    graph, manifest = entry / "saved_model.pb", entry / "conversion.json"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "cut": lambda: graph.write_bytes(content[:100]),
        "changed": lambda: graph.write_bytes(content),
        "missing": lambda: graph.unlink(),
        "no manifest": lambda: manifest.unlink(),
        "half a manifest": lambda: manifest.write_text(manifest.read_text()[:50]),
    }[damage]()
    with pytest.raises(RuntimeError, match="was begun"):
        converted(audio_net, tmp_path)


def test_a_damaged_entry_is_made_again_and_what_a_killed_process_left_is_removed(made_by_two, audio_net, tmp_path):
    entry = tmp_path / "tensorflow" / Path(made_by_two[1][0]).name
    shutil.copytree(made_by_two[1][0], entry)
    (entry / "saved_model.pb").write_bytes(b"half of it")
    left = entry.with_name(f".{entry.name}.1-dead.tmp")
    left.mkdir()
    assert converted(audio_net, tmp_path) == entry
    assert sorted(path.name for path in entry.parent.iterdir()) == [entry.name, f"{entry.name}.lock"]
    waveform = numbers(2, SAMPLES)
    np.testing.assert_allclose(answers(entry, waveform), expected(audio_net, waveform), rtol=1e-5, atol=1e-5)


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(made_by_two, audio_net, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    ready = shutil.copytree(Path(made_by_two[1][0]).parent, tmp_path / "ready")
    monkeypatch.setattr(crossing, "_temporary_folder", None)
    monkeypatch.setattr(crossing.tempfile, "mkdtemp", lambda prefix: str(ready))
    with pytest.warns(UserWarning, match="cannot be written.*AIP_CACHE"):
        assert converted(audio_net, tmp_path / "file" / "cache").parent == ready


def cannot_cross() -> onnx.ModelProto:
    steps = [
        ("LpPool", ["images"], ["p"], {"kernel_shape": [8, 8]}),
        ("Flatten", ["p"], ["scores"], {}),
    ]
    return a_model(steps, {}, given=("batch", 3))


def test_an_operator_that_cannot_cross_is_named_with_its_node_and_where_the_log_lies(tmp_path):
    path = saved(cannot_cross(), tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match="LpPool node 'node_p'") as caught:
        converted(path, tmp_path / "cache")
    log = Path(str(caught.value).rpartition("The whole log: ")[2].rstrip("."))
    assert "LpPool" in log.read_text()
    assert not [entry for entry in log.parent.iterdir() if entry.is_dir()]


def test_a_file_replaced_while_it_was_read_is_not_kept_under_the_old_name(
    audio_net, no_conversion, tmp_path, monkeypatch
):
    from bridge.teachers import onnx_file

    path = shutil.copy(audio_net, tmp_path / "model.onnx")
    read = onnx_file.read_onnx

    def read_and_replaced(*given: Any) -> Any:
        model = read(*given)
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.producer_name = "another network"
        saved(changed, path)
        return model

    monkeypatch.setattr(onnx_file, "read_onnx", read_and_replaced)
    with pytest.raises(TeacherError, match="changed while it was read; try again"):
        converted(path, tmp_path / "cache")
    assert not [entry for entry in (tmp_path / "cache" / "tensorflow").iterdir() if entry.is_dir()]


def test_without_a_folder_that_lasts_the_end_of_the_log_is_said_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(crossing, "_temporary_folder", None)
    (tmp_path / "file").write_bytes(b"")
    path = saved(cannot_cross(), tmp_path / "model.onnx")
    with pytest.warns(UserWarning, match="cannot be written"), pytest.raises(TeacherError) as caught:
        converted(path, tmp_path / "file")
    assert "LpPool node 'node_p'" in str(caught.value) and "The end of its log:\n" in str(caught.value)
    assert str(crossing._temporary_folder) not in str(caught.value)


def test_what_is_no_network_is_refused_before_anything_is_converted(no_conversion, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(TeacherError, match=r"model\.onnx"):
        converted(tmp_path / "model.onnx", tmp_path)
    with pytest.raises(TeacherError, match="cannot be read"):
        converted(tmp_path / "absent.onnx", tmp_path)
