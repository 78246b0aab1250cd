"""From a broken basket to its repair, and from landings to their health, by the command line on the real rows."""

import json

import polars as pl

from lockstep.clone import copy_project
from tests.conftest import ROOT, git, lockstep
from tests.data.test_run import repro

DAY = "2017-01-03"
SPOILT = f"""

_honest = rows


def rows(table: str, settings: Land, zone: Zone) -> pl.DataFrame:
    frame = _honest(table, settings, zone)
    if table != "transactions":
        return frame
    basket = frame.filter(pl.col("_landing_day") == date.fromisoformat("{DAY}"))["basket_id"].min()
    return frame.with_columns(
        retail_disc=pl.when(pl.col("basket_id") == basket).then(-1 - pl.col("retail_disc")).otherwise("retail_disc")
    )
"""


def said(folder, *words, code=0):
    done = lockstep(folder, *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def judged(folder):
    done = repro(folder, "validate")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "artifacts/validation.json").read_text())["tables"]["transactions"]


def test_a_basket_is_quarantined_shown_repaired_and_landed_again_and_health_is_told(tmp_path):
    folder = copy_project(ROOT, tmp_path / "project", keep_one_in=20)
    with (folder / "features/landing.py").open("a", encoding="utf-8") as module:
        module.write(SPOILT)
    said(folder, "land", "--until", "2017-01-05")
    refused = repro(folder, "validate")
    assert refused.returncode, "so few rows break the record SLO"
    assert "the record SLO is broken in table transactions" in refused.stdout + refused.stderr
    lines = pl.read_parquet(folder / "state/refused/quarantine/transactions.parquet").height
    assert lines > 0
    shown = said(folder, "quarantine", "transactions")
    assert f"transactions  {DAY}   retail_disc.range  {lines}     0         data/transactions/{DAY}.parquet" in shown
    assert "all rows: state/refused/quarantine/transactions.parquet" in shown
    assert "unknown table 'transaction'" in said(folder, "quarantine", "transaction", code=2)

    release = ("release", "transactions", "--rule", "retail_disc.range", "--reason", "the till's sign was wrong")
    assert "a repair of the wrong type" in said(folder, *release, "--set", "retail_disc=x", code=2)
    assert "column=value" in said(folder, *release, "--set", "retail_disc", code=2)
    assert f"released {lines} rows of transactions: they land on 2017-01-06" in said(
        folder, *release, "--day", DAY, "--set", "retail_disc=0"
    )
    assert "released already" in said(folder, *release, code=2)
    withdraw = ("release", "transactions", "--withdraw", "--reason", "the till was asked again")
    assert "nothing goes with it but --reason" in said(folder, *withdraw, "--day", DAY, code=2)
    assert f"withdrew {lines} rows of transactions: they stay quarantined" in said(folder, *withdraw)
    assert "nothing to withdraw" in said(folder, *withdraw, code=2)
    said(folder, *release, "--day", DAY, "--set", "retail_disc=0")
    said(folder, "land", "--until", "2017-01-06")
    said(folder, "check")
    after = judged(folder)
    assert (after["released"], after["quarantined"]) == (lines, lines)
    spoilt = pl.read_parquet(folder / f"data/transactions/{DAY}.parquet").filter(pl.col("retail_disc") < 0)
    clean = pl.read_parquet(folder / "artifacts/clean/transactions/2017-01-06.parquet")
    assert clean.join(spoilt, on=["basket_id", "product_id"], how="semi")["retail_disc"].to_list() == [0] * lines
    assert said(folder, "health") == "every landing day is like those before it\n"

    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "released")
    path = folder / "releases.csv"
    path.write_text(path.read_text().replace("sign was wrong", "sign is right", 1))
    assert "a line was edited by hand in releases.csv line 2" in said(folder, "check", code=2)


def test_small_counts_are_flagged_and_pass_where_the_contract_does_not_call_them_ample(landed_slice, copy):
    folder = copy(landed_slice)
    shown = said(folder, "health")
    assert "half-empty" in shown
    assert "fail" not in shown
    contract = folder / "features/contracts/transactions.yaml"
    contract.write_text(contract.read_text().replace("high: 1.9, then: fail}", "high: 1.9, then: fail, ample: 50}"))
    assert "landing days are unlike those before them in landings.csv" in said(folder, "health", code=1)
    contract.write_text(contract.read_text().replace('gaps: ["2017-12-25"]', 'gaps: ["2017-12-32"]'))
    assert "expected a date, found '2017-12-32'" in said(folder, "health", code=2)
