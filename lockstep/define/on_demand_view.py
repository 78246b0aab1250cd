"""On-demand views: features of the moment of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from lockstep.clock import INSTANT
from lockstep.define.feature import Feature, instance
from lockstep.define.names import check_kinds, sentence, unique
from lockstep.define.view import View
from lockstep.errors import DefinitionError

__all__ = ["ASKABLE", "OnDemandView"]

ASKABLE = (pl.Int64(), pl.Int32(), pl.Float64(), pl.String(), pl.Boolean(), INSTANT)
"""What a request can carry."""


@dataclass(frozen=True, eq=False)
class OnDemandView:
    """Features of the moment of the request: formulas over stored features and what the request carries.

    An instant in `request`, one at most, is that of the request itself. The same Polars expressions run in training and
    in service. They may use + - x, `ratio`, comparisons and calendar functions of instants, so that every engine gives
    the same bits.
    """

    name: str
    views: tuple[View, ...] | list[View]
    request: Mapping[str, pl.DataType]
    features: tuple[Feature, ...] | list[Feature]
    owner: str = ""
    description: str = ""
    _stored: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        check_kinds(self, f"on-demand view {self.name}")
        self._check_request()
        unique([*self.request, *(f.name for f in self.features)], f"on-demand view {self.name}")
        for view in self.views:
            if view.dropped:
                raise DefinitionError(
                    f"view {view.name} was dropped", where=f"on-demand view {self.name}", do=sentence(view.dropped)
                )
        used = {name for feature in self.features for name in feature.reads}
        for feature in self.features:
            if not isinstance(feature.value, pl.Expr):
                raise DefinitionError("an aggregation at request time", where=f"feature {feature.name}", do="Store it.")
            if feature.default is not ...:
                raise DefinitionError(
                    "a default at request time", where=f"feature {feature.name}", do="Give one to what it reads."
                )
        used |= {v.known for v in self.views if v.missing == "default" and any(f.name in used for f in v.features)}
        object.__setattr__(self, "_stored", frozenset(used - set(self.request) - {f.name for f in self.features}))

    def _check_request(self) -> None:
        """Refuse what a request cannot carry, or what would be another value offline than online."""
        where = f"on-demand view {self.name}"
        object.__setattr__(self, "request", {name: instance(kind) for name, kind in self.request.items()})
        for name, kind in self.request.items():
            if kind not in ASKABLE or (name == "at" and kind != INSTANT):
                expected = "the request's instant" if name == "at" else ", ".join(map(str, ASKABLE))
                raise DefinitionError(f"no type of the request's {name!r}", where=where, expected=expected, found=kind)
        if len(instants := [name for name, kind in self.request.items() if kind == INSTANT]) > 1:
            raise DefinitionError(
                "two instants in a request", where=where, expected="one, that of the request", found=instants,
                do="Carry another as an integer, such as its microseconds.",
            )  # fmt: skip

    @property
    def widest(self) -> View:
        """Return the view whose rows name every entity that the formulas are about."""
        widest = max(self.views, key=lambda view: len(view.keys))
        if missing := {key for view in self.views for key in view.keys} - {*widest.keys}:
            raise DefinitionError(
                "features of entities that no view has together", where=f"on-demand view {self.name}",
                found=", ".join(sorted(missing)), do="Read a view keyed by all of them, or split it.",
            )  # fmt: skip
        return widest

    def inputs(self, view: View) -> list[str]:
        """Return the stored features of `view` that the formulas read, and the flag by which defaults stand in."""
        return [f.name for f in view.features if f.name in self._stored]

    def apply(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Add the features, in order, to a frame of stored features and request columns; defaults are put in first."""
        for view in self.views:
            if self.inputs(view):
                frame = view.fill(frame)
        for feature in self.features:
            if isinstance(feature.value, pl.Expr):
                frame = frame.with_columns(feature.value.alias(feature.name))
        return frame

    def compute(
        self, inputs: Mapping[str, Sequence[object]], types: Mapping[str, pl.DataType], *, strict: bool = False
    ) -> dict[str, list[object]]:
        """Compute the features from columns of plain values: what Feast calls, offline and online.

        With `strict` a value of another type is a TypeError; otherwise it is bent to its column's, as Feast's are.
        """
        columns = [pl.Series(name, inputs[name], dtype=kind, strict=strict) for name, kind in types.items()]
        return (
            self.apply(pl.LazyFrame(columns)).select(f.name for f in self.features).collect().to_dict(as_series=False)
        )
