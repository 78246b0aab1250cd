"""Snapshots of every view for every day: the DVC stage `features`.

A snapshot never changes once the days before it are sealed. Days computed before are kept outside DVC, under a key of
everything that shapes them; only new days are computed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
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
from lockstep.define.names import one_of_each
from lockstep.derive import event_schema
from lockstep.errors import DataError
from lockstep.events import Events
from lockstep.files import read_json, read_parquet, tree_hash, write_json, write_text
from lockstep.fingerprint import changes, digest, kept_events, view_parts
from lockstep.fitted import fitted
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import Project, project
from lockstep.snapshot import feature_schema, judge, shaped, snapshot, snapshots
from lockstep.stage import progress, stage
from lockstep.tables import read_tables
from lockstep.timeline import fits

__all__ = ["Built", "Wanted", "build", "build_all", "build_together"]


class Built(NamedTuple):
    """What building a view came to: its files by day, and the days that had to be computed."""

    view: View
    kept: dict[date, Kept]
    computed: list[date]

    @property
    def rows(self) -> int:
        """Return the rows of all snapshots."""
        return sum(k.rows for k in self.kept.values())


class Wanted(NamedTuple):
    """What is to be built of a view: the key of each day, where to write the snapshots, and what was kept."""

    view: View
    keys: Mapping[date, str]
    out: Path
    cache: DayCache


def build(view: View, events: Events, keys: Mapping[date, str], out: Path, cache: DayCache) -> Built:
    """Write a view's snapshots of the days in `keys` to ``out/<day>.parquet``, computing what the cache lacks."""
    return build_together([Wanted(view, keys, out, cache)], events)[0]


def build_together(views: Sequence[Wanted], events: Events) -> list[Built]:
    """Build views of the same events, side by side: events that are derived for some days serve all views."""
    built = [_kept(wanted) for wanted in views]

    def copy(wanted: Wanted, kept: Kept, day: date) -> None:  # a copy: DVC may link and protect its outputs
        shutil.copyfile(kept.path, wanted.out / f"{day}.parquet")

    with ThreadPoolExecutor(1) as beside:  # what is there is copied while the rest is computed
        pairs = list(zip(views, built, strict=True))
        copies = [beside.submit(copy, wanted, kept, day) for wanted, b in pairs for day, kept in b.kept.items()]
        said = f"features {' '.join(v.view.name for v in views)}"
        for n, day, frame in progress(_computed_together(built, events), said, sum(len(b.computed) for b in built)):
            wanted, b = pairs[n]
            b.kept[day] = wanted.cache.keep(day, wanted.keys[day], frame)
            copies.append(beside.submit(copy, wanted, b.kept[day], day))
    for done in copies:
        done.result()
    for wanted, b in pairs:
        wanted.cache.sweep(b.kept.values())
    return built


def _kept(wanted: Wanted) -> Built:
    """Return what the cache has of a view, judged, and the days that it lacks."""
    wanted.out.mkdir(parents=True, exist_ok=True)
    kept = {day: found for day, key in wanted.keys.items() if (found := wanted.cache.find(day, key))}
    _judge_kept(wanted.view, kept, wanted.cache.folder / "judged")
    return Built(wanted.view, kept, [day for day in wanted.keys if day not in kept])


def _judge_kept(view: View, kept: Mapping[date, Kept], file: Path) -> None:
    """Judge the days that were kept, where ranges and nulls are declared otherwise than when they were computed."""
    said = "\n".join(f"{f.name} {f.bounds} {f.never_null}" for f in view.features)
    if not file.is_file() or file.read_text(encoding="utf-8") != said:
        for day, k in kept.items():
            judge(view, day, read_parquet(k.path))
    write_text(said, file)


def _computed_together(built: Sequence[Built], events: Events) -> Iterator[tuple[int, date, pl.DataFrame]]:
    """Yield the missing snapshots with the place of their view, run by run of days that share a derivation."""
    every = sorted({day for b in built for day in b.computed})
    for end, run in groupby(every, events.until):
        days = set(run)
        for n, b in enumerate(built):
            some = [day for day in b.computed if day in days]
            for day, frame in _computed(b.view, events, some, end, b.kept):
                yield n, day, frame


def _computed(
    view: View, events: Events, days: list[date], end: date, kept: Mapping[date, Kept]
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Yield days cut from the events of `end` with their snapshots: one alone by the definition, which costs less."""
    if isinstance(view, FittedView):
        yield from _refitted(view, events, days, kept)
    elif len(days) > 1 and fits(view.aggregations(), (known := events.known(end)).schema):
        yield from snapshots(view, known, events.seen(view.keys, end), days, events.zone)
    else:
        for day in days:
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
    one_of_each([v.source for v in views], "source")
    schemas = {v.name: feature_schema(v, event_schema(v.source, contracts, zone)) for v in views}
    landings = read_landings(p.root / "landings.csv")
    first, last = snapshot_days(landings, [c.table for c in contracts.values() if c.calendar == "daily"])
    out, beside, hashes = p.root / "artifacts/features", p.root / "artifacts/.features", Hashes(p.root / HASHES)
    names = tuple(dict.fromkeys(t for v in views for t in v.source.tables))
    tables = read_tables(p.root / "artifacts/clean", contracts, zone, names)
    shutil.rmtree(beside, ignore_errors=True)
    every: dict[str, Built] = {}
    for source in {v.source.name: v.source for v in views}.values():
        wanted, said = [], []
        for view in [v for v in views if v.source.name == source.name]:
            parts, cache = view_parts(p, view), DayCache(p.root / "state/days" / view.folder, hashes)
            keys = day_keys(digest(parts), {t: tables[t].files for t in source.tables}, hashes, first, last)
            wanted.append(Wanted(view, keys, beside / view.folder, cache))
            said.append((cache.folder / "parts.json", parts))
        found = build_together(wanted, kept_events(p, source, tables, first, last, hashes=hashes))
        print(*(_said(b, *about) for b, about in zip(found, said, strict=True)), sep="\n")
        every |= {b.view.folder: b for b in found}
    built = [every[v.folder] for v in views]
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
