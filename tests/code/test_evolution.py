"""What a new version of a contract changes, and whom that breaks: by hand, and against a naive oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.contract import Rule, load_contracts
from lockstep.evolution import _moved, diff
from lockstep.grammar import read_contract
from tests.conftest import ROOT

SALES = """
table: sales
version: 1
owner: tests
event_time: at_utc
key: [id]
calendar: daily
lateness: {days: 2, then: quarantine}
columns:
  id: {type: int64}
  household_key: {type: int64, range: [1, null]}
  at_utc: {type: instant}
  cents: {type: int64, unit: cents, range: [0, 100]}
  size: {type: string, nullable: true, set: [s, m]}
  code: {type: string, regex: "[a-z]+"}
rules:
  - {name: not_free, kind: range, columns: [cents], params: {between: [1, null]}, then: flag}
"""


def contract(tmp_path, text, name="sales"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return read_contract(path)


BOTH, NOBODY = ("consumers", "producers"), ()


@pytest.mark.parametrize(
    ("was", "became", "told"),
    [
        ("version: 1", "version: 2", []),
        ("owner: tests", "owner: others", [("owner changed", "sales", NOBODY)]),
        ("key: [id]", "key: [id, at_utc]", [("key changed", "sales", BOTH)]),
        ("event_time: at_utc", "event_time: null", [("event_time changed", "sales", BOTH)]),
        ("calendar: daily", "calendar: irregular", [("calendar changed", "sales", BOTH)]),
        ("{days: 2, then: q", "{days: 1, then: q", [("lateness changed", "sales", ("producers",))]),
        ("{days: 2, then: q", "{days: null, then: q", [("lateness changed", "sales", ("consumers",))]),
        ("{days: 2, then: quarantine}", "{days: 2, then: flag}", [("lateness changed", "sales", ("consumers",))]),
        ("  cents: {", "  size_cm: {type: int64}\n  cents: {", [("required column added", "size_cm", ("producers",))]),
        ("  cents: {", "  tip: {type: int64, nullable: true}\n  cents: {", [("optional column added", "tip", NOBODY)]),
        ('  code: {type: string, regex: "[a-z]+"}\n', "", [("column removed", "code", BOTH)]),
        ("  household_key:", "  household_id:", [("column renamed", "household_key", BOTH)]),
        ("  household_key:", "  HOUSEHOLD_KEY:", [("column renamed", "household_key", BOTH)]),
        ("size: {type: string", "width: {type: string", [("column renamed", "size", BOTH)]),
        ("cents: {type: int64", "cents: {type: float64", [("column retyped", "cents", BOTH)]),
        ("unit: cents", "unit: dollars", [("unit changed", "cents", BOTH)]),
        ("at_utc: {type: instant}", "at_utc: {type: instant, nullable: {then: quarantine}}",
         [("rule changed", "at_utc.not_null", NOBODY)]),
        ("code: {type: string,", "code: {type: string, nullable: true,",
         [("made nullable", "code.not_null", ("consumers",))]),
        ("size: {type: string, nullable: true", "size: {type: string",
         [("made required", "size.not_null", ("producers",))]),
        ("size: {type: string, nullable: true", "size: {type: string, nullable: {then: flag}",
         [("made required", "size.not_null", NOBODY)]),
        ("[0, 100]", "[0, 99]", [("rule narrowed", "cents.range", ("producers",))]),
        ("[0, 100]", "[0, null]", [("rule widened", "cents.range", ("consumers",))]),
        ("[0, 100]", "[1, 101]", [("rule changed", "cents.range", BOTH)]),
        ("[0, 100]", "{between: [0, 99], then: cap}", [("rule narrowed", "cents.range", NOBODY)]),
        ("[0, 100]", "{between: [0, 100], then: fail}", [("rule changed", "cents.range", ("producers",))]),
        ("[0, 100]", "{between: [0, 100], then: flag}", [("rule changed", "cents.range", ("consumers",))]),
        ("set: [s, m]", "set: [s]", [("rule narrowed", "size.set", ("producers",))]),
        ("set: [s, m]", "set: [m, l, s]", [("rule widened", "size.set", ("consumers",))]),
        ("set: [s, m]", "set: [m, s]", []),
        ("[a-z]+", "[a-z]*", [("rule changed", "code.regex", BOTH)]),
        (', regex: "[a-z]+"', "", [("rule removed", "code.regex", ("consumers",))]),
        ("[1, null]}, then: flag", "[2, null]}, then: flag", [("rule narrowed", "not_free", NOBODY)]),
        ("[1, null]}, then: flag", "[1, null]}, then: quarantine", [("rule changed", "not_free", ("producers",))]),
        ("name: not_free,", "name: paid,", [("rule renamed", "not_free", NOBODY)]),
        ("range: [0, 100]}", "}\n  zip: {type: string, nullable: true}", [
            ("optional column added", "zip", NOBODY), ("rule removed", "cents.range", ("consumers",))]),
    ],
)  # fmt: skip
def test_each_change_is_told_with_whom_it_breaks(tmp_path, was, became, told):
    assert was in SALES
    new = SALES.replace(was, became)
    assert [(c.what, c.where, c.breaks) for c in diff(contract(tmp_path, SALES), contract(tmp_path, new))] == told


STATISTIC = "statistics: {over_days: 7, rules: [{name: m, kind: mean, column: cents, at_most: 0.5, then: fail}]}"


@pytest.mark.parametrize(
    ("was", "became", "told"),
    [
        ("slo: {records: 0.99, then: fail}", "slo: {records: 0.9, then: fail}", ("slo changed", ("consumers",))),
        ("slo: {records: 0.9, then: fail}", "slo: {records: 0.99, then: fail}", ("slo changed", ("producers",))),
        ("slo: {records: 0.9, then: flag}", "slo: {records: 0.99, then: flag}", ("slo changed", NOBODY)),
        ("slo: {records: 0.9, then: fail}", "slo: {records: 0.9, then: flag}", ("slo changed", ("consumers",))),
        ("", "volume: {rows: [1, 9], then: fail}", ("volume added", ("producers",))),
        ("volume: {rows: [1, 9], then: fail}", "", ("volume removed", ("consumers",))),
        ("volume: {rows: [1, 9], then: fail}", "volume: {rows: [2, 10], then: fail}", ("volume changed", BOTH)),
        ("volume: {rows: [1, 9], then: flag}", "volume: {rows: [1, 8], then: flag}", ("volume changed", NOBODY)),
        ("health: {then: fail}", "health: {low: 0.7, then: fail}", ("health changed", ("producers",))),
        ("health: {then: fail}", "health: {late_days: null, then: fail}", ("health changed", ("consumers",))),
        ("health: {then: fail}", 'health: {gaps: ["2017-12-25"], then: fail}', ("health changed", ("consumers",))),
        ("health: {then: flag}", "health: {high: 3, then: flag}", ("health changed", NOBODY)),
        (STATISTIC, STATISTIC.replace("0.5", "0.4"), ("statistic changed", ("producers",))),
        (STATISTIC, STATISTIC.replace("mean", "std").replace("at_most: 0.5", "within: [0, 0.5]"),
         ("statistic changed", BOTH)),
        (STATISTIC, STATISTIC.replace("over_days: 7", "over_days: 8"), ("statistics changed", BOTH)),
        (STATISTIC, "", ("statistic removed", ("consumers",))),
        ("", STATISTIC.replace("fail", "flag"), ("statistic added", NOBODY)),
    ],
)  # fmt: skip
def test_what_is_judged_over_days_breaks_consumers_where_relaxed_and_producers_where_tightened(
    tmp_path, was, became, told
):
    old, new = (contract(tmp_path, f"{SALES}\n{extra}\n") for extra in (was, became))
    assert [(c.what, c.breaks) for c in diff(old, new)] == [told]


def test_health_is_told_in_plain_words_whose_days_are_sorted(tmp_path):
    gaps = 'health: {low: 0.5, high: 2, gaps: ["2017-12-25", "2016-03-03", "2017-01-01"]}'
    (found,) = diff(contract(tmp_path, SALES), contract(tmp_path, f"{SALES}\n{gaps}\n"))
    assert found.new == (
        "0.5 to 2 times the usual of 8 weeks, late after 2 days, ample from 1,000 rows, "
        "gaps 2016-03-03, 2017-01-01, 2017-12-25 else flag"
    )


def test_a_renamed_column_takes_its_rules_its_key_and_its_event_time_along(tmp_path):
    new = SALES.replace("household_key:", "household_id:").replace("[1, null]}\n", "[5, null]}\n")
    new = new.replace("  id: {", "  ID: {").replace("key: [id]", "key: [ID]")
    new = new.replace("  at_utc: {", "  AT_UTC: {").replace("event_time: at_utc", "event_time: AT_UTC")
    found = diff(contract(tmp_path, SALES), contract(tmp_path, new))
    assert [(c.what, c.where, c.new) for c in found[:-1]] == [
        ("column renamed", "id", "ID"), ("column renamed", "household_key", "household_id"),
        ("column renamed", "at_utc", "AT_UTC"),
    ]  # fmt: skip
    assert (found[-1].what, found[-1].where, found[-1].columns) == (
        "rule narrowed", "household_id.range", ("household_key",),
    )  # fmt: skip


def test_a_property_that_is_written_as_a_rule_of_its_own_is_the_same_rule_by_another_name(tmp_path):
    new = SALES.replace(", range: [0, 100]}", "}")
    new += "  - {name: fair, kind: range, columns: [cents], params: {between: [0, 100]}, then: quarantine}\n"
    (found,) = diff(contract(tmp_path, SALES), contract(tmp_path, new))
    assert (found.what, found.old, found.new, found.breaks) == ("rule renamed", "cents.range", "fair", ())


ends = st.one_of(st.none(), st.integers(0, 5))
ranges = st.tuples(ends, ends).filter(
    lambda x: x != (None, None) and (None in x or (x[0] is not None and x[0] <= x[1]))
)
sets = st.sets(st.integers(-1, 6), min_size=1).map(tuple)


def takes(kind, params):
    """The values that a rule takes, of all that the test draws from."""
    if kind == "set":
        return set(params)
    low, high = (-9 if params[0] is None else params[0]), (9 if params[1] is None else params[1])
    return set(range(low, high + 1))


@given(st.one_of(st.tuples(st.just("range"), ranges, ranges), st.tuples(st.just("set"), sets, sets)))
def test_a_rule_is_narrowed_or_widened_as_the_values_that_it_takes_are(drawn):
    kind, was, became = drawn
    name = {"range": "between", "set": "of"}[kind]
    old, new = (Rule("r", kind, ("c",), "quarantine", {name: p}) for p in (was, became))
    before, after = takes(kind, was), takes(kind, became)
    assert _moved(old, new) == (bool(before - after), bool(after - before))


def test_a_contract_is_no_change_of_itself_and_every_other_of_the_example_is_one():
    contracts = [*load_contracts(ROOT / "features/contracts").values()]
    assert all(diff(c, c) == [] for c in contracts)
    assert all(any(x.breaks for x in diff(a, b)) for a in contracts for b in contracts if a is not b)
