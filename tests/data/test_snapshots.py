"""Snapshots of real households: the engine against the definition on every day, and what is computed again when."""

import re
import subprocess
import sys

import polars as pl

from lockstep.clock import days
from lockstep.contract import load_contracts
from lockstep.define import View
from lockstep.events import Events
from lockstep.files import tree_hash, write_parquet
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import project
from lockstep.snapshot import snapshot
from lockstep.tables import read_tables
from tests.conftest import ENV

SECOND = """

small = View("small", [household], trips, [Feature("n", agg.count(days=7)), Feature("m", agg.max("value"))], ttl_days=7)
"""
COMMAND = [sys.executable, "-m", "lockstep.snapshots"]


def build(folder):
    done = subprocess.run(COMMAND, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^features (\w+) v1: .*, (\d+ computed.*)$", done.stdout, re.MULTILINE))


def test_every_day_of_the_slice_has_the_bytes_that_the_definition_gives(built_slice, tmp_path):
    p = project(built_slice)
    zone, contracts = p.settings.clock, load_contracts(p.folder("contracts"))
    first, last = snapshot_days(read_landings(p.root / "landings.csv"), ["transactions"])
    for view in p.objects("views", View):
        tables = read_tables(p.root / "artifacts/clean", contracts, zone, view.source.tables)
        events = Events(view.source, tables, first, last)
        assert events.short or view.name == "household_offers"  # campaigns are announced all the year
        every = events.derived(last) if view.name == "household_trips" else None
        for day in list(days(first, last))[:: 1 if every is not None else 23]:  # of 23 and 25 hours among them
            known = events.derived(view.as_of(day)) if every is None else every.filter(pl.col("event_day") < day)
            frame = snapshot(view, known, events.entities(view.keys, day), day, zone)
            write_parquet(frame, tmp_path / "expected.parquet")
            built = built_slice / f"artifacts/features/{view.folder}/{day}.parquet"
            assert built.read_bytes() == (tmp_path / "expected.parquet").read_bytes(), (view.name, day)


def test_a_changed_definition_computes_just_its_view_again_and_says_which_part_changed(built_slice, copy):
    folder = copy(built_slice)
    definitions = folder / "features/household.py"
    text = definitions.read_text(encoding="utf-8") + SECOND
    definitions.write_text(text, encoding="utf-8")
    found = build(folder)
    assert (found["household_trips"], found["small"]) == ("0 computed", "365 computed (not kept from before)")
    definitions.write_text(
        text.replace('Feature("n", agg.count(days=7)', 'Feature("n", agg.count(days=8)'), encoding="utf-8"
    )
    found = build(folder)
    assert (found["household_trips"], found["small"]) == ("0 computed", "365 computed (feature n changed)")
    sources = folder / "features/sources.py"
    sources.write_text(sources.read_text(encoding="utf-8") + "\n# moved\n", encoding="utf-8")
    module = {v.name: (v.source.derive.__module__, v.source.name) for v in project(built_slice).objects("views", View)}
    said = {n: f"365 computed (source {s} changed)" if m == "features.sources" else "0 computed" for n, (m, s) in module.items()}  # fmt: skip  # noqa: E501
    assert build(folder) == {**said, "small": "365 computed (source trips changed)"}
    assert set(build(folder).values()) == {"0 computed"}


def test_two_processes_at_once_leave_the_right_files_or_one_says_that_the_other_is_at_it(built_slice, copy):
    folder = copy(built_slice)
    honest = tree_hash(folder / "artifacts/features")
    for path in (folder / "state/days").rglob("*.parquet"):
        path.unlink()
    both = [
        subprocess.Popen(COMMAND, cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0 or (process.returncode == 3 and "another process is at it: features" in said), (
            said
        )
    assert min(p.returncode for p in both) == 0
    assert tree_hash(folder / "artifacts/features") == honest
