"""The population stability index and the binned KS distance of a column against a profile of its reference.

The rule is docs/semantics.md, "Exactness". Edges come from the reference alone: the number does not follow the size of
a sample, and one outlier moves no edge. Nulls, and categories that the reference did not know, have bins of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.errors import DataError

__all__ = ["Profile", "ks", "profile", "psi", "quantiles"]

FLOOR = 1e-4  # no share is below: a bin that is empty on one side is a finite term of the sum


@dataclass(frozen=True)
class Profile:
    """How the values of a reference are spread.

    Attributes
    ----------
    edges
        Numbers: inner edges, ascending, instants as microseconds since 1970. Empty for categories.
    known
        Categories: the values of the reference, sorted. None for numbers.
    weights
        Shares of all rows of the reference: of the values below the first edge, from each edge up to the next, and
        from the last edge on; or of each known category.
    null
        The share of nulls.
    """

    edges: tuple[float, ...]
    known: tuple[str, ...] | None
    weights: tuple[float, ...]
    null: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Profile:
        """Return the profile of which `stored` is the JSON."""
        known = None if stored["known"] is None else tuple(stored["known"])
        return cls(tuple(stored["edges"]), known, tuple(stored["weights"]), stored["null"])


def profile(reference: pl.Series, bins: int = 10) -> Profile:
    """Return the profile of `reference`; numbers are cut at its own quantiles into at most `bins` parts.

    A column in which one value fills the parts from the lowest up has that value as its only edge: a move of its rows
    to greater values is then seen by nobody. The number of edges tells.

    Raises
    ------
    DataError
        No rows, a NaN or an infinity, or values that are neither numbers, instants, strings nor booleans.
    """
    values = _values(reference)
    if values.dtype == pl.String:
        known = tuple(values.unique().sort().to_list())
        *weights, _, null = _shares(values, (), known, len(reference))
        return Profile((), known, tuple(weights), null)
    edges = tuple(np.unique(quantiles(values.to_numpy(), bins)).tolist())  # merged when tied
    *weights, null = _shares(values, edges, None, len(reference))
    return Profile(edges, None, tuple(weights), null)


def psi(reference: Profile, series: pl.Series) -> float:
    """Return the sum of (p - q) ln(p / q) over the bins: the same bits in any order of rows.

    Raises
    ------
    DataError
        As `profile`; or categories against a profile of numbers, or numbers against one of categories.
    """
    values = _like(reference, series)
    unseen = [] if reference.known is None else [0.0]
    before = [*reference.weights, *unseen, reference.null]
    now = _shares(values, reference.edges, reference.known, len(series))
    floored = [(max(p, FLOOR), max(q, FLOOR)) for p, q in zip(before, now, strict=True)]
    return math.fsum((p - q) * math.log(p / q) for p, q in floored)


def ks(reference: Profile, series: pl.Series) -> float:
    """Return the largest gap of the two distribution functions at the stored edges, nulls left out.

    Raises
    ------
    DataError
        As `psi`; or categories, or nothing but nulls on a side.
    """
    values, where = _like(reference, series), f"column {series.name!r}"
    if reference.known is not None:
        raise DataError("no order", where=where, expected="numbers or instants", found="categories")
    if not reference.edges or values.is_empty():
        raise DataError("nothing but nulls", where=where, do="Judge it by null_share or psi.")
    *now, _ = _shares(values, reference.edges, None, len(values))
    there, here = accumulate(reference.weights[:-1]), accumulate(now[:-1])
    return max(abs(p / math.fsum(reference.weights) - q) for p, q in zip(there, here, strict=True))


def quantiles(values: NDArray[np.float64], bins: int = 10) -> NDArray[np.float64]:
    """Return the inner edges of `bins` equal parts: the values of rank ceil(i n / bins), the nearest-rank method.

    >>> quantiles(np.array([30.0, 10.0, 20.0, 40.0]), bins=4).tolist()
    [10.0, 20.0, 30.0]
    """
    ranks = -(-np.arange(1, bins) * values.size // bins)
    return np.sort(values)[ranks - 1] if values.size else values


def _like(reference: Profile, series: pl.Series) -> pl.Series:
    """Return what is not null, refused when it is not of the reference's kind."""
    values = _values(series)
    if (values.dtype == pl.String) is (reference.known is None):
        expected = "numbers" if reference.known is None else "categories"
        raise DataError("another kind", where=f"column {series.name!r}", expected=expected, found=series.dtype)
    return values


def _values(series: pl.Series) -> pl.Series:
    """Return what is not null, as Float64 or String."""
    where, dtype, present = f"column {series.name!r}", series.dtype, series.drop_nulls()
    if series.is_empty():
        raise DataError("no rows", where=where, do="A share of nothing is not defined: widen what is compared.")
    if dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        return present.cast(pl.String)
    if dtype in (pl.Date, pl.Datetime):
        present = present.dt.timestamp("us")
    elif not dtype.is_numeric():
        raise DataError("values without bins", where=where, expected="numbers, instants or categories", found=dtype)
    numbers = present.cast(pl.Float64)
    if not numbers.is_finite().all():
        raise DataError("NaN or infinity", where=where, do="Make it null where it is made.")
    return numbers


def _shares(values: pl.Series, edges: tuple[float, ...], known: tuple[str, ...] | None, rows: int) -> list[float]:
    """Return the share of each bin of numbers, or of each known category and then of all others; last that of nulls."""
    if known is None:
        place = np.searchsorted(edges, values.to_numpy(), side="right")  # a value below an edge goes left of it
        counts = np.bincount(place, minlength=len(edges) + 1).tolist()
    else:
        found = dict(values.value_counts().iter_rows())
        counts = [found.pop(name, 0) for name in known]
        counts.append(sum(found.values()))
    return [count / rows for count in (*counts, rows - len(values))]
