"""Names and kinds: which names are Lockstep's own, how a user's are held apart, and what a definition may hold."""

from __future__ import annotations

import keyword
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lockstep.errors import DefinitionError

__all__ = ["FITTED_AT", "RESERVED", "VERSION", "check_kinds", "one_of_each", "sentence", "shown", "unique"]

FITTED_AT = "fitted_at"
"""The column from which a formula of a FittedView reads the instant of the fit: the version of its values."""

RESERVED = {"event_timestamp", "created", "event_day", "cutoff", "part", "label", FITTED_AT}
"""Names of columns that stand beside features."""

VERSION = re.compile(r"_v[0-9]+$")
"""The end of a name that a version above 1 gets, and nobody else may write."""

_SAID = {
    "str": "text",
    "int": "a whole number",
    "bool": "True or False",
    "Source": "a function under @source(...)",
    "tuple[Entity, ...] | list[Entity]": "a list of entities, such as [household]",
    "tuple[Feature, ...] | list[Feature]": "a list of features, such as [Feature(...)]",
    "tuple[View, ...] | list[View]": "a list of views, such as [household_trips]",
    "tuple[str, ...] | list[str]": "a list of names",
    "Aggregation | pl.Expr | pl.DataType": "an aggregation such as agg.count(), a Polars formula or a type",
    "tuple[float | None, float | None]": "(lowest, highest), numbers or None",
    "pl.Expr": "a Polars condition, such as pl.col('value') > 0",
    "tuple[str, str]": "the names of two Date columns, such as ('start_date', 'end_date')",
    "Mapping[str, str]": "text by name",
    "Mapping[str, pl.DataType]": "types by name, such as {'at': INSTANT}",
}
"""What annotations say to people."""


def check_kinds(thing: Any, where: str) -> None:
    """Refuse a definition that holds values of other kinds than its fields are annotated with, or has no plain name."""
    hints = get_type_hints(type(thing))
    for field in fields(thing):
        value, kind = getattr(thing, field.name), str(field.type).removesuffix(" | None")
        if not field.name.startswith("_") and not _is(value, hints[field.name]):
            raise DefinitionError(
                f"{field.name}= of a wrong kind", where=where, found=shown(value),
                expected=_SAID.get(kind) or re.sub(r"^Callable.*|^Literal\[(.*)\]", r"\1", kind) or "a function",
            )  # fmt: skip
        if field.name in ("name", "key") and isinstance(value, str):
            _check_plain(value, where)


def _is(value: object, hint: Any) -> bool:
    """Tell whether a value, with all that a list, tuple or mapping holds, is what a type hint says."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if kind is Literal:
        return value in inner
    if kind is float:
        kind = int | float
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
        return False
    if kind is tuple and ... not in inner:
        return len(value) == len(inner) and all(map(_is, value, inner))
    if kind in (list, tuple, Mapping):
        return all(_is(one, inner[0]) for one in value)
    return True


def shown(value: object) -> str:
    """Return a value for people: a thing that has a name by it, and `...`, which means not given, as ``nothing``."""
    if value is ...:
        return "nothing"
    name = getattr(value, "name", "") if is_dataclass(value) else getattr(value, "__name__", "")
    return f"{type(value).__name__} {name}" if isinstance(name, str) and name else repr(value)


def _check_plain(name: str, where: str) -> None:
    """Refuse a name that is no identifier in each of Python, Feast, Parquet and SQL."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or "__" in name or keyword.iskeyword(name):
        raise DefinitionError(
            f"{name!r} is no plain name", where=where, do="Rename it.",
            expected="a letter, then letters, digits and single underscores; no word of Python's",
        )  # fmt: skip


def unique(names: Sequence[str], where: str) -> None:
    """Refuse names that are not plain, that are Lockstep's own, or that stand twice."""
    for name in names:
        _check_plain(name, where)
        if name in RESERVED:
            raise DefinitionError(f"{name!r} is a name of Lockstep's own", where=where, do="Choose another.")
        if names.count(name) > 1:
            raise DefinitionError(f"feature {name!r} stands twice", where=where, do="Remove or rename one of them.")


def one_of_each(things: Iterable[Any], what: str) -> None:
    """Refuse two different `things` of one name: one of them would be taken for the other."""
    found: dict[str, Any] = {}
    for thing in things:
        if found.setdefault(thing.name, thing) is not thing:
            raise DefinitionError(f"{what} {thing.name!r} is defined twice", where=f"the {what}s", do="Rename one.")


def sentence(text: str) -> str:
    """Return what a user wrote as a sentence: ``use trips v2`` -> ``Use trips v2.``."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
