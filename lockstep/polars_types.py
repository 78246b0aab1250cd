"""Types at the borders of Polars, Arrow, pandas and Feast: nothing changes its value on the way."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from lockstep.errors import UserError

__all__ = ["arrow", "arrow_schema", "conform", "fits", "frame", "pandas"]

_INTS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_TEXT = ("String", "Categorical", "Enum")
_STORED_AS = {
    **dict.fromkeys(("INT32", "INT64"), _INTS),
    **dict.fromkeys(("FLOAT32", "FLOAT64"), (*_INTS, "Float32", "Float64")),
    "BOOL": ("Boolean",),
    "BYTES": ("Binary",),
    "UNIX_TIMESTAMP": ("Datetime",),
    **dict.fromkeys(("STRING", "JSON", "UUID", "TIME_UUID", "DECIMAL"), _TEXT),
}
"""Feast type -> Polars types in which such a feature may be stored; types not listed here are not judged."""

_NULLABLE = {
    getattr(pa, f"{sign}int{bits}")(): getattr(pd, f"{sign.upper()}Int{bits}Dtype")()
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def fits(stored: Any, declared: Any) -> bool:
    """Return whether a column is of the kind that the declared Feast type says; widths of numbers are not judged."""
    if (inner := getattr(declared, "base_type", None)) is not None:
        return isinstance(stored, pl.List | pl.Array) and fits(stored.inner, inner)
    return type(stored).__name__ in _STORED_AS.get(getattr(declared, "name", ""), [type(stored).__name__])


def frame(entity_df: Any) -> pl.DataFrame:
    """Return entity rows as a Polars frame: from pandas, Polars (lazy too), Arrow, or whatever speaks Arrow."""
    if isinstance(entity_df, pl.LazyFrame):
        return entity_df.collect()
    if isinstance(entity_df, pd.DataFrame):
        if taken := [str(name) for name in entity_df.columns[entity_df.columns.duplicated()]]:
            raise UserError("entity_df has two columns of one name", found=", ".join(taken), do="Rename one of them.")
        try:
            return pl.from_pandas(entity_df)
        except (pa.ArrowException, pl.exceptions.PolarsError, TypeError) as error:
            mixed = ", ".join(str(name) for name, column in entity_df.items() if column.map(type).nunique() > 1)
            do = "Give each column one type, such as 'Int64' or 'string'."
            raise UserError("values of several types", where=f"entity_df {mixed}", found=error, do=do) from error
    if hasattr(entity_df, "__arrow_c_stream__"):
        return pl.DataFrame(entity_df)
    raise UserError(
        "entity_df is of a kind this store cannot read",
        expected="a pandas, Polars or Arrow table",
        found="SQL text" if isinstance(entity_df, str) else type(entity_df).__name__,
        do="Run the query yourself and pass its rows.",
    )


def arrow(frame: pl.DataFrame) -> pa.Table:
    """Return a frame as one Arrow chunk of plain types: to Feast, a ``large_string`` is not text but JSON."""
    table = frame.rechunk().to_arrow()
    plain = pa.schema([field.with_type(_plain(field.type)) for field in table.schema])
    return table.cast(plain).combine_chunks()


def arrow_schema(schema: pl.Schema) -> pa.Schema:
    """Return the Arrow types in which columns are written, and shown to Feast; text of any kind is a string."""
    text = {name for name, dtype in schema.items() if type(dtype).__name__ in _TEXT}
    return arrow(pl.DataFrame(schema={n: pl.String() if n in text else dtype for n, dtype in schema.items()})).schema


def pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas, where only integer columns with nulls are of a nullable type."""
    frame: pd.DataFrame = table.to_pandas()
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type) and column.null_count:
            frame[field.name] = column.to_pandas(types_mapper=_NULLABLE.get)
    return frame


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Return a table with the columns of `schema`, in its order and types; raise UserError if a value would change.

    Numbers may become other numbers of the same value, and instants other instants; text stays text.
    """
    index = [name for name in table.column_names if name.startswith("__index_level_") and name not in schema.names]
    table = table.drop_columns(index)  # what pandas adds to a frame that was filtered
    if len(table.column_names) != len(schema.names) or set(table.column_names) != set(schema.names):
        expected, found = ", ".join(schema.names), ", ".join(table.column_names)
        raise UserError("rows do not have the columns of their table", where=where, expected=expected, found=found)
    columns = []
    for field in schema:
        column = table[field.name]
        try:
            if _kind(column.type) not in ("null", _kind(field.type)):
                raise pa.ArrowInvalid(f"{column.type} is of another kind")
            columns.append(column.cast(field.type))
        except pa.ArrowException as error:
            what, do = f"column {field.name} does not fit its table", "Cast it before you write it."
            raise UserError(what, where=where, expected=field.type, found=error, do=do) from error
    return pa.table(columns, schema=schema)


def _kind(dtype: Any) -> str:
    """Return what a type holds."""
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    if pa.types.is_dictionary(dtype):
        return _kind(dtype.value_type)
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return f"list of {_kind(dtype.value_type)}"
    return "instant" if pa.types.is_timestamp(dtype) else str(_plain(dtype))


def _plain(dtype: Any) -> Any:
    """Return the Arrow type with 32-bit offsets, a vector as a list, inside lists and structs too."""
    if pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return pa.list_(_plain(dtype.value_type))
    if pa.types.is_struct(dtype):
        return pa.struct([field.with_type(_plain(field.type)) for field in dtype])
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(dtype, dtype)
