"""What the online store holds: the record ``state/online.json``, written last, when the store has answered for all."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lockstep.errors import DataError
from lockstep.files import file_hash, read_json, write_json
from lockstep.project import Project

__all__ = [
    "Online",
    "OnlineView",
    "pending",
    "proven",
    "read_online",
    "store_files",
    "write_online",
    "write_proof",
]

_RECORD = "state/online.json"
_PROOF = "state/parity.json"


class OnlineView(BaseModel):
    """One view of the snapshot: its folder, the md5 of its file, its rows, and the keys of the first (None of none)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    md5: str
    rows: int
    first: dict[str, Any] | None


class Online(BaseModel):
    """The published snapshot: its day, the start of that day (UTC), and the hashes of ``artifacts/features.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    snapshot: date
    instant: datetime
    features: str
    code: str
    views: dict[str, OnlineView]

    def file(self, root: Path, view: str) -> Path:
        """Return the offline snapshot of `view` that was materialised."""
        return root / "artifacts/features" / self.views[view].folder / f"{self.snapshot}.parquet"

    def is_of(self, root: Path) -> bool:
        """Return whether ``artifacts/`` still holds, byte for byte, the snapshot that was materialised."""
        files = {self.file(root, name): view.md5 for name, view in self.views.items()}
        return all(path.is_file() and file_hash(path) == md5 for path, md5 in files.items())


def read_online(root: Path) -> Online | None:
    """Return the record; None where there is none that can be read: then nothing counts as online."""
    try:
        return Online.model_validate(read_json(root / _RECORD))
    except (DataError, ValidationError):
        return None


def write_online(root: Path, online: Online | None) -> None:
    """Write the record, or remove it: what the store holds is then unknown."""
    if online is None:
        (root / _RECORD).unlink(missing_ok=True)
    else:
        write_json(online.model_dump(mode="json"), root / _RECORD)


def store_files(project: Project) -> dict[str, Path]:
    """Return the files that must be there to serve: ``record``, ``registry`` and ``store``.

    A registry or store of ``features/feature_store.yaml`` that is no local file is left out.
    """
    repo = project.root / "features"
    config = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))
    registry = config["registry"] if isinstance(config["registry"], str) else config["registry"]["path"]
    named = {"registry": registry, "store": config["online_store"].get("path", "")}
    local = {name: (repo / path).resolve() for name, path in named.items() if path and "://" not in path}
    return {"record": project.root / _RECORD, **local}


def write_proof(project: Project, text: str) -> None:
    """Record that what is online now was proven equal to the offline snapshot; `text` is the verdict's line."""
    write_json({**_online_now(project), "text": text}, project.root / _PROOF)


def proven(project: Project) -> str | None:
    """Return the line with which what is online now, byte for byte, was proven; None where it was not."""
    try:
        proof = read_json(project.root / _PROOF)
        now = _online_now(project)
        return str(proof["text"]) if all(proof[name] == digest for name, digest in now.items()) else None
    except (DataError, OSError, KeyError, TypeError):
        return None


def _online_now(project: Project) -> dict[str, str]:
    """Return the md5 of the record, and of the store where it is a local file."""
    files = {name: path for name, path in store_files(project).items() if name != "registry"}
    log = Path(f"{files.get('store', '')}-wal")  # SQLite's: what is written and not yet in the file
    if log.is_file() and log.stat().st_size:
        files["log"] = log
    return {name: file_hash(path) for name, path in files.items()}


def pending(project: Project) -> bool:
    """Return whether the last snapshot of ``artifacts/`` is not online and proven; cheap, without Feast."""
    about, online = read_json(project.root / "artifacts/features.json"), read_online(project.root)
    if online is None or not all(path.is_file() for path in store_files(project).values()):
        return True
    if proven(project) is None:
        return True
    return (str(online.snapshot), online.features) != (about["last"], about["hashes"]["features"])
