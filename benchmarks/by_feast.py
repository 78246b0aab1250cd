"""Peers of the benchmark ``training_set`` that go through Feast, whose import takes seconds: one store a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64

from benchmarks.training_set import FEATURES, TTL

LOCKSTEP = "lockstep.polars_store.PolarsOfflineStore"


@cache
def store(offline: str, folder: str) -> FeatureStore:
    """Return a store of the history in `folder`, with a registry of its own."""
    own = Path(folder) / offline
    own.mkdir(exist_ok=True)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(own / "registry.db"),
        online_store={"type": "sqlite", "path": str(own / "online.db")},
        offline_store={"type": offline},
        entity_key_serialization_version=3,
        repo_path=own,
    )
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)
    view = FeatureView(
        name="v",
        entities=[entity],
        ttl=TTL,
        schema=[Field(name="entity", dtype=Int64), *(Field(name=name, dtype=Float64) for name in FEATURES)],
        source=FileSource(
            path=f"{folder}/history.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
        ),
    )
    found = FeatureStore(config=config)
    found.apply([entity, view])
    return found


def lockstep_polars(folder: str, n: int) -> Callable[[], pl.DataFrame]:
    """Return a retrieval by our store, Polars in and out."""
    asked, ours = pl.read_parquet(f"{folder}/asked-{n}.parquet"), store(LOCKSTEP, folder)
    return lambda: ours.get_historical_features(asked, [f"v:{name}" for name in FEATURES]).to_polars()


def lockstep_arrow(folder: str, n: int) -> Callable[[], pa.Table]:
    """Return a retrieval by our store, Arrow in and out."""
    asked, ours = pq.read_table(f"{folder}/asked-{n}.parquet"), store(LOCKSTEP, folder)
    return lambda: ours.get_historical_features(asked, [f"v:{name}" for name in FEATURES]).to_arrow()


def _pandas(offline: str, folder: str, n: int) -> Callable[[], pd.DataFrame]:
    """Return a retrieval by the store `offline`, pandas in and out: what all of Feast's own stores take and give."""
    asked, peer = pd.read_parquet(f"{folder}/asked-{n}.parquet"), store(offline, folder)
    return lambda: peer.get_historical_features(asked, [f"v:{name}" for name in FEATURES]).to_df()


lockstep_pandas = partial(_pandas, LOCKSTEP)
dask = partial(_pandas, "dask")
duckdb = partial(_pandas, "duckdb")
