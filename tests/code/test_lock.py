"""The checked-in lock stays untouched where the same inputs give other bytes."""

import multiprocessing

import pytest

from lockstep.alone import alone
from lockstep.errors import EnvironmentFault
from lockstep.lock import lock_outputs, outputs_equal, own_lock, same_inputs
from tests.conftest import git

LOCK = """schema: '2.0'
stages:
  data:
    cmd: make rows
    deps:
    - {path: raw, md5: aa}
    outs:
    - {path: artifacts/rows, md5: bb}
  train:
    cmd: fit
    deps:
    - {path: artifacts/rows/part, md5: cc}
    - {path: fit.py, md5: dd}
    params:
      params.yaml: {seed: 0}
    outs:
    - {path: artifacts/model, md5: e1}
"""


@pytest.fixture
def repo(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/state/\n")
    (tmp_path / "dvc.lock").write_text(LOCK)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "built elsewhere")
    return tmp_path


def test_outputs_are_counted_against_the_lock_in_git(repo):
    assert lock_outputs(LOCK) == {"data artifacts/rows": "bb", "train artifacts/model": "e1"}
    assert outputs_equal(repo) == (2, 2)
    (repo / "dvc.lock").write_text(LOCK.replace("e1", "00"))
    assert outputs_equal(repo) == (1, 2)


def test_there_is_nothing_to_compare_with_before_the_first_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert outputs_equal(tmp_path) is None


@pytest.mark.parametrize(
    "change", [("aa", "a2"), ("dd", "d2"), ("seed: 0", "seed: 1"), ("cmd: fit", "cmd: fit --fast")]
)
def test_a_change_of_raw_data_code_parameter_or_command_is_another_input(change):
    assert not same_inputs(LOCK, LOCK.replace(*change))


@pytest.mark.parametrize("change", [("bb", "b2"), ("cc", "c2"), ("e1", "e2")])
def test_what_stages_build_and_hand_on_is_no_input(change):
    assert same_inputs(LOCK, LOCK.replace(*change))


def test_another_machines_bytes_stay_checked_in_and_the_own_ones_are_used_again(repo):
    ours = LOCK.replace("e1", "e2")
    with own_lock(repo):
        (repo / "dvc.lock").write_text(ours)
        assert outputs_equal(repo) == (1, 2)
    assert (repo / "dvc.lock").read_text() == LOCK
    with own_lock(repo):
        assert (repo / "dvc.lock").read_text() == ours
    assert git(repo, "status", "--porcelain") == ""


def test_the_checked_in_lock_comes_back_after_a_failure_too(repo):
    def stopped():
        with own_lock(repo):
            (repo / "dvc.lock").write_text(LOCK.replace("e1", "e2"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (repo / "dvc.lock").read_text() == LOCK


def test_a_lock_of_other_inputs_is_the_users_to_commit(repo):
    theirs = LOCK.replace("seed: 0", "seed: 1").replace("e1", "e2")
    with own_lock(repo):
        (repo / "dvc.lock").write_text(theirs)
    assert (repo / "dvc.lock").read_text() == theirs


def test_a_rebuilt_lock_of_an_older_commit_is_not_used(repo):
    with own_lock(repo):
        (repo / "dvc.lock").write_text(LOCK.replace("e1", "e2"))
    newer = LOCK.replace("seed: 0", "seed: 1")
    (repo / "dvc.lock").write_text(newer)
    git(repo, "commit", "-qam", "another seed")
    with own_lock(repo):
        assert (repo / "dvc.lock").read_text() == newer


def _hold(root, held, done):
    with alone(root, "landing"):
        held.set()
        done.wait(60)


def test_two_processes_do_not_land_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(EnvironmentFault, match="another process is at it: landing"), alone(tmp_path, "landing"):
        pass
    done.set()
    other.join(60)
    with alone(tmp_path, "landing"):
        pass
