"""The `validate` stage: judge every landed row, keep its versions, set aside what no feature may read.

Rows in = rows kept + rows quarantined + duplicates, for every table, or the stage fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import polars as pl

from lockstep.clock import Zone
from lockstep.closure import closure_hash
from lockstep.contract import Contract, load_contracts
from lockstep.errors import GuaranteeError
from lockstep.files import file_hash, tree_hash, write_json, write_text
from lockstep.health import findings
from lockstep.judge import judge
from lockstep.judge_rows import Report, check_law, judge_table
from lockstep.judge_statistics import judge_recent
from lockstep.landed import Part, joined, read_landed
from lockstep.landings import Landing, check_unchanged, of_source, read_landings
from lockstep.project import project
from lockstep.release import Release, read_releases
from lockstep.stage import progress, stage

__all__ = ["main", "validate"]


def validate(
    data: Path,
    landings: Iterable[Landing],
    contracts: Mapping[str, Contract],
    zone: Zone,
    out: Path,
    *,
    releases: Iterable[Release] = (),
    profiles: Path | None = None,
    expectations: bool = True,
    code: str = "",
    keep: Path | None = None,
) -> Report:
    """Judge the sealed partitions and write ``clean/``, ``quarantine/`` and ``validation.json`` into `out`.

    Parameters
    ----------
    data
        The folder of ``<table>/<landing day>.parquet``.
    landings
        What was sealed: nothing else is read.
    releases
        Rows among them that had been quarantined before, and the rules that are waived for each.
    profiles
        The folder of contracts, with the stored profiles of the tables that have statistics.
    code
        The hash of the code that judges, for the record.
    expectations
        Whether Great Expectations gives its second opinion, which must agree with the masks.
    keep
        A folder for that opinion in its own words, anew: see `lockstep.data_docs`. Where a guarantee is broken, clean
        and quarantined rows are put into ``refused`` beside it, with the hash of the data, for `lockstep.quarantine`.

    Returns
    -------
    dict
        What ``validation.json`` holds.

    Raises
    ------
    DataError
        A partition cannot be read, has another schema than its contract, breaks a `fail` rule or changes meanwhile;
        or a statistic cannot be taken.
    GuaranteeError
        The record SLO or a statistic that is to `fail` does not hold, rows were lost or won on the way, or masks and
        Great Expectations find otherwise.
    """
    lines, again = list(landings), list(releases)
    landed, sent = read_landed(data, lines, contracts, again), of_source(lines, again)
    last = max((line.landing_day for line in lines), default=date.max)
    beside = out / ".validate"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "clean").mkdir(parents=True)
    if keep:
        shutil.rmtree(keep, ignore_errors=True)
    try:
        tables = _judge_tables(landed, contracts, zone, beside, last)
        for table, counts in progress(list(tables.items()), "Great Expectations" if expectations else "statistics"):
            contract, parts, mine = contracts[table], landed[table], [x for x in lines if x.table == table]
            counts["health"] = _health(sent, contract, parts)
            counts["volume"] = _volume(contract, [x for x in sent if x.table == table])
            counts["statistics"], run = judge_recent(
                contract, mine, beside, zone, profiles or Path(), last=last, expectations=expectations, keep=keep
            )
            if expectations:
                counts["great_expectations"] = _second_opinion(parts, landed, counts, run, keep)
        check_unchanged(data, lines)
        hashes = {"code": code, "data": tree_hash(data), "clean": tree_hash(beside / "clean")}
        report = {"tables": tables, "total": _total(tables.values()), "hashes": hashes}
        write_json(report, beside / "validation.json")
        _move_into_place(beside, out)
    except GuaranteeError:
        if keep and (beside / "quarantine").is_dir():  # whoever mends the source needs to see the rows
            refused = keep.parent / "refused"
            write_text(tree_hash(data), beside / "of")
            refused.mkdir(parents=True, exist_ok=True)
            _move_into_place(beside, refused, ("clean", "quarantine", "of"))
            print(
                f"validate: what was set aside is in {keep.parent.name}/refused: see `lockstep quarantine`", flush=True
            )
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if keep:
        shutil.rmtree(keep.parent / "refused", ignore_errors=True)
    return report


def _judge_tables(
    landed: Mapping[str, list[Part]], contracts: Mapping[str, Contract], zone: Zone, beside: Path, last: date
) -> dict[str, Report]:
    """Judge every table; a broken guarantee is raised only then, so that all that is set aside can be seen."""
    tables: dict[str, Report] = {}
    broken: list[GuaranteeError] = []
    for table in progress(sorted(contracts), "rules"):
        try:
            tables[table] = judge_table(table, landed, contracts, zone, beside, last=last)
        except GuaranteeError as e:
            broken.append(e)
    if broken:
        raise broken[0]
    return tables


def _volume(contract: Contract, lines: list[Landing]) -> Report | None:
    """Return the landing days with an unusual number of rows, each judged by the contract of its day.

    The bounds told are those of the newest version that has any.
    """
    versions = sorted({contract.version, *(x.contract_version for x in lines)}, reverse=True)
    volume = next((v for n in versions if (v := contract.at(n).volume)), None)
    if volume is None:
        return None
    for line in lines:
        contract.at(line.contract_version).check_volume(line.landing_day, line.rows)
    unusual = {
        str(x.landing_day): x.rows for x in lines if not contract.at(x.contract_version).is_usual(x.landing_day, x.rows)
    }
    return {"rows": list(volume.rows), "then": volume.then, "unusual": unusual}


def _health(lines: list[Landing], contract: Contract, parts: list[Part]) -> list[Report]:
    """Return what history shows of the landing days of one table, until the last day on which any table was sealed."""
    rows = {contract.table: joined([p.sent for p in parts], contract)}
    found = findings(lines, {contract.table: contract}, rows).drop("table")
    return found.with_columns(pl.col("landing_day").cast(pl.String)).to_dicts()


def _total(tables: Iterable[Report]) -> Report:
    names = ("rows", "clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    found = list(tables)
    total = {name: sum(t[name] for t in found) for name in names}
    check_law(total, "all tables")
    return total


def _second_opinion(
    parts: list[Part], landed: Mapping[str, list[Part]], counts: Report, run: int, keep: Path | None
) -> Report:
    """Run each version's suite on Great Expectations; it must count what the masks counted. `run` ran before."""
    found: dict[str, int] = {}
    for part in parts:
        named = {r.table for r in part.contract.row_rules if r.table is not None}
        files = {t: [f for p in landed[t] for f in p.files] for t in named}
        for one in judge(part.contract, part.files, files, keep):
            found[one.rule] = found.get(one.rule, 0) + one.unexpected_count
            run += 1
    for rule, count in found.items():
        expected = counts["rules"].get(rule, {"broken": 0})["broken"]  # a type rule was judged before any row was
        if count != expected:
            raise GuaranteeError(
                "masks and Great Expectations disagree", where=f"rule {rule!r} of {parts[0].contract.table}",
                expected=f"{expected} rows by Polars", found=f"{count} by Great Expectations",
                do="This is a bug of Lockstep: see lockstep/masks.py and lockstep/judge.py.",
            )  # fmt: skip
    return {"expectations": run, "agree": run}


def _move_into_place(
    beside: Path, out: Path, names: Iterable[str] = ("clean", "quarantine", "validation.json")
) -> None:
    """Replace the outputs by the new ones; until here nothing of them was touched."""
    for name in names:
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        if (beside / name).exists():
            (beside / name).replace(target)


def main() -> None:
    """Run the stage."""
    here = project()
    kept, out = here.root / "state/expectations", here.root / "artifacts"
    report = validate(
        here.root / "data",
        read_landings(here.root / "landings.csv"),
        load_contracts(here.folder("contracts")),
        here.settings.clock,
        out,
        releases=read_releases(here.root / "releases.csv"),
        profiles=here.folder("contracts"),
        code=closure_hash(here, "lockstep.validate"),
        keep=kept,
    )
    write_text(file_hash(out / "validation.json"), kept / "of")
    total = report["total"]
    shown = ("clean", "quarantined", "duplicates", "late", "corrections", "deletions")
    print(f"validate: {total['rows']:,} rows in, {', '.join(f'{total[n]:,} {n}' for n in shown)}")


if __name__ == "__main__":
    code = stage(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # DuckDB with Great Expectations prints thirty lines of "nanobind: leaked" on a common exit
