"""The composition root: the one place that finds a project's definitions, by the names in ``[tool.lockstep]``.

Nothing else in the library imports them; Feast's repository is the folder `features/`.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
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
        except LockstepError as e:
            where = ", ".join(filter(None, [e.where, self._line(e)]))
            raise type(e)(e.what, where=where, expected=e.expected, found=e.found, do=e.do) from e
        except Exception as e:
            told = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
            where = ", ".join(filter(None, [f"[tool.lockstep] {role}", self._line(e)]))
            do = self._meant(e) or f'See it whole: python -c "import {", ".join(self.modules(role))}"'
            raise DefinitionError("a module cannot be imported", where=where, found=told, do=do) from e

    def _line(self, error: Exception) -> str:
        """Return the last line of the project's own code on the way to an error: ``features/store.py line 12``."""
        lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        lines += [(error.filename or "", error.lineno or 0)] if isinstance(error, SyntaxError) else []
        for name, line in reversed(lines):
            file, library = Path(name), Path(__file__).parent
            if file.is_relative_to(self.root) and "site-packages" not in file.parts and library not in file.parents:
                return f"{file.relative_to(self.root).as_posix()} line {line}"
        return ""

    def _meant(self, error: Exception) -> str:
        """Return the names that are closest to the one that an error of the user's code does not know."""
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        name, known = getattr(error, "name", None) or "", list[str]()
        if found := re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error)):
            callee, name = frame.f_globals.get(found[1]), found[2]
            known = [p for p in inspect.signature(callee).parameters if p[0] != "_"] if callee else []
        elif isinstance(error, NameError):
            known = [*frame.f_globals, *frame.f_locals, *dir(builtins)]
        elif isinstance(error, AttributeError):
            known = dir(error.obj)
        elif isinstance(error, ModuleNotFoundError):
            package = name.rpartition(".")[0]
            files = self.root.joinpath(*package.split(".")).glob("*.py") if package else []
            known = [f"{package}.{file.stem}" for file in files]
        elif isinstance(error, ImportError) and (found := re.search(r"cannot import name '(\w+)'", str(error))):
            name, known = found[1], dir(sys.modules[name])
        hint = did_you_mean(name, known) if known else ""
        return hint if len(known) < 20 or hint.startswith("Did") else ""

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
