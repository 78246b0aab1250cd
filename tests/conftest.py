"""Fixtures: a tiny project with one table for laws, and a copy of this repository on a slice of the real households."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.clone import copy_project
from lockstep.stage import QUIET

os.environ.update(QUIET)  # Prefect counts its users at import
ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "PYTHONPATH": "", "GIT_CONFIG_GLOBAL": os.devnull}


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def lockstep(folder: Path, *words: str, module: str = "lockstep", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the project in `folder`, whose own library comes first on the path."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env={**ENV, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def landed_slice(tmp_path_factory) -> Path:
    """A project with one household in twenty: landed and committed, nothing built. Copy it before changing it."""
    folder = copy_project(ROOT, tmp_path_factory.mktemp("landed") / "project", keep_one_in=20)
    done = lockstep(folder, "land")
    assert done.returncode == 0, done.stderr
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "landed")
    return folder


@pytest.fixture(scope="session")
def built_slice(landed_slice, tmp_path_factory) -> Path:
    """The slice after `lockstep run`, its dvc.lock committed. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("built") / "project"
    shutil.copytree(landed_slice, folder, symlinks=True)
    done = lockstep(folder, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    status = git(folder, "status", "--porcelain")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "built")
    for name, text in {"run.out": done.stdout, "run.err": done.stderr, "run.status": status}.items():
        (folder / "state" / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def copy(tmp_path):
    """Copy a project into this test's own folder."""

    def copied(folder: Path, name: str = "project") -> Path:
        shutil.copytree(folder, tmp_path / name, symlinks=True)
        return tmp_path / name

    return copied
