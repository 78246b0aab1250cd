"""Frames of days that were computed before, outside DVC, each in a file named by day, key, rows and md5.

The key stands for everything that shapes a frame, so nothing here ever goes stale: another definition, another library
or another partition is another key. The md5 tells a file that a crash cut short or a hand altered. Two processes that
compute the same day write the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lockstep.clock import days
from lockstep.errors import DataError
from lockstep.files import file_hash, read_json, write_parquet, write_text

__all__ = ["HASHES", "DayCache", "Hashes", "Kept", "day_keys"]

HASHES = "state/hashes.json"


class Hashes:
    """Hashes of files, computed anew only where size or times changed: so git and DVC tell an unchanged file."""

    def __init__(self, path: Path) -> None:
        self._path, self._used = path, dict[str, list[object]]()
        try:
            self._known = {name: entry for name, entry in read_json(path).items() if isinstance(entry, list) and entry}
        except (DataError, AttributeError):
            self._known = {}

    def of(self, file: Path) -> str:
        """Return the md5 of a file; raise FileNotFoundError where there is none."""
        name = str(file.absolute())
        *known, digest = self._known.get(name, [None])
        look = _look(file)  # before the bytes are read: a file that is replaced meanwhile is looked at again next time
        if known != look:
            digest = file_hash(file)
        self._used[name] = [*look, digest]
        return str(digest)

    def note(self, file: Path, digest: str) -> str:
        """Remember the md5 of a file that was just read or written, and return it."""
        self._used[str(file.absolute())] = [*_look(file), digest]
        return digest

    def save(self) -> None:
        """Keep what is known of the files that were used, and of others that still exist, until the next time."""
        others = {n: entry for n, entry in self._known.items() if n not in self._used and Path(n).is_file()}
        write_text(json.dumps({**others, **self._used}), self._path)


def _look(file: Path) -> list[int]:
    """Return what changes with the content of a file."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


class Kept(NamedTuple):
    """A cached frame: its file, the rows in it and its md5."""

    path: Path
    rows: int
    digest: str


class DayCache:
    """One folder of cached days: of a view, or of the events of a source."""

    def __init__(self, folder: Path, hashes: Hashes) -> None:
        self.folder, self.hashes = folder, hashes
        self._kept: dict[tuple[str, str], Kept] = {}
        for path in folder.glob("*.parquet"):
            with suppress(ValueError):  # somebody else's file
                day, key, rows, digest = path.stem.split(".")
                self._kept[day, key] = Kept(path, int(rows), digest)

    def find(self, day: date, key: str) -> Kept | None:
        """Return what is kept of a day under `key`; None where there is nothing or it is not what was written."""
        kept = self._kept.get((str(day), key))
        with suppress(FileNotFoundError):
            return kept if kept and self.hashes.of(kept.path) == kept.digest else None
        return None

    def keep(self, day: date, key: str, frame: pl.DataFrame) -> Kept:
        """Write the frame of a day, sorted by its full key."""
        part = self.folder / f"{day}.{os.getpid()}.part"
        write_parquet(frame, part)
        digest = file_hash(part)
        path = part.replace(self.folder / f"{day}.{key}.{frame.height}.{digest}.parquet")
        self.hashes.note(path, digest)
        return Kept(path, frame.height, digest)

    def sweep(self, kept: Iterable[Kept]) -> None:
        """Remove every file but those in `kept`."""
        wanted = {k.path for k in kept}
        for path in self.folder.glob("*.parquet"):
            if path not in wanted:
                path.unlink(missing_ok=True)


def day_keys(
    seed: str, files: Mapping[str, Mapping[date, Path]], hashes: Hashes, first: date, last: date
) -> dict[date, str]:
    """Return a key for each day: `seed` and every partition, given by table and landing day, that was known by then."""
    partitions = sorted((landed, name, f) for name, own in files.items() for landed, f in own.items())
    chain, keys, done = hashlib.sha256(seed.encode()), {}, 0
    for day in days(first, last):
        while done < len(partitions) and partitions[done][0] < day:
            landed, name, file = partitions[done]
            chain.update(f"{landed} {name} {hashes.of(file)}\n".encode())
            done += 1
        at = chain.copy()
        at.update(str(day).encode())
        keys[day] = at.hexdigest()[:24]
    return keys
