"""Judge the landed rows of a table: keep their versions, set aside what no feature may read, and count both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Contract
from lockstep.errors import GuaranteeError
from lockstep.files import write_parquet
from lockstep.landed import Part, joined
from lockstep.masks import apply_repairs, broken, broken_after_repair, check_fail_rules, reasons
from lockstep.slo import RECENT_DAYS, judge_slo
from lockstep.versions import fates, timing

__all__ = ["Report", "check_law", "judge_table"]

Report = dict[str, Any]


@dataclass(frozen=True)
class _Judged:
    """A part after masks and repairs: what landed, what it became, why it is quarantined, late or bad."""

    raw: pl.DataFrame
    repaired: pl.DataFrame
    reasons: pl.Series
    late: pl.Series
    masks: pl.DataFrame
    """What broke which rule, ``late`` among them."""


def _judged(part: Part, others: Mapping[str, pl.DataFrame], zone: Zone) -> _Judged:
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
    timed = timing(repaired, reasons(refusing, quarantining), contract, zone, part.waived.get("late"))
    return _Judged(rows, repaired, timed["rule"], timed["late"], masks.with_columns(timed["late"]))


def judge_table(
    table: str,
    landed: Mapping[str, list[Part]],
    contracts: Mapping[str, Contract],
    zone: Zone,
    beside: Path,
    *,
    last: date,
) -> Report:
    """Judge one table, write its clean and quarantined rows and return its counts."""
    contract, parts = contracts[table], landed[table]
    named = {r.table for p in parts for r in p.contract.row_rules if r.table is not None}
    others = {t: joined([p.rows for p in landed[t]], contracts[t]) for t in named}
    judged = [_judged(p, others, zone) for p in parts]
    raw = joined([j.raw for j in judged], contract)
    repaired = joined([j.repaired for j in judged], contract)
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
        "released": sum(int(p.released.sum()) for p in parts),
    }
    check_law(counts, table)
    mended = pl.concat([pl.Series("mended", [], pl.Boolean), *(p.mended for p in parts)])
    faults = marks.select(pl.when(~mended).then("rule").alias("rule")).to_series()
    slo = judge_slo(contract, faults, raw["_landing_day"] > last - timedelta(days=RECENT_DAYS))
    return {**counts, "rules": _rule_counts(parts, judged, marks["rule"]), "slo": slo}


def _rule_counts(parts: list[Part], judged: list[_Judged], reasons: pl.Series) -> Report:
    """Return, by rule, what follows, how many rows broke it, and for how many of them a release had waived it."""
    counts: Report = {}
    for part, result in zip(parts, judged, strict=True):
        found = {r.name: r.then for r in part.contract.row_rules} | {"late": part.contract.lateness.then}
        for name, then in found.items():
            mask = result.masks[name]
            before = counts.get(name, {"broken": 0, "waived": 0})
            waived = int((mask & part.waived[name]).sum()) if name in part.waived else 0
            broken = before["broken"] + int(mask.sum())
            counts[name] = {"then": then, "broken": broken, "waived": before["waived"] + waived}
    names = reasons.drop_nulls().str.split(", ").list.explode(empty_as_null=False)
    for name in ("future", "conflict"):
        counts[name] = {"then": "quarantine", "broken": int((names == name).sum()), "waived": 0}
    return counts


def _write(clean: pl.DataFrame, refused: pl.DataFrame, contract: Contract, beside: Path) -> None:
    """Write clean rows by landing day and quarantined rows in one file, sorted so that equal rows are equal bytes."""
    ordered = clean.sort("_landing_day", *contract.key)
    for (day,), rows in ordered.partition_by("_landing_day", maintain_order=True, as_dict=True).items():
        write_parquet(rows, beside / "clean" / contract.table / f"{day}.parquet")
    columns = ["_landing_day", *contract.key]
    columns += [c for c in refused.columns if c not in columns]
    write_parquet(refused.sort(columns, nulls_last=True), beside / "quarantine" / f"{contract.table}.parquet")


def check_law(counts: Mapping[str, int], where: str) -> None:
    """Raise GuaranteeError where rows in are not rows kept + rows quarantined + duplicates."""
    out = counts["clean"] + counts["quarantined"] + counts["duplicates"]
    if counts["rows"] != out:
        raise GuaranteeError(
            "rows were lost or won", where=where, expected=f"{counts['rows']} rows in",
            found=f"{counts['clean']} clean + {counts['quarantined']} quarantined + {counts['duplicates']} duplicates",
            do="This is a bug of Lockstep: nothing was written.",
        )  # fmt: skip
