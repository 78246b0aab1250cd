"""What a definition may not be: each mistake is a sentence that names the thing, what it needs and what it got."""

# ruff: noqa: E501 - one mistake a line

import re

import polars as pl
import pytest

from features.sources import household, store, trips
from lockstep import agg
from lockstep.clock import INSTANT
from lockstep.define import Entity, Feature, FittedView, OnDemandView, Question, Service, source
from lockstep.errors import DefinitionError
from lockstep.exact import elapsed_days
from tests.code.definitions import catalogue, visits

N = Feature("n", agg.count())
PLAIN = "expected a letter, then letters, digits and single underscores"


def asks(**more):
    told = {"name": "q", "entities": [household], "source": trips, "horizon_days": 28}
    return Question(**{**told, "population": trips.derive, "label": trips.derive, **more})


def now(*features, views=None, request=None, **more):
    return OnDemandView("now", views or [visits(N)], request or {}, features or [Feature("x", pl.col("n") * 2)], **more)


def named(column="id"):
    return source(event_time="at", key=column)


@pytest.mark.parametrize(
    ("define", "said"),
    [
        (lambda: Feature("x", agg.count(where="a")), "where= of a wrong kind in feature x: expected a Polars condition"),
        (lambda: Feature("x", agg.count(days="30")), "days= of a wrong kind in feature x: expected a whole number"),
        (lambda: Feature("x", agg.count(days=True)), "days= of a wrong kind in feature x: .*found True"),
        (lambda: Feature("x", agg.count(days=0)), r"a window without days in count\(days=0\) of feature x"),
        (lambda: Feature("x", agg.sum(3)), "column= of a wrong kind in feature x: expected text, found 3"),
        (lambda: Feature("x", agg.count(during="a")), "during= of a wrong kind in feature x: .*two Date columns"),
        (lambda: Feature("x", agg.count(during=("a", None))), r"during= of a wrong kind .*found \('a', None\)"),
        (lambda: Feature("x", agg.count(), range=3), r"range= of a wrong kind in feature x: expected \(lowest, highest\)"),
        (lambda: Feature("x", agg.count(), range=("a", None)), r"range= of a wrong kind .*found \('a', None\)"),
        (lambda: Feature("x", agg.count(), range=(0,)), "range= of a wrong kind"),
        (lambda: Feature("x", agg.count(), nullable="no"), "nullable= of a wrong kind .*True or False, found 'no'"),
        (lambda: Feature("x", agg.count(), tags={1: "a"}), "tags= of a wrong kind in feature x: expected text by name"),
        (lambda: Feature("x", 3), r"value= of a wrong kind in feature x: expected an aggregation .*found 3"),
        (lambda: Feature("x", pl.Array), "value= of a wrong kind in feature x"),
        (lambda: Feature(3, agg.count()), "name= of a wrong kind in feature 3: expected text"),
        (lambda: Feature("avg basket", agg.count()), f"'avg basket' is no plain name in feature avg basket: {PLAIN}"),
        (lambda: Feature("__len__", agg.count()), f"'__len__' is no plain name .*{PLAIN}"),
        (lambda: Feature("lambda", agg.count()), "'lambda' is no plain name .*no word of Python's"),
        (lambda: Entity("h", "the 'id'"), r'"the \'id\'" is no plain name in entity h'),
        (lambda: Entity("2nd", "id"), "'2nd' is no plain name in entity 2nd"),
        (lambda: visits(name=""), "'' is no plain name in view"),
        (lambda: visits(source="trips"), r"source= of a wrong kind in view visits: .*@source\(...\), found 'trips'"),
        (lambda: visits(source=trips.derive), "source= of a wrong kind in view visits: .*found function trips"),
        (lambda: visits(entities=household), r"entities= .* expected a list .*\[household\], found Entity household"),
        (lambda: visits(entities=["household"]), r"entities= of a wrong kind .*found \['household'\]"),
        (lambda: visits(features=N), r"features= .* expected a list of features, such as .*found Feature n"),
        (lambda: visits(ttl_days="7"), "ttl_days= of a wrong kind in view visits: expected a whole number, found '7'"),
        (lambda: visits(deprecated=True), "deprecated= of a wrong kind in view visits: expected text, found True"),
        (lambda: visits(missing="gone"), "missing= of a wrong kind .*expected 'null', 'default', 'refuse', found 'gone'"),
        (lambda: visits(Feature("x", agg.count(), default=0)), 'a default that nothing reads in .*Say missing="default"'),
        (lambda: visits(N, missing="default"), "no default in feature n of view visits: .*found nothing. Give"),
        (lambda: FittedView("v", [store], trips, [N], 7, fit="f"), "fit= of a wrong kind in view v: expected a function"),
        (lambda: now(views=visits(N)), r"views= of a wrong kind in on-demand view now: .*found View visits"),
        (lambda: now(request={"a b": pl.Int64}), "'a b' is no plain name in on-demand view now"),
        (lambda: now(request={3: pl.Int64}), "request= of a wrong kind in on-demand view now: expected types by name"),
        (lambda: Service("s", "n"), "features= of a wrong kind in service s: expected a list of names, found 'n'"),
        (lambda: Service("s", ["n", "n"]), "feature 'n' stands twice in service s. Remove or rename one of them"),
        (lambda: asks(horizon_days="28"), "horizon_days= of a wrong kind in question q: expected a whole number"),
        (lambda: asks(population="all"), "population= of a wrong kind in question q: expected a function, found 'all'"),
        (lambda: named(3)(trips.derive), "key= of a wrong kind in source trips"),
        (lambda: named()(lambda trips: trips), "'<lambda>' is no plain name in source <lambda>"),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_kind_is_refused_where_it_is_written(define, said):
    with pytest.raises(DefinitionError, match=said) as refused:
        define()
    assert not re.search("Ellipsis|0x|<class", str(refused.value))


OTHER = visits(Feature("m", agg.count()), name="other")
MINUS = Feature("y", elapsed_days("n", "event_timestamp"))


@pytest.mark.parametrize(
    ("views", "on_demand", "said"),
    [
        ([visits(Feature("x", agg.count(where=pl.col("value") + 1)))], [], "not a condition in where= of feature x: .*found Int64"),
        ([visits(Feature("x", agg.count(where=pl.col("value").str.len_bytes() > 1)))], [], "not a condition in where= of feature x: .*expected `String`"),
        ([visits(N, MINUS)], [], r"types of its columns do not allow in feature y: .*It reads event_timestamp \(Datetime.*, n \(Int64\)"),
        ([visits(N)], [([Feature("z", elapsed_days("n", "at"))], {"at": INSTANT})], r"do not allow in feature z: .* n \(Int64\)"),
        ([visits(N), OTHER], [([Feature("z", pl.col("m") * 2)], {})], "unknown column 'm' in feature z of on-demand view now. Add view other to its `views`."),
        ([visits(N)], [([Feature("z", pl.col("nn") * 2)], {})], "unknown column 'nn' in feature z of on-demand view now. Did you mean 'n'?"),
        ([visits(N)], [([Feature("z", pl.col("y") * 2), Feature("y", pl.col("n") * 2)], {})], "unknown column 'y' in feature z"),
        ([visits(Feature("x", agg.last("event_day")))], [], "a type that neither Feast nor a server holds in feature x: .*found Date. Cast it"),
        ([visits(Feature("l", agg.last("at")), Feature("x", pl.col("event_timestamp") - pl.col("l")))], [], "in feature x: .*found Duration"),
        ([visits(N)], [([Feature("z", pl.col("at").dt.date())], {"at": INSTANT})], "in feature z: .*found Date"),
        ([visits(N, entities=[Entity("moment", "at")])], [], "a type of the key 'at' that Feast cannot hold in view visits: expected Int64, Int32, String, found Datetime"),
    ],
)  # fmt: skip
def test_types_that_do_not_go_together_are_told_when_definitions_are_read(views, on_demand, said):
    with pytest.raises(DefinitionError, match=said):
        catalogue(
            *views, on_demand=[now(*features, views=views[:1], request=request) for features, request in on_demand]
        )
