"""The whole year, in this repository itself: what the README shows is what a run prints."""

import json
import re

import pytest

from tests.conftest import ROOT, git, lockstep

# What the rows of `docs/semantics.md` leave of the example: 36 cut-offs, split by time with an embargo between.
ROWS = {"train": (21, 46304), "embargo": (3, 6656), "test": (12, 26603)}


@pytest.fixture(scope="module")
def said():
    """What `lockstep run` prints here; a fresh clone builds everything, a built tree answers at once."""
    before = (ROOT / "dvc.lock").read_bytes(), git(ROOT, "status", "--porcelain")
    done = lockstep(ROOT, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert before == ((ROOT / "dvc.lock").read_bytes(), git(ROOT, "status", "--porcelain"))
    return done.stdout


def read(name):
    return json.loads((ROOT / "artifacts" / name).read_text(encoding="utf-8"))


def test_the_readme_shows_the_ledger_of_a_real_run(said):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- ledger -->\n```text\n(.*?)```", readme, re.DOTALL).group(1)
    assert said[said.index("landings ") :].strip() == shown.strip()
    assert len(readme.splitlines()) <= 150


def test_every_command_that_the_readme_shows_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = lockstep(ROOT, "--help").stdout
    for command in set(re.findall(r"`lockstep (\w+)", readme)):
        assert re.search(rf"\b{command}\b", known), command
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:\$ |`)make (\w+)", readme)):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target


def test_every_output_equals_the_checked_in_lock(said):
    assert re.search(r"^outputs +(\d+)/\1 equal", said, re.MULTILINE)


def test_the_training_set_has_the_rows_and_base_rate_of_the_example(said):
    dataset = read("dataset/lapse/dataset.json")
    assert {n: (p["cutoffs"], p["rows"]) for n, p in dataset["parts"].items()} == ROWS
    assert dataset["all"] == {"rows": 79563, "base_rate": 0.127622}
    assert (dataset["parts"]["train"]["base_rate"], dataset["parts"]["test"]["base_rate"]) == (0.127354, 0.126339)


def test_the_models_reach_their_bars_on_later_households_and_stand_above_the_baselines(said):
    full, rfm = (read(f"evaluate/{m}/metrics.json") for m in ("full", "rfm"))
    baselines = read("baselines/lapse/baselines.json")
    assert full["auc"] >= 0.855
    assert rfm["auc"] >= 0.852
    assert 0.825 <= baselines["bg_nbd"]["auc"] <= 0.835 < full["auc_low"]
    assert round(baselines["recency"]["auc"], 4) == 0.7541
    assert baselines["mean"]["auc"] == 0.5


def test_the_honest_year_loses_no_row_and_breaks_no_rule_that_counts(said):
    validation = read("validation.json")
    for name, table in validation["tables"].items():
        assert table["rows"] == table["clean"] + table["quarantined"] + table["duplicates"], name
        broken = {r for r, c in table["rules"].items() if c["broken"] and c["then"] != "flag"}
        assert not broken, name
    assert validation["total"]["duplicates"] == validation["tables"]["coupons"]["duplicates"] == 4872
