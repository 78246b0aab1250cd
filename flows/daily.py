"""What the daily schedule does, and `lockstep run`: land, check, rebuild what changed, go online, write the verdict.

Import it in a notebook (``from flows.daily import daily; daily()``), deploy it (``prefect.yaml``), or run this module.
"""

import sys
from pathlib import Path

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.materialize import materialize
from flows.rebuild import rebuild
from flows.shadow import report
from lockstep.data_docs import write_docs
from lockstep.ledger import Ledger
from lockstep.prefect_server import require_server
from lockstep.project import project
from lockstep.run import at_work, check, land_due, verdict
from lockstep.stage import stage


@task(name="land")
def land_task(root: str, days: int) -> str:
    """Seal the days that are due; say how far."""
    return land_due(project(Path(root)), days)


@task(name="check")
def check_task(root: str) -> str:
    """Check data and code before anything is built; return the data's hash."""
    return check(project(Path(root)))


@task(name="docs")
def docs_task(root: str) -> str:
    """Render Great Expectations' pages where they are missing or of other results; return the first one's path."""
    return str(write_docs(project(Path(root))))


@task(name="ledger")
def ledger_task(root: str, data: str) -> Ledger:
    """Write the verdict and its page."""
    return verdict(Path(root), data)


@flow(name="daily")
def daily(root: str | None = None, days: int = 0) -> State[dict[str, str]]:
    """Seal `days` further landing days, check the data, rebuild what changed, go online and write the verdict.

    What is built follows from data, code and settings alone: a run that is late or repeated gives the same bytes.

    Parameters
    ----------
    root : str, optional
        A folder of the project; the working folder by default.
    days : int, optional
        Landing days, in the project's zone, to seal after the last sealed one, or fewer where the source ends. With 0
        nothing new lands but, where there is no data at all, everything up to ``land.until`` of ``params.yaml``.

    Returns
    -------
    dict
        The lines of the ledger. The state's message is a headline for the history of runs.
    """
    here = project(Path(root) if root else None)
    folder = str(here.root)
    with at_work(here.root):
        sealed = land_task(folder, days)
        data = check_task(folder)
        rebuild(folder)
        materialize(folder)
        if here.settings.shadow:
            report(folder)
        docs_task(folder)
        lines = ledger_task(folder, data).lines
    models = [f"{m} {lines[f'{about.question} {m}']}" for m, about in here.settings.models.items()]
    return Completed(message="; ".join([sealed, *models]), data=lines)


def main() -> None:
    """Run the flow on the server that is configured, or on an embedded one."""
    require_server()
    daily()


if __name__ == "__main__":
    sys.exit(stage(main))
