from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep import agg
from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT, Zone
from lockstep.define import Entity, Feature, Source, View
from lockstep.errors import DefinitionError
from lockstep.exact import ratio
from lockstep.snapshots import feature_schema, snapshot
from tests.code import oracle

ZONE = Zone("America/New_York")
SHOPPER = Entity("shopper", key="who")
SCHEMA = {"who": pl.Int64, "id": pl.Int64, "at": INSTANT, "cents": pl.Int64, "shop": pl.String}
VISITS = Source("visits", ("visits",), lambda visits: visits, event_time="at", key=("id",))
KINDS = ["count", "sum", "mean", "std", "min", "max", "distinct", "first", "last"]


def view(*features: Feature) -> View:
    return View("v", [SHOPPER], VISITS, features, ttl_days=1)


def events(rows: list[dict]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("at", "id")
    return frame.with_columns(ZONE.day(pl.col("at")).alias(EVENT_DAY))


def computed(features: list[Feature], rows: list[dict], day: date, who: list[int]) -> pl.DataFrame:
    known = events(rows).filter(pl.col(EVENT_DAY) < day)
    return snapshot(view(*features), known, pl.DataFrame({"who": who}, schema={"who": pl.Int64}), day, ZONE)


# Around the 23-hour day of spring and the 25-hour day of autumn, to the microsecond on either side of midnight.
EDGES = [
    ZONE.start(d) + timedelta(microseconds=us)
    for d in (date(2017, 3, 11), date(2017, 3, 12), date(2017, 3, 13), date(2017, 11, 5), date(2017, 11, 6))
    for us in (-1, 0, 1, 3_600_000_000)
]
visit = st.fixed_dictionaries(
    {
        "who": st.integers(1, 3),
        "at": st.sampled_from(EDGES)
        | st.datetimes(datetime(2017, 3, 9), datetime(2017, 3, 15), timezones=st.just(UTC)),  # noqa: DTZ001
        "cents": st.none() | st.integers(-(10**12), 10**12),
        "shop": st.none() | st.sampled_from("abc"),
    }
)
visits = st.lists(visit, max_size=12).map(lambda rows: [{**row, "id": n} for n, row in enumerate(rows)])


@settings(max_examples=150, deadline=None)
@given(visits, st.sampled_from([date(2017, 3, 12), date(2017, 3, 13), date(2017, 3, 16), date(2017, 11, 6)]))
def test_every_aggregation_equals_the_naive_oracle_on_any_day(rows, day):
    asked = [(k, c, d) for k in KINDS for c in ("cents",) for d in (None, 1, 3)]
    asked += [(k, "shop", 3) for k in ("count", "min", "max", "distinct", "first", "last")] + [
        ("count", None, 2),
        ("count", None, None),
    ]
    features = [Feature(f"f{n}", agg.Aggregation(k, c, d)) for n, (k, c, d) in enumerate(asked)]
    got = computed(features, rows, day, [1, 2, 3])
    for who in (1, 2, 3):
        mine = [r for r in rows if r["who"] == who]
        row = got.row(by_predicate=pl.col("who") == who, named=True)
        for n, (kind, column, days) in enumerate(asked):
            expected = oracle.aggregate(kind, oracle.values(mine, column, day, days, "America/New_York"))
            assert row[f"f{n}"] == expected, (kind, column, days)
            assert type(row[f"f{n}"]) is type(expected)


def test_a_sum_that_does_not_fit_is_an_error_and_a_mean_of_large_values_is_exact():
    at = datetime(2017, 3, 1, tzinfo=UTC)
    rows = [{"who": 1, "id": n, "at": at, "cents": 2**62, "shop": "a"} for n in (1, 2)]
    assert computed([Feature("m", agg.mean("cents"))], rows, date(2017, 3, 13), [1])["m"].item() == float(2**62)
    with pytest.raises(DefinitionError, match=r"a value that its type cannot hold in view v, snapshot 2017-03-13"):
        computed([Feature("s", agg.sum("cents"))], rows, date(2017, 3, 13), [1])


def test_a_snapshot_is_stamped_with_the_start_of_its_day_and_the_last_landing_day_it_knows():
    got = computed([Feature("n", agg.count())], [], date(2017, 3, 13), [1])
    assert got.columns == ["who", "event_timestamp", "created", "n"]
    assert got.row(0) == (1, datetime(2017, 3, 13, 4, tzinfo=UTC), datetime(2017, 3, 12, tzinfo=UTC), 0)


def test_an_entity_without_events_gets_zeros_for_counts_and_nulls_for_the_rest():
    features = [Feature(k, agg.Aggregation(k, "cents")) for k in KINDS] + [Feature("r", ratio("sum", "count"))]
    row = computed(features, [], date(2017, 3, 13), [7]).row(0, named=True)
    assert {k: v for k, v in row.items() if k in KINDS and v == 0} == {"count": 0, "sum": 0, "distinct": 0}
    assert all(row[k] is None for k in ("mean", "std", "min", "max", "first", "last", "r"))


def test_where_counts_only_the_events_that_meet_it():
    rows = [
        {"who": 1, "id": 1, "at": datetime(2017, 3, 1, tzinfo=UTC), "cents": 5, "shop": "a"},
        {"who": 1, "id": 2, "at": datetime(2017, 3, 2, tzinfo=UTC), "cents": 7, "shop": None},
    ]
    features = [
        Feature("n", agg.count(where=pl.col("shop") == "a")),
        Feature("s", agg.sum("cents", where=pl.col("shop").is_null())),
    ]
    assert computed(features, rows, date(2017, 3, 13), [1]).select("n", "s").row(0) == (1, 7)


def test_a_formula_reads_the_features_before_it():
    rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 1, tzinfo=UTC), "cents": 500, "shop": "a"}]
    features = [Feature("c", agg.sum("cents")), Feature("d", ratio("c", 100)), Feature("e", pl.col("d") * 2)]
    assert computed(features, rows, date(2017, 3, 13), [1]).select("c", "d", "e").row(0) == (500, 5.0, 10.0)


def test_an_infinite_feature_is_an_error_of_its_definition():
    rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 1, tzinfo=UTC), "cents": 0, "shop": "a"}]
    features = [Feature("n", agg.count()), Feature("c", agg.sum("cents")), Feature("bad", pl.col("n") / pl.col("c"))]
    with pytest.raises(DefinitionError, match=r"feature 'bad' is infinite .*snapshot 2017-03-13.* 1 of 1 rows.*ratio"):
        computed(features, rows, date(2017, 3, 13), [1])


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([Feature("x", agg.sum("cent"))], r"unknown event column 'cent' in feature x. Did you mean 'cents'"),
        ([Feature("x", agg.sum("price"))], r"sum of a column that is not an integer in feature x"),
        ([Feature("x", agg.count(where=pl.col("sho") == "a"))], r"unknown event column 'sho'.*'shop'"),
        ([Feature("n", agg.count()), Feature("x", pl.col("m") * 2)], r"unknown feature 'm' in feature x"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused_with_the_nearest_name(features, said):
    with pytest.raises(DefinitionError, match=said):
        feature_schema(view(*features), pl.Schema({**SCHEMA, "price": pl.Float64, EVENT_DAY: pl.Date}))


def test_a_window_without_days_a_name_used_twice_and_a_ttl_below_the_grid_are_refused():
    with pytest.raises(DefinitionError, match="a window without days"):
        agg.count(days=0)
    with pytest.raises(DefinitionError, match="'n' is defined twice in view v"):
        view(Feature("n", agg.count()), Feature("n", agg.count(days=3)))
    with pytest.raises(DefinitionError, match="ttl below the grid"):
        View("v", [SHOPPER], VISITS, [], ttl_days=0)


def test_types_follow_from_the_definition():
    features = [
        Feature("n", agg.count()),
        Feature("m", agg.mean("cents")),
        Feature("l", agg.last("at")),
        Feature("r", ratio("m", "n")),
    ]
    schema = feature_schema(view(*features), pl.Schema({**SCHEMA, EVENT_DAY: pl.Date}))
    assert schema == {"n": pl.Int64, "m": pl.Float64, "l": INSTANT, "r": pl.Float64}
