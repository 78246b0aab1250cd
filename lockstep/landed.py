"""What has landed: the sealed rows of every table by the version of the contract that judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import polars as pl

from lockstep.contract import Contract
from lockstep.errors import DataError
from lockstep.landings import EMPTY, Landing, partition, read_sealed, require_contracts
from lockstep.release import Release, locate, released_rows

__all__ = ["Part", "joined", "read_landed"]


@dataclass(frozen=True)
class Part:
    """The landings of one table that one version of its contract judges."""

    contract: Contract
    rows: pl.DataFrame
    files: tuple[Path, ...]
    released: pl.Series
    """Which rows were released before and land again."""
    waived: Mapping[str, pl.Series] = field(default_factory=dict)
    """By rule, the rows for which it does not hold."""
    mended: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.Boolean))
    """Which rows have landed again since, as a release said: they are no fault any more."""

    @property
    def sent(self) -> pl.DataFrame:
        """Return the rows that the source sent: a release put the others beside them."""
        return self.rows.filter(~self.released)


def read_landed(
    data: Path, landings: list[Landing], contracts: Mapping[str, Contract], releases: list[Release]
) -> dict[str, list[Part]]:
    """Read every sealed partition, checked against the schema of the contract in force on its day."""
    require_contracts(landings, contracts)
    landed: dict[str, list[Part]] = {table: [] for table in contracts}
    for table in dict.fromkeys(line.table for line in landings):
        lines = [x for x in landings if x.table == table and x.byte_hash != EMPTY]
        for version in sorted({line.contract_version for line in lines}):
            contract = contracts[table].at(version)
            chosen = [x for x in lines if x.contract_version == version]
            rows = pl.concat([read_sealed(data, line, contract) for line in chosen])
            again = [r for r in releases if r.table == table and r.landing_day in {line.landing_day for line in chosen}]
            files, (released, waived) = tuple(data / x.path for x in chosen), _released(data, rows, contract, again)
            since = [r for r in releases if r.table == table and r.landing_day <= max(x.landing_day for x in lines)]
            landed[table].append(Part(contract, rows, files, released, waived, _mended(chosen, since)))
    _check_landed(landings, releases)
    return landed


def joined(frames: list[pl.DataFrame], contract: Contract) -> pl.DataFrame:
    """Put rows of all contract versions into the columns of the newest; what an old version lacks is null."""
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    return pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal").select(*schema)


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


def _mended(landings: list[Landing], releases: list[Release]) -> pl.Series:
    """Return which rows of some partitions, one after another, are those that were released from quarantine."""
    first = dict(
        zip([x.landing_day for x in landings], accumulate((x.rows for x in landings), initial=0), strict=False)
    )
    number = pl.int_range(sum(x.rows for x in landings), eager=True)
    return number.is_in([first[r.from_day] + r.from_row for r in releases if r.from_day in first])


def _released(
    data: Path, rows: pl.DataFrame, contract: Contract, releases: list[Release]
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return which rows are those that were released and, by rule, which of them were released from it."""
    number = pl.int_range(rows.height, eager=True)
    if not releases:
        return number < 0, {}
    wanted = released_rows(releases, contract, lambda day: data / partition(contract.table, day))
    places, waived = locate(rows, wanted), dict[str, list[int]]()
    for at, release in zip(places, releases, strict=True):
        for rule in filter(None, release.waived.split(", ")):
            waived.setdefault(rule, []).append(at)
    return number.is_in(places), {rule: number.is_in(at) for rule, at in waived.items()}
