"""Definitions and contracts that a test writes itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from features.sources import household, trips
from lockstep import agg
from lockstep.catalogue import Catalogue
from lockstep.contract import Contract, load_contracts
from lockstep.define import Feature, Service, View
from lockstep.project import Project, project
from tests.conftest import ROOT


@dataclass(frozen=True)
class Ours(Project):
    roles: dict[str, list[Any]] = field(default_factory=dict)

    def objects(self, role, kind):
        return self.roles[role] if role in self.roles else super().objects(role, kind)


def catalogue(*views: View, on_demand=(), services=()) -> Catalogue:
    """Return the catalogue of these definitions alone."""
    here = project(ROOT)
    roles = {"views": [*views], "on_demand": [*on_demand], "services": [*services]}
    return Catalogue(Ours(here.root, here.names, roles))


def visits(*features: Feature, **more: Any) -> View:
    """Return a view of a household's trips; two features where none are given."""
    plain = (Feature("trips", agg.count()), Feature("spend", agg.sum("value", days=30)))
    told = {"name": "visits", "entities": [household], "source": trips, "ttl_days": 7}
    return View(**{**told, "features": features or plain, **more})


def contract(folder: Path, columns: dict[str, Any], **more: Any) -> Contract:
    """Write the contract of a table, ``visits`` by default, with these columns and their types, and load it."""
    told = {"table": "visits", "version": 1, "owner": "tests", "event_time": "at", "key": ["id"], "calendar": "daily"}
    told |= {"lateness": {"days": None, "then": "flag"}, **more}
    told["columns"] = {name: about if isinstance(about, dict) else {"type": about} for name, about in columns.items()}
    (folder / f"{told['table']}.yaml").write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    return load_contracts(folder)[told["table"]]


def service(*names: str) -> Service:
    return Service("s", names)
