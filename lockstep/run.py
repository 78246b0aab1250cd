"""The main job: from raw days to a judged model, or at once to the stored verdict where nothing changed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from lockstep import online
from lockstep.alone import alone
from lockstep.catalogue import Catalogue
from lockstep.clock import Zone
from lockstep.contract import load_contracts
from lockstep.data_docs import docs_pending
from lockstep.deps import require_deps
from lockstep.errors import EnvironmentFault
from lockstep.evidently_report import report_pending
from lockstep.graph import UNREAD, changed
from lockstep.land import SourceEnds, land, last_sealed
from lockstep.landings import Landing, check_data, check_sealed
from lockstep.ledger import Ledger, read_ledger, write_ledger
from lockstep.lock import own_lock
from lockstep.prefect_server import failure
from lockstep.project import Project
from lockstep.questions import require_questions
from lockstep.stage import supervise

__all__ = ["at_work", "check", "land_days", "land_due", "pending", "pin_data", "run", "verdict"]


def run(project: Project) -> Ledger:
    """Return the stored ledger where nothing changed; otherwise run the project's flow and return what it wrote.

    Raises
    ------
    DataError
        The data is not what was sealed: nothing is built.
    LockstepError
        A stage said no, with the stage's own sentence and exit code.
    """
    root = project.root
    with at_work(root):
        land_due(project)
        data = check(project)
        todo = changed(root) or pending(project)
        if not todo:
            return verdict(root, data)
    catalogue = Catalogue(project)
    require_questions(catalogue)  # a wrong definition is told before anything runs
    for line in catalogue.deprecated():
        print(line)
    print(f"to do: {', '.join(todo)}, and what follows\nstarting Prefect", flush=True)
    _flow(project)
    with at_work(root):  # another run may have come between: its verdict is the newer one
        return verdict(root, check_data(root))


def pending(project: Project) -> list[str]:
    """Return what is not of the present artifacts: the online store, the page of the comparison, Data Docs."""
    parts = {"materialize": online.pending, "report": report_pending, "docs": docs_pending}
    return [name for name, is_pending in parts.items() if is_pending(project)]


@contextmanager
def at_work(root: Path) -> Iterator[None]:
    """Wait until no other process lands or builds in `root`, and keep others waiting meanwhile.

    DVC's own locks are held a stage at a time: a landing between two of them would mix days. The lock file is the one
    that was rebuilt on this type of processor, where that differs from the checked-in one.
    """
    with alone(root, "run", wait=True), own_lock(root):
        yield


def land_due(project: Project, days: int = 0) -> str:
    """Land what is due and say how far: everything up to ``land.until`` where nothing has landed, then `days` more.

    Further days are sealed after the last sealed one, fewer where the source ends.
    """
    root, end = project.root, ""
    if not any((root / "data").glob("*/*.parquet")):
        print("landing raw days", flush=True)
        land_days(project)
    elif not (root / "data.dvc").exists():  # a first landing that was stopped before its pin
        check_sealed(root)
        pin_data(root)
    if days:
        try:
            land_days(project, last_sealed(root) + timedelta(days))
        except SourceEnds as source:
            land_days(project, source.last)
            end = ", where the source ends"
    return f"sealed up to {last_sealed(root)}{end}"


def check(project: Project) -> str:
    """Compare data with its seals and the graph with the code, before anything is built; return the data's hash.

    Raises
    ------
    DataError
        The data is not what was sealed.
    GuaranteeError
        A stage's code dependencies are not its import closure.
    SettingsError
        A typo in params.yaml, told before anything runs.
    """
    _ = project.settings
    data = check_data(project.root)
    require_deps(project)
    return data


def verdict(root: Path, data: str) -> Ledger:
    """Return the ledger of what is built from `data`: the stored one, or a new one with its page."""
    return read_ledger(root, data) or write_ledger(root, data)


def land_days(project: Project, until: date | None = None) -> list[Landing]:
    """Land and seal raw days up to `until` (``params.yaml`` by default), refill missing ones and pin the data."""
    settings = project.settings
    zone: Zone = settings.clock
    rows = project.load("landing")[0].rows
    contracts = load_contracts(project.folder("contracts"))
    new = land(
        project.root,
        contracts,
        lambda t: rows(t, settings.land, zone),
        settings.land.first,
        until or settings.land.until,
    )
    check_sealed(project.root)
    pin_data(project.root)
    return new


def pin_data(root: Path) -> None:
    """Pin the sealed data in ``data.dvc`` and keep its bytes in DVC's cache, ready for ``dvc push``."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # its hints name commands that `lockstep` runs for the user
    try:
        with Repo(str(root)) as repo:
            repo.add([str(root / "data")])
    except DvcException as e:
        raise EnvironmentFault("DVC cannot pin the data", where="data.dvc", found=str(e).rstrip("."), do=UNREAD) from e


def _flow(project: Project) -> None:
    """Run the project's flow in a process of its own; what it prints is the progress, what it logs goes to a file."""
    module, log = project.modules("flow")[0], project.root / "state/prefect/flow.err"
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    for name in {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__):  # the flow must not go on alone
        signal.signal(signal.Signals[name], signal.default_int_handler)
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-m", module]
        code = supervise(subprocess.Popen(command, cwd=project.root, env=env, stderr=errors, start_new_session=True))
    if code:
        raise failure(module, log, code)
