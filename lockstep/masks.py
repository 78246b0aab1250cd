"""A contract's rules as Polars masks: which rows break which rule, and the repairs that a rule may ask for.

The same rules run as Great Expectations in `lockstep.judge`; a test holds that both count the same rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import polars as pl

from lockstep.contract import Contract, Rule
from lockstep.errors import DataError

__all__ = ["apply_repairs", "broken", "broken_after_repair", "check_fail_rules", "finite_bounds", "reasons", "whole"]

Others = Mapping[str, pl.DataFrame]
"""Raw rows of other tables, with ``_landing_day``: what `references` and `totals` rules look into."""


def broken(contract: Contract, rows: pl.DataFrame, others: Others, rules: Iterable[Rule] | None = None) -> pl.DataFrame:
    """Return one boolean column a rule, never null: whether the row breaks it.

    Parameters
    ----------
    rows
        Raw rows with ``_landing_day``. What a row is judged by had landed by its own day, so no later landing can
        change the verdict.
    others
        For each table that a `references` or `totals` rule names: its raw rows, with ``_landing_day``.
    rules
        All row rules of the contract by default.
    """
    chosen = contract.row_rules if rules is None else tuple(rules)
    look = {"references": _unknown, "totals": _unequal, "unique": _repeated}
    return rows.select(
        look[r.kind](r, rows, others[r.table] if r.table else rows)
        if r.kind in look
        else _mask(r, contract).alias(r.name)
        for r in chosen
    )


def reasons(broken: pl.DataFrame, rules: Iterable[Rule]) -> pl.Series:
    """Return, for each row, the names of the `rules` it breaks, joined by a comma; null where it breaks none."""
    names = [r.name for r in rules]
    bad = broken.select(pl.any_horizontal(pl.lit(False), *names)).to_series()
    rows = broken.with_row_index("_row").filter(bad)
    joined = rows.select(
        "_row",
        pl.concat_str([pl.when(n).then(pl.lit(n)) for n in names], separator=", ", ignore_nulls=True).alias("rule")
        if names
        else pl.lit(None, pl.String).alias("rule"),
    )
    result = pl.Series("rule", [None], pl.String).new_from_index(0, broken.height)
    return result.scatter(joined["_row"], joined["rule"]) if joined.height else result


def apply_repairs(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Impute nulls, then cap what lies outside its range, where a rule says so."""
    for rule in sorted(contract.row_rules, key=lambda r: r.then != "impute"):
        column = pl.col(*rule.columns)
        if rule.then == "impute":
            rows = rows.with_columns(column.fill_null(pl.lit(rule.params["value"], rows.schema[rule.columns[0]])))
        elif rule.then == "cap":
            low, high = rule.params["between"]
            rows = rows.with_columns(column.clip(low, high))
    return rows


def broken_after_repair(contract: Contract, repaired: pl.DataFrame) -> pl.DataFrame:
    """Return the masks of `cap` rules that their repair could not mend: NaN has no nearest bound."""
    return broken(contract, repaired, {}, [r for r in contract.row_rules if r.then == "cap"])


def check_fail_rules(contract: Contract, rows: pl.DataFrame, where: str) -> None:
    """Raise DataError, with the count and a sample, when `rows` break a rule whose action is `fail`."""
    rules = [r for r in contract.row_rules if r.then == "fail"]
    masks = broken(contract, rows, {}, rules)
    counts = masks.sum().row(0, named=True) if rules else {}
    for rule in rules:
        if counts[rule.name]:
            shown = list(dict.fromkeys(["_landing_day", *contract.key, *rule.columns]))
            sample = rows.filter(masks[rule.name]).select(shown).sort(shown, nulls_last=True).head(3)
            raise DataError(
                f"{counts[rule.name]:,} of {rows.height:,} rows break the rule {rule.name!r}",
                where=where,
                expected=rule.demand(),
                found="; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in sample.to_dicts()),
                do="Mend the rows and land them again, or let the contract say what else should follow.",
            )


def finite_bounds(rule: Rule, contract: Contract) -> tuple[object, object]:
    """Return the bounds of a range; an open side of a float ends at the largest float, so NaN and infinity break it."""
    low, high = rule.params["between"]
    column = contract.columns[rule.columns[0]]
    if column.type == "float64":
        low = -sys.float_info.max if low is None else low
        high = sys.float_info.max if high is None else high
    return low, high


def whole(pattern: str) -> str:
    """Return `pattern` so that it matches whole values only: engines differ in what they match by default."""
    return f"^(?:{pattern})$"


def _mask(rule: Rule, contract: Contract) -> pl.Expr:
    """Return the expression that is true where a row breaks `rule`; a null breaks `not_null` alone."""
    columns = [pl.col(c) for c in rule.columns]
    first = columns[0]
    if rule.kind == "not_null":
        return first.is_null()
    if rule.kind == "range":
        low, high = finite_bounds(rule, contract)
        inside = [first >= pl.lit(low)] if low is not None else []
        inside += [first <= pl.lit(high)] if high is not None else []
        good = pl.all_horizontal(inside)
    elif rule.kind == "set":
        good = first.is_in(list(rule.params["of"]))
    elif rule.kind == "regex":
        good = first.str.contains(whole(rule.params["match"]))
    elif rule.kind == "at_most":
        good = columns[0] <= columns[1]
    else:  # sum_of
        good = first == pl.sum_horizontal(*(c.cast(pl.Int128) for c in columns[1:]), ignore_nulls=False)
    return ~good.fill_null(True)


def _repeated(rule: Rule, rows: pl.DataFrame, _: pl.DataFrame) -> pl.Series:
    """Return whether each row shares its values, none of them null, with one of other content of its landing day.

    Exact copies are dropped and counted as duplicates later. Day by day: a hash table of all days together takes more
    memory than the rows themselves.
    """
    complete = pl.all_horizontal(pl.col(c).is_not_null() for c in rule.columns)
    mask = (complete & pl.struct(rule.columns).is_duplicated()).alias(rule.name)
    asked = rows.select(*rule.columns, "_landing_day").with_row_index("_row")
    days = [day.select("_row", mask) for day in asked.partition_by("_landing_day")]
    shared = pl.concat([asked.clear().select("_row", mask), *days]).sort("_row")[rule.name]
    contents = pl.struct(pl.exclude("_row", "_received_at")).n_unique().over(*rule.columns, "_landing_day")
    told = rows.with_row_index("_row").filter(shared).filter(contents > 1)["_row"]
    return pl.int_range(rows.height, eager=True).is_in(told.to_list()).alias(rule.name)


def _unknown(rule: Rule, rows: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """Return whether each row names something that had not landed by its own day in the table that it references."""
    theirs = rule.params["columns"]
    since = other.group_by(theirs).agg(pl.col("_landing_day").min().alias("_since"))
    found = rows.select(*rule.columns, "_landing_day").join(
        since, left_on=rule.columns, right_on=theirs, how="left", maintain_order="left"
    )
    complete = pl.all_horizontal(pl.col(c).is_not_null() for c in rule.columns)
    known = (pl.col("_since") <= pl.col("_landing_day")).fill_null(False)
    return found.select((complete & ~known).alias(rule.name)).to_series()


def _unequal(rule: Rule, rows: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """Return whether each row is of a group whose sum is not the total that the other table had for it by its day.

    A group has one key and one landing day. A total that is null or not known, or that its deletion took back, is
    equal to no sum. Rows without a key, deletions and exact copies are in no group. Of two totals on one day the
    higher counts.
    """
    *key, amount = rule.columns
    *their_key, total = rule.params["columns"]
    group = [*key, "_landing_day"]
    judged = pl.all_horizontal(pl.col(c).is_not_null() for c in key) & ~pl.col("_deleted")
    content = [c for c in rows.columns if c != "_received_at"]
    once = rows.lazy().filter(judged).unique(content)
    sums = once.group_by(group).agg(pl.col(amount).cast(pl.Int128).sum().alias("_sum"))
    known = (
        other.lazy()
        .group_by(*their_key, "_landing_day")
        .agg(pl.when(pl.col("_deleted").any()).then(None).otherwise(pl.col(total).max()).alias("_total"))
    )
    compared = sums.sort("_landing_day").join_asof(
        known.sort("_landing_day"), on="_landing_day", by_left=key, by_right=their_key, check_sortedness=False
    )
    wrong = compared.filter(pl.col("_sum").ne_missing(pl.col("_total").cast(pl.Int128))).select(
        *group, pl.lit(True).alias(rule.name)
    )
    found = rows.lazy().select(*group, judged.alias("_judged")).join(wrong, on=group, how="left", maintain_order="left")
    return found.select((pl.col(rule.name).fill_null(False) & pl.col("_judged")).alias(rule.name)).collect().to_series()
