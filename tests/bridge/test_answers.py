"""Stored answers: what comes back, what is refused, and what survives a kill, a full disk and flipped bits."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.answers import DATA, MANIFEST, AnswerStore, order
from bridge.datum.counter import permutation
from bridge.errors import AipError, RunError, TeacherError
from tests.bridge.test_runs import full_disk
from tests.conftest import ROOT

STEPS, BATCH, CLASSES = 6, 4, 3
IDENTITY = {
    "teacher": "aaa",
    "source": "bbb",
    "recipe": {"name": "cifar", "size": 32},
    "mixing": {"kind": "cutmix", "alpha": 0.25},
    "views": 24,
    "seed": 0,
}
# Slow enough to be killed in the middle; every step's answers are known from its number.
WRITER = """
import sys, time
import numpy as np
from bridge.answers import AnswerStore
with AnswerStore.open(sys.argv[1], identity={"seed": 0}, steps=300, batch=64, classes=100) as store:
    print(store.missing.start, flush=True)
    for step in store.missing:
        store.write(step, np.full((64, 100), step, np.float32))
        if step % 3 == 2:
            store.flush()
            print(step + 1, flush=True)
        time.sleep(0.001)
"""


def opened(folder, create=True, steps=STEPS, batch=BATCH, classes=CLASSES, **changes):
    identity = {**IDENTITY, **changes}
    return AnswerStore.open(folder, identity=identity, steps=steps, batch=batch, classes=classes, create=create)


def answers_to(step, batch=BATCH, classes=CLASSES):
    return np.random.default_rng(step).normal(0, 10, (batch, classes)).astype(np.float32)


def filled(folder, steps=range(STEPS)):
    with opened(folder) as store:
        for step in steps:
            store.write(step, answers_to(step))
    return folder


def assert_holds(store, steps):
    for step in steps:
        np.testing.assert_array_equal(store.read(step), answers_to(step).astype(np.float16))


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# Answers


def test_answers_come_back_as_float16_for_every_step(tmp_path):
    folder = filled(tmp_path / "new" / "answers")
    assert (folder / DATA).stat().st_size == STEPS * BATCH * CLASSES * 2
    with opened(folder) as store:
        assert (store.steps, store.batch, store.classes, store.missing) == (STEPS, BATCH, CLASSES, range(STEPS, STEPS))
        assert_holds(store, range(STEPS))
        answers = store.read(np.int64(2))
    assert answers.dtype == np.float16 and answers.shape == (BATCH, CLASSES) and not answers.flags.writeable
    assert_holds(store, [0])  # what is there can be read after closing, too


def test_answers_are_rounded_to_the_nearest_and_the_largest_error_is_kept(tmp_path):
    given_answers = [answers_to(0).astype(np.float64) * 50, answers_to(1)]
    errors = [np.abs(a.astype(np.float16).astype(np.float64) - a).max() for a in given_answers]
    assert errors[0] > errors[1] > 0
    with opened(tmp_path) as store:
        for step, answers in enumerate(given_answers):
            store.write(step, answers)
    with opened(tmp_path) as store:
        assert store.rounding_error == errors[0]
        np.testing.assert_array_equal(store.read(0), given_answers[0].astype(np.float16))


def test_log_probabilities_down_to_the_smallest_the_losses_use_are_near_exact(tmp_path):
    with opened(tmp_path) as store:
        store.write(0, np.log(np.geomspace(1e-7, 1, BATCH * CLASSES).reshape(BATCH, CLASSES)))
        assert 0 < store.rounding_error <= 2**-7


def test_bfloat16_answers_are_stored_exactly(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    answers = answers_to(0).astype(ml_dtypes.bfloat16)
    with opened(tmp_path) as store:
        store.write(0, answers)
        assert store.rounding_error == 0
        np.testing.assert_array_equal(store.read(0).astype(np.float32), answers.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65505, -70000.0])
def test_answers_beyond_float16_are_refused_with_their_place(tmp_path, value):
    answers = answers_to(0)
    answers[2, 1] = value
    with opened(tmp_path) as store:
        with pytest.raises(TeacherError, match=r"step 0, row 2, class 1 is .*65,504"):
            store.write(0, answers)
        assert store.missing == range(STEPS)
        store.write(0, np.where(answers == answers[2, 1], 65504, 0))


def test_answers_of_another_shape_or_out_of_order_are_refused(tmp_path):
    with opened(tmp_path) as store:
        for shape in [(BATCH, CLASSES + 1), (BATCH - 1, CLASSES), (BATCH * CLASSES,)]:
            with pytest.raises(TeacherError, match=rf"expected \[{BATCH}, {CLASSES}\]"):
                store.write(0, np.zeros(shape))
        for step in (1, -1):
            with pytest.raises(RunError, match="expected step 0"):
                store.write(step, answers_to(0))
        store.write(0, answers_to(0))
        with pytest.raises(RunError, match="expected step 1"):
            store.write(0, answers_to(0))


def test_only_answered_steps_can_be_read(tmp_path):
    with opened(tmp_path) as store:
        store.write(0, answers_to(0))
        assert_holds(store, [0])
        for step in (1, -1, STEPS):
            with pytest.raises(RunError, match=f"no answers to step {step}; 1 of its 6"):
                store.read(step)


@pytest.mark.parametrize("wrong", ["steps", "batch", "classes"])
def test_a_store_of_no_size_is_refused(tmp_path, wrong):
    with pytest.raises(RunError, match=rf"{wrong} \(=0\)"):
        opened(tmp_path / "store", **{wrong: 0})
    assert not (tmp_path / "store").exists()


# Whose answers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "xyz"}, "teacher was 'aaa' and is now 'xyz'"),
        ({"mixing": {"kind": "mixup", "alpha": 0.25}}, "mixing.kind was 'cutmix' and is now 'mixup'. Choose"),
        ({"steps": 5, "seed": 1}, "seed was 0 and is now 1, steps was 6 and is now 5. Choose another folder, remove"),
        ({"classes": 4}, "classes was 3 and is now 4"),
        ({"batch": 2, "steps": 12}, "steps was 6 and is now 12, batch was 4 and is now 2"),
        ({"border": None}, "border was (not given) and is now None"),
    ],
)
def test_answers_to_something_else_are_refused_naming_every_difference(tmp_path, changes, message):
    filled(tmp_path)
    before = content(tmp_path)
    for create in (True, False):
        with pytest.raises(RunError) as error:
            opened(tmp_path, create, **changes)
        assert message in str(error.value) and str(tmp_path) in str(error.value)
    assert content(tmp_path) == before


def test_a_setting_no_longer_given_is_a_difference(tmp_path):
    opened(tmp_path, border=None).close()
    with pytest.raises(RunError, match=r"border was None and is now \(not given\)"):
        opened(tmp_path)


def test_the_same_identity_in_other_types_is_the_same(tmp_path):
    filled(tmp_path)
    same = opened(tmp_path, seed=np.uint64(0), views=24.0, mixing={"alpha": np.float64(0.25), "kind": "cutmix"})
    assert not same.missing


def test_a_foreign_folder_or_a_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    before = content(tmp_path)
    with pytest.raises(RunError, match=r"not empty \(it holds 'thesis.tex'\)"):
        opened(tmp_path)
    with pytest.raises(RunError, match="is a file; expected a folder"):
        opened(tmp_path / "thesis.tex")
    with pytest.raises(RunError, match="Cannot use"):
        opened(tmp_path / "thesis.tex" / "below")
    assert content(tmp_path) == before


def test_without_create_a_missing_store_is_an_error_and_nothing_is_made(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match="holds no stored answers"):
            opened(folder, create=False)
    assert not list(tmp_path.iterdir())


# Damage


def test_a_truncated_or_missing_data_file_is_named(tmp_path):
    path = filled(tmp_path) / DATA
    for size in (path.stat().st_size - 1, 0):
        os.truncate(path, size)
        with pytest.raises(RunError, match=rf"{DATA} has {size} bytes; expected 144"):
            opened(tmp_path)
    path.unlink()
    with pytest.raises(RunError, match="has 0 bytes; expected 144"):
        opened(tmp_path)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_flipped_bit_is_noticed_or_harmless(tmp_path_factory, data):
    answered = data.draw(st.integers(0, STEPS))
    folder = filled(tmp_path_factory.mktemp("answers"), range(answered))
    path = folder / data.draw(st.sampled_from([DATA, MANIFEST]))
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        store = opened(folder)
    except RunError:
        return
    with store:
        for step in store.missing:
            store.write(step, answers_to(step))
        assert_holds(store, range(STEPS))
    with opened(folder) as store:
        assert_holds(store, range(STEPS))


def test_a_flipped_bit_in_the_answers_is_called_damage(tmp_path):
    path = filled(tmp_path) / DATA
    damaged = bytearray(path.read_bytes())
    damaged[77] ^= 16
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"answers.f16 is damaged: its first 6 steps have CRC-32 .* remove the folder"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "answered": 1}', "\xff"])
def test_a_broken_manifest_is_named(tmp_path, text):
    (filled(tmp_path) / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"answers\.json is damaged"):
        opened(tmp_path)


def test_more_steps_answered_than_there_are_is_damage_and_another_format_says_so(tmp_path):
    path = filled(tmp_path) / MANIFEST
    manifest = json.loads(path.read_text())
    for changes, message in [({"answered": 7}, "7 of 6 steps"), ({"format": 2}, "format 2; this version reads 1")]:
        path.write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(RunError, match=message):
            opened(tmp_path)


# Going on


def test_a_store_goes_on_where_it_was_flushed_and_what_came_after_is_not_trusted(tmp_path):
    store = opened(tmp_path)
    for step in range(4):
        store.write(step, answers_to(step))
        if step == 2:
            store.flush()
    with open(tmp_path / DATA, "r+b") as file:  # what a power cut may leave of a step that was not flushed
        file.seek(3 * BATCH * CLASSES * 2)
        file.write(b"\xff" * 10)
    store._unlock()  # as a kill does, without flushing
    with opened(tmp_path) as again:
        assert again.missing == range(3, STEPS)
        for step in again.missing:
            again.write(step, answers_to(step))
    with opened(tmp_path) as complete:
        assert_holds(complete, range(STEPS))


def test_answers_are_on_the_disk_before_the_manifest_says_so(tmp_path, monkeypatch):
    events = []

    def fsync(descriptor, original=os.fsync):
        events.append(("fsync", os.fstat(descriptor).st_ino))
        original(descriptor)

    def replace(source, target, original=os.replace):
        events.append(("replace", Path(target).name))
        original(source, target)

    with opened(tmp_path) as store:
        store.write(0, answers_to(0))
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        store.flush()
        data = ("fsync", (tmp_path / DATA).stat().st_ino)
        assert events.index(data) < events.index(("replace", MANIFEST))
        events.clear()
        store.flush()
        assert not events  # nothing new, nothing to do


def test_a_store_killed_again_and_again_ends_complete(tmp_path):
    folder, safe, dice = tmp_path / "answers", 0, random.Random(0)
    shape = {"identity": {"seed": 0}, "steps": 300, "batch": 64, "classes": 100}
    for flushes in (1, 5, 2, 9, None):  # killed soon after so many, at last not at all
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            said = [int(line) for line in itertools.islice(process.stdout, flushes and 1 + flushes)]
            assert said[0] >= safe  # nothing that was said to be safe is lost
            if flushes:
                time.sleep(dice.uniform(0, 0.01))
                process.kill()
            safe = said[-1]
        with AnswerStore.open(folder, **shape, create=False) as store:
            assert store.missing.start >= safe
            assert all((store.read(step) == step).all() for step in range(store.missing.start))
    assert process.returncode == 0 and safe == 300 and not store.missing


def test_a_store_killed_while_it_was_made_is_taken_up(tmp_path):
    for leave in [(".lock",), (".lock", ".answers.json.7-abc.tmp")]:
        folder = tmp_path / str(len(leave))
        folder.mkdir()
        for name in leave:
            (folder / name).touch()
        assert sorted(path.name for path in filled(folder).iterdir()) == [".lock", DATA, MANIFEST]
    path = tmp_path / "1" / DATA
    opened(tmp_path / "3").close()
    (tmp_path / "3" / DATA).unlink()  # after the manifest, before the data
    assert filled(tmp_path / "3").joinpath(DATA).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("room", "kept"), [(10_000, 1), (30, 0)])
def test_the_error_that_ends_a_block_is_the_one_seen_and_what_was_written_is_kept_if_it_can(tmp_path, room, kept):
    store = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt), full_disk(room), store:
        store.write(0, answers_to(0))
        raise KeyboardInterrupt
    with opened(tmp_path) as store:
        assert store.missing == range(kept, STEPS)


# The disk


def test_a_store_larger_than_the_disk_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RunError, match=r"needs 2,000,000,000,000,000 more bytes; [\d,]+ are free"):
        opened(tmp_path / "a" / "b", steps=10**10, batch=100, classes=1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("room_for_the_manifest", "kept"), [(True, 3), (False, 1)])
def test_a_disk_that_fills_up_leaves_a_store_that_goes_on(tmp_path, room_for_the_manifest, kept):
    limit = full_disk(3 * BATCH * CLASSES * 2 + 5)
    with pytest.raises(RunError, match="free some disk space"), contextlib.ExitStack() as closing:
        store = opened(tmp_path)
        store.write(0, answers_to(0))
        store.flush()
        for context in [store, limit] if room_for_the_manifest else [limit, store]:
            closing.enter_context(context)
        for step in store.missing:
            store.write(step, answers_to(step))
    with opened(tmp_path) as store:
        assert store.missing == range(kept, STEPS)
        for step in store.missing:
            store.write(step, answers_to(step))
        assert_holds(store, range(STEPS))


def test_a_refused_write_can_be_repeated_and_a_refused_flush_makes_its_steps_missing_again(tmp_path):
    with opened(tmp_path) as store:
        store.write(0, answers_to(0))
        store.flush()
        with full_disk(30):
            with pytest.raises(RunError, match="Cannot use"):
                store.write(1, answers_to(1))
            assert store.missing.start == 1
        store.write(1, answers_to(1))
        with full_disk(30):
            with pytest.raises(RunError, match="What was flushed before is kept"):
                store.flush()
            assert store.missing.start == 1
        for step in store.missing:
            store.write(step, answers_to(step))
    with opened(tmp_path) as store:
        assert_holds(store, range(STEPS))


# Others


def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path):
    attempt = "import sys; from tests.bridge.test_answers import opened; opened(sys.argv[1])"
    with opened(tmp_path) as store:
        store.write(0, answers_to(0))
        with pytest.raises(RunError, match="Another process is writing"):
            opened(tmp_path)
        other = subprocess.run([sys.executable, "-c", attempt, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
        assert "RunError: Another process is writing" in other.stderr
        for step in store.missing:
            store.write(step, answers_to(step))
    assert not opened(tmp_path).missing


def test_a_store_forgotten_without_closing_lets_go(tmp_path):
    store = opened(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del store
        gc.collect()
    opened(tmp_path).close()


def test_a_reader_sees_what_was_flushed_while_another_writes(tmp_path):
    with opened(tmp_path) as writer:
        writer.write(0, answers_to(0))
        writer.flush()
        writer.write(1, answers_to(1))
        with opened(tmp_path, create=False) as reader:
            with pytest.raises(RunError, match="reading only"):
                reader.write(1, answers_to(1))
            writer.write(2, answers_to(2))
            writer.flush()
            assert reader.missing == range(1, STEPS)
            assert_holds(reader, [0])


def test_many_readers_share_a_complete_store_and_change_nothing(tmp_path):
    filled(tmp_path)
    before = content(tmp_path)
    stores = [opened(tmp_path) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(assert_holds, stores * 4, [range(STEPS)] * 12))
    with pytest.raises(RunError, match="it is complete"):
        stores[0].write(0, answers_to(0))
    for store in stores:
        store.close()
    assert content(tmp_path) == before


def test_a_closed_store_takes_no_answers(tmp_path):
    store = opened(tmp_path)
    store.close()
    store.close()
    with pytest.raises(AipError, match="closed"):
        store.write(0, answers_to(0))


# Order


def test_every_epoch_shows_every_stored_step_once_in_an_order_of_its_own():
    orders = [order(seed, epoch, 200) for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0)]]
    orders.append(permutation(0, 0, 200))  # the order of views is independent of that of steps
    for k, one in enumerate(orders):
        assert np.array_equal(np.sort(one), np.arange(200))
        assert all(np.mean(one == two) < 0.05 for two in [*orders[:k], np.arange(200)])
    assert np.array_equal(orders[0], order(0, 0, 200))
