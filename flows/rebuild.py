"""Rebuild what changed: the stages of ``dvc.yaml`` as Prefect tasks, in its order.

Import it in a notebook (``from flows.rebuild import rebuild; rebuild()``), deploy it, or run this module. The graph is
read from DVC and each stage runs as ``dvc repro`` would run it: a shell, a schedule and a notebook give the same bytes.
"""

import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.tasks import Task

from lockstep.graph import StageBusy, run_stage, stages
from lockstep.prefect_server import require_server
from lockstep.project import project
from lockstep.stage import stage


def _busy(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Retry when another process holds DVC's lock; a deterministic failure would only fail again."""
    try:
        state.result()
    except StageBusy:
        return True
    except BaseException:
        return False
    return False


@task(task_run_name="{stage}", retries=5, retry_delay_seconds=[2, 4, 8, 16, 32], retry_condition_fn=_busy)
def stage_task(root: str, stage: str) -> Any:
    """Run one stage; its state is named Cached, Restored or Ran."""
    log, began = get_run_logger(), time.monotonic()

    def say(line: str) -> None:
        log.info(line)
        print(f"  {line}", flush=True)

    print(f"{stage} ...", flush=True)
    outcome = run_stage(Path(root), stage, say)
    print(f"{stage}: {outcome.lower()} in {time.monotonic() - began:.0f} s", flush=True)
    return Completed(name=outcome, data=outcome)


@flow(name="rebuild")
def rebuild(root: str | None = None) -> dict[str, str]:
    """Run every stage of the project in `root` (the one around the working folder by default).

    Returns
    -------
    dict
        ``Cached``, ``Restored`` or ``Ran`` by stage.
    """
    folder = project(Path(root) if root else None).root
    return {name: stage_task(str(folder), name).name for name in stages(folder)}


def main() -> None:
    """Run the flow on the server that is configured, or on an embedded one."""
    require_server()
    rebuild()


if __name__ == "__main__":
    sys.exit(stage(main))
