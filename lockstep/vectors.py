"""Vectors as values: a ``pl.Array`` of floats in one dimension, whole or null."""

from __future__ import annotations

import polars as pl

__all__ = ["bits", "is_finite", "width", "without_vectors"]


def width(kind: pl.DataType) -> int:
    """Return how many floats a vector of this type holds, 0 for what is no vector."""
    if isinstance(kind, pl.Array) and len(kind.shape) == 1 and kind.inner in (pl.Float64, pl.Float32):
        return kind.size
    return 0


def is_finite(name: str, kind: pl.DataType) -> pl.Expr:
    """Tell of a number or vector whether it is finite, every part of it; null where it is null."""
    if not width(kind):
        return pl.col(name).is_finite()
    whole = pl.element().is_finite().fill_null(value=False).all()
    return pl.col(name).arr.eval(whole, as_list=True).list.first()


def without_vectors(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which each vector ``v`` is as many columns as it is wide.

    >>> frame = pl.DataFrame({"v": [[0.5, 2.0], None], "n": [1, 2]}, schema_overrides={"v": pl.Array(pl.Float64, 2)})
    >>> without_vectors(frame).to_dict(as_series=False)
    {'v[0]': [0.5, None], 'v[1]': [2.0, None], 'n': [1, 2]}
    """
    parts: list[pl.Expr] = []
    for name, kind in frame.schema.items():
        parts += [pl.col(name).arr.get(n).alias(f"{name}[{n}]") for n in range(width(kind))] or [pl.col(name)]
    return frame.select(parts)


def bits(values: pl.Series) -> pl.Series:
    """Return Float64 values, in vectors too, as the integers that have their bits: 0.0 is not -0.0."""
    if values.dtype == pl.Float64:
        return values.reinterpret(dtype=pl.Int64)
    if width(values.dtype) and values.dtype.inner == pl.Float64:  # type: ignore[attr-defined]  # an Array, as it is wide
        return values.arr.to_list().list.eval(pl.element().reinterpret(dtype=pl.Int64))
    return values
