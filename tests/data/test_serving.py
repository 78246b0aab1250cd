"""Stories of `lockstep serve`: a real server, real HTTP, and everything that must not become a wrong score."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest

from lockstep.catalogue import Catalogue
from lockstep.dataset import join_features
from lockstep.errors import LockstepError
from lockstep.model_file import open_model
from lockstep.online import write_proof
from lockstep.predictor import Predictor
from lockstep.project import project
from tests.conftest import ENV, lockstep
from tests.data.test_online import KILLED, TABLE, entity_key, keys, said, sql

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

CLOCK = datetime(2018, 1, 1, 5, tzinfo=UTC)


def forge(folder, statement, *values):
    """Change the store, and the proof with it: the guards behind the proof have to see it."""
    sql(folder, statement, *values)
    sql(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    write_proof(project(folder), "planted")


@contextlib.contextmanager
def serving(folder, *words, within="."):
    """Run `lockstep serve` on a free port until the block ends, then stop it as a terminal does."""
    with tempfile.NamedTemporaryFile(dir=folder / "state", suffix=".err") as stderr:
        errors = Path(stderr.name)
        process = subprocess.Popen(
            [sys.executable, "-m", "lockstep", "serve", "--port", "0", *words],
            cwd=folder / within, env={**ENV, "PYTHONPATH": str(folder)}, stdout=subprocess.PIPE, stderr=stderr,
            text=True, start_new_session=True,
        )  # fmt: skip
        with process:
            first = process.stdout.readline()
            assert first, errors.read_text()
            url = re.search(r"http://[^\s,]+", first).group(0)
            try:
                with httpx.Client(base_url=url, timeout=60) as client:
                    client.first, client.errors = first, errors
                    yield client
            finally:
                os.killpg(process.pid, signal.SIGINT)
                rest = process.stdout.read()
        assert process.returncode == 0
        assert rest.endswith("stop with Ctrl-C\nstopped\n"), rest
        assert "Traceback" not in errors.read_text()


@pytest.fixture(scope="module")
def server(online_slice):
    with serving(online_slice, within="features/contracts") as client:  # any folder inside the project will do
        yield client


@pytest.fixture(scope="module")
def household(online_slice):
    return keys(online_slice)[3]


def refused(answer, status, text):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}  # one sentence, no score, no traceback
    assert re.search(text, answer.json()["error"]), answer.text


def offline(folder, model, at):
    """The features of everybody at an instant as training would have read them, and the scores of a batch."""
    p = project(folder)
    card = json.loads((folder / f"artifacts/evaluate/{model}/card.json").read_text())
    ids = keys(folder)
    instants = pl.Series("event_timestamp", [at] * len(ids), dtype=pl.Datetime("us", "UTC"))
    asked = pl.DataFrame({"household_id": ids}).with_columns(instants)
    rows = join_features(p, Catalogue(p), asked, [*card["features"]])
    fitted = open_model(folder / "artifacts/model" / model, card["hashes"])
    scores = fitted.score(rows.select(fitted.preprocess.features_.keys()), allow_nulls=True).tolist()
    features = rows.select(card["features"].keys()).iter_rows(named=True)
    return dict(zip(ids, features, strict=True)), dict(zip(ids, scores, strict=True))


@pytest.mark.parametrize("at", [None, CLOCK, datetime(2018, 1, 4, 1, 2, 3, 456_789, UTC), CLOCK + timedelta(days=7)])
def test_every_score_over_http_has_the_bits_of_a_batch_on_offline_features(online_slice, server, at):
    features, scores = offline(online_slice, "rfm", at or CLOCK)
    for household, score in scores.items():
        asked = {"household_id": household} | ({"at": at.isoformat()} if at else {})
        answer = server.post("/predict", json=asked).json()
        assert answer["score"] == score
        assert answer["features"] == features[household]
        assert list(answer["features"]) == list(features[household])  # in the service's order
        assert datetime.fromisoformat(answer["at"]) == (at or CLOCK)


def test_an_answer_says_what_it_was_made_of(online_slice, server, household):
    card = json.loads((online_slice / "artifacts/evaluate/rfm/card.json").read_text())
    answer = server.post("/predict", json={"household_id": household, "at": "2018-01-03T00:00:00-05:00"}).json()
    assert answer["household_id"] == household
    assert answer["model"] == "rfm"
    assert answer["hashes"] == {kind: card["hashes"][kind] for kind in ("model", "preprocess")}
    assert (answer["at"], answer["snapshot"]) == ("2018-01-03T05:00:00Z", "2018-01-01T05:00:00Z")
    assert answer["days_behind"] == 2
    assert server.get("/model").json() == card


def test_health_is_told_by_an_answer_of_the_store(online_slice, server):
    about = json.loads((online_slice / "artifacts/features.json").read_text())
    health = server.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    assert health.json()["snapshot"] == "2018-01-01T05:00:00Z"
    assert health.json()["hashes"]["features"] == about["hashes"]["features"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"household_id": "20"}', r"^household_id: .*integer"),
        ('{"household_id": 20.0}', r"^household_id: .*integer"),
        ('{"household_id": true}', r"^household_id: .*integer"),
        ('{"household_id": null}', r"^household_id: .*integer"),
        ('{"household_id": NaN}', r"^household_id: .*integer"),
        ('{"household_id": Infinity}', r"^household_id: .*integer"),
        ('{"household_id": 9223372036854775808}', r"^household_id: "),
        ('{"household_id": [20]}', r"^household_id: .*integer"),
        ("{}", r"^household_id: Field required"),
        ('{"household_id": 20, "hour": 3}', r"^hour: Extra inputs are not permitted"),
        ('{"household_id": 20, "at": "2018-01-03"}', r"^at: '2018-01-03' is not an instant with an offset"),
        ('{"household_id": 20, "at": "2018-01-03T00:00:00"}', r"^at: .* is not an instant with an offset"),
        ('{"household_id": 20, "at": 1514955600}', r"^at: 1514955600 is not an instant with an offset"),
        ('{"household_id": 20, "at": "0001-01-01T00:00:00+23:00"}', r"^at: .* is not an instant with an offset"),
        (
            '{"household_id": 20, "at": "2018-01-01T04:59:59.999999Z"}',
            "no history: `at` is too early",
        ),
        ('{"household_id": 20, "at": "2017-06-01T00:00:00Z"}', "no history: `at` is too early"),
        ('{"household_id": 20', r"^body: not JSON"),
        ("", r"^body: Field required"),
        ("[20]", r"^body: "),
        ('{"household_id": 2' + "0" * 5000 + "}", r"error parsing the body"),
        (b'{"household_id": "\xff"}', r"error parsing the body"),
    ],
)
def test_a_malformed_request_is_told_in_a_sentence(server, body, text):
    before = server.errors.read_text()
    refused(server.post("/predict", content=body, headers={"Content-Type": "application/json"}), 422, text)
    assert server.errors.read_text() == before  # the client's mistake, not ours


def test_an_unknown_household_is_404(server):
    refused(server.post("/predict", json={"household_id": 21}), 404, r"^nobody by household_id 21 in snapshot 2018")
    refused(server.get("/nowhere"), 404, "Not Found")


def test_a_snapshot_past_its_ttl_gives_no_score(server, household):
    last = {"household_id": household, "at": "2018-01-08T05:00:00Z"}
    assert server.post("/predict", json=last).status_code == 200
    answer = server.post("/predict", json={**last, "at": "2018-01-08T05:00:00.000001Z"})
    refused(answer, 503, r"a stale snapshot in view household_trips: expected one at most 7 days before 2018-01-08.*found 2018-01-01")  # fmt: skip  # noqa: E501
    assert answer.json()["error"] in server.errors.read_text().splitlines()[-1]


def test_a_port_that_is_taken_is_told_at_once(online_slice, server):
    line = said(lockstep(online_slice, "serve", "--port", str(server.base_url.port)), 3)
    assert re.search(rf"^error: cannot listen on 127.0.0.1:{server.base_url.port}: found address already in use", line)
    line = said(lockstep(online_slice, "serve", "--host", "192.0.2.1"), 3)
    assert re.search(r"^error: cannot listen on 192.0.2.1:8000: found cannot assign requested address", line)


def test_the_port_is_held_while_the_models_load(online_slice):
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = said(lockstep(online_slice, "serve", "--port", str(other.getsockname()[1])), 3)
    assert "cannot listen" in line


class TestTheStoreBreaks:
    """One server, whose store is damaged under it and mended again: it never needs a restart."""

    @pytest.fixture(scope="class")
    def running(self, online_slice, tmp_path_factory):
        folder = tmp_path_factory.mktemp("breaks") / "project"
        shutil.copytree(online_slice, folder, symlinks=True)
        with serving(folder) as client:
            yield folder, client

    @pytest.fixture
    def broken(self, running, online_slice, household):
        folder, client = running
        asked = {"household_id": household}
        honest = client.post("/predict", json=asked).json()
        assert "score" in honest
        yield folder, client, asked
        for path in (folder / "state").glob("online.db*"):
            path.unlink()
        for name in ("online.db", "registry.db", "online.json", "parity.json"):
            shutil.copyfile(online_slice / "state" / name, folder / "state" / f"{name}.new")
            (folder / "state" / f"{name}.new").replace(folder / "state" / name)
        assert client.post("/predict", json=asked).json() == honest
        assert client.get("/health").status_code == 200

    @pytest.mark.parametrize("name", ["online.db", "online.json", "registry.db"])
    def test_a_missing_file(self, broken, name):
        folder, client, asked = broken
        (folder / "state" / name).unlink()
        for answer in (client.post("/predict", json=asked), client.get("/health")):
            refused(answer, 503, rf"nothing is online in .*{name}: found no such file. Run `lockstep materialize`")
        assert not (folder / "state" / name).exists()  # Feast would have made an empty one

    @pytest.mark.parametrize("garbage", [b"", b"\xff" * 20_000])
    def test_an_emptied_and_a_damaged_store(self, broken, garbage):
        folder, client, asked = broken
        (folder / "state/online.db").write_bytes(garbage)
        write_proof(project(folder), "planted")
        for answer in (client.post("/predict", json=asked), client.get("/health")):
            refused(answer, 503, r"the online store cannot be read.*(no such table|not a database|malformed).*lockstep materialize")  # fmt: skip  # noqa: E501

    def test_an_emptied_table(self, broken):
        folder, client, asked = broken
        forge(folder, f"DELETE FROM {TABLE}")
        refused(client.post("/predict", json=asked), 503, r"a row is missing or incomplete.*lockstep materialize")
        refused(client.get("/health"), 503, r"a row is missing or incomplete")
        refused(client.post("/predict", json={"household_id": 21}), 404, "nobody by household_id 21")

    def test_a_household_that_was_never_materialised(self, broken, household):
        folder, client, asked = broken
        forge(folder, f"DELETE FROM {TABLE} WHERE entity_key = ?", entity_key(folder, household))
        refused(client.post("/predict", json=asked), 503, rf"a row is missing .*household_id {household}")
        assert client.get("/health").status_code == 200

    def test_a_feature_that_is_gone(self, broken, household):
        folder, client, asked = broken
        forge(folder, f"DELETE FROM {TABLE} WHERE entity_key = ? AND feature_name = 'spend_30d'", entity_key(folder, household))  # fmt: skip  # noqa: E501
        refused(client.post("/predict", json=asked), 503, r"a row is missing or incomplete")

    def test_a_row_of_an_older_snapshot(self, broken, household):
        folder, client, asked = broken
        forge(folder, f"UPDATE {TABLE} SET event_ts = event_ts - 86400 WHERE entity_key = ?", entity_key(folder, household))  # fmt: skip  # noqa: E501
        refused(client.post("/predict", json=asked), 503, r"a row of another snapshot than the published one.*expected 2018-01-01 05:00:00\+00:00, found 2017-12-31")  # fmt: skip  # noqa: E501

    @pytest.mark.parametrize("value", ["double_val: nan", "double_val: 3.0", "string_val: 'three'"])
    def test_a_value_that_cannot_be_the_feature(self, broken, household, value):
        from feast.protos.feast.types.Value_pb2 import Value
        from google.protobuf import text_format

        folder, client, asked = broken
        planted = text_format.Parse(value, Value()).SerializeToString()
        forge(folder, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ? AND feature_name = 'trips_total'", planted, entity_key(folder, household))  # fmt: skip  # noqa: E501
        refused(
            client.post("/predict", json=asked), 503, r"the online store holds what cannot be a feature.*trips_total"
        )

    def test_a_value_that_somebody_changed_and_that_looks_like_one(self, broken, household):
        from feast.protos.feast.types.Value_pb2 import Value

        folder, client, asked = broken
        planted = Value(int64_val=1).SerializeToString()
        sql(folder, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ? AND feature_name = 'trips_total'", planted, entity_key(folder, household))  # fmt: skip  # noqa: E501
        for answer in (client.post("/predict", json=asked), client.get("/health")):
            refused(answer, 503, r"what is online was not proven equal to the offline snapshot.*lockstep materialize")

    def test_features_of_other_code_than_the_models(self, broken):
        folder, client, asked = broken
        record = json.loads((folder / "state/online.json").read_text())
        (folder / "state/online.json").write_text(json.dumps({**record, "code": "0" * 64}))
        for answer in (client.post("/predict", json=asked), client.get("/health")):
            refused(answer, 503, r"computed by other code than the model's.*found 000000000000")

    def test_a_snapshot_that_is_being_written_keeps_nobody_waiting(self, broken):
        folder, client, asked = broken
        with contextlib.closing(sqlite3.connect(folder / "state/online.db")) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            writer.execute(f"UPDATE {TABLE} SET event_ts = 0")
            assert client.post("/predict", json=asked).status_code == 200
            writer.rollback()

    def test_a_run_that_was_killed_in_the_middle(self, broken):
        folder, client, asked = broken
        command = [sys.executable, "-W", "ignore", "-c", KILLED, "2018-01-01"]
        assert subprocess.run(command, cwd=folder, env=ENV, check=False, capture_output=True).returncode == -9
        assert client.post("/predict", json=asked).status_code == 200  # the snapshot before, whole
        with serving(folder) as other:  # which finds Feast's view MATERIALIZING for good
            assert other.post("/predict", json=asked).status_code == 200


def test_before_anything_is_online_there_is_no_score_and_then_there_is_without_a_restart(offline_slice, household):
    folder = offline_slice
    with serving(folder) as client:
        assert "no answer yet: nothing is online" in client.first
        for answer in (client.post("/predict", json={"household_id": household}), client.get("/health")):
            refused(answer, 503, r"nothing is online in .*online.json: found no such file. Run `lockstep materialize`")
        assert lockstep(folder, "materialize", "--until", "2017-12-20").returncode == 0
        refused(client.post("/predict", json={"household_id": household}), 503, r"a stale snapshot.*found 2017-12-20")
        refused(client.get("/health"), 503, r"a stale snapshot")
        before = {"household_id": household, "at": "2017-12-21T00:00:00Z"}
        assert client.post("/predict", json=before).json()["snapshot"] == "2017-12-20T05:00:00Z"
        assert lockstep(folder, "materialize").returncode == 0
        assert client.post("/predict", json={"household_id": household}).json()["snapshot"] == "2018-01-01T05:00:00Z"
        refused(client.post("/predict", json=before), 422, r"the online store holds no history")
        assert client.get("/health").status_code == 200


def test_without_a_given_clock_a_request_is_answered_at_the_wall_clocks_instant(online_slice, copy, household):
    folder = copy(online_slice)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace('clock: "2018-01-01T05:00:00Z"', "clock: null"))
    with serving(folder) as client:
        now = datetime.now(UTC).date()
        refused(
            client.post("/predict", json={"household_id": household}), 503, rf"a stale snapshot.*before {now.year}-"
        )
        refused(client.get("/health"), 503, r"a stale snapshot")
        asked = {"household_id": household, "at": "2018-01-01T05:00:00Z"}
        assert client.post("/predict", json=asked).status_code == 200


def test_a_null_that_the_model_never_saw_gives_no_score(online_slice):
    features, scores = offline(online_slice, "full", CLOCK)
    card = json.loads((online_slice / "artifacts/evaluate/full/card.json").read_text())
    never = open_model(online_slice / "artifacts/model/full", card["hashes"]).preprocess.never_null_
    null = {h: next((n for n in never if row[n] is None), None) for h, row in features.items()}
    assert 0 < sum(name is not None for name in null.values()) < len(null)
    with serving(online_slice, "--model", "full") as client:
        for household, name in null.items():
            answer = client.post("/predict", json={"household_id": household})
            if name is None:
                assert answer.json()["score"] == scores[household]
                assert answer.json()["features"] == features[household]
            else:
                refused(answer, 422, rf"^no score for household_id {household} in feature {name}: expected a value")


class TestFittedStateThatIsNotTheModels:
    @pytest.fixture
    def folder(self, online_slice, copy):
        return copy(online_slice)

    def never_serves(self, folder, text, *words):
        command = [sys.executable, "-m", "lockstep", "serve", "--port", "0", *words]
        with subprocess.Popen(
            command, cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            served = process.stdout.readline()  # of a server that starts after all: it would go on for ever
            if served:
                process.kill()
            told = process.stderr.read().splitlines()
        assert (served, process.returncode, len(told)) == ("", 2, 1), told
        assert re.search(text, told[0])

    def never_loads(self, folder, text):
        """What `lockstep serve` loads, in this process: the first story shows that it tells this and ends."""
        with pytest.raises(LockstepError, match=text):
            Predictor(project(folder), "rfm")

    @pytest.mark.parametrize("name", ["model.skops", "preprocess.skops"])
    def test_missing_altered_and_foreign(self, folder, name):
        path = folder / "artifacts/model/rfm" / name
        honest = path.read_bytes()
        path.unlink()
        self.never_serves(folder, rf"^error: no model file in .*rfm/{name}")
        path.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
        self.never_loads(folder, rf"^altered model file in .*rfm/{name}")
        path.write_bytes((folder / "artifacts/model/full" / name).read_bytes())
        self.never_loads(folder, rf"^altered model file in .*rfm/{name}")

    def test_another_models_files_and_card_in_its_place(self, folder):
        for kind in ("model", "evaluate"):
            shutil.rmtree(folder / "artifacts" / kind / "rfm")
            shutil.copytree(folder / "artifacts" / kind / "full", folder / "artifacts" / kind / "rfm")
        self.never_loads(folder, r"^another model's files in artifacts of rfm: expected rfm, found full")

    def test_a_card_that_is_missing_or_broken(self, folder):
        card = folder / "artifacts/evaluate/rfm/card.json"
        card.write_text("{")
        self.never_loads(folder, r"^not JSON in .*card.json")
        card.unlink()
        self.never_loads(folder, r"^a file is missing in .*card.json")

    def test_a_request_time_formula_that_changed_since_training(self, folder):
        path = folder / "features/on_demand.py"
        text = path.read_text()
        path.write_text(text.replace('"first_trip_at", "at"', '"last_trip_at", "at"'))
        self.never_serves(folder, r"^error: the definitions changed since the model was trained in the card of rfm")
        path.write_text(text.replace('"tenure_days"', '"tenure"'))
        self.never_serves(folder, r"^error: .*tenure_days")

    def test_a_model_that_nobody_knows(self, folder):
        self.never_serves(folder, r"^error: no model 'rfn' in .*Did you mean 'rfm'\?", "--model", "rfn")
