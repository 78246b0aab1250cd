"""Sources: events derived from raw tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from lockstep.define.names import check_kinds

__all__ = ["Source", "source"]

GAP = "gap"

Frames = Mapping[str, pl.LazyFrame]


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

    def __post_init__(self) -> None:
        check_kinds(self, f"source {self.name}")

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
    key: str | tuple[str, ...] | list[str],
    causal: bool = False,
    within_day: bool = False,
    gap_of: str | None = None,
) -> Callable[[Callable[..., pl.LazyFrame]], Source]:
    """Turn a function whose parameters are raw tables into a Source of its events."""

    def wrap(derive: Callable[..., pl.LazyFrame]) -> Source:
        tables = tuple(inspect.signature(derive).parameters)
        columns = tuple(key) if isinstance(key, list) else key if isinstance(key, tuple) else (key,)
        return Source(derive.__name__, tables, derive, event_time, columns, causal, within_day, gap_of)

    return wrap
