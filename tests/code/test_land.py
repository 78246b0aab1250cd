import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from lockstep.clock import INSTANT
from lockstep.contract import Volume, load_contracts
from lockstep.errors import DataError, EnvironmentFault, UserError
from lockstep.files import tree_hash
from lockstep.land import land
from lockstep.landings import check_data, content_hash, read_landings, sources
from lockstep.polars_delta import read_delta
from tests.code.definitions import contract
from tests.conftest import git

CENTS = {"type": "int64", "range": {"between": [0, None], "then": "fail"}}
COLUMNS = {"id": "int64", "at": "instant", "cents": CENTS}
FIRST, LAST = date(2017, 3, 1), date(2017, 3, 4)


def rows(*triples: tuple[int, int, int]) -> pl.DataFrame:
    """Rows of (id, cents, landing day of March 2017)."""
    return pl.DataFrame(
        [(i, datetime(2017, 3, d, 17, tzinfo=UTC), c, date(2017, 3, d)) for i, c, d in triples],
        schema={"id": pl.Int64, "at": INSTANT, "cents": pl.Int64, "_landing_day": pl.Date},
        orient="row",
    )


RAW = rows((1, 10, 1), (2, 20, 1), (3, 30, 2), (4, 40, 4))


@pytest.fixture
def contracts(tmp_path):
    (tmp_path / "contracts").mkdir()
    contract(tmp_path / "contracts", COLUMNS)
    return load_contracts(tmp_path / "contracts")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def pin(root, digest=None):
    (root / "data.dvc").write_text(
        f"outs:\n- md5: {digest or tree_hash(root / 'data')}\n  path: data\n", encoding="utf-8"
    )


def landed(root, contracts, raw=RAW, until=LAST):
    return land(root, contracts, lambda _: raw, FIRST, until)


def everything(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_each_landing_day_is_one_sealed_file_and_a_daily_table_seals_a_day_without_rows(root, contracts):
    new = landed(root, contracts)
    assert [(x.landing_day.day, x.rows, x.byte_hash == "-") for x in new] == [
        (1, 2, False),
        (2, 1, False),
        (3, 0, True),
        (4, 1, False),
    ]
    assert sorted(p.name for p in (root / "data/visits").iterdir()) == [f"2017-03-0{n}.parquet" for n in (1, 2, 4)]
    assert read_landings(root / "landings.csv") == new
    assert pl.read_parquet(root / "data/visits/2017-03-01.parquet").columns == [
        "id",
        "at",
        "cents",
        "_received_at",
        "_deleted",
    ]


def test_landing_again_changes_nothing_and_landing_further_appends(root, contracts):
    landed(root, contracts, until=date(2017, 3, 2))
    first = (root / "landings.csv").read_text()
    assert landed(root, contracts, until=date(2017, 3, 2)) == []
    landed(root, contracts)
    assert (root / "landings.csv").read_text().startswith(first)
    before = everything(root)
    assert landed(root, contracts) == []
    assert everything(root) == before


def test_an_empty_data_folder_is_refilled_with_the_sealed_bytes(root, contracts):
    landed(root, contracts)
    before = everything(root)
    for p in sorted((root / "data").rglob("*.parquet")):
        p.unlink()
    assert landed(root, contracts) == []
    assert everything(root) == before


def test_a_refill_that_differs_from_its_seal_is_refused_by_name(root, contracts):
    landed(root, contracts)
    (root / "data/visits/2017-03-02.parquet").unlink()
    with pytest.raises(
        DataError, match=r"no longer gives the sealed rows in data/visits/2017-03-02.parquet: expected 1 rows"
    ):
        landed(root, contracts, raw=rows((1, 10, 1), (2, 20, 1), (3, 31, 2), (4, 40, 4)))
    assert not (root / "data/visits/2017-03-02.parquet").exists()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (RAW.rename({"cents": "cent"}), r"raw rows of visits.*cents.*cent"),
        (RAW.drop("cents"), r"raw rows of visits.*cents"),
        (RAW.with_columns(pl.col("id").cast(pl.String)), r"raw rows of visits.*id"),
        (RAW.clear(), r"no rows at all in raw rows of visits"),
        (rows((1, -5, 1)), r"1 of 1 rows break the rule 'cents.range'"),
        (RAW.with_columns(pl.lit(None, pl.Date).alias("_landing_day")), "rows without a landing day"),
        (RAW.drop("_landing_day"), r"landing days that are no days in column _landing_day of visits: expected Date"),
        (
            RAW.with_columns(pl.col("at").alias("_landing_day")),
            r"landing days that are no days in column _landing_day of visits: expected Date, found Datetime",
        ),
    ],
)
def test_raw_rows_that_break_the_schema_or_a_fail_rule_seal_nothing(root, contracts, raw, said):
    with pytest.raises(DataError, match=said):
        landed(root, contracts, raw=raw)
    assert everything(root) == {}


def test_an_empty_irregular_table_seals_no_day_and_is_refused_in_other_words(root, contracts):
    irregular = {"visits": replace(contracts["visits"], calendar="irregular")}
    with pytest.raises(DataError, match=r"no rows at all .*where it has no rows yet, leave its contract out"):
        landed(root, irregular, raw=RAW.clear())
    with pytest.raises(DataError, match=r"no rows at all .*would seal every day as empty"):
        landed(root, contracts, raw=RAW.clear())


def test_a_day_with_an_unusual_number_of_rows_is_not_sealed(root, tmp_path):
    (tmp_path / "contracts").mkdir()
    contract(tmp_path / "contracts", COLUMNS, volume={"rows": [1, 2], "then": "fail"})
    watched = load_contracts(tmp_path / "contracts")
    assert len(landed(root, watched, until=date(2017, 3, 2))) == 2
    before = everything(root / "data")
    with pytest.raises(
        DataError, match=r"an unusual number of rows in table visits, landing day 2017-03-03: .*found 0"
    ):
        landed(root, watched)
    assert everything(root / "data") == before
    assert [line.landing_day.day for line in read_landings(root / "landings.csv")] == [1, 2]
    closed = {"visits": replace(watched["visits"], volume=Volume((0, 2), "fail"))}
    assert len(landed(root, closed)) == 2
    (root / "data/visits/2017-03-01.parquet").unlink()
    nothing = {"visits": replace(watched["visits"], volume=Volume((9, 9), "fail"))}
    assert landed(root, nothing) == [], "what is sealed is refilled, whatever would be sealed today"


def test_a_raw_column_that_the_landing_module_cannot_find_is_named(root, contracts):
    def raw(_: str) -> pl.DataFrame:
        return RAW.select("id", "at", "price")

    with pytest.raises(DataError, match=r"a raw column is missing in table visits: expected price"):
        land(root, contracts, raw, FIRST, LAST)


def test_landing_in_steps_seals_what_landing_at_once_seals(root, contracts, tmp_path):
    landed(root, contracts)
    (tmp_path / "steps").mkdir()
    for day in (1, 2, 3, 4):
        landed(tmp_path / "steps", contracts, until=date(2017, 3, day))
    assert everything(tmp_path / "steps") == everything(root)


@pytest.mark.parametrize("late", [2, 3])
def test_a_row_for_a_landing_day_that_is_past_is_refused_and_not_lost(root, contracts, late):
    landed(root, contracts, until=date(2017, 3, 3))
    before = everything(root)
    with pytest.raises(DataError, match=rf"for a landing day that is past in table visits, 2017-03-0{late}"):
        landed(root, contracts, raw=pl.concat([RAW, rows((9, 1, late))]))
    assert everything(root) == before


def test_other_values_for_a_landing_day_that_is_past_are_refused_and_not_lost(root, contracts):
    landed(root, contracts, until=date(2017, 3, 3))
    before = everything(root)
    changed = RAW.with_columns(cents=pl.when(id=2).then(999).otherwise("cents"))
    said = r"is past in table visits, 2017-03-01: expected 2 sealed rows, found 2 rows with other values. What turns up"
    with pytest.raises(DataError, match=said):
        landed(root, contracts, raw=changed)
    assert everything(root) == before
    assert len(landed(root, contracts, raw=RAW.reverse())) == 1  # the order of rows is no content


def test_a_day_sealed_by_an_older_contract_is_compared_in_its_columns(root, contracts):
    landed(root, contracts, until=date(2017, 3, 3))
    folder = root.parent / "contracts"
    (folder / "visits.yaml").rename(folder / "visits.v1.yaml")
    contract(folder, {**COLUMNS, "tip": {"type": "int64", "nullable": True}}, version=2)
    now = load_contracts(folder)
    wider = RAW.with_columns(tip=pl.lit(5, pl.Int64))
    with pytest.raises(DataError, match=r"2017-03-02: expected 1 sealed rows, found 1 rows with other values"):
        landed(root, now, raw=wider.with_columns(cents=pl.when(id=3).then(1).otherwise("cents")))
    assert [x.contract_version for x in landed(root, now, raw=wider)] == [2]


def test_days_that_the_source_has_not_reached_are_not_sealed_as_empty(root, contracts):
    with pytest.raises(UserError, match=r"the source ends before the last day to seal.*until <= 2017-03-04"):
        landed(root, contracts, until=date(2017, 12, 31))
    assert everything(root) == {}


def test_seals_of_other_data_are_told_in_one_sentence_and_nothing_is_sealed_or_refilled(root, contracts):
    landed(root, contracts)
    shutil.rmtree(root / "data")
    git(root, "init", "-q")
    git(root, "add", "landings.csv")
    git(root, "commit", "-qm", "sealed")
    before, own = everything(root), {"rides": replace(contracts["visits"], table="rides")}
    for _ in range(2):  # a second try is told the same
        with pytest.raises(DataError, match=r"no contract in .* expected visits, found rides.* `git rm -qf .*`, then"):
            landed(root, own)
        assert everything(root) == before
    (root / "landings.csv").unlink()  # not committed: git still holds the seals
    with pytest.raises(DataError, match=r"a sealed line was rewritten in .* begin anew: `git rm "):
        landed(root, own)
    git(root, "rm", "-qf", "--ignore-unmatch", "landings.csv", "data.dvc", "dvc.lock")
    git(root, "commit", "-qm", "Begin anew")
    assert {line.table for line in landed(root, own)} == {"rides"}


def test_landing_stops_at_a_sealed_file_that_was_changed(root, contracts):
    landed(root, contracts, until=date(2017, 3, 2))
    path = root / "data/visits/2017-03-01.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(DataError, match=r"a sealed file was changed in data/visits/2017-03-01"):
        landed(root, contracts)


def test_an_interrupted_landing_is_finished_by_the_next_one(root, contracts, monkeypatch):
    monkeypatch.setattr("lockstep.land._move_into_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        landed(root, contracts)
    monkeypatch.undo()
    landed(root, contracts)
    pin(root)
    check_data(root)
    assert not (root / "state/landing").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(root, contracts, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        EnvironmentFault, match=r"cannot write: no space left on device in .*2017-03-01.parquet. Free some"
    ):
        landed(root, contracts)
    assert not (root / "landings.csv").exists()
    assert not list(root.rglob("*.part"))


def told(source, raw=RAW):
    return raw.with_columns(pl.lit(source).alias("_source"))


def test_where_rows_came_from_is_noted_beside_the_seal_and_changes_none_of_its_bytes(root, contracts, tmp_path):
    landed(root, contracts)
    (tmp_path / "told").mkdir()
    landed(tmp_path / "told", contracts, told("delta 0"), until=date(2017, 3, 2))
    landed(tmp_path / "told", contracts, told("delta 3, of a friend"))
    assert tree_hash(tmp_path / "told/data") == tree_hash(root / "data")
    plain, noted = (read_landings(folder / "landings.csv") for folder in (root, tmp_path / "told"))
    assert [x._replace(source="") for x in noted] == plain
    assert [x.source for x in noted] == ["delta 0"] * 2 + [
        "delta 3, of a friend"
    ] * 2  # the day without rows has one too
    assert sources(noted) == {"visits": ["delta 0", "delta 3, of a friend"]}
    assert sources(plain) == {}
    assert "source" not in (root / "landings.csv").read_text()


def test_the_first_source_adds_a_column_to_the_ledger_and_leaves_what_git_has_sealed(root, contracts):
    landed(root, contracts, until=date(2017, 3, 2))
    git(root, "init", "-q")
    git(root, "add", "landings.csv")
    git(root, "commit", "-qm", "sealed before sources were told")
    before = read_landings(root / "landings.csv")
    landed(root, contracts, told("delta 7"))
    pin(root)
    check_data(root)
    text = (root / "landings.csv").read_text()
    assert text.splitlines()[0].endswith(",contract_version,source")
    assert read_landings(root / "landings.csv")[:2] == before
    git(root, "commit", "-qam", "sealed with a source")
    check_data(root)
    for old, new in ((",1,\n", ",1,delta 1\n"), (",delta 7", ",delta 8")):
        (root / "landings.csv").write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=r"a sealed line was rewritten in landings.csv line"):
            check_data(root)


@pytest.mark.parametrize(
    "source", [pl.Series("_source", ["a", "a", "b", "a"]), pl.lit(7), pl.lit(None), pl.lit("a\nb")]
)
def test_a_source_that_cannot_be_noted_seals_nothing(root, contracts, source):
    with pytest.raises(DataError, match=r"a source that cannot be noted in column _source of visits"):
        landed(root, contracts, RAW.with_columns(source.alias("_source")))
    assert everything(root) == {}


def test_a_delta_table_lands_at_a_version_and_later_at_another(root, contracts, tmp_path):
    lake = str(tmp_path / "lake")
    write_deltalake(lake, RAW[:3].drop("_landing_day").to_arrow())
    write_deltalake(lake, RAW[3:].drop("_landing_day").to_arrow(), mode="append")

    def raw(version=None):
        return read_delta(lake, version).with_columns(pl.col("at").dt.date().alias("_landing_day"))

    landed(root, contracts, raw(0), until=date(2017, 3, 2))  # time travel: what the lake held then
    landed(root, contracts, raw())
    assert [(x.landing_day.day, x.rows, x.source) for x in read_landings(root / "landings.csv")] == [
        (1, 2, "delta 0"), (2, 1, "delta 0"), (3, 0, "delta 1"), (4, 1, "delta 1"),
    ]  # fmt: skip
    (root / "data/visits/2017-03-01.parquet").unlink()
    before = (root / "landings.csv").read_bytes()
    landed(root, contracts, raw())  # refilled from another version that holds the same rows
    assert (root / "landings.csv").read_bytes() == before
    with pytest.raises(DataError, match=r"cannot read Delta table in .*lake version 9"):
        raw(9)


def test_the_content_hash_sees_rows_and_not_their_order_or_the_chunks_they_came_in():
    parts = pl.concat([RAW[2:], RAW[:2]], rechunk=False)
    assert content_hash(parts) == content_hash(RAW)
    assert content_hash(RAW.with_columns(pl.col("cents") + 1)) != content_hash(RAW)
    assert content_hash(pl.DataFrame({"a": ["", None]})) != content_hash(
        pl.DataFrame({"a": [None, None]}, schema={"a": pl.String})
    )


class TestCheck:
    @pytest.fixture
    def sealed(self, root, contracts):
        landed(root, contracts)
        pin(root)
        return root

    def test_data_as_sealed_passes_and_gives_its_hash(self, sealed):
        assert check_data(sealed) == tree_hash(sealed / "data")

    def test_a_changed_byte_is_seen(self, sealed):
        path = sealed / "data/visits/2017-03-02.parquet"
        path.write_bytes(path.read_bytes()[:-1] + b"X")
        with pytest.raises(DataError, match=r"a sealed file was changed in data/visits/2017-03-02.parquet"):
            check_data(sealed)

    def test_a_missing_file_is_seen(self, sealed):
        (sealed / "data/visits/2017-03-04.parquet").unlink()
        with pytest.raises(DataError, match=r"a sealed file is missing in data/visits/2017-03-04.parquet"):
            check_data(sealed)

    def test_a_file_for_a_day_that_was_sealed_as_empty_is_seen(self, sealed):
        (sealed / "data/visits/2017-03-03.parquet").write_bytes(b"x")
        with pytest.raises(DataError, match=r"never sealed in data/visits/2017-03-03.parquet"):
            check_data(sealed)

    def test_a_pin_of_other_data_is_seen(self, sealed):
        pin(sealed, "0" * 32 + ".dir")
        with pytest.raises(DataError, match=r"data differs from its pin in data\.dvc"):
            check_data(sealed)

    def test_a_sealed_line_that_was_rewritten_is_seen_against_git(self, sealed):
        git(sealed, "init", "-q")
        git(sealed, "add", "landings.csv")
        git(sealed, "commit", "-qm", "sealed")
        text = (sealed / "landings.csv").read_text()
        (sealed / "landings.csv").write_text(text.replace(",2,", ",3,", 1))
        with pytest.raises(DataError, match=r"a sealed line was rewritten in landings.csv line 2"):
            check_data(sealed)
        (sealed / "landings.csv").write_text("".join(text.splitlines(keepends=True)[:-1]))
        with pytest.raises(DataError, match=r"landings.csv line 5: expected visits,2017-03-04"):
            check_data(sealed)

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("visits,2017-03-02,1,a,b,1\n", "visits is not in day order"),
            ("visits,2017-02-30,1,a,b,1\n", "line 6.*2017-02-30"),
            ("visits,2017-03-05\n", "bad line in landings.csv line 6"),
            ("visits,2017-03-05,1,a,b,1,delta 1\n", "bad line in landings.csv line 6: found 7 columns"),
        ],
    )
    def test_a_broken_ledger_names_its_line(self, sealed, line, said):
        with (sealed / "landings.csv").open("a") as handle:
            handle.write(line)
        with pytest.raises(DataError, match=said):
            check_data(sealed)


def test_the_tree_hash_is_the_one_that_dvc_gives(root, contracts):
    landed(root, contracts)
    git(root, "init", "-q")
    for words in (["init", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, check=True, capture_output=True)
    assert f"md5: {tree_hash(root / 'data')}\n" in (root / "data.dvc").read_text()
