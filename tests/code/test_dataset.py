from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from lockstep.clock import INSTANT
from lockstep.dataset import _check_nulls, with_request
from lockstep.define import Feature, OnDemandView, Question
from lockstep.errors import DataError, DefinitionError, SettingsError
from lockstep.population import Part, ask, parts
from lockstep.project import project
from lockstep.settings import Cutoffs, Dataset
from tests.conftest import ROOT

END = date(2018, 1, 1)


def weekly(last="2017-12-04", train_until="2017-08-21", test_from="2017-09-18"):
    cutoffs = Cutoffs(first="2017-04-03", last=last, every_days=7)
    return Dataset(services=["any"], cutoffs=cutoffs, train_until=train_until, test_from=test_from)


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
        lambda p, _: p.with_columns(pl.lit("1").alias("label")),
    ],
)
def test_a_label_that_does_not_answer_0_or_1_once_for_each_is_refused(label):
    with pytest.raises(
        DataError, match=r"does not answer 0 or 1 once for each of the population in lapse on 2017-04-03"
    ):
        asked(label=label)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda p, _: p, "no column 'label' in the label of lapse"),
        (lambda p, _: p.with_columns(labl=1), r"no column 'label' in the label of lapse. Did you mean 'labl'\?"),
        (lambda p, _: p.select(label=1), "no column 'household_id' in the label of lapse"),
    ],
)
def test_a_label_without_its_columns_is_told(label, said):
    with pytest.raises(DataError, match=said):
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


# --- questions that are asked at an event

DAY = date(2017, 4, 3)
BASKETS = {  # basket: household, days after DAY, minutes after midnight in New York, cents
    1: (1, -20, 600, 100),
    2: (2, -1, 600, 100),
    3: (4, -1, 600, 100),
    11: (1, 0, 540, 1_000),  # again on the seventh day
    12: (1, 0, 540, 250),  # in the same minute
    13: (2, 0, 1_439, 2_000),  # again on the same evening, and on the eighth day
    14: (2, 0, 1_439, 1),
    15: (3, 0, 600, 3_000),  # of a household that nobody had seen
    16: (4, 0, 0, 4_000),  # at the first instant of the day; never again
    21: (1, 7, 600, 100),
    22: (2, 8, 600, 100),
    23: (3, 1, 600, 100),
}


class Till:
    """Baskets, each known from the day after its own."""

    def __init__(self, more: dict[int, tuple[int, int, int, int]] | None = None) -> None:
        midnight = datetime(2017, 4, 3, 4, tzinfo=UTC)
        self.rows = pl.DataFrame([
            {"household_id": h, "store_id": 9, "product_category": "MILK", "basket_id": b, "value": cents,
             "at": midnight + timedelta(days=d, minutes=m), "event_day": DAY + timedelta(days=d),
             "discount": 0, "fuel_value": 0, "departments": 1}
            for b, (h, d, m, cents) in {**BASKETS, **(more or {})}.items()
        ]).with_columns(pl.col("at").cast(INSTANT))  # fmt: skip

    def known(self, day):
        return self.rows.filter(pl.col("event_day") < day)


def at_the_till(question=None, events=None, known=8):
    question = question or project(ROOT).load("labels")[0].back
    part = Part("train", [DAY], DAY + timedelta(days=known), 0)
    return ask(question, events or Till(), part, project(ROOT).settings.clock)


def test_each_basket_of_the_day_asks_at_its_own_instant_about_the_seven_days_after_its_own():
    rows = at_the_till()
    assert rows.select("basket_id", "household_id", "label").rows() == [
        (11, 1, 1), (12, 1, 1), (13, 2, 0), (14, 2, 0), (16, 4, 0)
    ]  # fmt: skip
    keys = ["household_id", "store_id", "product_category", "basket_id"]
    assert rows.columns[:8] == [*keys, "cutoff", "event_timestamp", "part", "label"]
    assert rows["event_timestamp"][0] == datetime(2017, 4, 3, 13, tzinfo=UTC)
    assert rows["basket_value"].to_list() == [1_000, 250, 2_000, 1, 4_000]


def test_what_lies_beyond_the_horizon_changes_no_request_and_no_label():
    later = {31: (4, 8, 0, 1), 32: (5, 8, 0, 1), 33: (1, 40, 0, 1)}
    assert at_the_till(events=Till(later), known=60).equals(at_the_till())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f: pl.concat([f, f.head(1)]),
        lambda f: f.with_columns(pl.col("at") + timedelta(days=1)),
        lambda f: f.with_columns(pl.col("at") - timedelta(minutes=1)),  # one of them a minute before midnight
    ],
)
def test_a_request_twice_or_of_another_day_is_refused(wrong):
    back = project(ROOT).load("labels")[0].back
    planted = replace(back, population=lambda events, day: wrong(back.population(events, day)))
    with pytest.raises(
        DataError, match=r"row twice, .* or of another day in back on 2017-04-03: found {'household_id': "
    ):
        at_the_till(planted)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda f: f.drop("store_id"), r"no column 'store_id' in the population of back"),
        (lambda f: f.rename({"at": "att"}), r"no column 'at' in the population of back. Did you mean 'att'"),
        (lambda f: f.with_columns(event_day=pl.col("at").dt.date()), r"'event_day' is a name of Lockstep's own"),
        (lambda f: f.with_columns(pl.col("at").dt.date()), r"requests without an instant in 'at'.*found Date"),
    ],
)
def test_a_population_without_its_columns_is_told(wrong, said):
    back = project(ROOT).load("labels")[0].back
    with pytest.raises(DefinitionError, match=said):
        at_the_till(replace(back, population=lambda events, day: wrong(back.population(events, day))))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"moment": "events"}, "moment= of a wrong kind in question back: expected 'day', 'event', found 'events'"),
        ({"horizon_days": 0}, "a label without a day in question back: expected horizon_days >= 1"),
    ],
)
def test_a_question_of_no_moment_or_no_horizon_is_refused_where_it_is_defined(wrong, said):
    with pytest.raises(DefinitionError, match=said):
        replace(project(ROOT).load("labels")[0].back, **wrong)


def test_a_request_column_must_come_from_the_population_and_an_instant_is_that_of_the_row():
    views = [project(ROOT).load("views")[0].household_trips]
    now = [Feature("cents", pl.col("basket_value")), Feature("t", pl.col("at"))]
    asks = OnDemandView("asks", views, {"basket_value": pl.Int64(), "at": INSTANT}, now)
    rows = at_the_till()
    assert with_request(rows, [asks])["at"].equals(rows["event_timestamp"])
    for spoilt in (rows.drop("basket_value"), rows.with_columns(pl.col("basket_value").cast(pl.Int32))):
        with pytest.raises(
            DefinitionError, match=r"carries as 'basket_value' in the population: expected Int64, found"
        ):
            with_request(spoilt, [asks])
    nulls = rows.with_columns(pl.when(pl.col("basket_id") != 13).then("basket_value").alias("basket_value"))
    said = (
        r"null where a request carries 'basket_value' .*found 1 of 5 rows, first \{'household_id': 2.*'basket_id': 13"
    )
    with pytest.raises(DataError, match=said):
        _check_nulls(nulls, [asks])
