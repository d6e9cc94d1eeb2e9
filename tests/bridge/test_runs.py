"""Run folders and their states: what survives a kill, a full disk, flipped bits, and a second process."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import RunError
from bridge.files import atomic_write, json_text, plain, sha256_file
from bridge.runs import RESULT_KEYS, FollowedRun, RunFolder, read_metrics, saved_in
from bridge.states import StateStore

CONFIG = {"steps": 600, "recipe": {"size": (8, 8), "image": Path("china.jpg")}, "rate": np.float32(0.5)}
FINGERPRINT = {"teacher": "aaa", "datum": "bbb", "recipe": "ccc", "seed": 0, "world_size": 1}
ENVIRONMENT = {"threads": 2, "numpy": "x"}
SAVER = """
import sys
import numpy as np
from bridge.states import StateStore
store = StateStore(sys.argv[1])
for step in range(1, 10_000):
    store.save(step, {"weights": np.full(300_000, step, np.float32)}, {"step": step})
    print(step, flush=True)
"""


def start(path, resume=False, **changes):
    return RunFolder.start(path, CONFIG, {**FINGERPRINT, **changes}, ENVIRONMENT, resume)


def arrays_of(seed):
    generator = np.random.default_rng(seed)
    return {"student/conv.weight": generator.normal(size=(3, 2)).astype(np.float32), "file": np.int64(seed)}


def assert_same(loaded, saved):
    assert list(loaded) == list(saved)
    for name, array in saved.items():
        assert loaded[name].dtype == np.asarray(array).dtype
        assert loaded[name].tobytes() == np.asarray(array).tobytes()
        assert loaded[name].shape == np.shape(array)


@contextlib.contextmanager
def full_disk(bytes_left):
    """Let no file grow beyond ``bytes_left``, so that writing fails in the kernel as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# Files


def test_atomic_write_replaces_a_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "card.json"
    atomic_write(path, "old")
    atomic_write(path, "né\n")
    assert path.read_bytes() == "né\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]
    assert sha256_file(path) == "9f8aa52f24100ff479a39365dc8e7f691f435006b610381220ee69b2745d2b67"


def test_atomic_write_keeps_the_old_content_when_the_disk_is_full(tmp_path):
    path = tmp_path / "card.json"
    atomic_write(path, b"old")
    with full_disk(1000), pytest.raises(OSError):
        atomic_write(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_plain_values_are_what_json_and_yaml_know():
    class Kind(enum.StrEnum):
        CUTMIX = "cutmix"

    given = {
        1: (np.float32(0.5), np.longdouble(2), float("inf")),
        "kind": Kind.CUTMIX,
        "path": Path("a/b"),
        "x": {3, 1},
    }
    expected = {"1": [0.5, 2.0, None], "kind": "cutmix", "path": "a/b", "x": [1, 3]}
    assert plain(given) == expected
    assert type(plain(given)["kind"]) is str
    assert json.loads(json_text(given)) == expected
    assert yaml.safe_load(yaml.safe_dump(plain(given))) == expected


# States


def test_state_comes_back_with_names_order_dtypes_and_meta(tmp_path):
    saved = {
        "b/weight": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "a": np.float64(0.1),
        "file": np.zeros((0, 3), np.int8),
        "header": np.array([True, False]),
        "names": np.array(["é", "long"]),
        "big": np.arange(3, dtype=">i4"),
    }
    path = StateStore(tmp_path / "state").save(600, saved, {"epoch": 3, "note": "é"})
    state = StateStore(tmp_path / "state").load()
    assert path.name == "state-00000600.npz"
    assert (state.step, state.meta) == (600, {"epoch": 3, "note": "é"})
    assert list(state.arrays) == list(saved)
    for name, array in saved.items():
        assert state.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(state.arrays[name], array)


def test_bfloat16_and_float8_survive_a_state(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    saved = {
        "half": np.array([[1.5, -0.0, np.inf]], ml_dtypes.bfloat16),
        "scalar": np.array(3, ml_dtypes.bfloat16),
        "eighth": np.array([0.5, 2], ml_dtypes.float8_e4m3fn),
    }
    store = StateStore(tmp_path)
    store.save(1, saved, {})
    assert_same(store.load().arrays, saved)


def test_no_state_loads_as_none(tmp_path):
    assert StateStore(tmp_path / "missing").load() is None


def test_only_the_newest_states_are_kept_and_leftovers_cleaned(tmp_path):
    store = StateStore(tmp_path, keep=2)
    (tmp_path / ".state-00000001.npz.77-abc.tmp").write_bytes(b"torn")
    assert store.load() is None
    for step in (5, 10, 15):
        store.save(step, arrays_of(step), {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["state-00000010.npz", "state-00000015.npz"]


def test_states_sort_by_number_beyond_eight_digits(tmp_path):
    store = StateStore(tmp_path)
    for step in (99_999_999, 100_000_000):
        store.save(step, {}, {})
    assert store.load().step == 100_000_000


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_flipped_bit_is_harmless_or_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    store = StateStore(folder)
    store.save(1, arrays_of(1), {"epoch": 1})
    path = store.save(2, arrays_of(2), {"epoch": 2})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = store.load()
    assert_same(state.arrays, arrays_of(state.step))
    assert state.meta == {"epoch": state.step}
    assert state.step == 2 or any(path.name in str(warning.message) for warning in caught)


@pytest.mark.parametrize("left", [0, 10, 0.5, 0.99])
def test_a_truncated_state_is_named_and_the_one_before_used(tmp_path, left):
    store = StateStore(tmp_path)
    store.save(1, arrays_of(1), {})
    path = store.save(2, arrays_of(2), {})
    size = path.stat().st_size
    os.truncate(path, left if left >= 1 else int(size * left))
    with pytest.warns(UserWarning, match=r"state-00000002\.npz.*step 1 instead"):
        state = store.load()
    assert_same(state.arrays, arrays_of(1))


def test_a_changed_array_with_a_valid_archive_is_noticed(tmp_path):
    store = StateStore(tmp_path)
    path = store.save(1, {"weights": np.zeros(3, np.float32)}, {})
    with np.load(path) as file:
        members = dict(file)
    members["array0"] = np.ones(3, np.float32)
    np.savez(path, **members)
    with pytest.raises(RunError, match=r"state-00000001\.npz.*SHA-256"):
        store.load()


def test_a_state_under_another_steps_name_is_noticed(tmp_path):
    store = StateStore(tmp_path)
    store.save(1, {}, {}).rename(tmp_path / "state-00000007.npz")
    with pytest.raises(RunError, match="it holds step 1"):
        store.load()


def test_pickled_objects_are_neither_saved_nor_loaded(tmp_path):
    store = StateStore(tmp_path)
    with pytest.raises(RunError, match="'bad' has dtype object"):
        store.save(1, {"bad": np.array([{}])}, {})
    np.savez(tmp_path / "state-00000001.npz", header=np.array([{}]), allow_pickle=True)
    with pytest.raises(RunError, match=r"state-00000001\.npz"):
        store.load()


def test_all_states_damaged_is_an_error_that_names_them(tmp_path):
    store = StateStore(tmp_path)
    for step in (1, 2):
        store.save(step, arrays_of(step), {}).write_bytes(b"PK\x03\x04")
    with pytest.raises(RunError, match=r"state-00000002\.npz.*state-00000001\.npz"):
        store.load()


def test_after_falling_back_the_damaged_state_of_a_later_step_does_not_push_out_a_good_one(tmp_path):
    store = StateStore(tmp_path, keep=2)
    store.save(10, arrays_of(10), {})
    store.save(20, arrays_of(20), {}).write_bytes(b"")
    with pytest.warns(UserWarning, match="step 10 instead"):
        store.load()
    store.save(15, arrays_of(15), {})
    assert store.steps() == [10, 15]


def test_a_full_disk_is_an_error_that_leaves_the_states_before(tmp_path):
    store = StateStore(tmp_path)
    for step in (1, 2):
        store.save(step, arrays_of(step), {})
    with full_disk(50_000), pytest.raises(RunError, match=r"step 3.*disk space"):
        store.save(3, {"weights": np.zeros(100_000)}, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["state-00000001.npz", "state-00000002.npz"]
    assert store.load().step == 2


def test_meta_that_is_not_json_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(RunError, match=r"step 4.*JSON"):
        StateStore(tmp_path).save(4, {}, {"teacher": object()})
    assert list(tmp_path.iterdir()) == []


def test_killing_the_saver_at_many_instants_always_leaves_a_whole_state(tmp_path):
    last_seen = 0
    for delay in (0.0, 0.003, 0.007, 0.011):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        last_seen = int(saver.stdout.readline())
        time.sleep(delay)
        saver.kill()
        rest = saver.stdout.read().split()
        saver.wait()
        saver.stdout.close()
        last_seen = int(rest[-1]) if rest else last_seen
        state = StateStore(tmp_path).load()
        assert state.step >= last_seen
        assert (state.arrays["weights"] == state.step).all()


# Run folders


def test_a_new_run_writes_what_it_was_asked_for(tmp_path):
    with start(tmp_path / "runs" / "one") as run:
        config = yaml.safe_load((run.path / "config.yaml").read_text())
        about = json.loads((run.path / "run.json").read_text())
        assert config == {"steps": 600, "recipe": {"size": [8, 8], "image": "china.jpg"}, "rate": 0.5}
        assert about["fingerprint"] == FINGERPRINT and about["environment"] == ENVIRONMENT
        assert not run.finished and run.result is None and run.load_state() is None


def test_an_existing_run_is_not_overwritten_without_resume(tmp_path):
    start(tmp_path).close()
    with pytest.raises(RunError, match="already holds a run; add --resume to continue or choose another --out"):
        start(tmp_path)


def test_a_folder_with_other_content_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not empty.*thesis\.tex"):
        start(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_run_killed_at_its_very_start_leaves_does_not_hinder_a_new_one(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.7-ab.tmp").write_text('{"form')
    with start(tmp_path) as run:
        assert run.metrics() == []
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == [".lock", "config.yaml", "run.json"]


@pytest.mark.parametrize("exists", [True, False])
def test_resume_without_a_run_says_what_was_expected(tmp_path, exists):
    path = tmp_path if exists else tmp_path / "missing"
    with pytest.raises(RunError, match=r"no run to resume.*run\.json"):
        start(path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_resume_before_the_first_state_begins_at_step_zero(tmp_path):
    with start(tmp_path) as run:
        run.log(1, {"loss": 2.0})
    with start(tmp_path, resume=True) as run:
        assert run.load_state() is None
        assert run.metrics() == []


def test_what_is_said_after_an_interrupt_is_true(tmp_path):
    assert "start again with the same line" in saved_in(tmp_path / "missing")
    with start(tmp_path / "run") as run:
        assert "no step is saved" in saved_in(run.path) and "--resume begins at step 0" in saved_in(run.path)
        run.save_state(7, {"a": np.zeros(2)})
        assert "Saved up to step 7" in saved_in(run.path)
    with start(tmp_path / "sweep") as run:
        (run.path / "runs").mkdir()
        assert "finished runs stay" in saved_in(run.path)


def test_after_an_interrupt_nobody_is_told_to_go_on_with_a_run_of_others(tmp_path, monkeypatch):
    with start(tmp_path / "run") as run:
        run.save_state(7, {"a": np.zeros(2)})
    monkeypatch.setattr("bridge.runs._BEGUN", set())  # as in another process
    said = saved_in(run.path)
    assert "Nothing was begun yet" in said and "choose another --out" in said and "step 7" not in said
    assert "Saved up to step 7" in saved_in(run.path, resume=True)
    said = saved_in(tmp_path / "missing", resume=True)  # the same line would be refused
    assert "holds no run to resume: check --out" in said and "same line" not in said
    FollowedRun(run.path)
    assert "Saved up to step 7" in saved_in(run.path)


def test_resume_refuses_a_changed_fingerprint_and_names_both_values(tmp_path):
    start(tmp_path).close()
    with pytest.raises(RunError, match="teacher was 'aaa' and is now 'xyz', world_size was 1 and is now 2"):
        start(tmp_path, resume=True, teacher="xyz", world_size=2)
    with pytest.raises(RunError, match=r"extra was \(not given\) and is now 1"):
        start(tmp_path, resume=True, extra=1)
    start(tmp_path, resume=True, world_size=1.0).close()  # the same value


def test_resume_names_what_has_changed_inside_a_setting(tmp_path):
    start(tmp_path, mixing={"kind": "cutmix", "alpha": 1.0}).close()
    with pytest.raises(RunError, match=r": mixing\.kind was 'cutmix' and is now 'mixup'\. "):
        start(tmp_path, resume=True, mixing={"alpha": 1, "kind": "mixup"})
    start(tmp_path, resume=True, mixing={"alpha": 1, "kind": "cutmix"}).close()


def test_resume_in_another_environment_warns(tmp_path):
    start(tmp_path).close()
    with pytest.warns(UserWarning, match="threads was 2 and is now 8.*last bits"):
        RunFolder.start(tmp_path, CONFIG, FINGERPRINT, {**ENVIRONMENT, "threads": 8}, resume=True).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(tmp_path, resume=True).close()


def test_loading_a_state_cuts_the_metrics_back_to_it_and_adds_up_seconds(tmp_path):
    with start(tmp_path) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 1 / step, "agreement": np.float32(0.5)})
            if step == 2:
                time.sleep(0.05)
                run.save_state(2, arrays_of(2), {"epoch": 1})
                saved_seconds = run.seconds
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    with start(tmp_path, resume=True) as run:
        state = run.load_state()
        assert_same(state.arrays, arrays_of(2))
        assert state.meta["epoch"] == 1
        assert 0.05 <= state.meta["seconds"] <= saved_seconds <= run.seconds + 0.01
        run.log(3, {"loss": float("nan")})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1]["loss"] == 0.5 and lines[2]["loss"] is None
    assert lines[2]["seconds"] >= 0.05


def test_a_torn_last_line_of_the_metrics_is_left_out_and_a_broken_one_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n\x00\x00\n{"step": 2}\n{"step": 3, "los')
    with pytest.warns(UserWarning, match="Line 2"):
        assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_result_has_every_key_in_order_and_null_for_what_has_no_meaning(tmp_path):
    with start(tmp_path) as run:
        written = run.write_result({"kl": float("nan"), "student_top1": np.float32(0.5), "per_class": np.ones(2)})
        assert run.finished
    on_disk = json.loads((tmp_path / "result.json").read_text())
    assert on_disk == written
    assert list(on_disk) == [*RESULT_KEYS, "per_class"]
    assert on_disk["student_top1"] == 0.5 and on_disk["per_class"] == [1.0, 1.0]
    assert on_disk["kl"] is None and on_disk["teacher_top5"] is None
    assert on_disk["seconds"] >= 0
    with start(tmp_path, resume=True) as run:
        assert run.finished and run.result == on_disk


def test_a_second_holder_of_the_same_run_is_refused_until_the_first_lets_go(tmp_path):
    with start(tmp_path), pytest.raises(RunError, match="Another process"):
        start(tmp_path, resume=True)
    start(tmp_path, resume=True).close()


def test_another_process_is_refused_and_a_killed_one_lets_go(tmp_path):
    hold = (
        "import sys, time; from bridge.runs import RunFolder; run = RunFolder.start(sys.argv[1], {}, {}, "
        "{}); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(RunError, match="Another process"):
            RunFolder.start(tmp_path, {}, {}, {}, resume=True)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    RunFolder.start(tmp_path, {}, {}, {}, resume=True).close()


def test_a_path_that_is_a_file_or_below_one_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file is a file; expected a folder"):
        start(tmp_path / "file")
    with pytest.raises(RunError, match="Cannot use"):
        start(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_an_unwritable_path_is_named():
    with pytest.raises(RunError, match="Cannot use /proc/run"):
        start("/proc/run")


def test_a_full_disk_is_an_error_wherever_the_run_writes(tmp_path):
    with start(tmp_path) as run:
        run.log(1, {"loss": 1.0})
        with full_disk(0):
            with pytest.raises(RunError, match=r"metrics\.jsonl"):
                run.log(2, {"loss": 1.0})
            with pytest.raises(RunError, match="result"):
                run.write_result({})
            with pytest.raises(RunError, match="Cannot rewrite"):
                run.rewind(1)
        assert [line["step"] for line in run.metrics()] == [1]
        assert not run.finished


def test_a_broken_run_json_is_named(tmp_path):
    start(tmp_path).close()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        start(tmp_path, resume=True)
