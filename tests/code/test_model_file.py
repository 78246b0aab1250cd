import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from lockstep.errors import DataError, GuaranteeError
from lockstep.files import file_hash
from lockstep.model_file import Fitted, canonical, dump, load, open_model, save
from lockstep.preprocess import Preprocess

RNG = np.random.default_rng(0)
FRAME = pl.DataFrame({"a": RNG.normal(size=400), "b": RNG.integers(0, 9, 400), "shop": RNG.choice(list("xyz"), 400)})
LABEL = (FRAME["a"].to_numpy() + RNG.normal(size=400) > 0).astype(np.int64)
ALL_STEPS = ["impute", "clip", "log", "scale", "quantile"]


def fit(estimator, steps=("clip",), encoding="ordinal", name="one"):
    preprocess = Preprocess(list(steps), encoding)
    return Fitted(name, preprocess, estimator.fit(preprocess.fit_transform(FRAME, LABEL), LABEL))


def boosting(seed=0):
    return HistGradientBoostingClassifier(max_iter=5, early_stopping=False, random_state=seed)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny fits on two OpenMP threads wait for each other for seconds when the machine is busy."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return folder, save(fit(boosting()), folder)


PROGRAM = """
import hashlib, numpy as np, polars as pl, sys
from pathlib import Path
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from lockstep.model_file import Fitted, save
from lockstep.preprocess import Preprocess
rng, n = np.random.default_rng(0), 6_000
x = rng.normal(size=(n, 12))
frame = pl.DataFrame(x, schema=[f"f{i}" for i in range(12)]).with_columns(shop=pl.Series(rng.choice(list("abcdef"), n)))
label = (x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=n) > 0).astype(np.int64)
boosting = HistGradientBoostingClassifier(max_iter=8, early_stopping=False, random_state=0)
cells = {
    "boosting": (boosting, ["clip"], "ordinal"),
    "logistic": (LogisticRegression(max_iter=500), ["impute", "clip", "log", "scale", "quantile"], "target"),
}
for name, (estimator, steps, encoding) in cells.items():
    preprocess = Preprocess(steps, encoding)
    matrix = preprocess.fit_transform(frame, label, np.arange(n) // 4)
    fitted = Fitted(name, preprocess, estimator.fit(matrix, label))
    print(name, save(fitted, Path(sys.argv[1]) / name), hashlib.md5(fitted.score(frame).tobytes()).hexdigest())
"""


def test_the_same_fit_gives_the_same_bytes_under_any_thread_count_and_hash_seed(tmp_path):
    running = []
    for threads, seed in (("1", "0"), ("2", "5"), ("8", "random")):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / threads)]
        here = Path(__file__).parents[2]
        running.append(
            subprocess.Popen(
                command,
                env={**os.environ, **limits, "PYTHONHASHSEED": seed},
                stdout=subprocess.PIPE,
                text=True,
                cwd=here,
            )
        )
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert said[0].count("\n") == 2
    assert said[1:] == said[:1] * 2


def test_dumping_twice_in_one_process_gives_the_same_bytes_though_skops_own_do_not():
    fitted = fit(boosting()).estimator
    assert skops.io.dumps(fitted) != skops.io.dumps(fitted)
    assert canonical(fitted) == canonical(fitted)


def test_bytes_do_not_follow_which_equal_scalars_happen_to_be_one_object():
    shared = float("1.5")
    assert canonical({"a": shared, "b": shared}) == canonical({"a": float("1.5"), "b": float("1.5")})


def test_an_empty_member_stays_empty():
    data = canonical({"nothing": b"", "something": b"12"})
    assert skops.io.loads(data) == {"nothing": b"", "something": b"12"}


@pytest.mark.parametrize("encoding", ["ordinal", "one_hot", "target"])
@pytest.mark.parametrize("estimator", [boosting(), LogisticRegression(max_iter=500)], ids=["boosting", "logistic"])
def test_what_is_loaded_back_scores_bit_for_bit_alike(tmp_path, estimator, encoding):
    fitted = fit(estimator, ALL_STEPS, encoding)
    opened = open_model(tmp_path, save(fitted, tmp_path))
    assert opened.model == "one"
    assert opened.score(FRAME).tobytes() == fitted.score(FRAME).tobytes()
    row = FRAME.row(7, named=True)
    assert opened.predict(opened.preprocess.transform_row(row))[0] == fitted.score(FRAME)[7]


def test_recorded_hashes_are_those_of_the_files(saved):
    folder, hashes = saved
    assert hashes == {name: file_hash(folder / f"{name}.skops") for name in ("preprocess", "model")}


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_file_with_any_one_byte_changed_never_scores(saved, tmp_path_factory, data):
    folder, hashes = saved
    copy = tmp_path_factory.mktemp("tampered")
    name = data.draw(st.sampled_from(["model.skops", "preprocess.skops"]))
    for file in ("model.skops", "preprocess.skops"):
        (copy / file).write_bytes((folder / file).read_bytes())
    content = bytearray((copy / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=r"altered model file"):
        open_model(copy, hashes)


@pytest.mark.parametrize("name", ["model.skops", "preprocess.skops"])
def test_a_missing_file_is_named(saved, tmp_path, name):
    folder, hashes = saved
    for file in {"model.skops", "preprocess.skops"} - {name}:
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    with pytest.raises(DataError, match=rf"no model file in .*{name}"):
        open_model(tmp_path, hashes)


def test_the_preprocessing_of_another_version_is_refused_even_with_its_own_right_hash(saved, tmp_path):
    folder, hashes = saved
    other = save(fit(boosting(), steps=["log"]), tmp_path)
    (tmp_path / "model.skops").write_bytes((folder / "model.skops").read_bytes())
    with pytest.raises(DataError, match="preprocessing of another model version"):
        open_model(tmp_path, {"model": hashes["model"], "preprocess": other["preprocess"]})


def test_a_model_without_a_recorded_hash_is_refused(saved):
    folder, hashes = saved
    with pytest.raises(DataError, match=r"no recorded hash .*none for preprocess"):
        open_model(folder, {"model": hashes["model"]})


def test_a_file_that_holds_something_else_is_refused(saved, tmp_path):
    folder, hashes = saved
    swapped = {"model": hashes["preprocess"], "preprocess": hashes["model"]}
    (tmp_path / "model.skops").write_bytes((folder / "preprocess.skops").read_bytes())
    (tmp_path / "preprocess.skops").write_bytes((folder / "model.skops").read_bytes())
    with pytest.raises(DataError, match=r"not a model file .* found Preprocess"):
        open_model(tmp_path, swapped)


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def test_a_pickle_is_refused_unread(tmp_path):
    file, marker = tmp_path / "model.skops", tmp_path / "ran"
    file.write_bytes(pickle.dumps(Malice(marker)))
    with pytest.raises(DataError, match="not a model file"):
        load(file, file_hash(file))
    assert not marker.exists()


@pytest.mark.parametrize(
    "obj",
    [
        {"estimator": partial(os.system, "true")},
        FunctionTransformer(func=os.system),
        {"f": np.load},
        RandomForestClassifier(n_estimators=1).fit([[0], [1]], [0, 1]),
    ],
    ids=["partial", "function", "numpy function", "forest"],
)
def test_types_outside_the_fixed_list_are_refused_even_with_the_right_hash(tmp_path, obj):
    expect = dump(obj, tmp_path / "model.skops")
    with pytest.raises(DataError, match="type that no model file of ours holds"):
        load(tmp_path / "model.skops", expect)
    with pytest.raises(DataError, match="type that no model file of ours holds"):
        load(tmp_path / "model.skops", None)


def edited(data, change):
    """Rewrite the schema inside a model file."""
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            target.writestr(name, change(json.loads(text)) if name == "schema.json" else text)
    return out.getvalue()


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"__module__": "posix", "__class__": "system"}, "type that no model file of ours holds.*posix.system"),
        ({"__module__": "evil_module", "__class__": "dict"}, "type .*evil_module.dict"),
        ({"__loader__": "FunctionNode"}, "loader that no model file of ours needs.*FunctionNode"),
        ({"__loader__": "MethodNode"}, "loader"),
        ({"__loader__": "ReduceNode"}, "loader"),
        ({"protocol": 0}, "skops protocol.*expected 2, found 0"),
    ],
)
def test_a_schema_that_lies_is_refused_and_nothing_that_it_names_is_imported(
    tmp_path, monkeypatch, saved, *, lie, message, depth
):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)

    def change(schema):
        node = schema["content"]["estimator"] if depth else schema
        node.update(lie)
        return json.dumps(schema)

    file = tmp_path / "model.skops"
    file.write_bytes(edited((saved[0] / "model.skops").read_bytes(), change))
    with pytest.raises(DataError, match=message):
        load(file, file_hash(file))
    assert not (tmp_path / "ran").exists()


def test_a_file_of_another_scikit_learn_is_refused(tmp_path, saved):
    import sklearn

    file = tmp_path / "model.skops"
    old = edited((saved[0] / "model.skops").read_bytes(), lambda s: json.dumps(s).replace(sklearn.__version__, "1.2.3"))
    file.write_bytes(old)
    with pytest.raises(DataError, match=r"InconsistentVersionWarning.*1\.2\.3"):
        load(file, file_hash(file))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_no_bytes_at_all_make_the_loader_fail_in_another_way(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("noise") / "model.skops"
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a model file"):
        load(file, None)


@given(cut=st.floats(0, 0.999))
@settings(deadline=None, max_examples=20)
def test_a_truncated_file_is_refused(saved, tmp_path_factory, cut):
    file = tmp_path_factory.mktemp("cut") / "model.skops"
    content = (saved[0] / "model.skops").read_bytes()
    file.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DataError, match="not a model file"):
        load(file, None)


def test_a_failed_dump_leaves_the_old_file(tmp_path):
    file = tmp_path / "x.skops"
    dump({"a": 1}, file)
    before = file.read_bytes()
    with pytest.raises(Exception, match=r"."):
        dump({"a": (i for i in range(3))}, file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.skops"]


@pytest.mark.parametrize("score", [float("nan"), -0.01, 1.5, float("inf")])
def test_a_score_that_is_no_probability_is_given_to_nobody(score):
    class Strange:
        def predict_proba(self, _):
            return np.array([[0.5, 0.5], [1 - score, score]])

    strange = Fitted("odd", fit(boosting()).preprocess, Strange())
    with pytest.raises(GuaranteeError, match=r"no probability in model odd: expected 0 .. 1, found"):
        strange.predict(np.zeros((2, 1)))
