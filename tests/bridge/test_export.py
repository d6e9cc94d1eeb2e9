"""Exports are whole, the same after an interruption, and never mixed up with another one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.datum.export import write_views
from bridge.datum.sources import load_source
from bridge.errors import DatumError


def render(numbers: np.ndarray) -> np.ndarray:
    """Pixels that depend on the view number alone."""
    assert numbers.dtype == np.int64
    pixels = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    return ((pixels * 7 + numbers[:, None, None, None] * 31) % 256).astype(np.uint8)


class Stop(Exception):
    """What interrupts an export in these tests."""


def stopping_after(calls: int):
    left = [calls]

    def wrapped(numbers):
        if left[0] == 0:
            raise Stop
        left[0] -= 1
        return render(numbers)

    return wrapped


def write(out, count=10, renderer=render, **options) -> int:
    options = {"manifest": {"seed": 0, "datum": "abc"}, "progress": False, "batch": 4, **options}
    return write_views(renderer, count, out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_holds_exact_pngs_a_thousand_to_a_sub_folder(tmp_path):
    assert write(tmp_path / "out", 1003, batch=500) == 1003
    names = sorted(contents(tmp_path / "out"))
    assert len(names) == 1004
    assert names[0] == "000/00000000.png" and names[-2:] == ["001/00001002.png", "manifest.json"]
    for number in (0, 12, 999, 1002):
        with Image.open(tmp_path / f"out/{number // 1000:03d}/{number:08d}.png") as image:
            assert np.array_equal(np.asarray(image), render(np.array([number]))[0])


def test_manifest_is_written_before_any_view_and_says_what_the_files_are(tmp_path):
    with pytest.raises(Stop):
        write(tmp_path / "out", renderer=stopping_after(0))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest.items() >= {"seed": 0, "datum": "abc", "count": 10, "layout": "folder", "format": "png"}.items()
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


def test_jpeg_quality_counts(tmp_path):
    write(tmp_path / "fine", image_format="jpg", quality=100)
    write(tmp_path / "coarse", image_format="jpg", quality=20)
    fine, coarse = tmp_path / "fine/000/00000003.jpg", tmp_path / "coarse/000/00000003.jpg"
    with Image.open(fine) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - render(np.array([3]))[0]).mean() < 3
    assert coarse.stat().st_size < fine.stat().st_size


@pytest.mark.parametrize("layout", ["folder", "tar"])
def test_interrupted_export_goes_on_and_ends_like_an_uninterrupted_one(tmp_path, layout):
    options = {"layout": layout, "shard_size": 6, "labels": np.arange(20) % 5, "count": 20, "batch": 4}
    write(tmp_path / "whole", **options)
    with pytest.raises(Stop):
        write(tmp_path / "out", renderer=stopping_after(3), **options)
    assert set(contents(tmp_path / "out")) < set(contents(tmp_path / "whole"))
    assert write(tmp_path / "out", **options) == {"folder": 20 - 12, "tar": 20 - 6}[layout]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert write(tmp_path / "out", renderer=stopping_after(0), **options) == 0


@pytest.mark.parametrize("layout", ["folder", "tar"])
def test_batch_size_changes_no_byte(tmp_path, layout):
    for batch in (1, 3, 100):
        write(tmp_path / str(batch), layout=layout, shard_size=4, batch=batch)
    assert contents(tmp_path / "1") == contents(tmp_path / "3") == contents(tmp_path / "100")


def test_half_written_files_are_not_taken_for_finished(tmp_path):
    write(tmp_path / "whole")
    write(tmp_path / "out")
    # What a killed process, and a power cut, may leave.
    os.replace(tmp_path / "out/000/00000004.png", tmp_path / "out/000/.00000004.png.tmp")
    (tmp_path / "out/000/00000005.png").write_bytes(b"")
    assert write(tmp_path / "out") == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_part_of_a_shard_is_not_taken_for_a_shard(tmp_path):
    write(tmp_path / "whole", layout="tar", shard_size=5)
    write(tmp_path / "out", layout="tar", shard_size=5)
    half = (tmp_path / "out/views-000001.tar").read_bytes()[:1000]
    (tmp_path / "out/.views-000001.tar.tmp").write_bytes(half)
    (tmp_path / "out/views-000001.tar").unlink()
    assert write(tmp_path / "out", layout="tar", shard_size=5) == 5
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_tar_shards_have_webdataset_keys_and_nothing_of_this_machine(tmp_path):
    labels = np.arange(10)[::-1].copy()
    assert write(tmp_path / "out", layout="tar", shard_size=4, labels=labels) == 10
    assert sorted(contents(tmp_path / "out")) == ["manifest.json"] + [f"views-00000{n}.tar" for n in range(3)]
    with tarfile.open(tmp_path / "out/views-000001.tar") as tar:
        assert tar.getnames() == [f"{n:08d}.{kind}" for n in range(4, 8) for kind in ("png", "cls")]
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in tar.getmembers())
        assert tar.extractfile("00000006.cls").read() == b"3"
        with Image.open(io.BytesIO(tar.extractfile("00000006.png").read())) as image:
            assert np.array_equal(np.asarray(image), render(np.array([6]))[0])


def test_folder_with_labels_lists_them(tmp_path):
    write(tmp_path / "out", 3, labels=np.array([2, 0, 1]))
    lines = (tmp_path / "out/labels.csv").read_text().split()
    assert lines == ["file,label", "000/00000000.png,2", "000/00000001.png,0", "000/00000002.png,1"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"manifest": {"seed": 1, "datum": "abc"}}, "seed: there 0, now 1"),
        ({"manifest": {"seed": 0}}, 'datum: there "abc", now nothing'),
        ({"count": 11}, "count: there 10, now 11"),
        ({"image_format": "jpg"}, 'format: there "png", now "jpg"; quality'),
        ({"layout": "tar"}, "layout"),
        ({"labels": np.zeros(10, int)}, "labels_sha256"),
    ],
)
def test_another_export_in_the_folder_is_refused_naming_what_differs(tmp_path, changed, named):
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DatumError, match=f"{named}.*another folder"):
        write(tmp_path / "out", **changed)
    assert contents(tmp_path / "out") == before


def test_folder_with_something_else_or_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatumError, match=r"thesis\.txt.*name another folder"):
        write(tmp_path)
    assert list(contents(tmp_path)) == ["thesis.txt"]
    write(tmp_path / "out")
    (tmp_path / "out/manifest.json").write_text('{"seed": ')
    with pytest.raises(DatumError, match=r"manifest\.json is damaged"):
        write(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"count": 0}, "count is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"layout": "zip"}, "'zip': expected one of folder, tar"),
        ({"image_format": "gif"}, "'gif': expected one of png, jpg"),
        ({"quality": 101}, "quality is 101"),
        ({"labels": np.zeros(9, int)}, r"\[9\]: expected integers of shape \[10\]"),
        ({"labels": np.zeros(10)}, "float64"),
        ({"manifest": {"count": 3}}, "keys of our own: count"),
        ({"manifest": {"image": np.zeros(3)}}, "no JSON"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(tmp_path, options, named):
    with pytest.raises(DatumError, match=named):
        write(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["folder", "tar"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda n: render(n)[:-1],
        lambda n: render(n) / 255,
        lambda n: render(n)[..., 0],
        lambda n: render(n)[:, :0],
    ],
)
def test_wrong_render_is_named_and_leaves_no_view(tmp_path, layout, wrong):
    with pytest.raises(DatumError, match=r"render gave.*expected uint8"):
        write(tmp_path / "out", renderer=wrong, layout=layout)
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


def test_out_that_is_a_file_or_under_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file/inside"):
        with pytest.raises(DatumError, match=r"cannot write .*file"):
            write(out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DatumError, match="Permission denied"):
            write(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


FULL_DISK = """
import resource, sys
import numpy as np
from bridge.datum.export import write_views
from bridge.errors import DatumError
# A limit on the size of a file fails like a full disk: in the middle of a write.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = lambda n: np.random.default_rng(0).integers(0, 256, (len(n), 100, 100, 3), dtype=np.uint8)
try:
    write_views(noise, 4, sys.argv[1], layout=sys.argv[2], manifest={}, progress=False)
except DatumError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes here")
@pytest.mark.parametrize(("layout", "name"), [("folder", "00000000.png"), ("tar", "views-000000.tar")])
def test_full_disk_is_named_and_leaves_no_half_file(tmp_path, layout, name):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "out"), layout],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert f"{name}: File too large" in done.stdout, done.stderr
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


def test_progress_goes_to_stderr_only_when_wanted(tmp_path, capsys):
    write(tmp_path / "loud", progress=True)
    shown = capsys.readouterr()
    assert "10/10" in shown.err and "views/s" in shown.err and not shown.out
    write(tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")


def test_what_was_written_reads_back_as_a_folder_of_patches(tmp_path):
    write(tmp_path / "out", 5)
    with pytest.warns(UserWarning, match=r"1 of 6 files.*manifest\.json"):
        images = load_source(tmp_path / "out", min_side=8).images
    assert np.array_equal(np.stack(images), render(np.arange(5)))
