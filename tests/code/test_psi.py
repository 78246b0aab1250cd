"""PSI by docs/semantics.md, "Exactness": against an oracle written from the rule, and in cases checked by eye."""

import json
import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import DataError
from lockstep.psi import Profile, ks, profile, psi, quantiles
from tests.conftest import ENV, ROOT

numbers = st.one_of(st.integers(-5, 5), st.floats(-1e9, 1e9))
numeric = st.lists(st.none() | numbers, min_size=1, max_size=60)


def any_value(values):
    return any(x is not None for x in values)


words = st.lists(st.none() | st.sampled_from(["a", "b", "c", "", "é"]), min_size=1, max_size=40)


def naive_sum(before, after):
    total = 0.0
    for p, q in zip(before, after, strict=True):
        a, b = max(p, 0.0001), max(q, 0.0001)
        total += (a - b) * math.log(a / b)
    return total


def naive_numbers(reference, current, bins):
    present = sorted(x for x in reference if x is not None)
    edges = []
    for i in range(1, bins):
        if present:
            edge = present[math.ceil(Fraction(i * len(present), bins)) - 1]
            if edge not in edges:
                edges.append(edge)

    def shares(values):
        counts = [0] * (len(edges) + 2)
        for x in values:
            if x is None:
                counts[-1] += 1
                continue
            place = 0
            while place < len(edges) and not x < edges[place]:
                place += 1
            counts[place] += 1
        return [count / len(values) for count in counts]

    return naive_sum(shares(reference), shares(current))


def naive_categories(reference, current):
    known = [x for x in dict.fromkeys(reference) if x is not None]

    def shares(values):
        unseen = [x for x in values if x is not None and x not in known]
        return [n / len(values) for n in (*(values.count(x) for x in known), len(unseen), values.count(None))]

    return naive_sum(shares(reference), shares(current))


def number(values):
    return pl.Series("x", values, pl.Float64, strict=False)


def word(values):
    return pl.Series("x", values, pl.String)


@given(numeric, numeric, st.integers(2, 12))
def test_numbers_follow_the_rule(reference, current, bins):
    found = psi(profile(number(reference), bins), number(current))
    assert found == pytest.approx(naive_numbers(reference, current, bins), rel=1e-9, abs=1e-9)


@given(words, words)
def test_categories_follow_the_rule(reference, current):
    found = psi(profile(word(reference)), word(current))
    assert found == pytest.approx(naive_categories(reference, current), rel=1e-9, abs=1e-9)


@given(numeric.filter(any_value), numeric.filter(any_value), st.integers(2, 12))
def test_binned_ks_follows_the_rule_and_is_never_above_the_exact_one(reference, current, bins):
    here, there = ([x for x in side if x is not None] for side in (reference, current))
    edges = {sorted(here)[math.ceil(Fraction(i * len(here), bins)) - 1] for i in range(1, bins)}

    def gap(at):
        return abs(sum(x < at for x in here) / len(here) - sum(x < at for x in there) / len(there))

    found = ks(profile(number(reference), bins), number(current))
    assert found == pytest.approx(max(map(gap, edges)), rel=1e-9, abs=1e-9)
    assert found <= max(map(gap, [*here, *there, math.inf])) + 1e-9


def test_ks_of_a_shift_by_one_decile_is_a_tenth():
    reference = profile(pl.Series(range(100)))
    assert ks(reference, pl.Series(range(10, 110))) == pytest.approx(0.1)
    assert ks(reference, pl.Series([*range(100), None, None])) == 0, "nulls are left out"
    assert ks(reference, pl.Series([*range(100), 10**9])) < 0.01, "one outlier is one row"


@pytest.mark.parametrize(
    ("reference", "current", "message"),
    [
        (["a"], ["a"], "no order in column"),
        ([None, 1.0], [None, None], "nothing but nulls in column"),
        ([None, None], [None, 1.0], "nothing but nulls in column"),
        ([1.0], ["a"], "another kind in column"),
    ],
)
def test_ks_says_what_it_cannot_compare(reference, current, message):
    def series(values):
        return word(values) if "a" in values else number(values)

    with pytest.raises(DataError, match=message):
        ks(profile(series(reference)), series(current))


@given(numeric, numeric, st.randoms())
def test_the_order_of_rows_changes_no_bit(reference, current, random):
    there, back = profile(number(reference)), psi(profile(number(reference)), number(current))
    random.shuffle(reference)
    random.shuffle(current)
    assert profile(number(reference)) == there
    assert psi(there, number(current)) == back


@given(st.one_of(numeric.map(number), words.map(word)))
def test_a_profile_survives_json_and_a_column_has_no_drift_from_itself(series):
    found = profile(series)
    assert Profile.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert psi(found, series) == 0
    assert sum(found.weights) + found.null == pytest.approx(1)


def test_a_value_below_the_edge_goes_left_and_the_edge_itself_right():
    half = profile(pl.Series([1, 2, 3, 4]), bins=2)  # rank 2 of 4 is the value 2
    assert half == Profile((2.0,), None, (0.25, 0.75), 0.0)
    # A quarter and three quarters change places: twice (0.75 - 0.25) ln 3.
    assert psi(half, pl.Series([1, 1, 1, 2])) == pytest.approx(math.log(3))


def test_deciles_are_values_of_the_reference_by_nearest_rank_and_merged_when_tied():
    assert quantiles(np.arange(1.0, 21.0)).tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    tied = profile(pl.Series([0] * 6 + [1, 2, 3, 4]))
    assert tied.edges == (0, 1, 2, 3)
    assert tied.weights == (0, 0.6, 0.1, 0.1, 0.2)


def test_nulls_have_a_bin():
    found = psi(profile(pl.Series([1.0, 1.0, None, None])), pl.Series([1.0, 1.0, 1.0, 1.0]))
    assert found == pytest.approx(0.5 * math.log(2) + (0.5 - 1e-4) * math.log(0.5 / 1e-4))


def test_an_all_null_column_is_a_profile_and_a_drift():
    nothing, something = pl.Series("x", [None, None], pl.Int64), pl.Series("x", [1, 2])
    assert profile(nothing) == Profile((), None, (0.0,), 1.0)
    assert psi(profile(nothing), nothing) == 0
    assert psi(profile(nothing), something) == pytest.approx(2 * (1 - 1e-4) * math.log(1e4))
    assert psi(profile(something), nothing) > 5


def test_new_categories_share_one_bin_whatever_the_size():
    known = profile(pl.Series(["a"] * 90 + ["b"] * 10))
    assert known == Profile((), ("a", "b"), (0.9, 0.1), 0.0)
    once = psi(known, pl.Series(["a"] * 88 + ["b"] * 10 + ["c", "d"]))
    expected = (0.9 - 0.88) * math.log(0.9 / 0.88) + (0.02 - 1e-4) * math.log(0.02 / 1e-4)
    assert once == pytest.approx(expected)
    assert psi(known, pl.Series((["a"] * 88 + ["b"] * 10 + ["c", "d"]) * 100)) == once


def test_a_constant_shows_values_that_go_below_it_but_none_above():
    constant = profile(pl.Series([3, 3, 3]))
    assert constant == Profile((3.0,), None, (0.0, 1.0), 0.0)
    assert psi(constant, pl.Series([2, 2])) > 5
    assert psi(constant, pl.Series([9, 9])) == 0  # what one edge cannot see: `edges` says how many there are


def test_one_outlier_hides_no_shift_and_the_size_of_the_sample_does_not_matter():
    random = np.random.default_rng(0)
    reference, shifted = (pl.Series(random.lognormal(mean, 0.8, 20_000)) for mean in (0, 0.3))
    known = profile(reference)
    plain = psi(known, shifted)
    assert 0.1 < plain < 0.2
    assert psi(known, shifted.append(pl.Series([1e6]))) == pytest.approx(plain, rel=1e-2)
    assert psi(profile(reference.append(pl.Series([1e6]))), shifted) == pytest.approx(plain, rel=1e-2)


def test_integers_instants_and_dates_are_numbers_booleans_and_enums_are_categories():
    start = datetime(2020, 1, 1, tzinfo=UTC)
    instants = pl.Series([start + timedelta(hours=i) for i in range(10)], dtype=pl.Datetime("us", "UTC"))
    assert profile(instants, bins=2).edges == ((start + timedelta(hours=4)).timestamp() * 1e6,)
    assert psi(profile(instants), instants.dt.cast_time_unit("ms")) == 0
    assert psi(profile(instants), instants.dt.convert_time_zone("Asia/Tokyo")) == 0
    assert profile(pl.Series([date(1970, 1, 2)])).edges == (86400e6,)
    assert profile(pl.Series([True, False, True, None])) == Profile((), ("false", "true"), (0.25, 0.5), 0.25)
    assert profile(pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"]))).known == ("a", "b")


@pytest.mark.parametrize(
    ("series", "said"),
    [
        (pl.Series("x", [], pl.Float64), r"no rows in column 'x'"),
        (pl.Series("x", [1.0, math.nan]), r"NaN or infinity in column 'x'"),
        (pl.Series("x", [math.inf]), r"NaN or infinity in column 'x'"),
        (pl.Series("x", [[1]]), r"values without bins in column 'x': expected numbers, .* found List"),
    ],
)
def test_what_has_no_share_is_refused_as_reference_and_as_current(series, said):
    for ask in (profile, lambda s: psi(profile(pl.Series([1.0])), s)):
        with pytest.raises(DataError, match=said):
            ask(series)


def test_numbers_against_a_profile_of_categories_are_refused_and_the_other_way_round():
    with pytest.raises(DataError, match=r"another kind in column 'x': expected categories, found Int64"):
        psi(profile(pl.Series(["1", "2"])), pl.Series("x", [1, 2]))
    with pytest.raises(DataError, match=r"another kind in column 'x': expected numbers, found String"):
        psi(profile(pl.Series([1, 2])), pl.Series("x", ["1", "2"]))


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import numpy as np, polars as pl; from lockstep.psi import profile, psi\n"
        "r = np.random.default_rng(0); a, b = (pl.Series(r.lognormal(m, 1, 300_000)) for m in (0, .1))\n"
        "c, d = (pl.Series(r.choice(list('abcdefgh'), 300_000)) for _ in 'xy')\n"
        "print(profile(a), profile(c), psi(profile(a), b).hex(), psi(profile(c), d).hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**ENV, "POLARS_MAX_THREADS": n, "PYTHONHASHSEED": n},
            capture_output=True, text=True, check=True,
        ).stdout
        for n in ("1", "7")
    }  # fmt: skip
    assert len(said) == 1
