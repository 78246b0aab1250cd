"""The proof that nothing looks ahead, on a project's own definitions and data.

What became known later must change nothing. Every published value is derived anew, once from the rows that had landed
before its day alone, and once with everything later spoilt: rows lost, values changed, late rows, corrections and
deletions landed. Whatever differs has looked ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import TypeVar

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.catalogue import Catalogue
from lockstep.clock import Zone
from lockstep.contract import Contract, load_contracts
from lockstep.dataset import with_request
from lockstep.define import Question, Source
from lockstep.errors import GuaranteeError
from lockstep.events import Events
from lockstep.files import read_parquet
from lockstep.landings import sealed_days
from lockstep.population import AT, CUTOFF, LABEL, PART, Part, parts, population, read_by_population
from lockstep.project import Project
from lockstep.questions import questions
from lockstep.snapshot import snapshot
from lockstep.stage import progress
from lockstep.tables import Table, read_tables
from lockstep.vectors import bits

__all__ = ["cut", "leakage", "spoil"]

T = TypeVar("T")
INSTANTS = 4
"""At how many instants of a day its requests are asked again without what came after."""


def leakage(p: Project, days: int = 6) -> str:
    """Prove on `days` snapshot days that features, populations and labels know nothing that landed later; say on what.

    Questions that are defined but that ``params.yaml`` does not ask have no training set to prove: they are named.

    Raises
    ------
    GuaranteeError
        A feature, population or label that differs from what its day could know: named with its day, an entity and
        both values.
    """
    history, catalogue, said = _History(p), Catalogue(p), []
    sets = [_Set(p, catalogue, question, history.last) for question in questions(p).values()]
    cutoffs = sorted({day for one in sets for part in one.parts for day in part.cutoffs})
    chosen, compared = sample(history.first, history.last, cutoffs, days), 0
    for day in progress(chosen, "leakage"):
        for view in catalogue.views:
            published = read_parquet(p.root / "artifacts/features" / view.folder / f"{day}.parquet")
            for way, events in history.ways(view.source, day):
                entities = events.entities(view.keys, day)
                expected = snapshot(view, events.known(view.as_of(day)), entities, day, history.zone)
                _same(published, expected, [*view.keys], f"view {view.name}, snapshot {day}, {way}")
                compared += published.height * len(view.features)
    for one in sets:
        _training_reads_its_snapshots(p, catalogue, one)
        asked = sum(_answers(history, one, part, chosen) for part in progress(one.parts, f"labels {one.question.name}"))
        said.append(f"{one.rows.height:,} labels of {one.question.name} and {asked} populations")
    unasked = [q.name for q in p.objects("labels", Question) if q.name not in p.settings.questions]
    said += [f"nothing of {name}, which params.yaml does not ask" for name in unasked]
    return f"{compared:,} values on {len(chosen)} days, {', '.join(said)}"


class _Set:
    """A question with its published training set: the parts that have labels, their rows."""

    def __init__(self, p: Project, catalogue: Catalogue, question: Question, last: date) -> None:
        settings, folder = p.settings.questions[question.name].dataset, p.root / "artifacts/dataset" / question.name
        self.question, self.rows = question, read_parquet(folder / "training.parquet")
        self.parts = [q for q in parts(settings, question.horizon_days, last) if q.name != "embargo"]
        self.features = catalogue.read_by(settings.services)


class _ByDefinition(Events):
    """Events without the short ways that production takes: every day from its known rows, whatever a source claims."""

    short = False


class _History:
    """The landed rows of a project, and what they would be on a day if later landings were cut off or spoilt."""

    def __init__(self, p: Project) -> None:
        self.zone, self.contracts = p.settings.clock, load_contracts(p.folder("contracts"))
        self.first, self.last = sealed_days(p.root, self.contracts)
        self._clean = p.root / "artifacts/clean"
        self._tables: dict[str, Table] = {}

    def tables(self, source: Source) -> dict[str, Table]:
        """Return the tables of `source`, read once."""
        for name in source.tables:
            if name not in self._tables:
                self._tables |= read_tables(self._clean, self.contracts, self.zone, (name,))
        return {name: self._tables[name] for name in source.tables}

    def ways(self, source: Source, day: date) -> Iterator[tuple[str, Events]]:
        """Yield the events of `source` with everything cut that landed on `day` or later, then with it spoilt."""
        whole = self.tables(source)
        for way, change in (("nothing later landed", cut), ("what landed later spoilt", spoil)):
            tables = {}
            for name, table in whole.items():
                tables[name] = Table(table.contract, change(table.rows, table.contract, day), self.zone)
            yield way, _ByDefinition(source, tables, self.first, day)


def sample(first: date, last: date, cutoffs: Sequence[date], count: int) -> list[date]:
    """Return about `count` days: both ends, cut-offs and other days, spread evenly."""
    every = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return sorted({*_spread(every, count - count // 2), *_spread(cutoffs, count // 2)})


def _spread(some: Sequence[T], n: int) -> Iterable[T]:
    """Return `n` of some, both ends and evenly between."""
    return (some[i * (len(some) - 1) // max(n - 1, 1)] for i in range(min(n, len(some))))


def cut(rows: pl.DataFrame, contract: Contract, day: date) -> pl.DataFrame:  # noqa: ARG001 - the signature of `spoil`
    """Return the rows that landed before `day`."""
    return rows.filter(pl.col("_landing_day") < day)


def spoil(rows: pl.DataFrame, contract: Contract, day: date) -> pl.DataFrame:
    """Return the rows with all that landed on `day` or later falsified, and with changes of older rows landed on it.

    Of the later rows one in two is lost and the others hold other values; of the older ones one in eleven is corrected
    and one in thirteen deleted on `day`.
    """
    numbered = rows.with_row_index("_n")
    past, later = (numbered.filter(c) for c in (pl.col("_landing_day") < day, pl.col("_landing_day") >= day))
    changed = _falsified(past.filter(pl.col("_n") % 11 == 0), contract).with_columns(pl.lit(day).alias("_landing_day"))
    gone = past.filter((pl.col("_n") % 13 == 0) & (pl.col("_n") % 11 != 0))
    gone = gone.with_columns(pl.lit(day).alias("_landing_day"), pl.lit(True).alias("_deleted"))
    kept = _falsified(later.filter(pl.col("_n") % 2 == 0), contract)
    forged = pl.concat([kept, changed, gone]).unique([*contract.key, "_landing_day"], keep="first", maintain_order=True)
    return pl.concat([past, forged]).drop("_n")


def _falsified(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Return the rows with other values in every number and text that is not part of the key."""
    ours = {*contract.key, contract.event_time, "_n", "_landing_day", "_received_at", "_deleted"}
    free = [c for c in rows.columns if c not in ours]
    numbers = [pl.col(c) + 1_000_003 for c in free if rows.schema[c].is_numeric()]
    numbers += [pl.col(c) + timedelta(days=3) for c in free if rows.schema[c] == pl.Date]
    return rows.with_columns(*numbers, *(pl.col(c) + " falsified" for c in free if rows.schema[c] == pl.String))


def _answers(history: _History, one: _Set, part: Part, chosen: Sequence[date]) -> int:
    """Compare a part's labels, and its populations on `chosen` days and where it has none; say how many of these."""
    question, published = one.question, one.rows.filter(pl.col(PART) == part.name).drop(one.features)
    row, columns, found = [*question.row], [CUTOFF, *question.row, LABEL], set(published[CUTOFF])
    if found - {*part.cutoffs}:
        raise GuaranteeError(
            "other cut-offs than the settings ask for", where=f"part {part.name} of {question.name}",
            expected=f"{len(part.cutoffs)}", found=f"{len(found)}",
            do="Build the training set again with `lockstep run`.",
        )  # fmt: skip
    asked = {day: published.filter(pl.col(CUTOFF) == day).drop(PART, LABEL) for day in part.cutoffs}
    for way, events in history.ways(question.source, part.known):
        later, answers = events.known(part.known), []
        for day in part.cutoffs:
            days = (day, day + timedelta(question.horizon_days - 1))
            ahead = later.lazy().filter(pl.col(EVENT_DAY).is_between(*days))
            label = question.label(asked[day].lazy(), ahead).select(*row, pl.col(LABEL).cast(pl.Int8))
            answers.append(label.with_columns(pl.lit(day).alias(CUTOFF)).select(columns).collect())
        where = f"labels of {part.name} for {question.name}, {way}"
        _same(published.select(columns), pl.concat(answers), [CUTOFF, *row], where)
    some = [d for d in part.cutoffs if d in chosen or d not in found] or part.cutoffs[:1]
    for day in some:
        landed = day + timedelta(days=question.moment == "event")  # requests are replayed as they landed with their day
        for way, events in history.ways(question.source, landed):
            read = read_by_population(question, events, day)
            where = f"population of {day} for {question.name}"
            _same(asked[day], population(question, read, day, history.zone), row, f"{where}, {way}")
        if question.moment == "event":
            _requests_see_none_later(question, read, asked[day], day, history.zone)
    return len(some)


def _requests_see_none_later(
    question: Question, read: pl.DataFrame, asked: pl.DataFrame, day: date, zone: Zone
) -> None:
    """Ask again at some instants of a day with the events after them cut off: no request up to then may change."""
    at, before = question.source.event_time, pl.col(EVENT_DAY) < day
    instants = read.filter(~before)[at].unique().sort().to_list()
    for now in _spread(instants[:-1], INSTANTS):
        then = population(question, read.filter(before | (pl.col(at) <= now)), day, zone)
        where = f"population of {day} for {question.name}, nothing after {now:%FT%TZ}"
        _same(asked.filter(pl.col(AT) <= now), then, [*question.row], where)


def _training_reads_its_snapshots(p: Project, catalogue: Catalogue, one: _Set) -> None:
    """Compare every stored and request-time value of a training set with the snapshot of its own cut-off."""
    row, demands = [*one.question.row], catalogue.demands(one.features)
    for (day,), part in one.rows.partition_by(CUTOFF, as_dict=True).items():
        frame = with_request(part.drop(one.features), demands)
        for view in catalogue.views:
            snap = read_parquet(p.root / "artifacts/features" / view.folder / f"{day}.parquet")
            if set(view.keys) <= set(frame.columns):
                snap = snap.drop("event_timestamp", "created")
                frame = frame.join(snap, on=view.keys, how="left", maintain_order="left")
                frame = view.fill(frame.lazy()).collect()
        for now in demands:
            frame = now.apply(frame.lazy()).collect()
        _same(
            part.select(row + one.features),
            frame.select(row + one.features),
            row,
            f"training rows of {day} for {one.question.name}",
        )


def _same(have: pl.DataFrame, expected: pl.DataFrame, keys: list[str], where: str) -> None:
    """Raise GuaranteeError for the first value that is not bit-equal; the order of rows does not matter."""
    have, expected = have.sort(keys), expected.sort(keys)
    if missing := set(expected.columns) ^ set(have.columns):
        raise GuaranteeError("other columns than the definitions give", where=where, found=", ".join(sorted(missing)))
    if not have.select(keys).equals(expected.select(keys)):
        raise GuaranteeError(
            "other entities than the day could know", where=where, expected=f"{expected.height} rows",
            found=f"{have.height} rows", do="See docs/semantics.md: population and snapshot read known rows alone.",
        )  # fmt: skip
    for name in (c for c in expected.columns if c not in keys):
        a, b = bits(have[name]), bits(expected[name])
        if a.dtype != b.dtype or (wrong := a.ne_missing(b)).any():
            row = int(wrong.arg_max() or 0) if a.dtype == b.dtype else 0
            entity = ", ".join(f"{k} {have[k][row]}" for k in keys)
            right, wrong_one = (f.row(row, named=True)[name] for f in (expected, have))
            raise GuaranteeError(
                f"{name!r} knows what it cannot know", where=f"{where}, {entity}", expected=right, found=wrong_one,
                do="A definition looks ahead: check its source (causal, within_day), its formula or the population.",
            )  # fmt: skip
