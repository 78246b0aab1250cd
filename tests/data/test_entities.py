"""Several entities and intervals on real households, against plain Python over the installed raw rows."""

from collections import defaultdict
from datetime import date, timedelta

import polars as pl
import pytest

from features.landing import rows as raw_rows
from features.sources import household
from lockstep import agg
from lockstep.clock import Zone
from lockstep.contract import load_contracts
from lockstep.define import Entity, Feature, View, source
from lockstep.events import Events
from lockstep.landings import read_landings, snapshot_days
from lockstep.project import project
from lockstep.settings import Land
from lockstep.snapshot import snapshot, snapshots
from lockstep.tables import read_tables
from tests.code import oracle

NEW_YORK = "America/New_York"
DAYS = [date(2017, 1, 2), date(2017, 3, 13), date(2017, 3, 26), date(2017, 3, 27), date(2017, 11, 6), date(2018, 1, 1)]


@source(event_time="at", key=("basket_id", "product_id"), within_day=True)
def lines(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    """One row a basket line, with the category of its product."""
    of = products.select("product_id", "product_category")
    return transactions.rename({"transaction_timestamp": "at"}).join(of, on="product_id", how="left")


FEATURES = [
    Feature("lines_30d", agg.count(days=30)),
    Feature("cents", agg.sum("sales_value")),
    Feature("spread_90d", agg.std("sales_value", days=90)),
    Feature("stores_90d", agg.distinct("store_id", days=90)),
]
category, product = Entity("category", key="product_category"), Entity("product", key="product_id")
pairs = View("pairs", [household, category], lines, FEATURES, ttl_days=1)
articles = View("articles", [product], lines, FEATURES, ttl_days=1)


@pytest.fixture(scope="module")
def raw():
    land = Land(first="2017-01-01", until="2017-12-31", keep_one_in=20)
    return {t: raw_rows(t, land, Zone(NEW_YORK)) for t in ("transactions", "products", "campaigns", "campaign_descriptions", "coupon_redemptions")}  # fmt: skip  # noqa: E501


def published(folder, view, day):
    return pl.read_parquet(folder / f"artifacts/features/{view}/v1/{day}.parquet")


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_campaigns_that_run_on_the_day_are_those_of_plain_python(built_slice, raw, day):
    runs = {r["campaign_id"]: r for r in raw["campaign_descriptions"].iter_rows(named=True)}
    expected = defaultdict(int)
    for row in raw["campaigns"].iter_rows(named=True):
        if row["_landing_day"] < day:  # addressed by then: a row even where nothing runs
            run = runs[row["campaign_id"]]
            expected[row["household_id"]] += run["start_date"] <= day <= run["end_date"]
    got = published(built_slice, "household_offers", day)
    assert dict(got.select("household_id", "active_campaigns").iter_rows()) == dict(expected)


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_redemptions_by_date_are_those_of_the_ninety_days_before(built_slice, raw, day):
    expected = defaultdict(int)
    for row in raw["coupon_redemptions"].iter_rows(named=True):
        if row["redemption_date"] < day:
            expected[row["household_id"]] += row["redemption_date"] >= day - timedelta(days=90)
    got = published(built_slice, "household_coupons", day)
    assert dict(got.select("household_id", "redemptions_90d").iter_rows()) == dict(expected)


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_a_household_in_a_store_has_the_trips_of_both(built_slice, raw, day):
    first = {}  # a basket is one trip, at its earliest line
    for row in raw["transactions"].iter_rows(named=True):
        at, _ = first.get(row["basket_id"], (row["transaction_timestamp"], None))
        key = (row["household_id"], row["store_id"])
        first[row["basket_id"]] = (min(at, row["transaction_timestamp"]), key)
    by_pair = defaultdict(list)
    for basket, (at, key) in first.items():
        by_pair[key].append({"at": at, "id": basket})
    expected = {}
    for key, mine in by_pair.items():
        if known := oracle.values(mine, None, day, None, NEW_YORK):
            expected[key] = (len(oracle.values(mine, None, day, 90, NEW_YORK)), known[-1]["at"])
    got = published(built_slice, "household_store", day)
    told = got.select("household_id", "store_id", "trips_here_90d", "last_here_at")
    assert {(h, s): (n, at) for h, s, n, at in told.iter_rows()} == expected
    assert got.select("household_id", "store_id").rows() == sorted(expected)


@pytest.mark.parametrize("view", [pairs, articles], ids=lambda v: v.name)
def test_lines_by_household_and_category_and_by_product_equal_the_oracle(built_slice, raw, view):
    p = project(built_slice)
    contracts, zone = load_contracts(p.folder("contracts")), p.settings.clock
    first, last = snapshot_days(read_landings(p.root / "landings.csv"), ["transactions"])
    tables = read_tables(p.root / "artifacts/clean", contracts, zone, lines.tables)
    events = Events(lines, tables, first, last)
    assert events.short
    days = [date(2017, 3, 13), date(2017, 11, 6)]
    found = dict(snapshots(view, events.known(last), events.seen(view.keys, last), days, zone))
    category_of = dict(raw["products"].select("product_id", "product_category").iter_rows())
    by_key = defaultdict(list)
    for row in raw["transactions"].iter_rows(named=True):
        row |= {"at": row["transaction_timestamp"], "product_category": category_of.get(row["product_id"])}
        row["id"] = (row["basket_id"], row["product_id"])
        by_key[tuple(row[k] for k in view.keys)].append(row)
    for day in days:
        assert found[day].equals(snapshot(view, events.known(day), events.entities(view.keys, day), day, zone))
        seen = {k for k, mine in by_key.items() if None not in k and oracle.values(mine, None, day, None, NEW_YORK)}
        if view is articles:  # a table of its own names every product from the first day on
            seen |= {(k,) for k in category_of}
        assert found[day].select(view.keys).rows() == sorted(seen)
        some = found[day].gather_every(37 if view is pairs else 997)
        for row in some.iter_rows(named=True):
            mine = by_key[tuple(row[k] for k in view.keys)]
            spent = oracle.values(mine, "sales_value", day, 90, NEW_YORK)
            assert row["lines_30d"] == len(oracle.values(mine, None, day, 30, NEW_YORK))
            assert row["cents"] == sum(oracle.values(mine, "sales_value", day, None, NEW_YORK))
            assert row["spread_90d"] == oracle.std(spent)
            assert row["stores_90d"] == len(set(oracle.values(mine, "store_id", day, 90, NEW_YORK)))
