"""A teacher folder's card: what it accepts, refuses and names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from bridge.errors import TeacherError
from bridge.teachers import Card, refuse_code
from bridge.teachers.card import replacing_folder

HASH = "0" * 64
ROOT = Path(__file__).resolve().parents[2]


def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"some weights")
    card = Card(
        classes=2,
        input_size=(32, 32),
        architecture="small_cnn",
        arguments={"classes": 2, "width": 4},
        class_names=("cat", "dog"),
        accuracy={"top1": 0.9, "dataset": "pets", "n": 100},
        forms={"safetensors": "weights.safetensors"},
        licence="MIT",
    )
    card.sealed(folder).save(folder)
    return folder


def with_onnx(card: Card) -> Card:
    forms = {**card.forms, "onnx": "model.onnx"}
    return dataclasses.replace(card, forms=forms, files={**card.files, "model.onnx": HASH})


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**content, **changes}))


def test_a_card_read_back_equals_the_one_written(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    card = Card.load(folder)
    card.save(folder)
    assert Card.load(folder) == card
    assert card.class_names == ("cat", "dog")
    assert list(folder.iterdir()) != [] and not list(folder.glob(".*"))


def test_a_changed_file_is_refused_naming_both_hashes(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    said = Card.load(folder).files["weights.safetensors"]
    (folder / "weights.safetensors").write_bytes(b"other weights")
    with pytest.raises(TeacherError, match=said) as caught:
        Card.load(folder)
    found = Card.load(folder, verify=False).sealed(folder).files["weights.safetensors"]
    assert found != said and found in str(caught.value)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="does not exist"):
        Card.load(tmp_path / "nowhere")
    with pytest.raises(TeacherError, match=r"no card\.json"):
        Card.load(tmp_path)
    folder = a_folder(tmp_path)
    with pytest.raises(TeacherError, match="not a folder"):
        Card.load(folder / "card.json")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"weights\.safetensors is missing"):
        Card.load(folder)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "\x00", "null", "[]"])
def test_a_broken_card_is_a_clear_error(tmp_path: Path, text: str) -> None:
    folder = a_folder(tmp_path)
    (folder / "card.json").write_text(text)
    with pytest.raises(TeacherError, match=r"card\.json"):
        Card.load(folder)


def test_a_huge_card_is_not_read(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / "card.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(TeacherError, match="bytes"):
        Card.load(folder)


@pytest.mark.parametrize("version", [2, "1", None])
def test_another_schema_version_is_refused_before_anything_else(tmp_path: Path, version: object) -> None:
    folder = a_folder(tmp_path)
    edit(folder, schema_version=version, something_new=1)
    with pytest.raises(TeacherError, match="schema version"):
        Card.load(folder)


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    edit(folder, license="MIT")
    with pytest.raises(TeacherError, match=r"'license'.*'licence'"):
        Card.load(folder)


@pytest.mark.parametrize("name", ["../weights", "/etc/passwd", "a/b", "..", "a\\b", "C:x"])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = a_folder(tmp_path)
    edit(folder, forms={"safetensors": name}, files={name: HASH})
    with pytest.raises(TeacherError, match="outside"):
        Card.load(folder)


@pytest.mark.parametrize("form", ["safetensors", "keras", "onnx"])
@pytest.mark.parametrize("name", ["model.bin", "model.keras", "weights.safetensors", "model.onnx"])
def test_every_form_has_the_one_name_it_is_checked_as(tmp_path: Path, form: str, name: str) -> None:
    folder = a_folder(tmp_path)
    expected = {"safetensors": "weights.safetensors", "keras": "model.keras", "onnx": "model.onnx"}[form]
    edit(folder, forms={form: name}, files={name: HASH})
    if name == expected:
        assert Card.load(folder, verify=False).forms == {form: name}
        return
    with pytest.raises(TeacherError, match=rf"forms of the card names '{name}' for {form}; expected '{expected}'"):
        Card.load(folder, verify=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", 0),
        ("classes", "ten"),
        ("classes", True),
        ("input_size", [32]),
        ("input_size", [32, -1]),
        ("class_names", ["cat"]),
        ("class_names", "ab"),
        ("range", [-1, 1]),
        ("channel_order", "BGR"),
        ("layout", "CHWN"),
        ("outputs", "logit"),
        ("std", [0.5, 0.5, 0.5]),
        ("accuracy", {"top1": 91.7}),
        ("accuracy", 0.9),
        ("parameters", -1),
        ("arguments", {"classes": 3}),
        ("forms", {"pickle": "weights.pt"}),
        ("forms", {"safetensors": "other.safetensors"}),
        ("forms", []),
        ("files", {"weights.safetensors": "abc"}),
        ("architecture", 5),
        ("licence", None),
    ],
)
def test_a_senseless_value_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder = a_folder(tmp_path)
    edit(folder, **{key: value})
    with pytest.raises(TeacherError, match=key):
        Card.load(folder, verify=False)


def test_the_digest_follows_files_and_architecture_only(tmp_path: Path) -> None:
    card = Card.load(a_folder(tmp_path))
    assert dataclasses.replace(card, source="elsewhere", licence="").digest == card.digest
    assert dataclasses.replace(card, architecture="vgg11").digest != card.digest
    assert dataclasses.replace(card, files={"weights.safetensors": HASH}).digest != card.digest
    assert dataclasses.replace(card, arguments={"classes": 2, "mean": [0, 0, 0]}).digest != card.digest


def test_another_form_changes_the_mark_of_a_folder_and_not_the_digest_of_its_network(tmp_path: Path) -> None:
    card = Card.load(a_folder(tmp_path))
    both = with_onnx(card)
    assert both.digest == card.digest and both.mark != card.mark
    other = dataclasses.replace(both, files={**both.files, "model.onnx": "1" * 64})
    assert other.digest == card.digest and other.mark != both.mark
    assert dataclasses.replace(both, files={**both.files, "weights.safetensors": HASH}).digest != card.digest
    alone = dataclasses.replace(both, forms={"onnx": "model.onnx"})
    assert alone.digest != both.digest
    keras = {"forms": {"keras": "model.keras", "onnx": "model.onnx"}, "files": {"model.keras": "2" * 64, **both.files}}
    assert dataclasses.replace(card, **keras).digest not in (both.digest, alone.digest)
    assert dataclasses.replace(both, source="elsewhere").mark == both.mark


def test_the_digest_of_a_folder_with_one_form_stays_what_runs_recorded(tmp_path: Path) -> None:
    card = Card.load(a_folder(tmp_path))
    parts = {
        "architecture": "small_cnn",
        "arguments": {"classes": 2, "width": 4},
        "outputs": "logits",
        "mean": None,
        "std": None,
        "files": [card.files["weights.safetensors"]],
    }
    assert card.digest == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def test_the_digest_of_an_audio_network_follows_its_front_end(tmp_path: Path) -> None:
    card = Card.load(a_folder(tmp_path))
    audio = dataclasses.replace(card, kind="audio", input_size=(100,), rate=16000, range=(-1, 1))
    mfcc = dataclasses.replace(audio, front_end={"kind": "mfcc"})
    assert len({card.digest, audio.digest, mfcc.digest}) == 3


def test_a_folder_being_replaced_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    before = (folder / "card.json").read_bytes()
    with pytest.raises(RuntimeError), replacing_folder(folder) as beside:
        (beside / "card.json").write_text("half")
        raise RuntimeError
    assert (folder / "card.json").read_bytes() == before
    with replacing_folder(folder) as beside:
        (beside / "card.json").write_text("new")
    assert (folder / "card.json").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["teacher"]


WRITES_TEACHERS = """
import itertools, sys
from bridge.teachers import Card
from bridge.teachers.card import replacing_folder
for n in itertools.count():
    with replacing_folder(f"{sys.argv[1]}/teacher{n}") as beside:
        (beside / "model.keras").write_bytes(bytes(1 << 20))
        Card(classes=2, input_size=None, forms={"keras": "model.keras"}).sealed(beside).save(beside)
    print(n, flush=True)
"""


def test_a_kill_while_writing_leaves_whole_folders_only(tmp_path: Path) -> None:
    for attempt in range(4):
        shelf = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_TEACHERS, str(shelf)], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.0013 * attempt)
            process.kill()
        written = [folder for folder in shelf.iterdir() if not folder.name.startswith(".")]
        assert written
        for folder in written:
            assert Card.load(folder).classes == 2


WRITES_FOR_EVER = """
import sys, time
from bridge.teachers.card import replacing_folder
with replacing_folder(sys.argv[1]) as beside:
    (beside / "model.keras").write_bytes(bytes(1000))
    print(beside, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    line = [sys.executable, "-c", WRITES_FOR_EVER, str(folder)]
    with (
        subprocess.Popen(line, stdout=subprocess.PIPE, cwd=ROOT, text=True) as killed,
        subprocess.Popen(line, stdout=subprocess.PIPE, cwd=ROOT, text=True) as living,
    ):
        assert killed.stdout is not None and living.stdout is not None
        left, written = (Path(told.readline().strip()) for told in (killed.stdout, living.stdout))
        killed.kill()
        killed.wait()
        neighbour = left.with_name(left.name.replace(".teacher.", ".teacher.b."))  # of another folder
        neighbour.mkdir()
        with replacing_folder(folder) as beside:
            assert left != written and not left.exists() and (written / "model.keras").exists() and neighbour.exists()
            (beside / "card.json").write_text("new")
        assert (written / "model.keras").exists()
        living.kill()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["teacher", written.name, neighbour.name])


def test_an_old_folder_that_stepped_aside_for_nothing_is_kept(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    aside = tmp_path / f".teacher.{ended.pid}-0123abcd.old"
    a_folder(tmp_path).rename(aside)
    with replacing_folder(tmp_path / "teacher") as beside:
        (beside / "card.json").write_text("new")
    assert (aside / "card.json").exists()
    with replacing_folder(tmp_path / "teacher") as beside:
        (beside / "card.json").write_text("newer")
    assert [entry.name for entry in tmp_path.iterdir()] == ["teacher"]


def test_a_leftover_of_ours_inside_a_folder_does_not_keep_it_from_being_replaced(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / f".card.json.{os.getpid()}-0123abcd.tmp").write_text("half")
    with replacing_folder(folder) as beside:
        (beside / "card.json").write_text("new")
    assert [entry.name for entry in folder.iterdir()] == ["card.json"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(TeacherError, match=r"notes\.txt"), replacing_folder(folder):
        pass
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(TeacherError, match="not a folder"), replacing_folder(folder / "notes.txt"):
        pass


def keras_file(path: Path, *entries: object) -> Path:
    layers = [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}, *entries]
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return path


def test_a_file_that_only_describes_layers_passes(tmp_path: Path) -> None:
    relu = {"module": "keras.activations", "class_name": "function", "config": "relu"}
    custom = {"module": "mine.layers", "class_name": "Scale", "registered_name": "mine>Scale", "config": {}}
    engine = {"module": "keras.src.engine.functional", "class_name": "Functional", "config": {}}
    addition = {"class_name": "TFOpLambda", "module": "keras.layers", "config": {"function": "math.add"}}
    path = keras_file(tmp_path / "a.keras", relu, custom, engine, addition)
    refuse_code(path, allowed_modules={"mine.layers"})
    with pytest.raises(TeacherError, match="mine"):
        refuse_code(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"class_name": "mine>Lambda", "config": {}},
        {
            "module": "keras.layers",
            "class_name": "TimeDistributed",
            "config": {"layer": {"class_name": "Lambda"}},
        },
        {"config": {"activation": [{"class_name": "__lambda__", "config": {"value": "4wEA"}}]}},
        {"module": "os", "class_name": "function", "config": "system"},
        {"module": "builtins", "class_name": "function", "config": "eval"},
        {"module": "builtins", "class_name": "exec", "config": {}},
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        {"module": "keras.models", "class_name": "load_model", "config": {}},
        {"module": "keras.models", "class_name": "function", "config": "load_model"},
        {"module": "keras", "class_name": "function", "config": "anything"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}},
        {"class_name": "TFOpLambda", "config": {"function": "io.write_file"}},
        {"class_name": "TFOpLambda", "config": {"function": "compat.v1.py_function"}},
    ],
)
def test_a_description_that_would_run_code_is_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(TeacherError, match="refused"):
        refuse_code(keras_file(tmp_path / "a.keras", entry))


def test_damaged_keras_files_are_clear_errors(tmp_path: Path) -> None:
    whole = keras_file(tmp_path / "a.keras").read_bytes()
    path = tmp_path / "b.keras"
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(TeacherError, match="readable"):
            refuse_code(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(TeacherError, match=r"no config\.json"):
        refuse_code(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    with pytest.raises(TeacherError, match="JSON"):
        refuse_code(path)
    with pytest.raises(TeacherError, match="not a file"):
        refuse_code(tmp_path / "nowhere.keras")
    (tmp_path / "c.h5").write_bytes(b"not hdf5")
    with pytest.raises(TeacherError, match="readable"):
        refuse_code(tmp_path / "c.h5")
