"""The drift that the example's data has really seen, and a new contract tried on days that have landed.

Between the two releases of the Complete Journey, ``household_key`` became ``household_id``, ``BASKET_ID`` lost its
capitals and ``DAY`` with ``TRANS_TIME`` became a timestamp.
"""

import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from features.landing import rows
from lockstep.contract import load_contracts
from lockstep.errors import DataError
from lockstep.evolution import diff
from lockstep.grammar import read_contract
from lockstep.land import land
from lockstep.project import project
from tests.conftest import ROOT, git, lockstep

DAY = date(2017, 3, 1)
CONTRACT = "features/contracts/transactions.yaml"


@pytest.fixture(scope="module")
def raw():
    """The real lines of one day."""
    settings = project(ROOT).settings
    return rows("transactions", settings.land, settings.clock).filter(pl.col("_landing_day") == DAY)


@pytest.fixture(scope="module")
def transactions():
    return {"transactions": load_contracts(ROOT / "features/contracts")["transactions"]}


DRIFT = {
    "household_key": (
        lambda f: f.rename({"household_id": "household_key"}),
        "column renamed in raw rows of transactions: expected household_id, found household_key.",
        ("household_id", "household_key"),
        ("column renamed", "household_id", "household_key"),
    ),
    "capitals": (
        lambda f: f.rename({"basket_id": "BASKET_ID", "product_id": "PRODUCT_ID"}),
        "column renamed in raw rows of transactions: expected basket_id, product_id, found BASKET_ID, PRODUCT_ID.",
        ("basket_id", "BASKET_ID"),
        ("column renamed", "basket_id", "BASKET_ID"),
    ),
    "TRANS_TIME": (
        lambda f: f.rename({"transaction_timestamp": "TRANS_TIME"}),
        "column renamed in raw rows of transactions: expected transaction_timestamp, found TRANS_TIME.",
        ("transaction_timestamp", "TRANS_TIME"),
        ("column renamed", "transaction_timestamp", "TRANS_TIME"),
    ),
    "ids as strings": (
        lambda f: f.with_columns(pl.col("store_id").cast(pl.String)),
        "column retyped in raw rows of transactions: expected store_id as Int64, found String.",
        ("store_id: {type: int64, range: [1, null]}", "store_id: {type: string}"),
        ("column retyped", "int64", "string"),
    ),
    "no zone": (
        lambda f: f.with_columns(pl.col("transaction_timestamp").dt.replace_time_zone(None)),
        "column retyped in raw rows of transactions: expected transaction_timestamp as Datetime(time_unit='us', "
        "time_zone='UTC'), found Datetime(time_unit='us', time_zone=None).",
        None,  # a contract cannot ask for an instant without a zone
        None,
    ),
    "dollars": (
        lambda f: f.with_columns(pl.col("sales_value") / 100),
        "column retyped in raw rows of transactions: expected sales_value as Int64, found Float64.",
        ("sales_value: {type: int64, unit: cents", "sales_value: {type: int64, unit: dollars"),
        ("unit changed", "cents", "dollars"),
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_stopped_at_the_door_by_name_and_told_by_a_diff(name, raw, transactions, tmp_path):
    change, said, edit, told = DRIFT[name]
    with pytest.raises(DataError) as e:
        land(tmp_path, transactions, lambda _: change(raw), DAY, DAY)
    assert said in str(e.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(land(tmp_path, transactions, lambda _: raw, DAY, DAY)) == 1  # the honest day is sealed
    if edit:
        text = (ROOT / CONTRACT).read_text(encoding="utf-8")
        assert edit[0] in text
        (tmp_path / "new.yaml").write_text(text.replace(*edit), encoding="utf-8")
        first = diff(transactions["transactions"], read_contract(tmp_path / "new.yaml"))[0]
        assert (first.what, first.old, first.new) == told
        assert first.breaks == ("consumers", "producers")


@pytest.fixture
def new(landed_slice, tmp_path):
    """Write a new version of the contract of transactions, with some words replaced; return the file."""

    def write(*edits: tuple[str, str], version=2):
        text = (landed_slice / CONTRACT).read_text(encoding="utf-8").replace("version: 1", f"version: {version}")
        for was, became in edits:
            assert was in text
            text = text.replace(was, became)
        (tmp_path / "new.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / "new.yaml")

    return write


def test_a_diff_names_who_reads_what_breaks_and_exits_1(landed_slice, new):
    file = new(("sales_value: {type: int64, unit: cents", "sales_value: {type: int64, unit: dollars"),
               ("week: {type: int64,", "week: {type: int64, nullable: true,"))  # fmt: skip
    done = lockstep(landed_slice, "contract", "diff", CONTRACT, file, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [(c["what"], c["breaks"], c["breaking"]) for c in found["changes"]] == [
        ("unit changed", ["consumers", "producers"], True), ("made nullable", ["consumers"], True),
    ]  # fmt: skip
    value, week = found["readers"]
    assert (value["column"], value["sources"]) == ("sales_value", ["trips"])
    assert {"household_trips", "store_trips"} <= set(value["views"])
    assert {"rfm", "full"} <= set(value["services"])
    assert week == {"column": "week", "sources": [], "views": [], "services": []}
    assert "week is read by nobody" in lockstep(landed_slice, "contract", "diff", CONTRACT, file).stdout


def test_a_compatible_diff_and_one_of_a_table_with_its_old_version_exit_0(landed_slice, new, copy):
    file = new(("  week:", "  tip: {type: int64, nullable: true}\n  week:"))
    done = lockstep(landed_slice, "contract", "diff", CONTRACT, file)
    assert (done.returncode, done.stdout.splitlines()[1].split(None, 1)) == (
        0, ["compatible", "optional column added: tip, int64"],
    )  # fmt: skip
    folder = copy(landed_slice)
    (folder / CONTRACT).rename(folder / CONTRACT.replace(".yaml", ".v1.yaml"))
    (folder / CONTRACT).write_text(Path(file).read_text(encoding="utf-8"), encoding="utf-8")
    again = lockstep(folder, "contract", "diff", "transactions", "1")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    lost = lockstep(folder, "contract", "diff", CONTRACT, "nowhere.yaml")
    assert (lost.returncode, lost.stderr) == (
        2, "error: no such file in nowhere.yaml. Name two files, or a table and its old version.\n",
    )  # fmt: skip


def test_a_new_version_that_fits_is_tried_and_nothing_of_the_project_changes(landed_slice, new):
    before = git(landed_slice, "status", "--porcelain", "--ignored")
    done = lockstep(landed_slice, "contract", "try", new(("[0, 1000000], about: what", "[0, 500000], about: what")))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "transactions on 28 landing days, 2017-12-03 to 2017-12-31"
    assert lines[-1] == "yes: it fits these days and every definition"
    assert git(landed_slice, "status", "--porcelain", "--ignored") == before


def test_each_rule_is_counted_under_both_versions_and_too_many_refused_rows_say_no(landed_slice, new):
    last = pl.concat([pl.read_parquet(p) for p in sorted((landed_slice / "data/transactions").glob("*"))[-7:]])
    over, free = (last["sales_value"] > 500).sum(), (last["sales_value"] == 0).sum()
    assert over > last.height / 1000
    assert free
    file = new(("[0, 1000000], about: what", "[0, 500], about: what"),
               ("[sales_value]\n    params: {between: [1, null]}\n    then: flag",
                "[sales_value]\n    params: {between: [1, null]}\n    then: fail"))  # fmt: skip
    done = lockstep(landed_slice, "contract", "try", file, "--days", "7", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    old, now = found["old"], found["new"]
    assert (old["rows"], old["refused"], now["rows"]) == (last.height, 0, last.height)
    assert (old["rules"]["sales_value.range"], now["rules"]["sales_value.range"]) == (
        ["quarantine", 0], ["quarantine", over],
    )  # fmt: skip
    assert (old["rules"]["sales_value_not_zero"], now["rules"]["sales_value_not_zero"]) == (
        ["flag", free], ["fail", free],
    )  # fmt: skip
    assert now["refused"] == over + free
    failing, slo = found["against"]
    assert failing.startswith(f"{free:,} of {last.height:,} rows break the rule 'sales_value_not_zero', which fails")
    assert slo.endswith("of the rows are not refused, the record SLO asks 99.90%.")


def test_what_the_next_run_would_refuse_of_whole_days_is_told(landed_slice, new):
    file = new(("lateness:", "volume: {rows: [1, 10], then: fail}\nlateness:"), ("high: 1.9", "high: 1.1, ample: 10"),
               ("sales_value, at_most: 0.2,", "sales_value, at_most: 0.0001,"))  # fmt: skip
    done = lockstep(landed_slice, "contract", "try", file, "--json")
    assert done.returncode == 1, done.stderr
    volume, health, moved = json.loads(done.stdout)["against"]
    assert volume.startswith("28 of 28 days would not be sealed, volume asks 1 to 10: 2017-12-03 has ")
    assert "days would not be sealed by health: transactions 2017-12-" in health
    assert moved.startswith("a statistic has moved from the profile: sales_value_mean: mean of sales_value scores 0.")
    assert "lockstep contract profile transactions" in json.loads(done.stdout)["then"][0]


def test_a_record_slo_that_flags_says_no_to_nothing(landed_slice, new):
    edits = [("[0, 1000000], about: what", "[0, 500], about: what")]
    assert lockstep(landed_slice, "contract", "try", new(*edits)).returncode == 1
    edits.append(("lateness:", "slo: {records: 0.999, then: flag}\nlateness:"))
    assert lockstep(landed_slice, "contract", "try", new(*edits)).returncode == 0


def test_a_renamed_column_is_refused_by_the_source_and_by_the_definitions(landed_slice, new):
    file = new(("  household_id:", "  household_key:"), ("column: household_id", "column: household_key"))
    done = lockstep(landed_slice, "contract", "try", file, "--days", "2")
    assert done.returncode == 1, done.stderr
    *_, source, definitions = done.stdout.splitlines()
    assert source.startswith("no: column renamed in raw rows of transactions: expected household_key, found household")
    assert definitions.startswith('no: unknown column in source trips: found unable to find column "household_id"')


def test_where_columns_change_the_landing_module_gives_the_rows_of_the_same_days(landed_slice, new, copy):
    folder = copy(landed_slice)
    landing = folder / "features/landing.py"
    text = landing.read_text(encoding="utf-8")
    tips = text.replace("        return frame.with_columns(zone.day(", "        frame = frame.with_columns(tip=pl.col('store_id') % 2)\n        return frame.with_columns(zone.day(")  # fmt: skip  # noqa: E501
    assert tips != text
    landing.write_text(tips, encoding="utf-8")
    file = new(("  week:", "  tip: {type: int64, nullable: true, range: {between: [1, null], then: flag}}\n  week:"))
    done = lockstep(folder, "contract", "try", file, "--days", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    last = pl.concat([pl.read_parquet(p) for p in sorted((folder / "data/transactions").glob("*"))[-3:]])
    assert found["old"]["rows"] == found["new"]["rows"] == last.height
    assert found["new"]["rules"]["tip.range"] == ["flag", (last["store_id"] % 2 == 0).sum()]


def test_a_version_that_is_taken_is_refused(landed_slice, new):
    done = lockstep(landed_slice, "contract", "try", new(version=1))
    assert (done.returncode, done.stderr) == (
        2, "error: a version that is taken in new.yaml: expected version: 2, found version: 1. "
        "Raise it; keep the file out of contracts/ until it is adopted.\n",
    )  # fmt: skip
