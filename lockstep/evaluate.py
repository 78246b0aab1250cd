"""The evaluate stage: the saved model scores the test part, and its card says what it is made of.

Scores come from the files on disk, loaded by the hashes that training recorded, never from memory. The card holds
content hashes, chosen parameters and metrics; commit, host and time belong to the registry's record beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep import metrics
from lockstep.closure import closure_hash
from lockstep.errors import DataError, SettingsError, did_you_mean
from lockstep.files import file_hash, read_json, read_parquet, write_json, write_parquet, write_text
from lockstep.metrics import Draws
from lockstep.model_file import Fitted, open_model
from lockstep.project import Project, project
from lockstep.settings import Evaluate, Settings
from lockstep.stage import stage
from lockstep.train import Columns, columns_of, named_model

__all__ = ["Evaluation", "bins", "card", "curves", "evaluate", "main", "params_hash", "write"]

POINTS = 200  # at most, on a curve


class Evaluation(NamedTuple):
    """A model on the test part.

    `predictions` (keys, cutoff, label, score) one row a test row; `metrics` flat; `slices` and `by_cutoff` one row a
    slice; `gains` over each baseline, paired; `new_nulls` counts by column where training rows had none.
    """

    predictions: pl.DataFrame
    metrics: dict[str, Any]
    slices: list[dict[str, Any]]
    by_cutoff: list[dict[str, Any]]
    gains: dict[str, dict[str, Any]]
    new_nulls: dict[str, int]


def evaluate(
    rows: pl.DataFrame,
    columns: Columns,
    fitted: Fitted,
    settings: Evaluate,
    baselines: pl.DataFrame,
    *,
    slices: Mapping[str, Sequence[float]],
) -> Evaluation:
    """Score the test part of `rows` with `fitted`; every interval comes from the same draws of entities.

    Parameters
    ----------
    baselines
        The keys, ``cutoff`` and one column of scores a baseline, for the same test rows.
    slices
        For columns of `rows`, the inner edges of the bins that are judged apart.

    Raises
    ------
    DataError
        No test rows, a label that is not 0 or 1, columns that the model was not fitted on, or baselines of other rows.
    SettingsError
        A slice on a column that the training set does not have, or that holds no numbers.
    """
    keys = [*columns.keys, "cutoff"]
    test = rows.filter(pl.col("part") == "test").sort("cutoff", *columns.keys)
    if test.is_empty() or not test["label"].is_in([0, 1]).all() or test["label"].null_count():
        raise DataError("nothing to evaluate", where="the test part", expected="rows labelled 0 or 1")
    inputs = _select(test, list(fitted.preprocess.features_))
    beside = baselines.sort("cutoff", *columns.keys)
    if not beside.select(keys).equals(test.select(keys)):
        raise DataError("scores of other rows", where="baselines", do="Run the baselines stage again.")
    label, score = test["label"].cast(pl.Int64).to_numpy(), fitted.score(inputs, allow_nulls=True)
    draws = metrics.draw(metrics.entity_codes(test, columns.keys[:1]), settings.resamples, settings.seed)
    rivals = {name: beside[name].to_numpy() for name in beside.columns if name not in keys}
    counts = {"rows": test.height, "positives": int(label.sum())}
    return Evaluation(
        test.select(*keys, "label").with_columns(pl.Series("score", score)),
        {**metrics.flat(metrics.intervals(label, score, draws)), **counts},
        [_slice(name, mask, label, score, draws) for name, mask in bins(test, slices)],
        [_slice(str(day), (test["cutoff"] == day).to_numpy(), label, score, draws) for day in _cutoffs(test)],
        {name: metrics.flat(metrics.paired(label, score, rival, draws)) for name, rival in rivals.items()},
        fitted.preprocess.unexpected_nulls(inputs),
    )


def _cutoffs(test: pl.DataFrame) -> list[Any]:
    return test["cutoff"].unique().sort().to_list()


def _select(test: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the model's features in its own order; the preprocessing judges their types."""
    missing = [name for name in names if name not in test.columns]
    if missing:
        raise DataError(
            f"no column {missing[0]!r}", where="the training set", do=did_you_mean(missing[0], test.columns)
        )
    return test.select(names)


def bins(test: pl.DataFrame, slices: Mapping[str, Sequence[float]]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return names and row masks: the month of the cut-off, then the bins of each column, then its nulls.

    A value below an edge goes left of it. Bins without rows are left out.
    """
    months = test["cutoff"].dt.strftime("%Y-%m")
    found = [(f"cutoff in {month}", months == month) for month in months.unique().sort()]
    for column, edges in slices.items():
        if column not in test.columns:
            raise SettingsError(
                f"no column {column!r}", where="slices in params.yaml", do=did_you_mean(column, test.columns)
            )
        if not (test.schema[column].is_numeric() or test.schema[column] == pl.Boolean):
            raise SettingsError(
                f"{column!r} holds no numbers", where="slices in params.yaml", found=test.schema[column]
            )
        values, inner = test[column], [f"{edge:g}" for edge in edges]
        place = pl.Series(np.searchsorted(list(edges), values.cast(pl.Float64).to_numpy(), side="right"))
        names = [f"{column} < {inner[0]}"] if inner else [f"any {column}"]
        names += [f"{low} <= {column} < {high}" for low, high in pairwise(inner)]
        names += [f"{column} >= {inner[-1]}"] if inner else []
        found += [(name, (place == k) & values.is_not_null()) for k, name in enumerate(names)]
        found.append((f"{column} is null", values.is_null()))
    return [(name, mask.to_numpy()) for name, mask in found if mask.any()]


def _slice(
    name: str, mask: NDArray[np.bool_], label: NDArray[np.int64], score: NDArray[np.float64], draws: Draws
) -> dict[str, Any]:
    """Return size and metrics of the rows of a mask; intervals are None where they say nothing."""
    y, p = label[mask], score[mask]
    found = metrics.intervals(y, p, draws.of(mask))
    kept = {key: found[key] for key in ("auc", "log_loss")}
    mean = {"base_rate": int(y.sum()) / y.size, "mean_score": float(p.mean())}
    return {
        "slice": name,
        "rows": y.size,
        "positives": int(y.sum()),
        **{key: metrics.published(value) for key, value in mean.items()},
        **metrics.flat(kept),
    }


def curves(predictions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the rows behind the plots: ``roc``, ``precision_recall`` (at most `POINTS` each) and ``calibration``."""
    label, score = predictions["label"].cast(pl.Int64).to_numpy(), predictions["score"].to_numpy()
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[score[order][1:] != score[order][:-1], True])  # a tie is one point
    hits, drawn = np.cumsum(label[order])[last], last + 1
    kept = np.unique(np.linspace(0, last.size - 1, min(POINTS - 1, last.size)).round().astype(np.int64))
    hits, drawn = hits[kept], drawn[kept]
    ones = max(int(label.sum()), 1)
    zeros = max(label.size - ones, 1)
    roc = {"fpr": np.r_[0, (drawn - hits) / zeros], "tpr": np.r_[0, hits / ones]}
    precision_recall = {"recall": hits / ones, "precision": hits / drawn}
    return {
        "roc": pl.DataFrame(roc),
        "precision_recall": pl.DataFrame(precision_recall),
        "calibration": pl.DataFrame(metrics.calibration(label, score)),
    }


def card(
    trained: Mapping[str, Any],
    found: Evaluation,
    baselines: Mapping[str, Any],
    hashes: Mapping[str, Any],
    sources: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the model card: what shaped the model, by content, and how it did.

    Parameters
    ----------
    trained
        The content of ``train.json``.
    baselines
        The content of ``baselines.json``.
    hashes
        Content hashes by what they are of; `trained` adds those of the fitted files.
    sources
        By table, where its raw rows came from (``delta 12``), of tables that tell.
    """
    chosen = ["model", "question", "service", "estimator", "preprocess", "features", "seed", "params", "chosen_by"]
    return {
        **{key: trained[key] for key in [*chosen, "fitted"]},
        "hashes": dict(sorted({**hashes, **trained["hashes"]}.items())),
        "sources": dict(sources),
        "metrics": found.metrics,
        "baselines": {name: {**scores, "gain": found.gains[name]} for name, scores in baselines.items()},
        "slices": found.slices,
        "new_nulls": found.new_nulls,
    }


def write(found: Evaluation, about: Mapping[str, Any], folder: Path) -> None:
    """Write metrics, card (`about`), slices, predictions and the rows of the plots to `folder`."""
    write_json(found.metrics, folder / "metrics.json")
    write_json(about, folder / "card.json")
    write_json(found.slices, folder / "slices.json")
    write_parquet(found.predictions, folder / "predictions.parquet")
    by_cutoff = pl.DataFrame(found.by_cutoff, infer_schema_length=None).rename({"slice": "cutoff"})
    for name, rows in {**curves(found.predictions), "by_cutoff": by_cutoff}.items():
        write_text(rows.write_csv(float_precision=metrics.DIGITS), folder / f"{name}.csv")


def params_hash(settings: Settings, name: str) -> str:
    """Return the md5 of the settings that shape the card of model `name`: not those of others, nor landing."""
    known = settings.model_dump(mode="json", include={"zone", "train", "evaluate"})
    model = settings.models[name]
    mine = {"model": model, "question": settings.questions[model.question]}
    text = json.dumps({**known, **{k: v.model_dump(mode="json") for k, v in mine.items()}}, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _hashes(here: Project, about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the content hashes of everything that shaped model `name` and is not in its own folder.

    The one place where the stages' records meet: ``validation.json`` (data, clean), ``dataset.json`` (features, and
    the code of what built them), the lock, the settings, and the code that trained.
    """
    validated, question = read_json(here.root / "artifacts/validation.json")["hashes"], about["question"]
    return {
        **{key: value for key, value in validated.items() if key != "code"},
        **{key: value for key, value in about["hashes"].items() if key != "code"},
        "dataset": file_hash(here.root / "artifacts/dataset" / question / "training.parquet"),
        "params": params_hash(here.settings, name),
        "lock": file_hash(here.root / "requirements.lock"),
        "code": {
            "validate": validated["code"],
            "features": read_json(here.root / "artifacts/features.json")["hashes"]["code"],
            "dataset": about["hashes"]["code"],
            "train": closure_hash(here, "lockstep.train"),
            "evaluate": closure_hash(here, "lockstep.evaluate"),
        },
    }


def main() -> None:
    """Run the stage for the model that the command line names."""
    here, name = project(), sys.argv[1]
    model, built = named_model(here.settings.models, name), here.root / "artifacts"
    asked, beside = built / "dataset" / model.question, built / "baselines" / model.question
    trained = read_json(built / f"model/{name}/train.json")
    found = evaluate(
        read_parquet(asked / "training.parquet"),
        columns_of(read_json(asked / "columns.json"), model.service),
        open_model(built / "model" / name, trained["hashes"]),
        here.settings.evaluate,
        read_parquet(beside / "scores.parquet"),
        slices=here.settings.questions[model.question].slices,
    )
    about = read_json(asked / "dataset.json")
    made = card(trained, found, read_json(beside / "baselines.json"), _hashes(here, about, name), about["sources"])
    write(found, made, built / "evaluate" / name)
    m = found.metrics
    print(f"{name}: test AUC {m['auc']} [{m['auc_low']}, {m['auc_high']}], {m['rows']} rows")


if __name__ == "__main__":
    sys.exit(stage(main))
