"""Fitted preprocessing: rows of features in, one float64 matrix out; fitted on training rows, then frozen.

One object holds all of it: names and types of the columns, the steps for numbers, the vocabulary of each category. It
takes a Polars frame or one row as a mapping, and both give the same bits. An unseen category never fails; a column
that is missing, moved or of another type always does, and a vector of another width is of another type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from lockstep.errors import DataError
from lockstep.vectors import is_finite, width, without_vectors

__all__ = ["Clip", "Preprocess", "SignedLog"]

Matrix = NDArray[np.float64]

RARE = 20  # a value on fewer training rows joins the "other" bucket, so that this bucket has been trained
SMOOTHING = 20.0  # target encoding: the weight of the overall mean, in rows
FOLDS = 5


class Clip(BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """Clip each column to the training rows' quantiles `low` and `high`; nulls (NaN) stay."""

    def __init__(self, low: float = 0.001, high: float = 0.999) -> None:
        self.low, self.high = low, high

    def fit(self, x: Matrix) -> Clip:
        """Take the bounds from `x`, shape (n, p): values that occur in it (nearest rank), never in between."""
        known = [column[~np.isnan(column)] for column in x.T]
        ends = [np.quantile(k, [self.low, self.high], method="nearest") if k.size else (-np.inf, np.inf) for k in known]
        self.bounds_ = np.array(ends, dtype=np.float64).reshape(-1, 2).T
        return self

    def transform(self, x: Matrix) -> Matrix:
        """Return `x` within the bounds."""
        return np.clip(x, self.bounds_[0], self.bounds_[1])


class SignedLog(BaseEstimator):  # type: ignore[misc]
    """sign(x) * log(1 + abs(x)), which also takes refunds and zero; nulls (NaN) stay."""

    def fit(self, x: Matrix) -> SignedLog:  # noqa: ARG002 - one face for all steps
        """Learn nothing."""
        return self

    def transform(self, x: Matrix) -> Matrix:
        """Return the signed logarithm of `x`."""
        return np.copysign(np.log1p(np.abs(x)), x)


def _step(name: str, seed: int, rows: int) -> Any:
    """Return the step that the settings call `name`, to be fitted on `rows` rows."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    if name == "impute":
        return SimpleImputer(strategy="median", keep_empty_features=True)
    if name == "quantile":
        return QuantileTransformer(
            n_quantiles=min(1000, rows), output_distribution="normal", subsample=None, random_state=seed
        )
    return {"clip": Clip, "log": SignedLog, "scale": StandardScaler}[name]()


class Preprocess(BaseEstimator):  # type: ignore[misc]
    """Numbers through `numeric` steps in order, categories through one encoding; numbers first in the matrix.

    A vector (``pl.Array`` of floats) is as many numbers as it is wide, behind all others: null where it is null.

    Parameters
    ----------
    numeric
        Any of ``impute`` (median), ``clip`` (to the training quantiles .001 and .999), ``log`` (signed log1p),
        ``scale`` (mean 0, deviation 1) and ``quantile`` (to a normal distribution). Without ``impute`` a null is NaN.
    categorical
        ``ordinal`` (place in the sorted vocabulary, then other, then null), ``one_hot`` (a column for each of these)
        or ``target`` (smoothed share of label 1).
    rare
        Values on fewer training rows are not in the vocabulary: they share the bucket of unseen ones.
    seed
        Passed to the steps that take one.
    """

    def __init__(
        self, numeric: Sequence[str] = (), categorical: str = "ordinal", rare: int = RARE, seed: int = 0
    ) -> None:
        self.numeric, self.categorical, self.rare, self.seed = numeric, categorical, rare, seed

    def fit(self, frame: pl.DataFrame, label: NDArray[np.int64] | None = None) -> Preprocess:
        """Learn columns, bounds and vocabularies from training rows, and nothing from anywhere else.

        Raises
        ------
        DataError
            No rows, a column of a type that no model takes, or NaN or infinity in it.
        """
        if frame.is_empty():
            raise DataError("nothing to fit", where="preprocess", expected="rows", found="none", do="Widen the part.")
        self.features_ = {name: str(dtype) for name, dtype in frame.schema.items()}
        self.numbers_ = [name for name, dtype in frame.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
        self.vectors_ = {name: wide for name, dtype in frame.schema.items() if (wide := width(dtype))}
        self.categories_ = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        self.never_null_ = [name for name in frame.columns if frame[name].null_count() == 0]
        self._check(frame)
        self.vocabulary_ = {name: _vocabulary(frame[name], self.rare) for name in self.categories_}
        self.means_: dict[str, list[float]] = {}
        if self.categorical == "target":
            y = _needed(label)
            self.means_ = {
                name: _means(codes, len(self.vocabulary_[name]), y)
                for name, codes in zip(self.categories_, self._codes(frame), strict=True)
            }
        self.steps_ = [_step(name, self.seed, frame.height) for name in self.numeric]
        x = self._numbers(frame)
        for step in self.steps_:
            x = step.fit(x).transform(x)
        return self

    def fit_transform(
        self, frame: pl.DataFrame, label: NDArray[np.int64] | None = None, groups: NDArray[np.int64] | None = None
    ) -> Matrix:
        """Fit, and return the matrix of the training rows, shape (n, p).

        Target encoding of a training row never sees the label of its own group: `groups` (one entity's rows share a
        number) are dealt to five folds in turn, and each fold is encoded by the others.
        """
        self.fit(frame, label)
        codes = self._codes(frame)
        if self.categorical != "target" or not codes:
            return self.transform(frame)
        y, fold = _needed(label), (np.arange(frame.height) if groups is None else groups) % FOLDS
        blocks = []
        for name, code in zip(self.categories_, codes, strict=True):
            block = np.empty(frame.height)
            for k in range(FOLDS):
                means = _means(code[fold != k], len(self.vocabulary_[name]), y[fold != k])
                block[fold == k] = np.array(means)[code[fold == k]]
            blocks.append(block[:, None])
        return np.hstack([self._stepped(self._numbers(frame)), *blocks])

    def transform(self, frame: pl.DataFrame, *, allow_nulls: bool = False) -> Matrix:
        """Return the matrix of `frame`, shape (n, p), columns as in `columns`.

        Parameters
        ----------
        frame
            Exactly the fitted columns, in the fitted order: select them by name first.
        allow_nulls
            Let a null through where the training rows had none. Evaluation does; serving should not.

        Raises
        ------
        DataError
            A column is missing, extra, moved or of another type; NaN or infinity; or a null where there was none.
        """
        self._check(frame)
        if not allow_nulls and (found := self.unexpected_nulls(frame)):
            name, count = next(iter(found.items()))
            raise _unexpected_null(name, f"{count} of {frame.height} rows")
        return np.hstack([self._stepped(self._numbers(frame)), *self._blocks(self._codes(frame))])

    def transform_row(self, values: Mapping[str, object], *, allow_nulls: bool = False) -> Matrix:
        """Return the matrix of one row given by name, shape (1, p): the same bits as `transform`, without a frame.

        Raises
        ------
        DataError
            As `transform`; other names in `values` are let be.
        """
        for name in self.features_:
            if name not in values:
                raise _column("missing column", name, self.features_[name], "none")
        if not allow_nulls:
            for name in self.never_null_:
                if values[name] is None:
                    raise _unexpected_null(name, "null")
        row = [_number(name, values[name], self.features_[name]) for name in self.numbers_]
        row += [x for name, wide in self.vectors_.items() for x in _vector(name, values[name], wide)]
        codes = [np.array([_code(name, values[name], self.vocabulary_[name])]) for name in self.categories_]
        return np.hstack([self._stepped(np.array([row]).reshape(1, -1)), *self._blocks(codes)])

    def unexpected_nulls(self, frame: pl.DataFrame) -> dict[str, int]:
        """Return the number of nulls in each column that had none when it was fitted, where there are any."""
        counts = {name: frame[name].null_count() for name in self.never_null_}
        return {name: count for name, count in counts.items() if count}

    @property
    def columns(self) -> list[str]:
        """Return the names of the matrix's columns."""
        names = [*self.numbers_, *(f"{name}[{n}]" for name, wide in self.vectors_.items() for n in range(wide))]
        for name in self.categories_:
            values = [*self.vocabulary_[name], "<other>", "<null>"]
            names += [f"{name}={value}" for value in values] if self.categorical == "one_hot" else [name]
        return names

    def _stepped(self, x: Matrix) -> Matrix:
        for step in self.steps_ if x.shape[1] else ():
            x = step.transform(x)
        return x

    def _numbers(self, frame: pl.DataFrame) -> Matrix:
        """Return the numeric columns and those of vectors, shape (n, numbers), null as NaN."""
        names = [*self.numbers_, *self.vectors_]
        if not names:
            return np.empty((frame.height, 0))
        return without_vectors(frame.select(names)).cast(pl.Float64).to_numpy(writable=True)

    def _codes(self, frame: pl.DataFrame) -> list[NDArray[np.int64]]:
        """Return the place of each value in its vocabulary, shape (n,) a category; then other, then null."""
        found = []
        for name in self.categories_:
            known = self.vocabulary_[name]
            place = pl.col(name).replace_strict(known, range(len(known)), default=len(known), return_dtype=pl.Int64)
            code = pl.when(pl.col(name).is_null()).then(len(known) + 1).otherwise(place)
            found.append(frame.select(code.cast(pl.Int64)).to_series().to_numpy())
        return found

    def _blocks(self, codes: list[NDArray[np.int64]]) -> list[Matrix]:
        """Return the columns that the encoding makes of each category."""
        if self.categorical == "one_hot":
            sizes = [len(self.vocabulary_[name]) + 2 for name in self.categories_]
            return [np.eye(size)[code] for size, code in zip(sizes, codes, strict=True)]
        if self.categorical == "target":
            means = [np.array(self.means_[name]) for name in self.categories_]
            return [mean[code][:, None] for mean, code in zip(means, codes, strict=True)]
        return [code.astype(np.float64)[:, None] for code in codes]

    def _check(self, frame: pl.DataFrame) -> None:
        """Refuse a frame that is not what was fitted, column by column."""
        found = {name: str(dtype) for name, dtype in frame.schema.items()}
        for name, dtype in self.features_.items():
            if found.get(name) != dtype:
                raise _column("missing column" if name not in found else "another type", name, dtype, found.get(name))
            if name not in (*self.numbers_, *self.vectors_, *self.categories_):
                raise _column("type that no model takes", name, "a number, a string or a vector of floats", dtype)
        if list(found) != list(self.features_):
            raise DataError(
                "columns moved or added",
                where="the model's input",
                expected=list(self.features_),
                found=list(found),
                do="Select the model's features by name, in its order.",
            )
        for name in frame.select(pl.col(self.numbers_) if self.numbers_ else []).columns:
            if frame[name].dtype.is_float() and (bad := frame.height - frame[name].is_finite().fill_null(True).sum()):
                raise _column("NaN or infinity", name, "finite numbers or null", f"{bad} of {frame.height} rows")
        for name in self.vectors_:
            if bad := frame.select((~is_finite(name, frame.schema[name])).sum()).item():
                raise _column("NaN, infinity or null inside a vector", name, "finite numbers or no vector", bad)


def _vector(name: str, value: object, wide: int) -> list[float]:
    """Return the components of one vector as the frame path would, null as NaN."""
    if value is None:
        return [math.nan] * wide
    if not isinstance(value, list) or len(value) != wide or None in value:
        raise _column("another vector", name, f"{wide} numbers", value)
    return [_number(name, x, "Float64") for x in value]


def _vocabulary(values: pl.Series, rare: int) -> list[str]:
    """Return the values on at least `rare` rows, sorted."""
    counts = values.drop_nulls().value_counts(name="n")
    return sorted(counts.filter(pl.col("n") >= rare)[values.name].to_list())


def _means(codes: NDArray[np.int64], size: int, label: NDArray[np.int64]) -> list[float]:
    """Return the share of label 1 for each code, pulled to the overall share by `SMOOTHING` rows of it."""
    rows = np.bincount(codes, minlength=size + 2)
    ones = np.bincount(codes[label == 1], minlength=size + 2)
    overall = float(label.sum()) / len(label) if len(label) else 0.0
    return [float(x) for x in (ones + SMOOTHING * overall) / (rows + SMOOTHING)]


def _needed(label: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if label is None:
        raise DataError("no label", where="target encoding", expected="the labels of the rows", do="Pass label.")
    return label


def _number(name: str, value: object, dtype: str) -> float:
    """Return one numeric value as the frame path would, null as NaN."""
    if value is None:
        return math.nan
    kinds = (bool,) if dtype == "Boolean" else (int, float) if dtype.startswith("Float") else (int,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and dtype != "Boolean"):
        raise _column("another type", name, dtype, type(value).__name__)
    number = float(value)
    if not math.isfinite(number):
        raise _column("NaN or infinity", name, "a finite number or null", value)
    return number


def _code(name: str, value: object, vocabulary: list[str]) -> int:
    """Return one category's place in its vocabulary; then other, then null."""
    if value is None:
        return len(vocabulary) + 1
    if not isinstance(value, str):
        raise _column("another type", name, "String", type(value).__name__)
    return vocabulary.index(value) if value in vocabulary else len(vocabulary)


def _column(what: str, name: str, expected: object, found: object) -> DataError:
    return DataError(
        what,
        where=f"column {name!r} of the model's input",
        expected=expected,
        found=found or "none",
        do="Feed the model the features it was fitted on.",
    )


def _unexpected_null(name: str, found: str) -> DataError:
    return DataError(
        "null where the training rows had none",
        where=f"column {name!r} of the model's input",
        expected="a value",
        found=found,
        do="Mend the feature, or declare what follows a null.",
    )
