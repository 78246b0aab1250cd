"""The main job: from raw days to a judged model, or at once to the stored verdict where nothing changed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from lockstep.alone import alone
from lockstep.clock import Zone
from lockstep.contract import load_contracts
from lockstep.deps import require_deps
from lockstep.errors import EnvironmentFault, LockstepError
from lockstep.graph import changed, require_models
from lockstep.land import land
from lockstep.landings import Landing, check_data, check_sealed
from lockstep.ledger import Ledger, read_ledger, write_ledger
from lockstep.lock import own_lock
from lockstep.project import Project
from lockstep.stage import QUIET, supervise

__all__ = ["land_days", "pin_data", "run"]


def run(project: Project) -> Ledger:
    """Land where there is no data, check the data, rebuild what changed by the flow, and return the ledger.

    Raises
    ------
    DataError
        The data is not what was sealed: nothing is built.
    LockstepError
        A stage said no, with the stage's own sentence and exit code.
    """
    root = project.root
    project.settings  # noqa: B018 - a typo in params.yaml is told before anything runs
    if not any((root / "data").glob("*/*.parquet")):
        print("landing raw days", flush=True)
        land_days(project)
    elif not (root / "data.dvc").exists():  # a first landing that was stopped before its pin
        check_sealed(root)
        pin_data(root)
    data = check_data(root)
    require_deps(project)
    require_models(root, project.settings.models)
    with own_lock(root):
        todo = changed(root)
        if not todo and (stored := read_ledger(root, data)):
            return stored
        if todo:
            print(f"to rebuild: {', '.join(todo)}\nstarting Prefect", flush=True)
            _flow(project)
        return write_ledger(root, data)


def land_days(project: Project, until: date | None = None) -> list[Landing]:
    """Land and seal raw days up to `until` (``params.yaml`` by default), refill missing ones and pin the data."""
    settings = project.settings
    zone: Zone = settings.clock
    rows = project.load("landing")[0].rows
    contracts = load_contracts(project.folder("contracts"))
    land_ = settings.land
    with alone(project.root, "landing"):
        new = land(project.root, contracts, lambda t: rows(t, land_, zone), land_.first, until or land_.until)
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
        raise EnvironmentFault("DVC cannot pin the data", where="data.dvc", found=str(e)) from e


def _flow(project: Project) -> None:
    """Run the project's flow in a process of its own, on a configured Prefect server or Prefect's embedded one."""
    home = project.root / "state/prefect"
    home.mkdir(parents=True, exist_ok=True)
    own = "PREFECT_API_URL" in os.environ or (Path.home() / ".prefect/profiles.toml").exists()
    env = {
        **({} if own else {"PREFECT_HOME": str(home)}),  # a server that the user configured is theirs to use
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the flow says what matters itself
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # the default, 20 s, fails on a slow machine
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        **os.environ,
        **QUIET,
        "PYTHONWARNINGS": "ignore",
    }
    module = project.modules("flow")[0]
    log = home / "flow.err"
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-m", module]
        code = supervise(subprocess.Popen(command, cwd=project.root, env=env, stderr=errors, start_new_session=True))
    if code:
        raise _failure(module, log, code)


def _failure(module: str, log: Path, code: int) -> LockstepError:
    """Return the sentence with which the flow's process ended, and its exit code."""
    said = log.read_text(encoding="utf-8").splitlines()
    sentence = next((line for line in reversed(said) if line.startswith("error: ")), None)
    if sentence is None:
        found = said[-1] if said else f"exit code {code}"
        return EnvironmentFault("the flow failed", where=module, found=found, do=f"See state/prefect/{log.name}.")
    error = LockstepError(sentence.removeprefix("error: ").removesuffix("."))
    error.exit_code = code
    return error
