"""Historical retrieval through Feast: which store is fast, and whose values were the ones known last.

Entities (50,000 by default) have a snapshot a day for 20 days, and 2 % of these were corrected on the day after. Entity
rows ask at any moment from before the first snapshot until after the last has expired.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.rounds import Case, Size
from lockstep.errors import GuaranteeError

FEATURES = [f"f{n}" for n in range(10)]
SNAPSHOTS, CORRECTED = 20, 0.02
TTL = timedelta(days=7)
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000  # microseconds
ROWS = {Size.QUICK: [10_000], Size.DEFAULT: [10_000, 100_000], Size.FULL: [10_000, 100_000, 1_000_000]}
ROUNDS = {10_000: 9, 100_000: 5, 1_000_000: 3}
OURS = ("lockstep", "lockstep, Arrow", "lockstep, pandas")


def cases(folder: Path, size: Size) -> Iterator[Case]:
    """Write the history, and yield a case for each number of entity rows."""
    rng, entities = np.random.default_rng(0), 10_000 if size is Size.QUICK else 50_000
    write_history(rng, folder, entities)
    peers = {
        OURS[0]: "benchmarks.by_feast:lockstep_polars",
        OURS[1]: "benchmarks.by_feast:lockstep_arrow",
        OURS[2]: "benchmarks.by_feast:lockstep_pandas",
        "Feast's default (dask)": "benchmarks.by_feast:dask",
        "a bare join_asof": "benchmarks.training_set:bare_join",
    }
    if importlib.util.find_spec("ibis"):
        peers["Feast's duckdb"] = "benchmarks.by_feast:duckdb"
    else:
        print("\ntraining_set: without Feast's duckdb store, since ibis-framework[duckdb] is not installed")
    for n in ROWS[size]:
        write_asked(rng, folder, n, entities)
        calls = {peer: (function, (str(folder), n)) for peer, function in peers.items()}
        rounds = 3 if size is Size.QUICK else ROUNDS[n]
        title = f"{n:,} entity rows, {entities * SNAPSHOTS:,} snapshots of {len(FEATURES)} features"
        yield Case(title, rounds, calls, "benchmarks.training_set:verdict", check, warm=n == min(ROWS[size]))


def write_history(rng: np.random.Generator, folder: Path, entities: int) -> None:
    """Write snapshots and corrections in no order: in the order of time, whoever forgot `created` would be right."""
    entity = np.tile(np.arange(entities), SNAPSHOTS)
    day = np.repeat(np.arange(SNAPSHOTS), entities)
    again = np.flatnonzero(rng.random(entity.size) < CORRECTED)
    entity, day, known = np.r_[entity, entity[again]], np.r_[day, day[again]], np.r_[day, day[again] + 1]
    rows = pl.DataFrame({"entity": entity, "event_timestamp": _at(day * DAY), "created": _at(known * DAY)})
    values = [pl.Series(name, rng.normal(size=rows.height)) for name in FEATURES]
    rows.with_columns(values)[rng.permutation(rows.height)].write_parquet(folder / "history.parquet")


def write_asked(rng: np.random.Generator, folder: Path, n: int, entities: int) -> None:
    """Write entity rows; ``row`` tells them apart where a store moves them."""
    at = rng.integers(-DAY, (SNAPSHOTS + 8) * DAY, n)
    asked = {"row": np.arange(n), "entity": rng.integers(0, entities, n), "event_timestamp": _at(at)}
    pl.DataFrame(asked).write_parquet(folder / f"asked-{n}.parquet")


def _at(since: np.ndarray) -> pl.Series:
    """Return microseconds since EPOCH as instants."""
    return pl.Series(since + int(EPOCH.timestamp()) * 10**6).cast(pl.Datetime("us", "UTC"))


def bare_join(folder: str, n: int) -> Callable[[], pl.DataFrame]:
    """Return what one writes without a feature store."""
    asked = pl.read_parquet(f"{folder}/asked-{n}.parquet")

    def work() -> pl.DataFrame:
        history = pl.scan_parquet(f"{folder}/history.parquet").sort("event_timestamp", "created")
        ordered = asked.lazy().sort("event_timestamp")
        kept = {"by": "entity", "on": "event_timestamp", "tolerance": TTL, "check_sortedness": False}
        return ordered.join_asof(history, **kept).collect()

    return work


def oracle(folder: str, asked: pl.DataFrame) -> np.ndarray:
    """Return the features of each asked row by binary search: the last created of the latest in time, or NaN."""
    history = pl.read_parquet(f"{folder}/history.parquet").sort("entity", "event_timestamp", "created")
    wide = 2**44  # more microseconds than there are in the story, so that an entity and an instant are one integer
    have, want = (_since(f) + f["entity"].to_numpy() * wide for f in (history, asked))
    place = np.searchsorted(have, want, side="right") - 1
    age = want - have[place]
    found = history.select(FEATURES).to_numpy()[place]
    # An age beyond the TTL is that of an expired value, or of another entity's.
    found[(place < 0) | (age > TTL // timedelta(microseconds=1))] = np.nan
    return found


def _since(frame: pl.DataFrame) -> np.ndarray:
    """Return microseconds since two days before EPOCH: no asked instant is negative."""
    first = int(EPOCH.timestamp()) * 10**6 - 2 * DAY
    return frame["event_timestamp"].dt.timestamp("us").to_numpy() - first


def verdict(found: object, folder: str, n: int) -> str:
    """Count the rows of which any value is not the oracle's, and those that did not come back."""
    frame = pl.from_pandas(found) if isinstance(found, pd.DataFrame) else pl.DataFrame(found)
    right = oracle(folder, pl.read_parquet(f"{folder}/asked-{n}.parquet").sort("row"))[frame["row"].to_numpy()]
    got = frame.select(FEATURES).to_numpy()
    equal = (got == right) | (np.isnan(got) & np.isnan(right))
    wrong = int((~equal.all(axis=1)).sum())
    return f"{wrong:,} wrong, {n - frame['row'].n_unique():,} lost"


def check(verdicts: Mapping[str, str]) -> None:
    """Raise when Lockstep gave a single wrong row, or lost one."""
    for peer in OURS:
        if verdicts[peer] != "0 wrong, 0 lost":
            raise GuaranteeError("wrong rows", where=peer, expected="0 wrong, 0 lost", found=verdicts[peer])
