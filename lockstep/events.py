"""What was known on a day: the events derived from the known rows of clean tables."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from lockstep.agg import EVENT_DAY
from lockstep.clock import Zone
from lockstep.contract import Contract
from lockstep.day_cache import DayCache, Hashes, Kept, day_keys
from lockstep.define import Source
from lockstep.errors import DefinitionError, did_you_mean
from lockstep.stage import progress
from lockstep.tables import LANDED, Table, read_tables

__all__ = ["Events", "Table", "event_schema", "read_tables"]

BATCH = 2**21
"""Bytes of partitions from which events are derived at once: whole days, one at least."""
PAST = 2**26
"""Bytes of partitions that a claim of `within_day` is proven on: more than all of the example's."""

ALONE = {"causal": "those before it", "within_day": "those of its day"}
"""What the events of a source that claims so depend on."""


def event_schema(source: Source, contracts: Mapping[str, Contract], zone: Zone) -> pl.Schema:
    """Return the columns and types of a source's events, from the contracts of its tables alone.

    Raises
    ------
    DefinitionError
        The source reads an unknown table or column, or lacks its own event time or key.
    """
    for name in source.tables:
        if name not in contracts:
            raise DefinitionError(
                f"unknown table {name!r}", where=f"source {source.name}", do=did_you_mean(name, contracts)
            )
    empty = {name: pl.LazyFrame(schema=contracts[name].clean_schema()) for name in source.tables}
    try:
        return _ordered(source, source(empty), zone).collect_schema()
    except pl.exceptions.ColumnNotFoundError as e:
        raise DefinitionError("unknown column", where=f"source {source.name}", found=str(e).splitlines()[0]) from e


def _ordered(source: Source, events: pl.LazyFrame, zone: Zone) -> pl.LazyFrame:
    """Add EVENT_DAY and sort by time and key."""
    schema = events.collect_schema()
    for name in (source.event_time, *source.key):
        if name not in schema:
            raise DefinitionError(
                f"unknown column {name!r}", where=f"source {source.name}", do=did_you_mean(name, schema)
            )
    time = pl.col(source.event_time)
    day = time if schema[source.event_time] == pl.Date else zone.day(time)
    return events.with_columns(day.alias(EVENT_DAY)).sort(source.event_time, *source.key)


def _first_seen(rows: list[pl.LazyFrame], keys: Sequence[str]) -> pl.DataFrame:
    """Return each entity with the first of the days ``_seen``; sorted by the keys, none of which is null."""
    parts = [r.group_by(keys).agg(pl.col("_seen").min()) for r in rows]
    both = pl.concat(parts).drop_nulls(keys)
    return both.group_by(keys).agg(pl.col("_seen").min()).sort(keys).collect()


class Events:
    """The events of a source, as known on any day.

    Where every table is settled (nothing late, corrected or deleted), events are derived day by day if those of a day
    follow from its rows. Else, if the source is causal, once for all days between two landings of unsettled rows, and
    cut; else from the known rows of each day. All ways give the same events: the first use of a short way proves it on
    one day, and raises DefinitionError where it does not.

    Parameters
    ----------
    cache, code
        Where the events of each day are kept, for sources that follow from a day, and what their key begins with: all
        that shapes them but the rows. Without a cache they are derived every time.
    """

    def __init__(
        self,
        source: Source,
        tables: Mapping[str, Table],
        first: date,
        last: date,
        *,
        cache: DayCache | None = None,
        code: str = "",
    ) -> None:
        self.source, self.tables, self.first, self.last = source, {t: tables[t] for t in source.tables}, first, last
        self.zone = next(iter(self.tables.values())).zone
        self._cache, self._code = cache, code
        self._first_landed: dict[tuple[str, ...], pl.DataFrame] = {}
        self._seen: dict[tuple[str, ...], tuple[date, pl.DataFrame]] = {}
        self._derived: tuple[list[date], pl.DataFrame] | None = None

    @cached_property
    def short(self) -> bool:
        """Tell whether the events of all days are derived at once and cut."""
        return self._by_day is not None or (self._claim is not None and not self._unsettled)

    def until(self, day: date) -> date:
        """Return the last day whose events, cut at `day`, are those known on it; `day` itself where none may be cut.

        From one landing of an unsettled row to the next, what is known of the days before does not change: later days
        know more days, and no other truth. So all days between are cut from what is known on the last.
        """
        if self._claim is None or not self.first <= day < self.last:
            return day
        if self._by_day is not None:
            return self.last
        end = next((landed for landed in self._unsettled if landed >= day), self.last)
        if end != day:
            _ = self._proven
        return end

    @property
    def _claim(self) -> str | None:
        return "causal" if self.source.causal else "within_day" if self.source.within_day else None

    @cached_property
    def _unsettled(self) -> list[date]:
        """The days on which an unsettled row landed, in order."""
        days = {d for t in self.tables.values() for d in t.unsettled(self.first, self.source.key)}
        return sorted(d for d in days if d < self.last)

    @cached_property
    def _proven(self) -> bool:
        """Prove in the middle of the longest run of days cut from one derivation that they may be."""
        ends = [*(d for d in self._unsettled if d >= self.first), self.last]
        starts = [self.first, *(d + timedelta(days=1) for d in ends)]
        start, end = max(zip(starts, ends, strict=False), key=lambda run: run[1] - run[0])
        middle = start + (end - start) // 2
        cut = self.derived(end).filter(pl.col(EVENT_DAY) < middle)
        self._prove(str(self._claim), middle, cut, self.derived(middle))
        return True

    def known(self, day: date) -> pl.DataFrame:
        """Return the events known on `day` with EVENT_DAY, in order of time and key."""
        end = self.until(day)
        whole = self._by_day if end == self.last else None
        events = self.derived(end) if whole is None else whole
        return events if day == end else events.filter(pl.col(EVENT_DAY) < day)

    def derived(self, day: date) -> pl.DataFrame:
        """Return the events of the known rows of `day`, by the definition itself.

        Raises
        ------
        DefinitionError
            Two events with the same time and key: which of them is the last would be left to chance.
        """
        # Where no table has an event time, the rows known are those landed: days between landings know the same.
        still = all(t.is_dimension for t in self.tables.values())
        knows = [d for t in self.tables.values() for d in t.days() if d < day] if still else [day]
        if self._derived is None or self._derived[0] != knows:
            events = self.source({name: t.known(day).lazy() for name, t in self.tables.items()})
            self._derived = knows, self._told_apart(_ordered(self.source, events, self.zone).collect())
        return self._derived[1]

    def _told_apart(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the events, which are in order, after judging that their time and key tell them apart."""
        columns = list(dict.fromkeys([self.source.event_time, *self.source.key]))
        again = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift()) for c in columns)
        twice = events.lazy().select(columns).with_row_index("_row").filter(again & (pl.col("_row") > 0)).collect()
        if not twice.is_empty():
            raise DefinitionError(
                "a key that does not tell events apart", where=f"source {self.source.name}",
                expected="one event of the same time and key",
                found=twice.drop("_row").row(0, named=True), do="Name in key= all columns that identify an event.",
            )  # fmt: skip
        return events

    def entities(self, keys: Sequence[str], day: date) -> pl.DataFrame:
        """Return every entity ever seen in the source on `day`, deleted ones included: the `keys`, sorted.

        They are those of the raw tables that carry all keys, or where none does those of the events of all versions
        of the rows that landed before; and always those of the known events, which a source may name otherwise.
        """
        end = self.until(day)
        if end != day or self._by_day is not None:
            return self.seen(keys, end).filter(pl.col("_seen") < day).select(keys)
        having = self._having(keys)
        landed = self._landed(keys, having).filter(pl.col("_seen") < day) if having else self._of_all_versions(day)
        both = pl.concat([landed.lazy().select(keys), self.known(day).lazy().select(keys)])
        return both.drop_nulls().unique().sort(keys).collect()

    def seen(self, keys: Sequence[str], end: date) -> pl.DataFrame:
        """Return each entity with the first day it was seen: the `keys`, sorted, and ``_seen`` (Date).

        It is right for all days that are cut from the events known on `end` (see `until`). Entities of raw rows count
        from the landing, those of events from the event's day.
        """
        if (found := self._seen.get(tuple(keys))) and found[0] == end:
            return found[1]
        having = self._having(keys)
        parts = [self._landed(keys, having)] if having else [] if self.short else [self._of_all_versions(end)]
        every = [p.lazy().rename({EVENT_DAY: "_seen"}, strict=False) for p in (*parts, self.known(end))]
        self._seen[tuple(keys)] = end, _first_seen(every, keys)
        return self._seen[tuple(keys)][1]

    def _of_all_versions(self, day: date) -> pl.DataFrame:
        """Return the events of all rows that landed before `day`, also of those that were corrected or deleted."""
        rows = {name: t.scan().filter(pl.col(LANDED) < day) for name, t in self.tables.items()}
        return _ordered(self.source, self.source(rows), self.zone).collect()

    def _landed(self, keys: Sequence[str], having: Mapping[str, Table]) -> pl.DataFrame:
        """Return each entity of raw rows with the first day it landed."""
        if tuple(keys) not in self._first_landed:
            self._first_landed[tuple(keys)] = self._find_landed(keys, having)
        return self._first_landed[tuple(keys)]

    def _find_landed(self, keys: Sequence[str], having: Mapping[str, Table]) -> pl.DataFrame:
        if self._cache is None:
            return _first_seen([t.scan().rename({LANDED: "_seen"}) for t in having.values()], keys)
        cache = DayCache(self._cache.folder / f"seen.{'.'.join(keys)}", self._cache.hashes)
        of = day_keys(
            f"seen {self._code}", {n: t.files for n, t in having.items()}, cache.hashes, self.first, self.last
        )
        kept = next((k for day in reversed(of) if (k := cache.find(day, of[day]))), None)
        before = [pl.scan_parquet(kept.path, glob=False)] if kept else []
        since = date.fromisoformat(kept.path.name[:10]) if kept else date.min
        later = [
            t.landed([d for d in t.days() if since <= d < self.last], [*keys, LANDED]).lazy().rename({LANDED: "_seen"})
            for t in having.values()
        ]
        seen = _first_seen([*later, *before], keys)
        cache.sweep([cache.keep(self.last, of[self.last], seen)])
        return seen

    def _having(self, keys: Sequence[str]) -> dict[str, Table]:
        """Return the raw tables that carry all of the keys, in the types that events have them in."""
        types = self.source({name: t.scan() for name, t in self.tables.items()}).collect_schema()
        wanted = {(key, types[key]) for key in keys}
        return {name: t for name, t in self.tables.items() if wanted <= set(t.scan().collect_schema().items())}

    @cached_property
    def _by_day(self) -> pl.DataFrame | None:
        """All events, those of each day derived from its rows; None where the source or the rows do not allow it.

        Of a key, clean rows have one a landing day at most. So where an event's key is part of the row's, and rows of
        no key landed on two days, no row came twice and no event lies on two days.
        """
        moving = [t for t in self.tables.values() if not t.is_dimension]
        if not self.source.within_day:
            return None
        carried = self._having(self.source.key).values()
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
        return self._told_apart(self.source.with_gaps(events.lazy().drop_nulls(EVENT_DAY)).collect())

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
            self._prove("within_day", one, short, every)
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
        return _ordered(self.source, self.source.derive(**self._still, **rows), self.zone)

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

    def _prove(self, claim: str, day: date, short: pl.DataFrame, long: pl.DataFrame) -> None:
        """Raise DefinitionError where a short way gives other events than the long one."""
        try:
            assert_frame_equal(short, long, check_exact=True, check_row_order=True)
        except AssertionError as e:
            raise DefinitionError(
                f"a source that is not {claim}", where=f"source {self.source.name}, known on {day}",
                expected="the same events whether rows or events are cut at a day", found=" ".join(str(e).split()),
                do=f"Remove {claim}=True, or let no event depend on others than {ALONE[claim]}.",
            ) from None  # fmt: skip
