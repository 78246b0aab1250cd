import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from lockstep import metrics

ORACLES = {
    "auc": roc_auc_score,
    "average_precision": average_precision_score,
    "log_loss": sklearn_log_loss,
    "brier": brier_score_loss,
}


@st.composite
def weighted_rows(draw):
    """Labels of both classes, scores with many ties, and how often each row was drawn."""
    n = draw(st.integers(2, 40))
    label = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    score = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return np.array([0, 1, *label]), np.array([3, 3, *score]) / 8, np.array([1, 1, *weight])


@given(weighted_rows())
@settings(deadline=None)
@pytest.mark.parametrize("name", ORACLES)
def test_a_weighted_metric_is_what_scikit_learn_says_of_the_repeated_rows(name, rows):
    label, score, weight = rows
    expected = ORACLES[name](np.repeat(label, weight), np.repeat(score, weight))
    assert metrics.METRICS[name](label, score, weight) == pytest.approx(expected, abs=1e-12)


def test_auc_by_eye():
    label = np.array([1, 0, 1, 0])
    assert metrics.auc(label, np.array([0.9, 0.8, 0.7, 0.1])) == 3 / 4  # one of four pairs is the wrong way round
    assert metrics.auc(label, np.array([0.5, 0.5, 0.5, 0.5])) == 1 / 2
    assert metrics.auc(np.array([1, 1]), np.array([0.1, 0.2])) is None
    assert metrics.auc(np.array([], dtype=np.int64), np.array([])) is None


def test_average_precision_by_eye():
    label, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    assert metrics.average_precision(label, score) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert metrics.average_precision(np.array([0, 0]), np.array([0.1, 0.2])) is None


def some_rows(seed=0, entities=60):
    rng = np.random.default_rng(seed)
    entity = np.sort(np.r_[np.arange(entities), rng.integers(0, entities, 4 * entities)])
    label = rng.integers(0, 2, entity.size)
    return entity, label, np.round(np.clip(0.3 * label + rng.random(entity.size) * 0.7, 0.01, 0.99), 2)


@pytest.mark.parametrize("name", ORACLES)
def test_an_interval_is_the_percentiles_of_metrics_of_rows_copied_entity_by_entity(name):
    entity, label, score = some_rows()
    draws = metrics.draw(entity, 40, seed=3)
    generator, naive = np.random.default_rng(3), []
    for _ in range(40):
        drawn = generator.integers(0, 60, 60)
        rows = np.concatenate([np.flatnonzero(entity == e) for e in drawn])
        naive.append(ORACLES[name](label[rows], score[rows]))
    found = metrics.intervals(label, score, draws)[name]
    assert found.value == pytest.approx(ORACLES[name](label, score), abs=1e-12)
    assert [found.low, found.high] == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=1e-12)


def test_a_paired_difference_uses_the_same_draws_for_both():
    entity, label, score = some_rows()
    draws = metrics.draw(entity, 50, seed=0)
    other = np.roll(score, 1)
    same = metrics.paired(label, score, score, draws)
    assert all(interval == (0, 0, 0) for interval in same.values())
    found = metrics.paired(label, score, other, draws)["auc"]
    ours = [metrics.auc(label, score, c[entity]) for c in draws.counts]
    theirs = [metrics.auc(label, other, c[entity]) for c in draws.counts]
    low, high = np.percentile(np.subtract(ours, theirs), [2.5, 97.5])
    assert found == pytest.approx((metrics.auc(label, score) - metrics.auc(label, other), low, high))


def test_entities_are_drawn_whole_so_copies_of_rows_do_not_narrow_an_interval():
    entity, label, score = some_rows()
    copied = [np.tile(a, 10) for a in (entity, label, score)]
    once = metrics.intervals(label, score, metrics.draw(entity, 100, 0))["auc"]
    tenfold = metrics.intervals(copied[1], copied[2], metrics.draw(copied[0], 100, 0))["auc"]
    assert tenfold == pytest.approx(once, abs=1e-12)


def test_the_order_of_rows_changes_nothing_that_is_published():
    entity, label, score = some_rows()
    order = np.random.default_rng(1).permutation(entity.size)
    straight = metrics.flat(metrics.intervals(label, score, metrics.draw(entity, 50, 0)))
    shuffled = metrics.intervals(label[order], score[order], metrics.draw(entity[order], 50, 0))
    assert metrics.flat(shuffled) == straight


def test_a_slice_sees_the_draws_of_the_whole():
    entity = some_rows()[0]
    draws, rows = metrics.draw(entity, 30, 0), entity < 20
    inside = draws.of(rows)
    assert inside.counts is draws.counts
    assert inside.entity.tolist() == entity[rows].tolist()


def test_an_interval_of_one_class_is_undefined_and_not_zero():
    entity = np.array([0, 1, 2])
    found = metrics.intervals(np.zeros(3, np.int64), np.array([0.1, 0.2, 0.3]), metrics.draw(entity, 20, 0))
    assert found["auc"] == (None, None, None)
    assert found["brier"].value == pytest.approx((0.01 + 0.04 + 0.09) / 3)


def test_an_interval_needs_more_than_half_of_its_draws_to_be_defined():
    entity = np.arange(40)
    label = (entity == 0).astype(np.int64)  # the one positive is absent from 36 % of the draws
    assert metrics.intervals(label, entity / 40, metrics.draw(entity, 50, 0))["auc"].low is not None
    few = metrics.draw(np.arange(2), 20, 0)  # two entities: both are in half of the draws
    counts = np.array([[2, 0]] * 10 + [[1, 1]] * 10)
    found = metrics.intervals(np.array([0, 1]), np.array([0.2, 0.8]), few._replace(counts=counts))
    assert found["auc"] == (1.0, None, None)


def test_every_draw_takes_as_many_entities_as_there_are_and_the_seed_decides_which():
    entity = some_rows()[0]
    draws = metrics.draw(entity, 25, seed=7)
    assert draws.counts.sum(axis=1).tolist() == [60] * 25
    assert (draws.counts == metrics.draw(entity, 25, seed=7).counts).all()
    assert (draws.counts != metrics.draw(entity, 25, seed=8).counts).any()


def test_entities_are_numbered_by_their_keys():
    frame = pl.DataFrame({"a": [2, 1, 2, 1], "b": ["x", "y", "x", "x"]})
    assert metrics.entity_codes(frame, ["a", "b"]).tolist() == [2, 1, 2, 0]


def test_calibration_by_eye():
    label, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.7, 0.9])
    assert metrics.calibration(label, score, bins=2) == [
        {"bin": 1, "rows": 2, "mean_score": 0.15, "observed": 0.0},
        {"bin": 2, "rows": 2, "mean_score": 0.8, "observed": 1.0},
    ]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=60), st.randoms())
@settings(deadline=None)
def test_calibration_counts_every_row_once_whatever_the_order(rows, random):
    def table(pairs):
        return metrics.calibration(np.array([y for y, _ in pairs]), np.array([s / 20 for _, s in pairs]))

    found = table(rows)
    assert sum(b["rows"] for b in found) == len(rows)
    assert sum(b["observed"] * b["rows"] for b in found) == pytest.approx(sum(y for y, _ in rows), abs=1e-3)
    random.shuffle(rows)
    assert table(rows) == found


def test_published_numbers_are_rounded_and_never_minus_zero():
    assert metrics.published(0.12345649) == 0.123456
    assert str(metrics.published(-1e-9)) == "0.0"
    assert metrics.published(None) is None
