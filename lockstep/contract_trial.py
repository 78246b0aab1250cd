"""A new version of a contract, tried on days that have landed before it is adopted: the project is left as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.clock import Zone
from lockstep.contract import Contract, load_contracts
from lockstep.errors import DataError, LockstepError, UserError, did_you_mean
from lockstep.files import read_parquet
from lockstep.grammar import read_contract
from lockstep.land import read_raw
from lockstep.landings import EMPTY, Landing, check_sealed
from lockstep.masks import apply_repairs, broken, broken_after_repair, reasons
from lockstep.project import Project
from lockstep.versions import timing

__all__ = ["Judged", "Trial", "try_contract"]


@dataclass(frozen=True)
class Judged:
    """What one version makes of the rows: of each rule what follows and how many rows break it, and in all."""

    version: int
    rows: int
    rules: Mapping[str, tuple[str, int]]
    refused: int
    """Rows that break a `fail` or `quarantine` rule, landed before their day, or are late where that quarantines."""

    @property
    def good_share(self) -> float:
        """Return the share of rows that are not refused: the record SLO."""
        return (self.rows - self.refused) / self.rows


@dataclass
class Trial:
    """What two versions make of the same landing days, and what speaks against the new one."""

    table: str
    days: tuple[str, ...]
    old: Judged
    new: Judged | None = None
    against: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the trial for people: every rule's counts, what is refused, the verdict."""
        versions = [v for v in (self.old, self.new) if v]
        names = dict.fromkeys(name for v in versions for name in v.rules)
        width = max(map(len, [*names, "of rows, not refused"]))
        head = "  ".join(f"{'v' + str(v.version):>24}" for v in versions)
        lines = [f"{self.table} on {len(self.days)} landing days, {self.days[0]} to {self.days[-1]}", ""]
        lines.append(f"{'rule':<{width}}  {head}".rstrip())
        for name in names:
            cells = [f"{v.rules[name][1]:>13,} {v.rules[name][0]:<10}" if name in v.rules else "" for v in versions]
            lines.append(f"{name:<{width}}  {'  '.join(f'{c:>24}' for c in cells)}".rstrip())
        for name, cells in (
            ("rows", [f"{v.rows:>13,}" for v in versions]),
            ("refused", [f"{v.refused:>13,}" for v in versions]),
            ("of rows, not refused", [f"{v.good_share:>13.4%}" for v in versions]),
        ):
            lines.append(f"{name:<{width}}  {'  '.join(f'{c:<24}' for c in cells)}".rstrip())
        verdict = [f"no: {said}" for said in self.against] or ["yes: it fits these days and every definition"]
        return "\n".join([*lines, "", *verdict])


def try_contract(project: Project, path: Path, days: int = 28) -> Trial:
    """Judge the last landed days by the contract in `path`, and check every definition against it.

    The rows are those that were sealed or, where columns change, those that the landing module gives of the same days.
    What is judged over days, such as statistics, is left to the next run.

    Raises
    ------
    DefinitionError
        The contract cannot mean what it says, alone or beside the others.
    UserError
        There is no such file or table, or its version is not a new one.
    """
    if not path.is_file():
        raise UserError("no such file", where=str(path), do="Name the YAML of the new version.")
    folder, new = project.folder("contracts"), read_contract(path)
    contracts = load_contracts(folder)
    if new.table not in contracts:
        raise UserError(f"unknown table {new.table!r}", where=path.name, do=did_you_mean(new.table, contracts))
    old = contracts[new.table]
    if new.version <= old.version:
        raise UserError(
            "a version that is taken", where=path.name, expected=f"version: {old.version + 1}",
            found=f"version: {new.version}", do=f"Raise it; keep the file out of {folder.name}/ until it is adopted.",
        )  # fmt: skip
    landings = check_sealed(project.root)
    lines = [x for x in landings if (x.table, x.contract_version) == (old.table, old.version) and x.byte_hash != EMPTY]
    if not lines:
        raise UserError("no landed day to try it on", where=f"version {old.version} of {old.table}", do="Land some.")
    lines, zone = lines[-days:], project.settings.clock
    rows = _sealed(project, lines)
    trial = Trial(old.table, tuple(str(x.landing_day) for x in lines), _judge(project, old, rows, landings, zone))
    with tempfile.TemporaryDirectory(prefix="lockstep-try-") as there:
        copy = replace(project, names={**project.names, "contracts": str(Path(there) / "contracts")})
        shutil.copytree(folder, copy.folder("contracts"))
        current = copy.folder("contracts") / f"{old.table}.yaml"
        if current.is_file():
            current.rename(current.with_name(f"{old.table}.v{old.version}.yaml"))
        shutil.copyfile(path, current)
        new = load_contracts(copy.folder("contracts"))[old.table]
        try:
            trial.new = _judge(project, new, _rows_for(project, old, new, rows), landings, zone)
            trial.against += _refused(new, trial.new)
        except DataError as e:
            trial.against.append(str(e))
        try:
            Catalogue(copy)
        except LockstepError as e:
            trial.against.append(str(e))
    return trial


def _sealed(project: Project, lines: list[Landing]) -> pl.DataFrame:
    """Return sealed rows with ``_landing_day``; what an older version lacks is null."""
    parts = [
        read_parquet(project.root / "data" / x.path).with_columns(pl.lit(x.landing_day, pl.Date).alias("_landing_day"))
        for x in lines
    ]
    return pl.concat(parts, how="diagonal")


def _rows_for(project: Project, old: Contract, new: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that the new version judges: where columns change, what the source gives of those days."""
    if new.schema() == old.schema():
        return rows
    source, settings = project.load("landing")[0].rows, project.settings
    raw = read_raw(lambda table: source(table, settings.land, settings.clock), new).drop("_source", strict=False)
    new.check_schema(raw.drop("_landing_day").schema, f"raw rows of {new.table}")
    found = raw.filter(pl.col("_landing_day").is_in(rows["_landing_day"].unique().to_list()))
    if found.is_empty():
        raise DataError("no rows of the days that are tried", where=f"raw rows of {new.table}", do="Try it on others.")
    return found


def _judge(project: Project, contract: Contract, rows: pl.DataFrame, landings: list[Landing], zone: Zone) -> Judged:
    """Count what every rule finds, as the stage does, without stopping at one that fails."""
    tables = {r.params["table"] for r in contract.row_rules if "table" in r.params}
    others = {t: _sealed(project, [x for x in landings if x.table == t and x.byte_hash != EMPTY]) for t in tables}
    masks, repaired = broken(contract, rows, others), apply_repairs(contract, rows)
    unmended = broken_after_repair(contract, repaired)
    refusing = [r for r in contract.row_rules if r.then in ("fail", "quarantine") or r.name in unmended.columns]
    timed = timing(repaired, reasons(masks.with_columns(unmended), refusing), contract, zone)
    counts = masks.sum().row(0, named=True)
    rules = {r.name: (r.then, int(counts[r.name])) for r in contract.row_rules}
    rules["late"] = (contract.lateness.then, int(timed["late"].sum()))
    return Judged(contract.version, rows.height, rules, int(timed["rule"].is_not_null().sum()))


def _refused(contract: Contract, found: Judged) -> list[str]:
    """Return what the counts say against a version."""
    said = [
        f"{count:,} of {found.rows:,} rows break the rule {name!r}, which fails: such days would not be sealed."
        for name, (then, count) in found.rules.items()
        if then == "fail" and count
    ]
    asked = contract.slo.records
    if found.good_share < asked:
        said.append(f"{found.good_share:.4%} of the rows are not refused, the record SLO asks {asked:.2%}.")
    return said
