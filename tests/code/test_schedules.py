"""The schedules as they are checked in, the clock of a try, and what a scheduled run lands and waits for."""

import importlib
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from lockstep.errors import DataError
from lockstep.files import tree_hash
from lockstep.land import last_sealed
from lockstep.project import project
from lockstep.run import at_work, land_due
from lockstep.stage import QUIET
from lockstep.up import simulated
from tests.code.definitions import contract
from tests.code.test_land import COLUMNS
from tests.conftest import ENV, ROOT, git

SCHEDULES = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {d["name"]: d for d in SCHEDULES["deployments"]}


def test_there_is_a_daily_and_a_weekly_schedule():
    assert {name: d["schedules"][0]["cron"].split()[2:] for name, d in DEPLOYMENTS.items()} == {
        "daily": ["*", "*", "*"],
        "shadow": ["*", "*", "1"],
    }


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_an_entrypoint_is_a_flow_of_that_name_and_takes_the_parameters(name):
    path, function = DEPLOYMENTS[name]["entrypoint"].split(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function)
    assert isinstance(flow, Flow)
    assert flow.name == name
    flow.validate_parameters({"root": None, **DEPLOYMENTS[name].get("parameters", {})})


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_says_nothing_of_this_machine_and_prefect_reads_its_parts(name):
    deployment = DEPLOYMENTS[name]
    for schedule in deployment["schedules"]:
        assert CronSchedule(**schedule).timezone == project(ROOT).settings.zone
    limit = deployment["concurrency_limit"]
    assert (limit["limit"], ConcurrencyLimitStrategy(limit["collision_strategy"]).name) == (1, "CANCEL_NEW")
    assert deployment["work_pool"] == {"name": "local", "job_variables": {"env": QUIET}}
    assert not Path(deployment["entrypoint"]).is_absolute()
    assert "pull" not in SCHEDULES  # Prefect writes the folder of the deployer into what it sends, not into the file
    assert "pull" not in deployment


def test_a_day_of_the_trys_clock_takes_so_many_seconds_and_a_week_seven_of_them():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    given = {
        "deployments": [
            {"name": "d", "parameters": {"days": 0, "root": None}, "schedules": [{"cron": "15 0 * * *"}]},
            {"name": "w", "schedules": [{"cron": "0 2 * * 1"}]},
        ]
    }
    daily, weekly = simulated(given, 30, start)["deployments"]
    assert daily["parameters"] == {"days": 1, "root": None}
    first = [IntervalSchedule(**d["schedules"][0]) for d in (daily, weekly)]
    assert [(s.interval.total_seconds(), (s.anchor_date - start).total_seconds()) for s in first] == [
        (30, 0),
        (210, 180),
    ]
    assert "parameters" not in weekly


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A project whose source has rows for each of the first four days of March 2017; `land.until` is the second."""
    (tmp_path / "contracts").mkdir()
    contract(tmp_path / "contracts", COLUMNS)
    (tmp_path / "visits_landing.py").write_text(
        "from tests.code.test_land import rows as of\n\n\n"
        "def rows(table, settings, zone):\n    return of((1, 10, 1), (2, 20, 2), (3, 30, 3), (4, 40, 4))\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        "[tool.lockstep]\nlanding = 'visits_landing'\ncontracts = 'contracts'\n", encoding="utf-8"
    )
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["land"] = {"first": "2017-03-01", "until": "2017-03-02"}
    (tmp_path / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    git(tmp_path, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True, env=ENV)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield project(tmp_path)
    sys.modules.pop("visits_landing", None)


def test_a_run_lands_the_days_that_are_due_and_none_twice(source):
    with pytest.raises(DataError, match="no sealed day"):
        last_sealed(source.root)
    assert land_due(source) == "sealed up to 2017-03-02"
    before = tree_hash(source.root / "data")
    assert land_due(source) == "sealed up to 2017-03-02"
    assert tree_hash(source.root / "data") == before
    assert land_due(source, 1) == "sealed up to 2017-03-03"
    assert last_sealed(source.root) == date(2017, 3, 3)


def test_the_end_of_the_source_is_said_and_every_later_run_gives_the_same_bytes(source):
    assert land_due(source, 5) == "sealed up to 2017-03-04, where the source ends"
    sealed = (source.root / "landings.csv").read_bytes(), (source.root / "data.dvc").read_bytes()
    assert land_due(source, 1) == "sealed up to 2017-03-04, where the source ends"
    assert sealed == ((source.root / "landings.csv").read_bytes(), (source.root / "data.dvc").read_bytes())


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path):
    code = f"import pathlib, lockstep.run as r\nwith r.at_work(pathlib.Path({str(tmp_path)!r})): print('in')"
    with at_work(tmp_path):
        other = subprocess.Popen([sys.executable, "-uc", code], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline().startswith("another process is at it: run. Waiting for it (")
        assert other.poll() is None
    said, _ = other.communicate(timeout=60)
    assert said == "in\n"
