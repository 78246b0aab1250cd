"""Daily snapshots of the example from its clean rows: all days of the project's view, and a month beside loops by hand.

The month has the day on which the clocks go back. It asks for counts and sums alone, which everybody writes alike.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path

import polars as pl

from benchmarks.rounds import Case, Size
from features.sources import household, trips
from lockstep import agg
from lockstep.clock import days
from lockstep.contract import load_contracts
from lockstep.define import Feature, View
from lockstep.errors import GuaranteeError
from lockstep.events import Events, read_tables
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import Project, project
from lockstep.snapshots import build

MONTH = list(days(date(2017, 11, 1), date(2017, 11, 30)))
WINDOWS = (7, 30, 90)
FEATURES = [
    Feature("trips_total", agg.count()),
    Feature("lifetime_value", agg.sum("value")),
    *(Feature(f"trips_{n}d", agg.count(days=n)) for n in WINDOWS),
    *(Feature(f"spend_{n}d", agg.sum("value", days=n)) for n in WINDOWS),
    Feature("private_spend_90d", agg.sum("private_value", days=90)),
    Feature("discount_90d", agg.sum("discount", days=90)),
]
COLUMNS = ["household_id", *(feature.name for feature in FEATURES)]
PEERS = {
    "lockstep": "benchmarks.snapshots:month",
    "a Polars loop": "benchmarks.by_hand:polars_loop",
    "a pandas loop": "benchmarks.by_hand:pandas_loop",
}


def cases(folder: Path, size: Size) -> Iterator[Case]:
    """Yield the month beside the loops and, unless it is to be quick, all days of the project's view."""
    root = project().root
    if not any((root / "artifacts/clean").glob("*/*.parquet")):
        print("\nsnapshots: nothing to read, run `make run` first")
        return
    peers = {peer: (function, (str(root), str(folder / peer))) for peer, function in PEERS.items()}
    title = f"{len(MONTH)} days of {len(FEATURES)} counts and sums, from clean rows to files"
    rounds, warm = (1, False) if size is Size.QUICK else (5, True)
    yield Case(title, rounds, peers, "benchmarks.snapshots:verdict", check, warm)
    if size is not Size.QUICK:
        alone = {"lockstep": ("benchmarks.snapshots:everything", (str(root), str(folder / "everything")))}
        yield Case("all days of the project's view", 1, alone, "benchmarks.snapshots:count", lambda _: None, warm=False)


def month(root: str, out: str) -> Callable[[], Path]:
    """Return the building of the month by Lockstep."""
    view = View("month", household, trips, FEATURES, ttl_days=1)
    return lambda: _build(project(Path(root)), view, MONTH, Path(out))


def everything(root: str, out: str) -> Callable[[], Path]:
    """Return the building of every snapshot of the project's first view, nothing cached."""
    here = project(Path(root))
    view = here.objects("views", View)[0]
    return lambda: _build(here, view, None, Path(out))


def _build(here: Project, view: View, wanted: list[date] | None, out: Path) -> Path:
    """Do what the stage does for a view, elsewhere and without its cache; return the folder of snapshots."""
    shutil.rmtree(out, ignore_errors=True)
    contracts, zone = load_contracts(here.folder("contracts")), here.settings.clock
    daily = [c.table for c in contracts.values() if c.calendar == "daily"]
    first, last = snapshot_days(read_landings(here.root / "landings.csv"), daily)
    tables = read_tables(here.root / "artifacts/clean", contracts, zone, view.source.tables)
    events = Events(view.source, tables, first, last)
    keys = dict.fromkeys(wanted or days(first, last), "bench")
    build(view, events, keys, out=out / "snapshots", cache=out / "cache")
    return out / "snapshots"


def count(found: Path, *_: str) -> str:
    """Say how much there is."""
    rows = pl.scan_parquet(found / "*.parquet").select(pl.len()).collect().item()
    return f"{len(list(found.iterdir()))} days, {rows:,} rows"


def verdict(found: Path, *_: str) -> str:
    """Say how much there is, and the hash of the values."""
    frames = [pl.read_parquet(path, columns=COLUMNS).select(COLUMNS) for path in sorted(found.iterdir())]
    values = pl.concat([f.cast(pl.Int64).sort("household_id") for f in frames]).write_csv().encode()
    return f"{count(found)}, values {hashlib.md5(values, usedforsecurity=False).hexdigest()[:8]}"


def check(verdicts: Mapping[str, str]) -> None:
    """Raise when anybody came to other values."""
    if len(set(verdicts.values())) > 1:
        raise GuaranteeError("other values than the loops by hand", where="snapshots", found=dict(verdicts))
