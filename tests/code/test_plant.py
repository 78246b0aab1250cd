"""Faults in contracts of many kinds: each is stopped by its own guard, or skipped where there is none."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from lockstep.clock import INSTANT, Zone
from lockstep.contract import load_contracts
from lockstep.errors import DataError, GuaranteeError
from lockstep.faults import FAULTS
from lockstep.land import land
from lockstep.landings import read_landings
from lockstep.plant import Outcome, _refusing, plant, sample, table
from lockstep.table_profile import profile_landings, profile_path

DAYS, ROWS = 92, 120
N = DAYS * ROWS
ZONE = Zone("America/New_York")


def day(n):
    return date(2017, 1, 1) + timedelta(n)


def head(name, extra="", *, key="id", at="day", calendar="daily", version=1, late="null"):
    return (
        f"table: {name}\nversion: {version}\nowner: tests\nevent_time: {at}\nkey: [{key}]\ncalendar: {calendar}\n"
        f"lateness: {{days: {late}, then: flag}}\n{extra}\ncolumns:\n"
    )


@pytest.fixture
def shop(tmp_path):
    """Return a project of nothing but contracts and landings, and what writes and lands them."""
    folder = tmp_path / "contracts"
    folder.mkdir()
    settings = SimpleNamespace(clock=ZONE, models={}, serve=SimpleNamespace(model="none"))
    here = SimpleNamespace(root=tmp_path, folder=lambda _: folder, settings=settings)

    def landed(contracts, rows, until=DAYS - 1):
        for name, text in contracts.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        land(tmp_path, load_contracts(folder), rows.__getitem__, day(0), day(until))
        return here

    return landed


ORDERS = pl.DataFrame(
    {
        "id": range(N),
        "day": [day(i // ROWS) for i in range(N)],
        "cents": [(i * i * 7 + i // ROWS * 13) % 89 for i in range(N)],
        "code": [i % 3 for i in range(N)],
    }
).with_columns(_landing_day="day")

STATISTICS = ("mean", "std", "psi", "ks", "distinct", "null_share")


def told(found):
    return {o.fault: "stopped" if o.stopped else "missed" if o.guard else "skipped" for o in found}


def test_faults_without_a_guard_are_skipped_and_an_open_range_is_left_upwards(shop):
    text = head("t", "health: {high: 1.9}") + (
        "  id: {type: int64}\n  day: {type: date}\n  cents: {type: int64, range: [null, 100]}\n"
        "  code: {type: int64, set: [0, 1, 2]}\n"
    )
    found = told(plant(shop({"t": text}, {"t": ORDERS}), list(FAULTS)))
    stopped = {name for name, word in found.items() if word == "stopped"}
    assert {name for name, word in found.items() if word == "missed"} == set()
    assert {"out-of-range", "unknown-word", "null", "rows-twice", "future-time", "unit-times-1000"} <= stopped
    skipped = {name for name, word in found.items() if word == "skipped"}
    assert {f.name for f in FAULTS.values() if f.guard in STATISTICS} <= skipped
    assert {"late-rows", "zone-dropped", "wrong-zone", "daylight-saving", "value-shared", "day-too-small"} <= skipped


def test_days_and_instants_in_keys_ranges_sets_and_references(shop):
    rows = ORDERS.select(
        "day",
        pl.Series("at", [datetime(2017, 1, 1, 17, tzinfo=UTC) + timedelta(i // ROWS, i % ROWS) for i in range(N)]).cast(
            INSTANT
        ),
        pl.lit(day(0)).alias("ref"),
        "_landing_day",
    )
    text = head("t", "health: {high: 1.9}", key="at", at="at", late="3") + (
        '  day: {type: date, range: ["2016-01-01", null]}\n  at: {type: instant}\n'
        '  ref: {type: date, set: ["2017-01-01"]}\nrules:\n'
        "  - {name: r, kind: references, columns: [ref], params: {table: p, columns: [d]}, then: quarantine}\n"
    )
    other = head("p", key="d", at="null", calendar="irregular") + "  d: {type: date}\n"
    days = pl.DataFrame({"d": [day(0)], "_landing_day": [day(0)]})
    names = ["out-of-range", "unknown-word", "unknown-reference", "day-twice", "late-rows"]
    here = shop({"t": text, "p": other}, {"t": rows, "p": days})
    assert told(plant(here, names)) == dict.fromkeys(names, "stopped")
    assert told(plant(here, ["unit-times-1000", "two-contents"])) == {
        "unit-times-1000": "skipped",
        "two-contents": "skipped",
    }
    alone = pl.DataFrame({"d": ORDERS["day"].unique().sort()}).with_columns(_landing_day="d")
    only = head("q", key="d", at="d") + "  d: {type: date}\n"
    for file in (here.root / "contracts").iterdir():
        file.unlink()
    (here.root / "landings.csv").unlink()
    found = list(plant(shop({"q": only}, {"q": alone}), ["day-twice"]))
    assert told(found) == {"day-twice": "skipped"}
    assert "a key of days alone" in found[0].said


def test_every_kind_of_rule_and_statistic_stops_a_fault_of_its_own(shop):
    """Also those of which the example has none."""
    statistics = ", ".join(
        f"{{name: {kind}_{column}, kind: {kind}, column: {column}, then: fail, "
        + ("within: [0.5, 2]}" if kind in ("std", "distinct") else "at_most: 0.05}")
        for kind, column in (("ks", "shop"), ("null_share", "note"), ("distinct", "shop"))
    )
    extra = f"volume: {{rows: [100, 140], then: fail}}\nstatistics: {{over_days: 28, rules: [{statistics}]}}"
    text = head("t", extra) + (
        "  id: {type: int64, unique: true}\n  day: {type: date}\n  cents: {type: int64, unit: cents}\n"
        "  other: {type: int64, range: {between: [0, 100], then: cap}}\n  total: {type: int64}\n"
        "  pieces: {type: int64, nullable: {then: impute, value: 1}}\n  shop: {type: int64}\n"
        "  note: {type: float64, nullable: true}\n  group: {type: int64}\nrules:\n"
        "  - {name: adds_up, kind: sum_of, columns: [total, cents, other], then: quarantine}\n"
        "  - {name: whole, kind: totals, columns: [group, cents], then: quarantine,\n"
        "     params: {table: g, columns: [group, cents]}}\n"
    )
    rows = ORDERS.select(
        "id", "day", "cents", pl.col("code").alias("other"), (pl.col("cents") + pl.col("code")).alias("total"),
        pl.lit(2).alias("pieces"), (pl.col("id") % 50).alias("shop"), pl.lit(1.5).alias("note"),
        (pl.col("id") // ROWS).alias("group"), "_landing_day",
    ).with_columns(pl.col("pieces").cast(pl.Int64))  # fmt: skip
    totals = rows.group_by("group").agg(pl.col("cents").sum(), pl.col("_landing_day").first()).sort("group")
    other = head("g", key="group", at="null", calendar="irregular") + "  group: {type: int64}\n  cents: {type: int64}\n"
    here = shop({"t": text, "g": other}, {"t": rows, "g": totals})
    profile = profile_landings(
        load_contracts(here.folder("contracts"))["t"], here.root / "data",
        read_landings(here.root / "landings.csv"), day(0), day(60),
    )  # fmt: skip
    profile.write(profile_path(here.folder("contracts"), "t"))
    names = [
        "value-shared", "wrong-sum", "wrong-total", "day-too-small", "beyond-the-cap", "null-to-mend", "values-halved",
        "one-of-many", "values-lost",
    ]  # fmt: skip
    found = list(plant(here, names))
    assert told(found) == dict.fromkeys(names, "stopped"), [o.said for o in found if not o.stopped]
    assert "`beyond-the-cap`" in table(found)


def test_a_correction_before_the_weeks_that_are_looked_at_is_one_version(shop):
    text = head("t") + "  id: {type: int64}\n  day: {type: date}\n  cents: {type: int64}\n  code: {type: int64}\n"
    other = head("p", calendar="irregular", at="null") + "  id: {type: int64}\n  name: {type: string}\n"
    names = pl.DataFrame({"id": [1, 2, 1], "name": ["a", "b", "c"], "_landing_day": [day(0), day(0), day(3)]})
    here = shop({"t": text, "p": other}, {"t": ORDERS, "p": names})
    assert sample(here, 11).tables["p"].sort("id")["name"].to_list() == ["c", "b"]
    assert told(plant(here, ["null"], weeks=11)) == {"null": "stopped"}


def test_rows_are_judged_by_the_version_of_their_day(shop, capsys):
    text = head("t") + "  id: {type: int64}\n  day: {type: date}\n  cents: {type: int64}\n  code: {type: int64}\n"
    other = head("p", calendar="irregular", at="null") + "  id: {type: int64}\n"
    ids = pl.DataFrame({"id": [1, 2], "_landing_day": [day(0), day(0)]})
    shop({"t": text, "p": other}, {"t": ORDERS, "p": ids}, until=89)
    newer = {
        "t.v1": text, "t": text.replace("version: 1", "version: 2") + "  till: {type: string}\n",
        "p.v1": other, "p": other.replace("version: 1", "version: 2") + "  name: {type: string}\n",
    }  # fmt: skip
    here = shop(
        newer,
        {
            "t": ORDERS.with_columns(till=pl.lit("web")),
            "p": pl.concat(
                [
                    ids.with_columns(name=pl.lit("x")),
                    pl.DataFrame({"id": [3], "_landing_day": [day(90)], "name": ["c"]}),
                ]
            ),
        },
    )
    found = told(plant(here, ["null", "day-twice"], weeks=12))
    assert found == {"null": "stopped", "day-twice": "skipped"}
    assert "from 2017-04-01 on, where version 2 of t begins" in capsys.readouterr().err


def test_a_guard_is_credited_for_its_own_words_alone(shop):
    text = head("assets") + "  id: {type: int64}\n  day: {type: date}\n  code: {type: int64, set: [0, 1, 2]}\n"
    here = shop({"assets": text}, {"assets": ORDERS.select("id", "day", "code", "_landing_day")})
    contracts = load_contracts(here.folder("contracts"))
    retyped = DataError("column retyped", where="raw rows of assets", expected="code in its set", found="code.set 1")
    assert _refusing(retyped, contracts) == {"column retyped"}
    rule = "3 of 9 rows break the rule 'code.set'"
    assert _refusing(DataError(rule, where="raw rows of assets"), contracts) == {"set", "quarantine"}
    assert _refusing(DataError(rule, where="raw rows of another"), contracts) == set()
    slo = GuaranteeError(
        "the record SLO is broken", where="table assets", found="10.0000%, by code.set 3, future 1,200"
    )
    assert _refusing(slo, contracts) == {"set", "quarantine", "future"}
    moved = GuaranteeError("statistics have moved from the profile", found="a.mean: ks of code scores 1, not 0..0.1")
    assert _refusing(moved, contracts) == {"ks"}
    assert Outcome("x", "", "set", "", "refused: column retyped").follows == "nothing"
