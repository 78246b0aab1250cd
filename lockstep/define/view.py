"""Views: stored features of entities, one snapshot a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl

from lockstep.agg import Aggregation
from lockstep.define.entity import Entity, keyed
from lockstep.define.feature import Feature
from lockstep.define.names import VERSION, check_kinds, shown, unique
from lockstep.define.source import Source
from lockstep.errors import DefinitionError
from lockstep.exact import renamed

__all__ = ["View"]


@dataclass(frozen=True, eq=False)
class View:
    """Stored features of an entity, one snapshot a day.

    Parameters
    ----------
    name, version
        A changed feature is a new version, kept beside the old one while a model reads it. The view and its features
        are written under plain names; those of version N > 1 get ``_vN``, by which all others call them.
    entities, source
        Whose features, from which events. Features of several entities together, such as a household in a store, are
        keyed by all of them.
    features
        In order; a formula may read the ones before it, and ``event_timestamp``, the instant at which the snapshot's
        day begins: ``elapsed_days("last_trip_at", "event_timestamp")``.
    ttl_days
        For how many calendar days a value may be read; at least one, the step of the grid.
    missing
        What follows where there is no row of an entity, or one past its lifetime: ``null``, each feature's ``default``,
        or ``refuse``. Unless it is ``null``, a feature of its own, ``<name>_known``, tells true rows from such.
    deprecated, dropped
        What to use instead. A deprecated view is computed and announced; a dropped one is not, and nobody may read it.
    """

    name: str
    entities: tuple[Entity, ...] | list[Entity]
    source: Source
    features: tuple[Feature, ...] | list[Feature]
    ttl_days: int
    version: int = 1
    owner: str = ""
    description: str = ""
    missing: Literal["null", "default", "refuse"] = "null"
    deprecated: str = ""
    dropped: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    _written: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    """What was written, by the name and the features that were made of it: `replace` starts from there."""
    holds: ClassVar[type] = Aggregation
    """What a feature's value is, if it is no formula."""

    def __post_init__(self) -> None:
        check_kinds(self, where := f"view {self.name}")
        keyed(self.entities, where)
        self._versioned()
        self._flagged()
        unique([*self.keys, *(f.name for f in self.features)], f"view {self.name}")
        if self.ttl_days < 1:
            raise DefinitionError(
                "ttl below the grid", where=f"view {self.name}", expected=">= 1 day", found=self.ttl_days
            )
        for feature in self.features:
            if not isinstance(feature.value, self.holds | pl.Expr):
                raise DefinitionError(
                    "a value of another kind of view", where=f"feature {feature.name} of view {self.name}",
                    expected=f"{self.holds.__name__} or a formula", found=repr(feature.value),
                    do="A View holds aggregations, a FittedView types: pl.Int64(), pl.Array(pl.Float64, 8).",
                )  # fmt: skip

    def as_of(self, day: date) -> date:
        """Return the day whose known rows give the values of snapshot `day`."""
        return day

    def _versioned(self) -> None:
        """Give the names of a version above 1 their ending, in formulas as well."""
        if self.version < 1:
            raise DefinitionError("not a version", where=f"view {self.name}", expected=">= 1", found=self.version)
        name = self._written.get(self.name, self.name)
        flags = {f.name for f, plain in self._written.items() if plain is None}
        features = [self._written.get(f, f) for f in self.features if f.name not in flags]
        names = {f.name: f.name + self._ending for f in features}
        for plain in (name, *names):
            if VERSION.search(plain):
                raise DefinitionError(
                    f"{plain!r} ends like a version", where=f"view {name}", do="Write plain names and `version`."
                )
        made = [replace(f, name=names[f.name], value=_reading(f.value, names)) for f in features]
        made = made if self._ending else features
        object.__setattr__(self, "name", name + self._ending)
        object.__setattr__(self, "features", made)
        object.__setattr__(self, "_written", {self.name: name, **dict(zip(made, features, strict=True))})

    @property
    def _ending(self) -> str:
        return f"_v{self.version}" if self.version > 1 else ""

    def _flagged(self) -> None:
        """Add the feature that is true where there is a row, for views that tell so."""
        for f in self.features:
            where = f"feature {f.name} of view {self.name}"
            if self.missing != "default" and f.default is not ...:
                raise DefinitionError(
                    "a default that nothing reads", where=where, found=shown(f.default),
                    do='Say missing="default" in the view and give each feature one, or remove it.',
                )  # fmt: skip
            if self.missing == "default" and (f.default is ... or (f.default is None and f.never_null)):
                raise DefinitionError(
                    "no default", where=where, expected="one for each feature", found=shown(f.default),
                    do="Give it `default=`; None is a null, where the feature may be one.",
                )  # fmt: skip
        if self.missing == "null":
            return
        told = f"whether {self.name} has a row that may still be read"
        flag = Feature(self.known, pl.lit(value=True), told, nullable=False, default=False)
        object.__setattr__(self, "features", [*self.features, flag])
        object.__setattr__(self, "_written", {**self._written, flag: None})

    @property
    def known(self) -> str:
        """Return the name of the feature that tells rows from what stands in for them."""
        return f"{self.name.removesuffix(self._ending)}_known{self._ending}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns that identify a row of a snapshot, in the order of the entities."""
        return tuple(e.key for e in self.entities)

    @property
    def whose(self) -> str:
        """Return whose features these are, for people: ``household x store``."""
        return " x ".join(e.name for e in self.entities)

    @property
    def folder(self) -> str:
        """Return the folder of the view's snapshots below ``features/``."""
        return f"{self.name.removesuffix(self._ending)}/v{self.version}"

    @property
    def status(self) -> str:
        """Return ``live``, ``deprecated`` or ``dropped``."""
        return "dropped" if self.dropped else "deprecated" if self.deprecated else "live"

    def stand_in(self) -> dict[str, object]:
        """Return what stands in for a row that is not there, by feature."""
        return {f.name: f.default if self.missing == "default" else None for f in self.features}

    def fill(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Put defaults where the view has no row, into those of its features that a joined `frame` has."""
        if self.missing != "default":
            return frame
        names, known = frame.collect_schema().names(), pl.col(self.known).fill_null(value=False)
        return frame.with_columns(
            pl.when(known).then(pl.col(name)).otherwise(pl.lit(value)).alias(name)
            for name, value in self.stand_in().items()
            if name in names
        )

    def aggregations(self) -> list[tuple[str, Aggregation]]:
        """Return the features that aggregate events."""
        return [(f.name, f.value) for f in self.features if isinstance(f.value, Aggregation)]

    def formulas(self) -> list[tuple[str, pl.Expr]]:
        """Return the features that are formulas over others."""
        return [(f.name, f.value) for f in self.features if isinstance(f.value, pl.Expr)]


def _reading(
    value: Aggregation | pl.Expr | pl.DataType, names: Mapping[str, str]
) -> Aggregation | pl.Expr | pl.DataType:
    return renamed(value, names) if isinstance(value, pl.Expr) else value
