"""A story of two versions of a view and of households that nobody knows, on a slice of the real ones."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.conftest import ENV, lockstep
from tests.data.copies import ask_lapse_alone, repro
from tests.data.test_online import keys
from tests.data.test_serving import forge, refused, serving

CLOCK = datetime(2018, 1, 1, 5, tzinfo=UTC)
UNKNOWN = 999_999

VIEWS = """

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

DEFAULTS = {
    "first_trip_at": datetime(2017, 12, 1, tzinfo=UTC), "last_trip_at": datetime(2017, 12, 1, tzinfo=UTC),
    "avg_gap_days": 7.0,
}
household_trips = replace(
    household_trips,
    missing="default",
    deprecated="use household_trips version 2",
    features=[replace(f, default=0 if f.never_null else DEFAULTS.get(f.name)) for f in household_trips.features],
)
spend = [
    Feature("raw_90d", agg.sum("value", days=90), default=0),
    Feature("spend_90d", pl.col("raw_90d") * 1.3, default=0.0),
]
household_trips_v2 = replace(
    household_trips,
    version=2,
    deprecated="",
    features=[g for f in household_trips.features for g in (spend if f.name == "spend_90d" else [f])],
)
"""
SERVICES = """
from dataclasses import replace

full = replace(full, features=["spend_90d_v2" if name == "spend_90d" else name for name in full.features])
"""
OFFLINE = """
import json, sys
from datetime import datetime
import polars as pl
from lockstep.dataset import join_features
from lockstep.catalogue import Catalogue
from lockstep.files import read_json
from lockstep.model_file import open_model
from lockstep.project import project

p = project()
asked = pl.DataFrame(json.loads(sys.argv[1]), schema=["household_id", "event_timestamp"], orient="row")
asked = asked.with_columns(pl.col("event_timestamp").str.to_datetime("%+", time_unit="us", time_zone="UTC"))
card = read_json(p.root / "artifacts/evaluate/rfm/card.json")
rows = join_features(p, Catalogue(p), asked, list(card["features"]))
fitted = open_model(p.root / "artifacts/model/rfm", card["hashes"])
scores = fitted.score(rows.select(fitted.preprocess.features_.keys()), allow_nulls=True).tolist()
print(json.dumps([rows.select(card["features"].keys()).to_dicts(), scores]))
"""


def add(folder, name, text):
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture(scope="module")
def versions(built_slice, once):
    """The slice with version 2 of household_trips, whose spend_90d is 1.3 times that of version 1."""

    def make(folder):
        shutil.copytree(built_slice, folder, symlinks=True)
        add(folder, "features/household.py", VIEWS)
        add(folder, "features/services.py", SERVICES)
        ask_lapse_alone(folder)

    return once("versions", make)


def test_a_version_that_is_off_by_a_factor_is_caught_and_one_that_is_meant_to_be_is_reported(versions):
    done = repro(versions, "shadow")
    assert done.returncode != 0, done.stdout + done.stderr
    caught = (
        r"features that are not the same .*found spend_90d and spend_90d_v2 in \d+ of \d+ rows .*by a factor of 1.3\."
    )
    assert re.search(caught, done.stdout + done.stderr), done.stdout + done.stderr
    params = versions / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("  challenger: full\n", "  challenger: full\n  changed: [spend_90d]\n"))
    done = lockstep(versions, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    who = "view household_trips, read by service rfm, full, baselines, till"
    said = f"deprecated: {who}. Use household_trips version 2."
    assert f"{said}\n" in done.stdout
    found = json.loads((versions / "artifacts/shadow/shadow.json").read_text())
    (pair,) = found["versions"]
    assert (pair["champion"], pair["challenger"], pair["factor"]) == ("spend_90d", "spend_90d_v2", 1.3)
    assert 0 < pair["differ"] <= pair["rows"]
    page = (versions / "state/catalogue.html").read_text()
    assert said in page
    assert '<tr id="spend_90d_v2">' in page
    done = lockstep(versions, "prove", "leakage", "--days", "2")
    assert done.returncode == 0, done.stderr


def test_what_stands_in_for_a_row_has_the_same_bits_online_and_offline_and_is_flagged(versions):
    card = json.loads((versions / "artifacts/evaluate/rfm/card.json").read_text())
    names = list(card["features"])
    known = 20
    late = CLOCK + timedelta(days=40)
    asked = [(who, at) for who in (known, UNKNOWN) for at in (CLOCK, CLOCK + timedelta(days=3, hours=7), late)]
    rows = json.dumps([(who, at.isoformat()) for who, at in asked])
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, rows], cwd=versions, env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    features, scores = json.loads(done.stdout.splitlines()[-1])
    with serving(versions) as client:
        for (who, at), values, score in zip(asked, features, scores, strict=True):
            answer = client.post("/predict", json={"household_id": who, "at": at.isoformat()}).json()
            assert (answer["features"], answer["score"]) == (values, score)
            assert answer["defaulted"] == (names if who == UNKNOWN or at == late else [])
    assert features[3]["trips_total"] == 0
    assert features[3]["days_since_last_trip"] == 31 + 5 / 24


def test_a_household_that_never_used_a_coupon_has_none_and_one_whose_row_is_lost_has_no_answer(online_slice, copy):
    folder = copy(online_slice)
    used = pl.read_parquet(folder / "artifacts/features/household_coupons/v1/2018-01-01.parquet")[
        "household_id"
    ].to_list()
    with serving(folder, "--model", "full") as client:
        answers = {who: client.post("/predict", json={"household_id": who}) for who in keys(folder)}
        told = {who: answer.json() for who, answer in answers.items() if answer.status_code == 200}
        assert set(told) & set(used)
        assert set(told) - set(used)
        for who, answer in told.items():
            assert ("redemptions_90d" in answer["defaulted"]) is (who not in used)
            assert answer["features"]["redemptions_90d"] == 0 or who in used
        forge(folder, "DELETE FROM lockstep_household_coupons")
        for who, before in told.items():
            answer = client.post("/predict", json={"household_id": who})
            if who in used:
                refused(answer, 503, rf"a row is missing or incomplete in household_coupons, household_id {who}")
            else:
                assert answer.json() == before
