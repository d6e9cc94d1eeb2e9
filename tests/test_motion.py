"""The motion task: no frame of it tells its class, and its story runs from the videos to the table."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.conftest import ROOT

pytest.importorskip("torch")
pytest.importorskip("av")


@pytest.fixture(scope="module")
def motion():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import motion
    finally:
        sys.path.remove(str(ROOT / "examples"))
    return motion


@pytest.fixture(scope="module")
def movies(motion) -> np.ndarray:
    """float64 [classes, 30, (first frame, two in the middle, last one), side, side, 3]."""
    drawn = [[motion.movie(label, np.random.default_rng([11, label, n])) for n in range(30)] for label in range(6)]
    return np.array(drawn)[:, :, [0, 7, 8, -1]].astype(float)


def features(frames: np.ndarray) -> np.ndarray:
    """What may be told of single frames [..., side, side, 3]: level and spread of each colour, and how coarse it is."""
    level, spread = frames.mean((-3, -2)), frames.std((-3, -2))
    grey = frames.mean(-1) - frames.mean((-3, -2, -1))[..., None, None]
    power = np.abs(np.fft.rfft2(grey)) ** 2
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(grey.shape[-1]), np.fft.rfftfreq(grey.shape[-1]), indexing="ij"))
    bands = [power[..., (waves >= low) & (waves < 2 * low)].sum(-1) for low in (0.0125, 0.025, 0.05, 0.1)]
    shares = np.stack(bands, -1) / power.sum((-2, -1))[..., None]
    return np.concatenate([level, spread, shares], -1)


def test_single_frames_have_the_same_distribution_in_all_classes(movies) -> None:
    from scipy.stats import kruskal

    for frame in (0, -1):
        told = features(movies[:, :, frame])  # [classes, 30, features]
        least = min(kruskal(*feature).pvalue for feature in np.moveaxis(told, -1, 0))
        assert least > 0.01, frame  # the least of ten
        brighter = told + 10 * np.arange(6)[:, None, None]  # and the test can tell: by 10 grey levels per class
        assert kruskal(*brighter[..., 0]).pvalue < 0.001


def test_a_classifier_of_single_frames_is_no_better_than_chance(movies) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_score

    labels = np.repeat(np.arange(6), 30)
    for frame in (0, -1):
        told = features(movies[:, :, frame]).reshape(180, -1)
        assert cross_val_score(LinearDiscriminantAnalysis(), told, labels, cv=8).mean() < 1 / 6 + 0.08


def shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how many pixels down and to the right a frame has moved (Lucas & Kanade 1981, of the whole frame)."""
    before, after = before.mean(-1), after.mean(-1)
    mean = (before + after) / 2
    down, right, later = np.gradient(mean, axis=0).ravel(), np.gradient(mean, axis=1).ravel(), (after - before).ravel()
    return -np.linalg.lstsq(np.stack([down, right], 1), later, rcond=None)[0]


def test_classes_move_as_they_are_called(motion, movies) -> None:
    for label, (axis, sign) in enumerate(((1, -1), (1, 1), (0, -1), (0, 1))):
        moved = np.array([shift(movie[1], movie[2]) for movie in movies[label]])
        assert (sign * moved[:, axis] > 0.2).mean() > 0.95, motion.CLASSES[label]
        assert np.abs(moved[:, 1 - axis]).mean() < 0.2
    side = motion.SIZE // 2
    for label, sign in ((4, 1), (5, -1)):
        parts = [(movie[k, :, :side], movie[k, :, side:]) for movie in movies[label] for k in (1, 2)]
        apart = [
            shift(one[1], two[1])[1] - shift(one[0], two[0])[1] for one, two in zip(parts[::2], parts[1::2])
        ]  # how the halves move away from each other
        assert (sign * np.array(apart) > 0).mean() > 0.9, motion.CLASSES[label]


def test_the_parts_share_no_texture(motion) -> None:
    test, train = (motion.movie(0, np.random.default_rng([part, 0, 0])) for part in (1, 0))
    assert np.abs(test.astype(int) - train).mean() > 5


def test_the_story_runs(motion, tmp_path, monkeypatch, capsys) -> None:
    line = "motion.py --videos 4 --image-size 32 --teacher-epochs 1 --epochs 1 --steps 2 --batch-size 8 --threads 1"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--out", str(tmp_path)])
    motion.main()
    table = capsys.readouterr().out.split("seen in training")[1]
    assert "right of 12" in table and "china.jpg, moving" in table and "china.jpg, standing still" in table
    assert len(list(tmp_path.glob("videos/*/*/*.mp4"))) == 36 and (tmp_path / "none" / "student" / "card.json").exists()
