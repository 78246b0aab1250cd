"""A contract's statistics: the last landing days against the stored profile, one score and one verdict a rule.

The same statistics run as Great Expectations in `lockstep.gx_statistics`; a test holds that both observe the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lockstep.contract import Contract, Statistic
from lockstep.errors import DataError, GuaranteeError, did_you_mean
from lockstep.psi import Profile, ks, psi
from lockstep.table_profile import ColumnProfile, TableProfile, moments

__all__ = ["Found", "check_second_opinion", "judge_statistics"]


class Found(NamedTuple):
    """What was found for a statistic.

    Attributes
    ----------
    observed
        The statistic of the recent rows.
    reference
        The profile's; None for ks and psi, which are distances themselves.
    score
        What must lie within the rule's limits.
    unit
        What one of the score is of `observed`: the profile's std, or 1.
    largest
        The largest absolute value of what was averaged: rounding is relative to it.
    unmeasured
        Why there is no score, of a rule that is to `flag`; then the numbers are None.
    """

    rule: Statistic
    observed: float | None
    reference: float | None
    score: float | None
    unit: float = 1.0
    largest: float = 0.0
    unmeasured: str | None = None

    @property
    def held(self) -> bool:
        """Tell whether the score lies within the limits, both included; what has none is not held."""
        low, high = self.rule.limits
        return self.score is not None and low <= self.score <= high

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rule, (low, high) = self.rule, self.rule.limits
        asked = {"within": [low, high]} if rule.kind in ("std", "distinct") else {"at_most": high}
        found: dict[str, Any] = {"observed": self.observed, "reference": self.reference, "score": self.score}
        found |= {} if self.unmeasured is None else {"unmeasured": self.unmeasured}
        return {"kind": rule.kind, "column": rule.column, **found, **asked, "then": rule.then, "held": self.held}

    def __str__(self) -> str:
        low, high = self.rule.limits
        return (
            f"{self.rule.name}: {self.rule.kind} of {self.rule.column} scores {self.score:.4g}, not {low:g}..{high:g}"
        )


def judge_statistics(contract: Contract, recent: pl.DataFrame, profile: TableProfile) -> list[Found]:
    """Measure every statistic of a contract, in its order.

    Parameters
    ----------
    recent
        The rows of the last landing days, with the columns that these have.

    Raises
    ------
    DataError
        A rule that is to `fail` cannot be measured; one that is to `flag` is `unmeasured`. That is: no rows; a column
        that the profile or the rows do not have, or of which they have nothing but nulls; fewer values than bins.
    """
    if contract.statistics is None:
        return []
    return [_judged(rule, contract, recent, profile) for rule in contract.statistics.rules]


def check_second_opinion(
    table: str, found: Sequence[Found], files: Sequence[Path], profile: TableProfile, keep: Path | None = None
) -> None:
    """Let Great Expectations observe the same of the `files`, and find the same held; raise GuaranteeError where not.

    The two may differ by 1e-9 and by 1e-12 of the largest value: DuckDB takes moments in float64, here they are exact.
    """
    from lockstep.gx_statistics import observe

    theirs = observe(table, [one.rule for one in found], files, profile, keep)
    for one in found:
        value, success = theirs[one.rule.name]
        assert one.observed is not None, "only what was measured has a second opinion"
        assert one.score is not None
        slack = 1e-12 + 1e-9 * abs(one.observed) + 1e-12 * one.largest
        at_limit = any(abs(one.score - limit) * one.unit <= slack for limit in one.rule.limits)
        if abs(one.observed - value) > slack or (success != one.held and not at_limit):
            raise GuaranteeError(
                "statistics and Great Expectations disagree", where=f"statistic {one.rule.name!r} of {table}",
                expected=f"{one.observed} by Polars, {'held' if one.held else 'not held'}",
                found=f"{value} by Great Expectations, {'held' if success else 'not held'}",
                do="This is a bug of Lockstep: see lockstep/statistics.py and lockstep/gx_statistics.py.",
            )  # fmt: skip


def _judged(rule: Statistic, contract: Contract, recent: pl.DataFrame, profile: TableProfile) -> Found:
    """Measure a statistic; one that is to `flag` and cannot be measured is told, and stops nothing."""
    try:
        return _found(rule, contract, recent, profile)
    except DataError as e:
        if rule.then == "fail":
            raise
        return Found(rule, None, None, None, unmeasured=str(e))


def _found(rule: Statistic, contract: Contract, recent: pl.DataFrame, profile: TableProfile) -> Found:
    where = f"contract {contract.table}, statistic {rule.name}"
    again = f"Run `lockstep contract profile {contract.table} --from DAY --to DAY`."
    if rule.column not in recent.columns:
        raise DataError(
            "the contract is newer than the data", where=where, expected=f"column {rule.column!r} in recent landings",
            found=f"contract version {contract.version}, landings without it", do="Land a day first.",
        )  # fmt: skip
    if recent.is_empty():
        raise DataError(
            "no rows to take statistics of", where=where, expected="rows within the last landing days",
            do="Land rows, look back over more days, or let it `flag`.",
        )  # fmt: skip
    if rule.column not in profile.columns:
        known = did_you_mean(rule.column, profile.columns)
        raise DataError(f"the profile has no column {rule.column!r}", where=where, do=f"{known} {again}")
    column, reference = recent[rule.column], profile.columns[rule.column]
    unit = (reference.std if rule.kind in ("mean", "std") else None) or 1.0
    return Found(rule, *_MEASURES[rule.kind](column, reference, where), unit, _largest(column))


def _largest(column: pl.Series) -> float:
    """Return the largest absolute value of numbers; 0 of others."""
    if not column.dtype.is_numeric() or column.null_count() == len(column):
        return 0.0
    return max(abs(float(column.min())), abs(float(column.max())))  # type: ignore[arg-type]


Measured = tuple[float, float | None, float]


def _mean(column: pl.Series, reference: ColumnProfile, where: str) -> Measured:
    mean, there, std = _finite(column, where)[0], reference.mean, reference.std
    if mean is None or there is None or not std:
        raise _nothing(where, mean is None, "a mean, and a reference that is spread")
    return mean, there, abs(mean - there) / std


def _std(column: pl.Series, reference: ColumnProfile, where: str) -> Measured:
    std, there = _finite(column, where)[1], reference.std
    if std is None or not there:
        raise _nothing(where, std is None, "two values at least, and a reference that is spread")
    return std, there, std / there


def _distinct(column: pl.Series, reference: ColumnProfile, where: str) -> Measured:
    if not reference.distinct:
        raise _nothing(where, False, "a value")
    found = column.drop_nulls().n_unique()
    return found, reference.distinct, found / reference.distinct


def _null_share(column: pl.Series, reference: ColumnProfile, _: str) -> Measured:
    share = column.null_count() / len(column)
    return share, reference.null_share, abs(share - reference.null_share)


def _binned(measure: Callable[[Profile, pl.Series], float]) -> Callable[[pl.Series, ColumnProfile, str], Measured]:
    def binned(column: pl.Series, reference: ColumnProfile, where: str) -> Measured:
        if reference.spread is None:
            raise DataError("too many categories for bins", where=where, found=f"{reference.distinct:,}")
        if reference.null_share == 1:
            raise _nothing(where, False, "a value")
        bins = len(reference.spread.weights)
        if len(column) < bins:
            raise DataError("fewer rows than bins", where=where, expected=f"at least {bins}", found=len(column))
        value = measure(reference.spread, column)
        return value, None, value

    return binned


_MEASURES: Mapping[str, Callable[[pl.Series, ColumnProfile, str], Measured]] = {
    "mean": _mean,
    "std": _std,
    "distinct": _distinct,
    "null_share": _null_share,
    "ks": _binned(ks),
    "psi": _binned(psi),
}


def _finite(column: pl.Series, where: str) -> tuple[float | None, float | None]:
    present = column.drop_nulls()
    if present.dtype.is_float() and not present.is_finite().all():
        raise DataError("NaN or infinity", where=where, do="Make it null where it is made.")
    return moments(present)


def _nothing(where: str, here: bool, expected: str) -> DataError:
    side = "the recent rows" if here else "the profile"
    return DataError(
        f"nothing to measure in {side}", where=where, expected=expected, found="nothing but nulls, or one value",
        do="Judge the column by null_share or psi, or mend it where it is made.",
    )  # fmt: skip
