"""What shapes a view besides its rows, part by part: the keys of what was computed before, and why it is computed anew.

A feature counts by its value, so that a helper which builds it counts wherever it stands. A source is a function: all
modules that its own may import count by their text. Descriptions, owners and lifetimes shape no value and do not count.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from lockstep.agg import Aggregation
from lockstep.closure import closure, closure_hash
from lockstep.day_cache import DayCache, Hashes
from lockstep.define import FittedView, Source, View
from lockstep.events import Events
from lockstep.exact import is_row_level
from lockstep.files import file_hash
from lockstep.project import Project
from lockstep.tables import Table

__all__ = ["changes", "digest", "kept_events", "source_parts", "view_parts"]


def view_parts(p: Project, view: View) -> dict[str, str]:
    """Return what shapes a view's snapshots besides the rows: by name a hash or the thing itself."""
    features = {f"feature {f.name}": _value(p, f.value) for f in view.features}
    if isinstance(view, FittedView):  # which may use any library
        features |= {
            "the fit": f"{view.every} {_code(p, view.fit)}",
            "the lock": file_hash(p.root / "requirements.lock"),
        }
    return {
        "the order of features": " ".join(f.name for f in view.features),
        "the entities": " ".join(view.keys),
        **features,
        **source_parts(p, view.source),
    }


def source_parts(p: Project, source: Source) -> dict[str, str]:
    """Return what shapes a source's events besides the rows."""
    contracts = p.folder("contracts")
    said = {f.name: getattr(source, f.name) for f in fields(source) if f.name != "derive"}
    return {
        "the engine": closure_hash(p, "lockstep.snapshots", roles=False),
        "polars or numpy": f"{pl.__version__} {np.__version__}",
        "the zone": p.settings.clock.name,
        **{f"contract {t}": file_hash(contracts / f"{t}.yaml") for t in source.tables},
        f"source {source.name}": digest({"said": repr(said), "code": _code(p, source.derive)}),
    }


def digest(parts: Mapping[str, str]) -> str:
    """Return one hash of named parts."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say of each part that is not the same whether it was added, removed or changed.

    >>> changes({"feature a": "1", "feature b": "2"}, {"feature b": "3", "feature c": "4"})
    ['feature b changed', 'feature c added', 'feature a removed']
    """
    names = [name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)]
    return [f"{n} {'added' if n not in before else 'changed' if n in now else 'removed'}" for n in names]


def kept_events(
    p: Project, source: Source, tables: Mapping[str, Table], first: date, last: date, *, hashes: Hashes
) -> Events:
    """Return the events of a source, those of each day kept in ``state/events``."""
    cache = DayCache(p.root / "state/events" / source.name, hashes)
    return Events(source, tables, first, last, cache=cache, code=digest(source_parts(p, source)))


def _value(p: Project, value: Aggregation | pl.Expr | pl.DataType) -> str:
    """Return a feature's value as text."""
    if isinstance(value, pl.Expr):
        return digest({"formula": value.meta.serialize(format="json")})
    if isinstance(value, pl.DataType):
        return digest({"fitted": str(value)})
    said = {f.name: getattr(value, f.name) for f in fields(value)}
    if value.where is not None:
        said["where"] = value.where.meta.serialize(format="json")
        if not is_row_level(value.where):  # it may call a function, of which the expression holds no more than the name
            said["code"] = closure_hash(p, "lockstep.snapshots")
    return digest({"aggregation": repr(said)})


def _code(p: Project, derive: Callable[..., object]) -> str:
    """Return a hash of all text that may shape what a function gives.

    Of a plain function that is its module and what this imports. Of a function that another one made, or that is not
    the project's own, it is that of its file and of all definitions: its values may come from anywhere.
    """
    file = Path(inspect.getsourcefile(derive) or "").resolve()
    plain = inspect.isfunction(derive) and not (derive.__closure__ or derive.__defaults__ or derive.__kwdefaults__)
    if plain and file in [(p.root / f).resolve() for f in closure(p, derive.__module__)]:
        return closure_hash(p, derive.__module__)
    return f"{file_hash(file)} {closure_hash(p, 'lockstep.snapshots')}"
