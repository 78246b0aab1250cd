"""Arithmetic of formulas whose bits do not depend on how many rows are computed at once.

Polars 2.1 divides a column by a single value as a multiplication by its reciprocal. In a third of all quotients that is
one bit off, and a frame of one row is divided truly: the same formula answers otherwise in training, where there are
many rows, than in service, where there is one. A literal is such a value, and so is any column that Polars keeps as
one: what `when` gives where its mask is the same in all of a thread's rows. So the bits would depend on other rows and
on the number of threads. Division by a column that holds a number for each row is always exact, and `ratio` makes one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from lockstep.errors import DefinitionError

__all__ = ["check_exact", "check_row_level", "elapsed_days", "hour", "is_row_level", "ratio", "renamed", "weekday"]


def ratio(above: str | pl.Expr, below: str | pl.Expr | float) -> pl.Expr:
    """Divide a feature by another or by a number, null where the divisor is 0: infinity and NaN are never features.

    >>> pl.DataFrame({"a": [1, 5, 2], "b": [3, 0, None]}).select(ratio("a", "b"), c=ratio("a", 3)).rows()
    [(0.3333333333333333, 0.3333333333333333), (None, 1.6666666666666667), (None, 0.6666666666666666)]
    """
    a = (pl.col(above) if isinstance(above, str) else above).cast(pl.Float64)
    if isinstance(below, int | float):
        return a / (pl.lit(float(below)) + a * 0.0)  # a column of the number: see the module
    b = (pl.col(below) if isinstance(below, str) else below).cast(pl.Float64)
    return pl.when(b != 0).then(a / (b + a * 0.0))  # to add 0 to what is not 0 changes no bit


def elapsed_days(since: str, until: str) -> pl.Expr:
    """Return the time between two instants in days of 86400 seconds, Float64."""
    microseconds = (pl.col(until) - pl.col(since)).dt.total_microseconds()
    return ratio(ratio(microseconds, 1e6), 86400.0)


def hour(instant: str, zone: str) -> pl.Expr:
    """Return the hour of an instant on the clocks of `zone`, 0 to 23, Int64.

    >>> from datetime import UTC, datetime
    >>> before, after = datetime(2017, 3, 12, 6, 59, tzinfo=UTC), datetime(2017, 3, 12, 7, tzinfo=UTC)
    >>> pl.DataFrame({"at": [before, after]}).select(hour("at", "America/New_York")).to_series().to_list()
    [1, 3]
    """
    return pl.col(instant).dt.convert_time_zone(zone).dt.hour().cast(pl.Int64)


def weekday(instant: str, zone: str) -> pl.Expr:
    """Return the day of the week of an instant on the calendar of `zone`, 1 (Monday) to 7, Int64."""
    return pl.col(instant).dt.convert_time_zone(zone).dt.weekday().cast(pl.Int64)


def check_exact(formula: pl.Expr, feature: str) -> None:
    """Raise DefinitionError when a formula divides otherwise than `ratio` does."""
    for node in _nodes(json.loads(formula.meta.serialize(format="json"))):
        division = node.get("BinaryExpr", {})
        if division.get("op") == "TrueDivide" and not _by_a_column(division):
            raise DefinitionError(
                "a bare division", where=f"feature {feature}", found=str(formula),
                do="Write ratio(above, below): Polars rounds this one otherwise for one row than for many.",
            )  # fmt: skip


def _by_a_column(division: dict[str, Any]) -> bool:
    """Tell whether a division is ``a / (b + a * 0.0)``."""
    plus = division["right"].get("BinaryExpr", {})
    times = plus.get("right", {}).get("BinaryExpr") if plus.get("op") == "Plus" else None
    return bool(times == {"left": division["left"], "op": "Multiply", "right": {"Literal": {"Dyn": {"Float": 0.0}}}})


_ROW_LEVEL = {
    "TemporalExpr", "FillNull", "Coalesce", "Abs", "Negate", "Clip", "MaxHorizontal", "MinHorizontal",
    "IsNull", "IsNotNull", "IsFinite", "IsNan", "IsIn", "IsBetween", "Not", "AnyHorizontal", "AllHorizontal",
}  # fmt: skip
"""Functions of one row that give the same bits in every engine, by Polars' own names."""


def check_row_level(formula: pl.Expr, feature: str) -> None:
    """Raise DefinitionError when a formula looks at other rows, or computes what engines round differently."""
    if name := _foreign(json.loads(formula.meta.serialize(format="json"))):
        raise DefinitionError(
            f"{name} in a formula", where=f"feature {feature}", found=str(formula),
            expected="+ - x, ratio, comparisons, conditions and calendar functions of one row",
            do="Aggregate events in a view, or compute it in the source.",
        )  # fmt: skip


def is_row_level(condition: pl.Expr) -> bool:
    """Tell whether an expression looks at one row at a time, by functions that are known to."""
    return _foreign(json.loads(condition.meta.serialize(format="json"))) is None


def renamed(formula: pl.Expr, names: Mapping[str, str]) -> pl.Expr:
    """Return a formula that reads other columns, by the new `names` of the old ones.

    >>> print(renamed(pl.col("a") * pl.col("b"), {"a": "c"}))
    [(col("c")) * (col("b"))]
    """
    tree = json.loads(formula.meta.serialize(format="json"))
    for node in _nodes(tree):
        if isinstance(name := node.get("Column"), str):
            node["Column"] = names.get(name, name)
    return pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")


def _foreign(node: Any) -> str | None:
    """Return the first node of a serialized expression that is not an operation on one row."""
    if not isinstance(node, dict) or len(node) != 1:
        return str(node)
    ((kind, body),) = node.items()
    if kind == "Column":
        return None
    if kind == "Literal":
        return "Series" if "Series" in body else None  # a column of the writer's own, matched by its place
    if kind == "Function":
        return _foreign_function(_names(body["function"]), body["input"])
    inner = {"BinaryExpr": ("left", "right"), "Ternary": ("predicate", "truthy", "falsy"), "Cast": ("expr",)}
    if kind == "Alias":
        return _foreign(body[0])
    return next(filter(None, (_foreign(body[i]) for i in inner[kind])), None) if kind in inner else str(kind)


def _foreign_function(names: list[str], inputs: list[Any]) -> str | None:
    if "IsIn" in names and "Literal" in inputs[1]:
        inputs = inputs[:1]  # the members of a set, whatever holds them; another column's would be all of its rows
    elif "IsIn" in names or not _ROW_LEVEL.intersection(names):
        return names[-1]
    return next(filter(None, map(_foreign, inputs)), None)


def _names(function: Any) -> list[str]:
    """Return a function's kinds and name: ``{"Boolean": {"IsIn": {"nulls_equal": False}}}`` is a Boolean, IsIn."""
    if isinstance(function, str):
        return [function]
    name, inner = next(iter(function.items())) if isinstance(function, dict) and function else ("", None)
    return [name, *_names(inner)] if name[:1].isupper() else []  # in small letters: options


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a serialized expression."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)
