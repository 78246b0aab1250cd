"""Versions of a row: which landed rows are kept, which are copies, which are quarantined; and what is known on a day.

The rules stand in ``docs/semantics.md``, "Versions of a row". Everything here is a function of the rows alone: their
order, the wall clock and the number of threads change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Contract

__all__ = ["event_day", "fates", "known"]


def event_day(contract: Contract, zone: Zone) -> pl.Expr:
    """Return the event day of a row: of an instant its day in `zone`, of a date itself, of a dimension its landing."""
    if contract.event_time is None:
        return pl.col("_landing_day")
    if contract.columns[contract.event_time].type == "date":
        return pl.col(contract.event_time)
    return zone.day(pl.col(contract.event_time))


def fates(rows: pl.DataFrame, reasons: pl.Series, contract: Contract, zone: Zone) -> pl.DataFrame:
    """Decide what becomes of every row of a table, in the order given.

    Parameters
    ----------
    rows
        All rows that ever landed, repaired, with ``_landing_day``.
    reasons
        The rules for which a row is quarantined already, joined by a comma; null for none.

    Returns
    -------
    DataFrame
        ``fate`` (kept, duplicate or quarantined), ``rule`` (why quarantined, else null), ``late`` (landed later than
        allowed), ``correction`` (kept; other content than the version before it).
    """
    frame = rows.with_columns(event_day(contract, zone).alias("_event_day"), reasons.alias("_rule"))
    frame = frame.select(*rows.columns, "_rule", *(e.alias(n) for n, e in _by_day(contract).items()))
    late_is_refused = pl.lit(contract.lateness.then == "quarantine")
    frame = frame.with_columns(_joined("_rule", future=pl.col("_future"), late=pl.col("_late") & late_is_refused))
    repeated = rows.select(pl.len().over(contract.key) > 1).to_series()
    rivals = frame.with_row_index("_row").filter(repeated & frame["_rule"].is_null())
    marks = (
        frame.select("_rule", "_late")
        .with_row_index("_row")
        .join(_told_apart(rivals, contract), on="_row", how="left", maintain_order="left")
    )
    marks = marks.with_columns(pl.col("_conflict", "_duplicate", "_correction").fill_null(False))
    marks = marks.with_columns(_joined("_rule", conflict=pl.col("_conflict")))
    kept_or_copy = pl.when("_duplicate").then(pl.lit("duplicate")).otherwise(pl.lit("kept"))
    fate = pl.when(pl.col("_rule").is_not_null()).then(pl.lit("quarantined")).otherwise(kept_or_copy)
    return marks.select(
        fate.alias("fate"),
        pl.col("_rule").alias("rule"),
        pl.col("_late").alias("late"),
        pl.col("_correction").alias("correction"),
    )


def known(rows: pl.DataFrame, contract: Contract, before: date, zone: Zone) -> pl.DataFrame:
    """Return the rows known on day `before`, sorted by key.

    In this order: rows that landed before that day; of each key the version that landed last; deletions removed; event
    day before that day. `rows` are clean: of a key, one row a landing day at most.
    """
    landed = rows.filter(pl.col("_landing_day") < before).sort(*contract.key, "_landing_day")
    last = _changes(contract.key, -1)
    return landed.filter(last & ~pl.col("_deleted") & (event_day(contract, zone) < before))


def _by_day(contract: Contract) -> Mapping[str, pl.Expr]:
    """Return what a row's two days say: an event after its landing, a landing later than allowed."""
    landed, happened = pl.col("_landing_day"), pl.col("_event_day")
    allowed = contract.lateness.days
    late = pl.lit(False) if allowed is None else happened < landed.dt.offset_by(f"-{allowed}d")
    return {"_future": (happened > landed).fill_null(False), "_late": late.fill_null(False)}


def _joined(column: str, **masks: pl.Expr) -> pl.Expr:
    """Return `column` with the name of each mask that is true put behind it."""
    names = [pl.when(mask).then(pl.lit(name)) for name, mask in masks.items()]
    text = pl.concat_str([pl.col(column), *names], separator=", ", ignore_nulls=True)
    return pl.when(pl.any_horizontal(masks.values())).then(text).otherwise(column).alias(column)


def _changes(columns: Iterable[str], step: int) -> pl.Expr:
    """Return whether a row differs in `columns` from the one `step` rows before it; the outermost row does."""
    edge = pl.int_range(pl.len()) == (0 if step > 0 else pl.len() - 1)
    return edge | pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift(step)) for c in columns)


def _told_apart(rivals: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Judge rows that share their key with another: ``_row``, ``_conflict``, ``_duplicate``, ``_correction``.

    Content is all columns but the first receipt and the landing day. Of copies on one day the first received stays.
    """
    content = [c for c in contract.schema() if c not in (*contract.key, "_received_at")]
    moment = [*contract.key, "_landing_day"]
    ordered = rivals.sort(*moment, *content, "_received_at", nulls_last=True).with_columns(
        _changes(moment, 1).alias("_first"), _changes([*moment, *content], 1).alias("_other")
    )
    group = pl.col("_first").cum_sum()
    ordered = ordered.with_columns((pl.col("_other") & ~pl.col("_first")).any().over(group).alias("_conflict"))
    versions = ordered.filter(pl.col("_first") & ~pl.col("_conflict")).select(
        "_row",
        (~_changes([*contract.key, *content], 1)).alias("_again"),
        (~_changes(contract.key, 1)).alias("_has_before"),
        "_deleted",
    )
    judged = ordered.select("_row", "_conflict", "_first").join(versions, on="_row", how="left", maintain_order="left")
    copy = ~pl.col("_conflict") & (~pl.col("_first") | pl.col("_again"))
    correction = pl.col("_has_before") & ~pl.col("_again") & ~pl.col("_deleted")
    return judged.select(
        "_row", "_conflict", copy.fill_null(False).alias("_duplicate"), correction.fill_null(False).alias("_correction")
    )
