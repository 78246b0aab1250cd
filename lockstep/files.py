"""Files that are written whole or not at all, and the hashes that name them.

One canonical parquet writer: the same rows give the same bytes under any thread count and hash seed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.errors import DataError, EnvironmentFault

__all__ = [
    "file_hash",
    "read_json",
    "read_parquet",
    "tree_hash",
    "write_json",
    "write_parquet",
    "write_text",
    "writing",
]


_HOST = socket.gethostname()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; rename it into place when the block ends well, remove it otherwise.

    What a process of this machine that was killed left beside files of the same folder is removed first.

    Raises
    ------
    EnvironmentFault
        The disk is full or the folder may not be written.
    """
    beside = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        yield beside
        beside.replace(path)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise EnvironmentFault(
                f"cannot write: {(e.strerror or str(e)).lower()}",
                where=str(path),
                do="Free some space or mend the permissions, then run the same command again: nothing is half-written.",
            ) from e
        raise
    finally:
        beside.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what writers of this machine left in `folder` that are gone; of others nobody knows whether they live."""
    for left in folder.glob(f".*.{_HOST}.*.part"):
        import psutil  # rarely needed

        writer = left.name.split(".")[-3]
        if writer.isdecimal() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write `frame`, already sorted by its full key, as canonical parquet.

    The row group size is fixed and chunks are merged first, or the bytes would follow the number of threads.
    """
    bytes_ = io.BytesIO()  # Polars tells of a full disk in its own way; Python's write tells of it as an OSError
    frame.rechunk().write_parquet(
        bytes_, compression="zstd", compression_level=3, row_group_size=50_000, statistics=True
    )
    with writing(path) as beside:
        beside.write_bytes(bytes_.getbuffer())


def read_parquet(path: Path) -> pl.DataFrame:
    """Read one parquet file; raise DataError naming the file when it is empty, truncated or not parquet."""
    try:
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.ComputeError, pl.exceptions.NoDataError, OSError) as e:
        reason = str(e).splitlines()[0]
        raise DataError(
            "cannot read parquet", where=str(path), found=reason, do="Restore the file or land it again."
        ) from e


def write_text(text: str, path: Path) -> None:
    """Write `text` as UTF-8 with Unix line ends."""
    with writing(path) as beside:
        beside.write_bytes(text.encode())


def write_json(value: Any, path: Path) -> None:
    """Write `value` as JSON in the order given, refusing NaN and infinity."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote; raise DataError when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("a file is missing", where=str(path), do="Build it with `lockstep run`.") from None
    except ValueError as e:
        raise DataError("not JSON", where=str(path), found=e, do="Build it again with `lockstep run`.") from None


def file_hash(path: Path) -> str:
    """Return the md5 of a file's bytes: the name DVC gives to its content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def tree_hash(root: Path, known: dict[str, str] | None = None) -> str:
    """Return the hash DVC gives to a folder: the md5 of its sorted list of file hashes, with ``.dir`` behind it.

    `known` maps paths relative to `root` (with ``/``) to hashes that need not be computed again.
    """
    known = known or {}
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    entries = [
        {"md5": known.get(name) or file_hash(found[name]), "relpath": name}
        for name in sorted(found, key=lambda n: tuple(n.split("/")))
    ]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
