"""Stories of `lockstep materialize` on real households: what goes online is what is offline, or it is said that not."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from lockstep.alone import alone
from lockstep.catalogue import Catalogue
from lockstep.errors import GuaranteeError
from lockstep.files import write_parquet
from lockstep.lookup import LookUp, NotOnline, UnknownEntity
from lockstep.materialize import materialize
from lockstep.online import pending, read_online
from lockstep.parity import parity, prove_parity
from lockstep.project import project
from tests.conftest import ENV, lockstep

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

TABLE = "lockstep_household_trips"


def sql(folder, statement, *values):
    """Run one statement on the store's file, as a hand with `sqlite3` would."""
    with closing(sqlite3.connect(folder / "state/online.db")) as store, store:
        return store.execute(statement, values).fetchall()


def content(folder):
    return sql(folder, f"SELECT entity_key, feature_name, value, event_ts FROM {TABLE} ORDER BY 1, 2")


def keys(folder, day="2018-01-01"):
    return pl.read_parquet(folder / f"artifacts/features/household_trips/v1/{day}.parquet")["household_id"].to_list()


def stored(folder):
    """How many features of a household the store holds, the flag that tells its row from none included."""
    return len(Catalogue(project(folder)).schemas["household_trips"])


def entity_key(folder, household):
    """The bytes under which Feast keeps a household: integers stand at the end, little-endian."""
    found = {k for (k,) in sql(folder, f"SELECT DISTINCT entity_key FROM {TABLE}")}
    (key,) = [k for k in found if k.endswith(household.to_bytes(8, "little"))]
    return key


def said(done, code):
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


def equal(folder, day="2018-01-01"):
    """What the proof of `day` says when all are equal."""
    views = folder / "artifacts/features"
    rows = {"households": len(keys(folder, day))}
    for whose, view in (
        ("stores", "store_trips"),
        ("household x stores", "household_store"),
        ("categories", "category_vectors"),
    ):
        rows[whose] = pl.read_parquet(views / view / f"v1/{day}.parquet").height
    proof = json.loads((folder / "state/parity.json").read_text())["text"]
    rows["requests"] = int(re.search(r", (\d+) of \1 requests equal", proof).group(1))
    assert rows["requests"] > 100
    said = ", ".join(f"{n:,} of {n:,} {whose}" for whose, n in rows.items())
    return f"{said} equal online and offline in {len(Catalogue(project(folder)).types)} features, snapshot {day}"


def test_a_snapshot_goes_online_and_every_household_is_equal(online_slice):
    n = len(keys(online_slice))
    line = f"online    {equal(online_slice)}\n"
    assert (online_slice / "state/materialize.out").read_text() == line  # none of Feast's own lines
    assert (online_slice / "state/materialize.err").read_text() == ""
    assert len(content(online_slice)) == stored(online_slice) * n
    record = read_online(online_slice)
    assert (str(record.snapshot), record.instant) == ("2018-01-01", datetime(2018, 1, 1, 5, tzinfo=UTC))
    assert record.views["household_trips"].rows == n
    assert not pending(project(online_slice))


def test_one_look_up_reads_the_household_its_store_and_both_together(online_slice):
    p = project(online_slice)
    catalogue, record = Catalogue(p), read_online(online_slice)
    names = {
        "household_trips": ["trips_90d"],
        "store_trips": ["store_trips_28d"],
        "household_store": ["trips_here_90d"],
    }
    views = [v for v in catalogue.views if v.name in names]
    rows = {v.name: pl.read_parquet(record.file(online_slice, v.name)) for v in views}
    here = rows["household_store"].row(5, named=True)
    pair = {"household_id": here["household_id"], "store_id": here["store_id"]}
    expected = {}
    for view in views:
        of = rows[view.name].filter(*(pl.col(k) == pair[k] for k in view.keys))
        expected |= of.select(names[view.name]).row(0, named=True)
    at = record.instant + timedelta(hours=9)
    with closing(LookUp(catalogue, record)) as lookup:
        assert lookup.read(names, views, pair, at) == (expected, record.instant, [])
        stranger = set(rows["store_trips"]["store_id"]) - set(
            rows["household_store"].filter(pl.col("household_id") == pair["household_id"])["store_id"]
        )
        values, _, defaults = lookup.read(names, views, {**pair, "store_id": min(stranger)}, at)  # never there
        assert values["trips_90d"] == expected["trips_90d"]
        assert (values["trips_here_90d"], defaults) == (0, ["trips_here_90d"])
        with pytest.raises(UnknownEntity, match=r"nobody by household_id 999999 in snapshot"):
            lookup.read(names, views, {"household_id": 999999, "store_id": 999999}, at)


def test_it_is_pending_until_it_is_at_the_last_snapshot_and_whole(offline_slice, online_slice, copy):
    assert pending(project(offline_slice))
    folder = copy(online_slice, "other")
    record, db = folder / "state/online.json", folder / "state/online.db"
    honest = record.read_text()
    features = json.loads(honest)["features"]
    for other in ("{", "[]", honest.replace("2018-01-01", "2017-12-31"), honest.replace(features, f"0{features[1:]}")):
        record.write_text(other)
        assert pending(project(folder))
    record.write_text(honest)
    assert not pending(project(folder))
    db.unlink()
    assert pending(project(folder))


def test_materialising_twice_changes_nothing(online_slice, copy):
    folder = copy(online_slice)
    materialize(project(folder))
    assert content(folder) == content(online_slice)
    assert (folder / "state/online.json").read_bytes() == (online_slice / "state/online.json").read_bytes()


@pytest.mark.parametrize("day", ["2017-01-01", "2018-01-02", "2017-02-30", "yesterday"])
def test_a_day_without_a_snapshot_or_not_a_day_is_refused(online_slice, day):
    line = said(lockstep(online_slice, "materialize", "--until", day), 2)
    assert re.search(
        r"^error: (no snapshot of that day in .*expected 2017-01-02 .. 2018-01-01|bad day in --until)", line
    )


def test_an_older_day_never_goes_over_a_newer_one(online_slice, copy):
    folder = copy(online_slice)
    line = said(lockstep(folder, "materialize", "--until", "2017-11-05"), 2)
    assert re.search(r"^error: a newer snapshot is online.*expected 2018-01-01 or later, found 2017-11-05", line)
    assert content(folder) == content(online_slice)

    (folder / "state/online.json").unlink()  # as the error says: the store is then filled from nothing
    done = lockstep(folder, "materialize", "--until", "2017-11-05")
    assert equal(folder, "2017-11-05") in done.stdout, done.stderr
    assert {ts for *_, ts in content(folder)} == {int(datetime(2017, 11, 5, 4, tzinfo=UTC).timestamp())}
    assert pending(project(folder))

    materialize(project(folder))  # and forward again, over what is there
    assert content(folder) == content(online_slice)


def test_rows_of_another_history_do_not_outlive_it(online_slice, copy):
    folder = copy(online_slice)
    path = folder / "artifacts/features/household_trips/v1/2018-01-01.parquet"
    rows = pl.read_parquet(path)
    write_parquet(rows[1:], path)  # as after a rebuild from other data, in which the first household never was
    materialize(project(folder))
    assert len(content(folder)) == stored(folder) * (rows.height - 1)


def test_the_zone_of_the_machine_does_not_matter(online_slice, copy):
    folder = copy(online_slice)
    (folder / "state/online.json").unlink()
    assert lockstep(folder, "materialize", TZ="Asia/Tokyo").returncode == 0
    assert content(folder) == content(online_slice)
    code = "from lockstep.parity import *; from lockstep.project import *; p = parity(project()); p.require()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder, env={**ENV, "TZ": "America/New_York"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class TestParitySees:
    """Each planted fault is one statement on the store's file."""

    @pytest.fixture
    def folder(self, online_slice, copy):
        return copy(online_slice)

    def differences(self, folder, equal_but):
        found = parity(project(folder))
        same, of = found.counts["household"]
        assert of - same == equal_but
        with pytest.raises(GuaranteeError, match="online is not offline in snapshot 2018-01-01"):
            found.require()
        return [(*d.entity, d.feature) for d in found.differences]

    def test_a_value_that_is_another(self, folder):
        one, other = keys(folder)[:2]
        wrong = sql(folder, f"SELECT value FROM {TABLE} WHERE entity_key = ? AND feature_name = 'lifetime_value'", entity_key(folder, other))  # fmt: skip  # noqa: E501
        sql(folder, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ? AND feature_name = 'lifetime_value'", wrong[0][0], entity_key(folder, one))  # fmt: skip  # noqa: E501
        assert self.differences(folder, 1) == [(one, "lifetime_value")]

    def test_a_float_one_bit_off_and_the_request_time_feature_made_of_it(self, folder):
        (one,) = keys(folder)[5:6]
        where = (entity_key(folder, one), "avg_gap_days")
        ((value,),) = sql(folder, f"SELECT value FROM {TABLE} WHERE entity_key = ? AND feature_name = ?", *where)
        flipped = value[:1] + bytes([value[1] ^ 1]) + value[2:]  # the lowest bit of a double in protobuf
        sql(folder, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ? AND feature_name = ?", flipped, *where)
        assert self.differences(folder, 1) in (
            [(one, "avg_gap_days")],
            [(one, "avg_gap_days"), (one, "recency_over_cadence")],
        )

    def test_an_integer_that_became_a_float(self, folder):
        from feast.protos.feast.types.Value_pb2 import Value

        (one,) = keys(folder)[3:4]
        where = (entity_key(folder, one), "trips_total")
        ((value,),) = sql(folder, f"SELECT value FROM {TABLE} WHERE entity_key = ? AND feature_name = ?", *where)
        same = Value(double_val=float(Value.FromString(value).int64_val)).SerializeToString()
        sql(folder, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ? AND feature_name = ?", same, *where)
        assert self.differences(folder, 1) == [(one, "trips_total")]

    def test_a_household_and_a_feature_that_are_gone(self, folder):
        one, other = keys(folder)[:2]
        sql(folder, f"DELETE FROM {TABLE} WHERE entity_key = ?", entity_key(folder, one))
        sql(
            folder, f"DELETE FROM {TABLE} WHERE entity_key = ? AND feature_name = 'spend_7d'", entity_key(folder, other)
        )
        found = self.differences(folder, 2)
        assert {entity for entity, _ in found} == {one}  # the first few are shown, all are counted
        assert len(found) == 5

    def test_an_older_timestamp(self, folder):
        (one,) = keys(folder)[7:8]
        sql(folder, f"UPDATE {TABLE} SET event_ts = event_ts - 86400 WHERE entity_key = ?", entity_key(folder, one))
        assert self.differences(folder, 1) == [(one, "event_timestamp")]

    def test_an_instant_with_a_fraction_of_a_second_which_feast_cuts_off(self, folder):
        path = folder / "artifacts/features/household_trips/v1/2018-01-01.parquet"
        rows = pl.read_parquet(path)
        fraction = pl.when(pl.int_range(pl.len()) == 4).then(timedelta(microseconds=1)).otherwise(timedelta())
        write_parquet(rows.with_columns(pl.col("last_trip_at") + fraction), path)
        materialize(project(folder))
        found = self.differences(folder, 1)
        assert found[0] == (rows["household_id"][4], "last_trip_at")

    def test_a_default_that_is_another_online_alone(self, folder, monkeypatch):
        honest = LookUp.read

        def read(self, *asked):
            values, snapshot, defaults = honest(self, *asked)
            return {name: 1 if name in defaults and value == 0 else value for name, value in values.items()}, snapshot, defaults  # fmt: skip  # noqa: E501

        monkeypatch.setattr(LookUp, "read", read)
        with pytest.raises(GuaranteeError, match=r"redemptions_90d of \d+, 2018-01-01T.*: offline 0, online 1"):
            prove_parity(project(folder))

    def test_a_row_past_its_lifetime_that_is_read_all_the_same(self, folder, monkeypatch):
        monkeypatch.setattr("lockstep.lookup.expired", lambda *_: False)
        late = r"service rfm of \d+, 2018-01-08T05:00:00.000001\+00:00: offline .no row of view .*, online 'an answer'"
        with pytest.raises(GuaranteeError, match=late):
            prove_parity(project(folder))

    def test_a_command_that_finds_a_difference_exits_with_1_and_names_it(self, folder):
        (one,) = keys(folder)[7:8]
        code = (
            "import sys, sqlite3, lockstep.parity as p\n"
            "honest = p.parity\n"
            "def planted(project):\n"
            f"    with sqlite3.connect('state/online.db') as s: s.execute('DELETE FROM {TABLE} WHERE entity_key = ?',"
            f" (bytes.fromhex('{entity_key(folder, one).hex()}'),))\n"
            "    return honest(project)\n"
            "p.parity = planted\n"
            "sys.argv = ['lockstep', 'materialize']\n"
            "from lockstep.cli import main; main()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=ENV, capture_output=True, text=True, check=False
        )
        assert re.search(rf"^error: online is not offline.*of {one}: offline .*, online None", said(done, 1))
        assert done.stdout == ""


KILLED = """
import os, signal, sys
import feast.infra.online_stores.sqlite as store
honest, calls = store.serialize_entity_key, []
def serialize(*args, **kwargs):
    calls.append(1)
    if len(calls) == 50:  # in the middle of the transaction
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*args, **kwargs)
store.serialize_entity_key = serialize
from lockstep.materialize import materialize
from lockstep.project import project
from lockstep.clock import parse_day
materialize(project(), parse_day(sys.argv[1]))
"""


def killed(folder, day):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, day]
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def test_a_first_run_that_was_killed_leaves_nothing_online_and_the_next_completes(offline_slice, online_slice):
    folder = offline_slice
    killed(folder, "2018-01-01")
    assert content(folder) == []
    assert pending(project(folder))
    with pytest.raises(NotOnline, match=r"nothing is online.*lockstep materialize"):
        parity(project(folder))
    materialize(project(folder))
    assert content(folder) == content(online_slice)
    parity(project(folder)).require()


def test_a_later_run_that_was_killed_leaves_the_snapshot_before_whole_and_readable(offline_slice):
    folder = offline_slice
    materialize(project(folder), date(2017, 12, 30))
    before = content(folder)
    killed(folder, "2018-01-01")
    assert content(folder) == before
    found = parity(project(folder))  # Feast's own view is MATERIALIZING for good, and unreadable
    found.require()
    assert str(found.snapshot) == "2017-12-30"
    materialize(project(folder))
    prove_parity(project(folder))
    assert not pending(project(folder))


def test_one_process_at_a_time(online_slice, copy):
    folder = copy(online_slice)
    with alone(folder, "materialize"):
        line = said(lockstep(folder, "materialize"), 3)
    assert re.search(r"^error: another process is at it: materialize", line)
    materialize(project(folder))


@pytest.mark.parametrize("name", ["online.db", "registry.db"])
def test_a_damaged_file_is_named_and_may_be_removed(online_slice, copy, name):
    folder = copy(online_slice)
    (folder / "state" / name).write_bytes(b"\xff" * 5000)
    line = said(lockstep(folder, "materialize"), 3)
    assert re.search(
        rf"^error: the online store or its registry cannot be written in .*{name}.*Remove these files", line
    )
    for removed in ("online.db", "registry.db"):
        (folder / "state" / removed).unlink()
    materialize(project(folder))
    assert content(folder) == content(online_slice)


def test_a_store_that_takes_nothing_is_not_published(online_slice, copy, monkeypatch):
    from feast.infra.online_stores.sqlite import SqliteOnlineStore

    folder = copy(online_slice)
    (folder / "state/online.json").unlink()
    monkeypatch.setattr(SqliteOnlineStore, "online_write_batch", lambda *_, **__: None)
    with pytest.raises(
        GuaranteeError, match=r"the online store did not take a row in household_trips, household_id 20"
    ):
        materialize(project(folder))
    assert read_online(folder) is None


def test_definitions_that_changed_since_the_build_are_not_put_online(online_slice, copy):
    folder = copy(online_slice)
    with (folder / "features/household.py").open("a", encoding="utf-8") as handle:
        handle.write("\n# another thought\n")
    line = said(lockstep(folder, "materialize"), 1)
    assert re.search(r"^error: the definitions changed since the snapshots were built.*lockstep run", line)


def test_the_flow_does_the_same_and_keeps_feasts_chatter_to_itself(online_slice, copy):
    folder = copy(online_slice)
    shutil.rmtree(folder / "state/prefect", ignore_errors=True)
    quiet = {
        "PREFECT_HOME": str(folder / "state/prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    }
    done = lockstep(folder, module="flows.materialize", **quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "materialize ...",
        "materialize: snapshot 2018-01-01 is online",
        "parity ...",
        f"parity: {equal(folder)}",
    ]
    done = lockstep(folder, "2017-02-01", module="flows.materialize", **quiet)
    assert re.search(r"^error: a newer snapshot is online", said(done, 2))


def test_the_record_is_json_that_says_what_is_online(online_slice):
    record = json.loads((online_slice / "state/online.json").read_text())
    about = json.loads((online_slice / "artifacts/features.json").read_text())
    assert record["features"] == about["hashes"]["features"]
    assert record["code"] == about["hashes"]["code"]
