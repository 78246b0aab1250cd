"""Quarantined rows land again: repaired or with a rule waived, once, and every row is counted once."""

import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.clock import INSTANT, Zone
from lockstep.contract import load_contracts
from lockstep.errors import DataError, GuaranteeError, UserError
from lockstep.files import read_json, tree_hash
from lockstep.land import land
from lockstep.landings import check_data, check_sealed, read_landings
from lockstep.quarantine import contract_of, quarantined, release, withdraw
from lockstep.release import read_releases, write_releases
from lockstep.validate import validate
from tests.conftest import git

CONTRACT = """
table: visits
version: 1
owner: tests
event_time: at
key: [id]
calendar: daily
lateness: {days: 2, then: quarantine}
slo: {records: 0.999, then: flag}
columns:
  id: {type: int64}
  at: {type: instant, nullable: {then: quarantine}}
  cents: {type: int64, range: [0, 1000]}
  kind: {type: string, set: [till, web]}
  tip: {type: float64, nullable: true, range: {between: [null, 50], then: cap}}
rules:
  - {name: cents_whole, kind: range, columns: [cents], params: {between: [null, 100000]}, then: fail}
"""
ZONE = Zone("America/New_York")
NAN = float("nan")


def march(n: int) -> date:
    return date(2017, 3, n)


class Row(NamedTuple):
    """A raw row that is good unless it says otherwise; days are those of March 2017."""

    id: int
    lands: int
    cents: int = 5
    kind: str = "till"
    happened: int | None = 0  # 0: on the day it lands; None: nobody knows
    tip: float | None = None


class World:
    """A project with one table whose source sends `rows`."""

    def __init__(self, root: Path, *rows: Row, text: str = CONTRACT) -> None:
        self.root, self.rows, self.text = root, list(rows), text
        (root / "contracts").mkdir(parents=True)

    @property
    def contracts(self):
        (self.root / "contracts/visits.yaml").write_text(self.text, encoding="utf-8")
        return load_contracts(self.root / "contracts")

    def raw(self, _: str) -> pl.DataFrame:
        at = [
            None if r.happened is None else datetime(2017, 3, r.happened or r.lands, 17, tzinfo=UTC) for r in self.rows
        ]
        schema = {"id": pl.Int64, "at": INSTANT, "cents": pl.Int64, "kind": pl.String, "tip": pl.Float64}
        lines = [(r.id, a, r.cents, r.kind, r.tip, march(r.lands)) for r, a in zip(self.rows, at, strict=True)]
        return pl.DataFrame(lines, {**schema, "_landing_day": pl.Date}, orient="row")

    def land(self, until: int):
        """Land as `lockstep land` does, with a row each day so that the source reaches it; validate; return counts."""
        land(self.root, self.contracts, self.raw, march(1), march(until))
        self.pin()
        return self.validate()

    def pin(self):
        text = f"outs:\n- md5: {tree_hash(self.root / 'data')}\n  path: data\n"
        (self.root / "data.dvc").write_text(text, encoding="utf-8")

    def validate(self, *, expectations: bool = False):
        lines, releases = read_landings(self.root / "landings.csv"), read_releases(self.root / "releases.csv")
        report = validate(
            self.root / "data", lines, self.contracts, ZONE, self.root / "artifacts", releases=releases,
            expectations=expectations, keep=self.root / "state/expectations",
        )["tables"]["visits"]  # fmt: skip
        names = ("rows", "clean", "quarantined", "duplicates", "corrections", "late", "released", "bad")
        report = {**report, "bad": report["slo"]["all"]["bad"]}
        return {n: report[n] for n in names if report[n]}

    def release(self, *rules: str, reason: str = "checked with the till", **more):
        more = {k: march(v) if k == "day" else v for k, v in more.items()}
        return release(self.root, self.contracts["visits"], ZONE, rules, reason, **more)

    def clean(self) -> list[tuple]:
        files = sorted((self.root / "artifacts/clean/visits").glob("*.parquet"))
        rows = pl.concat([pl.read_parquet(f) for f in files]).select("_landing_day", "id", "cents", "kind")
        return [(d.day, *rest) for d, *rest in rows.rows()]

    def quarantined(self) -> list[tuple]:
        frame = quarantined(self.root, self.contracts).select("landing_day", "rule", "rows", "released")
        return [(d.day, *rest) for d, *rest in frame.rows()]


@pytest.fixture
def world(tmp_path):
    def made(*rows: Row, text: str = CONTRACT) -> World:
        return World(tmp_path / "project", *rows, text=text)

    return made


def good(*days: int) -> list[Row]:
    return [Row(100 + d, d) for d in days]


def test_a_released_row_lands_on_the_next_unsealed_day_without_the_rule_and_its_old_copy_stays(world):
    w = world(Row(1, 1, cents=5000), Row(2, 1, cents=-1), *good(1, 2, 3))
    assert w.land(1) == {"rows": 3, "clean": 1, "quarantined": 2, "bad": 2}
    (line,) = w.release("cents.range", where={"id": "1"})
    assert line[:4] == ("visits", march(2), march(1), 0)
    assert line[4:] == ('{"id": 1}', "{}", "cents.range", "checked with the till")
    assert w.quarantined() == [(1, "cents.range", 2, 1)]
    assert w.validate() == {"rows": 3, "clean": 1, "quarantined": 2, "bad": 2}  # pending: nothing has landed
    assert w.land(3) == {"rows": 6, "clean": 4, "quarantined": 2, "released": 1, "bad": 1}
    assert w.clean() == [(1, 101, 5, "till"), (2, 1, 5000, "till"), (2, 102, 5, "till"), (3, 103, 5, "till")]
    assert w.validate(expectations=True)["clean"] == 4  # the second opinion counts the broken rule as the masks do


def test_the_way_out_of_a_broken_slo_is_to_release_land_and_validate_again(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2), text=CONTRACT.replace("then: flag}\ncolumns", "then: fail}\ncolumns"))
    with pytest.raises(GuaranteeError, match=r"the record SLO is broken .*See `lockstep quarantine visits`"):
        w.land(1)
    assert not (w.root / "artifacts").exists() or not any((w.root / "artifacts").iterdir())
    assert w.quarantined() == [(1, "cents.range", 1, 0)]
    with pytest.raises(UserError, match="a good row of the same key has landed since"):
        w.release("cents.range", repairs={"id": "101"})
    w.release("cents.range", repairs={"cents": "7"})
    assert w.quarantined() == [(1, "cents.range", 1, 1)]
    assert w.land(2) == {"rows": 4, "clean": 3, "quarantined": 1, "released": 1}
    assert (2, 1, 7, "till") in w.clean()
    assert not (w.root / "state/refused").exists()
    assert w.quarantined() == [(1, "cents.range", 1, 1)], "of what was published"


def test_a_refused_run_of_other_data_is_not_shown(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2), text=CONTRACT.replace("then: flag}\ncolumns", "then: fail}\ncolumns"))
    with pytest.raises(GuaranteeError):
        w.land(1)
    land(w.root, w.contracts, w.raw, march(2), march(2))
    w.pin()
    with pytest.raises(DataError):
        w.quarantined()


def test_a_repaired_row_is_judged_by_every_rule_anew(world):
    w = world(Row(1, 1, cents=-1, kind="?"), *good(1, 2, 3, 4))
    w.land(1)
    (line,) = w.release("cents.range", repairs={"cents": "7"})
    assert (line.repairs, line.waived) == ('{"cents": "7"}', "")
    assert w.land(2) == {"rows": 4, "clean": 2, "quarantined": 2, "released": 1, "bad": 1}
    assert w.quarantined() == [(1, "cents.range", 1, 1), (1, "kind.set", 1, 1), (2, "kind.set", 1, 0)]
    w.release("kind.set", repairs={"kind": "web"})  # of the row that landed with its first repair
    w.land(3)
    assert (3, 1, 7, "web") in w.clean()


def test_a_waiver_holds_for_its_rule_and_its_row_alone(world):
    w = world(Row(1, 1, cents=-1, kind="?"), Row(2, 2, cents=-1), Row(1, 3, cents=-1, kind="?"), *good(1, 2, 3))
    w.land(1)
    w.release("cents.range")
    w.land(3)
    assert w.quarantined() == [
        (1, "cents.range", 1, 1), (1, "kind.set", 1, 1), (2, "cents.range", 1, 0), (2, "kind.set", 1, 0),
        (3, "cents.range", 1, 0), (3, "kind.set", 1, 0),
    ]  # fmt: skip


def test_a_copy_of_a_released_row_that_the_source_sends_the_same_day_has_no_waiver(world):
    w = world(Row(1, 1, cents=-1, happened=1), *good(1, 2))
    w.land(1)
    w.release("cents.range")
    w.rows.append(Row(1, 2, cents=-1, happened=1))
    assert w.land(2) == {"rows": 5, "clean": 3, "quarantined": 2, "released": 1, "bad": 1}
    assert w.validate(expectations=True)["quarantined"] == 2


def test_what_the_source_sends_after_a_release_is_a_copy_or_a_correction_of_it(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2, 3, 4))
    w.land(1)
    w.release("cents.range", repairs={"cents": "7"})
    w.land(2)
    w.rows += [Row(1, 3, cents=7, happened=1), Row(1, 4, cents=8, happened=2)]
    counts = w.land(4)
    assert (counts["duplicates"], counts["corrections"], counts["rows"]) == (1, 1, 8)
    assert [r for r in w.clean() if r[1] == 1] == [(2, 1, 7, "till"), (4, 1, 8, "till")]


def test_a_late_row_is_accepted_by_a_waiver_and_stays_flagged(world):
    w = world(Row(1, 5, happened=1), *good(1, 5, 6))
    assert w.land(5)["quarantined"] == 1
    assert w.release("late")[0].waived == "late"
    assert w.land(6) == {"rows": 5, "clean": 4, "quarantined": 1, "late": 2, "released": 1}


def test_a_row_from_the_future_lands_when_its_day_has_come_and_needs_no_waiver(world):
    w = world(Row(1, 1, happened=4), *good(1, 2, 3, 4))
    w.land(1)
    (line,) = w.release("future")
    assert (line.landing_day, line.waived) == (march(4), "")
    assert "released" not in w.land(3)
    assert w.land(4) == {"rows": 6, "clean": 5, "quarantined": 1, "released": 1}


def test_of_two_rivals_the_one_that_is_chosen_lands_alone(world):
    w = world(Row(1, 1, cents=5), Row(1, 1, cents=6), *good(1, 2))
    w.land(1)
    with pytest.raises(
        UserError, match=r"two contents of one key would land in table visits: found {\"id\": 1}. Choose"
    ):
        w.release("conflict")
    (line,) = w.release("conflict", where={"cents": "6"})
    assert (line.from_row, line.waived) == (1, "")
    with pytest.raises(UserError, match=r"two contents of one key would land"):
        w.release("conflict", where={"cents": "5"})
    assert w.land(2) == {"rows": 5, "clean": 3, "quarantined": 2, "released": 1, "bad": 1}
    assert (2, 1, 6, "till") in w.clean()


def test_a_value_that_no_cap_can_mend_is_waived_as_it_is(world):
    w = world(Row(1, 1, tip=NAN), *good(1, 2))
    assert w.land(1)["quarantined"] == 1
    w.release("tip.range")
    assert w.land(2) == {"rows": 4, "clean": 3, "quarantined": 1, "released": 1}


def test_equal_rows_are_released_one_by_one_and_counted_each(world):
    w = world(Row(1, 1, cents=-1), Row(1, 1, cents=-1), *good(1, 2))
    w.land(1)
    assert [x.from_row for x in w.release("cents.range")] == [0, 1]
    assert w.land(2) == {"rows": 6, "clean": 3, "quarantined": 2, "duplicates": 1, "released": 2}


def test_an_older_row_is_not_released_over_a_good_one_that_landed_since(world):
    w = world(Row(1, 1, cents=-1), Row(1, 2, cents=9), *good(1, 2))
    w.land(2)
    with pytest.raises(
        UserError, match=r"a good row of the same key has landed since in table visits: found id=1, _land"
    ):
        w.release("cents.range")
    assert read_releases(w.root / "releases.csv") == []


@pytest.mark.parametrize(
    ("rules", "more", "said"),
    [
        (
            ["cent.range"],
            {},
            r"unknown rule 'cent.range' in quarantining rules of table visits. Did you mean 'cents.range'\?",
        ),
        (["cents_whole"], {}, r"unknown rule 'cents_whole'"),  # such a row never lands
        (
            ["cents.range"],
            {"day": 2},
            r"nothing is quarantined in table visits, landing day 2017-03-02. See `lockstep q",
        ),
        (["late"], {}, r"no such row is quarantined in table visits: expected late. See"),
        (["cents.range"], {"where": {"id": "7"}}, r"no such row is quarantined.*expected cents.range, id=7"),
        (["cents.range"], {"reason": " "}, r"no reason in --reason: expected one line that says why"),
        (["cents.range"], {"reason": "a\nb"}, r"no reason in --reason"),
        (["cents.range"], {"where": {"ids": "7"}}, r"unknown column 'ids' in --where. Did you mean 'id'\?"),
        (["cents.range"], {"repairs": {"cent": "7"}}, r"unknown column 'cent' in --set. Did you mean 'cents'\?"),
        (
            ["cents.range"],
            {"repairs": {"cents": "7.5"}},
            r"a repair of the wrong type in --set cents: expected a value of",
        ),
        ([], {}, r"no rule in --rule: expected a rule that the rows broke"),
        (
            ["cents.range"],
            {"repairs": {"cents": "9" * 20}},
            r"in --set cents: expected a value of type int64, found '9+'",
        ),
        (["cents.range"], {"where": {"id": "-" + "9" * 20}}, r"in --where id: expected a value of type int64"),
        (["at.not_null"], {"repairs": {"at": "2017-03-01T09:00:00"}}, r"in --set at: .*type instant"),
        (["cents.range"], {"repairs": {"cents": "200000"}}, r"break the rule 'cents_whole' in released rows of visits"),
        (["at.not_null"], {}, r"rule 'at.not_null' cannot be waived.*names or dates the row. Repair it with --set at="),
    ],
)
def test_a_release_that_cannot_be_is_one_sentence_and_writes_nothing(world, rules, more, said):
    w = world(Row(1, 1, cents=-1), Row(2, 1, happened=None), *good(1, 2))
    w.land(2)
    before = (w.root / "releases.csv").read_bytes()
    with pytest.raises((UserError, DataError), match=said):
        w.release(*rules, **more)
    assert (w.root / "releases.csv").read_bytes() == before


def test_nothing_to_release_a_second_release_and_an_unknown_table_are_one_sentence_each(world):
    w = world(*good(1))
    w.land(1)
    with pytest.raises(UserError, match=r"nothing is quarantined in table visits"):
        w.release("cents.range")
    w.rows += [Row(1, 2, cents=-1), *good(3)]
    w.land(2)
    w.release("cents.range")
    for _ in range(2):  # while it is pending, and when it has landed
        with pytest.raises(UserError, match=r"released already in table visits. A row is released once"):
            w.release("cents.range")
        w.land(3)
    with pytest.raises(UserError, match=r"unknown table 'visit' in features/contracts. Did you mean 'visits'\?"):
        contract_of(w.contracts, "visit")


def test_what_is_quarantined_must_be_of_the_present_data(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2))
    w.land(1)
    land(w.root, w.contracts, w.raw, march(1), march(2))
    w.pin()
    with pytest.raises(DataError, match=r"not of the present data in artifacts/quarantine. Run `lockstep run`"):
        w.release("cents.range")


@pytest.fixture
def released(world):
    """A world with one row that was released and has landed, one that is pending, all committed."""
    w = world(Row(1, 1, cents=-1), Row(2, 2, cents=-1, happened=2), *good(1, 2, 3))
    w.land(1)
    w.release("cents.range")
    w.land(2)
    w.release("cents.range", reason="as said, by the till")
    git(w.root, "init", "-q")
    git(w.root, "add", "landings.csv", "releases.csv")
    git(w.root, "commit", "-qm", "released")
    return w


@pytest.mark.parametrize(
    ("old", "new"), [("as said", "as sold"), ("cents.range", "kind.set"), ("2017-03-03", "2017-03-04")]
)
def test_a_release_that_was_edited_by_hand_is_seen(released, old, new):
    path = released.root / "releases.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(
        DataError, match=r"a line was edited by hand in releases.csv line [23].*git checkout releases.csv"
    ):
        check_data(released.root)


def test_a_release_that_was_taken_back_or_sealed_anew_is_seen_against_git(released):
    path = released.root / "releases.csv"
    first, second = read_releases(path)
    check_data(released.root)
    for now in ([first], [second], [first, second._replace(reason="other")], []):
        write_releases(now, path)
        with pytest.raises(DataError, match=r"a sealed line was rewritten in releases.csv line [23]"):
            check_sealed(released.root)
    path.unlink()
    with pytest.raises(DataError, match=r"a sealed line was rewritten in releases.csv line 1"):
        check_sealed(released.root)


def test_a_release_that_is_not_in_the_partition_of_its_day_stops_validate(released):
    first, second = read_releases(released.root / "releases.csv")
    write_releases([first._replace(from_row=1), second], released.root / "releases.csv")
    with pytest.raises(DataError, match=r'a release of another row in .*row 1 of .*expected \{"id": 1\}, found id=101'):
        released.validate()
    write_releases([first, second._replace(landing_day=march(1))], released.root / "releases.csv")
    with pytest.raises(DataError, match=r"a released row is not in the partition"):
        released.validate()


def test_a_release_for_a_day_that_was_sealed_without_rows_stops_validate(world):
    w = world(Row(1, 1, cents=-1), *good(1, 3))
    w.land(1)
    lines = w.release("cents.range")
    (w.root / "releases.csv").unlink()
    w.land(2)
    write_releases(lines, w.root / "releases.csv")
    with pytest.raises(
        DataError, match=r"a released row has not landed in releases.csv: expected data/visits/2017-03-02"
    ):
        w.validate()


def test_sealed_partitions_with_released_rows_are_compared_and_refilled_like_others(released, tmp_path):
    w = released
    w.land(3)
    before = {p.name: p.read_bytes() for p in (w.root / "data").rglob("*.parquet")}
    for gone in (["2017-03-02", "2017-03-03"], ["2017-03-01", "2017-03-02", "2017-03-03"], ["2017-03-01"]):
        for name in gone:  # the first row's own partition too: it is refilled first
            (w.root / f"data/visits/{name}.parquet").unlink()
        w.land(3)
        assert {p.name: p.read_bytes() for p in (w.root / "data").rglob("*.parquet")} == before
    w.rows += [Row(9, 2), *good(4)]
    with pytest.raises(
        DataError, match=r"other rows for a landing day that is past in table visits, 2017-03-02: expected 3"
    ):
        w.land(4)


KILL = """
import os, signal, sys
from pathlib import Path
import lockstep.land as module
from lockstep.landings import write_landings
from tests.code.test_release import Row, World, good, march
root, step = Path(sys.argv[1]), sys.argv[2]
world = World.__new__(World)
world.root, world.text = root, sys.argv[3]
world.rows = [Row(1, 1, cents=-1), Row(2, 2, cents=-1, happened=2), *good(1, 2, 3)]
real = getattr(module, step)
def kill(*given):
    if sys.argv[4] == "after":
        real(*given)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, step, kill)
module.land(root, world.contracts, world.raw, march(1), march(3))
"""


@pytest.mark.parametrize(
    ("step", "when"), [("write_landings", "before"), ("write_landings", "after"), ("_move_into_place", "after")]
)
def test_a_landing_of_released_rows_that_is_killed_is_finished_by_the_next_one(released, step, when, tmp_path):
    words = [sys.executable, "-c", KILL, str(released.root), step, CONTRACT, when]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert released.land(3) == {"rows": 7, "clean": 5, "quarantined": 2, "released": 2}
    assert not (released.root / "state/landing").exists()
    check_data(released.root)


def test_a_released_row_lands_under_a_newer_contract_with_what_it_lacks_repaired(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2, 3))
    w.land(1)
    (w.root / "contracts/visits.v1.yaml").write_text(CONTRACT, encoding="utf-8")
    column = "  note: {type: string}\nrules:"
    w.text = CONTRACT.replace("version: 1", "version: 2").replace("rules:", column)
    plain = w.raw
    w.raw = lambda table: plain(table).with_columns(note=pl.lit("new"))
    with pytest.raises(DataError, match=r"break the rule 'note.not_null' in released rows of visits"):
        w.release("cents.range")
    w.release("cents.range", repairs={"note": "old"})
    assert w.land(3)["clean"] == 4


def test_a_pending_row_that_a_newer_contract_would_fail_is_not_sealed(world):
    w = world(Row(1, 1, cents=-1), *good(1, 2))
    w.land(1)
    w.release("cents.range")
    (w.root / "contracts/visits.v1.yaml").write_text(CONTRACT, encoding="utf-8")
    w.text = CONTRACT.replace("version: 1", "version: 2").replace("rules:", "  note: {type: string}\nrules:")
    plain = w.raw
    w.raw = lambda table: plain(table).with_columns(note=pl.lit("new"))
    with pytest.raises(DataError, match=r"break the rule 'note.not_null' in released rows of visits"):
        w.land(2)
    assert len(read_landings(w.root / "landings.csv")) == 1
    withdraw(w.root, w.contracts["visits"], "version 2 wants a note")
    assert read_releases(w.root / "releases.csv") == []
    assert w.land(2) == {"rows": 3, "clean": 2, "quarantined": 1, "bad": 1}
    w.release("cents.range", repairs={"note": "old"})
    w.rows += good(3)
    assert w.land(3)["clean"] == 4


def test_a_withdrawal_is_a_line_of_its_own_and_takes_back_only_what_has_not_landed(released):
    before = (released.root / "releases.csv").read_text()
    (second,) = withdraw(released.root, released.contracts["visits"], "the till was wrong")
    assert (released.root / "releases.csv").read_text().startswith(before)  # as git has it, and one line more
    check_data(released.root)
    assert second.from_day == march(2)
    assert [x.from_day for x in read_releases(released.root / "releases.csv")] == [march(1)]
    assert released.quarantined() == [(1, "cents.range", 1, 1), (2, "cents.range", 1, 0)]
    for reason, said in (("again", r"nothing to withdraw in table visits: found no release that"), (" ", "no reason")):
        with pytest.raises(UserError, match=said):
            withdraw(released.root, released.contracts["visits"], reason)
    assert released.land(3) == {"rows": 6, "clean": 4, "quarantined": 2, "released": 1, "bad": 1}
    released.release("cents.range")
    released.rows += good(4)
    assert released.land(4)["released"] == 2


def test_a_repair_of_a_column_that_a_newer_contract_drops_stops_nothing(world):
    noted = CONTRACT.replace("rules:", "  note: {type: string, nullable: true}\nrules:")
    w = world(Row(1, 1, cents=-1), Row(2, 2, cents=-1), *good(1, 2, 3, 4), text=noted)
    plain = w.raw
    w.raw = lambda table: plain(table).with_columns(note=pl.lit("a"))
    w.land(1)
    w.release("cents.range", repairs={"note": "b", "cents": "7"})
    w.land(2)
    w.release("cents.range", repairs={"note": "b", "cents": "8"})
    (w.root / "contracts/visits.v1.yaml").write_text(noted, encoding="utf-8")
    w.text, w.raw = CONTRACT.replace("version: 1", "version: 2"), plain
    assert w.land(4) == {"rows": 8, "clean": 6, "quarantined": 2, "released": 2}


WATCHED = CONTRACT.replace("days: 2", "days: null") + "health: {then: fail, ample: 10}\n"


def month(last: int, *, of: int = 20, without: int = 0) -> list[Row]:
    """So many rows on each day of March until `last`, no two days alike."""
    days = [n for n in range(1, last + 1) if n != without]
    return [Row(1000 * n + i, n, cents=(i * i * 7 + n * 13) % 89) for n in days for i in range(of)]


def broken_on(rows: list[Row], *days: int) -> list[Row]:
    return [r._replace(cents=-1) if r.lands in days else r for r in rows]


def test_released_rows_do_not_hide_a_half_empty_day_of_the_source(world):
    w = world(*broken_on(month(28), 25), *[Row(29_000 + i, 29, cents=3 * i) for i in range(5)], text=WATCHED)
    w.land(28)
    w.release("cents.range")
    with pytest.raises(DataError, match=r"is half-empty in table visits, 2017-03-29: found 5 rows, 20 are usual"):
        w.land(29)
    w.text = WATCHED.replace("fail, ample", "flag, ample")
    w.land(29)
    told = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]["health"]
    assert [(f["landing_day"], f["finding"], f["rows"]) for f in told] == [("2017-03-29", "half-empty", 5)]


def test_released_rows_do_not_make_a_day_of_the_source_too_large(world):
    w = world(*broken_on(month(29), 24, 25), text=WATCHED + "volume: {rows: [10, 30], then: fail}\n")
    w.land(28)
    w.release("cents.range")
    assert w.land(29)["released"] == 40
    told = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]
    assert (told["volume"]["unusual"], told["health"]) == ({}, [])


def test_a_whole_day_that_was_released_repeats_nothing_and_a_day_of_the_source_beside_released_rows_may(world):
    early = [r._replace(lands=28, happened=29) if r.lands == 29 else r for r in month(29, without=28)]
    w = world(*early, *month(30)[-20:], text=WATCHED.replace("then: fail, ample", "then: flag, ample"))
    assert w.land(28)["quarantined"] == 20
    w.release("future")
    assert w.land(29)["released"] == 20
    told = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]["health"]
    assert [(f["landing_day"], f["finding"]) for f in told] == [("2017-03-29", "missing")]
    w.rows += [Row(1, 30, cents=-1), *month(31)[-20:]]
    w.land(30)
    w.release("cents.range")
    w.rows = [r for r in w.rows if r.lands != 31] + [
        r._replace(lands=31, happened=r.lands) for r in w.rows if r.lands == 27
    ]
    w.land(31)
    told = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]["health"]
    assert [f["finding"] for f in told if f["landing_day"] == "2017-03-31"] == ["repeats 2017-03-27"]


def test_the_volume_that_an_earlier_version_had_is_told_of_its_days(world):
    w = world(*good(1, 2, 3), text=CONTRACT + "volume: {rows: [2, 9], then: flag}\n")
    w.land(2)
    (w.root / "contracts/visits.v1.yaml").write_text(w.text, encoding="utf-8")
    w.text = CONTRACT.replace("version: 1", "version: 2")
    w.land(3)
    told = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]["volume"]
    assert told == {"rows": [2, 9], "then": "flag", "unusual": {"2017-03-01": 1, "2017-03-02": 1}}


def test_a_broken_rule_says_for_how_many_rows_it_was_waived(world):
    w = world(Row(1, 1, cents=-1), Row(2, 5, happened=1), *good(1, 5, 6))
    w.land(5)
    w.release("cents.range", "late")
    w.land(6)
    rules = read_json(w.root / "artifacts/validation.json")["tables"]["visits"]["rules"]
    told = {name: rules[name] for name in ("cents.range", "late", "kind.set", "future")}
    assert told == {
        "cents.range": {"then": "quarantine", "broken": 2, "waived": 1},
        "late": {"then": "quarantine", "broken": 3, "waived": 1},  # the first row is late by now, and not waived for it
        "kind.set": {"then": "quarantine", "broken": 0, "waived": 0},
        "future": {"then": "quarantine", "broken": 0, "waived": 0},
    }


CENTS, KINDS = (-1, 5, 7, 2000), ("till", "?")
ROWS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(CENTS), st.sampled_from(KINDS)), max_size=4)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["cents.range", "kind.set", "conflict"]),
        st.sampled_from([{}, {"cents": "5"}, {"cents": "7"}, {"kind": "till"}]),
        st.sampled_from([{}, {"id": "1"}, {"id": "2"}, {"cents": "-1"}, {"cents": "7"}]),
    ),
    max_size=3,
)  # fmt: skip


def oracle(landed: list[tuple[int, int, int, str, frozenset[str]]]) -> tuple[Counter, list[tuple], set[tuple]]:
    """Judge (day, id, cents, kind, waived) by the words of docs/semantics.md: counts, kept rows, quarantined rows."""
    counts, kept, refused, last = Counter(rows=len(landed)), [], set(), {}
    for day in sorted({r[0] for r in landed}):
        passing: dict[int, list[tuple[int, str]]] = {}
        for _, key, cents, kind, waived in (r for r in landed if r[0] == day):
            bad = {"cents.range"} if not 0 <= cents <= 1000 else set()
            bad |= {"kind.set"} if kind == "?" else set()
            if bad - waived:
                counts["quarantined"] += 1
                refused.add((day, key, cents, kind))
            else:
                passing.setdefault(key, []).append((cents, kind))
        for key, contents in sorted(passing.items()):
            if len(set(contents)) > 1:
                counts["quarantined"] += len(contents)
                refused |= {(day, key, *c) for c in contents}
                continue
            copies = len(contents) - 1
            if last.get(key) == contents[0]:
                copies += 1
            else:
                kept.append((day, key, *contents[0]))
                counts["clean"] += 1
            counts["duplicates"] += copies
            last[key] = contents[0]
    return counts, kept, refused


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(days=st.lists(st.tuples(ROWS, ACTS), min_size=2, max_size=5))
def test_rows_in_are_rows_out_and_quarantined_and_duplicates_whatever_is_released(tmp_path_factory, days):
    event = date(2017, 3, 1).day  # all happened then: the same content on two days is a copy
    w = World(tmp_path_factory.mktemp("world"), text=CONTRACT.replace("days: 2", "days: null"))
    w.rows = [Row(100, len(days), happened=event)]  # the source reaches the last day
    landed, pending = [], []
    for n, (rows, acts) in enumerate(days, start=1):
        w.rows += [Row(key, n, cents, kind, happened=event) for key, cents, kind in rows]
        landed += [(n, key, cents, kind, frozenset()) for key, cents, kind in rows] + pending
        landed += [(n, 100, 5, "till", frozenset())] * (n == len(days))
        pending = []
        counts = w.land(n)
        expected, kept, refused = oracle(landed)
        assert {k: counts.get(k, 0) for k in ("rows", "clean", "quarantined", "duplicates")} == {
            k: expected[k] for k in ("rows", "clean", "quarantined", "duplicates")
        }
        assert (sorted(w.clean()) if kept else []) == sorted(kept)
        for rule, repairs, where in acts:
            try:
                lines = w.release(rule, repairs=repairs, where=where)
            except UserError:
                continue
            for line in lines:
                part = pl.read_parquet(w.root / f"data/visits/{line.from_day}.parquet").row(line.from_row, named=True)
                old = (line.from_day.day, part["id"], part["cents"], part["kind"])
                assert old in refused
                cents, kind = int(repairs.get("cents", old[2])), repairs.get("kind", old[3])
                pending.append((n + 1, old[1], cents, kind, frozenset(filter(None, line.waived.split(", ")))))
    done = read_releases(w.root / "releases.csv")
    assert len({(x.from_day, x.from_row) for x in done}) == len(done)  # none twice


def test_a_day_has_the_same_bytes_whether_released_rows_land_at_once_or_step_by_step(world, tmp_path):
    w = world(Row(1, 1, cents=-1), Row(2, 1, happened=3), *good(1, 2, 3))
    w.land(1)
    w.release("cents.range", "future")
    other = World(tmp_path / "steps", *w.rows)
    other.land(1)
    other.release("cents.range", "future")
    w.land(3)
    for n in (2, 3):
        other.land(n)
    assert tree_hash(w.root / "data") == tree_hash(other.root / "data")
    assert (w.root / "landings.csv").read_bytes() == (other.root / "landings.csv").read_bytes()


def test_what_is_waived_for_one_release_is_not_for_another(world):
    w = world(Row(1, 1, cents=-1, kind="?"), *good(1, 2, 3, 4))
    w.land(1)
    w.release("cents.range")
    w.land(2)
    w.release("kind.set", day=2)
    assert w.land(3) == {"rows": 6, "clean": 3, "quarantined": 3, "released": 2, "bad": 1}
    assert w.quarantined()[-1] == (3, "cents.range", 1, 0)  # released once, and refused again
