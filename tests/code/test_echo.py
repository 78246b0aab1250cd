"""A feature that was made of the label passes every clock: it is known by how well it tells the label alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lockstep.echo import FEW, require_no_echo, tells
from lockstep.errors import GuaranteeError

LABEL = pl.Series("label", [0, 1, 1, 0, 0, 1] * 40, dtype=pl.Int8)
NOISE = pl.Series(np.random.default_rng(0).normal(size=240))


@pytest.mark.parametrize(
    "echo",
    [
        LABEL,
        1 - LABEL.cast(pl.Int64),
        LABEL == 1,
        LABEL * 1_000.0 + NOISE,
        LABEL.replace_strict({0: None, 1: 7}, return_dtype=pl.Int64),
        LABEL.replace_strict({0: "stays", 1: "gone"}, return_dtype=pl.String),
        LABEL.replace_strict({0: float("-inf"), 1: float("inf")}, return_dtype=pl.Float64),
        pl.Series([[n, float(y)] for n, y in zip(NOISE, LABEL, strict=True)], dtype=pl.Array(pl.Float64, 2)),
        pl.Series([f"2017-01-0{1 + y}" for y in LABEL]).str.to_date(),
    ],
    ids=["itself", "its opposite", "a truth", "with noise", "where it is null", "a word", "infinite", "in a vector",
         "a day"],
)  # fmt: skip
def test_a_copy_of_the_label_is_refused_in_every_disguise(echo):
    rows = pl.DataFrame([LABEL, NOISE.alias("honest"), echo.alias("status")])
    with pytest.raises(GuaranteeError, match=r"knows the label.*lapse.*status 1.0000.*echo: null"):
        require_no_echo(rows, ["honest", "status"], 0.99, "lapse")


def test_an_honest_feature_passes_however_good():
    good = LABEL.cast(pl.Float64) + 1.2 * NOISE
    assert 0.6 < tells(good, LABEL) < 0.99
    require_no_echo(pl.DataFrame([LABEL, good.alias("good")]), ["good"], 0.99, "lapse")


@pytest.mark.parametrize("rows", [60, 100, 400, 1000])
@pytest.mark.parametrize("words", [2, 5, 20, 49, 200])
def test_words_that_know_nothing_tell_nothing(rows, words):
    random = np.random.default_rng(rows + words)
    label = pl.Series([0, 1] * (rows // 2))
    noise = [tells(pl.Series(random.integers(0, words, rows).astype(str)), label) for _ in range(20)]
    assert max(noise) < 0.7


def test_many_words_that_know_the_label_tell_it():
    words = pl.Series([f"{'gone' if y else 'stays'} {n % 6}" for n, y in enumerate(LABEL)])
    assert tells(words, LABEL) == 1.0
    assert tells(pl.Series([None if y else f"w{n % 4}" for n, y in enumerate(LABEL)]), LABEL) == 1.0


def test_names_of_single_rows_and_few_answers_say_nothing():
    assert tells(pl.Series([f"row {n}" for n in range(240)]), LABEL) == 0.5
    few = pl.Series([1] * (FEW - 1) + [0] * 200)
    assert tells(few, few) is None
    assert tells(pl.Series([0] * 240), pl.Series([1] * 240)) is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=80, max_size=120))
def test_the_figure_is_scikit_learn_s_either_way_round(rows):
    values, answers = (list(column) for column in zip(*rows, strict=True))
    found = tells(pl.Series(values), pl.Series(answers).cast(pl.Int8))
    if min(sum(answers), len(answers) - sum(answers)) < FEW:
        assert found is None
    else:
        area = roc_auc_score(answers, values)
        assert found == pytest.approx(max(area, 1 - area), abs=1e-12)
