"""Great Expectations on DuckDB: the one place that mends what the two do not yet do together.

Great Expectations 1.24 has no DuckDB data source (great-expectations/great_expectations#10738 and #11579, both closed;
an engine of its own is open as PR #12084). Through duckdb-engine 0.17 on SQLAlchemy 2.0 three things are missing:

1. Great Expectations reads results after it has left ``with engine.connect()``, and duckdb-engine has forgotten them by
   then: every expectation fails with ``IndexError: list index out of range``. One connection is kept instead.
2. It knows neither DuckDB's types nor its regular expressions: `_Dialect` names the types as contracts do and says
   that ``~`` works as in PostgreSQL, whose dialect duckdb-engine builds on.
3. duckdb-engine quotes what PostgreSQL reserves; DuckDB reserves other words, such as ``at``: a column of that name is
   a syntax error.

(On SQLAlchemy 2.1 reflection breaks as well.) A strict xfail test tells when this file can go.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Type  # noqa: UP035 - see execution_engine_type

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import duckdb
import sqlalchemy as sa

with warnings.catch_warnings():  # it imports `sre_constants`, which Python deprecates
    warnings.filterwarnings("ignore", "module 'sre_", DeprecationWarning)
    import great_expectations as gx
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from sqlalchemy.dialects import postgresql

__all__ = ["batches"]


class _Dialect:
    """What Great Expectations asks of a dialect's module: its dialect, and its types by name."""

    dialect = postgresql.dialect
    int64 = sa.BigInteger
    float64 = sa.Float
    string = sa.String
    date = sa.Date
    instant = sa.TIMESTAMP
    bool = sa.Boolean


def _reserved_words() -> set[str]:
    query = "select keyword_name from duckdb_keywords() where keyword_category <> 'unreserved'"
    with duckdb.connect() as connection:
        return {word for (word,) in connection.execute(query).fetchall()}


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):  # type: ignore[misc]
    """An engine that keeps its one connection."""

    _kept: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dialect_module = _Dialect
        self.engine.dialect.identifier_preparer.reserved_words = _reserved_words()

    @contextmanager
    def get_connection(self) -> Iterator[Any]:
        """Yield the kept connection."""
        if self._kept is None or self._kept.closed:
            self._kept = self.engine.connect()
        yield self._kept

    def close(self) -> None:
        """Close the kept connection, then the engine."""
        if self._kept is not None:
            self._kept.close()
        super().close()


class LockstepDuckDBDatasource(SQLDatasource):  # type: ignore[misc]
    """A data source of DuckDB views, `context.data_sources.add_lockstep_duckdb`."""

    type: Literal["lockstep_duckdb"] = "lockstep_duckdb"

    @property
    def execution_engine_type(self) -> Type[DuckDBExecutionEngine]:  # noqa: UP006 - `type` is a field here
        """Return the engine's class."""
        return DuckDBExecutionEngine


def _create_views(database: Path, tables: Mapping[str, Sequence[Path]]) -> None:
    """Create a view over each table's partitions, with ``_landing_day`` from the file name.

    Columns are joined by name and to their common type, so that a partition of another type is seen as one.
    """
    with duckdb.connect(str(database)) as connection:
        for table, files in tables.items():
            quoted = ", ".join("'" + str(f).replace("'", "''") + "'" for f in files)
            day = "regexp_extract(filename, '([0-9]{4}-[0-9]{2}-[0-9]{2})[.]parquet$', 1)"
            columns = f"* exclude (filename), cast({day} as date) as _landing_day"
            options = "filename = true, union_by_name = true, hive_partitioning = false"
            view = f"select {columns} from read_parquet([{quoted}], {options})"  # noqa: S608 - our own partitions
            connection.execute(f'create view "{table}" as {view}')


@contextmanager
def batches(tables: Mapping[str, Sequence[Path]]) -> Iterator[Mapping[str, Any]]:
    """Yield a Great Expectations batch of each table's partitions, views that are never materialised.

    The context lives in memory: nothing is written to the project, sent anywhere or printed.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-gx-") as folder:
        database = Path(folder) / "views.duckdb"
        _create_views(database, tables)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_lockstep_duckdb("landed", connection_string=f"duckdb:///{database}")
        try:
            yield {t: source.add_table_asset(t).add_batch_definition_whole_table("all").get_batch() for t in tables}
        finally:
            source.get_execution_engine().close()
