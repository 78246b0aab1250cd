"""Feast's objects, made from the definitions: entities, views, on-demand views and services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from lockstep.catalogue import Catalogue
from lockstep.clock import INSTANT
from lockstep.define import Entity, Feature, OnDemandView, View
from lockstep.errors import SettingsError
from lockstep.project import Project
from lockstep.snapshot import CREATED, EVENT_TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["feast_objects", "feature_store", "open_store"]


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
    """Return the store of ``features/feature_store.yaml`` as it stands.

    With a `registry` of its own it has no online store: a training set neither reads nor opens what is online.
    """
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    import lockstep.polars_store  # noqa: F401 - what the YAML names: imported here, it counts in the closure

    repo = project.root / "features"
    config = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))
    zone = config["offline_store"].get("ttl_zone")
    if zone != project.settings.zone:
        raise SettingsError(
            "two zones", where="features/feature_store.yaml", expected=f"ttl_zone: {project.settings.zone}", found=zone,
            do="Its days must be those of `zone` in params.yaml.",
        )  # fmt: skip
    config |= {"registry": registry, "online_store": None} if registry else {}
    return FeatureStore(repo_path=str(repo), config=RepoConfig(repo_path=repo, **config))


def feature_store(project: Project, registry: str | None = None) -> FeatureStore:
    """Return the store as `open_store` does, with all definitions applied."""
    store = open_store(project, registry)
    store.apply(list(feast_objects(project).values()))
    return store


def _entity(entity: Entity, kind: pl.DataType) -> Any:
    from feast import Entity as FeastEntity
    from feast import ValueType

    value_type = {pl.Int64: ValueType.INT64, pl.Int32: ValueType.INT32, pl.String: ValueType.STRING}[type(kind)]
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
    for kind in types.values():
        if isinstance(kind, pl.Array):
            kinds[kind] = feast.Array(kinds[kind.inner])  # of any length: Feast knows no other
    told = features or {}
    about = {n: {"description": told[n].description, "tags": _tags(told[n])} if n in told else {} for n in types}
    return [Field(name=n, dtype=kinds[t], **about[n]) for n, t in types.items()]


def _tags(feature: Feature) -> dict[str, str]:
    return {**feature.tags, **({"owner": feature.owner} if feature.owner else {})}
