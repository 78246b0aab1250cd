"""The command line: thin callers of the library's functions, one exit code for each kind of outcome."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from lockstep.contract_cli import contract_app
from lockstep.errors import LockstepError
from lockstep.stage import quiet, unexpected

__all__ = ["app", "main"]

app = typer.Typer(
    help="Features, models and proofs that keep step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(contract_app, name="contract")


@app.command()
def run(json: Annotated[bool, typer.Option("--json", help="Print the ledger as JSON.")] = False) -> None:
    """Do the main job: land, check, rebuild, judge; print the verdict."""
    from lockstep.project import project
    from lockstep.run import run

    ledger = run(project())
    print(ledger.json() if json else ledger.text())


@app.command()
def land(
    until: Annotated[str | None, typer.Option(help="The last landing day to seal, YYYY-MM-DD.")] = None,
) -> None:
    """Land and seal raw days, refill missing ones, pin the data."""
    from lockstep.project import project
    from lockstep.run import at_work, land_days

    last, here = _day("--until", until) if until else None, project()
    with at_work(here.root):
        new = land_days(here, last)
    days = {line.landing_day for line in new}
    print(f"sealed {len(new)} partitions of {len(days)} landing days" if new else "nothing new to seal")


@app.command()
def up(
    every: Annotated[int, typer.Option(min=1, help="Seconds that a day of the copy's clock takes.")] = 60,
    keep_one_in: Annotated[int, typer.Option(min=1, help="Try it on one household in so many.")] = 20,
    until: Annotated[str | None, typer.Option(help="What has landed before, YYYY-MM-DD.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The server's; by default a free one.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Stop after so many finished scheduled runs.")] = None,
) -> None:
    """Try the schedules on a copy: Prefect's server, a worker and a quick clock, until Ctrl-C."""
    from lockstep.project import project
    from lockstep.up import up

    up(
        project(),
        every=every,
        keep_one_in=keep_one_in,
        until=_day("--until", until) if until else None,
        port=port,
        runs=runs,
    )


@app.command()
def check() -> None:
    """Compare data/ with landings.csv and data.dvc."""
    from lockstep.landings import check_data
    from lockstep.project import project

    print(f"data is as sealed: {check_data(project().root)}")


@app.command()
def shadow(json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False) -> None:
    """Compare the challenger with the model that serves: promote or hold, and why."""
    from json import dumps

    from lockstep.evidently_report import write_report
    from lockstep.files import read_json
    from lockstep.project import project
    from lockstep.run import run

    here = project()
    run(here)
    found = read_json(here.root / "artifacts/shadow/shadow.json")
    page = str(write_report(here))
    if json:
        print(dumps({**found, "page": page}, indent=2))
    else:
        print(f"{found['decision']}: {found['reason']}\n{found['otherwise']}\n\nopen {page}")


@app.command()
def features(
    name: Annotated[str, typer.Argument(help="All that is known of one; by default a table of all.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the features: what they mean and promise, whose they are, and who reads them."""
    from json import dumps

    from lockstep.catalogue import Catalogue
    from lockstep.catalogue_page import entries, entry, write_catalogue
    from lockstep.project import project

    known = Catalogue(project())
    frame = entries(known)
    found = [entry(frame, name)] if name else frame.to_dicts()
    if json:
        print(dumps(found[0] if name else found, indent=2))
    elif name:
        print(
            "\n".join(
                f"{k:<12}{', '.join(v) if isinstance(v, list) else v}"
                for k, v in found[0].items()
                if v not in (None, "", [])
            )
        )
    else:
        shown = ("feature", "view", "type", "range", "status", "services")
        rows = [list(shown)] + [
            [", ".join(f[k]) if k == "services" else f[k].split("(")[0] for k in shown] for f in found
        ]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{value:<{width}}" for value, width in zip(row, wide, strict=True)).rstrip())
        print(f"\nopen {write_catalogue(known)}")


@app.command()
def deps(write: Annotated[bool, typer.Option("--write", help="Rewrite dvc.yaml.")] = False) -> None:
    """Compare the code dependencies of dvc.yaml with each stage's import closure."""
    from lockstep.deps import require_deps, write_deps
    from lockstep.project import project

    if write:
        write_deps(project())
    require_deps(project())
    print("code dependencies are each stage's import closure")


@app.command()
def dataset(
    known: Annotated[str, typer.Option(help="The day on which it would have been built, YYYY-MM-DD.")],
    to: Annotated[Path, typer.Option(help="The folder to write training.parquet to.")],
    question: Annotated[str | None, typer.Option(help="By default the one that the champion answers.")] = None,
) -> None:
    """Write a question's training set as it would have been built on a day, whatever has landed since."""
    from lockstep.dataset import as_known
    from lockstep.files import file_hash, write_parquet
    from lockstep.graph import require_built
    from lockstep.project import project
    from lockstep.run import at_work

    day, path, here = _day("--known", known), to / "training.parquet", project()
    with at_work(here.root):
        require_built(here.root, "validate", "features")  # of what is gone or old, Feast would give the day before
        frame = as_known(here, day, question or here.settings.shadow.question)
    write_parquet(frame, path)
    print(f"dataset   {frame.height:,} rows as known on {day}, {file_hash(path)[:12]}, {path}")


@app.command()
def prove(
    name: Annotated[str, typer.Argument(help="leakage, backfill, parity or all.")] = "all",
    days: Annotated[int, typer.Option(help="On how many days leakage is looked for.")] = 6,
) -> None:
    """Prove on your own definitions and data what Lockstep promises; exit 1 where it does not hold."""
    from lockstep.project import project
    from lockstep.prove import prove as proofs

    for proof in proofs(project(), name, days):
        print(f"proven    {proof.name}: {proof.said}")


@app.command()
def materialize(
    until: Annotated[str | None, typer.Option(help="The day whose snapshot goes online, YYYY-MM-DD.")] = None,
) -> None:
    """Fill the online store with a snapshot, the last by default, and compare it bit for bit with the offline one."""
    from lockstep.materialize import materialize
    from lockstep.parity import prove_parity
    from lockstep.project import project

    here = project()
    materialize(here, _day("--until", until) if until else None)
    print(f"online    {prove_parity(here).text()}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="By default params.yaml's; 0: any free one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="By default the champion of params.yaml.")] = None,
) -> None:
    """Answer predictions over HTTP until Ctrl-C."""
    from lockstep.project import project
    from lockstep.serving import serve

    serve(project(), host, port, model)


def _day(option: str, text: str) -> date:
    from lockstep.clock import parse_day
    from lockstep.errors import UserError

    try:
        return parse_day(text)
    except ValueError as e:
        raise UserError("bad day", where=option, found=e) from None


def main() -> None:
    """Run the command line and exit with the outcome's code."""
    quiet()
    try:
        code = app(standalone_mode=False)  # typer turns Ctrl-C into the code 130 itself
        if code == 130:
            print("stopped: nothing is half-written, run the same command again", file=sys.stderr)
        sys.exit(code or 0)
    except LockstepError as e:
        sys.stdout.flush()
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except Exception as e:
        if type(e).__module__.startswith(("click", "typer")):  # wrong use of the command line
            message = e.format_message() if hasattr(e, "format_message") else str(e)
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)
        print(f"error: {unexpected(e)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
