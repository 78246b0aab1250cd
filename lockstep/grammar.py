"""The grammar of a contract file: YAML, its JSON schema, and what the schema cannot say about columns and values."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from lockstep.clock import parse_day
from lockstep.contract import (
    LANDING_COLUMNS,
    TYPES,
    VERSION_RULES,
    Column,
    Contract,
    Health,
    Lateness,
    Rule,
    Slo,
    Statistic,
    Statistics,
    Volume,
)
from lockstep.errors import DefinitionError, did_you_mean

__all__ = ["read_contract"]

_PARAM = {"range": "between", "set": "of", "regex": "match"}
_TAKES = {"mean": ("int64", "float64"), "std": ("int64", "float64"), "ks": ("int64", "float64", "date", "instant")}
_NOT_ALIKE = re.compile(r"(?<!\\)(?:\\\\)*(\\[dDwWsSbB<>uU]|\(\?(?!:))")  # Unicode to Polars, ASCII to DuckDB
_CLASS = re.compile(r"\[\^?\]?([^\]]*)\]")
_OPERATOR = re.compile(r"&&|--|~~|\[")  # in a class: set operators to Polars, plain characters to DuckDB
_STACKED = re.compile(r"[*+?}][*+{]")  # a repeat of a repeat, which DuckDB refuses
_REPEATS = 1000  # the most that DuckDB takes, groups within groups multiplied


class _Loader(yaml.SafeLoader):
    """YAML without surprises: days stay text, yes and no are words, and a key may stand only once."""


_SURPRISES = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _SURPRISES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_SURPRISES[1], re.compile("^(?:true|false)$"), ["t", "f"])


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise DefinitionError(f"{key!r} stands twice", where=f"line {node.start_mark.line + 1}", do="Remove one.")
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_contract(path: Path) -> Contract:
    """Read one contract and check all that can be checked without the others.

    Raises
    ------
    DefinitionError
        An unknown key, kind, action or column (named with the nearest known one), a value of the wrong type, a rule
        that cannot be judged or an action that cannot be taken.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as e:
        raise DefinitionError(
            "not YAML", where=path.name, found=" ".join(str(e).split()), do="Mend the file."
        ) from None
    except DefinitionError as e:
        raise DefinitionError(e.what, where=f"{path.name} {e.where}", do=e.do) from None
    _check_grammar(raw, path.name)
    columns = {name: Column(name, c["type"], c.get("unit"), c.get("about", "")) for name, c in raw["columns"].items()}
    rules = [r for name, c in raw["columns"].items() for r in _shorthand(name, c)]
    rules += [Rule(f"{c.name}.type", "type", (c.name,), "fail") for c in LANDING_COLUMNS]
    rules.append(Rule("_deleted.not_null", "not_null", ("_deleted",), "fail"))
    rules += [
        Rule(r["name"], r["kind"], tuple(r["columns"]), r["then"], r.get("params", {})) for r in raw.get("rules", [])
    ]
    contract = Contract(
        raw["table"], raw["version"], raw["owner"], raw["event_time"], tuple(raw["key"]), raw["calendar"],
        Lateness(raw["lateness"]["days"], raw["lateness"]["then"]), columns, (), raw.get("about", ""),
        Slo(**raw.get("slo", {})), _statistics(raw, path.name), _volume(raw, path.name),
        health=_health(raw, path.name),
    )  # fmt: skip
    contract = replace(contract, rules=tuple(_typed(rule, contract, path.name) for rule in rules))
    _check_names(contract, path.name)
    return contract


def _health(raw: Mapping[str, Any], where: str) -> Health | None:
    """Return what a table's landing days are judged by: a daily table is judged, and flagged, unless it says how."""
    daily = raw["calendar"] == "daily"
    if "health" not in raw:
        return Health(late_days=2) if daily else None
    block = {"late_days": 2 if daily else None, **raw["health"]}
    gaps = frozenset(_value(day, "date", f"{where} at health.gaps") for day in block.pop("gaps", []))
    return Health(**block, gaps=gaps)


def _statistics(raw: Mapping[str, Any], where: str) -> Statistics | None:
    """Read the rules against the stored profile; refuse columns whose kind a statistic cannot take."""
    if "statistics" not in raw:
        return None
    rules = []
    for r in raw["statistics"]["rules"]:
        at, column = f"{where}, statistic {r['name']}", r["column"]
        if column not in raw["columns"]:
            raise DefinitionError(f"unknown column {column!r}", where=at, do=did_you_mean(column, raw["columns"]))
        kind, takes = raw["columns"][column]["type"], _TAKES.get(r["kind"], TYPES)
        if kind not in takes:
            raise _wrong(at, f"a column of type {' or '.join(takes)} for {r['kind']}", kind)
        low, high = r.get("within", (0, r.get("at_most")))
        if low > high:
            raise _wrong(at, "the lower bound first", [low, high])
        rules.append(Statistic(r["name"], r["kind"], column, (float(low), float(high)), r["then"]))
    return Statistics(raw["statistics"]["over_days"], tuple(rules))


def _volume(raw: Mapping[str, Any], where: str) -> Volume | None:
    if "volume" not in raw:
        return None
    low, high = raw["volume"]["rows"]
    if raw["calendar"] != "daily" or low > high:
        raise _wrong(f"{where}, volume", "a daily table, and the lower bound first", [raw["calendar"], low, high])
    return Volume((low, high), raw["volume"]["then"])


def _shorthand(name: str, column: Mapping[str, Any]) -> Iterable[Rule]:
    """Yield the rules that a column's properties are short for."""
    yield Rule(f"{name}.type", "type", (name,), "fail")
    nullable = column.get("nullable", False)
    if nullable is False:
        yield Rule(f"{name}.not_null", "not_null", (name,), "fail")
    elif isinstance(nullable, dict):
        params = {k: v for k, v in nullable.items() if k == "value"}
        yield Rule(f"{name}.not_null", "not_null", (name,), nullable["then"], params)
    for kind, param in _PARAM.items():
        if kind in column:
            given = column[kind] if isinstance(column[kind], dict) else {param: column[kind], "then": "quarantine"}
            yield Rule(f"{name}.{kind}", kind, (name,), given["then"], {param: given[param]})
    unique = column.get("unique", False)
    if unique:
        given = unique if isinstance(unique, dict) else {"then": "quarantine"}
        yield Rule(f"{name}.unique", "unique", (name,), given["then"])


def _check_grammar(raw: object, where: str) -> None:
    """Check `raw` against the JSON schema and say the most telling finding in one sentence."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    whole, number = (lambda _, x: _is_number(x) and not isinstance(x, float)), (lambda _, x: _is_number(x))
    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": whole, "number": number})
    validator = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    schema = json.loads(Path(__file__).with_name("contract.schema.json").read_text(encoding="utf-8"))
    findings = sorted(validator(schema).iter_errors(raw), key=lambda e: [str(p) for p in e.absolute_path])
    order = ("additionalProperties", "enum")  # a typo first: it is also a key that is missing
    for e in sorted(findings, key=lambda e: order.index(e.validator) if e.validator in order else len(order)):
        at = ".".join(str(p) for p in e.absolute_path)
        inside = f"{where} at {at}" if at else where
        if e.validator == "additionalProperties":
            known = e.schema["properties"]
            unknown = next(k for k in e.instance if k not in known)
            hint = did_you_mean(unknown, known) if known else "It takes none."
            raise DefinitionError(f"unknown key {unknown!r}", where=inside, do=hint)
        if e.validator == "enum":
            hint = did_you_mean(str(e.instance), e.validator_value)
            raise DefinitionError(f"unknown {str(at).rpartition('.')[2]} {e.instance!r}", where=inside, do=hint)
        raise DefinitionError("cannot read contract", where=inside, found=e.message, do="See contract.schema.json.")


def _is_number(raw: object) -> bool:
    """Tell whether `raw` is a finite number; JSON schema alone also takes 8.0 for an integer, and NaN."""
    return isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) <= sys.float_info.max


def _typed(rule: Rule, contract: Contract, where: str) -> Rule:
    """Return `rule` with its values in the type of its column; refuse what cannot be judged or repaired."""
    where = f"{where}, rule {rule.name}"
    known = {**contract.columns, **{c.name: c for c in LANDING_COLUMNS}}
    for name in rule.columns:
        if name not in known:
            raise DefinitionError(f"unknown column {name!r}", where=where, do=did_you_mean(name, contract.columns))
    types = [known[c].type for c in rule.columns]
    params = dict(rule.params)
    if rule.kind == "range":
        params["between"] = _bounds(params["between"], types[0], rule, where)
    elif rule.kind == "set":
        params["of"] = tuple(_value(v, types[0], where) for v in params["of"])
    elif rule.kind == "regex":
        _check_pattern(params["match"], types[0], where)
    elif rule.kind == "at_most" and (types[0] != types[1] or types[0] not in ("int64", "float64", "date", "instant")):
        raise _wrong(where, "two columns of one type that has an order", " and ".join(types))
    elif (added := {"sum_of": types, "totals": types[-1:]}.get(rule.kind)) and set(added) != {"int64"}:
        raise _wrong(where, "amounts of type int64, whose sums are exact", " and ".join(added))
    if rule.table is not None:
        params["columns"] = _theirs(rule, where)
    if (rule.then == "impute") != ("value" in params):
        raise _wrong(where, "a value where a null is imputed, and only there", rule.then)
    if rule.then == "impute":
        params["value"] = _value(params["value"], types[0], where)
    if rule.then in ("cap", "impute") and rule.columns[0] in (*contract.key, contract.event_time):
        raise _wrong(where, "fail, quarantine or flag: a repaired key would be another row", rule.then)
    return replace(rule, params=params)


def _theirs(rule: Rule, where: str) -> tuple[str, ...]:
    theirs = tuple(rule.params["columns"])
    if len(theirs) != len(rule.columns):
        raise _wrong(where, f"{len(rule.columns)} columns of {rule.table}", len(theirs))
    return theirs


def _bounds(raw: list[Any], kind: str, rule: Rule, where: str) -> tuple[Any, Any]:
    low, high = (None if v is None else _value(v, kind, where) for v in raw)
    if kind in ("string", "bool"):
        raise _wrong(where, "a range of a number, date or instant", kind)
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise _wrong(where, "at least one bound, the lower one first", raw)
    if rule.then == "cap" and kind not in ("int64", "float64"):
        raise _wrong(where, "a cap on a number", kind)
    return low, high


def _check_pattern(pattern: str, kind: str, where: str) -> None:
    if kind != "string":
        raise _wrong(where, "a string column", kind)
    if alien := _alien(pattern):
        raise _wrong(where, "a pattern that every engine reads alike, such as [0-9]", alien)
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.ComputeError as e:
        raise _wrong(where, "a regular expression", str(e).splitlines()[0]) from None


def _alien(pattern: str) -> str | None:
    """Return what in a pattern Polars and DuckDB read differently, or only one of them can read."""
    if found := _NOT_ALIKE.search(pattern):
        return found[1]
    bare = re.sub(r"\\.", "x", pattern)  # what is escaped is plain
    outside = _CLASS.sub("x", bare)
    for found in (*map(_OPERATOR.search, _CLASS.findall(bare)), _STACKED.search(outside)):
        if found:
            return found[0]
    repeats = [int(most or least) for least, most in re.findall(r"\{([0-9]+),?([0-9]*)\}", outside)]
    most = prod(repeats) if "){" in outside else max(repeats, default=0)
    return f"a repeat over {_REPEATS}" if most > _REPEATS else None


def _value(raw: Any, kind: str, where: str) -> Any:
    """Return `raw` as a value of the contract type `kind`."""
    try:
        if kind == "date":
            return parse_day(raw)
        if kind == "instant":
            at = datetime.fromisoformat(raw)
            if at.tzinfo is None:
                raise ValueError(f"{raw!r} has no zone; write it as 2017-01-01T05:00:00Z, in quotes")
            return at.astimezone(UTC)
    except (TypeError, ValueError) as e:
        raise _wrong(where, f"a {kind}", e) from None
    wanted = {"int64": (int,), "float64": (int, float), "string": (str,), "bool": (bool,)}[kind]
    good = isinstance(raw, wanted) and (not isinstance(raw, bool) or kind == "bool")
    if not good or (kind == "int64" and not -(2**63) <= raw < 2**63):
        raise _wrong(where, f"a value of type {kind}", repr(raw))
    return float(raw) if kind == "float64" else raw


def _check_names(contract: Contract, where: str) -> None:
    """Check the key, the event time and the names of rules."""
    for name in (*contract.key, *([contract.event_time] if contract.event_time else [])):
        if name not in contract.columns:
            raise DefinitionError(f"unknown column {name!r}", where=where, do=did_you_mean(name, contract.columns))
        if not any(
            r.kind == "not_null" and r.columns == (name,) and r.then in ("fail", "quarantine") for r in contract.rules
        ):
            raise _wrong(f"{where}, column {name}", "nullable: false, since it names or dates a row", "nullable")
    if contract.event_time and contract.columns[contract.event_time].type not in ("date", "instant"):
        raise _wrong(f"{where}, event_time", "a date or instant", contract.columns[contract.event_time].type)
    names = [r.name for r in contract.rules] + [
        s.name for s in (contract.statistics.rules if contract.statistics else ())
    ]
    for name in names:
        if names.count(name) > 1 or name in VERSION_RULES:
            raise DefinitionError(f"rule name {name!r} is taken", where=where, do="Give the rule another name.")


def _wrong(where: str, expected: object, found: object) -> DefinitionError:
    return DefinitionError("a contract that cannot be kept", where=where, expected=expected, found=found)
