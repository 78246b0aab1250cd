"""The catalogue: all definitions of a project with their types, checked against each other."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from lockstep.contract import load_contracts
from lockstep.define import Feature, OnDemandView, Service, View
from lockstep.define.names import one_of_each, sentence
from lockstep.derive import event_schema
from lockstep.errors import DataError, DefinitionError, SettingsError, did_you_mean
from lockstep.feature_contract import check_values, formula_schema
from lockstep.project import Project
from lockstep.snapshot import EVENT_TIMESTAMP, feature_schema
from lockstep.vectors import width

__all__ = ["Catalogue"]

KEYS = (pl.Int64(), pl.Int32(), pl.String())
"""What a key can be."""


class Catalogue:
    """All definitions of a project with their types, checked against each other; dropped views are left out.

    Raises
    ------
    DefinitionError
        A view or feature name that is taken, or a service that names an unknown or a dropped feature.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        every = project.objects("views", View)
        names = [v.name for v in every]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise DefinitionError(
                f"view {twice!r} is defined twice", where="the views", do="Rename one, or give it another version."
            )
        self.views = [v for v in every if not v.dropped]
        dropped = {f.name: v.dropped for v in every if v.dropped for f in v.features}
        self.on_demand = project.objects("on_demand", OnDemandView)
        self.services = project.objects("services", Service)
        one_of_each([*self.views, *self.on_demand], "view")
        one_of_each(self.services, "service")
        one_of_each([v.source for v in self.views], "source")
        for entity in (entities := list(dict.fromkeys(e for v in self.views for e in v.entities))):
            for other in entities:
                if other is not entity and (other.name == entity.name) != (other.key == entity.key):
                    raise DefinitionError(
                        "two entities of one name, or of one key", where=f"entities {entity.name} and {other.name}",
                        found=f"keys {entity.key} and {other.key}", do="Let both views name the same Entity.",
                    )  # fmt: skip
        contracts, zone = load_contracts(project.folder("contracts")), project.settings.clock
        self.events = {v.name: event_schema(v.source, contracts, zone) for v in self.views}
        self.schemas = {v.name: feature_schema(v, self.events[v.name]) for v in self.views}
        self.key_types = self._key_types()
        for view in self.on_demand:
            self._check_read(view)
            self.schemas[view.name] = self._on_demand_schema(view)
        own = [*(v.features for v in self.views), *(v.features for v in self.on_demand)]
        self.defined: dict[str, Feature] = {f.name: f for features in own for f in features}
        self.types: dict[str, pl.DataType] = {}
        for name, schema in self.schemas.items():
            for feature, kind in schema.items():
                if feature in self.types:
                    raise DefinitionError(
                        f"feature {feature!r} is defined twice", where=f"view {name}", do="Rename one."
                    )
                self.types[feature] = kind
        self._check_requests()
        for service in self.services:
            for feature in service.features:
                if feature in dropped and feature not in self.types:
                    raise DefinitionError(
                        f"feature {feature!r} was dropped", where=f"service {service.name}",
                        do=sentence(dropped[feature]),
                    )  # fmt: skip
                if feature not in self.types:
                    raise DefinitionError(
                        f"unknown feature {feature!r}", where=f"service {service.name}",
                        do=did_you_mean(feature, self.types),
                    )  # fmt: skip

    def _key_types(self) -> dict[str, pl.DataType]:
        """Return the type of each entity's key: one for all views, or they could not be joined to the same rows."""
        found: dict[str, tuple[pl.DataType, str]] = {}
        for view in self.views:
            for key in view.keys:
                kind, first = found.setdefault(key, (self.events[view.name][key], view.name))
                if kind != self.events[view.name][key]:
                    raise DefinitionError(
                        f"two types of the key {key!r}", where=f"view {view.name}", expected=f"{kind}, as in {first}",
                        found=self.events[view.name][key], do="Cast it in the source.",
                    )  # fmt: skip
                if kind not in KEYS:
                    raise DefinitionError(
                        f"a type of the key {key!r} that Feast cannot hold", where=f"view {view.name}", found=kind,
                        expected=", ".join(map(str, KEYS)), do="Cast it in the source.",
                    )  # fmt: skip
        return {key: kind for key, (kind, _) in found.items()}

    def _check_read(self, view: OnDemandView) -> None:
        """Refuse an on-demand view over views that are not the project's, not together in a row, or not named."""
        for stored in view.views:
            if stored not in self.views:
                raise DefinitionError(
                    f"view {stored.name!r} is in no module of the role views", where=f"on-demand view {view.name}",
                    do="Name its module under `views` in [tool.lockstep] of pyproject.toml.",
                )  # fmt: skip
        if view.views:
            view.widest  # noqa: B018 - it raises
        known = {f.name for v in view.views for f in v.features} | {*view.request}
        for feature in view.features:
            for name in feature.reads:
                if name not in known:
                    of = next((v.name for v in self.views if name in self.schemas[v.name]), None)
                    raise DefinitionError(
                        f"unknown column {name!r}", where=f"feature {feature.name} of on-demand view {view.name}",
                        do=f"Add view {of} to its `views`." if of else did_you_mean(name, known),
                    )  # fmt: skip
            known.add(feature.name)

    def _check_requests(self) -> None:
        """Refuse a name of a request that means something else as well: each side would read its own."""
        carried: dict[str, pl.DataType] = {}
        for view in self.on_demand:
            for name, kind in view.request.items():
                if name in self.types or name in self.key_types or carried.setdefault(name, kind) != kind:
                    raise DefinitionError(
                        f"two meanings of {name!r}", where=f"request of on-demand view {view.name}",
                        expected="a name that no feature and no key has, and of one type", found=kind, do="Rename it.",
                    )  # fmt: skip

    def behind(self, features: Iterable[str]) -> set[str]:
        """Return some features and all features that they are computed from."""
        found: set[str] = set()
        ahead = [*features]
        while ahead:
            if (name := ahead.pop()) in self.defined and name not in found:
                found.add(name)
                ahead += self.defined[name].reads
        return found

    def inputs(self, view: OnDemandView) -> dict[str, pl.DataType]:
        """Return the columns, with their types, that an on-demand view reads."""
        stored = {name: self.schemas[v.name][name] for v in view.views for name in view.inputs(v)}
        return {**stored, **view.request}

    def read_by(self, services: Iterable[str]) -> list[str]:
        """Return every feature that one of some services reads, in the order of the definitions."""
        known = {s.name: s.features for s in self.services}
        for name in services:
            if name not in known:
                raise SettingsError(f"no service {name!r}", where="params.yaml", do=did_you_mean(name, known))
        wanted = {f for name in services for f in known[name]}
        return [f for schema in self.schemas.values() for f in schema if f in wanted]

    def refs(self, features: Iterable[str]) -> list[str]:
        """Return Feast's references of features."""
        return [f"{view}:{f}" for f in features for view, schema in self.schemas.items() if f in schema]

    def demands(self, features: Iterable[str]) -> list[OnDemandView]:
        """Return the on-demand views that give any of some features."""
        return [v for v in self.on_demand if not {*features}.isdisjoint(self.schemas[v.name])]

    def flags(self, features: Iterable[str]) -> list[str]:
        """Return what tells, for every view that some features are read or computed from, where it has a row."""
        return [v.known for v in self.views_behind(features) if v.missing != "null"]

    def views_behind(self, features: Iterable[str]) -> list[View]:
        """Return the views that some features are read or computed from."""
        read = {*features} | {name for view in self.demands(features) for name in self.inputs(view)}
        return [v for v in self.views if read & {*self.schemas[v.name]}]

    def settle(self, frame: pl.DataFrame, keys: list[str], where: str) -> pl.DataFrame:
        """Do in a joined frame what views say of rows that are not there, and judge what came of it.

        Raises
        ------
        DataError
            A row that a view refuses to do without, or a value that breaks its feature's contract.
        """
        for view in self.views:
            if view.missing == "refuse" and view.known in frame.columns:
                gone = frame.filter(pl.col(view.known).is_null()).select(*keys, EVENT_TIMESTAMP)
                if gone.height:
                    first = ", ".join(f"{key} {value}" for key, value in gone.row(0, named=True).items())
                    raise DataError(
                        f"no row of view {view.name}", where=where, expected="one for each that is asked about",
                        found=f"none for {gone.height} of {frame.height} rows, first {first}",
                        do='Ask about those it knows, raise its ttl_days, or say missing="default".',
                    )  # fmt: skip
            elif view.known in frame.columns:
                frame = view.fill(frame.lazy()).collect()
        absent = {f.name for v in self.views if v.missing == "null" for f in v.features}
        for nulls in (True, False):
            judged = [f for n, f in self.defined.items() if n in frame.columns and (n not in absent) == nulls]
            check_values(frame, judged, keys, where, nulls=nulls)
        return frame

    def deprecated(self, services: Iterable[str] = ()) -> list[str]:
        """Say, one line a view, which of the services (all, by default) read from a deprecated one."""
        said = []
        for view in self.views:
            asked = [s for s in self.services if s.name in (services or [s.name])]
            readers = [s.name for s in asked if self.behind(s.features) & {*self.schemas[view.name]}]
            if view.deprecated and readers:
                what = f"view {view.name}, read by service {', '.join(readers)}"
                said.append(f"deprecated: {what}. {sentence(view.deprecated)}")
        return said

    def _on_demand_schema(self, view: OnDemandView) -> pl.Schema:
        if vectors := [name for name, kind in self.inputs(view).items() if width(kind)]:
            raise DefinitionError(
                "a vector in a formula of the request", where=f"on-demand view {view.name}", found=", ".join(vectors),
                do="Store what you need of it: a formula of its own view may read it.",
            )  # fmt: skip
        return formula_schema(pl.LazyFrame(schema=self.inputs(view)), view.features)
