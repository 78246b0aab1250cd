"""Stories of `lockstep run` on a slice of the real households: what it leaves behind, and that it does so again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from lockstep.files import tree_hash
from lockstep.lock import lock_outputs
from lockstep.page import write_page
from tests.conftest import ENV, git, lockstep
from tests.data.copies import BIN, forget, one_sentence, repro


def test_a_run_ends_with_its_ledger_and_a_page_that_opens_offline(built_slice):
    said = (built_slice / "state/run.out").read_text()
    ledger = said[said.index("landings ") :]
    names = "landings, rows, features, lapse, lapse full, lapse rfm, lapse bg_nbd, lapse recency, lapse mean, back"
    names += ", back till, back frequency, back cadence, back recency, back mean, shadow, online, outputs"
    for name in names.split(", "):
        assert re.search(rf"^{name} +\S", ledger, re.MULTILINE), name
    assert ledger.rstrip().endswith("open state/report.html")
    page = (built_slice / "state/report.html").read_text()
    assert page.count("<svg") == 8
    # Nothing is fetched: no address but the names of XML's own vocabularies.
    assert {u.split("/")[2] for u in re.findall(r"https?://[^\s\"'<>]+", page)} <= {
        "www.w3.org",
        "purl.org",
        "creativecommons.org",
        "matplotlib.org",
    }
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*(src|href)=", page)
    links = re.findall(r'<a href="([^"]+)"', page)
    assert len(links) >= 5
    assert not [link for link in links if not (built_slice / "state" / link).exists()]


def test_the_page_shows_what_became_of_the_rows_of_each_table(built_slice, copy):
    folder = copy(built_slice)
    validation = json.loads((folder / "artifacts/validation.json").read_text())
    counts = {"rows": 901, "clean": 902, "quarantined": 903, "duplicates": 904, "late": 905, "corrections": 906,
              "deletions": 907}  # fmt: skip
    validation["tables"]["coupons"] |= counts
    (folder / "artifacts/validation.json").unlink()  # DVC protects its outputs
    (folder / "artifacts/validation.json").write_text(json.dumps(validation))
    write_page(folder, {"online": "nothing"}, folder / "page.html")
    page = (folder / "page.html").read_text()
    table = page[page.index("<h2>Tables</h2>") : page.index("<h2>Features</h2>")]
    names = re.findall(r'<th class="n">([^<]+)</th>', table)
    assert names == ["rows in", "out", "quarantined", "duplicates", "late", "corrections", "deletions"]
    (row,) = re.findall(r"<tr><td>coupons</td>(.*?)</tr>", table, re.DOTALL)
    assert [int(n) for n in re.findall(r'<td class="n">(\d+)</td>', row)] == list(counts.values())


def test_no_warning_of_a_dependency_reaches_the_screen(built_slice):
    assert (built_slice / "state/run.err").read_text() == ""
    said = (built_slice / "state/run.out").read_text()
    assert not re.search(r"\bwarning|Warning\b", said)
    assert "Traceback" not in said


def test_a_run_leaves_git_clean(built_slice):
    assert (built_slice / "state/run.status").read_text().split() == ["??", "dvc.lock"]


def test_a_second_run_prints_the_stored_ledger_without_prefect(built_slice, copy):
    folder = copy(built_slice)
    (folder / "state/prefect").rename(folder / "prefect-of-before")
    done = lockstep(folder, "run")
    assert done.returncode == 0, done.stderr
    assert not (folder / "state/prefect").exists()
    first = (built_slice / "state/run.out").read_text()
    ledger = first[first.index("landings ") :].splitlines()
    assert [x for x in done.stdout.splitlines() if not x.startswith("outputs")] == [
        x for x in ledger if not x.startswith("outputs")
    ]
    assert re.search(r"outputs +(\d+)/\1 equal", done.stdout)


def test_the_ledger_is_json_for_scripts(built_slice):
    done = lockstep(built_slice, "run", "--json")
    assert json.loads(done.stdout)["page"] == "state/report.html"


ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
EIGHT_THREADS = {
    "POLARS_MAX_THREADS": "8", "OMP_NUM_THREADS": "8", "PYTHONHASHSEED": "9", "TZ": "Asia/Tokyo", "LC_ALL": "C",
}  # fmt: skip


def same_bytes(folder: Path, built: Path) -> None:
    """Require the lock, and a card as one of the files that it names, of another build."""
    for name in ("dvc.lock", "artifacts/evaluate/full/card.json"):
        assert (folder / name).read_bytes() == (built / name).read_bytes(), name


def test_ctrl_c_in_the_middle_stops_with_130_and_dvc_repro_in_a_shell_then_gives_the_bytes_of_the_flow(
    built_slice, copy
):
    folder = copy(built_slice)
    forget(folder)
    (folder / "dvc.lock").unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep", "run"],
        cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("features ..."):
            time.sleep(2)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
            break
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    done = repro(folder, **ONE_THREAD)
    assert done.returncode == 0, done.stdout + done.stderr
    same_bytes(folder, built_slice)
    assert lockstep(folder, "run").returncode == 0  # what was stopped goes on: online, and to the verdict
    same_bytes(folder, built_slice)


def test_a_full_disk_says_so_and_the_next_run_on_another_machine_s_threads_and_zone_has_the_same_bytes(
    landed_slice, built_slice, copy
):
    folder = copy(landed_slice, "é eight")
    shutil.rmtree(folder / "data")
    # A limit on the size of a file fails a write as a full disk does, at any place and without a disk of its own.
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = ['lockstep', 'run']; from lockstep.cli import main; main()"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.search(r"^error: cannot write: .* in .*parquet. Free some space", one_sentence(done))
    assert not (folder / "data").exists()
    done = lockstep(folder, "run", **EIGHT_THREADS)
    assert done.returncode == 0, done.stdout + done.stderr
    same_bytes(folder, built_slice)


def test_the_modules_that_a_stage_loads_are_among_its_dependencies(built_slice, copy):
    folder = copy(built_slice)
    deps = {n: s.get("do", s) for n, s in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].items()}
    code = (
        "import sys, runpy\n"
        "module, *words = sys.argv[1:]\n"
        "sys.argv = [module, *words]\n"
        "try:\n    runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as e:\n    assert e.code == 0\n"
        "import pathlib\n"
        "here = pathlib.Path.cwd()\n"
        "files = [getattr(m, '__file__', None) for m in list(sys.modules.values())]\n"
        "mine = {pathlib.Path(f).relative_to(here) for f in files if f and pathlib.Path(f).is_relative_to(here)}\n"
        "print(*sorted(map(str, mine)))\n"
    )
    stages = {"dataset": ["lapse"], "baselines": ["back"], "train": ["rfm"], "evaluate": ["till"]}
    stages |= {"features": [], "shadow": []}
    for name, words in stages.items():
        module = re.search(r"-m (\S+)", deps[name]["cmd"]).group(1)
        done = subprocess.run(
            [sys.executable, "-c", code, module, *words],
            cwd=folder,
            env=ENV,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        loaded = {f for f in done.stdout.splitlines()[-1].split() if (folder / f).stat().st_size}
        assert loaded <= set(deps[name]["deps"]), name


def test_a_first_landing_that_was_stopped_before_its_pin_is_pinned_by_the_next_run(built_slice, copy):
    folder = copy(built_slice)
    pinned = (folder / "data.dvc").read_bytes()
    (folder / "data.dvc").unlink()
    assert lockstep(folder, "run").returncode == 0
    assert (folder / "data.dvc").read_bytes() == pinned


def test_where_model_bytes_differ_from_the_checked_in_ones_the_lock_stays_and_the_verdict_counts(built_slice, copy):
    """Another type of processor, as seen from here: git holds a lock whose model bytes this machine does not give."""
    folder = copy(built_slice)
    lock = (folder / "dvc.lock").read_text(encoding="utf-8")
    model = lock_outputs(lock)["train@rfm artifacts/model/rfm/model.skops"]
    (folder / "dvc.lock").write_text(lock.replace(model, "f" * 32), encoding="utf-8")
    git(folder, "commit", "-qam", "built on another type of processor")
    for prefect in (True, False):
        done = lockstep(folder, "run")
        assert done.returncode == 0, done.stderr
        equal, of = re.search(r"^outputs +(\d+)/(\d+) equal", done.stdout, re.MULTILINE).groups()
        assert int(equal) == int(of) - 1
        assert ("starting Prefect" in done.stdout) is prefect
        assert git(folder, "status", "--porcelain") == ""


def test_another_zone_computes_every_day_anew(built_slice, copy):
    folder = copy(built_slice)
    for name in ("params.yaml", "features/feature_store.yaml"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("America/New_York", "America/Chicago"))
    done = subprocess.run(
        [sys.executable, "-m", "lockstep.snapshots"], cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )
    assert "365 computed" in done.stdout, done.stdout + done.stderr


def test_dvc_shows_metrics_params_and_plots_as_its_users_know_them(built_slice, copy):
    folder = copy(built_slice)
    path = {**ENV, "PATH": os.pathsep.join([BIN, os.environ["PATH"]])}

    def dvc(*words: str) -> str:
        return subprocess.run(["dvc", *words], cwd=folder, env=path, capture_output=True, text=True, check=True).stdout

    assert "auc" in dvc("metrics", "show")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("resamples: 200", "resamples: 100"))
    assert "resamples" in dvc("params", "diff")
    assert dvc("plots", "show", "--json")
    status = json.loads(dvc("status", "--json"))
    assert "auc" in dvc("metrics", "diff", "--all")
    assert dvc("plots", "diff", "HEAD", "--json")
    assert set(status) == {
        "baselines@back",
        "baselines@lapse",
        *(f"evaluate@{m}" for m in ("full", "rfm", "till")),
        "shadow",
    }


def test_a_day_cache_cut_short_by_a_crash_is_computed_anew(built_slice, copy):
    folder = copy(built_slice)
    days = sorted((folder / "state/days").rglob("*.parquet"))
    days[10].write_bytes(days[10].read_bytes()[:100])
    days[20].unlink()
    shutil.rmtree(folder / "artifacts/features")
    done = subprocess.run(
        [sys.executable, "-m", "lockstep.snapshots"], cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )
    assert "2 computed" in done.stdout, done.stdout + done.stderr
    honest = yaml.safe_load((built_slice / "dvc.lock").read_text())["stages"]["features"]["outs"]
    assert tree_hash(folder / "artifacts/features") in [out["md5"] for out in honest]
