"""A snapshot: the features of a view as known at the start of a day, a pure function of the rows known on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import polars as pl

from lockstep.agg import EVENT_DAY, NEVER_NULL
from lockstep.clock import INSTANT, Zone
from lockstep.define import FITTED_AT, FittedView, View
from lockstep.errors import DefinitionError, did_you_mean
from lockstep.feature_contract import broken, check_values, formula_schema
from lockstep.fitted import fitted
from lockstep.timeline import Timeline

__all__ = ["CREATED", "EVENT_TIMESTAMP", "feature_schema", "judge", "shaped", "snapshot", "snapshots"]

EVENT_TIMESTAMP = "event_timestamp"
CREATED = "created"
STAMPS = (EVENT_TIMESTAMP, CREATED)
TOGETHER = 250_000
"""Rows that are computed at once: whole days, one at least."""


def feature_schema(view: View, events: pl.Schema) -> pl.Schema:
    """Return the types of a view's features, in order.

    Raises
    ------
    DefinitionError
        A feature reads an unknown event column or feature, sums something that is not an integer, or declares a range
        or default that its type cannot have.
    """
    for name, aggregation in view.aggregations():
        aggregation.check(events, name)
    for key in view.keys:
        if key not in events:
            raise DefinitionError(
                f"no key {key!r} in the events", where=f"view {view.name}, source {view.source.name}",
                do=did_you_mean(key, events),
            )  # fmt: skip
    known = {*view.keys, EVENT_TIMESTAMP, *([FITTED_AT] if isinstance(view, FittedView) else [])}
    every = [f.name for f in view.features]
    for feature in view.features:
        if isinstance(feature.value, pl.Expr):
            for name in feature.value.meta.root_names():
                if name not in known:
                    later = f"Move {name} before {feature.name}." if name in every else did_you_mean(name, known)
                    raise DefinitionError(f"unknown feature {name!r}", where=f"feature {feature.name}", do=later)
        known.add(feature.name)
    if isinstance(view, FittedView):
        values = pl.LazyFrame(schema={**{key: events[key] for key in view.keys}, **view.fitted(), FITTED_AT: INSTANT})
    else:
        values = _aggregates(view, pl.LazyFrame(schema=events), date(2000, 1, 1))
    return formula_schema(values.with_columns(pl.lit(None, INSTANT).alias(EVENT_TIMESTAMP)), view.features)


def snapshot(view: View, events: pl.DataFrame, entities: pl.DataFrame, day: date, zone: Zone) -> pl.DataFrame:
    """Return snapshot `day` of a view.

    Parameters
    ----------
    events
        The events known on ``view.as_of(day)``, in order of time and key, with EVENT_DAY.
    entities
        Every entity ever seen by then, the view's keys, sorted: an entity without events gets an empty row.

    Returns
    -------
    DataFrame
        The keys, ``event_timestamp`` (the first instant of `day`, UTC), ``created`` (the last landing day that was
        known, as an instant: an ordinal, not a clock) and the features, sorted by the keys.

    Raises
    ------
    DefinitionError
        A feature is infinite or not a number.
    DataError
        A feature is out of its range, or null where it never is.
    """
    if isinstance(view, FittedView):
        return shaped(view, fitted(view, events, view.as_of(day)).lazy(), entities, day, zone)
    return shaped(view, _aggregates(view, events.lazy(), day), entities, day, zone)


def shaped(view: View, values: pl.LazyFrame, entities: pl.DataFrame, day: date, zone: Zone) -> pl.DataFrame:
    """Return a snapshot of the values that aggregations or a fit gave for some of the entities."""
    rows = entities.lazy().join(values, on=view.keys, how="left", maintain_order="left")
    zero = [f for f, a in view.aggregations() if a.kind in NEVER_NULL]
    rows = rows.with_columns(pl.col(zero).fill_null(0)) if zero else rows
    stamps = dict(zip(STAMPS, _stamps(day, zone), strict=True)) | {FITTED_AT: zone.start(view.as_of(day))}
    try:
        frame = _finished(view, rows.with_columns(pl.lit(at, INSTANT).alias(n) for n, at in stamps.items()))
    except pl.exceptions.InvalidOperationError as e:
        raise _does_not_fit(view, day, e) from e
    judge(view, day, frame)
    return frame


def snapshots(
    view: View, events: pl.DataFrame, seen: pl.DataFrame, wanted: Sequence[date], zone: Zone
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Yield each of the `wanted` days with its snapshot: bit by bit what `snapshot` gives, at a fraction of its cost.

    Parameters
    ----------
    events
        All events of a source that is settled and causal, in order of time and key, with EVENT_DAY.
    seen
        Every entity, sorted, with the first day it landed: the view's keys, ``_seen`` (Date).
    """
    keys, landed = seen.select(view.keys), seen["_seen"].to_numpy()
    timelines = _timelines(view, events, keys, wanted)

    def together(some: Sequence[date]) -> Iterator[tuple[date, pl.DataFrame]]:
        numbers = [np.flatnonzero(landed < np.datetime64(day)) for day in some]
        heights = [len(n) for n in numbers]
        stamps = pl.DataFrame([_stamps(day, zone) for day in some], schema=dict.fromkeys(STAMPS, INSTANT), orient="row")
        try:
            aggregates = [t.aggregates(list(zip(some, numbers, strict=True))) for t in timelines]
            entities, stamped = keys[np.concatenate(numbers)], stamps[np.repeat(range(len(some)), heights)]
            rows = _finished(view, pl.concat([entities, stamped, *aggregates], how="horizontal").lazy())
        except pl.exceptions.InvalidOperationError as e:
            if len(some) == 1:
                raise _does_not_fit(view, some[0], e) from e
            for day in some:  # one of them
                yield from together([day])
            return
        suspect = broken(rows, view.features)
        for day, height, end in zip(some, heights, np.cumsum(heights), strict=True):
            frame = rows.slice(int(end) - height, height)
            if suspect:
                judge(view, day, frame)
            yield day, frame

    step = max(1, TOGETHER // max(1, seen.height))
    for n in range(0, len(wanted), step):
        yield from together(wanted[n : n + step])


def _timelines(view: View, events: pl.DataFrame, entities: pl.DataFrame, wanted: Sequence[date]) -> list[Timeline]:
    """Lay all events out for lifetimes, and for windows those that are not too old for any of the `wanted` days."""
    lifetimes = [(name, a) for name, a in view.aggregations() if a.days is None]
    windows = [(name, a) for name, a in view.aggregations() if a.days is not None]
    longest = max((a.offset + (a.days or 0) for _, a in windows), default=0)
    recent = events.filter(pl.col(EVENT_DAY) >= min(wanted) - timedelta(days=longest)) if wanted else events
    return [Timeline(some, entities, asked) for some, asked in ((events, lifetimes), (recent, windows)) if asked]


def _stamps(day: date, zone: Zone) -> tuple[datetime, datetime]:
    """Return the instants that a snapshot carries, as STAMPS names them."""
    return zone.start(day), datetime.combine(day - timedelta(days=1), time.min, UTC)


def _finished(view: View, rows: pl.LazyFrame) -> pl.DataFrame:
    """Add the formulas to aggregates and choose the columns."""
    return _formulas(view, rows).select(*view.keys, *STAMPS, *(f.name for f in view.features)).collect()


def _does_not_fit(view: View, day: date, error: Exception) -> DefinitionError:
    return DefinitionError(
        "a value that its type cannot hold", where=f"view {view.name}, snapshot {day}",
        found=str(error).splitlines()[0], do="Sums are Int64: use a larger unit, or aggregate less.",
    )  # fmt: skip


def judge(view: View, day: date, frame: pl.DataFrame) -> None:
    """Judge a snapshot by what its features promise; raise DataError or DefinitionError where one is broken."""
    check_values(frame, view.features, view.keys, f"view {view.name}, snapshot {day}")


def _aggregates(view: View, events: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Aggregate events, in time order, by entity."""
    grouped = events.group_by(view.keys, maintain_order=True)
    return grouped.agg(a.expr(day).alias(name) for name, a in view.aggregations())


def _formulas(view: View, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Add the formulas, each of which may read the ones before it."""
    for name, formula in view.formulas():
        frame = frame.with_columns(formula.alias(name))
    return frame
