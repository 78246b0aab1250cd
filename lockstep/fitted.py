"""The values of a FittedView: what its fit makes of the events known on the first day of a period, checked."""

from __future__ import annotations

from datetime import date

import polars as pl

from lockstep.define import FittedView
from lockstep.errors import DefinitionError, did_you_mean

__all__ = ["fitted"]


def fitted(view: FittedView, known: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the fit of the events `known` on `day`: the entity's key and the fitted features, a row an entity.

    Raises
    ------
    DefinitionError
        The fit gives other columns or types than the view declares, an entity twice, or one that no event has.
    """
    key, where = view.entity.key, f"the fit of view {view.name} on {day}"
    types = pl.Schema({key: known.schema[key], **view.fitted()})
    if known.is_empty():
        return pl.DataFrame(schema=types)
    found = view.fit(known, day)
    for name, kind in types.items():
        if found.schema.get(name) != kind:
            raise DefinitionError(
                f"not the column {name!r}", where=where, expected=kind, found=found.schema.get(name),
                do="Cast it in the fit." if name in found.schema else did_you_mean(name, found.columns),
            )  # fmt: skip
    if found[key].is_duplicated().any():
        raise DefinitionError("an entity twice", where=where, found=found[key].filter(found[key].is_duplicated())[0])
    if not (strange := found.join(known, on=key, how="anti", nulls_equal=True)).is_empty():
        raise DefinitionError("an entity that no known event has", where=where, found=strange[key][0])
    return found.select(list(types))
