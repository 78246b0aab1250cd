"""A project whose definitions a test writes itself, over the example's tables and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from features.sources import household, trips
from lockstep import agg
from lockstep.catalogue import Catalogue
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


def service(*names: str) -> Service:
    return Service("s", names)
