"""What a feature promises of its values: finite, within its range, null only where it may be.

The contract follows from the definition: the type from the schema of the events, the null rule from the aggregation,
the range as declared. It shapes no value, so another range judges what is there and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple

import polars as pl

from lockstep.define import Feature
from lockstep.define.on_demand_view import ASKABLE
from lockstep.errors import DataError, DefinitionError, LockstepError
from lockstep.vectors import is_finite, width

__all__ = ["breach", "broken", "check_definition", "check_values", "formula_schema"]


class _Rule(NamedTuple):
    """One thing that may be wrong with a feature: the rows where it is, and how to say it."""

    feature: Feature
    what: str
    expected: str
    bad: pl.Expr
    do: str
    error: type[LockstepError] = DataError


def check_values(
    frame: pl.DataFrame, features: Iterable[Feature], keys: Sequence[str], where: str, *, nulls: bool = True
) -> None:
    """Judge the values of `features` in a frame; without `nulls`, let a null pass anywhere.

    Raises
    ------
    DefinitionError
        A feature is infinite or not a number.
    DataError
        A feature is out of its range, or null where it never is: named with the rows and the first of them.
    """
    for rule, count in _broken(frame, features, nulls=nulls):
        name = rule.feature.name
        first = frame.filter(rule.bad).sort(keys).select(*keys, name).row(0, named=True)
        value, who = first.pop(name), ", ".join(f"{key} {value}" for key, value in first.items())
        raise rule.error(
            f"feature {name!r} is {rule.what}", where=where, expected=rule.expected,
            found=f"{value} for {who}, {count} of {frame.height} rows", do=rule.do,
        )  # fmt: skip


def broken(frame: pl.DataFrame, features: Iterable[Feature]) -> bool:
    """Tell whether any feature breaks its contract: one pass over the frame."""
    return bool(_broken(frame, features))


def _broken(frame: pl.DataFrame, features: Iterable[Feature], *, nulls: bool = True) -> list[tuple[_Rule, int]]:
    rules = [rule for f in features for rule in _rules(f, frame.schema[f.name], nulls=nulls)]
    counts = frame.select(rule.bad.sum().alias(str(n)) for n, rule in enumerate(rules)).row(0) if rules else ()
    return [(rule, count) for rule, count in zip(rules, counts, strict=True) if count]


def _rules(feature: Feature, kind: pl.DataType, *, nulls: bool) -> Iterable[_Rule]:
    value, (low, high) = pl.col(feature.name), feature.bounds
    if kind.is_float() or width(kind):
        yield _Rule(
            feature, "infinite or not a number", "numbers or nulls", ~is_finite(feature.name, kind),
            "Divide with ratio(): it gives null where the divisor is 0.", DefinitionError,
        )  # fmt: skip
    if nulls and feature.never_null:
        yield _Rule(feature, "null", "a value", value.is_null(), "Mend what it is computed from, or allow it.")
    beyond = [value < low] if low is not None else []
    beyond += [value > high] if high is not None else []
    for bad in beyond:
        yield _Rule(feature, "out of its range", _ends(feature), bad, "Mend what it is computed from, or its `range`.")


def _ends(feature: Feature) -> str:
    low, high = feature.bounds
    return f"{'any' if low is None else low} to {'any' if high is None else high}"


def breach(feature: Feature, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with one plain value of a feature, and what is expected; None where nothing is."""
    low, high = feature.bounds
    if value is None:
        return ("null", "a value") if feature.never_null else None
    if (low is not None and value < low) or (high is not None and value > high):
        return "out of its range", _ends(feature)
    return None


_PLAIN = {pl.Boolean: bool, pl.String: str, pl.Float64: float, pl.Datetime: datetime}


def formula_schema(frame: pl.LazyFrame, features: Iterable[Feature]) -> pl.Schema:
    """Return the types of features, in order, in an empty frame that has all but the formulas; check each definition.

    Raises
    ------
    DefinitionError
        A formula that the types of what it reads do not allow, or what `check_definition` refuses.
    """
    schema = pl.Schema()
    for feature in features:
        try:
            if isinstance(feature.value, pl.Expr):
                frame = frame.with_columns(feature.value.alias(feature.name)).collect().lazy()
        except pl.exceptions.PolarsError as e:
            types = frame.collect_schema()
            raise DefinitionError(
                "a formula that the types of its columns do not allow", where=f"feature {feature.name}",
                found=str(e).splitlines()[0],
                do=f"It reads {', '.join(f'{name} ({types[name]})' for name in dict.fromkeys(feature.reads))}.",
            ) from e  # fmt: skip
        schema[feature.name] = frame.collect_schema()[feature.name]
        check_definition(feature, schema[feature.name])
    return schema


def check_definition(feature: Feature, kind: pl.DataType) -> None:
    """Raise DefinitionError for a type that no store holds, or a range or default that a feature of it cannot have."""
    if (kind.inner if isinstance(kind, pl.Array) and len(kind.shape) == 1 else kind) not in ASKABLE:
        raise DefinitionError(
            "a type that neither Feast nor a server holds", where=f"feature {feature.name}", found=str(kind),
            expected=f"{', '.join(map(str, ASKABLE))}, or an Array of these",
            do="Cast it, in the formula or in the source: a day to an instant, a duration to microseconds.",
        )  # fmt: skip
    low, high = feature.bounds
    if not kind.is_numeric() and (low, high) != (None, None):
        raise DefinitionError("a range of what is no number", where=f"feature {feature.name}", found=str(kind))
    value = feature.default
    if value is ... or value is None:
        return
    plain = int if kind.is_integer() else _PLAIN.get(type(kind))
    if (
        type(value) is not plain
        or (isinstance(value, datetime) and value.utcoffset() != timedelta(0))
        or (isinstance(value, float) and not isfinite(value))
    ):
        raise DefinitionError(
            "a default of another type", where=f"feature {feature.name}", expected=str(kind), found=repr(value),
            do=f"Write it as a Python {plain.__name__ if plain else 'None'}: numbers finite, instants in UTC.",
        )  # fmt: skip
    if kind.is_numeric() and not ((low is None or value >= low) and (high is None or value <= high)):  # type: ignore[operator]
        raise DefinitionError(
            "a default out of the range", where=f"feature {feature.name}", expected=f"{low} to {high}", found=value
        )
