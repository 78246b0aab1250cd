"""``dvc.lock``: what git HEAD says that the stages give, and what they gave here.

Model bytes hold on one class of processors: elsewhere the same inputs may end in other last bits. Then the rebuilt lock
is kept beside, in ``state/``, and the checked-in one stays untouched.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lockstep.errors import DataError
from lockstep.files import read_json, write_json, write_text

__all__ = ["lock_outputs", "outputs_equal", "own_lock", "same_inputs"]


def lock_outputs(text: str) -> dict[str, str]:
    """Return the hash of each output, ``stage path``, in the text of a ``dvc.lock``."""
    return {f"{name} {out['path']}": out["md5"] for name, stage in _stages(text).items() for out in stage["outs"]}


def outputs_equal(root: Path) -> tuple[int, int] | None:
    """Return how many outputs equal those of git HEAD's ``dvc.lock``, and of how many; None where there is none."""
    head = _head(root)
    if head is None:
        return None
    then, now = lock_outputs(head), lock_outputs((root / "dvc.lock").read_text(encoding="utf-8"))
    return sum(now.get(k) == v for k, v in then.items()), len(then)


def same_inputs(then: str, now: str) -> bool:
    """Say whether two locks have the same stages with the same commands, parameters and dependencies from outside."""
    return _inputs(then) == _inputs(now)


@contextmanager
def own_lock(root: Path) -> Iterator[None]:
    """Work with the lock that was rebuilt here; afterwards put the checked-in one back where only outputs differ."""
    lock, beside, head = root / "dvc.lock", root / "state/rebuilt.lock.json", _head(root)
    if head is not None and lock.is_file() and lock.read_text(encoding="utf-8") == head:
        with suppress(DataError, KeyError, TypeError):  # nothing is kept, or nothing that can be used
            kept = read_json(beside)
            if kept["head"] == head:
                write_text(kept["rebuilt"], lock)
    try:
        yield
    finally:
        now = lock.read_text(encoding="utf-8") if lock.is_file() else head
        if head is not None and now is not None and now != head and _same(head, now):
            write_json({"head": head, "rebuilt": now}, beside)
            write_text(head, lock)


def _same(then: str, now: str) -> bool:
    """Compare as `same_inputs`; a lock that cannot be read, after a merge, say, is left to who reads it next."""
    try:
        return same_inputs(then, now)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return False


def _stages(text: str) -> dict[str, Any]:
    return {name: {"outs": [], **stage} for name, stage in (yaml.safe_load(text) or {}).get("stages", {}).items()}


def _inputs(text: str) -> Mapping[str, Any]:
    stages = _stages(text)
    built = [out["path"] for stage in stages.values() for out in stage["outs"]]

    def outside(path: str) -> bool:
        return not any(path == b or b.startswith(f"{path}/") or path.startswith(f"{b}/") for b in built)

    return {
        name: (
            stage["cmd"],
            stage.get("params"),
            {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if outside(dep["path"])},
            [out["path"] for out in stage["outs"]],
        )
        for name, stage in stages.items()
    }


def _head(root: Path) -> str | None:
    shown = subprocess.run(["git", "show", "HEAD:./dvc.lock"], cwd=root, capture_output=True, text=True, check=False)
    return None if shown.returncode else shown.stdout
