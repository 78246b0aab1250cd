"""The graph of stages, read from ``dvc.yaml``: the only statement of the pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lockstep.errors import DataError, LockstepError, UserError
from lockstep.stage import QUIET

__all__ = [
    "UNREAD",
    "StageBusy",
    "StageFailed",
    "changed",
    "needed",
    "require_built",
    "run_stage",
    "stages",
]


UNREAD = (
    "Mend dvc.yaml: a stage whose section of params.yaml is gone goes too (docs/your-own-data.md)."
    " A broken dvc.lock may be removed, or restored with `git checkout dvc.lock`."
)
"""What to do where DVC cannot read the project."""

_CHATTER = (
    "Generating lock file", "Updating lock file", "To track the changes with git", "\tgit add", "To enable auto",
    "\tdvc config core.autostage", "Use `dvc push`", "error: ", "ERROR: ",
    "Data and pipelines are up to date", "Running stage", "> ", "Stage '", "Verifying outputs",
)  # fmt: skip
"""What DVC says besides the stage's own words."""


class StageBusy(LockstepError):
    """Another process holds DVC's lock: try again."""

    exit_code = 3


class StageFailed(LockstepError):
    """A stage said why it failed, in its own words and with its own exit code."""

    def __init__(self, stage: str, reason: str, code: int) -> None:
        super().__init__(reason.removeprefix("error: ").rstrip(".") or f"stage {stage} failed with code {code}")
        self.stage, self.exit_code = stage, code


def stages(root: Path) -> dict[str, list[str]]:
    """Return each stage with the stages it waits for, in the order of ``dvc repro``.

    A cell of a matrix is a stage of its own, such as ``train@full``. Raises UserError when DVC cannot read the project.
    """
    import networkx as nx

    with _repo(root) as repo:
        graph: Any = repo.index.graph  # edges point from a stage to what it depends on
        order = nx.dfs_postorder_nodes(graph)  # DVC's own order, in which dvc.lock lists new stages
        # stage.addressing is relative to the working folder; stage.name is not
        return {s.name: sorted(u.name for u in graph.successors(s) if u.cmd) for s in order if s.cmd}


def needed(graph: dict[str, list[str]], stage: str) -> list[str]:
    """Return `stage` and the stages that it waits for, in the order of `graph`, which `stages` gave.

    >>> needed({"a": [], "b": ["a"], "c": ["a"], "d": ["b"]}, "d")
    ['a', 'b', 'd']
    """
    found = {stage}
    for name in reversed(graph):
        found.update(graph[name] if name in found else [])
    return [name for name in graph if name in found]


def changed(root: Path) -> list[str]:
    """Ask DVC, in this process, which stages would run; raise UserError when it cannot read the project."""
    with _repo(root) as repo:
        found = [name for name in repo.status() if not name.endswith(".dvc")]
        return sorted(name.split(":")[-1] for name in found)  # from elsewhere: path/to/dvc.yaml:stage


def require_built(root: Path, *stages: str) -> None:
    """Raise DataError where one of `stages` would run: its outputs are not of the present data and definitions."""
    if stale := sorted(set(stages) & set(changed(root))):
        raise DataError(
            "artifacts are not those of the present data and definitions", where=f"stage {', '.join(stale)}",
            do="Build them with `lockstep run`.",
        )  # fmt: skip


@contextmanager
def _repo(root: Path) -> Iterator[Any]:
    """Open DVC's repository and say in our words what is wrong with it."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield repo
    except LockError as e:
        raise StageBusy("another process holds DVC's lock", where=str(root), do="Wait for it, then run again.") from e
    except DvcException as e:
        raise UserError(
            "DVC cannot read the pipeline", where="dvc.yaml and dvc.lock", found=str(e).rstrip("."),
            do=UNREAD,
        ) from e  # fmt: skip


def run_stage(root: Path, stage: str, say: Callable[[str], None]) -> str:
    """Run one stage by ``dvc repro --single-item`` in a process of its own, as a shell would.

    Returns
    -------
    str
        ``Cached`` (nothing to do), ``Restored`` (from the run cache) or ``Ran``.

    Raises
    ------
    StageBusy
        Another process holds a lock of DVC.
    StageFailed
        The stage said no; the error carries its sentence and exit code.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    bin_ = str(Path(sys.executable).parent)
    env = {
        **os.environ,
        **QUIET,
        "PATH": os.pathsep.join([bin_, os.environ.get("PATH", "")]),
        "PYTHONWARNINGS": "ignore",
    }
    outcome, lines = "Cached", []
    with subprocess.Popen(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            for line in process.stdout or ():
                text = line.rstrip()
                lines.append(text)
                if "is cached - skipping run" in text:
                    outcome = "Restored"
                elif text.startswith("Running stage"):
                    outcome = "Ran"
                if text and not text.startswith(_CHATTER):
                    say(text)
        except BaseException:  # Ctrl-C above all: the stage must not outlive us
            os.killpg(process.pid, signal.SIGINT)
            raise
    if process.returncode == 0:
        return outcome
    said = "\n".join(lines)
    if "is busy, it is being blocked by" in said or "Unable to acquire lock" in said:
        raise StageBusy("another process works on this stage", where=stage, do="Wait for it, then run again.")
    reason = next((x for x in reversed(lines) if x.startswith("error: ")), "")
    code = 2 if reason else 1
    for line in lines:  # DVC reports the exit code of the stage's own process
        if "exited with" in line:
            code = int(line.rsplit(" ", 1)[-1].strip("'\".") or code)
    raise StageFailed(stage, reason or f"stage {stage} failed: {' '.join(lines[-3:])}", code)
