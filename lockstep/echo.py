"""Label echoes: features that know the answer, because they were made of it or of what followed from it.

Cutting off the future (`lockstep.leakage`) finds what is computed from later events. A value that a source itself wrote
back into the past, such as a status that is filled in once the customer has left, passes every clock and shows only by
how well it tells the label alone (Kaufman et al., "Leakage in Data Mining", 2011, doi:10.1145/2382577.2382579).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from lockstep.errors import GuaranteeError
from lockstep.metrics import auc

__all__ = ["require_no_echo", "tells"]

FEW = 30
"""Rows of each answer below which even chance may tell them apart."""

RARE = 20
"""A text on fewer rows is one of the rare ones, which are compared together: alone it would know its rows by heart."""


def tells(feature: pl.Series, label: pl.Series) -> float | None:
    """Return how well a feature alone tells the label: the AUC, 0.5 to 1, of its best reading; None where unknown.

    Numbers, instants and truths are read in their own order either way, categories by their share of the label, and
    nulls as the lowest or the highest value of all. Of a vector, the best of its components.

    >>> tells(pl.Series([3, 1, None, 2] * 30), pl.Series([1, 0, 1, 0] * 30))
    1.0
    """
    answers = label.to_numpy().astype(np.int64)
    if min(answers.sum(), (1 - answers).sum()) < FEW:
        return None
    areas = [area for score in _scores(feature, label) if (area := auc(answers, score)) is not None]
    return max((max(area, 1 - area) for area in areas), default=None)


def _scores(feature: pl.Series, label: pl.Series) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Yield the readings of a feature, without nulls."""
    if isinstance(feature.dtype, pl.Array):
        for n in range(feature.dtype.size):
            yield from _scores(feature.arr.get(n), label)
        return
    if feature.dtype == pl.String:
        rows = pl.DataFrame([feature.alias("value"), label.alias("label")])
        common = pl.when(pl.len().over("value") >= RARE).then(pl.struct("value"))  # a null is a text as well
        yield rows.with_columns(common).select(pl.col("label").mean().over("value")).to_series().to_numpy()
        return
    ranked = feature.rank("dense").cast(pl.Float64)  # ranks: neither an infinity nor a unit matters
    for end in (0.0, ranked.len() + 1.0) if feature.null_count() else (0.0,):
        yield ranked.fill_null(end).to_numpy()


def require_no_echo(rows: pl.DataFrame, features: Sequence[str], most: float, where: str) -> None:
    """Raise GuaranteeError where one of the `features` alone tells the column ``label`` of `rows` by `most` or more."""
    found = {name: area for name in features if (area := tells(rows[name], rows["label"])) is not None}
    echoes = {name: area for name, area in found.items() if area >= most}
    if echoes:
        raise GuaranteeError(
            "a feature that knows the label", where=where, expected=f"an AUC below {most} for each feature alone",
            found=", ".join(f"{name} {area:.4f}" for name, area in sorted(echoes.items())),
            do="Look where its source gets it from: it was probably written after the fact. If it is honest, say so by"
            " `echo: null` of this dataset in params.yaml.",
        )  # fmt: skip
