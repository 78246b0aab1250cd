"""The train stage: choose hyperparameters on the last cut-offs of train, then fit on all of train.

The test part is never looked at. Between the rows that fit a candidate and those that judge it lies an embargo of one
horizon, so that every label that was learnt from had closed before the first judged cut-off.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep import metrics
from lockstep.errors import DataError, SettingsError, did_you_mean
from lockstep.files import read_json, read_parquet, write_json
from lockstep.model_file import Fitted, save
from lockstep.preprocess import Preprocess
from lockstep.project import project
from lockstep.settings import Model, Train
from lockstep.stage import stage

__all__ = ["Columns", "Trained", "columns_of", "main", "named_model", "train", "write"]

Params = dict[str, Any]
Labels = NDArray[np.int64]


class Columns(NamedTuple):
    """What a model reads of the training set: names and Polars types of its features, and the keys of a row.

    The keys and the cut-off identify a row. Rows that share the first key are not independent: what is drawn, or fitted
    apart, is all of them together.
    """

    keys: tuple[str, ...]
    features: dict[str, str]


class Trained(NamedTuple):
    """A fitted model and the record of how it was chosen (plain JSON values)."""

    fitted: Fitted
    record: dict[str, Any]


def train(
    rows: pl.DataFrame, columns: Columns, name: str, model: Model, settings: Train, *, horizon_days: int
) -> Trained:
    """Choose and fit model `name` on the train part of `rows`, in whatever order they come.

    Parameters
    ----------
    rows
        The training set: the keys, ``cutoff``, ``part``, ``label`` and at least the model's features.
    horizon_days
        Calendar days that a label looks forward: the embargo.

    Raises
    ------
    DataError
        A column is missing or of another type, a part is empty, or it has one class only.
    SettingsError
        A hyperparameter that the estimator does not know or accept.
    """
    part = _part(rows, columns)
    early, late = _split(part, settings.validation_cutoffs, horizon_days)
    scores = _grid(early, late, columns, model, settings.seed)
    best = min(range(len(scores)), key=lambda i: scores[i]["log_loss"])  # the first of equals
    x, y, preprocess = _matrix(part, columns, model, settings.seed)
    estimator = _fit(x, y, model, scores[best]["params"], settings.seed)
    record = {
        "model": name,
        "question": model.question,
        "service": model.service,
        "estimator": model.estimator,
        "preprocess": model.preprocess.model_dump(),
        "features": columns.features,
        "seed": settings.seed,
        "params": scores[best]["params"],
        "chosen_by": "log_loss",
        "scores": scores,
        "fitted_early": _about(early),
        "validated": _about(late),
        "fitted": _about(part),
    }
    return Trained(Fitted(name, preprocess, estimator), record)


def _part(rows: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Return the train rows in canonical order, after judging columns and labels."""
    wanted = [*columns.keys, "cutoff", "part", "label", *columns.features]
    for column in wanted:
        if column not in rows.columns:
            raise DataError(f"no column {column!r}", where="the training set", do=did_you_mean(column, rows.columns))
    for column, dtype in columns.features.items():
        if str(rows.schema[column]) != dtype:
            raise DataError(
                "another type",
                where=f"column {column!r} of the training set",
                expected=dtype,
                found=rows.schema[column],
                do="Build the dataset again.",
            )
    part = rows.filter(pl.col("part") == "train").select(wanted).sort("cutoff", *columns.keys)
    _judge(part, "the train part")
    return part


def _judge(part: pl.DataFrame, where: str) -> None:
    """Refuse a part from which nothing can be learnt."""
    found = part["label"].unique().sort().to_list()
    if found != [0, 1]:
        what = "no rows" if part.is_empty() else "labels that cannot be learnt from"
        raise DataError(
            what,
            where=where,
            expected="both 0 and 1, no null",
            found=found,
            do="Widen the cut-offs in params.yaml (questions), or lower train.validation_cutoffs.",
        )


def _split(part: pl.DataFrame, count: int, horizon_days: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows whose labels had closed when the last `count` cut-offs began, and the rows of these."""
    cutoffs = part["cutoff"].unique().sort()
    first = cutoffs[max(len(cutoffs) - count, 0)]
    late = part.filter(pl.col("cutoff") >= first)
    early = part.filter(pl.col("cutoff") <= first - timedelta(days=horizon_days))
    _judge(early, f"train cut-offs up to {horizon_days} days before {first}")
    _judge(late, f"the last {count} train cut-offs")
    return early, late


def _about(part: pl.DataFrame) -> dict[str, Any]:
    cutoffs = part["cutoff"]
    return {
        "first": str(cutoffs.min()),
        "last": str(cutoffs.max()),
        "rows": part.height,
        "positives": int(part["label"].sum()),
    }


def _grid(early: pl.DataFrame, late: pl.DataFrame, columns: Columns, model: Model, seed: int) -> list[dict[str, Any]]:
    """Return parameters and validation scores of every combination, in the order of the grid.

    What decides is the published number: the record explains the choice.
    """
    both = sorted(set(model.fixed) & set(model.grid))
    if both:
        raise SettingsError(f"{both[0]!r} both in fixed and in grid", where="models in params.yaml", do="Keep one.")
    x, y, preprocess = _matrix(early, columns, model, seed)
    later, label = preprocess.transform(late.select(columns.features.keys()), allow_nulls=True), _labels(late)
    scores = []
    for values in itertools.product(*model.grid.values()):
        params = dict(zip(model.grid, values, strict=True))
        score = Fitted("", preprocess, _fit(x, y, model, params, seed)).predict(later, exact=True)
        found = {name: metrics.published(metric(label, score)) for name, metric in metrics.METRICS.items()}
        scores.append({"params": {**model.fixed, **params}, **found})
    return scores


def _matrix(
    part: pl.DataFrame, columns: Columns, model: Model, seed: int
) -> tuple[NDArray[np.float64], Labels, Preprocess]:
    """Fit the preprocessing on `part` alone; return its matrix, labels and the fitted state."""
    steps = model.preprocess
    preprocess = Preprocess(list(steps.numeric), steps.categorical, seed=seed)
    y = _labels(part)
    x = preprocess.fit_transform(part.select(columns.features.keys()), y, metrics.entity_codes(part, columns.keys[:1]))
    if model.estimator == "logistic_regression" and np.isnan(x).any():
        null = preprocess.columns[int(np.isnan(x).any(axis=0).argmax())]
        raise SettingsError(
            "logistic_regression takes no nulls",
            where="preprocess.numeric in params.yaml",
            expected="impute",
            found=f"{null!r} with nulls",
            do="Add impute as the first step.",
        )
    return x, y, preprocess


def _labels(part: pl.DataFrame) -> Labels:
    return part["label"].cast(pl.Int64).to_numpy()


def _fit(x: NDArray[np.float64], y: Labels, model: Model, params: Mapping[str, Any], seed: int) -> Any:
    """Return the fitted estimator of `model`, with every draw seeded."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    given = {**model.fixed, **params}
    # Early stopping would hold out rows of entities that it also fits, and would stop elsewhere on another sample.
    ours: Params = {"random_state": seed, "early_stopping": False}
    kind = HistGradientBoostingClassifier
    if model.estimator == "logistic_regression":
        kind, ours = LogisticRegression, {"random_state": seed, "max_iter": 1000}
    if "random_state" in given:
        raise SettingsError(
            "a seed of its own", where="models in params.yaml", found="random_state", do="Set train.seed."
        )
    for key in given:
        if key not in kind().get_params():
            raise SettingsError(
                f"unknown hyperparameter {key!r}",
                where=f"models in params.yaml ({model.estimator})",
                do=did_you_mean(key, kind().get_params()),
            )
    estimator = kind(**{**ours, **given})
    try:
        with threadpool_limits(1, "blas"):  # BLAS sums in an order that follows its number of threads
            return estimator.fit(x, y)
    except (TypeError, ValueError) as e:  # sklearn's InvalidParameterError is a ValueError
        raise SettingsError(
            "hyperparameters that do not fit",
            where="models in params.yaml",
            found=" ".join(str(e).split()),
            do="Mend fixed or grid.",
        ) from e


def write(trained: Trained, folder: Path) -> dict[str, str]:
    """Write ``preprocess.skops``, ``model.skops`` and ``train.json``; return the hashes of the first two."""
    hashes = save(trained.fitted, folder)
    write_json({**trained.record, "hashes": hashes}, folder / "train.json")
    return hashes


def main() -> None:
    """Train the model that the command line names."""
    here, name = project(), sys.argv[1]
    model = named_model(here.settings.models, name)
    asked = here.root / "artifacts/dataset" / model.question
    about, rows = read_json(asked / "columns.json"), read_parquet(asked / "training.parquet")
    columns = columns_of(about, model.service)
    trained = train(rows, columns, name, model, here.settings.train, horizon_days=about["horizon_days"])
    write(trained, here.root / "artifacts/model" / name)
    chosen = next(s for s in trained.record["scores"] if s["params"] == trained.record["params"])
    print(f"{name}: {trained.record['params']}, validation AUC {chosen['auc']}, log loss {chosen['log_loss']}")


def named_model(models: Mapping[str, Model], name: str) -> Model:
    """Return the settings of model `name`; raise SettingsError with the nearest name when there is none."""
    if name not in models:
        raise SettingsError(f"no model {name!r}", where="models in params.yaml", do=did_you_mean(name, models))
    return models[name]


def columns_of(about: Mapping[str, Any], service: str) -> Columns:
    """Return what `service` reads, from the content of ``columns.json``."""
    services = about["services"]
    if service not in services:
        raise SettingsError(f"no service {service!r}", where="columns.json", do=did_you_mean(service, services))
    return Columns(tuple(about["keys"]), dict(services[service]))


if __name__ == "__main__":
    sys.exit(stage(main))
