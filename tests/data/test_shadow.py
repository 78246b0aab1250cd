"""Stories of shadow mode on a slice of the real households: a decision, its page, and what must stop it."""

import json
import os
import re
import subprocess
import sys

import polars as pl
import pytest

from tests.conftest import ENV, lockstep

STAGE = "lockstep.shadow"


def summary(folder):
    return json.loads((folder / "artifacts/shadow/shadow.json").read_text(encoding="utf-8"))


def change(folder, before, after):
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def refused(folder, code, said):
    done = lockstep(folder, module=STAGE)
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(rf"^error: {said}", done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_two_models_are_judged_on_the_same_rows_by_the_files_that_their_cards_name(built_slice):
    found, dataset = (
        summary(built_slice),
        json.loads((built_slice / "artifacts/dataset/lapse/dataset.json").read_text()),
    )
    assert found["rows"]["joined"] == found["rows"]["champion"] == dataset["parts"]["test"]["rows"]
    read = {}
    for role, name in (("champion", "rfm"), ("challenger", "full")):
        card = json.loads((built_slice / f"artifacts/evaluate/{name}/card.json").read_text())
        assert found[role]["version"] == card["hashes"]["model"]
        for metric in ("auc", "log_loss", "average_precision"):
            assert found[role][metric] == card["metrics"][metric]
        read[role] = card["features"]
    equal = len(read["champion"].keys() & read["challenger"].keys())
    assert found["features"] == {role: len(names) for role, names in read.items()} | {"equal": equal}
    drift = pl.read_csv(built_slice / "artifacts/shadow/drift.csv")
    assert drift.height == len(read["champion"] | read["challenger"]) + 2  # and both scores
    assert {"tenure_days", "trips_total"} <= set(found["drift"]["over"])  # counters of a lifetime only grow


def test_the_stage_gives_the_same_bytes_in_a_shell_with_other_threads(built_slice, copy):
    folder = copy(built_slice)
    for path in (folder / "artifacts/shadow").iterdir():
        path.unlink()
    done = lockstep(folder, module=STAGE, POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for name in ("shadow.json", "drift.csv", "scores.parquet"):
        path = f"artifacts/shadow/{name}"
        assert (folder / path).read_bytes() == (built_slice / path).read_bytes(), name


def test_a_hold_is_a_result_with_its_reason_and_what_it_would_have_taken(built_slice, copy):
    folder = copy(built_slice)
    change(folder, "minimum_gain: 0.002", "minimum_gain: 0.5")
    done = lockstep(folder, module=STAGE)
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"hold: full gains \S+ AUC over rfm, .*: its lower end is not above the minimum gain of 0.5\n", done.stdout
    )
    assert summary(folder)["otherwise"].startswith("Promotion asks for a lower end above 0.5")


def test_the_command_prints_the_decision_and_shows_a_page_without_prefect_where_nothing_changed(built_slice, copy):
    folder = copy(built_slice)
    (folder / "state/prefect").rename(folder / "prefect-of-before")
    done = lockstep(folder, "shadow")
    assert (done.returncode, done.stderr) == (0, "")
    found = summary(folder)
    assert done.stdout == f"{found['decision']}: {found['reason']}\n{found['otherwise']}\n\nopen state/shadow.html\n"
    page = folder / "state/shadow.html"
    assert found["reason"] in page.read_text(encoding="utf-8")
    written = page.stat().st_mtime_ns
    again = lockstep(folder, "shadow", "--json")
    assert json.loads(again.stdout) == {**found, "page": "state/shadow.html"}
    assert page.stat().st_mtime_ns == written
    assert not (folder / "state/prefect").exists()


def test_the_flow_builds_what_the_comparison_needs_and_returns_the_decision(built_slice, copy):
    folder = copy(built_slice)
    change(folder, "minimum_gain: 0.002", "minimum_gain: 0.4")
    code = "import json, sys; from flows.shadow import shadow; print(json.dumps(shadow()))"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # noqa: PTH120
    env = {
        **ENV, "PATH": path, "PREFECT_HOME": str(folder / "state/prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["decision"] == "hold"
    assert "minimum gain of 0.4" in found["reason"]
    assert (folder / found["page"]).is_file()
    assert "evaluate@full: cached" in done.stdout
    assert re.search(r"^shadow: ran", done.stdout, re.MULTILINE)


class TestFaults:
    @pytest.fixture
    def folder(self, built_slice, copy):
        return copy(built_slice)

    def predictions(self, folder, change):
        path = folder / "artifacts/evaluate/full/predictions.parquet"
        rows = change(pl.read_parquet(path))
        path.unlink()
        rows.write_parquet(path)

    def test_a_missing_prediction(self, folder):
        self.predictions(folder, lambda rows: rows[1:])
        refused(
            folder,
            1,
            r"rows that are not in the scores of full in the dataset: .* 1 of \d+ rows, first household_id \d+",
        )

    def test_another_label(self, folder):
        self.predictions(folder, lambda rows: rows.with_columns(label=pl.when(pl.int_range(pl.len()) == 5).then(1 - pl.col("label")).otherwise("label").cast(pl.Int8)))  # fmt: skip  # noqa: E501
        refused(folder, 1, r"labels that differ in the scores of rfm and the scores of full: expected none, found 1 of")

    def test_an_altered_model_file(self, folder):
        path = folder / "artifacts/model/full/model.skops"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data.replace(b"hist", b"hast", 1) if b"hist" in data else data[:-1] + b"x")
        refused(folder, 2, r"altered model file in .*full/model.skops: expected [0-9a-f]{32}, found [0-9a-f]{32}")

    def test_the_champion_as_its_own_challenger(self, folder):
        change(folder, "challenger: full", "challenger: rfm")
        refused(
            folder, 2, r"the challenger is the champion in params.yaml serve.model and shadow.challenger: found rfm"
        )
        assert lockstep(folder, "run").returncode == 2
