"""The words in which features are defined, once: everything else about a feature follows from these objects.

The names are Feast's (entity, source, view, on-demand view, service) and the formulas are plain Polars.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl

from lockstep.agg import NEVER_NULL, Aggregation
from lockstep.clock import INSTANT
from lockstep.errors import DefinitionError, did_you_mean
from lockstep.exact import check_exact, check_row_level, renamed

__all__ = [
    "Entity",
    "Feature",
    "FittedView",
    "OnDemandView",
    "Question",
    "Service",
    "Source",
    "View",
    "source",
]

FITTED_AT = "fitted_at"
"""The column from which a formula of a FittedView reads the instant of the fit: the version of its values."""

RESERVED = {"event_timestamp", "created", "event_day", "cutoff", "part", "label", FITTED_AT}
"""Names of columns that stand beside features."""

GAP = "gap"

VERSION = re.compile(r"_v[0-9]+$")
"""The end of a name that a version above 1 gets, and nobody else may write."""

ASKABLE = (pl.Int64(), pl.Int32(), pl.Float64(), pl.String(), pl.Boolean(), INSTANT)
"""What a request can carry."""

Frames = Mapping[str, pl.LazyFrame]


@dataclass(frozen=True)
class Entity:
    """What features are about, named by its join key."""

    name: str
    key: str
    description: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """Events derived from raw tables by a pure function of the rows that are known.

    Parameters
    ----------
    name
        The function's name.
    tables
        The raw tables it reads: the names of the function's parameters.
    derive
        The function: known rows, one LazyFrame a table, in; events, one row each, out.
    event_time
        The events' instant column.
    key
        The columns that identify an event; they break ties in time.
    causal
        Whether cutting the rows at any day and deriving gives the same as deriving and cutting the events. It allows
        one derivation for all days where nothing landed late; it is checked whenever it is used.
    within_day
        Whether the events of a day follow from the rows that landed on it alone, and from tables without an event time.
        Then a new day costs that day. It says more than `causal` and is checked likewise.
    gap_of
        The column of an entity. Each event then has ``gap``: the microseconds since the event before it of the same
        entity, null for its first. It looks back beyond the day without costing the history.
    """

    name: str
    tables: tuple[str, ...]
    derive: Callable[..., pl.LazyFrame]
    event_time: str
    key: tuple[str, ...]
    causal: bool = False
    within_day: bool = False
    gap_of: str | None = None

    def __call__(self, tables: Frames) -> pl.LazyFrame:
        """Return the events of the known rows in `tables`."""
        return self.with_gaps(self.derive(**{t: tables[t] for t in self.tables}))

    def with_gaps(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Add ``gap`` to all events known, where the source asks for it."""
        if self.gap_of is None:
            return events
        gap = pl.col(self.event_time).diff().over(self.gap_of, order_by=[self.event_time, *self.key])
        return events.with_columns(gap.dt.total_microseconds().alias(GAP))


def source(
    *,
    event_time: str,
    key: str | tuple[str, ...],
    causal: bool = False,
    within_day: bool = False,
    gap_of: str | None = None,
) -> Callable[[Callable[..., pl.LazyFrame]], Source]:
    """Turn a function whose parameters are raw tables into a Source of its events."""

    def wrap(derive: Callable[..., pl.LazyFrame]) -> Source:
        tables = tuple(inspect.signature(derive).parameters)
        columns = (key,) if isinstance(key, str) else key
        return Source(derive.__name__, tables, derive, event_time, columns, causal, within_day, gap_of)

    return wrap


@dataclass(frozen=True, eq=False)
class Feature:
    """A named value: an aggregation of events, or a Polars formula over features that stand before it.

    Of a FittedView, whose values come out of a fit, `value` is a type such as ``pl.Array(pl.Float64, 8)``.

    Parameters
    ----------
    range
        The lowest and the highest value, both allowed; None is open. Counts are never below 0 without being told.
    nullable
        False where a null is a fault. Counts, sums and numbers of different values are never null without being told.
    default
        What follows where a view with ``missing="default"`` has no row; None is a null, `...` that nothing is declared.
    owner
        Whose it is, where that is not the view's owner.

    None of them shapes what is stored: kept days stay, and are judged anew.
    """

    name: str
    value: Aggregation | pl.Expr | pl.DataType
    description: str = ""
    range: tuple[float | None, float | None] = (None, None)
    nullable: bool | None = None
    default: object = ...
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _instance(self.value))
        if isinstance(self.value, pl.Expr):
            check_exact(self.value, self.name)
            check_row_level(self.value, self.name)
        low, high = self.range
        if low is not None and high is not None and low > high:
            raise DefinitionError("a range without values", where=f"feature {self.name}", found=f"{low} .. {high}")

    @property
    def never_null(self) -> bool:
        """Tell whether a null would be a fault."""
        zero = isinstance(self.value, Aggregation) and self.value.kind in NEVER_NULL
        return zero or self.nullable is False

    @property
    def reads(self) -> list[str]:
        """Return the features that the formula reads; none for an aggregation."""
        return self.value.meta.root_names() if isinstance(self.value, pl.Expr) else []

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Return the lowest and the highest value that the feature may have."""
        count = isinstance(self.value, Aggregation) and self.value.kind in ("count", "distinct")
        return (0 if count and self.range[0] is None else self.range[0], self.range[1])


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
        _keyed(self.entities, f"view {self.name}")
        if self.missing not in ("null", "default", "refuse"):
            raise DefinitionError(
                f"missing={self.missing!r}", where=f"view {self.name}", expected="null, default or refuse"
            )
        self._versioned()
        self._flagged()
        _unique([*self.keys, *(f.name for f in self.features)], f"view {self.name}")
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
        if not isinstance(self.version, int) or self.version < 1:
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
        if self.missing == "null":
            return
        for f in self.features if self.missing == "default" else []:
            if f.default is ... or (f.default is None and f.never_null):
                raise DefinitionError(
                    "no default", where=f"feature {f.name} of view {self.name}", expected="one for each feature",
                    found=f.default, do="Give it `default=`; None is a null, where the feature may be one.",
                )  # fmt: skip
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


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedView(View):
    """Stored features that come out of a fit, such as a vector per key; fitted anew every so often, on the past alone.

    A snapshot holds the fit of what was known at the start of its period, so late rows count from the next fit on. It
    has a row for every entity ever seen, with nulls where the fit has none.

    Parameters
    ----------
    fit
        ``(events known on the day, day) -> keys and features``: a pure function, a row for each of their entities.
        It gives the same bits on any machine and number of threads, or it rounds to what it can keep. Without any
        events it is not called.
    every
        The period, in Polars' words: ``1mo`` begins on the first day of a month, ``1w`` on a Monday.
    """

    fit: Callable[[pl.DataFrame, date], pl.DataFrame]
    every: str = "1mo"
    holds: ClassVar[type] = pl.DataType

    def __post_init__(self) -> None:
        super().__post_init__()
        if not inspect.isfunction(self.fit):
            raise DefinitionError("not a function", where=f"fit of view {self.name}", found=repr(self.fit))
        if not re.fullmatch(r"[1-9][0-9]*(d|w|mo|q|y)", self.every):
            raise DefinitionError(
                "not a period",
                where=f"view {self.name}, every",
                expected="such as '1mo' or '1w'",
                found=repr(self.every),
            )

    def as_of(self, day: date) -> date:
        """Return the day of the fit that snapshot `day` holds: the first of its period."""
        first: date = pl.Series([day]).dt.truncate(self.every).item()
        return first

    def fitted(self) -> dict[str, pl.DataType]:
        """Return the features that come out of the fit, with their types."""
        return {f.name: f.value for f in self.features if isinstance(f.value, pl.DataType)}

    def refit(self, known: pl.DataFrame, day: date) -> pl.DataFrame:
        """Return what the fit gives, under the names of this version."""
        return self.fit(known, day).rename({n.removesuffix(self._ending): n for n in self.fitted()}, strict=False)


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
        self._check_request()
        _unique([*self.request, *(f.name for f in self.features)], f"on-demand view {self.name}")
        for view in self.views:
            if view.dropped:
                raise DefinitionError(
                    f"view {view.name} was dropped", where=f"on-demand view {self.name}", do=sentence(view.dropped)
                )
        known = {f.name for v in self.views for f in v.features} | set(self.request)
        used: set[str] = set()
        for feature in self.features:
            if not isinstance(feature.value, pl.Expr):
                raise DefinitionError("an aggregation at request time", where=f"feature {feature.name}", do="Store it.")
            if feature.default is not ...:
                raise DefinitionError(
                    "a default at request time", where=f"feature {feature.name}", do="Give one to what it reads."
                )
            for name in feature.value.meta.root_names():
                if name not in known:
                    raise DefinitionError(
                        f"unknown column {name!r}", where=f"feature {feature.name}", do=did_you_mean(name, known)
                    )
                used.add(name)
            known.add(feature.name)
        used |= {v.known for v in self.views if v.missing == "default" and any(f.name in used for f in v.features)}
        object.__setattr__(self, "_stored", frozenset(used - set(self.request) - {f.name for f in self.features}))

    def _check_request(self) -> None:
        """Refuse what a request cannot carry, or what would be another value offline than online."""
        where = f"on-demand view {self.name}"
        object.__setattr__(self, "request", {name: _instance(kind) for name, kind in self.request.items()})
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


@dataclass(frozen=True)
class Service:
    """A named set of features: what a model version reads."""

    name: str
    features: tuple[str, ...] | list[str]
    description: str = ""

    def __post_init__(self) -> None:
        _unique(list(self.features), f"service {self.name}")


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of entities, on a day or at an event: who is asked about, and what the answer turned out to be.

    Parameters
    ----------
    entities
        Who is asked about, the first above all: intervals are drawn over it.
    population
        ``(events known on the day, day) -> keys``: read from the past alone. With `moment` ``"event"`` the events of
        the day itself stand behind those, as they landed with it, to be replayed as requests: it gives of them the
        keys, the source's key, its event time and what the request carries, none of it from later ones of the day.
    label
        ``(population with its cutoff, events of the horizon) -> the columns of `row` with label (Int8)``: the only
        thing that looks forward.
    horizon_days
        The calendar days that the label looks ahead, the cut-off day itself included.
    moment
        ``"day"`` asks at the first instant of each cut-off day, ``"event"`` at each of its events.
    """

    name: str
    entities: tuple[Entity, ...] | list[Entity]
    source: Source
    horizon_days: int
    population: Callable[[pl.LazyFrame, date], pl.LazyFrame]
    label: Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]
    description: str = ""
    moment: Literal["day", "event"] = "day"

    def __post_init__(self) -> None:
        _keyed(self.entities, where := f"question {self.name}")
        if self.moment not in ("day", "event"):
            raise DefinitionError(f"moment={self.moment!r}", where=where, expected="day or event")
        if self.horizon_days < 1:
            raise DefinitionError("a label without a day", where=where, expected="horizon_days >= 1")

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns that identify who is asked about, in the order of the entities."""
        return tuple(e.key for e in self.entities)

    @property
    def row(self) -> tuple[str, ...]:
        """Return the columns that identify a row of a cut-off: the keys, and where events ask, those of the event."""
        return tuple(dict.fromkeys([*self.keys, *(self.source.key if self.moment == "event" else ())]))


def _keyed(entities: Sequence[Entity], where: str) -> None:
    keys = [e.key for e in entities]
    if not keys or len(set(keys)) < len(keys):
        raise DefinitionError("entities without keys of their own", where=where, found=keys, do="Name each once.")


def _unique(names: list[str], where: str) -> None:
    for name in names:
        if name in RESERVED:
            raise DefinitionError(f"{name!r} is a name of Lockstep's own", where=where, do="Choose another.")
        if names.count(name) > 1:
            raise DefinitionError(f"feature {name!r} is defined twice", where=where, do="Rename one of them.")


def _reading(
    value: Aggregation | pl.Expr | pl.DataType, names: Mapping[str, str]
) -> Aggregation | pl.Expr | pl.DataType:
    return renamed(value, names) if isinstance(value, pl.Expr) else value


def _instance(kind: Any) -> Any:
    """Return ``pl.Int64()`` for ``pl.Int64``; a class that needs parameters stays one, to be refused."""
    try:
        return kind() if isinstance(kind, type) and issubclass(kind, pl.DataType) else kind
    except TypeError:
        return kind


def sentence(text: str) -> str:
    """Return what a user wrote as a sentence: ``use trips v2`` -> ``Use trips v2.``."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
