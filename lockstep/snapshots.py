"""Snapshots: every feature of a view as it was known at the start of a day. The DVC stage `features`.

A snapshot is a pure function of the rows known on its day, so it never changes once the days before it are sealed. Days
computed before are kept outside DVC, under a key of everything that shapes them; only new days are computed.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lockstep.clock import INSTANT, Zone, days
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.define import View
from lockstep.errors import DataError, DefinitionError, did_you_mean
from lockstep.events import Events, event_schema, read_tables
from lockstep.files import file_hash, read_json, tree_hash, write_json, write_parquet
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import Project, project
from lockstep.stage import progress, stage

__all__ = ["CREATED", "EVENT_TIMESTAMP", "Built", "build", "feature_schema", "snapshot"]

EVENT_TIMESTAMP = "event_timestamp"
CREATED = "created"


def feature_schema(view: View, events: pl.Schema) -> pl.Schema:
    """Return the types of a view's features, in order.

    Raises
    ------
    DefinitionError
        A feature reads an unknown event column or feature, or sums something that is not an integer.
    """
    for name, aggregation in view.aggregations():
        aggregation.check(events, name)
    known = {view.entity.key}
    for feature in view.features:
        if isinstance(feature.value, pl.Expr):
            for name in feature.value.meta.root_names():
                if name not in known:
                    raise DefinitionError(
                        f"unknown feature {name!r}", where=f"feature {feature.name}", do=did_you_mean(name, known)
                    )
        known.add(feature.name)
    empty = pl.LazyFrame(schema={**events, **({view.entity.key: pl.Int64} if view.entity.key not in events else {})})
    shaped = _formulas(view, _aggregates(view, empty, date(2000, 1, 1)))
    return shaped.select(f.name for f in view.features).collect_schema()


def snapshot(view: View, events: pl.DataFrame, entities: pl.DataFrame, day: date, zone: Zone) -> pl.DataFrame:
    """Return snapshot `day` of a view.

    Parameters
    ----------
    events
        The events known on `day`, in order of time and key, with EVENT_DAY.
    entities
        Every entity ever seen by then, one column, sorted: an entity without events gets an empty row.

    Returns
    -------
    DataFrame
        The entity's key, ``event_timestamp`` (the first instant of `day`, UTC), ``created`` (the last landing day that
        was known, as an instant: an ordinal, not a clock) and the features, sorted by key.

    Raises
    ------
    DefinitionError
        A feature is infinite or not a number.
    """
    key = view.entity.key
    rows = entities.lazy().join(_aggregates(view, events.lazy(), day), on=key, how="left", maintain_order="left")
    zero = [f for f, a in view.aggregations() if a.kind in ("count", "sum", "distinct")]
    rows = rows.with_columns(pl.col(zero).fill_null(0)) if zero else rows
    chosen = _formulas(view, rows).select(
        key,
        pl.lit(zone.start(day), INSTANT).alias(EVENT_TIMESTAMP),
        pl.lit(date.fromordinal(day.toordinal() - 1), pl.Date).cast(INSTANT).alias(CREATED),
        *(f.name for f in view.features),
    )
    where = f"view {view.name}, snapshot {day}"
    try:
        frame = chosen.collect()
    except pl.exceptions.InvalidOperationError as e:
        raise DefinitionError(
            "a value that its type cannot hold", where=where, found=str(e).splitlines()[0],
            do="Sums are Int64: use a larger unit, or aggregate less.",
        ) from e  # fmt: skip
    refuse_nan(frame, where)
    return frame


def refuse_nan(frame: pl.DataFrame, where: str) -> None:
    """Raise DefinitionError naming the first feature that is infinite or not a number, and how often."""
    floats = [c for c, t in frame.schema.items() if t.is_float()]
    for name, bad in frame.select((~pl.col(floats).is_finite()).sum()).row(0, named=True).items() if floats else []:
        if bad:
            raise DefinitionError(
                f"feature {name!r} is infinite or not a number", where=where, expected="numbers or nulls",
                found=f"{bad} of {frame.height} rows", do="Divide with ratio(): it gives null where the divisor is 0.",
            )  # fmt: skip


def _aggregates(view: View, events: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """Aggregate events, in time order, by entity."""
    grouped = events.group_by(view.entity.key, maintain_order=True)
    return grouped.agg(a.expr(day).alias(name) for name, a in view.aggregations())


def _formulas(view: View, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Add the formulas, each of which may read the ones before it."""
    for name, formula in view.formulas():
        frame = frame.with_columns(formula.alias(name))
    return frame


class Built(NamedTuple):
    """What building a view came to."""

    view: View
    snapshots: int
    rows: int
    computed: int


def build(view: View, events: Events, keys: Mapping[date, str], out: Path, cache: Path) -> Built:
    """Write a view's snapshots of the days in `keys` to ``out/<day>.parquet``, computing what the cache lacks."""
    seen = events.seen(view.entity.key)
    rows, computed, kept = 0, 0, {}
    index = _read_index(cache)
    for day in progress(list(keys), f"features {view.name}"):
        cached = cache / f"{day}-{keys[day]}.parquet"
        height = _height(cached, index)
        if height is None:
            entities = seen.filter(pl.col("_seen") < day).select(view.entity.key)
            frame = snapshot(view, events.known(day), entities, day, events.zone)
            write_parquet(frame, cached)
            height = frame.height
            computed += 1
            index[cached.name] = (file_hash(cached), height)
        kept[cached.name] = index[cached.name]
        rows += height
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, out / f"{day}.parquet")  # a copy: DVC may link and protect its outputs
    write_json(kept, cache / "index.json")
    for old in cache.glob("*.parquet"):
        if old.name not in kept:
            old.unlink()
    return Built(view, len(keys), rows, computed)


def _read_index(cache: Path) -> dict[str, tuple[str, int]]:
    """Return the hash and height of each cached day; none where the index is missing or broken."""
    try:
        return {name: (str(digest), int(height)) for name, (digest, height) in read_json(cache / "index.json").items()}
    except (DataError, AttributeError, TypeError, ValueError):
        return {}


def _height(path: Path, index: Mapping[str, tuple[str, int]]) -> int | None:
    """Return the rows of a cached day; None where it is missing or is not what was written."""
    digest, height = index.get(path.name, ("", 0))
    return height if path.is_file() and file_hash(path) == digest else None


def cache_keys(seed: str, view: View, clean: Path, first: date, last: date) -> dict[date, str]:
    """Return a key for each day: `seed` (code, zone, contracts), Polars and every clean partition known by then."""
    partitions = sorted((p.stem, p.parent.name, p) for t in view.source.tables for p in (clean / t).glob("*.parquet"))
    chain = hashlib.sha256(f"{seed} {pl.__version__} {view.name} {view.version}".encode())
    keys, done = {}, 0
    for day in days(first, last):
        while done < len(partitions) and partitions[done][0] < str(day):
            landed, table, path = partitions[done]
            chain.update(f"{landed} {table} {file_hash(path)}\n".encode())
            done += 1
        at = chain.copy()
        at.update(str(day).encode())
        keys[day] = at.hexdigest()[:24]
    return keys


def build_all(p: Project) -> None:
    """Build every view of a project into ``artifacts/features`` and describe them in ``artifacts/features.json``."""
    zone, contracts = p.settings.clock, load_contracts(p.folder("contracts"))
    views = p.objects("views", View)
    schemas = {v.name: feature_schema(v, event_schema(v.source, contracts, zone)) for v in views}
    landings = read_landings(p.root / "landings.csv")
    first, last = snapshot_days(landings, [c.table for c in contracts.values() if c.calendar == "daily"])
    clean, out, beside = p.root / "artifacts/clean", p.root / "artifacts/features", p.root / "artifacts/.features"
    names = tuple(dict.fromkeys(t for v in views for t in v.source.tables))
    tables = read_tables(clean, contracts, zone, names)
    sources = {v.source.name: v.source for v in views}
    events = {name: Events(s, tables, first, last) for name, s in sources.items()}
    code = closure_hash(p, "lockstep.snapshots")
    seed = f"{code} {zone.name} {tree_hash(p.folder('contracts'))}"
    shutil.rmtree(beside, ignore_errors=True)
    built = [
        build(
            view,
            events[view.source.name],
            cache_keys(seed, view, clean, first, last),
            out=beside / view.folder,
            cache=p.root / "state/days" / view.folder,
        )
        for view in views
    ]  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    beside.rename(out)
    write_json(
        _describe(built, schemas, first, last, {"code": code, "features": tree_hash(out)}),
        p.root / "artifacts/features.json",
    )
    for b in built:
        print(
            f"features {b.view.name} v{b.view.version}: {b.snapshots} snapshots, {b.rows} rows, {b.computed} computed"
        )


def _describe(
    built: list[Built], schemas: Mapping[str, pl.Schema], first: date, last: date, hashes: Mapping[str, str]
) -> dict[str, object]:
    return {
        "first": str(first),
        "last": str(last),
        "views": {
            b.view.folder: {
                "snapshots": b.snapshots,
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
