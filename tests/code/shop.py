"""A small Feast project for the tests of the offline store: one entity, rows that can be checked by eye."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

MICRO = timedelta(microseconds=1)
INSTANT = pl.Datetime("us", "UTC")
NOON = datetime(2017, 6, 1, 12, tzinfo=UTC)
CUSTOMER = Entity(name="customer", join_keys=["id"], value_type=ValueType.INT64)
SCHEMA = [Field(name="id", dtype=Int64), Field(name="n", dtype=Int64), Field(name="x", dtype=Float64)]

Make = Callable[..., FeatureStore]


def versions(*rows: tuple[int | None, datetime | None, datetime | None, int | None, float | None]) -> pl.DataFrame:
    """Return feature rows (id, event time, created, n, x)."""
    schema = {"id": pl.Int64, "at": INSTANT, "made": INSTANT, "n": pl.Int64, "x": pl.Float64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def write(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def source(path: str = "rows.parquet", **more: Any) -> FileSource:
    return FileSource(path=path, timestamp_field="at", created_timestamp_column="made", **more)


def view(name: str = "stats", ttl: timedelta | None = None, **more: Any) -> FeatureView:
    return FeatureView(
        **{"name": name, "entities": [CUSTOMER], "schema": SCHEMA, "source": source(), "ttl": ttl, **more}
    )


def asking(*rows: tuple[int | None, datetime | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"id": pl.Int64, "event_timestamp": INSTANT}, orient="row")


def ask(store: FeatureStore, entity_df: Any, *features: str, **more: Any) -> Any:
    return store.get_historical_features(entity_df, list(features) or ["stats:n"], **more)
