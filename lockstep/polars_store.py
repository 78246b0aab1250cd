"""A Feast offline store in Polars: point-in-time joins that keep every row, its order and its types.

One line in any ``feature_store.yaml``, for parquet file sources::

    offline_store: {type: lockstep.polars_store.PolarsOfflineStore}

What it promises beyond Feast's own file stores: the later created of two versions wins, always; an entity row is never
dropped, merged or moved; an integer stays an integer beside nulls; and what cannot be joined as it is declared (a text
key against numbers, a file without the column, half a file) is an error that names it, never a smaller frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import OnDemandFeatureView
from feast.errors import (
    EntityTimestampInferenceException,
    FeastEntityDFMissingColumnsError,
    RequestDataNotFoundInEntityDfException,
)
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _parse_feature_ref, compute_non_entity_date_range
from pydantic import StrictStr, field_validator

from lockstep.errors import DefinitionError, UserError
from lockstep.polars_history import History, instant_type
from lockstep.polars_job import PolarsRetrievalJob, table_of
from lockstep.polars_parquet import ParquetFiles
from lockstep.polars_types import arrow_schema, conform, fits, frame

__all__ = ["PolarsOfflineStore", "PolarsOfflineStoreConfig", "PolarsRetrievalJob"]


class PolarsOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast ships no types
    """Settings of the store.

    Parameters
    ----------
    ttl_zone
        An IANA zone such as ``America/New_York``. When set, a TTL of whole days counts that zone's calendar days,
        which have 23 or 25 hours when clocks change: a value counts from the same wall clock `n` days earlier on.
        Without it, and for any other TTL, time is plainly elapsed time.
    """

    type: StrictStr = "lockstep.polars_store.PolarsOfflineStore"
    ttl_zone: StrictStr | None = None

    @field_validator("ttl_zone")
    @classmethod
    def _known(cls, zone: str | None) -> str | None:
        try:
            return zone and ZoneInfo(zone).key
        except (KeyError, OSError):
            raise ValueError(f"{zone!r} is no IANA time zone") from None


class PolarsOfflineStore(OfflineStore):  # type: ignore[misc]  # Feast ships no types
    """Point-in-time joins in Polars; Feast's base class says what each method is for."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """Join the latest values as of each row's timestamp to `entity_df`, which keeps its rows, order and types.

        It may be pandas, Polars (lazy too), Arrow, or whatever speaks Arrow; SQL text is refused.

        Without an `entity_df`, the rows are the entities seen from `start_date` to `end_date`, asked at `end_date`.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted = _wanted(feature_refs, feature_views, on_demand, full_feature_names)
        histories = [
            _history(view, {out: f for out, (v, f) in wanted.items() if v is view}, config.repo_path)
            for view in {id(view): view for view, _ in wanted.values()}.values()
        ]
        if entity_df is None:
            span = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            asking = _everyone(histories, *span)
        else:
            asking = frame(entity_df)
        at = _timestamp_column(asking.schema)
        _check(asking, at, histories, wanted, on_demand)
        how = {"zone": config.offline_store.ttl_zone, "known": filter_by_created_timestamp}

        def rows() -> pl.DataFrame:
            found = {column.name: column for h in histories for column in h.as_of(asking, at, **how)}
            return asking.hstack([found[name] for name in wanted])

        return PolarsRetrievalJob(
            rows,
            config.repo_path,
            full_feature_names,
            on_demand,
            _metadata(asking, at, feature_refs),
        )

    @staticmethod
    def _pull(  # noqa: PLR0917 - Feast's signature
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        *,
        latest: bool,
    ) -> PolarsRetrievalJob:
        """Return the rows from `start_date` to `end_date`, both included: all as they lie, or the latest of each key.

        Without `feature_name_columns`, they have all columns; without keys, the one that Feast expects then.
        """
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        history = _as_stored(data_source, config.repo_path, *columns)

        def rows() -> pl.DataFrame:
            found = history.pull(start_date, end_date, latest=latest)
            return found if history.keys else found.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))

        return PolarsRetrievalJob(rows, config.repo_path)

    pull_latest_from_table_or_query = staticmethod(partial(_pull, latest=True))
    pull_all_from_table_or_query = staticmethod(partial(_pull, latest=False))

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: Any, table: pa.Table, progress: Callable[[int], Any] | None = None
    ) -> None:
        """Add rows to the source of a view, under their stored or their mapped names."""
        source = feature_view.batch_source
        place = table_of(source, config.repo_path)
        schema, stored = arrow_schema(place.schema), {new: old for old, new in (source.field_mapping or {}).items()}
        names = [name if name in schema.names else stored.get(name, name) for name in table.column_names]
        place.append(conform(table.rename_columns(names), schema, place.where))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(config: Any, data: Any, source: Any, logging_config: Any, registry: Any) -> None:
        """Add what was served, a table or a folder of parquet files, to the folder of the logging destination."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            found = type(destination).__name__
            raise DefinitionError("not a destination of logs here", expected="a FileLoggingDestination", found=found)
        rows = pq.read_table(data) if isinstance(data, Path) else data
        place = table_of(destination.to_data_source(), config.repo_path)
        assert isinstance(place, ParquetFiles)
        place.append(conform(rows, source.get_schema(registry), place.path), destination.partition_by)

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        """Raise DataError where a source cannot be read, or lacks its timestamps."""
        clocks = (data_source.timestamp_field, data_source.created_timestamp_column)
        history = _as_stored(data_source, config.repo_path, [], [], *clocks)
        for column in filter(None, clocks):
            history.instants(column)

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """Return what Feast infers schemas from; unlike Feast's own reading it knows patterns, and Polars' text."""
        schema = arrow_schema(table_of(data_source, config.repo_path).schema)
        return zip(schema.names, map(str, schema.types), strict=True)


def _wanted(
    refs: Sequence[str], views: Sequence[Any], on_demand: Sequence[Any], full: bool
) -> dict[str, tuple[Any, str]]:
    """Return output column -> (view, feature) for every stored feature, in the order asked.

    Feast appends what on-demand views need from a set, in an order that changes with the hash seed: the references
    behind the last one that no on-demand view needs are put in the order of those views' sources.
    """
    sources = [p for view in on_demand for p in view.source_feature_view_projections.values()]
    needed = [f"{p.name}:{field.name}" for p in sorted(sources, key=lambda p: p.name) for field in p.features]
    last = max((n for n, ref in enumerate(refs) if ref not in needed), default=-1)
    tail = sorted(refs[last + 1 :], key=needed.index) if on_demand else []
    by_name = {view.projection.name_to_use(): view for view in views}
    wanted: dict[str, tuple[Any, str]] = {}
    for ref in [*refs[: len(refs) - len(tail)], *tail]:
        name, version, feature = _parse_feature_ref(ref)
        view = by_name.get(name if version is None else f"{name}@v{version}")
        if view is None:  # a reference to an on-demand feature
            continue
        column = f"{view.projection.name_alias or view.name}__{feature}" if full else feature
        if column in wanted:
            raise UserError(f"two features are called {column}", do="Ask for full_feature_names, or for one at a time.")
        wanted[column] = (view, feature)
    return wanted


def _history(view: Any, outputs: dict[str, str], repo_path: Path | None) -> History:
    """Return where the features of a view are stored, after comparing their types with the view's schema."""
    source = view.batch_source
    stored = {new: old for old, new in (source.field_mapping or {}).items()} if source else {}
    aliases = view.projection.join_key_map
    history = History(
        view=view.projection.name_to_use(),
        table=table_of(source, repo_path, f" (view {view.name})"),
        keys={
            stored.get(key.name, key.name): aliases.get(key.name, key.name)
            for key in view.entity_columns
            if key.name != DUMMY_ENTITY_ID
        },
        features={output: stored.get(feature, feature) for output, feature in outputs.items()},
        time=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl or None,
    )
    declared = {field.name: field.dtype for field in view.features}
    for output, feature in outputs.items():
        found = history.schema[history.features[output]]
        if feature in declared and not fits(found, declared[feature]):
            what, where = f"feature {feature} of view {view.name} is not of its declared type", history.table.where
            do = "Change the schema of the view, or write the column in that type."
            raise DefinitionError(what, where=where, expected=declared[feature], found=found, do=do)
    return history


def _as_stored(  # noqa: PLR0917 - as Feast names them
    source: Any, repo_path: Path | None, keys: list[str], features: list[str], time: str, created: str | None
) -> History:
    """Return a source as it lies; without `features`, all its columns."""
    table = table_of(source, repo_path)
    same_names = {name: name for name in features or table.schema}
    return History(source.name, table, {name: name for name in keys}, same_names, time, created or None)


def _everyone(histories: list[History], start: datetime, end: datetime) -> pl.DataFrame:
    """Return one row at `end` for every key seen from `start` to `end` in any of the views."""
    asked = {tuple(sorted(history.keys.values())) for history in histories}
    if len(asked) != 1:
        raise UserError("views of different entities cannot be asked without an entity_df", found=sorted(asked))
    (names,) = asked
    at = pl.lit(end.astimezone(UTC)).alias("event_timestamp")
    if not names:
        return pl.select(at)
    rows = [replace(history, features={}).pull(start, end, latest=True) for history in histories]
    keys = [
        frame.select(pl.col(key).alias(name) for key, name in history.keys.items()).select(names)
        for frame, history in zip(rows, histories, strict=True)
    ]
    return pl.concat(keys, how="vertical_relaxed").drop_nulls().unique().sort(names).with_columns(at)


def _timestamp_column(schema: pl.Schema) -> str:
    """Return ``event_timestamp`` or the only datetime column, as Feast does."""
    datetimes = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    if "event_timestamp" in schema:
        return "event_timestamp"
    if len(datetimes) != 1:
        raise EntityTimestampInferenceException("event_timestamp")
    return datetimes[0]


def _check(
    asking: pl.DataFrame, at: str, histories: list[History], features: Iterable[str], on_demand: Sequence[Any]
) -> None:
    """Raise where the entity rows lack something, or have a column that a feature would overwrite."""
    instant_type(asking.schema, at, "entity_df")
    keys = {name for history in histories for name in history.keys.values()}
    if missing := keys - set(asking.columns):
        raise FeastEntityDFMissingColumnsError(sorted({at, *keys}), sorted(missing))
    for view in on_demand:  # Feast checks this for pandas only
        for name in view.get_request_data_schema():
            if name not in asking.columns:
                raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)
    if taken := [name for name in features if name in asking.columns]:
        raise UserError(
            f"entity_df already has the columns {', '.join(taken)}",
            do="Rename them, or ask for full_feature_names.",
        )


def _metadata(asking: pl.DataFrame, at: str, refs: list[str]) -> RetrievalMetadata:
    """Return what was asked, as Feast keeps it with a saved dataset."""
    instants = pl.col(at).cast(instant_type(asking.schema, at, "entity_df"))
    edges = asking.select(instants.min().alias("first"), instants.max().alias("last")).row(0)
    first, last = (edge if edge is None or edge.tzinfo else edge.replace(tzinfo=UTC) for edge in edges)
    return RetrievalMetadata(refs, [name for name in asking.columns if name != at], first, last)
