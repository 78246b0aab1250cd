"""The values of a FittedView: what its fit makes of the events known on the first day of a period, checked."""

from __future__ import annotations

from datetime import date

import polars as pl

from lockstep.define import FittedView
from lockstep.errors import DefinitionError, LockstepError, did_you_mean

__all__ = ["fitted"]


def fitted(view: FittedView, known: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the fit of the events `known` on `day`: the view's keys and the fitted features, a row an entity.

    Raises
    ------
    DefinitionError
        The fit raises, gives other columns or types than the view declares, an entity twice, or one that no event has.
    """
    keys, where = [*view.keys], f"the fit of view {view.name} on {day}"
    types = pl.Schema({**{key: known.schema[key] for key in keys}, **view.fitted()})
    if known.is_empty():
        return pl.DataFrame(schema=types)
    try:
        found = view.refit(known, day)
    except LockstepError:
        raise
    except Exception as e:
        told = f"{type(e).__name__}: {' '.join(str(e).split())}"
        raise DefinitionError("a fit that does not come to an end", where=where, found=told, do="Mend it.") from e
    for name, kind in types.items():
        if found.schema.get(name) != kind:
            raise DefinitionError(
                f"not the column {name!r}", where=where, expected=kind, found=found.schema.get(name),
                do="Cast it in the fit." if name in found.schema else did_you_mean(name, found.columns),
            )  # fmt: skip
    twice = found.select(keys).filter(found.select(keys).is_duplicated())
    strange = found.select(keys).join(known, on=keys, how="anti", nulls_equal=True)
    for what, rows in (("an entity twice", twice), ("an entity that no known event has", strange)):
        if not rows.is_empty():
            raise DefinitionError(what, where=where, expected="one row an entity of the events", found=rows.row(0))
    return found.select(list(types))
