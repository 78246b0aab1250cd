"""Fitted views: stored features that come out of a fit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import ClassVar

import polars as pl

from lockstep.define.view import View
from lockstep.errors import DefinitionError

__all__ = ["FittedView"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedView(View):
    """Stored features that come out of a fit, such as a vector per key; fitted anew every so often, on the past alone.

    A snapshot holds the fit of what was known at the start of its period, so late rows count from the next fit on. It
    has a row for every entity ever seen, with nulls where the fit has none.

    Parameters
    ----------
    fit
        ``(events known on the day, day) -> keys and features``: a pure function, a row for each of their entities.
        It gives the same bits on any machine and number of threads, or it rounds to what it can keep. Without any
        events it is not called.
    every
        The period, in Polars' words: ``1mo`` begins on the first day of a month, ``1w`` on a Monday.
    """

    fit: Callable[[pl.DataFrame, date], pl.DataFrame]
    every: str = "1mo"
    holds: ClassVar[type] = pl.DataType

    def __post_init__(self) -> None:
        super().__post_init__()
        if not inspect.isfunction(self.fit):
            raise DefinitionError("not a function", where=f"fit of view {self.name}", found=repr(self.fit))
        if not re.fullmatch(r"[1-9][0-9]*(d|w|mo|q|y)", self.every):
            raise DefinitionError(
                "not a period",
                where=f"view {self.name}, every",
                expected="such as '1mo' or '1w'",
                found=repr(self.every),
            )

    def as_of(self, day: date) -> date:
        """Return the day of the fit that snapshot `day` holds: the first of its period."""
        first: date = pl.Series([day]).dt.truncate(self.every).item()
        return first

    def fitted(self) -> dict[str, pl.DataType]:
        """Return the features that come out of the fit, with their types."""
        return {f.name: f.value for f in self.features if isinstance(f.value, pl.DataType)}

    def refit(self, known: pl.DataFrame, day: date) -> pl.DataFrame:
        """Return what the fit gives, under the names of this version."""
        return self.fit(known, day).rename({n.removesuffix(self._ending): n for n in self.fitted()}, strict=False)
