"""The validate stage on small tables: every row is accounted for, every planted fault ends where the contract says."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lockstep import agg, judge_rows
from lockstep.clock import INSTANT, Zone
from lockstep.contract import load_contracts
from lockstep.define import Entity, Feature, View, source
from lockstep.derive import event_schema
from lockstep.errors import DataError, GuaranteeError
from lockstep.events import Events
from lockstep.files import file_hash, tree_hash
from lockstep.landings import EMPTY, Landing
from lockstep.snapshot import feature_schema, snapshot
from lockstep.tables import read_tables
from lockstep.validate import validate

ZONE = Zone("America/New_York")
D = [date(2020, 3, 7) + timedelta(days=n) for n in range(5)]

LINES = """
table: lines
version: 1
owner: tests
event_time: at
key: [basket, item]
calendar: daily
lateness: {days: 2, then: flag}
slo: {records: 0.999, then: flag}
columns:
  basket: {type: int64}
  item: {type: int64}
  at: {type: instant}
  price: {type: int64, range: [0, null]}
  pieces: {type: int64, nullable: {then: impute, value: 1}, range: {between: [0, 10], then: cap}}
rules:
  - {name: item_known, kind: references, columns: [item], params: {table: items, columns: [item]}, then: flag}
"""
ITEMS = """
table: items
version: 1
owner: tests
event_time: null
key: [item]
calendar: irregular
lateness: {days: null, then: flag}
columns: {item: {type: int64}, name: {type: string, nullable: true}}
"""


def sealed(path, byte_hash):
    """The hash of the file as it is now, as if it had been sealed so."""
    return file_hash(path) if path.is_file() else byte_hash


class Shop:
    """A project's data folder with its ledger, written by hand."""

    def __init__(self, root, lines=LINES, **more):
        self.root, self.landings = root, []
        (root / "contracts").mkdir()
        for name, text in {"lines": lines, "items": ITEMS, **more}.items():
            (root / "contracts" / f"{name.replace('__', '.')}.yaml").write_text(text)
        self.contracts = load_contracts(root / "contracts")

    def land(self, table, day, *rows, version=1):
        """Write a partition; `rows` are mappings of what differs from a good row."""
        contract = self.contracts[table].at(version)
        good = {"basket": 1, "item": 1, "at": ZONE.start(day) + timedelta(hours=9), "price": 100, "pieces": 1,
                "name": "milk", "_deleted": False}  # fmt: skip
        schema = contract.schema()
        records = [{c: {**good, **row}.get(c) for c in schema} for row in rows]
        path = self.root / "data" / table / f"{day}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(records, schema).write_parquet(path)
        self.landings.append(Landing(table, day, len(rows), "md5", "sha256", version))
        return path

    def validate(self, *, expectations=False, keep=None):
        landings = [x._replace(byte_hash=sealed(self.root / "data" / x.path, x.byte_hash)) for x in self.landings]
        return validate(
            self.root / "data", landings, self.contracts, ZONE, self.root / "out", expectations=expectations, keep=keep
        )

    def clean(self, table="lines"):
        files = sorted((self.root / "out" / "clean" / table).glob("*.parquet"))
        return pl.concat([pl.read_parquet(f) for f in files])

    def quarantined(self, table="lines"):
        return pl.read_parquet(self.root / "out" / "quarantine" / f"{table}.parquet")


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    shop.land("items", D[0], {"item": 1}, {"item": 2})
    return shop


def counts(report, table="lines"):
    """What a table's report counts, without the zeros."""
    names = ("rows", "clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    return {n: report["tables"][table][n] for n in names if report["tables"][table][n]}


def broken(report, table="lines"):
    return {name: r["broken"] for name, r in report["tables"][table]["rules"].items() if r["broken"]}


def test_honest_rows_pass_and_keep_their_landing_day(shop):
    shop.land("lines", D[0], {"item": 2}, {"item": 1})
    shop.land("lines", D[1], {"basket": 2})
    report = shop.validate()
    assert counts(report) == {"rows": 3, "clean": 3}
    assert shop.clean().select("_landing_day", "basket", "item").rows() == [(D[0], 1, 1), (D[0], 1, 2), (D[1], 2, 1)]
    assert shop.quarantined().is_empty()
    assert shop.quarantined().columns == [*shop.contracts["lines"].schema(), "_landing_day", "rule"]
    assert report == json.loads((shop.root / "out" / "validation.json").read_text())
    assert report["tables"]["lines"]["slo"] == {
        "records": 0.999, "then": "flag", "held": True,
        "all": {"rows": 3, "bad": 0, "good_share": 1.0}, "recent": {"rows": 3, "bad": 0, "good_share": 1.0},
    }  # fmt: skip


def test_each_action_does_what_it_says(shop):
    shop.land(
        "lines", D[1],
        {"basket": 1, "price": -1, "pieces": 99},
        {"basket": 2, "pieces": None},
        {"basket": 3, "pieces": 99},
        {"basket": 4, "item": 3},
        {"basket": 5},
    )  # fmt: skip
    report = shop.validate(expectations=True)
    assert broken(report) == {"price.range": 1, "pieces.not_null": 1, "pieces.range": 2, "item_known": 1}
    assert shop.clean().select("basket", "pieces").rows() == [(2, 1), (3, 10), (4, 1), (5, 1)]
    assert shop.quarantined().select("basket", "price", "pieces", "rule").rows() == [(1, -1, 99, "price.range")]
    lines = report["tables"]["lines"]
    assert lines["slo"]["all"] == {"rows": 5, "bad": 1, "good_share": 4 / 5}, "no flag and no repair is a fault"
    assert not lines["slo"]["held"]
    assert lines["great_expectations"] == {"expectations": 16, "agree": 16}


def test_a_broken_fail_rule_stops_the_stage_and_leaves_yesterdays_output(shop):
    shop.land("lines", D[0], {})
    shop.validate()
    before = tree_hash(shop.root / "out")
    shop.land("lines", D[1], {"price": None}, {"item": 2})
    with pytest.raises(
        DataError, match=r"1 of 3 rows break the rule 'price.not_null' in table lines: .*_landing_day=2020"
    ):
        shop.validate()
    assert tree_hash(shop.root / "out") == before
    assert DataError.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename({"price": "prices"}), "column renamed in data/lines/2020-03-07.parquet: expected price,"),
        (lambda f: f.drop("price"), "column missing in data/lines/2020-03-07.parquet: expected price, found nothing"),
        (lambda f: f.with_columns(pl.col("price").cast(pl.Float64)), "expected price as Int64, found Float64"),
        (lambda f: f.with_columns(note=1), "column not in the contract in data/lines/2020-03-07.parquet"),
        (lambda f: f.vstack(f), "other rows than sealed in data/lines/2020-03-07.parquet: expected 1 rows, found 2"),
    ],
)  # fmt: skip
def test_a_partition_of_another_shape_is_refused_by_name(shop, change, message):
    path = shop.land("lines", D[0], {})
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(DataError) as e:
        shop.validate()
    assert message in str(e.value)
    assert not (shop.root / "out").exists()


@pytest.mark.parametrize("keep", [0, 40, -1])
def test_an_empty_or_truncated_or_missing_file_is_refused_by_name(shop, keep):
    path = shop.land("lines", D[0], {})
    if keep < 0:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"(cannot read parquet|a sealed file is missing) in .*data/lines/2020-03-07.parquet"
    ):
        shop.validate()


def test_a_row_from_the_future_is_quarantined_and_counted(shop):
    shop.land(
        "lines", D[1], {"at": ZONE.start(D[2])}, {"basket": 2, "at": ZONE.start(D[2]) - timedelta(microseconds=1)}
    )
    report = shop.validate()
    assert counts(report) == {"rows": 2, "clean": 1, "quarantined": 1}
    assert broken(report) == {"future": 1}
    assert shop.quarantined()["rule"].to_list() == ["future"]


def test_a_duplicate_basket_line_is_dropped_and_counted(shop):
    shop.land("lines", D[0], {}, {})
    at = ZONE.start(D[0]) + timedelta(hours=9)
    shop.land("lines", D[1], {"at": at})
    assert counts(shop.validate()) == {"rows": 3, "clean": 1, "duplicates": 2}


def test_other_content_of_one_line_on_one_day_is_quarantined(shop):
    shop.land("lines", D[0], {"price": 1}, {"price": 2}, {"basket": 2})
    report = shop.validate()
    assert counts(report) == {"rows": 3, "clean": 1, "quarantined": 2}
    assert shop.quarantined()["rule"].to_list() == ["conflict", "conflict"]


def test_corrections_deletions_and_late_rows_stay_in_clean_and_are_counted(shop):
    at = ZONE.start(D[0]) + timedelta(hours=9)
    shop.land("lines", D[0], {})
    shop.land("lines", D[2], {"price": 7, "at": at})
    shop.land("lines", D[3], {"price": 7, "at": at, "_deleted": True})
    report = shop.validate()
    assert counts(report) == {"rows": 3, "clean": 3, "late": 1, "corrections": 1, "deletions": 1}
    assert broken(report) == {"late": 1}
    assert shop.clean()["price"].to_list() == [100, 7, 7]


def test_a_late_row_is_flagged_in_clean_and_its_late_copy_is_still_a_copy(shop):
    at = ZONE.start(D[0]) + timedelta(hours=9)
    shop.land("lines", D[0], {})
    shop.land("lines", D[2], {"basket": 2, "at": at})  # two days: allowed
    shop.land("lines", D[3], {"basket": 3, "at": at}, {"at": at}, {"basket": 2, "at": at, "price": 7})
    report = shop.validate(expectations=True)
    assert counts(report) == {"rows": 5, "clean": 4, "duplicates": 1, "late": 3, "corrections": 1}
    assert shop.clean().select("_landing_day", "basket", "_late").rows() == [
        (D[0], 1, False), (D[2], 2, False), (D[3], 2, True), (D[3], 3, True),
    ]  # fmt: skip
    assert not shop.clean("items")["_late"].any()


def test_late_rows_that_are_quarantined_are_in_no_clean_partition(tmp_path):
    shop = Shop(tmp_path, LINES.replace("days: 2, then: flag", "days: 2, then: quarantine"))
    shop.land("items", D[0], {"item": 1})
    shop.land("lines", D[3], {"at": ZONE.start(D[0])}, {"basket": 2})
    report = shop.validate()
    assert counts(report) == {"rows": 2, "clean": 1, "quarantined": 1, "late": 1}
    assert shop.clean().select("basket", "_late").rows() == [(2, False)]
    assert shop.quarantined()["rule"].to_list() == ["late"]


def test_lateness_is_judged_by_the_contract_in_force_on_the_landing_day(tmp_path):
    stricter = LINES.replace("version: 1", "version: 2").replace("days: 2", "days: 0")
    shop = Shop(tmp_path, stricter, lines__v1=LINES)
    shop.land("items", D[0], {"item": 1})
    shop.land("lines", D[1], {"at": ZONE.start(D[0])}, version=1)
    shop.land("lines", D[2], {"basket": 2, "at": ZONE.start(D[1])}, version=2)
    shop.validate()
    assert shop.clean().select("basket", "_late").rows() == [(1, False), (2, True)]


def test_a_source_may_read_what_came_late_and_pass_it_on_to_a_feature(shop):
    at = ZONE.start(D[0]) + timedelta(hours=9)
    shop.land("lines", D[0], {})
    shop.land("lines", D[3], {"basket": 2, "at": at}, {"basket": 3, "at": ZONE.start(D[3])})
    shop.validate()

    @source(event_time="at", key=("basket", "item"))
    def bought(lines: pl.LazyFrame) -> pl.LazyFrame:
        return lines.select("basket", "item", "at", "price", "_late", "_landing_day")

    on_time = Feature("on_time", agg.sum("price", where=~pl.col("_late")))
    view = View("v", [Entity("item", "item")], bought, [Feature("all", agg.sum("price")), on_time], ttl_days=1)
    assert feature_schema(view, event_schema(bought, shop.contracts, ZONE)) == {"all": pl.Int64, "on_time": pl.Int64}
    tables = read_tables(shop.root / "out/clean", shop.contracts, ZONE, ("lines",))
    events = Events(bought, tables, D[1], D[4])
    assert events.known(D[4]).schema == event_schema(bought, shop.contracts, ZONE)
    found = [snapshot(view, events.known(d), events.entities(("item",), d), d, ZONE) for d in (D[3], D[4])]
    assert [f.select("all", "on_time").row(0) for f in found] == [(100, 100), (300, 200)]


def test_clean_partitions_of_before_rows_were_flagged_are_written_anew(shop):
    path = shop.land("lines", D[0], {})
    shop.validate()
    clean = shop.root / "out/clean/lines" / path.name
    now = clean.read_bytes()
    pl.read_parquet(clean).drop("_late").write_parquet(clean)
    shop.validate()
    assert clean.read_bytes() == now


def test_what_no_cap_can_mend_is_quarantined(tmp_path):
    shop = Shop(
        tmp_path, LINES.replace("pieces: {type: int64, nullable: {then: impute, value: 1}", "pieces: {type: float64")
    )
    shop.land("lines", D[0], {"pieces": float("nan")}, {"basket": 2, "pieces": 11.0})
    report = shop.validate()
    assert shop.quarantined()["rule"].to_list() == ["pieces.range"]
    assert shop.clean()["pieces"].to_list() == [10.0]
    assert report["tables"]["lines"]["slo"]["all"]["bad"] == 1


def test_rows_are_judged_by_the_contract_in_force_on_their_landing_day(tmp_path):
    newer = LINES.replace("version: 1", "version: 2").replace("range: [0, null]}", "range: [50, null]}")
    newer = newer.replace("rules:", "  shelf: {type: string, nullable: true}\nrules:")
    shop = Shop(tmp_path, newer, lines__v1=LINES)
    shop.land("items", D[0], {"item": 1})
    shop.land("lines", D[0], {"price": 1}, version=1)
    shop.land("lines", D[1], {"basket": 2, "price": 1}, {"basket": 3}, version=2)
    report = shop.validate(expectations=True)
    assert shop.clean().select("basket", "shelf").rows() == [(1, None), (3, None)]
    assert broken(report) == {"price.range": 1}
    assert report["tables"]["lines"]["great_expectations"] == {"expectations": 16 + 17, "agree": 16 + 17}
    shop.landings[-1] = shop.landings[-1]._replace(contract_version=3)
    with pytest.raises(DataError, match="contract version 3 is gone"):
        shop.validate()


def test_a_day_sealed_as_empty_has_no_file_and_a_table_without_rows_an_empty_quarantine(tmp_path):
    shop = Shop(tmp_path)
    shop.landings.append(Landing("lines", D[0], 0, EMPTY, EMPTY, 1))
    report = shop.validate()
    assert counts(report) == {}
    assert report["tables"]["lines"]["slo"]["all"] == {"rows": 0, "bad": 0, "good_share": None}
    assert report["tables"]["lines"]["slo"]["held"]
    assert shop.quarantined().is_empty()
    assert (tmp_path / "out" / "clean").is_dir()


def test_a_landing_without_a_contract_is_refused(shop):
    shop.landings.append(Landing("line", D[0], 0, EMPTY, EMPTY, 1))
    with pytest.raises(DataError, match=r"a sealed table has no contract in .*: expected line, found items, lines\."):
        shop.validate()


def test_masks_that_disagree_with_great_expectations_break_the_guarantee(shop, monkeypatch):
    shop.land("lines", D[0], {"price": -1})

    def never(contract, rows, _):
        return pl.DataFrame({r.name: [False] * rows.height for r in contract.row_rules})

    monkeypatch.setattr("lockstep.judge_rows.broken", never)
    with pytest.raises(GuaranteeError, match=r"disagree in rule 'price.range' of lines: expected 0 rows .* found 1 by"):
        shop.validate(expectations=True)
    assert not (shop.root / "out" / "clean").exists()


def test_a_lost_row_is_a_broken_guarantee(shop, monkeypatch):
    shop.land("lines", D[0], {}, {"item": 2})
    fates = judge_rows.fates
    lost = pl.when(pl.int_range(pl.len()) > 0).then(pl.lit("lost")).otherwise("fate").alias("fate")
    monkeypatch.setattr(judge_rows, "fates", lambda *a: fates(*a).with_columns(lost))
    with pytest.raises(GuaranteeError, match="rows were lost or won"):
        shop.validate()
    assert not (shop.root / "out" / "clean").exists()


STRICT = LINES.replace("slo: {records: 0.999, then: flag}\n", "").replace(
    "item: {type: int64}", "item: {type: int64, range: [0, null]}"
)


def many(shop, day, rows, **bad):
    """Land `rows` lines; `bad` gives a column and of how many lines its value is -1, one after the other."""
    path = shop.land("lines", day, {})
    line = pl.int_range(rows, dtype=pl.Int64)
    columns, start = {"basket": line}, 0
    for column, n in bad.items():
        columns[column] = pl.when(line.is_between(start, start + n - 1)).then(-1).otherwise(1).cast(pl.Int64)
        start += n
    pl.concat([pl.read_parquet(path)] * rows).with_columns(**columns).write_parquet(path)
    shop.landings[-1] = shop.landings[-1]._replace(rows=rows)


def test_the_record_slo_is_broken_by_all_rules_together_though_each_alone_keeps_it(tmp_path):
    shop = Shop(tmp_path, STRICT)
    shop.land("items", D[0], {"item": 1})
    many(shop, D[0], 100_000, price=57, item=56)  # 99.943 % and 99.944 %, together 99.887 %
    with pytest.raises(GuaranteeError) as e:
        shop.validate()
    assert str(e.value).startswith(
        "the record SLO is broken in table lines: expected 99.9000% of 100,000 rows without a fault, "
        "found 99.8870%, by price.range 57, item.range 56."
    )
    assert e.value.exit_code == 1
    with pytest.raises(GuaranteeError):
        shop.validate(keep=tmp_path / "state/expectations")
    refused = pl.read_parquet(tmp_path / "state/refused/quarantine/lines.parquet")  # not published, but to be looked at
    assert dict(refused["rule"].value_counts().iter_rows()) == {"price.range": 57, "item.range": 56}
    assert not (shop.root / "out/quarantine").exists()
    for alone in ({"price": 57}, {"item": 56}):
        shop.landings.pop()
        many(shop, D[0], 100_000, **alone)
        assert shop.validate()["tables"]["lines"]["slo"]["held"]


@pytest.mark.parametrize(("bad", "held"), [(100, True), (101, False)])
def test_exactly_what_is_promised_holds_and_one_row_more_does_not(tmp_path, bad, held):
    shop = Shop(tmp_path, LINES)
    shop.land("items", D[0], {"item": 1})
    many(shop, D[0], 100_000, price=bad)
    assert shop.validate()["tables"]["lines"]["slo"]["held"] is held


def test_the_record_slo_is_judged_over_the_last_28_landing_days_too(tmp_path):
    shop = Shop(tmp_path, STRICT)
    shop.land("items", D[0], {"item": 1})
    many(shop, D[0], 10_000)
    many(shop, D[0] + timedelta(days=27), 100, price=1)  # D[0] is the first of 28 days
    assert shop.validate()["tables"]["lines"]["slo"]["recent"] == {
        "rows": 10_100,
        "bad": 1,
        "good_share": 10_099 / 10_100,
    }
    shop.landings.append(Landing("lines", D[0] + timedelta(days=28), 0, EMPTY, EMPTY, 1))  # and now no more
    with pytest.raises(GuaranteeError, match=r"table lines, the last 28 landing days: .* of 100 rows .*price.range 1"):
        shop.validate()


def test_rows_of_the_future_and_rivals_count_against_the_slo(tmp_path):
    shop = Shop(tmp_path, STRICT)
    shop.land("items", D[0], {"item": 1})
    shop.land("lines", D[0], {"price": 1}, {"price": 2}, {"basket": 2, "at": ZONE.start(D[3])}, {"basket": 3})
    with pytest.raises(GuaranteeError, match=r"found 25.0000%, by conflict 2, future 1"):
        shop.validate()


def test_a_file_that_changes_while_it_is_read_is_named(shop, monkeypatch):
    path = shop.land("lines", D[0], {})
    fates = judge_rows.fates

    def meanwhile(*a):
        path.write_bytes(path.read_bytes() + b" ")
        return fates(*a)

    monkeypatch.setattr(judge_rows, "fates", meanwhile)
    landings = [x._replace(byte_hash=file_hash(shop.root / "data" / x.path)) for x in shop.landings]
    with pytest.raises(DataError, match=r"a file changed while it was read in data/lines/2020-03-07.parquet"):
        validate(shop.root / "data", landings, shop.contracts, ZONE, shop.root / "out", expectations=False)
    assert not (shop.root / "out" / "clean").exists()


@pytest.mark.parametrize(("then", "raises"), [("flag", False), ("fail", True)])
def test_a_landing_day_with_an_unusual_number_of_rows_is_told(tmp_path, then, raises):
    shop = Shop(tmp_path, LINES.replace("columns:", f"volume: {{rows: [2, 3], then: {then}}}\ncolumns:", 1))
    shop.land("items", D[0], {"item": 1})
    shop.land("lines", D[0], {}, {"basket": 2})
    shop.land("lines", D[1], {"basket": 3})
    shop.landings.append(Landing("lines", D[2], 0, EMPTY, EMPTY, 1))
    if raises:
        with pytest.raises(
            DataError, match=r"unusual number of rows in table lines, landing day 2020-03-08: .*found 1"
        ):
            shop.validate()
        return
    unusual = {str(D[1]): 1, str(D[2]): 0}
    assert shop.validate()["tables"]["lines"]["volume"] == {"rows": [2, 3], "then": "flag", "unusual": unusual}


def test_a_gap_that_is_known_may_be_empty(tmp_path):
    shop = Shop(tmp_path, LINES.replace("columns:", "volume: {rows: [2, 3], then: fail}\ncolumns:", 1))
    lines = shop.contracts["lines"]
    object.__setattr__(lines, "health", SimpleNamespace(gaps=frozenset({D[1]})))
    assert [lines.is_usual(D[n], rows) for n, rows in ((1, 0), (1, 1), (2, 0), (1, 2))] == [True, False, False, True]


def test_a_day_that_is_gone_leaves_no_clean_file_behind(shop):
    shop.land("lines", D[0], {})
    shop.land("lines", D[1], {"basket": 2})
    shop.validate()
    shop.landings.pop()
    shop.validate()
    assert [p.name for p in (shop.root / "out" / "clean" / "lines").iterdir()] == ["2020-03-07.parquet"]


def test_the_same_rows_give_the_same_bytes_in_any_order_and_with_any_number_of_threads(tmp_path):
    hashes = []
    for n, step in enumerate((1, -1)):
        (tmp_path / str(n)).mkdir()
        shop = Shop(tmp_path / str(n))
        shop.land("items", D[0], {"item": 1})
        rows = [{"basket": k % 150, "price": k % 2 - (k % 5 == 0)} for k in range(300)]
        shop.land("lines", D[0], *rows[::step])
        shop.land("lines", D[1], *rows[::step])
        shop.validate()
        hashes.append([tree_hash(shop.root / "out" / part) for part in ("clean", "quarantine")])
        lines = [(x.table, str(x.landing_day), x.rows, sealed(shop.root / "data" / x.path, "")) for x in shop.landings]
        code = (
            "import sys; sys.path.insert(0, 'tests/code'); from pathlib import Path; import test_validate as t\n"
            f"root = Path({str(shop.root)!r}); contracts = t.load_contracts(root / 'contracts')\n"
            f"landings = [t.Landing(n, t.date.fromisoformat(d), r, h, 'x', 1) for n, d, r, h in {lines}]\n"
            "t.validate(root / 'data', landings, contracts, t.ZONE, root / 'again', expectations=False)"
        )
        repo = Path(__file__).resolve().parents[2]
        env = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONHASHSEED": str(n), "TZ": "Asia/Tokyo"}
        subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=repo)
        hashes.append([tree_hash(shop.root / "again" / part) for part in ("clean", "quarantine")])
    assert all(h == hashes[0] for h in hashes)


ROW = st.fixed_dictionaries({
    "basket": st.integers(1, 3),
    "price": st.sampled_from([-1, 1, 1, 2]),
    "pieces": st.sampled_from([None, 1, 11]),
    "at": st.sampled_from([ZONE.start(d) for d in D]),
    "_deleted": st.booleans(),
})  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(days=st.lists(st.lists(ROW, max_size=6), max_size=4))
def test_rows_in_are_rows_kept_quarantined_and_dropped_whatever_lands(days, tmp_path_factory):
    shop = Shop(tmp_path_factory.mktemp("shop"))
    for day, rows in zip(D, days, strict=False):
        if rows:
            shop.land("lines", day, *rows)
    report = shop.validate()
    lines, total = report["tables"]["lines"], report["total"]
    assert lines["rows"] == total["rows"] == sum(map(len, days))
    assert lines["rows"] == lines["clean"] + lines["quarantined"] + lines["duplicates"]
    assert lines["quarantined"] == shop.quarantined().height
    if lines["clean"]:
        clean = shop.clean()
        assert clean.height == lines["clean"]
        assert_frame_equal(
            clean, clean.unique(["_landing_day", "basket", "item"]).sort("_landing_day", "basket", "item")
        )
        assert clean["pieces"].is_between(0, 10).all()
        assert (clean["price"] >= 0).all()
        assert clean.select((ZONE.day(pl.col("at")) <= pl.col("_landing_day")).all()).item()
    assert clean_types(shop)


def clean_types(shop):
    wanted = shop.contracts["lines"].clean_schema()
    files = (shop.root / "out" / "clean" / "lines").glob("*.parquet")
    return all(dict(pl.read_parquet_schema(f)) == wanted for f in files) and wanted["_received_at"] == INSTANT


def test_a_receipt_time_is_no_content(shop):
    path = shop.land("lines", D[0], {}, {})
    early, late = datetime(2020, 3, 7, 15, tzinfo=UTC), datetime(2020, 3, 7, 16, tzinfo=UTC)
    rows = pl.read_parquet(path).with_columns(pl.Series("_received_at", [late, early], INSTANT))
    rows.write_parquet(path)
    assert counts(shop.validate()) == {"rows": 2, "clean": 1, "duplicates": 1}
    assert shop.clean()["_received_at"].to_list() == [early]
