"""``releases.csv``: the append-only ledger of quarantined rows that land again, and the rows as they do.

A line points at a row of a sealed partition, which never changes, and says what is repaired in it, which rules are
waived for it, why, and on which landing day it lands again. `lockstep land` puts it there; `validate` waives those
rules alone, for that row alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lockstep.clock import parse_day
from lockstep.contract import Column, Contract
from lockstep.errors import DataError, UserError
from lockstep.files import read_parquet, write_text

__all__ = ["WITHDRAWN", "Release", "locate", "read_lines", "read_releases", "released_rows", "typed", "write_releases"]

WITHDRAWN = "withdrawn"
"""What stands as `repairs` in a line that takes an earlier one of the same row back."""


class Release(NamedTuple):
    """A quarantined row that lands again: a line of ``releases.csv``."""

    table: str
    landing_day: date
    """The day on which it lands again."""
    from_day: date
    from_row: int
    """Where it landed first: the number of the row in that day's partition, from 0."""
    key: str
    """JSON, for people."""
    repairs: str
    """JSON: columns and their new values, as texts; an empty one is null."""
    waived: str
    """The rules that do not hold for it, joined by a comma."""
    reason: str


_HEADER = [*Release._fields, "seal"]


def read_releases(path: Path) -> list[Release]:
    """Read the ledger's releases, without those that a later line has withdrawn: see `read_lines`."""
    found: dict[tuple[str, date, int], Release] = {}
    for line in read_lines(path):
        origin = (line.table, line.from_day, line.from_row)
        if line.repairs == WITHDRAWN:
            del found[origin]
        else:
            found[origin] = line
    return list(found.values())


def read_lines(path: Path) -> list[Release]:
    """Read the ledger; one that does not exist yet has no lines.

    Raises
    ------
    DataError
        A line that is not one, or whose seal is not that of itself and the lines before it: it was edited by hand.
    """
    if not path.exists():
        return []
    releases: list[Release] = []
    seal = ""
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.reader(handle)
        if (header := next(reader, [])) != _HEADER:
            raise DataError("bad header", where=path.name, expected=",".join(_HEADER), found=",".join(header))
        for number, row in enumerate(reader, start=2):
            if len(row) != len(_HEADER) or row[-1] != (seal := _seal(seal, row[:-1])):
                raise DataError(
                    "a line was edited by hand", where=f"{path.name} line {number}", found=",".join(row),
                    do="Restore it with `git checkout releases.csv`; `lockstep release` alone writes lines.",
                )  # fmt: skip
            table, landing_day, from_day, from_row, *more = row[:-1]
            releases.append(Release(table, parse_day(landing_day), parse_day(from_day), int(from_row), *more))
    return releases


def write_releases(releases: Iterable[Release], path: Path) -> None:
    """Write the ledger, each line sealed with those before it."""
    text, seal = io.StringIO(), ""
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for release in releases:
        line = [str(value) for value in release]
        writer.writerow([*line, seal := _seal(seal, line)])
    write_text(text.getvalue(), path)


def _seal(before: str, line: list[str]) -> str:
    return hashlib.sha256(json.dumps([before, *line]).encode()).hexdigest()[:16]


def released_rows(releases: Iterable[Release], contract: Contract, file: Callable[[date], Path]) -> pl.DataFrame:
    """Return rows of `contract`'s table as they land again, in the order of `releases`.

    Parameters
    ----------
    contract
        The one in force when they land; of a column that their own contract did not have, they have nothing,
        and a repair of one that it no longer has is left out.
    file
        Gives the partition of a landing day.

    Returns
    -------
    DataFrame
        The columns of the contract and ``_landing_day``.
    """
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    read: dict[date, pl.DataFrame] = {}
    rows = [pl.DataFrame(schema=schema)]
    for one in releases:
        if one.from_day not in read:
            read[one.from_day] = read_parquet(file(one.from_day))
        repairs = {c: text for c, text in json.loads(one.repairs).items() if c in contract.columns}
        columns = {c: typed(contract.columns[c], text) for c, text in repairs.items()}
        again = {**columns, "_landing_day": one.landing_day}
        _check_key(one, read[one.from_day])
        row = read[one.from_day][one.from_row].with_columns(pl.lit(v, schema[c]).alias(c) for c, v in again.items())
        rows.append(row)
    return pl.concat(rows, how="diagonal").select(*schema)


def _check_key(one: Release, rows: pl.DataFrame) -> None:
    """Refuse a line of other data than lie there now: it would land somebody else's row."""
    found = rows.row(one.from_row, named=True) if one.from_row < rows.height else {}
    wanted = {c: v for c, v in json.loads(one.key).items() if c not in json.loads(one.repairs)}
    if not found or any(str(found[c]) != str(v) for c, v in wanted.items()):
        raise DataError(
            "a release of another row", where=f"releases.csv: row {one.from_row} of {one.table}/{one.from_day}.parquet",
            expected=one.key, found=", ".join(f"{c}={found.get(c)}" for c in wanted) or "no such row",
            do="It was of other data: restore those, or begin anew without releases.csv (docs/your-own-data.md).",
        )  # fmt: skip


def typed(column: Column, text: str, option: str = "--set") -> Any:
    """Return the text that an option gives as a value of its column; an empty text is null."""
    read: dict[str, Callable[[str], Any]] = {
        "int64": _int64, "float64": float, "string": str, "date": parse_day, "instant": _instant,
        "bool": {"true": True, "false": False}.__getitem__,
    }  # fmt: skip
    try:
        return read[column.type](text) if text else None
    except (ValueError, KeyError):
        kind = "repair" if option == "--set" else "value"
        raise UserError(
            f"a {kind} of the wrong type", where=f"{option} {column.name}", expected=f"a value of type {column.type}",
            found=repr(text), do="An instant is written as 2017-01-01T05:00:00Z, a bool as true or false.",
        ) from None  # fmt: skip


def _int64(text: str) -> int:
    if not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError(text)
    return value


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def locate(rows: pl.DataFrame, wanted: pl.DataFrame) -> list[int]:
    """Return where in `rows` the `wanted` ones are, each at a place of its own however alike they are.

    Raises
    ------
    DataError
        One is not there.
    """
    columns = wanted.columns
    nth = pl.int_range(pl.len()).over(columns).alias("_nth")
    days = wanted["_landing_day"].unique().to_list()
    some = rows.with_row_index("_row").filter(pl.col("_landing_day").is_in(days)).with_columns(nth)
    found = wanted.with_columns(nth).join(
        some, on=[*columns, "_nth"], how="left", nulls_equal=True, maintain_order="left"
    )
    lost = found.filter(pl.col("_row").is_null())
    for one in lost.head(1).to_dicts():
        raise DataError(
            "a released row is not in the partition that it landed in", where=f"landing day {one['_landing_day']}",
            found=", ".join(f"{c}={one[c]}" for c in columns[:3]),
            do="Restore releases.csv and landings.csv as they were committed together.",
        )  # fmt: skip
    return found["_row"].to_list()
