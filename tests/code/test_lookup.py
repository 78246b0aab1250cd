"""How old a stored feature may be when it is served: days of the zone, the limit included, as in the offline join."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import agg
from lockstep.clock import Zone
from lockstep.define import Entity, Feature, View, source
from lockstep.lookup import BadRequest, NotOnline, check_age
from lockstep.polars_join import expiry

NEW_YORK = "America/New_York"
MICROSECOND = timedelta(microseconds=1)


@source(event_time="at", key="id")
def events(table: pl.LazyFrame) -> pl.LazyFrame:
    return table


def view(ttl_days: int) -> View:
    return View("v", [Entity("e", "id")], events, [Feature("n", agg.count())], ttl_days=ttl_days)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Snapshots are the first instants of days in New York; 2017-03-12 has 23 hours there and 2017-11-05 has 25.
@pytest.mark.parametrize(
    ("snapshot", "days", "last"),
    [
        ("2017-07-01T04:00", 1, "2017-07-02T04:00"),  # 24 hours
        ("2017-03-12T05:00", 1, "2017-03-13T04:00"),  # 23 hours
        ("2017-11-05T04:00", 1, "2017-11-06T05:00"),  # 25 hours
        ("2017-03-05T05:00", 7, "2017-03-12T05:00"),  # the short day begins
        ("2017-03-12T05:00", 7, "2017-03-19T04:00"),  # 167 hours
        ("2017-11-05T04:00", 7, "2017-11-12T05:00"),  # 169 hours
        ("2018-01-01T05:00", 7, "2018-01-08T05:00"),
    ],
)
def test_a_ttl_counts_calendar_days_and_its_last_instant_still_counts(snapshot, days, last):
    check_age(utc(snapshot), utc(last), view(days), NEW_YORK)
    with pytest.raises(NotOnline, match="a stale snapshot in view v") as e:
        check_age(utc(snapshot), utc(last) + MICROSECOND, view(days), NEW_YORK)
    assert e.value.status == 503


def test_the_store_answers_from_the_first_instant_of_its_snapshot_on():
    snapshot = utc("2017-11-05T04:00")
    check_age(snapshot, snapshot, view(1), NEW_YORK)
    with pytest.raises(BadRequest, match="the online store holds no history: `at` is too early") as e:
        check_age(snapshot, snapshot - MICROSECOND, view(1), NEW_YORK)
    assert e.value.status == 422


# Days on which clocks change; in Havana, Santiago and Lord Howe at midnight, or by half an hour.
CHANGES = {
    NEW_YORK: ["2017-03-12", "2017-11-05"],
    "Europe/London": ["2017-03-26", "2017-10-29"],
    "Australia/Lord_Howe": ["2017-04-02", "2017-10-01"],
    "America/Santiago": ["2017-05-13", "2017-05-14", "2017-08-12", "2017-08-13"],
    "America/Havana": ["2017-03-12", "2017-11-05"],
    "Asia/Kolkata": ["2017-06-01"],
    "UTC": ["2017-06-01"],
}
NEARBY = st.integers(-180, 180).map(lambda m: timedelta(minutes=m)) | st.sampled_from([MICROSECOND, -MICROSECOND])


@given(
    change=st.sampled_from([(zone, date.fromisoformat(day)) for zone, days in CHANGES.items() for day in days]),
    shift=st.integers(-1, 1),
    ttl=st.integers(1, 40),
    around=st.tuples(NEARBY | st.just(timedelta()), NEARBY, st.booleans()),
)
def test_an_age_is_judged_online_as_the_offline_join_judges_it(change, shift, ttl, around):
    """Around changes of clocks at the row's end or at the question's, rows of any instant among them."""
    (zone, day), (row, wall, before) = change, around
    day += timedelta(days=shift - before * ttl)
    snapshot = Zone(zone).start(day) + row
    at = max(Zone(zone).start(day + timedelta(days=ttl)) + row + wall, snapshot)
    instant = pl.select(pl.lit(at, pl.Datetime("us", "UTC")).to_physical().alias("at"))
    since = instant.select(expiry(pl.col("at"), timedelta(days=ttl), "us", zone)).item()
    offline = snapshot >= datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=since)
    try:
        check_age(snapshot, at, view(ttl), zone)
    except NotOnline:
        assert not offline
    else:
        assert offline
