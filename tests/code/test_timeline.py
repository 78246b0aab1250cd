"""The engine of many days against the definition of one day, and both against the naive oracle."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lockstep import agg, snapshots, timeline
from lockstep.agg import EVENT_DAY, Aggregation
from lockstep.clock import INSTANT, Zone, days
from lockstep.define import Entity, Feature, Source, View
from lockstep.errors import DataError, DefinitionError
from lockstep.exact import ratio
from lockstep.files import write_parquet
from lockstep.timeline import Timeline, fits
from tests.code import oracle

NEW_YORK = "America/New_York"
ZONE = Zone(NEW_YORK)
SHOPPER, SHOP = Entity("shopper", key="who"), Entity("shop", key="shop")
VISITS = Source("visits", ("visits",), lambda visits: visits, event_time="at", key=("id",))
SCHEMA = {
    "who": pl.Int64, "id": pl.Int64, "at": INSTANT, "cents": pl.Int64, "micros": pl.Int64, "items": pl.UInt32,
    "shop": pl.String, "card": pl.Boolean, "due": pl.Date,
}  # fmt: skip
KINDS = ["count", "sum", "mean", "std", "min", "max", "distinct", "first", "last"]
ORDERED = ["count", "min", "max", "distinct", "first", "last"]
WINDOWS = [(None, 0), (1, 0), (2, 0), (7, 0), (400, 0), (3, 2), (1, 1)]
CONDITIONS = [None, pl.col("shop") == "a", pl.col("cents") > 0]
ASKED = [
    *((k, "cents", d, o, None) for k in KINDS for d, o in WINDOWS),
    *((k, "cents", d, 0, c) for k in KINDS for d, c in ((None, CONDITIONS[1]), (2, CONDITIONS[2]))),
    *((k, "micros", d, 0, None) for k in ("sum", "mean", "std") for d in (None, 2)),
    *((k, "items", 2, 0, None) for k in KINDS),
    *((k, c, d, 0, None) for c in ("shop", "card", "due", "at") for k in ORDERED for d in (None, 2)),
    *(("count", None, 3, 2, c) for c in CONDITIONS),
]  # fmt: skip
FEATURES = [Feature(f"f{n}", Aggregation(k, c, d, w, o)) for n, (k, c, d, o, w) in enumerate(ASKED)]
VIEW = View(
    "v", [SHOPPER], VISITS, [*FEATURES, Feature("r", ratio("f0", 3)), Feature("s", pl.col("r") * 2)], ttl_days=1
)
FIRST, LAST = date(2017, 3, 9), date(2017, 3, 24)

# The 23-hour day of spring is the 12th. Every day's edges to the microsecond, and moments that several events share.
EDGES = [ZONE.start(d) + timedelta(microseconds=us) for d in days(FIRST, LAST) for us in (-1, 0, 1)]
LARGE = [-(2**63), 2**63 - 1, 2**62, -(2**31) - 1, 2**32, 0]
visit = st.fixed_dictionaries(
    {
        "who": st.integers(1, 4),
        "at": st.sampled_from(EDGES) | st.integers(0, 10**12).map(lambda us: EDGES[0] + timedelta(microseconds=us)),
        "cents": st.none() | st.integers(-3, 3) | st.integers(-(10**12), 10**12),
        "micros": st.none() | st.integers(-(3 * 10**13), 3 * 10**13),
        "items": st.none() | st.integers(0, 3),
        "shop": st.none() | st.sampled_from("abé"),
        "card": st.none() | st.booleans(),
        "due": st.none() | st.dates(date(1960, 1, 1), date(2020, 1, 1)),
    }
)  # fmt: skip
visits = st.lists(visit, max_size=25).map(lambda rows: [{**row, "id": n % 20} for n, row in enumerate(rows)])
seen_from = st.lists(st.integers(0, 3), min_size=5, max_size=5)  # days before the first event; the fifth has no events


def laid_out(rows: list[dict]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("at", "id", maintain_order=True)
    return frame.with_columns(ZONE.day(pl.col("at")).alias(EVENT_DAY))


def landed(events: pl.DataFrame, before: list[int]) -> pl.DataFrame:
    """Entities 1 to 5 with the first day they landed: on their first event's day or before it."""
    own = dict(events.group_by("who").agg(pl.col(EVENT_DAY).min()).iter_rows())
    seen = [(n, own.get(n, date(2017, 3, 12)) - timedelta(days=before[n - 1])) for n in range(1, 6)]
    return pl.DataFrame(seen, schema={"who": pl.Int64, "_seen": pl.Date}, orient="row")


def one_by_one(view: View, events: pl.DataFrame, seen: pl.DataFrame, wanted: list[date]) -> list[pl.DataFrame]:
    return [
        snapshots.snapshot(
            view,
            events.filter(pl.col(EVENT_DAY) < day),
            seen.filter(pl.col("_seen") < day).select(view.keys),
            day,
            ZONE,
        )
        for day in wanted
    ]


def assert_same(view: View, events: pl.DataFrame, seen: pl.DataFrame, wanted: list[date]) -> None:
    found = list(snapshots.snapshots(view, events, seen, wanted, ZONE))
    assert [day for day, _ in found] == wanted
    for (_, frame), expected in zip(found, one_by_one(view, events, seen, wanted), strict=True):
        assert_frame_equal(frame, expected, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(visits, seen_from, st.sampled_from([1, 12, 10**6]))
def test_many_days_at_once_are_bit_by_bit_what_one_day_at_a_time_gives(rows, before, together):
    events = laid_out(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lockstep.snapshot.TOGETHER", together)  # a day at a time, a few, all
        assert_same(VIEW, events, landed(events, before), list(days(FIRST, LAST)))


@settings(max_examples=25, deadline=None)
@given(visits)
def test_features_of_a_shopper_in_a_shop_are_those_of_the_oracle_on_the_events_of_both(rows):
    events = laid_out(rows)
    asked = [(k, "cents", d, o) for k in KINDS for d, o in ((None, 0), (2, 0), (3, 2))]
    features = [Feature(f"f{n}", Aggregation(k, c, d, None, o)) for n, (k, c, d, o) in enumerate(asked)]
    both = View("both", [SHOPPER, SHOP], VISITS, features, ttl_days=1)
    pairs = events.select("who", "shop", pl.col(EVENT_DAY).alias("_seen")).drop_nulls()
    seen = pairs.group_by("who", "shop").agg(pl.col("_seen").min()).sort("who", "shop")
    wanted = list(days(FIRST, LAST))
    assert_same(both, events, seen, wanted)
    for day, frame in snapshots.snapshots(both, events, seen, wanted[::5], ZONE):
        assert frame.select("who", "shop").equals(seen.filter(pl.col("_seen") < day).select("who", "shop"))
        for row in frame.iter_rows(named=True):
            mine = [r for r in rows if (r["who"], r["shop"]) == (row["who"], row["shop"])]
            for n, (kind, column, window, offset) in enumerate(asked):
                found = oracle.values(mine, column, day, window, NEW_YORK, offset=offset)
                assert row[f"f{n}"] == oracle.aggregate(kind, found), (kind, window, offset)


@settings(max_examples=60, deadline=None)
@given(visits, st.integers(0, 15))
def test_every_aggregation_of_the_engine_equals_the_naive_oracle(rows, n):
    events, day = laid_out(rows), FIRST + timedelta(days=n)
    seen = pl.DataFrame({"who": [1, 2, 3, 4], "_seen": [date(2017, 1, 1)] * 4})
    ((_, frame),) = snapshots.snapshots(VIEW, events, seen, [day], ZONE)
    for row in frame.iter_rows(named=True):
        mine = [r for r in rows if r["who"] == row["who"]]
        for f, (kind, column, window, offset, where) in enumerate(ASKED):
            met = [r for r in mine if where is None or _holds(where, r)]
            expected = oracle.aggregate(kind, oracle.values(met, column, day, window, NEW_YORK, offset=offset))
            assert (row[f"f{f}"], type(row[f"f{f}"])) == (expected, type(expected)), FEATURES[f].value


def _holds(where: pl.Expr, row: dict) -> bool:
    return row["shop"] == "a" if where is CONDITIONS[1] else row["cents"] is not None and row["cents"] > 0


def test_days_in_any_order_with_gaps_and_asked_twice_are_the_same():
    rows = [{"who": 1 + n % 3, "id": n, "at": EDGES[n * 2], "cents": n * n, "shop": "ab"[n % 2]} for n in range(20)]
    events = laid_out(rows)
    wanted = [date(2017, 3, d) for d in (20, 11, 12, 12, 24, 10, 17)]
    assert_same(VIEW, events, landed(events, [0] * 5), wanted)


def test_an_autumn_day_of_25_hours_counts_as_one_day():
    midnights = [ZONE.start(d) for d in days(date(2017, 11, 4), date(2017, 11, 7))]
    edges = [m + timedelta(microseconds=us) for m in midnights for us in (-1, 0)]
    edges.append(ZONE.start(date(2017, 11, 5)) + timedelta(hours=24, minutes=30))  # still the 5th
    events = laid_out([{"who": 1, "id": n, "at": at, "cents": 1} for n, at in enumerate(edges)])
    wanted = list(days(date(2017, 11, 4), date(2017, 11, 9)))
    assert_same(VIEW, events, landed(events, [0] * 5), wanted)
    one = View("one", [SHOPPER], VISITS, [Feature("n", agg.count(days=1))], ttl_days=1)
    ((_, frame),) = snapshots.snapshots(one, events, landed(events, [0] * 5), [date(2017, 11, 6)], ZONE)
    assert frame["n"][0] == 3


def test_the_files_are_the_same_bytes(tmp_path):
    rows = [{"who": 1 + n % 4, "id": n, "at": EDGES[n], "cents": n, "micros": 10**13 + n} for n in range(40)]
    events = laid_out(rows)
    seen, wanted = landed(events, [0, 1, 2, 3, 0]), list(days(FIRST, LAST))
    expected = one_by_one(VIEW, events, seen, wanted)
    for (_, frame), other in zip(snapshots.snapshots(VIEW, events, seen, wanted, ZONE), expected, strict=True):
        write_parquet(frame, tmp_path / "a")
        write_parquet(other, tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("rows", [[], [{"who": 9, "id": 1, "at": EDGES[5], "cents": 1}]])
def test_entities_without_events_and_events_without_a_known_entity_are_rows_of_nothing(rows):
    events = laid_out(rows)
    assert_same(VIEW, events, landed(events, [0] * 5), list(days(FIRST, LAST)))
    assert_same(VIEW, events, landed(events, [0] * 5).head(0), list(days(FIRST, LAST)))


def test_integers_of_any_size_are_summed_exactly():
    features = [Feature("m", agg.mean("cents")), Feature("d", agg.mean("cents", days=2))]
    view = View("v", [SHOPPER], VISITS, features, ttl_days=1)
    rows = [{"who": 1, "id": n, "at": EDGES[n * 3], "cents": c} for n, c in enumerate(LARGE)]
    events = laid_out(rows)
    assert_same(view, events, landed(events, [0] * 5), list(days(FIRST, LAST)))
    ((_, frame),) = snapshots.snapshots(view, events, landed(events, [0] * 5), [LAST], ZONE)
    assert frame["m"][0] == float(sum(LARGE)) / 6.0


def test_a_sum_that_does_not_fit_names_the_first_day_on_which_it_does_not():
    view = View("v", [SHOPPER], VISITS, [Feature("s", agg.sum("cents"))], ttl_days=1)
    at = [datetime(2017, 3, d, 12, tzinfo=UTC) for d in (10, 14)]
    events = laid_out([{"who": 1, "id": n, "at": t, "cents": 2**62} for n, t in enumerate(at)])
    found = snapshots.snapshots(view, events, landed(events, [0] * 5), list(days(FIRST, LAST)), ZONE)
    assert [next(found)[0] for _ in range(6)][-1] == date(2017, 3, 14)
    with pytest.raises(DefinitionError, match=r"a value that its type cannot hold in view v, snapshot 2017-03-15"):
        next(found)


def test_an_infinite_feature_names_its_day():
    features = [
        Feature("n", agg.count()),
        Feature("c", agg.sum("cents")),
        Feature("bad", (1.0 - pl.col("c")) * 1e308 * 1e308),
    ]
    rows = [{"who": 1, "id": n, "at": datetime(2017, 3, 10 + n, 12, tzinfo=UTC), "cents": 1 - 2 * n} for n in range(2)]
    events = laid_out(rows)
    view = View("v", [SHOPPER], VISITS, features, ttl_days=1)
    found = snapshots.snapshots(
        view, events, landed(events, [0] * 5).head(1), list(days(date(2017, 3, 11), LAST)), ZONE
    )
    assert next(found)[1]["bad"].to_list() == [0.0]
    with pytest.raises(DefinitionError, match=r"'bad' is infinite .*snapshot 2017-03-12"):
        next(found)


@pytest.mark.parametrize(
    ("aggregation", "fit"),
    [
        (agg.max("price"), False),  # NaN has no place in an order
        (agg.last("price"), True),
        (agg.sum("huge"), False),
        (agg.count(where=pl.col("cents") > pl.col("cents").mean()), False),  # a mean of an entity's known rows
        (agg.count(where=(pl.col("cents") > 3) & pl.col("shop").is_in(["a"])), True),
    ],
)
def test_what_a_timeline_cannot_hold_exactly_is_left_to_the_definition(aggregation, fit):
    events = pl.Schema({**SCHEMA, "price": pl.Float64, "huge": pl.UInt64, EVENT_DAY: pl.Date})
    assert fits([("x", aggregation)], events) is fit


@pytest.mark.parametrize(
    "fault", ["a window a day too long", "places a day late", "marks that stay behind", "values never leave"]
)
def test_planted_faults_are_seen(monkeypatch, fault):
    """Each fault is one that an engine like this is prone to; the comparison with the definition must find it."""
    rows = [{"who": 1 + n % 3, "id": n, "at": EDGES[n], "cents": n % 5, "shop": "ab"[n % 2]} for n in range(40)]
    events, before = laid_out(rows), Timeline._before
    if fault == "a window a day too long":
        monkeypatch.setattr(Timeline, "_before", lambda self, day, lag: before(self, day - (lag == 7), lag))
    elif fault == "places a day late":
        monkeypatch.setattr(Timeline, "_before", lambda self, day, lag: before(self, day - 1, lag))
    elif fault == "marks that stay behind":

        def stuck(self, day, lag):
            mark = self._marks.get(lag)
            found = before(self, day, lag)
            self._marks[lag] = (day, mark[1] if mark and mark[0] < day else found)
            return found

        monkeypatch.setattr(Timeline, "_before", stuck)
    else:
        runs = timeline._Chosen.runs
        monkeypatch.setattr(
            timeline._Chosen, "runs", lambda self, c, days: [runs(self, c, days)[0], *self._add([0 * self._pieces[-1]])]
        )
    with pytest.raises((AssertionError, DataError)):  # a count below zero breaks the contract of counts
        assert_same(VIEW, events, landed(events, [0] * 5), list(days(FIRST, LAST)))


def test_an_offset_needs_a_window_and_is_not_negative():
    assert repr(agg.sum("cents", days=28, offset=28)) == "sum('cents', days=28, offset=28)"
    with pytest.raises(DefinitionError, match="an offset without a window"):
        Feature("x", agg.count(offset=1))
    with pytest.raises(DefinitionError, match="an offset below zero"):
        Feature("x", agg.count(days=1, offset=-1))
