"""The command line: thin callers of the library's functions, one exit code for each kind of outcome."""

from __future__ import annotations

import os
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
def health() -> None:
    """Show landing days that are late, missing, half-empty, doubled or repeated; exit 1 where one of them fails."""
    from lockstep.contract import load_contracts
    from lockstep.errors import GuaranteeError
    from lockstep.health import findings, told
    from lockstep.landed import joined, read_landed
    from lockstep.landings import of_source, read_landings
    from lockstep.project import project
    from lockstep.release import read_releases

    here = project()
    lines, contracts = read_landings(here.root / "landings.csv"), load_contracts(here.folder("contracts"))
    releases = read_releases(here.root / "releases.csv")
    landed = read_landed(here.root / "data", lines, contracts, releases)
    rows = {t: joined([p.sent for p in landed[t]], c) for t, c in contracts.items() if c.health and c.event_time}
    found = findings(of_source(lines, releases), contracts, rows)
    if found.is_empty():
        print("every landing day is like those before it")
        return
    _table(found.to_dicts())
    if not (bad := found.filter(then="fail")).is_empty():
        raise GuaranteeError(
            f"{bad.height} landing days are unlike those before them", where="landings.csv", found=told(bad),
            do="Mend the source, or name days that are so in gaps of the contract's health.",
        )  # fmt: skip


@app.command()
def quarantine(table: Annotated[str | None, typer.Argument(help="By default all.")] = None) -> None:
    """Show what is quarantined: where, why, when and how many."""
    from lockstep.contract import load_contracts
    from lockstep.project import project
    from lockstep.quarantine import judged_in, quarantined

    here = project()
    found = quarantined(here.root, load_contracts(here.folder("contracts")), table)
    if found.is_empty():
        print("nothing is quarantined")
        return
    _table(found.to_dicts())
    for name in found["table"].unique(maintain_order=True):
        print(f"all rows: {(judged_in(here.root) / 'quarantine').relative_to(here.root)}/{name}.parquet")


@app.command()
def release(
    table: Annotated[str, typer.Argument(help="Whose quarantined rows land again.")],
    *,
    rule: Annotated[list[str] | None, typer.Option(help="The rule that they broke; it is waived for them.")] = None,
    reason: Annotated[str, typer.Option(help="Why, on one line.")],
    day: Annotated[str | None, typer.Option(help="The day on which they landed, YYYY-MM-DD.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="column=value: only such rows.")] = None,
    repair: Annotated[list[str] | None, typer.Option("--set", help="column=value: a repair; empty is null.")] = None,
    back: Annotated[bool, typer.Option("--withdraw", help="Take back all that have not landed yet.")] = False,
) -> None:
    """Let quarantined rows land again on the next unsealed day, repaired or with a rule waived."""
    from lockstep.contract import load_contracts
    from lockstep.errors import UserError
    from lockstep.project import project
    from lockstep.quarantine import contract_of, release, withdraw
    from lockstep.run import at_work

    here, when = project(), _day("--day", day) if day else None
    chosen, repairs = _values("--where", where), _values("--set", repair)
    contract = contract_of(load_contracts(here.folder("contracts")), table)
    if back:
        if rule or day or where or repair:
            raise UserError(
                "nothing goes with it but --reason", where="--withdraw", do="All of the table is withdrawn."
            )
        with at_work(here.root):
            print(f"withdrew {len(withdraw(here.root, contract, reason))} rows of {table}: they stay quarantined")
        return
    with at_work(here.root):
        lines = release(
            here.root, contract, here.settings.clock, rule or [], reason, day=when, where=chosen, repairs=repairs
        )
    for landing_day in sorted({x.landing_day for x in lines}):
        rows = sum(x.landing_day == landing_day for x in lines)
        print(f"released {rows} rows of {table}: they land on {landing_day}, with `lockstep land`")


@app.command()
def shadow(json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False) -> None:
    """Compare the challenger with the model that serves: promote or hold, and why."""
    from json import dumps

    from lockstep.evidently_report import write_report
    from lockstep.files import read_json
    from lockstep.project import project
    from lockstep.run import run

    here = project()
    _ = here.settings.comparison  # told before anything runs
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
    from lockstep.questions import require_questions

    known = Catalogue(project())
    require_questions(known)
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
        _table([{k: ", ".join(f[k]) if k == "services" else f[k].split("(")[0] for k in shown} for f in found])
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
    to: Annotated[Path, typer.Option(help="The folder to write QUESTION/DAY/training.parquet to.")],
    question: Annotated[str | None, typer.Option(help="By default the one that the champion answers.")] = None,
) -> None:
    """Write a question's training set as it would have been built on a day, whatever has landed since."""
    from lockstep.dataset import keep_known
    from lockstep.files import read_json
    from lockstep.graph import require_built
    from lockstep.project import project
    from lockstep.run import at_work

    day, here = _day("--known", known), project()
    name = question or here.settings.models[here.settings.serve.model].question
    with at_work(here.root):
        require_built(here.root, "validate", "features")  # of what is gone or old, Feast would give the day before
        out = keep_known(here, day, name, to)
    about = read_json(out / "dataset.json")
    digest = about["hashes"]["dataset"][:12]
    print(f"dataset   {about['rows']:,} rows of {name} as known on {day}, {digest}, {out / 'training.parquet'}")


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
def plant(
    faults: Annotated[list[str] | None, typer.Argument(help="Names of faults; by default all of them.")] = None,
    weeks: Annotated[int, typer.Option(min=1, help="In how many of the last weeks that landed.")] = 13,
    as_table: Annotated[bool, typer.Option("--table", help="Print a table in Markdown.")] = False,
) -> None:
    """Plant faults in the last weeks of your own rows and see each stopped; exit 1 where a guard misses one."""
    from lockstep.errors import GuaranteeError
    from lockstep.plant import plant as planted
    from lockstep.plant import table
    from lockstep.project import project

    outcomes = []
    for one in planted(project(), faults or [], weeks):
        outcomes.append(one)
        if not as_table:
            word = "stopped" if one.stopped else "missed" if one.guard else "skipped"
            print(f"{word:<10}{one.fault}: {one.said}", flush=True)
    if as_table:
        print(table(outcomes))
    missed = [one.fault for one in outcomes if one.guard and not one.stopped]
    if missed:
        raise GuaranteeError(
            "faults that no guard stopped", where="lockstep plant", found=", ".join(missed),
            do="Let the contract name what these columns must be: see docs/faults.md.",
        )  # fmt: skip


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


def _values(option: str, given: list[str] | None) -> dict[str, str]:
    """Read ``column=value`` texts."""
    from lockstep.errors import UserError

    for text in given or ():
        if "=" not in text:
            raise UserError("no value", where=option, expected="column=value", found=text)
    return {text.partition("=")[0]: text.partition("=")[2] for text in given or ()}


def _table(records: list[dict[str, object]]) -> None:
    """Print records as a table with aligned columns."""
    rows = [list(records[0]), *(["-" if v is None else str(v) for v in r.values()] for r in records)]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{value:<{width}}" for value, width in zip(row, wide, strict=True)).rstrip())


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
        code = _outcome()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1  # as typer does where it meets the closed pipe first
    sys.exit(code)


def _outcome() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)  # typer turns Ctrl-C into the code 130 itself
        if code == 130:
            print("stopped: nothing is half-written, run the same command again", file=sys.stderr)
        return code
    except LockstepError as e:
        sys.stdout.flush()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except Exception as e:
        if type(e).__module__.startswith(("click", "typer")):  # wrong use of the command line
            message = e.format_message() if hasattr(e, "format_message") else str(e)
            print(f"error: {message}", file=sys.stderr)
            return 2
        print(f"error: {unexpected(e)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    main()
