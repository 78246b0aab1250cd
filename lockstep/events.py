"""What was known on a day: the events derived from the known rows of clean tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.day_cache import DayCache, day_keys
from lockstep.day_events import DayEvents
from lockstep.define import Source
from lockstep.derive import carrying, ordered, prove, told_apart
from lockstep.tables import LANDED, Table

__all__ = ["Events"]

ONE = timedelta(days=1)


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
    def _by_day(self) -> pl.DataFrame | None:
        """All events, where those of a day follow from its rows."""
        return DayEvents(self.source, self.tables, self.first, self.last, cache=self._cache, code=self._code).all()

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
        """Prove in the middle of the longest run of days cut from one derivation that they may be.

        Where a table does not carry the source's key by its name, nobody sees an event of it grow after its day: then
        it is proven on more days, the last among them.
        """
        ends = [*(d for d in self._unsettled if d >= self.first), self.last]
        starts = [self.first, *(d + ONE for d in ends)]
        start, end = max(zip(starts, ends, strict=False), key=lambda run: run[1] - run[0])
        blind = any(not {*self.source.key} <= {*t.rows.columns} for t in self.tables.values() if not t.is_dimension)
        pieces = 8 if blind else 2
        whole, kept = self.derived(end), self._derived
        some = {start + (end - start) * n // pieces for n in range(1, pieces)} | ({end - ONE} if blind else set())
        for day in sorted(some):
            prove(self.source, str(self._claim), day, whole.filter(pl.col(EVENT_DAY) < day), self.derived(day))
        self._derived = kept
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
            self._derived = knows, told_apart(self.source, ordered(self.source, events, self.zone).collect())
        return self._derived[1]

    def entities(self, keys: Sequence[str], day: date) -> pl.DataFrame:
        """Return every entity ever seen in the source on `day`, deleted ones included: the `keys`, sorted.

        They are those of the raw tables that carry all keys, or where none does those of the events of all versions
        of the rows that landed before; and always those of the known events, which a source may name otherwise.
        """
        end = self.until(day)
        if end != day or self._by_day is not None:
            return self.seen(keys, end).filter(pl.col("_seen") < day).select(keys)
        having = carrying(self.source, self.tables, keys)
        landed = [self._landed(keys, having).filter(pl.col("_seen") < day)] if having else []
        every = [f.lazy().select(keys) for f in (*landed, self._of_all_versions(day), self.known(day))]
        return pl.concat(every).drop_nulls().unique().sort(keys).collect()

    def seen(self, keys: Sequence[str], end: date) -> pl.DataFrame:
        """Return each entity with the first day it was seen: the `keys`, sorted, and ``_seen`` (Date).

        It is right for all days that are cut from the events known on `end` (see `until`). Entities of raw rows count
        from the landing, those of events from the event's day.
        """
        if (found := self._seen.get(tuple(keys))) and found[0] == end:
            return found[1]
        having = carrying(self.source, self.tables, keys)
        parts = [self._landed(keys, having)] if having else []
        parts += [] if self.short else [self._of_all_versions(end)]
        every = [p.lazy().rename({EVENT_DAY: "_seen"}, strict=False) for p in (*parts, self.known(end))]
        self._seen[tuple(keys)] = end, _first_seen(every, keys)
        return self._seen[tuple(keys)][1]

    def _of_all_versions(self, day: date) -> pl.DataFrame:
        """Return the events of all rows that landed before `day`, also of those that were corrected or deleted."""
        rows = {name: t.scan().filter(pl.col(LANDED) < day) for name, t in self.tables.items()}
        return ordered(self.source, self.source(rows), self.zone).collect()

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
