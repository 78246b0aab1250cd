"""Requests read as a server reads them, one by one, and the rows that training would have read in their place.

Whatever a server decides for itself is asked for: rows past their lifetime, and keys that nobody has.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.clock import INSTANT
from lockstep.dataset import joined
from lockstep.errors import DataError, LockstepError
from lockstep.files import read_parquet
from lockstep.lookup import LookUp, UnknownEntity, hushed
from lockstep.reader import Reader
from lockstep.snapshot import EVENT_TIMESTAMP

__all__ = ["ODD", "Replayed", "carried", "replay"]

ODD = timedelta(hours=13, minutes=7, microseconds=123_457)
"""How long after the start of a day an instant is at which no rounding goes unseen."""

_KEYS, _MIXED, _EDGE = 30, 10, 5


class Replayed(NamedTuple):
    """A request and both answers: features by name, or the sentence of a refusal."""

    asked: tuple[Any, ...]
    offline: dict[str, Any] | str
    online: dict[str, Any] | str


def replay(lookup: LookUp, features: Sequence[str]) -> Iterator[Replayed]:
    """Yield requests for some features, with what the online store answers and what the offline store does."""
    catalogue, reader = lookup.catalogue, Reader(lookup.catalogue, features)
    rows = _requests(lookup, reader)
    with hushed():
        offline = joined(catalogue.project, catalogue, rows, reader.features)
    keys, stored = [*reader.keys], [name for names in reader.stored.values() for name in names]
    # What a request carries is made up: formulas over it are compared, and not judged by their contracts.
    judged = offline.drop(name for view in reader.demands for name in catalogue.schemas[view.name] if name in features)
    for n, asked in enumerate(rows.iter_rows(named=True)):
        try:
            told: dict[str, Any] | str = reader.read(lookup, asked, asked[EVENT_TIMESTAMP])[0]
            said_nothing = False
        except LockstepError as e:
            told = str(e)
            # Nulls are what a join gives for somebody whom no view knows and none says more about: a server says so.
            said_nothing = isinstance(e, UnknownEntity) and all(view.missing == "null" for view in reader.views)
        try:
            settled = catalogue.settle(judged[n], keys, "requests")
            row = offline[n].with_columns(settled).row(0, named=True)
            made: dict[str, Any] | str = {name: row[name] for name in reader.features}
            if said_nothing and all(row.get(name) is None for name in stored):
                made = "nobody, or nothing that may still be read"
        except DataError as e:
            made = str(e)
        yield Replayed((*(asked[key] for key in keys), asked[EVENT_TIMESTAMP].isoformat()), made, told)


def _requests(lookup: LookUp, reader: Reader) -> pl.DataFrame:
    """Return requests: keys that are online together, keys that are not, and nobody's, at instants that matter."""
    online, chance = lookup.online, random.Random(0)  # noqa: S311 - any keys will do
    root = lookup.catalogue.project.root
    held = [read_parquet(online.file(root, v.name)).select(v.keys) for v in reader.views]
    nobody = {key: _nobody([rows[key] for rows in held if key in rows.columns]) for key in reader.keys}
    together: list[dict[str, Any]] = []
    for _ in range(_KEYS):
        keys: dict[str, Any] = {}
        for rows in sorted(held, key=lambda rows: -rows.width):
            if rows.height and not {*rows.columns} <= {*keys}:
                keys = {**rows.row(chance.randrange(rows.height), named=True), **keys}
        together.append({**nobody, **keys})
    odd = [{key: chance.choice(together)[key] for key in nobody} for _ in range(_MIXED)]
    odd += [{**together[0], key: other} for key, other in nobody.items()] + [nobody]
    asked = [{**keys, EVENT_TIMESTAMP: online.instant + past} for past in (timedelta(), ODD) for keys in together + odd]
    asked += [{**keys, EVENT_TIMESTAMP: at} for at in _edges(lookup, reader) for keys in together[:_EDGE] + odd]
    made = {name: carried(kind, len(asked)) for name, kind in reader.request.items()}
    frame = pl.DataFrame(asked, schema={**reader.keys, EVENT_TIMESTAMP: INSTANT})
    return frame.with_columns(pl.Series(name, values, dtype=reader.request[name]) for name, values in made.items())


def _edges(lookup: LookUp, reader: Reader) -> Iterator[datetime]:
    """Yield the last instant of each lifetime and the one after it, where the offline store knows no newer snapshot."""
    online, clock = lookup.online, lookup.catalogue.project.settings.clock
    files = [online.file(lookup.catalogue.project.root, view.name) for view in reader.views]
    if any(file.with_name(f"{online.snapshot + timedelta(days=1)}.parquet").exists() for file in files):
        return
    for ttl in sorted({view.ttl_days for view in reader.views}):
        last = online.instant.astimezone(ZoneInfo(clock.name)) + timedelta(days=ttl)  # on the wall clock
        yield from (last, last + timedelta(microseconds=1))


def _nobody(columns: list[pl.Series]) -> object:
    """Return a key that none of some columns holds."""
    highest: Any = pl.concat(columns).max()
    return f"{highest or ''}?" if columns[0].dtype == pl.String else (highest or 0) + 1


def carried(kind: pl.DataType, count: int) -> list[Any]:
    """Return what requests might carry as a column of a type: the same each time, zeros and nulls among it."""
    chance = random.Random(0)  # noqa: S311 - any values will do
    values = [None if n % 11 == 1 else chance.randrange(100_000) * (n % 7 > 0) for n in range(count)]
    column = pl.Series(values, dtype=pl.Int64)
    column = column % 2 == 0 if kind == pl.Boolean else column * 1.1 if kind.is_float() else column
    return column.cast(kind).to_list()
