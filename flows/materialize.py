"""Put a snapshot online and prove that it is what training would have read.

Import it in a notebook (``from flows.materialize import materialize; materialize()``), deploy it behind the rebuild, or
run this module with a day: ``python -m flows.materialize 2017-11-06``.
"""

import sys
from datetime import date
from pathlib import Path

from prefect import flow, task

from lockstep.clock import parse_day
from lockstep.errors import UserError
from lockstep.materialize import materialize as fill
from lockstep.parity import prove_parity
from lockstep.prefect_server import require_server
from lockstep.project import project
from lockstep.stage import stage


@task
def materialize_task(root: str, until: date | None) -> str:
    """Fill the online store with the snapshot of `until`; return its day."""
    print("materialize ...", flush=True)
    online = fill(project(Path(root)), until)
    print(f"materialize: snapshot {online.snapshot} is online", flush=True)
    return str(online.snapshot)


@task
def parity_task(root: str) -> str:
    """Compare all that is online with the offline snapshot; return the verdict's line."""
    print("parity ...", flush=True)
    found = prove_parity(project(Path(root)))
    print(f"parity: {found.text()}", flush=True)
    return found.text()


@flow(name="materialize")
def materialize(root: str | None = None, until: str | None = None) -> dict[str, str]:
    """Put the snapshot of `until` (the last by default) of the project in `root` online, and prove it.

    Returns
    -------
    dict
        ``snapshot``, its day, and ``parity``, the verdict's line.
    """
    folder = str(project(Path(root) if root else None).root)
    try:
        day = parse_day(until) if until else None
    except ValueError as e:
        raise UserError("bad day", where="until", found=e) from None
    return {"snapshot": materialize_task(folder, day), "parity": parity_task(folder)}


def main() -> None:
    """Run the flow on the server that is configured, or on an embedded one."""
    require_server()
    materialize(until=next(iter(sys.argv[1:]), None))


if __name__ == "__main__":
    sys.exit(stage(main))
