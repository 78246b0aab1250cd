"""The `validate` stage: judge every landed row, keep its versions, set aside what no feature may read.

Rows in = rows kept + rows quarantined + duplicates, for every table, or the stage fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone
from lockstep.closure import closure_hash
from lockstep.contract import Contract, load_contracts
from lockstep.errors import DataError, GuaranteeError
from lockstep.files import file_hash, read_parquet, tree_hash, write_json, write_parquet, write_text
from lockstep.health import findings
from lockstep.judge import judge
from lockstep.landings import EMPTY, Landing, check_partition, partition, read_landings, require_contracts
from lockstep.masks import apply_repairs, broken, broken_after_repair, check_fail_rules, reasons
from lockstep.project import project
from lockstep.release import Release, locate, read_releases, released_rows
from lockstep.stage import progress, stage
from lockstep.versions import fates, timing

__all__ = ["main", "validate"]

Report = dict[str, Any]


@dataclass(frozen=True)
class _Part:
    """The landings of one table that one version of its contract judges."""

    contract: Contract
    rows: pl.DataFrame
    files: tuple[Path, ...]
    released: int = 0
    waived: Mapping[str, pl.Series] = field(default_factory=dict)
    """By rule, the rows for which it does not hold."""


def validate(
    data: Path,
    landings: Iterable[Landing],
    contracts: Mapping[str, Contract],
    zone: Zone,
    out: Path,
    *,
    releases: Iterable[Release] = (),
    expectations: bool = True,
    code: str = "",
    keep: Path | None = None,
) -> Report:
    """Judge the sealed partitions and write ``clean/``, ``quarantine/`` and ``validation.json`` into `out`.

    Parameters
    ----------
    data
        The folder of ``<table>/<landing day>.parquet``.
    landings
        What was sealed: nothing else is read.
    releases
        Rows among them that had been quarantined before, and the rules that are waived for each.
    code
        The hash of the code that judges, for the record.
    expectations
        Whether Great Expectations gives its second opinion, which must agree with the masks.
    keep
        A folder for that opinion in its own words, anew: see `lockstep.data_docs`.

    Returns
    -------
    dict
        What ``validation.json`` holds.

    Raises
    ------
    DataError
        A partition cannot be read, has another schema than its contract or breaks a `fail` rule.
    GuaranteeError
        Rows were lost or won on the way, or masks and Great Expectations count differently.
    """
    lines = list(landings)
    landed = _landed(data, lines, contracts, list(releases))
    beside = out / ".validate"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "clean").mkdir(parents=True)
    try:
        tables = {t: _table(t, landed, contracts, zone, beside) for t in progress(sorted(contracts), "rules")}
        if keep:
            shutil.rmtree(keep, ignore_errors=True)
        if expectations:
            for table, counts in progress(list(tables.items()), "Great Expectations"):
                counts["great_expectations"] = _second_opinion(landed[table], landed, counts, keep)
        for table, counts in tables.items():
            counts["health"] = _health(lines, contracts[table], landed[table])
        hashes = {"code": code, "data": tree_hash(data), "clean": tree_hash(beside / "clean")}
        report = {"tables": tables, "total": _total(tables.values()), "hashes": hashes}
        write_json(report, beside / "validation.json")
        _move_into_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report


def _landed(
    data: Path, landings: list[Landing], contracts: Mapping[str, Contract], releases: list[Release]
) -> dict[str, list[_Part]]:
    """Read every sealed partition, checked against the schema of the contract in force on its day."""
    require_contracts(landings, contracts)
    landed: dict[str, list[_Part]] = {table: [] for table in contracts}
    for table in dict.fromkeys(line.table for line in landings):
        lines = [x for x in landings if x.table == table and x.byte_hash != EMPTY]
        for version in sorted({line.contract_version for line in lines}):
            contract = contracts[table].at(version)
            chosen = [x for x in lines if x.contract_version == version]
            rows = pl.concat([_partition(data, line, contract) for line in chosen])
            again = [r for r in releases if r.table == table and r.landing_day in {line.landing_day for line in chosen}]
            files = tuple(data / line.path for line in chosen)
            landed[table].append(_Part(contract, rows, files, len(again), _waived(data, rows, contract, again)))
    _check_landed(landings, releases)
    return landed


def _check_landed(landings: list[Landing], releases: list[Release]) -> None:
    """Refuse a release whose landing day was sealed without any row of its table."""
    sealed = {(line.table, line.landing_day) for line in landings if line.byte_hash != EMPTY}
    last = max((line.landing_day for line in landings), default=None)
    for one in releases:
        if last and one.landing_day <= last and (one.table, one.landing_day) not in sealed:
            raise DataError(
                "a released row has not landed", where="releases.csv", expected=f"data/{one.table}/{one.landing_day}",
                found=one.key, do="Restore releases.csv and landings.csv as they were committed together.",
            )  # fmt: skip


def _waived(data: Path, rows: pl.DataFrame, contract: Contract, releases: list[Release]) -> dict[str, pl.Series]:
    """Return, by rule, which rows are those that were released from it."""
    if not releases:
        return {}
    wanted = released_rows(releases, contract, lambda day: data / partition(contract.table, day))
    waived: dict[str, list[int]] = {}
    for at, release in zip(locate(rows, wanted), releases, strict=True):
        for rule in filter(None, release.waived.split(", ")):
            waived.setdefault(rule, []).append(at)
    none = pl.Series([False]).new_from_index(0, rows.height)
    return {rule: none.scatter(at, True) for rule, at in waived.items()}


def _partition(data: Path, line: Landing, contract: Contract) -> pl.DataFrame:
    where = f"data/{line.path}"
    check_partition(data, line)
    rows = read_parquet(data / line.path)
    contract.check_schema(rows.schema, where)
    if rows.height != line.rows:
        raise DataError(
            "other rows than sealed", where=where, expected=f"{line.rows} rows", found=rows.height,
            do="Restore the file: a sealed partition is immutable.",
        )  # fmt: skip
    return rows.select(*contract.schema(), pl.lit(line.landing_day, pl.Date).alias("_landing_day"))


@dataclass(frozen=True)
class _Judged:
    """A part after masks and repairs: what landed, what it became, why it is quarantined, late or bad."""

    raw: pl.DataFrame
    repaired: pl.DataFrame
    reasons: pl.Series
    late: pl.Series
    bad: pl.Series
    counts: Mapping[str, int]


def _judged(part: _Part, others: Mapping[str, pl.DataFrame], zone: Zone) -> _Judged:
    """Apply one version of a contract; a broken `fail` rule ends the stage."""
    contract, rows = part.contract, part.rows
    check_fail_rules(contract, rows, f"table {contract.table}")
    masks = broken(contract, rows, others)
    repaired = apply_repairs(contract, rows)
    unmended = broken_after_repair(contract, repaired)
    quarantining = [r for r in contract.row_rules if r.then == "quarantine" or r.name in unmended.columns]
    held = masks.with_columns(masks[r] & ~waived for r, waived in part.waived.items() if r in masks.columns)
    refusing = held.with_columns(unmended).with_columns(
        unmended[r] & ~waived for r, waived in part.waived.items() if r in unmended.columns
    )
    counted = [r.name for r in contract.row_rules if r.then != "flag"]
    bad = held.select(pl.any_horizontal(pl.lit(False), *counted).alias("bad")).to_series()
    timed = timing(repaired, reasons(refusing, quarantining), contract, zone, part.waived.get("late"))
    return _Judged(rows, repaired, timed["rule"], timed["late"], bad, masks.sum().row(0, named=True))


def _table(
    table: str, landed: Mapping[str, list[_Part]], contracts: Mapping[str, Contract], zone: Zone, beside: Path
) -> Report:
    """Judge one table, write its clean and quarantined rows and return its counts."""
    contract, parts = contracts[table], landed[table]
    named = {r.params["table"] for p in parts for r in p.contract.row_rules if r.kind == "references"}
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
    bad = pl.concat([pl.Series("bad", [], pl.Boolean), *(j.bad for j in judged)]) | quarantined
    counts = {
        "rows": raw.height,
        "clean": clean.height,
        "quarantined": refused.height,
        "duplicates": int((marks["fate"] == "duplicate").sum()),
        "late": int(late.sum()),
        "corrections": int(marks["correction"].sum()),
        "deletions": int(clean["_deleted"].sum()),
        "bad": int(bad.sum()),
        "released": sum(p.released for p in parts),
    }
    _check_law(counts, table)
    return {**counts, "good_share": _share(counts), "rules": _rule_counts(parts, judged, marks["rule"])}


def _health(lines: list[Landing], contract: Contract, parts: list[_Part]) -> list[Report]:
    """Return what history shows of the landing days of one table."""
    rows = {contract.table: _joined([p.rows for p in parts], contract)}
    found = findings(lines, {contract.table: contract}, rows).drop("table")
    return found.with_columns(pl.col("landing_day").cast(pl.String)).to_dicts()


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


def _share(counts: Mapping[str, int]) -> float | None:
    """Return the share of rows that broke nothing but `flag` rules: the record SLO. Null without rows."""
    return (counts["rows"] - counts["bad"]) / counts["rows"] if counts["rows"] else None


def _total(tables: Iterable[Report]) -> Report:
    names = ("rows", "clean", "quarantined", "duplicates", "late", "corrections", "deletions", "bad")
    found = list(tables)
    total = {name: sum(t[name] for t in found) for name in names}
    _check_law(total, "all tables")
    return {**total, "good_share": _share(total)}


def _second_opinion(parts: list[_Part], landed: Mapping[str, list[_Part]], counts: Report, keep: Path | None) -> Report:
    """Run each version's suite on Great Expectations; it must count what the masks counted."""
    found: dict[str, int] = {}
    run = 0
    for part in parts:
        files = {
            r.params["table"]: [f for p in landed[r.params["table"]] for f in p.files]
            for r in part.contract.row_rules
            if r.kind == "references"
        }
        for one in judge(part.contract, part.files, files, keep):
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
    kept, out = here.root / "state/expectations", here.root / "artifacts"
    report = validate(
        here.root / "data",
        read_landings(here.root / "landings.csv"),
        load_contracts(here.folder("contracts")),
        here.settings.clock,
        out,
        releases=read_releases(here.root / "releases.csv"),
        code=closure_hash(here, "lockstep.validate"),
        keep=kept,
    )
    write_text(file_hash(out / "validation.json"), kept / "of")
    total = report["total"]
    shown = ("clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    print(f"validate: {total['rows']:,} rows in, {', '.join(f'{total[n]:,} {n}' for n in shown)}")


if __name__ == "__main__":
    code = stage(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # DuckDB with Great Expectations prints thirty lines of "nanobind: leaked" on a common exit
