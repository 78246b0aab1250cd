"""Feast's objects, made from the definitions: entities, views, on-demand views and services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from lockstep.clock import INSTANT
from lockstep.contract import load_contracts
from lockstep.define import Entity, Feature, OnDemandView, Service, View, sentence
from lockstep.errors import DataError, DefinitionError, SettingsError, did_you_mean
from lockstep.events import event_schema
from lockstep.feature_contract import check_definition, check_values
from lockstep.project import Project
from lockstep.snapshots import CREATED, EVENT_TIMESTAMP, feature_schema
from lockstep.vectors import width

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["Catalogue", "feast_objects", "feature_store", "open_store"]


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
        return {key: kind for key, (kind, _) in found.items()}

    def _check_read(self, view: OnDemandView) -> None:
        """Refuse an on-demand view over views that are not the project's, or that no row has together."""
        for stored in view.views:
            if stored not in self.views:
                raise DefinitionError(
                    f"view {stored.name!r} is in no module of the role views", where=f"on-demand view {view.name}",
                    do="Name its module under `views` in [tool.lockstep] of pyproject.toml.",
                )  # fmt: skip
        if view.views:
            view.widest  # noqa: B018 - it raises

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

    def require_services(self) -> None:
        """Raise SettingsError for a question that names a service which nobody defined."""
        for about in self.project.settings.questions.values():
            self.read_by(about.dataset.services)

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
        read = {*features} | {name for view in self.demands(features) for name in self.inputs(view)}
        return [v.known for v in self.views if v.missing != "null" and read & set(self.schemas[v.name])]

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
        frame = view.apply(pl.LazyFrame(schema=self.inputs(view)))
        schema = frame.select(f.name for f in view.features).collect_schema()
        for feature in view.features:
            check_definition(feature, schema[feature.name])
        return schema


def feast_objects(project: Project) -> dict[str, Any]:
    """Return every Feast object of a project by name: what ``features/definitions.py`` holds for ``feast apply``."""
    from feast import FeatureService

    catalogue = Catalogue(project)
    entities = {e.name: _entity(e, catalogue.key_types[e.key]) for v in catalogue.views for e in v.entities}
    views = {v.name: _view(catalogue, v, [entities[e.name] for e in v.entities]) for v in catalogue.views}
    views |= {v.name: _on_demand(catalogue, v, views, project) for v in catalogue.on_demand}
    services = {
        s.name: FeatureService(
            name=s.name,
            features=[
                view[[f for f in s.features if f in catalogue.schemas[name]]]
                for name, view in views.items()
                if any(f in catalogue.schemas[name] for f in s.features)
            ],
            description=s.description,
        )
        for s in catalogue.services
    }
    return {
        f"{kind}_{name}": o
        for kind, d in (("entity", entities), ("view", views), ("service", services))
        for name, o in d.items()
    }


def open_store(project: Project, registry: str | None = None) -> FeatureStore:
    """Return the store of ``features/feature_store.yaml`` as it stands, its registry at `registry` if given."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    import lockstep.polars_store  # noqa: F401 - what the YAML names: imported here, it counts in the closure

    repo = project.root / "features"
    config = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))
    config |= {"registry": registry} if registry else {}
    return FeatureStore(repo_path=str(repo), config=RepoConfig(repo_path=repo, **config))


def feature_store(project: Project, registry: str | None = None) -> FeatureStore:
    """Return the store as `open_store` does, with all definitions applied."""
    store = open_store(project, registry)
    store.apply(list(feast_objects(project).values()))
    return store


def _entity(entity: Entity, kind: pl.DataType) -> Any:
    from feast import Entity as FeastEntity
    from feast import ValueType

    value_type = {pl.Int64: ValueType.INT64, pl.Int32: ValueType.INT32, pl.String: ValueType.STRING}.get(type(kind))
    if value_type is None:
        raise DefinitionError("a key of a type that Feast cannot hold", where=f"entity {entity.name}", found=str(kind))
    return FeastEntity(name=entity.name, join_keys=[entity.key], value_type=value_type, description=entity.description)


def _view(catalogue: Catalogue, view: View, entities: list[Any]) -> Any:
    from feast import FeatureView, FileSource

    return FeatureView(
        name=view.name,
        entities=entities,
        ttl=timedelta(days=view.ttl_days),
        schema=_fields(
            {**{k: catalogue.key_types[k] for k in view.keys}, **catalogue.schemas[view.name]}, catalogue.defined
        ),
        source=FileSource(
            name=f"{view.name}_snapshots",
            path=f"../artifacts/features/{view.folder}",
            timestamp_field=EVENT_TIMESTAMP,
            created_timestamp_column=CREATED,
        ),
        description=view.description,
        owner=view.owner,
        tags={**view.tags, "version": str(view.version), "status": view.status},
    )


def _on_demand(catalogue: Catalogue, view: OnDemandView, views: Mapping[str, Any], project: Project) -> Any:
    """Make an on-demand view whose function Feast can restore from its source text in any process."""
    from feast import OnDemandFeatureView, RequestSource
    from feast.transformation.python_transformation import PythonTransformation

    types = catalogue.inputs(view)
    module, name = next(
        (m.__name__, n) for m in project.load("on_demand") for n, v in vars(m).items() if v is view
    )  # fmt: skip
    source = (
        f"def {view.name}(inputs):\n"
        "    import polars as pl\n"
        f"    from {module} import {name} as view\n"
        f"    return view.compute(inputs, {{{', '.join(f'{n!r}: pl.{t!r}' for n, t in types.items())}}})\n"
        + "".join(f"    # {f.name} = {f.value}\n".replace("\n", " ").rstrip() + "\n" for f in view.features)
    )
    scope: dict[str, Any] = {"__name__": module}
    exec(source, scope)  # noqa: S102 - our own text: Feast keeps and restores functions as source
    return OnDemandFeatureView(
        name=view.name,
        sources=[
            *(views[v.name][view.inputs(v)] for v in view.views if view.inputs(v)),
            RequestSource(name=f"{view.name}_request", schema=_fields(view.request)),
        ],
        schema=_fields(catalogue.schemas[view.name]),  # no descriptions: Feast compares them with inferred fields
        feature_transformation=PythonTransformation(scope[view.name], source),
        mode="python",
        description=view.description,
        owner=view.owner,
    )


def _fields(types: Mapping[str, pl.DataType], features: Mapping[str, Feature] | None = None) -> list[Any]:
    from feast import Field
    from feast import types as feast

    kinds: dict[Any, Any] = {
        pl.Int64(): feast.Int64,
        pl.Int32(): feast.Int32,
        pl.Float64(): feast.Float64,
        pl.String(): feast.String,
        pl.Boolean(): feast.Bool,
        INSTANT: feast.UnixTimestamp,
    }
    for name, kind in types.items():
        if isinstance(kind, pl.Array) and kind.inner in kinds and len(kind.shape) == 1:
            kinds[kind] = feast.Array(kinds[kind.inner])  # of any length: Feast knows no other
        if kind not in kinds:
            raise DefinitionError(
                "a type that Feast cannot hold", where=f"feature {name}",
                expected=", ".join(str(k) for k in kinds), found=str(kind), do="Cast it in the definition.",
            )  # fmt: skip
    told = features or {}
    about = {n: {"description": told[n].description, "tags": _tags(told[n])} if n in told else {} for n in types}
    return [Field(name=n, dtype=kinds[t], **about[n]) for n, t in types.items()]


def _tags(feature: Feature) -> dict[str, str]:
    return {**feature.tags, **({"owner": feature.owner} if feature.owner else {})}
