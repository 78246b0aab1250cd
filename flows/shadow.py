"""Compare the challenger with the champion: the stages that the comparison needs, its page, and the decision.

Import it in a notebook (``from flows.shadow import shadow; shadow()``), deploy it, or run this module. A hold is a
result: the flow ends well whatever is decided.
"""

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.rebuild import stage_task
from lockstep.evidently_report import write_report
from lockstep.files import read_json
from lockstep.graph import needed, stages
from lockstep.prefect_server import require_server
from lockstep.project import project
from lockstep.run import at_work
from lockstep.stage import stage


@task
def report(root: str) -> str:
    """Render the page where it is missing or of another comparison; return its path."""
    return str(write_report(project(Path(root))))


@flow(name="shadow")
def shadow(root: str | None = None) -> dict[str, Any]:
    """Build and show the comparison of the project in `root` (the one around the working folder by default).

    Returns
    -------
    dict
        ``decision``, ``reason`` and ``otherwise``, and the path of the ``page``.
    """
    here = project(Path(root) if root else None)
    folder, _ = here.root, here.settings.comparison
    with at_work(folder):
        for name in needed(stages(folder), "shadow"):
            stage_task(str(folder), name)
        page, found = report(str(folder)), read_json(folder / "artifacts/shadow/shadow.json")
    print(f"{found['decision']}: {found['reason']}\nopen {page}", flush=True)
    return {**{key: found[key] for key in ("decision", "reason", "otherwise")}, "page": page}


def main() -> None:
    """Run the flow on the server that is configured, or on an embedded one."""
    require_server()
    shadow()


if __name__ == "__main__":
    sys.exit(stage(main))
