"""The second question from raw rows to a served answer: asked at the till, about a basket."""

import json
from datetime import date

import polars as pl
import pytest

from features.labels import back
from lockstep.errors import GuaranteeError
from lockstep.files import file_hash
from lockstep.graph import changed, run_stage
from lockstep.leakage import leakage
from lockstep.materialize import materialize
from lockstep.parity import prove_parity
from lockstep.predictor import Predictor
from lockstep.project import project
from tests.data.test_serving import refused, serving

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

DAY = date(2017, 12, 11)
"""A cut-off of the test part."""


def test_the_label_is_another_trip_on_one_of_the_seven_days_after(built_slice):
    """Told by the raw lines, read as a stranger would: without events, views or Feast."""
    lines = pl.concat([pl.read_parquet(f) for f in sorted((built_slice / "data/transactions").glob("*"))])
    day = pl.col("transaction_timestamp").dt.convert_time_zone("America/New_York").dt.date()
    trips = lines.select("household_id", "basket_id", day.alias("day")).unique()
    days: dict[int, set] = {}
    for household, _, on in trips.rows():
        days.setdefault(household, set()).add(on)
    rows = pl.read_parquet(built_slice / "artifacts/dataset/back/training.parquet")
    assert rows.height > 1_000
    for household, on, label in rows.select("household_id", "cutoff", "label").rows():
        assert label == any(0 < (other - on).days <= 7 for other in days[household])
    value = lines.group_by("basket_id").agg(pl.col("sales_value").sum().alias("paid"))
    assert rows.join(value, on="basket_id", how="left").select((pl.col("paid") == pl.col("basket_value")).all()).item()
    asked = {b for h, b, on in trips.rows() if on in set(rows["cutoff"]) and on > min(days[h])}
    assert set(rows["basket_id"]) == asked  # all of those days but of households that nobody had seen


def test_every_basket_of_a_day_gets_the_score_and_the_features_that_training_has_for_it(offline_slice):
    """The requests of a past day, asked of a store that holds that day's snapshot: bit for bit the training rows."""
    materialize(project(offline_slice), DAY)
    prove_parity(project(offline_slice))
    till = Predictor(project(offline_slice), "till")
    test = pl.read_parquet(offline_slice / "artifacts/dataset/back/training.parquet").filter(cutoff=DAY)
    scores = pl.read_parquet(offline_slice / "artifacts/evaluate/till/predictions.parquet")
    rows = test.join(scores.select("basket_id", "score"), on="basket_id", how="left", maintain_order="left")
    assert rows.height > 5
    for row in rows.iter_rows(named=True):
        asked = {name: row[name] for name in (*till.keys, *till.request)}
        answer = till.predict(asked, row["event_timestamp"])
        assert answer.days_behind == 0
        assert answer.score == row["score"]
        assert answer.features == {name: row[name] for name in till.features}


def test_a_request_names_its_keys_and_what_the_till_knows_and_is_told_what_is_missing_or_wrong(online_slice):
    card = json.loads((online_slice / "artifacts/evaluate/till/card.json").read_text())
    row = pl.read_parquet(online_slice / "artifacts/dataset/back/training.parquet").row(-1, named=True)
    keys = json.loads((online_slice / "artifacts/dataset/back/columns.json").read_text())["keys"]
    carried = [n for n in row if n.startswith("basket_") and n not in card["features"] and n not in keys]
    asked = {n: row[n] for n in [*keys, *carried] if n != "basket_id"}
    with serving(online_slice, "--model", "till") as server:
        assert server.first.startswith("serving till on http://")
        answer = server.post("/predict", json={**asked, "at": "2018-01-01T23:30:00Z"})
        assert answer.status_code == 200, answer.text
        assert {n: answer.json()[n] for n in asked} == asked
        features = answer.json()["features"]
        assert list(features) == list(card["features"])
        assert (features["hour_of_day"], features["day_of_week"]) == (18, 1)  # New York's Monday evening
        assert features["basket_cents"] == asked["basket_value"]
        only = {"household_id": asked["household_id"]}
        refused(server.post("/predict", json=only), 422, rf"^store_id.*, {', '.join(carried)}: Field required\.$")
        for name, wrong in {"basket_value": "12", "basket_fuel": 1.5, "store_id": None}.items():
            refused(server.post("/predict", json={**asked, name: wrong}), 422, rf"^{name}: .*valid integer")
        refused(server.post("/predict", json={**asked, "basket_valu": 1}), 422, r"^basket_valu: Extra inputs")
        refused(server.post("/predict", json={**asked, "household_id": -1}), 404, r"^nobody by household_id -1 in")
        new_here = server.post("/predict", json={**asked, "store_id": -1})
        assert new_here.status_code == 200, new_here.text  # a household may enter a store for the first time
        assert new_here.json()["features"]["trips_here_90d"] == 0
        assert {"trips_here_90d", "store_trips_28d"} <= set(new_here.json()["defaulted"])
        strange = server.post("/predict", json={**asked, "product_category": "no such"}).json()
        assert strange["features"]["category_vector"] is None
        assert "category_vector" in strange["defaulted"]
        assert server.get("/health").json()["model"] == "till"


def test_a_change_of_one_question_trains_the_other_s_models_not_again(built_slice, copy):
    folder = copy(built_slice)
    params, labels = folder / "params.yaml", folder / "features/labels.py"
    honest = params.read_text(encoding="utf-8")
    params.write_text(honest.replace('last: "2017-12-24"', 'last: "2017-12-21"'), encoding="utf-8")
    assert set(changed(folder)) == {"dataset@back", "evaluate@till"}
    params.write_text(honest, encoding="utf-8")
    labels.write_text(labels.read_text(encoding="utf-8") + "# another thought\n", encoding="utf-8")
    before = {
        name: file_hash(folder / "artifacts/dataset/lapse" / name) for name in ("columns.json", "training.parquet")
    }
    assert set(changed(folder)) == {"dataset@back", "dataset@lapse"}
    assert run_stage(folder, "dataset@lapse", lambda _: None) == "Ran"
    assert before == {name: file_hash(folder / "artifacts/dataset/lapse" / name) for name in before}
    assert {name for name in changed(folder) if name.endswith(("@rfm", "@full"))} == {"evaluate@rfm", "evaluate@full"}


ALTERED = {
    "label": (pl.col("label") * -1 + 1, "labels of train for back"),
    "basket_departments": (pl.col("basket_departments", "basket_depts") + 1, "population of 2017"),  # and what follows
    "trips_7d": (pl.col("trips_7d") + 1, "training rows of 2017"),
    "hour_of_day": (pl.col("hour_of_day") + 1, "training rows of 2017"),
}


@pytest.mark.parametrize(("name", "where"), [(name, where) for name, (_, where) in ALTERED.items()])
def test_requests_labels_and_features_that_were_altered_are_caught(built_slice, copy, monkeypatch, name, where):
    folder = copy(built_slice)
    path = folder / "artifacts/dataset/back/training.parquet"
    frame = pl.read_parquet(path)
    frame = frame.with_columns(ALTERED[name][0])
    path.unlink()  # DVC protects its outputs
    frame.write_parquet(path)
    monkeypatch.setattr("lockstep.leakage.questions", lambda _: {"back": back})  # lapse has tests of its own
    with pytest.raises(GuaranteeError, match=f"'{name}' knows what it cannot know in {where}"):
        leakage(project(folder), days=1)
