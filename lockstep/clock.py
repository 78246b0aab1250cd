"""Days of one zone and their first instants: the only place where dates and instants meet.

Day D is the calendar day of the declared zone; ``start(D)`` is its first instant, in UTC. DST days have 23 or 25
hours, so nothing here ever adds 24 hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

__all__ = ["INSTANT", "Zone", "days", "parse_day"]

INSTANT = pl.Datetime("us", "UTC")
"""The one type of an instant: microseconds, UTC."""


@dataclass(frozen=True)
class Zone:
    """The zone whose calendar days count.

    >>> new_york = Zone("America/New_York")
    >>> print(new_york.start(date(2017, 3, 13)) - new_york.start(date(2017, 3, 12)))
    23:00:00
    """

    name: str

    def start(self, day: date) -> datetime:
        """Return the first instant of `day`, in UTC."""
        return datetime.combine(day, time.min, ZoneInfo(self.name)).astimezone(UTC)

    def day(self, instant: pl.Expr) -> pl.Expr:
        """Return the calendar day of an instant column, as Date."""
        return instant.dt.convert_time_zone(self.name).dt.date()


def days(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both included."""
    for n in range((last - first).days + 1):
        yield first + timedelta(days=n)


def parse_day(text: str) -> date:
    """Return the day that ``YYYY-MM-DD`` names; raise ValueError with the text for anything else."""
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is not a day; write it as YYYY-MM-DD, in quotes") from None
