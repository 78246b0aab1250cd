"""Questions: who is asked about, and what the answer turned out to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from lockstep.define.entity import Entity, keyed
from lockstep.define.names import check_kinds
from lockstep.define.source import Source
from lockstep.errors import DefinitionError

__all__ = ["Question"]


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
        check_kinds(self, where := f"question {self.name}")
        keyed(self.entities, where)
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
