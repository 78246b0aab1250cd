"""The population of a training set: who is asked about on which day, and what the answer was.

The population of a cut-off is read from what was known on it, or replays the requests of its day as they landed with
it; the label alone looks forward, at versions that had landed before the part's knowledge day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

import polars as pl

from lockstep.agg import EVENT_DAY
from lockstep.clock import INSTANT, Zone
from lockstep.define import Question
from lockstep.define.names import RESERVED
from lockstep.errors import DataError, DefinitionError, SettingsError, did_you_mean
from lockstep.events import Events
from lockstep.settings import Dataset

__all__ = ["AT", "CUTOFF", "LABEL", "PART", "Part", "ask", "parts", "population", "read_by_population"]

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
