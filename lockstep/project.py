"""The composition root: the one place that finds a project's definitions, by the names in ``[tool.lockstep]``.

Nothing else in the library imports them; Feast's repository is the folder `features/`.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lockstep.errors import DefinitionError, LockstepError, SettingsError, did_you_mean
from lockstep.settings import Settings, read_settings

__all__ = ["Project", "project"]

T = TypeVar("T")


@dataclass(frozen=True)
class Project:
    """A project: its root folder, its settings and the modules that it names.

    `names` maps a role (``landing``, ``views``, ``on_demand``, ``labels``, ``services``) to module names,
    and ``contracts`` to a folder.
    """

    root: Path
    names: Mapping[str, Any]

    @cached_property
    def settings(self) -> Settings:
        """Return ``params.yaml``, typed."""
        return read_settings(self.root / "params.yaml")

    def folder(self, role: str) -> Path:
        """Return the folder that plays `role`."""
        return self.root / self.modules(role)[0]

    def modules(self, role: str) -> list[str]:
        """Return the names of the modules that play `role`."""
        if role not in self.names and role in OPTIONAL:
            return []
        if role not in self.names:
            raise SettingsError(
                f"no {role!r}", where="[tool.lockstep] of pyproject.toml", do=did_you_mean(role, self.names)
            )
        named = self.names[role]
        return [named] if isinstance(named, str) else list(named)

    def load(self, role: str) -> list[ModuleType]:
        """Import the modules that play `role`, from this project's own folder."""
        if str(self.root) not in sys.path[:1]:
            sys.path.insert(0, str(self.root))
        try:
            return [importlib.import_module(name) for name in self.modules(role)]
        except LockstepError:
            raise
        except Exception as e:
            told = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
            at = traceback.extract_tb(e.__traceback__)[-1]
            where = f"[tool.lockstep] {role}, {Path(at.filename).name} line {at.lineno}"
            raise DefinitionError("a module cannot be imported", where=where, found=told, do="Mend it.") from e

    def objects(self, role: str, kind: type[T]) -> list[T]:
        """Return the objects of `kind` that the modules of `role` hold, in the order in which they were written."""
        found: list[T] = []
        for module in self.load(role):
            found += [v for v in vars(module).values() if isinstance(v, kind) and not any(v is f for f in found)]
        if not found and role not in OPTIONAL:
            raise DefinitionError(f"no {kind.__name__}", where=", ".join(self.modules(role)), do="Define one.")
        return found


def project(start: Path | None = None) -> Project:
    """Return the project around `start` (the working folder by default).

    Raises
    ------
    SettingsError
        No ``pyproject.toml`` with ``[tool.lockstep]`` in `start` or above it.
    """
    here = (start or Path.cwd()).resolve()
    for folder in _up(here):
        file = folder / "pyproject.toml"
        if file.is_file():
            try:
                names = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("lockstep")
            except tomllib.TOMLDecodeError as e:
                raise SettingsError("not TOML", where=str(file), found=e, do="Mend the file.") from None
            if names is not None:
                return Project(folder, _checked(names))
    raise SettingsError(
        "not inside a Lockstep project", where=str(here), do="Change to a folder that was cloned from it."
    )


OPTIONAL = ("on_demand",)
ROLES = ("landing", "contracts", "views", "on_demand", "labels", "services", "flow")


def _checked(names: dict[str, Any]) -> dict[str, Any]:
    for name in names:
        if name not in ROLES:
            where = "[tool.lockstep] of pyproject.toml"
            raise SettingsError(f"unknown role {name!r}", where=where, do=did_you_mean(name, ROLES))
    return names


def _up(folder: Path) -> Iterable[Path]:
    return (folder, *folder.parents)
