"""What is asked and by which services, told before anything runs."""

from dataclasses import replace

import polars as pl
import pytest

from features.labels import back, lapse
from features.sources import store
from lockstep import agg
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView, Service
from lockstep.errors import DefinitionError, SettingsError
from lockstep.project import project
from lockstep.questions import questions, require_questions
from tests.code.definitions import Ours, catalogue, visits
from tests.conftest import ROOT

HOME = visits(Feature("n", agg.count()))
SHOP = visits(Feature("m", agg.count()), name="shop", entities=[store])
HERE = visits(Feature("k", agg.count()), name="here", entities=[*HOME.entities, store])
NOW = OnDemandView(
    "now", [HOME, HERE], {"at": INSTANT},
    [Feature("hour", pl.col("at").is_null()), Feature("nk", pl.col("n") + pl.col("k"))],
)  # fmt: skip
PAID = OnDemandView("paid", [HOME], {"cents": pl.Int64}, [Feature("c", pl.col("cents") * 2)])


def required(**services):
    told = {"rfm": ["n"], "full": ["n"], "baselines": ["n"], "till": ["n"], **services}
    known = [Service(name, features) for name, features in told.items()]
    require_questions(catalogue(HOME, SHOP, HERE, on_demand=[NOW, PAID], services=known))


def test_a_question_at_an_event_reads_what_its_entities_and_its_request_give():
    required(till=["n", "m", "k", "nk", "hour", "c"])


@pytest.mark.parametrize(
    ("services", "said"),
    [
        (
            {"full": ["n", "m"]},
            "features of view shop without its key in service full, which question lapse reads: "
            "expected entities of the question with store_id, found household_id for m. Add the entity",
        ),
        ({"rfm": ["k"]}, "features of view here without its key in service rfm, .*found household_id for k"),
        ({"rfm": ["n", "nk"]}, "features of view here without its key in service rfm, .*found household_id for nk"),
        ({"rfm": ["n", "hour"]}, "features of view here without its key .*found household_id for hour"),  # Feast asks
        (
            {"rfm": ["n", "c"]},
            "features of what a request carries in service rfm, .*found cents of on-demand view paid",
        ),
    ],
)
def test_a_service_that_reads_what_nobody_asked_about_can_have_is_refused(services, said):
    with pytest.raises(DefinitionError, match=said):
        required(**services)


def test_a_question_or_a_service_that_nobody_defined_is_told_the_nearest():
    here = project(ROOT)
    assert questions(here) == {"lapse": lapse, "back": back}
    misspelt = Ours(here.root, here.names, {"labels": [lapse, replace(back, name="bakc")]})
    with pytest.raises(SettingsError, match=r"no question 'back' in questions of params.yaml. Did you mean 'bakc'"):
        questions(misspelt)
    with pytest.raises(SettingsError, match=r"no service 'full' in params.yaml. Known: rfm"):
        require_questions(catalogue(HOME, services=[Service("rfm", ["n"])]))
