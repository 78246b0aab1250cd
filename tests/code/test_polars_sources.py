"""Where rows may lie: partitioned folders, S3 and Delta tables; and how rows are added there, whole or not at all."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import Entity, FeatureService, FeatureStore, Field, FileSource, PushSource
from feast.credentials import ConnectionRef, CredentialProvider, register_credential_provider
from feast.data_format import DeltaFormat
from feast.data_source import PushMode
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.types import Int64, String, UnixTimestamp

from lockstep.errors import DataError, DefinitionError, EnvironmentFault, UserError
from lockstep.polars_parquet import ParquetFiles
from tests.code.shop import CUSTOMER, MICRO, NOON, SCHEMA, Make, ask, asking, source, versions, view, write

HOUR = timedelta(hours=1)
TWO = versions((1, NOON, NOON, 7, 0.5), (2, NOON, NOON, 8, 1.5))
S3 = tuple[str, str, pafs.S3FileSystem]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- folders that tell a column ---------------------------------------------------------------------------------------


def shops(folder: Path, *values: str) -> None:
    for n, value in enumerate(values):
        write(folder / f"_day=2017-06-0{n + 1}/shop={value}/part.parquet", versions((1, NOON, NOON, n, 0.5)))


def of_shops(dtype: Any, path: str = "rows") -> list[Any]:
    shop = Entity(name="shop", join_keys=["shop"], value_type=dtype.to_value_type())
    schema = [*SCHEMA, Field(name="shop", dtype=dtype)]
    return [CUSTOMER, shop, view(entities=[CUSTOMER, shop], schema=schema, source=source(path))]


@pytest.mark.parametrize(
    ("names", "asked", "dtype"),
    [
        (("7", "-8"), [-8, 7, 9], Int64),
        (("07", "8"), ["8", "07", "7"], String),
        (("a%2Fb", "7"), ["7", "a/b", ""], String),
    ],
)
def test_a_key_can_be_told_by_folders_as_a_number_or_as_text(
    make: Make, tmp_path: Path, names: tuple[str, ...], asked: list[Any], dtype: Any
) -> None:
    shops(tmp_path / "env=5/rows", *names)
    store = make(*of_shops(dtype, "env=5/rows"))  # what lies above the source tells nothing
    rows = asking(*[(1, NOON)] * 3).with_columns(shop=pl.Series(asked))
    assert ask(store, rows).to_polars()["n"].to_list() == [1, 0, None]
    store.materialize(NOON - HOUR, NOON)
    online = store.get_online_features(["stats:n"], [{"id": 1, "shop": shop} for shop in asked])
    assert online.to_dict()["n"] == [1, 0, None]


def test_a_feature_can_be_told_by_folders_and_is_null_in_hives_word_for_it(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/n=12/a.parquet", versions((1, NOON, NOON, None, 0.5)).drop("n"))
    write(tmp_path / "rows/n=__HIVE_DEFAULT_PARTITION__/a.parquet", versions((2, NOON, NOON, None, 1.5)).drop("n"))
    store = make(CUSTOMER, view(source=source("rows"), schema=[]))
    assert {f.name: f.dtype for f in store.get_feature_view("stats").features}["n"] == Int64
    found = ask(store, asking((2, NOON), (1, NOON)), "stats:n", "stats:x").to_polars()
    assert found["n"].to_list() == [None, 12]
    assert found["n"].dtype == pl.Int64


def test_a_date_told_by_folders_is_a_date(tmp_path: Path) -> None:
    shops(tmp_path, "a", "b")
    files = ParquetFiles(str(tmp_path))
    assert files.partitions == {"_day": pl.Date, "shop": pl.String}
    assert files.scan().collect()["_day"].to_list() == [date(2017, 6, 1), date(2017, 6, 2)]


NEW_YORK, TOKYO = "America/New_York", "Asia/Tokyo"


@pytest.mark.parametrize("zones", [(NEW_YORK, "UTC", None), ("UTC", None, TOKYO), (None, NEW_YORK, "UTC")])
@pytest.mark.parametrize("path", ["rows/{}.parquet", "rows/day={}/part.parquet"])
def test_files_of_one_folder_may_label_their_instants_with_other_zones(
    make: Make, tmp_path: Path, zones: tuple[str | None, ...], path: str
) -> None:
    times = [NOON, NOON + HOUR, NOON + 2 * HOUR]
    for n, (zone, at) in enumerate(zip(zones, times, strict=True)):
        rows = versions((1, at, at, n, 0.5), (2, NOON, NOON, 7, 0.5)).with_columns(seen=pl.lit(at - MICRO))
        instants = pl.col("at", "made", "seen").dt.convert_time_zone(zone or "UTC")
        write(tmp_path / path.format(n), rows.with_columns(instants if zone else instants.dt.replace_time_zone(None)))
    schema = [*SCHEMA, Field(name="seen", dtype=UnixTimestamp)]
    store = make(CUSTOMER, view(source=source("rows"), schema=schema, ttl=HOUR - MICRO))
    rows = asking(*[(1, at + ago) for at in times for ago in (timedelta(0), HOUR - 2 * MICRO)])
    found = ask(store, rows, "stats:n", "stats:seen").to_polars()
    assert found["n"].to_list() == [0, 0, 1, 1, 2, 2]
    assert found["seen"].dt.epoch("us").to_list() == [int((at - MICRO).timestamp() * 1e6) for at in times for _ in "12"]
    store.materialize(NOON, NOON + HOUR)
    assert store.get_online_features(["stats:n"], [{"id": 1}]).to_dict()["n"] == [1]


def test_versions_that_differ_in_an_instant_alone_are_decided_by_it_also_across_zones(
    make: Make, tmp_path: Path
) -> None:
    for earlier in (1, 2):  # which of the files holds the earlier
        for file, zone in ((1, NEW_YORK), (2, "UTC")):
            seen = pl.lit(NOON if file == earlier else NOON + HOUR).dt.convert_time_zone(zone)
            write(tmp_path / f"rows/{file}.parquet", versions((1, NOON, NOON, 7, 0.5)).with_columns(seen=seen))
        schema = [*SCHEMA, Field(name="seen", dtype=UnixTimestamp)]
        store = make(CUSTOMER, view(source=source("rows"), schema=schema))
        assert ask(store, asking((1, NOON)), "stats:seen").to_polars()["seen"].to_list() == [NOON + HOUR]


def test_a_file_outside_the_partitions_is_named(make: Make, tmp_path: Path) -> None:
    shops(tmp_path / "rows", "a")
    write(tmp_path / "rows/stray.parquet", TWO)
    with pytest.raises(
        DataError, match=r"not partitioned .*stray\.parquet: expected folders of _day, shop, found none"
    ):
        ask(make(*of_shops(String)), asking((1, NOON)).with_columns(shop=pl.lit("a")))


def test_a_folder_above_the_source_that_names_a_stored_column_is_refused(tmp_path: Path) -> None:
    shops(tmp_path / "n=5", "a")
    with pytest.raises(DataError, match=r"column n is told by a folder above the source in .*n=5"):
        ParquetFiles(str(tmp_path / "n=5")).schema  # noqa: B018 - Polars would read 5 in place of what is stored


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.parquet", ["1.parquet", "22.parquet"]),
        ("?.parquet", ["1.parquet"]),
        ("[2-9]*.parquet", ["22.parquet"]),
        ("[!2-9]*.parquet", ["1.parquet"]),
        ("*/*.parquet", ["a/3.parquet"]),
        ("**/*.parquet", ["1.parquet", "22.parquet", "a/3.parquet", "a/b/4.parquet"]),
        ("a/**/4.*", ["a/b/4.parquet"]),
    ],
)
def test_patterns_mean_what_they_mean_in_a_shell(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("1", "22", "a/3", "a/b/4", "_5", "a/.6"):
        write(tmp_path / f"{name}.parquet", TWO)
    files = ParquetFiles(f"{tmp_path}/{pattern}").files
    assert [str(Path(file).relative_to(tmp_path)) for file in files] == found


# --- Delta ------------------------------------------------------------------------------------------------------------


def delta(path: str = "table", **more: Any) -> FileSource:
    return source(path, file_format=DeltaFormat(), **more)


def test_a_delta_table_is_read_at_its_latest_version_or_at_the_one_of_a_tag(make: Make, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "table", TWO)
    write_deltalake(tmp_path / "table", versions((1, NOON, NOON + MICRO, 9, None)), mode="append")
    write_deltalake(tmp_path / "table", TWO.head(0), mode="overwrite")
    rows = asking((2, NOON), (1, NOON))
    for version, found in (("0", [8, 7]), ("1", [8, 9]), (None, [None, None])):
        pinned = delta(tags={"delta_version": version} if version else {})
        store = make(CUSTOMER, view(source=pinned, schema=[]))
        assert ask(store, rows).to_polars()["n"].to_list() == found
        assert store.get_feature_view("stats").features == [f for f in SCHEMA if f.name != "id"]


def test_a_delta_table_is_materialised_and_pulled_like_files(make: Make, tmp_path: Path) -> None:
    late = versions((1, NOON, NOON + MICRO, 9, None), (2, NOON + MICRO, NOON, 5, None))
    write_deltalake(tmp_path / "table", pl.concat([late, TWO]), partition_by=["id"])
    store = make(CUSTOMER, view(source=delta()))
    store.materialize(NOON - HOUR, NOON)
    assert store.get_online_features(["stats:n"], [{"id": 1}, {"id": 2}]).to_dict()["n"] == [9, 8]
    job = store._get_provider().offline_store.pull_all_from_table_or_query(
        store.config, delta(), ["id"], ["n"], "at", "made", NOON, NOON
    )
    assert sorted(job.to_polars().rows()) == [(1, 7, NOON, NOON), (1, 9, NOON, NOON + MICRO), (2, 8, NOON, NOON)]


def test_rows_pushed_to_a_delta_table_are_a_new_version_of_it(make: Make, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "table", TWO)
    store = make(CUSTOMER, view(source=delta()))
    store.write_to_offline_store("stats", versions((1, NOON, NOON + MICRO, 9, None)).to_pandas())
    assert DeltaTable(tmp_path / "table").version() == 1
    assert ask(store, asking((1, NOON), (2, NOON))).to_polars()["n"].to_list() == [9, 8]
    store.apply([view(source=delta(tags={"delta_version": "0"}))])
    with pytest.raises(UserError, match=r"a source of one version cannot be written in .*table version 0\."):
        store.write_to_offline_store("stats", TWO.to_pandas())


def test_a_delta_table_that_is_not_there_or_lacks_a_column_is_named(make: Make, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "table", TWO.drop("x"))
    store = make(CUSTOMER, view(source=delta()), view("none", source=delta("nowhere")))
    with pytest.raises(DataError, match=r"no column x in .*table \(view stats\)"):
        ask(store, asking((1, NOON)), "stats:x")
    with pytest.raises(DataError, match=r"cannot read Delta table in .*nowhere"):
        ask(store, asking((1, NOON)), "none:x")
    file = next((tmp_path / "table").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"cannot read Delta table in .*table"):
        ask(store, asking((1, NOON)), "stats:n").to_polars()
    file.unlink()
    with pytest.raises(DataError, match=r"cannot read Delta table in .*table"):
        ask(store, asking((1, NOON)), "stats:n").to_polars()
    store.apply([view(source=delta(tags={"delta_version": "last"}))])
    with pytest.raises(DefinitionError, match=r"tag delta_version is no version .* expected a number, found last"):
        ask(store, asking((1, NOON)), "stats:n")


def test_without_the_library_a_delta_table_is_refused_in_a_sentence(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(CUSTOMER, view(source=delta()))
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(
        EnvironmentFault, match=r"Delta tables need a library: found no deltalake. pip install deltalake"
    ):
        ask(store, asking((1, NOON)))


def test_a_result_is_persisted_as_a_delta_table(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", TWO)
    job = ask(make(CUSTOMER, view()), asking((2, NOON), (1, NOON)))
    storage = SavedDatasetFileStorage("set", file_format=DeltaFormat())
    job.persist(storage)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)
    assert DeltaTable(tmp_path / "set").version() == 1
    assert pl.read_delta(str(tmp_path / "set")).sort("id").rows() == [(1, NOON, 7), (2, NOON, 8)]


# --- S3 ---------------------------------------------------------------------------------------------------------------


def put(s3: S3, name: str, frame: pl.DataFrame) -> None:
    with s3[2].open_output_stream(f"{s3[1].removeprefix('s3://')}/{name}") as stream:
        pq.write_table(frame.to_arrow(), stream)


def listed(s3: S3, folder: str = "") -> list[str]:
    where = f"{s3[1].removeprefix('s3://')}/{folder}"
    found = s3[2].get_file_info(pafs.FileSelector(where, recursive=True))
    return sorted(info.path.removeprefix(where) for info in found if info.type == pafs.FileType.File)


def in_s3(s3: S3, name: str, **more: Any) -> FileSource:
    return source(f"{s3[1]}/{name}", s3_endpoint_override=s3[0], **more)


@pytest.mark.parametrize("name", ["rows/1.parquet", "rows", "rows/", "rows/*.parquet", "**/*.parquet"])
def test_objects_in_s3_are_asked_and_pulled_like_files(make: Make, s3: S3, name: str) -> None:
    put(s3, "rows/1.parquet", TWO)
    put(s3, "rows/_half.parquet", versions((1, NOON, NOON + HOUR, 0, 0.0)))
    store = make(CUSTOMER, view(source=in_s3(s3, name), schema=[]))
    rows = asking((2, NOON), (3, NOON), (1, NOON))
    assert ask(store, rows, "stats:n", "stats:x").to_polars()["n"].to_list() == [8, None, 7]
    store.materialize(NOON - HOUR, NOON)
    assert store.get_online_features(["stats:n"], [{"id": 2}]).to_dict()["n"] == [8]
    pulled = store._get_provider().offline_store.pull_all_from_table_or_query(
        store.config, in_s3(s3, name), ["id"], ["n"], "at"
    )
    assert pulled.to_polars().rows() == [(1, 7, NOON), (2, 8, NOON)]


def test_a_partitioned_folder_in_s3_grows_by_what_is_pushed(make: Make, s3: S3) -> None:
    for shop in ("a", "b c"):
        put(s3, f"rows/shop={shop}/1.parquet", TWO)
    definitions = of_shops(String)
    definitions[-1].batch_source = in_s3(s3, "rows")
    store = make(*definitions)
    new = versions((1, NOON, NOON + MICRO, 9, None)).with_columns(shop=pl.lit("b c"))
    for _ in range(2):
        store.write_to_offline_store("stats", new.to_pandas())
    assert len(listed(s3, "rows/")) == 3
    asked = asking(*[(1, NOON)] * 3).with_columns(shop=pl.Series(["b c", "a", "c"]))
    assert ask(store, asked).to_polars()["n"].to_list() == [9, 7, None]


def test_a_delta_table_in_s3_is_read_and_written(make: Make, s3: S3) -> None:
    options = {"aws_endpoint_url": s3[0], "aws_allow_http": "true"}
    write_deltalake(f"{s3[1]}/table", TWO, storage_options=options)
    store = make(CUSTOMER, view(source=in_s3(s3, "table", file_format=DeltaFormat()), schema=[]))
    store.write_to_offline_store("stats", versions((1, NOON, NOON + MICRO, 9, None)).to_pandas())
    assert ask(store, asking((1, NOON), (2, NOON))).to_polars()["n"].to_list() == [9, 8]


# Feast 0.67 warns so on every call; there is no other way to save a dataset.
@pytest.mark.filterwarnings("ignore:(Saving dataset|Retrieving datasets) is an experimental feature:RuntimeWarning")
def test_a_dataset_is_saved_in_s3_and_comes_back(make: Make, s3: S3, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", TWO)
    store = make(CUSTOMER, view())
    job = ask(store, asking((2, NOON), (3, NOON)))
    storage = SavedDatasetFileStorage(f"{s3[1]}/saved/set.parquet", s3_endpoint_override=s3[0])
    store.create_saved_dataset(job, "set", storage)
    assert listed(s3) == ["saved/set.parquet"]
    assert store.get_saved_dataset("set").to_df()["n"].tolist() == [8, pd.NA]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)


def test_a_source_may_bring_its_own_credentials(make: Make, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    class Safe(CredentialProvider):
        def provider_type(self) -> str:
            return "safe"

        def resolve(self, ref: ConnectionRef) -> dict[str, str]:  # noqa: ARG002
            secrets = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a secret of the tests"}
            return {**secrets, "AWS_DEFAULT_REGION": "us-east-1", "SOMETHING": "else"}

    put(s3, "rows/1.parquet", TWO)
    register_credential_provider(Safe())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ref = ConnectionRef(provider="safe", name="shop")
    store = make(CUSTOMER, view(source=in_s3(s3, "rows", connection_ref=ref)))
    store.write_to_offline_store("stats", versions((1, NOON, NOON + MICRO, 9, None)).to_pandas())
    assert ask(store, asking((2, NOON), (1, NOON))).to_polars()["n"].to_list() == [8, 9]


def test_what_s3_has_to_say_is_said_in_a_sentence(make: Make, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, "rows/1.parquet", TWO)
    store = make(CUSTOMER, view(source=in_s3(s3, "rows")), view("none", source=in_s3(s3, "nothing")))
    single = view("single", source=in_s3(s3, "rows/1.parquet"))
    store.apply([single])
    with pytest.raises(DataError, match=r"no parquet file in s3://.*/nothing"):
        ask(store, asking((1, NOON)), "none:n")
    with pytest.raises(UserError, match=r"cannot add rows in s3://.*1\.parquet.* expected a folder, or a single local"):
        store.write_to_offline_store("single", TWO.to_pandas())
    with s3[2].open_output_stream(f"{s3[1].removeprefix('s3://')}/rows/2.parquet") as stream:
        stream.write(b"half")
    with pytest.raises(DataError, match=r"cannot read parquet in s3://.*/rows/2\.parquet \(view stats\)"):
        ask(store, asking((1, NOON))).to_polars()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong one")
    with pytest.raises(EnvironmentFault, match=r"in s3://.*/rows.*: found .*(ACCESS_DENIED|SIGNATURE_DOES_NOT_MATCH)"):
        ask(store, asking((1, NOON)))


# --- adding rows ------------------------------------------------------------------------------------------------------


def pushed(make: Make, path: str, **more: Any) -> FeatureStore:
    return make(CUSTOMER, view(source=PushSource(name="live", batch_source=source(path, **more))))


def test_a_push_to_a_folder_adds_a_file_and_the_same_push_again_adds_nothing(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/1.parquet", TWO)
    store, before = pushed(make, "rows"), contents(tmp_path / "rows")
    new = versions((1, NOON, NOON + MICRO, 9, None)).to_pandas()
    store.push("live", new, to=PushMode.ONLINE_AND_OFFLINE)
    after = contents(tmp_path / "rows")
    assert len(after) == 2
    assert before.items() <= after.items()
    store.push("live", new, to=PushMode.OFFLINE)
    assert contents(tmp_path / "rows") == after
    assert ask(store, asking((1, NOON), (2, NOON))).to_polars()["n"].to_list() == [9, 8]
    assert store.get_online_features(["stats:n"], [{"id": 1}]).to_dict()["n"] == [9]


def test_pushes_to_one_file_at_the_same_time_all_arrive(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", TWO)
    store = pushed(make, "rows.parquet")
    batches = [versions((n, NOON, NOON, n, None)).to_pandas() for n in range(10, 26)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda rows: store.write_to_offline_store("stats", rows), batches))
    found = pl.read_parquet(tmp_path / "rows.parquet")
    assert found.schema == TWO.schema
    assert found.head(2).equals(TWO)
    assert sorted(found["id"]) == [1, 2, *range(10, 26)]


def test_when_the_disk_is_full_the_file_is_what_it_was(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.parquet", TWO)
    store, before = pushed(make, "rows.parquet"), (tmp_path / "rows.parquet").read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFault, match=r"cannot write: no space left on device in .*rows\.parquet"):
        store.write_to_offline_store("stats", TWO.to_pandas())
    assert (tmp_path / "rows.parquet").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_a_push_to_partitions_lands_in_their_folders(make: Make, tmp_path: Path) -> None:
    shops(tmp_path / "rows", "a", "b")
    store = make(*of_shops(String))
    new = pl.concat([TWO, versions((None, NOON, NOON, None, None))]).with_columns(shop=pl.Series(["c/d", None, "a"]))
    store.write_to_offline_store("stats", new.to_pandas().assign(_day=date(2017, 6, 9)))
    added = [file.parent.name for file in (tmp_path / "rows/_day=2017-06-09").rglob("*.parquet")]
    assert sorted(added) == ["shop=__HIVE_DEFAULT_PARTITION__", "shop=a", "shop=c%2Fd"]
    rows = asking((1, NOON), (1, NOON)).with_columns(shop=pl.Series(["c/d", "b"]))
    assert ask(store, rows).to_polars()["n"].to_list() == [7, 1]


def test_rows_are_added_under_stored_names_also_where_fields_are_mapped(make: Make, tmp_path: Path) -> None:
    names = {"id": "key", "n": "count"}
    write(tmp_path / "rows.parquet", TWO.rename(names))
    store = make(CUSTOMER, view(source=source(field_mapping={new: old for old, new in names.items()})))
    store.write_to_offline_store("stats", versions((3, NOON, NOON, 9, None)).rename(names).to_pandas())
    assert ask(store, asking((3, NOON), (1, NOON))).to_polars()["n"].to_list() == [9, 7]


def test_a_pandas_frame_with_an_index_of_its_own_or_floats_beside_nulls_is_taken(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/1.parquet", TWO)
    store = pushed(make, "rows")
    frame = versions((3, NOON, NOON, None, 1.0), (4, NOON, NOON, 2, None), (5, NOON, NOON, 3, None)).to_pandas()
    assert frame["n"].dtype == float
    frame[["at", "made"]] = frame[["at", "made"]].astype("datetime64[ns, UTC]")
    store.write_to_offline_store("stats", frame[frame["id"] != 5].set_index(pd.Index([7, 9])))
    found = ask(store, asking((3, NOON), (4, NOON), (5, NOON))).to_polars()
    assert found["n"].to_list() == [None, 2, None]
    assert found["n"].dtype == pl.Int64


@pytest.mark.parametrize("path", ["rows/1.parquet", "rows"])
def test_lists_and_structs_are_added_as_they_are(make: Make, tmp_path: Path, path: str) -> None:
    nested = TWO.with_columns(s=pl.struct(a=pl.lit("x"), b=pl.col("n")), l=pl.concat_list("x", "x"))
    nested.to_pandas().to_parquet(tmp_path / "rows.parquet")  # as pandas writes them: of other offsets than Polars'
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows.parquet").rename(tmp_path / "rows/1.parquet")
    pushed(make, path).write_to_offline_store("stats", nested.to_pandas())
    assert pl.read_parquet(tmp_path / "rows").equals(pl.concat([nested, nested]))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", ["1", "2"], "column id does not fit its table .*expected int64, found string is of another kind"),
        ("n", [1.5, 2.0], r"column n does not fit its table .*expected int64, found Float value 1.5"),
        ("x", ["a", "b"], "column x does not fit its table .*expected double, found string is of another kind"),
        (
            "at",
            [1, 2],
            r"column at does not fit its table .*expected timestamp\[us, tz=UTC\], found int64 is of another",
        ),
        ("made", pd.to_datetime([1, 2], utc=True), "column made does not fit .* would lose data"),
    ],
)
def test_rows_that_do_not_fit_their_table_are_refused(
    make: Make, tmp_path: Path, column: str, values: Any, message: str
) -> None:
    write(tmp_path / "rows/1.parquet", TWO)
    store, before = pushed(make, "rows"), contents(tmp_path)
    with pytest.raises(UserError, match=message):
        store.write_to_offline_store("stats", TWO.to_pandas().assign(**{column: values}))
    assert contents(tmp_path) == before


def test_rows_with_other_columns_are_refused_with_both_lists(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/1.parquet", TWO)
    store = pushed(make, "rows")
    table = TWO.rename({"n": "m"}).to_arrow()
    with pytest.raises(UserError, match=r"expected id, at, made, n, x, found id, at, made, m, x"):
        store._get_provider().offline_write_batch(store.config, store.get_feature_view("stats"), table, None)
    told: list[int] = []
    good = TWO.select(reversed(TWO.columns)).to_arrow()
    store._get_provider().offline_write_batch(store.config, store.get_feature_view("stats"), good, told.append)
    assert told == [2]


def test_nobody_knows_where_rows_of_a_pattern_belong(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows/1.parquet", TWO)
    with pytest.raises(UserError, match=r"cannot add rows in .*rows/\*\.parquet: expected a folder, or a single local"):
        pushed(make, "rows/*.parquet").write_to_offline_store("stats", TWO.to_pandas())


def test_a_source_is_validated_by_reading_it(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", TWO)
    provider, config = (store := make(CUSTOMER, view()))._get_provider(), store.config
    provider.validate_data_source(config, source())
    with pytest.raises(DataError, match="no column when"):
        provider.validate_data_source(config, FileSource(path="rows.parquet", timestamp_field="when"))
    with pytest.raises(UserError, match="column n is no instant"):
        provider.validate_data_source(config, FileSource(path="rows.parquet", timestamp_field="n"))


# --- logs of what was served ------------------------------------------------------------------------------------------


def log_of(store: FeatureStore, service: FeatureService, minutes: int) -> pa.Table:
    """Return two rows as a feature server logs them."""
    from feast.feature_logging import FeatureServiceLoggingSource

    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    at = NOON + timedelta(minutes=minutes)
    row = {"id": minutes, "stats__n": 2 * minutes, "stats__n__timestamp": NOON, "stats__n__status": 1}
    row |= {"__log_timestamp": at, "__log_date": at.date(), "__request_id": f"r{minutes}"}
    return pa.Table.from_pylist([row, {**row, "stats__n": None, "__request_id": f"s{minutes}"}], schema=schema)


@pytest.mark.parametrize("partition_by", [None, ["__log_date"]])
@pytest.mark.parametrize("where", ["local", "s3"])
def test_logs_of_what_was_served_are_kept_and_come_back(
    make: Make, s3: S3, tmp_path: Path, where: str, partition_by: list[str] | None
) -> None:
    write(tmp_path / "rows.parquet", TWO)
    path, endpoint = ("logs", "") if where == "local" else (f"{s3[1]}/logs", s3[0])
    destination = FileLoggingDestination(path=path, s3_endpoint_override=endpoint, partition_by=partition_by)
    store = make(CUSTOMER, stats := view())
    service = FeatureService(name="model", features=[stats[["n"]]], logging_config=LoggingConfig(destination))
    store.apply([service])
    for folder in ("logs", "buffer"):
        (tmp_path / folder).mkdir()
    store.write_logged_features(log_of(store, service, 5), service)
    pq.write_table(log_of(store, service, 24 * 60), tmp_path / "buffer/0.parquet")
    store.write_logged_features(tmp_path / "buffer", service)
    names = listed(s3, "logs/") if where == "s3" else list(contents(tmp_path / "logs"))
    days = {name.partition("/")[0] for name in names}
    assert len(names) == 2
    assert days == {"__log_date=2017-06-01", "__log_date=2017-06-02"} or not partition_by
    provider = store._get_provider()
    found = provider.retrieve_feature_service_logs(service, NOON, NOON + HOUR, store.config, store.registry)
    rows = found.to_polars().select("id", "stats__n", "__log_timestamp", "__log_date", "__request_id")
    at = NOON + timedelta(minutes=5)
    assert sorted(rows.rows(), key=lambda row: row[-1]) == [
        (5, 10, at, at.date(), "r5"),
        (5, None, at, at.date(), "s5"),
    ]
    with pytest.raises(UserError, match="rows do not have the columns of their table"):
        store.write_logged_features(log_of(store, service, 5).drop_columns(["stats__n"]), service)
