"""Fill the online store with one snapshot through Feast, and publish it when the store answers for every entity."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING, Any

from lockstep.alone import alone
from lockstep.catalogue import Catalogue
from lockstep.clock import parse_day
from lockstep.closure import closure_hash
from lockstep.define import View
from lockstep.errors import DataError, EnvironmentFault, GuaranteeError, UserError
from lockstep.feast_objects import feature_store
from lockstep.files import file_hash, read_json, read_parquet
from lockstep.lookup import LookUp, close_store, hushed, named, utc_in_sqlite
from lockstep.online import Online, OnlineView, read_online, store_files, write_online
from lockstep.project import Project

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["materialize"]


def materialize(project: Project, until: date | None = None) -> Online:
    """Fill the online store with the latest snapshot up to `until`, the last there is by default.

    Each view is written in one transaction: whoever reads meanwhile gets the rows of the snapshot before. From then
    until the record, which comes last, nobody is answered. A run that was cut off is completed by the next one. Where
    the record is missing, or ``artifacts/`` no longer hold the snapshot that it names (other data or definitions), the
    store is emptied first.

    Raises
    ------
    UserError
        No such snapshot, or an older one than is online: it would put older rows over newer ones.
    DataError
        No view has rows on that day, or one that refuses to do without has none.
    GuaranteeError
        The definitions are not those of the snapshots, or the store did not take a row.
    EnvironmentFault
        Another process is at it, or the store or its registry is damaged.
    """
    about = read_json(project.root / "artifacts/features.json")
    _same_code(project, about)
    day, catalogue = _day(about, until), Catalogue(project)
    with alone(project.root, "materialize"):
        new = _planned(catalogue, about, day)
        old = read_online(project.root)
        if old and not old.is_of(project.root):
            old = None
        if old and day < old.snapshot:
            raise UserError(
                "a newer snapshot is online", where="lockstep materialize", expected=f"{old.snapshot} or later",
                found=day, do="Older rows never go over newer ones: to go back, remove state/online.json first.",
            )  # fmt: skip
        if old is None:
            write_online(project.root, None)
        _fill(project, new, empty=old is None)
        with closing(LookUp(catalogue, new)) as lookup:
            _check(lookup)
        write_online(project.root, new)
    return new


def _same_code(project: Project, about: Mapping[str, Any]) -> None:
    if closure_hash(project, "lockstep.snapshots") != about["hashes"]["code"]:
        raise GuaranteeError(
            "the definitions changed since the snapshots were built", where="artifacts/features.json",
            do="Build them again with `lockstep run`.",
        )  # fmt: skip


def _day(about: Mapping[str, Any], until: date | None) -> date:
    first, last = parse_day(about["first"]), parse_day(about["last"])
    if until and not first <= until <= last:
        raise UserError(
            "no snapshot of that day", where="artifacts/features", expected=f"{first} .. {last}", found=until
        )
    return until or last


def _planned(catalogue: Catalogue, about: Mapping[str, Any], day: date) -> Online:
    """Return the record of snapshot `day` as it will be published."""
    project, views = catalogue.project, {}
    for view in catalogue.views:
        path = project.root / "artifacts/features" / view.folder / f"{day}.parquet"
        keys = read_parquet(path).select(view.keys)
        views[view.name] = OnlineView(
            folder=view.folder, md5=file_hash(path), rows=keys.height,
            first=keys.row(0, named=True) if keys.height else None,
        )  # fmt: skip
    _judge_empty([view for view in catalogue.views if not views[view.name].rows], day, every=len(views))
    hashes = about["hashes"]
    instant = project.settings.clock.start(day)
    return Online(snapshot=day, instant=instant, features=hashes["features"], code=hashes["code"], views=views)


def _judge_empty(empty: Sequence[View], day: date, *, every: int) -> None:
    """Say what stands in for views without rows on a day; raise where one refuses to do without, or all are empty."""
    refusing = [view.name for view in empty if view.missing == "refuse"]
    if refusing or len(empty) == every:
        where = f"view {', '.join(refusing)}, {day}" if refusing else f"artifacts/features, {day}"
        do = "Choose a later day, or land what its source reads: nobody could be answered."
        raise DataError("a snapshot without rows", where=where, do=do)
    for view in empty:
        stand_in = "defaults" if view.missing == "default" else "nulls"
        print(f"warning: view {view.name} has no rows on {day}: {stand_in} stand in for everybody")


def _fill(project: Project, new: Online, *, empty: bool) -> None:
    """Apply the definitions and let Feast write the snapshot; `empty` the store first."""
    from google.protobuf.message import DecodeError

    utc_in_sqlite()
    try:
        with hushed():
            store = feature_store(project)
            if empty:
                _empty(store)
                store = feature_store(project)
            _never_lock_readers(store)
            # Explicit bounds: Feast's incremental run starts at the wall clock less the TTL and, for older data, writes
            # nothing without a word.
            store.materialize(new.instant, new.instant, feature_views=list(new.views))
            close_store(store)
            _settle(store)
    except (sqlite3.Error, DecodeError) as e:
        names = ", ".join(str(path) for name, path in store_files(project).items() if name != "record")
        raise EnvironmentFault(
            "the online store or its registry cannot be written", where=names, found=e,
            do="Remove these files and run `lockstep materialize` again: artifacts/ hold all that they held.",
        ) from e  # fmt: skip


def _empty(store: FeatureStore) -> None:
    """Remove the rows of all views; the registry stays, others may have their own objects in it."""
    store._get_provider().teardown_infra(store.project, store.list_feature_views(), store.list_entities())


def _never_lock_readers(store: FeatureStore) -> None:
    """Let SQLite's readers go on while a snapshot is written, which without its write-ahead log they cannot."""
    if store.config.online_store.type == "sqlite":
        path = store.config.repo_path / store.config.online_store.path
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()


def _settle(store: FeatureStore) -> None:
    """Move SQLite's write-ahead log into the file, whose bytes are then what was written."""
    if store.config.online_store.type == "sqlite":
        connection = sqlite3.connect(store.config.repo_path / store.config.online_store.path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()


def _check(lookup: LookUp) -> None:
    """Raise unless the store answers for every entity with the snapshot's row: an empty one answers too, with nulls."""
    online = lookup.online
    for view in lookup.catalogue.views:
        keys = read_parquet(online.file(lookup.catalogue.project.root, view.name)).select(view.keys)
        found = lookup.everyone(view, keys)
        for key, whole, instant in zip(keys.iter_rows(named=True), found.whole, found.instants, strict=True):
            if not whole or instant != online.instant:
                raise GuaranteeError(
                    "the online store did not take a row", where=f"{view.name}, {named(key)}",
                    expected=online.instant, found=instant if whole else "none", do="Run `lockstep materialize` again.",
                )  # fmt: skip
