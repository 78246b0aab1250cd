"""``lockstep contract``: what is done to contracts by hand, beside writing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lockstep.contract import Contract
    from lockstep.project import Project

__all__ = ["contract_app"]

contract_app = typer.Typer(
    help="Data contracts: what a new version changes, whether it fits, what statistics are held against.",
    no_args_is_help=True,
)


@contract_app.command("diff")
def diff_command(
    old: Annotated[str, typer.Argument(help="A contract's file, or a table.")],
    new: Annotated[str, typer.Argument(help="The new version's file or, of a table, the old version's number.")],
    json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Say what a new version changes, whom that breaks and who reads it; exit 1 where it breaks anybody."""
    from json import dumps

    from lockstep.evolution import diff, readers
    from lockstep.project import project

    here = project()
    before, after = _versions(here, old, new)
    changes = diff(before, after)
    found = readers(here, before, changes)
    if json:
        print(dumps({"changes": [c.plain() for c in changes], "readers": found}, indent=2))
    else:
        print(f"{after.table}: version {before.version} -> {after.version}")
        for change in changes:
            print(change.text())
        for one in found:
            read = "; ".join(f"{k} {', '.join(one[k])}" for k in ("sources", "views", "services") if one[k])
            print(f"{one['column']} is read by {read or 'nobody'}")
        if not changes:
            print("nothing changed")
    raise typer.Exit(any(c.breaks for c in changes))


def _versions(here: Project, old: str, new: str) -> tuple[Contract, Contract]:
    """Return the contracts that two words name."""
    from lockstep.contract import load_contracts
    from lockstep.errors import UserError, did_you_mean
    from lockstep.grammar import read_contract

    if new.isdecimal():
        contracts = load_contracts(here.folder("contracts"))
        if old not in contracts:
            raise UserError(f"no contract for table {old!r}", do=did_you_mean(old, contracts))
        return contracts[old].at(int(new)), contracts[old]
    for path in (Path(old), Path(new)):
        if not path.is_file():
            raise UserError("no such file", where=str(path), do="Name two files, or a table and its old version.")
    return read_contract(Path(old)), read_contract(Path(new))


@contract_app.command("try")
def try_command(
    new: Annotated[Path, typer.Argument(help="The new version's file, kept outside the folder of contracts.")],
    days: Annotated[int, typer.Option(min=1, help="On how many of the last landed days.")] = 28,
    json: Annotated[bool, typer.Option("--json", help="Print the trial as JSON.")] = False,
) -> None:
    """Try a new version on landed days and on all definitions, before it is adopted; exit 1 where it does not fit."""
    from dataclasses import asdict
    from json import dumps

    from lockstep.contract_trial import try_contract
    from lockstep.project import project

    trial = try_contract(project(), new, days)
    print(dumps(asdict(trial), indent=2) if json else trial.text())
    raise typer.Exit(bool(trial.against))


@contract_app.command()
def profile(
    first: Annotated[str, typer.Option("--from", help="The first landing day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="The last landing day, YYYY-MM-DD.")],
    table: Annotated[str, typer.Argument(help="By default every table with statistics.")] = "",
) -> None:
    """Write the profile of a stretch of landings beside the contract: what later days are compared with."""
    from lockstep.clock import parse_day
    from lockstep.contract import load_contracts
    from lockstep.errors import UserError, did_you_mean
    from lockstep.landings import check_sealed
    from lockstep.project import project
    from lockstep.table_profile import profile_landings, profile_path

    try:
        days = parse_day(first), parse_day(last)
    except ValueError as e:
        raise UserError("bad day", where="--from or --to", found=e) from None
    here = project()
    folder = here.folder("contracts")
    contracts = load_contracts(folder)
    if table and table not in contracts:
        raise UserError(f"no contract for table {table!r}", do=did_you_mean(table, contracts))
    chosen = [table] if table else [t for t, c in contracts.items() if c.statistics]
    if not chosen:
        raise UserError("no contract asks for statistics", where=str(folder), do="Name a table.")
    landings = check_sealed(here.root)
    for name in chosen:
        found = profile_landings(contracts[name], here.root / "data", landings, *days)
        found.write(profile_path(folder, name))
        shown = profile_path(folder, name).relative_to(here.root)
        print(f"profile   {found.rows:,} rows of {days[0]} to {days[1]}, {len(found.columns)} columns, {shown}")
