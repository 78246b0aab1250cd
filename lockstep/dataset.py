"""The training set: who is asked about on which day, what the answer was, and what was known. The DVC stage `dataset`.

The population of a cut-off is read from what was known on it, or replays the requests of its day as they landed with
it; the label alone looks forward, at versions that had landed before the part's knowledge day. Each question has a set
of its own, whose features are joined once, through Feast, for all of its services together.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT, Zone
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.day_cache import Hashes
from lockstep.define import RESERVED, OnDemandView, Question
from lockstep.errors import DataError, DefinitionError, GuaranteeError, SettingsError, UserError, did_you_mean
from lockstep.events import Events, read_tables
from lockstep.feast_objects import Catalogue, feature_store
from lockstep.files import file_hash, tree_hash, write_json, write_parquet
from lockstep.fingerprint import kept_events
from lockstep.landings import read_landings, sealed_days, sources
from lockstep.project import Project, project
from lockstep.settings import Dataset
from lockstep.snapshots import HASHES
from lockstep.stage import stage

__all__ = [
    "AT",
    "CUTOFF",
    "LABEL",
    "PART",
    "Part",
    "as_known",
    "ask",
    "join_features",
    "parts",
    "population",
    "read_by_population",
    "with_request",
]

CUTOFF, PART, LABEL, AT = "cutoff", "part", "label", "event_timestamp"


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
            f"no {'test' if train else 'train'} cut-offs", where="params.yaml questions",
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
                f"labels of {name} are not closed", where="params.yaml questions",
                expected=f"cut-offs with cut-off + {horizon_days} days <= {known} <= {end}",
                found=f"{all_days[0]} .. {all_days[-1]}", do="Move the cut-offs or the knowledge day.",
            )  # fmt: skip
        found.append(Part(name, closed, known, len(all_days) - len(closed)))
    return found


def read_by_population(question: Question, events: Events, day: date) -> pl.DataFrame:
    """Return the events that a cut-off's population is read from: those known on the day.

    Where events ask, those of the day itself stand behind them, as they had landed with it: what was corrected, taken
    back or came late after the day is not what a request carried.
    """
    known = events.known(day)
    if question.moment == "day":
        return known
    return pl.concat([known, events.known(day + timedelta(days=1)).filter(pl.col(EVENT_DAY) == day)])


def population(question: Question, events: pl.DataFrame, day: date, zone: Zone) -> pl.DataFrame:
    """Return who is asked about on a cut-off: the question's row, ``cutoff``, ``event_timestamp``, and the request.

    Parameters
    ----------
    events
        What `read_by_population` gives for `day`.

    Raises
    ------
    DefinitionError
        A column that the population lacks, or may not have.
    DataError
        A row twice or with a null key, or a request of another day.
    """
    row = [*question.row]
    if question.moment == "day":
        frame = _given(question, events, day, row).select(*row, pl.lit(zone.start(day), INSTANT).alias(AT))
    else:
        frame = _requests(question, events, day)
    frame = frame.with_columns(pl.lit(day).alias(CUTOFF))
    named = pl.struct(row).is_unique() & pl.all_horizontal(pl.col(row).is_not_null())
    strange = frame.filter(~named | zone.day(pl.col(AT)).ne_missing(day))
    if strange.height:
        raise DataError(
            "a population with a row twice, without a key or of another day", where=f"{question.name} on {day}",
            found=strange.select(*row, AT).row(0, named=True), do="Mend the question's population.",
        )  # fmt: skip
    return frame.select(*row, CUTOFF, AT, pl.exclude(*row, CUTOFF, AT))


def _given(question: Question, events: pl.DataFrame, day: date, columns: Sequence[str]) -> pl.DataFrame:
    """Return what the question's own function gives of events, which must have `columns`."""
    asked = question.population(events.lazy(), day).collect()
    for name in columns:
        if name not in asked.columns:
            raise DefinitionError(
                f"no column {name!r}", where=f"the population of {question.name}", do=did_you_mean(name, asked.columns)
            )
    return asked


def _requests(question: Question, events: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the requests that the events of a day would have been, with their instant as ``event_timestamp``."""
    at, where = question.source.event_time, f"the population of {question.name}"
    asked = _given(question, events, day, [*question.row, at])
    if taken := RESERVED & {*asked.columns}:
        raise DefinitionError(f"{min(taken)!r} is a name of Lockstep's own", where=where, do="Leave this column out.")
    if asked.schema[at] != INSTANT:
        raise DefinitionError(
            f"requests without an instant in {at!r}", where=where, expected=str(INSTANT), found=str(asked.schema[at]),
            do="Ask about events of a source that has instants.",
        )  # fmt: skip
    return asked.rename({at: AT})


def ask(question: Question, events: Events, part: Part, zone: Zone) -> pl.DataFrame:
    """Ask the question of a part's population on each of its cut-offs.

    Returns
    -------
    DataFrame
        The question's row, ``cutoff`` (Date), ``event_timestamp`` (start of the cut-off or instant of the request,
        UTC), ``part``, ``label`` (Int8) and what the request carries, sorted by cut-off and row.

    Raises
    ------
    DataError
        A population as `population` refuses it, a label that does not answer for it, or nobody to ask.
    """
    row, later = [*question.row], events.known(part.known)
    frames = []
    for day in part.cutoffs:
        asked = population(question, read_by_population(question, events, day), day, zone)
        ahead = later.lazy().filter(pl.col(EVENT_DAY).is_between(day, day + timedelta(days=question.horizon_days - 1)))
        labelled = question.label(asked.lazy(), ahead).collect()
        for name in (*row, LABEL):
            if name not in labelled.columns:
                where, do = f"the label of {question.name}", did_you_mean(name, labelled.columns)
                raise DataError(f"no column {name!r}", where=where, do=do)
        labelled = labelled.select(*row, LABEL)
        same = asked.select(row).sort(row).equals(labelled.select(row).sort(row))
        answers = labelled.get_column(LABEL)
        if not (same and answers.dtype.is_numeric() and answers.is_in([0, 1]).fill_null(False).all()):
            raise DataError(
                "the label does not answer 0 or 1 once for each of the population", where=f"{question.name} on {day}",
                expected=f"{asked.height} rows", found=f"{labelled.height} rows", do="Mend the question's functions.",
            )  # fmt: skip
        frames.append(asked.join(labelled, on=row, nulls_equal=True))
    if not any(frame.height for frame in frames):
        raise DataError(f"nobody to ask in {part.name}", where=question.name, do="Move the cut-offs in params.yaml.")
    rows = pl.concat(frames).with_columns(pl.lit(part.name).alias(PART), pl.col(LABEL).cast(pl.Int8))
    columns = [*row, CUTOFF, AT, PART, LABEL]
    return rows.select(*columns, pl.exclude(columns)).sort(CUTOFF, *row)


def join_features(p: Project, catalogue: Catalogue, rows: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """Join the features `wanted` to `rows` as `joined` does, and do what views say of rows that are not there.

    Raises
    ------
    DefinitionError, GuaranteeError
        As `joined`.
    DataError
        A row that a view refuses to do without, or a value that breaks its feature's contract.
    """
    keys = [k for k in catalogue.key_types if k in rows.columns]
    frame = catalogue.settle(joined(p, catalogue, rows, wanted), keys, "the training set")
    return frame.select(*rows.columns, *wanted)


def joined(p: Project, catalogue: Catalogue, rows: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """Join the features `wanted` to `rows` through Feast, as they were known at each ``event_timestamp``.

    The flags of their views come with them: `Catalogue.settle` reads those.

    Raises
    ------
    DefinitionError
        A feature is made of what a request carries and no column of `rows` holds.
    GuaranteeError
        Feast gave other rows back than it was asked for, or in another order.
    """
    asked = with_request(rows, catalogue.demands(wanted))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        store = feature_store(p, str(Path(folder) / "registry.db"))
        names = list(dict.fromkeys([*wanted, *catalogue.flags(wanted)]))
        job = store.get_historical_features(entity_df=asked, features=catalogue.refs(names))
        given = pl.DataFrame(job.to_arrow())
    frame = given.select(*rows.columns, *names).cast({n: catalogue.types[n] for n in names})
    if not frame.select(rows.columns).equals(rows):
        raise GuaranteeError(
            "the join lost, added or moved rows", where="dataset", expected=f"{rows.height} rows in order",
            found=f"{frame.height} rows", do="This is a fault of the offline store: see features/feature_store.yaml.",
        )  # fmt: skip
    return frame


def with_request(rows: pl.DataFrame, demands: Sequence[OnDemandView]) -> pl.DataFrame:
    """Add the instant of each row where `demands` take it from a request; all else that they take must be there.

    Raises
    ------
    DefinitionError
        A column that is missing, or of another type.
    """
    request = {name: kind for view in demands for name, kind in view.request.items()}
    added = rows.with_columns(pl.col(AT).alias(n) for n, kind in request.items() if kind == INSTANT)
    for name, kind in request.items():
        if added.schema.get(name) != kind:
            raise DefinitionError(
                f"a training set that does not know what a request carries as {name!r}", where="the population",
                expected=str(kind), found=str(added.schema.get(name)),
                do="Let the question's population give this column.",
            )  # fmt: skip
    return added


def as_known(p: Project, day: date, name: str) -> pl.DataFrame:
    """Return a question's training set as it would have been built on `day`: rows whose labels had closed by then.

    It depends on the definitions and on what landed before `day` alone, so it is the same whenever it is asked for.
    Columns and order are those of ``training.parquet``; every row's part is ``train``.

    Raises
    ------
    UserError
        The days before `day` are not sealed, or no cut-off's label had closed by then.
    """
    question, events, last = _asked(p, name)
    settings = p.settings.questions[name].dataset
    cutoffs = settings.cutoffs.days()
    closed = [d for d in cutoffs if d + timedelta(days=question.horizon_days) <= day]
    if day > last or not closed:
        first = cutoffs[0] + timedelta(days=question.horizon_days)
        raise UserError("no training set as known on that day", expected=f"{first} .. {last}", found=day)
    part = Part("train", closed, day, len(cutoffs) - len(closed))
    catalogue = Catalogue(p)
    rows = ask(question, events, part, p.settings.clock)
    return join_features(p, catalogue, rows, catalogue.read_by(settings.services))


def build(p: Project, name: str) -> None:
    """Build a question's ``training.parquet``, what it holds for whom as ``columns.json``, and ``dataset.json``.

    Training reads the first two alone: code that changes without changing them is no reason to train again.
    """
    clean, out = p.root / "artifacts/clean", p.root / "artifacts/dataset" / name
    question, events, last = _asked(p, name)
    settings = p.settings.questions[name].dataset
    split = parts(settings, question.horizon_days, last)
    asked = {part.name: ask(question, events, part, p.settings.clock) for part in split if part.cutoffs}
    catalogue = Catalogue(p)
    rows = pl.concat([asked["train"], asked["test"]]).sort(CUTOFF, *question.row)
    features = catalogue.read_by(settings.services)
    frame = join_features(p, catalogue, rows, features)
    write_parquet(frame, out / "training.parquet")
    services = {s.name: s.features for s in catalogue.services if s.name in settings.services}
    write_json(
        {
            "keys": [*question.row],
            "horizon_days": question.horizon_days,
            "services": {s: {f: str(catalogue.types[f]) for f in names} for s, names in services.items()},
        },
        out / "columns.json",
    )
    write_json(
        {
            "question": name,
            "parts": {part.name: _count(part, asked.get(part.name)) for part in split},
            "all": _total(asked),
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
    print(f"{name}: {frame.height} rows x {len(features)} features")


def _asked(p: Project, name: str) -> tuple[Question, Events, date]:
    """Return a question of the project, the events it is asked of, and the last day whose knowledge is whole.

    Raises
    ------
    SettingsError
        Nobody defined the question.
    """
    contracts = load_contracts(p.folder("contracts"))
    questions = {q.name: q for q in p.objects("labels", Question)}
    if name not in questions:
        raise SettingsError(f"no question {name!r}", where="questions of params.yaml", do=did_you_mean(name, questions))
    question = questions[name]
    first, last = sealed_days(p.root, contracts)
    tables = read_tables(p.root / "artifacts/clean", contracts, p.settings.clock, question.source.tables)
    return question, kept_events(p, question.source, tables, first, last, hashes=Hashes(p.root / HASHES)), last


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
    """Build the training set of the question that the command line names."""
    build(project(), sys.argv[1])


if __name__ == "__main__":
    sys.exit(stage(main))
