"""Features: a name, a value, and what is promised of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lockstep.agg import NEVER_NULL, Aggregation
from lockstep.define.names import check_kinds
from lockstep.errors import DefinitionError
from lockstep.exact import check_exact, check_row_level

__all__ = ["Feature", "instance"]


@dataclass(frozen=True, eq=False)
class Feature:
    """A named value: an aggregation of events, or a Polars formula over features that stand before it.

    Of a FittedView, whose values come out of a fit, `value` is a type such as ``pl.Array(pl.Float64, 8)``.

    Parameters
    ----------
    range
        The lowest and the highest value, both allowed; None is open. Counts are never below 0 without being told.
    nullable
        False where a null is a fault. Counts, sums and numbers of different values are never null without being told.
    default
        What follows where a view with ``missing="default"`` has no row; None is a null, `...` that nothing is declared.
    owner
        Whose it is, where that is not the view's owner.

    None of them shapes what is stored: kept days stay, and are judged anew.
    """

    name: str
    value: Aggregation | pl.Expr | pl.DataType
    description: str = ""
    range: tuple[float | None, float | None] = (None, None)
    nullable: bool | None = None
    default: object = ...
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", instance(self.value))
        check_kinds(self, where := f"feature {self.name}")
        if isinstance(self.value, Aggregation):
            check_kinds(self.value, where)
            self.value.check_window(where)
        if isinstance(self.value, pl.Expr):
            check_exact(self.value, self.name)
            check_row_level(self.value, self.name)
        low, high = self.range
        if low is not None and high is not None and low > high:
            raise DefinitionError("a range without values", where=where, found=f"{low} .. {high}")

    @property
    def never_null(self) -> bool:
        """Tell whether a null would be a fault."""
        zero = isinstance(self.value, Aggregation) and self.value.kind in NEVER_NULL
        return zero or self.nullable is False

    @property
    def reads(self) -> list[str]:
        """Return the features that the formula reads; none for an aggregation."""
        return self.value.meta.root_names() if isinstance(self.value, pl.Expr) else []

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Return the lowest and the highest value that the feature may have."""
        count = isinstance(self.value, Aggregation) and self.value.kind in ("count", "distinct")
        return (0 if count and self.range[0] is None else self.range[0], self.range[1])


def instance(kind: Any) -> Any:
    """Return ``pl.Int64()`` for ``pl.Int64``; a class that needs parameters stays one, to be refused."""
    try:
        return kind() if isinstance(kind, type) and issubclass(kind, pl.DataType) else kind
    except TypeError:
        return kind
