from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep import agg, clock
from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT, Zone
from lockstep.day_cache import DayCache, Hashes
from lockstep.define import Entity, Feature, Source, View
from lockstep.derive import event_schema
from lockstep.errors import DataError, DefinitionError
from lockstep.events import Events
from lockstep.exact import elapsed_days, ratio, weekday
from lockstep.snapshot import feature_schema, snapshot
from lockstep.snapshots import build
from lockstep.tables import Table, read_tables
from tests.code import oracle
from tests.code.definitions import contract

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


OFFERED = pl.Schema({"who": pl.Int64, "id": pl.Int64, "cents": pl.Int64, "start": pl.Date, "end": pl.Date})
march = st.dates(date(2017, 3, 1), date(2017, 3, 20))
offered = st.lists(
    st.tuples(
        st.integers(1, 2), st.integers(0, 9), st.none() | st.integers(-9, 9), st.none() | march, st.none() | march
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(offered, march)
def test_an_interval_counts_from_its_first_day_to_its_last_both_included(rows, day):
    events = pl.DataFrame(rows, schema=OFFERED, orient="row").with_columns(pl.col("start").alias(EVENT_DAY))
    kinds = ["count", "sum", "mean", "std", "min", "max", "distinct"]
    features = [Feature(k, agg.Aggregation(k, "cents", during=("start", "end"))) for k in kinds]
    features.append(Feature("under_way", agg.count(during=("start", "end"))))
    who = pl.DataFrame({"who": [1, 2]})
    got = snapshot(view(*features), events.sort("start", "id"), who, day, ZONE)
    for row in got.iter_rows(named=True):
        mine = [r for r in rows if r[0] == row["who"] and r[3] is not None and r[3] <= day]
        mine = [r[2] for r in mine if r[4] is None or day <= r[4]]
        assert row["under_way"] == len(mine)
        for kind in kinds:
            assert row[kind] == oracle.aggregate(kind, [v for v in mine if v is not None])


def test_what_is_announced_for_later_is_in_no_window_and_in_no_lifetime():
    rows = pl.DataFrame(
        {"who": [1, 1], "id": [1, 2], EVENT_DAY: [date(2017, 3, 12), date(2017, 3, 13)]}  # known on the 13th
    )
    features = [Feature("all", agg.count()), Feature("week", agg.count(days=7)), Feature("day", agg.last("id"))]
    got = snapshot(view(*features), rows, pl.DataFrame({"who": [1]}), date(2017, 3, 13), ZONE)
    assert got.select("all", "week", "day").row(0) == (1, 1, 1)


def test_an_interval_without_dates_or_beside_a_window_is_refused():
    with pytest.raises(DefinitionError, match=r"two windows in count\(days=7, during=.*not both"):
        Feature("x", agg.count(days=7, during=("start", "end")))
    schema = pl.Schema({**OFFERED, EVENT_DAY: pl.Date, "until": INSTANT})
    with pytest.raises(DefinitionError, match=r"other than days in feature x: expected until as Date, found Datetime"):
        feature_schema(view(Feature("x", agg.count(during=("start", "until")))), schema)
    with pytest.raises(DefinitionError, match=r"unknown event column 'ends' in feature x. Did you mean 'end'"):
        feature_schema(view(Feature("x", agg.count(during=("start", "ends")))), schema)


def test_a_view_of_a_key_that_no_event_has_is_refused_with_the_nearest_name():
    wrong = View("v", [Entity("shopper", "whom")], VISITS, [Feature("n", agg.count())], ttl_days=1)
    with pytest.raises(
        DefinitionError, match=r"no key 'whom' in the events in view v, source visits. Did you mean 'who'"
    ):
        feature_schema(wrong, pl.Schema({**SCHEMA, EVENT_DAY: pl.Date}))
    with pytest.raises(DefinitionError, match=r"entities without keys of their own in view v"):
        View("v", [SHOPPER, SHOPPER], VISITS, [Feature("n", agg.count())], ttl_days=1)


def test_a_formula_reads_the_features_before_it():
    rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 1, tzinfo=UTC), "cents": 500, "shop": "a"}]
    features = [Feature("c", agg.sum("cents")), Feature("d", ratio("c", 100)), Feature("e", pl.col("d") * 2)]
    assert computed(features, rows, date(2017, 3, 13), [1]).select("c", "d", "e").row(0) == (500, 5.0, 10.0)


def test_a_formula_reads_the_instant_at_which_the_day_begins():
    rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 11, 17, tzinfo=UTC), "cents": 500, "shop": "a"}]
    features = [
        Feature("last_at", agg.last("at")),
        Feature("days_since", elapsed_days("last_at", "event_timestamp")),
        Feature("weekday", weekday("event_timestamp", "America/New_York")),
    ]
    got = computed(features, rows, date(2017, 3, 13), [1, 2]).select("days_since", "weekday")
    assert got.rows() == [(35 / 24, 1), (None, 1)]  # from noon on the 11th over a day of 23 hours; a Monday
    schema = feature_schema(view(*features), pl.Schema({**SCHEMA, EVENT_DAY: pl.Date}))
    assert schema["days_since"] == pl.Float64


def test_an_infinite_feature_is_an_error_of_its_definition():
    rows = [{"who": 1, "id": 1, "at": datetime(2017, 3, 1, tzinfo=UTC), "cents": 0, "shop": "a"}]
    features = [Feature("n", agg.count()), Feature("c", agg.sum("cents")), Feature("bad", pl.col("n") * 1e308 * 1e308)]
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
        Feature("x", agg.count(days=0))
    with pytest.raises(DefinitionError, match="'n' stands twice in view v"):
        view(Feature("n", agg.count()), Feature("n", agg.count(days=3)))
    with pytest.raises(DefinitionError, match="ttl below the grid"):
        View("v", [SHOPPER], VISITS, [], ttl_days=0)


def lines_contract(folder, who):
    columns = {"who": who, "id": "int64", "at": "instant", "cents": "int64"}
    return {"lines": contract(folder, columns, table="lines", calendar="irregular")}


@pytest.mark.parametrize("claim", [{}, {"causal": True}, {"within_day": True, "gap_of": "who"}])
def test_a_view_of_which_nothing_has_landed_yet_has_snapshots_without_rows(tmp_path, claim):
    contracts = lines_contract(tmp_path, "int64")
    source = Source("s", ("lines",), lambda lines: lines, "at", ("id",), **claim)
    about = [Feature("n", agg.count(days=3)), Feature("sum", agg.sum("cents")), Feature("half", pl.col("n") + 0.5)]
    view = View("v", [SHOPPER], source, about, ttl_days=1)
    first, last = date(2017, 3, 11), date(2017, 3, 14)
    with pytest.raises(DataError, match=r"no clean rows in .*clean. Land some days"):
        read_tables(tmp_path / "clean", contracts, ZONE, ("lines",))
    (tmp_path / "clean").mkdir()
    tables = read_tables(tmp_path / "clean", contracts, ZONE, ("lines",))
    keys = {day: f"key of {day}" for day in clock.days(first, last)}
    hashes = Hashes(tmp_path / "hashes.json")
    events = Events(source, tables, first, last, cache=DayCache(tmp_path / "events", hashes))
    build(view, events, keys, tmp_path / "out", DayCache(tmp_path / "days", hashes))
    types = feature_schema(view, event_schema(source, contracts, ZONE))
    for day in keys:
        frame = pl.read_parquet(tmp_path / f"out/{day}.parquet")
        assert frame.is_empty()
        assert frame.schema == {"who": pl.Int64, "event_timestamp": INSTANT, "created": INSTANT, **types}


@pytest.mark.parametrize("claim", [{}, {"causal": True}, {"within_day": True}])
def test_events_of_nobody_are_in_no_row_and_shift_no_others(tmp_path, claim):
    contracts = lines_contract(tmp_path, {"type": "int64", "nullable": True})
    source = Source("s", ("lines",), lambda lines: lines, "at", ("id",), **claim)
    day = date(2017, 3, 11)
    people = [None, 2, None, 1, 2, None]
    rows = [(who, n, ZONE.start(day), 10**n, None, False, False, day) for n, who in enumerate(people)]
    lines = pl.DataFrame(rows, contracts["lines"].clean_schema(), orient="row")
    about = [Feature("n", agg.count()), Feature("sum", agg.sum("cents", days=1))]
    events = Events(source, {"lines": Table(contracts["lines"], lines, ZONE)}, day, date(2017, 3, 12))
    assert events.short is bool(claim)
    cache = DayCache(tmp_path / "days", Hashes(tmp_path / "hashes.json"))
    build(View("v", [SHOPPER], source, about, ttl_days=1), events, {date(2017, 3, 12): "key"}, tmp_path / "out", cache)
    found = pl.read_parquet(tmp_path / "out/2017-03-12.parquet").select("who", "n", "sum")
    assert found.rows() == [(1, 1, 1000), (2, 2, 10010)]


def test_types_follow_from_the_definition():
    features = [
        Feature("n", agg.count()),
        Feature("m", agg.mean("cents")),
        Feature("l", agg.last("at")),
        Feature("r", ratio("m", "n")),
    ]
    schema = feature_schema(view(*features), pl.Schema({**SCHEMA, EVENT_DAY: pl.Date}))
    assert schema == {"n": pl.Int64, "m": pl.Float64, "l": INSTANT, "r": pl.Float64}
