"""Stages run as `dvc repro` runs them: outcomes, failures in their own words, and locks of other processes."""

import os
import subprocess
import sys
import time

import pytest

from lockstep.errors import UserError
from lockstep.graph import StageBusy, StageFailed, changed, run_stage, stages
from tests.conftest import ENV, ROOT, git

SLOW = "import sys, time, pathlib; time.sleep(float(sys.argv[1])); pathlib.Path('out').write_text('x')"


@pytest.fixture
def repo(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "says_no.py").write_text(
        "import sys; print('error: rows lost in table t. Mend it.', file=sys.stderr); sys.exit(2)", encoding="utf-8"
    )
    write(tmp_path, "python slow.py 0")
    git(tmp_path, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True, env=ENV)
    return tmp_path


def write(folder, command):
    (folder / "dvc.yaml").write_text(
        f"stages:\n  a:\n    cmd: {command}\n    deps: [slow.py]\n    outs: [out]\n"
        "  b:\n    cmd: python says_no.py\n    deps: [out]\n    outs: [never]\n",
        encoding="utf-8",
    )


def test_a_stage_runs_then_is_cached_then_is_restored_from_the_run_cache(repo):
    said = []
    assert run_stage(repo, "a", said.append) == "Ran"
    assert run_stage(repo, "a", said.append) == "Cached"
    (repo / "out").unlink()
    (repo / "dvc.lock").unlink()
    assert run_stage(repo, "a", said.append) == "Restored"
    assert not any("git add" in line or "lock file" in line for line in said)


def test_a_stage_that_says_no_is_told_in_its_own_sentence_and_with_its_own_code(repo):
    run_stage(repo, "a", lambda _: None)
    with pytest.raises(StageFailed, match=r"^rows lost in table t. Mend it.$") as e:
        run_stage(repo, "b", lambda _: None)
    assert e.value.exit_code == 2


def test_a_stage_that_another_process_works_on_is_busy(repo):
    write(repo, "python slow.py 8")
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "-s", "a"], cwd=repo, env=env_with_python())
    try:
        lock = repo / ".dvc/tmp/rwlock"
        while not (lock.exists() and "write" in lock.read_text()):
            time.sleep(0.05)
        with pytest.raises(StageBusy, match="another process works on this stage in a"):
            run_stage(repo, "a", lambda _: None)
    finally:
        assert other.wait(60) == 0


def env_with_python():
    return {**ENV, "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])}  # noqa: PTH120


def test_the_flow_waits_for_a_busy_lock_and_fails_at_once_for_anything_else(repo):
    (repo / "pyproject.toml").write_text("[tool.lockstep]\n", encoding="utf-8")
    write(repo, "python slow.py 25")
    flow = [sys.executable, "-m", "flows.rebuild"]
    env = {**env_with_python(), "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(repo / "home"), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}  # fmt: skip  # noqa: E501
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "-s", "a"], cwd=repo, env=env_with_python())
    done = subprocess.run(flow, cwd=repo, env=env, capture_output=True, text=True, check=False)
    assert other.wait(60) == 0
    assert "a: cached" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("b ...") == 1  # a deterministic failure is not tried again
    assert done.returncode == 2
    assert "error: rows lost in table t. Mend it." in done.stderr


def test_the_graph_and_what_changed_are_read_from_dvc(repo):
    assert stages(repo) == {"a": [], "b": ["a"]}
    assert changed(repo) == ["a", "b"]
    run_stage(repo, "a", lambda _: None)
    assert changed(repo) == ["b"]
    (repo / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"DVC cannot read the pipeline in dvc\.yaml"):
        changed(repo)
