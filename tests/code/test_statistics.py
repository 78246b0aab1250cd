"""Statistics against a stored profile: every planted fault is seen, by Polars and Great Expectations alike."""

import json
import math
import random
import re
import statistics as textbook
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.contract import Statistic, Statistics, load_contracts
from lockstep.data_docs import render
from lockstep.errors import DataError, DefinitionError, GuaranteeError, UserError
from lockstep.files import file_hash, read_json
from lockstep.gx_statistics import observe
from lockstep.landings import Landing
from lockstep.statistics import check_second_opinion, judge_statistics
from lockstep.table_profile import TableProfile, moments, profile_columns, profile_landings, profile_path
from lockstep.validate import validate
from tests.code.test_validate import ZONE

SALES = """
table: sales
version: 1
owner: tests
event_time: null
key: [id]
calendar: daily
lateness: {days: null, then: flag}
columns:
  id: {type: int64}
  cents: {type: int64, nullable: true}
  rate: {type: float64, nullable: true}
  colour: {type: string, nullable: true}
  day: {type: date, nullable: true}
  at: {type: instant, nullable: true}
  yes: {type: bool, nullable: true}
statistics:
  over_days: 7
  rules:
    - {name: cents_mean, kind: mean, column: cents, at_most: 0.1, then: fail}
    - {name: cents_std, kind: std, column: cents, within: [0.9, 1.1], then: fail}
    - {name: cents_distinct, kind: distinct, column: cents, within: [0.5, 2], then: fail}
    - {name: cents_nulls, kind: null_share, column: cents, at_most: 0.02, then: fail}
    - {name: cents_ks, kind: ks, column: cents, at_most: 0.05, then: fail}
    - {name: cents_psi, kind: psi, column: cents, at_most: 0.1, then: fail}
    - {name: colour_psi, kind: psi, column: colour, at_most: 0.1, then: fail}
"""
D = [date(2020, 3, 1) + timedelta(days=n) for n in range(20)]
EVERY = {
    "int64": ("mean", "std", "distinct", "null_share", "ks", "psi"),
    "float64": ("mean", "std", "distinct", "null_share", "ks", "psi"),
    "string": ("distinct", "null_share", "psi"),
    "date": ("distinct", "null_share", "ks", "psi"),
    "instant": ("distinct", "null_share", "ks", "psi"),
    "bool": ("distinct", "null_share", "psi"),
}


@pytest.fixture
def contract(tmp_path):
    return written(tmp_path, SALES)


def written(root, text):
    (root / "contracts").mkdir(exist_ok=True)
    (root / "contracts" / "sales.yaml").write_text(text)
    return load_contracts(root / "contracts")["sales"]


def sales(seed, rows=2000):
    """Honest rows: cents about 1000 with a deviation of 100, three colours, a few nulls."""
    draw = random.Random(seed)
    noon = datetime(2020, 3, 1, 12, tzinfo=UTC)
    columns = {
        "id": range(seed * 10_000, seed * 10_000 + rows),
        "cents": [None if draw.random() < 0.05 else round(draw.gauss(1000, 100)) for _ in range(rows)],
        "rate": [None if draw.random() < 0.05 else draw.expovariate(1) for _ in range(rows)],
        "colour": [draw.choice(["red", "red", "blue", "green", None]) for _ in range(rows)],
        "day": [draw.choice([*D, None]) for _ in range(rows)],
        "at": [draw.choice([noon + timedelta(microseconds=draw.randrange(10**9)), None]) for _ in range(rows)],
        "yes": [draw.choice([True, False, False, None]) for _ in range(rows)],
    }
    schema = {"id": pl.Int64, "cents": pl.Int64, "rate": pl.Float64, "colour": pl.String, "day": pl.Date,
              "at": pl.Datetime("us", "UTC"), "yes": pl.Boolean}  # fmt: skip
    return pl.DataFrame(columns, schema)


def land(root, contract, day, rows):
    """Write and seal a partition; return its line."""
    path = root / "data" / "sales" / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    receipt = pl.lit(None, pl.Datetime("us", "UTC")).alias("_received_at")
    rows.with_columns(receipt, _deleted=pl.lit(False)).select(*contract.schema()).write_parquet(path)
    return Landing("sales", day, rows.height, file_hash(path), "content", contract.version)


def profiled(contract, rows):
    return TableProfile("sales", contract.version, (D[0], D[1]), rows.height, "", profile_columns(rows))


def fired(contract, rows, reference=None):
    found = judge_statistics(contract, rows, profiled(contract, sales(0) if reference is None else reference))
    assert len(found) == len(contract.statistics.rules)
    return {one.rule.name for one in found if not one.held}


def test_honest_rows_hold(contract):
    assert fired(contract, sales(1)) == set()


def one_outlier_and_a_shift(rows):
    """A shift by a fifth of a deviation, and one value that draws the mean back to where it was."""
    first = pl.int_range(pl.len()) == 0
    moved = rows.with_columns(pl.when(first).then(0).otherwise(pl.col("cents") + 20).alias("cents"))
    back = sum(v for v in moved["cents"] if v is not None) - round(sales(0)["cents"].mean() * moved["cents"].count())
    return moved.with_columns(pl.when(first).then(-back).otherwise("cents").cast(pl.Int64).alias("cents"))


PLANTED = {
    "the mean shifts": (pl.col("cents") + 20, {"cents_mean"}),
    "the deviation doubles, the mean is kept": (pl.col("cents") * 2 - 1000, {"cents_std", "cents_ks", "cents_psi"}),
    "another shape of equal mean and deviation": (
        1000 + pl.when(pl.col("id") % 2 == 0).then(100).otherwise(-100) + pl.col("id") % 100 - 50,
        {"cents_ks", "cents_psi"},
    ),
    "few distinct values": ((pl.col("cents") / 50).round().cast(pl.Int64) * 50, {"cents_distinct"}),
    "many nulls": (pl.when(pl.col("id") % 10 > 0).then("cents"), {"cents_nulls"}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_each_statistic_sees_its_planted_fault(contract, fault):
    change, rules = PLANTED[fault]
    seen = fired(contract, sales(1).with_columns(change.cast(pl.Int64).alias("cents")))
    assert rules <= seen, fault
    assert "colour_psi" not in seen


def test_psi_sees_what_mean_and_deviation_do_not(contract):
    change, _ = PLANTED["another shape of equal mean and deviation"]
    seen = fired(contract, sales(1).with_columns(change.cast(pl.Int64).alias("cents")))
    assert "cents_psi" in seen
    assert "cents_mean" not in seen


def test_one_outlier_hides_a_shift_from_the_mean_and_not_from_ks(contract):
    seen = fired(contract, one_outlier_and_a_shift(sales(1)))
    assert "cents_mean" not in seen, "drawn back by one row"
    assert "cents_ks" in seen


def test_one_outlier_moves_neither_ks_nor_psi(contract):
    spoilt = sales(0).with_columns(pl.when(pl.col("id") == 0).then(10**9).otherwise("cents").alias("cents"))
    assert fired(contract, spoilt) == {"cents_mean", "cents_std"}


def test_a_new_category_is_seen(contract):
    new = pl.when(pl.col("id") % 20 == 0).then(pl.lit("mauve")).otherwise("colour").alias("colour")
    assert fired(contract, sales(1).with_columns(new)) == {"colour_psi"}


def test_a_column_of_nulls_is_drift_for_shares_and_an_error_for_what_cannot_be_measured(contract):
    nulls = sales(1).with_columns(pl.lit(None, pl.Int64).alias("cents"))
    shares = ("cents_distinct", "cents_nulls", "cents_psi")
    assert fired(only(contract, *shares), nulls) == set(shares)
    for name in ("cents_mean", "cents_std"):
        with pytest.raises(DataError, match=rf"nothing to measure in the recent rows in .*statistic {name}"):
            fired(only(contract, name), nulls)
        with pytest.raises(DataError, match=rf"nothing to measure in the profile in .*statistic {name}"):
            fired(only(contract, name), sales(1), nulls)
    with pytest.raises(DataError, match="nothing but nulls in column 'cents'"):
        fired(only(contract, "cents_ks"), nulls)
    with pytest.raises(DataError, match="nothing to measure in the profile"):
        fired(only(contract, "cents_psi"), sales(1), nulls)


def only(contract, *names):
    rules = tuple(r for r in contract.statistics.rules if r.name in names)
    return replace(contract, statistics=replace(contract.statistics, rules=rules))


def test_bounds_are_within(contract):
    reference = profiled(contract, pl.DataFrame({"cents": [*range(10)]}))
    rows = pl.DataFrame({"cents": [0, 1, 2, 3, 4]})
    assert judge_statistics(only(contract, "cents_distinct"), rows, reference)[0].held, "exactly the half"
    assert not judge_statistics(only(contract, "cents_distinct"), rows.head(4), reference)[0].held


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=30), st.randoms())
def test_moments_of_integers_are_exact_in_any_order(values, order):
    mean, std = moments(pl.Series(values, dtype=pl.Int64))
    n, total = len(values), sum(values)
    assert mean == pytest.approx(total / n, rel=1e-12)
    variance = (n * sum(v * v for v in values) - total**2) / (n * (n - 1))
    assert std == pytest.approx(math.sqrt(variance), rel=1e-12)
    order.shuffle(values)
    assert moments(pl.Series(values, dtype=pl.Int64)) == (mean, std)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30), st.randoms())
def test_moments_of_floats_do_not_follow_the_order(values, order):
    mean, std = moments(pl.Series(values, dtype=pl.Float64))
    assert mean == pytest.approx(textbook.fmean(values), rel=1e-9, abs=1e-9)
    assert std == pytest.approx(textbook.stdev(values), rel=1e-6, abs=1e-6)
    order.shuffle(values)
    assert moments(pl.Series(values, dtype=pl.Float64)) == (mean, std)


@pytest.mark.parametrize("seed", [1, 2])
def test_great_expectations_observes_the_same_of_every_statistic_of_every_type(contract, tmp_path, seed):
    rules = [
        Statistic(f"{c.name}.{kind}", kind, c.name, (0.0, 0.1), "fail")
        for c in contract.columns.values()
        for kind in EVERY[c.type]
    ]
    every = replace(contract, statistics=Statistics(7, tuple(rules)))
    new = pl.when(pl.col("id") % 20 == 0).then(pl.lit("mau've")).otherwise("colour").alias("colour")
    rows = sales(seed).with_columns(new, pl.col("cents") * 2, pl.col("rate") - 1)
    lines = [land(tmp_path, contract, D[0], rows.head(700)), land(tmp_path, contract, D[1], rows.tail(1300))]
    files = [tmp_path / "data" / line.path for line in lines]
    reference = profiled(every, sales(0))
    found = judge_statistics(every, rows, reference)
    theirs = observe("sales", rules, files, reference)
    assert len(theirs) == len(found) == len(rules) == 32
    for one in found:
        value, content = theirs[one.rule.name]
        assert one.observed == pytest.approx(value, rel=1e-9, abs=1e-12), one.rule.name
        assert one.held == content, one.rule.name
    assert {one.held for one in found} == {True, False}
    check_second_opinion("sales", found, files, reference)
    with pytest.raises(GuaranteeError, match=r"disagree in statistic 'id.mean' of sales"):
        check_second_opinion("sales", [found[0]._replace(observed=found[0].observed * (1 + 2e-9))], files, reference)


@pytest.mark.parametrize("kind", ["mean", "std"])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("cents", [10**17 + n * 7 % 100 for n in range(5000)]),
        ("cents", [1_500_000_000_000_000 + n * 7 % 100 for n in range(5000)]),
        ("rate", [1e9 + n * 7 % 100 / 100 for n in range(5000)]),
        ("rate", [sign * n * 1e6 / 7 for n in range(5000) for sign in (1, -1)]),
        ("rate", [1e9 + 0.1] * 5000),
    ],
)
def test_great_expectations_may_round_large_values(contract, tmp_path, kind, column, values):
    rows = sales(0, len(values)).with_columns(pl.Series(column, values))
    limits = (0.0, 1e18)
    every = replace(contract, statistics=Statistics(7, (Statistic("it", kind, column, limits, "fail"),)))
    files = [tmp_path / "data" / land(tmp_path, contract, D[0], rows).path]
    reference = profiled(contract, sales(0))
    check_second_opinion("sales", judge_statistics(every, rows, reference), files, reference)


def test_great_expectations_must_find_the_same_held(contract, tmp_path):
    files = [tmp_path / "data" / land(tmp_path, contract, D[0], sales(1)).path]
    reference = profiled(contract, sales(0))
    (found,) = judge_statistics(only(contract, "cents_psi"), sales(1), reference)
    check_second_opinion("sales", [found], files, reference)
    with pytest.raises(GuaranteeError, match=r"disagree .* by Polars, not held, found .* held"):
        check_second_opinion("sales", [found._replace(score=0.2)], files, reference)


def test_data_docs_show_every_statistic_with_what_was_observed_and_its_bound(contract, tmp_path):
    files = [tmp_path / "data" / land(tmp_path, contract, D[0], sales(1)).path]
    kept = tmp_path / "kept/sales.statistics-v1.json"
    reference = profiled(contract, sales(0))
    found = observe("sales", contract.statistics.rules, files, reference, kept)
    pages = render([read_json(kept)])
    assert set(pages) == {"index.html", "sales.statistics-v1.html"}
    shown = re.sub(r"(<[^>]*>|\s)+", " ", pages["sales.statistics-v1.html"])
    for name, kind in (("cents_ks", "ks"), ("cents_psi", "psi")):
        bound = "0.05" if kind == "ks" else "0.1"
        assert f"{name} Expect the {kind} of cents against its profile to be at most {bound} else fail" in shown
        assert f"{found[name][0]:.6f}"[:7] in shown
    assert re.search(r"cents_mean Expect the mean of cents to be between 98[0-9.]+ and 10[0-9.]+ else fail", shown)
    spoilt = {**read_json(kept), "success": False}
    spoilt["results"][-1] |= {"success": False, "result": {"observed_value": 0.123456}}
    assert 'colour_psi <span class="badge">0.1235 fail</span>' in render([spoilt])["index.html"]


WILD = sales(9, 1).with_columns(cents=pl.lit(-10_000_000, pl.Int64))


class TestTheStage:
    """Profile, landings, contract and verdict, as a user meets them."""

    @pytest.fixture
    def root(self, tmp_path, contract):
        self.lines = [land(tmp_path, contract, day, sales(n, 500)) for n, day in enumerate(D[:6])]
        found = profile_landings(contract, tmp_path / "data", self.lines, D[0], D[3])
        found.write(profile_path(tmp_path / "contracts", "sales"))
        return tmp_path

    def judge(self, root, expectations=True):
        contracts = load_contracts(root / "contracts")
        folder = root / "contracts"
        return validate(
            root / "data", self.lines, contracts, ZONE, root / "out", profiles=folder, expectations=expectations
        )

    def test_honest_days_pass_and_the_report_tells_all(self, root):
        table = self.judge(root)["tables"]["sales"]
        assert table["statistics"].keys() == {
            r.name for r in load_contracts(root / "contracts")["sales"].statistics.rules
        }
        assert all(s["held"] for s in table["statistics"].values())
        assert table["great_expectations"] == {"expectations": 11 + 7, "agree": 11 + 7}
        assert table["statistics"]["cents_distinct"]["within"] == [0.5, 2.0]

    def test_a_shift_breaks_the_guarantee_and_a_flag_only_tells(self, root, contract):
        self.lines += [land(root, contract, d, sales(9, 2000).with_columns(pl.col("cents") + 40)) for d in D[6:8]]
        with pytest.raises(
            GuaranteeError, match=r"moved from the profile in table sales, .*7 .*: found cents_mean: mean"
        ):
            self.judge(root)
        assert GuaranteeError.exit_code == 1
        assert not (root / "out" / "clean").exists()
        written(root, SALES.replace("then: fail", "then: flag"))
        assert not self.judge(root)["tables"]["sales"]["statistics"]["cents_mean"]["held"]

    def test_only_the_last_landing_days_are_judged(self, root, contract):
        self.lines += [land(root, contract, d, sales(9, 2000).with_columns(pl.col("cents") + 40)) for d in D[6:8]]
        self.lines += [land(root, contract, d, sales(n, 500)) for n, d in enumerate(D[8:15], 10)]
        assert self.judge(root)["tables"]["sales"]["statistics"]["cents_mean"]["held"]

    def test_landing_without_rows_for_longer_than_is_looked_back_is_an_empty_window(self, root):
        self.lines.append(Landing("sales", D[19], 0, "-", "-", 1))
        with pytest.raises(DataError, match=r"no rows to take statistics of in contract sales, statistic cents_mean"):
            self.judge(root, expectations=False)

    def test_a_profile_holds_no_clock_and_is_the_same_again(self, root, contract):
        path = profile_path(root / "contracts", "sales")
        before = path.read_bytes()
        profile_landings(contract, root / "data", self.lines, D[0], D[3]).write(path)
        assert path.read_bytes() == before
        assert json.loads(before)["days"] == ["2020-03-01", "2020-03-04"]
        assert json.loads(before)["rows"] == 2000

    def test_without_a_profile_the_command_is_said(self, root):
        profile_path(root / "contracts", "sales").unlink()
        with pytest.raises(DataError, match=r"without a profile .* Run `lockstep contract profile sales --from DAY"):
            self.judge(root)

    def test_a_profile_of_another_version_or_of_nothing_is_refused(self, root):
        path = profile_path(root / "contracts", "sales")
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "contract_version": 2}))
        with pytest.raises(
            DataError, match=r"expected sales version 1, found sales version 2\. Run `lockstep contract"
        ):
            self.judge(root)
        path.write_text("{}")
        with pytest.raises(DataError, match=r"not a profile in .*sales.json"):
            self.judge(root)

    def test_a_profile_without_the_column_is_refused(self, root):
        path = profile_path(root / "contracts", "sales")
        stored = json.loads(path.read_text())
        stored["columns"]["cent"] = stored["columns"].pop("cents")
        path.write_text(json.dumps(stored))
        with pytest.raises(DataError, match=r"the profile has no column 'cents' in .*Did you mean 'cent'\? Run"):
            self.judge(root)

    def test_a_contract_newer_than_the_data_is_said(self, root):
        (root / "contracts" / "sales.v1.yaml").write_text(SALES)
        text = SALES.replace("version: 1", "version: 2").replace("statistics:", "  new: {type: int64}\nstatistics:")
        text += "    - {name: new_mean, kind: mean, column: new, at_most: 1, then: fail}\n"
        contract = written(root, text)
        profile_landings(contract, root / "data", self.lines, D[0], D[3]).write(
            profile_path(root / "contracts", "sales")
        )
        with pytest.raises(DataError, match=r"the contract is newer than the data .*column 'new' in recent landings"):
            self.judge(root)
        (root / "contracts" / "sales.v1.yaml").unlink()
        with pytest.raises(DataError, match="contract version 1 is gone"):
            self.judge(root)

    def test_a_row_that_is_kept_out_or_sent_twice_has_no_statistics(self, root, contract):
        ranged = SALES.replace("cents: {type: int64,", "cents: {type: int64, range: [0, 100000],")
        written(root, ranged.replace("calendar:", "slo: {records: 0.5, then: flag}\ncalendar:"))
        before = self.judge(root)["tables"]["sales"]["statistics"]
        self.lines.append(land(root, contract, D[6], pl.concat([WILD, sales(5, 500).head(100)])))
        table = self.judge(root)["tables"]["sales"]
        assert (table["quarantined"], table["duplicates"]) == (1, 100)
        assert table["statistics"] == before

    def test_a_profile_is_of_rows_that_are_kept_once(self, root, contract):
        ranged = written(root, SALES.replace("cents: {type: int64,", "cents: {type: int64, range: [0, 100000],"))
        good = profile_landings(ranged, root / "data", self.lines, D[0], D[3])
        more = land(root, contract, D[6], pl.concat([WILD, sales(3, 500).head(100)]))
        spoilt = profile_landings(ranged, root / "data", [*self.lines[:4], more], D[0], D[6])
        assert spoilt.rows == good.rows
        assert spoilt.columns == good.columns

    def test_a_column_that_a_new_version_adds_is_judged_where_it_is(self, root):
        (root / "contracts" / "sales.v1.yaml").write_text(SALES)
        text = SALES.replace("version: 1", "version: 2").replace(
            "statistics:", "  size: {type: int64, nullable: true}\nstatistics:"
        )
        text += "    - {name: size_psi, kind: psi, column: size, at_most: 0.1, then: fail}\n"
        contract = written(root, text)
        for n, day in enumerate(D[6:9], 20):
            self.lines.append(land(root, contract, day, sales(n, 500).with_columns(size=pl.col("cents"))))
        profile_landings(contract, root / "data", self.lines, D[0], D[8]).write(
            profile_path(root / "contracts", "sales")
        )
        table = self.judge(root)["tables"]["sales"]
        assert table["statistics"]["size_psi"]["score"] == 0, "the profile is of the same rows"
        assert list(table["statistics"])[-2:] == ["colour_psi", "size_psi"]

    @pytest.mark.parametrize(
        ("kind", "rows", "why"),
        [
            ("mean", sales(9, 500).with_columns(cents=pl.lit(None, pl.Int64)), "nothing to measure"),
            ("ks", sales(9, 500).with_columns(cents=pl.lit(None, pl.Int64)), "nothing but nulls"),
            ("psi", sales(9, 5), "fewer rows than bins"),
            ("mean", None, "no rows to take statistics of"),
        ],
    )
    def test_a_flag_that_cannot_be_measured_is_told_and_stops_nothing(self, root, contract, kind, rows, why):
        head = SALES.partition("  rules:")[0]
        rule = f"  rules:\n    - {{name: it, kind: {kind}, column: cents, at_most: 0.1, then: flag}}\n"
        written(root, head + rule)
        line = Landing("sales", D[19], 0, "-", "-", 1) if rows is None else land(root, contract, D[19], rows)
        self.lines.append(line)
        found = self.judge(root)["tables"]["sales"]["statistics"]["it"]
        assert why in found["unmeasured"]
        assert (found["score"], found["held"]) == (None, False)
        written(root, head + rule.replace("flag", "fail"))
        with pytest.raises(DataError, match=why):
            self.judge(root)

    @pytest.mark.parametrize(
        ("part", "value"),
        [("weights", [1.0]), ("edges", "abc"), ("edges", [2.0, 1.0]), ("null", None), ("weights", ["a"] * 10)],
    )
    def test_a_damaged_profile_is_refused(self, root, part, value):
        path = profile_path(root / "contracts", "sales")
        stored = json.loads(path.read_text())
        stored["columns"]["cents"]["spread"][part] = value
        path.write_text(json.dumps(stored))
        with pytest.raises(DataError, match=r"not a profile in .*sales.json"):
            self.judge(root)

    def test_a_column_without_statistics_is_not_profiled_and_may_hold_nan(self, root, contract):
        line = land(root, contract, D[6], sales(9).with_columns(rate=pl.lit(math.nan)))
        found = profile_landings(contract, root / "data", [line], D[6], D[6])
        assert set(found.columns) == {"cents", "colour"}

    @pytest.mark.parametrize(("first", "last"), [(D[10], D[12]), (D[3], D[0])])
    def test_days_without_rows_have_no_profile(self, root, contract, first, last):
        with pytest.raises(DataError, match="no rows to profile in landings of sales from"):
            profile_landings(contract, root / "data", self.lines, first, last)

    def test_fewer_rows_than_bins_are_refused(self, root, contract):
        few = land(root, contract, D[0], sales(0, 9))
        with pytest.raises(DataError, match=r"fewer rows than bins in .*: expected at least 10, found 9"):
            profile_landings(contract, root / "data", [few], D[0], D[0])
        reference = profiled(contract, sales(0))
        with pytest.raises(
            DataError, match=r"fewer rows than bins in .*statistic cents_ks: expected at least 10, found 9"
        ):
            judge_statistics(only(contract, "cents_ks"), sales(0, 9), reference)

    def test_too_many_categories_have_no_bins(self, contract):
        names = sales(0).with_columns(pl.col("id").cast(pl.String).alias("colour"))
        assert profile_columns(names)["colour"].spread is None
        with pytest.raises(DataError, match=r"too many categories for bins in .*found 2,000"):
            fired(only(contract, "colour_psi"), names, names)

    def test_infinity_is_an_error(self, contract):
        rows = sales(1).with_columns(rate=pl.lit(math.inf))
        rule = Statistic("rates", "mean", "rate", (0.0, 1.0), "fail")
        with pytest.raises(DataError, match=r"NaN or infinity in .*statistic rates"):
            judge_statistics(replace(contract, statistics=Statistics(7, (rule,))), rows, profiled(contract, sales(0)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("column: cents, at_most: 0.02", "column: cent, at_most: 0.02", "unknown column 'cent'"),
        ("kind: mean", "kind: meen", "at statistics.rules.0.kind. Did you mean 'mean'?"),
        ("at_most: 0.1, then: fail", "at_most: 0.1, then: quarantine", "unknown then 'quarantine'"),
        ("kind: psi, column: colour", "kind: mean, column: colour", "a column of type int64 or float64 for mean"),
        ("kind: psi, column: colour", "kind: ks, column: colour", "int64 or float64 or date or instant for ks"),
        ("within: [0.9, 1.1]", "at_most: 1", "'within' is a required property"),
        ("within: [0.9, 1.1]", "within: [1.1, 0.9]", "expected the lower bound first"),
        ("at_most: 0.1, then", "at_most: -1, then", "-1 is less than the minimum of 0"),
        ("over_days: 7", "over_days: 0", "0 is less than the minimum of 1"),
        ("name: cents_std", "name: cents_mean", "rule name 'cents_mean' is taken"),
        ("name: cents_std", "name: id.type", "rule name 'id.type' is taken"),
        ("calendar: daily", "calendar: irregular\nvolume: {rows: [1, 2], then: flag}", "expected a daily table"),
        ("calendar: daily", "calendar: daily\nvolume: {rows: [3, 2], then: flag}", "the lower bound first"),
        ("calendar: daily", "calendar: daily\nslo: {records: 2, then: fail}", "2 is greater than the maximum of 1"),
        ("calendar: daily", "calendar: daily\nslo: {records: 1, then: cap}", "unknown then 'cap'"),
    ],
)  # fmt: skip
def test_statistics_that_cannot_be_judged_are_refused(tmp_path, old, new, message):
    assert old in SALES
    with pytest.raises(DefinitionError) as e:
        written(tmp_path, SALES.replace(old, new, 1))
    assert message in str(e.value)


def test_the_command_writes_the_profile_beside_the_contract(tmp_path, contract, monkeypatch):
    lines = [land(tmp_path, contract, day, sales(n, 50)) for n, day in enumerate(D[:3])]
    from lockstep.landings import write_landings

    write_landings(lines, tmp_path / "landings.csv")
    (tmp_path / "pyproject.toml").write_text('[tool.lockstep]\ncontracts = "contracts"\n')
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["contract", "profile", "--from", "2020-03-01", "--to", "2020-03-02"])
    assert done.output == "profile   100 rows of 2020-03-01 to 2020-03-02, 2 columns, contracts/profiles/sales.json\n"
    assert TableProfile.read(contract, tmp_path / "contracts").rows == 100
    for words, message in [
        (["sale", "--from", "2020-03-01", "--to", "2020-03-02"], "no contract for table 'sale'. Did you mean 'sales'?"),
        (["--from", "1 March", "--to", "2020-03-02"], "bad day in --from or --to"),
    ]:
        failed = CliRunner().invoke(app, ["contract", "profile", *words])
        assert isinstance(failed.exception, UserError)
        assert message in str(failed.exception)
