"""Versions of a view side by side, deprecated and dropped ones, and what stands in for a row that is not there."""

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace

import polars as pl
import pytest

from features.sources import store, trips
from lockstep import agg
from lockstep.clock import INSTANT
from lockstep.define import Feature, OnDemandView, Service, View
from lockstep.define.on_demand_view import ASKABLE
from lockstep.errors import DataError, DefinitionError
from lockstep.exact import elapsed_days, ratio
from lockstep.serving import _asked
from lockstep.snapshot import snapshot
from tests.code.definitions import catalogue, service, visits
from tests.code.test_snapshots import ZONE

AT = datetime(2017, 3, 13, 4, tzinfo=UTC)
BASKET = [Feature("trips", agg.count()), Feature("spend", agg.sum("value")), Feature("basket", ratio("spend", "trips"))]


def events():
    rows = {"household_id": [1, 1], "at": [datetime(2017, 3, n, tzinfo=UTC) for n in (5, 9)], "value": [100, 300]}
    return pl.DataFrame(rows, schema_overrides={"at": INSTANT}).with_columns(event_day=pl.col("at").dt.date())


class TestVersions:
    def test_the_first_keeps_its_names_and_later_ones_end_in_their_number(self):
        one, two = visits(*BASKET), visits(*BASKET, version=2)
        assert (one.name, one.folder, [f.name for f in one.features]) == (
            "visits", "visits/v1", ["trips", "spend", "basket"],
        )  # fmt: skip
        assert (two.name, two.folder, [f.name for f in two.features]) == (
            "visits_v2", "visits/v2", ["trips_v2", "spend_v2", "basket_v2"],
        )  # fmt: skip

    def test_formulas_of_a_version_read_the_features_of_that_version(self):
        two = visits(*BASKET, version=2)
        frame = snapshot(two, events(), pl.DataFrame({"household_id": [1]}), date(2017, 3, 13), ZONE)
        assert frame.select("trips_v2", "spend_v2", "basket_v2").row(0) == (2, 400, 200.0)

    def test_a_version_can_be_made_from_another_view_or_changed_in_place(self):
        two = replace(visits(*BASKET), version=2)
        again = replace(two, ttl_days=3)
        assert [f.name for f in again.features] == ["trips_v2", "spend_v2", "basket_v2"]
        assert (again.name, again.folder) == ("visits_v2", "visits/v2")
        three = replace(again, version=3)
        assert [f.name for f in three.features] == ["trips_v3", "spend_v3", "basket_v3"]
        assert (three.name, three.folder, sorted({*three.features[2].reads})) == (
            "visits_v3",
            "visits/v3",
            ["spend_v3", "trips_v3"],
        )
        more = replace(two, features=[*two.features, Feature("last", agg.last("at"))])
        assert [f.name for f in more.features] == ["trips_v2", "spend_v2", "basket_v2", "last_v2"]
        assert [f.name for f in replace(two, version=1).features] == ["trips", "spend", "basket"]

    def test_a_view_that_is_changed_to_say_nothing_loses_its_flag(self):
        refusing = visits(missing="refuse", version=2)
        assert [f.name for f in refusing.features] == ["trips_v2", "spend_v2", "visits_known_v2"]
        assert [f.name for f in replace(refusing, missing="null").features] == ["trips_v2", "spend_v2"]
        assert [f.name for f in replace(refusing, ttl_days=3).features] == [f.name for f in refusing.features]

    @pytest.mark.parametrize(
        ("define", "said"),
        [
            (lambda: visits(name="visits_v2"), "'visits_v2' ends like a version in view visits_v2. Write plain names"),
            (
                lambda: visits(Feature("trips_v3", agg.count()), version=2),
                "'trips_v3' ends like a version in view visits",
            ),
            (lambda: visits(version=0), "not a version in view visits: expected >= 1, found 0"),
        ],
    )
    def test_nobody_writes_the_ending_himself(self, define, said):
        with pytest.raises(DefinitionError, match=said):
            define()

    def test_two_versions_are_known_to_services_by_different_names(self):
        both = catalogue(
            visits(), visits(version=2), services=[service("spend"), Service("new", ["spend_v2", "trips"])]
        )
        assert list(both.types) == ["trips", "spend", "trips_v2", "spend_v2"]
        assert both.refs(["spend", "spend_v2"]) == ["visits:spend", "visits_v2:spend_v2"]

    def test_a_version_that_no_service_reads_is_not_joined(self):
        assert catalogue(visits(), visits(version=2), services=[service("spend")]).read_by(["s"]) == ["spend"]

    def test_another_version_may_be_made_of_the_features_of_one_that_tells_its_rows(self):
        first = visits(missing="refuse")
        marked = replace(first, features=[replace(f, tags={"a": "b"}) for f in first.features])
        second = replace(marked, version=2, features=[replace(f, owner="c") for f in marked.features])
        assert [f.name for f in second.features] == ["trips_v2", "spend_v2", "visits_known_v2"]

    def test_one_version_twice_and_a_name_that_two_views_share_are_refused(self):
        with pytest.raises(DefinitionError, match="view 'visits_v2' is defined twice"):
            catalogue(visits(version=2), visits(version=2))
        with pytest.raises(DefinitionError, match="feature 'trips' is defined twice in view more"):
            catalogue(visits(), visits(Feature("trips", agg.count()), name="more"))

    def test_a_service_that_names_nothing_is_told_the_nearest(self):
        with pytest.raises(DefinitionError, match=r"unknown feature 'spend_v3' in service s. Did you mean 'spend_v2'"):
            catalogue(visits(), visits(version=2), services=[service("spend_v3")])


class TestOldViews:
    now = staticmethod(
        lambda view: OnDemandView("now", [view], {"at": INSTANT}, [Feature("waited", elapsed_days("last", "at"))])
    )

    def test_a_deprecated_one_is_announced_where_a_service_reads_it_even_through_a_formula(self):
        old = visits(Feature("last", agg.last("at")), deprecated="use visits version 2")
        on_demand, services = [self.now(old)], [service("waited"), Service("other", ["trips_v2"])]
        known = catalogue(old, visits(version=2), on_demand=on_demand, services=services)
        said = ["deprecated: view visits, read by service s. Use visits version 2."]
        assert known.deprecated() == known.deprecated(["s"]) == said
        assert known.deprecated(["other"]) == []

    def test_a_dropped_one_is_not_computed_and_whoever_reads_it_is_refused(self):
        gone = visits(dropped="use visits version 2")
        assert list(catalogue(gone, visits(version=2), services=[service("spend_v2")]).types) == [
            "trips_v2",
            "spend_v2",
        ]
        said = "feature 'spend' was dropped in service s. Use visits version 2."
        with pytest.raises(DefinitionError, match=said):
            catalogue(gone, visits(version=2), services=[service("spend")])
        with pytest.raises(DefinitionError, match=r"view visits was dropped in .* now. Use it no more."):
            self.now(visits(Feature("last", agg.last("at")), dropped="use it no more"))


def defaulting(**more):
    features = [
        Feature("trips", agg.count(), default=0),
        Feature("basket", agg.mean("value"), default=None),
        Feature("last", agg.last("at"), default=datetime(2017, 1, 1, tzinfo=UTC)),
    ]
    return visits(*features, missing="default", **more)


class TestMissing:
    joined = pl.DataFrame(
        {
            "household_id": [1, 2],
            "event_timestamp": [AT, AT],
            "trips": [4, None],
            "basket": [None, None],
            "last": [datetime(2017, 3, 1, tzinfo=UTC), None],
            "visits_known": [True, None],
        },
        schema_overrides={"event_timestamp": INSTANT, "basket": pl.Float64, "last": INSTANT},
    )

    def test_a_view_that_says_what_follows_stores_that_there_is_a_row(self):
        for view, name in ((defaulting(), "visits_known"), (defaulting(version=2), "visits_known_v2")):
            frame = snapshot(view, events(), pl.DataFrame({"household_id": [1]}), date(2017, 3, 13), ZONE)
            assert frame[name].to_list() == [True]
            assert view.known == name
        assert [f.name for f in visits().features] == ["trips", "spend"]

    def test_defaults_stand_in_where_there_is_no_row_and_nowhere_else(self):
        view = defaulting()
        found = catalogue(view, services=[service("trips")]).settle(self.joined, ["household_id"], "rows")
        first = datetime(2017, 1, 1, tzinfo=UTC)
        assert found.drop("event_timestamp").rows() == [
            (1, 4, None, datetime(2017, 3, 1, tzinfo=UTC), True), (2, 0, None, first, False),
        ]  # fmt: skip
        assert found.schema == self.joined.schema
        assert view.stand_in() == {"trips": 0, "basket": None, "last": first, "visits_known": False}

    def test_a_formula_at_request_time_reads_the_defaults(self):
        view = defaulting()
        now = OnDemandView("now", [view], {"at": INSTANT}, [Feature("waited", elapsed_days("last", "at"))])
        assert now.inputs(view) == ["last", "visits_known"]
        types = catalogue(view, on_demand=[now]).inputs(now)
        at = [datetime(2017, 1, 3, tzinfo=UTC)] * 2
        seen = {"last": [datetime(2017, 1, 2, tzinfo=UTC), None], "visits_known": [True, None], "at": at}
        assert now.compute(seen, types) == {"waited": [1.0, 2.0]}
        filled = {**seen, "last": [seen["last"][0], datetime(2017, 1, 1, tzinfo=UTC)], "visits_known": [True, False]}
        assert now.compute(filled, types) == {"waited": [1.0, 2.0]}  # what the store's reader filled already

    def test_a_view_that_refuses_names_the_rows(self):
        view = visits(missing="refuse")
        frame = self.joined.select("household_id", "event_timestamp", pl.col("trips").fill_null(0), "visits_known")
        said = (
            r"no row of view visits in rows: .*none for 1 of 2 rows, first household_id 2, event_timestamp 2017-03-13"
        )
        with pytest.raises(DataError, match=said):
            catalogue(view, services=[service("trips")]).settle(frame, ["household_id"], "rows")

    def test_nulls_of_a_view_that_says_nothing_pass_where_there_is_no_row(self):
        frame = self.joined.select("household_id", "event_timestamp", "trips")
        assert catalogue(visits(), services=[service("trips")]).settle(frame, ["household_id"], "rows").equals(frame)

    def test_flags_are_asked_for_where_something_of_the_view_is_read_even_through_a_formula(self):
        view = defaulting()
        now = OnDemandView("now", [view], {"at": INSTANT}, [Feature("waited", elapsed_days("last", "at"))])
        known = catalogue(view, on_demand=[now], services=[service("waited")])
        assert known.flags(["waited"]) == known.flags(["trips"]) == ["visits_known"]
        assert known.flags([]) == []

    @pytest.mark.parametrize(
        ("define", "said"),
        [
            (lambda: visits(missing="default"), "no default in feature trips of view visits: expected one for each"),
            (lambda: visits(Feature("n", agg.count(), default=None), missing="default"), "no default in feature n"),
            (
                lambda: OnDemandView("now", [visits()], {}, [Feature("x", pl.col("trips") * 2, default=0)]),
                "a default at request time in feature x",
            ),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, define, said):
        with pytest.raises(DefinitionError, match=said):
            define()


def asking(request, *features, views=None):
    return OnDemandView("now", views or [visits()], request, features or [Feature("x", pl.col("trips") * 2)])


class TestRequests:
    @pytest.mark.parametrize(
        ("define", "said"),
        [
            (lambda: asking({"at": INSTANT, "due": INSTANT}), "two instants in a request in on-demand view now"),
            (
                lambda: asking({"y": pl.Array(pl.Float64, 2)}),
                "no type of the request's 'y' in .*now: expected Int64, Int32",
            ),
            (lambda: asking({"y": pl.Datetime("us")}), "no type of the request's 'y'"),
            (lambda: asking({"at": pl.Int64()}), "no type of the request's 'at' .*expected the request's instant"),
            (lambda: asking({"label": pl.Int64()}), "'label' is a name of Lockstep's own in on-demand view now"),
        ],
    )
    def test_what_a_request_cannot_carry_is_refused(self, define, said):
        with pytest.raises(DefinitionError, match=said):
            define()

    def test_everything_that_a_request_may_carry_can_be_asked(self):
        carried = {f"x{n}": kind for n, kind in enumerate(ASKABLE) if kind != INSTANT}
        asked = _asked(SimpleNamespace(keys={"household_id": pl.Int64()}, request=asking(carried).request))
        assert [*asked.model_fields] == ["household_id", *carried, "at"]

    def test_a_type_may_be_written_as_its_class(self):
        assert asking({"y": pl.Int64}).request == {"y": pl.Int64()}
        assert isinstance(Feature("x", pl.Int64).value, pl.Int64)

    @pytest.mark.parametrize("name", ["spend", "household_id", "x"])
    def test_a_name_of_a_request_means_nothing_else(self, name):
        now = OnDemandView("now", [visits()], {name: pl.Int64()}, [Feature("y", pl.col(name) * 2)])
        other = visits(Feature("x", agg.count()), name="other")
        with pytest.raises(DefinitionError, match=f"two meanings of '{name}' in request of on-demand view now"):
            catalogue(now.views[0], other, on_demand=[now])

    def test_two_views_may_carry_the_same_value_of_one_type(self):
        view = visits()
        one = OnDemandView("one", [view], {"y": pl.Int64()}, [Feature("a", pl.col("y") * 2)])
        same = OnDemandView("two", [view], {"y": pl.Int64()}, [Feature("b", pl.col("y") * 2)])
        other = OnDemandView("two", [view], {"y": pl.Float64()}, [Feature("b", pl.col("y") * 2)])
        catalogue(view, on_demand=[one, same])
        with pytest.raises(DefinitionError, match="two meanings of 'y' in request of on-demand view two"):
            catalogue(view, on_demand=[one, other])

    def test_a_view_that_the_project_does_not_name_is_told_with_its_role(self):
        now = asking({}, views=[visits(name="other")])
        with pytest.raises(DefinitionError, match=r"view 'other' is in no module of the role views in .*now.*lockstep"):
            catalogue(visits(), on_demand=[now])

    def test_entities_that_no_view_has_together_are_told_when_definitions_are_read(self):
        shops = View("shops", [store], trips, [Feature("b", agg.count())], ttl_days=7)
        home = visits()
        now = asking({}, Feature("y", pl.col("trips") * pl.col("b")), views=[home, shops])
        with pytest.raises(
            DefinitionError, match="features of entities that no view has together in on-demand view now"
        ):
            catalogue(home, shops, on_demand=[now])
