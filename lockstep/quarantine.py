"""Quarantined rows: where, why, when and how many; and their release after repair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import VERSION_RULES, Contract, Rule
from lockstep.errors import DataError, UserError, did_you_mean
from lockstep.files import read_json, read_parquet, tree_hash
from lockstep.land import last_sealed
from lockstep.landings import EMPTY, check_sealed, partition
from lockstep.release import (
    WITHDRAWN,
    Release,
    locate,
    read_lines,
    read_releases,
    released_rows,
    typed,
    write_releases,
)
from lockstep.versions import event_day

__all__ = ["contract_of", "judged_in", "quarantined", "release", "withdraw"]

_NEVER_WAIVED = ("future", "conflict")
"""A row from the future lands again when its day has come, one of two rivals lands alone: then nothing is broken."""


def quarantined(root: Path, contracts: Mapping[str, Contract], table: str | None = None) -> pl.DataFrame:
    """Return how many rows are quarantined, by table, landing day and rule; a row of two rules counts in both.

    Returns
    -------
    DataFrame
        ``table``, ``landing_day``, ``rule``, ``rows``, how many of them are ``released``, the ``file`` they landed in
        and a ``sample`` row: its key and what the rule is about. All rows are in
        ``artifacts/quarantine/<table>.parquet``, those of a run that a broken guarantee stopped in ``state/refused``.
    """
    judged, releases = judged_in(root), read_releases(root / "releases.csv")
    found: list[dict[str, Any]] = []
    for name in [table] if table else sorted(contracts):
        contract = contract_of(contracts, name)
        rows = _rows(root, judged, contract, releases).with_columns(pl.col("rule").str.split(", ")).explode("rule")
        for (day, rule), part in sorted(rows.partition_by("_landing_day", "rule", as_dict=True).items()):
            about = next((r.columns for r in _rules(contract) if r.name == rule), (contract.event_time,))
            first = part.row(0, named=True)
            sample = ", ".join(f"{c}={first[c]}" for c in dict.fromkeys([*contract.key, *about]) if c)
            file = f"data/{partition(name, day)}"
            counts = {"rows": part.height, "released": int(part["released"].sum())}
            found.append({"table": name, "landing_day": day, "rule": rule, **counts, "file": file, "sample": sample})
    text, whole = pl.String(), pl.Int64()
    schema = {"table": text, "landing_day": pl.Date(), "rule": text, "rows": whole, "released": whole}
    return pl.DataFrame(found, {**schema, "file": text, "sample": text})


def release(
    root: Path,
    contract: Contract,
    zone: Zone,
    rules: Sequence[str],
    reason: str,
    *,
    day: date | None = None,
    where: Mapping[str, str] | None = None,
    repairs: Mapping[str, str] | None = None,
) -> list[Release]:
    """Note quarantined rows in ``releases.csv``: they land again on the next unsealed day, or on that of their event.

    Chosen are the rows that broke one of `rules`, landed on `day` and have the values `where`, without those that are
    released already and those whose key has landed again since. A rule is waived unless one of its columns is repaired:
    then the new value is judged. ``future`` and ``conflict`` are never waived, since landing again mends them.

    Parameters
    ----------
    where, repairs
        Columns and their values, as texts.

    Raises
    ------
    UserError
        An unknown rule or column, no reason, no such row, two contents of one key, or a row that cannot do without the
        rule.
    DataError
        A repaired row breaks a `fail` rule.
    """
    reason = _reason(reason)
    if not rules:
        raise UserError("no rule", where="--rule", expected="a rule that the rows broke")
    _check_rules(contract, rules)
    _check_columns(contract, where or {}, "--where")
    repairs = _check_columns(contract, repairs or {}, "--set")
    old = read_releases(root / "releases.csv")
    judged = judged_in(root)
    rows = _chosen(_rows(root, judged, contract, old), contract, rules, day, where or {})
    start = last_sealed(root) + timedelta(1)
    repaired = rows.with_columns(
        pl.lit(typed(contract.columns[c], text), contract.columns[c].dtype).alias(c) for c, text in repairs.items()
    )
    happened = repaired.select(event_day(contract, zone)).to_series() if contract.event_time else [None] * rows.height
    lines = []
    for one, again, event in zip(rows.to_dicts(), repaired.to_dicts(), happened, strict=True):
        waived = [r for r in one["rule"].split(", ") if r in rules and _is_waived(contract, r, repairs)]
        key = json.dumps({c: again[c] for c in contract.key}, default=str, ensure_ascii=False)
        lines.append(
            Release(
                contract.table, max(start, event or start), one["_landing_day"], one["_number"], key,
                json.dumps(dict(repairs), ensure_ascii=False), ", ".join(waived), reason,
            )
        )  # fmt: skip
    _check_lines(root, judged, contract, old, lines)
    write_releases([*read_lines(root / "releases.csv"), *lines], root / "releases.csv")
    return lines


def withdraw(root: Path, contract: Contract, reason: str) -> list[Release]:
    """Take back every release of a table that has not landed yet, by a line that says why; return what was taken back.

    The rows stay quarantined and may be released anew, as when a newer contract no longer takes them as they are.

    Raises
    ------
    UserError
        No reason, or nothing that has not landed yet.
    """
    reason, last = _reason(reason), last_sealed(root)
    pending = [x for x in read_releases(root / "releases.csv") if x.table == contract.table and x.landing_day > last]
    if not pending:
        raise UserError(
            "nothing to withdraw", where=f"table {contract.table}", found="no release that has not landed yet",
            do="What has landed stays: the source corrects or deletes it.",
        )  # fmt: skip
    back = [x._replace(repairs=WITHDRAWN, waived="", reason=reason) for x in pending]
    write_releases([*read_lines(root / "releases.csv"), *back], root / "releases.csv")
    return pending


def _reason(text: str) -> str:
    if not (text.strip() and text.isprintable()):
        raise UserError("no reason", where="--reason", expected="one line that says why", found=repr(text))
    return text.strip()


def contract_of(contracts: Mapping[str, Contract], table: str) -> Contract:
    """Return the contract of a table; raise UserError with the nearest known name where there is none."""
    if table not in contracts:
        raise UserError(f"unknown table {table!r}", where="features/contracts", do=did_you_mean(table, contracts))
    return contracts[table]


def _rules(contract: Contract) -> list[Rule]:
    """Return the row rules of all versions of a contract, the newest first."""
    return [r for c in (contract, *contract.earlier.values()) for r in c.row_rules]


def judged_in(root: Path) -> Path:
    """Return the folder of clean and quarantined rows of the present data: a refused run's, or the published one."""
    hashes = {x.path: x.byte_hash for x in check_sealed(root) if x.byte_hash != EMPTY}
    data, refused = tree_hash(root / "data", hashes), root / "state/refused"
    if (refused / "of").is_file() and (refused / "of").read_text(encoding="utf-8") == data:
        return refused
    if read_json(root / "artifacts/validation.json")["hashes"]["data"] != data:
        raise DataError(
            "what is quarantined is not of the present data", where="artifacts/quarantine", do="Run `lockstep run`."
        )
    return root / "artifacts"


def _rows(root: Path, judged: Path, contract: Contract, releases: Iterable[Release]) -> pl.DataFrame:
    """Return the quarantined rows of a table, with ``_number``, their place in their partition, and ``released``."""
    schema = {**contract.schema(), "_landing_day": pl.Date()}

    def fitted(rows: pl.DataFrame) -> pl.DataFrame:  # to the contract in force, whatever they landed under
        return pl.concat([pl.DataFrame(schema=schema), rows], how="diagonal").select(*schema)

    refused = read_parquet(judged / f"quarantine/{contract.table}.parquet")
    rows = fitted(refused).with_columns(refused["rule"])
    done = {(r.from_day, r.from_row) for r in releases if r.table == contract.table}
    parts = [rows.clear().with_columns(_number=pl.lit(0, pl.Int64), released=pl.lit(False))]
    for (day,), part in sorted(rows.partition_by("_landing_day", as_dict=True).items()):
        sealed = read_parquet(root / "data" / partition(contract.table, day))
        sealed = fitted(sealed.with_columns(pl.lit(day, pl.Date).alias("_landing_day")))
        numbers = locate(sealed, part.select(*schema))
        released = [(day, n) in done for n in numbers]
        parts.append(
            part.with_columns(pl.Series("_number", numbers, pl.Int64), pl.Series("released", released, pl.Boolean))
        )
    return pl.concat(parts)


def _chosen(
    rows: pl.DataFrame, contract: Contract, rules: Sequence[str], day: date | None, where: Mapping[str, str]
) -> pl.DataFrame:
    """Return the rows that were asked for and are not released yet; say which condition leaves none."""
    table = f"table {contract.table}"
    if rows.is_empty():
        raise UserError("nothing is quarantined", where=table)
    if day and (rows := rows.filter(_landing_day=day)).is_empty():
        raise UserError(
            "nothing is quarantined",
            where=f"{table}, landing day {day}",
            do=f"See `lockstep quarantine {contract.table}`.",
        )
    named = pl.col("rule").str.split(", ").list.set_intersection(list(rules)).list.len() > 0
    values = {c: typed(contract.columns[c], text) for c, text in where.items()}
    same = [pl.col(c).eq_missing(pl.lit(v, contract.columns[c].dtype)) for c, v in values.items()]
    rows = rows.filter(named, *same)
    if rows.is_empty():
        asked = ", ".join([*rules, *(f"{c}={v}" for c, v in where.items())])
        raise UserError(
            "no such row is quarantined", where=table, expected=asked,
            do=f"See `lockstep quarantine {contract.table}`.",
        )  # fmt: skip
    if (rows := rows.filter(~pl.col("released"))).is_empty():
        raise UserError(
            "released already",
            where=table,
            do="A row is released once; if it was quarantined again, release that landing.",
        )
    return rows


def _is_waived(contract: Contract, rule: str, repairs: Mapping[str, str]) -> bool:
    """Return whether a rule is to be waived for a row; refuse where a row without it would be no row."""
    if rule in _NEVER_WAIVED:
        return False
    found = next((r for r in _rules(contract) if r.name == rule), None)
    columns = found.columns if found else (contract.event_time,)
    if set(columns) & set(repairs):
        return False
    if found and found.kind == "not_null" and found.columns[0] in (*contract.key, contract.event_time):
        raise UserError(
            f"the rule {rule!r} cannot be waived", where=f"table {contract.table}", expected=f"a value of {columns[0]}",
            found="null, and it names or dates the row", do=f"Repair it with --set {columns[0]}=...",
        )  # fmt: skip
    return True


def _check_rules(contract: Contract, rules: Sequence[str]) -> None:
    known = [*(r.name for r in _rules(contract) if r.then in ("quarantine", "cap")), *VERSION_RULES]
    for rule in rules:
        if rule not in known:
            where = f"quarantining rules of table {contract.table}"
            raise UserError(f"unknown rule {rule!r}", where=where, do=did_you_mean(rule, known))


def _check_columns(contract: Contract, given: Mapping[str, str], option: str) -> Mapping[str, str]:
    for name, text in given.items():
        if name not in contract.columns:
            raise UserError(f"unknown column {name!r}", where=option, do=did_you_mean(name, contract.columns))
        typed(contract.columns[name], text, option)
    return given


def _check_lines(
    root: Path, judged: Path, contract: Contract, old: Iterable[Release], lines: Sequence[Release]
) -> None:
    """Judge rows as they will land: `fail` rules, one content a key, and no newer version that they would undo."""
    rows = released_rows(lines, contract, lambda day: root / "data" / partition(contract.table, day))
    contract.check_fail_rules(rows, f"released rows of {contract.table}")
    content = rows.drop("_received_at", "_landing_day").unique()
    rivals = content.filter(content.select(contract.key).is_duplicated())
    pending = [r.key for r in old if r.table == contract.table and r.landing_day >= min(x.landing_day for x in lines)]
    twice = [x.key for x in lines if x.key in pending]
    if twice or not rivals.is_empty():
        shown = twice[0] if twice else lines[rows.select(contract.key).is_duplicated().to_list().index(True)].key
        raise UserError(
            "two contents of one key would land", where=f"table {contract.table}", found=shown,
            do="Choose one with --where column=value or --day.",
        )  # fmt: skip
    newer = _newer(
        judged, contract, rows.select(contract.key).with_columns(_from=pl.Series([x.from_day for x in lines]))
    )
    if not newer.is_empty():
        raise UserError(
            "a good row of the same key has landed since", where=f"table {contract.table}",
            found=", ".join(f"{c}={v}" for c, v in newer.row(0, named=True).items()),
            do="Releasing the older one would undo it: choose others with --where column=value or --day.",
        )  # fmt: skip


def _newer(judged: Path, contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Return those of `rows`, of which ``_from`` is the landing day, whose key a clean row of that day or later has."""
    first = rows["_from"].min()
    paths = sorted((judged / "clean" / contract.table).glob("*.parquet"))
    clean = [read_parquet(p).select(*contract.key, "_landing_day") for p in paths if p.stem >= str(first)]
    if not clean:
        return rows.clear()
    both = rows.join(pl.concat(clean), on=contract.key, how="inner").filter(pl.col("_landing_day") >= pl.col("_from"))
    return both.select(*contract.key, "_landing_day")
