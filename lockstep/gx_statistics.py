"""A contract's statistics as Great Expectations on DuckDB: the second opinion on `lockstep.statistics`.

Great Expectations has mean, standard deviation, distinct and null counts, and neither PSI nor KS: these two are custom
expectations here, over bins that are counted in SQL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lockstep.gx_duckdb as duckdb_source  # first: it says how Great Expectations is imported

import great_expectations as gx  # isort: skip
import great_expectations.expectations as gxe  # isort: skip
import numpy as np
import sqlalchemy as sa
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation
from great_expectations.expectations.metrics import ColumnAggregateMetricProvider
from great_expectations.expectations.metrics.metric_provider import metric_value

from lockstep.contract import Statistic
from lockstep.errors import GuaranteeError
from lockstep.files import write_text
from lockstep.judge import check_ran
from lockstep.psi import FLOOR
from lockstep.table_profile import ColumnProfile, TableProfile

__all__ = ["expectation", "observe"]


class ColumnBins(ColumnAggregateMetricProvider):  # type: ignore[misc]
    """The rows in each bin of a profile: by its edges, or of each known category and of others; last the nulls."""

    metric_name = "column.lockstep_bins"
    value_keys = ("edges", "known")

    @metric_value(engine=SqlAlchemyExecutionEngine)  # type: ignore[untyped-decorator]
    def _sql(
        cls: Any,  # noqa: N805 - it is called on the class
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],  # noqa: ARG002
        runtime_configuration: dict[str, Any],  # noqa: ARG002
    ) -> list[int]:
        rows, _, names = execution_engine.get_compute_domain(metric_domain_kwargs, MetricDomainTypes.COLUMN)
        edges, known = metric_value_kwargs["edges"], metric_value_kwargs["known"]
        column = sa.column(names["column"])
        if known is not None:
            found = dict(_counted(execution_engine, rows, sa.cast(column, sa.String)))
            nulls = found.pop(None, 0)
            return [*(found.pop(name, 0) for name in known), sum(found.values()), nulls]
        kind = execution_engine.execute_query(sa.select(sa.func.typeof(column)).select_from(rows).limit(1)).scalar()
        number = column if kind in ("BIGINT", "DOUBLE", "INTEGER") else sa.func.epoch_us(column)
        below = [(number < edge, place) for place, edge in enumerate(edges)]
        place = sa.case((column.is_(None), len(edges) + 1), *below, else_=len(edges))
        found = dict(_counted(execution_engine, rows, place))
        return [found.get(n, 0) for n in range(len(edges) + 2)]


def _counted(engine: Any, rows: Any, expression: Any) -> list[tuple[Any, int]]:
    query = sa.select(expression.label("bin"), sa.func.count()).select_from(rows).group_by(sa.text("1"))
    return [(value, int(n)) for value, n in engine.execute_query(query).fetchall()]


class _BinnedDistance(ColumnAggregateExpectation):  # type: ignore[misc]
    """Expect a distance of a column from its stored profile to be at most `max_value`.

    `weights` are the profile's shares of all rows by bin: for categories with that of others, 0, behind the known; the
    last one is that of nulls.
    """

    edges: list[float]
    known: list[str] | None = None
    weights: list[float]
    max_value: float
    metric_dependencies: ClassVar = ("column.lockstep_bins",)
    success_keys: ClassVar = ("edges", "known", "weights", "max_value")

    def _distance(self, before: Any, now: Any) -> float:
        raise NotImplementedError

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: Any = None,  # noqa: ARG002
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        value = float(self._distance(np.array(self.weights), np.array(metrics["column.lockstep_bins"], float)))
        return {"success": bool(value <= self.max_value), "result": {"observed_value": value}}


class ExpectColumnPsiToBeAtMost(_BinnedDistance):
    """Expect the population stability index of a column to be at most `max_value`."""

    def _distance(self, before: Any, now: Any) -> float:
        p, q = np.clip(before, FLOOR, None), np.clip(now / now.sum(), FLOOR, None)
        return float(((p - q) * np.log(p / q)).sum())


class ExpectColumnKsToBeAtMost(_BinnedDistance):
    """Expect the largest gap of the distribution functions of a column, at the edges, to be at most `max_value`."""

    def _distance(self, before: Any, now: Any) -> float:
        there, here = (np.cumsum(bins[:-1]) / bins[:-1].sum() for bins in (before, now))
        return float(np.abs(there - here).max())


def expectation(rule: Statistic, reference: ColumnProfile) -> Any:
    """Compile one statistic."""
    (low, high), meta = rule.limits, {"rule": rule.name, "then": rule.then}
    if rule.kind in ("psi", "ks"):
        spread = reference.spread
        assert spread is not None, "lockstep.statistics has judged it before"
        unseen = [] if spread.known is None else [0.0]
        kind = ExpectColumnPsiToBeAtMost if rule.kind == "psi" else ExpectColumnKsToBeAtMost
        bins = {"edges": list(spread.edges), "weights": [*spread.weights, *unseen, spread.null]}
        known = None if spread.known is None else list(spread.known)
        said = f"Expect the {rule.kind} of {rule.column} against its profile to be at most {high:g}"
        return kind(column=rule.column, **bins, known=known, max_value=high, meta=meta, description=said)
    if rule.kind == "null_share":
        bounds = 1 - reference.null_share - high, 1 - reference.null_share + high
        name = "ExpectColumnProportionOfNonNullValuesToBeBetween"
    elif rule.kind == "mean":
        bounds = reference.mean - high * reference.std, reference.mean + high * reference.std  # type: ignore[operator]
        name = "ExpectColumnMeanToBeBetween"
    elif rule.kind == "std":
        bounds, name = (low * reference.std, high * reference.std), "ExpectColumnStdevToBeBetween"  # type: ignore[operator]
    else:
        bounds = math.ceil(low * reference.distinct), math.floor(high * reference.distinct)
        name = "ExpectColumnUniqueValueCountToBeBetween"
    what = "share of values that are not null" if rule.kind == "null_share" else rule.kind
    said = f"Expect the {what} of {rule.column} to be between {bounds[0]:.6g} and {bounds[1]:.6g}"
    asked = {"min_value": bounds[0], "max_value": bounds[1], "meta": meta, "description": said}
    return getattr(gxe, name)(column=rule.column, **asked)


def observe(
    table: str, rules: Sequence[Statistic], files: Sequence[Path], profile: TableProfile, keep: Path | None = None
) -> Mapping[str, tuple[float, bool]]:
    """Return by rule what Great Expectations observes in the partitions `files`, and whether it is content.

    Its own words go to `keep`: see `lockstep.data_docs`.

    Raises
    ------
    GuaranteeError
        An expectation could not run, or not every rule was judged.
    """
    expectations = [expectation(rule, profile.columns[rule.column]) for rule in rules]
    with duckdb_source.batches({table: files}) as found_in:
        name = keep.stem.replace(".", " ") if keep else f"{table} statistics"
        suite = gx.ExpectationSuite(name=name, expectations=expectations)
        result = found_in[table].validate(suite, result_format="BASIC")
    results = result.results
    check_ran(results)
    if keep:
        write_text(json.dumps(result.to_json_dict()), keep)
    kinds = {rule.name: rule.kind for rule in rules}
    found = {}
    for result in results:
        name, value = result.expectation_config.meta["rule"], result.result["observed_value"]
        found[name] = (1 - value if kinds[name] == "null_share" else value, bool(result.success))
    if len(results) != len(rules) or set(found) != set(kinds):
        raise GuaranteeError(
            "not every statistic was judged", where=f"contract {table}", expected=f"{len(rules)} results",
            found=len(results), do="See lockstep/gx_statistics.py.",
        )  # fmt: skip
    return found
