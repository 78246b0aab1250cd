"""Judge the statistics of a table: of the last landing days, the rows that features read, against the profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone, parse_day
from lockstep.contract import Contract, Statistic, Statistics
from lockstep.errors import GuaranteeError
from lockstep.files import read_parquet, write_parquet
from lockstep.landings import Landing
from lockstep.statistics import Found, check_second_opinion, judge_statistics
from lockstep.table_profile import TableProfile
from lockstep.versions import known

__all__ = ["judge_recent"]


def judge_recent(
    contract: Contract,
    lines: list[Landing],
    beside: Path,
    zone: Zone,
    folder: Path,
    *,
    last: date,
    expectations: bool,
    keep: Path | None,
) -> tuple[dict[str, Any], int]:
    """Judge the statistics of a table whose clean rows lie in `beside`; return them by rule, and how many ran twice.

    Judged are clean rows that landed within the last days, each key in its last version, without deleted ones: a row
    that is quarantined, copied or superseded is not there. A column is judged where its row's contract has it.

    Raises
    ------
    DataError
        There is no profile, or a statistic that is to `fail` cannot be measured.
    GuaranteeError
        A statistic that is to `fail` does not hold, or Great Expectations finds otherwise.
    """
    asked = contract.statistics
    if asked is None:
        return {}, 0
    profile = TableProfile.read(contract, folder)
    recent = _recent(contract, asked, beside / "clean" / contract.table, zone, last)
    found: dict[str, Found] = {}
    run = 0
    for name, rules, rows in _by_contract(contract, asked, lines, recent):
        judged = judge_statistics(replace(contract, statistics=replace(asked, rules=rules)), rows, profile)
        found |= {one.rule.name: one for one in judged}
        measured = [one for one in judged if one.unmeasured is None]
        if expectations and measured:
            seen = beside / "recent" / contract.table / name / f"{last}.parquet"
            write_parquet(rows.drop("_landing_day"), seen)
            kept = keep and keep / f"{contract.table}.{name}.json"
            check_second_opinion(contract.table, measured, [seen], profile, kept)
            run += len(measured)
    if broken := [one for one in found.values() if one.rule.then == "fail" and not one.held]:
        raise GuaranteeError(
            "statistics have moved from the profile",
            where=f"table {contract.table}, the last {asked.over_days} landing days",
            found="; ".join(map(str, broken)),
            do=f"Mend the source; or, when it is the new normal, `lockstep contract profile {contract.table}`.",
        )  # fmt: skip
    return {rule.name: found[rule.name].to_dict() for rule in asked.rules}, run


def _recent(contract: Contract, asked: Statistics, clean: Path, zone: Zone, last: date) -> pl.DataFrame:
    """Return the rows that landed within the last days, as they are known after the last of them."""
    since = last - timedelta(days=asked.over_days)
    files = [f for f in sorted(clean.glob("*.parquet")) if parse_day(f.stem) > since]
    rows = pl.concat([pl.DataFrame(schema=contract.clean_schema()), *map(read_parquet, files)])
    return known(rows, contract, last + timedelta(days=1), zone)


def _by_contract(
    contract: Contract, asked: Statistics, lines: list[Landing], recent: pl.DataFrame
) -> Iterator[tuple[str, tuple[Statistic, ...], pl.DataFrame]]:
    """Yield a name, rules and rows: those whose contract has the rules' columns. Mostly it is one lot of all rows."""
    versions = {line.landing_day: line.contract_version for line in lines}
    lots: dict[tuple[int, ...], list[Statistic]] = {}
    for rule in asked.rules:
        having = tuple(v for v in sorted({*versions.values()}) if rule.column in contract.at(v).columns)
        lots.setdefault(having, []).append(rule)
    for having, rules in lots.items():
        days = [day for day, version in versions.items() if version in having]
        rows = recent.filter(pl.col("_landing_day").is_in(days))
        if not having:
            rows = rows.drop(rule.column for rule in rules)
        yield "-".join(["statistics", *(f"v{v}" for v in having)]), tuple(rules), rows
