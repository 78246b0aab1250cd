"""Online = offline: what the online store serves, compared bit for bit with what training would have read."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.clock import INSTANT
from lockstep.define import OnDemandView
from lockstep.errors import GuaranteeError
from lockstep.files import read_parquet
from lockstep.lookup import LookUp, NotOnline, hushed
from lockstep.online import read_online, write_proof
from lockstep.project import Project
from lockstep.replay import ODD, carried, replay

__all__ = ["Difference", "Parity", "parity", "prove_parity", "same_bits"]

_SHOWN = 5


class Difference(NamedTuple):
    """A value that is not the same online and offline."""

    entity: tuple[Any, ...]
    feature: str
    offline: Any
    online: Any

    def __str__(self) -> str:
        return f"{self.feature} of {', '.join(map(str, self.entity))}: offline {self.offline!r}, online {self.online!r}"


@dataclass(frozen=True)
class Parity:
    """What the comparison came to: of each kind of entity how many are equal, of how many; the first differences."""

    snapshot: date
    counts: dict[str, tuple[int, int]]
    features: int
    differences: tuple[Difference, ...]

    def text(self) -> str:
        """Return one line for a verdict."""
        many = {
            whose: (whose.removesuffix("y") + "ie" if whose.endswith("y") else whose) + "s" for whose in self.counts
        }
        of = ", ".join(f"{equal:,} of {all_:,} {many[whose]}" for whose, (equal, all_) in self.counts.items())
        return f"{of} equal online and offline in {self.features} features, snapshot {self.snapshot}"

    def require(self) -> None:
        """Raise GuaranteeError, naming the first differences, unless all entities are equal."""
        equal, entities = (sum(n) for n in zip(*self.counts.values(), strict=True))
        if equal != entities or not entities:
            raise GuaranteeError(
                "online is not offline", where=f"snapshot {self.snapshot}",
                expected=f"{entities:,} equal rows",
                found=f"{equal:,} ({'; '.join(map(str, self.differences))})",
                do="Remove state/online.json and fill the store anew with `lockstep materialize`.",
            )  # fmt: skip


def prove_parity(project: Project) -> Parity:
    """Compare as `parity` does; raise GuaranteeError for a difference, otherwise record what was proven."""
    found = parity(project)
    found.require()
    write_proof(project, found.text())
    return found


def parity(project: Project) -> Parity:
    """Compare what the online store holds for every entity of the materialised snapshot with the snapshot's file.

    Then compare the request-time features, computed online at an odd instant of that day, with those that
    `get_historical_features` gives at the same instant; and what a server reads for requests to each model, those of
    strangers and those past a lifetime among them, with the rows of a training set, refusals with refusals.

    Raises
    ------
    NotOnline
        Nothing is materialised, or the store cannot be read.
    """
    online = read_online(project.root)
    if online is None:
        raise NotOnline("nothing is online", where="state/online.json", do="Run `lockstep materialize`.")
    with closing(LookUp(Catalogue(project), online)) as lookup:
        return _compare(lookup)


def _compare(lookup: LookUp) -> Parity:
    catalogue, online, root = lookup.catalogue, lookup.online, lookup.catalogue.project.root
    held: dict[str, dict[str, list[Any]]] = {}
    seen: set[tuple[str, tuple[Any, ...]]] = set()
    wrong: dict[tuple[str, tuple[Any, ...]], list[Difference]] = {}
    for view in catalogue.views:
        offline = read_parquet(online.file(root, view.name))
        rows = offline.select(view.keys)
        keys = rows.rows()
        found = lookup.everyone(view, rows)
        held[view.name] = {**rows.to_dict(as_series=False), **found.values}
        seen |= {(view.whose, key) for key in keys}
        instants = {"event_timestamp": found.instants}
        for difference in _differences(keys, offline, {**found.values, **instants}):
            wrong.setdefault((view.whose, difference.entity), []).append(difference)
    for demand in catalogue.on_demand:
        for difference in _on_demand(lookup, demand, held):
            wrong.setdefault((demand.widest.whose, difference.entity), []).append(difference)
    requests = [] if wrong else list(_as_asked(lookup))  # which read what is wrong already
    first = [d for differences in [*wrong.values(), *requests] for d in differences][:_SHOWN]
    entities, spoilt = (Counter(whose for whose, _ in some) for some in (seen, wrong))
    kinds = dict.fromkeys(view.whose for view in catalogue.views)
    counts = {whose: (entities[whose] - spoilt[whose], entities[whose]) for whose in kinds}
    if requests:
        counts["request"] = (sum(not differences for differences in requests), len(requests))
    return Parity(online.snapshot, counts, len(catalogue.types), tuple(first))


def _on_demand(lookup: LookUp, view: OnDemandView, held: Mapping[str, Mapping[str, list[Any]]]) -> Iterator[Difference]:
    """Yield where an on-demand view gives other values from the online store than Feast gives offline."""
    stored, at = view.widest, lookup.online.instant + ODD
    of = {key: held[stored.name][key] for key in stored.keys}
    keys = list(zip(*of.values(), strict=True))
    inputs = {
        name: [at] * len(keys) if kind == INSTANT else carried(kind, len(keys)) for name, kind in view.request.items()
    }
    asked = pl.DataFrame({**of, **inputs, "event_timestamp": [at] * len(keys)})
    asked = asked.with_columns(pl.col(n).cast(kind) for n, kind in {**view.request, "event_timestamp": INSTANT}.items())
    for source in view.views:
        own = zip(*(held[source.name][key] for key in source.keys), strict=True)
        beside = {key: n for n, key in enumerate(own)}
        places = [beside.get(key) for key in zip(*(of[key] for key in source.keys), strict=True)]
        for name in view.inputs(source):
            column = held[source.name][name]
            inputs[name] = [None if n is None else column[n] for n in places]
    computed = view.compute(inputs, lookup.catalogue.inputs(view))
    refs = [f"{view.name}:{name}" for name in computed]
    with hushed():
        joined = lookup.store.get_historical_features(entity_df=asked, features=refs).to_arrow()
    offline = pl.DataFrame(joined).select(pl.col(n).cast(lookup.catalogue.types[n]) for n in computed)
    yield from _differences(keys, offline, computed)


def _as_asked(lookup: LookUp) -> Iterator[list[Difference]]:
    """Yield, for each of some requests to each model, where it is answered otherwise than a training row is made."""
    catalogue = lookup.catalogue
    services = {model.service for model in catalogue.project.settings.models.values()}
    for service in [s for s in catalogue.services if s.name in services]:
        for asked, offline, online in replay(lookup, service.features):
            if isinstance(offline, str) and isinstance(online, str):
                yield []
            elif isinstance(offline, str) or isinstance(online, str):
                told = (answer if isinstance(answer, str) else "an answer" for answer in (offline, online))
                yield [Difference(asked, f"service {service.name}", *told)]
            else:
                values = {name: [value] for name, value in online.items()}
                made = pl.DataFrame([offline], schema={name: catalogue.types[name] for name in offline})
                yield [*_differences([asked], made, values)]


def _differences(
    keys: list[tuple[Any, ...]], offline: pl.DataFrame, online: Mapping[str, Sequence[Any]]
) -> Iterator[Difference]:
    for name, values in online.items():
        for key, a, b in zip(keys, offline[name].to_list(), values, strict=True):
            if not same_bits(a, b):
                yield Difference(key, name, a, b)


def same_bits(a: object, b: object) -> bool:
    """Return whether two values are the same: floats by their bits, everything else by type and value.

    >>> same_bits(0.0, -0.0), same_bits(1, 1.0), same_bits(None, float("nan")), same_bits(float("nan"), float("nan"))
    (False, False, False, True)
    >>> same_bits([1.0, 0.0], [1.0, 0.0]), same_bits([0.0], [-0.0]), same_bits([1.0], [1.0, 1.0]), same_bits([], None)
    (True, False, False, False)
    """
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return (a == b) if isinstance(a, datetime) and isinstance(b, datetime) else type(a) is type(b) and a == b
