"""Snapshots: every feature of a view as it was known at the start of a day. The DVC stage `features`.

A snapshot is a pure function of the rows known on its day, so it never changes once the days before it are sealed. Days
computed before are kept outside DVC, under a key of everything that shapes them; only new days are computed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from lockstep.agg import EVENT_DAY, NEVER_NULL
from lockstep.alone import alone
from lockstep.clock import INSTANT, Zone
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.day_cache import DayCache, Hashes, Kept, day_keys
from lockstep.define import FITTED_AT, FittedView, View
from lockstep.errors import DataError, DefinitionError, did_you_mean
from lockstep.events import Events, event_schema, read_tables
from lockstep.feature_contract import broken, check_definition, check_values
from lockstep.files import read_json, read_parquet, tree_hash, write_json, write_text
from lockstep.fingerprint import changes, digest, kept_events, view_parts
from lockstep.fitted import fitted
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import Project, project
from lockstep.stage import progress, stage
from lockstep.timeline import Timeline, fits

__all__ = ["CREATED", "EVENT_TIMESTAMP", "Built", "build", "feature_schema", "snapshot", "snapshots"]

EVENT_TIMESTAMP = "event_timestamp"
CREATED = "created"
STAMPS = (EVENT_TIMESTAMP, CREATED)
HASHES = "state/hashes.json"
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
    shaped = _formulas(view, values.with_columns(pl.lit(None, INSTANT).alias(EVENT_TIMESTAMP)))
    schema = shaped.select(f.name for f in view.features).collect_schema()
    for feature in view.features:
        check_definition(feature, schema[feature.name])
    return schema


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
        return _shaped(view, fitted(view, events, view.as_of(day)).lazy(), entities, day, zone)
    return _shaped(view, _aggregates(view, events.lazy(), day), entities, day, zone)


def _shaped(view: View, values: pl.LazyFrame, entities: pl.DataFrame, day: date, zone: Zone) -> pl.DataFrame:
    """Return a snapshot of the values that aggregations or a fit gave for some of the entities."""
    rows = entities.lazy().join(values, on=view.keys, how="left", maintain_order="left")
    zero = [f for f, a in view.aggregations() if a.kind in NEVER_NULL]
    rows = rows.with_columns(pl.col(zero).fill_null(0)) if zero else rows
    stamps = dict(zip(STAMPS, _stamps(day, zone), strict=True)) | {FITTED_AT: zone.start(view.as_of(day))}
    try:
        frame = _finished(view, rows.with_columns(pl.lit(at, INSTANT).alias(n) for n, at in stamps.items()))
    except pl.exceptions.InvalidOperationError as e:
        raise _does_not_fit(view, day, e) from e
    _check(view, day, frame)
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
                _check(view, day, frame)
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


def _check(view: View, day: date, frame: pl.DataFrame) -> None:
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


class Built(NamedTuple):
    """What building a view came to: its files by day, and the days that had to be computed."""

    view: View
    kept: dict[date, Kept]
    computed: list[date]

    @property
    def rows(self) -> int:
        """Return the rows of all snapshots."""
        return sum(k.rows for k in self.kept.values())


def build(view: View, events: Events, keys: Mapping[date, str], out: Path, cache: DayCache) -> Built:
    """Write a view's snapshots of the days in `keys` to ``out/<day>.parquet``, computing what the cache lacks."""
    out.mkdir(parents=True, exist_ok=True)
    kept = {day: found for day, key in keys.items() if (found := cache.find(day, key))}
    missing = [day for day in keys if day not in kept]
    _judge_kept(view, kept, cache.folder / "judged")

    def copy(day: date) -> None:  # a copy: DVC may link and protect its outputs
        shutil.copyfile(kept[day].path, out / f"{day}.parquet")

    with ThreadPoolExecutor(1) as beside:  # what is there is copied while the rest is computed
        copies = [beside.submit(copy, day) for day in kept]
        for day, frame in progress(_computed(view, events, missing, kept), f"features {view.name}", len(missing)):
            kept[day] = cache.keep(day, keys[day], frame)
            copies.append(beside.submit(copy, day))
    for done in copies:
        done.result()
    cache.sweep(kept.values())
    return Built(view, kept, missing)


def _judge_kept(view: View, kept: Mapping[date, Kept], file: Path) -> None:
    """Judge the days that were kept, where ranges and nulls are declared otherwise than when they were computed."""
    said = "\n".join(f"{f.name} {f.bounds} {f.never_null}" for f in view.features)
    if not file.is_file() or file.read_text(encoding="utf-8") != said:
        for day, k in kept.items():
            _check(view, day, read_parquet(k.path))
    write_text(said, file)


def _computed(
    view: View, events: Events, missing: list[date], kept: Mapping[date, Kept]
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Yield each missing day with its snapshot: one alone by the definition, which costs less than a timeline."""
    if not missing:
        return
    if isinstance(view, FittedView):
        yield from _refitted(view, events, missing, kept)
        return
    many = len(missing) > 1 and events.short
    if many and fits(view.aggregations(), (known := events.known(missing[-1])).schema):
        yield from snapshots(view, known, events.seen(view.keys), missing, events.zone)
        return
    for day in missing:
        yield day, snapshot(view, events.known(day), events.entities(view.keys, day), day, events.zone)


def _refitted(
    view: FittedView, events: Events, missing: list[date], kept: Mapping[date, Kept]
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Yield each missing day, fitted once a period: any day of it that is kept holds the fit of all."""
    for refit, days in groupby(missing, view.as_of):
        same = next((k for day, k in kept.items() if view.as_of(day) == refit), None)
        found = read_parquet(same.path) if same else fitted(view, events.known(refit), refit)
        values = found.lazy().select(*view.keys, *view.fitted())
        for day in days:
            yield day, _shaped(view, values, events.entities(view.keys, day), day, events.zone)


def build_all(p: Project) -> None:
    """Build every view of a project into ``artifacts/features`` and describe them in ``artifacts/features.json``."""
    with alone(p.root, "features"):
        _build_all(p)


def _build_all(p: Project) -> None:
    zone, contracts = p.settings.clock, load_contracts(p.folder("contracts"))
    views = [v for v in p.objects("views", View) if not v.dropped]
    schemas = {v.name: feature_schema(v, event_schema(v.source, contracts, zone)) for v in views}
    landings = read_landings(p.root / "landings.csv")
    first, last = snapshot_days(landings, [c.table for c in contracts.values() if c.calendar == "daily"])
    out, beside, hashes = p.root / "artifacts/features", p.root / "artifacts/.features", Hashes(p.root / HASHES)
    names = tuple(dict.fromkeys(t for v in views for t in v.source.tables))
    tables = read_tables(p.root / "artifacts/clean", contracts, zone, names)
    sources = {v.source.name: v.source for v in views}
    events = {name: kept_events(p, s, tables, first, last, hashes=hashes) for name, s in sources.items()}
    shutil.rmtree(beside, ignore_errors=True)
    built = []
    for view in views:
        parts, cache = view_parts(p, view), DayCache(p.root / "state/days" / view.folder, hashes)
        keys = day_keys(digest(parts), {t: tables[t].files for t in view.source.tables}, hashes, first, last)
        built.append(build(view, events[view.source.name], keys, beside / view.folder, cache))
        print(_said(built[-1], cache.folder / "parts.json", parts))
    shutil.rmtree(out, ignore_errors=True)
    beside.rename(out)
    hashes.save()
    known = {f"{b.view.folder}/{day}.parquet": k.digest for b in built for day, k in b.kept.items()}
    code = closure_hash(p, "lockstep.snapshots")
    write_json(
        _describe(built, schemas, first, last, {"code": code, "features": tree_hash(out, known)}),
        p.root / "artifacts/features.json",
    )


def _said(built: Built, file: Path, parts: dict[str, str]) -> str:
    """Say what was built and, where days were computed, which part of the definition is another than the last time."""
    try:
        before = dict(read_json(file))
    except (DataError, TypeError, ValueError):
        before = {}
    why = f"{', '.join(changes(before, parts))} changed" if before and before != parts else "not kept from before"
    write_json(parts, file)
    name = f"features {built.view.name} v{built.view.version}"
    said = f"{name}: {len(built.kept)} snapshots, {built.rows} rows, {len(built.computed)} computed"
    return f"{said} ({why})" if built.computed else said


def _describe(
    built: list[Built], schemas: Mapping[str, pl.Schema], first: date, last: date, hashes: Mapping[str, str]
) -> dict[str, object]:
    return {
        "first": str(first),
        "last": str(last),
        "views": {
            b.view.folder: {
                "snapshots": len(b.kept),
                "rows": b.rows,
                "features": {n: str(t) for n, t in schemas[b.view.name].items()},
            }
            for b in built
        },
        "hashes": dict(hashes),
    }


def main() -> None:
    """Run the stage."""
    build_all(project())


if __name__ == "__main__":
    sys.exit(stage(main))
