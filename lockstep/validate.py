"""The `validate` stage: judge every landed row, keep its versions, set aside what no feature may read.

Rows in = rows kept + rows quarantined + duplicates, for every table, or the stage fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone, parse_day
from lockstep.closure import closure_hash
from lockstep.contract import Contract, load_contracts
from lockstep.errors import DataError, GuaranteeError, did_you_mean
from lockstep.files import tree_hash, write_json, write_parquet
from lockstep.judge import judge
from lockstep.landings import EMPTY, Landing, check_unchanged, read_landings, read_sealed
from lockstep.masks import apply_repairs, broken, broken_after_repair, check_fail_rules, reasons
from lockstep.project import project
from lockstep.slo import RECENT_DAYS, judge_slo
from lockstep.stage import progress, stage
from lockstep.statistics import check_second_opinion, judge_statistics
from lockstep.table_profile import TableProfile
from lockstep.versions import fates, timing

__all__ = ["main", "validate"]

Report = dict[str, Any]


@dataclass(frozen=True)
class _Part:
    """The landings of one table that one version of its contract judges."""

    contract: Contract
    rows: pl.DataFrame
    files: tuple[Path, ...]


def validate(
    data: Path,
    landings: Iterable[Landing],
    contracts: Mapping[str, Contract],
    zone: Zone,
    out: Path,
    *,
    profiles: Path | None = None,
    expectations: bool = True,
    code: str = "",
) -> Report:
    """Judge the sealed partitions and write ``clean/``, ``quarantine/`` and ``validation.json`` into `out`.

    Parameters
    ----------
    data
        The folder of ``<table>/<landing day>.parquet``.
    landings
        What was sealed: nothing else is read.
    profiles
        The folder of contracts, with the stored profiles of the tables that have statistics.
    code
        The hash of the code that judges, for the record.
    expectations
        Whether Great Expectations gives its second opinion, which must agree with the masks.

    Returns
    -------
    dict
        What ``validation.json`` holds.

    Raises
    ------
    DataError
        A partition cannot be read, has another schema than its contract, breaks a `fail` rule or changes meanwhile;
        or a statistic cannot be taken.
    GuaranteeError
        The record SLO or a statistic that is to `fail` does not hold, rows were lost or won on the way, or masks and
        Great Expectations find otherwise.
    """
    lines = list(landings)
    landed = _landed(data, lines, contracts)
    last = max((line.landing_day for line in lines), default=date.max)
    beside = out / ".validate"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "clean").mkdir(parents=True)
    try:
        tables = {
            t: _table(t, landed, contracts, zone, beside, last=last) for t in progress(sorted(contracts), "rules")
        }
        for table, counts in progress(list(tables.items()), "Great Expectations" if expectations else "statistics"):
            counts["volume"] = _volume(contracts[table], [x for x in lines if x.table == table])
            counts["statistics"], run = _statistics(contracts[table], landed[table], last, profiles, expectations)
            if expectations:
                counts["great_expectations"] = _second_opinion(landed[table], landed, counts, run)
        check_unchanged(data, lines)
        hashes = {"code": code, "data": tree_hash(data), "clean": tree_hash(beside / "clean")}
        report = {"tables": tables, "total": _total(tables.values()), "hashes": hashes}
        write_json(report, beside / "validation.json")
        _move_into_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report


def _landed(data: Path, landings: list[Landing], contracts: Mapping[str, Contract]) -> dict[str, list[_Part]]:
    """Read every sealed partition, checked against the schema of the contract in force on its day."""
    landed: dict[str, list[_Part]] = {table: [] for table in contracts}
    for table in dict.fromkeys(line.table for line in landings):
        if table not in contracts:
            raise DataError(f"no contract for table {table!r}", where="landings.csv", do=did_you_mean(table, contracts))
        lines = [x for x in landings if x.table == table and x.byte_hash != EMPTY]
        for version in sorted({line.contract_version for line in lines}):
            contract = contracts[table].at(version)
            chosen = [x for x in lines if x.contract_version == version]
            rows = pl.concat([read_sealed(data, line, contract) for line in chosen])
            landed[table].append(_Part(contract, rows, tuple(data / line.path for line in chosen)))
    return landed


@dataclass(frozen=True)
class _Judged:
    """A part after masks and repairs: what landed, what it became, why it is quarantined, late or bad."""

    raw: pl.DataFrame
    repaired: pl.DataFrame
    reasons: pl.Series
    late: pl.Series
    counts: Mapping[str, int]


def _judged(part: _Part, others: Mapping[str, pl.DataFrame], zone: Zone) -> _Judged:
    """Apply one version of a contract; a broken `fail` rule ends the stage."""
    contract, rows = part.contract, part.rows
    check_fail_rules(contract, rows, f"table {contract.table}")
    masks = broken(contract, rows, others)
    repaired = apply_repairs(contract, rows)
    unmended = broken_after_repair(contract, repaired)
    quarantining = [r for r in contract.row_rules if r.then == "quarantine" or r.name in unmended.columns]
    refusing = masks.with_columns(unmended)
    timed = timing(repaired, reasons(refusing, quarantining), contract, zone)
    return _Judged(rows, repaired, timed["rule"], timed["late"], masks.sum().row(0, named=True))


def _table(
    table: str,
    landed: Mapping[str, list[_Part]],
    contracts: Mapping[str, Contract],
    zone: Zone,
    beside: Path,
    *,
    last: date,
) -> Report:
    """Judge one table, write its clean and quarantined rows and return its counts."""
    contract, parts = contracts[table], landed[table]
    named = {r.table for p in parts for r in p.contract.row_rules if r.table is not None}
    others = {t: _joined([p.rows for p in landed[t]], contracts[t]) for t in named}
    judged = [_judged(p, others, zone) for p in parts]
    raw = _joined([j.raw for j in judged], contract)
    repaired = _joined([j.repaired for j in judged], contract)
    why = pl.concat([pl.Series("rule", [], pl.String), *(j.reasons for j in judged)])
    marks = fates(repaired, why, contract)
    kept, quarantined = marks["fate"] == "kept", marks["fate"] == "quarantined"
    late = pl.concat([pl.Series("_late", [], pl.Boolean), *(j.late for j in judged)])
    clean = repaired.with_columns(late).filter(kept).select(*contract.clean_schema())
    refused = raw.with_columns(marks["rule"]).filter(quarantined)
    _write(clean, refused, contract, beside)
    counts = {
        "rows": raw.height,
        "clean": clean.height,
        "quarantined": refused.height,
        "duplicates": int((marks["fate"] == "duplicate").sum()),
        "late": int(late.sum()),
        "corrections": int(marks["correction"].sum()),
        "deletions": int(clean["_deleted"].sum()),
    }
    _check_law(counts, table)
    slo = judge_slo(contract, marks["rule"], raw["_landing_day"] > last - timedelta(days=RECENT_DAYS))
    return {**counts, "rules": _rule_counts(parts, judged, marks["rule"]), "slo": slo}


def _volume(contract: Contract, lines: list[Landing]) -> Report | None:
    """Return the landing days with an unusual number of rows, each judged by the contract of its day."""
    if contract.volume is None:
        return None
    for line in lines:
        contract.at(line.contract_version).check_volume(line.landing_day, line.rows)
    unusual = {
        str(x.landing_day): x.rows for x in lines if not contract.at(x.contract_version).is_usual(x.landing_day, x.rows)
    }
    return {"rows": list(contract.volume.rows), "then": contract.volume.then, "unusual": unusual}


def _statistics(
    contract: Contract, parts: list[_Part], last: date, folder: Path | None, expectations: bool
) -> tuple[Report, int]:
    """Judge the statistics of the last landing days; return them by rule, and how many had a second opinion."""
    if contract.statistics is None:
        return {}, 0
    profile = TableProfile.read(contract, folder or Path())
    since = last - timedelta(days=contract.statistics.over_days)
    fresh = [part.rows.filter(pl.col("_landing_day") > since) for part in parts]
    found = judge_statistics(contract, pl.concat([pl.DataFrame(), *filter(len, fresh)], how="diagonal"), profile)
    if expectations:
        files = [f for part in parts for f in part.files if parse_day(f.stem) > since]
        check_second_opinion(contract.table, found, files, profile)
    if broken := [one for one in found if one.rule.then == "fail" and not one.held]:
        raise GuaranteeError(
            "statistics have moved from the profile",
            where=f"table {contract.table}, the last {contract.statistics.over_days} landing days",
            found="; ".join(map(str, broken)),
            do=f"Mend the source; or, when it is the new normal, `lockstep contract profile {contract.table}`.",
        )  # fmt: skip
    return {one.rule.name: one.to_dict() for one in found}, len(found) if expectations else 0


def _joined(frames: list[pl.DataFrame], contract: Contract) -> pl.DataFrame:
    """Put rows of all contract versions into the columns of the newest; what an old version lacks is null."""
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    return pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal").select(*schema)


def _rule_counts(parts: list[_Part], judged: list[_Judged], reasons: pl.Series) -> Report:
    """Return, by rule, what follows and how many rows broke it."""
    counts: Report = {}
    for part, result in zip(parts, judged, strict=True):
        found = {r.name: (r.then, result.counts[r.name]) for r in part.contract.row_rules}
        found["late"] = (part.contract.lateness.then, int(result.late.sum()))
        for name, (then, n) in found.items():
            counts[name] = {"then": then, "broken": counts.get(name, {"broken": 0})["broken"] + n}
    names = reasons.drop_nulls().str.split(", ").list.explode(empty_as_null=False)
    for name in ("future", "conflict"):
        counts[name] = {"then": "quarantine", "broken": int((names == name).sum())}
    return counts


def _write(clean: pl.DataFrame, refused: pl.DataFrame, contract: Contract, beside: Path) -> None:
    """Write clean rows by landing day and quarantined rows in one file, sorted so that equal rows are equal bytes."""
    ordered = clean.sort("_landing_day", *contract.key)
    for (day,), rows in ordered.partition_by("_landing_day", maintain_order=True, as_dict=True).items():
        write_parquet(rows, beside / "clean" / contract.table / f"{day}.parquet")
    columns = ["_landing_day", *contract.key]
    columns += [c for c in refused.columns if c not in columns]
    write_parquet(refused.sort(columns, nulls_last=True), beside / "quarantine" / f"{contract.table}.parquet")


def _check_law(counts: Mapping[str, int], where: str) -> None:
    out = counts["clean"] + counts["quarantined"] + counts["duplicates"]
    if counts["rows"] != out:
        raise GuaranteeError(
            "rows were lost or won", where=where, expected=f"{counts['rows']} rows in",
            found=f"{counts['clean']} clean + {counts['quarantined']} quarantined + {counts['duplicates']} duplicates",
            do="This is a bug of Lockstep: nothing was written.",
        )  # fmt: skip


def _total(tables: Iterable[Report]) -> Report:
    names = ("rows", "clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    found = list(tables)
    total = {name: sum(t[name] for t in found) for name in names}
    _check_law(total, "all tables")
    return total


def _second_opinion(parts: list[_Part], landed: Mapping[str, list[_Part]], counts: Report, run: int) -> Report:
    """Run each version's suite on Great Expectations; it must count what the masks counted. `run` ran before."""
    found: dict[str, int] = {}
    for part in parts:
        named = {r.table for r in part.contract.row_rules if r.table is not None}
        files = {t: [f for p in landed[t] for f in p.files] for t in named}
        for one in judge(part.contract, part.files, files):
            found[one.rule] = found.get(one.rule, 0) + one.unexpected_count
            run += 1
    for rule, count in found.items():
        expected = counts["rules"].get(rule, {"broken": 0})["broken"]  # a type rule was judged before any row was
        if count != expected:
            raise GuaranteeError(
                "masks and Great Expectations disagree", where=f"rule {rule!r} of {parts[0].contract.table}",
                expected=f"{expected} rows by Polars", found=f"{count} by Great Expectations",
                do="This is a bug of Lockstep: see lockstep/masks.py and lockstep/judge.py.",
            )  # fmt: skip
    return {"expectations": run, "agree": run}


def _move_into_place(beside: Path, out: Path) -> None:
    """Replace the outputs by the new ones; until here nothing of them was touched."""
    for name in ("clean", "quarantine", "validation.json"):
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        if (beside / name).exists():
            (beside / name).replace(target)


def main() -> None:
    """Run the stage."""
    here = project()
    report = validate(
        here.root / "data",
        read_landings(here.root / "landings.csv"),
        load_contracts(here.folder("contracts")),
        here.settings.clock,
        here.root / "artifacts",
        profiles=here.folder("contracts"),
        code=closure_hash(here, "lockstep.validate"),
    )
    total = report["total"]
    shown = ("clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    print(f"validate: {total['rows']:,} rows in, {', '.join(f'{total[n]:,} {n}' for n in shown)}")


if __name__ == "__main__":
    code = stage(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # DuckDB with Great Expectations prints thirty lines of "nanobind: leaked" on a common exit
