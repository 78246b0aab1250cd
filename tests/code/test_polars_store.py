"""The Feast plug-in, through a real FeatureStore: every row kept, the right version found, errors that name a file."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, Field, RequestSource, ValueType
from feast.dqm.errors import ValidationFailed
from feast.dqm.profilers.profiler import Profile, Profiler
from feast.errors import (
    FeastEntityDFMissingColumnsError,
    FeatureViewNotFoundException,
    SavedDatasetLocationAlreadyExists,
)
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_config import RepoConfig
from feast.types import Float32, Float64, Int32, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.errors import DataError, DefinitionError, UserError
from lockstep.polars_store import PolarsOfflineStoreConfig
from tests.code.shop import CUSTOMER, INSTANT, MICRO, NOON, SCHEMA, Make, ask, asking, source, versions, view, write

# Feast warns of every on-demand view that is applied; the advice (transform on write) is not about offline retrieval.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

# --- which version ---------------------------------------------------------------------------------------------------


def test_a_corrected_row_wins_by_its_created_time_wherever_it_lies(make: Make, tmp_path: Path) -> None:
    old, new = (1, NOON, NOON, 1, None), (1, NOON, NOON + MICRO, 2, None)
    store = make(CUSTOMER, view())
    for rows in ((old, new), (new, old)):
        write(tmp_path / "rows.parquet", versions(*rows))
        assert ask(store, asking((1, NOON))).to_polars()["n"].to_list() == [2]


def test_a_null_created_time_loses(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 1, None), (1, NOON, None, 2, None)))
    assert ask(make(CUSTOMER, view()), asking((1, NOON))).to_polars()["n"].to_list() == [1]


def test_equal_event_and_created_times_are_decided_by_the_whole_row_whatever_is_asked(
    make: Make, tmp_path: Path
) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 5, 0.1), (1, NOON, NOON, 3, 0.9)))
    store = make(CUSTOMER, view())
    both = ask(store, asking((1, NOON)), "stats:x", "stats:n").to_polars()
    assert both.rows()[0][2:] == (0.1, 5)  # columns compare in order of their names: at, id, made, n, x
    assert ask(store, asking((1, NOON)), "stats:x").to_polars()["x"].to_list() == [0.1]


def test_an_expired_value_leaves_a_row_with_null_that_is_still_an_integer(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 2**53 + 1, None)))
    job = ask(make(CUSTOMER, view(ttl=timedelta(hours=1))), asking((1, NOON), (1, NOON + timedelta(days=1)), (2, NOON)))
    assert job.to_polars()["n"].dtype == pl.Int64
    assert job.to_polars()["n"].to_list() == [2**53 + 1, None, None]
    assert job.to_arrow().column("n").to_pylist() == [2**53 + 1, None, None]
    assert job.to_df()["n"].dtype == pd.Int64Dtype()
    assert job.to_df()["n"][0] == 2**53 + 1


def test_a_ttl_includes_its_last_microsecond_and_the_future_is_never_seen(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, None)))
    hour = timedelta(hours=1)
    rows = asking((1, NOON - MICRO), (1, NOON), (1, NOON + hour), (1, NOON + hour + MICRO))
    assert ask(make(CUSTOMER, view(ttl=hour)), rows).to_polars()["n"].to_list() == [None, 7, 7, None]


@pytest.mark.parametrize("ttl", [None, timedelta(0), timedelta.max])
def test_no_ttl_means_for_ever(make: Make, tmp_path: Path, ttl: timedelta | None) -> None:
    write(tmp_path / "rows.parquet", versions((1, datetime(1970, 1, 1, tzinfo=UTC), NOON, 7, None)))
    definition = view()
    definition.ttl = ttl  # timedelta.max does not pass through the registry
    store = make(CUSTOMER, view(ttl=ttl) if ttl != timedelta.max else view(ttl=timedelta(days=100_000)))
    assert ask(store, asking((1, NOON))).to_polars()["n"].to_list() == [7]


@pytest.mark.parametrize(
    ("zone", "found"), [("America/New_York", [7, None, 7]), (None, [None, None, 7])], ids=["calendar", "elapsed"]
)
def test_a_ttl_of_days_counts_calendar_days_in_a_declared_zone(
    make: Make, tmp_path: Path, zone: str | None, found: list[int | None]
) -> None:
    midnight = [datetime(2017, 11, day, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC) for day in (5, 6)]
    assert midnight[1] - midnight[0] == timedelta(hours=25)
    write(tmp_path / "rows.parquet", versions((1, midnight[0], NOON, 7, None)))
    rows = asking((1, midnight[1]), (1, midnight[1] + MICRO), (1, midnight[0] + timedelta(hours=24)))
    store = make(CUSTOMER, view(ttl=timedelta(days=1)), offline={"ttl_zone": zone})
    assert ask(store, rows).to_polars()["n"].to_list() == found


def test_a_short_day_is_a_day_too_and_a_skipped_hour_has_an_answer(make: Make, tmp_path: Path) -> None:
    zone = ZoneInfo("America/New_York")
    spring, noon = datetime(2017, 3, 12, 3, tzinfo=zone), datetime(2017, 3, 11, 12, tzinfo=zone)
    write(tmp_path / "rows.parquet", versions((1, spring, NOON, 7, None), (2, noon, NOON, 8, None)))
    rows = asking(
        (1, datetime(2017, 3, 13, 2, tzinfo=zone)),  # a day before, 02:00 was skipped: 02:00 EST is 03:00 EDT
        (1, datetime(2017, 3, 13, 2, 0, 0, 1, tzinfo=zone)),
        (2, datetime(2017, 3, 12, 12, tzinfo=zone)),  # 23 hours later
        (2, datetime(2017, 3, 12, 12, 0, 0, 1, tzinfo=zone)),
    )
    store = make(CUSTOMER, view(ttl=timedelta(days=1)), offline={"ttl_zone": zone.key})
    assert ask(store, rows).to_polars()["n"].to_list() == [7, None, 8, None]


def test_an_unknown_zone_is_refused_when_the_settings_are_read() -> None:
    with pytest.raises(ValueError, match="'New York' is no IANA time zone"):
        PolarsOfflineStoreConfig(ttl_zone="New York")


def test_what_was_created_later_can_be_hidden_from_earlier_rows(make: Make, tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    late = versions(
        (1, NOON, NOON, 1, None), (1, NOON, NOON + 2 * hour, 2, None), (1, NOON - hour, NOON + hour, 3, None)
    )
    write(tmp_path / "rows.parquet", late)
    rows = asking((1, NOON), (1, NOON + hour), (1, NOON + 2 * hour), (1, NOON - hour))
    store = make(CUSTOMER, view())
    assert ask(store, rows).to_polars()["n"].to_list() == [2, 2, 2, 3]
    assert ask(store, rows, filter_by_created_timestamp=True).to_polars()["n"].to_list() == [1, 1, 2, None]
    write(tmp_path / "rows.parquet", versions((1, NOON, None, 1, None)))  # created nobody knows when
    assert ask(store, rows).to_polars()["n"].to_list() == [1, 1, 1, None]
    assert ask(store, rows, filter_by_created_timestamp=True).to_polars()["n"].to_list() == [None] * 4


def test_nanoseconds_are_not_rounded_away(make: Make, tmp_path: Path) -> None:
    ns = pl.Series("at", [1_000_000_500]).cast(pl.Datetime("ns", "UTC"))
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, None)).with_columns(ns))
    rows = pl.DataFrame({"id": [1, 1], "event_timestamp": pl.Series([1_000_000_499, 1_000_000_500]).cast(ns.dtype)})
    store = make(CUSTOMER, view())
    assert ask(store, rows).to_polars()["n"].to_list() == [None, 7]
    assert ask(store, asking((1, NOON))).to_polars()["n"].to_list() == [7]  # microseconds asked of nanoseconds


# --- what comes back -------------------------------------------------------------------------------------------------


def test_every_row_stays_in_place_with_its_duplicates_nulls_and_types(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5), (None, NOON, NOON, 9, 9.0)))
    rows = pl.DataFrame(
        {
            "label": pl.Series([3, None, 1, 1, 0, 2], dtype=pl.Int8),
            "event_timestamp": pl.Series([NOON + MICRO * 1000, NOON, None, NOON, NOON, NOON]).cast(
                pl.Datetime("ms", "UTC")
            ),
            "id": pl.Series([2, 1, 1, None, 1, 1], dtype=pl.Int32),
            "kind": pl.Series(list("ababab"), dtype=pl.Categorical),
        }
    )
    found = ask(make(CUSTOMER, view()), rows, "stats:x", "stats:n").to_polars()
    assert found.columns == ["label", "event_timestamp", "id", "kind", "x", "n"]
    assert found.select(rows.columns).equals(rows)
    assert found.select(rows.columns).schema == rows.schema
    assert found["n"].to_list() == [None, 7, None, None, 7, 7]
    assert found["x"].to_list() == [None, 0.5, None, None, 0.5, 0.5]


@pytest.mark.parametrize("dtype", [pl.Datetime("us"), pl.Datetime("us", "America/New_York"), pl.Datetime("ns", "UTC")])
def test_an_entity_time_keeps_its_own_type_and_a_naive_one_is_utc(
    make: Make, tmp_path: Path, dtype: pl.Datetime
) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, None)))
    rows = asking((1, NOON), (1, NOON - MICRO)).with_columns(pl.col("event_timestamp").cast(dtype))
    if dtype.time_zone is None:
        assert rows["event_timestamp"][0] == NOON.replace(tzinfo=None)
    job = ask(make(CUSTOMER, view()), rows)
    assert job.to_polars().schema["event_timestamp"] == dtype
    assert pl.DataFrame(job.to_arrow()).schema["event_timestamp"] == dtype
    assert job.to_polars()["n"].to_list() == [7, None]


def test_naive_feature_times_are_utc(make: Make, tmp_path: Path) -> None:
    naive = versions((1, NOON, NOON, 7, None)).with_columns(pl.col("at", "made").dt.replace_time_zone(None))
    write(tmp_path / "rows.parquet", naive)
    store = make(CUSTOMER, view())
    assert ask(store, asking((1, NOON - MICRO), (1, NOON))).to_polars()["n"].to_list() == [None, 7]


def test_a_pandas_frame_comes_back_row_by_row(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    rows = pd.DataFrame(
        {
            "id": pd.array([1, None, 1, 1], dtype="Int64"),
            "event_timestamp": [NOON, NOON, pd.NaT, NOON],
            "who": list("dcba"),
        },
        index=[9, 9, 1, 0],
    )
    found = ask(make(CUSTOMER, view()), rows).to_df()
    assert list(found.index) == [0, 1, 2, 3]
    assert found["who"].tolist() == list("dcba")
    assert found["id"].dtype == pd.Int64Dtype()
    assert found["event_timestamp"].dtype == rows["event_timestamp"].dtype
    assert found["n"].tolist() == [7, pd.NA, pd.NA, 7]


def test_frames_of_no_rows_and_histories_without_a_match_have_types(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, view(ttl=timedelta(days=1)), offline={"ttl_zone": "America/New_York"})
    for rows in (asking(), asking((None, None)), asking((1, NOON - timedelta(days=99)))):
        found = ask(store, rows, "stats:n", "stats:x").to_polars()
        assert found.schema == {**rows.schema, "n": pl.Int64, "x": pl.Float64}
        assert found.rows() == [(*row, None, None) for row in rows.rows()]


def test_timestamps_of_several_zones_in_one_pandas_column_are_the_instants_that_they_are(
    make: Make, tmp_path: Path
) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    late = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    rows = pd.DataFrame({"id": [1] * 4, "event_timestamp": [NOON, late, late - MICRO, NOON.replace(tzinfo=None)]})
    assert ask(make(CUSTOMER, view()), rows).to_polars()["n"].to_list() == [7, 7, None, 7]


@pytest.mark.parametrize("kind", ["lazy", "arrow table", "arrow batch", "arrow stream", "pandas"])
def test_entity_rows_may_come_in_any_form_of_a_table(make: Make, tmp_path: Path, kind: str) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    rows = asking((2, NOON), (1, NOON), (None, NOON))
    forms: dict[str, Callable[[], Any]] = {
        "lazy": rows.lazy,
        "arrow table": rows.to_arrow,
        "arrow batch": lambda: rows.to_arrow().to_batches()[0],
        "arrow stream": lambda: pa.RecordBatchReader.from_stream(rows.to_arrow()),
        "pandas": lambda: rows.to_arrow().to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get),
    }
    found = ask(make(CUSTOMER, view()), forms[kind]()).to_polars()
    assert found["id"].to_list() == [2, 1, None]
    assert found["n"].to_list() == [None, 7, None]


def test_what_is_no_table_is_refused_in_a_sentence(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, view())
    with pytest.raises(UserError, match=r"expected a pandas, Polars or Arrow table, found SQL text. Run the query"):
        ask(store, "select 1")
    with pytest.raises(UserError, match=r"found list"):
        ask(store, [1])
    mixed = pd.DataFrame({"id": [1, "1"], "event_timestamp": [NOON, NOON]})
    with pytest.raises(UserError, match=r"values of several types in entity_df id: found .* 'Int64' or 'string'"):
        ask(store, mixed)
    twice = pd.DataFrame([[1, 1, NOON]], columns=["id", "id", "event_timestamp"])
    with pytest.raises(UserError, match=r"entity_df has two columns of one name: found id"):
        ask(store, twice)
    for untyped in (["2017-06-01"], []):  # pandas guesses text or floats
        with pytest.raises(UserError, match="column event_timestamp is no instant in entity_df: expected a Datetime"):
            ask(store, pd.DataFrame({"id": [1] * len(untyped), "event_timestamp": untyped}))
    with pytest.raises(UserError, match=r"key id .* expected Int64, found Float64 in entity_df. .* 'Int64'"):
        ask(store, pd.DataFrame({"id": [1, None], "event_timestamp": [NOON, NOON]})).to_df()


def test_arrow_is_one_chunk_of_types_that_feast_reads_as_they_are(make: Make, tmp_path: Path) -> None:
    for day in range(3):
        write(tmp_path / f"rows/{day}.parquet", versions((day, NOON, NOON, day, None)))
    rows = pl.concat([asking((n, NOON)) for n in range(3)], rechunk=False).with_columns(pl.lit("a").alias("who"))
    table = ask(make(CUSTOMER, view(source=source("rows"))), rows).to_arrow()
    assert len(table.to_batches()) == 1
    assert str(table.schema.field("who").type) == "string"
    assert table.column("n").to_pylist() == [0, 1, 2]


# --- views, names, keys ----------------------------------------------------------------------------------------------


def test_features_of_several_views_come_in_the_order_asked(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    write(tmp_path / "pairs.parquet", versions((1, NOON, NOON, 8, 1.5)).with_columns(shop=pl.lit("b")))
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    pair = view(
        "pair",
        entities=[CUSTOMER, shop],
        source=source("pairs.parquet"),
        schema=[*SCHEMA, Field(name="shop", dtype=String)],
    )
    store = make(CUSTOMER, shop, view(), pair)
    rows = asking((1, NOON), (1, NOON)).with_columns(shop=pl.Series(["b", "a"]))
    found = ask(store, rows, "pair:n", "stats:x", "pair:x", full_feature_names=True).to_polars()
    assert found.columns[3:] == ["pair__n", "stats__x", "pair__x"]
    assert found.rows() == [(1, NOON, "b", 8, 0.5, 1.5), (1, NOON, "a", None, 0.5, None)]
    with pytest.raises(FeastEntityDFMissingColumnsError, match="'shop'"):
        ask(store, asking((1, NOON)), "pair:n")
    with pytest.raises(UserError, match="entity_df already has the columns n"):
        ask(store, rows.with_columns(n=1), "pair:n")


def test_one_view_serves_two_entity_columns(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5), (2, NOON, NOON, 8, 1.5)))
    store = make(CUSTOMER, stats := view())
    service = FeatureService(
        name="both",
        features=[
            stats[["n"]].with_name("buyer").with_join_key_map({"id": "buyer_id"}),
            stats[["x", "n"]].with_name("payer").with_join_key_map({"id": "payer_id"}),
        ],
    )
    store.apply([service])
    rows = pl.DataFrame({"buyer_id": [1, 2, 1], "payer_id": [2, 1, 3], "event_timestamp": [NOON] * 3})
    found = store.get_historical_features(rows, service, full_feature_names=True).to_polars()
    assert found.columns[3:] == ["buyer__n", "payer__x", "payer__n"]
    assert found.select("buyer__n", "payer__x", "payer__n").rows() == [(7, 1.5, 8), (8, 0.5, 7), (7, None, None)]


def test_mapped_fields_are_found_under_their_stored_names(make: Make, tmp_path: Path) -> None:
    names = {"id": "key", "at": "when", "made": "landed", "n": "count"}
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 6, 0.5), (1, NOON, NOON + MICRO, 7, 0.5)).rename(names))
    mapped = source(field_mapping={new: old for old, new in names.items()})
    store = make(CUSTOMER, view(source=mapped))
    assert ask(store, asking((1, NOON)), "stats:n", "stats:x").to_polars().rows() == [(1, NOON, 7, 0.5)]
    store.materialize(NOON - MICRO, NOON)
    assert store.get_online_features(["stats:n"], [{"id": 1}]).to_dict()["n"] == [7]


def test_a_view_without_entities_has_one_history(make: Make, tmp_path: Path) -> None:
    rows = versions((1, NOON + MICRO, NOON, 8, 1.5), (1, NOON, NOON, 7, 0.5))
    write(tmp_path / "rows.parquet", rows.drop("id"))
    store = make(CUSTOMER, view("world", entities=[], schema=SCHEMA[1:]))
    assert ask(store, asking((5, NOON), (6, NOON + MICRO)), "world:n").to_polars()["n"].to_list() == [7, 8]
    store.materialize(NOON, NOON + MICRO)
    assert store.get_online_features(["world:n"], [{"id": 5}]).to_dict()["n"] == [8]


@pytest.mark.parametrize("path", ["rows", "rows/", "rows/*.parquet", "./rows/../rows", "{here}/rows"])
def test_a_folder_can_be_named_in_many_ways(make: Make, tmp_path: Path, path: str) -> None:
    write(tmp_path / "rows/1.parquet", versions((1, NOON, NOON, 7, 0.5)))
    write(tmp_path / "rows/2.parquet", versions((2, NOON, NOON, 8, 1.5)).with_columns(more=1))
    write(tmp_path / "rows/_half.parquet", versions((2, NOON, NOON, 9, 1.5)))
    (tmp_path / "rows/.3.parquet.part").write_text("half")
    store = make(CUSTOMER, view(source=source(path.format(here=tmp_path))))
    assert ask(store, asking((1, NOON), (2, NOON))).to_polars()["n"].to_list() == [7, 8]


def test_feast_can_infer_a_schema_from_a_pattern_and_text_is_text(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/1.parquet", versions((1, NOON, NOON, 7, 0.5)).with_columns(s=pl.lit("a")))
    store = make(CUSTOMER, view(schema=[], source=source("rows/*.parquet")))
    types = {field.name: field.dtype for field in store.get_feature_view("stats").features}
    assert types == {"n": Int64, "x": Float64, "s": String}


def test_without_rows_to_ask_for_everyone_seen_in_the_span_is_answered_at_its_end(make: Make, tmp_path: Path) -> None:
    day = timedelta(days=1)
    rows = versions(
        (2, NOON, NOON, 2, None),
        (1, NOON, NOON, 1, None),
        (1, NOON + day, NOON, 9, None),
        (3, NOON - day, NOON, 3, None),
    )
    write(tmp_path / "rows.parquet", rows)
    store = make(CUSTOMER, view())
    job = store.get_historical_features(features=["stats:n"], start_date=NOON, end_date=NOON + day - MICRO)
    assert job.to_polars().rows() == [(1, NOON + day - MICRO, 1), (2, NOON + day - MICRO, 2)]
    other = view("other", entities=[], schema=[Field(name="x", dtype=Float64)])
    with pytest.raises(UserError, match=r"views of different entities cannot be asked without an entity_df"):
        make(CUSTOMER, view(), other).get_historical_features(features=["stats:n", "other:x"], end_date=NOON)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_text_key_is_not_compared_with_numbers(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    rows = asking((1, NOON)).with_columns(pl.col("id").cast(pl.String))
    with pytest.raises(UserError, match=r"key id .* view stats .*expected Int64, found String in entity_df"):
        ask(make(CUSTOMER, view()), rows).to_polars()


def test_a_feature_that_is_stored_as_another_kind_than_declared_is_refused(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)).with_columns(pl.col("n").cast(pl.Float64)))
    with pytest.raises(DefinitionError, match=r"feature n of view stats .*expected Int64, found Float64"):
        ask(make(CUSTOMER, view()), asking((1, NOON)))


def test_a_number_may_be_wider_or_narrower_than_declared_and_comes_back_as_it_is_stored(
    make: Make, tmp_path: Path
) -> None:
    declared = [Field(name="n", dtype=Int32), Field(name="x", dtype=Float32)]
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 2**40, 0.1)))
    found = ask(make(CUSTOMER, view(schema=declared)), asking((1, NOON)), "stats:n", "stats:x").to_polars()
    assert found.rows() == [(1, NOON, 2**40, 0.1)]


def test_an_unknown_feature_is_reported_by_feast_itself(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, view())
    with pytest.raises(FeatureViewNotFoundException):
        ask(store, asking((1, NOON)), "statz:n")
    with pytest.raises(KeyError):
        ask(store, asking((1, NOON)), "stats:nn")


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> tuple[FeatureStore, Path]:
    for day in (1, 2, 3):
        write(tmp_path / f"rows/{day}.parquet", versions((1, NOON + timedelta(days=day), NOON, day, 0.5)))
    return make(CUSTOMER, view(source=source("rows"))), tmp_path / "rows"


@pytest.mark.parametrize("day", [1, 3])
def test_half_a_file_is_an_error_that_names_it_and_never_a_smaller_frame(
    folder: tuple[FeatureStore, Path], day: int
) -> None:
    store, rows = folder
    broken = rows / f"{day}.parquet"
    for end in (-9, 40, 0):
        broken.write_bytes(broken.read_bytes()[:end])
        with pytest.raises(DataError, match=rf"cannot read parquet in .*rows/{day}\.parquet \(view stats\)"):
            ask(store, asking((1, NOON + timedelta(days=2)))).to_polars()


@pytest.mark.parametrize("day", [1, 3])
def test_a_file_that_lacks_a_column_is_named_with_the_column(folder: tuple[FeatureStore, Path], day: int) -> None:
    store, rows = folder
    write(rows / f"{day}.parquet", pl.read_parquet(rows / f"{day}.parquet").rename({"n": "m"}))
    with pytest.raises(DataError, match=rf"no column n in .*rows/{day}\.parquet"):
        ask(store, asking((1, NOON + timedelta(days=2)))).to_polars()
    assert ask(store, asking((1, NOON + timedelta(days=2))), "stats:x").to_polars()["x"].to_list() == [0.5]


def test_a_file_whose_column_has_another_type_is_named(folder: tuple[FeatureStore, Path]) -> None:
    store, rows = folder
    write(rows / "2.parquet", pl.read_parquet(rows / "2.parquet").with_columns(pl.col("n").cast(pl.String)))
    with pytest.raises(DataError, match=r"column n changes its type in .*2\.parquet.*expected Int64 .*found String"):
        ask(store, asking((1, NOON + timedelta(days=9)))).to_polars()


def test_a_view_whose_file_holds_no_row_answers_null_and_puts_nobody_online(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions())
    store = make(CUSTOMER, view(ttl=timedelta(days=1)))
    assert ask(store, asking((1, NOON), (None, None))).to_polars().rows() == [(1, NOON, None), (None, None, None)]
    store.materialize(NOON - timedelta(days=1), NOON)
    assert store.get_online_features(["stats:n"], [{"id": 1}]).to_dict()["n"] == [None]
    everyone = store.get_historical_features(features=["stats:n"], start_date=NOON, end_date=NOON).to_polars()
    assert everyone.schema == {"id": pl.Int64, "event_timestamp": INSTANT, "n": pl.Int64}
    assert everyone.is_empty()


def test_a_source_without_files_is_an_error(folder: tuple[FeatureStore, Path]) -> None:
    store, rows = folder
    for file in rows.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no parquet file in .*rows"):
        ask(store, asking((1, NOON)))


def test_a_source_of_another_kind_is_refused(make: Make) -> None:
    store = make(CUSTOMER, view(source=source("gs://bucket/rows")))
    with pytest.raises(
        DefinitionError, match=r"not a source for this store in gs://.* expected a FileSource of parquet"
    ):
        ask(store, asking((1, NOON)))


# --- on demand, materialisation, saved datasets -----------------------------------------------------------------------


def on_demand(*sources: Any) -> Any:
    @on_demand_feature_view(
        sources=[*sources, RequestSource(name="now", schema=[Field(name="hour", dtype=Int64)])],
        schema=[Field(name="ratio", dtype=Float64), Field(name="twice", dtype=Int64)],
        mode="python",
    )
    def derived(columns: dict[str, Any]) -> dict[str, Any]:
        pairs = list(zip(columns["x"], columns["hour"], strict=True))
        return {
            "ratio": [None if x is None or hour is None else x / hour for x, hour in pairs],
            "twice": [None if n is None else 2 * n for n in columns["n"]],
        }

    return derived


def test_an_on_demand_view_gets_none_for_null_and_keeps_every_bit(make: Make, tmp_path: Path) -> None:
    values = [0.1, math.pi, -0.0, 5e-324, math.inf]
    write(tmp_path / "rows.parquet", versions(*((n, NOON, NOON, 2**53 + n, x) for n, x in enumerate(values))))
    store = make(CUSTOMER, stats := view(), on_demand(stats))
    rows = asking(*((n, NOON) for n in range(6))).with_columns(hour=pl.Series([7, 3, 1, 1, None, 1]))
    job = ask(store, rows, "derived:ratio", "derived:twice", "stats:x")
    expected = [(0.1 / 7).hex(), (math.pi / 3).hex(), "-0x0.0p+0", (5e-324).hex(), None, None]
    for found in (job.to_polars(), pl.DataFrame(job.to_arrow())):
        assert [x if x is None else x.hex() for x in found["ratio"]] == expected
        assert [x if x is None else x.hex() for x in found["x"]] == [*(x.hex() for x in values), None]
        assert found["twice"].to_list() == [2 * (2**53 + n) for n in range(5)] + [None]


def test_an_on_demand_feature_has_its_declared_type_also_when_all_is_null(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, stats := view(), on_demand(stats))
    rows = asking((9, NOON)).with_columns(hour=1)
    found = ask(store, rows, "derived:ratio", "derived:twice", full_feature_names=True).to_polars()
    assert found.schema["derived__ratio"] == pl.Float64
    assert found.schema["derived__twice"] == pl.Int64
    with pytest.raises(Exception, match="hour not found in the entity dataframe"):
        ask(store, asking((9, NOON)), "derived:ratio")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("text", r"expected int64, found (large_)?string \(another kind\)"),
        ("half", r"expected int64, found double \(Float value 1.50* was truncated.*\)"),
        ("number", r"expected string, found int64 \(another kind\)"),
    ],
)
def test_an_on_demand_feature_of_another_kind_is_named_with_its_declared_and_its_found_type(
    make: Make, tmp_path: Path, feature: str, said: str
) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))

    @on_demand_feature_view(
        sources=[stats := view(), RequestSource(name="now", schema=[Field(name="hour", dtype=Int64)])],
        schema=[Field(name="text", dtype=Int64), Field(name="half", dtype=Int64), Field(name="number", dtype=String)],
        mode="python",
    )
    def derived(columns: dict[str, Any]) -> dict[str, Any]:
        odd = columns["hour"] == [99]  # not when Feast tries it out
        values = ("7", 1.5, 7) if odd else (7, 1, "7")
        return {name: [value] * len(columns["hour"]) for name, value in zip(("text", "half", "number"), values)}  # noqa: B905

    store, rows = make(CUSTOMER, stats, derived), asking((1, NOON))
    assert ask(store, rows.with_columns(hour=1), f"derived:{feature}").to_polars().height == 1
    said = f"on-demand feature {feature} is not of its declared type in view derived: {said}. Change the schema"
    with pytest.raises(DefinitionError, match=said):
        ask(store, rows.with_columns(hour=99), f"derived:{feature}").to_polars()


def test_columns_that_only_an_on_demand_view_needs_come_in_the_order_of_its_sources(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, stats := view(), on_demand(stats))
    found = ask(store, asking((1, NOON)).with_columns(hour=1), "derived:ratio").to_polars()
    assert found.columns == ["id", "event_timestamp", "hour", "n", "x", "ratio"]


@pytest.mark.parametrize("latest", [True, False], ids=["pull_latest", "pull_all"])
def test_materialising_a_span_puts_the_latest_version_in_it_online(make: Make, tmp_path: Path, latest: bool) -> None:
    hour = timedelta(hours=1)
    write(
        tmp_path / "rows/1.parquet",
        versions((1, NOON, NOON + hour, 2, 0.1), (1, NOON, NOON, 1, 9.0), (2, NOON - hour, NOON, 5, None)),
    )
    write(
        tmp_path / "rows/2.parquet", versions((1, NOON + MICRO, NOON, 3, 9.0), (3, NOON - hour - MICRO, NOON, 6, 0.5))
    )
    store = make(CUSTOMER, view(source=source("rows")), materialization={"pull_latest_features": latest})
    store.materialize(NOON - hour, NOON)
    found = store.get_online_features(["stats:n", "stats:x"], [{"id": n} for n in (1, 2, 3)]).to_dict()
    assert found["n"] == [2, 5, None]
    assert found["x"][0] == 0.1
    assert found["x"][2] is None
    store.materialize(NOON + hour, NOON + 2 * hour)  # nothing in it: nothing changes
    assert store.get_online_features(["stats:n"], [{"id": 1}]).to_dict()["n"] == [2]


# Feast 0.67 warns so on every call of create_saved_dataset; there is no other way to save one.
@pytest.mark.filterwarnings("ignore:(Saving dataset|Retrieving datasets) is an experimental feature:RuntimeWarning")
def test_a_saved_dataset_comes_back_as_it_was_saved(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, stats := view(), on_demand(stats))
    rows = asking((2, NOON + MICRO), (1, NOON)).with_columns(hour=2)
    job = ask(store, rows, "stats:n", "derived:ratio")
    storage = SavedDatasetFileStorage("saved/set.parquet")
    saved = store.create_saved_dataset(job, "set", storage)
    assert saved.to_df()["n"].tolist() == [pd.NA, 7]
    assert pl.read_parquet(tmp_path / "saved/set.parquet").equals(job.to_polars())
    assert [p.name for p in (tmp_path / "saved").iterdir()] == ["set.parquet"]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    changed = ask(store, rows.with_columns(hour=4), "stats:n", "derived:ratio")
    changed.persist(storage, allow_overwrite=True)
    assert pl.read_parquet(tmp_path / "saved/set.parquet").equals(changed.to_polars())
    assert store.get_saved_dataset("set").to_df()["ratio"].fillna(-1).tolist() == [-1, 0.125]


class Types(Profile):
    """Expects of a frame the column types of the one that was profiled."""

    def __init__(self, dataset: pd.DataFrame) -> None:
        self.expected = dataset[["n", "twice"]].dtypes

    def validate(self, dataset: pd.DataFrame) -> Any:
        return SimpleNamespace(is_success=dataset[["n", "twice"]].dtypes.equals(self.expected))


class TypesProfiler(Profiler):
    def analyze_dataset(self, dataset: pd.DataFrame) -> Profile:
        return Types(dataset)


@pytest.mark.filterwarnings("ignore:(Saving dataset|Dataset validation) is an experimental feature:RuntimeWarning")
def test_what_is_validated_is_what_the_reference_was_made_of(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store = make(CUSTOMER, stats := view(), on_demand(stats))
    rows, features = asking((2, NOON), (1, NOON)).with_columns(hour=2), ("stats:n", "derived:twice")
    saved = store.create_saved_dataset(ask(store, rows, *features), "set", SavedDatasetFileStorage("saved.parquet"))
    reference = saved.as_reference("types", TypesProfiler())
    assert reference.profile.expected.to_dict() == dict.fromkeys(("n", "twice"), pd.Int64Dtype())  # beside nulls
    same, other = ask(store, rows, *features), ask(store, rows[1:], *features)
    for name in ("to_df", "to_arrow", "to_feast_df"):
        getattr(same, name)(validation_reference=reference)
        with pytest.raises(ValidationFailed) as failed:
            getattr(other, name)(validation_reference=reference)
        assert not failed.value.report.is_success


def test_a_result_is_the_only_file_of_its_folder(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    store, folder = make(CUSTOMER, view()), SavedDatasetFileStorage("saved")
    (tmp_path / "empty").mkdir()
    ask(store, asking((1, NOON))).persist(SavedDatasetFileStorage("empty"), allow_overwrite=True)
    ask(store, asking((1, NOON))).persist(folder)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        ask(store, asking((2, NOON))).persist(folder)
    ask(store, asking((2, NOON))).persist(folder, allow_overwrite=True)
    assert pl.read_parquet(tmp_path / "saved/*.parquet").rows() == [(2, NOON, None)]
    write(tmp_path / "saved/other.parquet", versions())
    with pytest.raises(UserError, match=r"other files lie in the folder in .*saved"):
        ask(store, asking((3, NOON))).persist(folder, allow_overwrite=True)


def test_what_makes_no_sense_for_files_is_refused_in_a_sentence(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", versions((1, NOON, NOON, 7, 0.5)))
    job = ask(make(CUSTOMER, view()), asking((1, NOON)))
    with pytest.raises(UserError, match="no SQL query"):
        job.to_sql()
    with pytest.raises(UserError, match="does not export in parts"):
        job.to_remote_storage()
    with pytest.raises(UserError, match="cannot persist: expected SavedDatasetFileStorage, found str"):
        job.persist("somewhere")


def run(folder: Path, *words: str) -> str:
    """Run Python in a process of its own that knows this library as an installed one."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "FEAST_USAGE": "False"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_store_knows_nothing_of_the_project_around_it(tmp_path: Path) -> None:
    code = "import sys, {}; print(*sorted(m for m in sys.modules if m.split('.')[0] in ('lockstep', 'feast')))"
    alone = ["lockstep.errors", "lockstep.files"]  # neither knows of a project
    tables = ["lockstep.polars_delta", "lockstep.polars_history", "lockstep.polars_join", "lockstep.polars_parquet"]
    assert run(tmp_path, "-c", code.format("lockstep.polars_history")).split() == [
        "lockstep",
        *alone,
        *tables,
    ]
    loaded = run(tmp_path, "-c", code.format("lockstep.polars_store")).split()
    of_feast = ["lockstep.polars_job", "lockstep.polars_store", "lockstep.polars_types"]
    assert {m for m in loaded if m.startswith("lockstep.")} == {*alone, *tables, *of_feast}


DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float32, Int64

driver = Entity(name="driver", join_keys=["driver_id"])
clocks = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
stats = FileSource(path="data/driver_stats.parquet", **clocks)
fields = [Field(name="conv_rate", dtype=Float32), Field(name="avg_daily_trips", dtype=Int64)]
live = PushSource(name="live", batch_source=stats)
view = FeatureView(name="hourly", entities=[driver], ttl=timedelta(days=1), schema=fields, source=live)
service = FeatureService(name="activity", features=[view])
"""
ASK = """
import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode

store, noon = FeatureStore("."), pd.Timestamp("2017-06-01 12:00", tz="UTC")
rows = pd.DataFrame({"driver_id": [2, 1, 2, 1], "event_timestamp": [noon, noon, noon, noon - pd.Timedelta(hours=1)]})
service = store.get_feature_service("activity")
print(store.get_historical_features(rows, service).to_df()["avg_daily_trips"].tolist())
print(store.get_online_features(service, [{"driver_id": 1}]).to_dict()["avg_daily_trips"])
new = {"driver_id": [1], "event_timestamp": [noon], "conv_rate": [0.5], "avg_daily_trips": [9], "created": [noon]}
store.push("live", pd.DataFrame(new).astype({"conv_rate": "float32"}), to=PushMode.ONLINE_AND_OFFLINE)
print(store.get_historical_features(rows, service).to_arrow()["avg_daily_trips"].to_pylist())
print(store.get_online_features(service, [{"driver_id": 1}]).to_dict()["avg_daily_trips"])
"""


def test_in_any_feast_project_one_line_of_yaml_is_all_that_changes(tmp_path: Path) -> None:
    project = tmp_path / "plain/feature_repo"
    (project / "data").mkdir(parents=True)
    yaml = "project: plain\nprovider: local\nregistry: data/registry.db\nentity_key_serialization_version: 3\n"
    yaml += "online_store: {type: sqlite, path: data/online_store.db}\n"
    line = "offline_store: {type: lockstep.polars_store.PolarsOfflineStore}\n"
    (project / "feature_store.yaml").write_text(yaml + line)
    (project / "definitions.py").write_text(DEFINITIONS)
    rows = [(1, NOON, 0.25, 7, NOON), (1, NOON, 0.75, 8, NOON - MICRO), (2, NOON - timedelta(days=2), 0.1, 5, NOON)]
    names = ["driver_id", "event_timestamp", "conv_rate", "avg_daily_trips", "created"]
    frame = pl.DataFrame(rows, schema=names, orient="row").cast({"conv_rate": pl.Float32})
    frame.to_pandas().to_parquet(project / "data/driver_stats.parquet")
    run(project, "-W", "ignore", "-m", "feast.cli.cli", "apply")
    run(project, "-W", "ignore", "-m", "feast.cli.cli", "materialize", "2017-06-01T00:00:00", "2017-06-02T00:00:00")
    said = run(project, "-W", "ignore", "-c", ASK).splitlines()
    assert said == ["[<NA>, 7, <NA>, <NA>]", "[7]", "[None, 9, None, None]", "[9]"]


# --- all of it against a plain oracle ---------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
TIMES = [NOON + hours * HOUR + micros * MICRO for hours in (0, 1, 2) for micros in (-1, 0, 1)]
Row = dict[str, Any]


def rows_of(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=12)


maybe = st.sampled_from([*TIMES, None])
ids = st.sampled_from([1, 1, 1, 2, None])  # few keys, or most rows would find nothing
history = rows_of(
    id=ids,
    k=st.sampled_from(["a", "a", "b", None]),
    at=maybe,
    made=maybe,
    n=st.one_of(st.none(), st.integers(0, 2)),
    x=st.sampled_from([0.1, 0.2]),
)
TYPES = {"id": pl.Int64, "k": pl.String, "at": INSTANT, "made": INSTANT, "n": pl.Int64, "x": pl.Float64}
ASKED = {"id": pl.Int64, "k": pl.String, "when": INSTANT, "label": pl.Int64}


def oracle(asked: Row, rows: list[Row], keys: list[str], ttl: timedelta | None, known: bool) -> Row:
    """Return the winning row, read off the definition."""

    def rank(row: Row) -> list[tuple[bool, Any]]:
        return [(row[c] is not None, row[c] or 0) for c in ("at", "made", *sorted(row))]

    def counts(row: Row) -> bool:
        if row["at"] is None or any(row[key] is None or row[key] != asked[key] for key in keys):
            return False
        if known and (row["made"] is None or row["made"] > asked["when"]):
            return False
        return row["at"] <= asked["when"] and (ttl is None or row["at"] >= asked["when"] - ttl)

    if asked["when"] is None:
        return {"n": None, "x": None}
    return max(
        filter(counts, rows), key=lambda row: [(a, b if a else 0) for a, b in rank(row)], default={"n": None, "x": None}
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Path]:
    """Return one store for all examples, which rewrite its files."""
    home = tmp_path_factory.mktemp("shop")
    second = Entity(name="second", join_keys=["k"], value_type=ValueType.STRING)
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(home / "registry.db"),
            offline_store={"type": "lockstep.polars_store.PolarsOfflineStore"},
            entity_key_serialization_version=3,
            repo_path=home,
        )
    )
    one = view("one", ttl=HOUR, source=source("one"))
    two = view(
        "two", entities=[CUSTOMER, second], source=source("two"), schema=[*SCHEMA, Field(name="k", dtype=String)]
    )
    store.apply([CUSTOMER, second, one, two])
    return store, home


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=rows_of(
        id=ids, k=st.sampled_from(["a", "a", "b", None]), when=maybe, label=st.one_of(st.none(), st.integers(0, 9))
    ),
    one=history,
    two=history,
    cut=st.integers(0, 12),
    known=st.booleans(),
)
def test_every_answer_is_the_one_of_a_plain_reading_of_the_rules(  # noqa: PLR0917 - Hypothesis passes by name
    shop: tuple[FeatureStore, Path], asked: list[Row], one: list[Row], two: list[Row], cut: int, known: bool
) -> None:
    store, home = shop
    for name, rows in (("one", one), ("two", two)):
        for part, some in enumerate((rows[:cut], rows[cut:])):
            write(home / name / f"{part}.parquet", pl.DataFrame(some, schema=TYPES))
    frame = pl.DataFrame(asked, schema=ASKED)
    features = ["two:n", "one:n", "one:x", "two:x"]
    found = store.get_historical_features(frame, features, full_feature_names=True, filter_by_created_timestamp=known)
    expected = []
    for row in asked:
        first, second = oracle(row, one, ["id"], HOUR, known), oracle(row, two, ["id", "k"], None, known)
        expected.append((*(row[c] for c in ASKED), second["n"], first["n"], first["x"], second["x"]))
    types = {"two__n": pl.Int64, "one__n": pl.Int64, "one__x": pl.Float64, "two__x": pl.Float64}
    truth = pl.DataFrame(expected, schema={**ASKED, **types}, orient="row")
    assert found.to_polars().equals(truth)
    assert found.to_polars().schema == truth.schema
    assert pl.DataFrame(found.to_arrow()).equals(truth)
