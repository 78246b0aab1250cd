"""A contract of 12 columns and 30 rules: Lockstep's masks, Great Expectations on DuckDB, and it on pandas.

28 landing days, a million rows by default. Everybody reads the partitions, counts the rows that break each of 23 rules
and takes 7 statistics against a stored profile; Lockstep also says which rows are bad, and judges the record SLO. Each
answer is a digest of all counts and of the statistics to nine digits: they must be equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.rounds import Case, Size
from lockstep.contract import Contract, load_contracts
from lockstep.errors import GuaranteeError
from lockstep.files import read_parquet
from lockstep.masks import broken, reasons
from lockstep.slo import judge_slo
from lockstep.statistics import judge_statistics
from lockstep.table_profile import TableProfile, profile_columns, profile_path

CONTRACT = """
table: orders
version: 1
owner: benchmarks
event_time: at
key: [id]
calendar: daily
lateness: {days: null, then: flag}
slo: {records: 0.999, then: flag}
columns:
  id: {type: int64, range: [0, null], unique: true}
  order: {type: int64, range: [0, null]}
  shop: {type: int64, range: [1, 500]}
  cents: {type: int64, range: [0, 100000]}
  discount: {type: int64, range: [0, 50000]}
  pieces: {type: int64, range: [1, 100]}
  rate: {type: float64, nullable: true, range: [0, 1]}
  weight: {type: float64, nullable: true, range: [0, 1000]}
  country: {type: string, set: [DE, FR, US, CN, IN, BR]}
  status: {type: string, set: [new, paid, sent, back]}
  email: {type: string, regex: "[a-z0-9]+@[a-z]+[.]com"}
  at: {type: instant}
rules:
  - {name: discount_at_most_cents, kind: at_most, columns: [discount, cents], then: flag}
statistics:
  over_days: 28
  rules:
    - {name: cents_mean, kind: mean, column: cents, at_most: 0.1, then: flag}
    - {name: cents_std, kind: std, column: cents, within: [0.9, 1.1], then: flag}
    - {name: shops, kind: distinct, column: shop, within: [0.9, 1.1], then: flag}
    - {name: rate_nulls, kind: null_share, column: rate, at_most: 0.01, then: flag}
    - {name: cents_ks, kind: ks, column: cents, at_most: 0.05, then: flag}
    - {name: cents_psi, kind: psi, column: cents, at_most: 0.1, then: flag}
    - {name: country_psi, kind: psi, column: country, at_most: 0.1, then: flag}
"""
DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(28)]
ROWS = {Size.QUICK: 100_000, Size.DEFAULT: 1_000_000, Size.FULL: 10_000_000}
BAD = 1e-4  # of the values of a column
Work = Callable[[], Mapping[str, float]]


def cases(folder: Path, size: Size) -> Iterator[Case]:
    """Write the contract, its profile and the partitions."""
    rows = ROWS[size]
    (folder / "orders.yaml").write_text(CONTRACT, encoding="utf-8")
    for n, day in enumerate(DAYS):
        (folder / "data").mkdir(exist_ok=True)
        _orders(n, rows // len(DAYS)).write_parquet(folder / "data" / f"{day}.parquet")
    reference = _orders(len(DAYS), 100_000)
    contract = load_contracts(folder)["orders"]
    columns = profile_columns(reference.select(list(contract.columns)))
    TableProfile("orders", 1, (DAYS[0], DAYS[0]), reference.height, "", columns).write(profile_path(folder, "orders"))
    names = {
        "lockstep": "benchmarks.validation:masks",
        "Great Expectations, DuckDB": "benchmarks.by_great_expectations:on_duckdb",
        "Great Expectations, pandas": "benchmarks.by_great_expectations:on_pandas",
    }
    peers = {peer: (name, (str(folder),)) for peer, name in names.items()}
    title = f"{rows // len(DAYS) * len(DAYS):,} rows, {len(contract.columns)} columns, 30 rules"
    rounds = {Size.QUICK: 3, Size.DEFAULT: 3, Size.FULL: 1}[size]
    yield Case(title, rounds, peers, "benchmarks.validation:verdict", check, warm=False)


def _orders(seed: int, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    number = pl.Series(np.arange(rows) + seed * rows)
    start = datetime.combine(DAYS[seed % len(DAYS)], datetime.min.time(), UTC)
    columns = {
        "id": number,
        "order": number // 3,
        "shop": rng.integers(1, 501, rows),
        "cents": np.minimum(rng.lognormal(7, 1, rows), 99_999).astype(np.int64),
        "discount": rng.integers(0, 100, rows),
        "pieces": rng.integers(1, 20, rows),
        "rate": pl.Series(rng.random(rows)).set(pl.Series(rng.random(rows) < 0.05), None),
        "weight": pl.Series(rng.exponential(10, rows)),
        "country": pl.Series(["DE", "FR", "US", "CN", "IN", "BR"]).gather(rng.integers(0, 6, rows)),
        "status": pl.Series(["new", "paid", "sent", "back"]).gather(rng.integers(0, 4, rows)),
        "email": "a" + pl.Series(rng.integers(0, 10**6, rows)).cast(pl.String) + "@shop.com",
        "at": pl.Series([start], dtype=pl.Datetime("us", "UTC")).new_from_index(0, rows),
    }
    bad = {"shop": 0, "cents": -1, "discount": 60_000, "pieces": 0, "rate": 1.5, "weight": -1.0,
           "country": "XX", "status": "lost", "email": "nobody"}  # fmt: skip
    spoilt = [
        pl.when(pl.Series(rng.random(rows) < BAD)).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in bad.items()
    ]
    received = pl.lit(None, pl.Datetime("us", "UTC")).alias("_received_at")
    return pl.DataFrame(columns).with_columns(*spoilt, received, _deleted=pl.lit(False))


def given(folder: str) -> tuple[Contract, TableProfile, list[Path]]:
    """Return the contract, its profile and the partitions."""
    contract = load_contracts(Path(folder))["orders"]
    return contract, TableProfile.read(contract, Path(folder)), sorted(Path(folder, "data").glob("*.parquet"))


def masks(folder: str) -> Work:
    """Return what Lockstep's stage does with the rows: masks, reasons, the record SLO and the statistics."""
    contract, profile, files = given(folder)

    def work() -> Mapping[str, float]:
        days = (pl.lit(date.fromisoformat(f.stem)).alias("_landing_day") for f in files)
        rows = pl.concat([read_parquet(f).with_columns(day) for f, day in zip(files, days, strict=True)])
        found = broken(contract, rows, {})
        bad = reasons(found, [r for r in contract.row_rules if r.then in ("fail", "quarantine")])
        slo = judge_slo(contract, bad, rows["_landing_day"] >= DAYS[0])
        assert slo["all"] == slo["recent"]
        counts = found.drop("_deleted.not_null").sum().row(0, named=True)
        return counts | {one.rule.name: one.observed for one in judge_statistics(contract, rows, profile)}

    return work


def verdict(found: Mapping[str, float], _: str) -> str:
    """Return how many rules were judged, and a digest of all results."""
    text = ", ".join(f"{name} {value:.9g}" for name, value in sorted(found.items()))
    return f"{len(found)} rules, {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check(verdicts: Mapping[str, str]) -> None:
    """Raise when anybody's results are not everybody's, or a rule is missing."""
    if len(set(verdicts.values())) != 1 or not verdicts["lockstep"].startswith("30 rules"):
        raise GuaranteeError("unequal results", where="validation", expected="one answer of 30 rules", found=verdicts)
