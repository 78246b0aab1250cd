"""Snapshots of every view for every day: the DVC stage `features`.

A snapshot never changes once the days before it are sealed. Days computed before are kept outside DVC, under a key of
everything that shapes them; only new days are computed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lockstep.alone import alone
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.day_cache import HASHES, DayCache, Hashes, Kept, day_keys
from lockstep.define import FittedView, View
from lockstep.errors import DataError
from lockstep.events import Events, event_schema, read_tables
from lockstep.files import read_json, read_parquet, tree_hash, write_json, write_text
from lockstep.fingerprint import changes, digest, kept_events, view_parts
from lockstep.fitted import fitted
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import Project, project
from lockstep.snapshot import feature_schema, judge, shaped, snapshot, snapshots
from lockstep.stage import progress, stage
from lockstep.timeline import fits

__all__ = ["Built", "build", "build_all"]


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
            judge(view, day, read_parquet(k.path))
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
            yield day, shaped(view, values, events.entities(view.keys, day), day, events.zone)


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
    why = ", ".join(changes(before, parts)) if before and before != parts else "not kept from before"
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
