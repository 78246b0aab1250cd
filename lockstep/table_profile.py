"""The stored profile of a table: how each column was spread in a stretch of landings, before there was any model.

It lies beside the contract as ``profiles/<table>.json``, is committed, and is what `lockstep.statistics` compares with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.clock import parse_day
from lockstep.contract import Contract
from lockstep.errors import DataError
from lockstep.files import read_json, write_json
from lockstep.landings import EMPTY, Landing, read_sealed
from lockstep.masks import apply_repairs, broken, broken_after_repair
from lockstep.psi import Profile, profile

__all__ = ["BINS", "ColumnProfile", "TableProfile", "moments", "profile_columns", "profile_landings", "profile_path"]

BINS = 10
MOST_CATEGORIES = 1000  # of a column with more, the profile would be a copy of the data: psi is not stored


@dataclass(frozen=True)
class ColumnProfile:
    """What is stored of a column: mean and std of numbers (ddof 1), distinct values without null, psi's profile."""

    null_share: float
    mean: float | None
    std: float | None
    distinct: int
    spread: Profile | None


@dataclass(frozen=True)
class TableProfile:
    """The profile of a table: of which contract version, landing days, rows and bytes, and of each column."""

    table: str
    contract_version: int
    days: tuple[date, date]
    rows: int
    data: str
    columns: Mapping[str, ColumnProfile]

    def write(self, path: Path) -> None:
        """Write it as JSON that holds no clock and no path: the same landings give the same bytes."""
        write_json({**asdict(self), "days": [str(day) for day in self.days]}, path)

    @classmethod
    def read(cls, contract: Contract, folder: Path) -> TableProfile:
        """Read the profile of a contract's table.

        Raises
        ------
        DataError
            No profile, or one that was made under another version of the contract, or is not one.
        """
        path, do = profile_path(folder, contract.table), f"Run `{_command(contract.table)}` and commit the file."
        if not path.is_file():
            raise DataError("statistics without a profile", where=f"contract {contract.table}", expected=path, do=do)
        try:
            raw = read_json(path)
            columns = {name: _column(stored) for name, stored in raw["columns"].items()}
            days = parse_day(raw["days"][0]), parse_day(raw["days"][1])
            found = cls(raw["table"], raw["contract_version"], days, raw["rows"], raw["data"], columns)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as e:
            raise DataError("not a profile", where=str(path), found=repr(e), do=do) from None
        if (found.table, found.contract_version) != (contract.table, contract.version):
            raise DataError(
                "a profile of another contract", where=str(path),
                expected=f"{contract.table} version {contract.version}",
                found=f"{found.table} version {found.contract_version}", do=do,
            )  # fmt: skip
        return found


def profile_path(folder: Path, table: str) -> Path:
    """Return where the profile of a table lies, below the folder of contracts."""
    return folder / "profiles" / f"{table}.json"


def profile_landings(
    contract: Contract, data: Path, landings: Iterable[Landing], first: date, last: date
) -> TableProfile:
    """Return the profile of the columns with statistics (of a contract without any, all) from `first` to `last`.

    As of what is compared with it later, rows are repaired, those that break a `quarantine` or `fail` rule of their
    own table are left out, and each key has its last version.

    Raises
    ------
    DataError
        No good row landed then, or fewer than psi has bins; a partition is not the sealed one or not of the contract.
    """
    chosen = [x for x in landings if x.table == contract.table and first <= x.landing_day <= last]
    chosen = [x for x in chosen if x.byte_hash != EMPTY]
    where = f"landings of {contract.table} from {first} to {last}"
    if not chosen:
        raise DataError("no rows to profile", where=where, do="Choose days that are sealed: see landings.csv.")
    versions = {x.landing_day: contract.at(x.contract_version) for x in chosen}
    good = pl.concat(
        [_good(read_sealed(data, x, versions[x.landing_day]), versions[x.landing_day]) for x in chosen], how="diagonal"
    )
    rows = good.unique(contract.key, keep="last", maintain_order=True).filter(~pl.col("_deleted"))
    if rows.height < BINS:
        raise DataError("fewer rows than bins", where=where, expected=f"at least {BINS}", found=rows.height)
    digest = hashlib.sha256("".join(x.content_hash for x in chosen).encode()).hexdigest()
    asked = {r.column for r in contract.statistics.rules} if contract.statistics else contract.columns
    columns: dict[str, ColumnProfile] = {}
    for column in (c for c in contract.columns if c in asked):  # of the rows whose contract has it
        days = [day for day, of in versions.items() if column in of.columns]
        if not (having := rows.filter(pl.col("_landing_day").is_in(days))).is_empty():
            columns |= profile_columns(having.select(column))
    return TableProfile(contract.table, contract.version, (first, last), rows.height, digest, columns)


def _good(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Return the rows of a landing day that pass what its table alone can tell, repaired."""
    rules = [r for r in contract.row_rules if r.then in ("fail", "quarantine") and r.table is None]
    repaired = apply_repairs(contract, rows)
    masks = broken(contract, rows, {}, rules).hstack(broken_after_repair(contract, repaired))
    return repaired.filter(~masks.select(pl.any_horizontal(pl.lit(False), *masks.columns)).to_series())


def profile_columns(rows: pl.DataFrame) -> dict[str, ColumnProfile]:
    """Return the profile of each column."""
    return {column.name: _profiled(column) for column in rows}


def moments(values: pl.Series) -> tuple[float | None, float | None]:
    """Return mean and std (ddof 1) of numbers that are not null: the same bits in any order of rows.

    Integers are summed as integers, floats with one rounding at the end (`math.fsum`).

    >>> moments(pl.Series([1, 2, 3, 4]))
    (2.5, 1.2909944487358056)
    """
    n = len(values)
    if n == 0 or not values.dtype.is_numeric():
        return None, None
    if values.dtype.is_integer():
        total, squares = _sums(values)
        above, below = n * squares - total * total, n * (n - 1)
        return float(total) / n, math.sqrt(float(above) / float(below)) if n > 1 else None
    mean = math.fsum(values.to_numpy().data) / n
    off = values - mean
    spread = math.fsum((off**2).to_numpy().data) - math.fsum(off.to_numpy().data) ** 2 / n  # the mean is rounded
    return mean, math.sqrt(max(spread, 0.0) / (n - 1)) if n > 1 else None


def _sums(values: pl.Series) -> tuple[int, int]:
    """Return the sum and the sum of squares, exactly."""
    least, most = values.min(), values.max()
    if max(abs(int(least)), abs(int(most))) ** 2 * len(values) >= 2**127:  # type: ignore[arg-type]
        python = values.to_list()  # slower, and without an end
        return sum(python), sum(v * v for v in python)
    wide = values.cast(pl.Int128)
    return int(wide.sum()), int((wide * wide).sum())


def _profiled(column: pl.Series) -> ColumnProfile:
    present = column.drop_nulls()
    distinct = present.n_unique()
    categories = column.dtype == pl.String
    spread = None if categories and distinct > MOST_CATEGORIES else profile(column, BINS)
    return ColumnProfile(column.null_count() / len(column), *moments(present), distinct, spread)


def _column(stored: Mapping[str, Any]) -> ColumnProfile:
    """Return the profile of a column; raise ValueError where what is stored is not one."""
    spread = None if stored["spread"] is None else Profile.from_dict(stored["spread"])
    found = ColumnProfile(stored["null_share"], stored["mean"], stored["std"], stored["distinct"], spread)
    numbers = [found.null_share, found.distinct, *(x for x in (found.mean, found.std) if x is not None)]
    if spread:
        numbers += [*spread.edges, *spread.weights, spread.null]
        bins = len(spread.edges) + 1 if spread.known is None else len(spread.known)
        if len(spread.weights) != bins or list(spread.edges) != sorted(set(spread.edges)):
            raise ValueError(f"{len(spread.weights)} weights of {bins} bins, or edges that do not ascend")
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        raise ValueError("a number is missing")
    return found


def _command(table: str) -> str:
    return f"lockstep contract profile {table} --from DAY --to DAY"
