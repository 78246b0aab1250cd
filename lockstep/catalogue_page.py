"""The catalogue: every feature of a project with its contract, its owner, and who reads it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.agg import Aggregation
from lockstep.catalogue import Catalogue
from lockstep.define import Feature, FittedView, OnDemandView, View
from lockstep.define.names import VERSION, sentence
from lockstep.errors import UserError, did_you_mean
from lockstep.files import write_text
from lockstep.project import Project

__all__ = ["entries", "entry", "write_catalogue"]

PAGE = "state/catalogue.html"


def entries(catalogue: Catalogue) -> pl.DataFrame:
    """Return one row a feature, in the order of the definitions.

    Returns
    -------
    DataFrame
        ``feature``, ``view``, ``version``, ``status``, ``instead`` (of it, if deprecated), ``entity``, ``type``,
        ``nullable``, ``range``, ``missing`` (what follows without a row), ``default``, ``window``, ``computed``,
        ``tables``, ``owner``, ``description``, ``tags`` (``name=value``), ``ttl_days``, and the ``services``,
        ``models``, ``questions`` and ``formulas`` that read it.
    """
    views: list[View | OnDemandView] = [*catalogue.views, *catalogue.on_demand]
    written = _written(catalogue.project)
    return pl.DataFrame([_entry(catalogue, v, f, written) for v in views for f in v.features], infer_schema_length=None)


def _written(project: Project) -> dict[str, str]:
    """Return what stands after the name in each ``Feature("name", ...)`` of the definitions, where it is one thing."""
    found: dict[str, set[str]] = {}
    for module in project.load("views") + project.load("on_demand"):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            match node:
                case ast.Call(func=ast.Name("Feature"), args=[ast.Constant(str(name)), value, *_]):
                    found.setdefault(name, set()).add(ast.unparse(value))
    return {name: texts.pop() for name, texts in found.items() if len(texts) == 1}


def _entry(
    catalogue: Catalogue, view: View | OnDemandView, feature: Feature, written: Mapping[str, str]
) -> dict[str, Any]:
    project, name, (low, high) = catalogue.project, feature.name, feature.bounds
    stored = view if isinstance(view, View) else None
    sources = [view] if isinstance(view, View) else list(view.views)
    read = catalogue.behind([name])
    old = next((v for v in sources if v.deprecated and read & {*catalogue.schemas[v.name]}), None)
    services = [s.name for s in catalogue.services if name in s.features]
    readers = {m: about for m, about in project.settings.models.items() if about.service in services}
    return {
        "feature": name,
        "view": view.name,
        "version": stored.version if stored else None,
        "status": old.status if old else "live",
        "instead": sentence(old.deprecated) if old else "",
        "entity": " x ".join(dict.fromkeys(e.name for v in sources for e in v.entities)),
        "type": str(catalogue.types[name]),
        "nullable": not feature.never_null,
        "range": "" if low is None and high is None else f"{_end(low)} to {_end(high)}",
        "missing": stored.missing if stored else None,
        "default": _default(stored, feature) if stored else None,
        "window": _window(feature.value),
        "computed": _computed(view, feature, written),
        "tables": list(dict.fromkeys(t for v in sources for t in v.source.tables)),
        "owner": feature.owner or view.owner,
        "description": feature.description,
        "tags": [f"{k}={v}" for k, v in {**(stored.tags if stored else {}), **feature.tags}.items()],
        "ttl_days": min(v.ttl_days for v in sources),
        "services": services,
        "models": [*readers],
        "questions": list(dict.fromkeys(about.question for about in readers.values())),
        "formulas": [f.name for f in catalogue.defined.values() if name in f.reads],
    }


def _end(value: float | None) -> str:
    return "any" if value is None else f"{value}"


def _default(view: View, feature: Feature) -> str | None:
    value = view.stand_in()[feature.name]
    return ("null" if value is None else f"{value}") if view.missing == "default" else None


def _computed(view: View | OnDemandView, feature: Feature, written: Mapping[str, str]) -> str:
    """Return an aggregation or a fit by its name, a formula as it was written, if it can be told which text was it."""
    if isinstance(view, FittedView) and isinstance(feature.value, pl.DataType):
        return f"{view.fit.__name__}(), anew every {view.every}"
    if isinstance(feature.value, Aggregation):
        return repr(feature.value)
    return written.get(VERSION.sub("", feature.name), str(feature.value))


def _window(value: Aggregation | pl.Expr | pl.DataType) -> str:
    if isinstance(value, pl.DataType):
        return "fit"
    if not isinstance(value, Aggregation):
        return "formula"
    if value.during:
        return " to ".join(value.during)
    offset = f", {value.offset} days before" if value.offset else ""
    return f"{value.days} days{offset}" if value.days else "lifetime"


def entry(frame: pl.DataFrame, feature: str) -> dict[str, Any]:
    """Return all that is known of one feature; raise UserError with the nearest name where there is none."""
    names = frame["feature"].to_list()
    if feature not in names:
        raise UserError(f"no feature {feature!r}", do=did_you_mean(feature, names))
    return frame.row(names.index(feature), named=True)


def write_catalogue(catalogue: Catalogue) -> Path:
    """Render the catalogue as a page that opens offline; return its path below the root."""
    from lockstep.page import template

    html = template("catalogue.html").render(entries=entries(catalogue).to_dicts(), deprecated=catalogue.deprecated())
    write_text(html, catalogue.project.root / PAGE)
    return Path(PAGE)
