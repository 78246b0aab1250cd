"""The shadow stage: the challenger beside the champion on the same test rows, and whether to promote it.

First the two must be comparable: the same rows, labels and shared features, bit for bit (a feature that is off on one
side may move no distribution much). Two versions of a feature are shared as well, unless the settings say that the new
one is meant to differ. Then: how far the scores agree, how features and scores drifted from train to test,
and the gain with an interval over entities. A hold is a result, not a failure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lockstep import metrics
from lockstep.define.names import VERSION
from lockstep.errors import GuaranteeError, SettingsError, did_you_mean
from lockstep.files import read_json, read_parquet, write_json, write_parquet, write_text
from lockstep.model_file import open_model
from lockstep.project import Project, project
from lockstep.psi import profile, psi, quantiles
from lockstep.settings import Shadow
from lockstep.stage import stage
from lockstep.vectors import without_vectors

__all__ = ["Comparison", "Side", "compare", "decide", "differing", "main", "write"]

SCORES = ("champion", "challenger")


class Side(NamedTuple):
    """One model of a comparison.

    `version` is the hash of its file; `rows` the keys (row, cutoff, part) and `features` that it read; `scores` the
    same keys, ``label`` and ``score``, for the train rows and the test rows.
    """

    name: str
    version: str
    features: list[str]
    rows: pl.DataFrame
    scores: pl.DataFrame


class Comparison(NamedTuple):
    """What a comparison found.

    `summary` is plain JSON; `drift` has one row a column (``column``, ``psi``, ``edges``, ``null_train``,
    ``null_test``, ``over``); `scores` one row a key (row, cutoff, part, label, champion, challenger).
    """

    summary: dict[str, Any]
    drift: pl.DataFrame
    scores: pl.DataFrame


def compare(champion: Side, challenger: Side, row: Sequence[str], settings: Shadow) -> Comparison:
    """Compare two models on the rows that both scored, in whatever order they come.

    Raises
    ------
    SettingsError
        The challenger is the champion, or a feature is said to be changed of which they do not read two versions.
    GuaranteeError
        The two are not comparable: rows of one only, rows twice, other labels, or features of one name that differ.
    """
    if champion.name == challenger.name:
        raise SettingsError(
            "the challenger is the champion", where="params.yaml serve.model and shadow.challenger",
            found=champion.name, do="Name another model as one of them.",
        )  # fmt: skip
    keys, entity = [*row, "cutoff", "part"], row[:1]
    scores = _joined(champion, challenger, keys)
    shared = _shared(champion, challenger, keys)
    _same_features(shared, settings.changed, f"the rows of {champion.name} and {challenger.name}")
    of_test = pl.col("part") == "test"
    test = scores.filter(of_test)
    drift = _drift(champion, challenger, scores, settings.drift)
    sides, difference = _outcome(test, entity, settings)
    summary = {
        "question": settings.question,
        **decide(champion.name, challenger.name, difference, settings.minimum_gain),
        "champion": {"model": champion.name, "version": champion.version, **sides["champion"]},
        "challenger": {"model": challenger.name, "version": challenger.version, **sides["challenger"]},
        "difference": difference,
        "minimum_gain": settings.minimum_gain,
        "rows": {
            "champion": champion.scores.filter(of_test).height,
            "challenger": challenger.scores.filter(of_test).height,
            "joined": test.height,
            "entities": test.select(entity).n_unique(),
        },
        "features": {
            "champion": len(champion.features),
            "challenger": len(challenger.features),
            "equal": sum(not pair.differ for pair in shared),
        },
        "versions": [pair._asdict() for pair in shared if pair.champion != pair.challenger],
        "agreement": _agreement(test),
        "drift": {
            "limit": settings.drift,
            "columns": drift.height,
            "columns_over": drift["over"].sum(),
            "over": drift.filter("over")["column"].to_list(),
            "score_champion": drift["psi"][-2],
            "score_challenger": drift["psi"][-1],
            "train_scores": "in sample: each model scores the rows it was fitted on",
        },
    }
    return Comparison(summary, drift, scores)


def _named(champion: Side, challenger: Side) -> list[tuple[str, Side]]:
    return list(zip(SCORES, (champion, challenger), strict=True))


def _same_keys(ours: pl.DataFrame, theirs: pl.DataFrame, keys: list[str], names: tuple[str, str]) -> None:
    """Refuse keys that stand twice on one side, or on one side only."""
    frames = dict(zip(names, (ours, theirs), strict=True))
    for name, other in (names, names[::-1]):
        frame = frames[name]
        for what, found in (
            ("a key that stands twice", frame.filter(frame.select(keys).is_duplicated())),
            (f"rows that are not in {other}", frame.join(frames[other], on=keys, how="anti")),
        ):
            if found.height:
                first = ", ".join(f"{k} {v}" for k, v in found.sort(keys).select(keys).row(0, named=True).items())
                raise GuaranteeError(
                    what, where=name, expected="none", found=f"{found.height} of {frame.height} rows, first {first}",
                    do="Build both models on the same dataset.",
                )  # fmt: skip


def _joined(champion: Side, challenger: Side, keys: list[str]) -> pl.DataFrame:
    """Return keys, label and both scores; refuse other keys and other labels."""
    ours, theirs = (s.scores.select(*keys, "label", pl.col("score").alias(n)) for n, s in _named(champion, challenger))
    names = [f"the scores of {side.name}" for side in (champion, challenger)]
    for side, frame, name in zip((champion, challenger), (ours, theirs), names, strict=True):
        _same_keys(side.rows, frame, keys, ("the dataset", name))
    _same_keys(ours, theirs, keys, (names[0], names[1]))
    if other := differing(ours, theirs, keys, ["label"])["label"]:
        raise GuaranteeError(
            "labels that differ", where=" and ".join(names), expected="none", found=f"{other} of {ours.height} rows",
            do="Build both models on the same dataset.",
        )  # fmt: skip
    return ours.join(theirs.drop("label"), on=keys).sort("cutoff", *keys)


class _Pair(NamedTuple):
    """A feature that both read, perhaps in two versions: in how many rows it differs, and by what factor (median)."""

    champion: str
    challenger: str
    rows: int
    differ: int
    factor: float | None


def _shared(champion: Side, challenger: Side, keys: list[str]) -> list[_Pair]:
    """Compare, row by row, the features that both read under one name, versions aside."""
    ours, theirs = (side.rows.sort(keys) for side in (champion, challenger))
    pairs = []
    for a in champion.features:
        for b in (n for n in challenger.features if _plain(n) == _plain(a)):
            one, other = ours.select(*keys, pl.col(a)), theirs.select(*keys, pl.col(b).alias(a))
            differ = differing(one, other, keys, [a])[a]
            pairs.append(_Pair(a, b, one.height, differ, _factor(one[a], other[a]) if differ else None))
    return pairs


def _plain(name: str, *, whole: bool = False) -> str:
    """Return the name without its version; of a part of a vector, such as ``taste_v2[0]``, or of the `whole`."""
    feature, bracket, part = name.partition("[")
    return VERSION.sub("", feature) + ("" if whole else bracket + part)


def _factor(ours: pl.Series, theirs: pl.Series) -> float | None:
    """Return the median of theirs / ours; None where they are no numbers, or ours are all 0."""
    if not (ours.dtype.is_numeric() and theirs.dtype.is_numeric()):
        return None
    factor = theirs.cast(pl.Float64) / ours.cast(pl.Float64)
    middle = factor.filter(factor.is_finite()).median()
    return metrics.published(middle) if isinstance(middle, float) else None


def _same_features(pairs: list[_Pair], changed: Sequence[str], where: str) -> None:
    """Refuse features that are not bit-equal, but for new versions that are said to be `changed`."""
    versions = [_plain(p.champion, whole=True) for p in pairs if p.champion != p.challenger]
    for name in changed:
        if name not in versions:
            raise SettingsError(
                f"no two versions of {name!r}", where="params.yaml shadow.changed", do=did_you_mean(name, versions)
            )
    wrong = [
        p for p in pairs if p.differ and (p.champion == p.challenger or _plain(p.champion, whole=True) not in changed)
    ]
    if wrong:
        told = ", ".join(
            f"{p.champion if p.champion == p.challenger else f'{p.champion} and {p.challenger}'} in {p.differ} of"
            f" {p.rows} rows ({100 * p.differ / p.rows:.4g} %)" + (f", by a factor of {p.factor}" if p.factor else "")
            for p in wrong
        )
        raise GuaranteeError(
            "features that are not the same for both", where=where, expected="equal bits", found=told,
            do="Mend the one that is off; where a new version is meant to differ, name it in shadow.changed.",
        )  # fmt: skip


def differing(ours: pl.DataFrame, theirs: pl.DataFrame, keys: list[str], names: Sequence[str]) -> dict[str, int]:
    """Return for each of `names` in how many rows the two, which hold the same keys, are not bit-equal.

    Another type differs everywhere; null equals null, 0.0 is not -0.0.
    """
    a, b = (
        f.sort(keys).select(*names).with_columns(pl.col(pl.Float64).reinterpret(dtype=pl.Int64)) for f in (ours, theirs)
    )
    return {
        name: int(a[name].ne_missing(b[name]).sum()) if ours.schema[name] == theirs.schema[name] else a.height
        for name in names
    }


def _agreement(test: pl.DataFrame) -> dict[str, float | None]:
    """Return how far the scores of the same rows agree; correlations are None where a score is constant."""
    a, b = (test[name].to_numpy() for name in SCORES)
    gap = np.abs(a - b)
    same = np.searchsorted(quantiles(a), a, side="right") == np.searchsorted(quantiles(b), b, side="right")
    found = {
        **{kind: test.select(pl.corr(*SCORES, method=kind)).item() for kind in ("pearson", "spearman")},
        "mean_absolute_difference": float(gap.mean()),
        "max_absolute_difference": float(gap.max()),
        "same_decile": int(same.sum()) / same.size,
    }
    return {name: metrics.published(None if np.isnan(value) else value) for name, value in found.items()}


def _drift(champion: Side, challenger: Side, scores: pl.DataFrame, limit: float) -> pl.DataFrame:
    """Return the PSI of each feature that either reads, and of both scores, from train rows to test rows."""
    more = [name for name in challenger.features if name not in champion.features]
    columns = [(champion.rows, name, name) for name in champion.features]
    columns += [(challenger.rows, name, name) for name in more]
    columns += [(scores, name, f"score of {side.name}") for name, side in _named(champion, challenger)]
    found = []
    for frame, name, shown in columns:
        before, after = (frame.filter(pl.col("part") == part)[name] for part in ("train", "test"))
        reference = profile(before)
        value = metrics.published(psi(reference, after))
        nulls = (metrics.published(s.null_count() / s.len()) for s in (before, after))
        found.append((shown, value, len(reference.edges), *nulls, value is not None and value > limit))
    return pl.DataFrame(found, ["column", "psi", "edges", "null_train", "null_test", "over"], orient="row")


def _outcome(
    test: pl.DataFrame, entity: Sequence[str], settings: Shadow
) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
    """Return the metrics of each side, and challenger - champion with intervals over entities, flat."""
    label = test["label"].cast(pl.Int64).to_numpy()
    scores = {name: test[name].to_numpy() for name in SCORES}
    draws = metrics.draw(metrics.entity_codes(test, entity), settings.resamples, settings.seed)
    difference = metrics.paired(label, scores["challenger"], scores["champion"], draws)
    sides = {
        name: {key: metrics.published(metric(label, score)) for key, metric in metrics.METRICS.items()}
        for name, score in scores.items()
    }
    return sides, metrics.flat(difference)


def decide(champion: str, challenger: str, gain: Mapping[str, float | None], minimum: float) -> dict[str, str]:
    """Return ``decision``, its ``reason`` and, under ``otherwise``, what would have led to the other one.

    ``promote`` when the lower end of the interval of the gain in AUC is above `minimum`, ``hold`` otherwise. `gain` is
    flat and holds published numbers: they decide, so the record explains the decision.
    """
    value, low, high = (gain[key] for key in ("auc", "auc_low", "auc_high"))
    if low is None:
        reason = f"no interval of the gain of {challenger} over {champion}: too few draws of entities hold both labels"
        return {"decision": "hold", "reason": reason, "otherwise": "More test rows of either label are needed."}
    promote = low > minimum
    reason = (
        f"{challenger} gains {value} AUC over {champion}, 95 % interval [{low}, {high}]:"
        f" its lower end is {'above' if promote else 'not above'} the minimum gain of {minimum}"
    )
    otherwise = f"A minimum gain of {low} or more would have held it."
    if not promote:
        otherwise = (
            f"Promotion asks for a lower end above {minimum}, {metrics.published(minimum - low)} more than it is."
        )
    return {"decision": "promote" if promote else "hold", "reason": reason, "otherwise": otherwise}


def write(found: Comparison, folder: Path) -> None:
    """Write ``shadow.json``, ``drift.csv`` and ``scores.parquet`` to `folder`."""
    write_json(found.summary, folder / "shadow.json")
    write_text(found.drift.write_csv(float_precision=metrics.DIGITS), folder / "drift.csv")
    write_parquet(found.scores, folder / "scores.parquet")


def _side(here: Project, name: str, rows: pl.DataFrame, keys: list[str]) -> Side:
    """Return model `name` as built: its card, its predictions, and its own scores of the rows it was fitted on."""
    built = here.root / "artifacts"
    card = read_json(built / "evaluate" / name / "card.json")
    fitted = open_model(built / "model" / name, card["hashes"])
    features = list(fitted.preprocess.features_)
    train = rows.filter(pl.col("part") == "train")
    scored = train.with_columns(pl.Series("score", fitted.score(train.select(features), allow_nulls=True)))
    predicted = read_parquet(built / "evaluate" / name / "predictions.parquet").with_columns(part=pl.lit("test"))
    columns = [*keys, "label", "score"]
    scores = pl.concat([scored.select(columns), predicted.select(columns)])
    plain = without_vectors(rows.select(*keys, *features))
    return Side(name, card["hashes"]["model"], plain.columns[len(keys) :], plain, scores)


def main() -> None:
    """Run the stage."""
    here = project()
    settings = here.settings.comparison
    asked = here.root / "artifacts/dataset" / settings.question
    rows, row = read_parquet(asked / "training.parquet"), read_json(asked / "columns.json")["keys"]
    names = (here.settings.serve.model, settings.challenger)
    champion, challenger = (_side(here, name, rows, [*row, "cutoff", "part"]) for name in names)
    found = compare(champion, challenger, row, settings)
    write(found, here.root / "artifacts/shadow")
    print(f"{found.summary['decision']}: {found.summary['reason']}")


if __name__ == "__main__":
    sys.exit(stage(main))
