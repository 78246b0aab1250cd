from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lockstep import agg
from lockstep.clock import INSTANT, Zone
from lockstep.contract import Contract, load_contracts
from lockstep.day_cache import DayCache, Hashes
from lockstep.define import Entity, Feature, Source, View, source
from lockstep.derive import event_schema
from lockstep.errors import DefinitionError
from lockstep.events import Events
from lockstep.snapshot import snapshot
from lockstep.snapshots import Built, _computed_together
from lockstep.tables import Table
from tests.code import definitions

ZONE = Zone("America/New_York")
FIRST, LAST = date(2017, 3, 2), date(2017, 3, 6)
ABOUT = [Feature("n", agg.count()), Feature("spent", agg.sum("price", days=2)), Feature("gaps", agg.std("gap"))]


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Contract:
    columns = {"id": "int64", "who": "int64", "at": "instant", "cents": "int64"}
    return definitions.contract(tmp_path_factory.mktemp("contracts"), columns)


def table(contract: Contract, rows: list[tuple]) -> Table:
    """Rows of (id, who, day of March 2017, cents, landing day of March 2017, deleted)."""
    frame = pl.DataFrame(
        [(i, w, datetime(2017, 3, d, 17, tzinfo=UTC), c, None, x, date(2017, 3, n)) for i, w, d, c, n, x in rows],
        schema={
            "id": pl.Int64, "who": pl.Int64, "at": INSTANT, "cents": pl.Int64, "_received_at": INSTANT,
            "_deleted": pl.Boolean, "_landing_day": pl.Date,
        },
        orient="row",
    )  # fmt: skip
    return Table(contract, frame, ZONE)


@source(event_time="at", key="id", causal=True)
def spent(visits: pl.LazyFrame) -> pl.LazyFrame:
    """What was spent so far, which looks back alone."""
    return visits.sort("at", "id").with_columns(pl.col("cents").cum_sum().over("who").alias("so_far"))


@source(event_time="at", key="id", causal=True)
def share(visits: pl.LazyFrame) -> pl.LazyFrame:
    """A share of all that will ever be spent: a leak."""
    return visits.with_columns((pl.col("cents") * 100 // pl.col("cents").sum().over("who")).alias("percent"))


ON_TIME = [(1, 1, 1, 10, 1, False), (2, 1, 2, 20, 2, False), (3, 2, 3, 30, 3, False), (4, 1, 4, 40, 4, False)]


def test_the_short_way_gives_the_same_events_as_the_definition_on_every_day(contract):
    events = Events(spent, {"visits": table(contract, ON_TIME)}, FIRST, LAST)
    assert events.short
    for n in range(2, 7):
        assert events.known(date(2017, 3, n)).equals(events.derived(date(2017, 3, n)))
    assert events.known(date(2017, 3, 4))["so_far"].to_list() == [10, 30, 30]


@pytest.mark.parametrize(
    "unsettled",
    [
        pytest.param((5, 1, 1, 99, 4, False), id="late"),
        pytest.param((1, 1, 1, 99, 4, False), id="corrected"),
        pytest.param((1, 1, 1, 10, 4, True), id="deleted"),
    ],
)
def test_a_row_that_came_late_changed_or_went_shows_from_the_day_after_it_landed(contract, unsettled):
    before = Events(spent, {"visits": table(contract, ON_TIME)}, FIRST, LAST)
    after = Events(spent, {"visits": table(contract, [*ON_TIME, unsettled])}, FIRST, LAST)
    assert not after.short
    assert after.known(date(2017, 3, 4)).equals(before.known(date(2017, 3, 4)))
    assert not after.known(date(2017, 3, 5)).equals(before.known(date(2017, 3, 5)))


def test_an_event_that_grows_on_a_later_day_is_derived_from_the_known_rows_of_each_day(contract):
    @source(event_time="at", key="who", causal=True)  # a basket, say: its rows may lie on two days
    def baskets(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits.group_by("who").agg(pl.col("at").min(), pl.col("cents").sum())

    events = Events(baskets, {"visits": table(contract, ON_TIME)}, FIRST, LAST)
    assert not events.short
    assert events.known(date(2017, 3, 2))["cents"].to_list() == [10]
    assert sorted(events.known(date(2017, 3, 5))["cents"].to_list()) == [30, 70]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.integers(1, 2), st.integers(1, 5), st.integers(0, 9), st.integers(0, 3), st.booleans()
        ),
        max_size=6,
        unique_by=lambda r: (r[0], min(r[2] + r[4], 5)),
    ),
    st.integers(2, 6),
)
def test_no_row_that_lands_on_or_after_a_day_changes_what_was_known_on_it(contract, rows, day):
    landed = [(i, w, d, c, min(d + late, 5), gone) for i, w, d, c, late, gone in rows]
    before = [r for r in landed if r[4] < day]
    today = date(2017, 3, day)
    all_of = Events(spent, {"visits": table(contract, landed)}, FIRST, LAST).known(today)
    known = Events(spent, {"visits": table(contract, before)}, FIRST, LAST).known(today)
    assert all_of.equals(known)


def test_a_source_that_claims_to_be_causal_and_is_not_is_refused(contract):
    with pytest.raises(DefinitionError, match=r"not causal in source share, known on 2017-03-04.*Remove causal=True"):
        Events(share, {"visits": table(contract, ON_TIME)}, FIRST, LAST).known(FIRST)


def test_an_entity_is_seen_from_its_first_landing_even_when_its_row_is_deleted_later(contract):
    rows = [*ON_TIME, (3, 2, 3, 30, 4, True)]
    seen = Events(spent, {"visits": table(contract, rows)}, FIRST, LAST).seen(["who"], LAST)
    assert seen.rows() == [(1, date(2017, 3, 1)), (2, date(2017, 3, 3))]


@source(event_time="at", key="id", causal=True)
def halves(visits: pl.LazyFrame) -> pl.LazyFrame:
    """Visits with a key that no raw table carries."""
    return visits.with_columns((pl.col("cents") > 20).alias("large").cast(pl.String))


@pytest.mark.parametrize(
    ("more", "pairs"),
    [
        pytest.param([], [(1, "false"), (1, "true"), (2, "true")], id="settled"),
        pytest.param(
            [(3, 2, 3, 30, 4, True), (2, 1, 2, 21, 5, False), (5, 3, 1, 1, 5, False)],
            [(1, "false"), (1, "true"), (2, "true"), (3, "false")],
            id="deleted-corrected-late",
        ),
    ],
)
def test_an_entity_that_no_table_carries_whole_is_seen_from_its_first_event_and_for_good(contract, more, pairs):
    events = Events(halves, {"visits": table(contract, [*ON_TIME, *more])}, FIRST, LAST)
    assert events.short == (not more)
    assert events.entities(["who", "large"], date(2017, 3, 4)).rows() == [(1, "false"), (2, "true")]
    assert events.entities(["who", "large"], LAST).rows() == pairs

    alone = Events(replace(halves, causal=False), events.tables, FIRST, LAST)
    for n in range(2, 7):
        day = date(2017, 3, n)
        assert alone.entities(["who", "large"], day).equals(events.entities(["who", "large"], day))


@source(event_time="at", key="id", within_day=True)
def recoded(visits: pl.LazyFrame) -> pl.LazyFrame:
    """Visits whose key is named otherwise than in the raw table."""
    return visits.with_columns(pl.when(pl.col("who") == 2).then(99).otherwise("who").cast(pl.Int64).alias("who"))


def test_an_entity_that_a_source_names_otherwise_than_its_table_keeps_its_events(contract):
    for rows in (ON_TIME, [*ON_TIME, (5, 2, 1, 1, 5, False)]):
        events = Events(recoded, {"visits": table(contract, rows)}, FIRST, LAST)
        assert events.entities(["who"], LAST).rows() == [(1,), (2,), (99,)]
        assert events.entities(["who"], date(2017, 3, 3)).rows() == [(1,)]


def test_an_entity_under_another_name_than_its_row_s_stays_when_the_row_is_deleted(contract):
    gone = (3, 2, 3, 30, 4, True)  # of shopper 2, whom the source calls 99
    events = Events(recoded, {"visits": table(contract, [*ON_TIME, gone])}, FIRST, LAST)
    seen = [(99,) in events.entities(["who"], date(2017, 3, n)).rows() for n in range(2, 7)]
    assert seen == sorted(seen)
    assert seen[-1]


def test_events_that_grow_are_seen_where_the_source_renames_their_key(contract):
    @source(event_time="at", key="basket", causal=True)
    def baskets(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits.group_by(pl.col("who").alias("basket")).agg(pl.col("at").min(), pl.col("cents").sum())

    lines = replace(contract, key=("who", "id"))
    rows = [(n, n, n, 10, n, False) for n in range(1, 6)] + [
        (9, 4, 5, 500, 5, False)
    ]  # basket 4 goes on after midnight
    events = Events(baskets, {"visits": table(lines, rows)}, FIRST, LAST)
    with pytest.raises(DefinitionError, match="a source that is not causal in source baskets"):
        events.known(date(2017, 3, 5))


def test_of_a_corrected_row_the_entity_that_is_known_now_is_among_those_seen(contract):
    @source(event_time="at", key="who")
    def dearest(visits: pl.LazyFrame) -> pl.LazyFrame:  # what was bought for most, by shopper
        of = visits.group_by("who", "id").agg(pl.col("cents").sum(), pl.col("at").min())
        best = of.sort("cents").group_by("who").agg(pl.col("id").last().alias("best"), pl.col("at").min())
        return best.with_columns(pl.col("best").cast(pl.String))

    rows = [(1, 1, 2, 500, 2, False), (2, 1, 2, 300, 2, False), (1, 1, 2, 100, 4, False)]  # 1 was no 500
    events = Events(dearest, {"visits": table(contract, rows)}, FIRST, LAST)
    assert events.known(LAST)["best"].to_list() == ["2"]
    assert events.entities(["who", "best"], LAST).rows() == [(1, "1"), (1, "2")]


def test_a_row_that_moved_to_another_day_is_seen_where_a_source_drops_its_last_version(contract):
    @source(event_time="at", key="id", within_day=True)
    def paid(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits.filter(pl.col("cents") > 0)

    rows = [*ON_TIME, (1, 1, 5, 0, 5, False)]  # row 1 is now of the fifth, and nothing was paid
    events = Events(paid, {"visits": table(contract, rows)}, FIRST, LAST)
    assert not events.short
    assert events.known(LAST)["id"].to_list() == [2, 3, 4]


def test_the_event_time_may_be_part_of_the_key(contract):
    @source(event_time="at", key=("who", "at"), within_day=True)
    def moments(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits.unique(["who", "at"])

    assert Events(moments, {"visits": table(contract, ON_TIME)}, FIRST, LAST).known(LAST).height > 0


def test_a_key_that_does_not_tell_events_apart_is_refused(contract):
    @source(event_time="at", key="who", within_day=True)
    def of_two(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits

    rows = [*ON_TIME, (5, 1, 1, 50, 1, False)]
    with pytest.raises(DefinitionError, match=r"does not tell events apart in source of_two.*'who': 1.*Name in key="):
        Events(of_two, {"visits": table(contract, rows)}, FIRST, LAST).known(LAST)


def test_events_of_tables_without_event_times_are_derived_once_for_days_that_know_the_same(contract, tmp_path):
    about = {"table": "offers", "event_time": None, "calendar": "irregular"}
    announced = definitions.contract(tmp_path, {"id": "int64", "start": "date"}, **about)
    rows = pl.DataFrame(
        [(1, date(2017, 3, 3), None, False, date(2017, 3, 1)), (2, date(2017, 3, 9), None, False, date(2017, 3, 4))],
        schema={
            "id": pl.Int64, "start": pl.Date, "_received_at": INSTANT, "_deleted": pl.Boolean, "_landing_day": pl.Date
        },
        orient="row",
    )  # fmt: skip
    calls = []

    @source(event_time="start", key="id")
    def offers(offers: pl.LazyFrame) -> pl.LazyFrame:
        calls.append(1)
        return offers

    events = Events(offers, {"offers": Table(announced, rows, ZONE)}, FIRST, LAST)
    found = {n: events.known(date(2017, 3, n))["id"].to_list() for n in (2, 3, 4, 5, 6)}
    assert found == {2: [1], 3: [1], 4: [1], 5: [1, 2], 6: [1, 2]}  # announced ahead: known before they start
    assert len(calls) == 2


def test_a_source_of_an_unknown_table_or_key_is_refused_with_the_nearest_name(contract):
    @source(event_time="at", key="id")
    def a(visit: pl.LazyFrame) -> pl.LazyFrame:
        return visit

    @source(event_time="when", key="id")
    def b(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits

    with pytest.raises(DefinitionError, match=r"unknown table 'visit' in source a. Did you mean 'visits'"):
        event_schema(a, {"visits": contract}, ZONE)
    with pytest.raises(DefinitionError, match=r"unknown column 'when' in source b"):
        event_schema(b, {"visits": contract}, ZONE)


@source(event_time="at", key="id", within_day=True, gap_of="who")
def bought(visits: pl.LazyFrame) -> pl.LazyFrame:
    """What was bought, as it came."""
    return visits.select("id", "who", "at", "cents")


@source(event_time="at", key="id", within_day=True)
def first_of_all(visits: pl.LazyFrame) -> pl.LazyFrame:
    """What each bought first among the rows it is shown: it follows from more than a day."""
    return visits.sort("at", "id").unique("who", keep="first", maintain_order=True)


def test_events_that_follow_from_their_day_are_those_of_the_definition_on_every_day(contract):
    rows = [*ON_TIME, (5, 2, 3, 5, 3, False), (6, 1, 3, 5, 3, False)]
    events = Events(bought, {"visits": table(contract, rows)}, FIRST, LAST)
    assert events.short
    for n in range(2, 7):
        day = date(2017, 3, n)
        assert_frame_equal(events.known(day), events.derived(day), check_column_order=False)
    gaps = dict(events.known(LAST).select("id", "gap").iter_rows())
    day = 86_400_000_000
    assert gaps == {1: None, 2: day, 3: None, 4: day, 5: 0, 6: day}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.integers(1, 2), st.integers(1, 5), st.integers(0, 9), st.sampled_from([0, 0, 0, 1])
        ),
        max_size=8,
        unique_by=lambda r: (r[0], min(r[2] + r[4], 5)),
    )
)
def test_whatever_lands_and_whenever_the_short_way_gives_the_events_of_the_definition(contract, rows):
    """Late rows and corrections among them: then the short way is not taken."""
    landed = [(i, w, d, c, min(d + late, 5), False) for i, w, d, c, late in rows]
    events = Events(bought, {"visits": table(contract, landed)}, FIRST, LAST)
    for n in range(2, 7):
        day = date(2017, 3, n)
        assert_frame_equal(events.known(day), events.derived(day), check_column_order=False)


@pytest.mark.parametrize(
    "unsettled",
    [
        pytest.param((5, 1, 1, 99, 4, False), id="late"),
        pytest.param((1, 1, 4, 99, 4, False), id="corrected, with its day"),
        pytest.param((9, 1, 4, 10, 4, True), id="deleted"),
    ],
)
def test_events_do_not_follow_from_their_day_where_a_row_came_late_changed_or_went(contract, unsettled):
    assert not Events(bought, {"visits": table(contract, [*ON_TIME, unsettled])}, FIRST, LAST).short


def test_a_source_that_claims_to_follow_from_a_day_and_does_not_is_refused(contract):
    with pytest.raises(
        DefinitionError, match=r"not within_day in source first_of_all, known on .*Remove within_day=True"
    ):
        Events(first_of_all, {"visits": table(contract, ON_TIME)}, FIRST, LAST).known(LAST)


@pytest.mark.parametrize(
    ("again", "short"),
    [
        pytest.param(None, True, id="every line on its day"),
        pytest.param((1, 2, 4, 9, 4, False), False, id="a line corrected onto a later day"),
    ],
)
def test_what_only_the_versions_of_rows_explain_is_no_false_claim(contract, again, short):
    @source(event_time="at", key="who", within_day=True)
    def baskets(visits: pl.LazyFrame) -> pl.LazyFrame:
        return visits.group_by("who").agg(pl.col("at").min(), pl.col("cents").sum())

    lines = replace(contract, key=("who", "id"))  # line `id` of basket `who`
    rows = [(1, 1, 1, 10, 1, False), (1, 2, 2, 20, 2, False), (1, 3, 4, 30, 4, False), *([again] if again else [])]
    events = Events(baskets, {"visits": table(lines, rows)}, FIRST, LAST)
    assert events.short is short
    for n in range(2, 7):
        assert_frame_equal(events.known(date(2017, 3, n)), events.derived(date(2017, 3, n)), check_column_order=False)


def test_an_honest_claim_is_proven_without_sorting_out_the_versions_of_all_rows(contract, monkeypatch):
    monkeypatch.setattr(Table, "known", lambda *_: pytest.fail("all rows were read and sorted"))
    assert Events(bought, {"visits": table(contract, ON_TIME)}, FIRST, LAST).known(LAST).height == 4


@pytest.mark.parametrize("part", [1, 2], ids=["shown all of the past", "shown some days of it"])
def test_a_false_claim_is_refused_however_few_days_are_derived_at_once_and_leaves_nothing_behind(
    contract, tmp_path, monkeypatch, part
):
    monkeypatch.setattr("lockstep.day_events.BATCH", 1)  # partitions of real volume: a day at a time
    files = {}
    for n in range(1, 5):
        path = files[date(2017, 3, n)] = tmp_path / f"2017-03-0{n}.parquet"
        table(contract, [r for r in ON_TIME if r[4] == n]).rows.write_parquet(path)
    monkeypatch.setattr("lockstep.day_events.PAST", 1 + sum(f.stat().st_size for f in files.values()) // part)
    cache = DayCache(tmp_path / "kept", Hashes(tmp_path / "hashes.json"))
    with pytest.raises(DefinitionError, match="not within_day in source first_of_all"):
        Events(first_of_all, {"visits": Table(contract, None, ZONE, files)}, FIRST, LAST, cache=cache).known(LAST)
    assert not list((tmp_path / "kept").glob("*.parquet"))


def test_a_new_day_derives_that_day_and_a_changed_one_that_one_alone(contract, tmp_path, monkeypatch):
    cache = lambda: DayCache(tmp_path / "kept", Hashes(tmp_path / "hashes.json"))  # noqa: E731
    files = {}
    for n in range(1, 5):
        path = files[date(2017, 3, n)] = tmp_path / f"2017-03-0{n}.parquet"
        table(contract, [r for r in ON_TIME if r[4] == n]).rows.write_parquet(path)
    derived, keep = [], DayCache.keep

    def recorded(self, day, *rest):
        derived.extend([day.day] if self.folder.name == "kept" else [])
        return keep(self, day, *rest)

    monkeypatch.setattr(DayCache, "keep", recorded)

    def events(last: int, code: str = "") -> pl.DataFrame:
        landed = {d: f for d, f in files.items() if d.day < last}
        found = Events(
            bought,
            {"visits": Table(contract, None, ZONE, landed)},
            FIRST,
            date(2017, 3, last),
            cache=cache(),
            code=code,
        )
        derived.clear()
        assert found.short
        assert_frame_equal(found.known(found.last), found.derived(found.last), check_column_order=False)
        alone = Events(bought, {"visits": Table(contract, None, ZONE, landed)}, FIRST, found.last)
        assert found.seen(["who"], found.last).equals(alone.seen(["who"], found.last))
        return found.known(found.last)

    assert (events(4).height, derived) == (3, [1, 2, 3])
    assert (events(5).height, derived) == (4, [4])
    assert (events(5).height, derived) == (4, [])
    table(contract, [(3, 2, 3, 31, 3, False)]).rows.write_parquet(files[date(2017, 3, 3)])
    assert (events(5)["cents"].to_list(), derived) == ([10, 20, 31, 40], [3])
    (kept,) = (tmp_path / "kept").glob("2017-03-02.*")
    kept.write_bytes(kept.read_bytes()[:50])
    assert (events(5).height, derived) == (4, [2])
    assert (events(5, code="other").height, derived) == (4, [1, 2, 3, 4])


GOODS = """
table: goods
version: 1
owner: tests
event_time: null
key: [id]
calendar: irregular
lateness: {days: null, then: flag}
columns: {id: {type: int64}, price: {type: int64}}
"""


def priced(visits: pl.LazyFrame, goods: pl.LazyFrame) -> pl.LazyFrame:
    """Visits with the price of what was bought (good `cents`), as it is known."""
    dear = pl.col("price") > 5
    joined = visits.join(goods.select(pl.col("id").alias("cents"), "price"), on="cents", how="left")
    return joined.with_columns(pl.when(dear).then(-pl.col("who")).otherwise("who").alias("whom"))


def priced_tables(contract: Contract, folder: Path, rows: list[tuple], goods: list[tuple]) -> dict[str, Table]:
    """Goods of (id, price, deleted, landing day of March 2017)."""
    (folder / "goods.yaml").write_text(GOODS, encoding="utf-8")
    about = load_contracts(folder)["goods"]
    landed = [(i, price, None, gone, date(2017, 3, n)) for i, price, gone, n in goods]
    names = ["id", "price", "_received_at", "_deleted", "_landing_day"]
    schema = {n: about.clean_schema()[n] for n in names}
    return {"visits": table(contract, rows), "goods": Table(about, pl.DataFrame(landed, schema, orient="row"), ZONE)}


def test_events_are_derived_once_between_two_landings_of_a_row_that_changes_the_past(contract, tmp_path, monkeypatch):
    goods = [(10, 1, False, 1), (20, 9, False, 3), (20, 2, False, 3 + 6)]
    tables = priced_tables(contract, tmp_path, ON_TIME, goods)
    events = Events(Source("priced", ("visits", "goods"), priced, "at", ("id",), within_day=True), tables, FIRST, LAST)
    assert not events.short
    assert [events.until(date(2017, 3, n)).day for n in range(1, 8)] == [1, 3, 3, 6, 6, 6, 7]
    known, asked = Table.known, []
    monkeypatch.setattr(Table, "known", lambda self, day: asked.append(day.day) or known(self, day))
    prices = [events.known(date(2017, 3, n))["price"].to_list() for n in range(2, 7)]
    assert prices == [[1], [1, None], [1, 9, None], [1, 9, None, None], [1, 9, None, None]]
    assert asked == [3, 3, 6, 6]  # once for each of the tables


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.integers(1, 2), st.integers(1, 5), st.integers(1, 3),
            st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([False, False, True]),
        ),
        max_size=8, unique_by=lambda r: (r[0], min(r[2] + r[4], 5)),
    ),
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 9), st.booleans(), st.integers(1, 5)),
        max_size=5, unique_by=lambda r: (r[0], r[3]),
    ),
    st.sampled_from([("causal", "who"), ("causal", "whom"), ("within_day", "who"), ("within_day", "whom")]),
)  # fmt: skip
def test_whatever_lands_in_whichever_table_a_year_cut_into_runs_is_that_of_each_day_by_definition(
    contract, tmp_path_factory, rows, goods, of
):
    claim, key = of
    landed = [(i, w, d, c, min(d + late, 5), gone) for i, w, d, c, late, gone in rows]
    tables = priced_tables(contract, tmp_path_factory.getbasetemp(), landed, goods)
    plain = Source("priced", ("visits", "goods"), priced, "at", ("id",), gap_of="who")
    short, long = (Events(s, tables, FIRST, LAST) for s in (replace(plain, **{claim: True}), plain))
    view = View("v", [Entity("shopper", key=key)], plain, ABOUT, ttl_days=1)
    days = [date(2017, 3, n) for n in range(2, 7)]
    some = [days, days[::2]]  # of two views of the source, one lacks other days than the other
    found = {(n, day): frame for n, day, frame in _computed_together([Built(view, {}, d) for d in some], short)}
    assert set(found) == {(n, day) for n, wanted in enumerate(some) for day in wanted}
    for day in days:
        assert_frame_equal(short.known(day), long.derived(day), check_column_order=False)
        assert short.entities([key], day).equals(long.entities([key], day))
        expected = snapshot(view, long.derived(day), long.entities([key], day), day, ZONE)
        assert all(found[n, day].equals(expected) for n in range(2) if day in some[n])
