"""The schedules on a real local server: one fires, its run finishes, and nothing of it stays behind."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import psutil
import pytest

from lockstep.clone import copy_project
from lockstep.landings import read_landings
from tests.conftest import ENV, ROOT, lockstep
from tests.data.copies import ask_lapse_alone

LIMIT = 900  # seconds in which a run must have fired and finished; a schedule that never fires would wait for ever


@pytest.fixture
def project(tmp_path):
    """This project with one of its questions, nothing landed."""
    folder = copy_project(ROOT, tmp_path / "project", keep_one_in=20)
    ask_lapse_alone(folder)
    yield folder
    for process in mine(folder):  # a test that failed must not leave a server behind
        process.kill()


def mine(folder: Path) -> list[psutil.Process]:
    """Every process that works in `folder`, or was started with its path."""
    found = []
    for process in psutil.process_iter():
        try:
            where = [process.cwd(), *process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in where):
            found.append(process)
    return found


def up(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lockstep", "up", "--keep-one-in", "100", *words],
        cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for `up`; one that takes too long is stopped as a person would stop it, and its words are shown."""
    try:
        said = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()
        pytest.fail(f"not ended within {LIMIT} s: {said}")
    return process.returncode, *said


def test_a_schedule_fires_seals_the_next_day_and_leaves_its_verdict_and_no_process(project):
    code, said, errors = ended(up(project, "--runs", "1", "--every", "30", "--until", "2017-12-02"))
    assert (code, errors) == (0, ""), said + errors
    line = r"^daily due [\d:]{8}: Completed after \d+ s. sealed up to 2017-12-03; rfm AUC 0\.\d+ .*; full AUC 0\.\d+ "
    assert re.search(line, said, re.MULTILINE), said

    copy = project / "state/up"
    server = sqlite3.connect(f"file:{copy / 'state/prefect/prefect.db'}?mode=ro", uri=True)  # what Prefect itself keeps
    runs = server.execute(
        "SELECT auto_scheduled, flow_run.created_by, flow_run.parameters, deployment.name FROM flow_run"
        " JOIN deployment ON deployment.id = deployment_id WHERE state_type = 'COMPLETED'"
    ).fetchall()
    server.close()
    [(auto_scheduled, created_by, parameters, deployment)] = runs
    assert (auto_scheduled, deployment, json.loads(parameters)) == (1, "daily", {"days": 1})
    assert json.loads(created_by)["type"] == "SCHEDULE"

    assert max(line.landing_day for line in read_landings(copy / "landings.csv")) == date(2017, 12, 3)
    ledger = json.loads((copy / "state/ledger" / (copy / "state/ledger/shown").read_text()).read_text())
    assert "337 days" in ledger["lines"]["landings"]
    assert (copy / "state/report.html").is_file()
    assert not (project / "landings.csv").exists()  # the project itself is left alone
    assert mine(project) == []


def test_ctrl_c_in_the_middle_of_a_run_ends_flow_worker_and_server(project):
    process = up(project, "--every", "3600")
    log = project / "state/up/state/prefect/worker.log"
    deadline = time.monotonic() + LIMIT
    while not (log.is_file() and "validate ..." in log.read_text(encoding="utf-8")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running = " ".join(" ".join(p.cmdline()) for p in mine(project))
    for name in ("prefect server start", "prefect worker start", "prefect.engine", "dvc repro"):
        assert name in running, name
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
    code, _, errors = ended(process)
    assert code == 130, errors
    assert errors == "stopped: nothing is half-written, run the same command again\n"
    assert mine(project) == []


def test_a_port_that_is_taken_is_told_before_anything_starts(project):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = lockstep(project, "up", "--port", str(port))
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: port {port} cannot be had in --port: found Address already in use. End what")
    assert len(done.stderr.splitlines()) == 1
    assert not (project / "state/up").exists()


def test_a_configured_server_that_is_not_there_is_told_and_nothing_is_built(built_slice, copy):
    folder = copy(built_slice)
    params = folder / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("resamples: 200", "resamples: 100"), encoding="utf-8")
    lock = (folder / "dvc.lock").read_bytes()
    done = lockstep(folder, "run", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 3, done.stderr
    told = r"error: the Prefect server does not answer in PREFECT_API_URL http://127.0.0.1:9/api: .*\n"
    assert re.fullmatch(told, done.stderr), done.stderr
    for flow in ("rebuild", "materialize", "shadow"):
        done = lockstep(folder, module=f"flows.{flow}", PREFECT_API_URL="http://127.0.0.1:9/api")
        assert done.returncode == 3
        assert re.fullmatch(told, done.stderr), done.stderr
    assert (folder / "dvc.lock").read_bytes() == lock
