"""The training set: who is asked about on which day, what the answer was, and what was known. The DVC stage `dataset`.

The population of a cut-off is read from what was known on it; the label alone looks forward, at versions that had
landed before the part's knowledge day. Features are joined once, through Feast, for all services together.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT, Zone
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.day_cache import Hashes
from lockstep.define import Question
from lockstep.errors import DataError, DefinitionError, GuaranteeError, SettingsError, UserError
from lockstep.events import Events, read_tables
from lockstep.feast_objects import Catalogue, feature_store
from lockstep.files import file_hash, tree_hash, write_json, write_parquet
from lockstep.fingerprint import kept_events
from lockstep.landings import read_landings, snapshot_days, sources
from lockstep.project import Project, project
from lockstep.settings import Dataset
from lockstep.snapshots import HASHES
from lockstep.stage import stage

__all__ = ["CUTOFF", "LABEL", "PART", "Part", "as_known", "ask", "join_features", "parts"]

CUTOFF, PART, LABEL = "cutoff", "part", "label"


class Part(NamedTuple):
    """A part of the training set: its cut-offs, the day before which labels must have landed, and those left out."""

    name: str
    cutoffs: list[date]
    known: date
    left_out: int


def parts(settings: Dataset, horizon_days: int, end: date) -> list[Part]:
    """Split the cut-offs by time into train, test and the embargo between them.

    Train is known on the first test cut-off, test on the `end` of the calendar. The embargo belongs to neither: its
    labels are not closed when train is known. It is kept for counting alone. Cut-offs whose labels are still open are
    left out and counted.

    Raises
    ------
    SettingsError
        A part without cut-offs, or without one whose labels are closed on its knowledge day.
    """
    cutoffs = settings.cutoffs.days()
    train = [d for d in cutoffs if d <= settings.train_until]
    test = [d for d in cutoffs if d >= settings.test_from]
    between = [d for d in cutoffs if settings.train_until < d < settings.test_from]
    if not train or not test:
        raise SettingsError(
            f"no {'test' if train else 'train'} cut-offs", where="params.yaml dataset",
            found=f"{cutoffs[0]} .. {cutoffs[-1]} every {settings.cutoffs.every_days} days",
            do="Move cutoffs, train_until or test_from.",
        )  # fmt: skip
    known_train, known_test = settings.known.train or test[0], settings.known.test or end
    split = [("train", train, known_train), ("embargo", between, known_test), ("test", test, known_test)]
    found = []
    for name, all_days, known in split:
        closed = [d for d in all_days if d + timedelta(days=horizon_days) <= known <= end]
        if not closed and name != "embargo":
            raise SettingsError(
                f"labels of {name} are not closed", where="params.yaml dataset",
                expected=f"cut-offs with cut-off + {horizon_days} days <= {known} <= {end}",
                found=f"{all_days[0]} .. {all_days[-1]}", do="Move the cut-offs or the knowledge day.",
            )  # fmt: skip
        found.append(Part(name, closed, known, len(all_days) - len(closed)))
    return found


def ask(question: Question, events: Events, part: Part, zone: Zone) -> pl.DataFrame:
    """Ask the question of a part's population on each of its cut-offs.

    Returns
    -------
    DataFrame
        The entity's keys, ``cutoff`` (Date), ``event_timestamp`` (start of the cut-off, UTC), ``part`` and ``label``
        (Int8), sorted by cut-off and keys; one row an entity and cut-off.
    """
    keys = [*question.keys]
    later = events.known(part.known).lazy()
    frames = []
    for day in part.cutoffs:
        population = question.population(events.known(day).lazy(), day).select(keys)
        end = day + timedelta(days=question.horizon_days)
        ahead = later.filter((pl.col(EVENT_DAY) >= day) & (pl.col(EVENT_DAY) < end))
        asked, labelled = pl.collect_all([population, question.label(population, ahead).select(*keys, LABEL)])
        same = asked.sort(keys).equals(labelled.select(keys).sort(keys)) and asked.is_unique().all()
        if not same or not labelled.get_column(LABEL).is_in([0, 1]).fill_null(False).all():
            raise DataError(
                "the label does not answer 0 or 1 once for each of the population", where=f"{question.name} on {day}",
                expected=f"{asked.height} rows", found=f"{labelled.height} rows", do="Mend the question's functions.",
            )  # fmt: skip
        frames.append(
            labelled.with_columns(pl.lit(day).alias(CUTOFF), pl.lit(zone.start(day), INSTANT).alias("event_timestamp"))
        )
    rows = pl.concat(frames).with_columns(pl.lit(part.name).alias(PART), pl.col(LABEL).cast(pl.Int8))
    return rows.select(*keys, CUTOFF, "event_timestamp", PART, LABEL).sort(CUTOFF, *keys)


def join_features(p: Project, catalogue: Catalogue, rows: pl.DataFrame) -> pl.DataFrame:
    """Join the features of all services to `rows` through Feast, as they were known at each ``event_timestamp``.

    Raises
    ------
    GuaranteeError
        Feast gave other rows back than it was asked for, or in another order.
    DataError
        A row that a view refuses to do without, or a value that breaks its feature's contract.
    """
    request = {n: t for v in catalogue.on_demand for n, t in v.request.items()}
    for name, kind in request.items():
        if kind != INSTANT:
            raise DefinitionError(
                f"a training set cannot know what a request carries as {name!r}", where="features/on_demand.py",
                expected=str(INSTANT), found=str(kind), do="A question about cut-offs has their instant alone.",
            )  # fmt: skip
    asked = rows.with_columns(pl.col("event_timestamp").alias(n) for n in request)
    wanted = [r.split(":")[1] for r in catalogue.refs()]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        store = feature_store(p, str(Path(folder) / "registry.db"))
        refs = list(dict.fromkeys([*catalogue.refs(), *catalogue.flags(wanted)]))
        joined = pl.DataFrame(store.get_historical_features(entity_df=asked, features=refs).to_arrow())
    found = [r.split(":")[1] for r in refs]
    frame = joined.select(*rows.columns, *found).cast({n: catalogue.types[n] for n in found})
    if not frame.select(rows.columns).equals(rows):
        raise GuaranteeError(
            "the join lost, added or moved rows", where="dataset", expected=f"{rows.height} rows in order",
            found=f"{frame.height} rows", do="This is a fault of the offline store: see features/feature_store.yaml.",
        )  # fmt: skip
    frame = catalogue.settle(frame, [k for k in catalogue.key_types if k in rows.columns], "the training set")
    return frame.select(*rows.columns, *wanted)


def as_known(p: Project, day: date) -> pl.DataFrame:
    """Return the training set as it would have been built on `day`: rows whose labels had closed and landed by then.

    It depends on the definitions and on what landed before `day` alone, so it is the same whenever it is asked for.
    Columns and order are those of ``training.parquet``; every row's part is ``train``.

    Raises
    ------
    UserError
        The days before `day` are not sealed, or no cut-off's label had closed by then.
    """
    question, events, last = _asked(p)
    cutoffs = p.settings.dataset.cutoffs.days()
    closed = [d for d in cutoffs if d + timedelta(days=question.horizon_days) <= day]
    if day > last or not closed:
        first = cutoffs[0] + timedelta(days=question.horizon_days)
        raise UserError("no training set as known on that day", expected=f"{first} .. {last}", found=day)
    part = Part("train", closed, day, len(cutoffs) - len(closed))
    return join_features(p, Catalogue(p), ask(question, events, part, p.settings.clock))


def build(p: Project) -> None:
    """Build ``artifacts/dataset/training.parquet`` and its description ``dataset.json``."""
    settings, clean, out = p.settings, p.root / "artifacts/clean", p.root / "artifacts/dataset"
    question, events, last = _asked(p)
    split = parts(settings.dataset, question.horizon_days, last)
    asked = {part.name: ask(question, events, part, settings.clock) for part in split if part.cutoffs}
    for name in ("train", "test"):
        if asked[name].is_empty():
            raise DataError(f"nobody to ask in {name}", where=question.name, do="Move the cut-offs in params.yaml.")
    catalogue = Catalogue(p)
    rows = pl.concat([asked["train"], asked["test"]]).sort(CUTOFF, *question.keys)
    frame = join_features(p, catalogue, rows)
    write_parquet(frame, out / "training.parquet")
    write_json(
        {
            "question": question.name,
            "entity": [*question.keys],
            "horizon_days": question.horizon_days,
            "parts": {part.name: _count(part, asked.get(part.name)) for part in split},
            "all": _total(asked),
            "services": {
                s.name: {"features": {f: str(catalogue.types[f]) for f in s.features}} for s in catalogue.services
            },
            "sources": sources(read_landings(p.root / "landings.csv")),
            "hashes": {
                "code": closure_hash(p, "lockstep.dataset"),
                "clean": tree_hash(clean),
                "features": tree_hash(p.root / "artifacts/features"),
                "dataset": file_hash(out / "training.parquet"),
            },
        },
        out / "dataset.json",
    )
    print(f"dataset: {frame.height} rows x {len(catalogue.refs())} features")


def _asked(p: Project) -> tuple[Question, Events, date]:
    """Return the project's question, the events it is asked of, and the last day whose knowledge is whole."""
    contracts = load_contracts(p.folder("contracts"))
    question = _one(p.objects("labels", Question))
    daily = [c.table for c in contracts.values() if c.calendar == "daily"]
    first, last = snapshot_days(read_landings(p.root / "landings.csv"), daily)
    tables = read_tables(p.root / "artifacts/clean", contracts, p.settings.clock, question.source.tables)
    return question, kept_events(p, question.source, tables, first, last, hashes=Hashes(p.root / HASHES)), last


def _one(questions: list[Question]) -> Question:
    if len(questions) > 1:
        names = ", ".join(q.name for q in questions)
        raise DefinitionError("more than one question", where="labels", expected="one", found=names)
    return questions[0]


def _count(part: Part, rows: pl.DataFrame | None) -> dict[str, object]:
    base = None if rows is None else round(float(rows[LABEL].mean()), 6)  # type: ignore[arg-type]  # never null: a label is 0 or 1
    return {
        "cutoffs": len(part.cutoffs),
        "left_out": part.left_out,
        "known": str(part.known),
        "rows": 0 if rows is None else rows.height,
        "base_rate": base,
    }


def _total(asked: Mapping[str, pl.DataFrame]) -> dict[str, object]:
    labels = pl.concat([f[LABEL] for f in asked.values()])
    return {"rows": labels.len(), "base_rate": round(float(labels.mean()), 6)}  # type: ignore[arg-type]  # as above


def main() -> None:
    """Run the stage."""
    build(project())


if __name__ == "__main__":
    sys.exit(stage(main))
