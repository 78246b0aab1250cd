"""Landing days that never came, came halved or came twice: seen by history, and stopped before they are sealed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.clock import INSTANT, Zone
from lockstep.contract import Health, load_contracts
from lockstep.errors import DataError, DefinitionError
from lockstep.health import findings
from lockstep.land import land
from lockstep.landings import EMPTY, Landing, read_landings
from lockstep.ledger import _health
from lockstep.validate import validate

CONTRACT = """
table: visits
version: 1
owner: tests
event_time: at
key: [id]
calendar: daily
lateness: {days: null, then: flag}
columns:
  id: {type: int64}
  at: {type: instant}
  cents: {type: int64}
"""
MONDAY = date(2017, 1, 2)


def day(n: int) -> date:
    return MONDAY + timedelta(n)


def contracts(folder: Path, block: str = "", text: str = CONTRACT):
    (folder / "contracts").mkdir(exist_ok=True)
    (folder / "contracts/visits.yaml").write_text(f"{text}{block and 'health: ' + block}\n", encoding="utf-8")
    return load_contracts(folder / "contracts")


def sealed(counts: dict[int, int], table: str = "visits") -> list[Landing]:
    """A ledger of so many rows on the n-th day; content differs by day."""
    return [Landing(table, day(n), c, f"b{n}" if c else EMPTY, f"c{n}" if c else EMPTY, 1) for n, c in counts.items()]


def found(counts: dict[int, int], known) -> list[tuple]:
    frame = findings(sealed(counts), known).drop("table")
    return [((d - MONDAY).days, *rest) for d, *rest in frame.rows()]


def weeks(n: int, rows: int = 1000) -> dict[int, int]:
    return dict.fromkeys(range(7 * n), rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (500, [(28, "half-empty", 500, 1000.0, "fail")]),
        (600, [(28, "half-empty", 600, 1000.0, "fail")]),
        (601, []),
        (1599, []),
        (1600, [(28, "doubled", 1600, 1000.0, "fail")]),
        (2000, [(28, "doubled", 2000, 1000.0, "fail")]),
        (0, [(28, "missing", 0, 1000.0, "fail")]),
    ],
)
def test_a_day_is_compared_with_the_same_weekday_of_four_weeks_or_more(tmp_path, rows, said):
    assert found({**weeks(4), 28: rows}, contracts(tmp_path, "{then: fail}")) == said
    assert found({n: c for n, c in {**weeks(4), 28: rows}.items() if n > 0}, contracts(tmp_path)) in (
        [],
        [(28, "missing", 0, None, "flag")],
    )  # fmt: skip - of three Mondays nothing is said but that no row came


def test_a_weekday_has_its_own_usual_and_one_on_which_nothing_lands_is_not_missed(tmp_path):
    closed = {n: (0 if n % 7 == 6 else 5000 if n % 7 == 5 else 1000) for n in range(70)}
    known = contracts(tmp_path, "{then: fail}")
    early = [(n, "missing", 0, None, "flag") for n in (6, 13, 20, 27)]  # not known yet to be closed
    assert found(closed, known) == early
    assert found({**closed, 68: 1000}, known) == [*early, (68, "half-empty", 1000, 5000.0, "fail")]  # a Saturday


def test_where_few_rows_are_usual_a_finding_is_flagged_and_never_fails(tmp_path):
    assert found({**weeks(5, 999), 35: 10}, contracts(tmp_path, "{then: fail}"))[0][-1] == "flag"
    assert found({**weeks(5, 999), 35: 10}, contracts(tmp_path, "{then: fail, ample: 999}"))[0][-1] == "fail"


@given(noise=st.lists(st.floats(0.92, 1.08), min_size=36, max_size=36), times=st.sampled_from([0.5, 1, 2]))
def test_a_day_that_is_halved_or_doubled_is_seen_in_noise_and_noise_alone_is_not(tmp_path_factory, noise, times):
    counts = {n: round(1000 * share) for n, share in enumerate(noise)}
    said = found({**counts, 35: round(counts[35] * times)}, contracts(tmp_path_factory.getbasetemp()))
    assert [(n, what) for n, what, *_ in said] == {0.5: [(35, "half-empty")], 1: [], 2: [(35, "doubled")]}[times]


def test_a_gap_that_is_named_is_neither_judged_nor_compared_with(tmp_path):
    gone = {**weeks(4), 28: 0, 29: 0, 30: 0, **dict.fromkeys(range(31, 70), 1000)}
    assert [(n, what) for n, what, *_ in found(gone, contracts(tmp_path))] == [
        (28, "missing"), (29, "missing"), (30, "late"), (30, "missing"),
    ]  # fmt: skip
    named = str([str(day(n)) for n in (28, 29, 30)]).replace("'", '"')
    assert found(gone, contracts(tmp_path, f"{{gaps: {named}}}")) == []
    low = {**weeks(4), 28: 0, 35: 499}  # with the gap in its history, 499 would be nearer to the median
    block = f'{{gaps: ["{day(28)}"], late_days: null}}'
    assert (35, "half-empty", 499, 1000.0, "flag") in found(low, contracts(tmp_path, block))


def test_an_irregular_table_is_late_only_where_its_contract_says_after_how_many_days(tmp_path):
    text = CONTRACT.replace("daily", "irregular")
    clock = sealed(weeks(5), "other")  # another table tells how far days are sealed
    for block, said in {
        "": [],
        "{weeks: 8}": [],
        "{late_days: 9, then: fail}": [(date(2017, 1, 13), "late", "fail")],
    }.items():
        frame = findings([*sealed({1: 5}), *clock], contracts(tmp_path, block, text))
        assert frame.select("landing_day", "finding", "then").rows() == said


def test_a_daily_table_is_flagged_without_a_word_and_an_irregular_one_is_not_judged(tmp_path):
    assert contracts(tmp_path)["visits"].health == Health(late_days=2)
    assert contracts(tmp_path, text=CONTRACT.replace("daily", "irregular"))["visits"].health is None


@given(counts=st.lists(st.sampled_from([0, 0, 3, 900, 1000, 1100, 2500]), min_size=1, max_size=90))
def test_no_later_landing_changes_a_finding(tmp_path_factory, counts):
    known = contracts(tmp_path_factory.getbasetemp(), "{then: fail}")
    whole = findings(sealed(dict(enumerate(counts))), known)
    for cut in (1, len(counts) // 2, len(counts) - 1):
        before = findings(sealed(dict(enumerate(counts[:cut]))), known)
        assert before.equals(whole.filter(pl.col("landing_day") < day(cut)))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{week: 8}", r"unknown key 'week' in visits.yaml at health. Did you mean 'weeks'\?"),
        ("{weeks: 3}", r"visits.yaml at health.weeks: found 3 is less than the minimum of 4"),
        ("{then: quarantine}", r"unknown then 'quarantine' in visits.yaml at health.then"),
        ('{gaps: ["2017-02-30"]}', r"visits.yaml at health.gaps: expected a date, found '2017-02-30'"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused_by_name(tmp_path, block, said):
    with pytest.raises(DefinitionError, match=said):
        contracts(tmp_path, block)


def visits(counts: dict[int, int]) -> pl.DataFrame:
    """Raw rows of which no two days are alike."""
    rows = [(n * 10_000 + i, day(n), 7 * i + 1000 * n) for n, c in counts.items() for i in range(c)]
    at = [datetime(d.year, d.month, d.day, 17, tzinfo=UTC) for _, d, _ in rows]
    return pl.DataFrame(
        {"id": [r[0] for r in rows], "at": at, "cents": [r[2] for r in rows], "_landing_day": [r[1] for r in rows]},
        schema={"id": pl.Int64, "at": INSTANT, "cents": pl.Int64, "_landing_day": pl.Date},
    )


HONEST = visits(dict.fromkeys(range(30), 40))
FAIL = "{then: fail, ample: 40}"


def landed(root: Path, rows: pl.DataFrame, known, until: int = 29) -> list[Landing]:
    return land(root, known, lambda _: rows, MONDAY, day(until))


OTHERS = HONEST.filter(pl.col("_landing_day") != day(28))
OTHER = HONEST.filter(_landing_day=day(28))


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ([OTHER.head(19)], r"is half-empty in table visits, 2017-01-30: found 19 rows, 40 are usual"),
        ([], r"is missing in table visits, 2017-01-30: found 0 rows, 40 are usual"),
        ([OTHER.with_columns(pl.col("id", "cents") + k) for k in (0, 100, 200)], r"is doubled.*120 rows, 40 are usual"),
        (
            [HONEST.filter(_landing_day=day(21)).with_columns(pl.lit(day(28)).alias("_landing_day"))],
            r"repeats 2017-01-23 in table visits, 2017-01-30",
        ),
        (
            [
                HONEST.filter(_landing_day=day(20)).with_columns(
                    pl.col("id") + 77_000, pl.col("at", "_landing_day").dt.offset_by("8d")
                )
            ],
            r"repeats 2017-01-22 in table visits, 2017-01-30",
        ),
    ],
    ids=["half-empty", "missing", "doubled", "sent again", "sent again under new keys and times"],
)
def test_a_day_that_fails_is_not_sealed_and_the_days_before_it_are(tmp_path, instead, said):
    known, spoilt = contracts(tmp_path, FAIL), pl.concat([OTHERS, *instead])
    assert len(landed(tmp_path, spoilt, known, 27)) == 28
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match=said):
        landed(tmp_path, spoilt, known)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and "state" not in p.parts} == before
    assert len(landed(tmp_path, HONEST, known)) == 2  # mended, it is sealed


def test_where_health_is_flagged_or_the_day_is_named_it_is_sealed(tmp_path):
    assert (
        len(landed(tmp_path, OTHERS, contracts(tmp_path, f'{{then: fail, ample: 40, gaps: ["{day(28)}"]}}'), 28)) == 29
    )
    (tmp_path / "flag").mkdir()
    assert len(landed(tmp_path / "flag", OTHERS, contracts(tmp_path, "{ample: 40}"), 28)) == 29
    assert len(landed(tmp_path / "flag", OTHERS, contracts(tmp_path, FAIL))) == 1  # what is sealed stops nothing


def test_few_rows_and_rows_that_are_mostly_alike_are_not_taken_for_a_repeat(tmp_path):
    known = contracts(tmp_path)
    for rows in (visits(dict.fromkeys(range(9), 19)), HONEST):
        alike = rows.with_columns((pl.col("id") % 19 if rows is not HONEST else pl.lit(1, pl.Int64)).alias("cents"))
        ledger = sealed(dict.fromkeys(range(9), 19))
        assert findings(ledger, known, {"visits": alike}).is_empty()


def test_a_dimension_may_be_sent_whole_again(tmp_path):
    text = CONTRACT.replace("event_time: at", "event_time: null").replace("daily", "irregular")
    same = [x._replace(content_hash="c") for x in sealed({0: 5, 7: 5})]
    assert findings(same, contracts(tmp_path, "{then: fail}", text)).is_empty()
    events = CONTRACT.replace("daily", "irregular")
    assert findings(same, contracts(tmp_path, "{weeks: 8}", events))["finding"].to_list() == ["repeats 2017-01-02"]


def test_a_source_that_falls_silent_is_late_by_the_days_of_the_other_tables_in_validate_too(tmp_path):
    contracts(tmp_path, "{late_days: 3}", CONTRACT.replace("daily", "irregular"))
    shops = CONTRACT.replace("visits", "shops")
    (tmp_path / "contracts/shops.yaml").write_text(shops, encoding="utf-8")
    known, tables = load_contracts(tmp_path / "contracts"), {"visits": visits({0: 5}), "shops": HONEST}
    land(tmp_path, known, lambda table: tables[table], MONDAY, day(20))
    lines, zone = read_landings(tmp_path / "landings.csv"), Zone("America/New_York")
    report = validate(tmp_path / "data", lines, known, zone, tmp_path / "artifacts", expectations=False)
    late = {"landing_day": "2017-01-06", "finding": "late", "rows": 0, "usual": None, "then": "flag"}
    assert report["tables"]["visits"]["health"] == [late]


def test_the_ledger_has_a_line_where_there_is_a_finding_and_none_where_there_is_not():
    found = [{"landing_day": f"2017-03-0{n}", "finding": "missing"} for n in range(1, 5)]
    assert _health({"visits": {"health": []}, "shops": {"health": []}}) == {}
    line = "2 landing days unlike those before them: visits 2017-03-01 missing, visits 2017-03-02 missing"
    assert _health({"visits": {"health": found[:2]}}) == {"health": line}
    assert _health({"visits": {"health": found}})["health"].endswith("visits 2017-03-03 missing, ...")
