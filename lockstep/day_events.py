"""Events derived day by day from the rows that landed on each: where a source allows it, a new day costs that day."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.day_cache import DayCache, Hashes, Kept
from lockstep.define import Source
from lockstep.derive import carrying, ordered, prove, told_apart
from lockstep.errors import DefinitionError
from lockstep.stage import progress
from lockstep.tables import Table

__all__ = ["DayEvents"]

BATCH = 2**21
"""Bytes of partitions from which events are derived at once: whole days, one at least."""
PAST = 2**26
"""Bytes of partitions that a claim of `within_day` is proven on: more than all of the example's."""


class DayEvents:
    """The events of a source, those of each day derived from its rows and kept; parameters as those of `Events`."""

    def __init__(
        self,
        source: Source,
        tables: Mapping[str, Table],
        first: date,
        last: date,
        *,
        cache: DayCache | None,
        code: str,
    ) -> None:
        self.source, self.tables, self.first, self.last = source, tables, first, last
        self.zone = next(iter(tables.values())).zone
        self._cache, self._code = cache, code

    def all(self) -> pl.DataFrame | None:
        """Return all events in order; None where the source or the rows do not allow to derive them by day.

        Of a key, clean rows have one a landing day at most. So where an event's key is part of the row's, and rows of
        no key landed on two days, no row came twice and no event lies on two days.
        """
        moving = [t for t in self.tables.values() if not t.is_dimension]
        if not self.source.within_day:
            return None
        carried = carrying(self.source, self.tables, self.source.key).values()
        whole = bool(moving) and all(t in carried and set(self.source.key) <= set(t.contract.key) for t in moving)
        still = not any(t.unsettled(self.first, self.source.key) for t in self.tables.values() if t.is_dimension)
        if not (whole and still):
            return None
        with tempfile.TemporaryDirectory() as folder:
            cache = self._cache or DayCache(Path(folder), Hashes(Path(folder) / "hashes.json"))
            kept = self._keep_days(cache, moving)
            if not kept:
                return None
            events = pl.read_parquet([k.path for k in kept], glob=False, hive_partitioning=False)
            cache.sweep(kept)
        if events.select(self.source.key).n_unique() < events.height:
            return None
        return told_apart(self.source, self.source.with_gaps(events.lazy().drop_nulls(EVENT_DAY)).collect())

    def _keep_days(self, cache: DayCache, moving: list[Table]) -> list[Kept] | None:
        """Derive the days that the cache lacks; return the files of all, None where a row did not land on its day."""
        landed = sorted({d for t in moving for d in t.days() if d < self.last})
        keys = self._keys(cache.hashes, landed)
        kept = {day: found for day in landed if (found := cache.find(day, keys[day]))}
        missing = [d for d in landed if d not in kept]
        batches = self._batches(missing, moving)
        if len(missing) > 1 and not self._prove_days(batches[-1]):
            return None
        for some in progress(batches, f"events {self.source.name}"):
            if (parts := self._derive_days(some)) is None:
                return None
            for day, events in parts.items():
                kept[day] = cache.keep(day, keys[day], self._with_silent(events, day, moving))
        return [kept[day] for day in landed]

    def _with_silent(self, events: pl.DataFrame, day: date, moving: list[Table]) -> pl.DataFrame:
        """Add to the events of a day the keys of its rows that gave none, without EVENT_DAY: they may come again."""
        keys = pl.concat([t.landed([day], [*self.source.key]) for t in moving]).unique()
        silent = keys.join(events, on=self.source.key, how="anti", nulls_equal=True).sort(self.source.key)
        return pl.concat([events, silent], how="diagonal")

    def _batches(self, some: list[date], moving: list[Table]) -> list[list[date]]:
        """Split days into runs from whose rows events are derived at once: by the size of their files."""
        sizes = [sum(t.files[d].stat().st_size for t in moving if d in t.files) for d in some]
        runs = zip(some, accumulate(sizes), strict=True)
        return [[d for d, _ in run] for _, run in groupby(runs, lambda pair: pair[1] // BATCH)]

    def _prove_days(self, some: list[date]) -> bool:
        """Prove on the last of `some` that its events follow from its rows; False where rows did not land on their day.

        The last day has the longest past to look back on: all of it, or days evenly spread over it where it is large.
        It is proven before anything is kept: what a false claim leaves in the cache would not be looked at again. The
        past is taken as it landed, without sorting out versions: only where it gives other events is it asked for any.
        """
        one = some[-1]
        together, alone = self._derive_days(some), self._derive_days([one])
        if together is None or alone is None:
            return False
        moving = {n: t for n, t in self.tables.items() if not t.is_dimension}
        past = sorted({d for t in moving.values() for d in t.days() if d <= one}, reverse=True)
        size = sum(f.stat().st_size for t in moving.values() for f in t.files.values())
        rows = {n: t.scan(past[:: 1 + size // PAST]) for n, t in moving.items()}
        every = self._without_gaps(rows).filter(pl.col(EVENT_DAY) == one).collect()
        if together[one].equals(every) and alone[one].equals(every):
            return True
        if any(t.unsettled(self.first, self.source.key) for t in moving.values()):
            return False
        for short in (together[one], alone[one]):
            prove(self.source, "within_day", one, short, every)
        return True

    def _derive_days(self, some: list[date]) -> dict[date, pl.DataFrame] | None:
        """Return the events of each of some days, without gaps, from the rows that landed on them; None as above."""
        rows = {n: t.landed(some) for n, t in self.tables.items() if not t.is_dimension}
        if any(self.tables[n].untimely(r, self.first) for n, r in rows.items()):
            return None
        events = self._without_gaps({n: r.lazy() for n, r in rows.items()}).collect()
        parts = {day: part for (day,), part in events.partition_by(EVENT_DAY, as_dict=True).items()}
        if strange := sorted(set(parts) - set(some), key=str):
            raise DefinitionError(
                "events on other days than their rows", where=f"source {self.source.name}",
                expected=f"events from {some[0]} to {some[-1]}", found=strange[0], do="Remove within_day=True.",
            )  # fmt: skip
        return {day: parts.get(day, events.clear()) for day in some}

    def _without_gaps(self, rows: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        """Return the events of some rows of tables with event times, in order, with EVENT_DAY."""
        return ordered(self.source, self.source.derive(**self._still, **rows), self.zone)

    @cached_property
    def _still(self) -> dict[str, pl.LazyFrame]:
        """What is known of tables without event times, which is the same on all days wherever this is asked for."""
        return {n: t.known(self.last).lazy() for n, t in self.tables.items() if t.is_dimension}

    def _keys(self, hashes: Hashes, landed: list[date]) -> dict[date, str]:
        """Return the key of each day: the code, all rows of dimensions, and the rows that landed on it."""
        chain = hashlib.sha256(f"{self._code} {pl.__version__}".encode())
        for name, t in self.tables.items():
            if t.is_dimension:
                chain.update("".join(f"{name} {d} {hashes.of(f)}\n" for d, f in t.files.items()).encode())
        keys = {}
        for day in landed:
            at = chain.copy()
            parts = [(n, t.files[day]) for n, t in self.tables.items() if not t.is_dimension and day in t.files]
            at.update("".join(f"{n} {day} {hashes.of(f)}\n" for n, f in parts).encode())
            keys[day] = at.hexdigest()[:24]
        return keys
