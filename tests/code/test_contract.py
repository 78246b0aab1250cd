"""Contracts are read strictly: what cannot be kept is refused with the nearest thing that can."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from lockstep.clock import INSTANT
from lockstep.contract import load_contracts
from lockstep.errors import DataError, DefinitionError

REPO = Path(__file__).resolve().parents[2]

ORDERS = """
table: orders
version: 2
owner: someone
event_time: day
key: [order_id]
calendar: daily
lateness: {days: 3, then: flag}
columns:
  order_id: {type: int64}
  day: {type: date, range: ["2020-01-01", null]}
  price: {type: float64, nullable: {then: impute, value: 0}, range: {between: [0, 10], then: cap}}
  colour: {type: string, nullable: true, set: [red, blue], regex: {match: "[a-z]+", then: flag}, unique: {then: flag}}
rules:
  - {name: known_shop, kind: references, columns: [order_id], params: {table: shops, columns: [shop_id]}, then: flag}
"""
SHOPS = """
table: shops
version: 1
owner: someone
event_time: null
key: [shop_id]
calendar: irregular
lateness: {days: null, then: flag}
columns: {shop_id: {type: int64}, opened: {type: instant, range: [null, "2020-01-01T00:00:00-05:00"]}}
"""


def load(folder, orders=ORDERS, shops=SHOPS, **more):
    for name, text in {"orders": orders, "shops": shops, **more}.items():
        (folder / f"{name.replace('__', '.')}.yaml").write_text(text)
    return load_contracts(folder)


def test_column_properties_are_short_for_named_rules(tmp_path):
    orders = load(tmp_path)["orders"]
    rules = {r.name: (r.then, dict(r.params)) for r in orders.rules}
    assert rules == {
        "order_id.type": ("fail", {}),
        "order_id.not_null": ("fail", {}),
        "day.type": ("fail", {}),
        "day.not_null": ("fail", {}),
        "day.range": ("quarantine", {"between": (date(2020, 1, 1), None)}),
        "price.type": ("fail", {}),
        "price.not_null": ("impute", {"value": 0.0}),
        "price.range": ("cap", {"between": (0.0, 10.0)}),
        "colour.type": ("fail", {}),
        "colour.set": ("quarantine", {"of": ("red", "blue")}),
        "colour.regex": ("flag", {"match": "[a-z]+"}),
        "colour.unique": ("flag", {}),
        "_received_at.type": ("fail", {}),
        "_deleted.type": ("fail", {}),
        "_deleted.not_null": ("fail", {}),
        "known_shop": ("flag", {"table": "shops", "columns": ("shop_id",)}),
    }
    opened = next(r for r in load(tmp_path)["shops"].rules if r.name == "opened.range")
    assert opened.params["between"] == (None, datetime(2020, 1, 1, 5, tzinfo=UTC))


def test_a_day_without_quotes_is_a_day_and_yes_is_a_word(tmp_path):
    text = ORDERS.replace('"2020-01-01"', "2020-01-01").replace("[red, blue]", "[yes, no]")
    rules = {r.name: dict(r.params) for r in load(tmp_path, text)["orders"].rules}
    assert rules["day.range"] == {"between": (date(2020, 1, 1), None)}
    assert rules["colour.set"] == {"of": ("yes", "no")}


def test_the_schema_ends_with_the_two_landing_columns(tmp_path):
    assert load(tmp_path)["shops"].schema() == {
        "shop_id": pl.Int64, "opened": INSTANT, "_received_at": INSTANT, "_deleted": pl.Boolean,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("owner:", "ownr:", "unknown key 'ownr' in orders.yaml. Did you mean 'owner'?"),
        ("set: [red", "sett: [red", "unknown key 'sett' in orders.yaml at columns.colour. Did you mean 'set'?"),
        ("type: string", "type: strng", "at columns.colour.type. Did you mean 'string'?"),
        ("kind: references", "kind: reference", "Did you mean 'references'?"),
        ("then: cap", "then: cup", "Did you mean 'cap'?"),
        ("key: [order_id]", "key: [order_idd]", "unknown column 'order_idd' in orders.yaml. Did you mean 'order_id'?"),
        ("columns: [order_id]", "columns: [ordr_id]", "unknown column 'ordr_id' in orders.yaml, rule known_shop."),
        ("table: shops", "table: shop", "unknown table 'shop' in orders.yaml, rule known_shop. Did you mean 'shops'?"),
        ("columns: [shop_id]", "columns: [shopid]", "unknown column 'shopid' of shops in orders.yaml, rule"),
        ("name: known_shop", "name: late", "rule name 'late' is taken"),
        ("name: known_shop", "name: price.range", "rule name 'price.range' is taken"),
        ("calendar: daily", "calendar: dayly", "unknown calendar 'dayly' in orders.yaml at calendar."),
        ("version: 2", "version: 0", "0 is less than the minimum of 1"),
        ("owner: someone\n", "", "'owner' is a required property"),
        ("value: 0}", "value: none}", "expected a value of type float64, found 'none'"),
        ("then: impute, value: 0", "then: impute", "expected a value where a null is imputed"),
        ("then: impute, value: 0", "then: flag, value: 0", "expected a value where a null is imputed"),
        ("between: [0, 10]", "between: [10, 0]", "expected at least one bound, the lower one first"),
        ("between: [0, 10]", "between: [null, null]", "expected at least one bound"),
        ('["2020-01-01", null]', '["1 May", null]', "'1 May' is not a day"),
        ('match: "[a-z]+"', r'match: "\\d+"', r"a pattern that every engine reads alike, such as [0-9], found \d"),
        ('match: "[a-z]+"', 'match: "(?i)a"', "a pattern that every engine reads alike"),
        ('match: "[a-z]+"', 'match: "(?:a"', "expected a regular expression, found"),
        *[
            ('match: "[a-z]+"', f"match: '{pattern}'", f"every engine reads alike, such as [0-9], found {found}")
            for pattern, found in {
                "[a-z&&b]+": "&&", "[a--b]+": "--", "[a~~b]": "~~", "[a[b]]": "[", r"[a\]&&b]": "&&",
                r"\<a": r"\<", r"\u0041": r"\u", "a{1001}": "a repeat over 1000", "a{2,1001}": "a repeat over 1000",
                "(?:a{100}){100}": "a repeat over 1000", "a{2}{3}": "}{", "a++": "++",
            }.items()
        ],
        ("version: 2", "version: 2.0", "orders.yaml at version: found 2.0 is not of type 'integer'"),
        ("days: 3", "days: 3.0", "orders.yaml at lateness.days: found 3.0 is not of type 'integer'"),
        ("days: 3", "days: 99999999999", "99999999999 is greater than the maximum"),
        ("columns:", "health: {weeks: 8.0}\ncolumns:", "at health.weeks: found 8.0 is not of type 'integer'"),
        ("columns:", "health: {weeks: 999999999}\ncolumns:", "999999999 is greater than the maximum"),
        ("columns:", "health: {low: .nan}\ncolumns:", "orders.yaml at health.low: found nan is not of type 'number'"),
        ("columns:", "health: {high: .inf}\ncolumns:", "orders.yaml at health.high: found inf is not of type 'number'"),
        ("columns:", "slo: {records: .nan, then: fail}\ncolumns:", "at slo.records: found nan is not of type 'number'"),
        ("columns:", "statistics: {over_days: 7, rules: [{name: m, kind: psi, column: day, at_most: .nan, then: flag}]}"
         "\ncolumns:", "at statistics.rules.0.at_most: found nan is not of type 'number'"),
        ("between: [0, 10]", "between: [0, .inf]", "found inf is not of type"),
        ("between: [0, 10]", f"between: [0, 1{'0' * 400}]", "is not of type"),
        *[
            ("order_id: {type: int64}", f"order_id: {{type: int64, {rule}}}", "of type int64, found 9999")
            for rule in ("set: [1, 99999999999999999999]", "range: [0, 99999999999999999999]")
        ],
        ("event_time: day", "event_time: colour", "expected nullable: false"),
        ("event_time: day", "event_time: order_id", "expected a date or instant, found int64"),
        ("{type: date,", "{type: date, nullable: true,", "expected nullable: false, since it names or dates a row"),
        ("  day: {", "  order_id: {", "'order_id' stands twice"),
        ("table: orders", "table: others", "a contract in the wrong file"),
        ("rules:", "rules: [", "not YAML in orders.yaml"),
    ],
)  # fmt: skip
def test_a_contract_that_cannot_be_kept_is_refused_with_the_nearest_that_can(tmp_path, old, new, message):
    assert old in ORDERS
    with pytest.raises(DefinitionError) as e:
        load(tmp_path, ORDERS.replace(old, new, 1))
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{name: x, kind: range, columns: [order_id], params: {between: [1, 2]}, then: cap}", "a repaired key"),
        ("{name: x, kind: range, columns: [day], params: {between: ['2020-01-01', null]}, then: cap}", "a cap on"),
        ("{name: x, kind: range, columns: [colour], params: {between: [a, b]}, then: flag}", "a range of a number"),
        ("{name: x, kind: regex, columns: [price], params: {match: a}, then: flag}", "a string column"),
        ("{name: x, kind: at_most, columns: [price, order_id], then: flag}", "two columns of one type"),
        ("{name: x, kind: at_most, columns: [price], then: flag}", "is too short"),
        ("{name: x, kind: unique, columns: [price], params: {of: 1}, then: flag}", "unknown key 'of'"),
        ("{name: x, kind: unique, columns: [price], then: impute}", "unknown then 'impute'"),
        ("{name: x, kind: set, columns: [price], then: flag}", "'params' is a required property"),
        ("{name: x, kind: references, columns: [day], params: {table: shops, columns: [shop_id]}, then: flag}",
         "shops.shop_id as date"),
        ("{name: x, kind: references, columns: [day], params: {table: shops, columns: [shop_id]}, then: fail}",
         "unknown then 'fail'"),
        ("{name: x, kind: sum_of, columns: [order_id, price], then: flag}", "expected amounts of type int64"),
        ("{name: x, kind: sum_of, columns: [order_id], then: flag}", "is too short"),
        ("{name: x, kind: totals, columns: [day, price], params: {table: shops, columns: [opened, n]}, then: flag}",
         "expected amounts of type int64"),
        ("{name: x, kind: totals, columns: [day, order_id], params: {table: shops, columns: [shop_id]}, then: flag}",
         "is too short"),
        ("{name: x, kind: totals, columns: [day, order_id], params: {table: shops, columns: [opened, n]}, then: flag}",
         "shops.opened as date"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_judged_or_repaired_is_refused(tmp_path, rule, message):
    with pytest.raises(DefinitionError) as e:
        load(tmp_path, f"{ORDERS}  - {rule}\n")
    assert message in str(e.value)


RAW = {"order_id": pl.Int64, "day": pl.Date, "price": pl.Float64, "colour": pl.String, "_received_at": INSTANT,
       "_deleted": pl.Boolean}  # fmt: skip


@pytest.mark.parametrize(
    "pattern", [r"[A-Z][A-Z &/-]*", r"[\[a\--]+?", r"[^]a]{2,}", r"(?:[0-9]{2}:){3}", r"\[\*+", r"[a*+{]+", r"a{1000}"]
)
def test_a_pattern_that_every_engine_reads_alike_is_taken(tmp_path, pattern):
    orders = load(tmp_path, ORDERS.replace('match: "[a-z]+"', f"match: '{pattern}'"))["orders"]
    assert next(r for r in orders.rules if r.name == "colour.regex").params == {"match": pattern}


def test_columns_in_any_order_keep_the_schema(tmp_path):
    load(tmp_path)["orders"].check_schema(dict(reversed(RAW.items())), "orders")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": None, "color": pl.String}, "column renamed in here: expected colour, found color. Rename it back,"),
        (
            {"colour": None, "COLOUR": pl.String, "shade": pl.String},
            "column renamed in here: expected colour, found COLOUR.",
        ),
        ({"colour": None, "tint": pl.String}, "column renamed in here: expected colour, found tint."),
        ({"colour": None}, "column missing in here: expected colour, found nothing. Send the column,"),
        ({"colour": None, "x": pl.Int8}, "column missing in here: expected colour, found x, (not in the contract)."),
        ({"note": pl.String}, "column not in the contract in here: expected order_id, day, price, colour, found note."),
        ({"price": pl.Int64}, "column retyped in here: expected price as Float64, found Int64. Convert it"),
        ({"_received_at": pl.Datetime("ns")}, "column retyped in here: expected _received_at as Datetime("),
    ],
)
def test_a_renamed_missing_new_or_retyped_column_is_named(tmp_path, change, message):
    schema = {c: t for c, t in {**RAW, **change}.items() if t is not None}
    with pytest.raises(DataError) as e:
        load(tmp_path)["orders"].check_schema(schema, "here")
    assert message in str(e.value)


def test_an_earlier_version_stays_in_force_for_its_own_landings(tmp_path):
    earlier = ORDERS.replace("version: 2", "version: 1").replace("[0, 10]", "[0, 5]")
    orders = load(tmp_path, orders__v1=earlier)["orders"]
    assert orders.at(2) is orders
    assert orders.at(1).version == 1
    with pytest.raises(DataError, match=r"contract version 3 is gone .*expected orders.v3.yaml"):
        orders.at(3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 2", "version: 2", "a contract in the wrong file"),
        ("key: [order_id]", "key: [order_id, day]", "key, event_time or calendar changed"),
        ("type: float64, nullable: {then: impute, value: 0}", "type: int64", "column 'price' changed its type"),
    ],
)
def test_versions_of_a_contract_must_speak_of_the_same_table(tmp_path, old, new, message):
    earlier = ORDERS.replace(old, new)
    earlier = earlier if old == new else earlier.replace("version: 2", "version: 1")
    with pytest.raises(DefinitionError, match=message):
        load(tmp_path, orders__v1=earlier)


def test_a_folder_without_contracts_is_an_error(tmp_path):
    with pytest.raises(DefinitionError, match="no contracts"):
        load_contracts(tmp_path)


def test_contracts_load_without_great_expectations_or_duckdb():
    heavy = "{'great_expectations', 'duckdb', 'sqlalchemy', 'pandas'} & set(sys.modules)"
    code = f"import sys; from lockstep.contract import load_contracts; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_has_seven_contracts_that_editors_can_check():
    contracts = load_contracts(REPO / "features" / "contracts")
    assert {t: (c.calendar, c.event_time) for t, c in contracts.items()} == {
        "transactions": ("daily", "transaction_timestamp"),
        "coupon_redemptions": ("irregular", "redemption_date"),
        "products": ("irregular", None),
        "demographics": ("irregular", None),
        "campaigns": ("irregular", None),
        "campaign_descriptions": ("irregular", None),
        "coupons": ("irregular", None),
    }
    for path in (REPO / "features" / "contracts").glob("*.yaml"):
        header = path.read_text().splitlines()[0]
        assert (path.parent / header.split("$schema=")[1]).resolve() == REPO / "lockstep" / "contract.schema.json"
