"""A copy of a project to try things on: what git would commit of it, on a slice of its entities, nothing landed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from lockstep.errors import EnvironmentFault, SettingsError
from lockstep.files import write_text

__all__ = ["copy_project"]


def copy_project(root: Path, to: Path, keep_one_in: int) -> Path:
    """Copy what git would commit in `root`, set ``land.keep_one_in``, and make the copy a repository of its own.

    Raises
    ------
    EnvironmentFault
        Git is missing, or `root` is no repository.
    SettingsError
        ``params.yaml`` has no line ``keep_one_in: N``.
    """
    names = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (root / name).is_file() and name not in ("landings.csv", "releases.csv", "data.dvc", "dvc.lock"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, to / name)
    params = (to / "params.yaml").read_text(encoding="utf-8")
    sliced, found = re.subn(r"(?m)^(\s*keep_one_in:\s*)\d+", rf"\g<1>{keep_one_in}", params)
    if found != 1:
        raise SettingsError("no keep_one_in", where="params.yaml", do="Give land a line `keep_one_in: 1`.")
    write_text(sliced, to / "params.yaml")
    _git(to, "init", "-q")
    _git(to, "add", "-A")
    who = ["-c", "user.name=lockstep", "-c", "user.email=lockstep@localhost", "-c", "commit.gpgsign=false"]
    _git(to, *who, "commit", "-q", "--no-verify", "-m", f"a copy with one in {keep_one_in}")
    return to


def _git(folder: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        said = (getattr(e, "stderr", None) or str(e)).strip().splitlines()
        raise EnvironmentFault(f"git {words[0]} failed", where=str(folder), found=said[0] if said else e) from e
