"""Behaviour of the trained models on the real slice: what they must answer whoever trained them on whatever rows."""

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lockstep.files import file_hash, read_json, tree_hash, write_json
from lockstep.metrics import auc
from lockstep.model_file import Fitted, open_model
from tests.conftest import lockstep

NAMES = ["rfm", "full"]
by_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def models(built_slice: Path) -> dict[str, Fitted]:
    folders = {name: built_slice / "artifacts/model" / name for name in NAMES}
    return {name: open_model(folder, read_json(folder / "train.json")["hashes"]) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def rows(built_slice: Path) -> pl.DataFrame:
    """The test part of the training set."""
    frame = pl.read_parquet(built_slice / "artifacts/dataset/lapse/training.parquet").filter(pl.col("part") == "test")
    assert frame.height > 500
    return frame


def score(fitted: Fitted, frame: pl.DataFrame) -> np.ndarray:
    return fitted.score(frame.select(list(fitted.preprocess.features_)), allow_nulls=True)


def card(folder: Path, name: str) -> dict:
    return read_json(folder / "artifacts/evaluate" / name / "card.json")


# --- probabilities ---------------------------------------------------------------------------------------------------


@by_model
def test_every_score_is_a_probability(models, rows, name):
    scores = score(models[name], rows)
    assert scores.shape == (rows.height,)
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert scores.std() > 0


@by_model
def test_the_same_rows_score_the_same_bits_again_and_as_they_were_published(models, rows, built_slice, name):
    again = [score(models[name], rows).tobytes() for _ in range(3)]
    assert len(set(again)) == 1
    published = pl.read_parquet(built_slice / "artifacts/evaluate" / name / "predictions.parquet")
    keys = ["household_id", "cutoff"]
    assert published.select(keys).equals(rows.select(keys))
    assert published["score"].to_numpy().tobytes() == again[0]


# --- a score is about its own row alone ------------------------------------------------------------------------------


@by_model
def test_the_order_of_the_rows_moves_no_bit(models, rows, name):
    order = np.random.default_rng(0).permutation(rows.height)
    assert score(models[name], rows[order]).tobytes() == score(models[name], rows)[order].tobytes()


@by_model
def test_a_household_scores_the_same_bits_alone_as_among_all(models, rows, name):
    some = np.random.default_rng(1).choice(rows.height, 100, replace=False)
    alone = [score(models[name], rows[int(n)])[0] for n in some]
    assert np.array(alone).tobytes() == score(models[name], rows)[some].tobytes()


@by_model
def test_nothing_but_its_own_features_reaches_a_model(models, rows, name):
    others = [c for c in rows.columns if c not in models[name].preprocess.features_]
    assert {"household_id", "cutoff", "label", "part", "event_timestamp"} <= set(others)
    shuffled = rows.with_columns(pl.col(c).reverse() for c in others)
    assert score(models[name], shuffled).tobytes() == score(models[name], rows).tobytes()


# --- direction -------------------------------------------------------------------------------------------------------


def waiting(rows: pl.DataFrame, days: pl.Expr) -> pl.DataFrame:
    """Return the same households when their latest trip is `days` ago, seen from a day that moves along.

    What depends on the day of asking follows: the tenure grows with the wait, which is counted in usual gaps. Windows
    stay as they are, so that nothing but the wait tells the two apart.
    """
    return rows.with_columns(
        days.alias("days_since_last_trip"),
        (pl.col("tenure_days") - pl.col("days_since_last_trip") + days).alias("tenure_days"),
        (days / pl.col("avg_gap_days")).alias("recency_over_cadence"),
    )


@by_model
def test_who_waits_three_gaps_longer_is_likelier_to_lapse_than_who_has_just_been_here(models, rows, name):
    regular = rows.filter(pl.col("avg_gap_days") > 0)
    assert regular.height > 0.9 * rows.height
    here = score(models[name], waiting(regular, pl.lit(0.0)))
    away = score(models[name], waiting(regular, pl.col("days_since_last_trip") + 3 * pl.col("avg_gap_days")))
    assert away.mean() > here.mean()
    assert (away >= here).mean() > 0.9


# --- a floor ---------------------------------------------------------------------------------------------------------


@by_model
def test_a_model_ranks_better_than_recency_alone(models, rows, built_slice, name):
    recency = read_json(built_slice / "artifacts/baselines/lapse/baselines.json")["recency"]["auc"]
    found = auc(rows["label"].cast(pl.Int64).to_numpy(), score(models[name], rows))
    assert found > recency
    assert card(built_slice, name)["metrics"]["auc"] == pytest.approx(found, abs=1e-6)


# --- the card --------------------------------------------------------------------------------------------------------


@by_model
def test_every_hash_on_the_card_is_that_of_the_thing_itself(built_slice, name):
    hashes, built = card(built_slice, name)["hashes"], built_slice / "artifacts"
    of_files = {
        "model": built / f"model/{name}/model.skops",
        "preprocess": built / f"model/{name}/preprocess.skops",
        "dataset": built / "dataset/lapse/training.parquet",
        "lock": built_slice / "requirements.lock",
    }
    of_folders = {"data": built_slice / "data", "clean": built / "clean", "features": built / "features"}
    assert {key: hashes[key] for key in of_files} == {key: file_hash(path) for key, path in of_files.items()}
    assert {key: hashes[key] for key in of_folders} == {key: tree_hash(path) for key, path in of_folders.items()}


def texts(value: object) -> Iterator[str]:
    """Yield every text inside `value`, keys included."""
    if isinstance(value, str):
        yield value
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from texts(inner)


@by_model
def test_a_card_does_not_tell_where_or_when_it_was_written(built_slice, name):
    said = list(texts(card(built_slice, name)))
    assert not [s for s in said if s.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:\\", s)]
    assert not [s for s in said if str(built_slice) in s or re.search(rf"\b{re.escape(socket.gethostname())}\b", s)]
    assert not [s for s in said if date.today().isoformat() in s or re.search(r"\d\d:\d\d", s)]  # noqa: DTZ011


# --- files that are not what the record says -------------------------------------------------------------------------


@pytest.fixture
def refused(built_slice: Path, copy) -> Callable[[Callable[[Path], None], str], None]:
    """Return a check that `lockstep.evaluate rfm` refuses what `harm` does to the model folders of a copy."""

    def check(harm: Callable[[Path], None], said: str) -> None:
        folder = copy(built_slice)
        harm(folder / "artifacts/model")
        before = tree_hash(folder / "artifacts/evaluate/rfm")
        done = lockstep(folder, "rfm", module="lockstep.evaluate")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert re.fullmatch(rf"error: {said}[^\n]*\n", done.stderr), done.stderr
        assert tree_hash(folder / "artifacts/evaluate/rfm") == before

    return check


def flip(path: Path, place: float) -> None:
    """Change one bit of the byte at `place`, a share of the file."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.unlink()  # DVC may have linked it to its cache
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
def test_a_model_file_with_one_changed_byte_is_refused(refused, place):
    refused(lambda models: flip(models / "rfm/model.skops", place), r"altered model file in \S*model/rfm/model\.skops")


def swap(models: Path) -> None:
    """Put the preprocessing of `full` in the place of that of `rfm`."""
    (models / "rfm/preprocess.skops").unlink()
    shutil.copyfile(models / "full/preprocess.skops", models / "rfm/preprocess.skops")


def swap_and_record(models: Path) -> None:
    """Swap, and make the record of `rfm` name the file that is there now."""
    swap(models)
    record = json.loads((models / "rfm/train.json").read_text(encoding="utf-8"))
    record["hashes"]["preprocess"] = file_hash(models / "rfm/preprocess.skops")
    (models / "rfm/train.json").unlink()
    write_json(record, models / "rfm/train.json")


def test_the_preprocessing_of_another_model_is_refused(refused):
    refused(swap, r"altered model file in \S*model/rfm/preprocess\.skops")


def test_the_preprocessing_of_another_model_is_refused_even_when_the_record_agrees(refused):
    refused(swap_and_record, r"preprocessing of another model version in \S*model/rfm")
