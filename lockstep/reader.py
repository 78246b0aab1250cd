"""What one request reads: the stored features of its keys, and the formulas over them and what it carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.clock import INSTANT
from lockstep.lookup import BadRequest, LookUp, NotOnline, named

__all__ = ["FOREIGN", "Reader"]

FOREIGN = "the online store holds what cannot be a feature"


class Reader:
    """Some features of a project, read for one request at a time.

    A request is made of the entities' keys, whose names and types are `keys`, and of what the features' on-demand views
    take from it besides its instant, `request`.
    """

    def __init__(self, catalogue: Catalogue, features: Iterable[str]) -> None:
        self.features = list(features)
        self.demands = {view: catalogue.inputs(view) for view in catalogue.demands(self.features)}
        carried = {name: kind for view in self.demands for name, kind in view.request.items()}
        self.request = {name: kind for name, kind in carried.items() if kind != INSTANT}
        needed = {*self.features, *(name for types in self.demands.values() for name in types)}
        kept = {v.name: [f.name for f in v.features if f.name in needed] for v in catalogue.views}
        self.stored = {view: names for view, names in kept.items() if names}
        self.views = [v for v in catalogue.views if v.name in self.stored]
        self.keys = {key: kind for key, kind in catalogue.key_types.items() if any(key in v.keys for v in self.views)}

    def read(
        self, lookup: LookUp, asked: Mapping[str, Any], at: datetime
    ) -> tuple[dict[str, Any], datetime, list[str]]:
        """Return the features for a request at an instant, in order, their snapshot, and the defaulted.

        Raises
        ------
        UnknownEntity, BadRequest, NotOnline
            As `LookUp.read`; also where the request carries a value of another type, or the store holds one.
        """
        keys = {key: asked[key] for key in self.keys}
        carried = self._carried(asked, at)
        values, snapshot, defaults = lookup.read(self.stored, self.views, keys, at)
        for view, types in self.demands.items():
            inputs = {name: [carried[name] if name in view.request else values[name]] for name in types}
            try:
                computed = view.compute(inputs, types, strict=True)
            except TypeError as e:
                raise NotOnline(FOREIGN, where=named(keys), found=e) from e
            values |= {name: column[0] for name, column in computed.items()}
            for feature in view.features if defaults else ():
                defaults += [feature.name] if {*feature.reads} & {*defaults} else []
        return {name: values[name] for name in self.features}, snapshot, [n for n in self.features if n in defaults]

    def _carried(self, asked: Mapping[str, Any], at: datetime) -> dict[str, Any]:
        """Return what on-demand views take from a request, its instant among it."""
        carried = {name: at for view in self.demands for name, kind in view.request.items() if kind == INSTANT}
        for name, kind in self.request.items():
            try:
                carried[name] = pl.Series([asked[name]], dtype=kind)[0]
            except TypeError:
                given = repr(asked[name])
                raise BadRequest("a value of another type", where=name, expected=kind, found=given) from None
        return carried
