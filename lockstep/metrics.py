"""Metrics of probabilities, with intervals from resampling whole entities.

An entity's rows resemble one another, so intervals draw entities (all their rows together), never rows. A draw is a
count an entity; counts are integers, so a weighted AUC is one exact integer division and equals what scikit-learn says
of the repeated rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = [
    "METRICS",
    "Draws",
    "Interval",
    "auc",
    "average_precision",
    "brier",
    "calibration",
    "draw",
    "entity_codes",
    "flat",
    "intervals",
    "log_loss",
    "paired",
    "published",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DIGITS = 6  # what JSON shows: thread and library noise is far below


class Interval(NamedTuple):
    """A value and its 95 % interval; None where it is undefined (one class only, or too few defined draws)."""

    value: float | None
    low: float | None
    high: float | None


class Draws(NamedTuple):
    """Resamples of entities: `counts` (draws, entities), how often each was drawn; `entity` (n,), each row's own."""

    counts: Ints
    entity: Ints

    def of(self, rows: NDArray[np.bool_]) -> Draws:
        """Return the same draws, seen by the rows of a mask."""
        return Draws(self.counts, self.entity[rows])


def entity_codes(frame: pl.DataFrame, entity: Sequence[str]) -> Ints:
    """Return each row's place among the sorted entities, shape (n,): it depends on keys, never on row order."""
    return (frame.select(pl.struct(entity).rank("dense")).to_series().to_numpy() - 1).astype(np.int64)


def draw(entity: Ints, resamples: int, seed: int) -> Draws:
    """Draw as many entities as there are, with replacement, `resamples` times."""
    size = int(entity.max()) + 1 if entity.size else 0
    generator = np.random.default_rng(seed)
    counts = [np.bincount(generator.integers(0, size, size), minlength=size) for _ in range(resamples)]
    return Draws(np.array(counts, dtype=np.int64).reshape(resamples, size), entity)


class _Ranked(NamedTuple):
    """Rows from the highest score down: their order, the first place of each tied group, their labels."""

    order: Ints
    starts: Ints
    label: Ints


def _ranked(label: Ints, score: Floats) -> _Ranked:
    order = np.argsort(-score, kind="stable")
    by_score = score[order]
    starts = np.flatnonzero(np.r_[True, by_score[1:] != by_score[:-1]]) if order.size else np.zeros(0, np.int64)
    return _Ranked(order, starts, label[order].astype(np.int64))


def _ones_and_zeros(ranked: _Ranked, weight: Ints | None) -> tuple[Ints, Ints]:
    """Return the weight of label 1 and of label 0 in each tied group, from the highest score down."""
    w = np.ones(ranked.order.size, np.int64) if weight is None else weight[ranked.order]
    ones = np.add.reduceat(w * ranked.label, ranked.starts)
    return ones, np.add.reduceat(w, ranked.starts) - ones


def _auc(ranked: _Ranked, weight: Ints | None) -> float | None:
    if not ranked.order.size:
        return None
    ones, zeros = _ones_and_zeros(ranked, weight)
    positives, negatives = int(ones.sum()), int(zeros.sum())
    if not positives or not negatives:
        return None
    below = negatives - np.cumsum(zeros)
    twice = int((ones * (2 * below + zeros)).sum())  # a tie counts half
    return twice / (2 * positives * negatives)


def _average_precision(ranked: _Ranked, weight: Ints | None) -> float | None:
    if not ranked.order.size:
        return None
    ones, zeros = _ones_and_zeros(ranked, weight)
    hits = np.cumsum(ones)
    if not hits[-1]:
        return None
    drawn = hits + np.cumsum(zeros)
    precision = hits / np.maximum(drawn, 1)  # nothing drawn yet: no step of recall either
    return float((ones * precision).sum() / hits[-1])


def auc(label: Ints, score: Floats, weight: Ints | None = None) -> float | None:
    """Return the area under the ROC curve, exact for integer weights; None for one class only."""
    return _auc(_ranked(label, score), weight)


def average_precision(label: Ints, score: Floats, weight: Ints | None = None) -> float | None:
    """Return the sum over thresholds of precision times the step in recall; None without label 1."""
    return _average_precision(_ranked(label, score), weight)


def _log_losses(label: Ints, score: Floats) -> Floats:
    """Return each row's loss in nats; scores are held one epsilon away from 0 and 1, as in scikit-learn."""
    epsilon = np.finfo(np.float64).eps
    p = np.clip(score, epsilon, 1 - epsilon)
    return -np.log(np.where(label == 1, p, 1 - p))


def log_loss(label: Ints, score: Floats, weight: Ints | None = None) -> float | None:
    """Return the mean negative log likelihood, in nats."""
    return _mean(_log_losses(label, score), weight)


def brier(label: Ints, score: Floats, weight: Ints | None = None) -> float | None:
    """Return the mean squared difference of probability and label."""
    return _mean((score - label) ** 2, weight)


def _mean(values: Floats, weight: Ints | None) -> float | None:
    w = np.ones(values.size, np.int64) if weight is None else weight
    return float((values * w).sum() / w.sum()) if w.sum() else None


METRICS: dict[str, Callable[..., float | None]] = {
    "auc": auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
}
"""The four, by the names under which they are published."""


def _samples(label: Ints, score: Floats, draws: Draws) -> dict[str, list[float | None]]:
    """Return every metric of every draw."""
    ranked = _ranked(label, score)
    rank = {"auc": _auc, "average_precision": _average_precision}
    found: dict[str, list[float | None]] = {name: [] for name in METRICS}
    for counts in draws.counts:
        weight = counts[draws.entity]
        for name, function in rank.items():
            found[name].append(function(ranked, weight))
    size = draws.counts.shape[1]
    rows = draws.counts @ np.bincount(draws.entity, minlength=size)
    for name, losses in {"log_loss": _log_losses(label, score), "brier": (score - label) ** 2}.items():
        by_entity = np.bincount(draws.entity, weights=losses, minlength=size)
        sums = (draws.counts * by_entity).sum(axis=1)  # not a matrix product: BLAS sums in an order of its own
        found[name] = [float(s / n) if n else None for s, n in zip(sums, rows, strict=True)]
    return found


def _interval(value: float | None, samples: Sequence[float | None]) -> Interval:
    """Return the 2.5 % and 97.5 % points of the defined samples; no interval when half of them are undefined."""
    defined = [s for s in samples if s is not None]
    if value is None or 2 * len(defined) <= len(samples):
        return Interval(value, None, None)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def intervals(label: Ints, score: Floats, draws: Draws) -> dict[str, Interval]:
    """Return each metric of `score` (n,) against `label` (n,), with its 95 % percentile interval over `draws`."""
    samples = _samples(label, score, draws)
    return {name: _interval(metric(label, score), samples[name]) for name, metric in METRICS.items()}


def paired(label: Ints, score: Floats, other: Floats, draws: Draws) -> dict[str, Interval]:
    """Return each metric of `score` minus that of `other`, on the same rows and the same draws of entities."""
    ours, theirs = _samples(label, score, draws), _samples(label, other, draws)
    found = {}
    for name, metric in METRICS.items():
        differences = [_minus(a, b) for a, b in zip(ours[name], theirs[name], strict=True)]
        found[name] = _interval(_minus(metric(label, score), metric(label, other)), differences)
    return found


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def calibration(label: Ints, score: Floats, bins: int = 10) -> list[dict[str, Any]]:
    """Return rows, mean score and share of label 1 in bins of equally many rows.

    Edges are scores at nearest rank, merged when tied; a score below an edge goes left: no bin depends on row order.
    """
    if not score.size:
        return []
    edges = np.unique(np.quantile(score, np.arange(1, bins) / bins, method="nearest"))
    place = np.searchsorted(edges, score, side="right")
    found = []
    for k in np.unique(place):
        inside = place == k
        found.append(
            {
                "bin": int(k) + 1,
                "rows": int(inside.sum()),
                "mean_score": published(float(np.sort(score[inside]).mean())),
                "observed": published(int(label[inside].sum()) / int(inside.sum())),
            }
        )
    return found


def published(value: float | None) -> float | None:
    """Return `value` as JSON shows it: rounded where noise of threads and libraries cannot reach."""
    return None if value is None else round(value, DIGITS) + 0.0  # no -0.0


def flat(found: dict[str, Interval]) -> dict[str, float | None]:
    """Return ``{"auc": ..., "auc_low": ..., "auc_high": ...}`` and so on: what `dvc metrics diff` compares."""
    return {
        key: published(number)
        for name, interval in found.items()
        for key, number in zip((name, f"{name}_low", f"{name}_high"), interval, strict=True)
    }
