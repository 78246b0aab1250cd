"""Versions of a row: which landed rows are kept, which are copies, which are quarantined; and what is known on a day.

The rules stand in ``docs/semantics.md``, "Versions of a row". Everything here is a function of the rows alone: their
order, the wall clock and the number of threads change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import Contract

__all__ = ["event_day", "fates", "known", "timing"]


def event_day(contract: Contract, zone: Zone) -> pl.Expr:
    """Return the event day of a row: of an instant its day in `zone`, of a date itself, of a dimension its landing."""
    if contract.event_time is None:
        return pl.col("_landing_day")
    if contract.columns[contract.event_time].type == "date":
        return pl.col(contract.event_time)
    return zone.day(pl.col(contract.event_time))


def timing(
    rows: pl.DataFrame, reasons: pl.Series, contract: Contract, zone: Zone, waived: pl.Series | None = None
) -> pl.DataFrame:
    """Judge when rows landed: never before their event day, and not too long after it.

    Parameters
    ----------
    rows
        Landed rows with ``_landing_day``, all judged by `contract`.
    reasons
        The rules for which a row is quarantined already, joined by a comma; null for none.
    waived
        The rows that may be late: flagged, but never quarantined for it.

    Returns
    -------
    DataFrame
        ``rule``, the reasons with ``future`` (and ``late``, where that quarantines) put behind them, and ``late``.
    """
    landed = pl.col("_landing_day")
    allowed = contract.lateness.days
    days = rows.select(event_day(contract, zone).alias("happened"), landed)
    future = days.select(pl.col("happened") > landed).to_series().fill_null(False)
    limit = landed if allowed is None else landed.dt.offset_by(f"-{allowed}d")
    late = days.select((pl.col("happened") < limit) & pl.lit(allowed is not None)).to_series().fill_null(False)
    reasons = _named(reasons, future, "future")
    if contract.lateness.then == "quarantine":
        reasons = _named(reasons, late if waived is None else late & ~waived, "late")
    return pl.DataFrame({"rule": reasons, "late": late})


def fates(rows: pl.DataFrame, reasons: pl.Series, contract: Contract) -> pl.DataFrame:
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
        ``fate`` (kept, duplicate or quarantined), ``rule`` (the reasons, with ``conflict`` put behind them) and
        ``correction`` (kept, with other content than the version before it).
    """
    repeated = rows.select(pl.len().over(contract.key) > 1).to_series()
    marks = _told_apart(rows.with_row_index("_row").filter(repeated & reasons.is_null()), contract)
    frame = pl.DataFrame({"rule": reasons}).with_row_index("_row")
    frame = frame.join(marks, on="_row", how="left", maintain_order="left")
    frame = frame.with_columns(pl.col("_conflict", "_duplicate", "_correction").fill_null(False))
    rule = _named(reasons, frame["_conflict"], "conflict")
    kept_or_copy = pl.when("_duplicate").then(pl.lit("duplicate")).otherwise(pl.lit("kept"))
    fate = pl.when(rule.is_not_null()).then(pl.lit("quarantined")).otherwise(kept_or_copy)
    return frame.select(fate.alias("fate"), rule.alias("rule"), pl.col("_correction").alias("correction"))


def known(rows: pl.DataFrame, contract: Contract, before: date, zone: Zone) -> pl.DataFrame:
    """Return the rows known on day `before`, sorted by key.

    In this order: rows that landed before that day; of each key the version that landed last; deletions removed; event
    day before that day. `rows` are clean: of a key, one row a landing day at most.
    """
    landed = rows.filter(pl.col("_landing_day") < before).sort(*contract.key, "_landing_day")
    last = _changes(contract.key, -1)
    return landed.filter(last & ~pl.col("_deleted") & (event_day(contract, zone) < before))


def _named(reasons: pl.Series, mask: pl.Series, name: str) -> pl.Series:
    """Return `reasons` with `name` put behind them where `mask` is true."""
    if not mask.any():
        return reasons
    text = pl.concat_str(pl.col("rule"), pl.lit(name), separator=", ", ignore_nulls=True)
    frame = pl.DataFrame({"rule": reasons, "mask": mask})
    return frame.select(pl.when("mask").then(text).otherwise("rule").alias("rule")).to_series()


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
