"""A naive oracle for snapshots: plain Python over lists of rows, from the rules, without Polars or the engine."""

import math
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def start(day, zone):
    """The first instant of a day, in UTC."""
    return datetime.combine(day, time.min, ZoneInfo(zone)).astimezone(UTC)


def day_of(instant, zone):
    return instant.astimezone(ZoneInfo(zone)).date()


def values(events, column, day, days, zone, *, offset=0):
    """The values of a column, of events known on `day`, in a window of `days` (None: lifetime), in time order.

    The window ends `offset` days before `day`.
    """
    end = day - timedelta(days=offset)
    inside = [
        e
        for e in sorted(events, key=lambda e: (e["at"], e["id"]))
        if day_of(e["at"], zone) < end and (days is None or day_of(e["at"], zone) >= end - timedelta(days=days))
    ]
    return inside if column is None else [e[column] for e in inside if e[column] is not None]


def std(found):
    n = len(found)
    if n < 2:
        return None
    spread = n * sum(v * v for v in found) - sum(found) ** 2  # integers of any size: exact
    return math.sqrt(float(spread) / float(n * (n - 1)))


def aggregate(kind, found):
    of_nothing = {"count": 0, "sum": 0, "distinct": 0}
    if not found:
        return of_nothing.get(kind)
    return {
        "count": len,
        "sum": sum,
        "distinct": lambda v: len(set(v)),
        "mean": lambda v: float(sum(v)) / float(len(v)),
        "std": std,
        "min": min,
        "max": max,
        "first": lambda v: v[0],
        "last": lambda v: v[-1],
    }[kind](found)
