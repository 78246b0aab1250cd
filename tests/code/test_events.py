from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.clock import INSTANT, Zone
from lockstep.contract import Contract, load_contracts
from lockstep.define import source
from lockstep.errors import DefinitionError
from lockstep.events import Events, Table, event_schema

ZONE = Zone("America/New_York")
FIRST, LAST = date(2017, 3, 2), date(2017, 3, 6)


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Contract:
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "visits.yaml").write_text(
        """
table: visits
version: 1
owner: tests
event_time: at
key: [id]
calendar: daily
lateness: {days: null, then: flag}
columns:
  id: {type: int64}
  who: {type: int64}
  at: {type: instant}
  cents: {type: int64}
""",
        encoding="utf-8",
    )
    return load_contracts(folder)["visits"]


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
        Events(share, {"visits": table(contract, ON_TIME)}, FIRST, LAST).known(LAST)


def test_an_entity_is_seen_from_its_first_landing_even_when_its_row_is_deleted_later(contract):
    rows = [*ON_TIME, (3, 2, 3, 30, 4, True)]
    seen = Events(spent, {"visits": table(contract, rows)}, FIRST, LAST).seen("who")
    assert seen.rows() == [(1, date(2017, 3, 1)), (2, date(2017, 3, 3))]


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
