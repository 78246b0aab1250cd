"""Requests are replayed as they landed with their day, see nothing of what follows, and the proof says so."""

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace

import polars as pl
import pytest

from lockstep.contract import load_contracts
from lockstep.errors import GuaranteeError
from lockstep.events import Events
from lockstep.leakage import _answers, _History
from lockstep.population import Part, ask
from lockstep.project import project
from lockstep.tables import Table
from tests.conftest import ROOT

HERE = project(ROOT)
BACK, ZONE = HERE.load("labels")[0].back, HERE.settings.clock
CONTRACTS = load_contracts(ROOT / "features/contracts")
DAY = date(2017, 6, 5)

# basket, product, cents, day and hour of June in UTC, landing day of June, deleted; of household 1
LINES = [
    (1, 1, 900, 1, 17, 1, False),
    (2, 1, 500, 5, 17, 5, False),
    (2, 2, 700, 5, 17, 5, False),
    (3, 1, 100, 5, 22, 5, False),
    (4, 1, 100, 8, 17, 8, False),
]
LATER = [
    (2, 1, 999, 5, 17, 6, False),  # dearer than the till had it
    (2, 2, 700, 5, 17, 8, True),  # taken back
    (5, 1, 100, 5, 18, 6, False),  # a basket that came late
]
TAKEN_BACK = (4, 1, 100, 8, 17, 13, True)
"""The only visit of the seven days after."""


def tables(lines):
    schema = CONTRACTS["transactions"].clean_schema()
    frame = pl.DataFrame(
        [
            {"household_id": 1, "store_id": 1, "basket_id": basket, "product_id": product, "sales_value": cents,
             "transaction_timestamp": datetime(2017, 6, day, hour, tzinfo=UTC), "_deleted": gone, "_late": False,
             "_landing_day": date(2017, 6, landed), "_received_at": None}
            for basket, product, cents, day, hour, landed, gone in lines
        ]
    )  # fmt: skip
    rest = [pl.lit(0, kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    rows = frame.with_columns(rest).select(*schema).cast(dict(schema))
    products = CONTRACTS["products"]
    return {
        "transactions": Table(CONTRACTS["transactions"], rows, ZONE),
        "products": Table(products, pl.DataFrame(schema=products.clean_schema()), ZONE),
    }


def asked(lines, *, known=14, question=BACK):
    events = Events(question.source, tables(lines), date(2017, 6, 2), date(2017, 6, 20))
    return ask(question, events, part(known), ZONE)


def part(known):
    return Part("train", [DAY], date(2017, 6, known), 0)


def test_what_is_corrected_taken_back_or_lands_after_the_day_changes_no_request():
    rows = asked(LINES)
    assert rows.select("basket_id", "basket_value").rows() == [(2, 1_200), (3, 100)]
    assert asked(LINES + LATER).equals(rows)


def test_the_label_alone_looks_forward_up_to_the_knowledge_day():
    assert asked([*LINES, TAKEN_BACK], known=13)["label"].to_list() == [1, 1]
    assert asked([*LINES, TAKEN_BACK], known=14)["label"].to_list() == [0, 0]


class Landed(_History):
    """The history of these lines alone."""

    def __init__(self, lines):
        self.zone, self.contracts, self.first = ZONE, CONTRACTS, date(2017, 6, 2)
        self._tables = tables(lines)


def prove(rows, lines, question=BACK):
    one = SimpleNamespace(question=question, rows=rows, features=[])
    return _answers(Landed(lines), one, part(14), [DAY])


def test_the_proof_holds_on_honest_requests_and_catches_one_that_carries_what_landed_after_its_day():
    lines = [*LINES, *LATER, TAKEN_BACK]
    rows = asked(lines)
    assert prove(rows, lines) == 1
    hindsight = pl.when(basket_id=2).then(pl.lit(999, pl.Int64)).otherwise("basket_value").alias("basket_value")
    said = r"'basket_value' knows what it cannot .*: expected 1200, found 999"
    with pytest.raises(GuaranteeError, match=said):
        prove(rows.with_columns(hindsight), lines)
    came_late = rows.head(1).with_columns(pl.lit(5, pl.Int64).alias("basket_id"))
    with pytest.raises(GuaranteeError, match="other entities than the day could know"):
        prove(pl.concat([rows, came_late]), lines)


def visits_today(events, day):
    today = BACK.population(events, day)
    return today.with_columns(pl.len().over("household_id").cast(pl.Int64).alias("basket_departments"))


def so_far(events, day):
    today = BACK.population(events, day).sort("at", "basket_id")
    return today.with_columns(pl.int_range(pl.len()).over("household_id").alias("basket_departments"))


def only_the_last(events, day):
    return BACK.population(events, day).filter(pl.col("at") == pl.col("at").max().over("household_id"))


def test_a_population_that_looks_at_later_events_of_the_same_day_is_caught():
    """The basket of 13:00 in New York knows that there is another one at 18:00."""
    honest = replace(BACK, population=so_far)
    assert prove(asked(LINES, question=honest), LINES, honest) == 1
    peeks = replace(BACK, population=visits_today)
    rows = asked(LINES, question=peeks)
    assert rows["basket_departments"].to_list() == [2, 2]
    said = r"'basket_departments' .* nothing after 2017-06-05T17:00:00Z, household_id 1, .*: expected 1, found 2"
    with pytest.raises(GuaranteeError, match=said):
        prove(rows, LINES, peeks)


def test_a_request_that_is_left_out_for_a_later_one_is_caught():
    lines = [*LINES, (6, 1, 100, 5, 23, 5, False)]
    peeks = replace(BACK, population=only_the_last)
    assert prove(asked(lines), lines) == 1
    with pytest.raises(GuaranteeError, match="other entities than the day could know"):
        prove(asked(lines, question=peeks), lines, peeks)


def test_baskets_of_one_instant_see_each_other():
    """Which of them was first, no clock tells."""
    lines = [*LINES, (7, 1, 100, 5, 17, 5, False)]
    pairs = replace(BACK, population=lambda e, day: BACK.population(e, day).with_columns(
        pl.len().over("household_id", "at").cast(pl.Int64).alias("basket_departments")))  # fmt: skip
    rows = asked(lines, question=pairs)
    assert rows["basket_departments"].to_list() == [2, 1, 2]
    assert prove(rows, lines, pairs) == 1
