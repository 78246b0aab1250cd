"""What a feature promises of its values, and every value and definition that breaks the promise."""

import math
from datetime import UTC, date, datetime

import polars as pl
import pytest

from lockstep import agg, snapshots
from lockstep.day_cache import DayCache, Hashes
from lockstep.define import Entity, Feature, View
from lockstep.errors import DataError, DefinitionError
from lockstep.exact import ratio
from lockstep.feature_contract import broken, check_definition, check_values
from lockstep.files import read_parquet
from tests.code.test_snapshots import SCHEMA, SHOPPER, VISITS, ZONE, computed, events

DAY = date(2017, 3, 13)
SHARE = Feature("share", pl.col("a") * 1, range=(0, 1))


def judged(values, feature=SHARE, **more):
    frame = pl.DataFrame({"who": range(1, len(values) + 1), feature.name: values})
    check_values(frame, [feature], ["who"], "view v, snapshot 2017-03-13", **more)


@pytest.mark.parametrize(
    ("feature", "never", "bounds"),
    [
        (Feature("n", agg.count()), True, (0, None)),
        (Feature("d", agg.distinct("shop")), True, (0, None)),
        (Feature("s", agg.sum("cents")), True, (None, None)),  # refunds
        (Feature("m", agg.mean("cents")), False, (None, None)),
        (Feature("l", agg.last("at"), nullable=False), True, (None, None)),
        (Feature("n", agg.count(), range=(1, 9)), True, (1, 9)),
        (Feature("r", ratio("a", "b"), range=(None, 1)), False, (None, 1)),
    ],
)
def test_the_null_rule_and_the_lowest_count_follow_from_the_aggregation(feature, never, bounds):
    assert (feature.never_null, feature.bounds) == (never, bounds)


def test_the_ends_of_a_range_and_a_null_that_may_be_are_no_breach():
    judged([0.0, 1.0, None, 0.5])
    judged([None], Feature("n", agg.count()), nulls=False)


@pytest.mark.parametrize(
    ("values", "feature", "error", "said"),
    [
        (
            [0.5, 1.2, 1.3],
            SHARE,
            DataError,
            r"'share' is out of its range in view v, .*: expected 0 to 1, found 1.2 for who 2, 2 of 3 rows. Mend ",
        ),
        ([-0.1], SHARE, DataError, r"out of its range .*found -0.1 for who 1, 1 of 1 rows"),
        (
            [3, -1],
            Feature("n", agg.count()),
            DataError,
            r"'n' is out of its range .*expected 0 to any, found -1 for who 2",
        ),
        (
            [3, None],
            Feature("n", agg.count()),
            DataError,
            r"'n' is null .*expected a value, found None for who 2, 1 of 2",
        ),
        ([1.0, float("nan")], SHARE, DefinitionError, r"'share' is infinite or not a number .*ratio\(\)"),
    ],
)
def test_a_breach_is_told_with_its_rows_and_the_first_of_them(values, feature, error, said):
    with pytest.raises(error, match=said):
        judged(values, feature)


def test_a_snapshot_that_breaks_the_contract_is_told_by_its_day_whichever_way_it_was_computed():
    feature = Feature("spent", agg.sum("cents"), range=(0, 100))
    rows = [
        {"who": 1, "id": n, "at": datetime(2017, 3, 10 + n, 12, tzinfo=UTC), "cents": 60, "shop": "a"} for n in (1, 2)
    ]
    said = r"'spent' is out of its range in view v, snapshot 2017-03-13: expected 0 to 100, found 120 for who 1"
    with pytest.raises(DataError, match=said):
        computed([feature], rows, DAY, [1])
    view = View("v", [SHOPPER], VISITS, [feature], ttl_days=1)
    seen = pl.DataFrame({"who": [1], "_seen": [date(2017, 3, 11)]})
    wanted = [date(2017, 3, 12), DAY]
    found = snapshots.snapshots(view, events(rows), seen, wanted, ZONE)
    assert next(found)[1]["spent"].to_list() == [60]
    with pytest.raises(DataError, match=said):
        next(found)


class Known:
    """Events of one shopper, whatever the day."""

    zone = ZONE

    def until(self, day):
        return day

    def known(self, day):
        rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 11, 12, tzinfo=UTC), "cents": 60, "shop": "a"}]
        return events(rows).filter(pl.col("event_day") < day)

    def entities(self, _keys, _day):
        return pl.DataFrame({"who": [1]})


def test_another_range_judges_the_kept_days_anew_and_computes_none(tmp_path):
    def build(high):
        view = View("v", [SHOPPER], VISITS, [Feature("spent", agg.sum("cents"), range=(0, high))], ttl_days=1)
        cache = DayCache(tmp_path / "days", Hashes(tmp_path / "hashes.json"))
        return snapshots.build(view, Known(), {DAY: "key"}, tmp_path / "out", cache).computed

    assert build(100) == [DAY]
    assert build(100) == []
    for _ in range(2):  # what was refused stays refused
        with pytest.raises(
            DataError, match="'spent' is out of its range in view v, snapshot 2017-03-13: expected 0 to 50"
        ):
            build(50)
    assert build(None) == []
    assert read_parquet(tmp_path / f"out/{DAY}.parquet")["spent"].to_list() == [60]


def test_one_look_at_a_frame_tells_whether_anything_is_wrong():
    frame = pl.DataFrame({"share": [0.5, None], "n": [1, 2]})
    assert not broken(frame, [SHARE, Feature("n", agg.count())])
    assert broken(frame, [Feature("n", agg.count(), range=(2, None))])
    assert not broken(frame, [])


@pytest.mark.parametrize(
    ("feature", "kind", "said"),
    [
        (
            Feature("n", agg.count(), default=0.0),
            pl.Int64(),
            r"a default of another type in feature n: expected Int64, found 0.0. .*int",
        ),
        (Feature("n", agg.count(), default=True), pl.Int64(), "a default of another type"),
        (Feature("x", agg.mean("cents"), default=1), pl.Float64(), "a default of another type in feature x"),
        (Feature("x", agg.mean("cents"), default=math.nan), pl.Float64(), r"found nan. .*finite"),
        (Feature("x", agg.last("at"), default=datetime(2017, 1, 1)), pl.Datetime("us", "UTC"), "another type"),  # noqa: DTZ001
        (
            Feature("n", agg.count(), default=-1),
            pl.Int64(),
            "a default out of the range in feature n: expected 0 to None, found -1",
        ),
        (Feature("x", agg.mean("cents"), range=(0, 1), default=1.5), pl.Float64(), "a default out of the range"),
        (Feature("s", agg.last("shop"), range=(0, 1)), pl.String(), "a range of what is no number in feature s"),
    ],
)
def test_a_range_or_default_that_the_type_cannot_have_is_refused(feature, kind, said):
    with pytest.raises(DefinitionError, match=said):
        check_definition(feature, kind)


def test_a_range_without_values_is_refused():
    with pytest.raises(DefinitionError, match=r"a range without values in feature x: found 1 .. 0"):
        Feature("x", agg.mean("cents"), range=(1, 0))


def on(*features, entity=SHOPPER):
    return View("v", [entity], VISITS, features, ttl_days=1)


N = Feature("n", agg.count())


@pytest.mark.parametrize(
    ("define", "said"),
    [
        (lambda: on(Feature("x", agg.sum("cent"))), r"unknown event column 'cent' .*Did you mean 'cents'"),
        (lambda: on(Feature("x", agg.count(where=pl.col("shp") == "a"))), r"unknown event column 'shp' .*'shop'"),
        (lambda: on(Feature("x", agg.sum("price"))), "sum of a column that is not an integer"),
        (lambda: on(Feature("b", pl.col("n") * 2), N), r"unknown feature 'n' in feature b. Move n before b."),
        (lambda: on(N, entity=Entity("shopper", key="whom")), r"no key 'whom' in the events .*Did you mean 'who'"),
        (lambda: on(Feature("x", agg.count(days=0))), "a window without days"),
        (lambda: on(N, N), "feature 'n' stands twice"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_import_or_at_load_with_the_nearest_name(define, said):
    with pytest.raises(DefinitionError, match=said):
        snapshots.feature_schema(define(), pl.Schema({**SCHEMA, "price": pl.Float64, "event_day": pl.Date}))
