"""How a contract changes: what differs between two versions, whom it breaks, and who reads what is changed.

A promise that is relaxed breaks consumers, one that is tightened breaks producers: a value that the old version let
nobody read may come, or a row that it took may be refused. A rule that only flags promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.contract import Contract, Health, Rule, Slo, Statistic, Volume, load_contracts, renamed
from lockstep.define import Source
from lockstep.derive import event_schema
from lockstep.errors import LockstepError
from lockstep.project import Project

__all__ = ["Change", "diff", "readers"]

_REFUSES = ("flag", "quarantine", "fail")
"""What producers feel of a rule that is broken, the hardest last: a repair is no refusal."""


@dataclass(frozen=True)
class Change:
    """One difference: what became of what, from and to what, whom it breaks, and the old columns that it is about."""

    what: str
    where: str
    old: str = ""
    new: str = ""
    breaks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the change for scripts."""
        return {**asdict(self), "breaking": bool(self.breaks)}

    def text(self) -> str:
        """Return the change for people."""
        breaks = f"breaks {' and '.join(self.breaks)}" if self.breaks else "compatible"
        became = " -> ".join(filter(None, (self.old, self.new)))
        return f"{breaks:<32}{self.what}: {self.where}{', ' if became else ''}{became}"


def diff(old: Contract, new: Contract) -> list[Change]:
    """Return what `new` changes: the table, then columns, then rules, then what is judged over days."""
    gone = [c for c in old.columns if c not in new.columns]
    come = [c for c in new.columns if c not in old.columns]
    now = renamed(gone, come, old.schema(), new.schema())
    return [*_table(old, new, now), *_columns(old, new, now), *_rules(old, new, now), *_over_days(old, new, now)]


def _table(old: Contract, new: Contract, now: Mapping[str, str]) -> Iterator[Change]:
    """Yield what changed beside columns and rules."""
    named = replace(
        old,
        key=tuple(now.get(c, c) for c in old.key),
        event_time=old.event_time and now.get(old.event_time, old.event_time),
    )
    for name in (f.name for f in fields(Contract)):
        was, became = getattr(named, name), getattr(new, name)
        if was == became or name in ("version", "about", "columns", "rules", "earlier", *_DAYS):
            continue
        breaks: tuple[str, ...] = ()
        if name in ("table", "key", "event_time", "calendar"):
            breaks = ("consumers", "producers")
        elif name == "lateness":
            days = [float("inf") if x.days is None else x.days for x in (was, became)]
            breaks = _breaks(was.then, became.then, days[1] < days[0], days[1] > days[0])
            was, became = (f"{x.days} days, {x.then}" for x in (was, became))
        yield Change(f"{name} changed", new.table, _words(was), _words(became), breaks)


_DAYS = ("slo", "volume", "health", "statistics")


def _over_days(old: Contract, new: Contract, now: Mapping[str, str]) -> Iterator[Change]:
    """Yield what became of promises that no single row can break."""
    for name in _DAYS[:3]:
        if name == "health" and old.calendar != new.calendar:
            continue  # what holds where nothing is said follows the calendar
        yield from _promise(name, new.table, getattr(old, name), getattr(new, name))
    had, has = old.statistics, new.statistics
    were = {s.name: replace(s, column=now.get(s.column, s.column)) for s in had.rules} if had else {}
    are = {s.name: s for s in has.rules} if has else {}
    if had and has and had.over_days != has.over_days:
        hard = any(s.then == "fail" for s in (*had.rules, *has.rules))
        breaks = ("consumers", "producers") if hard else ()
        days = f"over {had.over_days} days", f"over {has.over_days} days"
        yield Change("statistics changed", new.table, *days, breaks)
    for name in [*were, *(n for n in are if n not in were)]:
        yield from _promise("statistic", name, were.get(name), are.get(name))


_Promise = Slo | Volume | Health | Statistic


def _promise(kind: str, where: str, was: _Promise | None, became: _Promise | None) -> Iterator[Change]:
    if was == became:
        return
    before, after = _limits(was), _limits(became)
    both = was and became
    unlike = both and (before.keys() != after.keys() or _about(was) != _about(became))
    moved = [(before[n], after[n]) for n in before.keys() & after.keys()]
    narrowed = bool(unlike) or bool(both and any(a < b for a, b in moved))
    widened = bool(unlike) or bool(both and any(a > b for a, b in moved))
    if isinstance(was, Health) and isinstance(became, Health):
        narrowed, widened = narrowed or bool(was.gaps - became.gaps), widened or bool(became.gaps - was.gaps)
    what = "changed" if both else "removed" if was else "added"
    breaks = _breaks(was.then if was else "flag", became.then if became else "flag", narrowed, widened)
    yield Change(f"{kind} {what}", where, _told(was) if was else "", _told(became) if became else "", breaks)


def _limits(promise: _Promise | None) -> dict[str, float]:
    """Return what is asked as numbers, each the greater the more it asks."""
    if isinstance(promise, Slo):
        return {"records": promise.records}
    if isinstance(promise, Health):
        late = float("inf") if promise.late_days is None else promise.late_days
        return {"low": promise.low, "high": -promise.high, "late": -late, "ample": -promise.ample}
    if promise is None:
        return {}
    low, high = promise.limits if isinstance(promise, Statistic) else promise.rows
    return {"low": low, "high": -high}


def _about(promise: _Promise | None) -> object:
    """Return what is compared before any limit is: with another of it, neither version asks more."""
    if isinstance(promise, Health):
        return promise.weeks
    return (promise.kind, promise.column) if isinstance(promise, Statistic) else None


def _told(promise: _Promise) -> str:
    if isinstance(promise, Slo):
        said = f"{promise.records:.4%} of the rows"
    elif isinstance(promise, Volume):
        said = f"{promise.rows[0]:,} to {promise.rows[1]:,} rows a day"
    elif isinstance(promise, Statistic):
        said = f"{promise.kind} of {promise.column} from {promise.limits[0]:g} to {promise.limits[1]:g}"
    else:
        late = "never late" if promise.late_days is None else f"late after {promise.late_days} days"
        gaps = f", gaps {', '.join(map(str, sorted(promise.gaps)))}" if promise.gaps else ""
        said = f"{promise.low:g} to {promise.high:g} times the usual of {promise.weeks} weeks, {late}"
        said += f", ample from {promise.ample:,} rows{gaps}"
    return f"{said} else {promise.then}"


def _columns(old: Contract, new: Contract, now: Mapping[str, str]) -> Iterator[Change]:
    """Yield what became of columns; of a new one its rules are not told."""
    both = ("consumers", "producers")
    for name, was in old.columns.items():
        became = new.columns.get(now.get(name, name))
        if became is None:
            yield Change("column removed", name, breaks=both, columns=(name,))
            continue
        if became.name != name:
            yield Change("column renamed", name, name, became.name, both, (name,))
        if became.type != was.type:
            yield Change("column retyped", became.name, was.type, became.type, both, (name,))
        if became.unit != was.unit:
            yield Change("unit changed", became.name, was.unit or "none", became.unit or "none", both, (name,))
    for name in new.columns:
        if name not in old.columns and name not in now.values():
            required = any(r.kind == "not_null" and r.columns == (name,) and r.then in _REFUSES[1:] for r in new.rules)
            what = "required column added" if required else "optional column added"
            yield Change(what, name, "", new.columns[name].type, ("producers",) if required else ())


def _rules(old: Contract, new: Contract, now: Mapping[str, str]) -> Iterator[Change]:
    """Yield what became of rules on columns that both versions have, and of rules that name columns of both."""
    stayed = {c for c in old.columns if now.get(c, c) in new.columns}
    back = {new: old for old, new in now.items()}
    were = {r.name: r for r in (_now(r, now) for r in old.row_rules if stayed.issuperset(r.columns))}
    known = {now.get(c, c) for c in stayed}
    are = {r.name: r for r in new.row_rules if known.intersection(r.columns)}
    retyped = {c for c in stayed if old.columns[c].type != new.columns[now.get(c, c)].type}
    for name in [n for n in were if n not in are]:
        if other := next((n for n in are if n not in were and replace(were[name], name=n) == are[n]), None):
            yield Change("rule renamed", name, name, other)
            del were[name], are[other]
    for name in [*were, *(n for n in are if n not in were)]:
        was, became = were.get(name), are.get(name)
        columns = tuple(back.get(c, c) for c in (was or are[name]).columns)
        if was and became:
            yield from _rule(was, became, columns, retyped)
        elif was:
            what = "made nullable" if name.endswith(".not_null") else "rule removed"
            yield Change(what, name, _asks(was), "", _breaks(was.then, "flag", False, False), columns)
        elif became:
            what = "made required" if name.endswith(".not_null") else "rule added"
            yield Change(what, name, "", _asks(became), _breaks("flag", became.then, False, False), columns)


def _now(rule: Rule, now: Mapping[str, str]) -> Rule:
    """Return an old rule with the new names of its columns, in its own name as well where that is short for one."""
    first, _, kind = rule.name.partition(".")
    name = f"{now[first]}.{kind}" if first in now and kind else rule.name
    return replace(rule, name=name, columns=tuple(now.get(c, c) for c in rule.columns))


def _rule(was: Rule, became: Rule, columns: tuple[str, ...], retyped: set[str]) -> Iterator[Change]:
    """Yield what became of a rule that both versions have."""
    if (was.kind, was.columns) != (became.kind, became.columns) or (
        was.params != became.params and retyped.intersection(columns)
    ):
        narrowed = widened = True
    else:
        narrowed, widened = _moved(was, became)
    if was.then != became.then or narrowed or widened or was.params.get("value") != became.params.get("value"):
        what = {(True, False): "narrowed", (False, True): "widened"}.get((narrowed, widened), "changed")
        breaks = _breaks(was.then, became.then, narrowed, widened)
        yield Change(f"rule {what}", became.name, _asks(was), _asks(became), breaks, columns)


def _moved(was: Rule, became: Rule) -> tuple[bool, bool]:
    """Return whether a rule of one kind refuses what it took, and takes what it refused."""
    if was.kind == "range":
        (low, high), (low_now, high_now) = was.params["between"], became.params["between"]
        return (
            _beyond(low_now, low, lambda a, b: a > b) or _beyond(high_now, high, lambda a, b: a < b),
            _beyond(low, low_now, lambda a, b: a > b) or _beyond(high, high_now, lambda a, b: a < b),
        )
    if was.kind == "set":
        had, has = set(was.params["of"]), set(became.params["of"])
        return bool(had - has), bool(has - had)
    other = {k: v for k, v in was.params.items() if k != "value"} != {
        k: v for k, v in became.params.items() if k != "value"
    }
    return other, other  # which rows it tells apart cannot be known from its words


def _beyond(bound: Any, than: Any, inside: Callable[[Any, Any], bool]) -> bool:
    return bound is not None and (than is None or inside(bound, than))


def _breaks(was: str, became: str, narrowed: bool, widened: bool) -> tuple[str, ...]:
    """Return whom a rule breaks that goes from one action to another and is narrowed or widened."""
    hard, harder = (_REFUSES.index(x) if x in _REFUSES else 0 for x in (was, became))
    found = ["consumers"] if was != "flag" and (widened or became == "flag") else []
    return (*found, "producers") if harder and (narrowed or harder > hard) else tuple(found)


def _asks(rule: Rule) -> str:
    value = f" {rule.params['value']!r}" if "value" in rule.params else ""
    return f"{rule.demand()} else {rule.then}{value}"


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) and all(isinstance(v, str) for v in value) else str(value)


def readers(project: Project, old: Contract, changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return, of each column that breaking changes are about, the sources, views and services that read it.

    A source reads a column when its events cannot be derived from a table without it.
    """
    catalogue, contracts = Catalogue(project), load_contracts(project.folder("contracts"))
    found = []
    for column in dict.fromkeys(c for change in changes if change.breaks for c in change.columns):
        less = replace(old, columns={name: c for name, c in old.columns.items() if name != column})
        sources = {v.source for v in catalogue.views if old.table in v.source.tables}
        lost = {s for s in sources if not _derives(project, s, {**contracts, old.table: less})}
        views = [v for v in catalogue.views if v.source in lost]
        features = {f.name for v in views for f in v.features}
        services = [s.name for s in catalogue.services if catalogue.behind(s.features) & features]
        found.append(
            {
                "column": column,
                "sources": sorted(s.name for s in lost),
                "views": [v.name for v in views],
                "services": services,
            }
        )
    return found


def _derives(project: Project, source: Source, contracts: Mapping[str, Contract]) -> bool:
    try:
        event_schema(source, contracts, project.settings.clock)
    except (LockstepError, pl.exceptions.PolarsError):
        return False
    return True
