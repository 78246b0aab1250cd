from dataclasses import replace
from datetime import date

import polars as pl
import pytest

from lockstep.dataset import ask, parts
from lockstep.define import Question
from lockstep.errors import DataError, SettingsError
from lockstep.project import project
from lockstep.settings import Cutoffs, Dataset
from tests.conftest import ROOT

END = date(2018, 1, 1)


def weekly(last="2017-12-04", train_until="2017-08-21", test_from="2017-09-18"):
    cutoffs = Cutoffs(first="2017-04-03", last=last, every_days=7)
    return Dataset(services=["rfm"], cutoffs=cutoffs, train_until=train_until, test_from=test_from)


def test_the_split_is_by_time_with_an_embargo_and_each_part_has_its_knowledge_day():
    train, embargo, test = parts(weekly(), 28, END)
    assert (len(train.cutoffs), len(embargo.cutoffs), len(test.cutoffs)) == (21, 3, 12)
    assert (train.known, test.known) == (date(2017, 9, 18), END)
    assert [p.left_out for p in (train, embargo, test)] == [0, 0, 0]


def test_cut_offs_whose_labels_are_open_on_the_knowledge_day_are_left_out_and_counted():
    train, _, test = parts(weekly(last="2017-12-25"), 28, END)
    assert (test.cutoffs[-1], test.left_out) == (date(2017, 12, 4), 3)
    train, _, _ = parts(weekly(test_from="2017-09-04"), 28, END)
    assert (train.cutoffs[-1], train.left_out) == (date(2017, 8, 7), 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (weekly(train_until="2017-03-01"), "no train cut-offs"),
        (weekly(test_from="2017-12-11"), "no test cut-offs"),
        (weekly(test_from="2017-12-04", last="2017-12-11", train_until="2017-04-03"), None),
    ],
)
def test_a_part_without_closed_cut_offs_is_an_error(settings, said):
    if said is None:
        assert parts(settings, 28, END)[2].left_out == 1
        return
    with pytest.raises(SettingsError, match=said):
        parts(settings, 28, END)


class Known:
    """Events of three households, whatever the day."""

    def known(self, _):
        return pl.DataFrame(
            {"household_id": [1, 2, 3], "event_day": [date(2017, 4, 1), date(2017, 4, 2), date(2017, 4, 5)]}
        )


def asked(**functions):
    question = next(q for q in project(ROOT).objects("labels", Question) if q.name == "lapse")
    part = parts(weekly(), 28, END)[0]._replace(cutoffs=[date(2017, 4, 3)])
    return ask(replace(question, **functions), Known(), part, project(ROOT).settings.clock)


def test_every_household_of_the_population_is_asked_once_and_answered():
    rows = asked()
    assert rows.select("household_id", "label").rows() == [(1, 1), (2, 1), (3, 0)]


@pytest.mark.parametrize(
    "label",
    [
        lambda p, _: p.with_columns(pl.col("household_id") + 100, pl.lit(0, pl.Int8).alias("label")),
        lambda p, _: p.with_columns(pl.lit(2, pl.Int8).alias("label")),
        lambda p, _: p.with_columns(pl.lit(None, pl.Int8).alias("label")),
        lambda p, _: p.head(2).with_columns(pl.lit(0, pl.Int8).alias("label")),
        lambda p, _: pl.concat([p, p]).with_columns(pl.lit(0, pl.Int8).alias("label")),
    ],
)
def test_a_label_that_does_not_answer_0_or_1_once_for_each_is_refused(label):
    with pytest.raises(
        DataError, match=r"does not answer 0 or 1 once for each of the population in lapse on 2017-04-03"
    ):
        asked(label=label)


@pytest.mark.parametrize(
    ("population", "said"),
    [
        (lambda e, _: pl.concat([e, e]), r"a row twice, .* in lapse on 2017-04-03: found \{'household_id': 1,"),
        (lambda e, _: e.with_columns(pl.lit(None, pl.Int64).alias("household_id")), r"without a key .*: None,"),
        (lambda e, _: e.clear(), r"nobody to ask in train in lapse"),
    ],
)
def test_a_population_of_nobody_or_of_somebody_without_a_key_or_twice_is_refused(population, said):
    with pytest.raises(DataError, match=said):
        asked(population=population)
