import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from lockstep.clock import INSTANT
from lockstep.errors import DataError
from lockstep.model_file import canonical
from lockstep.preprocess import Clip, Preprocess, SignedLog

NAN = math.nan
TRAIN = pl.DataFrame({
    "trips": [1, 2, 3, None],
    "spend": [0.5, -1.5, 2.5, 3.5],
    "shop": ["b", "a", None, "b"],
})  # fmt: skip


def test_numbers_come_first_and_nulls_are_nan_and_categories_are_places_in_the_sorted_vocabulary():
    fitted = Preprocess(rare=1).fit(TRAIN)
    assert fitted.columns == ["trips", "spend", "shop"]
    assert fitted.vocabulary_ == {"shop": ["a", "b"]}
    null = 3
    expected = [[1, 0.5, 1], [2, -1.5, 0], [3, 2.5, null], [NAN, 3.5, 1]]
    assert_array_equal(fitted.transform(TRAIN), expected)


def test_one_hot_has_a_column_for_each_value_for_others_and_for_null():
    fitted = Preprocess(categorical="one_hot", rare=1).fit(TRAIN.select("shop"))
    assert fitted.columns == ["shop=a", "shop=b", "shop=<other>", "shop=<null>"]
    later = pl.DataFrame({"shop": ["b", "never seen", None]})
    assert_array_equal(fitted.transform(later), [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_rare_values_share_the_bucket_of_unseen_ones_so_that_it_has_been_trained():
    fitted = Preprocess(rare=2).fit(TRAIN.select("shop"))
    assert fitted.vocabulary_ == {"shop": ["b"]}
    seen = fitted.transform(pl.DataFrame({"shop": ["a", "never seen"]}))
    assert seen[0] == seen[1]


def test_target_encoding_is_the_share_of_label_1_pulled_to_the_overall_share_by_20_rows_of_it():
    frame = pl.DataFrame({"shop": ["a"] * 30 + ["b"] * 10})
    label = np.array([1] * 15 + [0] * 15 + [0] * 10)
    fitted = Preprocess(categorical="target", rare=1).fit(frame, label)
    overall = 15 / 40
    assert fitted.transform(pl.DataFrame({"shop": ["a", "b", "never seen"]})).ravel().tolist() == pytest.approx(
        [(15 + 20 * overall) / 50, (0 + 20 * overall) / 30, overall]
    )


@given(st.integers(0, 9), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_target_encoding_of_a_training_row_never_sees_the_labels_of_its_own_entity(entity, seed):
    rng = np.random.default_rng(seed)
    groups, frame = np.repeat(np.arange(10), 6), pl.DataFrame({"shop": rng.choice(list("abc"), 60)})
    label = rng.integers(0, 2, 60)
    flipped = np.where(groups == entity, 1 - label, label)
    first = Preprocess(categorical="target", rare=1).fit_transform(frame, label, groups)
    second = Preprocess(categorical="target", rare=1).fit_transform(frame, flipped, groups)
    assert_array_equal(first[groups == entity], second[groups == entity])


def test_target_encoding_without_labels_is_an_error():
    with pytest.raises(DataError, match="no label"):
        Preprocess(categorical="target").fit(TRAIN.select("shop"))


def test_clip_takes_bounds_that_occur_in_the_training_rows_and_lets_nulls_be():
    x = np.array([[float(v)] for v in [*range(1, 1001), NAN]])
    step = Clip().fit(x)
    assert step.bounds_.ravel().tolist() == [2, 999]
    assert_array_equal(step.transform(np.array([[-5.0], [1e9], [NAN], [7.0]])), [[2], [999], [NAN], [7]])
    assert_array_equal(Clip().fit(np.array([[NAN]])).transform(np.array([[4.0]])), [[4]])


def test_the_signed_log_keeps_sign_zero_and_null():
    x = np.array([[0.0, math.e - 1, 1 - math.e, NAN]])
    assert SignedLog().fit(x).transform(x).ravel().tolist() == pytest.approx([0, 1, -1, NAN], nan_ok=True)


def test_numeric_steps_are_chained_as_scikit_learn_would():
    x = np.random.default_rng(0).lognormal(size=(200, 2))
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1]}).with_columns(a=pl.when(pl.col("a") < 3).then("a"))
    raw = frame.to_numpy()
    imputed = SimpleImputer(strategy="median").fit_transform(raw)
    assert_array_equal(
        Preprocess(["impute", "scale"]).fit(frame).transform(frame), StandardScaler().fit_transform(imputed)
    )
    normal = QuantileTransformer(n_quantiles=200, output_distribution="normal", subsample=None)
    assert_array_equal(Preprocess(["impute", "quantile"]).fit_transform(frame), normal.fit_transform(imputed))


VALUES = {
    "trips": st.none() | st.integers(-(2**53), 2**53),
    "spend": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=64),
    "gone": st.none() | st.booleans(),
    "shop": st.none() | st.text(max_size=2),
}
SCHEMA = {"trips": pl.Int64, "spend": pl.Float64, "gone": pl.Boolean, "shop": pl.String}


def fitted_on_noise(steps, encoding):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "trips": rng.integers(0, 50, 300),
            "spend": rng.normal(size=300),
            "gone": rng.random(300) < 0.5,
            "shop": rng.choice(list("abc"), 300),
        },
        schema=SCHEMA,
    )
    holes = [pl.when(pl.int_range(300) % 7 != i).then(name).alias(name) for i, name in enumerate(SCHEMA)]
    return Preprocess(steps, encoding).fit(frame.with_columns(holes), rng.integers(0, 2, 300))


STEPS = [[], ["clip"], ["clip", "log"], ["impute", "clip", "log", "scale"], ["impute", "quantile"]]


@pytest.mark.parametrize(("steps", "encoding"), [*((s, "ordinal") for s in STEPS), ([], "one_hot"), ([], "target")])
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_a_row_by_name_gives_the_bits_of_the_frame_and_no_value_of_the_right_type_ever_fails(steps, encoding, rows):
    fitted = fitted_on_noise(steps, encoding)
    matrix = fitted.transform(pl.DataFrame(rows, schema=SCHEMA))
    assert matrix.shape == (len(rows), len(fitted.columns))
    for expected, row in zip(matrix, rows, strict=True):
        assert fitted.transform_row(row).tobytes() == expected.tobytes()


def test_transforming_other_rows_leaves_the_fitted_state_alone():
    fitted = fitted_on_noise(["impute", "clip", "log", "scale"], "target")
    before = canonical(fitted)
    fitted.transform(pl.DataFrame({"trips": [10**9], "spend": [-1e9], "gone": [True], "shop": ["new"]}, schema=SCHEMA))
    assert canonical(fitted) == before


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (TRAIN.drop("spend"), "missing column in column 'spend'.*expected Float64, found none"),
        (TRAIN.select("spend", "trips", "shop"), "columns moved or added"),
        (TRAIN.with_columns(extra=1), "columns moved or added"),
        (TRAIN.with_columns(pl.col("trips").cast(pl.Float64)), "another type.*'trips'.*expected Int64, found Float64"),
        (TRAIN.with_columns(shop=pl.lit(4)), "another type.*'shop'.*expected String"),
        (TRAIN.with_columns(spend=pl.lit(math.inf)), "NaN or infinity in column 'spend'.*found 4 of 4 rows"),
        (TRAIN.with_columns(spend=pl.lit(NAN)), "NaN or infinity in column 'spend'"),
        (TRAIN.with_columns(spend=pl.lit(None, pl.Float64)), "null where the training rows had none.*'spend'"),
    ],
)
def test_a_frame_that_is_not_what_was_fitted_is_refused(frame, message):
    fitted = Preprocess(rare=1).fit(TRAIN)
    with pytest.raises(DataError, match=message):
        fitted.transform(frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trips": 1.5}, "another type.*'trips'.*expected Int64, found float"),
        ({"trips": True}, "another type.*'trips'"),
        ({"spend": "1"}, "another type.*'spend'.*expected Float64, found str"),
        ({"spend": NAN}, "NaN or infinity"),
        ({"spend": None}, "null where the training rows had none"),
        ({"shop": 3}, "another type.*'shop'.*expected String"),
        ({"spend": ...}, "missing column in column 'spend'"),
    ],
)
def test_a_row_that_is_not_what_was_fitted_is_refused(change, message):
    fitted = Preprocess(rare=1).fit(TRAIN)
    row = {"trips": 1, "spend": 2.0, "shop": "a", **change}
    with pytest.raises(DataError, match=message):
        fitted.transform_row({k: v for k, v in row.items() if v is not ...})


def test_a_null_may_pass_where_there_was_none_only_when_that_is_said():
    fitted = Preprocess().fit(TRAIN)
    later = TRAIN.with_columns(spend=pl.lit(None, pl.Float64))
    assert np.isnan(fitted.transform(later, allow_nulls=True)[:, 1]).all()
    assert np.isnan(fitted.transform_row({"trips": 1, "spend": None, "shop": "a"}, allow_nulls=True)[0, 1])
    assert fitted.unexpected_nulls(later) == {"spend": 4}
    assert fitted.unexpected_nulls(TRAIN) == {}


def test_an_instant_is_no_model_input():
    frame = pl.DataFrame({"at": [None]}, schema={"at": INSTANT})
    with pytest.raises(DataError, match=r"type that no model takes in column 'at'.*found Datetime"):
        Preprocess().fit(frame)


def test_nothing_can_be_fitted_on_no_rows():
    with pytest.raises(DataError, match="nothing to fit"):
        Preprocess().fit(TRAIN.clear())


VECTORS = pl.DataFrame(
    {"taste": [[0.5, -1.0], None, [2.0, 4.0]], "n": [1, 2, 3]}, schema={"taste": pl.Array(pl.Float64, 2), "n": pl.Int64}
)


@pytest.mark.parametrize("steps", [[], ["clip"], ["impute", "scale"]])
def test_a_vector_is_as_many_numbers_as_it_is_wide_behind_the_others_the_same_from_a_row(steps):
    fitted = Preprocess(numeric=steps).fit(VECTORS)
    assert fitted.columns == ["n", "taste[0]", "taste[1]"]
    matrix = fitted.transform(VECTORS)
    if not steps:
        assert_array_equal(matrix, [[1, 0.5, -1], [2, NAN, NAN], [3, 2, 4]])
    for row, values in zip(matrix, VECTORS.to_dicts(), strict=True):
        assert fitted.transform_row(values)[0].tobytes() == row.tobytes()
    assert np.isnan(matrix).any() == ("impute" not in steps)
    canonical(fitted)  # it can be kept


@pytest.mark.parametrize(
    ("taste", "width", "said"),
    [
        ([1.0, 2.0, 3.0], 3, r"another type in column 'taste' .*expected Array\(Float64, shape=\(2,\)\)"),
        ([1.0, NAN], 2, "NaN, infinity or null inside a vector in column 'taste'"),
        ([1.0, None], 2, "NaN, infinity or null inside a vector in column 'taste'"),
    ],
)
def test_a_vector_of_another_width_or_with_holes_is_refused_as_a_frame_and_as_a_row(taste, width, said):
    fitted = Preprocess().fit(VECTORS)
    frame = pl.DataFrame({"taste": [taste], "n": [1]}, schema={"taste": pl.Array(pl.Float64, width), "n": pl.Int64})
    with pytest.raises(DataError, match=said):
        fitted.transform(frame)
    with pytest.raises(DataError, match=r"(another vector|NaN or infinity) in column 'taste'"):
        fitted.transform_row({"taste": taste, "n": 1})


def test_a_null_vector_where_the_training_rows_had_none_is_refused():
    fitted = Preprocess().fit(VECTORS.drop_nulls())
    with pytest.raises(DataError, match="null where the training rows had none in column 'taste'"):
        fitted.transform(VECTORS)
    with pytest.raises(DataError, match="null where the training rows had none in column 'taste'"):
        fitted.transform_row({"taste": None, "n": 1})
