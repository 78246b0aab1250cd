"""Fixtures: a tiny project with one table for laws, and a copy of this repository on a slice of the real households."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from lockstep.clone import copy_project
from lockstep.stage import QUIET

os.environ.update(QUIET)  # Prefect counts its users at import
settings.register_profile("lockstep", deadline=None)  # a slow machine is no fault
settings.load_profile("lockstep")
ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "PYTHONPATH": "", "GIT_CONFIG_GLOBAL": os.devnull}
LONGEST = [
    "run", "schedule", "known", "feature_versions", "serving", "online", "prove", "bad_data", "shadow", "notebooks",
    "till", "vectors", "delta", "snapshots", "your_own_data", "plant", "quarantine", "offline_rows",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: processes that run tests take them in this order, and should end together."""
    order = {ROOT / f"tests/data/test_{name}.py": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


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
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a project once for all processes that run tests, and give its folder to each."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / name / "project", shared / name / "done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def landed_slice(once) -> Path:
    """A project with one household in twenty: landed and committed, nothing built. Copy it before changing it."""
    return once("landed", _land)


@pytest.fixture(scope="session")
def built_slice(landed_slice, once) -> Path:
    """The slice after `lockstep run`, its dvc.lock committed. Copy it before changing it."""
    return once("built", lambda folder: _build(landed_slice, folder))


def _land(folder: Path) -> None:
    copy_project(ROOT, folder, keep_one_in=20)
    done = lockstep(folder, "land")
    assert done.returncode == 0, done.stderr
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "landed")


def _build(landed: Path, folder: Path) -> None:
    shutil.copytree(landed, folder, symlinks=True)
    done = lockstep(folder, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    status = git(folder, "status", "--porcelain")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "built")
    for name, text in {"run.out": done.stdout, "run.err": done.stderr, "run.status": status}.items():
        (folder / "state" / name).write_text(text, encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """Copy a project into this test's own folder."""

    def copied(folder: Path, name: str = "project") -> Path:
        shutil.copytree(folder, tmp_path / name, symlinks=True, copy_function=_link_cached)
        return tmp_path / name

    return copied


def _link_cached(source: str, target: str) -> None:
    """Copy a file, but for those of DVC's cache, which are named by their content and never written again."""
    (os.link if "/.dvc/cache/files/" in source else shutil.copy2)(source, target)
