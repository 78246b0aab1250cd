"""A contract's rules as a Great Expectations suite, run on DuckDB over the raw partitions.

The second opinion on `lockstep.masks`: another compiler, another engine, the same counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.contract import LANDING_COLUMNS, Contract, Rule
from lockstep.errors import GuaranteeError
from lockstep.files import write_text
from lockstep.masks import finite_bounds, whole

__all__ = ["Judgement", "check_ran", "judge", "suite"]

_MINE = "(select * from {batch}) as mine"
"""The batch under a name of ours: Great Expectations may or may not give it one of its own."""
_ONCE = "(select distinct * exclude (_received_at) from {batch}) as once"
"""Each content of a landing day once: exact copies are duplicates, and no fault."""


@dataclass(frozen=True)
class Judgement:
    """What Great Expectations found for one rule: no clock, path or id."""

    rule: str
    expectation: str
    success: bool
    unexpected_count: int
    rows: int


def judge(
    contract: Contract, files: Sequence[Path], others: Mapping[str, Sequence[Path]], keep: Path | None = None
) -> tuple[Judgement, ...]:
    """Run a contract's suite over the partitions of its table, in the order of its rules.

    Parameters
    ----------
    files
        Partitions of the contract's table, ``<landing day>.parquet``; without any there is nothing to judge.
    others
        The partitions of the tables that `references` rules name.
    keep
        A folder to write Great Expectations' own results to, ``<table>.v<version>.json``: see `lockstep.data_docs`.

    Raises
    ------
    GuaranteeError
        An expectation could not run, or not every rule was judged.
    """
    if not files:
        return ()
    from lockstep.gx_duckdb import batches

    views = {contract.table: files, **{_landed(t): f for t, f in others.items() if f}}
    with batches(views) as found_in:
        batch = found_in[contract.table]
        rows = int(batch.validate(_row_count(), result_format="BASIC").result["observed_value"])
        result = batch.validate(suite(contract, {*views}), result_format="BASIC")
    check_ran(result.results)
    if keep:
        write_text(json.dumps(result.to_json_dict()), keep / f"{contract.table}.v{contract.version}.json")
    found = {r.expectation_config.meta["rule"]: _judgement(r, rows) for r in result.results}
    if len(result.results) != len(contract.rules) or set(found) != {r.name for r in contract.rules}:
        raise GuaranteeError(
            "not every rule was judged", where=f"contract {contract.table}",
            expected=f"{len(contract.rules)} results", found=len(result.results), do="See lockstep/judge.py.",
        )  # fmt: skip
    return tuple(found[r.name] for r in contract.rules)


def suite(contract: Contract, views: Collection[str]) -> Any:
    """Return the contract as a Great Expectations suite, one expectation a rule.

    The constructor takes all of them: ``add_expectation_configuration`` would let a second rule of one kind on one
    column replace the first in silence.
    """
    import great_expectations as gx

    return gx.ExpectationSuite(
        name=f"{contract.table} v{contract.version}",
        expectations=[_expectation(rule, contract, views) for rule in contract.rules],
        meta={"owner": contract.owner},
    )


def _expectation(rule: Rule, contract: Contract, views: Collection[str]) -> Any:
    """Compile one rule."""
    import great_expectations.expectations as gxe

    compilers: dict[str, Callable[[Rule, Contract], tuple[str, dict[str, Any]]]] = {
        "unique": _unique,
        "at_most": _at_most,
        "sum_of": lambda rule, _: _rows(_unequal_sum(rule)),
        "references": lambda rule, _: _rows(_unknown(rule, views)),
        "totals": lambda rule, _: _rows(_unequal_totals(rule, views)),
    }
    name, kwargs = compilers.get(rule.kind, _one_column)(rule, contract)
    meta = {"rule": rule.name, "then": rule.then}
    return getattr(gxe, name)(**kwargs, meta=meta, description=f"Expect {rule.demand()}")


def _one_column(rule: Rule, contract: Contract) -> tuple[str, dict[str, Any]]:
    column = {"column": rule.columns[0]}
    if rule.kind == "type":
        types = {c.name: c.type for c in (*contract.columns.values(), *LANDING_COLUMNS)}
        return "ExpectColumnValuesToBeOfType", {**column, "type_": types[rule.columns[0]]}
    if rule.kind == "not_null":
        return "ExpectColumnValuesToNotBeNull", column
    if rule.kind == "range":
        low, high = finite_bounds(rule, contract)
        return "ExpectColumnValuesToBeBetween", {**column, "min_value": low, "max_value": high}
    if rule.kind == "set":
        return "ExpectColumnValuesToBeInSet", {**column, "value_set": list(rule.params["of"])}
    return "ExpectColumnValuesToMatchRegex", {**column, "regex": whole(rule.params["match"])}


def _unique(rule: Rule, _: Contract) -> tuple[str, dict[str, Any]]:
    columns = ", ".join(f'"{c}"' for c in (*rule.columns, "_landing_day"))
    complete = " and ".join(f'"{c}" is not null' for c in rule.columns)
    shared = f"select * from {{batch}} where {complete} qualify count(*) over (partition by {columns}) > 1"  # noqa: S608
    once = f"select distinct * exclude (_received_at) from ({shared}) as shared"  # noqa: S608
    shared = f"select {columns} from ({once}) as once group by {columns} having count(*) > 1"  # noqa: S608
    return _rows(f"select mine.* from {_MINE} join ({shared}) as bad using ({columns})")  # noqa: S608


def _at_most(rule: Rule, _: Contract) -> tuple[str, dict[str, Any]]:
    low, high = rule.columns
    pair = {"column_A": high, "column_B": low, "or_equal": True, "ignore_row_if": "either_value_is_missing"}
    return "ExpectColumnPairValuesAToBeGreaterThanB", pair


def _rows(query: str) -> tuple[str, dict[str, Any]]:
    """Expect that a query for what breaks a rule finds nothing."""
    return "UnexpectedRowsExpectation", {"unexpected_rows_query": query}


def _unequal_sum(rule: Rule) -> str:
    total, *parts = (f'mine."{c}"' for c in rule.columns)
    added = " + ".join(f"cast({p} as hugeint)" for p in parts)  # a null makes the comparison null: no row
    return f"select mine.* from {_MINE} where {total} <> {added}"  # noqa: S608 - names come from contracts


def _unequal_totals(rule: Rule, views: Collection[str]) -> str:
    """Return SQL for the rows of groups whose sum is not the last total that had landed by their day."""
    *key, amount = rule.columns
    *their_key, total = rule.params["columns"]
    view = _landed(rule.table or "")
    judged = " and ".join([*(f'"{c}" is not null' for c in key), "not _deleted"])
    group = ", ".join([*(f'"{c}"' for c in key), "_landing_day"])
    pairs = zip(their_key, key, strict=True)
    same = " and ".join([*(f'theirs."{a}" = sums."{b}"' for a, b in pairs), "theirs._landing_day <= sums._landing_day"])
    last = (
        f'select case when _deleted then null else "{total}" end from "{view}" as theirs where {same} '  # noqa: S608
        f'order by theirs._landing_day desc, _deleted desc, "{total}" desc nulls last limit 1'
    )
    sums = f'select {group}, sum("{amount}") as _sum from {_ONCE} where {judged} group by {group}'  # noqa: S608
    wrong = f"coalesce(_sum, 0) is distinct from ({last})" if view in views else "true"
    return (
        f"select mine.* from {_MINE} join (select * from ({sums}) as sums where {wrong}) as bad "  # noqa: S608
        f"using ({group}) where not mine._deleted"
    )


def _unknown(rule: Rule, views: Collection[str]) -> str:
    """Return SQL for the rows that name what had not landed by their own day in the table they reference."""
    complete = " and ".join(f'mine."{c}" is not null' for c in rule.columns)
    view = _landed(rule.params["table"])
    if view not in views:  # the other table has no rows at all
        return f"select mine.* from {_MINE} where {complete}"  # noqa: S608 - names come from contracts
    theirs = ", ".join(f'"{c}"' for c in rule.params["columns"])
    pairs = zip(rule.columns, rule.params["columns"], strict=True)
    same = " and ".join(f'theirs."{b}" = mine."{a}"' for a, b in pairs)
    return (
        f"select mine.* from {_MINE} left join "  # noqa: S608 - names come from contracts
        f'(select {theirs}, min(_landing_day) as _since from "{view}" group by {theirs}) as theirs '
        f"on {same} where {complete} and (_since is null or _since > mine._landing_day)"
    )


def _landed(table: str) -> str:
    """Return the name of the view of a referenced table, which may be the judged table itself."""
    return f"{table}__landed"


def _row_count() -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectTableRowCountToBeBetween(min_value=0)


def check_ran(results: Sequence[Any]) -> None:
    """Raise when an expectation could not run: that is an error, never a failed rule."""
    errors = [(r.expectation_config.meta["rule"], e) for r in results for e in _exceptions(r.exception_info)]
    # A query that fails aborts the transaction, and every later one then says so: the cause is another.
    causes = [e for e in errors if "Current transaction is aborted" not in e[1]] or errors
    if causes:
        rule, message = causes[0]
        raise GuaranteeError(
            "Great Expectations could not judge a rule", where=rule, found=message, do="See lockstep/gx_duckdb.py."
        )


def _judgement(result: Any, rows: int) -> Judgement:
    """Read one result."""
    config, found = result.expectation_config, result.result
    if config.type == "unexpected_rows_expectation":
        count = found["observed_value"]
    else:
        count = found.get("unexpected_count", 0 if result.success else rows)
    return Judgement(config.meta["rule"], config.type, bool(result.success), int(count), rows)


def _exceptions(info: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the messages of exceptions that Great Expectations kept, flat or by metric."""
    for one in [info or {}, *(v for v in (info or {}).values() if isinstance(v, dict))]:
        if one.get("raised_exception"):
            yield " ".join(str(one.get("exception_message")).split())
