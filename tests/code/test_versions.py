"""Versions of a row, against a naive reading of docs/semantics.md: plain Python, one row after the other."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lockstep.clock import INSTANT, Zone
from lockstep.contract import Column, Contract, Lateness
from lockstep.versions import fates, known, timing

ZONE = Zone("America/New_York")
D = [date(2017, 3, 10) + timedelta(days=n) for n in range(6)]  # across the night of 12 March, which has 23 hours


def contract(event_time="at", *, days=None, then="flag"):
    columns = {"a": "int64", "b": "string", "at": "instant", "day": "date", "value": "int64"}
    return Contract(
        "t", 1, "me", event_time, ("a", "b"), "irregular", Lateness(days, then),
        {n: Column(n, t) for n, t in columns.items()}, (),
    )  # fmt: skip


def rows(*lines):
    """Rows of (a, value, event day, landing day, deleted, received, reason)."""
    records = [
        {
            "a": a, "b": "x", "at": ZONE.start(day) + timedelta(hours=22, minutes=59), "day": day, "value": value,
            "_received_at": None if received is None else datetime(2017, 3, 20, received, tzinfo=UTC),
            "_deleted": deleted, "_landing_day": landing, "reason": reason,
        }
        for a, value, day, landing, deleted, received, reason in (
            (*line, *(False, None, None)[len(line) - 4 :]) for line in lines
        )
    ]  # fmt: skip
    schema = {"a": pl.Int64, "b": pl.String, "at": INSTANT, "day": pl.Date, "value": pl.Int64, "_received_at": INSTANT,
              "_deleted": pl.Boolean, "_landing_day": pl.Date, "reason": pl.String}  # fmt: skip
    return pl.DataFrame(records, schema=schema)


def judged(frame, terms):
    raw = frame.drop("reason")
    timed = timing(raw, frame["reason"], terms, ZONE)
    return fates(raw, timed["rule"], terms).with_columns(timed["late"])


def fate_of(frame, terms=None):
    marks = judged(frame, terms or contract())
    return [r or f for f, r in marks.select("fate", "rule").iter_rows()]


def test_the_same_content_again_is_a_duplicate_and_other_content_a_correction():
    frame = rows((1, 5, D[0], D[0]), (1, 5, D[0], D[1]), (1, 6, D[0], D[2]), (1, 5, D[0], D[3]))
    assert fate_of(frame) == ["kept", "duplicate", "kept", "kept"]
    assert judged(frame, contract())["correction"].to_list() == [False, False, True, True]
    assert known(frame, contract(), D[4], ZONE)["value"].to_list() == [5]  # A, B, A gives A


def test_copies_on_one_day_keep_the_first_received():
    frame = rows((1, 5, D[0], D[0], False, None), (1, 5, D[0], D[0], False, 9), (1, 5, D[0], D[0], False, 8))
    assert fate_of(frame) == ["duplicate", "duplicate", "kept"]


def test_two_contents_of_one_key_on_one_day_are_both_quarantined():
    frame = rows((1, 5, D[0], D[0]), (1, 6, D[0], D[0]), (1, 5, D[0], D[0]), (2, 5, D[0], D[0]))
    assert fate_of(frame) == ["conflict", "conflict", "conflict", "kept"]


def test_a_row_from_the_future_is_quarantined():
    assert fate_of(rows((1, 5, D[1], D[0]), (2, 5, D[0], D[0]))) == ["future", "kept"]


def test_a_quarantined_row_is_no_version():
    frame = rows((1, 5, D[0], D[0]), (1, 6, D[0], D[1], False, None, "bad"), (1, 5, D[0], D[2]))
    assert fate_of(frame) == ["kept", "bad", "duplicate"]
    frame = rows((1, 5, D[0], D[0]), (1, 6, D[0], D[0], False, None, "bad"))
    assert fate_of(frame) == ["kept", "bad"]


def test_a_late_row_is_counted_or_quarantined_as_the_contract_says():
    frame = rows((1, 5, D[0], D[2]), (2, 5, D[0], D[3]))
    assert judged(frame, contract())["late"].to_list() == [False, False]
    assert judged(frame, contract(days=2))["late"].to_list() == [False, True]
    assert fate_of(frame, contract(days=2)) == ["kept", "kept"]
    assert fate_of(frame, contract(days=2, then="quarantine")) == ["kept", "late"]


def test_all_reasons_are_named():
    frame = rows((1, 5, D[1], D[0], False, None, "bad"))
    assert fate_of(frame) == ["bad, future"]


def test_a_deletion_is_kept_and_takes_its_key_from_what_is_known():
    frame = rows((1, 5, D[0], D[0]), (1, 5, D[0], D[1], True), (1, 5, D[0], D[2], True), (1, 5, D[0], D[3]))
    assert fate_of(frame) == ["kept", "kept", "duplicate", "kept"]
    assert judged(frame, contract())["correction"].to_list() == [False, False, False, True]
    assert [known(frame, contract(), d, ZONE).height for d in D[:5]] == [0, 1, 0, 0, 1]


def test_an_event_is_not_known_before_the_day_after_it_even_when_it_landed():
    frame = rows((1, 5, D[0], D[0]))
    assert [known(frame, contract("day"), d, ZONE).height for d in D[:2]] == [0, 1]
    ahead = rows((1, 5, D[1], D[0]))  # never clean, but the page asks for both days
    assert [known(ahead, contract("day"), d, ZONE).height for d in D[:3]] == [0, 0, 1]


@pytest.mark.parametrize("event_time", ["at", "day", None])
def test_the_event_day_of_an_instant_is_its_day_in_the_zone(event_time):
    late_evening = rows((1, 5, D[2], D[2]))  # 22:59 in New York is the next day in UTC
    assert fate_of(late_evening, contract(event_time)) == ["kept"]


def test_nothing_landed_is_nothing_known():
    empty = rows().clear()
    assert fate_of(empty) == []
    assert known(empty, contract(), D[0], ZONE).is_empty()


# The oracle


def naive_event_day(row, terms):
    return row["_landing_day"] if terms.event_time is None else row["day"]


def naive_fates(frame, terms):
    found = [None] * frame.height
    by_key = defaultdict(lambda: defaultdict(list))
    for n, row in enumerate(frame.to_dicts()):
        reasons = [row["reason"]] if row["reason"] else []
        if naive_event_day(row, terms) > row["_landing_day"]:
            reasons.append("future")
        too_late = terms.lateness.days is not None and row["_landing_day"] - naive_event_day(row, terms) > timedelta(
            days=terms.lateness.days
        )
        if too_late and terms.lateness.then == "quarantine":
            reasons.append("late")
        found[n] = ("quarantined", ", ".join(reasons), False, too_late) if reasons else ("?", None, False, too_late)
        if not reasons:
            by_key[row["a"], row["b"]][row["_landing_day"]].append((n, row))
    for days in by_key.values():
        latest = None
        for day in sorted(days):
            contents = {n: tuple(row[c] for c in ("at", "day", "value", "_deleted")) for n, row in days[day]}
            fate = dict.fromkeys(contents, ("duplicate", None, False))
            if len(set(contents.values())) > 1:
                fate = dict.fromkeys(contents, ("quarantined", "conflict", False))
            elif (content := next(iter(contents.values()))) != latest:
                first = min(days[day], key=lambda x: (x[1]["_received_at"] is None, x[1]["_received_at"] or 0))[0]
                fate[first] = ("kept", None, latest is not None and not content[-1])
                latest = content
            for n, what in fate.items():
                found[n] = (*what, found[n][3])
    return found


def naive_known(frame, marks, terms, before):
    latest = {}
    for row, mark in zip(frame.to_dicts(), marks, strict=True):
        key = (row["a"], row["b"])
        if mark[0] == "kept" and row["_landing_day"] < before:
            latest[key] = max(latest.get(key, row), row, key=lambda r: r["_landing_day"])
    rows = [latest[k] for k in sorted(latest)]
    return [r for r in rows if not r["_deleted"] and naive_event_day(r, terms) < before]


LINES = st.lists(
    st.tuples(
        st.integers(1, 3), st.integers(1, 2), st.sampled_from(D[:4]), st.sampled_from(D[:5]),
        st.sampled_from([False, False, True]), st.sampled_from([None, 8, 9]),
        st.sampled_from([None, None, None, "bad"]),
    ),
    max_size=14,
)  # fmt: skip
TERMS = st.builds(
    contract, st.sampled_from(["at", "day", None]), days=st.sampled_from([None, 0, 1, 2]),
    then=st.sampled_from(["flag", "quarantine"]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LINES, TERMS, st.randoms(use_true_random=False))
def test_versions_and_knowledge_follow_the_page(lines, terms, random):
    frame = rows(*lines)
    expected = naive_fates(frame, terms)
    marks = judged(frame, terms)
    fate = pl.DataFrame(expected, schema=["fate", "rule", "correction", "late"], orient="row")
    chosen = ["fate", "rule", "correction", "late"]
    # Copies that differ in nothing are one: which of them is called the duplicate does not matter.
    with_rows = frame.hstack(marks.select(chosen)).sort(pl.all(), nulls_last=True)
    with_expected = frame.hstack(fate.cast(dict(marks.select(chosen).schema))).sort(pl.all(), nulls_last=True)
    assert_frame_equal(with_rows, with_expected)

    clean = frame.filter(marks["fate"] == "kept").drop("reason")
    shuffled = clean[random.sample(range(clean.height), clean.height)] if clean.height else clean
    for day in (*D, date(2018, 1, 1)):
        expected_rows = naive_known(frame, expected, terms, day)
        expected_frame = pl.DataFrame(expected_rows, schema=frame.schema).drop("reason")
        assert_frame_equal(known(shuffled, terms, day, ZONE), expected_frame.select(clean.columns))


@settings(max_examples=100, deadline=None)
@given(LINES, TERMS, st.sampled_from(D))
def test_what_lands_later_changes_no_earlier_fate(lines, terms, day):
    frame = rows(*lines)
    early = frame["_landing_day"] < day
    then = frame.filter(early).hstack(judged(frame.filter(early), terms)).sort(pl.all(), nulls_last=True)
    now = frame.filter(early).hstack(judged(frame, terms).filter(early)).sort(pl.all(), nulls_last=True)
    assert_frame_equal(then, now)


def test_known_and_fates_do_not_depend_on_row_order_in_a_larger_table():
    frame = rows(*((n % 40, n % 3, D[n % 3], D[3 + n % 3]) for n in range(400)))
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    one = frame.hstack(judged(frame, contract())).sort(pl.all(), nulls_last=True)
    other = shuffled.hstack(judged(shuffled, contract())).sort(pl.all(), nulls_last=True)
    assert_frame_equal(one, other)
