"""A new version of a contract, tried on days that have landed before it is adopted: the project is left as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import cast

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.contract import Contract, load_contracts
from lockstep.errors import DataError, LockstepError, UserError, did_you_mean
from lockstep.files import read_json, read_parquet
from lockstep.grammar import read_contract
from lockstep.health import findings, told
from lockstep.land import read_raw
from lockstep.landed import read_landed
from lockstep.landings import EMPTY, Landing, check_sealed
from lockstep.masks import apply_repairs, broken, broken_after_repair, reasons
from lockstep.project import Project
from lockstep.release import read_releases
from lockstep.statistics import judge_statistics
from lockstep.table_profile import TableProfile, profile_path
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
    """What two versions make of the same landing days, what speaks against the new one, and what it asks for."""

    table: str
    days: tuple[str, ...]
    old: Judged
    new: Judged | None = None
    against: list[str] = field(default_factory=list)
    then: list[str] = field(default_factory=list)
    """What has to be done once it is adopted, before the next run."""

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
        return "\n".join([*lines, "", *(f"then: {said}" for said in self.then), *verdict])


def try_contract(project: Project, path: Path, days: int = 28) -> Trial:
    """Judge the last landed days by the contract in `path`, and check every definition against it.

    The rows are those that were sealed or, where columns change, those that the landing module gives of the same days.
    Rows that were released are judged without the rules that are waived for them. Statistics are compared with the
    profile of the version in force.

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
    lines = lines[-days:]
    tried = {x.landing_day for x in lines}
    releases = [r for r in read_releases(project.root / "releases.csv") if r.table == old.table]
    (part,) = read_landed(
        project.root / "data", lines, {old.table: old}, [r for r in releases if r.landing_day in tried]
    )[old.table]
    rows, waived = part.rows, part.waived
    judged = _judge(project, old, rows, landings, waived)
    trial = Trial(old.table, tuple(str(x.landing_day) for x in lines), judged)
    with tempfile.TemporaryDirectory(prefix="lockstep-try-") as there:
        copy = replace(project, names={**project.names, "contracts": str(Path(there) / "contracts")})
        shutil.copytree(folder, copy.folder("contracts"))
        current = copy.folder("contracts") / f"{old.table}.yaml"
        if current.is_file():
            current.rename(current.with_name(f"{old.table}.v{old.version}.yaml"))
        shutil.copyfile(path, current)
        new = load_contracts(copy.folder("contracts"))[old.table]
        try:
            tries = _rows_for(project, old, new, rows)
            same = waived if tries is rows else {}  # the source does not send what was released again
            trial.new = _judge(project, new, tries, landings, same)
            trial.against += _refused(new, trial.new)
            trial.against += _unsealed(new, tries, [x for x in landings if x.table == new.table], tried)
            trial.against += _slo(project, new)
            _statistics(project, old, new, tries, trial)
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


def _judge(
    project: Project, contract: Contract, rows: pl.DataFrame, landings: list[Landing], waived: Mapping[str, pl.Series]
) -> Judged:
    """Count what every rule finds, as the stage does, without stopping at one that fails; not what is `waived`."""
    tables = {r.params["table"] for r in contract.row_rules if "table" in r.params}
    others = {t: _sealed(project, [x for x in landings if x.table == t and x.byte_hash != EMPTY]) for t in tables}
    masks, repaired = broken(contract, rows, others), apply_repairs(contract, rows)
    masks = masks.with_columns(masks[name] & ~rows_of for name, rows_of in waived.items() if name in masks.columns)
    unmended = broken_after_repair(contract, repaired)
    unmended = unmended.with_columns(unmended[n] & ~rows_of for n, rows_of in waived.items() if n in unmended.columns)
    refusing = [r for r in contract.row_rules if r.then in ("fail", "quarantine") or r.name in unmended.columns]
    timed = timing(
        repaired, reasons(masks.with_columns(unmended), refusing), contract, project.settings.clock, waived.get("late")
    )
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
    if contract.slo.then == "fail" and found.good_share < asked:
        said.append(f"{found.good_share:.4%} of the rows are not refused, the record SLO asks {asked:.2%}.")
    return said


def _unsealed(contract: Contract, rows: pl.DataFrame, landings: list[Landing], tried: set[date]) -> list[str]:
    """Return what volume and health would say of the days that are tried."""
    said = []
    volume = contract.volume
    days = [x for x in landings if x.landing_day in tried and not contract.is_usual(x.landing_day, x.rows)]
    if volume and volume.then == "fail" and days:
        shown = ", ".join(f"{x.landing_day} has {x.rows:,} rows" for x in days[:3])
        asked = f"{volume.rows[0]:,} to {volume.rows[1]:,}"
        said.append(f"{len(days):,} of {len(tried)} days would not be sealed, volume asks {asked}: {shown}.")
    found = findings(landings, {contract.table: contract}, {contract.table: rows})
    bad = found.filter(pl.col("landing_day").is_in(tried) & (pl.col("then") == "fail"))
    if bad.height:
        said.append(
            f"{bad['landing_day'].n_unique():,} of {len(tried)} days would not be sealed by health: {told(bad)}."
        )
    return said


def _slo(project: Project, contract: Contract) -> list[str]:
    """Return what the record SLO would say of all that `validate` has judged: the newest version is asked of all."""
    file = project.root / "artifacts/validation.json"
    tables = read_json(file)["tables"] if file.is_file() else {}
    slo = contract.slo
    shares = {scope: tables[contract.table]["slo"][scope]["good_share"] for scope in ("all", "recent") if tables}
    return [
        f"{share:.4%} of {scope} landed rows have no fault, the record SLO asks {slo.records:.4%}."
        for scope, share in shares.items()
        if slo.then == "fail" and share is not None and share < slo.records
    ]


def _statistics(project: Project, old: Contract, new: Contract, rows: pl.DataFrame, trial: Trial) -> None:
    """Compare the last days with the profile in force, and say that the new version needs one of its own."""
    if new.statistics is None:
        return
    trial.then.append(
        f"the version needs a profile of its own: run `lockstep contract profile {new.table} --from DAY --to DAY`."
    )
    folder = project.folder("contracts")
    if not profile_path(folder, old.table).is_file():
        return
    profile = TableProfile.read(old, folder)
    rules = tuple(
        r for r in new.statistics.rules
        if r.column in profile.columns and (was := old.columns.get(r.column))
        and (was.type, was.unit) == (new.columns[r.column].type, new.columns[r.column].unit)
    )  # fmt: skip
    last = cast(date, rows["_landing_day"].max())
    recent = rows.filter(pl.col("_landing_day") > last - timedelta(days=new.statistics.over_days))
    asked = replace(new, statistics=replace(new.statistics, rules=rules))
    moved = [one for one in judge_statistics(asked, recent, profile) if one.rule.then == "fail" and not one.held]
    trial.against += [f"a statistic has moved from the profile: {one}." for one in moved]
