"""Data contracts: one YAML a table says what its rows must be, and what follows when they are not.

The grammar is ``contract.schema.json``. A column's properties are short for rules (``quantity: {range: [0, null]}`` is
the rule ``quantity.range``); every count, report and planted fault refers to a rule by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lockstep.clock import INSTANT
from lockstep.errors import DataError, DefinitionError, did_you_mean

__all__ = [
    "LANDING_COLUMNS",
    "TYPES",
    "VERSION_RULES",
    "Column",
    "Contract",
    "Health",
    "Lateness",
    "Rule",
    "Slo",
    "Statistic",
    "Statistics",
    "Volume",
    "load_contracts",
    "renamed",
]

Action = Literal["fail", "quarantine", "cap", "impute", "flag"]

TYPES: Mapping[str, pl.DataType] = {
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "date": pl.Date(),
    "instant": INSTANT,
    "bool": pl.Boolean(),
}

VERSION_RULES = ("future", "late", "conflict")
"""Rules that every table has, from `lockstep.versions`: no rule of a contract may take their names."""


@dataclass(frozen=True)
class Column:
    """A column of a raw table."""

    name: str
    type: str
    unit: str | None = None
    about: str = ""

    @property
    def dtype(self) -> pl.DataType:
        """Return the Polars type."""
        return TYPES[self.type]


@dataclass(frozen=True)
class Rule:
    """What the rows must be (`kind`, `columns`, `params`) and what follows when one is not (`then`)."""

    name: str
    kind: str
    columns: tuple[str, ...]
    then: Action
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str | None:
        """Return the other table that the rule looks into."""
        return self.params.get("table")

    def demand(self) -> str:
        """Return what the rule asks, for people."""
        columns = ", ".join(self.columns)
        if self.kind == "range":
            low, high = (str(x) if x is not None else "..." for x in self.params["between"])
            return f"{columns} between {low} and {high}"
        if self.kind == "references":
            return f"{columns} in {', '.join(self.params['columns'])} of {self.params['table']}"
        if self.kind == "sum_of":
            return f"{self.columns[0]} the sum of {', '.join(self.columns[1:])}"
        if self.kind == "totals":
            *key, total = self.params["columns"]
            whole = f"{total} of {self.params['table']} by {', '.join(key)}"
            return f"{self.columns[-1]} of a landing day in sum the {whole}"
        return {
            "type": f"{columns} of its type",
            "not_null": f"{columns} not null",
            "set": f"{columns} one of {', '.join(map(str, self.params.get('of', ())))}",
            "regex": f"{columns} like {self.params.get('match')}",
            "unique": f"{columns} unique within a landing day",
            "at_most": " at most ".join(self.columns),
        }[self.kind]


@dataclass(frozen=True)
class Lateness:
    """How many calendar days after its event a row may land (None: any number), and what follows when it is later."""

    days: int | None
    then: Literal["flag", "quarantine"]


@dataclass(frozen=True)
class Health:
    """What landing days are compared with, and what follows when one is unlike them: see `lockstep.health`.

    A day is compared with the median rows of the same weekday over `weeks`; days in `gaps` are known to be otherwise.
    Nothing fails where fewer than `ample` rows are usual: small counts are noise.
    """

    weeks: int = 8
    low: float = 0.6
    high: float = 1.6
    late_days: int | None = None
    gaps: frozenset[date] = frozenset()
    ample: int = 1000
    then: Literal["flag", "fail"] = "flag"


@dataclass(frozen=True)
class Slo:
    """Which share of a table's rows breaks no `fail` or `quarantine` rule at all, and what follows when fewer do."""

    records: float = 0.999
    then: Literal["fail", "flag"] = "fail"


@dataclass(frozen=True)
class Statistic:
    """What a statistic of a column must be against the stored profile; its score must lie within `limits`."""

    name: str
    kind: Literal["mean", "std", "distinct", "null_share", "ks", "psi"]
    column: str
    limits: tuple[float, float]
    then: Literal["fail", "flag"]


@dataclass(frozen=True)
class Statistics:
    """The statistics that are judged, and over how many of the last landing days."""

    over_days: int
    rules: tuple[Statistic, ...]


@dataclass(frozen=True)
class Volume:
    """How many rows a landing day of a daily table has, and what follows when it has not."""

    rows: tuple[int, int]
    then: Literal["fail", "flag"]


LANDING_COLUMNS = (Column("_received_at", "instant"), Column("_deleted", "bool"))
"""What landing adds to the raw columns: the first receipt (null where unknown), and whether the row deletes its key."""


@dataclass(frozen=True)
class Contract:
    """The contract of one table, with the earlier versions that older landings are judged by."""

    table: str
    version: int
    owner: str
    event_time: str | None
    key: tuple[str, ...]
    calendar: Literal["daily", "irregular"]
    lateness: Lateness
    columns: Mapping[str, Column]
    rules: tuple[Rule, ...]
    about: str = ""
    slo: Slo = Slo()
    statistics: Statistics | None = None
    volume: Volume | None = None
    earlier: Mapping[int, Contract] = field(default_factory=dict, repr=False)
    health: Health | None = None

    def schema(self) -> dict[str, pl.DataType]:
        """Return the columns of a raw partition in order, the two landing columns last."""
        return {c.name: c.dtype for c in (*self.columns.values(), *LANDING_COLUMNS)}

    def clean_schema(self) -> dict[str, pl.DataType]:
        """Return the columns of a clean row in order: those of a raw one, whether it came late, when it landed."""
        return {**self.schema(), "_late": pl.Boolean(), "_landing_day": pl.Date()}

    @property
    def row_rules(self) -> tuple[Rule, ...]:
        """Return the rules that a single row can break: all but the types, which `check_schema` judges."""
        return tuple(r for r in self.rules if r.kind != "type")

    def at(self, version: int) -> Contract:
        """Return the contract in force when `version` was."""
        if version == self.version:
            return self
        if version not in self.earlier:
            raise DataError(
                f"contract version {version} is gone", where=f"table {self.table}",
                expected=f"{self.table}.v{version}.yaml beside {self.table}.yaml",
                found=f"version {', '.join(map(str, sorted([*self.earlier, self.version])))}",
                do="Restore it: a row is judged by the contract in force on its landing day.",
            )  # fmt: skip
        return self.earlier[version]

    def check_schema(self, schema: Mapping[str, pl.DataType], where: str) -> None:
        """Compare the columns of raw rows with the contract, in any order.

        Raises
        ------
        DataError
            A column is renamed, missing, not in the contract or of another type.
        """
        wanted = self.schema()
        missing = [c for c in wanted if c not in schema]
        extra = [c for c in schema if c not in wanted]
        pairs = renamed(missing, extra, wanted, schema)
        if pairs:
            what, expected, found = "column renamed", list(pairs), list(pairs.values())
            do = f"Rename {'it' if len(pairs) == 1 else 'them'} back, or change the contract and raise its version."
        elif missing:
            what, expected, found = (
                "column missing",
                missing,
                [*extra, "(not in the contract)"] if extra else ["nothing"],
            )
            do = "Send the column, or change the contract and raise its version."
        elif extra:
            what, expected, found = "column not in the contract", list(self.columns), extra
            do = "Add it to the contract and raise its version, or drop it when landing."
        else:
            retyped = [c for c in wanted if schema[c] != wanted[c]]
            if not retyped:
                return
            what = "column retyped"
            expected, found = [f"{c} as {wanted[c]}" for c in retyped], [str(schema[c]) for c in retyped]
            do = "Convert it when landing, or change the contract and raise its version."
        raise DataError(what, where=where, expected=", ".join(expected), found=", ".join(found), do=do)

    def is_usual(self, day: date, rows: int) -> bool:
        """Tell whether a landing day has as many rows as it should; a gap that is known may be empty."""
        gaps = self.health.gaps if self.health else ()
        if self.volume is None or (rows == 0 and day in gaps):
            return True
        return self.volume.rows[0] <= rows <= self.volume.rows[1]

    def check_volume(self, day: date, rows: int) -> None:
        """Raise DataError when a landing day has an unusual number of rows and that is to `fail`."""
        if self.volume and self.volume.then == "fail" and not self.is_usual(day, rows):
            raise DataError(
                "an unusual number of rows", where=f"table {self.table}, landing day {day}",
                expected=f"{self.volume.rows[0]:,} to {self.volume.rows[1]:,}", found=f"{rows:,}",
                do="Ask the source for the whole day, or change volume in the contract and raise its version.",
            )  # fmt: skip

    def check_fail_rules(self, rows: pl.DataFrame, where: str) -> None:
        """Raise DataError when raw rows, with ``_landing_day``, break a rule whose action is `fail`."""
        from lockstep.masks import check_fail_rules

        check_fail_rules(self, rows, where)


def load_contracts(folder: Path) -> dict[str, Contract]:
    """Read ``<table>.yaml`` (in force) and ``<table>.v<version>.yaml`` (earlier versions) in `folder`.

    Raises
    ------
    DefinitionError
        A contract cannot mean what it says: an unknown key, kind, action, column or table is named with the nearest
        known one.
    """
    from lockstep.grammar import read_contract

    versions: dict[str, list[Contract]] = {}
    for path in sorted(folder.glob("*.yaml")):
        contract = read_contract(path)
        table, _, version = path.stem.partition(".v")
        if table != contract.table or (version and version != str(contract.version)):
            raise DefinitionError(
                "a contract in the wrong file", where=path.name, expected=f"{contract.table}.yaml",
                found=f"table {contract.table}, version {contract.version}", do="Rename the file or mend the contract.",
            )  # fmt: skip
        versions.setdefault(table, []).append(contract)
    if not versions:
        raise DefinitionError("no contracts", where=str(folder), do="Write one <table>.yaml a raw table.")
    contracts = {table: _newest(found) for table, found in versions.items()}
    for contract in contracts.values():
        for one in (contract, *contract.earlier.values()):
            _check_references(one, contracts)
    return contracts


def _newest(found: list[Contract]) -> Contract:
    """Return the highest version, holding the earlier ones, whose columns must keep their type."""
    *earlier, newest = sorted(found, key=lambda c: c.version)
    for old in earlier:
        if old.version == newest.version:
            raise DefinitionError(f"version {old.version} twice", where=f"contracts of {old.table}", do="Raise one.")
        if (old.key, old.event_time, old.calendar) != (newest.key, newest.event_time, newest.calendar):
            raise DefinitionError(
                "key, event_time or calendar changed", where=f"{newest.table}.yaml version {newest.version}",
                expected=f"those of version {old.version}",
                do="Versions of a row need one key: give the table a new name.",
            )  # fmt: skip
        for name in sorted(old.columns.keys() & newest.columns.keys()):
            if old.columns[name].type != newest.columns[name].type:
                raise DefinitionError(
                    f"column {name!r} changed its type", where=f"{newest.table}.yaml version {newest.version}",
                    expected=old.columns[name].type, found=newest.columns[name].type, do="Give it a new name.",
                )  # fmt: skip
    return replace(newest, earlier={c.version: c for c in earlier})


def renamed(
    missing: list[str], extra: list[str], wanted: Mapping[str, pl.DataType], found: Mapping[str, pl.DataType]
) -> dict[str, str]:
    """Pair missing columns with the new ones that they became: the nearest in any case, or the only one of its type."""
    pairs: dict[str, str] = {}
    for name in missing:
        left = {c.lower(): c for c in extra if c not in pairs.values()}
        alike = [c for c in left.values() if found[c] == wanted[name]]
        if near := get_close_matches(name.lower(), left, n=1):
            pairs[name] = left[near[0]]
        elif len(missing) == len(extra) == len(alike) == 1:
            pairs[name] = alike[0]
    return pairs


def _check_references(contract: Contract, contracts: Mapping[str, Contract]) -> None:
    """Check that referenced tables have a contract with the referenced columns, of the same type."""
    for rule in contract.rules:
        if (table := rule.table) is None:
            continue
        where = f"{contract.table}.yaml, rule {rule.name}"
        if table not in contracts:
            raise DefinitionError(f"unknown table {table!r}", where=where, do=did_you_mean(table, contracts))
        other = contracts[table].columns
        for mine, theirs in zip(rule.columns, rule.params["columns"], strict=True):
            if theirs not in other:
                raise DefinitionError(
                    f"unknown column {theirs!r} of {table}", where=where, do=did_you_mean(theirs, other)
                )
            if other[theirs].type != contract.columns[mine].type:
                raise DefinitionError(
                    "a reference between types", where=where,
                    expected=f"{table}.{theirs} as {contract.columns[mine].type}",
                    found=other[theirs].type, do="Convert one of them when landing.",
                )  # fmt: skip
