"""A year of daily snapshots from clean rows to files: Lockstep, one more day of it, and day-by-day loops by hand.

Fourteen windowed counts, sums and distinct counts and a lifetime, which everybody writes alike. The larger sizes are
replicated from the real rows (see ``benchmarks.replicas``). Values must be equal between all, every day.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from benchmarks.replicas import replicate
from benchmarks.rounds import Case, Size
from features.sources import household, trips
from lockstep import agg
from lockstep.clock import days, parse_day
from lockstep.contract import load_contracts
from lockstep.day_cache import DayCache, Hashes, day_keys
from lockstep.define import Feature, View
from lockstep.errors import GuaranteeError
from lockstep.events import Events
from lockstep.project import project
from lockstep.snapshots import build
from lockstep.tables import read_tables

FIRST, LAST = date(2017, 1, 2), date(2018, 1, 1)
MONTH = (date(2017, 11, 1), date(2017, 11, 30))  # with the day on which the clocks go back
WINDOWS = (7, 30, 90)
SUMS = {"spend": "value", "private_spend": "private_value", "discount": "discount"}
FEATURES = [
    Feature("trips_total", agg.count()),
    *(Feature(f"trips_{n}d", agg.count(days=n)) for n in WINDOWS),
    *(Feature(f"{name}_{n}d", agg.sum(column, days=n)) for name, column in SUMS.items() for n in WINDOWS),
    *(Feature(f"stores_{n}d", agg.distinct("store_id", days=n)) for n in WINDOWS[1:]),
]
VIEW = View("year", [household], trips, FEATURES, ttl_days=1)
COLUMNS = ["household_id", *(feature.name for feature in FEATURES)]
YEAR = {"lockstep": "benchmarks.snapshots:year"}
ONE_MORE = {"lockstep, one more day": "benchmarks.snapshots:one_more"}
LOOPS = {
    "a Polars loop": "benchmarks.by_hand:polars_loop",
    "a Polars loop, 90 days": "benchmarks.by_hand:polars_loop_90",
    "a DuckDB loop": "benchmarks.by_hand:duckdb_loop",
}
PANDAS = {"a pandas loop": "benchmarks.by_hand:pandas_loop"}


def cases(folder: Path, size: Size) -> Iterator[Case]:
    """Yield a month when it is to be quick, else the example's year, and in full that of 11 million events."""
    clean = project().root / "artifacts/clean"
    if not any(clean.glob("*/*.parquet")):
        print("\nsnapshots: nothing to read, run `make run` first")
        return
    if size is Size.QUICK:
        yield _case("a month of the example", clean, folder, {**LOOPS, **PANDAS}, 1, *MONTH)
        return
    yield _case("1.5 M events", clean, folder, {**ONE_MORE, **LOOPS, **PANDAS}, 3, FIRST, LAST)
    if size is Size.FULL:
        replicate(clean, folder / "11M", 8, project().settings.clock)
        yield _case("11 M events, replicated", folder / "11M", folder, {**ONE_MORE, **LOOPS, **PANDAS}, 3, FIRST, LAST)


def hundred_million(folder: Path, _: Size) -> Iterator[Case]:
    """Yield the year of 101 million events, beside nobody."""
    replicate(project().root / "artifacts/clean", folder / "101M", 74, project().settings.clock)
    yield _case("101 M events, replicated", folder / "101M", folder, ONE_MORE, 1, FIRST, LAST)


def _case(what: str, clean: Path, folder: Path, peers: Mapping[str, str], rounds: int, *ends: date) -> Case:
    told = [str(d) for d in ends]
    calls = {n: (f, (str(clean), str(folder / n), *told)) for n, f in {**YEAR, **peers}.items()}
    title = f"{what}, {len(FEATURES)} features, {ends[0]} to {ends[1]}"
    return Case(title, rounds, calls, "benchmarks.snapshots:verdict", check, warm=False)


def year(clean: str, out: str, first: str, last: str) -> Callable[[], Path]:
    """Return the building of all days by Lockstep, with nothing kept from before."""
    shutil.rmtree(out, ignore_errors=True)
    return lambda: _build(Path(clean), Path(out), parse_day(first), parse_day(last))


def one_more(clean: str, out: str, first: str, last: str) -> Callable[[], Path]:
    """Return the building of the last day by Lockstep, where another process has kept all others before."""
    folder, begin, end = Path(out), parse_day(first), parse_day(last)
    shutil.rmtree(folder, ignore_errors=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as yesterday:
        yesterday.submit(_build, Path(clean), folder, begin, end - timedelta(days=1)).result()
    shutil.rmtree(folder / "snapshots")
    return lambda: _build(Path(clean), folder, begin, end)


def _build(clean: Path, out: Path, first: date, last: date) -> Path:
    """Do what the stage does for a view, elsewhere; return the folder of snapshots."""
    here = project()
    tables = read_tables(clean, load_contracts(here.folder("contracts")), here.settings.clock, VIEW.source.tables)
    hashes = Hashes(out / "hashes.json")
    events = Events(trips, tables, FIRST, last, cache=DayCache(out / "events", hashes))
    keys = {
        d: k
        for d, k in day_keys("bench", {n: t.files for n, t in tables.items()}, hashes, FIRST, last).items()
        if d >= first
    }
    build(VIEW, events, keys, out / "snapshots", DayCache(out / "days", hashes))
    hashes.save()
    return out / "snapshots"


def verdict(found: Path, _: str, __: str, first: str, last: str) -> str:
    """Say how much there is, and a hash of the values of all days."""
    rows, total = 0, 0
    for day in days(parse_day(first), parse_day(last)):
        frame = pl.read_parquet(found / f"{day}.parquet", columns=COLUMNS).select(pl.col(COLUMNS).cast(pl.Int64))
        rows += frame.height
        total = (total * 31 + sum(frame.hash_rows().to_list())) % 2**64
    return f"{rows:,} rows, values {total:016x}"[:-8]


def check(verdicts: Mapping[str, str]) -> None:
    """Raise when anybody came to other values."""
    if len(set(verdicts.values())) > 1:
        raise GuaranteeError("other values than the loops by hand", where="snapshots", found=dict(verdicts))
