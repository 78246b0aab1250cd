"""One model version, ready to answer one request: its fitted state, its features, its clock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.closure import closure_hash
from lockstep.errors import DataError, DefinitionError, did_you_mean
from lockstep.feature_contract import breach
from lockstep.files import read_json
from lockstep.lookup import BadRequest, LookUp, NotOnline, check_age, named
from lockstep.model_file import Fitted, open_model
from lockstep.online import proven, read_online, store_files
from lockstep.project import Project
from lockstep.reader import FOREIGN, Reader
from lockstep.train import named_model

__all__ = ["Prediction", "Predictor", "ones"]


class Prediction(NamedTuple):
    """A score and what it was made of; `days_behind` counts from the snapshot's day to that of `at`.

    `defaulted` are the features for which there was no value, or none that still counts, and those computed from such.
    """

    score: float
    at: datetime
    snapshot: datetime
    days_behind: int
    features: dict[str, Any]
    defaulted: list[str]


class Predictor:
    """A model version with the store that it reads.

    A request is made of `keys` and `request`: see `Reader`.

    Parameters
    ----------
    project
        Where the model's card, its files and the definitions are.
    name
        The model, as ``params.yaml`` names it.

    Raises
    ------
    DataError
        Card or fitted state are missing, altered or another model's: nothing is ever scored with them.
    DefinitionError
        The definitions are not those that the model was trained with.
    """

    def __init__(self, project: Project, name: str) -> None:
        named_model(project.settings.models, name)
        self.project, self.name, built = project, name, project.root / "artifacts"
        self.card = read_json(built / "evaluate" / name / "card.json")
        self.hashes = {kind: h for kind, h in self.card["hashes"].items() if kind in ("model", "preprocess")}
        self.fitted: Fitted = open_model(built / "model" / name, self.hashes)
        if not name == self.card["model"] == self.fitted.model:
            raise DataError(
                "another model's files", where=f"artifacts of {name}", expected=name, found=self.fitted.model,
                do="Build them again with `lockstep run`.",
            )  # fmt: skip
        self.features: dict[str, str] = self.card["features"]
        self.catalogue = Catalogue(project)
        self._check_definitions()
        self.reader = Reader(self.catalogue, self.features)
        self.keys, self.request = self.reader.keys, self.reader.request
        self._files = store_files(project)
        self._stamp: object = None
        self._lookup: LookUp | None = None

    def _check_definitions(self) -> None:
        """Refuse definitions of another day than the model's: the values would have its features' names alone."""
        for name, kind in self.features.items():
            found = self.catalogue.types.get(name)
            if str(found) != kind:
                do = "Build the model again with `lockstep run`."
                do = do if found is not None else did_you_mean(name, self.catalogue.types)
                raise DefinitionError(
                    "not the feature that the model reads", where=f"feature {name}", expected=kind, found=found, do=do
                )
        if closure_hash(self.project, "lockstep.dataset") != self.card["hashes"]["code"]["dataset"]:
            raise DefinitionError(
                "the definitions changed since the model was trained", where=f"the card of {self.name}",
                do="Build the model again with `lockstep run`.",
            )  # fmt: skip

    def now(self) -> datetime:
        """Return the instant at which requests without one are answered: the given clock's, or the wall clock's."""
        return self.project.settings.serve.clock or datetime.now(UTC)

    def lookup(self) -> LookUp:
        """Return the opened store, opened anew when something else was published or its file was replaced.

        Raises
        ------
        NotOnline
            Nothing is materialised, a file is missing or damaged, or the features are not of the model's definitions.
        """
        try:  # the registry changes all the while something is materialised: it must be there, no more
            found = {name: os.stat(path) for name, path in self._files.items()}  # noqa: PTH116 - the hot path
        except OSError as e:
            self._close()
            raise NotOnline(
                "nothing is online", where=str(e.filename), found="no such file", do="Run `lockstep materialize`."
            ) from None
        stamp = [(s.st_ino, s.st_mtime_ns, s.st_size) for name, s in found.items() if name != "registry"]
        with suppress(OSError):  # SQLite's log, while something is written
            log = os.stat(f"{self._files.get('store')}-wal")  # noqa: PTH116 - as above
            stamp += [(log.st_ino, log.st_mtime_ns, log.st_size)] if log.st_size else []
        if self._lookup is None or stamp != self._stamp:
            self._close()
            self._lookup, self._stamp = self._open(), stamp
        return self._lookup

    def _open(self) -> LookUp:
        online = read_online(self.project.root)
        if online is None:
            raise NotOnline("not a record", where="state/online.json", do="Run `lockstep materialize`.")
        expected = self.card["hashes"]["code"]["features"]
        if online.code != expected:
            raise NotOnline(
                "the features that are online were computed by other code than the model's", where="state/online.json",
                expected=expected[:12], found=online.code[:12],
                do="Run `lockstep run` and `lockstep materialize`, then restart.",
            )  # fmt: skip
        if proven(self.project) is None:
            raise NotOnline(
                "what is online was not proven equal to the offline snapshot", where="state/parity.json",
                do="Run `lockstep materialize`.",
            )  # fmt: skip
        return LookUp(self.catalogue, online)

    def _close(self) -> None:
        if self._lookup is not None:
            self._lookup.close()
        self._lookup = None

    def read(self, asked: Mapping[str, Any], at: datetime) -> tuple[dict[str, Any], datetime, list[str]]:
        """Return the model's features for a request at an instant, in its order, their snapshot, and the defaulted."""
        try:
            return self.reader.read(self.lookup(), asked, at)
        except NotOnline:
            self._close()  # a damaged file may be mended by the next request
            raise

    def _judge(self, features: Mapping[str, Any], snapshot: datetime, asked: Mapping[str, Any], at: datetime) -> None:
        """Hold what is computed from the request against its contract, as training did."""
        for feature in [f for view in self.reader.demands for f in view.features if f.name in features]:
            if found := breach(feature, features[feature.name]):
                self._check_age(feature.name, snapshot, at)
                raise BadRequest(
                    f"feature {feature.name!r} is {found[0]}", where=self.whom(asked), expected=found[1],
                    found=features[feature.name],
                )  # fmt: skip

    def _check_age(self, name: str, snapshot: datetime, at: datetime) -> None:
        """Raise NotOnline where a feature comes of a view past its lifetime: that is no fault of who asks."""
        behind = self.catalogue.behind([name])
        for view in self.reader.views:
            if behind & {*self.reader.stored[view.name]}:
                check_age(snapshot, at, view, self.project.settings.zone)

    def predict(self, asked: Mapping[str, Any], at: datetime | None = None) -> Prediction:
        """Return the score for a request, by name its `keys` and all of `request`, at an instant.

        Raises
        ------
        BadRequest
            `at` lies before what is online, a feature is null that never was in training, or what is computed from
            the request breaks its contract.
        UnknownEntity, NotOnline
            As `LookUp.read`; also where such a null comes of a view past its lifetime.
        """
        at = at or self.now()
        features, snapshot, defaulted = self.read(asked, at)
        self._judge(features, snapshot, asked, at)
        preprocess = self.fitted.preprocess
        for name in preprocess.never_null_:
            if features[name] is None:  # asking again will not help: this entity has no such value
                self._check_age(name, snapshot, at)
                raise BadRequest(
                    f"no score for {self.whom(asked)}", where=f"feature {name}", expected="a value", found="null",
                    do=f"The model {self.name} was trained on rows that had one.",
                )  # fmt: skip
        try:
            score = float(self.fitted.predict(preprocess.transform_row(features))[0])
        except DataError as e:
            raise NotOnline(FOREIGN, where=self.whom(asked), found=e) from e
        return Prediction(score, at, snapshot, self._days(snapshot, at), features, defaulted)

    def _days(self, first: datetime, last: datetime) -> int:
        zone = ZoneInfo(self.project.settings.zone)
        return (last.astimezone(zone).date() - first.astimezone(zone).date()).days

    def whom(self, asked: Mapping[str, Any]) -> str:
        """Return whom a request is about, as text."""
        return named({key: asked[key] for key in self.keys})

    def example(self) -> dict[str, Any]:
        """Return a request about somebody who is online: the keys of the view that has the most, and ones."""
        firsts = [self.lookup().online.views[view.name].first for view in self.reader.views]
        keys: dict[str, Any] = {}
        for first in sorted(filter(None, firsts), key=len, reverse=True):
            keys = {**first, **keys}  # those of one view belong together
        return keys | ones(self.request)

    def health(self) -> dict[str, Any]:
        """Return what would answer a request now; raise what the request would raise, or that a view is stale."""
        online, at = self.lookup().online, self.now()
        _, snapshot, _ = self.read(self.example(), at)
        for view in self.reader.views:
            check_age(snapshot, at, view, self.project.settings.zone)
        return {
            "status": "ok",
            "model": self.name,
            "hashes": {**self.hashes, "features": online.features},
            "snapshot": snapshot,
            "days_behind": self._days(snapshot, at),
        }


def ones(types: Mapping[str, pl.DataType]) -> dict[str, Any]:
    """Return a one of each type: 1, 1.0, true or "1"."""
    return {name: pl.Series([1]).cast(kind)[0] for name, kind in types.items()}
