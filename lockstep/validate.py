"""The `validate` stage: judge every landed row, keep its versions, set aside what no feature may read.

Rows in = rows kept + rows quarantined + duplicates, for every table, or the stage fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import VERSION_RULES, Contract
from lockstep.errors import DataError, GuaranteeError, LockstepError, did_you_mean
from lockstep.files import read_parquet, write_json, write_parquet
from lockstep.judge import judge
from lockstep.landings import EMPTY, Landing, read_landings
from lockstep.masks import apply_repairs, broken, broken_after_repair, check_fail_rules, reasons
from lockstep.versions import fates

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
    expectations: bool = True,
) -> Report:
    """Judge the sealed partitions and write ``clean/``, ``quarantine/`` and ``validation.json`` into `out`.

    Parameters
    ----------
    data
        The folder of ``<table>/<landing day>.parquet``.
    landings
        What was sealed: nothing else is read.
    expectations
        Whether Great Expectations gives its second opinion, which must agree with the masks.

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
    landed = _landed(data, list(landings), contracts)
    beside = out / ".validate"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        tables = {t: _table(landed[t], landed, contracts[t], zone, beside) for t in sorted(contracts)}
        if expectations:
            for table in tables:
                tables[table]["great_expectations"] = _second_opinion(landed[table], landed, tables[table])
        report = {"tables": tables, "total": _total(tables.values())}
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
            rows = pl.concat([_partition(data, line, contract) for line in chosen])
            landed[table].append(_Part(contract, rows, tuple(data / line.path for line in chosen)))
    return landed


def _partition(data: Path, line: Landing, contract: Contract) -> pl.DataFrame:
    where = f"data/{line.path}"
    rows = read_parquet(data / line.path)
    contract.check_schema(rows.schema, where)
    if rows.height != line.rows:
        raise DataError(
            "other rows than sealed", where=where, expected=f"{line.rows} rows", found=rows.height,
            do="Restore the file: a sealed partition is immutable.",
        )  # fmt: skip
    return rows.select(*contract.schema(), pl.lit(line.landing_day, pl.Date).alias("_landing_day"))


def _others(contract: Contract, landed: Mapping[str, list[_Part]]) -> dict[str, pl.DataFrame]:
    """Return the rows, of all contract versions, that the contract's `references` rules look into."""
    others = {}
    for rule in contract.row_rules:
        if rule.kind == "references":
            table = rule.params["table"]
            columns = [*rule.params["columns"], "_landing_day"]
            empty = pl.DataFrame(schema={c: contract.columns[m].dtype for c, m in zip(columns, rule.columns, strict=False)})
            empty = empty.with_columns(pl.lit(None, pl.Date).alias("_landing_day"))
            others[table] = pl.concat([empty, *(p.rows.select(columns) for p in landed[table])])
    return others
