"""The guide to a project of one's own, typed line by line in a clone without anything of the example."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENV, ROOT, git, lockstep
from tests.data.test_serving import serving

GUIDE = (ROOT / "docs/your-own-data.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(console|python|yaml)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"^# (\S+\.(?:py|yaml))\n", re.M)


def repository(folder: Path) -> Path:
    """What git would commit here, the example's seals among it, as a repository of its own."""
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in filter(lambda n: (ROOT / n).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Lockstep")
    return folder


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The folder in which the guide was typed, and what was printed."""
    folder, bin_ = repository(tmp_path_factory.mktemp("rides")), tmp_path_factory.mktemp("bin")
    for name, words in {"python": "", "lockstep": "-m lockstep "}.items():  # this interpreter, the clone's own library
        (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n', encoding="utf-8")
        (bin_ / name).chmod(0o755)
    who = {f"GIT_{whose}_{what}": "t@example.com" for whose in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env, said = {**ENV, **who, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}, ""
    for kind, text in FENCE.findall(GUIDE):
        if kind == "console":
            for line in text.splitlines():
                words = ["bash", "-c", line.removeprefix("$ ")]
                done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                said += done.stdout
            continue
        _, *files = FILE.split(text)
        for name, content in zip(files[::2], files[1::2], strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
    return folder, said


def test_the_guide_ends_with_the_verdict_of_a_trained_model_on_ones_own_tables(typed):
    folder, said = typed
    lines = dict(re.findall(r"^(\S+(?: \S+)?) {2,}(.*)$", said[said.index("\nlandings ") :], re.M))
    assert set(lines) == {"landings", "rows", "features", "again", "again habit", "again recency", "again mean",
                          "online", "outputs"}  # fmt: skip
    assert lines["landings"].startswith("61 sealed partitions of 60 days")
    assert float(lines["again habit"].split()[1]) > 0.6
    assert git(folder, "status", "--porcelain") == ""
    assert {line.split(",")[0] for line in (folder / "landings.csv").read_text().splitlines()[1:]} == {
        "rides", "stations",
    }  # fmt: skip
    card = json.loads((folder / "artifacts/evaluate/habit/card.json").read_text())
    assert list(card["features"]) == ["rides_14d", "hill_14d", "days_since_ride"]


def test_what_was_made_answers_requests_and_says_that_there_is_no_challenger(typed):
    folder, _ = typed
    with serving(folder) as server:
        asked = re.search(r"-d '(.*?)'", GUIDE)[1]
        answer = server.post("/predict", json=json.loads(asked))
        assert answer.status_code == 200, answer.text
        assert set(answer.json()["features"]) == {"rides_14d", "hill_14d", "days_since_ride"}
    done = lockstep(folder, "shadow")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no challenger in params.yaml")
