"""Model files: one byte string for one fitted state, and a loader that refuses everything it does not know.

skops writes zip time stamps, memory addresses and random member names; `canonical` replaces them, so the same fitted
state gives the same bytes. The loader believes nothing that a file says about itself: the hash comes from a record
beside the file, the types from the fixed lists below. No pickle is read or written.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lockstep.errors import DataError, GuaranteeError
from lockstep.files import writing
from lockstep.preprocess import Preprocess

__all__ = ["Fitted", "canonical", "dump", "load", "open_model", "save"]

MODEL, PREPROCESS = "model.skops", "preprocess.skops"

# What a file may name, all of it. An estimator of your own goes here, by hand, once you have read what it runs when it
# is built from its state; never copy the list out of the file that you are about to load.
TYPES = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"numpy.{name}" for name in ("dtype", "float64", "int64", "ndarray", "uint64")),
        "numpy.random._generator.Generator",
        "lockstep.preprocess.Clip",
        "lockstep.preprocess.Preprocess",
        "lockstep.preprocess.SignedLog",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._label.LabelEncoder",
    }
)
LOADERS = frozenset(
    f"{kind}Node"
    for kind in ("Dict", "DType", "Json", "List", "Loss", "NdArray", "Object", "RandomGenerator", "Tuple", "Type")
)
PROTOCOL = 2  # older ones have loaders of their own, with older checks
_TRUSTED = sorted(name for name in TYPES if not name.startswith("builtins."))
_ADVICE = "Restore the file, or train the model again."


@dataclass(frozen=True)
class Fitted:
    """A model version: its fitted preprocessing and the estimator that was fitted behind exactly that."""

    model: str
    preprocess: Preprocess
    estimator: Any

    def score(self, frame: pl.DataFrame, *, allow_nulls: bool = False) -> NDArray[np.float64]:
        """Return the probability of label 1, one a row; `frame` holds exactly the model's features, in order.

        The same bits under any number of threads.

        Raises
        ------
        DataError
            As `Preprocess.transform`.
        """
        return self.predict(self.preprocess.transform(frame, allow_nulls=allow_nulls), exact=True)

    def predict(self, matrix: NDArray[np.float64], *, exact: bool = False) -> NDArray[np.float64]:
        """Return the probability of label 1, shape (n,), for what the preprocessing made of rows, shape (n, p).

        `exact` holds BLAS to one thread, or the last bit of a product may follow the number of threads. That takes
        longer than scoring one row: a server sets ``OPENBLAS_NUM_THREADS=1`` instead.

        Raises
        ------
        GuaranteeError
            A score that is no probability: it is never given away.
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(1, "blas") if exact else nullcontext():
            probability: NDArray[np.float64] = self.estimator.predict_proba(matrix)[:, 1]
        if not ((probability >= 0) & (probability <= 1)).all():  # NaN is neither
            raise GuaranteeError(
                "a score that is no probability", where=f"model {self.model}", expected="0 .. 1",
                found=float(probability[~((probability >= 0) & (probability <= 1))][0]), do="Train the model again.",
            )  # fmt: skip
        return probability


def canonical(obj: object) -> bytes:
    """Return the skops bytes of `obj`, the same for the same state in any process.

    Member names follow their order in the schema, time stamps are zip's first instant, and ids are counted. Equal
    scalars share one id: whether the interpreter shared the object is an accident of the process.
    """
    import skops.io

    source = zipfile.ZipFile(io.BytesIO(skops.io.dumps(obj, compression=zipfile.ZIP_STORED)))
    schema = json.loads(source.read("schema.json"))
    ids: dict[tuple[str, Any], int] = {}
    names: dict[str, str] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            same = ("json", node["content"]) if node["__loader__"] == "JsonNode" else ("id", node["__id__"])
            node["__id__"] = ids.setdefault(same, len(ids))
        if isinstance(file := node.get("file"), str):
            node["file"] = names.setdefault(file, f"{len(names):06d}.{file.rsplit('.', 1)[-1]}")
    members = {new: source.read(old) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, sort_keys=True, separators=(",", ":")).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr, info.create_system = 0o600 << 16, 3
            target.writestr(info, data)
    return out.getvalue()


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    """Yield the mappings inside `value`, outermost first, in the order written."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def dump(obj: object, path: Path) -> str:
    """Write `obj` to `path`, whole or not at all, and return the md5 of its bytes."""
    data = canonical(obj)
    with writing(path) as beside:
        beside.write_bytes(data)
    return _hash(data)


def load(path: Path, expect: str | None) -> Any:
    """Return the object in `path`, whose md5 is `expect`.

    The hash is taken of the very bytes that are then read. Pass None only for a file that no record names yet: its
    types are still judged, its numbers cannot be.

    Raises
    ------
    DataError
        The file is missing, has another hash, names a type or loader outside the fixed lists, was fitted by another
        scikit-learn, or is not a model file.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError("no model file", where=str(path), found=e.strerror, do=_ADVICE) from e
    if expect is not None and _hash(data) != expect:
        raise DataError("altered model file", where=str(path), expected=expect, found=_hash(data), do=_ADVICE)
    try:
        return _construct(data, path)
    except DataError:
        raise
    except Exception as e:  # a damaged zip can fail anywhere in zipfile, json, numpy or skops
        reason = f"{type(e).__name__}: {' '.join(str(e).split())}"
        raise DataError("not a model file", where=str(path), found=reason, do=_ADVICE) from e


def _construct(data: bytes, path: Path) -> Any:
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
    for node in _nodes(schema):
        _judge(node, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)  # another version may score otherwise, in silence
        return skops.io.loads(data, trusted=_TRUSTED)


def _judge(node: Mapping[str, Any], path: Path) -> None:
    """Refuse a node whose type, loader or protocol is not on our list."""
    if "__class__" in node and (name := f"{node.get('__module__')}.{node['__class__']}") not in TYPES:
        raise DataError("type that no model file of ours holds", where=str(path), found=name, do=_ADVICE)
    if "__loader__" in node and node["__loader__"] not in LOADERS:
        raise DataError(
            "loader that no model file of ours needs", where=str(path), found=node["__loader__"], do=_ADVICE
        )
    if "protocol" in node and node["protocol"] != PROTOCOL:
        raise DataError("skops protocol", where=str(path), expected=PROTOCOL, found=node["protocol"], do=_ADVICE)


def save(fitted: Fitted, folder: Path) -> dict[str, str]:
    """Write both files of `fitted` and return their hashes, ``{"preprocess": ..., "model": ...}``.

    The model file carries the hash of the preprocessing that its estimator was fitted behind.
    """
    mapper = getattr(fitted.estimator, "_bin_mapper", None)
    if mapper is not None:
        mapper.n_threads = 1  # the machine's number of threads otherwise: the only trace it leaves in the state
    preprocess = dump(fitted.preprocess, folder / PREPROCESS)
    bundle = {
        "model": fitted.model,
        "preprocess": preprocess,
        "columns": fitted.preprocess.columns,
        "estimator": fitted.estimator,
    }
    return {"preprocess": preprocess, "model": dump(bundle, folder / MODEL)}


def open_model(folder: Path, expect: Mapping[str, str]) -> Fitted:
    """Load the two files of a model version whose hashes are `expect`, as `save` returned them.

    Raises
    ------
    DataError
        As `load`; or the preprocessing is not the one that the estimator was fitted behind.
    """
    missing = sorted({"preprocess", "model"} - set(expect))
    if missing:
        raise DataError("no recorded hash", where=str(folder), found=f"none for {', '.join(missing)}", do=_ADVICE)
    bundle = load(folder / MODEL, expect["model"])
    if not isinstance(bundle, dict) or set(bundle) != {"model", "preprocess", "columns", "estimator"}:
        raise DataError("not a model file", where=str(folder / MODEL), found=type(bundle).__name__, do=_ADVICE)
    if bundle["preprocess"] != expect["preprocess"]:
        raise DataError(
            "preprocessing of another model version",
            where=str(folder),
            expected=bundle["preprocess"],
            found=expect["preprocess"],
            do="Take both files and their hashes from one model version.",
        )
    preprocess = load(folder / PREPROCESS, expect["preprocess"])
    if not isinstance(preprocess, Preprocess) or preprocess.columns != bundle["columns"]:
        raise DataError("not this model's preprocessing", where=str(folder / PREPROCESS), do=_ADVICE)
    return Fitted(bundle["model"], preprocess, bundle["estimator"])


def _hash(data: bytes) -> str:
    """Return the md5 of `data`: what `lockstep.files.file_hash` says of a file with these bytes."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
