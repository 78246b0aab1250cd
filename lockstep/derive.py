"""Events derived from rows by a source's function: their columns, their order, and what is proven of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from lockstep.agg import EVENT_DAY
from lockstep.clock import Zone
from lockstep.contract import Contract
from lockstep.define import Source
from lockstep.errors import DefinitionError, LockstepError, did_you_mean
from lockstep.tables import Table

__all__ = ["carrying", "event_schema", "ordered", "prove", "told_apart"]

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
        return ordered(source, source(empty), zone).collect_schema()
    except pl.exceptions.ColumnNotFoundError as e:
        raise DefinitionError("unknown column", where=f"source {source.name}", found=str(e).splitlines()[0]) from e
    except LockstepError:
        raise
    except Exception as e:  # whatever a user's function does on frames without rows
        code = source.derive.__code__
        raise DefinitionError(
            "a source that cannot be derived",
            where=f"source {source.name}, {Path(code.co_filename).name} line {code.co_firstlineno}",
            expected="a LazyFrame of events", found=f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}",
            do="Mend the function: it is called on frames without rows first.",
        ) from e  # fmt: skip


def ordered(source: Source, events: pl.LazyFrame, zone: Zone) -> pl.LazyFrame:
    """Add EVENT_DAY and sort by time and key."""
    schema = events.collect_schema()
    for name in (source.event_time, *source.key, *([source.gap_of] if source.gap_of else [])):
        if name not in schema:
            raise DefinitionError(
                f"unknown column {name!r}", where=f"source {source.name}", do=did_you_mean(name, schema)
            )
    kind = schema[source.event_time]
    if kind != pl.Date and not (isinstance(kind, pl.Datetime) and kind.time_zone):
        raise DefinitionError(
            "an event time that is no date and no instant", where=f"source {source.name}, {source.event_time}",
            expected="Date, or Datetime with a zone", found=str(kind), do="Cast it in the source.",
        )  # fmt: skip
    time = pl.col(source.event_time)
    day = time if schema[source.event_time] == pl.Date else zone.day(time)
    return events.with_columns(day.alias(EVENT_DAY)).sort(source.event_time, *source.key)


def told_apart(source: Source, events: pl.DataFrame) -> pl.DataFrame:
    """Return the events, which are in order, after judging that their time and key tell them apart."""
    columns = list(dict.fromkeys([source.event_time, *source.key]))
    again = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift()) for c in columns)
    twice = events.lazy().select(columns).with_row_index("_row").filter(again & (pl.col("_row") > 0)).collect()
    if not twice.is_empty():
        raise DefinitionError(
            "a key that does not tell events apart", where=f"source {source.name}",
            expected="one event of the same time and key",
            found=twice.drop("_row").row(0, named=True), do="Name in key= all columns that identify an event.",
        )  # fmt: skip
    return events


def carrying(source: Source, tables: Mapping[str, Table], keys: Sequence[str]) -> dict[str, Table]:
    """Return the raw tables that carry all of the keys, in the types that the source's events have them in."""
    types = source({name: t.scan() for name, t in tables.items()}).collect_schema()
    wanted = {(key, types[key]) for key in keys}
    return {name: t for name, t in tables.items() if wanted <= set(t.scan().collect_schema().items())}


def prove(source: Source, claim: str, day: date, short: pl.DataFrame, long: pl.DataFrame) -> None:
    """Raise DefinitionError where a short way gives other events than the long one."""
    try:
        assert_frame_equal(short, long, check_exact=True, check_row_order=True)
    except AssertionError as e:
        raise DefinitionError(
            f"a source that is not {claim}", where=f"source {source.name}, known on {day}",
            expected="the same events whether rows or events are cut at a day", found=" ".join(str(e).split()),
            do=f"Remove {claim}=True, or let no event depend on others than {ALONE[claim]}.",
        ) from None  # fmt: skip
