"""Fixtures for what is online: the built slice with its last snapshot in the store."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import lockstep


@pytest.fixture(scope="session")
def online_slice(built_slice, once) -> Path:
    """The built slice after `lockstep materialize`. Copy it before changing it."""
    return once("online", lambda folder: _materialize(built_slice, folder))


def _materialize(built: Path, folder: Path) -> None:
    shutil.copytree(built, folder, symlinks=True)
    done = lockstep(folder, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "state/materialize.out").write_text(done.stdout, encoding="utf-8")
    (folder / "state/materialize.err").write_text(done.stderr, encoding="utf-8")


@pytest.fixture
def offline_slice(built_slice, copy) -> Path:
    """A copy of the built slice of which nothing was ever online."""
    folder = copy(built_slice)
    for name in ("online.json", "parity.json", "online.db", "registry.db"):
        (folder / "state" / name).unlink()
    return folder
