"""The baselines stage: what must be beaten before a model is worth its keep.

Each is fitted on the train part and scored on the test part: the share of label 1, logistic regressions on one column
alone, and BG/NBD (Fader, Hardie & Lee 2005, "Counting Your Customers" the Easy Way, Marketing Science 24(2)),
which reads purchases so far, the first and the last of them, and no label at all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep import metrics
from lockstep.clock import Zone
from lockstep.errors import DataError, SettingsError, did_you_mean
from lockstep.files import read_json, read_parquet, write_json, write_parquet
from lockstep.project import project
from lockstep.settings import Baselines, BgNbd, Evaluate
from lockstep.stage import stage

__all__ = ["Purchases", "Scored", "fit_bg_nbd", "log_likelihood", "main", "no_purchase", "score_baselines", "write"]

Floats = NDArray[np.float64]
DAY = 86_400_000_000  # microseconds


class Purchases(NamedTuple):
    """BG/NBD's view of customers, one place each: repeat purchases `x`, days `t_x` from first to last, `t` to now."""

    x: Floats
    t_x: Floats
    t: Floats


class Shape(NamedTuple):
    """BG/NBD's parameters: purchase rates are Gamma(`r`, `alpha` days), chances to drop out Beta(`a`, `b`)."""

    r: float
    alpha: float
    a: float
    b: float


class Scored(NamedTuple):
    """Test rows with one column of scores a baseline, and what was fitted."""

    scores: pl.DataFrame
    fitted: dict[str, Any]


def _alive_odds(shape: Shape, seen: Purchases) -> Floats:
    """Return log of A4 / A3 of equation 6: the odds of having dropped out at the last purchase; -inf where x = 0."""
    r, alpha, a, b = shape
    x = np.maximum(seen.x, 1)  # a customer without a repeat purchase cannot have dropped out
    odds = np.log(a) - np.log(b + x - 1) + (r + x) * (np.log(alpha + seen.t) - np.log(alpha + seen.t_x))
    return np.where(seen.x > 0, odds, -np.inf)


def log_likelihood(shape: Shape, seen: Purchases) -> Floats:
    """Return each customer's log likelihood: equation 6 of Fader, Hardie & Lee (2005), in its A1 .. A4 form."""
    from scipy.special import betaln, gammaln

    r, alpha, a, b = shape
    a1 = gammaln(r + seen.x) - gammaln(r) + r * np.log(alpha)
    a2 = betaln(a, b + seen.x) - betaln(a, b)
    a3 = -(r + seen.x) * np.log(alpha + seen.t)
    result: Floats = a1 + a2 + a3 + np.logaddexp(0, _alive_odds(shape, seen))
    return result


def fit_bg_nbd(seen: Purchases) -> Shape:
    """Return the parameters of the greatest likelihood.

    The search (L-BFGS-B from 1, 10, 1, 10) is over logarithms within [1e-4, 1e6]: where nobody seems to drop out, a
    and b run to the edge of any box, b far ahead of a, and the model has become a plain NBD.

    Raises
    ------
    DataError
        No customers, nobody with a repeat purchase, or the search did not converge.
    """
    from scipy.optimize import minimize

    if seen.x.size and not (seen.x > 0).any():
        raise DataError(
            "nobody bought twice",
            where="baselines (bg_nbd in params.yaml)",
            expected="some repeat purchases",
            found=f"none among {seen.x.size} customers",
            do="Look at the frequency column: it should count all purchases so far.",
        )
    if not seen.x.size:
        raise DataError(
            "nobody to fit BG/NBD on", where="baselines", expected="customers with a purchase", found="none"
        )

    def loss(logs: Floats) -> float:
        return -float(log_likelihood(Shape(*np.exp(logs)), seen).mean())

    found = minimize(loss, np.log([1, 10, 1, 10]), method="L-BFGS-B", bounds=[(np.log(1e-4), np.log(1e6))] * 4)
    if not found.success or not np.isfinite(found.fun):
        raise DataError("BG/NBD did not converge", where="baselines", found=found.message, do="Look at its columns.")
    return Shape(*(float(v) for v in np.exp(found.x)))


def no_purchase(shape: Shape, seen: Purchases, days: float) -> Floats:
    """Return the chance of no purchase in the next `days` days, given what was seen.

    Given that a customer is alive at t, the posterior rate is Gamma(r + x, alpha + t), so that no purchase in h days
    has the chance ((alpha + t) / (alpha + t + h)) ** (r + x); one who has dropped out buys never again. The chance of
    being alive is 1 / (1 + A4 / A3), and 1 where x = 0.
    """
    alive = 1 / (1 + np.exp(np.minimum(_alive_odds(shape, seen), 700)))
    quiet = np.exp((shape.r + seen.x) * (np.log(shape.alpha + seen.t) - np.log(shape.alpha + seen.t + days)))
    result: Floats = 1 - alive * (1 - quiet)
    return result


def _purchases(rows: pl.DataFrame, names: BgNbd) -> Purchases:
    """Return BG/NBD's view of `rows`, days as fractions; NaN where there was no purchase."""
    first, now = pl.col(names.first), pl.col("event_timestamp")
    seen = rows.select(
        x=pl.col(names.frequency).cast(pl.Float64) - 1,
        t_x=(pl.col(names.last) - first).dt.total_microseconds() / DAY,
        t=(now - first).dt.total_microseconds() / DAY,
    )
    return Purchases(*(seen[name].to_numpy() for name in Purchases._fields))


def score_baselines(
    rows: pl.DataFrame, keys: tuple[str, ...], settings: Baselines, *, horizon_days: int, zone: Zone
) -> Scored:
    """Fit the baselines on the train part of `rows` and score the test part.

    BG/NBD is fitted on the last train cut-off, where each customer stands once and has been watched longest. Rows
    without what a baseline reads get the share of label 1.
    """
    _judge(rows, keys, settings, zone)
    rows = rows.sort("cutoff", *keys)
    train, test = (rows.filter(pl.col("part") == part) for part in ("train", "test"))
    share = int(train["label"].sum()) / train.height
    scores = {"mean": np.full(test.height, share)}
    fitted: dict[str, Any] = {"mean": {"share": metrics.published(share)}}
    for name, column in settings.logistic.items():
        scores[name], fitted[name] = _logistic(train, test, column), {"column": column}
    if names := settings.bg_nbd:
        last = train.filter(pl.col("cutoff") == pl.col("cutoff").max())
        seen = _purchases(last, names)
        shape = fit_bg_nbd(Purchases(*(column[~np.isnan(seen.x)] for column in seen)))
        scores["bg_nbd"] = no_purchase(shape, _purchases(test, names), horizon_days)
        found = {k: float(f"{v:.6g}") for k, v in shape._asdict().items()}
        fitted["bg_nbd"] = {"fitted_on": str(last["cutoff"][0]), **found}
    columns = [pl.Series(name, np.where(np.isnan(score), share, score)) for name, score in scores.items()]
    return Scored(test.select(*keys, "cutoff", "label").with_columns(columns), fitted)


def _logistic(train: pl.DataFrame, test: pl.DataFrame, column: str) -> Floats:
    """Return the chance of label 1 by a logistic regression on one column, NaN where it is null."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    x, now = (part[column].cast(pl.Float64).to_numpy() for part in (train, test))
    known, found = ~np.isnan(x), np.full(now.size, np.nan)
    with threadpool_limits(1, "blas"):  # BLAS sums in an order that follows its number of threads
        model = LogisticRegression().fit(x[known, None], train["label"].to_numpy()[known])
        found[~np.isnan(now)] = model.predict_proba(now[~np.isnan(now), None])[:, 1]
    return found


def _judge(rows: pl.DataFrame, keys: tuple[str, ...], settings: Baselines, zone: Zone) -> None:
    where = "baselines in params.yaml"
    if taken := {*keys} & {*settings.names}:
        raise SettingsError(f"{min(taken)!r} is a key of the question", where=where, do="Call this baseline otherwise.")
    asked = rows.select("cutoff", "event_timestamp").unique().iter_rows()
    if settings.bg_nbd and any(at != zone.start(day) for day, at in asked):
        raise SettingsError(
            "BG/NBD beside a question that is asked at events", where=where,
            expected="a question that is asked on days, of each customer once", do="Remove bg_nbd there.",
        )  # fmt: skip
    bg_nbd = settings.bg_nbd.model_dump().values() if settings.bg_nbd else ()
    for column in (*settings.logistic.values(), *bg_nbd):
        if column not in rows.columns:
            raise DataError(
                f"no column {column!r}",
                where="the training set (baselines in params.yaml)",
                do=did_you_mean(column, rows.columns),
            )
    for column in settings.logistic.values():
        if not (rows.schema[column].is_numeric() or rows.schema[column] == pl.Boolean):
            raise SettingsError(f"{column!r} holds no numbers", where=where, found=rows.schema[column])
    for part in ("train", "test"):
        found = rows.filter(pl.col("part") == part)["label"].unique().sort().to_list()
        if found != [0, 1]:
            raise DataError(
                "labels that cannot be judged", where=f"the {part} part", expected="both 0 and 1", found=found
            )


def write(scored: Scored, keys: tuple[str, ...], settings: Evaluate, folder: Path) -> dict[str, Any]:
    """Write ``scores.parquet`` and ``baselines.json``: what was fitted, and each metric with its interval."""
    label = scored.scores["label"].cast(pl.Int64).to_numpy()
    draws = metrics.draw(metrics.entity_codes(scored.scores, keys[:1]), settings.resamples, settings.seed)
    found = {
        name: {**metrics.flat(metrics.intervals(label, scored.scores[name].to_numpy(), draws)), "fitted": fitted}
        for name, fitted in scored.fitted.items()
    }
    write_parquet(scored.scores.drop("label"), folder / "scores.parquet")
    write_json(found, folder / "baselines.json")
    return found


def main() -> None:
    """Score the baselines of the question that the command line names."""
    here, name = project(), sys.argv[1]
    asked = here.root / "artifacts/dataset" / name
    about, rows = read_json(asked / "columns.json"), read_parquet(asked / "training.parquet")
    keys, settings = tuple(about["keys"]), here.settings.questions[name].baselines
    scored = score_baselines(rows, keys, settings, horizon_days=about["horizon_days"], zone=here.settings.clock)
    found = write(scored, keys, here.settings.evaluate, here.root / "artifacts/baselines" / name)
    print(f"baselines of {name}: " + ", ".join(f"{name} AUC {about['auc']:.4f}" for name, about in found.items()))


if __name__ == "__main__":
    sys.exit(stage(main))
