"""The online store, opened once: what it answers for an entity, judged before anybody uses it.

Feast itself serves a row of any age (https://github.com/feast-dev/feast/issues/6821), and from an empty store it
answers null for everybody without an error. Here every answer is held against the record of what was materialised.
"""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.define import View
from lockstep.errors import EnvironmentFault, LockstepError, UserError
from lockstep.feast_objects import open_store
from lockstep.online import Online
from lockstep.project import Project

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = [
    "BadRequest",
    "Found",
    "LookUp",
    "NotOnline",
    "UnknownEntity",
    "check_age",
    "close_store",
    "expired",
    "hushed",
    "named",
    "utc_in_sqlite",
]

_BATCH = 500
_FILL = "Fill it with `lockstep materialize`."


class NotOnline(EnvironmentFault):
    """The online store cannot answer: nothing in it, too old, or damaged (HTTP 503)."""

    status = 503


class UnknownEntity(UserError):
    """Nobody by that key, online or offline (HTTP 404)."""

    status = 404


class BadRequest(UserError):
    """A request that has no answer, now or later (HTTP 422)."""

    status = 422


class Found(NamedTuple):
    """What the store holds of one view, entity by entity.

    `values` are columns by feature; `whole` says whether all of an entity's features are there (None: some of them);
    `instants` are the event timestamps (UTC).
    """

    values: dict[str, list[Any]]
    whole: list[bool | None]
    instants: list[datetime]


class LookUp:
    """The opened store of a project and the record of what it holds.

    Open one a process at a time: two that take turns make Feast resolve every request anew (0.3 -> 1.9 ms).
    """

    def __init__(self, catalogue: Catalogue, online: Online) -> None:
        self.catalogue, self.online = catalogue, online
        self._project = catalogue.project
        self._keys: dict[str, pl.DataFrame] = {}
        with hushed(), sorry(self._project):
            self.store = open_store(self._project)
            # The rows of a view stay whole while new ones are written, in one transaction; Feast would refuse them all
            # the while, and after a crash for ever (https://github.com/feast-dev/feast/issues/6780).
            self.store.registry.serve_features_while_materializing = True
            utc_in_sqlite()

    def close(self) -> None:
        """Let go of the store's file."""
        close_store(self.store)

    def rows(self, features: Mapping[str, Sequence[str]], entities: Mapping[str, Sequence[object]]) -> dict[str, Found]:
        """Return what the store holds of each view in `features`, whatever its age, for columns of keys.

        Raises
        ------
        NotOnline
            The store cannot be read.
        """
        from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

        refs = [f"{view}:{name}" for view, names in features.items() for name in names]
        with sorry(self._project):
            response = self.store.get_online_features(
                features=refs, entity_rows={k: list(v) for k, v in entities.items()}
            )
            values = response.to_dict()
        columns = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
        found = {}
        for view, names in features.items():
            of = [columns[name] for name in names]  # by name: Feast's order changes with each process
            held = [sum(s == FieldStatus.PRESENT for s in one) for one in zip(*(c.statuses for c in of), strict=True)]
            found[view] = Found(
                {name: values[name] for name in names},
                [True if n == len(names) else None if n else False for n in held],
                [datetime.fromtimestamp(t.seconds, UTC) for t in of[0].event_timestamps],
            )
        return found

    def everyone(self, view: View, entities: pl.DataFrame) -> Found:
        """Return all that the store holds of one view for `entities`, its keys, asked in batches."""
        names = list(self.catalogue.schemas[view.name])
        found = Found({name: [] for name in names}, [], [])
        for some_keys in entities.iter_slices(_BATCH):
            some = self.rows({view.name: names}, some_keys.to_dict(as_series=False))[view.name]
            for name in names:
                found.values[name].extend(some.values[name])
            found.whole.extend(some.whole)
            found.instants.extend(some.instants)
        return found

    def read(
        self, features: Mapping[str, Sequence[str]], views: Sequence[View], keys: Mapping[str, object], at: datetime
    ) -> tuple[dict[str, Any], datetime, list[str]]:
        """Return the stored features of `keys` at the instant `at`, their snapshot's instant, and which stand in.

        Defaults or nulls stand in where there is no row, or one past its lifetime.
        A view without a row of them, online or offline, or with one past its lifetime, says what follows.

        Raises
        ------
        UnknownEntity
            A view that refuses does not know the keys, or none knows any of them and none has defaults.
        BadRequest
            `at` lies before the snapshot that is online.
        NotOnline
            The store cannot be read, lacks a row, holds an older one than was published, or a view refuses one past
            its lifetime.
        """
        zone = self.catalogue.project.settings.zone
        found = self.rows(features, {key: [value] for key, value in keys.items()})
        values: dict[str, Any] = {}
        defaults: list[str] = []
        snapshot, known = self.online.instant, False
        for view in views:
            one, stand_in = found[view.name], view.stand_in()
            if one.whole[0] is None or (not one.whole[0] and self._offline(view, keys)):
                raise NotOnline("a row is missing or incomplete", where=f"{view.name}, {named(keys)}", do=_FILL)
            if one.whole[0] and one.instants[0] != snapshot:
                raise NotOnline(
                    "a row of another snapshot than the published one", where=named(keys),
                    expected=snapshot, found=one.instants[0], do=_FILL,
                )  # fmt: skip
            known = known or bool(one.whole[0]) or view.missing == "default"
            if not one.whole[0] and view.missing == "refuse":
                raise self._nobody({key: keys[key] for key in view.keys})
            if view.missing == "refuse" or at < snapshot:
                check_age(snapshot, at, view, zone)
            if one.whole[0] and not expired(snapshot, at, view, zone):
                values |= {name: column[0] for name, column in one.values.items()}
            else:
                values |= {name: stand_in[name] for name in one.values}
                defaults += one.values
        if not known:
            raise self._nobody(keys)
        return values, snapshot, defaults

    def _nobody(self, keys: Mapping[str, object]) -> UnknownEntity:
        return UnknownEntity(f"nobody by {named(keys)}", where=f"snapshot {self.online.snapshot}")

    def _offline(self, view: View, keys: Mapping[str, object]) -> bool:
        """Return whether the snapshot that was materialised has a row of `keys`."""
        path = self.online.file(self._project.root, view.name)
        if view.name not in self._keys and not path.is_file():
            raise NotOnline(
                "cannot tell whether this is an unknown entity or a lost row", where=str(path), found="no such file",
                do="Build it with `lockstep run`.",
            )  # fmt: skip
        if view.name not in self._keys:  # read once: to have no row is an everyday case
            self._keys[view.name] = pl.scan_parquet(path, glob=False).select(view.keys).collect()
        return not self._keys[view.name].filter(*(pl.col(key) == keys[key] for key in view.keys)).is_empty()


def named(keys: Mapping[str, object]) -> str:
    """Return keys as text: ``household_id 7, store_id 31``."""
    return ", ".join(f"{key} {value}" for key, value in keys.items())


def check_age(snapshot: datetime, at: datetime, view: View, zone: str) -> None:
    """Raise unless a feature of `view` in `snapshot` is its value at `at`: the rule of the offline join, online.

    Raises
    ------
    BadRequest
        `at` lies before the snapshot: the store holds no history.
    NotOnline
        The view's TTL, in calendar days of `zone` and inclusive, is over.
    """
    if at < snapshot:
        raise BadRequest(
            "the online store holds no history: `at` is too early", expected=f"{snapshot.isoformat()} or later",
            found=at.isoformat(), do="Ask the offline store about the past.",
        )  # fmt: skip
    if expired(snapshot, at, view, zone):
        raise NotOnline(
            "a stale snapshot", where=f"view {view.name}", found=snapshot.isoformat(),
            expected=f"one at most {view.ttl_days} days before {at.isoformat()}",
            do="Land and build newer days, then run `lockstep materialize`.",
        )  # fmt: skip


def expired(snapshot: datetime, at: datetime, view: View, zone: str) -> bool:
    """Tell whether the lifetime of a view's row, in calendar days of `zone` and inclusive, is over at `at`."""
    # Python subtracts days on the wall clock and takes the first of two: the rule of `polars_join.expiry`.
    since = at.astimezone(ZoneInfo(zone)) - timedelta(days=view.ttl_days)
    return snapshot < since.astimezone(UTC)


def close_store(store: FeatureStore) -> None:
    """Close SQLite's connection, which Feast keeps for good."""
    connection = getattr(store._get_provider().online_store, "_conn", None)
    if connection is not None:
        connection.close()


def utc_in_sqlite() -> None:
    """Make Feast's SQLite store mean UTC by its naive instants: it takes them for the machine's local time.

    Rows written under one TZ and read under another would otherwise be hours off, and an instant that local clocks
    skipped an hour even under the same (``adapt_datetime_epoch`` in ``feast/infra/online_stores/sqlite.py``).
    """
    import feast.infra.online_stores.sqlite  # noqa: F401 - registers its own first

    sqlite3.register_adapter(datetime, lambda at: int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()))
    sqlite3.register_converter("timestamp", lambda seconds: datetime.fromtimestamp(int(seconds), UTC))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep Feast's progress lines and bars off the screen; errors are raised all the same."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def sorry(project: Project) -> Iterator[None]:
    """Turn whatever a store raises into one sentence: each kind of store has errors of its own."""
    try:
        yield
    except LockstepError:
        raise
    except Exception as e:
        told = f"{type(e).__name__}: {' '.join(str(e).split())}"
        raise NotOnline(
            "the online store cannot be read", where="features/feature_store.yaml", found=told,
            do=f"Fill it with `lockstep materialize`; see {project.root / 'state'}.",
        ) from e  # fmt: skip
