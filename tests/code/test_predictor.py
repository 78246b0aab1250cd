"""What a request is answered with and what it is told, over a store whose rows a test writes itself."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from lockstep import agg
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView
from lockstep.exact import elapsed_days
from lockstep.lookup import BadRequest, Found, LookUp, NotOnline
from lockstep.predictor import Predictor
from lockstep.reader import Reader
from tests.code.definitions import catalogue, service, visits

SNAPSHOT = datetime(2018, 1, 1, 5, tzinfo=UTC)
NOON = SNAPSHOT + timedelta(hours=12)
LATER = SNAPSHOT + timedelta(days=8)  # past the seven days of the view
LAST = datetime(2017, 12, 31, 5, tzinfo=UTC)


class Model:
    """A model that reads every feature and gives their number."""

    def __init__(self, never_null=()):
        self.preprocess = SimpleNamespace(never_null_=never_null, transform_row=lambda row: row)

    def predict(self, row):
        return [float(len(row))]


def predictor(row, *, now=None, request=None, never_null=()):
    """Return a predictor that reads `row` of household 1, and on-demand features over it."""
    view = visits(Feature("last", agg.last("at")), Feature("spend", agg.sum("value")))
    features = now or [Feature("waited", elapsed_days("last", "at"), range=(0, 30))]
    demand = OnDemandView("now", [view], request or {"at": INSTANT}, features)
    names = [*(f.name for f in view.features), *(f.name for f in features)]
    known = catalogue(view, on_demand=[demand], services=[service(*names)])
    store = LookUp.__new__(LookUp)
    store.catalogue = known
    first = {"visits": SimpleNamespace(first=ASKED)}
    store.online = SimpleNamespace(instant=SNAPSHOT, snapshot=date(2018, 1, 1), features="f", views=first)
    store.rows = lambda wanted, _: {"visits": Found({n: [row.get(n)] for n in wanted["visits"]}, [True], [SNAPSHOT])}
    p = Predictor.__new__(Predictor)
    p.project, p.catalogue, p.fitted, p.reader = known.project, known, Model(never_null), Reader(known, names)
    p.name, p.hashes, p.keys, p.request = "m", {}, p.reader.keys, p.reader.request
    p.features = {n: str(known.types[n]) for n in names}
    p.lookup = lambda: store
    p.now = lambda: NOON
    p._lookup = None
    return p


ASKED = {"household_id": 1}
ROW = {"last": LAST, "spend": 300}


def test_an_answer_is_computed_at_the_instant_of_its_request():
    found = predictor(ROW).predict(ASKED, NOON)
    assert found.features == {"last": LAST, "spend": 300, "waited": 1.5}
    assert found.defaulted == []


def test_a_name_is_the_requests_where_the_view_declares_it_so():
    """Also where what is stored has such a column: definitions refuse it, and nothing falls back on it."""
    p = predictor(ROW)
    read = p.lookup().read
    p.lookup = lambda: SimpleNamespace(read=lambda *asked: ({**read(*asked)[0], "at": LAST}, SNAPSHOT, []))
    assert p.predict(ASKED, NOON).features["waited"] == 1.5


def test_a_null_of_a_stale_row_is_flagged_and_so_is_what_is_computed_from_it():
    found = predictor(ROW).predict(ASKED, LATER)
    assert found.features == {"last": None, "spend": None, "waited": None}
    assert found.defaulted == ["last", "spend", "waited"]


def test_a_null_of_a_fresh_row_is_no_stale_one():
    assert predictor({**ROW, "last": None}).predict(ASKED, NOON).defaulted == []


def test_a_null_that_training_never_had_is_the_requests_fault_unless_the_row_is_stale():
    p = predictor({**ROW, "last": None}, never_null=["waited"])
    with pytest.raises(BadRequest, match="no score for household_id 1 in feature waited"):
        p.predict(ASKED, NOON)
    with pytest.raises(NotOnline, match="a stale snapshot in view visits"):
        p.predict(ASKED, LATER)


def test_health_says_that_a_view_is_stale():
    p = predictor(ROW)
    assert p.health()["status"] == "ok"
    p.now = lambda: LATER
    with pytest.raises(NotOnline, match="a stale snapshot in view visits") as e:
        p.health()
    assert e.value.status == 503


CENTS = {"at": INSTANT, "cents": pl.Int64()}


@pytest.mark.parametrize(
    ("feature", "asked", "said"),
    [
        (
            Feature("x", pl.col("cents") * 2, range=(0, 100)),
            51,
            r"'x' is out of its range .*expected 0 to 100, found 102",
        ),
        (
            Feature("x", pl.col("cents") * 2, range=(0, None)),
            -1,
            r"'x' is out of its range .*expected 0 to any, found -2",
        ),
        (Feature("x", pl.when(pl.col("cents") > 0).then(1), nullable=False), 0, r"'x' is null .*expected a value"),
        (Feature("x", pl.col("cents")), 3.7, r"a value of another type in cents: expected Int64, found 3.7"),
        (Feature("x", pl.col("cents")), "4", r"a value of another type in cents: expected Int64, found '4'"),
    ],
)
def test_a_request_that_breaks_a_contract_is_told_so(feature, asked, said):
    with pytest.raises(BadRequest, match=said):
        predictor(ROW, now=[feature], request=CENTS).predict({**ASKED, "cents": asked}, NOON)


def test_a_request_at_the_ends_of_a_range_is_answered():
    feature = Feature("x", pl.col("cents") * 2, range=(0, 100))
    for cents in (0, 50):
        found = predictor(ROW, now=[feature], request=CENTS).predict({**ASKED, "cents": cents}, NOON)
        assert found.features["x"] == 2 * cents


def test_a_null_of_a_stale_row_that_breaks_a_contract_is_not_the_requests_fault():
    feature = Feature("x", pl.col("spend") * 2, nullable=False)
    with pytest.raises(NotOnline, match="a stale snapshot"):
        predictor(ROW, now=[feature]).predict(ASKED, LATER)


def test_a_stored_value_of_another_type_is_not_bent():
    with pytest.raises(NotOnline, match="the online store holds what cannot be a feature"):
        predictor({**ROW, "spend": 3.7}, now=[Feature("x", pl.col("spend") * 2)]).predict(ASKED, NOON)


def test_an_example_takes_keys_that_belong_together_from_the_widest_view():
    p = predictor(ROW, request={"at": INSTANT, "who": pl.String()})
    p.reader.views = [SimpleNamespace(name=n) for n in ("home", "pair", "other")]
    firsts = {"home": {"a": 1}, "pair": {"a": 2, "b": 20}, "other": {"a": 3, "c": 30}}
    p.lookup().online.views = {n: SimpleNamespace(first=first) for n, first in firsts.items()}
    assert p.example() == {"a": 2, "b": 20, "c": 30, "who": "1"}
