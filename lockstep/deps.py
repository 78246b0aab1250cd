"""Keep the code dependencies of ``dvc.yaml`` equal to each stage's import closure.

DVC reruns a stage when one of its dependencies changed: a file that is missing there leaves an output silently stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lockstep.closure import closure
from lockstep.errors import GuaranteeError, UserError
from lockstep.files import writing
from lockstep.project import Project

__all__ = ["check_deps", "require_deps", "write_deps"]


def check_deps(project: Project) -> dict[str, tuple[list[str], list[str]]]:
    """Return, for each stage whose code dependencies are wrong, those that are missing and those that are needless."""
    wrong = {}
    for name, stage in _stages(_load(project)[1]):
        have, want = {d for d in stage["deps"] if _is_code(d)}, set(closure(project, _module(name, stage["cmd"])))
        if have != want:
            wrong[name] = (sorted(want - have), sorted(have - want))
    return wrong


def require_deps(project: Project) -> None:
    """Raise GuaranteeError for the first stage whose code dependencies are not its import closure."""
    for name, (missing, needless) in check_deps(project).items():
        raise GuaranteeError(
            "code dependencies are not the import closure", where=f"dvc.yaml stage {name}",
            found=f"missing {', '.join(missing) or 'none'}, needless {', '.join(needless) or 'none'}",
            do="Run `lockstep deps --write`, or DVC cannot see that such a file changed.",
        )  # fmt: skip


def write_deps(project: Project) -> None:
    """Rewrite the code dependencies in ``dvc.yaml``; all else in the file, comments too, stays as it is."""
    yaml, graph = _load(project)
    for name, stage in _stages(graph):
        code = closure(project, _module(name, stage["cmd"]))
        stage["deps"][:] = sorted([d for d in stage["deps"] if not _is_code(d)] + code)
    with writing(project.root / "dvc.yaml") as beside, beside.open("w", encoding="utf-8", newline="\n") as handle:
        yaml.dump(graph, handle)


def _load(project: Project) -> tuple[Any, Any]:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    return yaml, yaml.load((project.root / "dvc.yaml").read_text(encoding="utf-8"))


def _stages(graph: Any) -> Iterator[tuple[str, Any]]:
    for name, stage in graph["stages"].items():
        yield name, stage.get("do", stage)  # of one that is repeated for each question or model


def _is_code(dependency: str) -> bool:
    return dependency.endswith((".py", ".schema.json"))


def _module(stage: str, command: str) -> str:
    words = command.split()
    if "-m" not in words:
        raise UserError(
            "a stage that is not a module", where=f"dvc.yaml stage {stage}", expected="python -m ...", found=command
        )
    return words[words.index("-m") + 1]
