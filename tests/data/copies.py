"""What users, and faults, do to a copy of the project."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import yaml

from tests.conftest import ENV, git

BIN = str(Path(sys.executable).parent)


def repro(folder: Path, *stages: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `dvc repro` as a shell in an activated environment would."""
    path = os.pathsep.join([BIN, os.environ["PATH"]])
    return subprocess.run(
        ["dvc", "repro", *stages],
        cwd=folder,
        env={**ENV, "PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def forget(folder: Path) -> None:
    """Remove everything that was built, and every cache of it."""
    for name in ("artifacts", "state", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)


def plant(folder: Path, change: str) -> None:
    """Make the landing module of a copy give other transactions: `change` is code on the frame `f`."""
    with (folder / "features/landing.py").open("a", encoding="utf-8") as handle:
        handle.write(
            "\n\n_honest = rows\n\n\ndef rows(table, settings, zone):\n    f = _honest(table, settings, zone)\n"
            f"    if table == 'transactions':\n{textwrap.indent(change.strip(), ' ' * 8)}\n    return f\n"
        )


def unseal(folder: Path) -> None:
    """Go back to before the first landing."""
    shutil.rmtree(folder / "data")
    for name in ("landings.csv", "data.dvc"):
        (folder / name).unlink()
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "nothing landed")


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return said[0]


def ask_lapse_alone(folder: Path) -> None:
    """Take the other question and its model out of the settings: a story that says nothing of them builds less."""
    path = folder / "params.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    del settings["questions"]["back"], settings["models"]["till"]
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
