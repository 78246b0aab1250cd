"""Parquet files on disk or in S3: one file, a folder (hive-partitioned or not), or a pattern.

Nothing here knows Feast. A file that is missing, broken, or lacks a column is an error with its name; nothing is ever
filled in. What is written is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from filelock import FileLock

from lockstep.errors import DataError, EnvironmentFault, UserError, did_you_mean
from lockstep.files import writing

__all__ = ["S3_OPTIONS", "ParquetFiles"]

S3_OPTIONS = {
    "aws_endpoint_url": "endpoint_override",
    "aws_access_key_id": "access_key",
    "aws_secret_access_key": "secret_key",
    "aws_session_token": "session_token",
    "aws_region": "region",
}
"""Polars' and Delta's names of what may differ from the usual AWS environment -> pyarrow's."""

_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ParquetFiles:
    """The parquet files that a path names, and how to read and write them.

    Parameters
    ----------
    path
        A file, a pattern (``*``, ``?``, ``[...]``, ``**/``), or a folder: all ``*.parquet`` in it and below. Names that
        begin with ``.`` or ``_`` are skipped, as every parquet reader does. Local, or ``s3://bucket/key``.
    options
        What differs from the usual AWS environment, of `S3_OPTIONS`.
    label
        What messages say behind a path.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files, sorted; none is a DataError."""
        if not (found := self._found()):
            raise DataError("no parquet file", where=self.path, do="Build it first, or mend the path of the source.")
        return found

    @cached_property
    def partitions(self) -> dict[str, pl.DataType]:
        """The columns that are told by names of folders such as ``day=2024-01-01``.

        They are Int64 or Date where every value is written as one (``007`` is text), String otherwise.
        """
        told = [_told(file[len(self._root) :]) for file in self.files]
        for file, values in zip(self.files, told, strict=True):
            if values.keys() != told[0].keys():
                expected, found = f"folders of {', '.join(told[0]) or 'no column'}", ", ".join(values) or "none"
                raise DataError("not partitioned like its neighbours", where=file, expected=expected, found=found)
        return {name: _partition_type([values[name] for values in told]) for name in told[0]}

    @cached_property
    def schema(self) -> pl.Schema:
        """The type of every column of the first file, and of the partition columns."""
        try:
            return self.scan().collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            self.blame(error, [])

    @property
    def where(self) -> str:
        """What messages call this place."""
        return self.files[0] + self.label

    def scan(self) -> pl.LazyFrame:
        """Return all rows; every file must have every column that is read, in one type.

        Instants may bear another zone in each file: they come in that of the first, and a naive one is UTC.
        """
        return self._scan(list(self.files))

    def shared(self) -> list[str]:
        """Return the columns that all files have, in the same type, sorted by name."""
        schemas = [self._scan([file]).collect_schema() for file in self.files]
        return [name for name in sorted(schemas[0]) if len({_zoneless(s.get(name)) for s in schemas}) == 1]

    def blame(self, error: BaseException, needed: Sequence[str]) -> NoReturn:
        """Raise DataError with the file and the column at fault, which Polars does not name."""
        types: dict[str, pl.DataType] = {}
        for file in self.files:
            where, rows = file + self.label, self._scan([file])
            try:
                schema = rows.collect_schema()
                rows.select(c for c in needed if c in schema).collect()
            except (pl.exceptions.PolarsError, OSError) as fault:
                do = "Restore or rebuild the file."
                raise DataError("cannot read parquet", where=where, found=_line(fault), do=do) from error
            for name in needed:
                if name not in schema:
                    raise DataError(f"no column {name}", where=where, do=did_you_mean(name, schema)) from error
                if _zoneless(types.setdefault(name, schema[name])) != _zoneless(schema[name]):
                    what, expected = f"column {name} changes its type", f"{types[name]} as in {self.files[0]}"
                    raise DataError(what, where=where, expected=expected, found=schema[name]) from error
        raise error

    def exists(self) -> bool:
        """Return whether there is a file or a folder under the path."""
        return bool(self._kind() != pafs.FileType.NotFound)

    def append(self, table: pa.Table, partition_by: Iterable[str] | None = None) -> None:
        """Add rows: to a folder as new files, named by their content, so that a repeated write adds nothing.

        Partitions of the folder are kept; a new one is partitioned by `partition_by`. A single local file is rewritten,
        by one writer at a time. Of a pattern nobody knows where new rows belong, and a single object in S3 has no
        lock: both raise UserError.
        """
        kind = self._kind()
        if kind != pafs.FileType.File and self._root == self.path:
            names = list(self.partitions if self._found() else partition_by or ())
            for folder, part in _parts(table, names):
                data = _bytes(part)
                self._put(f"{self.path}/{folder}{hashlib.sha256(data).hexdigest()[:32]}.parquet", data)
        elif kind == pafs.FileType.File and not self._prefix:
            with FileLock(Path(self.path).with_name(f".{Path(self.path).name}.lock")):
                old = pq.ParquetFile(self.path).read()
                self._put(self.path, _bytes(pa.concat_tables([old, table.cast(old.schema)])))
        else:
            raise UserError("cannot add rows", where=self.path, expected="a folder, or a single local file")

    def replace(self, table: pa.Table) -> None:
        """Write rows as the only file: the one named, or ``part-0.parquet`` of the folder."""
        only = self.path if self.path.endswith(".parquet") else f"{self.path}/part-0.parquet"
        if set(self._found()) - {only}:
            raise UserError("other files lie in the folder", where=self.path, do="Name another folder, or a file.")
        self._put(only, _bytes(table))

    def _found(self) -> tuple[str, ...]:
        if self._kind() == pafs.FileType.File:
            return (self.path,)
        pattern, start = _regex(self._pattern), len(self._root) + 1
        below = pafs.FileSelector(self._bare(self._root), recursive=True, allow_not_found=True)
        names = [self._prefix + info.path for info in self._info(below) if info.type == pafs.FileType.File]
        return tuple(sorted(n for n in names if pattern.fullmatch(n[start:]) and not _hidden(n[start:])))

    def _scan(self, files: list[str]) -> pl.LazyFrame:
        options: dict[str, Any] = {"glob": False, "hive_partitioning": False, "extra_columns": "ignore"}
        options["cast_options"] = pl.ScanCastOptions(datetime_cast="convert-timezone")
        if self._prefix:
            options["storage_options"] = {"aws_allow_http": "true", **self.options}
        if not self.partitions:
            return pl.scan_parquet(files, **options)
        # Polars also believes the folders above the source, and them rather than what is stored.
        above = dict.fromkeys(_told(self._root + "/"), pl.String())
        own = {*pl.scan_parquet(files[0], **options).collect_schema(), *self.partitions} if above else set()
        if taken := own & above.keys():
            what = f"column {min(taken)} is told by a folder above the source"
            raise DataError(what, where=self._root, do="Move the folder, or rename the column.")
        options |= {"hive_partitioning": True, "hive_schema": {**above, **self.partitions}}
        return pl.scan_parquet(files, **options).drop(above)

    @property
    def _root(self) -> str:
        """The part of the path before the first wildcard."""
        return re.split(r"/[^/]*[*?\[]", self.path, maxsplit=1)[0]

    @property
    def _pattern(self) -> str:
        return self.path[len(self._root) + 1 :] or "**/*.parquet"

    @property
    def _prefix(self) -> str:
        return "s3://" if self.path.startswith("s3://") else ""

    def _bare(self, path: str) -> str:
        return path[len(self._prefix) :]

    @cached_property
    def _filesystem(self) -> pafs.FileSystem:
        if not self._prefix:
            return pafs.LocalFileSystem()
        return pafs.S3FileSystem(**{S3_OPTIONS[name]: value for name, value in self.options.items()})

    def _kind(self) -> Any:
        return self._info(self._bare(self.path)).type

    def _info(self, what: Any) -> Any:
        try:
            return self._filesystem.get_file_info(what)
        except OSError as error:
            raise EnvironmentFault("cannot list files", where=self.path, found=_line(error)) from error

    def _put(self, path: str, data: bytes) -> None:
        """Write one file whole or not at all; an object in S3 appears when its last byte has arrived."""
        try:
            if self._prefix:
                with self._filesystem.open_output_stream(self._bare(path)) as stream:
                    stream.write(data)
                return
            with writing(Path(path)) as beside:
                beside.write_bytes(data)
        except OSError as error:
            do = "Mend that and do it again: nothing is half-written."
            raise EnvironmentFault("cannot write", where=path, found=_line(error), do=do) from error


def _regex(pattern: str) -> re.Pattern[str]:
    known = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    return re.compile(
        "".join(known.get(w) or (w.replace("[!", "[^") if w.startswith("[") else re.escape(w)) for w in words)
    )


def _hidden(name: str) -> bool:
    """Return whether a reader skips the file: ``_date=2024-01-01`` is a partition, ``_delta_log`` is not."""
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in name.split("/"))


def _told(path: str) -> dict[str, str]:
    """Return what the folders of a path tell, text by column."""
    return {n: unquote(v) for n, e, v in (part.partition("=") for part in path.split("/")[:-1]) if e}


def _partition_type(values: Sequence[str]) -> pl.DataType:
    known = [value for value in values if value != _NULL]
    if known and all(re.fullmatch(r"0|-?[1-9]\d{0,17}", value) for value in known):
        return pl.Int64()
    return pl.Date() if known and all(re.fullmatch(r"\d{4}-\d\d-\d\d", value) for value in known) else pl.String()


def _zoneless(dtype: pl.DataType | None) -> pl.DataType | None:
    """Return a type without its zone, which changes no instant."""
    return pl.Datetime(dtype.time_unit) if isinstance(dtype, pl.Datetime) else dtype


def _parts(table: pa.Table, names: list[str]) -> Iterable[tuple[str, pa.Table]]:
    """Split a table by the values of the named columns, which move into the names of folders."""
    if not names:
        return [("", table)]
    rows = pl.DataFrame(table).with_row_index("__row")
    found = []
    for values, part in rows.partition_by(names, as_dict=True, maintain_order=True).items():
        words = [_NULL if value is None else quote(str(value), safe=" ") for value in values]
        folder = "".join(f"{name}={word}/" for name, word in zip(names, words, strict=True))
        found.append((folder, table.take(part["__row"].to_arrow()).drop_columns(names)))
    return found


def _bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _line(error: Exception) -> str:
    """Return the first line of what a library has to say."""
    return str(error).split("\n", 1)[0]
