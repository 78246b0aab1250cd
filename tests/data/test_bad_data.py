"""Stories of data, settings and definitions that are not what they should be: nothing is built, and it is said why."""

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import ENV, lockstep
from tests.data.copies import one_sentence, plant, repro, unseal


class TestBadData:
    @pytest.fixture
    def folder(self, built_slice, copy):
        return copy(built_slice)

    def refused(self, folder: Path, code: int, said: str) -> None:
        lock = (folder / "dvc.lock").read_bytes() if (folder / "dvc.lock").exists() else None
        done = lockstep(folder, "run")
        assert done.returncode == code, done.stdout + done.stderr
        assert re.search(said, one_sentence(done)), done.stderr
        if lock:
            assert (folder / "dvc.lock").read_bytes() == lock

    def test_a_byte_changed_in_a_sealed_file(self, folder):
        path = folder / "data/transactions/2017-06-01.parquet"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"X")
        self.refused(
            folder, 2, r"^error: a sealed file was changed in data/transactions/2017-06-01.parquet: expected md5"
        )

    def test_an_emptied_and_a_lost_sealed_file(self, folder):
        path = folder / "data/transactions/2017-06-01.parquet"
        path.unlink()
        self.refused(
            folder, 2, r"^error: a sealed file is missing in data/transactions/2017-06-01.parquet.*lockstep land"
        )
        path.write_bytes(b"")
        self.refused(folder, 2, r"^error: a sealed file was changed in data/transactions/2017-06-01.parquet")
        path.unlink()
        assert lockstep(folder, "land").returncode == 0
        assert lockstep(folder, "run").returncode == 0

    def test_raw_data_that_dvc_alone_would_pin_anew_is_stopped_even_after_it_did(self, folder):
        path = folder / "data/transactions/2017-06-01.parquet"
        rows = pl.read_parquet(path)
        path.unlink()
        rows[1:].write_parquet(path)
        subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=folder, check=True, env=ENV)
        self.refused(folder, 2, r"^error: a sealed file was changed in data/transactions/2017-06-01.parquet")
        path.unlink()
        rows.with_columns(pl.col("sales_value") + 1).write_parquet(path)  # as many rows, another value
        done = repro(folder)  # in a shell, without asking us first: validate compares with the ledger
        assert done.returncode != 0
        assert "data/transactions/2017-06-01.parquet" in done.stdout + done.stderr

    def test_an_unknown_key_and_a_bad_date_in_the_settings(self, folder):
        params = folder / "params.yaml"
        honest = params.read_text()
        params.write_text(honest.replace("train_until:", "train_untill:"))
        self.refused(
            folder,
            2,
            r"^error: unknown key 'questions.lapse.dataset.train_untill' in params.yaml. Did you mean 'train_until'\?",
        )
        params.write_text(honest.replace('"2017-08-21"', '"2017-08-41"'))
        self.refused(
            folder, 2, r"^error: bad value for 'questions.lapse.dataset.train_until' in params.yaml.*YYYY-MM-DD"
        )
        params.write_text(
            honest.replace('"2017-12-04"}', '"2017-12-04"}')
            .replace('first: "2017-04-03"', 'first: "2017-08-14"')
            .replace('"2017-09-18"', '"2017-09-04"')
        )
        self.refused(folder, 2, r"error: labels of train are not closed")

    def test_a_bad_day_on_the_command_line(self, folder):
        done = lockstep(folder, "land", "--until", "2017-13-01")
        assert done.returncode == 2
        assert re.search(r"^error: bad day in --until.*YYYY-MM-DD", one_sentence(done))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("f = f.rename({'sales_value': 'sale_value'})", r"raw rows of transactions.*sales_value.*sale_value"),
            ("f = f.drop('quantity')", r"raw rows of transactions.*quantity"),
            ("f = f.with_columns(pl.col('product_id').cast(pl.String))", r"raw rows of transactions.*product_id"),
            ("f = f.clear()", r"no rows at all in raw rows of transactions"),
        ],
    )
    def test_a_raw_table_that_was_renamed_thinned_retyped_or_emptied_seals_nothing(
        self, landed_slice, copy, change, said
    ):
        folder = copy(landed_slice)
        unseal(folder)
        plant(folder, change)
        self.refused(folder, 2, rf"^error: .*{said}")
        assert not (folder / "data").exists()
        assert not (folder / "landings.csv").exists()

    def test_a_truncated_raw_file_is_named(self, landed_slice, copy, tmp_path):
        folder = copy(landed_slice)
        unseal(folder)
        (tmp_path / "raw.parquet").write_bytes(b"PAR1 and then nothing")
        plant(folder, f"f = pl.read_parquet({str(tmp_path / 'raw.parquet')!r})")
        self.refused(folder, 2, r"^error: raw rows cannot be .* in table transactions")


def test_future_rows_copies_and_rivals_are_counted_and_kept_out_of_all_that_features_read(
    landed_slice, built_slice, copy
):
    folder = copy(landed_slice)
    unseal(folder)
    plant(
        folder,
        "one = f.sort('_landing_day', 'basket_id', 'product_id')[:4]; "
        "future = one[:1].with_columns(pl.col('basket_id') + 1, "
        "pl.col('transaction_timestamp') + pl.duration(days=9)); "
        "rival = one[2:3].with_columns(pl.col('sales_value') + 100); "
        "f = pl.concat([f, future, one[1:2], rival])",
    )
    assert lockstep(folder, "land").returncode == 0
    done = repro(folder, "validate")
    assert done.returncode == 0, done.stdout + done.stderr
    counted = json.loads((folder / "artifacts/validation.json").read_text())["tables"]["transactions"]
    honest = json.loads((built_slice / "artifacts/validation.json").read_text())["tables"]["transactions"]
    assert counted["rows"] == honest["rows"] + 3
    assert counted["duplicates"] == honest["duplicates"] + 1
    assert counted["quarantined"] == honest["quarantined"] + 3  # the future row, and both of the rivals
    assert counted["rules"]["future"]["broken"] == 1
    assert counted["rules"]["conflict"]["broken"] == 2
    held = pl.read_parquet(folder / "artifacts/quarantine/transactions.parquet")
    assert sorted(held["rule"].to_list()) == ["conflict", "conflict", "future"]
    assert "3 quarantined" in done.stdout
    rivals = held.filter(pl.col("rule") == "conflict").select("basket_id", "product_id").unique()
    before, after = (pl.read_parquet(f / "artifacts/clean/transactions") for f in (built_slice, folder))
    assert after.equals(before.join(rivals, on=["basket_id", "product_id"], how="anti", maintain_order="left"))
    assert after.height == before.height - 1


def test_a_module_that_the_graph_does_not_know_stops_the_run(built_slice, copy):
    folder = copy(built_slice)
    (folder / "features/more.py").write_text("from features.household import household_trips\n")
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(
        text.replace('"features.household"', '"features.household", "features.more"')
    )
    done = lockstep(folder, "run")
    assert done.returncode == 1
    assert re.search(r"^error: code dependencies.*missing features/more.py.*lockstep deps --write", one_sentence(done))


WRONG = {
    r"^error: not Python in features/household.py line \d+: found ": ("features/household.py", "    ],\n)", "    \n)"),
    r"unknown feature 'trips_90' .* Did you mean 'trips_90d'\?": ("features/services.py", '"trips_90d"', '"trips_90"'),
    r"unknown event column 'valu' .* mean 'value'\?": ("features/household.py", 'agg.sum("value")', 'agg.sum("valu")'),
    r"full.service names no service of lapse: 'ful'. Did": ("params.yaml", "service: full", "service: ful"),
    r"^error: no service 'till' in params.yaml. Did you mean 'tall'\?": ("features/services.py", '"till",', '"tall",'),
}


@pytest.mark.parametrize(("said", "edit"), WRONG.items())
def test_a_wrong_definition_is_told_before_prefect_starts(built_slice, copy, edit, said):
    folder, (file, old, new) = copy(built_slice), edit
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    done = lockstep(folder, "run")
    assert done.returncode == 2
    assert re.search(said, one_sentence(done))
    assert "starting Prefect" not in done.stdout
