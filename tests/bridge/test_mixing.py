"""Mixing as numbers: from seed and step alone, distributed as CutMix and MixUp are, within blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bridge.datum.mixing import KINDS, Mixing, MixingNumbers, beta_quantile, mixing_numbers
from bridge.datum.preview import mix, previews, to_bytes
from bridge.datum.recipes import recipe
from bridge.datum.render import render
from bridge.datum.views import ViewSet
from bridge.errors import RecipeError

ALPHAS = (0.25, 1.0, 5.0)


def noise(batch: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((batch, height, width, channels), dtype=np.float32)


def equal(a: MixingNumbers, b: MixingNumbers) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b))


def share(alpha: float, steps: int, seed: int = 0) -> np.ndarray:
    """1 − λ of many steps, which MixUp shows openly: float32 [steps]."""
    mixing = Mixing("mixup", alpha)
    return np.array([mixing_numbers(mixing, seed, step, 1).weight[0] for step in range(steps)])


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_step_give_the_numbers_whatever_was_drawn_before(kind, per):
    mixing = Mixing(kind, 0.25, per)
    first = mixing_numbers(mixing, 5, 7, 32)
    for step in (3, 123_456, 0):
        mixing_numbers(mixing, 6, step, 48)
    assert equal(first, mixing_numbers(mixing, 5, 7, 32))
    assert [array.dtype for array in first] == [np.int32, np.float32, np.float32]
    assert [array.shape for array in first] == [(32,), (32, 4), (32,)]


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_every_step_and_every_seed_has_its_own_numbers(kind, per):
    mixing = Mixing(kind, 1.0, per)
    drawn = [mixing_numbers(mixing, seed, step, 32) for seed, step in [(0, 0), (0, 1), (1, 0), (0, 2**31), (2**40, 0)]]
    for k, one in enumerate(drawn):
        for other in drawn[:k]:
            assert not np.array_equal(one.partner, other.partner)
            changed = one.box != other.box if kind == "cutmix" else one.weight != other.weight
            assert changed.mean() > 0.9 if kind == "mixup" else changed.any(axis=1).mean() > 0.9


def test_no_row_of_any_step_repeats_the_numbers_of_another():
    weights = [mixing_numbers(Mixing("mixup", 1.0, "sample"), 0, step, 64).weight for step in range(50)]
    assert len(np.unique(weights)) == 50 * 64


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_table_of_quantiles_is_the_beta_distribution(alpha):
    u = (np.arange(20_000) + 0.5) / 20_000
    assert stats.kstest(beta_quantile(u, alpha), stats.beta(alpha, alpha).cdf).statistic < 1e-3
    rough = beta_quantile(np.random.default_rng(0).random(20_000), alpha)
    assert stats.kstest(rough, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", ALPHAS)
def test_lambda_follows_beta_from_step_to_step(alpha):
    shares = share(alpha, 4000)
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_lambda_per_sample_follows_beta_from_row_to_row():
    weights = mixing_numbers(Mixing("mixup", 0.25, "sample"), 0, 0, 20_000).weight
    assert weights.mean() == pytest.approx(0.5, abs=0.015)
    assert stats.kstest(weights, stats.beta(0.25, 0.25).cdf).pvalue > 1e-3


def test_the_box_covers_one_minus_lambda_before_it_is_cut_off_at_the_border():
    """MixUp of the same seed and step shows λ; boxes that touch no border, or two opposite ones, show their side."""
    boxes = mixing_numbers(Mixing("cutmix", 1.0, "sample"), 3, 4, 20_000).box.astype(np.float64)
    shares = mixing_numbers(Mixing("mixup", 1.0, "sample"), 3, 4, 20_000).weight.astype(np.float64)
    lengths = boxes[:, 2:] - boxes[:, :2]
    whole = (boxes[:, :2] > 0) & (boxes[:, 2:] < 1)
    for axis in (0, 1):
        assert np.allclose(lengths[whole[:, axis], axis] ** 2, shares[whole[:, axis]], atol=1e-5)
        assert (lengths[~whole[:, axis], axis] ** 2 <= shares[~whole[:, axis]] + 1e-5).all()
    untouched = whole.all(axis=1)
    assert untouched.sum() > 1000
    assert np.allclose(lengths[untouched].prod(axis=1), shares[untouched], atol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_boxes_lie_in_the_image_and_their_centres_anywhere_in_it(alpha):
    """Against boxes drawn another way: the same areas after cutting off, and the same chance for every pixel."""
    boxes = mixing_numbers(Mixing("cutmix", alpha, "sample"), 0, 0, 20_000).box
    assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[:, 2:] >= boxes[:, :2]).all()
    generator = np.random.default_rng(1)
    half = np.sqrt(generator.beta(alpha, alpha, (20_000, 1))) / 2
    centres = generator.random((20_000, 2))
    drawn = np.clip(np.concatenate([centres - half, centres + half], axis=1), 0, 1)
    for edge in range(4):
        assert stats.ks_2samp(boxes[:, edge], drawn[:, edge]).pvalue > 1e-3
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, drawn)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3
    for x, y in ((0.5, 0.5), (0.03, 0.5), (0.97, 0.03)):
        hit = [((b[:, 0] < x) & (x < b[:, 2]) & (b[:, 1] < y) & (y < b[:, 3])).mean() for b in (boxes, drawn)]
        assert hit[0] == pytest.approx(hit[1], abs=0.02)


def test_a_batch_shares_one_box_or_every_sample_has_its_own():
    for kind, field in (("cutmix", "box"), ("mixup", "weight")):
        shared = getattr(mixing_numbers(Mixing(kind, 1.0, "batch"), 0, 0, 64), field)
        assert (shared == shared[0]).all()
        own = getattr(mixing_numbers(Mixing(kind, 1.0, "sample"), 0, 0, 64), field)
        assert len(np.unique(own, axis=0)) == 64


def test_partners_differ_even_where_the_box_is_shared():
    partner = mixing_numbers(Mixing("cutmix", per="batch", block=16), 0, 0, 64).partner + np.arange(64)
    inside = partner.reshape(4, 16) - 16 * np.arange(4)[:, None]
    assert not (inside == inside[0]).all()


@pytest.mark.parametrize(("block", "batch"), [(2, 8), (4, 16), (16, 64), (16, 40), (64, 10)])
def test_partners_are_an_order_of_the_rows_within_each_block(block, batch):
    mixing = Mixing(block=block)
    moved = 0
    for step in range(50):
        partner = mixing_numbers(mixing, 0, step, batch).partner + np.arange(batch)
        assert np.array_equal(np.sort(partner), np.arange(batch))
        assert np.array_equal(partner // block, np.arange(batch) // block)
        moved += (partner != np.arange(batch)).sum()
    length = min(block, batch)
    assert moved / (50 * batch) == pytest.approx(1 - 1 / length, abs=0.1)  # a random order keeps one row in place


def test_every_row_of_a_block_is_anyones_partner():
    mixing = Mixing(block=4)
    seen = {(row, row + mixing_numbers(mixing, 0, step, 4).partner[row]) for step in range(200) for row in range(4)}
    assert len(seen) == 16


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_mixing_the_shares_of_two_devices_is_mixing_the_whole(kind, per):
    images = noise(16)
    for step in range(4):
        numbers = mixing_numbers(Mixing(kind, 1.0, per, block=4), 0, step, 16)
        shares = [mix(images[rows], MixingNumbers(*(a[rows] for a in numbers))) for rows in (slice(8), slice(8, 16))]
        assert np.array_equal(np.concatenate(shares), mix(images, numbers))


def test_both_tosses_a_fair_coin_between_the_two():
    numbers = mixing_numbers(Mixing("both", 1.0, "sample"), 0, 0, 4000)
    boxed, faded = (numbers.box[:, 2:] > numbers.box[:, :2]).all(axis=1), numbers.weight > 0
    assert (boxed ^ faded).all()
    assert boxed.mean() == pytest.approx(0.5, abs=0.03)
    tosses = [mixing_numbers(Mixing("both", 1.0, "batch"), 0, step, 8).weight for step in range(200)]
    assert all((toss > 0).all() or (toss == 0).all() for toss in tosses)
    assert np.mean([toss[0] > 0 for toss in tosses]) == pytest.approx(0.5, abs=0.12)


def test_the_coin_does_not_decide_how_much_is_mixed():
    numbers = mixing_numbers(Mixing("both", 1.0, "sample"), 0, 0, 20_000)
    faded = numbers.weight[numbers.weight > 0]
    assert stats.kstest(faded, "uniform").pvalue > 1e-3


def test_none_leaves_every_pixel_as_it_is():
    images = noise(32)
    for step in range(3):
        assert np.array_equal(mix(images, mixing_numbers(Mixing("none"), 0, step, 32)), images)


def test_cutmix_never_fades_and_mixup_never_cuts():
    assert (mixing_numbers(Mixing("cutmix", 1.0, "sample"), 0, 0, 64).weight == 0).all()
    boxes = mixing_numbers(Mixing("mixup", 1.0, "sample"), 0, 0, 64).box
    assert (boxes[:, :2] == boxes[:, 2:]).all()


def test_mixup_is_the_weighted_mean_with_the_partner():
    images = noise(8)
    numbers = mixing_numbers(Mixing("mixup", 1.0, "sample", block=8), 0, 0, 8)
    mixed = mix(images, numbers)
    for row in range(8):
        weight, partner = float(numbers.weight[row]), images[row + numbers.partner[row]]
        assert np.allclose(mixed[row], (1 - weight) * images[row] + weight * partner, atol=1e-6)


def test_cutmix_shows_the_partner_where_a_pixels_centre_lies_in_the_box():
    """Height is not width here, so that rows and columns cannot stand for each other."""
    images = noise(4, height=6, width=10)
    numbers = mixing_numbers(Mixing("cutmix", 1.0, "sample", block=4), 1, 0, 4)
    mixed = mix(images, numbers)
    pasted = 0
    for row in range(4):
        left, top, right, bottom = numbers.box[row]
        for y in range(6):
            for x in range(10):
                inside = left < (x + 0.5) / 10 < right and top < (y + 0.5) / 6 < bottom
                pasted += inside
                source = row + numbers.partner[row] if inside else row
                assert np.array_equal(mixed[row, y, x], images[source, y, x])
    assert 0 < pasted < 240


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ((0.25, 0.0, 0.75, 1.0), slice(2, 6), slice(0, 8)),
        ((0.0, 0.5, 0.125, 0.625), slice(0, 1), slice(4, 5)),
        ((0.0, 0.0, 1.0, 1.0), slice(0, 8), slice(0, 8)),
        ((0.3, 0.3, 0.3, 0.3), slice(0, 0), slice(0, 0)),
        ((0.07, 0.0, 0.18, 1.0), slice(1, 1), slice(0, 8)),  # between two centres: nothing
        ((0.0625, 0.0, 0.1875, 1.0), slice(1, 1), slice(0, 8)),  # a centre right on the edge lies outside
    ],
)
def test_the_edges_of_the_box(box, columns, rows):
    images = np.stack([np.zeros((8, 8, 3)), np.ones((8, 8, 3))]).astype(np.float32)
    numbers = MixingNumbers(
        np.array([1, -1], np.int32), np.tile(np.float32(box), (2, 1)), np.zeros(2, dtype=np.float32)
    )
    expected = np.zeros((8, 8, 3), np.float32)
    expected[rows, columns] = 1
    assert np.array_equal(mix(images, numbers)[0], expected)
    assert np.array_equal(mix(images, numbers)[1], 1 - expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cutmixx"}, "'cutmixx'.*cutmix"),
        ({"per": "row"}, "'row'.*'batch' or 'sample'"),
        ({"alpha": 0.0}, "alpha .*0"),
        ({"alpha": float("nan")}, "alpha .*nan"),
        ({"alpha": -1.0}, "alpha .*-1"),
        ({"block": 1}, "block .*1"),
    ],
)
def test_a_mixing_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(RecipeError, match=message):
        Mixing(**arguments)


def test_previews_show_the_first_step_of_a_run():
    views = ViewSet("control:noise", recipe("cifar", 8), views=16, seed=3)
    mixing = Mixing("both", 1.0, "sample", block=4)
    base, augmented, mixed = previews(views, mixing, 8).values()
    shown = render(views, np.arange(8))
    assert np.array_equal(augmented, to_bytes(shown))
    assert np.array_equal(mixed, to_bytes(mix(shown, mixing_numbers(mixing, 3, 0, 8))))
    assert base.shape == augmented.shape == mixed.shape == (8, 8, 8, 3) and base.dtype == np.uint8
    assert (base != augmented).any() and (augmented != mixed).any()


def test_bytes_are_rounded_and_clipped():
    assert to_bytes(np.array([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.3])).tolist() == [0, 0, 0, 1, 255, 255]
