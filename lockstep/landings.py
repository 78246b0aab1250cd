"""``landings.csv``: the append-only ledger of sealed partitions, and the check that the data still is what was sealed.

DVC alone would silently pin changed raw data anew, so every run asks here first.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import polars as pl
import yaml

from lockstep.clock import parse_day
from lockstep.contract import Contract
from lockstep.errors import DataError
from lockstep.files import file_hash, read_parquet, tree_hash, write_text
from lockstep.release import Release, read_releases

__all__ = [
    "ANEW",
    "EMPTY",
    "Landing",
    "check_data",
    "check_partition",
    "check_sealed",
    "check_unchanged",
    "content_hash",
    "of_source",
    "partition",
    "read_landings",
    "read_sealed",
    "require_contracts",
    "sealed_days",
    "snapshot_days",
    "sources",
    "write_landings",
]

ANEW = (
    "For other data begin anew: `git rm -qf --ignore-unmatch landings.csv releases.csv data.dvc dvc.lock`, then"
    " `git clean -qxdf data artifacts state`, `git commit -m 'Begin anew'`, `lockstep land` (docs/your-own-data.md)."
)
"""What to type where the seals are of other data: they go in a commit of the user's own, never by themselves."""

EMPTY = "-"
"""The hash of a day that was sealed without rows: it has a line and no file."""


class Landing(NamedTuple):
    """One sealed partition: a line of ``landings.csv``."""

    table: str
    landing_day: date
    rows: int
    byte_hash: str
    content_hash: str
    contract_version: int
    source: str = ""
    """Where the rows came from, such as ``delta 12``, where the landing module tells."""

    @property
    def path(self) -> str:
        """Return the partition's path below ``data/``."""
        return partition(self.table, self.landing_day)


_HEADERS = (",".join(Landing._fields[:-1]), ",".join(Landing._fields))


def partition(table: str, landing_day: date) -> str:
    """Return the path of a partition below ``data/``."""
    return f"{table}/{landing_day}.parquet"


def content_hash(rows: pl.DataFrame) -> str:
    """Return a sha256 of the sorted rows that no file format, row order or library version can change."""
    text = rows.sort(rows.columns, nulls_last=True).write_csv(
        quote_style="non_numeric", datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ", null_value=""
    )
    return hashlib.sha256(text.encode()).hexdigest()


def read_landings(path: Path) -> list[Landing]:
    """Read the ledger in its own order; a ledger that does not exist yet has no lines.

    Raises
    ------
    DataError
        A line that is not ``table,landing_day,rows,byte_hash,content_hash,contract_version``, with ``,source`` behind
        where a table has told one, or a table whose days are repeated or out of order.
    """
    if not path.exists():
        return []
    landings: list[Landing] = []
    last: dict[str, date] = {}
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.reader(handle)
        if (header := ",".join(next(reader, []))) not in _HEADERS:
            raise DataError("bad header", where=path.name, expected=_HEADERS[0], found=header)
        for number, row in enumerate(reader, start=2):
            where = f"{path.name} line {number}"
            try:
                table, day, rows, byte_hash, content, version, *source = row
                if len(row) != header.count(",") + 1:
                    raise ValueError(f"{len(row)} columns")
                line = Landing(table, parse_day(day), int(rows), byte_hash, content, int(version), *source)
            except ValueError as e:
                raise DataError("bad line", where=where, found=str(e), do="Restore the file from git.") from None
            if table in last and line.landing_day <= last[table]:
                raise DataError(
                    f"{table} is not in day order", where=where, expected=f"a day after {last[table]}",
                    found=line.landing_day, do="Restore the file from git: sealed lines are never edited.",
                )  # fmt: skip
            last[table] = line.landing_day
            landings.append(line)
    return landings


def require_contracts(landings: Iterable[Landing], contracts: Mapping[str, Contract]) -> None:
    """Raise DataError where a table is sealed that has no contract: nobody could land or judge it."""
    if unknown := sorted({line.table for line in landings} - contracts.keys()):
        raise DataError(
            "a sealed table has no contract", where="features/contracts", expected=", ".join(unknown),
            found=", ".join(sorted(contracts)), do=f"Restore it from git. {ANEW}",
        )  # fmt: skip


def of_source(landings: Iterable[Landing], releases: Iterable[Release]) -> list[Landing]:
    """Return the ledger of what the source sent: without rows that a release put on a day, nor a hash over them."""
    again = Counter((x.table, x.landing_day) for x in releases)
    return [
        x._replace(rows=x.rows - n, content_hash=EMPTY) if (n := again[x.table, x.landing_day]) else x for x in landings
    ]


def write_landings(landings: Iterable[Landing], path: Path) -> None:
    """Write the ledger; only `lockstep land` does."""
    text, lines = io.StringIO(), list(landings)
    columns = len(Landing._fields) - (not any(line.source for line in lines))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(line[:columns] for line in (Landing._fields, *lines))
    write_text(text.getvalue(), path)


def sources(landings: Iterable[Landing]) -> dict[str, list[str]]:
    """Return, of each table that tells, where its rows came from, in the order of landing."""
    found: dict[str, dict[str, None]] = {}
    for line in landings:
        if line.source:
            found.setdefault(line.table, {})[line.source] = None
    return {table: list(told) for table, told in sorted(found.items())}


def snapshot_days(landings: Iterable[Landing], daily: Iterable[str]) -> tuple[date, date]:
    """Return the first and last day whose knowledge is whole: those after the first and last daily landing."""
    wanted = set(daily)
    sealed: dict[str, list[date]] = {}
    for line in landings:
        if line.table in wanted:
            sealed.setdefault(line.table, []).append(line.landing_day)
    if not sealed or wanted - set(sealed):
        raise DataError(
            "no sealed day", where=", ".join(sorted(wanted - set(sealed))) or "landings.csv", do="Run `lockstep land`."
        )
    first, last = min(d[0] for d in sealed.values()), min(d[-1] for d in sealed.values())
    return date.fromordinal(first.toordinal() + 1), date.fromordinal(last.toordinal() + 1)


def sealed_days(root: Path, contracts: Mapping[str, Contract]) -> tuple[date, date]:
    """Return the first and last day whose knowledge is whole, of the project in `root`: see `snapshot_days`."""
    daily = [c.table for c in contracts.values() if c.calendar == "daily"]
    return snapshot_days(read_landings(root / "landings.csv"), daily)


def check_data(root: Path) -> str:
    """Compare ``data/`` with ``landings.csv`` and ``data.dvc``, and the ledger with git; return the data's hash.

    Raises
    ------
    DataError
        The first file that is missing, changed, unsealed or sealed as empty; a ledger of which git HEAD's version is
        not a prefix; a ``data.dvc`` that pins something else.
    """
    hashes = {line.path: line.byte_hash for line in check_sealed(root) if line.byte_hash != EMPTY}
    digest = tree_hash(root / "data", hashes)
    if (pinned := _pinned(root / "data.dvc")) != digest:
        raise DataError(
            "data differs from its pin", where="data.dvc", expected=pinned, found=digest,
            do="Run `lockstep land` after an interrupted landing; otherwise restore data.dvc from git.",
        )  # fmt: skip
    return digest


def check_sealed(root: Path, *, missing_is_fine: bool = False) -> list[Landing]:
    """Compare ``data/`` with ``landings.csv``, and both ledgers with git; return that of landings.

    Before a landing, sealed files may be missing, and files that were never sealed are left to be overwritten.
    """
    landings = read_landings(root / "landings.csv")
    read_releases(root / "releases.csv")
    _check_prefix(root, "landings.csv")
    _check_prefix(root, "releases.csv")
    names = set()
    for line in landings:
        if line.byte_hash != EMPTY and not (missing_is_fine and not (root / "data" / line.path).is_file()):
            check_partition(root / "data", line)
            names.add(line.path)
    if missing_is_fine:
        return landings
    files = (p.relative_to(root / "data").as_posix() for p in (root / "data").rglob("*") if p.is_file())
    if strange := sorted(set(files) - names):
        raise DataError(
            "a file that was never sealed", where=f"data/{strange[0]}", found=f"{len(strange)} of them",
            do="Run `lockstep land` when an interrupted landing left them; otherwise remove them, all by"
            " `git clean -qxdf data`, after which `lockstep land` refills what is sealed.",
        )  # fmt: skip
    return landings


def check_partition(data: Path, line: Landing) -> None:
    """Raise DataError when a sealed file is missing or its bytes are not the sealed ones."""
    where = f"data/{line.path}"
    if not (data / line.path).is_file():
        raise DataError("a sealed file is missing", where=where, do="Run `lockstep land` to refill it, or `dvc pull`.")
    if (found := file_hash(data / line.path)) != line.byte_hash:
        raise DataError(
            "a sealed file was changed", where=where, expected=f"md5 {line.byte_hash}", found=found,
            do="Remove the file and run `lockstep land` to refill it, or `dvc checkout data.dvc --force`.",
        )  # fmt: skip


def read_sealed(data: Path, line: Landing, contract: Contract) -> pl.DataFrame:
    """Return the rows of a sealed partition with ``_landing_day``, by the contract in force on that day.

    Raises
    ------
    DataError
        The file is missing, not the sealed one or not of the contract.
    """
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


def check_unchanged(data: Path, landings: Iterable[Landing]) -> None:
    """Raise DataError when a sealed file that was read is no longer the sealed one: who reads last would differ."""
    for line in landings:
        if line.byte_hash != EMPTY and file_hash(data / line.path) != line.byte_hash:
            raise DataError(
                "a file changed while it was read", where=f"data/{line.path}", expected=f"md5 {line.byte_hash}",
                do="Let nothing write to data/ but `lockstep land`, which refills it when you remove the file.",
            )  # fmt: skip


def _check_prefix(root: Path, name: str) -> None:
    """Refuse a ledger that rewrites what git HEAD has sealed."""
    shown = subprocess.run(["git", "show", f"HEAD:./{name}"], cwd=root, capture_output=True, check=False)
    if shown.returncode:  # no repository, no commit or no ledger in it yet: nothing is sealed in history
        return
    before = shown.stdout.decode().splitlines()
    now = (root / name).read_text(encoding="utf-8").splitlines() if (root / name).exists() else []
    if before[:1] == [_HEADERS[0]] and now[:1] == [_HEADERS[1]]:  # the first source was told: old lines have none
        before = [_HEADERS[1], *(f"{line}," for line in before[1:])]
    for number, line in enumerate(before, start=1):
        if len(now) < number or now[number - 1] != line:
            raise DataError(
                "a sealed line was rewritten", where=f"{name} line {number}", expected=line,
                found=now[number - 1] if len(now) >= number else "nothing",
                do=f"Restore it with `git checkout HEAD {name}`: what turns up later belongs to the next unsealed day."
                f" {ANEW}",
            )  # fmt: skip


def _pinned(path: Path) -> str | None:
    """Return the hash that a ``.dvc`` file pins."""
    if not path.exists():
        return None
    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, TypeError, KeyError, IndexError):
        raise DataError("not a .dvc file", where=path.name, do=f"Restore it with `git checkout {path.name}`.") from None
