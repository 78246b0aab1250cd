"""The schedules on one machine, to look at: a copy of the project, a clock of its own, a real server and worker."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

import yaml

from lockstep.alone import alone
from lockstep.clone import copy_project
from lockstep.errors import GuaranteeError
from lockstep.files import write_text
from lockstep.prefect_server import Family, end, free_port
from lockstep.project import Project

__all__ = ["simulated", "up"]


def up(
    project: Project, *, every: int, keep_one_in: int, until: date | None, port: int | None, runs: int | None
) -> None:
    """Run the schedules of `project` on a copy until Ctrl-C, or until `runs` scheduled runs have finished.

    A day of the copy's clock takes `every` seconds: what ``prefect.yaml`` schedules daily falls due that often, what it
    schedules weekly seven times as rarely, and a flow with a parameter `days` seals one day a run. The copy holds one
    entity in `keep_one_in` and what had landed up to `until`, by default four weeks before ``land.until``.

    Raises
    ------
    EnvironmentFault
        The port is taken, the server or the worker cannot start or has ended, or another `up` is at it.
    GuaranteeError
        `runs` have finished and one of them has not completed.
    """
    until = until or project.settings.land.until - timedelta(days=28)
    folder = project.root / "state/up"
    for name in {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__):  # a closed terminal ends all, as Ctrl-C does
        signal.signal(signal.Signals[name], signal.default_int_handler)
    with alone(project.root, "up"):
        end(folder)  # what a killed try has left
        family = Family(folder, free_port(port))
        shutil.rmtree(folder, ignore_errors=True)
        copy_project(project.root, folder, keep_one_in)
        try:
            _start(family, every, keep_one_in, until)
            failed = _watch(family, runs)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave a server behind
            print("stopping flows, worker and server", flush=True)
            end(folder, last=family.running.get("server"))
    if failed:
        raise GuaranteeError("scheduled runs have not completed", where="lockstep up", found=", ".join(failed))


def simulated(schedules: dict[str, Any], every: int, start: datetime) -> dict[str, Any]:
    """Return the content of a ``prefect.yaml`` in which a day takes `every` seconds and begins at `start`."""
    for deployment in schedules["deployments"]:
        weekly = any(schedule["cron"].split()[4] != "*" for schedule in deployment["schedules"])
        seconds = every * (7 if weekly else 1)
        first = start + timedelta(seconds=seconds - every)  # a week is over after seven days
        deployment["schedules"] = [{"interval": seconds, "anchor_date": first.isoformat(), "timezone": "UTC"}]
        if "days" in deployment.get("parameters", {}):
            deployment["parameters"] = {**deployment["parameters"], "days": 1}
    return schedules


def _start(family: Family, every: int, keep_one_in: int, until: date) -> None:
    """Land the copy's first days, start server and worker, and send the schedules."""
    print(f"copy    state/up, one household in {keep_one_in}, landing up to {until}", flush=True)
    server = family.start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(family.port))
    family.call("land", "lockstep", "land", "--until", str(until))
    family.wait_for_server()
    print(f"server  {family.address}, process {server}", flush=True)
    family.call("deploy", "prefect", "--no-prompt", "work-pool", "create", "local", "--type", "process")
    worker = family.start("worker", "prefect", "worker", "start", "--pool", "local", "--type", "process")
    print(f"worker  pool local, process {worker}", flush=True)
    file = family.folder / "prefect.yaml"
    begin = datetime.now(UTC) + timedelta(seconds=15)  # deploying takes half of that
    schedules = simulated(yaml.safe_load(file.read_text(encoding="utf-8")), every, begin)
    write_text(yaml.safe_dump(schedules, sort_keys=False), file)
    family.call("deploy", "prefect", "--no-prompt", "deploy", "--all")
    for deployment in schedules["deployments"]:
        print(f"{deployment['name']:6}  every {deployment['schedules'][0]['interval']} s", flush=True)
    print("logs    state/up/state/prefect\n", flush=True)


def _watch(family: Family, runs: int | None) -> list[str]:
    """Print a line for each scheduled run that finishes; return those of the first `runs` that have not completed."""
    import httpx

    done: list[str] = []
    failed: list[str] = []
    with httpx.Client(base_url=family.api, trust_env=False) as client:
        for run in _finished(client, family):
            due = datetime.fromisoformat(run["expected_start_time"]).astimezone()
            name = f"{run['deployment']} due {due:%H:%M:%S}"
            message = " ".join((run["state"]["message"] or "").split())
            print(f"{name}: {run['state_name']} after {run['total_run_time']:.0f} s. {message}", flush=True)
            if run["state_type"] != "CANCELLED":  # it was skipped: the one before it was still at work
                done.append(name)
                failed += [name] if run["state_type"] != "COMPLETED" else []
            if runs is not None and len(done) >= runs:
                break
    return failed


def _finished(client: Any, family: Family) -> Iterator[dict[str, Any]]:
    """Yield each scheduled run when it has finished, while server and worker live: the fields of Prefect's REST API."""
    import httpx

    names = {d["id"]: d["name"] for d in client.post("/deployments/filter", json={}).raise_for_status().json()}
    ended = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    asked = {"flow_runs": {"deployment_id": {"any_": list(names)}, "state": ended}, "sort": "EXPECTED_START_TIME_DESC"}
    seen: set[str] = set()
    while True:
        family.check()
        with suppress(httpx.TransportError):  # the server is busy, or dead: then the next check says so
            for run in reversed(client.post("/flow_runs/filter", json=asked).raise_for_status().json()):
                if run["auto_scheduled"] and run["id"] not in seen:
                    seen.add(run["id"])
                    yield {**run, "deployment": names[run["deployment_id"]]}
        time.sleep(1)
