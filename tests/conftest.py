"""Fixtures: a tiny project with one table for laws, and a copy of this repository on a slice of the real households."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def copy_project(to: Path, keep_one_in: int) -> Path:
    """Copy what git would commit of this repository; keep one household in `keep_one_in`; land nothing yet."""
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)
    for name in ("landings.csv", "data.dvc", "dvc.lock"):
        (to / name).unlink(missing_ok=True)
    params = (to / "params.yaml").read_text(encoding="utf-8")
    assert "keep_one_in: 1 " in params
    (to / "params.yaml").write_text(params.replace("keep_one_in: 1 ", f"keep_one_in: {keep_one_in} "), encoding="utf-8")
    git(to, "init", "-q")
    git(to, "add", "-A")
    git(to, "commit", "-qm", "a slice")
    return to


@pytest.fixture(scope="session")
def landed_slice(tmp_path_factory) -> Path:
    """A project with one household in twenty: landed and committed, nothing built. Copy it before changing it."""
    folder = copy_project(tmp_path_factory.mktemp("landed") / "project", keep_one_in=20)
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
