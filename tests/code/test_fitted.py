"""Views whose values come out of a fit: what a snapshot holds, when it is fitted, and what is refused."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from feast import FeatureView, Field, FileSource
from feast.types import Array, Float64, Int64
from polars.testing import assert_frame_equal

from features.category import SIZE, VECTOR, category_vectors, decompose
from lockstep import agg
from lockstep.catalogue_page import entries, entry
from lockstep.clock import INSTANT, Zone, days
from lockstep.day_cache import DayCache, Hashes, day_keys
from lockstep.define import FITTED_AT, Entity, Feature, FittedView, OnDemandView, Source, View
from lockstep.errors import DefinitionError
from lockstep.events import Events
from lockstep.snapshot import feature_schema, snapshot
from lockstep.snapshots import build
from lockstep.tables import Table
from lockstep.vectors import bits
from tests.code.definitions import catalogue, contract
from tests.code.shop import CUSTOMER

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

ZONE = Zone("America/New_York")
FIRST, LAST = date(2017, 1, 10), date(2017, 4, 5)
SCHEMA = {"shop": pl.String, "id": pl.Int64, "at": INSTANT, "cents": pl.Int64}
VISITS = Source("visits", ("visits",), lambda visits: visits, event_time="at", key=("id",))
SHOP = Entity("shop", key="shop")


def sums(known: pl.DataFrame, day: date) -> pl.DataFrame:
    """How many and how much, as a vector: it can be checked by eye."""
    assert (known["event_day"] < day).all()
    both = known.group_by("shop").agg(pl.len().cast(pl.Float64).alias("n"), pl.col("cents").sum().cast(pl.Float64))
    return both.select("shop", pl.concat_arr("n", "cents").alias("vector"))


def view(fit=sums, **more) -> FittedView:
    features = [Feature("vector", pl.Array(pl.Float64, 2)), Feature("fitted", pl.col(FITTED_AT))]
    return FittedView("shops", [SHOP], VISITS, features, ttl_days=7, fit=fit, **more)


def events(tmp_path, *rows: tuple[str, int, str, int, str, bool]) -> Events:
    """Rows of (shop, id, event day, cents, landing day, deleted), a partition a landing day."""
    frame = pl.DataFrame(
        [
            {
                "shop": shop, "id": n, "at": datetime.fromisoformat(at).replace(hour=17, tzinfo=UTC), "cents": cents,
                "_received_at": None, "_deleted": gone, "_landing_day": date.fromisoformat(landed),
            }
            for shop, n, at, cents, landed, gone in rows
        ],
        schema={**SCHEMA, "_received_at": INSTANT, "_deleted": pl.Boolean, "_landing_day": pl.Date},
    )  # fmt: skip
    files = {}
    for (day,), part in frame.partition_by("_landing_day", as_dict=True).items():
        files[day] = tmp_path / f"{day}.parquet"
        part.write_parquet(files[day])
    visits = contract(tmp_path, {"id": "int64", "shop": "string", "at": "instant", "cents": "int64"})
    return Events(VISITS, {"visits": Table(visits, None, ZONE, files)}, FIRST, LAST)


@pytest.fixture
def rows(tmp_path) -> Events:
    return events(
        tmp_path,
        ("a", 1, "2017-01-12", 100, "2017-01-12", False),
        ("b", 2, "2017-02-14", 300, "2017-02-14", False),  # a shop that was not there at the fit of February
        ("a", 3, "2017-01-20", 50, "2017-02-03", False),  # late: known two days after that fit
        ("a", 1, "2017-01-12", 70, "2017-03-15", False),  # a correction
        ("b", 2, "2017-02-14", 300, "2017-03-20", True),  # a deletion
    )


def built(fitted: FittedView, rows: Events, tmp_path, some=None) -> dict[date, pl.DataFrame]:
    hashes = Hashes(tmp_path / "hashes.json")
    keys = day_keys("seed", {"visits": rows.tables["visits"].files}, hashes, FIRST, LAST)
    keys = {day: key for day, key in keys.items() if some is None or day in some}
    build(fitted, rows, keys, tmp_path / "out", DayCache(tmp_path / "days", hashes))
    return {day: pl.read_parquet(tmp_path / f"out/{day}.parquet") for day in keys}


def test_a_snapshot_holds_the_fit_of_what_was_known_on_the_first_of_its_month(rows, tmp_path):
    found = built(view(), rows, tmp_path)

    def at(day):
        return dict(found[date.fromisoformat(day)].select("shop", "vector").rows())

    assert at("2017-01-12") == {}  # nobody has landed yet
    assert at("2017-01-13") == at("2017-01-31") == {"a": None}  # before the first fit
    assert at("2017-02-01") == at("2017-02-14") == {"a": [1.0, 100.0]}
    assert at("2017-02-15") == at("2017-02-28") == {"a": [1.0, 100.0], "b": None}  # since the next day it is seen
    assert at("2017-03-01") == at("2017-03-31") == {"a": [2.0, 150.0], "b": [1.0, 300.0]}  # with the late row
    assert at("2017-04-01") == at("2017-04-05") == {"a": [2.0, 120.0], "b": None}  # corrected, and deleted
    for day, frame in found.items():
        assert set(frame["fitted"]) <= {ZONE.start(day.replace(day=1))}
        assert set(frame["event_timestamp"]) <= {ZONE.start(day)}


def test_every_day_is_what_the_definition_gives_from_the_known_rows_in_whatever_order_it_is_built(rows, tmp_path):
    some = [d for d in days(FIRST, LAST) if d.day % 3]
    built(view(), rows, tmp_path, some[::-1])
    for day, frame in built(view(), rows, tmp_path).items():
        known = rows.derived(day.replace(day=1))
        assert_frame_equal(frame, snapshot(view(), known, rows.entities(["shop"], day), day, ZONE), check_exact=True)


def test_a_new_day_of_a_month_is_not_fitted_anew_and_a_new_month_once(rows, tmp_path):
    fitted = []

    def counted(known: pl.DataFrame, day: date) -> pl.DataFrame:
        fitted.append(str(day))
        return sums(known, day)

    until = [d for d in days(FIRST, LAST) if d <= date(2017, 3, 20)]
    built(view(counted), rows, tmp_path, until)
    assert fitted == ["2017-02-01", "2017-03-01"]  # none without events
    built(view(counted), rows, tmp_path, [*until, date(2017, 3, 21)])
    assert fitted == ["2017-02-01", "2017-03-01"]
    built(view(counted), rows, tmp_path)
    assert fitted == ["2017-02-01", "2017-03-01", "2017-04-01"]


def test_a_period_may_be_a_week_which_begins_on_monday():
    assert view(every="1w").as_of(date(2017, 3, 12)) == date(2017, 3, 6)
    with pytest.raises(DefinitionError, match=r"not a period in view shops, every.*found 'month'"):
        view(every="month")


def test_a_version_of_a_view_takes_the_columns_of_the_same_fit(rows):
    second = view(version=2)
    day = date(2017, 3, 5)
    frame = snapshot(second, rows.known(second.as_of(day)), rows.entities(["shop"], day), day, ZONE)
    assert frame["vector_v2"].to_list() == [[2.0, 150.0], [1.0, 300.0]]


def row(shop="a", vector=(1.0, 2.0), **more):
    kind = pl.Array(pl.Float64, len(vector))
    return pl.DataFrame({"shop": [shop], "vector": [list(vector)], **more}, schema_overrides={"vector": kind})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (row(vector=(1.0, 2.0, 3.0)), r"not the column 'vector' in the fit of view shops on 2017-03-01.*shape=\(3,\)"),
        (row().rename({"vector": "vectors"}), "not the column 'vector'.*Did you mean 'vectors'"),
        (pl.concat([row(), row()]), "an entity twice in the fit of view shops"),
        (row(shop="z"), r"an entity that no known event has in the fit of view shops.*\('z',\)"),
        (row().with_columns(pl.lit(None, pl.String).alias("shop")), r"an entity that no known event has"),
        (row(vector=(1.0, float("nan"))), "'vector' is infinite or not a number in view shops, snapshot 2017-03-05"),
        (row(vector=(1.0, None)), "'vector' is infinite or not a number in view shops, snapshot 2017-03-05"),
    ],
)
def test_a_fit_of_another_shape_or_with_holes_is_refused(rows, found, said):
    def fit(known: pl.DataFrame, day: date) -> pl.DataFrame:
        return found

    day = date(2017, 3, 5)
    with pytest.raises(DefinitionError, match=said):
        snapshot(view(fit), rows.known(date(2017, 3, 1)), rows.entities(["shop"], day), day, ZONE)


def test_values_of_the_other_kind_of_view_and_a_fit_that_is_no_function_are_refused():
    with pytest.raises(DefinitionError, match=r"a value of another kind of view in feature n of view v.*Aggregation"):
        View("v", [SHOP], VISITS, [Feature("n", pl.Int64())], ttl_days=1)
    with pytest.raises(DefinitionError, match=r"a value of another kind of view in feature n of view v.*DataType"):
        FittedView("v", [SHOP], VISITS, [Feature("n", agg.count())], ttl_days=1, fit=sums)
    with pytest.raises(DefinitionError, match="not a function in fit of view shops"):
        view(SimpleNamespace)
    with pytest.raises(DefinitionError, match="'fitted_at' is a name of Lockstep's own"):
        FittedView("v", [SHOP], VISITS, [Feature(FITTED_AT, pl.Int64())], ttl_days=1, fit=sums)


def test_its_types_are_those_declared():
    schema = feature_schema(view(), pl.Schema({**SCHEMA, "event_day": pl.Date}))
    assert schema == {"vector": pl.Array(pl.Float64, 2), "fitted": INSTANT}


def test_the_catalogue_tells_that_it_is_fitted_and_with_what():
    told = entry(entries(catalogue(category_vectors)), VECTOR)
    assert (told["type"], told["window"], told["computed"]) == (
        "Array(Float64, shape=(8,))", "fit", "vectors(), anew every 1mo",
    )  # fmt: skip


def test_a_vector_in_a_formula_of_the_request_is_refused():
    has = Feature("has", pl.col(VECTOR).is_not_null())
    with pytest.raises(DefinitionError, match=r"a vector in a formula of the request in on-demand view now"):
        catalogue(category_vectors, on_demand=[OnDemandView("now", [category_vectors], {"at": INSTANT}, [has])])


def test_the_proof_of_leakage_sees_one_bit_of_a_vector():
    kind = pl.Array(pl.Float64, 2)
    a, b = (pl.Series([[1.0, zero], None], dtype=kind) for zero in (0.0, -0.0))
    assert bits(a).ne_missing(bits(b)).to_list() == [True, False]


def test_vectors_pass_through_feast_as_they_are_with_null_where_there_is_none(make, tmp_path):
    at, kind = datetime(2017, 6, 1, 4, tzinfo=UTC), pl.Array(pl.Float64, 2)
    stored = pl.DataFrame(
        {"id": [1, 2], "at": [at, at], "v": [[0.1, -2.5], None]}, schema={"id": pl.Int64, "at": INSTANT, "v": kind}
    )
    stored.write_parquet(tmp_path / "rows.parquet")
    source = FileSource(path="rows.parquet", timestamp_field="at")
    fields = [Field(name="id", dtype=Int64), Field(name="v", dtype=Array(Float64))]
    store = make(CUSTOMER, FeatureView(name="stats", entities=[CUSTOMER], schema=fields, source=source, ttl=None))
    asked = pl.DataFrame({"id": [3, 2, 1], "event_timestamp": [at + timedelta(hours=1)] * 3})
    table = store.get_historical_features(asked, ["stats:v"]).to_arrow()
    assert table["v"].num_chunks == 1
    assert pl.DataFrame(table)["v"].cast(kind).to_list() == [None, None, [0.1, -2.5]]
    store.materialize(at, at)
    online = store.get_online_features(["stats:v"], {"id": [1, 2, 3]}).to_dict()
    assert online["v"] == [[0.1, -2.5], None, None]


def test_the_vectors_of_categories_are_those_of_numpys_svd_of_the_scaled_matrix():
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 4, (14, 11))
    counts[:, 0] += 1  # everybody buys it
    counts[0] += 1  # and one buys all
    lines = pl.DataFrame(
        [(h, f"c{c:02}") for h in range(14) for c in range(11) for _ in range(counts[h, c])],
        schema=["household_id", "product_category"], orient="row",
    )  # fmt: skip
    logs = np.log1p(counts)
    scaled = logs / np.sqrt(logs.sum(1, keepdims=True) * logs.sum(0, keepdims=True))
    _, s, v = np.linalg.svd(scaled)
    expected = v[:SIZE].T * s[:SIZE]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = decompose(lines)
    assert got["product_category"].to_list() == [f"c{c:02}" for c in range(11)]
    matrix = got[VECTOR].to_numpy()
    np.testing.assert_allclose(matrix @ matrix.T, expected @ expected.T, atol=1e-9)  # whatever the signs
    assert decompose(lines.filter(pl.col("household_id") < SIZE)).is_empty()  # too little to tell
