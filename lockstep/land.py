"""Land and seal raw days: the only writer of ``data/``, ``landings.csv`` and ``data.dvc``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

import polars as pl

from lockstep.clock import INSTANT, days
from lockstep.contract import Contract
from lockstep.errors import DataError, UserError
from lockstep.files import file_hash, write_parquet
from lockstep.health import findings, told
from lockstep.landings import (
    EMPTY,
    Landing,
    check_sealed,
    content_hash,
    of_source,
    partition,
    read_landings,
    require_contracts,
    write_landings,
)
from lockstep.release import Release, read_releases, released_rows, write_releases

__all__ = ["Raw", "SourceEnds", "land", "last_sealed", "read_raw"]

Raw = Callable[[str], pl.DataFrame]
"""Gives the raw rows of a table, with ``_landing_day`` (Date): the project's `landing` module has one.

A column ``_source``, of one text such as ``delta 12``, is no row's content: it is noted beside what is sealed.
"""


class SourceEnds(UserError):
    """The source has not reached the last day that was to be sealed: an empty seal is for good."""

    def __init__(self, last: date, until: date) -> None:
        super().__init__(
            "the source ends before the last day to seal", where="lockstep land", expected=f"until <= {last}",
            found=until, do="Land up to the last day that has come; later days would be sealed as empty for good.",
        )  # fmt: skip
        self.last = last


def land(root: Path, contracts: Mapping[str, Contract], raw: Raw, first: date, until: date) -> list[Landing]:
    """Seal every landing day up to `until` that is not sealed yet, and refill sealed files that are missing.

    Rows of ``releases.csv`` land with those of the source, on the day that their line names; health and volume judge
    what the source sent alone.

    The order makes an interruption harmless: partitions are written beside, then the ledger is renamed into place, then
    the partitions are, then ``data.dvc`` is. Run again, it finishes.

    Returns
    -------
    list of Landing
        The lines that are new, in the order in which they were appended.

    Raises
    ------
    DataError
        Raw rows break the schema or a `fail` rule of their contract, or a day is unlike those before it where its
        contract's `health` fails (nothing is sealed); or a refilled partition is not the one that was sealed.
    """
    ledger = check_sealed(root, missing_is_fine=True)
    require_contracts(ledger, contracts)
    beside = root / "state/landing"
    shutil.rmtree(beside, ignore_errors=True)
    start = max((date.fromordinal(line.landing_day.toordinal() + 1) for line in ledger), default=first)
    missing = {x for x in ledger if x.byte_hash != EMPTY and not (root / "data" / x.path).is_file()}
    if start > until and not missing:
        return []
    raws = {table: read_raw(raw, contract) for table, contract in sorted(contracts.items())}
    tables = {table: _judged(rows.drop("_source", strict=False), contracts[table]) for table, rows in raws.items()}
    releases = read_releases(root / "releases.csv")
    waiting = max((x.landing_day for x in releases), default=date.min)
    _check_calendar(tables, start, until, waiting)
    new: list[Landing] = []
    for table, contract in sorted(contracts.items()):
        sealed = {line.landing_day: line for line in ledger if line.table == table}
        source = _source(raws[table], table)
        rows = tables[table].partition_by("_landing_day", as_dict=True, include_key=False)
        parts = {key[0]: part for key, part in rows.items()}
        again = {x.landing_day for x in missing if x.table == table}
        mine = [x for x in releases if x.table == table]
        for day in sorted({d for d in parts if d < start} | again | {*days(start, until)}):
            released = [x for x in mine if x.landing_day == day]
            whole = _with_released(parts.get(day), released, contract, (beside, root / "data"), new=day >= start)
            if day < start and day not in again:
                _check_past(contract, day, whole, sealed.get(day))
                continue
            if day not in sealed:
                contract.check_volume(day, parts[day].height if day in parts else 0)
            line = _write(beside, contract, day, whole, source)
            if day in sealed:
                _same_as_sealed(line, sealed[day])
            elif line is not None:
                new.append(line)
    new.sort(key=lambda line: (line.landing_day, line.table))
    if new:
        _check_health(findings(of_source([*ledger, *new], releases), contracts, tables), start)
        write_landings([*ledger, *new], root / "landings.csv")
    if not (root / "releases.csv").exists():
        write_releases([], root / "releases.csv")
    _move_into_place(beside, root / "data")
    if missing:
        print(f"refilled {len(missing)} sealed partitions", flush=True)
    return new


def last_sealed(root: Path) -> date:
    """Return the last landing day that is sealed; raise DataError where none is."""
    days = [line.landing_day for line in read_landings(root / "landings.csv")]
    if not days:
        raise DataError("no sealed day", where="landings.csv", do="Run `lockstep land`.")
    return max(days)


def _check_calendar(tables: Mapping[str, pl.DataFrame], start: date, until: date, waiting: date) -> None:
    """Refuse to seal days that neither the source nor a waiting release has reached: an empty seal is for good."""
    last = pl.concat([rows.select("_landing_day") for rows in tables.values()])["_landing_day"].max()
    if isinstance(last, date) and start <= until and until > max(last, waiting):
        raise SourceEnds(last, until)


def _check_health(found: pl.DataFrame, start: date) -> None:
    """Refuse to seal days that are unlike those before them, where a contract says so."""
    bad = found.filter((pl.col("landing_day") >= start) & (pl.col("then") == "fail"))
    for one in bad.head(1).to_dicts():
        usual = "" if one["usual"] is None else f", {one['usual']:,.0f} are usual"
        raise DataError(
            f"a landing day is {one['finding']}" if " " not in one["finding"] else f"a landing day {one['finding']}",
            where=f"table {one['table']}, {one['landing_day']}", found=f"{one['rows']:,} rows{usual}; {told(bad)}",
            do="Nothing was sealed: mend the source, or name the day in gaps of the contract's health if it is so.",
        )  # fmt: skip


def _with_released(
    rows: pl.DataFrame | None, releases: Iterable[Release], contract: Contract, folders: Iterable[Path], *, new: bool
) -> pl.DataFrame | None:
    """Put released rows of one landing day to those of the source; before they are sealed, judge them together."""
    releases = list(releases)
    if not releases:
        return rows

    def file(day: date) -> Path:  # a partition that is refilled just now is not in place yet
        paths = [folder / partition(contract.table, day) for folder in folders]
        return next((p for p in paths if p.is_file()), paths[-1])

    found = released_rows(releases, contract, file)
    if rows is not None:
        day = found.select("_landing_day").head(1)
        found = pl.concat([rows.join(day, how="cross").select(found.columns), found])
    if new:
        _check_released(found, contract)
    return found.drop("_landing_day")


def _check_released(rows: pl.DataFrame, contract: Contract) -> None:
    """Judge the `fail` rules; say what to do where the contract has become stricter since rows were released."""
    try:
        contract.check_fail_rules(rows, f"released rows of {contract.table}")
    except DataError as e:
        do = f"Take them back with `lockstep release {contract.table} --withdraw --reason ...`, then repair them."
        raise DataError(e.what, where=e.where, expected=e.expected, found=e.found, do=do) from None


def _check_past(contract: Contract, day: date, rows: pl.DataFrame | None, line: Landing | None) -> None:
    """Refuse rows of a landing day in the past that was sealed without them or with other values: they would be lost.

    A day that was sealed by an older contract is compared in the columns of that one, as long as all still come.
    """
    if rows is not None and (line is None or rows.height != line.rows or not _same_content(contract, rows, line)):
        have = line.rows if line else 0
        raise DataError(
            "the source gives other rows for a landing day that is past", where=f"table {contract.table}, {day}",
            expected=f"{have} sealed rows",
            found=f"{rows.height} rows{' with other values' if rows.height == have else ''}",
            do="What turns up late lands on the next unsealed day (docs/raw-data.md); if these are other data than"
            " were sealed, docs/your-own-data.md says how to begin anew.",
        )  # fmt: skip


def _same_content(contract: Contract, rows: pl.DataFrame, line: Landing) -> bool:
    columns = list(contract.at(line.contract_version).schema())
    return not set(columns) <= set(rows.columns) or content_hash(rows.select(columns)) == line.content_hash


def read_raw(raw: Raw, contract: Contract) -> pl.DataFrame:
    """Read a table's raw rows, as they land; say in one sentence which column the source no longer has."""
    try:
        rows = raw(contract.table)
    except pl.exceptions.ColumnNotFoundError as e:
        name = str(e).split('"')[1] if '"' in str(e) else str(e).splitlines()[0]
        raise DataError(
            "a raw column is missing", where=f"table {contract.table}", expected=name,
            do="Rename it back in the source, or change the landing module and the contract.",
        ) from e  # fmt: skip
    except pl.exceptions.PolarsError as e:
        raise DataError(
            "raw rows cannot be converted", where=f"table {contract.table}", found=str(e).splitlines()[0],
            do="Mend the source, or change the landing module and the contract.",
        ) from e  # fmt: skip
    have = set(rows.columns)
    return rows.with_columns(
        *([] if "_received_at" in have else [pl.lit(None, INSTANT).alias("_received_at")]),
        *([] if "_deleted" in have else [pl.lit(False).alias("_deleted")]),
    )


def _judged(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Judge schema and `fail` rules before anything is sealed; return the columns in the contract's order."""
    where = f"raw rows of {contract.table}"
    if rows.is_empty():
        daily = "Mend the source: an empty one would seal every day as empty."
        irregular = "Mend the source; where it has no rows yet, leave its contract out until it has."
        raise DataError("no rows at all", where=where, do=daily if contract.calendar == "daily" else irregular)
    if (kind := rows.schema.get("_landing_day")) != pl.Date:
        raise DataError(
            "landing days that are no days", where=f"column _landing_day of {contract.table}", expected="Date",
            found=kind, do="Let the landing module give the day in the zone: see docs/raw-data.md.",
        )  # fmt: skip
    if rows.get_column("_landing_day").null_count():
        raise DataError("rows without a landing day", where=where, found=f"{rows['_landing_day'].null_count()} rows")
    contract.check_schema(rows.drop("_landing_day").schema, where)
    contract.check_fail_rules(rows, where)
    return rows.select("_landing_day", *contract.schema())


def _source(rows: pl.DataFrame, table: str) -> str:
    """Return where the rows of a table came from, as their column ``_source`` tells; nothing where it has none."""
    told = rows["_source"].unique().to_list() if "_source" in rows.columns else [""]
    if len(told) != 1 or not isinstance(told[0], str) or not told[0].isprintable():
        raise DataError(
            "a source that cannot be noted", where=f"column _source of {table}",
            expected="one text on one line, the same in every row", found=told[:3], do="See the landing module.",
        )  # fmt: skip
    return told[0]


def _write(beside: Path, contract: Contract, day: date, rows: pl.DataFrame | None, source: str) -> Landing | None:
    """Write one partition, sorted by all of its columns; return its line, None where nothing is to be sealed."""
    if rows is None or rows.is_empty():
        if contract.calendar == "daily":
            return Landing(contract.table, day, 0, EMPTY, EMPTY, contract.version, source)
        return None
    ordered = [*contract.key, *(c for c in rows.columns if c not in contract.key)]
    rows = rows.sort(ordered, nulls_last=True)
    path = beside / partition(contract.table, day)
    write_parquet(rows, path)
    hashes = file_hash(path), content_hash(rows)
    return Landing(contract.table, day, rows.height, *hashes, contract.version, source)


def _same_as_sealed(line: Landing | None, sealed: Landing) -> None:
    """Refuse to refill a sealed partition with anything but its own bytes."""
    if line is None or line.byte_hash != sealed.byte_hash:
        same_rows = line is not None and line.content_hash == sealed.content_hash
        raise DataError(
            "the source no longer gives the sealed rows" if not same_rows else "same rows, other bytes than sealed",
            where=f"data/{sealed.path}", expected=f"{sealed.rows} rows, md5 {sealed.byte_hash}",
            found=f"{line.rows} rows, md5 {line.byte_hash}" if line else "no rows",
            do="Fetch the sealed bytes with `dvc pull`; rows that changed land on the next unsealed day. If these are"
            " other data, docs/your-own-data.md says how to begin anew.",
        )  # fmt: skip


def _move_into_place(beside: Path, data: Path) -> None:
    """Rename what was written into ``data/``: the whole folder at once where it is empty, else file by file."""
    if not beside.exists():
        return
    if data.exists() and not any(data.iterdir()):
        data.rmdir()
    if not data.exists():
        beside.rename(data)
        return
    for path in sorted(p for p in beside.rglob("*") if p.is_file()):
        target = data / path.relative_to(beside)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(beside)
