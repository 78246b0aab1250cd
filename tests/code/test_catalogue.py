"""The catalogue: one row a feature, from the definitions alone."""

import json

import polars as pl
import pytest

from lockstep import agg
from lockstep.catalogue_page import entries, entry, write_catalogue
from lockstep.clock import INSTANT
from lockstep.define import Entity, Feature, OnDemandView, Service, source
from lockstep.errors import DefinitionError, UserError
from lockstep.exact import elapsed_days
from lockstep.project import project
from tests.code.definitions import catalogue, visits
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def frame():
    view = visits(
        Feature("spend", agg.sum("value", days=30), "cents", (0, None), default=0, owner="finance", tags={"unit": "c"}),
        Feature("last", agg.last("at"), "latest trip", default=None),
        missing="default", owner="growth", tags={"tier": "1"}, deprecated="use version 2",
    )  # fmt: skip
    now = OnDemandView("now", [view], {"at": INSTANT}, [Feature("waited", elapsed_days("last", "at"))], owner="web")
    return entries(catalogue(view, on_demand=[now], services=[Service("rfm", ["spend", "waited"])]))


def test_a_feature_is_told_with_its_contract_its_owner_and_its_readers(frame):
    assert entry(frame, "spend") == {
        "feature": "spend", "view": "visits", "version": 1, "status": "deprecated", "instead": "Use version 2.",
        "entity": "household",
        "type": "Int64", "nullable": False, "range": "0 to any", "missing": "default", "default": "0",
        "window": "30 days", "computed": "sum('value', days=30)", "tables": ["transactions", "products"],
        "owner": "finance", "description": "cents", "tags": ["tier=1", "unit=c"], "ttl_days": 7,
        "services": ["rfm"], "models": ["rfm"], "questions": ["lapse"], "formulas": [],
    }  # fmt: skip


def test_what_formulas_read_and_what_defaults_stand_in_is_told(frame):
    last, waited = entry(frame, "last"), entry(frame, "waited")
    assert (last["formulas"], last["default"], last["owner"], last["services"]) == (["waited"], "null", "growth", [])
    assert (waited["window"], waited["version"], waited["default"], waited["ttl_days"]) == ("formula", None, None, 7)
    assert (waited["status"], waited["owner"], waited["nullable"]) == ("deprecated", "web", True)
    assert waited["instead"] == "Use version 2."
    assert frame["feature"].to_list() == ["spend", "last", "visits_known", "waited"]


def test_a_feature_is_of_the_status_of_what_it_reads():
    old = visits(Feature("last", agg.last("at")), deprecated="use version 2")
    features = [
        Feature("waited", elapsed_days("last", "at")),
        Feature("weeks", pl.col("waited") * 7),
        Feature("zz", pl.col("z") * 2),
    ]
    now = OnDemandView("now", [old], {"at": INSTANT, "z": pl.Int64()}, features)
    known = catalogue(old, on_demand=[now], services=[Service("asked", ["zz"]), Service("far", ["weeks"])])
    rows = entries(known)
    assert [entry(rows, name)["status"] for name in ("weeks", "zz")] == ["deprecated", "live"]
    assert known.deprecated() == ["deprecated: view visits, read by service far. Use version 2."]


def test_the_command_line_shows_a_table_with_a_header_and_one_feature_as_one(tmp_path, monkeypatch, capsys):
    from lockstep import catalogue_page as module
    from lockstep.cli import features

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "PAGE", str(tmp_path / "catalogue.html"))
    features()
    assert capsys.readouterr().out.split()[:7] == [
        "feature", "view", "type", "range", "status", "services", "first_trip_at",
    ]  # fmt: skip
    features("trips_7d", json=True)
    assert json.loads(capsys.readouterr().out)["feature"] == "trips_7d"


def test_an_unknown_feature_is_told_the_nearest(frame):
    with pytest.raises(UserError, match=r"no feature 'spent'. Did you mean 'spend'"):
        entry(frame, "spent")


def test_every_feature_of_the_example_has_a_meaning_and_an_owner_and_its_page_names_it(tmp_path, monkeypatch):
    from lockstep import catalogue_page as module
    from lockstep.catalogue import Catalogue

    here = project(ROOT)
    rows = entries(Catalogue(here))
    assert all(rows["description"].str.len_chars() > 0)
    assert all(rows["owner"].str.len_chars() > 0)
    assert entry(rows, "private_share_90d")["computed"] == "ratio('private_spend_90d', 'spend_90d')"
    assert entry(rows, "days_since_here")["computed"] == "elapsed_days('last_here_at', 'at')"
    monkeypatch.setattr(module, "PAGE", str(tmp_path / "catalogue.html"))
    page = write_catalogue(Catalogue(here)).read_text(encoding="utf-8")
    for name in rows["feature"]:
        assert f'<tr id="{name}">' in page
    assert "<style>" in page
    assert "http" not in page  # it opens offline


# Feast 0.67 imports modules that warn of their own future.
@pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_feast_knows_owners_tags_and_what_is_deprecated():
    from lockstep.feast_objects import _view

    spend = Feature("spend", agg.sum("value"), "cents", owner="finance", tags={"unit": "cent"})
    view = visits(spend, version=2, owner="growth", tags={"tier": "1"}, deprecated="use version 3")
    found = _view(catalogue(view), view, [])
    assert (found.name, found.owner) == ("visits_v2", "growth")
    assert found.tags == {"tier": "1", "version": "2", "status": "deprecated"}
    (field,) = [f for f in found.schema if f.name == "spend_v2"]
    assert (field.description, field.tags) == ("cents", {"unit": "cent", "owner": "finance"})


def test_a_server_says_first_what_is_deprecated():
    from types import SimpleNamespace

    from lockstep.errors import DataError
    from lockstep.serving import _greeting

    def nothing():
        raise DataError("nothing is online")

    known = catalogue(visits(deprecated="use version 2"), services=[Service("rfm", ["spend"])])
    predictor = SimpleNamespace(
        name="m",
        catalogue=known,
        card={"service": "rfm"},
        example=nothing,
        keys={"household_id": pl.Int64(), "store": pl.String()},
        request={"cents": pl.Float64()},
    )
    said = _greeting(predictor, "url")
    assert said[2].endswith("""-d '{"household_id": 1, "store": "1", "cents": 1.0}'""")
    assert said[1] == "deprecated: view visits, read by service rfm. Use version 2."


def test_two_things_of_one_name_are_refused_wherever_one_would_be_taken_for_the_other():
    def another():
        @source(event_time="transaction_timestamp", key="basket_id")
        def trips(transactions):
            return transactions

        return trips

    now = [OnDemandView("now", [visits()], {"at": INSTANT, "z": pl.Int64()}, [Feature(n, pl.col("z"))]) for n in "ab"]
    shop = Entity("household", key="store_id")
    for made, said in (
        (lambda: catalogue(visits(), visits(Feature("x", agg.count()), name="two", source=another())),
         "source 'trips' is defined twice"),
        (lambda: catalogue(visits(), on_demand=now), "view 'now' is defined twice"),
        (lambda: catalogue(visits(), on_demand=[OnDemandView("visits", [], {"z": pl.Int64()}, now[0].features)]),
         "view 'visits' is defined twice"),
        (lambda: catalogue(visits(), services=[Service("s", ["trips"]), Service("s", ["spend"])]),
         "service 's' is defined twice"),
        (lambda: catalogue(visits(), visits(Feature("x", agg.count()), name="two", entities=[shop])),
         "two entities of one name, or of one key in entities household and household"),
    ):  # fmt: skip
        with pytest.raises(DefinitionError, match=said):
            made()


@pytest.mark.parametrize(
    ("derive", "said"),
    [
        (lambda transactions: transactions.selct("x"), "found AttributeError.*selct"),
        (lambda transactions: transactions.with_columns(pl.col("transaction_timestamp").cast(pl.String)),
         "an event time that is no date and no instant in source .*transaction_timestamp.*found String"),
        (lambda transactions: transactions.with_columns(x=pl.col("transaction_timestamp") + pl.col("nobody")),
         "unknown column"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_derived_is_told_with_its_place(derive, said):
    derive.__name__ = "odd"
    made = source(event_time="transaction_timestamp", key="basket_id")(derive)
    with pytest.raises(DefinitionError, match=said) as told:
        catalogue(visits(source=made))
    assert "source odd" in str(told.value)
