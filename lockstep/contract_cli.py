"""``lockstep contract``: what is done to contracts by hand, beside writing them."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["contract_app"]

contract_app = typer.Typer(
    help="Data contracts: store the profile that statistics are compared with.", no_args_is_help=True
)


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
