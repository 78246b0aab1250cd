import json
import math
import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import roots_genlaguerre, roots_jacobi
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from lockstep import baselines as baselines_stage
from lockstep import evaluate as evaluate_stage
from lockstep import train as train_stage
from lockstep.baselines import Purchases, Shape, fit_bg_nbd, log_likelihood, no_purchase, score_baselines
from lockstep.clock import Zone
from lockstep.errors import DataError, SettingsError
from lockstep.evaluate import bins, card, curves, evaluate, params_hash, write
from lockstep.files import read_json, write_json, write_parquet
from lockstep.metrics import auc
from lockstep.model_file import open_model
from lockstep.settings import Baselines, BgNbd, Evaluate, Model, Preprocess, Serve, Shadow, Train, read_settings
from lockstep.train import Columns, columns_of, train

ROOT = Path(__file__).parents[2]
CUTOFFS = [date(2020, 1, 6) + timedelta(days=7 * i) for i in range(12)]
FEATURES = {"visits": "Int64", "pause": "Float64", "region": "String"}
COLUMNS = Columns(("member",), FEATURES)
BOOSTING = Model(
    question="q",
    service="s",
    estimator="hist_gradient_boosting",
    preprocess=Preprocess(numeric=["clip"]),
    fixed={"max_leaf_nodes": 4},
    grid={"learning_rate": [0.1, 0.3], "max_iter": [3, 10]},
)
LOGISTIC = Model(
    question="q",
    service="s",
    estimator="logistic_regression",
    preprocess=Preprocess(numeric=["impute", "log", "scale"], categorical="target"),
    grid={"C": [0.1, 1.0]},
)
TRAIN = Train(seed=0, validation_cutoffs=2)
EVALUATE, SLICES = Evaluate(seed=0, resamples=20), {"visits": [3, 10]}
BASELINES = Baselines(logistic={"recency": "pause"}, bg_nbd=BgNbd(frequency="visits", first="first_at", last="last_at"))
HORIZON = 14
ZONE = Zone("America/New_York")


def rows(members=80):
    """A club: the longer the pause and the fewer the visits, the likelier that a member stays away."""
    rng = np.random.default_rng(0)
    n = members * len(CUTOFFS)
    member = np.tile(np.arange(members), len(CUTOFFS))
    cutoff = [day for day in CUTOFFS for _ in range(members)]
    visits, pause = 1 + rng.poisson(6, n), rng.exponential(10, n)
    label = (rng.random(n) < 1 / (1 + np.exp(2 + 0.4 * (visits - 6) - 0.08 * pause))).astype(np.int64)
    now = pl.Series([ZONE.start(d) for d in cutoff], dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"member": member, "cutoff": cutoff, "event_timestamp": now, "label": label})
    return frame.with_columns(
        pl.col("label").cast(pl.Int8),
        part=pl.when(pl.col("cutoff") <= CUTOFFS[7]).then(pl.lit("train")).otherwise(pl.lit("test")),
        visits=pl.Series(visits),
        pause=pl.when(pl.Series(rng.random(n)) < 0.95).then(pl.Series(pause)),
        region=pl.Series(rng.choice(["north", "south", "east"], n)),
        first_at=pl.col("event_timestamp") - pl.duration(days=90),
        last_at=pl.col("event_timestamp") - pl.duration(hours=pl.Series((pause * 24).astype(int)).clip(1, 89 * 24)),
    ).sort("cutoff", "member")


ROWS = rows()


def fit(frame=ROWS, model=BOOSTING, name="one"):
    return train(frame, COLUMNS, name, model, TRAIN, horizon_days=HORIZON)


def files(trained, folder):
    train_stage.write(trained, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny fits on two OpenMP threads wait for each other for seconds when the machine is busy."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def trained():
    return fit()


@pytest.fixture(scope="module")
def scores():
    return score_baselines(ROWS, ("member",), BASELINES, horizon_days=HORIZON, zone=ZONE)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, train_stage.write(trained, folder)


# --- train


@pytest.mark.parametrize("model", [BOOSTING, LOGISTIC], ids=["boosting", "logistic"])
def test_shuffled_rows_give_the_same_bytes(tmp_path, model):
    straight = files(fit(model=model), tmp_path / "a")
    assert set(straight) == {"model.skops", "preprocess.skops", "train.json"}
    assert files(fit(ROWS.sample(fraction=1, shuffle=True, seed=1), model), tmp_path / "b") == straight


def test_the_test_part_leaves_no_trace_in_a_model(tmp_path):
    other = ROWS.with_columns(
        label=pl.when(pl.col("part") == "test").then(1 - pl.col("label")).otherwise("label").cast(pl.Int8),
        pause=pl.when(pl.col("part") == "test").then(1e6).otherwise("pause"),
    )
    assert files(fit(other), tmp_path / "b") == files(fit(), tmp_path / "a")


def test_candidates_are_judged_on_the_last_cutoffs_behind_an_embargo_of_one_horizon(trained):
    record = trained.record
    assert record["validated"] == {"first": "2020-02-17", "last": "2020-02-24"} | {
        k: record["validated"][k] for k in ("rows", "positives")
    }
    assert record["fitted_early"]["last"] == "2020-02-03"  # 14 days before 2020-02-17; the 10th is the embargo
    assert record["fitted"]["last"] == "2020-02-24"
    assert [record[k]["rows"] for k in ("fitted_early", "validated", "fitted")] == [5 * 80, 2 * 80, 8 * 80]


def test_labels_inside_the_embargo_choose_nothing(trained):
    embargo = pl.col("cutoff") == CUTOFFS[5]
    other = ROWS.with_columns(label=pl.when(embargo).then(1 - pl.col("label")).otherwise("label").cast(pl.Int8))
    assert fit(other).record["scores"] == trained.record["scores"]
    assert fit(other).record["fitted"] != trained.record["fitted"]


def test_the_preprocessing_of_candidates_never_saw_the_rows_that_judge_them(monkeypatch):
    seen = []
    original = train_stage.Preprocess.fit
    monkeypatch.setattr(
        train_stage.Preprocess, "fit", lambda self, f, y=None: seen.append(f.height) or original(self, f, y)
    )
    fit()
    assert seen == [5 * 80, 8 * 80]


def test_every_combination_is_scored_in_grid_order_and_the_least_log_loss_is_taken(trained):
    tried = [(s["params"]["learning_rate"], s["params"]["max_iter"]) for s in trained.record["scores"]]
    assert tried == [(0.1, 3), (0.1, 10), (0.3, 3), (0.3, 10)]
    best = min(trained.record["scores"], key=lambda s: s["log_loss"])
    assert trained.record["params"] == best["params"] == {"max_leaf_nodes": 4, **best["params"]}
    assert trained.fitted.estimator.get_params().items() >= best["params"].items()
    assert trained.fitted.estimator.n_iter_ == best["params"]["max_iter"]


def test_validation_scores_are_what_scikit_learn_computes():
    model = LOGISTIC.model_copy(update={"preprocess": Preprocess(numeric=["impute", "scale"])})
    columns = Columns(("member",), {"visits": "Int64", "pause": "Float64"})
    found = train(ROWS, columns, "one", model, TRAIN, horizon_days=HORIZON).record["scores"][0]
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    early, late = ROWS.filter(pl.col("cutoff") <= CUTOFFS[4]), ROWS.filter(pl.col("cutoff").is_in(CUTOFFS[6:8]))
    naive = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(C=0.1))
    naive.fit(early.select("visits", "pause").to_numpy(), early["label"])
    p = naive.predict_proba(late.select("visits", "pause").to_numpy())[:, 1]
    assert found["log_loss"] == pytest.approx(log_loss(late["label"], p), abs=1e-5)
    assert found["auc"] == pytest.approx(roc_auc_score(late["label"], p), abs=1e-5)


def test_among_equals_the_first_of_the_grid_is_taken():
    model = BOOSTING.model_copy(update={"grid": {"max_iter": [5], "l2_regularization": [0, 0.0]}})
    found = fit(model=model).record
    assert found["scores"][0]["log_loss"] == found["scores"][1]["log_loss"]
    assert found["params"]["l2_regularization"] is found["scores"][0]["params"]["l2_regularization"]


def test_an_empty_grid_is_one_candidate():
    assert len(fit(model=BOOSTING.model_copy(update={"grid": {}, "fixed": {"max_iter": 3}})).record["scores"]) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fixed": {"max_leaf_node": 4}}, SettingsError, "unknown hyperparameter 'max_leaf_node'.*'max_leaf_nodes'"),
        ({"fixed": {"max_leaf_nodes": -1}}, SettingsError, "hyperparameters that do not fit.*max_leaf_nodes"),
        ({"fixed": {"max_iter": 5}}, SettingsError, "'max_iter' both in fixed and in grid"),
        ({"grid": {"random_state": [1]}}, SettingsError, r"a seed of its own.*Set train\.seed"),
        ({"estimator": "logistic_regression", "fixed": {}, "grid": {}}, SettingsError, "takes no nulls.*Add impute"),
    ],
)
def test_hyperparameters_that_cannot_work_are_named(change, error, message):
    with pytest.raises(error, match=message):
        fit(model=BOOSTING.model_copy(update=change))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ROWS.filter(pl.col("part") == "test"), "no rows in the train part"),
        (ROWS.with_columns(label=pl.lit(0, pl.Int8)), "labels that cannot be learnt from in the train part"),
        (ROWS.with_columns(label=pl.lit(None, pl.Int8)), "labels that cannot be learnt from"),
        (ROWS.filter(pl.col("cutoff") >= CUTOFFS[5]), "no rows in train cut-offs up to 14 days before 2020-02-17"),
        (ROWS.rename({"visits": "visit"}), "no column 'visits'.*Did you mean 'visit'"),
        (ROWS.with_columns(pl.col("visits").cast(pl.Int32)), "another type.*'visits'.*expected Int64, found Int32"),
    ],
)
def test_a_training_set_that_cannot_be_learnt_from_is_refused(frame, message):
    with pytest.raises(DataError, match=message):
        fit(frame)


def test_an_unknown_model_or_service_is_named_with_the_nearest():
    with pytest.raises(SettingsError, match=r"no model 'on'.*Did you mean 'one'"):
        train_stage.named_model({"one": BOOSTING}, "on")
    with pytest.raises(SettingsError, match=r"no service 'x'.*Known: s"):
        columns_of({"keys": ["member"], "services": {"s": {}}}, "x")


# --- baselines


SHAPE = Shape(r=1.4, alpha=6.0, a=1.3, b=2.7)


def integral(function):
    """Integrate over the Gamma of rates and the Beta of chances to drop out, by Gauss' rules for these weights."""
    rate, rate_weight = roots_genlaguerre(60, SHAPE.r - 1)
    leave, leave_weight = roots_jacobi(60, SHAPE.b - 1, SHAPE.a - 1)
    weights = np.outer(rate_weight / rate_weight.sum(), leave_weight / leave_weight.sum())
    return (function(rate[:, None] / SHAPE.alpha, (leave[None, :] + 1) / 2) * weights).sum()


@pytest.mark.parametrize("seen", [(0, 0.0, 9.0), (1, 4.0, 9.0), (5, 8.0, 9.0)])
def test_bg_nbd_is_the_integral_that_it_solves(seen):
    x, t_x, t = seen
    one = Purchases(*(np.array([float(v)]) for v in seen))

    def alive(rate, leave):  # their equation 3: one customer whose rate and chance to drop out are known
        return (1 - leave) ** x * rate**x * np.exp(-rate * t)

    def gone(rate, leave):
        return leave * (1 - leave) ** (x - 1) * rate**x * np.exp(-rate * t_x) if x else 0 * rate * leave

    likelihood = integral(alive) + integral(gone)
    assert math.exp(log_likelihood(SHAPE, one)[0]) == pytest.approx(likelihood, rel=1e-8)
    buys = integral(lambda rate, leave: alive(rate, leave) * (1 - np.exp(-rate * 3)))
    assert no_purchase(SHAPE, one, 3)[0] == pytest.approx(1 - buys / likelihood, rel=1e-8)


def test_bg_nbd_finds_the_parameters_that_made_the_purchases():
    rng, n, end = np.random.default_rng(0), 6_000, 60.0
    lam, p = rng.gamma(SHAPE.r, 1 / SHAPE.alpha, n), rng.beta(SHAPE.a, SHAPE.b, n)
    x, t_x, now, alive = np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n, bool)
    while alive.any():
        now = now + rng.exponential(1 / lam)
        alive &= now <= end
        x, t_x = x + alive, np.where(alive, now, t_x)
        alive &= rng.random(n) > p
    found = fit_bg_nbd(Purchases(x, t_x, np.full(n, end)))
    assert found.r == pytest.approx(SHAPE.r, rel=0.1)
    assert found.alpha == pytest.approx(SHAPE.alpha, rel=0.12)
    assert found.a / (found.a + found.b) == pytest.approx(SHAPE.a / (SHAPE.a + SHAPE.b), rel=0.1)


def test_where_nobody_drops_out_bg_nbd_becomes_a_plain_nbd():
    rng, n = np.random.default_rng(0), 2_000
    t = np.full(n, 50.0)
    x = rng.poisson(rng.gamma(2.0, 1 / 8.0, n) * t).astype(float)
    t_x = np.where(x > 0, t * rng.random(n) ** (1 / np.maximum(x, 1)), 0)  # the latest of x uniform days
    found = fit_bg_nbd(Purchases(x, t_x, t))
    assert found.a / (found.a + found.b) < 0.01
    plain = (found.alpha + t) / (found.alpha + t + 14)
    assert no_purchase(found, Purchases(x, t_x, t), 14) == pytest.approx(plain ** (found.r + x), abs=0.05)


def test_purchases_that_never_repeat_are_refused_rather_than_fitted():
    with pytest.raises(DataError, match=r"nobody bought twice.*none among 5 customers"):
        fit_bg_nbd(Purchases(np.zeros(5), np.zeros(5), np.full(5, 30.0)))


def test_nobody_to_fit_is_an_error():
    with pytest.raises(DataError, match="nobody to fit BG/NBD on"):
        fit_bg_nbd(Purchases(*[np.array([])] * 3))


def test_baselines_score_every_test_row_and_null_gets_the_overall_share(scores):
    test = ROWS.filter(pl.col("part") == "test")
    assert scores.scores.select("member", "cutoff").equals(test.select("member", "cutoff"))
    share = ROWS.filter(pl.col("part") == "train")["label"].mean()
    assert scores.scores["mean"].unique().to_list() == [share]
    unknown = test["pause"].is_null()
    assert unknown.any()
    assert scores.scores.filter(unknown)["recency"].unique().to_list() == [share]
    assert scores.scores.select("mean", "recency", "bg_nbd").null_count().sum_horizontal().item() == 0
    assert auc(test["label"].to_numpy(), scores.scores["recency"].to_numpy()) > 0.55


def test_baselines_know_neither_the_test_labels_nor_the_order_of_rows(scores):
    other = ROWS.with_columns(
        label=pl.when(pl.col("part") == "test").then(1 - pl.col("label")).otherwise("label").cast(pl.Int8)
    ).sample(fraction=1, shuffle=True, seed=0)
    found = score_baselines(other, ("member",), BASELINES, horizon_days=HORIZON, zone=ZONE)
    assert found.fitted == scores.fitted
    assert found.scores.drop("label").equals(scores.scores.drop("label"))


def test_bg_nbd_is_fitted_on_the_last_train_cutoff_and_reads_no_test_row(scores):
    assert scores.fitted["bg_nbd"]["fitted_on"] == str(CUTOFFS[7])
    other = ROWS.with_columns(visits=pl.when(pl.col("part") == "test").then(99).otherwise("visits"))
    assert score_baselines(other, ("member",), BASELINES, horizon_days=HORIZON, zone=ZONE).fitted == scores.fitted


def test_bg_nbd_counts_repeat_purchases_and_days_since_the_first():
    now = datetime(2020, 1, 31, tzinfo=UTC)
    frame = pl.DataFrame({
        "event_timestamp": [now, now],
        "visits": [4, None],
        "first_at": [datetime(2020, 1, 1, tzinfo=UTC), None],
        "last_at": [datetime(2020, 1, 11, 12, tzinfo=UTC), None],
    })  # fmt: skip
    seen = baselines_stage._purchases(frame, BASELINES.bg_nbd)
    assert [column[0] for column in seen] == [3, 10.5, 30]
    assert np.isnan([column[1] for column in seen]).all()


def test_a_baseline_on_a_column_that_is_not_there_is_named():
    settings = BASELINES.model_copy(update={"logistic": {"recency": "paus"}})
    with pytest.raises(DataError, match=r"no column 'paus'.*Did you mean 'pause'"):
        score_baselines(ROWS, ("member",), settings, horizon_days=HORIZON, zone=ZONE)


@pytest.mark.parametrize(
    ("logistic", "change", "said"),
    [
        ({"member": "pause"}, {}, "'member' is a key of the question"),
        ({"place": "region"}, {}, "'region' holds no numbers in baselines in params.yaml: found String"),
        (
            {},
            {"event_timestamp": pl.col("event_timestamp") + pl.duration(hours="visits")},
            "BG/NBD beside a question that is asked at events",
        ),
        (
            {},
            {"event_timestamp": pl.col("event_timestamp") + pl.duration(hours=9)},  # one instant on each cut-off
            "BG/NBD beside a question that is asked at events",
        ),
    ],
)
def test_baselines_that_mean_nothing_are_refused(logistic, change, said):
    settings = BASELINES.model_copy(update={"logistic": logistic})
    with pytest.raises(SettingsError, match=said):
        score_baselines(ROWS.with_columns(**change), ("member",), settings, horizon_days=HORIZON, zone=ZONE)


# --- evaluate


@pytest.fixture(scope="module")
def found(saved, scores):
    folder, hashes = saved
    return evaluate(ROWS, COLUMNS, open_model(folder, hashes), EVALUATE, scores.scores.drop("label"), slices=SLICES)


def test_metrics_are_those_of_the_predictions_of_the_saved_model(found, trained):
    test = ROWS.filter(pl.col("part") == "test")
    assert found.predictions.columns == ["member", "cutoff", "label", "score"]
    assert found.predictions["score"].to_list() == trained.fitted.score(test.select(FEATURES.keys())).tolist()
    assert found.metrics["auc"] == pytest.approx(roc_auc_score(test["label"], found.predictions["score"]), abs=1e-6)
    assert found.metrics["auc_low"] < found.metrics["auc"] < found.metrics["auc_high"]
    assert (found.metrics["rows"], found.metrics["positives"]) == (test.height, test["label"].sum())
    assert found.gains["mean"]["auc"] == pytest.approx(found.metrics["auc"] - 0.5, abs=1e-6)


def test_a_gain_over_a_baseline_is_the_difference_of_the_two(found, scores):
    label = scores.scores["label"].to_numpy()
    theirs = roc_auc_score(label, scores.scores["bg_nbd"])
    assert found.gains["bg_nbd"]["auc"] == pytest.approx(found.metrics["auc"] - theirs, abs=1e-5)


def test_slices_are_bins_whose_edge_goes_right_and_nulls_are_their_own():
    frame = pl.DataFrame({"cutoff": [date(2020, 1, 6)] * 3 + [date(2020, 2, 3)] * 2, "v": [2, 3, 10, None, 9]})
    found = {name: mask.tolist() for name, mask in bins(frame, {"v": [3, 10]})}
    assert found == {
        "cutoff in 2020-01": [True, True, True, False, False],
        "cutoff in 2020-02": [False, False, False, True, True],
        "v < 3": [True, False, False, False, False],
        "3 <= v < 10": [False, True, False, False, True],
        "v >= 10": [False, False, True, False, False],
        "v is null": [False, False, False, True, False],
    }


def test_slices_of_one_column_hold_every_row_once(found):
    for stem in ("cutoff in", "visits"):
        inside = [s for s in found.slices if stem in s["slice"]]
        assert sum(s["rows"] for s in inside) == found.metrics["rows"]
        assert sum(s["positives"] for s in inside) == found.metrics["positives"]
    assert [s["slice"] for s in found.by_cutoff] == [str(d) for d in CUTOFFS[8:]]


def test_a_slice_on_a_column_that_is_not_there_is_named(saved, scores):
    with pytest.raises(SettingsError, match=r"no column 'visit'.*Did you mean 'visits'"):
        evaluate(ROWS, COLUMNS, open_model(*saved), EVALUATE, scores.scores.drop("label"), slices={"visit": [3]})


def test_a_slice_on_a_text_column_is_refused():
    with pytest.raises(SettingsError, match=r"'region' holds no numbers in slices in params.yaml: found String"):
        bins(ROWS, {"region": [3]})


def test_unseen_categories_and_new_nulls_are_scored_and_counted(saved, scores):
    test = pl.col("part") == "test"
    other = ROWS.with_columns(
        region=pl.when(test).then(pl.lit("far away")).otherwise("region"), visits=pl.when(~test).then("visits")
    )
    found = evaluate(other, COLUMNS, open_model(*saved), EVALUATE, scores.scores.drop("label"), slices=SLICES)
    assert found.new_nulls == {"visits": found.metrics["rows"]}
    assert found.predictions["score"].is_finite().all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ROWS.filter(pl.col("part") == "train"), "nothing to evaluate"),
        (ROWS.drop("visits"), "no column 'visits'"),
        (ROWS.with_columns(pl.col("visits").cast(pl.Float64)), "another type in column 'visits'"),
        (ROWS.with_columns(pause=pl.lit(math.inf)), "NaN or infinity in column 'pause'"),
    ],
)
def test_rows_that_the_model_was_not_fitted_for_are_refused(saved, scores, frame, message):
    with pytest.raises(DataError, match=message):
        evaluate(frame, COLUMNS, open_model(*saved), EVALUATE, scores.scores.drop("label"), slices=SLICES)


def test_baselines_of_other_rows_are_refused(saved, scores):
    with pytest.raises(DataError, match="scores of other rows"):
        evaluate(ROWS, COLUMNS, open_model(*saved), EVALUATE, scores.scores.drop("label").head(-1), slices=SLICES)


def test_curves_end_where_they_must_and_are_short():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 5_000)
    frame = pl.DataFrame({"label": label, "score": rng.random(5_000) + label / 2})
    found = curves(frame)
    assert found["roc"].row(0) == (0, 0)
    assert found["roc"].row(-1) == (1, 1)
    assert all(rows.height <= 200 for rows in found.values())
    area = np.trapezoid(found["roc"]["tpr"], found["roc"]["fpr"])
    assert area == pytest.approx(auc(label, frame["score"].to_numpy()), abs=1e-3)
    last = found["precision_recall"].row(-1, named=True)
    assert last == {"recall": 1, "precision": label.mean()}


def test_the_params_hash_follows_what_shapes_this_card_and_nothing_else():
    settings = read_settings(ROOT / "params.yaml")
    name, other = list(settings.models)[:2]
    known = params_hash(settings, name)
    louder = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"resamples": 21})})
    assert params_hash(louder, name) != known  # the card holds intervals
    assert params_hash(settings, other) != known
    changed = settings.models[other].model_copy(update={"fixed": {}})
    elsewhere = settings.model_copy(update={"models": {**settings.models, other: changed}})
    assert params_hash(elsewhere, name) == known
    assert params_hash(elsewhere, other) != params_hash(settings, other)
    reseeded = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": 1})})
    assert params_hash(reseeded, name) != known


# --- the stages, as DVC runs them


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project of its own, with this library."""
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "lockstep").symlink_to(ROOT / "lockstep")
    text = (
        (
            (ROOT / "params.yaml")
            .read_text()
            .split("models:")[0]
            .replace("validation_cutoffs: 4", "validation_cutoffs: 2")
        )
        .replace("questions:\n  lapse:", "questions:\n  q:")
        .replace("[rfm, full, baselines]", "[s]")
    )
    text = text.replace("{recency: days_since_last_trip}", "{recency: pause}").replace("first_trip_at", "first_at")
    text = text.replace("frequency: trips_total", "frequency: visits").replace("last_trip_at", "last_at")
    text = text.replace("trips_90d: [3, 10, 30]", "visits: [3, 10]").replace("      tenure_days: [90, 180]\n", "")
    mine = {"models": {"one": BOOSTING, "two": LOGISTIC}, "evaluate": EVALUATE}
    mine |= {
        "serve": Serve(model="one"),
        "shadow": Shadow(question="q", challenger="two", minimum_gain=0, drift=0.2, seed=0, resamples=20),
    }
    for key, value in mine.items():
        plain = {k: v.model_dump() for k, v in value.items()} if isinstance(value, dict) else value.model_dump()
        text += f"{key}: {json.dumps(plain)}\n"
    (tmp_path / "params.yaml").write_text(text)
    built = tmp_path / "artifacts/dataset/q"
    write_parquet(ROWS, built / "training.parquet")
    write_json({"keys": ["member"], "horizon_days": HORIZON, "services": {"s": FEATURES}}, built / "columns.json")
    write_json({"question": "q", "sources": {}, "hashes": {"code": "1", "features": "2"}}, built / "dataset.json")
    write_json({"hashes": {"code": "3", "data": "4", "clean": "5"}}, tmp_path / "artifacts/validation.json")
    write_json({"hashes": {"code": "6", "features": "2"}}, tmp_path / "artifacts/features.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, stage, *names):
    monkeypatch.setattr(sys, "argv", [stage.__name__, *names])
    stage.main()


def run_all(monkeypatch):
    run(monkeypatch, baselines_stage, "q")
    for name in ("one", "two"):
        run(monkeypatch, train_stage, name)
        run(monkeypatch, evaluate_stage, name)


PROGRAM = """
import sys, polars as pl
from pathlib import Path
from lockstep import baselines
from lockstep.clock import Zone
from lockstep.files import write_parquet
from lockstep.settings import Baselines, BgNbd
names = Baselines(logistic={"recency": "pause"}, bg_nbd=BgNbd(frequency="visits", first="first_at", last="last_at"))
rows = pl.read_parquet(sys.argv[1])
scored = baselines.score_baselines(rows, ("member",), names, horizon_days=14, zone=Zone("America/New_York"))
write_parquet(scored.scores, Path(sys.argv[2]))
"""


def test_baselines_have_the_same_bytes_under_any_thread_count_and_hash_seed(tmp_path):
    write_parquet(rows(members=4_000), tmp_path / "rows.parquet")
    for threads in ("1", "8"):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "rows.parquet"), str(tmp_path / threads)]
        subprocess.run(command, env={**os.environ, **limits, "PYTHONHASHSEED": threads}, check=True, cwd=ROOT)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "8").read_bytes()


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in (root / "artifacts").rglob("*") if p.is_file()}


def test_the_stages_write_what_the_graph_expects_and_a_second_run_the_same_bytes(here, monkeypatch, capsys):
    run_all(monkeypatch)
    first = contents(here)
    names = ("metrics.json", "card.json", "slices.json", "predictions.parquet")
    plots = ("roc.csv", "precision_recall.csv", "calibration.csv", "by_cutoff.csv")
    for model in ("one", "two"):
        wanted = {f"artifacts/model/{model}/{n}" for n in ("model.skops", "preprocess.skops", "train.json")}
        wanted |= {f"artifacts/evaluate/{model}/{n}" for n in (*names, *plots)}
        assert wanted <= set(first)
    assert {"artifacts/baselines/q/baselines.json", "artifacts/baselines/q/scores.parquet"} <= set(first)
    assert capsys.readouterr().out.startswith("baselines of q: mean AUC 0.5")
    run_all(monkeypatch)
    assert contents(here) == first


def test_a_card_names_everything_by_content_and_nothing_by_place(here, monkeypatch):
    run_all(monkeypatch)
    text = (here / "artifacts/evaluate/one/card.json").read_text()
    hashes = json.loads(text)["hashes"]
    wanted = ("clean", "code", "data", "dataset", "features", "lock", "model", "params", "preprocess")
    assert tuple(hashes) == wanted
    assert set(hashes["code"]) == {"validate", "features", "dataset", "train", "evaluate"}
    assert str(here) not in text
    assert hashes["model"] == read_json(here / "artifacts/model/one/train.json")["hashes"]["model"]


@pytest.mark.parametrize("name", ["model.skops", "preprocess.skops"])
@pytest.mark.parametrize("fault", ["altered", "missing", "of another model"])
def test_the_evaluate_stage_never_scores_with_a_file_that_is(here, monkeypatch, name, fault):
    run_all(monkeypatch)
    shutil.rmtree(here / "artifacts/evaluate")
    file = here / "artifacts/model/one" / name
    if fault == "missing":
        file.unlink()
    elif fault == "altered":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        shutil.copy(here / "artifacts/model/two" / name, file)
    with pytest.raises(DataError, match="model file"):
        run(monkeypatch, evaluate_stage, "one")
    assert not (here / "artifacts/evaluate").exists()


def test_a_card_is_written_from_its_arguments_alone(found, trained, saved, tmp_path):
    record = {**trained.record, "hashes": saved[1]}
    about = card(record, found, {"mean": {"auc": 0.5}}, {"data": "1"}, {"lines": ["delta 12"]})
    assert about["hashes"] == {"data": "1", **saved[1]}
    assert about["baselines"]["mean"] == {"auc": 0.5, "gain": found.gains["mean"]}
    assert about["sources"] == {"lines": ["delta 12"]}
    write(found, about, tmp_path)
    assert read_json(tmp_path / "card.json") == about
    assert (tmp_path / "by_cutoff.csv").read_text().startswith("cutoff,rows,positives,base_rate,mean_score,auc,")
